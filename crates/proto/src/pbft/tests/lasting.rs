//! What must not stand still for ever, who must not be blamed, and what must not grow: stories of
//! holes that were found by looking for them.

use super::views::{install, plan, told};
use super::*;
use crate::group::link::{FromCoordinator, Grievance, ToCoordinator};
use base::StableCheckpoint;

/// Passes the time in steps of 10 ms, with a turn after each.
fn pass(rig: &mut Rig, ms: u64) -> Vec<ToCoordinator> {
    let mut all = Vec::new();
    for _ in 0..ms / 10 {
        rig.wait(Span::millis(10));
        rig.feed(Input::Turn).expect("never refused");
        all.extend(told(rig));
    }
    all
}

fn status(stable: u64, delivered: u64) -> Message {
    Message::Status { view: View(0), stable: Seq(stable), delivered: Seq(delivered) }
}

fn left_behind(told: &[ToCoordinator]) -> bool {
    told.iter()
        .any(|one| matches!(one, ToCoordinator::LeftBehind { missing: Seq(1), stable: Seq(8) }))
}

/// The others have cut what is missing here, for it was large, and then the load ended: nobody
/// answers, and no mark moves a window further.
#[test]
fn who_gets_no_help_in_an_idle_group_asks_for_a_checkpoint() {
    let mut rig = Rig::new(2, 1);
    let round = |rig: &mut Rig, ms| {
        for from in [1, 3] {
            let _ = rig.peer(from, status(8, 9));
        }
        left_behind(&pass(rig, ms))
    };
    assert!(!round(&mut rig, 1000) && !round(&mut rig, 900), "help may be on its way");
    assert!(round(&mut rig, 500) || round(&mut rig, 500));
    // Who was merely stopped for a while has not asked yet.
    let mut rig = Rig::new(2, 1);
    assert!(!round(&mut rig, 20));
    rig.wait(Span::secs(60));
    assert!(!round(&mut rig, 200));
    // One liar moves nothing.
    let mut rig = Rig::new(2, 1);
    for _ in 0..20 {
        let _ = rig.peer(3, status(8, 9));
        assert!(!left_behind(&pass(&mut rig, 500)));
    }
}

/// The others have what is missing, and their logs reach back to it. But all but one have it from
/// a state that they fetched: they cannot say what was decided, and one alone is not believed.
#[test]
fn who_cannot_be_told_what_was_decided_asks_for_a_state() {
    let mut rig = Rig::new(2, 1);
    let round = |rig: &mut Rig, from: &[u16]| {
        for from in from {
            let _ = rig.peer(*from, status(0, 9));
        }
        let lost = ToCoordinator::LeftBehind { missing: Seq(1), stable: Seq(0) };
        pass(rig, 500).contains(&lost)
    };
    assert!(!round(&mut rig, &[1, 3]), "help may be on its way");
    assert!((0..5).any(|_| round(&mut rig, &[1, 3])));
    let mut rig = Rig::new(2, 1);
    assert!(!(0..20).any(|_| round(&mut rig, &[3])), "one liar moves nothing");
}

fn stalled(told: &[ToCoordinator]) -> bool {
    let what = Grievance::Stalled;
    told.contains(&ToCoordinator::Grievance { view: View(0), what, whom: ReplicaId(0) })
}

/// The process was stopped for a minute in the middle of the work, or the whole machine was:
/// what came meanwhile is read after the first look at the clock.
#[test]
fn who_has_slept_blames_nobody_for_that_time() {
    let mut rig = Rig::new(2, 1);
    rig.wait(Span::secs(9));
    rig.peer(0, pre_prepare(1, &Proposal::Null)).expect("a proposal");
    assert!(!stalled(&pass(&mut rig, 500)));
    rig.wait(Span::secs(60));
    rig.feed(Input::Turn).expect("never refused");
    assert!(!stalled(&told(&mut rig)));
    assert!(!stalled(&pass(&mut rig, 200)));
    assert!(stalled(&pass(&mut rig, 900)), "awake, it is as strict as ever");
}

