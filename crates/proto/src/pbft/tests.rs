//! What one lane does when others misbehave, message by message. Whole groups run in `sim`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::vec;

use base::crypto::PlainKeys;
use base::{
    AgreedTime, Authenticator, BatchEntry, ClientId, Digest, Epoch, Frame, FrameBuilder, FrameId,
    FromStage, GroupId, Incarnation, Keyring, Mac, Now, PillarId, Progress, Quorums, ReplicaId,
    Seq, SessionId, Sibling, Signature, Span, Stripe, Time, ToStage, View,
};

use super::msg::{Checkpoint, Message, Proposal, Vote};
use super::{Batching, Input, Lane, LaneConfig, Reject, Switches};
use crate::outbox::{Effect, Fact, Outbox, Target};

mod divided;
mod endorsed;
mod grieve;
mod held;
mod hostile;
mod lasting;
mod quota;
mod refused;
mod repeats;
mod restart;
mod rotating;
mod undecided;
mod vain;
mod views;

const GROUP: GroupId = GroupId([7; 32]);
const WALL: AgreedTime = AgreedTime(1_000_000_000_000);

/// A lane under test, with everything it wanted so far.
struct Rig {
    lane: Lane,
    now: Now,
    out: Outbox,
}

impl Rig {
    fn new(me: u16, pillars: u16) -> Rig {
        Rig::with(me, pillars, Switches::default())
    }

    fn with(me: u16, pillars: u16, switches: Switches) -> Rig {
        Rig::among((4, 1), me, pillars, switches)
    }

    /// One of `n` replicas of which `f` may be faulty.
    fn among((n, f): (u16, u16), me: u16, pillars: u16, switches: Switches) -> Rig {
        let cfg = LaneConfig {
            me: ReplicaId(me),
            pillar: PillarId(0),
            group: GROUP,
            epoch: Epoch(0),
            quorums: Quorums::pbft(n, f).expect("n > 3f"),
            stripe: Stripe::new(pillars).expect("in range"),
            window: 16,
            checkpoint_interval: 4,
            switches,
            batching: Batching {
                frames_max: 8,
                bytes_max: 1 << 20,
                delay: Span(0),
                in_flight_max: 2,
            },
            clock_skew_max: Span::secs(5),
            retransmit: Span::millis(50),
            view_timeout: Span::secs(1),
        };
        let keys = PlainKeys { me: ReplicaId(me), n };
        let now = Now { mono: Time(1), wall: WALL };
        Rig { lane: Lane::new(cfg, Box::new(keys)), now, out: Outbox::new() }
    }

    fn feed(&mut self, input: Input) -> Result<(), Reject> {
        let result = self.lane.step(self.now, input, &mut self.out);
        self.lane.check();
        result
    }

    fn peer(&mut self, from: u16, message: Message) -> Result<(), Reject> {
        let (from, incarnation) = (ReplicaId(from), Incarnation(1));
        self.feed(Input::Peer { from, incarnation, message })
    }

    fn wait(&mut self, span: Span) {
        self.now.mono = self.now.mono.after(span);
        self.now.wall.0 += span.0;
    }

    /// Ends the turn and takes what the lane wants sent.
    fn sent(&mut self) -> Vec<(Target, Message)> {
        self.feed(Input::Turn).expect("turns are never refused");
        let send = |effect| match effect {
            Effect::Send { to, message, .. } => Some((to, message)),
            _ => None,
        };
        self.out.drain().filter_map(send).collect()
    }

    fn delivered(&mut self) -> Vec<Seq> {
        let deliver = |effect| match effect {
            Effect::Stage(ToStage::Deliver { seq, .. }) => Some(seq),
            _ => None,
        };
        self.out.drain().filter_map(deliver).collect()
    }
}

fn frame(id: u64, op: &[u8]) -> Arc<Frame> {
    frame_with(id, op, |digest| {
        let client = PlainKeys { me: ReplicaId(0), n: 4 };
        base::crypto::ClientKeyring::authenticate(&client, digest)
    })
}

fn frame_with(id: u64, op: &[u8], auth: impl FnOnce(Digest) -> Authenticator) -> Arc<Frame> {
    let id = FrameId { client: ClientId(3), session: SessionId(1), stream: 0, id };
    let mut builder = FrameBuilder::new();
    builder.push(op);
    Arc::new(builder.request(GROUP, id, 0, auth))
}

fn entry(frame: &Frame) -> BatchEntry {
    BatchEntry { id: frame.id(), digest: frame.digest() }
}

