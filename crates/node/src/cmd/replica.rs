//! `stylite replica`: runs one replica until it is asked to stop.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use auth::Peer;
use base::{PillarId, ReplicaId};
use genesis::Group;
use genesis::switches::{self, Choice};
use rt::{Listener, Replica, ReplicaOptions};
use store::{Dir, Full, Identity, Real, Storage, Volatile};

use super::{load, print, runtime};
use crate::cli::{DrillStorage, ReplicaArgs};
use crate::exit::Exit;
use crate::signals::Signals;
use crate::site::ReplicaSite;
use crate::values::count;
use crate::{mark, start};
use node::http::Server;

/// How often it is checked that the replica's threads still run.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long pages that are being made are waited for at the end: each takes a moment.
const PAGES_MAX: Duration = Duration::from_secs(5);

/// Runs the command.
///
/// # Errors
/// When the replica cannot be started, or its threads end by themselves.
pub fn run(args: &ReplicaArgs) -> Result<Exit> {
    let runtime = runtime()?;
    runtime.block_on(async {
        // Before anything else is done, so that no request to stop is missed.
        let mut signals = Signals::listen()?;
        let group = load(&args.config)?;
        let serves = serves(&group, ReplicaId(args.id));
        let (replicas, server) = start_replicas(args, group)?;
        print(&serves)?;
        if let Some(server) = &server {
            print(&format!("metrics and health on http://{}/metrics\n", server.address()))?;
        }
        if args.exit_with_parent {
            std::thread::Builder::new()
                .name("parent".to_owned())
                .spawn(watch_parent)
                .context("cannot start a thread")?;
        }
        let mut look = tokio::time::interval(LOOK_EVERY);
        let failure = loop {
            tokio::select! {
                _ = signals.next() => break None,
                _ = look.tick() => if let Some(one) = replicas.iter().find(|one| !one.is_alive()) {
                    break Some(one.failure().unwrap_or_else(|| ENDED.to_owned()));
                },
            }
        };
        // The other partitions end in order, whatever happened to one of them.
        let stopped = tokio::task::spawn_blocking(move || stop(replicas, server));
        signals.or_exit(stopped).await.context("stopping failed")?;
        failure.map_or(Ok(Exit::Ok), |why| bail!("{why}"))
    })
}

/// Who serves where, in words; nothing for a replica that the group does not have.
fn serves(group: &Group, id: ReplicaId) -> String {
    let entry = group.replicas().iter().find(|entry| entry.id == id);
    entry.map_or_else(String::new, |entry| {
        let (name, place) = (group.name(), entry.place());
        let pillars = count(group.pillars().into(), "pillar");
        let pillars = match group.partitions() {
            1 => pillars,
            several => format!("{several} partitions with {pillars} each"),
        };
        format!("replica {id} of \"{name}\" serves on {place} ({pillars})\n")
    })
}

/// What is said when a thread ended and nobody knows why.
const ENDED: &str = "a thread of the replica has ended; see the log above";

/// The replica, in as many parts as the group has partitions, and its pages.
type Started = (Vec<Arc<Replica>>, Option<Server>);

fn start_replicas(args: &ReplicaArgs, group: Group) -> Result<Started> {
    let id = ReplicaId(args.id);
    if args.id >= group.quorums().n() {
        let (shown, n) = (group.path().display(), group.quorums().n());
        bail!("{shown}: no replica {id}; the group has {n}, numbered from 0");
    }
    if let Some(drill) = args.misbehave {
        start::drills_allowed(&group, id)?;
        tracing::warn!(%drill, "this replica misbehaves, as it was told to");
    }
    if let Some(storage) = args.drill_storage {
        start::drills_allowed(&group, id)?;
        tracing::warn!(?storage, "this replica has no real disk, as it was told");
    }
    // Before it falls into parts, which know nothing of each other.
    let mut chosen = group.settings().chosen();
    chosen.push(Choice("parallelization", args.parallelization.word()));
    switches::check(&chosen).map_err(|conflict| anyhow!("{conflict}"))?;
    let services = start::services(&group)?;
    let parts = group.parts();
    // The ports first: a start that fails for want of them has changed nothing.
    let listeners = parts.iter().map(|part| bind(part, id)).collect::<Result<Vec<_>>>()?;
    let metrics = start::metrics_listener(args.metrics, start::metrics_default(&group, id))?;
    refuse_lost(args, &parts)?;
    let mut replicas = Vec::new();
    for (part, (service, listeners)) in parts.into_iter().zip(services.into_iter().zip(listeners)) {
        let secret = part.load_secret(Peer::Replica(id))?;
        let mut options = ReplicaOptions::new(part, id, secret, service);
        options.listeners = Some(listeners);
        match start_part(args, options, group.partitions()) {
            Ok(replica) => replicas.push(Arc::new(replica)),
            Err(error) => {
                stop(replicas, None);
                return Err(error);
            }
        }
    }
    let site = Arc::new(ReplicaSite::new(replicas.clone()));
    let server = metrics.map(|listener| Server::start(listener, site)).transpose()?;
    Ok((replicas, server))
}

