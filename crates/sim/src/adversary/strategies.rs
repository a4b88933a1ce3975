//! Plans that take more than one message: what [`Behaviour`] says about them, carried out.

use std::sync::Arc;

use base::batch::null_digest;
use base::transfer::{PIECE_BYTES_MAX, StateAnswer, StateMessage};
use base::{Digest, Reader, ReplicaId, Reply, ReplyStatus, Seq, StableCheckpoint, View};
use proto::group::link::SliceEntry;
use proto::group::msg::{GroupMessage, NewView, ViewChange};
use proto::group::roster::Roster;
use proto::group::rules::Rules;
use proto::pbft::msg::{Checkpoint, Message, Proposal, Vote};

use super::behaviour::{Behaviour, Memory};
use super::sign::Signer;
use crate::host::GROUP;
use crate::prng::{Prng, Ratio};

/// Pieces of an object without end, per question.
const PIECES: u64 = 2;
/// How far a storm reaches.
const FAR: u64 = 1_000_000;

/// A faulty replica that says something to another one.
pub(super) struct Strategist<'a> {
    pub(super) signer: Signer<'a>,
    pub(super) rules: &'a Rules,
    pub(super) to: ReplicaId,
}

impl Strategist<'_> {
    /// What is said instead of `message`.
    pub(super) fn says(
        &self,
        behaviour: Behaviour,
        message: Message,
        (memory, prng): (&Memory, &mut Prng),
    ) -> Vec<Message> {
        match (behaviour, message) {
            (Behaviour::NullLeader, message) => vec![self.null(message)],
            (Behaviour::WrongCheckpoints, Message::Checkpoint(checkpoint)) => {
                let mut digest = checkpoint.digest;
                digest.0[7] ^= 1;
                vec![self.signed(Message::Checkpoint(Checkpoint { digest, ..checkpoint }))]
            }
            (Behaviour::StaleCertificates, Message::Group(message)) => {
                vec![self.stale(GroupMessage::clone(&message), memory)]
            }
            (Behaviour::EndlessSource, Message::State(message)) => endless(&message),
            (Behaviour::OtherCheckpoint, Message::State(message)) => {
                other_checkpoint(self.rules, &message, memory, prng)
            }
            (Behaviour::ViewChangeStorm, message) => {
                let mut says = vec![message];
                if prng.chance(Ratio(1, 8)) {
                    says.push(self.signed(group(self.storm(memory, prng))));
                    let (wish, installed) = (View(prng.below(FAR)), View(0));
                    says.push(group(GroupMessage::Wish { wish, installed, recovering: false }));
                }
                says
            }
            (Behaviour::TwoViewChanges, Message::Group(message)) => {
                match GroupMessage::clone(&message) {
                    GroupMessage::ViewChange(mut change) if self.is_odd() => {
                        self.alter(&mut change);
                        vec![group(GroupMessage::ViewChange(change))]
                    }
                    message => vec![group(message)],
                }
            }
            (Behaviour::TwoNewViews, Message::Group(message)) => {
                match GroupMessage::clone(&message) {
                    GroupMessage::NewView(mut new_view) if self.is_odd() => {
                        self.alter_new_view(&mut new_view, memory);
                        vec![group(GroupMessage::NewView(new_view))]
                    }
                    message => vec![group(message)],
                }
            }
            (_, message) => vec![message],
        }
    }

    fn is_odd(&self) -> bool {
        self.to.0 % 2 == 1
    }

    fn signed(&self, mut message: Message) -> Message {
        self.signer.sign(&mut message);
        message
    }

    /// As leader: null, and the votes that go with it.
    fn null(&self, message: Message) -> Message {
        match message {
            Message::PrePrepare { view, seq, .. } => {
                Message::PrePrepare { view, seq, proposal: Proposal::Null }
            }
            Message::Commit(vote) if vote.view.leader(self.signer.n()) == self.signer.me => {
                Message::Commit(Vote { digest: null_digest(GROUP, vote.seq), ..vote })
            }
            message => message,
        }
    }

    /// The same with the oldest certificate there is.
    fn stale(&self, mut message: GroupMessage, memory: &Memory) -> Message {
        let old = memory.oldest.clone().unwrap_or_default();
        match &mut message {
            GroupMessage::ViewChange(change) if change.replica == self.signer.me => {
                let change = Arc::make_mut(change);
                let top = old.seq.0 + self.rules.window;
                change.entries.retain(|entry| entry.seq > old.seq && entry.seq.0 <= top);
                change.stable = old;
            }
            GroupMessage::HaveCheckpoint(stable)
            | GroupMessage::RecoverAck { stable, .. }
            | GroupMessage::HaveState { stable, .. } => *stable = old,
            _ => {}
        }
        self.signed(group(message))
    }

    /// A VIEW-CHANGE for a view far ahead, with a whole window of lies.
    fn storm(&self, memory: &Memory, prng: &mut Prng) -> GroupMessage {
        let far = [4, 100, FAR][prng.below(3) as usize];
        let view = View(1 + prng.below(far));
        let stable = memory.oldest.clone().unwrap_or_default();
        let lies = |seq| {
            let pair = |byte: u8| (View(0), Digest([byte; 32]));
            let pre_prepared = vec![pair(1), pair(2), pair(3)];
            SliceEntry { seq: Seq(seq), prepared: Some(pair(2)), pre_prepared }
        };
        let entries = (stable.seq.0 + 1..=stable.seq.0 + self.rules.window).map(lies).collect();
        self.change(view, stable, entries)
    }

    fn change(
        &self,
        view: View,
        stable: StableCheckpoint,
        entries: Vec<SliceEntry>,
    ) -> GroupMessage {
        GroupMessage::ViewChange(Arc::new(ViewChange {
            replica: self.signer.me,
            incarnation: base::Incarnation(1),
            view,
            stable,
            entries,
            roster: Roster::default(),
            signature: base::Signature([0; 64]),
        }))
    }

    /// Another VIEW-CHANGE for the same view: what it promised last it has never promised.
    fn alter(&self, change: &mut Arc<ViewChange>) {
        if change.replica != self.signer.me {
            return;
        }
        let seq = Seq(change.stable.seq.0 + 1);
        let view = View(change.view.0 - 1);
        let changed = Arc::make_mut(change);
        if changed.entries.pop().is_none() {
            let pair = (view, Digest([5; 32]));
            let lie = SliceEntry { seq, prepared: Some(pair), pre_prepared: vec![pair] };
            changed.entries.push(lie);
        }
        self.signer.change(change);
    }

    /// Another NEW-VIEW for the same view: another quorum, if it knows one, and another
    /// VIEW-CHANGE of its own.
    fn alter_new_view(&self, new_view: &mut Arc<NewView>, memory: &Memory) {
        if new_view.view.leader(self.signer.n()) != self.signer.me {
            return;
        }
        let altered = Arc::make_mut(new_view);
        let others = memory.views.iter().filter_map(|message| match message {
            GroupMessage::ViewChange(change) if change.view == altered.view => Some(change),
            _ => None,
        });
        let known = |change: &&Arc<ViewChange>| {
            altered.changes.iter().all(|one| one.replica != change.replica)
        };
        if let Some(other) = others.clone().find(known).cloned() {
            let mine = self.signer.me;
            if let Some(at) = altered.changes.iter().position(|one| one.replica != mine) {
                altered.changes[at] = other;
                altered.changes.sort_by_key(|change| change.replica);
            }
        }
        for change in &mut altered.changes {
            self.alter(change);
        }
        self.signer.new_view(new_view);
    }
}

