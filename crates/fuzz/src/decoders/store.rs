//! What a replica reads from its own disk, which may have rotted.
//!
//! Checksums stop nearly all changes. So an input can say which sums are to be made right after
//! the change (its first byte), as a bug of our own that wrote nonsense would.

use std::path::Path;
use std::sync::Arc;

use base::transfer::{Manifest, Part};
use base::{AgreedTime, Digest, Incarnation, ReplicaId, Seq, StableCheckpoint};
use store::{
    CheckpointReader, CheckpointWriter, Dir, Durability, Identity, Item, LogOptions, Memory,
    Storage, beginning,
};

use crate::samples::{self, GROUP};
use crate::target::{Outcome, Run};

const DIR: &str = "replica";
const IDENTITY: Identity = Identity { group: GROUP, replica: ReplicaId(1) };
const BLOCK_BYTES: usize = 512;

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DIR).join(name)
}

fn content(storage: &dyn Storage, name: &str) -> Vec<u8> {
    let file = storage.open(&path(name)).expect("was written");
    let mut bytes = vec![0; usize::try_from(file.len().expect("is in memory")).expect("small")];
    file.read_at(0, &mut bytes).expect("is in memory");
    bytes
}

fn holding(files: &[(&str, &[u8])]) -> Arc<Memory> {
    let storage = Memory::new();
    for (name, bytes) in files {
        let file = storage.create(&path(name)).expect("is new");
        file.write_at(0, bytes).expect("is in memory");
    }
    Arc::new(storage)
}

/// The records of every commit.
fn records() -> Vec<Vec<u8>> {
    let some = &samples::records()[..3];
    super::encoded(some, proto::Record::encode)
}

/// A directory after a life with a few commits.
fn lived() -> Arc<Memory> {
    let storage = Arc::new(Memory::new());
    let opened = Dir::open(Path::new(DIR), IDENTITY, Arc::clone(&storage) as Arc<dyn Storage>);
    let mut opened = opened.expect("is empty");
    let first = beginning(&opened.found, true, false).expect("is the first start");
    let options = LogOptions { segment_bytes: 8 << 10 };
    let log = opened.dir.begin(&first, Incarnation(1), Durability::Sync, options);
    let mut log = log.expect("is in memory").expect("keeps a log");
    for seq in 1..=6u64 {
        for bytes in &records() {
            log.append(bytes, Seq(seq)).expect("is in memory");
        }
        log.commit(true).expect("is in memory");
    }
    storage
}

/// `Dir::open` over one segment of the log: `scan` and `block`.
pub fn log() -> Run {
    let life = content(&*lived(), "life-a");
    let written = records();
    Box::new(move |bytes| {
        let Some((mend, segment)) = bytes.split_first() else { return Outcome::of("empty") };
        let mut segment = segment.to_vec();
        if mend & 1 == 1 {
            let seed = crc32c_seed();
            for (index, block) in segment.chunks_exact_mut(BLOCK_BYTES).enumerate() {
                reseal(block, if index == 0 { 0 } else { seed });
            }
        }
        let storage = holding(&[("life-a", &life), ("log-00000001", &segment)]);
        let opened = Dir::open(Path::new(DIR), IDENTITY, storage);
        let Ok(opened) = opened else { return Outcome::of("refused") };
        let found = &opened.found.log;
        if mend & 1 == 0 {
            let genuine = |bytes| written.iter().any(|record| record == bytes);
            let all = found.records.iter().all(|record| genuine(&record.bytes));
            assert!(all, "rot was taken for a record");
        }
        let verdict = format!("{:?}", found.verdict);
        let verdict: String = verdict.chars().filter(|c| !c.is_ascii_digit()).collect();
        Outcome::of((verdict, found.records.len().checked_ilog2()))
    })
}

/// The segment of a life.
#[must_use]
pub fn log_seeds() -> Vec<Vec<u8>> {
    let segment = content(&*lived(), "log-00000001");
    [0, 1].map(|mend| [vec![mend], segment.clone()].concat()).into()
}

fn crc32c_seed() -> u32 {
    let sum = crc32c::crc32c(&GROUP.0);
    crc32c::crc32c_append(sum, &IDENTITY.replica.0.to_le_bytes())
}

