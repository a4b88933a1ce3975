//! The stage with its parallelizer: takes frames into the air, hands out jobs, takes them back.
//!
//! Whatever cannot fly executes as it does without a parallelizer, one frame after the other,
//! once everything before it has landed: frames that the table is not certain to let through,
//! batches that may wake the service, everything while the owner wants no parallel execution.
//! A barrier inside a frame flies, and executes on the stage's own thread.
//!
//! Not here: threads. The owner runs [`Job`]s wherever it likes and brings back what came of
//! them; the results are the same.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{AgreedTime, Frame, FromStage, PillarId, Seq};

use super::execute::Cursor;
use super::flight::{Entry, Leaving, next_cut};
use super::{Stage, StageOutbox, Standing};
use crate::engine::Position;
use crate::job::{Ended, Finished, Job, Task};
use crate::parallel::Ticket;
use crate::service::Footprint;
use crate::session::Decision;

/// What becomes of a frame that is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TakeOff {
    /// It is in flight.
    Flies,
    /// It has to wait until others have landed.
    Waits,
    /// It executes by itself once everything before it has landed.
    Stays,
}

impl Stage {
    /// Has independent operations executed at the same time by `workers`, who get them with
    /// [`Stage::next_job`]; with fewer than two, operations execute inside [`Stage::run`] one
    /// after the other. Replies and state are the same. May be changed at any time; it counts
    /// from the next frame on. False when the service is not made for it: nothing changes then.
    pub fn engage(&mut self, workers: usize) -> bool {
        if workers >= 2 && self.workers.able.is_none() {
            self.workers.able = Some(self.state.engine.shared().is_some());
        }
        let able = self.workers.able == Some(true);
        self.workers.count = if able && workers >= 2 { workers } else { 0 };
        able
    }

    /// What the classes are hashed with from now on, if nothing has taken off yet: chosen at
    /// random, it keeps clients from choosing keys that are slow to find. Decides nothing else.
    pub fn salt(&mut self, salt: u64) {
        if self.flight.is_empty() && self.flight.running == 0 {
            self.salt = salt;
            self.abandon_flight(self.executed);
        }
    }

