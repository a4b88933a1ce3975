//! What must hold in every run, looked at after every step that could break it: one property a
//! file, each with what it sees, what it does not, and a test that it can fail.
//!
//! | file | property |
//! |---|---|
//! | `agreement` | no two replicas deliver different batches at one number, none delivers twice |
//! | `validity` | what is delivered was sent by the client that it names |
//! | `checkpoints` | equal states at equal numbers |
//! | `executions` | what services see: exactly once, in order, what was delivered and all of it |
//! | `reference` | results and states are those of one server without replicas |
//! | `replies` | clients are told what was executed, every time the same |
//! | `tentative` | tentative replies of a view agree, and what enough of them say comes to be |
//! | `answers` | what clients accept is linearizable, and stays |
//! | `reads` | where reads without an order may stand among the executions |
//! | `contradiction` | nobody correct contradicts what it said, not even after a restart |
//! | `justification` | votes and deliveries have their reasons, from enough distinct replicas |
//! | `memory` | what replicas hold is bounded |
//! | `accountability` | proofs hold for everybody, and name nobody who is correct |
//!
//! Elsewhere: what a service never changes in its state (`crate::work`), durable before promise
//! (`journal`), invariants inside the cores (their `check`), and no panic, which is whoever runs
//! the scenario. An oracle is told what correct replicas do and say; what faulty ones do reaches
//! it through them only.

pub mod accountability;
pub mod agreement;
pub mod answers;
pub mod checkpoints;
pub mod contradiction;
pub mod executions;
pub mod justification;
pub mod memory;
pub mod reads;
pub mod reference;
pub mod replies;
mod sight;
pub mod tentative;
#[cfg(test)]
pub(crate) mod testing;
pub mod validity;

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{Batch, ClientId, Digest, Frame, FrameId, PillarId, ReplicaId, Seq, Stripe, View};
use exec::stage::Stage;
use proto::group::GroupFact;
use proto::pbft::msg::Message;
use proto::pbft::{Lane, Roles};

use accountability::Accountability;
use agreement::Agreement;
use answers::{Answer, Answers};
use checkpoints::Checkpoints;
use contradiction::Contradiction;
use executions::{Executions, Turn};
use justification::Justification;
use memory::Memory;
use proto::group::link::Plan;
use reads::Reads;
use reference::Reference;
use replies::Replies;
use sight::is_checkpoint;
use tentative::Tentative;
use validity::Validity;

use crate::host::{GROUP, lane_config, rules, stripe};
use crate::options::Options;
use crate::work::Work;

/// What an oracle says: nothing, or what is wrong.
pub type Verdict = Result<(), String>;

/// Every oracle of a run.
#[derive(Debug)]
pub struct Oracles {
    agreement: Agreement,
    validity: Validity,
    executions: Executions,
    reference: Reference,
    replies: Replies,
    answers: Answers,
    reads: Reads,
    tentative: Tentative,
    checkpoints: Checkpoints,
    contradiction: Contradiction,
    justification: Justification,
    accountability: Accountability,
    memory: Memory,
    interval: u64,
    stripe: Stripe,
    work: Work,
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

/// # Panics
/// Unless the oracle of that name is content.
fn hold(oracle: &str, verdict: Verdict) {
    if let Err(why) = verdict {
        panic!("{oracle}: {why}");
    }
}

impl Oracles {
    /// Oracles of a world with these options, in which nothing has happened yet. Clients below
    /// their number are correct.
    #[must_use]
    pub fn new(options: &Options) -> Oracles {
        let (rules, clients, work) = (rules(options), options.clients, options.work());
        let roles = Roles::new(&lane_config(options, ReplicaId(0), PillarId(0)));
        Oracles {
            agreement: Agreement::default(),
            validity: Validity::default(),
            executions: Executions::new(clients),
            reference: Reference::new(work.service(), rules.checkpoint_interval),
            replies: Replies::new(clients, options.parallel()),
            answers: Answers::new(options.answers.tentative || options.parallel()),
            reads: Reads::default(),
            tentative: Tentative::new(rules.quorums, clients),
            checkpoints: Checkpoints::new(clients),
            contradiction: Contradiction::new(rules),
            justification: Justification::new(rules, roles),
            accountability: Accountability::new(rules, options.leaders),
            memory: Memory::new(options),
            interval: rules.checkpoint_interval,
            stripe: stripe(options),
            work,
            counts: Counts::default(),
        }
    }

    /// `client` itself sends a frame.
    ///
    /// # Panics
    /// When the frame is in another's name.
    pub fn sends(&mut self, client: ClientId, frame: &Frame) {
        hold("validity", self.validity.sends(client, frame));
        self.replies.sends(frame);
    }

