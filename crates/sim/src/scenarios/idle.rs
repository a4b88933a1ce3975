//! Idle pillars that run ahead: that nobody waits for them, or hurries because of them, and that a
//! run is no more than what it is short for.

use std::sync::Arc;

use base::{
    AgreedTime, Batch, FromStage, Incarnation, Now, PillarId, ReplicaId, Seq, Sibling, Span, Time,
    ToStage, View,
};
use exec::{Stage, StageOutbox, Turn};
use proto::pbft::msg::{Message, NullPhase, Nulls, Proposal, RUN_MAX, Vote};
use proto::pbft::{Idle, Input, Lane, Reject};
use proto::{Effect, Outbox};

use super::Scenario;
use crate::faults::Fault;
use crate::host::{GROUP, keys, lane_config, stage_config};
use crate::options::{Durability, Net, Options, Travel};
use crate::scenario::{PATIENCE, finish, settle, world};
use crate::work::Work;
use crate::world::World;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "idle_pillars_run_ahead_of_busy_ones",
        claim: "L5b: where clients keep to some pillars, the others run ahead in runs, whatever \
                fails; nobody waits for them or leaves a view because of them, and they use up no \
                more numbers than the busy ones do, and a run.",
        ci_seeds: 24,
        full_seeds: 2_000,
        run: idle_pillars_run_ahead_of_busy_ones,
    },
    Scenario {
        name: "a_run_says_what_it_is_short_for",
        claim: "L5b: a run of votes counts for null batches only, and names what its sender has \
                voted for; runs grow while a pillar is idle, drive nobody, and end with a frame; \
                execution waits for nobody because of nulls.",
        ci_seeds: 4,
        full_seeds: 100,
        run: a_run_says_what_it_is_short_for,
    },
];

const AHEAD: Travel = Travel {
    commits: proto::pbft::Commits::Prompt,
    bodies: proto::pbft::Bodies::Separate,
    idle: Idle::Ahead,
};

fn idle_pillars_run_ahead_of_busy_ones(seed: u64) {
    let pick = |of: u64, by: u64| seed / by % of;
    // Only in worlds with even seeds do clients keep to a pillar each.
    let fails = pick(3, 1) == 0;
    let pillars = 2 + pick(3, 2) as u16;
    let options = Options {
        seed: 2 * seed,
        travel: AHEAD,
        pillars,
        clients: 1 + (pick(4, 1) as u32 % u32::from(pillars)),
        outstanding: [1, 1, 8][pick(3, 4) as usize],
        unbatched: pick(2, 3) == 0,
        durability: [Durability::Memory, Durability::Async, Durability::Sync][pick(3, 2) as usize],
        net: if pick(4, 1) == 1 { Net::BAD } else { Net::CALM },
        view_timeout: if fails { Span::millis(200) } else { Span::secs(5) },
        checkpoint_interval: 64,
        window: 1024,
        pace_us: [0, 0, 3_000][pick(3, 7) as usize],
        ops_per_client: 120,
        ..Options::default()
    };
    let numbers = |world: &World| {
        let executed = world.correct().into_iter().map(|replica| world.executed(replica).0);
        executed.max().unwrap_or_default()
    };
    // A number of each pillar for every operation and for opening a session, as many again for
    // those who wake up, and what `settle` waits for.
    let ops = u64::from(options.clients) * 170;
    let fair = 2 * u64::from(pillars) * ops + 4 * options.checkpoint_interval;
    let mut world = world(options);
    if fails {
        world.run_for(Span::millis(5 + seed % 20), |_| false);
        world.fault(Fault::Crash(ReplicaId(0)));
        // Views begin, and frames are ordered again. Who fills numbers for ever has far more soon.
        let endless = world.run_for(Span::millis(400), |world| numbers(world) > 10 * fair);
        assert!(!endless, "numbers without an end: {}", world.describe());
        world.fault(Fault::Restart(ReplicaId(0)));
    }
    finish(&mut world, PATIENCE);
    assert!(numbers(&world) <= 10 * fair, "numbers without an end: {}", world.describe());
    settle(&mut world, 40);
    let views = world.correct().into_iter().map(|replica| world.view(replica));
    assert!(fails || views.max() == Some(View(0)), "{}", world.describe());
    // With more than one under way, frames of a stream overtake each other and are ordered again.
    if fails || options.outstanding > 1 {
        return;
    }
    let most = numbers(&world);
    assert!(most <= fair, "{most} numbers for {ops} operations: {}", world.describe());
}

const NOW: Now = Now { mono: Time(1_000_000), wall: AgreedTime(1_700_000_000_000_000_000) };
const LEADER: ReplicaId = ReplicaId(0);
const BACKUP: ReplicaId = ReplicaId(1);

/// A lane of pillar 0 of two: it owns the odd numbers.
struct One(Lane);

impl One {
    fn new(me: ReplicaId, idle: Idle) -> One {
        let travel = Travel { idle, ..Travel::default() };
        let options = Options { pillars: 2, window: 4096, travel, ..Options::default() };
        let mut one = One(Lane::new(lane_config(&options, me, PillarId(0)), keys(&options, me)));
        let status = Message::Status { view: View(0), stable: Seq(0), delivered: Seq(0) };
        let _ = (one.hears(LEADER, status.clone()), one.hears(LEADER, status));
        one
    }

