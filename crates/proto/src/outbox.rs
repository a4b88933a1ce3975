//! What a lane wants done: the only way out of a core.
//!
//! The owner carries out everything in the outbox, in order, before it steps the lane again.
//! A message with [`When::Durable`] may leave only once every record pushed before it is on
//! disk; with durability `memory` that is at once.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Batch, Digest, ReplicaId, Seq, Sibling, ToStage, View};

use crate::group::link::ToCoordinator;
use crate::pbft::msg::{Message, Proposal};

/// Whom a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The same pillar of every other replica.
    All,
    /// The same pillar of one other replica.
    One(ReplicaId),
}

/// When a message may leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At once.
    Now,
    /// Once all records so far are durable: the message promises what they say.
    Durable,
    /// Once that is so, and all that any pillar of this replica has handed to execution up to
    /// this number is durable, too: the message says that it can be had from here.
    Settled(Seq),
}

/// What must survive a crash before a promise leaves (design §3.9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Q: this proposal was pre-prepared in `view`. Its bodies belong to the record.
    PrePrepared {
        /// The view.
        view: View,
        /// The number.
        seq: Seq,
        /// What was proposed.
        proposal: Proposal,
        /// The same with its bodies.
        batch: Arc<Batch>,
    },
    /// P: this digest was prepared in `view`.
    Prepared {
        /// The view.
        view: View,
        /// The number.
        seq: Seq,
        /// The digest.
        digest: Digest,
    },
    /// Only a CHECKPOINT waits for this one: else it saves asking the others after a restart. The
    /// proposal with this digest is committed. Its bodies are in the record of its
    /// pre-preparation, or, where this replica never voted for it, in `batch`.
    Committed {
        /// The number.
        seq: Seq,
        /// The digest.
        digest: Digest,
        /// The batch, where no [`Record::PrePrepared`] of this digest holds it.
        batch: Option<(Proposal, Arc<Batch>)>,
    },
    /// The coordinator's: see [`crate::group`].
    Group(crate::group::record::GroupRecord),
}

/// Something worth telling people: logged and counted by the owner, never acted upon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// A checkpoint became stable.
    Stable {
        /// Its number.
        seq: Seq,
        /// Its digest.
        digest: Digest,
    },
    /// A quorum agrees on a state that is not this replica's: this replica has diverged.
    Diverged {
        /// The checkpoint.
        seq: Seq,
        /// This replica's digest.
        mine: Digest,
        /// The quorum's digest.
        theirs: Digest,
    },
    /// The others are so far ahead that their logs no longer reach back to this replica.
    LeftBehind {
        /// The lowest number this pillar lacks.
        missing: Seq,
        /// A checkpoint that is stable elsewhere.
        stable: Seq,
    },
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a message to peers.
    Send {
        /// To whom.
        to: Target,
        /// When it may leave.
        when: When,
        /// What.
        message: Message,
    },
    /// Make a record durable. Later messages with [`When::Durable`] wait for it.
    Persist(Record),
    /// Tell the execution stage.
    Stage(ToStage),
    /// Tell all sibling pillars of this replica.
    Siblings(Sibling),
    /// Tell the coordinator of this replica.
    Coordinator(ToCoordinator),
    /// Tell people.
    Fact(Fact),
}

/// Effects in the order in which they are to be carried out. Reused from step to step.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    effects: Vec<Effect>,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Sends `message` at once.
    pub fn send(&mut self, to: Target, message: Message) {
        self.effects.push(Effect::Send { to, when: When::Now, message });
    }

    /// Sends `message` once all records so far are durable.
    pub fn promise(&mut self, to: Target, message: Message) {
        let when = if base::mutant!(VotesBeforeDurable) { When::Now } else { When::Durable };
        self.effects.push(Effect::Send { to, when, message });
    }

    /// Sends `message` once everything that was handed to execution up to `seq` is durable.
    pub fn settled(&mut self, to: Target, seq: Seq, message: Message) {
        self.effects.push(Effect::Send { to, when: When::Settled(seq), message });
    }

    /// Makes `record` durable.
    pub fn persist(&mut self, record: Record) {
        self.effects.push(Effect::Persist(record));
    }

    /// Tells the execution stage.
    pub fn stage(&mut self, message: ToStage) {
        self.effects.push(Effect::Stage(message));
    }

    /// Tells the sibling pillars.
    pub fn siblings(&mut self, message: Sibling) {
        self.effects.push(Effect::Siblings(message));
    }

    /// Tells the coordinator.
    pub fn coordinator(&mut self, message: ToCoordinator) {
        self.effects.push(Effect::Coordinator(message));
    }

    /// Tells people.
    pub fn fact(&mut self, fact: Fact) {
        self.effects.push(Effect::Fact(fact));
    }

    /// Takes the effects out, in order, keeping the allocation.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> {
        self.effects.drain(..)
    }

    /// Puts what `joined` makes of the last promise to all in its place, and at the end, unless it
    /// makes nothing of it, or there is something else behind the promise than records and
    /// deliveries. Whether it was put there.
    pub(crate) fn join(&mut self, joined: impl Fn(&Message) -> Option<Message>) -> bool {
        let passed = |effect: &&Effect| {
            matches!(effect, Effect::Persist(_) | Effect::Stage(ToStage::Deliver { .. }))
        };
        let behind = self.effects.iter().rev().take_while(passed).count();
        let Some(place) = self.effects.len().checked_sub(behind + 1) else { return false };
        let Effect::Send { to: Target::All, when: When::Durable, message } =
            &mut self.effects[place]
        else {
            return false;
        };
        let Some(more) = joined(message) else { return false };
        *message = more;
        self.effects[place..].rotate_left(1);
        true
    }

    /// The effects, without taking them.
    #[must_use]
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}
