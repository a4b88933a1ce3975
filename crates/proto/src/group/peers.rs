//! What each peer may cost this replica: signatures that it makes it verify, NEW-VIEWs that it
//! is served, null batches that are ordered for it.
//!
//! Not here: who is believed what. A faulty replica that asks for ever gets its bounded share.

use alloc::vec;
use alloc::vec::Vec;

use base::{ReplicaId, Seq, Span, Time, View};

use super::link::FromCoordinator;

/// Signatures per second that a peer may make this replica verify, for each replica of the
/// group, and as many again.
const SIGNATURES_PER_REPLICA: u64 = 8;
const SIGNATURES_BASE: u64 = 64;
/// What it costs to hash about as much as a signature is worth.
const BYTES_PER_SIGNATURE: usize = 128 << 10;
/// The least time between two facts about the garbage of one peer.
const TELL_GAP: Span = Span::secs(1);
/// The longest pause between two NEW-VIEWs for a peer that does not install them.
const SERVE_PAUSE_MAX: Span = Span::secs(8);
/// Numbers per second that are filled with null for one peer, and how many windows of them it may
/// save up: what one recovery takes, twice.
const FILL_RATE: u64 = 2000;
const FILL_PERIOD: Span = Span(1_000_000_000 / FILL_RATE);
const FILL_WINDOWS: u64 = 4;
/// How often lanes are told at most that a replica is in another view.
const ELSEWHERE_REPEAT: Span = Span::secs(1);
/// How often the same fill is repeated: the leader may have changed.
const FILL_REPEAT: Span = Span::secs(1);

/// How long a replica may have no share for numbers at a correct other one: it may have spent it
/// on what it passed on for liars, and a request over it.
pub(crate) fn share_pause_max(window: u64, checkpoint_interval: u64) -> Span {
    let most = window.saturating_mul(2).saturating_add(checkpoint_interval);
    Span(most.saturating_mul(FILL_PERIOD.0))
}

/// The other replicas, by number.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    rate: u64,
    burst: i64,
    fill_burst: i64,
    /// Up to where some of them wait for numbers.
    pub(super) filling: Seq,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    tokens: i64,
    refilled: Time,
    /// What it said was installed when it was last served, and the pause after that.
    served: View,
    serve_pause: Span,
    serve_next: Time,
    told: Option<Time>,
    /// When the lanes were told last that it has not begun this view, and whether they think so.
    elsewhere: Option<Time>,
    is_elsewhere: bool,
    fill: Seq,
    fill_repeat: Time,
    fill_tokens: i64,
    fill_refilled: Time,
}

impl Peers {
    pub(super) fn new(n: u16, window: u64) -> Peers {
        let n64 = u64::from(n);
        // The largest message, a NEW-VIEW, has a signature and a certificate per replica.
        let burst = i64::try_from(2 * n64 * (n64 + 2) + SIGNATURES_BASE).expect("small");
        let fill_burst = i64::try_from(FILL_WINDOWS.saturating_mul(window)).unwrap_or(i64::MAX);
        let peer = Peer {
            tokens: burst,
            refilled: Time::ZERO,
            served: View(u64::MAX),
            serve_pause: Span(0),
            serve_next: Time::ZERO,
            told: None,
            elsewhere: None,
            is_elsewhere: false,
            fill: Seq(0),
            fill_repeat: Time::ZERO,
            fill_tokens: fill_burst,
            fill_refilled: Time::ZERO,
        };
        let rate = SIGNATURES_PER_REPLICA * n64 + SIGNATURES_BASE;
        Peers { peers: vec![peer; usize::from(n)], rate, burst, fill_burst, filling: Seq(0) }
    }

    fn peer(&mut self, replica: ReplicaId) -> &mut Peer {
        &mut self.peers[usize::from(replica.0)]
    }

