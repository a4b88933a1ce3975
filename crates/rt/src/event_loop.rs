//! One thread: a poll, and the task that it has in its replica.
//!
//! A turn: poll; let the task do what there is. It blocks in the poll whenever nothing is to be
//! done, never anywhere else, and never spins. All threads of a replica are such loops, whatever
//! parallelization it has.
//!
//! Not here: what the tasks are: pillars with all that belongs to them (`pillars`), or the stages
//! of a task-oriented pipeline (`top`). Depends on `mio`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{Now, Span, Time};
use mio::{Events, Poll, Token, Waker};

use crate::clock::Clock;
use crate::report::{Shared, ThreadSnapshot};
use crate::ring::Bell;
use crate::status::SNAPSHOT_EVERY;

/// The token of the thread's own bell.
pub(crate) const BELL: Token = Token(usize::MAX);

/// Most events per poll.
pub(crate) const EVENTS_PER_TURN: usize = 512;
/// How long to wait before trying a full ring, or a service that is not ready, again.
const RETRY: Span = Span::millis(1);
/// How long a stopping replica may take to send what is owed to slow clients.
const DRAIN_MAX: Span = Span::secs(1);

/// What a thread does.
pub(crate) trait Task: Send {
    /// One turn: does what events, rings and timers ask for, and sends what came of it. True when
    /// there was something.
    fn turn(&mut self, now: Now, events: &Events) -> bool;

    /// Whether there is work that needs no event to begin.
    fn more(&self) -> bool;

    /// The thread is about to sleep, its bell is told, and there is no more work: asks others to
    /// wake it. True when it must not sleep after all.
    fn doze(&mut self) -> bool {
        false
    }

    /// When the next turn is wanted at the latest.
    fn next_time(&self) -> Option<Time>;

    /// Whether something has to be tried again soon: a ring is full, or a service not ready.
    fn soon(&self) -> bool;

    /// The replica stops: takes nothing new any more.
    fn drain(&mut self) {}

    /// The thread ends: writes what was queued during the last turn.
    fn last_words(&mut self) {}

    /// Whether everything has left that others wait for. Asked only when nothing is to be done.
    fn drained(&mut self) -> bool {
        true
    }

    /// What can be told about it.
    fn snapshot(&mut self) -> ThreadSnapshot;
}

/// A thread's poll and what goes with it.
pub(crate) struct Station {
    pub(crate) poll: Poll,
    pub(crate) bell: Arc<Bell>,
    clock: Clock,
    shared: Arc<Shared>,
    /// Which of the threads this is.
    pub(crate) index: usize,
    /// When the snapshot was taken, and whether anything has happened since.
    snapshot_at: Time,
    stale: bool,
    /// When draining began.
    draining: Option<Time>,
    drained: bool,
}

impl Station {
    /// A poll for the thread `index`.
    ///
    /// # Errors
    /// When the system refuses one.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        clock: Clock,
        index: usize,
    ) -> std::io::Result<Station> {
        let poll = Poll::new()?;
        let bell = Arc::new(Bell::new(Waker::new(poll.registry(), BELL)?));
        let shared = Arc::clone(shared);
        Ok(Station {
            poll,
            bell,
            clock,
            shared,
            index,
            snapshot_at: Time::ZERO,
            stale: true,
            draining: None,
            drained: false,
        })
    }

    /// Runs until the replica stops.
    pub(crate) fn run(mut self, mut task: impl Task) {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.stopping() {
            if let Err(error) = self.turn(&mut task, &mut events) {
                // The poll itself fails only for want of memory or for a bug: without it this
                // thread is deaf, and a replica with a deaf thread is better gone.
                self.shared.failure.set("cannot wait for the network", &error);
                break;
            }
        }
        task.last_words();
        self.publish(&mut task, self.clock.mono());
    }

    /// Leaves a snapshot for whoever may ask.
    pub(crate) fn publish(&mut self, task: &mut impl Task, now: Time) {
        self.shared.publish(self.index, task.snapshot());
        self.snapshot_at = now;
        self.stale = false;
    }

    fn turn(&mut self, task: &mut impl Task, events: &mut Events) -> std::io::Result<()> {
        self.wait(task, events)?;
        let now = self.clock.now();
        if self.shared.draining.load(Ordering::Acquire) && self.draining.is_none() {
            self.draining = Some(now.mono);
            task.drain();
        }
        let any = task.turn(now, events);
        self.stale |= any || !events.is_empty();
        if self.stale && now.mono >= self.snapshot_at.after(SNAPSHOT_EVERY) {
            self.publish(task, now.mono);
        }
        self.look_drained(task, now.mono);
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.shared.stopped.load(Ordering::Acquire) || self.shared.failure.failed()
    }

    /// Polls; blocks only if nothing is to be done.
    fn wait(&mut self, task: &mut impl Task, events: &mut Events) -> std::io::Result<()> {
        let mut timeout = self.timeout(task);
        if timeout != Some(Duration::ZERO) {
            // The order matters: see `ring`.
            self.bell.doze();
            let stopping = self.stopping()
                || self.shared.draining.load(Ordering::Acquire) != self.draining.is_some();
            if stopping || task.more() || task.doze() {
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
    fn timeout(&self, task: &impl Task) -> Option<Duration> {
        if task.more() {
            return Some(Duration::ZERO);
        }
        let now = self.clock.mono();
        let mut next = task.next_time();
        let mut until = |at: Time| next = Some(next.map_or(at, |next| next.min(at)));
        if self.stale {
            until(self.snapshot_at.after(SNAPSHOT_EVERY));
        }
        if task.soon() || (self.draining.is_some() && !self.drained) {
            until(now.after(RETRY));
        }
        next.map(|at| Duration::from_nanos(at.since(now).0))
    }

    /// Tells the handle once everything has left, or has had its time.
    fn look_drained(&mut self, task: &mut impl Task, now: Time) {
        let Some(since) = self.draining else { return };
        if self.drained {
            return;
        }
        let quiet = !task.more() && task.drained();
        if quiet || now >= since.after(DRAIN_MAX) {
            self.drained = true;
            self.shared.drained.fetch_add(1, Ordering::AcqRel);
        }
    }
}
