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
use base::{FromStage, Incarnation, Now, PillarId, ReplicaId, Sibling, Time, ToStage};
use proto::pbft::{Input, Lane, Reject};
use proto::{Effect, Fact, Outbox, Target};

use crate::counters::{LinkCounters, TrafficCounters};
use crate::journal::Journal;
use crate::links::Links;
use crate::ring::{RingReceiver, RingSender};
use crate::throttle::Throttle;

/// Turns between two checks of a lane's invariants in debug builds. A check costs O(window).
const CHECK_EVERY: u64 = 64;

/// The rings of one lane.
pub(crate) struct LaneMail {
    pub(crate) to_stage: RingSender<ToStage>,
    pub(crate) from_stage: RingReceiver<FromStage>,
    pub(crate) to_siblings: Vec<RingSender<Sibling>>,
    pub(crate) from_siblings: Vec<RingReceiver<Sibling>>,
}

/// What went wrong for good, as far as this lane knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Trouble {
    /// A quorum has another state than this replica.
    pub(crate) diverged: bool,
    /// The others' logs no longer reach back to this replica.
    pub(crate) left_behind: bool,
}

/// The agreement core and its bookkeeping: what packets end in.
pub(crate) struct Core {
    pub(crate) lane: Lane,
    pub(crate) outbox: Outbox,
    pub(crate) journal: Box<dyn Journal>,
    pub(crate) now: Now,
    /// The lane got something since its last turn.
    pub(crate) touched: bool,
    pub(crate) draining: bool,
    pub(crate) counters: TrafficCounters,
    /// Per replica: inputs that no correct replica sends.
    pub(crate) misbehaviour: Vec<u64>,
    pub(crate) trouble: Trouble,
    complaints: Throttle,
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
    pub(crate) trouble: Trouble,
}

impl Core {
    pub(crate) fn new(lane: Lane, journal: Box<dyn Journal>, n: u16) -> Core {
        Core {
            lane,
            outbox: Outbox::new(),
            journal,
            now: Now::default(),
            touched: true,
            draining: false,
            counters: TrafficCounters::default(),
            misbehaviour: vec![0; usize::from(n)],
            trouble: Trouble::default(),
            complaints: Throttle::default(),
        }
    }

    /// Steps the lane and counts what it refuses.
    pub(crate) fn input(&mut self, input: Input) -> Result<(), Reject> {
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
            Err(Reject::Misbehaviour(sin)) => self.misbehaved(from, sin),
        }
        result
    }

    fn misbehaved(&mut self, from: Option<ReplicaId>, sin: &'static str) {
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

    fn note(&mut self, pillar: PillarId, fact: &Fact) {
        match fact {
            Fact::Stable { seq, .. } => tracing::debug!(%pillar, %seq, "checkpoint stable"),
            Fact::Diverged { seq, mine, theirs } => {
                self.trouble.diverged = true;
                tracing::error!(%pillar, %seq, ?mine, ?theirs, "this replica has diverged");
            }
            Fact::LeftBehind { missing, stable } => {
                self.trouble.left_behind = true;
                if self.complaints.allow(self.now.mono) {
                    tracing::warn!(%pillar, %missing, %stable, "left behind");
                }
            }
        }
    }
}

impl LaneHost {
    pub(crate) fn new(core: Core, links: Links, mail: LaneMail) -> LaneHost {
        LaneHost {
            core,
            links,
            mail,
            scratch: Vec::new(),
            status_asked: Vec::new(),
            paused: Vec::new(),
            resume_at: None,
            overflowing: false,
        }
    }

    /// Begins a turn: takes the time, and does what is due on the connections.
    pub(crate) fn begin(&mut self, now: Now) {
        self.core.now = now;
        self.links.on_time(now.mono);
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
                let sent = self.links.send_reply(view, *frame, content);
                self.core.counters.replies += u64::from(sent);
            } else {
                let _ = self.core.input(Input::Stage(message));
            }
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
            if cfg!(debug_assertions) && self.core.counters.turns.is_multiple_of(CHECK_EVERY) {
                self.core.lane.check();
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
        !self.links.ready.is_empty() || !self.rings_empty()
    }

    /// Whether siblings and stage have said nothing new.
    pub(crate) fn rings_empty(&self) -> bool {
        let siblings = &self.mail.from_siblings;
        self.mail.from_stage.is_empty() && siblings.iter().all(RingReceiver::is_empty)
    }

    /// Whether a ring is full and has to be tried again soon.
    pub(crate) fn overflowing(&self) -> bool {
        self.overflowing
    }

    /// When the next turn is wanted at the latest.
    pub(crate) fn next_time(&self) -> Option<Time> {
        let times = [self.core.lane.deadline(), self.links.next_time(), self.resume_at];
        times.into_iter().flatten().min()
    }

    /// Whether everything for the clients has left.
    pub(crate) fn drained(&mut self) -> bool {
        !self.overflowing && self.rings_empty() && self.links.client_backlog() == 0
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
            trouble: self.core.trouble,
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
        while let Some(effect) = self.core.journal.released() {
            self.perform(effect);
        }
        self.overflowing = self.mail.to_stage.flush();
        for sibling in &mut self.mail.to_siblings {
            self.overflowing |= sibling.flush();
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, message, .. } => {
                self.scratch.clear();
                message.encode(&mut self.scratch);
                match to {
                    Target::All => self.links.send_peers(&self.scratch),
                    Target::One(peer) => self.links.send_peer(peer, &self.scratch),
                }
            }
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
