//! What packets end in: the core on the same thread, or, in a task-oriented pipeline, another
//! thread; and what can be said of a packet by itself, wherever that is done.
//!
//! A frame that comes over its principal's own link needs no authenticator here. Some are looked
//! at all the same, the first one of each link and then nobody knows which: whoever
//! authenticates to some replicas only makes work for the others, and is to be known.
//!
//! Not here: reading and who may connect (`intake`), what a lane does with its inputs.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use auth::Peer;
use base::frame::{Authenticator, FrameKind};
use base::packet::{PacketKind, PeerHeader};
use base::{
    ClientId, Frame, Keyring, Malformed, PillarId, Reader, ReplicaId, Time, VoteSet, limits,
};
use proto::pbft::msg::Message;
use proto::pbft::{Input, Reject};

use crate::conn::{Away, Conn, Link};
use crate::coordinator_host::Delivery;
use crate::counters::TrafficCounters;
use crate::links::{Close, Env};
use crate::logic::{Core, Sender};

/// One frame in so many has its vector of MACs looked at, on average.
const VECTOR_SAMPLE: u32 = 16;
/// One frame in so many has its signature looked at, which costs 200 times as much.
const SIGNATURE_SAMPLE: u32 = 256;
/// Most frames of one packet that are kept until the quota has room for them; the client sends
/// again whatever is beyond. One packet bounds their bytes.
pub(crate) const HELD_FRAMES_MAX: usize = base::limits::PENDING_FRAMES_PER_CLIENT_MAX;
/// The pillar on whose links coordinators and stages talk.
pub(crate) const COORDINATOR: PillarId = PillarId(0);

/// What came of one packet.
pub(crate) enum Outcome {
    /// Done.
    Done,
    /// Our answer or our proof of life is to be sent.
    Flush,
    /// The client asks how we are.
    Status,
    /// The client has reached its quota.
    Quota,
}

/// What the packets of connections end in.
pub(crate) trait Inlet {
    /// Whether links that proved to live are handed over, halves and all.
    const HANDS_OVER: bool = false;

    /// The time of this turn.
    fn now(&self) -> Time;

    /// Where traffic is counted.
    fn counters(&mut self) -> &mut TrafficCounters;

    /// Takes what is held back of `conn`, as far as there is room by now. False when there is
    /// none, and nothing more is to be taken off the connection.
    ///
    /// # Errors
    /// Why the connection is to be closed.
    fn admit(&mut self, conn: &mut Conn) -> Result<bool, Close>;

    /// The link to `peer` is up.
    fn connected(&mut self, pillar: PillarId, peer: ReplicaId);

    /// Takes an opened packet of a link that proved to live.
    ///
    /// # Errors
    /// Why the connection is to be closed.
    fn payload(
        &mut self,
        env: &Env,
        link: &mut Link,
        payload: &[u8],
        held: &mut VecDeque<Arc<Frame>>,
    ) -> Result<Outcome, Close>;

    /// Takes a packet of a link that was handed over, as it came.
    fn sealed(&mut self, _away: &mut Away, _body: &[u8]) {}

    /// Takes over the halves of a link that proved to live.
    fn hand_over(&mut self, _slot: usize, _conn: &mut Conn) {}

    /// The handshake with whoever dialled on `slot` is answered.
    fn answered(&mut self, _slot: usize, _conn: &Conn) {}
}

impl Inlet for Core {
    fn now(&self) -> Time {
        self.now.mono
    }

    fn counters(&mut self) -> &mut TrafficCounters {
        &mut self.counters
    }

    fn admit(&mut self, conn: &mut Conn) -> Result<bool, Close> {
        match admit_held(&mut conn.held, self) {
            Ok(()) => Ok(true),
            Err(Reject::Forged) => Err(Close::Forged),
            Err(_) => Ok(false),
        }
    }

