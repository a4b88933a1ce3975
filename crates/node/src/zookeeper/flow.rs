//! How much a connection may have under way: what it may ask for before it has been answered.
//!
//! A client that asks for more is not read from for a while. So what its requests take is bounded,
//! and what their results take, too, once their sizes are known; it keeps no other client of the
//! gateway from the group, and when the group's client takes nothing for now, its requests wait in
//! their order.

use std::time::Duration;

use tokio::time::Instant;

use super::Config;

/// How long to wait before what the backend did not take is submitted again.
pub(super) const RETRY: Duration = Duration::from_millis(10);

/// What a connection has under way.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Bytes of its requests.
    bytes: usize,
    /// How large results were of late: up at once, down slowly.
    result_bytes: usize,
    /// When to submit again what was not taken.
    retry: Option<Instant>,
}

impl Flow {
    /// Whether another request may be taken beside `requests` and `pings` under way.
    pub(super) fn has_room(&self, config: &Config, requests: usize, pings: usize) -> bool {
        let results = requests.saturating_mul(self.result_bytes);
        self.retry.is_none()
            && requests + pings < config.in_flight_max
            && self.bytes < config.in_flight_bytes_max
            && (requests == 0 || results < config.output_max.saturating_mul(8))
    }

    /// A request of `bytes` was submitted.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// A request of `bytes` was answered by so many.
    pub(super) fn answered(&mut self, bytes: usize, result_bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.result_bytes = result_bytes.max(self.result_bytes - self.result_bytes / 16);
    }

    /// A request was not taken.
    pub(super) fn refused(&mut self) {
        self.retry = Some(Instant::now() + RETRY);
    }

    /// When to submit it again.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.retry
    }

    /// It is submitted again.
    pub(super) fn tries(&mut self) {
        self.retry = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_no_more_under_way_than_its_bounds_allow() {
        let config = Config {
            in_flight_max: 10,
            in_flight_bytes_max: 1000,
            output_max: 100,
            ..Config::default()
        };
        let mut flow = Flow::default();
        assert!(flow.has_room(&config, 9, 0) && flow.has_room(&config, 5, 4));
        assert!(!flow.has_room(&config, 10, 0) && !flow.has_room(&config, 5, 5), "by number");
        flow.sent(1000);
        assert!(!flow.has_room(&config, 1, 0), "by the bytes of requests");
        flow.answered(1000, 300);
        assert!(flow.has_room(&config, 0, 0) && flow.has_room(&config, 2, 0));
        assert!(!flow.has_room(&config, 3, 0), "by what results are expected to take");
        (0..100).for_each(|_| flow.answered(0, 10));
        assert!(flow.has_room(&config, 9, 0), "results are small again");
        flow.answered(0, usize::MAX);
        assert!(flow.has_room(&config, 0, 0), "one at a time in any case");
        flow.refused();
        assert!(!flow.has_room(&config, 0, 0), "until it is tried again");
        flow.tries();
        assert!(flow.has_room(&config, 0, 0));
    }
}
