//! What the service holds, cut into numbered objects, and the indexes over it.
//!
//! ```text
//! object 0                      the clock
//! the next SESSION_BUCKETS      sessions, by number
//! the next SESSION_BUCKETS      watches, by the number of their session
//! the other NODE_BUCKETS        nodes, by the hash of their path
//! ```
//!
//! Indexes (children, who watches a path, ephemeral nodes of a session, what is due) follow from
//! the objects and are no part of them: they are kept up by the few functions that change an
//! object, so that a state that came from elsewhere, object by object, has them, too.
//!
//! Everything is behind locks, so that several threads execute on it. A lock protects memory and
//! is held for a moment, never two at a time; what belongs together logically, the classes of
//! operations keep apart (`footprint`).
//!
//! Invariants:
//! 1. an object is announced to the context before it is written (modify-before-write);
//! 2. the indexes are a function of the objects, whatever the order in which they came;
//! 3. the clock is written only by what executes alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::ClientId;
use exec::Context;

use super::clock::Clock;
use super::node::{Node, Owner};
use super::op::Stats;
use super::path;
use super::session::{Gateway, Session};
use super::watchers::Watchers;

/// Number of objects that sessions are shared out to.
pub const SESSION_BUCKETS: u32 = 1 << 10;
/// Number of objects that nodes are shared out to.
pub const NODE_BUCKETS: u32 = 1 << 16;
/// Number of objects.
pub const OBJECTS: u32 = 1 + 2 * SESSION_BUCKETS + NODE_BUCKETS;

/// The object of the clock.
pub(super) const CLOCK: u32 = 0;
const SESSIONS: u32 = 1;
const WATCHES: u32 = SESSIONS + SESSION_BUCKETS;
const NODES: u32 = WATCHES + SESSION_BUCKETS;

/// Objects of nodes that share a class.
const SHARD_BUCKETS: usize = 64;
/// Classes of nodes.
const SHARDS: usize = NODE_BUCKETS as usize / SHARD_BUCKETS;
/// Where classes of sessions begin.
const SESSION_CLASSES: u64 = 1 << 32;

/// How a session watches a path, as bits.
pub mod watch {
    /// Once, for the node itself.
    pub const DATA: u8 = 1;
    /// Once, for its children.
    pub const CHILD: u8 = 2;
    /// For both, until it is removed.
    pub const PERSISTENT: u8 = 4;
    /// For everything at and below it, until it is removed.
    pub const RECURSIVE: u8 = 8;
    /// All of them.
    pub const ALL: u8 = 15;
}

/// The watches of one session: how each path is watched.
pub(super) type Watches = BTreeMap<Box<str>, u8>;

/// What is known about a path.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) node: Option<Node>,
    /// Names of the children that are there.
    pub(super) children: BTreeSet<Box<str>>,
    /// Sessions that watch, ascending, and how.
    pub(super) watchers: Vec<(u64, u8)>,
    /// When it stands in `State::due`.
    pub(super) queued: Option<u64>,
}

/// The nodes of one class.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) buckets: Vec<BTreeMap<Box<str>, Slot>>,
    /// Bytes of nodes in each, as [`node_bytes`] counts them.
    pub(super) bytes: [u64; SHARD_BUCKETS],
    pub(super) watchers: Watchers,
}

/// The sessions of one class.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) sessions: BTreeMap<u64, Session>,
    /// [`Session::bytes`] of all of them.
    pub(super) remembered: usize,
    pub(super) watches: BTreeMap<u64, Watches>,
    /// Bytes of the paths that each session watches, and of all of them.
    watched_bytes: BTreeMap<u64, usize>,
    watched_bytes_in_all: usize,
    /// Ephemeral nodes by session.
    pub(super) ephemerals: BTreeMap<u64, BTreeSet<Box<str>>>,
}

impl Desk {
    /// Whether a session may watch a path of so many bytes besides, as far as bytes go: its own,
    /// and those of all sessions that share an object with it.
    fn may_watch(&self, id: u64, bytes: usize) -> bool {
        let own = self.watched_bytes.get(&id).copied().unwrap_or(0);
        own + bytes <= WATCHED_BYTES_MAX
            && self.watched_bytes_in_all + bytes <= WATCHED_BYTES_PER_OBJECT_MAX
    }

