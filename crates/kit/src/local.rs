//! A whole group inside this process: for tests, examples and first tries.
//!
//! Keys live in memory, replicas listen on free ports of the loopback interface, and keep their
//! promises in memory unless they are given a directory. Everything else is as in a group of
//! processes: threads, sockets, handshakes, votes.

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Mutex;

use auth::Secret;
use base::{ClientId, ReplicaId};
use client::{Client, ClientOptions, ConnectError, blocking};
use exec::Service;
use genesis::{Group, InitOptions, Settings};
use rt::{Durability, Listener, Replica, ReplicaOptions, ReplicaReport};

use crate::error::KitError;

/// The address of everything: on Linux, where the whole of 127.0.0.0/8 is this host, one of this
/// process alone. Connections leave from 127.0.0.1 by any port that is free there, so there the
/// port of a replica that is stopped for a moment might be taken when it starts again.
fn host() -> Ipv4Addr {
    let [_, b, c, d] = std::process::id().to_be_bytes();
    if cfg!(target_os = "linux") { Ipv4Addr::new(127, b | 128, c, d) } else { Ipv4Addr::LOCALHOST }
}

/// Makes a service in its initial state.
type Factory = Box<dyn FnMut() -> Box<dyn Service> + Send>;

/// Builds a [`LocalGroup`].
pub struct LocalGroupBuilder {
    factory: Factory,
    options: InitOptions,
    disk: Option<(Durability, PathBuf)>,
    workers: Option<usize>,
}

/// A running group. Dropping it stops it at once; [`LocalGroup::stop`] drains it first.
pub struct LocalGroup {
    local: genesis::LocalGroup,
    replicas: Vec<Option<Replica>>,
    /// Behind a lock that nobody waits for, so that threads can share the group.
    factory: Mutex<Factory>,
    disk: Option<(Durability, PathBuf)>,
    workers: Option<usize>,
}

impl LocalGroupBuilder {
    /// How many replicas, n. 4.
    #[must_use]
    pub fn replicas(mut self, replicas: u16) -> LocalGroupBuilder {
        self.options.replicas = replicas;
        self
    }

    /// How many of them may be faulty, f. As many as n allows.
    #[must_use]
    pub fn faults(mut self, faults: u16) -> LocalGroupBuilder {
        self.options.faults = Some(faults);
        self
    }

    /// How many pillars, P. 1.
    #[must_use]
    pub fn pillars(mut self, pillars: u16) -> LocalGroupBuilder {
        self.options.pillars = pillars;
        self
    }

    /// How many principals, numbered from 0. 4.
    #[must_use]
    pub fn clients(mut self, clients: u32) -> LocalGroupBuilder {
        self.options.clients = clients;
        self
    }

    /// What the members agree to do alike: checkpoints, batching.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> LocalGroupBuilder {
        self.options.settings = settings;
        self
    }

    /// Where the replicas keep their promises and their state, each in a directory of its own,
    /// and how. In memory only.
    #[must_use]
    pub fn disk(mut self, durability: Durability, dir: impl Into<PathBuf>) -> LocalGroupBuilder {
        self.disk = Some((durability, dir.into()));
        self
    }

    /// Threads of each replica that execute independent operations at the same time, where the
    /// service is made for it; 0 or 1 for none. As many as a replica's share of the cores leaves
    /// over.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> LocalGroupBuilder {
        self.workers = Some(workers);
        self
    }

    /// Makes the keys and starts the replicas.
    ///
    /// # Errors
    /// When the options are not those of a legal group, or the system refuses a port or thread.
    pub fn start(self) -> Result<LocalGroup, KitError> {
        let mut local = genesis::LocalGroup::generate(&self.options)?;
        // All ports are known before any replica starts, since each is told of all of them.
        let mut sockets = Vec::new();
        for replica in local.group.quorums().replicas() {
            let own = listen(local.group.pillars())?;
            let ports = own.iter().map(|socket| Ok(socket.local_addr()?.port()));
            let ports: Vec<u16> = ports
                .collect::<Result<_, std::io::Error>>()
                .map_err(KitError::system("cannot tell a port"))?;
            local.group.set_address(replica, &host().to_string(), &ports)?;
            sockets.push(own);
        }
        let replicas = sockets.iter().map(|_| None).collect();
        let LocalGroupBuilder { factory, disk, workers, .. } = self;
        let mut group = LocalGroup { local, replicas, factory: Mutex::new(factory), disk, workers };
        for (id, listeners) in (0..).map(ReplicaId).zip(sockets) {
            group.launch(id, true, Some(listeners))?;
        }
        Ok(group)
    }
}

