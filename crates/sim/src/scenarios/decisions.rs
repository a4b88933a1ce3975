//! What views begin with: the choice over VIEW-CHANGEs, in histories of promises that are made
//! up number by number instead of being played out message by message.
//!
//! Nothing is simulated here but who promised what. So a second holds more conflicting promises
//! than a day of whole groups; and what comes of them is decided by the code that replicas run.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::batch::null_digest;
use base::{Digest, Incarnation, Quorums, ReplicaId, Seq, Signature, StableCheckpoint, View};
use proto::group::decide::{Decision, decide};
use proto::group::link::{Choice, PRE_PREPARED_MAX, Plan, SliceEntry};
use proto::group::msg::ViewChange;
use proto::group::roster::Roster;

use super::Scenario;
use crate::host::GROUP;
use crate::prng::{Prng, Ratio};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "choices_of_new_views_lose_nothing",
    claim: "Traps 1 and 2, P-04, P-06: whatever was committed in any view is what every later \
            view begins with, whichever VIEW-CHANGEs its leader takes and whatever f replicas \
            claim in theirs; and those of all correct replicas always decide.",
    ci_seeds: 40,
    full_seeds: 10_000,
    run: choices_of_new_views_lose_nothing,
}];

/// Histories per seed.
const HISTORIES: u64 = 200;
/// Views in a history, and numbers in each.
const VIEWS: u64 = 5;
const NUMBERS: u64 = 3;

fn choices_of_new_views_lose_nothing(seed: u64) {
    let mut prng = Prng::new(seed ^ 0xdec1de);
    for _ in 0..HISTORIES {
        let mut history = History::new(&mut prng);
        for view in 0..VIEWS {
            history.vote(View(view), &mut prng);
            history.change(View(view + 1), &mut prng);
        }
    }
}

/// What one correct replica has promised.
#[derive(Clone, Debug, Default)]
struct Promises {
    stable: Seq,
    prepared: BTreeMap<Seq, (View, Digest)>,
    pre_prepared: BTreeMap<Seq, Vec<(View, Digest)>>,
}

#[derive(Debug)]
struct History {
    quorums: Quorums,
    /// Which are faulty: all others are in `promises`.
    faulty: Vec<ReplicaId>,
    promises: BTreeMap<ReplicaId, Promises>,
    committed: BTreeMap<Seq, Digest>,
    plan: Option<Plan>,
    /// Every value that was ever proposed.
    known: Vec<Digest>,
}

impl History {
    fn new(prng: &mut Prng) -> History {
        let (n, f) = [(4, 1), (4, 1), (5, 1), (7, 2)][prng.below(4) as usize];
        let quorums = Quorums::pbft(n, f).expect("n >= 3f + 1");
        let first = prng.below(u64::from(n)) as u16;
        let faulty: Vec<ReplicaId> = (0..f).map(|i| ReplicaId((first + i) % n)).collect();
        let correct = quorums.replicas().filter(|replica| !faulty.contains(replica));
        let promises = correct.map(|replica| (replica, Promises::default())).collect();
        let (committed, known) = (BTreeMap::new(), vec![Digest([66; 32])]);
        History { quorums, faulty, promises, committed, plan: None, known }
    }

    /// What may happen in `view` before it is left.
    fn vote(&mut self, view: View, prng: &mut Prng) {
        let heard: Vec<ReplicaId> =
            self.promises.keys().copied().filter(|_| prng.chance(Ratio(4, 5))).collect();
        for seq in (1..=NUMBERS).map(Seq) {
            self.agree(view, seq, &heard, prng);
        }
        // Some come to a checkpoint beyond what is committed without a gap.
        let settled = (1..=NUMBERS).map(Seq).take_while(|seq| self.committed.contains_key(seq));
        let settled = settled.last().unwrap_or_default();
        for promises in self.promises.values_mut().filter(|_| prng.chance(Ratio(1, 8))) {
            promises.stable = settled.max(promises.stable);
            promises.prepared.retain(|seq, _| *seq > promises.stable);
            promises.pre_prepared.retain(|seq, _| *seq > promises.stable);
        }
    }