    fn step(&mut self, input: Input) -> (Result<(), Reject>, Vec<Effect>) {
        let mut out = Outbox::new();
        let result = self.0.step(NOW, input, &mut out);
        self.0.check();
        (result, out.drain().collect())
    }

    fn hears(&mut self, from: ReplicaId, message: Message) -> (Result<(), Reject>, Vec<Effect>) {
        self.step(Input::Peer { from, incarnation: Incarnation(1), message })
    }

    /// What it says about nulls once a sibling has proposed `seq`.
    fn follows(&mut self, seq: u64) -> Vec<Effect> {
        let (_, mut said) = self.step(Input::Sibling(Sibling::Proposed(Seq(seq))));
        said.extend(self.step(Input::Turn).1);
        said
    }
}

fn run(phase: NullPhase, first: u64, count: u8) -> Message {
    Message::Nulls(Nulls { phase, view: View(0), first: Seq(first), count })
}

/// The runs among effects.
fn runs(effects: &[Effect]) -> Vec<Message> {
    let said = effects.iter().filter_map(|effect| match effect {
        Effect::Send { message: message @ Message::Nulls(_), .. } => Some(message.clone()),
        _ => None,
    });
    said.collect()
}

/// Whether there is a COMMIT for `seq` alone among effects.
fn commits(effects: &[Effect], seq: u64) -> bool {
    let of = |vote: &Vote| vote.seq == Seq(seq);
    effects
        .iter()
        .any(|e| matches!(e, Effect::Send { message: Message::Commit(vote), .. } if of(vote)))
}

fn a_run_says_what_it_is_short_for(seed: u64) {
    let length = 3 + (seed % 40) as u8;
    let mut backup = One::new(BACKUP, Idle::Ahead);
    let tick = Proposal::Frames { time: NOW.wall, entries: Vec::new() };
    let proposal = Message::PrePrepare { view: View(0), seq: Seq(1), proposal: tick.clone() };
    assert_eq!(backup.hears(LEADER, proposal).0, Ok(()));
    let (_, said) = backup.hears(LEADER, run(NullPhase::PrePrepare, 3, length));
    assert_eq!(runs(&said), [run(NullPhase::Prepare, 3, length)]);
    // One PREPARE of another backup is enough, with its own: for what it is for.
    let (_, said) = backup.hears(ReplicaId(2), run(NullPhase::Prepare, 1, length + 1));
    assert_eq!(runs(&said), [run(NullPhase::Commit, 3, length)]);
    assert!(!commits(&said, 1), "votes for null make a batch prepared that is not: {said:?}");
    let vote = Vote { view: View(0), seq: Seq(1), digest: tick.digest(GROUP, Seq(1)) };
    let (_, said) = backup.hears(ReplicaId(3), Message::Prepare(vote));
    assert!(commits(&said, 1));

    let mut other = One::new(BACKUP, Idle::Fill);
    let (refused, said) = other.hears(LEADER, run(NullPhase::PrePrepare, 1, length));
    assert!(matches!(refused, Err(Reject::Misbehaviour(_))) && said.is_empty(), "{refused:?}");
    let (refused, _) = backup.hears(ReplicaId(2), run(NullPhase::PrePrepare, 301, length));
    assert!(matches!(refused, Err(Reject::Misbehaviour(_))), "it does not lead");

    leads();
    executes(2 + seed % 30);
}

/// A leader whose sibling is busy.
fn leads() {
    let mut leader = One::new(LEADER, Idle::Ahead);
    let mut longest = 0;
    for at in 1..1_500 {
        for said in leader.follows(2 * at) {
            match said {
                Effect::Send { message: Message::Nulls(Nulls { phase, count, .. }), .. } => {
                    assert_eq!(phase, NullPhase::PrePrepare);
                    longest = longest.max(count);
                }
                Effect::Siblings(told) => panic!("{told:?} because of a null batch"),
                _ => {}
            }
        }
    }
    assert!((16..=RUN_MAX).contains(&longest), "runs of {longest} at most");
    let report = leader.0.report();
    assert_eq!(report.in_flight, 0, "no client waits for a null batch");
}

/// Execution, to which a pillar that runs ahead of its sibling has delivered so many null batches:
/// for those nobody is to fill the gap, and for a frame behind them somebody is.
fn executes(nulls: u64) {
    let options = Options { pillars: 2, window: 4096, travel: AHEAD, ..Options::default() };
    let mut stage = Stage::new(stage_config(&options), Work::Counters.service());
    let mut complaint = |seq: u64, batch: Batch| {
        let (mut out, batch) = (StageOutbox::new(), Arc::new(batch));
        stage.on(ToStage::Deliver { seq: Seq(seq), batch }, &mut out).expect("in the window");
        while stage.run(100, &mut out) == Turn::More {}
        out.messages.into_iter().find_map(|(_, told)| match told {
            FromStage::Blocked { missing, highest } => Some((missing.0, highest.0)),
            _ => None,
        })
    };
    for at in 1..=nulls {
        let said = complaint(2 * at, Batch::Null);
        assert_eq!(said, None, "execution complains of a gap below null batches alone");
    }
    let last = 2 * nulls + 2;
    let tick = Batch::Frames { time: NOW.wall, frames: Vec::new() };
    assert_eq!(complaint(last, tick), Some((1, last)));
}
