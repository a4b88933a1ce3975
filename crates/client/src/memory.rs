//! A connection in shared memory, with the socket that it was set up over.
//!
//! The socket's life is the connection's, and a byte on it is a bell. Whoever is told that nothing
//! has come, or that there is no room, is woken by one.
//!
//! Not here: the rings themselves and what makes them safe against the other end (`shm`).

use std::io::{self, ErrorKind};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use shm::{Broken, Channel, Region, RegionError};
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// More bells at a time than any correct other end rings.
const BELLS_MAX: usize = 512;

/// A connection in shared memory.
#[derive(Debug)]
pub(crate) struct Shared {
    socket: UnixStream,
    channel: Channel,
    /// The other end is gone.
    ended: bool,
}

impl Shared {
    /// Makes the memory and hands it to whoever listens at `path`.
    pub(crate) async fn connect(path: &Path) -> io::Result<Shared> {
        let socket = UnixStream::connect(path).await?;
        let (region, file) = Region::create().map_err(|error| match error {
            RegionError::System(error) => error,
            other => io::Error::new(ErrorKind::InvalidData, other),
        })?;
        shm::offer(&socket, &file)?;
        Ok(Shared { socket, channel: Channel::dialler(region), ended: false })
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            // Before the ring is looked at: what was written before the end is read before it.
            let ended = self.ended;
            let moved = self.channel.read(buffer.initialize_unfilled()).map_err(broken)?;
            if moved.bytes > 0 {
                buffer.advance(moved.bytes);
                self.ring(moved.bell);
                return Poll::Ready(Ok(()));
            }
            if ended {
                return Poll::Ready(Ok(()));
            }
            if self.hear(cx)? && self.channel.doze().map_err(broken)? {
                return Poll::Pending;
            }
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let moved = self.channel.write(bytes).map_err(broken)?;
            if moved.bytes > 0 {
                self.ring(moved.bell);
                return Poll::Ready(Ok(moved.bytes));
            }
            if self.ended {
                return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
            }
            let silent = self.hear(cx)?;
            if !silent {
                // The bell that was taken may have been for whoever reads.
                cx.waker().wake_by_ref();
            }
            if silent && self.channel.await_room().map_err(broken)? {
                return Poll::Pending;
            }
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn ring(&self, wanted: bool) {
        if wanted {
            // A socket that is full has bells enough, and one that is closed says so when it is
            // read.
            let _ = self.socket.try_write(&[0]);
        }
    }

    /// Takes the bells that have come. True when there was none, and the task is woken by the next
    /// one.
    fn hear(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        match self.socket.poll_read_ready(cx) {
            Poll::Pending => return Ok(true),
            Poll::Ready(ready) => ready?,
        }
        let mut bells = [0; BELLS_MAX];
        match self.socket.try_read(&mut bells) {
            Ok(0) => self.ended = true,
            Ok(BELLS_MAX) => return Err(ErrorKind::InvalidData.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // It closed and had not heard all bells.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = true,
            Err(error) => return Err(error),
        }
        Ok(false)
    }
}

fn broken(error: Broken) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