    /// `replica` delivers `batch` at `seq` to its execution.
    ///
    /// # Panics
    /// When an oracle objects.
    pub fn delivers(&mut self, replica: ReplicaId, seq: Seq, batch: &Arc<Batch>) {
        hold("validity", self.validity.delivers(seq, batch));
        hold("justification", self.justification.delivers(replica, seq, batch));
        hold("agreement", self.agreement.delivers(replica, seq, batch));
    }

    /// The state of `replica` is that of a checkpoint now.
    pub fn jumps(&mut self, replica: ReplicaId, to: Seq) {
        self.executions.jumps(replica, to);
    }

    /// A replica has executed.
    ///
    /// # Panics
    /// When an oracle objects.
    pub fn executes(&mut self, turn: &Turn<'_>) {
        let Oracles { executions, agreement, reference, reads, .. } = self;
        let batch = |seq| agreement.batch(seq).map(|batch| &**batch);
        let fresh = |seq, batch: &Batch, done: &mut _| {
            reference.follows(seq, batch, done)?;
            reads.follows(seq, batch, done);
            Ok(())
        };
        hold("executions", executions.executes(turn, batch, fresh));
        hold("replies", self.replies.proceed(&self.executions, turn.upto));
        for due in self.tentative.due(turn.upto) {
            // Whoever said so had a sound state.
            let who = (turn.replica, true);
            let says = self.replies.says(&self.executions, who, due.frame, &due.content);
            hold("tentative", says);
        }
        hold("answers", self.answers.proceed((&self.executions, &self.reads)));
    }

    /// `replica`, which is sound or not, answers `frame`.
    ///
    /// # Panics
    /// When an oracle objects.
    pub fn replies(&mut self, who: (ReplicaId, bool), frame: FrameId, content: &Arc<Vec<u8>>) {
        hold("replies", self.replies.hears(&self.executions, who, frame, content));
    }

    /// `replica`, which is sound, answers `frame` tentatively.
    ///
    /// # Panics
    /// When an oracle objects.
    pub fn replies_tentatively(
        &mut self,
        replica: ReplicaId,
        view: View,
        frame: FrameId,
        content: &Arc<Vec<u8>>,
    ) {
        hold("tentative", self.tentative.says(replica, view, frame, content));
    }

    /// A correct client accepts an answer.
    ///
    /// # Panics
    /// When an oracle objects.
    pub fn accepts(&mut self, answer: &Answer) {
        hold("answers", self.answers.accepts((&self.executions, &self.reads), answer));
    }

    /// Whether clients have accepted what nobody has executed for good.
    #[must_use]
    pub fn awaits(&self) -> bool {
        self.answers.awaits()
    }

    /// The stage of `replica`, which is sound, has worked.
    ///
    /// # Panics
    /// When its state is not the right one.
    pub fn states(&mut self, replica: ReplicaId, stage: &Stage) {
        let report = stage.report();
        hold("reference", self.reference.root(report.checkpoint, report.state_root));
        // A stage that fetches holds half another state. So does one that executes tentatively,
        // or has workers who are ahead.
        if stage.is_between() && is_checkpoint(report.executed, self.interval) {
            let sessions = self.checkpoints.sessions(replica, report.executed, stage.sessions());
            hold("checkpoints", sessions);
            hold("service", self.work.invariant(stage.service()));
        }
    }

    /// The last number of which a client has accepted anything.
    #[must_use]
    pub fn answered(&self) -> Seq {
        self.answers.last()
    }

    /// Whether all that clients have accepted is executed for good.
    #[must_use]
    pub fn answers_stand(&self) -> bool {
        self.answers.stand()
    }

    /// All is over for `replica`, with this stage if its state must be right.
    ///
    /// # Panics
    /// When an oracle objects.
    pub fn ends(&mut self, replica: ReplicaId, stage: Option<&Stage>) {
        let Some(stage) = stage else { return };
        let executed = stage.report().executed;
        hold("answers", self.answers.kept(executed));
        hold("service", self.work.invariant(stage.service()));
        hold("reference", self.reference.state(executed, stage.service()));
        let sessions = self.checkpoints.sessions(replica, executed, stage.sessions());
        hold("checkpoints", sessions);
    }

    /// What a lane of a correct replica holds.
    ///
    /// # Panics
    /// When that is too much.
    pub fn holds(&mut self, replica: ReplicaId, lane: &Lane, pillar: PillarId) {
        hold("memory", self.memory.lane(replica, pillar, &lane.holdings()));
    }

    /// What the stage of a correct replica holds.
    ///
    /// # Panics
    /// When that is too much.
    pub fn holds_in_stage(&mut self, replica: ReplicaId, stage: &Stage) {
        hold("memory", self.memory.stage(replica, stage));
    }

