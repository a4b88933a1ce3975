//! The first bytes of every connection: hello, packets, handshake, seal.

use auth::{
    Directory, Established, Hello, Initiator, LinkIdentity, PacketReader, Peer, Responder, Secret,
};
use base::limits::HANDSHAKE_PACKET_BYTES_MAX;
use base::{ClientId, Epoch, Incarnation, PillarId, Reader, ReplicaId, SessionId};

use super::accepted;
use crate::samples::{self, GROUP};
use crate::target::{Outcome, Run};

/// The members of the group that the targets are of: the same keys in every process.
pub struct Members {
    /// Everybody's public keys.
    pub directory: Directory,
    /// The replica that is called.
    pub replica: LinkIdentity,
    /// The client that calls.
    pub client: LinkIdentity,
}

impl Default for Members {
    fn default() -> Members {
        let secret = |n: u8| Secret::from_bytes([n; 32]);
        let replicas: Vec<_> =
            (0..4u8).map(|r| secret(r + 1).public(Peer::Replica(ReplicaId(r.into())))).collect();
        let client = Peer::Client(ClientId(1));
        let clients = [(ClientId(1), secret(99).public(client))];
        let directory = Directory::new(GROUP, Epoch(0), 2, &replicas, &clients);
        let directory = directory.expect("keys of distinct members");
        let me = |n, peer| LinkIdentity::new(&secret(n), peer, Incarnation(1), &directory);
        let replica = me(1, Peer::Replica(ReplicaId(0))).expect("a member");
        let client = me(99, client).expect("a member");
        Members { directory, replica, client }
    }
}

impl Members {
    /// The client's call to pillar 1 of replica 0: what goes over the wire first.
    #[must_use]
    pub fn call(&self) -> (Initiator, Vec<u8>) {
        let (to, pillar) = (ReplicaId(0), PillarId(1));
        Initiator::start(&self.client, &self.directory, to, pillar, SessionId(5))
            .expect("the replica is a member")
    }

    /// Both ends of a link: the client's, then the replica's.
    #[must_use]
    pub fn link(&self) -> (Established, Established) {
        let (initiator, first) = self.call();
        let answer = Responder::accept(&self.replica, &self.directory, &first[4..]);
        let (called, second) = answer.expect("the call is genuine");
        (initiator.finish(&second[4..]).expect("the answer is genuine"), called)
    }
}

/// `Hello::decode`.
pub fn hello() -> Run {
    Box::new(|bytes| {
        let mut r = Reader::new(bytes);
        match Hello::decode(&mut r) {
            Err(error) => Outcome::of(std::mem::discriminant(&error)),
            Ok(hello) => {
                let used = bytes.len() - r.rest().len();
                assert_eq!(hello.encode(), bytes[..used]);
                accepted(matches!(hello.initiator, Peer::Client(_)), used)
            }
        }
    })
}

/// An encoded hello.
#[must_use]
pub fn hello_seeds() -> Vec<Vec<u8>> {
    let (_, packet) = Members::default().call();
    vec![packet[4..][..68].to_vec()]
}

/// `Responder::accept`: what a stranger sends first. Handshakes draw random numbers, so the
/// committed corpus has a recorded call; a replay of it gets this far and no further.
pub fn handshake() -> Run {
    let members = Members::default();
    Box::new(move |bytes| match Responder::accept(&members.replica, &members.directory, bytes) {
        Err(error) => Outcome::of(std::mem::discriminant(&error)),
        Ok((link, answer)) => {
            assert_eq!((link.peer, link.opener.packets()), (Peer::Client(ClientId(1)), 0));
            assert!(answer.len() <= HANDSHAKE_PACKET_BYTES_MAX + 4);
            Outcome::of("accepted")
        }
    })
}

/// A hello with a first handshake message that is not one.
#[must_use]
pub fn handshake_seeds() -> Vec<Vec<u8>> {
    hello_seeds().into_iter().map(|hello| [hello, vec![9; 96]].concat()).collect()
}

