//! Parallel execution: by itself, a stage with workers, whose jobs are chosen, run and brought back
//! in any order, against one without; and in whole groups, whatever happens to them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use base::crypto::{ClientKeyring, PlainKeys};
use base::transfer::SnapshotReader;
use base::{
    AgreedTime, Batch, ClientId, Digest, Frame, FrameBuilder, FrameId, FromStage, ReplicaId, Seq,
    SessionId, Span, StableCheckpoint, Stripe, Time, ToStage,
};
use exec::{Job, Stage, StageConfig, StageOutbox};

use super::Scenario;
use crate::faults::Fault;
use crate::host::GROUP;
use crate::options::{Answers, Durability, Inside, Net, Options};
use crate::prng::Prng;
use crate::scenario::{leader, settle, world};
use crate::work::{Memory, STREAMS, Work};
use crate::world::World;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "a_log_gives_the_same_with_any_workers_and_schedule",
        claim: "Trap 6: with 1, 2, 4 and 8 workers, whichever of the operations that may execute \
                is next, whenever it is done and whenever it is brought back, every reply, every \
                checkpoint and the state at the end are byte for byte those of one after the \
                other.",
        ci_seeds: 150,
        full_seeds: 3_000,
        run: a_log_gives_the_same_with_any_workers_and_schedule,
    },
    Scenario {
        name: "a_fetch_waits_for_the_workers",
        claim: "Trap 11: a stage is told to fetch a state while workers execute on its own, and \
                pieces come while they do. What they write then goes with what it was written \
                to: the state that is fetched is the others', and so is all that follows.",
        ci_seeds: 30,
        full_seeds: 2_000,
        run: a_fetch_waits_for_the_workers,
    },
    Scenario {
        name: "groups_execute_with_workers",
        claim: "Trap 6 in whole groups: replicas with 2 and 4 workers, and some with none, while \
                processes end, machines stop, leaders are paused, one is left behind and fetches \
                a state, memory is spoilt, batches execute tentatively and checkpoints go to the \
                disk. All execute the same, as one server would, and clients get their answers.",
        ci_seeds: 24,
        full_seeds: 5_000,
        run: groups_execute_with_workers,
    },
];

const CLIENTS: usize = 3;
const INTERVAL: u64 = 5;

/// What clients ask, in the order in which a generator has it agreed.
struct Asking {
    prng: Prng,
    work: Work,
    tokens: [u64; CLIENTS],
    ids: BTreeMap<(usize, u32), u64>,
}

impl Asking {
    /// A frame of operations of one stream.
    fn frame(&mut self) -> Arc<Frame> {
        let client = self.prng.below(CLIENTS as u64) as usize;
        let stream = self.prng.below(STREAMS) as u32;
        let mut builder = FrameBuilder::new();
        for _ in 0..self.prng.between(1, 5) {
            let round = self.tokens[client];
            self.tokens[client] += 1;
            // Of whatever kind the stream's operations are.
            let token = round * STREAMS + u64::from(stream);
            builder.push(&self.work.question(client, token, &Memory::default()).op);
        }
        let id = self.ids.entry((client, stream)).or_default();
        *id += 1;
        let name =
            FrameId { client: ClientId(client as u32), session: SessionId(1), stream, id: *id };
        Arc::new(builder.request(GROUP, name, *id - 1, |digest| keys().authenticate(digest)))
    }

    fn log(&mut self, batches: u64) -> Vec<Arc<Batch>> {
        let sign = |digest: Digest| keys().authenticate(digest);
        let open =
            |client| Arc::new(FrameBuilder::open(GROUP, ClientId(client), SessionId(1), sign));
        let mut time = 1_700_000_000_000_000_000;
        let mut log = vec![Batch::Frames {
            time: AgreedTime(time),
            frames: (0..CLIENTS as u32).map(open).collect(),
        }];
        for _ in 1..batches {
            time += self.prng.below(50_000_000);
            let frames = (0..self.prng.below(6)).map(|_| self.frame()).collect();
            log.push(match self.prng.below(10) {
                0 => Batch::Null,
                _ => Batch::Frames { time: AgreedTime(time), frames },
            });
        }
        log.into_iter().map(Arc::new).collect()
    }
}

