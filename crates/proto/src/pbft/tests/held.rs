//! Who holds what a leader proposes: what vouches say of frames that were refused, executed, or
//! skipped with a state.

use super::grieve::endorse;
use super::restart::{fetched, signed_by};
use super::*;
use crate::group::link::FromCoordinator;
use crate::pbft::pool;

fn vouch(rig: &mut Rig, frame: &Frame, by: &[u16]) {
    for from in by {
        rig.peer(*from, vouch_for(vec![entry(frame)])).expect("a vouch");
    }
}

/// Decides `proposal`, which the leader makes, at replica 1.
fn deliver(rig: &mut Rig, seq: u64, proposal: &Proposal) {
    rig.peer(0, pre_prepare(seq, proposal)).expect("a proposal");
    decide(rig, seq, proposal);
}

fn decide(rig: &mut Rig, seq: u64, proposal: &Proposal) {
    rig.peer(2, Message::Prepare(vote(seq, proposal))).expect("a vote");
    for from in [0, 2] {
        rig.peer(from, Message::Commit(vote(seq, proposal))).expect("a vote");
    }
}

fn refuse(rig: &mut Rig, seq: u64, frame: &Frame) {
    let refused = FromStage::Refused { seq: Seq(seq), entry: entry(frame) };
    rig.feed(Input::Stage(refused)).expect("news");
}