    /// Keeps count of the paths that a session watches.
    pub(super) fn set_watched_bytes(&mut self, id: u64, bytes: usize) {
        let old = match bytes {
            0 => self.watched_bytes.remove(&id),
            bytes => self.watched_bytes.insert(id, bytes),
        };
        self.watched_bytes_in_all = self.watched_bytes_in_all - old.unwrap_or(0) + bytes;
    }
}

/// What an object number means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Object {
    Clock,
    Sessions(usize),
    Watches(usize),
    Nodes(usize),
}

/// Everything.
#[derive(Debug)]
pub struct State {
    /// What the clock shows, and at which agreed time.
    clock: [AtomicU64; 2],
    desks: Vec<Mutex<Desk>>,
    pub(super) shards: Vec<Mutex<Shard>>,
    /// Sessions by when they end.
    pub(super) endings: Mutex<BTreeSet<(u64, u64)>>,
    /// Containers and nodes with a time to live by when they may go.
    pub(super) due: Mutex<BTreeSet<(u64, Box<str>)>>,
    /// Sessions with events, by gateway.
    pub(super) waiting: Mutex<BTreeMap<Gateway, BTreeSet<u64>>>,
    /// Sessions by the principal whose gateway they are attached to, or were last.
    pub(super) principals: Mutex<BTreeMap<ClientId, BTreeSet<u64>>>,
    pub(super) counts: Counts,
}

/// How much there is.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) nodes: AtomicU64,
    pub(super) ephemerals: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) watches: AtomicU64,
    pub(super) sessions: AtomicU64,
    /// Recursive watches, and those that may come to be by what is on its way.
    pub(super) recursive: AtomicU64,
    /// Watches that may come to be by what is on its way.
    pub(super) armed: AtomicU64,
}

/// What the indexes know of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) due: u64,
    /// The gateway that is to fetch its events.
    pub(super) waits: Option<Gateway>,
    pub(super) principal: ClientId,
}

impl Standing {
    pub(super) fn of(session: &Session) -> Standing {
        let waits = (!session.events.is_empty()).then_some(session.gateway);
        Standing { due: session.due(), waits, principal: session.gateway.0 }
    }
}

impl Object {
    /// What the object with this number is.
    pub(super) fn of(number: u32) -> Object {
        match number {
            CLOCK => Object::Clock,
            SESSIONS..WATCHES => Object::Sessions((number - SESSIONS) as usize),
            WATCHES..NODES => Object::Watches((number - WATCHES) as usize),
            _ => Object::Nodes((number - NODES) as usize),
        }
    }
}

/// The bucket of a session: numbers of sessions share their low bits, so the middle counts.
pub(super) fn session_bucket(session: u64) -> usize {
    let mixed = session.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize % SESSION_BUCKETS as usize
}

/// The conflict class of a session: its record, its events and its watches.
pub(super) fn session_class(session: u64) -> u64 {
    SESSION_CLASSES + session_bucket(session) as u64
}

/// The bucket of a path: its class, and more of its hash.
pub(super) fn node_bucket(path: &str) -> usize {
    let stem = path::stem(path);
    let (class, hash) = (node_class(stem), path::hash(path));
    class as usize * SHARD_BUCKETS + (hash >> 16 ^ hash >> 48) as usize % SHARD_BUCKETS
}

/// The conflict class of the nodes whose paths have this stem. Whoever aims at one class, or at
/// one bucket, slows down what is done to its own nodes, no more.
pub(super) fn node_class(stem: &str) -> u64 {
    let hash = path::hash(stem);
    (hash ^ hash >> 32) % SHARDS as u64
}

pub(super) fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panics with a lock ends the replica.
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn add(to: &AtomicU64, much: u64) {
    to.fetch_add(much, Ordering::Relaxed);
}

pub(super) fn sub(from: &AtomicU64, much: u64) {
    from.fetch_sub(much, Ordering::Relaxed);
}

/// What a node counts for in its object.
pub(super) fn node_bytes(path: &str, node: &Node) -> u64 {
    let acl: usize = node.acl.iter().map(|own| own.who.scheme.len() + own.who.id.len() + 16).sum();
    (NODE_BYTES + path.len() + node.len() + acl) as u64
}

