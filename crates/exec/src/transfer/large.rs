//! Objects that do not fit into one message. They are put together piece by piece, from one
//! source each, so that bytes that turn out wrong have one author.
//!
//! Only the whole object can be verified, so its length is a mere claim until then. Whatever
//! sources claim, at most [`BUFFER_BYTES_MAX`] bytes are buffered, or one larger object; and
//! before a long object, or one that does not fit now, is begun, every source is asked for its
//! length: the least one claimed goes first, and whoever claimed another than what verifies has
//! lied.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::transfer::{PIECE_BYTES_MAX, Part};
use base::{Digest, ReplicaId};

/// Bytes of objects in the making, all together. A single larger object may be made, alone.
pub const BUFFER_BYTES_MAX: u64 = 64 << 20;
/// Largest object that can be fetched, in bytes.
pub const OBJECT_BYTES_MAX: u64 = 1 << 30;

/// Longest object that is believed to be so long without asking the other sources: what a lie
/// can cost is a second for each piece of it.
pub(super) const UNDISPUTED_BYTES_MAX: u64 = 8 << 20;

/// An object in the making.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) part: Part,
    pub(super) object: u32,
    /// The digest that its leaf is to have.
    pub(super) leaf: Digest,
    /// How long it is, as its source says.
    pub(super) total: u64,
    pub(super) bytes: Vec<u8>,
}

/// A piece as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) part: Part,
    pub(super) object: u32,
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
}

impl Piece<'_> {
    /// Whether a correct source cuts objects like this: every piece is as large as can be.
    pub(super) fn is_regular(&self) -> bool {
        let left = self.total.checked_sub(self.offset);
        left.is_some_and(|left| self.bytes.len() as u64 == left.min(PIECE_BYTES_MAX as u64))
    }
}

/// Objects that are put off, with what each source says about their length.
#[derive(Debug, Default)]
pub(super) struct Later {
    objects: BTreeMap<(Part, u32), Claims>,
}

#[derive(Debug)]
struct Claims {
    leaf: Digest,
    totals: BTreeMap<ReplicaId, u64>,
    /// Whether somebody was asked and has not answered yet.
    asked: bool,
}

impl Later {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// `from` says that the object is `total` bytes long. False when it said otherwise before.
    pub(super) fn claim(
        &mut self,
        object: (Part, u32),
        leaf: Digest,
        from: ReplicaId,
        total: u64,
    ) -> bool {
        let fresh = || Claims { leaf, totals: BTreeMap::new(), asked: false };
        let claims = self.objects.entry(object).or_insert_with(fresh);
        claims.asked = false;
        *claims.totals.entry(from).or_insert(total) == total
    }

    /// Whether the object is put off.
    pub(super) fn has(&self, object: (Part, u32)) -> bool {
        self.objects.contains_key(&object)
    }

    /// Whether the object is put off and all of `peers` have said how long it is, none of them
    /// less than `from`.
    pub(super) fn is_least(
        &self,
        object: (Part, u32),
        from: ReplicaId,
        peers: &[ReplicaId],
    ) -> bool {
        let Some(claims) = self.objects.get(&object) else { return false };
        let own = claims.totals.get(&from);
        own.is_some() && peers.iter().all(|peer| claims.totals.get(peer) >= own)
    }

    /// The object that `from` should be asked for next: for its length, or, when there is
    /// `room` for that, because its claim is the least.
    pub(super) fn take(
        &mut self,
        from: ReplicaId,
        peers: &[ReplicaId],
        room: impl Fn(u64) -> bool,
    ) -> Option<(Part, u32, Digest)> {
        let found = self.objects.iter().find(|(object, claims)| {
            let ready = match claims.totals.get(&from) {
                None => true,
                Some(total) => room(*total) && self.is_least(**object, from, peers),
            };
            ready && !claims.asked
        });
        let object = *found?.0;
        let claims = self.objects.get_mut(&object)?;
        claims.asked = true;
        Some((object.0, object.1, claims.leaf))
    }

    /// The object is asked for.
    pub(super) fn hold(&mut self, object: (Part, u32)) {
        if let Some(claims) = self.objects.get_mut(&object) {
            claims.asked = true;
        }
    }

    /// The object was asked for in vain. False when it is not put off.
    pub(super) fn release(&mut self, object: (Part, u32)) -> bool {
        let claims = self.objects.get_mut(&object);
        claims.map(|claims| claims.asked = false).is_some()
    }

    /// The object came and is `total` bytes long: whoever said otherwise has lied.
    pub(super) fn came(&mut self, object: (Part, u32), total: u64) -> Vec<ReplicaId> {
        let totals = self.objects.remove(&object).map(|claims| claims.totals).unwrap_or_default();
        totals.into_iter().filter(|(_, said)| *said != total).map(|(from, _)| from).collect()
    }
}
