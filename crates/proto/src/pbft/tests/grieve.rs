//! When a lane wants another leader, and when nothing can make it want one.

use super::views::{install, plan, propose_in, stop, told, vote_in};
use super::*;
use crate::group::link::{Grievance, ToCoordinator};

/// Steps the time for as long as it takes, as a driver would: turns when the lane wants them,
/// `each` time with the messages that it sends.
fn pass(rig: &mut Rig, span: Span, mut each: impl FnMut(&mut Rig)) -> Vec<Grievance> {
    let end = rig.now.mono.after(span);
    let mut grievances = Vec::new();
    while rig.now.mono < end {
        let next = rig.lane.deadline().unwrap_or(end).max(rig.now.mono.after(Span::millis(1)));
        let next = next.min(end).min(rig.now.mono.after(Span::millis(20)));
        rig.wait(next.since(rig.now.mono));
        rig.feed(Input::Turn).expect("never refused");
        each(rig);
        grievances.extend(grieved(rig));
    }
    grievances
}

fn grieved(rig: &mut Rig) -> Vec<Grievance> {
    let of = |told| match told {
        ToCoordinator::Grievance { what, .. } => Some(what),
        _ => None,
    };
    told(rig).into_iter().filter_map(of).collect()
}

/// An ENDORSE of view `view` for a frame, by somebody who has executed so far.
pub(super) fn endorse(view: u64, (entry, executed): (BatchEntry, u64)) -> Message {
    Message::Endorse { view: View(view), entries: vec![(entry, Seq(executed))] }
}

/// Somebody says that the leader of view 0 owes a frame, who has executed so far.
pub(super) fn owed((entry, executed): (BatchEntry, u64)) -> Message {
    Message::Owed { view: View(0), entries: vec![(entry, Seq(executed))] }
}

/// Two of four say so, which obliges a leader.
pub(super) fn is_owed(rig: &mut Rig, held: (BatchEntry, u64)) {
    for from in [1, 2] {
        rig.peer(from, owed(held)).expect("a debt");
    }
}

fn status(view: u64, delivered: u64) -> Message {
    Message::Status { view: View(view), stable: Seq(0), delivered: Seq(delivered) }
}

/// Replica 2 with a proposal of the leader that nobody else votes for.
fn stalled() -> Rig {
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    rig.peer(0, pre_prepare(1, &Proposal::Null)).expect("a proposal");
    rig
}

#[test]
fn a_proposal_that_is_not_decided_for_t_is_a_stall() {
    let mut rig = stalled();
    assert_eq!(pass(&mut rig, Span::millis(900), |_| ()), []);
    let grievances = pass(&mut rig, Span::millis(400), |_| ());
    assert_eq!(grievances, [Grievance::Stalled], "once per T");
    stop(&mut rig, 1);
    assert_eq!(pass(&mut rig, Span::secs(9), |_| ()), [], "not while between views");
    install(&mut rig, &plan(1, 0, &[]));
    assert_eq!(pass(&mut rig, Span::secs(9), |_| ()), [], "the new leader owes nothing yet");
    rig.peer(1, propose_in(1, 1, &Proposal::Null)).expect("a proposal");
    assert!(pass(&mut rig, Span::secs(2), |_| ()).contains(&Grievance::Stalled));
}

/// The others may know nothing of the proposal, and then its frames are all that they can hold
/// against a leader that has ended since.
#[test]
fn frames_of_a_proposal_that_is_not_decided_are_endorsed_too() {
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    let frame = frame(1, b"op");
    rig.feed(Input::Request(frame.clone())).expect("within the quota");
    rig.peer(0, pre_prepare(1, &proposal(&[&frame]))).expect("a proposal");
    rig.sent();
    let mut endorsed = Vec::new();
    rig.wait(Span::millis(600));
    for (to, message) in rig.sent() {
        if let (Target::All, Message::Endorse { entries, .. }) = (to, message) {
            endorsed.extend(entries.into_iter().map(|(entry, _)| entry));
        }
    }
    assert_eq!(endorsed, [entry(&frame)]);
    // It knows itself that the leader has done its part with the frame: this is a stall.
    for from in [1, 3] {
        rig.peer(from, endorse(0, (entry(&frame), 0))).expect("endorsements");
    }
    assert!(pass(&mut rig, Span::secs(2), |_| ()).iter().all(|one| *one == Grievance::Stalled));
}

