//! From a connection's bytes to the lane: handshakes, packets, messages and request frames.
//!
//! Reading is fair: each principal gets a bounded number of bytes and frames per turn, over all
//! its connections, and so does each replica; who has more comes again in the next turn, in
//! turn. A connection whose client has reached its quota or repeats itself too often, or whose
//! packet has no room yet, is not read for a while, so that TCP holds the client back.
//!
//! A frame that comes over its principal's own link needs no authenticator here. Some are looked
//! at all the same, the first one of each link and then nobody knows which: whoever
//! authenticates to some replicas only makes work for the others, and is to be known.
//!
//! Not here: what a lane does with its inputs, and what a packet is sealed with (`auth`).

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use auth::{Hello, Peer, Responder};
use base::frame::{Authenticator, FrameKind};
use base::packet::{PacketKind, PeerHeader};
use base::{ClientId, Frame, Keyring, Malformed, PillarId, Reader, Span, limits};
use proto::pbft::msg::Message;
use proto::pbft::{Input, Reject};

use crate::clients::ClientTable;
use crate::conn::{Conn, Link, Phase, ReadOutcome};
use crate::coordinator_host::Delivery;
use crate::lane_host::{Core, LaneHost, Sender};
use crate::links::{Close, Env, Links};
use crate::peers::PeerTable;

/// What one connection may read in one turn, in bytes.
const READ_BYTES_PER_TURN: usize = 1 << 20;
/// What a frame costs its principal's share besides its bytes.
const FRAME_COST_BYTES: usize = 512;
/// Every connection has room for a packet of so many bytes; larger ones share their client's.
const PACKET_BYTES_FREE: usize = 64 << 10;
/// Most questions that one connection may have in one turn, each of which is answered within
/// the turn.
const QUESTIONS_MAX: u32 = 1024;
/// One frame in so many has its vector of MACs looked at, on average.
const VECTOR_SAMPLE: u32 = 16;
/// One frame in so many has its signature looked at, which costs 200 times as much.
const SIGNATURE_SAMPLE: u32 = 256;
/// How long a client at its quota is not listened to.
const QUOTA_PAUSE: Span = Span::millis(5);
/// How long a client is not listened to for each frame that it repeats beyond its allowance: many
/// times what it takes to read one, so that repeating itself buys nobody a replica's time.
const REPEAT_PAUSE: Span = Span::micros(100);
/// Most frames of one packet that are kept until the quota has room for them; the client sends
/// again whatever is beyond. One packet bounds their bytes.
const HELD_FRAMES_MAX: usize = base::limits::PENDING_FRAMES_PER_CLIENT_MAX;
/// The pillar on whose links coordinators and stages talk.
const COORDINATOR: PillarId = PillarId(0);

/// What came of the packets that had arrived.
enum Verdict {
    /// All are done; more bytes are wanted.
    Hungry,
    /// The client has reached its quota, or repeats itself too often.
    Pause,
    /// The connection is to be closed.
    Close(Close),
}

/// What came of one packet.
enum Outcome {
    /// Done.
    Done,
    /// Our answer or our proof of life is to be sent.
    Flush,
    /// The client asks how we are.
    Status,
    /// The client has reached its quota.
    Quota,
}

impl LaneHost {
    /// Reads what has arrived, within bounds, and carries out what follows.
    pub(crate) fn read(&mut self) {
        let mut ready = std::mem::take(&mut self.links.ready);
        let conns = &mut self.links.conns;
        let is_stranger = |conn: &mut Conn| matches!(conn.phase, Phase::Answering);
        let busy = ready.iter().any(|slot| conns.get_mut(*slot).is_some_and(|c| !is_stranger(c)));
        self.links.strangers.begin_turn(self.core.now.mono, busy);
        self.links.clients.begin_turn();
        for slot in ready.drain(..) {
            let links = &mut self.links;
            let Some(conn) = links.conns.get_mut(slot) else { continue };
            if matches!(conn.phase, Phase::Answering) && !links.strangers.admit() {
                links.ready.push(slot);
                continue;
            }
            if conn.client().is_some_and(|client| links.clients.share(client) == 0) {
                links.deferred.push(slot);
                continue;
            }
            conn.listed = false;
            let client = conn.client();
            if client.is_some_and(|client| links.clients.ignores(client, self.core.now.mono)) {
                self.pause(slot);
                continue;
            }
            self.read_conn(slot);
        }
        // Those that stay readable were listed anew, but whoever had no turn comes first; the
        // old list lends its memory.
        ready.append(&mut self.links.deferred);
        ready.append(&mut self.links.ready);
        self.links.ready = ready;
        self.carry_out();
        self.links.bury(self.core.now.mono);
    }

