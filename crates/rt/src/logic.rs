//! The agreement core of one pillar with its bookkeeping: what inputs come to, and what effects
//! go where. The same code whether the connections are on the same thread (`lane_host`) or
//! elsewhere, in a task-oriented pipeline (`top`): they are a [`Wire`].
//!
//! Not here: connections, threads and the poll.

use base::reply::Answer;
use base::{AgreedTime, ClientId, FrameId, FromStage, Incarnation, Now, PillarId, ReplicaId};
use base::{Seq, SessionId, ToStage};
use proto::pbft::msg::Message;
use proto::pbft::{Input, Reject};
use proto::{Effect, Fact, Outbox, Target};

use crate::agreement::Agreement;
use crate::coordinator_host::{Chief, Delivery};
use crate::counters::TrafficCounters;
use crate::drill::{Deaf, Saboteur};
use crate::evidence::GARBAGE;
use crate::journal::Journal;
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

/// The way to peers and clients.
pub(crate) trait Wire {
    /// Appends a message to this turn's packet to one peer.
    fn send_peer(&mut self, to: ReplicaId, message: &[u8]);

    /// Appends a message to this turn's packets to all peers.
    fn send_peers(&mut self, message: &[u8]);

    /// Appends a reply to this turn's packet to a client. True when somebody waits for it.
    fn send_reply(&mut self, frame: FrameId, answer: &Answer<'_>) -> bool;

    /// Tells a client that something waits for it since batch `seq`. True when it is there.
    fn nudge(&mut self, client: ClientId, session: SessionId, seq: Seq) -> bool;
}

/// The core of one pillar and its rings.
pub(crate) struct Logic {
    pub(crate) core: Core,
    pub(crate) pillar: PillarId,
    mail: LaneMail,
    /// The encoding of one message, reused.
    scratch: Vec<u8>,
    overflowing: bool,
    /// In a drill: what leaves instead of what should.
    pub(crate) saboteur: Option<Box<Saboteur>>,
}

/// A pillar's logic with the way out: what the coordinator lives with.
pub(crate) struct Wired<'a, W> {
    pub(crate) logic: &'a mut Logic,
    pub(crate) wire: &'a mut W,
}

impl<W: Wire> Chief for Wired<'_, W> {
    fn core(&mut self) -> &mut Core {
        &mut self.logic.core
    }

    fn send(&mut self, to: Target, message: &Message) {
        self.logic.send(self.wire, to, message);
    }
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
            Err(Reject::Forged) => self.counters.unsigned += 1,
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

impl Logic {
    pub(crate) fn new(
        core: Core,
        pillar: PillarId,
        mail: LaneMail,
        saboteur: Option<Box<Saboteur>>,
    ) -> Logic {
        Logic { core, pillar, mail, scratch: Vec::new(), overflowing: false, saboteur }
    }

