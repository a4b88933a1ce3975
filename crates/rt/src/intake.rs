//! From a connection's bytes to the lane: handshakes, packets, messages and request frames.
//!
//! Reading is fair: each connection gets a bounded number of bytes per turn, and who has more
//! comes again in the next turn. A connection whose client has reached its quota is not read for
//! a while, so that TCP holds the client back.
//!
//! Not here: what a lane does with its inputs, and what a packet is sealed with (`auth`).

use std::collections::VecDeque;
use std::sync::Arc;

use auth::{Peer, Responder};
use base::packet::{PacketKind, PeerHeader};
use base::{ClientId, Frame, Malformed, PillarId, Reader, Span};
use proto::pbft::msg::Message;
use proto::pbft::{Input, Reject};

use crate::clients::ClientTable;
use crate::conn::{Conn, Link, Phase, ReadOutcome};
use crate::lane_host::{Core, LaneHost, Sender};
use crate::links::{Close, Env, Links};
use crate::peers::PeerTable;

/// What one connection may read in one turn, in bytes.
const READ_BYTES_PER_TURN: usize = 1 << 20;
/// How long a client at its quota is not listened to.
const QUOTA_PAUSE: Span = Span::millis(5);
/// Most frames of one packet that are kept until the quota has room for them; the client sends
/// again whatever is beyond. One packet bounds their bytes.
const HELD_FRAMES_MAX: usize = base::limits::PENDING_FRAMES_PER_CLIENT_MAX;
/// Most strangers that are listened to in one turn: a hello costs some 100 µs of arithmetic, and
/// a flood of them must not make those wait who have a link.
const STRANGERS_PER_TURN: usize = 16;

/// What came of the packets that had arrived.
enum Verdict {
    /// All are done; more bytes are wanted.
    Hungry,
    /// The client has reached its quota.
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
        let mut strangers = STRANGERS_PER_TURN;
        for slot in ready.drain(..) {
            if let Some(conn) = self.links.conns.get_mut(slot) {
                if matches!(conn.phase, Phase::Answering) {
                    if strangers == 0 {
                        self.links.ready.push(slot);
                        continue;
                    }
                    strangers -= 1;
                }
                conn.listed = false;
                self.read_conn(slot);
            }
        }
        // Those that stay readable were listed anew; the old list lends its memory.
        ready.append(&mut self.links.ready);
        self.links.ready = ready;
        self.carry_out();
        self.links.bury(self.core.now.mono);
    }

    fn read_conn(&mut self, slot: usize) {
        let mut budget = READ_BYTES_PER_TURN;
        loop {
            match self.packets(slot) {
                Verdict::Hungry => {}
                Verdict::Pause => {
                    if let Some(conn) = self.links.conns.get_mut(slot) {
                        conn.paused = true;
                    }
                    self.paused.push(slot);
                    // Whoever pauses later does not make those wait longer who paused before.
                    self.resume_at.get_or_insert(self.core.now.mono.after(QUOTA_PAUSE));
                    return;
                }
                Verdict::Close(why) => return self.links.doomed.push((slot, why)),
            }
            let Some(conn) = self.links.conns.get_mut(slot) else { return };
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
                }
                Ok(ReadOutcome::Closed) | Err(_) => {
                    return self.links.doomed.push((slot, Close::Ended));
                }
            }
        }
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
                Outcome::Status => self.status_asked.push(slot),
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
        let Some(body) = conn.reader.packet().map_err(malformed)? else { return Ok(None) };
        let established = match &mut conn.phase {
            Phase::Answering => {
                let accepted = Responder::accept(&self.env.identity, &self.env.directory, body);
                let (established, answer) = accepted.map_err(|_| Close::Handshake)?;
                // The hello is checked against the number of pillars, not against this one.
                if established.pillar != self.pillar {
                    return Err(Close::Handshake);
                }
                conn.queue(&answer);
                conn.establish(established, false);
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
                let replaced = if link.confirmed { None } else { self.confirm(link, core)? };
                let outcome = self.payload(link, payload, &mut conn.held, core)?;
                return Ok(Some((outcome, replaced)));
            }
        };
        conn.establish(established, false);
        let Phase::Up(link) = &mut conn.phase else { return Err(Close::Handshake) };
        let replaced = self.confirm(link, core)?;
        Ok(Some((Outcome::Flush, replaced)))
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
        link: &Link,
        payload: &[u8],
        held: &mut VecDeque<Arc<Frame>>,
        core: &mut Core,
    ) -> Result<Outcome, Close> {
        match link.peer {
            Peer::Replica(from) => {
                let sender = Sender { from, incarnation: link.incarnation };
                self.messages(sender, payload, core).map_err(|e| Close::Malformed(e.0))?;
                Ok(Outcome::Done)
            }
            Peer::Client(client) => self.client_packet(client, payload, held, core),
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
        while !r.is_empty() {
            let message = Message::decode(self.env.group, &mut r)?;
            core.counters.peer_messages += 1;
            // Refusals are counted by `input`, per peer.
            let _ = core.input(Input::Peer { from, incarnation, message });
        }
        Ok(())
    }

    fn client_packet(
        &self,
        client: ClientId,
        payload: &[u8],
        held: &mut VecDeque<Arc<Frame>>,
        core: &mut Core,
    ) -> Result<Outcome, Close> {
        if payload.is_empty() {
            // The proof of life after the handshake.
            return Ok(Outcome::Done);
        }
        let split = PacketKind::split(payload).map_err(|e| Close::Malformed(e.0))?;
        match split {
            (PacketKind::Request, frames) => self.frames(client, frames, held, core),
            (PacketKind::StatusQuery, _) => Ok(Outcome::Status),
            (PacketKind::Goodbye, _) => Err(Close::Ended),
            (PacketKind::Reply | PacketKind::Status, _) => Err(Close::Malformed("packet kind")),
        }
    }

    fn frames(
        &self,
        client: ClientId,
        bytes: &[u8],
        held: &mut VecDeque<Arc<Frame>>,
        core: &mut Core,
    ) -> Result<Outcome, Close> {
        if core.draining {
            return Ok(Outcome::Done);
        }
        let mut r = Reader::new(bytes);
        while !r.is_empty() && held.len() < HELD_FRAMES_MAX {
            let frame = Frame::decode(self.env.group, &mut r);
            let frame = frame.map_err(|e| Close::Malformed(e.0))?;
            if frame.id().client != client {
                return Err(Close::Impostor);
            }
            core.counters.frames += 1;
            let frame = Arc::new(frame);
            let full = !held.is_empty()
                || core.input(Input::Request(Arc::clone(&frame))) == Err(Reject::Quota);
            if full {
                held.push_back(frame);
            }
        }
        Ok(if held.is_empty() { Outcome::Done } else { Outcome::Quota })
    }
}

/// Hands over the frames that were held back, as far as the client's quota has room by now.
fn admit_held(held: &mut VecDeque<Arc<Frame>>, core: &mut Core) -> Result<(), Reject> {
    if core.draining {
        held.clear();
    }
    while let Some(frame) = held.front() {
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
