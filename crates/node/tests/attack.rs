//! Attacks on a running group, and what is left for honest clients: `cargo xtask attack` runs
//! these for long enough to measure, prints the table and writes it to `docs/reliability.md`.
//! In a run of all tests the phases are short, and only right and wrong count: every answer, no
//! error for an honest client, no other view where none is promised, one state in the end.
//!
//! Hostile code is here and not in the product: no binary of ours can be told to attack others.

#[path = "support/attack/mod.rs"]
mod attack;
#[path = "support/chaos/mod.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;

use std::time::{Duration, Instant};

use attack::squad::Round;
use attack::{Arena, Case, Load, Squad, floods};
use base::SessionId;
use chaos::Setup;

/// Alternates `rounds` with nothing.
fn raid(case: Case, rounds: impl FnOnce(&Arena) -> Vec<Round>) {
    let mut arena = Arena::start(case);
    let squad = Squad::new(rounds(&arena));
    arena.alternate(|_, on| squad.let_loose(on));
    squad.let_loose(false);
    let done = squad.done();
    assert!(done > 0, "nobody attacked");
    drop(squad);
    arena.note(format!("{done} attempts"));
    arena.end();
}

/// Alternates what the case's replicas do with good behaviour.
fn drill(case: Case) {
    let mut arena = Arena::start(case);
    arena.alternate(|arena, on| arena.misbehave(on));
    arena.end();
}

/// The leader misbehaves from some moment on, for good; it is measured after `patience`.
fn bad_leader(case: Case, patience: Duration) {
    let mut arena = Arena::start(case);
    let patience = if attack::arena::measures() { patience } else { patience.min(SHORT) };
    arena.endure(patience, |arena| arena.misbehave(true));
    arena.end();
}

/// A patience for runs that measure nothing.
const SHORT: Duration = Duration::from_secs(2);
/// Where nothing is promised but that honest clients are served.
const NO_GOAL: f64 = 0.0;
/// After which a leader that is slow has to be replaced.
const SLOW_PATIENCE: Duration = Duration::from_secs(5);
/// Two view timeouts.
const TWO_TIMEOUTS: Duration = Duration::from_secs(2);

fn case(name: &'static str, what: &'static str, load: Load, goal: f64) -> Case {
    Case { what, ..Case::new(name, load, goal) }
}

#[test]
fn silent_backups() {
    drill(case("silent-backups", "f backups say nothing", Load::Full, 0.95).drill(3, "silent"));
}

#[test]
fn silent_backups_of_seven() {
    let mut case = case("silent-backups-of-seven", "f of seven say nothing", Load::Full, 0.95);
    case.setup.replicas = 7;
    drill(case.drill(5, "silent").drill(6, "silent"));
}

#[test]
fn crashed_backups() {
    let mut arena = Arena::start(Case {
        setup: Setup { durability: "async", ..Setup::default() },
        ..case("crashed-backups", "kill -9 of f backups", Load::Full, 0.95)
    });
    arena.alternate(|arena, on| {
        if on {
            arena.lab.kill(3);
        } else {
            arena.start_one(3);
            arena.until_all_run();
        }
    });
    arena.end();
}

#[test]
fn leader_crash() {
    let mut arena = Arena::start(Case {
        setup: Setup { durability: "async", ..Setup::default() },
        ..case(
            "leader-crash",
            "kill -9 of the leader; measured after two timeouts",
            Load::Full,
            0.9,
        )
        .changes_views()
    });
    let mut victim = 0;
    arena.endure(TWO_TIMEOUTS, |arena| {
        victim = arena.lab.leader();
        arena.lab.kill(victim);
    });
    arena.start_one(victim);
    arena.until_all_run();
    arena.end();
}

/// The pre-prepare delay attack: what the timeout alone never notices.
#[test]
fn slow_leader_under_the_timeout() {
    let case = case(
        "slow-leader-under-the-timeout",
        "the leader holds proposals for 800 ms, less than the view timeout; after 5 s",
        Load::Full,
        0.7,
    );
    bad_leader(case.changes_views().drill(0, "slow-leader"), SLOW_PATIENCE);
}