fn keys() -> PlainKeys {
    PlainKeys { me: ReplicaId(0), n: 4 }
}

/// What a stage says that must not depend on workers.
#[derive(PartialEq, Eq, Debug, Default)]
struct Said {
    replies: BTreeMap<FrameId, Arc<Vec<u8>>>,
    checkpoints: Vec<(Seq, Digest)>,
    end: Option<Digest>,
}

fn hear(said: &mut Said, out: &mut StageOutbox) {
    for (_, message) in out.messages.drain(..) {
        match message {
            FromStage::Reply { frame, content, .. } => drop(said.replies.insert(frame, content)),
            FromStage::Checkpoint { seq, digest } => said.checkpoints.push((seq, digest)),
            _ => {}
        }
    }
}

/// A stage with so many workers whose window takes the whole log.
fn stage(work: Work, log: &[Arc<Batch>], workers: usize) -> Stage {
    let stripe = Stripe::new(1).expect("pillars in range");
    let config = StageConfig {
        group: GROUP,
        stripe,
        checkpoint_interval: INTERVAL,
        window: log.len() as u64,
        nulls_ahead: false,
        replicas: 4,
    };
    let mut stage = Stage::new(config, work.service());
    stage.engage(workers);
    stage
}

/// Gives a stage the batches of these numbers.
fn deliver(
    stage: &mut Stage,
    log: &[Arc<Batch>],
    numbers: RangeInclusive<u64>,
    out: &mut StageOutbox,
) {
    for seq in numbers {
        let batch = Arc::clone(&log[seq as usize - 1]);
        stage.on(ToStage::Deliver { seq: Seq(seq), batch }, out).expect("in the window");
    }
}

/// Executes the log with so many workers, in an order that the generator decides.
fn execute(work: Work, log: &[Arc<Batch>], workers: usize, prng: &mut Prng) -> Said {
    let window = log.len() as u64;
    let mut stage = stage(work, log, workers);
    // The first checkpoint covers all objects of the service.
    stage.pace_digests([1, 30, 3_000][prng.below(3) as usize]);
    let (mut said, mut out) = (Said::default(), StageOutbox::new());
    deliver(&mut stage, log, 1..=window, &mut out);
    let (mut given, mut done): (Vec<Job>, Vec<_>) = (vec![], vec![]);
    while stage.report().executed.0 < window {
        stage.run(prng.between(1, 40) as usize, &mut out);
        while given.len() + done.len() < workers
            && let Some(job) = stage.choose_job(&mut |n| prng.below(n as u64) as usize)
        {
            given.push(job);
        }
        if !given.is_empty() {
            done.push(given.swap_remove(prng.below(given.len() as u64) as usize).run());
        }
        if !done.is_empty() && (given.is_empty() || prng.below(2) == 0) {
            let one = done.swap_remove(prng.below(done.len() as u64) as usize);
            stage.finished(one, &mut out);
        }
        hear(&mut said, &mut out);
    }
    while stage.run(1, &mut out).more() {}
    hear(&mut said, &mut out);
    stage.check();
    stage.check_state();
    work.invariant(stage.service()).expect("an invariant of the service");
    said.end = Some(stage.state_digest());
    said
}

