//! The records that earlier lives left, sorted by owner, and whether they are enough to go on
//! from a given checkpoint.

use base::{GroupId, Malformed, PillarId, Reader, Seq, StableCheckpoint, Stripe};
use proto::Record;
use proto::group::record::GroupRecord;

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
    cut: Seq,
}

impl Remains {
    /// None so far, of a log of which records about numbers up to `cut` may be missing.
    #[must_use]
    pub fn new(group: GroupId, stripe: Stripe, cut: Seq) -> Remains {
        let lanes = vec![Vec::new(); usize::from(stripe.pillars())];
        Remains { group, stripe, lanes, group_records: Vec::new(), lowest: None, cut }
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
                let lane = &mut self.lanes[usize::from(pillar)];
                if base::mutant!(LastRecordStays) {
                    lane.retain(|earlier| earlier.seq() != Some(seq));
                }
                lane.push(record);
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// What the lanes promised is not known: the others are asked, not the log.
    pub fn forget_votes(&mut self) {
        self.lanes.iter_mut().for_each(Vec::clear);
    }

    /// Whether these records alone lead from the state at `from` to the one at `to`: none above
    /// `from` was cut off, and of each number in between they say what was decided. A vote does
    /// not: what became of the number may be in nobody's log any more.
    #[must_use]
    pub fn leads(&self, from: Seq, to: Seq) -> bool {
        let decided = |record: &Record| match record {
            Record::Committed { seq, .. } => Some(*seq).filter(|seq| from < *seq && *seq <= to),
            _ => None,
        };
        let mut all: Vec<Seq> = self.lanes.iter().flatten().filter_map(decided).collect();
        all.sort_unstable();
        all.dedup();
        self.cut <= from && all.len() as u64 == to.0.saturating_sub(from.0)
    }

    /// Why a replica that loaded the state at `loaded` must not vote with these records alone.
    /// That nothing speaks against it does not mean that they lead anywhere ([`Remains::leads`]).
    #[must_use]
    pub fn doubt(&self, loaded: &StableCheckpoint) -> Option<String> {
        let gone = "the checkpoint that the log goes on from is gone";
        (self.cut > loaded.seq || self.misses_a_checkpoint(loaded)).then(|| gone.to_owned())
    }

    /// Whether this replica had forgotten its votes, and recovered with a checkpoint that is not
    /// there. Otherwise it is no doubt that nothing is there of the numbers above the one that
    /// is: whoever waits for a state votes only above what it waits for.
    fn misses_a_checkpoint(&self, loaded: &StableCheckpoint) -> bool {
        let recovered = self.group_records.iter().filter_map(|record| match record {
            GroupRecord::Recovered { stable } => Some(stable.seq),
            _ => None,
        });
        let known = recovered.max().unwrap_or(Seq(0));
        known > loaded.seq && self.lowest.is_none_or(|lowest| lowest > loaded.seq.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Digest, View};

    fn certified(seq: u64) -> StableCheckpoint {
        StableCheckpoint { seq: Seq(seq), ..StableCheckpoint::default() }
    }

    fn remains(seqs: &[u64], known: u64) -> Remains {
        let stable = Record::Group(GroupRecord::Stable(certified(known)));
        let committed =
            |seq: &u64| Record::Committed { seq: Seq(*seq), digest: Digest::ZERO, batch: None };
        let stripe = Stripe::new(2).expect("in range");
        let mut remains = Remains::new(GroupId([1; 32]), stripe, Seq(0));
        for record in seqs.iter().map(committed).chain([stable]) {
            let mut bytes = vec![];
            record.encode(&mut bytes);
            remains.take(&bytes).expect("a record");
        }
        remains
    }

    #[test]
    fn who_lost_the_checkpoint_that_its_log_goes_on_from_may_have_forgotten() {
        for (seqs, cut, doubt) in [(&[9, 10, 11][..], 8, true), (&[], 8, true), (&[5, 9], 4, false)]
        {
            let mut remains = remains(seqs, 8);
            remains.cut = Seq(cut);
            assert!(remains.doubt(&certified(8)).is_none());
            assert_eq!(remains.doubt(&certified(4)).is_some(), doubt, "{seqs:?}");
        }
    }

    #[test]
    fn a_log_leads_to_a_state_when_it_tells_each_decision_on_the_way() {
        let mut remains = remains(&[5, 6, 7, 6, 9], 0);
        assert!(remains.leads(Seq(4), Seq(7)) && remains.leads(Seq(6), Seq(7)));
        assert!(remains.leads(Seq(7), Seq(7)), "it is there");
        for (from, to) in [(3, 7), (4, 8), (4, 9), (0, 7), (0, u64::MAX)] {
            assert!(!remains.leads(Seq(from), Seq(to)), "{from} to {to}");
        }
        remains.cut = Seq(5);
        assert!(!remains.leads(Seq(4), Seq(7)) && remains.leads(Seq(5), Seq(7)));
        let (view, digest) = (View(0), Digest::ZERO);
        remains.lanes[0].push(Record::Prepared { view, seq: Seq(8), digest });
        assert!(!remains.leads(Seq(5), Seq(9)), "a vote is no decision");
    }

    /// Swarm seed 40760: a replica that had never been there voted above the certificate of a
    /// state that it was to fetch, and lost its power before it had it. It was taken for forgetful,
    /// and with one more that had lost its disk these were too many for good.
    #[test]
    fn who_voted_above_a_state_that_it_waited_for_has_forgotten_nothing() {
        assert!(remains(&[65, 66, 68], 64).doubt(&certified(0)).is_none());
        assert!(remains(&[], 64).doubt(&certified(0)).is_none());
    }

    /// Whatever else the log says: nothing in it need speak of a checkpoint.
    #[test]
    fn who_lost_the_checkpoint_that_its_log_was_cut_by_may_have_forgotten() {
        let mut remains = remains(&[5, 6, 7], 0);
        assert!(remains.doubt(&certified(0)).is_none(), "what was never said need not be there");
        remains.cut = Seq(4);
        assert!(remains.doubt(&certified(0)).is_some());
        assert!(remains.doubt(&certified(3)).is_some());
        assert!(remains.doubt(&certified(4)).is_none());
    }

    /// A checkpoint was fetched far ahead, and the process ended before it was on disk. The log
    /// says that no vote is missing: with `sync` this replica has forgotten nothing.
    #[test]
    fn a_log_that_goes_on_far_beyond_the_checkpoint_is_no_doubt() {
        let remains = remains(&[5, 4, (1 << 40) + 1, 1 << 40], 1 << 40);
        assert_eq!(remains.lanes.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        assert!(remains.doubt(&certified(3)).is_none());
    }
}
