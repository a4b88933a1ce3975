//! Faulty replicas and one faulty client: what they send is well-formed and means harm.
//!
//! A faulty replica runs the correct cores and twists, withholds and invents on its way out, at
//! random or in one way of [`Behaviour`]; everything it sends goes through the wire's encoding,
//! as it would have to. The faulty client sends frames to some replicas only, different bodies
//! under one id, and authenticators that are good for some. Not here: bytes that are no messages
//! (decoders have their own tests).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{
    BatchEntry, ClientId, Frame, Incarnation, PillarId, Quorums, ReplicaId, Span, Stripe, View,
};
use proto::group::rules::Rules;
use proto::pbft::Bodies;
use proto::pbft::msg::Message;

use crate::disk::Disk;
use crate::faults::Fault;
use crate::host::GROUP;
use crate::options::Options;
use crate::prng::{Prng, Ratio};
use crate::world::World;

mod behaviour;
mod clients;
mod deeds;
mod fields;
mod forge;
mod frames;
mod fuzz;
mod kind;
mod mutate;
mod random;
mod sample;
mod sign;
mod strategies;
mod touch;

pub use behaviour::Behaviour;
use behaviour::Memory;
use clients::Intruder;
pub use clients::{Assault, Hostile};
pub use deeds::Deeds;
pub use fuzz::Fuzz;
pub use kind::Kind;
use mutate::Mutator;
pub use mutate::{Table, all_fields};
use sign::Signer;

/// Messages and frames that are remembered, to be used again.
const HEARD_MAX: usize = 64;

/// Who is faulty, and what it has picked up.
#[derive(Debug)]
pub struct Adversary {
    replicas: BTreeMap<ReplicaId, Behaviour>,
    /// The faulty client.
    pub client: Option<ClientId>,
    /// The faulty replicas say what correct ones would.
    pub quiet: bool,
    /// Whose copies run at the addresses from n on.
    pub(crate) twins: Vec<ReplicaId>,
    pub(crate) counts: Deeds,
    rules: Rules,
    n: u16,
    /// Whether clients sign.
    signs: bool,
    pillars: u16,
    prng: Prng,
    memory: Memory,
    mutator: Mutator,
    /// Faults at chosen moments.
    fuzz: Option<Fuzz>,
    heard: Vec<Message>,
    entries: Vec<BatchEntry>,
    frames: Vec<Arc<Frame>>,
    intruder: Intruder,
}

impl Adversary {
    /// Nobody is faulty yet.
    ///
    /// # Panics
    /// When the group is too small for its faults.
    #[must_use]
    pub fn new(options: &Options) -> Adversary {
        Adversary {
            replicas: BTreeMap::new(),
            client: None,
            quiet: false,
            twins: Vec::new(),
            counts: Deeds::default(),
            rules: Rules {
                group: GROUP,
                epoch: base::Epoch(0),
                quorums: Quorums::pbft(options.n, options.f).expect("n >= 3f + 1"),
                window: options.window,
                checkpoint_interval: options.checkpoint_interval,
            },
            n: options.n,
            signs: options.travel.bodies == Bodies::Inline,
            pillars: options.pillars,
            prng: Prng::new(options.seed ^ 0xbad),
            memory: Memory::default(),
            mutator: Mutator::default(),
            fuzz: None,
            heard: Vec::new(),
            entries: Vec::new(),
            frames: Vec::new(),
            intruder: Intruder::default(),
        }
    }

    /// Makes `replica` faulty.
    pub fn corrupt(&mut self, replica: ReplicaId, behaviour: Behaviour) {
        self.replicas.insert(replica, behaviour);
    }

    /// Whether `replica` is faulty.
    #[must_use]
    pub fn is_faulty(&self, replica: ReplicaId) -> bool {
        self.replicas.contains_key(&replica)
    }

    /// All that are.
    #[must_use]
    pub fn faulty(&self) -> BTreeSet<ReplicaId> {
        self.replicas.keys().copied().collect()
    }

