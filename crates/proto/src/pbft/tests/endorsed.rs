//! What a proof that a quorum endorses a frame is good for, and how often it is shown.

use super::grieve::{quorum_endorses, says, signed_vouch};
use super::restart::{fetched, signed_by};
use super::*;
use crate::pbft::pool;

fn execute(rig: &mut Rig, upto: u64) {
    let progress = Progress { executed: Seq(upto), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
}

/// A client alone can have any frames refused, and shown to some only after that. Each correct
/// replica tells the leader once of each that a quorum endorses: it must not be taken for one that
/// has frames ordered again for ever.
#[test]
fn all_that_a_quorum_endorses_anew_after_a_refusal_is_heard_at_once() {
    let mut rig = Rig::new(0, 1);
    let frames: Vec<Arc<Frame>> = (2..18).map(|id| frame(id, b"op")).collect();
    execute(&mut rig, 3);
    for f in &frames {
        let refused = FromStage::Refused { seq: Seq(3), entry: entry(f) };
        rig.feed(Input::Stage(refused)).expect("news");
    }
    for f in &frames {
        rig.peer(1, quorum_endorses((entry(f), 3))).expect("a debt");
    }
    assert!(frames.iter().all(|f| rig.lane.pool.is_urgent(&pool::key_of(&entry(f)))));
}

/// Shows the leader proofs of before number 1, where their frames were refused, until it takes no
/// more from replica 1. How many it took.
pub(super) fn shows_old_proofs(rig: &mut Rig) -> u64 {
    let shown = |id| {
        let f = frame(id, b"op");
        let refused = FromStage::Refused { seq: Seq(1), entry: entry(&f) };
        rig.feed(Input::Stage(refused)).expect("news");
        rig.wait(Span::micros(100));
        rig.peer(1, quorum_endorses((entry(&f), 0))).is_ok()
    };
    (1_000..).map(shown).take_while(|taken| *taken).count() as u64
}

/// A proof outlives the frame for as long as the view lasts.
#[test]
fn a_teller_has_so_many_frames_ordered_in_vain_and_no_more() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(0, 1);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    rig.peer(1, quorum_endorses((entry(&f), 0))).expect("a debt");
    let p = proposal(&[&f]);
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
    for from in [1, 2] {
        rig.peer(from, Message::Prepare(vote(1, &p))).expect("a vote");
    }
    for from in [1, 2] {
        rig.peer(from, Message::Commit(vote(1, &p))).expect("a vote");
    }
    execute(&mut rig, 1);
    let more = Err(Reject::Stale("endorsed frames faster than they are checked"));
    let taken = shows_old_proofs(&mut rig);
    assert!((64..70).contains(&taken), "{taken}");
    assert_eq!(rig.peer(1, quorum_endorses((entry(&f), 0))), more);
    // Somebody else's are counted apart: who was sent it again since then, or has fetched a state,
    // waits for it still.
    rig.peer(2, quorum_endorses((entry(&f), 1))).expect("a debt");
    rig.wait(Span::millis(4));
    assert!(rig.sent().iter().any(|(_, m)| matches!(m, Message::Fetch { .. })));
    rig.peer(1, Message::Body { vouched: true, frame: f.clone() }).expect("its body");
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// Replica 2, which tells the leader, has forgotten that the frame was executed, and the leader
/// remembers it, since its client has sent it again. Were the proof void to the leader, replica 2
/// would blame it for a debt that it has not.
#[test]
fn a_proof_of_who_remembers_less_than_the_leader_is_taken() {
    let mixed = |f: &Frame| {
        let said = [(1, 0), (2, 9_000), (3, 0)];
        let proof = said.map(|(from, at)| (ReplicaId(from), says(from, 0, (entry(f), at))));
        Message::Endorsed { view: View(0), entry: entry(f), proof: proof.to_vec() }
    };
    let mut rig = Rig::new(0, 1);
    execute(&mut rig, 1);
    let frames: Vec<Arc<Frame>> = (1..=400).map(|id| frame(id, b"op")).collect();
    for f in &frames {
        let key = pool::key_of(&entry(f));
        rig.lane.pool.executed(&key, Seq(1));
        rig.feed(Input::Request(f.clone())).expect("its answer is cached");
        let _ = rig.feed(Input::Request(f.clone()));
    }
    // As many as a correct one tells of, T being a second.
    for (i, f) in frames.iter().enumerate() {
        assert_eq!(rig.peer(2, mixed(f)), Ok(()), "{i}");
        assert!(rig.lane.pool.is_urgent(&pool::key_of(&entry(f))));
        rig.wait(Span::micros(3_125));
    }
}

/// Liars keep back what they say of many frames, and then say it to one replica, which tells the
/// leader of no more than that takes from it.
#[test]
fn a_replica_tells_a_leader_of_a_bounded_number_of_debts() {
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    let frames: Vec<Arc<Frame>> = (1..=96).map(|id| frame(id, b"op")).collect();
    for from in [0, 1, 3] {
        for some in frames.chunks(16) {
            let of = |f: &Arc<Frame>| (entry(f), says(from, 0, (entry(f), 0)));
            let entries = some.iter().map(of).collect();
            let _ = rig.peer(from, Message::Endorse { view: View(0), entries });
        }
    }
    let tells = |rig: &mut Rig| {
        let is_told = |(_, m): &(Target, Message)| matches!(m, Message::Endorsed { .. });
        rig.sent().iter().filter(|one| is_told(one)).count()
    };
    assert_eq!(tells(&mut rig), 32);
}

/// A leader may have had no time for it when it was told first.
#[test]
fn a_leader_is_told_every_quarter_of_t() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    rig.feed(Input::Request(f.clone())).expect("fresh");
    for from in [1, 3] {
        rig.peer(from, signed_vouch(from, 0, entry(&f))).expect("counted");
    }
    let mut told = Vec::new();
    for step in 0..122_u64 {
        rig.wait(Span::millis(10));
        rig.feed(Input::Turn).expect("turns are never refused");
        let endorsed = |(to, m): &(Target, Message)| {
            *to == Target::One(ReplicaId(0)) && matches!(m, Message::Endorsed { .. })
        };
        told.extend(rig.sent().iter().filter(|one| endorsed(one)).map(|_| step));
    }
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.windows(2).all(|two| two[1] - two[0] >= 24), "{told:?}");
}

