//! What carries bytes: TCP connections, UNIX stream sockets and shared memory that is set up over
//! them (`memory`), listening and connected.
//!
//! A UNIX socket is a file, for the user of the process alone (mode 0600, from before anybody can
//! connect). One that a process left behind that is gone is replaced; one that somebody listens
//! on is not, and that is an error. Whoever looks and replaces holds a lock on the directory
//! meanwhile, so that two that start at once cannot take it from each other. The file goes once
//! its listener is closed, unless somebody else listens on it by then.
//!
//! Not here: packets (`conn`), who connects to whom (`links`). Depends on `mio` and `rustix`.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use genesis::Address;
use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::memory::Shared;

/// After this long without an acknowledgement, a connection is dead, in milliseconds.
const TCP_USER_TIMEOUT_MS: u32 = 20_000;
/// After this long without a byte, the kernel asks whether the other end is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where a pillar is reached, once names are resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Shm(PathBuf),
}

impl Place {
    /// Resolves an address.
    ///
    /// # Errors
    /// When its host has no address.
    pub(crate) fn resolve(address: &Address) -> io::Result<Place> {
        match address {
            Address::Tcp { host, port } => {
                let mut all = (host.as_str(), *port).to_socket_addrs()?;
                let first = all.next();
                let none = || io::Error::other("the name has no address");
                first.map(Place::Tcp).ok_or_else(none)
            }
            Address::Unix(path) => Ok(Place::Unix(path.clone())),
            Address::Shm(path) => Ok(Place::Shm(path.clone())),
        }
    }

    /// Its IP address; none for what is on this host.
    pub(crate) fn ip(&self) -> Option<std::net::IpAddr> {
        match self {
            Place::Tcp(address) => Some(address.ip()),
            Place::Unix(_) | Place::Shm(_) => None,
        }
    }
}

/// A listening socket of a pillar.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(std::net::TcpListener),
    /// A UNIX stream socket.
    Unix(std::os::unix::net::UnixListener, Arc<SocketFile>),
    /// One over which shared memory is handed.
    Shm(std::os::unix::net::UnixListener, Arc<SocketFile>),
}

impl From<std::net::TcpListener> for Listener {
    fn from(listener: std::net::TcpListener) -> Listener {
        Listener::Tcp(listener)
    }
}

impl Listener {
    /// Listens at an address.
    ///
    /// # Errors
    /// When its host has no address or is another machine's, or the port or socket is somebody
    /// else's.
    pub fn bind(address: &Address) -> io::Result<Listener> {
        Listener::at(&Place::resolve(address)?)
    }

    pub(crate) fn at(place: &Place) -> io::Result<Listener> {
        match place {
            Place::Tcp(address) => std::net::TcpListener::bind(address).map(Listener::Tcp),
            Place::Unix(path) => {
                let (listener, file) = listen_unix(path)?;
                Ok(Listener::Unix(listener, Arc::new(file)))
            }
            Place::Shm(path) => {
                let (listener, file) = listen_unix(path)?;
                Ok(Listener::Shm(listener, Arc::new(file)))
            }
        }
    }

    /// The file of its socket, if it has one.
    pub(crate) fn file(&self) -> Option<Arc<SocketFile>> {
        match self {
            Listener::Tcp(_) => None,
            Listener::Unix(_, file) | Listener::Shm(_, file) => Some(Arc::clone(file)),
        }
    }

    /// Where it listens, for people.
    pub(crate) fn shown(&self) -> io::Result<String> {
        match self {
            Listener::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Listener::Unix(_, file) => Ok(format!("unix:{}", file.path.display())),
            Listener::Shm(_, file) => Ok(format!("shm:{}", file.path.display())),
        }
    }
}

