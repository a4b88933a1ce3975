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
//! | `pool`, `arrival` | frames on their way to being ordered |
//! | `agree`, `undecided` | PRE-PREPARE, PREPARE, COMMIT; how much may be under way |
//! | `lead` | batching, null batches, ticks |
//! | `idle` | an idle pillar that runs ahead of its siblings |
//! | `leaving`, `piggyback` | what leaves at the end of a turn; COMMITs that wait for company |
//! | `inline` | bodies that travel with their proposal |
//! | `checkpoint` | signatures of checkpoints, stability, truncation |
//! | `float` | numbers whose state is fetched |
//! | `catchup` | retransmission, bodies, decided instances |
//! | `overheard` | proposals that the leader keeps from this replica |
//! | `past` | what was promised in earlier views |
//! | `views`, `early` | leaving a view, beginning one, what is said of it too early |
//! | `start` | beginning with what a log holds; what the coordinator says |
//! | `grieve`, `endorse`, `monitor` | when another leader is wanted |
//! | `holdings` | what all of it takes in memory |
//! | `queue` | what a leader has to propose, the principals in turn |
//! | `peers`, `hearing` | how far the others are, and how much help each got; silent leaders |
//! | `roles`, `rotate` | who leads which number; what follows where that is not one alone |

mod agree;
mod answer;
mod arrival;
mod catchup;
mod checkpoint;
mod early;
mod endorse;
mod float;
mod grieve;
mod hearing;
mod holdings;
mod idle;
mod inline;
mod lead;
mod leaving;
mod log;
mod monitor;
pub mod msg;
mod overheard;
mod past;
mod peers;
mod piggyback;
mod pool;
mod queue;
mod reads;
mod report;
mod roles;
mod rotate;
mod start;
mod switches;
mod undecided;
mod views;

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{
    Batch, Epoch, Frame, FrameKind, FromStage, GroupId, Incarnation, Keyring, Now, PillarId,
    Progress, Quorums, ReplicaId, Seq, Sibling, Span, StableCheckpoint, Stripe, Time, View, limits,
};

use crate::group::link::{FromCoordinator, Plan, ToCoordinator};
use crate::outbox::{Outbox, Record};
use catchup::Catchup;
use checkpoint::Checkpoints;
pub use early::Held as HeldEarly;
use grieve::Grievances;
pub use holdings::{HeldFrames, Holdings};
pub use inline::Bodies;
use lead::Lead;
use leaving::Leaving;
use log::{Log, Phase};
use msg::Message;
pub use piggyback::Commits;
use pool::Pool;
pub use roles::{Leaders, Roles};
pub use switches::{Idle, Switches};
use views::Views;

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
    /// Which ways are taken.
    pub switches: Switches,
    /// How batches are made.
    pub batching: Batching,
    /// How far a fresh proposal's clock may be off this replica's.
    pub clock_skew_max: Span,
    /// How long a lane without progress waits before it asks its peers.
    pub retransmit: Span,
    /// T: how long the leader may owe something before this replica wants another one.
    pub view_timeout: Span,
}

