//! A sealed link over loopback TCP, without a runtime.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use auth::{Established, Initiator, LinkIdentity, Opener, PacketReader, Peer, Responder, Sealer};
use base::{ClientId, Incarnation, PillarId, ReplicaId, SessionId};
use genesis::{InitOptions, LocalGroup};
use rustix::event::{PollFd, PollFlags, poll};

/// Keys for everybody, made for this run.
pub struct Keys(LocalGroup);

/// One end of a link.
pub struct Link {
    stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
    reader: PacketReader,
    out: Vec<u8>,
    written: usize,
}

impl Keys {
    /// For `servers` servers and `clients` clients.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(servers: u16, clients: u32) -> Result<Keys> {
        let options = InitOptions { replicas: servers, clients, ..InitOptions::default() };
        Ok(Keys(LocalGroup::generate(&options)?))
    }

    /// Both ends of a new link: the client's, the server's.
    ///
    /// # Errors
    /// When the system refuses sockets.
    pub fn link(&self, client: u32, server: u16) -> Result<(Link, Link)> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port")?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        let directory = self.0.group.directory();
        let identity = |peer| {
            let secret = self.0.secret(peer).context("no such member")?;
            Ok::<_, anyhow::Error>(LinkIdentity::new(secret, peer, Incarnation(1), directory)?)
        };
        let caller = identity(Peer::Client(ClientId(client)))?;
        let called = identity(Peer::Replica(ReplicaId(server)))?;
        let (to, pillar, session) = (ReplicaId(server), PillarId(0), SessionId(1));
        let (call, first) = Initiator::start(&caller, directory, to, pillar, session)?;
        let (theirs, answer) = Responder::accept(&called, directory, &body(&first)?)?;
        let ours = call.finish(&body(&answer)?)?;
        Ok((Link::new(near, ours)?, Link::new(far, theirs)?))
    }
}

/// A packet without its length.
fn body(packet: &[u8]) -> Result<Vec<u8>> {
    let mut reader = PacketReader::new(packet.len());
    let spare = reader.spare();
    spare[..packet.len()].copy_from_slice(packet);
    reader.filled(packet.len());
    Ok(reader.packet()?.context("a whole packet")?.to_vec())
}

impl Link {
    fn new(stream: TcpStream, link: Established) -> Result<Link> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let reader = PacketReader::new(link.packet_bytes_max);
        let Established { sealer, opener, .. } = link;
        Ok(Link { stream, sealer, opener, reader, out: Vec::new(), written: 0 })
    }

    /// Adds a sealed packet to what is to be written; `fill` appends its content.
    ///
    /// # Errors
    /// When it is too large.
    pub fn queue(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let start = self.sealer.begin(&mut self.out);
        fill(&mut self.out);
        Ok(self.sealer.finish(&mut self.out, start)?)
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn flush(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    fn poll_fd(&self) -> PollFd<'_> {
        let more = if self.out.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::IN | more)
    }

    /// Reads what there is, and hands the content of each packet to `take`; false when the other
    /// end has closed.
    ///
    /// # Errors
    /// When a packet is not as it was sent.
    pub fn read(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool> {
        // One buffer's worth for each link in turn.
        match self.stream.read(self.reader.spare()) {
            Ok(0) => return Ok(false),
            Ok(read) => self.reader.filled(read),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        while let Some(packet) = self.reader.packet()? {
            take(self.opener.open(packet)?);
        }
        Ok(true)
    }
}

/// Sleeps until one of the links can be read, or written where something waits for that.
///
/// # Errors
/// When the system refuses.
pub fn wait(links: &[Link]) -> Result<()> {
    let mut fds: Vec<PollFd<'_>> = links.iter().map(Link::poll_fd).collect();
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => bail!("cannot wait: {error}"),
    }
}
