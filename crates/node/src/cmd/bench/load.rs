//! The load generator: threads, each with a runtime and some clients on it.
//!
//! Closed loop: every client keeps a number of operations under way, each slot starting its next
//! operation when the last one has ended. Open loop: operations are due at fixed times, whether
//! or not others have ended, and latency counts from when they were due; so a group that stalls
//! is not spared the operations that would have come meanwhile (no coordinated omission).
//!
//! Not here: what operations are ([`super::ops`]), accounting of processors, printing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use client::{CallError, Client, ClientOptions, Completion, Submitter};
use hdrhistogram::Histogram;
use tokio::sync::{oneshot, watch};

use super::ops::Ops;
use crate::cmd::runtime;

/// Latencies above this are counted as this: a minute and a half, in microseconds.
const LATENCY_MAX_US: u64 = 90_000_000;
/// How long the pacer waits when the client takes no more.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(1);
/// The shortest sleep of the pacer that is worth it.
const SLEEP_MIN: Duration = Duration::from_micros(20);

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How each client connects; one entry per client.
    pub clients: Vec<ClientOptions>,
    /// Threads that share the clients.
    pub threads: usize,
    /// The operations.
    pub ops: Ops,
    /// Streams of each client: operations go to them in turn.
    pub streams: u32,
    /// Operations that each client keeps under way.
    pub outstanding: u32,
    /// Operations per second in all, for an open loop.
    pub rate: Option<u64>,
}

/// When a run begins, when it is measured from, and when it ends.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The first operation.
    pub start: Instant,
    /// Measured from here.
    pub from: Instant,
    /// To here.
    pub until: Instant,
}

/// What came of it.
#[derive(Debug)]
pub struct Tally {
    /// Operations that ended well within the measured time.
    pub ops: u64,
    /// Latencies of the operations, in microseconds. Closed loop: of those that ended within the
    /// measured time; open loop: of those that were due in it.
    pub latency: Histogram<u64>,
    /// Operations that did not end well, by cause, over the whole run.
    pub errors: BTreeMap<String, u64>,
}

/// A load generator whose clients are connected.
#[derive(Debug)]
pub struct Load {
    go: watch::Sender<Option<Window>>,
    threads: Vec<JoinHandle<Result<Tally>>>,
    done: Arc<AtomicU64>,
}

impl Load {
    /// Starts the threads and connects the clients.
    ///
    /// # Errors
    /// When a client cannot be connected.
    pub fn connect(plan: &Plan) -> Result<Load> {
        let (go, wait) = watch::channel(None);
        let (ready, connected) = mpsc::channel();
        let done = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for index in 0..plan.threads.min(plan.clients.len()) {
            let (plan, wait, ready) = (plan.clone(), wait.clone(), ready.clone());
            let done = Arc::clone(&done);
            let run = move || worker(&plan, index, wait, &ready, &done);
            let thread = std::thread::Builder::new().name(format!("load-{index}")).spawn(run);
            threads.push(thread.context("cannot start a thread")?);
        }
        drop(ready);
        for _ in &threads {
            connected.recv().context("a thread of the load generator has ended")??;
        }
        Ok(Load { go, threads, done })
    }

    /// Lets the load begin.
    pub fn go(&self, window: Window) {
        self.go.send_replace(Some(window));
    }

    /// Operations that have ended so far, over the whole run.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When a thread fails.
    pub fn finish(self) -> Result<Tally> {
        let mut all = Tally::new();
        for thread in self.threads {
            let one = thread.join().map_err(|_| anyhow!("a load thread panicked"))??;
            all.merge(one);
        }
        Ok(all)
    }
}

impl Tally {
    fn new() -> Tally {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        let latency = latency.expect("the bounds are those of a histogram");
        Tally { ops: 0, latency, errors: BTreeMap::new() }
    }

    fn merge(&mut self, other: Tally) {
        self.ops += other.ops;
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        for (cause, count) in other.errors {
            *self.errors.entry(cause).or_default() += count;
        }
    }

