//! State transfer between stages: over bad networks, from liars, after divergence.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use base::transfer::{
    PIECE_BYTES_MAX, Part, SnapshotReader, StateAnswer, StateMessage, StateRequest,
};
use base::{Batch, Digest, FromStage, ReplicaId, Seq, Span, StableCheckpoint, Time, ToStage};
use common::group::{
    Blobs, Dribble, Group, INTERVAL, LIES, Lie, append, blobs, certified, config, digest,
};
use common::{Random, batch, id, open, replies, request};
use exec::transfer::{BUFFER_BYTES_MAX, IDLE};
use exec::{Stage, StageOutbox, Target, Turn};

const OBJECTS: usize = 300;

/// Batches that write all over the state, from several sessions. The first opens them.
fn history(seed: u64, batches: u64, kib_max: u64) -> Vec<Arc<Batch>> {
    let mut random = Random(seed);
    let mut ids = [0u64; 5];
    let mut frames = |seq: u64| -> Vec<_> {
        if seq == 1 {
            return (0..5).map(|client| open(client, 1)).collect();
        }
        (0..random.below(4))
            .map(|_| {
                let client = random.below(5);
                ids[client as usize] += 1;
                let number = ids[client as usize];
                let op = append(random.next() % 65536, seq as u8, random.below(kib_max) as u16);
                request(id(client as u32, 1, 0, number), number - 1, &[&op])
            })
            .collect()
    };
    (1..=batches).map(|seq| batch(seq * 10, &frames(seq))).collect()
}

/// A group of `n` stages plus one, the last, that knows nothing. The others are past the
/// checkpoint at `pinned`, which they keep for it.
fn group(n: usize, seed: u64, kib_max: u64, pinned: u64) -> (Group, Vec<Arc<Batch>>) {
    let batches = history(seed, pinned + 25, kib_max);
    let mut group = Group::new((0..=n).map(|_| blobs(OBJECTS)).collect(), seed);
    let sources: Vec<usize> = (0..n).collect();
    group.pin(&sources, pinned, SnapshotReader::Transfer);
    group.pin(&sources, 10, SnapshotReader::Disk);
    for (seq, batch) in (1..=pinned + 15).zip(&batches) {
        group.deliver(&sources, seq, batch);
    }
    (group, batches)
}

/// What the fetching stage comes to, and goes on from like everybody else.
fn check_fetched(group: &mut Group, who: usize, batches: &[Arc<Batch>], pinned: u64) {
    assert_eq!(group.fetched(who), Some(Seq(pinned)));
    assert_eq!(group.stages[who].report().executed, Seq(pinned));
    for (seq, batch) in (1..).zip(batches).skip(pinned as usize) {
        group.deliver(&[who], seq, batch);
        if seq > pinned + 15 {
            group.deliver(&[0], seq, batch);
        }
    }
    let [theirs, ours] = [0, who].map(|at| digest(&mut group.stages[at]));
    assert_eq!(theirs, ours);
    assert_eq!(group.stages[who].sessions().len(), 5);
}

#[test]
fn a_stage_fetches_over_a_network_that_loses_and_delays() {
    for seed in 0..40 {
        let (mut group, batches) = group(3, seed, 3, 30);
        group.net.loss = [0, 10, 100][seed as usize % 3];
        group.net.delay_ms = [0, 3, 40][seed as usize / 3 % 3];
        let target = certified(&group.stages[0]);
        for _ in 0..20 {
            group.fetch(3, &target, &[0, 1, 2]);
            group.settle(Span::secs(600));
            if group.fetched(3).is_some() {
                break;
            }
        }
        check_fetched(&mut group, 3, &batches, 30);
        assert!(group.liars(3).is_empty(), "loss is nobody's lie");
    }
}