    fn behaviour(&self, replica: ReplicaId) -> Option<Behaviour> {
        self.replicas.get(&replica).copied().filter(|_| !self.quiet)
    }

    /// `replica` hears `message`: what is faulty in it may use that later.
    pub fn overhears(&mut self, replica: ReplicaId, pillar: PillarId, message: &Message) {
        if self.is_faulty(replica) {
            self.hears(pillar, message);
        }
    }

    /// What `from` sends instead of `message`, and how much later.
    pub fn says(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        pillar: PillarId,
        message: &Message,
    ) -> Vec<(Span, PillarId, Message)> {
        let at_once = |message| vec![(Span(0), pillar, message)];
        if !self.is_faulty(from) {
            return at_once(message.clone());
        }
        if let Message::Nulls(nulls) = message
            && !self.behaviour(from).is_some_and(Behaviour::mutates)
        {
            // Whatever it does to a message, it does to each that this one is short for.
            let stripe = Stripe::new(self.pillars).expect("pillars in range");
            let each = nulls.each(self.rules.group, stripe);
            return each.flat_map(|one| self.says(from, to, pillar, &one)).collect();
        }
        self.hears(pillar, message);
        let Some(behaviour) = self.behaviour(from) else { return at_once(message.clone()) };
        self.counts.twin_messages += u64::from(behaviour == Behaviour::Twin);
        match behaviour {
            Behaviour::Mutate { one_in } => return self.mutates(from, pillar, message, one_in),
            Behaviour::Fuzzed => {
                let lies = self.fuzz.as_ref().is_some_and(|fuzz| fuzz.lies(to, message));
                return match lies {
                    true => self.changed(from, pillar, message).into_iter().collect(),
                    false => at_once(message.clone()),
                };
            }
            Behaviour::StarvePillar(one)
                if one == pillar && matches!(message, Message::PrePrepare { .. }) =>
            {
                return Vec::new();
            }
            _ => {}
        }
        let says = match behaviour {
            Behaviour::Random => {
                self.twist(message.clone()).into_iter().map(|m| (Span(0), m)).collect()
            }
            _ => {
                let mind = (&self.memory, &mut self.prng);
                behaviour.says(&self.rules, (from, to), message.clone(), mind)
            }
        };
        says.into_iter().map(|(after, message)| (after, pillar, message)).collect()
    }

    /// A message with one thing changed, if it can still be read.
    fn changed(
        &mut self,
        me: ReplicaId,
        pillar: PillarId,
        message: &Message,
    ) -> Option<(Span, PillarId, Message)> {
        let signer = Signer::new(&self.rules, me);
        let message = (pillar, message.clone());
        let (pillar, message) = self.mutator.change(&signer, message, &mut self.prng)?;
        (pillar.0 < self.pillars).then_some((Span(0), pillar, message))
    }

    /// What a mutating replica says: now and then something else instead, or as well.
    fn mutates(
        &mut self,
        me: ReplicaId,
        pillar: PillarId,
        message: &Message,
        one_in: u32,
    ) -> Vec<(Span, PillarId, Message)> {
        let mut says = Vec::new();
        let changes = self.prng.chance(Ratio(1, one_in));
        if !changes || self.prng.chance(Ratio(1, 3)) {
            says.push((Span(0), pillar, message.clone()));
        }
        if changes {
            says.extend(self.changed(me, pillar, message));
        }
        if self.prng.chance(Ratio(1, 16)) {
            let signer = Signer::new(&self.rules, me);
            let made = self.mutator.invent(&signer, &mut self.prng);
            let made = made.filter(|(pillar, _)| pillar.0 < self.pillars);
            says.extend(made.map(|(pillar, message)| (Span(0), pillar, message)));
        }
        says
    }

    /// What is left of a message before the cores of `to` see it.
    pub fn takes(&self, to: ReplicaId, pillar: PillarId, message: Message) -> Option<Message> {
        match self.behaviour(to) {
            Some(behaviour) => behaviour.takes(pillar, message),
            None => Some(message),
        }
    }

