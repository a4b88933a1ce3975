//! Large batches that are under way: how many a replica votes for at a time, whatever its leader
//! proposes, and that it votes for all of them in the end.

use base::limits;

use super::views::{install, plan, propose_in, stop, vote_in};
use super::*;
use crate::group::link::{Choice, FromCoordinator};
use crate::outbox::Record;
use crate::pbft::LaneStart;
use crate::pbft::undecided::UNDECIDED_BYTES_MAX;

/// A frame of 11 MiB.
pub(super) fn big(client: u32) -> Arc<Frame> {
    let id = FrameId { client: ClientId(client), session: SessionId(1), stream: 0, id: 1 };
    let mut builder = FrameBuilder::new();
    builder.push(&vec![7; 11 << 20]);
    Arc::new(builder.request(GROUP, id, 0, |_| Authenticator::Vector(vec![])))
}

/// Makes `rig`, a backup with number 1, deliver it.
pub(super) fn decide(rig: &mut Rig, seq: u64, p: &Proposal) {
    for from in [2, 3] {
        rig.peer(from, Message::Prepare(vote(seq, p))).expect("a prepare");
        rig.peer(from, Message::Commit(vote(seq, p))).expect("a commit");
    }
}

/// The records that `rig` wants written.
fn records(rig: &mut Rig) -> Vec<Record> {
    let of = |effect| match effect {
        Effect::Persist(record) => Some(record),
        _ => None,
    };
    rig.feed(Input::Turn).expect("turns are never refused");
    rig.out.drain().filter_map(of).collect()
}

fn bytes(records: &[Record]) -> usize {
    let of = |record: &Record| {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes.len()
    };
    records.iter().map(of).sum()
}

/// Bytes of the records that `rig` wants written, which are not looked at again.
pub(super) fn written(rig: &mut Rig) -> usize {
    bytes(&records(rig))
}

/// A backup, number 1, with a window of 64 numbers and a large frame, and a proposal that names it.
fn with_a_large_frame() -> (Rig, Arc<Frame>, Proposal) {
    let mut rig = Rig::new(1, 1);
    rig.lane.cfg.window = 64;
    let f = big(1);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    rig.sent();
    let p = proposal(&[&f]);
    (rig, f, p)
}

/// The numbers for which it has sent a PREPARE in its view.
fn voted_for(rig: &Rig) -> Vec<u64> {
    let me = rig.lane.cfg.me;
    let voted = rig.lane.log.iter().filter(|(_, slot)| slot.prepares.said(me, slot.digest));
    voted.map(|(seq, _)| seq.0).collect()
}

/// How many records of `f` fit under the bound.
fn at_once(f: &Frame) -> u64 {
    (UNDECIDED_BYTES_MAX / f.weight()) as u64
}

/// A frame's body is written with every number that names it, and a faulty leader may name it at
/// all numbers of the window: backups vote for a few of those at a time, and for the next one
/// always, so that nothing stands still.
#[test]
fn a_large_frame_that_is_proposed_again_and_again_is_written_a_few_times_at_once() {
    let (mut rig, f, p) = with_a_large_frame();
    let mut bytes = 0;
    for seq in 2..=64 {
        rig.peer(0, pre_prepare(seq, &p)).expect("it may be proposed again");
        bytes += written(&mut rig);
    }
    let most = UNDECIDED_BYTES_MAX + (1 << 20);
    assert!(bytes > UNDECIDED_BYTES_MAX / 2 && bytes <= most, "{bytes}");
    rig.peer(0, pre_prepare(1, &p)).expect("the next one");
    let one = f.encoded_len();
    let next = written(&mut rig);
    assert!(next >= one && next < 2 * one, "{next}");
    // As they are decided, it votes for the others, in the order of their numbers.
    for seq in 1..=64 {
        assert!(voted_for(&rig).contains(&seq), "{seq}");
        decide(&mut rig, seq, &p);
        assert!(written(&mut rig) < 2 * one, "{seq}");
    }
    assert_eq!(rig.lane.report().delivered, Seq(64));
}

/// What is small goes on beside it.
#[test]
fn what_weighs_little_is_voted_for_behind_what_is_held_back() {
    let (mut rig, f, p) = with_a_large_frame();
    assert!(at_once(&f) < 29);
    for seq in 2..=30 {
        rig.peer(0, pre_prepare(seq, &p)).expect("a proposal");
    }
    rig.peer(0, pre_prepare(1, &p)).expect("the next one");
    rig.peer(0, pre_prepare(31, &Proposal::Null)).expect("a proposal");
    let first = 1..=at_once(&f) + 1;
    assert_eq!(voted_for(&rig), first.chain([31]).collect::<Vec<_>>());
}

