//! One replica as a process of its own, in a user's own binary.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use auth::Peer;
use base::ReplicaId;
use exec::Service;
use genesis::{Group, InitOptions};
use rt::{Drill, Durability, Replica, ReplicaOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::KitError;

/// How often it is looked whether the replica still runs.
const LOOK: Duration = Duration::from_millis(500);

/// Where the replicas of a group keep their state, beside its configuration.
const STATE_DIR: &str = "state";

/// How [`run_replica`] runs one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunOptions {
    /// How much of a promise is on disk before it leaves. `sync`.
    pub durability: Durability,
    /// Where the replica keeps its state. `state/replica-I` beside the configuration.
    pub state_dir: Option<PathBuf>,
    /// Whether to begin as one whose disk was lost: it fetches its state from the others, and
    /// votes again once that is safe. False.
    pub recover: bool,
    /// How it is to misbehave, in a group that was founded for drills. Not at all.
    pub drill: Option<Drill>,
    /// Threads that execute independent operations at the same time, where the service is made
    /// for it. As many as the cores leave over.
    pub workers: Option<usize>,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions {
            durability: Durability::Sync,
            state_dir: None,
            recover: false,
            drill: None,
            workers: None,
        }
    }
}

/// Founds a group in `dir`: its configuration, everybody's keys, and for each replica the mark
/// that it was never started, which its first start takes away. A replica that finds neither a
/// mark nor its state refuses to start, since it may have forgotten what it promised.
///
/// # Errors
/// When the options are not those of a legal group, or the files cannot be written.
pub fn init(dir: &Path, options: &InitOptions) -> Result<Group, KitError> {
    let group = genesis::init(dir, options)?;
    let state = dir.join(STATE_DIR);
    fs::create_dir_all(&state).map_err(KitError::system("cannot create the state directory"))?;
    for entry in group.replicas() {
        let left = fs::write(mark(&state, entry.id), "This replica was never started.\n");
        left.map_err(KitError::system("cannot leave the mark of a first start"))?;
    }
    sync(&state).map_err(KitError::system("cannot make the state directory durable"))?;
    Ok(group)
}

/// Runs replica `id` of the group in `config`, a `group.toml` or the directory of one, until the
/// process is told to end (SIGTERM or SIGINT); then drains it and returns.
///
/// # Errors
/// When the configuration or the replica's key file is not as it should be, when the replica
/// does not start, or when it ended by itself.
pub fn run_replica<S: Service + 'static>(
    config: &Path,
    id: ReplicaId,
    run: RunOptions,
    service: impl FnOnce() -> S,
) -> Result<(), KitError> {
    let group = Group::load(config)?;
    let secret = group.load_secret(Peer::Replica(id))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(KitError::system("cannot wait for signals"))?;
    // Before the start, which may take a while: whoever is told to end meanwhile ends in order.
    let signals = runtime.block_on(async { Signals::listen() })?;
    let beside = if config.is_dir() { Some(config) } else { config.parent() };
    let state = beside.unwrap_or(Path::new(".")).join(STATE_DIR);
    let mark = mark(&state, id);
    let mut options = ReplicaOptions::new(group, id, secret, Box::new(service()));
    options.durability = run.durability;
    options.state_dir = Some(run.state_dir.unwrap_or(state.join(format!("replica-{id}"))));
    (options.recover, options.drill) = (run.recover, run.drill);
    options.cores.workers = run.workers;
    options.fresh = mark.exists();
    options.on_begin = Some(Box::new(move || match fs::remove_file(&mark) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync(&state)),
    }));
    let replica = Replica::start(options).map_err(|source| KitError::Start { id, source })?;
    if !runtime.block_on(signals.told_to_end(&replica)) {
        return Err(KitError::Ended { id, why: replica.failure() });
    }
    replica.stop();
    Ok(())
}

fn mark(state: &Path, id: ReplicaId) -> PathBuf {
    state.join(format!("replica-{id}.virgin"))
}

fn sync(dir: &Path) -> std::io::Result<()> {
    fs::File::open(dir).and_then(|dir| dir.sync_all())
}

/// What tells a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on. Inside a runtime.
    fn listen() -> Result<Signals, KitError> {
        let listen = |kind| signal(kind).map_err(KitError::system("cannot wait for signals"));
        let terminate = listen(SignalKind::terminate())?;
        Ok(Signals { terminate, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one; false when the replica ended before one came.
    async fn told_to_end(mut self, replica: &Replica) -> bool {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return true,
                _ = self.interrupt.recv() => return true,
                () = tokio::time::sleep(LOOK) => {}
            }
            if !replica.is_alive() {
                return false;
            }
        }
    }
}
