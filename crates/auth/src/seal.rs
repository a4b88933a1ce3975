//! Sealing the packets of one link: AEAD per direction with a counter as nonce.
//!
//! On the wire a packet is `u32` length (little-endian, of what follows), ciphertext, 16-byte
//! tag. The length travels in clear, because the receiver needs it before it can open, and is
//! bound in the associated data with group, epoch, pillar, sender, receiver and counter. The
//! counter is not sent: both ends count. A replayed, dropped, reordered or altered packet, or
//! one of another link, does not open; then the link is to be closed.
//!
//! Nonce: a base derived with the key, with the counter xored into its first 8 bytes. No nonce
//! repeats, since a direction's key is fresh per handshake and its counter only grows.

use std::fmt;

use aegis::aegis128l::Aegis128L;
use base::{Epoch, GroupId, PillarId};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::AuthError;
use crate::hello::Peer;

/// Bytes of the length header before a packet.
pub const HEADER_BYTES: usize = 4;
/// Bytes that the seal adds behind the payload.
pub const TAG_BYTES: usize = 16;
/// What sealing adds to a payload on the wire.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// Packets that one direction of a link may carry. At a million per second: nine years.
pub const PACKETS_PER_LINK_MAX: u64 = 1 << 48;

const LINK_CONTEXT: &str = "stylite v1 link direction key";
const BOUND_BYTES: usize = 64;
const BOUND_PREFIX_BYTES: usize = 48;

/// The AEAD of a link. The initiator names it in its hello; another one is another variant
/// here and another arm in `Cipher`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Suite {
    /// AEGIS-128L with 16-byte tags.
    Aegis128L = 1,
}

impl Suite {
    /// The suite with this number on the wire.
    ///
    /// # Errors
    /// [`AuthError::Suite`] when there is none.
    pub fn from_byte(byte: u8) -> Result<Suite, AuthError> {
        match byte {
            1 => Ok(Suite::Aegis128L),
            _ => Err(AuthError::Suite(byte)),
        }
    }
}

/// What one direction of a link binds into every packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) group: GroupId,
    pub(crate) epoch: Epoch,
    pub(crate) pillar: PillarId,
    pub(crate) sender: Peer,
    pub(crate) receiver: Peer,
    /// Largest packet in bytes, seal included, length header not.
    pub(crate) packet_bytes_max: usize,
}

/// Seals what leaves through a link.
pub struct Sealer(Direction);

/// Opens what comes in through a link.
pub struct Opener(Direction);

impl Sealer {
    pub(crate) fn new(suite: Suite, key: &[u8; 32], binding: Binding) -> Sealer {
        Sealer(Direction::new(suite, key, binding))
    }

    /// Appends `payload` to `out` as one whole packet of the wire.
    ///
    /// # Errors
    /// As [`Sealer::finish`]; `out` is then as before.
    pub fn seal(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), AuthError> {
        out.reserve(payload.len() + OVERHEAD_BYTES);
        let start = self.begin(out);
        out.extend_from_slice(payload);
        self.finish(out, start)
    }

    /// Begins a packet at the end of `out`: the caller then appends the payload and calls
    /// [`Sealer::finish`] with what this returns, before it begins another.
    pub fn begin(&self, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        start
    }

    /// Encrypts in place what was appended to `out` since [`Sealer::begin`] returned `start`,
    /// and completes the packet. An empty payload is allowed.
    ///
    /// # Errors
    /// [`AuthError::PacketLength`] when the payload is too large for this link,
    /// [`AuthError::Exhausted`] when the key is used up: close the link. `out` is then cut back
    /// to `start`.
    ///
    /// # Panics
    /// When `start` is not from `begin` on the same, not shortened, vector.
    pub fn finish(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), AuthError> {
        let payload_at = start + HEADER_BYTES;
        assert!(payload_at <= out.len(), "finish without begin");
        let bytes = out.len() - payload_at + TAG_BYTES;
        let max = self.0.packet_bytes_max;
        if bytes > max {
            out.truncate(start);
            return Err(AuthError::PacketLength { bytes, max });
        }
        if self.0.counter >= PACKETS_PER_LINK_MAX {
            out.truncate(start);
            return Err(AuthError::Exhausted);
        }
        let len = u32::try_from(bytes).expect("packet bounds are below 4 GiB");
        out[start..payload_at].copy_from_slice(&len.to_le_bytes());
        let (counter, bound) = self.0.next(len);
        let tag = self.0.cipher.seal(counter, &bound, &mut out[payload_at..]);
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Packets sealed so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.0.counter
    }

