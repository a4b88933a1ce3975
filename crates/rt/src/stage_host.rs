//! The execution stage with its rings, and the clock that the stage itself does not have.
//!
//! Lives on the thread of pillar 0 or on one of its own; the code is the same. Not here: what
//! the stage does (`exec`).

use auth::AuthError;
use base::{FromStage, Span, Time, ToStage};
use exec::{Job, Stage, StageOutbox, StageReport, Target, Turn};

use crate::clock::Clock;
use crate::coordinator_host::Inflow;
use crate::crew::Crew;
use crate::mesh::StageMail;
use crate::report::EarlyReport;
use crate::ring::RingSender;
use crate::saver::SnapshotFeed;

/// Operations per turn: enough to make a turn worth its costs, few enough for the lanes on the
/// same thread to be heard.
const OPS_PER_TURN: usize = 2048;
/// How long the stage executes by itself in a turn where there are workers: it notices soon when
/// operations get slow.
const TIME_PER_TURN: Span = Span::millis(1);
/// Pieces of a checkpoint for the disk that are read while workers are held back for it.
const PIECES_PER_HOLD: usize = 16;

/// The stage and its links to all lanes and the coordinator.
pub(crate) struct StageHost {
    stage: Stage,
    outbox: StageOutbox,
    mail: StageMail,
    inflow: Inflow,
    feed: SnapshotFeed,
    clock: Clock,
    pauses: Pauses,
    turn: Turn,
    overflowing: bool,
    /// Who executes what is independent, and jobs on their way to them.
    crew: Option<Crew>,
    jobs: Vec<Job>,
    /// In a drill: after so many operations the process ends.
    crash_after: Option<u64>,
}

/// How long checkpoints have held up execution at a time, in microseconds. An upper bound: each is
/// the time of a whole turn in which digests of one were made, up to one turn's operations
/// included; the last is the longest of the last checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pauses {
    pub(crate) last_us: u64,
    pub(crate) max_us: u64,
    /// The longest turn of the checkpoint whose digests are being made.
    under_way_us: u64,
}

/// What the stage tells when it is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StageSnapshot {
    pub(crate) report: StageReport,
    pub(crate) early: EarlyReport,
    pub(crate) pauses: Pauses,
}

impl Pauses {
    /// Digests of a checkpoint were made in a turn of that time; perhaps the last of them.
    fn note(&mut self, us: u64, taken: bool) {
        self.max_us = self.max_us.max(us);
        self.under_way_us = self.under_way_us.max(us);
        if taken {
            self.last_us = std::mem::take(&mut self.under_way_us);
        }
    }
}

impl StageHost {
    pub(crate) fn new(
        stage: Stage,
        mail: StageMail,
        (inflow, feed): (Inflow, SnapshotFeed),
        clock: Clock,
    ) -> StageHost {
        StageHost {
            stage,
            outbox: StageOutbox::new(),
            mail,
            inflow,
            feed,
            clock,
            pauses: Pauses::default(),
            turn: Turn::Idle,
            overflowing: false,
            crew: None,
            jobs: Vec::new(),
            crash_after: None,
        }
    }

