//! A disk runs full. Its replica ends and says so, or goes on without a checkpoint, and the others
//! serve; once there is room, it goes on from what it had.
//!
//! A storage that has no room while a file says so stands in for the disk, under real processes
//! and over real files.

#[path = "support/chaos/mod.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;

use chaos::{Connection, Lab, Load, Setup, steady};
use cluster::until;

const REMEDY: &str = "no storage space; free some space";

fn lab() -> Lab {
    let (durability, storage) = ("sync", Some("full"));
    Lab::start(Setup { durability, storage, drills: true, ..Setup::default() })
}

/// Waits until a replica has ended by itself for want of room. A log has the room of its segment
/// beforehand, so large values are written until that is used up.
fn until_it_ends(lab: &mut Lab, id: u16, port: u16) {
    let said = lab.log(id).matches(REMEDY).count();
    let mut connection = Connection::open(port).expect("it listens");
    let value = "x".repeat(1 << 20);
    until("the replica whose disk is full ends", || {
        if let Some(status) = lab.ended(id) {
            assert_eq!(status.code(), Some(1), "{}", lab.log(id));
            return Ok(());
        }
        for _ in 0..8 {
            connection.call(&["SET", "large", &value]).expect("the others serve");
        }
        Err(lab.log(id))
    });
    assert!(lab.log(id).matches(REMEDY).count() > said, "it says so: {}", lab.log(id));
}

#[test]
fn a_replica_whose_disk_is_full_ends_and_goes_on_from_what_it_had() {
    let mut lab = lab();
    let gateway = lab.gateway(0);
    let mut load = Load::start(&steady(&[&gateway]));
    load.flows(200);
    for id in [(lab.leader() + 1) % lab.n(), lab.leader()] {
        let full = lab.full_mark(id);
        std::fs::write(&full, "").expect("a directory of the lab");
        load.event("a disk is full");
        until_it_ends(&mut lab, id, gateway.port);
        assert!(lab.log(id).contains("start the replica again"), "{}", lab.log(id));
        // The others serve, and who is started too early ends once more.
        load.flows(200);
        lab.start_one(id);
        until_it_ends(&mut lab, id, gateway.port);
        std::fs::remove_file(&full).expect("just written");
        lab.start_one(id);
        load.flows(100);
        let all: Vec<u16> = lab.ids().collect();
        lab.until_one_state(&all, &gateway);
        assert!(!lab.log(id).contains("recover"), "it has forgotten nothing: {}", lab.log(id));
    }
    load.stop().verify(lab.gateway(1).port);
}

#[test]
fn a_checkpoint_that_finds_no_room_ends_nobody_and_is_tried_again() {
    let mut lab = lab();
    let gateway = lab.gateway(0);
    let load = Load::start(&steady(&[&gateway]));
    load.flows(300);
    let full = lab.full_mark(1);
    std::fs::write(&full, "checkpoint").expect("a directory of the lab");
    until("a checkpoint finds no room", || {
        let answer = lab.ask_for_checkpoint(1);
        if answer.contains("space") { Ok(()) } else { Err(answer) }
    });
    load.flows(300);
    assert!(lab.ended(1).is_none(), "it ended: {}", lab.log(1));
    // The log has everything as long, also for a next life.
    lab.kill(1);
    lab.start_one(1);
    let all: Vec<u16> = lab.ids().collect();
    lab.until_one_state(&all, &gateway);
    std::fs::remove_file(&full).expect("just written");
    lab.checkpoint(1);
    lab.until_one_state(&all, &gateway);
    load.stop().verify(lab.gateway(1).port);
}
