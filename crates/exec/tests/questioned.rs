//! A fetch of the very checkpoint whose digests are being made while workers are out: it waits for
//! them, is compared, and keeps what it is asked to keep.

mod common;

use std::sync::Arc;

use base::transfer::SnapshotReader;
use base::{Digest, FromStage, Malformed, ReplicaId, Seq, Span, StableCheckpoint, Stripe, ToStage};
use common::group::{Group, certified};
use common::{GROUP, batch, id, open, request};
use exec::{
    Completion, Context, Footprint, Job, ParallelService, Service, Stage, StageConfig, StageOutbox,
};

const INTERVAL: u64 = 4;

const PIN: ToStage = ToStage::Pin { seq: Seq(INTERVAL), reader: SnapshotReader::Disk };

/// The sessions of those who are right.
const SESSIONS: u32 = 39;

/// Operations that do nothing, each for itself. Its one object never changes.
struct Idle;

impl Service for Idle {
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
        Some(Arc::new(Idle))
    }
}

impl ParallelService for Idle {
    fn execute(&self, _: &[u8], _: &mut Context<'_>, _: &mut Vec<u8>) {}
}

fn stage() -> Stage {
    let config = StageConfig {
        group: GROUP,
        stripe: Stripe::new(1).expect("in range"),
        checkpoint_interval: INTERVAL,
        window: 64,
        nulls_ahead: false,
        replicas: 4,
    };
    Stage::new(config, Box::new(Idle))
}

/// Batches behind the first, with a frame of each of many sessions: their objects take a while.
fn deliver(stage: &mut Stage, sessions: u32, out: &mut StageOutbox) {
    for seq in 1..=3 * INTERVAL {
        let frames: Vec<_> = (1..=sessions)
            .map(|client| match seq {
                1 => open(client, 1),
                _ => request(id(client, 1, 0, seq - 1), 0, &[b"op"]),
            })
            .collect();
        let deliver = ToStage::Deliver { seq: Seq(seq), batch: batch(10 * seq, &frames) };
        stage.on(deliver, out).expect("in the window");
    }
}

/// The digest of the first checkpoint, by a stage without workers.
fn first_digest() -> Digest {
    let (mut stage, mut out) = (stage(), StageOutbox::new());
    deliver(&mut stage, SESSIONS, &mut out);
    while stage.run(1000, &mut out).more() {}
    let first = out.messages.iter().find_map(|(_, message)| match message {
        FromStage::Checkpoint { seq: Seq(INTERVAL), digest } => Some(*digest),
        _ => None,
    });
    first.expect("there is a checkpoint")
}

/// A stage with `sessions` whose first checkpoint, which it keeps for its disk if it is `pinned`,
/// is being digested while a job is out.
fn amid_digests(sessions: u32, pinned: bool) -> (Stage, Job) {
    let (mut stage, mut out) = (stage(), StageOutbox::new());
    assert!(stage.engage(2));
    if pinned {
        stage.on(PIN, &mut out).expect("taken");
    }
    stage.pace_digests(1);
    deliver(&mut stage, sessions, &mut out);
    for _ in 0..1_000 {
        stage.run(1, &mut out);
        let Some(job) = stage.next_job(1) else { continue };
        let (executed, digesting) = (stage.report().executed.0, stage.is_digesting());
        if digesting && (INTERVAL..2 * INTERVAL).contains(&executed) {
            return (stage, job);
        }
        stage.finished(job.run(), &mut out);
    }
    panic!("no job is ever out while digests are made");
}

/// How often the checkpoint was told, it counted as fetched, and its pin was missed.
fn told(out: &StageOutbox) -> [usize; 3] {
    let count = |is: fn(&FromStage) -> bool| out.messages.iter().filter(|(_, m)| is(m)).count();
    [
        count(|message| matches!(message, FromStage::Checkpoint { seq: Seq(INTERVAL), .. })),
        count(|message| matches!(message, FromStage::Fetched { .. })),
        count(|message| matches!(message, FromStage::PinMissed { .. })),
    ]
}

#[test]
fn what_is_being_digested_is_compared_when_the_workers_are_back() {
    for right in [true, false] {
        let (mut stage, job) = amid_digests(SESSIONS, false);
        let mut out = StageOutbox::new();
        let digest = if right { first_digest() } else { Digest([9; 32]) };
        let checkpoint = StableCheckpoint { seq: Seq(INTERVAL), digest, ..Default::default() };
        let sources = vec![ReplicaId(1)];
        stage.on(ToStage::Fetch { checkpoint, sources }, &mut out).expect("taken");
        stage.on(PIN, &mut out).expect("taken");
        stage.run(1000, &mut out);
        assert_eq!(told(&out), [0, 0, 0], "nothing is known yet");
        assert!(stage.next_job(1).is_none(), "nobody gets anything new");
        stage.finished(job.run(), &mut out);
        stage.run(1, &mut out);
        // What is executed already cannot be kept any more; what is fetched can.
        let ours = usize::from(right);
        assert_eq!(told(&out), [ours, ours, ours]);
        assert_eq!(stage.report().diverged, u64::from(!right));
        stage.check();
    }
}

/// The own state was kept for the disk, and is wrong: what replaces it is to be kept there instead,
/// although the number is the same. What is right stays, though execution is beyond it. One more
/// source has it meanwhile, and changes nothing.
#[test]
fn what_is_fetched_is_kept_for_the_disk_in_place_of_the_own_state() {
    for (sessions, pinned) in [(SESSIONS, true), (SESSIONS + 1, true), (SESSIONS + 1, false)] {
        let (fetching, job) = amid_digests(sessions, pinned);
        let mut group = Group::new(vec![stage(), fetching], 1);
        group.pin(&[0], INTERVAL, SnapshotReader::Transfer);
        deliver(&mut group.stages[0], SESSIONS, &mut StageOutbox::new());
        group.run(0);
        let checkpoint = certified(&group.stages[0]);
        let digest = checkpoint.digest;
        group.fetch(1, &checkpoint, &[0]);
        group.send(1, PIN);
        group.fetch(1, &checkpoint, &[0]);
        group.stages[1].finished(job.run(), &mut StageOutbox::new());
        group.run(1);
        group.settle(Span::secs(60));
        assert_eq!(group.fetched(1), Some(Seq(INTERVAL)));
        let kept = group.stages[1].pinned_manifest(SnapshotReader::Disk).expect("it is kept");
        assert_eq!((kept.seq, kept.digest(GROUP)), (Seq(INTERVAL), digest), "{sessions} {pinned}");
    }
}

/// Whoever wanted what is no longer in question, nor to come, hears of it.
#[test]
fn what_is_in_question_is_missed_when_something_else_is_fetched() {
    let (mut stage, _job) = amid_digests(SESSIONS, false);
    let mut out = StageOutbox::new();
    let fetch = |seq| {
        let checkpoint = StableCheckpoint { seq: Seq(seq), ..Default::default() };
        ToStage::Fetch { checkpoint, sources: vec![ReplicaId(1)] }
    };
    stage.on(fetch(INTERVAL), &mut out).expect("taken");
    stage.on(PIN, &mut out).expect("taken");
    assert_eq!(told(&out), [0, 0, 0], "workers are out");
    stage.on(fetch(5 * INTERVAL), &mut out).expect("taken");
    assert_eq!(told(&out), [0, 0, 1]);
}
