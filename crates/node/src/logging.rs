//! Where log lines go: to standard error, readable on a terminal, JSON elsewhere.

use std::io::IsTerminal;

use anyhow::{Result, anyhow};
use tracing_subscriber::EnvFilter;

/// Starts logging at `level`, a level or a filter of `tracing`.
///
/// # Errors
/// When it is neither.
pub fn start(level: &str) -> Result<()> {
    let filter = EnvFilter::builder().parse(level).map_err(|error| {
        anyhow!("log level `{level}`: {error}; give error, warn, info, debug or trace")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().try_init()
    };
    started.map_err(|error| anyhow!("cannot start logging: {error}"))
}
