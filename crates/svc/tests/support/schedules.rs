//! The same log on one thread, on several, and under schedules that a seed decides: what is said
//! about it has to be the same.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use base::{
    Authenticator, Batch, Digest, FrameId, FromStage, GroupId, Seq, Signature, Stripe, ToStage,
};
use exec::{Finished, Job, Service, Stage, StageConfig, StageOutbox};

pub const GROUP: GroupId = GroupId([8; 32]);

/// Checked elsewhere.
pub fn signed(_: Digest) -> Authenticator {
    Authenticator::Signature(Signature([0; 64]))
}

/// A small generator, the same sequence for the same seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % n
    }
}

/// Makes the service in its initial state.
pub type Make = fn() -> Box<dyn Service>;

/// `ci`, or `full` where tests are to be thorough.
pub fn extent(ci: u64, full: u64) -> u64 {
    let is_full = std::env::var("STYLITE_TEST_SCALE").is_ok_and(|scale| scale == "full");
    if is_full { full } else { ci }
}

pub fn stage(make: Make) -> Stage {
    let stripe = Stripe::new(1).expect("in range");
    let config = StageConfig {
        group: GROUP,
        stripe,
        checkpoint_interval: 8,
        window: 1 << 20,
        nulls_ahead: false,
        replicas: 4,
    };
    Stage::new(config, make())
}

/// What is said about a log.
#[derive(PartialEq, Eq, Default)]
pub struct Said {
    pub replies: BTreeMap<FrameId, Arc<Vec<u8>>>,
    pub checkpoints: Vec<(Seq, Digest)>,
    end: Option<Digest>,
}

impl Said {
    pub fn hear(&mut self, out: &mut StageOutbox) {
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

pub fn deliver(stage: &mut Stage, log: &[Arc<Batch>], out: &mut StageOutbox) {
    for (seq, batch) in (1..).map(Seq).zip(log) {
        let batch = Arc::clone(batch);
        stage.on(ToStage::Deliver { seq, batch }, out).expect("in the window");
    }
}

/// Every operation is done; perhaps the digests of a checkpoint are not.
fn run_out(stage: &mut Stage, said: &mut Said, out: &mut StageOutbox) {
    while stage.run(1000, out).more() {}
    said.hear(out);
}

fn end(mut stage: Stage, mut said: Said, log: &[Arc<Batch>]) -> Said {
    assert_eq!(stage.report().executed, Seq(log.len() as u64));
    stage.check();
    said.end = Some(stage.state_digest());
    said
}

pub fn sequential(make: Make, log: &[Arc<Batch>]) -> Said {
    let (mut stage, mut said, mut out) = (stage(make), Said::default(), StageOutbox::new());
    deliver(&mut stage, log, &mut out);
    while stage.run(1000, &mut out).more() {}
    said.hear(&mut out);
    stage.check_state();
    end(stage, said, log)
}

/// On real threads.
pub fn threaded(make: Make, log: &[Arc<Batch>], workers: usize) -> Said {
    let (mut stage, mut said, mut out) = (stage(make), Said::default(), StageOutbox::new());
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
    run_out(&mut stage, &mut said, &mut out);
    stage.check_state();
    end(stage, said, log)
}

/// In an order that the seed decides: any of those that may execute, brought back at any time.
pub fn scheduled(make: Make, log: &[Arc<Batch>], seed: u64, workers: usize) -> Said {
    let (mut stage, mut said, mut out) = (stage(make), Said::default(), StageOutbox::new());
    stage.salt(seed);
    // The first checkpoint covers all objects of the service.
    stage.pace_digests([100, 3_000][seed as usize % 2]);
    assert!(stage.engage(workers.max(2)));
    stage.engage(workers);
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
    run_out(&mut stage, &mut said, &mut out);
    end(stage, said, log)
}

pub fn same(got: &Said, expected: &Said, what: &str) {
    for (frame, content) in &expected.replies {
        let got = got.replies.get(frame);
        assert_eq!(got, Some(content), "{what}: {frame:?}");
    }
    assert!(got == expected, "{what}: checkpoints or the last digest differ");
}
