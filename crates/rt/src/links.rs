//! The connections of one lane: making them, losing them, and writing to them.
//!
//! Accepts on the pillar's port, dials the peers with lower ids, keeps timers for handshakes,
//! reconnection and idle buffers. Not here: reading, which ends in the lane (`intake`), and what
//! goes to clients (`answers`).
//!
//! Every byte from outside is hostile (design §6). Strangers, connections that have not proved
//! who they are, are bounded in number, bytes (1 KiB) and time; when there are too many, the
//! oldest goes, so that a flood of silent connections does not keep anybody out who says hello
//! at once. A connection that breaks a rule is closed and counted; no other one notices.

use std::io::ErrorKind;
use std::sync::Arc;

use auth::{Directory, Initiator, LinkIdentity, Peer, ReplicaKeys};
use base::packet::PeerHeader;
use base::reply::Repliers;
use base::{Epoch, GroupId, PillarId, ReplicaId, SessionId, Span, Time};
use mio::event::Event;
use mio::{Interest, Registry, Token};

use crate::bans::{Bans, Offence};
use crate::clients::ClientTable;
use crate::clock::Clock;
use crate::conn::{Conn, ConnId, Phase, Slab};
use crate::counters::LinkCounters;
use crate::options::ConnectionLimits;
use crate::peers::PeerTable;
use crate::socket::{Acceptor, Place, Stream};
use crate::strangers::Strangers;
use crate::throttle::Throttle;

/// How long a stranger may take for its handshake, and a call of ours for its answer.
const HANDSHAKE_TIMEOUT: Span = Span::secs(5);
/// How long a link may be up without proof that its other end lives.
const CONFIRM_TIMEOUT: Span = Span::secs(60);
/// How often timeouts and idle buffers are looked at, while there are any.
const SCAN_EVERY: Span = Span::secs(1);
/// How long to wait after the system refused to give us a waiting connection.
const ACCEPT_PAUSE: Span = Span::millis(100);
/// Most connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;

/// What all lanes of a replica share, read-only.
pub(crate) struct Env {
    pub(crate) me: ReplicaId,
    pub(crate) n: u16,
    pub(crate) group: GroupId,
    pub(crate) epoch: Epoch,
    pub(crate) directory: Directory,
    pub(crate) identity: LinkIdentity,
    /// Where each pillar of each replica listens.
    pub(crate) addresses: Vec<Vec<Place>>,
    pub(crate) limits: ConnectionLimits,
    /// Which replicas answer clients, and how.
    pub(crate) repliers: Repliers,
    /// What this replica judges its clients' authenticators by.
    pub(crate) keys: ReplicaKeys,
    pub(crate) bans: Arc<Bans>,
    /// For what arithmetic takes.
    pub(crate) clock: Clock,
}

