//! Cutting a byte stream into packets, without a socket.
//!
//! The owner reads into [`PacketReader::spare`], says how much it read with
//! [`PacketReader::filled`], and takes packets until there is none:
//!
//! ```
//! # fn read(buffer: &mut [u8]) -> usize { buffer[..6].copy_from_slice(b"\x02\0\0\0hi"); 6 }
//! let mut reader = auth::PacketReader::new(base::limits::HANDSHAKE_PACKET_BYTES_MAX);
//! let n = read(reader.spare());
//! reader.filled(n);
//! while let Some(body) = reader.packet()? {
//!     assert_eq!(body, b"hi");
//! }
//! # Ok::<(), auth::AuthError>(())
//! ```
//!
//! Invariants:
//! 1. a length is compared with the bound before a byte is allocated for it;
//! 2. the buffer at most doubles, and only when it is full of bytes that did arrive;
//! 3. only a packet in part is ever moved, to the front, at most once per read;
//! 4. after a large packet the buffer shrinks again; an idle reader can give up all of it.

use std::fmt;

use crate::error::AuthError;
use crate::seal::HEADER_BYTES;

/// The first buffer of a reader, in bytes: thousands of connections may never need more.
const BUFFER_BYTES_MIN: usize = 4 << 10;
/// What a busy connection's buffer grows to for the sake of fewer reads, in bytes.
const BUFFER_BYTES_BUSY: usize = 256 << 10;
/// A larger buffer, which a large packet needed, is not kept after it, in bytes.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Cuts the bytes of one connection into packets.
pub struct PacketReader {
    /// All of it is initialized; `start..end` are bytes that arrived and were not yet taken.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// What the buffer should have: doubles when a read fills it, up to a bound.
    target: usize,
    packet_bytes_max: usize,
}

impl PacketReader {
    /// A reader for packets of 1 to `packet_bytes_max` bytes, the length header not counted.
    #[must_use]
    pub fn new(packet_bytes_max: usize) -> PacketReader {
        let target = BUFFER_BYTES_MIN;
        PacketReader { buffer: Vec::new(), start: 0, end: 0, target, packet_bytes_max }
    }

    /// Changes the bound for all packets not yet taken: when the link is authenticated.
    pub fn set_max(&mut self, packet_bytes_max: usize) {
        self.packet_bytes_max = packet_bytes_max;
    }

    /// Room to read into. Never empty, provided that [`PacketReader::packet`] was called until
    /// it returned no packet; only the first `n` bytes given to [`PacketReader::filled`] count.
    pub fn spare(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.buffer[self.end..]
    }

    /// Says that `n` bytes were written to the beginning of [`PacketReader::spare`].
    ///
    /// # Panics
    /// When that is more than there was room.
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.buffer.len() - self.end, "more bytes than room");
        self.end += n;
        if self.end == self.buffer.len() {
            self.target = (self.target * 2).min(BUFFER_BYTES_BUSY);
        }
    }

    /// Copies bytes in, as far as there is room; returns how many it took. For bytes that do
    /// not come from a read.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let n = spare.len().min(bytes.len());
        spare[..n].copy_from_slice(&bytes[..n]);
        self.filled(n);
        n
    }

    /// Takes the next whole packet, without its length header; `None` when more bytes must
    /// arrive first.
    ///
    /// # Errors
    /// [`AuthError::PacketLength`] when its length is 0 or above the bound: close the
    /// connection. The same error comes again when asked again.
    pub fn packet(&mut self) -> Result<Option<&mut [u8]>, AuthError> {
        let Some(len) = self.pending_len()? else { return Ok(None) };
        let body = self.start + HEADER_BYTES;
        let Some(rest) = (self.end - self.start).checked_sub(HEADER_BYTES + len) else {
            return Ok(None);
        };
        self.start = self.end - rest;
        Ok(Some(&mut self.buffer[body..body + len]))
    }

    /// Bytes that arrived and were not yet taken.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.end - self.start
    }

    /// The length that the packet at the front announces, once that is there and legal: what
    /// taking it whole needs.
    #[must_use]
    pub fn announced(&self) -> Option<usize> {
        self.pending_len().ok().flatten()
    }

    /// Bytes of memory that the reader holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives up the buffer of a connection on which nothing happens. Does nothing while a
    /// packet has arrived in part.
    pub fn release_idle(&mut self) {
        if self.start == self.end {
            *self = PacketReader::new(self.packet_bytes_max);
        }
    }

    /// The checked length of the packet at the front, once its header is there.
    fn pending_len(&self) -> Result<Option<usize>, AuthError> {
        let pending = &self.buffer[self.start..self.end];
        let Some(header) = pending.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let bytes = u32::from_le_bytes(*header) as usize;
        let max = self.packet_bytes_max;
        if (1..=max).contains(&bytes) {
            Ok(Some(bytes))
        } else {
            Err(AuthError::PacketLength { bytes, max })
        }
    }

    fn make_room(&mut self) {
        let pending = self.end - self.start;
        let wanted = self.pending_len().ok().flatten().map_or(0, |len| HEADER_BYTES + len);
        if self.buffer.len() > BUFFER_BYTES_KEPT && wanted.max(pending) <= self.target {
            self.replace_buffer();
        } else if self.start > 0 {
            // Only a packet in part is left, and it stays at the front until it is whole: no
            // byte is moved here twice.
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, pending);
        }
        if self.buffer.len() < self.target {
            self.grow(self.target);
        }
        if self.end == self.buffer.len() {
            let doubled = self.buffer.len().saturating_mul(2);
            let enough = if wanted > 0 { wanted.max(self.target) } else { doubled };
            let most = (HEADER_BYTES + self.packet_bytes_max).max(self.target);
            self.grow(doubled.min(enough).min(most));
        }
    }

    fn grow(&mut self, len: usize) {
        let more = len.saturating_sub(self.buffer.len());
        self.buffer.reserve_exact(more);
        self.buffer.resize(self.buffer.len() + more, 0);
    }

    /// A buffer of the usual size instead of the one that a large packet needed.
    fn replace_buffer(&mut self) {
        let mut buffer = vec![0; self.target];
        let pending = &self.buffer[self.start..self.end];
        buffer[..pending.len()].copy_from_slice(pending);
        (self.start, self.end) = (0, pending.len());
        self.buffer = buffer;
    }
}

