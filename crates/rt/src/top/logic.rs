//! The thread of the protocol's logic in a pipeline: batching, the lane and the coordinator.
//!
//! It gets frames and messages that are opened and decoded, and gives out payloads to be sealed,
//! one per peer and turn. What a client's quota has no room for waits here, bounded by what the
//! connection may have on the way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use base::packet::PeerHeader;
use base::reply::Answer;
use base::{ClientId, Frame, FrameId, Now, PillarId, ReplicaId, Seq, SessionId, Time};
use mio::Events;
use proto::pbft::{Input, Reject};

use super::auth::of_peer;
use super::wire::{Opened, Outgoing, Taken};
use crate::conn::{ConnId, PACKET_BYTES_AIM};
use crate::coordinator_host::{CoordinatorHost, Delivery};
use crate::counters::LinkCounters;
use crate::event_loop::Task;
use crate::inlet::COORDINATOR;
use crate::intake::QUOTA_PAUSE;
use crate::lane_host::LaneSnapshot;
use crate::links::Env;
use crate::logic::{Logic, Wire, Wired};
use crate::report::ThreadSnapshot;
use crate::ring::{Bell, RingReceiver, RingSender};

/// How often mail is handed round in one turn.
const ROUNDS_PER_TURN: usize = 4;

/// The rings of the protocol's thread, beside those of a lane.
pub(super) struct LogicMail {
    pub(super) from_auth: Vec<RingReceiver<Opened>>,
    pub(super) to_clients: Returns,
    pub(super) to_peers: Returns,
}

/// Tells an I/O thread what was taken of its connections, and wakes it only if it waits for that.
pub(super) struct Returns {
    pub(super) ring: RingSender<Taken>,
    pub(super) thirst: Arc<Thirst>,
}

/// Whether an I/O thread has connections that it does not read before something is taken.
pub(super) struct Thirst {
    pub(super) waits: AtomicBool,
    pub(super) bell: Arc<Bell>,
}

impl Returns {
    fn push(&mut self, taken: Taken) {
        self.ring.push(taken);
    }

    fn flush(&mut self) -> bool {
        let over = self.ring.flush();
        // After what was pushed, as in `ring`: the other side sets the flag, then looks.
        fence(Ordering::SeqCst);
        if self.thirst.waits.load(Ordering::Relaxed)
            && self.thirst.waits.swap(false, Ordering::Relaxed)
        {
            self.thirst.bell.ring();
        }
        over
    }
}

/// The protocol's thread.
pub(super) struct LogicTask {
    logic: Logic,
    coordinator: CoordinatorHost,
    out: Outward,
    mail: LogicMail,
    /// Frames that a quota, or the disk, has no room for, and the bytes that they came in.
    held: BTreeMap<ConnId, (VecDeque<Arc<Frame>>, usize)>,
    retry_at: Option<Time>,
    /// For the replies.
    view: Arc<AtomicU64>,
    overflowing: bool,
}

/// The way to peers: payloads, to be sealed elsewhere.
pub(super) struct Outward {
    me: ReplicaId,
    header: Vec<u8>,
    /// Per replica.
    payloads: Vec<Vec<u8>>,
    to_auth: Vec<RingSender<Outgoing>>,
}

impl Outward {
    pub(super) fn new(env: &Env, pillar: PillarId, to_auth: Vec<RingSender<Outgoing>>) -> Outward {
        let incarnation = env.identity.incarnation();
        let mut header = Vec::new();
        PeerHeader { epoch: env.epoch, sender: env.me, pillar, incarnation }.encode(&mut header);
        let payloads = (0..env.n).map(|_| Vec::new()).collect();
        Outward { me: env.me, header, payloads, to_auth }
    }

    fn pass_on(&mut self, to: ReplicaId) {
        let Some(payload) = self.payloads.get_mut(usize::from(to.0)) else { return };
        if !payload.is_empty() {
            let payload = std::mem::take(payload);
            let home = of_peer(to, self.to_auth.len());
            self.to_auth[home].push(Outgoing { to, payload });
        }
    }

    /// Hands over what the turn has brought.
    fn flush(&mut self) -> bool {
        for to in (0..).take(self.payloads.len()).map(ReplicaId) {
            self.pass_on(to);
        }
        self.to_auth.iter_mut().fold(false, |over, ring| ring.flush() | over)
    }
}

impl Wire for Outward {
    fn send_peer(&mut self, to: ReplicaId, message: &[u8]) {
        let Some(payload) = self.payloads.get(usize::from(to.0)) else { return };
        if !payload.is_empty() && payload.len() + message.len() > PACKET_BYTES_AIM {
            self.pass_on(to);
        }
        let payload = &mut self.payloads[usize::from(to.0)];
        if payload.is_empty() {
            payload.extend_from_slice(&self.header);
        }
        payload.extend_from_slice(message);
    }

    fn send_peers(&mut self, message: &[u8]) {
        let me = self.me;
        let all = (0..).take(self.payloads.len()).map(ReplicaId);
        all.filter(|peer| *peer != me).for_each(|peer| self.send_peer(peer, message));
    }

    // What is for clients goes from the stage to a thread of its own.
    fn send_reply(&mut self, _: FrameId, _: &Answer<'_>) -> bool {
        false
    }

    fn nudge(&mut self, _: ClientId, _: SessionId, _: Seq) -> bool {
        false
    }
}

impl LogicTask {
    pub(super) fn new(
        logic: Logic,
        coordinator: CoordinatorHost,
        out: Outward,
        mail: LogicMail,
        view: Arc<AtomicU64>,
    ) -> LogicTask {
        let (held, retry_at) = (BTreeMap::new(), None);
        LogicTask { logic, coordinator, out, mail, held, retry_at, view, overflowing: false }
    }

