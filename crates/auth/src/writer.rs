//! Packets on their way out, without a socket: many messages in one sealed packet, many packets
//! in one write.
//!
//! The owner appends to [`PacketWriter::room`], calls [`PacketWriter::seal`] when its turn ends,
//! writes what it can of [`PacketWriter::unwritten`], and says how much that was:
//!
//! ```
//! # fn write(bytes: &[u8]) -> usize { bytes.len() }
//! # fn send(sealer: &mut auth::Sealer) -> Result<(), auth::AuthError> {
//! let mut writer = auth::PacketWriter::new();
//! writer.room(sealer, 2, b"", 1 << 20)?.extend_from_slice(b"hi");
//! writer.seal(sealer)?;
//! let n = write(writer.unwritten());
//! writer.wrote(n);
//! # Ok(())
//! # }
//! ```
//!
//! Not here: who seals and when; how much may wait.
//!
//! Invariants:
//! 1. at most one packet is open, and it is the last thing in the buffer;
//! 2. a message whose length was announced is never moved in memory, neither for itself nor for
//!    the seal behind it, unless the buffer grows for what comes after it;
//! 3. the buffer is kept while packets are as large as it, and given back when they are not;
//! 4. a large buffer takes at most four times what waits in it.

use std::fmt;

use crate::error::AuthError;
use crate::seal::{OVERHEAD_BYTES, Sealer};

/// A buffer of so many bytes is kept whatever was in it.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// A larger one is not kept, whatever was in it.
const BUFFER_BYTES_BUSY: usize = 2 << 20;

/// Collects the packets of one connection.
#[derive(Default)]
pub struct PacketWriter {
    bytes: Vec<u8>,
    written: usize,
    /// Where the packet in the making begins.
    open: Option<usize>,
}

impl PacketWriter {
    /// A writer without a buffer.
    #[must_use]
    pub fn new() -> PacketWriter {
        PacketWriter::default()
    }

    /// Queues bytes as they are: packets of the handshake, or sealed ones.
    ///
    /// # Panics
    /// In debug builds, while a packet is open.
    pub fn queue(&mut self, bytes: &[u8]) {
        debug_assert!(self.open.is_none(), "whole packets come between packets");
        self.bytes.extend_from_slice(bytes);
    }

    /// The packet in the making, to append `len` bytes of payload to. Begins it with `prefix`;
    /// seals the one before when both would have more than `most` bytes together.
    ///
    /// # Errors
    /// As [`Sealer::finish`], about the packet before: close the connection.
    pub fn room(
        &mut self,
        sealer: &mut Sealer,
        len: usize,
        prefix: &[u8],
        most: usize,
    ) -> Result<&mut Vec<u8>, AuthError> {
        if self.open.is_some_and(|start| self.bytes.len() - start + len > most) {
            self.seal(sealer)?;
        }
        self.bytes.reserve(prefix.len() + len + OVERHEAD_BYTES);
        if self.open.is_none() {
            self.open = Some(sealer.begin(&mut self.bytes));
            self.bytes.extend_from_slice(prefix);
        }
        Ok(&mut self.bytes)
    }

    /// Queues a packet of its own, after what was appended so far.
    ///
    /// # Errors
    /// As [`Sealer::finish`]: close the connection.
    pub fn packet(&mut self, sealer: &mut Sealer, payload: &[u8]) -> Result<(), AuthError> {
        self.seal(sealer)?;
        sealer.seal(payload, &mut self.bytes)
    }

    /// Completes the packet in the making, if there is one.
    ///
    /// # Errors
    /// As [`Sealer::finish`]: close the connection.
    pub fn seal(&mut self, sealer: &mut Sealer) -> Result<(), AuthError> {
        let Some(start) = self.open.take() else { return Ok(()) };
        sealer.finish(&mut self.bytes, start)
    }

    /// Bytes that wait to be written, the packet in the making included.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// What is to be written next. Seal first: what is in the making is not to leave.
    pub fn unwritten(&self) -> &[u8] {
        debug_assert!(self.open.is_none(), "a packet in the making does not leave");
        &self.bytes[self.written..]
    }

    /// Says that the first `n` bytes of [`PacketWriter::unwritten`] were written. With all of
    /// them, the buffer is free for what comes next, or given back.
    ///
    /// # Panics
    /// When those are more bytes than there were.
    pub fn wrote(&mut self, n: usize) {
        assert!(n <= self.backlog(), "more bytes written than there are");
        self.written += n;
        if self.written == self.bytes.len() {
            if is_kept(self.bytes.capacity(), self.bytes.len()) {
                self.bytes.clear();
            } else {
                self.bytes = Vec::new();
            }
            self.written = 0;
        } else if self.written > self.bytes.len() / 2 {
            // Amortized: what moves is less than what was written.
            self.bytes.drain(..self.written);
            self.written = 0;
            // Whoever reads all but a little must not keep what the rest had taken.
            if self.bytes.capacity() > BUFFER_BYTES_KEPT.max(2 * self.bytes.len()) {
                self.bytes.shrink_to(BUFFER_BYTES_KEPT.max(2 * self.bytes.len()));
            }
        }
    }

