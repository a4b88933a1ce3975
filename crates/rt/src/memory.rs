//! A connection in shared memory, with the socket that it was set up over.
//!
//! The socket's life is the connection's: its end is the end of what comes. A byte on it is a
//! bell. A reader asks for one before it sleeps and not before ([`Shared::doze`]): while its thread
//! is awake, it looks by itself. A writer that finds no room asks at once.
//!
//! Not here: the rings themselves and what makes them safe against the other end (`shm`), who
//! sleeps when (`links`).

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use mio::event::Source;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use shm::{Broken, Channel, Region, RegionError};

/// More bells at a time than any correct other end rings: it rings once for each time that it is
/// asked to, and is asked again to say that there is room only when what it rang before was heard.
const BELLS_MAX: usize = 512;

/// A connection in shared memory.
#[derive(Debug)]
pub(crate) struct Shared {
    socket: UnixStream,
    /// The rings, once there are any: whoever dials hands them over.
    channel: Option<Channel>,
    /// Something may have come over the socket.
    rung: bool,
    /// The other end has closed: what it rang before is followed by the end, without a new event.
    closing: bool,
    /// The other end is gone.
    ended: bool,
}

impl Shared {
    /// Makes the memory and hands it to whoever listens at `path`.
    pub(crate) fn connect(path: &Path) -> io::Result<Shared> {
        let socket = UnixStream::connect(path)?;
        let (region, file) = Region::create().map_err(refused)?;
        shm::offer(&socket, &file)?;
        let channel = Some(Channel::dialler(region));
        Ok(Shared { socket, channel, rung: false, closing: false, ended: false })
    }

    /// Somebody has dialled, and will hand memory over.
    pub(crate) fn accepted(socket: UnixStream) -> Shared {
        Shared { socket, channel: None, rung: true, closing: false, ended: false }
    }

    /// The poll says that something has come over the socket, and perhaps that it is closed.
    pub(crate) fn rung(&mut self, closed: bool) {
        self.rung = true;
        self.closing |= closed;
    }

    /// Whether there is something to read, at a glance.
    pub(crate) fn has_news(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| !channel.is_empty())
    }

    /// Asks for a bell once something comes. False when something has come: read it.
    ///
    /// # Errors
    /// When the other end wrote what cannot be.
    pub(crate) fn doze(&mut self) -> Result<bool, Broken> {
        // What comes first is the memory, over the socket.
        self.channel.as_mut().map_or(Ok(true), Channel::doze)
    }

    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // Before the ring is looked at: what was written before the end is read before the end.
        self.hear()?;
        let nothing = |ended: bool| if ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        let Some(channel) = &mut self.channel else { return nothing(self.ended) };
        let moved = channel.read(into).map_err(broken)?;
        if moved.bytes == 0 {
            return nothing(self.ended);
        }
        if moved.bell {
            self.ring();
        }
        Ok(moved.bytes)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let Some(channel) = &mut self.channel else { return Err(ErrorKind::WouldBlock.into()) };
            let moved = channel.write(bytes).map_err(broken)?;
            if moved.bytes > 0 {
                if moved.bell {
                    self.ring();
                }
                return Ok(moved.bytes);
            }
            // What was asked for before is heard first, also while nothing is read: bells that add
            // up would look like too many, and one that finds no room wakes nobody. A bell for
            // reading is not missed: who was rung for is read in the end.
            if self.rung {
                self.hear()?;
            } else if channel.await_room().map_err(broken)? {
                return Err(ErrorKind::WouldBlock.into());
            }
        }
    }

    fn ring(&mut self) {
        // A socket that is full has bells enough, and one that is closed says so when it is read.
        let _ = self.socket.write(&[0]);
    }

    /// Takes what has come over the socket: the memory first, then bells, then the end.
    fn hear(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.rung) || self.ended {
            return Ok(());
        }
        if self.channel.is_none() {
            match shm::take(&self.socket) {
                Ok(Some(file)) => {
                    let region = Region::adopt(file).map_err(refused)?;
                    self.channel = Some(Channel::listener(region));
                }
                Ok(None) => self.ended = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let mut bells = [0; BELLS_MAX];
        loop {
            match self.socket.read(&mut bells) {
                Ok(0) => self.ended = true,
                Ok(BELLS_MAX) => return Err(ErrorKind::InvalidData.into()),
                Ok(_) if self.closing => continue,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It closed and had not heard all bells.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = true,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }
}

fn broken(error: Broken) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

fn refused(error: RegionError) -> io::Error {
    match error {
        RegionError::System(error) => error,
        other => io::Error::new(ErrorKind::InvalidData, other),
    }
}

impl Source for Shared {
    fn register(&mut self, registry: &Registry, token: Token, _: Interest) -> io::Result<()> {
        // There is always room for a bell: only what comes is of interest.
        self.socket.register(registry, token, Interest::READABLE)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, _: Interest) -> io::Result<()> {
        self.socket.reregister(registry, token, Interest::READABLE)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that pauses is not read, and goes on to be written to: whoever is at its other
    /// end rings each time that it has made room.
    #[test]
    fn bells_that_were_asked_for_do_not_add_up_while_nothing_is_read() {
        let (socket, mut far) = UnixStream::pair().expect("sockets");
        let (region, file) = Region::create().expect("memory");
        let mut other = Channel::listener(Region::adopt(file).expect("its memory"));
        let channel = Some(Channel::dialler(region));
        let mut shared = Shared { socket, channel, rung: false, closing: false, ended: false };
        for _ in 0..BELLS_MAX + 100 {
            let full = loop {
                if let Err(error) = shared.write(&[7; 4 << 10]) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::WouldBlock);
            let mut rung = false;
            while !rung {
                rung = other.read(&mut [0; 4 << 10]).expect("sound").bell;
            }
            far.write_all(&[0]).expect("room for a bell");
            shared.rung(false);
        }
        let nothing = shared.read(&mut [0; 16]).expect_err("nothing has come");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        // More than was asked for ends the connection, as before.
        far.write_all(&[0; BELLS_MAX]).expect("room");
        shared.rung(false);
        let ended = shared.read(&mut [0; 16]).expect_err("too many");
        assert_eq!(ended.kind(), ErrorKind::InvalidData);
    }
}
