//! How many strangers' hellos a lane looks at. A hello costs some [`HELLO_COST`] of arithmetic,
//! which is nothing for those who have links already: while they have something to say, hellos
//! take a small part of the time, and wait otherwise.
//!
//! Depends on `base` alone.

use base::{Span, Time};

/// What looking at a hello takes, roughly.
const HELLO_COST: Span = Span(100_000);
/// While others have something to say, hellos take one part in so many of the time.
const PART: u64 = 16;
/// Most hellos that are looked at in one turn: votes must not wait for long.
const PER_TURN: u64 = 8;

/// Who is allowed in when.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    /// Time for hellos that has not been used.
    credit: Span,
    refilled: Time,
    left: u64,
}

impl Strangers {
    /// A turn begins. `busy`: others than strangers have something to say.
    pub(crate) fn begin_turn(&mut self, now: Time, busy: bool) {
        let most = Span(PER_TURN * HELLO_COST.0);
        let fresh = now.since(self.refilled).0 / PART;
        self.credit = Span(self.credit.0.saturating_add(fresh).min(most.0));
        self.refilled = now;
        self.left = if busy { self.credit.0 / HELLO_COST.0 } else { PER_TURN };
    }

    /// Whether one more may be looked at in this turn.
    pub(crate) fn admit(&mut self) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        self.credit = Span(self.credit.0.saturating_sub(HELLO_COST.0));
        true
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
        let most = second / PART / HELLO_COST.0;
        assert!((most - 2..=most).contains(&looks), "{looks} of {most}");
        assert_eq!(admitted(&mut strangers, 2 * second, false), PER_TURN, "nobody else is there");
    }
}
