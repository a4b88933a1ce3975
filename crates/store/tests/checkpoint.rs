//! Checkpoint files: written, read, damaged in every place, kept and removed.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::transfer::{Manifest, Part};
use base::{Digest, GroupId, ReplicaId, Seq, Signature, StableCheckpoint};
use common::{IDENTITY, Random, dir, open, read_file, write_file};
use store::checkpoint::CheckpointHead;
use store::{
    CheckpointReader, CheckpointWriter, Dir, Faults, Item, Memory, Real, Storage, StoreError,
    Summary, Volatile, checkpoint_due,
};

const HEAD: usize = 8 << 10;

type Objects = BTreeMap<(Part, u32), Vec<u8>>;

fn certified(seq: u64) -> (Manifest, StableCheckpoint) {
    let manifest = Manifest { seq: Seq(seq), pillars: 2, ..Manifest::default() };
    let digest = manifest.digest(IDENTITY.group);
    let proof = (0..64).map(|i| (ReplicaId(i), Signature([i as u8; 64]))).collect();
    (manifest, StableCheckpoint { seq: Seq(seq), digest, proof: Arc::new(proof) })
}

fn objects(seed: u64, count: u32, bytes_max: u64) -> Objects {
    let mut random = Random(seed);
    let parts = [Part::Service, Part::Sessions];
    let keys = parts.into_iter().flat_map(|part| (0..count).map(move |n| (part, n * 3)));
    keys.map(|key| {
        let len = random.below(bytes_max);
        (key, (0..len).map(|_| random.below(256) as u8).collect())
    })
    .collect()
}

fn write(storage: &Arc<dyn Storage>, seq: u64, objects: &Objects) -> CheckpointHead {
    let opened = open(storage).expect("opens");
    let files = opened.dir.checkpoints();
    let mut writer = files.write(Seq(seq)).expect("nothing fails");
    for ((part, number), bytes) in objects {
        writer.object(*part, *number, bytes).expect("nothing fails");
    }
    let (manifest, certificate) = certified(seq);
    files.finish(writer, &manifest, &certificate).expect("nothing fails")
}

fn memory() -> Arc<dyn Storage> {
    Arc::new(Memory::new())
}

/// All items of a file; every intact object is one of `truth`.
fn read(
    storage: &dyn Storage,
    head: &CheckpointHead,
    truth: &Objects,
) -> Result<(Vec<Item>, Summary), StoreError> {
    let mut reader = CheckpointReader::open(storage, &head.path)?;
    assert_eq!(reader.head().certificate, head.certificate);
    let mut items = vec![];
    while let Some(item) = reader.next_item()? {
        if let Item::Object { part, number, bytes } = &item {
            assert_eq!(truth.get(&(*part, *number)), Some(bytes), "invented");
        }
        items.push(item);
    }
    Ok((items, reader.summary()))
}

fn intact(items: &[Item]) -> usize {
    items.iter().filter(|item| matches!(item, Item::Object { .. })).count()
}

#[test]
fn what_is_written_is_read_back() {
    let storage = memory();
    let mut all = objects(1, 300, 20_000);
    all.insert((Part::Service, 7), vec![5; 3 << 20]);
    all.insert((Part::Service, 8), vec![]);
    let head = write(&storage, 128, &all);
    let (items, summary) = read(&*storage, &head, &all).expect("nothing fails");
    assert_eq!(intact(&items), all.len());
    assert!(summary.is_whole(), "{summary:?}");
    assert_eq!(summary.bytes, head.object_bytes);
    assert_eq!((head.service_objects, head.session_objects), (302, 300));
    let opened = open(&storage).expect("opens");
    assert_eq!(opened.found.checkpoints, std::slice::from_ref(&head));
    let files = opened.dir.checkpoints();
    assert_eq!(files.bytes().expect("nothing fails"), head.file_bytes);
    assert_eq!(files.read(&head).expect("is there").head(), &head);
}

#[test]
fn a_flipped_bit_costs_what_it_is_in_and_no_more() {
    let storage = memory();
    let all = objects(2, 12, 300);
    let head = write(&storage, 8, &all);
    let bytes = read_file(&*storage, &head.path);
    let mut random = Random(3);
    for at in 0..bytes.len() {
        if at % 7 != 0 && (at < HEAD || at >= bytes.len() - HEAD) {
            continue;
        }
        let mut rotten = bytes.clone();
        rotten[at] ^= 1 << random.below(8);
        write_file(&*storage, &head.path, &rotten);
        let (items, summary) = read(&*storage, &head, &all).expect("one copy of the head is left");
        assert!(!summary.is_whole(), "byte {at} went unnoticed");
        let in_objects = (HEAD..bytes.len() - HEAD).contains(&at);
        assert_eq!(intact(&items), all.len() - usize::from(in_objects), "byte {at}");
        assert_eq!(summary.corrupt + summary.missing, u64::from(in_objects), "byte {at}");
    }
    write_file(&*storage, &head.path, &bytes);
    assert!(read(&*storage, &head, &all).expect("nothing fails").1.is_whole());
}

