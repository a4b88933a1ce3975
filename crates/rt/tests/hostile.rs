//! Every byte from outside is hostile: whoever breaks a rule loses its connection, and nobody
//! else notices.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use base::packet::{PacketKind, PeerHeader};
use base::{Incarnation, PillarId, ReplicaId, SessionId};
use common::{Cluster, Wire};

/// All ports of the group.
fn ports(cluster: &Cluster) -> Vec<(String, u16)> {
    let entries = cluster.group.replicas().iter();
    let tcp = |address: &genesis::Address| {
        address.host_and_port().map(|(host, port)| (host.to_owned(), port))
    };
    entries.flat_map(|r| r.addresses.iter().filter_map(tcp)).collect()
}

fn total(cluster: &Cluster, count: impl Fn(&rt::counters::LinkCounters) -> u64) -> u64 {
    cluster.reports().iter().map(|r| count(&r.links)).sum()
}

/// Deterministic noise.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn garbage_on_every_port_closes_its_connection_and_disturbs_nobody() {
    let cluster = Cluster::start(4, 2, 1, &[]);
    let mut client = cluster.client(0, 1).open();
    let mut sent = 0;
    for (i, address) in ports(&cluster).iter().enumerate() {
        let huge = u32::MAX.to_le_bytes().to_vec();
        let zero = vec![0; 4];
        let over = 1025u32.to_le_bytes().to_vec();
        let mut framed = 100u32.to_le_bytes().to_vec();
        framed.extend(noise(i as u64, 100));
        let mut http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        http.extend(noise(7, 64));
        for bytes in [huge, zero, over, framed, http, noise(99, 5000)] {
            let mut stream = TcpStream::connect(address).expect("listens");
            // The other end may close before all is written.
            let _ = stream.write_all(&bytes);
            let mut rest = vec![];
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.is_empty(), "nothing is answered");
            sent += 1;
        }
        client.drive(2, 2, 1);
    }
    cluster.wait("the count", |all| {
        let bad = |r: &rt::ReplicaReport| r.links.malformed + r.links.handshakes_failed;
        all.iter().map(bad).sum::<u64>() >= sent
    });
    cluster.settle(4 * 2 * 4);
}

#[test]
fn silent_and_half_open_connections_are_bounded_and_keep_nobody_out() {
    let cluster = Cluster::start(4, 1, 1, &[]);
    let mut idle = vec![];
    for round in 0..3 {
        for address in ports(&cluster) {
            for i in 0..60u8 {
                let mut stream = TcpStream::connect(&address).expect("listens");
                // Half a hello, or nothing at all.
                let half = &[96, 0, 0, 0, 1, 2, 3][..usize::from(i % 8)];
                let _ = stream.write_all(half);
                idle.push(stream);
            }
        }
        cluster.client(0, round + 1).open().drive(1, 3, 1);
    }
    cluster.wait("room", |all| all.iter().all(|r| r.links.crowded_out > 0));
    assert!(cluster.reports().iter().all(|r| r.pillars[0].connections < 64 + 16));
    cluster.settle(9);
}

#[test]
fn a_client_that_speaks_for_another_is_cut_off() {
    let cluster = Cluster::start(4, 1, 1, &[]);
    let mut victim = cluster.client(0, 1).open();
    let other = cluster.client(1, 1);
    let to = (ReplicaId(0), PillarId(0));
    let mut wire =
        Wire::connect(&cluster.group, &other.identity, to, SessionId(5)).expect("listens");
    let mut payload = PacketKind::Request.alone().to_vec();
    victim.frame(1).encode(&mut payload);
    wire.send(&payload).expect("sent");
    assert_eq!(wire.receive(), None, "the link is closed");
    cluster.wait("the count", |_| total(&cluster, |links| links.impostors) == 1);
    victim.drive(1, 3, 1);
}

#[test]
fn sealed_packets_that_mean_nothing_cost_their_connection_only() {
    let cluster = Cluster::start(4, 1, 1, &[]);
    let mut client = cluster.client(0, 1).open();
    let mut bad: Vec<Vec<u8>> = vec![vec![0], vec![6], vec![1], vec![3, 1], vec![2, 9], vec![4, 9]];
    bad.push([vec![1], noise(3, 200)].concat());
    // The count of operations, the length of a frame: huge.
    bad.push([vec![1], vec![0xff; 64]].concat());
    for (i, payload) in (0..).zip(&bad) {
        let session = SessionId(100 + u64::from(i));
        // So few for each replica that it bears them.
        let to = (ReplicaId(i % 4), PillarId(0));
        let mut wire =
            Wire::connect(&cluster.group, &client.identity, to, session).expect("listens");
        wire.send(payload).expect("sent");
        assert_eq!(wire.receive(), None, "{payload:?}");
    }
    // A packet that was not sealed by anybody.
    let to = (ReplicaId(1), PillarId(0));
    let mut wire =
        Wire::connect(&cluster.group, &client.identity, to, SessionId(9)).expect("listens");
    wire.raw().write_all(&[20, 0, 0, 0]).expect("sent");
    wire.raw().write_all(&[7; 20]).expect("sent");
    assert_eq!(wire.receive(), None);
    cluster.wait("the count", |_| total(&cluster, |l| l.malformed) == bad.len() as u64 + 1);
    client.drive(1, 3, 1);
    cluster.settle(3);
}

