//! One connection: bytes in, packets out, and how far its handshake has come.
//!
//! A connection knows nothing of pillars, replicas' messages or requests; it cuts, seals and
//! writes. Not here: who may connect and what packets mean. Depends on `auth` and `mio`.
//!
//! Invariants:
//! 1. an idle connection holds no buffers;
//! 2. nothing is written before the socket has said that it is writable, and after it refused
//!    bytes only when it says so again (readiness is edge-triggered). Shared memory has room from
//!    the beginning, and says so again by a bell.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use auth::{AuthError, Established, Initiator, Opener, PacketReader, PacketWriter, Peer, Sealer};
use base::{ClientId, Frame, Incarnation, PillarId, ReplicaId, SessionId, Time, VoteSet, limits};
use mio::event::Event;

use crate::socket::Stream;

/// From this size on a packet is closed and the next one begun, in bytes of payload: the
/// receiver can begin, and its buffers stay small. Larger single messages go alone.
pub(crate) const PACKET_BYTES_AIM: usize = 1 << 20;

/// A connection of a lane.
pub(crate) struct Conn {
    pub(crate) stream: Stream,
    pub(crate) reader: PacketReader,
    pub(crate) phase: Phase,
    /// When the connection was made; timeouts of handshakes count from here.
    pub(crate) since: Time,
    /// The socket may have bytes for us.
    pub(crate) readable: bool,
    /// The other end has stopped sending: read on to the end even after a short read.
    pub(crate) hangup: bool,
    /// It stands in the list of connections with something to read.
    pub(crate) listed: bool,
    /// Its client has reached its quota: not read for a while.
    pub(crate) paused: bool,
    /// Frames of its last packet that its client's quota has no room for yet.
    pub(crate) held: VecDeque<Arc<Frame>>,
    /// Bytes of its client's room for large packets that this connection takes.
    pub(crate) reserved: usize,
    /// Questions for the status in this turn.
    pub(crate) questions: u32,
    /// Bytes to be written until the last answer to one has left.
    told: usize,
    /// Its client read too slowly: nothing more is for it, and it is about to be closed.
    pub(crate) cut: bool,
    /// It stands in the list of connections with something to flush.
    pub(crate) dirty: bool,
    /// It is in shared memory, and looked at in every turn: nobody was asked to ring.
    pub(crate) hot: bool,
    /// Something happened on it since the last scan.
    pub(crate) active: bool,
    /// What of it is on other threads.
    pub(crate) away: Away,
    writable: bool,
    out: PacketWriter,
}

/// A connection as other threads of a task-oriented pipeline name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ConnId {
    /// Its slot on its own thread.
    pub(crate) slot: usize,
    /// Tells it apart from others that have had the slot.
    pub(crate) serial: u64,
}

/// What of a connection is on other threads, in a task-oriented pipeline.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Away {
    /// Its name there, once the halves of its link were handed over.
    pub(crate) name: Option<ConnId>,
    /// Bytes of packets that were handed over and not taken by the protocol's thread.
    pub(crate) bytes: usize,
}

/// How far a connection has come.
pub(crate) enum Phase {
    /// Dialled: our hello is on its way, or waits for the connection to be made.
    Calling {
        /// The replica we dialled.
        peer: ReplicaId,
        /// Our half of the handshake; `None` only while it is being completed.
        initiator: Option<Box<Initiator>>,
    },
    /// Accepted: the other end owes a hello.
    Answering,
    /// The handshake is done.
    Up(Box<Link>),
}

impl Phase {
    /// # Panics
    /// Without a link, or when its packets are sealed elsewhere.
    fn sealer(&mut self) -> &mut Sealer {
        let sealer = match self {
            Phase::Up(link) => link.sealer.as_mut(),
            Phase::Calling { .. } | Phase::Answering => None,
        };
        sealer.expect("packets need a link, and are sealed where its sealer is")
    }
}