    /// Whether the service is made for so many workers.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn can_employ(&mut self, workers: usize) -> Result<bool, AuthError> {
        if workers < 2 {
            return Ok(false);
        }
        self.stage.salt(auth::random_u64()?);
        Ok(self.stage.engage(workers))
    }

    /// Has these execute what is independent.
    pub(crate) fn employ(&mut self, crew: Crew) {
        self.crew = Some(crew);
    }

    /// In a drill: ends the process, as a crash would, once so many operations are executed.
    pub(crate) fn crash_after(&mut self, ops: u64) {
        self.crash_after = Some(ops);
    }

    /// Takes what lanes and coordinator say, executes within bounds, and tells them what came of
    /// it. True when there was something to do.
    pub(crate) fn turn(&mut self) -> bool {
        let mut any = self.turn.more() || self.crew.as_ref().is_some_and(Crew::has_done);
        let now = self.clock.mono();
        if self.stage.deadline().is_some_and(|at| at <= now) {
            any = true;
            self.on(ToStage::Tick(now));
        }
        let mut ticked = false;
        for i in 0..self.mail.inbox.len() {
            while let Some(message) = self.mail.inbox[i].pop() {
                any = true;
                if let ToStage::State { message, .. } = &message {
                    self.inflow.taken(message.encoded_len_max());
                    // It has no clock of its own, and what others ask of it is rationed by time.
                    if !std::mem::replace(&mut ticked, true) {
                        self.on(ToStage::Tick(now));
                    }
                }
                self.on(message);
            }
        }
        if any {
            self.run();
        }
        self.feed_disk();
        self.carry_out();
        any
    }

    fn on(&mut self, message: ToStage) {
        if let Err(refused) = self.stage.on(message, &mut self.outbox) {
            tracing::debug!(%refused, "refused by the stage");
        }
    }

    /// Whether there is work that needs no message to begin.
    pub(crate) fn more(&self) -> bool {
        self.turn == Turn::More
            || self.crew.as_ref().is_some_and(Crew::has_done)
            || (self.feed.is_ready() && self.stage.is_quiet())
            || self.mail.inbox.iter().any(|ring| !ring.is_empty())
    }

    /// Whether it has to be tried again soon: a ring is full, the service is not ready, or a
    /// checkpoint is on its way to the disk.
    pub(crate) fn soon(&self) -> bool {
        self.overflowing || self.turn == Turn::Waiting || self.feed.busy()
    }

    /// When the next turn is wanted at the latest.
    pub(crate) fn next_time(&self) -> Option<Time> {
        self.stage.deadline()
    }

    /// What can be told about the stage.
    pub(crate) fn snapshot(&self) -> StageSnapshot {
        let report = self.stage.report();
        let (tentative, reads) = (self.stage.tentative_report(), self.stage.read_report());
        let early = EarlyReport {
            tentative_batches: tentative.executed,
            rolled_back_batches: tentative.rolled_back,
            reads: reads.answered,
            unread_frames: reads.unread_frames,
        };
        StageSnapshot { report, early, pauses: self.pauses }
    }

    /// Whether no worker has anything to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.crew.as_ref().is_none_or(|crew| !crew.is_busy())
    }

    fn run(&mut self) {
        let before = (self.stage.digest_pieces(), self.stage.report().checkpoints);
        let began = self.clock.mono();
        match &self.crew {
            None => self.turn = self.stage.run(OPS_PER_TURN, &mut self.outbox),
            Some(_) => self.run_with_crew(),
        }
        if self.crash_after.is_some_and(|ops| self.stage.report().ops >= ops) {
            std::process::abort();
        }
        if self.stage.digest_pieces() != before.0 {
            let us = self.clock.mono().since(began).0 / 1_000;
            self.pauses.note(us, self.stage.report().checkpoints != before.1);
        }
    }

    fn run_with_crew(&mut self) {
        let Some(crew) = &mut self.crew else { return };
        for finished in crew.take_done() {
            self.stage.finished(finished, &mut self.outbox);
        }
        let flies = crew.is_worth_it();
        self.stage.engage(if flies { crew.workers() } else { 0 });
        if !flies {
            self.land_by_itself();
        }
        if flies || self.stage.in_flight() > 0 {
            self.turn = self.stage.run(OPS_PER_TURN, &mut self.outbox);
        } else {
            self.run_by_itself();
        }
        // Now that nobody writes, perhaps, and before somebody does again.
        self.feed_disk();
        let Some(crew) = &mut self.crew else { return };
        while crew.wants_more(self.jobs.len())
            && let Some(job) = self.stage.next_job(crew.grain())
        {
            self.jobs.push(job);
        }
        crew.run(&mut self.jobs);
    }

    /// Reads some of the checkpoint that goes to the disk, if there is one.
    fn feed_disk(&mut self) {
        if !self.feed.busy() {
            return;
        }
        self.feed.note_given(self.stage.report().transfer.served_bytes);
        self.feed.send();
        if !self.stage.is_quiet() {
            // It reads objects, which workers may be writing.
            if self.feed.is_ready() {
                self.stage.hold();
            }
            return;
        }
        // Whoever was held back is not to be held back for every piece.
        let pieces = if self.stage.in_flight() > 0 { PIECES_PER_HOLD } else { 1 };
        for _ in 0..pieces {
            if !self.feed.is_ready() {
                break;
            }
            self.feed.read(&self.stage);
        }
    }

    /// Executes on this thread what took off while workers were worth it. What remains goes to
    /// them.
    fn land_by_itself(&mut self) {
        let Some(crew) = &mut self.crew else { return };
        let first = self.clock.mono();
        let mut then = first;
        while !crew.is_worth_it()
            && then.since(first) < TIME_PER_TURN
            && let Some(job) = self.stage.next_job(crew.look())
        {
            let finished = job.run();
            let now = self.clock.mono();
            crew.measured(finished.ops() as u64, now.since(then));
            then = now;
            self.stage.finished(finished, &mut self.outbox);
        }
    }

    /// Executes on this thread, and looks at the clock now and then.
    fn run_by_itself(&mut self) {
        let Some(crew) = &mut self.crew else { return };
        let (first, began) = (self.stage.report(), self.clock.mono());
        let (mut before, mut then) = (first, began);
        loop {
            let pieces = self.stage.digest_pieces();
            self.turn = self.stage.run(crew.look(), &mut self.outbox);
            let (report, now) = (self.stage.report(), self.clock.mono());
            // A checkpoint takes its time whatever operations take.
            if self.stage.digest_pieces() == pieces {
                crew.measured(report.ops - before.ops, now.since(then));
            }
            let enough =
                report.ops - first.ops >= OPS_PER_TURN as u64 || now.since(began) >= TIME_PER_TURN;
            if self.turn != Turn::More || enough || crew.is_worth_it() {
                return;
            }
            (before, then) = (report, now);
        }
    }

    fn carry_out(&mut self) {
        let StageMail { to_lanes, to_coordinator, replies, .. } = &mut self.mail;
        for (target, message) in self.outbox.messages.drain(..) {
            match target {
                Target::All => {
                    to_lanes.iter_mut().for_each(|lane| lane.push(message.clone()));
                    to_coordinator.push(message);
                }
                Target::Coordinator => to_coordinator.push(message),
                Target::Pillar(pillar) => {
                    let for_client =
                        matches!(message, FromStage::Reply { .. } | FromStage::Nudge { .. });
                    if let Some(replies) = replies.as_mut().filter(|_| for_client) {
                        replies.push(message);
                        continue;
                    }
                    let lane = to_lanes.get_mut(usize::from(pillar.0));
                    lane.expect("the stage names pillars of its own stripe").push(message);
                }
            }
        }
        self.overflowing = to_coordinator.flush();
        self.overflowing |= replies.as_mut().is_some_and(RingSender::flush);
        for lane in to_lanes {
            self.overflowing |= lane.flush();
        }
    }
}
