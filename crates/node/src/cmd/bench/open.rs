//! The open loop: operations are due at times of their own.
//!
//! Each thread of the load generator has a pacer, a thread that submits what is due, to the
//! thread's clients in turn: the runtime's timers are too coarse for that. An operation's tag is
//! when it was due. What the clients do not take, since as much is under way as they allow, waits
//! in the pacer, and does not become any less late by that.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::{Batch, CallError, Completion, Completions, Submitter};
use tokio::sync::oneshot;

use super::load::{Numbered, Shared};
use super::ops::Ops;
use super::tally::{Tally, nanos};
use crate::cli::Arrivals;

/// How long the pacer waits when the clients take no more.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(1);
/// The shortest sleep of the pacer that is worth it.
const SLEEP_MIN: Duration = Duration::from_micros(20);
/// Operations that wait in the pacer for a client before no more are made.
const WAITING_MAX: usize = 4_096;
/// Their bytes.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Runs the clients of one thread to the end.
///
/// # Errors
/// When a task or the pacer fails.
pub async fn run(shared: &Shared, thread: usize, clients: Vec<Numbered>) -> Result<Tally> {
    let (mut lines, mut tasks) = (Vec::new(), Vec::new());
    for (number, client) in clients {
        let (submitter, completions) = client.pipe();
        let (finished, sent) = oneshot::channel();
        let ops = shared.plan.ops.clone().beginning_at(number);
        let drain = Drain { shared: shared.clone(), ops: ops.clone(), tally: Tally::new() };
        lines.push(Line { submitter, finished, ops, batch: Batch::new(), due: vec![], sent: 0 });
        tasks.push(tokio::spawn(async move {
            let tally = drain.run(completions, sent).await;
            client.close().await;
            tally
        }));
    }
    let pacer = Pacer::new(shared, thread);
    let pacer = std::thread::Builder::new()
        .name(format!("pacer-{thread}"))
        .spawn(move || pacer.run(lines))
        .context("cannot start a thread")?;
    let mut all = Tally::new();
    for task in tasks {
        all.merge(task.await.context("a client's task ended")?);
    }
    // The submitters were kept until now: their completions go with them.
    let (tally, _submitters) = pacer.join().map_err(|_| anyhow::anyhow!("a pacer panicked"))?;
    all.merge(tally);
    Ok(all)
}

/// Takes what has ended for one client.
struct Drain {
    shared: Shared,
    ops: Ops,
    tally: Tally,
}

impl Drain {
    async fn run(mut self, mut completions: Completions, mut all: oneshot::Receiver<u64>) -> Tally {
        let (mut seen, mut sent) = (0, None);
        while sent != Some(seen) {
            tokio::select! {
                batch = completions.recv() => {
                    let Some(batch) = batch else { break };
                    seen += batch.len() as u64;
                    self.record(&batch);
                }
                all = &mut all, if sent.is_none() => sent = Some(all.unwrap_or(seen)),
            }
        }
        self.tally
    }

    fn record(&mut self, batch: &[Completion]) {
        let (now, window) = (Instant::now(), self.shared.window);
        let (at, from) = (window.since_start(now), window.since_start(window.from));
        let mut good = 0;
        for completion in batch {
            if !self.tally.judge(completion, &self.ops) {
                continue;
            }
            good += 1;
            let due = completion.tag;
            if due >= from {
                self.tally.took(1, at.saturating_sub(due));
            }
        }
        if good > 0 && window.measures(now) {
            self.tally.ended(good, &window, now);
        }
        self.shared.done.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
}

/// One client, as the pacer sees it.
struct Line {
    submitter: Submitter,
    /// Told in the end how many operations were submitted.
    finished: oneshot::Sender<u64>,
    ops: Ops,
    batch: Batch,
    /// When each operation of the batch was due.
    due: Vec<u64>,
    sent: u64,
}

/// Submits operations when they are due.
struct Pacer {
    shared: Shared,
    clock: Clock,
    tally: Tally,
}

impl Pacer {
    fn new(shared: &Shared, thread: usize) -> Pacer {
        let plan = &shared.plan;
        let (rate, arrivals) = plan.rate.expect("an open loop has a rate");
        let clock = Clock::new(rate, arrivals, plan.threads, thread);
        Pacer { shared: shared.clone(), clock, tally: Tally::new() }
    }

    /// Runs to the end; returns the submitters, so that they live on.
    fn run(mut self, mut lines: Vec<Line>) -> (Tally, Vec<Submitter>) {
        let window = self.shared.window;
        let end = nanos(window.until - window.start);
        loop {
            let now = window.since_start(Instant::now());
            if now >= end {
                break;
            }
            self.make(&mut lines, now);
            let kept = lines.iter_mut().any(|line| !self.submit(line));
            let next = self.clock.next_due;
            if kept {
                std::thread::sleep(OVERLOAD_PAUSE);
            } else if next > now {
                std::thread::sleep(Duration::from_nanos(next.min(end) - now).max(SLEEP_MIN));
            }
        }
        self.give_up(&lines, end);
        let mut submitters = Vec::new();
        for line in lines {
            // A task that has ended does not want to know.
            let _ = line.finished.send(line.sent);
            submitters.push(line.submitter);
        }
        (self.tally, submitters)
    }

