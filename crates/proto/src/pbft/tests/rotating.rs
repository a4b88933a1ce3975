//! Rotating leaders, and a faulty sender of NEW-VIEWs that gives replicas of one view different
//! rosters: who leads a number here may be another one there. And whom a replica blames, when a
//! faulty leader says to one what it does not say to others.

use super::grieve::{endorse, owed};
use super::views::{install, plan, stop, told, vote_in};
use super::*;
use crate::group::link::{FromCoordinator, Grievance, ToCoordinator};
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

/// One PREPARE may be of a correct replica that a faulty leader has shown its proposal alone, and
/// obliges all leaders to fill what is below it. Who is excluded leads nothing that it could so
/// oblige others by.
#[test]
fn who_is_excluded_obliges_nobody_alone() {
    let proposed = |from: u16| {
        let mut rig = in_a_disputed_view();
        let others = |seq: &u64| ![0, 3].contains(&rig.lane.roles().leader(Seq(*seq)).0);
        let seq = (9..=16).find(others).expect("somebody else leads one");
        rig.peer(from, Message::Prepare(vote_in(1, seq, &Proposal::Null))).expect("a prepare");
        !proposals(&rig.sent()).is_empty()
    };
    assert_eq!((proposed(2), proposed(3)), (false, true));
}

/// Replica `me` of seven in view 0, where replica i leads number i + 1.
fn of_seven(me: u16) -> Rig {
    let switches = Switches { leaders: Leaders::Rotating, ..Switches::default() };
    let mut rig = Rig::among((7, 2), me, 1, switches);
    rig.wait(Span::secs(50));
    rig
}

/// Whom it complains about in the next three T.
fn blamed(rig: &mut Rig) -> Vec<(Grievance, ReplicaId)> {
    let mut blamed = Vec::new();
    for _ in 0..60 {
        rig.wait(Span::millis(50));
        rig.feed(Input::Turn).expect("turns are never refused");
        blamed.extend(told(rig).into_iter().filter_map(|told| match told {
            ToCoordinator::Grievance { what, whom, .. } => Some((what, whom)),
            _ => None,
        }));
    }
    blamed.dedup();
    blamed
}

fn stalled_by(leader: u16) -> Vec<(Grievance, ReplicaId)> {
    Vec::from([(Grievance::Stalled, ReplicaId(leader))])
}

/// Nobody follows a proposal that is refused, so nobody else owes anything for it.
#[test]
fn a_proposal_that_is_refused_is_held_against_who_made_it() {
    let far = Proposal::Frames { time: AgreedTime(u64::MAX), entries: vec![] };
    let mut rig = of_seven(5);
    rig.peer(3, pre_prepare(4, &far)).expect_err("its time is not this one");
    assert_eq!(blamed(&mut rig), []);
    // Nor does it hide one that is refused of the next number's leader.
    rig.peer(0, pre_prepare(1, &far)).expect_err("its time is not this one");
    assert_eq!(blamed(&mut rig), stalled_by(0));
}

/// A faulty leader may show a proposal to one replica alone. As long as that one has not voted for
/// it, the others do not know that the numbers below it are wanted.
#[test]
fn a_leader_is_not_blamed_for_numbers_that_it_was_not_told_of() {
    let phantom = proposal(&[&frame(1, b"nobody has it")]);
    let mut rig = of_seven(5);
    rig.peer(1, pre_prepare(2, &phantom)).expect("it may be under way");
    assert_eq!(blamed(&mut rig), []);
    for from in [2, 3, 4] {
        rig.peer(from, Message::Prepare(vote(2, &phantom))).expect("a prepare");
    }
    assert_eq!(blamed(&mut rig), stalled_by(0), "a correct replica has told it");
    // Nor is there a doubt once its maker leads the next number itself.
    let mut rig = of_seven(5);
    rig.peer(1, pre_prepare(2, &phantom)).expect("it may be under way");
    rig.peer(0, pre_prepare(1, &Proposal::Null)).expect("a proposal");
    for from in [2, 3, 4] {
        rig.peer(from, Message::Prepare(vote(1, &Proposal::Null))).expect("a prepare");
    }
    for from in [0, 2, 3, 4] {
        rig.peer(from, Message::Commit(vote(1, &Proposal::Null))).expect("a commit");
    }
    assert_eq!(rig.lane.report().delivered, Seq(1));
    assert_eq!(blamed(&mut rig), stalled_by(1));
}

