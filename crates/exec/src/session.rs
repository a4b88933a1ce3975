//! The client table: sessions, exactly-once, and the cache of replies (design: trap 5).
//!
//! A pure function of the ordered history: every decision here is made at the merge, in total
//! order, and the table is inside the checkpoint digest. Not here: execution, and whose frame it
//! really is (authenticators are checked before a frame is agreed on).
//!
//! The table is cut into [`BUCKETS`] buckets by principal. A change marks its bucket in a digest
//! tree and its session as stale, so that a digest costs in proportion to what changed; the
//! buckets are also the pieces in which the table is carried to another replica.
//!
//! Invariants:
//! 1. a principal has at most `SESSIONS_PER_CLIENT_MAX` sessions, none above the highest that it
//!    ever opened; that highest one is never forgotten;
//! 2. a session has at most `STREAMS_PER_SESSION_MAX` streams and its cached replies at most
//!    `CACHED_REPLY_BYTES_PER_SESSION_MAX` bytes, those of all sessions of a principal together at
//!    most `CACHED_REPLY_BYTES_PER_CLIENT_MAX`, and those of the principals of a bucket that has
//!    several at most `CACHED_REPLY_BYTES_PER_BUCKET_MAX`;
//! 3. a frame is let through to execution at most once, and never in a session that is not open.

mod digests;
mod forecast;
mod room;
mod undo;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::digest::Domain;
use base::limits::{self, SESSIONS_PER_CLIENT_MAX, STREAMS_PER_SESSION_MAX};
use base::{
    ClientId, Digest, Frame, FrameId, FrameKind, Malformed, Reader, ReplyStatus, Seq, SessionId,
    Writer,
};

use crate::tree::ObjectTree;
use crate::window::{Stream, Verdict};

pub(crate) use forecast::{Pending, Waiting};

use digests::bucket_digest;
use undo::{Undo, Was};

/// Number of buckets of the table. A principal is in the bucket of its number modulo this.
pub const BUCKETS: u32 = 1024;

/// The client table of one group.
#[derive(Clone, Debug)]
pub struct Sessions {
    buckets: Vec<BTreeMap<ClientId, Client>>,
    tree: ObjectTree,
    open: usize,
    counts: SessionCounts,
    undo: Undo,
}

/// What the merge decides about a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// New: execute its operations, then [`Sessions::record`] the reply. The frame is already
    /// entered, so that a copy of it in the same batch does not execute too.
    Execute,
    /// Executed before, with this encoded reply.
    Duplicate(Arc<Vec<u8>>),
    /// Nothing to execute: this status, decided at this number, is the reply.
    Status(Seq, ReplyStatus),
}

/// Counts of decisions since the start of the process. Not part of the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionCounts {
    /// Frames let through to execution.
    pub executed: u64,
    /// Sessions opened.
    pub opened: u64,
    /// Sessions evicted because their principal opened too many.
    pub evicted: u64,
    /// Frames that came a second time and were answered from the cache.
    pub duplicates: u64,
    /// Frames refused: no or stale session, out of order or window, conflict, reply gone.
    pub refused: u64,
    /// Cached replies dropped because the session held too many bytes.
    pub dropped_replies: u64,
    /// Sessions whose digest was computed anew.
    pub rehashed: u64,
}

#[derive(Clone, Debug)]
struct Client {
    highest: SessionId,
    sessions: BTreeMap<SessionId, Session>,
}

#[derive(Clone, Debug)]
struct Session {
    /// Where the opening was ordered: its reply can be built again.
    opened: Seq,
    /// Where the last frame that names the session was ordered: decides eviction.
    used: Seq,
    /// Orders given out so far; see [`Stream::claim`].
    orders: u64,
    streams: BTreeMap<u32, Stream>,
    /// Bytes of cached replies.
    bytes: usize,
    /// `None` since the last change.
    digest: Option<Digest>,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions::new()
    }
}

