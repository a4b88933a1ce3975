//! `stylite gateway redis`: what Redis clients talk to.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base::ClientId;
use genesis::Group;
use node::gateway::{Config, GatewayStats, serve};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{client_id, connect, load, print, runtime};
use crate::cli::RedisArgs;
use crate::exit::Exit;
use crate::signals::Signals;
use crate::site::GatewaySite;
use crate::start;
use node::http::Server;

/// The service that the gateway speaks for.
pub const SERVICE: &str = "kv";
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Runs the command.
///
/// # Errors
/// When the group cannot be reached, or the address cannot be listened on.
pub fn run(args: &RedisArgs) -> Result<Exit> {
    refuse_remote(args.listen, args.allow_remote)?;
    let group = load(&args.config)?;
    let id = client_id(&group, Some(args.client))?;
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        // The address first: a taken port shows at once, also while the group is not reachable.
        // Nobody can connect to it before the group can.
        let taken = || format!("cannot listen on {}", args.listen);
        let socket = reserve(args.listen).with_context(taken)?;
        let port = socket.local_addr().with_context(taken)?.port();
        let metrics = start::metrics_listener(args.metrics, port)?;
        eprintln!("waiting for the group \"{}\" ...", group.name());
        let client = tokio::select! {
            _ = signals.next() => return Ok(Exit::Ok),
            client = Gateway::open(&group, id) => client?,
        };
        let listener = socket.listen(BACKLOG).with_context(taken)?;
        let mut gateway = Gateway::serve(client, listener, metrics, &group)?;
        print(&format!(
            "Redis gateway of the group \"{}\" on {}\n{}",
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
        let metrics = start::metrics_listener(None, port)?;
        Gateway::serve(Gateway::open(group, id).await?, listener, metrics, group)
    }

    /// Where metrics are served, if they are.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::address)
    }

    /// Connects to the group as `id`.
    async fn open(group: &Group, id: ClientId) -> Result<client::Client> {
        if group.service() != SERVICE {
            let (path, service) = (group.path().display(), group.service());
            bail!("{path}: service = {service}: the Redis gateway needs a group of {SERVICE}");
        }
        connect(group, id).await
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
        let task = tokio::spawn(serve(listener, backend, Config::default(), stats, stopped));
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
