//! Bodies that travel with their proposals: who looks at which signature, and what clients can and
//! cannot bring about.

use std::sync::Arc;

use base::crypto::{ClientKeyring, PlainKeys, PlainSigner};
use base::{
    AgreedTime, Authenticator, BatchEntry, ClientId, Digest, Frame, FrameBuilder, FrameId,
    FromStage, Incarnation, Now, PillarId, Progress, ReplicaId, Seq, SessionId, Signature, Span,
    Time, ToStage, View, limits,
};
use proto::group::link::{Grievance, ToCoordinator};
use proto::pbft::msg::{Message, Proposal};
use proto::pbft::{Bodies, Commits, Idle, Input, Lane, Reject};
use proto::{Effect, Outbox};

use super::Scenario;
use crate::adversary::Hostile;
use crate::faults::Fault;
use crate::host::{GROUP, keys, lane_config};
use crate::options::{Durability, Net, Options, Travel};
use crate::scenario::{PATIENCE, finish, settle, world};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "bodies_travel_with_their_proposals",
        claim: "L3, L4: with inline bodies every shape of group answers everything, with the \
                first leader for as long as nothing fails, and after it ends with the next.",
        ci_seeds: 24,
        full_seeds: 2_000,
        run: bodies_travel_with_their_proposals,
    },
    Scenario {
        name: "no_signature_of_a_client_changes_a_view",
        claim: "Decision 4: clients that sign garbage, two bodies under one id, or for some \
                replicas only cause no view change.",
        ci_seeds: 14,
        full_seeds: 1_000,
        run: no_signature_of_a_client_changes_a_view,
    },
    Scenario {
        name: "nobody_takes_anothers_word_for_a_signature",
        claim: "L3, L4, L6: a leader proposes small frames that it has found signed, and lets \
                their bodies follow; backups look, too, and complain of a leader that did not; \
                what is shown to a backup is forwarded; a large frame takes vouches.",
        ci_seeds: 4,
        full_seeds: 100,
        run: nobody_takes_anothers_word_for_a_signature,
    },
];

fn shape(seed: u64) -> Options {
    let pick = |of: u64, by: u64| seed / by % of;
    let (n, f) = [(4, 1), (4, 1), (7, 2)][pick(3, 4) as usize];
    Options {
        seed,
        n,
        f,
        travel: Travel {
            bodies: Bodies::Inline,
            commits: [Commits::Prompt, Commits::Piggybacked][pick(2, 7) as usize],
            ..Travel::default()
        },
        pillars: 1 + pick(3, 2) as u16,
        clients: 1 + pick(3, 1) as u32,
        outstanding: [1, 4, 16][pick(3, 5) as usize],
        unbatched: pick(2, 3) == 0,
        durability: [Durability::Memory, Durability::Async, Durability::Sync][pick(3, 2) as usize],
        ops_per_client: 60,
        ..Options::default()
    }
}

fn views(world: &crate::World) -> View {
    world.correct().into_iter().map(|replica| world.view(replica)).max().unwrap_or_default()
}

fn bodies_travel_with_their_proposals(seed: u64) {
    let fails = seed.is_multiple_of(3);
    let net = if seed / 2 % 3 == 1 { Net::BAD } else { Net::CALM };
    let view_timeout = if fails { Span::millis(200) } else { Span::secs(5) };
    let mut world = world(Options { net, view_timeout, ..shape(seed) });
    if fails {
        world.run_for(Span::millis(5 + seed % 20), |_| false);
        world.fault(Fault::Crash(ReplicaId(0)));
        world.run_for(Span::millis(900), |_| false);
        world.fault(Fault::Restart(ReplicaId(0)));
    }
    finish(&mut world, PATIENCE);
    settle(&mut world, 20);
    assert!(fails || views(&world) == View(0), "{}", world.describe());
}

fn no_signature_of_a_client_changes_a_view(seed: u64) {
    let view_timeout = Span::millis(500);
    let options = Options { view_timeout, pace_us: 2_000, clients: 2, ..shape(seed) };
    let mut world = world(options);
    world.harass_with(Hostile::ALL[seed as usize % Hostile::ALL.len()], 60);
    finish(&mut world, PATIENCE);
    assert_eq!(views(&world), View(0), "{}", world.describe());
}

