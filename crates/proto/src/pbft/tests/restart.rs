//! A lane that begins with what an earlier life has written, and one that jumps to a checkpoint
//! that was fetched.

use super::views::{install, plan, propose_in, stop, told, vote_in};
use super::*;
use crate::group::link::{Choice, FromCoordinator, ToCoordinator};
use crate::group::record::GroupRecord;
use crate::outbox::Record;
use crate::pbft::LaneStart;
use base::{Batch, StableCheckpoint};

fn records(rig: &mut Rig) -> Vec<Record> {
    let of = |effect| match effect {
        Effect::Persist(record) => Some(record),
        _ => None,
    };
    rig.out.drain().filter_map(of).collect()
}

/// The same replica in its next life.
fn restart(rig: &Rig, start: LaneStart) -> Rig {
    let keys = PlainKeys { me: rig.lane.cfg.me, n: 4 };
    let lane = Lane::restore(rig.lane.cfg, Box::new(keys), start);
    Rig { lane, now: Now { mono: Time(1), wall: WALL }, out: Outbox::new() }
}

/// Replica 2, a backup: number 1 is delivered, 2 prepared, 3 accepted, in view 0.
fn three_numbers() -> (Rig, Vec<Record>, [Proposal; 3]) {
    let mut rig = Rig::new(2, 1);
    let f = frame(1, b"op");
    rig.feed(Input::Request(f.clone())).expect("fresh");
    let p = [proposal(&[&f]), proposal(&[]), Proposal::Null];
    for (seq, p) in (1..).zip(&p) {
        rig.peer(0, pre_prepare(seq, p)).expect("a proposal");
    }
    for (seq, p) in (1..).zip(&p[..2]) {
        rig.peer(3, Message::Prepare(vote(seq, p))).expect("a prepare");
    }
    for from in [0, 3] {
        rig.peer(from, Message::Commit(vote(1, &p[0]))).expect("a commit");
    }
    let records = records(&mut rig);
    (rig, records, p)
}

#[test]
fn what_is_restored_makes_the_same_promises_and_delivers_the_same() {
    let (mut old, records, p) = three_numbers();
    let start = LaneStart { active: true, records, ..LaneStart::default() };
    let mut rig = restart(&old, start);
    rig.feed(Input::Turn).expect("never refused");
    assert_eq!(rig.delivered(), [Seq(1)]);
    // It never says anything else about what it has voted for.
    let other = Proposal::Frames { time: WALL, entries: vec![entry(&frame(9, b"other"))] };
    for seq in 1..=3 {
        assert!(rig.peer(0, pre_prepare(seq, &other)).is_err());
    }
    assert!(!has_prepare(&rig.sent()));
    // And repeats its votes to whoever asks.
    rig.wait(Span::secs(1));
    let status = Message::Status { view: View(0), stable: Seq(0), delivered: Seq(0) };
    rig.peer(3, status).expect("a question");
    let sent = rig.sent();
    for (seq, p) in (1..).zip(&p) {
        let prepare = (Target::One(ReplicaId(3)), Message::Prepare(vote(seq, p)));
        assert!(sent.contains(&prepare), "{seq}");
        let commit = (Target::One(ReplicaId(3)), Message::Commit(vote(seq, p)));
        assert_eq!(sent.contains(&commit), seq < 3, "{seq}");
    }
    // Voting goes on where it was.
    rig.peer(3, Message::Prepare(vote(3, &p[2]))).expect("a prepare");
    assert!(has_commit(&rig.sent()));
    old.peer(3, Message::Prepare(vote(3, &p[2]))).expect("a prepare");
    assert_eq!(stop(&mut rig, 1), stop(&mut old, 1));
}

