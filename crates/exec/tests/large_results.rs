//! Operations whose results are large, beside each other: memory stays bounded, and the replies are
//! those of one after the other.

mod common;

use std::sync::Arc;

use base::{FromStage, Malformed, Seq, Stripe, ToStage};
use common::{GROUP, batch, id, open, request};
use exec::{
    Completion, Context, Footprint, ParallelService, Service, Stage, StageConfig, StageOutbox,
};

/// Bytes that every operation answers with.
const RESULT: usize = 400 << 10;
/// Operations of the frame.
const OPS: usize = 24;

/// Answers with as many copies of the operation as make a large result. Without state.
struct Loud;

fn answer(op: &[u8], reply: &mut Vec<u8>) {
    reply.resize(reply.len() + RESULT, op[0]);
}

impl Service for Loud {
    fn execute(&mut self, op: &[u8], _: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        answer(op, reply);
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
        Some(Arc::new(Loud))
    }
}

impl ParallelService for Loud {
    fn execute(&self, op: &[u8], _: &mut Context<'_>, reply: &mut Vec<u8>) {
        answer(op, reply);
    }
}

/// The reply to a frame of [`OPS`] operations, and the operations of each job.
fn run(workers: usize) -> (Arc<Vec<u8>>, Vec<usize>) {
    let stripe = Stripe::new(1).expect("in range");
    let config = StageConfig {
        group: GROUP,
        stripe,
        checkpoint_interval: 64,
        window: 128,
        nulls_ahead: false,
        replicas: 4,
    };
    let mut stage = Stage::new(config, Box::new(Loud));
    stage.engage(workers);
    let ops: Vec<[u8; 1]> = (0..OPS).map(|i| [b'a' + i as u8]).collect();
    let ops: Vec<&[u8]> = ops.iter().map(|op| &op[..]).collect();
    let (mut out, mut jobs) = (StageOutbox::new(), Vec::new());
    let frames = [open(1, 1), request(id(1, 1, 0, 1), 0, &ops)];
    let deliver = ToStage::Deliver { seq: Seq(1), batch: batch(10, &frames) };
    stage.on(deliver, &mut out).expect("in the window");
    while stage.report().executed < Seq(1) {
        stage.run(1000, &mut out);
        if let Some(job) = stage.next_job(256) {
            let done = job.run();
            jobs.push(done.ops());
            stage.finished(done, &mut out);
        }
        stage.check();
    }
    let mut reply = out.messages.drain(..).filter_map(|(_, message)| match message {
        FromStage::Reply { content, .. } => Some(content),
        _ => None,
    });
    (reply.next_back().expect("a reply"), jobs)
}

#[test]
fn a_job_ends_when_its_results_take_much_memory_and_nothing_is_lost() {
    let (expected, none) = run(0);
    assert!(none.is_empty() && expected.len() > OPS * RESULT);
    let (reply, jobs) = run(2);
    assert!(jobs.iter().all(|ops| (1..=3).contains(ops)), "three results are a megabyte: {jobs:?}");
    assert_eq!(jobs.iter().sum::<usize>(), OPS);
    assert!(reply == expected, "the reply is that of one after the other");
}
