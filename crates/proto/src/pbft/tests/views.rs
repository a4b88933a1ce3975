//! Leaving views and beginning them, and what a lane says in each.

use super::*;
use crate::group::link::{Choice, FromCoordinator, Plan, SliceEntry, ToCoordinator};
use crate::outbox::Record;
use base::StableCheckpoint;
use base::batch::null_digest;

pub(super) fn stop(rig: &mut Rig, view: u64) -> Vec<SliceEntry> {
    let stop = FromCoordinator::Stop { view: View(view) };
    rig.feed(Input::Coordinator(stop)).expect("never refused");
    slice(rig).expect("a slice")
}

fn slice(rig: &mut Rig) -> Option<Vec<SliceEntry>> {
    told(rig).into_iter().find_map(|told| match told {
        ToCoordinator::Slice { entries, .. } => Some(entries),
        _ => None,
    })
}

pub(super) fn told(rig: &mut Rig) -> Vec<ToCoordinator> {
    let of = |effect| match effect {
        Effect::Coordinator(told) => Some(told),
        _ => None,
    };
    rig.out.drain().filter_map(of).collect()
}

pub(super) fn plan(view: u64, start: u64, choices: &[Choice]) -> Arc<Plan> {
    let start = StableCheckpoint { seq: Seq(start), ..StableCheckpoint::default() };
    Arc::new(Plan { view: View(view), start, choices: choices.to_vec(), excluded: Vec::new() })
}

pub(super) fn install(rig: &mut Rig, plan: &Arc<Plan>) {
    let install = FromCoordinator::Install(plan.clone());
    rig.feed(Input::Coordinator(install)).expect("never refused");
}

fn chosen(seq: u64, proposal: &Proposal) -> Choice {
    Choice::Digest(proposal.digest(GROUP, Seq(seq)))
}

pub(super) fn vote_in(view: u64, seq: u64, proposal: &Proposal) -> Vote {
    Vote { view: View(view), ..vote(seq, proposal) }
}

pub(super) fn propose_in(view: u64, seq: u64, proposal: &Proposal) -> Message {
    Message::PrePrepare { view: View(view), seq: Seq(seq), proposal: proposal.clone() }
}

fn prepares(sent: &[(Target, Message)]) -> Vec<Vote> {
    let of = |(_, message): &(Target, Message)| match message {
        Message::Prepare(vote) => Some(*vote),
        _ => None,
    };
    sent.iter().filter_map(of).collect()
}

fn commits(sent: &[(Target, Message)]) -> Vec<Vote> {
    let of = |(_, message): &(Target, Message)| match message {
        Message::Commit(vote) => Some(*vote),
        _ => None,
    };
    sent.iter().filter_map(of).collect()
}

/// Replica 2 as a backup of view 0 with `frames` from their client, all of number 1.
fn prepared(frames: &[&Arc<Frame>]) -> (Rig, Proposal) {
    let mut rig = Rig::new(2, 1);
    for f in frames {
        rig.feed(Input::Request((*f).clone())).expect("fresh");
    }
    let p = proposal(frames);
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    rig.peer(3, Message::Prepare(vote(1, &p))).expect("a prepare");
    assert!(has_commit(&rig.sent()));
    (rig, p)
}

