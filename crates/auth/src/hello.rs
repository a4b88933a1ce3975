//! The clear beginning of a handshake: who calls whom, for what. Checked field by field before
//! any expensive work, and bound into the handshake as its prologue, so that an altered hello
//! never leads to a link.
//!
//! Byte map, little-endian, 68 bytes: magic 4, version 2, suite 1, role 1, id 4, receiver 2,
//! pillar 2, epoch 4, incarnation 8, session 8, group 32.

use std::fmt;

use base::codec::{Malformed, Reader, Writer};
use base::{ClientId, Epoch, GroupId, Incarnation, PillarId, ReplicaId, SessionId};

use crate::directory::Directory;
use crate::error::AuthError;
use crate::seal::Suite;

/// Version of the handshake and of the sealing of links.
pub const LINK_VERSION: u16 = 1;

/// Bytes of an encoded hello.
pub const HELLO_BYTES: usize = 68;

const MAGIC: [u8; 4] = *b"STYL";

/// Who is at one end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    /// A replica of the group.
    Replica(ReplicaId),
    /// A principal of the group's client list.
    Client(ClientId),
}

impl Peer {
    /// Role and identifier, as they are signed and bound.
    pub(crate) fn to_bytes(self) -> [u8; 5] {
        let (role, id) = match self {
            Peer::Replica(id) => (0, u32::from(id.0)),
            Peer::Client(id) => (1, id.0),
        };
        let mut bytes = [role, 0, 0, 0, 0];
        bytes[1..].copy_from_slice(&id.to_le_bytes());
        bytes
    }

    fn from_parts(role: u8, id: u32) -> Result<Peer, Malformed> {
        match role {
            0 => {
                let id = u16::try_from(id).map_err(|_| Malformed("replica id of a hello"))?;
                Ok(Peer::Replica(ReplicaId(id)))
            }
            1 => Ok(Peer::Client(ClientId(id))),
            _ => Err(Malformed("role of a hello")),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Replica(id) => write!(f, "replica {id}"),
            Peer::Client(id) => write!(f, "client {id}"),
        }
    }
}

/// What the initiator of a link says in clear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The version it speaks: [`LINK_VERSION`].
    pub version: u16,
    /// The AEAD that the link will use.
    pub suite: Suite,
    /// Who it says it is.
    pub initiator: Peer,
    /// Which replica it wants.
    pub receiver: ReplicaId,
    /// Which pillar of it.
    pub pillar: PillarId,
    /// The membership epoch it lives in.
    pub epoch: Epoch,
    /// Which life of the initiator's process this is.
    pub incarnation: Incarnation,
    /// A client's session: where replies go. Free for replicas.
    pub session: SessionId,
    /// The group.
    pub group: GroupId,
}

impl Hello {
    /// The 68 bytes of the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_BYTES);
        let peer = self.initiator.to_bytes();
        Writer::new(&mut out)
            .bytes(&MAGIC)
            .u16(self.version)
            .u8(self.suite as u8)
            .bytes(&peer)
            .u16(self.receiver.0)
            .u16(self.pillar.0)
            .u32(self.epoch.0)
            .u64(self.incarnation.0)
            .u64(self.session.0)
            .bytes(&self.group.0);
        debug_assert_eq!(out.len(), HELLO_BYTES);
        out
    }

    /// Reads a hello from the front of a handshake packet. Other versions may have another
    /// layout, so magic and version are judged first.
    ///
    /// # Errors
    /// [`AuthError::Magic`], [`AuthError::Version`], [`AuthError::Suite`] or
    /// [`AuthError::Malformed`].
    pub fn decode(r: &mut Reader<'_>) -> Result<Hello, AuthError> {
        if r.array("hello").map_err(malformed)? != MAGIC {
            return Err(AuthError::Magic);
        }
        let version = r.u16("hello").map_err(malformed)?;
        if version != LINK_VERSION {
            return Err(AuthError::Version { theirs: version, ours: LINK_VERSION });
        }
        let suite = Suite::from_byte(r.u8("hello").map_err(malformed)?)?;
        Hello::decode_fields(r, version, suite).map_err(malformed)
    }

    fn decode_fields(r: &mut Reader<'_>, version: u16, suite: Suite) -> Result<Hello, Malformed> {
        Ok(Hello {
            version,
            suite,
            initiator: {
                let role = r.u8("hello")?;
                Peer::from_parts(role, r.u32("hello")?)?
            },
            receiver: ReplicaId(r.u16("hello")?),
            pillar: PillarId(r.u16("hello")?),
            epoch: Epoch(r.u32("hello")?),
            incarnation: Incarnation(r.u64("hello")?),
            session: SessionId(r.u64("hello")?),
            group: GroupId(r.array("hello")?),
        })
    }

    /// Everything that can be said about a hello without cryptography, from the point of view
    /// of replica `me`: cheap refusals first.
    pub(crate) fn check(&self, me: Peer, directory: &Directory) -> Result<(), AuthError> {
        if self.group != directory.group() {
            return Err(AuthError::Group { theirs: self.group, ours: directory.group() });
        }
        if self.epoch != directory.epoch() {
            return Err(AuthError::Epoch { theirs: self.epoch, ours: directory.epoch() });
        }
        if Peer::Replica(self.receiver) != me {
            return Err(AuthError::Receiver { wanted: self.receiver, me });
        }
        if self.pillar.0 >= directory.pillars() {
            let pillars = directory.pillars();
            return Err(AuthError::Pillar { wanted: self.pillar, pillars });
        }
        if self.initiator == me {
            return Err(AuthError::SelfLink);
        }
        if directory.peer(self.initiator).is_none() {
            return Err(AuthError::UnknownPeer(self.initiator));
        }
        Ok(())
    }
}

fn malformed(error: Malformed) -> AuthError {
    AuthError::Malformed(error.0)
}
