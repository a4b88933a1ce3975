//! The end of a connection whose peer may still be sending.
//!
//! Closing a socket with unread bytes resets the connection, and the peer then never sees why:
//! somebody who sends a value that is too large would see a broken pipe instead of the error. So
//! nothing more is written, and what comes is read and forgotten for a while.
//!
//! Not here: when a connection ends ([`super::conn`]). Depends on tokio's sockets and the
//! registry. Invariant: it ends, after a number of bytes or some time, whatever the peer does.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Shared;
use super::registry::Client;

/// How long a peer that goes on sending is listened to.
const LINGER: Duration = Duration::from_secs(5);
/// How many bytes are read from it, at most.
const LINGER_BYTES: usize = 64 << 20;
/// Bytes that one read asks for.
const READ_BYTES: usize = 64 * 1024;

/// Says that nothing more comes, and forgets what the peer still sends until it closes, a bound
/// is reached, the client is killed or the gateway stops.
pub(super) async fn linger(mut stream: TcpStream, client: &Client, shared: &Shared) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut waste = vec![0; READ_BYTES];
    let mut left = LINGER_BYTES;
    let end = poll_fn(|cx| {
        client.register(cx.waker());
        if client.is_doomed() || shared.stopping.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        poll_waste(&stream, &mut waste, &mut left, cx)
    });
    // Which of the bounds ends it does not matter.
    let _ = tokio::time::timeout(LINGER, end).await;
}

/// Reads what is there; ready when nothing more is to be read.
fn poll_waste(
    stream: &TcpStream,
    waste: &mut [u8],
    left: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<()> {
    while *left > 0 {
        match stream.poll_read_ready(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => break,
            Poll::Ready(Ok(())) => {}
        }
        match stream.try_read(waste) {
            Ok(0) => break,
            Ok(n) => *left = left.saturating_sub(n),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    Poll::Ready(())
}
