//! What a coordinator takes in, wants done, and tells people: the types of its interface.

use alloc::sync::Arc;

use base::transfer::StateMessage;
use base::{
    Epoch, FromStage, GroupId, Incarnation, Quorums, ReplicaId, Seq, Span, StableCheckpoint,
    Stripe, ToStage, View,
};

use super::evidence::Proof;
use super::link::{FromCoordinator, Grievance, ToCoordinator};
use super::msg::GroupMessage;
use super::record::GroupRecord;
use super::rules::Rules;
use crate::outbox::{Target, When};
use crate::pbft::Leaders;

/// What a coordinator must know, the same for its whole life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoordinatorConfig {
    /// The replica.
    pub me: ReplicaId,
    /// This life of its process.
    pub incarnation: Incarnation,
    /// The group.
    pub group: GroupId,
    /// The membership epoch.
    pub epoch: Epoch,
    /// Quorum sizes.
    pub quorums: Quorums,
    /// The striping of sequence numbers.
    pub stripe: Stripe,
    /// L.
    pub window: u64,
    /// K.
    pub checkpoint_interval: u64,
    /// Who leads in a view.
    pub leaders: Leaders,
    /// T: how long a new view may take at first; doubles with each that fails.
    pub view_timeout: Span,
}

impl CoordinatorConfig {
    /// What signed messages of the group are judged by: for [`Proof::verify`].
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            group: self.group,
            epoch: self.epoch,
            quorums: self.quorums,
            window: self.window,
            checkpoint_interval: self.checkpoint_interval,
        }
    }
}

/// How a replica begins this life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// Nothing was promised before: the first start, or everything is on disk.
    Whole,
    /// Votes of earlier lives may be forgotten (design §3.10).
    Forgetful,
}

/// What happens to a coordinator.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message arrived on the link of pillar 0 from `from`.
    Peer {
        /// The sender, as the link proves it.
        from: ReplicaId,
        /// The sender's incarnation, as the link proves it.
        incarnation: Incarnation,
        /// The message.
        message: GroupMessage,
    },
    /// The link of pillar 0 to `peer` is up (again).
    Connected {
        /// The peer.
        peer: ReplicaId,
    },
    /// A pillar says something.
    Lane(ToCoordinator),
    /// The stage says something.
    Stage(FromStage),
    /// The owner wants a certified checkpoint for its disk: [`Effect::Save`] follows once the
    /// next one that can be kept is stable. Asked again meanwhile, it changes nothing.
    SaveCheckpoint {
        /// Whether the group is to be driven to a checkpoint, should it be idle.
        now: bool,
    },
    /// The owner has done with the checkpoint of the last [`Effect::Save`].
    Saved {
        /// It is on disk, or nothing of this replica ever is.
        written: bool,
    },
    /// All inputs of this turn are in: look at the timers.
    Turn,
}

/// One thing that a coordinator wants done. Carried out in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send to the coordinators of other replicas.
    Send {
        /// To whom.
        to: Target,
        /// When it may leave.
        when: When,
        /// What.
        message: GroupMessage,
    },
    /// Send to the stage of another replica, as pillar 0's `Message::State`.
    State {
        /// To whom.
        to: ReplicaId,
        /// What.
        message: StateMessage,
    },
    /// Make a record durable.
    Persist(GroupRecord),
    /// Tell all lanes of this replica. Held back, like a promise, until all records before it
    /// are durable.
    Lanes(FromCoordinator),
    /// Tell the stage.
    Stage(ToStage),
    /// For the owner's disk: the stage holds this checkpoint readable, for
    /// `SnapshotReader::Disk`, until [`Input::Saved`]. Also without being asked, for what was
    /// fetched, which a weak quorum may have signed only.
    Save(StableCheckpoint),
    /// Tell people.
    Fact(GroupFact),
}

/// Something worth telling people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupFact {
    /// This replica has left all views below this one.
    Leaving(View),
    /// This replica votes in this view.
    Installed(View),
    /// It may vote again: whatever it may have forgotten is below this checkpoint.
    Recovered(Seq),
    /// More than f replicas, this one included, say that they may have forgotten votes. Nobody
    /// can tell what was agreed: the group does not go on by itself. The remedy is to restore
    /// it from a snapshot.
    TooManyForgetful(usize),
    /// A checkpoint is being fetched.
    Fetching(Seq),
    /// It was fetched.
    Fetched(Seq),
    /// A replica is faulty, for everybody to see.
    Proof {
        /// Which replica.
        accused: ReplicaId,
        /// Why.
        proof: Arc<Proof>,
    },
    /// A replica seems to be faulty, seen from here. Not a fact unless f + 1 replicas say so.
    Suspicion {
        /// Which replica.
        replica: ReplicaId,
        /// Of what.
        kind: SuspicionKind,
    },
}

/// What a replica may be suspected of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SuspicionKind {
    /// As leader: see [`Grievance`].
    Leader(Grievance),
    /// As the next leader: it did not begin its view in time.
    NoNewView,
    /// It sends what no correct replica sends.
    Garbage,
    /// It holds checkpoints readable that do not verify.
    LyingSource,
}

/// What people may want to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CoordinatorReport {
    /// The view in which this replica votes, or voted last.
    pub view: View,
    /// The view that it asks for instead, if any.
    pub asks_for: Option<View>,
    /// Views installed in this life.
    pub installed: u64,
    /// Whether this replica may not vote yet.
    pub recovering: bool,
    /// Up to which checkpoint it must come before it may, once that is known.
    pub recovers_at: Option<Seq>,
    /// Other replicas that say the same of themselves.
    pub others_recovering: usize,
    /// The checkpoint that is being fetched.
    pub fetching: Option<Seq>,
    /// Proofs against replicas.
    pub proofs: usize,
    /// Messages of peers that were dropped as stale or beyond their budget.
    pub stale: u64,
    /// Messages of peers that no correct replica sends.
    pub misbehaviour: u64,
}