    fn error(&mut self, cause: &str) {
        if let Some(count) = self.errors.get_mut(cause) {
            *count += 1;
        } else {
            self.errors.insert(cause.to_owned(), 1);
        }
    }

    /// Counts the end of an operation; true when it was a good one.
    fn judge(&mut self, completion: &Completion, ops: &Ops) -> bool {
        match &completion.result {
            Ok(result) if ops.fits(result) => true,
            Ok(_) => {
                self.error("unexpected result");
                false
            }
            Err(error) => {
                self.error(&error.to_string());
                false
            }
        }
    }
}

/// One thread: connects its share of the clients, waits for the start, and runs them.
fn worker(
    plan: &Plan,
    index: usize,
    mut wait: watch::Receiver<Option<Window>>,
    ready: &mpsc::Sender<Result<()>>,
    done: &Arc<AtomicU64>,
) -> Result<Tally> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut clients = Vec::new();
        for number in (index..plan.clients.len()).step_by(plan.threads) {
            match Client::connect(plan.clients[number].clone()).await {
                Ok(client) => clients.push((number, client)),
                Err(error) => {
                    // The other end is gone only when another thread has failed.
                    let _ = ready.send(Err(error.into()));
                    return Ok(Tally::new());
                }
            }
        }
        let _ = ready.send(Ok(()));
        let Ok(window) = wait.wait_for(Option::is_some).await.map(|window| *window) else {
            return Ok(Tally::new());
        };
        let window = window.expect("waited for");
        let mut tasks = Vec::new();
        for (number, client) in clients {
            let run = Run::new(plan, number, window, Arc::clone(done));
            tasks.push(tokio::spawn(async move {
                let tally = run.run(&client).await;
                client.close().await;
                tally
            }));
        }
        let mut all = Tally::new();
        for task in tasks {
            all.merge(task.await.context("a client's task ended")?);
        }
        Ok(all)
    })
}

/// One client's part of a run.
struct Run {
    ops: Ops,
    streams: u32,
    outstanding: u32,
    /// Nanoseconds between two operations of this client, and from the start to its first one.
    pace: Option<(f64, f64)>,
    window: Window,
    done: Arc<AtomicU64>,
    tally: Tally,
}

impl Run {
    fn new(plan: &Plan, number: usize, window: Window, done: Arc<AtomicU64>) -> Run {
        let mut ops = plan.ops.clone();
        // Clients begin at different keys.
        for _ in 0..number {
            ops.next();
        }
        let clients = plan.clients.len();
        let pace = plan.rate.map(|rate| {
            let gap = 1e9 / rate as f64;
            (gap * clients as f64, gap * number as f64)
        });
        let (streams, outstanding) = (plan.streams, plan.outstanding);
        Run { ops, streams, outstanding, pace, window, done, tally: Tally::new() }
    }

    async fn run(self, client: &Client) -> Tally {
        match self.pace {
            None => self.closed(client).await,
            Some(pace) => self.open(client, pace).await,
        }
    }

    async fn closed(mut self, client: &Client) -> Tally {
        let (submitter, mut completions) = client.pipe();
        let mut started = vec![0; self.outstanding as usize];
        let mut under_way = 0_u64;
        for slot in 0..self.outstanding {
            under_way += u64::from(self.submit(&submitter, slot).is_ok());
        }
        while under_way > 0 {
            let Some(batch) = completions.recv().await else {
                self.tally.error("the client has ended");
                break;
            };
            let now = Instant::now();
            self.record(&batch, &started, now);
            let again = now < self.window.until;
            let at = nanos(now - self.window.start);
            for completion in &batch {
                let slot = u32::try_from(completion.tag).expect("tags are slots");
                started[slot as usize] = at;
                let closed = matches!(completion.result, Err(CallError::Closed));
                if !again || closed || self.submit(&submitter, slot).is_err() {
                    under_way -= 1;
                }
            }
        }
        self.tally
    }

    fn submit(&mut self, submitter: &Submitter, slot: u32) -> Result<(), ()> {
        let stream = slot % self.streams;
        submitter.submit(stream, self.ops.next(), u64::from(slot)).map_err(|error| {
            self.tally.error(&error.to_string());
        })
    }

