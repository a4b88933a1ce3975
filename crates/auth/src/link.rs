//! The handshake of a link: Noise IK between certified X25519 keys, two packets.
//!
//! ```text
//! initiator                                        responder (a replica)
//!   start ── hello (clear, bound) + e, es, s, ss ──► accept: cheap checks, then keys
//!   finish ◄── e, ee, se + incarnation ───────────── Established
//!   Established ══ sealed packets both ways ═════════
//! ```
//!
//! Both ends know each other's keys beforehand, from the [`Directory`]. The hello is the
//! prologue of the handshake, so both ends agree on every field of it or there is no link. The
//! keys of the packets come from the handshake's final split, per direction and per connection.
//!
//! What it does not do: choose between two links of the same peer, or limit how often a peer
//! may try. A refused attempt has cost the responder at most one handshake message.

use std::fmt;

use base::codec::{Reader, Writer};
use base::{Incarnation, PillarId, ReplicaId, SessionId, limits};
use snow::HandshakeState;
use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::directory::Directory;
use crate::error::AuthError;
use crate::hello::{HELLO_BYTES, Hello, LINK_VERSION, Peer};
use crate::keys::Secret;
use crate::replica::own_entry;
use crate::seal::{Binding, Opener, Sealer, Suite};

const NOISE: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
/// Key 32, encrypted static key 48, tag of the empty payload 16.
const FIRST_BYTES: usize = 96;
/// Key 32, incarnation 8, tag 16.
const SECOND_BYTES: usize = 56;

const _: () = assert!(HELLO_BYTES + FIRST_BYTES <= limits::HANDSHAKE_PACKET_BYTES_MAX);
const _: () = assert!(SECOND_BYTES <= limits::HANDSHAKE_PACKET_BYTES_MAX);

/// Who this process is on its links.
#[derive(Clone)]
pub struct LinkIdentity {
    me: Peer,
    incarnation: Incarnation,
    exchange: StaticSecret,
}

impl LinkIdentity {
    /// The identity of `me`, in this life of its process.
    ///
    /// # Errors
    /// [`AuthError::UnknownPeer`] when the directory has no such member,
    /// [`AuthError::WrongSecret`] when its public keys there are not this secret's.
    pub fn new(
        secret: &Secret,
        me: Peer,
        incarnation: Incarnation,
        directory: &Directory,
    ) -> Result<LinkIdentity, AuthError> {
        own_entry(secret, me, directory)?;
        Ok(LinkIdentity { me, incarnation, exchange: secret.static_key() })
    }

    /// Who this is.
    #[must_use]
    pub fn me(&self) -> Peer {
        self.me
    }

    /// Which life of the process this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
}

impl fmt::Debug for LinkIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("LinkIdentity");
        out.field("me", &self.me).field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// A link whose ends know each other.
#[derive(Debug)]
pub struct Established {
    /// Who is at the other end.
    pub peer: Peer,
    /// The pillar that the link belongs to, the same at both ends.
    pub pillar: PillarId,
    /// Which life of the peer's process this is.
    pub peer_incarnation: Incarnation,
    /// The session that the initiator named: a client's, or free between replicas.
    pub session: SessionId,
    /// Largest packet on this link in bytes, seal included, length header not: for
    /// [`crate::PacketReader::set_max`].
    pub packet_bytes_max: usize,
    /// Seals what leaves.
    pub sealer: Sealer,
    /// Opens what comes in.
    pub opener: Opener,
}

/// The end that calls, between its two steps.
pub struct Initiator {
    hello: Hello,
    noise: HandshakeState,
}

impl Initiator {
    /// Calls `pillar` of replica `receiver`. Returns the state and the whole first packet,
    /// length header included. `session` is the client's session; replicas may pass anything.
    ///
    /// # Errors
    /// When there is no such replica or pillar, it is oneself, or there is no randomness.
    pub fn start(
        identity: &LinkIdentity,
        directory: &Directory,
        receiver: ReplicaId,
        pillar: PillarId,
        session: SessionId,
    ) -> Result<(Initiator, Vec<u8>), AuthError> {
        let hello = Hello {
            version: LINK_VERSION,
            suite: Suite::Aegis128L,
            initiator: identity.me,
            receiver,
            pillar,
            epoch: directory.epoch(),
            incarnation: identity.incarnation,
            session,
            group: directory.group(),
        };
        let remote = directory.replica(receiver);
        let remote = remote.ok_or(AuthError::UnknownPeer(Peer::Replica(receiver)))?;
        hello.check(Peer::Replica(receiver), directory)?;
        Initiator::call(&identity.exchange, hello, &remote.x25519)
    }

    /// The first packet for any hello, sensible or not.
    fn call(
        exchange: &StaticSecret,
        hello: Hello,
        remote: &[u8; 32],
    ) -> Result<(Initiator, Vec<u8>), AuthError> {
        let prologue = hello.encode();
        let mut noise = builder(&prologue, exchange)?
            .remote_public_key(remote)
            .and_then(snow::Builder::build_initiator)
            .map_err(noise_error)?;
        let mut message = [0; FIRST_BYTES];
        let len = noise.write_message(&[], &mut message).map_err(noise_error)?;
        let packet = packet(&[&prologue, &message[..len]]);
        Ok((Initiator { hello, noise }, packet))
    }

