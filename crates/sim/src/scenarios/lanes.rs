//! One lane among liars, and what it must remember: every lie and every turn of events made by
//! hand, so that it is certain that each was there. Ticks stand for batches, since they differ by
//! their time alone and need no bodies.

use std::sync::Arc;

use base::{
    AgreedTime, Authenticator, BatchEntry, ClientId, Digest, FrameBuilder, FrameId, Mac, Now,
    PillarId, ReplicaId, Seq, SessionId, Sibling, Signature, StableCheckpoint, Time, View,
};
use proto::group::link::{Choice, FromCoordinator, Grievance, Plan, SliceEntry, ToCoordinator};
use proto::pbft::msg::{Checkpoint, Message, Proposal, Vote};
use proto::pbft::{Input, Lane};
use proto::{Effect, Outbox};

use super::Scenario;
use crate::Options;
use crate::host::{GROUP, keys, lane_config};
use crate::prng::Prng;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "no_lie_moves_a_lane",
        claim: "L6 to L10, V11, V12: a backup votes only for what its leader may propose, in \
                time, in the window, with frames that it trusts, and as the NEW-VIEW has chosen; \
                PREPAREs of the leader are none, and a checkpoint takes genuine signatures.",
        ci_seeds: 10,
        full_seeds: 1_000,
        run: no_lie_moves_a_lane,
    },
    Scenario {
        name: "a_lane_remembers_its_latest_promises",
        claim: "Traps 2 and 4, V5: after votes in many views a slice has P of the highest view, \
                and Q of the latest ones; a frame whose proposal a NEW-VIEW displaces is ordered \
                anew.",
        ci_seeds: 10,
        full_seeds: 1_000,
        run: a_lane_remembers_its_latest_promises,
    },
];

const NOW: Now = Now { mono: Time(1_000_000), wall: AgreedTime(1_700_000_000_000_000_000) };
/// Who is looked at, and the other backups of view 0, which replica 0 leads.
const ME: ReplicaId = ReplicaId(1);
const LEADER: ReplicaId = ReplicaId(0);

fn lane() -> Lane {
    let options = Options::default();
    let mut lane = Lane::new(lane_config(&options, ME, PillarId(0)), keys(&options, ME));
    // Some silence before it begins is nobody's excuse later.
    let status = Message::Status { view: View(0), stable: Seq(0), delivered: Seq(0) };
    hear(&mut lane, LEADER, status.clone());
    hear(&mut lane, LEADER, status);
    lane
}

fn step(lane: &mut Lane, input: Input) -> Vec<Effect> {
    let mut out = Outbox::new();
    let _ = lane.step(NOW, input, &mut out);
    lane.check();
    out.drain().collect()
}

fn hear(lane: &mut Lane, from: ReplicaId, message: Message) -> Vec<Effect> {
    step(lane, Input::Peer { from, incarnation: base::Incarnation(1), message })
}

fn tick(time: u64) -> Proposal {
    Proposal::Frames { time: AgreedTime(NOW.wall.0 + time), entries: Vec::new() }
}

fn propose(view: u64, seq: Seq, proposal: Proposal) -> Message {
    Message::PrePrepare { view: View(view), seq, proposal }
}

fn vote(view: u64, seq: Seq, proposal: &Proposal) -> Vote {
    Vote { view: View(view), seq, digest: proposal.digest(GROUP, seq) }
}

fn prepares(effects: &[Effect]) -> bool {
    let says = |e: &Effect| matches!(e, Effect::Send { message: Message::Prepare(_), .. });
    effects.iter().any(says)
}

fn commits(effects: &[Effect]) -> bool {
    let says = |e: &Effect| matches!(e, Effect::Send { message: Message::Commit(_), .. });
    effects.iter().any(says)
}

/// A plan for `view` that fixes number 1.
fn install(lane: &mut Lane, view: u64, start: StableCheckpoint, choice: Choice) -> Vec<Effect> {
    let plan = Plan { view: View(view), start, choices: vec![choice], excluded: vec![] };
    step(lane, Input::Coordinator(FromCoordinator::Install(Arc::new(plan))))
}

