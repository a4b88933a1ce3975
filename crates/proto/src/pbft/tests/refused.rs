//! Frames that were ordered before their predecessors: refused, and ordered again when the client
//! sends them again.

use super::*;

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
