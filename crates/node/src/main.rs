//! The program `stylite`: from the command line to the commands.
//!
//! What it is: arguments, logging and exit codes. What it is not: the parts that commands are
//! made of; protocols in front of a group are in the library beside it, everything else in the
//! other crates.

#![forbid(unsafe_code)]

mod accusations;
mod cli;
mod cmd;
mod cpus;
mod exit;
mod health;
mod local;
mod logging;
mod mark;
mod metrics;
mod probe;
mod settings;
mod signals;
mod site;
mod snapshot;
mod start;
mod values;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::Command;
use crate::exit::{Exit, Misuse};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    die_on_panic();
    match run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            // On a terminal that is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: {}", told(&error));
            if error.is::<Misuse>() { ExitCode::from(Misuse::CODE) } else { Exit::Failed.into() }
        }
    }
}

/// The error and its causes, each once: many errors tell their cause themselves.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

/// Half a process is worse than none: a replica whose lane has panicked would answer for a state
/// that nobody checks any more. Builds for release abort by themselves; the others do it here.
fn die_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!(%info, "panic, the process ends");
        tell(info);
        std::process::abort();
    }));
}

fn run() -> Result<Exit> {
    let args: Vec<_> = std::env::args_os().collect();
    let cli = settings::parse(&args)?;
    let serves = matches!(cli.command, Command::Replica(_) | Command::Gateway(_));
    let default = if serves { "info" } else { "warn" };
    logging::start(cli.log.as_deref().unwrap_or(default), serves)?;
    for unknown in settings::unknown_variables() {
        tracing::warn!("{unknown}");
    }
    cmd::run(cli)
}