/// A leader whose clock was a year ahead for a moment: its proposals are refused, it cannot take
/// them back, and with f replicas down nobody can endorse what waits behind them but too few.
#[test]
fn a_proposal_that_is_refused_for_its_time_is_owed_all_the_same() {
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    let proposal = Proposal::Frames { time: AgreedTime(u64::MAX), entries: vec![] };
    rig.peer(0, pre_prepare(1, &proposal)).expect_err("its time is not this one");
    assert_eq!(pass(&mut rig, Span::millis(900), |_| ()), []);
    assert_eq!(pass(&mut rig, Span::millis(400), |_| ()), [Grievance::Stalled]);
    stop(&mut rig, 1);
    install(&mut rig, &plan(1, 0, &[]));
    assert_eq!(pass(&mut rig, Span::secs(9), |_| ()), [], "the new leader owes nothing");
}

/// Story: replica 3 has asked for another view with replica 1, which has ended since. It votes
/// here no more, the leader gets no quorum of vouches and so owes nothing, and two endorsements are
/// too few: replica 2 must see that this view has no quorum left.
#[test]
fn a_view_without_a_quorum_is_given_up_when_frames_wait() {
    let statuses = |votes_in: [(u16, u64); 3]| {
        move |rig: &mut Rig| {
            for (from, view) in votes_in {
                rig.peer(from, status(view, 0)).ok();
            }
        }
    };
    let after = |votes_in, waits: bool| {
        let mut rig = Rig::new(2, 1);
        rig.wait(Span::secs(50));
        if waits {
            rig.feed(Input::Request(frame(1, b"op"))).expect("a frame");
        }
        pass(&mut rig, Span::secs(40), statuses(votes_in))
    };
    assert_eq!(after([(0, 0), (1, 0), (3, 1)], true), [], "three are a quorum");
    assert_eq!(after([(0, 0), (0, 0), (3, 1)], false), [], "nothing waits");
    assert!(after([(0, 0), (0, 0), (3, 1)], true).contains(&Grievance::Stalled));
}

/// Story: replica 2 has asked for another view, and those who would have followed it have lost
/// power before they did. The leader proposes nothing and says that it votes in the view, so that
/// the others see a quorum there, and two endorsements are too few.
#[test]
fn who_has_left_a_view_alone_endorses_for_it_and_the_others_count_that() {
    let f = frame(1, b"op");
    let mut left = Rig::new(2, 1);
    left.wait(Span::secs(50));
    stop(&mut left, 1);
    left.feed(Input::Request(f.clone())).expect("fresh");
    let (mut said, mut vouched) = (Vec::new(), Vec::new());
    let collect = |rig: &mut Rig| {
        for effect in rig.out.effects() {
            match effect {
                Effect::Send { to, message: message @ Message::Endorse { .. }, .. } => {
                    said.push((*to, message.clone()));
                }
                Effect::Send {
                    to, message: Message::Vouch { executed: Seq(0), entries }, ..
                } => {
                    vouched.push((*to, entries.clone()));
                }
                _ => {}
            }
        }
    };
    assert_eq!(pass(&mut left, Span::secs(30), collect), [], "it has said whom it wants");
    let endorsed = (Target::All, endorse(0, (entry(&f), 0)));
    assert!(said.contains(&endorsed), "{said:?}");
    assert!((5..=60).contains(&said.len()), "again and again, but not for ever more often");
    assert!(said.iter().all(|one| *one == endorsed), "for the view that it has installed");
    // A correct leader needs a quorum of vouches, and gets no quorum of endorsements.
    assert!(vouched.contains(&(Target::One(ReplicaId(0)), vec![entry(&f)])), "{vouched:?}");

    let mut stays = Rig::new(1, 1);
    stays.wait(Span::secs(50));
    stays.feed(Input::Request(f.clone())).expect("fresh");
    let liar = |rig: &mut Rig| {
        for (from, view) in [(0, 0), (2, 1), (3, 0)] {
            rig.peer(from, status(view, 0)).ok();
        }
    };
    stays.peer(3, endorse(0, (entry(&f), 0))).expect("the other one that stays");
    assert_eq!(pass(&mut stays, Span::secs(30), liar), [], "three seem to be there");
    let mut hears = |rig: &mut Rig| {
        liar(rig);
        for from in [2, 3] {
            rig.peer(from, endorse(0, (entry(&f), 0))).expect("an ENDORSE is no vote");
            rig.peer(from, owed((entry(&f), 0))).expect("nor is an OWED");
        }
    };
    assert!(pass(&mut stays, Span::secs(2), &mut hears).contains(&Grievance::Starved));
    // Nor does it keep that to itself.
    for from in [1, 3] {
        left.peer(from, endorse(0, (entry(&f), 0))).expect("those who stay");
    }
    let mut said = Vec::new();
    pass(&mut left, Span::millis(300), |rig| {
        said.extend(rig.out.effects().iter().filter_map(|effect| match effect {
            Effect::Send { to, message, .. } => Some((*to, message.clone())),
            _ => None,
        }));
    });
    assert!(said.contains(&(Target::All, owed((entry(&f), 0)))), "{said:?}");

    // Once it is in a later view, it endorses for that one.
    install(&mut left, &plan(1, 0, &[]));
    let mut views = Vec::new();
    pass(&mut left, Span::secs(2), |rig| {
        for effect in rig.out.effects() {
            if let Effect::Send { message: Message::Endorse { view, .. }, .. } = effect {
                views.push(view.0);
            }
        }
    });
    assert!(!views.is_empty() && views.iter().all(|view| *view == 1), "{views:?}");
}