    /// Largest payload that a packet of this link can carry, in bytes.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        self.0.packet_bytes_max - TAG_BYTES
    }
}

impl Opener {
    pub(crate) fn new(suite: Suite, key: &[u8; 32], binding: Binding) -> Opener {
        Opener(Direction::new(suite, key, binding))
    }

    /// Opens the next packet in place. `body` is the packet without its length header, as
    /// [`crate::PacketReader::packet`] yields it; the payload is at its beginning.
    ///
    /// # Errors
    /// [`AuthError::PacketLength`], [`AuthError::Seal`] or [`AuthError::Exhausted`]: in each
    /// case close the link. `body` then holds nothing of meaning.
    pub fn open<'a>(&mut self, body: &'a mut [u8]) -> Result<&'a [u8], AuthError> {
        let max = self.0.packet_bytes_max;
        let length = AuthError::PacketLength { bytes: body.len(), max };
        if body.len() > max {
            return Err(length);
        }
        if self.0.counter >= PACKETS_PER_LINK_MAX {
            return Err(AuthError::Exhausted);
        }
        let len = u32::try_from(body.len()).map_err(|_| length)?;
        let (payload, tag) = body.split_last_chunk_mut::<TAG_BYTES>().ok_or(length)?;
        let bound = self.0.bound(len);
        if !self.0.cipher.open(self.0.counter, &bound, payload, tag) {
            return Err(AuthError::Seal { counter: self.0.counter });
        }
        self.0.counter += 1;
        Ok(payload)
    }

    /// Packets opened so far. Above zero, the peer has proved that it lives: see
    /// [`crate::Responder::accept`].
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.0.counter
    }
}

/// One direction: its cipher, its counter and what it binds.
struct Direction {
    cipher: Cipher,
    counter: u64,
    prefix: [u8; BOUND_PREFIX_BYTES],
    packet_bytes_max: usize,
}

impl Direction {
    fn new(suite: Suite, key: &[u8; 32], binding: Binding) -> Direction {
        let mut prefix = [0; BOUND_PREFIX_BYTES];
        prefix[..32].copy_from_slice(&binding.group.0);
        prefix[32..36].copy_from_slice(&binding.epoch.0.to_le_bytes());
        prefix[36..38].copy_from_slice(&binding.pillar.0.to_le_bytes());
        prefix[38..43].copy_from_slice(&binding.sender.to_bytes());
        prefix[43..48].copy_from_slice(&binding.receiver.to_bytes());
        assert!(binding.packet_bytes_max > TAG_BYTES, "a link carries payload");
        let packet_bytes_max = binding.packet_bytes_max;
        Direction { cipher: Cipher::new(suite, key), counter: 0, prefix, packet_bytes_max }
    }

    /// The associated data of the packet with the present counter.
    fn bound(&self, len: u32) -> [u8; BOUND_BYTES] {
        let mut bound = [0; BOUND_BYTES];
        bound[..BOUND_PREFIX_BYTES].copy_from_slice(&self.prefix);
        bound[48..56].copy_from_slice(&self.counter.to_le_bytes());
        bound[56..60].copy_from_slice(&len.to_le_bytes());
        bound
    }

    /// Takes the present counter and its associated data, and counts on.
    fn next(&mut self, len: u32) -> (u64, [u8; BOUND_BYTES]) {
        let taken = (self.counter, self.bound(len));
        self.counter += 1;
        taken
    }
}

/// The AEAD behind a direction.
#[derive(Zeroize, ZeroizeOnDrop)]
enum Cipher {
    Aegis128L { key: [u8; 16], nonce: [u8; 16] },
}

impl Cipher {
    fn new(suite: Suite, key: &[u8; 32]) -> Cipher {
        let material = Zeroizing::new(blake3::derive_key(LINK_CONTEXT, key));
        match suite {
            Suite::Aegis128L => {
                let (mut key, mut nonce) = ([0; 16], [0; 16]);
                key.copy_from_slice(&material[..16]);
                nonce.copy_from_slice(&material[16..]);
                Cipher::Aegis128L { key, nonce }
            }
        }
    }

