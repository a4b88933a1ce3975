//! Blocks of the log: one sector each, each checkable by itself.
//!
//! A block carries its segment and its index in it, so that one which the disk put elsewhere is
//! found out, and its checksum starts from the identity of the replica, so that none of another
//! log fits. It also says up to which commit the log was durable when the block was written:
//! that is what tells a torn end from rot (see `scan`). Byte map: `docs/format.md`.
//!
//! Not here: files, and the order of blocks.

use base::{GroupId, Reader, ReplicaId, Writer};

use crate::storage::SECTOR_BYTES;
use crate::{FORMAT_VERSION, Identity};

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = SECTOR_BYTES;
/// Bytes of records in a block.
pub(crate) const PAYLOAD_BYTES: usize = BLOCK_BYTES - HEADER_BYTES;
const HEADER_BYTES: usize = 32;

/// The block begins a commit.
pub(crate) const FIRST: u8 = 1;
/// The block ends a commit.
pub(crate) const LAST: u8 = 2;
/// The commit repeats what was carried over from earlier segments.
pub(crate) const CARRIED: u8 = 4;

const HEAD: u8 = 1;
const DATA: u8 = 2;
const MAGIC: [u8; 8] = *b"STYL LOG";

/// Where a block stands, and in which commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// The segment.
    pub segment: u32,
    /// The block in it; the head is 0.
    pub index: u32,
    /// The commit; of a head the first one of its segment.
    pub commit: u64,
    /// Every commit up to this one was durable when the block was written.
    pub durable: u64,
}

/// The head of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// Its stamp.
    pub stamp: Stamp,
    /// The version of the format.
    pub version: u16,
    /// Whose log it is.
    pub identity: Identity,
}

/// A block of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Data<'a> {
    /// Its stamp.
    pub stamp: Stamp,
    /// [`FIRST`], [`LAST`], [`CARRIED`].
    pub flags: u8,
    /// Its share of the commit's records.
    pub payload: &'a [u8],
}

/// What the checksums of a replica's blocks start from.
pub(crate) fn seed(identity: &Identity) -> u32 {
    let sum = crc32c::crc32c(&identity.group.0);
    crc32c::crc32c_append(sum, &identity.replica.0.to_le_bytes())
}

/// Appends the head of a segment.
pub(crate) fn encode_head(identity: &Identity, stamp: Stamp, out: &mut Vec<u8>) {
    let start = begin(HEAD, 0, 0, stamp, out);
    let mut w = Writer::new(out);
    w.bytes(&MAGIC).u16(FORMAT_VERSION).u16(identity.replica.0).bytes(&identity.group.0);
    // A head is readable by whoever it does not belong to, so that it can say whose it is.
    seal(0, start, out);
}

/// Appends a commit as blocks from `stamp` on. Returns how many.
pub(crate) fn encode_commit(
    seed: u32,
    mut stamp: Stamp,
    flags: u8,
    stream: &[u8],
    out: &mut Vec<u8>,
) -> u32 {
    assert!(!stream.is_empty(), "a commit has records");
    let (first, count) = (stamp.index, blocks_of(stream.len()));
    for payload in stream.chunks(PAYLOAD_BYTES) {
        let mut flags = flags;
        flags |= if stamp.index == first { FIRST } else { 0 };
        flags |= if stamp.index + 1 == first + count { LAST } else { 0 };
        let start = begin(DATA, flags, payload.len(), stamp, out);
        out.extend_from_slice(payload);
        seal(seed, start, out);
        stamp.index += 1;
    }
    count
}

/// How many blocks a commit of `bytes` takes.
pub(crate) fn blocks_of(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PAYLOAD_BYTES)).expect("a commit is below 2 TiB")
}

/// The head in `block`; none when it is no intact head.
pub(crate) fn decode_head(block: &[u8]) -> Option<Head> {
    let (kind, _, stamp, payload) = open(0, block)?;
    let mut r = Reader::new(payload);
    let magic: [u8; 8] = r.array("magic").ok()?;
    let (version, replica) = (r.u16("version").ok()?, r.u16("replica").ok()?);
    let group = GroupId(r.array("group").ok()?);
    let identity = Identity { group, replica: ReplicaId(replica) };
    (kind == HEAD && magic == MAGIC).then_some(Head { stamp, version, identity })
}

/// The records in `block`; none when it is no intact block of this log.
pub(crate) fn decode_data(seed: u32, block: &[u8]) -> Option<Data<'_>> {
    let used = usize::from(u16::from_le_bytes(*block.get(6..8)?.first_chunk()?));
    let (kind, flags, stamp, payload) = open(seed, block)?;
    let payload = payload.get(..used)?;
    (kind == DATA && used > 0).then_some(Data { stamp, flags, payload })
}

/// Whether nothing was ever written there.
pub(crate) fn is_blank(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn begin(kind: u8, flags: u8, used: usize, stamp: Stamp, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let used = u16::try_from(used).expect("a payload is below a sector");
    let mut w = Writer::new(out);
    w.u32(0).u8(kind).u8(flags).u16(used).u32(stamp.segment).u32(stamp.index);
    w.u64(stamp.commit).u64(stamp.durable);
    start
}

fn seal(seed: u32, start: usize, out: &mut Vec<u8>) {
    out.resize(start + BLOCK_BYTES, 0);
    let sum = crc32c::crc32c_append(seed, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&sum.to_le_bytes());
}

fn open(seed: u32, block: &[u8]) -> Option<(u8, u8, Stamp, &[u8])> {
    if block.len() != BLOCK_BYTES {
        return None;
    }
    let mut r = Reader::new(block);
    let sum = r.u32("sum").ok()?;
    if sum != crc32c::crc32c_append(seed, &block[4..]) && !base::mutant!(BlockUnchecked) {
        return None;
    }
    let (kind, flags) = (r.u8("kind").ok()?, r.u8("flags").ok()?);
    r.u16("used").ok()?;
    let (segment, index) = (r.u32("segment").ok()?, r.u32("index").ok()?);
    let (commit, durable) = (r.u64("commit").ok()?, r.u64("durable").ok()?);
    Some((kind, flags, Stamp { segment, index, commit, durable }, r.rest()))
}
