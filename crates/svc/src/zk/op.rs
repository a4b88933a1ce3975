//! Operations of the coordination service: what a gateway puts into a frame, and what comes back.
//!
//! ```text
//! u8 version = 1
//! u8 kind: 1 open, 2 resume, 3 request, 4 renew, 5 leave, 6 stats
//! open:     16 bytes password, u32 timeout in ms
//! resume:   u64 session, 16 bytes password, u32 timeout in ms, i64 last zxid seen
//! request:  u64 session, u64 connection, i32 ZooKeeper's type (as u32), its body in jute
//! renew:    u32 number, each: u64 session, u64 connection
//! leave:    u64 session, u64 connection
//!
//! result: u8 kind
//! 1 attached: u64 session, u64 connection, u32 timeout in ms
//! 2 refused:  u8 why
//! 3 response: events, u32 error, i64 zxid, the body in jute
//! 4 events:   i64 zxid; u32 number, each: u64 session, u64 connection, events
//!             u32 number of sessions gone, each: u64 session, u64 connection; u8 whether more wait
//! 5 stats:    u64 each: zxid, nodes, ephemeral nodes, bytes of data, watches, sessions
//! events:     u64 number of the first, u32 count, each: u8 kind, u32 length, path
//! ```
//!
//! Numbers of the envelope are little-endian. A *connection* is one attachment of a session to a
//! gateway: watches, credentials and events belong to it, as they do in ZooKeeper. Everything that
//! a connection is told is numbered from 0, events and responses alike, in the order in which it
//! came to be; a response has the number after those of the events that come with it. Each event
//! is handed over once, in a response or in a result of *renew*, and whoever gets results out of
//! order puts them in order by number: so no event overtakes the response that set the watch, and
//! no response the event of what it shows.

use base::{Malformed, Reader, Writer};

const VERSION: u8 = 1;
/// Bytes of a session's password.
pub const PASSWORD_BYTES: usize = 16;
/// Most sessions that one *renew* names.
pub const RENEW_MAX: usize = 65_536;

/// An attachment of a session: session and connection.
pub type Attachment = (u64, u64);

/// An operation, borrowed from its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op<'a> {
    /// Opens a session, attached to the gateway that asks.
    Open {
        /// Chosen by the gateway at random; proves later that somebody is the session's client.
        password: [u8; PASSWORD_BYTES],
        /// After how long of silence the session is to be over.
        timeout_ms: u32,
    },
    /// Attaches a session anew.
    Resume {
        /// The session.
        session: u64,
        /// Its password.
        password: [u8; PASSWORD_BYTES],
        /// After how long of silence the session is to be over from now on.
        timeout_ms: u32,
        /// The newest state the client has seen anything of.
        last_zxid: i64,
    },
    /// A request of ZooKeeper's.
    Request {
        /// The session and its connection.
        from: Attachment,
        /// ZooKeeper's number of the operation.
        kind: i32,
        /// What follows the request's header.
        body: &'a [u8],
    },
    /// These sessions' clients live; and what has happened to the sessions of this gateway?
    Renew(Vec<Attachment>),
    /// The connection is gone; the session waits for its client until it expires.
    Leave(Attachment),
    /// How much there is.
    Stats,
}

/// A watch that fired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// ZooKeeper's number of the event: 1 created, 2 deleted, 3 changed, 4 children changed.
    pub kind: u8,
    /// Where.
    pub path: Box<str>,
}

/// Consecutive events of one connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Events {
    /// The number of the first one.
    pub first: u64,
    /// In order.
    pub list: Vec<Event>,
}

/// Why a session was not attached, or a request not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// There is no such session any more.
    Expired = 1,
    /// The password is another one.
    Password = 2,
    /// The session is attached elsewhere.
    Moved = 3,
    /// The client has seen a state that this group has not come to.
    Ahead = 4,
    /// There are too many sessions.
    Crowded = 5,
    /// The bytes are no operation.
    Malformed = 6,
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Where in the total order this was asked.
    pub zxid: u64,
    /// Number of nodes.
    pub nodes: u64,
    /// Those that go with their session.
    pub ephemerals: u64,
    /// Bytes of data and paths.
    pub bytes: u64,
    /// Watches that are set.
    pub watches: u64,
    /// Sessions that are open.
    pub sessions: u64,
}

