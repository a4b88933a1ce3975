//! The coordination service: operations, outcomes, objects, requests, and what stands around
//! requests on a client's connection.

use base::AgreedTime;
use exec::service::Service;
use exec::testing::Harness;
use node::zookeeper::wire::{self, Begin};
use svc::zk::jute::{JuteReader, JuteWriter};
use svc::zk::op::{self, Attachment, Event, Events, Op, PASSWORD_BYTES, Refusal, Stats};
use svc::zk::{ZooKeeperService, kind};

use super::accepted;
use crate::target::{Outcome, Run};

const PASSWORD: [u8; PASSWORD_BYTES] = [7; PASSWORD_BYTES];
/// Sessions that requests come from.
const SESSIONS: usize = 2;
/// Most rows of one input that are played.
const ROWS_MAX: usize = 64;
/// After so many inputs a service that is used on is a new one.
const FRESH_EVERY: u32 = 1_000;

fn harness() -> Harness<ZooKeeperService> {
    let mut harness = Harness::new(ZooKeeperService::new());
    harness.tick(AgreedTime(1_000_000_000_000));
    harness
}

fn encoded(op: &Op<'_>) -> Vec<u8> {
    let mut out = vec![];
    op.encode(&mut out);
    out
}

fn jute(write: impl FnOnce(&mut JuteWriter<'_>)) -> Vec<u8> {
    let mut out = vec![];
    write(&mut JuteWriter::new(&mut out));
    out
}

/// What the service came back with is an outcome in its one encoding.
fn checked(result: &[u8]) -> op::Outcome<'_> {
    let outcome = op::Outcome::decode(result).expect("the service writes what a gateway reads");
    let mut again = vec![];
    outcome.encode(&mut again);
    assert!(again == result, "one outcome, one encoding");
    outcome
}

/// What kind of outcome it is.
fn told(outcome: &op::Outcome<'_>) -> (u8, i64, usize) {
    match outcome {
        op::Outcome::Attached { .. } => (1, 0, 0),
        op::Outcome::Refused(why) => (2, *why as i64, 0),
        op::Outcome::Response { error, events, body, .. } => {
            (3, i64::from(*error).clamp(-130, 1), events.list.len().min(3) * 10 + body.len().min(9))
        }
        op::Outcome::Happened { events, gone, .. } => {
            (4, 0, events.len().min(9) * 10 + gone.len().min(9))
        }
        op::Outcome::Stats(_) => (5, 0, 0),
    }
}

/// `svc::zk::op::Op`, and its execution: the service answers whatever it is given.
pub fn operation() -> Run {
    let (mut harness, mut runs) = (harness(), 0u32);
    Box::new(move |bytes| {
        runs += 1;
        if runs.is_multiple_of(FRESH_EVERY) {
            harness.service = ZooKeeperService::new();
        }
        let result = harness.run(bytes);
        let outcome = checked(&result);
        match Op::decode(bytes) {
            Err(error) => {
                assert_eq!(outcome, op::Outcome::Refused(Refusal::Malformed));
                Outcome::of(error.0)
            }
            Ok(op) => {
                assert!(encoded(&op) == bytes, "one operation, one encoding");
                Outcome::of((std::mem::discriminant(&op), told(&outcome)))
            }
        }
    })
}

/// Operations of all kinds.
#[must_use]
pub fn operation_seeds() -> Vec<Vec<u8>> {
    let body = create("/a", 0);
    [
        Op::Open { password: PASSWORD, timeout_ms: 4_000 },
        Op::Resume { session: 1, password: PASSWORD, timeout_ms: 4_000, last_zxid: 0 },
        Op::Request { from: (1, 1), kind: kind::CREATE, body: &body },
        Op::Renew(vec![(1, 1), (2, 2)]),
        Op::Leave((1, 1)),
        Op::Stats,
    ]
    .iter()
    .map(encoded)
    .collect()
}

