//! The open ports of real processes' parts, over loopback: replica link, client port, gateway,
//! metrics port.
//!
//! Threads run between the inputs, so what an input comes to may differ from time to time; what
//! must hold does not: whoever listens goes on, within its memory, and an honest caller is served
//! after every few inputs. Inputs for the replica's port begin with a byte that says who calls:
//! a stranger, whose bytes go out as they are, or a member with genuine keys, whose packets are
//! sealed and contain whatever they like.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use auth::{Established, Initiator, LinkIdentity, PacketReader, Peer};
use base::limits::CLIENT_PACKET_BYTES_MAX;
use base::packet::PacketKind;
use base::{ClientId, Incarnation, PillarId, Reader, ReplicaId, SessionId};
use genesis::{InitOptions, LocalGroup};
use node::gateway::{self, GatewayStats, Local};
use node::http::{Answer, Ask, Server, Site};
use rt::{Replica, ReplicaOptions};
use svc::echo::EchoService;
use tokio::sync::watch;

use crate::decoders::base::{client_packet_seeds, header, peer_packet_seeds};
use crate::decoders::text::{as_resp, resp_seeds};
use crate::target::{Outcome, Run};

/// How long anything may take that is sure to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long an answer is waited for that need not come.
const PAUSE: Duration = Duration::from_millis(30);
/// Principals: whoever offends is shut out for a while, so each session is another one's.
const CLIENTS: u32 = 2_000;
/// After so many inputs an honest caller looks whether it is served.
pub(super) const HONEST_EVERY: u32 = 50;

/// Writes, ends writing, and reads what comes until the end: how many bytes, and the first ones.
pub(super) fn exchange(mut stream: TcpStream, bytes: &[u8]) -> (usize, Vec<u8>, bool) {
    // The other end may close before all is written.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    drained(&mut stream, PATIENCE)
}

/// The same, but for a server that takes the end of what is written for a hang-up: it gets a
/// moment to answer before.
fn asked(mut stream: TcpStream, bytes: &[u8]) -> (usize, Vec<u8>, bool) {
    let _ = stream.write_all(bytes);
    let (early, first, closed) = drained(&mut stream, PAUSE);
    if closed {
        return (early, first, closed);
    }
    let _ = stream.shutdown(Shutdown::Write);
    let (late, rest, closed) = drained(&mut stream, PATIENCE);
    (early + late, [first, rest].concat(), closed)
}

pub(super) fn drained(stream: &mut TcpStream, patience: Duration) -> (usize, Vec<u8>, bool) {
    stream.set_read_timeout(Some(patience)).expect("not zero");
    let (mut buffer, mut first, mut count) = ([0; 4096], vec![], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (count, first, true),
            Ok(read) => {
                first.extend(buffer[..read].iter().take(16usize.saturating_sub(count)));
                count += read;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                let late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                return (count, first, !late);
            }
        }
    }
}

pub(super) fn call(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).expect("the port is open");
    stream.set_nodelay(true).expect("a fresh socket");
    stream
}

/// One replica of a group of four; the others have no process, only keys.
struct Port {
    local: LocalGroup,
    replica: Replica,
    address: SocketAddr,
    calls: u32,
}

impl Port {
    fn open() -> Port {
        let options = InitOptions { clients: CLIENTS, port: 0, ..InitOptions::default() };
        let mut local = LocalGroup::generate(&options).expect("a legal group");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("is bound");
        let me = ReplicaId(0);
        for replica in local.group.quorums().replicas() {
            // Nobody listens on the discard port: the others are down.
            let port = if replica == me { address.port() } else { 9 };
            local.group.set_address(replica, "127.0.0.1", &[port]).expect("one pillar");
        }
        let secret = local.replicas[0].clone();
        let service = Box::new(EchoService::new());
        let mut options = ReplicaOptions::new(local.group.clone(), me, secret, service);
        options.fresh = true;
        options.listeners = Some(vec![listener.into()]);
        options.cores.threads = Some(1);
        let replica = Replica::start(options).expect("a free port and a thread");
        Port { local, replica, address, calls: 0 }
    }

