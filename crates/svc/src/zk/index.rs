//! The indexes over the objects, and the few functions that change an object and keep them up.

use std::collections::BTreeMap;

use super::node::{Node, Owner};
use super::path;
use super::session::Session;
use super::state::{
    Standing, State, Watches, add, lock, node_bucket, node_bytes, place, session_bucket, sub, watch,
};
use super::watchers::Reach;

impl State {
    /// Replaces a node and keeps the indexes up.
    pub(super) fn swap_node(&self, path: &str, node: Option<Node>) -> Option<Node> {
        let is = node.is_some();
        let session = |node: Option<&Node>| match node.map(Node::owner) {
            Some(Owner::Session(session)) => Some(session),
            _ => None,
        };
        let bytes = |node: &Node| (node.len() + path.len()) as u64;
        let owner = session(node.as_ref());
        if let Some(owner) = owner {
            add(&self.counts.ephemerals, 1);
            let mut desk = self.desk(session_bucket(owner));
            desk.ephemerals.entry(owner).or_default().insert(path.into());
        }
        add(&self.counts.nodes, u64::from(is));
        add(&self.counts.bytes, node.as_ref().map_or(0, bytes));
        let old = {
            let (mut shard, bucket) = self.shard(node_bucket(path));
            let new = node.as_ref().map_or(0, |node| node_bytes(path, node));
            let slot = shard.buckets[bucket].entry(path.into()).or_default();
            let old = std::mem::replace(&mut slot.node, node);
            let gone = old.as_ref().map_or(0, |old| node_bytes(path, old));
            shard.bytes[bucket] = shard.bytes[bucket] + new - gone;
            old
        };
        sub(&self.counts.nodes, u64::from(old.is_some()));
        sub(&self.counts.bytes, old.as_ref().map_or(0, bytes));
        if let Some(before) = session(old.as_ref()) {
            sub(&self.counts.ephemerals, 1);
            if owner != Some(before) {
                self.forget_ephemeral(before, path);
            }
        }
        if path != path::ROOT && old.is_some() != is {
            let up = path::parent(path);
            {
                let (mut shard, bucket) = self.shard(node_bucket(up));
                let siblings = &mut shard.buckets[bucket].entry(up.into()).or_default().children;
                if is {
                    siblings.insert(path::name(path).into());
                } else {
                    siblings.remove(path::name(path));
                }
            }
            self.requeue(up);
        }
        self.requeue(path);
        old
    }

    fn forget_ephemeral(&self, session: u64, path: &str) {
        let mut desk = self.desk(session_bucket(session));
        if let Some(own) = desk.ephemerals.get_mut(&session) {
            own.remove(path);
            if own.is_empty() {
                desk.ephemerals.remove(&session);
            }
        }
    }

    /// Keeps `due` up after a change at `path`, and forgets a path that nothing is known about.
    fn requeue(&self, path: &str) {
        let (before, due) = {
            let (mut shard, bucket) = self.shard(node_bucket(path));
            let Some(slot) = shard.buckets[bucket].get_mut(path) else { return };
            let goes =
                |node: &Node| (node.due != 0 && slot.children.is_empty()).then_some(node.due);
            let due = slot.node.as_ref().and_then(goes);
            let before = std::mem::replace(&mut slot.queued, due);
            let known =
                slot.node.is_some() || !slot.children.is_empty() || !slot.watchers.is_empty();
            if !known {
                shard.buckets[bucket].remove(path);
            }
            (before, due)
        };
        if before != due {
            let mut all = lock(&self.due);
            before.map(|when| all.remove(&(when, Box::from(path))));
            due.map(|when| all.insert((when, path.into())));
        }
    }

    pub(super) fn swap_session(&self, id: u64, session: Option<Session>) {
        let after = session.as_ref().map(Standing::of);
        let old = {
            let mut desk = self.desk(session_bucket(id));
            desk.remembered += session.as_ref().map_or(0, Session::bytes);
            let old = match session {
                Some(session) => desk.sessions.insert(id, session),
                None => desk.sessions.remove(&id),
            };
            desk.remembered -= old.as_ref().map_or(0, Session::bytes);
            old
        };
        add(&self.counts.sessions, u64::from(after.is_some()));
        sub(&self.counts.sessions, u64::from(old.is_some()));
        self.index_session(id, old.as_ref().map(Standing::of), after);
    }

    /// Keeps up when sessions end and who has events, where a session has changed.
    pub(super) fn index_session(&self, id: u64, old: Option<Standing>, new: Option<Standing>) {
        let (before, after) = (old.map(|old| old.due), new.map(|new| new.due));
        if before != after {
            let mut endings = lock(&self.endings);
            before.map(|when| endings.remove(&(when, id)));
            after.map(|when| endings.insert((when, id)));
        }
        let (before, after) = (old.map(|old| old.principal), new.map(|new| new.principal));
        if before != after {
            let mut principals = lock(&self.principals);
            before.into_iter().for_each(|one| place(&mut principals, one, id, false));
            after.into_iter().for_each(|one| place(&mut principals, one, id, true));
        }
        let (before, after) = (old.and_then(|old| old.waits), new.and_then(|new| new.waits));
        if before != after {
            let mut waiting = lock(&self.waiting);
            before.into_iter().for_each(|gateway| place(&mut waiting, gateway, id, false));
            after.into_iter().for_each(|gateway| place(&mut waiting, gateway, id, true));
        }
    }

