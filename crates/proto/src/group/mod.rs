//! The coordinator of a replica: what concerns all its pillars together. View changes, recovery,
//! and when to fetch a checkpoint.
//!
//! One core per replica, beside its lanes and its stage: all of them are message peers. Steps:
//! `docs/protocol/view-change.md` and `docs/protocol/recovery.md`; design §3.10 and traps 1, 2,
//! 3, 9, 11, 12, 14.
//!
//! What this is not: agreement on single numbers (`pbft`), the transfer of state itself
//! (`exec::transfer`), and anything that touches a socket, a file or a clock.
//!
//! | module | topic |
//! |---|---|
//! | `api` | what the owner feeds it and carries out |
//! | `link` | what lanes and coordinator tell each other |
//! | `msg`, `record`, `wire` | messages between replicas, what is kept on disk, their bytes |
//! | `rules` | what a correct replica signs; signed bytes; certificates |
//! | `decide` | what a set of VIEW-CHANGEs comes to |
//! | `wish` | who wishes for which view, and what follows |
//! | `change` | leaving a view, VIEW-CHANGE, NEW-VIEW, timers |
//! | `recover` | a replica that may have forgotten votes |
//! | `fetch`, `pins` | when to fetch a checkpoint; which to keep for others and for the disk |
//! | `rest` | the state at rest, for those without whom nothing moves |
//! | `evidence` | proofs against replicas |
//! | `peers` | what each peer may cost |
//!
//! Invariants, checked by [`Coordinator::check`]:
//! 1. installed view <= view left; both only grow, within and across lives;
//! 2. one VIEW-CHANGE per view and life; its stable checkpoint is at or above everything that
//!    this replica may have forgotten;
//! 3. memory is bounded by one VIEW-CHANGE, one RECOVER, one checkpoint and one budget per
//!    replica, one NEW-VIEW, and the store of proofs.

mod api;
mod blame;
mod change;
pub mod decide;
pub mod evidence;
mod fetch;
pub mod link;
pub mod msg;
mod peers;
mod pins;
pub mod record;
mod recover;
mod rest;
pub mod roster;
pub mod rules;
#[cfg(test)]
mod tests;
pub mod wire;
mod wish;

pub(crate) use peers::share_pause_max;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{FromStage, Incarnation, Keyring, Now, ReplicaId, Seq, StableCheckpoint, Time};

use crate::outbox::{Target, When};
use crate::pbft::Reject;
use crate::pbft::msg::Checkpoint;
pub use api::{
    Beginning, CoordinatorConfig, CoordinatorReport, Effect, GroupFact, Input, SuspicionKind,
};
use change::Change;
use evidence::{Proof, Store};
use fetch::Fetcher;
use link::{FromCoordinator, ToCoordinator};
use msg::GroupMessage;
use peers::Peers;
use pins::Pins;
use record::GroupRecord;
use recover::Recovery;
use rules::{Genuine, Judge, Rules};

/// The coordinator core.
///
/// The owner feeds any number of inputs and then [`Input::Turn`], once per turn of its event
/// loop and whenever [`Coordinator::deadline`] has passed; the very first input is a turn, before
/// any lane is fed anything, for what the lanes must know from the start is among its effects.
/// It carries out the effects in order. `now.mono` never goes back.
pub struct Coordinator {
    cfg: CoordinatorConfig,
    rules: Rules,
    keys: Box<dyn Keyring>,
    genuine: Genuine,
    change: Change,
    /// `None` when this replica may vote.
    recovery: Option<Recovery>,
    /// With what recovery ended: everything that this replica may have forgotten is at or below
    /// its number. Number 0 where nothing ever was.
    recovered: StableCheckpoint,
    /// The newest RECOVER of every replica.
    recovers: recover::Table,
    fetcher: Fetcher,
    pins: Pins,
    evidence: Store,
    peers: Peers,
    /// The last checkpoint that is stable and executed here.
    stable: StableCheckpoint,
    /// The highest checkpoint whose certificate was seen, in this life or, as the records say, in
    /// an earlier one. After a restart it may be far above `stable`.
    certified: StableCheckpoint,
    /// Every number up to this one is executed here.
    executed: Seq,
    /// What the records of earlier lives ask for, until the first step.
    begin: Vec<Effect>,
    started: bool,
    refused: Refused,
}