fn reseal(block: &mut [u8], seed: u32) {
    if block.iter().any(|byte| *byte != 0) {
        let sum = crc32c::crc32c_append(seed, &block[4..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
    }
}

/// `Dir::open` over a life file.
pub fn life() -> Run {
    Box::new(|bytes| {
        let Some((mend, file)) = bytes.split_first() else { return Outcome::of("empty") };
        let mut file = file.to_vec();
        if mend & 1 == 1 && file.len() > 4 {
            reseal(&mut file, 0);
        }
        let storage = holding(&[("life-a", &file)]);
        match Dir::open(Path::new(DIR), IDENTITY, storage) {
            Err(error) => Outcome::of(std::mem::discriminant(&error)),
            Ok(opened) => {
                let begins = beginning(&opened.found, false, false).map(|b| b.why);
                Outcome::of((std::mem::discriminant(&opened.found.life), begins.is_ok()))
            }
        }
    })
}

/// Life files.
#[must_use]
pub fn life_seeds() -> Vec<Vec<u8>> {
    let file = content(&*lived(), "life-a");
    [0, 1].map(|mend| [vec![mend], file.clone()].concat()).into()
}

const CHECKPOINT: &str = "checkpoint-0000000000000008";
const HEAD_BYTES: usize = 8 << 10;
const SECTION_BYTES: usize = 32;

/// `CheckpointReader`: heads, objects, and what lies between them.
pub fn checkpoint() -> Run {
    Box::new(|bytes| {
        let Some((mend, file)) = bytes.split_first() else { return Outcome::of("empty") };
        let mut file = file.to_vec();
        if mend & 1 == 1 && file.len() >= 2 * HEAD_BYTES {
            reseal(&mut file[..HEAD_BYTES], 0);
            let copy = file[..HEAD_BYTES].to_vec();
            let end = file.len() - HEAD_BYTES;
            file[end..].copy_from_slice(&copy);
        }
        if mend & 2 == 2 && file.len() >= 2 * HEAD_BYTES + SECTION_BYTES {
            let section = &mut file[HEAD_BYTES..][..SECTION_BYTES];
            let seed = crc32c::crc32c(&(HEAD_BYTES as u64).to_le_bytes());
            reseal(section, seed);
        }
        let storage = holding(&[(CHECKPOINT, &file)]);
        let mut reader = match CheckpointReader::open(&*storage, &path(CHECKPOINT)) {
            Ok(reader) => reader,
            Err(error) => return Outcome::of(std::mem::discriminant(&error)),
        };
        let (mut kinds, mut items) = (0u8, 0);
        while let Some(item) = reader.next_item().expect("damage is an item") {
            items += 1;
            assert!(items <= file.len(), "every item takes bytes");
            kinds |= match item {
                Item::Object { bytes, .. } => {
                    assert!(bytes.len() <= file.len());
                    1
                }
                Item::Corrupt { .. } => 2,
                Item::Lost { .. } => 4,
            };
        }
        Outcome::of((kinds, reader.ends_intact(), reader.summary().is_whole()))
    })
}

/// A small checkpoint file.
#[must_use]
pub fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let storage = Arc::new(Memory::new());
    let shared = Arc::clone(&storage) as Arc<dyn Storage>;
    let writer = CheckpointWriter::create(shared, &path(CHECKPOINT), GROUP);
    let mut writer = writer.expect("is in memory");
    writer.object(Part::Service, 0, b"an object").expect("is in memory");
    writer.object(Part::Service, 1, &[7; 300]).expect("is in memory");
    writer.object(Part::Sessions, 5, b"").expect("is in memory");
    let manifest = Manifest {
        seq: Seq(8),
        pillars: 2,
        time: AgreedTime(1),
        service: Digest([1; 32]),
        sessions: Digest([2; 32]),
    };
    let digest = manifest.digest(GROUP);
    let stable = StableCheckpoint { digest, ..samples::stable(8) };
    writer.finish(&manifest, &stable).expect("the certificate is the manifest's");
    let file = content(&*storage, CHECKPOINT);
    [0, 1, 2, 3].map(|mend| [vec![mend], file.clone()].concat()).into()
}