    /// Bytes of memory that the writer holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives up the buffer of a connection on which nothing happens. Does nothing while
    /// something waits.
    pub fn release_idle(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

/// Whether a buffer is worth keeping that had so many bytes in it. Making one again for every
/// large packet costs pages that have to be zeroed, and copies while it grows.
fn is_kept(capacity: usize, used: usize) -> bool {
    capacity <= BUFFER_BYTES_KEPT || (capacity <= BUFFER_BYTES_BUSY && used >= capacity / 4)
}

impl fmt::Debug for PacketWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("PacketWriter");
        out.field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::Peer;
    use crate::packet::PacketReader;
    use crate::seal::{Binding, HEADER_BYTES, Opener, Suite};
    use base::{ClientId, Epoch, GroupId, PillarId, ReplicaId};

    fn link() -> (Sealer, Opener) {
        let binding = Binding {
            group: GroupId([1; 32]),
            epoch: Epoch(2),
            pillar: PillarId(3),
            sender: Peer::Client(ClientId(4)),
            receiver: Peer::Replica(ReplicaId(5)),
            packet_bytes_max: 16 << 20,
        };
        let sealer = Sealer::new(Suite::Aegis128L, &[9; 32], binding);
        (sealer, Opener::new(Suite::Aegis128L, &[9; 32], binding))
    }

    /// Packets of `wire`, opened.
    fn packets(wire: &[u8], opener: &mut Opener) -> Vec<Vec<u8>> {
        let mut reader = PacketReader::new(16 << 20);
        let (mut got, mut rest) = (vec![], wire);
        while !rest.is_empty() {
            rest = &rest[reader.feed(rest)..];
            while let Some(body) = reader.packet().expect("sound lengths") {
                got.push(opener.open(body).expect("sealed by us").to_vec());
            }
        }
        got
    }

    #[test]
    fn messages_share_a_packet_until_it_is_large_enough_however_little_is_written() {
        let (mut sealer, mut opener) = link();
        let (mut writer, mut wire) = (PacketWriter::new(), vec![]);
        for turn in 0..50 {
            for message in [&b"one"[..], b"two", b"three"] {
                let out = writer.room(&mut sealer, message.len(), b":", 11).expect("room");
                out.extend_from_slice(message);
            }
            writer.packet(&mut sealer, b"alone").expect("room");
            writer.seal(&mut sealer).expect("room");
            let n = writer.backlog().min(7 * turn);
            wire.extend_from_slice(&writer.unwritten()[..n]);
            writer.wrote(n);
        }
        wire.extend_from_slice(writer.unwritten());
        writer.wrote(writer.backlog());
        assert_eq!(writer.backlog(), 0);
        let turn = [&b":onetwo"[..], b":three", b"alone"].map(<[u8]>::to_vec);
        let got = packets(&wire, &mut opener);
        assert_eq!(got.len(), 150);
        assert!(got.chunks(3).all(|packets| packets == turn), "{:?}", &got[..3]);
    }

    /// However much waited before, and however little of it is left.
    #[test]
    fn a_buffer_follows_what_waits_in_it() {
        let mut writer = PacketWriter::new();
        let packet = vec![7; 1 << 20];
        for left in [3 << 20, 1 << 20, 1] {
            (0..40).for_each(|_| writer.queue(&packet));
            while writer.backlog() > left {
                writer.wrote((300 << 10).min(writer.backlog() - left));
                let most = BUFFER_BYTES_KEPT.max(4 * writer.backlog());
                assert!(
                    writer.capacity() <= most,
                    "{} for {}",
                    writer.capacity(),
                    writer.backlog()
                );
            }
        }
        assert!(writer.unwritten().iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_message_that_was_announced_does_not_move_for_its_seal() {
        let (mut sealer, _) = link();
        let mut writer = PacketWriter::new();
        let len = 500_000;
        let out = writer.room(&mut sealer, len, b":", 1 << 20).expect("room");
        let (capacity, at) = (out.capacity(), out.as_ptr());
        out.resize(out.len() + len, 7);
        writer.seal(&mut sealer).expect("room");
        assert_eq!(writer.unwritten().len(), len + 1 + OVERHEAD_BYTES);
        assert_eq!((writer.capacity(), writer.unwritten().as_ptr()), (capacity, at));
    }

    #[test]
    fn a_large_buffer_stays_while_packets_are_large() {
        let (mut sealer, _) = link();
        let mut writer = PacketWriter::new();
        let mut send = |writer: &mut PacketWriter, len: usize| {
            writer.packet(&mut sealer, &vec![1; len]).expect("within bounds");
            writer.wrote(writer.backlog());
            writer.capacity()
        };
        let large = send(&mut writer, 1 << 20);
        assert!(large > 1 << 20);
        assert_eq!(send(&mut writer, 500_000), large, "used again");
        assert_eq!(send(&mut writer, 1000), 0, "given back");
        assert!(send(&mut writer, 1000) > 0);
        assert!(send(&mut writer, 100) > 0, "small ones stay");
        assert_eq!(send(&mut writer, 8 << 20), 0, "too large to keep");
        send(&mut writer, 100);
        writer.release_idle();
        assert_eq!(writer.capacity(), 0);
    }

    #[test]
    #[should_panic(expected = "more bytes written")]
    fn nobody_writes_what_is_not_there() {
        let mut writer = PacketWriter::new();
        writer.queue(&[0; HEADER_BYTES]);
        writer.wrote(HEADER_BYTES + 1);
    }
}