impl Sessions {
    /// An empty table.
    #[must_use]
    pub fn new() -> Sessions {
        Sessions {
            buckets: (0..BUCKETS).map(|_| BTreeMap::new()).collect(),
            tree: ObjectTree::new(BUCKETS),
            open: 0,
            counts: SessionCounts::default(),
            undo: Undo::default(),
        }
    }

    /// Decides about `frame`, which is next in the total order, in batch `seq`.
    pub fn decide(&mut self, seq: Seq, frame: &Frame) -> Decision {
        let status = match frame.kind() {
            FrameKind::Open => self.open(seq, frame.id()),
            FrameKind::Close => self.close(seq, frame.id()),
            FrameKind::Request => return self.request(seq, frame),
            FrameKind::Read => (seq, ReplyStatus::Unread),
        };
        if !matches!(status.1, ReplyStatus::Opened | ReplyStatus::Closed) {
            self.counts.refused += 1;
        }
        Decision::Status(status.0, status.1)
    }

    /// Stores the encoded reply to a frame that was let through. A frame whose session is gone
    /// since then keeps no reply.
    pub fn record(&mut self, frame: FrameId, reply: &Arc<Vec<u8>>) {
        let Some(session) = self.session(frame) else { return };
        if !session.streams.contains_key(&frame.stream) {
            return;
        }
        self.announce(frame.client);
        let Some(session) = self.session_mut(frame) else { return };
        let Some(stream) = session.streams.get_mut(&frame.stream) else { return };
        if !stream.record(frame.id, reply) {
            return;
        }
        session.digest = None;
        session.bytes += reply.len();
        self.shrink(frame);
    }

    /// What the table already knows about `frame`, whatever its content: for a client that asks
    /// again. `None` when it has not been executed to its end, so that nothing can be said yet.
    /// Changes nothing: it is asked outside the total order, so what it says itself has number 0.
    #[must_use]
    pub fn recall(&self, frame: FrameId) -> Option<Decision> {
        let client = self.bucket(frame.client).get(&frame.client)?;
        let unordered = |status| Some(Decision::Status(Seq(0), status));
        let Some(session) = client.sessions.get(&frame.session) else {
            // A session above the highest may still be opened by a frame on its way.
            let gone = frame.session <= client.highest;
            return match frame.id {
                _ if !gone => None,
                // As if it were ordered now: whoever opens takes nothing else for an answer.
                0 => unordered(ReplyStatus::StaleSession(client.highest)),
                _ => unordered(ReplyStatus::NoSession),
            };
        };
        if frame.id == 0 {
            return Some(Decision::Status(session.opened, ReplyStatus::Opened));
        }
        match session.streams.get(&frame.stream)?.recall(frame.id)? {
            Verdict::Done(reply) => Some(Decision::Duplicate(reply)),
            Verdict::Gone => unordered(ReplyStatus::ReplyGone),
            _ => None,
        }
    }