#[test]
fn a_quiet_network_spreads_the_work_and_fetches_each_object_once() {
    let (mut group, batches) = group(3, 7, 3, 50);
    let target = certified(&group.stages[0]);
    group.fetch(3, &target, &[0, 1, 2]);
    group.settle(Span::secs(60));
    check_fetched(&mut group, 3, &batches, 50);
    let written = group.stages[3].report().transfer;
    assert_eq!(group.asked.values().sum::<u64>(), written.objects);
    assert_eq!(group.asked.len(), 3, "every source was asked for objects");
    assert!(written.objects < OBJECTS as u64 + 5, "what nobody wrote is not fetched");
}

#[test]
fn every_kind_of_liar_costs_time_only_and_is_named() {
    let mut named = BTreeSet::new();
    for (seed, lie) in (0..).zip(LIES).chain((100..).zip(LIES)) {
        let (mut group, batches) = group(3, seed, 3, 30);
        group.net.lies.insert(1, lie);
        group.net.delay_ms = seed % 7;
        let target = certified(&group.stages[0]);
        group.fetch(3, &target, &[0, 1, 2]);
        group.settle(Span::secs(60));
        check_fetched(&mut group, 3, &batches, 30);
        let liars = group.liars(3);
        assert!(liars.is_subset(&BTreeSet::from([1])), "{lie:?}: a correct source is accused");
        named.extend(liars.iter().map(|_| format!("{lie:?}")));
        let told = |m: &&FromStage| matches!(m, FromStage::LyingSource { .. });
        assert_eq!(group.told[3].iter().filter(told).count(), liars.len(), "named once");
    }
    // A source that happens to be asked for nothing it would lie about is not found out.
    assert_eq!(named.len(), LIES.len(), "{named:?}");
}

/// One that always says something true just before patience ends holds nobody up for long.
#[test]
fn a_source_that_dribbles_is_not_waited_for() {
    for (objects, after) in [(60, 0), (2000, 150)] {
        let mut group = Group::new((0..4).map(|_| blobs(objects)).collect(), 3);
        group.pin(&[0, 1, 2], 10, SnapshotReader::Transfer);
        let mut number = 0;
        for seq in 1..=10u64 {
            let mut frames = if seq == 1 { vec![open(1, 1)] } else { vec![] };
            let ops = (0..objects as u64).filter(|object| object % 10 + 1 == seq);
            let ops: Vec<Vec<u8>> = ops.map(|object| append(object, seq as u8, 0)).collect();
            for ops in ops.chunks(1000) {
                number += 1;
                let ops: Vec<&[u8]> = ops.iter().map(Vec::as_slice).collect();
                frames.push(request(id(1, 1, 0, number), number - 1, &ops));
            }
            group.deliver(&[0, 1, 2], seq, &batch(seq * 10, &frames));
        }
        let dribble = |after, pause| Dribble { after, pause, next: Time::ZERO };
        group.net.dribbles.insert(1, dribble(after, Span::millis(950)));
        let target = certified(&group.stages[0]);
        let began = group.now;
        group.fetch(3, &target, &[0, 1, 2]);
        while group.fetched(3).is_none() {
            group.settle(Span::millis(100));
            assert!(group.now < began.after(Span::secs(20)), "{objects} objects: it waits");
        }
        assert_eq!(group.stages[3].report().executed, Seq(10));
        // Alone it is better than nobody.
        group.stages[3] = blobs(objects);
        group.told[3].clear();
        group.net.dribbles.insert(1, dribble(0, Span::millis(5)));
        group.fetch(3, &target, &[1]);
        group.settle(Span::secs(1200));
        assert_eq!(group.fetched(3), Some(Seq(10)), "{objects} objects");
    }
}

