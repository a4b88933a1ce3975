//! What it takes to have a leader owe a frame, and what nobody can make of that later.

use super::grieve::{endorse, is_owed, owed};
use super::restart::{fetched, signed_by};
use super::*;
use crate::group::link::{Grievance, ToCoordinator};
use crate::pbft::pool;

fn execute(rig: &mut Rig, upto: u64) {
    let progress = Progress { executed: Seq(upto), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
}

/// Replica 2 hears of number 1, which names `f`, that it is decided, and executes it.
fn order_and_execute(rig: &mut Rig, f: &Frame) {
    let p = Proposal::Frames { time: rig.now.wall, entries: vec![entry(f)] };
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    rig.peer(1, Message::Prepare(vote(1, &p))).expect("a vote");
    for from in [0, 1] {
        rig.peer(from, Message::Commit(vote(1, &p))).expect("a vote");
    }
    execute(rig, 1);
}

/// A frame that is genuine for nobody who has not had it from its client.
fn shown_to_some(id: u64) -> Arc<Frame> {
    frame_with(id, b"op", |_| Authenticator::Vector(vec![Mac([9; 16]); 4]))
}

/// Whether the leader owes it, as `rig` leads.
fn is_urgent(rig: &Rig, f: &Frame) -> bool {
    rig.lane.pool.get(&pool::key_of(&entry(f))).is_some_and(pool::Entry::is_urgent)
}

/// Whether `rig` says within three quarters of T that the leader owes `f`.
fn says_owed(rig: &mut Rig, f: &Frame) -> bool {
    let mut said = false;
    for _ in 0..8 {
        said |= rig.sent().iter().any(|(to, message)| match message {
            Message::Owed { entries, .. } => {
                *to == Target::All && entries.iter().any(|(e, _)| *e == entry(f))
            }
            _ => false,
        });
        rig.wait(Span::millis(100));
    }
    said
}

/// A client alone can have any frames refused, and shown to some only after that. Each correct
/// replica says of each that it is owed: all of that has to be heard.
#[test]
fn all_that_is_owed_anew_after_a_refusal_is_heard_at_once() {
    let mut rig = Rig::new(0, 1);
    let frames: Vec<Arc<Frame>> = (2..300).map(|id| frame(id, b"op")).collect();
    execute(&mut rig, 3);
    for f in &frames {
        let refused = FromStage::Refused { seq: Seq(3), entry: entry(f) };
        rig.feed(Input::Stage(refused)).expect("news");
        is_owed(&mut rig, (entry(f), 2));
        assert!(!is_urgent(&rig, f), "they have yet to execute the refusal");
    }
    frames.iter().for_each(|f| is_owed(&mut rig, (entry(f), 3)));
    assert!(frames.iter().all(|f| is_urgent(&rig, f)));
}

/// What others have endorsed stays with who heard it; a correct leader does not have to order what
/// nobody waits for any more. A client shows a frame to two for a minute, which they endorse, and a
/// liar endorses it once they have dropped it: the leader would find no body.
#[test]
fn only_who_holds_a_frame_and_waits_for_it_says_that_it_is_owed() {
    let f = shown_to_some(1);
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    for from in [0, 1, 3] {
        rig.peer(from, endorse(0, (entry(&f), 0))).expect("counted");
    }
    assert!(!says_owed(&mut rig, &f), "it never came here");
    rig.feed(Input::Request(f.clone())).expect("it comes");
    assert!(says_owed(&mut rig, &f));
    // It is said for as long as others endorse it, and no longer.
    for _ in 0..120 {
        rig.wait(Span::millis(100));
        rig.sent();
    }
    assert!(!says_owed(&mut rig, &f), "nobody else waits for it");
    for from in [1, 3] {
        rig.peer(from, endorse(0, (entry(&f), 0))).expect("counted");
    }
    assert!(says_owed(&mut rig, &f));
    // Meanwhile it expires.
    for _ in 0..130 {
        rig.wait(Span::secs(1));
        rig.sent();
    }
    assert_eq!(rig.lane.pool.len(), 0);
    for from in [0, 1, 3] {
        rig.peer(from, endorse(0, (entry(&f), 0))).expect("counted");
    }
    assert!(!says_owed(&mut rig, &f));
}

/// Whoever says that a frame is owed has it for the leader, however old it is.
#[test]
fn what_is_said_to_be_owed_does_not_expire() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    rig.feed(Input::Request(f.clone())).expect("it comes");
    for _ in 0..1_000 {
        for from in [1, 3] {
            rig.peer(from, endorse(0, (entry(&f), 0))).expect("counted");
        }
        rig.wait(Span::millis(100));
        rig.sent();
    }
    rig.peer(0, Message::Fetch { seq: Seq(1), entries: vec![entry(&f)] }).expect("asked");
    let body = Message::Body { vouched: true, frame: f.clone() };
    assert!(rig.sent().contains(&(Target::One(ReplicaId(0)), body)));
}

