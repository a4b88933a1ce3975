//! Identities, request authenticators and sealed links.
//!
//! What it is: the concrete cryptography behind the vocabulary of `base`. Bytes in, bytes out:
//! no socket, no file, no clock, no thread. Randomness only where keys are born
//! ([`Secret::generate`], [`random_u64`], the ephemeral key of a handshake).
//!
//! What it is not: a policy. Which link replaces which, who is suspected, when to reconnect and
//! which frame is a replay is decided by its callers. It may depend on `base` and on vetted
//! cryptographic crates, on nothing else.
//!
//! | who | how | module |
//! |---|---|---|
//! | an identity | one 32-byte seed, from it an ed25519 and a certified X25519 key | [`keys`] |
//! | everybody's public keys | checked once, shared read-only | [`directory`] |
//! | what convinces a third party | ed25519 | [`replica`] |
//! | a client's frames | a vector of MACs, or a signature | [`client`], [`replica`] |
//! | a connection | Noise IK, AEGIS-128L each way | [`link`], [`seal`], [`packet`], [`writer`] |
//!
//! Invariants:
//! 1. secrets are zeroized when dropped and appear in no `Debug` output;
//! 2. every key in a [`Directory`] is certified by its ed25519 identity and used once only;
//! 3. MACs and static keys are compared in constant time;
//! 4. a length from outside is compared with its bound before anything is allocated for it.

#![forbid(unsafe_code)]

pub mod client;
pub mod directory;
mod error;
pub mod hello;
pub mod keys;
pub mod link;
mod mac;
pub mod packet;
pub mod replica;
pub mod seal;
pub mod writer;

pub use client::ClientKeys;
pub use directory::Directory;
pub use error::AuthError;
pub use hello::{Hello, Peer};
pub use keys::{PublicKeys, Secret, random_u64};
pub use link::{Established, Initiator, LinkIdentity, Responder};
pub use packet::PacketReader;
pub use replica::ReplicaKeys;
pub use seal::{Opener, Sealer};
pub use writer::PacketWriter;
