//! What is known about the other replicas: how far they say that they are, and how much help
//! they got from this one.
//!
//! Not here: what is done about either (`catchup`). One replica may lie, so its word alone moves
//! nothing; and whatever it asks for costs this replica a bounded share of its time.

use alloc::vec;
use alloc::vec::Vec;

use base::{ReplicaId, Seq, Span, Time, View};

/// The least time between two answers to one peer.
pub(super) const ANSWER_GAP: Span = Span::millis(2);
/// How many numbers one answer covers, to begin with and at most.
const ANSWER_NUMBERS_MIN: usize = 16;
pub(super) const ANSWER_NUMBERS_MAX: usize = 128;
/// What one peer may be sent as help: nanoseconds per byte (8: 125 MB per second), and how far
/// ahead of that rate a burst may be.
const SERVE_NS_PER_BYTE: u64 = 8;
const SERVE_BURST: Span = Span::millis(16);
/// What it takes to have a frame ordered once more that was decided of late, on one peer's word,
/// and how many of these may come at once, in the same unit.
const ORDER_AGAIN: Span = Span::millis(8);
const ORDER_AGAIN_BURST: Span = Span::millis(256);

/// The other replicas, by number.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    /// At least a weak quorum says that there is a number as high as this.
    believed: Seq,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    last_answer: Option<Time>,
    /// Until when what it was sent keeps its share of the link busy.
    served_until: Time,
    /// Frames that were decided of late and are ordered once more on its word alone.
    again: Allowance,
    /// The highest number that it has mentioned.
    mentioned: Seq,
    /// The low mark that it has told, and up to where it has delivered.
    stable: Seq,
    delivered: Seq,
    /// The view that it votes in or waits for, and when it last said so.
    view: Option<(View, Time)>,
    /// When it said that it has yet to begin the view that this replica is in, if it has not said
    /// since that it has.
    elsewhere: Option<Time>,
    told: Option<Told>,
}

/// How often something may happen: so many times at once, and then as time passes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    /// When it is whole again.
    whole_at: Time,
}

impl Allowance {
    /// It happens if it may, which takes `each` from `burst`, and `each` to refill. Whether it
    /// does.
    pub(super) fn take(&mut self, now: Time, (each, burst): (Span, Span)) -> bool {
        let after = self.whole_at.max(now).after(each);
        let may = after <= now.after(burst);
        if may {
            self.whole_at = after;
        }
        may
    }
}

/// Where a peer says that it is, and what it can be told there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asker {
    /// The view that it votes in or waits for.
    pub(super) view: View,
    /// Whether this replica has votes for it.
    pub(super) votes: bool,
    /// What it has delivered.
    pub(super) delivered: Seq,
}

/// What a peer was told of what it lacks.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Where it was, and since when.
    asker: Asker,
    since: Time,
    /// What is delivered here was told up to this number.
    up_to: Seq,
    /// How many numbers one answer covers.
    numbers: usize,
}

impl Peers {
    pub(super) fn new(n: u16) -> Peers {
        Peers { peers: vec![Peer::default(); usize::from(n)], believed: Seq(0) }
    }

    fn peer(&mut self, replica: ReplicaId) -> &mut Peer {
        &mut self.peers[usize::from(replica.0)]
    }

    /// `replica` says that there is a number `seq`. Believed when a weak quorum says the like.
    pub(super) fn mentions(&mut self, replica: ReplicaId, seq: Seq, weak: usize) {
        let peer = self.peer(replica);
        peer.mentioned = peer.mentioned.max(seq);
        if seq <= self.believed {
            return;
        }
        let mut all: Vec<Seq> = self.peers.iter().map(|peer| peer.mentioned).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let weak = if base::mutant!(OneMentionIsBelieved) { 1 } else { weak };
        self.believed = all.get(weak - 1).copied().unwrap_or_default().max(self.believed);
    }

    /// A certificate proves that there is a number `seq`.
    pub(super) fn proven(&mut self, seq: Seq) {
        self.believed = self.believed.max(seq);
    }

    /// There is a number as high as this, as far as this replica knows.
    pub(super) fn believed(&self) -> Seq {
        self.believed
    }

