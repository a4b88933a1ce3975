//! One replica as a process of its own, in a user's own binary.

use std::path::Path;
use std::time::Duration;

use auth::Peer;
use base::ReplicaId;
use exec::Service;
use genesis::Group;
use rt::{Replica, ReplicaOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::KitError;

/// How often it is looked whether the replica still runs.
const LOOK: Duration = Duration::from_millis(500);

/// Runs replica `id` of the group in `config`, a `group.toml` or the directory of one, until the
/// process is told to end (SIGTERM or SIGINT); then drains it and returns.
///
/// # Errors
/// When the configuration or the replica's key file is not as it should be, when the replica
/// does not start, or when it ended by itself.
pub fn run_replica<S: Service + 'static>(
    config: &Path,
    id: ReplicaId,
    service: impl FnOnce() -> S,
) -> Result<(), KitError> {
    let group = Group::load(config)?;
    let secret = group.load_secret(Peer::Replica(id))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(KitError::system("cannot wait for signals"))?;
    let options = ReplicaOptions::new(group, id, secret, Box::new(service()));
    let replica = Replica::start(options).map_err(|source| KitError::Start { id, source })?;
    let told = runtime.block_on(told_to_end(&replica))?;
    if !told {
        return Err(KitError::Ended(id));
    }
    replica.stop();
    Ok(())
}

/// Waits for a signal; false when the replica ended before one came.
async fn told_to_end(replica: &Replica) -> Result<bool, KitError> {
    let listen = |kind| signal(kind).map_err(KitError::system("cannot wait for signals"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(true),
            _ = interrupt.recv() => return Ok(true),
            () = tokio::time::sleep(LOOK) => {}
        }
        if !replica.is_alive() {
            return Ok(false);
        }
    }
}
