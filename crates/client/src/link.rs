//! One sealed connection to one pillar of one replica, and how it comes to be.
//!
//! Reads and writes are coalesced: one packet and one write per turn of the driver, however many
//! frames there are. What a replica does not read is bounded: beyond that, frames for it are
//! dropped and counted, and the core sends again what is not answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use auth::{Established, Initiator, LinkIdentity, Opener, PacketReader, PacketWriter, Sealer};
use base::packet::PacketKind;
use base::{Frame, PillarId, ReplicaId, SessionId, VoteSet, limits};
use genesis::Group;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::socket::Stream;

/// Why a link is no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Auth(#[from] auth::AuthError),
    #[error("{0}")]
    Malformed(#[from] base::Malformed),
    #[error("the replica closed the connection")]
    Eof,
    #[error(
        "the replica ended the handshake; perhaps its group.toml is not this one: compare the ids \
         that `stylite config check` prints"
    )]
    Refused,
    #[error("the replica shuts down")]
    Goodbye,
    #[error("a packet that no replica sends to a client")]
    Kind,
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("the configuration names no address for it")]
    Address,
}

/// Unsent bytes above which frames for a replica are dropped.
const UNSENT_BYTES_MAX: usize = 2 * limits::CLIENT_PACKET_BYTES_MAX;
/// Bytes read from one link before the others get their turn.
const READ_BYTES_PER_TURN: usize = 1 << 20;

/// An established link.
pub(crate) struct Link {
    stream: Stream,
    sealer: Sealer,
    opener: Opener,
    reader: PacketReader,
    out: PacketWriter,
}

impl Link {
    /// Adds a frame to this turn's packet; false when it was dropped.
    pub(crate) fn queue(&mut self, frame: &Frame) -> Result<bool, LinkError> {
        let len = frame.encoded_len();
        if self.out.backlog() + len > UNSENT_BYTES_MAX {
            return Ok(false);
        }
        let most = self.sealer.payload_bytes_max();
        let kind = PacketKind::Request.alone();
        frame.encode(self.out.room(&mut self.sealer, len, &kind, most)?);
        Ok(true)
    }

    /// Asks for the replica's status.
    pub(crate) fn ask_status(&mut self) -> Result<(), LinkError> {
        Ok(self.out.packet(&mut self.sealer, &PacketKind::StatusQuery.alone())?)
    }

    /// Tells the replica whom not to rely on for answers.
    pub(crate) fn avoid(&mut self, replicas: VoteSet) -> Result<(), LinkError> {
        let mut payload = PacketKind::Avoid.alone().to_vec();
        payload.extend_from_slice(&replicas.bits().to_le_bytes());
        Ok(self.out.packet(&mut self.sealer, &payload)?)
    }

    /// Writes what there is, as far as the socket takes it.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), LinkError> {
        self.out.seal(&mut self.sealer)?;
        while self.out.backlog() > 0 {
            match Pin::new(&mut self.stream).poll_write(cx, self.out.unwritten()) {
                Poll::Ready(Ok(0)) => return Err(LinkError::Eof),
                Poll::Ready(Ok(n)) => self.out.wrote(n),
                Poll::Ready(Err(e)) => return Err(e.into()),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Reads what there is and hands each packet to `take`. True when something was read.
    pub(crate) fn read(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(PacketKind, &[u8]) -> Result<(), LinkError>,
    ) -> Result<bool, LinkError> {
        let mut total = 0;
        while total < READ_BYTES_PER_TURN {
            let mut buffer = ReadBuf::new(self.reader.spare());
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Err(e.into()),
                Poll::Pending => break,
            }
            let read = buffer.filled().len();
            if read == 0 {
                return Err(LinkError::Eof);
            }
            total += read;
            self.reader.filled(read);
            while let Some(body) = self.reader.packet()? {
                let payload = self.opener.open(body)?;
                let (kind, body) = PacketKind::split(payload)?;
                take(kind, body)?;
            }
        }
        Ok(total > 0)
    }
}

/// Whom to call, and as whom.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) group: Arc<Group>,
    pub(crate) identity: Arc<LinkIdentity>,
}

/// How long one attempt may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

impl Dialer {
    /// Connects to a pillar of a replica and shakes hands, after `delay`.
    pub(crate) async fn dial(
        self,
        replica: ReplicaId,
        pillar: PillarId,
        session: SessionId,
        delay: Duration,
    ) -> Result<Link, LinkError> {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let attempt = self.attempt(replica, pillar, session);
        let result = tokio::time::timeout(DIAL_TIMEOUT, attempt).await;
        result.unwrap_or(Err(LinkError::Timeout(DIAL_TIMEOUT)))
    }

    async fn attempt(
        &self,
        replica: ReplicaId,
        pillar: PillarId,
        session: SessionId,
    ) -> Result<Link, LinkError> {
        let address = self.group.address(replica, pillar).ok_or(LinkError::Address)?;
        let mut stream = Stream::connect(address).await?;
        let directory = self.group.directory();
        let (call, first) = Initiator::start(&self.identity, directory, replica, pillar, session)?;
        stream.write_all(&first).await?;
        let mut reader = PacketReader::new(limits::HANDSHAKE_PACKET_BYTES_MAX);
        let established: Established = loop {
            if let Some(body) = reader.packet()? {
                break call.finish(body)?;
            }
            let read = stream.read(reader.spare()).await?;
            if read == 0 {
                return Err(LinkError::Refused);
            }
            reader.filled(read);
        };
        reader.set_max(established.packet_bytes_max);
        let Established { mut sealer, opener, .. } = established;
        // Only a packet proves to the replica that the hello was no recording: an empty one.
        let mut out = PacketWriter::new();
        out.packet(&mut sealer, &[])?;
        Ok(Link { stream, sealer, opener, reader, out })
    }
}