fn no_lie_moves_a_lane(seed: u64) {
    let one = Seq(1 + Prng::new(seed).below(4));
    proposals(one);
    frames(one);
    plans();
    let (mine, other) = (tick(1), tick(2));
    let mut backup = lane();
    assert!(prepares(&hear(&mut backup, LEADER, propose(0, one, mine.clone()))), "a fair tick");
    let said = hear(&mut backup, LEADER, Message::Prepare(vote(0, one, &mine)));
    assert!(!commits(&said), "the leader counts twice");
    let mut out = Vec::new();
    for from in [2, 3].map(ReplicaId) {
        out.extend(hear(&mut backup, from, Message::Prepare(vote(0, one, &other))));
    }
    let told = |e: &Effect| {
        let what = Grievance::Equivocates;
        *e.coordinator().unwrap_or(&none())
            == ToCoordinator::Grievance { view: View(0), what, whom: ReplicaId(0) }
    };
    assert!(out.iter().any(told), "a leader told others something else");
    // A checkpoint that nobody signed.
    let (seq, digest, signature) = (Seq(8), Digest([4; 32]), Signature([9; 64]));
    for from in [0, 2, 3].map(ReplicaId) {
        let said = Checkpoint { seq, digest, signature };
        let out = hear(&mut backup, from, Message::Checkpoint(said));
        let stable = |e: &Effect| {
            let ahead = matches!(e.coordinator(), Some(ToCoordinator::Ahead(_)));
            ahead || matches!(e, Effect::Siblings(Sibling::Stable(_)))
        };
        assert!(!out.iter().any(stable), "a checkpoint with forged signatures");
    }
}

fn none() -> ToCoordinator {
    ToCoordinator::Stable(StableCheckpoint::default())
}

/// What an effect tells the coordinator.
trait Told {
    fn coordinator(&self) -> Option<&ToCoordinator>;
}

impl Told for Effect {
    fn coordinator(&self) -> Option<&ToCoordinator> {
        if let Effect::Coordinator(message) = self { Some(message) } else { None }
    }
}

fn proposals(one: Seq) {
    let lies: [(&str, ReplicaId, Message); 4] = [
        ("not from the leader", ReplicaId(2), propose(0, one, tick(0))),
        ("of tomorrow", LEADER, propose(0, one, tick(86_400_000_000_000))),
        ("beyond the window", LEADER, propose(0, Seq(32 + one.0), tick(0))),
        ("of another view", LEADER, propose(4, one, tick(0))),
    ];
    for (what, from, lie) in lies {
        let mut backup = lane();
        assert!(!prepares(&hear(&mut backup, from, lie)), "a vote for a proposal {what}");
    }
}

/// A frame that its client never showed to this replica, and did not authenticate to it.
fn frames(one: Seq) {
    let id = FrameId { client: ClientId(1), session: SessionId(1), stream: 1, id: 1 };
    let mut builder = FrameBuilder::new();
    builder.push(b"op");
    let frame = builder.request(GROUP, id, 0, |_| Authenticator::Vector(vec![Mac([0; 16]); 4]));
    let entries = vec![BatchEntry { id, digest: frame.digest() }];
    let mut backup = lane();
    let proposal = Proposal::Frames { time: NOW.wall, entries };
    assert!(!prepares(&hear(&mut backup, LEADER, propose(0, one, proposal))), "without a body");
    let frame = Arc::new(frame);
    let said = hear(&mut backup, LEADER, Message::Body { vouched: true, frame });
    assert!(!prepares(&said), "a vote for a frame on its leader's word alone");
}

