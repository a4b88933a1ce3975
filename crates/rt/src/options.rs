//! What a replica is started with, and what can be wrong with it.
//!
//! Not here: flags (`node`). Depends on `base`, `auth`, `exec`, `genesis`.

use std::fmt;
use std::net::IpAddr;

use auth::{AuthError, Secret};
use base::{ReplicaId, Span};
use exec::Service;
use genesis::Group;

/// What one replica is started with. Public fields with defaults: see [`ReplicaOptions::new`].
pub struct ReplicaOptions {
    /// The group. Its hosts are resolved once, at the start.
    pub group: Group,
    /// Which replica of it.
    pub id: ReplicaId,
    /// Its secret.
    pub secret: Secret,
    /// The service in its initial state.
    pub service: Box<dyn Service>,
    /// Threads for the pillars and the stage together, at least 1. Default: one per pillar and
    /// one for the stage if this replica's share of the cores allows, otherwise as many as it
    /// does allow. The share is smaller where other replicas of the group have the same IP
    /// address.
    pub threads: Option<usize>,
    /// Whether each thread is tied to a core. Default: if there are no more threads than cores
    /// and no other replica of the group has the same IP address.
    pub pin: Option<bool>,
    /// Listening sockets to use instead of binding to the group's addresses, one per pillar.
    pub listeners: Option<Vec<std::net::TcpListener>>,
    /// The address to listen on, if not the one in the group's configuration.
    pub listen_ip: Option<IpAddr>,
    /// How long a lane without progress waits before it asks its peers, at first.
    pub retransmit: Span,
    /// Bounds on connections.
    pub limits: ConnectionLimits,
}

/// Bounds on the connections of one pillar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionLimits {
    /// Authenticated connections of clients.
    pub clients_max: usize,
    /// Of these, connections of one principal.
    pub per_client_max: usize,
    /// Connections that have not yet proved who they are. The oldest goes when there are more.
    pub strangers_max: usize,
    /// Bytes that may wait for a client that reads slowly; it is dropped beyond them.
    pub client_backlog_max: usize,
    /// Bytes that may wait for a peer; messages are dropped beyond them and repaired later.
    pub peer_backlog_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            clients_max: 1024,
            per_client_max: 512,
            strangers_max: 256,
            client_backlog_max: 64 << 20,
            peer_backlog_max: 64 << 20,
        }
    }
}

impl ReplicaOptions {
    /// Replica `id` of the group, with defaults for everything else.
    #[must_use]
    pub fn new(
        group: Group,
        id: ReplicaId,
        secret: Secret,
        service: Box<dyn Service>,
    ) -> ReplicaOptions {
        ReplicaOptions {
            group,
            id,
            secret,
            service,
            threads: None,
            pin: None,
            listeners: None,
            listen_ip: None,
            retransmit: Span::millis(100),
            limits: ConnectionLimits::default(),
        }
    }

    /// Checks what belongs together.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let bad = |what| Err(StartError::Options(what));
        if self.id.0 >= self.group.quorums().n() {
            return bad("there is no replica with this id");
        }
        if self.threads == Some(0) {
            return bad("a replica needs at least one thread");
        }
        let pillars = usize::from(self.group.pillars());
        if self.listeners.as_ref().is_some_and(|all| all.len() != pillars) {
            return bad("a replica needs one listening socket per pillar");
        }
        Ok(())
    }
}

impl fmt::Debug for ReplicaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ReplicaOptions");
        out.field("id", &self.id).field("threads", &self.threads).field("pin", &self.pin);
        out.field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options contradict each other.
    #[error("{0}")]
    Options(&'static str),
    /// The secret is not this replica's.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A host of the group has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver says.
        source: std::io::Error,
    },
    /// A pillar cannot listen.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The system refuses a thread, a poll or a socket.
    #[error("cannot start a thread: {0}")]
    System(#[from] std::io::Error),
}