/// Why a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Close {
    /// The other end closed it, or the network did.
    Ended,
    /// The handshake failed.
    Handshake,
    /// The other end has the configuration of another group.
    Foreign,
    /// The handshake, or the proof of life after it, took too long.
    Timeout,
    /// Bytes that no correct peer sends, or that somebody on the way has changed.
    Malformed(&'static str),
    /// The same, sealed by the other end: nobody else is to blame. The text says what.
    Garbage(&'static str),
    /// A client spoke for another one.
    Impostor,
    /// A client's frame does not convince this replica.
    Forged,
    /// A client's frame is ahead of its window.
    Window,
    /// A client asks without waiting for answers.
    Questions,
    /// What the other end did before is not forgotten yet.
    Banned,
    /// It read too slowly.
    Slow,
    /// Too many connections.
    Crowded,
    /// A newer link of the same peer took over.
    Replaced,
    /// It belongs to an older life of the peer.
    StaleLife,
}

impl Close {
    /// What the other end, if it is a client, has done that no correct one does.
    fn offence(self) -> Option<Offence> {
        match self {
            Close::Garbage(what) => Some(Offence::Garbage(what)),
            Close::Impostor => Some(Offence::Impostor),
            Close::Forged => Some(Offence::Forged),
            Close::Window => Some(Offence::Window),
            Close::Questions => Some(Offence::Questions),
            _ => None,
        }
    }
}

/// Where events of the connections come from, and how they are numbered.
pub(crate) struct Events {
    registry: Registry,
    tokens: usize,
    /// Connections in shared memory that are looked at in every turn, since nobody was asked to
    /// ring when something comes. A slot may be there twice, or be somebody else's by now.
    pub(crate) hot: Vec<usize>,
}

/// The connections of one lane.
pub(crate) struct Links {
    pub(crate) env: Arc<Env>,
    pub(crate) pillar: PillarId,
    pub(crate) conns: Slab,
    pub(crate) peers: PeerTable,
    pub(crate) clients: ClientTable,
    pub(crate) strangers: Strangers,
    /// Connections with something to read.
    pub(crate) ready: Vec<usize>,
    /// Of these, in the next turn first: those whose client has had its share.
    pub(crate) deferred: Vec<usize>,
    /// Connections with something to write.
    dirty: Vec<usize>,
    /// Connections to be closed as soon as nobody looks at them.
    pub(crate) doomed: Vec<(usize, Close)>,
    /// Connections that are closed and known elsewhere.
    pub(crate) gone: Vec<ConnId>,
    pub(crate) counters: LinkCounters,
    listener: Option<Acceptor>,
    accept_at: Option<Time>,
    scan_at: Option<Time>,
    pub(crate) events: Events,
    header: Vec<u8>,
    complaints: Throttle,
    /// How many bans this lane has looked at.
    bans_seen: u64,
}

impl Links {
    /// The links of `pillar`, which accepts on `listener` and dials peers. Its events come with
    /// tokens from `tokens` on: that one is the listener's, connection i has `tokens + 1 + i`.
    pub(crate) fn new(
        env: Arc<Env>,
        pillar: PillarId,
        mut listener: Acceptor,
        registry: Registry,
        tokens: usize,
    ) -> std::io::Result<Links> {
        registry.register(&mut listener, Token(tokens), Interest::READABLE)?;
        let peers = PeerTable::new(env.me, pillar, env.n);
        Ok(Links::with(env, pillar, (Some(listener), peers), registry, tokens))
    }

    /// Some of the links of `pillar`: those that `listener` accepts, if any, and those that
    /// `peers` dials.
    pub(crate) fn with(
        env: Arc<Env>,
        pillar: PillarId,
        (listener, peers): (Option<Acceptor>, PeerTable),
        registry: Registry,
        tokens: usize,
    ) -> Links {
        let incarnation = env.identity.incarnation();
        let mut header = Vec::new();
        PeerHeader { epoch: env.epoch, sender: env.me, pillar, incarnation }.encode(&mut header);
        Links {
            pillar,
            conns: Slab::default(),
            peers,
            clients: ClientTable::new(env.limits.clients_max, env.limits.per_client_max),
            ready: Vec::new(),
            deferred: Vec::new(),
            dirty: Vec::new(),
            doomed: Vec::new(),
            gone: Vec::new(),
            strangers: Strangers::default(),
            counters: LinkCounters::default(),
            listener,
            accept_at: None,
            scan_at: None,
            events: Events { registry, tokens, hot: Vec::new() },
            header,
            complaints: Throttle::default(),
            bans_seen: 0,
            env,
        }
    }

    /// Takes note of an event of this lane.
    pub(crate) fn on_event(&mut self, event: &Event) {
        let Some(slot) = (event.token().0 - self.events.tokens).checked_sub(1) else {
            self.accept_at = Some(Time::ZERO);
            return;
        };
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.on_event(event);
        if conn.readable && !conn.listed && !conn.paused {
            conn.listed = true;
            self.ready.push(slot);
        }
        if conn.paused && conn.hangup && conn.client().is_some() {
            // What it still has to say is not taken for now, and nobody waits for an answer.
            self.doomed.push((slot, Close::Ended));
        }
        let shared = conn.stream.shared().is_some();
        if (event.is_writable() || shared) && conn.backlog() > 0 {
            self.mark_dirty(slot);
        }
        if shared {
            self.heat(slot);
        }
    }

    /// Does what is due: accepts, dials, and looks after timeouts and idle buffers.
    pub(crate) fn on_time(&mut self, now: Time) {
        let bans = self.env.bans.count();
        if bans != self.bans_seen {
            self.bans_seen = bans;
            self.evict(now);
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        while let Some(peer) = self.peers.due(now) {
            self.dial(peer, now);
        }
        if self.scan_at.is_some_and(|at| at <= now) {
            self.scan(now);
        }
    }

    /// When [`Links::on_time`] is wanted next.
    pub(crate) fn next_time(&self) -> Option<Time> {
        [self.accept_at, self.peers.next_dial(), self.scan_at].into_iter().flatten().min()
    }

    /// Takes no more connections.
    pub(crate) fn stop_listening(&mut self) {
        self.accept_at = None;
        if let Some(mut listener) = self.listener.take() {
            let _ = self.events.registry.deregister(&mut listener);
        }
    }

    /// Appends a message to the packet of this turn to `to`.
    pub(crate) fn send_peer(&mut self, to: ReplicaId, message: &[u8]) {
        let sent = self.peers.slot(to).is_some_and(|slot| self.send_on(slot, message));
        if !sent {
            self.counters.peer_messages_dropped += 1;
        }
    }

    /// Appends a message to the packets of this turn to all peers.
    pub(crate) fn send_peers(&mut self, message: &[u8]) {
        let me = self.env.me;
        for peer in (0..self.env.n).map(ReplicaId).filter(|peer| *peer != me) {
            self.send_peer(peer, message);
        }
    }

    /// Sends a packet without messages: the proof to the other end that we live, which is short.
    pub(crate) fn confirm(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        if conn.packet(&self.header).is_err() {
            self.doomed.push((slot, Close::Ended));
        }
    }

    /// Writes what this turn brought, one write per connection.
    pub(crate) fn flush(&mut self) -> u64 {
        let mut written = 0;
        for slot in std::mem::take(&mut self.dirty) {
            let Some(conn) = self.conns.get_mut(slot) else { continue };
            conn.dirty = false;
            match conn.flush() {
                Ok(bytes) => written += bytes as u64,
                Err(_) => self.doomed.push((slot, Close::Ended)),
            }
            self.clients.unread.set(slot, conn.backlog());
        }
        written
    }

    /// Closes what is doomed. To be called when nobody looks at a connection.
    pub(crate) fn bury(&mut self, now: Time) {
        while let Some((slot, why)) = self.doomed.pop() {
            self.close(slot, why, now);
        }
    }

    /// The connection has something to write.
    pub(crate) fn mark_dirty(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get_mut(slot)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Asks for a look at timeouts and idle buffers.
    pub(crate) fn plan_scan(&mut self, now: Time) {
        self.scan_at.get_or_insert(now.after(SCAN_EVERY));
    }

    fn send_on(&mut self, slot: usize, message: &[u8]) -> bool {
        let max = self.env.limits.peer_backlog_max;
        match push_message(&mut self.conns, slot, &self.header, message, max) {
            Some(fresh) => {
                if fresh {
                    self.dirty.push(slot);
                }
                true
            }
            None => false,
        }
    }

    fn accept(&mut self, now: Time) {
        self.accept_at = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok(stream) => {
                    self.counters.accepted += 1;
                    self.make_room(now);
                    if self.adopt(Conn::new(stream, Phase::Answering, now)).is_none() {
                        self.counters.accept_errors += 1;
                    }
                    self.plan_scan(now);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    // Out of descriptors, most likely. The edge is used up, so ask again later.
                    self.counters.accept_errors += 1;
                    if self.complaints.allow(now) {
                        tracing::warn!(pillar = %self.pillar, error = %e, "cannot accept");
                    }
                    // Strangers must not keep anybody out by holding all descriptors.
                    let freed = is_out_of_descriptors(&e) && self.drop_stranger(1, now);
                    self.accept_at = Some(if freed { now } else { now.after(ACCEPT_PAUSE) });
                    return;
                }
            }
        }
        self.accept_at = Some(Time::ZERO);
    }

    /// Closes the connections of all clients that are shut out by now.
    fn evict(&mut self, now: Time) {
        for (slot, conn) in self.conns.iter_mut() {
            if let Some(Peer::Client(client)) = conn.link().map(|link| link.peer)
                && self.env.bans.holds(client, now)
            {
                self.doomed.push((slot, Close::Banned));
            }
        }
        self.bury(now);
    }

    /// Drops the oldest stranger when there are too many.
    pub(crate) fn make_room(&mut self, now: Time) {
        let max = self.env.limits.strangers_max;
        if self.conns.len() >= max {
            self.drop_stranger(max, now);
        }
    }

    /// Drops the oldest stranger if there are `at_least` so many. True when it did.
    fn drop_stranger(&mut self, at_least: usize, now: Time) -> bool {
        let strangers = self
            .conns
            .iter_mut()
            .filter(|(_, conn)| !conn.confirmed() && !matches!(conn.phase, Phase::Calling { .. }));
        let (count, oldest) = strangers.fold((0, None), |(count, oldest), (slot, conn)| {
            let older = oldest.is_none_or(|(since, _)| conn.since < since);
            (count + 1, if older { Some((conn.since, slot)) } else { oldest })
        });
        let Some((_, slot)) = oldest.filter(|_| count >= at_least) else { return false };
        self.close(slot, Close::Crowded, now);
        true
    }

    fn dial(&mut self, peer: ReplicaId, now: Time) {
        self.counters.dialled += 1;
        if self.try_dial(peer, now).is_none() {
            self.peers.failed(peer, now);
        }
    }

    fn try_dial(&mut self, peer: ReplicaId, now: Time) -> Option<()> {
        let env = Arc::clone(&self.env);
        let pillars = env.addresses.get(usize::from(peer.0))?;
        let place = pillars.get(usize::from(self.pillar.0))?;
        let start =
            Initiator::start(&env.identity, &env.directory, peer, self.pillar, SessionId(0));
        let (initiator, hello) = start.ok()?;
        let stream = Stream::connect(place).ok()?;
        let phase = Phase::Calling { peer, initiator: Some(Box::new(initiator)) };
        let mut conn = Conn::new(stream, phase, now);
        conn.queue(&hello);
        let slot = self.adopt(conn)?;
        self.peers.calling(peer, slot);
        // Shared memory has room at once, and will not say so.
        self.mark_dirty(slot);
        self.plan_scan(now);
        Some(())
    }

    fn adopt(&mut self, conn: Conn) -> Option<usize> {
        conn.stream.tune();
        self.take_in(conn, Interest::READABLE | Interest::WRITABLE)
    }

    /// Takes a connection in, of which `interest` is of interest here.
    pub(crate) fn take_in(&mut self, mut conn: Conn, interest: Interest) -> Option<usize> {
        let token = Token(self.events.tokens + 1 + self.conns.next());
        self.events.registry.register(&mut conn.stream, token, interest).ok()?;
        let shared = conn.stream.shared().is_some();
        let slot = self.conns.insert(conn);
        if shared {
            self.heat(slot);
        }
        Some(slot)
    }

    /// Gives a connection away, which goes on elsewhere.
    pub(crate) fn release(&mut self, slot: usize) -> Option<Box<Conn>> {
        let mut conn = self.conns.remove(slot)?;
        // It can be registered elsewhere only then.
        self.events.registry.deregister(&mut conn.stream).ok()?;
        (conn.listed, conn.paused, conn.dirty) = (false, false, false);
        Some(conn)
    }

    fn scan(&mut self, now: Time) {
        self.scan_at = None;
        let mut again = false;
        for (slot, conn) in self.conns.iter_mut() {
            let age = now.since(conn.since);
            let limit = if conn.link().is_some() { CONFIRM_TIMEOUT } else { HANDSHAKE_TIMEOUT };
            if !conn.confirmed() && age >= limit {
                self.doomed.push((slot, Close::Timeout));
                continue;
            }
            let busy = std::mem::take(&mut conn.active);
            again |= busy || !conn.confirmed() || conn.release_idle();
        }
        self.bury(now);
        if again {
            self.plan_scan(now);
        }
    }

    fn close(&mut self, slot: usize, why: Close, now: Time) {
        let Some(mut conn) = self.conns.remove(slot) else { return };
        // The descriptor closes with the stream; a failure here changes nothing.
        let _ = self.events.registry.deregister(&mut conn.stream);
        self.gone.extend(conn.away.name);
        self.count(why);
        let offence = why.offence();
        match &conn.phase {
            Phase::Calling { peer, .. } => {
                self.peers.down(*peer, slot, now);
            }
            Phase::Answering => {}
            Phase::Up(link) => match link.peer {
                Peer::Replica(peer) => {
                    if offence.is_some() {
                        self.peers.offended(peer, now);
                    }
                    if self.peers.down(peer, slot, now) && self.peers.down_is_news(peer, now) {
                        let pillar = self.pillar;
                        tracing::info!(me = %self.env.me, %pillar, %peer, ?why, "link down");
                    }
                }
                Peer::Client(client) if link.confirmed => {
                    self.clients.down(
                        client,
                        link.session,
                        (slot, conn.reserved),
                        link.worked.then(|| now.since(conn.since)),
                        now,
                    );
                    if let Some(offence) = offence {
                        self.env.bans.offend(client, offence, now);
                    }
                    tracing::debug!(pillar = %self.pillar, %client, ?why, "client gone");
                }
                Peer::Client(_) => {}
            },
        }
        // Offences of clients are told with their count.
        let client = matches!(conn.link().map(|link| link.peer), Some(Peer::Client(_)));
        if why == Close::Foreign && self.complaints.allow(now) {
            let more = self.complaints.suppressed();
            tracing::warn!(
                me = %self.env.me,
                more,
                "somebody with the configuration of another group was turned away: compare the \
                 ids that `stylite config check` prints on both sides"
            );
        }
        let bad = matches!(why, Close::Malformed(_) | Close::Slow)
            || (matches!(why, Close::Garbage(_)) && !client);
        if bad && self.complaints.allow(now) {
            let (who, more) = (conn.link().map(|l| l.peer), self.complaints.suppressed());
            tracing::warn!(me = %self.env.me, ?who, ?why, more, "connection closed");
        }
    }

    fn count(&mut self, why: Close) {
        let counters = &mut self.counters;
        match why {
            Close::Ended | Close::Replaced => {}
            Close::Handshake | Close::Foreign | Close::Timeout => counters.handshakes_failed += 1,
            Close::Malformed(_) | Close::Garbage(_) | Close::Window | Close::Questions => {
                counters.malformed += 1;
            }
            Close::Forged => counters.forged += 1,
            Close::Banned => counters.banned += 1,
            Close::Impostor => counters.impostors += 1,
            Close::Slow => counters.slow_clients += 1,
            Close::Crowded => counters.crowded_out += 1,
            Close::StaleLife => counters.stale_lives += 1,
        }
    }
}

fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|full| errno == Some(full.raw_os_error()))
}

/// Appends a message to a peer's packet. `None` when it was dropped, otherwise whether the
/// connection has to enter the list of dirty ones.
fn push_message(
    conns: &mut Slab,
    slot: usize,
    header: &[u8],
    message: &[u8],
    backlog_max: usize,
) -> Option<bool> {
    let conn = conns.get_mut(slot)?;
    if conn.backlog() + message.len() > backlog_max {
        return None;
    }
    // A link whose key is used up fails at its next flush, where it is closed.
    let out = conn.room(message.len(), header).ok()?;
    out.extend_from_slice(message);
    Some(!std::mem::replace(&mut conn.dirty, true))
}