/// A principal that shows frames to this replica alone, for ever, is in league with a leader that
/// starves another.
#[test]
fn everybody_who_waits_is_endorsed_in_turn() {
    let of = |client: u32, id: u64| {
        let id = FrameId { client: ClientId(client), session: SessionId(1), stream: 0, id };
        let mut builder = FrameBuilder::new();
        builder.push(b"op");
        Arc::new(builder.request(GROUP, id, 0, |_| Authenticator::Vector(vec![])))
    };
    let mut rig = Rig::new(2, 1);
    for id in 1..=400 {
        rig.feed(Input::Request(of(1, id))).expect("fresh");
    }
    for client in 2..=300 {
        rig.feed(Input::Request(of(client, 1))).expect("fresh");
        rig.wait(Span::millis(1));
    }
    let mut endorsed = std::collections::BTreeSet::new();
    for _ in 0..8 {
        rig.wait(Span::millis(260));
        for (_, message) in rig.sent() {
            if let Message::Endorse { entries, .. } = message {
                assert!(entries.len() <= 256);
                endorsed.extend(entries.iter().map(|(entry, _)| entry.id.client.0));
            }
        }
    }
    assert_eq!(endorsed, (1..=300).collect());
}

/// What a peer says is decided may be large, and there are many numbers in a window.
#[test]
fn decisions_far_beyond_what_is_missing_take_no_memory() {
    let mut rig = Rig::new(2, 1);
    rig.lane.cfg.window = 1024;
    let decided = |seq| Message::Decided { seq: Seq(seq), proposal: Proposal::Null };
    let (mut kept, mut refused) = (0, 0);
    for seq in 1..=1024 {
        match rig.peer(3, decided(seq)) {
            Ok(()) => kept += 1,
            Err(_) => refused += 1,
        }
    }
    assert_eq!((kept, refused), (256, 768));
    // It moves along with what is delivered.
    for seq in 1..=10 {
        rig.peer(1, decided(seq)).expect("a second voice");
    }
    assert_eq!(rig.lane.report().delivered, Seq(10));
    rig.peer(3, decided(266)).expect("an answer may be so far ahead");
}

/// One backup alone must not make a leader look through thousands of names every few
/// milliseconds.
#[test]
fn phantoms_that_one_peer_vouches_for_are_not_looked_at_again() {
    let mut rig = Rig::new(0, 1);
    let phantom = |id| BatchEntry { id: entry(&frame(id, b"op")).id, digest: Digest([4; 32]) };
    let many: Vec<BatchEntry> = (1..=1000).map(phantom).collect();
    rig.peer(3, vouch_for(many)).expect("they may be under way");
    assert_eq!(rig.lane.pool.bodyless(), 0);
    // What a second one vouches for is fetched, by VOUCH or by OWED.
    rig.peer(2, vouch_for(vec![phantom(7), phantom(7)])).expect("a vouch");
    assert_eq!(rig.lane.pool.bodyless(), 1);
    rig.sent();
    rig.wait(Span::millis(4));
    let fetched = rig.sent().into_iter().find_map(|(_, message)| match message {
        Message::Fetch { entries, .. } => Some(entries),
        _ => None,
    });
    assert_eq!(fetched, Some(vec![phantom(7)]));
}

