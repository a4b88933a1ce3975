//! What a part of the load counts, and how the parts add up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client::Completion;
use hdrhistogram::Histogram;

use super::ops::Ops;

/// Latencies above this are counted as this: a minute and a half, in microseconds.
const LATENCY_MAX_US: u64 = 90_000_000;
/// Seconds whose operations are counted one by one; later ones only in the whole.
const SECONDS_MAX: usize = 3_600;

/// When a run begins, when it is measured from, and when it ends.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The first operation.
    pub start: Instant,
    /// Measured from here.
    pub from: Instant,
    /// To here.
    pub until: Instant,
}

/// What came of a run.
#[derive(Debug)]
pub struct Tally {
    /// Operations that ended well within the measured time.
    pub ops: u64,
    /// Of these, in each of its seconds.
    pub seconds: Vec<u64>,
    /// Latencies of the operations, in microseconds. Closed loop: of those that ended within the
    /// measured time; open loop: of those that were due in it.
    pub latency: Histogram<u64>,
    /// Open loop: operations that were due and never left, since the client took no more.
    pub unsent: u64,
    /// Operations that did not end well, by cause, over the whole run.
    pub errors: BTreeMap<String, u64>,
}

impl Window {
    /// Nanoseconds from the start.
    #[must_use]
    pub fn since_start(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.start))
    }

    /// Whether that is measured.
    #[must_use]
    pub fn measures(&self, at: Instant) -> bool {
        at >= self.from && at <= self.until
    }
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Tally {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        let latency = latency.expect("the bounds are those of a histogram");
        Tally { ops: 0, seconds: Vec::new(), latency, unsent: 0, errors: BTreeMap::new() }
    }

    /// Adds what another part has counted.
    pub fn merge(&mut self, other: Tally) {
        self.ops += other.ops;
        self.unsent += other.unsent;
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), 0);
        }
        self.seconds.iter_mut().zip(&other.seconds).for_each(|(sum, one)| *sum += one);
        for (cause, count) in other.errors {
            *self.errors.entry(cause).or_default() += count;
        }
    }

    /// Counts something that went wrong.
    pub fn error(&mut self, cause: &str) {
        if let Some(count) = self.errors.get_mut(cause) {
            *count += 1;
        } else {
            self.errors.insert(cause.to_owned(), 1);
        }
    }

    /// Counts the end of an operation; true when it was a good one.
    pub fn judge(&mut self, completion: &Completion, ops: &Ops) -> bool {
        match &completion.result {
            Ok(result) if ops.fits(result) => true,
            Ok(_) => {
                self.error("unexpected result");
                false
            }
            Err(error) => {
                self.error(&error.to_string());
                false
            }
        }
    }

    /// Counts operations that ended well at `now`, which is measured.
    pub fn ended(&mut self, operations: u64, window: &Window, now: Instant) {
        self.ops += operations;
        let second = now.saturating_duration_since(window.from).as_secs();
        let second = usize::try_from(second).unwrap_or(usize::MAX).min(SECONDS_MAX);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, 0);
        }
        self.seconds[second] += operations;
    }

    /// Counts latencies.
    pub fn took(&mut self, operations: u64, latency_ns: u64) {
        if operations > 0 {
            let us = (latency_ns / 1_000).clamp(1, LATENCY_MAX_US);
            self.latency.record_n(us, operations).expect("clamped to the bounds");
        }
    }
}

/// A duration in nanoseconds.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let start = Instant::now();
        let window = Window { start, from: start, until: start + Duration::from_secs(9) };
        let (mut one, mut other) = (Tally::new(), Tally::new());
        one.ended(5, &window, start);
        one.took(5, 2_000);
        other.ended(7, &window, start + Duration::from_millis(2_500));
        other.took(7, u64::MAX);
        other.error("x");
        other.unsent = 3;
        one.merge(other);
        assert_eq!((one.ops, one.unsent, one.errors["x"]), (12, 3, 1));
        assert_eq!(one.seconds, [5, 0, 7]);
        assert_eq!((one.latency.len(), one.latency.min()), (12, 2));
        assert!(one.latency.max() >= LATENCY_MAX_US);
    }
}