/// What an operation comes back with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome<'a> {
    /// The session is attached to the gateway that asked.
    Attached {
        /// The session and its new connection.
        to: Attachment,
        /// What was made of the timeout.
        timeout_ms: u32,
    },
    /// It is not.
    Refused(Refusal),
    /// The answer to a request.
    Response {
        /// What the client is to be told first.
        events: Events,
        /// ZooKeeper's number; 0 for none.
        error: i32,
        /// Where in the total order the request was executed.
        zxid: i64,
        /// What follows the response's header.
        body: &'a [u8],
    },
    /// What has happened.
    Happened {
        /// Where in the total order this was asked.
        zxid: i64,
        /// The events of each connection that has some.
        events: Vec<(Attachment, Events)>,
        /// Those that were named and are no more, or are attached elsewhere.
        gone: Vec<Attachment>,
        /// Whether there is more than was fit to send.
        more: bool,
    },
    /// How much there is.
    Stats(Stats),
}

impl Op<'_> {
    /// Appends the operation.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        w.u8(VERSION);
        match self {
            Op::Open { password, timeout_ms } => w.u8(1).bytes(password).u32(*timeout_ms),
            Op::Resume { session, password, timeout_ms, last_zxid } => {
                w.u8(2).u64(*session).bytes(password).u32(*timeout_ms).i64(*last_zxid)
            }
            Op::Request { from, kind, body } => {
                attachment(w.u8(3), *from).u32(kind.cast_unsigned()).bytes(body)
            }
            Op::Renew(sessions) => {
                w.u8(4).count(sessions.len());
                sessions.iter().for_each(|session| {
                    attachment(&mut w, *session);
                });
                &mut w
            }
            Op::Leave(from) => attachment(w.u8(5), *from),
            Op::Stats => w.u8(6),
        };
    }

    /// Reads an operation.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Op<'_>, Malformed> {
        let mut r = Reader::new(bytes);
        if r.u8("version of the operation")? != VERSION {
            return Err(Malformed("version of the operation"));
        }
        let op = match r.u8("kind of the operation")? {
            1 => Op::Open { password: r.array("password")?, timeout_ms: r.u32("timeout")? },
            2 => Op::Resume {
                session: r.u64("session")?,
                password: r.array("password")?,
                timeout_ms: r.u32("timeout")?,
                last_zxid: r.i64("last zxid")?,
            },
            3 => {
                let (from, kind) = (attached(&mut r)?, r.u32("type")?.cast_signed());
                return Ok(Op::Request { from, kind, body: r.rest() });
            }
            4 => {
                let count = r.count(RENEW_MAX, 16, "sessions to renew")?;
                Op::Renew((0..count).map(|_| attached(&mut r)).collect::<Result<_, _>>()?)
            }
            5 => Op::Leave(attached(&mut r)?),
            6 => Op::Stats,
            _ => return Err(Malformed("kind of the operation")),
        };
        r.finish("operation")?;
        Ok(op)
    }
}

impl Outcome<'_> {
    /// Appends the outcome.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        match self {
            Outcome::Attached { to, timeout_ms } => {
                attachment(w.u8(1), *to).u32(*timeout_ms);
            }
            Outcome::Refused(why) => {
                w.u8(2).u8(*why as u8);
            }
            Outcome::Response { events, error, zxid, body } => {
                events.encode(w.u8(3));
                w.u32(error.cast_unsigned()).i64(*zxid).bytes(body);
            }
            Outcome::Happened { zxid, events, gone, more } => {
                w.u8(4).i64(*zxid).count(events.len());
                for (to, events) in events {
                    events.encode(attachment(&mut w, *to));
                }
                w.count(gone.len());
                gone.iter().for_each(|session| {
                    attachment(&mut w, *session);
                });
                w.u8(u8::from(*more));
            }
            Outcome::Stats(stats) => {
                w.u8(5).u64(stats.zxid).u64(stats.nodes).u64(stats.ephemerals);
                w.u64(stats.bytes).u64(stats.watches).u64(stats.sessions);
            }
        }
    }

    /// Reads an outcome.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Outcome<'_>, Malformed> {
        let mut r = Reader::new(bytes);
        let outcome = match r.u8("kind of the outcome")? {
            1 => Outcome::Attached { to: attached(&mut r)?, timeout_ms: r.u32("timeout")? },
            2 => Outcome::Refused(Refusal::decode(r.u8("refusal")?)?),
            3 => {
                let events = Events::decode(&mut r)?;
                let (error, zxid) = (r.u32("error")?.cast_signed(), r.i64("zxid")?);
                return Ok(Outcome::Response { events, error, zxid, body: r.rest() });
            }
            4 => {
                let zxid = r.i64("zxid")?;
                let mut events = Vec::new();
                for _ in 0..r.count(usize::MAX, 28, "sessions with events")? {
                    events.push((attached(&mut r)?, Events::decode(&mut r)?));
                }
                let count = r.count(usize::MAX, 16, "sessions gone")?;
                let gone = (0..count).map(|_| attached(&mut r)).collect::<Result<_, _>>()?;
                let more = match r.u8("more")? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed("more")),
                };
                Outcome::Happened { zxid, events, gone, more }
            }
            5 => Outcome::Stats(Stats {
                zxid: r.u64("zxid")?,
                nodes: r.u64("nodes")?,
                ephemerals: r.u64("ephemerals")?,
                bytes: r.u64("bytes")?,
                watches: r.u64("watches")?,
                sessions: r.u64("sessions")?,
            }),
            _ => return Err(Malformed("kind of the outcome")),
        };
        r.finish("outcome")?;
        Ok(outcome)
    }
}

