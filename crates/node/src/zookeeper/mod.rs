//! The ZooKeeper gateway: a sidecar that speaks ZooKeeper's protocol to unmodified clients and
//! hands their requests to a group as operations of the coordination service.
//!
//! It runs beside its clients and is trusted by them alone: it is one principal of the group, and
//! its driver votes on the replies. Sessions, watches and events are the service's ([`svc::zk`]);
//! what is the gateway's: connections and their greeting, the order in which a client is told
//! things, pings, and the commands of four letters.
//!
//! Pings are answered here, but only for as long as the group is known to have heard of the
//! session within its timeout: a client that believes itself connected has a session. They renew
//! the session in the group, those of all clients together (`herald`).
//!
//! May depend on `svc`, `client` and tokio; runs on any tokio runtime with I/O and time, one task
//! per connection and one for all of them together.

mod conn;
mod early;
mod flow;
mod herald;
mod sent;
pub mod wire;
mod words;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use svc::zk::op::{Attachment, Events};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::gateway::{Backend, GatewayStats, Group, Local, StreamKey};

/// The stream of what the gateway asks for itself.
const OWN_STREAM: u64 = 0;
/// Protocol streams that the connections of a gateway share, at least.
const SHARED_LINES_MIN: u16 = 3;

/// How many protocol streams a client of a group with so many pillars is to have to be the
/// backend of a gateway: the first one is the gateway's own, so that results of its clients that
/// are too large together with others never take along what it asks for all of them.
#[must_use]
pub fn lines(pillars: u16) -> u16 {
    let most = u16::try_from(base::limits::STREAMS_PER_SESSION_MAX).unwrap_or(u16::MAX);
    (1 + pillars.max(SHARED_LINES_MIN)).min(most)
}

/// The stream of a connection, numbered from 1: any but those that go to the first line.
fn stream_of(id: u64, lines: u16) -> StreamKey {
    let shared = u64::from(lines.max(2)) - 1;
    StreamKey((id - 1) / shared * (shared + 1) + (id - 1) % shared + 1)
}

/// A group, or something that behaves like one, that tells when something waits.
pub trait Nudging: Backend {
    /// Changes when something waits in the state for this gateway: the number of a batch.
    fn nudges(&self) -> watch::Receiver<u64>;
}

impl Nudging for Group {
    fn nudges(&self) -> watch::Receiver<u64> {
        self.client().nudges()
    }
}

impl Nudging for Local {
    fn nudges(&self) -> watch::Receiver<u64> {
        Local::nudges(self)
    }
}

/// How a gateway behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most connections at a time; one more is closed at once.
    pub clients_max: usize,
    /// How long a connection may take to say what it wants.
    pub greeting_timeout: Duration,
    /// How often pings renew their sessions in the group.
    pub renew_every: Duration,
    /// How often the group is asked for events although it has not said that there are some.
    pub look_every: Duration,
    /// Most requests of one connection in flight; reading stops until some are answered.
    pub in_flight_max: usize,
    /// Most bytes of the requests of one connection in flight; reading stops as well.
    pub in_flight_bytes_max: usize,
    /// A connection with so many bytes unsent is not read from, and not told more. With 32 times
    /// as many in results and events that wait it is closed.
    pub output_max: usize,
    /// How long a response may wait for events before it that are on their way by themselves.
    pub gap_timeout: Duration,
    /// How long a connection may take none of what is to be sent to it.
    pub write_timeout: Duration,
    /// Protocol streams of the backend: see [`lines`].
    pub lines: u16,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            clients_max: 10_000,
            greeting_timeout: Duration::from_secs(10),
            renew_every: Duration::from_millis(300),
            look_every: Duration::from_secs(2),
            in_flight_max: 1000,
            in_flight_bytes_max: 8 << 20,
            output_max: 4 << 20,
            gap_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
            lines: lines(1),
        }
    }
}

