//! When this replica fetches a checkpoint, which one, and from whom
//! (`docs/protocol/recovery.md`, F1 to F7).
//!
//! | state | leaves it |
//! |---|---|
//! | idle | when a lane is left behind, the stage has diverged, or recovery is far behind |
//! | wanting: asks the others to keep one | when f + 1 hold the same, or one does for a while |
//! | fetching: the stage transfers it | when it is there; when it fails or stands still: wanting |
//!
//! While fewer than f + 1 give it what it fetches, it asks on for something that more hold: each of
//! them may be faulty, and give it little at a time.
//!
//! No state is for ever: each has a time-out, and what the stage has already fetched is kept.
//! Nor is it idle while the stage stands still: that goes on only once it has what it was told
//! last.
//! Whoever lies costs time and is left out for a while.
//!
//! Not here: the transfer itself (`exec::transfer`), and what is kept for others (`pins`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use base::transfer::StateMessage;
use base::{Digest, ReplicaId, Seq, Span, StableCheckpoint, Time, ToStage};

use super::link::FromCoordinator;
use super::msg::GroupMessage;
use super::record::GroupRecord;
use super::rest::Offers;
use super::{Coordinator, Effect, GroupFact, SuspicionKind, send};
use crate::outbox::Target;
use crate::pbft::Reject;

/// The pause before asking again; doubles up to the longer one.
const ASK: Span = Span::millis(250);
const ASK_MAX: Span = Span::secs(2);
/// How long a single source waits for more that hold the same.
const GATHER: Span = Span::millis(200);
/// A transfer for which nothing was asked for so long has stalled.
const STALL: Span = Span::secs(10);
/// How often it asked for others, every [`ASK_MAX`], before few sources have had their time: half a
/// minute, in which one that gives what it can has given most states.
const FEW_ASKS_MAX: u32 = 15;
/// How long a source that lied is left out.
const BAN: Span = Span::secs(60);
/// How often the stage is told the time.
pub(super) const TICK: Span = Span::millis(100);

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Idle,
    Wanting {
        next: Time,
        pause: Span,
        first: Option<Time>,
    },
    Fetching {
        target: StableCheckpoint,
        sources: Vec<ReplicaId>,
        active: Time,
        tick: Time,
        /// While the sources are few: when others are asked for next, and how often they were since
        /// this target was taken.
        next: Time,
        asks: u32,
    },
}

/// What this replica fetches.
#[derive(Clone, Debug, Default)]
pub(super) struct Fetcher {
    state: State,
    /// What the stage was told to fetch last and has not said to be there: it stands still until
    /// then, also where that has failed.
    told: Option<(Seq, Digest)>,
    /// The highest checkpoint that is known to be certified.
    known: Seq,
    /// The last one that was noted for later lives without having been executed.
    noted: Seq,
    /// What a lane misses: once it is executed, nothing need be fetched.
    missing: Option<Seq>,
    /// The lowest number that a lane has found lost. Others may have what is far above it.
    lowest: Option<Seq>,
    /// The checkpoint at which this replica's state is wrong.
    diverged: Option<Seq>,
    /// The last checkpoint that each replica says it holds, verified.
    haves: BTreeMap<ReplicaId, StableCheckpoint>,
    /// The states that others are in, and offer.
    pub(super) offers: Offers,
    banned: BTreeMap<ReplicaId, Time>,
}

/// A checkpoint and who holds it.
type Offer = (StableCheckpoint, Vec<ReplicaId>);

impl Fetcher {
    pub(super) fn known(&mut self, seq: Seq) {
        self.known = seq.max(self.known);
    }

    pub(super) fn target(&self) -> Option<Seq> {
        match &self.state {
            State::Fetching { target, .. } => Some(target.seq),
            State::Idle | State::Wanting { .. } => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Idle => None,
            State::Wanting { next, first, .. } => {
                Some(first.map_or(*next, |first| first.after(GATHER).min(*next)))
            }
            State::Fetching { active, tick, .. } => Some(active.after(STALL).min(*tick)),
        }
    }

