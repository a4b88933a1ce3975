//! When a checkpoint goes to disk, and how far the log is cut back then.
//!
//! The log is cut back to the checkpoint *before* the one that was just written: should that one
//! turn out to be unreadable, the one before and the log still hold every promise. A checkpoint
//! that cannot be written is no reason to stop: the log still has everything. It is tried again
//! when the log has grown as much once more.
//!
//! One that nobody waits for may be written at leisure, which leaves the disk to the log; but only
//! until the log has grown by half of what calls for the next one.
//!
//! Not here: which checkpoint it is (`proto::group`), and how its objects get into the file.

use base::Seq;

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    Nothing,
    /// The coordinator was asked.
    Asked,
    /// The checkpoint is being written.
    Writing,
}

/// Decides when checkpoints go to disk.
#[derive(Clone, Copy, Debug)]
pub struct Saving {
    doing: Doing,
    growth: u64,
    /// What earlier lives have left in the log beyond the last checkpoint; nothing once there is
    /// one of this life.
    found: u64,
    /// What the log had taken when the last checkpoint was begun.
    mark: u64,
    /// What the last checkpoint on disk lets be cut, which is its number, and its bytes.
    last: Option<(Seq, u64)>,
    /// Only a weak quorum has signed what is being written.
    weak: bool,
    /// The state came from elsewhere: the log alone does not lead to it.
    wanted: bool,
    /// Somebody waits for what is being done.
    awaited: bool,
    /// Somebody waits for what is being written.
    hurries: bool,
}

impl Saving {
    /// After what was found on disk: the `last` checkpoint, and `found` bytes of log beyond it.
    /// The log may grow by `growth` bytes, or by as many as the last checkpoint has, before there
    /// is another, in however many lives.
    #[must_use]
    pub fn new(last: Option<(Seq, u64)>, growth: u64, found: u64) -> Saving {
        Saving {
            doing: Doing::Nothing,
            growth,
            found,
            mark: 0,
            last,
            weak: false,
            wanted: false,
            awaited: false,
            hurries: false,
        }
    }

    /// Whether the coordinator is to be asked for a checkpoint now, and whether that is urgent.
    /// The log, if there is one, has taken `taken` bytes in this life.
    pub fn wants(&mut self, taken: Option<u64>) -> Option<bool> {
        let grown = self.found.saturating_add(taken?.saturating_sub(self.mark));
        if self.doing == Doing::Nothing && (self.wanted || grown >= self.growth_allowed()) {
            (self.doing, self.awaited) = (Doing::Asked, self.awaited || self.wanted);
            // Until it is on disk a restart means another transfer: an idle group is driven.
            return Some(self.wanted);
        }
        None
    }

    /// The log may grow by so much before there is another checkpoint.
    fn growth_allowed(&self) -> u64 {
        self.growth.max(self.last.map_or(0, |(_, bytes)| bytes))
    }

