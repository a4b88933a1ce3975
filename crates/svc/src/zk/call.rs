//! One request in execution: the tree's writes, and the watches that they fire.
//!
//! A write is made at once and remembered with what it replaced, so that a multi of which a part
//! fails can take everything back; watches fire when all of it has succeeded, in the order of the
//! writes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::AgreedTime;
use exec::{Context, Output};

use super::acl::{self, Acl, Entry, Id, perms};
use super::error::ZkError;
use super::jute::PATH_BYTES_MAX;
use super::node::{self, CONTAINER, Node, Owner, TTL_MAX_MS};
use super::op::Event;
use super::path;
use super::session::Session;
use super::state::{State, node_class, watch};

/// How long a container stays after its last child was deleted, in ms of the session clock.
pub const CONTAINER_SPAN_MS: u64 = 60_000;

/// ZooKeeper's numbers of events.
pub mod event {
    /// A node was created.
    pub const CREATED: u8 = 1;
    /// A node was deleted.
    pub const DELETED: u8 = 2;
    /// A node's data were written.
    pub const CHANGED: u8 = 3;
    /// A child was created or deleted.
    pub const CHILDREN: u8 = 4;
}

/// What happened to a node, and the ACLs that say who may learn of it.
enum Change {
    Created { path: Box<str>, acl: Acl, parent: Acl },
    Deleted { path: Box<str>, acl: Acl, parent: Acl },
    Written { path: Box<str>, acl: Acl },
}

/// Most watches that are looked at for one request, or what the service does by itself, before
/// those who have them are cut off instead of being told: thousands of changes in one multi, each
/// of which thousands of sessions watch, would stop every replica.
const WATCHES_MAX: usize = if cfg!(test) { 1 << 12 } else { 1 << 20 };

/// Comparisons of entries with what a client has proved that count as much as a look at a watch.
const FEW_COMPARISONS: usize = 16;

/// A request in execution.
pub(super) struct Call<'a, 'c> {
    pub(super) state: &'a State,
    pub(super) ctx: &'a mut Context<'c>,
    /// The session that asks; 0 when the service acts by itself.
    pub(super) session: u64,
    /// What its connection has proved to be.
    pub(super) proved: Vec<Id>,
    changes: Vec<Change>,
    /// What each write replaced, oldest first.
    replaced: Vec<(Box<str>, Option<Node>)>,
    /// Classes of nodes that were looked at, where somebody wants to know.
    seen: RefCell<Vec<u64>>,
    /// What ACLs that take long to look through let the client do: a multi may be about one of
    /// them in thousands of its parts. They are kept alive, so that each is known by its place.
    judged: RefCell<BTreeMap<(usize, i32), (Acl, bool)>>,
    /// Watches that were looked at, for all changes together.
    watches: usize,
}

/// How a node is created.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    pub(super) owner: Owner,
    pub(super) sequential: bool,
}

/// Operations of a batch that have numbers of their own: more than a batch of a leader that does
/// as it should. Whatever comes behind them is not executed.
pub(super) const NUMBERED: u32 = 1 << 23;

/// The number of the operation in the total order, as a zxid.
pub(super) fn zxid(ctx: &Context<'_>) -> i64 {
    (ctx.seq.0 << 23 | u64::from(ctx.index % NUMBERED)).cast_signed()
}

/// Whether these flags of a request to create ask for a suffix.
pub(super) fn is_sequential(flags: i32) -> bool {
    matches!(flags, 2 | 3 | 6)
}

impl Mode {
    /// What a request to create says by its type and flags.
    pub(super) fn of(kind: i32, flags: i32, ttl: i64, session: u64) -> Result<Mode, ZkError> {
        let sequential = is_sequential(flags);
        let ttl_flags = matches!(flags, 5 | 6);
        let ttl_fits = if ttl_flags { (1..=TTL_MAX_MS).contains(&ttl) } else { ttl < 0 };
        if !(0..=6).contains(&flags) || !ttl_fits {
            return Err(ZkError::BadArguments);
        }
        let owner = match (kind, flags) {
            (super::kind::CREATE_CONTAINER, _) => Owner::Container,
            (super::kind::CREATE_TTL, 5 | 6) => Owner::Ttl(ttl.cast_unsigned()),
            (_, 1 | 3) => Owner::Session(session),
            _ => Owner::Persistent,
        };
        Ok(Mode { owner, sequential })
    }
}