/// The pool has forgotten whether the frames were genuine. Where the client's authenticator is not
/// good for all, this replica's word may be one of the f + 1 that somebody needs (seed 3836957).
#[test]
fn a_later_life_vouches_for_the_bodies_that_it_has_voted_for() {
    let mut old = Rig::new(2, 1);
    let f = frame(1, b"op");
    old.feed(Input::Request(f.clone())).expect("fresh");
    old.peer(0, pre_prepare(1, &proposal(&[&f]))).expect("a proposal");
    let start = LaneStart { active: true, records: records(&mut old), ..LaneStart::default() };
    let mut rig = restart(&old, start);
    let mut ask = || {
        rig.peer(3, Message::Fetch { seq: Seq(1), entries: vec![entry(&f)] }).expect("a question");
        let bodies = rig.sent().into_iter().filter(|(_, m)| matches!(m, Message::Body { .. }));
        bodies.collect::<Vec<_>>()
    };
    let body = Message::Body { vouched: true, frame: f.clone() };
    assert_eq!(ask(), [(Target::One(ReplicaId(3)), body)]);
}

/// The record is in the log, durable since that was opened. Written again in every life, it made
/// the log of a replica grow that is restarted and does nothing.
#[test]
fn what_an_earlier_life_has_recorded_as_decided_is_not_recorded_again() {
    let (old, mut left, p) = three_numbers();
    let batch = Some((Proposal::Null, Arc::new(Batch::Null)));
    let (seq, digest) = (Seq(4), Proposal::Null.digest(GROUP, Seq(4)));
    left.push(Record::Committed { seq, digest, batch });
    let start = LaneStart { active: true, records: left, ..LaneStart::default() };
    let mut rig = restart(&old, start);
    rig.feed(Input::Turn).expect("never refused");
    let first: Vec<Effect> = rig.out.drain().collect();
    let delivered = first.iter().filter_map(|effect| match effect {
        Effect::Stage(ToStage::Deliver { seq, .. }) => Some(seq.0),
        _ => None,
    });
    assert_eq!(delivered.collect::<Vec<_>>(), [1, 4]);
    let written = first.iter().find(|effect| matches!(effect, Effect::Persist(_)));
    assert!(written.is_none(), "{written:?}");
    // What is decided in this life is.
    for from in [0, 3] {
        rig.peer(from, Message::Commit(vote(2, &p[1]))).expect("a commit");
    }
    let (seq, digest) = (Seq(2), p[1].digest(GROUP, Seq(2)));
    assert_eq!(records(&mut rig), [Record::Committed { seq, digest, batch: None }]);
}

#[test]
fn a_life_that_had_left_its_view_votes_in_none_below() {
    let (mut old, records, p) = three_numbers();
    let slice = stop(&mut old, 5);
    let start = LaneStart { view: View(5), active: false, records, ..LaneStart::default() };
    let mut rig = restart(&old, start);
    assert!(!rig.lane.voting());
    assert_eq!(rig.lane.view(), View(0));
    rig.peer(3, Message::Prepare(vote(3, &p[2]))).expect("counted");
    assert!(!has_commit(&rig.sent()));
    install(&mut rig, &plan(4, 0, &[]));
    assert!(!rig.lane.voting());
    assert_eq!(stop(&mut rig, 5), slice);
    install(&mut rig, &plan(5, 0, &[Choice::Null, Choice::Null]));
    assert!(rig.lane.voting());
}

#[test]
fn the_plan_of_the_view_holds_in_the_next_life() {
    let mut old = Rig::new(2, 1);
    let plan = plan(1, 0, &[Choice::Null, Choice::Null]);
    install(&mut old, &plan);
    let first: Vec<Record> = records(&mut old).into_iter().take(1).collect();
    let start = LaneStart {
        view: View(1),
        active: true,
        plan: Some(plan),
        records: first,
        ..LaneStart::default()
    };
    let mut rig = restart(&old, start);
    let votes: Vec<Message> = rig.sent().into_iter().map(|(_, message)| message).collect();
    let prepare = |seq| Message::Prepare(vote_in(1, seq, &Proposal::Null));
    assert!(votes.contains(&prepare(2)), "it had not voted for number 2: {votes:?}");
    assert!(!votes.contains(&prepare(1)), "it had voted for number 1");
    rig.peer(3, Message::Prepare(vote_in(1, 1, &Proposal::Null))).expect("a prepare");
    assert!(!has_commit(&rig.sent()), "nobody has proposed it in this view");
    rig.peer(1, Message::Prepare(vote_in(1, 1, &Proposal::Null))).expect("a prepare");
    assert!(has_commit(&rig.sent()));
    let other = proposal(&[]);
    assert!(rig.peer(1, propose_in(1, 2, &other)).is_err());
}