#[test]
fn progress_keeps_the_peace() {
    let mut rig = Rig::new(2, 1);
    for seq in 1..=8u64 {
        rig.peer(0, pre_prepare(seq, &Proposal::Null)).expect("a proposal");
        assert_eq!(pass(&mut rig, Span::millis(700), |_| ()), []);
        rig.peer(3, Message::Prepare(vote(seq, &Proposal::Null))).expect("a prepare");
        for from in [0, 3] {
            rig.peer(from, Message::Commit(vote(seq, &Proposal::Null))).expect("a commit");
        }
    }
    assert_eq!(rig.lane.report().delivered, Seq(8));
}

/// Swarm seed 3914736. A frame that nobody orders has the timers looked at once in 4T. Between two
/// looks a busy time ends and another one begins: what was owed in the first is owed no more.
#[test]
fn who_was_busy_before_a_pause_owes_nothing_for_it() {
    let mut rig = Rig::new(2, 1);
    rig.feed(Input::Request(frame(1, b"op"))).expect("within the quota");
    let there = |rig: &mut Rig| {
        for from in [0, 1] {
            let _ = rig.peer(from, status(0, 0));
        }
    };
    assert_eq!(pass(&mut rig, Span::secs(20), there), []);
    let decide = |rig: &mut Rig, seq| {
        rig.peer(3, Message::Prepare(vote(seq, &Proposal::Null))).expect("a prepare");
        for from in [0, 3] {
            rig.peer(from, Message::Commit(vote(seq, &Proposal::Null))).expect("a commit");
        }
    };
    rig.peer(0, pre_prepare(1, &Proposal::Null)).expect("a proposal");
    for seq in 2..=4u64 {
        assert_eq!(pass(&mut rig, Span::millis(400), |_| ()), []);
        rig.peer(0, pre_prepare(seq, &Proposal::Null)).expect("a proposal");
        decide(&mut rig, seq - 1);
    }
    decide(&mut rig, 4);
    rig.feed(Input::Turn).expect("never refused");
    rig.wait(Span::millis(1500));
    rig.peer(0, pre_prepare(5, &Proposal::Null)).expect("a proposal");
    assert_eq!(pass(&mut rig, Span::millis(900), |_| ()), []);
    assert_eq!(pass(&mut rig, Span::millis(400), |_| ()), [Grievance::Stalled]);
}

#[test]
fn one_liar_and_an_idle_group_make_no_stall() {
    let mut rig = Rig::new(2, 1);
    let lie = Vote { view: View(0), seq: Seq(3), digest: Digest([1; 32]) };
    rig.peer(3, Message::Prepare(lie)).expect("counted");
    rig.peer(3, Message::Commit(lie)).expect("counted");
    rig.peer(3, status(0, 9)).expect("a lie");
    assert_eq!(pass(&mut rig, Span::secs(20), |_| ()), []);
}

