//! When a checkpoint goes to disk, and how far the log is cut back then.
//!
//! The log is cut back to the checkpoint *before* the one that was just written: should that one
//! turn out to be unreadable, the one before and the log still hold every promise. A checkpoint
//! that cannot be written is no reason to stop: the log still has everything. It is tried again
//! when the log has grown as much once more.
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
    /// What the log had taken when the last checkpoint was begun.
    mark: u64,
    /// The last checkpoint on disk: its number and bytes.
    last: Option<(Seq, u64)>,
    /// The state came from elsewhere: the log alone does not lead to it.
    wanted: bool,
}

impl Saving {
    /// After what was found on disk, `last`. The log may grow by `growth` bytes, or by as many as
    /// the last checkpoint has, before there is another.
    #[must_use]
    pub fn new(last: Option<(Seq, u64)>, growth: u64) -> Saving {
        Saving { doing: Doing::Nothing, growth, mark: 0, last, wanted: false }
    }

    /// Whether the coordinator is to be asked for a checkpoint now, and whether that is urgent.
    /// The log, if there is one, has taken `taken` bytes in this life.
    pub fn wants(&mut self, taken: Option<u64>) -> Option<bool> {
        let size = self.last.map_or(0, |(_, bytes)| bytes);
        let grown = taken?.saturating_sub(self.mark);
        if self.doing == Doing::Nothing && (self.wanted || grown >= self.growth.max(size)) {
            self.doing = Doing::Asked;
            // Until it is on disk a restart means another transfer: an idle group is driven.
            return Some(self.wanted);
        }
        None
    }

    /// Whether a checkpoint is being written: then nobody can ask for another.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.doing == Doing::Writing
    }

    /// Somebody asks the coordinator for one, whatever the log says.
    pub fn asked(&mut self) {
        self.doing = Doing::Asked;
    }

    /// The state came from elsewhere: with a log, it is to go to disk soon.
    pub fn state_replaced(&mut self) {
        self.wanted = true;
    }

    /// The stage holds a checkpoint readable, and writing it begins.
    pub fn begins(&mut self, taken: Option<u64>) {
        self.mark = taken.unwrap_or(0);
        (self.doing, self.wanted) = (Doing::Writing, false);
    }

    /// It was written, if it was: its number and bytes. Returns up to where the log may be cut.
    pub fn settled(&mut self, written: Option<(Seq, u64)>) -> Option<Seq> {
        self.doing = Doing::Nothing;
        let previous = self.last;
        self.last = Some(written?);
        previous.map(|(seq, _)| seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_cut_to_the_checkpoint_before_the_last_and_no_failure_cuts_it() {
        let mut saving = Saving::new(None, 100);
        assert_eq!(saving.wants(Some(99)), None);
        assert_eq!(saving.wants(Some(100)), Some(false));
        assert_eq!(saving.wants(Some(1_000)), None, "it is asked for already");
        saving.begins(Some(100));
        assert_eq!(saving.settled(Some((Seq(8), 150))), None, "the log is all that else is there");
        assert_eq!(saving.wants(Some(249)), None, "the file is larger than the growth");
        assert_eq!(saving.wants(Some(250)), Some(false));
        saving.begins(Some(250));
        assert_eq!(saving.settled(None), None);
        assert_eq!(saving.wants(Some(400)), Some(false), "tried again");
        saving.begins(Some(400));
        assert_eq!(saving.settled(Some((Seq(32), 10))), Some(Seq(8)));
        saving.state_replaced();
        assert_eq!(saving.wants(None), None, "nothing is kept without a log");
        assert_eq!(saving.wants(Some(400)), Some(true), "urgent: the log does not lead to it");
    }
}
