//! One group commit: the records of all parties that gathered while the disk was busy, and what
//! belongs to them.
//!
//! The order is what matters. What each new segment begins with is set before a record can begin
//! one; a promise that waits for a record leaves after the commit; that a recovery is over is
//! noted after the record that says so; the log is cut after the checkpoint that allows it is
//! durable, which is whoever asks for the cut to know, and after the life file says so.
//!
//! Not here: who waits for which record (`journal`), and the bytes on disk (`store`).

use base::Seq;
use store::{Dir, Log, StoreError};

/// A group that a slow disk made larger than this does not keep its memory: so many bytes, or
/// so many of what they are divided into.
const KEPT_BYTES: usize = 8 << 20;
const KEPT_ENDS: usize = KEPT_BYTES / 64;

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
    /// Empties it; as much of its memory as usual groups take is used again.
    pub fn clear(&mut self) {
        empty(&mut self.bytes, KEPT_BYTES);
        empty(&mut self.ends, KEPT_ENDS);
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
            if base::mutant!(OnePillarUnwritten) && seq.is_some_and(|seq| seq.0 % 2 == 0) {
                start = *end;
                continue;
            }
            // The coordinator's records keep no segment alive: they are carried over.
            log.append(&self.bytes[start..*end], seq.unwrap_or(Seq(0)))?;
            start = *end;
        }
        // Others may have handed over before what a barrier waits for.
        let waits = self.urgent && !base::mutant!(BarriersNotSynced);
        let commits = waits || !self.ends.is_empty();
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
            if let Some(cut) = log.would_cut(seq) {
                dir.cut(cut)?;
            }
            log.trim(seq)?;
        }
        Ok(())
    }
}

fn empty<T>(all: &mut Vec<T>, kept: usize) {
    if all.capacity() > kept {
        *all = Vec::new();
    } else {
        all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remains::Remains;
    use base::{Digest, GroupId, Incarnation, ReplicaId, StableCheckpoint, Stripe, View};
    use proto::Record;
    use std::path::Path;
    use std::sync::Arc;
    use store::{Beginning, Durability, Identity, LogOptions, Memory, Opened, Storage, Voice};

    const IDENTITY: Identity = Identity { group: GroupId([1; 32]), replica: ReplicaId(0) };

    fn open(storage: &Arc<dyn Storage>) -> Opened {
        Dir::open(Path::new("state"), IDENTITY, Arc::clone(storage)).expect("opens")
    }

    fn begin(storage: &Arc<dyn Storage>, voice: Voice, incarnation: u64) -> (Dir, Log) {
        let Opened { mut dir, .. } = open(storage);
        let beginning = Beginning { voice, why: String::new() };
        let layout = LogOptions { segment_bytes: 4 << 10 };
        let incarnation = Incarnation(incarnation);
        let log = dir.begin(&beginning, incarnation, Durability::Sync, layout);
        (dir, log.expect("nothing fails").expect("a log"))
    }

    fn write(log: &mut Log, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            let (view, seq, digest) = (View(0), Seq(number), Digest([7; 32]));
            let mut portion = Portion { urgent: true, ..Portion::default() };
            Record::Prepared { view, seq, digest }.encode(&mut portion.bytes);
            portion.ends.push((portion.bytes.len(), Some(seq)));
            portion.write(log, true).expect("nothing fails");
        }
    }

    /// What the log alone gives reason to doubt of who begins with the state at `loaded`.
    fn doubt(storage: &Arc<dyn Storage>, loaded: u64) -> Option<String> {
        let Opened { found, .. } = open(storage);
        let stripe = Stripe::new(1).expect("in range");
        let mut remains = Remains::new(IDENTITY.group, stripe, found.cut());
        found.log.records.iter().for_each(|r| remains.take(&r.bytes).expect("a record"));
        remains.doubt(&StableCheckpoint { seq: Seq(loaded), ..StableCheckpoint::default() })
    }

    #[test]
    fn what_gathered_while_the_disk_stood_still_is_given_back() {
        let mut portion = Portion::default();
        let mut fill = |records: usize| {
            for _ in 0..records {
                portion.bytes.extend_from_slice(&[7; 100]);
                portion.ends.push((portion.bytes.len(), None));
            }
            portion.clear();
            assert!(portion.is_empty());
            (portion.bytes.capacity(), portion.ends.capacity())
        };
        let (bytes, ends) = fill(1000);
        assert!(bytes >= 100_000 && ends >= 1000, "a usual group: {bytes}, {ends}");
        assert_eq!(fill(10), (bytes, ends));
        assert_eq!(fill(1_000_000), (0, 0));
    }

    /// Both checkpoint files may be gone: nothing in such a log names one.
    #[test]
    fn a_log_without_its_beginning_does_not_pass_for_whole() {
        let storage: Arc<dyn Storage> = Arc::new(Memory::new());
        let (mut dir, mut log) = begin(&storage, Voice::Whole, 1);
        write(&mut log, 1..=100);
        assert_eq!(doubt_of_copy(&storage, 0), None, "nothing was cut off yet");
        let cut = log.would_cut(Seq(60)).expect("there are many segments");
        let portion = Portion { trim: Some(Seq(60)), ..Portion::default() };
        portion.conclude(&mut log, &mut dir).expect("nothing fails");
        drop((dir, log));
        for loaded in [0, cut.0 - 1] {
            assert!(doubt(&storage, loaded).is_some(), "{loaded}");
        }
        assert_eq!(doubt(&storage, cut.0), None);
        // The next life knows it, too; one that begins anew has a log of its own.
        drop(begin(&storage, Voice::Whole, 2));
        assert!(doubt(&storage, cut.0 - 1).is_some());
        drop(begin(&storage, Voice::Forgetful, 3));
        assert_eq!(doubt(&storage, 0), None, "there is nothing in it");
    }

    /// The directory is in use: looks at it as the next life would find it.
    fn doubt_of_copy(storage: &Arc<dyn Storage>, loaded: u64) -> Option<String> {
        let copy: Arc<dyn Storage> = Arc::new(Memory::new());
        let dir = Path::new("state");
        for name in storage.list(dir).expect("it works") {
            let file = storage.open(&dir.join(&name)).expect("is there");
            let mut bytes = vec![0; usize::try_from(file.len().expect("it works")).expect("small")];
            file.read_at(0, &mut bytes).expect("it works");
            let new = copy.create(&dir.join(&name)).expect("it works");
            new.write_at(0, &bytes).expect("it works");
        }
        doubt(&copy, loaded)
    }

    /// Wherever the machine stops: what is missing was said before.
    #[test]
    fn the_life_file_says_what_is_cut_before_it_is() {
        for operations in 0..40 {
            let disk = store::Volatile::over(Arc::new(Memory::new()));
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let (mut dir, mut log) = begin(&storage, Voice::Whole, 1);
            write(&mut log, 1..=100);
            let stop = disk.operations() + operations;
            disk.set_faults(store::Faults { stop_after: Some(stop), ..store::Faults::default() });
            let portion = Portion { trim: Some(Seq(60)), ..Portion::default() };
            let _ = portion.conclude(&mut log, &mut dir);
            drop((dir, log));
            disk.set_faults(store::Faults::default());
            disk.crash().expect("the disk below works");
            let Opened { found, .. } = open(&storage);
            let lowest = found.log.records.iter().map(|r| r.highest).filter(|s| *s > Seq(0)).min();
            let lowest = lowest.expect("the last segment stays");
            assert!(found.cut() >= lowest.prev(), "{operations}: {lowest} {}", found.cut());
        }
    }
}
