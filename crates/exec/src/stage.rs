//! The execution stage of one replica: total-order merge, exactly-once, the service, checkpoints.
//!
//! The owner feeds it [`ToStage`] messages with [`Stage::on`], then calls [`Stage::run`], which
//! does a bounded amount of work and leaves [`FromStage`] messages in a [`StageOutbox`]. The
//! owner carries the outbox out completely, in order. The stage never asks for the time, never
//! blocks and starts nothing by itself; the pillars are its peers, not its callers.
//!
//! What a batch does, in this order:
//! 1. null: nothing; its agreed time is the previous one plus 1;
//! 2. frames: time = max(previous + 1, proposed); [`Service::wake`] if its deadline has come;
//! 3. frame by frame: the session table decides; what it lets through executes, operation by
//!    operation, indexed from 1 through the whole batch, refused frames included; one reply;
//! 4. after number k·K: the checkpoint digest goes to the pillar in charge of the k-th
//!    checkpoint (COP §4.2.2).
//!
//! The parallelizer will sit in step 3, between the table's decision and `Engine::advance`.
//!
//! Invariants:
//! 1. a batch executes at most once, in the order of numbers, without a gap;
//! 2. state, table, time and replies are a function of the delivered batches: neither the order
//!    of their delivery nor the budgets of [`Stage::run`] matter;
//! 3. what is stored is bounded: the window of batches, the table, the outputs not fetched.
//!
//! Not here yet: nobody fetches the service's outputs ([`Stage::take_outputs`] keeps a bounded
//! queue and counts what it drops); a stage that fell behind a stable checkpoint has no way to
//! fetch the state.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use base::digest::{Domain, Hasher};
use base::{
    AgreedTime, Batch, BatchEntry, Digest, FrameId, FromStage, GroupId, PillarId, Progress,
    ReplyStatus, Seq, StableCheckpoint, Stripe, ToStage,
};

use crate::engine::{Advance, Engine, Position, Running};
use crate::merge::{Merge, Undeliverable};
use crate::reply::status_reply;
use crate::service::{Output, Service};
use crate::session::{Decision, SessionCounts, Sessions};

/// Own checkpoints that are remembered until they are stable.
const CHECKPOINTS_MAX: usize = 64;

/// What a stage is told at its start. The same at every replica of the group, but for `window`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StageConfig {
    /// The group, bound into the checkpoint digest.
    pub group: GroupId,
    /// The striping of numbers over pillars.
    pub stripe: Stripe,
    /// Batches between two checkpoints, at least 1.
    pub checkpoint_interval: u64,
    /// How far beyond the last executed number a delivery may be, at least 1. At least the
    /// agreement window plus one checkpoint interval, or agreed batches are refused.
    pub window: u64,
}

/// The execution stage of one replica.
pub struct Stage {
    config: StageConfig,
    merge: Merge,
    sessions: Sessions,
    engine: Engine,
    cursor: Option<Cursor>,
    executed: Seq,
    time: AgreedTime,
    /// Own checkpoints not known to be stable, oldest first.
    unstable: VecDeque<(Seq, Digest)>,
    /// The last gap that was told.
    told_gap: Option<(Seq, Seq)>,
    told: Progress,
    report: StageReport,
}

/// Where a message of the stage goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// To every pillar of the replica.
    All,
    /// To one pillar.
    Pillar(PillarId),
}

/// What the stage wants to be carried out, in order. The owner empties it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StageOutbox {
    /// Messages and where they go.
    pub messages: Vec<(Target, FromStage)>,
}

/// What [`Stage::run`] ended with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Nothing to do until the next delivery.
    Idle,
    /// The budget is used up: run again.
    More,
    /// The service has not got a result yet: run again when it may have.
    Waiting,
}

/// Why a message was not taken. Each is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StageReject {
    /// The batch cannot be merged.
    Undeliverable(Seq, Undeliverable),
    /// A quorum certifies another state than ours: this replica's state is wrong, because the
    /// service is not deterministic or memory is corrupt. The replica must not go on.
    Diverged {
        /// The checkpoint.
        seq: Seq,
        /// Our digest.
        ours: Digest,
        /// The digest that a quorum signed.
        certified: Digest,
    },
}

