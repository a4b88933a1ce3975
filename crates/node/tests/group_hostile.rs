//! Malformed input on every port of running processes: the connection is closed and counted, and
//! nobody else notices.

#[path = "support/cluster.rs"]
mod cluster;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auth::{Established, Initiator, LinkIdentity, PacketReader, Peer};
use base::packet::PacketKind;
use base::{ClientId, Incarnation, PillarId, ReplicaId, SessionId, limits};
use cluster::{Cluster, Gateway, HANG, Redis, Shape, full, until};
use genesis::{Address, Group};

const SHAPE: Shape = Shape { replicas: 4, pillars: 2, service: "kv" };

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

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(HANG)).expect("a socket");
    stream
}

/// Sends what may be refused halfway, and waits until the other end has closed. Returns what it
/// answered before.
fn closed_after(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    // The other end may close before all is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("{bytes:?} did not cost its connection")
        }
        _ => answer,
    }
}

/// The sum of a counter of links over all replicas.
fn counted(cluster: &Cluster, counters: &[&str]) -> u64 {
    let (_, status) = cluster.status();
    let rows = status["replicas"].as_array().expect("a list");
    let count = |row: &serde_json::Value| -> u64 {
        let links = &row["report"]["links"];
        counters.iter().map(|name| links[name].as_u64().expect("a counter")).sum()
    };
    rows.iter().map(count).sum()
}

fn ports(group: &Group) -> Vec<u16> {
    group.replicas().iter().flat_map(genesis::ReplicaEntry::ports).collect()
}

/// Runs `attack` while a client of the gateway writes and reads; every answer must be right.
fn undisturbed(cluster: &Cluster, gateway: &Gateway, attack: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut redis = gateway.redis();
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) || rounds < 100 {
                rounds += 1;
                assert_eq!(redis.call(&format!("SET key {rounds}")), "+OK");
                assert_eq!(redis.call("GET key"), rounds.to_string());
            }
        });
        // Also when the attack panics, or the worker would never end.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let finished = Done(&done);
        attack();
        drop(finished);
        worker.join().expect("every answer was right");
    });
    let status = cluster.wait_for_code(0);
    assert_eq!(status["health"], "healthy");
    cluster.bench(&["--duration", "200ms", "--warmup", "0", "--outstanding", "16"]);
}

fn started() -> (Cluster, Gateway, Group) {
    let cluster = Cluster::start(SHAPE, 0);
    let gateway = Gateway::start(&cluster.path());
    let group = Group::load(&cluster.path()).expect("a group");
    (cluster, gateway, group)
}

#[test]
fn garbage_costs_its_connection_and_is_counted() {
    let (cluster, gateway, group) = started();
    let before = counted(&cluster, &["malformed", "handshakes_failed"]);
    let mut sent = 0;
    undisturbed(&cluster, &gateway, || {
        for (seed, port) in (1..).zip(ports(&group)) {
            let mut framed = 100_u32.to_le_bytes().to_vec();
            framed.extend(noise(seed, 100));
            for bytes in [
                u32::MAX.to_le_bytes().to_vec(),
                vec![0; 4],
                1_025_u32.to_le_bytes().to_vec(),
                framed,
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50),
                noise(seed, 64 << 10),
            ] {
                assert_eq!(closed_after(port, &bytes), b"", "strangers are not answered");
                sent += 1;
            }
        }
        for bytes in
            [&b"*1000000000\r\n"[..], b"*1\r\n$-5\r\n", b"*1\r\n$99999999999\r\n", b"*x\r\n"]
        {
            let answer = closed_after(gateway.port, bytes);
            assert!(answer.starts_with(b"-ERR Protocol error"), "{}", answer.escape_ascii());
        }
    });
    until("everything is counted", || {
        let now = counted(&cluster, &["malformed", "handshakes_failed"]);
        if now >= before + sent { Ok(()) } else { Err(format!("{now} of {}", before + sent)) }
    });
}

#[test]
fn a_thousand_silent_connections_keep_nobody_out() {
    let wanted = if full() { 4_000 } else { 1_000 };
    let (cluster, gateway, group) = started();
    let mut ports = ports(&group);
    ports.push(gateway.port);
    undisturbed(&cluster, &gateway, || {
        let mut silent = Vec::new();
        for i in 0..wanted {
            let port = ports[i % ports.len()];
            let mut stream = connect(port);
            // Nothing at all, half a length, or half of what the length says.
            let half: &[u8] = match (port == gateway.port, i / ports.len() % 3) {
                (_, 0) => b"",
                (false, 1) => &[100, 0],
                (false, _) => &[100, 0, 0, 0, 1, 2, 3],
                (true, 1) => b"*2\r\n$3\r\nGE",
                (true, _) => b"SET half",
            };
            // The oldest strangers are dropped when there are too many.
            let _ = stream.write_all(half);
            silent.push(stream);
        }
        assert_eq!(Redis::connect(gateway.port).call("PING"), "+PONG");
        assert_eq!(silent.len(), wanted);
    });
}

