//! Rollover, trimming, large commits, and how much disk it takes.

mod common;

use std::sync::Arc;

use base::{Incarnation, Seq};
use common::{IDENTITY, SMALL, record, segments};
use store::{
    Beginning, Dir, Durability, FoundLog, Log, LogOptions, Memory, Opened, RECORD_BYTES_MAX, Real,
    Storage, StoreError, Verdict, Voice,
};

fn begin(storage: &Arc<dyn Storage>, options: LogOptions) -> (Dir, Log, FoundLog) {
    let Opened { mut dir, found } = common::open(storage).expect("opens");
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    let incarnation = found.incarnation(Incarnation(1));
    let log = dir.begin(&whole, incarnation, Durability::Sync, options).expect("nothing fails");
    (dir, log.expect("sync has a log"), found.log)
}

fn memory() -> Arc<dyn Storage> {
    Arc::new(Memory::new())
}

fn put(log: &mut Log, number: u64) {
    log.append(&record(number), Seq(number)).expect("is small");
    log.commit(number.is_multiple_of(2)).expect("nothing fails");
}

#[test]
fn disk_stays_bounded_while_checkpoints_follow() {
    let storage = memory();
    let (_dir, mut log, _) = begin(&storage, SMALL);
    let mut most = 0;
    for number in 1..3000u64 {
        put(&mut log, number);
        log.trim(Seq(number.saturating_sub(20))).expect("nothing fails");
        most = most.max(log.bytes());
    }
    let on_disk = |storage: &dyn Storage| {
        let len = |path| storage.open(path).and_then(|file| file.len()).expect("is there");
        segments(storage).iter().map(|path| len(path)).sum::<u64>()
    };
    // Twenty records of at most 3 KB, their blocks, the segments cut by them, and a spare one.
    assert!(most < 80 << 10, "{most}");
    assert!(on_disk(&*storage) <= log.bytes() && log.bytes() <= on_disk(&*storage) + (4 << 10));
    assert!(log.appended() > 1 << 20, "{}", log.appended());
}

#[test]
fn only_whole_segments_below_the_mark_go_and_the_last_one_stays() {
    let storage = memory();
    let (dir, mut log, _) = begin(&storage, SMALL);
    log.append(&record(500), Seq(500)).expect("is small");
    (1..=60).for_each(|number| put(&mut log, number));
    let before = segments(&*storage).len();
    log.trim(Seq(60)).expect("nothing fails");
    assert_eq!(segments(&*storage).len(), before, "record 500 is in the oldest segment");
    log.trim(Seq(499)).expect("nothing fails");
    assert_eq!(segments(&*storage).len(), before);
    log.trim(Seq(500)).expect("nothing fails");
    assert_eq!(segments(&*storage).len(), 1);
    log.commit(true).expect("nothing fails");
    drop((dir, log));
    // What the records speak of is known again after a start.
    let (_dir, mut log, found) = begin(&storage, SMALL);
    let last = found.records.last().expect("the last segment stays").highest;
    assert_eq!(last, Seq(60));
    (61..=90).for_each(|number| put(&mut log, number));
    let before = segments(&*storage).len();
    log.trim(Seq(59)).expect("nothing fails");
    assert_eq!(segments(&*storage).len(), before);
    log.trim(Seq(90)).expect("nothing fails");
    assert_eq!(segments(&*storage).len(), 1);
}

/// What is left of earlier lives beyond a checkpoint is what a cut to there would leave.
#[test]
fn a_log_that_is_opened_again_knows_how_much_it_has_beyond_a_checkpoint() {
    let storage = memory();
    let (dir, mut log, _) = begin(&storage, SMALL);
    (1..=60).for_each(|number| put(&mut log, number));
    log.commit(true).expect("nothing fails");
    log.begins_with(Seq(0));
    assert_eq!(log.found(), 0, "it was empty when it was opened");
    let written = log.appended() + 512 * segments(&*storage).len() as u64;
    drop((dir, log));
    let (_dir, mut log, _) = begin(&storage, SMALL);
    (61..=70).for_each(|number| put(&mut log, number));
    let mut beyond = |seq| {
        log.begins_with(Seq(seq));
        log.found()
    };
    assert_eq!(beyond(0), written, "neither what is blank nor what this life has written");
    let counts: Vec<u64> = (0..=60).map(&mut beyond).collect();
    assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
    assert!(counts[30] < counts[0] && counts[59] > 0, "{counts:?}");
    assert_eq!(counts[60], 0, "the checkpoint stands for all that was found");
    log.begins_with(Seq(30));
    let left = log.found();
    log.trim(Seq(30)).expect("nothing fails");
    log.begins_with(Seq(0));
    assert_eq!(log.found(), left);
}

