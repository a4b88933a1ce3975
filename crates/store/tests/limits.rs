//! Where the operating system's promises end: a sync that failed while the machine goes on, a
//! disk that cannot be read, more files than a process may have open.

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::transfer::{Manifest, Part};
use base::{AgreedTime, Digest, Incarnation, Seq, StableCheckpoint};
use common::{Failure, IDENTITY, Oracle, Random, SMALL, open, record};
use store::checkpoint::CheckpointHead;
use store::storage::Lock;
use store::{
    Beginning, CheckpointReader, Dir, Durability, Faults, File, Item, LifeFound, Log, Memory,
    Opened, Real, Storage, StoreError, Verdict, Voice, Volatile,
};

/// The pages of a sync that failed are seen by everybody until the machine stops, and nobody
/// writes them any more. A life that reads them back and goes on from them must write them anew.
#[test]
fn what_a_failed_sync_has_left_in_memory_is_written_anew_before_it_is_relied_on() {
    let mut relied_on = 0;
    for sync in 1..40 {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let mut oracle = Oracle::default();
        let mut random = Random(sync);
        let (held, mut log) = oracle.start(&storage).expect("nothing fails");
        let fail_sync = Some(disk.syncs() + sync);
        disk.set_faults(Faults { fail_sync, ..Faults::default() });
        while oracle.turn(&mut log, &mut random).is_ok() {}
        let acked = oracle.acked;
        drop((held, log));
        disk.set_faults(Faults::default());
        // The process ends, the machine goes on; then the next life's machine stops.
        drop(oracle.start(&storage).expect("the log is not in doubt"));
        relied_on += u32::from(oracle.acked > acked);
        disk.crash().expect("the storage below does not fail");
        match oracle.start(&storage) {
            Ok(_) => {}
            Err(Failure::Wrong(what)) => panic!("sync {sync}: {what}"),
            Err(Failure::Storage(error)) => panic!("sync {sync}: {error}"),
        }
    }
    assert!(relied_on > 5, "hardly ever was anything read back: {relied_on}");
}

/// Fills some segments.
fn fill(oracle: &mut Oracle, log: &mut Log) {
    for _ in 0..30 {
        oracle.appended += 1;
        log.append(&record(oracle.appended), Seq(oracle.appended)).expect("is small");
        log.commit(true).expect("nothing fails");
    }
    oracle.acked = oracle.appended;
}

/// Trims the oldest segment away.
fn trim_one(oracle: &mut Oracle, log: &mut Log) -> Result<(), StoreError> {
    let mark = (1..).map(Seq).find(|mark| log.would_cut(*mark).is_some()).expect("there are some");
    oracle.trimmed = mark.0;
    log.trim(mark)
}

/// A start must neither miss it nor take it for a part of the log, wherever the trim was
/// interrupted that was to remove it, and wherever the next start is.
#[test]
fn a_segment_that_comes_back_after_it_was_removed_does_no_harm() {
    for (sync, stopped) in (1..=5).flat_map(|sync| (0..40).map(move |stopped| (sync, stopped))) {
        let when = format!("sync {sync}, stopped after {stopped}");
        let disk = Volatile::over(Arc::new(Memory::new()));
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let mut oracle = Oracle::default();
        let (held, mut log) = oracle.start(&storage).expect("nothing fails");
        fill(&mut oracle, &mut log);
        // Four of the life file, one of the removal.
        let fail_sync = Some(disk.syncs() + sync);
        disk.set_faults(Faults { fail_sync, ..Faults::default() });
        trim_one(&mut oracle, &mut log).expect_err("fails");
        drop((held, log));
        let stop_after = Some(disk.operations() + stopped);
        disk.set_faults(Faults { stop_after, ..Faults::default() });
        match oracle.start(&storage) {
            Err(Failure::Wrong(what)) => panic!("{when}: {what}"),
            Err(Failure::Storage(_)) => {}
            Ok((held, mut log)) => {
                disk.set_faults(Faults::default());
                trim_one(&mut oracle, &mut log).expect("nothing fails");
                drop((held, log));
            }
        }
        let names = usize::try_from(stopped % 4).expect("is small");
        disk.crash_but(names, &mut |_, _| false).expect("nothing fails below");
        match oracle.start(&storage) {
            Ok(_) => {}
            Err(Failure::Wrong(what)) => panic!("{when}: {what}"),
            Err(Failure::Storage(error)) => panic!("{when}: {error}"),
        }
        let LifeFound::Good(life) = open(&storage).expect("opens").found.life else { panic!() };
        let first = common::segments(&*storage).into_iter().next().expect("there is a log");
        assert!(first.ends_with(format!("log-{:08x}", life.first)), "{when}: {first:?}");
    }
}

