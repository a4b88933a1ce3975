//! What VIEW-CHANGEs decide: one number at four replicas, one of them faulty, over three views.
//!
//! The correct replicas keep P and Q as the protocol says (`docs/protocol/view-change.md`); the
//! faulty one proposes, votes and reports whatever it likes. A step is a whole view: what its
//! leader proposes to whom, who of those who can prepares. Between views any quorum of
//! VIEW-CHANGEs may be heard, with any lie in it, and [`proto::group::decide::decide`] says what
//! the next view begins with. What must hold: no two values are committed, and what may have been
//! committed is chosen by every decision; the correct replicas alone always come to one.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{Digest, Incarnation, Quorums, ReplicaId, Seq, Signature, StableCheckpoint, View};
use proto::group::decide::Decision;
use proto::group::link::{Choice, SliceEntry};
use proto::group::msg::ViewChange;
use proto::group::roster::Roster;

use crate::explore::{Model, Next};

/// The function under test.
pub type Decide = fn(Quorums, View, &[Arc<ViewChange>]) -> Decision;

/// What may be proposed: two batches, and the null batch.
const VALUES: [u8; 3] = [1, 2, NULL];
const NULL: u8 = 3;

/// The model.
#[derive(Clone, Copy)]
pub struct Views {
    /// What decides.
    pub decide: Decide,
    /// Which replica is faulty.
    pub faulty: u16,
    /// How many views are gone through.
    pub views: u64,
}

/// What one correct replica has promised.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Promise {
    /// P: view and value.
    prepared: Option<(u64, u8)>,
    /// Q: each value with the latest view.
    pre_prepared: BTreeSet<(u8, u64)>,
}

/// Before a view begins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct State {
    view: u64,
    /// What the view's NEW-VIEW fixes; `None` where it fixes nothing, as in the first view.
    fixed: Option<u8>,
    /// The correct replicas, in order.
    promises: [Promise; 3],
    /// What may be committed somewhere.
    committed: Option<u8>,
}

/// A view.
#[derive(Clone, Debug)]
pub struct Step {
    /// What reaches each correct replica.
    pub proposed: [Option<u8>; 3],
    /// Who of them prepares it.
    pub prepares: [bool; 3],
    /// What the next view is told to begin with.
    pub next: Option<u8>,
}

impl Model for Views {
    type State = State;
    type Action = Step;

    fn initial(&self) -> State {
        State { view: 0, fixed: None, promises: Default::default(), committed: None }
    }

    fn next(&self, state: &State) -> Next<Views> {
        let mut all = vec![];
        if state.view == self.views {
            return Ok(all);
        }
        for proposed in self.proposals(state) {
            for prepares in self.preparations(&proposed) {
                let after = voted(state, &proposed, &prepares)?;
                for next in self.outcomes(&after)? {
                    let state = State { fixed: next, ..after.clone() };
                    all.push((Step { proposed, prepares, next }, state));
                }
            }
        }
        Ok(all)
    }
}

impl Views {
    fn quorums() -> Quorums {
        Quorums::pbft(4, 1).expect("a legal group")
    }

    /// The number of a correct replica.
    fn replica(&self, index: usize) -> u16 {
        let correct: Vec<u16> = (0..4).filter(|r| *r != self.faulty).collect();
        correct[index]
    }

    /// Every way in which a view's proposals can reach the correct replicas.
    fn proposals(&self, state: &State) -> Vec<[Option<u8>; 3]> {
        let leader = u16::try_from(state.view % 4).expect("is below 4");
        // Where nothing is fixed, a leader may propose what it likes; two values show it all.
        let values = state.fixed.map_or(vec![1, 2], |value| vec![value]);
        let choices: Vec<Option<u8>> = values.into_iter().map(Some).chain([None]).collect();
        let mut all = vec![];
        for a in &choices {
            for b in &choices {
                for c in &choices {
                    let proposed = [*a, *b, *c];
                    let distinct: BTreeSet<u8> = proposed.iter().flatten().copied().collect();
                    // A correct leader says one thing, and says it to itself.
                    let honest = match (0..3).find(|i| self.replica(*i) == leader) {
                        Some(own) => {
                            distinct.is_empty() || (distinct.len() == 1 && proposed[own].is_some())
                        }
                        None => true,
                    };
                    if honest {
                        all.push(proposed);
                    }
                }
            }
        }
        all
    }

    /// Every set of those who can prepare: the faulty replica votes for everything.
    fn preparations(&self, proposed: &[Option<u8>; 3]) -> Vec<[bool; 3]> {
        let votes = |value| 1 + proposed.iter().filter(|p| **p == value).count();
        let can = |i: usize| proposed[i].is_some() && votes(proposed[i]) >= 3;
        let masks = (0..8u8).map(|mask| [0, 1, 2].map(|i| mask >> i & 1 == 1));
        masks.filter(|mask| (0..3).all(|i| !mask[i] || can(i))).collect()
    }

