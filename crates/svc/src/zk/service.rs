//! The service itself: operations in, outcomes out.

use std::sync::Arc;

use base::{AgreedTime, Digest, Malformed};
use exec::{Completion, Context, Footprint, Output, ParallelService, Service};

use super::call::{Call, NUMBERED, agreed, zxid};
use super::op::{Attachment, Event, Events, Op, Outcome, Refusal, Stats};
use super::session::{HEARD_GRAIN_MS, Session};
use super::state::{CLOCK, OBJECTS, Object, State, session_class};
use super::{footprint, kind};

/// Most sessions at a time.
const SESSIONS_MAX: u64 = 1 << 17;
/// Most sessions of one principal at a time: those that its gateways have, or had last.
pub(super) const SESSIONS_PER_PRINCIPAL_MAX: usize = 1 << 15;
/// Most sessions that one [`Service::wake`] ends.
const ENDED_PER_WAKE: usize = 256;
/// Most containers and nodes with a time to live that it deletes.
const DELETED_PER_WAKE: usize = 1024;
/// How many bytes of events a result carries before the rest has to wait for the next one.
const EVENT_BYTES: usize = 4 << 20;

/// The replicated coordination service.
#[derive(Debug, Default)]
pub struct ZooKeeperService {
    state: Arc<State>,
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
}

/// An attachment and the session's timeout in ms.
type Opened = Result<(Attachment, u32), Refusal>;

/// A session that may ask, and whether it was not heard of for long.
type Asking = Result<bool, Refusal>;

