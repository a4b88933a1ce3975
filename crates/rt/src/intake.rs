//! From a connection's bytes to the lane: handshakes, packets, messages and request frames.
//!
//! A [`Door`] has the connections of one pillar and reads them; what packets end in is an
//! [`Inlet`]: the core on the same thread, or, in a task-oriented pipeline, another thread.
//!
//! Reading is fair: each principal gets a bounded number of bytes and frames per turn, over all
//! its connections, and so does each replica; who has more comes again in the next turn, in
//! turn. A connection whose client has reached its quota or repeats itself too often, or whose
//! packet has no room yet, is not read for a while, so that TCP holds the client back. Where its
//! other end has hung up, nobody waits for what is left of it, and it is closed instead.
//!
//! Not here: what a lane does with its inputs, and what a packet is sealed with (`auth`).

use std::io::ErrorKind;

use auth::{AuthError, Hello, Peer, Responder};
use base::{ClientId, PillarId, Reader, Span, Time};

use crate::clients::ClientTable;
use crate::conn::{Conn, Link, Phase, ReadOutcome};
use crate::inlet::{Inlet, Outcome};
use crate::links::{Close, Env, Links};
use crate::peers::PeerTable;
use crate::strangers::Strangers;

/// What one connection may read in one turn, in bytes.
const READ_BYTES_PER_TURN: usize = 1 << 20;
/// What a frame costs its principal's share besides its bytes.
pub(crate) const FRAME_COST_BYTES: usize = 512;
/// Every connection has room for a packet of so many bytes; larger ones share their client's.
const PACKET_BYTES_FREE: usize = 64 << 10;
/// Most questions that one connection may have in one turn, each of which is answered within
/// the turn.
const QUESTIONS_MAX: u32 = 1024;
/// How long a client at its quota is not listened to.
pub(crate) const QUOTA_PAUSE: Span = Span::millis(5);
/// How long a client is not listened to for each frame that it repeats beyond its allowance: many
/// times what it takes to read one, so that repeating itself buys nobody a replica's time.
pub(crate) const REPEAT_PAUSE: Span = Span::micros(100);

/// What came of the packets that had arrived.
enum Verdict {
    /// All are done; more bytes are wanted.
    Hungry,
    /// The client has reached its quota, or repeats itself too often.
    Pause,
    /// The connection is to be closed.
    Close(Close),
}

/// The connections of one pillar, and those of them that are not read for a while.
pub(crate) struct Door {
    pub(crate) links: Links,
    /// Clients that asked how we are.
    pub(crate) status_asked: Vec<usize>,
    /// Connections of peers that pause; those of clients are in their table.
    paused_peers: Vec<usize>,
    /// When connections that pause are tried again, one of each client.
    resume_at: Option<Time>,
}

impl Door {
    pub(crate) fn new(links: Links) -> Door {
        let (status_asked, paused_peers) = (Vec::new(), Vec::new());
        Door { links, status_asked, paused_peers, resume_at: None }
    }

    /// Does what is due on the connections.
    pub(crate) fn begin(&mut self, now: Time) {
        self.links.on_time(now);
        if self.resume_at.is_some_and(|at| at <= now) {
            let mut again = std::mem::take(&mut self.paused_peers);
            again.extend(self.links.clients.all_first_paused());
            again.into_iter().for_each(|slot| self.resume(slot));
            let more = self.links.clients.any_paused();
            self.resume_at = more.then(|| now.after(QUOTA_PAUSE));
        }
    }

    /// What was taken off the connection on `slot` elsewhere makes room for more.
    pub(crate) fn resume(&mut self, slot: usize) {
        if let Some(conn) = self.links.conns.get_mut(slot)
            && conn.paused
        {
            (conn.paused, conn.listed) = (false, true);
            let client = conn.client();
            client.inspect(|client| self.links.clients.resumed(*client, slot));
            self.links.ready.push(slot);
        }
    }

    /// When [`Door::begin`] is wanted next.
    pub(crate) fn next_time(&self) -> Option<Time> {
        [self.links.next_time(), self.resume_at].into_iter().flatten().min()
    }

    /// Writes what the turn brought and closes what is to be closed. Returns bytes written.
    pub(crate) fn flush(&mut self, now: Time) -> u64 {
        let written = self.links.flush();
        self.links.bury(now);
        written
    }

    /// Who asked how we are since this was called last: they may ask again.
    pub(crate) fn asked(&mut self) -> Vec<usize> {
        let asked = std::mem::take(&mut self.status_asked);
        for slot in &asked {
            if let Some(conn) = self.links.conns.get_mut(*slot) {
                conn.questions = 0;
            }
        }
        asked
    }

