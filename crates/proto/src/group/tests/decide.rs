//! What VIEW-CHANGEs decide: against a small model of the voting rules (catalogue P-04, P-06).

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::vec;

use base::{Quorums, ReplicaId, Seq, StableCheckpoint, View};

use super::{Dice, certificate, change, digest, entry, rules, sign_change};
use crate::group::decide::{Decision, decide};
use crate::group::link::Choice;
use crate::group::msg::ViewChange;

fn quorums() -> Quorums {
    Quorums::pbft(4, 1).unwrap()
}

fn choices(view: u64, changes: &[Arc<ViewChange>]) -> Option<Vec<Choice>> {
    match decide(quorums(), View(view), changes) {
        Decision::Decided(plan) => Some(plan.choices),
        Decision::Undecided(_) => None,
    }
}

#[test]
fn too_few_decide_nothing_and_nobodys_promises_decide_an_empty_view() {
    let empty: Vec<_> = (0..4).map(|r| change(r, 1, vec![])).collect();
    assert_eq!(choices(1, &[]), None);
    assert_eq!(choices(1, &empty[..2]), None);
    assert_eq!(choices(1, &empty[..3]), Some(vec![]));
    assert_eq!(choices(1, &empty), Some(vec![]));
}

/// P-06: A was prepared in view 0 at one replica, B was committed in view 1. Whoever is heard,
/// in whatever order, B survives.
#[test]
fn of_two_prepared_values_that_of_the_highest_view_wins_in_every_order() {
    let a = vec![entry(1, Some((0, 10)), &[(0, 10)])];
    let b = vec![entry(1, Some((1, 20)), &[(0, 10), (1, 20)])];
    let all = [change(0, 2, a), change(1, 2, b.clone()), change(2, 2, b.clone()), change(3, 2, b)];
    for skip in 0..4 {
        for turn in 0..3 {
            let mut some: Vec<_> = (0..4).filter(|i| *i != skip).map(|i| all[i].clone()).collect();
            some.rotate_left(turn);
            assert_eq!(choices(2, &some), Some(vec![Choice::Digest(digest(20))]));
            some.reverse();
            assert_eq!(choices(2, &some), Some(vec![Choice::Digest(digest(20))]));
        }
    }
}

#[test]
fn a_prepared_value_that_only_one_answers_for_waits_for_more() {
    // What a liar says alone, however high, is outvoted once a quorum of others is there.
    let lie = change(3, 9, vec![entry(1, Some((8, 66)), &[(8, 66)])]);
    let others: Vec<_> = (0..3).map(|r| change(r, 9, vec![])).collect();
    let two = [others[0].clone(), others[1].clone(), lie.clone()];
    assert_eq!(choices(9, &two), None);
    let all = [others, vec![lie]].concat();
    assert_eq!(choices(9, &all), Some(vec![Choice::Null]));
}

/// Where two values could be chosen, neither was committed; everybody takes the later one.
#[test]
fn of_two_possible_values_all_take_the_later() {
    let (a, b) = (10, 20);
    let all = [
        change(0, 2, vec![entry(1, Some((0, a)), &[(0, a)])]),
        change(1, 2, vec![entry(1, None, &[(0, a), (1, b)])]),
        change(2, 2, vec![entry(1, None, &[(0, a)])]),
        change(3, 2, vec![entry(1, Some((1, b)), &[(1, b)])]),
    ];
    assert_eq!(choices(2, &all), Some(vec![Choice::Digest(digest(b))]));
    assert_eq!(choices(2, &all[..3]), Some(vec![Choice::Digest(digest(a))]));
}

#[test]
fn gaps_become_null_and_what_is_below_the_start_is_left_alone() {
    let rules = rules();
    let p = |seq| entry(seq, Some((0, 5)), &[(0, 5)]);
    let low = [0u16, 1].map(|r| change(r, 1, vec![p(7), p(8), p(9), p(12)]));
    let mut high = (*change(2, 1, vec![p(9), p(12)])).clone();
    high.stable = certificate(&rules, 8, &[0, 1, 2]);
    let high = sign_change(&rules, high);
    let Decision::Decided(plan) =
        decide(quorums(), View(1), &[low[0].clone(), low[1].clone(), high.clone()])
    else {
        panic!("decided");
    };
    let d = Choice::Digest(digest(5));
    assert_eq!((plan.start.seq, plan.top()), (Seq(8), Seq(12)));
    assert_eq!(plan.choices, [d, Choice::Null, Choice::Null, d]);
    assert_eq!((plan.choice(Seq(8)), plan.choice(Seq(13))), (None, None));
}

/// One number at one correct replica: P, and the latest view in which each digest was
/// pre-prepared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
struct Slot {
    p: Option<(u64, u8)>,
    q: BTreeSet<(u8, u64)>,
}

/// One number at all correct replicas, and what may have been committed so far.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
struct State {
    slots: [Slot; 3],
    committed: Option<u8>,
}

const A: u8 = 1;
const B: u8 = 2;
const NULL: u8 = 3;

