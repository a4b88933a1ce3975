//! What a replica is started with, and what can be wrong with it.
//!
//! Not here: flags (`node`). Depends on `base`, `auth`, `exec`, `genesis`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use auth::{AuthError, Secret};
use base::{ReplicaId, Span};
use exec::Service;
use genesis::switches::{Choice, Conflict};
use genesis::{Address, Group, ReplicaEntry, switches};
use store::{Durability, LogOptions, Real, Refusal, Storage, StoreError};

use crate::drill::Drill;
use crate::socket::Listener;
use crate::top;

/// How the work of a replica is put on threads. A matter of each replica alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Parallelization {
    /// By instances: each thread has pillars, and does everything for them (COP).
    #[default]
    Cop,
    /// By tasks: a pipeline of stages, a thread each (TOP), for comparison. One pillar only.
    Top,
}

impl Parallelization {
    /// Its name on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Parallelization::Cop => "cop",
            Parallelization::Top => "top",
        }
    }
}

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
    /// How its threads are laid over the cores.
    pub cores: CoreOptions,
    /// Listening sockets to use instead of binding to the group's addresses, one per pillar.
    pub listeners: Option<Vec<Listener>>,
    /// The address to listen on, if not the one in the group's configuration.
    pub listen_ip: Option<IpAddr>,
    /// How long a lane without progress waits before it asks its peers, at first.
    pub retransmit: Span,
    /// Bounds on connections.
    pub limits: ConnectionLimits,
    /// How much of a promise is on disk before it leaves. Everything but `memory` needs a
    /// directory. Default: `memory`.
    pub durability: Durability,
    /// The directory of the replica's state. Without one nothing is kept, and nobody remembers
    /// that the replica was ever started.
    pub state_dir: Option<PathBuf>,
    /// Whether this is known to be the replica's first start, so that it has no promise to
    /// forget. Default: false, and then a replica that finds no promises on its disk asks the
    /// others before it votes.
    pub fresh: bool,
    /// Whether to begin as one that may have forgotten promises, whatever is on disk.
    pub recover: bool,
    /// What that directory lies on. Default: the file system.
    pub storage: Arc<dyn Storage>,
    /// How much the log may hold, and in what pieces.
    pub log: LogPolicy,
    /// A snapshot of another group to begin with: what the service's state was before the first
    /// operation of this group. The same for all its replicas, and at each of their starts.
    pub seed: Option<PathBuf>,
    /// Called once the start is on disk, before the replica says anything to anybody: the moment
    /// to take away the mark of a first start. Its error stops the start.
    pub on_begin: Option<OnBegin>,
    /// How it is to misbehave, in a group that was founded for drills.
    pub drill: Option<Drill>,
    /// It behaves until it is told otherwise ([`crate::Replica::misbehave`]).
    pub drill_paused: bool,
}

/// How a replica's threads are laid over the cores. All of it has defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoreOptions {
    /// How the work is put on threads. Default: by instances.
    pub parallelization: Parallelization,
    /// Threads for the pillars and the stage together, at least 1; of a pipeline, at least 6.
    /// Default: one per pillar and one for the stage if this replica's share of the cores allows,
    /// otherwise as many as it does allow; of a pipeline one per task, and more to authenticate
    /// where there are more cores. The share is smaller where other replicas of the group have
    /// the same IP address.
    pub threads: Option<usize>,
    /// Execution workers beside those threads, for services that are made for it; with fewer than
    /// two, operations execute one after the other on the stage's thread. Default: as many as
    /// this replica's share of the cores leaves over.
    pub workers: Option<usize>,
    /// Where several partitions of a group run in this process, which of them this is, and how many
    /// there are: they share the cores that one replica would have. Default: 0 of 1.
    pub share: (u16, u16),
    /// Whether each of those threads but the workers is tied to a core. Default: if there are no
    /// more threads than cores and no other replica of the group has the same IP address.
    pub pin: Option<bool>,
}

impl Default for CoreOptions {
    fn default() -> CoreOptions {
        let parallelization = Parallelization::default();
        CoreOptions { parallelization, threads: None, workers: None, share: (0, 1), pin: None }
    }
}

/// How much the log may hold, and in what pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogPolicy {
    /// How the log is laid out.
    pub layout: LogOptions,
    /// A checkpoint goes to disk, and the log is cut back, whenever the log has grown by so many
    /// bytes, and by as many as the last one took. Default: 64 MiB.
    pub growth_bytes: u64,
}

impl Default for LogPolicy {
    fn default() -> LogPolicy {
        LogPolicy {
            layout: LogOptions::default(),
            growth_bytes: store::checkpoint::CHECKPOINT_LOG_BYTES,
        }
    }
}

/// See [`ReplicaOptions::on_begin`].
pub type OnBegin = Box<dyn FnOnce() -> std::io::Result<()> + Send>;

