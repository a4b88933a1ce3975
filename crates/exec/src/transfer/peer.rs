//! The sources of a fetch: what each was asked for, how long it has been silent, and who is left.
//!
//! A source that lets its first request wait for [`PATIENCE`] gets a strike, and the request goes
//! to others; those with the fewest strikes are asked first, and after [`STRIKES_MAX`] without
//! anything that verifies in between it is no source any more. One that always says something
//! just in time, and takes longer than [`SLOW`] for all of a request, or for each so many bytes of
//! an object that comes in pieces, loses its requests to others as good as it was, if there are
//! any, which from then on are asked first. Time is measured from the tick after an event, so that
//! a late tick accuses nobody.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use base::transfer::{Part, StateRequest};
use base::{Digest, ReplicaId, Span, Time};

use super::large::Large;

/// How long a source may let a request wait.
pub const PATIENCE: Span = Span::secs(1);
/// How long a source may take for the objects of one request, all of them, once it is at it. While
/// it is at an object that comes in pieces it has so long, and [`PATIENCE`] for each
/// [`ASKED_BYTES_MAX`] that it gives of anything.
pub const SLOW: Span = Span::secs(2);
/// Strikes in a row after which a source is given up.
pub const STRIKES_MAX: u32 = 3;
/// Bytes that one source is asked for at a time, about: what a source that executes gives in less
/// than [`PATIENCE`], however many share the pace.
pub const ASKED_BYTES_MAX: u64 = 4 << 20;
/// Objects that one source is asked for piece by piece at a time: it reads each as a whole.
pub(super) const PIECES_PER_PEER_MAX: usize = 2;
/// Requests to one source at a time.
const ASKS_PER_PEER_MAX: usize = 16;

/// What a source was asked for.
#[derive(Debug)]
pub(super) enum Ask {
    Manifest,
    /// The children of nodes whose digests are known.
    Nodes {
        part: Part,
        level: u8,
        first: u32,
        expected: Vec<Digest>,
    },
    /// Objects that have not come yet, with the digests of their leaves.
    Objects {
        part: Part,
        left: BTreeMap<u32, Digest>,
    },
    /// The next piece.
    Pieces(Large),
}

#[derive(Debug)]
struct Asked {
    ask: Ask,
    bytes: u64,
    /// The tick after the source last did something about it.
    since: Option<Time>,
    /// The tick after it became the first one that the source has to answer, and what the source
    /// had given by then, in bytes.
    first: Option<(Time, u64)>,
}

#[derive(Debug, Default)]
struct Peer {
    asks: VecDeque<Asked>,
    strikes: u32,
    /// How often it took too long for a request. Nothing that it says takes that back.
    slow: u32,
    /// Bytes of objects that it gave.
    given: u64,
}

/// All sources.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<ReplicaId, Peer>,
    /// Who has lied is not asked again as long as the fetch lasts.
    liars: BTreeSet<ReplicaId>,
    /// Who is no source any more without having lied, until that is told.
    lost: Vec<ReplicaId>,
    now: Option<Time>,
}

impl Ask {
    /// The request that asks for it.
    pub(super) fn request(&self) -> StateRequest {
        match self {
            Ask::Manifest => StateRequest::Manifest,
            Ask::Nodes { part, level, first, expected } => {
                let count = u32::try_from(expected.len()).expect("at most NODES_MAX");
                StateRequest::Nodes { part: *part, level: *level, first: *first, count }
            }
            Ask::Objects { part, left } => {
                StateRequest::Objects { part: *part, objects: left.keys().copied().collect() }
            }
            Ask::Pieces(Large { part, object, bytes, .. }) => {
                let offset = bytes.len() as u64;
                StateRequest::Piece { part: *part, object: *object, offset }
            }
        }
    }
}

impl Peer {
    /// Something came to the request that `wanted` picks: those behind it have waited for that,
    /// those before it have been passed over.
    fn refresh(&mut self, wanted: impl Fn(&Ask) -> bool) -> Option<usize> {
        let index = self.asks.iter().position(|asked| wanted(&asked.ask))?;
        self.asks.range_mut(index..).for_each(|asked| asked.since = None);
        Some(index)
    }

    /// Whether the request that it has to answer first takes too long by now.
    fn is_slow(&mut self, now: Time) -> bool {
        let Some(front) = self.asks.front_mut() else { return false };
        let (first, before) = *front.first.get_or_insert((now, self.given));
        let took = now.since(first);
        match &front.ask {
            Ask::Objects { .. } => took >= SLOW,
            // Its next piece stands behind all that was asked for meanwhile: an honest source at
            // the pace of one that executes gives little of it, but enough in all.
            Ask::Pieces(_) => {
                let parts = (self.given - before) / ASKED_BYTES_MAX;
                took.0 >= SLOW.0.saturating_add(PATIENCE.0.saturating_mul(parts))
            }
            Ask::Manifest | Ask::Nodes { .. } => false,
        }
    }
}

impl Peers {
    /// Adds sources.
    pub(super) fn add(&mut self, sources: &[ReplicaId]) {
        for source in sources.iter().filter(|source| !self.liars.contains(source)) {
            self.peers.entry(*source).or_default();
        }
    }

