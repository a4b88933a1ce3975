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
//! Invariants:
//! 1. an object is announced to the context before it is written (modify-before-write);
//! 2. the indexes are a function of the objects, whatever the order in which they came.

use std::collections::{BTreeMap, BTreeSet};

use exec::Context;

use super::clock::Clock;
use super::node::{Node, Owner};
use super::op::Stats;
use super::path;
use super::session::{Gateway, Session};

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
    queued: Option<u64>,
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
    pub(super) clock: Clock,
    pub(super) sessions: Vec<BTreeMap<u64, Session>>,
    pub(super) watches: Vec<BTreeMap<u64, Watches>>,
    pub(super) slots: Vec<BTreeMap<Box<str>, Slot>>,
    /// Ephemeral nodes by session.
    ephemerals: BTreeMap<u64, BTreeSet<Box<str>>>,
    /// Sessions by when they end.
    endings: BTreeSet<(u64, u64)>,
    /// Containers and nodes with a time to live by when they may go.
    due: BTreeSet<(u64, Box<str>)>,
    /// Sessions with events, by gateway.
    waiting: BTreeMap<Gateway, BTreeSet<u64>>,
    /// `watches`, `nodes`, `bytes`, `sessions` and `ephemerals` count.
    pub(super) counts: Stats,
    /// Recursive watches.
    pub(super) recursive: u64,
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

/// The bucket of a path, by FNV-1a. Whoever aims at one bucket slows the digest of its own nodes
/// down, no more.
pub(super) fn node_bucket(path: &str) -> usize {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = path.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    ((hash ^ hash >> 32) as usize) % NODE_BUCKETS as usize
}

impl State {
    /// Only the nodes that are there from the beginning.
    #[must_use]
    pub fn new() -> State {
        let mut state = State {
            clock: Clock::default(),
            sessions: (0..SESSION_BUCKETS).map(|_| BTreeMap::new()).collect(),
            watches: (0..SESSION_BUCKETS).map(|_| BTreeMap::new()).collect(),
            slots: (0..NODE_BUCKETS).map(|_| BTreeMap::new()).collect(),
            ephemerals: BTreeMap::new(),
            endings: BTreeSet::new(),
            due: BTreeSet::new(),
            waiting: BTreeMap::new(),
            counts: Stats::default(),
            recursive: 0,
        };
        for special in path::SPECIAL {
            let perms = if special.ends_with("config") { 1 } else { 31 };
            let data = Some([].into());
            let node = Node::new(data, super::acl::open(perms), Owner::Persistent, 0, 0);
            state.swap_node(special, Some(node));
        }
        state
    }

    /// What is known about a path, if anything.
    pub(super) fn slot(&self, path: &str) -> Option<&Slot> {
        self.slots[node_bucket(path)].get(path)
    }

