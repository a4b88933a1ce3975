//! Others that fetch state and have used up their allowance, beside execution workers.

mod common;

use std::sync::Arc;

use base::transfer::{StateMessage, StateRequest};
use base::{FromStage, Malformed, ReplicaId, Seq, Stripe, Time, ToStage};
use common::{GROUP, batch, id, open, request};
use exec::{
    Completion, Context, Footprint, Job, ParallelService, Service, Stage, StageConfig, StageOutbox,
};

/// Far more questions than the allowance of anybody covers.
const QUESTIONS_MAX: usize = 1_000_000;

/// Without state; all operations are independent.
struct Free;

impl Service for Free {
    fn execute(&mut self, _: &[u8], _: &mut Context<'_>, _: &mut Vec<u8>) -> Completion {
        Completion::Done
    }

    fn get(&self, _: u32, _: &mut Vec<u8>) {}

    fn put(&mut self, _: u32, _: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }

    fn footprint(&self, _: &[u8], out: &mut Footprint) {
        out.reads.push(0);
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        Some(Arc::new(Free))
    }
}

impl ParallelService for Free {
    fn execute(&self, _: &[u8], _: &mut Context<'_>, _: &mut Vec<u8>) {}
}

fn ask(stage: &mut Stage, out: &mut StageOutbox) {
    let message = StateMessage::Ask { checkpoint: Seq(0), request: StateRequest::Manifest };
    stage.on(ToStage::State { from: ReplicaId(1), message }, out).expect("it is taken");
}

/// Whether the stage answered an asker since it was looked at last.
fn answered(out: &mut StageOutbox) -> bool {
    out.messages.drain(..).any(|(_, told)| matches!(told, FromStage::State { .. }))
}

/// The jobs with the operations of batch `seq`, which are more than one: a single one would be
/// executed by the stage itself.
fn jobs_of(stage: &mut Stage, seq: u64, out: &mut StageOutbox) -> Vec<Job> {
    let frame = request(id(1, 1, 0, seq - 1), seq - 2, &[b"x", b"y"]);
    let deliver = ToStage::Deliver { seq: Seq(seq), batch: batch(seq * 10, &[frame]) };
    stage.on(deliver, out).expect("in the window");
    stage.run(1000, out);
    std::iter::from_fn(|| stage.next_job(1)).collect()
}

fn finish(stage: &mut Stage, jobs: Vec<Job>, out: &mut StageOutbox) {
    jobs.into_iter().for_each(|job| stage.finished(job.run(), out));
    stage.run(1000, out);
}

/// Whoever asks for more than its allowance, on purpose perhaps, must not make the workers wait
/// for each other: one that is throttled cannot be answered, so there is nothing to be quiet for.
#[test]
fn an_asker_without_allowance_holds_no_worker_back() {
    let stripe = Stripe::new(1).expect("in range");
    let config = StageConfig {
        group: GROUP,
        stripe,
        checkpoint_interval: 64,
        window: 128,
        nulls_ahead: false,
        replicas: 4,
    };
    let (mut stage, mut out) = (Stage::new(config, Box::new(Free)), StageOutbox::new());
    stage.engage(4);
    stage.on(ToStage::Tick(Time(1)), &mut out).expect("it is taken");
    let opening = ToStage::Deliver { seq: Seq(1), batch: batch(10, &[open(1, 1)]) };
    stage.on(opening, &mut out).expect("in the window");
    stage.run(1000, &mut out);

    // With an allowance it is answered between operations, which wait for that.
    let first = jobs_of(&mut stage, 2, &mut out);
    assert!(!first.is_empty(), "they are ready");
    ask(&mut stage, &mut out);
    assert!(jobs_of(&mut stage, 3, &mut out).is_empty(), "held until the asker is answered");
    assert!(!answered(&mut out), "not while an operation executes");
    finish(&mut stage, first, &mut out);
    assert!(answered(&mut out));
    let second: Vec<Job> = std::iter::from_fn(|| stage.next_job(1)).collect();
    assert!(!second.is_empty(), "nobody waits any more");
    finish(&mut stage, second, &mut out);
    assert_eq!(stage.report().executed, Seq(3));

    // Without one it is not, and they do not.
    let unanswered = (0..QUESTIONS_MAX).find(|_| {
        ask(&mut stage, &mut out);
        stage.run(1000, &mut out);
        !answered(&mut out)
    });
    assert!(unanswered.is_some(), "it has no end");
    let third = jobs_of(&mut stage, 4, &mut out);
    let fourth = jobs_of(&mut stage, 5, &mut out);
    assert!(!third.is_empty() && !fourth.is_empty(), "independent of each other");
    finish(&mut stage, third, &mut out);
    finish(&mut stage, fourth, &mut out);
    assert_eq!(stage.report().executed, Seq(5));
    stage.check();
}
