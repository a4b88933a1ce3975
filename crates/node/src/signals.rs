//! Requests to stop: the first one asks a command to drain, the second one ends it at once.
//!
//! A terminal that is closed is such a request, too (SIGHUP), unless whoever started the process
//! has it ignored that, as `nohup` does. Depends on tokio.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGTERM, SIGINT and SIGHUP from its creation on.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    /// None where it is ignored.
    hup: Option<Signal>,
}

impl Signals {
    /// Begins to listen. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> Result<Signals> {
        let one = |kind| signal(kind).context("cannot listen for signals");
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hup = (!ignores_hangup(&status)).then(|| one(SignalKind::hangup())).transpose()?;
        Ok(Signals { term: one(SignalKind::terminate())?, int: one(SignalKind::interrupt())?, hup })
    }

    /// Waits for the next signal and returns its number.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.term.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.int.recv() => SignalKind::interrupt().as_raw_value(),
            () = hung_up(&mut self.hup) => SignalKind::hangup().as_raw_value(),
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

async fn hung_up(hup: &mut Option<Signal>) {
    match hup {
        Some(hup) => _ = hup.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether a process with this `/proc/PID/status` was started with SIGHUP, number 1, ignored. What
/// cannot be read says so as well: then the signal does what it does by default.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    ignored.is_none_or(|set| set & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_is_left_alone_where_it_is_ignored() {
        assert!(!ignores_hangup("Name:\tstylite\nSigIgn:\t0000000000001000\nSigCgt:\t1\n"));
        assert!(ignores_hangup("SigIgn:\t0000000000001001\n"));
        assert!(ignores_hangup(""), "not known");
    }
}