/// A VOUCH of somebody who has executed nothing.
fn vouch_for(entries: Vec<BatchEntry>) -> Message {
    Message::Vouch { executed: Seq(0), entries }
}

fn proposal(frames: &[&Arc<Frame>]) -> Proposal {
    Proposal::Frames { time: WALL, entries: frames.iter().map(|frame| entry(frame)).collect() }
}

fn pre_prepare(seq: u64, proposal: &Proposal) -> Message {
    Message::PrePrepare { view: View(0), seq: Seq(seq), proposal: proposal.clone() }
}

fn vote(seq: u64, proposal: &Proposal) -> Vote {
    Vote { view: View(0), seq: Seq(seq), digest: proposal.digest(GROUP, Seq(seq)) }
}

fn has_prepare(sent: &[(Target, Message)]) -> bool {
    sent.iter().any(|(_, message)| matches!(message, Message::Prepare(_)))
}

fn has_commit(sent: &[(Target, Message)]) -> bool {
    sent.iter().any(|(_, message)| matches!(message, Message::Commit(_)))
}

fn proposals(sent: &[(Target, Message)]) -> Vec<(Seq, usize)> {
    let of = |(_, message): &(Target, Message)| match message {
        Message::PrePrepare { seq, proposal, .. } => Some((*seq, proposal.entries().len())),
        _ => None,
    };
    sent.iter().filter_map(of).collect()
}

#[test]
fn a_leader_proposes_only_what_a_quorum_of_distinct_replicas_vouches_for() {
    let mut rig = Rig::new(0, 1);
    let f = frame(1, b"op");
    rig.feed(Input::Request(f.clone())).expect("a fresh frame");
    assert!(proposals(&rig.sent()).is_empty(), "its own word is one of three");
    for _ in 0..3 {
        rig.peer(1, vouch_for(vec![entry(&f)])).expect("a vouch");
        assert!(proposals(&rig.sent()).is_empty(), "one replica is one vouch, however often");
    }
    rig.peer(2, vouch_for(vec![entry(&f)])).expect("a vouch");
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
    assert!(proposals(&rig.sent()).is_empty(), "and only once");
}

#[test]
fn different_bodies_under_one_id_are_never_proposed_and_block_nobody() {
    let mut rig = Rig::new(0, 1);
    let (a, b, c, other) = (frame(1, b"a"), frame(1, b"b"), frame(1, b"c"), frame(2, b"d"));
    rig.feed(Input::Request(a.clone())).expect("fresh");
    rig.feed(Input::Request(other.clone())).expect("fresh");
    rig.peer(1, vouch_for(vec![entry(&a), entry(&other)])).expect("a vouch");
    rig.peer(2, vouch_for(vec![entry(&b), entry(&other)])).expect("a vouch");
    rig.peer(3, vouch_for(vec![entry(&c)])).expect("a vouch");
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
}

#[test]
fn a_backup_accepts_what_its_client_sent_and_waits_for_what_it_did_not() {
    let mut rig = Rig::new(1, 1);
    let (known, invented) = (frame(1, b"a"), frame(2, b"b"));
    rig.feed(Input::Request(known.clone())).expect("fresh");
    let sent = rig.sent();
    assert_eq!(sent, [(Target::One(ReplicaId(0)), vouch_for(vec![entry(&known)]))]);
    rig.peer(0, pre_prepare(1, &proposal(&[&known]))).expect("a proposal");
    assert!(has_prepare(&rig.sent()));
    rig.peer(0, pre_prepare(2, &proposal(&[&invented]))).expect("it may be under way");
    assert!(!has_prepare(&rig.sent()));
    rig.wait(Span::millis(4));
    let fetch = Message::Fetch { seq: Seq(2), entries: vec![entry(&invented)] };
    assert!(rig.sent().contains(&(Target::All, fetch)));
}

#[test]
fn a_leader_cannot_invent_a_request_even_with_its_body() {
    let mut rig = Rig::new(1, 1);
    let forged = frame_with(1, b"steal", |_| Authenticator::Vector(vec![Mac([9; 16]); 4]));
    rig.peer(0, pre_prepare(1, &proposal(&[&forged]))).expect("it may be under way");
    rig.peer(0, Message::Body { vouched: true, frame: forged.clone() }).expect("a body");
    assert!(!has_prepare(&rig.sent()), "the leader's word alone is f");
    rig.peer(2, Message::Body { vouched: false, frame: forged.clone() }).ok();
    assert!(!has_prepare(&rig.sent()), "a body is not a vouch");
    rig.peer(2, Message::Body { vouched: true, frame: forged }).expect("a second vouch");
    assert!(has_prepare(&rig.sent()), "two of four: one of them is correct");
}