#[test]
fn liars_alone_bring_nothing_about() {
    for (seed, lie) in (0..).zip(LIES) {
        let (mut group, batches) = group(2, seed, 3, 30);
        group.net.lies.insert(0, lie);
        group.net.lies.insert(1, lie);
        let target = certified(&group.stages[0]);
        group.fetch(2, &target, &[0, 1]);
        group.settle(Span::secs(60));
        assert!(group.failed(2) && group.fetched(2).is_none(), "{lie:?}");
        // Half another state: nothing is executed on it, and nobody is answered from it.
        group.deliver(&[2], 31, &batches[30]);
        assert!(group.stages[2].report().halted);
        assert_eq!(group.stages[2].report().executed, Seq(0));
        // When an honest source turns up, the rest is fetched.
        group.net.lies.remove(&0);
        let before = group.stages[2].report().transfer.objects;
        group.told[2].clear();
        group.stages.push(blobs(OBJECTS));
        group.told.push(vec![]);
        let honest = Stage::new(config(), Blobs::boxed(OBJECTS));
        group.stages[3] = honest;
        group.pin(&[3], 30, SnapshotReader::Transfer);
        for (seq, batch) in (1..=30).zip(&batches) {
            group.deliver(&[3], seq, batch);
        }
        group.fetch(2, &target, &[3]);
        group.settle(Span::secs(60));
        assert_eq!(group.fetched(2), Some(Seq(30)), "{lie:?}");
        assert!(group.stages[2].report().transfer.objects > before);
    }
}

/// Everything at once: a liar, a crash, loss, delay, a stage that has some of the state already,
/// and targets that are superseded.
#[test]
fn a_storm_ends_with_the_right_state() {
    for seed in 0..60 {
        let (mut group, batches) = group(4, seed, 4, 40);
        let mut random = Random(seed);
        for (seq, batch) in (1..=random.below(40)).zip(&batches) {
            group.deliver(&[4], seq, batch);
        }
        group.net.loss = random.below(60);
        group.net.delay_ms = random.below(30);
        group.net.lies.insert(random.below(4) as u16, LIES[random.below(11) as usize]);
        let mut pinned = 40;
        while group.fetched(4) != Some(Seq(pinned)) {
            let target = certified(&group.stages[0]);
            group.fetch(4, &target, &[0, 1, 2, 3]);
            group.settle(Span::millis(20 + random.below(400)));
            let asleep = random.below(4) as u16;
            group.net.crashed.insert(asleep);
            group.settle(Span::millis(random.below(3000)));
            group.net.crashed.clear();
            if pinned == 40 && random.below(4) == 0 {
                pinned = 60;
                group.pin(&[0, 1, 2, 3], 60, SnapshotReader::Transfer);
                for (seq, batch) in (1..=60).zip(&batches).skip(55) {
                    group.deliver(&[0, 1, 2, 3], seq, batch);
                }
            }
            assert!(group.now < Time(5_000_000_000).after(Span::secs(600)), "seed {seed}");
        }
        for (seq, batch) in (1..=60).zip(&batches).skip(pinned as usize) {
            group.deliver(&[4], seq, batch);
        }
        for (seq, batch) in (1..=60).zip(&batches).skip(55) {
            group.deliver(if pinned == 60 { &[] } else { &[0] }, seq, batch);
        }
        let [theirs, ours] = [0, 4].map(|at| digest(&mut group.stages[at]));
        assert_eq!(theirs, ours, "seed {seed}");
        let lying = group.net.lies.keys().copied().collect();
        assert!(group.liars(4).is_subset(&lying), "seed {seed}: a correct source is accused");
    }
}

/// A group whose state is a few objects of several pieces each.
fn large(n: usize, kib: u16) -> Group {
    let mut group = Group::new((0..=n).map(|_| blobs(20)).collect(), 3);
    let sources: Vec<usize> = (0..n).collect();
    group.pin(&sources, 10, SnapshotReader::Transfer);
    group.deliver(&sources, 1, &batch(1, &[open(1, 1)]));
    for seq in 2..=10 {
        let op = append(seq, seq as u8, kib + seq as u16);
        let frame = request(id(1, 1, 0, seq - 1), 0, &[&op]);
        group.deliver(&sources, seq, &batch(seq, &[frame]));
    }
    // Old, shorter objects to lie with are those of the beginning.
    group
}

