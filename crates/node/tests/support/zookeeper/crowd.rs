//! Clients of a group that is maltreated: some write, some watch, some hold on to their sessions,
//! some die ([`super::wake`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use svc::zk::kind;

use super::client::{Client, Failure, Reply, Told, Way, jute};
use super::watches::{Change, History};

/// Parents of what is written, one for each writer.
pub const WRITERS: usize = 2;
/// Nodes of a writer that stay, and that come and go.
const NODES: usize = 3;
/// How long a session lives whose client is to live: longer than a busy machine keeps a client
/// from what it does, much shorter than the group is made to stand still.
pub const LIVE: Duration = Duration::from_secs(6);
/// What all clients have in common.
pub struct Crowd {
    pub addresses: Vec<String>,
    pub stop: AtomicBool,
    /// Writes that were answered.
    pub writes: AtomicU64,
    /// Whether a session is over whose client lives.
    pub over: AtomicBool,
}

pub(super) fn create(path: &str, flags: i32) -> Vec<u8> {
    jute(|w| {
        w.text(path).buffer(Some(b"")).count(1).int(31).text("world").text("anyone").int(flags);
    })
}

fn path_int(path: &str, number: i32) -> Vec<u8> {
    jute(|w| {
        w.text(path).int(number);
    })
}

pub(super) fn set(path: &str, data: &[u8]) -> Vec<u8> {
    jute(|w| {
        w.text(path).buffer(Some(data)).int(-1);
    })
}

pub(super) fn plain(path: &str) -> Vec<u8> {
    jute(|w| {
        w.text(path).bool(false);
    })
}

fn root() -> Vec<u8> {
    jute(|w| {
        w.text("/");
    })
}

fn own(writer: usize) -> String {
    format!("/w/{writer}")
}

/// What is watched of what a writer writes, and by which request.
fn watched(writer: usize) -> Vec<(i32, String)> {
    let up = own(writer);
    let stays = (0..NODES).map(|at| (kind::GET_DATA, format!("{up}/d{at}")));
    let goes = (0..NODES).map(|at| (kind::EXISTS, format!("{up}/f{at}")));
    stays.chain(goes).chain([(kind::GET_CHILDREN2, up.clone())]).collect()
}

/// Small numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as usize % bound
    }
}

/// One that writes nodes of its own, and knows all that happened to them.
struct Writer<'a> {
    client: Client,
    crowd: &'a Crowd,
    up: String,
    /// The versions of the nodes that are there.
    versions: BTreeMap<String, i32>,
    history: History,
}

impl Writer<'_> {
    /// Does it, or finds out whether it was done.
    fn act(&mut self, change: Change, path: &str) -> Result<(), Failure> {
        let (kind, body) = match change {
            Change::Created => (kind::CREATE2, create(path, 0)),
            Change::Deleted => (kind::DELETE, path_int(path, -1)),
            Change::Written => (kind::SET_DATA, set(path, b"x")),
        };
        let when = match self.client.call(kind, &body) {
            Ok(Reply { zxid, error, .. }) => {
                assert_eq!(error, 0, "{change:?} {path}: nobody else writes it");
                Some(zxid)
            }
            Err(Failure::Lost) => self.find_out(change, path)?,
            Err(Failure::Expired) => return Err(Failure::Expired),
        };
        let Some(when) = when else { return Ok(()) };
        self.history.note(path, when, change);
        self.crowd.writes.fetch_add(1, Ordering::Relaxed);
        match change {
            Change::Created => drop(self.versions.insert(path.to_owned(), 0)),
            Change::Deleted => drop(self.versions.remove(path)),
            Change::Written => *self.versions.get_mut(path).expect("it is there") += 1,
        }
        Ok(())
    }

    /// Whether a request that got no response was executed, and where: nobody executes it now.
    fn find_out(&mut self, change: Change, path: &str) -> Result<Option<i64>, Failure> {
        let stat = self.client.ask(kind::EXISTS, &plain(path))?.stat();
        Ok(match (change, stat) {
            (Change::Created, stat) => stat.map(|stat| stat.czxid),
            (Change::Written, Some(stat)) => {
                (stat.version > self.versions[path]).then_some(stat.mzxid)
            }
            (Change::Written, None) => panic!("{path} is gone"),
            (Change::Deleted, Some(_)) => None,
            (Change::Deleted, None) => {
                let up = self.client.ask(kind::EXISTS, &plain(&self.up))?.stat();
                Some(up.expect("it stays").pzxid)
            }
        })
    }
}

impl Crowd {
    pub fn new(addresses: Vec<String>) -> Crowd {
        let [stop, over] = [false, false].map(AtomicBool::new);
        Crowd { addresses, stop, writes: AtomicU64::new(0), over }
    }

    pub fn client(&self, first: usize, timeout: Duration) -> Client {
        Client::new(&self.addresses, first, timeout)
    }