#[test]
fn a_leader_in_its_next_life_proposes_nothing_twice() {
    let mut old = Rig::new(0, 1);
    let f = frame(1, b"op");
    let offer = |rig: &mut Rig, f: &Arc<Frame>| {
        rig.feed(Input::Request(f.clone())).expect("fresh");
        for from in [1, 2] {
            rig.peer(from, vouch_for(vec![entry(f)])).expect("a vouch");
        }
    };
    offer(&mut old, &f);
    old.feed(Input::Turn).expect("never refused");
    let records = records(&mut old);
    assert_eq!(records.len(), 1);
    let start = LaneStart { active: true, records, ..LaneStart::default() };
    let mut rig = restart(&old, start);
    offer(&mut rig, &frame(2, b"op"));
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

/// A log may go on for many windows after the checkpoint on the disk.
#[test]
fn a_long_log_is_delivered_a_window_at_a_time_and_its_slice_waits_for_a_certificate() {
    let committed = |seq| {
        let digest = Proposal::Null.digest(GROUP, Seq(seq));
        let batch = Some((Proposal::Null, Arc::new(Batch::Null)));
        Record::Committed { seq: Seq(seq), digest, batch }
    };
    let mut records: Vec<Record> = (1..=40).map(committed).collect();
    let batch = Arc::new(Batch::Null);
    let (view, seq, proposal) = (View(0), Seq(41), Proposal::Null);
    records.push(Record::PrePrepared { view, seq, proposal, batch });
    let start = LaneStart { active: true, records, ..LaneStart::default() };
    let mut rig = restart(&Rig::new(2, 1), start);
    rig.feed(Input::Turn).expect("never refused");
    assert_eq!(rig.delivered(), (1..=16).map(Seq).collect::<Vec<_>>());
    let progress = Progress { executed: Seq(10), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    assert_eq!(rig.delivered(), (17..=26).map(Seq).collect::<Vec<_>>());
    let stop = FromCoordinator::Stop { view: View(1) };
    rig.feed(Input::Coordinator(stop)).expect("never refused");
    assert!(told(&mut rig).is_empty(), "number 41 is beyond the window of checkpoint 0");
    let certified = StableCheckpoint { seq: Seq(28), ..StableCheckpoint::default() };
    let news = FromCoordinator::Certified(certified.clone());
    rig.feed(Input::Coordinator(news)).expect("never refused");
    let slice = told(&mut rig).into_iter().find_map(|told| match told {
        ToCoordinator::Slice { stable, entries, .. } => Some((stable, entries)),
        _ => None,
    });
    let (stable, entries) = slice.expect("now it can");
    assert_eq!((stable, entries.len(), entries[0].seq), (certified, 1, Seq(41)));
}

/// A replica was away for long, fetched a checkpoint far ahead, voted above it, and ended before
/// the checkpoint was on disk (found by the oracle of memory in swarm seed 2222 of that time: a
/// slot for each number in between was gigabytes, and a start that fails). What it promised there
/// binds it all the same.
#[test]
fn what_was_promised_far_beyond_the_checkpoint_on_disk_is_kept_and_the_way_there_costs_nothing() {
    const FAR: u64 = 200_000;
    let batch = Arc::new(Batch::Null);
    let (view, proposal) = (View(0), Proposal::Null);
    let digest = |seq| Proposal::Null.digest(GROUP, Seq(seq));
    let pre_prepared = |seq| {
        let (proposal, batch) = (proposal.clone(), Arc::clone(&batch));
        Record::PrePrepared { view, seq: Seq(seq), proposal, batch }
    };
    let prepared = |seq| Record::Prepared { view, seq: Seq(seq), digest: digest(seq) };
    let records = vec![pre_prepared(1), pre_prepared(FAR + 2), prepared(FAR + 2)];
    let start = LaneStart { active: true, records, ..LaneStart::default() };
    let mut rig = restart(&Rig::new(2, 1), start);
    rig.feed(Input::Turn).expect("never refused");
    assert_eq!(rig.lane.holdings().slots, 2, "one for each number that it voted for");
    rig.lane.check();
    fetched(&mut rig, signed_by(&[0, 1, 3], FAR));
    let slots = rig.lane.holdings().slots;
    assert!(slots <= 2, "{slots} slots: only what is above the checkpoint is left");
    let other = Proposal::Frames { time: WALL, entries: vec![entry(&frame(9, b"other"))] };
    assert!(rig.peer(0, pre_prepare(FAR + 2, &other)).is_err());
    rig.peer(0, pre_prepare(FAR + 1, &proposal)).expect("it has not voted for that one");
    assert!(has_prepare(&rig.sent()));
    rig.lane.check();
    let slice = stop(&mut rig, 1);
    let promised: Vec<_> = slice.iter().map(|e| (e.seq.0 - FAR, e.prepared)).collect();
    assert_eq!(promised, [(1, None), (2, Some((view, digest(FAR + 2))))]);
}

pub(super) fn signed_by(signers: &[u16], seq: u64) -> StableCheckpoint {
    let digest = Digest([5; 32]);
    let bytes = Checkpoint::signed_bytes(GROUP, Epoch(0), Seq(seq), digest);
    let sign =
        |from: &u16| (ReplicaId(*from), PlainKeys { me: ReplicaId(*from), n: 4 }.sign(&bytes));
    let proof = Arc::new(signers.iter().map(sign).collect());
    StableCheckpoint { seq: Seq(seq), digest, proof }
}

/// The stage has fetched the checkpoint.
pub(super) fn fetched(rig: &mut Rig, checkpoint: StableCheckpoint) {
    let progress = Progress { executed: checkpoint.seq, ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Fetched { checkpoint, progress, replaced: true }))
        .expect("news");
}

#[test]
fn a_fetched_checkpoint_moves_everything_and_keeps_what_is_above() {
    let mut rig = Rig::new(2, 1);
    let f = frame(1, b"op");
    let phantom = frame(2, b"never came");
    rig.peer(0, pre_prepare(1, &proposal(&[&phantom]))).expect("it may be under way");
    rig.feed(Input::Request(f.clone())).expect("fresh");
    let p = proposal(&[&f]);
    rig.peer(0, pre_prepare(9, &p)).expect("a proposal");
    for from in [1, 3] {
        rig.peer(from, Message::Decided { seq: Seq(10), proposal: Proposal::Null }).expect("news");
    }
    assert_eq!(rig.delivered(), [Seq(10)]);
    fetched(&mut rig, signed_by(&[0, 1, 3], 8));
    let report = rig.lane.report();
    assert_eq!((report.stable, report.delivered), (Seq(8), Seq(8)));
    assert_eq!(rig.delivered(), [Seq(10)], "execution began anew");
    rig.peer(3, Message::Prepare(vote(9, &p))).expect("votes above are kept");
    assert!(has_commit(&rig.sent()));
    for from in [0, 3] {
        rig.peer(from, Message::Commit(vote(9, &p))).expect("a commit");
    }
    assert_eq!(rig.delivered(), [Seq(9)]);
    assert_eq!(rig.lane.report().delivered, Seq(10));
    assert_eq!(rig.lane.pool.wants(), 0, "nobody waits for the phantom any more");
}

#[test]
fn a_certificate_of_others_is_compared_once_this_replica_is_there() {
    for mine in [5, 6] {
        let certified = StableCheckpoint {
            seq: Seq(4),
            digest: Digest([5; 32]),
            ..StableCheckpoint::default()
        };
        let mut rig = Rig::new(1, 1);
        let news = Input::Coordinator(FromCoordinator::Certified(certified.clone()));
        rig.feed(news).expect("never refused");
        assert_eq!(told(&mut rig), [ToCoordinator::Ahead(certified.clone())]);
        for seq in 1..=4 {
            for from in [2, 3] {
                let decided = Message::Decided { seq: Seq(seq), proposal: Proposal::Null };
                rig.peer(from, decided).expect("news");
            }
        }
        let progress = Progress { executed: Seq(4), ..Progress::default() };
        rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
        let digest = Digest([mine; 32]);
        rig.feed(Input::Stage(FromStage::Checkpoint { seq: Seq(4), digest })).expect("news");
        let expected = match mine {
            5 => ToCoordinator::Stable(certified),
            _ => ToCoordinator::Diverged(certified),
        };
        assert!(told(&mut rig).contains(&expected));
        assert_eq!(rig.lane.report().stable, Seq(if mine == 5 { 4 } else { 0 }));
    }
}

#[test]
fn a_genuine_signature_under_another_digest_is_a_proof_and_a_forged_one_is_none() {
    let (digest, lie) = (Digest([5; 32]), Digest([6; 32]));
    let wrong = |rig: &mut Rig| {
        let is = |t: &ToCoordinator| matches!(t, ToCoordinator::WrongCheckpoint { .. });
        told(rig).into_iter().filter(|t| is(t)).collect::<Vec<_>>()
    };
    let mut rig = executed_to_four(digest);
    let forged = Checkpoint { seq: Seq(4), digest: lie, signature: Signature([9; 64]) };
    rig.peer(2, Message::Checkpoint(forged)).expect("not looked at yet");
    for from in [0, 3] {
        rig.peer(from, signed(from, 4, digest)).expect("genuine");
    }
    assert_eq!(rig.lane.report().stable, Seq(4));
    assert_eq!(wrong(&mut rig), []);
    let _ = rig.peer(2, signed(2, 4, lie));
    let _ = rig.peer(2, signed(2, 4, lie));
    let proof = wrong(&mut rig);
    assert_eq!(proof.len(), 1, "told once");
    let signer = |t: &ToCoordinator| match t {
        ToCoordinator::WrongCheckpoint { signer, .. } => Some(*signer),
        _ => None,
    };
    assert_eq!(signer(&proof[0]), Some(ReplicaId(2)));
}

/// Nothing of a CHECKPOINT below the mark is kept: without end, each made others verify it.
#[test]
fn forged_signatures_for_a_stable_checkpoint_cost_their_sender_its_share() {
    let (digest, lie) = (Digest([5; 32]), Digest([6; 32]));
    let mut rig = executed_to_four(digest);
    for from in [0, 3] {
        rig.peer(from, signed(from, 4, digest)).expect("genuine");
    }
    let proofs = |rig: &mut Rig| {
        let is = |t: &ToCoordinator| matches!(t, ToCoordinator::WrongCheckpoint { .. });
        told(rig).iter().filter(|t| is(t)).count()
    };
    for _ in 0..10 {
        let forged = Checkpoint { seq: Seq(4), digest: lie, signature: Signature([9; 64]) };
        let _ = rig.peer(2, Message::Checkpoint(forged));
    }
    let _ = rig.peer(2, signed(2, 4, lie));
    assert_eq!(proofs(&mut rig), 0, "its share is spent, and nothing is verified");
    let _ = rig.peer(3, signed(3, 4, lie));
    assert_eq!(proofs(&mut rig), 1, "others have theirs");
    rig.wait(Span::millis(20));
    let _ = rig.peer(2, signed(2, 4, lie));
    assert_eq!(proofs(&mut rig), 1, "later it is looked at");
}

/// Its own log says in which view it was, and that is all it can rely on.
#[test]
fn a_life_that_has_forgotten_does_not_vote_before_it_is_told_that_it_must_not() {
    for above in [None, Some(Seq(1))] {
        let plan = plan(1, 0, &[Choice::Null, Choice::Null]);
        let start =
            LaneStart { view: View(1), active: true, plan: Some(plan), ..LaneStart::default() };
        let mut rig = restart(&Rig::new(2, 1), start);
        rig.feed(Input::Coordinator(FromCoordinator::Voting { above })).expect("never refused");
        let sent: Vec<Message> = rig.sent().into_iter().map(|(_, message)| message).collect();
        let votes = |seq| sent.contains(&Message::Prepare(vote_in(1, seq, &Proposal::Null)));
        assert_eq!((votes(1), votes(2)), (false, above.is_some()), "{sent:?}");
    }
}

/// After a power cut everywhere the others only say what is many windows ahead of the checkpoint
/// on this disk, once for all. What the log says was stable before is what moves the mark.
#[test]
fn the_mark_after_a_long_log_does_not_wait_for_others() {
    let committed = |seq| {
        let digest = Proposal::Null.digest(GROUP, Seq(seq));
        let batch = Some((Proposal::Null, Arc::new(Batch::Null)));
        Record::Committed { seq: Seq(seq), digest, batch }
    };
    let mine = Digest([7; 32]);
    let certified = StableCheckpoint { seq: Seq(40), digest: mine, ..StableCheckpoint::default() };
    for known in [true, false] {
        let records: Vec<Record> = (1..=42).map(committed).collect();
        let start = LaneStart { active: true, records, ..LaneStart::default() };
        let mut rig = restart(&Rig::new(2, 1), start);
        if known {
            let word = FromCoordinator::Certified(certified.clone());
            rig.feed(Input::Coordinator(word)).expect("never refused");
        }
        for executed in (2..=42).step_by(2) {
            if executed % 4 == 0 {
                let checkpoint = FromStage::Checkpoint { seq: Seq(executed), digest: mine };
                rig.feed(Input::Stage(checkpoint)).expect("news");
            }
            let progress = Progress { executed: Seq(executed), ..Progress::default() };
            rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
        }
        let said: Vec<_> = [0, 3].map(|from| rig.peer(from, signed(from, 40, mine))).into();
        assert!(said.iter().all(|said| said.is_err() == known), "it may be stable already");
        assert_eq!(rig.lane.report().stable, Seq(40));
        assert_eq!(rig.lane.report().delivered, Seq(42));
    }
}

/// Swarm seed 3807791: the coordinator wrote that a checkpoint was stable after a lane had voted
/// beyond the window of the one before, and the power failed between the two. With two replicas
/// gone, and one that had fetched a later state, nobody could certify that checkpoint again, and
/// that replica's slice waited for it for good.
#[test]
fn what_is_promised_in_a_new_window_is_behind_its_certificate_on_the_disk() {
    let digest = Digest([5; 32]);
    let by_peers = |rig: &mut Rig| {
        for from in [0, 3] {
            rig.peer(from, signed(from, 4, digest)).expect("genuine");
        }
    };
    let by_a_sibling = |rig: &mut Rig| {
        let stable = Sibling::Stable(signed_by(&[0, 2, 3], 4));
        rig.feed(Input::Sibling(stable)).expect("news");
    };
    for certify in [&by_peers as &dyn Fn(&mut Rig), &by_a_sibling] {
        let mut rig = executed_to_four(digest);
        rig.out.drain().for_each(drop);
        certify(&mut rig);
        let certified = |record: &Record| match record {
            Record::Group(GroupRecord::Stable(stable)) => Some(stable.seq),
            _ => None,
        };
        let written = records(&mut rig).iter().filter_map(certified).collect::<Vec<_>>();
        assert_eq!((written, rig.lane.report().stable), (vec![Seq(4)], Seq(4)));
    }
}

/// A state that a weak quorum vouches for is gone on from, but certifies nothing: what was
/// promised above the low mark still binds.
#[test]
fn a_state_that_a_weak_quorum_vouches_for_keeps_every_promise() {
    let mut rig = Rig::new(2, 1);
    for seq in [3, 6, 11] {
        rig.peer(0, pre_prepare(seq, &Proposal::Null)).expect("a proposal");
    }
    let news = FromCoordinator::Certified(signed_by(&[0, 1, 3], 4));
    rig.feed(Input::Coordinator(news)).expect("never refused");
    for weak_is_there in [false, true] {
        if weak_is_there {
            fetched(&mut rig, signed_by(&[0, 1], 10));
        }
        let report = rig.lane.report();
        let expected = if weak_is_there { (Seq(4), Seq(10)) } else { (Seq(0), Seq(0)) };
        assert_eq!((report.stable, report.delivered), expected);
        rig.lane.check();
    }
    // Nothing at or below it is handed to execution, whatever is said about it.
    for from in [0, 3] {
        let again = rig.peer(from, Message::Decided { seq: Seq(6), proposal: Proposal::Null });
        assert!(again.is_err());
        rig.peer(from, Message::Commit(vote(6, &Proposal::Null))).expect("counted");
    }
    assert_eq!(rig.delivered(), []);
    for from in [0, 3] {
        rig.peer(from, Message::Decided { seq: Seq(11), proposal: Proposal::Null }).expect("news");
    }
    assert_eq!(rig.delivered(), [Seq(11)]);
    let entries = stop(&mut rig, 1);
    let seqs: Vec<Seq> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, [Seq(6), Seq(11)], "number 3 is below what is certified");
}