    /// Makes the operations that are due, for one client after the other.
    fn make(&mut self, lines: &mut [Line], now: u64) {
        let count = lines.len() as u64;
        while self.clock.next_due <= now {
            let turn = self.clock.number;
            let line = &mut lines[usize::try_from(turn % count).expect("below a usize")];
            let waiting = line.batch.len();
            if waiting >= WAITING_MAX || waiting * line.ops.bytes() >= WAITING_BYTES_MAX {
                return;
            }
            let stream = (turn / count) % u64::from(self.shared.plan.streams);
            let stream = u32::try_from(stream).expect("below a u32");
            let due = self.clock.tick();
            let taken = match line.ops.next() {
                (op, true) => line.batch.push_read(stream, op, due),
                (op, false) => line.batch.push(stream, op, due),
            };
            match taken {
                Ok(()) => line.due.push(due),
                Err(error) => self.tally.error(&error.to_string()),
            }
        }
    }

    /// Submits what waits for a client; false when it has to go on waiting.
    fn submit(&mut self, line: &mut Line) -> bool {
        let waiting = line.due.len() as u64;
        match line.submitter.submit_batch(&mut line.batch) {
            Ok(()) => line.sent += waiting,
            Err(CallError::Overloaded { .. }) => return false,
            Err(error) => {
                (0..waiting).for_each(|_| self.tally.error(&error.to_string()));
                line.batch.clear();
            }
        }
        line.due.clear();
        true
    }

    /// Counts what was due and never left: it is at least as late as the end.
    fn give_up(&mut self, lines: &[Line], end: u64) {
        let from = self.shared.window.since_start(self.shared.window.from);
        let late = |tally: &mut Tally, due: u64| {
            tally.unsent += 1;
            if due >= from {
                tally.took(1, end - due);
            }
        };
        for due in lines.iter().flat_map(|line| &line.due) {
            late(&mut self.tally, *due);
        }
        while self.clock.next_due < end {
            let due = self.clock.tick();
            late(&mut self.tally, due);
        }
    }
}

/// When operations are due, in nanoseconds from the start.
struct Clock {
    arrivals: Arrivals,
    /// Nanoseconds between two operations, on average.
    gap: f64,
    next: f64,
    next_due: u64,
    /// Operations that were due so far.
    number: u64,
    random: u64,
}

impl Clock {
    /// The share of one of `threads` of a rate, in operations per second.
    fn new(rate: u64, arrivals: Arrivals, threads: usize, thread: usize) -> Clock {
        let gap = 1e9 / rate as f64;
        let (own, first) = (gap * threads as f64, gap * thread as f64);
        // Threads draw from different parts of one sequence.
        let random = (thread as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut clock = Clock { arrivals, gap: own, next: first, next_due: 0, number: 0, random };
        if arrivals == Arrivals::Poisson {
            clock.next = clock.pause();
        }
        clock.next_due = clock.next as u64;
        clock
    }

    /// When the next operation is due; then turns to the one after it.
    fn tick(&mut self) -> u64 {
        let due = self.next_due;
        self.next += self.pause();
        self.next_due = self.next as u64;
        self.number += 1;
        due
    }

    /// The pause to the next operation.
    fn pause(&mut self) -> f64 {
        match self.arrivals {
            Arrivals::Fixed => self.gap,
            // Pauses of a Poisson process are exponentially distributed.
            Arrivals::Poisson => {
                let uniform = (self.draw() >> 11) as f64 / (1_u64 << 53) as f64;
                -(1.0 - uniform).ln() * self.gap
            }
        }
    }

    /// The next number of SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_arrivals_of_all_threads_interleave() {
        let mut due: Vec<u64> = Vec::new();
        for thread in 0..3 {
            let mut clock = Clock::new(1_000, Arrivals::Fixed, 3, thread);
            due.extend((0..4).map(|_| clock.tick()));
        }
        due.sort_unstable();
        let expected: Vec<u64> = (0..12).map(|number| number * 1_000_000).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn random_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
        let mut clock = Clock::new(1_000, Arrivals::Poisson, 1, 0);
        let due: Vec<u64> = (0..100_000).map(|_| clock.tick()).collect();
        assert!(due.is_sorted());
        let pauses: Vec<f64> = due.windows(2).map(|two| (two[1] - two[0]) as f64 / 1e6).collect();
        let mean = pauses.iter().sum::<f64>() / pauses.len() as f64;
        assert!((0.98..1.02).contains(&mean), "{mean}");
        // Of an exponential distribution, 1 / e is longer than the mean.
        let longer = pauses.iter().filter(|pause| **pause > mean).count() as f64;
        let share = longer / pauses.len() as f64;
        assert!((0.358..0.378).contains(&share), "{share}");
    }
}
