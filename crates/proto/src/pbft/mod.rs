//! One pillar's PBFT: a [`Lane`] runs every consensus instance of its stripe, many at a time.
//!
//! Steps and quorums: `docs/protocol/pbft.md`. COP §4.1 and §4.2; design §4.

//! What this is not: the view change (the coordinator's business, over all pillars together),
//! execution, and anything that touches a socket or a clock.
//!
//! | module | topic |
//! |---|---|
//! | `msg` | the messages and their bytes |
//! | `log` | a slot for each number |
//! | `pool` | frames on their way to being ordered |
//! | `agree` | PRE-PREPARE, PREPARE, COMMIT |
//! | `lead` | batching, null batches, ticks |
//! | `checkpoint` | signatures of checkpoints, stability, truncation |
//! | `catchup` | retransmission, bodies, decided instances |
//! | `peers` | how far the others are, and how much help each got |

mod agree;
mod catchup;
mod checkpoint;
mod lead;
mod log;
pub mod msg;
mod peers;
mod pool;

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::links::PillarReport;
use base::{
    Batch, BatchEntry, Epoch, Frame, FromStage, GroupId, Incarnation, Keyring, Now, PillarId,
    Progress, Quorums, ReplicaId, Seq, Sibling, Span, Stripe, Time, ToStage, View, limits,
};

use crate::outbox::{Outbox, Target};
use catchup::Catchup;
use checkpoint::Checkpoints;
use lead::Lead;
use log::{Log, Phase};
use msg::Message;
use pool::{Arrival, Pool, Vouched};

/// How a leader makes batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batching {
    /// Most frames in a batch, `1..=BATCH_FRAMES_MAX`. 1 is the unbatched mode.
    pub frames_max: usize,
    /// Most bytes of frames in a batch; one frame always fits.
    pub bytes_max: usize,
    /// How long a batch that is not full may wait for more frames. Zero: not at all.
    pub delay: Span,
    /// How many of its instances a lane keeps proposed and unexecuted before it lets frames
    /// gather: this is what adapts the batch size to the load.
    pub in_flight_max: usize,
}

/// What a lane must know, the same for its whole life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneConfig {
    /// The replica this lane belongs to.
    pub me: ReplicaId,
    /// The pillar it is the agreement core of.
    pub pillar: PillarId,
    /// The group.
    pub group: GroupId,
    /// The membership epoch.
    pub epoch: Epoch,
    /// Quorum sizes.
    pub quorums: Quorums,
    /// The striping of sequence numbers.
    pub stripe: Stripe,
    /// L: numbers above the low mark that may be proposed.
    pub window: u64,
    /// K: numbers between checkpoints. L is at least 2K.
    pub checkpoint_interval: u64,
    /// How batches are made.
    pub batching: Batching,
    /// How far a fresh proposal's clock may be off this replica's.
    pub clock_skew_max: Span,
    /// How long a lane without progress waits before it asks its peers.
    pub retransmit: Span,
}

/// What happens to a lane.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message arrived on the sealed link from the same pillar of `from`.
    Peer {
        /// The sender, as the link proves it.
        from: ReplicaId,
        /// The sender's incarnation, as the link proves it.
        incarnation: Incarnation,
        /// The message.
        message: Message,
    },
    /// The link to `peer` is up (again): what was in flight may be lost.
    Connected {
        /// The peer.
        peer: ReplicaId,
    },
    /// A frame arrived on a sealed link whose other end is the frame's own principal. The owner
    /// checks that.
    Request(Arc<Frame>),
    /// The execution stage says something.
    Stage(FromStage),
    /// A sibling pillar says something.
    Sibling(Sibling),
    /// All inputs of this turn of the event loop are in: propose, flush, look at the timers.
    Turn,
}

