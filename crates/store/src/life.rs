//! The life file: how the replica's last life was lived and how it ended.
//!
//! Two copies, `life-a` and `life-b`, each of one sector with its own checksum. A new state is
//! written to a file beside, made durable and renamed over the first copy, then likewise over
//! the second: at every moment at least one copy is whole, and a copy that does not check is
//! rot, never a torn write. What a copy says that is one state ahead of the other was not yet
//! reported as durable, so either of the two is a correct answer.
//!
//! It also names the ends of the log, since nothing in a log without its first or last segments
//! says that they are missing. What it says of them is true before and after each change: a segment
//! that was begun is named before anything in it counts, one that goes is not named any more then.
//!
//! Not here: what follows from it (`begin`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base::{GroupId, Incarnation, Reader, ReplicaId, Seq, Writer};

use crate::error::{StoreError, io};
use crate::storage::{SECTOR_BYTES, Storage};
use crate::{FORMAT_VERSION, Identity};

/// How much of a promise is on disk before it leaves (design §3.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Nothing: whoever restarts has forgotten its votes.
    Memory,
    /// It is handed to the operating system: it survives the process, not the machine.
    Async,
    /// It is on the disk.
    Sync,
}

impl Durability {
    /// Its name, as on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Async => "async",
            Durability::Sync => "sync",
        }
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// The operating system's name for the time since the machine was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootId(
    /// 36 characters; all zero when it is not known.
    pub [u8; 36],
);

impl BootId {
    /// Not known.
    pub const UNKNOWN: BootId = BootId([0; 36]);

    /// This machine's, or the unknown one where the system does not tell.
    #[must_use]
    pub fn current() -> BootId {
        let text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.first_chunk::<36>().map_or(BootId::UNKNOWN, |id| BootId(*id))
    }

    /// Whether both are known and the same: nothing that was handed to the operating system in
    /// one of them is lost in the other.
    #[must_use]
    pub fn is_same(&self, other: &BootId) -> bool {
        self == other && *self != BootId::UNKNOWN
    }
}

/// One life of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// Its incarnation: strictly above those of all lives before.
    pub incarnation: Incarnation,
    /// How promises were kept.
    pub durability: Durability,
    /// The machine's boot in which it was begun.
    pub boot: BootId,
    /// It ended in order, with everything on the disk.
    pub clean: bool,
    /// It began forgetful, and has not recovered yet.
    pub recovering: bool,
    /// Records about numbers up to this one may have been cut off the log: it goes on from a
    /// checkpoint at or above it, and from nothing else.
    pub cut: Seq,
    /// The log begins with this segment, and older ones that are there do not count any more; 0
    /// when it is not known.
    pub first: u32,
    /// The log has this segment, and perhaps newer ones; 0 when it is not known.
    pub last: u32,
}

/// The life file of a life that goes on: the directory and the log both write to it.
#[derive(Debug)]
pub(crate) struct LifeFile {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    identity: Identity,
    counter: u64,
    /// The last life.
    pub life: Option<Life>,
}

/// A life file that is shared.
pub(crate) type SharedLife = Arc<Mutex<LifeFile>>;

impl LifeFile {
    /// The one in `dir`, in which `newest` was found.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        dir: PathBuf,
        identity: Identity,
        newest: Option<(u64, Life)>,
    ) -> LifeFile {
        let (counter, life) = newest.map_or((0, None), |(c, life)| (c, Some(life)));
        LifeFile { storage, dir, identity, counter, life }
    }

    /// Makes a change of the last life durable, if there was one.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Life)) -> Result<(), StoreError> {
        let Some(mut life) = self.life else { return Ok(()) };
        change(&mut life);
        self.write(life)
    }

    /// Makes a life durable.
    pub(crate) fn write(&mut self, life: Life) -> Result<(), StoreError> {
        write(&*self.storage, &self.dir, &self.identity, self.counter + 1, &life)?;
        self.counter += 1;
        self.life = Some(life);
        Ok(())
    }
}

const NAMES: [&str; 2] = ["life-a", "life-b"];
const NEW: &str = "life.new";
const MAGIC: [u8; 4] = *b"STYF";

/// The copies that were read.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// The newest good one, with its counter.
    pub newest: Option<(u64, Life)>,
    /// Copies that are there and do not check, or cannot be read.
    pub damaged: usize,
}

