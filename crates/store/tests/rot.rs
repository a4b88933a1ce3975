//! Bits rot, sectors are blanked, writes go to the wrong place: what is read back is what was
//! written, or the log is in doubt. Never anything else.

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use base::{GroupId, Incarnation, ReplicaId, Seq};
use common::{IDENTITY, Oracle, Random, SMALL, dir, read_file, record, segments, write_file};
use store::{
    Beginning, Dir, Durability, FoundLog, Identity, Log, LogRecord, Memory, Opened, Storage,
    Verdict, Voice,
};

const BLOCK: usize = 512;

/// A log of several segments, its records, and which of them are in the last commit.
fn written(identity: Identity) -> (Arc<dyn Storage>, Vec<LogRecord>) {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let (_dir, mut log) = begin(&storage, identity);
    let own = u64::from(identity.replica.0) * 1000 + u64::from(identity.group.0[0]) * 100;
    for number in 1..=14 {
        log.append(&record(own + number), Seq(number)).expect("is small");
        log.commit(true).expect("nothing fails");
    }
    log.append(&vec![9; 1500], Seq(15)).expect("is small");
    log.commit(true).expect("nothing fails");
    drop((_dir, log));
    let found = scan(&storage, identity);
    assert_eq!((found.verdict, found.records.len()), (Verdict::Clean, 15));
    assert!(segments(&*storage).len() > 2);
    (storage, found.records)
}

fn begin(storage: &Arc<dyn Storage>, identity: Identity) -> (Dir, Log) {
    let opened = Dir::open(&dir(), identity, Arc::clone(storage)).expect("opens");
    let Opened { dir: mut held, found } = opened;
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    let incarnation = found.incarnation(Incarnation(1));
    let log = held.begin(&whole, incarnation, Durability::Sync, SMALL).expect("nothing fails");
    (held, log.expect("sync has a log"))
}

fn scan(storage: &Arc<dyn Storage>, identity: Identity) -> FoundLog {
    Dir::open(&dir(), identity, Arc::clone(storage)).expect("opens").found.log
}

/// In doubt with a prefix of what was written, or exactly what was written.
fn expect_doubt_or_truth(found: &FoundLog, truth: &[LogRecord], what: &str) -> bool {
    assert!(truth.starts_with(&found.records), "{what}: invented");
    let doubt = matches!(found.verdict, Verdict::Doubt { .. });
    assert!(doubt || found.records.len() == truth.len(), "{what}: {:?}", found.verdict);
    doubt
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let (storage, truth) = written(IDENTITY);
    let mut random = Random(1);
    let (mut doubts, mut tried) = (0, 0);
    let files = segments(&*storage);
    for path in &files {
        let intact = read_file(&*storage, path);
        for block in 0..intact.len() / BLOCK {
            for bit in (0..48).chain((0..12).map(|_| random.below(4096) as usize)) {
                let mut bytes = intact.clone();
                bytes[block * BLOCK + bit / 8] ^= 1 << (bit % 8);
                write_file(&*storage, path, &bytes);
                let what = format!("{} block {block} bit {bit}", path.display());
                let doubt = expect_doubt_or_truth(&scan(&storage, IDENTITY), &truth, &what);
                // What is behind the last commit of a segment that was left counts for nothing.
                let counts = path == files.last().expect("there are some") || block < 2;
                assert!(doubt || !counts, "{what}: went unnoticed");
                (doubts, tried) = (doubts + u32::from(doubt), tried + 1);
            }
        }
        write_file(&*storage, path, &intact);
    }
    assert!(doubts * 10 > tried * 8, "{doubts} of {tried}");
}

