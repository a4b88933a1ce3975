//! The session clock: agreed time, as far as the group was running.
//!
//! Sessions end by this clock. It follows agreed time, but by one step at most from one thing
//! that happens to the next: when the group ordered nothing for longer, because a leader was lost
//! or machines stood still, no client could be heard, and none is taken for dead. So that a group
//! that is merely idle is not mistaken for one that stands still, the service asks to be woken
//! often as long as anything is timed.
//!
//! It is set forward when the service is woken, which is when nothing else executes. Operations
//! only look at it, each at its own agreed time: so they need not wait for each other.

use base::{Malformed, Reader, Writer};

/// The most by which the clock goes forward at once, in ms.
pub const STEP_MAX_MS: u64 = 1_000;
/// How often the service is woken at least while something is timed, in ms of agreed time: twice
/// as often as the clock needs it, since ticks have to be ordered, too.
pub const PULSE_MS: u64 = 500;

/// The clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    /// What it shows, in ms.
    pub(super) shows: u64,
    /// Agreed time when it was last looked at, in ms; 0 before that.
    pub(super) at_ms: u64,
}

impl Clock {
    /// Whether it changes by being told that agreed time is `now_ms`.
    #[must_use]
    pub fn moves(&self, now_ms: u64) -> bool {
        now_ms > self.at_ms
    }

    /// Goes forward: agreed time is `now_ms`.
    pub fn advance(&mut self, now_ms: u64) {
        if !self.moves(now_ms) {
            return;
        }
        let step = if self.at_ms == 0 { 0 } else { now_ms - self.at_ms };
        self.shows += step.min(STEP_MAX_MS);
        self.at_ms = now_ms;
    }

    /// What it would show if it were told that agreed time is `now_ms`. Never less than at any
    /// time before, whoever tells it in between.
    #[must_use]
    pub fn shows_at(mut self, now_ms: u64) -> u64 {
        self.advance(now_ms);
        self.shows
    }

    /// The agreed time in ms at which to wake while something is timed; at once if there is more
    /// to do.
    #[must_use]
    pub fn wake_at(&self, more: bool) -> u64 {
        self.at_ms.saturating_add(if more { 0 } else { PULSE_MS })
    }

    pub(super) fn encode(self, w: &mut Writer<'_>) {
        w.u64(self.shows).u64(self.at_ms);
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Clock, Malformed> {
        let clock = Clock { shows: r.u64("session clock")?, at_ms: r.u64("agreed time")? };
        if clock.shows > u64::MAX / 4 { Err(Malformed("session clock")) } else { Ok(clock) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_only_while_the_group_runs() {
        let mut clock = Clock::default();
        clock.advance(1_000_000);
        assert_eq!(clock.shows, 0, "it begins with the first thing that happens");
        clock.advance(1_000_400);
        clock.advance(1_000_400);
        clock.advance(999_000);
        assert_eq!(clock.shows, 400, "time does not go back");
        clock.advance(2_000_000);
        assert_eq!(clock.shows, 400 + STEP_MAX_MS, "nobody could be heard meanwhile");
        assert_eq!((clock.wake_at(true), clock.wake_at(false)), (2_000_000, 2_000_000 + PULSE_MS));
        let seen = [1_999_999, 2_000_000, 2_000_300, 2_001_000, 2_005_000];
        let seen = seen.map(|now_ms| clock.shows_at(now_ms) - clock.shows);
        assert_eq!(seen, [0, 0, 300, STEP_MAX_MS, STEP_MAX_MS]);
        clock.advance(2_000_400);
        assert_eq!(clock.shows_at(2_000_400), clock.shows);
    }
}
