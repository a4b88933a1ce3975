//! The execution workers: threads beside the pillars that run jobs of the stage, and the choice
//! between them and the stage's own thread.
//!
//! Handing an operation to another thread costs as much as several small operations take. So it
//! is measured what operations take, and whether workers get more done than one thread would:
//! where operations are cheap, or wait for each other, they execute on the stage's own thread,
//! as in a replica without workers. Neither replies nor state depend on it. Several operations
//! travel in one job, as many as make it worth the way.
//!
//! A worker that panics takes the replica with it, as the stage's own thread would.
//!
//! Not here: what may execute when (`exec`). Depends on `ring` for the bell alone.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base::Span;
use exec::{Finished, Job};

use crate::failure::Failure;
use crate::ring::Bell;
use crate::sync::{AtomicUsize, Ordering};

/// Operations that take longer are worth a hand-off.
const DEAR: Span = Span(4_000);
/// Operations that take less are not. Between the two everything stays as it is.
const CHEAP: Span = Span(2_000);
/// Operations that take longer are handed out even if they wait for each other: the way there and
/// back is a small part of them, and the stage's thread has more to do than to execute.
const WELCOME: Span = Span(200_000);
/// How long a job should take.
const JOB: Span = Span(60_000);
/// How long the stage's thread should execute before it looks at the clock, and for how many
/// operations at most.
const LOOK: Span = Span(500_000);
const LOOK_OPS_MAX: usize = 256;
/// Most operations of a job.
const JOB_OPS_MAX: usize = 256;
/// Jobs that are out, per worker: while one runs the next one is there.
const JOBS_PER_WORKER: usize = 2;
/// Operations after which it is decided anew whether they are worth it.
const OPS_PER_VERDICT: u64 = 1024;
/// Time after which it is decided anew, however few the operations were.
const TIME_PER_VERDICT: Span = Span::millis(10);
/// Workers are worth it as long as something is out with them for at most so many times what it
/// takes. More than once, since the stage's thread can do other things meanwhile.
const SLACK: u64 = 2;
/// Most verdicts between two tries of workers that did not pay: doubled with each, so that what
/// tries cost is little.
const REST_MAX: u32 = 256;

/// What the stage and its workers share.
#[derive(Default)]
struct Desk {
    jobs: Mutex<Waiting>,
    arrived: Condvar,
    done: Mutex<Vec<Done>>,
    /// How many there are in `done`: read without a lock.
    count: AtomicUsize,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closing: bool,
}

/// A job that was run.
struct Done {
    finished: Finished,
    ops: usize,
    took: Span,
    ended: Instant,
}

/// The stage's end of the workers.
pub(crate) struct Crew {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
    out: usize,
    /// Since when something is out, as far as the verdict was not told.
    since: Option<Instant>,
    verdict: Verdict,
}

