//! How fast a checkpoint that nobody waits for goes to disk.
//!
//! All replicas come to the point of saving at about the same time, and where they share a disk,
//! or the disk is slow, what each writes as fast as it can holds up its log, and with that its
//! votes. So there is a pace, and none of it while the replica gives its state to another one:
//! that, too, takes the time of the thread that executes, and somebody waits for it. There is no
//! leisure any more once the log has taken as much as [`durable::Saving::begins`] said, or
//! somebody asks for a checkpoint.
//!
//! Not here: what is written (`saver`), and when (`durable::Saving`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::log_writer::LogGauge;

/// Bytes per second.
const BYTES_PER_S: u64 = 16_000_000;
/// How long the disk is left alone at most before it is asked whether there is still leisure.
const SLICE: Duration = Duration::from_millis(50);
/// A replica that has given nothing for so long gives no state away any more. Whoever fetches
/// asks again within some milliseconds, but for one that a source's pace makes wait.
const GIVEN_UP: Duration = Duration::from_millis(500);
/// For how long a checkpoint waits for such transfers in all: whoever fetches may lie, and be in
/// no hurry.
const GIVING_MAX: Duration = Duration::from_secs(120);

/// Until when a checkpoint may be written at leisure.
pub(crate) struct Leisure {
    /// The log has taken so many bytes.
    pub(crate) until: u64,
    pub(crate) log: LogGauge,
    /// Bytes of its state that the replica has given to others.
    pub(crate) given: Arc<AtomicU64>,
}

impl Leisure {
    /// Waits until more may be written at this `pace`, of which `written` bytes are written by
    /// now; or until there is no leisure any more, for which `urgent` is a reason as well.
    pub(crate) fn wait(&self, pace: &mut Pace, written: u64, urgent: impl Fn() -> bool) {
        while self.log.taken() < self.until && !urgent() {
            let given = self.given.load(Ordering::Relaxed);
            let Some(left) = pace.wait(Instant::now(), written, given) else { return };
            std::thread::sleep(left.min(SLICE));
        }
    }
}

/// When what may be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// When it would have begun, had nothing come between.
    began: Instant,
    /// Until when it waits while others are given the state.
    patient_until: Instant,
    /// What others had been given when it was last looked, and when it was seen to grow.
    given: Option<u64>,
    grew: Option<Instant>,
}

impl Pace {
    /// It begins now.
    pub(crate) fn new(now: Instant) -> Pace {
        Pace { began: now, patient_until: now + GIVING_MAX, given: None, grew: None }
    }

    /// How long to wait before anything more is written, if at all: `written` bytes are by now,
    /// and others were given so many bytes. What is not written because others are being given
    /// something is not made up for later.
    fn wait(&mut self, now: Instant, written: u64, given: u64) -> Option<Duration> {
        if self.given.replace(given).is_some_and(|before| before != given) {
            self.grew = Some(now);
        }
        let due = self.began + Duration::from_micros(written * 1_000_000 / BYTES_PER_S);
        let giving = self.grew.is_some_and(|at| now < at + GIVEN_UP);
        if giving && now < self.patient_until {
            self.began += now.saturating_duration_since(due);
            return Some(SLICE);
        }
        Some(due.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn as_much_is_written_as_the_pace_allows() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        assert_eq!(pace.wait(began, 0, 0), None);
        assert_eq!(pace.wait(began, BYTES_PER_S, 0), Some(SECOND));
        assert_eq!(pace.wait(began + SECOND / 2, BYTES_PER_S, 0), Some(SECOND / 2));
        assert_eq!(pace.wait(began + SECOND, BYTES_PER_S, 0), None);
        assert_eq!(pace.wait(began + 9 * SECOND, 2 * BYTES_PER_S, 0), None, "late is late");
    }

    #[test]
    fn nothing_is_written_while_others_are_given_the_state_nor_made_up_for() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        assert_eq!(pace.wait(began, 0, 7), None, "that was before");
        for tenth in 1..=100 {
            let now = began + SECOND * tenth / 10;
            assert!(pace.wait(now, 0, 7 + u64::from(tenth)).is_some(), "{tenth}");
        }
        let last = began + 10 * SECOND;
        assert!(pace.wait(last + GIVEN_UP / 2, 0, 107).is_some(), "perhaps there is more");
        let over = last + GIVEN_UP;
        assert_eq!(pace.wait(over, 0, 107), None);
        let left = pace.wait(over, BYTES_PER_S, 107).expect("it began anew, half a second ago");
        assert!(left >= SECOND / 2, "{left:?}");
    }

    #[test]
    fn nobody_who_fetches_for_ever_keeps_a_checkpoint_from_the_disk() {
        let began = Instant::now();
        let mut pace = Pace::new(began);
        assert_eq!(pace.wait(began, 0, 7), None);
        let last = GIVING_MAX - SECOND;
        assert!(pace.wait(began + last, 0, 8).is_some());
        assert_eq!(pace.wait(began + GIVING_MAX, 0, 9), None);
    }
}