    /// The best offer of all but these: many sources before few, then the newest.
    fn best(&self, weak: usize, but: &[ReplicaId]) -> Option<Offer> {
        let mut offers: Vec<Offer> = Vec::new();
        for (from, stable) in self.haves.iter().filter(|(from, _)| !but.contains(from)) {
            let same = |o: &&mut Offer| (o.0.seq, o.0.digest) == (stable.seq, stable.digest);
            match offers.iter_mut().find(same) {
                Some((_, sources)) => sources.push(*from),
                None => offers.push((stable.clone(), Vec::from([*from]))),
            }
        }
        offers.into_iter().max_by_key(|(stable, s)| (s.len() >= weak, stable.seq, s.len()))
    }

    /// What others hold, once the few sources of what is fetched have had their time. Those few
    /// may know of something newer for ever.
    fn late(&self, weak: usize) -> Option<Offer> {
        let State::Fetching { target, sources: few, asks, .. } = &self.state else { return None };
        if few.len() >= weak || *asks <= FEW_ASKS_MAX {
            return None;
        }
        let (best, sources) = self.best(weak, few)?;
        (best.seq > target.seq || sources.len() >= weak).then_some((best, sources))
    }
}

impl Coordinator {
    /// F1: the others' logs no longer reach back.
    pub(super) fn on_left_behind(
        &mut self,
        now: Time,
        missing: Seq,
        stable: Seq,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        if missing <= self.executed {
            return Err(Reject::Stale("not left behind any more"));
        }
        self.fetcher.missing = Some(missing.max(self.fetcher.missing.unwrap_or_default()));
        let lowest = self.lowest_lost().map_or(missing, |lowest| lowest.min(missing));
        self.fetcher.lowest = Some(lowest);
        // A correct peer's low mark is certified, too, though the certificate is not here.
        self.fetcher.known(stable);
        self.want_checkpoint(now, out);
        Ok(())
    }

    /// F1: this replica's state is wrong.
    pub(super) fn on_diverged(
        &mut self,
        now: Time,
        certified: StableCheckpoint,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        self.certified_seen(&certified);
        if self.fetcher.diverged.is_some_and(|seq| seq >= certified.seq) {
            return Err(Reject::Stale("divergence known"));
        }
        self.fetcher.diverged = Some(certified.seq);
        self.want_checkpoint(now, out);
        Ok(())
    }

    /// F2: asks the others for a checkpoint, unless that is under way.
    pub(super) fn want_checkpoint(&mut self, now: Time, out: &mut Vec<Effect>) {
        if matches!(self.fetcher.state, State::Idle) {
            self.fetcher.haves.clear();
            self.fetcher.offers.clear();
            self.want_again(now, out);
        }
    }

    fn want_again(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.fetcher.state = State::Wanting { next: now, pause: ASK, first: None };
        self.fetch_turn(now, out);
    }

    /// F6: what others hold by now is of more use than what a few sources give so slowly.
    fn want_from_more(&mut self, asks: u32, out: &mut Vec<Effect>) {
        if let State::Fetching { target, .. } = &self.fetcher.state {
            // Whoever holds something else says so again, if it still does.
            let is = (target.seq, target.digest);
            self.fetcher.haves.retain(|_, stable| (stable.seq, stable.digest) == is);
        }
        // At first the group is not driven on for it, nor what its own log holds given up.
        if asks > FEW_ASKS_MAX {
            return self.say_want(out);
        }
        self.ask_for_checkpoint(out);
    }

    /// What a checkpoint must lie above to be of use.
    fn fetch_floor(&self) -> Seq {
        self.fetcher.diverged.map_or(self.executed, Seq::prev)
    }

