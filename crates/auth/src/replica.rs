//! What a replica signs and checks: the implementation of [`base::Keyring`].
//!
//! Signatures are ed25519 over a fixed prefix and the caller's message; the caller puts group,
//! epoch and message type into the message. MACs of clients are checked under pairwise keys,
//! which are derived at a client's first frame and kept (decision 4 of the design: a frame's
//! vector convinces each replica alone, by its own entry).

use std::fmt;
use std::sync::{Arc, OnceLock};

use base::{Authenticator, ClientId, Digest, Keyring, Mac, ReplicaId, Signature};
use ed25519_zebra::SigningKey;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::directory::Directory;
use crate::error::AuthError;
use crate::hello::Peer;
use crate::keys::{FRAME_PREFIX, MESSAGE_PREFIX, Secret, prefixed, sign, verify};
use crate::mac::{MacKey, Pair};

/// One replica's keys. Clones share the cache of pairwise keys; a check of a cached key takes
/// no lock.
#[derive(Clone)]
pub struct ReplicaKeys {
    me: ReplicaId,
    directory: Directory,
    shared: Arc<Shared>,
}

struct Shared {
    signer: Zeroizing<SigningKey>,
    exchange: StaticSecret,
    /// One per client, in the directory's order. `None` inside: that client's key is unusable.
    pairwise: Vec<OnceLock<Option<MacKey>>>,
}

impl ReplicaKeys {
    /// The keys of replica `me`.
    ///
    /// # Errors
    /// [`AuthError::UnknownPeer`] when the directory has no such replica,
    /// [`AuthError::WrongSecret`] when its public keys there are not this secret's.
    pub fn new(
        secret: &Secret,
        me: ReplicaId,
        directory: &Directory,
    ) -> Result<ReplicaKeys, AuthError> {
        own_entry(secret, Peer::Replica(me), directory)?;
        let pairwise = (0..directory.clients()).map(|_| OnceLock::new()).collect();
        let shared =
            Shared { signer: secret.signing_key(), exchange: secret.static_key(), pairwise };
        Ok(ReplicaKeys { me, directory: directory.clone(), shared: Arc::new(shared) })
    }

    /// Whose keys these are.
    #[must_use]
    pub fn me(&self) -> ReplicaId {
        self.me
    }

    fn check_vector(&self, client: ClientId, digest: Digest, macs: &[Mac]) -> bool {
        if macs.len() != usize::from(self.directory.n()) {
            return false;
        }
        let (Some(mac), Some(index)) =
            (macs.get(usize::from(self.me.0)), self.directory.client_index(client))
        else {
            return false;
        };
        let key = self.shared.pairwise[index].get_or_init(|| self.agree(client));
        key.as_ref().is_some_and(|key| key.check(digest, mac))
    }

    fn agree(&self, client: ClientId) -> Option<MacKey> {
        let theirs = self.directory.client(client)?;
        let pair = Pair { group: self.directory.group(), client, replica: self.me };
        MacKey::agree(&self.shared.exchange, &theirs.x25519, pair)
    }
}

impl Keyring for ReplicaKeys {
    fn sign(&self, message: &[u8]) -> Signature {
        sign(&self.shared.signer, &prefixed(MESSAGE_PREFIX, message))
    }

    fn verify(&self, signer: ReplicaId, message: &[u8], signature: &Signature) -> bool {
        self.directory.verify(signer, message, signature)
    }

    fn check(&self, client: ClientId, digest: Digest, authenticator: &Authenticator) -> bool {
        match authenticator {
            Authenticator::Vector(macs) => self.check_vector(client, digest, macs),
            Authenticator::Signature(signature) => {
                self.directory.entry(Peer::Client(client)).is_some_and(|entry| {
                    verify(&entry.verifier, &prefixed(FRAME_PREFIX, &digest.0), signature)
                })
            }
        }
    }
}

impl fmt::Debug for ReplicaKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaKeys").field("me", &self.me).finish_non_exhaustive()
    }
}

/// Checks that `secret` is `peer`'s in the directory.
pub(crate) fn own_entry(
    secret: &Secret,
    peer: Peer,
    directory: &Directory,
) -> Result<(), AuthError> {
    let keys = directory.peer(peer).ok_or(AuthError::UnknownPeer(peer))?;
    // Signatures are deterministic, so the whole public half must be equal.
    if secret.public(peer) == *keys { Ok(()) } else { Err(AuthError::WrongSecret(peer)) }
}