/// Also where no weak quorum votes: some of the correct ones may have left the view.
#[test]
fn a_leader_is_blamed_for_numbers_that_this_replica_has_told_it_of() {
    let mut rig = of_seven(5);
    rig.peer(1, pre_prepare(2, &Proposal::Null)).expect("a proposal");
    assert!(has_prepare(&rig.sent()), "to all");
    assert_eq!(blamed(&mut rig), stalled_by(0));
}

/// A faulty leader has shown its proposal to one correct replica, which blames in vain whoever does
/// not fill the numbers below.
#[test]
fn one_vote_for_a_number_is_enough_to_fill_those_below() {
    let mut rig = of_seven(0);
    rig.peer(5, Message::Prepare(vote(2, &Proposal::Null))).expect("a prepare");
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 0)]);
}

/// Replica `me` of seven in view 1, which excludes some.
fn excluding(me: u16, excluded: &[u16]) -> Rig {
    let switches = Switches { leaders: Leaders::Rotating, ..Switches::default() };
    let mut rig = Rig::among((7, 2), me, 1, switches);
    rig.wait(Span::secs(50));
    stop(&mut rig, 1);
    let mut plan = (*plan(1, 0, &[])).clone();
    let one = |replica: &u16| Exclusion { replica: ReplicaId(*replica), since: Seq(0), strikes: 0 };
    plan.excluded = excluded.iter().map(one).collect();
    install(&mut rig, &Arc::new(plan));
    rig
}

/// Nobody heeds its vote alone, so it must not hold against others what they have not heard of: a
/// liar could have a correct leader excluded by showing its proposal to this one.
#[test]
fn who_is_excluded_holds_nothing_against_others_on_its_own_vote() {
    let blames = |excluded: u16| {
        let mut rig = excluding(2, &[excluded]);
        let seq = led_by(&rig, 4);
        assert!(seq > 1, "somebody leads what is below");
        rig.peer(4, super::views::propose_in(1, seq, &Proposal::Null)).expect("a proposal");
        assert!(has_prepare(&rig.sent()));
        !blamed(&mut rig).is_empty()
    };
    assert_eq!((blames(2), blames(3)), (false, true));
}

/// Nor on its own vote and those of f liars, who tell nobody else: with them it would be enough to
/// end the view, and to exclude who is blamed.
#[test]
fn who_is_excluded_and_liars_are_no_weak_quorum_for_a_number() {
    let blames = |excluded: u16| {
        let mut rig = excluding(2, &[excluded]);
        let seq = led_by(&rig, 4);
        rig.peer(4, super::views::propose_in(1, seq, &Proposal::Null)).expect("a proposal");
        assert!(has_prepare(&rig.sent()));
        for from in [4, 5] {
            rig.peer(from, Message::Commit(vote_in(1, seq, &Proposal::Null))).expect("a commit");
        }
        !blamed(&mut rig).is_empty()
    };
    assert_eq!((blames(2), blames(3)), (false, true));
    // The vote of somebody else who is excluded tells the others as little.
    let blames = |excluded: u16| {
        let mut rig = excluding(2, &[excluded]);
        let seq = led_by(&rig, 4);
        rig.peer(3, Message::Prepare(vote_in(1, seq, &Proposal::Null))).expect("a prepare");
        for from in [4, 5] {
            rig.peer(from, Message::Commit(vote_in(1, seq, &Proposal::Null))).expect("a commit");
        }
        !blamed(&mut rig).is_empty()
    };
    assert_eq!((blames(3), blames(6)), (false, true));
}