impl<'a, 'c> Call<'a, 'c> {
    pub(super) fn new(state: &'a State, ctx: &'a mut Context<'c>, session: u64) -> Self {
        let ids = |session: Option<&Session>| session.map_or(Vec::new(), |own| own.proved.clone());
        let proved = state.look_session(session, ids);
        let (changes, replaced, seen) = (Vec::new(), Vec::new(), RefCell::default());
        let judged = RefCell::default();
        Call { state, ctx, session, proved, changes, replaced, seen, judged, watches: 0 }
    }

    /// Whether `acl` lets the client do all or some of `wanted`.
    pub(super) fn lets(&self, acl: &Acl, wanted: i32) -> bool {
        let check = || acl::check(acl, wanted, &self.proved).is_ok();
        if acl::comparisons(acl, &self.proved) <= FEW_COMPARISONS {
            return check();
        }
        let key = (Arc::as_ptr(acl).cast::<Entry>() as usize, wanted);
        self.judged.borrow_mut().entry(key).or_insert_with(|| (Arc::clone(acl), check())).1
    }

    /// Remembers that what is known about `path` was looked at.
    pub(super) fn see(&self, path: &str) {
        if self.ctx.is_watched() {
            self.seen.borrow_mut().push(node_class(path::stem(path)));
        }
    }

    /// Tells what was looked at.
    pub(super) fn confess(&mut self) {
        self.seen.take().into_iter().for_each(|class| self.ctx.reads(class));
    }

    pub(super) fn zxid(&self) -> i64 {
        zxid(self.ctx)
    }

    /// What the session clock shows.
    fn shows(&self) -> u64 {
        self.state.clock().shows_at(self.now_ms())
    }

    fn now_ms(&self) -> u64 {
        self.ctx.time.as_millis()
    }

    /// The node at `path`, for somebody who needs one of `wanted`.
    pub(super) fn node(&self, path: &str, wanted: i32) -> Result<Node, ZkError> {
        // ZooKeeper knows its root by two names.
        let path = if path.is_empty() { path::ROOT } else { path };
        self.see(path);
        let node = self.state.node(path).ok_or(ZkError::NoNode)?;
        if wanted != 0 && !self.lets(&node.acl, wanted) {
            return Err(ZkError::NoAuth);
        }
        Ok(node)
    }

