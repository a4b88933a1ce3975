//! Time as numbers: cores are told what time it is and never ask.

/// An instant of one process's monotonic clock, in nanoseconds since an arbitrary origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span(pub u64);

/// The group's agreed time: nanoseconds since the Unix epoch, as ordered (design: at the merge,
/// time = max(previous + 1, proposed)). Strictly grows from batch to batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AgreedTime(pub u64);

/// What a driver tells a core about time with every step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The monotonic clock: timers and deadlines. Never goes back.
    pub mono: Time,
    /// The wall clock, nanoseconds since the Unix epoch: only for proposing and bound-checking
    /// agreed time. May jump.
    pub wall: AgreedTime,
}

impl Time {
    /// The origin of the clock.
    pub const ZERO: Time = Time(0);

    /// This instant plus `span`; saturates at the end of time.
    #[must_use]
    pub fn after(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }

    /// How long since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// `us` microseconds.
    #[must_use]
    pub const fn micros(us: u64) -> Span {
        Span(us.saturating_mul(1_000))
    }

    /// `ms` milliseconds.
    #[must_use]
    pub const fn millis(ms: u64) -> Span {
        Span(ms.saturating_mul(1_000_000))
    }

    /// `s` seconds.
    #[must_use]
    pub const fn secs(s: u64) -> Span {
        Span(s.saturating_mul(1_000_000_000))
    }
}

impl AgreedTime {
    /// Milliseconds since the Unix epoch, rounded down.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The time of a batch that proposed `proposed` after a batch at `self`: never standing
    /// still, never going back.
    #[must_use]
    pub fn advance(self, proposed: AgreedTime) -> AgreedTime {
        AgreedTime(proposed.0.max(self.0.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreed_time_strictly_grows_whatever_is_proposed() {
        let t = AgreedTime(100);
        assert_eq!(t.advance(AgreedTime(500)), AgreedTime(500));
        assert_eq!(t.advance(AgreedTime(100)), AgreedTime(101));
        assert_eq!(t.advance(AgreedTime(3)), AgreedTime(101));
    }
}
