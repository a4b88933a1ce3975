//! Turns what happens into sights and lines of the story.

use base::transfer::StateMessage;
use base::{Batch, PillarId, ReplicaId, Span};
use proto::group::GroupFact;
use proto::group::link::{Choice, Plan};
use proto::group::msg::GroupMessage;
use proto::outbox::Fact;
use proto::pbft::msg::Message;

use crate::coverage::Sight;
use crate::faults::{Fault, Shape};
use crate::host::Condition;
use crate::storage::DiskFault;
use crate::world::World;

/// Views above this one are high.
const HIGH: u64 = 4;

impl World {
    /// A core of `replica` has called what somebody sent a sin.
    pub(crate) fn refuses(&mut self, replica: ReplicaId, sin: Option<(ReplicaId, &str)>) {
        if let Some(sin) = sin.filter(|_| !self.adversary.is_faulty(replica)) {
            self.checker.refuses(replica, sin, &self.adversary.faulty());
        }
    }

    /// A message arrives at `to`, which is up.
    pub(crate) fn watch_message(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        pillar: PillarId,
        message: &Message,
    ) {
        self.note_message(|| format!("{from:?} to {to:?} {pillar:?}: {message:?}"));
        let sight = match message {
            Message::Fetch { .. } => Sight::FetchesBody,
            Message::Body { .. } => Sight::GivesBody,
            Message::Forward(_) => Sight::Forwards,
            Message::Nulls(_) => Sight::NullRun,
            Message::Decided { .. } => Sight::Decided,
            Message::FetchProposal { .. } => Sight::FetchesProposal,
            Message::ProposalIs { .. } => Sight::GivesProposal,
            Message::Endorse { .. } => Sight::Endorse,
            Message::Owed { .. } => Sight::Owed,
            Message::Group(message) => match &**message {
                GroupMessage::ViewChange(_) => Sight::ViewChange,
                GroupMessage::NewView(_) => Sight::NewView,
                GroupMessage::Recover(_) => Sight::Recover,
                GroupMessage::RecoverAck { .. } => Sight::RecoverAck,
                GroupMessage::Seek(_) => Sight::Seek,
                GroupMessage::WantCheckpoint { .. } => Sight::WantsCheckpoint,
                GroupMessage::HaveCheckpoint(_) => Sight::HasCheckpoint,
                GroupMessage::Evidence(_) => Sight::Evidence,
                GroupMessage::HaveState { .. } => Sight::HasState,
                GroupMessage::Wish { .. } => return,
            },
            Message::State(message) => match **message {
                StateMessage::Ask { .. } => Sight::StateAsked,
                StateMessage::Tell { .. } => Sight::StateTold,
            },
            Message::PrePrepare { .. }
            | Message::Prepare(_)
            | Message::Commit(_)
            | Message::Vouch { .. }
            | Message::Checkpoint(_)
            | Message::Status { .. } => return,
        };
        self.saw(sight);
    }

    /// What a faulty replica sends instead of `message`.
    pub(crate) fn watch_lie(
        &mut self,
        (from, to): (ReplicaId, ReplicaId),
        message: &Message,
        says: &[(Span, PillarId, Message)],
    ) {
        if let [(Span(0), _, only)] = says
            && only == message
        {
            return;
        }
        self.saw(Sight::Lie);
        self.note_message(|| format!("{from:?} lies to {to:?}: {says:?} instead of {message:?}"));
    }

    /// A coordinator tells people something.
    pub(crate) fn watch_fact(&mut self, replica: ReplicaId, fact: &GroupFact) {
        let sight = match fact {
            GroupFact::Leaving(_) => Sight::LeavesView,
            GroupFact::Installed(view) => {
                if view.0 > HIGH {
                    self.saw(Sight::HighView);
                }
                Sight::InstallsView
            }
            GroupFact::Recovered(_) => Sight::Recovered,
            GroupFact::TooManyForgetful(_) => Sight::TooManyForgetful,
            GroupFact::Fetching(_) => Sight::Fetching,
            GroupFact::Fetched(_) => Sight::Fetched,
            GroupFact::Proof { .. } => Sight::Proof,
            GroupFact::Suspicion { .. } => Sight::Suspicion,
        };
        self.saw(sight);
        self.note(|| match fact {
            // The proof itself is long.
            GroupFact::Proof { accused, .. } => format!("{replica:?} has a proof: {accused:?}"),
            fact => format!("{replica:?} says {fact:?}"),
        });
    }

    /// A stage has worked: has it executed tentatively, or taken something back?
    pub(crate) fn watch_tentative(&mut self, replica: ReplicaId) {
        let host = self.replica(replica);
        let now = host.stage.tentative_report();
        let before = std::mem::replace(&mut host.tentative, now);
        let count = |now: u64, before: u64| now.saturating_sub(before);
        for _ in 0..count(now.executed, before.executed) {
            self.saw(Sight::Tentative);
        }
        for _ in 0..count(now.rolled_back, before.rolled_back) {
            self.saw(Sight::RolledBack);
            self.note(|| format!("{replica:?} takes a tentative batch back"));
        }
    }

