//! What scenarios share: how many seeds, how to replay one, and what must hold at the end.

use std::any::Any;
use std::panic::catch_unwind;

use base::{PillarId, ReplicaId, Span};

use crate::coverage::Coverage;
use crate::measures::Measure;
use crate::options::Options;
use crate::outcome;
use crate::scenarios::Scenario;
use crate::world::World;

/// The variable that names the only seed to run.
pub const SEED_VARIABLE: &str = "STYLITE_TEST_SEED";

/// Virtual time within which everything is answered once nothing new breaks: the longest that
/// backed-off timers take, and some more.
pub const PATIENCE: Span = Span::secs(300);

/// The same for a swarm, each part of the end for itself. Its faults last for four seconds at
/// most, so that no timer has fallen back to more than about twice that.
pub const LATEST: Span = Span::secs(60);

/// How often it is looked at how long clients have waited.
const LOOKS: Span = Span::millis(100);

/// Virtual time after which a replica forgets a frame that is not ordered, and some more.
const SPENT_AFTER: Span = Span::secs(90);

/// How many seeds: scaled down unless the full scale is asked for.
#[must_use]
pub fn seeds(ci: u64, full: u64) -> u64 {
    match std::env::var("STYLITE_TEST_SCALE").as_deref() {
        Ok("full") => full,
        _ => ci,
    }
}

/// Runs `scenario` with the seeds `0..count`, or with the one that the environment names, which
/// may be any. Gives what they met.
///
/// # Panics
/// When the scenario does. Says which seed that was and how to run it again.
pub fn each_seed(scenario: &Scenario, count: u64) -> Coverage {
    let mut coverage = Coverage::default();
    let only = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let run = catch_unwind(|| (scenario.run)(seed));
        if let Err(panic) = run {
            let (name, why, again) = (scenario.name, words(&*panic), replay(scenario.name, seed));
            panic!("{name} with seed {seed}: {why}\nagain: {again}");
        }
        coverage.add(&outcome::take().coverage);
    }
    coverage
}

/// What a panic says.
#[must_use]
pub fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panics")
}

/// The command that runs a scenario's seed again, and tells its story.
#[must_use]
pub fn replay(name: &str, seed: u64) -> String {
    format!("cargo run --profile sim -p stylite-sim -- --scenario {name} --seed {seed}")
}

/// A world in which the group does the work of its options.
#[must_use]
pub fn world(options: Options) -> World {
    World::new(options)
}

/// Waits until `what` is so.
///
/// # Panics
/// When that takes longer than `limit` of virtual time.
pub fn reach(world: &mut World, limit: Span, what: &str, so: impl Fn(&World) -> bool) {
    if world.run_for(limit, so) {
        return;
    }
    let state = world.describe();
    panic!("within {limit:?} it does not come to pass that {what}:\n{state}");
}

/// The same, and notes how long that takes.
fn reach_in_time(
    world: &mut World,
    (limit, measure): (Span, Measure),
    what: &str,
    so: impl Fn(&World) -> bool,
) {
    let began = world.now();
    reach(world, limit, what, so);
    let took = world.now().since(began);
    world.measures.note(measure, took.0 / 1_000_000);
}

/// Waits until clients have their answers. Each has to come within `limit`, however many a client
/// asks one after the other: a leader that no client reaches is told of each frame after T / 4.
fn reach_answers(world: &mut World, limit: Span) {
    let began = world.now();
    let (mut done, mut looks) = (0, 0);
    while !world.run_for(LOOKS, World::clients_are_done) {
        let answers = world.answers();
        (done, looks) = (answers, if answers > done { 0 } else { looks + 1 });
        let stuck = looks > limit.0 / LOOKS.0;
        assert!(!stuck, "no client has an answer for {limit:?}:\n{}", world.describe());
        let waited = world.longest_wait(began);
        world.measures.note(Measure::Answer, waited.0 / 1_000_000);
        let state = || world.describe();
        assert!(waited <= limit, "a client waits for {waited:?} for an answer:\n{}", state());
    }
    let took = world.now().since(began);
    world.measures.note(Measure::Answers, took.0 / 1_000_000);
}

/// Waits until every client has its answers and all correct replicas are as far as each other.
///
/// # Panics
/// When that takes longer than `limit`, for each answer and then each, or states or histories are
/// not what they must be.
pub fn finish(world: &mut World, limit: Span) {
    reach_answers(world, limit);
    let then = (limit, Measure::Stand);
    reach_in_time(world, then, "what was answered is executed", World::answers_stand);
    let last = (limit, Measure::Laggards);
    reach_in_time(world, last, "replicas are as far as each other", World::replicas_agree);
    world.check();
    let digests = world.state_digests();
    let equal = digests.windows(2).all(|pair| pair[0] == pair[1]);
    assert!(equal, "states differ:\n{}", world.describe());
    world.check_the_end();
    if let Err(why) = world.history().check(true) {
        panic!("the history is not linearizable: {why}\n{}", world.describe());
    }
}

/// The faults are over: mends the world, asks `ops` more of everybody, and finishes.
///
/// # Panics
/// See [`finish`].
pub fn settle(world: &mut World, ops: u64) {
    settle_within(world, ops, PATIENCE);
}

/// The same, within `limit`.
///
/// # Panics
/// See [`finish`].
pub fn settle_within(world: &mut World, ops: u64, limit: Span) {
    world.freeze();
    world.ask_more(ops);
    finish(world, limit);
    // A stage may have fetched the last state a moment ago: its lanes are yet to hear of that,
    // and until then hold what was proposed meanwhile.
    world.run_for(Span::secs(1), |_| false);
    check_memory(world);
}

/// Correct replicas come to hold no more frames than a window of each session, and some that are
/// spent. One that has just fetched a checkpoint may hold for a while what was executed in it.
///
/// # Panics
/// When they do not.
pub fn check_memory(world: &mut World) {
    let spent = |world: &World| {
        let lanes = |replica| {
            let pillars = (0..world.options().pillars).map(PillarId);
            pillars.map(move |pillar| world.lane(replica, pillar).report())
        };
        world.correct().into_iter().flat_map(lanes).all(|report| report.pending_frames <= 2048)
    };
    let limit = (SPENT_AFTER, Measure::Forgotten);
    reach_in_time(world, limit, "spent frames are forgotten", spent);
}

/// The replica that leads the highest view which a correct replica is in.
#[must_use]
pub fn leader(world: &World) -> ReplicaId {
    let views = world.correct().into_iter().map(|replica| world.view(replica));
    views.max().unwrap_or_default().leader(world.options().n)
}
