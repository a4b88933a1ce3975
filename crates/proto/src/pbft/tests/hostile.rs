//! One faulty peer or client against one correct lane: numbers at the edge, old times, floods of
//! questions, forged and contradicting words. Each test is the story of one hole.

use base::limits;

use super::undecided::{big, decide, written};
use super::*;

fn status(stable: u64, delivered: u64) -> Message {
    Message::Status { view: View(0), stable: Seq(stable), delivered: Seq(delivered) }
}

fn statuses(sent: &[(Target, Message)]) -> usize {
    sent.iter().filter(|(_, message)| matches!(message, Message::Status { .. })).count()
}

fn bodies(sent: &[(Target, Message)]) -> Vec<bool> {
    let of = |(_, message): &(Target, Message)| match message {
        Message::Body { vouched, .. } => Some(*vouched),
        _ => None,
    };
    sent.iter().filter_map(of).collect()
}

/// A frame whose authenticator is good for nobody.
fn unproved(id: u64, op: &[u8]) -> Arc<Frame> {
    frame_with(id, op, |_| Authenticator::Vector(vec![Mac([9; 16]); 4]))
}

#[test]
fn a_status_at_the_end_of_all_numbers_is_refused_and_not_a_panic() {
    let mut rig = Rig::new(1, 1);
    let sin = Err(Reject::Misbehaviour("status beyond all numbers"));
    assert_eq!(rig.peer(2, status(u64::MAX, 0)), sin);
    assert_eq!(rig.peer(2, status(0, u64::MAX)), sin);
    rig.peer(2, status(u64::MAX >> 1, u64::MAX >> 1)).expect("a lie, but a number");
    rig.sent();
}

#[test]
fn one_liar_about_how_far_it_is_makes_nobody_cry_for_help() {
    let mut rig = Rig::new(1, 1);
    rig.wait(Span::secs(5));
    rig.sent();
    rig.peer(3, status(0, 1_000_000)).expect("one says so");
    rig.sent();
    rig.wait(Span::millis(900));
    assert_eq!(statuses(&rig.sent()), 0);
    rig.peer(2, status(0, 3)).expect("another says less");
    rig.sent();
    rig.wait(Span::millis(60));
    assert_eq!(statuses(&rig.sent()), 1, "a weak quorum says that there is a number 3");
}

#[test]
fn the_first_proposal_after_an_idle_time_is_not_late() {
    let mut rig = Rig::new(1, 1);
    rig.sent();
    rig.wait(Span::millis(4900));
    rig.sent();
    rig.wait(Span::millis(90));
    rig.peer(0, pre_prepare(1, &Proposal::Null)).expect("a proposal");
    assert_eq!(statuses(&rig.sent()), 0, "nothing is missing yet");
    assert!(rig.lane.deadline().is_some_and(|at| at > rig.now.mono));
}

#[test]
fn a_proposal_that_could_not_be_decided_in_its_time_can_be_decided_later() {
    // A peer that prepared it in time has looked at the time.
    let mut rig = Rig::new(1, 1);
    rig.peer(0, status(0, 0)).expect("the leader is heard");
    let p = proposal(&[]);
    for _ in 0..12 {
        rig.wait(Span::secs(1));
        rig.peer(0, status(0, 0)).expect("the leader is heard");
    }
    rig.lane.hearing_forgets_the_first_silence();
    assert_eq!(rig.peer(0, pre_prepare(1, &p)), Err(Reject::Stale("proposed too long ago")));
    rig.peer(2, Message::Prepare(vote(1, &p))).expect("a prepare");
    rig.peer(0, pre_prepare(1, &p)).expect("a weak quorum supports it");
    assert!(has_prepare(&rig.sent()));
}

#[test]
fn what_a_leader_proposed_while_it_was_cut_off_is_not_too_old() {
    let mut rig = Rig::new(1, 1);
    rig.peer(0, status(0, 0)).expect("the leader is heard");
    rig.lane.hearing_forgets_the_first_silence();
    let p = proposal(&[]);
    rig.wait(Span::secs(30));
    rig.peer(0, pre_prepare(1, &p)).expect("nothing was heard of it in between");
    assert!(has_prepare(&rig.sent()));
    let future =
        Proposal::Frames { time: AgreedTime(rig.now.wall.0 + 6_000_000_000), entries: vec![] };
    let sin = Err(Reject::Misbehaviour("proposed time is out of bounds"));
    assert_eq!(rig.peer(0, pre_prepare(2, &future)), sin, "no silence excuses that");
}

