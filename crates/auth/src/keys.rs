//! Identities: one secret seed, the two key pairs derived from it, and their public halves.
//!
//! seed ──derive──► ed25519 signing key   (who I am)
//!      └─derive──► X25519 static key     (links and pairwise MAC keys), certified by the former
//!
//! What must never change, because keys and signatures outlive processes: the contexts and the
//! prefixes below. A test holds them to a fixed vector. Files of keys are `genesis`'s business.

use std::fmt;

use base::Signature;
use ed25519_zebra::{SigningKey, VerificationKey};
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::AuthError;
use crate::hello::Peer;

/// Bytes of a secret seed.
pub const SECRET_BYTES: usize = 32;

const ED25519_CONTEXT: &str = "stylite v1 identity ed25519 signing key";
const X25519_CONTEXT: &str = "stylite v1 identity x25519 static key";

// Each kind of signed thing has its own prefix, none the beginning of another, so that a
// signature over one kind is never one over another.
pub(crate) const CERTIFICATE_PREFIX: &[u8] = b"stylite/certificate/1\0";
pub(crate) const MESSAGE_PREFIX: &[u8] = b"stylite/message/1\0";
pub(crate) const FRAME_PREFIX: &[u8] = b"stylite/frame/1\0";

/// The secret of one identity: a 32-byte seed. Zeroized when dropped; `Debug` shows nothing;
/// there is no `Display` and no serialization but [`Secret::to_hex`], for key files.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// A fresh secret from the operating system's random source.
    ///
    /// # Errors
    /// [`AuthError::Randomness`] when there are no random bytes.
    pub fn generate() -> Result<Secret, AuthError> {
        let mut secret = Secret([0; SECRET_BYTES]);
        getrandom::fill(&mut secret.0).map_err(|_| AuthError::Randomness)?;
        Ok(secret)
    }

    /// The secret with this seed. Every value is a valid one; its secrecy is the caller's.
    #[must_use]
    pub fn from_bytes(seed: [u8; SECRET_BYTES]) -> Secret {
        Secret(seed)
    }

    /// Reads what [`Secret::to_hex`] wrote.
    ///
    /// # Errors
    /// [`AuthError::SecretText`] unless `text` is 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Secret, AuthError> {
        let mut secret = Secret([0; SECRET_BYTES]);
        hex::decode_to_slice(text, &mut secret.0).map_err(|_| AuthError::SecretText)?;
        Ok(secret)
    }

    /// The seed in hexadecimal, for a key file and for nothing else.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0))
    }

    /// The public half, as `peer`'s: the certificate names the role and identifier.
    #[must_use]
    pub fn public(&self, peer: Peer) -> PublicKeys {
        let signer = self.signing_key();
        let x25519 = *x25519_dalek::PublicKey::from(&self.static_key()).as_bytes();
        let ed25519: [u8; 32] = VerificationKey::from(&*signer).into();
        let certificate = sign(&signer, &certificate_message(peer, &x25519));
        PublicKeys { ed25519, x25519, certificate }
    }

    /// Wrapped, because a signing key does not zeroize itself.
    pub(crate) fn signing_key(&self) -> Zeroizing<SigningKey> {
        Zeroizing::new(SigningKey::from(*self.derive(ED25519_CONTEXT)))
    }

    pub(crate) fn static_key(&self) -> StaticSecret {
        StaticSecret::from(*self.derive(X25519_CONTEXT))
    }

    fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, &self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The public half of an identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKeys {
    /// The ed25519 identity: verifies signatures.
    pub ed25519: [u8; 32],
    /// The X25519 key: authenticates links and yields pairwise MAC keys.
    pub x25519: [u8; 32],
    /// The identity's signature over role, identifier and X25519 key.
    pub certificate: Signature,
}

impl PublicKeys {
    /// Checks that these are well-formed keys of `peer`, the X25519 key certified by the
    /// ed25519 key. Costs one signature check.
    ///
    /// # Errors
    /// [`AuthError::PublicKey`] or [`AuthError::Certificate`].
    pub fn check(&self, peer: Peer) -> Result<(), AuthError> {
        self.verifier(peer).map(|_| ())
    }

