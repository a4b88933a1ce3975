//! The same log with and without workers: byte-equal replies, refusals, digests and outputs,
//! under every schedule that a generator comes up with.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use base::digest::Domain;
use base::transfer::{Manifest, Part, SnapshotReader};
use base::{
    AgreedTime, Batch, Digest, Frame, FrameId, FromStage, Malformed, Reader, Seq, SessionId,
    Stripe, ToStage, Writer,
};
use common::{GROUP, Random, batch, close, id, open, request, run_out};
use exec::{
    Completion, Context, Finished, Footprint, Invocation, Job, Matrices, ObjectTree, Operators,
    Output, ParallelService, Service, Stage, StageConfig, StageOutbox, Target, Turn,
};

const CELLS: u64 = 12;
const INTERVAL: u64 = 4;

/// A cell: a value, names of what was created in it, and when it wants to be woken.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Cell {
    value: u64,
    names: Vec<u64>,
    due: Option<u64>,
}

/// Cells behind locks, one object and one class each.
#[derive(Clone, Default)]
struct Ledger {
    cells: Arc<Vec<Mutex<Cell>>>,
    rules: Option<Arc<dyn Operators>>,
}

struct Handle(Arc<Vec<Mutex<Cell>>>);

impl Ledger {
    fn new(by_rules: bool) -> Ledger {
        let cells = (0..CELLS).map(|_| Mutex::default()).collect();
        let rules = by_rules.then(|| Arc::new(Rules::new()) as Arc<dyn Operators>);
        Ledger { cells: Arc::new(cells), rules }
    }
}

fn lock(cells: &[Mutex<Cell>], cell: u8) -> MutexGuard<'_, Cell> {
    cells[(u64::from(cell) % CELLS) as usize].lock().expect("nobody panics")
}

fn announce(ctx: &mut Context<'_>, cell: u8, value: &Cell) {
    let object = (u64::from(cell) % CELLS) as u32;
    ctx.writes(object.into());
    // Some give their digests themselves, for others their bytes are kept.
    if object.is_multiple_of(2) && ctx.wants_digest(object) {
        let mut bytes = Vec::new();
        encode(value, &mut bytes);
        ctx.digest(object, Digest::of(Domain::Service, &bytes));
    }
    ctx.modify(object, |out| encode(value, out));
}

fn encode(cell: &Cell, out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    w.u64(cell.value).u64(cell.due.unwrap_or(0)).count(cell.names.len());
    cell.names.iter().for_each(|name| {
        w.u64(*name);
    });
}

/// One operation: function, cell, argument.
fn step(cells: &[Mutex<Cell>], op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
    let [function, cell, arg] = *op else { return reply.extend_from_slice(b"no operation") };
    let mut answer = |value: u64| reply.extend_from_slice(&value.to_le_bytes());
    match function {
        b'a' => {
            let mut one = lock(cells, cell);
            announce(ctx, cell, &one);
            one.value = one.value.wrapping_mul(3).wrapping_add(u64::from(arg) + ctx.time.0);
            answer(one.value);
        }
        b'm' if u64::from(cell) % CELLS != u64::from(arg) % CELLS => {
            // Locked one after the other: nobody else has either.
            let moved = std::mem::take(&mut {
                let mut one = lock(cells, cell);
                announce(ctx, cell, &one);
                one.value /= 2;
                one.value
            });
            let mut other = lock(cells, arg);
            announce(ctx, arg, &other);
            other.value = other.value.wrapping_add(moved);
            answer(moved);
        }
        b'c' => {
            let name = ctx.seq.0 << 32 | u64::from(ctx.index);
            let mut one = lock(cells, cell);
            announce(ctx, cell, &one);
            one.names.push(name);
            answer(name);
        }
        b's' => answer((0..CELLS).map(|cell| lock(cells, cell as u8).value).fold(0, |a, b| a ^ b)),
        b'd' => {
            let mut one = lock(cells, cell);
            announce(ctx, cell, &one);
            one.due = Some(ctx.time.0 + u64::from(arg));
        }
        b'e' => ctx.emit(Output::Nudge { client: ctx.client(), session: SessionId(arg.into()) }),
        b'b' => reply.resize(reply.len() + usize::from(arg % 8) * 1_000_000, arg),
        _ => {
            ctx.reads(u64::from(cell) % CELLS);
            answer(lock(cells, cell).value);
        }
    }
}

