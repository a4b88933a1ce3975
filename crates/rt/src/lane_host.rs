//! One lane with everything that belongs to it: its connections, its rings, its counters.
//!
//! A turn of the event loop calls, in this order: [`LaneHost::read`] and [`LaneHost::take_mail`]
//! (as often as there is something), [`LaneHost::end`], [`LaneHost::flush`]. Everything that
//! leaves a replica because of one turn is in one packet per link, written at once.
//!
//! Not here: reading from connections (`intake`), threads and the poll (`event_loop`).

use auth::Peer;
use base::links::PillarReport;
use base::packet::PacketKind;
use base::{AgreedTime, FromStage, Incarnation, Now, PillarId, ReplicaId, Time, ToStage};
use proto::pbft::msg::Message;
use proto::pbft::{Input, Reject};
use proto::{Effect, Fact, Outbox, Target};

use crate::agreement::Agreement;
use crate::coordinator_host::Delivery;
use crate::counters::{LinkCounters, TrafficCounters};
use crate::drill::{Deaf, Saboteur};
use crate::evidence::GARBAGE;
use crate::journal::Journal;
use crate::links::Links;
use crate::mesh::LaneMail;
use crate::ring::RingReceiver;
use crate::throttle::Throttle;

/// Least turns between two checks of a lane's invariants in debug builds.
const CHECK_EVERY: u64 = 64;
/// Things that a lane holds per turn until the next check: a check looks at all of them, and must
/// not be what a replica spends its time on.
const CHECKED_PER_TURN: u64 = 32;

/// The agreement core and its bookkeeping: what packets end in.
pub(crate) struct Core {
    pub(crate) lane: Agreement,
    pub(crate) outbox: Outbox,
    pub(crate) journal: Journal<Effect>,
    /// For the coordinator, which takes it in the same turn. Pillar 0 only.
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) now: Now,
    /// The lane got something since its last turn.
    pub(crate) touched: bool,
    pub(crate) draining: bool,
    pub(crate) counters: TrafficCounters,
    /// Per replica: inputs that no correct replica sends.
    pub(crate) misbehaviour: Vec<u64>,
    /// Per replica: packets, properly sealed, that mean nothing, and when the first one came.
    pub(crate) garbage: Vec<(u64, AgreedTime)>,
    /// In a drill: what the lane does not get.
    pub(crate) deaf: Option<Deaf>,
    complaints: Throttle,
    /// The turn in which the lane's invariants are checked next.
    check_at: u64,
}

/// One lane and what belongs to it.
pub(crate) struct LaneHost {
    pub(crate) core: Core,
    pub(crate) links: Links,
    mail: LaneMail,
    /// The encoding of one message, reused.
    scratch: Vec<u8>,
    /// Clients that asked how we are.
    pub(crate) status_asked: Vec<usize>,
    /// Connections whose client has reached its quota; read again from `resume_at` on.
    pub(crate) paused: Vec<usize>,
    pub(crate) resume_at: Option<Time>,
    overflowing: bool,
    /// In a drill: what leaves instead of what should.
    saboteur: Option<Box<Saboteur>>,
}

/// What a lane tells when it is asked.
#[derive(Clone, Debug)]
pub(crate) struct LaneSnapshot {
    pub(crate) pillar: PillarId,
    pub(crate) report: PillarReport,
    pub(crate) peers_up: usize,
    pub(crate) clients: usize,
    pub(crate) connections: usize,
    pub(crate) links: LinkCounters,
    pub(crate) traffic: TrafficCounters,
    pub(crate) misbehaviour: Vec<u64>,
    /// As in [`Core`].
    pub(crate) garbage: Vec<(u64, AgreedTime)>,
}