    /// Takes the responder's packet, without its length header, and completes the link.
    ///
    /// # Errors
    /// [`AuthError::Malformed`] when it has the wrong length, [`AuthError::Handshake`] when it
    /// is not an answer of that replica to this call.
    pub fn finish(mut self, body: &[u8]) -> Result<Established, AuthError> {
        if body.len() != SECOND_BYTES {
            return Err(AuthError::Malformed("answer to a hello"));
        }
        let mut payload = [0; SECOND_BYTES];
        let len = self.noise.read_message(body, &mut payload).map_err(noise_error)?;
        let incarnation = Reader::new(&payload[..len]).u64("incarnation");
        let incarnation = incarnation.map_err(|e| AuthError::Malformed(e.0))?;
        Ok(established(&mut self.noise, &self.hello, End::Initiator, Incarnation(incarnation)))
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").field("hello", &self.hello).finish_non_exhaustive()
    }
}

/// The end that is called. Stateless: one packet in, one out.
#[derive(Debug)]
pub struct Responder;

impl Responder {
    /// Takes the first packet of a connection, without its length header. Returns the link and
    /// the whole answer, length header included.
    ///
    /// Whoever replays a recorded first packet gets this far, but can neither read nor send on
    /// the link. So let a new link displace an older one of the same peer, or cost more than
    /// its buffers, only once a packet has been opened on it ([`Opener::packets`] above zero).
    ///
    /// # Errors
    /// Everything that can be wrong with a hello, in the order in which it is cheap to find
    /// out; then [`AuthError::Handshake`] and [`AuthError::PeerKey`]. Close the connection.
    pub fn accept(
        identity: &LinkIdentity,
        directory: &Directory,
        body: &[u8],
    ) -> Result<(Established, Vec<u8>), AuthError> {
        let mut r = Reader::new(body);
        let hello = Hello::decode(&mut r)?;
        hello.check(identity.me, directory)?;
        let peer = hello.initiator;
        let keys = directory.peer(peer).ok_or(AuthError::UnknownPeer(peer))?;
        if r.rest().len() != FIRST_BYTES {
            return Err(AuthError::Malformed("first handshake message"));
        }
        let mut noise = builder(&body[..HELLO_BYTES], &identity.exchange)?
            .build_responder()
            .map_err(noise_error)?;
        noise.read_message(r.rest(), &mut [0; FIRST_BYTES]).map_err(noise_error)?;
        let known = noise.get_remote_static().is_some_and(|key| key.ct_eq(&keys.x25519).into());
        if !known {
            return Err(AuthError::PeerKey(peer));
        }
        let mut message = [0; SECOND_BYTES];
        let payload = identity.incarnation.0.to_le_bytes();
        let len = noise.write_message(&payload, &mut message).map_err(noise_error)?;
        let link = established(&mut noise, &hello, End::Responder, hello.incarnation);
        Ok((link, packet(&[&message[..len]])))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Initiator,
    Responder,
}

/// Splits the finished handshake into the two directions, as seen from `end`.
fn established(
    noise: &mut HandshakeState,
    hello: &Hello,
    end: End,
    peer_incarnation: Incarnation,
) -> Established {
    assert!(noise.is_handshake_finished(), "keys exist only after both messages");
    let (outward, inward) = noise.dangerously_get_raw_split();
    let (outward, inward) = (Zeroizing::new(outward), Zeroizing::new(inward));
    let packet_bytes_max = match hello.initiator {
        Peer::Replica(_) => limits::REPLICA_PACKET_BYTES_MAX,
        Peer::Client(_) => limits::CLIENT_PACKET_BYTES_MAX,
    };
    let receiver = Peer::Replica(hello.receiver);
    let forth = Binding {
        group: hello.group,
        epoch: hello.epoch,
        pillar: hello.pillar,
        sender: hello.initiator,
        receiver,
        packet_bytes_max,
    };
    let back = Binding { sender: receiver, receiver: hello.initiator, ..forth };
    let (peer, sealer, opener) = match end {
        End::Initiator => (
            receiver,
            Sealer::new(hello.suite, &outward, forth),
            Opener::new(hello.suite, &inward, back),
        ),
        End::Responder => (
            hello.initiator,
            Sealer::new(hello.suite, &inward, back),
            Opener::new(hello.suite, &outward, forth),
        ),
    };
    Established {
        peer,
        pillar: hello.pillar,
        peer_incarnation,
        session: hello.session,
        packet_bytes_max,
        sealer,
        opener,
    }
}

fn builder<'a>(
    prologue: &'a [u8],
    exchange: &'a StaticSecret,
) -> Result<snow::Builder<'a>, AuthError> {
    let pattern = NOISE.parse().expect("the name of a pattern that snow has");
    snow::Builder::new(pattern)
        .local_private_key(exchange.as_bytes())
        .and_then(|builder| builder.prologue(prologue))
        .map_err(noise_error)
}

fn noise_error(error: snow::Error) -> AuthError {
    match error {
        snow::Error::Rng => AuthError::Randomness,
        _ => AuthError::Handshake,
    }
}

/// The parts as one packet with its length header.
fn packet(parts: &[&[u8]]) -> Vec<u8> {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(4 + len);
    Writer::new(&mut out).count(len);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}