impl fmt::Debug for LocalGroupBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("LocalGroupBuilder");
        out.field("options", &self.options).finish_non_exhaustive()
    }
}

impl LocalGroup {
    /// Begins with a group of four replicas, each with a service that `factory` makes: all in
    /// the same initial state.
    pub fn builder<S: Service + 'static>(
        mut factory: impl FnMut() -> S + Send + 'static,
    ) -> LocalGroupBuilder {
        let options = InitOptions {
            name: "local".to_owned(),
            service: "custom".to_owned(),
            port: 0,
            ..InitOptions::default()
        };
        let factory: Factory = Box::new(move || Box::new(factory()));
        LocalGroupBuilder { factory, options, disk: None, workers: None }
    }

    /// The group's configuration.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.local.group
    }

    /// What a client of principal `id` is set up with; `None` when there is no such principal.
    #[must_use]
    pub fn client_options(&self, id: ClientId) -> Option<ClientOptions> {
        let secret: &Secret = self.local.clients.get(id.0 as usize)?;
        Some(ClientOptions::new(self.local.group.clone(), id, secret.clone()))
    }

    /// Connects a client, as principal 0, inside a tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn client(&self) -> Result<Client, ConnectError> {
        Client::connect(self.first_options()?).await
    }

    /// Connects a blocking client, as principal 0.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn blocking_client(&self) -> Result<blocking::Client, ConnectError> {
        blocking::Client::connect(self.first_options()?)
    }

    /// What a replica tells about itself; `None` when there is no such replica or it is stopped.
    #[must_use]
    pub fn report(&self, id: ReplicaId) -> Option<ReplicaReport> {
        self.replicas.get(usize::from(id.0))?.as_ref().map(Replica::report)
    }

    /// Stops one replica, to see the others go on; false when it is not running.
    pub fn stop_replica(&mut self, id: ReplicaId) -> bool {
        let replica = self.replicas.get_mut(usize::from(id.0)).and_then(Option::take);
        let running = replica.is_some();
        replica.into_iter().for_each(Replica::stop);
        running
    }

    /// Starts a replica again that was stopped, with a new service; false when it is running.
    ///
    /// Without a disk it has forgotten what it promised. It asks the others for their state, and
    /// votes again as soon as that cannot contradict anything that it may have said before.
    ///
    /// # Errors
    /// When its port is taken meanwhile, or the system refuses a thread.
    pub fn start_replica(&mut self, id: ReplicaId) -> Result<bool, KitError> {
        if !matches!(self.replicas.get(usize::from(id.0)), Some(None)) {
            return Ok(false);
        }
        self.launch(id, false, None)?;
        Ok(true)
    }

    /// Drains and stops all replicas.
    pub fn stop(mut self) {
        self.replicas.drain(..).flatten().for_each(Replica::stop);
    }

    fn launch(
        &mut self,
        id: ReplicaId,
        fresh: bool,
        listeners: Option<Vec<TcpListener>>,
    ) -> Result<(), KitError> {
        let place = usize::from(id.0);
        let (secret, members) = (self.local.replicas[place].clone(), self.local.group.clone());
        let factory = self.factory.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut options = ReplicaOptions::new(members, id, secret, factory());
        options.fresh = fresh;
        options.listeners =
            listeners.map(|sockets| sockets.into_iter().map(Listener::from).collect());
        options.cores.workers = self.workers;
        if let Some((durability, dir)) = &self.disk {
            options.durability = *durability;
            options.state_dir = Some(dir.join(format!("replica-{id}")));
        }
        let started = Replica::start(options).map_err(|source| KitError::Start { id, source })?;
        self.replicas[place] = Some(started);
        Ok(())
    }

    fn first_options(&self) -> Result<ClientOptions, ConnectError> {
        let missing = || ConnectError::Option("the group was started without clients".to_owned());
        self.client_options(ClientId(0)).ok_or_else(missing)
    }
}

impl fmt::Debug for LocalGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalGroup").field("replicas", &self.replicas).finish_non_exhaustive()
    }
}

fn listen(pillars: u16) -> Result<Vec<TcpListener>, KitError> {
    let sockets = (0..pillars).map(|_| TcpListener::bind((host(), 0)));
    sockets.collect::<Result<_, _>>().map_err(KitError::system("cannot listen on a free port"))
}