impl Crew {
    /// Starts `workers` threads. They ring `bell` when something is done.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(
        name: &str,
        workers: usize,
        bell: &Arc<Bell>,
        failure: &Arc<Failure>,
    ) -> std::io::Result<Crew> {
        let desk = Arc::new(Desk::default());
        let threads = Vec::new();
        let mut crew = Crew { desk, threads, out: 0, since: None, verdict: Verdict::default() };
        for worker in 0..workers {
            let (desk, bell) = (Arc::clone(&crew.desk), Arc::clone(bell));
            let alarm = Alarm(Arc::clone(failure));
            let name = format!("{name}-{worker}");
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                let _alarm = alarm;
                work(&desk, &bell);
            });
            crew.threads.push(thread?);
        }
        Ok(crew)
    }

    /// How many there are.
    pub(crate) fn workers(&self) -> usize {
        self.threads.len()
    }

    /// Whether another job is welcome beside those that are out and so many that are on their
    /// way.
    pub(crate) fn wants_more(&self, coming: usize) -> bool {
        self.out + coming < self.threads.len() * JOBS_PER_WORKER
    }

    /// How many operations the stage's thread should execute before it looks at the clock.
    pub(crate) fn look(&self) -> usize {
        let one = self.verdict.cost.max(1);
        usize::try_from(LOOK.0 / one).map_or(LOOK_OPS_MAX, |ops| ops.clamp(1, LOOK_OPS_MAX))
    }

    /// How many operations a job should have.
    pub(crate) fn grain(&self) -> usize {
        let one = self.verdict.cost.max(1);
        usize::try_from(JOB.0 / one).map_or(JOB_OPS_MAX, |ops| ops.clamp(1, JOB_OPS_MAX))
    }

    /// Hands out jobs.
    pub(crate) fn run(&mut self, jobs: &mut Vec<Job>) {
        let count = jobs.len();
        if count == 0 {
            return;
        }
        self.out += count;
        self.since.get_or_insert_with(Instant::now);
        lock(&self.desk.jobs).jobs.extend(jobs.drain(..));
        if count == 1 {
            self.desk.arrived.notify_one();
        } else {
            self.desk.arrived.notify_all();
        }
    }

    /// Whether something is done and was not taken.
    pub(crate) fn has_done(&self) -> bool {
        self.desk.count.load(Ordering::Acquire) > 0
    }

    /// Whether anything is out.
    pub(crate) fn is_busy(&self) -> bool {
        self.out > 0
    }

    /// What is done, in no particular order.
    pub(crate) fn take_done(&mut self) -> Vec<Finished> {
        if !self.has_done() {
            return Vec::new();
        }
        let mut done = lock(&self.desk.done);
        let all = std::mem::take(&mut *done);
        self.desk.count.store(0, Ordering::Release);
        drop(done);
        self.out -= all.len();
        // What is done and waits for the stage's thread, which has more to do, is not out.
        let last = all.iter().map(|done| done.ended).max();
        let now = if self.out > 0 { Some(Instant::now()) } else { last };
        let verdict = &mut self.verdict;
        let one = |done: Done| {
            verdict.hear(done.ops as u64, done.took);
            done.finished
        };
        let finished = all.into_iter().map(one).collect();
        let since = std::mem::replace(&mut self.since, now.filter(|_| self.out > 0));
        let out = now.zip(since).map(|(now, since)| span(now.saturating_duration_since(since)));
        self.verdict.conclude(out.unwrap_or_default());
        finished
    }

    /// The stage itself has executed so many operations in so long.
    pub(crate) fn measured(&mut self, ops: u64, took: Span) {
        self.verdict.hear(ops, took);
        self.verdict.conclude(Span(0));
    }

    /// Whether operations are worth a hand-off.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.verdict.worth
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        lock(&self.desk.jobs).closing = true;
        self.desk.arrived.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an execution worker panicked");
            }
        }
    }
}

/// Tells when a worker ends by a panic.
struct Alarm(Arc<Failure>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set("an execution worker ended", &"it panicked");
        }
    }
}

