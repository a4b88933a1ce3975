//! A whole group in one process over loopback TCP, and a client that blocks.

#![allow(dead_code)]

pub mod attack;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use auth::{ClientKeys, Established, Initiator, LinkIdentity, PacketReader, Peer, Secret};
use base::crypto::ClientKeyring;
use base::packet::PacketKind;
use base::reply::{ReplyBody, ReplyPacket, reply_digest};
use base::{
    ClientId, Digest, Frame, FrameBuilder, FrameId, Incarnation, Malformed, PillarId, Reader,
    ReplicaId, Reply, ReplyStatus, SessionId,
};
use exec::{Completion, Context, Service};
use genesis::{Address, Group, InitOptions, LocalGroup};
use rt::{Durability, Listener, Replica, ReplicaOptions, ReplicaReport, StartError, Storage};
use shm::Channel;

/// Long enough for a busy machine; nothing is asserted about it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers with the operation and a running number, and keeps a checksum of everything.
#[derive(Default)]
pub struct Tally {
    count: u64,
    sum: [u8; 32],
}

impl Service for Tally {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        ctx.modify(0, |out| self.get(0, out));
        self.count += 1;
        for (sum, byte) in self.sum.iter_mut().zip(op.iter().cycle()) {
            *sum = sum.rotate_left(3) ^ byte;
        }
        reply.extend_from_slice(&self.count.to_le_bytes());
        reply.extend_from_slice(op);
        Completion::Done
    }

    fn get(&self, _: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.sum);
    }

    fn put(&mut self, _: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let mut r = Reader::new(bytes);
        self.count = r.u64("count")?;
        self.sum = r.array("sum")?;
        r.finish("state")
    }
}

/// n replicas with P pillars, small checkpoints, two clients.
pub fn options(n: u16, pillars: u16) -> InitOptions {
    let mut options = InitOptions {
        name: "test".into(),
        service: "tally".into(),
        replicas: n,
        faults: Some((n - 1) / 3),
        pillars,
        clients: 2,
        port: 0,
        ..InitOptions::default()
    };
    options.settings.checkpoint_interval = 8;
    // So wide that no replica falls out of the others' logs while a busy machine holds it up:
    // there is no transfer of state yet.
    options.settings.window = 1024;
    // However fast the frames come, there are several checkpoints' worth of batches.
    options.settings.batching.frames_max = 4;
    options
}

/// Where the replicas of a cluster keep their state.
pub struct Disk {
    pub durability: Durability,
    pub root: tempfile::TempDir,
    /// One per replica, or none: then it is the file system.
    pub storages: Vec<std::sync::Arc<dyn Storage>>,
    pub growth_bytes: u64,
}

impl Disk {
    pub fn new(durability: Durability) -> Disk {
        let root = tempfile::tempdir().expect("a directory");
        Disk { durability, root, storages: vec![], growth_bytes: 64 << 20 }
    }

    pub fn dir(&self, id: u16) -> std::path::PathBuf {
        self.root.path().join(format!("replica-{id}"))
    }
}

/// A group on loopback. `None` where a replica is down.
pub struct Cluster {
    pub group: Group,
    pub replicas: Vec<Option<Replica>>,
    /// For replicas that start from now on.
    pub client_backlog_max: usize,
    /// Where replicas that start from now on keep their state.
    pub disk: Option<Disk>,
    /// What replicas that start from now on begin with.
    pub seed: Option<std::path::PathBuf>,
    /// Who misbehaves from its next start on, and how.
    pub drills: BTreeMap<u16, rt::Drill>,
    /// Whether replicas that start from now on are task-oriented pipelines.
    pub pipelines: bool,
    /// Whether each replica was started before.
    pub started: Vec<bool>,
    sockets: Vec<Option<Vec<Listener>>>,
    /// Of the sockets that are files.
    _files: tempfile::TempDir,
    secrets: Vec<Secret>,
    clients: Vec<Secret>,
    threads: usize,
}

impl Cluster {
    /// n replicas with P pillars on T threads each; those in `down` do not start.
    pub fn start(n: u16, pillars: u16, threads: usize, down: &[u16]) -> Cluster {
        let mut cluster = Cluster::prepare(&options(n, pillars), threads);
        cluster.start_all(down);
        cluster
    }

