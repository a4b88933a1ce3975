//! The service itself: operations in, outcomes out.

use base::{AgreedTime, Digest, Malformed};
use exec::{Completion, Context, Output, Service};

use super::call::{Call, agreed, zxid};
use super::kind;
use super::op::{Attachment, Event, Events, Op, Outcome, Refusal, Stats};
use super::session::{HEARD_GRAIN_MS, Session};
use super::state::{CLOCK, OBJECTS, Object, State};

/// Most sessions at a time.
const SESSIONS_MAX: u64 = 1 << 17;
/// Most sessions that one [`Service::wake`] ends, and most nodes that it deletes.
const ENDED_PER_WAKE: usize = 256;
/// How many bytes of events a result carries before the rest has to wait for the next one.
const EVENT_BYTES: usize = 4 << 20;

/// The replicated coordination service.
#[derive(Debug, Default)]
pub struct ZooKeeperService {
    state: State,
}

impl ZooKeeperService {
    /// A service without nodes but those that are always there.
    #[must_use]
    pub fn new() -> ZooKeeperService {
        ZooKeeperService::default()
    }

    /// The state, for tests and tools.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Looks at the time.
    fn begin(&mut self, ctx: &mut Context<'_>) {
        let now_ms = ctx.time.as_millis();
        if self.state.clock.moves(now_ms) {
            ctx.modify(CLOCK, |out| self.state.encode(Object::Clock, out));
            self.state.clock.advance(now_ms);
        }
    }

    /// The session is heard of.
    fn hear(&mut self, ctx: &mut Context<'_>, id: u64) {
        let shows = self.state.clock.shows;
        let stale = |session: &Session| shows >= session.heard + HEARD_GRAIN_MS;
        if self.state.session(id).is_some_and(stale) {
            self.state.with_session(ctx, id, |session| session.heard = shows);
        }
    }

    fn open(&mut self, ctx: &mut Context<'_>, password: [u8; 16], timeout_ms: u32) -> Opened {
        if self.state.counts.sessions >= SESSIONS_MAX {
            return Err(Refusal::Crowded);
        }
        let id = zxid(ctx).cast_unsigned();
        let mut session = Session::new(password, timeout_ms, self.state.clock.shows);
        session.attach((ctx.client(), ctx.frame.session), id);
        let timeout_ms = session.timeout_ms;
        self.state.put_session(ctx, id, Some(session));
        Ok(((id, id), timeout_ms))
    }

    fn resume(
        &mut self,
        ctx: &mut Context<'_>,
        id: u64,
        (password, timeout_ms): ([u8; 16], u32),
        last_zxid: i64,
    ) -> Opened {
        if last_zxid > zxid(ctx) {
            return Err(Refusal::Ahead);
        }
        let session = self.state.session(id).ok_or(Refusal::Expired)?;
        if session.password != password {
            return Err(Refusal::Password);
        }
        self.state.unwatch_all(ctx, id);
        let connection = zxid(ctx).cast_unsigned();
        let mut next = Session::new(password, timeout_ms, self.state.clock.shows);
        next.attach((ctx.client(), ctx.frame.session), connection);
        let timeout_ms = next.timeout_ms;
        self.state.put_session(ctx, id, Some(next));
        Ok(((id, connection), timeout_ms))
    }

    /// Whether a session is attached like that, to the gateway that asks.
    fn attached(&self, ctx: &Context<'_>, (id, connection): Attachment) -> Result<(), Refusal> {
        let session = self.state.session(id).ok_or(Refusal::Expired)?;
        let here = session.gateway == (ctx.client(), ctx.frame.session);
        let fits = session.connection == connection && connection != 0 && here;
        if fits { Ok(()) } else { Err(Refusal::Moved) }
    }

    fn request(
        &mut self,
        ctx: &mut Context<'_>,
        from: Attachment,
        (kind, body): (i32, &[u8]),
        reply: &mut Vec<u8>,
    ) {
        if let Err(why) = self.attached(ctx, from) {
            return Outcome::Refused(why).encode(reply);
        }
        self.hear(ctx, from.0);
        let mut result = Vec::new();
        let mut call = Call::new(&mut self.state, ctx, from.0);
        let error = match call.answer(kind, body, &mut result) {
            Ok(()) => {
                call.fire();
                0
            }
            Err(error) => {
                call.undo();
                result.clear();
                error.code()
            }
        };
        let events = self.take(ctx, from.0);
        self.state.count_response(ctx, from.0);
        Outcome::Response { events, error, zxid: zxid(ctx), body: &result }.encode(reply);
    }

    /// Hands over a session's events.
    fn take(&mut self, ctx: &mut Context<'_>, id: u64) -> Events {
        match self.state.session(id) {
            Some(session) if !session.events.is_empty() => {
                self.state.with_session(ctx, id, Session::take).unwrap_or_default()
            }
            Some(session) => Events { first: session.told, list: Vec::new() },
            None => Events { first: u64::MAX, list: Vec::new() },
        }
    }

