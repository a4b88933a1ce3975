//! How fast a source gives its state away.
//!
//! A source that has little else to do answers as fast as an asker can take it in. One that
//! executes shares its time, and that of the network and, on one machine, of the asker, with what
//! its clients wait for: it then answers at a pace that they hardly notice. But whoever fetches has
//! to be faster than the group moves on, or it never ends. So an asker that comes back for a newer
//! checkpoint, as it does when what it got is too old by now, is answered twice as fast each time,
//! unless it got so little that the pace cannot have been what made it late.
//!
//! No clock: time comes in as ticks.

use base::{Seq, Span, Time};

/// What a source gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pacing {
    /// Bytes per second that one asker gets.
    pub bytes_per_s: u64,
    /// Bytes after which a turn of the stage answers no more.
    pub bytes_per_turn: usize,
}

/// The pace of a source that has little else to do.
pub const IDLE: Pacing = Pacing { bytes_per_s: 125_000_000, bytes_per_turn: 512 << 10 };
/// The pace of all those together that execute, for whoever asks for the first time, and how much
/// one of them answers in a turn. Each gives its share, so that what is fetched, and checked and
/// kept by whoever fetches, is as much in a large group as in a small one.
pub const BUSY: Pacing = Pacing { bytes_per_s: 48_000_000, bytes_per_turn: 64 << 10 };
/// What one of them gives at least, in a group of any size.
pub const BUSY_SHARE_MIN: u64 = 6_000_000;
/// A source that executes so many operations per second is busy.
pub const BUSY_OPS_PER_S: u64 = 1000;
/// An asker that was silent for so long is one that asks for the first time.
pub const HASTE_FORGOTTEN_AFTER: Span = Span::secs(60);

/// Over so long operations are counted, and at most so long.
const COUNTED: Span = Span::millis(100);
const COUNTED_MAX: Span = Span::secs(1);
/// After so many counts without much a source is idle. One does not do: whoever was held up for a
/// moment, perhaps by what it gives, would give more then and be held up more.
const QUIET_COUNTS: u32 = 5;
/// An asker can save up what it gets in such a part of a second.
const SAVED_PARTS: u64 = 10;

/// Whether a source has other things to do. As long as it has not counted, it seems so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    since: Time,
    ops: u64,
    /// Counts without much, one after the other.
    quiet: u32,
}

impl Load {
    /// It is `now`, and so many operations were executed so far.
    pub(super) fn tick(&mut self, now: Time, ops: u64) {
        let passed = now.since(self.since);
        if passed < COUNTED {
            return;
        }
        let done = u128::from(ops.saturating_sub(self.ops)) * 1_000_000_000;
        let few = done < u128::from(BUSY_OPS_PER_S) * u128::from(passed.0);
        // What it did before somebody asked says nothing about now.
        self.quiet = if few && passed <= COUNTED_MAX { self.quiet.saturating_add(1) } else { 0 };
        (self.since, self.ops) = (now, ops);
    }

    fn is_idle(self) -> bool {
        self.quiet >= QUIET_COUNTS
    }

    pub(super) fn bytes_per_turn(self) -> usize {
        if self.is_idle() { IDLE } else { BUSY }.bytes_per_turn
    }
}

/// What one asker may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Bytes it may still have now; below zero after an answer larger than what was left.
    allowance: i64,
    /// The newest checkpoint that it asked about, and when it asked last.
    newest: Seq,
    asked: Time,
    /// What it was given since it came back last.
    given: i64,
    /// How often it has come back for a newer one because of the pace.
    returns: u32,
    /// What it gets at first of a source that executes, per second.
    busy_bytes_per_s: u64,
}

impl Pace {
    /// Of a source in a group of so many replicas.
    pub(super) fn new(load: Load, replicas: u16) -> Pace {
        let (newest, asked) = (Seq(0), Time::ZERO);
        let share = BUSY.bytes_per_s / u64::from(replicas.saturating_sub(1).max(1));
        let busy_bytes_per_s = share.max(BUSY_SHARE_MIN);
        let mut pace = Pace { allowance: 0, newest, asked, given: 0, returns: 0, busy_bytes_per_s };
        pace.allowance = saved_max(pace.bytes_per_s(load));
        pace
    }

    /// It asks about this checkpoint.
    pub(super) fn asked(&mut self, now: Time, checkpoint: Seq) {
        let forgotten = now.since(self.asked) >= HASTE_FORGOTTEN_AFTER;
        if forgotten {
            self.returns = 0;
        }
        if forgotten || checkpoint > self.newest {
            // What can be had at once was not given at any pace.
            let was_paced = self.given > saved_max(self.busy_bytes_per_s());
            self.returns = self.returns.saturating_add(u32::from(was_paced && !forgotten));
            self.given = 0;
        }
        (self.newest, self.asked) = (self.newest.max(checkpoint), now);
    }

    /// So much time has passed.
    pub(super) fn tick(&mut self, passed: Span, load: Load) {
        let rate = self.bytes_per_s(load);
        // What fills every allowance: more than that need not be reckoned.
        let passed = passed.0.min(1_000_000_000 / SAVED_PARTS);
        let gained = u128::from(passed) * u128::from(rate) / 1_000_000_000;
        let gained = i64::try_from(gained).expect("at most what fills an allowance");
        self.allowance = (self.allowance + gained).min(saved_max(rate));
    }

    pub(super) fn may_have(&self) -> bool {
        self.allowance > 0
    }

    /// An answer has cost so much.
    pub(super) fn took(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).expect("an answer is in memory");
        self.allowance -= bytes;
        self.given = self.given.saturating_add(bytes);
    }

    fn busy_bytes_per_s(&self) -> u64 {
        self.busy_bytes_per_s.saturating_mul(1 << self.returns.min(16)).min(IDLE.bytes_per_s)
    }

    fn bytes_per_s(&self, load: Load) -> u64 {
        if load.is_idle() { IDLE.bytes_per_s } else { self.busy_bytes_per_s() }
    }
}

fn saved_max(bytes_per_s: u64) -> i64 {
    i64::try_from(bytes_per_s / SAVED_PARTS).expect("paces are far below that")
}