#[test]
fn status_and_fetch_cannot_be_used_to_make_a_replica_work_for_one_peer_alone() {
    let mut rig = Rig::new(1, 1);
    let f = frame(1, &vec![7; 4 << 20]);
    rig.feed(Input::Request(f.clone())).expect("fresh");
    let p = proposal(&[&f]);
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    decide(&mut rig, 1, &p);
    rig.sent();
    let (mut answers, mut sent) = (0, 0);
    for _ in 0..1000 {
        rig.wait(Span::micros(100));
        let _ = rig.peer(3, status(0, 0));
        let _ = rig.peer(3, Message::Fetch { seq: Seq(1), entries: vec![entry(&f); 1024] });
        let out = rig.sent();
        answers += out.iter().filter(|(_, m)| matches!(m, Message::Decided { .. })).count();
        sent += bodies(&out).len();
    }
    assert!((1..=50).contains(&answers), "{answers} answers in a tenth of a second");
    assert!((1..=8).contains(&sent), "{sent} bodies of 4 MiB in a tenth of a second");
}

/// Whoever asks for a body that there is none of has all of the slot looked through.
#[test]
fn a_fetch_is_paid_for_by_all_that_is_looked_at() {
    let mut rig = Rig::new(1, 1);
    let many: Vec<Arc<Frame>> = (1..=1000).map(|id| frame(id, b"op")).collect();
    for f in &many {
        rig.feed(Input::Request(f.clone())).expect("fresh");
    }
    let p = proposal(&many.iter().collect::<Vec<_>>());
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    decide(&mut rig, 1, &p);
    rig.sent();
    let phantom = entry(&frame(5000, b"never sent"));
    let mut looks = 0;
    for _ in 0..5000 {
        rig.wait(Span::micros(20));
        let fetch = Message::Fetch { seq: Seq(1), entries: vec![phantom] };
        looks += usize::from(rig.peer(3, fetch).is_ok());
    }
    assert!((50..=400).contains(&looks), "{looks} times a thousand bodies in a tenth of a second");
}

#[test]
fn an_answer_to_a_status_has_a_bounded_number_of_bytes() {
    let mut rig = Rig::new(1, 1);
    let many: Vec<Arc<Frame>> = (1..=1000).map(|id| frame(id, b"op")).collect();
    for f in &many {
        rig.feed(Input::Request(f.clone())).expect("fresh");
    }
    let p = proposal(&many.iter().collect::<Vec<_>>());
    for seq in 1..=16 {
        rig.peer(0, pre_prepare(seq, &p)).expect("a faulty leader repeats itself");
        decide(&mut rig, seq, &p);
    }
    rig.sent();
    rig.wait(Span::millis(100));
    rig.peer(3, status(0, 0)).expect("a question");
    let bytes: usize = rig.sent().iter().map(|(_, m)| m.encoded_len_max()).sum();
    assert!(bytes < 400 << 10, "{bytes}");
}

#[test]
fn fetches_wait_longer_while_nobody_answers_and_name_a_bounded_number_of_frames() {
    let mut rig = Rig::new(1, 1);
    for seq in 1..=16 {
        let phantoms: Vec<_> = (0..1000).map(|i| frame(seq * 1000 + i, b"op")).collect();
        let p = proposal(&phantoms.iter().collect::<Vec<_>>());
        rig.peer(0, pre_prepare(seq, &p)).expect("they may be under way");
    }
    let mut named = 0;
    for _ in 0..1000 {
        rig.wait(Span::millis(1));
        let fetched = |(_, message): &(Target, Message)| match message {
            Message::Fetch { entries, .. } => entries.len(),
            _ => 0,
        };
        named += rig.sent().iter().map(fetched).sum::<usize>();
    }
    assert!(named > 0 && named < 40_000, "{named} frames asked for in a second");
}

#[test]
fn bodies_that_nobody_can_trust_take_no_memory() {
    let mut rig = Rig::new(1, 1);
    let forged = unproved(1, b"invented");
    rig.peer(0, pre_prepare(1, &proposal(&[&forged]))).expect("it may be under way");
    rig.peer(0, Message::Body { vouched: true, frame: forged.clone() }).expect("a vouch");
    let held = rig.lane.pool.get(&(forged.id(), forged.digest())).expect("waited for");
    assert!(held.frame.is_none());
}