/// Reads both copies.
pub(crate) fn read(
    storage: &dyn Storage,
    dir: &Path,
    identity: &Identity,
) -> Result<Copies, StoreError> {
    let mut copies = Copies::default();
    let names = storage.list(dir).map_err(|e| io(dir, "list the directory", e))?;
    for path in NAMES.iter().filter(|name| names.iter().any(|n| n == *name)).map(|n| dir.join(n)) {
        let mut bytes = [0; SECTOR_BYTES + 1];
        let file = storage.open(&path).map_err(|e| io(&path, "open the life file", e))?;
        let count = match file.read_at(0, &mut bytes) {
            Ok(count) => count,
            // A sector that cannot be read is what the other copy is for.
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot read the life file");
                copies.damaged += 1;
                continue;
            }
        };
        match decode(&bytes[..count], &path, identity)? {
            None => copies.damaged += 1,
            Some(copy) if copies.newest.is_none_or(|(counter, _)| counter < copy.0) => {
                copies.newest = Some(copy);
            }
            Some(_) => {}
        }
    }
    Ok(copies)
}

/// Writes both copies, durably, one after the other.
fn write(
    storage: &dyn Storage,
    dir: &Path,
    identity: &Identity,
    counter: u64,
    life: &Life,
) -> Result<(), StoreError> {
    let bytes = encode(identity, counter, life);
    for name in NAMES {
        let (new, path) = (dir.join(NEW), dir.join(name));
        let file = storage.create(&new).map_err(|e| io(&new, "create the life file", e))?;
        file.write_at(0, &bytes).map_err(|e| io(&new, "write the life file", e))?;
        file.sync().map_err(|e| io(&new, "make the life file durable", e))?;
        storage.rename(&new, &path).map_err(|e| io(&path, "replace the life file", e))?;
        storage.sync_dir(dir).map_err(|e| io(dir, "make the directory durable", e))?;
    }
    Ok(())
}

/// Whether the name is one that a write left behind.
pub(crate) fn is_leftover(name: &str) -> bool {
    name == NEW
}

fn encode(identity: &Identity, counter: u64, life: &Life) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SECTOR_BYTES);
    let mut w = Writer::new(&mut bytes);
    w.u32(0).bytes(&MAGIC).u16(FORMAT_VERSION).u16(identity.replica.0);
    w.bytes(&identity.group.0).u64(counter).u64(life.incarnation.0);
    w.u8(match life.durability {
        Durability::Memory => 0,
        Durability::Async => 1,
        Durability::Sync => 2,
    });
    w.u8(u8::from(life.clean)).u8(u8::from(life.recovering)).bytes(&life.boot.0);
    w.u64(life.cut.0).u32(life.first).u32(life.last);
    bytes.resize(SECTOR_BYTES, 0);
    let sum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The life of one copy; none when its bytes are damaged.
fn decode(
    bytes: &[u8],
    path: &Path,
    identity: &Identity,
) -> Result<Option<(u64, Life)>, StoreError> {
    let mut r = Reader::new(bytes);
    let sum = r.u32("sum").ok();
    if bytes.len() != SECTOR_BYTES || sum != Some(crc32c::crc32c(&bytes[4..])) {
        return Ok(None);
    }
    let mut head = || Some((r.array::<4>("magic").ok()?, r.u16("version").ok()?));
    let Some((MAGIC, version)) = head() else { return Ok(None) };
    check_version(path, version)?;
    let mut owner = || Some((r.u16("replica").ok()?, r.array("group").ok()?));
    let Some((replica, group)) = owner() else { return Ok(None) };
    check_owner(path, identity, GroupId(group), ReplicaId(replica))?;
    let mut rest = || {
        let (counter, incarnation) = (r.u64("counter").ok()?, r.u64("incarnation").ok()?);
        let durability = match r.u8("durability").ok()? {
            0 => Durability::Memory,
            1 => Durability::Async,
            2 => Durability::Sync,
            _ => return None,
        };
        let (clean, recovering) = (r.u8("clean").ok()? == 1, r.u8("recovering").ok()? != 0);
        let boot = BootId(r.array("boot").ok()?);
        let (incarnation, cut) = (Incarnation(incarnation), Seq(r.u64("cut").ok()?));
        let (first, last) = (r.u32("first").ok()?, r.u32("last").ok()?);
        let life = Life { incarnation, durability, boot, clean, recovering, cut, first, last };
        Some((counter, life))
    };
    Ok(rest())
}

pub(crate) fn check_version(path: &Path, found: u16) -> Result<(), StoreError> {
    let (path, supported) = (PathBuf::from(path), FORMAT_VERSION);
    if found > supported {
        return Err(StoreError::NewerFormat { path, found, supported });
    }
    Ok(())
}

pub(crate) fn check_owner(
    path: &Path,
    identity: &Identity,
    group: GroupId,
    replica: ReplicaId,
) -> Result<(), StoreError> {
    let path = PathBuf::from(path);
    if group != identity.group {
        return Err(StoreError::OtherGroup { path, found: group, wanted: identity.group });
    }
    if replica != identity.replica {
        let (found, wanted) = (replica, identity.replica);
        return Err(StoreError::OtherReplica { path, found, wanted });
    }
    Ok(())
}