#[test]
fn what_a_weak_quorum_speaks_of_and_what_the_stage_waits_for_is_owed() {
    let mut rig = Rig::new(2, 1);
    for from in [1, 3] {
        rig.peer(from, Message::Prepare(vote(1, &Proposal::Null))).expect("early");
    }
    assert!(pass(&mut rig, Span::secs(2), |_| ()).contains(&Grievance::Stalled));
    let mut rig = Rig::new(2, 2);
    let blocked = FromStage::Blocked { missing: Seq(1), highest: Seq(2) };
    rig.feed(Input::Stage(blocked)).expect("news");
    assert!(pass(&mut rig, Span::secs(2), |_| ()).contains(&Grievance::Stalled));
}

#[test]
fn a_replica_that_lags_blames_nobody_unless_it_gets_no_help_for_long() {
    let mut rig = stalled();
    for from in [1, 3] {
        rig.peer(from, status(0, 5)).ok();
    }
    assert_eq!(pass(&mut rig, Span::millis(3900), |_| ()), []);
    // One of them may be the leader's accomplice.
    assert!(pass(&mut rig, Span::secs(2), |_| ()).contains(&Grievance::Stalled));
    // Whoever waits for a checkpoint has a proof that it lags.
    let mut rig = stalled();
    let certified = base::StableCheckpoint { seq: Seq(4), ..Default::default() };
    let news = crate::group::link::FromCoordinator::Certified(certified);
    rig.feed(Input::Coordinator(news)).expect("never refused");
    assert_eq!(pass(&mut rig, Span::secs(30), |_| ()), []);
}

/// Story: one replica has left the view alone and has delivered what is missing here; a liar says
/// that it has, too. Neither its word nor its state can be believed, and this replica waited for
/// the second.
#[test]
fn who_waits_for_what_only_liars_and_too_few_have_blames_the_leader_in_the_end() {
    let blames = |stable: u64| {
        let mut rig = stalled();
        let mut behind = false;
        let say = |rig: &mut Rig| {
            for (from, view) in [(1, 0), (3, 1)] {
                let (stable, delivered) = (Seq(stable), Seq(stable + 5));
                let _ = rig.peer(from, Message::Status { view: View(view), stable, delivered });
            }
            let lost = |effect: &Effect| matches!(effect, Effect::Fact(Fact::LeftBehind { .. }));
            behind |= rig.out.effects().iter().any(lost);
        };
        let felt = pass(&mut rig, Span::secs(30), say);
        assert!(behind, "it asks for a state");
        felt.contains(&Grievance::Stalled)
    };
    assert!(blames(0));
    assert!(!blames(4), "one of them is correct and can prove that the group is further");
}

/// Swarm seed 1709758. One replica had asked for another view, the leader blames nobody, and the
/// third waited for a state that no two were in: had it blamed nobody either, nobody would ever
/// have been served again.
#[test]
fn who_waits_for_a_state_blames_a_view_that_has_lost_its_quorum() {
    let blames = |present: &[u16]| {
        let mut rig = Rig::new(2, 1);
        rig.wait(Span::secs(50));
        let certified = base::StableCheckpoint { seq: Seq(40), ..Default::default() };
        let float = crate::group::link::FromCoordinator::Float(certified);
        rig.feed(Input::Coordinator(float)).expect("never refused");
        rig.feed(Input::Request(frame(1, b"waits"))).expect("fresh");
        let says = |rig: &mut Rig| {
            for from in present {
                let _ = rig.peer(*from, status(0, 0));
            }
            let _ = rig.peer(3, status(1, 0));
        };
        pass(&mut rig, Span::secs(60), says)
    };
    assert!(blames(&[0]).contains(&Grievance::Stalled));
    assert_eq!(blames(&[0, 1]), [], "a quorum is there, and what stands still is here");
}

/// Swarm seed 3148933. Everybody had ended while one had yet to hear the NEW-VIEW, which nobody
/// could show after that: it waited for that view, said so in its STATUS, and the others took it
/// for one that votes.
#[test]
fn who_waits_for_a_view_that_nobody_can_show_does_not_vote_in_it() {
    let blames = |elsewhere: &[u16]| {
        let mut rig = Rig::new(2, 1);
        rig.wait(Span::secs(50));
        rig.feed(Input::Request(frame(1, b"waits"))).expect("fresh");
        let says = |rig: &mut Rig| {
            for from in [0, 1] {
                let _ = rig.peer(from, status(0, 0));
            }
            for who in elsewhere {
                let word = crate::group::link::FromCoordinator::Elsewhere(ReplicaId(*who));
                rig.feed(Input::Coordinator(word)).expect("news");
            }
        };
        pass(&mut rig, Span::secs(60), says)
    };
    assert_eq!(blames(&[3]), [], "a quorum is there");
    assert!(blames(&[1]).contains(&Grievance::Stalled));
}

