//! A node: data, ACL and what its stat tells.

use std::sync::Arc;

use base::digest::Domain;
use base::{Digest, Malformed, Reader, Writer};

use super::acl::{self, Acl};
use super::jute::JuteWriter;

/// Longest data that stands in its bucket's digest itself, in bytes.
const INLINE_MAX: usize = 64;

/// The owner that stands for a container.
pub const CONTAINER: i64 = i64::MIN;
/// The first byte of the owner that stands for a time to live.
const TTL_MARK: i64 = 0xff << 56;
/// Longest time to live, in ms.
pub const TTL_MAX_MS: i64 = (1 << 40) - 1;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) data: Option<Arc<[u8]>>,
    /// Of the data, once asked for.
    digest: Option<Digest>,
    pub(super) acl: Acl,
    /// A session, [`CONTAINER`], a time to live, or 0.
    pub(super) owner: i64,
    pub(super) czxid: i64,
    pub(super) mzxid: i64,
    pub(super) pzxid: i64,
    pub(super) ctime: u64,
    pub(super) mtime: u64,
    pub(super) version: i32,
    pub(super) aversion: i32,
    /// Children that were ever created: where suffixes come from.
    pub(super) created: u32,
    /// When a container or a node with a time to live may go once it has no children, on the
    /// session clock; 0 for never.
    pub(super) due: u64,
}

/// Who or what a node's life depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Nobody: it stays until it is deleted.
    Persistent,
    /// A session.
    Session(u64),
    /// Its children.
    Container,
    /// The time since its last write, in ms.
    Ttl(u64),
}

impl Owner {
    /// As a number.
    #[must_use]
    pub fn wire(self) -> i64 {
        match self {
            Owner::Persistent => 0,
            Owner::Session(session) => session.cast_signed(),
            Owner::Container => CONTAINER,
            Owner::Ttl(ms) => TTL_MARK | ms.cast_signed(),
        }
    }

    /// What a stat tells. Sessions are positive.
    #[must_use]
    pub fn of(wire: i64) -> Owner {
        match wire {
            0 => Owner::Persistent,
            CONTAINER => Owner::Container,
            1.. => Owner::Session(wire.cast_unsigned()),
            _ => Owner::Ttl((wire & TTL_MAX_MS).cast_unsigned()),
        }
    }
}

impl Node {
    /// A node that comes to be at `zxid`.
    #[must_use]
    pub fn new(data: Option<Arc<[u8]>>, acl: Acl, owner: Owner, zxid: i64, now_ms: u64) -> Node {
        Node {
            data,
            digest: None,
            acl,
            owner: owner.wire(),
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: now_ms,
            mtime: now_ms,
            version: 0,
            aversion: 0,
            created: 0,
            due: 0,
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner::of(self.owner)
    }

    /// Replaces the data.
    pub fn set(&mut self, data: Option<Arc<[u8]>>, zxid: i64, now_ms: u64) {
        (self.data, self.digest) = (data, None);
        (self.mzxid, self.mtime) = (zxid, now_ms);
        self.version = next(self.version);
    }

    /// Bytes of data.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.len())
    }

    /// Whether there is no data.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the stat, as clients read it.
    ///
    /// # Panics
    /// When there are 2^31 children or bytes, which limits forbid.
    pub fn stat(&self, children: usize, w: &mut JuteWriter<'_>) {
        let count = i32::try_from(children).expect("limits keep children below 2^31");
        // Creations and deletions of children, of which as many as there are were not deleted.
        let cversion = self.created.cast_signed().wrapping_mul(2).wrapping_sub(count);
        w.long(self.czxid).long(self.mzxid);
        w.long(self.ctime.cast_signed()).long(self.mtime.cast_signed());
        // Clients are told of sessions and of nobody else.
        let owner = if matches!(self.owner(), Owner::Session(_)) { self.owner } else { 0 };
        w.int(self.version).int(cversion).int(self.aversion).long(owner);
        w.count(self.len()).int(count).long(self.pzxid);
    }