/// `svc::zk::op::Outcome`, as a gateway reads it.
pub fn outcome() -> Run {
    Box::new(|bytes| match op::Outcome::decode(bytes) {
        Err(error) => Outcome::of(error.0),
        Ok(_) => accepted(told(&checked(bytes)), bytes.len()),
    })
}

/// Outcomes of all kinds.
#[must_use]
pub fn outcome_seeds() -> Vec<Vec<u8>> {
    let event = Event { kind: 3, path: "/a".into() };
    let events = Events { first: 9, list: vec![event.clone(), event] };
    let (gone, more) = (vec![(3, 4)], true);
    [
        op::Outcome::Attached { to: (1, 2), timeout_ms: 3 },
        op::Outcome::Refused(Refusal::Ahead),
        op::Outcome::Response { events: events.clone(), error: -101, zxid: 5, body: b"body" },
        op::Outcome::Happened { zxid: 6, events: vec![((1, 2), events)], gone, more },
        op::Outcome::Stats(Stats { nodes: 5, ..Stats::default() }),
    ]
    .iter()
    .map(|outcome| {
        let mut out = vec![];
        outcome.encode(&mut out);
        out
    })
    .collect()
}

/// `ZooKeeperService::put` and `ZooKeeperService::digest_of`: an object of the service, which is
/// put, looked at, used, and taken away again.
pub fn object() -> Run {
    let mut harness = harness();
    let stats = |harness: &mut Harness<ZooKeeperService>| {
        let result = harness.run(&encoded(&Op::Stats));
        let op::Outcome::Stats(stats) = checked(&result) else { panic!("no stats") };
        Stats { zxid: 0, ..stats }
    };
    let counts = stats(&mut harness);
    Box::new(move |bytes| {
        let (object, bytes) = match bytes.split_first_chunk::<4>() {
            Some((object, rest)) => (u32::from_le_bytes(*object), rest),
            None => return Outcome::of("empty"),
        };
        let object = object % harness.service.objects();
        let mut before = vec![];
        harness.service.get(object, &mut before);
        let promised = harness.service.digest_of(object, bytes);
        match harness.service.put(object, bytes) {
            Err(error) => {
                assert!(promised.is_err(), "its digest was computed, but it is none: {error}");
                Outcome::of(error.0)
            }
            Ok(()) => {
                let mut again = vec![];
                harness.service.get(object, &mut again);
                assert!(again == bytes, "one object, one encoding");
                assert_eq!(promised.as_ref(), Ok(&harness.service.digest(object)));
                let _ = harness.service.deadline();
                let now = stats(&mut harness);
                harness.service.put(object, &before).expect("is what it wrote itself");
                // The clock goes on meanwhile, and sessions may end: only counts come back.
                assert_eq!(stats(&mut harness), counts, "indexes follow from the objects");
                accepted((object.min(2_100), now != counts), bytes.len())
            }
        }
    })
}

/// The objects of a service after the requests of [`requests_seeds`].
#[must_use]
pub fn object_seeds() -> Vec<Vec<u8>> {
    let mut played = Played::new(harness());
    requests_seeds().iter().for_each(|seed| {
        played.rows(seed);
    });
    let service = &mut played.harness.service;
    let fresh = ZooKeeperService::new();
    let mut all = vec![];
    for object in 0..service.objects() {
        let (mut bytes, mut empty) = (vec![], vec![]);
        service.get(object, &mut bytes);
        fresh.get(object, &mut empty);
        if bytes != empty {
            all.push([&object.to_le_bytes()[..], &bytes].concat());
        }
    }
    all
}

/// A service with sessions, and what was played on it.
struct Played {
    harness: Harness<ZooKeeperService>,
    sessions: Vec<Attachment>,
    now_ms: u64,
}

impl Played {
    fn new(mut harness: Harness<ZooKeeperService>) -> Played {
        let open = encoded(&Op::Open { password: PASSWORD, timeout_ms: 10_000 });
        let attached = |_| match checked(&harness.run(&open)) {
            op::Outcome::Attached { to, .. } => to,
            other => panic!("a session is opened, not {other:?}"),
        };
        let sessions = (0..SESSIONS).map(attached).collect();
        Played { harness, sessions, now_ms: 1_000_000 }
    }

