//! How many strangers' hellos a lane looks at. A hello costs arithmetic, a tenth of a millisecond
//! or half of one, which is nothing for those who have links already: in a turn in which they have
//! something to say, hellos take no more than is left of a small part of the time, and wait
//! otherwise. What counts is the arithmetic, as long as it took: bytes that come to none cost
//! nobody a place.
//!
//! Depends on `base` alone.

use base::{Span, Time};

/// While others have something to say, hellos take one part in so many of the time.
const PART: u64 = 16;
/// What hellos may take in one turn, and what may be saved up for them: votes must not wait for
/// long.
const PER_TURN: Span = Span(800_000);
/// What one is believed to take at most: a thread that was interrupted seems slow.
const COST_MAX: Span = Span(500_000);
/// Strangers that are looked at in one turn.
const LOOKS_PER_TURN: u64 = 64;

/// Who is allowed in when.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    /// Time for hellos that has not been used; below zero where one took more than there was.
    credit: i64,
    refilled: Time,
    /// Whether others have something to say in this turn.
    busy: bool,
    looks: u64,
    /// What hellos took in this turn.
    spent: Span,
}

impl Strangers {
    /// A turn begins. `busy`: others than strangers have something to say.
    pub(crate) fn begin_turn(&mut self, now: Time, busy: bool) {
        let fresh = i64::try_from(now.since(self.refilled).0 / PART).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(fresh).min(Self::most());
        (self.refilled, self.busy) = (now, busy);
        (self.looks, self.spent) = (LOOKS_PER_TURN, Span(0));
    }

    /// Whether one more may be looked at in this turn.
    pub(crate) fn admit(&mut self) -> bool {
        let free = self.spent < PER_TURN && (!self.busy || self.credit > 0);
        if !free || self.looks == 0 {
            return false;
        }
        self.looks -= 1;
        true
    }

    /// The arithmetic of the one that was admitted last took so long.
    pub(crate) fn took(&mut self, span: Span) {
        let span = span.min(COST_MAX);
        self.spent = Span(self.spent.0 + span.0);
        let span = i64::try_from(span.0).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_sub(span).max(-Self::most());
    }

    fn most() -> i64 {
        i64::try_from(PER_TURN.0).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of a fifth of a millisecond, for a second, with hellos without end.
    fn looks(strangers: &mut Strangers, second: u64, busy: bool, took: u64) -> u64 {
        let turns = (0..5_000).map(|turn| {
            strangers.begin_turn(Time(Span::secs(second).0 + turn * 200_000), busy);
            let mut looks = 0;
            while strangers.admit() {
                strangers.took(Span(took));
                looks += 1;
            }
            looks
        });
        turns.sum()
    }

    #[test]
    fn a_flood_takes_a_part_of_the_time_while_others_have_something_to_say() {
        for took in [20_000, 100_000, 450_000] {
            let mut strangers = Strangers::default();
            let busy = looks(&mut strangers, 1, true, took);
            let most = Span::secs(1).0 / PART / took;
            // Beside what was saved up, and one that takes more than there is.
            assert!((most - 1..=most + PER_TURN.0 / took + 2).contains(&busy), "{busy} of {most}");
            let idle = looks(&mut strangers, 2, false, took);
            assert!(idle >= 5_000, "nobody else is there: {idle}");
        }
    }

    #[test]
    fn no_turn_is_long() {
        let mut strangers = Strangers::default();
        strangers.begin_turn(Time(Span::secs(1).0), false);
        assert!(strangers.admit());
        strangers.took(Span(u64::MAX));
        assert!(strangers.admit(), "the thread may have been interrupted");
        strangers.took(COST_MAX);
        assert!(!strangers.admit());
    }

    #[test]
    fn what_comes_to_no_arithmetic_takes_nobody_elses_place() {
        let mut strangers = Strangers::default();
        strangers.begin_turn(Time(Span::secs(1).0), true);
        let looks = (0..1_000).filter(|_| strangers.admit()).count() as u64;
        assert_eq!(looks, LOOKS_PER_TURN);
        strangers.begin_turn(Time(Span::secs(1).0 + 1), true);
        assert!(strangers.admit());
    }
}