/// A newer link of a faulty replica proves to live with a packet that means nothing: it is closed
/// for that, and the link that it has replaced is gone all the same, with what was half read on it.
#[test]
fn a_link_that_is_replaced_is_closed_whatever_the_newer_one_says_first() {
    let cluster = Cluster::start(4, 1, 1, &[3]);
    let links = |up: u64| {
        move |all: &[rt::ReplicaReport]| {
            let pillar = &all[0].pillars[0];
            (pillar.peers_up, pillar.connections) == (up, up)
        }
    };
    cluster.wait("the links of the others", links(2));
    let (to, incarnation) = ((ReplicaId(0), PillarId(0)), Incarnation(7));
    let faulty = cluster.replica(3, incarnation);
    let dial = || Wire::dial(&cluster.group, &faulty, to, SessionId(0)).expect("listens");
    let (epoch, sender) = (cluster.group.epoch(), ReplicaId(3));
    let mut header = vec![];
    PeerHeader { epoch, sender, pillar: to.1, incarnation }.encode(&mut header);
    let mut older = dial();
    older.send(&header).expect("sent");
    cluster.wait("the link of the faulty one", links(3));
    older.raw().write_all(&(1u32 << 20).to_le_bytes()).expect("sent");
    older.raw().write_all(&[7; 1000]).expect("sent");
    let mut newer = dial();
    newer.send(&[0]).expect("sent");
    cluster.wait("the end of both", links(2));
    while older.receive().is_some() {}
    // What the replica has not read is lost with the connection.
    let ended = older.raw().read(&mut [0]).map_err(|error| error.kind());
    assert!(matches!(ended, Ok(0) | Err(ErrorKind::ConnectionReset)), "{ended:?}");
    cluster.client(0, 1).open().drive(1, 3, 1);
}

#[test]
fn a_hello_of_the_wrong_role_gets_no_link() {
    let cluster = Cluster::start(4, 2, 1, &[]);
    let mut client = cluster.client(0, 1).open();
    // A client's hello for pillar 0 of replica 0, delivered to everybody else.
    let (_, hello) = auth::Initiator::start(
        &client.identity,
        cluster.group.directory(),
        ReplicaId(0),
        PillarId(0),
        SessionId(3),
    )
    .expect("legal");
    for address in &ports(&cluster)[1..] {
        let mut stream = TcpStream::connect(address).expect("listens");
        stream.write_all(&hello).expect("sent");
        let mut rest = vec![];
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "no answer to a hello for somebody else");
    }
    // The one it is meant for answers, but a recorded hello leads no further: the same
    // session's real link keeps its replies.
    let address = cluster.group.address(ReplicaId(0), PillarId(0)).expect("a pillar");
    let (host, port) = address.host_and_port().expect("over TCP");
    let mut replay = TcpStream::connect((host, port)).expect("listens");
    replay.write_all(&hello).expect("sent");
    let mut answer = [0; 8];
    replay.read_exact(&mut answer).expect("an answer");
    client.drive(2, 5, 1);
    cluster.wait("the count", |_| total(&cluster, |l| l.handshakes_failed) >= 7);
}

#[test]
fn a_client_that_never_reads_is_dropped_and_others_are_served() {
    let mut cluster = Cluster::prepare(&common::options(4, 1), 1);
    cluster.client_backlog_max = 64 << 10;
    cluster.start_all(&[]);
    let mut good = cluster.client(0, 1).open();
    let mut deaf = cluster.client(1, 1).open();
    let op = vec![7u8; 256 << 10];
    // Replies are as large as the operations; nobody reads them. More than the sockets hold.
    for _ in 0..40 {
        deaf.send(0, &[&op]);
    }
    good.drive(1, 10, 1);
    cluster.wait("the count", |all| all.iter().any(|r| r.links.slow_clients > 0));
    good.drive(1, 10, 1);
}