/// What the stage tells about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StageReport {
    /// Every number up to this one is executed.
    pub executed: Seq,
    /// The agreed time after it.
    pub time: AgreedTime,
    /// The highest number delivered.
    pub highest: Seq,
    /// Operations executed.
    pub ops: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Decisions of the session table.
    pub decisions: SessionCounts,
    /// Deliveries refused.
    pub undeliverable: u64,
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// The number of the last checkpoint taken.
    pub checkpoint: Seq,
    /// Its digest.
    pub checkpoint_digest: Digest,
    /// The service's root at that checkpoint.
    pub state_root: Digest,
    /// Objects whose digest the last checkpoint asked for.
    pub objects_rehashed: u64,
    /// The last checkpoint known to be stable.
    pub stable: Seq,
    /// Stable checkpoints with another digest than ours.
    pub diverged: u64,
    /// Outputs dropped because nobody fetched them.
    pub outputs_dropped: u64,
    /// Whether the service has not got a result yet.
    pub waiting: bool,
}

/// A batch in execution.
struct Cursor {
    seq: Seq,
    /// Its agreed time.
    time: AgreedTime,
    batch: Arc<Batch>,
    /// The frame that is next, or executes.
    frame: usize,
    /// The index of its first operation.
    first: u32,
    running: Option<Running>,
    started: bool,
}

impl fmt::Display for StageReject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageReject::Undeliverable(seq, why) => write!(f, "batch {seq} is refused: {why}"),
            StageReject::Diverged { seq, ours, certified } => write!(
                f,
                "checkpoint {seq} is certified as {certified} but executed here as {ours}: \
                 this replica's state is wrong"
            ),
        }
    }
}

impl core::error::Error for StageReject {}

impl Turn {
    /// Whether the owner should run the stage again without waiting for a message.
    #[must_use]
    pub fn more(self) -> bool {
        self != Turn::Idle
    }
}

impl StageOutbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> StageOutbox {
        StageOutbox::default()
    }

    fn all(&mut self, message: FromStage) {
        self.messages.push((Target::All, message));
    }

    fn pillar(&mut self, pillar: PillarId, message: FromStage) {
        self.messages.push((Target::Pillar(pillar), message));
    }
}

impl Stage {
    /// A stage before the first batch, over a service in its initial state.
    ///
    /// # Panics
    /// When the checkpoint interval or the window is zero, or the service's number of objects is
    /// out of range: all three are checked where they are configured.
    #[must_use]
    pub fn new(config: StageConfig, service: Box<dyn Service>) -> Stage {
        assert!(config.checkpoint_interval > 0, "checkpoints need an interval");
        Stage {
            config,
            merge: Merge::new(Seq(0), config.window),
            sessions: Sessions::new(),
            engine: Engine::new(service),
            cursor: None,
            executed: Seq(0),
            time: AgreedTime(0),
            unstable: VecDeque::new(),
            told_gap: None,
            told: Progress::default(),
            report: StageReport::default(),
        }
    }

    /// Takes in one message of a pillar. Executes nothing: call [`Stage::run`] after it.
    ///
    /// # Errors
    /// When the message is refused; see [`StageReject`]. The stage is unchanged but for counts.
    pub fn on(&mut self, message: ToStage, out: &mut StageOutbox) -> Result<(), StageReject> {
        match message {
            ToStage::Deliver { seq, batch } => self
                .merge
                .deliver(seq, batch)
                .map_err(|refusal| StageReject::Undeliverable(seq, refusal)),
            ToStage::Resend { pillar, frame } => {
                self.resend(pillar, frame, out);
                Ok(())
            }
            ToStage::Stable(stable) => self.stable(&stable),
        }
    }

    /// Executes up to about `budget_ops` operations; each batch and frame counts as one, too.
    /// A checkpoint falls inside the turn in which its batch ends, whatever is left.
    pub fn run(&mut self, budget_ops: usize, out: &mut StageOutbox) -> Turn {
        let mut budget = budget_ops.max(1);
        let turn = loop {
            let Some(mut cursor) = self.cursor.take().or_else(|| self.next_batch()) else {
                break Turn::Idle;
            };
            if budget == 0 {
                self.cursor = Some(cursor);
                break Turn::More;
            }
            match self.advance(&mut cursor, &mut budget, out) {
                Advance::Finished => self.complete(&cursor, out),
                paused => {
                    self.cursor = Some(cursor);
                    break if paused == Advance::Waiting { Turn::Waiting } else { Turn::More };
                }
            }
        };
        self.report.waiting = turn == Turn::Waiting;
        self.tell_progress(turn, out);
        turn
    }

