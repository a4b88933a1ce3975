//! Checkpoints that stay readable while execution goes on, and stages that begin with one.

mod common;

use std::sync::Arc;

use base::transfer::{Part, SnapshotReader};
use base::{AgreedTime, Batch, FromStage, Seq, Span, StableCheckpoint, ToStage};
use common::group::{Blobs, Group, append, blobs, certified, config, digest, snapshot};
use common::{Random, batch, close, feed, id, open, request};
use exec::{Stage, StageBuilder, StageOutbox, Target, Turn};

const OBJECTS: usize = 40;
const TRANSFER: SnapshotReader = SnapshotReader::Transfer;
const DISK: SnapshotReader = SnapshotReader::Disk;

/// Writes and cuts of objects; sessions that open, are used and close.
fn history(seed: u64, batches: u64) -> Vec<Arc<Batch>> {
    let mut random = Random(seed);
    let frame = |random: &mut Random| {
        let (client, session) = (random.below(4) as u32, 1 + random.below(3));
        match random.below(12) {
            0..3 => open(client, session),
            3 => close(client, session),
            _ => {
                let number = 1 + random.below(9);
                let op = append(random.below(60), random.next() as u8, random.below(3) as u16);
                let stream = (random.below(2) << 31) as u32;
                let ack = random.below(number);
                request(id(client, session, stream, number), ack, &[&op, &op])
            }
        }
    };
    (1..=batches)
        .map(|seq| {
            let frames: Vec<_> = (0..random.below(6)).map(|_| frame(&mut random)).collect();
            batch(seq * 10, &frames)
        })
        .collect()
}

fn send(stage: &mut Stage, message: ToStage) -> Vec<FromStage> {
    let mut out = StageOutbox::new();
    stage.on(message, &mut out).expect("the test sends what is taken");
    assert!(out.messages.iter().all(|(target, _)| *target == Target::Coordinator));
    out.messages.into_iter().map(|(_, message)| message).collect()
}

fn pin(stage: &mut Stage, reader: SnapshotReader, seq: u64) -> Vec<FromStage> {
    send(stage, ToStage::Pin { seq: Seq(seq), reader })
}

fn unpin(stage: &mut Stage, reader: SnapshotReader) {
    assert_eq!(send(stage, ToStage::Unpin(reader)), []);
}

/// What a stage shows of the checkpoint at `seq` if it stops there.
fn stopped(batches: &[Arc<Batch>], seq: u64) -> Stage {
    let mut stage = blobs(OBJECTS);
    for (seq, batch) in (1..=seq).zip(batches) {
        feed(&mut stage, seq, batch);
    }
    let told = pin(&mut stage, TRANSFER, seq);
    assert!(matches!(told[..], [FromStage::Pinned { .. }]), "{told:?}");
    stage
}

/// Whoever has a pinned state is told to keep it once more, since more is known of it: execution is
/// beyond it by now, and it would be gone.
#[test]
fn what_is_pinned_already_stays_when_it_is_asked_for_again() {
    let batches = history(1, 40);
    let mut stage = blobs(OBJECTS);
    assert_eq!(pin(&mut stage, DISK, 20), []);
    let mut first = None;
    for (seq, batch) in (1..).zip(&batches) {
        let mut told = feed(&mut stage, seq, batch).into_iter().map(|(_, message)| message);
        first = first.or(told.find(|message| matches!(message, FromStage::Pinned { .. })));
    }
    let held = snapshot(&stage, DISK);
    assert_eq!(pin(&mut stage, DISK, 20), [first.expect("it was executed")]);
    assert_eq!(snapshot(&stage, DISK), held);
}