#[test]
fn large_objects_come_in_pieces_within_a_bounded_buffer() {
    let mut group = large(3, 12 << 10);
    let target = certified(&group.stages[0]);
    group.fetch(3, &target, &[0, 1, 2]);
    group.settle(Span::secs(60));
    assert_eq!(group.fetched(3), Some(Seq(10)));
    assert!(group.stages[3].report().transfer.bytes > 9 * (12 << 20));
    assert!(group.buffered_max > 24 << 20, "several at a time");
    assert!(group.buffered_max <= BUFFER_BYTES_MAX);
    let [theirs, ours] = [0, 3].map(|at| digest(&mut group.stages[at]));
    assert_eq!(theirs, ours);
}

/// A piece of an object every now and then is something true each time: a large object could take
/// minutes, and longer than that where it is written all the time.
#[test]
fn a_source_that_dribbles_pieces_is_not_waited_for() {
    for (source, after) in [(0, 16), (1, 16), (2, 16)] {
        let mut group = large(3, 20 << 10);
        let pause = Span::millis(450);
        group.net.dribbles.insert(source, Dribble { after, pause, next: Time::ZERO });
        let target = certified(&group.stages[0]);
        let began = group.now;
        group.fetch(3, &target, &[0, 1, 2]);
        while group.fetched(3).is_none() {
            group.settle(Span::millis(100));
            assert!(group.now < began.after(Span::secs(10)), "it waits for {source}");
        }
        assert!(group.now > began.after(Span::secs(2)), "{source} was asked for no object");
    }
}

#[test]
fn an_object_beyond_the_buffer_comes_alone_and_whoever_exaggerates_is_named() {
    for lies in [&[][..], &[(1, Lie::HugeTotal)], &[(0, Lie::HugeTotal), (2, Lie::WrongTotal)]] {
        let mut group = large(4, 9 << 10);
        let sources = [0, 1, 2, 3];
        for seq in 11..=20 {
            let op = append(5, 1, 7 << 10);
            let frame = request(id(1, 1, 0, seq - 1), 0, &[&op]);
            group.pin(&sources[..usize::from(seq == 11) * 4], 20, SnapshotReader::Transfer);
            group.deliver(&sources, seq, &batch(seq, &[frame]));
        }
        let target = certified(&group.stages[3]);
        group.net.lies.extend(lies.iter().copied());
        group.fetch(4, &target, &sources);
        group.settle(Span::secs(60));
        assert_eq!(group.fetched(4), Some(Seq(20)));
        let named: BTreeSet<u16> = lies.iter().map(|(at, _)| *at).collect();
        assert_eq!(group.liars(4), named);
        let longest = group.stages[0].read_pinned(SnapshotReader::Transfer, Part::Service, 5);
        let longest = longest.expect("is pinned").len() as u64;
        assert!(longest > BUFFER_BYTES_MAX);
        assert_eq!(group.buffered_max, longest.max(group.buffered_max.min(BUFFER_BYTES_MAX)));
    }
}

#[test]
fn a_source_that_crashes_or_lets_go_is_replaced() {
    let mut any = false;
    for seed in 0..10 {
        let (mut group, batches) = group(3, seed, 4, 30);
        group.net.delay_ms = 5;
        let target = certified(&group.stages[0]);
        group.fetch(3, &target, &[0, 1, 2]);
        group.settle(Span::millis(8 + seed));
        group.net.crashed.insert(1);
        group.send(2, ToStage::Unpin(SnapshotReader::Transfer));
        group.settle(Span::secs(10));
        check_fetched(&mut group, 3, &batches, 30);
        assert!(group.liars(3).is_empty());
        let lost = |source| FromStage::LostSource { seq: Seq(30), source: ReplicaId(source) };
        let told = |source| group.told[3].iter().filter(|told| **told == lost(source)).count();
        assert_eq!(told(0), 0, "it gave all that was left");
        // It may have been over before anybody noticed.
        assert!(told(1) <= 1 && told(2) <= 1);
        any |= told(1) == 1 || told(2) == 1;
    }
    assert!(any, "whoever is no source any more is named");
}