/// Puts `id` into a set of its group's, or takes it out; groups without members are none.
pub(super) fn place<K: Ord>(
    groups: &mut BTreeMap<K, BTreeSet<u64>>,
    group: K,
    id: u64,
    is_in: bool,
) {
    if is_in {
        groups.entry(group).or_default().insert(id);
    } else if let Some(own) = groups.get_mut(&group) {
        own.remove(&id);
        if own.is_empty() {
            groups.remove(&group);
        }
    }
}

impl State {
    /// Only the nodes that are there from the beginning.
    #[must_use]
    pub fn new() -> State {
        let shard = || Shard {
            buckets: (0..SHARD_BUCKETS).map(|_| BTreeMap::new()).collect(),
            bytes: [0; SHARD_BUCKETS],
            watchers: Watchers::default(),
        };
        let state = State {
            clock: [0, 0].map(AtomicU64::new),
            desks: (0..SESSION_BUCKETS).map(|_| Mutex::default()).collect(),
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            endings: Mutex::default(),
            due: Mutex::default(),
            waiting: Mutex::default(),
            principals: Mutex::default(),
            counts: Counts::default(),
        };
        for special in path::SPECIAL {
            let perms = if special.ends_with("config") { 1 } else { 31 };
            let data = Some([].into());
            let node = Node::new(data, super::acl::open(perms), Owner::Persistent, 0, 0);
            state.swap_node(special, Some(node));
        }
        state
    }

    /// The clock.
    pub(super) fn clock(&self) -> Clock {
        let [shows, at_ms] = &self.clock;
        Clock { shows: shows.load(Ordering::Acquire), at_ms: at_ms.load(Ordering::Acquire) }
    }

    /// Sets the clock: what does so executes alone.
    pub(super) fn set_clock(&self, clock: Clock) {
        self.clock[0].store(clock.shows, Ordering::Release);
        self.clock[1].store(clock.at_ms, Ordering::Release);
    }

    /// How much there is; where that was asked is the caller's to say.
    #[must_use]
    pub fn counts(&self) -> Stats {
        let Counts { nodes, ephemerals, bytes, watches, sessions, .. } = &self.counts;
        let [nodes, ephemerals, bytes] =
            [nodes, ephemerals, bytes].map(|count| count.load(Ordering::Relaxed));
        let [watches, sessions] = [watches, sessions].map(|count| count.load(Ordering::Relaxed));
        Stats { zxid: 0, nodes, ephemerals, bytes, watches, sessions }
    }

    /// The shard that a bucket of nodes is in, and which of its buckets it is.
    pub(super) fn shard(&self, bucket: usize) -> (MutexGuard<'_, Shard>, usize) {
        (lock(&self.shards[bucket / SHARD_BUCKETS]), bucket % SHARD_BUCKETS)
    }