/// One that was away says with its first wish that it has not begun the view, and then begins it.
/// A liar that leaves just then, and a client that shows frames to one replica alone, end no view.
#[test]
fn who_has_begun_the_view_since_counts_at_once() {
    use crate::group::link::FromCoordinator::{Arrived, Elsewhere};
    let blames = |arrives: bool| {
        let mut rig = Rig::new(2, 1);
        rig.wait(Span::secs(50));
        let mut frames = 0;
        let mut pass = |rig: &mut Rig, seconds: u64, liar: u64| {
            let says = |rig: &mut Rig| {
                for (from, view) in [(0, 0), (1, 0), (3, liar)] {
                    let _ = rig.peer(from, status(view, 0));
                }
                frames += 1;
                let _ = rig.feed(Input::Request(frame(frames, b"waits")));
            };
            pass(rig, Span::secs(seconds), says)
        };
        assert_eq!(pass(&mut rig, 6, 0), [], "all are there");
        rig.feed(Input::Coordinator(Elsewhere(ReplicaId(1)))).expect("news");
        if arrives {
            rig.feed(Input::Coordinator(Arrived(ReplicaId(1)))).expect("news");
        }
        pass(&mut rig, 9, 9)
    };
    assert!(blames(false).contains(&Grievance::Stalled), "two are no quorum");
    assert_eq!(blames(true), []);
}

/// Frames that nobody orders are looked at less and less often, up to 4T apart, and that is no
/// sleep. What looks for those who are away ends with what waits: an idle group has no timers.
#[test]
fn a_deserted_view_is_noticed_in_time_and_looked_at_no_longer_than_needed() {
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    let f = frame(1, b"waits");
    rig.feed(Input::Request(f.clone())).expect("fresh");
    // The first look at what has waited for 5 s is 8 s after it came, and it takes 5 s from there.
    let alone = |rig: &mut Rig| {
        let _ = rig.peer(0, status(0, 0));
    };
    assert_eq!(pass(&mut rig, Span::secs(12), alone), []);
    let felt = pass(&mut rig, Span::secs(2), alone);
    assert!(felt.contains(&Grievance::Stalled), "{felt:?}");
    let p = proposal(&[&f]);
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    rig.peer(3, Message::Prepare(vote(1, &p))).expect("a prepare");
    for from in [0, 3] {
        rig.peer(from, Message::Commit(vote(1, &p))).expect("a commit");
    }
    let executed = Progress { executed: Seq(1), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(executed))).expect("news");
    assert_eq!(rig.lane.pool.len(), 0);
    assert_eq!(pass(&mut rig, Span::secs(1), alone), []);
    assert_eq!(rig.lane.grieve_deadline(), None);
}

/// The leader may be the very replica that recovers, which cannot fill anything.
#[test]
fn numbers_that_a_recovering_replica_waits_for_are_owed_with_patience() {
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    let fill = crate::group::link::FromCoordinator::Fill(Seq(3));
    rig.feed(Input::Coordinator(fill)).expect("never refused");
    assert_eq!(pass(&mut rig, Span::millis(3900), |_| ()), []);
    assert!(pass(&mut rig, Span::secs(2), |_| ()).contains(&Grievance::Stalled));
    // Or who passes them on may have spent its share at the leader on what liars asked for.
    let mut rig = Rig::new(2, 1);
    rig.lane.cfg.window = 8192;
    rig.wait(Span::secs(50));
    let fill = crate::group::link::FromCoordinator::Fill(Seq(3));
    rig.feed(Input::Coordinator(fill)).expect("never refused");
    assert_eq!(pass(&mut rig, Span::secs(12), |_| ()), []);
    assert!(pass(&mut rig, Span::secs(2), |_| ()).contains(&Grievance::Stalled));
}