/// What `rig` holds against the leader for the next two T, while those say that it owes `f`.
fn starved(rig: &mut Rig, f: &Frame, who: &[u16]) -> bool {
    let mut starved = false;
    for _ in 0..20 {
        for from in who {
            rig.peer(*from, owed((entry(f), 0))).expect("a debt");
        }
        rig.wait(Span::millis(100));
        rig.feed(Input::Turn).expect("never refused");
        let told = |told: &ToCoordinator| {
            matches!(told, ToCoordinator::Grievance { what: Grievance::Starved, .. })
        };
        starved |= super::views::told(rig).iter().any(told);
    }
    starved
}

/// Fewer than a quorum may be too few for the leader to believe them; and whoever says so no more
/// does not count.
#[test]
fn a_clock_runs_only_while_a_quorum_says_that_the_leader_owes_a_frame() {
    let f = shown_to_some(1);
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    assert!(!starved(&mut rig, &f, &[1, 3]));
    rig.peer(0, owed((entry(&f), 0))).expect("once");
    for _ in 0..9 {
        rig.wait(Span::millis(900));
        rig.peer(1, owed((entry(&f), 0))).expect("again");
    }
    assert!(!starved(&mut rig, &f, &[1, 3]), "one of them says it no more");
    assert!(starved(&mut rig, &f, &[0, 1, 3]), "also for what never came here");
}

/// What was executed is owed no more, whatever was said before.
#[test]
fn what_was_said_before_a_frame_was_executed_is_void() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    for from in [1, 3] {
        rig.peer(from, owed((entry(&f), 9))).expect("a debt");
    }
    rig.feed(Input::Request(f.clone())).expect("it comes");
    order_and_execute(&mut rig, &f);
    assert!(!starved(&mut rig, &f, &[0]), "it is one");
}

/// A leader knows that the frame was executed since a liar endorsed it, and its client sent it
/// again. Were that held against the leader, it would be blamed for a debt that it has not (swarm
/// seed 3071049).
#[test]
fn who_endorsed_before_a_frame_was_executed_does_not_count_when_it_is_sent_again() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    rig.feed(Input::Request(f.clone())).expect("fresh");
    order_and_execute(&mut rig, &f);
    for _ in 0..2 {
        rig.feed(Input::Request(f.clone())).expect("it is sent again");
    }
    let hears = |rig: &mut Rig, said: [(u16, u64); 2]| {
        for (from, executed) in said {
            rig.peer(from, endorse(0, (entry(&f), executed))).expect("counted");
        }
        says_owed(rig, &f)
    };
    assert!(!hears(&mut rig, [(1, 1), (3, 0)]));
    assert!(hears(&mut rig, [(1, 1), (3, 1)]));
}