    /// Number of open sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Bytes of cached replies. O(sessions).
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.all().map(|(_, session)| session.bytes).sum()
    }

    /// Counts of decisions since the start of the process.
    #[must_use]
    pub fn counts(&self) -> SessionCounts {
        self.counts
    }

    /// Appends the canonical bytes of one bucket: equal tables give equal bytes.
    ///
    /// # Panics
    /// When there is no such bucket.
    pub fn get(&self, bucket: u32, out: &mut Vec<u8>) {
        encode_bucket(&self.buckets[bucket as usize], out);
    }

    /// The digest that a bucket of these bytes would have. They come from another replica and
    /// are not believed yet.
    ///
    /// # Errors
    /// When the bytes are no such bucket.
    pub fn digest_of(bucket: u32, bytes: &[u8]) -> Result<Digest, Malformed> {
        Ok(bucket_digest(&mut decode_bucket(bucket, bytes)?, &mut 0))
    }

    /// Replaces one bucket by what [`Sessions::get`] wrote at another replica.
    ///
    /// # Errors
    /// When the bytes are no such bucket; the table is unchanged then.
    ///
    /// # Panics
    /// When there is no such bucket.
    pub fn put(&mut self, bucket: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let clients = decode_bucket(bucket, bytes)?;
        let count = |clients: &BTreeMap<ClientId, Client>| -> usize {
            clients.values().map(|client| client.sessions.len()).sum()
        };
        self.modify(bucket);
        let old = &mut self.buckets[bucket as usize];
        self.open = self.open - count(old) + count(&clients);
        *old = clients;
        Ok(())
    }

    /// Checks the invariants. O(table).
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        let clients = self.buckets.iter().flatten();
        for (id, client) in clients {
            assert!(client.sessions.len() <= SESSIONS_PER_CLIENT_MAX, "{id} has too many sessions");
            let last = client.sessions.keys().next_back();
            assert!(last.is_none_or(|last| *last <= client.highest), "{id} is above its highest");
            let most = limits::CACHED_REPLY_BYTES_PER_CLIENT_MAX;
            assert!(client.bytes() <= most, "{id} has too many cached bytes");
        }
        for bucket in &self.buckets {
            assert!(room::excess(bucket).is_none(), "a bucket has too many cached bytes");
        }
        for (_, session) in self.all() {
            session.check();
        }
        assert_eq!(self.open, self.all().count(), "open sessions are miscounted");
    }

    fn open(&mut self, seq: Seq, frame: FrameId) -> (Seq, ReplyStatus) {
        if let Some(opened) = self.session(frame).map(|session| session.opened) {
            self.announce(frame.client);
            self.keep_client(frame.client);
            if let Some(session) = self.session_mut(frame) {
                session.touch(seq);
            }
            return (opened, ReplyStatus::Opened);
        }
        let highest = self.bucket(frame.client).get(&frame.client).map(|client| client.highest);
        if let Some(highest) = highest.filter(|highest| *highest >= frame.session) {
            return (seq, ReplyStatus::StaleSession(highest));
        }
        self.announce(frame.client);
        self.keep_client(frame.client);
        // What this process has counted is no part of the state.
        let differs = base::mutant!(EvictionDiffers) && self.counts.executed % 2 == 1;
        let client = self
            .bucket_mut(frame.client)
            .entry(frame.client)
            .or_insert(Client { highest: frame.session, sessions: BTreeMap::new() });
        let full = client.sessions.len() >= SESSIONS_PER_CLIENT_MAX;
        if full && differs {
            client.sessions.pop_last();
        } else if full {
            client.evict();
        }
        client.highest = frame.session;
        client.sessions.insert(frame.session, Session::new(seq));
        self.open += usize::from(!full);
        self.counts.evicted += u64::from(full);
        self.counts.opened += 1;
        (seq, ReplyStatus::Opened)
    }

    fn close(&mut self, seq: Seq, frame: FrameId) -> (Seq, ReplyStatus) {
        if self.session(frame).is_none() {
            return (seq, ReplyStatus::NoSession);
        }
        self.announce(frame.client);
        self.keep_client(frame.client);
        if let Some(client) = self.bucket_mut(frame.client).get_mut(&frame.client) {
            client.sessions.remove(&frame.session);
        }
        self.open -= 1;
        (seq, ReplyStatus::Closed)
    }

    fn request(&mut self, seq: Seq, frame: &Frame) -> Decision {
        if self.session(frame.id()).is_some() {
            self.announce(frame.id().client);
        }
        let keeps = self.undo.keeps();
        let Some(session) = self.session_mut(frame.id()) else {
            self.counts.refused += 1;
            return Decision::Status(seq, ReplyStatus::NoSession);
        };
        let mut was = keeps.then(|| Was::of(session));
        let decision = session.request(seq, frame, was.as_mut());
        if let Some(was) = was {
            self.undo.request(frame.id(), was);
        }
        match &decision {
            Decision::Execute => self.counts.executed += 1,
            Decision::Duplicate(_) => self.counts.duplicates += 1,
            Decision::Status(..) => self.counts.refused += 1,
        }
        decision
    }

    /// Comes before every change of what the table holds about `client`.
    fn announce(&mut self, client: ClientId) {
        self.modify(client.0 % BUCKETS);
    }

    fn session(&self, frame: FrameId) -> Option<&Session> {
        self.bucket(frame.client).get(&frame.client)?.sessions.get(&frame.session)
    }

    fn bucket(&self, client: ClientId) -> &BTreeMap<ClientId, Client> {
        &self.buckets[(client.0 % BUCKETS) as usize]
    }

    fn bucket_mut(&mut self, client: ClientId) -> &mut BTreeMap<ClientId, Client> {
        &mut self.buckets[(client.0 % BUCKETS) as usize]
    }

    fn session_mut(&mut self, frame: FrameId) -> Option<&mut Session> {
        let client = self.bucket_mut(frame.client).get_mut(&frame.client)?;
        client.sessions.get_mut(&frame.session)
    }

    fn all(&self) -> impl Iterator<Item = (&SessionId, &Session)> {
        self.buckets.iter().flat_map(BTreeMap::values).flat_map(|client| &client.sessions)
    }
}

