//! What the stages of a pipeline hand to each other: the work of a whole turn at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use auth::{Opener, Peer, Sealer};
use base::{ClientId, Frame, ReplicaId, SessionId, VoteSet};
use proto::pbft::msg::Message;

use crate::conn::ConnId;
use crate::links::Close;
use crate::logic::Sender;
use crate::socket::Stream;

/// From an I/O thread to an authentication thread.
pub(super) enum ToAuth {
    /// A link has proved to live; its packets are opened here from now on.
    Link(ConnId, Box<Half>),
    /// Its packets, as they came.
    Sealed(ConnId, Packets),
    /// What its first packet carried, opened where it proved to live.
    Opened(ConnId, Vec<u8>),
    /// It is closed.
    Gone(ConnId),
}

/// What an authentication thread has of a link.
pub(super) struct Half {
    pub(super) peer: Peer,
    pub(super) sender: Sender,
    pub(super) opener: Opener,
    /// Frames until the next one whose authenticator is looked at.
    pub(super) unchecked: u32,
    /// Of a client: whom it does not want to rely on, if it has just said so.
    pub(super) avoids: Option<VoteSet>,
    /// The way back to a peer. Replies to clients are sealed where they are written.
    pub(super) back: Option<Back>,
}

/// The way back to a peer.
pub(super) struct Back {
    pub(super) sealer: Sealer,
    /// Bytes that are sealed and not written.
    pub(super) backlog: Arc<AtomicUsize>,
}

/// Packets of one link, one behind the other.
#[derive(Default)]
pub(super) struct Packets {
    pub(super) bytes: Vec<u8>,
    /// Where each ends.
    pub(super) ends: Vec<usize>,
}

/// From an authentication thread to an I/O thread.
pub(super) enum FromAuth {
    /// Sealed packets to write.
    Write(ConnId, Vec<u8>),
    /// The connection breaks a rule.
    Close(ConnId, Close),
    /// The client asks how we are.
    Asks(ConnId),
    /// The client does not want to rely on these replicas for answers.
    Avoids(ConnId, VoteSet),
}

/// From an authentication thread to the protocol's thread, in the order of each connection.
pub(super) enum Opened {
    /// Frames of a client, and how many bytes of packets they came in.
    Frames(ConnId, usize, Vec<Arc<Frame>>),
    /// The client's connection is closed.
    Gone(ConnId),
    /// Messages of a peer, and how many bytes of packets they came in.
    Messages(ConnId, usize, Sender, Vec<Message>),
    /// A peer has sealed what means nothing.
    Garbage(ReplicaId, &'static str),
    /// The link to a peer is up: what is sent to it from now on arrives.
    Connected(ReplicaId),
}

/// From the protocol's thread to an I/O thread: what it has taken of a connection.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) conn: ConnId,
    pub(super) bytes: usize,
    pub(super) frames: usize,
    pub(super) repeats: u64,
}

/// From the protocol's thread to an authentication thread: the payload of a packet to a peer.
pub(super) struct Outgoing {
    pub(super) to: ReplicaId,
    pub(super) payload: Vec<u8>,
}

/// From the clients' thread to that of the replies.
pub(super) enum ToReplies {
    /// A link has proved to live; what is for its client is sealed and written there.
    Link(ConnId, Box<Reverse>),
    /// Its client does not want to rely on these replicas for answers.
    Avoid(ConnId, VoteSet),
    /// A packet of its own.
    Packet(ConnId, Arc<Vec<u8>>),
    /// How we are, if that is so: its client has asked.
    Status(ConnId, Arc<Vec<u8>>),
    /// It is closed.
    Gone(ConnId),
}

/// The writing half of a client's link.
pub(super) struct Reverse {
    pub(super) client: ClientId,
    pub(super) session: SessionId,
    pub(super) sealer: Sealer,
    pub(super) stream: Stream,
}
