//! A group that is none: replicas that speak the client's protocol and share one state machine
//! without agreeing on anything. For tests of the driver alone.

#![expect(clippy::unwrap_used, reason = "a test support module: its panics are test failures")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use auth::{Established, LinkIdentity, PacketReader, Peer, Responder};
use base::packet::PacketKind;
use base::reply::ReplyPacket;
use base::{
    ClientId, Frame, FrameId, FrameKind, GroupId, Incarnation, PillarId, Reader, ReplicaId, Reply,
    ReplyStatus, Seq, View, Writer,
};
use client::ClientOptions;
use genesis::{Group, LocalGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The shared state machine: echoes operations, and refuses what is out of order.
#[derive(Default)]
struct Machine {
    open: BTreeSet<u64>,
    expected: BTreeMap<(u64, u32), u64>,
    replies: BTreeMap<FrameId, Vec<u8>>,
    ops: Vec<Vec<u8>>,
}

impl Machine {
    fn execute(&mut self, frame: &Frame) -> Vec<u8> {
        let id = frame.id();
        if let Some(reply) = self.replies.get(&id) {
            return reply.clone();
        }
        let (status, results, count) = match frame.kind() {
            FrameKind::Open => {
                self.open.insert(id.session.0);
                (ReplyStatus::Opened, vec![], 0)
            }
            FrameKind::Close => {
                self.open.remove(&id.session.0);
                (ReplyStatus::Closed, vec![], 0)
            }
            FrameKind::Request => self.request(frame),
            FrameKind::Read => (ReplyStatus::Unread, vec![], 0),
        };
        // The same for all who ask, as if it had been agreed upon.
        let seq = match status {
            ReplyStatus::OutOfOrder(expected) => Seq(expected),
            _ => Seq(id.id.saturating_add(1)),
        };
        let reply = Reply { frame: id, seq, status, count, results };
        let mut content = vec![];
        reply.encode(&mut content);
        if status == ReplyStatus::Executed {
            self.replies.insert(id, content.clone());
        }
        let ack = FrameId { id: frame.ack(), ..id };
        while let Some((old, _)) = self.replies.range(..=ack).next_back()
            && (old.session, old.stream) == (id.session, id.stream)
        {
            let old = *old;
            self.replies.remove(&old);
        }
        content
    }

    fn request(&mut self, frame: &Frame) -> (ReplyStatus, Vec<u8>, u32) {
        let id = frame.id();
        if !self.open.contains(&id.session.0) {
            return (ReplyStatus::NoSession, vec![], 0);
        }
        let expected = self.expected.entry((id.session.0, id.stream)).or_insert(1);
        if id.id < *expected {
            return (ReplyStatus::ReplyGone, vec![], 0);
        }
        if id.id > *expected {
            return (ReplyStatus::OutOfOrder(*expected), vec![], 0);
        }
        *expected += 1;
        let mut results = vec![];
        for op in frame.ops() {
            Writer::new(&mut results).sized(op);
            if self.ops.len() < 100_000 {
                self.ops.push(op.to_vec());
            }
        }
        (ReplyStatus::Executed, results, u32::try_from(frame.op_count()).unwrap())
    }
}

/// The replicas that are up. Dropping it stops them.
pub struct FakeGroup {
    pub local: LocalGroup,
    machine: Arc<Mutex<Machine>>,
    replicas: Vec<Vec<JoinHandle<()>>>,
}

impl FakeGroup {
    pub async fn start(n: u16, f: u16, pillars: u16) -> FakeGroup {
        let mut local = Group::for_test(n, f, pillars, "echo").unwrap();
        let machine = Arc::new(Mutex::new(Machine::default()));
        let mut sockets = vec![];
        for r in 0..n {
            let mut own = vec![];
            for _ in 0..pillars {
                own.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
            }
            let ports: Vec<u16> = own.iter().map(|s| s.local_addr().unwrap().port()).collect();
            local.group.set_address(ReplicaId(r), "127.0.0.1", &ports).unwrap();
            sockets.push(own);
        }
        let mut group = FakeGroup { local, machine, replicas: vec![] };
        for (r, own) in (0..n).zip(sockets) {
            let tasks = (0..pillars).zip(own).map(|(p, s)| group.serve(r, p, s)).collect();
            group.replicas.push(tasks);
        }
        group
    }

    pub fn options(&self) -> ClientOptions {
        let secret = self.local.clients[0].clone();
        ClientOptions::new(self.local.group.clone(), ClientId(0), secret)
    }

    pub fn executed(&self) -> Vec<Vec<u8>> {
        self.machine.lock().unwrap().ops.clone()
    }

    /// The group forgets all sessions.
    pub fn evict(&self) {
        self.machine.lock().unwrap().open.clear();
    }

    /// Stops a replica: its listening sockets and its connections are closed.
    pub async fn stop(&mut self, replica: usize) {
        for task in self.replicas[replica].drain(..) {
            task.abort();
            let _ = task.await;
        }
    }

    /// Starts a stopped replica at its old address.
    pub async fn restart(&mut self, replica: usize) {
        let id = u16::try_from(replica).unwrap();
        for p in 0..self.local.group.pillars() {
            let address = self.local.group.address(ReplicaId(id), PillarId(p)).unwrap();
            let socket = TcpListener::bind(address.host_and_port().unwrap()).await.unwrap();
            let task = self.serve(id, p, socket);
            self.replicas[replica].push(task);
        }
    }

    fn serve(&self, replica: u16, pillar: u16, socket: TcpListener) -> JoinHandle<()> {
        let group = self.local.group.clone();
        let me = Peer::Replica(ReplicaId(replica));
        let secret = self.local.secret(me).unwrap();
        let identity = LinkIdentity::new(secret, me, Incarnation(1), group.directory()).unwrap();
        let machine = Arc::clone(&self.machine);
        tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = socket.accept().await {
                stream.set_nodelay(true).unwrap();
                let connection = Connection {
                    identity: identity.clone(),
                    group: group.clone(),
                    machine: Arc::clone(&machine),
                    name: format!("replica {replica} pillar {pillar}"),
                };
                connections.spawn(connection.run(stream));
            }
        })
    }
}

