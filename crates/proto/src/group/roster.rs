//! Which replicas lead in a view, when leaders rotate: all but those that failed to, at most f at
//! a time, each for so long.
//!
//! A pure function of the VIEW-CHANGEs in a NEW-VIEW, which are signed, so that everybody who
//! installs the view comes to the same, and a leader cannot exclude whom it likes: whatever is
//! believed of a replica, a weak quorum of VIEW-CHANGEs says, so a correct replica does.
//!
//! Not here: who leads which number, once it is known who is excluded (`pbft::roles`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Malformed, Quorums, Reader, ReplicaId, Seq, Writer};

use super::msg::ViewChange;
use super::rules::Rules;
use super::wire::below_half;

/// k: for so many checkpoints a replica does not lead, the first time that it failed to.
pub const ABSENCE_CHECKPOINTS: u64 = 32;
/// An absence doubles with each that follows soon on another, at most so often.
const DOUBLINGS_MAX: u8 = 10;
/// Bytes of one exclusion.
const EXCLUSION_BYTES: usize = 2 + 8 + 1;

/// A replica that failed to lead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Exclusion {
    /// Which.
    pub replica: ReplicaId,
    /// The last number that was fixed when it was excluded, or the one after the `since` of whoever
    /// was excluded before it, where that is higher.
    pub since: Seq,
    /// How often it was excluded before, not long ago.
    pub strikes: u8,
}

impl Exclusion {
    fn length(&self, interval: u64) -> u64 {
        let doubled = ABSENCE_CHECKPOINTS << self.strikes.min(DOUBLINGS_MAX);
        doubled.saturating_mul(interval)
    }

    /// The last number for which the replica is excluded: a checkpoint.
    #[must_use]
    pub fn until(&self, interval: u64) -> Seq {
        let end = self.since.0.saturating_add(self.length(interval));
        Seq(end.div_ceil(interval).saturating_mul(interval))
    }

    /// Whether it says nothing any more: the replica has led again for as long as it had not.
    fn is_forgotten(&self, at: Seq, interval: u64) -> bool {
        at.0 > self.until(interval).0.saturating_add(self.length(interval))
    }
}

/// What one VIEW-CHANGE says about leaders. Empty in groups with a fixed leader.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Roster {
    /// Whom its sender blames for the end of the view.
    pub blames: Option<ReplicaId>,
    /// Who was excluded in the view that it installed last, ascending.
    pub excluded: Vec<Exclusion>,
}

