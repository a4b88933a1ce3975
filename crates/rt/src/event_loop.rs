//! One thread: a poll, the lanes that live on it, and perhaps the coordinator and the execution
//! stage.
//!
//! A turn: poll; read; hand mail between lanes and stage until it is quiet; let the lanes end
//! their turn; write, once per connection. It blocks in the poll whenever nothing is to be done,
//! never anywhere else, and never spins.
//!
//! Not here: which lanes live where (`machine`). Depends on `mio` and on the hosts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{Span, Time};
use mio::{Events, Poll, Token};

use crate::clock::Clock;
use crate::coordinator_host::CoordinatorHost;
use crate::lane_host::LaneHost;
use crate::report::{Shared, ThreadSnapshot};
use crate::ring::Bell;
use crate::stage_host::StageHost;

/// The token of the thread's own bell.
pub(crate) const BELL: Token = Token(usize::MAX);
/// The tokens of lane i begin at i times this.
pub(crate) const TOKENS_PER_LANE: usize = 1 << 32;

/// Most events per poll.
pub(crate) const EVENTS_PER_TURN: usize = 512;
/// How often mail is handed round in one turn. Whatever is left waits for the next one, which
/// then begins without blocking.
const ROUNDS_PER_TURN: usize = 4;
/// How long to wait before trying a full ring, or a service that is not ready, again.
const RETRY: Span = Span::millis(1);
/// The least time between two snapshots.
const SNAPSHOT_EVERY: Span = Span::millis(100);
/// How long a stopping replica may take to send what is owed to slow clients.
const DRAIN_MAX: Span = Span::secs(1);

/// One thread's part of a replica.
pub(crate) struct EventLoop {
    pub(crate) poll: Poll,
    pub(crate) bell: Arc<Bell>,
    pub(crate) clock: Clock,
    pub(crate) lanes: Vec<LaneHost>,
    pub(crate) stage: Option<StageHost>,
    /// On the thread of pillar 0, which is then the first of `lanes`.
    pub(crate) coordinator: Option<CoordinatorHost>,
    pub(crate) shared: Arc<Shared>,
    /// Which of the threads this is.
    pub(crate) index: usize,
    pub(crate) state: LoopState,
}

/// What changes from turn to turn.
#[derive(Debug, Default)]
pub(crate) struct LoopState {
    /// When the snapshot was taken, and whether anything has happened since.
    snapshot_at: Time,
    stale: bool,
    /// When draining began.
    draining: Option<Time>,
    drained: bool,
    /// The last answer to a question for the status, and when it was made.
    status: Option<(Time, Vec<u8>)>,
}