impl Service for Ledger {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        assert_eq!(Arc::strong_count(&self.cells), 1, "a handle is left when it should be gone");
        step(&self.cells, op, ctx, reply);
        Completion::Done
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        encode(&lock(&self.cells, object as u8), out);
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        assert_eq!(Arc::strong_count(&self.cells), 1, "a handle is left when it should be gone");
        let mut r = Reader::new(bytes);
        let (value, due) = (r.u64("value")?, r.u64("due")?);
        let names = (0..r.count(1 << 20, 8, "names")?).map(|_| r.u64("name"));
        let names = names.collect::<Result<_, _>>()?;
        *lock(&self.cells, object as u8) = Cell { value, names, due: (due > 0).then_some(due) };
        Ok(())
    }

    fn objects(&self) -> u32 {
        CELLS as u32
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        let [function, cell, arg] = *op else { return };
        let class = |cell: u8| u64::from(cell) % CELLS;
        match function {
            b's' => out.barrier = true,
            b'm' => out.writes.extend([class(cell), class(arg)]),
            b'a' | b'c' | b'd' => out.writes.push(class(cell)),
            b'e' | b'b' => {}
            _ => out.reads.push(class(cell)),
        }
        out.schedules = function == b'd';
    }

    fn operators(&self) -> Option<Arc<dyn Operators>> {
        self.rules.clone()
    }

    fn deadline(&self) -> Option<AgreedTime> {
        let due = self.cells.iter().filter_map(|cell| cell.lock().expect("nobody panics").due);
        due.min().map(AgreedTime)
    }

    fn wake(&mut self, ctx: &mut Context<'_>) {
        for cell in 0..CELLS as u8 {
            let mut one = lock(&self.cells, cell);
            if one.due.is_some_and(|due| due <= ctx.time.0) {
                announce(ctx, cell, &one);
                one.due = None;
                one.value = one.value.wrapping_add(1_000_000_007);
            }
        }
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        Some(Arc::new(Handle(Arc::clone(&self.cells))))
    }
}

impl ParallelService for Handle {
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
        assert_ne!(op.first(), Some(&b's'), "a barrier is with a worker");
        step(&self.0, op, ctx, reply);
    }
}

/// The same by function and arguments: 0 reads, 1 writes, 2 moves.
struct Rules(Matrices);

impl Rules {
    fn new() -> Rules {
        let m = Matrices::new(3).independent(0, 0);
        let m = m.by_arguments(0, 1).by_arguments(1, 1).by_arguments(0, 2);
        Rules(m.by_arguments(1, 2).by_arguments(2, 2))
    }
}

impl Operators for Rules {
    fn parse(&self, op: &[u8]) -> Option<Invocation> {
        let [function, cell, arg] = *op else { return None };
        let class = |cell: u8| (u64::from(cell) % CELLS) as u8;
        let (function, args) = match function {
            b's' => return None,
            b'a' | b'c' | b'd' => (1, vec![class(cell)]),
            b'm' => (2, vec![class(cell), class(arg)]),
            b'e' | b'b' => (0, vec![]),
            _ => (0, vec![class(cell)]),
        };
        Some(Invocation { function, args })
    }

    fn always(&self, a: u16, b: u16) -> bool {
        self.0.always(a, b)
    }

    fn related(&self, a: &[u8], b: &[u8]) -> bool {
        a.iter().any(|cell| b.contains(cell))
    }

    fn when_related(&self, a: u16, b: u16) -> bool {
        self.0.when_related(a, b)
    }

    fn schedules(&self, op: &[u8]) -> bool {
        op.first() == Some(&b'd')
    }
}

/// A log: what clients that mostly behave, and some that do not, get ordered.
fn log(random: &mut Random, batches: u64) -> Vec<Arc<Batch>> {
    let mut next: BTreeMap<(u32, u64, u32), u64> = BTreeMap::new();
    let mut log = vec![batch(10, &[open(1, 1), open(2, 1), open(3, 5)])];
    let mut time = 10;
    for _ in 1..batches {
        if random.below(8) == 0 {
            log.push(Arc::new(Batch::Null));
            continue;
        }
        time += random.below(30);
        let frames: Vec<_> = (0..random.below(9)).map(|_| frame(random, &mut next)).collect();
        log.push(batch(time, &frames));
    }
    log
}

