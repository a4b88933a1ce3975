//! A process without file descriptors left. Alone in its file, because the limit is the whole
//! process's.

mod common;

use std::net::TcpStream;

use base::{PillarId, ReplicaId};
use common::Cluster;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn running_out_of_descriptors_is_counted_and_survived() {
    let cluster = Cluster::start(4, 1, 1, &[]);
    cluster.client(0, 1).open().drive(1, 5, 1);
    cluster.wait("all links", |all| all.iter().all(|r| r.pillars[0].peers_up == 3));
    let used = std::fs::read_dir("/proc/self/fd").expect("Linux").count() as u64;
    let before = getrlimit(Resource::Nofile);
    let low = Rlimit { current: Some(used + 24), maximum: before.maximum };
    setrlimit(Resource::Nofile, low).expect("lower is allowed");
    let address = cluster.group.address(ReplicaId(0), PillarId(0)).expect("a pillar");
    let address = address.host_and_port().expect("over TCP");
    // One that the replica has taken in before descriptors run out: whom it can drop.
    let taken = cluster.reports()[0].links.accepted;
    let mut idle = vec![TcpStream::connect(address).expect("descriptors are left")];
    cluster.wait("a stranger", |all| all[0].links.accepted > taken);
    while let Ok(stream) = TcpStream::connect(address) {
        idle.push(stream);
        assert!(idle.len() < 100, "the limit is not one");
    }
    // Only the connections that wait to be accepted are without a descriptor of the replica's.
    cluster.wait("the error", |all| all[0].links.accept_errors > 0);
    // And those that say nothing do not keep them: the oldest go.
    cluster.wait("room", |all| all[0].links.crowded_out > 0);
    setrlimit(Resource::Nofile, before).expect("as it was");
    drop(idle);
    cluster.client(0, 2).open().drive(1, 5, 1);
    cluster.settle(10);
}
