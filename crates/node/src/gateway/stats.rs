//! Plain counters of a gateway, shown by `INFO`. Not here: what is counted per command.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter or gauge.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes back `n`, for a gauge.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Starts again from zero.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What a gateway has seen and done. Shared by all its connections.
#[derive(Debug, Default)]
pub struct GatewayStats {
    /// Connections that are open now.
    pub connected: Counter,
    /// Connections accepted so far.
    pub accepted: Counter,
    /// Connections refused because there were too many.
    pub rejected: Counter,
    /// Commands received so far.
    pub commands: Counter,
    /// Commands handed to the backend so far.
    pub submitted: Counter,
    /// Connections closed because their bytes were no requests.
    pub protocol_errors: Counter,
    /// Connections closed because they did not read their replies.
    pub slow_readers: Counter,
    /// Connections closed because they were idle for too long.
    pub idle_closed: Counter,
    /// Commands answered with an error because the backend did not answer in time or failed.
    pub unanswered: Counter,
    /// Bytes received.
    pub bytes_in: Counter,
    /// Bytes sent.
    pub bytes_out: Counter,
}

impl GatewayStats {
    /// `CONFIG RESETSTAT`: all but the gauges start again from zero.
    pub fn reset(&self) {
        for counter in [
            &self.accepted,
            &self.rejected,
            &self.commands,
            &self.submitted,
            &self.protocol_errors,
            &self.slow_readers,
            &self.idle_closed,
            &self.unanswered,
            &self.bytes_in,
            &self.bytes_out,
        ] {
            counter.reset();
        }
    }
}
