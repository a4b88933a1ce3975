//! The authentication threads of a pipeline: they open what comes and seal what goes to peers,
//! decode it, digest frames, and look at the authenticators that are to be looked at.
//!
//! A link belongs to one of them: packets of a link are opened and sealed in their order.
//!
//! Not here: sockets (`io`), replies, which are sealed where they are written (`replies`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use auth::Peer;
use base::{Frame, Malformed, Now, PillarId, Reader, ReplicaId, Time};
use mio::Events;

use super::wire::{FromAuth, Half, Opened, Outgoing, Packets, ToAuth};
use crate::conn::ConnId;
use crate::counters::{LinkCounters, TrafficCounters};
use crate::event_loop::Task;
use crate::inlet::{Asked, Sampler, client_frame, client_packet, messages};
use crate::links::{Close, Env};
use crate::report::{EndSnapshot, ThreadSnapshot};
use crate::ring::{RingReceiver, RingSender};

/// The rings of an authentication thread.
pub(super) struct AuthMail {
    /// From clients' and peers' threads and from the protocol's.
    pub(super) from: (RingReceiver<ToAuth>, RingReceiver<ToAuth>, RingReceiver<Outgoing>),
    pub(super) to_clients: RingSender<FromAuth>,
    pub(super) to_peers: RingSender<FromAuth>,
    pub(super) to_logic: RingSender<Opened>,
}

/// An authentication thread.
pub(super) struct AuthTask {
    env: Arc<Env>,
    pillar: PillarId,
    mail: AuthMail,
    clients: HashMap<ConnId, Box<Half>>,
    peers: HashMap<ConnId, Box<Half>>,
    /// Per replica: the link in use, and what is sealed for it in this turn.
    ways: Vec<(Option<ConnId>, Vec<u8>)>,
    counters: LinkCounters,
    overflowing: bool,
}

impl AuthTask {
    pub(super) fn new(env: Arc<Env>, pillar: PillarId, mail: AuthMail) -> AuthTask {
        let ways = (0..env.n).map(|_| (None, Vec::new())).collect();
        AuthTask {
            env,
            pillar,
            mail,
            clients: HashMap::default(),
            peers: HashMap::default(),
            ways,
            counters: LinkCounters::default(),
            overflowing: false,
        }
    }

    fn on_client(&mut self, message: ToAuth) {
        match message {
            ToAuth::Link(conn, half) => {
                self.clients.insert(conn, half);
            }
            ToAuth::Sealed(conn, packets) => self.open_client(conn, packets),
            ToAuth::Opened(conn, payload) => {
                let Some(half) = self.clients.get_mut(&conn) else { return };
                let mut frames = Vec::new();
                let read = read_client(&self.env, half, &payload, &mut frames);
                self.mail.to_logic.push(Opened::Frames(conn, 0, frames));
                self.conclude(conn, read);
            }
            ToAuth::Gone(conn) => {
                self.clients.remove(&conn);
                self.mail.to_logic.push(Opened::Gone(conn));
            }
        }
    }

    fn open_client(&mut self, conn: ConnId, mut packets: Packets) {
        let bytes = packets.bytes.len();
        let mut frames = Vec::new();
        let mut read = Ok(false);
        if let Some(half) = self.clients.get_mut(&conn) {
            let mut begin = 0;
            for end in packets.ends {
                let opened = half.opener.open(&mut packets.bytes[begin..end]);
                begin = end;
                let one = match opened {
                    Ok(payload) => read_client(&self.env, half, payload, &mut frames),
                    Err(_) => Err(Close::Malformed("seal")),
                };
                match one {
                    Ok(asks) => read = read.map(|asked| asked || asks),
                    Err(why) => {
                        read = Err(why);
                        break;
                    }
                }
            }
        }
        self.mail.to_logic.push(Opened::Frames(conn, bytes, frames));
        self.conclude(conn, read);
    }

    /// Says what came of a client's packets: whether it asks how we are, or breaks a rule.
    fn conclude(&mut self, conn: ConnId, read: Result<bool, Close>) {
        let avoids = self.clients.get_mut(&conn).and_then(|half| half.avoids.take());
        if let Some(replicas) = avoids {
            self.mail.to_clients.push(FromAuth::Avoids(conn, replicas));
        }
        match read {
            Ok(false) => {}
            Ok(true) => self.mail.to_clients.push(FromAuth::Asks(conn)),
            Err(why) => {
                // Nothing more of it is looked at.
                self.clients.remove(&conn);
                self.mail.to_clients.push(FromAuth::Close(conn, why));
            }
        }
    }

    fn on_peer(&mut self, message: ToAuth) {
        match message {
            ToAuth::Link(conn, half) => {
                let from = half.sender.from;
                self.peers.insert(conn, half);
                if let Some(way) = self.ways.get_mut(usize::from(from.0)) {
                    *way = (Some(conn), Vec::new());
                }
                self.mail.to_logic.push(Opened::Connected(from));
            }
            ToAuth::Sealed(conn, packets) => self.open_peer(conn, packets),
            ToAuth::Opened(conn, payload) => {
                let Some(half) = self.peers.get_mut(&conn) else { return };
                let (sender, mut all) = (half.sender, Vec::new());
                let read = messages(&self.env, (self.pillar, sender), &payload, |m| all.push(m));
                self.pass_messages(conn, 0, all, read.map_err(|Malformed(what)| what));
            }
            ToAuth::Gone(conn) => {
                self.peers.remove(&conn);
                for (way, _) in &mut self.ways {
                    *way = way.filter(|known| *known != conn);
                }
            }
        }
    }