fn work(desk: &Desk, bell: &Bell) {
    let mut waiting = lock(&desk.jobs);
    while !waiting.closing {
        let Some(job) = waiting.jobs.pop_front() else {
            let woken = desk.arrived.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(waiting);
        let began = Instant::now();
        let finished = job.run();
        let ended = Instant::now();
        let took = span(ended - began);
        let mut done = lock(&desk.done);
        let ops = finished.ops();
        done.push(Done { finished, ops, took, ended });
        desk.count.store(done.len(), Ordering::Release);
        drop(done);
        bell.ring();
        waiting = lock(&desk.jobs);
    }
}

fn span(time: Duration) -> Span {
    Span(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked has failed the replica; what is behind the lock is whole all the same.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether operations are worth a hand-off. Begins with the belief that they are: a stage that
/// believes otherwise can be stuck in slow ones for long.
#[derive(Debug)]
struct Verdict {
    worth: bool,
    /// Nanoseconds per operation.
    cost: u64,
    heard: Heard,
    /// Verdicts between the last try of workers that did not pay and the next one.
    rest: u32,
    /// Of these, how many are still to come.
    resting: u32,
}

/// What was measured since the last verdict, in operations and nanoseconds.
#[derive(Default, Debug)]
struct Heard {
    ops: u64,
    /// That operations took, added up over whoever executed.
    took: u64,
    /// During which something was on its way to workers or with them.
    out: u64,
    /// Operations in dear measurements. A thread that the system has put aside for a while makes
    /// a single measurement dear; so most of them have to be.
    dear: u64,
    cheap: u64,
}

impl Default for Verdict {
    fn default() -> Verdict {
        Verdict { worth: true, cost: JOB.0, heard: Heard::default(), rest: 0, resting: 0 }
    }
}

impl Verdict {
    fn hear(&mut self, ops: u64, took: Span) {
        let Some(cost) = took.0.checked_div(ops) else { return };
        let heard = &mut self.heard;
        heard.ops += ops;
        heard.took = heard.took.saturating_add(took.0);
        heard.dear += if cost > DEAR.0 { ops } else { 0 };
        heard.cheap += if cost < CHEAP.0 { ops } else { 0 };
    }

    /// Decides anew when enough was heard. Something was `out` with workers for so long.
    fn conclude(&mut self, out: Span) {
        self.heard.out = self.heard.out.saturating_add(out.0);
        let Heard { ops, took, out, .. } = self.heard;
        let long = took.max(out) >= TIME_PER_VERDICT.0;
        if ops == 0 || (ops < OPS_PER_VERDICT && !long) {
            return;
        }
        let Heard { dear, cheap, .. } = std::mem::take(&mut self.heard);
        self.cost = took / ops;
        let (welcome, dear, cheap) = (self.cost >= WELCOME.0, dear * 2 > ops, cheap * 2 > ops);
        if !self.worth {
            self.resting = self.resting.saturating_sub(1);
            self.worth = dear && (welcome || self.resting == 0);
        } else if welcome || (took.saturating_mul(SLACK) >= out && !cheap) {
            self.rest = 0;
        } else {
            // One thread would have been through much sooner.
            self.worth = false;
            self.rest = if cheap { 0 } else { (self.rest * 2).clamp(1, REST_MAX) };
            self.resting = self.rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Verdict {
        /// Operations were executed by the stage.
        fn own(&mut self, ops: u64, took: Span) {
            self.hear(ops, took);
            self.conclude(Span(0));
        }

        /// Operations were out with workers for so long.
        fn out(&mut self, ops: u64, took: Span, out: Span) {
            self.hear(ops, took);
            self.conclude(out);
        }
    }

    #[test]
    fn cheap_operations_stay_and_dear_ones_go_whatever_one_measurement_says() {
        let mut verdict = Verdict::default();
        assert!(verdict.worth, "slow until it is known better");
        verdict.out(2048, Span(2048 * 40), Span(2048 * 20));
        assert!(!verdict.worth, "cheap, however many at the same time");
        for _ in 0..8 {
            verdict.own(2048, Span(2048 * 40));
        }
        assert!(!verdict.worth);
        // Put aside in the middle of a few operations.
        verdict.own(100, Span::millis(5));
        for _ in 0..4 {
            verdict.own(1000, Span(1000 * 40));
            assert!(!verdict.worth, "one measurement is none");
        }
        (0..2).for_each(|_| verdict.own(1, Span::millis(20)));
        assert!(verdict.worth, "it takes no thousand operations of 20 ms to see that");
        assert_eq!(verdict.cost, 20_000_000);
        (0..3).for_each(|_| verdict.out(1024, Span(1024 * 3_000), Span(1024 * 2_000)));
        assert!(verdict.worth, "between the two bounds it stays as it is");
    }

    #[test]
    fn operations_that_wait_for_each_other_stay_unless_they_are_long() {
        let mut verdict = Verdict::default();
        // Each takes 3 µs, and 20 with the way there and back.
        let chain =
            |verdict: &mut Verdict| verdict.out(1024, Span(1024 * 3_000), Span(1024 * 20_000));
        chain(&mut verdict);
        assert!(!verdict.worth, "neither cheap nor dear, but slower than by one thread");
        (0..2000).for_each(|_| verdict.own(1024, Span(1024 * 3_000)));
        assert!(!verdict.worth, "not dear: no reason to try it");
        // They become dear, and workers are tried again, ever more seldom as it does not help.
        let mut tries = Vec::new();
        for round in 0..2000 {
            if verdict.worth {
                tries.push(round);
                verdict.out(1024, Span(1024 * 10_000), Span(1024 * 30_000));
                assert!(!verdict.worth);
            } else {
                verdict.own(1024, Span(1024 * 10_000));
            }
        }
        let gaps: Vec<u32> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted() && gaps.last() == Some(&(REST_MAX + 1)), "{gaps:?}");
        // They become independent: the next try succeeds, and it stays so.
        while !verdict.worth {
            verdict.own(1024, Span(1024 * 10_000));
        }
        (0..4).for_each(|_| verdict.out(1024, Span(1024 * 10_000), Span(1024 * 6_000)));
        assert!(verdict.worth);
        // One at a time, each for longer than its way: the stage's thread has other things to do.
        (0..4).for_each(|_| verdict.out(1024, Span(1024 * 50_000), Span(1024 * 70_000)));
        assert!(verdict.worth);
        // Long ones go even if only one of them is out at a time.
        (0..4).for_each(|_| verdict.out(1, Span::millis(20), Span::millis(21)));
        assert!(verdict.worth);
    }
}