    fn seal(&self, counter: u64, bound: &[u8], payload: &mut [u8]) -> [u8; TAG_BYTES] {
        match self {
            Cipher::Aegis128L { key, nonce } => {
                let nonce = nonce_of(nonce, counter);
                Aegis128L::<TAG_BYTES>::new(key, &nonce).encrypt_in_place(payload, bound)
            }
        }
    }

    fn open(&self, counter: u64, bound: &[u8], payload: &mut [u8], tag: &[u8; 16]) -> bool {
        match self {
            Cipher::Aegis128L { key, nonce } => {
                let nonce = nonce_of(nonce, counter);
                let aead = Aegis128L::<TAG_BYTES>::new(key, &nonce);
                aead.decrypt_in_place(payload, tag, bound).is_ok()
            }
        }
    }
}

fn nonce_of(base: &[u8; 16], counter: u64) -> [u8; 16] {
    let mut nonce = *base;
    nonce.iter_mut().zip(counter.to_le_bytes()).for_each(|(n, c)| *n ^= c);
    nonce
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("packets", &self.packets()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("packets", &self.packets()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ClientId, ReplicaId};

    fn binding() -> Binding {
        Binding {
            group: GroupId([1; 32]),
            epoch: Epoch(2),
            pillar: PillarId(3),
            sender: Peer::Client(ClientId(4)),
            receiver: Peer::Replica(ReplicaId(5)),
            packet_bytes_max: 1000,
        }
    }

    fn sealed(binding: Binding) -> Vec<u8> {
        let mut out = vec![];
        let mut sealer = Sealer::new(Suite::Aegis128L, &[9; 32], binding);
        sealer.seal(b"payload", &mut out).expect("within bounds");
        out.split_off(HEADER_BYTES)
    }

    /// Even under the same key, which the handshake never gives twice.
    #[test]
    fn every_bound_field_matters() {
        let base = binding();
        let others = [
            Binding { group: GroupId([0; 32]), ..base },
            Binding { epoch: Epoch(0), ..base },
            Binding { pillar: PillarId(0), ..base },
            Binding { sender: Peer::Client(ClientId(0)), ..base },
            Binding { sender: Peer::Replica(ReplicaId(4)), ..base },
            Binding { receiver: Peer::Replica(ReplicaId(0)), ..base },
        ];
        let mut opener = Opener::new(Suite::Aegis128L, &[9; 32], base);
        for other in others {
            let error = opener.open(&mut sealed(other)).err();
            assert_eq!(error, Some(AuthError::Seal { counter: 0 }), "{other:?}");
        }
        assert_eq!(opener.open(&mut sealed(base)), Ok(&b"payload"[..]));
    }

    #[test]
    fn a_used_up_key_closes_the_link() {
        let mut sealer = Sealer::new(Suite::Aegis128L, &[9; 32], binding());
        let mut opener = Opener::new(Suite::Aegis128L, &[9; 32], binding());
        sealer.0.counter = PACKETS_PER_LINK_MAX - 1;
        opener.0.counter = PACKETS_PER_LINK_MAX - 1;
        let mut out = vec![];
        sealer.seal(b"last", &mut out).expect("the last one");
        let mut last = out.split_off(HEADER_BYTES);
        assert_eq!(opener.open(&mut last), Ok(&b"last"[..]));
        let mut out = b"before".to_vec();
        assert_eq!(sealer.seal(b"more", &mut out), Err(AuthError::Exhausted));
        assert_eq!(out, b"before");
        assert_eq!(opener.open(&mut [0; 20]), Err(AuthError::Exhausted));
    }

    #[test]
    fn nonces_differ_in_every_packet() {
        let base = [0xa5; 16];
        let counters = [0, 1, 2, 255, 256, 1 << 40, PACKETS_PER_LINK_MAX - 1];
        let nonces: std::collections::BTreeSet<_> =
            counters.iter().map(|counter| nonce_of(&base, *counter)).collect();
        assert_eq!(nonces.len(), counters.len());
        assert_eq!(nonce_of(&base, 0), base);
    }
}