fn execute(rig: &mut Rig, upto: u64) {
    let progress = Progress { executed: Seq(upto), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
}

/// What `rig` says for how long it holds `frame`.
fn held_beyond(rig: &mut Rig, frame: &Frame) -> Vec<Seq> {
    let beyond = |(_, message)| match message {
        Message::Vouch { executed, entries } if entries.contains(&entry(frame)) => Some(executed),
        _ => None,
    };
    rig.sent().into_iter().filter_map(beyond).collect()
}

/// A leader that skips numbers does not know what was refused there, and who has vouched for that
/// may have dropped it.
#[test]
fn what_was_vouched_for_before_a_state_is_vouched_for_anew() {
    for floats in [false, true] {
        let f = frame(2, b"op");
        let mut rig = Rig::new(0, 1);
        rig.feed(Input::Request(f.clone())).expect("fresh");
        vouch(&mut rig, &f, &[1]);
        match floats {
            true => {
                let float = FromCoordinator::Float(signed_by(&[0, 1, 3], 8));
                rig.feed(Input::Coordinator(float)).expect("news");
            }
            false => fetched(&mut rig, signed_by(&[0, 1, 3], 8)),
        }
        vouch(&mut rig, &f, &[2]);
        assert!(proposals(&rig.sent()).is_empty(), "one and the leader");
        vouch(&mut rig, &f, &[1]);
        assert_eq!(proposals(&rig.sent()), [(Seq(9), 1)], "floats: {floats}");
    }
}

/// A client gave its frame to links only, with an authenticator that is good for nobody, and those
/// who have executed it hold it no more. What was decided once is its client's, whoever has it.
#[test]
fn what_was_decided_is_trusted_when_it_is_proposed_again() {
    for refused in [false, true] {
        let f = frame_with(2, b"op", |_| Authenticator::Vector(vec![]));
        let mut rig = Rig::new(1, 1);
        rig.feed(Input::Request(f.clone())).expect("fresh");
        deliver(&mut rig, 1, &proposal(&[&f]));
        assert_eq!(rig.delivered(), [Seq(1)]);
        if refused {
            refuse(&mut rig, 1, &f);
        }
        execute(&mut rig, 1);
        assert_eq!(rig.lane.report().pending_frames, 0);
        rig.peer(0, pre_prepare(2, &proposal(&[&f]))).expect("a proposal");
        assert!(!has_prepare(&rig.sent()), "without its body");
        rig.peer(0, Message::Body { vouched: true, frame: f.clone() }).expect("a body");
        assert!(has_prepare(&rig.sent()));
    }
}

/// A frame comes in the turn in which it is executed.
#[test]
fn what_is_dropped_in_a_turn_is_not_vouched_for_at_its_end() {
    for executed in [false, true] {
        let f = frame(2, b"op");
        let mut rig = Rig::new(1, 1);
        rig.feed(Input::Request(f.clone())).expect("it comes");
        deliver(&mut rig, 1, &proposal(&[&f]));
        assert_eq!(rig.delivered(), [Seq(1)]);
        rig.feed(Input::Request(f.clone())).expect("it comes again");
        if executed {
            execute(&mut rig, 1);
        }
        assert_eq!(held_beyond(&mut rig, &f).is_empty(), executed);
    }
}

/// The first copy over the client's link comes when it is known that the frame is ordered: that
/// order is none for this copy, and a leader may count on it at once.
#[test]
fn what_comes_behind_its_order_is_held_through_the_refusal() {
    let f = frame(2, b"op");
    let mut rig = Rig::new(1, 1);
    rig.peer(0, pre_prepare(1, &proposal(&[&f]))).expect("a proposal");
    rig.wait(Span::millis(100));
    rig.peer(0, Message::Body { vouched: true, frame: f.clone() }).expect("a body");
    decide(&mut rig, 1, &proposal(&[&f]));
    assert_eq!(rig.delivered(), [Seq(1)]);
    rig.feed(Input::Request(f.clone())).expect("it comes");
    assert_eq!(held_beyond(&mut rig, &f), [Seq(1)]);
    refuse(&mut rig, 1, &f);
    execute(&mut rig, 1);
    assert_eq!(held_beyond(&mut rig, &f), [Seq(1)]);
}

/// A replica that is behind, and without which there is no quorum, is counted on for what comes
/// to it now: the others are at number 9, as two of them say, and refused it there.
#[test]
fn who_is_behind_holds_what_comes_now_beyond_what_the_others_have_refused() {
    let f = frame(2, b"op");
    let mut rig = Rig::new(1, 1);
    for from in [0, 2] {
        let status = Message::Status { view: View(0), stable: Seq(0), delivered: Seq(9) };
        let _ = rig.peer(from, status);
    }
    rig.feed(Input::Request(f.clone())).expect("it comes");
    assert_eq!(held_beyond(&mut rig, &f), [Seq(9)]);
    let batch = proposal(&[&f]);
    for seq in 1..=9 {
        let proposal = if seq == 9 { batch.clone() } else { Proposal::Null };
        deliver(&mut rig, seq, &proposal);
    }
    refuse(&mut rig, 9, &f);
    execute(&mut rig, 9);
    assert_eq!(rig.lane.report().pending_frames, 1);
}

/// Leaders that rotate may both name a frame: refused at the lower number, it is still to be
/// executed at the higher one, and nobody may count on it beyond that.
#[test]
fn what_a_later_number_names_waits_for_that() {
    let f = frame(2, b"op");
    let mut rig = Rig::new(1, 1);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    for seq in [1, 2] {
        deliver(&mut rig, seq, &proposal(&[&f]));
    }
    assert_eq!(rig.delivered(), [Seq(1), Seq(2)]);
    rig.sent();
    refuse(&mut rig, 1, &f);
    execute(&mut rig, 1);
    assert_eq!(rig.lane.report().pending_frames, 1);
    rig.wait(Span::secs(1));
    assert_eq!(held_beyond(&mut rig, &f), [], "it is ordered");
    refuse(&mut rig, 2, &f);
    execute(&mut rig, 2);
    assert_eq!(rig.lane.report().pending_frames, 0);
}

/// What has come again stays when it is refused, and who waits for a state executes nothing before
/// it: the leader need not wait until they are that far.
#[test]
fn a_voucher_says_for_how_long_it_holds_a_frame() {
    let (f, g) = (frame(2, b"op"), frame(3, b"op"));
    let mut rig = Rig::new(1, 1);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    assert_eq!(held_beyond(&mut rig, &f), [Seq(0)]);
    rig.peer(0, pre_prepare(1, &proposal(&[&f]))).expect("a proposal");
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    assert_eq!(held_beyond(&mut rig, &f), [Seq(1)]);
    let float = FromCoordinator::Float(signed_by(&[0, 2, 3], 8));
    rig.feed(Input::Coordinator(float)).expect("news");
    rig.feed(Input::Request(g.clone())).expect("fresh");
    assert_eq!(held_beyond(&mut rig, &g), [Seq(8)]);
}

/// A client sends its frame to a replica that was restarted, and whose log says that the frame was
/// refused in an earlier life.
#[test]
fn a_refusal_of_an_earlier_life_uses_up_nothing() {
    let f = frame(2, b"op");
    let key = pool::key_of(&entry(&f));
    for replayed in [false, true] {
        let mut pool = pool::Pool::default();
        pool.arrive(Time(1), &f, (2, Seq(0)));
        pool.mark_ordered(&key, Seq(1));
        pool.refused(Time(1), (&key, Seq(1)), replayed);
        assert_eq!(pool.len(), usize::from(replayed));
        assert_eq!(pool.holds_beyond(&key, Seq(1)).is_some(), replayed);
        pool.check();
    }
}

/// A sibling's word of a stable checkpoint overtakes the refusal.
#[test]
fn what_came_twice_before_it_was_executed_is_not_lost_when_it_is_refused_late() {
    let f = frame(2, b"op");
    let mut rig = Rig::new(1, 1);
    for _ in 0..2 {
        rig.feed(Input::Request(f.clone())).expect("it comes");
    }
    deliver(&mut rig, 1, &proposal(&[&f]));
    assert_eq!(rig.delivered(), [Seq(1)]);
    execute(&mut rig, 1);
    rig.sent();
    refuse(&mut rig, 1, &f);
    assert_eq!(held_beyond(&mut rig, &f), [Seq(1)]);
}

/// What was said before the refusal makes no quorum with what was said after it.
#[test]
fn what_was_endorsed_before_it_was_refused_is_endorsed_anew() {
    let f = frame(2, b"op");
    let mut rig = Rig::new(1, 1);
    let shown = |rig: &mut Rig| {
        let sent = rig.sent();
        sent.iter().any(|(_, message)| matches!(message, Message::Owed { .. }))
    };
    for _ in 0..2 {
        rig.feed(Input::Request(f.clone())).expect("it comes");
    }
    let others_endorse = |rig: &mut Rig, executed| {
        for from in [2, 3] {
            rig.peer(from, endorse(0, (entry(&f), executed))).expect("counted");
        }
    };
    others_endorse(&mut rig, 0);
    deliver(&mut rig, 1, &proposal(&[&f]));
    assert_eq!(rig.delivered(), [Seq(1)]);
    refuse(&mut rig, 1, &f);
    execute(&mut rig, 1);
    rig.wait(Span::millis(300));
    assert!(!shown(&mut rig), "its own is one");
    others_endorse(&mut rig, 0);
    assert!(!shown(&mut rig), "who has yet to execute the refusal may drop it there");
    others_endorse(&mut rig, 1);
    assert!(shown(&mut rig));
}

/// Where replicas wait for a state: within the stage's reach, and more than a window beyond it.
const FLOORS: [u64; 2] = [8, 40];

/// Replica 0, which leads and waits for the state at `floor`, with frame 2 of its client at the
/// next number, decided.
fn floating(f: &Arc<Frame>, floor: u64) -> Rig {
    let mut rig = Rig::new(0, 1);
    let float = FromCoordinator::Float(signed_by(&[0, 1, 3], floor));
    rig.feed(Input::Coordinator(float)).expect("news");
    rig.feed(Input::Request(f.clone())).expect("fresh");
    vouch_after(&mut rig, f, floor);
    let (p, seq) = (proposal(&[f]), floor + 1);
    assert_eq!(proposals(&rig.sent()), [(Seq(seq), 1)]);
    for from in [1, 2] {
        rig.peer(from, Message::Prepare(vote(seq, &p))).expect("a vote");
    }
    for from in [1, 2] {
        rig.peer(from, Message::Commit(vote(seq, &p))).expect("a vote");
    }
    let reach = rig.lane.cfg.window;
    assert_eq!(rig.delivered(), Vec::from_iter([Seq(seq)].into_iter().filter(|s| s.0 <= reach)));
    rig.feed(Input::Turn).expect("turns are never refused");
    rig
}

fn vouch_after(rig: &mut Rig, f: &Frame, executed: u64) {
    for from in [1, 2] {
        let vouch = Message::Vouch { executed: Seq(executed), entries: vec![entry(f)] };
        rig.peer(from, vouch).expect("a vouch");
    }
}

/// A leader that waits for a state does not learn that the others have refused what it has ordered,
/// nor when the state is there.
#[test]
fn who_waits_for_a_state_orders_again_what_comes_again() {
    let cases = FLOORS.into_iter().flat_map(|floor| [true, false].map(|own| (floor, own)));
    let cases = cases.flat_map(|(floor, own)| [false, true].map(|state| (floor, own, state)));
    for (floor, own_first, state) in cases {
        let f = frame(2, b"op");
        let mut rig = floating(&f, floor);
        let case = alloc::format!("floor {floor}, own first: {own_first}, state: {state}");
        // Late vouches are for what is decided.
        vouch_after(&mut rig, &f, floor);
        assert_eq!(rig.lane.pool.len(), 0, "{case}");
        if state {
            fetched(&mut rig, signed_by(&[1, 2], floor + 1));
        }
        if own_first {
            rig.feed(Input::Request(f.clone())).expect("it comes again");
            vouch_after(&mut rig, &f, floor + 1);
        } else {
            vouch_after(&mut rig, &f, floor + 1);
            rig.feed(Input::Request(f.clone())).expect("it comes again");
        }
        assert_eq!(proposals(&rig.sent()), [(Seq(floor + 2), 1)], "{case}");
    }
}

/// What has come again before the state is there was not executed in it, or may not have been.
#[test]
fn what_came_again_before_the_state_waits_for_its_order_behind_it() {
    for floor in FLOORS {
        let f = frame(2, b"op");
        let mut rig = floating(&f, floor);
        rig.feed(Input::Request(f.clone())).expect("it comes again");
        fetched(&mut rig, signed_by(&[1, 2], floor + 1));
        vouch_after(&mut rig, &f, floor + 1);
        assert_eq!(proposals(&rig.sent()), [(Seq(floor + 2), 1)], "floor {floor}");
    }
}

/// Its own word counts for what it has from others, who are no quorum without it.
#[test]
fn who_waits_for_a_state_orders_again_what_others_hold_and_give_it() {
    for floor in FLOORS {
        let f = frame(2, b"op");
        let mut rig = floating(&f, floor);
        vouch_after(&mut rig, &f, floor + 1);
        rig.wait(Span::millis(4));
        assert!(rig.sent().iter().any(|(_, m)| matches!(m, Message::Fetch { .. })));
        let body = Message::Body { vouched: true, frame: f.clone() };
        rig.peer(1, body).expect("it was asked for");
        assert_eq!(proposals(&rig.sent()), [(Seq(floor + 2), 1)], "floor {floor}");
    }
}

/// Nor does its pool fill with what it orders: a client would soon be at its quota.
#[test]
fn who_waits_for_a_state_holds_nothing_that_is_decided() {
    for floor in FLOORS {
        let f = frame(2, b"op");
        let rig = floating(&f, floor);
        assert_eq!(rig.lane.pool.held().of_one_client, 0, "floor {floor}");
        rig.lane.pool.check();
    }
}

/// It came, was named, came again, and was refused twice: for two times that it comes there are two
/// orders, and no third.
#[test]
fn a_frame_has_an_order_for_each_time_that_it_comes() {
    let f = frame(2, b"op");
    let key = pool::key_of(&entry(&f));
    let mut pool = pool::Pool::default();
    pool.arrive(Time(1), &f, (2, Seq(0)));
    pool.mark_ordered(&key, Seq(1));
    pool.arrive(Time(1), &f, (2, Seq(0)));
    pool.refused(Time(1), (&key, Seq(1)), false);
    assert!(pool.holds_beyond(&key, Seq(1)).is_some());
    pool.mark_ordered(&key, Seq(2));
    pool.refused(Time(1), (&key, Seq(2)), false);
    assert_eq!(pool.holds_beyond(&key, Seq(2)), None);
    pool.check();
}

/// A later number names the frame, too, and its refusal comes late, with the body.
#[test]
fn what_is_refused_late_is_there_for_a_later_number() {
    let f = frame(2, b"op");
    let mut rig = Rig::new(1, 1);
    for _ in 0..2 {
        rig.feed(Input::Request(f.clone())).expect("it comes");
    }
    deliver(&mut rig, 1, &proposal(&[&f]));
    execute(&mut rig, 1);
    rig.sent();
    rig.peer(0, pre_prepare(2, &proposal(&[&f]))).expect("a proposal");
    assert!(!has_prepare(&rig.sent()), "it was executed, as far as is known");
    refuse(&mut rig, 1, &f);
    assert!(has_prepare(&rig.sent()));
}

/// Who waits for a state does not learn that a tick has moved agreed time past the deadline.
#[test]
fn who_waits_for_a_state_orders_few_ticks() {
    let mut rig = floating(&frame(2, b"op"), 8);
    let deadline = Some(AgreedTime(WALL.0 - 1));
    let progress = Progress { deadline, ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    let mut ticks = 0;
    for _ in 0..300 {
        rig.wait(Span::millis(10));
        for (seq, message) in rig.sent().into_iter().filter_map(|(_, message)| match message {
            Message::PrePrepare { seq, proposal, .. } => Some((seq.0, proposal)),
            _ => None,
        }) {
            ticks += 1;
            for from in [1, 2] {
                rig.peer(from, Message::Prepare(vote(seq, &message))).expect("a vote");
            }
            for from in [1, 2] {
                rig.peer(from, Message::Commit(vote(seq, &message))).expect("a vote");
            }
        }
    }
    assert!((1..=4).contains(&ticks), "{ticks} in three seconds");
}