impl Client {
    /// Removes the least recently used session; among equals the one that was opened first.
    fn evict(&mut self) {
        let victim = self.sessions.iter().min_by_key(|(id, session)| (session.used, **id));
        if let Some(victim) = victim.map(|(id, _)| *id) {
            self.sessions.remove(&victim);
        }
    }
}

impl Session {
    fn new(seq: Seq) -> Session {
        let streams = BTreeMap::new();
        Session { opened: seq, used: seq, orders: 0, streams, bytes: 0, digest: None }
    }

    fn touch(&mut self, seq: Seq) {
        self.used = seq;
        self.digest = self.digest.filter(|_| base::mutant!(SessionDigestStale));
    }

    fn request(&mut self, seq: Seq, frame: &Frame, mut was: Option<&mut Was>) -> Decision {
        self.touch(seq);
        let number = frame.id().stream;
        let room = self.streams.len() < STREAMS_PER_SESSION_MAX;
        // A stream comes to be with its first frame that executes, so that refused frames
        // cannot fill the table.
        let mut fresh = Stream::new(number);
        let known = self.streams.get_mut(&number);
        let is_new = known.is_none();
        let stream = known.unwrap_or(&mut fresh);
        self.bytes -= stream.ack(frame.ack(), was.as_deref_mut().map(|was| &mut was.stream));
        let refuse = |status| Decision::Status(seq, status);
        match stream.judge(frame.id().id, frame.digest()) {
            Verdict::New if is_new && !room => refuse(ReplyStatus::OutOfWindow),
            Verdict::New => {
                stream.claim(frame.id().id, frame.digest(), self.orders);
                self.orders += 1;
                if is_new {
                    self.streams.insert(number, fresh);
                }
                if let Some(was) = was {
                    (was.is_new, was.stream.claimed) = (is_new, Some(frame.id().id));
                }
                Decision::Execute
            }
            Verdict::Done(_) if base::mutant!(DuplicatesExecute) => {
                self.bytes -= stream.forget_reply(frame.id().id);
                Decision::Execute
            }
            Verdict::Conflict if base::mutant!(ConflictsExecute) => {
                self.bytes -= stream.forget_reply(frame.id().id);
                Decision::Execute
            }
            Verdict::Gone if base::mutant!(AcknowledgedExecute) => Decision::Execute,
            Verdict::Done(reply) => Decision::Duplicate(reply),
            // Pending cannot be while one frame ends before the next is decided.
            Verdict::Gone | Verdict::Pending => refuse(ReplyStatus::ReplyGone),
            Verdict::Conflict => refuse(ReplyStatus::Conflict),
            Verdict::Expects(id) => refuse(ReplyStatus::OutOfOrder(id)),
            Verdict::Beyond => refuse(ReplyStatus::OutOfWindow),
        }
    }

