//! Recovery of a replica that may have forgotten votes, and what the others do for it
//! (`docs/protocol/recovery.md`, R1 to R10; design §3.10, trap 12).
//!
//! A forgetful replica votes for nothing. A quorum of others acknowledges its RECOVER: from then
//! on they refuse VIEW-CHANGEs of its older lives. What they say is stable bounds what it can
//! have voted for; beyond that it votes again, and once a checkpoint beyond it is stable and
//! executed here, it takes part in view changes again.
//!
//! Not here: how it gets the state (`fetch`), and how it learns the view: the others serve their
//! NEW-VIEW to whoever shows an older one (`change`).

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use base::{Incarnation, ReplicaId, Seq, Span, Time, View};

use super::change::TIMEOUT_MAX;
use super::link::FromCoordinator;
use super::msg::{GroupMessage, NewView, Recover, ViewChange};
use super::record::GroupRecord;
use super::{Coordinator, Effect, GroupFact, promise, send};
use crate::outbox::Target;
use crate::pbft::{Leaders, Reject};

/// How often this replica says again that it recovers, and what it waits for.
const REPEAT: Span = Span::millis(500);
/// One RECOVER of a replica is taken note of in so long, since each costs a record; but two at
/// once, for a life signs one before it knows the view, and the next as soon as it does.
const LIFE_MIN: Span = Span::secs(1);
/// The least time between two acknowledgements of one RECOVER, and between two times that it is
/// told to all.
const ACK_GAP: Span = Span::millis(100);

/// The newest RECOVER of every replica, and who says that it recovers right now.
#[derive(Clone, Debug)]
pub(super) struct Table {
    known: Vec<Option<Recover>>,
    /// Until when those of each that were taken note of are paid for.
    paid: Vec<Time>,
    /// Until when the acknowledgements of each that told something new are paid for. A budget of
    /// their own: else who recovers for ever could keep this replica from what the others know.
    paid_acks: Vec<Time>,
    /// When the newest came, or a view was refused for it.
    came: Vec<Option<Time>>,
    acked: Vec<Option<Time>>,
    told: Vec<Option<Time>>,
    says: Vec<bool>,
}

impl Table {
    pub(super) fn new(n: u16) -> Table {
        let n = usize::from(n);
        Table {
            known: vec![None; n],
            paid: vec![Time::ZERO; n],
            paid_acks: vec![Time::ZERO; n],
            came: vec![None; n],
            acked: vec![None; n],
            told: vec![None; n],
            says: vec![false; n],
        }
    }

