//! Checkpoints whose digests are made while execution goes on: whatever the pace, they are those
//! of a group that stood still.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::digest::Domain;
use base::transfer::{Part, SnapshotReader};
use base::{
    Batch, Digest, FromStage, Malformed, ReplicaId, Seq, StableCheckpoint, Stripe, ToStage, View,
};
use common::{GROUP, Random, batch, close, id, open, request};
use exec::{
    Completion, Context, Service, Stage, StageConfig, StageOutbox, StageReport, Target, Tentative,
    Turn, Undo,
};

const OBJECTS: u32 = 600;
const INTERVAL: u64 = 8;

/// Objects of a few numbers. Their digests are not those of their bytes, and are counted.
#[derive(Clone)]
struct Table {
    objects: Vec<Vec<u64>>,
    /// Digests that were made of objects as they were; of these, before a write; of bytes.
    made: Arc<[AtomicU64; 3]>,
    undo: Undo,
    before: Option<Box<Table>>,
}

impl Table {
    fn new(undo: Undo) -> Table {
        let objects = vec![vec![]; OBJECTS as usize];
        Table { objects, made: Arc::default(), undo, before: None }
    }

    fn made(&self) -> [u64; 3] {
        std::array::from_fn(|kind| self.made[kind].load(Ordering::Relaxed))
    }

    fn count(&self, kind: usize) {
        self.made[kind].fetch_add(1, Ordering::Relaxed);
    }
}

fn digest_of_numbers(numbers: &[u64]) -> Digest {
    let sum: u64 = numbers.iter().fold(7, |sum, number| sum.wrapping_mul(31) ^ number);
    Digest::of(Domain::Service, &[sum.to_le_bytes(), (numbers.len() as u64).to_le_bytes()].concat())
}

impl Service for Table {
    /// Two bytes name the object. Every third one's digest is given before it is written.
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        let object = (u32::from(op[0]) | u32::from(op[1]) << 8) % OBJECTS;
        if !object.is_multiple_of(3) && ctx.wants_digest(object) {
            self.count(1);
            ctx.digest(object, self.digest(object));
            assert!(!ctx.wants_digest(object), "it has been given");
        }
        ctx.modify(object, |out| self.get(object, out));
        let numbers = &mut self.objects[object as usize];
        if numbers.len() > 4 {
            numbers.clear();
        }
        numbers.push(ctx.time.0 ^ u64::from(ctx.index));
        reply.push(numbers.len() as u8);
        Completion::Done
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        let numbers = &self.objects[object as usize];
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let numbers = bytes.chunks(8).map(|b| b.try_into().map(u64::from_le_bytes));
        let numbers: Result<Vec<u64>, _> = numbers.collect();
        self.objects[object as usize] = numbers.map_err(|_| Malformed("number"))?;
        Ok(())
    }

    fn objects(&self) -> u32 {
        OBJECTS
    }

    fn digest(&mut self, object: u32) -> Digest {
        self.count(0);
        digest_of_numbers(&self.objects[object as usize])
    }

    fn digest_of(&self, object: u32, bytes: &[u8]) -> Result<Digest, Malformed> {
        self.count(2);
        let mut other = Table::new(self.undo);
        other.put(object, bytes)?;
        Ok(digest_of_numbers(&other.objects[object as usize]))
    }

    fn undo(&self) -> Undo {
        self.undo
    }

    fn tentative(&mut self, step: Tentative) {
        match step {
            _ if self.undo != Undo::Itself => {}
            Tentative::Begin => self.before = Some(Box::new(self.clone())),
            Tentative::Commit => self.before = None,
            Tentative::RollBack => *self = *self.before.take().expect("it has begun"),
        }
    }
}

fn config() -> StageConfig {
    StageConfig {
        group: GROUP,
        stripe: Stripe::new(2).expect("in range"),
        checkpoint_interval: INTERVAL,
        window: 64,
        nulls_ahead: false,
        replicas: 4,
    }
}

fn stage_of(table: Table, piece: usize) -> Stage {
    let mut stage = Stage::new(config(), Box::new(table));
    stage.pace_digests(piece);
    stage
}

