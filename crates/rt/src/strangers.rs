//! How many strangers' hellos a lane looks at. A hello costs arithmetic, a tenth of a millisecond or
//! half of one, which is nothing for those who have links already: while they have something to
//! say, hellos take a small part of the time, and wait otherwise. What one takes is measured, for
//! machines differ.
//!
//! Depends on `base` alone.

use base::{Span, Time};

/// What looking at a hello takes, as long as nobody has measured it.
const COST_FIRST: Span = Span(100_000);
/// What it is believed to take at least, and at most: a thread that was interrupted seems slow.
const COST_MIN: Span = Span(20_000);
const COST_MAX: Span = Span(1_000_000);
/// While others have something to say, hellos take one part in so many of the time.
const PART: u64 = 16;
/// Most hellos that are looked at in one turn: votes must not wait for long.
const PER_TURN: u64 = 8;

/// Who is allowed in when.
#[derive(Debug)]
pub(crate) struct Strangers {
    /// Time for hellos that has not been used.
    credit: Span,
    refilled: Time,
    left: u64,
    /// What a hello takes.
    cost: Span,
}

impl Default for Strangers {
    fn default() -> Strangers {
        Strangers { credit: Span(0), refilled: Time::ZERO, left: 0, cost: COST_FIRST }
    }
}

impl Strangers {
    /// A turn begins. `busy`: others than strangers have something to say.
    pub(crate) fn begin_turn(&mut self, now: Time, busy: bool) {
        let fresh = now.since(self.refilled).0 / PART;
        self.credit = Span(self.credit.0.saturating_add(fresh).min(self.most()));
        self.refilled = now;
        self.left = if busy { self.credit.0 / self.cost.0 } else { PER_TURN };
    }

    /// Whether one more may be looked at in this turn.
    pub(crate) fn admit(&mut self) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        self.credit = Span(self.credit.0.saturating_sub(self.cost.0));
        true
    }

    /// The arithmetic of the one that was admitted last took so long.
    pub(crate) fn took(&mut self, span: Span) {
        let mean = self.cost.0 - self.cost.0 / 8 + span.0.min(COST_MAX.0) / 8;
        self.cost = Span(mean.clamp(COST_MIN.0, COST_MAX.0));
    }

    /// The one that was admitted last needed no arithmetic: another one may come instead.
    pub(crate) fn spare(&mut self) {
        self.credit = Span(self.credit.0.saturating_add(self.cost.0).min(self.most()));
    }

    fn most(&self) -> u64 {
        PER_TURN * self.cost.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(strangers: &mut Strangers, now: u64, busy: bool) -> u64 {
        strangers.begin_turn(Time(now), busy);
        (0..1_000).map(|_| u64::from(strangers.admit())).sum()
    }

    #[test]
    fn a_flood_takes_a_part_of_the_time_while_others_have_something_to_say() {
        let mut strangers = Strangers::default();
        let second = Span::secs(1).0;
        assert_eq!(admitted(&mut strangers, second, true), PER_TURN, "saved up");
        // Turns of a fifth of a millisecond, for a second.
        let looks = (0..5_000).map(|turn| admitted(&mut strangers, second + turn * 200_000, true));
        let looks: u64 = looks.sum();
        let most = second / PART / COST_FIRST.0;
        assert!((most - 2..=most).contains(&looks), "{looks} of {most}");
        assert_eq!(admitted(&mut strangers, 2 * second, false), PER_TURN, "nobody else is there");
    }

    #[test]
    fn what_a_hello_takes_is_measured_and_decides_how_many_there_may_be() {
        let mut strangers = Strangers::default();
        let looks = |strangers: &mut Strangers, from: u64, took: u64| {
            let turns = (0..5_000).map(|turn| {
                strangers.begin_turn(Time(Span::secs(from).0 + turn * 200_000), true);
                let mut looks = 0;
                while strangers.admit() {
                    strangers.took(Span(took));
                    looks += 1;
                }
                looks
            });
            turns.sum::<u64>()
        };
        let second = Span::secs(1).0;
        looks(&mut strangers, 1, 500_000);
        let slow = looks(&mut strangers, 2, 500_000);
        let most = second / PART / 500_000;
        assert!((most - 9..=most + 9).contains(&slow), "{slow} of {most}");
        looks(&mut strangers, 3, 50_000);
        let fast = looks(&mut strangers, 4, 50_000);
        let most = second / PART / 50_000;
        assert!((most - 9..=most + 9).contains(&fast), "{fast} of {most}");
        // However long a thread was interrupted, it comes back from that.
        strangers.took(Span(u64::MAX));
        assert!(strangers.cost <= COST_MAX);
    }

    #[test]
    fn a_hello_that_is_refused_before_any_arithmetic_takes_nobody_elses_place() {
        let mut strangers = Strangers::default();
        strangers.begin_turn(Time(Span::secs(1).0), true);
        while strangers.admit() {
            strangers.spare();
        }
        strangers.begin_turn(Time(Span::secs(1).0 + 1), true);
        let looks = (0..1_000).filter(|_| strangers.admit()).count() as u64;
        assert_eq!(looks, PER_TURN);
    }
}