/// What this replica misses is in no log any more. The others may be no quorum without it: it
/// votes above what is certified, and executes when the state is there.
#[test]
fn a_replica_that_waits_for_a_state_votes_above_it() {
    let mut rig = Rig::new(2, 1);
    let phantom = frame(1, b"never came");
    rig.peer(0, pre_prepare(2, &proposal(&[&phantom]))).expect("it may be under way");
    let certified = StableCheckpoint { seq: Seq(40), ..StableCheckpoint::default() };
    let float = FromCoordinator::Float(certified.clone());
    rig.feed(Input::Coordinator(float)).expect("never refused");
    rig.lane.check();
    assert_eq!(rig.lane.pool.wants(), 0, "nobody waits for the phantom any more");
    assert_eq!((rig.lane.report().stable, rig.lane.report().delivered), (Seq(0), Seq(40)));
    let p = Proposal::Null;
    assert!(rig.peer(0, pre_prepare(40, &p)).is_err());
    rig.sent();
    rig.peer(0, pre_prepare(41, &p)).expect("a proposal");
    assert!(has_prepare(&rig.sent()));
    rig.peer(3, Message::Prepare(vote(41, &p))).expect("a prepare");
    assert!(has_commit(&rig.sent()));
    for from in [0, 3] {
        rig.peer(from, Message::Commit(vote(41, &p))).expect("a commit");
    }
    assert_eq!(rig.delivered(), [], "it has not the state for that");
    // Others tell it what comes next only when they know that it has this.
    let status = Message::Status { view: View(0), stable: Seq(40), delivered: Seq(41) };
    assert_eq!(rig.lane.status(), status, "execution has no part in it");
    let blames = |told: &ToCoordinator| matches!(told, ToCoordinator::Grievance { .. });
    assert!(!pass(&mut rig, 20_000).iter().any(blames));
    // What is fetched below it is not enough.
    let proof = Arc::new((0..3).map(|r| (ReplicaId(r), Signature([0; 64]))).collect());
    let state = |seq| StableCheckpoint {
        seq: Seq(seq),
        proof: Arc::clone(&proof),
        digest: certified.digest,
    };
    for (seq, enough) in [(39, false), (40, true)] {
        let progress = Progress { executed: Seq(seq), ..Progress::default() };
        let fetched = FromStage::Fetched { checkpoint: state(seq), progress, replaced: true };
        rig.feed(Input::Stage(fetched)).expect("news");
        rig.lane.check();
        let effects: Vec<Effect> = rig.out.drain().collect();
        let lacks = ToCoordinator::LeftBehind { missing: Seq(40), stable: Seq(40) };
        let asks = |e: &Effect| matches!(e, Effect::Coordinator(told) if *told == lacks);
        assert_eq!(effects.iter().any(asks), !enough, "{seq}");
        let delivers =
            |e: &Effect| matches!(e, Effect::Stage(ToStage::Deliver { seq: Seq(41), .. }));
        assert!(effects.iter().any(delivers) || !enough, "{seq}");
    }
    assert_eq!((rig.lane.report().stable, rig.lane.report().delivered), (Seq(40), Seq(41)));
}

/// Swarm seed 1611022. A sibling has heard of a fetched state and of the next checkpoint that was
/// executed on it before this pillar hears of the first: it must not wait for ever for numbers that
/// nobody else keeps, and so keep everything above them.
#[test]
fn a_checkpoint_of_a_sibling_that_overtakes_a_fetched_state_ends_the_wait_for_what_is_below() {
    let mut rig = Rig::new(2, 2);
    let phantom = frame(1, b"nobody has it");
    rig.peer(0, pre_prepare(3, &proposal(&[&phantom]))).expect("it may be under way");
    assert!(rig.lane.pool.wants() > 0);
    let proof: Arc<Vec<_>> = Arc::new((0..3).map(|r| (ReplicaId(r), Signature([0; 64]))).collect());
    let state = |seq| StableCheckpoint {
        seq: Seq(seq),
        proof: Arc::clone(&proof),
        digest: Digest([4; 32]),
    };
    rig.feed(Input::Sibling(Sibling::Stable(state(44)))).expect("news");
    let progress = Progress { executed: Seq(40), ..Progress::default() };
    let fetched = FromStage::Fetched { checkpoint: state(40), progress, replaced: true };
    rig.feed(Input::Stage(fetched)).expect("news");
    rig.lane.check();
    assert_eq!((rig.lane.report().stable, rig.lane.report().delivered), (Seq(44), Seq(43)));
    assert_eq!(rig.lane.pool.wants(), 0, "nobody waits for the phantom any more");
    let left = |told: &ToCoordinator| matches!(told, ToCoordinator::LeftBehind { .. });
    assert!(!pass(&mut rig, 20_000).iter().any(left));
    let status = Message::Status { view: View(0), stable: Seq(44), delivered: Seq(43) };
    assert_eq!(rig.lane.status(), status);
}