    fn get(&self, replica: ReplicaId) -> Option<Recover> {
        self.known.get(usize::from(replica.0)).copied().flatten()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Recover> {
        self.known.iter().flatten().copied()
    }

    pub(super) fn replay(&mut self, recover: Recover) {
        let newer = self.get(recover.replica).is_none_or(|known| age(&known) < age(&recover));
        if let Some(slot) = self.known.get_mut(usize::from(recover.replica.0)).filter(|_| newer) {
            *slot = Some(recover);
        }
    }

    /// The RECOVER that makes a VIEW-CHANGE void: of a newer life than the one that signed it,
    /// which may vote in views below the one that it is for.
    pub(super) fn voided_by(&self, change: &ViewChange) -> Option<Recover> {
        self.get(change.replica).filter(|known| {
            let older = known.incarnation > change.incarnation && change.view > known.view;
            older && !base::mutant!(OldLivesCount)
        })
    }

    pub(super) fn voids(&self, change: &ViewChange) -> bool {
        self.voided_by(change).is_some()
    }

    /// `from` says whether it recovers.
    pub(super) fn says(&mut self, from: ReplicaId, recovering: bool) {
        self.says[usize::from(from.0)] = recovering;
    }

    /// Whether `replica` says that it recovers.
    fn is_recovering(&self, replica: ReplicaId) -> bool {
        self.says.get(usize::from(replica.0)).is_some_and(|says| *says)
    }

    /// How many others say that they recover.
    pub(super) fn recovering(&self) -> usize {
        self.says.iter().filter(|says| **says).count()
    }

    /// V8: since when `replica` is one whose VIEW-CHANGE others may not be able to accept, since
    /// they know of yet another life of it. `None` once that is `long` ago.
    pub(super) fn unsettled(&self, replica: ReplicaId, now: Time, long: Span) -> Option<Time> {
        let came = self.came.get(usize::from(replica.0)).copied().flatten();
        came.filter(|came| now.since(*came) < long)
    }

    /// What an acknowledgement tells that is newer than what is known: of each replica the newest.
    fn news(&self, me: ReplicaId, told: &[Recover]) -> Vec<Recover> {
        let newer = |r: &&Recover| self.get(r.replica).is_none_or(|held| age(&held) < age(r));
        let mut news: Vec<Recover> = Vec::new();
        for recover in told.iter().filter(|r| r.replica != me).filter(newer) {
            match news.iter_mut().find(|known| known.replica == recover.replica) {
                Some(known) if age(known) < age(recover) => *known = *recover,
                Some(_) => {}
                None => news.push(*recover),
            }
        }
        news
    }
}

/// Whether what was done last at `last` may be done again; if so, it is.
fn again(last: &mut Option<Time>, now: Time) -> bool {
    let free = last.is_none_or(|at| now.since(at) >= ACK_GAP);
    if free {
        *last = Some(now);
    }
    free
}

/// Whether one more may be taken note of: two at once, and one per [`LIFE_MIN`].
fn has_share(paid: Time, now: Time) -> bool {
    paid <= now.after(LIFE_MIN)
}

/// By what RECOVERs of one replica are told apart: the newest counts. Within one life the view
/// rises as long as it has not voted.
fn age(recover: &Recover) -> (Incarnation, View) {
    (recover.incarnation, recover.view)
}

/// What a peer has answered.
#[derive(Clone, Copy, Debug)]
struct Ack {
    installed: View,
    recovering: bool,
}

/// This replica's own recovery.
#[derive(Clone, Debug)]
pub(super) struct Recovery {
    recover: Recover,
    acks: Vec<Option<Ack>>,
    /// E: nothing beyond it can be forgotten.
    until: Option<Seq>,
    next: Time,
    /// How many recovering replicas were last told about.
    told: usize,
}

impl Recovery {
    pub(super) fn new(recover: Recover, n: u16) -> Recovery {
        Recovery {
            recover,
            acks: vec![None; usize::from(n)],
            until: None,
            next: Time::ZERO,
            told: 0,
        }
    }

    pub(super) fn deadline(&self) -> Time {
        self.next
    }

    pub(super) fn until(&self) -> Option<Seq> {
        self.until
    }

    /// Whether `replica`'s acknowledgement counts: it has not forgotten itself, and this
    /// replica is in no older view than it was. Else it could vote in a view that the other had
    /// left on the word of an older life.
    fn counts(&self, replica: usize, installed: View) -> bool {
        self.acks[replica].is_some_and(|ack| {
            let remembers = !ack.recovering || base::mutant!(ForgetfulAcknowledge);
            remembers && (ack.installed <= installed || base::mutant!(AcksOfLaterViews))
        })
    }
}

impl Coordinator {
    /// R2: what this life says.
    pub(super) fn sign_recover(&mut self) -> Recover {
        let (replica, incarnation) = (self.cfg.me, self.cfg.incarnation);
        let view = self.change.installed();
        let signature = self.keys.sign(&self.rules.recover_signed(replica, incarnation, view));
        let recover = Recover { replica, incarnation, view, signature };
        self.recovers.replay(recover);
        recover
    }

    /// R3: a replica begins a life that may have forgotten. `from` may pass another's on.
    pub(super) fn on_recover(
        &mut self,
        now: Time,
        from: ReplicaId,
        incarnation: Incarnation,
        recover: Recover,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let Recover { replica, .. } = recover;
        if from == replica && recover.incarnation != incarnation {
            return Err(Reject::Stale("recover of another life"));
        }
        match self.recovers.get(replica) {
            Some(known) if age(&known) > age(&recover) => {
                return Err(Reject::Stale("recover of an older life"));
            }
            Some(known) if age(&known) == age(&recover) => {}
            _ => self.learn_paid(now, recover, out)?,
        }
        if from == replica {
            self.recovers.says(replica, true);
            self.acknowledge(now, recover, out);
        }
        Ok(())
    }