impl Refusal {
    fn decode(byte: u8) -> Result<Refusal, Malformed> {
        let all = [
            Refusal::Expired,
            Refusal::Password,
            Refusal::Moved,
            Refusal::Ahead,
            Refusal::Crowded,
            Refusal::Malformed,
        ];
        all.into_iter().find(|why| *why as u8 == byte).ok_or(Malformed("refusal"))
    }
}

impl Event {
    /// Bytes that [`Event::encode`] appends.
    pub(super) fn encoded_len(&self) -> usize {
        5 + self.path.len()
    }

    pub(super) fn encode(&self, w: &mut Writer<'_>) {
        w.u8(self.kind).sized(self.path.as_bytes());
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Event, Malformed> {
        let kind = r.u8("kind of an event")?;
        let path = std::str::from_utf8(r.sized(usize::MAX, "path")?);
        Ok(Event { kind, path: path.map_err(|_| Malformed("path"))?.into() })
    }
}

impl Events {
    fn encode(&self, w: &mut Writer<'_>) {
        w.u64(self.first).count(self.list.len());
        self.list.iter().for_each(|event| event.encode(w));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Events, Malformed> {
        let first = r.u64("number of an event")?;
        let count = r.count(usize::MAX, 5, "events")?;
        let list = (0..count).map(|_| Event::decode(r)).collect::<Result<_, _>>()?;
        Ok(Events { first, list })
    }
}

fn attachment<'w, 'a>(w: &'w mut Writer<'a>, of: Attachment) -> &'w mut Writer<'a> {
    w.u64(of.0).u64(of.1)
}

fn attached(r: &mut Reader<'_>) -> Result<Attachment, Malformed> {
    Ok((r.u64("session")?, r.u64("connection")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_back_and_truncations_refused() {
        let ops = [
            Op::Open { password: [7; 16], timeout_ms: 4000 },
            Op::Resume { session: 1, password: [8; 16], timeout_ms: 1, last_zxid: -1 },
            Op::Request { from: (1, 2), kind: -11, body: b"body" },
            Op::Renew(vec![(1, 2), (3, 4)]),
            Op::Leave((1, 2)),
            Op::Stats,
        ];
        for op in ops {
            let mut out = vec![];
            op.encode(&mut out);
            assert_eq!(Op::decode(&out), Ok(op.clone()));
            let open = matches!(op, Op::Request { .. });
            for len in 0..out.len() - if open { 4 } else { 0 } {
                assert!(Op::decode(&out[..len]).is_err(), "{op:?} cut to {len}");
            }
            out.push(0);
            assert_eq!(Op::decode(&out).is_ok(), open);
        }
    }

    #[test]
    fn outcomes_are_read_back_and_truncations_refused() {
        let event = Event { kind: 3, path: "/a".into() };
        let events = Events { first: 9, list: vec![event.clone(), event] };
        let outcomes = [
            Outcome::Attached { to: (1, 2), timeout_ms: 3 },
            Outcome::Refused(Refusal::Ahead),
            Outcome::Response { events: events.clone(), error: -101, zxid: 5, body: b"" },
            Outcome::Happened {
                zxid: 6,
                events: vec![((1, 2), events)],
                gone: vec![(3, 4)],
                more: true,
            },
            Outcome::Stats(Stats { nodes: 5, ..Stats::default() }),
        ];
        for outcome in outcomes {
            let mut out = vec![];
            outcome.encode(&mut out);
            assert_eq!(Outcome::decode(&out), Ok(outcome.clone()));
            for len in 0..out.len() {
                assert!(Outcome::decode(&out[..len]).is_err(), "{outcome:?} cut to {len}");
            }
        }
        assert!(Outcome::decode(&[2, 0]).is_err());
        let nothing = Outcome::Happened { zxid: 6, events: vec![], gone: vec![], more: true };
        let mut out = vec![];
        nothing.encode(&mut out);
        *out.last_mut().expect("whether there is more") = 2;
        assert!(Outcome::decode(&out).is_err(), "one outcome, one encoding");
    }
}