impl State {
    /// Executes an operation, beside others that it does not conflict with.
    fn run(&self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
        let opened = |opened: Opened| match opened {
            Ok((to, timeout_ms)) => Outcome::Attached { to, timeout_ms },
            Err(why) => Outcome::Refused(why),
        };
        match Op::decode(op) {
            _ if ctx.index >= NUMBERED => Outcome::Refused(Refusal::Malformed).encode(reply),
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
                    Call::new(self, ctx, 0).detach(from.0);
                }
                let zxid = zxid(ctx);
                Outcome::Happened { zxid, events: vec![], gone: vec![], more: false }.encode(reply);
            }
            Ok(Op::Stats) => {
                let zxid = zxid(ctx).cast_unsigned();
                Outcome::Stats(Stats { zxid, ..self.counts() }).encode(reply);
            }
            Err(_) => Outcome::Refused(Refusal::Malformed).encode(reply),
        }
    }

    /// Sets the clock forward. Whoever does so executes alone.
    fn advance(&self, ctx: &mut Context<'_>) {
        let (now_ms, mut clock) = (ctx.time.as_millis(), self.clock());
        if clock.moves(now_ms) {
            ctx.modify(CLOCK, |out| self.encode(Object::Clock, out));
            clock.advance(now_ms);
            self.set_clock(clock);
        }
    }

    /// What the session clock shows.
    fn shows(&self, ctx: &Context<'_>) -> u64 {
        self.clock().shows_at(ctx.time.as_millis())
    }

    fn open(&self, ctx: &mut Context<'_>, password: [u8; 16], timeout_ms: u32) -> Opened {
        if !self.is_timed() {
            // Nobody has wanted to be woken, so it stands still since it was needed last.
            self.advance(ctx);
        }
        let own = self.sessions_of(ctx.client());
        if self.counts().sessions >= SESSIONS_MAX || own >= SESSIONS_PER_PRINCIPAL_MAX {
            return Err(Refusal::Crowded);
        }
        let id = zxid(ctx).cast_unsigned();
        let mut session = Session::new(password, timeout_ms, self.shows(ctx));
        session.attach((ctx.client(), ctx.frame.session), id);
        let timeout_ms = session.timeout_ms;
        self.put_session(ctx, id, Some(session));
        Ok(((id, id), timeout_ms))
    }

    fn resume(
        &self,
        ctx: &mut Context<'_>,
        id: u64,
        (password, timeout_ms): ([u8; 16], u32),
        last_zxid: i64,
    ) -> Opened {
        if last_zxid > zxid(ctx) {
            return Err(Refusal::Ahead);
        }
        ctx.reads(session_class(id));
        let known = self.look_session(id, |session| session.map(|session| session.password));
        if known.ok_or(Refusal::Expired)? != password {
            return Err(Refusal::Password);
        }
        self.unwatch_all(ctx, id);
        let connection = zxid(ctx).cast_unsigned();
        let mut next = Session::new(password, timeout_ms, self.shows(ctx));
        next.attach((ctx.client(), ctx.frame.session), connection);
        let timeout_ms = next.timeout_ms;
        self.put_session(ctx, id, Some(next));
        Ok(((id, connection), timeout_ms))
    }

    /// Whether a session is attached like that, to the gateway that asks.
    fn attached(&self, ctx: &mut Context<'_>, (id, connection): Attachment) -> Asking {
        ctx.reads(session_class(id));
        let gateway = (ctx.client(), ctx.frame.session);
        let shows = self.shows(ctx);
        self.look_session(id, |session| {
            let session = session.ok_or(Refusal::Expired)?;
            let here = session.gateway == gateway && connection != 0;
            let fits = session.connection == connection && here;
            let stale = shows >= session.heard + HEARD_GRAIN_MS;
            if fits { Ok(stale) } else { Err(Refusal::Moved) }
        })
    }

    /// The session is heard of.
    fn hear(&self, ctx: &mut Context<'_>, id: u64) {
        let shows = self.shows(ctx);
        self.with_session(ctx, id, |session| session.heard = shows);
    }

    fn request(
        &self,
        ctx: &mut Context<'_>,
        from: Attachment,
        (kind, body): (i32, &[u8]),
        reply: &mut Vec<u8>,
    ) {
        match self.attached(ctx, from) {
            Err(why) => return Outcome::Refused(why).encode(reply),
            Ok(true) => self.hear(ctx, from.0),
            Ok(false) => {}
        }
        let mut result = Vec::new();
        let mut call = Call::new(self, ctx, from.0);
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
        call.confess();
        let events = self.with_session(ctx, from.0, |session| {
            let events = session.take();
            session.told += 1;
            events
        });
        // It has ended the session itself.
        let events = events.unwrap_or(Events { first: u64::MAX, list: Vec::new() });
        Outcome::Response { events, error, zxid: zxid(ctx), body: &result }.encode(reply);
    }

    fn renew(&self, ctx: &mut Context<'_>, named: &[Attachment], reply: &mut Vec<u8>) {
        let mut gone = Vec::new();
        for attachment in named {
            match self.attached(ctx, *attachment) {
                Ok(true) => self.hear(ctx, attachment.0),
                Ok(false) => {}
                Err(_) => gone.push(*attachment),
            }
        }
        let waiting = self.waiting((ctx.client(), ctx.frame.session));
        let (mut events, mut bytes, mut taken) = (Vec::new(), 0, 0);
        for id in &waiting {
            if bytes > EVENT_BYTES {
                break;
            }
            let own = self.with_session(ctx, *id, |own| (own.connection, own.take()));
            let (connection, own) = own.unwrap_or_default();
            bytes += own.list.iter().map(|Event { path, .. }| path.len() + 5).sum::<usize>();
            events.push(((*id, connection), own));
            taken += 1;
        }
        let more = taken < waiting.len();
        Outcome::Happened { zxid: zxid(ctx), events, gone, more }.encode(reply);
    }

    /// Ends sessions whose time has come.
    fn end_due(&self, ctx: &mut Context<'_>, shows: u64) {
        for _ in 0..ENDED_PER_WAKE {
            let Some((_, id)) = self.next_ending().filter(|(when, _)| *when <= shows) else {
                break;
            };
            let gateway = self.look_session(id, |session| session.map(|session| session.gateway));
            Call::new(self, ctx, 0).end_session(id);
            if let Some((client, session)) = gateway {
                ctx.emit(Output::Nudge { client, session });
            }
        }
    }

    /// Deletes containers and nodes with a time to live.
    fn delete_due(&self, ctx: &mut Context<'_>, shows: u64) {
        for _ in 0..DELETED_PER_WAKE {
            let due = self.next_due().filter(|(when, _)| *when <= shows);
            let Some((_, path)) = due else { break };
            let mut call = Call::new(self, ctx, 0);
            call.remove(&path);
            call.fire();
        }
    }
}

impl ParallelService for State {
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
        self.run(op, ctx, reply);
        self.disarm(op);
    }
}

impl Service for ZooKeeperService {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        ParallelService::execute(&*self.state, op, ctx, reply);
        Completion::Done
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        self.state.encode(Object::of(object), out);
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        // Whoever replaces the state has given up everything that was on its way.
        self.state.disarm_all();
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

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        footprint::footprint(&self.state, op, out);
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        Some(Arc::clone(&self.state) as Arc<dyn ParallelService>)
    }

    /// As long as there is a session, the next beat of a pulse, whoever ends first: so no
    /// operation but the one that opens the first session brings it forward. While one asks,
    /// there is its own.
    fn deadline(&self) -> Option<AgreedTime> {
        let clock = self.state.clock();
        let more = self.state.next_ending().is_some_and(|(when, _)| when <= clock.shows);
        self.state.is_timed().then(|| agreed(clock.wake_at(more)))
    }

    fn wake(&mut self, ctx: &mut Context<'_>) {
        self.state.advance(ctx);
        let shows = self.state.clock().shows;
        self.state.end_due(ctx, shows);
        self.state.delete_due(ctx, shows);
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