/// Which of the four replicas is faulty; the others are numbered 0 to 2 in order.
#[derive(Clone, Copy)]
struct Model {
    faulty: u16,
}

impl Model {
    fn correct(self, index: usize) -> u16 {
        (0..4).filter(|r| *r != self.faulty).nth(index).unwrap()
    }

    /// Every way in which the proposals of `view` can reach the correct replicas, when the
    /// NEW-VIEW fixes `fixed`, or nothing for this number.
    fn proposals(self, view: u64, fixed: Option<u8>) -> Vec<[Option<u8>; 3]> {
        let leader = u16::try_from(view % 4).unwrap();
        let values: Vec<u8> = fixed.map_or(vec![A, B], |d| vec![d]);
        let mut all = vec![];
        for code in 0..27usize {
            let got = [code % 3, code / 3 % 3, code / 9].map(|c| c.checked_sub(1));
            if got.iter().flatten().any(|c| *c >= values.len()) {
                continue;
            }
            let got = got.map(|c| c.map(|c| values[c]));
            let said: BTreeSet<u8> = got.iter().flatten().copied().collect();
            let led_by = (0..3).find(|i| self.correct(*i) == leader);
            // A correct leader says one thing, and says it to itself.
            let honest =
                led_by.is_none_or(|i| said.len() <= 1 && (said.is_empty() || got[i].is_some()));
            if honest {
                all.push(got);
            }
        }
        all
    }

    /// Every state after `view` in which `fixed` was fixed: any subset of those who can prepare
    /// does, for the faulty replica votes for everything and messages are late as they like.
    fn run(self, state: &State, view: u64, fixed: Option<u8>, out: &mut BTreeSet<State>) {
        for got in self.proposals(view, fixed) {
            let supports = |d: u8| got.iter().filter(|g| **g == Some(d)).count() + 1;
            for mask in 0..8u8 {
                let prepares = |i: usize| mask >> i & 1 == 1;
                let can = |i: usize| got[i].is_some_and(|d| supports(d) >= 3);
                if (0..3).any(|i| prepares(i) && !can(i)) {
                    continue;
                }
                let mut next = state.clone();
                for (i, d) in got.iter().enumerate() {
                    let Some(d) = *d else { continue };
                    next.slots[i].q.retain(|(digest, _)| *digest != d);
                    next.slots[i].q.insert((d, view));
                    if prepares(i) {
                        next.slots[i].p = Some((view, d));
                    }
                }
                let voted =
                    |d: u8| (0..3).filter(|i| prepares(*i) && got[*i] == Some(d)).count() + 1;
                if let Some(d) = [A, B, NULL].into_iter().find(|d| voted(*d) >= 3) {
                    assert!(next.committed.is_none_or(|c| c == d), "two values committed");
                    next.committed = Some(d);
                }
                out.insert(next);
            }
        }
    }

    /// Everything that the faulty replica may report: any P, and of Q nothing, everything, or
    /// one digest.
    fn lies(self, view: u64) -> Vec<Arc<ViewChange>> {
        let mut all = vec![];
        let pairs: Vec<(u64, u8)> = (0..view).flat_map(|v| [A, B, NULL].map(|d| (v, d))).collect();
        let qs = [vec![], vec![A, B, NULL], vec![A], vec![B], vec![NULL]];
        for p in pairs.iter().copied().map(Some).chain([None]) {
            for q in &qs {
                let q: Vec<(u64, u8)> = q.iter().map(|d| (view - 1, *d)).collect();
                let entries =
                    if p.is_none() && q.is_empty() { vec![] } else { vec![entry(1, p, &q)] };
                all.push(change(self.faulty, view, entries));
            }
        }
        all
    }

    fn honest(self, state: &State, index: usize, view: u64) -> Arc<ViewChange> {
        let slot = &state.slots[index];
        let q: Vec<(u64, u8)> = slot.q.iter().map(|(d, v)| (*v, *d)).collect();
        let entries = if q.is_empty() { vec![] } else { vec![entry(1, slot.p, &q)] };
        change(self.correct(index), view, entries)
    }

    /// Checks every quorum's decision about `state` on the way to `view`; what may be fixed.
    fn check(self, state: &State, view: u64, lies: &[Arc<ViewChange>]) -> BTreeSet<Option<u8>> {
        let honest: Vec<_> = (0..3).map(|i| self.honest(state, i, view)).collect();
        let all_correct = choices(view, &honest);
        assert!(all_correct.is_some(), "{state:?}: the correct ones alone must decide");
        let mut outcomes = BTreeSet::from([self.outcome(state, &all_correct.unwrap())]);
        for lie in lies {
            for skip in 0..4 {
                let mut some = honest.clone();
                if skip < 3 {
                    some.remove(skip);
                }
                some.push(lie.clone());
                if let Some(choices) = choices(view, &some) {
                    outcomes.insert(self.outcome(state, &choices));
                } else {
                    assert!(skip < 3, "{state:?}: more never make it undecided: {lie:?}");
                }
            }
        }
        outcomes
    }