    fn read_conn(&mut self, slot: usize) {
        let mut budget = READ_BYTES_PER_TURN;
        loop {
            let before = self.core.counters;
            let verdict = self.packets(slot);
            let links = &mut self.links;
            let Some(conn) = links.conns.get_mut(slot) else { return };
            if let Some(client) = conn.client() {
                let frames = usize::try_from(self.core.counters.frames - before.frames);
                let cost = frames.unwrap_or(usize::MAX).saturating_mul(FRAME_COST_BYTES);
                links.clients.spend(client, cost);
                let repeats = self.core.counters.repeats - before.repeats;
                let pause = Span(repeats.saturating_mul(REPEAT_PAUSE.0));
                links.clients.ignore(client, self.core.now.mono, pause);
                budget = budget.min(links.clients.share(client));
            }
            match verdict {
                Verdict::Hungry if has_room(conn, &mut links.clients) => {}
                Verdict::Hungry | Verdict::Pause => return self.pause(slot),
                Verdict::Close(why) => return links.doomed.push((slot, why)),
            }
            if !conn.readable {
                return;
            }
            if budget == 0 {
                conn.listed = true;
                self.links.ready.push(slot);
                return;
            }
            match conn.read() {
                Ok(ReadOutcome::Bytes(n) | ReadOutcome::Last(n)) => {
                    budget = budget.saturating_sub(n);
                    self.core.counters.bytes_in += n as u64;
                    if let Some(client) = conn.client() {
                        self.links.clients.spend(client, n);
                    }
                }
                Ok(ReadOutcome::Closed) | Err(_) => {
                    return self.links.doomed.push((slot, Close::Ended));
                }
            }
        }
    }

    /// Leaves what has come on `slot` where it is for a while.
    fn pause(&mut self, slot: usize) {
        let Some(conn) = self.links.conns.get_mut(slot) else { return };
        conn.paused = true;
        self.paused.push(slot);
        // Whoever pauses later does not make those wait longer who paused before.
        self.resume_at.get_or_insert(self.core.now.mono.after(QUOTA_PAUSE));
    }

    /// Handles the whole packets that have arrived on `slot`.
    fn packets(&mut self, slot: usize) -> Verdict {
        loop {
            let LaneHost { core, links, .. } = self;
            let Links { conns, peers, clients, env, pillar, doomed, counters, .. } = links;
            let Some(conn) = conns.get_mut(slot) else { return Verdict::Hungry };
            if admit_held(&mut conn.held, core) == Err(Reject::Quota) {
                return Verdict::Pause;
            }
            let gate = Gate { slot, pillar: *pillar, env, peers, clients };
            let outcome = match gate.packet(conn, core) {
                Ok(None) => return Verdict::Hungry,
                Ok(Some((outcome, replaced))) => {
                    doomed.extend(replaced.map(|old| (old, Close::Replaced)));
                    outcome
                }
                Err(why) => return Verdict::Close(why),
            };
            match outcome {
                Outcome::Done => {}
                Outcome::Flush => {
                    counters.established += 1;
                    links.after_handshake(slot);
                    links.plan_scan(core.now.mono);
                }
                Outcome::Status => {
                    conn.questions += 1;
                    match conn.questions {
                        1 => self.status_asked.push(slot),
                        2..=QUESTIONS_MAX => {}
                        _ => return Verdict::Close(Close::Questions),
                    }
                }
                Outcome::Quota => return Verdict::Pause,
            }
        }
    }
}

impl Links {
    /// Our part of the handshake is done: sends what the other end waits for.
    fn after_handshake(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.confirmed() {
            self.confirm(slot);
        }
        self.mark_dirty(slot);
    }
}

/// One connection's way in, and what decides about it.
struct Gate<'a> {
    slot: usize,
    pillar: PillarId,
    env: &'a Env,
    peers: &'a mut PeerTable,
    clients: &'a mut ClientTable,
}

/// What came of a packet, and the connection that this one replaces.
type Passed = (Outcome, Option<usize>);