/// What a whole life that begins next finds, or why it does not begin.
fn live(storage: &Arc<dyn Storage>) -> Result<(Dir, Vec<u64>), StoreError> {
    let Opened { mut dir, found } = open(storage)?;
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    dir.begin(&whole, found.incarnation(Incarnation(1)), Durability::Sync, SMALL)?;
    Ok((dir, found.checkpoints.iter().map(|head| head.manifest.seq.0).collect()))
}

fn save(dir: &Dir, seq: u64) -> Result<CheckpointHead, StoreError> {
    let manifest = Manifest { seq: Seq(seq), pillars: 2, ..Manifest::default() };
    let (digest, proof) = (manifest.digest(IDENTITY.group), Arc::default());
    let certificate = StableCheckpoint { seq: Seq(seq), digest, proof };
    let files = dir.checkpoints();
    files.finish(files.write(Seq(seq))?, &manifest, &certificate)
}

/// The life that finds it may sign what rests on it.
#[test]
fn the_name_of_a_checkpoint_that_a_sync_did_not_write_is_written_by_the_next_life() {
    let disk = Volatile::over(Arc::new(Memory::new()));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (dir, _) = live(&storage).expect("nothing fails");
    save(&dir, 8).expect("nothing fails");
    // The first sync is that of the content.
    disk.set_faults(Faults { fail_sync: Some(disk.syncs() + 2), ..Faults::default() });
    assert!(save(&dir, 16).expect_err("fails").to_string().contains("directory durable"));
    drop(dir);
    // The process ends, the machine goes on; then the next life's machine stops.
    let (_, found) = live(&storage).expect("nothing fails");
    assert_eq!(found, [16, 8], "the system shows it");
    disk.crash().expect("the storage below does not fail");
    let (_, found) = live(&storage).expect("nothing fails");
    assert_eq!(found, [16, 8]);
}

#[test]
fn a_checkpoint_stays_wherever_the_machine_stops_while_it_is_named_anew() {
    for operations in 0.. {
        let mut begun = false;
        for names in 0..6 {
            let disk = Volatile::over(Arc::new(Memory::new()));
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let (dir, _) = live(&storage).expect("nothing fails");
            save(&dir, 8).and_then(|_| save(&dir, 16)).expect("nothing fails");
            drop(dir);
            let stop_after = Some(disk.operations() + operations);
            disk.set_faults(Faults { stop_after, ..Faults::default() });
            begun = live(&storage).is_ok();
            disk.crash_but(names, &mut |_, _| false).expect("nothing fails below");
            let (_, found) = live(&storage).expect("nothing fails");
            assert_eq!(found, [16, 8], "after {operations} operations and {names} names");
        }
        if begun {
            assert!(operations > 8, "hardly anything was written: {operations}");
            return;
        }
    }
}

/// A storage of which some files can be opened, but not read.
#[derive(Debug)]
struct Unreadable {
    below: Arc<dyn Storage>,
    name: &'static str,
    /// Bytes from here on cannot be read.
    from: AtomicU64,
}

#[derive(Debug)]
struct Half {
    below: Box<dyn File>,
    from: u64,
}

