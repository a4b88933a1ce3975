//! The client's clocks: time that passes since it began, and the time of day.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base::{AgreedTime, Now, Time};

/// What a driver reads all its times from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// How far its time of day is ahead, in nanoseconds.
    ahead: u64,
}

impl Clock {
    /// One that begins now, and whose time of day is ahead by `ahead` nanoseconds for good: a
    /// session's number is a time of day, and two processes of one principal may read theirs at
    /// the same tick of a coarse clock, whenever they open one.
    pub(crate) fn begin(ahead: u64) -> Clock {
        Clock { start: Instant::now(), ahead }
    }

    /// Now.
    pub(crate) fn now(self) -> Now {
        let mono = Time(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        Now { mono, wall: AgreedTime(wall().0.saturating_add(self.ahead)) }
    }
}

/// The time of day.
pub(crate) fn wall() -> AgreedTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    AgreedTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not only at first: a client opens another session when it loses one.
    #[test]
    fn a_clock_that_is_ahead_stays_ahead() {
        // A time of day of the next century: none that is not ahead has come there.
        let ahead = 1 << 62;
        let clock = Clock::begin(ahead);
        for _ in 0..3 {
            assert!(clock.now().wall.0 >= ahead, "{:?}", clock.now());
        }
    }
}