#[test]
fn two_proposals_for_one_number_are_seen_by_a_weak_quorum_of_votes() {
    let mut rig = Rig::new(2, 1);
    let other = Proposal::Frames { time: WALL, entries: vec![] };
    rig.peer(0, pre_prepare(1, &Proposal::Null)).expect("a proposal");
    rig.peer(1, Message::Prepare(vote(1, &other))).expect("one may lie");
    assert_eq!(grieved(&mut rig), []);
    rig.peer(3, Message::Prepare(vote(1, &other))).expect("another");
    assert_eq!(grieved(&mut rig), [Grievance::Equivocates]);
    // The votes may come before the proposal.
    let mut rig = Rig::new(2, 1);
    for from in [1, 3] {
        rig.peer(from, Message::Prepare(vote(1, &other))).expect("early");
    }
    rig.peer(0, pre_prepare(1, &Proposal::Null)).expect("a proposal");
    assert_eq!(grieved(&mut rig), [Grievance::Equivocates]);
}

#[test]
fn a_frame_that_a_quorum_endorses_is_the_leaders_debt() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(3));
    rig.feed(Input::Request(f.clone())).expect("fresh");
    let mut sent = Vec::new();
    let collect = |rig: &mut Rig, sent: &mut Vec<(Target, Message)>| {
        let send = |effect: &Effect| match effect {
            Effect::Send { to, message, .. } => Some((*to, message.clone())),
            _ => None,
        };
        sent.extend(rig.out.effects().iter().filter_map(send));
    };
    assert_eq!(pass(&mut rig, Span::millis(300), |rig| collect(rig, &mut sent)), []);
    assert!(sent.contains(&(Target::All, endorse(0, (entry(&f), 0)))), "{sent:?}");
    sent.clear();
    rig.peer(1, endorse(0, (entry(&f), 0))).expect("a second");
    assert_eq!(pass(&mut rig, Span::secs(3), |rig| collect(rig, &mut sent)), []);
    let said = (Target::All, owed((entry(&f), 0)));
    assert!(!sent.contains(&said), "two are no quorum");
    rig.peer(3, endorse(0, (entry(&f), 0))).expect("a third");
    assert_eq!(pass(&mut rig, Span::millis(300), |rig| collect(rig, &mut sent)), []);
    assert!(sent.contains(&said), "it says so to all");
    // The leader may have heard of it from this replica alone: no clock runs.
    let says = |rig: &mut Rig, who: &[u16]| {
        for from in who {
            rig.peer(*from, endorse(0, (entry(&f), 0))).expect("again");
            rig.peer(*from, owed((entry(&f), 0))).expect("it says so, too");
        }
    };
    assert_eq!(pass(&mut rig, Span::secs(3), |rig| says(rig, &[3])), []);
    assert_eq!(pass(&mut rig, Span::millis(900), |rig| says(rig, &[1, 3])), []);
    let felt = pass(&mut rig, Span::millis(400), |rig| says(rig, &[1, 3]));
    assert!(felt.contains(&Grievance::Starved));
    // A leader that has never heard of it believes a weak quorum, and fetches.
    let mut leader = Rig::new(0, 1);
    leader.peer(2, owed((entry(&f), 0))).expect("one may lie");
    leader.wait(Span::millis(4));
    assert!(!leader.sent().iter().any(|(_, m)| matches!(m, Message::Fetch { .. })));
    leader.peer(3, owed((entry(&f), 0))).expect("a second");
    leader.wait(Span::millis(4));
    assert!(leader.sent().iter().any(|(_, m)| matches!(m, Message::Fetch { .. })));
    leader.peer(1, Message::Body { vouched: true, frame: f.clone() }).expect("the body");
    assert_eq!(proposals(&leader.sent()), [(Seq(1), 1)]);
}

#[test]
fn what_is_ordered_in_time_starves_nobody() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(2, 1);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    pass(&mut rig, Span::millis(600), |_| ());
    for from in [1, 3] {
        rig.peer(from, endorse(0, (entry(&f), 0))).expect("endorsed");
        rig.peer(from, owed((entry(&f), 0))).expect("a debt");
    }
    assert_eq!(pass(&mut rig, Span::millis(500), |_| ()), []);
    let p = proposal(&[&f]);
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    rig.peer(3, Message::Prepare(vote(1, &p))).expect("a prepare");
    for from in [0, 3] {
        rig.peer(from, Message::Commit(vote(1, &p))).expect("a commit");
    }
    assert_eq!(pass(&mut rig, Span::secs(9), |_| ()), []);
}