/// Why an input had no effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reject {
    /// Normal: too late, too early, or known already. The text says which.
    Stale(&'static str),
    /// No correct replica sends this. The text names the sin.
    Misbehaviour(&'static str),
    /// A client exceeds its quota.
    Quota,
}

/// The agreement core of one pillar. Owns every number of its stripe.
///
/// The owner feeds any number of inputs and then [`Input::Turn`], once per turn of its event
/// loop and whenever [`Lane::deadline`] has passed. It carries out the effects in the outbox, in
/// order. `now.mono` never goes back.
pub struct Lane {
    cfg: LaneConfig,
    keys: Box<dyn Keyring>,
    view: View,
    pool: Pool,
    log: Log,
    lead: Lead,
    checkpoints: Checkpoints,
    catchup: Catchup,
    progress: Progress,
    /// Every number of this stripe up to here was handed to execution.
    delivered: Seq,
    /// What the stage refused in batches that this lane does not know to be executed yet.
    refused: BTreeSet<(Seq, pool::Key)>,
    /// Frames to vouch for, to go to the leader with this turn's votes.
    vouches: Vec<BatchEntry>,
    stale: u64,
    misbehaviour: u64,
}

impl Lane {
    /// A lane at the beginning of the group's history.
    ///
    /// # Panics
    /// When the configuration contradicts itself: the group's configuration is checked before.
    #[must_use]
    pub fn new(cfg: LaneConfig, keys: Box<dyn Keyring>) -> Lane {
        assert!(cfg.me.0 < cfg.quorums.n() && cfg.pillar.0 < cfg.stripe.pillars());
        assert!(cfg.checkpoint_interval > 0 && cfg.window >= 2 * cfg.checkpoint_interval);
        let batching = cfg.batching;
        assert!((1..=limits::BATCH_FRAMES_MAX).contains(&batching.frames_max));
        assert!(batching.in_flight_max > 0);
        Lane {
            keys,
            view: View(0),
            pool: Pool::default(),
            log: Log::new(cfg.stripe, cfg.pillar),
            lead: Lead::new(cfg.stripe.next_of(cfg.pillar, Seq(0))),
            checkpoints: Checkpoints::default(),
            catchup: Catchup::new(cfg.quorums.n()),
            progress: Progress::default(),
            delivered: Seq(0),
            refused: BTreeSet::new(),
            vouches: Vec::new(),
            stale: 0,
            misbehaviour: 0,
            cfg,
        }
    }

    /// Tells the lane what happened. Effects are appended to `out`.
    ///
    /// # Errors
    /// When the input had no effect, and why. The lane has counted it; nothing is to be done,
    /// except that the owner may hold a quota or a misbehaviour against the sender.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Outbox) -> Result<(), Reject> {
        let result = match input {
            Input::Peer { from, incarnation: _, message } => self.on_peer(now, from, message, out),
            Input::Connected { peer } => {
                self.on_connected(now, peer, out);
                Ok(())
            }
            Input::Request(frame) => self.on_request(now, &frame, out),
            Input::Stage(message) => {
                self.on_stage(now, message, out);
                Ok(())
            }
            Input::Sibling(Sibling::Proposed(seq)) => {
                self.lead.fill_to(seq);
                Ok(())
            }
            Input::Sibling(Sibling::Stable(stable)) => {
                self.on_stable(now, &stable, out);
                Ok(())
            }
            Input::Turn => {
                self.on_turn(now, out);
                Ok(())
            }
        };
        match result {
            Err(Reject::Stale(_)) => self.stale += 1,
            Err(Reject::Misbehaviour(_)) => self.misbehaviour += 1,
            Err(Reject::Quota) | Ok(()) => {}
        }
        result
    }

    /// When the lane next wants an [`Input::Turn`] even if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        [self.batch_deadline(), self.tick_deadline(), Some(self.catchup_deadline())]
            .into_iter()
            .flatten()
            .min()
    }

    /// The view this lane is in.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// What people may want to know.
    #[must_use]
    pub fn report(&self) -> PillarReport {
        PillarReport {
            view: self.view,
            stable: self.checkpoints.stable(),
            stable_digest: self.checkpoints.stable_digest(),
            delivered: self.delivered,
            pending_frames: self.pool.len() as u64,
            in_flight: self.in_flight() as u64,
            stale: self.stale,
            misbehaviour: self.misbehaviour,
        }
    }

    /// Checks every invariant, in time proportional to what the lane holds: for tests and
    /// simulation.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        self.log.check();
        self.pool.check();
        self.checkpoints.check(&self.cfg);
        let next = self.cfg.stripe.next_of(self.cfg.pillar, self.delivered);
        assert!(self.log.get(next).is_none_or(|slot| slot.phase < Phase::Delivered));
        assert!(self.log.first() <= next, "a number is cut only after it was delivered");
        assert!(self.low() <= self.progress.executed, "only an executed checkpoint moves the mark");
        if let Some(top) = self.log.highest_touched() {
            assert!(top <= self.high(), "nothing beyond the high mark");
        }
    }

    /// The low mark h: the last stable checkpoint.
    fn low(&self) -> Seq {
        self.checkpoints.stable()
    }

    /// The high mark h + L.
    fn high(&self) -> Seq {
        Seq(self.low().0 + self.cfg.window)
    }

    fn leader(&self) -> ReplicaId {
        self.view.leader(self.cfg.quorums.n())
    }

    fn leads(&self) -> bool {
        self.leader() == self.cfg.me
    }

    fn next_undelivered(&self) -> Seq {
        self.cfg.stripe.next_of(self.cfg.pillar, self.delivered)
    }

    fn on_peer(
        &mut self,
        now: Now,
        from: ReplicaId,
        message: Message,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if from == self.cfg.me || from.0 >= self.cfg.quorums.n() {
            return Err(Reject::Misbehaviour("sender is not another replica"));
        }
        if from == self.leader() {
            self.leader_speaks(now);
        }
        match message {
            Message::PrePrepare { view, seq, proposal } => {
                self.on_pre_prepare(now, from, view, (seq, proposal), out)
            }
            Message::Prepare(vote) => self.on_prepare(now, from, vote, out),
            Message::Commit(vote) => self.on_commit(now, from, vote, out),
            Message::Vouch(entries) => self.on_vouch(now, from, &entries),
            Message::Fetch { seq, entries } => self.on_fetch(now, from, seq, &entries, out),
            Message::Body { vouched, frame } => self.on_body(now, from, vouched, &frame, out),
            Message::Checkpoint(checkpoint) => self.on_checkpoint(now, from, checkpoint, out),
            Message::Status { view: _, stable, delivered } => {
                self.on_status(now, from, stable, delivered, out)
            }
            Message::Decided { seq, proposal } => self.on_decided(now, from, seq, proposal, out),
        }
    }

    /// A frame came from its client. This replica vouches for it: to itself as leader, or to
    /// the leader with this turn's votes.
    fn on_request(&mut self, now: Now, frame: &Arc<Frame>, out: &mut Outbox) -> Result<(), Reject> {
        let entry = BatchEntry { id: frame.id(), digest: frame.digest() };
        match self.pool.arrive(now.mono, frame) {
            Arrival::OverQuota => return Err(Reject::Quota),
            Arrival::Executed => {
                let pillar = self.cfg.pillar;
                out.stage(ToStage::Resend { pillar, frame: frame.id() });
                return Ok(());
            }
            Arrival::Fresh | Arrival::Known => {}
        }
        if self.leads() {
            self.vouched(now, self.cfg.me, entry);
        } else {
            self.vouches.push(entry);
        }
        self.frame_changed(now, &pool::key_of(&entry), out);
        Ok(())
    }

    fn on_vouch(
        &mut self,
        now: Now,
        from: ReplicaId,
        entries: &[BatchEntry],
    ) -> Result<(), Reject> {
        if !self.leads() {
            return Err(Reject::Stale("vouch to a replica that does not lead"));
        }
        let mut over = false;
        for entry in entries {
            over |= !self.vouched(now, from, *entry);
        }
        // Not a sin: faulty clients can make a correct backup vouch for what they send to it alone.
        if over { Err(Reject::Stale("vouches for too many unknown frames")) } else { Ok(()) }
    }

    fn vouched(&mut self, now: Now, who: ReplicaId, entry: BatchEntry) -> bool {
        let key = pool::key_of(&entry);
        let vouched = self.pool.vouch(now.mono, who, key);
        match vouched {
            Vouched::Held => self.pool.queue_if_eligible(key, self.cfg.quorums.quorum()),
            Vouched::Bodyless => self.catchup.waits_for_bodies(now.mono),
            Vouched::Late | Vouched::TooMany => {}
        }
        vouched != Vouched::TooMany
    }

    fn on_stage(&mut self, now: Now, message: FromStage, out: &mut Outbox) {
        match message {
            FromStage::Executed(progress) => {
                // A sibling's word of a stable checkpoint may have overtaken this.
                if progress.executed >= self.progress.executed {
                    self.on_executed(now, progress.executed, out);
                    self.progress = progress;
                    self.lead.deadline_changed(progress.deadline);
                }
            }
            FromStage::Blocked { missing, highest } => {
                if self.cfg.stripe.pillar_of(missing) == self.cfg.pillar {
                    self.lead.fill_to(highest);
                }
            }
            FromStage::Checkpoint { seq, digest } => self.on_own_checkpoint(now, seq, digest, out),
            FromStage::Refused { seq, entry } => {
                let key = pool::key_of(&entry);
                if seq > self.progress.executed {
                    self.refused.insert((seq, key));
                } else {
                    // A sibling's word of a stable checkpoint has overtaken this.
                    self.pool.forget_recent(&key);
                }
            }
            // Replies go from the stage to the connections, past the lane.
            FromStage::Reply { .. } => {}
        }
    }

    /// Everything up to `upto` is executed: its frames leave the pool.
    fn on_executed(&mut self, now: Now, upto: Seq, out: &mut Outbox) {
        let mut seq = self.cfg.stripe.next_of(self.cfg.pillar, self.progress.executed);
        while seq <= upto {
            let batch = self.log.get(seq).and_then(|slot| slot.batch.clone());
            if let Some(Batch::Frames { frames, .. }) = batch.as_deref() {
                for frame in frames {
                    self.on_frame_done(now, seq, frame, out);
                }
            }
            seq = self.cfg.stripe.next_of(self.cfg.pillar, seq);
        }
        self.progress.executed = self.progress.executed.max(upto);
        self.refused.retain(|(seq, _)| *seq > upto);
    }

    /// `frame` of batch `seq` was executed or refused.
    fn on_frame_done(&mut self, now: Now, seq: Seq, frame: &Arc<Frame>, out: &mut Outbox) {
        let key = (frame.id(), frame.digest());
        let refused = self.refused.remove(&(seq, key));
        let wanted = if refused { self.pool.refused(&key) } else { self.pool.executed(&key) };
        if refused && self.leads() {
            self.pool.queue_if_eligible(key, self.cfg.quorums.quorum());
        }
        self.fill_places(now, frame, &wanted, out);
    }

    fn on_turn(&mut self, now: Now, out: &mut Outbox) {
        self.propose(now, out);
        let leader = Target::One(self.leader());
        for chunk in self.vouches.chunks(limits::BATCH_FRAMES_MAX) {
            out.send(leader, Message::Vouch(chunk.to_vec()));
        }
        self.vouches.clear();
        self.catch_up(now, out);
    }
}

#[cfg(test)]
mod tests;
