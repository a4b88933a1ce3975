//! Whose directory it is, what the life file survives, and how a replica may begin.

mod common;

use std::path::Path;
use std::sync::Arc;

use base::transfer::Manifest;
use base::{GroupId, Incarnation, ReplicaId, Seq, StableCheckpoint};
use common::{IDENTITY, SMALL, dir, open, read_file, segments, write_file};
use store::{
    Beginning, BootId, Dir, Durability, Faults, Found, FoundLog, Identity, Life, LifeFound, Memory,
    Opened, Real, Refusal, Storage, StoreError, Verdict, Voice, Volatile, beginning, may_forget,
};

fn whole() -> Beginning {
    Beginning { voice: Voice::Whole, why: String::new() }
}

fn memory() -> Arc<dyn Storage> {
    Arc::new(Memory::new())
}

/// Begins a life and ends it by dropping it.
fn live(storage: &Arc<dyn Storage>, incarnation: u64, durability: Durability) -> Dir {
    let Opened { mut dir, .. } = open(storage).expect("opens");
    dir.begin(&whole(), Incarnation(incarnation), durability, SMALL).expect("nothing fails");
    dir
}

fn life_of(storage: &Arc<dyn Storage>) -> LifeFound {
    open(storage).expect("opens").found.life
}

#[test]
fn a_directory_serves_one_process_and_names_it() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("replica");
    let held = Dir::open(&path, IDENTITY, Arc::new(Real)).expect("opens").dir;
    let error = Dir::open(&path, IDENTITY, Arc::new(Real)).expect_err("is held");
    let StoreError::Locked { holder, .. } = &error else { panic!("{error}") };
    let pid = std::process::id().to_string();
    assert_eq!(holder.as_deref(), Some(&pid[..]));
    assert!(error.to_string().contains(&format!("another process (pid {pid})")), "{error}");
    drop(held);
    Dir::open(&path, IDENTITY, Arc::new(Real)).expect("opens again");
}

#[test]
fn another_s_directory_is_refused_and_left_alone() {
    let storage = memory();
    live(&storage, 1, Durability::Sync);
    let open_as = |identity| Dir::open(&dir(), identity, Arc::clone(&storage));
    let others = |identity: Identity| {
        let error = open_as(identity).expect_err("is another's").to_string();
        assert!(error.contains("belongs to") && error.contains(", not to"), "{error}");
    };
    let (group, replica) = (GroupId([9; 32]), ReplicaId(3));
    let of_group = open_as(Identity { group, ..IDENTITY });
    assert!(matches!(of_group, Err(StoreError::OtherGroup { .. })));
    let of_replica = open_as(Identity { replica, ..IDENTITY });
    assert!(matches!(of_replica, Err(StoreError::OtherReplica { .. })));
    // The log says it too, where the life file is gone.
    ["life-a", "life-b"].iter().for_each(|n| storage.remove(&dir().join(n)).expect("is there"));
    let before = segments(&*storage).into_iter().map(|p| read_file(&*storage, &p));
    let before: Vec<_> = before.collect();
    others(Identity { group, ..IDENTITY });
    others(Identity { replica, ..IDENTITY });
    let after: Vec<_> = segments(&*storage).iter().map(|p| read_file(&*storage, p)).collect();
    assert_eq!(before, after);
}

