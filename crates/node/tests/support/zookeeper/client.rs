//! A client of ZooKeeper's protocol that does what ZooKeeper's own does about sessions and
//! watches, and writes down everything that it is told, in order.
//!
//! One request is under way at a time. A connection that is lost is replaced by one to the next
//! address, with the session's id and password, and the watches are set anew before anything
//! else is asked.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use svc::zk::jute::{JuteReader, JuteWriter};
use svc::zk::kind;

/// How long a read waits before the client looks at what else there is to do.
const TURN: Duration = Duration::from_millis(10);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(40);
const EVENT_XID: i32 = -1;
const PING_XID: i32 = -2;
const SET_WATCHES_XID: i32 = -8;
/// ZooKeeper's numbers of errors.
pub const NO_NODE: i32 = -101;
pub const NODE_EXISTS: i32 = -110;

/// Which of a client's watches one is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// Of a node that was there.
    Data,
    /// Of a node that was not.
    Exist,
    Child,
    /// Until it is removed.
    Persistent,
    /// The same, for everything below, too.
    Recursive,
}

/// What a client was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// A response from this place in the total order.
    Reply {
        zxid: i64,
    },
    /// That response has set a watch; what it said of the node, if there was one.
    Watch {
        path: String,
        way: Way,
        zxid: i64,
        stat: Option<Stat>,
    },
    Event {
        kind: i32,
        path: String,
    },
    /// Nothing more on this connection.
    Lost,
    /// There is another one; the watches are being set anew.
    Back,
    /// They are.
    Reset {
        zxid: i64,
    },
}

/// What is known of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    pub czxid: i64,
    pub mzxid: i64,
    /// Agreed time of the last write, in ms.
    pub mtime: i64,
    pub version: i32,
    pub pzxid: i64,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Reply {
    pub zxid: i64,
    pub error: i32,
    pub body: Vec<u8>,
}

/// Why there is no response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The connection is gone, and whether the request was executed is open. It never will be
    /// once the client has another connection.
    Lost,
    /// The session is over.
    Expired,
}

pub struct Client {
    addresses: Vec<String>,
    at: usize,
    session: i64,
    password: [u8; 16],
    timeout: Duration,
    last_zxid: i64,
    wire: Option<Wire>,
    xid: i32,
    watches: BTreeSet<(Way, String)>,
    /// Pings that were sent.
    pub pings: u64,
    /// When the group answered last.
    answered: Instant,
    pub log: Vec<Told>,
}

/// A connection, and when something went through it.
struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    sent: Instant,
    heard: Instant,
}

