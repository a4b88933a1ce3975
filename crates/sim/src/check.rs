//! What must hold in every run, looked at after every step that could break it.
//!
//! Checked here, of correct replicas: agreement and total order (no two deliver different batches
//! at one number, none delivers a number twice in one life), validity (what is delivered was sent
//! by a client), equal checkpoint digests, no two votes of one kind for one number and view, not
//! even over restarts, no vote in a view below one that was left, and that nobody correct is
//! accused. Right answers are the clients' to check; durable-before-promise is the journal's.
//! Not checked here: liveness, which the scenario asserts at its end, and memory bounds.

use std::collections::{BTreeMap, BTreeSet};

use base::{Batch, Digest, ReplicaId, Seq, View};
use proto::group::GroupFact;
use proto::group::msg::GroupMessage;
use proto::pbft::msg::Message;

use crate::host::GROUP;

/// Kinds of promises about a number in a view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Promise {
    Proposal,
    Prepare,
    Commit,
}

/// What the replicas of a group have said and done so far.
#[derive(Debug, Default)]
pub struct Checker {
    delivered: BTreeMap<Seq, (ReplicaId, Vec<Digest>)>,
    checkpoints: BTreeMap<Seq, (ReplicaId, Digest)>,
    /// How often each replica delivered a number in this life.
    seen: BTreeMap<ReplicaId, BTreeMap<Seq, usize>>,
    /// Checkpoints that each replica fetched in this life.
    fetches: BTreeMap<ReplicaId, Vec<Seq>>,
    promises: BTreeMap<(ReplicaId, Promise, View, Seq), Digest>,
    left: BTreeMap<ReplicaId, View>,
    /// Replicas whose state was ever spoilt.
    spoilt: BTreeSet<ReplicaId>,
    /// Frames that a client sent.
    sent: BTreeSet<Digest>,
    counts: Counts,
}

/// What happened, for scenarios that want it to have happened.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Views installed, over all correct replicas.
    pub installed: u64,
    /// The highest view that a correct replica installed.
    pub highest_view: View,
    /// Checkpoints fetched.
    pub fetched: u64,
    /// Recoveries that ended.
    pub recovered: u64,
    /// Times that a replica found too many forgetful ones.
    pub too_many_forgetful: u64,
    /// Who was accused with a proof.
    pub accused: BTreeSet<ReplicaId>,
}

impl Checker {
    /// `replica` delivers `batch` at `seq`.
    ///
    /// # Panics
    /// When another replica delivered something else there, this one did already, or a client
    /// did not send what is in it.
    pub fn delivers(&mut self, replica: ReplicaId, seq: Seq, batch: &Batch) {
        let digests = match batch {
            Batch::Null => vec![Digest::ZERO],
            Batch::Frames { time, frames } => {
                for frame in frames {
                    let known = self.sent.contains(&frame.digest());
                    assert!(known, "{seq:?} has a frame that no client sent: {:?}", frame.id());
                }
                let time = Digest::of(base::digest::Domain::Batch, &time.0.to_le_bytes());
                std::iter::once(time).chain(frames.iter().map(|f| f.digest())).collect()
            }
        };
        let times = self.seen.entry(replica).or_default().entry(seq).or_default();
        *times += 1;
        // What a stage had beyond a checkpoint that it fetched is delivered to it again.
        let fetches = self.fetches.get(&replica).into_iter().flatten();
        let again = fetches.filter(|fetched| **fetched < seq).count();
        assert!(*times <= 1 + again, "{replica:?} delivers {seq:?} twice");
        let (first, known) = self.delivered.entry(seq).or_insert((replica, digests.clone()));
        assert_eq!(*known, digests, "agreement at {seq:?}: {first:?} and {replica:?} differ");
    }

    /// `replica` took a checkpoint.
    ///
    /// # Panics
    /// When another replica's differs.
    pub fn checkpoints(&mut self, replica: ReplicaId, seq: Seq, digest: Digest) {
        let (first, known) = *self.checkpoints.entry(seq).or_insert((replica, digest));
        assert_eq!(known, digest, "checkpoint at {seq:?}: {first:?} and {replica:?} differ");
    }

    /// The digest of the checkpoint at `seq`, if a sound replica took it.
    #[must_use]
    pub fn checkpoint(&self, seq: Seq) -> Option<Digest> {
        self.checkpoints.get(&seq).map(|(_, digest)| *digest)
    }

    /// A client sends a frame.
    pub fn sends(&mut self, frame: Digest) {
        self.sent.insert(frame);
    }

    /// `replica` fetched the checkpoint at `seq`.
    pub fn fetched(&mut self, replica: ReplicaId, seq: Seq) {
        self.counts.fetched += 1;
        self.fetches.entry(replica).or_default().push(seq);
    }

    /// `replica` begins a new life; whether it knows what it has promised.
    pub fn reborn(&mut self, replica: ReplicaId, knows: bool) {
        self.seen.remove(&replica);
        self.fetches.remove(&replica);
        if !knows {
            // Its old VIEW-CHANGEs are void as soon as it may vote again.
            self.left.remove(&replica);
        }
    }

    /// `replica`, which is correct, says `message` to others.
    ///
    /// # Panics
    /// When it contradicts what it said before.
    pub fn says(&mut self, replica: ReplicaId, message: &Message) {
        let (promise, view, seq, digest) = match message {
            Message::PrePrepare { view, seq, proposal } => {
                (Promise::Proposal, *view, *seq, proposal.digest(GROUP, *seq))
            }
            Message::Prepare(vote) => (Promise::Prepare, vote.view, vote.seq, vote.digest),
            Message::Commit(vote) => (Promise::Commit, vote.view, vote.seq, vote.digest),
            Message::Group(message) => {
                if let GroupMessage::ViewChange(change) = &**message
                    && change.replica == replica
                {
                    let left = self.left.entry(replica).or_default();
                    *left = (*left).max(change.view);
                }
                return;
            }
            _ => return,
        };
        let left = self.left.get(&replica).copied().unwrap_or_default();
        assert!(view >= left, "{replica:?} left {left:?} behind and says {message:?}");
        let before = self.promises.entry((replica, promise, view, seq)).or_insert(digest);
        assert_eq!(*before, digest, "{replica:?} contradicts itself: {message:?}");
    }

    /// `replica`, which is correct, tells people something; `faulty` are those that are.
    ///
    /// # Panics
    /// When it accuses a correct replica.
    pub fn learns(&mut self, replica: ReplicaId, fact: &GroupFact, faulty: &BTreeSet<ReplicaId>) {
        match fact {
            GroupFact::Installed(view) => {
                self.counts.installed += 1;
                self.counts.highest_view = self.counts.highest_view.max(*view);
            }
            GroupFact::Recovered(_) => self.counts.recovered += 1,
            GroupFact::TooManyForgetful(_) => self.counts.too_many_forgetful += 1,
            GroupFact::Proof { accused, proof } => {
                let guilty = faulty.contains(accused) || self.spoilt.contains(accused);
                assert!(guilty, "{replica:?} has a proof against {accused:?}: {proof:?}");
                self.counts.accused.insert(*accused);
            }
            _ => {}
        }
    }

    /// The state of `replica` was spoilt: what it signs may prove that.
    pub fn spoils(&mut self, replica: ReplicaId) {
        self.spoilt.insert(replica);
    }

    /// Checkpoints that at least one replica took.
    #[must_use]
    pub fn checkpoint_count(&self) -> usize {
        self.checkpoints.len()
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}