/// Sessions that open, close and ask for writes here and there, some objects again and again.
fn history(seed: u64, batches: u64) -> Vec<Arc<Batch>> {
    let mut random = Random(seed);
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    (1..=batches)
        .map(|seq| {
            let frames = (0..random.below(5)).map(|_| {
                let client = random.below(30) as u32;
                match random.below(12) {
                    0..3 => open(client, 1 + seq / 40),
                    3 => close(client, 1),
                    _ => {
                        let number = next.entry(client).or_default();
                        *number += 1;
                        let object = |random: &mut Random| match random.below(3) {
                            0 => random.below(6) as u16,
                            _ => random.below(u64::from(OBJECTS)) as u16,
                        };
                        let ops: Vec<_> =
                            (0..9).map(|_| object(&mut random).to_le_bytes()).collect();
                        let ops: Vec<&[u8]> = ops.iter().map(|op| &op[..]).collect();
                        request(id(client, 1, 1 << 31, *number), number.saturating_sub(3), &ops)
                    }
                }
            });
            let frames: Vec<_> = frames.collect();
            batch(seq * 10, &frames)
        })
        .collect()
}

fn deliver(stage: &mut Stage, seq: u64, batch: &Arc<Batch>, out: &mut StageOutbox) {
    let deliver = ToStage::Deliver { seq: Seq(seq), batch: Arc::clone(batch) };
    stage.on(deliver, out).expect("in the window");
}

fn checkpoints(messages: &[(Target, FromStage)]) -> Vec<(Seq, Digest)> {
    let told = messages.iter().filter_map(|(_, message)| match message {
        FromStage::Checkpoint { seq, digest } => Some((*seq, *digest)),
        _ => None,
    });
    told.collect()
}

/// The digests of a stage that stands still at each checkpoint.
fn standing_still(batches: &[Arc<Batch>]) -> Vec<(Seq, Digest)> {
    let mut stage = stage_of(Table::new(Undo::Objects), usize::MAX);
    let mut digests = vec![];
    for (seq, batch) in (1..).zip(batches) {
        deliver(&mut stage, seq, batch, &mut StageOutbox::new());
        while stage.run(usize::MAX, &mut StageOutbox::new()).more() {}
        if seq % INTERVAL == 0 {
            stage.check_state();
            digests.push((Seq(seq), stage.state_digest()));
        }
    }
    digests
}

#[test]
fn any_pace_gives_the_digests_of_a_stage_that_stands_still() {
    for seed in 0..40 {
        let batches = history(seed, 80);
        let expected = standing_still(&batches);
        let piece = [1, 5, 40, 900][seed as usize % 4];
        let mut stage = stage_of(Table::new(Undo::Objects), piece);
        let (mut random, mut seq, mut told, mut late) = (Random(!seed), 0, vec![], 0);
        while stage.report().executed.0 < 80 || stage.is_digesting() {
            let mut out = StageOutbox::new();
            if seq < 80 && random.below(3) == 0 {
                seq += 1;
                deliver(&mut stage, seq, &batches[seq as usize - 1], &mut out);
            }
            stage.run(random.below(12) as usize, &mut out);
            stage.check();
            let executed = stage.report().executed;
            for (at, digest) in checkpoints(&out.messages) {
                assert!(executed.0 < at.0 + 2 * INTERVAL, "{at} comes after {executed}");
                late += u64::from(executed > at);
                told.push((at, digest));
            }
        }
        assert_eq!(told, expected, "seed {seed}");
        assert!(late > 0 || piece == 900, "nothing was executed meanwhile");
        stage.check_state();
    }
}

#[test]
fn each_digest_is_made_once_before_the_object_is_written_or_in_a_piece() {
    let table = Table::new(Undo::Objects);
    let made = table.clone();
    let mut stage = stage_of(table, 10);
    let mut out = StageOutbox::new();
    (1..=INTERVAL).for_each(|seq| deliver(&mut stage, seq, &batch(seq, &[open(1, 1)]), &mut out));
    assert_eq!(stage.run(usize::MAX, &mut out), Turn::More);
    assert_eq!(made.made()[1..], [0, 0], "nothing is written yet");
    // The lowest are done by now; of the highest, each third gives no digest.
    let ops: Vec<[u8; 2]> = (500..600u16).chain(0..5).map(u16::to_le_bytes).collect();
    let ops: Vec<&[u8]> = ops.iter().chain(&ops).map(|op| &op[..]).collect();
    let frame = request(id(1, 1, 0, 1), 0, &ops);
    deliver(&mut stage, INTERVAL + 1, &batch(INTERVAL + 1, &[frame]), &mut out);
    assert_eq!(stage.run(usize::MAX, &mut out), Turn::More);
    assert!(stage.report().transfer.saved_bytes == 0, "their digests are made in the turn");
    while stage.run(1, &mut out).more() {}
    assert_eq!(made.made(), [u64::from(OBJECTS) - 33, 67, 33]);
    assert_eq!(stage.report().objects_rehashed, u64::from(OBJECTS));
    assert_eq!(checkpoints(&out.messages).len(), 1);
}

