//! Honest clients under measurement: each writes and reads keys of its own through the client
//! library, and knows what every read has to show.
//!
//! Closed loop: each client has 64 operations under way, always. Paced: operations are
//! due at fixed times, wait for a free slot, and their latency counts from when they were due. A
//! client that has too many waiting drops what more comes due, as a server with a bounded queue
//! in front would; what was dropped is counted as shed.
//!
//! Invariant: a wrong answer is an error of its own, remembered with its text.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use client::{Client, ClientOptions, Completion, Submitter};
use genesis::Group;
use hdrhistogram::Histogram;
use svc::kv::op::encode_command;
use svc::kv::reply::Protocol;

use super::cores;

/// Honest principals: 0 to 3.
pub const CLIENTS: u32 = 4;
/// Operations that each has under way in a closed loop, unless [`UNDER_WAY`] says otherwise.
const CLOSED_SLOTS: usize = 64;
/// Operations that each may have under way when it is paced, unless [`UNDER_WAY`] says otherwise:
/// what comes due at fixed times does not wait for answers. With only 64, a client that is due
/// 30,000 operations a second would be slower than that whenever an answer takes 2 ms, whatever
/// its part of the replicas' time.
const SLOTS: usize = 512;
/// The variable that says how many operations each client has under way, up to [`SLOTS`].
const UNDER_WAY: &str = "STYLITE_ATTACK_UNDER_WAY";
/// Digits of a value.
const DIGITS: usize = 48;
/// A bucket of the timeline.
pub const BUCKET: Duration = Duration::from_millis(20);
/// Buckets of a run; what comes later is not in the timeline.
const BUCKETS: usize = 60_000;
/// How often a paced client looks what is due.
const TICK: Duration = Duration::from_millis(1);
/// Operations of one client that may wait for a slot.
const WAITING_MAX: usize = 4_096;

/// Operations that a client has under way, `usual` unless somebody says otherwise.
fn under_way(usual: usize) -> usize {
    let told = std::env::var(UNDER_WAY).ok().and_then(|text| text.parse().ok());
    told.unwrap_or(usual).clamp(1, SLOTS)
}

/// What one client did since it was last asked.
#[derive(Clone, Debug)]
pub struct Tally {
    pub ops: u64,
    pub errors: Vec<String>,
    pub shed: u64,
    pub latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Tally {
        let latency = Histogram::new_with_bounds(1, 90_000_000, 3).expect("bounds of a histogram");
        Tally { ops: 0, errors: Vec::new(), shed: 0, latency }
    }
}

struct Shared {
    begun: Instant,
    ending: AtomicBool,
    /// Operations per second and client; 0 is a closed loop.
    pace: AtomicU64,
    tallies: Vec<Mutex<Tally>>,
    timeline: Vec<AtomicU32>,
}

/// The honest load, which runs until [`Honest::stop`].
pub struct Honest {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Honest {
    /// Starts the clients; they are connected when this returns.
    pub fn start(group: &Group) -> Honest {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            ending: AtomicBool::new(false),
            pace: AtomicU64::new(0),
            tallies: (0..CLIENTS).map(|_| Mutex::default()).collect(),
            timeline: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
        });
        let (ours, group) = (Arc::clone(&shared), group.clone());
        let (ready, wait) = std::sync::mpsc::channel();
        let run = move || {
            cores::confine(cores::Part::Honest);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(async {
                let mut tasks = Vec::new();
                for number in 0..CLIENTS {
                    let client = Client::connect(options(&group, number)).await;
                    let client = client.expect("an honest client is let in");
                    let run = Run::new(number, u32::from(group.pillars()), Arc::clone(&ours));
                    tasks.push(tokio::spawn(run.run(client)));
                }
                ready.send(()).expect("somebody waits");
                for task in tasks {
                    task.await.expect("a client does not panic");
                }
            });
        };
        let thread = std::thread::Builder::new().name("honest".to_owned()).spawn(run);
        wait.recv().expect("the honest clients are connected");
        Honest { shared, thread: Some(thread.expect("a thread")) }
    }

    /// From now on so many operations per second in all; `None`: a closed loop.
    pub fn pace(&self, rate: Option<f64>) {
        let each = rate.map_or(0, |rate| (rate / f64::from(CLIENTS)).max(1.0) as u64);
        self.shared.pace.store(each, Ordering::Relaxed);
    }

    /// What each client did since this was last called.
    pub fn take(&self) -> Vec<Tally> {
        let tallies = self.shared.tallies.iter();
        tallies.map(|one| std::mem::take(&mut *one.lock().expect("no panic"))).collect()
    }

    /// Operations that ended well, per [`BUCKET`], from a moment to now.
    pub fn timeline(&self, from: Instant) -> Vec<u32> {
        let place = |at: Instant| {
            let past = at.saturating_duration_since(self.shared.begun);
            usize::try_from(past.as_nanos() / BUCKET.as_nanos()).expect("short").min(BUCKETS)
        };
        let range = place(from)..place(Instant::now());
        self.shared.timeline[range].iter().map(|one| one.load(Ordering::Relaxed)).collect()
    }

    /// Lets what is under way end, and waits for it.
    pub fn stop(&mut self) -> Vec<Tally> {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.thread.take().expect("it runs").join().expect("the load does not panic");
        self.take()
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
    }
}

/// How principal `number` connects.
pub fn options(group: &Group, number: u32) -> ClientOptions {
    let id = base::ClientId(number);
    let secret = group.load_secret(auth::Peer::Client(id)).expect("its key");
    ClientOptions::new(group.clone(), id, secret)
}

