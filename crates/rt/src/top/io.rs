//! The I/O threads of a pipeline: one for clients, which accepts everybody, and one for peers.
//!
//! They shake hands and cut packets out of what they read, with the code and the bounds of the
//! pillars (`intake`). Once a link has proved to live, its halves are handed over: the opening
//! one to an authentication thread, the sealing one to that as well (peers) or to the thread of
//! the replies (clients). From then on sealed packets pass through here as they are, a turn's
//! packets of a connection in one piece. A replica that dials is passed on to the peers' thread
//! as soon as it has said who it is.
//!
//! Invariant: a connection has at most [`HANDED_BYTES_MAX`] and one packet more on the way to the
//! protocol's thread; it is read again when that has taken enough.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use auth::Peer;
use base::packet::PacketKind;
use base::{Frame, Now, PillarId, ReplicaId, Span, Time};
use mio::{Events, Interest};

use super::HANDED_BYTES_MAX;
use super::auth::of_peer;
use super::logic::Thirst;
use super::wire::{Back, FromAuth, Half, Packets, Reverse, Taken, ToAuth, ToReplies};
use crate::conn::{Away, Conn, ConnId, Link, Phase};
use crate::counters::TrafficCounters;
use crate::event_loop::{BELL, Task};
use crate::inlet::{Inlet, Outcome};
use crate::intake::{Door, FRAME_COST_BYTES, REPEAT_PAUSE};
use crate::links::{Close, Env};
use crate::logic::Sender;
use crate::report::{EndSnapshot, ThreadSnapshot};
use crate::ring::{RingReceiver, RingSender};
use crate::status::StatusDesk;

/// The rings that an I/O thread reads.
pub(super) struct IoMail {
    pub(super) from_auth: Vec<RingReceiver<FromAuth>>,
    pub(super) from_logic: RingReceiver<Taken>,
    /// At the clients' thread: connections to close.
    pub(super) from_replies: Option<RingReceiver<ConnId>>,
    /// At the peers' thread: connections of replicas that have dialled.
    pub(super) from_clients: Option<RingReceiver<Box<Conn>>>,
}

/// An I/O thread.
pub(super) struct IoTask {
    door: Door,
    relay: Relay,
    mail: IoMail,
    desk: StatusDesk,
    overflowing: bool,
}

/// What is elsewhere of the link of one slot.
#[derive(Default)]
struct Home {
    /// Which authentication thread has it.
    auth: usize,
    /// Bytes that are sealed for it and not written.
    backlog: Arc<AtomicUsize>,
    /// Of these, bytes that have come here.
    queued: usize,
}

/// What packets end in here: other threads.
pub(super) struct Relay {
    now: Now,
    counters: TrafficCounters,
    to_auth: Vec<RingSender<ToAuth>>,
    /// At the clients' thread.
    to_replies: Option<RingSender<ToReplies>>,
    to_peers: Option<RingSender<Box<Conn>>>,
    /// The packets of one connection that were read just now, and whose thread they are for.
    gathered: Option<(ConnId, Packets)>,
    /// What the packet carried that proved its link to live.
    early: Vec<u8>,
    /// Of each slot.
    homes: Vec<Home>,
    /// Connections that go on elsewhere.
    emigrants: Vec<usize>,
    /// Connections that cannot be handed over.
    failed: Vec<usize>,
    serial: u64,
    thirst: Arc<Thirst>,
}

impl Relay {
    pub(super) fn new(
        to_auth: Vec<RingSender<ToAuth>>,
        (to_replies, to_peers): (Option<RingSender<ToReplies>>, Option<RingSender<Box<Conn>>>),
        thirst: Arc<Thirst>,
    ) -> Relay {
        Relay {
            now: Now::default(),
            counters: TrafficCounters::default(),
            to_auth,
            to_replies,
            to_peers,
            gathered: None,
            early: Vec::new(),
            homes: Vec::new(),
            emigrants: Vec::new(),
            failed: Vec::new(),
            serial: 0,
            thirst,
        }
    }

    /// Sends the packets that were gathered.
    fn pass_on(&mut self) {
        if let Some((conn, packets)) = self.gathered.take() {
            let home = self.home(conn);
            self.to_auth[home].push(ToAuth::Sealed(conn, packets));
        }
    }