#[test]
fn what_is_carried_outlives_the_segment_it_was_written_to() {
    let storage = memory();
    let (dir, mut log, _) = begin(&storage, SMALL);
    log.append(b"view 1", Seq(0)).expect("is small");
    log.carry([&b"view 1"[..], &b"recover 3"[..]]).expect("is small");
    (1..=40).for_each(|number| put(&mut log, number));
    log.trim(Seq(40)).expect("nothing fails");
    log.commit(true).expect("nothing fails");
    drop((dir, log));
    let found = common::open(&storage).expect("opens").found.log;
    assert_eq!(found.verdict, Verdict::Clean);
    let first: Vec<&[u8]> = found.records.iter().take(2).map(|r| &r.bytes[..]).collect();
    assert_eq!(first, [&b"view 1"[..], &b"recover 3"[..]]);
    assert!(found.records.iter().skip(2).all(|r| r.bytes == record(r.highest.0)));
}

#[test]
fn what_is_carried_is_not_written_again_for_every_commit_however_long() {
    let storage = memory();
    let (_dir, mut log, _) = begin(&storage, SMALL);
    let carried = vec![7; 100 * SMALL.segment_bytes as usize];
    log.carry([&carried[..]]).expect("is small");
    let small = 50;
    (1..=small).for_each(|number| put(&mut log, number));
    // Each begins with the same: as many as the commits fill.
    let begun = segments(&*storage).len();
    assert!((2..=4).contains(&begun), "{begun} segments for {small} small commits");
}

#[test]
fn a_commit_larger_than_a_segment_and_an_empty_record_come_back() {
    let storage = memory();
    let (dir, mut log, _) = begin(&storage, SMALL);
    let large: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    for (number, bytes) in [(1, &b""[..]), (2, &large[..]), (3, &b"x"[..]), (4, &large[..])] {
        log.append(bytes, Seq(number)).expect("is below the limit");
        log.commit(true).expect("nothing fails");
    }
    log.commit(true).expect("nothing to commit is fine");
    drop((dir, log));
    let found = common::open(&storage).expect("opens").found.log;
    let lens: Vec<usize> = found.records.iter().map(|r| r.bytes.len()).collect();
    assert_eq!((found.verdict, lens), (Verdict::Clean, vec![0, 200_000, 1, 200_000]));
    assert_eq!(found.records[3].bytes, large);
}

#[test]
fn a_record_above_the_limit_is_refused_and_harms_nothing() {
    let storage = memory();
    let (_dir, mut log, _) = begin(&storage, SMALL);
    let huge = vec![0; RECORD_BYTES_MAX + 1];
    let refused = log.append(&huge, Seq(1));
    assert!(matches!(refused, Err(StoreError::RecordTooLarge { .. })));
    assert!(matches!(log.carry([&huge[..]]), Err(StoreError::RecordTooLarge { .. })));
    put(&mut log, 1);
}

#[test]
fn options_out_of_range_are_brought_into_it() {
    for segment_bytes in [0, 5000] {
        let storage = memory();
        let (dir, mut log, _) = begin(&storage, LogOptions { segment_bytes });
        (1..=30).for_each(|number| put(&mut log, number));
        log.commit(true).expect("nothing fails");
        drop((dir, log));
        let found = common::open(&storage).expect("opens").found.log;
        assert_eq!((found.verdict, found.records.len()), (Verdict::Clean, 30));
    }
}

#[test]
fn the_real_disk_does_the_same() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("a/b");
    for life in 1..4u64 {
        let opened = Dir::open(&path, IDENTITY, Arc::new(Real)).expect("opens");
        let Opened { mut dir, found } = opened;
        assert_eq!(found.log.records.len() as u64, 30 * (life - 1));
        let whole = Beginning { voice: Voice::Whole, why: String::new() };
        let log = dir.begin(&whole, Incarnation(life), Durability::Sync, SMALL);
        let mut log = log.expect("nothing fails").expect("sync has a log");
        (1..=30).for_each(|number| put(&mut log, 30 * (life - 1) + number));
        log.commit(true).expect("nothing fails");
        dir.end().expect("nothing fails");
    }
}