/// Inputs that had no effect.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    stale: u64,
    misbehaviour: u64,
}

impl Coordinator {
    /// A coordinator that begins with what the log holds: the records of earlier lives in
    /// order, and the checkpoint that the stage begins with.
    ///
    /// # Panics
    /// When the configuration contradicts itself: the group's configuration is checked before.
    #[must_use]
    pub fn new(
        cfg: CoordinatorConfig,
        keys: Box<dyn Keyring>,
        beginning: Beginning,
        stable: StableCheckpoint,
        records: Vec<GroupRecord>,
    ) -> Coordinator {
        assert!(cfg.me.0 < cfg.quorums.n());
        assert!(cfg.checkpoint_interval > 0 && cfg.window >= 2 * cfg.checkpoint_interval);
        let n = cfg.quorums.n();
        let mut this = Coordinator {
            rules: cfg.rules(),
            keys,
            genuine: Genuine::default(),
            change: Change::new(&cfg),
            recovery: None,
            recovered: StableCheckpoint::default(),
            recovers: recover::Table::new(n),
            fetcher: Fetcher::default(),
            pins: Pins::default(),
            evidence: Store::default(),
            peers: Peers::new(n, cfg.window),
            executed: stable.seq,
            stable: match stable.is_weak(cfg.quorums.quorum()) {
                true => StableCheckpoint::default(),
                false => stable,
            },
            certified: StableCheckpoint::default(),
            begin: Vec::new(),
            started: false,
            refused: Refused::default(),
            cfg,
        };
        records.into_iter().for_each(|record| this.replay(record));
        this.prepare_beginning(beginning);
        this
    }