    /// How far execution has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { executed: self.executed, time: self.time, deadline: self.engine.deadline() }
    }

    /// What the stage tells about itself. Cheap.
    #[must_use]
    pub fn report(&self) -> StageReport {
        StageReport {
            executed: self.executed,
            time: self.time,
            highest: self.merge.highest(),
            ops: self.engine.ops,
            sessions: self.sessions.len() as u64,
            decisions: self.sessions.counts(),
            undeliverable: self.merge.refused(),
            outputs_dropped: self.engine.outputs_dropped,
            ..self.report
        }
    }

    /// The digest that a checkpoint taken now would have. Costs what was written since the last
    /// one. While a batch is in execution ([`Turn::More`], [`Turn::Waiting`]) it covers half of
    /// that batch and compares with nothing.
    pub fn state_digest(&mut self) -> Digest {
        let root = self.engine.root();
        self.digest_over(root)
    }

    /// The outputs of the service beyond replies, oldest first, as far as they were kept.
    /// Nothing carries them to anybody yet.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        self.engine.take_outputs()
    }

    /// The service, to look at.
    #[must_use]
    pub fn service(&self) -> &dyn Service {
        self.engine.service()
    }

    /// The session table, to look at.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Checks the invariants. O(session table).
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        self.merge.check();
        self.sessions.check();
        let taken = Seq(self.executed.0 + u64::from(self.cursor.is_some()));
        assert_eq!(self.merge.taken(), taken, "batches in execution are miscounted");
        assert!(self.unstable.len() <= CHECKPOINTS_MAX, "too many checkpoints");
        let k = self.config.checkpoint_interval;
        assert_eq!(self.report.checkpoint.0, self.executed.0 / k * k, "a checkpoint is missing");
    }

    /// Checks that the incremental digest of the state is that of the whole state: that the
    /// service announced all its writes. O(state).
    ///
    /// # Panics
    /// When it did not.
    pub fn check_state(&mut self) {
        let root = self.engine.root();
        let whole = self.engine.root_from_scratch();
        assert_eq!(root, whole, "the service wrote an object without announcing it");
    }

    fn next_batch(&mut self) -> Option<Cursor> {
        let (seq, batch) = self.merge.take()?;
        let proposed = match &*batch {
            Batch::Null => AgreedTime(0),
            Batch::Frames { time, .. } => *time,
        };
        let time = self.time.advance(proposed);
        Some(Cursor { seq, time, batch, frame: 0, first: 1, running: None, started: false })
    }

    fn advance(
        &mut self,
        cursor: &mut Cursor,
        budget: &mut usize,
        out: &mut StageOutbox,
    ) -> Advance {
        let batch = Arc::clone(&cursor.batch);
        // Charged once, not at every resumption, so that the smallest budget makes progress.
        let starts = !core::mem::replace(&mut cursor.started, true);
        *budget -= usize::from(starts);
        let Batch::Frames { frames, .. } = &*batch else { return Advance::Finished };
        if starts {
            self.engine.wake(cursor.seq, cursor.time);
        }
        let pillar = self.config.stripe.pillar_of(cursor.seq);
        while let Some(frame) = frames.get(cursor.frame) {
            let mut running = match cursor.running.take() {
                Some(running) => running,
                None if *budget == 0 => return Advance::Paused,
                None => {
                    *budget -= 1;
                    let decision = self.sessions.decide(cursor.seq, frame);
                    if matches!(decision, Decision::Status(_, ReplyStatus::OutOfOrder(_))) {
                        let entry = BatchEntry { id: frame.id(), digest: frame.digest() };
                        out.pillar(pillar, FromStage::Refused { seq: cursor.seq, entry });
                    }
                    if let Some(content) = answer(frame.id(), decision) {
                        out.pillar(pillar, FromStage::Reply { frame: frame.id(), content });
                        cursor.next_frame(frame.op_count());
                        continue;
                    }
                    Running::new(frame, cursor.seq)
                }
            };
            let at = Position { seq: cursor.seq, time: cursor.time, first: cursor.first };
            let advance = self.engine.advance(at, frame, &mut running, budget);
            if advance != Advance::Finished {
                cursor.running = Some(running);
                return advance;
            }
            let content = running.finish();
            self.sessions.record(frame.id(), &content);
            out.pillar(pillar, FromStage::Reply { frame: frame.id(), content });
            cursor.next_frame(frame.op_count());
        }
        Advance::Finished
    }

    /// What comes after a batch's frames.
    fn complete(&mut self, cursor: &Cursor, out: &mut StageOutbox) {
        assert_eq!(cursor.seq, self.executed.next(), "batches execute in order");
        assert!(cursor.time > self.time || cursor.time.0 == u64::MAX, "agreed time grows");
        (self.executed, self.time) = (cursor.seq, cursor.time);
        if cursor.seq.0.is_multiple_of(self.config.checkpoint_interval) {
            self.checkpoint(out);
        }
    }

    fn checkpoint(&mut self, out: &mut StageOutbox) {
        let before = self.engine.rehashed;
        let root = self.engine.root();
        let digest = self.digest_over(root);
        let seq = self.executed;
        self.report.objects_rehashed = self.engine.rehashed - before;
        self.report.checkpoints += 1;
        (self.report.checkpoint, self.report.checkpoint_digest) = (seq, digest);
        self.report.state_root = root;
        if self.unstable.len() == CHECKPOINTS_MAX {
            // Only the comparison with a late certificate is lost.
            self.unstable.pop_front();
        }
        self.unstable.push_back((seq, digest));
        let k = seq.0 / self.config.checkpoint_interval;
        let pillar = self.config.stripe.checkpoint_pillar(k);
        out.pillar(pillar, FromStage::Checkpoint { seq, digest });
    }

    fn digest_over(&mut self, root: Digest) -> Digest {
        let sessions = self.sessions.digest();
        let mut hasher = Hasher::new(Domain::Checkpoint);
        hasher.update(&self.config.group.0).update_u64(self.executed.0);
        hasher.update_u64(u64::from(self.config.stripe.pillars())).update_u64(self.time.0);
        hasher.update(&root.0).update(&sessions.0);
        hasher.finish()
    }

    /// Answers a frame again outside the total order. Where replicas have come to different
    /// points they say different things; the client counts only answers that match.
    fn resend(&self, pillar: PillarId, frame: FrameId, out: &mut StageOutbox) {
        let known = self.sessions.recall(frame);
        if let Some(content) = known.and_then(|decision| answer(frame, decision)) {
            out.pillar(pillar, FromStage::Reply { frame, content });
        }
    }

    fn stable(&mut self, stable: &StableCheckpoint) -> Result<(), StageReject> {
        self.report.stable = self.report.stable.max(stable.seq);
        while self.unstable.front().is_some_and(|(seq, _)| *seq < stable.seq) {
            self.unstable.pop_front();
        }
        let Some((seq, ours)) = self.unstable.front().copied() else { return Ok(()) };
        if seq == stable.seq {
            self.unstable.pop_front();
            if ours != stable.digest {
                self.report.diverged += 1;
                return Err(StageReject::Diverged { seq, ours, certified: stable.digest });
            }
        }
        Ok(())
    }

    fn tell_progress(&mut self, turn: Turn, out: &mut StageOutbox) {
        // A service that wants to be woken before the first batch is heard, too.
        let progress = self.progress();
        let moved = progress.executed != self.told.executed;
        if moved || (progress.executed == Seq(0) && progress.deadline != self.told.deadline) {
            self.told = progress;
            out.all(FromStage::Executed(progress));
        }
        // While there is something to execute, nobody waits for the missing number.
        let gap = if turn == Turn::Idle { self.merge.gap() } else { None };
        if self.told_gap != gap {
            self.told_gap = gap;
            if let Some((missing, highest)) = gap {
                out.all(FromStage::Blocked { missing, highest });
            }
        }
    }
}

impl Cursor {
    fn next_frame(&mut self, ops: usize) {
        self.frame += 1;
        let ops = u32::try_from(ops).expect("limits keep operations of a batch below 2^32");
        self.first += ops;
    }
}

/// The encoded reply that a decision calls for; `None` when the frame has to execute first.
fn answer(frame: FrameId, decision: Decision) -> Option<Arc<Vec<u8>>> {
    match decision {
        Decision::Execute => None,
        Decision::Duplicate(content) => Some(content),
        Decision::Status(seq, status) => Some(status_reply(frame, seq, status)),
    }
}