/// The file of a UNIX socket, which goes when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, to tell it from one that has taken its place.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The number of a file that is gone may be that of the next one, and the listener may
        // have been closed for a while: somebody else's is one that is listened on.
        let same = id_of(&self.path).is_ok_and(|id| id == self.id);
        let removed =
            if same { lock(&self.path).and_then(|_lock| clear(&self.path)) } else { Ok(()) };
        match removed {
            Err(error) if error.kind() != ErrorKind::AddrInUse => {
                tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
            }
            _ => {}
        }
    }
}

fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Keeps others from looking whether `path` is free, and taking it, until it is dropped.
fn lock(path: &Path) -> io::Result<File> {
    let lock = File::open(path.parent().unwrap_or(Path::new("/")))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// Makes a socket at `path`, in a directory that is made when it is not there.
fn listen_unix(path: &Path) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    let address = SocketAddrUnix::new(path)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let _lock = lock(path)?;
    clear(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before it has a name: the file is made with the mode that the socket has.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    let id = id_of(path)?;
    let file = SocketFile { path: path.to_path_buf(), id };
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((socket.into(), file))
}

/// Removes what an earlier process left at `path`.
fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let refuse = |what: &str| Err(io::Error::new(ErrorKind::AddrInUse, what.to_owned()));
    if !found.file_type().is_socket() {
        return refuse("a file that is no socket is there: remove it, or choose another path");
    }
    match std::os::unix::net::UnixStream::connect(path) {
        // Nobody listens: it was left behind.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(_) => refuse("somebody listens on this socket already"),
        // A queue that is full has somebody behind it.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            refuse("somebody listens on this socket already")
        }
        Err(error) => Err(error),
    }
}

/// A listening socket in a poll. It does not own the file of a UNIX socket.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
    Shm(UnixListener),
}

impl Acceptor {
    /// Makes `listener` ready for a poll.
    pub(crate) fn new(listener: Listener) -> io::Result<Acceptor> {
        match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Acceptor::Tcp(TcpListener::from_std(listener)))
            }
            Listener::Unix(listener, _) => {
                listener.set_nonblocking(true)?;
                Ok(Acceptor::Unix(UnixListener::from_std(listener)))
            }
            Listener::Shm(listener, _) => {
                listener.set_nonblocking(true)?;
                Ok(Acceptor::Shm(UnixListener::from_std(listener)))
            }
        }
    }

    /// The next connection that waits.
    pub(crate) fn accept(&self) -> io::Result<Stream> {
        match self {
            Acceptor::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Acceptor::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            Acceptor::Shm(listener) => {
                listener.accept().map(|(socket, _)| Stream::Shm(Box::new(Shared::accepted(socket))))
            }
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Shm(Box<Shared>),
}

impl Stream {
    /// Begins to connect to `place`.
    pub(crate) fn connect(place: &Place) -> io::Result<Stream> {
        match place {
            Place::Tcp(address) => TcpStream::connect(*address).map(Stream::Tcp),
            Place::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Place::Shm(path) => Shared::connect(path).map(|shared| Stream::Shm(Box::new(shared))),
        }
    }

    /// Makes it prompt, and the kernel find out that the other end is gone without a word. Each
    /// is an improvement only, and a socket that is broken fails later.
    pub(crate) fn tune(&self) {
        if let Stream::Tcp(stream) = self {
            let _ = stream.set_nodelay(true);
            let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, TCP_USER_TIMEOUT_MS);
            let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
            let _ = rustix::net::sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
        }
    }

    /// What there is of it in shared memory, where nobody tells what has come but a bell that one
    /// has to ask for.
    pub(crate) fn shared(&mut self) -> Option<&mut Shared> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => None,
            Stream::Shm(shared) => Some(shared),
        }
    }

    /// A second descriptor of the same connection.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn twin(&self) -> io::Result<Stream> {
        let again =
            |fd: std::os::fd::BorrowedFd<'_>| -> io::Result<OwnedFd> { fd.try_clone_to_owned() };
        match self {
            Stream::Tcp(stream) => {
                let twin = std::net::TcpStream::from(again(stream.as_fd())?);
                Ok(Stream::Tcp(TcpStream::from_std(twin)))
            }
            Stream::Unix(stream) => {
                let twin = std::os::unix::net::UnixStream::from(again(stream.as_fd())?);
                Ok(Stream::Unix(UnixStream::from_std(twin)))
            }
            // Refused when the replica was started: see the conflicts of switches.
            Stream::Shm(_) => Err(ErrorKind::Unsupported.into()),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(bytes),
            Stream::Unix(stream) => stream.read(bytes),
            Stream::Shm(shared) => shared.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Shm(shared) => shared.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Passes what a poll asks on to the socket that there is.
macro_rules! source {
    ($of:ty) => {
        impl Source for $of {
            fn register(
                &mut self,
                registry: &Registry,
                token: Token,
                interest: Interest,
            ) -> io::Result<()> {
                match self {
                    Self::Tcp(socket) => socket.register(registry, token, interest),
                    Self::Unix(socket) => socket.register(registry, token, interest),
                    Self::Shm(socket) => socket.register(registry, token, interest),
                }
            }

            fn reregister(
                &mut self,
                registry: &Registry,
                token: Token,
                interest: Interest,
            ) -> io::Result<()> {
                match self {
                    Self::Tcp(socket) => socket.reregister(registry, token, interest),
                    Self::Unix(socket) => socket.reregister(registry, token, interest),
                    Self::Shm(socket) => socket.reregister(registry, token, interest),
                }
            }

            fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
                match self {
                    Self::Tcp(socket) => socket.deregister(registry),
                    Self::Unix(socket) => socket.deregister(registry),
                    Self::Shm(socket) => socket.deregister(registry),
                }
            }
        }
    };
}