fn frame(random: &mut Random, next: &mut BTreeMap<(u32, u64, u32), u64>) -> Arc<Frame> {
    const SESSIONS: [(u32, u64); 4] = [(1, 1), (2, 1), (3, 5), (3, 6)];
    const STREAMS: [u32; 4] = [0, 1, base::frame::UNORDERED, base::frame::UNORDERED | 1];
    let (client, session) = SESSIONS[random.below(4) as usize];
    match random.below(60) {
        0 => return open(client, session + random.below(2)),
        1 => return close(client, session),
        _ => {}
    }
    let stream = STREAMS[random.below(4) as usize];
    let last = next.entry((client, session, stream)).or_default();
    // Now and then a frame comes again, out of turn, far ahead, or with an odd acknowledgement.
    let number = match random.below(20) {
        0 => random.below(*last + 2).max(1),
        1 => *last + 2 + random.below(80),
        _ => *last + 1,
    };
    if number == *last + 1 {
        *last = number;
    }
    let ack = match random.below(10) {
        0 | 1 => number - 1,
        2 => 0,
        _ => number.saturating_sub(1 + random.below(6)),
    };
    let ops: Vec<Vec<u8>> = (0..1 + random.below(6)).map(|_| operation(random)).collect();
    let ops: Vec<&[u8]> = ops.iter().map(Vec::as_slice).collect();
    request(id(client, session, stream, number), ack, &ops)
}

fn operation(random: &mut Random) -> Vec<u8> {
    let function = *b"aaaammmccreb?rs"
        .get(random.below(200) as usize % 18)
        .unwrap_or(if random.below(4) == 0 { &b'd' } else { &b'a' });
    let rare = matches!(function, b's' | b'b');
    let function = if rare && random.below(6) > 0 { b'r' } else { function };
    vec![function, random.below(CELLS) as u8, random.below(256) as u8]
}

fn stage(service: Ledger) -> Stage {
    let stripe = Stripe::new(2).expect("in range");
    let (group, window) = (GROUP, 64);
    let config = StageConfig {
        group,
        stripe,
        checkpoint_interval: INTERVAL,
        window,
        nulls_ahead: false,
        replicas: 4,
    };
    Stage::new(config, Box::new(service))
}

/// What a stage says, apart from the order in which it says it.
#[derive(PartialEq, Eq, Debug, Default)]
struct Said {
    replies: Vec<(FrameId, Vec<u8>)>,
    checkpoints: Vec<FromStage>,
    refused: Vec<FromStage>,
    nudges: Vec<FromStage>,
    digest: Option<Digest>,
}

impl Said {
    fn hear(&mut self, messages: Vec<(Target, FromStage)>) {
        for (_, message) in messages {
            match message {
                FromStage::Reply { frame, content, .. } => {
                    self.replies.push((frame, content.to_vec()));
                }
                FromStage::Checkpoint { .. } => self.checkpoints.push(message),
                FromStage::Refused { .. } => self.refused.push(message),
                FromStage::Nudge { .. } => self.nudges.push(message),
                _ => {}
            }
        }
    }

    /// In each ordered stream, replies to frames that executed leave in order.
    fn check_order(&self, seed: u64) {
        let mut last: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for (frame, content) in &self.replies {
            let reply = base::Reply::decode(&mut Reader::new(content)).expect("a reply");
            let executed = reply.status == base::ReplyStatus::Executed;
            if executed && frame.stream & base::frame::UNORDERED == 0 {
                let key = (frame.client, frame.session, frame.stream);
                let at = (reply.seq.0, frame.id);
                let before = last.insert(key, at);
                assert!(before.is_none_or(|b| b <= at || b.1 >= at.1), "seed {seed}: {frame:?}");
            }
        }
    }

    fn end(mut self, stage: &mut Stage) -> Said {
        self.digest = Some(stage.state_digest());
        stage.check();
        stage.check_state();
        self.replies.sort();
        self
    }
}

fn sequential(log: &[Arc<Batch>]) -> Said {
    let mut stage = stage(Ledger::new(false));
    let (mut said, mut out) = (Said::default(), StageOutbox::new());
    for (seq, batch) in (1..).map(Seq).zip(log) {
        let deliver = ToStage::Deliver { seq, batch: Arc::clone(batch) };
        stage.on(deliver, &mut out).expect("in the window");
        assert_eq!(run_out(&mut stage, &mut out), Turn::Idle);
        said.hear(std::mem::take(&mut out.messages));
    }
    said.end(&mut stage)
}

/// Jobs that were handed out, run, and not brought back.
#[derive(Default)]
struct Workers {
    given: Vec<Job>,
    done: Vec<Finished>,
}

fn take<T>(from: &mut Vec<T>, random: &mut Random) -> Option<T> {
    let len = from.len() as u64;
    (len > 0).then(|| from.swap_remove(random.below(len) as usize))
}