impl EventLoop {
    /// Runs until the replica stops.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        self.state.stale = true;
        while !self.stopping() {
            if let Err(error) = self.turn(&mut events) {
                // The poll itself fails only for want of memory or for a bug: without it this
                // thread is deaf, and a replica with a deaf thread is better gone.
                self.shared.failure.set("cannot wait for the network", &error);
                break;
            }
        }
        // Last words: what was queued during the last turn.
        self.lanes.iter_mut().for_each(LaneHost::flush);
        self.publish(self.clock.mono());
    }

    fn turn(&mut self, events: &mut Events) -> std::io::Result<()> {
        self.wait(events)?;
        let now = self.clock.now();
        for event in &*events {
            let lane = event.token().0 / TOKENS_PER_LANE;
            if event.token() != BELL
                && let Some(lane) = self.lanes.get_mut(lane)
            {
                lane.door.links.on_event(event);
            }
        }
        if self.shared.draining.load(Ordering::Acquire) && self.state.draining.is_none() {
            self.state.draining = Some(now.mono);
            self.lanes.iter_mut().for_each(LaneHost::drain);
        }
        for lane in &mut self.lanes {
            lane.begin(now);
            lane.read();
        }
        let mut busy = !events.is_empty();
        for _ in 0..ROUNDS_PER_TURN {
            let mut any = false;
            for lane in &mut self.lanes {
                any |= lane.take_mail();
            }
            if let Some(stage) = &mut self.stage {
                any |= stage.turn();
            }
            if let Some(coordinator) = &mut self.coordinator {
                any |= coordinator.turn(now, &mut self.lanes[0].wired());
            }
            busy |= any;
            if !any {
                break;
            }
        }
        for lane in &mut self.lanes {
            lane.end();
        }
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.end(&mut self.lanes[0].wired());
        }
        self.answer_status(now.mono);
        self.lanes.iter_mut().for_each(LaneHost::flush);
        self.state.stale |= busy;
        if self.state.stale && now.mono >= self.state.snapshot_at.after(SNAPSHOT_EVERY) {
            self.publish(now.mono);
        }
        self.look_drained(now.mono);
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.shared.stopped.load(Ordering::Acquire) || self.shared.failure.failed()
    }

    /// Polls; blocks only if nothing is to be done.
    fn wait(&mut self, events: &mut Events) -> std::io::Result<()> {
        let mut timeout = self.timeout();
        if timeout != Some(Duration::ZERO) {
            // The order matters: see `ring`.
            self.bell.doze();
            let stopping = self.stopping()
                || self.shared.draining.load(Ordering::Acquire) != self.state.draining.is_some();
            if stopping || self.more() {
                timeout = Some(Duration::ZERO);
            }
        }
        let polled = self.poll.poll(events, timeout);
        self.bell.awake();
        match polled {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other,
        }
    }

    /// How long the poll may block; `None` for ever.
    fn timeout(&self) -> Option<Duration> {
        if self.more() {
            return Some(Duration::ZERO);
        }
        let now = self.clock.mono();
        let coordinator = self.coordinator.as_ref().and_then(CoordinatorHost::next_time);
        let lanes = self.lanes.iter().filter_map(LaneHost::next_time);
        let stage = self.stage.as_ref().and_then(StageHost::next_time);
        let mut next = lanes.chain(coordinator).chain(stage).min();
        let mut until = |at: Time| next = Some(next.map_or(at, |next| next.min(at)));
        if self.state.stale {
            until(self.state.snapshot_at.after(SNAPSHOT_EVERY));
        }
        let soon = self.lanes.iter().any(LaneHost::overflowing)
            || self.stage.as_ref().is_some_and(StageHost::soon)
            || self.coordinator.as_ref().is_some_and(CoordinatorHost::overflowing)
            || (self.state.draining.is_some() && !self.state.drained);
        if soon {
            until(now.after(RETRY));
        }
        next.map(|at| Duration::from_nanos(at.since(now).0))
    }

    fn more(&self) -> bool {
        self.lanes.iter().any(LaneHost::more)
            || self.stage.as_ref().is_some_and(StageHost::more)
            || self.coordinator.as_ref().is_some_and(CoordinatorHost::more)
    }

    fn answer_status(&mut self, now: Time) {
        if self.lanes.iter().all(|lane| lane.door.status_asked.is_empty()) {
            return;
        }
        // Made at most as often as the snapshots that it is made of.
        let fresh = matches!(&self.state.status, Some((at, _)) if now < at.after(SNAPSHOT_EVERY));
        if !fresh {
            self.publish(now);
            let json = serde_json::to_vec(&self.shared.report());
            self.state.status = Some((now, json.expect("a report is plain data")));
        }
        let Some((_, json)) = &self.state.status else { return };
        for lane in &mut self.lanes {
            lane.answer_status(|| json.clone());
        }
    }

    /// Leaves a snapshot for whoever may ask.
    pub(crate) fn publish(&mut self, now: Time) {
        let snapshot = ThreadSnapshot {
            lanes: self.lanes.iter_mut().map(LaneHost::snapshot).collect(),
            stage: self.stage.as_ref().map(StageHost::snapshot),
            coordinator: self.coordinator.as_ref().map(CoordinatorHost::snapshot),
        };
        let mut mine = self.shared.threads[self.index].lock().unwrap_or_else(|e| e.into_inner());
        *mine = snapshot;
        self.state.snapshot_at = now;
        self.state.stale = false;
    }

    /// Tells the handle once everything has left, or has had its time.
    fn look_drained(&mut self, now: Time) {
        let Some(since) = self.state.draining else { return };
        if self.state.drained {
            return;
        }
        let idle = self.stage.as_ref().is_none_or(StageHost::is_idle);
        let quiet = idle && !self.more() && self.lanes.iter_mut().all(LaneHost::drained);
        if quiet || now >= since.after(DRAIN_MAX) {
            self.state.drained = true;
            self.shared.drained.fetch_add(1, Ordering::AcqRel);
        }
    }
}