/// A pillar hears a quorum's CHECKPOINTs before the state is there that a weak quorum vouches for.
/// Its siblings hear of none, and were at the end of their window for good.
#[test]
fn what_is_certified_below_a_vouched_checkpoint_all_pillars_hear() {
    let mut rig = Rig::new(2, 1);
    for from in [0, 1, 3] {
        rig.peer(from, signed(from, 4, Digest([5; 32]))).expect("a vote");
    }
    let told = |rig: &mut Rig| {
        let stable = |effect: &Effect| match effect {
            Effect::Siblings(Sibling::Certified(certified)) => Some(certified.clone()),
            _ => None,
        };
        rig.out.effects().iter().filter_map(stable).collect::<Vec<StableCheckpoint>>()
    };
    assert_eq!(told(&mut rig), [], "it is not executed here");
    fetched(&mut rig, signed_by(&[0, 1], 8));
    assert_eq!(told(&mut rig), [signed_by(&[0, 1, 3], 4)]);
    assert_eq!(rig.lane.report().stable, Seq(4));
    // A sibling may hear that before or after it hears of the state.
    for first in [true, false] {
        let mut rig = Rig::new(2, 1);
        if !first {
            fetched(&mut rig, signed_by(&[0, 1], 8));
        }
        let certified = Sibling::Certified(signed_by(&[0, 1, 3], 4));
        rig.feed(Input::Sibling(certified)).expect("never refused");
        assert_eq!(rig.lane.report().stable, Seq(if first { 0 } else { 4 }));
        if first {
            fetched(&mut rig, signed_by(&[0, 1], 8));
        }
        assert_eq!(rig.lane.report().stable, Seq(4));
    }
}

