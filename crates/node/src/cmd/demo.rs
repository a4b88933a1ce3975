//! `stylite demo`: a local group with a Redis gateway, to try things out.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::{ClientId, ReplicaId};
use genesis::InitOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::gateway::{Gateway, SERVICE};
use super::{client_id, print, runtime, warn_of_faults};
use crate::cli::DemoArgs;
use crate::exit::Exit;
use crate::local::{Ended, LocalGroup, LocalOptions, wait_until_healthy};
use crate::probe::Prober;
use crate::signals::Signals;
use crate::values::count;

/// Where Redis listens.
const REDIS_PORT: u16 = 6379;
/// How many ports beyond it are tried.
const PORTS_TRIED: u16 = 100;
/// How often it is looked whether all replicas still run.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a replica may take to say how it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The leader of view 0, the only one that this version has.
const LEADER: ReplicaId = ReplicaId(0);
/// How long the gateway may take to answer the first requests.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs the command.
///
/// # Errors
/// When the group cannot be started or does not serve, or too many replicas end.
pub fn run(args: &DemoArgs, log: Option<&str>) -> Result<Exit> {
    args.durability.check()?;
    warn_of_faults(args.replicas, None);
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let listener = listen(args.redis).await?;
        print("Starting ...\n")?;
        let mut local = LocalGroup::start(&options(args, log))?;
        let started = tokio::select! {
            _ = signals.next() => None,
            started = start(&mut local, listener) => Some(started),
        };
        let (outcome, gateway) = match started {
            None => (Ok(Exit::Ok), None),
            Some(Err(error)) => (Err(error), None),
            Some(Ok(gateway)) => {
                print(&welcome(&local, gateway.address))?;
                (watch(&mut local, &mut signals).await, Some(gateway))
            }
        };
        print("Stopping ...\n")?;
        let stop = async {
            if let Some(gateway) = gateway {
                gateway.stop().await?;
            }
            // The directory goes with the group.
            tokio::task::spawn_blocking(|| local.stop()).await.context("stopping failed")
        };
        signals.or_exit(stop).await?;
        outcome
    })
}

fn options(args: &DemoArgs, log: Option<&str>) -> LocalOptions {
    LocalOptions {
        init: InitOptions {
            name: "demo".to_owned(),
            service: SERVICE.to_owned(),
            replicas: args.replicas,
            pillars: args.pillars,
            ..InitOptions::default()
        },
        dir: args.dir.clone(),
        threads: None,
        log: log.unwrap_or("info").to_owned(),
    }
}

/// The address that was asked for, or the first free port from Redis's on.
async fn listen(wanted: Option<SocketAddr>) -> Result<TcpListener> {
    if let Some(address) = wanted {
        if !address.ip().is_loopback() {
            bail!(
                "--redis {address}: the demo has neither passwords nor TLS and listens on \
                loopback addresses only, such as 127.0.0.1:{REDIS_PORT}"
            );
        }
        let bound = TcpListener::bind(address).await;
        return bound.with_context(|| format!("--redis {address}: cannot listen there"));
    }
    for port in REDIS_PORT..REDIS_PORT + PORTS_TRIED {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return Ok(listener);
        }
    }
    bail!(
        "no free port between {REDIS_PORT} and {}; name one with --redis ADDR",
        REDIS_PORT + PORTS_TRIED - 1
    )
}

/// Waits until the replicas take part and the gateway in front of them answers.
async fn start(local: &mut LocalGroup, listener: TcpListener) -> Result<Gateway> {
    let group = local.group().clone();
    let prober = Prober::new(&group, client_id(&group, None)?, PROBE_TIMEOUT)?;
    wait_until_healthy(&prober, local).await?;
    let gateway = Gateway::start(&group, ClientId(0), listener).await?;
    let tried = tokio::time::timeout(FIRST_ANSWER_TIMEOUT, try_out(gateway.address)).await;
    tried.context("the gateway does not answer")?.context("the gateway does not serve")?;
    Ok(gateway)
}