    fn connected(&mut self, pillar: PillarId, peer: ReplicaId) {
        // Counted by `input`; a lane does not refuse to know of a link.
        let _ = self.input(Input::Connected { peer });
        if pillar == COORDINATOR {
            self.deliveries.push(Delivery::Connected(peer));
        }
    }

    fn payload(
        &mut self,
        env: &Env,
        link: &mut Link,
        payload: &[u8],
        held: &mut VecDeque<Arc<Frame>>,
    ) -> Result<Outcome, Close> {
        match link.peer {
            Peer::Replica(from) => {
                let sender = Sender { from, incarnation: link.incarnation };
                let pillar = link.pillar;
                let each = |message| self.message((pillar, sender), message);
                messages(env, (pillar, sender), payload, each).map_err(|Malformed(what)| {
                    self.garbage_from(from, what);
                    Close::Garbage(what)
                })?;
                Ok(Outcome::Done)
            }
            Peer::Client(client) => {
                let mut sampler = Sampler { client, unchecked: &mut link.unchecked };
                match client_packet(payload)? {
                    Asked::Nothing => Ok(Outcome::Done),
                    Asked::Status => Ok(Outcome::Status),
                    Asked::Avoid(replicas) => {
                        link.avoided = replicas;
                        Ok(Outcome::Done)
                    }
                    Asked::Frames(bytes) => {
                        link.worked = true;
                        self.frames(env, &mut sampler, bytes, held)
                    }
                }
            }
        }
    }
}

/// Takes a packet of another replica apart: a header that says what the link proves, then
/// messages. Those before whatever is wrong have been taken.
///
/// # Errors
/// When it is not what a correct replica sends.
pub(crate) fn messages(
    env: &Env,
    (pillar, sender): (PillarId, Sender),
    payload: &[u8],
    mut each: impl FnMut(Message),
) -> Result<(), Malformed> {
    let mut r = Reader::new(payload);
    let Sender { from: sender, incarnation } = sender;
    let expected = PeerHeader { epoch: env.epoch, sender, pillar, incarnation };
    if PeerHeader::decode(&mut r)? != expected {
        return Err(Malformed("packet header"));
    }
    while !r.is_empty() {
        each(Message::decode(env.group, &mut r)?);
    }
    Ok(())
}

/// What a client's packet asks for.
pub(crate) enum Asked<'a> {
    /// Nothing: it is the proof of life after the handshake.
    Nothing,
    /// How we are.
    Status,
    /// These frames to be executed.
    Frames(&'a [u8]),
    /// Not to rely on these replicas for its answers.
    Avoid(VoteSet),
}

/// Looks into a client's packet.
///
/// # Errors
/// Why the connection is to be closed.
pub(crate) fn client_packet(payload: &[u8]) -> Result<Asked<'_>, Close> {
    if payload.is_empty() {
        return Ok(Asked::Nothing);
    }
    match PacketKind::split(payload).map_err(|e| Close::Garbage(e.0))? {
        (PacketKind::Request, frames) => Ok(Asked::Frames(frames)),
        (PacketKind::StatusQuery, _) => Ok(Asked::Status),
        (PacketKind::Avoid, bits) => {
            let bits = Reader::new(bits).u64("replicas to avoid");
            Ok(Asked::Avoid(VoteSet::from_bits(bits.map_err(|e| Close::Garbage(e.0))?)))
        }
        (PacketKind::Goodbye, _) => Err(Close::Ended),
        (PacketKind::Reply | PacketKind::Status | PacketKind::Nudge, _) => {
            Err(Close::Garbage("packet kind"))
        }
    }
}

/// Reads one frame of a client's packet and checks what can be checked of it alone.
///
/// # Errors
/// Why the connection is to be closed.
pub(crate) fn client_frame(
    env: &Env,
    sampler: &mut Sampler<'_>,
    r: &mut Reader<'_>,
) -> Result<Arc<Frame>, Close> {
    let frame = Frame::decode(env.group, r);
    let frame = frame.map_err(|e| Close::Garbage(e.0))?;
    if frame.id().client != sampler.client {
        return Err(Close::Impostor);
    }
    let ahead = frame.id().id.saturating_sub(frame.ack());
    if frame.kind() == FrameKind::Request && ahead > limits::STREAM_WINDOW {
        return Err(Close::Window);
    }
    if !sampler.passes(&frame, &env.keys) {
        return Err(Close::Forged);
    }
    Ok(Arc::new(frame))
}