    /// A group with its ports, of which nothing runs yet.
    pub fn prepare(options: &InitOptions, threads: usize) -> Cluster {
        let mut local = LocalGroup::generate(options).expect("a legal group");
        let mut sockets = vec![];
        let files = tempfile::tempdir().expect("a directory");
        for id in 0..options.replicas {
            let bound = (0..options.pillars).map(|pillar| listen(files.path(), (id, pillar)));
            let (addresses, listeners) = bound.unzip();
            local.group.set_addresses(ReplicaId(id), addresses).expect("a replica");
            sockets.push(Some(listeners));
        }
        Cluster {
            group: local.group,
            replicas: (0..options.replicas).map(|_| None).collect(),
            client_backlog_max: 64 << 20,
            disk: None,
            seed: None,
            drills: BTreeMap::new(),
            // The same tests for both: see `pipeline.rs`.
            pipelines: env!("CARGO_CRATE_NAME") == "pipeline" && options.pillars == 1,
            started: vec![false; usize::from(options.replicas)],
            secrets: local.replicas,
            clients: local.clients,
            threads,
            sockets,
            _files: files,
        }
    }

    /// The listening sockets, for those who start replicas one by one.
    pub fn take_sockets(&mut self) -> Vec<Option<Vec<Listener>>> {
        std::mem::take(&mut self.sockets)
    }

    /// Starts all replicas but those in `down`, whose ports are closed.
    pub fn start_all(&mut self, down: &[u16]) {
        for (id, listeners) in (0..).zip(std::mem::take(&mut self.sockets)) {
            if !down.contains(&id) {
                self.start_one(id, listeners);
            }
        }
    }

    pub fn start_one(&mut self, id: u16, listeners: Option<Vec<Listener>>) {
        let replica = self.try_start(id, listeners).expect("a replica starts");
        self.started[usize::from(id)] = true;
        self.replicas[usize::from(id)] = Some(replica);
    }

    pub fn try_start(
        &self,
        id: u16,
        listeners: Option<Vec<Listener>>,
    ) -> Result<Replica, StartError> {
        let secret = self.secrets[usize::from(id)].clone();
        let service = Box::new(Tally::default());
        let mut options = ReplicaOptions::new(self.group.clone(), ReplicaId(id), secret, service);
        let cores = &mut options.cores;
        (cores.threads, cores.parallelization) = match self.pipelines {
            true => (None, rt::Parallelization::Top),
            false => (Some(self.threads), rt::Parallelization::Cop),
        };
        options.listeners = listeners;
        options.limits.strangers_max = 64;
        options.limits.client_backlog_max = self.client_backlog_max;
        options.seed = self.seed.clone();
        options.drill = self.drills.get(&id).copied();
        options.fresh = !self.started[usize::from(id)];
        if let Some(disk) = &self.disk {
            options.durability = disk.durability;
            options.state_dir = Some(disk.dir(id));
            options.log.growth_bytes = disk.growth_bytes;
            options.log.layout.segment_bytes = disk.growth_bytes / 4;
            if let Some(storage) = disk.storages.get(usize::from(id)) {
                options.storage = storage.clone();
            }
        }
        Replica::start(options)
    }

    pub fn stop_one(&mut self, id: u16) {
        self.replicas[usize::from(id)].take().expect("it runs").stop();
    }

    /// Ends one as if its process were killed.
    pub fn kill_one(&mut self, id: u16) {
        drop(self.replicas[usize::from(id)].take().expect("it runs"));
    }

    /// Waits until all running replicas take part and have executed the same.
    pub fn agree(&self) {
        let honest = |r: &&ReplicaReport| !self.drills.contains_key(&r.id);
        self.wait("agreement after trouble", |reports| {
            let first = reports.iter().find(honest).expect("somebody");
            reports.iter().filter(honest).all(|r| {
                r.state == rt::ReplicaState::Running
                    && r.executed == first.executed
                    && r.checkpoint.stable_digest == first.checkpoint.stable_digest
            })
        });
    }

    pub fn reports(&self) -> Vec<ReplicaReport> {
        self.replicas.iter().flatten().map(Replica::report).collect()
    }