impl Core {
    pub(crate) fn new(lane: Agreement, journal: Journal<Effect>, n: u16) -> Core {
        Core {
            lane,
            outbox: Outbox::new(),
            journal,
            deliveries: Vec::new(),
            now: Now::default(),
            touched: true,
            draining: false,
            counters: TrafficCounters::default(),
            misbehaviour: vec![0; usize::from(n)],
            garbage: vec![(0, AgreedTime(0)); usize::from(n)],
            deaf: None,
            complaints: Throttle::default(),
            check_at: CHECK_EVERY,
        }
    }

    /// Steps the lane and counts what it refuses.
    pub(crate) fn input(&mut self, input: Input) -> Result<(), Reject> {
        let input = match &self.deaf {
            None => input,
            Some(deaf) => match deaf.filter(self.lane.view(), input) {
                Some(input) => input,
                None => return Ok(()),
            },
        };
        self.touched = true;
        let from = match &input {
            Input::Peer { from, .. } => Some(*from),
            _ => None,
        };
        let result = self.lane.step(self.now, input, &mut self.outbox);
        match result {
            Ok(()) => {}
            Err(Reject::Stale(_)) => self.counters.stale += 1,
            Err(Reject::Quota) => self.counters.quota += 1,
            Err(Reject::Repeats) => self.counters.repeats += 1,
            Err(Reject::Misbehaviour(sin)) => self.misbehaved(from, sin),
        }
        result
    }

    /// Counts what no correct replica does, and says so now and then.
    pub(crate) fn misbehaved(&mut self, from: Option<ReplicaId>, sin: &'static str) {
        self.counters.misbehaviour += 1;
        let Some(from) = from else { return };
        if let Some(count) = self.misbehaviour.get_mut(usize::from(from.0)) {
            *count += 1;
        }
        if self.complaints.allow(self.now.mono) {
            let more = self.complaints.suppressed();
            tracing::warn!(peer = %from, sin, more, "misbehaviour");
        }
    }

    /// A packet that `from` has sealed itself means nothing.
    pub(crate) fn garbage_from(&mut self, from: ReplicaId, what: &'static str) {
        self.misbehaved(Some(from), what);
        let Some((count, first)) = self.garbage.get_mut(usize::from(from.0)) else { return };
        if *count == 0 {
            *first = self.now.wall;
            tracing::warn!(accused = %from, kind = GARBAGE, "a replica is suspected");
        }
        *count += 1;
    }

    fn note(&mut self, pillar: PillarId, fact: &Fact) {
        match fact {
            Fact::Stable { seq, .. } => tracing::debug!(%pillar, %seq, "checkpoint stable"),
            Fact::Diverged { seq, mine, theirs } => {
                tracing::error!(%pillar, %seq, ?mine, ?theirs, "this replica has diverged");
            }
            Fact::LeftBehind { missing, stable } => {
                if self.complaints.allow(self.now.mono) {
                    tracing::warn!(%pillar, %missing, %stable, "left behind");
                }
            }
        }
    }
}

impl LaneHost {
    pub(crate) fn new(
        core: Core,
        links: Links,
        mail: LaneMail,
        saboteur: Option<Box<Saboteur>>,
    ) -> LaneHost {
        LaneHost {
            core,
            links,
            mail,
            scratch: Vec::new(),
            status_asked: Vec::new(),
            paused: Vec::new(),
            resume_at: None,
            overflowing: false,
            saboteur,
        }
    }

    /// Begins a turn: takes the time, and does what is due on the connections.
    pub(crate) fn begin(&mut self, now: Now) {
        self.core.now = now;
        self.links.on_time(now.mono);
        self.pester(now.mono);
        if self.resume_at.is_some_and(|at| at <= now.mono) {
            self.resume_at = None;
            for slot in std::mem::take(&mut self.paused) {
                if let Some(conn) = self.links.conns.get_mut(slot)
                    && conn.paused
                {
                    (conn.paused, conn.listed) = (false, true);
                    self.links.ready.push(slot);
                }
            }
        }
    }