/// A key with one operation at a time.
struct Slot {
    key: String,
    /// The last value that was written, 0 for none.
    value: u64,
    reads: bool,
    due: Instant,
    turn: u64,
}

struct Run {
    number: u32,
    pillars: u32,
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    idle: Vec<usize>,
    /// Of the slots, how many a closed loop fills, and a paced client may.
    closed: usize,
    paced: usize,
    waiting: VecDeque<Instant>,
    next: Instant,
    bytes: Vec<u8>,
}

impl Run {
    fn new(number: u32, pillars: u32, shared: Arc<Shared>) -> Run {
        let now = Instant::now();
        let slot = |slot| Slot {
            key: format!("honest:{number}:{slot}"),
            value: 0,
            reads: false,
            due: now,
            turn: 0,
        };
        Run {
            number,
            pillars,
            shared,
            slots: (0..SLOTS).map(slot).collect(),
            idle: (0..SLOTS).collect(),
            closed: under_way(CLOSED_SLOTS),
            paced: under_way(SLOTS),
            waiting: VecDeque::new(),
            next: now,
            bytes: Vec::new(),
        }
    }

    async fn run(mut self, client: Client) {
        let (submitter, mut completions) = client.pipe();
        let mut tick = tokio::time::interval(TICK);
        loop {
            let ending = self.shared.ending.load(Ordering::Relaxed);
            if ending && self.idle.len() == SLOTS {
                break;
            }
            if !ending {
                self.begin_due(&submitter);
            }
            tokio::select! {
                batch = completions.recv() => {
                    let Some(batch) = batch else { break };
                    self.take(&batch);
                }
                _ = tick.tick() => {}
            }
        }
        client.close().await;
    }

    /// Begins what is due, as far as there are slots.
    fn begin_due(&mut self, submitter: &Submitter) {
        let (now, pace) = (Instant::now(), self.shared.pace.load(Ordering::Relaxed));
        if pace == 0 {
            self.waiting.clear();
            self.next = now;
            while self.idle.len() > SLOTS - self.closed
                && let Some(slot) = self.idle.pop()
            {
                self.begin(submitter, slot, now);
            }
            return;
        }
        let gap = Duration::from_nanos(1_000_000_000 / pace);
        let mut shed = 0;
        while self.next <= now {
            if self.waiting.len() < WAITING_MAX {
                self.waiting.push_back(self.next);
            } else {
                shed += 1;
            }
            self.next += gap;
        }
        if shed > 0 {
            self.tally(|tally| tally.shed += shed);
        }
        while !self.waiting.is_empty()
            && self.idle.len() > SLOTS - self.paced
            && let Some(slot) = self.idle.pop()
        {
            let due = self.waiting.pop_front().expect("not empty");
            self.begin(submitter, slot, due);
        }
    }

    fn begin(&mut self, submitter: &Submitter, at: usize, due: Instant) {
        let slot = &mut self.slots[at];
        slot.due = due;
        slot.turn += 1;
        slot.reads = slot.turn.is_multiple_of(4) && slot.value > 0;
        self.bytes.clear();
        if slot.reads {
            let words = [&b"GET"[..], slot.key.as_bytes()];
            encode_command(Protocol::Resp2, &words, &mut self.bytes);
        } else {
            slot.value += 1;
            let value = padded(slot.value);
            let words = [&b"SET"[..], slot.key.as_bytes(), value.as_bytes()];
            encode_command(Protocol::Resp2, &words, &mut self.bytes);
        }
        let stream = u32::try_from(at).expect("few") % self.pillars;
        if let Err(error) = submitter.submit(stream, &self.bytes, at as u64) {
            self.idle.push(at);
            self.tally(|tally| tally.errors.push(format!("submit: {error}")));
        }
    }

    fn take(&mut self, batch: &[Completion]) {
        let now = Instant::now();
        let mut good = 0;
        let shared = Arc::clone(&self.shared);
        let mut tally = shared.tallies[self.number as usize].lock().expect("no panic");
        for completion in batch {
            let at = usize::try_from(completion.tag).expect("tags are slots");
            let slot = &self.slots[at];
            self.idle.push(at);
            match &completion.result {
                Ok(result) if **result == *slot.expected() => {
                    let us = now.saturating_duration_since(slot.due).as_micros();
                    let us = u64::try_from(us).unwrap_or(u64::MAX).clamp(1, 90_000_000);
                    tally.latency.record(us).expect("clamped to the bounds");
                    good += 1;
                }
                Ok(result) => {
                    let (key, got) = (&slot.key, result.escape_ascii());
                    tally.errors.push(format!("WRONG ANSWER: {key} {}: {got}", slot.value));
                }
                Err(error) => tally.errors.push(error.to_string()),
            }
        }
        tally.ops += u64::from(good);
        let past = now.saturating_duration_since(shared.begun).as_nanos() / BUCKET.as_nanos();
        if let Some(bucket) = shared.timeline.get(usize::try_from(past).unwrap_or(usize::MAX)) {
            bucket.fetch_add(good, Ordering::Relaxed);
        }
    }

    fn tally(&self, note: impl FnOnce(&mut Tally)) {
        note(&mut self.shared.tallies[self.number as usize].lock().expect("no panic"));
    }
}

impl Slot {
    /// What the answer has to be.
    fn expected(&self) -> Vec<u8> {
        if self.reads {
            format!("${DIGITS}\r\n{}\r\n", padded(self.value)).into_bytes()
        } else {
            b"+OK\r\n".to_vec()
        }
    }
}

fn padded(value: u64) -> String {
    format!("{value:0DIGITS$}")
}
