//! Groups over shared memory: what is tested over TCP is tested over it, too, wherever a test does
//! not speak of ports; and what a malicious end of a connection can do to the memory.

#![allow(clippy::duplicate_mod, reason = "each file of tests brings what it needs")]

mod common;

// In this crate clusters talk over shared memory.
#[path = "clients.rs"]
mod clients;
#[path = "group.rs"]
mod group;
#[path = "recovery.rs"]
mod recovery;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::Cluster;
use genesis::Address;
use rt::StartError;
use shm::{Channel, Region};

fn cluster() -> Cluster {
    Cluster::start(4, 1, 1, &[])
}

fn dial(cluster: &Cluster) -> UnixStream {
    let address = &cluster.group.replicas()[0].addresses[0];
    let stream = UnixStream::connect(address.path().expect("a socket")).expect("listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
    stream
}

/// The replica hangs up, whatever bells it rang before.
fn hangs_up(mut stream: UnixStream) {
    let until = Instant::now() + Duration::from_secs(30);
    let mut bells = [0; 64];
    // Reset: it had not heard all of ours.
    while stream.read(&mut bells).is_ok_and(|read| read > 0) {
        assert!(Instant::now() < until, "the connection stays");
    }
}

#[test]
fn files_that_are_no_memory_cost_the_connection() {
    let cluster = cluster();
    let size = {
        let (_, good) = Region::create().expect("memory");
        rustix::fs::fstat(&good).expect("a file").st_size as u64
    };
    let memory = |size: u64| -> OwnedFd {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("bad", flags).expect("memory");
        rustix::fs::ftruncate(&file, size).expect("a size");
        file
    };
    let pipe: OwnedFd = std::io::pipe().expect("a pipe").0.into();
    // Not sealed: whoever has it could take the bytes away from under us.
    for file in [memory(size), memory(8), pipe] {
        let stream = dial(&cluster);
        shm::offer(&stream, &file).expect("sent");
        hangs_up(stream);
        // Too late for anything but its own connection.
        let _ = rustix::fs::ftruncate(&file, 0);
    }
    let mut stream = dial(&cluster);
    stream.write_all(b"no file at all").expect("sent");
    hangs_up(stream);
    cluster.client(0, 1).open().drive(1, 20, 4);
    cluster.agree();
}

#[test]
fn more_bells_than_anybody_rings_cost_the_connection() {
    let cluster = cluster();
    let mut stream = dial(&cluster);
    let (_region, file) = Region::create().expect("memory");
    shm::offer(&stream, &file).expect("sent");
    // It may hang up in between.
    while stream.write_all(&[0; 4096]).is_ok() {}
    hangs_up(stream);
    cluster.client(0, 1).open().drive(1, 20, 4);
    cluster.agree();
}

/// Indices and flags that say anything at all, with bells: the replica neither panics nor hangs
/// nor believes them, and serves the others.
#[test]
fn garbage_in_shared_memory_costs_the_connection() {
    let cluster = cluster();
    for turn in 0..16u64 {
        let stream = dial(&cluster);
        let (region, file) = Region::create().expect("memory");
        shm::offer(&stream, &file).expect("sent");
        for at in [0, 16, 32, 48].map(|word| word + (turn as usize % 2) * region_half()) {
            let value = (turn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 40;
            region.poke(at, value);
        }
        // It may have seen enough by now.
        let _ = (&stream).write_all(&[0]);
        if turn % 2 == 0 {
            // It reads from where we wrote.
            hangs_up(stream);
        }
    }
    cluster.client(0, 1).open().drive(1, 20, 4);
    cluster.agree();
}

fn region_half() -> usize {
    shm::RING_BYTES / 8 + 64
}

/// Bytes without a seal, in a ring that is sound.
#[test]
fn garbage_in_a_ring_costs_the_connection() {
    let cluster = cluster();
    let stream = dial(&cluster);
    let (region, file) = Region::create().expect("memory");
    shm::offer(&stream, &file).expect("sent");
    let mut channel = Channel::dialler(region);
    if channel.write(&[0xff; 4096]).expect("sound").bell {
        (&stream).write_all(&[0]).expect("sent");
    }
    hangs_up(stream);
    cluster.client(0, 1).open().drive(1, 20, 4);
    cluster.agree();
}

#[test]
fn pipelines_do_not_go_with_shared_memory() {
    let mut cluster = Cluster::start(4, 1, 1, &[3]);
    assert!(matches!(cluster.group.replicas()[3].addresses[0], Address::Shm(_)));
    cluster.pipelines = true;
    let refused = cluster.try_start(3, None).expect_err("they do not go together");
    assert!(matches!(refused, StartError::Switches(_)), "{refused}");
    assert!(refused.to_string().contains("transport shm"), "{refused}");
}