    /// Whether the lanes of `to` see this client's frames.
    #[must_use]
    pub fn takes_from(&self, to: ReplicaId, client: ClientId) -> bool {
        self.behaviour(to).is_none_or(|behaviour| behaviour.takes_from(client))
    }

    /// The faulty replica hears or wants to say `message`.
    fn hears(&mut self, pillar: PillarId, message: &Message) {
        if self.replicas.values().any(|behaviour| behaviour.mutates()) {
            return self.mutator.hears(pillar, message, &mut self.prng);
        }
        self.memory.hears(message, &mut self.prng);
        let entries = match message {
            Message::Vouch { entries, .. } | Message::Fetch { entries, .. } => &entries[..],
            Message::PrePrepare { proposal, .. } | Message::Decided { proposal, .. } => {
                proposal.entries()
            }
            _ => &[],
        };
        for entry in entries.iter().take(4) {
            keep(&mut self.prng, &mut self.entries, *entry);
        }
        if let Message::Body { frame, .. } | Message::Forward(frame) = message {
            keep(&mut self.prng, &mut self.frames, frame.clone());
        }
        keep(&mut self.prng, &mut self.heard, message.clone());
    }

    /// The reply that leaves `from`, and the view that it names: with a flaw, now and then.
    pub fn replies(
        &mut self,
        from: ReplicaId,
        (view, content): (View, &Arc<Vec<u8>>),
    ) -> (View, Arc<Vec<u8>>) {
        let as_it_is = (view, Arc::clone(content));
        let Some(behaviour) = self.behaviour(from) else { return as_it_is };
        match behaviour {
            Behaviour::Mutate { one_in } if self.prng.chance(Ratio(1, one_in)) => {
                let changed = self.mutator.change_reply((view, content), &mut self.prng);
                changed.unwrap_or(as_it_is)
            }
            Behaviour::WrongReplies | Behaviour::InTheDark(_) => {
                strategies::wrong_reply(content).map_or(as_it_is, |wrong| (view, wrong))
            }
            Behaviour::Random if self.prng.chance(Ratio(1, 2)) => {
                let mut bytes = content.to_vec();
                let at = self.prng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.prng.below(8);
                (view, Arc::new(bytes))
            }
            _ => as_it_is,
        }
    }
}

impl World {
    /// What leaves `from` for `to` instead of `message`, and how much later.
    pub(crate) fn says(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        pillar: PillarId,
        message: &Message,
    ) -> Vec<(Span, PillarId, Message)> {
        let (from, to) = (self.identity(from), self.identity(to));
        let fuzz = self.adversary.fuzz.as_ref().filter(|_| !self.frozen);
        if fuzz.is_some_and(|fuzz| fuzz.drops(from, to, message)) {
            return Vec::new();
        }
        self.adversary.says(from, to, pillar, message)
    }

    /// A faulty replica loses everything that it knew, and begins again as if that were its
    /// first time: in the same life, as far as others can see, or in the next one.
    ///
    /// # Panics
    /// When it is not faulty: a correct one confesses.
    pub fn forget(&mut self, replica: ReplicaId, same_life: bool) {
        assert!(self.adversary.is_faulty(replica), "{replica:?} is correct");
        self.fault(Fault::Crash(replica));
        let host = self.replica(replica);
        host.disk = Disk::default();
        let life = host.incarnation.0;
        if self.begin_as(replica, Incarnation(if same_life { life } else { life + 1 })) {
            self.connect_all(replica);
        }
    }

    /// Lets the faults of `fuzz` happen at their moments, until the world freezes.
    pub fn fuzz(&mut self, fuzz: Fuzz) {
        self.misbehave(fuzz.faulty, Behaviour::Fuzzed);
        self.adversary.fuzz = Some(fuzz);
    }
}

fn keep<T>(prng: &mut Prng, all: &mut Vec<T>, one: T) {
    if all.len() < HEARD_MAX {
        all.push(one);
    } else {
        let at = prng.below(HEARD_MAX as u64) as usize;
        all[at] = one;
    }
}