    /// Takes what siblings and stage say, and carries out what follows. True when there was
    /// something.
    pub(crate) fn take_mail(&mut self) -> bool {
        let mut any = false;
        for i in 0..self.mail.from_siblings.len() {
            while let Some(message) = self.mail.from_siblings[i].pop() {
                any = true;
                // Counted by `input`; nothing else is to be done about a sibling.
                let _ = self.core.input(Input::Sibling(message));
            }
        }
        while let Some(message) = self.mail.from_stage.pop() {
            any = true;
            if let FromStage::Reply { frame, content } = &message {
                let view = self.core.lane.view();
                let twisted = self.saboteur.as_ref().map(|saboteur| saboteur.reply(content));
                if let Some(content) = twisted.as_ref().map_or(Some(content), Option::as_ref) {
                    let sent = self.links.send_reply(view, *frame, content);
                    self.core.counters.replies += u64::from(sent);
                }
            } else {
                let _ = self.core.input(Input::Stage(message));
            }
        }
        while let Some(message) = self.mail.from_coordinator.pop() {
            any = true;
            // Counted by `input`; the coordinator is this replica's own.
            let _ = self.core.input(Input::Coordinator(message));
        }
        self.carry_out();
        any
    }

    /// Ends a turn: the lane proposes, votes and looks at its timers if anything happened.
    pub(crate) fn end(&mut self) {
        let due = self.core.lane.deadline().is_some_and(|at| at <= self.core.now.mono);
        if self.core.touched || due {
            let _ = self.core.input(Input::Turn);
            self.core.touched = false;
            self.core.counters.turns += 1;
            if cfg!(debug_assertions) && self.core.counters.turns >= self.core.check_at {
                self.core.lane.check();
                let pause = CHECK_EVERY.max(self.core.lane.held() as u64 / CHECKED_PER_TURN);
                self.core.check_at = self.core.counters.turns + pause;
            }
            self.carry_out();
        }
    }

    /// Writes what the turn brought and closes what is to be closed.
    pub(crate) fn flush(&mut self) {
        self.core.counters.bytes_out += self.links.flush();
        self.links.bury(self.core.now.mono);
    }

    /// Answers everybody who asked how we are.
    pub(crate) fn answer_status(&mut self, json: impl FnOnce() -> Vec<u8>) {
        if self.status_asked.is_empty() {
            return;
        }
        let mut payload = PacketKind::Status.alone().to_vec();
        payload.extend_from_slice(&json());
        for slot in std::mem::take(&mut self.status_asked) {
            if let Some(conn) = self.links.conns.get_mut(slot) {
                conn.questions = 0;
            }
            self.links.send_packet(slot, &payload);
        }
    }

    /// Stops taking connections and requests, and tells the clients.
    pub(crate) fn drain(&mut self) {
        self.core.draining = true;
        self.links.stop_listening();
        let clients: Vec<usize> = self.client_slots();
        for slot in clients {
            self.links.send_packet(slot, &PacketKind::Goodbye.alone());
        }
    }

    /// Whether there is work that needs no event to begin.
    pub(crate) fn more(&self) -> bool {
        !self.links.ready.is_empty() || !self.rings_empty() || self.core.journal.ripe()
    }

    /// Whether siblings, stage and coordinator have said nothing new.
    pub(crate) fn rings_empty(&self) -> bool {
        let siblings = &self.mail.from_siblings;
        self.mail.from_stage.is_empty()
            && self.mail.from_coordinator.is_empty()
            && siblings.iter().all(RingReceiver::is_empty)
    }

    /// Whether a ring is full and has to be tried again soon.
    pub(crate) fn overflowing(&self) -> bool {
        self.overflowing
    }

    /// When the next turn is wanted at the latest.
    pub(crate) fn next_time(&self) -> Option<Time> {
        let pester = self.saboteur.as_ref().and_then(|saboteur| saboteur.next_time());
        let times = [self.core.lane.deadline(), self.links.next_time(), self.resume_at, pester];
        times.into_iter().flatten().min()
    }