#[test]
fn a_newer_format_is_refused() {
    let storage = memory();
    live(&storage, 1, Durability::Sync);
    // The version stands behind checksum and magic; the checksum is that of the whole sector.
    let newer = |path: &Path, version_at: usize| {
        let intact = read_file(&*storage, path);
        let mut bytes = intact.clone();
        bytes[version_at] = 2;
        let sum = crc32c::crc32c(&bytes[4..512]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        write_file(&*storage, path, &bytes);
        let error = open(&storage).expect_err("is newer");
        assert!(matches!(error, StoreError::NewerFormat { found: 2, .. }), "{error}");
        write_file(&*storage, path, &intact);
    };
    newer(&dir().join("life-a"), 8);
    newer(&segments(&*storage)[0], 40);
    open(&storage).expect("opens");
}

#[test]
fn either_copy_of_the_life_file_will_do() {
    let storage = memory();
    live(&storage, 5, Durability::Sync);
    let truth = life_of(&storage);
    assert!(matches!(truth, LifeFound::Good(life) if life.incarnation == Incarnation(5)));
    for name in ["life-a", "life-b"] {
        let path = dir().join(name);
        let intact = read_file(&*storage, &path);
        for bit in 0..512 * 8 {
            let mut bytes = intact.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            write_file(&*storage, &path, &bytes);
            assert_eq!(life_of(&storage), truth, "{name} bit {bit}");
        }
        write_file(&*storage, &path, &intact);
    }
    for name in ["life-a", "life-b"] {
        let path = dir().join(name);
        let bytes = read_file(&*storage, &path);
        write_file(&*storage, &path, &bytes.iter().map(|b| b ^ 0x40).collect::<Vec<_>>());
    }
    assert_eq!(life_of(&storage), LifeFound::Damaged);
    ["life-a", "life-b"].iter().for_each(|n| storage.remove(&dir().join(n)).expect("is there"));
    assert_eq!(life_of(&storage), LifeFound::None);
}

#[test]
fn a_life_is_the_old_or_the_new_one_wherever_the_machine_stops() {
    let mut operations = 0;
    loop {
        let disk = Volatile::over(memory());
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        drop(live(&storage, 1, Durability::Sync));
        let stop_after = Some(disk.operations() + operations);
        disk.set_faults(Faults { stop_after, ..Faults::default() });
        let done = open(&storage).and_then(|Opened { mut dir, .. }| {
            dir.begin(&whole(), Incarnation(2), Durability::Async, SMALL)?;
            dir.end()
        });
        let names = (operations % 4) as usize;
        disk.crash_but(names, &mut |_, _| operations % 2 == 1).expect("nothing fails below");
        let LifeFound::Good(life) = life_of(&storage) else { panic!("no life: {operations}") };
        let clean = (life.incarnation, life.durability, life.clean);
        match done {
            Ok(()) => {
                assert_eq!(clean, (Incarnation(2), Durability::Async, true));
                assert!(operations > 15, "hardly anything was written: {operations}");
                return;
            }
            Err(_) if life.incarnation == Incarnation(1) => assert!(!life.clean),
            Err(_) => assert_eq!(clean, (Incarnation(2), Durability::Async, life.clean)),
        }
        operations += 1;
    }
}

#[test]
fn an_incarnation_never_comes_again() {
    let storage = memory();
    drop(live(&storage, 5, Durability::Sync));
    let Opened { mut dir, found } = open(&storage).expect("opens");
    for incarnation in [4, 5] {
        let begun = dir.begin(&whole(), Incarnation(incarnation), Durability::Sync, SMALL);
        assert!(matches!(begun, Err(StoreError::OldIncarnation { found: 5, .. })));
    }
    assert_eq!(found.incarnation(Incarnation(3)), Incarnation(6));
    assert_eq!(found.incarnation(Incarnation(9)), Incarnation(9));
}

const BOOT: BootId = BootId([b'x'; 36]);

fn found(life: LifeFound, verdict: Verdict) -> Found {
    let log = FoundLog { records: vec![], verdict };
    Found { path: "data".into(), life, boot: BOOT, checkpoints: vec![], log }
}

fn life(durability: Durability) -> Life {
    let (incarnation, boot) = (Incarnation(1), BootId([b'y'; 36]));
    let (clean, recovering, cut, first, last) = (false, false, Seq(0), 0, 0);
    Life { incarnation, durability, boot, clean, recovering, cut, first, last }
}

fn doubt() -> Verdict {
    Verdict::Doubt { reason: "the block is damaged", file: "data/log-1".into(), offset: 512 }
}

fn torn() -> Verdict {
    Verdict::TornTail { dropped: 512 }
}

#[test]
fn who_may_have_forgotten_does_not_vote() {
    use Durability::{Async, Memory, Sync};
    use LifeFound::{Damaged, Good};
    use Verdict::{Clean, Missing};
    use Voice::{Forgetful, Whole};
    let ended = |durability| Good(Life { clean: true, ..life(durability) });
    let same_boot = |durability| Good(Life { boot: BOOT, ..life(durability) });
    let unsure = |durability| Good(Life { recovering: true, ..life(durability) });
    let unknown = Good(Life { boot: BootId::UNKNOWN, ..life(Async) });
    let table = [
        // life, verdict, virgin, recover, expected, a word of the reason
        (LifeFound::None, Missing, true, false, Whole, "first start"),
        (LifeFound::None, Clean, true, false, Whole, "first start"),
        (LifeFound::None, Clean, false, false, Forgetful, "life file is gone"),
        (LifeFound::None, torn(), true, false, Forgetful, "life file is gone"),
        (LifeFound::None, Missing, true, true, Forgetful, "asked for"),
        (LifeFound::None, Missing, false, true, Forgetful, "asked for"),
        (Damaged, Clean, false, false, Forgetful, "damaged"),
        (Damaged, Missing, true, false, Forgetful, "damaged"),
        (Good(life(Sync)), Clean, false, true, Forgetful, "asked for"),
        (Good(life(Sync)), Clean, false, false, Whole, "on the disk"),
        (Good(life(Sync)), torn(), false, false, Whole, "on the disk"),
        (Good(life(Sync)), doubt(), false, false, Forgetful, "data/log-1 at byte 512"),
        (Good(life(Sync)), Missing, false, false, Forgetful, "log is gone"),
        (Good(life(Sync)), Missing, true, false, Whole, "interrupted"),
        (Good(life(Sync)), doubt(), true, false, Forgetful, "at byte 512"),
        (ended(Sync), doubt(), false, false, Forgetful, "at byte 512"),
        (ended(Sync), torn(), false, false, Forgetful, "torn"),
        (ended(Sync), Clean, false, false, Whole, "on the disk"),
        (unsure(Sync), Clean, false, false, Forgetful, "recovery"),
        (unsure(Sync), Clean, true, false, Forgetful, "recovery"),
        (ended(Async), Clean, false, false, Whole, "in order"),
        (ended(Async), torn(), false, false, Forgetful, "torn"),
        (ended(Async), Missing, false, false, Forgetful, "log is gone"),
        (Good(life(Async)), Clean, false, false, Forgetful, "machine was restarted"),
        (same_boot(Async), Clean, false, false, Whole, "not restarted"),
        (same_boot(Async), torn(), false, false, Whole, "not restarted"),
        (same_boot(Async), doubt(), false, false, Forgetful, "at byte 512"),
        (unknown, Clean, false, false, Forgetful, "machine was restarted"),
        (unsure(Async), Clean, false, false, Forgetful, "recovery"),
        (ended(Memory), Missing, false, false, Forgetful, "in memory"),
        (same_boot(Memory), Missing, false, false, Forgetful, "in memory"),
        (Good(life(Memory)), Missing, true, false, Whole, "interrupted"),
    ];
    for (life, verdict, virgin, recover, voice, word) in table {
        let what = format!("{life:?} {verdict:?} virgin {virgin} recover {recover}");
        let begins = beginning(&found(life, verdict), virgin, recover).expect(&what);
        assert_eq!(begins.voice, voice, "{what}: {}", begins.why);
        assert!(begins.why.contains(word), "{what}: {}", begins.why);
    }
    // An unknown boot is not even the same as itself.
    let found = Found { boot: BootId::UNKNOWN, ..found(unknown, Clean) };
    assert_eq!(beginning(&found, false, false).expect("is there").voice, Forgetful);
}

#[test]
fn what_is_on_disk_is_not_forgotten_unasked() {
    use Durability::{Async, Memory, Sync};
    let held = |durability| found(LifeFound::Good(life(durability)), torn());
    for kept in [Async, Sync] {
        let refusal = may_forget(&held(kept), Memory).expect_err("it would be gone");
        let text = refusal.to_string();
        let remedy = format!("--durability {}", kept.word());
        assert!(text.contains(&remedy) && text.contains("--recover"), "{text}");
        assert_eq!(may_forget(&held(kept), Async), Ok(()));
        assert_eq!(may_forget(&held(kept), Sync), Ok(()));
        let empty = found(LifeFound::Good(life(kept)), Verdict::Missing);
        assert_eq!(may_forget(&empty, Memory), Ok(()), "there is nothing to forget");
    }
    assert_eq!(may_forget(&held(Memory), Memory), Ok(()));
}

#[test]
fn an_emptied_directory_is_refused_with_the_remedy() {
    let empty = open(&memory()).expect("opens").found;
    let refusal = beginning(&empty, false, false).expect_err("is refused");
    assert!(matches!(refusal, Refusal::NothingHere { .. }));
    let text = refusal.to_string();
    assert!(text.contains("stylite replica --recover") && text.contains("/replica"), "{text}");
}

#[test]
fn checkpoints_without_a_life_are_not_a_first_start() {
    let storage = memory();
    let held = open(&storage).expect("opens").dir;
    let (manifest, certificate) = certified(8);
    let files = held.checkpoints();
    let writer = files.write(Seq(8)).expect("nothing fails");
    files.finish(writer, &manifest, &certificate).expect("nothing fails");
    drop(held);
    let found = open(&storage).expect("opens").found;
    assert_eq!(found.checkpoints.len(), 1);
    for virgin in [true, false] {
        let begins = beginning(&found, virgin, false).expect("is something");
        assert_eq!(begins.voice, Voice::Forgetful);
    }
}

fn certified(seq: u64) -> (Manifest, StableCheckpoint) {
    let manifest = Manifest { seq: Seq(seq), pillars: 1, ..Manifest::default() };
    let digest = manifest.digest(IDENTITY.group);
    (manifest, StableCheckpoint { seq: Seq(seq), digest, ..StableCheckpoint::default() })
}

#[test]
fn durability_memory_keeps_a_life_and_no_log() {
    let storage = memory();
    drop(live(&storage, 1, Durability::Sync));
    assert_eq!(segments(&*storage).len(), 1);
    let Opened { mut dir, .. } = open(&storage).expect("opens");
    let log = dir.begin(&whole(), Incarnation(2), Durability::Memory, SMALL);
    assert!(log.expect("nothing fails").is_none());
    drop(dir);
    assert!(segments(&*storage).is_empty());
    let found = open(&storage).expect("opens").found;
    assert_eq!(beginning(&found, false, false).expect("is there").voice, Voice::Forgetful);
}

#[test]
fn a_recovery_that_was_cut_short_is_begun_again() {
    let storage = memory();
    let forgetful = Beginning { voice: Voice::Forgetful, why: String::new() };
    for incarnation in 1..4 {
        let Opened { mut dir, found } = open(&storage).expect("opens");
        if incarnation > 1 {
            let begins = beginning(&found, false, false).expect("is there");
            assert_eq!(begins.voice, Voice::Forgetful, "{}", begins.why);
        }
        let begun = dir.begin(&forgetful, Incarnation(incarnation), Durability::Sync, SMALL);
        begun.expect("nothing fails");
        if incarnation == 3 {
            dir.recovered().expect("nothing fails");
        }
    }
    let found = open(&storage).expect("opens").found;
    assert_eq!(beginning(&found, false, false).expect("is there").voice, Voice::Whole);
}

/// A life that began forgetful empties the log, and names what it has itself.
#[test]
fn a_life_that_has_recovered_names_its_segments() {
    let storage = memory();
    let forgetful = Beginning { voice: Voice::Forgetful, why: String::new() };
    let begun = |incarnation| {
        let Opened { mut dir, .. } = open(&storage).expect("opens");
        let log = dir.begin(&forgetful, Incarnation(incarnation), Durability::Sync, SMALL);
        (dir, log.expect("nothing fails").expect("has a log"))
    };
    drop(begun(1));
    let (mut dir, mut log) = begun(2);
    for number in 1..=20 {
        log.append(&[7; 1000], Seq(number)).expect("is small");
        log.commit(true).expect("nothing fails");
    }
    dir.recovered().expect("nothing fails");
    drop((dir, log));
    let found = open(&storage).expect("opens").found;
    assert_eq!(found.log.verdict, Verdict::Clean);
    let files = segments(&*storage);
    let LifeFound::Good(life) = found.life else { panic!("no life") };
    assert_eq!((life.first, life.last), (2, 1 + u32::try_from(files.len()).expect("few")));
    storage.remove(&files[files.len() - 1]).expect("is there");
    let found = open(&storage).expect("opens").found;
    let begins = beginning(&found, false, false).expect("is there");
    assert_eq!(begins.voice, Voice::Forgetful, "{}", begins.why);
}

/// Files of before these fields have zeroes in their place.
#[test]
fn a_life_file_that_names_no_segment_misses_none() {
    let storage = memory();
    drop(live(&storage, 1, Durability::Sync));
    let files = ["life-a", "life-b"].map(|name| dir().join(name));
    for (fields, missing) in [([0; 8], false), ([1, 0, 0, 0, 2, 0, 0, 0], true)] {
        for path in &files {
            let mut bytes = read_file(&*storage, path);
            bytes[107..115].copy_from_slice(&fields);
            let sum = crc32c::crc32c(&bytes[4..512]);
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
            write_file(&*storage, path, &bytes);
        }
        let found = open(&storage).expect("opens").found.log;
        assert_eq!(matches!(found.verdict, Verdict::Doubt { .. }), missing, "{}", found.verdict);
    }
}

#[test]
fn nothing_is_left_of_what_was_not_finished() {
    let storage = memory();
    drop(live(&storage, 1, Durability::Sync));
    for name in ["life.new", "log.new", "checkpoint-0000000000000008.new"] {
        storage.create(&dir().join(name)).expect("is new");
    }
    drop(open(&storage).expect("opens"));
    let names = storage.list(&dir()).expect("does not fail");
    assert!(names.iter().all(|name| !name.ends_with(".new")), "{names:?}");
    live(&storage, 2, Durability::Sync);
}

#[test]
fn a_directory_in_it_is_made_once_and_that_it_could_not_be_is_final() {
    let place = tempfile::tempdir().expect("a directory");
    let opened = Dir::open(&place.path().join("state"), IDENTITY, Arc::new(Real));
    let dir = opened.expect("opens").dir;
    for _ in 0..2 {
        assert!(dir.subdirectory("evidence").expect("nothing fails").is_dir());
    }
    std::fs::write(dir.path().join("taken"), b"").expect("is new");
    for name in ["taken", "evidence"] {
        let error = dir.subdirectory(name).expect_err("a sync may have failed with it");
        assert!(error.lost_names(), "{error}");
    }
}