    /// Reads what has arrived, within bounds.
    pub(crate) fn read<I: Inlet>(&mut self, inlet: &mut I) {
        let now = inlet.now();
        let mut ready = std::mem::take(&mut self.links.ready);
        let conns = &mut self.links.conns;
        let is_stranger = |conn: &mut Conn| matches!(conn.phase, Phase::Answering);
        let busy = ready.iter().any(|slot| conns.get_mut(*slot).is_some_and(|c| !is_stranger(c)));
        self.links.strangers.begin_turn(now, busy);
        self.links.clients.begin_turn(now);
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
            if client.is_some_and(|client| links.clients.ignores(client, now)) {
                self.pause(slot, now);
                continue;
            }
            self.read_conn(slot, inlet);
            self.resume_next(slot, client);
        }
        // Those that stay readable were listed anew, but whoever had no turn comes first; the
        // old list lends its memory.
        ready.append(&mut self.links.deferred);
        ready.append(&mut self.links.ready);
        self.links.ready = ready;
    }

    fn read_conn<I: Inlet>(&mut self, slot: usize, inlet: &mut I) {
        let mut budget = READ_BYTES_PER_TURN;
        loop {
            let before = *inlet.counters();
            let verdict = self.packets(slot, inlet);
            let links = &mut self.links;
            let Some(conn) = links.conns.get_mut(slot) else { return };
            if let Some(client) = conn.client() {
                let frames = usize::try_from(inlet.counters().frames - before.frames);
                let cost = frames.unwrap_or(usize::MAX).saturating_mul(FRAME_COST_BYTES);
                links.clients.spend(client, cost);
                let repeats = inlet.counters().repeats - before.repeats;
                let pause = Span(repeats.saturating_mul(REPEAT_PAUSE.0));
                links.clients.ignore(client, inlet.now(), pause);
                budget = budget.min(links.clients.share(client));
            }
            match verdict {
                Verdict::Hungry if has_room(conn, &mut links.clients) => {}
                Verdict::Hungry | Verdict::Pause => return self.pause(slot, inlet.now()),
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
                    inlet.counters().bytes_in += n as u64;
                    if let Some(client) = conn.client() {
                        self.links.clients.spend(client, n);
                    }
                }
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    // Only shared memory has a form of its own that one can offend against.
                    let why = Close::Malformed("shared memory");
                    return self.links.doomed.push((slot, why));
                }
                Ok(ReadOutcome::Closed) | Err(_) => {
                    return self.links.doomed.push((slot, Close::Ended));
                }
            }
        }
    }

    /// What came on `slot` was taken: then there may be room for what another connection of its
    /// client waits with, which is tried in the next turn.
    fn resume_next(&mut self, slot: usize, client: Option<ClientId>) {
        let Some(client) = client.filter(|_| self.links.clients.any_paused()) else { return };
        let paused = self.links.conns.get_mut(slot).is_none_or(|conn| conn.paused);
        if let Some(next) = self.links.clients.first_paused(client).filter(|_| !paused) {
            self.resume(next);
        }
    }

    /// Leaves what has come on `slot` where it is for a while.
    fn pause(&mut self, slot: usize, now: Time) {
        let Some(conn) = self.links.conns.get_mut(slot) else { return };
        match conn.client() {
            Some(_) if conn.hangup => return self.links.doomed.push((slot, Close::Ended)),
            Some(client) => self.links.clients.pause(client, slot),
            None => self.paused_peers.push(slot),
        }
        conn.paused = true;
        // Whoever pauses later does not make those wait longer who paused before.
        self.resume_at.get_or_insert(now.after(QUOTA_PAUSE));
    }

    /// Handles the whole packets that have arrived on `slot`.
    fn packets<I: Inlet>(&mut self, slot: usize, inlet: &mut I) -> Verdict {
        loop {
            let links = &mut self.links;
            let Links { conns, peers, clients, strangers, env, pillar, doomed, counters, .. } =
                links;
            let Some(conn) = conns.get_mut(slot) else { return Verdict::Hungry };
            match inlet.admit(conn) {
                Ok(true) => {}
                Ok(false) => return Verdict::Pause,
                Err(why) => return Verdict::Close(why),
            }
            let gate = Gate { slot, pillar: *pillar, env, peers, clients, strangers, doomed };
            let outcome = match gate.packet(conn, inlet) {
                Ok(None) => return Verdict::Hungry,
                Ok(Some(outcome)) => outcome,
                Err(why) => return Verdict::Close(why),
            };
            match outcome {
                Outcome::Done => {}
                Outcome::Flush => {
                    counters.established += 1;
                    links.after_handshake(slot);
                    links.plan_scan(inlet.now());
                    if let Some(conn) = links.conns.get_mut(slot) {
                        inlet.answered(slot, conn);
                    }
                }
                Outcome::Status => {
                    if let Err(why) = self.asks(slot) {
                        return Verdict::Close(why);
                    }
                }
                Outcome::Quota => return Verdict::Pause,
            }
            if I::HANDS_OVER
                && let Some(conn) = self.links.conns.get_mut(slot)
                && conn.confirmed()
                && conn.away.name.is_none()
            {
                inlet.hand_over(slot, conn);
            }
        }
    }

    /// The client on `slot` asks how we are.
    ///
    /// # Errors
    /// When it asks too often.
    pub(crate) fn asks(&mut self, slot: usize) -> Result<(), Close> {
        let Some(conn) = self.links.conns.get_mut(slot) else { return Ok(()) };
        conn.questions += 1;
        match conn.questions {
            1 => self.status_asked.push(slot),
            2..=QUESTIONS_MAX => {}
            _ => return Err(Close::Questions),
        }
        Ok(())
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
    strangers: &'a mut Strangers,
    doomed: &'a mut Vec<(usize, Close)>,
}

