//! The commands, one module each, and the few things that several of them need.

mod bench;
mod config;
mod demo;
mod gateway;
mod init;
mod replica;
mod snapshot;
mod status;
mod version;

use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use auth::Peer;
use base::ClientId;
use client::{Client, ClientOptions};
use genesis::{GenesisError, Group};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;

use crate::cli::{Cli, Command, ConfigCommand, GatewayCommand, SnapshotCommand};
use crate::exit::Exit;
use crate::start;
use crate::values::count;

/// Runs the command.
///
/// # Errors
/// Whatever went wrong, with what to do about it.
pub fn run(cli: Cli) -> Result<Exit> {
    allow_files();
    match cli.command {
        Command::Demo(args) => demo::run(&args, cli.log.as_deref()),
        Command::Init(args) => init::run(&args),
        Command::Replica(args) => replica::run(&args),
        Command::Gateway(GatewayCommand::Redis(args)) => gateway::run(&(&args).into()),
        Command::Gateway(GatewayCommand::Zookeeper(args)) => gateway::run(&(&args).into()),
        Command::Status(args) => status::run(&args),
        Command::Bench(args) => bench::run(*args, cli.log.as_deref()),
        Command::Snapshot(SnapshotCommand::Save(args)) => snapshot::save(&args),
        Command::Snapshot(SnapshotCommand::Verify(args)) => snapshot::verify(&args),
        Command::Snapshot(SnapshotCommand::Restore(args)) => snapshot::restore(&args),
        Command::Config(ConfigCommand::Check(args)) => config::check(&args),
        Command::Config(ConfigCommand::Show(args)) => config::show(&args, cli.settings.as_deref()),
        Command::Version(args) => version::run(&args),
        Command::Completions(args) => version::completions(&args),
    }
}

/// Every connection is an open file, of this process and of those that it starts. Systems give
/// each process few (1,024 on Debian) and let it have many more: it takes them.
fn allow_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Without it, whatever is too much says so itself.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Tells on standard error when a group tolerates no fault, or no more than a smaller one would.
/// `faults` is what was asked for, if anything was.
fn warn_of_faults(replicas: u16, faults: Option<u16>) {
    let most = replicas.saturating_sub(1) / 3;
    match most {
        _ if replicas == 0 || faults.is_some() => {}
        0 => eprintln!(
            "warning: a group of {} tolerates no fault; 4 replicas tolerate one",
            count(replicas.into(), "replica")
        ),
        most if replicas != 3 * most + 1 => eprintln!(
            "hint: {replicas} replicas tolerate no more faults than {}; {} tolerate one more",
            3 * most + 1,
            3 * most + 4
        ),
        _ => {}
    }
}

/// A runtime on the calling thread.
fn runtime() -> Result<Runtime> {
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    made.context("cannot start a runtime")
}

/// The client that was asked for, or the group's last one.
fn client_id(group: &Group, wanted: Option<u32>) -> Result<ClientId> {
    let last = group.clients().last().map(|entry| entry.id);
    let id = wanted.map(ClientId).or(last);
    let Some(id) = id else {
        bail!("{}: the group has no clients", group.path().display());
    };
    if group.clients().iter().all(|entry| entry.id != id) {
        let last = last.map_or(0, |last| last.0);
        bail!("{}: no client {id}; the last one is {last}", group.path().display());
    }
    Ok(id)
}

/// The defaults for a client of the group.
fn client_options(group: &Group, id: ClientId) -> Result<ClientOptions> {
    let secret = group.load_secret(Peer::Client(id))?;
    let routing = start::routing(group)?;
    Ok(ClientOptions { routing, ..ClientOptions::new(group.clone(), id, secret) })
}

/// Connects as a client of the group.
async fn connect(group: &Group, id: ClientId) -> Result<Client> {
    Ok(Client::connect(client_options(group, id)?).await?)
}

/// Reads a group's configuration.
fn load(path: &Path) -> Result<Group> {
    let missing = |error: &GenesisError| match error {
        GenesisError::Io { source, .. } => source.kind() == ErrorKind::NotFound,
        _ => false,
    };
    match Group::load(path) {
        Err(error) if missing(&error) => {
            Err(error).context("there is no group here; found one with `stylite init`")
        }
        group => Ok(group?),
    }
}

/// Prints to standard output. That nobody reads any more is no failure: a pipe says so in one way,
/// a terminal that is closed in another.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) else {
        return Ok(());
    };
    let gone = rustix::io::Errno::from_io_error(&error)
        .is_some_and(|error| [rustix::io::Errno::PIPE, rustix::io::Errno::IO].contains(&error));
    if gone { Ok(()) } else { Err(error).context("cannot write to standard output") }
}

/// Prints one JSON object.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}