    /// What `replica` says of itself: the view that it votes in or waits for, as of when, its low
    /// mark, and up to where it has delivered.
    pub(super) fn set_status(
        &mut self,
        replica: ReplicaId,
        view: (View, Time),
        stable: Seq,
        delivered: Seq,
    ) {
        let peer = self.peer(replica);
        (peer.view, peer.stable, peer.delivered) = (Some(view), stable, delivered);
    }

    /// `replica` has yet to begin the view that this one is in, and says in its STATUS what it
    /// waits for.
    pub(super) fn is_elsewhere(&mut self, replica: ReplicaId, now: Time) {
        self.peer(replica).elsewhere = Some(now);
    }

    /// `replica` has begun that view, or a later one.
    pub(super) fn has_arrived(&mut self, replica: ReplicaId) {
        self.peer(replica).elsewhere = None;
    }

    /// How many have said since `since` that they vote in `view`, and have not said otherwise.
    pub(super) fn who_votes_in(&self, view: View, since: Time) -> usize {
        let votes = |peer: &&Peer| {
            let says = peer.view.is_some_and(|(of, at)| of == view && at >= since);
            says && peer.elsewhere.is_none_or(|at| at < since)
        };
        self.peers.iter().filter(votes).count()
    }

    /// How many say that they have delivered `seq`.
    pub(super) fn who_delivered(&self, seq: Seq) -> usize {
        self.peers.iter().filter(|peer| peer.delivered >= seq).count()
    }

    /// The low marks that were told, and up to where their tellers have delivered.
    pub(super) fn marks(&self) -> impl Iterator<Item = (Seq, Seq)> {
        self.peers.iter().map(|peer| (peer.stable, peer.delivered.max(peer.stable)))
    }

    /// The link to `replica` is new: it gets its next answer at once.
    pub(super) fn connected(&mut self, replica: ReplicaId) {
        let peer = self.peer(replica);
        (peer.last_answer, peer.told) = (None, None);
    }

    /// Whether `replica` may have an answer now; if so, the gap to the next begins.
    pub(super) fn may_answer(&mut self, replica: ReplicaId, now: Time) -> bool {
        if !self.may_serve(replica, now) {
            return false;
        }
        let peer = self.peer(replica);
        let free = peer.last_answer.is_none_or(|at| now.since(at) >= ANSWER_GAP);
        if free {
            peer.last_answer = Some(now);
        }
        free
    }

    /// `replica` is at `asker`: above which number, and about how many, it is to be told something
    /// now. What is on its way is not told again until `lost` after that it is still where it
    /// was; and only who moves on by what it is told gets more at a time, for a whole group that
    /// waits for one number has all that is above it.
    pub(super) fn untold(
        &mut self,
        replica: ReplicaId,
        now: Time,
        asker: Asker,
        lost: Span,
    ) -> (Seq, usize) {
        let delivered = asker.delivered;
        let anew = Told { asker, since: now, up_to: delivered, numbers: ANSWER_NUMBERS_MIN };
        let before = self.peer(replica).told;
        let before =
            before.filter(|told| (told.asker.view, told.asker.votes) == (asker.view, asker.votes));
        let told = match before {
            Some(told) if delivered > told.asker.delivered => {
                let numbers = (told.numbers * 2).min(ANSWER_NUMBERS_MAX);
                // Else what was told is lost, or there was no hurry.
                let fresh = now.since(told.since) < lost;
                let up_to = if fresh { told.up_to.max(delivered) } else { delivered };
                Told { up_to, numbers, ..anew }
            }
            Some(told) if asker == told.asker && base::mutant!(NothingToldAgain) => told,
            Some(told) if asker == told.asker && now.since(told.since) < lost => told,
            _ => anew,
        };
        self.peer(replica).told = Some(told);
        (told.up_to, told.numbers)
    }

    /// `replica` is told what is decided up to `up_to`.
    pub(super) fn tell(&mut self, replica: ReplicaId, up_to: Seq) {
        if let Some(told) = &mut self.peer(replica).told {
            told.up_to = up_to;
        }
    }