/// The others may be unable to certify anything, since what they have agreed on is at the end of
/// their window: then the word of who has fetched is needed.
#[test]
fn who_has_fetched_a_vouched_checkpoint_signs_it_and_the_mark_moves_with_a_quorum() {
    let mut rig = Rig::new(2, 1);
    fetched(&mut rig, signed_by(&[0, 1], 8));
    let digest = Digest([5; 32]);
    assert!(!rig.sent().contains(&(Target::All, signed(2, 8, digest))), "it would be lost (F12)");
    rig.feed(Input::Coordinator(FromCoordinator::Saved(Seq(8)))).expect("never refused");
    assert!(rig.sent().contains(&(Target::All, signed(2, 8, digest))));
    for from in [0, 1] {
        assert_eq!(rig.lane.report().stable, Seq(0));
        rig.peer(from, signed(from, 8, digest)).expect("genuine");
    }
    assert_eq!(rig.lane.report().stable, Seq(8));
    // What is certified later below such a state needs no digest of this replica's own.
    let mut rig = Rig::new(2, 1);
    rig.peer(0, pre_prepare(6, &Proposal::Null)).expect("a proposal");
    fetched(&mut rig, signed_by(&[0, 1], 10));
    assert!(!rig.sent().iter().any(|(_, m)| matches!(m, Message::Checkpoint(_))), "none is there");
    for from in [0, 1, 3] {
        rig.peer(from, signed(from, 8, digest)).expect("genuine");
    }
    assert_eq!(rig.lane.report().stable, Seq(8));
    rig.lane.check();
}