    fn on_opened(&mut self, opened: Opened) {
        let pillar = self.logic.pillar;
        match opened {
            Opened::Frames(conn, bytes, frames) => self.on_frames(conn, bytes, frames),
            Opened::Gone(conn) => {
                self.held.remove(&conn);
            }
            Opened::Messages(conn, bytes, sender, messages) => {
                for message in messages {
                    self.logic.core.message((pillar, sender), message);
                }
                self.mail.to_peers.push(Taken { conn, bytes, frames: 0, repeats: 0 });
            }
            Opened::Garbage(from, what) => self.logic.core.garbage_from(from, what),
            Opened::Connected(peer) => {
                let core = &mut self.logic.core;
                // Counted by `input`; a lane does not refuse to know of a link.
                let _ = core.input(Input::Connected { peer });
                if pillar == COORDINATOR {
                    core.deliveries.push(Delivery::Connected(peer));
                }
            }
        }
    }

    fn on_frames(&mut self, conn: ConnId, bytes: usize, frames: Vec<Arc<Frame>>) {
        let core = &mut self.logic.core;
        let before = core.counters.repeats;
        let count = frames.len();
        core.counters.frames += count as u64;
        let mut waiting = self.held.remove(&conn).unwrap_or_default();
        for frame in frames {
            let full = !core.draining
                && (!waiting.0.is_empty()
                    || core.journal.behind()
                    || core.input(Input::Request(Arc::clone(&frame))) == Err(Reject::Quota));
            if full {
                waiting.0.push_back(frame);
            }
        }
        let repeats = core.counters.repeats - before;
        let taken = |bytes| Taken { conn, bytes, frames: count, repeats };
        if waiting.0.is_empty() {
            self.mail.to_clients.push(taken(bytes));
        } else {
            waiting.1 += bytes;
            self.held.insert(conn, waiting);
            self.retry_at.get_or_insert(core.now.mono.after(QUOTA_PAUSE));
            self.mail.to_clients.push(taken(0));
        }
    }

    /// Tries what was held back again.
    fn retry(&mut self, now: Time) {
        if self.retry_at.is_none_or(|at| at > now) {
            return;
        }
        self.retry_at = None;
        let core = &mut self.logic.core;
        let to_clients = &mut self.mail.to_clients;
        // What fills the quota of one connection fills that of all of its client.
        let mut full = BTreeSet::new();
        self.held.retain(|conn, (frames, bytes)| {
            while let Some(frame) = frames.front() {
                let client = frame.id().client;
                let refused = core.journal.behind()
                    || full.contains(&client)
                    || core.input(Input::Request(Arc::clone(frame))) == Err(Reject::Quota);
                if refused && !core.draining {
                    full.insert(client);
                    return true;
                }
                frames.pop_front();
            }
            to_clients.push(Taken { conn: *conn, bytes: *bytes, frames: 0, repeats: 0 });
            false
        });
        if !self.held.is_empty() {
            self.retry_at = Some(now.after(QUOTA_PAUSE));
        }
    }
}

impl Task for LogicTask {
    fn turn(&mut self, now: Now, _: &Events) -> bool {
        let mut any = false;
        self.logic.core.now = now;
        self.retry(now.mono);
        for k in 0..self.mail.from_auth.len() {
            while let Some(opened) = self.mail.from_auth[k].pop() {
                any = true;
                self.on_opened(opened);
            }
        }
        self.logic.carry_out(&mut self.out);
        for _ in 0..ROUNDS_PER_TURN {
            let mut more = self.logic.take_mail(&mut self.out);
            let mut wired = Wired { logic: &mut self.logic, wire: &mut self.out };
            more |= self.coordinator.turn(now, &mut wired);
            any |= more;
            if !more {
                break;
            }
        }
        self.logic.end(&mut self.out);
        self.coordinator.end(&mut Wired { logic: &mut self.logic, wire: &mut self.out });
        self.view.store(self.logic.core.lane.view().0, Ordering::Relaxed);
        self.overflowing = self.out.flush();
        self.overflowing |= self.mail.to_clients.flush();
        self.overflowing |= self.mail.to_peers.flush();
        any
    }

    fn more(&self) -> bool {
        let opened = self.mail.from_auth.iter().any(|ring| !ring.is_empty());
        opened || self.logic.more() || self.coordinator.more()
    }

    fn next_time(&self) -> Option<Time> {
        let times = [self.logic.core.lane.deadline(), self.coordinator.next_time(), self.retry_at];
        times.into_iter().flatten().min()
    }

    fn soon(&self) -> bool {
        self.overflowing || self.logic.overflowing() || self.coordinator.overflowing()
    }

    fn drain(&mut self) {
        self.logic.core.draining = true;
    }

    fn drained(&mut self) -> bool {
        self.logic.quiet()
    }

    fn last_words(&mut self) {
        self.out.flush();
    }

    fn snapshot(&mut self) -> ThreadSnapshot {
        let core = &self.logic.core;
        let lane = LaneSnapshot {
            pillar: self.logic.pillar,
            report: core.lane.report(),
            // Known, and added, by others.
            peers_up: 0,
            clients: 0,
            connections: 0,
            links: LinkCounters::default(),
            traffic: core.counters,
            misbehaviour: core.misbehaviour.clone(),
            garbage: core.garbage.clone(),
        };
        let coordinator = Some(self.coordinator.snapshot());
        ThreadSnapshot { lanes: vec![lane], coordinator, ..ThreadSnapshot::default() }
    }
}
