//! What clients were told of nodes they watch, held against everything that happened to them.
//!
//! Of every watch that fires once: it fires exactly once, by the first change after it was set,
//! before any response from that change on, and in the order of the changes; across connections,
//! the setting of the watches anew tells of a change if there was one, or else the watch is as
//! good as new. What ZooKeeper does not promise is not asked for: a client that was away learns
//! that a node has changed, not how often, and not of one that came and went.
//!
//! Of every persistent watch: as long as a connection lasts, each change is told exactly once, in
//! order, before any response from it on. What happens while there is no connection is told to
//! nobody.

use std::collections::BTreeMap;

use super::client::{Stat, Told, Way};

/// What happened to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    Created,
    Deleted,
    Written,
}

const CREATED: i32 = 1;
const DELETED: i32 = 2;
const WRITTEN: i32 = 3;
const CHILDREN: i32 = 4;

/// Everything that happened to some nodes, by place in the total order.
#[derive(Clone, Default, Debug)]
pub struct History {
    nodes: BTreeMap<String, Vec<(i64, Change)>>,
    children: BTreeMap<String, Vec<i64>>,
}

/// What a client was told, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Watches that fired once, as they should.
    pub fired: u64,
    /// Those of them that did so when they were set anew.
    pub made_up: u64,
    /// Events of persistent watches.
    pub persistent: u64,
    /// Changes that persistent watches missed while there was no connection.
    pub missed: u64,
    /// Connections that were lost.
    pub lost: u64,
}

impl Tally {
    /// What another client was told, besides.
    pub fn add(&mut self, other: Tally) {
        self.fired += other.fired;
        self.made_up += other.made_up;
        self.persistent += other.persistent;
        self.missed += other.missed;
        self.lost += other.lost;
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(up, _)| if up.is_empty() { "/" } else { up })
}

fn kind_of(change: Change) -> i32 {
    match change {
        Change::Created => CREATED,
        Change::Deleted => DELETED,
        Change::Written => WRITTEN,
    }
}

impl History {
    /// Something happened to a node, after everything else that happened to it.
    pub fn note(&mut self, path: &str, zxid: i64, change: Change) {
        let own = self.nodes.entry(path.to_owned()).or_default();
        assert!(own.last().is_none_or(|(last, _)| *last < zxid), "{path}: {own:?}, then {zxid}");
        own.push((zxid, change));
        if change != Change::Written {
            self.children.entry(parent(path).to_owned()).or_default().push(zxid);
        }
    }

    /// What somebody else saw to of other nodes.
    pub fn join(&mut self, other: History) {
        self.nodes.extend(other.nodes);
        for (path, zxids) in other.children {
            let own = self.children.entry(path).or_default();
            own.extend(zxids);
            own.sort_unstable();
        }
    }

    /// How much happened.
    pub fn len(&self) -> usize {
        self.nodes.values().map(Vec::len).sum()
    }

    fn of(&self, path: &str) -> &[(i64, Change)] {
        self.nodes.get(path).map_or(&[], Vec::as_slice)
    }

    fn of_children(&self, path: &str) -> &[i64] {
        self.children.get(path).map_or(&[], Vec::as_slice)
    }

    /// The first change after `zxid` that a watch is for, and the event it makes.
    fn next(&self, path: &str, way: Way, zxid: i64) -> Option<(i64, i32)> {
        if way == Way::Child {
            let own = self.of_children(path);
            let at = own.partition_point(|one| *one <= zxid);
            return own.get(at).map(|one| (*one, CHILDREN));
        }
        let own = self.of(path);
        let at = own.partition_point(|(one, _)| *one <= zxid);
        own.get(at).map(|(one, change)| (*one, kind_of(*change)))
    }

    /// When the node that is there at `zxid` was written last, and its children, if there is one.
    fn state(&self, path: &str, zxid: i64) -> Option<i64> {
        let own = self.of(path);
        let (when, change) = own[..own.partition_point(|(one, _)| *one <= zxid)].last()?;
        (*change != Change::Deleted).then_some(*when)
    }

    /// All changes that a persistent watch tells of, in order.
    fn told(&self, path: &str, way: Way) -> Vec<(i64, i32, String)> {
        let below = |own: &str| own.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        let deep = way == Way::Recursive;
        let named = self.nodes.iter().filter(|(own, _)| *own == path || deep && below(own));
        let all = named.flat_map(|(own, changes)| {
            changes.iter().map(|(zxid, change)| (*zxid, kind_of(*change), own.clone()))
        });
        let mut all: Vec<_> = all.collect();
        if !deep {
            let own = self.of_children(path).iter();
            all.extend(own.map(|zxid| (*zxid, CHILDREN, path.to_owned())));
        }
        all.sort();
        all
    }
}

/// A watch that fires once.
#[derive(Clone, Copy)]
struct Set {
    way: Way,
    since: i64,
}

/// A persistent watch: all it tells of, and how much of it was told or missed.
struct Stays {
    all: Vec<(i64, i32, String)>,
    at: usize,
}

/// A client's story, read once from front to back.
struct Reader<'a> {
    history: &'a History,
    set: BTreeMap<String, Set>,
    stays: BTreeMap<String, Stays>,
    /// The change that was told of last on this connection.
    last: i64,
    /// Whether the watches are being set anew, and what was told of them meanwhile.
    back: Option<Vec<(String, Set, i32)>>,
    tally: Tally,
}

/// Checks what one client was told.
///
/// # Errors
/// Names the first thing that is wrong, and what was told before it.
pub fn check(history: &History, log: &[Told]) -> Result<Tally, String> {
    let mut reader = Reader {
        history,
        set: BTreeMap::new(),
        stays: BTreeMap::new(),
        last: 0,
        back: None,
        tally: Tally::default(),
    };
    for (at, told) in log.iter().enumerate() {
        reader.read(told).map_err(|why| {
            let before = &log[at.saturating_sub(8)..=at];
            format!("{why}; told: {before:?}")
        })?;
    }
    Ok(reader.tally)
}

