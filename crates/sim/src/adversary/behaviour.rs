//! What faulty replicas do on purpose: one way each, with the correct cores behind it.
//!
//! A behaviour changes what leaves the replica, message by message and receiver by receiver.
//! Signed messages are signed again with the faulty replica's own key: it can say what it wants,
//! in its own name only. Not here: the random twists of [`super`].

use std::sync::Arc;

use base::transfer::{StateAnswer, StateMessage};
use base::{AgreedTime, ClientId, Digest, PillarId, ReplicaId, Seq, Span, StableCheckpoint, View};
use proto::group::msg::GroupMessage;
use proto::group::rules::Rules;
use proto::pbft::msg::{Message, Proposal, Vote};

use super::sign::Signer;
use super::strategies::Strategist;
use crate::options::Options;
use crate::prng::{Prng, Ratio};

/// One way to be faulty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Anything, at random: see [`super`].
    Random,
    /// Says nothing at all.
    Silent,
    /// Does everything but propose.
    SilentLeader,
    /// Says that it votes in the view that the others are in, and nothing else.
    Present,
    /// Proposes this many microseconds late.
    SlowLeader(u64),
    /// Orders nothing of this client.
    StarveClient(ClientId),
    /// Tells this replica nothing.
    StarveReplica(ReplicaId),
    /// Tells this replica nothing, and clients what is not so.
    InTheDark(ReplicaId),
    /// Proposes nothing in this pillar.
    StarvePillar(PillarId),
    /// Proposes one batch to some and another to the rest, and votes for both.
    Equivocate,
    /// Answers questions about checkpoints with lies.
    LyingSource,
    /// Signs VIEW-CHANGEs and NEW-VIEWs that say what is not so.
    ForgeViewChange,
    /// Wishes for views at random, far and near.
    WishStorm,
    /// Sends every VIEW-CHANGE and NEW-VIEW that it ever heard again and again.
    ReplayViewChanges,
    /// Proposes null batches instead of clients' frames.
    NullLeader,
    /// Signs CHECKPOINTs of a state that it has not.
    WrongCheckpoints,
    /// Shows the oldest certificate that it knows for the newest.
    StaleCertificates,
    /// Answers with objects that have no end.
    EndlessSource,
    /// Answers with objects of another checkpoint.
    OtherCheckpoint,
    /// Tells clients what is not so, and always the same as its accomplices.
    WrongReplies,
    /// Signs VIEW-CHANGEs for ever higher views, as long as they can be, and asks for NEW-VIEWs.
    ViewChangeStorm,
    /// Signs one VIEW-CHANGE for some and another one for the others.
    TwoViewChanges,
    /// Begins its view with one NEW-VIEW for some and another one for the others.
    TwoNewViews,
    /// Says what it believes, as a copy of it does: see [`crate::twins`].
    Twin,
    /// Changes one field of every so many messages: see `mutate`.
    Mutate {
        /// Of so many messages one is changed.
        one_in: u32,
    },
    /// Changes one field of what it says at chosen moments: see `fuzz`.
    Fuzzed,
}

/// What a behaviour remembers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Signed messages about views.
    pub(super) views: Vec<GroupMessage>,
    /// The oldest certificate.
    pub(super) oldest: Option<StableCheckpoint>,
    /// The highest view that somebody says to have installed.
    pub(super) installed: View,
    /// Answers about checkpoints, with their number.
    pub(super) answers: Vec<(Seq, StateAnswer)>,
}

/// Messages about views that are remembered.
const VIEWS_MAX: usize = 32;