    /// Forgets who is asked for what, and who the sources are, but not who has lied.
    pub(super) fn clear(&mut self) {
        self.peers.clear();
        self.lost.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    pub(super) fn has_lied(&self, id: ReplicaId) -> bool {
        self.liars.contains(&id)
    }

    pub(super) fn is_source(&self, id: ReplicaId) -> bool {
        self.peers.contains_key(&id)
    }

    pub(super) fn ids(&self) -> Vec<ReplicaId> {
        self.peers.keys().copied().collect()
    }

    /// Who is no source any more, since this was asked last; liars are not among them.
    pub(super) fn take_lost(&mut self) -> Vec<ReplicaId> {
        core::mem::take(&mut self.lost)
    }

    /// Those with the fewest strikes: the others are not asked for more.
    pub(super) fn best(&self) -> Vec<ReplicaId> {
        let blame = |peer: &Peer| peer.strikes.saturating_add(peer.slow);
        let least = self.peers.values().map(blame).min();
        let best = self.peers.iter().filter(|(_, peer)| Some(blame(peer)) == least);
        best.map(|(id, _)| *id).collect()
    }

    /// Whether nothing is asked for but manifests.
    pub(super) fn is_idle(&self) -> bool {
        let mut asks = self.peers.values().flat_map(|peer| &peer.asks);
        asks.all(|asked| matches!(asked.ask, Ask::Manifest))
    }

    pub(super) fn now(&self) -> Option<Time> {
        self.now
    }

    /// Whether `id` may be asked for more now.
    pub(super) fn has_room(&self, id: ReplicaId) -> bool {
        self.peers.get(&id).is_some_and(|peer| {
            let bytes: u64 = peer.asks.iter().map(|asked| asked.bytes).sum();
            peer.asks.len() < ASKS_PER_PEER_MAX && bytes < ASKED_BYTES_MAX
        })
    }

    /// `id` is asked for something worth about `bytes`.
    pub(super) fn ask(&mut self, id: ReplicaId, ask: Ask, bytes: u64) {
        let peer = self.peers.get_mut(&id).expect("only sources are asked");
        peer.asks.push_back(Asked { ask, bytes, since: None, first: None });
    }

    /// Whether `id` is asked for something that `wanted` picks.
    pub(super) fn is_asked(&self, id: ReplicaId, wanted: impl Fn(&Ask) -> bool) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.asks.iter().any(|asked| wanted(&asked.ask)))
    }

    /// The first request to `id` that `wanted` picks, to which something came.
    pub(super) fn find(
        &mut self,
        id: ReplicaId,
        wanted: impl Fn(&Ask) -> bool,
    ) -> Option<&mut Ask> {
        let index = self.peers.get_mut(&id)?.refresh(wanted)?;
        self.peers.get_mut(&id)?.asks.get_mut(index).map(|asked| &mut asked.ask)
    }

    /// The same, and takes it off.
    pub(super) fn take(&mut self, id: ReplicaId, wanted: impl Fn(&Ask) -> bool) -> Option<Ask> {
        let index = self.peers.get_mut(&id)?.refresh(wanted)?;
        self.peers.get_mut(&id)?.asks.remove(index).map(|asked| asked.ask)
    }

    /// What `id` has said was verified.
    pub(super) fn praise(&mut self, id: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.strikes = 0;
        }
    }

    /// `id` has given so many bytes of what it was asked for.
    pub(super) fn gave(&mut self, id: ReplicaId, bytes: u64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.given = peer.given.saturating_add(bytes);
        }
    }

    /// Objects in the making that come from `id`.
    pub(super) fn pieces(&self, id: ReplicaId) -> usize {
        let asks = self.peers.get(&id).into_iter().flat_map(|peer| &peer.asks);
        asks.filter(|asked| matches!(asked.ask, Ask::Pieces(_))).count()
    }

    /// Claimed bytes of all objects in the making.
    pub(super) fn buffered(&self) -> u64 {
        let asks = self.peers.values().flat_map(|peer| &peer.asks);
        let totals = asks.map(|asked| match &asked.ask {
            Ask::Pieces(large) => large.total,
            _ => 0,
        });
        totals.sum()
    }

    /// Removes a source and returns what it was asked for.
    pub(super) fn remove(&mut self, id: ReplicaId, lied: bool) -> Vec<Ask> {
        if lied {
            self.liars.insert(id);
        }
        let known = self.peers.remove(&id);
        self.lost.extend((known.is_some() && !lied).then_some(id));
        let peer = known.unwrap_or_default();
        peer.asks.into_iter().map(|asked| asked.ask).collect()
    }

    /// It is `now`: returns what has waited too long and has to be asked again elsewhere.
    pub(super) fn tick(&mut self, now: Time) -> Vec<Ask> {
        let now = self.now.map_or(now, |before| before.max(now));
        self.now = Some(now);
        let mut back = Vec::new();
        let alone = self.best().len() < 2;
        for peer in self.peers.values_mut() {
            peer.asks.iter_mut().for_each(|asked| {
                asked.since.get_or_insert(now);
            });
            let late = |asked: &Asked| asked.since.is_some_and(|t| now.since(t) >= PATIENCE);
            if peer.asks.front().is_some_and(late) {
                peer.strikes += 1;
                let (old, young) = peer.asks.drain(..).partition(late);
                peer.asks = young;
                let old: VecDeque<Asked> = old;
                back.extend(old.into_iter().map(|asked| asked.ask));
            } else if peer.is_slow(now) && !alone {
                peer.slow = peer.slow.saturating_add(1);
                let is_state =
                    |asked: &Asked| matches!(asked.ask, Ask::Objects { .. } | Ask::Pieces(_));
                let (theirs, rest) = peer.asks.drain(..).partition(is_state);
                peer.asks = rest;
                let theirs: VecDeque<Asked> = theirs;
                back.extend(theirs.into_iter().map(|asked| asked.ask));
            }
        }
        let lost = |(_, peer): &(&ReplicaId, &Peer)| peer.strikes >= STRIKES_MAX;
        let lost: Vec<ReplicaId> = self.peers.iter().filter(lost).map(|(id, _)| *id).collect();
        lost.into_iter().for_each(|id| back.extend(self.remove(id, false)));
        back
    }
}
