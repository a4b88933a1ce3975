//! Requests to stop: the first one asks a command to drain, the second one ends it at once.
//!
//! Depends on tokio.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGTERM and SIGINT from its creation on.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Begins to listen. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> Result<Signals> {
        let one = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals { term: one(SignalKind::terminate())?, int: one(SignalKind::interrupt())? })
    }

    /// Waits for the next signal and returns its number.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.term.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.int.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }

    /// Runs `work` to its end, unless another signal comes: then the process ends at once with
    /// 128 and the signal's number.
    pub async fn or_exit<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            number = self.next() => std::process::exit(128 + number),
        }
    }
}
