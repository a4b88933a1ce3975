//! What carries a link's bytes: a TCP connection, a UNIX stream socket, or shared memory that was
//! set up over one (`memory`).
//!
//! Not here: packets (`link`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use genesis::Address;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::memory::Shared;

/// After this long without an acknowledgement, a connection is dead, in milliseconds.
const TCP_USER_TIMEOUT_MS: u32 = 20_000;
/// After this long without a byte, the kernel asks whether the other end is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Makes the kernel find out that the other end is gone without a word, long before its own
/// retransmissions end. Each is an improvement only.
fn notice_death(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, TCP_USER_TIMEOUT_MS);
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
}

/// A connection to a pillar, for programs that speak to one replica alone.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    Shm(Box<Shared>),
}

impl Stream {
    /// Connects to `address`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(address: &Address) -> io::Result<Stream> {
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                notice_death(&stream);
                Ok(Stream(Kind::Tcp(stream)))
            }
            Address::Unix(path) => Ok(Stream(Kind::Unix(UnixStream::connect(path).await?))),
            Address::Shm(path) => Ok(Stream(Kind::Shm(Box::new(Shared::connect(path).await?)))),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Shm(shared) => shared.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Shm(shared) => shared.poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket holds nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Shm(shared) => shared.poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replica that vanished is called again after seconds, not after the quarter of an hour
    /// that the kernel takes by itself.
    #[tokio::test]
    async fn the_kernel_watches_the_other_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(address).await.expect("listens");
        notice_death(&stream);
        let timeout = rustix::net::sockopt::tcp_user_timeout(&stream);
        assert_eq!(timeout, Ok(TCP_USER_TIMEOUT_MS));
        assert_eq!(rustix::net::sockopt::socket_keepalive(&stream), Ok(true));
    }
}