#[test]
fn what_is_pinned_reads_as_if_execution_had_stopped_there() {
    for seed in 0..12 {
        let batches = history(seed, 80);
        let [a, b] = [[20, 30], [20, 20], [50, 10]][seed as usize % 3];
        let (first, second) = (stopped(&batches, a), stopped(&batches, b));
        let (first, second) = (snapshot(&first, TRANSFER), snapshot(&second, TRANSFER));
        let mut stage = blobs(OBJECTS);
        assert_eq!((pin(&mut stage, TRANSFER, a), pin(&mut stage, DISK, b)), (vec![], vec![]));
        for (seq, batch) in (1..).zip(&batches) {
            let told = feed(&mut stage, seq, batch);
            let pinned = told.iter().filter(|(_, m)| matches!(m, FromStage::Pinned { .. })).count();
            assert_eq!(pinned, usize::from(seq == a) + usize::from(seq == b));
            // In the middle of things, too: an own digest now and then must not disturb.
            if seq % 7 == 0 {
                stage.state_digest();
            }
            if seq >= a && seq % 5 == 0 {
                assert_eq!(snapshot(&stage, TRANSFER), first);
            }
            if seq >= b && seq % 5 == 0 {
                assert_eq!(snapshot(&stage, DISK), second);
            }
        }
        stage.check_state();
        assert!(stage.report().transfer.saved_bytes > 0);
        unpin(&mut stage, TRANSFER);
        assert_eq!(snapshot(&stage, DISK), second, "the other one stays");
        assert_eq!(stage.pinned_manifest(TRANSFER), None);
        unpin(&mut stage, DISK);
        assert_eq!(stage.report().transfer.saved_bytes, 0, "nothing is kept for nobody");
    }
}

#[test]
fn copies_are_made_once_for_two_readers_and_only_of_what_is_written() {
    let mut stage = blobs(OBJECTS);
    pin(&mut stage, TRANSFER, 10);
    pin(&mut stage, DISK, 10);
    feed(&mut stage, 1, &batch(1, &[open(1, 1)]));
    let write = |number: u64, object| {
        let op = append(object, 1, 8);
        batch(number, &[request(id(1, 1, 0, number), number - 1, &[&op])])
    };
    for number in 1..=9 {
        feed(&mut stage, number + 1, &write(number, 7));
    }
    assert_eq!(stage.report().transfer.saved_bytes, 0, "nothing is written since");
    let object = stage.read_pinned(DISK, Part::Service, 7).expect("is pinned").len() as u64;
    let bucket = stage.read_pinned(DISK, Part::Sessions, 1).expect("is pinned").len() as u64;
    for number in 10..=14 {
        feed(&mut stage, number + 1, &write(number, 7));
        assert_eq!(stage.report().transfer.saved_bytes, object + bucket);
    }
    feed(&mut stage, 16, &write(15, 8));
    assert_eq!(stage.report().transfer.saved_bytes, object + bucket + 1);
    // The second checkpoint of the disk needs what is written after it, not what was before.
    pin(&mut stage, DISK, 20);
    for number in 16..=22 {
        feed(&mut stage, number + 1, &write(number, 9));
    }
    let later = stage.read_pinned(DISK, Part::Service, 9).expect("is pinned").len() as u64;
    assert!(later > 3 * 8192, "what was written before the pin is in it");
    unpin(&mut stage, TRANSFER);
    let bucket = stage.read_pinned(DISK, Part::Sessions, 1).expect("is pinned").len() as u64;
    assert_eq!(stage.report().transfer.saved_bytes, later + bucket);
    assert_eq!(stage.read_pinned(DISK, Part::Service, OBJECTS as u32), None);
    assert_eq!(stage.read_pinned(TRANSFER, Part::Service, 0), None);
}

#[test]
fn what_cannot_be_pinned_any_more_is_missed() {
    let mut stage = blobs(OBJECTS);
    let missed = |reader, seq, executed| {
        vec![FromStage::PinMissed { reader, seq: Seq(seq), executed: Seq(executed) }]
    };
    assert_eq!(pin(&mut stage, DISK, 15), missed(DISK, 15, 0), "no checkpoint is taken there");
    let batches = history(3, 40);
    for (seq, batch) in (1..=20).zip(&batches) {
        feed(&mut stage, seq, batch);
    }
    assert_eq!(pin(&mut stage, DISK, 10), missed(DISK, 10, 20));
    // At rest right there it can be.
    assert!(matches!(pin(&mut stage, DISK, 20)[..], [FromStage::Pinned { seq: Seq(20), .. }]));
    feed(&mut stage, 21, &batches[20]);
    assert_eq!(pin(&mut stage, TRANSFER, 20), missed(TRANSFER, 20, 21));
    // One per reader: another number replaces it.
    assert_eq!(pin(&mut stage, DISK, 30), []);
    assert_eq!(stage.pinned_manifest(DISK), None);
    assert_eq!(stage.report().transfer.saved_bytes, 0);
    // A fetch takes everything away, and says so.
    for (seq, batch) in (22..=30).zip(&batches[21..]) {
        feed(&mut stage, seq, batch);
    }
    assert_eq!(pin(&mut stage, TRANSFER, 40), []);
    let checkpoint = StableCheckpoint { seq: Seq(50), ..StableCheckpoint::default() };
    let told = send(&mut stage, ToStage::Fetch { checkpoint, sources: vec![] });
    let both = [missed(TRANSFER, 40, 30), missed(DISK, 30, 30)].concat();
    assert_eq!(told, both);
}

