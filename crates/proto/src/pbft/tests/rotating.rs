//! Rotating leaders, and a faulty sender of NEW-VIEWs that gives replicas of one view different
//! rosters: who leads a number here may be another one there.

use super::views::{install, plan, stop, vote_in};
use super::*;
use crate::group::roster::Exclusion;
use crate::pbft::Leaders;

/// Replica 0 of seven, in a view of which not all have the same roster.
fn in_a_disputed_view() -> Rig {
    let switches = Switches { leaders: Leaders::Rotating, ..Switches::default() };
    let mut rig = Rig::among((7, 2), 0, 1, switches);
    stop(&mut rig, 1);
    let mut plan = (*plan(1, 0, &[])).clone();
    plan.excluded = vec![Exclusion { replica: ReplicaId(2), since: Seq(0), strikes: 0 }];
    install(&mut rig, &Arc::new(plan));
    rig.sent();
    rig
}

/// A number that `leader` leads by the roster of `rig`.
fn led_by(rig: &Rig, leader: u16) -> u64 {
    let leads = |seq: &u64| rig.lane.roles().leader(Seq(*seq)) == ReplicaId(leader);
    (1..=16).find(leads).expect("it leads some")
}

/// Replicas 4, 1 and 2 vote for `p`, and nothing comes from the leader in time.
fn overhear(rig: &mut Rig, seq: u64, p: &Proposal) {
    for from in [4, 1, 2] {
        rig.peer(from, Message::Prepare(vote_in(1, seq, p))).expect("a prepare");
    }
    rig.wait(Span::millis(1));
}

/// Two of three that vote may be faulty, and by the roster of others the leader is no leader, and
/// has proposed nothing: prepared on its account, the number could be one that the records of two
/// correct replicas alone speak for, and no later NEW-VIEW could choose anything for it.
#[test]
fn a_leader_that_was_not_heard_is_no_voter() {
    let mut rig = in_a_disputed_view();
    let tick = proposal(&[]);
    let seq = led_by(&rig, 3);
    overhear(&mut rig, seq, &tick);
    let asked = |m: &(Target, Message)| matches!(m.1, Message::FetchProposal { .. });
    assert!(rig.sent().iter().any(asked), "a weak quorum has accepted something");
    rig.peer(4, Message::ProposalIs { seq: Seq(seq), proposal: tick.clone() }).expect("wanted");
    let sent = rig.sent();
    assert!(has_prepare(&sent) && !has_commit(&sent), "four have voted, of five: {sent:?}");
    // With the word of its own the leader is the fifth.
    let proposes = super::views::propose_in(1, seq, &tick);
    rig.peer(3, proposes.clone()).expect("what it has voted for");
    assert!(has_commit(&rig.sent()));
    rig.peer(3, proposes).expect_err("again");
}

/// So is a fifth backup.
#[test]
fn a_quorum_of_backups_needs_no_leader() {
    let mut rig = in_a_disputed_view();
    let tick = proposal(&[]);
    let seq = led_by(&rig, 3);
    overhear(&mut rig, seq, &tick);
    rig.sent();
    rig.peer(4, Message::ProposalIs { seq: Seq(seq), proposal: tick.clone() }).expect("wanted");
    rig.peer(5, Message::Prepare(vote_in(1, seq, &tick))).expect("a prepare");
    assert!(has_commit(&rig.sent()));
}

/// By the roster of another NEW-VIEW of this view it is right: no operator is to be told that a
/// correct replica misbehaves.
#[test]
fn who_acts_by_another_roster_is_not_accused() {
    let mut rig = in_a_disputed_view();
    let tick = proposal(&[]);
    let seq = led_by(&rig, 3);
    let stale = |result| assert!(matches!(result, Err(Reject::Stale(_))), "{result:?}");
    stale(rig.peer(3, Message::Prepare(vote_in(1, seq, &tick))));
    stale(rig.peer(5, super::views::propose_in(1, seq, &tick)));
    // Nor is who leads by both, while somebody else's proposal is voted for.
    overhear(&mut rig, seq, &tick);
    rig.sent();
    rig.peer(4, Message::ProposalIs { seq: Seq(seq), proposal: tick }).expect("wanted");
    stale(rig.peer(3, super::views::propose_in(1, seq, &Proposal::Null)));
}