impl fmt::Debug for PacketReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("PacketReader");
        out.field("buffered", &self.buffered()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(len: usize, fill: u8) -> Vec<u8> {
        let mut bytes = u32::try_from(len).expect("small").to_le_bytes().to_vec();
        bytes.resize(HEADER_BYTES + len, fill);
        bytes
    }

    fn drain(reader: &mut PacketReader, out: &mut Vec<Vec<u8>>) {
        while let Some(body) = reader.packet().expect("sound lengths") {
            out.push(body.to_vec());
        }
    }

    #[test]
    fn packets_are_the_same_however_the_stream_is_cut() {
        let sizes = [1, 3, 4095, 4096, 1, 70_000, 2, 9, 600_000, 5, 12];
        let packets: Vec<_> = (1..).zip(sizes).map(|(i, len)| vec![i; len]).collect();
        let stream: Vec<u8> = packets.iter().flat_map(|p| wire(p.len(), p[0])).collect();
        for step in [1, 2, 3, 7, 1000, 4096, 65_536, usize::MAX] {
            let mut reader = PacketReader::new(600_000);
            let mut got = vec![];
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let taken = reader.feed(&rest[..rest.len().min(step)]);
                assert!(taken > 0, "there is always room");
                rest = &rest[taken..];
                drain(&mut reader, &mut got);
            }
            assert_eq!(got, packets, "step {step}");
            assert_eq!(reader.buffered(), 0);
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_an_error_before_anything_is_allocated() {
        for (bytes, max) in [(u32::MAX, 1 << 25), (1025, 1024), (0, 1024)] {
            let mut reader = PacketReader::new(max);
            reader.feed(&bytes.to_le_bytes());
            let error = AuthError::PacketLength { bytes: bytes as usize, max };
            assert_eq!(reader.packet(), Err(error));
            assert_eq!(reader.packet(), Err(error));
            // Not even an owner that reads on makes it grow.
            reader.spare();
            assert!(reader.capacity() <= BUFFER_BYTES_MIN);
        }
        let mut reader = PacketReader::new(1024);
        reader.feed(&wire(1024, 7));
        assert_eq!(reader.packet().map(|body| body.map(|b| b.len())), Ok(Some(1024)));
    }

    #[test]
    fn a_bound_may_change_between_packets() {
        let mut reader = PacketReader::new(10);
        reader.feed(&wire(10, 1));
        reader.feed(&wire(11, 2));
        assert!(matches!(reader.packet(), Ok(Some(_))));
        assert_eq!(reader.packet(), Err(AuthError::PacketLength { bytes: 11, max: 10 }));
        reader.set_max(11);
        assert!(matches!(reader.packet(), Ok(Some(_))));
    }

    /// Whoever announces much and sends little gets little.
    #[test]
    fn memory_follows_what_arrived_not_what_was_announced() {
        let max = 16 << 20;
        let mut reader = PacketReader::new(max);
        let stream = wire(max, 3);
        let mut fed = 0;
        while fed < stream.len() {
            let end = (fed + 10_000).min(stream.len());
            fed += reader.feed(&stream[fed..end]);
            let bound = (2 * fed).max(2 * BUFFER_BYTES_BUSY);
            assert!(reader.capacity() <= bound, "{} held, {fed} arrived", reader.capacity());
            if fed < stream.len() {
                assert_eq!(reader.packet(), Ok(None));
            }
        }
        assert_eq!(reader.packet().map(|body| body.map(|b| b.len())), Ok(Some(max)));
        assert!(reader.capacity() > max);
        // The next read is into a small buffer again, also when a packet in part is left.
        reader.feed(&[5, 0]);
        assert!(reader.capacity() <= BUFFER_BYTES_BUSY);
        reader.feed(&[0, 0, 1, 2, 3, 4, 5]);
        assert_eq!(reader.packet(), Ok(Some(&mut [1, 2, 3, 4, 5][..])));
    }

    #[test]
    fn a_busy_reader_gets_a_larger_buffer_and_an_idle_one_none() {
        let mut reader = PacketReader::new(1024);
        assert_eq!(reader.capacity(), 0);
        assert_eq!(reader.spare().len(), BUFFER_BYTES_MIN);
        let stream: Vec<u8> = (0..10_000).flat_map(|_| wire(96, 1)).collect();
        let mut rest = &stream[..];
        let mut reads = 0;
        while !rest.is_empty() {
            rest = &rest[reader.feed(rest)..];
            reads += 1;
            while reader.packet().expect("sound").is_some() {}
        }
        assert!(reads < 20, "{reads} reads for a megabyte");
        assert!(reader.capacity() <= BUFFER_BYTES_BUSY);
        reader.feed(&[1]);
        reader.release_idle();
        assert_eq!(reader.buffered(), 1, "a packet in part is kept");
        reader.feed(&[0, 0, 0, 9]);
        assert_eq!(reader.packet(), Ok(Some(&mut [9][..])));
        reader.release_idle();
        assert_eq!(reader.capacity(), 0);
    }
}