    /// Plays rows: who and what, a length of two bytes, and as many bytes. Ends with the numbers
    /// of the last outcomes.
    fn rows(&mut self, mut bytes: &[u8]) -> [(u8, i64, usize); 2] {
        let mut last = [(0, 0, 0); 2];
        for _ in 0..ROWS_MAX {
            let Some(([who, what, low, high], rest)) = bytes.split_first_chunk::<4>() else {
                break;
            };
            let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
            let (body, rest) = rest.split_at(len);
            bytes = rest;
            if let Some(outcome) = self.row(*who, *what, body) {
                last = [last[1], outcome];
            }
        }
        last
    }

    fn row(&mut self, who: u8, what: u8, body: &[u8]) -> Option<(u8, i64, usize)> {
        let op = match who % 8 {
            // Time goes on, in steps that the session clock takes as they are.
            7 => {
                for _ in 0..what {
                    self.now_ms += 500;
                    self.harness.tick(AgreedTime(self.now_ms * 1_000_000));
                }
                return None;
            }
            6 => match what % 4 {
                0 => Op::Renew(self.sessions.clone()),
                1 => Op::Leave(self.sessions[0]),
                2 => {
                    let (session, password) = (self.sessions[1].0, PASSWORD);
                    Op::Resume { session, password, timeout_ms: 5_000, last_zxid: 0 }
                }
                _ => Op::Stats,
            },
            session => {
                let from = self.sessions[usize::from(session) % SESSIONS];
                Op::Request { from, kind: i32::from(what.cast_signed()), body }
            }
        };
        let result = self.harness.run(&encoded(&op));
        let outcome = checked(&result);
        if let op::Outcome::Attached { to, .. } = outcome {
            self.sessions[1] = to;
        }
        Some(told(&outcome))
    }
}

/// Requests of two sessions, one after the other, on a new service each time; between them time
/// goes on, and sessions are renewed, left and resumed.
pub fn requests() -> Run {
    Box::new(move |bytes| Outcome::of(Played::new(harness()).rows(bytes)))
}

fn create(path: &str, flags: i32) -> Vec<u8> {
    jute(|w| {
        w.text(path).buffer(Some(b"data")).count(1).int(31).text("world").text("anyone").int(flags);
    })
}

fn row(who: u8, what: i32, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).expect("samples are small").to_le_bytes();
    // Types of requests that do not fit are there as inputs of the operation's own target.
    [&[who, (what & 0xff) as u8, len[0], len[1]], body].concat()
}

