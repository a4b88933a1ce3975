//! The links of one lane to the same pillar of the other replicas.
//!
//! One connection per unordered pair of replicas and pillar: the replica with the higher id
//! dials, so that two replicas never dial each other at once. A link that breaks is dialled
//! again after 50 ms, then twice as long after each failure, up to 2 s, plus up to a quarter of
//! that, which depends on who dials whom, so that a restarted replica is not met by everybody in
//! the same instant.
//!
//! A newer link of the same peer replaces the older one, which may be half dead, but only once a
//! packet was opened on it: whoever replays a recorded hello cannot displace anybody. A link of
//! an older life of the peer's process is refused.
//!
//! A peer that sends what no correct replica sends loses its link and gets no other one for the
//! same pauses, which here do not begin anew with each link.
//!
//! Not here: sockets, packets. Depends on `base` and `throttle` alone.

use base::{Incarnation, PillarId, ReplicaId, Span, Time};

use crate::throttle::Throttle;

/// The first pause before dialling again.
const BACKOFF_MIN: Span = Span::millis(50);
/// The longest pause, before the part that depends on the pair.
const BACKOFF_MAX: Span = Span::millis(2_000);

/// After this long without an offence the pauses for the next ones begin anew.
const FORGOTTEN_AFTER: Span = Span::secs(60);

/// What a lane knows about its links.
#[derive(Debug)]
pub(crate) struct PeerTable {
    me: ReplicaId,
    pillar: PillarId,
    peers: Vec<PeerState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct PeerState {
    /// The connection in use.
    slot: Option<usize>,
    /// A connection of ours that is being made.
    calling: Option<usize>,
    /// When to dial next.
    next_dial: Time,
    failures: u32,
    /// How often it sent what no correct replica sends, and until when it is left alone for it.
    offences: u32,
    shunned_until: Time,
    /// The latest life of the peer that was seen.
    incarnation: Incarnation,
    /// What is said about its coming and going: a link that flaps must not fill the log.
    ups: Throttle,
    downs: Throttle,
}

impl PeerTable {
    /// No links yet; the first calls are due at once.
    pub(crate) fn new(me: ReplicaId, pillar: PillarId, n: u16) -> PeerTable {
        PeerTable { me, pillar, peers: vec![PeerState::default(); usize::from(n)] }
    }

    /// A peer that is to be dialled by `now`, if any.
    pub(crate) fn due(&self, now: Time) -> Option<ReplicaId> {
        self.dialled().find(|peer| {
            let state = &self.peers[usize::from(peer.0)];
            state.waiting() && state.next_dial <= now
        })
    }

    /// When the next call is due.
    pub(crate) fn next_dial(&self) -> Option<Time> {
        let states = self.dialled().map(|peer| &self.peers[usize::from(peer.0)]);
        states.filter(|state| state.waiting()).map(|state| state.next_dial).min()
    }

    /// We dial `peer` on connection `slot`.
    pub(crate) fn calling(&mut self, peer: ReplicaId, slot: usize) {
        self.state(peer).calling = Some(slot);
    }

    /// A call could not even begin, or has ended without a link.
    pub(crate) fn failed(&mut self, peer: ReplicaId, now: Time) {
        let (me, pillar) = (self.me, self.pillar);
        let state = self.state(peer);
        state.calling = None;
        let pause = backoff(state.failures, [me.0, peer.0, pillar.0]);
        state.failures = state.failures.saturating_add(1);
        state.next_dial = now.after(pause).max(state.shunned_until);
    }

    /// The link on `slot` is authenticated and its other end lives. Returns the connection that
    /// it replaces.
    ///
    /// # Errors
    /// When the peer was seen in a later life: close the new connection.
    pub(crate) fn up(
        &mut self,
        peer: ReplicaId,
        incarnation: Incarnation,
        slot: usize,
    ) -> Result<Option<usize>, StaleLife> {
        let state = self.state(peer);
        if incarnation < state.incarnation {
            return Err(StaleLife);
        }
        state.incarnation = incarnation;
        if state.calling == Some(slot) {
            state.calling = None;
        }
        state.failures = 0;
        Ok(state.slot.replace(slot).filter(|old| *old != slot))
    }

    /// The connection `slot` of `peer` is gone. True when it was the one in use.
    pub(crate) fn down(&mut self, peer: ReplicaId, slot: usize, now: Time) -> bool {
        let state = self.state(peer);
        if state.calling == Some(slot) {
            self.failed(peer, now);
            return false;
        }
        if state.slot != Some(slot) {
            return false;
        }
        state.slot = None;
        self.failed(peer, now);
        true
    }

    /// `peer` sent what no correct replica sends, and its link is about to be closed: it gets no
    /// other one for a while, which is longer each time unless it is long ago.
    pub(crate) fn offended(&mut self, peer: ReplicaId, now: Time) {
        let (me, pillar) = (self.me, self.pillar);
        let state = self.state(peer);
        if now.since(state.shunned_until) > FORGOTTEN_AFTER {
            state.offences = 0;
        }
        let pause = backoff(state.offences, [me.0, peer.0, pillar.0]);
        state.offences = state.offences.saturating_add(1);
        state.shunned_until = now.after(pause);
    }