    /// A RECOVER that somebody has sent: its signer's share pays for it.
    fn learn_paid(
        &mut self,
        now: Time,
        recover: Recover,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let index = usize::from(recover.replica.0);
        if self.recovers.paid.get(index).is_some_and(|paid| !has_share(*paid, now)) {
            return Err(Reject::Stale("recover too soon after the last"));
        }
        self.learn(recover, out)?;
        self.recovers.paid[index] = self.recovers.paid[index].max(now).after(LIFE_MIN);
        self.recovers.came[index] = Some(now);
        Ok(())
    }

    /// A RECOVER that is new here: noted for good before anything follows from it.
    fn learn(&mut self, recover: Recover, out: &mut Vec<Effect>) -> Result<(), Reject> {
        let replica = recover.replica;
        if !self.rules.is_member(replica) {
            return Err(Reject::Misbehaviour("recover of a stranger"));
        }
        if replica == self.cfg.me {
            return Err(Reject::Stale("own recover"));
        }
        if !self.judge().recover(&recover) {
            return Err(Reject::Misbehaviour("signature of a recover"));
        }
        let index = usize::from(replica.0);
        self.recovers.acked[index] = None;
        self.recovers.told[index] = None;
        self.recovers.replay(recover);
        let voids = |change: &ViewChange| self.recovers.voids(change);
        self.change.void(replica, voids);
        if !base::mutant!(RecoverUnrecorded) {
            out.push(Effect::Persist(GroupRecord::Recover(recover)));
        }
        Ok(())
    }

    fn acknowledge(&mut self, now: Time, recover: Recover, out: &mut Vec<Effect>) {
        if !again(&mut self.recovers.acked[usize::from(recover.replica.0)], now) {
            return;
        }
        let ack = GroupMessage::RecoverAck {
            incarnation: recover.incarnation,
            view: recover.view,
            installed: self.change.installed(),
            // Not only what is executed in this life: that may begin far below what the last one
            // had executed, and the bound rests on what it had executed.
            stable: self.certified.clone(),
            known: self.recovers.all().collect(),
            recovering: self.recovery.is_some(),
        };
        promise(out, Target::One(recover.replica), ack);
    }

    /// R5: a peer will refuse this replica's older lives.
    pub(super) fn on_recover_ack(
        &mut self,
        now: Time,
        from: ReplicaId,
        ack: GroupMessage,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let GroupMessage::RecoverAck { incarnation, view, installed, stable, known, recovering } =
            ack
        else {
            return Err(Reject::Stale("no acknowledgement"));
        };
        self.recovers.says(from, recovering);
        if self.recovery.is_none() || incarnation != self.cfg.incarnation {
            return Err(Reject::Stale("acknowledgement of another life"));
        }
        self.learn_all(now, from, &known, out)?;
        if !self.judge().certified(&stable) {
            return Err(Reject::Misbehaviour("certificate of an acknowledgement"));
        }
        self.certified_seen(&stable);
        let Some(recovery) = self.recovery.as_mut() else { return Ok(()) };
        if view == recovery.recover.view {
            recovery.acks[usize::from(from.0)] = Some(Ack { installed, recovering });
        }
        self.try_bound(now, out);
        Ok(())
    }

    /// What an acknowledgement tells of others is noted before it counts, all of it: of those who
    /// know a RECOVER enough must be left when they recover in turn. What is refused comes again.
    fn learn_all(
        &mut self,
        now: Time,
        from: ReplicaId,
        told: &[Recover],
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let news = self.recovers.news(self.cfg.me, told);
        if news.is_empty() {
            return Ok(());
        }
        let paid = &mut self.recovers.paid_acks[usize::from(from.0)];
        if !has_share(*paid, now) {
            return Err(Reject::Stale("acknowledgement with news too soon after the last"));
        }
        *paid = (*paid).max(now).after(LIFE_MIN);
        news.into_iter().try_for_each(|recover| self.learn(recover, out))
    }