/// What is known about the other end of a link.
pub(crate) struct Link {
    pub(crate) peer: Peer,
    pub(crate) session: SessionId,
    /// Replicas that this client does not want to rely on for answers.
    pub(crate) avoided: VoteSet,
    pub(crate) incarnation: Incarnation,
    pub(crate) pillar: PillarId,
    /// Seals what leaves; `None` once that is done elsewhere.
    pub(crate) sealer: Option<Sealer>,
    /// Opens what comes; `None` once that is done elsewhere.
    pub(crate) opener: Option<Opener>,
    /// The other end has proved that it lives: it is not a replayed hello.
    pub(crate) confirmed: bool,
    /// The longest packet once that is so. Before, the first one proves life and is short.
    pub(crate) packet_bytes_max: usize,
    /// Frames until the next one whose authenticator is looked at.
    pub(crate) unchecked: u32,
    /// Whether any frames came over it.
    pub(crate) worked: bool,
}

/// What one read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadOutcome {
    /// So many bytes, and perhaps there are more.
    Bytes(usize),
    /// So many bytes, and then nothing more for now.
    Last(usize),
    /// The other end closed.
    Closed,
}

impl Conn {
    /// A connection that was just accepted (`Phase::Answering`) or dialled.
    pub(crate) fn new(mut stream: Stream, phase: Phase, since: Time) -> Conn {
        let writable = matches!(phase, Phase::Answering) || stream.shared().is_some();
        Conn {
            stream,
            reader: PacketReader::new(limits::HANDSHAKE_PACKET_BYTES_MAX),
            phase,
            since,
            readable: false,
            hangup: false,
            listed: false,
            paused: false,
            held: VecDeque::new(),
            reserved: 0,
            questions: 0,
            told: 0,
            cut: false,
            dirty: false,
            hot: false,
            active: true,
            away: Away::default(),
            writable,
            out: PacketWriter::new(),
        }
    }

    /// Takes note of what the poll says. An error condition is found by the read that follows.
    pub(crate) fn on_event(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_error() || event.is_read_closed();
        self.hangup |= event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
        if let Some(shared) = self.stream.shared() {
            // A bell says that something has come, or that there is room.
            shared.rung(self.hangup);
            (self.readable, self.writable) = (true, true);
        }
    }

    /// The link, once there is one.
    pub(crate) fn link(&self) -> Option<&Link> {
        match &self.phase {
            Phase::Up(link) => Some(link),
            Phase::Calling { .. } | Phase::Answering => None,
        }
    }