#[test]
fn slow_leader_under() {
    let case = case(
        "slow-leader-under",
        "the leader holds proposals for 180 ms, which is tolerated: a leader is slow only above \
         a fifth of the view timeout, 200 ms (L22); after 5 s",
        Load::Full,
        NO_GOAL,
    )
    .changes_views();
    bad_leader(case.drill(0, "slow-leader=180"), SLOW_PATIENCE);
}

#[test]
fn slow_leader_over() {
    let case = case(
        "slow-leader-over",
        "the leader holds proposals for 300 ms; after 5 s",
        Load::Full,
        0.7,
    )
    .changes_views();
    bad_leader(case.drill(0, "slow-leader=300"), SLOW_PATIENCE);
}

#[test]
fn selective_replica() {
    drill(
        case("selective-replica", "the leader says nothing to one replica", Load::Full, 0.9)
            .drill(0, "starve-replica=2"),
    );
}

#[test]
fn selective_client() {
    let case = case(
        "selective-client",
        "the leader does not hear one client; after three timeouts",
        Load::Full,
        0.9,
    )
    .changes_views();
    let mut arena = Arena::start(case.drill(0, "starve-client=1"));
    arena.endure(3 * Duration::from_secs(1), |arena| arena.misbehave(true));
    let served = arena.last_attacked().per_client[1];
    let others = arena.last_attacked().rate / f64::from(attack::honest::CLIENTS);
    assert!(served > 0.0, "the censored client is not served after three timeouts");
    arena.note(format!("the censored client has {:.0} % of a fair part", 100.0 * served / others));
    arena.end();
}

#[test]
fn selective_pillar() {
    let mut case = case(
        "selective-pillar",
        "the leader proposes nothing in one of two pillars; after three timeouts",
        Load::Full,
        0.9,
    )
    .changes_views();
    case.setup.pillars = 2;
    bad_leader(case.drill(0, "starve-pillar=1"), 3 * Duration::from_secs(1));
}

#[test]
fn equivocating_leader() {
    let case = case(
        "equivocating-leader",
        "the leader proposes different batches for one number; after four seconds",
        Load::Full,
        0.9,
    )
    .changes_views();
    bad_leader(case.drill(0, "equivocate"), 2 * TWO_TIMEOUTS);
}

#[test]
fn big_mac_client() {
    let case = case(
        "big-mac-client",
        "a client authenticates to some replicas only, each subset in turn",
        Load::Full,
        0.97,
    );
    raid(case, |arena| vec![floods::big_mac(&arena.group, 5)]);
}

#[test]
fn two_bodies() {
    let case = case(
        "two-bodies",
        "a client sends different bodies under one id, each division in turn",
        Load::Full,
        0.97,
    );
    raid(case, |arena| vec![floods::two_bodies(&arena.group, 5)]);
}

#[test]
fn flood_valid() {
    let case = case(
        "flood-valid",
        "three clients keep to the protocol and send all that it allows, an operation per frame",
        Load::Half,
        0.97,
    );
    raid(case, |arena| (4..7).map(|id| floods::valid_frames(&arena.group, id)).collect());
}

#[test]
fn flood_garbage() {
    let case =
        case("flood-garbage", "bytes without a meaning, sealed and unsealed", Load::Half, 0.97);
    raid(case, |arena| {
        let sealed = (4..6).map(|id| floods::sealed_garbage(&arena.group, id));
        sealed.chain([floods::unsealed_garbage(&arena.group)]).collect()
    });
}

#[test]
fn flood_connections() {
    let case = case("flood-connections", "two clients make links and drop them", Load::Half, 0.97);
    raid(case, |arena| (4..6).map(|id| floods::reconnects(&arena.group, id)).collect());
}

#[test]
fn half_open() {
    let case = case(
        "half-open",
        "2,000 connections that say nothing, half a length, or a byte now and then",
        Load::Half,
        0.97,
    );
    let wanted = if attack::arena::measures() { 2_000 } else { 400 };
    raid(case, |arena| vec![floods::half_open(&arena.group, wanted)]);
}

#[test]
fn never_reading() {
    let case = case(
        "never-reading",
        "a client asks for large values and does not read them",
        Load::Half,
        0.97,
    );
    raid(case, |arena| vec![floods::never_reads(&arena.group, 5)]);
}