/// Talks to the gateway as a Redis client would: until this works, nothing is promised.
async fn try_out(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    for (request, expected) in [
        ("PING", "+PONG\r\n"),
        ("SET stylite:demo ready", "+OK\r\n"),
        ("GET stylite:demo", "$5\r\nready\r\n"),
        ("DEL stylite:demo", ":1\r\n"),
    ] {
        stream.write_all(format!("{request}\r\n").as_bytes()).await?;
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).await?;
        if answer != expected.as_bytes() {
            bail!("{request} was answered {:?}", String::from_utf8_lossy(&answer));
        }
    }
    Ok(())
}

fn welcome(local: &LocalGroup, redis: SocketAddr) -> String {
    let group = local.group();
    let (quorums, dir, port) = (group.quorums(), local.dir().display(), redis.port());
    let mut out = format!(
        "\nA group of {} serves; {}.\nReplacing the leader (replica 0) is not in this version: \
         without it nothing is executed.\n\n",
        count(quorums.n().into(), "replica"),
        tolerated(quorums.n(), quorums.f()),
    );
    for (entry, pid) in group.replicas().iter().zip(local.pids()) {
        let ports: Vec<String> = entry.ports.iter().map(u16::to_string).collect();
        let (id, host) = (entry.id, &entry.host);
        out.push_str(&format!("  replica {id}      {host}:{}  (process {pid})\n", ports.join(",")));
    }
    // As it was called, so that it also works where it is not on the search path.
    let program = std::env::args().next().unwrap_or_else(|| "stylite".to_owned());
    out.push_str(&format!(
        "  Redis gateway  {redis}\n  files          {dir}\n\nThree things to try:\n\n  \
         redis-cli -p {port} set greeting hello\n  \
         redis-benchmark -p {port} -t set,get -n 100000 -c 50 -P 16 -q\n  \
         {program} status --config {dir}\n\nState is kept in memory only. Ctrl-C stops everything\
         {}.\n",
        if local.is_temporary() { " and leaves nothing behind" } else { "" },
    ));
    out
}

/// Who may fail, in words.
fn tolerated(n: u16, f: u16) -> String {
    let backups: Vec<String> = match n {
        0..=7 => (1..n).map(|id| id.to_string()).collect(),
        _ => vec![format!("1 to {}", n - 1)],
    };
    match f {
        0 => "none of them may fail".to_owned(),
        _ => format!("any {f} of the backups ({}) may fail in any way", backups.join(", ")),
    }
}

/// What the loss of a replica means, in words.
fn consequence(leader_runs: bool, enough_run: bool) -> &'static str {
    match (leader_runs, enough_run) {
        (false, _) => {
            "This version cannot replace a leader: nothing is executed any more. Ctrl-C ends the \
             demo."
        }
        (true, false) => "These are too few: nothing is executed any more. Ctrl-C ends the demo.",
        (true, true) => "The group goes on as long as a quorum, the leader included, works.",
    }
}

/// Watches the replicas until a signal comes, or until too many of them have ended.
async fn watch(local: &mut LocalGroup, signals: &mut Signals) -> Result<Exit> {
    let quorums = local.group().quorums();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut leader_runs = true;
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(Exit::Ok),
            _ = look.tick() => {}
        }
        for Ended { id, status, last_words } in local.ended() {
            let running = local.running();
            leader_runs &= id != LEADER;
            let who = if id == LEADER { ", the leader," } else { "" };
            print(&format!(
                "Replica {id}{who} has ended ({status}); {running} of {} are left. {}\n",
                quorums.n(),
                consequence(leader_runs, running >= quorums.quorum()),
            ))?;
            if let Some(last) = last_words.lines().last() {
                print(&format!("  the last line of its log: {last}\n"))?;
            }
        }
    }
}