    /// The most that was held of everything.
    #[must_use]
    pub fn peak(&self) -> memory::Peak {
        self.memory.peak()
    }

    /// The history of executions.
    #[must_use]
    pub fn executions(&self) -> &Executions {
        &self.executions
    }

    /// How often each kind of reply was given by correct replicas.
    #[must_use]
    pub fn reply_counts(&self) -> replies::Counts {
        self.replies.counts()
    }

    /// `replica`, whose memory is sound, took a checkpoint.
    ///
    /// # Panics
    /// When another replica's differs.
    pub fn checkpoints(&mut self, replica: ReplicaId, seq: Seq, digest: Digest) {
        hold("checkpoints", self.checkpoints.takes(replica, seq, digest));
    }

    /// The digest of the checkpoint at `seq`, if a sound replica took it.
    #[must_use]
    pub fn checkpoint(&self, seq: Seq) -> Option<Digest> {
        self.checkpoints.digest(seq)
    }

    /// How many of these numbers were delivered with frames.
    pub(crate) fn with_frames(&self, numbers: impl Iterator<Item = Seq>) -> u64 {
        let delivered = numbers.filter_map(|seq| self.agreement.batch(seq));
        let has =
            |batch: &Batch| matches!(batch, Batch::Frames { frames, .. } if !frames.is_empty());
        delivered.filter(|batch| has(batch)).count() as u64
    }

    /// `replica` fetched the checkpoint at `seq`.
    pub fn fetched(&mut self, replica: ReplicaId, seq: Seq) {
        self.counts.fetched += 1;
        self.agreement.fetched(replica, seq);
    }

    /// `replica` begins a new life; whether it knows what it has promised, and what its log says.
    ///
    /// # Panics
    /// When that is too much.
    pub fn reborn(&mut self, replica: ReplicaId, knows: bool, found: &memory::Found) {
        hold("memory", self.memory.reborn(replica, found));
        self.agreement.reborn(replica);
        self.contradiction.reborn(replica, knows);
        self.justification.reborn(replica, knows);
    }

    /// `replica`, which is correct, says `message` to others.
    ///
    /// # Panics
    /// When it contradicts what it said before.
    pub fn says(&mut self, replica: ReplicaId, message: &Message) {
        if let Message::Nulls(nulls) = message {
            let each = nulls.each(GROUP, self.stripe);
            return each.for_each(|one| self.says(replica, &one));
        }
        hold("contradiction", self.contradiction.says(replica, message));
        hold("justification", self.justification.says(replica, message));
    }

    /// `to`, which is correct, hears `message` from `from`.
    pub fn hears(&mut self, to: ReplicaId, from: ReplicaId, message: &Message) {
        if let Message::Nulls(nulls) = message {
            let each = nulls.each(GROUP, self.stripe);
            return each.for_each(|one| self.hears(to, from, &one));
        }
        self.justification.hears(to, from, message);
    }

    /// `replica`, which is correct, begins the view of this plan.
    pub fn installs(&mut self, replica: ReplicaId, plan: &Arc<Plan>) {
        self.justification.installs(replica, plan);
    }

    /// `replica`, which is correct, tells people something; `faulty` are those that are.
    ///
    /// # Panics
    /// When it accuses a correct replica, or nobody else could check what it says.
    pub fn learns(&mut self, replica: ReplicaId, fact: &GroupFact, faulty: &BTreeSet<ReplicaId>) {
        match fact {
            GroupFact::Installed(view) => {
                self.counts.installed += 1;
                self.counts.highest_view = self.counts.highest_view.max(*view);
            }
            GroupFact::Recovered(_) => self.counts.recovered += 1,
            GroupFact::TooManyForgetful(_) => self.counts.too_many_forgetful += 1,
            GroupFact::Proof { accused, proof } => {
                let proves = self.accountability.proves(replica, *accused, proof, faulty);
                hold("accountability", proves);
                self.counts.accused.insert(*accused);
            }
            GroupFact::Suspicion { replica: whom, kind } => {
                let suspects = self.accountability.suspects(replica, *whom, *kind, faulty);
                hold("accountability", suspects);
            }
            _ => {}
        }
    }

    /// `replica`, which is correct, refuses what `from` sends as nothing that a correct one does;
    /// `faulty` are those that are not.
    ///
    /// # Panics
    /// When `from` is correct.
    pub fn refuses(
        &self,
        replica: ReplicaId,
        sin: (ReplicaId, &str),
        faulty: &BTreeSet<ReplicaId>,
    ) {
        hold("accountability", self.accountability.refuses(replica, sin, faulty));
    }

    /// The state of `replica` was spoilt: what it signs may prove that.
    pub fn spoils(&mut self, replica: ReplicaId) {
        self.accountability.spoils(replica);
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