/// How a lane begins: with nothing, which is the default, or with what the vote log holds.
#[derive(Clone, Debug, Default)]
pub struct LaneStart {
    /// The state that execution begins with: the low mark, unless only a weak quorum has signed it.
    pub stable: StableCheckpoint,
    /// Up to which number records may be missing: the log was cut there, at or below a checkpoint
    /// that was certified and on disk.
    pub cut: Seq,
    /// The highest view that this replica has voted in or asked for.
    pub view: View,
    /// Whether it votes in `view`. If not, it has asked for `view` and votes in none below.
    pub active: bool,
    /// The plan of the last NEW-VIEW that was installed.
    pub plan: Option<Arc<Plan>>,
    /// The records of this stripe, in the order in which they were written.
    pub records: Vec<Record>,
    /// Whether there was an earlier life.
    pub resumes: bool,
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
    /// The coordinator says something.
    Coordinator(FromCoordinator),
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
    /// A client repeats itself too often: the frame is dropped, and its client is better not
    /// listened to for a while.
    Repeats,
    /// A client's frame is not signed, or not by it, where that is asked for.
    Forged,
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
    leaving: Leaving,
    views: Views,
    grievances: Grievances,
    /// The last progress that the coordinator was told, and when.
    told: (Seq, Time),
    /// The lane was restored and has made no step yet.
    begins: bool,
    /// The lane was restored.
    restored: bool,
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
        assert!(batching.in_flight_max > 0 && cfg.view_timeout.0 > 0);
        let roles = Roles::new(&cfg);
        let first = roles.next_of(cfg.me, cfg.pillar, Seq(0)).unwrap_or(Seq(u64::MAX >> 1));
        Lane {
            keys,
            view: View(0),
            pool: Pool::new(cfg.switches.bodies == Bodies::Inline),
            log: Log::new(cfg.stripe, cfg.pillar),
            lead: Lead::new(first),
            checkpoints: Checkpoints::default(),
            catchup: Catchup::new(cfg.quorums.n()),
            progress: Progress::default(),
            delivered: Seq(0),
            refused: BTreeSet::new(),
            leaving: Leaving::default(),
            views: Views::new(&cfg),
            grievances: Grievances::new(&cfg),
            told: (Seq(0), Time::ZERO),
            begins: false,
            restored: false,
            stale: 0,
            misbehaviour: 0,
            cfg,
        }
    }

    /// Whether this replica votes at all at the moment.
    #[must_use]
    pub fn voting(&self) -> bool {
        self.is_active() && self.views.above.is_some()
    }

    /// Tells the lane what happened. Effects are appended to `out`.
    ///
    /// # Errors
    /// When the input had no effect, and why. The lane has counted it; nothing is to be done,
    /// except that the owner may hold a quota or a misbehaviour against the sender.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Outbox) -> Result<(), Reject> {
        if self.begins {
            // What it must not vote for is the first that a life hears, and holds already for
            // what follows from its log.
            if let Input::Coordinator(FromCoordinator::Voting { above }) = input {
                self.views.above = above;
                return Ok(());
            }
            self.begin(now, out);
        }
        let result = match input {
            Input::Peer { from, incarnation: _, message } => self.on_peer(now, from, message, out),
            Input::Connected { peer } => {
                self.on_connected(now, peer, out);
                Ok(())
            }
            Input::Request(frame) if frame.kind() == FrameKind::Read => self.on_read(frame, out),
            Input::Request(frame) => self.on_request(now, &frame, out),
            Input::Stage(message) => {
                self.on_stage(now, message, out);
                Ok(())
            }
            Input::Sibling(Sibling::Proposed(seq)) => {
                self.fill_block(seq);
                Ok(())
            }
            Input::Sibling(Sibling::Stable(_)) if base::mutant!(MarksPerPillar) => Ok(()),
            Input::Sibling(Sibling::Stable(stable)) => {
                self.on_stable(now, &stable, out);
                Ok(())
            }
            Input::Sibling(Sibling::Certified(certified)) => {
                self.on_certified(now, &certified, out);
                Ok(())
            }
            Input::Coordinator(message) => {
                self.on_coordinator(now, message, out);
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
            Err(Reject::Quota | Reject::Repeats | Reject::Forged) | Ok(()) => {}
        }
        result
    }

    /// When the lane next wants an [`Input::Turn`] even if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let catchup = Some(self.catchup_deadline());
        let lead = [self.batch_deadline(), self.fill_deadline(), self.tick_deadline()];
        let rest = [self.grieve_deadline(), catchup, self.catchup.overheard.deadline()];
        let leaving = [self.leaving.commits.deadline(), self.leaving.forwards.deadline()];
        lead.into_iter().chain(rest).chain(leaving).flatten().min()
    }

    /// The view this lane is in.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
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
        self.views.check();
        self.grievances.check();
        self.leaving.commits.check(self.view);
        self.leaving.forwards.check();
        assert!(self.views.asked >= self.view, "votes in no view below the one it asked for");
        let next = self.cfg.stripe.next_of(self.cfg.pillar, self.delivered);
        assert!(self.log.get(next).is_none_or(|slot| !slot.delivered));
        assert!(self.log.first() <= next, "a number is cut only after it was delivered");
        let stable = self.checkpoints.stable();
        assert!(stable <= self.progress.executed, "only an executed checkpoint is stable here");
        for (seq, slot) in self.log.iter() {
            // What an earlier life left in the log may go on for more than a window.
            assert!(seq <= self.high() || !slot.is_touched() || slot.decided || self.restored);
            let beyond_view = slot.chosen.is_none() && slot.phase > Phase::Empty;
            assert!(!beyond_view || seq > self.views.start(), "{seq:?} is below the view");
            assert!(slot.past.is_none() || seq > self.low(), "what is stable is settled");
        }
    }

    /// The low mark h: the last stable checkpoint, or the one above which it floats.
    fn low(&self) -> Seq {
        self.checkpoints.floor()
    }

    /// The high mark h + L.
    fn high(&self) -> Seq {
        Seq(self.low().0 + self.cfg.window)
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
        self.leader_speaks(now, from);
        self.keep_early(from, &message);
        match message {
            Message::PrePrepare { view, seq, proposal } => {
                self.on_pre_prepare(now, from, view, (seq, proposal), out)
            }
            Message::Prepare(vote) => self.on_prepare(now, from, vote, out),
            Message::Commit(vote) => self.on_commit(now, from, vote, out),
            Message::Nulls(nulls) => self.on_nulls(now, from, nulls, out),
            Message::FetchProposal { seq, digest } => {
                self.on_fetch_proposal(now, from, (seq, digest), out)
            }
            Message::ProposalIs { seq, proposal } => self.on_proposal_is(now, seq, proposal, out),
            Message::Endorse { view, entries } => self.on_endorse(now, from, (view, &entries), out),
            Message::Owed { view, entries } => self.on_owed(now, from, (view, &entries)),
            Message::Vouch { executed, entries } => self.on_vouch(now, (from, executed), &entries),
            Message::Fetch { seq, entries } => self.on_fetch(now, from, seq, &entries, out),
            Message::Body { vouched, frame } => self.on_body(now, from, vouched, &frame, out),
            Message::Forward(frame) => self.on_forward(now, from, &frame, out),
            Message::Checkpoint(checkpoint) => self.on_checkpoint(now, from, checkpoint, out),
            Message::Status { view, stable, delivered } => {
                self.on_status(now, from, (view, stable, delivered), out)
            }
            Message::Decided { seq, proposal } => self.on_decided(now, from, seq, proposal, out),
            // The owner hands these to the coordinator and the stage.
            Message::Group(_) | Message::State(_) => Err(Reject::Stale("not for a lane")),
        }
    }

    fn on_stage(&mut self, now: Now, message: FromStage, out: &mut Outbox) {
        match message {
            FromStage::Executed(progress) => {
                // A sibling's word of a stable checkpoint may have overtaken this.
                if progress.executed >= self.progress.executed {
                    self.on_executed(now, progress.executed, out);
                    self.progress = progress;
                    self.lead.deadline_changed(progress.deadline);
                    self.deliver_more(now, out);
                }
            }
            FromStage::Blocked { missing, highest } => {
                if self.cfg.stripe.pillar_of(missing) == self.cfg.pillar {
                    self.lead.fill_to(highest);
                    self.grievances.blocked_on(missing);
                }
            }
            FromStage::Checkpoint { seq, digest } => self.on_own_checkpoint(now, seq, digest, out),
            FromStage::Refused { seq, entry } => {
                let key = pool::key_of(&entry);
                if seq > self.progress.executed {
                    self.refused.insert((seq, key));
                } else {
                    // A sibling's word of a stable checkpoint has overtaken this.
                    let frames = match self.log.get(seq).and_then(|slot| slot.batch.as_deref()) {
                        Some(Batch::Frames { frames, .. }) => &frames[..],
                        _ => &[],
                    };
                    let frame = frames.iter().find(|f| (f.id(), f.digest()) == key);
                    let frame = frame.filter(|frame| !self.inline() || self.is_genuine(frame));
                    let frame = frame.cloned();
                    self.pool.refused_late(now.mono, (key, seq), frame.as_ref());
                    self.grievances.endorsements.done(&key, Some(seq));
                    if let Some(frame) = frame {
                        self.refused_here(now, seq, &frame);
                        self.frame_changed(now, &key, out);
                    }
                }
            }
            // Replies and nudges go from the stage to the connections, past the lane.
            FromStage::Reply { .. } | FromStage::Nudge { .. } => {}
            FromStage::Fetched { checkpoint, progress, replaced } => {
                self.on_fetched(now, (&checkpoint, progress, replaced), out);
            }
            // For the coordinator.
            FromStage::Pinned { .. }
            | FromStage::PinMissed { .. }
            | FromStage::State { .. }
            | FromStage::FetchFailed { .. }
            | FromStage::LostSource { .. }
            | FromStage::LyingSource { .. }
            | FromStage::Diverged { .. } => {}
        }
    }

    /// Everything up to `upto` is executed: its frames leave the pool.
    fn on_executed(&mut self, now: Now, upto: Seq, out: &mut Outbox) {
        let mut done = self.progress.executed;
        loop {
            let next = self.log.above(done).next().filter(|(seq, _)| *seq <= upto);
            let next = next.map(|(seq, slot)| (seq, slot.decided_batch()));
            let Some((seq, batch)) = next else { break };
            if let Some(Batch::Frames { frames, .. }) = batch.as_deref() {
                for frame in frames {
                    self.on_frame_done(now, seq, frame, out);
                }
            }
            done = seq;
        }
        self.progress.executed = self.progress.executed.max(upto);
        self.refused.retain(|(seq, _)| *seq > upto);
    }

    /// `frame` of batch `seq` was executed or refused.
    fn on_frame_done(&mut self, now: Now, seq: Seq, frame: &Arc<Frame>, out: &mut Outbox) {
        let key = (frame.id(), frame.digest());
        let refused = self.refused.remove(&(seq, key));
        self.grievances.endorsements.done(&key, refused.then_some(seq));
        let wanted = match refused {
            true => {
                let replayed = self.log.get(seq).is_some_and(|slot| slot.recalled);
                self.pool.refused(now.mono, (&key, seq), replayed)
            }
            false => self.pool.executed(&key, seq),
        };
        if refused {
            self.refused_here(now, seq, frame);
        }
        self.fill_places(now, frame, &wanted, out);
    }

    fn on_turn(&mut self, now: Now, out: &mut Outbox) {
        self.accept_held_back(now, out);
        self.let_go_decided(now, out);
        self.propose(now, out);
        self.send_vouches(out);
        self.forward(now.mono, out);
        self.ask_for_overheard(now, out);
        self.catch_up(now, out);
        self.grieve(now, out);
        self.release_commits(now.mono, out);
        self.tell_progress(now, out);
    }

    /// Tells the coordinator that the view works: at once when a view has just begun, then
    /// often enough for its timers.
    fn tell_progress(&mut self, now: Now, out: &mut Outbox) {
        let (told, at) = self.told;
        let pause = Span(self.cfg.view_timeout.0 / 8);
        if self.delivered > told && (at == Time::ZERO || now.mono.since(at) >= pause) {
            self.told = (self.delivered, now.mono);
            let (view, delivered) = (self.view, self.delivered);
            out.coordinator(ToCoordinator::Progress { view, delivered });
        }
    }
}

#[cfg(test)]
mod tests;