    /// Waits until `done` says so about the running replicas.
    pub fn wait(&self, what: &str, mut done: impl FnMut(&[ReplicaReport]) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let reports = self.reports();
            if done(&reports) {
                return;
            }
            assert!(Instant::now() < until, "{what} does not come: {reports:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until `done` says so about every running replica. What a thread counted shows up to
    /// a tenth of a second later, so whoever looks for it right after [`Cluster::settle`], which
    /// another thread's report can satisfy, waits for it here.
    pub fn wait_for_each(&self, what: &str, mut done: impl FnMut(&ReplicaReport) -> bool) {
        self.wait(what, |reports| reports.iter().all(&mut done));
    }

    /// Waits until all running replicas have executed `ops` operations and agree on everything.
    pub fn settle(&self, ops: u64) {
        self.wait("agreement", |reports| {
            let first = &reports[0];
            reports.iter().all(|r| {
                let same = (r.executed, &r.checkpoint.last_digest, &r.checkpoint.stable_digest);
                let digests = &first.checkpoint;
                same == (first.executed, &digests.last_digest, &digests.stable_digest)
                    && r.ops == ops
            })
        });
    }

    /// Links of a replica that does not run, for whoever plays it.
    pub fn replica(&self, id: u16, incarnation: Incarnation) -> LinkIdentity {
        let (secret, me) = (&self.secrets[usize::from(id)], Peer::Replica(ReplicaId(id)));
        LinkIdentity::new(secret, me, incarnation, self.group.directory()).expect("a member")
    }

    pub fn client(&self, id: u32, session: u64) -> Client<'_> {
        Client::new(self, ClientId(id), SessionId(session))
    }
}

/// Listens for a pillar of a replica, over what the crate of tests is about.
fn listen(files: &std::path::Path, (id, pillar): (u16, u16)) -> (Address, Listener) {
    let file = files.join(format!("{id}-{pillar}.sock"));
    let address = match env!("CARGO_CRATE_NAME") {
        "unix" => Some(Address::Unix(file)),
        "memory" => Some(Address::Shm(file)),
        _ => None,
    };
    if let Some(address) = address {
        let listener = Listener::bind(&address).expect("a socket");
        return (address, listener);
    }
    let host = own_loopback();
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (Address::tcp(&host.to_string(), port), listener.into())
}

/// A loopback address of this process alone. Connections leave from 127.0.0.1 by any port that is
/// free there, so the port of a replica that is down for a moment would soon be somebody's; it is
/// nobody's on this address.
fn own_loopback() -> Ipv4Addr {
    let [_, b, c, d] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, b | 128, c, d)
}

/// A connection.
pub enum Pipe {
    Tcp(TcpStream),
    Unix(UnixStream),
    Shm(UnixStream, Channel),
}

