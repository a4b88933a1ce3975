//! A session: who may speak for it, when it ends, and what is to be told to its client.

use std::collections::VecDeque;

use base::{ClientId, Malformed, Reader, SessionId, Writer};

use super::acl::Id;
use super::op::{Event, Events, PASSWORD_BYTES};

/// Least timeout of a session, in ms.
pub const TIMEOUT_MIN_MS: u32 = 2_000;
/// Greatest timeout of a session, in ms.
pub const TIMEOUT_MAX_MS: u32 = 60_000;
/// How old the record of a session's last sign of life may be, in ms: within so short a time
/// after one, another is not written down. The session lives longer by as much.
pub const HEARD_GRAIN_MS: u64 = 100;
/// Most events that wait for a session.
const EVENTS_MAX: usize = 4096;
/// Most bytes of paths of events that wait for a session.
const EVENT_BYTES_MAX: usize = 1 << 20;
/// Most ids that a connection proves.
const PROVED_MAX: usize = 64;

/// The gateway that a session is attached to: a principal and its session with the group.
pub type Gateway = (ClientId, SessionId);

/// A session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    pub(super) password: [u8; PASSWORD_BYTES],
    pub(super) timeout_ms: u32,
    /// The last sign of life that was written down, on the session clock.
    pub(super) heard: u64,
    pub(super) gateway: Gateway,
    /// The connection; 0 when there is none.
    pub(super) connection: u64,
    /// What the connection was told: events that were handed over, and responses.
    pub(super) told: u64,
    pub(super) events: VecDeque<Event>,
    /// What the connection has proved to be.
    pub(super) proved: Vec<Id>,
    /// Bytes of the events and of the proved ids as they are encoded.
    bytes: usize,
    /// Bytes of the events' paths.
    path_bytes: usize,
}

impl Session {
    /// A session of a client that was heard of just now.
    #[must_use]
    pub fn new(password: [u8; PASSWORD_BYTES], timeout_ms: u32, heard: u64) -> Session {
        Session {
            password,
            timeout_ms: timeout_ms.clamp(TIMEOUT_MIN_MS, TIMEOUT_MAX_MS),
            heard,
            gateway: (ClientId(0), SessionId(0)),
            connection: 0,
            told: 0,
            events: VecDeque::new(),
            proved: Vec::new(),
            bytes: 0,
            path_bytes: 0,
        }
    }

