//! The machine stops after every single operation, and again during the start that follows; the
//! disk lies; syncs fail; the disk is full. What was acknowledged is there, and nothing else.

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;

use base::transfer::Manifest;
use base::{Incarnation, StableCheckpoint};
use common::{Failure, IDENTITY, Oracle, Random, SMALL, dir, open, record};
use store::storage::Lock;
use store::{
    Beginning, BootId, Dir, Durability, Faults, File, LogOptions, Memory, Opened, Real, Storage,
    StoreError, Verdict, Voice, Volatile, beginning,
};

const TURNS: usize = 24;

/// What of the unsynced sectors reached the disk when the machine stopped.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Nothing,
    Everything,
    /// Some sectors.
    Some(u64),
    /// Some sectors and some changes of names.
    Names(u64),
}

fn crash(disk: &Volatile, kept: Kept) {
    let (seed, names) = match kept {
        Kept::Nothing => (0, false),
        Kept::Everything => (0, true),
        Kept::Some(seed) => (seed, false),
        Kept::Names(seed) => (seed, true),
    };
    let mut random = Random(seed);
    let names = if names { random.below(8) as usize } else { 0 };
    let done = disk.crash_but(names, &mut |_, _| match kept {
        Kept::Nothing => false,
        Kept::Everything => true,
        Kept::Some(_) | Kept::Names(_) => random.below(2) == 0,
    });
    done.expect("the storage below does not fail");
}

/// Starts and lets the script run, until it ends or fails.
fn run(oracle: &mut Oracle, disk: &Volatile, turns: usize, seed: u64) -> Result<(), Failure> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (mut dir, mut log) = oracle.start(&storage)?;
    let mut random = Random(seed);
    for _ in 0..turns {
        oracle.turn(&mut log, &mut random)?;
    }
    log.commit(true)?;
    (oracle.acked, oracle.version_acked) = (oracle.appended, oracle.version);
    dir.end()?;
    Ok(())
}

fn stop_after(disk: &Volatile, operations: u64) {
    disk.set_faults(Faults { stop_after: Some(operations), ..Faults::default() });
}