/// Others need the votes of a replica that waits for a state, which hands nothing to execution
/// meanwhile: what is decided weighs nothing there either.
#[test]
fn who_waits_for_a_state_goes_on_voting_for_large_batches() {
    let (mut rig, f, p) = with_a_large_frame();
    rig.lane.cfg.window = 16;
    let certified = base::StableCheckpoint { seq: Seq(40), ..Default::default() };
    rig.feed(Input::Coordinator(FromCoordinator::Float(certified))).expect("never refused");
    assert!(16 > at_once(&f));
    for seq in 41..=56 {
        rig.peer(0, pre_prepare(seq, &p)).expect("a proposal");
        assert!(has_prepare(&rig.sent()), "{seq}");
        decide(&mut rig, seq, &p);
    }
    assert_eq!(rig.lane.report().delivered, Seq(40));
}

/// It promises nothing for what it held back: its slice does not name that. In the next view it
/// votes for what the NEW-VIEW has chosen a few at a time as well.
#[test]
fn what_is_held_back_is_no_promise_and_a_view_change_begins_anew() {
    let (mut rig, f, p) = with_a_large_frame();
    for seq in 1..=30 {
        rig.peer(0, pre_prepare(seq, &p)).expect("a proposal");
    }
    let voted = voted_for(&rig);
    let promised: Vec<u64> = stop(&mut rig, 2).iter().map(|entry| entry.seq.0).collect();
    assert_eq!(promised, voted);
    assert!(promised.len() < 30);
    written(&mut rig);
    // Others had accepted all of them.
    let chosen = |seq| Choice::Digest(p.digest(GROUP, Seq(seq)));
    install(&mut rig, &plan(2, 0, &(1..=30).map(chosen).collect::<Vec<_>>()));
    for seq in 1..=30 {
        let _ = rig.peer(3, Message::ProposalIs { seq: Seq(seq), proposal: p.clone() });
    }
    assert!(written(&mut rig) <= UNDECIDED_BYTES_MAX + f.weight() + (1 << 20));
    for seq in 1..=30 {
        assert!(voted_for(&rig).contains(&seq), "{seq}");
        for from in [0, 3] {
            rig.peer(from, Message::Prepare(vote_in(2, seq, &p))).expect("a prepare");
            rig.peer(from, Message::Commit(vote_in(2, seq, &p))).expect("a commit");
        }
        assert!(written(&mut rig) < 2 * f.weight(), "{seq}");
    }
    assert_eq!(rig.lane.report().delivered, Seq(30));
    rig.peer(2, propose_in(2, 31, &p)).expect("the new leader's own");
    assert!(has_prepare(&rig.sent()));
}

/// What an earlier life has voted for in this view is written, and counts.
#[test]
fn what_an_earlier_life_has_voted_for_counts() {
    let (mut rig, f, p) = with_a_large_frame();
    for seq in 2..=20 {
        rig.peer(0, pre_prepare(seq, &p)).expect("a proposal");
    }
    let records = records(&mut rig);
    let before = voted_for(&rig);
    assert_eq!(before.len() as u64, at_once(&f));
    let start = LaneStart { active: true, records, ..LaneStart::default() };
    let keys = Box::new(PlainKeys { me: rig.lane.cfg.me, n: 4 });
    rig.lane = Lane::restore(rig.lane.cfg, keys, start);
    rig.feed(Input::Request(f.clone())).expect("its client sends it again");
    for seq in 15..=20 {
        rig.peer(0, pre_prepare(seq, &p)).expect("a proposal again");
    }
    assert_eq!((written(&mut rig), voted_for(&rig)), (0, before));
    rig.peer(0, pre_prepare(1, &p)).expect("the next one");
    assert!(written(&mut rig) >= f.encoded_len());
}

/// What it proposes itself a leader accepts: it has chosen how much that is, and a proposal that
/// it did not accept would never leave.
#[test]
fn a_leader_holds_back_nothing_of_its_own() {
    let mut rig = Rig::new(0, 1);
    rig.lane.cfg.batching.bytes_max = limits::BATCH_BYTES_MAX;
    rig.lane.cfg.batching.in_flight_max = 100;
    rig.lane.cfg.batching.frames_max = 1;
    let frames: Vec<Arc<Frame>> = (1..=16).map(big).collect();
    assert!(frames.len() as u64 > at_once(&frames[0]));
    for f in &frames {
        rig.feed(Input::Request(f.clone())).expect("fresh");
        for from in [1, 2] {
            rig.peer(from, vouch_for(vec![entry(f)])).expect("a vouch");
        }
    }
    assert_eq!(proposals(&rig.sent()).len(), frames.len());
}