    fn outcome(self, state: &State, choices: &[Choice]) -> Option<u8> {
        let chosen = choices.first().map(|choice| match choice {
            Choice::Null => NULL,
            Choice::Digest(d) => d.0[0],
        });
        if let Some(committed) = state.committed {
            assert_eq!(chosen, Some(committed), "{state:?}: a committed value was lost");
        }
        chosen
    }
}

/// P-04: two views in full, for every place of the faulty replica, and a third for a share of
/// the states that follow.
#[test]
fn whatever_was_committed_is_chosen_by_every_quorum() {
    for faulty in 0..4 {
        let model = Model { faulty };
        let mut states = BTreeSet::new();
        model.run(&State::default(), 0, None, &mut states);
        let (mut next, lies) = (BTreeSet::new(), model.lies(1));
        for state in &states {
            for fixed in model.check(state, 1, &lies) {
                model.run(state, 1, fixed, &mut next);
            }
        }
        assert!(next.iter().any(|s| s.committed == Some(NULL)), "null can be committed, too");
        let lies = model.lies(2);
        let mut third = BTreeSet::new();
        for (index, state) in next.iter().enumerate() {
            let outcomes = model.check(state, 2, &lies);
            if index % 10 == usize::from(faulty) {
                outcomes.iter().for_each(|fixed| model.run(state, 2, *fixed, &mut third));
            }
        }
        let lies = model.lies(3);
        third.iter().step_by(5).for_each(|state| drop(model.check(state, 3, &lies)));
        assert!(states.len() > 30 && next.len() > 500, "{} {}", states.len(), next.len());
    }
}

/// Five views along random paths: deeper than can be enumerated.
#[test]
fn long_histories_keep_what_was_committed() {
    let mut dice = Dice(1);
    let mut committed = 0;
    for round in 0..400 {
        let model = Model { faulty: u16::try_from(round % 4).unwrap() };
        let (mut state, mut fixed) = (State::default(), None);
        for view in 0..5 {
            let mut next = BTreeSet::new();
            model.run(&state, view, fixed, &mut next);
            let pick = usize::try_from(dice.below(next.len() as u64)).unwrap();
            state = next.into_iter().nth(pick).unwrap();
            let outcomes = model.check(&state, view + 1, &model.lies(view + 1));
            let pick = usize::try_from(dice.below(outcomes.len() as u64)).unwrap();
            fixed = outcomes.into_iter().nth(pick).unwrap();
        }
        committed += usize::from(state.committed.is_some());
    }
    assert!(committed > 20, "the histories must commit something: {committed}");
}

/// Two numbers at once: each is decided as if it were alone, the lower one as null where only
/// the higher one was seen.
#[test]
fn numbers_are_decided_independently() {
    let mut dice = Dice(7);
    for _ in 0..2000 {
        let slot = |dice: &mut Dice| {
            let mut q: Vec<(u64, u8)> = [A, B].into_iter().map(|d| (dice.below(2), d)).collect();
            q.retain(|_| dice.chance(60));
            let p = q.first().copied().filter(|_| dice.chance(60));
            (p, q)
        };
        let reports: Vec<_> = (0..4).map(|_| [slot(&mut dice), slot(&mut dice)]).collect();
        let report = |which: &[usize]| -> Vec<Arc<ViewChange>> {
            let one = |r: usize| {
                let entries = which
                    .iter()
                    .filter(|i| !reports[r][**i].1.is_empty())
                    .map(|i| entry(*i as u64 + 1, reports[r][*i].0, &reports[r][*i].1));
                change(u16::try_from(r).unwrap(), 2, entries.collect())
            };
            (0..4).map(one).collect()
        };
        let both = choices(2, &report(&[0, 1]));
        let (first, second) = (choices(2, &report(&[0])), choices(2, &report(&[1])));
        match (both, first, second) {
            (Some(both), Some(first), Some(second)) => {
                assert_eq!(both.get(1), second.get(1));
                let null = Choice::Null;
                assert_eq!(both.first().unwrap_or(&null), first.first().unwrap_or(&null));
            }
            (both, first, second) => {
                assert!(both.is_none() && (first.is_none() || second.is_none()));
            }
        }
    }
}

#[test]
fn the_highest_certificate_is_the_start_even_from_one() {
    let rules = rules();
    let mut changes: Vec<_> = (0..3).map(|r| change(r, 1, vec![])).collect();
    let mut ahead = (*changes[2]).clone();
    ahead.stable = certificate(&rules, 16, &[0, 1, 2]);
    changes[2] = sign_change(&rules, ahead);
    let Decision::Decided(plan) = decide(quorums(), View(1), &changes) else { panic!("decided") };
    assert_eq!((plan.start.seq, plan.choices.len()), (Seq(16), 0));
    assert_ne!(plan.start, StableCheckpoint::default());
    assert_eq!(changes[2].replica, ReplicaId(2));
}