/// As many as may be faulty are down, among them who leads the next number, and as many are
/// excluded: those who are left blame it, and who is excluded knows it from them.
#[test]
fn a_leader_that_stalls_is_blamed_though_those_who_are_excluded_do_not_count() {
    let down = excluding(2, &[2, 3]).lane.roles().leader(Seq(1)).0;
    let left: Vec<u16> = [0, 1, 4, 5, 6].into_iter().filter(|who| *who != down).take(3).collect();
    let (maker, voters) = (left[0], &left[1..]);
    let blames = |me: u16, proposed: bool| {
        let mut rig = excluding(me, &[2, 3]);
        let seq = led_by(&rig, maker);
        assert!(seq > 1, "somebody else leads what is below");
        if proposed {
            let proposes = super::views::propose_in(1, seq, &Proposal::Null);
            rig.peer(maker, proposes).expect("a proposal");
        }
        for from in voters.iter().chain(&[2, 3]).filter(|from| **from != me) {
            let prepare = Message::Prepare(vote_in(1, seq, &Proposal::Null));
            rig.peer(*from, prepare).expect("a prepare");
        }
        blamed(&mut rig)
    };
    for me in [2, 3, voters[0], voters[1]] {
        assert_eq!(blames(me, true), stalled_by(down), "replica {me}");
    }
    assert_eq!(blames(2, false), [], "two of those who count may be liars");
}

/// Nor is anybody slow with what only this replica was told to be wanted.
#[test]
fn numbers_are_owed_once_this_replica_has_told_the_others() {
    let late = |excluded: u16, here: bool| {
        let mut rig = excluding(2, &[excluded]);
        let seq = led_by(&rig, 4);
        assert!(seq > 1, "somebody else leads what is below");
        let of = |c| FrameId { client: ClientId(c), ..frame(1, b"op").id() };
        let its = |id: &FrameId| rig.lane.roles().dealt_to(id, Seq(seq)) == ReplicaId(4);
        let id = (1..100).map(of).find(its).expect("one of them");
        let entries = vec![BatchEntry { id, digest: Digest([7; 32]) }];
        let phantom = Proposal::Frames { time: WALL, entries };
        let p = if here { Proposal::Null } else { phantom };
        rig.peer(4, super::views::propose_in(1, seq, &p)).expect("a proposal");
        rig.wait(Span::millis(300));
        rig.lane.grievances.pace.lateness(rig.now.mono, Seq(1))
    };
    assert_eq!(late(3, false), Span(0), "it votes once it has the body");
    assert_eq!(late(2, true), Span(0), "nobody heeds its vote");
    assert_eq!(late(3, true), Span::millis(300));
}

/// A liar that asks for each next view needs one correct replica more to end this one, and those
/// who join must blame whoever that one blames, or nobody would ever be excluded.
#[test]
fn who_joins_a_view_change_blames_whoever_owes_a_frame_for_long() {
    let suspects = |waited: u64| {
        let mut rig = of_seven(5);
        let f = frame(1, b"op");
        rig.feed(Input::Request(f.clone())).expect("fresh");
        for step in 0..30 + waited / 10 {
            if step % 10 == 0 {
                for from in [0, 1, 2, 4] {
                    rig.peer(from, endorse(0, (entry(&f), 0))).expect("counted");
                    if step >= 30 {
                        rig.peer(from, owed((entry(&f), 0))).expect("counted");
                    }
                }
            }
            rig.wait(Span::millis(10));
            rig.sent();
        }
        let to = rig.lane.roles().dealt_to(&f.id(), Seq(1));
        let leave = FromCoordinator::Stop { view: View(1) };
        rig.feed(Input::Coordinator(leave)).expect("never refused");
        let told = told(&mut rig).into_iter().find_map(|told| match told {
            ToCoordinator::Suspects { whom, .. } => Some(whom),
            _ => None,
        });
        (told, to)
    };
    let (told, to) = suspects(600);
    assert_eq!(told, Some(to));
    assert_eq!(suspects(300).0, None, "it may be under way");
}