fn plans() {
    let (chosen, other) = (tick(1), tick(2));
    let digest = chosen.digest(GROUP, Seq(1));
    let start = StableCheckpoint::default;
    let mut backup = lane();
    install(&mut backup, 4, start(), Choice::Digest(digest));
    let said = hear(&mut backup, LEADER, propose(4, Seq(1), other.clone()));
    assert!(!prepares(&said), "a vote for what the NEW-VIEW has not chosen");
    let said =
        hear(&mut backup, ReplicaId(2), Message::ProposalIs { seq: Seq(1), proposal: other });
    assert!(!prepares(&said), "a vote for another proposal than was asked for");
    let proposal = chosen.clone();
    let said = hear(&mut backup, ReplicaId(2), Message::ProposalIs { seq: Seq(1), proposal });
    assert!(prepares(&said), "no vote for what was chosen");
    // Below the view's beginning nothing is voted on.
    let mut backup = lane();
    let begins = StableCheckpoint { seq: Seq(8), digest: Digest([7; 32]), ..start() };
    install(&mut backup, 4, begins, Choice::Null);
    let said = hear(&mut backup, LEADER, propose(4, Seq(3), chosen));
    assert!(!prepares(&said), "a vote below the beginning of the view");
}

/// A frame is proposed in view 0; view 5, which this replica leads, has null at its number.
fn displaced() {
    let id = FrameId { client: ClientId(1), session: SessionId(1), stream: 1, id: 1 };
    let mut builder = FrameBuilder::new();
    builder.push(b"op");
    let frame = Arc::new(builder.request(GROUP, id, 0, |_| Authenticator::Vector(vec![])));
    let entry = BatchEntry { id, digest: frame.digest() };
    let mut backup = lane();
    step(&mut backup, Input::Request(frame));
    let proposal = Proposal::Frames { time: NOW.wall, entries: vec![entry] };
    assert!(prepares(&hear(&mut backup, LEADER, propose(0, Seq(1), proposal))), "its own frame");
    install(&mut backup, 5, StableCheckpoint::default(), Choice::Null);
    for from in [0, 2, 3].map(ReplicaId) {
        hear(&mut backup, from, Message::Vouch { executed: Seq(0), entries: vec![entry] });
    }
    let out = step(&mut backup, Input::Turn);
    let again = |e: &Effect| {
        matches!(e, Effect::Send { message: Message::PrePrepare { proposal, .. }, .. }
            if proposal.entries() == [entry])
    };
    assert!(out.iter().any(again), "a displaced frame is not ordered anew");
}

fn a_lane_remembers_its_latest_promises(seed: u64) {
    displaced();
    let views = 4 + Prng::new(seed).below(6);
    let mut backup = lane();
    let me = u64::from(ME.0);
    // Views in which it is a backup; in all of them it votes for something else.
    let voted: Vec<u64> = (1..).filter(|view| view % 4 != me).take(views as usize).collect();
    for view in &voted {
        let proposal = tick(*view);
        let digest = proposal.digest(GROUP, Seq(1));
        let start = StableCheckpoint::default();
        install(&mut backup, *view, start, Choice::Digest(digest));
        let said = Message::ProposalIs { seq: Seq(1), proposal: proposal.clone() };
        assert!(prepares(&hear(&mut backup, ReplicaId(2), said)), "no vote in {view}");
        let leader = View(*view).leader(4);
        for from in [0, 2, 3].map(ReplicaId).into_iter().filter(|from| *from != leader) {
            hear(&mut backup, from, Message::Prepare(vote(*view, Seq(1), &proposal)));
        }
    }
    let last = View(*voted.last().expect("several"));
    let stop = FromCoordinator::Stop { view: View(last.0 + 1) };
    let out = step(&mut backup, Input::Coordinator(stop));
    let slices = out.iter().filter_map(|effect| match effect.coordinator() {
        Some(ToCoordinator::Slice { entries, .. }) => Some(entries),
        _ => None,
    });
    let entries: Vec<&SliceEntry> = slices.flatten().collect();
    let [entry] = entries[..] else { panic!("one number was voted on: {entries:?}") };
    assert_eq!(entry.prepared.map(|(view, _)| view), Some(last), "P of the highest view");
    let mut q: Vec<View> = entry.pre_prepared.iter().map(|(view, _)| *view).collect();
    q.sort_unstable();
    let latest: Vec<View> = voted[voted.len() - 3..].iter().copied().map(View).collect();
    assert_eq!(q, latest, "Q of the latest views");
}
