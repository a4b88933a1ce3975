//! `stylite gateway redis` and `stylite gateway zookeeper`: what unmodified clients talk to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base::ClientId;
use client::ConnectError;
use genesis::Group;
use node::gateway::GatewayStats;
use node::{gateway, zookeeper};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{client_id, client_options, load, print, runtime};
use crate::cli::{RedisArgs, ZooKeeperArgs};
use crate::exit::Exit;
use crate::signals::Signals;
use crate::site::GatewaySite;
use crate::start;
use crate::values::Metrics;
use node::http::Server;

/// What a gateway speaks on the side of its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Redis's: RESP2 and RESP3.
    Redis,
    /// ZooKeeper's.
    ZooKeeper,
}

/// What a gateway was asked to be.
pub struct Asked<'a> {
    protocol: Protocol,
    config: &'a Path,
    client: u32,
    listen: SocketAddr,
    allow_remote: bool,
    metrics: Option<Metrics>,
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Runs the command.
///
/// # Errors
/// When the keys or the group are not for it, or the address cannot be listened on. While the group
/// cannot be reached it waits, with a warning now and then.
pub fn run(args: &Asked<'_>) -> Result<Exit> {
    refuse_remote(args.listen, args.allow_remote)?;
    let group = load(args.config)?;
    args.protocol.check(&group)?;
    let id = client_id(&group, Some(args.client))?;
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        // The address first: a taken port shows at once, also while the group is not reachable.
        // Nobody can connect to it before the group can.
        let taken =
            || format!("cannot listen on {}: name another address with --listen", args.listen);
        let socket = reserve(args.listen).with_context(taken)?;
        let port = socket.local_addr().with_context(taken)?.port();
        let metrics = start::metrics_listener(args.metrics, start::metrics_beside(port))?;
        eprintln!("waiting for the group \"{}\" ...", group.name());
        let client = tokio::select! {
            _ = signals.next() => return Ok(Exit::Ok),
            client = Gateway::wait(&group, id) => client?,
        };
        let listener = socket.listen(BACKLOG).with_context(taken)?;
        let mut gateway = Gateway::serve(client, listener, metrics, &group)?;
        print(&format!(
            "{} gateway of the group \"{}\" on {}\n{}",
            args.protocol.name(),
            group.name(),
            gateway.address,
            gateway.metrics().map_or_else(String::new, |at| {
                format!("metrics and health on http://{at}/metrics\n")
            }),
        ))?;
        tokio::select! {
            _ = signals.next() => {}
            ended = &mut gateway.task => return Gateway::outcome(ended).map(|()| Exit::Ok),
        }
        signals.or_exit(gateway.stop()).await?;
        Ok(Exit::Ok)
    })
}

impl Protocol {
    /// That of the clients of groups with this service, if it has some.
    #[must_use]
    pub fn of(service: &str) -> Option<Protocol> {
        [Protocol::Redis, Protocol::ZooKeeper].into_iter().find(|own| own.service() == service)
    }

    /// The service that it is for.
    #[must_use]
    pub fn service(self) -> &'static str {
        match self {
            Protocol::Redis => "kv",
            Protocol::ZooKeeper => "zookeeper",
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Redis => "Redis",
            Protocol::ZooKeeper => "ZooKeeper",
        }
    }

    /// Its gateway, in few letters.
    #[must_use]
    pub fn gateway(self) -> &'static str {
        match self {
            Protocol::Redis => "Redis gateway",
            Protocol::ZooKeeper => "gateway",
        }
    }

    /// The word on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Redis => "redis",
            Protocol::ZooKeeper => "zookeeper",
        }
    }

    fn check(self, group: &Group) -> Result<()> {
        if group.service() != self.service() {
            let (path, service) = (group.path().display(), group.service());
            let (name, needed) = (self.name(), self.service());
            bail!("{path}: service = {service}: the {name} gateway needs a group of {needed}");
        }
        Ok(())
    }
}

impl<'a> From<&'a RedisArgs> for Asked<'a> {
    fn from(args: &'a RedisArgs) -> Asked<'a> {
        let RedisArgs { config, client, listen, allow_remote, metrics } = args;
        Asked {
            protocol: Protocol::Redis,
            config,
            client: *client,
            listen: *listen,
            allow_remote: *allow_remote,
            metrics: *metrics,
        }
    }
}