/// What a connection is told by others.
#[derive(Debug)]
enum Push {
    /// Events of its session.
    Events(Events),
    /// The group has heard of its session.
    Renewed,
    /// Its session is over or attached elsewhere, or nobody knows what it missed: close.
    Gone,
}

/// A connection with a session.
#[derive(Debug)]
struct Peer {
    push: mpsc::UnboundedSender<Push>,
    confirmed: Arc<Confirmed>,
    address: SocketAddr,
}

/// When the latest operation was submitted that the group has answered for a session, in ms since
/// the gateway's start: it was heard of no earlier.
#[derive(Debug, Default)]
struct Confirmed(AtomicU64);

impl Confirmed {
    fn raise(&self, ms: u64) {
        self.0.fetch_max(ms, Ordering::Relaxed);
    }

    fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What all connections of a gateway share.
#[derive(Debug)]
struct Shared {
    config: Config,
    stats: Arc<GatewayStats>,
    started: Instant,
    address: SocketAddr,
    peers: Mutex<HashMap<Attachment, Peer>>,
    /// Sessions that pinged since they were renewed last.
    pinged: Mutex<BTreeSet<Attachment>>,
    next_id: AtomicU64,
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, HashMap<Attachment, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pinged(&self) -> MutexGuard<'_, BTreeSet<Attachment>> {
        self.pinged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Accepts connections and serves them until `shutdown` becomes true or its sender is gone; then
/// the connections are closed. Sessions stay: their clients take them to another gateway.
///
/// # Errors
/// When the listener fails for good. Single connections that fail are closed and logged.
pub async fn serve<B: Nudging>(
    listener: TcpListener,
    backend: B,
    config: Config,
    stats: Arc<GatewayStats>,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let shared = Arc::new(Shared {
        config,
        stats,
        started: Instant::now(),
        address: listener.local_addr()?,
        peers: Mutex::default(),
        pinged: Mutex::default(),
        next_id: AtomicU64::new(OWN_STREAM + 1),
    });
    let mut tasks = JoinSet::new();
    let herald = tokio::spawn(herald::run(Arc::clone(&shared), backend.clone()));
    loop {
        tokio::select! {
            // In a block, so that the guard it yields is gone at once: it may not change threads.
            () = async { drop(shutdown.wait_for(|stop| *stop).await) } => break,
            // Finished tasks are taken out as they end, so that the set does not grow.
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => admit((stream, from), &shared, &backend, &mut tasks),
                Err(error) => {
                    // Mostly "too many open files": it passes when connections end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    herald.abort();
    tasks.shutdown().await;
    Ok(())
}

/// How long to wait after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

fn admit<B: Nudging>(
    (stream, from): (TcpStream, SocketAddr),
    shared: &Arc<Shared>,
    backend: &B,
    tasks: &mut JoinSet<()>,
) {
    if shared.stats.connected.get() >= shared.config.clients_max as u64 {
        shared.stats.rejected.add(1);
        return;
    }
    // Responses leave in one write anyway; waiting for more only costs latency.
    let _ = stream.set_nodelay(true);
    shared.stats.accepted.add(1);
    shared.stats.connected.add(1);
    let presence = Presence(Arc::clone(shared));
    let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
    let (shared, backend) = (Arc::clone(shared), backend.clone());
    tasks.spawn(async move {
        let _presence = presence;
        conn::run(stream, from, shared, backend, id).await;
    });
}

/// Takes a connection out of the books when its task ends, however it ends.
struct Presence(Arc<Shared>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.stats.connected.sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connection_shares_the_line_of_the_gateway() {
        for lines in [lines(1), lines(2), lines(8)] {
            let mut seen = BTreeSet::new();
            for id in 1..1000 {
                let StreamKey(stream) = stream_of(id, lines);
                assert_ne!(stream % u64::from(lines), OWN_STREAM, "{id}");
                assert!(seen.insert(stream), "every connection has its own");
            }
        }
    }
}