    /// Whether a checkpoint is being written: then nobody can ask for another.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.doing == Doing::Writing
    }

    /// Somebody asks the coordinator for one, whatever the log says.
    pub fn asked(&mut self) {
        (self.doing, self.awaited) = (Doing::Asked, true);
    }

    /// The state came from elsewhere: with a log, it is to go to disk soon.
    pub fn state_replaced(&mut self) {
        self.wanted = true;
    }

    /// Whether there is anything to write it for: a log that does not lead there, or somebody who
    /// has asked.
    #[must_use]
    pub fn is_of_use(&self, logs: bool) -> bool {
        logs || self.doing == Doing::Asked
    }

    /// The stage holds a checkpoint readable, and writing it begins; `weak` if fewer than a quorum
    /// have signed it: what was promised below it still binds, so it lets nothing be cut. Until
    /// the log has taken as many bytes as this says there is leisure for it; at once it is to be
    /// written where it says nothing.
    pub fn begins(&mut self, taken: Option<u64>, weak: bool) -> Option<u64> {
        (self.found, self.mark) = (0, taken.unwrap_or(0));
        (self.weak, self.hurries) = (weak, self.wanted || self.awaited);
        (self.doing, self.wanted, self.awaited) = (Doing::Writing, false, false);
        let allowed = self.growth_allowed();
        taken.filter(|_| !self.hurries).map(|taken| taken.saturating_add(allowed / 2))
    }

    /// It was written, if it was: its number and bytes. Returns up to where the log may be cut.
    pub fn settled(&mut self, written: Option<(Seq, u64)>) -> Option<Seq> {
        self.doing = Doing::Nothing;
        let Some((seq, bytes)) = written else {
            // Whoever waited still does.
            self.awaited |= self.hurries;
            return None;
        };
        let previous = self.last.map(|(seq, _)| seq);
        let cuts = if self.weak { previous.unwrap_or_default() } else { seq };
        self.last = Some((cuts, bytes));
        previous.filter(|seq| !self.weak && *seq > Seq(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_cut_to_the_checkpoint_before_the_last_and_no_failure_cuts_it() {
        let mut saving = Saving::new(None, 100, 0);
        assert_eq!(saving.wants(Some(99)), None);
        assert_eq!(saving.wants(Some(100)), Some(false));
        assert_eq!(saving.wants(Some(1_000)), None, "it is asked for already");
        assert_eq!(saving.begins(Some(100), false), Some(150), "half of 100 more");
        assert_eq!(saving.settled(Some((Seq(8), 150))), None, "the log is all that else is there");
        assert_eq!(saving.wants(Some(249)), None, "the file is larger than the growth");
        assert_eq!(saving.wants(Some(250)), Some(false));
        assert_eq!(saving.begins(Some(250), false), Some(325), "half of 150 more");
        assert_eq!(saving.settled(None), None);
        assert_eq!(saving.wants(Some(400)), Some(false), "tried again");
        assert_eq!(saving.begins(Some(400), false), Some(475));
        assert_eq!(saving.settled(Some((Seq(32), 10))), Some(Seq(8)));
        saving.state_replaced();
        assert_eq!(saving.wants(None), None, "nothing is kept without a log");
        assert_eq!(saving.wants(Some(400)), Some(true), "urgent: the log does not lead to it");
        assert_eq!(saving.begins(Some(400), false), None, "at once");
        saving.settled(Some((Seq(33), 10)));
        saving.asked();
        assert_eq!(saving.begins(Some(400), false), None, "somebody waits");
        saving.settled(Some((Seq(34), 10)));
        assert_eq!(saving.wants(Some(500)), Some(false));
        assert_eq!(saving.begins(Some(500), false), Some(550), "nobody waits any more");
    }

    /// Or a replica that is started often enough would never cut its log.
    #[test]
    fn what_earlier_lives_have_left_beyond_the_checkpoint_counts() {
        let mut saving = Saving::new(Some((Seq(8), 10)), 100, 99);
        assert_eq!(saving.wants(None), None, "nothing is kept without a log");
        assert_eq!(saving.wants(Some(0)), None);
        assert_eq!(saving.wants(Some(1)), Some(false));
        assert_eq!(saving.begins(Some(1), false), Some(51));
        saving.settled(None);
        assert_eq!(saving.wants(Some(100)), None, "tried again when it has grown as much again");
        assert_eq!(saving.wants(Some(101)), Some(false));
        let mut saving = Saving::new(Some((Seq(8), 150)), 100, 200);
        assert_eq!(saving.wants(Some(0)), Some(false), "at once");
        let mut saving = Saving::new(Some((Seq(8), 150)), 100, 149);
        assert_eq!(saving.wants(Some(0)), None, "the file is larger than the growth");
        assert_eq!(saving.wants(Some(1)), Some(false));
    }

    #[test]
    fn a_state_that_a_weak_quorum_has_signed_lets_nothing_be_cut() {
        let mut saving = Saving::new(Some((Seq(8), 10)), 100, 0);
        let save = |saving: &mut Saving, seq, weak| {
            saving.begins(Some(0), weak);
            saving.settled(Some((Seq(seq), 10)))
        };
        assert_eq!(save(&mut saving, 20, true), None);
        assert_eq!(save(&mut saving, 32, false), Some(Seq(8)), "what was promised above it binds");
        assert_eq!(save(&mut saving, 64, false), Some(Seq(32)));
        let mut saving = Saving::new(None, 100, 0);
        assert_eq!(save(&mut saving, 20, true), None);
        assert_eq!(save(&mut saving, 32, false), None, "the log has all since the beginning");
    }

    #[test]
    fn what_somebody_waits_for_is_in_haste_again_when_it_could_not_be_written() {
        let mut saving = Saving::new(None, 100, 0);
        saving.state_replaced();
        assert_eq!(saving.begins(Some(10), false), None);
        saving.settled(None);
        assert_eq!(saving.begins(Some(10), false), None);
        saving.settled(Some((Seq(8), 10)));
        assert_eq!(saving.begins(Some(10), false), Some(60));
    }
}