impl Gate<'_> {
    /// Takes one packet off the connection; `None` when no whole one is there.
    fn packet<I: Inlet>(
        mut self,
        conn: &mut Conn,
        inlet: &mut I,
    ) -> Result<Option<Outcome>, Close> {
        let malformed = |_| Close::Malformed("packet length");
        let mut longest = None;
        let Some(body) = conn.reader.packet().map_err(malformed)? else { return Ok(None) };
        let established = match &mut conn.phase {
            Phase::Answering => {
                // Whoever says to be somebody that is shut out is believed before any arithmetic.
                let claimed = Hello::decode(&mut Reader::new(body)).map(|hello| hello.initiator);
                if let Some(why) = claimed.ok().and_then(|peer| self.refuses(peer, inlet.now())) {
                    return Err(why);
                }
                let began = self.env.clock.mono();
                let accepted = Responder::accept(&self.env.identity, &self.env.directory, body);
                self.strangers.took(self.env.clock.mono().since(began));
                let (established, answer) = accepted.map_err(|error| match error {
                    AuthError::Group { .. } => Close::Foreign,
                    _ => Close::Handshake,
                })?;
                // The hello is checked against the number of pillars, not against this one.
                if established.pillar != self.pillar {
                    return Err(Close::Handshake);
                }
                if let Some(why) = self.refuses(established.peer, inlet.now()) {
                    return Err(why);
                }
                conn.queue(&answer);
                conn.establish(established);
                return Ok(Some(Outcome::Flush));
            }
            Phase::Calling { initiator, .. } => {
                let initiator = initiator.take().ok_or(Close::Handshake)?;
                initiator.finish(body).map_err(|_| Close::Handshake)?
            }
            Phase::Up(link) => {
                let Some(opener) = &mut link.opener else {
                    inlet.sealed(&mut conn.away, body);
                    return Ok(Some(Outcome::Done));
                };
                let payload = opener.open(body).map_err(|_| Close::Malformed("seal"))?;
                inlet.counters().packets_in += 1;
                if !link.confirmed {
                    longest = Some(link.packet_bytes_max);
                    self.confirm(link, inlet)?;
                }
                let outcome = inlet.payload(self.env, link, payload, &mut conn.held)?;
                if let Some(longest) = longest {
                    conn.reader.set_max(longest);
                }
                return Ok(Some(outcome));
            }
        };
        conn.reader.set_max(established.packet_bytes_max);
        conn.establish(established);
        let Phase::Up(link) = &mut conn.phase else { return Err(Close::Handshake) };
        self.confirm(link, inlet)?;
        Ok(Some(Outcome::Flush))
    }

    /// Why `peer` gets no link at the moment, if it gets none: because of what it sent before, or
    /// because it has made many of late.
    fn refuses(&self, peer: Peer, now: Time) -> Option<Close> {
        let (banned, hurries) = match peer {
            Peer::Replica(replica) => (self.peers.shuns(replica, now), false),
            Peer::Client(client) => {
                (self.env.bans.holds(client, now), self.clients.hurries(client, now))
            }
        };
        if banned { Some(Close::Banned) } else { hurries.then_some(Close::Crowded) }
    }

    /// The other end has proved that it lives: from here on the link counts, and the connection
    /// that it replaces is doomed, whatever becomes of the packet that proved it.
    fn confirm<I: Inlet>(&mut self, link: &mut Link, inlet: &mut I) -> Result<(), Close> {
        match link.peer {
            Peer::Replica(peer) => {
                let up = self.peers.up(peer, link.incarnation, self.slot);
                let replaced = up.map_err(|_| Close::StaleLife)?;
                self.doomed.extend(replaced.map(|old| (old, Close::Replaced)));
                let (me, pillar, incarnation) = (self.env.me, self.pillar, link.incarnation);
                if self.peers.up_is_news(peer, inlet.now()) {
                    tracing::info!(%me, %pillar, %peer, %incarnation, "link up");
                }
                inlet.connected(pillar, peer);
            }
            Peer::Client(client) => {
                let up = self.clients.up(client, link.session, self.slot);
                up.map_err(|_| {
                    self.clients.turned_away(client, inlet.now());
                    Close::Crowded
                })?;
                tracing::debug!(pillar = %self.pillar, %client, "client connected");
            }
        }
        link.confirmed = true;
        Ok(())
    }
}

/// Whether there is room for the packet that is arriving. Takes it, or gives it back, for large
/// ones.
fn has_room(conn: &mut Conn, clients: &mut ClientTable) -> bool {
    let Some(client) = conn.client() else { return true };
    let large = |bytes: usize| if bytes > PACKET_BYTES_FREE { bytes } else { 0 };
    let wanted = large(conn.reader.announced().unwrap_or(0)) + large(conn.away.bytes);
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