/// `Initiator::finish`: what a liar in the place of a replica answers. Nothing but the
/// replica's own answer to this call is taken, and that is not among the inputs.
pub fn handshake_answer() -> Run {
    let members = Members::default();
    Box::new(move |bytes| {
        let (initiator, _) = members.call();
        match initiator.finish(bytes) {
            Err(error) => Outcome::of(std::mem::discriminant(&error)),
            Ok(_) => panic!("an answer that the replica never gave was taken"),
        }
    })
}

/// An answer of the right length.
#[must_use]
pub fn handshake_answer_seeds() -> Vec<Vec<u8>> {
    vec![vec![7; 56], vec![0; 48]]
}

/// `PacketReader`: the lengths of packets, in pieces of every size.
pub fn packets() -> Run {
    Box::new(|bytes| {
        let mut reader = PacketReader::new(1 << 16);
        // The first byte chooses the pieces: what is cut differently is read the same.
        let Some((pieces, rest)) = bytes.split_first() else { return Outcome::of("empty") };
        let mut whole: Vec<Vec<u8>> = vec![];
        let mut refused = false;
        'all: for mut piece in rest.chunks(1 + usize::from(*pieces)) {
            while !piece.is_empty() {
                piece = &piece[reader.feed(piece)..];
                loop {
                    match reader.packet() {
                        Ok(Some(packet)) => whole.push(packet.to_vec()),
                        Ok(None) => break,
                        Err(_) => {
                            refused = true;
                            break 'all;
                        }
                    }
                }
            }
        }
        let (dumb, ended) = dumb_packets(rest);
        assert!(whole == dumb && refused == ended, "{whole:?} {refused}, not {dumb:?} {ended}");
        Outcome::of((whole.len().checked_ilog2(), refused, reader.announced().is_some()))
    })
}

/// What packets the bytes are, read all at once; and whether a length was too large.
fn dumb_packets(bytes: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let (mut r, mut all) = (Reader::new(bytes), vec![]);
    while let Ok(len) = r.u32("length") {
        // The length is that of what follows; the limit is of both together or of the body
        // alone, whatever the reader says for a body of exactly the limit.
        if PacketReader::new(1 << 16).refuses(len) {
            return (all, true);
        }
        match r.bytes(len as usize, "body") {
            Ok(body) => all.push(body.to_vec()),
            Err(_) => break,
        }
    }
    (all, false)
}

/// Whether a length is refused as such.
trait Refuses {
    fn refuses(self, len: u32) -> bool;
}

impl Refuses for PacketReader {
    fn refuses(mut self, len: u32) -> bool {
        self.feed(&len.to_le_bytes());
        self.packet().is_err()
    }
}

/// Packets back to back.
#[must_use]
pub fn packets_seeds() -> Vec<Vec<u8>> {
    let packet = |len: u8| [&u32::from(len).to_le_bytes()[..], &vec![len; len.into()]].concat();
    let row = [packet(16), packet(17), packet(200), packet(0)].concat();
    [0, 2, 255].map(|pieces| [vec![pieces], row.clone()].concat()).into()
}

/// `Opener::open`: nothing but what the other end sealed opens.
pub fn sealed() -> Run {
    let (mut caller, mut called) = Members::default().link();
    let mut out = vec![];
    caller.sealer.seal(&samples::GROUP.0, &mut out).expect("a small packet");
    called.opener.open(&mut out[4..]).expect("is the next packet");
    let genuine = out;
    Box::new(move |bytes| {
        let mut body = bytes.to_vec();
        match called.opener.open(&mut body) {
            Err(error) => Outcome::of(std::mem::discriminant(&error)),
            Ok(_) => panic!("{bytes:?} opened beside {genuine:?}"),
        }
    })
}

/// Bytes that look sealed.
#[must_use]
pub fn sealed_seeds() -> Vec<Vec<u8>> {
    vec![vec![0; 16], vec![1; 48], vec![]]
}