fn parallel(log: &[Arc<Batch>], seed: u64, workers: usize) -> Said {
    let mut random = Random(seed);
    let by_rules = seed % 3 == 2;
    let mut stage = stage(Ledger::new(by_rules));
    stage.salt(seed);
    stage.pace_digests([1, 7, 60, 10_000][seed as usize / 3 % 4]);
    assert!(stage.engage(workers.max(2)) && stage.engage(workers));
    let (mut said, mut out) = (Said::default(), StageOutbox::new());
    let mut hands = Workers::default();
    let mut seq = 0;
    let mut pinned = Pins::default();
    while stage.report().executed.0 < log.len() as u64 {
        match random.below(12) {
            0..=2 if seq < log.len() && seq < stage.report().executed.0 as usize + 60 => {
                seq += 1;
                let batch = Arc::clone(&log[seq - 1]);
                let deliver = ToStage::Deliver { seq: Seq(seq as u64), batch };
                stage.on(deliver, &mut out).expect("in the window");
            }
            3..=5 if hands.given.len() + hands.done.len() < workers => {
                let mut choose = |n: usize| random.below(n as u64) as usize;
                let job = match seed % 2 {
                    0 => stage.choose_job(&mut choose),
                    _ => stage.next_job(1 + seed as usize % 7),
                };
                hands.given.extend(job);
            }
            6..=7 => hands.done.extend(take(&mut hands.given, &mut random).map(Job::run)),
            8..=9 => {
                if let Some(done) = take(&mut hands.done, &mut random) {
                    stage.finished(done, &mut out);
                }
            }
            10 if random.below(20) == 0 => drop(stage.engage([0, workers][seq % 2])),
            10 if random.below(20) == 0 => stage.hold(),
            10 => pinned.look(&mut stage, &mut out, &mut random),
            _ => drop(stage.run(1 + random.below(20) as usize, &mut out)),
        }
        said.hear(std::mem::take(&mut out.messages));
        stage.check();
    }
    assert_eq!((hands.given.len(), hands.done.len(), stage.in_flight()), (0, 0, 0));
    while stage.is_digesting() {
        let more = stage.run(1, &mut out).more();
        assert_eq!(more, stage.is_digesting(), "the stage asks to be run until it is done");
        said.hear(std::mem::take(&mut out.messages));
        stage.check();
    }
    said.check_order(seed);
    said.end(&mut stage)
}

/// Reads pinned checkpoints while execution goes on: they do not change.
#[derive(Default)]
struct Pins {
    wanted: Option<Seq>,
    seen: Option<(Seq, Vec<Vec<u8>>)>,
}

impl Pins {
    fn look(&mut self, stage: &mut Stage, out: &mut StageOutbox, random: &mut Random) {
        let reader = SnapshotReader::Disk;
        if self.wanted.is_none() || random.below(30) == 0 {
            let seq = Seq((stage.report().executed.0 / INTERVAL + 1) * INTERVAL);
            stage.on(ToStage::Pin { seq, reader }, out).expect("is never refused");
            (self.wanted, self.seen) = (Some(seq), None);
        }
        if !stage.is_quiet() {
            return stage.hold();
        }
        let Some(Manifest { seq, service, .. }) = stage.pinned_manifest(reader).copied() else {
            return;
        };
        let object = |o| stage.read_pinned(reader, Part::Service, o).expect("pinned");
        let now: Vec<Vec<u8>> = (0..CELLS as u32).map(object).collect();
        match &self.seen {
            Some((at, then)) if *at == seq => assert!(*then == now, "a pinned checkpoint changes"),
            _ => {
                let digest = |o| Digest::of(Domain::Service, &now[o as usize]);
                let root = ObjectTree::new(CELLS as u32).refresh(digest);
                assert_eq!(root, service, "another state is pinned than the manifest says");
                self.seen = Some((seq, now));
            }
        }
    }
}

fn compare(seeds: std::ops::Range<u64>, batches: u64) {
    for seed in seeds {
        let log = log(&mut Random(seed / 4), batches);
        let expected = sequential(&log);
        for workers in [1, 2, 4, 8] {
            let got = parallel(&log, seed, workers);
            let same = got.replies == expected.replies;
            assert!(same, "seed {seed}, {workers} workers: {}", difference(&got, &expected));
            assert_eq!(got.checkpoints, expected.checkpoints, "seed {seed}, {workers} workers");
            assert_eq!(got.refused, expected.refused, "seed {seed}, {workers} workers");
            assert_eq!(got.nudges, expected.nudges, "seed {seed}, {workers} workers");
            assert_eq!(got.digest, expected.digest, "seed {seed}, {workers} workers");
        }
    }
}