#[test]
fn a_leader_that_has_fetched_proposes_nothing_at_or_below_what_it_has() {
    let mut rig = Rig::new(0, 1);
    fetched(&mut rig, signed_by(&[1, 2], 5));
    let f = frame(1, b"op");
    rig.feed(Input::Request(f.clone())).expect("fresh");
    for from in [1, 2] {
        rig.peer(from, vouch_for(vec![entry(&f)])).expect("a vouch");
    }
    assert_eq!(proposals(&rig.sent()), [(Seq(6), 1)]);
}

/// A replica that fell behind keeps frames that the others have ordered long ago: what their
/// client acknowledges must not use up its quota here once their state is here, too. The opening
/// of a session is no part of stream 0.
#[test]
fn what_a_client_acknowledges_waits_no_longer() {
    let mut rig = Rig::new(1, 1);
    let open = Arc::new(FrameBuilder::open(GROUP, ClientId(3), SessionId(1), |digest| {
        let client = PlainKeys { me: ReplicaId(0), n: 4 };
        base::crypto::ClientKeyring::authenticate(&client, digest)
    }));
    rig.feed(Input::Request(open)).expect("fresh");
    let most = base::limits::PENDING_FRAMES_PER_CLIENT_MAX as u64 - 1;
    for id in 1..=most {
        rig.feed(Input::Request(frame(id, b"op"))).expect("within the quota");
    }
    let next = frame(most + 1, b"op");
    assert_eq!(rig.feed(Input::Request(next.clone())), Err(Reject::Quota));
    let id = next.id();
    let acks = || {
        let mut builder = FrameBuilder::new();
        builder.push(b"op");
        Arc::new(builder.request(GROUP, id, most - 1, |_| next.authenticator().clone()))
    };
    assert_eq!(rig.feed(Input::Request(acks())), Err(Reject::Quota), "they may yet be proposed");
    fetched(&mut rig, signed_by(&[0, 2, 3], 8));
    rig.feed(Input::Request(acks())).expect("there is room again");
    assert_eq!(rig.lane.report().pending_frames, 3, "the opening, one not acknowledged, and this");
    rig.lane.check();
}