#[test]
fn without_sources_the_fetch_fails_and_says_so_once() {
    let (mut group, batches) = group(3, 1, 3, 30);
    let target = certified(&group.stages[0]);
    group.net.crashed.extend([0, 1]);
    group.send(2, ToStage::Unpin(SnapshotReader::Transfer));
    group.fetch(3, &target, &[0, 1, 2]);
    group.settle(Span::secs(60));
    // The one that let go says so; the others are given up together, by their numbers.
    let seq = Seq(30);
    let lost = |source| FromStage::LostSource { seq, source: ReplicaId(source) };
    assert_eq!(group.told[3], [lost(2), lost(0), lost(1), FromStage::FetchFailed { seq }]);
    assert_eq!(group.stages[3].deadline(), None);
    group.net.crashed.clear();
    group.fetch(3, &target, &[0]);
    group.settle(Span::secs(60));
    check_fetched(&mut group, 3, &batches, 30);
}

#[test]
fn a_newer_target_keeps_what_still_fits() {
    for seed in 0..10 {
        let (mut group, batches) = group(2, seed, 3, 40);
        group.net.delay_ms = 4;
        let target = certified(&group.stages[0]);
        group.fetch(2, &target, &[0, 1]);
        group.settle(Span::millis(30 + seed * 3));
        let before = group.stages[2].report().transfer.objects;
        // The sources go on and let the first target go.
        group.pin(&[0, 1], 60, SnapshotReader::Transfer);
        for (seq, batch) in (1..=60).zip(&batches).skip(55) {
            group.deliver(&[0, 1], seq, batch);
        }
        let newer = certified(&group.stages[0]);
        group.fetch(2, &newer, &[0, 1]);
        group.settle(Span::secs(60));
        assert_eq!(group.fetched(2), Some(Seq(60)));
        let [theirs, ours] = [0, 2].map(|at| digest(&mut group.stages[at]));
        assert_eq!(theirs, ours);
        let total = group.stages[2].report().transfer.objects;
        let (state, changed) = (group.asked.values().sum::<u64>(), 2 * 20 * 4 + 5);
        assert!(total - before < OBJECTS as u64 || before == 0, "{state} {changed}");
        assert!(group.liars(2).is_empty() && !group.failed(2));
    }
}

#[test]
fn trees_of_any_height_are_fetched() {
    for objects in [1, 2, 16, 17, 256, 257] {
        let mut group = Group::new(vec![blobs(objects), blobs(objects)], 1);
        group.pin(&[0], 10, SnapshotReader::Transfer);
        group.deliver(&[0], 1, &batch(1, &[open(1, 1)]));
        for seq in 2..=10 {
            let op = append(seq * 31, seq as u8, 1);
            let frame = request(id(1, 1, 0, seq - 1), 0, &[&op]);
            group.deliver(&[0], seq, &batch(seq, &[frame]));
        }
        let target = certified(&group.stages[0]);
        group.fetch(1, &target, &[0]);
        group.settle(Span::secs(10));
        assert_eq!(group.fetched(1), Some(Seq(10)));
        let [theirs, ours] = [0, 1].map(|at| digest(&mut group.stages[at]));
        assert_eq!(theirs, ours);
    }
}