impl<'a> From<&'a ZooKeeperArgs> for Asked<'a> {
    fn from(args: &'a ZooKeeperArgs) -> Asked<'a> {
        let ZooKeeperArgs { config, client, listen, allow_remote, metrics } = args;
        Asked {
            protocol: Protocol::ZooKeeper,
            config,
            client: *client,
            listen: *listen,
            allow_remote: *allow_remote,
            metrics: *metrics,
        }
    }
}

/// Takes an address without listening on it yet.
fn reserve(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Without password and TLS, whoever can reach the gateway can do everything.
fn refuse_remote(listen: SocketAddr, allowed: bool) -> Result<()> {
    if listen.ip().is_loopback() || allowed {
        return Ok(());
    }
    bail!(
        "{listen} can be reached from other machines, and the gateway has neither passwords nor \
         TLS: whoever reaches it can read and change everything. Listen on 127.0.0.1 and run a \
         gateway beside each client, or insist with --allow-remote"
    )
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Gateway {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
    stop: watch::Sender<bool>,
    client: client::Client,
    server: Option<Server>,
}

impl Gateway {
    /// Connects to the group as `id` and serves on `listener`, as a task of this runtime.
    ///
    /// # Errors
    /// When the group's service is not for this gateway, or the group cannot be reached.
    pub async fn start(group: &Group, id: ClientId, listener: TcpListener) -> Result<Gateway> {
        let port = listener.local_addr().context("cannot tell the gateway's address")?.port();
        let metrics = start::metrics_listener(None, start::metrics_beside(port))?;
        Gateway::serve(Gateway::open(group, id).await?, listener, metrics, group)
    }

    /// Where metrics are served, if they are.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::address)
    }

    /// Connects to the group as `id`, whenever it can be reached: a gateway may be started before
    /// its replicas, as when a machine starts.
    async fn wait(group: &Group, id: ClientId) -> Result<client::Client> {
        loop {
            let error = match Gateway::open(group, id).await {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            if !error.downcast_ref().is_some_and(ConnectError::is_temporary) {
                return Err(error);
            }
            tracing::warn!("still waiting for the group: {error}");
        }
    }

    /// Connects to the group as `id`.
    async fn open(group: &Group, id: ClientId) -> Result<client::Client> {
        let mut options = client_options(group, id)?;
        if Protocol::of(group.service()) == Some(Protocol::ZooKeeper) {
            options.lines = Some(zookeeper::lines(group.pillars()));
        }
        Ok(client::Client::connect(options).await?)
    }

    /// Serves on `listener`, as a task of this runtime.
    fn serve(
        client: client::Client,
        listener: TcpListener,
        metrics: Option<std::net::TcpListener>,
        group: &Group,
    ) -> Result<Gateway> {
        let address = listener.local_addr().context("cannot tell the gateway's address")?;
        let (stop, stopped) = watch::channel(false);
        let backend = node::gateway::Group::new(client.clone());
        let stats = Arc::new(GatewayStats::default());
        let site = GatewaySite {
            stats: Arc::clone(&stats),
            client: client.clone(),
            quorum: group.quorums().quorum(),
        };
        let start = |listener| Server::start(listener, Arc::new(site));
        let server = metrics.map(start).transpose()?;
        let service = group.service();
        let protocol = Protocol::of(service)
            .with_context(|| format!("there is no gateway for groups of {service}"))?;
        let task = match protocol {
            Protocol::Redis => {
                let config = gateway::Config::default();
                tokio::spawn(gateway::serve(listener, backend, config, stats, stopped))
            }
            Protocol::ZooKeeper => {
                let lines = zookeeper::lines(group.pillars());
                let config = zookeeper::Config { lines, ..zookeeper::Config::default() };
                tokio::spawn(zookeeper::serve(listener, backend, config, stats, stopped))
            }
        };
        Ok(Gateway { address, task, stop, client, server })
    }

    /// Takes no more requests, sends the replies to those that were taken, and ends.
    ///
    /// # Errors
    /// When serving had failed.
    pub async fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        let outcome = Gateway::outcome(self.task.await);
        drop(self.server);
        self.client.close().await;
        outcome
    }

    fn outcome(ended: Result<std::io::Result<()>, tokio::task::JoinError>) -> Result<()> {
        ended.context("the gateway has failed")?.context("the gateway cannot listen any more")
    }
}