    /// F2: a number that the others have still to execute, so that they can keep it.
    fn say_want(&mut self, out: &mut Vec<Effect>) {
        let want = self.ask_for_checkpoint(out);
        send(out, Target::All, GroupMessage::Seek(want));
        self.float(out);
    }

    fn ask_for_checkpoint(&self, out: &mut Vec<Effect>) -> Seq {
        let known = self.fetcher.known.max(self.stable.seq);
        let interval = self.cfg.checkpoint_interval;
        let want = self.rules.checkpoint_at_least(known.0 + 2 * interval);
        let have = self.fetch_floor();
        // Some of the others may have heard from too few to know.
        let stable = self.certified.clone();
        send(out, Target::All, GroupMessage::WantCheckpoint { have, want, stable });
        want
    }

    /// F9: what is missing is in nobody's log any more. Lanes go on agreeing above what is
    /// certified. Should this replica sign a checkpoint later, its next life must know what that
    /// rested on (R6).
    fn float(&mut self, out: &mut Vec<Effect>) {
        let certified = self.certified.clone();
        // Not what the lane lacks that is furthest: its own log may have led that one far above.
        if self.lowest_lost().is_none_or(|lowest| certified.seq < lowest) {
            return;
        }
        self.fetcher.missing = self.fetcher.missing.max(Some(certified.seq));
        if certified.seq > self.fetcher.noted {
            self.fetcher.noted = certified.seq;
            out.push(Effect::Persist(GroupRecord::Stable(certified.clone())));
        }
        out.push(Effect::Lanes(FromCoordinator::Float(certified)));
    }

    fn lowest_lost(&self) -> Option<Seq> {
        self.fetcher.lowest.filter(|lowest| *lowest > self.executed)
    }

    /// Whether anything is wanted from `from`, and what it holds at `seq` is of use.
    pub(super) fn may_offer(&self, now: Time, from: ReplicaId, seq: Seq) -> Result<(), Reject> {
        if matches!(self.fetcher.state, State::Idle) {
            return Err(Reject::Stale("nothing is fetched"));
        }
        if seq <= self.fetch_floor() {
            return Err(Reject::Stale("checkpoint of no use"));
        }
        if self.fetcher.banned.get(&from).is_some_and(|until| now < *until) {
            return Err(Reject::Stale("from a source that lied"));
        }
        Ok(())
    }

    /// F4: a peer holds a checkpoint.
    pub(super) fn on_have(
        &mut self,
        now: Time,
        from: ReplicaId,
        stable: StableCheckpoint,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        self.may_offer(now, from, stable.seq)?;
        if self.fetcher.haves.get(&from) == Some(&stable) {
            return Err(Reject::Stale("checkpoint known"));
        }
        if !self.judge().certified(&stable) {
            return Err(Reject::Misbehaviour("certificate of a held checkpoint"));
        }
        self.certified_seen(&stable);
        self.fetcher.haves.insert(from, stable);
        if let State::Wanting { first, .. } = &mut self.fetcher.state {
            first.get_or_insert(now);
        }
        self.fetch_best(now, out);
        Ok(())
    }

    /// F5: takes the best offer, if it is good enough already.
    pub(super) fn fetch_best(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.fetch_certified(now, out);
        // F10.
        let weak = self.cfg.quorums.weak() - usize::from(base::mutant!(OneStateIsBelieved));
        let best =
            self.fetcher.offers.best(weak, self.fetch_floor().next().max(self.certified.seq));
        let Some(best) = best else { return };
        let sources = self.fetcher.offers.sources(best.seq, best.digest);
        let take = match &self.fetcher.state {
            State::Idle => false,
            State::Wanting { .. } => true,
            State::Fetching { target, sources: old, .. } => {
                let same = target.seq == best.seq && target.digest == best.digest;
                let few = old.len() < self.cfg.quorums.weak();
                if same { sources.len() > old.len() } else { few }
            }
        };
        if take {
            self.fetch(now, best, sources, out);
        }
    }

