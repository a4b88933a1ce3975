//! No agreement at all: one unreplicated server, the baseline that replication is measured
//! against (NO-REP in the papers).
//!
//! A [`Solo`] stands where a [`Lane`](crate::pbft::Lane) stands, with the same inputs and the
//! same outbox, so that everything around it is that of a replicated group: connections, seals,
//! clients' authenticators, frames, rings, execution, sessions, replies, local checkpoints. What
//! it leaves out is agreement: no vouches, no proposals, no votes, no log, no view. A batch is
//! what came in one turn of the owner's event loop.
//!
//! It orders whatever comes, a repeated frame again: the client table answers that from its
//! cache. What a client may have waiting is bounded by the same quota as in a lane.
//!
//! Several pillars work as in a group: numbers are striped, and a pillar fills its own with null
//! when a sibling is ahead (COP §4.2.1).
//!
//! What it is not: durable. Nothing it does survives its process, and it says so by persisting
//! nothing; who starts it refuses every durability but `memory`.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::links::PillarReport;
use base::{
    AgreedTime, Batch, ClientId, Digest, Frame, FrameKind, FromStage, Keyring, Now, Seq, Sibling,
    Span, StableCheckpoint, Time, ToStage, View, limits,
};

use crate::group::link::{FromCoordinator, ToCoordinator};
use crate::outbox::{Fact, Outbox};
use crate::pbft::msg::Checkpoint;
use crate::pbft::{Input, LaneConfig, Reject};

/// The least time between two ticks, whatever deadlines the service declares.
const TICK_MIN: Span = Span::millis(10);

/// The order of one pillar of an unreplicated server.
pub struct Solo {
    cfg: LaneConfig,
    keys: Box<dyn Keyring>,
    /// Came and not ordered.
    waiting: VecDeque<Arc<Frame>>,
    /// Ordered and not executed.
    ordered: VecDeque<(Seq, Arc<Batch>)>,
    /// Frames and bytes of each principal in both.
    quota: BTreeMap<ClientId, (usize, usize)>,
    /// The next number of this stripe.
    next: Seq,
    /// Numbers below are to be filled, with null if need be.
    fill: Seq,
    executed: Seq,
    stable: StableCheckpoint,
    deadline: Option<AgreedTime>,
    tick_at: Option<Time>,
    last_tick: Time,
    stale: u64,
    misbehaviour: u64,
}

impl Solo {
    /// A server at the beginning of its history.
    ///
    /// # Panics
    /// When the configuration is that of a group of several.
    #[must_use]
    pub fn new(cfg: LaneConfig, keys: Box<dyn Keyring>) -> Solo {
        assert!(cfg.quorums.n() == 1, "an unreplicated server is alone");
        assert!((1..=limits::BATCH_FRAMES_MAX).contains(&cfg.batching.frames_max));
        Solo {
            keys,
            waiting: VecDeque::new(),
            ordered: VecDeque::new(),
            quota: BTreeMap::new(),
            next: cfg.stripe.next_of(cfg.pillar, Seq(0)),
            fill: Seq(0),
            executed: Seq(0),
            stable: StableCheckpoint::default(),
            deadline: None,
            tick_at: None,
            last_tick: Time::ZERO,
            stale: 0,
            misbehaviour: 0,
            cfg,
        }
    }