    /// Whether everything for the clients has left.
    pub(crate) fn drained(&mut self) -> bool {
        let quiet = !self.overflowing && self.rings_empty() && self.core.journal.held() == 0;
        quiet && self.links.client_backlog() == 0
    }

    /// What can be told about this lane.
    pub(crate) fn snapshot(&mut self) -> LaneSnapshot {
        LaneSnapshot {
            pillar: self.links.pillar,
            report: self.core.lane.report(),
            peers_up: self.links.peers.count(),
            clients: self.links.clients.count(),
            connections: self.links.conns.len(),
            links: self.links.counters,
            traffic: self.core.counters,
            misbehaviour: self.core.misbehaviour.clone(),
            garbage: self.core.garbage.clone(),
        }
    }

    /// Carries out the lane's effects, in order, as far as the journal lets them go.
    pub(crate) fn carry_out(&mut self) {
        let mut outbox = std::mem::take(&mut self.core.outbox);
        for effect in outbox.drain() {
            if let Some(effect) = self.core.journal.admit(effect) {
                self.perform(effect);
            }
        }
        self.core.outbox = outbox;
        self.core.journal.submit();
        while let Some(effect) = self.core.journal.released() {
            self.perform(effect);
        }
        self.overflowing = self.mail.to_stage.flush();
        self.overflowing |= self.mail.to_coordinator.flush();
        for sibling in &mut self.mail.to_siblings {
            self.overflowing |= sibling.flush();
        }
    }

    /// Appends a message to this turn's packets to one peer or all.
    pub(crate) fn send(&mut self, to: Target, message: &Message) {
        match &mut self.saboteur {
            None => self.transmit(to, message),
            Some(saboteur) => {
                let now = self.core.now.mono;
                for (to, message) in saboteur.peer_message(now, to, message.clone()) {
                    self.transmit(to, &message);
                }
            }
        }
    }

    fn transmit(&mut self, to: Target, message: &Message) {
        self.scratch.clear();
        message.encode(&mut self.scratch);
        match to {
            Target::All => self.links.send_peers(&self.scratch),
            Target::One(peer) => self.links.send_peer(peer, &self.scratch),
        }
    }

    /// In a drill: sends what was held back, and what nobody asked for.
    fn pester(&mut self, now: Time) {
        let Some(saboteur) = &mut self.saboteur else { return };
        let due = saboteur.due(now, self.core.lane.view());
        let garbage = saboteur.garbage(now);
        for (to, message) in due {
            self.transmit(to, &message);
        }
        if let Some(bytes) = garbage {
            self.links.send_peers(&bytes);
            for slot in self.client_slots() {
                self.links.send_packet(slot, &bytes);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, message, .. } => self.send(to, &message),
            Effect::Stage(resend @ ToStage::Resend { .. }) => {
                // The client asks again: nothing is lost but time.
                if !self.mail.to_stage.offer(resend) {
                    self.core.counters.resends_dropped += 1;
                }
            }
            Effect::Stage(message) => self.mail.to_stage.push(message),
            Effect::Siblings(message) => {
                self.mail.to_siblings.iter_mut().for_each(|ring| ring.push(message.clone()));
            }
            Effect::Coordinator(message) => self.mail.to_coordinator.push(message),
            Effect::Fact(fact) => self.core.note(self.links.pillar, &fact),
            // Whatever a journal lets through has been dealt with by the journal.
            Effect::Persist(_) => {}
        }
    }

    fn client_slots(&mut self) -> Vec<usize> {
        let is_client =
            |link: &crate::conn::Link| matches!(link.peer, Peer::Client(_)) && link.confirmed;
        let conns = self.links.conns.iter_mut();
        conns.filter(|(_, c)| c.link().is_some_and(is_client)).map(|(slot, _)| slot).collect()
    }
}

/// What the link proves about the sender of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sender {
    pub(crate) from: ReplicaId,
    pub(crate) incarnation: Incarnation,
}