    /// The shard that nodes of this stem are in.
    pub(super) fn shard_of(&self, stem: &str) -> MutexGuard<'_, Shard> {
        lock(&self.shards[node_class(stem) as usize])
    }

    /// The sessions of a bucket.
    pub(super) fn desk(&self, bucket: usize) -> MutexGuard<'_, Desk> {
        lock(&self.desks[bucket])
    }

    /// Looks at what is known about a path, if anything.
    pub(super) fn look<R>(&self, path: &str, look: impl FnOnce(Option<&Slot>) -> R) -> R {
        let (shard, bucket) = self.shard(node_bucket(path));
        look(shard.buckets[bucket].get(path))
    }

    /// The node at `path`, as it is now.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<Node> {
        self.look(path, |slot| slot?.node.clone())
    }

    /// The names of the children at `path`, ascending.
    pub fn children(&self, path: &str) -> Vec<Box<str>> {
        self.look(path, |slot| slot.into_iter().flat_map(|slot| &slot.children).cloned().collect())
    }

    /// Number of children at `path`.
    #[must_use]
    pub fn child_count(&self, path: &str) -> usize {
        self.look(path, |slot| slot.map_or(0, |slot| slot.children.len()))
    }

    /// Who watches `path`, and how.
    pub(super) fn watchers(&self, path: &str) -> Vec<(u64, u8)> {
        self.look(path, |slot| slot.map_or(Vec::new(), |slot| slot.watchers.clone()))
    }

    /// The ephemeral nodes of a session.
    pub(super) fn ephemerals(&self, session: u64) -> Vec<Box<str>> {
        let desk = self.desk(session_bucket(session));
        desk.ephemerals.get(&session).into_iter().flatten().cloned().collect()
    }

    /// Puts a node in the place of what is at `path`, or takes it away; returns what was there.
    pub(super) fn replace(
        &self,
        ctx: &mut Context<'_>,
        path: &str,
        node: Option<Node>,
    ) -> Option<Node> {
        let bucket = node_bucket(path);
        ctx.writes((bucket / SHARD_BUCKETS) as u64);
        self.announce(ctx, Object::Nodes(bucket), NODES + bucket as u32);
        self.swap_node(path, node)
    }

    /// Whether the object that `path` is in takes a node of that size in the place of what is
    /// there.
    pub(super) fn fits(&self, path: &str, node: &Node) -> bool {
        let (shard, bucket) = self.shard(node_bucket(path));
        let old = shard.buckets[bucket].get(path).and_then(|slot| slot.node.as_ref());
        let old = old.map_or(0, |old| node_bytes(path, old));
        let new = node_bytes(path, node);
        new <= old || shard.bytes[bucket] - old + new <= BUCKET_BYTES_MAX
    }

    /// Sessions that are, or were last, attached to a principal's gateways.
    pub(super) fn sessions_of(&self, principal: ClientId) -> usize {
        lock(&self.principals).get(&principal).map_or(0, BTreeSet::len)
    }

    /// The session, as it is now.
    #[must_use]
    pub fn session(&self, session: u64) -> Option<Session> {
        self.look_session(session, |session| session.cloned())
    }

    /// Looks at a session.
    pub(super) fn look_session<R>(&self, id: u64, look: impl FnOnce(Option<&Session>) -> R) -> R {
        look(self.desk(session_bucket(id)).sessions.get(&id))
    }

    /// Bytes that the sessions of a session's object may still remember, all together.
    pub(super) fn left_to_remember(&self, id: u64) -> usize {
        let remembered = self.desk(session_bucket(id)).remembered;
        REMEMBERED_BYTES_PER_OBJECT_MAX.saturating_sub(remembered)
    }

    /// Announces a session's object and has it changed.
    pub(super) fn with_session<R>(
        &self,
        ctx: &mut Context<'_>,
        id: u64,
        act: impl FnOnce(&mut Session) -> R,
    ) -> Option<R> {
        self.look_session(id, |session| session.is_some()).then_some(())?;
        self.mark_sessions(ctx, id);
        let (result, before, after) = {
            let mut desk = self.desk(session_bucket(id));
            let session = desk.sessions.get_mut(&id)?;
            let (before, bytes) = (Standing::of(session), session.bytes());
            let result = act(session);
            let (after, more) = (Standing::of(session), session.bytes());
            desk.remembered = desk.remembered - bytes + more;
            (result, before, after)
        };
        self.index_session(id, Some(before), Some(after));
        Some(result)
    }

    /// Puts a session in the place of what there is of that number, or takes it away.
    pub(super) fn put_session(&self, ctx: &mut Context<'_>, id: u64, session: Option<Session>) {
        self.mark_sessions(ctx, id);
        self.swap_session(id, session);
    }

    fn mark_sessions(&self, ctx: &mut Context<'_>, id: u64) {
        let bucket = session_bucket(id);
        ctx.writes(session_class(id));
        self.announce(ctx, Object::Sessions(bucket), SESSIONS + bucket as u32);
    }

    fn mark_watches(&self, ctx: &mut Context<'_>, id: u64) {
        let bucket = session_bucket(id);
        ctx.writes(session_class(id));
        self.announce(ctx, Object::Watches(bucket), WATCHES + bucket as u32);
    }

    fn announce(&self, ctx: &mut Context<'_>, object: Object, number: u32) {
        if ctx.wants_digest(number) {
            // Long data has its digest by itself.
            ctx.digest(number, self.digest(object));
        }
        ctx.modify(number, |out| self.encode(object, out));
    }

    /// Adds ways in which a session watches a path; false when it watches too much.
    pub(super) fn watch(&self, ctx: &mut Context<'_>, id: u64, path: &str, ways: u8) -> bool {
        let (before, fits) = {
            let desk = self.desk(session_bucket(id));
            let own = desk.watches.get(&id);
            let before = own.and_then(|own| own.get(path)).copied().unwrap_or(0);
            let few = own.map_or(0, Watches::len) < WATCHES_MAX;
            (before, few && desk.may_watch(id, path.len()))
        };
        if before | ways == before {
            return true;
        }
        if before == 0 && !fits {
            return false;
        }
        self.set_ways(ctx, id, path, before | ways);
        true
    }

    /// Takes away ways in which a session watches a path; returns those that there were.
    pub(super) fn unwatch(&self, ctx: &mut Context<'_>, id: u64, path: &str, ways: u8) -> u8 {
        let before = self.ways(id, path);
        if before & ways != 0 {
            self.set_ways(ctx, id, path, before & !ways);
        }
        before & ways
    }

    /// Takes away all watches of a session.
    pub(super) fn unwatch_all(&self, ctx: &mut Context<'_>, id: u64) {
        let any = self.desk(session_bucket(id)).watches.contains_key(&id);
        if any {
            self.mark_watches(ctx, id);
            self.swap_watches(id, None);
        }
    }

    /// How a session watches a path.
    pub(super) fn ways(&self, id: u64, path: &str) -> u8 {
        let desk = self.desk(session_bucket(id));
        desk.watches.get(&id).and_then(|own| own.get(path)).copied().unwrap_or(0)
    }

    /// The session that ends first and when.
    pub(super) fn next_ending(&self) -> Option<(u64, u64)> {
        lock(&self.endings).first().copied()
    }

    /// The node that may go first and when.
    pub(super) fn next_due(&self) -> Option<(u64, Box<str>)> {
        lock(&self.due).first().cloned()
    }

    /// Whether sessions end, or nodes go, by themselves.
    pub(super) fn is_timed(&self) -> bool {
        !lock(&self.endings).is_empty() || !lock(&self.due).is_empty()
    }

    /// The sessions attached to a gateway that have events.
    pub(super) fn waiting(&self, gateway: Gateway) -> Vec<u64> {
        lock(&self.waiting).get(&gateway).into_iter().flatten().copied().collect()
    }

    /// Recursive watches that there are, or may be by what is on its way.
    pub(super) fn recursive(&self) -> u64 {
        self.counts.recursive.load(Ordering::Acquire)
    }

    /// Whether operations on their way may set watches.
    pub(super) fn is_armed(&self) -> bool {
        self.counts.armed.load(Ordering::Acquire) > 0
    }

    fn set_ways(&self, ctx: &mut Context<'_>, id: u64, path: &str, ways: u8) {
        self.mark_watches(ctx, id);
        {
            let mut desk = self.desk(session_bucket(id));
            let own = desk.watches.entry(id).or_default();
            let (was, is) = match ways {
                0 => (own.remove(path).is_some(), false),
                ways => (own.insert(path.into(), ways).is_some(), true),
            };
            if own.is_empty() {
                desk.watches.remove(&id);
            }
            let bytes = desk.watched_bytes.get(&id).copied().unwrap_or(0);
            let bytes = bytes + usize::from(is) * path.len() - usize::from(was) * path.len();
            desk.set_watched_bytes(id, bytes);
        }
        self.index_watch(id, path, ways);
    }
}

/// Most paths that one session watches.
const WATCHES_MAX: usize = 1 << 17;
/// Most bytes of these paths.
const WATCHED_BYTES_MAX: usize = 16 << 20;
/// Most bytes of the paths that the sessions of one object watch: somebody who aims at one must not
/// make it larger than state transfer carries.
const WATCHED_BYTES_PER_OBJECT_MAX: usize = if cfg!(test) { 20 << 20 } else { 256 << 20 };
/// Most bytes of events and proved ids that the sessions of one object remember.
const REMEMBERED_BYTES_PER_OBJECT_MAX: usize = if cfg!(test) { 2 << 20 } else { 256 << 20 };
/// What a node takes in its object besides its path, its data and its ACL.
const NODE_BYTES: usize = 96;
/// Most bytes of nodes in one object: state transfer carries objects of several times that.
const BUCKET_BYTES_MAX: u64 = if cfg!(test) { 4 << 20 } else { 256 << 20 };

impl Default for State {
    fn default() -> State {
        State::new()
    }
}