/// Refuses, before any partition begins a life and serves, what one of several would refuse.
fn refuse_lost(args: &ReplicaArgs, parts: &[Group]) -> Result<()> {
    let id = ReplicaId(args.id);
    let several = if parts.len() > 1 { parts } else { &[] };
    for part in several {
        let identity = Identity { group: part.id(), replica: id };
        let opened = Dir::open(&directory(args, part), identity, Arc::new(Real))?;
        store::beginning(&opened.found, mark::is_there(part, id)?, args.recover)?;
    }
    Ok(())
}

/// Where the replica keeps what it is in this partition.
fn directory(args: &ReplicaArgs, part: &Group) -> PathBuf {
    let own = args.state_dir.clone().map(|dir| mark::within(part, dir));
    own.unwrap_or_else(|| mark::replica_dir(part, ReplicaId(args.id)))
}

/// Starts what the replica is in one of `partitions`.
fn start_part(args: &ReplicaArgs, mut options: ReplicaOptions, partitions: u16) -> Result<Replica> {
    let (group, id) = (options.group.clone(), options.id);
    // What was given for all of it is shared out.
    let share = |all: usize| all / usize::from(partitions);
    options.cores.parallelization = args.parallelization.into();
    options.cores.threads = args.threads.map(|threads| share(threads).max(1));
    options.cores.workers = args.workers.map(share);
    options.cores.share = (group.partition().unwrap_or(0), partitions);
    options.cores.pin = args.no_pin.then_some(false);
    options.durability = args.durability.into();
    let dir = directory(args, &group);
    options.storage = storage(args.drill_storage, &dir);
    options.state_dir = Some(dir);
    options.fresh = mark::is_there(&group, id)?;
    options.recover = args.recover;
    options.drill = args.misbehave;
    options.drill_paused = args.drill_paused;
    options.on_begin = Some(Box::new(move || {
        mark::take(&group, id).map_err(|error| std::io::Error::other(format!("{error:#}")))
    }));
    Ok(Replica::start(options)?)
}

/// What the replica's state lies on.
fn storage(drill: Option<DrillStorage>, dir: &Path) -> Arc<dyn Storage> {
    let real: Arc<dyn Storage> = Arc::new(Real);
    match drill {
        None => real,
        Some(DrillStorage::Volatile) => Arc::new(Volatile::over(real)),
        Some(DrillStorage::Lying) => Arc::new(Volatile::lying(real)),
        Some(DrillStorage::Full) => {
            let mut mark = dir.as_os_str().to_owned();
            mark.push(".full");
            Arc::new(Full::over(real, mark.into()))
        }
    }
}

/// The pages first, which also hold the replica. Its parts drain side by side.
fn stop(replicas: Vec<Arc<Replica>>, server: Option<Server>) {
    // Whoever waits for a checkpoint would hold it for minutes.
    replicas.iter().for_each(|replica| replica.refuse_checkpoints());
    drop(server);
    let until = Instant::now() + PAGES_MAX;
    std::thread::scope(|scope| {
        for replica in replicas {
            match alone(replica, until) {
                Some(replica) => drop(scope.spawn(|| replica.stop())),
                // A page is being made still. The process ends now, and so does the replica.
                None => tracing::warn!("stopped without draining: somebody reads a page"),
            }
        }
    });
}

/// The replica, once no page holds it any more; `None` when one does `until` then.
fn alone(mut replica: Arc<Replica>, until: Instant) -> Option<Replica> {
    loop {
        match Arc::try_unwrap(replica) {
            Ok(replica) => return Some(replica),
            Err(_) if Instant::now() >= until => return None,
            Err(held) => replica = held,
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn bind(group: &Group, id: ReplicaId) -> Result<Vec<Listener>> {
    let one = |pillar: u16| {
        let address = group.address(id, PillarId(pillar)).expect("the group has this pillar");
        Listener::bind(address).with_context(|| {
            format!(
                "replica {id} cannot listen on {address}; is it running already, or is this not \
                its machine?"
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