    fn home(&self, conn: ConnId) -> usize {
        self.homes.get(conn.slot).map_or(0, |home| home.auth)
    }

    /// The connection is closed.
    fn gone(&mut self, conn: ConnId) {
        self.pass_on();
        let home = self.home(conn);
        self.to_auth[home].push(ToAuth::Gone(conn));
        if let Some(replies) = &mut self.to_replies {
            replies.push(ToReplies::Gone(conn));
        }
    }

    fn flush(&mut self) -> bool {
        self.pass_on();
        let mut over = self.to_replies.as_mut().is_some_and(RingSender::flush);
        over |= self.to_peers.as_mut().is_some_and(RingSender::flush);
        for ring in &mut self.to_auth {
            over |= ring.flush();
        }
        over
    }

    /// Takes the halves of a link. `None` when the system refuses a second descriptor.
    fn take_halves(&mut self, conn: &mut Conn, name: ConnId) -> Option<(usize, Box<Half>)> {
        let Phase::Up(link) = &mut conn.phase else { return None };
        let (opener, sealer) = (link.opener.take()?, link.sealer.take()?);
        let (peer, unchecked) = (link.peer, link.unchecked);
        let (home, from, back) = match peer {
            Peer::Client(client) => {
                let session = link.session;
                let stream = conn.stream.twin().ok()?;
                let reverse = Box::new(Reverse { client, session, sealer, stream });
                self.to_replies.as_mut()?.push(ToReplies::Link(name, reverse));
                (name.slot % self.to_auth.len(), ReplicaId(0), None)
            }
            Peer::Replica(from) => {
                let backlog = Arc::new(AtomicUsize::new(0));
                (of_peer(from, self.to_auth.len()), from, Some(Back { sealer, backlog }))
            }
        };
        let sender = Sender { from, incarnation: link.incarnation };
        Some((home, Box::new(Half { peer, sender, opener, unchecked, avoids: None, back })))
    }
}

impl Inlet for Relay {
    const HANDS_OVER: bool = true;

    fn now(&self) -> Time {
        self.now.mono
    }

    fn counters(&mut self) -> &mut TrafficCounters {
        &mut self.counters
    }

    fn admit(&mut self, conn: &mut Conn) -> Result<bool, Close> {
        let fits = conn.away.bytes < HANDED_BYTES_MAX;
        if !fits {
            // Seen before this thread sleeps: see `Returns`.
            self.thirst.waits.store(true, Ordering::Relaxed);
        }
        Ok(fits)
    }

    // The authentication thread tells the protocol's once it can seal for the peer.
    fn connected(&mut self, _: PillarId, _: ReplicaId) {}

    fn payload(
        &mut self,
        _: &Env,
        _: &mut Link,
        payload: &[u8],
        _: &mut VecDeque<Arc<Frame>>,
    ) -> Result<Outcome, Close> {
        self.early.clear();
        self.early.extend_from_slice(payload);
        Ok(Outcome::Done)
    }

    fn sealed(&mut self, away: &mut Away, body: &[u8]) {
        let Some(conn) = away.name else { return };
        if self.gathered.as_ref().is_some_and(|(other, _)| *other != conn) {
            self.pass_on();
        }
        let (_, packets) = self.gathered.get_or_insert_with(|| (conn, Packets::default()));
        packets.bytes.extend_from_slice(body);
        packets.ends.push(packets.bytes.len());
        away.bytes += body.len();
        self.counters.packets_in += 1;
    }

    fn hand_over(&mut self, slot: usize, conn: &mut Conn) {
        self.serial += 1;
        let name = ConnId { slot, serial: self.serial };
        conn.away.name = Some(name);
        let Some((home, half)) = self.take_halves(conn, name) else {
            return self.failed.push(slot);
        };
        if self.homes.len() <= slot {
            self.homes.resize_with(slot + 1, Default::default);
        }
        let backlog = half.back.as_ref().map(|back| Arc::clone(&back.backlog));
        self.homes[slot] = Home { auth: home, backlog: backlog.unwrap_or_default(), queued: 0 };
        self.pass_on();
        self.to_auth[home].push(ToAuth::Link(name, half));
        if !self.early.is_empty() {
            self.to_auth[home].push(ToAuth::Opened(name, std::mem::take(&mut self.early)));
        }
    }

