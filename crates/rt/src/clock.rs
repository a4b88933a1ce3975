//! The two clocks that cores are told about. The only place of this crate that reads them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base::{AgreedTime, Now, Time};

/// A monotonic clock with its own origin, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// What time it is, in both senses.
    pub(crate) fn now(&self) -> Now {
        Now { mono: self.mono(), wall: AgreedTime(wall_ns()) }
    }

    /// What time it is since the origin.
    pub(crate) fn mono(&self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The wall clock, in nanoseconds since the Unix epoch; 0 when it is set before that.
pub(crate) fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