/// Bounds on the connections of one pillar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionLimits {
    /// Authenticated connections of clients.
    pub clients_max: usize,
    /// Of these, connections of one principal.
    pub per_client_max: usize,
    /// Connections that have not yet proved who they are. The oldest goes when there are more.
    pub strangers_max: usize,
    /// Bytes that may wait for a principal that reads slowly, over all its connections; beyond
    /// them, and one reply more, the one on which most waits is closed. Default: 64 MiB.
    pub client_backlog_max: usize,
    /// Bytes that may wait for a peer; messages are dropped beyond them and repaired later.
    pub peer_backlog_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            clients_max: 4096,
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
            cores: CoreOptions::default(),
            listeners: None,
            listen_ip: None,
            retransmit: Span::millis(100),
            limits: ConnectionLimits::default(),
            durability: Durability::Memory,
            state_dir: None,
            fresh: false,
            recover: false,
            storage: Arc::new(Real),
            log: LogPolicy::default(),
            seed: None,
            on_begin: None,
            drill: None,
            drill_paused: false,
        }
    }

    /// Checks what belongs together.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let bad = |what| Err(StartError::Options(what));
        if self.id.0 >= self.group.quorums().n() {
            return bad("there is no replica with this id");
        }
        if self.group.partitions() > 1 {
            return bad("a replica is of one partition: start one for each of the group's parts");
        }
        let (own, all) = self.cores.share;
        if own >= all {
            return bad("there are not as many partitions in this process");
        }
        if self.cores.threads == Some(0) {
            return bad("a replica needs at least one thread");
        }
        let pillars = usize::from(self.group.pillars());
        if self.cores.parallelization == Parallelization::Top {
            self.check_pipeline()?;
        }
        if self.listeners.as_ref().is_some_and(|all| all.len() != pillars) {
            return bad("a replica needs one listening socket per pillar");
        }
        if self.durability != Durability::Memory && self.state_dir.is_none() {
            return bad("durability sync and async need a directory for the replica's state");
        }
        switches::check(&self.chosen()).map_err(StartError::Switches)?;
        if self.group.settings().agreement == genesis::Agreement::None {
            self.check_alone()?;
        }
        if self.drill.is_some() && !self.group.settings().drills {
            return bad("this group was not founded for drills: nobody misbehaves in it to order");
        }
        Ok(())
    }
}

impl ReplicaOptions {
    /// Which value each switch has, the group's and the replica's.
    fn chosen(&self) -> Vec<Choice> {
        let mut chosen = self.group.settings().chosen();
        chosen.push(Choice("durability", self.durability.word()));
        let own = self.group.replicas().get(usize::from(self.id.0));
        let transport = own.map(ReplicaEntry::transport).unwrap_or_default();
        chosen.push(Choice("transport", transport.word()));
        chosen.push(Choice("parallelization", self.cores.parallelization.word()));
        chosen
    }

    /// What a task-oriented pipeline cannot do.
    fn check_pipeline(&self) -> Result<(), StartError> {
        let bad = |what| Err(StartError::Options(what));
        if self.group.pillars() > 1 {
            return bad("a task-oriented pipeline has one thread for the protocol: one pillar");
        }
        if self.cores.threads.is_some_and(|threads| threads < top::THREADS_MIN) {
            return bad("a task-oriented pipeline has a thread for each task: at least 6");
        }
        if self.drill.is_some() {
            return bad("drills are for pillars: a task-oriented pipeline does not misbehave");
        }
        Ok(())
    }

    /// What a server that nobody replicates cannot do.
    fn check_alone(&self) -> Result<(), StartError> {
        let bad = |what| Err(StartError::Options(what));
        if self.recover || !self.fresh {
            return bad(
                "a server without agreement had all its state in memory, and there is nobody to \
                 fetch it from: it starts once; found another one for the next start",
            );
        }
        if self.drill.is_some() {
            return bad("a server without agreement has nobody who would notice a drill");
        }
        Ok(())
    }
}

impl fmt::Debug for ReplicaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ReplicaOptions");
        out.field("id", &self.id).field("cores", &self.cores);
        out.field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options contradict each other.
    #[error("{0}")]
    Options(&'static str),
    /// Switches that do not go together.
    #[error("{0}")]
    Switches(&'static Conflict),
    /// The secret is not this replica's.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A host of the group has no address.
    #[error("cannot resolve {address}: {source}")]
    Resolve {
        /// Where.
        address: Address,
        /// What the resolver says.
        source: std::io::Error,
    },
    /// A pillar cannot listen.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: Address,
        /// What the system says.
        source: std::io::Error,
    },
    /// The replica's directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It must not start like this.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What the log holds is nothing that this version wrote.
    #[error("the log in {dir} cannot be read by this version: {what}")]
    Records {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        what: base::Malformed,
    },
    /// The snapshot to begin with is not what it says.
    #[error("{path}: {what}: the group cannot begin with it")]
    Seed {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// [`ReplicaOptions::on_begin`] failed.
    #[error("cannot note the first start: {0}")]
    Begin(#[source] std::io::Error),
    /// The system refuses a thread, a poll or a socket.
    #[error("cannot start a thread: {0}")]
    System(#[from] std::io::Error),
}
