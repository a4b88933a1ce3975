//! The driver: one task that owns the core, the links and the timers of a client.
//!
//! A turn reads all links, takes all that callers queued, steps the core once, hands out results
//! and writes each link once. It repeats while there is something to do and then sleeps until a
//! socket, a caller or a deadline wakes it. Callers that share its thread run in between, so what
//! they submit together travels together.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use auth::{ClientKeys, LinkIdentity, Peer, random_u64};
use base::Time;
use base::packet::PacketKind;
use base::reply::ReplyPacket;
use base::{Frame, Incarnation, Now, PillarId, Reader, ReplicaId, Seq, SessionId, Span, VoteSet};
use proto::client::{ClientCore, Effect, OpError, SendTo, SubmitError};
use tokio::sync::{oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Sleep;

use crate::clock::{Clock, wall};
use crate::error::{CallError, ConnectError, Reach, StatusError};
use crate::inbox::{ClientStats, Control, Inbox, Intake, Token};
use crate::link::{Dialer, Link, LinkError};
use crate::options::ClientOptions;
use crate::outputs::Outputs;
use crate::questions::Questions;

/// How far a session's number may be ahead of the wall clock, in nanoseconds.
const SESSION_JITTER_NS: u64 = 1_000_000;
/// Turns in a row before other tasks of the runtime get theirs.
const TURNS_MAX: usize = 16;
/// How long the group may take to confirm that the session is closed.
const CLOSE_SPAN: Span = Span::secs(1);
/// The longest wait before a replica is called again.
const REDIAL_MAX: Duration = Duration::from_secs(2);
const REDIAL_MIN: Duration = Duration::from_millis(20);

pub(crate) struct Driver {
    inbox: Arc<Inbox>,
    intake: Intake,
    core: ClientCore<Token>,
    clock: Clock,
    timeout: Duration,
    dialer: Dialer,
    dials: JoinSet<Dialed>,
    /// Calls were begun in this turn: they are to be waited for, which takes another one.
    dialled: bool,
    /// Replica r, pillar p at r · P + p.
    endpoints: Vec<Endpoint>,
    pillars: usize,
    outputs: Outputs,
    nudged: watch::Sender<u64>,
    view: Outlook,
    questions: Questions,
    opened: Option<oneshot::Sender<()>>,
    closing: Option<Closing>,
    sleep: Pin<Box<Sleep>>,
    /// When `sleep` ends: never later than the core's deadline.
    armed: Time,
}

/// One pillar of one replica.
struct Endpoint {
    replica: ReplicaId,
    pillar: PillarId,
    link: Option<Link>,
    /// In a row.
    failures: u32,
}

/// What became of a call.
type Dialed = (usize, SessionId, Result<Link, LinkError>);

/// The end of the client.
struct Closing {
    until: Time,
    waiters: Vec<oneshot::Sender<()>>,
    done: bool,
}

/// What is told about the links.
#[derive(Default)]
struct Outlook {
    reach: Reach,
    links: Vec<u16>,
    packets_dropped: u64,
    last_failure: String,
    /// Whether anything but `packets_dropped` changed since it was last told.
    changed: bool,
}

impl Driver {
    pub(crate) fn new(
        options: ClientOptions,
        inbox: Arc<Inbox>,
        opened: oneshot::Sender<()>,
        nudged: watch::Sender<u64>,
    ) -> Result<Driver, ConnectError> {
        let config = options.core()?;
        let ClientOptions { group, id, secret, request_timeout, .. } = options;
        let directory = group.directory();
        let keys = ClientKeys::new(&secret, id, directory)?;
        let keys = if config.inline { keys.signing() } else { keys };
        let incarnation = Incarnation(wall().0);
        let identity = LinkIdentity::new(&secret, Peer::Client(id), incarnation, directory)?;
        let clock = Clock::begin(random_u64()? % SESSION_JITTER_NS);
        let core = ClientCore::new(config, Box::new(keys), clock.now());
        let pillars = usize::from(group.pillars());
        let endpoint = |(replica, pillar)| Endpoint { replica, pillar, link: None, failures: 0 };
        let places = group.quorums().replicas();
        let places = places.flat_map(|r| (0..group.pillars()).map(move |p| (r, PillarId(p))));
        let n = usize::from(group.quorums().n());
        let view = Outlook {
            reach: Reach { reachable: 0, needed: group.quorums().quorum() },
            links: vec![0; n],
            changed: true,
            ..Outlook::default()
        };
        Ok(Driver {
            inbox,
            intake: Intake::default(),
            core,
            clock,
            timeout: request_timeout,
            endpoints: places.map(endpoint).collect(),
            pillars,
            dialer: Dialer { group: Arc::new(group), identity: Arc::new(identity) },
            dials: JoinSet::new(),
            dialled: false,
            outputs: Outputs::default(),
            nudged,
            view,
            questions: Questions::default(),
            opened: Some(opened),
            closing: None,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: Time::ZERO,
        })
    }

    /// One turn; true when something happened, so that another one may be worth while.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.clock.now();
        let mut busy = self.join_dials(cx);
        busy |= self.read_links(now, cx);
        busy |= self.take_inbox(now, cx);
        let nudged = self.core.nudged().0;
        self.nudged.send_if_modified(|known| std::mem::replace(known, nudged) != nudged);
        self.core.turn(now);
        if cfg!(debug_assertions) {
            self.core.check();
        }
        self.carry_out();
        self.outputs.hand_out();
        for at in 0..self.endpoints.len() {
            let endpoint = &mut self.endpoints[at];
            if let Some(Err(error)) = endpoint.link.as_mut().map(|link| link.flush(cx)) {
                self.lose_link(at, &error);
            }
        }
        busy |= std::mem::take(&mut self.dialled);
        busy | self.tick(now, cx)
    }

    fn join_dials(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        while let Poll::Ready(Some(joined)) = self.dials.poll_join_next(cx) {
            busy = true;
            // A call neither panics nor is it aborted while the driver lives.
            let Ok((at, session, result)) = joined else { continue };
            if session != self.core.session() {
                continue;
            }
            match result {
                Ok(mut link) => {
                    let avoided = self.core.avoided();
                    if !avoided.is_empty()
                        && let Err(error) = link.avoid(avoided)
                    {
                        self.lose_link(at, &error);
                        continue;
                    }
                    let endpoint = &mut self.endpoints[at];
                    endpoint.link = Some(link);
                    self.core.on_link(endpoint.replica, endpoint.pillar);
                    self.view.count_links(&self.endpoints, self.pillars);
                }
                Err(error) => self.lose_link(at, &error),
            }
        }
        busy
    }

    fn read_links(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        for at in 0..self.endpoints.len() {
            let Endpoint { replica, link: Some(link), failures, .. } = &mut self.endpoints[at]
            else {
                continue;
            };
            let (core, asked, replica) = (&mut self.core, &mut self.questions, *replica);
            let take = |kind, body: &[u8]| on_packet(core, asked, now, replica, kind, body);
            match link.read(cx, take) {
                Ok(read) => {
                    busy |= read;
                    // Whoever takes calls only to hang up is called again ever more seldom.
                    if read {
                        *failures = 0;
                    }
                }
                Err(error) => {
                    self.lose_link(at, &error);
                    busy = true;
                }
            }
        }
        busy
    }

    fn take_inbox(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        let held = (self.core.held_ops(), self.core.held_bytes());
        let (core, view) = (&self.core, &mut self.view);
        let tell = |stats: &mut ClientStats| view.tell(core, stats);
        if !self.inbox.take(&mut self.intake, held, cx.waker(), tell) {
            return false;
        }
        let mut at = 0;
        for item in self.intake.items.drain(..) {
            let op = &self.intake.arena[at..at + item.len];
            at += item.len;
            let taken = match item.read {
                false => self.core.submit(now, item.stream, op, item.token),
                true => self.core.submit_read(now, item.stream, op, item.token),
            };
            if let Err((error, token)) = taken {
                let error = match error {
                    SubmitError::Full => CallError::Overloaded { ops: held.0, bytes: held.1 },
                    SubmitError::TooLarge => CallError::TooLarge { bytes: item.len },
                    SubmitError::Closed => CallError::Closed,
                };
                self.outputs.fail(vec![token], error);
            }
        }
        self.intake.arena.clear();
        let mut controls = std::mem::take(&mut self.intake.controls);
        controls.drain(..).for_each(|control| self.on_control(now, control));
        self.intake.controls = controls;
        true
    }

    fn on_control(&mut self, now: Now, control: Control) {
        match control {
            Control::Status(replica, answer) => {
                let at = usize::from(replica.0) * self.pillars;
                let link = self.endpoints.get_mut(at).and_then(|end| end.link.as_mut());
                match link.map(Link::ask_status) {
                    Some(Ok(())) => self.questions.asked(replica, answer),
                    // Who asked may have gone away meanwhile.
                    _ => drop(answer.send(Err(StatusError::Unreachable(replica)))),
                }
            }
            Control::AddSink(id, state) => {
                self.outputs.sinks.insert(id, state);
            }
            Control::DropSink(id) => {
                self.outputs.sinks.remove(&id);
            }
            Control::Close(done) => {
                self.core.close(now);
                let until = now.mono.after(CLOSE_SPAN);
                let closing = Closing { until, waiters: Vec::new(), done: false };
                self.closing.get_or_insert(closing).waiters.push(done);
            }
        }
    }

    fn carry_out(&mut self) {
        let mut reconnect = None;
        let effects: Vec<Effect<Token>> = self.core.drain().collect();
        for effect in effects {
            match effect {
                Effect::Send { pillar, to, frame } => self.send(pillar, to, &frame),
                Effect::Done { tokens, outcome: Ok(results) } => {
                    self.outputs.complete(tokens, &results);
                }
                Effect::Done { tokens, outcome: Err(error) } => self.fail(tokens, error),
                Effect::SessionChanged(session) => reconnect = Some(session),
                Effect::SessionOpened(session) => {
                    tracing::debug!(session = session.0, "session open");
                    // Who connects may have given up meanwhile.
                    self.opened.take().map(|opened| opened.send(()));
                }
                Effect::Closed => {
                    if let Some(closing) = &mut self.closing {
                        closing.done = true;
                    }
                }
                Effect::Avoid(replicas) => self.avoid(replicas),
                Effect::Suspect { replica, wrong_replies } => {
                    tracing::warn!(replica = replica.0, wrong_replies, "a replica lies");
                }
            }
        }
        // Links belong to a session, so a new session calls everybody anew; the core sends what
        // is in flight when a link is up.
        if let Some(session) = reconnect {
            tracing::debug!(session = session.0, "opening a session");
            (0..self.endpoints.len()).for_each(|at| {
                self.endpoints[at].link = None;
                self.dial(at, Duration::ZERO);
            });
            self.view.count_links(&self.endpoints, self.pillars);
        }
    }

    fn send(&mut self, pillar: PillarId, to: SendTo, frame: &Frame) {
        let places = match to {
            SendTo::One(replica) => replica.0..replica.0 + 1,
            SendTo::All => 0..self.dialer.group.quorums().n(),
        };
        for replica in places {
            let at = usize::from(replica) * self.pillars + usize::from(pillar.0);
            let Some(link) = self.endpoints.get_mut(at).and_then(|end| end.link.as_mut()) else {
                continue;
            };
            match link.queue(frame) {
                Ok(true) => {}
                Ok(false) => self.view.packets_dropped += 1,
                Err(error) => self.lose_link(at, &error),
            }
        }
    }

    fn avoid(&mut self, replicas: VoteSet) {
        for at in 0..self.endpoints.len() {
            let link = self.endpoints[at].link.as_mut();
            if let Some(Err(error)) = link.map(|link| link.avoid(replicas)) {
                self.lose_link(at, &error);
            }
        }
    }

    fn fail(&mut self, tokens: Vec<Token>, error: OpError) {
        self.outputs.fail(tokens, CallError::from_op(error, self.view.reach, self.timeout));
    }

    /// A link has ended, or did not come to be: call again, later each time.
    fn lose_link(&mut self, at: usize, error: &LinkError) {
        let endpoint = &mut self.endpoints[at];
        let had_link = endpoint.link.take().is_some();
        endpoint.failures += 1;
        let Endpoint { replica, pillar, failures, .. } = *endpoint;
        let wait = REDIAL_MIN * 2u32.pow(failures.min(16) - 1);
        tracing::debug!(replica = replica.0, pillar = pillar.0, %error, "no link");
        self.view.last_failure = format!("replica {replica}, pillar {pillar}: {error}");
        self.view.changed = true;
        if had_link {
            self.questions.answer(replica, &Err(StatusError::Unreachable(replica)));
            self.view.count_links(&self.endpoints, self.pillars);
        }
        if self.closing.is_none() {
            self.dial(at, wait.min(REDIAL_MAX));
        }
    }

    fn dial(&mut self, at: usize, wait: Duration) {
        let Endpoint { replica, pillar, .. } = self.endpoints[at];
        let (dialer, session) = (self.dialer.clone(), self.core.session());
        let call = dialer.dial(replica, pillar, session, wait);
        let _: Id = self.dials.spawn(async move { (at, session, call.await) }).id();
        self.dialled = true;
    }

    /// Sets the alarm for the core's deadline; true when a deadline has come.
    fn tick(&mut self, now: Now, cx: &mut Context<'_>) -> bool {
        let closing = self.closing.as_ref().map(|closing| closing.until);
        let Some(due) = self.core.deadline().into_iter().chain(closing).min() else {
            return false;
        };
        // An alarm that rings early costs less than setting it anew with each frame.
        if due < self.armed || self.armed <= now.mono {
            self.armed = due;
            let wait = Duration::from_nanos(due.since(now.mono).0);
            self.sleep.as_mut().reset(tokio::time::Instant::now() + wait);
        }
        self.sleep.as_mut().poll(cx).is_ready()
    }

    fn is_over(&self) -> bool {
        let late = |closing: &Closing| closing.until <= self.clock.now().mono;
        self.closing.as_ref().is_some_and(|closing| closing.done || late(closing))
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            let busy = self.turn(cx);
            if self.is_over() {
                self.inbox.shut();
                let waiters = self.closing.take().map_or(Vec::new(), |closing| closing.waiters);
                // Who closed need not wait for it.
                for waiter in waiters {
                    let _ = waiter.send(());
                }
                return Poll::Ready(());
            }
            if !busy {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.inbox.shut();
    }
}

impl Outlook {
    fn count_links(&mut self, endpoints: &[Endpoint], pillars: usize) {
        for (links, ends) in self.links.iter_mut().zip(endpoints.chunks(pillars)) {
            let up = ends.iter().filter(|endpoint| endpoint.link.is_some()).count();
            *links = u16::try_from(up).expect("at most PILLARS_MAX");
        }
        let whole = |links: &&u16| usize::from(**links) == pillars;
        self.reach.reachable = self.links.iter().filter(whole).count();
        self.changed = true;
    }

    fn tell(&mut self, core: &ClientCore<Token>, stats: &mut ClientStats) {
        let counters = core.counters();
        let told = stats.wrong_replies.len() == self.links.len();
        let replicas = || (0..).map(ReplicaId).take(self.links.len());
        if !told || counters.wrong_replies != stats.counters.wrong_replies {
            stats.wrong_replies = replicas().map(|replica| core.wrong_replies(replica)).collect();
        }
        if !told || counters.fallbacks != stats.counters.fallbacks {
            stats.missed_replies = replicas().map(|replica| core.missed_replies(replica)).collect();
        }
        stats.counters = counters;
        stats.session = core.session().0;
        stats.open = core.is_open();
        stats.held_ops = core.held_ops();
        stats.packets_dropped = self.packets_dropped;
        if std::mem::take(&mut self.changed) {
            stats.reachable = self.reach.reachable;
            stats.links.clone_from(&self.links);
            stats.last_failure.clone_from(&self.last_failure);
        }
    }
}

fn on_packet(
    core: &mut ClientCore<Token>,
    questions: &mut Questions,
    now: Now,
    replica: ReplicaId,
    kind: PacketKind,
    body: &[u8],
) -> Result<(), LinkError> {
    match kind {
        PacketKind::Reply => {
            let mut reader = Reader::new(body);
            while !reader.is_empty() {
                core.on_reply(now, replica, &ReplyPacket::decode(&mut reader)?);
            }
            Ok(())
        }
        PacketKind::Status => {
            let text = String::from_utf8_lossy(body).into_owned();
            questions.answer(replica, &Ok(text));
            Ok(())
        }
        PacketKind::Nudge => {
            core.on_nudge(replica, Seq(Reader::new(body).u64("nudge")?));
            Ok(())
        }
        PacketKind::Goodbye => Err(LinkError::Goodbye),
        PacketKind::Request | PacketKind::StatusQuery | PacketKind::Avoid => Err(LinkError::Kind),
    }
}