    /// The verification key, once the certificate has been checked.
    pub(crate) fn verifier(&self, peer: Peer) -> Result<VerificationKey, AuthError> {
        let key =
            VerificationKey::try_from(self.ed25519).map_err(|_| AuthError::PublicKey(peer))?;
        let message = certificate_message(peer, &self.x25519);
        if verify(&key, &message, &self.certificate) {
            Ok(key)
        } else {
            Err(AuthError::Certificate(peer))
        }
    }
}

/// Eight random bytes of the operating system: for incarnations, sessions, nonces.
///
/// # Errors
/// [`AuthError::Randomness`] when there are none.
pub fn random_u64() -> Result<u64, AuthError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| AuthError::Randomness)?;
    Ok(u64::from_le_bytes(bytes))
}

pub(crate) fn sign(key: &SigningKey, message: &[u8]) -> Signature {
    Signature(key.sign(message).into())
}

pub(crate) fn verify(key: &VerificationKey, message: &[u8], signature: &Signature) -> bool {
    key.verify(&ed25519_zebra::Signature::from(signature.0), message).is_ok()
}

/// `prefix` and then `message`, as it is signed.
pub(crate) fn prefixed(prefix: &[u8], message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(prefix.len() + message.len());
    bytes.extend_from_slice(prefix);
    bytes.extend_from_slice(message);
    bytes
}

fn certificate_message(peer: Peer, x25519: &[u8; 32]) -> Vec<u8> {
    let mut bytes = prefixed(CERTIFICATE_PREFIX, &peer.to_bytes());
    bytes.extend_from_slice(x25519);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ClientId, ReplicaId};

    const ED25519: &str = "f603cc2d11a37347c8941ee4d4b0c94dd44f534a2cb89f28b54df419a7666938";
    const X25519: &str = "8637857ddf9fba7c3f7221cb8e17aec3bf5225f031a2662f2ed25cd5b74ed242";
    const CERTIFICATE: &str = "ab2ff232f1964fae80716229300b7f8cb5d52b176dddcd8374f9cee2d863864f\
        5e21af0fa35342578b6ff26b4a7a46a342ee8ce6943280ea32d82ab1f087b70f";

    /// Keys of running groups are derived by this code: a change here locks them all out. The
    /// vector was computed with other implementations of the same primitives.
    #[test]
    fn derivation_never_changes() {
        let public = Secret::from_bytes([7; 32]).public(Peer::Replica(ReplicaId(2)));
        assert_eq!(hex::encode(public.ed25519), ED25519);
        assert_eq!(hex::encode(public.x25519), X25519);
        assert_eq!(hex::encode(public.certificate.0), CERTIFICATE);
    }

    #[test]
    fn a_certificate_names_role_identifier_and_key() {
        let peer = Peer::Replica(ReplicaId(2));
        let public = Secret::from_bytes([7; 32]).public(peer);
        assert_eq!(public.check(peer), Ok(()));
        for other in [Peer::Replica(ReplicaId(3)), Peer::Client(ClientId(2))] {
            assert_eq!(public.check(other), Err(AuthError::Certificate(other)));
        }
        let swapped = PublicKeys { x25519: [9; 32], ..public };
        assert_eq!(swapped.check(peer), Err(AuthError::Certificate(peer)));
        // 2 is not the y coordinate of a point of the curve.
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        let bad = PublicKeys { ed25519: off_curve, ..public };
        assert_eq!(bad.check(peer), Err(AuthError::PublicKey(peer)));
    }

    #[test]
    fn hex_is_read_back_and_checked() {
        let secret = Secret::generate().expect("randomness");
        let text = secret.to_hex();
        let back = Secret::from_hex(&text).expect("own text");
        assert_eq!(back.0, secret.0);
        for bad in ["", "00", &format!("{}0", *text), &"g".repeat(64)] {
            assert_eq!(Secret::from_hex(bad).err(), Some(AuthError::SecretText));
        }
    }

    #[test]
    fn two_secrets_differ() {
        let (a, b) = (Secret::generate(), Secret::generate());
        assert_ne!(a.expect("randomness").0, b.expect("randomness").0);
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = Secret::from_bytes([0xab; 32]);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