    /// Whether this replica may verify something for `replica` now.
    pub(super) fn may_cost(&mut self, replica: ReplicaId, now: Time) -> bool {
        let (rate, burst) = (self.rate, self.burst);
        let peer = self.peer(replica);
        let gained = now.since(peer.refilled).0.saturating_mul(rate) / 1_000_000_000;
        if gained > 0 {
            peer.refilled = now;
            let gained = i64::try_from(gained).unwrap_or(burst);
            peer.tokens = peer.tokens.saturating_add(gained).min(burst);
        }
        peer.tokens > 0
    }

    /// `replica` has made this replica verify `signatures` and look at `bytes`; its budget may
    /// go below zero by one message.
    pub(super) fn charge(&mut self, replica: ReplicaId, signatures: u64, bytes: usize) {
        let cost = signatures + 1 + (bytes / BYTES_PER_SIGNATURE) as u64;
        let peer = self.peer(replica);
        peer.tokens = peer.tokens.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
    }

    /// Whether it is worth telling again that `replica` sends garbage.
    pub(super) fn may_tell(&mut self, replica: ReplicaId, now: Time) -> bool {
        let peer = self.peer(replica);
        let free = peer.told.is_none_or(|at| now.since(at) >= TELL_GAP);
        if free {
            peer.told = Some(now);
        }
        free
    }

    /// `replica` says whether it has begun the view of this one: what the lanes are told now. That
    /// it has, at once, for they may be counting who is there; that it has not, only so often,
    /// whatever it says in between.
    pub(super) fn hear_whether_begun(
        &mut self,
        replica: ReplicaId,
        begun: bool,
        now: Time,
    ) -> Option<FromCoordinator> {
        let peer = self.peer(replica);
        if begun {
            let news = core::mem::take(&mut peer.is_elsewhere);
            return news.then_some(FromCoordinator::Arrived(replica));
        }
        if peer.elsewhere.is_some_and(|at| now.since(at) < ELSEWHERE_REPEAT) {
            return None;
        }
        (peer.elsewhere, peer.is_elsewhere) = (Some(now), true);
        Some(FromCoordinator::Elsewhere(replica))
    }

    /// Whether `replica`, which says that it has installed `view`, is sent a NEW-VIEW of `bytes`
    /// now. The pause grows while it does not install any.
    pub(super) fn may_serve(
        &mut self,
        replica: ReplicaId,
        now: Time,
        view: View,
        bytes: usize,
        pause: Span,
    ) -> bool {
        let peer = self.peer(replica);
        if now < peer.serve_next {
            return false;
        }
        let doubled = Span(peer.serve_pause.0.saturating_mul(2).min(SERVE_PAUSE_MAX.0));
        // 8 ns per byte: 125 MB per second.
        let transfer = (bytes as u64).saturating_mul(8);
        let least = Span(pause.0.saturating_add(transfer));
        peer.serve_pause = if peer.served == view { doubled.max(least) } else { least };
        peer.served = view;
        peer.serve_next = now.after(peer.serve_pause);
        true
    }

    /// Whether the numbers up to `upto` are filled for `replica` now, while `stable` is stable
    /// here. A higher number than before costs the peer its share; repeating one costs nothing,
    /// but takes time.
    pub(super) fn may_fill(
        &mut self,
        replica: ReplicaId,
        now: Time,
        upto: Seq,
        stable: Seq,
    ) -> bool {
        let burst = self.fill_burst;
        let peer = self.peer(replica);
        if upto <= peer.fill {
            let again = now >= peer.fill_repeat;
            if again {
                peer.fill_repeat = now.after(FILL_REPEAT);
            }
            return again;
        }
        let gained = now.since(peer.fill_refilled).0 / FILL_PERIOD.0;
        if gained > 0 {
            // Parts of a number stay, or whoever is made to ask often would be refilled slowly.
            peer.fill_refilled = peer.fill_refilled.after(Span(gained * FILL_PERIOD.0));
            let gained = i64::try_from(gained).unwrap_or(burst);
            peer.fill_tokens = peer.fill_tokens.saturating_add(gained).min(burst);
        }
        if peer.fill_tokens <= 0 {
            return false;
        }
        // It may go below zero by one request, which the caller bounds.
        let count = upto.0.saturating_sub(stable.0.max(peer.fill.0));
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        peer.fill_tokens = peer.fill_tokens.saturating_sub(count);
        peer.fill_repeat = now.after(FILL_REPEAT);
        peer.fill = upto;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO.after(Span::millis(ms))
    }

