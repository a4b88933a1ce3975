//! The key-value service on several threads: byte-equal replies and digests with 1, 2, 4 and 8
//! workers, on real threads and under schedules that a generator comes up with.

#[allow(dead_code, reason = "the comparison with Redis uses more of it")]
#[path = "support/generator.rs"]
mod generator;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use base::{
    AgreedTime, Authenticator, Batch, ClientId, Digest, Frame, FrameBuilder, FrameId, FromStage,
    GroupId, Seq, SessionId, Signature, Stripe, ToStage,
};
use exec::testing::Harness;
use exec::{Finished, Job, Stage, StageConfig, StageOutbox};
use generator::Generator;
use svc::KvService;
use svc::kv::op::{self, Step};
use svc::kv::reply::Protocol;

const GROUP: GroupId = GroupId([8; 32]);
const CLIENTS: u32 = 4;

fn signed(_: Digest) -> Authenticator {
    Authenticator::Signature(Signature([0; 64]))
}

/// A small generator, the same sequence for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % n
    }
}

/// Commands, transactions, watches, and bytes that are nothing.
fn operation(commands: &mut Generator, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = vec![];
    match dice.below(40) {
        0 => bytes.extend_from_slice(b"\x01\x07"),
        1 => op::encode_command(Protocol::Resp2, &["FLUSHALL"], &mut bytes),
        2 => {
            let keys: Vec<Vec<u8>> = commands.command().into_iter().skip(1).take(3).collect();
            match keys.is_empty() {
                true => op::encode_command(Protocol::Resp2, &["DBSIZE"], &mut bytes),
                false => op::encode_watch(Protocol::Resp2, &keys, &mut bytes),
            }
        }
        3..=6 => {
            let all: Vec<Vec<Vec<u8>>> =
                (0..1 + dice.below(5)).map(|_| commands.command()).collect();
            let encoded: Vec<Vec<u8>> = all.iter().map(|args| command(args)).collect();
            let steps: Vec<Step<'_>> = encoded.iter().map(|bytes| step(bytes)).collect();
            op::encode_transaction(Protocol::Resp3, &[], &steps, &mut bytes);
        }
        _ => bytes = command(&commands.command()),
    }
    bytes
}

fn command(args: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![];
    op::encode_command(Protocol::Resp2, args, &mut bytes);
    bytes
}

fn step(bytes: &[u8]) -> Step<'_> {
    match op::decode(bytes) {
        Ok((_, op::Op::Command(args))) => Step::Command(args),
        _ => unreachable!("it was encoded as a command"),
    }
}

fn log(seed: u64, batches: u64) -> Vec<Arc<Batch>> {
    let (mut commands, mut dice) = (Generator::new(seed, false), Dice(seed));
    let open = |client| Arc::new(FrameBuilder::open(GROUP, ClientId(client), SessionId(1), signed));
    let mut frames: Vec<Arc<Frame>> = (0..CLIENTS).map(open).collect();
    let (mut log, mut ids, mut time) = (vec![], [0; CLIENTS as usize], 1_000_000_000);
    for _ in 0..batches {
        log.push(Arc::new(Batch::Frames { time: AgreedTime(time), frames }));
        time += dice.below(400) * 1_000_000;
        frames = vec![];
        for _ in 0..dice.below(6) {
            let client = dice.below(CLIENTS.into()) as u32;
            let id = &mut ids[client as usize];
            *id += 1;
            let name =
                FrameId { client: ClientId(client), session: SessionId(1), stream: 0, id: *id };
            let mut builder = FrameBuilder::new();
            (0..1 + dice.below(30)).for_each(|_| {
                builder.push(&operation(&mut commands, &mut dice));
            });
            frames.push(Arc::new(builder.request(GROUP, name, *id - 1, signed)));
        }
    }
    log
}

fn stage() -> Stage {
    let stripe = Stripe::new(1).expect("in range");
    let config = StageConfig { group: GROUP, stripe, checkpoint_interval: 8, window: 1 << 20 };
    Stage::new(config, Box::new(KvService::new()))
}

/// What is said about a log.
#[derive(PartialEq, Eq, Default)]
struct Said {
    replies: BTreeMap<FrameId, Arc<Vec<u8>>>,
    checkpoints: Vec<(Seq, Digest)>,
    end: Option<Digest>,
}

impl Said {
    fn hear(&mut self, out: &mut StageOutbox) {
        for (_, message) in out.messages.drain(..) {
            match message {
                FromStage::Reply { frame, content, .. } => {
                    drop(self.replies.insert(frame, content))
                }
                FromStage::Checkpoint { seq, digest } => self.checkpoints.push((seq, digest)),
                _ => {}
            }
        }
    }
}