#[test]
fn noise_and_cuts_are_survived_and_never_believed() {
    let storage = memory();
    let all = objects(4, 20, 2000);
    let head = write(&storage, 8, &all);
    let bytes = read_file(&*storage, &head.path);
    let mut random = Random(5);
    for _ in 0..300 {
        let mut rotten = bytes.clone();
        let from = HEAD + random.below((bytes.len() - 2 * HEAD) as u64) as usize;
        let to = (from + 1 + random.below(5000) as usize).min(bytes.len() - HEAD);
        match random.below(3) {
            0 => rotten[from..to].fill(0),
            1 => rotten[from..to].iter_mut().for_each(|b| *b = random.below(256) as u8),
            // What was written elsewhere.
            _ => rotten.copy_within(HEAD..HEAD + (to - from), from),
        }
        write_file(&*storage, &head.path, &rotten);
        let (items, summary) = read(&*storage, &head, &all).expect("the heads are intact");
        let lost = all.len() - intact(&items);
        assert_eq!(summary.corrupt + summary.missing, lost as u64);
        assert!(rotten == bytes || !summary.is_whole());
    }
    for cut in [HEAD, 3 * HEAD / 2, 2 * HEAD, bytes.len() - HEAD, bytes.len() - 1] {
        storage.remove(&head.path).expect("is there");
        storage.create(&head.path).and_then(|f| f.write_at(0, &bytes[..cut])).expect("has room");
        match read(&*storage, &head, &all) {
            Ok((_, summary)) => assert!(!summary.is_whole(), "cut at {cut}"),
            Err(StoreError::NoCheckpoint { .. }) => assert!(cut < 2 * HEAD, "cut at {cut}"),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn both_heads_damaged_is_no_checkpoint_and_the_previous_one_is_found() {
    let storage = memory();
    let all = objects(6, 3, 100);
    let old = write(&storage, 8, &all);
    let new = write(&storage, 16, &all);
    let mut bytes = read_file(&*storage, &new.path);
    let foot = bytes.len() - HEAD;
    (bytes[100], bytes[foot + 100]) = (bytes[100] ^ 1, bytes[foot + 100] ^ 1);
    write_file(&*storage, &new.path, &bytes);
    let error = CheckpointReader::open(&*storage, &new.path).expect_err("is damaged");
    assert!(matches!(error, StoreError::NoCheckpoint { .. }), "{error}");
    assert_eq!(open(&storage).expect("opens").found.checkpoints, std::slice::from_ref(&old));
    // The next one keeps the good one, not the newest.
    let next = write(&storage, 24, &all);
    assert_eq!(open(&storage).expect("opens").found.checkpoints, [next, old]);
    assert!(storage.open(&new.path).is_err());
}

#[test]
fn the_previous_one_is_kept_and_older_ones_go() {
    let storage = memory();
    let all = objects(7, 3, 100);
    for seq in [8, 16, 24, 32] {
        write(&storage, seq, &all);
        let found = open(&storage).expect("opens").found.checkpoints;
        let seqs: Vec<u64> = found.iter().map(|head| head.manifest.seq.0).collect();
        assert_eq!(seqs, if seq == 8 { vec![8] } else { vec![seq, seq - 8] });
    }
}

#[test]
fn a_checkpoint_is_whole_or_not_there_wherever_the_machine_stops() {
    let all = objects(8, 40, 100_000);
    let mut operations = 0;
    loop {
        let disk = Volatile::over(memory());
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        for seq in [8, 16] {
            write(&storage, seq, &objects(seq, 2, 50));
        }
        let stop_after = Some(disk.operations() + operations);
        disk.set_faults(Faults { stop_after, ..Faults::default() });
        let files = open(&storage).expect("opens").dir.checkpoints();
        let done = files.write(Seq(24)).and_then(|mut writer| {
            for ((part, number), bytes) in &all {
                writer.object(*part, *number, bytes)?;
            }
            let (manifest, certificate) = certified(24);
            files.finish(writer, &manifest, &certificate)
        });
        let names = (operations % 3) as usize;
        disk.crash_but(names, &mut |_, sector| sector % 2 == 0).expect("nothing fails below");
        let found = open(&storage).expect("opens").found.checkpoints;
        let newest = found.first().expect("the previous one was durable");
        let seq = newest.manifest.seq.0;
        assert!(found.len() >= 2, "after {operations}");
        assert!(seq == 24 || done.is_err(), "it was said to be durable");
        if seq == 24 {
            let (_, summary) = read(&*storage, newest, &all).expect("nothing fails");
            assert!(summary.is_whole(), "after {operations}");
        }
        if done.is_ok() {
            assert!(operations > 6, "hardly anything was written: {operations}");
            return;
        }
        operations += 1;
    }
}

#[test]
fn a_failed_sync_ends_the_writer_and_leaves_the_previous_one() {
    // Of the objects, of the end, and of the name.
    for sync in 1..=3 {
        let disk = Volatile::over(memory());
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        write(&storage, 8, &objects(8, 2, 50));
        disk.set_faults(Faults { fail_sync: Some(disk.syncs() + sync), ..Faults::default() });
        let files = open(&storage).expect("opens").dir.checkpoints();
        let mut writer = files.write(Seq(16)).expect("nothing fails");
        let big = vec![1; 9 << 20];
        let (manifest, certificate) = certified(16);
        let first = writer.object(Part::Service, 1, &big);
        assert_eq!(first.is_err(), sync == 1);
        if sync == 1 {
            let again = writer.object(Part::Service, 2, b"").expect_err("is final").to_string();
            assert_eq!(again, first.expect_err("has failed").to_string());
        }
        files.finish(writer, &manifest, &certificate).expect_err("has failed");
        let found = open(&storage).expect("opens").found.checkpoints;
        assert_eq!(found.len(), if sync == 3 { 2 } else { 1 });
        assert_eq!(found.last().map(|head| head.manifest.seq), Some(Seq(8)));
        let names = storage.list(&dir()).expect("nothing fails");
        assert!(names.iter().all(|name| !name.ends_with(".new")), "{names:?}");
    }
}

#[test]
fn what_contradicts_itself_is_not_written_and_another_group_s_is_refused() {
    let storage = memory();
    let path = PathBuf::from("/elsewhere/snapshot");
    let (manifest, certificate) = certified(8);
    let wrong = StableCheckpoint { digest: Digest([1; 32]), ..certificate.clone() };
    let create = |group| CheckpointWriter::create(Arc::clone(&storage), &path, group);
    let finished = create(IDENTITY.group).expect("is new").finish(&manifest, &wrong);
    assert!(matches!(finished, Err(StoreError::BadCheckpoint(_))));
    assert!(storage.list(Path::new("/elsewhere")).expect("nothing fails").is_empty());

    let group = GroupId([9; 32]);
    let digest = manifest.digest(group);
    let certificate = StableCheckpoint { digest, ..certificate };
    let head = create(group).expect("is new").finish(&manifest, &certificate);
    let head = head.expect("nothing fails");
    assert_eq!(head.group, group);
    storage.rename(&path, &dir().join("checkpoint-0000000000000008")).expect("is there");
    let opened = Dir::open(&dir(), IDENTITY, Arc::clone(&storage));
    assert!(matches!(opened, Err(StoreError::OtherGroup { .. })));
}

#[test]
fn a_snapshot_is_a_file_anywhere() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("snapshot.stylite");
    let all = objects(9, 30, 5000);
    let real: Arc<dyn Storage> = Arc::new(Real);
    let mut writer = CheckpointWriter::create(real, &path, IDENTITY.group).expect("is new");
    for ((part, number), bytes) in &all {
        writer.object(*part, *number, bytes).expect("nothing fails");
    }
    let (manifest, certificate) = certified(8);
    let head = writer.finish(&manifest, &certificate).expect("nothing fails");
    let (items, summary) = read(&Real, &head, &all).expect("nothing fails");
    assert!(summary.is_whole() && intact(&items) == all.len());
    let missing = CheckpointReader::open(&Real, &place.path().join("none"));
    assert!(matches!(missing, Err(StoreError::Io { .. })));
}

#[test]
fn checkpoints_are_due_with_the_growth_of_the_log() {
    assert!(!checkpoint_due((64 << 20) - 1, 0));
    assert!(checkpoint_due(64 << 20, 0));
    assert!(!checkpoint_due(64 << 20, 1 << 30));
    assert!(checkpoint_due(1 << 30, 1 << 30));
}