    /// Tells it what happened; as [`Lane::step`](crate::pbft::Lane::step).
    ///
    /// # Errors
    /// When the input had no effect, and why.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Outbox) -> Result<(), Reject> {
        let result = match input {
            Input::Request(frame) if frame.kind() == FrameKind::Read => {
                Err(Reject::Stale("a read in a group that orders reads"))
            }
            Input::Request(frame) => self.on_request(frame),
            Input::Stage(message) => {
                self.on_stage(message, out);
                Ok(())
            }
            Input::Sibling(Sibling::Proposed(seq)) => {
                self.fill = self.fill.max(seq);
                Ok(())
            }
            Input::Sibling(Sibling::Stable(stable) | Sibling::Certified(stable)) => {
                self.take_stable(stable);
                Ok(())
            }
            Input::Coordinator(FromCoordinator::Fill(seq)) => {
                self.fill = self.fill.max(seq.next());
                Ok(())
            }
            // Views, votes and certificates are a group's.
            Input::Coordinator(_) => Ok(()),
            Input::Turn => {
                self.order(now, out);
                Ok(())
            }
            Input::Peer { .. } | Input::Connected { .. } => {
                Err(Reject::Misbehaviour("a peer of an unreplicated server"))
            }
        };
        match result {
            Err(Reject::Stale(_)) => self.stale += 1,
            Err(Reject::Misbehaviour(_)) => self.misbehaviour += 1,
            Ok(()) | Err(Reject::Quota | Reject::Repeats | Reject::Forged) => {}
        }
        result
    }

    /// When it wants a turn at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.tick_at.filter(|_| self.ordered.is_empty())
    }

    /// Its view, which never changes.
    #[must_use]
    pub fn view(&self) -> View {
        View(0)
    }

    /// Frames that it holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.waiting.len() + self.ordered.len()
    }

    /// What it tells about itself.
    #[must_use]
    pub fn report(&self) -> PillarReport {
        let before = self.next.0.checked_sub(u64::from(self.cfg.stripe.pillars()));
        PillarReport {
            view: View(0),
            leaders: 1,
            stable: self.stable.seq,
            stable_digest: self.stable.digest,
            delivered: Seq(before.unwrap_or(0)),
            pending_frames: self.waiting.len() as u64,
            in_flight: self.ordered.len() as u64,
            stale: self.stale,
            misbehaviour: self.misbehaviour,
        }
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        let mut quota = BTreeMap::new();
        let batches = self.ordered.iter().map(|(_, batch)| &**batch);
        let ordered = batches.flat_map(|batch| match batch {
            Batch::Frames { frames, .. } => frames.as_slice(),
            Batch::Null => &[],
        });
        for frame in self.waiting.iter().chain(ordered) {
            let (frames, bytes): &mut (usize, usize) = quota.entry(frame.id().client).or_default();
            (*frames, *bytes) = (*frames + 1, *bytes + frame.weight());
        }
        assert_eq!(quota, self.quota);
        let seqs: Vec<Seq> = self.ordered.iter().map(|(seq, _)| *seq).collect();
        assert!(seqs.is_sorted() && seqs.iter().all(|seq| *seq > self.executed));
        assert!(self.next.0 <= self.reach().0 + u64::from(self.cfg.stripe.pillars()));
    }

    fn on_request(&mut self, frame: Arc<Frame>) -> Result<(), Reject> {
        let (frames, bytes) = self.quota.entry(frame.id().client).or_default();
        let fits = *frames < limits::PENDING_FRAMES_PER_CLIENT_MAX
            && *bytes + frame.weight() <= limits::PENDING_BYTES_PER_CLIENT_MAX;
        if !fits {
            return Err(Reject::Quota);
        }
        (*frames, *bytes) = (*frames + 1, *bytes + frame.weight());
        self.waiting.push_back(frame);
        Ok(())
    }

    fn on_stage(&mut self, message: FromStage, out: &mut Outbox) {
        match message {
            FromStage::Executed(progress) => {
                self.on_executed(progress.executed);
                if self.deadline != progress.deadline {
                    (self.deadline, self.tick_at) = (progress.deadline, None);
                }
            }
            FromStage::Blocked { missing, highest } => {
                if self.cfg.stripe.pillar_of(missing) == self.cfg.pillar {
                    self.fill = self.fill.max(highest);
                }
            }
            FromStage::Checkpoint { seq, digest } => self.on_checkpoint(seq, digest, out),
            // A frame that is refused is ordered again when it comes again. The rest is not for
            // lanes, or about other replicas.
            FromStage::Refused { .. }
            | FromStage::Reply { .. }
            | FromStage::Nudge { .. }
            | FromStage::Pinned { .. }
            | FromStage::PinMissed { .. }
            | FromStage::State { .. }
            | FromStage::Fetched { .. }
            | FromStage::FetchFailed { .. }
            | FromStage::LostSource { .. }
            | FromStage::LyingSource { .. }
            | FromStage::Diverged { .. } => {}
        }
    }

    fn on_executed(&mut self, executed: Seq) {
        self.executed = self.executed.max(executed);
        while self.ordered.front().is_some_and(|(seq, _)| *seq <= executed) {
            let Some((_, batch)) = self.ordered.pop_front() else { return };
            let Batch::Frames { frames, .. } = &*batch else { continue };
            for frame in frames {
                let client = frame.id().client;
                let (frames, bytes) = self.quota.get_mut(&client).expect("charged when it came");
                (*frames, *bytes) = (*frames - 1, *bytes - frame.weight());
                if *frames == 0 {
                    self.quota.remove(&client);
                }
            }
        }
    }

    /// A checkpoint of one is stable at once, by its own signature alone.
    fn on_checkpoint(&mut self, seq: Seq, digest: Digest, out: &mut Outbox) {
        let bytes = Checkpoint::signed_bytes(self.cfg.group, self.cfg.epoch, seq, digest);
        let proof = Arc::new(alloc::vec![(self.cfg.me, self.keys.sign(&bytes))]);
        let stable = StableCheckpoint { seq, digest, proof };
        out.stage(ToStage::Stable(stable.clone()));
        out.siblings(Sibling::Stable(stable.clone()));
        out.coordinator(ToCoordinator::Stable(stable.clone()));
        out.fact(Fact::Stable { seq, digest });
        self.take_stable(stable);
    }

    fn take_stable(&mut self, stable: StableCheckpoint) {
        if stable.seq > self.stable.seq {
            self.stable = stable;
        }
    }

    /// The highest number that may be ordered: as far beyond execution as in a group.
    fn reach(&self) -> Seq {
        Seq(self.executed.0 + self.cfg.window)
    }

    /// Orders what has come, and fills what siblings or the coordinator wait for.
    fn order(&mut self, now: Now, out: &mut Outbox) {
        while self.next <= self.reach() {
            if !self.waiting.is_empty() {
                let frames = self.take_batch();
                self.deliver(Batch::Frames { time: now.wall, frames }, out);
            } else if self.next < self.fill {
                self.deliver(Batch::Null, out);
            } else {
                break;
            }
        }
        self.tick(now, out);
    }

    /// What waits, within the bounds of one batch.
    fn take_batch(&mut self) -> Vec<Arc<Frame>> {
        let batching = self.cfg.batching;
        let (mut count, mut bytes) = (0, 0);
        for frame in self.waiting.iter().take(batching.frames_max) {
            bytes += frame.weight();
            if count > 0 && bytes > batching.bytes_max {
                break;
            }
            count += 1;
        }
        self.waiting.drain(..count).collect()
    }

    fn deliver(&mut self, batch: Batch, out: &mut Outbox) {
        let (seq, batch) = (self.next, Arc::new(batch));
        self.next = self.cfg.stripe.next_of(self.cfg.pillar, seq);
        self.ordered.push_back((seq, Arc::clone(&batch)));
        out.stage(ToStage::Deliver { seq, batch });
        out.siblings(Sibling::Proposed(seq));
    }

    /// Pillar 0 orders a tick when the service has declared a deadline and nothing else moves
    /// time past it.
    fn tick(&mut self, now: Now, out: &mut Outbox) {
        if self.cfg.pillar.0 != 0 {
            return;
        }
        let Some(deadline) = self.deadline else { return };
        let at = *self.tick_at.get_or_insert_with(|| {
            let wait = Span(deadline.0.saturating_sub(now.wall.0));
            now.mono.after(wait).max(self.last_tick.after(TICK_MIN))
        });
        if at <= now.mono && self.ordered.is_empty() && self.next <= self.reach() {
            (self.tick_at, self.last_tick) = (None, now.mono);
            self.deliver(Batch::Frames { time: now.wall, frames: Vec::new() }, out);
        }
    }
}

#[cfg(test)]
mod tests;