/// Its log does not lead to what was fetched. All lost power, and of a certified checkpoint there
/// was one replica left that had it: too few to be believed.
#[test]
fn a_replica_says_nothing_of_states_while_what_it_fetched_is_not_on_disk() {
    let said = |rig: &mut Rig| {
        let said = rig.sent().into_iter().filter_map(|(_, message)| match message {
            Message::Checkpoint(checkpoint) => Some(checkpoint.seq.0),
            _ => None,
        });
        said.collect::<Vec<_>>()
    };
    let mut rig = Rig::new(2, 1);
    let proof = Arc::new((0..3).map(|r| (ReplicaId(r), Signature([0; 64]))).collect());
    let checkpoint = StableCheckpoint { seq: Seq(40), proof, digest: Digest([4; 32]) };
    let progress = Progress { executed: Seq(40), ..Progress::default() };
    let fetched = FromStage::Fetched { checkpoint, progress, replaced: true };
    rig.feed(Input::Stage(fetched)).expect("news");
    for seq in [44, 48] {
        let digest = Digest([5; 32]);
        rig.feed(Input::Stage(FromStage::Checkpoint { seq: Seq(seq), digest })).expect("news");
    }
    let _ = rig.peer(3, status(0, 0));
    assert_eq!(said(&mut rig), []);
    rig.feed(Input::Coordinator(FromCoordinator::Saved(Seq(36)))).expect("never refused");
    assert_eq!(said(&mut rig), [], "that is an older one");
    rig.feed(Input::Coordinator(FromCoordinator::Saved(Seq(40)))).expect("never refused");
    assert_eq!(said(&mut rig), [44, 48]);
    rig.lane.check();
    rig.wait(Span::secs(1));
    let _ = rig.peer(3, status(0, 0));
    assert_eq!(said(&mut rig), [40, 44, 48], "to whoever lacks its certificate, too");
}

/// What a weak quorum has signed moves no mark, also in the next life: votes below it still bind.
#[test]
fn a_life_that_begins_with_a_state_at_rest_keeps_what_it_promised_below_it() {
    let accepted = |seq| {
        let (proposal, batch) = (Proposal::Null, Arc::new(base::Batch::Null));
        crate::outbox::Record::PrePrepared { view: View(0), seq: Seq(seq), proposal, batch }
    };
    let proof = Arc::new((0..2).map(|r| (ReplicaId(r), Signature([0; 64]))).collect());
    let stable = StableCheckpoint { seq: Seq(10), proof, digest: Digest([4; 32]) };
    let records = (5..=14).map(accepted).collect();
    let start = crate::pbft::LaneStart { stable, active: true, records, ..Default::default() };
    let cfg = Rig::new(2, 1).lane.cfg;
    let lane = Lane::restore(cfg, Box::new(PlainKeys { me: cfg.me, n: 4 }), start);
    let mut rig = Rig { lane, now: Now { mono: Time(1), wall: WALL }, out: Outbox::new() };
    rig.feed(Input::Turn).expect("never refused");
    rig.lane.check();
    assert_eq!((rig.lane.report().stable, rig.lane.report().delivered), (Seq(0), Seq(10)));
    let proof = Arc::new((0..3).map(|r| (ReplicaId(r), Signature([0; 64]))).collect());
    let certified = StableCheckpoint { seq: Seq(8), proof, digest: Digest([3; 32]) };
    rig.feed(Input::Coordinator(FromCoordinator::Certified(certified))).expect("never refused");
    assert_eq!(rig.lane.report().stable, Seq(8), "it follows from what the state is");
    rig.feed(Input::Coordinator(FromCoordinator::Stop { view: View(1) })).expect("never refused");
    let slice = told(&mut rig).into_iter().find_map(|word| match word {
        ToCoordinator::Slice { entries, .. } => Some(entries),
        _ => None,
    });
    let seqs: Vec<u64> = slice.expect("it was asked").iter().map(|entry| entry.seq.0).collect();
    assert_eq!(seqs, (9..=14).collect::<Vec<u64>>());
}