    fn fetch_certified(&mut self, now: Time, out: &mut Vec<Effect>) {
        let weak = self.cfg.quorums.weak();
        let Some((best, sources)) = self.fetcher.best(weak, &[]) else {
            // Whoever offered something has turned out to lie: nothing is waited for.
            if let State::Wanting { first, .. } = &mut self.fetcher.state {
                *first = None;
            }
            return;
        };
        let take = match &self.fetcher.state {
            State::Idle => false,
            State::Wanting { first, .. } => {
                let waited = first.is_some_and(|first| now.since(first) >= GATHER);
                sources.len() >= weak || waited
            }
            State::Fetching { target, sources: old, .. } => {
                let same = target.seq == best.seq && target.digest == best.digest;
                let better = best.seq > target.seq && sources.len() >= weak && old.len() < weak;
                (same && sources.len() > old.len()) || better
            }
        };
        if take {
            self.fetch(now, best, sources, out);
        } else if let Some((best, sources)) = self.fetcher.late(weak) {
            self.fetch(now, best, sources, out);
        }
    }

    fn fetch(
        &mut self,
        now: Time,
        target: StableCheckpoint,
        sources: Vec<ReplicaId>,
        out: &mut Vec<Effect>,
    ) {
        if self.fetcher.target() != Some(target.seq) {
            out.push(Effect::Fact(GroupFact::Fetching(target.seq)));
        }
        self.fetcher.told = Some((target.seq, target.digest));
        let fetch = ToStage::Fetch { checkpoint: target.clone(), sources: sources.clone() };
        out.push(Effect::Stage(fetch));
        self.pin_fetched(now, &target, out);
        out.push(Effect::Stage(ToStage::Tick(now)));
        let (active, tick) = (now, now.after(TICK));
        let (next, asks) = match &self.fetcher.state {
            State::Fetching { target: old, next, asks, .. } => {
                let same = (old.seq, old.digest) == (target.seq, target.digest);
                (*next, if same { *asks } else { 0 })
            }
            State::Idle | State::Wanting { .. } => (now.after(ASK_MAX), 0),
        };
        self.fetcher.state = State::Fetching { target, sources, active, tick, next, asks };
    }

    pub(super) fn fetch_turn(&mut self, now: Time, out: &mut Vec<Effect>) {
        let mut ask = false;
        let mut stalled = false;
        let mut more = None;
        let weak = self.cfg.quorums.weak();
        match &mut self.fetcher.state {
            State::Idle => return,
            State::Wanting { next, pause, .. } => {
                if now >= *next {
                    ask = true;
                    *next = now.after(*pause);
                    *pause = Span((pause.0 * 2).min(ASK_MAX.0));
                }
            }
            State::Fetching { active, tick, sources, next, asks, .. } => {
                stalled = now >= active.after(STALL);
                if sources.len() < weak && now >= *next {
                    *next = now.after(ASK_MAX);
                    *asks = asks.saturating_add(1);
                    more = Some(*asks);
                }
                if now >= *tick {
                    *tick = now.after(TICK);
                    out.push(Effect::Stage(ToStage::Tick(now)));
                }
            }
        }
        if stalled {
            self.fetcher.haves.clear();
            self.fetcher.offers.clear();
            self.want_again(now, out);
        } else if ask {
            self.say_want(out);
        } else if let Some(asks) = more {
            self.want_from_more(asks, out);
        }
        self.fetch_best(now, out);
    }

    /// F6: no source holds the target any more.
    pub(super) fn on_fetch_failed(
        &mut self,
        now: Time,
        seq: Seq,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        if self.fetcher.target() != Some(seq) {
            return Err(Reject::Stale("another checkpoint is fetched"));
        }
        self.fetcher.haves.clear();
        self.fetcher.offers.clear();
        self.want_again(now, out);
        Ok(())
    }

