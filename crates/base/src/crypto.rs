//! Keys as the pure zone sees them: opaque bytes, and traits that `auth` implements.
//!
//! Signing and checking are pure functions of their arguments here (ed25519 is deterministic),
//! so a core may call them in its step: that is COP's in-order verification (§3.2, §4.1).

use alloc::vec::Vec;

use crate::digest::Digest;
use crate::frame::Authenticator;
use crate::id::{ClientId, ReplicaId};

/// One entry of an authenticator vector: a 16-byte MAC over a frame's digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mac(pub [u8; 16]);

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature(pub [u8; 64]);

/// What a replica can sign and check. One per replica, shared by its pillars by cloning.
pub trait Keyring: Send {
    /// Signs `message` as this replica. The caller puts group, epoch and a message type into it.
    fn sign(&self, message: &[u8]) -> Signature;

    /// Whether `signature` over `message` is `signer`'s. False for an unknown signer.
    fn verify(&self, signer: ReplicaId, message: &[u8], signature: &Signature) -> bool;

    /// Whether `authenticator` over a frame's `digest` is `client`'s, as far as this replica can
    /// tell: its own entry of a vector, or the signature. False for an unknown client.
    fn check(&self, client: ClientId, digest: Digest, authenticator: &Authenticator) -> bool;
}

/// What a client can say about its own frames.
pub trait ClientKeyring: Send {
    /// The authenticator of this client over a frame's digest.
    fn authenticate(&self, digest: Digest) -> Authenticator;
}

/// Keys that accept and produce nothing but their own fixed bytes: for tests and simulation of
/// everything that is not about keys. Never for a group that listens on a socket.
#[derive(Clone, Debug, Default)]
pub struct PlainKeys {
    /// Who signs.
    pub me: ReplicaId,
    /// Replicas in the group: the length of a vector.
    pub n: u16,
}

impl PlainKeys {
    fn mac(digest: Digest, replica: ReplicaId) -> Mac {
        let mut mac = [0; 16];
        mac.copy_from_slice(&digest.0[..16]);
        mac[0] ^= replica.0.to_le_bytes()[0];
        Mac(mac)
    }

    fn signature(signer: ReplicaId, message: &[u8]) -> Signature {
        let digest = Digest::of(crate::digest::Domain::Service, message);
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&digest.0);
        bytes[32..34].copy_from_slice(&signer.0.to_le_bytes());
        Signature(bytes)
    }
}

impl Keyring for PlainKeys {
    fn sign(&self, message: &[u8]) -> Signature {
        PlainKeys::signature(self.me, message)
    }

    fn verify(&self, signer: ReplicaId, message: &[u8], signature: &Signature) -> bool {
        *signature == PlainKeys::signature(signer, message)
    }

    fn check(&self, _: ClientId, digest: Digest, authenticator: &Authenticator) -> bool {
        match authenticator {
            Authenticator::Vector(macs) => macs
                .get(usize::from(self.me.0))
                .is_some_and(|mac| *mac == PlainKeys::mac(digest, self.me)),
            Authenticator::Signature(signature) => signature.0[..32] == digest.0,
        }
    }
}

impl ClientKeyring for PlainKeys {
    fn authenticate(&self, digest: Digest) -> Authenticator {
        let macs: Vec<Mac> = (0..self.n).map(|r| PlainKeys::mac(digest, ReplicaId(r))).collect();
        Authenticator::Vector(macs)
    }
}

/// The same for a client that signs its frames instead.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainSigner;

impl ClientKeyring for PlainSigner {
    fn authenticate(&self, digest: Digest) -> Authenticator {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&digest.0);
        Authenticator::Signature(Signature(bytes))
    }
}