/// Bytes in ZooKeeper's encoding.
pub fn jute(write: impl FnOnce(&mut JuteWriter<'_>)) -> Vec<u8> {
    let mut out = vec![];
    write(&mut JuteWriter::new(&mut out));
    out
}

impl Wire {
    fn open(address: &str) -> std::io::Result<Wire> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TURN))?;
        let (sent, heard) = (Instant::now(), Instant::now());
        Ok(Wire { stream, input: vec![], sent, heard })
    }

    fn send(&mut self, body: &[u8]) -> std::io::Result<()> {
        self.sent = Instant::now();
        let head = u32::try_from(body.len()).expect("small").to_be_bytes();
        self.stream.write_all(&[&head[..], body].concat())
    }

    /// The next frame; `None` when none came within a turn.
    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            if let Some((head, rest)) = self.input.split_first_chunk::<4>() {
                let len = u32::from_be_bytes(*head) as usize;
                if rest.len() >= len {
                    let frame = rest[..len].to_vec();
                    self.input.drain(..4 + len);
                    return Ok(Some(frame));
                }
            }
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.heard = Instant::now();
                    self.input.extend_from_slice(&bytes[..read]);
                }
                Err(error) if is_pause(error.kind()) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_pause(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Stat {
    pub fn read(r: &mut JuteReader<'_>) -> Stat {
        let long = |r: &mut JuteReader<'_>| r.long("stat").expect("a stat");
        let int = |r: &mut JuteReader<'_>| r.int("stat").expect("a stat");
        let [czxid, mzxid, _, mtime] = [(); 4].map(|()| long(r));
        let [version, ..] = [(); 3].map(|()| int(r));
        let _owner = long(r);
        let _lengths = [(); 2].map(|()| int(r));
        Stat { czxid, mzxid, mtime, version, pzxid: long(r) }
    }
}

impl Reply {
    /// The stat with which a response ends.
    pub fn stat(&self) -> Option<Stat> {
        let at = self.body.len().checked_sub(68)?;
        (self.error == 0).then(|| Stat::read(&mut JuteReader::new(&self.body[at..])))
    }
}

impl Client {
    /// A client without a session; the first request opens one.
    pub fn new(addresses: &[String], first: usize, timeout: Duration) -> Client {
        Client {
            addresses: addresses.to_vec(),
            at: first,
            session: 0,
            password: [0; 16],
            timeout,
            last_zxid: 0,
            wire: None,
            xid: 0,
            watches: BTreeSet::new(),
            pings: 0,
            answered: Instant::now(),
            log: vec![],
        }
    }

    pub fn is_connected(&self) -> bool {
        self.wire.is_some()
    }

    /// Asks, and waits for the response. What comes before it is written down.
    pub fn call(&mut self, kind: i32, body: &[u8]) -> Result<Reply, Failure> {
        self.connect()?;
        self.xid += 1;
        let xid = self.xid;
        let head = jute(|w| {
            w.int(xid).int(kind).raw(body);
        });
        let wire = self.wire.as_mut().expect("it is connected");
        if wire.send(&head).is_err() {
            return Err(self.lose());
        }
        loop {
            if let Some(reply) = self.turn(Some(xid))? {
                return Ok(reply);
            }
        }
    }

    /// The same for what may be asked as often as one likes: until there is a response.
    pub fn ask(&mut self, kind: i32, body: &[u8]) -> Result<Reply, Failure> {
        loop {
            match self.call(kind, body) {
                Err(Failure::Lost) => {}
                other => return other,
            }
        }
    }

    /// Reads, and leaves a watch.
    pub fn watch(&mut self, kind: i32, path: &str) -> Result<Reply, Failure> {
        let body = jute(|w| {
            w.text(path).bool(true);
        });
        let reply = self.call(kind, &body)?;
        let way = match (kind, reply.error) {
            (kind::GET_CHILDREN2, 0) => Way::Child,
            (_, 0) => Way::Data,
            (kind::EXISTS, NO_NODE) => Way::Exist,
            _ => return Ok(reply),
        };
        self.note_watch(way, path, &reply);
        Ok(reply)
    }

    /// Sets a persistent watch, a recursive one if asked for.
    pub fn watch_on(&mut self, path: &str, way: Way) -> Result<Reply, Failure> {
        let body = jute(|w| {
            w.text(path).int(i32::from(way == Way::Recursive));
        });
        let reply = self.call(kind::ADD_WATCH, &body)?;
        assert_eq!(reply.error, 0, "addWatch {path}");
        self.note_watch(way, path, &reply);
        Ok(reply)
    }

    fn note_watch(&mut self, way: Way, path: &str, reply: &Reply) {
        self.watches.insert((way, path.to_owned()));
        let (path, stat) = (path.to_owned(), reply.stat());
        self.log.push(Told::Watch { path, way, zxid: reply.zxid, stat });
    }

    /// Whether the client waits for a path to change.
    pub fn watches(&self, path: &str) -> bool {
        self.watches.iter().any(|(_, own)| own == path)
    }

    /// Listens and pings for so long, connected or on the way to be.
    pub fn idle(&mut self, span: Duration) -> Result<(), Failure> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.connect()?;
            match self.turn(None) {
                Ok(_) | Err(Failure::Lost) => {}
                Err(Failure::Expired) => return Err(Failure::Expired),
            }
        }
        Ok(())
    }

    /// Dies: the connection is gone, and nothing is ever said again.
    pub fn die(mut self) -> Vec<Told> {
        self.wire = None;
        self.log
    }

    fn lose(&mut self) -> Failure {
        self.wire = None;
        self.at += 1;
        self.log.push(Told::Lost);
        Failure::Lost
    }

    /// Reads a frame if one comes, and pings. The response `xid`, if this was it.
    fn turn(&mut self, xid: Option<i32>) -> Result<Option<Reply>, Failure> {
        let timeout = self.timeout;
        let Some(wire) = &mut self.wire else { return Err(Failure::Lost) };
        if wire.sent.elapsed() > timeout / 3 {
            self.pings += 1;
            let ping = jute(|w| {
                w.int(PING_XID).int(kind::PING);
            });
            if wire.send(&ping).is_err() {
                return Err(self.lose());
            }
        }
        match wire.next() {
            Ok(Some(frame)) => Ok(self.hear(&frame, xid)),
            Ok(None) if wire.heard.elapsed() > timeout * 2 / 3 => Err(self.lose()),
            Ok(None) => Ok(None),
            Err(_) => Err(self.lose()),
        }
    }

    fn hear(&mut self, frame: &[u8], wanted: Option<i32>) -> Option<Reply> {
        let mut r = JuteReader::new(frame);
        let mut int = || r.int("header").expect("a header");
        let xid = int();
        let zxid = r.long("zxid").expect("a header");
        let error = r.int("error").expect("a header");
        self.last_zxid = if zxid > 0 { zxid } else { self.last_zxid };
        match xid {
            EVENT_XID => {
                let (kind, state) = (r.int("kind").expect("one"), r.int("state").expect("one"));
                assert_eq!(state, 3, "it is connected");
                let path = r.text("path").expect("one").to_owned();
                self.forget(kind, &path);
                self.log.push(Told::Event { kind, path });
                None
            }
            PING_XID => None,
            SET_WATCHES_XID => {
                assert_eq!(error, 0, "setWatches");
                self.log.push(Told::Reset { zxid });
                None
            }
            xid => {
                assert_eq!(Some(xid), wanted, "a response to what was asked");
                self.log.push(Told::Reply { zxid });
                self.answered = Instant::now();
                Some(Reply { zxid, error, body: r.rest().to_vec() })
            }
        }
    }

    /// Watches that fire once are gone when they have.
    fn forget(&mut self, kind: i32, path: &str) {
        let gone = |way: Way| match kind {
            4 => way == Way::Child,
            2 => way <= Way::Child,
            _ => way <= Way::Exist,
        };
        self.watches.retain(|(way, own)| own != path || !gone(*way));
    }

    fn connect(&mut self) -> Result<(), Failure> {
        while self.wire.is_none() {
            let address = self.addresses[self.at % self.addresses.len()].clone();
            match self.greet(&address) {
                Ok(true) => {}
                Ok(false) => {
                    let (silent, timeout) = (self.answered.elapsed(), self.timeout);
                    eprintln!("a session of {timeout:?} is over; {silent:?} after a response");
                    return Err(Failure::Expired);
                }
                Err(_) => {
                    self.at += 1;
                    std::thread::sleep(PAUSE);
                }
            }
        }
        Ok(())
    }

    /// Connects to a gateway; false when the session is over.
    fn greet(&mut self, address: &str) -> std::io::Result<bool> {
        let mut wire = Wire::open(address)?;
        let (session, timeout_ms) = (self.session, i32::try_from(self.timeout.as_millis()));
        let greeting = jute(|w| {
            w.int(0).long(self.last_zxid).int(timeout_ms.expect("a minute at most"));
            w.long(session).buffer(Some(&self.password)).bool(false);
        });
        wire.send(&greeting)?;
        let frame = loop {
            if let Some(frame) = wire.next()? {
                break frame;
            }
            if wire.heard.elapsed() > self.timeout {
                return Err(ErrorKind::TimedOut.into());
            }
        };
        let mut r = JuteReader::new(&frame);
        r.int("version").expect("an answer");
        let granted = r.int("timeout").expect("an answer");
        self.session = r.long("session").expect("an answer");
        let password = r.buffer("password").expect("an answer").unwrap_or(&[]);
        self.password = password.try_into().expect("16 bytes");
        if granted <= 0 {
            assert_ne!(session, 0, "a new session is granted");
            return Ok(false);
        }
        assert!(session == 0 || session == self.session, "the session is the same");
        self.timeout = Duration::from_millis(granted.unsigned_abs().into());
        if !self.watches.is_empty() {
            self.log.push(Told::Back);
            wire.send(&self.set_watches())?;
        }
        self.wire = Some(wire);
        Ok(true)
    }

    fn set_watches(&self) -> Vec<u8> {
        jute(|w| {
            w.int(SET_WATCHES_XID).int(kind::SET_WATCHES2).long(self.last_zxid);
            for way in [Way::Data, Way::Exist, Way::Child, Way::Persistent, Way::Recursive] {
                let own = self.watches.iter().filter(|(own, _)| *own == way);
                w.count(own.clone().count());
                own.for_each(|(_, path)| {
                    w.text(path);
                });
            }
        })
    }
}