    /// Counts a batch of a closed loop. Operations that started together are counted together.
    fn record(&mut self, batch: &[Completion], started: &[u64], now: Instant) {
        let measured = now >= self.window.from && now <= self.window.until;
        let at = nanos(now.saturating_duration_since(self.window.start));
        let (mut run, mut since) = (0, 0);
        for completion in batch {
            let good = self.tally.judge(completion, &self.ops);
            if !good || !measured {
                continue;
            }
            let slot = usize::try_from(completion.tag).expect("tags are slots");
            if started[slot] != since {
                self.count(run, at.saturating_sub(since));
                (run, since) = (0, started[slot]);
            }
            run += 1;
            self.tally.ops += 1;
        }
        self.count(run, at.saturating_sub(since));
        self.done.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }

    fn count(&mut self, operations: u64, latency_ns: u64) {
        if operations == 0 {
            return;
        }
        let us = (latency_ns / 1_000).clamp(1, LATENCY_MAX_US);
        self.tally.latency.record_n(us, operations).expect("clamped to the bounds");
    }

    async fn open(mut self, client: &Client, pace: (f64, f64)) -> Tally {
        let (submitter, mut completions) = client.pipe();
        let (finished, mut total) = oneshot::channel();
        let pacer = Pacer { pace, window: self.window, streams: self.streams };
        let ops = self.ops.clone();
        let spawned = std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
            // The submitter is kept until the end: its completions go with it.
            let sent = pacer.run(&submitter, ops);
            let _ = finished.send(sent);
            submitter
        });
        let Ok(thread) = spawned else {
            self.tally.error("cannot start a thread");
            return self.tally;
        };
        let (mut seen, mut sent) = (0, None);
        while sent != Some(seen) {
            tokio::select! {
                batch = completions.recv() => {
                    let Some(batch) = batch else { break };
                    seen += batch.len() as u64;
                    self.record_due(&batch, pace);
                }
                all = &mut total, if sent.is_none() => sent = Some(all.unwrap_or(seen)),
            }
        }
        drop(completions);
        drop(thread.join());
        self.tally
    }

    /// Counts a batch of an open loop.
    fn record_due(&mut self, batch: &[Completion], pace: (f64, f64)) {
        let now = Instant::now();
        let ended_in_time = now >= self.window.from && now <= self.window.until;
        let at = nanos(now.saturating_duration_since(self.window.start));
        let from = nanos(self.window.from - self.window.start);
        for completion in batch {
            if !self.tally.judge(completion, &self.ops) {
                continue;
            }
            self.tally.ops += u64::from(ended_in_time);
            let due = due(pace, completion.tag);
            if due >= from {
                self.count(1, at.saturating_sub(due));
            }
        }
        self.done.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
}

/// Submits operations when they are due, on a thread of its own: the runtime's timers are too
/// coarse for that.
struct Pacer {
    pace: (f64, f64),
    window: Window,
    streams: u32,
}

impl Pacer {
    /// Runs to the end; returns how many operations were submitted.
    fn run(&self, submitter: &Submitter, mut ops: Ops) -> u64 {
        let end = nanos(self.window.until - self.window.start);
        let mut next = 0;
        loop {
            let at = due(self.pace, next);
            if at >= end {
                return next;
            }
            let now = nanos(Instant::now().saturating_duration_since(self.window.start));
            if at > now {
                std::thread::sleep(Duration::from_nanos(at - now).max(SLEEP_MIN));
                continue;
            }
            let stream = u32::try_from(next % u64::from(self.streams)).expect("below a u32");
            match submitter.submit(stream, ops.next(), next) {
                Ok(()) => next += 1,
                Err(CallError::Overloaded { .. }) => std::thread::sleep(OVERLOAD_PAUSE),
                Err(_) => return next,
            }
        }
    }
}

/// When an operation is due, in nanoseconds from the start.
fn due((gap, offset): (f64, f64), number: u64) -> u64 {
    (offset + gap * number as f64) as u64
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