    fn head(&self, w: &mut Writer<'_>) {
        w.i64(self.owner).i64(self.czxid).i64(self.mzxid).i64(self.pzxid);
        w.u64(self.ctime).u64(self.mtime);
        w.u32(self.version.cast_unsigned()).u32(self.aversion.cast_unsigned());
        w.u32(self.created).u64(self.due);
        acl::encode(&self.acl, w);
    }

    /// Appends the canonical bytes.
    pub(super) fn encode(&self, w: &mut Writer<'_>) {
        self.head(w);
        match &self.data {
            None => w.u8(0),
            Some(data) => w.u8(1).sized(data),
        };
    }

    /// Appends what stands for the node in its bucket's digest: short data itself, long data by
    /// its own digest.
    pub(super) fn summarize(&mut self, w: &mut Writer<'_>) {
        self.head(w);
        match &self.data {
            None => w.u8(0),
            Some(data) if data.len() <= INLINE_MAX => w.u8(1).sized(data),
            Some(data) => {
                let fresh = || Digest::of(Domain::Service, data);
                w.u8(2).digest(*self.digest.get_or_insert_with(fresh))
            }
        };
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Node, Malformed> {
        let owner = r.i64("owner")?;
        let [czxid, mzxid, pzxid] = [r.i64("czxid")?, r.i64("mzxid")?, r.i64("pzxid")?];
        let (ctime, mtime) = (r.u64("ctime")?, r.u64("mtime")?);
        let (version, aversion) = (r.u32("version")?, r.u32("aversion")?);
        let (created, due, acl) = (r.u32("children created")?, r.u64("due")?, acl::decode(r)?);
        let data = match r.u8("data")? {
            0 => None,
            1 => Some(r.sized(usize::MAX, "data")?.into()),
            _ => return Err(Malformed("data")),
        };
        Ok(Node {
            data,
            digest: None,
            acl,
            owner,
            czxid,
            mzxid,
            pzxid,
            ctime,
            mtime,
            version: version.cast_signed(),
            aversion: aversion.cast_signed(),
            created,
            due,
        })
    }
}

/// The version after `version`: -1 is left out, since it stands for any version in requests.
#[must_use]
pub fn next(version: i32) -> i32 {
    match version.wrapping_add(1) {
        -1 => 0,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_told_apart() {
        let owners = [Owner::Persistent, Owner::Session(7), Owner::Container, Owner::Ttl(5)];
        for owner in owners {
            assert_eq!(Owner::of(owner.wire()), owner);
        }
        assert_eq!(Owner::of(Owner::Ttl((1 << 40) - 1).wire()), Owner::Ttl((1 << 40) - 1));
    }

    #[test]
    fn canonical_bytes_are_read_back_and_summaries_tell_data_apart() {
        for data in [None, Some(vec![]), Some(vec![1; 64]), Some(vec![1; 65])] {
            let data = data.map(Arc::from);
            let mut node = Node::new(data, acl::open(31), Owner::Ttl(9), 4, 5);
            let mut out = vec![];
            node.encode(&mut Writer::new(&mut out));
            let mut read = Node::decode(&mut Reader::new(&out)).expect("what was written");
            let (mut a, mut b) = (vec![], vec![]);
            node.summarize(&mut Writer::new(&mut a));
            read.summarize(&mut Writer::new(&mut b));
            assert_eq!(a, b);
            for len in 0..out.len() {
                assert!(Node::decode(&mut Reader::new(&out[..len])).is_err());
            }
            node.set(Some(Arc::from(&[2; 65][..])), 6, 7);
            let mut c = vec![];
            node.summarize(&mut Writer::new(&mut c));
            assert_ne!(a, c);
        }
    }

    #[test]
    fn versions_leave_out_the_one_that_means_any() {
        assert_eq!((next(0), next(i32::MAX), next(-2)), (1, i32::MIN, 0));
    }
}