#[test]
fn many_flipped_bits_and_noise_are_found() {
    let (storage, truth) = written(IDENTITY);
    let mut random = Random(2);
    for path in segments(&*storage) {
        let intact = read_file(&*storage, &path);
        for _ in 0..300 {
            let mut bytes = intact.clone();
            let from = random.below(bytes.len() as u64) as usize;
            let to = (from + 1 + random.below(1500) as usize).min(bytes.len());
            bytes[from..to].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
            write_file(&*storage, &path, &bytes);
            let what = format!("{} bytes {from}..{to}", path.display());
            expect_doubt_or_truth(&scan(&storage, IDENTITY), &truth, &what);
        }
        write_file(&*storage, &path, &intact);
    }
}

#[test]
fn a_blanked_sector_is_found_unless_it_may_be_torn() {
    let (storage, truth) = written(IDENTITY);
    let files = segments(&*storage);
    for path in &files {
        let intact = read_file(&*storage, path);
        for block in 0..intact.len() / BLOCK {
            let mut bytes = intact.clone();
            bytes[block * BLOCK..(block + 1) * BLOCK].fill(0);
            write_file(&*storage, path, &bytes);
            let found = scan(&storage, IDENTITY);
            let what = format!("{} block {block}", path.display());
            if let Verdict::TornTail { .. } = found.verdict {
                // Only the last commit, whose durability no later block attests.
                assert_eq!(found.records, truth[..truth.len() - 1], "{what}");
            } else {
                expect_doubt_or_truth(&found, &truth, &what);
            }
        }
        write_file(&*storage, path, &intact);
    }
}

#[test]
fn a_blanked_sector_before_the_last_commit_is_rot() {
    let storage: Arc<dyn Storage> = Arc::new(Memory::new());
    let (held, mut log) = begin(&storage, IDENTITY);
    for number in 1..=5 {
        log.append(b"small", Seq(number)).expect("is small");
        log.commit(true).expect("nothing fails");
    }
    drop((held, log));
    let path = segments(&*storage).remove(0);
    let intact = read_file(&*storage, &path);
    for block in 1..=5 {
        let mut bytes = intact.clone();
        bytes[block * BLOCK..(block + 1) * BLOCK].fill(0);
        write_file(&*storage, &path, &bytes);
        let found = scan(&storage, IDENTITY);
        let doubt = matches!(found.verdict, Verdict::Doubt { .. });
        assert_eq!(doubt, block < 5, "block {block}: {:?}", found.verdict);
    }
}

#[test]
fn a_misdirected_block_is_found() {
    let (storage, truth) = written(IDENTITY);
    let (other, _) = written(Identity { replica: ReplicaId(3), ..IDENTITY });
    let (foreign, _) = written(Identity { group: GroupId([8; 32]), ..IDENTITY });
    let blocks = |storage: &Arc<dyn Storage>| -> Vec<(PathBuf, usize, Vec<u8>)> {
        let file = |path: PathBuf| {
            let bytes = read_file(&**storage, &path);
            let of = |(i, b): (usize, &[u8])| (path.clone(), i, b.to_vec());
            bytes.chunks(BLOCK).enumerate().map(of).collect::<Vec<_>>()
        };
        segments(&**storage).into_iter().flat_map(file).collect()
    };
    let own = blocks(&storage);
    let strangers: Vec<_> = [&other, &foreign].into_iter().flat_map(blocks).collect();
    let blank = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    for (path, index, intact) in &own {
        for (from, at, moved) in own.iter().chain(&strangers) {
            // The head of a stranger's log is refused, which `dir.rs` tests.
            if moved == intact || blank(moved) || (*index == 0 && *at == 0) {
                continue;
            }
            let offset = (index * BLOCK) as u64;
            let file = storage.open(path).expect("is there");
            file.write_at(offset, moved).expect("is writable");
            let what = format!("{} {at} over {} {index}", from.display(), path.display());
            expect_doubt_or_truth(&scan(&storage, IDENTITY), &truth, &what);
            file.write_at(offset, intact).expect("is writable");
        }
    }
}

