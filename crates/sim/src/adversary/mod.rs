//! Faulty replicas and one faulty client: what they send is well-formed and means harm.
//!
//! A faulty replica runs the correct cores and twists, withholds and invents on its way out, at
//! random or in one way of [`Behaviour`]; everything it sends goes through the wire's encoding,
//! as it would have to. The faulty client sends frames to some replicas only, different bodies
//! under one id, and authenticators that are good for some. Not here: bytes that are no messages
//! (decoders have their own tests).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::crypto::{ClientKeyring, PlainKeys};
use base::{
    AgreedTime, Authenticator, BatchEntry, ClientId, Digest, Frame, FrameBuilder, FrameId,
    PillarId, Quorums, Reader, ReplicaId, Seq, SessionId, Signature, Span, View,
};
use proto::group::rules::Rules;
use proto::pbft::msg::{Checkpoint, Message, Proposal, Vote};

use crate::host::GROUP;
use crate::options::Options;
use crate::prng::{Prng, Ratio};
use crate::world::World;

mod behaviour;
mod deeds;
mod fields;
mod forge;
mod frames;
mod fuzz;
mod kind;
mod mutate;
mod sample;
mod sign;
mod touch;

pub use behaviour::Behaviour;
use behaviour::Memory;
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
    pillars: u16,
    prng: Prng,
    memory: Memory,
    mutator: Mutator,
    /// Faults at chosen moments.
    fuzz: Option<Fuzz>,
    heard: Vec<Message>,
    entries: Vec<BatchEntry>,
    frames: Vec<Arc<Frame>>,
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
            pillars: options.pillars,
            prng: Prng::new(options.seed ^ 0xbad),
            memory: Memory::default(),
            mutator: Mutator::default(),
            fuzz: None,
            heard: Vec::new(),
            entries: Vec::new(),
            frames: Vec::new(),
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
            Message::Vouch(entries) | Message::Fetch { entries, .. } => &entries[..],
            Message::PrePrepare { proposal, .. } | Message::Decided { proposal, .. } => {
                proposal.entries()
            }
            _ => &[],
        };
        for entry in entries.iter().take(4) {
            keep(&mut self.prng, &mut self.entries, *entry);
        }
        if let Message::Body { frame, .. } = message {
            keep(&mut self.prng, &mut self.frames, frame.clone());
        }
        keep(&mut self.prng, &mut self.heard, message.clone());
    }

    /// What the faulty replica sends instead of `message`.
    fn twist(&mut self, message: Message) -> Vec<Message> {
        match self.prng.below(8) {
            0 => Vec::new(),
            1 => self.invent().into_iter().collect(),
            2 => self.invent().into_iter().chain([message]).collect(),
            3 => self.replay().into_iter().chain([message]).collect(),
            _ => vec![message],
        }
    }

    fn replay(&mut self) -> Option<Message> {
        let at = self.prng.below(self.heard.len() as u64);
        self.heard.get(at as usize).cloned()
    }

    /// A message that nothing justifies, if it can be put on the wire.
    pub fn invent(&mut self) -> Option<Message> {
        let (view, seq, digest) = (self.view(), self.seq(), self.digest());
        let vote = Vote { view, seq, digest };
        let message = match self.prng.below(9) {
            0 => Message::PrePrepare { view, seq, proposal: self.proposal() },
            1 => Message::Prepare(vote),
            2 => Message::Commit(vote),
            3 => Message::Vouch(self.some_entries()),
            4 => Message::Fetch { seq, entries: self.some_entries() },
            5 => {
                let vouched = self.prng.chance(Ratio(1, 2));
                let at = self.prng.below(self.frames.len() as u64) as usize;
                let frame = self.frames.get(at).cloned().unwrap_or_else(|| self.frame().0);
                Message::Body { vouched, frame }
            }
            6 => Message::Checkpoint(Checkpoint { seq, digest, signature: Signature([3; 64]) }),
            7 => Message::Status { view, stable: self.seq(), delivered: self.seq() },
            _ => Message::Decided { seq, proposal: self.proposal() },
        };
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        Message::decode(GROUP, &mut Reader::new(&bytes)).ok()
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
            Behaviour::Random if self.prng.chance(Ratio(1, 2)) => {
                let mut bytes = content.to_vec();
                let at = self.prng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.prng.below(8);
                (view, Arc::new(bytes))
            }
            _ => as_it_is,
        }
    }

    /// Frames of the faulty client, and to whom each goes.
    pub fn attack(&mut self) -> Vec<(Vec<ReplicaId>, Arc<Frame>)> {
        let (one, other) = self.frame();
        let mut sends: Vec<(Vec<ReplicaId>, Arc<Frame>)> = vec![(vec![], one), (vec![], other)];
        let split = self.prng.chance(Ratio(1, 3));
        for replica in (0..self.n).map(ReplicaId) {
            let which = usize::from(split && self.prng.chance(Ratio(1, 2)));
            if self.prng.chance(Ratio(4, 5)) {
                sends[which].0.push(replica);
            }
        }
        sends
    }

    /// Two frames with one identity and different contents.
    fn frame(&mut self) -> (Arc<Frame>, Arc<Frame>) {
        let client = self.client.unwrap_or(ClientId(0));
        let session = SessionId(1 + self.prng.below(3));
        let group = GROUP;
        let (a, b) = (self.authenticator(), self.authenticator());
        if self.prng.chance(Ratio(1, 10)) {
            let open = FrameBuilder::open(group, client, session, a);
            return (Arc::new(open), Arc::new(FrameBuilder::close(group, client, session, b)));
        }
        let stream = [0, 1, base::frame::UNORDERED, u32::MAX][self.prng.below(4) as usize];
        let id = [1, 2, 3, 4, 64, 65, u64::MAX - 1][self.prng.below(7) as usize];
        let id = FrameId { client, session, stream, id };
        let ack = self.prng.below(id.id.min(5));
        // Too short for the service: it has no effect on others' counts.
        let build = |op: &[u8]| {
            let mut builder = FrameBuilder::new();
            builder.push(op);
            builder
        };
        let one = build(b"x").request(group, id, ack, a);
        (Arc::new(one), Arc::new(build(b"y").request(group, id, ack, b)))
    }

    /// An authenticator that is good for some replicas.
    fn authenticator(&mut self) -> impl FnOnce(Digest) -> Authenticator + use<> {
        let (n, spoil) = (self.n, self.prng.next_u64());
        move |digest| {
            let whole = PlainKeys { me: ReplicaId(0), n }.authenticate(digest);
            let Authenticator::Vector(mut macs) = whole else { return whole };
            for (i, mac) in macs.iter_mut().enumerate() {
                mac.0[1] ^= (spoil >> i & 1) as u8;
            }
            Authenticator::Vector(macs)
        }
    }

    fn view(&mut self) -> View {
        let near = self.heard.iter().rev().find_map(|message| match message {
            Message::Prepare(vote) | Message::Commit(vote) => Some(vote.view.0),
            _ => None,
        });
        let near = near.unwrap_or(0);
        View([near, near, near, 0, near.saturating_add(1), u64::MAX][self.prng.below(6) as usize])
    }

    fn seq(&mut self) -> Seq {
        let near = self.heard.iter().rev().find_map(|message| match message {
            Message::Prepare(vote) | Message::Commit(vote) => Some(vote.seq.0),
            _ => None,
        });
        let near = near.unwrap_or(1);
        Seq(match self.prng.below(8) {
            0 => [0, 1, u64::MAX >> 1, u64::MAX][self.prng.below(4) as usize],
            1 => self.prng.below(100),
            2 => near + self.prng.below(2000),
            3 => near / 8 * 8 + 8 * self.prng.below(4),
            _ => near.saturating_sub(4) + self.prng.below(12),
        })
    }

    fn digest(&mut self) -> Digest {
        let at = self.prng.below(self.heard.len() as u64);
        match self.heard.get(at as usize) {
            Some(Message::Prepare(vote) | Message::Commit(vote)) => vote.digest,
            Some(Message::Checkpoint(checkpoint)) => checkpoint.digest,
            _ => Digest([self.prng.below(2) as u8; 32]),
        }
    }

    fn some_entries(&mut self) -> Vec<BatchEntry> {
        let count = self.prng.below(6);
        let mut entries = Vec::new();
        for _ in 0..count {
            let at = self.prng.below(self.entries.len() as u64) as usize;
            let Some(mut entry) = self.entries.get(at).copied() else { break };
            match self.prng.below(4) {
                0 => entry.digest.0[0] ^= 1,
                1 => entry.id.id = self.prng.next_u64(),
                _ => {}
            }
            entries.push(entry);
        }
        entries
    }

    fn proposal(&mut self) -> Proposal {
        if self.prng.chance(Ratio(1, 3)) {
            return Proposal::Null;
        }
        let time = [0, 1_700_000_000_000_000_000, u64::MAX][self.prng.below(3) as usize];
        Proposal::Frames { time: AgreedTime(time), entries: self.some_entries() }
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