    /// What the next view may be told to begin with: by every quorum, with every lie.
    fn outcomes(&self, state: &State) -> Result<BTreeSet<Option<u8>>, String> {
        let honest: Vec<Arc<ViewChange>> = (0..3).map(|i| self.honest(state, i)).collect();
        let alone = self.decided(state, &honest)?;
        let alone = alone.ok_or("the correct replicas alone do not come to a decision")?;
        let mut outcomes = BTreeSet::from([alone]);
        for lie in self.lies(state.view) {
            for skip in 0..4 {
                let mut heard = honest.clone();
                if skip < 3 {
                    heard.remove(skip);
                }
                heard.push(lie.clone());
                match self.decided(state, &heard)? {
                    Some(outcome) => drop(outcomes.insert(outcome)),
                    None if skip == 3 => return Err("a fourth word undoes a decision".into()),
                    None => {}
                }
            }
        }
        Ok(outcomes)
    }

    fn decided(
        &self,
        state: &State,
        heard: &[Arc<ViewChange>],
    ) -> Result<Option<Option<u8>>, String> {
        let Decision::Decided(plan) = (self.decide)(Views::quorums(), View(state.view), heard)
        else {
            return Ok(None);
        };
        let chosen = plan.choice(Seq(1)).map(|choice| match choice {
            Choice::Null => NULL,
            Choice::Digest(digest) => digest.0[0],
        });
        if state.committed.is_some() && chosen != state.committed {
            let committed = state.committed;
            return Err(format!("{committed:?} may be committed, and {chosen:?} is chosen"));
        }
        Ok(Some(chosen))
    }

    fn honest(&self, state: &State, index: usize) -> Arc<ViewChange> {
        let Promise { prepared, pre_prepared } = &state.promises[index];
        let q = pre_prepared.iter().map(|(value, view)| (*view, *value)).collect();
        change(self.replica(index), state.view, *prepared, q)
    }

    /// Everything that the faulty replica may report: any P of an earlier view, and in Q nothing,
    /// one value, or all.
    fn lies(&self, view: u64) -> Vec<Arc<ViewChange>> {
        let last = view - 1;
        let pairs = (0..view).flat_map(|v| VALUES.map(|value| Some((v, value))));
        let one = VALUES.map(|value| vec![(last, value)]);
        let all = VALUES.map(|value| (last, value)).to_vec();
        let q: Vec<_> = one.into_iter().chain([vec![], all]).collect();
        let with = |p| q.iter().map(move |q| change(self.faulty, view, p, q.clone()));
        pairs.chain([None]).flat_map(with).collect()
    }
}

/// The state after a view's votes.
fn voted(state: &State, proposed: &[Option<u8>; 3], prepares: &[bool; 3]) -> Result<State, String> {
    let mut after = state.clone();
    for (i, promise) in after.promises.iter_mut().enumerate() {
        let Some(value) = proposed[i] else { continue };
        promise.pre_prepared.retain(|(other, _)| *other != value);
        promise.pre_prepared.insert((value, state.view));
        if prepares[i] {
            promise.prepared = Some((state.view, value));
        }
    }
    for value in VALUES {
        // The faulty replica commits everything, too.
        let commits = (0..3).filter(|i| prepares[*i] && proposed[*i] == Some(value)).count() + 1;
        if commits >= 3 {
            if after.committed.is_some_and(|before| before != value) {
                return Err(format!("{:?} and {value} are both committed", after.committed));
            }
            after.committed = Some(value);
        }
    }
    after.view += 1;
    Ok(after)
}

fn digest(value: u8) -> Digest {
    Digest([value; 32])
}

fn change(
    replica: u16,
    view: u64,
    prepared: Option<(u64, u8)>,
    pre_prepared: Vec<(u64, u8)>,
) -> Arc<ViewChange> {
    let pair = |(view, value)| (View(view), digest(value));
    let entry = SliceEntry {
        seq: Seq(1),
        prepared: prepared.map(pair),
        pre_prepared: pre_prepared.into_iter().map(pair).collect(),
    };
    let empty = entry.prepared.is_none() && entry.pre_prepared.is_empty();
    Arc::new(ViewChange {
        replica: ReplicaId(replica),
        incarnation: Incarnation(1),
        view: View(view),
        stable: StableCheckpoint::default(),
        entries: if empty { vec![] } else { vec![entry] },
        roster: Roster::default(),
        signature: Signature([0; 64]),
    })
}