    fn renew(&mut self, ctx: &mut Context<'_>, named: &[Attachment], reply: &mut Vec<u8>) {
        let mut gone = Vec::new();
        for attachment in named {
            match self.attached(ctx, *attachment) {
                Ok(()) => self.hear(ctx, attachment.0),
                Err(_) => gone.push(*attachment),
            }
        }
        let gateway = (ctx.client(), ctx.frame.session);
        let waiting: Vec<u64> = self.state.waiting(gateway).collect();
        let (mut events, mut bytes, mut taken) = (Vec::new(), 0, 0);
        for id in &waiting {
            if bytes > EVENT_BYTES {
                break;
            }
            let connection = self.state.session(*id).map_or(0, |session| session.connection);
            let own = self.take(ctx, *id);
            bytes += own.list.iter().map(|Event { path, .. }| path.len() + 5).sum::<usize>();
            events.push(((*id, connection), own));
            taken += 1;
        }
        let more = taken < waiting.len();
        Outcome::Happened { zxid: zxid(ctx), events, gone, more }.encode(reply);
    }
}

/// An attachment and the session's timeout in ms.
type Opened = Result<(Attachment, u32), Refusal>;

impl Service for ZooKeeperService {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        self.begin(ctx);
        let opened = |opened: Opened| match opened {
            Ok((to, timeout_ms)) => Outcome::Attached { to, timeout_ms },
            Err(why) => Outcome::Refused(why),
        };
        match Op::decode(op) {
            Ok(Op::Open { password, timeout_ms }) => {
                opened(self.open(ctx, password, timeout_ms)).encode(reply);
            }
            Ok(Op::Resume { session, password, timeout_ms, last_zxid }) => {
                opened(self.resume(ctx, session, (password, timeout_ms), last_zxid)).encode(reply);
            }
            Ok(Op::Request { from, kind, body }) => self.request(ctx, from, (kind, body), reply),
            Ok(Op::Renew(named)) => self.renew(ctx, &named, reply),
            Ok(Op::Leave(from)) => {
                if self.attached(ctx, from).is_ok() {
                    Call::new(&mut self.state, ctx, 0).detach(from.0);
                }
                let zxid = zxid(ctx);
                Outcome::Happened { zxid, events: vec![], gone: vec![], more: false }.encode(reply);
            }
            Ok(Op::Stats) => {
                let zxid = zxid(ctx).cast_unsigned();
                Outcome::Stats(Stats { zxid, ..self.state.counts }).encode(reply);
            }
            Err(_) => Outcome::Refused(Refusal::Malformed).encode(reply),
        }
        Completion::Done
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        self.state.encode(Object::of(object), out);
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        self.state.load(Object::of(object), bytes)
    }

    fn objects(&self) -> u32 {
        OBJECTS
    }

    fn digest(&mut self, object: u32) -> Digest {
        self.state.digest(Object::of(object))
    }

    fn digest_of(&self, object: u32, bytes: &[u8]) -> Result<Digest, Malformed> {
        State::digest_of(Object::of(object), bytes)
    }

    fn deadline(&self) -> Option<AgreedTime> {
        let ending = self.state.next_ending().map(|(when, _)| when);
        let due = self.state.next_due().map(|(when, _)| when);
        let first = ending.into_iter().chain(due).min()?;
        Some(agreed(self.state.clock.wake_at(first)))
    }

    fn wake(&mut self, ctx: &mut Context<'_>) {
        self.begin(ctx);
        let shows = self.state.clock.shows;
        for _ in 0..ENDED_PER_WAKE {
            let Some((_, id)) = self.state.next_ending().filter(|(when, _)| *when <= shows) else {
                break;
            };
            let gateway = self.state.session(id).map(|session| session.gateway);
            Call::new(&mut self.state, ctx, 0).end_session(id);
            if let Some((client, session)) = gateway {
                ctx.emit(Output::Nudge { client, session });
            }
        }
        for _ in 0..ENDED_PER_WAKE {
            let due = self.state.next_due().filter(|(when, _)| *when <= shows);
            let Some(path) = due.map(|(_, path)| path.to_owned()) else { break };
            let mut call = Call::new(&mut self.state, ctx, 0);
            call.remove(&path);
            call.fire();
        }
    }
}

impl ZooKeeperService {
    /// Whether a request of this kind may change more than its session.
    #[must_use]
    pub fn writes(kind: i32) -> bool {
        matches!(
            kind,
            kind::CREATE
                | kind::CREATE2
                | kind::CREATE_CONTAINER
                | kind::CREATE_TTL
                | kind::DELETE
                | kind::SET_DATA
                | kind::SET_ACL
                | kind::MULTI
                | kind::CLOSE
        )
    }
}