    /// Takes what siblings and stage say, and carries out what follows. True when there was
    /// something.
    pub(crate) fn take_mail(&mut self, wire: &mut impl Wire) -> bool {
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
            if let FromStage::Reply { frame, content, tentative, in_full } = &message {
                let view = self.core.lane.view();
                let twisted = self.saboteur.as_ref().map(|saboteur| saboteur.reply(content));
                if let Some(content) = twisted.as_ref().map_or(Some(content), Option::as_ref) {
                    let (tentative, in_full) = (*tentative, *in_full);
                    let answer = Answer { content, view, tentative, in_full };
                    let sent = wire.send_reply(*frame, &answer);
                    self.core.counters.replies += u64::from(sent);
                }
            } else if let FromStage::Nudge { client, session, seq } = message {
                self.core.counters.nudges += u64::from(wire.nudge(client, session, seq));
            } else {
                let _ = self.core.input(Input::Stage(message));
            }
        }
        while let Some(message) = self.mail.from_coordinator.pop() {
            any = true;
            // Counted by `input`; the coordinator is this replica's own.
            let _ = self.core.input(Input::Coordinator(message));
        }
        self.carry_out(wire);
        any
    }

    /// Ends a turn: the lane proposes, votes and looks at its timers if anything happened.
    pub(crate) fn end(&mut self, wire: &mut impl Wire) {
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
            self.carry_out(wire);
        }
    }

    /// Whether there is work that needs no event to begin.
    pub(crate) fn more(&self) -> bool {
        !self.rings_empty() || self.core.journal.ripe()
    }

    /// Whether siblings, stage and coordinator have said nothing new.
    fn rings_empty(&self) -> bool {
        let siblings = &self.mail.from_siblings;
        self.mail.from_stage.is_empty()
            && self.mail.from_coordinator.is_empty()
            && siblings.iter().all(RingReceiver::is_empty)
    }

    /// Whether nothing is on its way to or from the other parts of the replica.
    pub(crate) fn quiet(&self) -> bool {
        !self.overflowing && self.rings_empty() && self.core.journal.held() == 0
    }

    /// Whether a ring is full and has to be tried again soon.
    pub(crate) fn overflowing(&self) -> bool {
        self.overflowing
    }

    /// Carries out the lane's effects, in order, as far as the journal lets them go.
    pub(crate) fn carry_out(&mut self, wire: &mut impl Wire) {
        let mut outbox = std::mem::take(&mut self.core.outbox);
        for effect in outbox.drain() {
            if let Some(effect) = self.core.journal.admit(effect) {
                self.perform(wire, effect);
            }
        }
        self.core.outbox = outbox;
        self.core.journal.submit();
        while let Some(effect) = self.core.journal.released() {
            self.perform(wire, effect);
        }
        self.overflowing = self.mail.to_stage.flush();
        self.overflowing |= self.mail.to_coordinator.flush();
        for sibling in &mut self.mail.to_siblings {
            self.overflowing |= sibling.flush();
        }
    }

    /// Appends a message to this turn's packets to one peer or all.
    pub(crate) fn send(&mut self, wire: &mut impl Wire, to: Target, message: &Message) {
        match &mut self.saboteur {
            None => self.transmit(wire, to, message),
            Some(saboteur) => {
                let now = self.core.now.mono;
                for (to, message) in saboteur.peer_message(now, to, message.clone()) {
                    self.transmit(wire, to, &message);
                }
            }
        }
    }

    pub(crate) fn transmit(&mut self, wire: &mut impl Wire, to: Target, message: &Message) {
        self.scratch.clear();
        message.encode(&mut self.scratch);
        match to {
            Target::All => wire.send_peers(&self.scratch),
            Target::One(peer) => wire.send_peer(peer, &self.scratch),
        }
    }

    fn perform(&mut self, wire: &mut impl Wire, effect: Effect) {
        match effect {
            Effect::Send { to, message, .. } => self.send(wire, to, &message),
            Effect::Stage(resend @ ToStage::Resend { .. }) => {
                // The client asks again: nothing is lost but time.
                if !self.mail.to_stage.offer(resend) {
                    self.core.counters.resends_dropped += 1;
                }
            }
            Effect::Stage(read @ ToStage::Read { .. }) => {
                // The client has it ordered when no answer comes.
                if !self.mail.to_stage.offer(read) {
                    self.core.counters.reads_dropped += 1;
                }
            }
            Effect::Stage(message) => self.mail.to_stage.push(message),
            Effect::Siblings(message) => {
                self.mail.to_siblings.iter_mut().for_each(|ring| ring.push(message.clone()));
            }
            Effect::Coordinator(message) => self.mail.to_coordinator.push(message),
            Effect::Fact(fact) => self.core.note(self.pillar, &fact),
            // Whatever a journal lets through has been dealt with by the journal.
            Effect::Persist(_) => {}
        }
    }
}

/// What the link proves about the sender of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sender {
    pub(crate) from: ReplicaId,
    pub(crate) incarnation: Incarnation,
}
