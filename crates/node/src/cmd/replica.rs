//! `stylite replica`: runs one replica until it is asked to stop.

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use auth::Peer;
use base::{PillarId, ReplicaId};
use genesis::Group;
use rt::{Replica, ReplicaOptions};

use super::{load, print, runtime};
use crate::cli::ReplicaArgs;
use crate::exit::Exit;
use crate::mark;
use crate::signals::Signals;
use crate::values::count;

/// How often it is checked that the replica's threads still run.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs the command.
///
/// # Errors
/// When the replica cannot be started, or its threads end by themselves.
pub fn run(args: &ReplicaArgs) -> Result<Exit> {
    args.durability.check()?;
    let runtime = runtime()?;
    runtime.block_on(async {
        // Before anything else is done, so that no request to stop is missed.
        let mut signals = Signals::listen()?;
        let group = load(&args.config)?;
        let serves = serves(&group, ReplicaId(args.id));
        let replica = start(args, group)?;
        print(&serves)?;
        if args.exit_with_parent {
            std::thread::Builder::new()
                .name("parent".to_owned())
                .spawn(watch_parent)
                .context("cannot start a thread")?;
        }
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = signals.next() => break,
                _ = look.tick() => if !replica.is_alive() {
                    bail!("a thread of the replica has ended; see the log above");
                },
            }
        }
        let stopped = tokio::task::spawn_blocking(|| replica.stop());
        signals.or_exit(stopped).await.context("stopping failed")?;
        Ok(Exit::Ok)
    })
}

/// Who serves where, in words; nothing for a replica that the group does not have.
fn serves(group: &Group, id: ReplicaId) -> String {
    let entry = group.replicas().iter().find(|entry| entry.id == id);
    entry.map_or_else(String::new, |entry| {
        let ports: Vec<String> = entry.ports.iter().map(u16::to_string).collect();
        let (name, host, ports) = (group.name(), &entry.host, ports.join(","));
        let pillars = count(group.pillars().into(), "pillar");
        format!("replica {id} of \"{name}\" serves on {host}:{ports} ({pillars})\n")
    })
}

fn start(args: &ReplicaArgs, group: Group) -> Result<Replica> {
    let id = ReplicaId(args.id);
    if args.id >= group.quorums().n() {
        let (shown, n) = (group.path().display(), group.quorums().n());
        bail!("{shown}: no replica {id}; the group has {n}, numbered from 0");
    }
    let secret = group.load_secret(Peer::Replica(id))?;
    let service = svc::by_name(group.service()).with_context(|| {
        let (shown, name) = (group.path().display(), group.service());
        let known = svc::NAMES.join(" and ");
        format!(
            "{shown}: service = {name}: this program knows {known}; a service of your own \
            comes with a program of its own"
        )
    })?;
    // The ports first: a start that fails for want of them has not used up the only one.
    let listeners = bind(&group, id)?;
    mark::take(&group, id)?;
    let mut options = ReplicaOptions::new(group, id, secret, service);
    options.threads = args.threads;
    options.pin = args.no_pin.then_some(false);
    options.listeners = Some(listeners);
    Ok(Replica::start(options)?)
}

fn bind(group: &Group, id: ReplicaId) -> Result<Vec<TcpListener>> {
    let one = |pillar: u16| {
        let address = group.address(id, PillarId(pillar)).expect("the group has this pillar");
        TcpListener::bind(address).with_context(|| {
            let (host, port) = address;
            format!(
                "replica {id} cannot listen on {host}:{port}; is it running already, or is \
                this not its machine?"
            )
        })
    };
    (0..group.pillars()).map(one).collect()
}

/// Ends the process when standard input is closed: whoever started it is gone.
fn watch_parent() {
    let mut input = std::io::stdin().lock();
    let mut buffer = [0; 64];
    while matches!(input.read(&mut buffer), Ok(n) if n > 0) {}
    std::process::exit(Exit::Failed.code().into());
}