fn expect_stopped(result: Result<(), Failure>, when: &str) -> bool {
    match result {
        Ok(()) => false,
        Err(Failure::Storage(StoreError::Io { .. })) => true,
        Err(other) => panic!("{when}: {other:?}"),
    }
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_machine_stops() {
    for seed in 0..3 {
        let some = [Kept::Some(seed), Kept::Some(seed + 100), Kept::Names(seed)];
        for kept in [Kept::Nothing, Kept::Everything].into_iter().chain(some) {
            let mut operations = 0;
            loop {
                let disk = Volatile::over(Arc::new(Memory::new()));
                let mut oracle = Oracle::default();
                let kept = match kept {
                    Kept::Names(seed) => Kept::Names(seed + operations * 1000),
                    other => other,
                };
                stop_after(&disk, operations);
                let when = format!("seed {seed}, {kept:?}, stopped after {operations}");
                let stopped = expect_stopped(run(&mut oracle, &disk, TURNS, seed), &when);
                crash(&disk, kept);
                let more = run(&mut oracle, &disk, 3, seed + 1);
                assert!(!expect_stopped(more, &when), "{when}: failed without a fault");
                crash(&disk, Kept::Nothing);
                let end = run(&mut oracle, &disk, 0, seed);
                assert!(!expect_stopped(end, &when), "{when}: failed without a fault");
                if !stopped {
                    break;
                }
                operations += 1;
            }
            assert!(operations > 100, "the script is too short to prove anything: {operations}");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_machine_stops_again_during_the_start() {
    for (first, kept) in (0..).step_by(3).zip([Kept::Some(1), Kept::Nothing].into_iter().cycle()) {
        let mut second = 0;
        let mut first_stopped;
        loop {
            let disk = Volatile::over(Arc::new(Memory::new()));
            let mut oracle = Oracle::default();
            let when = format!("{kept:?}, stopped after {first} and {second}");
            stop_after(&disk, first);
            first_stopped = expect_stopped(run(&mut oracle, &disk, TURNS, 5), &when);
            crash(&disk, kept);
            stop_after(&disk, second);
            let stopped = expect_stopped(run(&mut oracle, &disk, 0, 6), &when);
            crash(&disk, kept);
            let more = run(&mut oracle, &disk, 2, 7);
            assert!(!expect_stopped(more, &when), "{when}: failed without a fault");
            crash(&disk, Kept::Nothing);
            assert!(!expect_stopped(run(&mut oracle, &disk, 0, 8), &when), "{when}");
            if !stopped {
                break;
            }
            second += 1;
        }
        if !first_stopped {
            assert!(first > 100, "the script is too short to prove anything: {first}");
            return;
        }
    }
}

/// Runs the script, crashes, and looks at what is left: whether the oracle objects.
fn loses(disk: &Volatile) -> bool {
    let mut oracle = Oracle::default();
    run(&mut oracle, disk, TURNS, 1).expect("nothing fails");
    assert!(oracle.acked > 20, "the script acknowledges something");
    crash(disk, Kept::Nothing);
    matches!(run(&mut oracle, disk, 0, 1), Err(Failure::Wrong(_)))
}

#[test]
fn the_check_sees_what_a_lying_disk_loses() {
    assert!(!loses(&Volatile::over(Arc::new(Memory::new()))));
    assert!(loses(&Volatile::lying(Arc::new(Memory::new()))), "a loss went unnoticed");
}

/// Forgets to sync directories.
#[derive(Debug)]
struct NoDirSync(Volatile);

impl Storage for NoDirSync {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.0.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.0.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, path: &Path, note: &str) -> io::Result<Lock> {
        self.0.lock(path, note)
    }
}

#[test]
fn the_check_sees_a_missing_sync_of_the_directory() {
    let disk = Volatile::over(Arc::new(Memory::new()));
    let storage: Arc<dyn Storage> = Arc::new(NoDirSync(disk.clone()));
    let mut oracle = Oracle::default();
    let (dir, mut log) = oracle.start(&storage).expect("nothing fails");
    oracle.turn(&mut log, &mut Random(1)).expect("nothing fails");
    log.commit(true).expect("nothing fails");
    oracle.acked = oracle.appended;
    drop((dir, log));
    crash(&disk, Kept::Nothing);
    let found = open(&storage).expect("opens").found;
    assert_eq!(found.log.verdict, Verdict::Missing);
    assert!(matches!(oracle.check(&found), Err(Failure::Wrong(_))));
}

#[test]
fn a_failed_sync_is_final() {
    let mut sync = 1;
    loop {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let mut oracle = Oracle::default();
        let (_dir, mut log) = oracle.start(&storage).expect("nothing fails");
        let before = disk.syncs();
        disk.set_faults(Faults { fail_sync: Some(before + sync), ..Faults::default() });
        let mut random = Random(3);
        let result = (0..TURNS).try_for_each(|_| oracle.turn(&mut log, &mut random));
        let Err(error) = result else {
            assert!(sync > 20, "the script is too short to prove anything: {sync}");
            return;
        };
        let operations = disk.operations();
        let text = error.to_string();
        assert!(text.contains("durable") || text.contains("prepare"), "{text}");
        for _ in 0..3 {
            let again = [
                log.append(b"more", base::Seq(1)),
                log.commit(true),
                log.commit(false),
                log.carry([]),
                log.trim(base::Seq(u64::MAX)),
            ];
            for result in again {
                assert_eq!(result.expect_err("is final").to_string(), text);
            }
        }
        assert_eq!(disk.operations(), operations, "nothing is tried again");
        assert_eq!(log.failure().map(ToString::to_string), Some(text));
        drop((_dir, log));
        crash(&disk, Kept::Nothing);
        run(&mut oracle, &disk, 2, 4).expect("what was acknowledged is there");
        sync += 1;
    }
}

#[test]
fn a_full_disk_ends_the_log_with_a_remedy_and_loses_nothing() {
    let mut full = 0;
    for write in (1..120).step_by(2) {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let faults = Faults { full_from_write: Some(write), ..Faults::default() };
        disk.set_faults(faults);
        let mut oracle = Oracle::default();
        match run(&mut oracle, &disk, TURNS, 9) {
            Ok(()) => continue,
            Err(Failure::Storage(error)) => {
                assert!(error.is_full(), "{error}");
                assert!(error.to_string().contains("free some space"), "{error}");
                full += 1;
            }
            Err(wrong) => panic!("{wrong:?}"),
        }
        disk.set_faults(Faults::default());
        crash(&disk, if write % 4 == 1 { Kept::Nothing } else { Kept::Everything });
        run(&mut oracle, &disk, 2, 9).expect("what was acknowledged is there");
    }
    assert!(full > 10, "the disk was hardly ever full: {full}");
}

#[test]
fn every_subset_of_the_last_commit_s_sectors_is_told_apart() {
    const SECTORS: u32 = 6;
    let big = vec![0xab; 480 * SECTORS as usize - 12];
    for mask in 0..1u64 << SECTORS {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let mut oracle = Oracle::default();
        let (_dir, mut log) = oracle.start(&storage).expect("nothing fails");
        // A segment has room for the second commit, so that it is torn in its place.
        log.append(&record(1), base::Seq(1)).expect("is small");
        log.commit(true).expect("nothing fails");
        (oracle.appended, oracle.acked) = (1, 1);
        let used = record(1).len().div_ceil(480) as u64 + 1;
        let fits = used + u64::from(SECTORS) <= 8;
        assert!(fits, "the commit begins a segment of its own: {used}");
        log.append(&big, base::Seq(2)).expect("is small");
        log.commit(false).expect("nothing fails");
        drop((_dir, log));
        let done = disk.crash_but(0, &mut |path, sector| {
            path.ends_with("log-00000001") && mask & (1 << (sector - used)) != 0
        });
        done.expect("the storage below does not fail");
        let found = open(&storage).expect("opens").found;
        let whole = mask == (1 << SECTORS) - 1;
        assert_eq!(found.log.records.len(), if whole { 2 } else { 1 }, "{mask:b}");
        match found.log.verdict {
            Verdict::Clean => assert!(whole || mask == 0, "{mask:b}"),
            Verdict::TornTail { dropped } => {
                assert_eq!(dropped, u64::from(mask.count_ones()) * 512, "{mask:b}");
            }
            other => panic!("{mask:b}: {other:?}"),
        }
        if whole {
            assert_eq!(found.log.records[1].bytes, big);
            continue;
        }
        drop(found);
        // A shorter commit in the place of the torn one.
        let (_dir, mut log) = oracle.start(&storage).expect("nothing fails");
        log.append(&record(2), base::Seq(2)).expect("is small");
        log.commit(true).expect("nothing fails");
        (oracle.appended, oracle.acked) = (2, 2);
        drop((_dir, log));
        crash(&disk, Kept::Nothing);
        let found = open(&storage).expect("opens").found;
        oracle.check(&found).expect("both are there");
        assert_eq!(found.log.verdict, Verdict::Clean);
    }
}

#[test]
fn a_file_without_its_name_is_gone_and_a_removed_name_comes_back() {
    let disk = Volatile::over(Arc::new(Memory::new()));
    let path = dir().join("file");
    let file = disk.create(&path).expect("is new");
    file.write_at(0, b"content").expect("has room");
    file.sync().expect("does not fail");
    crash(&disk, Kept::Nothing);
    assert!(disk.open(&path).is_err(), "its directory was not synced");
    disk.create(&path).and_then(|file| file.write_at(0, b"other")).expect("has room");
    disk.sync_dir(&dir()).expect("does not fail");
    disk.remove(&path).expect("is there");
    assert!(disk.open(&path).is_err());
    crash(&disk, Kept::Nothing);
    let file = disk.open(&path).expect("its removal was not synced");
    assert_eq!(file.len().expect("is there"), 0, "its content was not synced");
}

#[test]
fn what_async_left_to_the_system_is_durable_once_sync_goes_on_with_it() {
    let disk = Volatile::over(Arc::new(Memory::new()));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    let begin = |incarnation, durability| {
        let Opened { mut dir, found } = open(&storage).expect("opens");
        let log = dir.begin(&whole, Incarnation(incarnation), durability, SMALL);
        (dir, log.expect("nothing fails").expect("has a log"), found.log.records.len())
    };
    let (dir, mut log, _) = begin(1, Durability::Async);
    for number in 1..=20 {
        log.append(&record(number), base::Seq(number)).expect("is small");
        log.commit(false).expect("nothing fails");
    }
    assert!(common::segments(&*storage).len() > 1);
    drop((dir, log));
    // The process went, the machine did not.
    let (dir, log, found) = begin(2, Durability::Sync);
    assert_eq!(found, 20);
    drop((dir, log));
    crash(&disk, Kept::Nothing);
    let found = open(&storage).expect("opens").found;
    assert_eq!((found.log.verdict, found.log.records.len()), (Verdict::Clean, 20));
}

#[test]
fn async_loses_what_was_not_synced_and_says_so() {
    let disk = Volatile::over(Arc::new(Memory::new()));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    let Opened { mut dir, .. } = open(&storage).expect("opens");
    let log = dir.begin(&whole, Incarnation(1), Durability::Async, SMALL);
    let mut log = log.expect("nothing fails").expect("has a log");
    log.append(&record(1), base::Seq(1)).expect("is small");
    log.commit(false).expect("nothing fails");
    drop((dir, log));
    crash(&disk, Kept::Nothing);
    let mut found = open(&storage).expect("opens").found;
    assert!(found.log.records.is_empty());
    found.boot = BootId([b'x'; 36]);
    assert_eq!(beginning(&found, false, false).expect("is there").voice, Voice::Forgetful);
}

#[test]
fn a_process_that_is_killed_loses_what_it_did_not_sync() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("replica");
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    for life in 1..4u64 {
        // Another process has another memory.
        let storage: Arc<dyn Storage> = Arc::new(Volatile::over(Arc::new(Real)));
        let Opened { mut dir, found } = Dir::open(&path, IDENTITY, storage).expect("opens");
        let expected: Vec<_> = (1..=20 * (life - 1)).collect();
        let numbers: Vec<_> = found.log.records.iter().map(|r| r.highest.0).collect();
        assert_eq!(numbers, expected);
        let layout = LogOptions { segment_bytes: 64 << 10 };
        let log = dir.begin(&whole, Incarnation(life), Durability::Sync, layout);
        let mut log = log.expect("nothing fails").expect("has a log");
        for number in 20 * (life - 1) + 1..=20 * life {
            log.append(&record(number), base::Seq(number)).expect("is small");
        }
        log.commit(true).expect("nothing fails");
        log.append(&record(9), base::Seq(9)).expect("is small");
        log.commit(false).expect("nothing fails");
        let writer = dir.checkpoints().write(base::Seq(8)).expect("nothing fails");
        std::mem::forget(writer);
    }
    let real = Dir::open(&path, IDENTITY, Arc::new(Real)).expect("opens").found;
    assert_eq!(real.log.records.len(), 60);
}

#[test]
fn a_sync_after_segments_without_one_covers_them_all() {
    let disk = Volatile::over(Arc::new(Memory::new()));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    let Opened { mut dir, .. } = open(&storage).expect("opens");
    let log = dir.begin(&whole, Incarnation(1), Durability::Async, SMALL);
    let mut log = log.expect("nothing fails").expect("has a log");
    for number in 1..=20 {
        log.append(&record(number), base::Seq(number)).expect("is small");
        log.commit(false).expect("nothing fails");
    }
    assert!(common::segments(&*storage).len() > 2);
    log.commit(true).expect("nothing fails");
    drop((dir, log));
    crash(&disk, Kept::Nothing);
    let found = open(&storage).expect("opens").found;
    assert_eq!((found.log.verdict, found.log.records.len()), (Verdict::Clean, 20));
}

#[test]
fn a_log_is_never_emptied_without_a_life_that_says_forgetful() {
    let mut operations = 0;
    loop {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let mut oracle = Oracle::default();
        run(&mut oracle, &disk, 6, 1).expect("nothing fails");
        let stop_after = Some(disk.operations() + operations);
        disk.set_faults(Faults { stop_after, ..Faults::default() });
        let forgetful = Beginning { voice: Voice::Forgetful, why: String::new() };
        let done = open(&storage).and_then(|Opened { mut dir, .. }| {
            dir.begin(&forgetful, Incarnation(1000), Durability::Sync, SMALL)
        });
        crash(&disk, if operations % 2 == 0 { Kept::Nothing } else { Kept::Names(operations) });
        let found = open(&storage).expect("opens").found;
        let begins = beginning(&found, false, false).expect("there is something");
        if begins.voice == Voice::Whole {
            oracle.check(&found).expect("all is there");
        }
        if done.is_ok() {
            assert_eq!(begins.voice, Voice::Forgetful);
            assert!(operations > 12, "hardly anything was written: {operations}");
            return;
        }
        operations += 1;
    }
}

/// Both threads sync the one directory, and the system tells of a failure only once.
#[test]
fn a_sync_of_names_that_failed_for_a_checkpoint_has_failed_for_the_log() {
    let disk = Volatile::over(Arc::new(Memory::new()));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    let Opened { mut dir, .. } = open(&storage).expect("opens");
    let log = dir.begin(&whole, Incarnation(1), Durability::Async, SMALL);
    let mut log = log.expect("nothing fails").expect("has a log");
    for number in 1..=20 {
        log.append(&record(number), base::Seq(number)).expect("is small");
        log.commit(false).expect("nothing fails");
    }
    assert!(common::segments(&*storage).len() > 2, "names that are not durable");
    let files = dir.checkpoints();
    let manifest = Manifest { seq: base::Seq(8), pillars: 2, ..Manifest::default() };
    let (digest, proof) = (manifest.digest(IDENTITY.group), Arc::default());
    let certificate = StableCheckpoint { seq: base::Seq(8), digest, proof };
    let write = || {
        let writer = files.write(base::Seq(8)).expect("has room");
        files.finish(writer, &manifest, &certificate)
    };
    // The first sync is that of the content.
    disk.set_faults(Faults { fail_sync: Some(disk.syncs() + 2), ..Faults::default() });
    assert!(write().expect_err("fails").to_string().contains("directory durable"));
    let acknowledged = log.commit(true);
    drop((dir, log));
    crash(&disk, Kept::Nothing);
    let found = open(&storage).expect("opens").found.log;
    assert!(found.records.len() < 20, "the names are lost");
    assert!(acknowledged.is_err(), "{} of 20 are there", found.records.len());
}