/// Between two checkpoints, too: others may be unable to bring this replica to the next one.
#[test]
fn the_state_at_rest_is_fetched_and_execution_goes_on_from_there() {
    let batches = history(7, 60);
    let mut group = Group::new(vec![blobs(OBJECTS), blobs(OBJECTS)], 1);
    for (seq, batch) in (1..=37).zip(&batches) {
        group.deliver(&[0], seq, batch);
    }
    group.pin(&[0], 36, TRANSFER);
    assert_eq!(group.stages[0].pinned_manifest(TRANSFER), None, "that state is gone");
    group.pin(&[0], 37, TRANSFER);
    let target = certified(&group.stages[0]);
    assert_eq!(target.seq, Seq(37));
    for (seq, batch) in (38..=45).zip(&batches[37..]) {
        group.deliver(&[0], seq, batch);
    }
    group.fetch(1, &target, &[0]);
    group.settle(Span::secs(10));
    assert_eq!(group.fetched(1), Some(Seq(37)));
    group.stages[1].check();
    for (seq, batch) in (38..=60).zip(&batches[37..]) {
        group.deliver(if seq > 45 { &[0, 1] } else { &[1] }, seq, batch);
        group.stages[1].check();
    }
    let [theirs, ours] = [0, 1].map(|at| group.stages[at].report());
    assert_eq!((theirs.checkpoint, theirs.checkpoint_digest), (Seq(60), ours.checkpoint_digest));
}

/// All bytes of a checkpoint, as a disk keeps them.
fn kept(batches: &[Arc<Batch>], seq: u64) -> (Stage, StableCheckpoint) {
    let stage = stopped(batches, seq);
    let checkpoint = certified(&stage);
    (stage, checkpoint)
}

fn builder(kept: &Stage, spoil: impl Fn(Part, u32, &mut Vec<u8>)) -> StageBuilder {
    let (manifest, objects) = snapshot(kept, TRANSFER);
    let mut builder = StageBuilder::new(config(), Blobs::boxed(OBJECTS), manifest);
    for ((part, object), mut bytes) in objects {
        spoil(part, object, &mut bytes);
        let _ = builder.put(part, object, &bytes);
    }
    builder
}

#[test]
fn a_stage_goes_on_from_a_kept_checkpoint() {
    for seed in 0..5 {
        let batches = history(seed, 60);
        let (mut kept, checkpoint) = kept(&batches, 30);
        let restored = builder(&kept, |_, _, _| {}).finish(&checkpoint);
        let Ok(mut stage) = restored else { panic!("the checkpoint verifies") };
        stage.check();
        assert_eq!(stage.progress(), kept.progress());
        let mut out = StageOutbox::new();
        assert_eq!(stage.run(1, &mut out), Turn::Idle);
        let progress = FromStage::Executed(stage.progress());
        assert_eq!(out.messages, [(Target::All, progress)]);
        for (seq, batch) in (31..).zip(&batches[30..]) {
            assert_eq!(feed(&mut stage, seq, batch), feed(&mut kept, seq, batch));
        }
        assert_eq!(digest(&mut stage), digest(&mut kept));
    }
}