impl Storage for Unreadable {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.below.create_dir(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.below.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let below = self.below.open(path)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with(self.name) {
            return Ok(below);
        }
        Ok(Box::new(Half { below, from: self.from.load(Ordering::Relaxed) }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.below.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.below.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.below.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.below.sync_dir(dir)
    }
    fn lock(&self, path: &Path, note: &str) -> io::Result<Lock> {
        self.below.lock(path, note)
    }
}

impl File for Half {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if offset + into.len() as u64 > self.from {
            return Err(io::Error::other("the medium cannot be read"));
        }
        self.below.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.below.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.below.sync()
    }
}

#[test]
fn a_log_that_cannot_be_read_is_in_doubt_and_can_be_recovered_from() {
    for from in [0, 512, 4000] {
        let below: Arc<dyn Storage> = Arc::new(Memory::new());
        let mut oracle = Oracle::default();
        let mut random = Random(7);
        let (held, mut log) = oracle.start(&below).expect("nothing fails");
        (0..24).for_each(|_| oracle.turn(&mut log, &mut random).expect("nothing fails"));
        drop((held, log));
        let from = AtomicU64::new(from);
        let storage: Arc<dyn Storage> = Arc::new(Unreadable { below, name: "log-", from });
        let Opened { mut dir, found } = open(&storage).expect("damage is no error");
        assert!(matches!(found.log.verdict, Verdict::Doubt { .. }), "{:?}", found.log.verdict);
        let begins = store::beginning(&found, false, false).expect("it may start");
        assert_eq!(begins.voice, Voice::Forgetful, "{}", begins.why);
        let incarnation = found.incarnation(Incarnation(1));
        let log = dir.begin(&begins, incarnation, Durability::Sync, SMALL);
        log.expect("what cannot be read can be removed").expect("sync has a log");
    }
}

#[test]
fn a_life_file_that_cannot_be_read_is_what_there_are_two_of_them_for() {
    for (name, voice) in
        [("life-a", Voice::Whole), ("life-b", Voice::Whole), ("life-", Voice::Forgetful)]
    {
        let below: Arc<dyn Storage> = Arc::new(Memory::new());
        let mut oracle = Oracle::default();
        let (held, mut log) = oracle.start(&below).expect("nothing fails");
        oracle.turn(&mut log, &mut Random(7)).expect("nothing fails");
        drop((held, log));
        let storage: Arc<dyn Storage> =
            Arc::new(Unreadable { below, name, from: AtomicU64::new(0) });
        let Opened { mut dir, found } = open(&storage).expect("damage is no error");
        let begins = store::beginning(&found, false, false).expect("it may start");
        assert_eq!(begins.voice, voice, "{name}: {}", begins.why);
        let incarnation = found.incarnation(Incarnation(1));
        let log = dir.begin(&begins, incarnation, Durability::Sync, SMALL);
        log.expect("what cannot be read can be replaced").expect("sync has a log");
    }
}

#[test]
fn a_log_without_syncs_does_not_keep_every_file_that_it_ever_wrote_open() {
    let place = tempfile::tempdir().expect("a directory");
    let storage: Arc<dyn Storage> = Arc::new(Real);
    let Opened { dir: mut held, .. } =
        Dir::open(place.path(), IDENTITY, storage).expect("an empty directory");
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    let log = held.begin(&whole, Incarnation(1), Durability::Async, SMALL);
    let mut log = log.expect("nothing fails").expect("async has a log");
    let open_files = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = open_files();
    let mut most = 0;
    for number in 1..=400u64 {
        log.append(&[7; 3000], Seq(number)).expect("is small");
        log.commit(false).expect("nothing fails");
        if number.is_multiple_of(100) {
            log.trim(Seq(number - 50)).expect("nothing fails");
        }
        most = most.max(open_files().saturating_sub(before));
    }
    assert!(most < 64, "{most} files are open");
    log.commit(true).expect("nothing fails");
    drop((held, log));
    let storage: Arc<dyn Storage> = Arc::new(Real);
    let found = Dir::open(place.path(), IDENTITY, storage).expect("its own").found.log;
    assert_eq!(found.verdict, Verdict::Clean);
    let last = found.records.last().map(|record| record.highest);
    assert_eq!(last, Some(Seq(400)));
}

#[test]
fn a_checkpoint_that_cannot_be_read_to_its_end_is_damaged_and_no_more() {
    let below: Arc<dyn Storage> = Arc::new(Memory::new());
    let held = common::open(&below).expect("an empty directory").dir;
    let mut writer = held.checkpoints().write(Seq(64)).expect("nothing fails");
    for number in 0..64u32 {
        writer.object(Part::Service, number, &[7; 9000]).expect("nothing fails");
    }
    let manifest = Manifest {
        seq: Seq(64),
        pillars: 1,
        time: AgreedTime(5),
        service: Digest([1; 32]),
        sessions: Digest([2; 32]),
    };
    let digest = manifest.digest(IDENTITY.group);
    let certificate = StableCheckpoint { seq: Seq(64), digest, proof: Arc::new(vec![]) };
    let head = held.checkpoints().finish(writer, &manifest, &certificate).expect("agrees");
    drop(held);
    for from in [0, 100_000, head.file_bytes - 20_000] {
        let (below, name) = (Arc::clone(&below), "checkpoint-");
        let storage = Unreadable { below, name, from: AtomicU64::new(from) };
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let found = open(&storage).expect("damage is no error").found;
        if from == 0 {
            assert!(found.checkpoints.is_empty(), "not even its head can be read");
            continue;
        }
        let mut reader = CheckpointReader::open(&*storage, &found.checkpoints[0].path);
        let reader = reader.as_mut().expect("its head can be read");
        let mut whole = 0;
        while let Some(item) = reader.next_item().expect("damage is no error") {
            whole += u64::from(matches!(item, Item::Object { .. }));
        }
        assert!(whole >= from / 9100 - 1 && !reader.summary().is_whole(), "{from}: {whole}");
    }
}