    fn answered(&mut self, slot: usize, conn: &Conn) {
        let is_peer = conn.link().is_some_and(|link| matches!(link.peer, Peer::Replica(_)));
        if is_peer && self.to_peers.is_some() {
            self.emigrants.push(slot);
        }
    }
}

impl IoTask {
    pub(super) fn new(door: Door, relay: Relay, mail: IoMail, desk: StatusDesk) -> IoTask {
        IoTask { door, relay, mail, desk, overflowing: false }
    }

    /// Takes what other threads say about connections. True when there was something.
    fn take_mail(&mut self) -> bool {
        let mut any = false;
        while let Some(conn) = self.mail.from_clients.as_mut().and_then(RingReceiver::pop) {
            any = true;
            self.immigrate(*conn);
        }
        for k in 0..self.mail.from_auth.len() {
            while let Some(message) = self.mail.from_auth[k].pop() {
                any = true;
                match message {
                    FromAuth::Write(conn, bytes) => self.write(conn, &bytes),
                    FromAuth::Close(conn, why) => self.doom(conn, why),
                    FromAuth::Asks(conn) if self.conn(conn).is_some() => {
                        if let Err(why) = self.door.asks(conn.slot) {
                            self.doom(conn, why);
                        }
                    }
                    FromAuth::Asks(_) => {}
                    FromAuth::Avoids(conn, replicas) => {
                        if let Some(replies) = &mut self.relay.to_replies {
                            replies.push(ToReplies::Avoid(conn, replicas));
                        }
                    }
                }
            }
        }
        while let Some(conn) = self.mail.from_replies.as_mut().and_then(RingReceiver::pop) {
            any = true;
            self.doom(conn, Close::Ended);
        }
        while let Some(taken) = self.mail.from_logic.pop() {
            any = true;
            self.taken(taken);
        }
        any
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.door.links.conns.get_mut(id.slot).filter(|conn| conn.away.name == Some(id))
    }

    fn doom(&mut self, id: ConnId, why: Close) {
        if self.conn(id).is_some() {
            self.door.links.doomed.push((id.slot, why));
        }
    }

    fn write(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(conn) = self.conn(id) else { return };
        conn.queue(bytes);
        if let Some(home) = self.relay.homes.get_mut(id.slot) {
            home.queued += bytes.len();
        }
        self.door.links.mark_dirty(id.slot);
    }

    /// The protocol's thread has taken so much of a connection.
    fn taken(&mut self, taken: Taken) {
        let now = self.relay.now.mono;
        let Some(conn) = self.conn(taken.conn) else { return };
        conn.away.bytes = conn.away.bytes.saturating_sub(taken.bytes);
        let (client, paused) = (conn.client(), conn.paused);
        let room = conn.away.bytes < HANDED_BYTES_MAX;
        if let Some(client) = client {
            let clients = &mut self.door.links.clients;
            clients.spend(client, taken.frames.saturating_mul(FRAME_COST_BYTES));
            let pause = Span(taken.repeats.saturating_mul(REPEAT_PAUSE.0));
            clients.ignore(client, now, pause);
        }
        if paused && room {
            self.door.resume(taken.conn.slot);
        }
    }

    /// A replica has dialled, and was answered at the clients' thread.
    fn immigrate(&mut self, conn: Conn) {
        let now = self.relay.now.mono;
        let links = &mut self.door.links;
        links.make_room(now);
        let shunned = conn.link().is_some_and(|link| match link.peer {
            Peer::Replica(peer) => links.peers.shuns(peer, now),
            Peer::Client(_) => true,
        });
        if shunned {
            links.counters.banned += 1;
            return;
        }
        if let Some(slot) = links.take_in(conn, Interest::READABLE | Interest::WRITABLE) {
            // It may have said something before it was registered here.
            if let Some(conn) = links.conns.get_mut(slot) {
                (conn.readable, conn.listed) = (true, true);
            }
            links.ready.push(slot);
            links.mark_dirty(slot);
            links.plan_scan(now);
        }
    }