#[test]
fn one_corrupt_object_of_a_kept_checkpoint_is_fetched_from_others() {
    let batches = history(1, 60);
    let (mut kept, checkpoint) = kept(&batches, 30);
    let longest = (0..OBJECTS as u32).max_by_key(|object| {
        kept.read_pinned(TRANSFER, Part::Service, *object).map(|bytes| bytes.len())
    });
    let longest = longest.expect("there are objects");
    let spoilt = |what: u8| {
        builder(&kept, move |part, object, bytes| match (part, what) {
            (Part::Service, 0) if object == longest => bytes[9] ^= 4,
            (Part::Service, 1) if object == longest => bytes.clear(),
            (Part::Sessions, 2) if object == 1 => bytes[9] ^= 4,
            (Part::Sessions, 3) if object == 1 => bytes.truncate(3),
            _ => {}
        })
    };
    for what in 0..4 {
        let Err(damaged) = spoilt(what).finish(&checkpoint) else { panic!("it is corrupt") };
        let part = if what < 2 { Part::Service } else { Part::Sessions };
        let unreadable = [(part, if what < 2 { longest } else { 1 })];
        assert_eq!(damaged.bad[..], unreadable[..usize::from(what % 2 == 1)]);
        assert!(damaged.stage.report().halted);
        let mut group = Group::new(vec![blobs(OBJECTS), damaged.stage], 1);
        group.pin(&[0], 30, TRANSFER);
        for (seq, batch) in (1..=60).zip(&batches) {
            group.deliver(&[0], seq, batch);
        }
        assert_eq!(certified(&group.stages[0]), checkpoint);
        group.fetch(1, &checkpoint, &[0]);
        group.settle(Span::secs(10));
        assert_eq!(group.fetched(1), Some(Seq(30)));
        assert_eq!(group.stages[1].report().transfer.objects, 1);
        for (seq, batch) in (31..=60).zip(&batches[30..]) {
            group.deliver(&[1], seq, batch);
        }
        let [theirs, ours] = [0, 1].map(|at| digest(&mut group.stages[at]));
        assert_eq!(theirs, ours);
    }
    // A manifest that is another checkpoint's, or of no checkpoint.
    for wrong in [
        StableCheckpoint { seq: Seq(40), ..checkpoint.clone() },
        StableCheckpoint { digest: kept.report().state_root, ..checkpoint.clone() },
    ] {
        assert!(builder(&kept, |_, _, _| {}).finish(&wrong).is_err());
    }
    assert!(builder(&kept, |_, _, _| {}).finish(&checkpoint).is_ok());
    assert!(digest(&mut kept) != kept.report().state_root);
}

#[test]
fn a_new_group_begins_with_another_groups_state() {
    let batches = history(8, 30);
    let (kept, _) = kept(&batches, 30);
    let seeded = || builder(&kept, |_, _, _| {}).seed().expect("the objects verify");
    let mut stage = seeded();
    let progress = stage.progress();
    assert_eq!((progress.executed, progress.time), (Seq(0), kept.progress().time));
    assert!(stage.sessions().is_empty());
    assert_ne!(stage.state_digest(), blobs(OBJECTS).state_digest());
    assert_eq!(stage.state_digest(), seeded().state_digest());
    // Agreed time goes on, whatever the first leader proposes.
    feed(&mut stage, 1, &batch(1, &[open(1, 1)]));
    assert_eq!(stage.progress().time, AgreedTime(progress.time.0 + 1));
    for seq in 2..=10 {
        feed(&mut stage, seq, &Arc::new(Batch::Null));
    }
    // What the group began with is in every digest from then on.
    let mut empty = blobs(OBJECTS);
    feed(&mut empty, 1, &batch(progress.time.0 + 1, &[open(1, 1)]));
    for seq in 2..=10 {
        feed(&mut empty, seq, &Arc::new(Batch::Null));
    }
    let [ours, theirs] = [&stage, &empty].map(|stage| stage.report());
    assert_eq!(ours.time, theirs.time);
    assert_ne!(ours.checkpoint_digest, theirs.checkpoint_digest);
    let wrong = builder(&kept, |part, object, bytes| {
        if (part, object) == (Part::Service, 2) {
            bytes.push(0);
        }
    });
    assert!(wrong.seed().is_err());
    let unreadable = builder(&kept, |part, object, bytes| {
        if (part, object) == (Part::Service, 2) {
            bytes.clear();
        }
    });
    assert!(unreadable.seed().is_err());
}