/// A replica whose memory has changed by itself.
#[test]
fn a_diverged_stage_halts_and_fetches_only_what_differs() {
    let (mut group, batches) = group(3, 9, 3, 30);
    let mut service = Blobs::boxed(OBJECTS);
    service.0[3] = vec![1, 2, 3];
    service.0[200] = vec![9];
    group.stages[3] = Stage::new(config(), service);
    for (seq, batch) in (1..=30).zip(&batches) {
        group.deliver(&[3], seq, batch);
    }
    let target = certified(&group.stages[0]);
    group.pin(&[3], 40, SnapshotReader::Transfer);
    group.send(3, ToStage::Stable(target.clone()));
    let diverged = group.told[3].iter().any(|m| matches!(m, FromStage::Diverged { .. }));
    assert!(diverged && group.stages[3].report().halted);
    for (seq, batch) in (1..=35).zip(&batches).skip(30) {
        group.deliver(&[3], seq, batch);
    }
    assert_eq!(group.stages[3].report().executed, Seq(30), "it stands still");
    group.fetch(3, &target, &[0, 1, 2]);
    group.settle(Span::secs(60));
    assert_eq!(group.stages[3].report().transfer.objects, 2);
    // What was delivered meanwhile is executed now, and the replica is a good one again.
    assert_eq!(group.fetched(3), Some(Seq(30)));
    assert_eq!(group.stages[3].report().executed, Seq(35));
    for (seq, batch) in (1..=45).zip(&batches).skip(35) {
        group.deliver(&[3], seq, batch);
    }
    let [theirs, ours] = [0, 3].map(|at| digest(&mut group.stages[at]));
    assert_eq!(theirs, ours);
    assert_eq!(
        group.stages[3].pinned_manifest(SnapshotReader::Transfer).map(|m| m.seq),
        Some(Seq(40))
    );
}

#[test]
fn what_is_executed_already_need_not_be_fetched() {
    let (mut group, batches) = group(3, 2, 3, 30);
    let target = certified(&group.stages[0]);
    for (seq, batch) in (1..=33).zip(&batches) {
        group.deliver(&[3], seq, batch);
    }
    group.fetch(3, &target, &[0]);
    let progress = group.stages[3].progress();
    assert_eq!(progress.executed, Seq(33));
    let checkpoint = target.clone();
    assert_eq!(
        group.told[3].last(),
        Some(&FromStage::Fetched { checkpoint, progress, replaced: false })
    );
    assert_eq!(group.asked.len(), 0);
    // Unless the own digest of that checkpoint is known to be another.
    let wrong = StableCheckpoint { digest: Digest([7; 32]), ..target };
    group.fetch(3, &wrong, &[0]);
    assert!(group.stages[3].report().halted);
}

#[test]
fn what_was_executed_before_the_transfer_is_not_executed_after_it() {
    let (mut group, batches) = group(1, 4, 3, 30);
    let target = certified(&group.stages[0]);
    group.fetch(1, &target, &[0]);
    group.settle(Span::secs(60));
    assert_eq!(group.fetched(1), Some(Seq(30)));
    let ops = group.stages[1].report().ops;
    let again: Vec<_> = batches[..30]
        .iter()
        .filter_map(
            |batch| if let Batch::Frames { frames, .. } = &**batch { Some(frames) } else { None },
        )
        .flatten()
        .cloned()
        .collect();
    assert!(again.len() > 20);
    let replay = batch(1, &again);
    let mut answers = vec![];
    for at in [0, 1] {
        // Both answer the same, whether from the cache or by a refusal.
        let seq = if at == 0 { 46 } else { 31 };
        let mut out = StageOutbox::new();
        let deliver = ToStage::Deliver { seq: Seq(seq), batch: Arc::clone(&replay) };
        group.stages[at].on(deliver, &mut out).expect("is next");
        group.stages[at].run(usize::MAX, &mut out);
        answers.push(replies(&out.messages).len());
    }
    assert_eq!(answers[1], again.len());
    assert_eq!(group.stages[1].report().ops, ops, "nothing of it executes");
}

#[test]
fn deliveries_beyond_the_target_wait_for_it() {
    let (mut group, batches) = group(2, 6, 3, 30);
    let target = certified(&group.stages[0]);
    group.fetch(2, &target, &[0, 1]);
    for seq in [33, 31, 32, 45] {
        group.deliver(&[2], seq, &batches[seq as usize - 1]);
    }
    let old = ToStage::Deliver { seq: Seq(30), batch: Arc::clone(&batches[29]) };
    let refused = group.stages[2].on(old, &mut StageOutbox::new());
    assert!(refused.is_err(), "the target covers it");
    assert_eq!(group.stages[2].report().executed, Seq(0));
    group.settle(Span::secs(60));
    assert_eq!(group.fetched(2), Some(Seq(30)));
    assert_eq!(group.stages[2].report().executed, Seq(33));
    let blocked = FromStage::Blocked { missing: Seq(34), highest: Seq(45) };
    assert_eq!(group.told[2].last(), Some(&blocked));
}

