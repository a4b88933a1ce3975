//! At most one log line per second about the same thing.

use base::{Span, Time};

const PAUSE: Span = Span::secs(1);

/// Lets one through per second and counts the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throttle {
    next: Time,
    suppressed: u64,
}

impl Throttle {
    /// Whether to speak now.
    pub(crate) fn allow(&mut self, now: Time) -> bool {
        if now < self.next {
            self.suppressed += 1;
            return false;
        }
        self.next = now.after(PAUSE);
        true
    }

    /// How often it did not, since this was asked last.
    pub(crate) fn suppressed(&mut self) -> u64 {
        std::mem::take(&mut self.suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_per_second_passes() {
        let mut throttle = Throttle::default();
        let passed = (0..3_000).filter(|ms| throttle.allow(Time(ms * 1_000_000))).count();
        assert_eq!((passed, throttle.suppressed()), (3, 2_997));
    }
}