    fn open_peer(&mut self, conn: ConnId, mut packets: Packets) {
        let bytes = packets.bytes.len();
        let Some(half) = self.peers.get_mut(&conn) else { return };
        let (sender, mut all) = (half.sender, Vec::new());
        let mut begin = 0;
        for end in packets.ends {
            let opened = half.opener.open(&mut packets.bytes[begin..end]);
            begin = end;
            let Ok(payload) = opened else {
                self.peers.remove(&conn);
                self.mail.to_peers.push(FromAuth::Close(conn, Close::Malformed("seal")));
                return;
            };
            let read = messages(&self.env, (self.pillar, sender), payload, |m| all.push(m));
            if let Err(Malformed(what)) = read {
                return self.pass_messages(conn, bytes, all, Err(what));
            }
        }
        self.pass_messages(conn, bytes, all, Ok(()));
    }

    fn pass_messages(
        &mut self,
        conn: ConnId,
        bytes: usize,
        all: Vec<proto::pbft::msg::Message>,
        read: Result<(), &'static str>,
    ) {
        let Some(half) = self.peers.get(&conn) else { return };
        let sender = half.sender;
        self.mail.to_logic.push(Opened::Messages(conn, bytes, sender, all));
        if let Err(what) = read {
            self.peers.remove(&conn);
            self.mail.to_logic.push(Opened::Garbage(sender.from, what));
            self.mail.to_peers.push(FromAuth::Close(conn, Close::Garbage(what)));
        }
    }

    /// Seals a packet for a peer, unless too much waits for it already.
    fn seal(&mut self, outgoing: &Outgoing) {
        let Outgoing { to, payload } = outgoing;
        let dropped = &mut self.counters.peer_messages_dropped;
        let Some((way, out)) = self.ways.get_mut(usize::from(to.0)) else { return };
        let half = way.and_then(|conn| Some((conn, self.peers.get_mut(&conn)?)));
        let Some((conn, back)) = half.and_then(|(conn, half)| Some((conn, half.back.as_mut()?)))
        else {
            *dropped += 1;
            return;
        };
        let waits = back.backlog.load(Ordering::Relaxed) + out.len();
        if waits + payload.len() > self.env.limits.peer_backlog_max {
            *dropped += 1;
        } else if back.sealer.seal(payload, out).is_err() {
            self.mail.to_peers.push(FromAuth::Close(conn, Close::Ended));
        }
    }

    /// Hands over what was sealed in this turn.
    fn hand_over(&mut self) {
        for (way, out) in &mut self.ways {
            let Some(conn) = way.filter(|_| !out.is_empty()) else {
                out.clear();
                continue;
            };
            let half = self.peers.get(&conn).and_then(|half| half.back.as_ref());
            if let Some(back) = half {
                back.backlog.fetch_add(out.len(), Ordering::Relaxed);
                self.mail.to_peers.push(FromAuth::Write(conn, std::mem::take(out)));
            }
            out.clear();
        }
        self.overflowing = self.mail.to_logic.flush();
        self.overflowing |= self.mail.to_peers.flush();
        self.overflowing |= self.mail.to_clients.flush();
    }
}

/// Reads a client's packet. True when it asks how we are.
fn read_client(
    env: &Env,
    half: &mut Half,
    payload: &[u8],
    frames: &mut Vec<Arc<Frame>>,
) -> Result<bool, Close> {
    let bytes = match client_packet(payload)? {
        Asked::Nothing => return Ok(false),
        Asked::Status => return Ok(true),
        Asked::Frames(bytes) => bytes,
        Asked::Avoid(replicas) => {
            half.avoids = Some(replicas);
            return Ok(false);
        }
    };
    let Peer::Client(client) = half.peer else { return Ok(false) };
    let mut sampler = Sampler { client, unchecked: &mut half.unchecked };
    let mut r = Reader::new(bytes);
    while !r.is_empty() {
        frames.push(client_frame(env, &mut sampler, &mut r)?);
    }
    Ok(false)
}

impl Task for AuthTask {
    fn turn(&mut self, _: Now, _: &Events) -> bool {
        let mut any = false;
        // What peers say first: others wait for it.
        while let Some(message) = self.mail.from.1.pop() {
            any = true;
            self.on_peer(message);
        }
        while let Some(message) = self.mail.from.0.pop() {
            any = true;
            self.on_client(message);
        }
        while let Some(outgoing) = self.mail.from.2.pop() {
            any = true;
            self.seal(&outgoing);
        }
        self.hand_over();
        any
    }

    fn more(&self) -> bool {
        let (clients, peers, logic) = &self.mail.from;
        !clients.is_empty() || !peers.is_empty() || !logic.is_empty()
    }

    fn next_time(&self) -> Option<Time> {
        None
    }

    fn soon(&self) -> bool {
        self.overflowing
    }

    fn snapshot(&mut self) -> ThreadSnapshot {
        let end = EndSnapshot {
            pillar: self.pillar,
            peers_up: 0,
            clients: 0,
            connections: 0,
            links: self.counters,
            traffic: TrafficCounters::default(),
        };
        ThreadSnapshot { ends: vec![end], ..ThreadSnapshot::default() }
    }
}

/// Which authentication thread of `threads` has the links to `peer`.
pub(super) fn of_peer(peer: ReplicaId, threads: usize) -> usize {
    usize::from(peer.0) % threads
}
