//! New-view selection: the production rules over everything in scope, and rules with a bug.

use std::sync::Arc;

use base::{Quorums, Seq, View};
use models::explore::{Explored, Violation, explore};
use models::views::{Decide, Views};
use proto::group::decide::{Decision, decide};
use proto::group::link::{Choice, Plan};
use proto::group::msg::ViewChange;

fn explored(decide: Decide, faulty: u16, views: u64) -> Result<Explored, Violation> {
    explore(&Views { decide, faulty, views }, 10_000_000)
}

#[test]
fn what_may_be_committed_is_chosen_by_every_quorum_over_three_views() {
    for faulty in 0..4 {
        let explored = explored(decide, faulty, 3).unwrap_or_else(|v| panic!("{v:?}"));
        println!("replica {faulty} is faulty: {explored}");
        assert!(explored.states > 1_000, "{explored}");
    }
}

fn prepared(changes: &[Arc<ViewChange>]) -> impl Iterator<Item = (View, base::Digest)> {
    changes.iter().flat_map(|c| &c.entries).filter_map(|entry| entry.prepared)
}

fn plan(view: View, changes: &[Arc<ViewChange>], choice: Option<Choice>) -> Decision {
    let choices = choice.into_iter().collect();
    Decision::Decided(Plan { view, start: changes[0].stable.clone(), choices, excluded: vec![] })
}

/// Bug: the first P that comes, not that of the highest view.
fn first_prepared(_: Quorums, view: View, changes: &[Arc<ViewChange>]) -> Decision {
    let first = prepared(changes).next();
    plan(view, changes, first.map(|(_, digest)| Choice::Digest(digest)))
}

/// Bug: whoever names the highest view is believed, without A2.
fn whoever_is_loudest(_: Quorums, view: View, changes: &[Arc<ViewChange>]) -> Decision {
    let highest = prepared(changes).max();
    plan(view, changes, highest.map(|(_, digest)| Choice::Digest(digest)))
}

/// Bug: null as soon as a weak quorum has nothing, where a quorum is needed.
fn null_too_early(quorums: Quorums, view: View, changes: &[Arc<ViewChange>]) -> Decision {
    let free = changes.iter().filter(|c| c.entries.iter().all(|e| e.prepared.is_none())).count();
    if free >= quorums.weak() && free < changes.len() && changes.len() >= quorums.quorum() {
        return plan(view, changes, Some(Choice::Null));
    }
    decide(quorums, view, changes)
}

/// Bug: VIEW-CHANGEs of a weak quorum are enough.
fn too_few(quorums: Quorums, view: View, changes: &[Arc<ViewChange>]) -> Decision {
    let fewer = Quorums::pbft(quorums.n() - 3, 0).expect("a legal group");
    decide(fewer, view, changes)
}

/// Bug: where it is not decided yet, nothing is chosen.
fn impatient(quorums: Quorums, view: View, changes: &[Arc<ViewChange>]) -> Decision {
    match decide(quorums, view, changes) {
        Decision::Undecided(Seq(1)) => plan(view, changes, None),
        decision => decision,
    }
}

#[test]
fn planted_bugs_are_found() {
    let bugs: [(&str, Decide); 5] = [
        ("first P", first_prepared),
        ("no A2", whoever_is_loudest),
        ("null too early", null_too_early),
        ("too few", too_few),
        ("impatient", impatient),
    ];
    for (name, bug) in bugs {
        let found = (0..4).find_map(|faulty| explored(bug, faulty, 3).err());
        let found = found.unwrap_or_else(|| panic!("{name} is not found"));
        println!("{name}: {} after {:?}", found.what, found.way);
    }
}
