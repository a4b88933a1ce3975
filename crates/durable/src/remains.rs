//! The records that earlier lives left, sorted by owner, and whether they are enough to go on
//! from a given checkpoint.

use base::{GroupId, Malformed, PillarId, Reader, Seq, StableCheckpoint, Stripe};
use proto::Record;
use proto::group::record::GroupRecord;

/// Numbers that may be missing between the checkpoint and the log. The lanes keep a place for
/// each of them, and after a long absence there may be more than fit into memory. Whoever
/// begins forgetful is taken in again without them.
const GAP_MAX: u64 = 1 << 21;

/// The records of a log, sorted by owner.
#[derive(Debug)]
pub struct Remains {
    group: GroupId,
    stripe: Stripe,
    /// Those of each pillar's lane.
    pub lanes: Vec<Vec<Record>>,
    /// Those of the coordinator.
    pub group_records: Vec<GroupRecord>,
    lowest: Option<Seq>,
}

impl Remains {
    /// None so far.
    #[must_use]
    pub fn new(group: GroupId, stripe: Stripe) -> Remains {
        let lanes = vec![Vec::new(); usize::from(stripe.pillars())];
        Remains { group, stripe, lanes, group_records: Vec::new(), lowest: None }
    }

    /// Takes a record as the log holds it.
    ///
    /// # Errors
    /// When it is none that this version wrote.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut r = Reader::new(bytes);
        let record = Record::decode(self.group, &mut r)?;
        r.finish("record")?;
        match (record.seq(), record) {
            (None, Record::Group(record)) => self.group_records.push(record),
            (Some(seq), record) => {
                self.lowest = Some(self.lowest.map_or(seq, |lowest| lowest.min(seq)));
                let PillarId(pillar) = self.stripe.pillar_of(seq);
                self.lanes[usize::from(pillar)].push(record);
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// What the lanes promised is not known: the others are asked, not the log.
    pub fn forget_votes(&mut self) {
        self.lanes.iter_mut().for_each(Vec::clear);
    }

    /// Why a replica that loaded the state at `loaded` must not vote with these records alone.
    #[must_use]
    pub fn doubt(&self, loaded: &StableCheckpoint) -> Option<String> {
        if self.misses_a_checkpoint(loaded) {
            return Some("the checkpoint that the log goes on from is gone".to_owned());
        }
        let gap = self.widest_gap(loaded.seq);
        (gap > GAP_MAX).then(|| {
            format!(
                "the log goes on {gap} numbers beyond what is on disk: the state was fetched from \
                 the others and not saved yet"
            )
        })
    }

    /// The most numbers in a row, above `loaded` and below the highest record, without a record.
    fn widest_gap(&self, loaded: Seq) -> u64 {
        let seqs = self.lanes.iter().flatten().filter_map(Record::seq);
        let mut seqs: Vec<u64> = seqs.map(|seq| seq.0).filter(|seq| *seq > loaded.0).collect();
        seqs.sort_unstable();
        let before = std::iter::once(&loaded.0).chain(&seqs);
        seqs.iter().zip(before).map(|(seq, before)| seq - before).max().unwrap_or(0)
    }

    /// Whether the log was cut back by a checkpoint beyond the one that could be read: then
    /// promises may be missing in between.
    fn misses_a_checkpoint(&self, loaded: &StableCheckpoint) -> bool {
        let certified = self.group_records.iter().filter_map(|record| match record {
            GroupRecord::Stable(stable) | GroupRecord::Recovered { stable } => Some(stable.seq),
            _ => None,
        });
        let known = certified.max().unwrap_or(Seq(0));
        // A window above the low mark is the least that a log holds when it was cut in time.
        known > loaded.seq && self.lowest.is_none_or(|lowest| lowest > loaded.seq.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Digest;

    #[test]
    fn a_gap_is_as_wide_as_what_is_missing_above_the_checkpoint() {
        let committed =
            |seq| Record::Committed { seq: Seq(seq), digest: Digest::ZERO, batch: None };
        let mut remains = Remains::new(GroupId([1; 32]), Stripe::new(2).expect("in range"));
        assert_eq!(remains.widest_gap(Seq(0)), 0);
        for seq in [9, 5, 1_000_003, 8, 1_000_004, 4] {
            let mut bytes = vec![];
            committed(seq).encode(&mut bytes);
            remains.take(&bytes).expect("a record");
        }
        assert_eq!(remains.lanes.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        assert_eq!(remains.widest_gap(Seq(9)), 999_994);
        assert_eq!(remains.widest_gap(Seq(1_000_000)), 3);
        assert_eq!(remains.widest_gap(Seq(2_000_000)), 0, "what is below does not count");
    }
}