/// Swarm seed 3516186: the log was cut by a checkpoint before that, and what is left of the numbers
/// below the cut is a part: a PREPARED here, and of others nothing, though they were voted for.
#[test]
fn a_life_that_begins_with_a_state_at_rest_says_nothing_of_what_its_log_was_cut_from() {
    let (proposal, digest) = (Proposal::Null, Proposal::Null.digest(GROUP, Seq(6)));
    let prepared = crate::outbox::Record::Prepared { view: View(0), seq: Seq(6), digest };
    let (seq, batch) = (Seq(7), Arc::new(base::Batch::Null));
    let accepted = crate::outbox::Record::PrePrepared { view: View(0), seq, proposal, batch };
    let proof = Arc::new((0..2).map(|r| (ReplicaId(r), Signature([0; 64]))).collect());
    let stable = StableCheckpoint { seq: Seq(10), proof, digest: Digest([4; 32]) };
    let records = vec![prepared, accepted];
    let start =
        crate::pbft::LaneStart { stable, cut: Seq(6), active: true, records, ..Default::default() };
    let cfg = Rig::new(2, 1).lane.cfg;
    let lane = Lane::restore(cfg, Box::new(PlainKeys { me: cfg.me, n: 4 }), start);
    let mut rig = Rig { lane, now: Now { mono: Time(1), wall: WALL }, out: Outbox::new() };
    rig.feed(Input::Turn).expect("never refused");
    rig.lane.check();
    // What it had voted for at the lower numbers it does not know any more.
    for seq in 5..=6 {
        let again = rig.peer(0, pre_prepare(seq, &Proposal::Null));
        assert_eq!(again, Err(Reject::Stale("cut off")), "{seq}");
    }
    assert!(!has_prepare(&rig.sent()));
    rig.peer(0, pre_prepare(8, &Proposal::Null)).expect("others may need its vote");
    assert!(has_prepare(&rig.sent()));
    // The log was cut by a checkpoint, and the certificate of that or a later one is told.
    let proof = Arc::new((0..3).map(|r| (ReplicaId(r), Signature([0; 64]))).collect());
    let certified = StableCheckpoint { seq: Seq(6), proof, digest: Digest([3; 32]) };
    rig.feed(Input::Coordinator(FromCoordinator::Certified(certified))).expect("never refused");
    assert_eq!(rig.lane.report().stable, Seq(6));
    rig.lane.check();
}

/// Seed 20671: the low mark stays while a state is fetched, and signatures of what was certified
/// meanwhile were kept up to then.
#[test]
fn a_replica_that_floats_forgets_checkpoints_below_its_floor() {
    let mut rig = Rig::new(2, 1);
    let said =
        |seq| Checkpoint { seq: Seq(seq), digest: Digest([3; 32]), signature: Signature([0; 64]) };
    for seq in [8, 16, 24] {
        rig.peer(3, Message::Checkpoint(said(seq))).expect("the first of its sender");
    }
    assert_eq!(rig.lane.holdings().checkpoints, 3);
    let certified = StableCheckpoint { seq: Seq(16), ..StableCheckpoint::default() };
    rig.feed(Input::Coordinator(FromCoordinator::Float(certified))).expect("never refused");
    assert_eq!(rig.lane.holdings().checkpoints, 1, "that above the floor");
}

/// Swarm seed 4218868. A state that was fetched on a weak quorum's word moves no mark, and what it
/// is above may be as much as the group has ever ordered: a liar could name it all.
#[test]
fn what_is_said_of_checkpoints_far_below_what_is_executed_is_not_kept() {
    let mut rig = Rig::new(2, 1);
    let said =
        |seq| Checkpoint { seq: Seq(seq), digest: Digest([3; 32]), signature: Signature([0; 64]) };
    let (window, interval) = (rig.lane.cfg.window, rig.lane.cfg.checkpoint_interval);
    rig.peer(3, Message::Checkpoint(said(interval))).expect("the first of its sender");
    let proof = Arc::new((0..2).map(|r| (ReplicaId(r), Signature([0; 64]))).collect());
    let far = 100 * window;
    let checkpoint = StableCheckpoint { seq: Seq(far), proof, digest: Digest([4; 32]) };
    let progress = Progress { executed: Seq(far), ..Progress::default() };
    let fetched = FromStage::Fetched { checkpoint, progress, replaced: true };
    rig.feed(Input::Stage(fetched)).expect("news");
    assert_eq!(rig.lane.report().stable, Seq(0), "a weak quorum's word moves no mark");
    for seq in (2 * interval..far + window).step_by(usize::try_from(interval).unwrap()) {
        let kept = rig.peer(3, Message::Checkpoint(said(seq)));
        assert_eq!(kept.is_ok(), seq >= far - 2 * window, "{seq}");
    }
    let kept = usize::try_from(3 * window / interval).unwrap();
    assert_eq!(rig.lane.holdings().checkpoints, kept, "that from before is gone, too");
    rig.lane.check();
}

