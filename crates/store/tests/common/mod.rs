//! A replica's use of its log in small: a script of appends, commits and trims, what it was
//! told was durable, and the check that it still is.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{GroupId, Incarnation, ReplicaId, Seq};
use store::{
    Dir, Durability, Found, Identity, Log, LogOptions, LogRecord, Opened, Storage, StoreError,
    Verdict, Voice, beginning,
};

pub const IDENTITY: Identity = Identity { group: GroupId([7; 32]), replica: ReplicaId(2) };
pub const SMALL: LogOptions = LogOptions { segment_bytes: 4 << 10 };

pub fn dir() -> PathBuf {
    PathBuf::from("/replica")
}

/// SplitMix64: enough to vary sizes.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a replica remembers of its own saying, outside of its disk.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Ordinary records are numbered from 1: the last one that was appended.
    pub appended: u64,
    /// The last one that a commit with `sync` returned for.
    pub acked: u64,
    /// Records up to this one may be gone.
    pub trimmed: u64,
    /// The last version of the carried record that was appended.
    pub version: u64,
    /// The last one that a commit with `sync` returned for.
    pub version_acked: u64,
    /// The mark of `init` was taken away.
    pub spoke: bool,
    pub incarnation: u64,
}

/// The bytes of an ordinary record: anything, made from its number.
pub fn record(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let len = random.below(if number.is_multiple_of(7) { 3000 } else { 400 }) as usize;
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((0..len).map(|_| random.below(256) as u8));
    bytes
}

fn carried(version: u64) -> Vec<u8> {
    let mut bytes = u64::MAX.to_le_bytes().to_vec();
    bytes.extend(version.to_le_bytes());
    bytes
}

pub fn open(storage: &Arc<dyn Storage>) -> Result<Opened, StoreError> {
    Dir::open(&dir(), IDENTITY, Arc::clone(storage))
}

impl Oracle {
    /// Starts, as a replica of durability `sync` does. What was acknowledged must be there.
    pub fn start(&mut self, storage: &Arc<dyn Storage>) -> Result<(Dir, Log), Failure> {
        let Opened { mut dir, found } = open(storage)?;
        self.check(&found)?;
        let begins = beginning(&found, !self.spoke, false)
            .map_err(|refusal| Failure::Wrong(refusal.to_string()))?;
        if begins.voice != Voice::Whole {
            return Err(Failure::Wrong(begins.why));
        }
        self.incarnation = found.incarnation(Incarnation(self.incarnation + 1)).0;
        let incarnation = Incarnation(self.incarnation);
        let log = dir.begin(&begins, incarnation, Durability::Sync, SMALL)?;
        let mut log = log.expect("sync has a log");
        let version = versions(&found.log.records).max().unwrap_or(0);
        (self.version, self.version_acked) = (version, version);
        if version > 0 {
            log.carry([&carried(version)[..]])?;
        }
        self.spoke = true;
        // What is found is durable now, whatever was known of it before.
        let last = numbers(&found.log.records).last().copied();
        self.acked = last.unwrap_or(self.acked).max(self.acked);
        self.appended = self.acked;
        Ok((dir, log))
    }

    /// One turn of the log writer.
    pub fn turn(&mut self, log: &mut Log, random: &mut Random) -> Result<(), StoreError> {
        if random.below(4) == 0 {
            self.version += 1;
            let bytes = carried(self.version);
            log.append(&bytes, Seq(0))?;
            log.carry([&bytes[..]])?;
        }
        for _ in 0..=random.below(3) {
            self.appended += 1;
            log.append(&record(self.appended), Seq(self.appended))?;
        }
        let sync = random.below(5) != 0;
        log.commit(sync)?;
        if sync {
            (self.acked, self.version_acked) = (self.appended, self.version);
        }
        if random.below(6) == 0 {
            self.trimmed = self.trimmed.max(self.acked.saturating_sub(random.below(8)));
            log.trim(Seq(self.trimmed))?;
        }
        Ok(())
    }

    /// Whether everything that was acknowledged was found, in order, and nothing else.
    pub fn check(&self, found: &Found) -> Result<(), Failure> {
        let wrong = |what: String| Err(Failure::Wrong(what));
        let records = &found.log.records;
        let numbers = numbers(records);
        for pair in numbers.windows(2) {
            if pair[0] + 1 != pair[1] {
                return wrong(format!("{} is followed by {}", pair[0], pair[1]));
            }
        }
        for found in records {
            let number = number_of(found);
            let right = match number {
                u64::MAX => found.bytes.len() == 16 && version_of(found) <= self.version,
                _ => found.bytes == record(number) && found.highest == Seq(number),
            };
            if !right {
                return wrong(format!("record {number} was never appended"));
            }
        }
        let first = numbers.first().copied().unwrap_or(self.trimmed + 1);
        let last = numbers.last().copied().unwrap_or(self.trimmed);
        if first > self.trimmed + 1 || last < self.acked || last > self.appended {
            let range = format!("{first}..={last}, trimmed up to {}", self.trimmed);
            return wrong(format!("{range}, acknowledged up to {}", self.acked));
        }
        let version = versions(records).max().unwrap_or(0);
        if version < self.version_acked {
            return wrong(format!("carried {version}, acknowledged {}", self.version_acked));
        }
        if let Verdict::Doubt { .. } = found.log.verdict {
            return wrong(found.log.verdict.to_string());
        }
        Ok(())
    }
}

fn number_of(record: &LogRecord) -> u64 {
    u64::from_le_bytes(*record.bytes.first_chunk().expect("every record has its number"))
}

fn versions(records: &[LogRecord]) -> impl Iterator<Item = u64> {
    records.iter().filter(|record| number_of(record) == u64::MAX).map(version_of)
}

fn version_of(record: &LogRecord) -> u64 {
    u64::from_le_bytes(*record.bytes.last_chunk().expect("every record has its number"))
}

fn numbers(records: &[LogRecord]) -> Vec<u64> {
    records.iter().map(number_of).filter(|number| *number != u64::MAX).collect()
}

/// Why a script did not go on.
#[derive(Debug)]
pub enum Failure {
    /// The storage failed, as it was told to.
    Storage(StoreError),
    /// Something acknowledged is gone, or something was invented.
    Wrong(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Storage(error)
    }
}

/// The files of the log, in order.
pub fn segments(storage: &dyn Storage) -> Vec<PathBuf> {
    let names = storage.list(&dir()).expect("the storage does not fail");
    names.iter().filter(|name| name.starts_with("log-")).map(|name| dir().join(name)).collect()
}

pub fn read_file(storage: &dyn Storage, path: &Path) -> Vec<u8> {
    let file = storage.open(path).expect("is there");
    let mut bytes = vec![0; file.len().expect("is there") as usize];
    file.read_at(0, &mut bytes).expect("is there");
    bytes
}

pub fn write_file(storage: &dyn Storage, path: &Path, bytes: &[u8]) {
    storage.open(path).and_then(|file| file.write_at(0, bytes)).expect("is writable");
}
