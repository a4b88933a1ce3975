//! Frames that were ordered before their predecessors: refused, and ordered again when the client
//! sends them again.

use super::grieve::{is_owed, owed};
use super::*;
use crate::pbft::pool;

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
    vouch_having(Seq(0), rig, frame, by);
}

/// They vouch, and have executed up to there.
fn vouch_having(executed: Seq, rig: &mut Rig, frame: &Frame, by: &[u16]) {
    for from in by {
        let entries = vec![entry(frame)];
        rig.peer(*from, Message::Vouch { executed, entries }).expect("a vouch");
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
    vouch_having(Seq(1), &mut rig, &f, &[1]);
    assert!(proposals(&rig.sent()).is_empty(), "the old vouches do not count");
    vouch(&mut rig, &f, &[2]);
    assert!(proposals(&rig.sent()).is_empty(), "nor does one that was given before the refusal");
    vouch_having(Seq(1), &mut rig, &f, &[2]);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// Other replicas may be faster than this one's stage, and so may the client.
#[test]
fn what_came_again_before_the_refusal_was_known_counts() {
    let f = frame(2, b"op");
    let mut rig = ordered(&f);
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    vouch_having(Seq(1), &mut rig, &f, &[1, 2]);
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
    vouch_having(Seq(1), &mut rig, &f, &[1, 2]);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// A refusal that was overtaken finds the frame among what was executed.
#[test]
fn what_is_refused_late_waits_if_it_has_come_again() {
    for again in [false, true] {
        let f = frame(2, b"op");
        let mut rig = Rig::new(1, 1);
        let proposal = proposal(&[&f]);
        rig.feed(Input::Request(f.clone())).expect("fresh");
        rig.peer(0, pre_prepare(1, &proposal)).expect("a proposal");
        rig.peer(2, Message::Prepare(vote(1, &proposal))).expect("a vote");
        for from in [0, 2] {
            rig.peer(from, Message::Commit(vote(1, &proposal))).expect("a vote");
        }
        assert_eq!(rig.delivered(), [Seq(1)]);
        execute(&mut rig);
        if again {
            rig.feed(Input::Request(f.clone())).expect("it comes again");
        }
        rig.sent();
        refuse(&mut rig, &f);
        assert_eq!(rig.lane.report().pending_frames, u64::from(again));
        let anew = Message::Vouch { executed: Seq(1), entries: vec![entry(&f)] };
        assert_eq!(rig.sent().contains(&(Target::One(ReplicaId(0)), anew)), again);
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
    vouch_having(Seq(1), &mut rig, &f, &[1, 2]);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// A client sends its frame again and again, and it has come twice when the proposal comes that
/// orders it.
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

/// Who has not executed the refusal when it vouches may drop the frame then, whenever its vouch
/// comes.
#[test]
fn a_vouch_of_before_the_refusal_does_not_order_a_frame_again() {
    let f = frame(2, b"op");
    let mut rig = ordered(&f);
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    vouch(&mut rig, &f, &[3, 1, 2]);
    refuse(&mut rig, &f);
    execute(&mut rig);
    vouch(&mut rig, &f, &[3, 1, 2]);
    assert!(proposals(&rig.sent()).is_empty(), "only the leader holds it");
    vouch_having(Seq(1), &mut rig, &f, &[2]);
    assert!(proposals(&rig.sent()).is_empty(), "the leader and one more");
    vouch_having(Seq(7), &mut rig, &f, &[1]);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// The same where the leader has forgotten the frame.
#[test]
fn a_refusal_is_remembered_for_longer_than_the_frame() {
    let f = frame(2, b"op");
    let mut rig = ordered(&f);
    refuse(&mut rig, &f);
    execute(&mut rig);
    assert_eq!(rig.lane.report().pending_frames, 0);
    vouch(&mut rig, &f, &[3, 1, 2]);
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    assert!(proposals(&rig.sent()).is_empty(), "only the leader holds it");
    vouch_having(Seq(1), &mut rig, &f, &[1, 2]);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// What came again while it was ordered is vouched for anew once it was refused: what was said
/// before that counts no more.
#[test]
fn a_backup_vouches_anew_for_what_was_refused_and_has_come_again() {
    for again in [false, true] {
        let f = frame(2, b"op");
        let mut rig = Rig::new(1, 1);
        let proposal = proposal(&[&f]);
        rig.feed(Input::Request(f.clone())).expect("fresh");
        rig.peer(0, pre_prepare(1, &proposal)).expect("a proposal");
        rig.peer(2, Message::Prepare(vote(1, &proposal))).expect("a vote");
        for from in [0, 2] {
            rig.peer(from, Message::Commit(vote(1, &proposal))).expect("a vote");
        }
        assert_eq!(rig.delivered(), [Seq(1)]);
        if again {
            rig.feed(Input::Request(f.clone())).expect("it comes again");
        }
        rig.sent();
        refuse(&mut rig, &f);
        execute(&mut rig);
        let anew = Message::Vouch { executed: Seq(1), entries: vec![entry(&f)] };
        assert_eq!(rig.sent().contains(&(Target::One(ReplicaId(0)), anew)), again);
    }
}

/// An endorsed frame was ordered, refused, and is endorsed anew. The leader took that for old news,
/// while the endorsements that it had were void, and was replaced for starving it: a client alone
/// changed the view (swarm seed 2820032 of that time).
#[test]
fn a_refused_frame_that_is_endorsed_again_is_ordered_again() {
    let f = frame(2, b"op");
    let mut rig = Rig::new(0, 1);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    is_owed(&mut rig, (entry(&f), 0));
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
    // Whoever says again what was so before could have it ordered for as long as the view lasts.
    is_owed(&mut rig, (entry(&f), 0));
    rig.peer(3, owed((entry(&f), 1))).expect("one may lie");
    assert!(proposals(&rig.sent()).is_empty());
    rig.peer(2, owed((entry(&f), 1))).expect("a debt again");
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// What speaks up for `f`, of all that `rig` sends in so many seconds.
fn speaks_up(rig: &mut Rig, f: &Frame, seconds: u64) -> bool {
    let mut named = false;
    for _ in 0..seconds * 20 {
        rig.wait(Span::millis(50));
        named |= rig.sent().iter().any(|(_, message)| match message {
            Message::Vouch { entries, .. } => entries.contains(&entry(f)),
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
    assert!(speaks_up(&mut rig, &f, 2));
    let proposal = proposal(&[&f]);
    rig.peer(0, pre_prepare(1, &proposal)).expect("a proposal");
    rig.peer(2, Message::Prepare(vote(1, &proposal))).expect("a vote");
    for from in [0, 2] {
        rig.peer(from, Message::Commit(vote(1, &proposal))).expect("a vote");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    refuse(&mut rig, &f);
    execute(&mut rig);
    assert!(!speaks_up(&mut rig, &f, 5));
    install(&mut rig, &plan(2, 0, &[]));
    assert!(!speaks_up(&mut rig, &f, 1), "nor to a new leader");
    rig.feed(Input::Request(f.clone())).expect("it comes again");
    assert!(speaks_up(&mut rig, &f, 2));
}

/// The same where others hold it, to whom it has come again.
#[test]
fn what_others_hold_is_spoken_up_for_by_them_alone() {
    use super::views::{install, plan};
    let f = frame(2, b"op");
    let mut rig = ordered(&f);
    vouch_having(Seq(1), &mut rig, &f, &[1, 2]);
    refuse(&mut rig, &f);
    execute(&mut rig);
    assert_eq!(rig.lane.report().pending_frames, 1);
    assert!(proposals(&rig.sent()).is_empty(), "they are two");
    install(&mut rig, &plan(1, 0, &[]));
    assert!(!speaks_up(&mut rig, &f, 5));
    install(&mut rig, &plan(4, 0, &[]));
    assert!(proposals(&rig.sent()).is_empty(), "also as leader of another view");
    vouch_having(Seq(1), &mut rig, &f, &[3]);
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// A pool that holds `f`, which its client has sent twice, and in which a quorum endorses it.
fn endorsed(f: &Arc<Frame>, queued: bool) -> pool::Pool {
    let (now, key) = (Time(1), pool::key_of(&entry(f)));
    let mut pool = pool::Pool::default();
    for _ in 0..2 {
        pool.arrive(now, f, (2, Seq(0)));
    }
    if queued {
        for from in [0, 1, 2] {
            pool.vouch(now, (ReplicaId(from), Some(Seq(0))), key, 2);
        }
        pool.queue_if_eligible(key, 3);
    }
    let by = [0, 1, 2].map(ReplicaId).into_iter().collect();
    assert!(!pool.owed(now, key, by), "the body is here");
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
    pool.mark_ordered(&key, Seq(1));
    pool.vouch(Time(2), (ReplicaId(1), Some(Seq(1))), key, 2);
    assert!(pool.refused(Time(2), (&key, Seq(1)), false).is_empty());
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [], "one has vouched since");
    for from in [2, 3] {
        pool.vouch(Time(2), (ReplicaId(from), Some(Seq(1))), key, 2);
        pool.queue_if_eligible(key, 3);
    }
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [key]);
    pool.check();
}

/// Who endorsed a frame and vouches for it before it is refused may drop it then.
#[test]
fn a_vouch_after_an_endorsement_does_not_order_a_refused_frame_again() {
    let f = frame(2, b"op");
    let key = pool::key_of(&entry(&f));
    let mut pool = endorsed(&f, false);
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [key], "as good as vouches");
    pool.mark_ordered(&key, Seq(1));
    let vouch = |pool: &mut pool::Pool, executed| {
        for from in [0, 1, 2] {
            pool.vouch(Time(2), (ReplicaId(from), Some(executed)), key, 2);
        }
    };
    vouch(&mut pool, Seq(0));
    assert!(pool.refused(Time(2), (&key, Seq(1)), false).is_empty());
    pool.queue_if_eligible(key, 3);
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [], "nobody has vouched since");
    vouch(&mut pool, Seq(1));
    pool.queue_if_eligible(key, 3);
    assert_eq!(pool.take_batch(3, (1, 1 << 20)), [key]);
}

/// Views begin again and again while a leader waits for what it proposes: vouches do not become
/// younger by that, and after a minute nobody else may have the frame.
#[test]
fn a_new_view_makes_no_vouch_younger() {
    let f = frame(2, b"op");
    let key = pool::key_of(&entry(&f));
    for (seconds, counts) in [(19, true), (21, false)] {
        let mut pool = pool::Pool::default();
        pool.arrive(Time(1), &f, (2, Seq(0)));
        for from in [0, 1, 2] {
            pool.vouch(Time(1), (ReplicaId(from), Some(Seq(0))), key, 2);
        }
        let now = Time(1).after(Span::secs(seconds));
        pool.begin_view(now, Some(ReplicaId(0)));
        pool.queue_if_eligible(key, 3);
        assert_eq!(pool.take_batch(3, (1, 1 << 20)) == [key], counts);
    }
}