impl Pipe {
    pub fn connect(address: &Address) -> std::io::Result<Pipe> {
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Pipe::Tcp(stream))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Pipe::Unix(stream))
            }
            Address::Shm(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let (region, file) = shm::Region::create().expect("memory");
                shm::offer(&stream, &file)?;
                Ok(Pipe::Shm(stream, Channel::dialler(region)))
            }
        }
    }

    pub fn set_nonblocking(&self, yes: bool) -> std::io::Result<()> {
        match self {
            Pipe::Tcp(stream) => stream.set_nonblocking(yes),
            Pipe::Unix(stream) | Pipe::Shm(stream, _) => stream.set_nonblocking(yes),
        }
    }

    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        match self {
            Pipe::Tcp(stream) => stream.set_write_timeout(timeout),
            // Over shared memory a writer waits for bells, too.
            Pipe::Shm(stream, _) => stream.set_read_timeout(timeout),
            Pipe::Unix(stream) => stream.set_write_timeout(timeout),
        }
    }

    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        match self {
            Pipe::Tcp(stream) => stream.set_read_timeout(timeout),
            Pipe::Unix(stream) | Pipe::Shm(stream, _) => stream.set_read_timeout(timeout),
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Pipe::Tcp(stream) => stream.read(bytes),
            Pipe::Unix(stream) => stream.read(bytes),
            Pipe::Shm(stream, channel) => loop {
                let moved = channel.read(bytes).map_err(std::io::Error::other)?;
                if moved.bytes > 0 {
                    if moved.bell {
                        stream.write_all(&[0])?;
                    }
                    return Ok(moved.bytes);
                }
                if channel.doze().map_err(std::io::Error::other)?
                    && stream.read(&mut [0; 64])? == 0
                    && channel.is_empty()
                {
                    return Ok(0);
                }
            },
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Pipe::Tcp(stream) => stream.write(bytes),
            Pipe::Unix(stream) => stream.write(bytes),
            Pipe::Shm(stream, channel) => loop {
                let moved = channel.write(bytes).map_err(std::io::Error::other)?;
                if moved.bytes > 0 {
                    if moved.bell {
                        stream.write_all(&[0])?;
                    }
                    return Ok(moved.bytes);
                }
                if channel.await_room().map_err(std::io::Error::other)?
                    && stream.read(&mut [0; 64])? == 0
                {
                    return Err(std::io::ErrorKind::BrokenPipe.into());
                }
            },
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One sealed link of a client to one pillar of one replica.
pub struct Wire {
    stream: Pipe,
    reader: PacketReader,
    link: Established,
}

impl Wire {
    /// A client's link, which proves to live.
    pub fn connect(
        group: &Group,
        identity: &LinkIdentity,
        to: (ReplicaId, PillarId),
        session: SessionId,
    ) -> Option<Wire> {
        let mut wire = Wire::dial(group, identity, to, session)?;
        wire.send(&[])?;
        Some(wire)
    }

    /// A link of anybody, on which nothing is sent yet.
    pub fn dial(
        group: &Group,
        identity: &LinkIdentity,
        to: (ReplicaId, PillarId),
        session: SessionId,
    ) -> Option<Wire> {
        let address = group.address(to.0, to.1).expect("in the group");
        let mut stream = Pipe::connect(address).ok()?;
        let (initiator, hello) =
            Initiator::start(identity, group.directory(), to.0, to.1, session).expect("legal");
        stream.write_all(&hello).ok()?;
        let mut reader = PacketReader::new(base::limits::HANDSHAKE_PACKET_BYTES_MAX);
        let link = loop {
            if let Some(body) = reader.packet().expect("a length") {
                break initiator.finish(body).expect("an answer");
            }
            let n = stream.read(reader.spare()).ok().filter(|n| *n > 0)?;
            reader.filled(n);
        };
        reader.set_max(link.packet_bytes_max);
        Some(Wire { stream, reader, link })
    }

    pub fn send(&mut self, payload: &[u8]) -> Option<()> {
        let mut out = vec![];
        self.link.sealer.seal(payload, &mut out).expect("it fits");
        self.stream.write_all(&out).ok()
    }

    /// Sends a packet of frames.
    pub fn frames<'f>(&mut self, frames: impl IntoIterator<Item = &'f Frame>) -> Option<()> {
        let mut payload = PacketKind::Request.alone().to_vec();
        frames.into_iter().for_each(|frame| frame.encode(&mut payload));
        self.send(&payload)
    }

    /// Sends many packets in one go.
    pub fn send_all(&mut self, payload: &[u8], count: usize) -> Option<()> {
        let mut out = vec![];
        (0..count).for_each(|_| self.link.sealer.seal(payload, &mut out).expect("it fits"));
        self.stream.write_all(&out).ok()
    }

    /// The next packet; `None` when the connection ends, or when `nonblocking` and there is none.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(body) = self.reader.packet().expect("a length") {
                return Some(self.link.opener.open(body).expect("a seal").to_vec());
            }
            let n = self.stream.read(self.reader.spare()).ok().filter(|n| *n > 0)?;
            self.reader.filled(n);
        }
    }

    pub fn raw(&mut self) -> &mut Pipe {
        &mut self.stream
    }

    pub fn set_nonblocking(&self, yes: bool) {
        self.stream.set_nonblocking(yes).expect("a socket");
    }
}

/// A client that sends frames to all replicas and takes what f+1 of them say.
pub struct Client<'a> {
    cluster: &'a Cluster,
    pub identity: LinkIdentity,
    keys: ClientKeys,
    me: ClientId,
    session: SessionId,
    wires: BTreeMap<(u16, u16), Wire>,
    votes: BTreeMap<FrameId, BTreeMap<u16, Digest>>,
    done: BTreeMap<FrameId, Reply>,
    sent: BTreeMap<FrameId, (u16, Frame)>,
    next: BTreeMap<u32, u64>,
    /// A replica to which this client sends nothing.
    pub skip: Option<u16>,
    pub goodbyes: usize,
}