impl Gate<'_> {
    /// Takes one packet off the connection; `None` when no whole one is there.
    fn packet(mut self, conn: &mut Conn, core: &mut Core) -> Result<Option<Passed>, Close> {
        let malformed = |_| Close::Malformed("packet length");
        let mut longest = None;
        let Some(body) = conn.reader.packet().map_err(malformed)? else { return Ok(None) };
        let established = match &mut conn.phase {
            Phase::Answering => {
                // Whoever says to be somebody that is shut out is believed before any arithmetic.
                let claimed = Hello::decode(&mut Reader::new(body)).map(|hello| hello.initiator);
                if claimed.is_ok_and(|peer| self.shuts_out(peer, core)) {
                    return Err(Close::Banned);
                }
                let accepted = Responder::accept(&self.env.identity, &self.env.directory, body);
                let (established, answer) = accepted.map_err(|_| Close::Handshake)?;
                // The hello is checked against the number of pillars, not against this one.
                if established.pillar != self.pillar {
                    return Err(Close::Handshake);
                }
                if self.shuts_out(established.peer, core) {
                    return Err(Close::Banned);
                }
                conn.queue(&answer);
                conn.establish(established);
                return Ok(Some((Outcome::Flush, None)));
            }
            Phase::Calling { initiator, .. } => {
                let initiator = initiator.take().ok_or(Close::Handshake)?;
                initiator.finish(body).map_err(|_| Close::Handshake)?
            }
            Phase::Up(link) => {
                let opened = link.opener.open(body);
                let payload = opened.map_err(|_| Close::Malformed("seal"))?;
                core.counters.packets_in += 1;
                let replaced = if link.confirmed {
                    None
                } else {
                    longest = Some(link.packet_bytes_max);
                    self.confirm(link, core)?
                };
                let outcome = self.payload(link, payload, &mut conn.held, core)?;
                if let Some(longest) = longest {
                    conn.reader.set_max(longest);
                }
                return Ok(Some((outcome, replaced)));
            }
        };
        conn.reader.set_max(established.packet_bytes_max);
        conn.establish(established);
        let Phase::Up(link) = &mut conn.phase else { return Err(Close::Handshake) };
        let replaced = self.confirm(link, core)?;
        Ok(Some((Outcome::Flush, replaced)))
    }

    /// Whether `peer` gets no link at the moment because of what it sent before.
    fn shuts_out(&self, peer: Peer, core: &Core) -> bool {
        match peer {
            Peer::Replica(replica) => self.peers.shuns(replica, core.now.mono),
            Peer::Client(client) => self.env.bans.holds(client, core.now.mono),
        }
    }

    /// The other end has proved that it lives: from here on the link counts.
    fn confirm(&mut self, link: &mut Link, core: &mut Core) -> Result<Option<usize>, Close> {
        let replaced = match link.peer {
            Peer::Replica(peer) => {
                let up = self.peers.up(peer, link.incarnation, self.slot);
                let replaced = up.map_err(|_| Close::StaleLife)?;
                let (me, pillar, incarnation) = (self.env.me, self.pillar, link.incarnation);
                if self.peers.up_is_news(peer, core.now.mono) {
                    tracing::info!(%me, %pillar, %peer, %incarnation, "link up");
                }
                // Counted by `input`; a lane does not refuse to know of a link.
                let _ = core.input(Input::Connected { peer });
                if pillar == COORDINATOR {
                    core.deliveries.push(Delivery::Connected(peer));
                }
                replaced
            }
            Peer::Client(client) => {
                let up = self.clients.up(client, link.session, self.slot);
                up.map_err(|_| Close::Crowded)?;
                tracing::debug!(pillar = %self.pillar, %client, "client connected");
                None
            }
        };
        link.confirmed = true;
        Ok(replaced)
    }

    fn payload(
        &self,
        link: &mut Link,
        payload: &[u8],
        held: &mut VecDeque<Arc<Frame>>,
        core: &mut Core,
    ) -> Result<Outcome, Close> {
        match link.peer {
            Peer::Replica(from) => {
                let sender = Sender { from, incarnation: link.incarnation };
                self.messages(sender, payload, core).map_err(|Malformed(what)| {
                    core.garbage_from(from, what);
                    Close::Garbage(what)
                })?;
                Ok(Outcome::Done)
            }
            Peer::Client(client) => {
                let mut sampler = Sampler { client, unchecked: &mut link.unchecked };
                self.client_packet(&mut sampler, payload, held, core)
            }
        }
    }

    /// A packet of another replica: a header that says what the link proves, then messages.
    fn messages(&self, sender: Sender, payload: &[u8], core: &mut Core) -> Result<(), Malformed> {
        let mut r = Reader::new(payload);
        let expected = PeerHeader {
            epoch: self.env.epoch,
            sender: sender.from,
            pillar: self.pillar,
            incarnation: sender.incarnation,
        };
        if PeerHeader::decode(&mut r)? != expected {
            return Err(Malformed("packet header"));
        }
        let Sender { from, incarnation } = sender;
        let chief = self.pillar == COORDINATOR;
        while !r.is_empty() {
            let message = Message::decode(self.env.group, &mut r)?;
            core.counters.peer_messages += 1;
            match message {
                Message::Group(message) if chief => {
                    core.deliveries.push(Delivery::Group(sender, message));
                }
                Message::State(message) if chief => {
                    core.deliveries.push(Delivery::State(sender, message));
                }
                message => {
                    // Refusals are counted by `input`, per peer.
                    let _ = core.input(Input::Peer { from, incarnation, message });
                }
            }
        }
        Ok(())
    }

    fn client_packet(
        &self,
        sampler: &mut Sampler<'_>,
        payload: &[u8],
        held: &mut VecDeque<Arc<Frame>>,
        core: &mut Core,
    ) -> Result<Outcome, Close> {
        if payload.is_empty() {
            // The proof of life after the handshake.
            return Ok(Outcome::Done);
        }
        let split = PacketKind::split(payload).map_err(|e| Close::Garbage(e.0))?;
        match split {
            (PacketKind::Request, frames) => self.frames(sampler, frames, held, core),
            (PacketKind::StatusQuery, _) => Ok(Outcome::Status),
            (PacketKind::Goodbye, _) => Err(Close::Ended),
            (PacketKind::Reply | PacketKind::Status, _) => Err(Close::Garbage("packet kind")),
        }
    }

    fn frames(
        &self,
        sampler: &mut Sampler<'_>,
        bytes: &[u8],
        held: &mut VecDeque<Arc<Frame>>,
        core: &mut Core,
    ) -> Result<Outcome, Close> {
        if core.draining {
            return Ok(Outcome::Done);
        }
        let mut r = Reader::new(bytes);
        let repeats = core.counters.repeats;
        while !r.is_empty() && held.len() < HELD_FRAMES_MAX {
            let frame = Frame::decode(self.env.group, &mut r);
            let frame = frame.map_err(|e| Close::Garbage(e.0))?;
            if frame.id().client != sampler.client {
                return Err(Close::Impostor);
            }
            let ahead = frame.id().id.saturating_sub(frame.ack());
            if frame.kind() == FrameKind::Request && ahead > limits::STREAM_WINDOW {
                return Err(Close::Window);
            }
            if !sampler.passes(&frame, &self.env.keys) {
                return Err(Close::Forged);
            }
            core.counters.frames += 1;
            let frame = Arc::new(frame);
            let full = !held.is_empty()
                || core.journal.behind()
                || core.input(Input::Request(Arc::clone(&frame))) == Err(Reject::Quota);
            if full {
                held.push_back(frame);
            }
        }
        let goes_on = held.is_empty() && core.counters.repeats == repeats;
        Ok(if goes_on { Outcome::Done } else { Outcome::Quota })
    }
}