/// Nor does what is older than what this replica has skipped: it may be void by now.
#[test]
fn who_endorsed_before_what_was_skipped_does_not_count() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    fetched(&mut rig, signed_by(&[0, 1, 3], 8));
    rig.feed(Input::Request(f.clone())).expect("fresh");
    let hears = |rig: &mut Rig, said: [(u16, u64); 2]| {
        for (from, executed) in said {
            rig.peer(from, endorse(0, (entry(&f), executed))).expect("counted");
        }
        says_owed(rig, &f)
    };
    assert!(!hears(&mut rig, [(1, 8), (3, 7)]));
    assert!(hears(&mut rig, [(1, 8), (3, 8)]));
}

/// A client has shown a frame with a wrong authenticator to some, who endorse it. That it is its
/// client's everybody has from them, whether they said so before the proposal came or after.
#[test]
fn a_backup_trusts_a_frame_that_a_weak_quorum_endorses() {
    for late in [false, true] {
        let f = shown_to_some(1);
        let mut rig = Rig::new(2, 1);
        rig.wait(Span::secs(50));
        let hears = |rig: &mut Rig, from: u16| {
            rig.peer(from, endorse(0, (entry(&f), 0))).expect("counted");
        };
        if !late {
            hears(&mut rig, 1);
            hears(&mut rig, 3);
        }
        let p = Proposal::Frames { time: rig.now.wall, entries: vec![entry(&f)] };
        rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
        let body = Message::Body { vouched: false, frame: f.clone() };
        rig.peer(0, body.clone()).expect("its body");
        if late {
            assert!(!has_prepare(&rig.sent()), "that was nobody's word but the leader's");
            hears(&mut rig, 3);
            hears(&mut rig, 3);
            rig.peer(0, body.clone()).expect("its body");
            assert!(!has_prepare(&rig.sent()), "one may lie");
            hears(&mut rig, 1);
            rig.peer(0, body).expect("its body");
        }
        assert!(has_prepare(&rig.sent()));
    }
}

/// Where frames travel with proposals, a leader waits for no vouches: what it dropped when it was
/// refused, and kept since others hold it, it has to order for what they say (L3b).
#[test]
fn an_inline_frame_that_is_owed_after_it_was_refused_is_ordered() {
    let switches = Switches { bodies: crate::pbft::Bodies::Inline, ..Switches::default() };
    let mut rig = Rig::with(0, 1, switches);
    let f = frame_with(2, b"op", |digest| {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&digest.0);
        Authenticator::Signature(Signature(bytes))
    });
    rig.feed(Input::Request(f.clone())).expect("fresh");
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
    let vouch = Message::Vouch { executed: Seq(1 << 50), entries: vec![entry(&f)] };
    rig.peer(3, vouch).expect("a liar goes on holding it");
    let vote = vote(1, &proposal(&[&f]));
    for from in [1, 2] {
        rig.peer(from, Message::Prepare(vote)).expect("a vote");
    }
    for from in [1, 2] {
        rig.peer(from, Message::Commit(vote)).expect("a vote");
    }
    let refused = FromStage::Refused { seq: Seq(1), entry: entry(&f) };
    rig.feed(Input::Stage(refused)).expect("news");
    execute(&mut rig, 1);
    assert!(proposals(&rig.sent()).is_empty());
    is_owed(&mut rig, (entry(&f), 1));
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// What was on its way when the frame was refused came after that, and stayed: with thousands of
/// refusals more it seemed to be said of a frame that nobody has.
#[test]
fn what_comes_late_is_void_too() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(0, 1);
    execute(&mut rig, 3);
    let refuse = |rig: &mut Rig, f: &Frame| {
        let refused = FromStage::Refused { seq: Seq(3), entry: entry(f) };
        rig.feed(Input::Stage(refused)).expect("news");
    };
    refuse(&mut rig, &f);
    rig.peer(1, owed((entry(&f), 2))).expect("it was on its way");
    for id in 10..4_200 {
        rig.lane.pool.refused_late(
            Time(1),
            (pool::key_of(&entry(&frame(id, b"op"))), Seq(3)),
            None,
        );
    }
    assert_eq!(rig.lane.pool.decided_at(&pool::key_of(&entry(&f))), Seq(0), "it is forgotten");
    rig.peer(2, owed((entry(&f), 3))).expect("one may lie");
    assert!(!is_urgent(&rig, &f));
    rig.peer(3, owed((entry(&f), 3))).expect("a debt");
    assert!(is_urgent(&rig, &f));
}

