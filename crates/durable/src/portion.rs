//! One group commit: the records of all parties that gathered while the disk was busy, and what
//! belongs to them.
//!
//! The order is what matters. What each new segment begins with is set before a record can begin
//! one; a promise that waits for a record leaves after the commit; that a recovery is over is
//! noted after the record that says so; the log is cut after the checkpoint that allows it is
//! durable, which is whoever asks for the cut to know.
//!
//! Not here: who waits for which record (`journal`), and the bytes on disk (`store`).

use base::Seq;
use store::{Dir, Log, StoreError};

/// What is written together.
#[derive(Debug, Default)]
pub struct Portion {
    /// The records, encoded, one after the other.
    pub bytes: Vec<u8>,
    /// Where each record ends, and the number that it is about.
    pub ends: Vec<(usize, Option<Seq>)>,
    /// Somebody waits for one of them, or for all that was written so far.
    pub urgent: bool,
    /// What each new segment begins with from now on.
    pub carried: Option<Vec<Vec<u8>>>,
    /// This life has recovered.
    pub recovered: bool,
    /// Only numbers above this one matter any more.
    pub trim: Option<Seq>,
}

impl Portion {
    /// Empties it; its memory is used again.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        (self.urgent, self.recovered) = (false, false);
        (self.carried, self.trim) = (None, None);
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let nothing = self.ends.is_empty() && !self.urgent;
        nothing && self.carried.is_none() && !self.recovered && self.trim.is_none()
    }

    /// Writes the records; with `sync` they are durable afterwards, if anybody waits for them:
    /// what nobody waits for is handed to the system, and durable with the next that is. True
    /// when there was something to commit.
    ///
    /// # Errors
    /// When the log fails, which is final.
    pub fn write(&self, log: &mut Log, sync: bool) -> Result<bool, StoreError> {
        if let Some(carried) = &self.carried {
            log.carry(carried.iter().map(Vec::as_slice))?;
        }
        let mut start = 0;
        for (end, seq) in &self.ends {
            // The coordinator's records keep no segment alive: they are carried over.
            log.append(&self.bytes[start..*end], seq.unwrap_or(Seq(0)))?;
            start = *end;
        }
        let commits = self.urgent || !self.ends.is_empty();
        if commits {
            log.commit(sync && self.urgent)?;
        }
        Ok(commits)
    }

    /// What follows once whoever waits for the records was told.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn conclude(&self, log: &mut Log, dir: &mut Dir) -> Result<(), StoreError> {
        if self.recovered {
            dir.recovered()?;
        }
        if let Some(seq) = self.trim {
            log.trim(seq)?;
        }
        Ok(())
    }
}
