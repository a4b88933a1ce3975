//! The canonical bytes of the objects: equal states give equal bytes.

use std::collections::BTreeMap;

use base::digest::Domain;
use base::{Digest, Malformed, Reader, Writer};

use super::clock::Clock;
use super::node::Node;
use super::session::Session;
use super::state::{Object, Slot, State, Watches, node_bucket, session_bucket, watch};

/// An object that was read and not yet put into its place.
enum Loaded {
    Clock(Clock),
    Sessions(BTreeMap<u64, Session>),
    Watches(BTreeMap<u64, Watches>),
    Nodes(BTreeMap<Box<str>, Node>),
}

impl State {
    /// Appends the canonical bytes of an object.
    pub(super) fn encode(&self, object: Object, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        match object {
            Object::Clock => self.clock().encode(&mut w),
            Object::Sessions(bucket) => {
                let desk = self.desk(bucket);
                w.count(desk.sessions.len());
                for (id, session) in &desk.sessions {
                    session.encode(w.u64(*id));
                }
            }
            Object::Watches(bucket) => {
                let desk = self.desk(bucket);
                w.count(desk.watches.len());
                for (id, watches) in &desk.watches {
                    w.u64(*id).count(watches.len());
                    for (path, ways) in watches {
                        w.sized(path.as_bytes()).u8(*ways);
                    }
                }
            }
            Object::Nodes(bucket) => {
                let (shard, bucket) = self.shard(bucket);
                let slots = &shard.buckets[bucket];
                let nodes = || slots.iter().filter_map(|(path, slot)| node_of(path, slot));
                w.count(nodes().count());
                nodes().for_each(|(path, node)| node.encode(w.sized(path.as_bytes())));
            }
        }
    }

    /// The digest of an object. Costs a pass over it, but long data only when it has changed.
    pub(super) fn digest(&self, object: Object) -> Digest {
        let mut bytes = Vec::new();
        match object {
            Object::Nodes(bucket) => {
                let (mut shard, bucket) = self.shard(bucket);
                let nodes = shard.buckets[bucket].iter_mut();
                let nodes = nodes.filter_map(|(path, slot)| Some((path, slot.node.as_mut()?)));
                summarize(nodes, &mut bytes);
            }
            other => self.encode(other, &mut bytes),
        }
        Digest::of(Domain::Service, &bytes)
    }

    /// The digest that an object would have if it had these bytes.
    ///
    /// # Errors
    /// When the bytes are no such object.
    pub(super) fn digest_of(object: Object, bytes: &[u8]) -> Result<Digest, Malformed> {
        let Loaded::Nodes(mut nodes) = load(object, bytes)? else {
            return Ok(Digest::of(Domain::Service, bytes));
        };
        let mut summary = Vec::new();
        summarize(nodes.iter_mut(), &mut summary);
        Ok(Digest::of(Domain::Service, &summary))
    }

    /// Replaces an object by what [`State::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no such object; nothing has changed then.
    pub(super) fn load(&self, object: Object, bytes: &[u8]) -> Result<(), Malformed> {
        match (load(object, bytes)?, object) {
            (Loaded::Clock(clock), _) => self.set_clock(clock),
            (Loaded::Sessions(new), Object::Sessions(bucket)) => self.load_sessions(bucket, new),
            (Loaded::Watches(new), Object::Watches(bucket)) => self.load_watches(bucket, new),
            (Loaded::Nodes(new), Object::Nodes(bucket)) => self.load_nodes(bucket, new),
            _ => return Err(Malformed("object")),
        }
        Ok(())
    }
}

fn node_of<'a>(path: &'a str, slot: &'a Slot) -> Option<(&'a str, &'a Node)> {
    Some((path, slot.node.as_ref()?))
}

fn summarize<'a>(nodes: impl Iterator<Item = (&'a Box<str>, &'a mut Node)>, out: &mut Vec<u8>) {
    for (path, node) in nodes {
        let mut w = Writer::new(out);
        node.summarize(w.sized(path.as_bytes()));
    }
}

fn load(object: Object, bytes: &[u8]) -> Result<Loaded, Malformed> {
    let mut r = Reader::new(bytes);
    let loaded = match object {
        Object::Clock => Loaded::Clock(Clock::decode(&mut r)?),
        Object::Sessions(bucket) => {
            let place = |id: &u64| session_bucket(*id) == bucket && *id > 0;
            Loaded::Sessions(table(&mut r, id, place, Session::decode)?)
        }
        Object::Watches(bucket) => {
            let place = |id: &u64| session_bucket(*id) == bucket && *id > 0;
            Loaded::Watches(table(&mut r, id, place, watches)?)
        }
        Object::Nodes(bucket) => {
            Loaded::Nodes(table(&mut r, path, |path| node_bucket(path) == bucket, Node::decode)?)
        }
    };
    r.finish("object")?;
    Ok(loaded)
}

/// Reads a table in ascending order of its keys, all of which belong into this object.
fn table<K: Ord, V>(
    r: &mut Reader<'_>,
    key: impl Fn(&mut Reader<'_>) -> Result<K, Malformed>,
    place: impl Fn(&K) -> bool,
    value: impl Fn(&mut Reader<'_>) -> Result<V, Malformed>,
) -> Result<BTreeMap<K, V>, Malformed> {
    let mut table = BTreeMap::new();
    for _ in 0..r.count(usize::MAX, 5, "number of entries")? {
        let key = key(r)?;
        let ascending = table.last_key_value().is_none_or(|(last, _)| *last < key);
        if !ascending || !place(&key) {
            return Err(Malformed("order of entries"));
        }
        table.insert(key, value(r)?);
    }
    Ok(table)
}

fn id(r: &mut Reader<'_>) -> Result<u64, Malformed> {
    r.u64("session")
}

fn path(r: &mut Reader<'_>) -> Result<Box<str>, Malformed> {
    let text = std::str::from_utf8(r.sized(usize::MAX, "path")?).map_err(|_| Malformed("path"))?;
    super::path::validate(text).map_err(|_| Malformed("path"))?;
    Ok(text.into())
}

fn watches(r: &mut Reader<'_>) -> Result<Watches, Malformed> {
    let watched = |r: &mut Reader<'_>| match r.u8("ways of watching")? {
        ways @ 1..=watch::ALL => Ok(ways),
        _ => Err(Malformed("ways of watching")),
    };
    // What is watched need not be a path of a node.
    let key = |r: &mut Reader<'_>| {
        let text = std::str::from_utf8(r.sized(usize::MAX, "path")?);
        text.map(Box::from).map_err(|_| Malformed("path"))
    };
    let table = table(r, key, |_| true, watched)?;
    if table.is_empty() { Err(Malformed("watches")) } else { Ok(table) }
}