impl Drop for FakeGroup {
    fn drop(&mut self) {
        self.replicas.iter().flatten().for_each(JoinHandle::abort);
    }
}

struct Connection {
    identity: LinkIdentity,
    group: Group,
    machine: Arc<Mutex<Machine>>,
    name: String,
}

impl Connection {
    async fn run(self, mut stream: TcpStream) -> Option<()> {
        let mut reader = PacketReader::new(base::limits::HANDSHAKE_PACKET_BYTES_MAX);
        let mut link: Option<Established> = None;
        let id = self.group.id();
        loop {
            let (mut out, mut asked) = (vec![], false);
            while let Some(body) = reader.packet().ok()? {
                let Some(link) = &mut link else {
                    let directory = self.group.directory();
                    let (new, answer) = Responder::accept(&self.identity, directory, body).ok()?;
                    out.extend_from_slice(&answer);
                    reader.set_max(new.packet_bytes_max);
                    link = Some(new);
                    continue;
                };
                let payload = link.opener.open(body).ok()?;
                if payload.is_empty() {
                    continue;
                }
                // One answer for all who ask at a time, as replicas do.
                if matches!(PacketKind::split(payload), Ok((PacketKind::StatusQuery, _))) {
                    asked = true;
                    continue;
                }
                let answer = self.answer(id, payload)?;
                link.sealer.seal(&answer, &mut out).ok()?;
            }
            if let Some(link) = link.as_mut().filter(|_| asked) {
                let mut status = PacketKind::Status.alone().to_vec();
                status.extend_from_slice(self.name.as_bytes());
                link.sealer.seal(&status, &mut out).ok()?;
            }
            stream.write_all(&out).await.ok()?;
            let read = stream.read(reader.spare()).await.ok()?;
            if read == 0 {
                return None;
            }
            reader.filled(read);
        }
    }

    fn answer(&self, group: GroupId, payload: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![];
        match PacketKind::split(payload).ok()? {
            (PacketKind::Request, body) => {
                PacketKind::Reply.begin(&mut out);
                let mut r = Reader::new(body);
                while !r.is_empty() {
                    let frame = Frame::decode(group, &mut r).ok()?;
                    let content = self.machine.lock().unwrap().execute(&frame);
                    ReplyPacket::whole(View(0), &content).encode(&mut out);
                }
            }
            _ => return None,
        }
        Some(out)
    }
}