#[test]
fn replays() {
    let case = case(
        "replays",
        "frames of long ago, to all replicas, as fast as they take them",
        Load::Half,
        0.97,
    );
    raid(case, |arena| vec![floods::replays(&arena.group, 5)]);
}

#[test]
fn view_change_storm() {
    drill(
        case(
            "view-change-storm",
            "f replicas ask for views near and far, a thousand times a second",
            Load::Full,
            0.97,
        )
        .drill(3, "view-storm"),
    );
}

#[test]
fn gray_stopped() {
    let mut arena =
        Arena::start(case("gray-stopped", "SIGSTOP of a backup for a phase", Load::Full, 0.9));
    arena.alternate(|arena, on| if on { arena.lab.suspend(3) } else { arena.lab.resume(3) });
    arena.end();
}

/// Ninety per cent of the time a replica does nothing.
#[test]
fn gray_throttled() {
    let mut arena = Arena::start(case(
        "gray-throttled",
        "a backup stands still nine tenths of the time",
        Load::Full,
        0.9,
    ));
    let pid = i32::try_from(arena.lab.process(3).pid()).expect("a process number");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process number");
    let signal = move |signal| rustix::process::kill_process(pid, signal).expect("it runs");
    let cycle: Round = Box::new(move |_| {
        signal(rustix::process::Signal::STOP);
        std::thread::sleep(Duration::from_millis(45));
        signal(rustix::process::Signal::CONT);
        std::thread::sleep(Duration::from_millis(5));
        1
    });
    let squad = Squad::new(vec![cycle]);
    arena.alternate(|_, on| squad.let_loose(on));
    drop(squad);
    arena.end();
}

/// Ten times as much as usual for a while; then as usual, and all is well again.
#[test]
fn metastability() {
    let mut arena = Arena::start(case(
        "metastability",
        "ten times the load for a while; then as before",
        Load::Half,
        0.95,
    ));
    let phase = attack::arena::seconds() / 4;
    arena.calm(phase);
    let usual = arena.calm_rate();
    arena.honest.pace(Some(10.0 * usual));
    let overload = arena.sample(phase);
    arena.note(format!("{:.0}/s of {:.0}/s wanted meanwhile", overload.rate, 10.0 * usual));
    arena.honest.pace(Some(usual));
    let begun = Instant::now();
    std::thread::sleep(phase / 4);
    arena.attacked(phase);
    arena.note_recovery(begun);
    arena.end();
}

/// A replica fetches the state while one of its sources lies.
#[test]
fn lying_source() {
    let case = Case {
        setup: Setup { checkpoint_interval: 32, drills: true, ..Setup::default() },
        ..case(
            "lying-source",
            "a replica that lost its disk fetches the state, one source lies",
            Load::Half,
            0.9,
        )
        .drill(1, "lying-source")
        .changes_views()
    };
    let mut arena = Arena::start(case);
    arena.misbehave(true);
    fill(&arena);
    arena.calm(attack::arena::seconds() / 4);
    for _ in 0..2 {
        let begun = Instant::now();
        arena.lab.kill(3);
        arena.lab.wipe(3);
        arena.recover_one(3);
        arena.attacked(attack::arena::seconds() / 4);
        arena.until_all_run();
        arena.note(format!("back after {:.1} s", begun.elapsed().as_secs_f64()));
    }
    arena.end();
}

/// Some state that is worth fetching.
fn fill(arena: &Arena) {
    let megabytes = if attack::arena::measures() { 64 } else { 4 };
    let villain = attack::Villain::new(&arena.group, 6);
    let (session, mut wires): (SessionId, _) = villain.session();
    let value = "s".repeat(64 << 10);
    let open = villain.open(session);
    let mut frames = vec![open];
    for id in 1..=megabytes * 16 {
        let op = attack::hostile::set(&format!("state:{id}"), &value);
        frames.push(villain.frame(session, id, &op, u64::MAX));
    }
    for some in frames.chunks(8) {
        for wire in wires.iter_mut().flatten() {
            assert!(wire.send_frames(some), "nothing is wrong with them");
            wire.drain();
        }
        std::thread::sleep(Duration::from_millis(4));
    }
}