    /// Whether `replica` may be sent more help now.
    pub(super) fn may_serve(&mut self, replica: ReplicaId, now: Time) -> bool {
        self.peer(replica).served_until <= now.after(SERVE_BURST)
    }

    /// Whether a frame that was decided of late may be ordered once more on the word of `replica`
    /// alone, which is then counted.
    pub(super) fn may_order_again(&mut self, replica: ReplicaId, now: Time) -> bool {
        self.peer(replica).again.take(now, (ORDER_AGAIN, ORDER_AGAIN_BURST))
    }

    /// `replica` is sent `bytes` of help.
    pub(super) fn served(&mut self, replica: ReplicaId, now: Time, bytes: usize) {
        let peer = self.peer(replica);
        peer.served_until = peer.served_until.max(now).after(cost_of(bytes));
    }
}

/// For how long so many bytes keep a peer's share busy.
fn cost_of(bytes: usize) -> Span {
    Span((bytes as u64).saturating_mul(SERVE_NS_PER_BYTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_replica_alone_is_not_believed() {
        let mut peers = Peers::new(4);
        for _ in 0..3 {
            peers.mentions(ReplicaId(3), Seq(u64::MAX), 2);
        }
        assert_eq!(peers.believed(), Seq(0));
        peers.mentions(ReplicaId(1), Seq(7), 2);
        assert_eq!(peers.believed(), Seq(7));
        peers.mentions(ReplicaId(2), Seq(9), 2);
        assert_eq!(peers.believed(), Seq(9));
    }

    #[test]
    fn who_moves_on_is_told_more_and_nothing_twice_while_it_may_be_on_its_way() {
        let (mut peers, one, lost) = (Peers::new(4), ReplicaId(1), Span::millis(5));
        let asker =
            |view, votes, delivered| Asker { view: View(view), votes, delivered: Seq(delivered) };
        let mut ask = |ms, asker, told: u64| {
            let asked = peers.untold(one, Time::ZERO.after(Span::millis(ms)), asker, lost);
            peers.tell(one, Seq(told));
            (asked.0.0, asked.1)
        };
        let first = |delivered| asker(0, false, delivered);
        assert_eq!(ask(0, first(0), 16), (0, 16), "the first question, at the first moment");
        assert_eq!(ask(2, first(0), 32), (16, 16), "it may be on its way");
        assert_eq!(ask(4, first(8), 64), (32, 32), "it comes");
        assert_eq!(ask(6, first(40), 128), (64, 64));
        assert_eq!(ask(8, first(70), 256), (128, 128));
        assert_eq!(ask(10, first(80), 384), (256, 128), "never more");
        assert_eq!(ask(12, first(500), 600), (500, 128), "others were faster");
        assert_eq!(ask(16, first(500), 616), (600, 128), "not lost yet");
        assert_eq!(ask(17, first(500), 516), (500, 16), "lost");
        assert_eq!(ask(18, first(500), 532), (516, 16));
        assert_eq!(ask(30, first(501), 532), (501, 32), "most of it is lost, it seems");
        assert_eq!(ask(31, asker(0, true, 510), 530), (510, 16), "there are votes now");
        assert_eq!(ask(32, asker(1, true, 510), 530), (510, 16), "votes of another view");
        assert_eq!(ask(33, asker(1, true, 300), 316), (300, 16), "another life of it");
        peers.connected(one);
        let again = peers.untold(one, Time::ZERO, asker(1, true, 300), lost);
        assert_eq!(again, (Seq(300), 16), "what was on the old link is gone");
    }

    #[test]
    fn help_is_bounded_by_bytes_and_by_time() {
        let (mut peers, one) = (Peers::new(4), ReplicaId(1));
        let mut now = Time(1);
        assert!(peers.may_answer(one, now) && !peers.may_answer(one, now));
        assert!(peers.may_answer(ReplicaId(2), now), "each peer for itself");
        peers.connected(one);
        assert!(peers.may_answer(one, now));
        peers.served(one, now, 100 << 20);
        now = now.after(Span::millis(500));
        assert!(!peers.may_serve(one, now) && !peers.may_answer(one, now));
        now = now.after(Span::millis(500));
        assert!(peers.may_serve(one, now) && peers.may_answer(one, now));
    }
}