/// Of a log of several segments, the first or the last is gone.
#[test]
fn a_segment_that_is_missing_at_either_end_is_found() {
    for trimmed in [false, true] {
        let (storage, _) = written(IDENTITY);
        if trimmed {
            let (held, mut log) = begin(&storage, IDENTITY);
            log.trim(Seq(5)).expect("nothing fails");
            drop((held, log));
        }
        let truth = scan(&storage, IDENTITY).records;
        let files = segments(&*storage);
        assert!(files.len() > 2);
        for path in [files.first(), files.last()].map(|path| path.expect("there are some")) {
            let intact = read_file(&*storage, path);
            storage.remove(path).expect("is there");
            let found = scan(&storage, IDENTITY).verdict;
            assert!(matches!(&found, Verdict::Doubt { file, .. } if file == path), "{found:?}");
            storage.create(path).expect("is gone").write_at(0, &intact).expect("has room");
        }
        let found = scan(&storage, IDENTITY);
        assert_eq!((found.verdict, found.records), (Verdict::Clean, truth));
    }
}

#[test]
fn a_missing_cut_off_or_exchanged_segment_is_found() {
    let (storage, truth) = written(IDENTITY);
    let files = segments(&*storage);
    let middle = &files[1];
    let intact = read_file(&*storage, middle);
    let doubt = |what: &str| {
        assert!(expect_doubt_or_truth(&scan(&storage, IDENTITY), &truth, what), "{what}");
    };
    storage.remove(middle).expect("is there");
    doubt("missing");
    for len in [0, 1, 512, 513, 1024, 1536] {
        storage.create(middle).expect("is gone").write_at(0, &intact[..len]).expect("has room");
        doubt(&format!("cut off after {len}"));
        storage.remove(middle).expect("is there");
    }
    let first = read_file(&*storage, &files[0]);
    storage.create(middle).expect("is gone").write_at(0, &first).expect("has room");
    doubt("exchanged");
    storage.remove(middle).expect("is there");
    storage.create(middle).expect("is gone").write_at(0, &intact).expect("has room");
    assert_eq!(scan(&storage, IDENTITY).records, truth);
}

#[test]
fn a_log_in_doubt_is_not_continued() {
    let (storage, _) = written(IDENTITY);
    let path = segments(&*storage).remove(0);
    let mut bytes = read_file(&*storage, &path);
    bytes[700] ^= 1;
    write_file(&*storage, &path, &bytes);
    let Opened { dir: mut held, found } =
        Dir::open(&dir(), IDENTITY, Arc::clone(&storage)).expect("opens");
    let Verdict::Doubt { file, offset, .. } = &found.log.verdict else { panic!("no doubt") };
    assert_eq!((file, *offset), (&path, 512));
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    let begun = held.begin(&whole, Incarnation(9), Durability::Sync, SMALL);
    assert!(matches!(begun, Err(store::StoreError::Doubtful(_))), "{begun:?}");
    assert_eq!(held.life().map(|life| life.incarnation), Some(Incarnation(1)));
    drop(held);
    // Forgetful it begins, with an empty log that is trusted as soon as it has recovered.
    let mut held = Dir::open(&dir(), IDENTITY, Arc::clone(&storage)).expect("opens").dir;
    let forgetful = Beginning { voice: Voice::Forgetful, why: String::new() };
    let begun = held.begin(&forgetful, Incarnation(9), Durability::Sync, SMALL);
    let mut log = begun.expect("nothing fails").expect("sync has a log");
    log.append(&record(1), Seq(1)).expect("is small");
    log.commit(true).expect("nothing fails");
    held.recovered().expect("nothing fails");
    drop((held, log));
    let found = scan(&storage, IDENTITY);
    assert_eq!((found.verdict, found.records.len()), (Verdict::Clean, 1));
    let mut oracle = Oracle { appended: 1, acked: 1, incarnation: 9, ..Oracle::default() };
    oracle.spoke = true;
    oracle.start(&storage).expect("is whole again");
}