#[test]
fn an_idle_stage_asks_to_be_run_until_the_checkpoint_is_told_and_then_no_more() {
    let mut stage = stage_of(Table::new(Undo::Objects), 100);
    let mut out = StageOutbox::new();
    (1..=INTERVAL).for_each(|seq| deliver(&mut stage, seq, &Arc::new(Batch::Null), &mut out));
    let mut turns = 0;
    while stage.run(1000, &mut out) == Turn::More {
        assert!(stage.is_digesting() && checkpoints(&out.messages).is_empty());
        assert_eq!(stage.report().checkpoint, Seq(0));
        turns += 1;
    }
    // 600 objects and 1024 buckets of sessions, and the nodes above them.
    assert!((16..=19).contains(&turns), "{turns} turns of 100 digests each");
    let StageReport { checkpoint, checkpoints: taken, .. } = stage.report();
    assert_eq!((checkpoint, taken), (Seq(INTERVAL), 1));
    assert_eq!(stage.digest_pieces(), turns + 2, "the first at the batch");
    assert_eq!(checkpoints(&out.messages), [(Seq(INTERVAL), stage.state_digest())]);
    out.messages.clear();
    assert_eq!((stage.run(1000, &mut out), out.messages.len()), (Turn::Idle, 0));
}

#[test]
fn a_second_checkpoint_finishes_the_first_at_once() {
    let batches = history(3, 4 * INTERVAL);
    let expected = standing_still(&batches);
    let mut stage = stage_of(Table::new(Undo::Objects), 1);
    let mut out = StageOutbox::new();
    for (seq, batch) in (1..).zip(&batches) {
        deliver(&mut stage, seq, batch, &mut out);
    }
    // One turn that executes everything.
    assert_eq!(stage.run(usize::MAX, &mut out), Turn::More);
    assert_eq!(stage.report().executed, Seq(4 * INTERVAL));
    assert_eq!(checkpoints(&out.messages), expected[..3]);
    stage.check();
    while stage.run(1, &mut out).more() {}
    assert_eq!(checkpoints(&out.messages), expected);
}

#[test]
fn the_digests_are_made_by_half_the_interval() {
    let mut stage = stage_of(Table::new(Undo::Objects), 1);
    let mut out = StageOutbox::new();
    for seq in 1..=INTERVAL + INTERVAL / 2 {
        assert_eq!(checkpoints(&out.messages), [], "before {seq}");
        deliver(&mut stage, seq, &Arc::new(Batch::Null), &mut out);
        stage.run(usize::MAX, &mut out);
    }
    assert_eq!(checkpoints(&out.messages).len(), 1);
}

/// What is executed tentatively while digests are made, and taken back or not, leaves no trace.
#[test]
fn tentative_batches_change_no_digest_that_is_being_made() {
    for seed in 0..30 {
        let undo = [Undo::Objects, Undo::Itself][seed as usize % 2];
        let (batches, others) = (history(seed, 60), history(seed ^ 0x55, 60));
        let expected = standing_still(&batches);
        let mut stage = stage_of(Table::new(undo), [1, 30][seed as usize / 2 % 2]);
        let (mut random, mut out) = (Random(seed), StageOutbox::new());
        for ((seq, batch), other) in (1..).map(Seq).zip(&batches).zip(&others) {
            for (view, batch) in (0..).map(View).zip([other, batch]) {
                if random.below(3) > 0 {
                    let batch = Arc::clone(batch);
                    stage.on(ToStage::Tentative { seq, view, batch }, &mut out).expect("taken");
                    stage.run(1 + random.below(60) as usize, &mut out);
                }
            }
            deliver(&mut stage, seq.0, batch, &mut out);
            for _ in 0..random.below(4) {
                stage.run(40, &mut out);
            }
            stage.check();
        }
        while stage.run(100, &mut out).more() {}
        assert_eq!(checkpoints(&out.messages), expected, "seed {seed}");
        assert!(stage.tentative_report().rolled_back > 5);
        stage.check_state();
    }
}