fn a_log_gives_the_same_with_any_workers_and_schedule(seed: u64) {
    let mut prng = Prng::new(seed);
    // The key-value service is several times as dear.
    let work = if seed % 16 == 7 { Work::Redis } else { Work::Bank };
    let batches = prng.between(5, 30);
    let mut asking =
        Asking { prng: Prng::new(seed ^ 1), work, tokens: [0; CLIENTS], ids: BTreeMap::new() };
    let log = asking.log(batches);
    let expected = execute(work, &log, 0, &mut prng);
    for workers in [1, 2, 4, 8] {
        let got = execute(work, &log, workers, &mut prng);
        for (frame, content) in &expected.replies {
            assert_eq!(got.replies.get(frame), Some(content), "{workers} workers: {frame:?}");
        }
        assert!(got == expected, "{workers} workers: checkpoints or states differ");
    }
}

/// One who has executed all of the log and keeps what it was at a checkpoint for others.
fn source(work: Work, log: &[Arc<Batch>], kept: u64) -> (Stage, StableCheckpoint) {
    let (mut stage, mut out) = (stage(work, log, 0), StageOutbox::new());
    let pin = ToStage::Pin { seq: Seq(kept), reader: SnapshotReader::Transfer };
    stage.on(pin, &mut out).expect("it is still to come");
    deliver(&mut stage, log, 1..=log.len() as u64, &mut out);
    while stage.run(1_000, &mut out).more() {}
    let manifest = stage.pinned_manifest(SnapshotReader::Transfer).expect("it is kept");
    let digest = manifest.digest(GROUP);
    (stage, StableCheckpoint { seq: Seq(kept), digest, ..StableCheckpoint::default() })
}

/// Has a stage execute some of what it was given, until jobs are out.
fn jobs_out(stage: &mut Stage, prng: &mut Prng, out: &mut StageOutbox) -> Vec<Job> {
    for _ in 0..1_000 {
        stage.run(prng.between(1, 10) as usize, out);
        let mut jobs = Vec::new();
        while let Some(job) = stage.choose_job(&mut |n| prng.below(n as u64) as usize) {
            jobs.push(job);
        }
        if prng.below(8) == 0 && !jobs.is_empty() {
            return jobs;
        }
        jobs.into_iter().for_each(|job| stage.finished(job.run(), out));
    }
    Vec::new()
}

/// Carries what a stage asks for to `source`, and its answers back. Whether the state is there.
fn carry(stage: &mut Stage, source: &mut Stage, out: &mut StageOutbox) -> bool {
    let (mut fetched, mut answers) = (false, StageOutbox::new());
    for (_, message) in out.messages.drain(..) {
        match message {
            FromStage::State { message, .. } => {
                let from = ReplicaId(1);
                source.on(ToStage::State { from, message }, &mut answers).expect("it serves");
            }
            FromStage::Fetched { .. } => fetched = true,
            _ => {}
        }
    }
    source.run(1_000, &mut answers);
    for (_, message) in answers.messages {
        if let FromStage::State { message, .. } = message {
            stage.on(ToStage::State { from: ReplicaId(0), message }, out).expect("it asked");
        }
    }
    fetched
}

fn a_fetch_waits_for_the_workers(seed: u64) {
    let mut prng = Prng::new(seed ^ 0xfe7c);
    let amid = (0..20).filter(|_| fetch_amid_jobs(&mut prng)).count();
    assert!(amid > 0, "no job was ever out");
}

