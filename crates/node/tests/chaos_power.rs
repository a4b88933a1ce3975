//! The power fails for everybody at once. What each durability promises is kept, and no more is
//! claimed: `sync` loses nothing although everything that was not fsynced is gone, `async`
//! survives the death of all processes, `memory` says that it has forgotten.
//!
//! The page cache survives kill -9, so a storage that keeps unsynced bytes in the process stands
//! in for the disk; the same storage with an fsync that does nothing shows that this test would
//! notice.

#[path = "support/chaos/mod.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;

use std::time::Duration;

use chaos::{Connection, Dice, Lab, Load, Setup, steady};
use cluster::{full, until};
use serde_json::json;

const FORGETFUL: &str = "have forgotten their votes";

fn cuts() -> u64 {
    if full() { 50 } else { 3 }
}

fn drill(durability: &'static str, storage: Option<&'static str>) -> Setup {
    Setup { durability, storage, drills: true, ..Setup::default() }
}

/// Kills everybody again and again at random moments under load and starts them again.
fn outages(lab: &mut Lab, name: &str) {
    let gateways = [lab.gateway(0), lab.gateway(1)];
    let mut dice = Dice::new(cuts());
    let mut load = Load::start(&steady(&[&gateways[0], &gateways[1]]));
    for _ in 0..cuts() {
        load.flows(100 + dice.below(400));
        std::thread::sleep(Duration::from_millis(dice.below(300)));
        load.event("the power fails");
        lab.kill_all();
        lab.start_all();
    }
    load.flows(100);
    let all: Vec<u16> = lab.ids().collect();
    lab.until_one_state(&all, &gateways[0]);
    let outcome = load.stop();
    let figures = json!({ "outages": cuts(), "clients": outcome.figures() });
    soak::write_down(&format!("power-{name}"), &figures);
    // A gateway of its own, which remembers nothing.
    outcome.verify(lab.gateway(2).port);
}

#[test]
fn sync_loses_nothing_when_the_power_fails_for_everybody() {
    let mut lab = Lab::start(drill("sync", Some("volatile")));
    outages(&mut lab, "sync");
}

#[test]
fn async_loses_nothing_when_all_processes_are_killed() {
    let mut lab = Lab::start(drill("async", None));
    outages(&mut lab, "async");
}

/// The check above is worth something: it fails when fsync does nothing.
#[test]
fn an_fsync_that_does_nothing_is_found_out() {
    let mut lab = Lab::start(drill("sync", None));
    // A first life in order, so that there is something to begin with once more.
    lab.until_one_state(&[0, 1, 2, 3], &lab.gateway(0));
    for id in lab.ids() {
        assert_eq!(lab.terminate(id).code(), Some(0), "{}", lab.log(id));
    }
    lab.set_storage(Some("lying"));
    lab.start_all();
    lab.until_healthy();
    let gateway = lab.gateway(1);
    let load = Load::start(&steady(&[&gateway]));
    load.flows(300);
    lab.kill_all();
    let outcome = load.stop();
    lab.start_all();
    until("the group is back or has given up", || {
        if lab.status().0 == 0 || lab.ids().all(|id| lab.ended(id).is_some()) {
            return Ok(());
        }
        Err("neither".to_owned())
    });
    if lab.ids().any(|id| lab.ended(id).is_none()) {
        let found = outcome.check(lab.gateway(2).port);
        let found = found.expect_err("acknowledged writes were lost, and nobody noticed");
        assert!(found.contains("acknowledged writes are lost"), "{found}");
        println!("found out: {}", found.lines().take(3).collect::<Vec<_>>().join("; "));
    }
}

/// More than f have forgotten: nobody can tell any more what was agreed, and that is said.
#[test]
fn a_group_that_has_forgotten_everything_says_so_and_answers_nothing() {
    let mut lab = Lab::start(drill("memory", None));
    let gateway = lab.gateway(0);
    let mut connection = Connection::open(gateway.port).expect("it listens");
    connection.call(&["SET", "a", "1"]).expect("an answer");
    lab.kill_all();
    lab.start_all();
    until("everybody says that too many have forgotten", || {
        let silent: Vec<u16> = lab.ids().filter(|id| !lab.log(*id).contains(FORGETFUL)).collect();
        if silent.is_empty() { Ok(()) } else { Err(format!("{silent:?} do not")) }
    });
    for id in lab.ids() {
        assert!(lab.log(id).contains("snapshot"), "the remedy is named: {}", lab.log(id));
        assert!(lab.ended(id).is_none(), "it goes on trying");
    }
    let (code, status) = lab.status();
    assert_eq!(code, 4, "unavailable: {status}");
    let answer = connection.call(&["GET", "a"]);
    assert!(answer.is_err(), "nobody can know that: {answer:?}");
}