source!(Acceptor);
source!(Stream);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place(dir: &tempfile::TempDir) -> Place {
        Place::Unix(dir.path().join("deep").join("a.sock"))
    }

    fn path(place: &Place) -> &Path {
        match place {
            Place::Unix(path) | Place::Shm(path) => path,
            Place::Tcp(_) => panic!("a socket"),
        }
    }

    #[test]
    fn a_socket_is_its_users_alone_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place(&dir);
        let listener = Listener::at(&place).expect("free");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let file = path(&place);
        assert_eq!((mode(file), mode(file.parent().expect("one"))), (0o600, 0o700));
        drop(listener);
        assert!(!file.exists());
    }

    #[test]
    fn one_that_lives_is_refused_and_one_that_was_left_behind_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place(&dir);
        let first = Listener::at(&place).expect("free");
        let told = Listener::at(&place).expect_err("somebody listens").to_string();
        assert!(told.contains("listens on this socket already"), "{told}");
        // As after kill -9: the socket is closed, and the file stays.
        let Listener::Unix(socket, file) = first else { panic!("a socket") };
        drop(socket);
        let second = Listener::at(&place).expect("left behind");
        // The first one's file is no longer its own to remove.
        drop(file);
        let connected = std::os::unix::net::UnixStream::connect(path(&place));
        assert!(connected.is_ok(), "the second one's is there");
        drop(second);
        fs::write(path(&place), "precious").expect("written");
        let told = Listener::at(&place).expect_err("no socket").to_string();
        assert!(told.contains("no socket"), "{told}");
        assert_eq!(fs::read(path(&place)).expect("untouched"), b"precious");
    }

    /// Many start at once over what one left behind: one of them listens, and is reached.
    #[test]
    fn of_many_that_start_at_once_one_listens() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place(&dir);
        for _ in 0..20 {
            let Ok(Listener::Unix(socket, file)) = Listener::at(&place) else { panic!("free") };
            drop(socket);
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let place = place.clone();
                    std::thread::spawn(move || Listener::at(&place))
                })
                .collect();
            let tried: Vec<_> =
                threads.into_iter().map(|one| one.join().expect("no panic")).collect();
            assert_eq!(tried.iter().filter(|one| one.is_ok()).count(), 1);
            assert!(std::os::unix::net::UnixStream::connect(path(&place)).is_ok());
            drop(file);
        }
    }
}