impl Core {
    /// Hands a message of another replica to whom it is for.
    pub(crate) fn message(&mut self, (pillar, sender): (PillarId, Sender), message: Message) {
        let chief = pillar == COORDINATOR;
        let Sender { from, incarnation } = sender;
        self.counters.peer_messages += 1;
        match message {
            Message::Group(message) if chief => {
                self.deliveries.push(Delivery::Group(sender, message));
            }
            Message::State(message) if chief => {
                self.deliveries.push(Delivery::State(sender, message));
            }
            message => {
                // Refusals are counted by `input`, per peer.
                let _ = self.input(Input::Peer { from, incarnation, message });
            }
        }
    }

    fn frames(
        &mut self,
        env: &Env,
        sampler: &mut Sampler<'_>,
        bytes: &[u8],
        held: &mut VecDeque<Arc<Frame>>,
    ) -> Result<Outcome, Close> {
        if self.draining {
            return Ok(Outcome::Done);
        }
        let mut r = Reader::new(bytes);
        let repeats = self.counters.repeats;
        while !r.is_empty() && held.len() < HELD_FRAMES_MAX {
            let frame = client_frame(env, sampler, &mut r)?;
            self.counters.frames += 1;
            if !held.is_empty() || self.journal.behind() {
                held.push_back(frame);
                continue;
            }
            match self.input(Input::Request(Arc::clone(&frame))) {
                Err(Reject::Quota) => held.push_back(frame),
                Err(Reject::Forged) => return Err(Close::Forged),
                _ => {}
            }
        }
        let goes_on = held.is_empty() && self.counters.repeats == repeats;
        Ok(if goes_on { Outcome::Done } else { Outcome::Quota })
    }
}

/// Looks at the authenticators of some frames of one connection.
pub(crate) struct Sampler<'a> {
    pub(crate) client: ClientId,
    /// Frames until the next look.
    pub(crate) unchecked: &'a mut u32,
}

impl Sampler<'_> {
    /// False when it looked, and the frame is not its principal's as far as this replica can
    /// tell.
    fn passes(&mut self, frame: &Frame, keys: &impl Keyring) -> bool {
        if let Some(left) = self.unchecked.checked_sub(1) {
            *self.unchecked = left;
            return true;
        }
        let one_in = match frame.authenticator() {
            Authenticator::Vector(_) => VECTOR_SAMPLE,
            Authenticator::Signature(_) => SIGNATURE_SAMPLE,
        };
        // Anything that the client cannot foresee will do.
        let random = std::hash::RandomState::new().build_hasher().finish();
        *self.unchecked = u32::try_from(random % u64::from(2 * one_in - 1)).unwrap_or(0);
        keys.check(self.client, frame.digest(), frame.authenticator())
    }
}

/// Hands over the frames that were held back, as far as the client's quota has room by now.
///
/// # Errors
/// [`Reject::Forged`] when one is not its client's, else that there is no room.
pub(crate) fn admit_held(held: &mut VecDeque<Arc<Frame>>, core: &mut Core) -> Result<(), Reject> {
    if core.draining {
        held.clear();
    }
    while let Some(frame) = held.front() {
        if core.journal.behind() {
            return Err(Reject::Quota);
        }
        match core.input(Input::Request(Arc::clone(frame))) {
            Err(refused @ (Reject::Quota | Reject::Forged)) => return Err(refused),
            _ => drop(held.pop_front()),
        }
    }
    // An idle connection holds no buffers.
    if held.capacity() > 0 {
        *held = VecDeque::new();
    }
    Ok(())
}