/// A client that shows its frames to this replica alone, again and again, with f replicas that
/// endorse whatever they are asked to.
#[test]
fn a_faulty_client_makes_no_grievance() {
    let mut rig = Rig::new(2, 1);
    let frames: Vec<Arc<Frame>> = (1..=200).map(|id| frame(id, b"op")).collect();
    let mut round = 0usize;
    let grievances = pass(&mut rig, Span::secs(15), |rig| {
        let f = &frames[round % frames.len()];
        round += 1;
        let _ = rig.feed(Input::Request(f.clone()));
        let _ = rig.peer(3, endorse(0, (entry(f), 0)));
        let _ = rig.peer(3, status(0, 7));
        // The correct ones are there.
        for from in [0, 1] {
            let _ = rig.peer(from, status(0, 0));
        }
    });
    assert_eq!(grievances, []);
    assert!(round > 500);
}

/// However closely it looks, a frame is endorsed once in a quarter of T.
fn is_not_said_too_often(rig: &Rig, said: &mut std::collections::BTreeMap<u64, Time>) {
    let now = rig.now.mono;
    for effect in rig.out.effects() {
        let Effect::Send { message: Message::Endorse { entries, .. }, .. } = effect else {
            continue;
        };
        for id in entries.iter().map(|(entry, _)| entry.id.id) {
            let before = said.insert(id, now);
            assert!(before.is_none_or(|before| now.since(before) >= Span::millis(250)), "{id}");
        }
    }
}

/// The leader orders what `rig` and the others hold, each frame `delay` after it came, at one
/// frame every 10 ms; the others endorse what is older than 60 ms. What `rig` felt.
fn monitored(delay: Span, shown_to_others: bool, seconds: u64) -> Vec<Grievance> {
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(1));
    let mut grievances = Vec::new();
    let mut waiting: std::collections::VecDeque<(Time, Arc<Frame>)> = Default::default();
    let (mut seq, mut said) = (0, Default::default());
    for tick in 1..=seconds * 100 {
        rig.wait(Span::millis(10));
        let now = rig.now.mono;
        let f = frame(tick, b"op");
        rig.feed(Input::Request(f.clone())).expect("fresh");
        waiting.push_back((now, f));
        if shown_to_others && tick.is_multiple_of(2) {
            for (_, f) in waiting.iter().take_while(|(at, _)| now.since(*at) > Span::millis(60)) {
                for from in [1, 3] {
                    let _ = rig.peer(from, endorse(0, (entry(f), seq)));
                    let _ = rig.peer(from, owed((entry(f), seq)));
                }
            }
        }
        while waiting.front().is_some_and(|(at, _)| now.since(*at) >= delay) {
            let (_, f) = waiting.pop_front().expect("there is one");
            seq += 1;
            let p = Proposal::Frames { time: rig.now.wall, entries: vec![entry(&f)] };
            rig.peer(0, pre_prepare(seq, &p)).expect("a proposal");
            rig.peer(3, Message::Prepare(vote(seq, &p))).expect("a prepare");
            for from in [0, 3] {
                rig.peer(from, Message::Commit(vote(seq, &p))).expect("a commit");
            }
            let progress = Progress { executed: Seq(seq), ..Progress::default() };
            rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
            if seq.is_multiple_of(4) {
                let digest = Digest([1; 32]);
                let stage = FromStage::Checkpoint { seq: Seq(seq), digest };
                rig.feed(Input::Stage(stage)).expect("news");
                for from in [0, 3] {
                    rig.peer(from, signed(from, seq, digest)).expect("genuine");
                }
            }
        }
        rig.feed(Input::Turn).expect("never refused");
        is_not_said_too_often(&rig, &mut said);
        grievances.extend(grieved(&mut rig));
    }
    assert!(seq > 100, "{seq}");
    grievances
}

#[test]
fn a_leader_that_is_merely_slow_is_found_out_under_load() {
    for delay in [210, 250, 300, 500, 900] {
        let felt = monitored(Span::millis(delay), true, 6);
        assert!(felt.contains(&Grievance::Slow), "{delay} ms");
    }
}

#[test]
fn a_leader_that_is_fast_enough_is_left_alone_under_load() {
    assert_eq!(monitored(Span::millis(30), true, 12), []);
    assert_eq!(monitored(Span::millis(190), true, 12), []);
}

/// From here it looks the same: but nobody else has seen the frames.
#[test]
fn a_client_that_shows_its_frames_to_one_replica_first_does_not_make_the_leader_slow() {
    assert_eq!(monitored(Span::millis(500), false, 12), []);
}