#[test]
fn who_delivered_a_batch_vouches_for_its_frames() {
    // Its client proved it to some only; the frame left the pools of the others long ago.
    let mut rig = Rig::new(1, 1);
    let f = unproved(1, b"op");
    rig.feed(Input::Request(f.clone())).expect("fresh");
    let p = proposal(&[&f]);
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    decide(&mut rig, 1, &p);
    let progress = Progress { executed: Seq(1), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    assert_eq!(rig.lane.report().pending_frames, 0);
    rig.sent();
    rig.peer(3, Message::Fetch { seq: Seq(1), entries: vec![entry(&f)] }).expect("a question");
    assert_eq!(bodies(&rig.sent()), [true]);
}

#[test]
fn a_leader_that_fetched_a_genuine_frame_vouches_for_it_itself() {
    // The client's link to the leader is broken and one backup is down: two vouch, the leader
    // makes three.
    let mut rig = Rig::new(0, 1);
    let f = frame(1, b"op");
    for from in [1, 2] {
        rig.peer(from, vouch_for(vec![entry(&f)])).expect("a vouch");
    }
    rig.sent();
    rig.wait(Span::millis(4));
    assert!(rig.sent().iter().any(|(_, m)| matches!(m, Message::Fetch { .. })));
    rig.peer(1, Message::Body { vouched: true, frame: f }).expect("a body");
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
}

#[test]
fn a_vouched_frame_is_fetched_even_if_older_phantoms_are_not_worth_it() {
    let mut rig = Rig::new(0, 1);
    let (phantom, f) = (frame(1, b"phantom"), frame(2, b"op"));
    rig.peer(3, vouch_for(vec![entry(&phantom)])).expect("a vouch");
    rig.sent();
    rig.wait(Span::micros(2_900));
    for from in [1, 2] {
        rig.peer(from, vouch_for(vec![entry(&f)])).expect("a vouch");
    }
    rig.sent();
    let mut fetched = Vec::new();
    for _ in 0..20 {
        rig.wait(Span::millis(1));
        fetched.extend(rig.sent().into_iter().filter_map(|(_, m)| match m {
            Message::Fetch { entries, .. } => Some(entries),
            _ => None,
        }));
    }
    assert_eq!(fetched.first(), Some(&vec![entry(&f)]));
}

#[test]
fn a_leader_forgets_old_vouches_before_backups_forget_their_frames() {
    // Or a client that keeps its body from the leader for just long enough makes a number that
    // nobody can decide.
    let f = frame(1, b"op");
    let mut leader = Rig::new(0, 1);
    for from in [1, 2] {
        leader.peer(from, vouch_for(vec![entry(&f)])).expect("a vouch");
    }
    let mut backup = Rig::new(1, 1);
    backup.feed(Input::Request(f.clone())).expect("fresh");
    for second in 1..=45u64 {
        leader.wait(Span::secs(1));
        leader.sent();
        backup.wait(Span::secs(1));
        let vouches = backup.sent().iter().any(|(_, m)| matches!(m, Message::Vouch { .. }));
        assert!(second <= 20 || !vouches, "vouches for what it forgets soon");
    }
    assert_eq!(backup.lane.report().pending_frames, 1);
    assert_eq!(leader.lane.report().pending_frames, 0);
    leader.feed(Input::Request(f)).expect("fresh");
    assert!(proposals(&leader.sent()).is_empty(), "two vouches were too old");
}

#[test]
fn a_void_proposal_gives_its_frames_back_and_its_votes_are_not_said_of_another() {
    let mut rig = Rig::new(1, 1);
    let (a, b) = (frame(1, b"a"), frame(2, b"b"));
    rig.feed(Input::Request(a.clone())).expect("fresh");
    rig.feed(Input::Request(b.clone())).expect("fresh");
    rig.sent();
    rig.peer(0, pre_prepare(1, &proposal(&[&a]))).expect("what the leader told this replica");
    for from in [2, 3] {
        let decided = Message::Decided { seq: Seq(1), proposal: proposal(&[&b]) };
        rig.peer(from, decided).expect("what it told the others");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    rig.wait(Span::secs(1));
    let sent = rig.sent();
    let vouch = vouch_for(vec![entry(&a)]);
    assert!(sent.iter().any(|(_, message)| *message == vouch), "{sent:?}");
    rig.peer(3, status(0, 0)).expect("a question");
    assert!(!has_prepare(&rig.sent()), "it has prepared another digest");
}

#[test]
fn a_frame_executed_twice_is_not_taken_from_a_third_proposal_of_it() {
    // A faulty leader proposes one frame again and again.
    let mut rig = Rig::new(1, 1);
    let f = unproved(1, b"op");
    rig.feed(Input::Request(f.clone())).expect("fresh");
    let p = proposal(&[&f]);
    for seq in [1, 2] {
        rig.peer(0, pre_prepare(seq, &p)).expect("a proposal");
        decide(&mut rig, seq, &p);
    }
    let executed = |seq| {
        let progress = Progress { executed: Seq(seq), ..Progress::default() };
        Input::Stage(FromStage::Executed(progress))
    };
    rig.feed(executed(1)).expect("news");
    rig.peer(0, pre_prepare(3, &p)).expect("a proposal");
    rig.feed(executed(2)).expect("news");
    decide(&mut rig, 3, &p);
    assert!(rig.delivered().contains(&Seq(3)));
}

#[test]
fn a_forged_checkpoint_signature_is_looked_at_once() {
    let digest = Digest([5; 32]);
    let mut rig = executed_to_four(digest);
    rig.peer(3, signed(3, 4, digest)).expect("genuine");
    let forged = Checkpoint { seq: Seq(4), digest, signature: Signature([0; 64]) };
    rig.peer(2, Message::Checkpoint(forged)).expect("looked at, and found forged");
    let sin = Err(Reject::Misbehaviour("two checkpoints for one number"));
    assert_eq!(rig.peer(2, Message::Checkpoint(forged)), sin);
    assert_eq!(rig.lane.report().stable, Seq(0));
    rig.peer(0, signed(0, 4, digest)).expect("genuine");
    assert_eq!(rig.lane.report().stable, Seq(4));
}

#[test]
fn another_content_under_an_executed_id_is_not_taken_for_a_retransmission() {
    let mut rig = Rig::new(1, 1);
    let (a, b) = (frame(1, b"a"), frame(1, b"b"));
    rig.feed(Input::Request(a.clone())).expect("fresh");
    let p = proposal(&[&a]);
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    decide(&mut rig, 1, &p);
    let progress = Progress { executed: Seq(1), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    rig.sent();
    rig.feed(Input::Request(b.clone())).expect("fresh: the stage says that it conflicts");
    let vouch = Message::Vouch { executed: Seq(1), entries: vec![entry(&b)] };
    assert!(rig.sent().iter().any(|(_, m)| *m == vouch));
}

/// A batch has to fit into one record of the vote log: a replica that voted for a larger one
/// could not keep its promise, and would have to stop.
#[test]
fn a_leader_that_names_more_than_a_batch_may_hold_gets_no_votes() {
    let frames: Vec<Arc<Frame>> = (1..=9).map(big).collect();
    let most = limits::BATCH_BYTES_MAX / frames[0].weight();
    for (count, accepted) in [(most, true), (most + 1, false), (frames.len(), false)] {
        let mut rig = Rig::new(1, 1);
        for f in &frames[..count] {
            rig.feed(Input::Request(f.clone())).expect("fresh");
        }
        let p = proposal(&frames[..count].iter().collect::<Vec<_>>());
        rig.peer(0, pre_prepare(1, &p)).expect("it is not weighed before all of it is here");
        rig.feed(Input::Turn).expect("turns are never refused");
        let kept = |effect: &Effect| matches!(effect, Effect::Persist(_));
        assert_eq!(rig.out.effects().iter().any(kept), accepted, "{count} frames");
        assert_eq!(has_prepare(&rig.sent()), accepted, "{count} frames");
    }
}

/// One frame of 64 KiB and a batch's worth of names would be a record of 64 MiB.
#[test]
fn a_proposal_that_names_a_frame_twice_is_refused() {
    let (f, other) = (frame(1, b"op"), frame(2, b"op"));
    for twice in [vec![&f; 2], vec![&f, &other, &f], vec![&f; limits::BATCH_FRAMES_MAX]] {
        let mut rig = Rig::new(1, 1);
        rig.feed(Input::Request(f.clone())).expect("fresh");
        rig.feed(Input::Request(other.clone())).expect("fresh");
        rig.sent();
        let sin = Err(Reject::Misbehaviour("proposal that names a frame twice"));
        assert_eq!(rig.peer(0, pre_prepare(1, &proposal(&twice))), sin);
        assert_eq!(written(&mut rig), 0);
        rig.peer(0, pre_prepare(1, &proposal(&[&f, &other]))).expect("each once");
        assert!(has_prepare(&rig.sent()));
    }
}

/// The leader says nothing to this replica: it votes all the same, with what two others have
/// accepted, and asks another one when the first does not answer.
#[test]
fn what_the_leader_keeps_from_a_backup_is_had_from_those_who_vote_for_it() {
    let mut rig = Rig::new(2, 1);
    let f = frame(1, b"op");
    rig.feed(Input::Request(f.clone())).expect("fresh");
    let (right, wrong) = (proposal(&[&f]), Proposal::Null);
    let asks = |rig: &mut Rig| -> Vec<(Target, Seq)> {
        let sent = rig.sent().into_iter();
        let ask = |(to, message)| match message {
            Message::FetchProposal { seq, digest } => {
                assert_eq!(digest, right.digest(GROUP, seq));
                Some((to, seq))
            }
            _ => None,
        };
        sent.filter_map(ask).collect()
    };
    let told = |seq, proposal: &Proposal| Message::ProposalIs { seq, proposal: proposal.clone() };
    rig.peer(1, Message::Prepare(vote(1, &right))).expect("one may lie");
    rig.wait(Span::millis(1));
    assert_eq!(asks(&mut rig), []);
    assert!(rig.peer(1, told(Seq(1), &right)).is_err(), "nor is one believed");
    rig.peer(3, Message::Prepare(vote(1, &right))).expect("a second");
    assert_eq!(asks(&mut rig), [], "the leader's own may be on its way");
    rig.now.mono = rig.lane.deadline().expect("it is missed");
    assert_eq!(asks(&mut rig), [(Target::One(ReplicaId(1)), Seq(1))]);
    rig.wait(Span::millis(1));
    assert_eq!(asks(&mut rig), [], "asked already");
    rig.wait(Span::millis(5));
    assert_eq!(asks(&mut rig), [(Target::One(ReplicaId(3)), Seq(1))], "somebody else");
    assert!(rig.peer(3, told(Seq(1), &wrong)).is_err());
    rig.peer(3, told(Seq(1), &right)).expect("what is looked for");
    let sent = rig.sent();
    assert!(has_prepare(&sent) && has_commit(&sent), "{sent:?}");
    let other = proposal(&[]);
    let second = rig.peer(0, pre_prepare(1, &other));
    assert!(matches!(second, Err(Reject::Misbehaviour(_))), "the leader's is another: {second:?}");
    rig.wait(Span::millis(1));
    assert_eq!(asks(&mut rig), [], "nothing is missing any more");
}

/// A voter that does not answer costs the time of one question, not of one for every number.
#[test]
fn a_voter_that_keeps_a_proposal_to_itself_is_not_asked_first_again() {
    let mut rig = Rig::new(2, 1);
    let asked = |rig: &mut Rig| -> Vec<Target> {
        let sent = rig.sent().into_iter();
        let ask = |(to, message)| matches!(message, Message::FetchProposal { .. }).then_some(to);
        sent.filter_map(ask).collect()
    };
    let mut first = Vec::new();
    for seq in 1..=4 {
        let p = Proposal::Null;
        for from in [1, 3] {
            rig.peer(from, Message::Prepare(vote(seq, &p))).expect("a vote");
        }
        rig.wait(Span::millis(1));
        let mut who = asked(&mut rig);
        first.push(who[0]);
        for _ in 0..8 {
            // Replica 1 says nothing.
            if who.contains(&Target::One(ReplicaId(3))) {
                break;
            }
            rig.wait(Span::millis(6));
            who = asked(&mut rig);
        }
        rig.peer(3, Message::ProposalIs { seq: Seq(seq), proposal: p }).expect("an answer");
        assert!(has_prepare(&rig.sent()), "{seq}");
        rig.wait(Span::millis(6));
        assert_eq!(asked(&mut rig), [], "nothing is missing");
    }
    let (silent, other) = (Target::One(ReplicaId(1)), Target::One(ReplicaId(3)));
    assert_eq!(first, [silent, other, other, other]);
}