    /// R5: as long as this life has not voted it installs what the others have installed, also
    /// where an older life of its own had a part in it, and says so anew.
    fn renew_recover(&mut self) {
        let installed = self.change.installed();
        let stale = |r: &&Recovery| r.until.is_none() && r.recover.view < installed;
        if self.recovery.as_ref().filter(stale).is_none() {
            return;
        }
        let recover = self.sign_recover();
        if let Some(recovery) = self.recovery.as_mut() {
            recovery.recover = recover;
            recovery.acks.fill(None);
            recovery.next = Time::ZERO;
        }
    }

    /// Whether `replica` recovers, by its own word.
    pub(super) fn recovers(&self, replica: ReplicaId) -> bool {
        match replica == self.cfg.me {
            true => self.recovery.is_some(),
            false => self.recovers.is_recovering(replica),
        }
    }

    /// Whether this life has not voted yet, and may not: its older lives' word still stands.
    fn is_unbound(&self) -> bool {
        self.recovery.as_ref().is_some_and(|recovery| recovery.until.is_none())
    }

    /// R4: a VIEW-CHANGE that makes a NEW-VIEW unacceptable here, if any, and for what RECOVER.
    pub(super) fn void_in(&self, nv: &NewView) -> Option<(Arc<ViewChange>, Recover)> {
        let own = |change: &&Arc<ViewChange>| change.replica == self.cfg.me && self.is_unbound();
        let mut others = nv.changes.iter().filter(|change| !own(change));
        others.find_map(|change| Some((change.clone(), self.recovers.voided_by(change)?)))
    }

    /// R4: a NEW-VIEW makes use of `change`, which `void` makes void. The leader may not have
    /// known, nor may those who lead the next views, and it proves itself.
    pub(super) fn refuse_void(
        &mut self,
        now: Time,
        change: &ViewChange,
        void: Recover,
        out: &mut Vec<Effect>,
    ) -> Reject {
        if self.judge().change(change).is_err() {
            return Reject::Misbehaviour("new-view with a view-change that does not hold");
        }
        let index = usize::from(void.replica.0);
        self.recovers.came[index] = Some(now);
        if again(&mut self.recovers.told[index], now) {
            send(out, Target::All, GroupMessage::Recover(void));
        }
        Reject::Stale("new-view with a view-change of an older life")
    }

    /// How long a replica is unsettled that has begun a life, or for which a view was refused: more
    /// views than all faulty ones can spoil once each, and lead, take no longer to fail.
    pub(super) fn settling(&self) -> Span {
        let view = TIMEOUT_MAX.0.max(self.cfg.view_timeout.0);
        Span(view.saturating_mul(2 * u64::from(self.cfg.quorums.f()) + 2))
    }

    /// R6: with a quorum of acknowledgements, what was forgotten has a bound.
    fn try_bound(&mut self, now: Time, out: &mut Vec<Effect>) {
        let installed = self.change.installed();
        let unbound = |r: &&mut Recovery| r.until.is_none() && r.recover.view == installed;
        let Some(recovery) = self.recovery.as_mut().filter(unbound) else { return };
        let counted = (0..recovery.acks.len()).filter(|i| recovery.counts(*i, installed)).count();
        if counted < self.cfg.quorums.quorum() - usize::from(base::mutant!(RecoveryQuorumShort)) {
            return;
        }
        // Every certificate of the acknowledgements is among what was seen.
        let best = self.certified.clone();
        let reach = if base::mutant!(EstimateShort) { 0 } else { 2 * self.cfg.window };
        let until = self.rules.checkpoint_at_least(best.seq.0 + reach);
        recovery.until = Some(until);
        recovery.next = now;
        out.push(Effect::Lanes(FromCoordinator::Voting { above: Some(until) }));
        let behind = best.seq.0 > self.stable.seq.0 + self.cfg.window;
        if best.seq > self.stable.seq {
            out.push(Effect::Lanes(FromCoordinator::Certified(best)));
        }
        if behind {
            self.want_checkpoint(now, out);
        }
    }

    /// R8: what may have been forgotten is behind this replica.
    pub(super) fn try_recovered(&mut self, now: Time, out: &mut Vec<Effect>) {
        let until = self.recovery.as_ref().and_then(Recovery::until);
        let Some(until) = until.filter(|until| self.stable.seq >= *until) else { return };
        self.recovery = None;
        self.recovered = self.stable.clone();
        out.push(Effect::Persist(GroupRecord::Recovered { stable: self.stable.clone() }));
        out.push(Effect::Lanes(FromCoordinator::Voting { above: Some(until) }));
        out.push(Effect::Fact(GroupFact::Recovered(until)));
        self.change_fetched(now, out);
        self.change_recovered(out);
    }