    /// Whether nothing is out with a worker. Only then can the state be read: its digest, pinned
    /// objects.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.flight.running == 0
    }

    /// Whether the state is that after the last executed number: nothing beyond it is begun, by
    /// workers or by the stage.
    #[must_use]
    pub fn is_between(&self) -> bool {
        let executes = matches!(self.standing, Standing::Executes);
        executes && self.cursor.is_none() && self.flight.is_empty() && !self.ahead.is_on()
    }

    /// Hands out nothing more until everything that is out is back, and [`Stage::run`] was called
    /// once more.
    pub fn hold(&mut self) {
        self.flight.hold = self.flight.running > 0;
    }

    /// Operations that are waiting for a worker or with one.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flight.graph.pending()
    }

    /// The next operations for a worker, at most `most`; `None` when nothing may execute now.
    /// Each job is brought back with [`Stage::finished`].
    pub fn next_job(&mut self, most: usize) -> Option<Job> {
        let ready = self.flight.graph.ready();
        let idle = self.workers.count.saturating_sub(self.flight.running).max(1);
        let share = ready.div_ceil(idle).clamp(1, most.max(1));
        self.job(share, None)
    }

    /// The same for one operation, which `choose` picks: it gets the number of those that may
    /// execute. For tests that go through schedules.
    pub fn choose_job(&mut self, choose: &mut dyn FnMut(usize) -> usize) -> Option<Job> {
        self.job(1, Some(choose))
    }

    fn job(
        &mut self,
        most: usize,
        mut choose: Option<&mut dyn FnMut(usize) -> usize>,
    ) -> Option<Job> {
        let executes = matches!(self.standing, Standing::Executes);
        let flight = &mut self.flight;
        let single = flight.is_heavy();
        let waits = flight.hold || (single && flight.running > 0);
        if !executes || waits || flight.graph.ready() == 0 || flight.graph.is_next_alone() {
            return None;
        }
        let mut tasks = Vec::with_capacity(most);
        while tasks.len() < most {
            let next = match &mut choose {
                _ if single => flight.graph.oldest_request(),
                None => flight.graph.next_request(),
                Some(choose) => flight.graph.choose_request(choose),
            };
            let Some(task) = next else { break };
            tasks.push(task);
            if single {
                break;
            }
        }
        let shared = self.state.engine.shared();
        let (service, offload) = shared.expect("it was asked before the first frame took off");
        let saves = self.state.engine.saves();
        let frozen = self.state.engine.tree_mut().share_frozen();
        flight.running += 1;
        Some(Job { service, offload, flight: flight.number, saves, frozen, tasks })
    }

    /// Takes back a job. Call [`Stage::run`] after it.
    pub fn finished(&mut self, finished: Finished, out: &mut StageOutbox) {
        let Finished { flight, ended, results, writes, outputs, left } = finished;
        self.flight.running -= 1;
        self.state.engine.announced(&writes);
        if flight != self.flight.number && !base::mutant!(GivenUpJobsCount) {
            // The state that it was part of has been given up since.
            return;
        }
        self.state.engine.ops += ended.len() as u64;
        for (ticket, task) in left.into_iter().rev() {
            self.flight.graph.return_request(ticket, task);
        }
        let mut outputs = outputs.into_iter().peekable();
        for one in &ended {
            let mut own = Vec::new();
            while let Some((_, _, output)) =
                outputs.next_if(|(number, op, _)| (*number, *op) == (one.number, one.op))
            {
                own.push(output);
            }
            let leaving = self.flight.done(one, &results, own.into_iter());
            self.flight.graph.remove_request(one.ticket);
            send(leaving, out);
        }
    }

    /// Lets the next frame of the batch take off, if it can.
    pub(super) fn take_off(
        &mut self,
        cursor: &Cursor,
        frame: &Arc<Frame>,
        pillar: PillarId,
        out: &mut StageOutbox,
    ) -> TakeOff {
        // What may be taken back executes by itself.
        if self.workers.count == 0 || self.ahead.is_on() {
            return TakeOff::Stays;
        }
        if !self.flight.has_room(frame.op_count()) {
            return TakeOff::Waits;
        }
        if !self.state.sessions.foresee(frame, &mut self.flight.pending) {
            return TakeOff::Stays;
        }
        let schedules = self.enter(cursor, frame);
        let at = (cursor.seq, pillar);
        let ordered = frame.id().stream & base::frame::UNORDERED == 0;
        send(self.flight.take_off(frame, at, ordered, schedules), out);
        TakeOff::Flies
    }

    /// Enters a frame's operations into the graph. Whether one may bring the deadline forward.
    fn enter(&mut self, cursor: &Cursor, frame: &Arc<Frame>) -> bool {
        let number = self.flight.next_number();
        let mut schedules = false;
        let mut footprint = Footprint::default();
        for ((op, index), place) in (0..).zip(cursor.first..).zip(frame.places()) {
            let (frame, seq, time) = (Arc::clone(frame), cursor.seq, cursor.time);
            let task = Task { frame, place, seq, time, index, number, op };
            let bytes = task.frame.op_at(place);
            match &self.rules {
                Some(rules) => {
                    let invocation = rules.parse(bytes);
                    schedules |= rules.schedules(bytes);
                    self.flight.graph.insert_call(seq, invocation, task);
                }
                None => {
                    footprint.clear();
                    self.state.engine.footprint(bytes, &mut footprint);
                    schedules |= footprint.schedules;
                    self.flight.graph.insert(seq, &footprint, task);
                }
            }
        }
        schedules
    }

    /// Whether a batch of that time may have to wake the service, now or after what is in
    /// flight.
    pub(super) fn may_wake(&self, time: AgreedTime) -> bool {
        let due = || self.state.engine.deadline().is_some_and(|deadline| deadline <= time);
        (self.flight.schedulers > 0 || due()) && !base::mutant!(WakesAmidJobs)
    }

    /// Executes barriers that are next, and lands what is done. True when the budget is used up.
    pub(super) fn land(&mut self, budget: &mut usize, out: &mut StageOutbox) -> bool {
        loop {
            while let Some(entry) = self.flight.land() {
                self.landed(entry, out);
            }
            if !self.flight.graph.is_next_alone() || self.flight.hold {
                return false;
            }
            if *budget == 0 {
                return true;
            }
            *budget -= 1;
            let (ticket, task) = self.flight.graph.next_request().expect("it is ready");
            self.execute_alone(ticket, &task, out);
        }
    }

    fn execute_alone(&mut self, ticket: Ticket, task: &Task, out: &mut StageOutbox) {
        let Task { frame, place, seq, time, index, number, op } = task;
        let at = Position { seq: *seq, time: *time, first: *index };
        let mut result = Vec::new();
        let bytes = frame.op_at(*place);
        self.state.engine.alone((at, *index), frame.id(), bytes, &mut result);
        let outputs = self.state.engine.take_emitted();
        let end = u32::try_from(result.len()).expect("results are shorter");
        let ended = Ended { ticket, number: *number, op: *op, start: 0, end };
        send(self.flight.done(&ended, &Arc::new(result), outputs.into_iter()), out);
        self.flight.graph.remove_request(ticket);
    }

    fn landed(&mut self, entry: Entry, out: &mut StageOutbox) {
        let one = match entry {
            Entry::End { seq, time } => return self.complete(seq, time, out),
            Entry::Frame(one) => one,
        };
        let decision = self.state.sessions.decide(one.seq, &one.frame);
        assert_eq!(decision, Decision::Execute, "a frame flew that was not let through");
        let content = one.content.expect("only frames that are done land");
        self.state.sessions.record(one.frame.id(), &content);
        let mut outputs = one.outputs;
        outputs.sort_by_key(|(op, _)| *op);
        self.state.engine.emitted(outputs.into_iter().map(|(_, output)| output));
    }

    /// A checkpoint is behind: what was held beyond it may go.
    pub(super) fn pass_cut(&mut self, seq: Seq) {
        if !base::mutant!(CutsIgnored) {
            self.flight.graph.sync(next_cut(seq, self.config.checkpoint_interval));
        }
    }

    /// Gives up whatever is in flight: the state is to be another one, after `executed`.
    pub(super) fn abandon_flight(&mut self, executed: Seq) {
        let rules = self.rules.clone();
        self.flight.reset((self.salt, rules), executed, self.config.checkpoint_interval);
    }
}

fn send(leaving: Vec<Leaving>, out: &mut StageOutbox) {
    for (pillar, frame, content) in leaving {
        let (tentative, in_full) = (None, false);
        out.pillar(pillar, FromStage::Reply { frame, content, tentative, in_full });
    }
}
