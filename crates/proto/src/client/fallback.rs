//! What a client does when an answer is there and cannot be accepted: the designated replica does
//! not send the content, or a replica that was to answer does not.
//!
//! From the moment on at which f + 1 replicas have said something, so that a correct one has
//! executed the frame, the client waits as long as it usually takes, and asks again: everybody
//! answers in full then. Whoever made it wait is not relied on for a while: the replicas are told
//! to pass it over, at most f of them at a time. It is no proof of anything, and costs them
//! nothing but work.
//!
//! Not here: who answers how (`base::reply::Repliers`), nor the counting of votes
//! ([`super::vote`]).

use base::{Now, ReplicaId, Span, Time, VoteSet};

use super::{ClientCore, Effect};

/// How long the rest of an answer takes after its beginning: a mean and how far it is off, as
/// TCP estimates round trips, from answers that came by themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    mean: u64,
    off: u64,
    /// Doublings because it was over too soon, or for nothing.
    doubled: u32,
    least: Span,
    most: Span,
}

/// Most doublings of the time for which a replica is passed over, from a second on.
const MISSES_MAX: u32 = 6;

impl Patience {
    /// Of a client that sends again after `retransmit` when it hears nothing at all.
    pub(super) fn new(retransmit: Span) -> Patience {
        let (least, most) = (Span(retransmit.0 / 64), Span(retransmit.0 / 2));
        Patience { mean: retransmit.0 / 8, off: 0, doubled: 0, least, most }
    }

    /// The rest of an answer came after `span`.
    pub(super) fn learn(&mut self, span: Span) {
        let off = self.mean.abs_diff(span.0);
        self.off = self.off - self.off / 4 + off / 4;
        self.mean = self.mean - self.mean / 8 + span.0 / 8;
        self.doubled = self.doubled.saturating_sub(1);
    }

    /// It was over.
    pub(super) fn lose(&mut self) {
        self.doubled = (self.doubled + 1).min(8);
    }

    /// How long the next answer may take.
    pub(super) fn span(&self) -> Span {
        let usual = self.mean.saturating_add(self.off.saturating_mul(4)).max(self.least.0);
        Span(usual.saturating_mul(1 << self.doubled).min(self.most.0.max(1)))
    }
}

impl<T> ClientCore<T> {
    /// Replicas that the client does not want to rely on at present.
    #[must_use]
    pub fn avoided(&self) -> VoteSet {
        self.avoided.0
    }

    /// How often `replica` did not say what it was to say, so that the client had to ask again. A
    /// suspicion, and a weak one: it may have been slow, or the network.
    #[must_use]
    pub fn missed_replies(&self, replica: ReplicaId) -> u64 {
        self.replicas.get(usize::from(replica.0)).map_or(0, |standing| standing.missed)
    }

    /// The frame `id` of line `at` is asked for again, since its answer is not complete.
    pub(super) fn fall_back(&mut self, at: usize, id: u64, now: Time) {
        self.counters.fallbacks += 1;
        self.patience.lose();
        let (repliers, avoided) = (self.config.repliers, self.avoided);
        let acceptance = self.config.acceptance;
        let Some(flight) = self.lines[at].flight(id) else { return };
        if flight.timer.sent < avoided.1 {
            // It was on its way while the replicas were told: they may have disagreed.
            return;
        }
        let frame = flight.frame.id();
        let designated = repliers.designated(frame, avoided.0);
        let late: VoteSet = match flight.ballot.lacks_content(designated, acceptance) {
            Some(true) => core::iter::once(designated).collect(),
            Some(false) => VoteSet::EMPTY,
            None => {
                let silent = |replica: &ReplicaId| !flight.ballot.has(*replica);
                repliers.repliers(frame, avoided.0).filter(silent).collect()
            }
        };
        for replica in late.iter() {
            let standing = &mut self.replicas[usize::from(replica.0)];
            standing.missed += 1;
            if flight.timer.sent < standing.missed_at {
                // It was on its way with one that has been counted: the same trouble. Not only
                // while it is passed over: who is silent now is to come before who was once.
                continue;
            }
            standing.missed_at = now;
            let span = Span(Span::secs(1).0 << standing.misses);
            standing.misses = (standing.misses + 1).min(MISSES_MAX);
            standing.avoided_until = now.after(span);
        }
    }

    /// `replica` said in full what was accepted, as it was to.
    pub(super) fn relied_on(&mut self, replica: ReplicaId) {
        let standing = &mut self.replicas[usize::from(replica.0)];
        standing.misses = standing.misses.saturating_sub(1);
    }

    /// Tells the replicas whom to pass over, when that has changed.
    pub(super) fn avoid(&mut self, now: Now) {
        if !self.config.repliers.need_fallback() {
            return;
        }
        let f = usize::from(self.config.quorums.f());
        let mut set = VoteSet::EMPTY;
        let until = |at: &usize| self.replicas[*at].avoided_until;
        let mut all: alloc::vec::Vec<usize> =
            (0..self.replicas.len()).filter(|at| until(at) > now.mono).collect();
        // Of two that missed as often the one that does so now: who is passed over misses nothing
        // any more, and may long be well.
        let badness = |at: &usize| (self.replicas[*at].misses, until(at));
        all.sort_unstable_by_key(|at| core::cmp::Reverse(badness(at)));
        for at in all.into_iter().take(f) {
            set.insert(ReplicaId(u16::try_from(at).expect("at most REPLICAS_MAX")));
        }
        if set != self.avoided.0 {
            self.avoided = (set, now.mono);
            self.effects.push(Effect::Avoid(set));
        }
    }
}