impl<'a> Client<'a> {
    fn new(cluster: &'a Cluster, me: ClientId, session: SessionId) -> Client<'a> {
        let secret = &cluster.clients[me.0 as usize];
        let directory = cluster.group.directory();
        let incarnation = Incarnation(session.0);
        Client {
            identity: LinkIdentity::new(secret, Peer::Client(me), incarnation, directory)
                .expect("a member"),
            keys: ClientKeys::new(secret, me, directory).expect("a member"),
            cluster,
            me,
            session,
            wires: BTreeMap::new(),
            votes: BTreeMap::new(),
            done: BTreeMap::new(),
            sent: BTreeMap::new(),
            next: BTreeMap::new(),
            skip: None,
            goodbyes: 0,
        }
    }

    /// Opens the session and waits for it.
    pub fn open(mut self) -> Client<'a> {
        let frame = base::FrameBuilder::open(self.cluster.group.id(), self.me, self.session, |d| {
            self.keys.authenticate(d)
        });
        let id = self.dispatch(0, frame);
        assert_eq!(self.await_reply(id).status, ReplyStatus::Opened);
        self
    }

    /// Sends a frame of `ops` through `pillar`, in a stream of its own per pillar.
    pub fn send(&mut self, pillar: u16, ops: &[&[u8]]) -> FrameId {
        let stream = u32::from(pillar) + 1;
        let next = self.next.entry(stream).or_insert(0);
        *next += 1;
        let id = FrameId { client: self.me, session: self.session, stream, id: *next };
        let mut builder = FrameBuilder::new();
        ops.iter().for_each(|op| builder.push(op));
        let group = self.cluster.group.id();
        let ack = self.acked(stream);
        let frame = builder.request(group, id, ack, |d| self.keys.authenticate(d));
        self.dispatch(pillar, frame)
    }

    /// Sends `count` frames of one operation each, in one packet per replica, through pillar 0,
    /// once; nothing waits for the replies.
    pub fn send_packet(&mut self, count: u64) {
        let group = self.cluster.group.id();
        let mut payload = PacketKind::Request.alone().to_vec();
        for at in 0..count {
            let window = base::limits::STREAM_WINDOW;
            let stream = base::frame::UNORDERED | u32::try_from(at / window).expect("few");
            let (client, session, id) = (self.me, self.session, at % window + 1);
            let id = FrameId { client, session, stream, id };
            let mut builder = FrameBuilder::new();
            builder.push(b"op");
            let frame = builder.request(group, id, 0, |d| self.keys.authenticate(d));
            frame.encode(&mut payload);
        }
        for wire in self.wires.iter_mut().filter(|((_, pillar), _)| *pillar == 0) {
            wire.1.send(&payload).expect("a link");
        }
    }

    fn acked(&self, stream: u32) -> u64 {
        let open = self.sent.keys().filter(|id| id.stream == stream).map(|id| id.id).min();
        open.map_or(self.next[&stream] - 1, |id| id - 1)
    }

    fn dispatch(&mut self, pillar: u16, frame: Frame) -> FrameId {
        let id = frame.id();
        self.transmit(pillar, &frame);
        self.sent.insert(id, (pillar, frame));
        id
    }

    fn transmit(&mut self, pillar: u16, frame: &Frame) {
        let mut payload = PacketKind::Request.alone().to_vec();
        frame.encode(&mut payload);
        let skip = self.skip;
        for replica in self.cluster.group.quorums().replicas().map(|r| r.0) {
            if Some(replica) != skip
                && self.wire(replica, pillar).is_some_and(|wire| wire.send(&payload).is_none())
            {
                self.wires.remove(&(replica, pillar));
            }
        }
    }

    fn wire(&mut self, replica: u16, pillar: u16) -> Option<&mut Wire> {
        let key = (replica, pillar);
        if !self.wires.contains_key(&key) {
            let to = (ReplicaId(replica), PillarId(pillar));
            let wire = Wire::connect(&self.cluster.group, &self.identity, to, self.session)?;
            wire.set_nonblocking(false);
            self.wires.insert(key, wire);
        }
        self.wires.get_mut(&key)
    }

    /// A link of its own to one pillar of one replica; `None` when it is refused.
    pub fn link(&self, replica: u16, pillar: u16) -> Option<Wire> {
        let to = (ReplicaId(replica), PillarId(pillar));
        Wire::connect(&self.cluster.group, &self.identity, to, self.session)
    }

    /// A frame of this client in a stream without order that it does not use itself.
    pub fn frame(&self, id: u64) -> Frame {
        self.frame_of(base::frame::UNORDERED, id, 0)
    }

    /// A frame of this client in any stream, with any id and acknowledgement.
    pub fn frame_of(&self, stream: u32, id: u64, ack: u64) -> Frame {
        self.forge((stream, id, ack), b"apart", |vector| vector)
    }

