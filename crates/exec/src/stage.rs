//! The execution stage of one replica: total-order merge, exactly-once, the service, checkpoints.
//!
//! The owner feeds it [`ToStage`] messages with [`Stage::on`], then calls [`Stage::run`], which
//! does a bounded amount of work and leaves [`FromStage`] messages in a [`StageOutbox`]. The
//! owner carries the outbox out completely, in order. The stage never asks for the time, never
//! blocks and starts nothing by itself; the pillars are its peers, not its callers. While it
//! fetches a checkpoint or answers others that do, [`Stage::deadline`] says when it wants to be
//! told the time.
//!
//! What a batch does, in this order:
//! 1. null: nothing; its agreed time is the previous one plus 1;
//! 2. frames: time = max(previous + 1, proposed); [`Service::wake`] if its deadline has come;
//! 3. frame by frame: the session table decides; what it lets through executes, operation by
//!    operation, indexed from 1 through the whole batch, refused frames included; one reply;
//! 4. after number k·K: the checkpoint digest, once it is made (`digests`), goes to the pillar in
//!    charge of the k-th checkpoint (COP §4.2.2).
//!
//! With workers, frames that are certain to be let through execute at the same time as others,
//! as far as their operations do not depend on each other ([`Stage::engage`]); what is above
//! holds of their replies and of the state as if they did not.
//!
//! A batch that is prepared and next may execute before it is committed, and is taken back when
//! another one is committed in its place (`tentative`).
//!
//! Invariants:
//! 1. a batch executes at most once, in the order of numbers, without a gap; what was taken back
//!    was not executed;
//! 2. state, table, time and replies are a function of the delivered batches: neither the order
//!    of their delivery nor the budgets of [`Stage::run`] matter;
//! 3. what is stored is bounded: the window of batches, the table, whom a batch nudges, and per
//!    pinned checkpoint one copy of what was written since;
//! 4. a state that is known to be wrong, or half another one, is not executed on and answers
//!    nobody: the stage then stands still until it has fetched a certified one.

mod checkpoint;
mod digests;
mod execute;
mod fetching;
mod flight;
mod outbox;
mod parallel;
mod reads;
mod report;
mod restore;
mod tentative;

use alloc::boxed::Box;
use alloc::sync::Arc;

use base::transfer::{SnapshotReader, StateMessage};
use base::{
    AgreedTime, Digest, FrameId, FromStage, GroupId, PillarId, Progress, ReplicaId, Seq, Stripe,
    Time, ToStage,
};

use crate::engine::{Advance, Engine};
use crate::merge::Merge;
use crate::parallel::Operators;
use crate::service::Service;
use crate::session::Sessions;
use crate::snapshots::Snapshots;
use crate::state::State;
use crate::transfer::{Fetch, Source};

pub use outbox::{StageOutbox, StageReject, Target, Turn};
pub use reads::ReadReport;
pub use report::{StageReport, TransferReport};
pub use restore::{Damaged, StageBuilder, WrongState};
pub use tentative::TentativeReport;

use checkpoint::{CHECKPOINTS_MAX, Checkpoints};
use execute::{Cursor, answer};
use flight::Flight;
use reads::Reads;
use tentative::Ahead;

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
    /// Whether idle pillars run ahead, so that a null batch may wait for the others without
    /// anybody missing anything.
    pub nulls_ahead: bool,
    /// Replicas of the group, at least 2: one that fetches gets what it gets from all the others
    /// together.
    pub replicas: u16,
}

/// The execution stage of one replica.
pub struct Stage {
    config: StageConfig,
    merge: Merge,
    state: State,
    cursor: Option<Cursor>,
    ahead: Ahead,
    flight: Flight,
    workers: Workers,
    rules: Option<Arc<dyn Operators>>,
    /// What the graph's classes are hashed with.
    salt: u64,
    executed: Seq,
    time: AgreedTime,
    checkpoints: Checkpoints,
    told: Told,
    report: StageReport,
    snapshots: Snapshots,
    source: Source,
    standing: Standing,
    /// Reads that wait to be answered without an order.
    reads: Reads,
    /// The last tick.
    now: Option<Time>,
}

/// What was told last.
#[derive(Default)]
struct Told {
    progress: Progress,
    gap: Option<(Seq, Seq)>,
}

/// Who executes what is in flight.
#[derive(Clone, Copy, Default)]
struct Workers {
    /// How many; with none nothing takes off.
    count: usize,
    /// Whether the service is made for several threads, once it was asked.
    able: Option<bool>,
}