/// Swarm seed 3836155: everybody lost power once a quorum had signed a checkpoint, and some were at
/// the end of their window. One signer had fetched the state, and signed it in no later life.
#[test]
fn a_life_that_begins_with_a_vouched_checkpoint_signs_it_once_a_window_below_it_is_certified() {
    let window = Rig::new(2, 1).lane.cfg.window;
    for at in [8, window + 8] {
        let rig = Rig::new(2, 1);
        let start =
            LaneStart { stable: signed_by(&[0, 1], at), active: true, ..LaneStart::default() };
        let mut rig = restart(&rig, start);
        rig.feed(Input::Turn).expect("never refused");
        let (digest, mut all) = (Digest([5; 32]), rig.sent());
        let mine = (Target::All, signed(2, at, digest));
        assert_eq!(all.contains(&mine), at <= window, "a signer knows such a certificate (R6)");
        if at > window {
            let news = FromCoordinator::Certified(signed_by(&[0, 1, 3], 8));
            rig.feed(Input::Coordinator(news)).expect("never refused");
            all.extend(rig.sent());
        }
        assert_eq!(all.iter().filter(|said| **said == mine).count(), 1);
        rig.lane.check();
        for from in [0, 1] {
            rig.peer(from, signed(from, at, digest)).expect("genuine");
        }
        assert_eq!(rig.lane.report().stable, Seq(at));
        rig.lane.check();
    }
}