/// Whether jobs were out when the fetch began.
fn fetch_amid_jobs(prng: &mut Prng) -> bool {
    let work = Work::Bank;
    let questions = Prng::new(prng.next_u64());
    let mut asking = Asking { prng: questions, work, tokens: [0; CLIENTS], ids: BTreeMap::new() };
    let log = asking.log(prng.between(20, 40));
    let end = log.len() as u64;
    let kept = INTERVAL * prng.between(2, end / INTERVAL);
    let (mut source, checkpoint) = source(work, &log, kept);
    let mut stage = stage(work, &log, prng.between(1, 5) as usize);
    let mut out = StageOutbox::new();
    deliver(&mut stage, &log, 1..=prng.between(2, kept), &mut out);
    let mut jobs = jobs_out(&mut stage, prng, &mut out);
    if jobs.is_empty() {
        return false;
    }
    let fetch = ToStage::Fetch { checkpoint, sources: vec![ReplicaId(0)] };
    stage.on(fetch, &mut out).expect("it is told so by its coordinator");
    let mut now = Time::ZERO;
    while !carry(&mut stage, &mut source, &mut out) {
        assert!(now < Time::ZERO.after(Span::secs(60)), "the state does not come");
        now = now.after(Span::millis(1));
        for stage in [&mut stage, &mut source] {
            stage.on(ToStage::Tick(now), &mut out).expect("time passes");
        }
        stage.run(prng.between(1, 40) as usize, &mut out);
        if !jobs.is_empty() && prng.below(20) == 0 {
            let job = jobs.swap_remove(prng.below(jobs.len() as u64) as usize);
            stage.finished(job.run(), &mut out);
        }
    }
    jobs.into_iter().for_each(|job| stage.finished(job.run(), &mut out));
    stage.engage(0);
    deliver(&mut stage, &log, kept + 1..=end, &mut out);
    while stage.run(1_000, &mut out).more() {}
    stage.check();
    stage.check_state();
    assert_eq!(stage.report().executed, Seq(end));
    assert_eq!(stage.state_digest(), source.state_digest(), "another state than the source's");
    true
}

fn shape(seed: u64, prng: &mut Prng) -> Options {
    let (n, f) = if prng.below(4) == 0 { (7, 2) } else { (4, 1) };
    let works = [Work::Bank, Work::Counters, Work::Reads];
    let work = works[prng.below(works.len() as u64) as usize];
    Options {
        seed,
        n,
        f,
        pillars: prng.between(1, 3) as u16,
        inside: Inside { delay_max_us: 20, workers: [2, 4][prng.below(2) as usize], late: false },
        clients: 3,
        outstanding: [4, 16][prng.below(2) as usize],
        ops_per_client: 80,
        unbatched: prng.below(3) == 0,
        net: if prng.below(3) == 0 { Net::BAD } else { Net::CALM },
        answers: Answers { tentative: prng.below(2) == 0, ..Answers::default() },
        durability: [Durability::Memory, Durability::Sync, Durability::Async][seed as usize % 3],
        // The store wakes, too: its keys expire.
        work: Some(if seed % 12 == 5 { Work::Redis } else { work }),
        ..Options::default()
    }
}

fn groups_execute_with_workers(seed: u64) {
    let mut prng = Prng::new(seed ^ 0x3013);
    let mut world = world(shape(seed, &mut prng));
    let n = world.options().n;
    let weak = ReplicaId(prng.below(u64::from(n)) as u16);
    for _ in 0..4 {
        world.ask_more(15);
        world.run_for(Span::micros(prng.between(200, 20_000)), |_| false);
        let one = if prng.below(2) == 0 { leader(&world) } else { weak };
        disturb(&mut world, (one, weak), &mut prng);
        world.run_for(Span::millis(prng.between(20, 300)), |_| false);
        world.fault(Fault::Heal);
        world.fault(Fault::Continue(one));
        world.fault(Fault::Restart(one));
    }
    settle(&mut world, 20);
}

/// Something happens to `one`, or, where a group survives only so many of it, to `weak`.
fn disturb(world: &mut World, (one, weak): (ReplicaId, ReplicaId), prng: &mut Prng) {
    match (prng.below(6), world.options().durability) {
        (0, Durability::Sync) => world.fault(Fault::PowerFails(one)),
        (0, Durability::Async) => world.fault(Fault::Crash(one)),
        (1, _) => {
            // It is left behind by the others' logs.
            world.part(&[one.0], &(0..world.options().n).collect::<Vec<_>>());
            world.ask_more(30);
        }
        (2, _) => world.fault(Fault::Pause(one)),
        (3, _) => world.fault(Fault::Spoil(weak)),
        _ => {}
    }
}