const WALL: AgreedTime = AgreedTime(1_700_000_000_000_000_000);
const INLINE: Travel =
    Travel { commits: Commits::Prompt, bodies: Bodies::Inline, idle: Idle::Fill };
const LEADER: ReplicaId = ReplicaId(0);
const BACKUP: ReplicaId = ReplicaId(1);

/// One lane under test.
struct One {
    lane: Lane,
    at: u64,
}

impl One {
    fn new(me: ReplicaId) -> One {
        let options = Options { travel: INLINE, ..Options::default() };
        let lane = Lane::new(lane_config(&options, me, PillarId(0)), keys(&options, me));
        let mut one = One { lane, at: 1_000 };
        let status = || Message::Status { view: View(0), stable: Seq(0), delivered: Seq(0) };
        if me != LEADER {
            let _ = (one.hears(LEADER, status()), one.hears(LEADER, status()));
        }
        one
    }

    fn step(&mut self, input: Input) -> (Result<(), Reject>, Vec<Effect>) {
        let mut out = Outbox::new();
        let now = Now { mono: Time(self.at * 1_000), wall: WALL };
        let result = self.lane.step(now, input, &mut out);
        self.lane.check();
        (result, out.drain().collect())
    }

    fn hears(&mut self, from: ReplicaId, message: Message) -> (Result<(), Reject>, Vec<Effect>) {
        self.step(Input::Peer { from, incarnation: Incarnation(1), message })
    }

    fn shown(&mut self, frame: &Arc<Frame>) -> Result<(), Reject> {
        self.step(Input::Request(Arc::clone(frame))).0
    }

    fn turn(&mut self) -> Vec<Message> {
        let send = |effect| match effect {
            Effect::Send { message, .. } => Some(message),
            _ => None,
        };
        self.step(Input::Turn).1.into_iter().filter_map(send).collect()
    }
}

fn frame(op: &[u8], sign: impl FnOnce(Digest) -> Authenticator) -> Arc<Frame> {
    let id = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id: 1 };
    let mut builder = FrameBuilder::new();
    builder.push(op);
    Arc::new(builder.request(GROUP, id, 0, sign))
}

fn good(op: &[u8]) -> Arc<Frame> {
    frame(op, |digest| PlainSigner.authenticate(digest))
}

fn forged(seed: u64, op: &[u8]) -> Arc<Frame> {
    frame(op, |_| Authenticator::Signature(Signature([seed as u8; 64])))
}

fn entry(frame: &Frame) -> BatchEntry {
    BatchEntry { id: frame.id(), digest: frame.digest() }
}

fn proposed(frame: &Frame) -> Message {
    let proposal = Proposal::Frames { time: WALL, entries: vec![entry(frame)] };
    Message::PrePrepare { view: View(0), seq: Seq(1), proposal }
}

fn proposes(said: &[Message]) -> bool {
    said.iter().any(|message| matches!(message, Message::PrePrepare { .. }))
}

fn gives(said: &[Message], frame: &Arc<Frame>) -> bool {
    said.iter().any(|message| matches!(message, Message::Body { frame: body, .. } if body == frame))
}

fn prepares(said: &[Effect]) -> bool {
    let says = |e: &Effect| matches!(e, Effect::Send { message: Message::Prepare(_), .. });
    said.iter().any(says)
}

fn nobody_takes_anothers_word_for_a_signature(seed: u64) {
    leader(seed);
    backup(seed);
    copies(seed);
    forwards(seed);
    large();
}

fn leader(seed: u64) {
    let mut leader = One::new(LEADER);
    let macs = frame(b"op", |digest| PlainKeys { me: LEADER, n: 4 }.authenticate(digest));
    for bad in [forged(seed, b"op"), macs] {
        assert_eq!(leader.shown(&bad), Err(Reject::Forged));
        assert!(!proposes(&leader.turn()), "a frame that others would refuse");
    }
    let frame = good(b"op");
    assert_eq!(leader.shown(&frame), Ok(()));
    let said = leader.turn();
    assert!(proposes(&said[..1]) && gives(&said[1..], &frame), "{said:?}");
}

