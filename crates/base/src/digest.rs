//! Digests: BLAKE3 with a domain for each use, so that no digest of one kind of thing can be
//! passed off as the digest of another.

use core::fmt;

/// A 32-byte BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

/// What is being digested. The byte is the first that goes into the hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Domain {
    /// A request frame without its authenticator.
    Frame = 1,
    /// A batch of frames at a sequence number.
    Batch = 2,
    /// The agreed null batch.
    NullBatch = 3,
    /// A leaf of the state tree: one abstract object.
    Object = 4,
    /// An inner node of the state tree.
    Node = 5,
    /// The session table.
    Sessions = 6,
    /// A checkpoint: service root, session table, time, pillars.
    Checkpoint = 7,
    /// A reply, as clients vote on it.
    Reply = 8,
    /// The genesis configuration: the group's identity.
    Genesis = 9,
    /// Data of a service's own choosing below its objects.
    Service = 10,
    /// A VIEW-CHANGE, as its signer and the NEW-VIEW that holds it name it.
    ViewChange = 11,
    /// One partition of a group: the identity of the agreement group that it is.
    Partition = 12,
}

impl Digest {
    /// All zeroes: never the digest of anything, used as "none".
    pub const ZERO: Digest = Digest([0; 32]);

    /// The digest of one byte string in `domain`.
    #[must_use]
    pub fn of(domain: Domain, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(domain);
        hasher.update(bytes);
        hasher.finish()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A digest in the making.
///
/// Parts are concatenated as they come: who adds parts of variable length adds the lengths too.
#[derive(Clone)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Starts a digest in `domain`.
    #[must_use]
    pub fn new(domain: Domain) -> Hasher {
        let mut inner = blake3::Hasher::new();
        inner.update(&[domain as u8]);
        Hasher(inner)
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Hasher {
        self.0.update(bytes);
        self
    }

    /// Adds a number, little-endian.
    pub fn update_u64(&mut self, value: u64) -> &mut Hasher {
        self.update(&value.to_le_bytes())
    }

    /// Adds a byte string with its length before it.
    pub fn update_sized(&mut self, bytes: &[u8]) -> &mut Hasher {
        self.update_u64(bytes.len() as u64);
        self.update(bytes)
    }

    /// The digest of all that was added.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_differ_between_domains() {
        assert_ne!(Digest::of(Domain::Frame, b"x"), Digest::of(Domain::Reply, b"x"));
        assert_eq!(Digest::of(Domain::Frame, b"x"), Digest::of(Domain::Frame, b"x"));
    }
}
