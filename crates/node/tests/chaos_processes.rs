//! What happens to processes and disks, one at a time and under load: killed, stopped, restarted,
//! emptied, rotten. Clients see a pause, no error and no wrong answer; nothing acknowledged is
//! lost; all replicas have one state in the end, without anybody's help.

#[path = "support/chaos/mod.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;

use std::time::Duration;

use chaos::{Lab, Load, Setup, steady};
use cluster::{Gateway, full, until};
use serde_json::json;

/// A group of four with sync durability, two gateways, and a load on both.
struct Scene {
    lab: Lab,
    gateways: Vec<Gateway>,
    load: Load,
}

impl Scene {
    fn start(setup: Setup) -> Scene {
        let lab = Lab::start(setup);
        let gateways = vec![lab.gateway(0), lab.gateway(1)];
        let load = Load::start(&steady(&gateways.iter().collect::<Vec<_>>()));
        load.flows(100);
        Scene { lab, gateways, load }
    }

    /// Waits until replicas have caught up and the load goes on.
    fn settle(&self) {
        let all: Vec<u16> = self.lab.ids().collect();
        self.lab.until_one_state(&all, &self.gateways[0]);
        self.load.flows(100);
    }

    /// Everything is as it should be, and the figures are written down.
    fn end(self, name: &str) {
        let all: Vec<u16> = self.lab.ids().collect();
        self.lab.until_one_state(&all, &self.gateways[0]);
        let outcome = self.load.stop();
        let pauses = outcome.pauses.iter();
        let pauses: Vec<_> = pauses
            .map(|pause| json!({ "event": pause.event, "slowest_ms": pause.slowest_us / 1000 }))
            .collect();
        let (pids, lab) = (self.lab.pids(), &self.lab);
        let figures = json!({
            "clients": outcome.figures(),
            "pauses": pauses,
            "rss_kib": pids.into_iter().map(soak::rss_kib).collect::<Vec<_>>(),
            "disk_bytes": lab.ids().map(|id| lab.disk_bytes(id)).collect::<Vec<_>>(),
        });
        soak::write_down(&format!("processes-{name}"), &figures);
        outcome.without_errors().verify(self.gateways[1].port);
    }
}

#[test]
fn the_leader_is_killed_and_comes_back() {
    let rounds = if full() { 20 } else { 2 };
    let mut scene = Scene::start(Setup::default());
    for _ in 0..rounds {
        let leader = scene.lab.leader();
        scene.load.event("kill -9 of the leader");
        scene.lab.kill(leader);
        scene.load.flows(200);
        scene.load.event("restart");
        scene.lab.start_one(leader);
        scene.settle();
    }
    scene.end("leader");
}

#[test]
fn each_replica_is_killed_and_restarted_in_turn() {
    let rounds = if full() { 3 } else { 1 };
    let mut scene = Scene::start(Setup { pillars: 2, ..Setup::default() });
    for id in (0..rounds).flat_map(|_| 0..4) {
        scene.load.event("kill -9");
        scene.lab.kill(id);
        scene.load.flows(100);
        scene.load.event("restart");
        scene.lab.start_one(id);
        scene.settle();
    }
    scene.end("in-turn");
}

/// In mode `memory` a restart is always the restart of somebody who has forgotten: the same, by
/// way of recovery.
#[test]
fn each_replica_forgets_everything_in_turn() {
    let rounds = if full() { 3 } else { 1 };
    let setup = Setup { durability: "memory", checkpoint_interval: 32, ..Setup::default() };
    let mut scene = Scene::start(setup);
    for id in (0..rounds).flat_map(|_| 0..4) {
        scene.load.event("kill -9");
        scene.lab.kill(id);
        scene.load.flows(100);
        scene.load.event("restart without memory");
        scene.lab.start_one(id);
        scene.settle();
    }
    scene.end("forgetful");
}

#[test]
fn a_stopped_leader_wakes_up_again() {
    let seconds = if full() { 10 } else { 3 };
    let mut scene = Scene::start(Setup::default());
    for id in [scene.lab.leader(), (scene.lab.leader() + 1) % 4] {
        scene.load.event("SIGSTOP");
        scene.lab.suspend(id);
        std::thread::sleep(Duration::from_secs(seconds));
        scene.load.flows(100);
        scene.load.event("SIGCONT");
        scene.lab.resume(id);
        scene.settle();
    }
    scene.end("stopped");
}

#[test]
fn a_replica_whose_directory_is_deleted_recovers() {
    let mut scene = Scene::start(Setup { checkpoint_interval: 32, ..Setup::default() });
    for id in [2, scene.lab.leader()] {
        scene.load.event("kill -9 and loss of the disk");
        scene.lab.kill(id);
        scene.lab.wipe(id);
        scene.load.flows(100);
        scene.lab.start_one(id);
        let status = until("a plain start ends", || scene.lab.ended(id).ok_or(String::new()));
        assert_eq!(status.code(), Some(1), "a plain start on an emptied directory is refused");
        assert!(scene.lab.log(id).contains("--recover"), "it says what to do");
        scene.load.event("--recover");
        scene.lab.start_with(id, &["--recover"]);
        scene.settle();
    }
    scene.end("emptied");
}

#[test]
fn a_replica_whose_disk_rots_repairs_itself_or_recovers() {
    let rounds: u64 = if full() { 10 } else { 1 };
    let mut scene = Scene::start(Setup { checkpoint_interval: 32, ..Setup::default() });
    for (id, name) in (0..rounds).flat_map(|_| [(1, "log"), (3, "checkpoint")]) {
        scene.lab.checkpoint(id);
        let ended = scene.lab.terminate(id);
        assert_eq!(ended.code(), Some(0), "{}", scene.lab.log(id));
        scene.load.event("rot");
        let flipped = scene.lab.rot(id, name, 20);
        assert!(flipped > 0, "replica {id} has no {name}: {:?}", scene.lab.state(id));
        scene.load.flows(100);
        scene.lab.start_one(id);
        scene.settle();
    }
    scene.end("rotten");
}

/// Nobody has the newest checkpoint any more, and nobody could be asked for it: everybody goes on
/// from the one before, with the log, and has forgotten nothing.
#[test]
fn checkpoints_that_rot_everywhere_are_made_good_from_those_before() {
    let mut lab = Lab::start(Setup { checkpoint_interval: 32, ..Setup::default() });
    let gateways = [lab.gateway(0), lab.gateway(1)];
    let load = Load::start(&steady(&gateways.iter().collect::<Vec<_>>()));
    let all: Vec<u16> = lab.ids().collect();
    for _ in 0..2 {
        load.flows(100);
        all.iter().for_each(|id| lab.checkpoint(*id));
    }
    load.flows(100);
    let outcome = load.stop();
    for id in &all {
        let ended = lab.terminate(*id);
        assert_eq!(ended.code(), Some(0), "{}", lab.log(*id));
        let checkpoints = lab.checkpoints(*id);
        assert!(checkpoints.len() > 1, "replica {id} keeps the one before: {checkpoints:?}");
        chaos::lab::rot_objects(checkpoints.last().expect("has some"));
    }
    all.iter().for_each(|id| lab.start_one(*id));
    lab.until_healthy();
    lab.until_one_state(&all, &gateways[0]);
    for id in &all {
        let log = lab.log(*id);
        assert!(log.contains("goes on from before the damaged checkpoint"), "replica {id}: {log}");
    }
    outcome.without_errors().verify(gateways[1].port);
}