#[test]
fn a_lane_that_was_stopped_votes_no_more_and_says_what_it_has_promised() {
    let f = frame(1, b"a");
    let (mut rig, p) = prepared(&[&f]);
    rig.peer(0, pre_prepare(2, &Proposal::Null)).expect("a proposal");
    rig.sent();
    let d = |seq, p: &Proposal| (View(0), p.digest(GROUP, Seq(seq)));
    let slice = stop(&mut rig, 1);
    let first = SliceEntry { seq: Seq(1), prepared: Some(d(1, &p)), pre_prepared: vec![d(1, &p)] };
    let null = d(2, &Proposal::Null);
    let second = SliceEntry { seq: Seq(2), prepared: None, pre_prepared: vec![null] };
    assert_eq!(slice, [first, second]);
    assert!(!rig.lane.voting());
    rig.peer(0, pre_prepare(3, &Proposal::Null)).expect("looked at, not voted for");
    for from in [1, 3] {
        rig.peer(from, Message::Prepare(vote(2, &Proposal::Null))).expect("counted");
    }
    let sent = rig.sent();
    assert!(!has_prepare(&sent) && !has_commit(&sent), "{sent:?}");
    // It learns all the same.
    for from in [0, 3] {
        rig.peer(from, Message::Commit(vote(1, &p))).expect("a commit");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
}

#[test]
fn a_stop_for_a_view_that_is_over_changes_nothing() {
    let mut rig = Rig::new(2, 1);
    stop(&mut rig, 3);
    install(&mut rig, &plan(2, 0, &[]));
    assert_eq!(rig.lane.view(), View(0), "it has asked for view 3");
    install(&mut rig, &plan(3, 0, &[]));
    assert!(rig.lane.voting());
    rig.feed(Input::Coordinator(FromCoordinator::Stop { view: View(3) })).expect("late");
    assert!(rig.lane.voting() && slice(&mut rig).is_none());
}

/// PBFT's case P-06: prepared one thing in one view, another in the next.
#[test]
fn p_and_q_speak_of_all_views_and_the_batches_stay() {
    let (a, b) = (frame(1, b"a"), frame(2, b"b"));
    let (mut rig, first) = prepared(&[&a]);
    rig.feed(Input::Request(b.clone())).expect("fresh");
    stop(&mut rig, 1);
    let second = proposal(&[&b]);
    install(&mut rig, &plan(1, 0, &[chosen(1, &second)]));
    let sent = rig.sent();
    let digest = second.digest(GROUP, Seq(1));
    assert!(sent.contains(&(Target::All, Message::FetchProposal { seq: Seq(1), digest })));
    assert!(!has_prepare(&sent));
    let wrong = Message::ProposalIs { seq: Seq(1), proposal: first.clone() };
    assert!(rig.peer(3, wrong).is_err());
    rig.peer(3, Message::ProposalIs { seq: Seq(1), proposal: second.clone() }).expect("it");
    assert_eq!(prepares(&rig.sent()), [vote_in(1, 1, &second)]);
    for from in [0, 3] {
        rig.peer(from, Message::Prepare(vote_in(1, 1, &second))).expect("a prepare");
    }
    assert_eq!(commits(&rig.sent()), [vote_in(1, 1, &second)]);
    let slice = stop(&mut rig, 2);
    assert_eq!(slice[0].prepared, Some((View(1), digest)));
    let mut q = vec![(View(0), first.digest(GROUP, Seq(1))), (View(1), digest)];
    q.sort_unstable_by_key(|(_, digest)| *digest);
    assert_eq!(slice[0].pre_prepared, q);
    // Both bodies are to be had from it.
    for p in [&first, &second] {
        let digest = p.digest(GROUP, Seq(1));
        rig.wait(Span::secs(1));
        rig.peer(3, Message::FetchProposal { seq: Seq(1), digest }).expect("a question");
        let known = Message::ProposalIs { seq: Seq(1), proposal: p.clone() };
        assert!(rig.sent().contains(&(Target::One(ReplicaId(3)), known)));
    }
}

#[test]
fn q_names_at_most_three_digests_and_forgets_the_oldest_view() {
    let mut rig = Rig::new(2, 1);
    let mut digests = Vec::new();
    for view in 0..5u64 {
        if view > 0 {
            stop(&mut rig, view);
            install(&mut rig, &plan(view, 0, &[]));
        }
        if view.is_multiple_of(4) && view > 0 {
            continue;
        }
        let leader = (view % 4) as u16;
        let p = Proposal::Frames { time: AgreedTime(WALL.0 + view), entries: vec![] };
        if leader != 2 {
            rig.peer(leader, propose_in(view, 1, &p)).expect("a proposal");
            digests.push((View(view), p.digest(GROUP, Seq(1))));
        }
        rig.sent();
    }
    let p = Proposal::Frames { time: AgreedTime(WALL.0 + 9), entries: vec![] };
    rig.peer(0, propose_in(4, 1, &p)).expect("a proposal");
    digests.push((View(4), p.digest(GROUP, Seq(1))));
    assert_eq!(digests.len(), 4);
    let slice = stop(&mut rig, 5);
    let mut expected = digests[1..].to_vec();
    expected.sort_unstable_by_key(|(_, digest)| *digest);
    assert_eq!(slice[0].pre_prepared, expected);
}

/// Design, trap 4: what a chosen null displaces is pending again, and ordered in the next view.
#[test]
fn a_request_displaced_by_a_null_is_vouched_for_again_and_ordered() {
    let f = frame(1, b"op");
    let mut backup = Rig::new(2, 1);
    backup.feed(Input::Request(f.clone())).expect("fresh");
    backup.peer(0, pre_prepare(1, &proposal(&[&f]))).expect("a proposal");
    backup.sent();
    stop(&mut backup, 1);
    install(&mut backup, &plan(1, 0, &[Choice::Null]));
    let sent = backup.sent();
    let vouch = (Target::One(ReplicaId(1)), vouch_for(vec![entry(&f)]));
    assert!(sent.contains(&vouch), "{sent:?}");
    assert_eq!(prepares(&sent), [vote_in(1, 1, &Proposal::Null)]);

    let mut leader = Rig::new(1, 1);
    leader.feed(Input::Request(f.clone())).expect("fresh");
    leader.peer(0, pre_prepare(1, &proposal(&[&f]))).expect("a proposal");
    leader.sent();
    stop(&mut leader, 1);
    // Others may have begun the view already.
    leader.peer(3, vouch_for(vec![entry(&f)])).expect("it is about to lead");
    install(&mut leader, &plan(1, 0, &[Choice::Null]));
    leader.peer(2, vouch_for(vec![entry(&f)])).expect("a vouch");
    let sent = leader.sent();
    assert_eq!(proposals(&sent), [(Seq(2), 1)], "above what the NEW-VIEW fixed");
    assert_eq!(prepares(&sent), [vote_in(1, 1, &Proposal::Null)], "like everybody else");
}

#[test]
fn who_has_delivered_helps_the_others_to_commit_in_the_new_view() {
    let f = frame(1, b"op");
    let (mut rig, p) = prepared(&[&f]);
    for from in [0, 3] {
        rig.peer(from, Message::Commit(vote(1, &p))).expect("a commit");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    stop(&mut rig, 1);
    install(&mut rig, &plan(1, 0, &[chosen(1, &p)]));
    assert_eq!(prepares(&rig.sent()), [vote_in(1, 1, &p)]);
    for from in [3, 0] {
        rig.peer(from, Message::Prepare(vote_in(1, 1, &p))).expect("a prepare");
    }
    assert_eq!(commits(&rig.sent()), [vote_in(1, 1, &p)]);
    for from in [1, 3] {
        rig.peer(from, Message::Commit(vote_in(1, 1, &p))).expect("a commit");
    }
    assert!(rig.delivered().is_empty(), "but delivers nothing twice");
    let late = rig.peer(0, Message::Commit(vote_in(1, 1, &p)));
    assert_eq!(late, Err(Reject::Stale("already committed")));
}

/// Swarm seed 31075: two of four were in a view whose NEW-VIEW had fixed a number, and prepared it
/// with a third that led the number and was not there. One of them lost its disk, and then one
/// was in P and alone in Q: no NEW-VIEW could choose that digest, nor null, ever again.
#[test]
fn what_a_new_view_has_fixed_is_prepared_by_a_quorum_of_those_who_have_a_record_of_it() {
    for me in [1, 2] {
        let mut rig = Rig::new(me, 1);
        install(&mut rig, &plan(1, 0, &[Choice::Null]));
        let vote = vote_in(1, 1, &Proposal::Null);
        assert_eq!(prepares(&rig.sent()), [vote], "also who leads");
        rig.peer(3, Message::Prepare(vote)).expect("a prepare");
        assert_eq!(commits(&rig.sent()), [], "two of them");
        rig.peer(3 - me, Message::Prepare(vote)).expect("a prepare, also of who leads");
        assert_eq!(commits(&rig.sent()), [vote]);
    }
}

#[test]
fn what_is_decided_is_voted_for_when_the_view_proposes_the_same() {
    let f = frame(1, b"op");
    let p = proposal(&[&f]);
    let mut rig = Rig::new(2, 1);
    rig.feed(Input::Request(f)).expect("fresh");
    for from in [1, 3] {
        rig.peer(from, Message::Decided { seq: Seq(1), proposal: p.clone() }).expect("news");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    let other = rig.peer(0, pre_prepare(1, &Proposal::Null));
    assert_eq!(other, Err(Reject::Stale("another batch is decided")));
    rig.peer(0, pre_prepare(1, &p)).expect("the same");
    assert!(has_prepare(&rig.sent()), "others may lack this vote");
    assert!(rig.delivered().is_empty());
}

/// A leader that told this replica one thing and a quorum another: it has prepared the one, and
/// must not prepare the other in the same view.
#[test]
fn a_decision_that_displaces_a_vote_makes_no_second_vote() {
    let mut rig = Rig::new(2, 1);
    let (mine, theirs) = (Proposal::Null, proposal(&[]));
    rig.peer(0, pre_prepare(1, &mine)).expect("a proposal");
    assert!(has_prepare(&rig.sent()));
    for from in [1, 3] {
        rig.peer(from, Message::Decided { seq: Seq(1), proposal: theirs.clone() }).expect("news");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    rig.peer(0, pre_prepare(1, &theirs)).expect("the leader has two faces");
    assert!(!has_prepare(&rig.sent()));
    let slice = stop(&mut rig, 1);
    assert_eq!(slice[0].pre_prepared, [(View(0), mine.digest(GROUP, Seq(1)))]);
    install(&mut rig, &plan(1, 0, &[chosen(1, &theirs)]));
    assert_eq!(prepares(&rig.sent()), [vote_in(1, 1, &theirs)], "another view, another vote");
}

#[test]
fn votes_of_a_view_that_is_not_here_yet_are_kept_for_it() {
    let mut rig = Rig::new(2, 1);
    let p = proposal(&[]);
    for from in [0, 3] {
        let _ = rig.peer(from, Message::Prepare(vote_in(1, 1, &p)));
        let _ = rig.peer(from, Message::Commit(vote_in(1, 1, &p)));
    }
    let _ = rig.peer(3, propose_in(1, 1, &Proposal::Null));
    let _ = rig.peer(1, propose_in(1, 1, &p));
    rig.sent();
    install(&mut rig, &plan(1, 0, &[]));
    assert_eq!(prepares(&rig.sent()), [vote_in(1, 1, &p)]);
    assert!(rig.lane.report().delivered == Seq(1));
}

#[test]
fn a_plan_beyond_the_high_mark_waits_for_the_low_mark() {
    let mut rig = executed_to_four(Digest([5; 32]));
    rig.sent();
    let choices = vec![Choice::Null; 18];
    install(&mut rig, &plan(1, 0, &choices));
    // Replica 1 leads view 1.
    rig.sent();
    assert!(rig.lane.log.get(Seq(16)).is_some_and(|slot| slot.chosen.is_some()));
    assert!(rig.lane.log.get(Seq(17)).is_none());
    for from in [0, 3] {
        rig.peer(from, signed(from, 4, Digest([5; 32]))).expect("genuine");
    }
    assert_eq!(rig.lane.report().stable, Seq(4));
    let digest = null_digest(GROUP, Seq(18));
    assert_eq!(rig.lane.log.get(Seq(18)).expect("now it is").chosen, Some(digest));
    assert!(rig.lane.log.get(Seq(19)).is_none(), "the leader has nothing to propose");
}

#[test]
fn a_view_that_begins_above_the_low_mark_is_not_voted_on_below() {
    let mut rig = Rig::new(2, 1);
    install(&mut rig, &plan(1, 4, &[Choice::Null]));
    let ahead = |t: &ToCoordinator| matches!(t, ToCoordinator::Ahead(c) if c.seq == Seq(4));
    assert!(told(&mut rig).iter().any(ahead));
    assert_eq!(
        rig.peer(1, propose_in(1, 3, &Proposal::Null)),
        Err(Reject::Stale("below the beginning of the view"))
    );
    rig.peer(1, propose_in(1, 6, &Proposal::Null)).expect("above");
    let sent = rig.sent();
    assert!(prepares(&sent).iter().all(|vote| vote.seq > Seq(4)));
    // What it lacks it learns.
    for seq in 1..=4 {
        for from in [0, 3] {
            let decided = Message::Decided { seq: Seq(seq), proposal: Proposal::Null };
            rig.peer(from, decided).expect("news");
        }
    }
    assert_eq!(rig.delivered(), [Seq(1), Seq(2), Seq(3), Seq(4)]);
}

#[test]
fn who_may_not_vote_learns_and_votes_above_only() {
    let mut rig = Rig::new(2, 1);
    let mute = |above| Input::Coordinator(FromCoordinator::Voting { above });
    rig.feed(mute(None)).expect("never refused");
    assert!(!rig.lane.voting());
    for seq in [1, 2] {
        rig.peer(0, pre_prepare(seq, &Proposal::Null)).expect("a proposal");
        for from in [1, 3] {
            rig.peer(from, Message::Prepare(vote(seq, &Proposal::Null))).expect("a prepare");
        }
    }
    let sent = rig.sent();
    assert!(!has_prepare(&sent) && !has_commit(&sent));
    assert!(stop(&mut rig, 1).is_empty(), "it has promised nothing");
}

#[test]
fn who_may_vote_again_votes_for_what_it_holds() {
    let mut rig = Rig::new(2, 1);
    let mute = |above| Input::Coordinator(FromCoordinator::Voting { above });
    rig.feed(mute(None)).expect("never refused");
    for seq in [1, 2] {
        rig.peer(0, pre_prepare(seq, &Proposal::Null)).expect("a proposal");
    }
    for from in [0, 1, 3] {
        rig.peer(from, Message::Commit(vote(1, &Proposal::Null))).expect("a commit");
    }
    assert_eq!(rig.delivered(), [Seq(1)], "a quorum of others is enough");
    rig.feed(mute(Some(Seq(1)))).expect("never refused");
    assert_eq!(prepares(&rig.sent()), [vote(2, &Proposal::Null)]);
}

#[test]
fn a_leader_fills_gently_and_only_what_it_may_vote_for() {
    let mut rig = Rig::new(0, 1);
    rig.feed(Input::Coordinator(FromCoordinator::Fill(Seq(9)))).expect("never refused");
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 0), (Seq(2), 0)], "two in flight");
    let progress = Progress { executed: Seq(1), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    assert_eq!(proposals(&rig.sent()), [(Seq(3), 0)]);
    let mute = FromCoordinator::Voting { above: None };
    rig.feed(Input::Coordinator(mute)).expect("never refused");
    let progress = Progress { executed: Seq(3), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    assert_eq!(proposals(&rig.sent()), []);
}

/// A replica that asks for numbers for ever, as in a storm, made the leader order four null
/// batches for each one with frames.
#[test]
fn a_leader_fills_nothing_for_others_while_clients_keep_it_busy() {
    let mut rig = Rig::new(0, 1);
    let mut filled = 0;
    rig.feed(Input::Coordinator(FromCoordinator::Fill(Seq(16)))).expect("never refused");
    for id in 1..=3 {
        let f = frame(id, b"op");
        rig.feed(Input::Request(f.clone())).expect("fresh");
        for from in [1, 2] {
            rig.peer(from, vouch_for(vec![entry(&f)])).expect("news");
        }
        let proposed = proposals(&rig.sent());
        assert_eq!(proposed, [(Seq(id), 1)], "nothing but the frame");
        let progress = Progress { executed: Seq(id), ..Progress::default() };
        rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
        filled += proposals(&rig.sent()).len();
        rig.wait(Span::micros(400));
    }
    assert_eq!(filled, 0);
    // Once they want nothing it goes on by itself.
    let due = rig.lane.deadline().expect("it is awaited");
    rig.now.mono = due;
    assert_eq!(proposals(&rig.sent()), [(Seq(4), 0), (Seq(5), 0)]);
    assert!(due <= Time(1).after(Span::millis(2)), "soon: {due:?}");
    assert!(rig.lane.deadline().is_none_or(|at| at > rig.now.mono), "and it does not spin");
}

#[test]
fn a_decision_is_recorded_and_told_once_it_is_durable() {
    let mut rig = Rig::new(2, 1);
    for from in [1, 3] {
        let decided = Message::Decided { seq: Seq(1), proposal: Proposal::Null };
        rig.peer(from, decided).expect("news");
    }
    let digest = null_digest(GROUP, Seq(1));
    let batch = Some((Proposal::Null, Arc::new(base::Batch::Null)));
    let record = Record::Committed { seq: Seq(1), digest, batch };
    let effects: Vec<Effect> = rig.out.drain().collect();
    let at = |is: &dyn Fn(&Effect) -> bool| effects.iter().position(is).expect("it is there");
    let recorded = at(&|e| matches!(e, Effect::Persist(r) if *r == record));
    assert!(recorded < at(&|e| matches!(e, Effect::Stage(ToStage::Deliver { .. }))));
    rig.wait(Span::secs(1));
    let status = Message::Status { view: View(7), stable: Seq(0), delivered: Seq(0) };
    rig.peer(3, status).expect("a question from another view");
    let promised = |effect: Effect| match effect {
        Effect::Send { when, message: Message::Decided { .. }, .. } => Some(when),
        _ => None,
    };
    let when: Vec<_> = rig.out.drain().filter_map(promised).collect();
    assert_eq!(when, [crate::outbox::When::Durable]);
}