/// A state that was fetched takes the place of what was executed, and what a checkpoint above it
/// was found to be before counts no more: neither for a certificate, whose mark the stage would not
/// be at, nor as this replica's word.
#[test]
fn what_was_found_before_a_fetch_counts_no_more() {
    let (before, after) = (Digest([5; 32]), Digest([6; 32]));
    let fetched_four = || {
        let mut rig = Rig::new(2, 1);
        for seq in [4, 8] {
            let told = FromStage::Checkpoint { seq: Seq(seq), digest: before };
            rig.feed(Input::Stage(told)).expect("news");
        }
        let proof = Arc::new((0..3).map(|r| (ReplicaId(r), Signature([0; 64]))).collect());
        let checkpoint = StableCheckpoint { seq: Seq(4), proof, digest: Digest([4; 32]) };
        let progress = Progress { executed: Seq(4), ..Progress::default() };
        let fetched = FromStage::Fetched { checkpoint, progress, replaced: true };
        rig.feed(Input::Stage(fetched)).expect("news");
        rig
    };
    let mut rig = fetched_four();
    // With its own word from before, which is as good as theirs.
    for from in [0, 1] {
        rig.peer(from, signed(from, 8, before)).expect("genuine");
    }
    assert_eq!(rig.lane.report().stable, Seq(4), "the stage is not there yet");
    rig.feed(Input::Stage(FromStage::Checkpoint { seq: Seq(8), digest: before })).expect("news");
    assert_eq!(rig.lane.report().stable, Seq(8));
    let mut rig = fetched_four();
    rig.sent();
    rig.feed(Input::Stage(FromStage::Checkpoint { seq: Seq(8), digest: after })).expect("news");
    rig.feed(Input::Coordinator(FromCoordinator::Saved(Seq(4)))).expect("never refused");
    let signs = |message: &Message| match message {
        Message::Checkpoint(said) => Some((said.seq, said.digest)),
        _ => None,
    };
    let said: Vec<_> = rig.sent().iter().filter_map(|(_, message)| signs(message)).collect();
    assert_eq!(said, [(Seq(8), after)]);
}

/// Swarm seed 3811232. What was to be fetched was executed after all, out of the log: with four
/// pillars one had heard of that before it was told to float, and voted up to the end of a window
/// that moved no more.
#[test]
fn what_is_floated_above_is_stable_once_it_is_executed_here() {
    for executed_first in [true, false] {
        let mut rig = Rig::new(2, 1);
        for seq in 1..=8 {
            for from in [0, 1] {
                let decided = Message::Decided { seq: Seq(seq), proposal: Proposal::Null };
                rig.peer(from, decided).expect("a weak quorum says so");
            }
        }
        let certified = super::restart::signed_by(&[0, 1, 3], 8);
        let float = FromCoordinator::Float(certified.clone());
        rig.feed(Input::Coordinator(float)).expect("never refused");
        assert_eq!(rig.lane.report().stable, Seq(0), "it has yet to execute that");
        rig.out.drain().for_each(drop);
        let progress = Progress { executed: Seq(8), ..Progress::default() };
        let own = FromStage::Checkpoint { seq: Seq(8), digest: certified.digest };
        let mut news = [FromStage::Executed(progress), own];
        if !executed_first {
            news.reverse();
        }
        for one in news {
            rig.feed(Input::Stage(one)).expect("news");
        }
        assert_eq!(rig.lane.report().stable, Seq(8), "executed first: {executed_first}");
        let tells = |e: Effect| matches!(e, Effect::Siblings(Sibling::Stable(s)) if s == certified);
        assert!(rig.out.drain().any(tells), "those who do not float");
    }
}