    /// Bytes of what others, and its own client, have made it remember.
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When it ends if nothing more is heard, on the session clock.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.heard + u64::from(self.timeout_ms) + HEARD_GRAIN_MS
    }

    /// Begins a new connection, without the watches, credentials and events of the old one.
    pub(super) fn attach(&mut self, gateway: Gateway, connection: u64) {
        self.gateway = gateway;
        self.connection = connection;
        self.told = 0;
        self.events.clear();
        self.proved.clear();
        (self.bytes, self.path_bytes) = (0, 0);
    }

    /// Queues an event; false when there are too many, or nobody to tell. There are never too many
    /// where they leave `at_once`, with the response to the session's own request: that request's
    /// size bounds them, and a client that was cut off for them would make it again. `left` bytes
    /// are what the sessions that share its object may still remember.
    pub(super) fn tell(&mut self, event: Event, at_once: bool, left: usize) -> bool {
        let few = self.events.len() < EVENTS_MAX && event.encoded_len() <= left;
        let fits = at_once || (few && self.path_bytes + event.path.len() <= EVENT_BYTES_MAX);
        if fits && self.connection != 0 {
            self.bytes += event.encoded_len();
            self.path_bytes += event.path.len();
            self.events.push_back(event);
        }
        fits && self.connection != 0
    }

    /// Hands over what waits.
    pub(super) fn take(&mut self) -> Events {
        let list: Vec<Event> = self.events.drain(..).collect();
        self.bytes -= list.iter().map(Event::encoded_len).sum::<usize>();
        self.path_bytes = 0;
        let first = self.told;
        self.told += list.len() as u64;
        Events { first, list }
    }

    /// Remembers what the connection has proved; false when it is too much, or more than the
    /// `left` bytes that the sessions of its object may still remember.
    pub(super) fn prove(&mut self, id: Id, left: usize) -> bool {
        if self.proved.contains(&id) {
            return true;
        }
        let fits = self.proved.len() < PROVED_MAX && id.encoded_len() <= left;
        if fits {
            self.bytes += id.encoded_len();
            self.proved.push(id);
        }
        fits
    }

    pub(super) fn encode(&self, w: &mut Writer<'_>) {
        w.bytes(&self.password).u32(self.timeout_ms).u64(self.heard);
        w.u32(self.gateway.0.0).u64(self.gateway.1.0).u64(self.connection).u64(self.told);
        w.count(self.events.len());
        self.events.iter().for_each(|event| event.encode(w));
        w.count(self.proved.len());
        self.proved.iter().for_each(|id| id.encode(w));
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Session, Malformed> {
        let (password, timeout_ms) = (r.array("password")?, r.u32("timeout")?);
        let heard = r.u64("last sign of life")?;
        let gateway = (ClientId(r.u32("gateway")?), SessionId(r.u64("gateway's session")?));
        let (connection, told) = (r.u64("connection")?, r.u64("events told")?);
        if !(TIMEOUT_MIN_MS..=TIMEOUT_MAX_MS).contains(&timeout_ms) || heard > u64::MAX / 2 {
            return Err(Malformed("timeout"));
        }
        if told > u64::MAX / 2 {
            return Err(Malformed("events told"));
        }
        let count = r.count(EVENTS_MAX, 5, "events")?;
        let events: VecDeque<_> = (0..count).map(|_| Event::decode(r)).collect::<Result<_, _>>()?;
        let count = r.count(PROVED_MAX, 8, "proved ids")?;
        let proved: Vec<_> = (0..count).map(|_| Id::decode(r)).collect::<Result<_, _>>()?;
        let bytes = events.iter().map(Event::encoded_len).sum::<usize>()
            + proved.iter().map(Id::encoded_len).sum::<usize>();
        let path_bytes = events.iter().map(|event| event.path.len()).sum();
        Ok(Session {
            password,
            timeout_ms,
            heard,
            gateway,
            connection,
            told,
            events,
            proved,
            bytes,
            path_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event { kind: 1, path: "/a".into() }
    }

    #[test]
    fn canonical_bytes_are_read_back() {
        let mut session = Session::new([3; 16], 0, 7);
        assert_eq!(session.timeout_ms, TIMEOUT_MIN_MS);
        session.attach((ClientId(1), SessionId(2)), 3);
        assert!(
            session.tell(event(), false, usize::MAX)
                && session.prove(Id::new("digest", "a:b"), usize::MAX)
        );
        let mut out = vec![];
        session.encode(&mut Writer::new(&mut out));
        assert_eq!(Session::decode(&mut Reader::new(&out)), Ok(session));
        for len in 0..out.len() {
            assert!(Session::decode(&mut Reader::new(&out[..len])).is_err());
        }
    }

    #[test]
    fn numbers_that_could_not_be_counted_on_from_are_refused() {
        let bytes = |session: &Session| {
            let mut out = vec![];
            session.encode(&mut Writer::new(&mut out));
            out
        };
        for (heard, told, legal) in [(7, 7, true), (u64::MAX, 7, false), (7, u64::MAX, false)] {
            let mut session = Session::new([3; 16], 5000, heard);
            session.told = told;
            let out = bytes(&session);
            assert_eq!(Session::decode(&mut Reader::new(&out)).is_ok(), legal, "{heard} {told}");
        }
    }

    #[test]
    fn events_are_handed_over_once_numbered_and_bounded() {
        let mut session = Session::new([3; 16], 5000, 7);
        assert!(!session.tell(event(), false, usize::MAX), "nobody to tell");
        session.attach((ClientId(1), SessionId(2)), 3);
        assert!(
            session.tell(event(), false, usize::MAX) && session.tell(event(), false, usize::MAX)
        );
        assert_eq!((session.take().list.len(), session.take().list.len()), (2, 0));
        assert!(session.tell(event(), false, usize::MAX));
        assert_eq!(session.take().first, 2);
        let fits = (0..EVENTS_MAX + 1).filter(|_| session.tell(event(), false, usize::MAX)).count();
        assert_eq!(fits, EVENTS_MAX);
        assert!(session.tell(event(), true, 0), "it leaves at once");
        session.attach((ClientId(1), SessionId(2)), 4);
        assert_eq!((session.told, session.events.len()), (0, 0));
    }

    #[test]
    fn bytes_of_paths_are_bounded_however_the_events_came_and_went() {
        let long = || Event { kind: 1, path: "/".repeat(4096).into() };
        let fill = |session: &mut Session| {
            (0..1000).take_while(|_| session.tell(long(), false, usize::MAX)).count()
        };
        let most = EVENT_BYTES_MAX / 4096;
        let mut session = Session::new([3; 16], 5000, 7);
        session.attach((ClientId(1), SessionId(2)), 3);
        assert_eq!((fill(&mut session), fill(&mut session)), (most, 0));
        session.take();
        assert_eq!(fill(&mut session), most, "what was handed over makes room");
        let mut out = vec![];
        session.encode(&mut Writer::new(&mut out));
        let mut session = Session::decode(&mut Reader::new(&out)).expect("just written");
        assert_eq!(fill(&mut session), 0, "a replica that fetched it has as little room");
        session.attach((ClientId(1), SessionId(2)), 4);
        assert_eq!(fill(&mut session), most);
    }
}