fn backup(seed: u64) {
    let mut backup = One::new(BACKUP);
    let (right, wrong) = (good(b"op"), forged(seed, b"op"));
    assert!(!prepares(&backup.hears(LEADER, proposed(&right)).1), "without a body");
    let body = |frame: &Arc<Frame>| Message::Body { vouched: true, frame: Arc::clone(frame) };
    let (refused, said) = backup.hears(LEADER, body(&wrong));
    assert!(matches!(refused, Err(Reject::Misbehaviour(_))) && !prepares(&said), "{said:?}");
    let complains = |e: &Effect| {
        matches!(e, Effect::Coordinator(ToCoordinator::Grievance { what, whom, .. })
            if (*what, *whom) == (Grievance::Forges, LEADER))
    };
    assert!(said.iter().any(complains), "no client can make a leader do that");
    let lie = Message::Body { vouched: false, frame: Arc::clone(&wrong) };
    let (_, said) = backup.hears(ReplicaId(2), lie);
    assert!(!said.iter().any(complains) && !prepares(&said), "who gives a body may lie");
    assert!(prepares(&backup.hears(ReplicaId(2), body(&right)).1), "signed is signed");
}

/// A leader has a frame from a peer, with an authenticator that nobody looks at since it is
/// decided; the frame is refused, and its client shows it again.
fn copies(seed: u64) {
    let mut leader = One::new(LEADER);
    let (right, wrong) = (good(b"op"), forged(seed, b"op"));
    let proposal = Proposal::Frames { time: WALL, entries: vec![entry(&right)] };
    let seq = Seq(1);
    for from in [1, 2].map(ReplicaId) {
        let _ = leader.hears(from, Message::Decided { seq, proposal: proposal.clone() });
    }
    let (_, said) = leader.hears(BACKUP, Message::Body { vouched: false, frame: wrong });
    let delivers = |e: &Effect| matches!(e, Effect::Stage(ToStage::Deliver { .. }));
    assert!(said.iter().any(delivers), "{said:?}");
    // Once for each order.
    assert_eq!(leader.shown(&right), Ok(()));
    assert_eq!(leader.shown(&right), Ok(()));
    let _ = leader.step(Input::Stage(FromStage::Refused { seq, entry: entry(&right) }));
    let executed = Progress { executed: seq, ..Progress::default() };
    let _ = leader.step(Input::Stage(FromStage::Executed(executed)));
    let said = leader.turn();
    assert!(proposes(&said) && gives(&said, &right), "the copy that was checked: {said:?}");
}

fn forwards(seed: u64) {
    let frame = good(b"op");
    let forwarded = |said: &[Message]| {
        said.iter().any(|m| matches!(m, Message::Forward(body) if *body == frame))
    };
    let mut backup = One::new(BACKUP);
    assert_eq!(backup.shown(&frame), Ok(()));
    assert!(!forwarded(&backup.turn()), "the leader may have it, too");
    backup.at += 5_000;
    assert!(forwarded(&backup.turn()));
    let mut backup = One::new(BACKUP);
    assert_eq!(backup.shown(&frame), Ok(()));
    assert!(prepares(&backup.hears(LEADER, proposed(&frame)).1), "shown by the client itself");
    backup.at += 5_000;
    assert!(!forwarded(&backup.turn()), "the leader has it");

    let mut leader = One::new(LEADER);
    let (refused, _) = leader.hears(BACKUP, Message::Forward(forged(seed, b"op")));
    assert!(matches!(refused, Err(Reject::Misbehaviour(_))));
    assert!(!proposes(&leader.turn()));
    leader.at += 100_000;
    assert_eq!(leader.hears(BACKUP, Message::Forward(Arc::clone(&frame))).0, Ok(()));
    let said = leader.turn();
    assert!(proposes(&said) && gives(&said, &frame), "{said:?}");
}

fn large() {
    let frame = good(&vec![7; limits::INLINE_BYTES_MAX]);
    let mut leader = One::new(LEADER);
    assert_eq!(leader.shown(&frame), Ok(()));
    assert!(!proposes(&leader.turn()), "others may not have it");
    for from in [1, 2].map(ReplicaId) {
        let _ =
            leader.hears(from, Message::Vouch { executed: Seq(0), entries: vec![entry(&frame)] });
    }
    let said = leader.turn();
    assert!(proposes(&said) && !gives(&said, &frame), "{said:?}");
    let mut backup = One::new(BACKUP);
    assert_eq!(backup.shown(&frame), Ok(()));
    assert!(backup.turn().iter().any(|message| matches!(message, Message::Vouch { .. })));
}