    /// Whether `peer` gets no link at the moment because of what it sent.
    pub(crate) fn shuns(&self, peer: ReplicaId, now: Time) -> bool {
        self.peers.get(usize::from(peer.0)).is_some_and(|state| now < state.shunned_until)
    }

    /// Whether people are to be told that the link to `peer` is up.
    pub(crate) fn up_is_news(&mut self, peer: ReplicaId, now: Time) -> bool {
        self.state(peer).ups.allow(now)
    }

    /// Whether people are to be told that the link to `peer` is down.
    pub(crate) fn down_is_news(&mut self, peer: ReplicaId, now: Time) -> bool {
        self.state(peer).downs.allow(now)
    }

    /// The connection to `peer`.
    pub(crate) fn slot(&self, peer: ReplicaId) -> Option<usize> {
        self.peers.get(usize::from(peer.0))?.slot
    }

    /// All connections in use.
    pub(crate) fn slots(&self) -> impl Iterator<Item = usize> {
        self.peers.iter().filter_map(|state| state.slot)
    }

    /// Number of links that are up.
    pub(crate) fn count(&self) -> usize {
        self.slots().count()
    }

    /// The peers that we dial: those with a lower id.
    fn dialled(&self) -> impl Iterator<Item = ReplicaId> {
        (0..self.me.0).map(ReplicaId)
    }

    fn state(&mut self, peer: ReplicaId) -> &mut PeerState {
        self.peers.get_mut(usize::from(peer.0)).expect("links are to members only")
    }
}

impl PeerState {
    fn waiting(&self) -> bool {
        self.slot.is_none() && self.calling.is_none()
    }
}

/// A link of a life of the peer that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StaleLife;

fn backoff(failures: u32, who: [u16; 3]) -> Span {
    let doubled = BACKOFF_MIN.0.saturating_mul(1 << failures.min(16));
    let pause = doubled.min(BACKOFF_MAX.0);
    // Any mixing will do: it only has to differ from pair to pair and from time to time.
    let mixed = who.iter().fold(u64::from(failures) + 1, |mixed, part| {
        (mixed ^ u64::from(*part)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    });
    Span(pause + mixed % (pause / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaId = ReplicaId(2);

    fn table() -> PeerTable {
        PeerTable::new(ME, PillarId(0), 4)
    }

    #[test]
    fn lower_ids_are_dialled_and_higher_ones_awaited() {
        let mut table = table();
        assert_eq!(table.due(Time(0)), Some(ReplicaId(0)));
        table.calling(ReplicaId(0), 7);
        assert_eq!(table.due(Time(0)), Some(ReplicaId(1)));
        table.calling(ReplicaId(1), 8);
        assert_eq!((table.due(Time(u64::MAX)), table.next_dial()), (None, None));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_after_a_link() {
        let mut table = table();
        let peer = ReplicaId(1);
        let mut pauses = vec![];
        for _ in 0..40 {
            table.calling(peer, 1);
            assert!(!table.down(peer, 1, Time(0)));
            pauses.push(table.peers[1].next_dial.0);
        }
        assert!((BACKOFF_MIN.0..BACKOFF_MIN.0 * 5 / 4).contains(&pauses[0]));
        assert!(pauses[39] >= BACKOFF_MAX.0 && pauses[39] < BACKOFF_MAX.0 * 5 / 4);
        table.calling(peer, 1);
        assert_eq!(table.up(peer, Incarnation(1), 1), Ok(None));
        assert!(table.down(peer, 1, Time(0)));
        assert!(table.peers[1].next_dial.0 < BACKOFF_MIN.0 * 5 / 4);
    }

    #[test]
    fn who_offends_is_left_alone_for_longer_each_time_however_often_links_come_up() {
        let mut table = table();
        let peer = ReplicaId(1);
        let (mut now, mut pauses) = (Time(0), vec![]);
        for _ in 0..12 {
            table.calling(peer, 1);
            assert_eq!(table.up(peer, Incarnation(1), 1), Ok(None));
            table.offended(peer, now);
            assert!(table.down(peer, 1, now) && table.shuns(peer, now));
            let until = table.peers[1].next_dial;
            assert!(!table.shuns(peer, until) && !table.shuns(ReplicaId(3), now));
            pauses.push(until.since(now).0);
            now = until;
        }
        assert!(pauses.windows(2).take(5).all(|two| two[0] < two[1]), "{pauses:?}");
        assert!(pauses[11] >= BACKOFF_MAX.0);
        now = now.after(Span(2 * FORGOTTEN_AFTER.0));
        table.offended(peer, now);
        assert!(table.shuns(peer, now) && !table.shuns(peer, now.after(Span(2 * BACKOFF_MIN.0))));
    }

    #[test]
    fn a_newer_link_replaces_and_an_older_life_does_not() {
        let mut table = table();
        let peer = ReplicaId(3);
        assert_eq!(table.up(peer, Incarnation(5), 1), Ok(None));
        assert_eq!(table.up(peer, Incarnation(5), 2), Ok(Some(1)));
        assert_eq!(table.up(peer, Incarnation(4), 3), Err(StaleLife));
        assert_eq!(table.slot(peer), Some(2));
        assert!(!table.down(peer, 1, Time(0)), "the replaced one is not the one in use");
        assert!(table.down(peer, 2, Time(0)));
        assert_eq!(table.due(Time(0)), Some(ReplicaId(0)), "a higher id is never dialled");
    }
}
