//! A hostile client: it has a principal's real keys and links, and does with them what the client
//! library never would.
//!
//! Nothing here waits for long: whoever is shut out or not listened to tries again later. What a
//! replica says is read off its link, or not, as the attack wants it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use auth::{ClientKeys, Established, Initiator, LinkIdentity, PacketReader, Peer, random_u64};
use base::crypto::ClientKeyring;
use base::frame::FrameBuilder;
use base::packet::PacketKind;
use base::{
    Authenticator, ClientId, Frame, FrameId, Incarnation, PillarId, ReplicaId, SessionId, limits,
};
use genesis::Group;
use svc::kv::op::encode_command;
use svc::kv::reply::Protocol;

/// How long a hostile client waits for a replica that does not answer or does not read.
const PATIENCE: Duration = Duration::from_millis(200);

/// Somebody with the keys of a principal.
pub struct Villain {
    pub group: Group,
    pub id: ClientId,
    identity: LinkIdentity,
    keys: ClientKeys,
}

/// A link of a villain to one replica.
pub struct Wire {
    stream: TcpStream,
    link: Established,
}

/// The number of a session that nobody had before, above those of the client library.
fn new_session() -> SessionId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let wall = u64::try_from(wall.expect("after 1970").as_nanos()).expect("before 2554");
    SessionId(wall + NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Villain {
    pub fn new(group: &Group, id: u32) -> Villain {
        let id = ClientId(id);
        let secret = group.load_secret(Peer::Client(id)).expect("its key");
        let life = Incarnation(random_u64().expect("randomness") >> 1);
        let directory = group.directory();
        let identity = LinkIdentity::new(&secret, Peer::Client(id), life, directory);
        let keys = ClientKeys::new(&secret, id, directory).expect("own key");
        Villain { group: group.clone(), id, identity: identity.expect("own key"), keys }
    }

    pub fn n(&self) -> u16 {
        self.group.quorums().n()
    }

    /// A new session with links to all replicas that take them, in pillar 0.
    pub fn session(&self) -> (SessionId, Vec<Option<Wire>>) {
        let session = new_session();
        (session, (0..self.n()).map(|replica| self.call(replica, session)).collect())
    }

    /// A link to pillar 0 of `replica`; `None` while it takes none of this principal.
    pub fn call(&self, replica: u16, session: SessionId) -> Option<Wire> {
        let directory = self.group.directory();
        let (replica, pillar) = (ReplicaId(replica), PillarId(0));
        let call = Initiator::start(&self.identity, directory, replica, pillar, session);
        let (call, first) = call.expect("a replica of the group");
        let address = self.group.address(replica, pillar);
        let port = address.and_then(genesis::Address::port).expect("a replica of the group");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.write_all(&first).ok()?;
        let mut reader = PacketReader::new(limits::HANDSHAKE_PACKET_BYTES_MAX);
        let mut call = Some(call);
        loop {
            if let Some(body) = reader.packet().ok()? {
                let link = call.take()?.finish(body).ok()?;
                let mut wire = Wire { stream, link };
                // The proof of life: before it, no packet may be long.
                return wire.send(&[]).then_some(wire);
            }
            let read = stream.read(reader.spare()).ok()?;
            if read == 0 {
                return None;
            }
            reader.filled(read);
        }
    }

    /// The opening of a session, as it should be.
    pub fn open(&self, session: SessionId) -> Frame {
        let group = self.group.id();
        FrameBuilder::open(group, self.id, session, |digest| self.keys.authenticate(digest))
    }

    /// Frame `id` of stream 0 of a session with one operation, whose authenticator convinces
    /// exactly the replicas whose bit is set in `convinced`.
    pub fn frame(&self, session: SessionId, id: u64, op: &[u8], convinced: u64) -> Frame {
        let mut builder = FrameBuilder::new();
        builder.push(op);
        let id = FrameId { client: self.id, session, stream: 0, id };
        let ack = id.id.saturating_sub(limits::STREAM_WINDOW);
        builder.request(self.group.id(), id, ack, |digest| {
            let mut authenticator = self.keys.authenticate(digest);
            if let Authenticator::Vector(macs) = &mut authenticator {
                for (replica, mac) in macs.iter_mut().enumerate() {
                    if convinced & (1 << replica) == 0 {
                        mac.0[0] ^= 1;
                    }
                }
            }
            authenticator
        })
    }
}

impl Wire {
    /// Sends a sealed packet. False when the replica has hung up or does not read.
    pub fn send(&mut self, payload: &[u8]) -> bool {
        let mut out = Vec::with_capacity(payload.len() + 64);
        self.link.sealer.seal(payload, &mut out).is_ok() && self.stream.write_all(&out).is_ok()
    }

    /// Sends frames in one packet.
    pub fn send_frames<'a>(&mut self, frames: impl IntoIterator<Item = &'a Frame>) -> bool {
        self.send(&packet(frames))
    }

    /// Sends bytes that are not sealed.
    pub fn send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads off what has come, without looking at it. False when the replica has hung up.
    pub fn drain(&mut self) -> bool {
        let _ = self.stream.set_nonblocking(true);
        let mut buffer = [0; 16 << 10];
        let open = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) => break error.kind() == std::io::ErrorKind::WouldBlock,
            }
        };
        let _ = self.stream.set_nonblocking(false);
        open
    }
}

/// A packet of request frames.
pub fn packet<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<u8> {
    let mut payload = Vec::new();
    PacketKind::Request.begin(&mut payload);
    frames.into_iter().for_each(|frame| frame.encode(&mut payload));
    payload
}

/// `SET key value`.
pub fn set(key: &str, value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let words = [&b"SET"[..], key.as_bytes(), value.as_bytes()];
    encode_command(Protocol::Resp2, &words, &mut bytes);
    bytes
}

/// `GET key`.
pub fn get(key: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_command(Protocol::Resp2, &[&b"GET"[..], key.as_bytes()], &mut bytes);
    bytes
}