#[test]
fn a_genuine_authenticator_is_as_good_as_the_clients_own_link() {
    let mut rig = Rig::new(1, 1);
    let late = frame(1, b"op");
    rig.peer(0, pre_prepare(1, &proposal(&[&late]))).expect("it may be under way");
    rig.peer(0, Message::Body { vouched: true, frame: late }).expect("a body");
    assert!(has_prepare(&rig.sent()));
}

#[test]
fn the_first_proposal_for_a_number_stays() {
    let mut rig = Rig::new(1, 1);
    let (a, b) = (frame(1, b"a"), frame(2, b"b"));
    rig.feed(Input::Request(a.clone())).expect("fresh");
    rig.feed(Input::Request(b.clone())).expect("fresh");
    rig.peer(0, pre_prepare(1, &proposal(&[&a]))).expect("a proposal");
    let sin = rig.peer(0, pre_prepare(1, &proposal(&[&b])));
    assert_eq!(sin, Err(Reject::Misbehaviour("second proposal for one number")));
    let sin = rig.peer(2, pre_prepare(2, &proposal(&[&b])));
    assert_eq!(sin, Err(Reject::Misbehaviour("pre-prepare from a replica that does not lead")));
    let prepares: Vec<_> =
        rig.sent().into_iter().filter(|s| has_prepare(core::slice::from_ref(s))).collect();
    assert_eq!(prepares, [(Target::All, Message::Prepare(vote(1, &proposal(&[&a]))))]);
}

#[test]
fn prepared_needs_two_backups_and_committed_three_replicas() {
    let mut rig = Rig::new(1, 1);
    let p = Proposal::Null;
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    assert!(has_prepare(&rig.sent()));
    let sin = rig.peer(0, Message::Prepare(vote(1, &p)));
    assert_eq!(sin, Err(Reject::Misbehaviour("prepare from the leader")));
    let wrong = Vote { digest: Digest([1; 32]), ..vote(1, &p) };
    rig.peer(3, Message::Prepare(wrong)).expect("counted, for another digest");
    assert!(!has_commit(&rig.sent()));
    let again = rig.peer(3, Message::Prepare(vote(1, &p)));
    assert_eq!(again, Err(Reject::Misbehaviour("two prepares for one number")));
    rig.peer(2, Message::Prepare(vote(1, &p))).expect("a prepare");
    assert!(has_commit(&rig.sent()));
    rig.peer(0, Message::Commit(vote(1, &p))).expect("a commit");
    assert_eq!(rig.peer(0, Message::Commit(vote(1, &p))), Err(Reject::Stale("vote again")));
    assert!(rig.delivered().is_empty());
    rig.peer(3, Message::Commit(vote(1, &p))).expect("a commit");
    assert_eq!(rig.delivered(), [Seq(1)]);
}

#[test]
fn votes_may_come_before_the_proposal() {
    let mut rig = Rig::new(1, 1);
    let p = Proposal::Null;
    for from in [2, 3] {
        rig.peer(from, Message::Prepare(vote(1, &p))).expect("early");
        rig.peer(from, Message::Commit(vote(1, &p))).expect("early");
    }
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    assert_eq!(rig.delivered(), [Seq(1)]);
}

#[test]
fn what_is_out_of_scope_leaves_no_trace() {
    let mut rig = Rig::new(1, 2);
    let v = |seq| Vote { view: View(0), seq: Seq(seq), digest: Digest([1; 32]) };
    let other = Reject::Misbehaviour("number of another pillar");
    assert_eq!(rig.peer(2, Message::Prepare(v(2))), Err(other));
    let beyond = Reject::Stale("outside the watermarks");
    assert_eq!(rig.peer(2, Message::Prepare(v(17))), Err(beyond));
    assert_eq!(rig.peer(2, Message::Commit(v(u64::MAX >> 1))), Err(beyond));
    let view = Vote { view: View(1), ..v(1) };
    assert_eq!(rig.peer(2, Message::Prepare(view)), Err(Reject::Stale("another view")));
    let sin = Err(Reject::Misbehaviour("sender is not another replica"));
    assert_eq!(rig.peer(1, Message::Prepare(v(1))), sin);
    assert_eq!(rig.peer(4, Message::Prepare(v(1))), sin);
    assert_eq!(rig.lane.report().delivered, Seq(0));
}