fn deliver(stage: &mut Stage, log: &[Arc<Batch>], out: &mut StageOutbox) {
    for (seq, batch) in (1..).map(Seq).zip(log) {
        let batch = Arc::clone(batch);
        stage.on(ToStage::Deliver { seq, batch }, out).expect("in the window");
    }
}

fn end(mut stage: Stage, mut said: Said, log: &[Arc<Batch>]) -> Said {
    assert_eq!(stage.report().executed, Seq(log.len() as u64));
    stage.check();
    stage.check_state();
    said.end = Some(stage.state_digest());
    said
}

fn sequential(log: &[Arc<Batch>]) -> Said {
    let (mut stage, mut said, mut out) = (stage(), Said::default(), StageOutbox::new());
    deliver(&mut stage, log, &mut out);
    while stage.run(1000, &mut out).more() {}
    said.hear(&mut out);
    end(stage, said, log)
}

/// On real threads.
fn threaded(log: &[Arc<Batch>], workers: usize) -> Said {
    let (mut stage, mut said, mut out) = (stage(), Said::default(), StageOutbox::new());
    assert!(stage.engage(workers.max(2)));
    stage.engage(workers);
    deliver(&mut stage, log, &mut out);
    let (give, jobs) = mpsc::channel::<Job>();
    let jobs = Mutex::new(jobs);
    let (bring, done) = mpsc::channel::<Finished>();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (jobs, bring) = (&jobs, bring.clone());
            scope.spawn(move || {
                loop {
                    let job = jobs.lock().expect("nobody panics").recv();
                    let Ok(job) = job else { return };
                    bring.send(job.run()).expect("somebody waits");
                }
            });
        }
        let mut under_way = 0;
        while stage.report().executed.0 < log.len() as u64 {
            stage.run(1000, &mut out);
            while under_way < 2 * workers
                && let Some(job) = stage.next_job(4)
            {
                under_way += 1;
                give.send(job).expect("the workers wait");
            }
            if under_way > 0 {
                stage.finished(done.recv().expect("a job is under way"), &mut out);
                under_way -= 1;
            }
            said.hear(&mut out);
        }
        drop(give);
    });
    end(stage, said, log)
}

/// In an order that the seed decides: any of those that may execute, brought back at any time.
fn scheduled(log: &[Arc<Batch>], seed: u64, workers: usize) -> Said {
    let (mut stage, mut said, mut out) = (stage(), Said::default(), StageOutbox::new());
    stage.salt(seed);
    assert!(stage.engage(workers));
    deliver(&mut stage, log, &mut out);
    let mut dice = Dice(seed);
    let mut jobs: Vec<Job> = vec![];
    while stage.report().executed.0 < log.len() as u64 {
        stage.run(1 + dice.below(60) as usize, &mut out);
        while jobs.len() < workers
            && let Some(job) = stage.choose_job(&mut |n| dice.below(n as u64) as usize)
        {
            jobs.push(job);
        }
        if !jobs.is_empty() {
            let job = jobs.swap_remove(dice.below(jobs.len() as u64) as usize);
            stage.finished(job.run(), &mut out);
        }
        said.hear(&mut out);
    }
    end(stage, said, log)
}

fn same(got: &Said, expected: &Said, what: &str) {
    for (frame, content) in &expected.replies {
        let got = got.replies.get(frame);
        assert_eq!(got, Some(content), "{what}: {frame:?}");
    }
    assert!(got == expected, "{what}: checkpoints or the last digest differ");
}

#[test]
fn any_number_of_threads_gives_the_replies_and_digests_of_one() {
    for seed in 0..4 {
        let log = log(seed, 40);
        let expected = sequential(&log);
        for workers in [1, 2, 4, 8] {
            same(&threaded(&log, workers), &expected, &format!("seed {seed}, {workers} workers"));
        }
    }
}

#[test]
fn any_schedule_gives_the_replies_and_digests_of_one_after_the_other() {
    for seed in 0..16 {
        let log = log(seed / 4, 25);
        let expected = sequential(&log);
        for workers in [2, 4, 8] {
            let got = scheduled(&log, seed, workers);
            same(&got, &expected, &format!("seed {seed}, {workers} workers"));
        }
    }
}

/// Every command touches what it declares and nothing else.
#[test]
fn what_commands_touch_is_what_they_declare() {
    let (mut commands, mut dice) = (Generator::new(9, false), Dice(9));
    let mut harness = Harness::new(KvService::new()).checking_declarations();
    for i in 0..20_000 {
        harness.run(&operation(&mut commands, &mut dice));
        if i % 500 == 0 {
            harness.root();
        }
    }
    assert!(harness.declarations_checked() > 15_000, "{}", harness.declarations_checked());
}