/// A backup takes a small frame on others' word, without a look at its signature, and leads next:
/// it needs a copy whose signature it has checked.
#[test]
fn a_copy_that_was_not_checked_makes_way_for_one_that_is() {
    let f = frame(1, b"op");
    let key = pool::key_of(&entry(&f));
    let mut pool = pool::Pool::new(true);
    let voucher = |from| (ReplicaId(from), None);
    [1, 2].into_iter().for_each(|from| _ = pool.vouch(Time(1), voucher(from), key, 2));
    let want = pool::Want { seq: Seq(5), place: 0, needs_trust: true };
    pool.want(Time(1), key, want, None, 2);
    pool.body(Time(1), &f, false, (2, Seq(5)));
    pool.unwant(Time(1), &key, Seq(5));
    assert!(pool.get(&key).is_some_and(|held| held.frame.is_some() && !held.own));
    let by = [1, 2].map(ReplicaId).into_iter().collect();
    assert!(pool.owed(Time(2), key, by), "its body is to be fetched");
    pool.check();
    assert_eq!(pool.want_unproposed(2, Time(2)).0, [entry(&f)]);
    pool.body(Time(3), &f, false, (2, Seq(6)));
    assert!(pool.get(&key).is_some_and(|held| held.frame.is_none()), "nor is this one");
    pool.body(Time(3), &f, true, (2, Seq(6)));
    pool.satisfied(&key, 2).expect("it is here");
    assert!(!pool.owed(Time(4), key, by));
    pool.queue_if_eligible(key, 3);
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [key]);
}

/// What is owed comes to be so in any order, and a frame that is ordered before its predecessor is
/// refused, and has to be owed once more: of several that a client sends one after the other, one
/// would be executed each T / 4 (swarm seed 3505864 of that time).
#[test]
fn what_a_session_is_owed_is_ordered_as_it_was_sent() {
    let mut rig = Rig::new(0, 1);
    let frames: Vec<Arc<Frame>> = (1..=5).map(|id| frame(id, b"op")).collect();
    for (f, seq) in frames[..2].iter().zip(1..) {
        rig.feed(Input::Request(f.clone())).expect("fresh");
        for from in [1, 2] {
            rig.peer(from, vouch_for(vec![entry(f)])).expect("a vouch");
        }
        assert_eq!(proposals(&rig.sent()), [(Seq(seq), 1)], "as much as is under way at a time");
    }
    for late in [3, 4, 2] {
        is_owed(&mut rig, (entry(&frames[late]), 0));
    }
    rig.wait(Span::millis(4));
    let in_order: Vec<BatchEntry> = frames[2..].iter().map(|f| entry(f)).collect();
    let asks = |(_, m): &(Target, Message)| match m {
        Message::Fetch { entries, .. } => Some(entries.clone()),
        _ => None,
    };
    assert_eq!(rig.sent().iter().filter_map(asks).collect::<Vec<_>>().concat(), in_order);
    for late in [4, 3, 2] {
        let body = Message::Body { vouched: true, frame: frames[late].clone() };
        rig.peer(1, body).expect("the body");
    }
    let vote = vote(1, &proposal(&[&frames[0]]));
    for of in [Message::Prepare(vote), Message::Commit(vote)] {
        [1, 2].iter().for_each(|from| rig.peer(*from, of.clone()).expect("a vote"));
    }
    execute(&mut rig, 1);
    let names = |(_, m): &(Target, Message)| match m {
        Message::PrePrepare { proposal, .. } => Some(proposal.entries().to_vec()),
        _ => None,
    };
    assert_eq!(rig.sent().iter().filter_map(names).collect::<Vec<_>>(), [in_order], "one batch");
}