fn group(message: GroupMessage) -> Message {
    Message::Group(Arc::new(message))
}

/// Objects become longer than anything, and piece after piece comes unasked.
fn endless(message: &StateMessage) -> Vec<Message> {
    let state = |message| Message::State(Arc::new(message));
    let StateMessage::Tell { checkpoint, answer: StateAnswer::Object { part, object, .. } } =
        message
    else {
        return vec![state(message.clone())];
    };
    let piece = |at: u64| StateAnswer::Object {
        part: *part,
        object: *object,
        total: 1 << 50,
        offset: at * PIECE_BYTES_MAX as u64,
        bytes: vec![0xee; PIECE_BYTES_MAX],
    };
    let pieces = (0..PIECES).map(piece);
    pieces.map(|answer| state(StateMessage::Tell { checkpoint: *checkpoint, answer })).collect()
}

/// The same place of another checkpoint, if one is known; or the same answer under its number.
fn other_checkpoint(
    rules: &Rules,
    message: &StateMessage,
    memory: &Memory,
    prng: &mut Prng,
) -> Vec<Message> {
    let state = |message| vec![Message::State(Arc::new(message))];
    let StateMessage::Tell { checkpoint, answer } = message else {
        return state(message.clone());
    };
    let fits = |old: &StateAnswer| match (old, answer) {
        (StateAnswer::Manifest(_), StateAnswer::Manifest(_)) => true,
        (
            StateAnswer::Nodes { part: a, level: b, first: c, .. },
            StateAnswer::Nodes { part: x, level: y, first: z, .. },
        ) => (a, b, c) == (x, y, z),
        (
            StateAnswer::Object { part: a, object: b, .. },
            StateAnswer::Object { part: x, object: y, .. },
        ) => (a, b) == (x, y),
        _ => false,
    };
    let mut others = memory.answers.iter().filter(|(seq, old)| seq != checkpoint && fits(old));
    match others.next() {
        Some((_, old)) => {
            state(StateMessage::Tell { checkpoint: *checkpoint, answer: old.clone() })
        }
        None if prng.chance(Ratio(1, 2)) => {
            let checkpoint = Seq(checkpoint.0.saturating_sub(rules.checkpoint_interval));
            state(StateMessage::Tell { checkpoint, answer: answer.clone() })
        }
        None => state(message.clone()),
    }
}

/// A reply that is wrong in the same way whoever says it.
pub(super) fn wrong_reply(content: &Arc<Vec<u8>>) -> Option<Arc<Vec<u8>>> {
    let mut reply = Reply::decode(&mut Reader::new(content)).ok()?;
    match reply.frame.id % 3 {
        0 => {
            reply = Reply { status: ReplyStatus::Conflict, count: 0, results: Vec::new(), ..reply };
        }
        1 => reply.seq = Seq(reply.seq.0 + 1),
        _ => {
            if let Some(last) = reply.results.last_mut() {
                *last ^= 1;
            }
        }
    }
    let mut bytes = Vec::new();
    reply.encode(&mut bytes);
    Some(Arc::new(bytes))
}