/// A link to pillar 0 of replica 0 as client `id`, who knows its key.
///
/// Who has offended too often is not answered for a while.
fn link(group: &Group, id: u32) -> (TcpStream, Established, PacketReader) {
    for _ in 0..300 {
        if let Some(link) = try_link(group, id) {
            return link;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("principal {id} is refused for good");
}

fn try_link(group: &Group, id: u32) -> Option<(TcpStream, Established, PacketReader)> {
    let peer = Peer::Client(ClientId(id));
    let secret = group.load_secret(peer).expect("a key");
    let life = Incarnation(u64::from(id) + 1);
    let identity = LinkIdentity::new(&secret, peer, life, group.directory()).expect("own key");
    let (replica, pillar) = (ReplicaId(0), PillarId(0));
    let (call, first) =
        Initiator::start(&identity, group.directory(), replica, pillar, SessionId(7))
            .expect("a call");
    let mut stream = connect(group.replicas()[0].ports()[0]);
    stream.write_all(&first).expect("it is open");
    let mut reader = PacketReader::new(limits::HANDSHAKE_PACKET_BYTES_MAX);
    let established = loop {
        if let Some(body) = reader.packet().expect("a packet") {
            break call.finish(body).expect("a handshake");
        }
        let read = stream.read(reader.spare()).expect("an answer");
        if read == 0 {
            return None;
        }
        reader.filled(read);
    };
    reader.set_max(established.packet_bytes_max);
    Some((stream, established, reader))
}

#[test]
fn authenticated_nonsense_costs_its_connection_too() {
    let (cluster, gateway, group) = started();
    let before = counted(&cluster, &["malformed", "impostors"]);
    let payloads = [
        // What only replicas say to clients.
        [PacketKind::Reply.alone().to_vec(), vec![0; 40]].concat(),
        [PacketKind::Status.alone().to_vec(), b"{}".to_vec()].concat(),
        // A packet as between replicas: the wrong role.
        [vec![1, 0, 0, 0, 0, 1, 0, 0, 0], vec![0; 8], vec![3; 60]].concat(),
        // A request that is noise, one that ends early, and no kind of packet.
        [PacketKind::Request.alone().to_vec(), noise(5, 500)].concat(),
        PacketKind::Request.alone().to_vec(),
        vec![99; 10],
    ];
    let count = payloads.len() as u64;
    undisturbed(&cluster, &gateway, || {
        for payload in payloads {
            let (mut stream, mut established, _) = link(&group, 2);
            let mut out = Vec::new();
            established.sealer.seal(&payload, &mut out).expect("within the bounds");
            stream.write_all(&out).expect("it is open");
            let mut rest = Vec::new();
            let ended = stream.read_to_end(&mut rest).map_err(|error| error.kind());
            assert!(!matches!(ended, Err(ErrorKind::WouldBlock)), "{payload:?}: still open");
        }
        // Bytes that were changed on the way, and half a packet that never ends.
        let (mut stream, mut established, _) = link(&group, 2);
        let mut out = Vec::new();
        established.sealer.seal(&PacketKind::StatusQuery.alone(), &mut out).expect("short");
        *out.last_mut().expect("not empty") ^= 1;
        stream.write_all(&out).expect("it is open");
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).is_ok_and(|read| read == 0) || rest.is_empty());
        let (mut stream, ..) = link(&group, 2);
        stream.write_all(&[200, 0, 0, 0, 1]).expect("it is open");
    });
    let now = counted(&cluster, &["malformed", "impostors"]);
    assert!(now >= before + count, "{now} of {}", before + count);
    assert!(counted(&cluster, &["banned"]) > 0, "nobody was banned");
}

#[test]
fn a_member_of_another_group_is_not_let_in() {
    let (cluster, gateway, group) = started();
    let other = Cluster::found(SHAPE);
    let mut stranger = Group::load(&other.path()).expect("a group");
    for entry in group.replicas() {
        stranger.set_addresses(entry.id, entry.addresses.clone()).expect("the same shape");
    }
    let before = counted(&cluster, &["handshakes_failed", "malformed"]);
    undisturbed(&cluster, &gateway, || {
        let secret = stranger.load_secret(Peer::Replica(ReplicaId(3))).expect("a key");
        let me = Peer::Replica(ReplicaId(3));
        let directory = stranger.directory();
        let identity = LinkIdentity::new(&secret, me, Incarnation(1), directory).expect("own key");
        let (target, pillar) = (ReplicaId(0), PillarId(1));
        let (_, first) =
            Initiator::start(&identity, directory, target, pillar, SessionId(0)).expect("a call");
        let port = stranger.address(target, pillar).and_then(Address::port).expect("it has one");
        assert_eq!(closed_after(port, &first), b"");
    });
    assert!(counted(&cluster, &["handshakes_failed", "malformed"]) > before);
}