    fn check(&self) {
        assert!(self.opened <= self.used, "used before it was opened");
        assert!(self.streams.len() <= STREAMS_PER_SESSION_MAX, "too many streams");
        assert!(self.bytes <= limits::CACHED_REPLY_BYTES_PER_SESSION_MAX, "too many bytes");
        assert_eq!(self.bytes, self.streams.values().map(Stream::bytes).sum(), "miscounted bytes");
        self.streams.values().for_each(Stream::check);
    }

    fn digest(&mut self, rehashed: &mut u64) -> Digest {
        if let Some(digest) = self.digest {
            return digest;
        }
        let mut bytes = Vec::new();
        let mut w = Writer::new(&mut bytes);
        w.u8(1).u64(self.opened.0).u64(self.used.0).u64(self.orders).count(self.streams.len());
        for (number, stream) in &mut self.streams {
            w.u32(*number);
            stream.summarize(&mut w);
        }
        *rehashed += 1;
        let digest = Digest::of(Domain::Sessions, &bytes);
        self.digest = Some(digest);
        digest
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.u64(self.opened.0).u64(self.used.0).u64(self.orders).count(self.streams.len());
        for (number, stream) in &self.streams {
            w.u32(*number);
            stream.encode(w);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Session, Malformed> {
        let opened = Seq(r.u64("session opening")?);
        let used = Seq(r.u64("session use")?);
        let orders = r.u64("session orders")?;
        let count = r.count(STREAMS_PER_SESSION_MAX, 16, "session streams")?;
        let mut streams = BTreeMap::new();
        for _ in 0..count {
            let number = r.u32("stream number")?;
            ascending(&streams, &number, "stream number")?;
            streams.insert(number, Stream::decode(number, orders, r)?);
        }
        let bytes = streams.values().map(Stream::bytes).sum();
        if bytes > limits::CACHED_REPLY_BYTES_PER_SESSION_MAX || opened > used {
            return Err(Malformed("session"));
        }
        Ok(Session { opened, used, orders, streams, bytes, digest: None })
    }
}

fn encode_bucket(clients: &BTreeMap<ClientId, Client>, out: &mut Vec<u8>) {
    let mut w = Writer::new(out);
    w.count(clients.len());
    for (id, client) in clients {
        w.u32(id.0).u64(client.highest.0).count(client.sessions.len());
        for (id, session) in &client.sessions {
            w.u64(id.0);
            session.encode(&mut w);
        }
    }
}

fn decode_bucket(bucket: u32, bytes: &[u8]) -> Result<BTreeMap<ClientId, Client>, Malformed> {
    let mut r = Reader::new(bytes);
    let count = r.count(usize::MAX, 16, "bucket of sessions")?;
    let mut clients = BTreeMap::new();
    for _ in 0..count {
        let id = ClientId(r.u32("principal")?);
        ascending(&clients, &id, "principal")?;
        let highest = SessionId(r.u64("highest session")?);
        let mut sessions = BTreeMap::new();
        for _ in 0..r.count(SESSIONS_PER_CLIENT_MAX, 36, "sessions")? {
            let session = SessionId(r.u64("session")?);
            ascending(&sessions, &session, "session")?;
            sessions.insert(session, Session::decode(&mut r)?);
        }
        let above = sessions.keys().next_back().is_some_and(|last| *last > highest);
        if above || id.0 % BUCKETS != bucket {
            return Err(Malformed("principal"));
        }
        clients.insert(id, Client { highest, sessions });
    }
    r.finish("bucket of sessions")?;
    Ok(clients)
}

fn ascending<K: Ord, V>(
    map: &BTreeMap<K, V>,
    key: &K,
    what: &'static str,
) -> Result<(), Malformed> {
    let above = map.keys().next_back().is_none_or(|last| last < key);
    above.then_some(()).ok_or(Malformed(what))
}