/// Whether the stage executes.
enum Standing {
    Executes,
    /// Not until it has fetched. Its trees are `trusted` to be those of its objects.
    Halted {
        trusted: bool,
    },
    Fetches(Box<Fetch>),
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
        let rules = service.operators();
        Stage {
            flight: Flight::new((0, rules.clone()), Seq(0), config.checkpoint_interval),
            workers: Workers::default(),
            salt: 0,
            rules,
            config,
            merge: Merge::new(Seq(0), config.window).with_nulls_ahead(config.nulls_ahead),
            state: State { engine: Engine::new(service), sessions: Sessions::new() },
            cursor: None,
            ahead: Ahead::default(),
            executed: Seq(0),
            time: AgreedTime(0),
            checkpoints: Checkpoints::default(),
            told: Told::default(),
            report: StageReport::default(),
            snapshots: Snapshots::default(),
            source: Source::new(config.replicas),
            standing: Standing::Executes,
            reads: Reads::default(),
            now: None,
        }
    }

    /// Takes in one message of a pillar. Executes nothing: call [`Stage::run`] after it.
    ///
    /// # Errors
    /// When the message is refused; see [`StageReject`]. The stage is unchanged but for counts.
    pub fn on(&mut self, message: ToStage, out: &mut StageOutbox) -> Result<(), StageReject> {
        match message {
            ToStage::Deliver { seq, batch } => {
                let delivered = self.merge.deliver(seq, batch);
                return delivered.map_err(|refusal| StageReject::Undeliverable(seq, refusal));
            }
            ToStage::Tentative { seq, view, batch } => self.prepared(seq, view, batch),
            ToStage::Resend { pillar, frame } => self.resend(pillar, frame, out),
            ToStage::Read { pillar, frame, from } => self.read((pillar, frame, from), out),
            ToStage::Stable(stable) => self.stable(stable, out),
            ToStage::Pin { seq, reader } => self.pin(seq, reader, out),
            ToStage::Unpin(reader) => self.unpin(reader),
            ToStage::Fetch { checkpoint, sources } => self.fetch(checkpoint, &sources, out),
            ToStage::State { from, message } => self.state_message(from, message, out),
            ToStage::Tick(now) => self.tick(now),
        }
        Ok(())
    }

    /// Executes up to about `budget_ops` operations; each batch and frame counts as one, too.
    /// A piece of a checkpoint's digests falls into the turn, whatever is left. While the stage
    /// fetches it executes nothing, but a bounded amount of that work falls into the turn; so do
    /// answers to others that fetch.
    pub fn run(&mut self, budget_ops: usize, out: &mut StageOutbox) -> Turn {
        // Neither reading objects nor replacing them goes together with workers that write them.
        // Whoever asks for more than its allowance keeps no worker waiting.
        let quiet = self.is_quiet();
        let questioned = self.checkpoints.questioned.is_some();
        let wanted = self.source.may_serve() || self.digests_need_quiet() || questioned;
        self.flight.hold = !quiet && (self.flight.hold || wanted);
        if quiet {
            self.fetch_questioned(out);
        }
        let serves = quiet && self.serve(out);
        let still = quiet || base::mutant!(FetchAmidJobs);
        let fetching = if still { self.fetch_turn(out) } else { self.standstill() };
        self.reads.begin_turn(budget_ops);
        let turn = fetching.unwrap_or_else(|| self.execute(budget_ops.max(1), out));
        self.read_turn(out);
        let turn = if turn == Turn::Idle && self.has_reads() { Turn::More } else { turn };
        self.report.waiting = turn == Turn::Waiting;
        if fetching.is_none() {
            self.tell_progress(turn, out);
        }
        let digests = self.digest_piece(out);
        if (serves || digests) && turn == Turn::Idle { Turn::More } else { turn }
    }

    fn execute(&mut self, mut budget: usize, out: &mut StageOutbox) -> Turn {
        loop {
            if self.land(&mut budget, out) {
                break Turn::More;
            }
            self.read_turn(out);
            if self.cursor.is_none() && self.yields_to_reads() {
                break Turn::Idle;
            }
            let Some(mut cursor) = self.cursor.take().or_else(|| self.next_batch(out)) else {
                break Turn::Idle;
            };
            if budget == 0 {
                self.cursor = Some(cursor);
                break Turn::More;
            }
            match self.advance(&mut cursor, &mut budget, out) {
                Advance::Finished if self.ahead.is_on() => {
                    self.executed_tentatively(cursor.seq, out);
                }
                Advance::Finished if self.flight.is_empty() => {
                    self.complete(cursor.seq, cursor.time, out);
                }
                Advance::Finished => self.flight.end_batch(cursor.seq, cursor.time),
                paused => {
                    self.cursor = Some(cursor);
                    break match paused {
                        Advance::Waiting => Turn::Waiting,
                        Advance::Blocked => Turn::Idle,
                        _ => Turn::More,
                    };
                }
            }
        }
    }

    /// How far execution has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let before = self.ahead.before().map(|before| before.deadline);
        let deadline = before.unwrap_or_else(|| self.state.engine.deadline());
        Progress { executed: self.executed, time: self.time, deadline }
    }

    /// What the stage tells about itself. Cheap.
    #[must_use]
    pub fn report(&self) -> StageReport {
        StageReport {
            executed: self.executed,
            time: self.time,
            highest: self.merge.highest(),
            ops: self.state.engine.ops,
            sessions: self.state.sessions.len() as u64,
            decisions: self.state.sessions.counts(),
            undeliverable: self.merge.refused(),
            nudges: self.state.engine.nudges,
            nudges_dropped: self.state.engine.nudges_dropped,
            halted: !matches!(self.standing, Standing::Executes),
            transfer: self.transfer_report(),
            ..self.report
        }
    }

    /// The digest that a checkpoint taken now would have. Costs what was written since the last
    /// one. While a batch is in execution ([`Turn::More`], [`Turn::Waiting`]) it covers half of
    /// that batch and compares with nothing. What is tentative is taken back.
    pub fn state_digest(&mut self) -> Digest {
        self.take_back();
        self.manifest().digest(self.config.group)
    }

    /// The service, to look at.
    #[must_use]
    pub fn service(&self) -> &dyn Service {
        self.state.engine.service()
    }

    /// The session table, to look at.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.state.sessions
    }

    /// Checks the invariants. O(session table).
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        self.merge.check();
        self.state.sessions.check();
        self.reads.check();
        let tentative = self.ahead.is_on();
        assert!(!tentative || self.flight.is_empty(), "what flies is committed");
        let begun = self.flight.batches() as u64;
        let begun = begun + u64::from(self.cursor.is_some() && !tentative);
        let taken = Seq(self.executed.0 + begun);
        let executes = matches!(self.standing, Standing::Executes);
        assert!(!executes || self.merge.taken() == taken, "batches in execution are miscounted");
        assert!(self.checkpoints.unstable.len() <= CHECKPOINTS_MAX, "too many checkpoints");
        let pinned = self.snapshots.held(SnapshotReader::Transfer).map(|held| held.seq);
        assert!(pinned.is_none_or(|seq| seq <= self.executed), "pinned before it was executed");
        if !matches!(self.standing, Standing::Executes) {
            return;
        }
        let k = self.config.checkpoint_interval;
        // What was fetched may lie between two checkpoints.
        let last = Seq(self.executed.0 / k * k);
        let before = self.digested_from().map_or(last, |seq| {
            assert_eq!(seq, last, "two checkpoints are under way");
            Seq(last.0 - k)
        });
        let known = before..=self.executed;
        assert!(known.contains(&self.report.checkpoint), "a checkpoint is missing");
    }

    /// Checks that the incremental digest of the state is that of the whole state: that the
    /// service announced all its writes. O(state).
    ///
    /// # Panics
    /// When it did not.
    pub fn check_state(&mut self) {
        self.make_digests(usize::MAX);
        let root = self.state.engine.root();
        let whole = self.state.engine.root_from_scratch();
        assert_eq!(root, whole, "the service wrote an object without announcing it");
    }

    fn state_message(&mut self, from: ReplicaId, message: StateMessage, out: &mut StageOutbox) {
        match message {
            StateMessage::Ask { checkpoint, request } => {
                self.source.ask(from, checkpoint, request);
            }
            StateMessage::Tell { checkpoint, answer } => {
                // Before its first turn it has asked for nothing.
                let quiet = self.flight.running == 0 || base::mutant!(FetchAmidJobs);
                if let Standing::Fetches(fetch) = &mut self.standing
                    && quiet
                {
                    fetch.tell(from, (checkpoint, answer), &mut self.state, out);
                }
            }
        }
    }

    fn transfer_report(&self) -> TransferReport {
        let fetch = if let Standing::Fetches(fetch) = &self.standing { Some(fetch) } else { None };
        let before = &self.report.transfer;
        let (cached, saved) = (self.source.cached_bytes(), self.state.saved_bytes());
        TransferReport {
            target: fetch.map(|fetch| fetch.target().seq),
            objects: before.objects + fetch.map_or(0, |fetch| fetch.objects),
            bytes: before.bytes + fetch.map_or(0, |fetch| fetch.bytes),
            missing: fetch.map_or(0, |fetch| fetch.missing()),
            served_bytes: self.source.bytes,
            dropped: self.source.dropped,
            saved_bytes: (cached + saved) as u64,
            buffered_bytes: fetch.map_or(0, |fetch| fetch.buffered()),
        }
    }

    /// Answers a frame again outside the total order. Where replicas have come to different
    /// points they say different things; the client counts only answers that match.
    fn resend(&self, pillar: PillarId, frame: FrameId, out: &mut StageOutbox) {
        if !matches!(self.standing, Standing::Executes) {
            return;
        }
        let known = self.state.sessions.recall(frame);
        if let Some(content) = known.and_then(|decision| answer(frame, decision)) {
            let tentative = self.ahead.view().filter(|_| !base::mutant!(TentativeUnsaid));
            out.pillar(pillar, FromStage::Reply { frame, content, tentative, in_full: true });
        }
    }

    fn tell_progress(&mut self, turn: Turn, out: &mut StageOutbox) {
        // A service that wants to be woken before the first batch is heard, too.
        let progress = self.progress();
        let told = self.told.progress;
        let moved = progress.executed != told.executed;
        if moved || (progress.executed == Seq(0) && progress.deadline != told.deadline) {
            self.told.progress = progress;
            out.all(FromStage::Executed(progress));
        }
        // While there is something to execute, nobody waits for the missing number.
        let gap = if turn == Turn::Idle { self.merge.gap() } else { None };
        if self.told.gap != gap {
            self.told.gap = gap;
            if let Some((missing, highest)) = gap {
                out.all(FromStage::Blocked { missing, highest });
            }
        }
    }
}