    /// A frame of this client with an authenticator that is not quite right.
    pub fn forge(
        &self,
        (stream, id, ack): (u32, u64, u64),
        op: &[u8],
        twist: impl Fn(base::Authenticator) -> base::Authenticator,
    ) -> Frame {
        let mut builder = FrameBuilder::new();
        builder.push(op);
        let id = FrameId { client: self.me, session: self.session, stream, id };
        let group = self.cluster.group.id();
        builder.request(group, id, ack, |d| twist(self.keys.authenticate(d)))
    }

    /// Number of frames without an accepted reply.
    pub fn outstanding(&self) -> usize {
        self.sent.len()
    }

    /// Waits for the accepted reply to `id`. Sends again now and then.
    pub fn await_reply(&mut self, id: FrameId) -> Reply {
        let until = Instant::now() + PATIENCE;
        let mut again = Instant::now() + Duration::from_millis(500);
        loop {
            if let Some(reply) = self.done.remove(&id) {
                return reply;
            }
            assert!(Instant::now() < until, "no reply to {id:?}: {:#?}", self.cluster.reports());
            if Instant::now() > again {
                again = Instant::now() + Duration::from_millis(500);
                let (pillar, frame) = self.sent[&id].clone();
                self.transmit(pillar, &frame);
            }
            if !self.pump() {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Takes in what has arrived. True when there was something.
    pub fn pump(&mut self) -> bool {
        let mut any = false;
        let keys: Vec<(u16, u16)> = self.wires.keys().copied().collect();
        for key in keys {
            let wire = self.wires.get_mut(&key).expect("just listed");
            wire.set_nonblocking(true);
            let mut packets = vec![];
            while let Some(packet) = wire.receive() {
                packets.push(packet);
            }
            wire.set_nonblocking(false);
            any |= !packets.is_empty();
            packets.iter().for_each(|packet| self.on_packet(key.0, packet));
        }
        any
    }

    fn on_packet(&mut self, replica: u16, packet: &[u8]) {
        match PacketKind::split(packet) {
            Ok((PacketKind::Reply, body)) => {
                let mut r = Reader::new(body);
                while !r.is_empty() {
                    let reply = match ReplyPacket::decode(&mut r) {
                        Err(_) if self.is_garbled(replica) => return,
                        reply => reply.expect("a reply"),
                    };
                    let ReplyBody::Whole(content) = reply.body else { panic!("asked for whole") };
                    self.on_reply(replica, content);
                }
            }
            Ok((PacketKind::Goodbye, _)) => self.goodbyes += 1,
            _ if self.is_garbled(replica) => {}
            Ok((kind, _)) => panic!("{kind:?} to a client that did not ask"),
            Err(error) => panic!("no packet: {error:?}"),
        }
    }

    /// Whether random bytes come from there, of which it is chance what they seem to be.
    fn is_garbled(&self, replica: u16) -> bool {
        self.cluster.drills.get(&replica) == Some(&rt::Drill::Garbage)
    }

    fn on_reply(&mut self, replica: u16, content: &[u8]) {
        let reply = Reply::decode(&mut Reader::new(content)).expect("a reply");
        if !self.sent.contains_key(&reply.frame) {
            return;
        }
        let votes = self.votes.entry(reply.frame).or_default();
        let digest = reply_digest(content);
        votes.insert(replica, digest);
        let same = votes.values().filter(|vote| **vote == digest).count();
        if same >= self.cluster.group.quorums().weak() {
            self.votes.remove(&reply.frame);
            self.sent.remove(&reply.frame);
            self.done.insert(reply.frame, reply);
        }
    }

    /// Sends `count` frames of `ops` operations through each of `pillars`, some at a time, and
    /// checks every reply.
    pub fn drive(&mut self, pillars: u16, count: u32, ops: usize) {
        let mut open = std::collections::VecDeque::new();
        for i in 0..count {
            for pillar in 0..pillars {
                let op = format!("op {i} of {pillar}");
                open.push_back((self.send(pillar, &vec![op.as_bytes(); ops]), op));
                if open.len() >= 16 {
                    let (id, op) = open.pop_front().expect("not empty");
                    self.check(id, &op, ops);
                }
            }
        }
        for (id, op) in open {
            self.check(id, &op, ops);
        }
    }

    fn check(&mut self, id: FrameId, op: &str, ops: usize) {
        let reply = self.await_reply(id);
        assert_eq!((reply.status, reply.count), (ReplyStatus::Executed, ops as u32), "{id:?}");
        assert!(reply.results().all(|result| &result[8..] == op.as_bytes()));
    }
}