    /// Creates a node; returns its path.
    pub(super) fn create(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Entry],
        mode: Mode,
    ) -> Result<String, ZkError> {
        if !path.contains('/') || path.contains('\0') {
            return Err(ZkError::BadArguments);
        }
        let acl = acl::settle(acl, &self.proved)?;
        let up = path::parent(path);
        let mut parent = self.node(up, perms::CREATE)?;
        let suffix =
            if mode.sequential { format!("{:010}", parent.created) } else { String::new() };
        let path = format!("{path}{suffix}");
        path::validate(&path)?;
        // With its suffix: nobody could name a longer one to delete it.
        if path.len() > PATH_BYTES_MAX {
            return Err(ZkError::BadArguments);
        }
        if self.state.node(&path).is_some() {
            return Err(ZkError::NodeExists);
        }
        if matches!(parent.owner(), Owner::Session(_)) {
            return Err(ZkError::NoChildrenForEphemerals);
        }
        let old = (Box::from(up), Some(parent.clone()));
        let (zxid, now_ms) = (self.zxid(), self.now_ms());
        parent.created = parent.created.wrapping_add(1);
        parent.pzxid = zxid;
        let parent_acl = Arc::clone(&parent.acl);
        self.state.replace(self.ctx, up, Some(parent));
        self.replaced.push(old);
        let mut node = Node::new(data.map(Arc::from), acl, mode.owner, zxid, now_ms);
        self.time_ttl(&mut node);
        self.take_room(&path, &node)?;
        let acl = Arc::clone(&node.acl);
        self.state.replace(self.ctx, &path, Some(node));
        self.replaced.push((path.as_str().into(), None));
        self.changes.push(Change::Created { path: path.as_str().into(), acl, parent: parent_acl });
        Ok(path)
    }

    /// Deletes the node at `path` at the request of a client.
    pub(super) fn delete(&mut self, path: &str, version: i32) -> Result<(), ZkError> {
        let illegal = !path.contains('/') || path.contains('\0');
        if illegal || path::SPECIAL.contains(&path) {
            return Err(ZkError::BadArguments);
        }
        self.node(path::parent(path), perms::DELETE)?;
        let node = self.node(path, 0)?;
        if version != -1 && version != node.version {
            return Err(ZkError::BadVersion);
        }
        if self.state.child_count(path) > 0 {
            return Err(ZkError::NotEmpty);
        }
        self.remove(path);
        Ok(())
    }

    /// Deletes a node that has no children, whoever wants it.
    pub(super) fn remove(&mut self, path: &str) {
        let Some(old) = self.state.replace(self.ctx, path, None) else { return };
        let acl = Arc::clone(&old.acl);
        self.replaced.push((path.into(), Some(old)));
        let up = path::parent(path);
        let Some(mut parent) = self.state.node(up) else { return };
        self.replaced.push((up.into(), Some(parent.clone())));
        parent.pzxid = self.zxid();
        if parent.owner == CONTAINER && self.state.child_count(up) == 0 {
            parent.due = self.shows() + CONTAINER_SPAN_MS;
        }
        let parent_acl = Arc::clone(&parent.acl);
        self.state.replace(self.ctx, up, Some(parent));
        self.changes.push(Change::Deleted { path: path.into(), acl, parent: parent_acl });
    }

    /// Writes data.
    pub(super) fn set_data(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
    ) -> Result<(), ZkError> {
        path::validate(path)?;
        let old = self.node(path, perms::WRITE)?;
        if version != -1 && version != old.version {
            return Err(ZkError::BadVersion);
        }
        let mut node = old.clone();
        node.set(data.map(Arc::from), self.zxid(), self.now_ms());
        self.time_ttl(&mut node);
        self.take_room(path, &node)?;
        let acl = Arc::clone(&node.acl);
        self.state.replace(self.ctx, path, Some(node));
        self.replaced.push((path.into(), Some(old)));
        self.changes.push(Change::Written { path: path.into(), acl });
        Ok(())
    }

    /// Replaces an ACL.
    pub(super) fn set_acl(
        &mut self,
        path: &str,
        acl: &[Entry],
        version: i32,
    ) -> Result<(), ZkError> {
        path::validate(path)?;
        let acl = acl::settle(acl, &self.proved)?;
        let mut node = self.node(path, perms::ADMIN)?;
        if version != -1 && version != node.aversion {
            return Err(ZkError::BadVersion);
        }
        node.acl = acl;
        node.aversion = node::next(node.aversion);
        self.take_room(path, &node)?;
        let old = self.state.replace(self.ctx, path, Some(node));
        self.replaced.push((path.into(), old));
        Ok(())
    }

    /// Whether the node has that version.
    pub(super) fn check(&self, path: &str, version: i32) -> Result<(), ZkError> {
        path::validate(path)?;
        let node = self.node(path, perms::READ)?;
        let fits = version == -1 || version == node.version;
        if fits { Ok(()) } else { Err(ZkError::BadVersion) }
    }

    /// Takes back all writes.
    pub(super) fn undo(&mut self) {
        self.changes.clear();
        while let Some((path, old)) = self.replaced.pop() {
            self.state.replace(self.ctx, &path, old);
        }
    }

    /// Fires the watches of all writes.
    pub(super) fn fire(&mut self) {
        self.replaced.clear();
        let nobody = BTreeSet::new();
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Created { path, acl, parent } => {
                    self.notify(watch::DATA, event::CREATED, &path, &acl, &nobody);
                    let up = path::parent(&path);
                    self.notify(watch::CHILD, event::CHILDREN, up, &parent, &nobody);
                }
                Change::Deleted { path, acl, parent } => {
                    let told = self.notify(watch::DATA, event::DELETED, &path, &acl, &nobody);
                    self.notify(watch::CHILD, event::DELETED, &path, &acl, &told);
                    let up = path::parent(&path);
                    self.notify(watch::CHILD, event::CHILDREN, up, &parent, &nobody);
                }
                Change::Written { path, acl } => {
                    self.notify(watch::DATA, event::CHANGED, &path, &acl, &nobody);
                }
            }
        }
    }

    /// Tells whoever watches `path` in the way `way`, and takes away what was to fire once.
    /// Returns whose watches these were, told or not.
    fn notify(
        &mut self,
        way: u8,
        kind: u8,
        path: &str,
        acl: &Acl,
        told: &BTreeSet<u64>,
    ) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut once = Vec::new();
        self.see(path);
        let watchers = self.state.watchers(path);
        self.watches += watchers.len();
        for (session, ways) in watchers {
            let deep = ways & watch::RECURSIVE != 0 && kind != event::CHILDREN;
            if deep || ways & (way | watch::PERSISTENT) != 0 {
                found.insert(session);
            }
            if ways & way != 0 {
                once.push(session);
            }
        }
        if self.state.recursive() > 0 && kind != event::CHILDREN {
            let mut above = path;
            while above != path::ROOT {
                above = path::parent(above);
                let watchers = self.state.watchers(above);
                let deep = watchers.into_iter().filter(|(_, ways)| ways & watch::RECURSIVE != 0);
                // Of others this request has not declared anything: they may come and go beside
                // it, and whether they are looked at hangs on what this replica expects.
                for (session, _) in deep {
                    self.watches += 1;
                    found.insert(session);
                }
            }
        }
        for session in once {
            self.state.unwatch(self.ctx, session, path, way);
        }
        for session in found.difference(told) {
            self.tell(*session, kind, path, acl);
        }
        found
    }

    /// Queues an event for a session whose connection may read the node. A session that has too
    /// many is cut off instead of missing one: its client comes back and sets its watches anew.
    /// So is everybody, once a request has had too many watches looked at, so that what there is to
    /// look at becomes less.
    pub(super) fn tell(&mut self, id: u64, kind: u8, path: &str, acl: &Acl) {
        let own = id == self.session;
        let late = self.watches > WATCHES_MAX && !own;
        let mine = own && self.lets(acl, perms::READ);
        let mut comparisons = 0;
        let mut readable = |proved: &[Id]| {
            if own {
                return mine;
            }
            comparisons = acl::comparisons(acl, proved);
            late || acl::check(acl, perms::READ, proved).is_ok()
        };
        let gateway = self.state.look_session(id, |session| {
            let told = session.filter(|own| own.connection != 0 && readable(&own.proved));
            told.map(|session| session.gateway)
        });
        self.watches += comparisons / FEW_COMPARISONS;
        let Some((client, session)) = gateway else { return };
        let event = Event { kind, path: path.into() };
        let left = self.state.left_to_remember(id);
        let tell = |session: &mut Session| !late && session.tell(event, own, left);
        let told = self.state.with_session(self.ctx, id, tell);
        if told == Some(false) {
            self.detach(id);
        }
        if !own {
            self.ctx.emit(Output::Nudge { client, session });
        }
    }

    /// Ends the session's connection, with its watches and events.
    pub(super) fn detach(&mut self, id: u64) {
        self.state.unwatch_all(self.ctx, id);
        self.state.with_session(self.ctx, id, |session| {
            let gateway = session.gateway;
            session.attach(gateway, 0);
        });
    }

    /// Ends a session and deletes its ephemeral nodes.
    pub(super) fn end_session(&mut self, id: u64) {
        let own = self.state.ephemerals(id);
        // It is told of nothing any more, not even of what goes with it.
        self.state.unwatch_all(self.ctx, id);
        self.state.put_session(self.ctx, id, None);
        for path in own {
            self.remove(&path);
        }
        self.fire();
    }

    /// Whether there is room for a node in its object.
    fn take_room(&self, path: &str, node: &Node) -> Result<(), ZkError> {
        if self.state.fits(path, node) { Ok(()) } else { Err(ZkError::QuotaExceeded) }
    }

    fn time_ttl(&self, node: &mut Node) {
        if let Owner::Ttl(ms) = node.owner() {
            node.due = self.shows() + ms;
        }
    }
}

/// Agreed time in the unit that deadlines are told in.
pub(super) fn agreed(ms: u64) -> AgreedTime {
    AgreedTime(ms.saturating_mul(1_000_000))
}