    fn agree(&mut self, view: View, seq: Seq, heard: &[ReplicaId], prng: &mut Prng) {
        let leader = view.leader(self.quorums.n());
        let fixed = match &self.plan {
            Some(plan) if seq <= plan.start.seq => return,
            Some(plan) => plan.choice(seq).map(|choice| digest_of(seq, choice)),
            None => None,
        };
        let lies = fixed.is_none() && self.faulty.contains(&leader);
        if fixed.is_none() && !lies && !heard.contains(&leader) {
            return;
        }
        let fresh = |side: u64| {
            let tag = [view.0 as u8, seq.0 as u8, side as u8, 1];
            Digest([tag; 8].concat().try_into().expect("32 bytes"))
        };
        let mut accepted: BTreeMap<Digest, Vec<ReplicaId>> = BTreeMap::new();
        for replica in heard.iter().filter(|replica| self.promises[*replica].stable < seq) {
            let side = if lies { prng.below(2) } else { 0 };
            let digest = fixed.unwrap_or(fresh(side));
            accepted.entry(digest).or_default().push(*replica);
        }
        for (digest, replicas) in accepted {
            self.known.push(digest);
            let mut prepared = self.faulty.len();
            for replica in &replicas {
                let promises = self.promises.get_mut(replica).expect("is correct");
                promises.pre_prepare(seq, view, digest);
                let quorum = replicas.len() + self.faulty.len() >= self.quorums.quorum();
                if quorum && prng.chance(Ratio(2, 3)) {
                    promises.prepared.insert(seq, (view, digest));
                    prepared += 1;
                }
            }
            if prepared >= self.quorums.quorum() {
                let before = *self.committed.entry(seq).or_insert(digest);
                assert_eq!(before, digest, "{view:?} commits another value at {seq:?}: {self:#?}");
            }
        }
    }

    /// The leader of `view` begins it.
    fn change(&mut self, view: View, prng: &mut Prng) {
        let mut changes: Vec<Arc<ViewChange>> = Vec::new();
        for (replica, promises) in &self.promises {
            changes.push(promises.change(*replica, view));
        }
        let all = decide(self.quorums, view, &changes);
        assert!(matches!(all, Decision::Decided(_)), "{all:?} of all correct ones: {self:#?}");
        for liar in self.faulty.clone() {
            changes.push(self.lie(liar, view, prng));
        }
        for _ in 0..8 {
            // In any order, as they come; a faulty leader has them come as it likes.
            for at in (1..changes.len()).rev() {
                changes.swap(at, prng.below(at as u64 + 1) as usize);
            }
            for count in 1..=changes.len() {
                if let Decision::Decided(plan) = decide(self.quorums, view, &changes[..count]) {
                    self.check(&plan, &changes[..count]);
                    self.plan = Some(plan);
                    break;
                }
            }
        }
    }

    fn check(&self, plan: &Plan, changes: &[Arc<ViewChange>]) {
        for (seq, digest) in self.committed.iter().filter(|(seq, _)| **seq > plan.start.seq) {
            let chosen = plan.choice(*seq).map(|choice| digest_of(*seq, choice));
            assert_eq!(
                chosen,
                Some(*digest),
                "{seq:?} is committed and lost in {:?}: {changes:#?}",
                plan.view
            );
        }
    }

    /// What a faulty replica may sign: anything of the right form, with certificates that exist.
    fn lie(&self, liar: ReplicaId, view: View, prng: &mut Prng) -> Arc<ViewChange> {
        let marks: Vec<Seq> = self.promises.values().map(|promises| promises.stable).collect();
        let mut lie = Promises::default();
        if prng.chance(Ratio(1, 3)) {
            lie.stable = marks[prng.below(marks.len() as u64) as usize];
        }
        for seq in (lie.stable.0 + 1..=NUMBERS).map(Seq) {
            let any = |prng: &mut Prng| {
                let digest = self.known[prng.below(self.known.len() as u64) as usize];
                (View(prng.below(view.0)), digest)
            };
            if prng.chance(Ratio(1, 2)) {
                let (in_view, digest) = any(prng);
                lie.prepared.insert(seq, (in_view, digest));
                lie.pre_prepare(seq, in_view, digest);
            }
            if prng.chance(Ratio(1, 2)) {
                let (in_view, digest) = any(prng);
                lie.pre_prepare(seq, in_view, digest);
            }
        }
        lie.change(liar, view)
    }
}

impl Promises {
    fn pre_prepare(&mut self, seq: Seq, view: View, digest: Digest) {
        let all = self.pre_prepared.entry(seq).or_default();
        all.retain(|(_, known)| *known != digest);
        all.push((view, digest));
        if all.len() > PRE_PREPARED_MAX {
            all.sort_unstable();
            all.remove(0);
        }
    }

    fn change(&self, replica: ReplicaId, view: View) -> Arc<ViewChange> {
        let entry = |(seq, said): (&Seq, &Vec<(View, Digest)>)| {
            let mut pre_prepared = said.clone();
            pre_prepared.sort_unstable_by_key(|(_, digest)| *digest);
            SliceEntry { seq: *seq, prepared: self.prepared.get(seq).copied(), pre_prepared }
        };
        Arc::new(ViewChange {
            replica,
            incarnation: Incarnation(1),
            view,
            stable: StableCheckpoint { seq: self.stable, ..StableCheckpoint::default() },
            entries: self.pre_prepared.iter().map(entry).collect(),
            roster: Roster::default(),
            signature: Signature([0; 64]),
        })
    }
}

fn digest_of(seq: Seq, choice: Choice) -> Digest {
    match choice {
        Choice::Null => null_digest(GROUP, seq),
        Choice::Digest(digest) => digest,
    }
}