#[test]
fn a_proposed_time_far_from_ones_own_clock_is_refused() {
    let mut rig = Rig::new(1, 1);
    let p = Proposal::Frames { time: AgreedTime(WALL.0 + 6_000_000_000), entries: vec![] };
    let sin = rig.peer(0, pre_prepare(1, &p));
    assert_eq!(sin, Err(Reject::Misbehaviour("proposed time is out of bounds")));
    assert!(!has_prepare(&rig.sent()));
}

#[test]
fn an_idle_pillar_fills_its_numbers_with_null_when_a_sibling_moves_on() {
    let mut rig = Rig::new(0, 4);
    rig.feed(Input::Sibling(Sibling::Proposed(Seq(7)))).expect("news");
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 0), (Seq(5), 0)]);
    // Never beyond the watermarks: that bounds how far pillars drift apart.
    rig.feed(Input::Sibling(Sibling::Proposed(Seq(1000)))).expect("news");
    assert_eq!(proposals(&rig.sent()), [(Seq(9), 0), (Seq(13), 0)]);
}

/// The last numbers of the window may be those of idle pillars, and end in the one checkpoint that
/// everybody can sign.
#[test]
fn a_pillar_at_the_end_of_the_window_has_its_siblings_fill_it() {
    let mut rig = Rig::new(0, 4);
    let told = |rig: &mut Rig, id: u64| {
        let f = frame(id, b"op");
        rig.feed(Input::Request(f.clone())).expect("fresh");
        for from in [1, 2] {
            rig.peer(from, vouch_for(vec![entry(&f)])).expect("a vouch");
        }
        let progress = Progress { executed: Seq(4 * id), ..Progress::default() };
        rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
        rig.feed(Input::Turn).expect("turns are never refused");
        let told = rig.out.drain().filter_map(|effect| match effect {
            Effect::Siblings(Sibling::Proposed(seq)) => Some(seq.0),
            _ => None,
        });
        told.collect::<Vec<u64>>()
    };
    let proposed: Vec<u64> = (1..=4).flat_map(|id| told(&mut rig, id)).collect();
    assert_eq!(proposed, [1, 5, 9, 13]);
    assert_eq!(told(&mut rig, 5), [17], "it lies beyond the high mark");
    assert_eq!(told(&mut rig, 6), [], "once is enough");
}

#[test]
fn frames_gather_while_enough_is_in_flight() {
    let mut rig = Rig::new(0, 1);
    let offer = |rig: &mut Rig, id| {
        let f = frame(id, b"op");
        rig.feed(Input::Request(f.clone())).expect("fresh");
        rig.peer(1, vouch_for(vec![entry(&f)])).expect("a vouch");
        rig.peer(2, vouch_for(vec![entry(&f)])).expect("a vouch");
        proposals(&rig.sent())
    };
    assert_eq!(offer(&mut rig, 1), [(Seq(1), 1)]);
    assert_eq!(offer(&mut rig, 2), [(Seq(2), 1)]);
    assert_eq!(offer(&mut rig, 3), []);
    assert_eq!(offer(&mut rig, 4), []);
    let progress = Progress { executed: Seq(2), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    assert_eq!(proposals(&rig.sent()), [(Seq(3), 2)], "what gathered goes together");
    // A certificate says that the others have done what this replica has yet to do.
    assert_eq!(offer(&mut rig, 5), [(Seq(4), 1)]);
    assert_eq!(offer(&mut rig, 6), []);
    for from in [1, 2, 3] {
        rig.peer(from, signed(from, 4, Digest([5; 32]))).expect("a checkpoint");
    }
    assert_eq!(proposals(&rig.sent()), [(Seq(5), 1)], "they do not wait for it");
}

#[test]
fn an_idle_group_orders_a_tick_when_the_service_has_a_deadline() {
    let mut rig = Rig::new(0, 1);
    let deadline = Some(AgreedTime(WALL.0 + 1_000_000_000));
    let progress = Progress { deadline, ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    assert!(proposals(&rig.sent()).is_empty());
    let due = rig.lane.deadline().expect("a deadline");
    assert!(due <= rig.now.mono.after(Span::secs(1)));
    rig.wait(Span::secs(1));
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 0)]);
    assert!(rig.lane.deadline().is_some_and(|at| at > rig.now.mono), "no spinning meanwhile");
}

