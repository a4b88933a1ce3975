//! How long the leader takes to order what this replica holds itself, compared with how long the
//! replicas' own rounds take (design, trap 14). It raises a doubt, no more: a client that shows
//! its frames to some replicas first looks the same from here. What settles it is `endorse`.

use alloc::vec::Vec;

use base::{Span, Time};

/// How long a window lasts at least, how many own frames it needs, and how long it waits for
/// them: one gateway with few clients has only some frames a second before a slow leader.
const WINDOW: Span = Span::secs(1);
const FRAMES_MIN: usize = 8;
const WINDOW_MAX: Span = Span::secs(10);
/// Samples of one window.
const SAMPLES_MAX: usize = 256;
/// Slow windows in a row after which it is looked closely, and that make a doubt: what is seen in
/// the last one counts already.
const CLOSE: u32 = 2;
const STREAK: u32 = 3;
/// How many of its own rounds the leader may take.
const ROUNDS: u64 = 8;
/// A leader that was replaced for this reason makes the next doubt take twice as much, up to
/// `2^CAUTION_MAX` times; every minute takes one doubling back.
const CAUTION_MAX: u32 = 6;
const CAUTION_DECAY: Span = Span::secs(60);

/// The samples of the present window, and what came of the last ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Monitor {
    until: Time,
    waited: Vec<Span>,
    rounds: Vec<Span>,
    lagging: usize,
    streak: u32,
    caution: u32,
    eased: Time,
    threshold: Span,
}

impl Monitor {
    /// Whether this window takes no more of [`Monitor::ordered`].
    pub(super) fn is_full(&self) -> bool {
        self.waited.len() >= SAMPLES_MAX
    }

    /// An own frame is ordered after it has waited. `lags`: execution is behind agreement, so
    /// that the leader may rightly wait.
    pub(super) fn ordered(&mut self, waited: Span, lags: bool) {
        if !self.is_full() {
            self.waited.push(waited);
            self.lagging += usize::from(lags);
        }
    }

    /// An instance took so long from this replica's PREPARE to committed.
    pub(super) fn committed(&mut self, round: Span) {
        if self.rounds.len() < SAMPLES_MAX {
            self.rounds.push(round);
        }
    }

    /// When the window may be closed for the frames that it has.
    pub(super) fn due(&self) -> Option<Time> {
        (self.waited.len() >= FRAMES_MIN).then_some(self.until)
    }

    /// Closes the window if it is over, and says whether. `base`: what is never slow.
    pub(super) fn turn(&mut self, now: Time, base: Span) -> bool {
        let over = now.since(self.until);
        if now < self.until || (self.waited.len() < FRAMES_MIN && over < WINDOW_MAX) {
            return false;
        }
        self.ease(now);
        // A window that nobody looked at in time was one without load.
        let in_time = over < WINDOW_MAX;
        let rounds = median(&mut self.rounds).0.saturating_mul(ROUNDS);
        self.threshold = Span(base.0.max(rounds).saturating_mul(1 << self.caution));
        let loaded = self.waited.len() >= FRAMES_MIN && self.lagging * 4 < self.waited.len();
        let slow = in_time && loaded && median(&mut self.waited) > self.threshold;
        self.streak = if slow { self.streak.saturating_add(1) } else { 0 };
        (self.until, self.lagging) = (now.after(WINDOW), 0);
        self.waited.clear();
        self.rounds.clear();
        true
    }

    /// Takes back a doubling for every minute that has passed, also those in which nobody looked:
    /// without load there are no windows.
    fn ease(&mut self, now: Time) {
        let minutes = now.since(self.eased).0 / CAUTION_DECAY.0;
        self.caution = self.caution.saturating_sub(u32::try_from(minutes).unwrap_or(u32::MAX));
        self.eased = self.eased.after(Span(minutes * CAUTION_DECAY.0));
    }

    /// Whether the leader is to be looked at closely.
    pub(super) fn looks_closely(&self) -> bool {
        self.streak >= CLOSE
    }

    /// Whether the leader seems slow.
    pub(super) fn doubts(&self) -> bool {
        self.streak >= STREAK
    }

