//! An immutable byte string that remembers its digest when it is long.
//!
//! The node that holds an element is digested again when a neighbour changes. Short strings are
//! then hashed again, which is cheaper than remembering; a long one enters with its digest, which
//! is computed once, so that a large value costs nothing when only its neighbour was written.

use std::sync::Arc;

use base::digest::{Domain, Hasher};
use base::{Digest, Malformed, codec};

use super::ELEMENT_BYTES_MAX;

/// Strings above this length enter their node's digest as a digest.
const INLINE_BYTES_MAX: usize = 256;

/// An immutable, shared byte string. Cloning shares the bytes.
#[derive(Clone)]
pub struct Blob {
    bytes: Arc<[u8]>,
    /// Of a long string only, once it was asked for.
    digest: Option<Box<Digest>>,
}

impl Blob {
    /// A copy of `bytes`.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Blob {
        Blob { bytes: bytes.into(), digest: None }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, shared.
    #[must_use]
    pub fn share(&self) -> Arc<[u8]> {
        Arc::clone(&self.bytes)
    }

    /// Adds the length and the bytes, or for a long string their digest. The length says which.
    pub fn fold(&mut self, hasher: &mut Hasher) {
        if self.bytes.len() <= INLINE_BYTES_MAX {
            hasher.update_sized(&self.bytes);
            return;
        }
        let digest = match &self.digest {
            Some(digest) => **digest,
            None => {
                let digest = Digest::of(Domain::Service, &self.bytes);
                self.digest = Some(Box::new(digest));
                digest
            }
        };
        hasher.update_u64(self.bytes.len() as u64).update(&digest.0);
    }

    /// Bytes that [`Blob::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        4 + self.bytes.len()
    }

    /// Appends the length and the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        codec::Writer::new(out).sized(&self.bytes);
    }

    /// Reads what [`Blob::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are cut short.
    pub fn decode(r: &mut base::Reader<'_>) -> Result<Blob, Malformed> {
        Ok(Blob::new(r.sized(ELEMENT_BYTES_MAX, "element")?))
    }
}

impl From<Arc<[u8]>> for Blob {
    fn from(bytes: Arc<[u8]>) -> Blob {
        Blob { bytes, digest: None }
    }
}

impl core::ops::Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Blob) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Blob {}

impl core::fmt::Debug for Blob {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{}\"", self.bytes.escape_ascii())
    }
}
