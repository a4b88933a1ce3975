//! Frames that their client sends again after they were executed, or while they wait.

use super::restart::signed_by;
use super::*;
use crate::group::link::FromCoordinator;
use crate::pbft::Bodies;

/// A backup that has executed `frame` as number 1; `came`: it was here before that.
fn executed(frame: &Arc<Frame>, came: bool) -> Rig {
    executed_by(Rig::new(1, 1), frame, came)
}

fn executed_by(mut rig: Rig, frame: &Arc<Frame>, came: bool) -> Rig {
    if came {
        rig.feed(Input::Request(frame.clone())).expect("fresh");
    }
    let p = proposal(&[frame]);
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    rig.peer(2, Message::Body { vouched: true, frame: frame.clone() }).ok();
    for from in [0, 2] {
        rig.peer(from, Message::Prepare(vote(1, &p))).ok();
    }
    for from in [0, 2] {
        rig.peer(from, Message::Commit(vote(1, &p))).ok();
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    execute(&mut rig, 1);
    rig.sent();
    rig
}

fn execute(rig: &mut Rig, upto: u64) {
    let progress = Progress { executed: Seq(upto), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
}

/// Sends `frame` once more: whether its reply is sent again, and whether it is vouched for.
fn again(rig: &mut Rig, frame: &Arc<Frame>) -> (Result<(), Reject>, bool, bool) {
    let result = rig.feed(Input::Request(frame.clone()));
    let resend = |effect: &Effect| matches!(effect, Effect::Stage(ToStage::Resend { .. }));
    let resent = rig.out.effects().iter().any(resend);
    let (executed, entries) = (rig.lane.report().delivered, vec![entry(frame)]);
    let mine = Message::Vouch { executed, entries };
    let vouched = rig.sent().iter().any(|(_, message)| *message == mine);
    (result, resent, vouched)
}

/// The second time, the first answer has not helped: too few may have had it.
#[test]
fn an_executed_frame_is_answered_and_then_ordered_again() {
    let f = frame(1, b"op");
    let mut rig = executed(&f, true);
    assert_eq!(again(&mut rig, &f), (Ok(()), true, false));
    rig.wait(Span::secs(1));
    assert_eq!(again(&mut rig, &f), (Ok(()), false, true));
}

/// Whoever sends what was executed as fast as it can gets few answers, makes the group order
/// next to nothing; and once it waits it is answered like everybody.
#[test]
fn whoever_repeats_itself_without_end_is_not_served_for_it() {
    const REPEATS: u32 = 100_000;
    let f = frame(1, b"op");
    let mut rig = executed(&f, true);
    let (mut resent, mut vouched, mut dropped, mut next) = (0, 0, 0, 2);
    for _ in 0..REPEATS {
        rig.wait(Span::micros(10));
        let (result, answers, vouches) = again(&mut rig, &f);
        resent += u32::from(answers);
        vouched += u32::from(vouches);
        dropped += u32::from(result == Err(Reject::Repeats));
        if vouches && next < 4 {
            // It is ordered again, and executed, so that it may be asked for anew.
            let p = proposal(&[&f]);
            rig.peer(0, pre_prepare(next, &p)).expect("a proposal");
            for from in [0, 2] {
                rig.peer(from, Message::Prepare(vote(next, &p))).ok();
                rig.peer(from, Message::Commit(vote(next, &p))).ok();
            }
            execute(&mut rig, next);
            rig.sent();
            next += 1;
        }
    }
    assert!(resent + vouched <= 4_000, "{resent} answers and {vouched} vouches in a second");
    assert!(dropped >= REPEATS - 4_000);
    rig.wait(Span::secs(1));
    let (result, answers, vouches) = again(&mut rig, &f);
    assert_eq!((result, answers || vouches), (Ok(()), true));
}

/// While it waits for its order a frame is vouched for again, but not as often as its client
/// likes: the leader would have to read it all.
#[test]
fn what_waits_is_not_vouched_for_without_end() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(1, 1);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    rig.sent();
    let vouches = (0..10_000).filter(|_| again(&mut rig, &f).2).count();
    assert!((1..=2_000).contains(&vouches), "{vouches} vouches at once");
    rig.wait(Span::secs(1));
    assert_eq!(again(&mut rig, &f), (Ok(()), false, true));
}

/// A replica that reads late finds much executed that it has not read yet: its clients repeat
/// nothing by that.
#[test]
fn what_was_executed_before_it_came_is_no_repetition() {
    let late = frame(1, b"op");
    let mut rig = executed(&late, false);
    // The whole allowance goes on something else.
    let waits = frame(9, b"op");
    while rig.feed(Input::Request(waits.clone())).is_ok() {}
    assert_eq!(again(&mut rig, &late), (Ok(()), true, false));
    assert_eq!(again(&mut rig, &late), (Err(Reject::Repeats), false, false));
}

/// A copy that is ordered once more is the one that others get, and its authenticator is not in its
/// digest: a client that broke the signature of what had been executed would have its leader
/// taken for a forger, and replaced.
#[test]
fn a_copy_that_is_ordered_again_is_checked_again() {
    let signed = |good: bool| {
        let sign = |digest: Digest| {
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&digest.0);
            Authenticator::Signature(Signature(if good { bytes } else { [1; 64] }))
        };
        frame_with(1, b"op", sign)
    };
    let (genuine, forged) = (signed(true), signed(false));
    assert_eq!(genuine.digest(), forged.digest());
    let switches = Switches { bodies: Bodies::Inline, ..Switches::default() };
    let mut rig = executed_by(Rig::with(1, 1, switches), &genuine, true);
    rig.wait(Span::secs(1));
    let (result, resent, _) = again(&mut rig, &forged);
    assert_eq!((result, resent), (Ok(()), true), "the answer is cached: nothing is proposed");
    rig.wait(Span::secs(1));
    assert_eq!(again(&mut rig, &forged).0, Err(Reject::Forged));
    assert_eq!(again(&mut rig, &genuine).0, Ok(()));
}