    /// F6: a source gives nothing of the target any more.
    pub(super) fn on_lost_source(&mut self, seq: Seq, source: ReplicaId) -> Result<(), Reject> {
        let State::Fetching { target, sources, .. } = &mut self.fetcher.state else {
            return Err(Reject::Stale("nothing is fetched"));
        };
        if target.seq != seq {
            return Err(Reject::Stale("another checkpoint is fetched"));
        }
        sources.retain(|known| *known != source);
        self.fetcher.haves.retain(|from, held| *from != source || held.seq != seq);
        self.fetcher.offers.lost(source, seq);
        Ok(())
    }

    /// F6: a source does not hold what it said.
    pub(super) fn on_lying_source(
        &mut self,
        now: Time,
        source: ReplicaId,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        self.fetcher.haves.remove(&source);
        self.fetcher.offers.remove(source);
        self.fetcher.banned.insert(source, now.after(BAN));
        if let State::Fetching { sources, .. } = &mut self.fetcher.state {
            sources.retain(|known| *known != source);
        }
        self.suspect(source, SuspicionKind::LyingSource, out);
        Ok(())
    }

    /// F7: the state is now that of this checkpoint.
    pub(super) fn on_fetched(
        &mut self,
        now: Time,
        checkpoint: StableCheckpoint,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let weak = checkpoint.is_weak(self.cfg.quorums.quorum());
        // It may have been told of something better just then, and stands for that now.
        let is = (checkpoint.seq, checkpoint.digest);
        if self.fetcher.told.is_none_or(|told| told == is) {
            (self.fetcher.state, self.fetcher.told) = (State::Idle, None);
            self.fetcher.haves.clear();
            self.fetcher.offers.clear();
        }
        self.fetcher.missing = self.fetcher.missing.filter(|missing| *missing > self.executed);
        self.fetcher.diverged = None;
        out.push(Effect::Fact(GroupFact::Fetched(checkpoint.seq)));
        if !weak {
            self.certified_seen(&checkpoint);
            self.pins_stable(now, &checkpoint, out);
        }
        // F11: the low mark is certified, whatever the state is.
        let stable = if weak { self.certified.clone() } else { checkpoint.clone() };
        if stable.seq > self.stable.seq && stable.seq <= checkpoint.seq {
            out.push(Effect::Persist(GroupRecord::Stable(stable.clone())));
            self.stable = stable;
        }
        self.change_fetched(now, out);
        self.try_recovered(now, out);
        if self.stable.seq > self.executed {
            // Lanes deliver nothing up to their mark, unless the stage is there already.
            self.fetcher.missing = self.fetcher.missing.max(Some(self.stable.seq));
        }
        if self.fetcher.missing.is_some() {
            self.want_checkpoint(now, out);
        }
        Ok(())
    }

    /// Execution goes on: while nothing is transferred yet, that may be all that was missing. Not
    /// once the stage was told to fetch: it stands, and this is about what it did before.
    pub(super) fn fetch_executed(&mut self) {
        let wanting = matches!(self.fetcher.state, State::Wanting { .. });
        let there = self.fetcher.missing.is_none_or(|missing| self.executed >= missing);
        let stands = self.fetcher.told.is_some();
        if wanting && there && !stands && self.fetcher.diverged.is_none() {
            self.fetcher.state = State::Idle;
            (self.fetcher.missing, self.fetcher.lowest) = (None, None);
        }
    }

    /// The stage sends a message to another one: a transfer is alive.
    pub(super) fn note_transfer(&mut self, now: Time, to: ReplicaId, message: &StateMessage) {
        match (message, &mut self.fetcher.state) {
            (StateMessage::Ask { .. }, State::Fetching { active, .. }) => *active = now,
            (StateMessage::Ask { .. }, _) => {}
            (StateMessage::Tell { checkpoint, .. }, _) => self.pins.used(now, *checkpoint, to),
        }
    }
}