/// Looks at the authenticators of some frames of one connection.
struct Sampler<'a> {
    client: ClientId,
    /// Frames until the next look.
    unchecked: &'a mut u32,
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

/// Whether there is room for the packet that is arriving. Takes it, or gives it back, for large
/// ones.
fn has_room(conn: &mut Conn, clients: &mut ClientTable) -> bool {
    let Some(client) = conn.client() else { return true };
    let wanted = conn.reader.announced().filter(|bytes| *bytes > PACKET_BYTES_FREE).unwrap_or(0);
    if wanted < conn.reserved {
        clients.release(client, conn.reserved - wanted);
        conn.reserved = wanted;
        return true;
    }
    // What this connection has taken stands in nobody's way but others'.
    let fits = wanted == conn.reserved || clients.reserve(client, wanted - conn.reserved);
    if fits {
        conn.reserved = wanted;
    }
    fits
}

/// Hands over the frames that were held back, as far as the client's quota has room by now.
fn admit_held(held: &mut VecDeque<Arc<Frame>>, core: &mut Core) -> Result<(), Reject> {
    if core.draining {
        held.clear();
    }
    while let Some(frame) = held.front() {
        if core.journal.behind() {
            return Err(Reject::Quota);
        }
        if core.input(Input::Request(Arc::clone(frame))) == Err(Reject::Quota) {
            return Err(Reject::Quota);
        }
        held.pop_front();
    }
    // An idle connection holds no buffers.
    if held.capacity() > 0 {
        *held = VecDeque::new();
    }
    Ok(())
}
