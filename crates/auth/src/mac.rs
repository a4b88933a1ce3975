//! Pairwise MAC keys between a client and a replica, and the MACs of authenticator vectors.
//!
//! The key is derived from the static-static Diffie-Hellman of both X25519 keys, so both sides
//! have it without a message, and it stays the same across connections and restarts: whether a
//! frame is a replay is decided on its identity at the merge, not here.

use base::{ClientId, Digest, GroupId, Mac, ReplicaId};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const KEY_CONTEXT: &str = "stylite v1 pairwise request mac key";
const MAC_DOMAIN: &[u8] = b"stylite/frame-mac/1\0";

/// Between whom a key is, in which group.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) group: GroupId,
    pub(crate) client: ClientId,
    pub(crate) replica: ReplicaId,
}

/// The MAC key of one client and one replica.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct MacKey([u8; 32]);

impl MacKey {
    /// The key of `pair`, from one side's secret and the other side's public key. `None` when
    /// the public key is one with which everybody would come to the same secret.
    pub(crate) fn agree(mine: &StaticSecret, theirs: &[u8; 32], pair: Pair) -> Option<MacKey> {
        let shared = mine.diffie_hellman(&PublicKey::from(*theirs));
        if !shared.was_contributory() {
            return None;
        }
        let mut material = Zeroizing::new([0u8; 70]);
        material[..32].copy_from_slice(shared.as_bytes());
        material[32..64].copy_from_slice(&pair.group.0);
        material[64..68].copy_from_slice(&pair.client.0.to_le_bytes());
        material[68..].copy_from_slice(&pair.replica.0.to_le_bytes());
        Some(MacKey(blake3::derive_key(KEY_CONTEXT, material.as_slice())))
    }

    /// The MAC over a frame's digest.
    pub(crate) fn mac(&self, digest: Digest) -> Mac {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(MAC_DOMAIN).update(&digest.0);
        let mut mac = [0; 16];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Mac(mac)
    }

    /// Whether `mac` is the one over `digest`, in constant time.
    pub(crate) fn check(&self, digest: Digest, mac: &Mac) -> bool {
        self.mac(digest).0.ct_eq(&mac.0).into()
    }
}
