//! Whether the group answers, as this gateway sees it, and what of that and of refused
//! connections is worth a line in the log.
//!
//! Not here: counters ([`super::stats`]). Depends on nothing but the clock.
//!
//! Invariants:
//! 1. Nothing that clients or the group do makes the log grow faster than a line per throttle.
//! 2. "Commands are answered again" is said only after it was said that they are not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::backend::BackendError;
use super::parse::ProtocolError;
use super::registry::Client;

/// Commands without an answer are logged at most so often.
const OUTAGE_EVERY: Duration = Duration::from_secs(10);
/// Connections closed because of protocol errors are logged at most so often.
const REFUSAL_EVERY: Duration = Duration::from_secs(1);

/// What all connections of a gateway have found out about their group.
#[derive(Debug)]
pub(super) struct Health {
    started: Instant,
    /// Milliseconds from `started` to the last answer; [`NEVER`] before the first.
    last_answer: AtomicU64,
    /// The last command that ended went unanswered.
    silent: AtomicBool,
    outage: Mutex<Outage>,
    refusals: Mutex<Throttle>,
}

/// Stands for no answer at all.
const NEVER: u64 = u64::MAX;

/// A time in which commands go unanswered.
#[derive(Debug)]
struct Outage {
    throttle: Throttle,
    /// When the first command of it went unanswered; `None` when they are answered.
    since: Option<Instant>,
    /// Commands without an answer since then, or since the last line about answers.
    unanswered: u64,
    /// The log says that commands go unanswered.
    told: bool,
}

/// Lets one event pass per interval and counts the others.
#[derive(Debug)]
struct Throttle {
    every: Duration,
    last: Option<Instant>,
    held: u64,
}

impl Throttle {
    fn new(every: Duration) -> Throttle {
        Throttle { every, last: None, held: 0 }
    }

    /// How many events this one stands for, itself included; `None` when it is to be quiet.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        self.held += 1;
        if self.last.is_some_and(|last| now < last + self.every) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held))
    }
}

impl Outage {
    /// A command went unanswered: how many to log, if it is time to.
    fn unanswered(&mut self, now: Instant) -> Option<u64> {
        self.since.get_or_insert(now);
        self.unanswered += 1;
        let count = self.throttle.pass(now);
        self.told |= count.is_some();
        count
    }

    /// A command was answered: how many were not, and for how long, if that is to be logged.
    fn answered(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let since = self.since.take()?;
        if !std::mem::take(&mut self.told) {
            return None;
        }
        Some((std::mem::take(&mut self.unanswered), now - since))
    }
}

impl Health {
    pub(super) fn new() -> Health {
        Health {
            started: Instant::now(),
            last_answer: AtomicU64::new(NEVER),
            silent: AtomicBool::new(false),
            outage: Mutex::new(Outage {
                throttle: Throttle::new(OUTAGE_EVERY),
                since: None,
                unanswered: 0,
                told: false,
            }),
            refusals: Mutex::new(Throttle::new(REFUSAL_EVERY)),
        }
    }

    /// The group has answered.
    pub(super) fn answered(&self) {
        let now = Instant::now();
        let millis = u64::try_from((now - self.started).as_millis()).unwrap_or(NEVER - 1);
        self.last_answer.store(millis, Ordering::Relaxed);
        // The lock is taken only at the end of an outage.
        if self.silent.load(Ordering::Relaxed) {
            let mut outage = lock(&self.outage);
            self.silent.store(false, Ordering::Relaxed);
            if let Some((unanswered, time)) = outage.answered(now) {
                tracing::info!(
                    unanswered,
                    seconds = time.as_secs(),
                    "the group answers commands again"
                );
            }
        }
    }

    /// A command went unanswered, or was answered too late.
    pub(super) fn unanswered(&self, error: &BackendError) {
        let mut outage = lock(&self.outage);
        self.silent.store(true, Ordering::Relaxed);
        if let Some(commands) = outage.unanswered(Instant::now()) {
            tracing::warn!(commands, cause = %error, "the group does not answer commands");
        }
    }

    /// A connection is closed because of what its client sent.
    pub(super) fn refused(&self, client: &Client, error: &ProtocolError) {
        if let Some(connections) = lock(&self.refusals).pass(Instant::now()) {
            tracing::warn!(
                connections,
                client = %client.addr,
                cause = %error,
                "a connection is closed because of what its client sent"
            );
        }
    }

    /// How the last command that ended found the group.
    pub(super) fn state(&self) -> &'static str {
        if self.silent.load(Ordering::Relaxed) {
            "not answering"
        } else if self.last_answer.load(Ordering::Relaxed) == NEVER {
            "unknown"
        } else {
            "answering"
        }
    }

    /// Whole seconds since the group last answered; `None` before it ever did.
    pub(super) fn seconds_since_last_answer(&self) -> Option<u64> {
        let last = self.last_answer.load(Ordering::Relaxed);
        let answered = (last != NEVER).then(|| Duration::from_millis(last))?;
        Some(self.started.elapsed().saturating_sub(answered).as_secs())
    }
}

/// No code panics while it holds one of these locks, and their contents are valid at all times.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_at_once_then_rarely_and_its_end_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage {
            throttle: Throttle::new(Duration::from_secs(10)),
            since: None,
            unanswered: 0,
            told: false,
        };
        assert_eq!(outage.answered(at(0)), None);
        assert_eq!(outage.unanswered(at(1)), Some(1));
        assert_eq!(outage.unanswered(at(2)), None);
        assert_eq!(outage.unanswered(at(10)), None);
        assert_eq!(outage.unanswered(at(11)), Some(3));
        assert_eq!(outage.unanswered(at(12)), None);
        assert_eq!(outage.answered(at(13)), Some((5, Duration::from_secs(12))));
        assert_eq!(outage.answered(at(14)), None);
        // Back and forth adds no lines before it is time.
        for second in 15..21 {
            assert_eq!(outage.unanswered(at(second)), None);
            assert_eq!(outage.answered(at(second)), None);
        }
        assert_eq!(outage.unanswered(at(21)), Some(8));
        assert_eq!(outage.answered(at(22)), Some((7, Duration::from_secs(1))));
    }
}
