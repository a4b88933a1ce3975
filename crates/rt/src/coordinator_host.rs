//! The coordinator with everything that belongs to it: its rings, its journal, and the way to
//! the other coordinators and stages, which is through the links of pillar 0.
//!
//! A turn of the event loop calls [`CoordinatorHost::turn`] as often as there is something, then
//! [`CoordinatorHost::end`]. What stages say to each other passes through here as it is.
//!
//! Not here: what the coordinator does (`proto::group`), when a checkpoint is written (`saver`).

use std::sync::Arc;

use base::transfer::StateMessage;
use base::{Now, ReplicaId, Time, ToStage};
use proto::group::msg::GroupMessage;
use proto::group::{Coordinator, CoordinatorReport, Effect, GroupFact, Input};
use proto::pbft::Reject;
use proto::pbft::msg::Message;
use proto::{Record, Target};

use crate::evidence::{Evidence, EvidenceRows};
use crate::journal::Journal;
use crate::logic::{Core, Sender};
use crate::mesh::CoordinatorMail;
use crate::ring::RingReceiver;
use crate::saver::Saver;
use crate::sync::{AtomicUsize, Ordering};

/// Bytes of other stages' messages that may wait for this one; more are dropped, and asked for
/// again.
const STATE_BYTES_MAX: usize = 32 << 20;

/// Where the coordinator lives: with pillar 0, on whose links it talks.
pub(crate) trait Chief {
    /// Pillar 0's core.
    fn core(&mut self) -> &mut Core;

    /// Appends a message to this turn's packets to one peer or all.
    fn send(&mut self, to: Target, message: &Message);
}

/// What pillar 0's connections have for the coordinator or, through it, for the stage.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// A message of another coordinator.
    Group(Sender, Arc<GroupMessage>),
    /// A message of another stage.
    State(Sender, Arc<StateMessage>),
    /// The link to a peer is up.
    Connected(ReplicaId),
}

/// Bytes of other stages' messages that are on their way to this one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inflow(Arc<AtomicUsize>);

