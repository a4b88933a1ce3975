//! COMMITs that wait for company: when they leave, and when they must not.

use std::sync::Arc;

use base::crypto::{ClientKeyring, PlainKeys};
use base::{
    AgreedTime, ClientId, FrameBuilder, FrameId, Incarnation, Now, PillarId, ReplicaId, Seq,
    SessionId, Span, StableCheckpoint, Time, View,
};
use proto::group::link::{FromCoordinator, Plan, ToCoordinator};
use proto::pbft::msg::{Message, Proposal, Vote};
use proto::pbft::{Commits, Input, Lane, Leaders};
use proto::{Effect, Outbox};

use super::Scenario;
use crate::faults::Fault;
use crate::host::{GROUP, keys, lane_config};
use crate::options::{Durability, Net, Options, Travel};
use crate::scenario::{PATIENCE, finish, settle, world};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "commits_in_company_keep_nobody_waiting",
        claim: "L8: with piggy-backed COMMITs every shape of group answers everything, with the \
                first leader for as long as nothing fails.",
        ci_seeds: 24,
        full_seeds: 2_000,
        run: commits_in_company_keep_nobody_waiting,
    },
    Scenario {
        name: "a_commit_that_waits_does_not_outlive_its_view",
        claim: "Trap 3, L8: a COMMIT waits only while a proposal is to be expected, and for a \
                millisecond; it leaves with the next vote, and before the slice is taken, or not \
                at all.",
        ci_seeds: 4,
        full_seeds: 100,
        run: a_commit_that_waits_does_not_outlive_its_view,
    },
];

fn commits_in_company_keep_nobody_waiting(seed: u64) {
    let pick = |of: u64, by: u64| seed / by % of;
    let base = Options {
        seed,
        travel: Travel { commits: Commits::Piggybacked, ..Travel::default() },
        ..Options::default()
    };
    let fails = pick(3, 1) == 0;
    let options = Options {
        pillars: 1 + pick(3, 2) as u16,
        clients: 1 + pick(4, 1) as u32,
        outstanding: [1, 1, 8][pick(3, 4) as usize],
        unbatched: pick(2, 3) == 0,
        leaders: [Leaders::Fixed, Leaders::Fixed, Leaders::Rotating][pick(3, 5) as usize],
        durability: [Durability::Memory, Durability::Async, Durability::Sync][pick(3, 2) as usize],
        net: if pick(4, 1) == 1 { Net::BAD } else { Net::CALM },
        view_timeout: if fails { Span::millis(200) } else { Span::secs(5) },
        ops_per_client: 60,
        ..base
    };
    let mut world = world(options.fitted());
    if fails {
        world.run_for(Span::millis(5 + seed % 20), |_| false);
        world.fault(Fault::Crash(ReplicaId(0)));
        world.run_for(Span::millis(400), |_| false);
        world.fault(Fault::Restart(ReplicaId(0)));
    }
    finish(&mut world, PATIENCE);
    settle(&mut world, 20);
    let views = world.correct().into_iter().map(|replica| world.view(replica));
    assert!(fails || views.max() == Some(View(0)), "{}", world.describe());
}

const WALL: AgreedTime = AgreedTime(1_700_000_000_000_000_000);
const ME: ReplicaId = ReplicaId(1);
const LEADER: ReplicaId = ReplicaId(0);

/// A backup that has prepared a number and whose COMMIT waits.
struct Held {
    lane: Lane,
    at: u64,
}

impl Held {
    /// `waits`: a frame is here that no proposal names.
    fn new(seed: u64, waits: bool) -> (Held, bool) {
        let options = Options {
            travel: Travel { commits: Commits::Piggybacked, ..Travel::default() },
            ..Options::default()
        };
        let lane = Lane::new(lane_config(&options, ME, PillarId(0)), keys(&options, ME));
        let mut held = Held { lane, at: 1_000 + seed };
        let status = Message::Status { view: View(0), stable: Seq(0), delivered: Seq(0) };
        held.hears(LEADER, status.clone());
        held.hears(LEADER, status);
        if waits {
            held.step(Input::Request(frame(seed)));
        }
        held.proposed(1);
        held.step(Input::Turn);
        let prepare = Message::Prepare(vote(1));
        let said = [held.hears(ReplicaId(2), prepare), held.step(Input::Turn)].concat();
        (held, commits(&said))
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Outbox::new();
        let now = Now { mono: Time(self.at * 1_000), wall: WALL };
        let _ = self.lane.step(now, input, &mut out);
        self.lane.check();
        out.drain().collect()
    }

    fn hears(&mut self, from: ReplicaId, message: Message) -> Vec<Effect> {
        self.step(Input::Peer { from, incarnation: Incarnation(1), message })
    }

    fn proposed(&mut self, seq: u64) -> Vec<Effect> {
        let (view, seq) = (View(0), Seq(seq));
        self.hears(LEADER, Message::PrePrepare { view, seq, proposal: Proposal::Null })
    }
}

fn vote(seq: u64) -> Vote {
    let digest = Proposal::Null.digest(GROUP, Seq(seq));
    Vote { view: View(0), seq: Seq(seq), digest }
}

fn frame(seed: u64) -> Arc<base::Frame> {
    let (client, session) = (ClientId(1), SessionId(seed + 1));
    let mut builder = FrameBuilder::new();
    builder.push(b"op");
    let keys = PlainKeys { me: ReplicaId(0), n: 4 };
    let id = FrameId { client, session, stream: 0, id: 1 };
    Arc::new(builder.request(GROUP, id, 0, |digest| keys.authenticate(digest)))
}

fn commits(effects: &[Effect]) -> bool {
    let says = |e: &Effect| matches!(e, Effect::Send { message: Message::Commit(_), .. });
    effects.iter().any(says)
}

fn a_commit_that_waits_does_not_outlive_its_view(seed: u64) {
    assert!(Held::new(seed, false).1, "nothing is to be expected: it leaves at once");
    let held = || {
        let (held, left) = Held::new(seed, true);
        assert!(!left, "a frame is yet to be proposed");
        held
    };

    let mut company = held();
    company.proposed(2);
    assert!(commits(&company.step(Input::Turn)), "with the PREPARE for the next number");
    assert!(!commits(&company.step(Input::Turn)), "once");

    let mut late = held();
    late.at += 999;
    assert!(!commits(&late.step(Input::Turn)) && late.lane.deadline().is_some());
    late.at += 1;
    assert!(commits(&late.step(Input::Turn)), "it has waited for a millisecond");

    let mut leaves = held();
    let said = leaves.step(Input::Coordinator(FromCoordinator::Stop { view: View(1) }));
    let commit = said.iter().position(|e| commits(std::slice::from_ref(e)));
    let slice =
        said.iter().position(|e| matches!(e, Effect::Coordinator(ToCoordinator::Slice { .. })));
    assert!(commit.is_some() && slice.is_some() && commit < slice, "before the slice: {said:?}");
    leaves.at += 2_000;
    assert!(!commits(&leaves.step(Input::Turn)), "and never after it");

    let mut next = held();
    let (start, choices) = (StableCheckpoint::default(), Vec::new());
    let plan = Arc::new(Plan { view: View(1), start, choices, excluded: Vec::new() });
    let said = next.step(Input::Coordinator(FromCoordinator::Install(plan)));
    next.at += 2_000;
    let later = next.step(Input::Turn);
    assert!(!commits(&said) && !commits(&later), "in the next view it is of no use");
}