    pub(super) fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Makes what others go on from.
    pub fn prepare(&self) {
        let mut client = self.client(0, LIVE);
        let parents = (0..WRITERS).map(own);
        for path in ["/w", "/e", "/probe"].map(str::to_owned).into_iter().chain(parents) {
            let made = client.call(kind::CREATE, &create(&path, 0)).expect("nothing is amiss");
            assert_eq!(made.error, 0, "{path}");
        }
        client.call(kind::CLOSE, &[]).expect("nothing is amiss");
    }

    /// Writes nodes of its own until it is told to stop; returns what happened to them. `ready`
    /// counts those who have made theirs.
    pub fn write(&self, writer: usize, ready: &AtomicU64) -> Result<History, Failure> {
        let history = self.write_own(writer, ready);
        self.over.fetch_or(history.is_err(), Ordering::Relaxed);
        history
    }

    fn write_own(&self, writer: usize, ready: &AtomicU64) -> Result<History, Failure> {
        let (client, up) = (self.client(writer, LIVE), own(writer));
        let (versions, history) = (BTreeMap::new(), History::default());
        let mut all = Writer { client, crowd: self, up, versions, history };
        let nodes = watched(writer);
        for (_, path) in &nodes[..NODES] {
            while !all.versions.contains_key(path) {
                all.act(Change::Created, path)?;
            }
        }
        ready.fetch_add(1, Ordering::Relaxed);
        let mut dice = Dice(writer as u64);
        while !self.stops() {
            let (_, path) = &nodes[dice.below(2 * NODES)];
            let is_there = all.versions.contains_key(path);
            let stays = nodes[..NODES].iter().any(|(_, own)| own == path);
            let change = match (is_there, stays || dice.below(2) == 0) {
                (false, _) => Change::Created,
                (true, true) => Change::Written,
                (true, false) => Change::Deleted,
            };
            all.act(change, path)?;
            all.client.idle(Duration::from_millis(dice.below(20) as u64))?;
        }
        Ok(all.history)
    }

    /// Watches everything that is written, each path anew whenever its watch has fired; goes on
    /// until `done`, and then asks once more, so that everything has to have been told.
    pub fn watch(&self, first: usize, done: &AtomicBool) -> Result<Vec<Told>, Failure> {
        let mut client = self.client(first, LIVE);
        let nodes: Vec<(i32, String)> = (0..WRITERS).flat_map(watched).collect();
        let mut dice = Dice(first as u64 + 100);
        while !done.load(Ordering::Relaxed) {
            for (kind, path) in &nodes {
                if !client.watches(path) {
                    lenient(client.watch(*kind, path))?;
                }
            }
            // What a client asks without watching shows it what has changed, too.
            let (_, path) = &nodes[dice.below(nodes.len())];
            lenient(client.call(kind::EXISTS, &plain(path)))?;
            client.idle(Duration::from_millis(dice.below(60) as u64))?;
        }
        client.ask(kind::SYNC, &root())?;
        Ok(client.die())
    }

    /// Watches what the one writer writes with a persistent watch, and what the other one does
    /// with a recursive one.
    pub fn watch_on(&self, first: usize, done: &AtomicBool) -> Result<Vec<Told>, Failure> {
        let mut client = self.client(first, LIVE);
        let mut dice = Dice(first as u64 + 200);
        for (path, way) in [(own(0), Way::Persistent), (own(1), Way::Recursive)] {
            while lenient(client.watch_on(&path, way))?.is_none() {}
        }
        while !done.load(Ordering::Relaxed) {
            let (_, path) = &watched(dice.below(2))[dice.below(2 * NODES)];
            lenient(client.call(kind::EXISTS, &plain(path)))?;
            client.idle(Duration::from_millis(dice.below(60) as u64))?;
        }
        client.ask(kind::SYNC, &root())?;
        Ok(client.die())
    }

    /// Holds on to a session and its ephemeral node, mostly by pinging.
    pub fn hold(&self, number: usize) -> Result<u64, Failure> {
        let (mut client, path) = (self.client(number, LIVE), format!("/e/live-{number}"));
        let mut dice = Dice(number as u64 + 300);
        client.ask(kind::CREATE, &create(&path, 1))?;
        let mut looks = 0;
        while !self.stops() {
            client.idle(Duration::from_millis(200 + dice.below(1_500) as u64))?;
            let reply = client.ask(kind::EXISTS, &plain(&path))?;
            assert_eq!(reply.error, 0, "{path} is gone though its client lives");
            looks += 1;
        }
        Ok(looks)
    }
}

/// Writes as much as makes a group take a checkpoint, in the course of a few calls.
pub fn poke(client: &mut Client) -> Result<(), String> {
    for _ in 0..8 {
        let reply = client.call(kind::SET_DATA, &set("/probe", b""));
        reply.map_err(|why| format!("{why:?}"))?;
    }
    Ok(())
}

/// A lost connection is no reason to stop.
fn lenient<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Lost) => Ok(None),
        Err(Failure::Expired) => Err(Failure::Expired),
    }
}
