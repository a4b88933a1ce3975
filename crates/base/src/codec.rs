//! The bounded wire codec: little-endian, length-checked, canonical.
//!
//! Every decoder in the system reads through [`Reader`]: a length is compared with what is
//! there *before* anything is allocated, and whoever decodes a whole message ends with
//! [`Reader::finish`], so that two different byte strings never mean the same message.

use alloc::vec::Vec;

use crate::digest::Digest;

/// The bytes are not a message: too short, too long, out of range. Says what was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "malformed {}", self.0)
    }
}

impl core::error::Error for Malformed {}

/// Reads from a byte slice, front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! read_int {
    ($($name:ident: $ty:ty),*) => {$(
        /// Reads a little-endian number; `what` names it in the error.
        ///
        /// # Errors
        /// When fewer bytes are left.
        pub fn $name(&mut self, what: &'static str) -> Result<$ty, Malformed> {
            Ok(<$ty>::from_le_bytes(self.array(what)?))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    read_int!(u8: u8, u16: u16, u32: u32, u64: u64, i64: i64);

    /// Reads `N` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(*head)
    }

    /// Reads `len` bytes without copying.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads a byte string with a `u32` length before it, at most `max` bytes.
    ///
    /// # Errors
    /// When the length is above `max` or above what is left.
    pub fn sized(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let len = self.u32(what)? as usize;
        if len > max {
            return Err(Malformed(what));
        }
        self.bytes(len, what)
    }

    /// Reads a count of items, each of at least `item_bytes_min` bytes: bounded by `max` and by
    /// what is left, so that a vector of that capacity may be allocated.
    ///
    /// # Errors
    /// When the count is above either bound.
    pub fn count(
        &mut self,
        max: usize,
        item_bytes_min: usize,
        what: &'static str,
    ) -> Result<usize, Malformed> {
        let count = self.u32(what)? as usize;
        let fits = count <= max && count.saturating_mul(item_bytes_min) <= self.rest.len();
        fits.then_some(count).ok_or(Malformed(what))
    }

    /// Reads a digest.
    ///
    /// # Errors
    /// When fewer than 32 bytes are left.
    pub fn digest(&mut self, what: &'static str) -> Result<Digest, Malformed> {
        Ok(Digest(self.array(what)?))
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the message.
    ///
    /// # Errors
    /// When bytes are left over.
    pub fn finish(self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(what)) }
    }
}

/// Appends to a byte vector; the mirror of [`Reader`].
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

macro_rules! write_int {
    ($($name:ident: $ty:ty),*) => {$(
        /// Appends a number, little-endian.
        pub fn $name(&mut self, value: $ty) -> &mut Self {
            self.out.extend_from_slice(&value.to_le_bytes());
            self
        }
    )*};
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    write_int!(u8: u8, u16: u16, u32: u32, u64: u64, i64: i64);

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// Appends a byte string with its `u32` length before it.
    ///
    /// # Panics
    /// Above 4 GiB, which every limit forbids.
    pub fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.bytes(bytes)
    }

    /// Appends a count of items.
    ///
    /// # Panics
    /// Above 2^32 - 1, which every limit forbids.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.u32(u32::try_from(count).expect("limits keep counts below 2^32"))
    }

    /// Appends a digest.
    pub fn digest(&mut self, digest: Digest) -> &mut Self {
        self.bytes(&digest.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn lengths_are_checked_before_use() {
        let huge = [0xff, 0xff, 0xff, 0xff, 1, 2];
        assert!(Reader::new(&huge).sized(usize::MAX, "x").is_err());
        assert!(Reader::new(&huge).count(usize::MAX, 1, "x").is_err());
        assert!(Reader::new(&[2, 0, 0, 0, 1, 2]).count(1, 1, "x").is_err());
        assert_eq!(Reader::new(&[2, 0, 0, 0, 1, 2]).sized(2, "x"), Ok(&[1u8, 2][..]));
        assert!(Reader::new(&[1]).finish("x").is_err());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = vec![];
        Writer::new(&mut out).u8(1).u64(u64::MAX).i64(-5).sized(b"abc").digest(Digest([7; 32]));
        let mut r = Reader::new(&out);
        assert_eq!(r.u8("a"), Ok(1));
        assert_eq!(r.u64("b"), Ok(u64::MAX));
        assert_eq!(r.i64("c"), Ok(-5));
        assert_eq!(r.sized(3, "d"), Ok(&b"abc"[..]));
        assert_eq!(r.digest("e"), Ok(Digest([7; 32])));
        assert!(r.finish("f").is_ok());
    }
}