/// Seed 12455: what was delivered behind a gap, and then left to the state that is fetched, stayed
/// ordered for ever. Such a replica proposed none of it when it led, whoever asked.
#[test]
fn what_is_delivered_and_never_executed_here_may_be_ordered_again() {
    let mut rig = Rig::new(2, 1);
    let f = frame(1, b"op");
    rig.feed(Input::Request(f.clone())).expect("fresh");
    let p = proposal(&[&f]);
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    rig.peer(3, Message::Prepare(vote(1, &p))).expect("a prepare");
    for from in [0, 3] {
        rig.peer(from, Message::Commit(vote(1, &p))).expect("a commit");
    }
    assert_eq!(rig.delivered(), [Seq(1)]);
    let certified = StableCheckpoint { seq: Seq(40), ..StableCheckpoint::default() };
    rig.feed(Input::Coordinator(FromCoordinator::Float(certified))).expect("never refused");
    rig.sent();
    // The client asks again, and this replica tells the leader of it.
    rig.wait(Span::secs(1));
    rig.feed(Input::Request(f.clone())).expect("it may repeat");
    let vouch = Message::Vouch { executed: Seq(40), entries: vec![entry(&f)] };
    assert!(rig.sent().contains(&(Target::One(ReplicaId(0)), vouch)));
    let key = (f.id(), f.digest());
    assert!(rig.lane.pool.get(&key).is_some_and(|held| !held.ordered));
}

/// Execution gets there by itself.
#[test]
fn what_an_earlier_life_has_left_is_not_missing() {
    let committed = |seq| {
        let digest = Proposal::Null.digest(GROUP, Seq(seq));
        let batch = Some((Proposal::Null, Arc::new(base::Batch::Null)));
        crate::outbox::Record::Committed { seq: Seq(seq), digest, batch }
    };
    for (last, lost) in [(40, false), (16, true)] {
        let records = (1..=last).map(committed).collect();
        let start = crate::pbft::LaneStart { active: true, records, ..Default::default() };
        let cfg = Rig::new(2, 1).lane.cfg;
        let lane = Lane::restore(cfg, Box::new(PlainKeys { me: cfg.me, n: 4 }), start);
        let mut rig = Rig { lane, now: Now { mono: Time(1), wall: WALL }, out: Outbox::new() };
        rig.feed(Input::Turn).expect("never refused");
        for from in [0, 1] {
            let _ = rig.peer(from, status(36, 36));
        }
        let left = |told: &ToCoordinator| matches!(told, ToCoordinator::LeftBehind { .. });
        assert_eq!(told(&mut rig).iter().any(left), lost, "{last}");
    }
}

/// Swarm seed 30225: everybody had lost power, and the NEW-VIEW came before execution was through
/// with the log. The replica left all that it had decided to a state that it would fetch, and
/// that one other replica alone had: too few to believe it.
#[test]
fn a_view_that_begins_far_ahead_takes_nothing_that_an_earlier_life_has_decided() {
    let committed = |seq| {
        let digest = Proposal::Null.digest(GROUP, Seq(seq));
        let batch = Some((Proposal::Null, Arc::new(base::Batch::Null)));
        crate::outbox::Record::Committed { seq: Seq(seq), digest, batch }
    };
    for (last, lost) in [(60, false), (16, true)] {
        let records = (1..=last).map(committed).collect();
        let start = crate::pbft::LaneStart { active: true, records, ..Default::default() };
        let cfg = Rig::new(2, 1).lane.cfg;
        let lane = Lane::restore(cfg, Box::new(PlainKeys { me: cfg.me, n: 4 }), start);
        let mut rig = Rig { lane, now: Now { mono: Time(1), wall: WALL }, out: Outbox::new() };
        rig.feed(Input::Turn).expect("never refused");
        install(&mut rig, &plan(5, 48, &[]));
        let left = |told: &ToCoordinator| matches!(told, ToCoordinator::LeftBehind { .. });
        assert_eq!(told(&mut rig).iter().any(left), lost, "{last}");
    }
}