impl Roster {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Roster::default()
    }

    /// Whether a correct replica can have said it.
    pub(super) fn has_shape(&self, rules: &Rules) -> bool {
        let excluded = &self.excluded;
        self.blames.is_none_or(|replica| rules.is_member(replica))
            && excluded.iter().all(|one| rules.is_member(one.replica))
            && excluded.windows(2).all(|pair| pair[0].replica < pair[1].replica)
    }

    /// Most bytes of one in a group of `n`.
    pub(super) const fn len_max(n: usize) -> usize {
        3 + 1 + n * EXCLUSION_BYTES
    }

    /// Bytes of [`Roster::encode`].
    pub(super) fn encoded_len(&self) -> usize {
        3 + 1 + self.excluded.len() * EXCLUSION_BYTES
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        // One form for nobody.
        w.u8(u8::from(self.blames.is_some())).u16(self.blames.map_or(0, |replica| replica.0));
        w.u8(u8::try_from(self.excluded.len()).expect("at most 64 replicas"));
        for Exclusion { replica, since, strikes } in &self.excluded {
            w.u16(replica.0).u64(since.0).u8(*strikes);
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Roster, Malformed> {
        let blames = match (r.u8("blame flag")?, ReplicaId(r.u16("blamed replica")?)) {
            (0, ReplicaId(0)) => None,
            (1, replica) => Some(replica),
            _ => return Err(Malformed("blame flag")),
        };
        let count = usize::from(r.u8("exclusion count")?);
        if count > base::limits::REPLICAS_MAX {
            return Err(Malformed("exclusion count"));
        }
        let mut excluded = Vec::with_capacity(count);
        for _ in 0..count {
            excluded.push(Exclusion {
                replica: ReplicaId(r.u16("excluded replica")?),
                since: Seq(below_half(r.u64("exclusion number")?, "exclusion number")?),
                strikes: r.u8("exclusion strikes")?,
            });
        }
        Ok(Roster { blames, excluded })
    }
}

/// Who is excluded in the view that these VIEW-CHANGEs begin, which fix numbers up to `top`:
/// whom a weak quorum of them says to be, and whom a weak quorum blames; the f latest of these.
pub(super) fn decide(quorums: Quorums, changes: &[Arc<ViewChange>], top: Seq) -> Vec<Exclusion> {
    let weak = if base::mutant!(OneBlameExcludes) { 1 } else { quorums.weak() };
    let all = || changes.iter().flat_map(|change| &change.roster.excluded);
    // Of those a correct replica says this one, or a later one.
    let known = |replica| {
        let mut said: Vec<Exclusion> =
            all().filter(|one| one.replica == replica).copied().collect();
        said.sort_unstable_by(|a, b| b.cmp(a));
        said.get(weak - 1).copied()
    };
    let replicas = || (0..quorums.n()).map(ReplicaId);
    // Later than all before, also where nothing was fixed in between: or who was excluded first
    // would stay, and the others let each other back for ever.
    let latest = replicas().filter_map(known).map(|one| one.since).max();
    let since = latest.map_or(top, |latest| top.max(latest.next()));
    let mut excluded = Vec::new();
    for replica in replicas() {
        let known = known(replica);
        let blames = changes.iter().filter(|c| c.roster.blames == Some(replica)).count();
        if blames >= weak {
            let strikes = known.map_or(0, |one| one.strikes.saturating_add(1));
            excluded.push((false, Exclusion { replica, since, strikes }));
        } else if !base::mutant!(ExclusionsForgotten) {
            excluded.extend(known.map(|one| (true, one)));
        }
    }
    let most = if base::mutant!(AnyNumberExcluded) { usize::MAX } else { quorums.f().into() };
    // Whoever is blamed now has held up this very view, as much as was done in it.
    excluded.sort_unstable_by_key(|(old, one)| (*old, core::cmp::Reverse(one.since), one.replica));
    excluded.truncate(most);
    let mut excluded: Vec<Exclusion> = excluded.into_iter().map(|(_, one)| one).collect();
    excluded.sort_unstable();
    excluded
}

/// What of it still means something to a replica that has got to `stable`.
pub(super) fn still_known(excluded: &[Exclusion], stable: Seq, interval: u64) -> Vec<Exclusion> {
    excluded.iter().filter(|one| !one.is_forgotten(stable, interval)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::{change_with, quorums};

    fn one(replica: u16, since: u64, strikes: u8) -> Exclusion {
        Exclusion { replica: ReplicaId(replica), since: Seq(since), strikes }
    }

    fn says(replica: u16, blames: Option<u16>, excluded: &[Exclusion]) -> Arc<ViewChange> {
        let roster = Roster { blames: blames.map(ReplicaId), excluded: excluded.to_vec() };
        change_with(replica, roster)
    }

    #[test]
    fn whom_a_weak_quorum_blames_does_not_lead_for_a_while() {
        let blamed = [says(0, Some(3), &[]), says(1, None, &[]), says(2, Some(3), &[])];
        assert_eq!(decide(quorums(), &blamed, Seq(9)), [one(3, 9, 0)]);
        let few = [says(0, Some(3), &[]), says(1, Some(2), &[]), says(2, None, &[])];
        assert_eq!(decide(quorums(), &few, Seq(9)), [], "one word is no reason");
        assert_eq!(one(3, 9, 0).until(8), Seq(272), "the checkpoint after 32 of them");
        assert_eq!(one(3, 9, 200).until(8).0, (9 + ((8 * 32_u64) << 10)).div_ceil(8) * 8);
    }

    #[test]
    fn an_exclusion_goes_on_when_a_weak_quorum_knows_it_and_doubles() {
        let known = [one(3, 9, 1)];
        let two = [says(0, None, &known), says(1, None, &[]), says(2, None, &known)];
        assert_eq!(decide(quorums(), &two, Seq(20)), known);
        let liar = [says(0, None, &[one(1, 99, 0)]), says(1, None, &[]), says(2, None, &[])];
        assert_eq!(decide(quorums(), &liar, Seq(20)), []);
        let later = [says(0, None, &[one(3, 9999, 7)]), says(1, None, &known), says(2, None, &[])];
        assert_eq!(decide(quorums(), &later, Seq(20)), known, "no later than a correct one says");
        let again = [says(0, Some(3), &known), says(1, Some(3), &known), says(2, None, &[])];
        assert_eq!(decide(quorums(), &again, Seq(600)), [one(3, 600, 2)]);
    }

    #[test]
    fn at_most_f_are_excluded_and_the_latest_stay() {
        let known = [one(1, 9, 0)];
        let both = [says(0, Some(3), &known), says(1, None, &[]), says(2, Some(3), &known)];
        assert_eq!(decide(quorums(), &both, Seq(20)), [one(3, 20, 0)]);
        assert_eq!(decide(quorums(), &both, Seq(9)), [one(3, 10, 0)], "also when nothing was done");
    }

    /// Swarm seed 1204252: two of seven were dead. As often as one was excluded, the other was let
    /// back, and never the third, which had been excluded before them.
    #[test]
    fn whoever_was_excluded_first_is_let_back_first_though_nothing_is_done() {
        let quorums = Quorums::pbft(7, 2).expect("n = 3f + 1");
        let mut excluded = Vec::from([one(3, 9, 0), one(4, 9, 0)]);
        for round in 0..3 {
            let leads = |replica: &u16| !excluded.iter().any(|one| one.replica.0 == *replica);
            let Some(dead) = [4, 5].into_iter().find(leads) else { return };
            assert!(round < 2, "{excluded:?}");
            let changes: Vec<_> =
                [0, 1, 2, 3, 6].map(|from| says(from, Some(dead), &excluded)).into();
            excluded = decide(quorums, &changes, Seq(9));
            assert_eq!(excluded.len(), 2);
        }
    }

    #[test]
    fn what_is_long_over_is_forgotten() {
        let all = [one(1, 0, 0), one(2, 0, 1)];
        assert_eq!(still_known(&all, Seq(512), 8), all);
        assert_eq!(still_known(&all, Seq(513), 8), all[1..]);
    }
}