/// Requests of every kind.
#[must_use]
pub fn requests_seeds() -> Vec<Vec<u8>> {
    let text = |path: &str| jute(|w| _ = w.text(path));
    let number = |path: &str, number| jute(|w| _ = w.text(path).int(number));
    let watched = |path: &str| jute(|w| _ = w.text(path).bool(true));
    let set = |path: &str| jute(|w| _ = w.text(path).buffer(Some(b"more")).int(-1));
    let head = |w: &mut JuteWriter<'_>, what, done| _ = w.int(what).bool(done).int(-1);
    let multi = jute(|w| {
        head(w, kind::CREATE, false);
        w.raw(&create("/a/m", 0));
        head(w, kind::SET_DATA, false);
        w.raw(&set("/a"));
        head(w, kind::CHECK, false);
        w.raw(&number("/a/m", 0));
        head(w, kind::DELETE, false);
        w.raw(&number("/a/m", -1));
        head(w, kind::ERROR, true);
    });
    let multi_read = jute(|w| {
        head(w, kind::GET_DATA, false);
        w.raw(&watched("/a"));
        head(w, kind::GET_CHILDREN, false);
        w.raw(&watched("/a"));
        head(w, kind::ERROR, true);
    });
    let ttl = [create("/t", 5), 500i64.to_be_bytes().to_vec()].concat();
    let set_watches = jute(|w| {
        w.long(0);
        for path in ["/a", "/b", "/a", "/", "/a"] {
            w.count(1).text(path);
        }
    });
    let auth = jute(|w| _ = w.int(0).text("digest").buffer(Some(b"user:password")));
    let acl = jute(|w| _ = w.text("/a").count(1).int(31).text("auth").text("").int(-1));
    let rows = [
        row(0, kind::CREATE, &create("/a", 0)),
        row(1, kind::GET_DATA, &watched("/a")),
        row(1, kind::EXISTS, &watched("/b")),
        row(1, kind::GET_CHILDREN2, &watched("/a")),
        row(1, kind::ADD_WATCH, &number("/", 1)),
        row(0, kind::CREATE2, &create("/a/s-", 3)),
        row(0, kind::CREATE_CONTAINER, &create("/b", 4)),
        row(0, kind::CREATE_TTL, &ttl),
        row(0, kind::SET_DATA, &set("/a")),
        row(0, kind::MULTI, &multi),
        row(1, kind::MULTI_READ, &multi_read),
        row(0, kind::AUTH, &auth),
        row(0, kind::SET_ACL, &acl),
        row(0, kind::GET_ACL, &text("/a")),
        row(0, kind::SYNC, &text("/a")),
        row(1, kind::SET_WATCHES, &set_watches),
        row(1, kind::SET_WATCHES2, &set_watches),
        row(1, kind::CHECK_WATCHES, &number("/a", 3)),
        row(1, kind::REMOVE_WATCHES, &number("/", 3)),
        row(0, kind::GET_EPHEMERALS, &text("/")),
        row(0, kind::GET_ALL_CHILDREN_NUMBER, &text("/")),
        row(0, kind::WHO_AM_I, b""),
        row(6, 0, b""),
        row(0, kind::DELETE, &number("/b", 0)),
        row(7, 4, b""),
        row(6, 2, b""),
    ];
    let mut all = vec![rows.concat()];
    all.extend(rows.windows(2).map(|two| [&rows[0], &two[0], &two[1]].map(Vec::as_slice).concat()));
    all.push([&rows[0][..], &rows[5], &row(6, 1, b""), &row(7, 60, b"")].concat());
    all.push([&rows[0][..], &rows[1], &row(0, kind::CLOSE, b""), &rows[8]].concat());
    all
}

/// `svc::zk::jute`: what is read by a row of types is written as the same bytes.
pub fn jute_values() -> Run {
    Box::new(|bytes| {
        let Some((types, values)) = bytes.split_first_chunk::<8>() else {
            return Outcome::of("empty");
        };
        let (mut r, mut out, mut seen) = (JuteReader::new(values), vec![], (0, 0));
        for kind in types {
            let mut w = JuteWriter::new(&mut out);
            let read = match kind % 6 {
                0 => r.int("int").map(|value| _ = w.int(value)),
                1 => r.long("long").map(|value| _ = w.long(value)),
                2 => r.buffer("buffer").map(|value| _ = w.buffer(value)),
                3 => r.text("text").map(|value| _ = w.text(value)),
                4 => r.path("path").map(|value| _ = w.text(value)),
                _ => {
                    let from = r.rest();
                    r.paths("paths").map(|paths| {
                        // None of them may be written in two ways.
                        if paths.is_empty() {
                            w.raw(&from[..4]);
                        } else {
                            w.count(paths.len());
                        }
                        paths.iter().for_each(|path| _ = w.text(path));
                    })
                }
            };
            match read {
                Ok(()) => seen = (seen.0 + 1, kind % 6),
                Err(error) => return Outcome::of((error.0, seen)),
            }
        }
        assert!(out == values[..values.len() - r.rest().len()], "one value, one encoding");
        Outcome::of((seen, r.is_empty()))
    })
}