#[test]
fn one_flooding_client_does_not_starve_another() {
    let mut rig = Rig::new(0, 1);
    let other = |client: u32| {
        let id = FrameId { client: ClientId(client), session: SessionId(1), stream: 0, id: 1 };
        let mut builder = FrameBuilder::new();
        builder.push(b"op");
        Arc::new(builder.request(GROUP, id, 0, |_| Authenticator::Vector(vec![])))
    };
    let mut frames: Vec<Arc<Frame>> = (1..=100).map(|id| frame(id, b"op")).collect();
    frames.extend([other(8), other(9)]);
    for f in &frames {
        rig.feed(Input::Request(f.clone())).expect("fresh");
        for from in [1, 2] {
            rig.peer(from, vouch_for(vec![entry(f)])).expect("a vouch");
        }
    }
    let clients = |(_, message): (Target, Message)| match message {
        Message::PrePrepare { proposal, .. } => {
            Some(proposal.entries().iter().map(|e| e.id.client.0).collect::<Vec<_>>())
        }
        _ => None,
    };
    let batches: Vec<Vec<u32>> = rig.sent().into_iter().filter_map(clients).collect();
    let order = batches.concat();
    let place = |client: u32| order.iter().position(|c| *c == client).expect("it is proposed");
    // A turn of the flood, which came first, and not all of it.
    assert!(place(8) <= 16 && place(9) == place(8) + 1, "{order:?}");
    assert_eq!(order[place(9) + 1], 3);
}

#[test]
fn phantoms_that_a_leader_proposes_are_bounded_but_never_the_number_that_is_next() {
    let mut rig = Rig::new(2, 1);
    let phantoms = |seq: u64| {
        let id = |i| FrameId { client: ClientId(1), session: SessionId(seq), stream: 0, id: i };
        let entry = |i| BatchEntry { id: id(i), digest: Digest([2; 32]) };
        Proposal::Frames { time: WALL, entries: (1..=1024).map(entry).collect() }
    };
    for seq in 2..=16 {
        rig.peer(0, pre_prepare(seq, &phantoms(seq))).expect("they may be under way");
    }
    rig.lane.cfg.window = 64;
    rig.peer(0, pre_prepare(17, &phantoms(17))).expect("just about");
    let full = rig.peer(0, pre_prepare(18, &phantoms(18)));
    assert_eq!(full, Err(Reject::Stale("too many frames are missing already")));
    rig.peer(0, pre_prepare(1, &phantoms(1))).expect("this one is needed");
    let small = vote_in(0, 19, &Proposal::Null);
    rig.peer(0, propose_in(0, 19, &Proposal::Null)).expect("what names nobody is fine");
    assert_eq!(rig.lane.log.get(Seq(19)).expect("there").digest, small.digest);
}

/// Frames that were executed in a checkpoint that this replica fetched seem to wait here for
/// ever. The same client's next one is endorsed all the same, and so are they, in turn.
#[test]
fn frames_that_nobody_else_waits_for_do_not_keep_others_from_being_endorsed() {
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(3));
    for id in 1..=40 {
        rig.feed(Input::Request(frame(id, b"op"))).expect("fresh");
    }
    let mut said: Vec<Vec<u64>> = Vec::new();
    let collect = |rig: &mut Rig, said: &mut Vec<Vec<u64>>| {
        for effect in rig.out.effects() {
            if let Effect::Send { message: Message::Endorse { entries, .. }, .. } = effect {
                said.push(entries.iter().map(|(entry, _)| entry.id.id).collect());
            }
        }
    };
    pass(&mut rig, Span::secs(20), |rig| collect(rig, &mut said));
    assert!(said.len() >= 5, "{said:?}");
    let first: Vec<u64> = said[..3].iter().flatten().copied().collect();
    assert!((1..=40).all(|id| first.contains(&id)), "each has its turn: {first:?}");
    said.clear();
    rig.feed(Input::Request(frame(41, b"op"))).expect("fresh");
    pass(&mut rig, Span::secs(1), |rig| collect(rig, &mut said));
    assert!(said.first().expect("it endorses").contains(&41), "{said:?}");
    // Again and again: a link may have lost it.
    said.clear();
    pass(&mut rig, Span::secs(30), |rig| collect(rig, &mut said));
    assert!(said.iter().flatten().filter(|id| **id == 41).count() >= 2, "{said:?}");
}