/// A leader that starts anew in the midst of a history skips what it hears is decided, and loses
/// no frame over it.
#[test]
fn a_leader_proposes_nothing_for_a_number_that_is_decided() {
    let mut rig = Rig::new(0, 1);
    for from in [1, 2] {
        let decided = Message::Decided { seq: Seq(1), proposal: Proposal::Null };
        rig.peer(from, decided).expect("a weak quorum says so");
    }
    let f = frame(1, b"op");
    rig.feed(Input::Request(f.clone())).expect("fresh");
    rig.peer(1, vouch_for(vec![entry(&f)])).expect("a vouch");
    rig.peer(2, vouch_for(vec![entry(&f)])).expect("a vouch");
    assert_eq!(proposals(&rig.sent()), [(Seq(2), 1)]);
}

#[test]
fn decided_is_believed_from_a_weak_quorum_and_then_needs_no_votes() {
    let mut rig = Rig::new(1, 1);
    let f = frame(1, b"op");
    let p = proposal(&[&f]);
    let decided = |p: &Proposal| Message::Decided { seq: Seq(1), proposal: p.clone() };
    rig.peer(2, decided(&p)).expect("one says so");
    rig.peer(3, decided(&Proposal::Null)).expect("another lies");
    rig.feed(Input::Request(f)).expect("fresh");
    assert!(rig.delivered().is_empty());
    let sin = Reject::Misbehaviour("two decisions for one number");
    assert_eq!(rig.peer(3, decided(&p)), Err(sin));
    rig.peer(0, decided(&p)).expect("a second says so");
    assert_eq!(rig.delivered(), [Seq(1)]);
}

fn signed(from: u16, seq: u64, digest: Digest) -> Message {
    let keys = PlainKeys { me: ReplicaId(from), n: 4 };
    let bytes = Checkpoint::signed_bytes(GROUP, Epoch(0), Seq(seq), digest);
    Message::Checkpoint(Checkpoint { seq: Seq(seq), digest, signature: keys.sign(&bytes) })
}

