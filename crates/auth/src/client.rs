//! What a client says about its own frames: the implementation of
//! [`base::crypto::ClientKeyring`].
//!
//! Normally a vector with one MAC per replica; on request a signature, which convinces
//! everybody and costs a replica some 400 times as much to check.

use std::fmt;

use base::crypto::ClientKeyring;
use base::{Authenticator, ClientId, Digest, ReplicaId};
use ed25519_zebra::SigningKey;
use zeroize::Zeroizing;

use crate::directory::Directory;
use crate::error::AuthError;
use crate::hello::Peer;
use crate::keys::{FRAME_PREFIX, Secret, prefixed, sign};
use crate::mac::{MacKey, Pair};
use crate::replica::own_entry;

/// One client's keys.
#[derive(Clone)]
pub struct ClientKeys {
    me: ClientId,
    signer: Zeroizing<SigningKey>,
    /// One per replica.
    pairwise: Vec<MacKey>,
    signing: bool,
}

impl ClientKeys {
    /// The keys of client `me`, which authenticates with vectors. Costs one Diffie-Hellman per
    /// replica.
    ///
    /// # Errors
    /// [`AuthError::UnknownPeer`] when the directory has no such client,
    /// [`AuthError::WrongSecret`] when its public keys there are not this secret's,
    /// [`AuthError::PeerKey`] when a replica's X25519 key is unusable.
    pub fn new(
        secret: &Secret,
        me: ClientId,
        directory: &Directory,
    ) -> Result<ClientKeys, AuthError> {
        own_entry(secret, Peer::Client(me), directory)?;
        let exchange = secret.static_key();
        let agree = |replica: ReplicaId| {
            let peer = Peer::Replica(replica);
            let theirs = directory.replica(replica).ok_or(AuthError::UnknownPeer(peer))?;
            let pair = Pair { group: directory.group(), client: me, replica };
            MacKey::agree(&exchange, &theirs.x25519, pair).ok_or(AuthError::PeerKey(peer))
        };
        let pairwise = (0..directory.n()).map(|r| agree(ReplicaId(r))).collect::<Result<_, _>>()?;
        Ok(ClientKeys { me, signer: secret.signing_key(), pairwise, signing: false })
    }

    /// The same keys, but every frame is signed instead.
    #[must_use]
    pub fn signing(mut self) -> ClientKeys {
        self.signing = true;
        self
    }

    /// Whose keys these are.
    #[must_use]
    pub fn me(&self) -> ClientId {
        self.me
    }
}

impl ClientKeyring for ClientKeys {
    fn authenticate(&self, digest: Digest) -> Authenticator {
        if self.signing {
            let message = prefixed(FRAME_PREFIX, &digest.0);
            return Authenticator::Signature(sign(&self.signer, &message));
        }
        Authenticator::Vector(self.pairwise.iter().map(|key| key.mac(digest)).collect())
    }
}

impl fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKeys").field("me", &self.me).finish_non_exhaustive()
    }
}