/// Whether replica 2, which waits for `f`, tells the leader that a quorum endorses it.
fn tells(rig: &mut Rig, f: &Frame, said: [(u16, u64); 2]) -> bool {
    for (from, executed) in said {
        let said = says(from, 0, (entry(f), executed));
        let endorse = Message::Endorse { view: View(0), entries: vec![(entry(f), said)] };
        rig.peer(from, endorse).expect("counted");
    }
    rig.wait(Span::millis(300));
    rig.sent().iter().any(|(_, message)| matches!(message, Message::Endorsed { .. }))
}

/// A leader knows that the frame was executed since a liar signed, and its client sent it again.
/// Were the leader told of that signature, it would be blamed for a debt that it has not (swarm
/// seed 3071049).
#[test]
fn who_signed_before_a_frame_was_executed_does_not_count_when_it_is_sent_again() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    rig.feed(Input::Request(f.clone())).expect("fresh");
    let p = Proposal::Frames { time: rig.now.wall, entries: vec![entry(&f)] };
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    rig.peer(1, Message::Prepare(vote(1, &p))).expect("a vote");
    for from in [0, 1] {
        rig.peer(from, Message::Commit(vote(1, &p))).expect("a vote");
    }
    execute(&mut rig, 1);
    for _ in 0..2 {
        rig.feed(Input::Request(f.clone())).expect("it is sent again");
    }
    assert!(!tells(&mut rig, &f, [(1, 1), (3, 0)]));
    assert!(tells(&mut rig, &f, [(1, 1), (3, 1)]));
}

/// Nor does one that is older than what this replica has skipped: it may be void by now.
#[test]
fn who_signed_before_what_was_skipped_does_not_count() {
    let f = frame(1, b"op");
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(50));
    fetched(&mut rig, signed_by(&[0, 1, 3], 8));
    rig.feed(Input::Request(f.clone())).expect("fresh");
    assert!(!tells(&mut rig, &f, [(1, 8), (3, 7)]));
    assert!(tells(&mut rig, &f, [(1, 8), (3, 8)]));
}
