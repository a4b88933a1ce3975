//! `stylite demo`: a local group with a gateway, to try things out.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::ClientId;
use genesis::{GROUP_FILE, Group, InitOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::gateway::{Gateway, Protocol};
use super::{client_id, print, runtime, warn_of_faults};
use crate::cli::{DemoArgs, Durability, Parallelization};
use crate::exit::{Exit, Misuse};
use crate::local::{Ended, LocalGroup, LocalOptions, wait_until_healthy};
use crate::probe::Prober;
use crate::signals::Signals;
use crate::start::{METRICS_OFFSET, metrics_default};
use crate::values::{Assignment, count};

/// How many ports beyond the usual one are tried.
const PORTS_TRIED: u16 = 100;
/// How often it is looked whether all replicas still run.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a replica may take to say how it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the gateway may take to answer the first requests.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs the command.
///
/// # Errors
/// When the group cannot be started or does not serve, or too many replicas end.
pub fn run(args: &DemoArgs, log: Option<&str>) -> Result<Exit> {
    let args = &adopt(args)?;
    check_drills(args)?;
    warn_of_faults(args.replicas, None);
    runtime()?.block_on(async {
        let mut signals = Signals::listen()?;
        let protocol = protocol(args)?;
        let listener = listen(protocol, args).await?;
        print("Starting ...\n")?;
        let mut local = LocalGroup::start(&options(args, log))?;
        let started = tokio::select! {
            _ = signals.next() => None,
            started = start(protocol, &mut local, listener) => Some(started),
        };
        let (outcome, gateway) = match started {
            None => (Ok(Exit::Ok), None),
            Some(Err(error)) => (Err(error), None),
            Some(Ok(gateway)) => {
                print(&welcome(protocol, &local, &gateway, args))?;
                let restart = !args.no_restart;
                (watch(&mut local, &mut signals, (restart, args.durability)).await, Some(gateway))
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

/// A group that is there already goes on as it was founded: what founds one says nothing about it.
fn adopt(args: &DemoArgs) -> Result<DemoArgs> {
    let mut args = args.clone();
    let Some(dir) = args.dir.clone().filter(|dir| dir.join(GROUP_FILE).exists()) else {
        return Ok(args);
    };
    let group = Group::load(&dir)?;
    let (service, n, pillars) = (group.service(), group.quorums().n(), group.pillars());
    print(&format!(
        "{}: a group is there already, and goes on as it was founded: service {service}, {}, {}.\n",
        dir.display(),
        count(n.into(), "replica"),
        count(pillars.into(), "pillar"),
    ))?;
    (args.service, args.replicas, args.pillars) = (service.to_owned(), n, pillars);
    Ok(args)
}

/// At most f replicas misbehave, each in one way.
fn check_drills(args: &DemoArgs) -> Result<()> {
    let faults = args.replicas.saturating_sub(1) / 3;
    let mut seen = BTreeSet::new();
    for (replica, _) in &args.misbehave {
        if replica.0 >= args.replicas {
            let all = args.replicas;
            return Misuse::err(format!(
                "--misbehave: no replica {replica}; there are {all}, from 0"
            ));
        }
        if !seen.insert(*replica) {
            let twice = format!("replica {replica} is named twice; it misbehaves in one way");
            return Misuse::err(format!("--misbehave: {twice}"));
        }
    }
    if seen.len() > usize::from(faults) {
        return Misuse::err(format!(
            "--misbehave: {} of {} misbehave; such a group endures {faults}. Name fewer, or use \
             --replicas {}",
            count(seen.len() as u64, "replica"),
            args.replicas,
            3 * seen.len() + 1
        ));
    }
    Ok(())
}

fn options(args: &DemoArgs, log: Option<&str>) -> LocalOptions {
    LocalOptions {
        init: InitOptions {
            name: "demo".to_owned(),
            service: args.service.clone(),
            replicas: args.replicas,
            pillars: args.pillars,
            settings: args.ways.settings(),
            transport: args.transport.into(),
            ..InitOptions::default()
        },
        dir: args.dir.clone(),
        threads: None,
        workers: None,
        parallelization: Parallelization::Cop,
        log: log.unwrap_or("info").to_owned(),
        durability: args.durability,
        drills: args.misbehave.clone(),
        metrics: true,
        cpus: None,
    }
}

/// What the gateway speaks. An address for the other one would be a misunderstanding.
fn protocol(args: &DemoArgs) -> Result<Protocol> {
    let protocol =
        Protocol::of(&args.service).context("the demo has no gateway for this service")?;
    let other = match protocol {
        Protocol::Redis => args.zookeeper.is_some().then_some(Protocol::ZooKeeper),
        Protocol::ZooKeeper => args.redis.is_some().then_some(Protocol::Redis),
    };
    if let Some(other) = other {
        let (word, service) = (other.word(), other.service());
        return Misuse::err(format!(
            "--{word} is for --service {service}, this is {}",
            args.service
        ));
    }
    Ok(protocol)
}

/// The port at which the protocol's clients look first.
fn usual_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Redis => 6379,
        Protocol::ZooKeeper => 2181,
    }
}

/// The address that was asked for, or the first free port from the usual one on.
async fn listen(protocol: Protocol, args: &DemoArgs) -> Result<TcpListener> {
    let (word, usual) = (protocol.word(), usual_port(protocol));
    let wanted = if protocol == Protocol::Redis { args.redis } else { args.zookeeper };
    if let Some(address) = wanted {
        if !address.ip().is_loopback() {
            bail!(
                "--{word} {address}: the demo has neither passwords nor TLS and listens on \
                loopback addresses only, such as 127.0.0.1:{usual}"
            );
        }
        let bound = TcpListener::bind(address).await;
        return bound.with_context(|| format!("--{word} {address}: cannot listen there"));
    }
    for port in usual..usual + PORTS_TRIED {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return Ok(listener);
        }
    }
    bail!(
        "no free port between {usual} and {}; name one with --{word} ADDR",
        usual + PORTS_TRIED - 1
    )
}

/// Waits until the replicas take part and the gateway in front of them answers.
async fn start(
    protocol: Protocol,
    local: &mut LocalGroup,
    listener: TcpListener,
) -> Result<Gateway> {
    let group = local.group().clone();
    let probers = Prober::each(&group, client_id(&group, None)?, PROBE_TIMEOUT)?;
    wait_until_healthy(&probers, local).await?;
    let gateway = Gateway::start(&group, ClientId(0), listener).await?;
    let tried = async {
        match protocol {
            Protocol::Redis => try_redis(gateway.address).await,
            Protocol::ZooKeeper => try_zookeeper(gateway.address).await,
        }
    };
    let tried = tokio::time::timeout(FIRST_ANSWER_TIMEOUT, tried).await;
    tried.context("the gateway does not answer")?.context("the gateway does not serve")?;
    Ok(gateway)
}

/// Talks to the gateway as a Redis client would: until this works, nothing is promised.
async fn try_redis(address: SocketAddr) -> Result<()> {
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

/// Asks the gateway how much there is, which it has to ask the group.
async fn try_zookeeper(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"srvr").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if !answer.contains("Node count") {
        bail!("srvr was answered {answer:?}");
    }
    Ok(())
}

/// What to do first.
fn to_try(protocol: Protocol, port: u16) -> String {
    match protocol {
        Protocol::Redis => format!(
            "redis-cli -p {port} set greeting hello\n  \
             redis-benchmark -p {port} -t set,get -n 100000 -c 50 -P 16 -q"
        ),
        Protocol::ZooKeeper => format!(
            "zkCli.sh -server 127.0.0.1:{port} create /greeting hello\n  \
             zkCli.sh -server 127.0.0.1:{port} get -s /greeting"
        ),
    }
}

fn welcome(protocol: Protocol, local: &LocalGroup, gateway: &Gateway, args: &DemoArgs) -> String {
    let group = local.group();
    let (quorums, dir, port) = (group.quorums(), local.dir().display(), gateway.address.port());
    let misbehaving = u16::try_from(local.drills().len()).unwrap_or(u16::MAX);
    let partitions = match group.partitions() {
        1 => String::new(),
        several => format!(" in {several} partitions"),
    };
    let mut out = format!(
        "\nA group of {}{partitions} serves; {}.\n\n",
        count(quorums.n().into(), "replica"),
        tolerated(quorums.f(), misbehaving),
    );
    for (entry, pid) in group.replicas().iter().zip(local.pids()) {
        let (id, place) = (entry.id, entry.place());
        let drill = local.drills().iter().find(|(other, _)| *other == id);
        let drill = drill.map_or_else(String::new, |(_, drill)| format!("  misbehaves: {drill}"));
        let recovers = match local.lost().contains(&id) {
            true => "  recovers: its disk was lost",
            false => "",
        };
        out.push_str(&format!("  replica {id}      {place}{drill}{recovers}  (process {pid})\n"));
    }
    // As it was called, so that it also works where it is not on the search path.
    let program = std::env::args().next().unwrap_or_else(|| "stylite".to_owned());
    out.push_str(&format!("  {:<14} {}\n", protocol.gateway(), gateway.address));
    if let (Some(first), Some(at)) = (group.replicas().first(), gateway.metrics()) {
        let replica = metrics_default(group, first.id);
        out.push_str(&format!(
            "  metrics        http://{replica}/metrics (each replica's port + {METRICS_OFFSET}), \
             http://{at}/metrics (gateway)\n"
        ));
    }
    out.push_str(&format!(
        "  files          {dir}\n\nThree things to try:\n\n  \
         {}\n  {program} status --config {dir}\n",
        to_try(protocol, port),
    ));
    // Not one more than the group endures.
    if let (1.., Some(leader)) = (quorums.f().saturating_sub(misbehaving), local.pids().first()) {
        out.push_str(&format!(
            "\nThen kill the first leader, replica 0, and ask again: another one takes over.\n\n  \
             kill -9 {leader}\n"
        ));
    }
    out.push_str(&format!("\n{} {}\n", kept(args.durability), ending(local, args.no_restart)));
    out
}

/// What is kept of the state, in words.
fn kept(durability: Durability) -> &'static str {
    match durability {
        Durability::Memory => "State is kept in memory only.",
        Durability::Async => "State is on disk soon after it was acknowledged.",
        Durability::Sync => "State is on disk before it is acknowledged.",
    }
}

fn ending(local: &LocalGroup, no_restart: bool) -> String {
    let restart = match no_restart {
        true => "A replica that ends stays away.",
        false => "A replica that ends is started again.",
    };
    let left = if local.is_temporary() { " and leaves nothing behind" } else { "" };
    format!("{restart} Ctrl-C stops everything{left}.")
}

/// How many may fail beside those that misbehave already, in words.
fn tolerated(f: u16, misbehaving: u16) -> String {
    match (f, f.saturating_sub(misbehaving)) {
        (1.., 0) => "as many misbehave as may, so that no other may fail".to_owned(),
        (0, _) => "none of them may fail".to_owned(),
        (_, 1) if misbehaving > 0 => "one more may fail in any way".to_owned(),
        (_, 1) => "any one of them, the leader included, may fail in any way".to_owned(),
        (_, more) if misbehaving > 0 => format!("{more} more may fail in any way"),
        _ => format!("any {f} of them, the leader included, may fail in any way"),
    }
}

/// What the loss of a replica means, in words.
fn consequence(enough_run: bool, restart: bool, durability: Durability) -> &'static str {
    match (enough_run, restart) {
        (true, true) => "The group goes on. It is started again.",
        (true, false) => "The group goes on.",
        (false, true) if durability == Durability::Memory => {
            "More than may fail have lost their memory: what was acknowledged is lost, and this \
             group cannot go on. Ctrl-C, and start a new demo; one with --durability sync \
             survives this."
        }
        (false, true) => "Too few run: nothing is executed until they are back.",
        (false, false) => "Too few run: nothing is executed any more. Ctrl-C ends the demo.",
    }
}

/// Watches the replicas until a signal comes, and starts those again that have ended.
async fn watch(
    local: &mut LocalGroup,
    signals: &mut Signals,
    (restart, durability): (bool, Durability),
) -> Result<Exit> {
    let quorums = local.group().quorums();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(Exit::Ok),
            _ = look.tick() => {}
        }
        for Ended { id, status, last_words } in local.ended() {
            let running = local.running();
            let aborted = status.signal() == Some(rustix::process::Signal::ABORT.as_raw());
            let crashes = |(at, drill): &Assignment| {
                aborted && *at == id && matches!(drill, rt::Drill::CrashAfter(_))
            };
            let told = if local.drills().iter().any(crashes) { ", as it was told to" } else { "" };
            print(&format!(
                "Replica {id} has ended{told} ({status}); {running} of {} are left. {}\n",
                quorums.n(),
                consequence(running >= quorums.quorum(), restart, durability),
            ))?;
            if let Some(last) = last_words.lines().last() {
                print(&format!("  the last line of its log: {last}\n"))?;
            }
        }
        if restart {
            for (id, pid) in local.restart()? {
                print(&format!("Replica {id} runs again (process {pid}).\n"))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(flags: &[&str]) -> DemoArgs {
        let line = [&["stylite", "demo"], flags].concat();
        match Cli::try_parse_from(line).expect("legal flags").command {
            Command::Demo(args) => args,
            other => panic!("not demo: {other:?}"),
        }
    }

    #[test]
    fn as_many_misbehave_as_the_group_endures() {
        let check = |flags: &[&str]| check_drills(&args(flags)).map_err(|e| e.to_string());
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["--misbehave", "0=silent"]), Ok(()));
        let two = ["--misbehave", "0=silent", "--misbehave", "1=garbage"];
        assert!(check(&two).expect_err("two of four").contains("--replicas 7"));
        assert_eq!(check(&[&two[..], &["--replicas", "7"]].concat()), Ok(()));
        assert_eq!(check(&["--misbehave", "0=silent,3=garbage", "--replicas", "7"]), Ok(()));
        let twice = ["--misbehave", "1=silent,1=garbage", "--replicas", "7"];
        assert!(check(&twice).expect_err("twice").contains("twice"));
        assert!(check(&["--misbehave", "4=silent"]).expect_err("none").contains("no replica 4"));
    }
}
