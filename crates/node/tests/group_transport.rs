//! Groups of processes over each transport, and with pillars on network interfaces of their own.

#[path = "support/cluster.rs"]
mod cluster;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;

use cluster::{Cluster, Shape, code, stderr, stylite};
use rustix::process::Signal;

const SHAPE: Shape = Shape { replicas: 4, pillars: 2, service: "echo" };

fn started(flags: &[&str]) -> Cluster {
    let mut cluster = Cluster::found_with(SHAPE, flags);
    (0..4).for_each(|id| cluster.start_one(id));
    cluster.wait_for_code(0);
    cluster
}

/// `bench` checks that everything is answered, and that the digests are equal.
fn works(cluster: &Cluster) {
    cluster.bench(&["--clients", "2", "--outstanding", "64", "--duration", "300ms"]);
}

fn sockets(cluster: &Cluster, id: u16) -> Vec<PathBuf> {
    let dir = cluster.path().join("sockets");
    (0..2).map(|pillar| dir.join(format!("{id}-{pillar}.sock"))).collect()
}

/// A leader is killed and comes back, and no file is in its way; one that is asked to stop leaves
/// none behind.
fn a_group_over_sockets(transport: &str) {
    let mut cluster = started(&["--transport", transport]);
    works(&cluster);
    let status = cluster.wait_for_code(0);
    let shown = status["replicas"][1]["addresses"][1].as_str().expect("an address").to_owned();
    assert!(shown.starts_with(&format!("{transport}:/")) && shown.ends_with("1-1.sock"), "{shown}");
    assert_eq!(status["replicas"][0]["transport"], transport);
    for file in sockets(&cluster, 0) {
        let found = std::fs::metadata(&file).expect("a socket");
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }
    let mut second = cluster.command(0);
    let refused = second.args(["--durability", "memory"]).output().expect("it runs");
    assert_ne!(code(&refused), 0);
    let told = stderr(&refused);
    assert!(told.contains("listens on this socket already") && told.contains("0-0.sock"), "{told}");
    cluster.kill(0);
    assert!(sockets(&cluster, 0).iter().all(|file| file.exists()), "nobody removed them");
    cluster.wait_for_code(3);
    works(&cluster);
    cluster.start_one(0);
    cluster.wait_for_code(0);
    works(&cluster);
    cluster.replica(3).signal(Signal::TERM);
    cluster.replica(3).wait();
    assert!(sockets(&cluster, 3).iter().all(|file| !file.exists()), "it cleaned up");
}

#[test]
fn a_group_over_unix_sockets_outlives_a_kill() {
    a_group_over_sockets("unix");
}

#[test]
fn a_group_over_shared_memory_outlives_a_kill() {
    a_group_over_sockets("shm");
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_refused_with_its_length() {
    let dir = format!("/{}", "d".repeat(120));
    let mut init = stylite();
    init.args(["init", "/nowhere/group", "--replicas", "4", "--transport", "unix"]);
    let output = init.args(["--socket-dir", &dir]).output().expect("it runs");
    assert_ne!(code(&output), 0);
    let told = stderr(&output);
    assert!(told.contains("--socket-dir") && told.contains("107 bytes"), "{told}");
}

/// Loopback has many addresses: each pillar has its own, as if it were a network interface.
#[test]
fn pillars_have_network_interfaces_of_their_own() {
    let hosts: Vec<String> = (0..4).map(|id| format!("127.0.{id}.2+127.0.{id}.3")).collect();
    let cluster = started(&["--host", &hosts.join(",")]);
    works(&cluster);
    let status = cluster.wait_for_code(0);
    let address = |id: usize, pillar: usize| {
        let shown = status["replicas"][id]["addresses"][pillar].as_str();
        shown.expect("an address").rsplit_once(':').expect("a port").0.to_owned()
    };
    for id in 0..4 {
        assert_eq!(address(id, 0), format!("127.0.{id}.2"));
        assert_eq!(address(id, 1), format!("127.0.{id}.3"));
    }
}

#[test]
fn more_interfaces_than_pillars_are_refused() {
    let mut init = stylite();
    init.args(["init", "/nowhere/group", "--replicas", "4", "--host", "127.0.0.2+127.0.0.3"]);
    let output = init.output().expect("it runs");
    assert_ne!(code(&output), 0);
    let told = stderr(&output);
    assert!(told.contains("--host") && told.contains("more interfaces than pillars"), "{told}");
}