fn difference(got: &Said, expected: &Said) -> String {
    let short = |said: &Said| -> Vec<_> {
        said.replies.iter().map(|(id, bytes)| (*id, Digest::of(Domain::Reply, bytes))).collect()
    };
    let (got, expected) = (short(got), short(expected));
    let pair = got.iter().zip(&expected).find(|(a, b)| a != b);
    format!("{} and {} replies, first difference {pair:?}", got.len(), expected.len())
}

#[test]
fn any_schedule_gives_the_replies_and_the_state_of_one_after_the_other() {
    compare(0..150, 30);
}

/// Ids come from the place in the total order: creations execute at the same time, in any order,
/// and are called what they would be called one after the other (CBASE §5.3).
#[test]
fn creations_in_parallel_have_the_names_of_the_total_order() {
    let mut log = vec![batch(1, &[open(1, 1)])];
    for seq in 1..20 {
        let ops: Vec<[u8; 3]> = (0..CELLS as u8).map(|cell| [b'c', cell, 0]).collect();
        let ops: Vec<&[u8]> = ops.iter().map(<[u8; 3]>::as_slice).collect();
        log.push(batch(seq, &[request(id(1, 1, 0, seq), seq - 1, &ops)]));
    }
    let expected = sequential(&log);
    let mut orders = BTreeSet::new();
    for seed in 0..50 {
        let got = parallel(&log, seed, 8);
        assert_eq!(got, expected, "seed {seed}");
        orders.insert(order_of_one_batch(&log, seed));
    }
    assert!(orders.len() > 30, "creations were executed in {} orders only", orders.len());
}

/// In which order the operations of the second batch are chosen.
fn order_of_one_batch(log: &[Arc<Batch>], seed: u64) -> Vec<usize> {
    let mut random = Random(seed);
    let mut stage = stage(Ledger::new(false));
    assert!(stage.engage(8));
    let mut out = StageOutbox::new();
    for (seq, batch) in (1..).map(Seq).zip(&log[..2]) {
        let deliver = ToStage::Deliver { seq, batch: Arc::clone(batch) };
        stage.on(deliver, &mut out).expect("in the window");
    }
    stage.run(1000, &mut out);
    let mut order = Vec::new();
    let mut choose = |n: usize| {
        order.push(random.below(n as u64) as usize);
        order[order.len() - 1]
    };
    let mut jobs = Vec::new();
    while let Some(job) = stage.choose_job(&mut choose) {
        jobs.push(job);
    }
    assert_eq!(jobs.len(), CELLS as usize, "all creations may execute at the same time");
    for job in jobs.into_iter().rev() {
        stage.finished(job.run(), &mut out);
    }
    stage.run(1000, &mut out);
    order
}

/// Handed out before the stage has to fetch another state, brought back after.
#[test]
fn jobs_of_a_state_that_was_given_up_come_back_and_do_no_harm() {
    let log = log(&mut Random(3), 12);
    let mut stage = stage(Ledger::new(false));
    assert!(stage.engage(4));
    let mut out = StageOutbox::new();
    for (seq, batch) in (1..).map(Seq).zip(&log) {
        let deliver = ToStage::Deliver { seq, batch: Arc::clone(batch) };
        stage.on(deliver, &mut out).expect("in the window");
    }
    let mut jobs = Vec::new();
    for _ in 0..200 {
        stage.run(50, &mut out);
        jobs.extend(stage.next_job(2));
        if jobs.len() == 3 {
            break;
        }
        jobs.drain(..).for_each(|job: Job| stage.finished(job.run(), &mut out));
        jobs.extend(stage.next_job(1));
        jobs.extend(stage.next_job(1));
        jobs.extend(stage.next_job(1));
        if jobs.len() == 3 {
            break;
        }
    }
    assert_eq!(jobs.len(), 3, "three jobs at the same time");
    let checkpoint = base::StableCheckpoint {
        seq: Seq(40),
        digest: Digest([9; 32]),
        ..base::StableCheckpoint::default()
    };
    stage.on(ToStage::Fetch { checkpoint, sources: vec![] }, &mut out).expect("is never refused");
    let before = out.messages.len();
    assert_eq!(stage.run(1000, &mut out), Turn::Idle, "nothing while jobs are out");
    assert_eq!(out.messages.len(), before);
    let jobs: Vec<Finished> = jobs.into_iter().map(Job::run).collect();
    jobs.into_iter().for_each(|done| stage.finished(done, &mut out));
    assert!(stage.is_quiet() && stage.next_job(9).is_none() && stage.in_flight() == 0);
    stage.run(1000, &mut out);
    stage.check();
}