/// Brings a backup to number 4, where it takes its checkpoint with `digest`.
fn executed_to_four(digest: Digest) -> Rig {
    let mut rig = Rig::new(1, 1);
    for seq in 1..=4 {
        for from in [2, 3] {
            rig.peer(from, Message::Prepare(vote(seq, &Proposal::Null))).expect("early");
            rig.peer(from, Message::Commit(vote(seq, &Proposal::Null))).expect("early");
        }
        rig.peer(0, pre_prepare(seq, &Proposal::Null)).expect("a proposal");
    }
    let progress = Progress { executed: Seq(4), ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    rig.feed(Input::Stage(FromStage::Checkpoint { seq: Seq(4), digest })).expect("news");
    rig
}

#[test]
fn a_checkpoint_is_stable_with_three_genuine_signatures_only() {
    let digest = Digest([5; 32]);
    let mut rig = executed_to_four(digest);
    let forged = Checkpoint { seq: Seq(4), digest, signature: Signature([0; 64]) };
    rig.peer(2, Message::Checkpoint(forged)).expect("not looked at yet");
    rig.peer(3, signed(3, 4, digest)).expect("genuine");
    assert_eq!(rig.lane.report().stable, Seq(0), "two of three are genuine");
    rig.peer(0, signed(0, 4, digest)).expect("genuine");
    assert_eq!(rig.lane.report().stable, Seq(4));
    let known = Err(Reject::Stale("checkpoint is stable already"));
    assert_eq!(rig.peer(2, signed(2, 4, digest)), known);
}

/// Its memory was spoilt: it ends, comes back, executes anew and signs what is right. When the
/// others had heard it first, with one of four away, no mark moved any more.
#[test]
fn who_corrects_its_checkpoint_is_heard() {
    let (digest, lie) = (Digest([5; 32]), Digest([6; 32]));
    let mut rig = executed_to_four(digest);
    rig.peer(3, signed(3, 4, lie)).expect("not looked at yet");
    rig.peer(2, signed(2, 4, digest)).expect("genuine");
    rig.peer(3, signed(3, 4, digest)).expect("corrected");
    assert_eq!(rig.lane.report().stable, Seq(4));
}

#[test]
fn a_checkpoint_is_corrected_now_and_then_only_and_not_once_it_was_found_forged() {
    let digest = Digest([5; 32]);
    let mut rig = executed_to_four(digest);
    let takes = |rig: &mut Rig| {
        let words = (0..100).map(|turn| signed(3, 4, Digest([10 + turn % 2; 32])));
        words.filter(|word| rig.peer(3, word.clone()).is_ok()).count()
    };
    let burst = takes(&mut rig);
    assert!((2..=8).contains(&burst), "{burst} of a hundred at once");
    rig.wait(Span::millis(50));
    let forged = Checkpoint { seq: Seq(4), digest, signature: Signature([0; 64]) };
    rig.peer(3, Message::Checkpoint(forged)).expect("not looked at yet");
    rig.peer(2, signed(2, 4, digest)).expect("genuine");
    rig.wait(Span::millis(50));
    let sin = Err(Reject::Misbehaviour("two checkpoints for one number"));
    assert_eq!(rig.peer(3, signed(3, 4, digest)), sin);
    assert_eq!(rig.lane.report().stable, Seq(0), "two of three are genuine");
}

#[test]
fn a_quorum_for_another_digest_is_told_and_moves_no_mark() {
    let (mine, theirs) = (Digest([5; 32]), Digest([6; 32]));
    let mut rig = executed_to_four(mine);
    for from in [0, 2, 3] {
        rig.peer(from, signed(from, 4, theirs)).expect("genuine");
    }
    assert_eq!(rig.lane.report().stable, Seq(0));
    let out: Vec<Effect> = rig.out.drain().collect();
    let diverged = |e: &&Effect| matches!(e, Effect::Fact(Fact::Diverged { .. }));
    assert_eq!(out.iter().filter(diverged).count(), 1);
    // Swarm seed 4416678: the stage executed on, and took for its own what it was to fetch.
    let stands = |e: &&Effect| matches!(e, Effect::Stage(ToStage::Stable(s)) if s.digest == theirs);
    assert_eq!(out.iter().filter(stands).count(), 1);
}

/// It fetches what differs, executes nothing meanwhile, and goes by what the group has done: it
/// does not learn that a tick has moved agreed time past the deadline.
#[test]
fn a_leader_that_has_diverged_orders_few_ticks() {
    let mut rig = Rig::new(0, 1);
    for seq in 1..=8 {
        for from in [1, 2] {
            let decided = Message::Decided { seq: Seq(seq), proposal: Proposal::Null };
            rig.peer(from, decided).expect("a weak quorum says so");
        }
    }
    let deadline = Some(AgreedTime(WALL.0 - 1));
    let progress = Progress { executed: Seq(4), deadline, ..Progress::default() };
    rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
    let digest = Digest([5; 32]);
    rig.feed(Input::Stage(FromStage::Checkpoint { seq: Seq(4), digest })).expect("news");
    for (seq, from) in [(4, 1), (4, 2), (4, 3), (8, 1), (8, 2), (8, 3)] {
        rig.peer(from, signed(from, seq, Digest([6; 32]))).expect("genuine");
    }
    assert!(!rig.lane.floats());
    let mut ticks = 0;
    for _ in 0..300 {
        rig.wait(Span::millis(10));
        for (_, message) in rig.sent() {
            let Message::PrePrepare { seq, proposal, .. } = message else { continue };
            ticks += 1;
            for from in [1, 2] {
                rig.peer(from, Message::Prepare(vote(seq.0, &proposal))).expect("a vote");
            }
            for from in [1, 2] {
                rig.peer(from, Message::Commit(vote(seq.0, &proposal))).expect("a vote");
            }
        }
    }
    assert!((1..=4).contains(&ticks), "{ticks} in three seconds");
}

#[test]
fn a_client_that_floods_is_stopped_at_its_quota() {
    let mut rig = Rig::new(1, 1);
    let mut refused = 0;
    for id in 1..=2000 {
        refused += u32::from(rig.feed(Input::Request(frame(id, b"op"))) == Err(Reject::Quota));
    }
    let kept = base::limits::PENDING_FRAMES_PER_CLIENT_MAX as u64;
    assert_eq!(rig.lane.report().pending_frames, kept);
    assert_eq!(u64::from(refused), 2000 - kept);
}

#[test]
fn a_peer_that_vouches_for_phantoms_is_stopped() {
    let mut rig = Rig::new(0, 1);
    let phantom = |id| {
        let id = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id };
        BatchEntry { id, digest: Digest([1; 32]) }
    };
    let mut blamed = false;
    for round in 0..40u64 {
        let entries = (0..1000).map(|i| phantom(round * 1000 + i)).collect();
        blamed |= rig.peer(2, vouch_for(entries)).is_err();
    }
    assert!(blamed);
    assert!(rig.lane.report().pending_frames < 20_000);
}