/// It delivered a number because others had, and lacks a PREPARE for its own vote. A replica that
/// delivered it, too, repeats nothing by itself, and one that did not may need this very COMMIT.
#[test]
fn whoever_owes_a_vote_for_what_it_has_delivered_asks_for_what_it_lacks() {
    let null = Proposal::Null;
    let behind = || Message::Status { view: View(0), stable: Seq(0), delivered: Seq(0) };
    let asks = |rig: &mut Rig| {
        let all = |sent: &(Target, Message)| *sent == (Target::All, behind());
        rig.peer(0, behind()).expect("it may ask");
        rig.sent().iter().any(all)
    };
    let mut rig = Rig::new(1, 1);
    rig.peer(0, pre_prepare(1, &null)).expect("a proposal");
    for from in [2, 3] {
        let decided = Message::Decided { seq: Seq(1), proposal: null.clone() };
        rig.peer(from, decided).expect("news");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    assert!(!has_commit(&rig.sent()), "it lacks a PREPARE");
    assert!(asks(&mut rig));
    // Whoever is asked may owe a vote, too, and ask in turn: not for ever.
    rig.wait(Span::millis(10));
    assert!(!asks(&mut rig), "it has just asked");
    rig.wait(Span::secs(1));
    assert!(asks(&mut rig));
    rig.peer(2, Message::Prepare(vote(1, &null))).expect("what was lacking");
    assert!(has_commit(&rig.sent()));
    rig.wait(Span::secs(1));
    assert!(!asks(&mut rig), "it owes nothing any more");
}

/// Swarm seed 3816886. What is below its low mark it votes for no more, and what it would be told
/// of numbers above is of no use to that: it would ask for ever, with each STATUS of somebody who
/// stays behind.
#[test]
fn whoever_owes_a_vote_below_its_low_mark_asks_for_nothing() {
    let digest = Digest([5; 32]);
    let mut rig = Rig::new(1, 1);
    for seq in 1..=4 {
        rig.peer(0, pre_prepare(seq, &Proposal::Null)).expect("a proposal");
        for from in [2, 3] {
            let decided = Message::Decided { seq: Seq(seq), proposal: Proposal::Null };
            rig.peer(from, decided).expect("news");
        }
    }
    let progress = Progress { executed: Seq(4), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    rig.feed(Input::Stage(FromStage::Checkpoint { seq: Seq(4), digest })).expect("news");
    let asks = |rig: &mut Rig, stable| {
        rig.wait(Span::secs(1));
        rig.sent();
        let behind = Message::Status { view: View(0), stable: Seq(0), delivered: Seq(0) };
        rig.peer(0, behind).expect("it may ask");
        let asked = Message::Status { view: View(0), stable, delivered: stable };
        let sent = rig.sent();
        let told = |(_, message): &(Target, Message)| matches!(message, Message::Decided { .. });
        assert!(sent.iter().any(told), "it helps");
        sent.contains(&(Target::All, asked))
    };
    assert!(asks(&mut rig, Seq(0)));
    for from in [2, 3] {
        rig.peer(from, signed(from, 4, digest)).expect("genuine");
    }
    assert_eq!(rig.lane.report().stable, Seq(4));
    assert!(!asks(&mut rig, Seq(4)), "nothing that it is told would make it vote");
}

fn decided_at_one(rig: &mut Rig, p: &Proposal) {
    for from in [2, 3] {
        let decided = Message::Decided { seq: Seq(1), proposal: p.clone() };
        rig.peer(from, decided).expect("news");
    }
}

/// Whether it asks everybody for votes when somebody behind asks for its own.
fn asks_for_votes(rig: &mut Rig) -> bool {
    rig.wait(Span::secs(1));
    rig.sent();
    let behind = || Message::Status { view: View(0), stable: Seq(0), delivered: Seq(0) };
    rig.peer(0, behind()).expect("it may ask");
    rig.sent().contains(&(Target::All, behind()))
}

/// A faulty leader that leaves a replica out until the number is decided, and says nothing of it
/// later, kept it from voting for good, and it asked everybody each second for what would not have
/// helped it.
#[test]
fn what_is_decided_is_voted_for_once_a_weak_quorum_of_backups_is() {
    let null = Proposal::Null;
    let mut rig = Rig::new(1, 1);
    decided_at_one(&mut rig, &null);
    assert_eq!(rig.delivered(), [Seq(1)]);
    assert!(asks_for_votes(&mut rig));
    rig.peer(2, Message::Prepare(vote(1, &null))).expect("an answer");
    assert!(!has_prepare(&rig.sent()), "one may lie");
    rig.peer(3, Message::Prepare(vote(1, &null))).expect("an answer");
    let sent = rig.sent();
    assert!(has_prepare(&sent) && has_commit(&sent), "{sent:?}");
    assert!(!asks_for_votes(&mut rig), "it owes nothing any more");
    // The votes may be there before it is decided.
    let mut rig = Rig::new(1, 1);
    for from in [2, 3] {
        rig.peer(from, Message::Prepare(vote(1, &null))).expect("a vote");
    }
    assert!(!has_prepare(&rig.sent()), "it lacks the proposal");
    decided_at_one(&mut rig, &null);
    assert!(has_commit(&rig.sent()));
}

#[test]
fn what_is_decided_is_not_voted_for_by_who_leads_or_has_voted_or_on_votes_for_another() {
    let (null, tick) = (Proposal::Null, proposal(&[]));
    let mut rig = Rig::new(1, 1);
    rig.peer(0, pre_prepare(1, &tick)).expect("a proposal");
    assert!(has_prepare(&rig.sent()));
    decided_at_one(&mut rig, &null);
    assert!(!asks_for_votes(&mut rig), "nothing would make it vote again");
    for from in [2, 3] {
        rig.peer(from, Message::Prepare(vote(1, &null))).expect("a vote");
    }
    assert!(!has_prepare(&rig.sent()), "it has voted in this view");
    let mut rig = Rig::new(0, 1);
    decided_at_one(&mut rig, &null);
    for from in [2, 3] {
        rig.peer(from, Message::Prepare(vote(1, &null))).expect("a vote");
    }
    let sent = rig.sent();
    assert!(!has_prepare(&sent) && !has_commit(&sent), "its vote is a proposal: {sent:?}");
    let mut rig = Rig::new(1, 1);
    decided_at_one(&mut rig, &null);
    for from in [2, 3] {
        rig.peer(from, Message::Prepare(vote(1, &tick))).expect("a vote");
    }
    assert!(!has_prepare(&rig.sent()));
}

/// An earlier life may have voted there.
#[test]
fn whoever_may_not_vote_asks_for_no_votes() {
    let mut rig = Rig::new(1, 1);
    rig.lane.views.above = Some(Seq(8));
    decided_at_one(&mut rig, &Proposal::Null);
    assert!(!asks_for_votes(&mut rig));
    rig.lane.views.above = Some(Seq(0));
    assert!(asks_for_votes(&mut rig));
}

/// A client can have correct replicas forward what it has had refused before. What that costs them
/// must leave them heard in everything else, and a liar must not have it ordered for ever.
#[test]
fn who_forwards_what_was_refused_is_heard_in_everything_else() {
    let mut rig = Rig::with(0, 1, Switches { bodies: Bodies::Inline, ..Switches::default() });
    let signed = |id| {
        frame_with(id, b"op", |digest| {
            base::crypto::ClientKeyring::authenticate(&base::crypto::PlainSigner, digest)
        })
    };
    let progress = Progress { executed: Seq(3), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    let again = |rig: &mut Rig, id| {
        let f = signed(id);
        let refused = FromStage::Refused { seq: Seq(3), entry: entry(&f) };
        rig.feed(Input::Stage(refused)).expect("news");
        rig.peer(1, Message::Forward(f))
    };
    let taken = (2..102).filter(|id| again(&mut rig, *id).is_ok()).count();
    assert_eq!(taken, 32);
    let too_often = Err(Reject::Stale("forwarded too often what was decided"));
    assert_eq!(again(&mut rig, 102), too_often);
    rig.peer(1, Message::Forward(signed(200))).expect("nobody has refused it");
    rig.wait(Span::millis(8));
    again(&mut rig, 102).expect("one more");
}

/// A client lacks the replies to what was executed in a state that this replica has fetched since:
/// its stage has them, and nobody else may be heard by the client.
#[test]
fn what_may_have_been_executed_in_a_state_is_answered_from_it() {
    let f = frame(1, b"op");
    for (fetches, waits) in [(true, false), (true, true), (false, false)] {
        let mut rig = Rig::new(2, 1);
        if waits {
            rig.feed(Input::Request(f.clone())).expect("fresh");
        }
        if fetches {
            super::restart::fetched(&mut rig, super::restart::signed_by(&[0, 1, 3], 8));
        }
        let (result, resent, _) = again(&mut rig, &f);
        assert_eq!((result, resent), (Ok(()), fetches));
        rig.wait(Span::secs(60));
        assert!(!again(&mut rig, &frame(2, b"op")).1, "that was long ago");
    }
}

fn vouch_after(rig: &mut Rig, f: &Frame, executed: u64) {
    for from in [1, 2, 3] {
        let vouch = Message::Vouch { executed: Seq(executed), entries: vec![entry(f)] };
        rig.peer(from, vouch).expect("a vouch");
    }
}

/// What replica 0 proposes once it has fetched `f`, if it asks for that.
fn proposes_fetched(rig: &mut Rig, f: &Arc<Frame>) -> Vec<(Seq, usize)> {
    rig.sent();
    rig.wait(Span::millis(4));
    let asks = |(_, message): &(Target, Message)| matches!(message, Message::Fetch { .. });
    if rig.sent().iter().any(asks) {
        rig.peer(1, Message::Body { vouched: true, frame: f.clone() }).expect("its body");
    }
    proposals(&rig.sent())
}

/// Replica 0, which leads and waits for a state, with `f`, which it has from others alone, at
/// number 9, decided.
fn let_go(f: &Arc<Frame>, switches: Switches) -> Rig {
    let mut rig = Rig::with(0, 1, switches);
    let float = FromCoordinator::Float(signed_by(&[0, 1, 3], 8));
    rig.feed(Input::Coordinator(float)).expect("news");
    let proposed = if switches.bodies == Bodies::Inline {
        rig.peer(1, Message::Forward(f.clone())).expect("fresh");
        proposals(&rig.sent())
    } else {
        vouch_after(&mut rig, f, 8);
        proposes_fetched(&mut rig, f)
    };
    assert_eq!(proposed, [(Seq(9), 1)]);
    let p = Proposal::Frames { time: rig.now.wall, entries: vec![entry(f)] };
    for from in [1, 2] {
        rig.peer(from, Message::Prepare(vote(9, &p))).expect("a vote");
    }
    for from in [1, 2] {
        rig.peer(from, Message::Commit(vote(9, &p))).expect("a vote");
    }
    assert_eq!(rig.delivered(), [Seq(9)]);
    rig.sent();
    assert_eq!(rig.lane.pool.len(), 0);
    rig
}

/// What became of it is not known, whoever it came from: the others may have refused it.
#[test]
fn what_was_let_go_is_ordered_again_when_others_hold_it_beyond_that() {
    let f = frame(1, b"op");
    let mut rig = let_go(&f, Switches::default());
    vouch_after(&mut rig, &f, 8);
    assert_eq!(rig.lane.pool.len(), 0, "these are late");
    vouch_after(&mut rig, &f, 9);
    assert_eq!(proposes_fetched(&mut rig, &f), [(Seq(10), 1)]);
}

/// It comes over the client's link for the first time.
#[test]
fn what_was_let_go_and_had_not_come_is_no_repetition() {
    let f = frame(1, b"op");
    let mut rig = let_go(&f, Switches::default());
    // The whole allowance goes on something else.
    let waits = frame(9, b"op");
    while rig.feed(Input::Request(waits.clone())).is_ok() {}
    assert_eq!(rig.feed(Input::Request(f.clone())), Ok(()));
    vouch_after(&mut rig, &f, 9);
    assert_eq!(proposals(&rig.sent()), [(Seq(10), 1)]);
}

/// It is known no more, and may have been refused.
#[test]
fn what_was_let_go_may_be_forwarded_again() {
    let f = frame_with(1, b"op", |digest| {
        base::crypto::ClientKeyring::authenticate(&base::crypto::PlainSigner, digest)
    });
    let mut rig = let_go(&f, Switches { bodies: Bodies::Inline, ..Switches::default() });
    rig.peer(1, Message::Forward(f)).expect("one that may be ordered again");
    assert_eq!(proposals(&rig.sent()), [(Seq(10), 1)]);
    let (peers, now) = (&mut rig.lane.catchup.peers, rig.now.mono);
    let left = (0..40).filter(|_| peers.may_order_again(ReplicaId(1), now)).count();
    assert_eq!(left, 31, "it has been counted");
}