impl Inflow {
    /// Takes note of `bytes` more; false when there are too many already.
    pub(crate) fn admit(&self, bytes: usize) -> bool {
        // There is one producer: nobody adds between the two steps.
        let fits = self.0.load(Ordering::Relaxed) + bytes <= STATE_BYTES_MAX;
        if fits {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// The stage has taken `bytes`.
    pub(crate) fn taken(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The coordinator and what belongs to it.
pub(crate) struct CoordinatorHost {
    core: Coordinator,
    out: Vec<Effect>,
    journal: Journal<Effect>,
    mail: CoordinatorMail,
    inflow: Inflow,
    saver: Saver,
    now: Now,
    touched: bool,
    overflowing: bool,
    /// What a new segment of the log begins with has changed.
    carry: bool,
    counters: CoordinatorCounters,
    facts: Facts,
    evidence: Evidence,
}

/// What a coordinator's host is made of.
pub(crate) struct CoordinatorParts {
    pub(crate) core: Coordinator,
    /// What the core wants done first.
    pub(crate) first: Vec<Effect>,
    pub(crate) journal: Journal<Effect>,
    pub(crate) mail: CoordinatorMail,
    pub(crate) inflow: Inflow,
    pub(crate) saver: Saver,
    pub(crate) evidence: Evidence,
    /// Replicas in the group.
    pub(crate) n: u16,
}

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct CoordinatorCounters {
    /// Inputs refused as stale.
    pub(crate) stale: u64,
    /// Messages of other stages that were dropped because this one has too many.
    pub(crate) state_dropped: u64,
}

/// What the coordinator has told that people want to see later, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Facts {
    /// As many replicas say that they may have forgotten votes, while that is too many.
    pub(crate) too_many_forgetful: Option<usize>,
}

/// What the coordinator tells when it is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct CoordinatorSnapshot {
    pub(crate) report: CoordinatorReport,
    pub(crate) counters: CoordinatorCounters,
    pub(crate) facts: Facts,
    pub(crate) evidence: Arc<EvidenceRows>,
}

impl CoordinatorHost {
    pub(crate) fn new(parts: CoordinatorParts) -> CoordinatorHost {
        let CoordinatorParts { core, first, mut journal, mail, inflow, saver, mut evidence, n } =
            parts;
        // Before any lane makes the log begin another segment.
        journal.carry(|| core.records().into_iter().map(Record::Group));
        // Those of earlier lives.
        core.proofs().iter().for_each(|proof| evidence.proved(proof.accused(n), proof));
        CoordinatorHost {
            core,
            out: first,
            journal,
            mail,
            inflow,
            saver,
            now: Now::default(),
            touched: true,
            overflowing: false,
            carry: true,
            counters: CoordinatorCounters::default(),
            facts: Facts::default(),
            evidence,
        }
    }

    /// Takes what peers, lanes and stage say, and carries out what follows. `lane` is pillar 0's.
    /// True when there was something.
    pub(crate) fn turn(&mut self, now: Now, lane: &mut impl Chief) -> bool {
        self.now = now;
        let mut any = false;
        for delivery in std::mem::take(&mut lane.core().deliveries) {
            any = true;
            self.on_delivery(delivery, lane);
        }
        for pillar in 0..self.mail.from_lanes.len() {
            while let Some(message) = self.mail.from_lanes[pillar].pop() {
                any = true;
                self.input(Input::Lane(message), lane);
            }
        }
        while let Some(message) = self.mail.from_stage.pop() {
            any = true;
            self.input(Input::Stage(message), lane);
        }
        self.carry_out(lane);
        any
    }

    /// Ends a turn: looks at the timers if anything happened or is due.
    pub(crate) fn end(&mut self, lane: &mut impl Chief) {
        let mono = self.now.mono;
        if let Some(written) = self.saver.settle() {
            self.input(Input::Saved { written }, lane);
        }
        if let Some(now) = self.saver.wants() {
            self.input(Input::SaveCheckpoint { now }, lane);
        }
        let due = self.core.deadline().is_some_and(|at| at <= mono);
        if std::mem::take(&mut self.touched) || due {
            self.input(Input::Turn, lane);
            self.touched = false;
        }
        self.carry_out(lane);
    }

    /// When the next turn is wanted at the latest.
    pub(crate) fn next_time(&self) -> Option<Time> {
        self.core.deadline()
    }

    /// Whether there is work that needs no event to begin.
    pub(crate) fn more(&self) -> bool {
        self.journal.ripe()
            || self.saver.arrived()
            || self.saver.requested()
            || !self.mail.from_stage.is_empty()
            || !self.mail.from_lanes.iter().all(RingReceiver::is_empty)
    }

    /// Whether a ring is full and has to be tried again soon.
    pub(crate) fn overflowing(&self) -> bool {
        self.overflowing
    }

    /// What can be told about the coordinator.
    pub(crate) fn snapshot(&self) -> CoordinatorSnapshot {
        CoordinatorSnapshot {
            report: self.core.report(),
            counters: self.counters,
            facts: self.facts,
            evidence: self.evidence.rows(),
        }
    }

    fn on_delivery(&mut self, delivery: Delivery, lane: &mut impl Chief) {
        match delivery {
            Delivery::Connected(peer) => self.input(Input::Connected { peer }, lane),
            Delivery::Group(Sender { from, incarnation }, message) => {
                let message = Arc::unwrap_or_clone(message);
                self.input(Input::Peer { from, incarnation, message }, lane);
            }
            Delivery::State(Sender { from, .. }, message) => {
                if self.inflow.admit(message.encoded_len_max()) {
                    let message = Arc::unwrap_or_clone(message);
                    self.mail.to_stage.push(ToStage::State { from, message });
                } else {
                    self.counters.state_dropped += 1;
                }
            }
        }
    }

    fn input(&mut self, input: Input, lane: &mut impl Chief) {
        self.touched = true;
        let from = match &input {
            Input::Peer { from, .. } => Some(*from),
            _ => None,
        };
        match self.core.step(self.now, input, &mut self.out) {
            Ok(()) => {}
            Err(Reject::Stale(_) | Reject::Quota | Reject::Repeats | Reject::Forged) => {
                self.counters.stale += 1;
            }
            Err(Reject::Misbehaviour(sin)) => lane.core().misbehaved(from, sin),
        }
    }

    fn carry_out(&mut self, lane: &mut impl Chief) {
        let mut out = std::mem::take(&mut self.out);
        for effect in out.drain(..) {
            self.carry |= durable::is_carried(&effect);
            if let Some(effect) = self.journal.admit(effect) {
                self.perform(effect, lane);
            }
        }
        self.out = out;
        if std::mem::take(&mut self.carry) {
            self.journal.carry(|| self.core.records().into_iter().map(Record::Group));
        }
        self.journal.submit();
        while let Some(effect) = self.journal.released() {
            self.perform(effect, lane);
        }
        self.overflowing = self.mail.to_stage.flush();
        for ring in &mut self.mail.to_lanes {
            self.overflowing |= ring.flush();
        }
    }

    fn perform(&mut self, effect: Effect, lane: &mut impl Chief) {
        match effect {
            Effect::Send { to, message, .. } => {
                lane.send(to, &Message::Group(Arc::new(message)));
            }
            Effect::Lanes(message) => {
                self.mail.to_lanes.iter_mut().for_each(|ring| ring.push(message.clone()));
            }
            Effect::Stage(message) => self.mail.to_stage.push(message),
            Effect::State { to, message } => {
                lane.send(Target::One(to), &Message::State(Arc::new(message)));
            }
            Effect::Save(stable) => self.saver.save(stable),
            Effect::Fact(fact) => self.note(&fact),
            // Whatever a journal lets through has been dealt with by the journal.
            Effect::Persist(_) => {}
        }
    }

    fn note(&mut self, fact: &GroupFact) {
        match fact {
            GroupFact::Proof { accused, proof } => self.evidence.proved(*accused, proof),
            GroupFact::Suspicion { replica, kind } => {
                self.evidence.suspected(*replica, *kind, self.now.wall);
            }
            GroupFact::Leaving(view) => tracing::info!(%view, "asks for a new view"),
            GroupFact::Installed(view) => tracing::info!(%view, "view installed"),
            GroupFact::Recovered(stable) => {
                self.facts.too_many_forgetful = None;
                self.journal.recovered();
                self.saver.state_replaced();
                tracing::info!(%stable, "recovered: votes again");
            }
            GroupFact::TooManyForgetful(count) => {
                self.facts.too_many_forgetful = Some(*count);
                tracing::error!(
                    count,
                    "more replicas than may fail have forgotten their votes: nobody can tell \
                     what was agreed. Start those that have not, or found a new group from a \
                     snapshot with `stylite init --from-snapshot`"
                );
            }
            GroupFact::Fetching(seq) => tracing::info!(%seq, "fetches a checkpoint"),
            GroupFact::Fetched(seq) => {
                self.saver.state_replaced();
                tracing::info!(%seq, "checkpoint fetched");
            }
        }
    }
}