/// What each link of a principal leaves unread is little, and all of them together are much. One
/// that is read stays, whoever else has its principal.
#[test]
fn what_all_links_of_a_principal_leave_unread_counts_together() {
    const LINKS: u64 = 6;
    let op = vec![7u8; 256 << 10];
    // So much that the sockets do not hold most of it.
    let each = 32;
    let mut cluster = Cluster::prepare(&common::options(4, 1), 1);
    // More than any of the links has to have waiting.
    cluster.client_backlog_max = (each + 1) * op.len();
    cluster.start_all(&[]);
    let mut reads = cluster.client(1, 100).link(0, 0).expect("listens");
    let mut deaf: Vec<_> = (1..=LINKS).map(|at| cluster.client(1, at).open()).collect();
    for client in &mut deaf {
        for _ in 0..each {
            client.send(0, &[&op]);
        }
    }
    cluster.client(0, 1).open().drive(1, 10, 1);
    cluster.wait("the count", |all| all[0].links.slow_clients > 0);
    reads.send(&PacketKind::StatusQuery.alone()).expect("the link stays");
    let packet = reads.receive().expect("an answer");
    assert!(matches!(PacketKind::split(&packet), Ok((PacketKind::Status, _))));
    cluster.client(0, 2).open().drive(1, 10, 1);
}

/// Whoever asks how we are and does not read what it is told has one answer waiting, at most.
#[test]
fn who_leaves_a_status_unread_is_told_no_other_one() {
    let mut cluster = Cluster::prepare(&common::options(4, 1), 1);
    cluster.client_backlog_max = 64 << 10;
    cluster.start_all(&[]);
    let ask = PacketKind::StatusQuery.alone();
    let mut deaf = cluster.client(1, 1).link(0, 0).expect("listens");
    let mut reads = cluster.client(1, 2).link(0, 0).expect("listens");
    let mut told = 0;
    // More than the sockets and the bound hold together.
    while told < 8 << 20 {
        deaf.send(&ask).expect("the link stays");
        // A turn later it can ask again.
        reads.send(&ask).expect("the link stays");
        told += reads.receive().expect("an answer").len();
    }
    // What it was told is whole, and there are fewer answers than questions.
    deaf.set_nonblocking(true);
    let mut got = 0;
    while let Some(packet) = deaf.receive() {
        got += packet.len();
    }
    assert!(got > 0 && got < told, "{got} of {told} bytes");
    deaf.set_nonblocking(false);
    // Once it has read everything, it is told anew.
    deaf.send(&ask).expect("the link stays");
    assert!(deaf.receive().is_some());
    assert_eq!(total(&cluster, |links| links.slow_clients), 0);
}

#[test]
fn a_flood_of_frames_that_nobody_orders_stops_at_the_quota() {
    let cluster = Cluster::start(4, 1, 1, &[]);
    let mut good = cluster.client(0, 1).open();
    let flooder = cluster.client(1, 5);
    // To one replica only: it cannot get the vouches that the frames need.
    let to = (ReplicaId(0), PillarId(0));
    let mut wire =
        Wire::connect(&cluster.group, &flooder.identity, to, SessionId(5)).expect("listens");
    let count = base::limits::PENDING_FRAMES_PER_CLIENT_MAX as u64 + 500;
    for id in 1..=count {
        let mut payload = PacketKind::Request.alone().to_vec();
        flooder
            .frame_of(base::frame::UNORDERED | (id / 64) as u32, id % 64 + 1, 0)
            .encode(&mut payload);
        wire.send(&payload).expect("the link stays");
    }
    cluster.wait("the quota", |all| all[0].traffic.quota > 0);
    good.drive(1, 10, 1);
    wire.send(&PacketKind::StatusQuery.alone()).expect("the link stays");
    let packet = wire.receive().expect("an answer, when the pauses are over");
    assert!(matches!(PacketKind::split(&packet), Ok((PacketKind::Status, _))));
}

/// What the quota has no room for at once waits, and is not lost: nothing here sends it again.
#[test]
fn a_packet_of_more_frames_than_the_quota_is_ordered_whole() {
    let cluster = Cluster::start(4, 1, 1, &[]);
    cluster.wait("all links", |all| all.iter().all(|r| r.pillars[0].peers_up == 3));
    let mut client = cluster.client(0, 1).open();
    let count = base::limits::PENDING_FRAMES_PER_CLIENT_MAX as u64 + 400;
    client.send_packet(count);
    cluster.settle(count);
    cluster.wait("the quota", |all| all.iter().any(|r| r.traffic.quota > 0));
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let cluster = Cluster::start(4, 1, 1, &[0]);
    let address = cluster.group.address(ReplicaId(0), PillarId(0)).expect("a pillar");
    let address = address.host_and_port().expect("over TCP");
    let taken = TcpListener::bind(address).expect("free again");
    let error = cluster.try_start(0, None).expect_err("taken");
    assert!(error.to_string().contains(&address.1.to_string()), "{error}");
    drop(taken);
}
