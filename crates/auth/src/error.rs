//! Why something was refused: one variant per cause, so that it can be counted and said.

use base::{Epoch, GroupId, PillarId, ReplicaId};

use crate::hello::Peer;

/// Why a key, a handshake or a packet was refused. No variant carries secret bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Randomness,
    /// A secret in hexadecimal is not 64 hexadecimal digits.
    #[error("a secret key is 64 hexadecimal digits")]
    SecretText,
    /// The secret is not the one that belongs to the public keys of this identity.
    #[error("this secret key does not belong to the public keys of {0} in the group")]
    WrongSecret(Peer),
    /// The group has no such member.
    #[error("{0} is not in the group")]
    UnknownPeer(Peer),
    /// An ed25519 public key is not a point of the curve.
    #[error("the ed25519 key of {0} is not a valid key")]
    PublicKey(Peer),
    /// The X25519 key is not certified by the ed25519 key.
    #[error("the X25519 key of {0} is not certified by its ed25519 key")]
    Certificate(Peer),
    /// Two members have the same identifier or share a key.
    #[error("{0} has the identifier or a key of another member")]
    Duplicate(Peer),
    /// More members or pillars than the limits allow, or none.
    #[error("a group has 1 to {max} {what}, not {count}")]
    Members {
        /// Replicas, clients or pillars.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// Bytes of a handshake that cannot be one.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The first bytes are not those of this protocol.
    #[error("not a Stylite handshake")]
    Magic,
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks link version {theirs}, this process version {ours}")]
    Version {
        /// The peer's version.
        theirs: u16,
        /// This process's version.
        ours: u16,
    },
    /// The peer asks for an AEAD that this process does not have.
    #[error("unknown cipher suite {0}")]
    Suite(u8),
    /// The peer belongs to another group.
    #[error("the peer is of group {theirs:?}, this is group {ours:?}")]
    Group {
        /// The peer's group.
        theirs: GroupId,
        /// This process's group.
        ours: GroupId,
    },
    /// The peer lives in another membership epoch.
    #[error("the peer is in epoch {theirs}, this replica in epoch {ours}")]
    Epoch {
        /// The peer's epoch.
        theirs: Epoch,
        /// This process's epoch.
        ours: Epoch,
    },
    /// The handshake is meant for another replica.
    #[error("the handshake is for replica {wanted}, this is {me}")]
    Receiver {
        /// Whom the peer wants.
        wanted: ReplicaId,
        /// Who this is.
        me: Peer,
    },
    /// The group has no such pillar.
    #[error("there is no pillar {wanted} in a group of {pillars}")]
    Pillar {
        /// The pillar asked for.
        wanted: PillarId,
        /// How many the group has.
        pillars: u16,
    },
    /// A replica does not link to itself.
    #[error("a replica does not link to itself")]
    SelfLink,
    /// The static key of the handshake is not that of the claimed identity.
    #[error("the static key is not that of {0}")]
    PeerKey(Peer),
    /// The handshake does not decrypt: wrong key, altered, or another peer's.
    #[error("the handshake does not decrypt: a wrong key or altered bytes")]
    Handshake,
    /// A packet's length is out of bounds.
    #[error("a packet of {bytes} bytes where 1 to {max} are allowed")]
    PacketLength {
        /// The packet's length without its length header, in bytes.
        bytes: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// A packet does not open: altered, truncated, replayed, reordered, or of another link.
    #[error("packet {counter} of the link does not open: altered, replayed or of another link")]
    Seal {
        /// How many packets of the link were opened before.
        counter: u64,
    },
    /// The link has carried as many packets as one key may seal. Connect again.
    #[error("the link has carried as many packets as one key may seal; connect again")]
    Exhausted,
}