    pub(super) fn recovery_turn(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.renew_recover();
        self.try_bound(now, out);
        let (others, f) = (self.recovers.recovering(), usize::from(self.cfg.quorums.f()));
        let Some(recovery) = self.recovery.as_mut() else { return };
        // R10.
        if others != recovery.told {
            recovery.told = others;
            if others + 1 > f {
                out.push(Effect::Fact(GroupFact::TooManyForgetful(others + 1)));
            }
        }
        if now < recovery.next {
            return;
        }
        recovery.next = now.after(REPEAT);
        for peer in self.cfg.quorums.replicas().filter(|peer| *peer != self.cfg.me) {
            self.recovery_greet(peer, out);
        }
    }

    /// R2, R7: tells `peer` what this replica waits for, if for anything.
    pub(super) fn recovery_greet(&self, peer: ReplicaId, out: &mut Vec<Effect>) {
        let installed = self.change.installed();
        let Some(recovery) = self.recovery.as_ref() else { return };
        // Knowledge of a RECOVER spreads beyond the quorum that is needed.
        if !recovery.counts(usize::from(peer.0), installed) {
            send(out, Target::One(peer), GroupMessage::Recover(recovery.recover));
        }
        if let Some(until) = recovery.until {
            send(out, Target::One(peer), GroupMessage::Seek(until));
        }
    }

    /// R9: `from` waits for a stable checkpoint at `seq`: the group goes there, idle or not, as
    /// far as it can.
    pub(super) fn on_seek(
        &mut self,
        now: Time,
        from: ReplicaId,
        seq: Seq,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let stable = self.stable.seq;
        let reach = stable.0 + 2 * self.cfg.window + self.cfg.checkpoint_interval;
        let upto = Seq(seq.0.min(reach));
        if upto <= stable {
            return Err(Reject::Stale("the number sought is stable"));
        }
        if !self.peers.may_fill(from, now, upto, stable) {
            return Err(Reject::Stale("seeks too often"));
        }
        self.fill_for(now, from, upto, out);
        Ok(())
    }

    /// `from` waits for the numbers up to `upto`: the leader owes them from now on, so it must
    /// have been asked. A faulty replica could ask the others alone, and have them blame it.
    pub(super) fn fill_for(
        &mut self,
        now: Time,
        from: ReplicaId,
        upto: Seq,
        out: &mut Vec<Effect>,
    ) {
        let news = upto > self.peers.filling;
        self.peers.filling = upto.max(self.peers.filling);
        if self.is_filling() {
            self.say_soon(now);
        }
        out.push(Effect::Lanes(FromCoordinator::Fill(upto)));
        // All that is owed, as of now: this replica may have no share left there for the rest.
        let all = self.peers.filling;
        let leader = self.change.installed().leader(self.cfg.quorums.n());
        match self.cfg.leaders {
            // Each owes its own of these numbers.
            Leaders::Rotating if news => send(out, Target::All, GroupMessage::Seek(all)),
            Leaders::Fixed if leader != self.cfg.me && leader != from => {
                send(out, Target::One(leader), GroupMessage::Seek(all));
            }
            Leaders::Rotating | Leaders::Fixed => {}
        }
    }

    /// Whether numbers are still missing that others wait for.
    pub(super) fn is_filling(&self) -> bool {
        self.peers.filling > self.executed.max(self.stable.seq)
    }

    /// The leader may have been another when it was asked, or had no time for it.
    pub(super) fn fill_again(&self, out: &mut Vec<Effect>) {
        let leader = self.change.installed().leader(self.cfg.quorums.n());
        let to = match self.cfg.leaders {
            Leaders::Rotating => Some(Target::All),
            Leaders::Fixed => (leader != self.cfg.me).then_some(Target::One(leader)),
        };
        if let Some(to) = to.filter(|_| self.is_filling()) {
            send(out, to, GroupMessage::Seek(self.peers.filling));
        }
    }
}
