//! What the pillars of a replica and its coordinator tell each other.
//!
//! Message peers, like pillars and stage: the links between them are simulated like network
//! links. Order is kept per link, nothing is lost.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Digest, PillarId, ReplicaId, Seq, StableCheckpoint, View};

use super::roster::Exclusion;

/// What this replica has promised about one number, over all views (design, trap 2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceEntry {
    /// The number.
    pub seq: Seq,
    /// P: what was prepared here, in the highest view in which anything was.
    pub prepared: Option<(View, Digest)>,
    /// Q: what was pre-prepared here, each digest once, with the latest view; ascending by
    /// digest. At most [`PRE_PREPARED_MAX`].
    pub pre_prepared: Vec<(View, Digest)>,
}

impl SliceEntry {
    /// The entry in the one form that is signed; `None` when nothing is promised in it.
    pub(super) fn canonical(mut self) -> Option<SliceEntry> {
        let q = &mut self.pre_prepared;
        // The latest view of each digest, then the latest digests.
        q.sort_unstable_by(|a, b| (a.1, b.0).cmp(&(b.1, a.0)));
        q.dedup_by_key(|(_, digest)| *digest);
        while q.len() > PRE_PREPARED_MAX {
            let lowest = q.iter().enumerate().min_by_key(|(_, (view, _))| *view);
            let index = lowest.map(|(index, _)| index).expect("more than the most are there");
            q.remove(index);
        }
        (self.prepared.is_some() || !self.pre_prepared.is_empty()).then_some(self)
    }
}

/// Most Q entries of one number. Beyond it the entry of the lowest view is dropped, which costs
/// only liveness: fewer replicas then answer for an old proposal.
pub const PRE_PREPARED_MAX: usize = 3;

/// What a NEW-VIEW fixes for one number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Choice {
    /// The null batch.
    Null,
    /// The proposal with this digest.
    Digest(Digest),
}

/// What a NEW-VIEW comes to: the same at every replica that accepts it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The view that begins.
    pub view: View,
    /// The highest checkpoint that a VIEW-CHANGE in it proves: nothing at or below it is voted
    /// on in this view.
    pub start: StableCheckpoint,
    /// What numbers `start.seq + 1 + i` hold, over all pillars, without a gap. The leader goes
    /// on after the last.
    pub choices: Vec<Choice>,
    /// Who does not lead in this view, or not yet, where leaders rotate. Ascending.
    pub excluded: Vec<Exclusion>,
}

impl Plan {
    /// The last number that the plan fixes; its start when it fixes none.
    #[must_use]
    pub fn top(&self) -> Seq {
        Seq(self.start.seq.0 + self.choices.len() as u64)
    }

    /// What the plan fixes for `seq`, if anything.
    #[must_use]
    pub fn choice(&self, seq: Seq) -> Option<Choice> {
        let index = seq.0.checked_sub(self.start.seq.0 + 1)?;
        self.choices.get(usize::try_from(index).ok()?).copied()
    }
}

/// Why a lane wants another leader. Local knowledge: a suspicion, never a proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Grievance {
    /// Instances stand still, or numbers are missing that the leader owes.
    Stalled,
    /// A frame that a quorum has vouched for, as the leader knows, is not ordered.
    Starved,
    /// Frames are ordered, but far slower than the replicas' own rounds take.
    Slow,
    /// A correct replica holds another proposal of the leader for one number.
    Equivocates,
    /// The leader proposes frames that their clients have not signed.
    Forges,
}

/// From a lane to its coordinator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToCoordinator {
    /// The answer to [`FromCoordinator::Stop`]: this pillar votes no more below `view`, and
    /// these are its promises above its low mark, ascending.
    Slice {
        /// Whose.
        pillar: PillarId,
        /// The view that was asked for.
        view: View,
        /// The pillar's low mark, with its certificate.
        stable: StableCheckpoint,
        /// The promises.
        entries: Vec<SliceEntry>,
    },
    /// The leader of `view` is to be replaced.
    Grievance {
        /// The view in which it was felt; stale when the replica has left it.
        view: View,
        /// What is felt.
        what: Grievance,
        /// Whom it is about: the leader, or one of them where they rotate.
        whom: ReplicaId,
    },
    /// Said before a slice, where leaders rotate: who would soon be blamed for a standstill, had
    /// the others not been faster.
    Suspects {
        /// The view that is asked for.
        view: View,
        /// Who.
        whom: ReplicaId,
    },
    /// The pillar has delivered a number beyond all before, in `view`: the view works.
    Progress {
        /// The view.
        view: View,
        /// Up to where this pillar has delivered without a gap.
        delivered: Seq,
    },
    /// The checkpoint is stable and executed here.
    Stable(StableCheckpoint),
    /// The checkpoint is certified by others; this replica is not there yet.
    Ahead(StableCheckpoint),
    /// A quorum has certified another state than this replica's own at this checkpoint.
    Diverged(StableCheckpoint),
    /// The logs of a weak quorum of peers no longer reach back to `missing`.
    LeftBehind {
        /// The lowest number that the pillar lacks.
        missing: Seq,
        /// A low mark of a correct peer.
        stable: Seq,
    },
    /// `signer`'s genuine CHECKPOINT contradicts a certificate: a proof.
    WrongCheckpoint {
        /// Who signed it.
        signer: ReplicaId,
        /// What it signed.
        said: crate::pbft::msg::Checkpoint,
        /// The certificate.
        certified: StableCheckpoint,
    },
}

/// From the coordinator to all lanes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromCoordinator {
    /// Votes in no view below `view` from now on, and hands over its slice. The lane goes on as
    /// a learner: it delivers what is decided elsewhere, answers, and collects. Asked again for
    /// the same view, it hands over its slice again, with the low mark that it has then.
    Stop {
        /// The view that this replica asks for.
        view: View,
    },
    /// The view begins: lanes vote in it from now on. Implies [`FromCoordinator::Stop`] for all
    /// views below. Also said when a life begins, for the view of the lives before: promises that
    /// were made in it still bind.
    Install(Arc<Plan>),
    /// As leader, propose up to this number, with null if need be, at a gentle pace: a
    /// recovering replica, or one that wants a checkpoint to fetch, waits for it.
    Fill(Seq),
    /// From which number on this replica may vote: it may have forgotten votes at or below
    /// `above`. `None`: it votes for nothing at all (design §3.10).
    Voting {
        /// The last number that it must not vote for.
        above: Option<Seq>,
    },
    /// This replica has not begun the view that this one is in, as it says with its wish: its
    /// STATUS names what it waits for. Said again while it says so, once a second at most.
    Elsewhere(ReplicaId),
    /// It has begun that view, or a later one, since [`FromCoordinator::Elsewhere`] was said.
    Arrived(ReplicaId),
    /// The state at this number is on disk: what was fetched, if anything was, is not lost with
    /// this process.
    Saved(Seq),
    /// The checkpoint was certified, as the coordinator has verified: pillars that do not know
    /// it yet take it as one of [`ToCoordinator::Ahead`].
    Certified(StableCheckpoint),
    /// The same; and what is missing here below it is in nobody's log any more. The state is
    /// being fetched, and pillars go on agreeing above this checkpoint without it.
    Float(StableCheckpoint),
}