    /// A lane tells people something.
    pub(crate) fn watch_lane(&mut self, replica: ReplicaId, pillar: PillarId, fact: &Fact) {
        let sight = match fact {
            Fact::Stable { .. } => Sight::Stable,
            Fact::Diverged { .. } => Sight::Diverged,
            Fact::LeftBehind { .. } => Sight::LeftBehind,
        };
        self.saw(sight);
        match fact {
            Fact::Stable { seq, .. } => {
                let (seq, window) = (*seq, self.options.window);
                if let Some(story) = &mut self.story
                    && seq.0 >= story.stable.0 + window
                {
                    story.stable = seq;
                    self.note(|| format!("{replica:?} {pillar:?} has {seq:?} stable"));
                }
            }
            fact => self.note(|| format!("{replica:?} {pillar:?} says {fact:?}")),
        }
    }

    /// A coordinator begins a view in its lanes.
    pub(crate) fn watch_plan(&mut self, plan: &Plan) {
        if plan.choices.is_empty() {
            self.saw(Sight::PlanEmpty);
        }
        for choice in &plan.choices {
            self.saw(match choice {
                Choice::Null => Sight::ChosenNull,
                Choice::Digest(_) => Sight::ChosenDigest,
            });
        }
    }

    /// A lane delivers a batch.
    pub(crate) fn watch_delivery(&mut self, batch: &Batch) {
        self.saw(match batch {
            Batch::Null => Sight::NullDelivered,
            Batch::Frames { .. } => Sight::FramesDelivered,
        });
    }

    /// A planned fault is about to happen: does it meet requests under way?
    pub(crate) fn watch_load(&mut self, fault: &Fault) {
        let waits = self.clients.iter().any(|client| !client.asked.is_empty());
        if waits && fault.begins() {
            self.saw(Sight::FaultUnderLoad);
        }
    }

    /// A fault happens.
    pub(crate) fn watch_fault(&mut self, fault: &Fault) {
        let idle = match fault {
            Fault::Restart(replica) => self.condition(*replica) != Condition::Dead,
            Fault::Crash(replica) | Fault::PowerFails(replica) => {
                self.condition(*replica) == Condition::Dead
            }
            Fault::Sluggish(_, _, us) => *us == 0,
            _ => false,
        };
        if idle {
            return;
        }
        self.note(|| format!("** {fault:?}"));
        let sight = match fault {
            Fault::Cut(..) => Sight::LinkCut,
            Fault::Slow(..) => Sight::LinkSlow,
            Fault::Part(Shape::Halves, _) => Sight::Halves,
            Fault::Part(Shape::Alone, _) => Sight::Alone,
            Fault::Part(Shape::Deaf | Shape::Mute, _) => Sight::OneWay,
            Fault::Part(Shape::Ring | Shape::Star | Shape::Any, _) => Sight::NonTransitive,
            Fault::Clog(..) => Sight::Clogged,
            Fault::ClockJumps(..) => Sight::ClockJumps,
            Fault::ClockDrifts(..) => Sight::ClockDrifts,
            Fault::Heal | Fault::Mend(..) | Fault::Restore(..) => Sight::Healed,
            Fault::Weather(_) => Sight::Weather,
            Fault::Crash(_) => Sight::Crash,
            Fault::PowerFails(_) => Sight::PowerFails,
            Fault::Restart(_) => Sight::Restart,
            Fault::LoseDisk(_) => Sight::DiskLost,
            Fault::Pause(_) => Sight::Pause,
            Fault::Continue(_) => Sight::Continue,
            Fault::Spoil(_) => Sight::Spoilt,
            Fault::Sluggish(..) => Sight::Sluggish,
            // Seen when it has happened.
            Fault::Disk(..) => return,
        };
        self.saw(sight);
    }

    /// What a disk was to do wrong and has done.
    pub(crate) fn watch_disk(&mut self, replica: ReplicaId) {
        for fault in self.replica(replica).disk.storage.take_done() {
            self.note(|| format!("** the disk of {replica:?} has done it: {fault:?}"));
            self.saw(match fault {
                DiskFault::Rot(_) => Sight::Rot,
                DiskFault::StopAfter(_) => Sight::MachineStops,
                DiskFault::FailSync => Sight::SyncFails,
                DiskFault::LoseWrite => Sight::WriteLost,
                DiskFault::CorruptWrite => Sight::WriteCorrupted,
                DiskFault::MisdirectWrite => Sight::WriteMisdirected,
                DiskFault::MisdirectRead => Sight::ReadMisdirected,
                DiskFault::Tear => Sight::SectorTorn,
            });
        }
    }
}
