//! Frames that were ordered before their predecessors: refused, and ordered again when the client
//! sends them again.

use super::*;
use crate::pbft::msg::endorse_bytes;
use crate::pbft::pool;
use base::VoteSet;

/// A leader that has ordered `frame` at number 1 and delivered it.
fn ordered(frame: &Arc<Frame>) -> Rig {
    let mut rig = Rig::new(0, 1);
    rig.feed(Input::Request(frame.clone())).expect("fresh");
    vouch(&mut rig, frame, &[1, 2]);
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
    let vote = vote(1, &proposal(&[frame]));
    for from in [1, 2] {
        rig.peer(from, Message::Prepare(vote)).expect("a vote");
    }
    for from in [1, 2] {
        rig.peer(from, Message::Commit(vote)).expect("a vote");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    rig
}

fn vouch(rig: &mut Rig, frame: &Frame, by: &[u16]) {
    for from in by {
        rig.peer(*from, Message::Vouch(vec![entry(frame)])).expect("a vouch");
    }
}

fn refuse(rig: &mut Rig, frame: &Frame) {
    let refused = FromStage::Refused { seq: Seq(1), entry: entry(frame) };
    rig.feed(Input::Stage(refused)).expect("news");
}

fn execute(rig: &mut Rig) {
    let progress = Progress { executed: Seq(1), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
}

/// The client sends it again once, and once is enough: the first retransmission must not be taken
/// for the wish to have a cached reply, which does not exist.
#[test]
fn a_refused_frame_is_ordered_again_when_it_comes_again() {
    let f = frame(2, b"op");
    let mut rig = ordered(&f);
    refuse(&mut rig, &f);
    execute(&mut rig);
    assert!(proposals(&rig.sent()).is_empty(), "not before the client asks for it");
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    vouch(&mut rig, &f, &[1]);
    assert!(proposals(&rig.sent()).is_empty(), "the old vouches do not count");
    vouch(&mut rig, &f, &[2]);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// Other replicas may be faster than this one's stage, and so may the client.
#[test]
fn what_came_again_before_the_refusal_was_known_counts() {
    let f = frame(2, b"op");
    let mut rig = ordered(&f);
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    vouch(&mut rig, &f, &[1, 2]);
    refuse(&mut rig, &f);
    assert!(proposals(&rig.sent()).is_empty());
    execute(&mut rig);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

#[test]
fn a_refusal_that_was_overtaken_by_a_checkpoint_is_not_lost() {
    let f = frame(2, b"op");
    let mut rig = ordered(&f);
    execute(&mut rig);
    refuse(&mut rig, &f);
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    vouch(&mut rig, &f, &[1, 2]);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// It may have come again before, and the leader may have ordered it anew on the vouches that
/// followed: whoever made one still has to have the body.
#[test]
fn what_is_refused_late_keeps_its_body_if_it_came_from_its_client() {
    for came in [false, true] {
        let f = frame(2, b"op");
        let mut rig = Rig::new(1, 1);
        let proposal = proposal(&[&f]);
        if came {
            rig.feed(Input::Request(f.clone())).expect("fresh");
        }
        rig.peer(0, pre_prepare(1, &proposal)).expect("a proposal");
        if !came {
            rig.wait(Span::millis(100));
            rig.peer(0, Message::Body { vouched: true, frame: f.clone() }).expect("a body");
        }
        rig.peer(2, Message::Prepare(vote(1, &proposal))).expect("a vote");
        for from in [0, 2] {
            rig.peer(from, Message::Commit(vote(1, &proposal))).expect("a vote");
        }
        assert_eq!(rig.delivered(), [Seq(1)]);
        execute(&mut rig);
        refuse(&mut rig, &f);
        assert_eq!(rig.lane.report().pending_frames, u64::from(came));
        rig.lane.check();
    }
}

/// A backup keeps the body of a frame that came again, and nothing of one that did not.
#[test]
fn a_refused_frame_stays_only_if_it_came_again() {
    for again in [false, true] {
        let f = frame(2, b"op");
        let mut rig = ordered(&f);
        if again {
            rig.feed(Input::Request(f.clone())).expect("it comes again");
        }
        refuse(&mut rig, &f);
        execute(&mut rig);
        assert_eq!(rig.lane.report().pending_frames, u64::from(again));
    }
}

/// The next view votes on the batch once more, which is executed: that does not order the frame
/// again, which was refused and waits for its turn.
#[test]
fn a_refused_frame_is_ordered_again_in_the_next_view() {
    use super::views::{install, plan};
    use crate::group::link::Choice;
    let f = frame(2, b"op");
    let mut rig = ordered(&f);
    refuse(&mut rig, &f);
    execute(&mut rig);
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    let digest = proposal(&[&f]).digest(GROUP, Seq(1));
    install(&mut rig, &plan(4, 0, &[Choice::Digest(digest)]));
    vouch(&mut rig, &f, &[1, 2]);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// A client sends its frame again and again, and a frame is in the pool of a backup, vouched for
/// twice, when the proposal comes that orders and refuses it. If the backup then dropped it and
/// the leader ordered it again on the second vouches, nobody but the leader would have the body,
/// one vouch would be too little for anybody, and a client would have changed the view.
#[test]
fn what_came_again_before_it_was_ordered_stays_when_it_is_refused() {
    let f = frame(2, b"op");
    let mut rig = Rig::new(0, 1);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    vouch(&mut rig, &f, &[1, 2]);
    let vote = vote(1, &proposal(&[&f]));
    for from in [1, 2] {
        rig.peer(from, Message::Prepare(vote)).expect("a vote");
    }
    for from in [1, 2] {
        rig.peer(from, Message::Commit(vote)).expect("a vote");
    }
    refuse(&mut rig, &f);
    execute(&mut rig);
    assert_eq!(rig.lane.report().pending_frames, 1);
}

/// Who vouches for the first time after the frame was ordered has not vouched twice, and drops it.
#[test]
fn a_late_first_vouch_does_not_order_a_refused_frame_again() {
    let f = frame(2, b"op");
    let mut rig = ordered(&f);
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    vouch(&mut rig, &f, &[3, 1]);
    refuse(&mut rig, &f);
    execute(&mut rig);
    assert!(proposals(&rig.sent()).is_empty(), "two have vouched again: the leader and one more");
    vouch(&mut rig, &f, &[2]);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// Backups repeat their vouches now and then, also between the moment when the leader orders the
/// frame and the one when they hear of it. The leader takes such a repetition for a second vouch,
/// as it is: who made it must still have the frame when that is ordered again.
#[test]
fn what_was_vouched_for_again_without_coming_again_stays_when_it_is_refused() {
    let f = frame(2, b"op");
    let mut rig = Rig::new(1, 1);
    let vouch = (Target::One(ReplicaId(0)), Message::Vouch(vec![entry(&f)]));
    rig.feed(Input::Request(f.clone())).expect("fresh");
    assert!(rig.sent().contains(&vouch));
    rig.wait(Span::secs(1));
    assert!(rig.sent().contains(&vouch), "with the heartbeat");
    let proposal = proposal(&[&f]);
    rig.peer(0, pre_prepare(1, &proposal)).expect("a proposal");
    rig.peer(2, Message::Prepare(vote(1, &proposal))).expect("a vote");
    for from in [0, 2] {
        rig.peer(from, Message::Commit(vote(1, &proposal))).expect("a vote");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    refuse(&mut rig, &f);
    execute(&mut rig);
    assert_eq!(rig.lane.report().pending_frames, 1);
}

/// An endorsed frame was ordered, refused, and is endorsed anew. The leader took that for old news,
/// while the endorsements that it had were void, and was replaced for starving it: a client alone
/// changed the view (swarm seed 2820032 of that time).
#[test]
fn a_refused_frame_that_is_endorsed_again_is_ordered_again() {
    let f = frame(2, b"op");
    let bytes = endorse_bytes(GROUP, Epoch(0), View(0), &entry(&f));
    let sign = |from| (ReplicaId(from), PlainKeys { me: ReplicaId(from), n: 4 }.sign(&bytes));
    let proof = [1, 2, 3].map(sign).to_vec();
    let endorsed = Message::Endorsed { view: View(0), entry: entry(&f), proof };
    let mut rig = Rig::new(0, 1);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    rig.peer(1, endorsed.clone()).expect("a debt");
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
    let vote = vote(1, &proposal(&[&f]));
    for from in [1, 2] {
        rig.peer(from, Message::Prepare(vote)).expect("a vote");
    }
    for from in [1, 2] {
        rig.peer(from, Message::Commit(vote)).expect("a vote");
    }
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    refuse(&mut rig, &f);
    execute(&mut rig);
    assert!(proposals(&rig.sent()).is_empty(), "the old endorsements do not count");
    rig.peer(1, endorsed).expect("a debt again");
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// What speaks up for `f`, of all that `rig` sends in so many seconds.
fn speaks_up(rig: &mut Rig, f: &Frame, seconds: u64) -> bool {
    let mut named = false;
    for _ in 0..seconds * 20 {
        rig.wait(Span::millis(50));
        named |= rig.sent().iter().any(|(_, message)| match message {
            Message::Vouch(entries) => entries.contains(&entry(f)),
            Message::Endorse { entries, .. } => entries.iter().any(|(e, _)| *e == entry(f)),
            _ => false,
        });
    }
    named
}

/// Backups repeated their vouches for a frame that was refused and had not come again, and endorsed
/// it, so that it was ordered and refused some hundred times a second until it was forgotten, for
/// a minute, though its client had sent it twice (swarm seed 2800038 of that time).
#[test]
fn what_was_refused_is_not_spoken_up_for_until_it_comes_again() {
    use super::views::{install, plan};
    let f = frame(2, b"op");
    let mut rig = Rig::new(1, 1);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    assert!(speaks_up(&mut rig, &f, 2), "also with heartbeats, so that it stays when refused");
    let proposal = proposal(&[&f]);
    rig.peer(0, pre_prepare(1, &proposal)).expect("a proposal");
    rig.peer(2, Message::Prepare(vote(1, &proposal))).expect("a vote");
    for from in [0, 2] {
        rig.peer(from, Message::Commit(vote(1, &proposal))).expect("a vote");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    refuse(&mut rig, &f);
    execute(&mut rig);
    assert_eq!(rig.lane.report().pending_frames, 1);
    assert!(!speaks_up(&mut rig, &f, 5));
    install(&mut rig, &plan(2, 0, &[]));
    assert!(!speaks_up(&mut rig, &f, 1), "nor to a new leader");
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    assert!(speaks_up(&mut rig, &f, 2));
}

/// A pool that holds `f`, which its client has sent twice, and in which a quorum endorses it.
fn endorsed(f: &Arc<Frame>, queued: bool) -> pool::Pool {
    let (now, key) = (Time(1), pool::key_of(&entry(f)));
    let mut pool = pool::Pool::default();
    for _ in 0..2 {
        pool.arrive(now, f, 2);
    }
    if queued {
        for from in [0, 1, 2] {
            pool.vouch(now, ReplicaId(from), key, 2);
        }
        pool.queue_if_eligible(key, 3);
    }
    let mut by = VoteSet::EMPTY;
    for from in [0, 1, 2] {
        by.insert(ReplicaId(from));
    }
    assert!(!pool.endorsed(now, key, by, 2), "the body is here");
    pool.queue_if_eligible(key, 3);
    pool
}

/// A frame that is endorsed while it waits to be proposed has two places in the queue. It was
/// proposed from the first and refused; from the second the leader proposed it once more, on the
/// word of fewer than a quorum, without accepting that itself, and so without a record of it
/// (swarm seed 14727 of that time).
#[test]
fn a_place_that_is_left_over_in_the_queue_proposes_nothing() {
    let f = frame(2, b"op");
    let key = pool::key_of(&entry(&f));
    let mut pool = endorsed(&f, true);
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [key]);
    pool.vouch(Time(2), ReplicaId(1), key, 2);
    assert!(pool.refused(&key).is_empty());
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [], "one has vouched since");
    for from in [2, 3] {
        pool.vouch(Time(2), ReplicaId(from), key, 2);
        pool.queue_if_eligible(key, 3);
    }
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [key]);
    pool.check();
}

/// Who endorsed a frame has not vouched for it twice when its first vouch comes, and may drop the
/// frame when it is refused.
#[test]
fn a_first_vouch_after_an_endorsement_does_not_order_a_refused_frame_again() {
    let f = frame(2, b"op");
    let key = pool::key_of(&entry(&f));
    let mut pool = endorsed(&f, false);
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [key], "as good as vouches");
    let vouch_again = |pool: &mut pool::Pool| {
        for from in [0, 1, 2] {
            pool.vouch(Time(2), ReplicaId(from), key, 2);
        }
    };
    vouch_again(&mut pool);
    assert!(pool.refused(&key).is_empty());
    pool.queue_if_eligible(key, 3);
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [], "nobody has vouched twice");
    vouch_again(&mut pool);
    pool.queue_if_eligible(key, 3);
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [key]);
}