impl Memory {
    /// The faulty replica hears, or wants to say, `message`.
    pub(crate) fn hears(&mut self, message: &Message, prng: &mut Prng) {
        if let Message::Group(message) = message
            && let GroupMessage::Wish { installed, .. } = **message
        {
            self.installed = self.installed.max(installed);
        }
        if let Message::Group(message) = message
            && matches!(**message, GroupMessage::ViewChange(_) | GroupMessage::NewView(_))
        {
            if self.views.len() == VIEWS_MAX {
                self.views.swap_remove(prng.below(VIEWS_MAX as u64) as usize);
            }
            self.views.push(GroupMessage::clone(message));
        }
        if self.oldest.is_none()
            && let Message::Group(message) = message
            && let GroupMessage::RecoverAck { stable, .. }
            | GroupMessage::HaveCheckpoint(stable)
            | GroupMessage::HaveState { stable, .. } = &**message
            && stable.seq > Seq(0)
        {
            self.oldest = Some(stable.clone());
        }
        if self.oldest.is_none()
            && let Message::Group(message) = message
            && let GroupMessage::ViewChange(change) = &**message
            && change.stable.seq > Seq(0)
        {
            self.oldest = Some(change.stable.clone());
        }
        if let Message::State(message) = message
            && let StateMessage::Tell { checkpoint, answer } = &**message
        {
            if self.answers.len() == VIEWS_MAX {
                self.answers.swap_remove(prng.below(VIEWS_MAX as u64) as usize);
            }
            self.answers.push((*checkpoint, answer.clone()));
        }
    }
}

impl Behaviour {
    /// One of all ways, for a plan.
    #[must_use]
    pub fn any(options: &Options, prng: &mut Prng) -> Behaviour {
        let replica = ReplicaId(prng.below(u64::from(options.n)) as u16);
        let pillar = PillarId(prng.below(u64::from(options.pillars)) as u16);
        let us = prng.between(1_000, 2_000_000);
        let one_in = [2, 8, 32][prng.below(3) as usize];
        let all = [
            Behaviour::Random,
            Behaviour::Silent,
            Behaviour::SilentLeader,
            Behaviour::Present,
            Behaviour::SlowLeader(us),
            Behaviour::StarveClient(ClientId(0)),
            Behaviour::StarveReplica(replica),
            Behaviour::InTheDark(replica),
            Behaviour::StarvePillar(pillar),
            Behaviour::Equivocate,
            Behaviour::LyingSource,
            Behaviour::ForgeViewChange,
            Behaviour::WishStorm,
            Behaviour::ReplayViewChanges,
            Behaviour::NullLeader,
            Behaviour::WrongCheckpoints,
            Behaviour::StaleCertificates,
            Behaviour::EndlessSource,
            Behaviour::OtherCheckpoint,
            Behaviour::WrongReplies,
            Behaviour::ViewChangeStorm,
            Behaviour::TwoViewChanges,
            Behaviour::TwoNewViews,
            Behaviour::Mutate { one_in },
        ];
        all[prng.below(all.len() as u64) as usize]
    }

    /// What leaves instead of `message`, and how much later.
    pub(crate) fn says(
        self,
        rules: &Rules,
        (me, to): (ReplicaId, ReplicaId),
        message: Message,
        (memory, prng): (&Memory, &mut Prng),
    ) -> Vec<(Span, Message)> {
        let at_once = |message| vec![(Span(0), message)];
        match (self, message) {
            (Behaviour::Silent, _) => Vec::new(),
            (Behaviour::SilentLeader, Message::PrePrepare { .. }) => Vec::new(),
            (Behaviour::Present, Message::Status { stable, delivered, .. }) => {
                at_once(Message::Status { view: memory.installed, stable, delivered })
            }
            (Behaviour::Present, _) => Vec::new(),
            (Behaviour::SlowLeader(us), message @ Message::PrePrepare { .. }) => {
                vec![(Span::micros(us), message)]
            }
            (Behaviour::StarveReplica(one) | Behaviour::InTheDark(one), _) if one == to => {
                Vec::new()
            }
            (Behaviour::Equivocate, message) => equivocate(to, message),
            (Behaviour::LyingSource, Message::State(message)) => {
                let lie = lie(StateMessage::clone(&message), prng);
                lie.map_or(Vec::new(), |lie| at_once(Message::State(Arc::new(lie))))
            }
            (Behaviour::ForgeViewChange, Message::Group(message)) => {
                let forged = super::forge::forge(rules, me, GroupMessage::clone(&message), prng);
                forged.into_iter().map(|m| (Span(0), Message::Group(Arc::new(m)))).collect()
            }
            (Behaviour::WishStorm, message) => {
                let mut says = at_once(message);
                if prng.chance(Ratio(1, 4)) {
                    says.push((Span(0), Message::Group(Arc::new(wish(prng)))));
                }
                says
            }
            (Behaviour::ReplayViewChanges, message) => {
                let mut says = at_once(message);
                let at = prng.below(memory.views.len() as u64) as usize;
                if let Some(old) = memory.views.get(at).filter(|_| prng.chance(Ratio(1, 4))) {
                    says.push((Span(0), Message::Group(Arc::new(old.clone()))));
                }
                says
            }
            (
                Behaviour::NullLeader
                | Behaviour::WrongCheckpoints
                | Behaviour::StaleCertificates
                | Behaviour::EndlessSource
                | Behaviour::OtherCheckpoint
                | Behaviour::ViewChangeStorm
                | Behaviour::TwoViewChanges
                | Behaviour::TwoNewViews,
                message,
            ) => {
                let strategist = Strategist { signer: Signer::new(rules, me), rules, to };
                let says = strategist.says(self, message, (memory, prng));
                says.into_iter().map(|message| (Span(0), message)).collect()
            }
            (_, message) => at_once(message),
        }
    }