    pub(super) fn swap_watches(&self, id: u64, watches: Option<Watches>) {
        let bucket = session_bucket(id);
        let old = {
            let mut desk = self.desk(bucket);
            desk.set_watched_bytes(id, 0);
            desk.watches.remove(&id).unwrap_or_default()
        };
        for path in old.keys() {
            self.index_watch(id, path, 0);
        }
        let Some(watches) = watches.filter(|watches| !watches.is_empty()) else { return };
        for (path, ways) in &watches {
            self.index_watch(id, path, *ways);
        }
        let mut desk = self.desk(bucket);
        desk.set_watched_bytes(id, watches.keys().map(|path| path.len()).sum());
        desk.watches.insert(id, watches);
    }

    /// Keeps up who watches `path`.
    pub(super) fn index_watch(&self, id: u64, path: &str, ways: u8) {
        let deep = |ways: u8| ways & watch::RECURSIVE != 0;
        let before = {
            let (mut shard, bucket) = self.shard(node_bucket(path));
            let slot = shard.buckets[bucket].entry(path.into()).or_default();
            let at = slot.watchers.binary_search_by_key(&id, |(id, _)| *id);
            let before = at.map_or(0, |at| slot.watchers[at].1);
            match (at, ways) {
                (Ok(at), 0) => drop(slot.watchers.remove(at)),
                (Ok(at), ways) => slot.watchers[at].1 = ways,
                (Err(_), 0) => {}
                (Err(at), ways) => slot.watchers.insert(at, (id, ways)),
            }
            let key = path::hash(path::stem(path));
            if (before == 0) != (ways == 0) {
                shard.watchers.set(key, id, Reach::Any, ways != 0);
            }
            if deep(before) != deep(ways) {
                shard.watchers.set(key, id, Reach::Deep, deep(ways));
            }
            before
        };
        let count = |ways: u8| u64::from(ways.count_ones());
        add(&self.counts.recursive, u64::from(deep(ways)));
        sub(&self.counts.recursive, u64::from(deep(before)));
        add(&self.counts.watches, count(ways));
        sub(&self.counts.watches, count(before));
        self.requeue(path);
    }

    /// An operation that may make a session watch `path` is on its way, or done.
    pub(super) fn arm(&self, id: u64, path: &str, reach: Reach, is: bool) {
        let (mut shard, _) = self.shard(node_bucket(path));
        if !shard.watchers.arm(path::hash(path::stem(path)), id, reach, is) {
            return;
        }
        let counts = [&self.counts.armed, &self.counts.recursive];
        for count in &counts[..if reach == Reach::Deep { 2 } else { 1 }] {
            if is { add(count, 1) } else { sub(count, 1) }
        }
    }

    /// Nothing that may set a watch is on its way.
    pub(super) fn disarm_all(&self) {
        if !self.is_armed() {
            return;
        }
        for shard in &self.shards {
            let [any, deep] = lock(shard).watchers.disarm_all();
            sub(&self.counts.armed, any + deep);
            sub(&self.counts.recursive, deep);
        }
    }

    /// Replaces a bucket of sessions and keeps the indexes up.
    pub(super) fn load_sessions(&self, bucket: usize, new: BTreeMap<u64, Session>) {
        let old: Vec<u64> = self.desk(bucket).sessions.keys().copied().collect();
        old.into_iter().for_each(|id| self.swap_session(id, None));
        new.into_iter().for_each(|(id, session)| self.swap_session(id, Some(session)));
    }

    /// Replaces a bucket of watches and keeps the indexes up.
    pub(super) fn load_watches(&self, bucket: usize, new: BTreeMap<u64, Watches>) {
        let old: Vec<u64> = self.desk(bucket).watches.keys().copied().collect();
        old.into_iter().for_each(|id| self.swap_watches(id, None));
        new.into_iter().for_each(|(id, watches)| self.swap_watches(id, Some(watches)));
    }

    /// Replaces a bucket of nodes and keeps the indexes up.
    pub(super) fn load_nodes(&self, bucket: usize, new: BTreeMap<Box<str>, Node>) {
        let old: Vec<Box<str>> = {
            let (shard, bucket) = self.shard(bucket);
            let slots = shard.buckets[bucket].iter();
            slots.filter(|(_, slot)| slot.node.is_some()).map(|(path, _)| path.clone()).collect()
        };
        old.into_iter().for_each(|path| drop(self.swap_node(&path, None)));
        new.into_iter().for_each(|(path, node)| drop(self.swap_node(&path, Some(node))));
    }
}