    fn after_reading(&mut self) {
        for slot in std::mem::take(&mut self.relay.emigrants) {
            let conn = self.door.links.release(slot);
            if let (Some(conn), Some(peers)) = (conn, &mut self.relay.to_peers) {
                peers.push(conn);
            }
        }
        for slot in std::mem::take(&mut self.relay.failed) {
            self.door.links.doomed.push((slot, Close::Crowded));
        }
    }

    fn answer_status(&mut self) {
        if self.door.status_asked.is_empty() {
            return;
        }
        let now = self.relay.now.mono;
        let (door, relay) = (&mut self.door, &self.relay);
        let mut payload = PacketKind::Status.alone().to_vec();
        payload.extend_from_slice(self.desk.json(now, || snapshot(door, relay)));
        let payload = Arc::new(payload);
        for slot in self.door.asked() {
            self.reply(slot, |name| ToReplies::Status(name, Arc::clone(&payload)));
        }
    }

    /// Has something sent to a client.
    fn reply(&mut self, slot: usize, message: impl FnOnce(ConnId) -> ToReplies) {
        let name = self.door.links.conns.get_mut(slot).and_then(|conn| conn.away.name);
        if let (Some(name), Some(replies)) = (name, &mut self.relay.to_replies) {
            replies.push(message(name));
        }
    }

    fn flush(&mut self) {
        let written = self.door.flush(self.relay.now.mono);
        self.relay.counters.bytes_out += written;
        for conn in std::mem::take(&mut self.door.links.gone) {
            self.relay.gone(conn);
        }
        self.overflowing = self.relay.flush();
    }

    /// Tells the authentication threads how much waits to be written to each peer.
    fn note_backlogs(&mut self) {
        let homes = &mut self.relay.homes;
        for (slot, conn) in self.door.links.conns.iter_mut() {
            let (Some(_), Some(home)) = (conn.away.name, homes.get_mut(slot)) else { continue };
            if let Some(written) = home.queued.checked_sub(conn.backlog()) {
                home.queued -= written;
                home.backlog.fetch_sub(written, Ordering::Relaxed);
            }
        }
    }
}

fn snapshot(door: &mut Door, relay: &Relay) -> ThreadSnapshot {
    let links = &door.links;
    let end = EndSnapshot {
        pillar: links.pillar,
        peers_up: links.peers.count(),
        clients: links.clients.count(),
        connections: links.conns.len(),
        links: links.counters,
        traffic: relay.counters,
    };
    ThreadSnapshot { ends: vec![end], ..ThreadSnapshot::default() }
}

impl Task for IoTask {
    fn turn(&mut self, now: Now, events: &Events) -> bool {
        self.relay.now = now;
        for event in events.iter().filter(|event| event.token() != BELL) {
            self.door.links.on_event(event);
        }
        let any = self.take_mail();
        self.door.begin(now.mono);
        self.door.read(&mut self.relay);
        self.after_reading();
        self.door.links.bury(now.mono);
        self.answer_status();
        self.flush();
        if self.mail.from_clients.is_some() {
            self.note_backlogs();
        }
        any
    }

    fn more(&self) -> bool {
        let mail = &self.mail;
        !self.door.links.ready.is_empty()
            || !mail.from_logic.is_empty()
            || mail.from_auth.iter().any(|ring| !ring.is_empty())
            || mail.from_replies.as_ref().is_some_and(|ring| !ring.is_empty())
            || mail.from_clients.as_ref().is_some_and(|ring| !ring.is_empty())
    }

    fn next_time(&self) -> Option<Time> {
        self.door.next_time()
    }

    fn soon(&self) -> bool {
        self.overflowing
    }

    fn drain(&mut self) {
        self.door.links.stop_listening();
        let goodbye = Arc::new(PacketKind::Goodbye.alone().to_vec());
        for slot in self.door.links.client_slots() {
            self.reply(slot, |name| ToReplies::Packet(name, Arc::clone(&goodbye)));
        }
    }

    fn last_words(&mut self) {
        self.take_mail();
        self.flush();
    }

    fn snapshot(&mut self) -> ThreadSnapshot {
        snapshot(&mut self.door, &self.relay)
    }
}