    /// The node at `path`.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<&Node> {
        self.slot(path)?.node.as_ref()
    }

    /// The names of the children at `path`, ascending.
    pub fn children(&self, path: &str) -> impl Iterator<Item = &str> {
        self.slot(path).into_iter().flat_map(|slot| &slot.children).map(|name| &**name)
    }

    /// Number of children at `path`.
    #[must_use]
    pub fn child_count(&self, path: &str) -> usize {
        self.slot(path).map_or(0, |slot| slot.children.len())
    }

    /// The ephemeral nodes of a session.
    pub(super) fn ephemerals(&self, session: u64) -> impl Iterator<Item = &str> {
        self.ephemerals.get(&session).into_iter().flatten().map(|path| &**path)
    }

    /// Puts a node in the place of what is at `path`, or takes it away; returns what was there.
    pub(super) fn replace(
        &mut self,
        ctx: &mut Context<'_>,
        path: &str,
        node: Option<Node>,
    ) -> Option<Node> {
        self.mark_nodes(ctx, node_bucket(path));
        self.swap_node(path, node)
    }

    /// The session.
    #[must_use]
    pub fn session(&self, session: u64) -> Option<&Session> {
        self.sessions[session_bucket(session)].get(&session)
    }

    /// Announces a session's object and has it changed.
    pub(super) fn with_session<R>(
        &mut self,
        ctx: &mut Context<'_>,
        id: u64,
        act: impl FnOnce(&mut Session) -> R,
    ) -> Option<R> {
        let bucket = session_bucket(id);
        self.sessions[bucket].get(&id)?;
        ctx.modify(SESSIONS + bucket as u32, |out| self.encode(Object::Sessions(bucket), out));
        self.unindex_session(id);
        let result = self.sessions[bucket].get_mut(&id).map(act);
        self.index_session(id);
        result
    }

    /// The session was given a response.
    pub(super) fn count_response(&mut self, ctx: &mut Context<'_>, id: u64) {
        let bucket = session_bucket(id);
        if self.sessions[bucket].contains_key(&id) {
            ctx.modify(SESSIONS + bucket as u32, |out| self.encode(Object::Sessions(bucket), out));
            // No index is over it.
            self.sessions[bucket].entry(id).and_modify(|session| session.told += 1);
        }
    }

    /// Puts a session in the place of what there is of that number, or takes it away.
    pub(super) fn put_session(&mut self, ctx: &mut Context<'_>, id: u64, session: Option<Session>) {
        let bucket = session_bucket(id);
        ctx.modify(SESSIONS + bucket as u32, |out| self.encode(Object::Sessions(bucket), out));
        self.swap_session(id, session);
    }

    /// Adds ways in which a session watches a path; false when it watches too much.
    pub(super) fn watch(&mut self, ctx: &mut Context<'_>, id: u64, path: &str, ways: u8) -> bool {
        let before = self.ways(id, path);
        if before | ways == before {
            return true;
        }
        let own = self.watches[session_bucket(id)].get(&id).map_or(0, Watches::len);
        if before == 0 && own >= WATCHES_MAX {
            return false;
        }
        self.set_ways(ctx, id, path, before | ways);
        true
    }

    /// Takes away ways in which a session watches a path; returns those that there were.
    pub(super) fn unwatch(&mut self, ctx: &mut Context<'_>, id: u64, path: &str, ways: u8) -> u8 {
        let before = self.ways(id, path);
        if before & ways != 0 {
            self.set_ways(ctx, id, path, before & !ways);
        }
        before & ways
    }

    /// Takes away all watches of a session.
    pub(super) fn unwatch_all(&mut self, ctx: &mut Context<'_>, id: u64) {
        let bucket = session_bucket(id);
        if self.watches[bucket].contains_key(&id) {
            ctx.modify(WATCHES + bucket as u32, |out| self.encode(Object::Watches(bucket), out));
            self.swap_watches(id, None);
        }
    }

    /// How a session watches a path.
    pub(super) fn ways(&self, id: u64, path: &str) -> u8 {
        let own = self.watches[session_bucket(id)].get(&id);
        own.and_then(|own| own.get(path)).copied().unwrap_or(0)
    }

    /// The session that ends first and when.
    pub(super) fn next_ending(&self) -> Option<(u64, u64)> {
        self.endings.first().copied()
    }

    /// The node that may go first and when.
    pub(super) fn next_due(&self) -> Option<(u64, &str)> {
        self.due.first().map(|(when, path)| (*when, &**path))
    }

    /// The sessions attached to a gateway that have events.
    pub(super) fn waiting(&self, gateway: Gateway) -> impl Iterator<Item = u64> {
        self.waiting.get(&gateway).into_iter().flatten().copied()
    }

    fn set_ways(&mut self, ctx: &mut Context<'_>, id: u64, path: &str, ways: u8) {
        let bucket = session_bucket(id);
        ctx.modify(WATCHES + bucket as u32, |out| self.encode(Object::Watches(bucket), out));
        let own = self.watches[bucket].entry(id).or_default();
        if ways == 0 {
            own.remove(path);
        } else {
            own.insert(path.into(), ways);
        }
        if own.is_empty() {
            self.watches[bucket].remove(&id);
        }
        self.index_watch(id, path, ways);
    }

    fn mark_nodes(&self, ctx: &mut Context<'_>, bucket: usize) {
        ctx.modify(NODES + bucket as u32, |out| self.encode(Object::Nodes(bucket), out));
    }

    /// Replaces a node and keeps the indexes up.
    pub(super) fn swap_node(&mut self, path: &str, node: Option<Node>) -> Option<Node> {
        let (is, bucket) = (node.is_some(), node_bucket(path));
        if let Some(Owner::Session(session)) = node.as_ref().map(Node::owner) {
            self.counts.ephemerals += 1;
            self.ephemerals.entry(session).or_default().insert(path.into());
        }
        self.counts.nodes += u64::from(is);
        self.counts.bytes += node.as_ref().map_or(0, |node| (node.len() + path.len()) as u64);
        let slot = self.slots[bucket].entry(path.into()).or_default();
        let old = std::mem::replace(&mut slot.node, node);
        self.counts.nodes -= u64::from(old.is_some());
        self.counts.bytes -= old.as_ref().map_or(0, |node| (node.len() + path.len()) as u64);
        if let Some(Owner::Session(session)) = old.as_ref().map(Node::owner) {
            self.counts.ephemerals -= 1;
            let kept = self.node(path).map(Node::owner) == Some(Owner::Session(session));
            if !kept && let Some(own) = self.ephemerals.get_mut(&session) {
                own.remove(path);
                if own.is_empty() {
                    self.ephemerals.remove(&session);
                }
            }
        }
        if path != path::ROOT && old.is_some() != is {
            let up = path::parent(path);
            let siblings = &mut self.slots[node_bucket(up)].entry(up.into()).or_default().children;
            if is {
                siblings.insert(path::name(path).into());
            } else {
                siblings.remove(path::name(path));
            }
            self.requeue(up);
        }
        self.requeue(path);
        old
    }

    /// Keeps `due` up after a change at `path`, and forgets a path that nothing is known about.
    fn requeue(&mut self, path: &str) {
        let bucket = node_bucket(path);
        let Some(slot) = self.slots[bucket].get_mut(path) else { return };
        let goes = |node: &Node| (node.due != 0 && slot.children.is_empty()).then_some(node.due);
        let due = slot.node.as_ref().and_then(goes);
        let before = std::mem::replace(&mut slot.queued, due);
        let known = slot.node.is_some() || !slot.children.is_empty() || !slot.watchers.is_empty();
        if before != due {
            before.map(|when| self.due.remove(&(when, Box::from(path))));
            due.map(|when| self.due.insert((when, path.into())));
        }
        if !known {
            self.slots[bucket].remove(path);
        }
    }

    fn swap_session(&mut self, id: u64, session: Option<Session>) {
        self.unindex_session(id);
        let bucket = &mut self.sessions[session_bucket(id)];
        let is = session.is_some();
        let old = match session {
            Some(session) => bucket.insert(id, session),
            None => bucket.remove(&id),
        };
        self.counts.sessions = self.counts.sessions + u64::from(is) - u64::from(old.is_some());
        self.index_session(id);
    }

    fn index_session(&mut self, id: u64) {
        let Some(session) = self.sessions[session_bucket(id)].get(&id) else { return };
        self.endings.insert((session.due(), id));
        if !session.events.is_empty() {
            self.waiting.entry(session.gateway).or_default().insert(id);
        }
    }

    fn unindex_session(&mut self, id: u64) {
        let Some(session) = self.sessions[session_bucket(id)].get(&id) else { return };
        self.endings.remove(&(session.due(), id));
        if let Some(own) = self.waiting.get_mut(&session.gateway) {
            own.remove(&id);
            if own.is_empty() {
                self.waiting.remove(&session.gateway);
            }
        }
    }

    fn swap_watches(&mut self, id: u64, watches: Option<Watches>) {
        let bucket = &mut self.watches[session_bucket(id)];
        let old = bucket.remove(&id).unwrap_or_default();
        for path in old.keys() {
            self.index_watch(id, path, 0);
        }
        let Some(watches) = watches.filter(|watches| !watches.is_empty()) else { return };
        for (path, ways) in &watches {
            self.index_watch(id, path, *ways);
        }
        self.watches[session_bucket(id)].insert(id, watches);
    }

    /// Keeps up who watches `path`.
    fn index_watch(&mut self, id: u64, path: &str, ways: u8) {
        let slot = self.slots[node_bucket(path)].entry(path.into()).or_default();
        let at = slot.watchers.binary_search_by_key(&id, |(id, _)| *id);
        let before = at.map_or(0, |at| slot.watchers[at].1);
        match (at, ways) {
            (Ok(at), 0) => drop(slot.watchers.remove(at)),
            (Ok(at), ways) => slot.watchers[at].1 = ways,
            (Err(_), 0) => {}
            (Err(at), ways) => slot.watchers.insert(at, (id, ways)),
        }
        let recursive = |ways: u8| u64::from(ways & watch::RECURSIVE != 0);
        let count = |ways: u8| u64::from(ways.count_ones());
        self.recursive = self.recursive + recursive(ways) - recursive(before);
        self.counts.watches = self.counts.watches + count(ways) - count(before);
        self.requeue(path);
    }

    /// Replaces a bucket of sessions and keeps the indexes up.
    pub(super) fn load_sessions(&mut self, bucket: usize, new: BTreeMap<u64, Session>) {
        let old: Vec<u64> = self.sessions[bucket].keys().copied().collect();
        old.into_iter().for_each(|id| self.swap_session(id, None));
        new.into_iter().for_each(|(id, session)| self.swap_session(id, Some(session)));
    }

    /// Replaces a bucket of watches and keeps the indexes up.
    pub(super) fn load_watches(&mut self, bucket: usize, new: BTreeMap<u64, Watches>) {
        let old: Vec<u64> = self.watches[bucket].keys().copied().collect();
        old.into_iter().for_each(|id| self.swap_watches(id, None));
        new.into_iter().for_each(|(id, watches)| self.swap_watches(id, Some(watches)));
    }

    /// Replaces a bucket of nodes and keeps the indexes up.
    pub(super) fn load_nodes(&mut self, bucket: usize, new: BTreeMap<Box<str>, Node>) {
        let slots = self.slots[bucket].iter();
        let nodes = slots.filter(|(_, slot)| slot.node.is_some());
        let old: Vec<Box<str>> = nodes.map(|(path, _)| path.clone()).collect();
        old.into_iter().for_each(|path| drop(self.swap_node(&path, None)));
        new.into_iter().for_each(|(path, node)| drop(self.swap_node(&path, Some(node))));
    }
}

/// Most paths that one session watches.
const WATCHES_MAX: usize = 1 << 17;

impl Default for State {
    fn default() -> State {
        State::new()
    }
}