/// What a reader sees of a checkpoint that was pinned before its digests were made.
#[test]
fn what_is_pinned_is_the_state_at_the_checkpoint_though_it_is_told_later() {
    let (transfer, disk) = (SnapshotReader::Transfer, SnapshotReader::Disk);
    let mut told = 0;
    for seed in 0..20 {
        let batches = history(seed, 48);
        let mut still = stage_of(Table::new(Undo::Objects), usize::MAX);
        let mut stage = stage_of(Table::new(Undo::Objects), 1 + seed as usize % 30);
        let (mut random, mut out) = (Random(seed), StageOutbox::new());
        let mut copies: BTreeMap<Seq, Vec<Vec<u8>>> = BTreeMap::new();
        for (seq, batch) in (1..).zip(&batches) {
            // Not before the one before is told: a reader has one at a time.
            if seq % INTERVAL == 5 + seed % 3 {
                let at = Seq((seq / INTERVAL + 1) * INTERVAL);
                for reader in [transfer, disk] {
                    stage.on(ToStage::Pin { seq: at, reader }, &mut out).expect("taken");
                }
            }
            deliver(&mut still, seq, batch, &mut StageOutbox::new());
            while still.run(1000, &mut StageOutbox::new()).more() {}
            let bytes = |object| {
                let mut bytes = vec![];
                still.service().get(object, &mut bytes);
                bytes
            };
            copies.insert(Seq(seq), (0..OBJECTS).map(bytes).collect());
            deliver(&mut stage, seq, batch, &mut out);
            stage.run(1 + random.below(200) as usize, &mut out);
            if let Some(held) = stage.pinned_manifest(disk).copied() {
                let object = |object| stage.read_pinned(transfer, Part::Service, object);
                let now: Option<Vec<Vec<u8>>> = (0..OBJECTS).map(object).collect();
                assert_eq!(now.as_ref(), copies.get(&held.seq), "seed {seed}, {:?}", held.seq);
            }
            if random.below(20) == 0 {
                stage.on(ToStage::Unpin(transfer), &mut out).expect("taken");
                stage.on(ToStage::Unpin(disk), &mut out).expect("taken");
            }
        }
        let pinned = |(_, m): &&(Target, FromStage)| matches!(m, FromStage::Pinned { .. });
        told += out.messages.iter().filter(pinned).count();
        stage.check_state();
    }
    assert!(told > 100, "{told} pins");
}

/// Another state takes the place of one whose digests are being made: that checkpoint is given
/// up, with what was pinned for it, and the fetch finds out what differs as ever.
#[test]
fn a_fetch_in_the_middle_gives_the_checkpoint_up() {
    for (turns, told) in [(1, false), (4, false), (400, true)] {
        let mut stage = stage_of(Table::new(Undo::Objects), 20);
        let mut out = StageOutbox::new();
        let pin = ToStage::Pin { seq: Seq(INTERVAL), reader: SnapshotReader::Disk };
        stage.on(pin, &mut out).expect("taken");
        let batches = history(9, INTERVAL + 1);
        for (seq, batch) in (1..).zip(&batches) {
            deliver(&mut stage, seq, batch, &mut out);
        }
        for _ in 0..turns {
            stage.run(1000, &mut out);
        }
        assert_eq!(stage.is_digesting(), !told);
        let checkpoint =
            StableCheckpoint { seq: Seq(40), digest: Digest([9; 32]), ..Default::default() };
        let fetch = ToStage::Fetch { checkpoint, sources: vec![ReplicaId(1)] };
        stage.on(fetch, &mut out).expect("taken");
        assert!(!stage.is_digesting());
        while stage.run(1000, &mut out).more() {}
        assert_eq!(checkpoints(&out.messages).len(), usize::from(told));
        let missed = |(_, m): &(Target, FromStage)| matches!(m, FromStage::PinMissed { .. });
        assert_eq!(out.messages.iter().filter(|m| missed(m)).count(), 1);
        stage.check();
        // The tree is as good as ever: what is marked is what was not made.
        stage.check_state();
    }
}

/// A certificate for the very checkpoint whose digests are being made is held against it.
#[test]
fn a_fetch_of_the_checkpoint_itself_finishes_it_first() {
    for right in [true, false] {
        let mut stage = stage_of(Table::new(Undo::Objects), 20);
        let mut out = StageOutbox::new();
        let batches = history(4, INTERVAL);
        let (seq, digest) = standing_still(&batches)[0];
        for (seq, batch) in (1..).zip(&batches) {
            deliver(&mut stage, seq, batch, &mut out);
        }
        stage.run(1000, &mut out);
        assert!(stage.is_digesting());
        let digest = if right { digest } else { Digest([9; 32]) };
        let checkpoint = StableCheckpoint { seq, digest, ..Default::default() };
        let fetch = ToStage::Fetch { checkpoint, sources: vec![ReplicaId(1)] };
        stage.on(fetch, &mut out).expect("taken");
        assert_eq!(checkpoints(&out.messages).len(), usize::from(right), "a wrong one is not told");
        let fetched = |(_, m): &(Target, FromStage)| matches!(m, FromStage::Fetched { .. });
        assert_eq!(out.messages.iter().any(fetched), right);
        assert_eq!(stage.report().diverged, u64::from(!right));
    }
}