    /// Takes in one input; what follows is appended to `out`.
    ///
    /// # Errors
    /// When the input had no effect, and why. It is counted already.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) -> Result<(), Reject> {
        let now = now.mono;
        if !self.started {
            self.start(now, out);
        }
        let result = match input {
            Input::Peer { from, incarnation, message } => {
                self.on_peer(now, from, incarnation, message, out)
            }
            Input::Connected { peer } => self.on_connected(now, peer, out),
            Input::Lane(message) => self.on_lane(now, message, out),
            Input::Stage(message) => self.on_stage(now, message, out),
            Input::SaveCheckpoint { now: soon } => self.on_save(now, soon, out),
            Input::Saved { written } => self.on_saved(now, written, out),
            Input::Turn => {
                self.on_turn(now, out);
                Ok(())
            }
        };
        match result {
            Err(Reject::Stale(_)) => self.refused.stale += 1,
            Err(Reject::Misbehaviour(_)) => self.refused.misbehaviour += 1,
            Err(Reject::Quota | Reject::Repeats | Reject::Forged) | Ok(()) => {}
        }
        result
    }

    /// When the coordinator next wants an [`Input::Turn`].
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        if !self.started {
            return Some(Time::ZERO);
        }
        let recovery = self.recovery.as_ref().map(Recovery::deadline);
        let pins = [self.pins.deadline(), self.rest_deadline()];
        [Some(self.change_deadline()), recovery, self.fetcher.deadline()]
            .into_iter()
            .chain(pins)
            .flatten()
            .min()
    }

    /// What people may want to know.
    #[must_use]
    pub fn report(&self) -> CoordinatorReport {
        CoordinatorReport {
            view: self.change.installed(),
            asks_for: self.change.asks_for(),
            installed: self.change.count(),
            recovering: self.recovery.is_some(),
            recovers_at: self.recovery.as_ref().and_then(Recovery::until),
            others_recovering: self.recovers.recovering(),
            fetching: self.fetcher.target(),
            proofs: self.evidence.proofs().len(),
            stale: self.refused.stale,
            misbehaviour: self.refused.misbehaviour,
        }
    }

    /// The proofs that this replica has, one per accused and kind.
    #[must_use]
    pub fn proofs(&self) -> &[Arc<Proof>] {
        self.evidence.proofs()
    }

    /// The records that say what all records so far say: a new segment of the log begins with
    /// them, so that those before can go.
    #[must_use]
    pub fn records(&self) -> Vec<GroupRecord> {
        let higher = self.certified.seq > self.stable.seq;
        let mut records = vec_of_stable(if higher { &self.certified } else { &self.stable });
        records.extend(self.change.records());
        records.extend(self.recovers.all().map(GroupRecord::Recover));
        if self.recovery.is_none() && self.recovered.seq > Seq(0) {
            records.push(GroupRecord::Recovered { stable: self.recovered.clone() });
        }
        records.extend(self.evidence.proofs().iter().cloned().map(GroupRecord::Proof));
        records
    }

    /// Checks every invariant: for tests and simulation.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        self.change.check();
        let said = self.change.own_change();
        assert!(said.is_none_or(|change| change.stable.seq >= self.recovered.seq));
        assert!(said.is_none() || self.recovery.is_none());
        assert!(self.begin.is_empty() || !self.started);
    }

    fn replay(&mut self, record: GroupRecord) {
        match record {
            GroupRecord::Left { .. } if base::mutant!(RestartForgetsLeaving) => {}
            GroupRecord::Left { view } => self.change.replay_left(view),
            GroupRecord::Installed(nv) => {
                if let Some(start) = self.change.replay_installed(&self.rules, nv) {
                    self.certified_seen(&start);
                }
            }
            GroupRecord::Recover(recover) => self.recovers.replay(recover),
            GroupRecord::Stable(stable) => self.certified_seen(&stable),
            GroupRecord::Recovered { stable } => {
                self.certified_seen(&stable);
                self.recovered = stable;
            }
            GroupRecord::Proof(proof) => {
                let accused = proof.accused(self.cfg.quorums.n());
                self.evidence.add(accused, &proof);
            }
        }
    }

    /// What the first step asks for.
    fn prepare_beginning(&mut self, beginning: Beginning) {
        // What the disk says is not passed on unless everybody else will find it genuine, too.
        let stable = self.stable.clone();
        if self.judge().certified(&stable) {
            self.certified_seen(&stable);
        }
        if beginning == Beginning::Forgetful && !base::mutant!(ForgetfulVotes) {
            let recover = self.sign_recover();
            self.recovery = Some(Recovery::new(recover, self.cfg.quorums.n()));
            self.begin.push(Effect::Lanes(FromCoordinator::Voting { above: None }));
        } else if self.recovered.seq > Seq(0) {
            let above = Some(self.recovered.seq);
            self.begin.push(Effect::Lanes(FromCoordinator::Voting { above }));
        }
        // The log may go on for many windows after the checkpoint on the disk: lanes that do not
        // know what was stable before would wait for others to say it again, who may wait, too.
        if self.certified.seq > self.stable.seq {
            let certified = self.certified.clone();
            self.begin.push(Effect::Lanes(FromCoordinator::Certified(certified)));
        }
        self.begin.extend(self.change.begin().map(Effect::Lanes));
    }

    fn start(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.started = true;
        out.append(&mut self.begin);
        self.change_start(now, out);
    }

    fn on_peer(
        &mut self,
        now: Time,
        from: ReplicaId,
        incarnation: Incarnation,
        message: GroupMessage,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        if from == self.cfg.me || !self.rules.is_member(from) {
            return Err(Reject::Misbehaviour("not from a peer"));
        }
        // Only a wish and a number cost nothing to look at.
        let free = matches!(message, GroupMessage::Wish { .. } | GroupMessage::Seek(_));
        if !free && !self.peers.may_cost(from, now) {
            return Err(Reject::Stale("beyond the sender's budget"));
        }
        let bytes = if free { 0 } else { message.encoded_len_max() };
        // What this replica looked at for itself is no peer's debt.
        self.genuine.spent = 0;
        let result = match message {
            GroupMessage::Wish { wish, installed, recovering } => {
                self.recovers.says(from, recovering);
                self.on_wish(now, from, wish.max(installed), installed, out);
                Ok(())
            }
            GroupMessage::ViewChange(change) => {
                self.on_view_change(now, from, incarnation, change, out)
            }
            GroupMessage::NewView(nv) => self.on_new_view(now, nv, out),
            GroupMessage::Recover(recover) => self.on_recover(now, from, incarnation, recover, out),
            ack @ GroupMessage::RecoverAck { .. } => self.on_recover_ack(now, from, ack, out),
            GroupMessage::Seek(seq) => self.on_seek(now, from, seq, out),
            GroupMessage::WantCheckpoint { have, want, stable } => {
                // Whatever is refused is charged below.
                match self.on_certificate(&stable, out) {
                    Ok(()) => self.on_want(now, from, have, want, out),
                    refused => refused,
                }
            }
            GroupMessage::HaveCheckpoint(stable) => self.on_have(now, from, stable, out),
            GroupMessage::Evidence(proof) => self.on_evidence(&proof, out),
            GroupMessage::HaveState { seq, digest, signature, stable } => {
                let said = Checkpoint { seq, digest, signature };
                self.on_have_state(now, from, said, &stable, out)
            }
        };
        if !free {
            self.peers.charge(from, self.genuine.spent, bytes);
        }
        if matches!(result, Err(Reject::Misbehaviour(_))) && self.peers.may_tell(from, now) {
            self.suspect(from, SuspicionKind::Garbage, out);
        }
        result
    }

    fn on_connected(
        &mut self,
        now: Time,
        peer: ReplicaId,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        if peer == self.cfg.me || !self.rules.is_member(peer) {
            return Err(Reject::Stale("no peer"));
        }
        self.greet(now, peer, out);
        self.recovery_greet(peer, out);
        // Large ones are not worth it: they were said once.
        for proof in self.evidence.proofs().iter().filter(|p| p.encoded_len() <= 256 << 10) {
            send(out, Target::One(peer), GroupMessage::Evidence(proof.clone()));
        }
        Ok(())
    }

    fn on_lane(
        &mut self,
        now: Time,
        message: ToCoordinator,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        match message {
            ToCoordinator::Slice { pillar, view, stable, entries } => {
                self.certified_seen(&stable);
                self.on_slice(now, pillar, view, stable, entries, out)
            }
            ToCoordinator::Grievance { view, what, whom } => {
                self.on_grievance(now, view, (what, whom), out)
            }
            ToCoordinator::Suspects { view, whom } => self.on_suspects(view, whom),
            ToCoordinator::Progress { view, delivered: _ } => self.on_progress(view),
            ToCoordinator::Stable(stable) => self.on_stable(now, stable, out),
            ToCoordinator::Ahead(stable) => {
                self.certified_seen(&stable);
                Ok(())
            }
            ToCoordinator::Diverged(stable) => self.on_diverged(now, stable, out),
            ToCoordinator::LeftBehind { missing, stable } => {
                self.on_left_behind(now, missing, stable, out)
            }
            ToCoordinator::WrongCheckpoint { signer, said, certified } => {
                let proof = Proof::WrongCheckpoint { signer, said, certified };
                self.accuse(proof, out);
                Ok(())
            }
        }
    }

    fn on_stage(
        &mut self,
        now: Time,
        message: FromStage,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        match message {
            FromStage::Executed(progress) => {
                self.executed = progress.executed.max(self.executed);
                self.has_moved(now);
                self.fetch_executed();
                Ok(())
            }
            FromStage::Pinned { reader, seq, digest } => {
                self.on_pinned(now, reader, seq, digest, out)
            }
            FromStage::PinMissed { reader, seq, executed } => {
                self.on_pin_missed(now, reader, seq, executed, out)
            }
            FromStage::State { to, message } => {
                self.note_transfer(now, to, &message);
                out.push(Effect::State { to, message });
                Ok(())
            }
            FromStage::Fetched { checkpoint, progress, replaced } => {
                self.executed = progress.executed;
                if replaced {
                    self.pins.fetched(checkpoint.seq);
                }
                self.on_fetched(now, checkpoint, out)
            }
            FromStage::FetchFailed { seq } => self.on_fetch_failed(now, seq, out),
            FromStage::LostSource { seq, source } => self.on_lost_source(seq, source),
            FromStage::LyingSource { source } => self.on_lying_source(now, source, out),
            FromStage::Diverged { certified, .. } => self.on_diverged(now, certified, out),
            FromStage::Blocked { .. }
            | FromStage::Checkpoint { .. }
            | FromStage::Refused { .. }
            | FromStage::Nudge { .. }
            | FromStage::Reply { .. } => Err(Reject::Stale("not for the coordinator")),
        }
    }

    fn on_turn(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.change_turn(now, out);
        self.recovery_turn(now, out);
        self.fetch_turn(now, out);
        self.pins_turn(now, out);
    }

    /// A checkpoint is stable and executed here.
    fn on_stable(
        &mut self,
        now: Time,
        stable: StableCheckpoint,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        self.certified_seen(&stable);
        self.executed = self.executed.max(stable.seq);
        self.pins_stable(now, &stable, out);
        if stable.seq <= self.stable.seq {
            return Err(Reject::Stale("stable already"));
        }
        self.stable = stable;
        out.push(Effect::Persist(GroupRecord::Stable(self.stable.clone())));
        self.fetch_executed();
        self.try_recovered(now, out);
        Ok(())
    }

    /// A certificate that this replica has verified.
    fn certified_seen(&mut self, stable: &StableCheckpoint) {
        self.genuine.remember(stable);
        self.fetcher.known(stable.seq);
        if stable.seq > self.certified.seq {
            self.certified = stable.clone();
        }
    }

    /// A peer says that this checkpoint is certified.
    fn on_certificate(
        &mut self,
        stable: &StableCheckpoint,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        if stable.seq <= self.certified.seq {
            return Ok(());
        }
        if !self.judge().certified(stable) {
            return Err(Reject::Misbehaviour("certificate of a checkpoint"));
        }
        self.certified_seen(stable);
        out.push(Effect::Lanes(FromCoordinator::Certified(stable.clone())));
        Ok(())
    }

    fn on_evidence(&mut self, proof: &Arc<Proof>, out: &mut Vec<Effect>) -> Result<(), Reject> {
        let accused = proof.accused(self.cfg.quorums.n());
        if self.evidence.has(accused, proof.kind()) {
            return Err(Reject::Stale("proven already"));
        }
        if !proof.holds(&mut self.judge()) && !base::mutant!(EvidenceUnverified) {
            return Err(Reject::Misbehaviour("a proof that proves nothing"));
        }
        self.keep_proof(accused, proof.clone(), out);
        Ok(())
    }

    /// This replica has found a proof; it is kept and told if it holds and is new.
    fn accuse(&mut self, proof: Proof, out: &mut Vec<Effect>) {
        let accused = proof.accused(self.cfg.quorums.n());
        let new = !self.evidence.has(accused, proof.kind());
        if new && proof.holds(&mut self.judge()) && !base::mutant!(EvidenceDropped) {
            self.keep_proof(accused, Arc::new(proof), out);
        }
    }

    fn keep_proof(&mut self, accused: ReplicaId, proof: Arc<Proof>, out: &mut Vec<Effect>) {
        self.evidence.add(accused, &proof);
        out.push(Effect::Persist(GroupRecord::Proof(proof.clone())));
        out.push(Effect::Fact(GroupFact::Proof { accused, proof: proof.clone() }));
        send(out, Target::All, GroupMessage::Evidence(proof));
    }

    fn suspect(&mut self, replica: ReplicaId, kind: SuspicionKind, out: &mut Vec<Effect>) {
        if replica != self.cfg.me {
            out.push(Effect::Fact(GroupFact::Suspicion { replica, kind }));
        }
    }

    fn judge(&mut self) -> Judge<'_> {
        Judge { rules: &self.rules, keys: &*self.keys, genuine: &mut self.genuine }
    }
}

fn vec_of_stable(stable: &StableCheckpoint) -> Vec<GroupRecord> {
    (stable.seq > Seq(0)).then(|| GroupRecord::Stable(stable.clone())).into_iter().collect()
}

/// Sends `message` at once.
fn send(out: &mut Vec<Effect>, to: Target, message: GroupMessage) {
    out.push(Effect::Send { to, when: When::Now, message });
}

/// Sends `message` once everything that was handed to execution up to `seq` is durable.
fn settled(out: &mut Vec<Effect>, to: Target, seq: Seq, message: GroupMessage) {
    out.push(Effect::Send { to, when: When::Settled(seq), message });
}

/// Sends `message` once all records so far are durable.
fn promise(out: &mut Vec<Effect>, to: Target, message: GroupMessage) {
    let when = if base::mutant!(LeavesBeforeDurable) { When::Now } else { When::Durable };
    out.push(Effect::Send { to, when, message });
}