    /// A link of a member; `None` when the replica does not want it, as after an offence.
    fn link(&mut self, me: Peer) -> Option<(TcpStream, Established)> {
        self.calls += 1;
        let secret = self.local.secret(me).expect("a member");
        let directory = self.local.group.directory();
        let life = Incarnation(u64::from(self.calls));
        let identity = LinkIdentity::new(secret, me, life, directory).expect("its own keys");
        let session = SessionId(u64::from(self.calls));
        let to = (ReplicaId(0), PillarId(0));
        let (initiator, first) =
            Initiator::start(&identity, directory, to.0, to.1, session).expect("a member");
        let mut stream = call(self.address);
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.write_all(&first).ok()?;
        let mut head = [0; 4];
        stream.read_exact(&mut head).ok()?;
        let mut body = vec![0; u32::from_le_bytes(head) as usize];
        stream.read_exact(&mut body).ok()?;
        Some((stream, initiator.finish(&body).expect("the replica is genuine")))
    }

    /// A client asks how the replica is, and is told.
    fn honest(&mut self) {
        let who = ClientId(self.calls % (CLIENTS / 2) + CLIENTS / 2);
        let (mut stream, mut link) = self.link(Peer::Client(who)).expect("is welcome");
        let mut out = vec![];
        link.sealer.seal(&PacketKind::StatusQuery.alone(), &mut out).expect("is small");
        stream.write_all(&out).expect("is read");
        let mut reader = PacketReader::new(CLIENT_PACKET_BYTES_MAX);
        loop {
            if let Some(packet) = reader.packet().expect("a genuine packet") {
                let payload = link.opener.open(packet).expect("is the next one");
                let (kind, _) = PacketKind::split(payload).expect("a packet");
                if kind == PacketKind::Status {
                    return;
                }
            }
            let room = reader.spare();
            let read = stream.read(room).expect("an answer comes");
            assert!(read > 0, "an honest client is hung up on");
            reader.filled(read);
        }
    }

    fn check(&mut self) {
        assert!(self.replica.is_alive(), "the replica ended: {:?}", self.replica.failure());
        if self.calls.is_multiple_of(HONEST_EVERY) {
            self.honest();
        }
    }

    /// Sealed packets of a member, cut from `bytes` by their lengths.
    fn sealed(&mut self, me: Peer, bytes: &[u8]) -> Outcome {
        let Some((mut stream, mut link)) = self.link(me) else { return Outcome::of("not wanted") };
        let (mut out, mut r, mut packets) = (vec![], Reader::new(bytes), 0);
        while let Ok(len) = r.u16("length") {
            let len = usize::from(len).min(r.rest().len());
            let payload = r.bytes(len, "packet").expect("is there");
            link.sealer.seal(payload, &mut out).expect("is small");
            packets += 1;
        }
        let _ = stream.write_all(&out);
        // What is waited for is whether the replica hangs up at once.
        let (_, _, closed) = drained(&mut stream, PAUSE);
        Outcome::of((std::mem::discriminant(&me), packets.min(3), closed))
    }
}

/// Bytes, and sealed packets, for a replica's port.
pub fn replica() -> Run {
    let mut port = Port::open();
    Box::new(move |bytes| {
        port.calls += 1;
        let outcome = match bytes.split_first() {
            None => Outcome::of("empty"),
            Some((who, rest)) => match who % 3 {
                0 => {
                    let (count, _, closed) = exchange(call(port.address), rest);
                    assert!(closed && count == 0, "a stranger is answered with {count} bytes");
                    Outcome::of("stranger")
                }
                1 => port.sealed(Peer::Replica(ReplicaId(3)), rest),
                _ => {
                    let principal = ClientId(port.calls % (CLIENTS / 2));
                    port.sealed(Peer::Client(principal), rest)
                }
            },
        };
        port.check();
        outcome
    })
}

fn cut(who: u8, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![who];
    for packet in packets {
        let len = u16::try_from(packet.len()).expect("samples are small");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(packet);
    }
    out
}