    /// Whether it changes fields of real messages.
    pub(super) fn mutates(self) -> bool {
        matches!(self, Behaviour::Mutate { .. } | Behaviour::Fuzzed)
    }

    /// Whether a lane of the faulty replica is told of this client's frames.
    pub(crate) fn takes_from(self, client: ClientId) -> bool {
        self != Behaviour::StarveClient(client)
    }

    /// What is left of a message on its way in.
    pub(crate) fn takes(self, pillar: PillarId, message: Message) -> Option<Message> {
        match (self, message) {
            (Behaviour::StarveClient(client), Message::Vouch { executed, mut entries }) => {
                entries.retain(|entry| entry.id.client != client);
                Some(Message::Vouch { executed, entries })
            }
            (Behaviour::StarvePillar(one), Message::Vouch { .. }) if one == pillar => None,
            (_, message) => Some(message),
        }
    }
}

/// Odd replicas get a batch with another time, and the votes that go with it.
fn equivocate(to: ReplicaId, message: Message) -> Vec<(Span, Message)> {
    let other = |vote: Vote| {
        let mut digest = vote.digest;
        digest.0[31] ^= 1;
        Vote { digest, ..vote }
    };
    let message = match message {
        Message::PrePrepare { view, seq, proposal } if to.0 % 2 == 1 => {
            let proposal = match proposal {
                Proposal::Frames { time, entries } => {
                    Proposal::Frames { time: AgreedTime(time.0 ^ 1), entries }
                }
                Proposal::Null => Proposal::Null,
            };
            Message::PrePrepare { view, seq, proposal }
        }
        Message::Commit(vote) if to.0 % 3 == 1 => Message::Commit(other(vote)),
        Message::Prepare(vote) if to.0 % 3 == 1 => Message::Prepare(other(vote)),
        message => message,
    };
    vec![(Span(0), message)]
}

fn wish(prng: &mut Prng) -> GroupMessage {
    let view = |prng: &mut Prng| {
        View(match prng.below(4) {
            0 => u64::MAX,
            1 => prng.next_u64(),
            _ => prng.below(20),
        })
    };
    GroupMessage::Wish {
        wish: view(prng),
        installed: view(prng),
        recovering: prng.chance(Ratio(1, 4)),
    }
}

/// An answer with a flaw, or none at all; questions stay as they are.
fn lie(message: StateMessage, prng: &mut Prng) -> Option<StateMessage> {
    let StateMessage::Tell { checkpoint, mut answer } = message else { return Some(message) };
    match prng.below(6) {
        0 => return None,
        1 => answer = StateAnswer::Gone,
        2 => {}
        _ => match &mut answer {
            StateAnswer::Manifest(manifest) => manifest.service = Digest([9; 32]),
            StateAnswer::Nodes { first, digests, .. } => match digests.first_mut() {
                Some(digest) if prng.chance(Ratio(1, 2)) => digest.0[0] ^= 1,
                _ => *first += 1,
            },
            StateAnswer::Object { bytes, total, object, .. } => match prng.below(4) {
                0 => *object += 1,
                1 => *total += 1 << prng.below(40),
                2 => bytes.push(0),
                _ => match bytes.first_mut() {
                    Some(byte) => *byte ^= 1,
                    None => *total = u64::MAX,
                },
            },
            StateAnswer::Gone => {}
        },
    }
    Some(StateMessage::Tell { checkpoint, answer })
}