    /// Beyond it a frame was ordered slowly.
    pub(super) fn threshold(&self) -> Span {
        self.threshold
    }

    /// There is no doubt any more.
    pub(super) fn reassured(&mut self) {
        self.streak = 0;
    }

    /// A view begins; `blamed`: because the last leader was slow.
    pub(super) fn begin_view(&mut self, now: Time, blamed: bool) {
        self.ease(now);
        let caution = (self.caution + u32::from(blamed)).min(CAUTION_MAX);
        let eased = if blamed { now } else { self.eased };
        *self = Monitor { until: now.after(WINDOW), caution, eased, ..Monitor::default() };
    }
}

fn median(samples: &mut [Span]) -> Span {
    if samples.is_empty() {
        return Span(0);
    }
    let middle = samples.len() / 2;
    *samples.select_nth_unstable(middle).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of `frames` that waited `waited_ms` while rounds took `round_ms`.
    fn windows(monitor: &mut Monitor, count: u64, frames: usize, (waited, round): (u64, u64)) {
        for _ in 0..count {
            for _ in 0..frames {
                monitor.ordered(Span::millis(waited), false);
                monitor.committed(Span::millis(round));
            }
            let at = monitor.until;
            monitor.turn(at, Span::millis(200));
        }
    }

    #[test]
    fn a_slow_leader_is_doubted_after_three_windows_under_load_only() {
        let mut monitor = Monitor::default();
        windows(&mut monitor, 2, 100, (300, 1));
        assert!(!monitor.doubts());
        windows(&mut monitor, 2, 100, (300, 1));
        assert!(monitor.doubts());
        windows(&mut monitor, 1, 7, (300, 1));
        assert!(monitor.doubts(), "the window waits for more frames");
        let late = monitor.until.after(WINDOW_MAX);
        monitor.turn(late, Span::millis(200));
        assert!(!monitor.doubts(), "seven frames in ten seconds say nothing");
        windows(&mut monitor, 5, 100, (300, 50));
        assert!(!monitor.doubts(), "the rounds are slow, too");
    }

    #[test]
    fn a_replica_that_executes_slowly_doubts_nobody() {
        let mut monitor = Monitor::default();
        for _ in 0..9 {
            (0..100).for_each(|_| monitor.ordered(Span::millis(900), true));
            let at = monitor.until;
            monitor.turn(at, Span::millis(200));
        }
        assert!(!monitor.doubts());
    }

    #[test]
    fn every_change_for_this_reason_makes_the_next_take_more_for_a_while() {
        let mut monitor = Monitor::default();
        monitor.begin_view(Time(1), true);
        windows(&mut monitor, 5, 100, (300, 1));
        assert!(!monitor.doubts(), "the threshold is 400 ms");
        windows(&mut monitor, 5, 100, (500, 1));
        assert!(monitor.doubts());
        for _ in 0..6 {
            let idle = monitor.until.after(WINDOW_MAX);
            monitor.turn(idle, Span::millis(200));
        }
        windows(&mut monitor, 5, 100, (300, 1));
        assert!(monitor.doubts(), "a minute later it is 200 ms again");
    }

    /// Nobody looks at an idle group's windows, and these minutes count, too.
    #[test]
    fn minutes_without_load_make_up_for_changes() {
        let mut monitor = Monitor::default();
        (0..CAUTION_MAX).for_each(|_| monitor.begin_view(Time(1), true));
        let later = Time(1).after(Span(3 * CAUTION_DECAY.0 + CAUTION_DECAY.0 / 2));
        monitor.turn(later, Span::millis(200));
        assert_eq!(monitor.threshold(), Span::millis(200 << 3));
        let half = later.after(Span(CAUTION_DECAY.0 / 2));
        monitor.turn(half, Span::millis(200));
        assert_eq!(monitor.threshold(), Span::millis(200 << 2), "the half minute is not lost");
        monitor.turn(half.after(Span::secs(86_400)), Span::millis(200));
        assert_eq!(monitor.threshold(), Span::millis(200));
    }
}