/// A row of values of each type.
#[must_use]
pub fn jute_seeds() -> Vec<Vec<u8>> {
    let row = jute(|w| {
        w.int(-2).long(7).buffer(None).text("text").text("/path").count(2).text("/a").text("/b");
        w.int(1).buffer(Some(b"bytes"));
    });
    let lists = jute(|w| {
        (0..8).for_each(|_| _ = w.count(1).text("/a"));
    });
    vec![[&[0, 1, 2, 3, 4, 5, 0, 2][..], &row].concat(), [&[5; 8][..], &lists].concat()]
}

/// `node::zookeeper::wire`: a greeting or a word, then requests, as a gateway cuts them.
pub fn frames() -> Run {
    Box::new(|bytes| {
        let mut at = match wire::begin(bytes) {
            Err(error) => return Outcome::of(error.0),
            Ok(None) => return Outcome::of("more"),
            Ok(Some(Begin::Word(word))) => return Outcome::of(word.map(|byte| byte % 3)),
            Ok(Some(Begin::Greeting(greeting, taken))) => {
                assert!((1..taken).all(|part| wire::begin(&bytes[..part]) == Ok(None)));
                let mut out = vec![];
                let session = Some((greeting.session, greeting.timeout_ms, greeting.password));
                wire::welcome(&mut out, session, &greeting);
                let (answer, len) = wire::frame(&out).expect("a frame").expect("all of it");
                assert_eq!(len, out.len());
                let plain = 36 + usize::from(greeting.read_only.is_some());
                assert_eq!(answer.len(), plain);
                taken
            }
        };
        let mut count = 0usize;
        loop {
            match wire::frame(&bytes[at..]) {
                Err(error) => return Outcome::of((error.0, count.min(3))),
                Ok(None) => return Outcome::of(("more", count.min(3))),
                Ok(Some((body, taken))) => {
                    assert_eq!(taken, 4 + body.len());
                    at += taken;
                    let Ok((xid, kind, rest)) = wire::request(body) else {
                        return Outcome::of(("short", count.min(3)));
                    };
                    let mut again = vec![];
                    wire::framed(&mut again, |w| _ = w.int(xid).int(kind).raw(rest));
                    assert!(again == bytes[at - taken..at], "one request, one encoding");
                    count += 1;
                }
            }
        }
    })
}

/// A greeting as a client sends it.
#[must_use]
pub fn greeting(read_only: Option<bool>, session: u64, timeout_ms: i32) -> Vec<u8> {
    let mut out = vec![];
    wire::framed(&mut out, |w| {
        w.int(0).long(0).int(timeout_ms).long(session.cast_signed()).buffer(Some(&[0; 16]));
        if let Some(read_only) = read_only {
            w.bool(read_only);
        }
    });
    out
}

/// A request as a client sends it.
#[must_use]
pub fn request(xid: i32, kind: i32, body: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    wire::framed(&mut out, |w| _ = w.int(xid).int(kind).raw(body));
    out
}

/// A client's connections, of the time that each session may be silent at least.
#[must_use]
pub fn frames_seeds() -> Vec<Vec<u8>> {
    let rows = requests_seeds();
    let mut requests = vec![];
    let mut rest = &rows[0][..];
    while let Some(([_, what, low, high], tail)) = rest.split_first_chunk::<4>() {
        let (body, tail) = tail.split_at(usize::from(u16::from_le_bytes([*low, *high])));
        requests.push(request(requests.len() as i32, i32::from(what.cast_signed()), body));
        rest = tail;
    }
    let mut all = vec![b"ruok".to_vec(), b"mntr".to_vec(), greeting(Some(false), 5, 2_000)];
    all.push([greeting(None, 0, 2_000), requests.concat()].concat());
    let close = [request(-2, kind::PING, b""), request(9, kind::CLOSE, b"")].concat();
    let one = |request| [greeting(Some(true), 0, 2_000), request, close.clone()].concat();
    all.extend(requests.into_iter().map(one));
    all
}