#[test]
fn an_asker_gets_its_share_and_no_more() {
    let mut group = large(1, 1000);
    let stage = &mut group.stages[0];
    let ask = |request| ToStage::State {
        from: ReplicaId(1),
        message: StateMessage::Ask { checkpoint: Seq(10), request },
    };
    let mut out = StageOutbox::new();
    // Far more than is allowed to wait.
    for _ in 0..1000 {
        let objects = (0..20).collect();
        let request = StateRequest::Objects { part: Part::Service, objects };
        stage.on(ask(request), &mut out).expect("is never refused");
    }
    assert!(stage.report().transfer.dropped > 900);
    let size = |out: &StageOutbox| -> u64 {
        let bytes = |(target, told): &(Target, FromStage)| match told {
            FromStage::State { to, message } => {
                assert_eq!((*target, *to), (Target::Coordinator, ReplicaId(1)));
                message.encoded_len_max() as u64
            }
            _ => 0,
        };
        out.messages.iter().map(bytes).sum()
    };
    let (mut total, mut now) = (0, Time::ZERO);
    for _ in 0..300 {
        loop {
            let turn = stage.run(10, &mut out);
            let bytes = size(&out);
            assert!(bytes <= (IDLE.bytes_per_turn + PIECE_BYTES_MAX + 1024) as u64);
            total += bytes;
            out.messages.clear();
            if turn == Turn::Idle {
                break;
            }
        }
        now = now.after(Span::millis(5));
        stage.on(ToStage::Tick(now), &mut out).expect("is never refused");
    }
    // A second's worth, after the half second that it takes to see that nothing else is to be
    // done, and what was saved up.
    assert!(total <= IDLE.bytes_per_s * 12 / 10 + PIECE_BYTES_MAX as u64);
    assert!(total >= IDLE.bytes_per_s * 8 / 10, "{total}");
}

#[test]
fn senseless_requests_get_no_answer_and_what_is_not_pinned_is_gone() {
    let (mut group, _) = group(1, 1, 3, 30);
    let stage = &mut group.stages[0];
    let mut answer = |checkpoint: u64, request| {
        let message = StateMessage::Ask { checkpoint: Seq(checkpoint), request };
        let mut out = StageOutbox::new();
        stage.on(ToStage::State { from: ReplicaId(1), message }, &mut out).expect("never refused");
        stage.run(1, &mut out);
        let answers: Vec<StateAnswer> = out
            .messages
            .into_iter()
            .filter_map(|(_, told)| match told {
                FromStage::State { message: StateMessage::Tell { answer, .. }, .. } => Some(answer),
                _ => None,
            })
            .collect();
        answers
    };
    let part = Part::Service;
    assert_eq!(answer(20, StateRequest::Manifest), [StateAnswer::Gone]);
    assert_eq!(answer(10, StateRequest::Manifest), [StateAnswer::Gone], "it is for the disk");
    assert!(matches!(answer(30, StateRequest::Manifest)[..], [StateAnswer::Manifest(_)]));
    for (level, first, count) in [(0, 0, 1), (1, 0, 1000), (3, 1, 1), (4, 0, 1), (1, 18, 3)] {
        let request = StateRequest::Nodes { part, level, first, count };
        assert_eq!(answer(30, request), []);
    }
    let objects = vec![OBJECTS as u32, 7];
    assert_eq!(answer(30, StateRequest::Objects { part, objects }).len(), 1);
    let offset = 1 << 40;
    assert_eq!(answer(30, StateRequest::Piece { part, object: 0, offset }), []);
    assert_eq!(INTERVAL, 10);
}
