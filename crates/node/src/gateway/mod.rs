//! The Redis gateway: a sidecar that speaks RESP2 and RESP3 to unmodified Redis clients and hands
//! their commands to a group as operations of the key-value service.
//!
//! It runs beside its clients and is trusted by them alone: it is one principal of the group, and
//! its driver votes on the replies. Commands about the connection itself are answered here.
//!
//! Not here: what commands do to keys (`svc::kv`), agreement and voting (`client`, `proto`).
//! May depend on `svc`, `client` and tokio; runs on any tokio runtime with I/O and time, one task
//! per connection.
//!
//! Invariants: see `conn` for what a connection promises.

pub mod backend;
mod commands;
mod conn;
pub mod group;
mod health;
mod linger;
mod load;
pub mod local;
mod output;
pub mod parse;
mod registry;
mod session;
mod stats;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use backend::{Backend, BackendError, StreamKey};
pub use group::Group;
pub use local::Local;
pub use stats::{Counter, GatewayStats};

use conn::Connection;
use health::Health;
use registry::Registry;

/// The version of Redis whose commands and words this follows, as clients are told.
const REDIS_VERSION: &str = "7.0.15";
/// Largest command in bytes, each argument counted with its head in the encoded operation: the
/// operation must fit [`base::limits::OP_BYTES_MAX`].
const REQUEST_BYTES_MAX: usize = base::limits::OP_BYTES_MAX - 64;
/// Largest argument of a command, in bytes: what it leaves of the largest command is for the
/// name, the key and the options, so that a value of this size can be set.
const BULK_BYTES_MAX: usize = base::limits::OP_BYTES_MAX - 64 * 1024;

/// How a gateway behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most connections at a time; one more is told so and closed.
    pub clients_max: usize,
    /// How long a command waits for the backend before it is answered with an error.
    pub request_timeout: Duration,
    /// A connection without a request for so long is closed; `None` keeps it for ever.
    pub idle_timeout: Option<Duration>,
    /// A connection that takes none of its waiting replies for so long is closed.
    pub write_timeout: Duration,
    /// Results are taken from the backend only while fewer bytes of replies are unsent.
    pub output_max: usize,
    /// Most operations of one connection in flight; reading stops until some are answered.
    pub in_flight_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            clients_max: 10_000,
            request_timeout: Duration::from_secs(10),
            idle_timeout: None,
            write_timeout: Duration::from_secs(60),
            output_max: 64 << 20,
            in_flight_max: 512,
        }
    }
}

/// What all connections of a gateway share.
#[derive(Debug)]
struct Shared {
    config: Config,
    stats: Arc<GatewayStats>,
    health: Health,
    registry: Registry,
    stopping: AtomicBool,
    started: Instant,
    port: u16,
    next_id: AtomicU64,
}

/// Accepts connections and serves them until `shutdown` becomes true or its sender is gone. Then
/// no more connections and requests are accepted, the replies to the accepted ones are sent, and
/// the connections are closed.
///
/// # Errors
/// When the listener fails for good. Single connections that fail are closed and logged.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    backend: B,
    config: Config,
    stats: Arc<GatewayStats>,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let shared = Arc::new(Shared {
        config,
        stats,
        health: Health::new(),
        registry: Registry::default(),
        stopping: AtomicBool::new(false),
        started: Instant::now(),
        port: listener.local_addr()?.port(),
        next_id: AtomicU64::new(1),
    });
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            // In a block, so that the guard it yields is gone at once: it may not change threads.
            () = async { drop(shutdown.wait_for(|stop| *stop).await) } => break,
            // Finished tasks are taken out as they end, so that the set does not grow.
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(stream, &shared, &backend, &mut tasks),
                Err(error) => {
                    // Mostly "too many open files": it passes when connections end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    shared.stopping.store(true, Ordering::Release);
    for client in shared.registry.all() {
        client.wake();
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// How long to wait after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Starts serving a connection, or refuses it when there are too many.
fn admit<B: Backend>(
    stream: TcpStream,
    shared: &Arc<Shared>,
    backend: &B,
    tasks: &mut JoinSet<()>,
) {
    if shared.registry.count() >= shared.config.clients_max {
        shared.stats.rejected.add(1);
        // One attempt: a new connection's buffer has room, and nobody waits for this one.
        let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
        return;
    }
    let (Ok(addr), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    // Replies leave in one write anyway; waiting for more only costs latency.
    let _ = stream.set_nodelay(true);
    let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
    let client = shared.registry.add(id, addr, local);
    shared.stats.accepted.add(1);
    let presence = Presence { shared: Arc::clone(shared), id };
    shared.stats.connected.add(1);
    let connection = Connection::new(stream, Arc::clone(shared), backend.clone(), client);
    tasks.spawn(async move {
        let _presence = presence;
        connection.run().await;
    });
}

/// Takes a connection out of the books when its task ends, however it ends.
struct Presence {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.shared.registry.remove(self.id);
        self.shared.stats.connected.sub(1);
    }
}