    #[test]
    fn a_peers_budget_is_its_own_and_refills() {
        let (mut peers, one, other) = (Peers::new(4, 100), ReplicaId(1), ReplicaId(2));
        let mut spent = 0;
        while peers.may_cost(one, at(0)) {
            peers.charge(one, 9, 0);
            spent += 10;
        }
        // A NEW-VIEW with a certificate of everybody in every VIEW-CHANGE fits.
        assert!((2 * 4 * 6..1000).contains(&spent), "{spent}");
        assert!(peers.may_cost(other, at(0)));
        assert!(!peers.may_cost(one, at(5)) && peers.may_cost(one, at(1000)));
        peers.charge(one, 0, 32 << 20);
        assert!(!peers.may_cost(one, at(2000)), "bytes cost, too");
    }

    #[test]
    fn who_does_not_install_what_it_is_sent_waits_longer_each_time() {
        let (mut peers, one) = (Peers::new(4, 100), ReplicaId(1));
        let pause = Span::millis(100);
        let mut served = 0;
        for ms in 0..60_000 {
            served += u64::from(peers.may_serve(one, at(ms), View(3), 1000, pause));
        }
        assert!((8..20).contains(&served), "{served}");
        assert!(peers.may_serve(one, at(70_000), View(4), 1000, pause));
        assert!(peers.may_serve(one, at(70_101), View(5), 1000, pause), "it goes on");
    }

    #[test]
    fn numbers_that_are_filled_for_a_peer_cost_it_its_share() {
        let (mut peers, one) = (Peers::new(4, 100), ReplicaId(1));
        // A recovery takes one request for what lies behind, and one for E.
        assert!(peers.may_fill(one, at(0), Seq(200), Seq(0)));
        assert!(peers.may_fill(one, at(0), Seq(410), Seq(200)));
        assert!(!peers.may_fill(one, at(0), Seq(411), Seq(410)), "all is spent");
        assert!(!peers.may_fill(one, at(0), Seq(410), Seq(200)), "not so soon again");
        assert!(peers.may_fill(one, at(1000), Seq(410), Seq(200)), "the leader may be another");
        assert!(peers.may_fill(one, at(1001), Seq(600), Seq(410)));
        // For ever, it gets its rate and what it had saved up.
        let mut filled = 600;
        for ms in 1001..61_000 {
            if peers.may_fill(one, at(ms), Seq(filled + 200), Seq(filled)) {
                filled += 200;
            }
        }
        assert!((110_000..=125_000).contains(&filled), "{filled}");
    }

    /// However often it is asked for meanwhile, and by however little.
    #[test]
    fn a_peer_without_a_share_has_one_again_in_the_time_that_others_allow_for() {
        let (window, interval) = (100, 10);
        let reach = 2 * window + interval;
        let (mut peers, one) = (Peers::new(4, window), ReplicaId(1));
        assert!(peers.may_fill(one, at(0), Seq(399), Seq(0)));
        assert!(peers.may_fill(one, at(0), Seq(399 + reach), Seq(399)), "one is left of 400");
        let asked = (1..).map(|n| Time::ZERO.after(Span(n * 999_000)));
        let mut again = asked.filter(|now| peers.may_fill(one, *now, Seq(900), Seq(609)));
        let again = again.next().expect("some time");
        assert!(again.0 <= share_pause_max(window, interval).0 + 1_000_000, "{again:?}");
    }
}