    /// The same, to be changed.
    pub(crate) fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.phase {
            Phase::Up(link) => Some(link),
            Phase::Calling { .. } | Phase::Answering => None,
        }
    }

    /// Whether the other end has proved who it is and that it lives.
    pub(crate) fn confirmed(&self) -> bool {
        self.link().is_some_and(|link| link.confirmed)
    }

    /// The client at the other end, once that is proved.
    pub(crate) fn client(&self) -> Option<ClientId> {
        match self.link()? {
            Link { peer: Peer::Client(client), confirmed: true, .. } => Some(*client),
            _ => None,
        }
    }

    /// Completes the handshake: from now on packets are sealed. They may be large once the link
    /// is confirmed.
    pub(crate) fn establish(&mut self, established: Established) {
        self.phase = Phase::Up(Box::new(Link {
            peer: established.peer,
            session: established.session,
            avoided: VoteSet::EMPTY,
            incarnation: established.peer_incarnation,
            pillar: established.pillar,
            sealer: Some(established.sealer),
            opener: Some(established.opener),
            confirmed: false,
            packet_bytes_max: established.packet_bytes_max,
            unchecked: 0,
            worked: false,
        }));
    }

    /// Reads once. [`PacketReader::packet`] must have returned no packet before.
    pub(crate) fn read(&mut self) -> io::Result<ReadOutcome> {
        let spare = self.reader.spare();
        let room = spare.len();
        let n = loop {
            match self.stream.read(spare) {
                Ok(n) => break n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(ReadOutcome::Last(0));
                }
                Err(e) => return Err(e),
            }
        };
        if n == 0 {
            return Ok(ReadOutcome::Closed);
        }
        self.reader.filled(n);
        self.active = true;
        // A short read has emptied the socket, and whatever comes later is a new edge. Only an
        // end of the stream that was announced before the read has none.
        if n < room && !self.hangup {
            self.readable = false;
            return Ok(ReadOutcome::Last(n));
        }
        Ok(ReadOutcome::Bytes(n))
    }

    /// Queues bytes as they are: packets of the handshake.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.out.queue(bytes);
    }

    /// The packet of this turn, to append `len` bytes of payload to. Begins it with `prefix`;
    /// seals the one before when both would be too large together.
    ///
    /// # Errors
    /// When the packet before cannot be sealed: close the connection.
    ///
    /// # Panics
    /// Without a link.
    pub(crate) fn room(&mut self, len: usize, prefix: &[u8]) -> Result<&mut Vec<u8>, AuthError> {
        self.out.room(self.phase.sealer(), len, prefix, PACKET_BYTES_AIM)
    }

    /// Queues a packet of its own, after what was appended so far.
    ///
    /// # Errors
    /// When it cannot be sealed: close the connection.
    ///
    /// # Panics
    /// Without a link.
    pub(crate) fn packet(&mut self, payload: &[u8]) -> Result<(), AuthError> {
        self.out.packet(self.phase.sealer(), payload)
    }

    /// Queues an answer to a question for the status, unless one waits already: that one will do.
    ///
    /// # Errors
    /// As [`Conn::packet`].
    ///
    /// # Panics
    /// Without a link.
    pub(crate) fn tell(&mut self, status: &[u8]) -> Result<(), AuthError> {
        if self.told == 0 {
            self.packet(status)?;
            self.told = self.backlog();
        }
        Ok(())
    }

    /// Gives up what waits to be written, and whatever would: a packet in part may have left.
    pub(crate) fn cut(&mut self) {
        self.cut = true;
        self.out = PacketWriter::new();
    }

    /// Bytes that wait to be written.
    pub(crate) fn backlog(&self) -> usize {
        self.out.backlog()
    }

    /// Seals the packet of this turn and writes what the socket takes. Returns bytes written.
    pub(crate) fn flush(&mut self) -> io::Result<usize> {
        // Without a sealer here nothing is in the making.
        if let Phase::Up(link) = &mut self.phase
            && let Some(sealer) = &mut link.sealer
        {
            self.out.seal(sealer).map_err(io::Error::other)?;
        }
        self.active = true;
        let mut written = 0;
        while self.writable && self.out.backlog() > 0 {
            match self.stream.write(self.out.unwritten()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.out.wrote(n);
                    self.told = self.told.saturating_sub(n);
                    written += n;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(e) => return Err(e),
            }
        }
        Ok(written)
    }

    /// Gives up buffers that an idle connection does not need. True when some are left.
    pub(crate) fn release_idle(&mut self) -> bool {
        if self.reader.buffered() == 0 {
            self.reader.release_idle();
        }
        self.out.release_idle();
        self.reader.capacity() > 0 || self.out.capacity() > 0
    }
}

/// Connections by number. Numbers are used again.
#[derive(Default)]
pub(crate) struct Slab {
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<usize>,
}

impl Slab {
    /// The number that the next [`Slab::insert`] will return.
    pub(crate) fn next(&self) -> usize {
        self.free.last().copied().unwrap_or(self.conns.len())
    }

    /// Adds a connection.
    pub(crate) fn insert(&mut self, conn: Conn) -> usize {
        let slot = self.next();
        if self.free.pop().is_some() {
            self.conns[slot] = Some(Box::new(conn));
        } else {
            self.conns.push(Some(Box::new(conn)));
        }
        slot
    }

    /// The connection, if it is still there.
    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Conn> {
        self.conns.get_mut(slot)?.as_deref_mut()
    }

    /// Takes a connection out.
    pub(crate) fn remove(&mut self, slot: usize) -> Option<Box<Conn>> {
        let conn = self.conns.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(conn)
    }

    /// All connections with their numbers.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Conn)> {
        self.conns.iter_mut().enumerate().filter_map(|(slot, c)| Some((slot, c.as_deref_mut()?)))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.conns.len() - self.free.len()
    }
}