impl Reader<'_> {
    fn read(&mut self, told: &Told) -> Result<(), String> {
        match told {
            Told::Reply { zxid } => self.reveal(*zxid),
            Told::Watch { path, way, zxid, stat } => self.watch(path, *way, *zxid, *stat),
            Told::Event { kind, path } if self.back.is_some() => self.make_up(*kind, path),
            Told::Event { kind, path } => self.fire(*kind, path),
            Told::Lost => {
                self.tally.lost += 1;
                self.back = None;
                Ok(())
            }
            Told::Back => {
                self.last = 0;
                self.back = Some(vec![]);
                Ok(())
            }
            Told::Reset { zxid } => self.reset(*zxid),
        }
    }

    /// A response from `zxid`: everything up to there has been told.
    fn reveal(&self, zxid: i64) -> Result<(), String> {
        if self.back.is_some() {
            return Err("a response before the watches were set".to_owned());
        }
        for (path, Set { way, since }) in &self.set {
            let next = self.history.next(path, *way, *since);
            if let Some((when, _)) = next.filter(|(when, _)| *when <= zxid) {
                return Err(format!("{path} changed at {when}, which was not told by {zxid}"));
            }
        }
        for (path, Stays { all, at }) in &self.stays {
            if let Some(missed) = all.get(*at).filter(|(when, ..)| *when <= zxid) {
                return Err(format!("{path}: {missed:?} was not told by {zxid}"));
            }
        }
        Ok(())
    }

    fn watch(
        &mut self,
        path: &str,
        way: Way,
        since: i64,
        stat: Option<Stat>,
    ) -> Result<(), String> {
        if way >= Way::Persistent {
            let all = self.history.told(path, way);
            let at = all.partition_point(|(when, ..)| *when <= since);
            self.stays.insert(path.to_owned(), Stays { all, at });
            return Ok(());
        }
        // Parents are nobody's to write.
        if way != Way::Child && stat.map(|stat| stat.mzxid) != self.history.state(path, since) {
            return Err(format!("{path} is not what it was at {since}: {stat:?}"));
        }
        let before = self.set.insert(path.to_owned(), Set { way, since });
        if before.is_some() { Err(format!("{path} is watched twice")) } else { Ok(()) }
    }

    /// An event while a connection lasts.
    fn fire(&mut self, kind: i32, path: &str) -> Result<(), String> {
        let when = match self.set.remove(path) {
            Some(Set { way, since }) => {
                let next = self.history.next(path, way, since);
                let next = next.filter(|(_, expected)| *expected == kind);
                self.tally.fired += 1;
                next.ok_or(format!("{path}: no event {kind} first after {since}"))?.0
            }
            None => self.persist(kind, path)?,
        };
        if when < self.last {
            return Err(format!("{path}: {when} is told after {}", self.last));
        }
        self.last = when;
        Ok(())
    }

    fn persist(&mut self, kind: i32, path: &str) -> Result<i64, String> {
        let is_next = |Stays { all, at }: &&mut Stays| {
            all.get(*at).is_some_and(|(_, next, own)| (*next, own.as_str()) == (kind, path))
        };
        let Some(stays) = self.stays.values_mut().find(is_next) else {
            return Err(format!("{path}: event {kind} is not due"));
        };
        stays.at += 1;
        self.tally.persistent += 1;
        Ok(stays.all[stays.at - 1].0)
    }

    /// An event while the watches are being set anew.
    fn make_up(&mut self, kind: i32, path: &str) -> Result<(), String> {
        let Some(set) = self.set.remove(path) else {
            return Err(format!("{path}: event {kind} of no watch"));
        };
        let next = self.history.next(path, set.way, set.since);
        next.ok_or(format!("{path}: event {kind}, and it has not changed"))?;
        self.back.as_mut().expect("it is back").push((path.to_owned(), set, kind));
        self.tally.fired += 1;
        self.tally.made_up += 1;
        Ok(())
    }

    /// The watches are set anew as of `zxid`.
    fn reset(&mut self, zxid: i64) -> Result<(), String> {
        let told = self.back.take().ok_or("watches are set twice")?;
        for (path, Set { way, since }, kind) in told {
            let due = self.history.next(&path, way, since).is_some_and(|(when, _)| when <= zxid);
            let is_there = self.history.state(&path, zxid).is_some();
            let expected = match (way, is_there) {
                (Way::Exist, true) => CREATED,
                (Way::Data, true) => WRITTEN,
                (Way::Child, _) => CHILDREN,
                (_, false) => DELETED,
                (_, true) => return Err(format!("{path}: a watch of another kind")),
            };
            if !due || kind != expected {
                return Err(format!("{path}: event {kind} by {zxid}, not {expected} ({due})"));
            }
        }
        for (path, set) in &mut self.set {
            let due = self.history.next(path, set.way, set.since);
            let due = due.is_some_and(|(when, _)| when <= zxid);
            // A node that came and went is told to nobody.
            let is_there = self.history.state(path, zxid).is_some();
            if due && (set.way != Way::Exist || is_there) {
                return Err(format!("{path} changed after {}, not told by {zxid}", set.since));
            }
            set.since = zxid;
        }
        for Stays { all, at } in self.stays.values_mut() {
            let next = all.partition_point(|(when, ..)| *when <= zxid);
            // What was told before the connection was lost was told.
            self.tally.missed += next.saturating_sub(*at) as u64;
            *at = next.max(*at);
        }
        Ok(())
    }
}