/// A stranger's packets, a replica's and a client's.
#[must_use]
pub fn replica_seeds() -> Vec<Vec<u8>> {
    let stranger = [&[0u8, 164, 0, 0, 0][..], &[7; 164]].concat();
    let mut all = vec![stranger, cut(1, &[header()]), cut(2, &client_packet_seeds())];
    all.extend(peer_packet_seeds().into_iter().map(|packet| cut(1, &[packet])));
    all.extend(client_packet_seeds().into_iter().map(|packet| cut(2, &[packet])));
    all
}

/// Bytes for the gateway's port.
pub fn gateway() -> Run {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("is bound");
    listener.set_nonblocking(true).expect("a fresh socket");
    let (stop, stopped) = watch::channel(false);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("in a runtime");
            let stats = Arc::new(GatewayStats::default());
            let served =
                gateway::serve(listener, Local::new(), gateway::Config::default(), stats, stopped);
            served.await.expect("goes on");
        });
    });
    let mut calls = 0u32;
    Box::new(move |bytes| {
        // The sender lives as long as the target: the gateway ends with it.
        let _ = &stop;
        calls += 1;
        let (count, first, closed) = exchange(call(address), bytes);
        assert!(closed, "the gateway keeps a connection whose requests are all answered");
        if calls.is_multiple_of(HONEST_EVERY) {
            let ping = [as_resp("FLUSHALL"), as_resp("PING")].concat();
            let (_, answer, _) = exchange(call(address), &ping);
            assert_eq!(answer, b"+OK\r\n+PONG\r\n", "an honest client is served");
        }
        let kind: Vec<u8> = first.into_iter().take(8).collect();
        Outcome::of((count.checked_ilog2(), kind))
    })
}

/// Pipelines and inline commands.
#[must_use]
pub fn gateway_seeds() -> Vec<Vec<u8>> {
    let connection = ["HELLO 3", "CLIENT LIST", "MULTI", "SET a 1", "EXEC", "WATCH a", "QUIT"];
    let connection: Vec<u8> = connection.iter().flat_map(|line| as_resp(line)).collect();
    resp_seeds().into_iter().map(|seed| seed[1..].to_vec()).chain([connection]).collect()
}

/// What a metrics port may say.
struct Pages;

impl Site for Pages {
    fn answer(&self, ask: Ask, path: &str) -> Option<Answer> {
        match (ask, path) {
            (_, "/health") => Some(Answer::text(200, "well")),
            (Ask::Get, "/metrics") => Some(Answer::metrics("# EOF\n".to_owned())),
            (Ask::Post, "/checkpoint") => Some(Answer::text(200, "done")),
            (Ask::Get, "/checkpoint") => Some(Answer::wrong_method()),
            _ => None,
        }
    }
}

/// Bytes for the metrics port.
pub fn http() -> Run {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = Server::start(listener, Arc::new(Pages)).expect("a thread");
    let mut calls = 0u32;
    Box::new(move |bytes| {
        calls += 1;
        let (count, first, closed) = asked(call(server.address()), bytes);
        assert!(closed, "a connection outlives its request");
        assert!(count == 0 || first.starts_with(b"HTTP/1."), "{first:?}");
        if calls.is_multiple_of(HONEST_EVERY) {
            let ask = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n";
            let mut stream = call(server.address());
            stream.write_all(ask).expect("is read");
            let (_, answer, _) = drained(&mut stream, PATIENCE);
            assert!(answer.starts_with(b"HTTP/1.1 200"), "an honest caller is served");
        }
        Outcome::of((count.checked_ilog2(), first.get(9..12).map(<[u8]>::to_vec)))
    })
}

/// Requests.
#[must_use]
pub fn http_seeds() -> Vec<Vec<u8>> {
    [
        "GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
        "POST /checkpoint HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        "POST /checkpoint HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "POST /checkpoint HTTP/1.1\r\nHost: h\r\nOrigin: http://x\r\n\r\n",
        "HEAD /nothing HTTP/1.1\r\nHost: h\r\nSec-Fetch-Site: none\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}
