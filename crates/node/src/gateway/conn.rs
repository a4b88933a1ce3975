//! One connection: reads requests, submits operations, writes replies in order.
//!
//! The task is one state machine that, whenever something can move, drains everything before it
//! sleeps: all complete requests are submitted before any reply is waited for, and all replies
//! that are there leave in one write.
//!
//! Not here: what a command means ([`super::session`]) and how requests look ([`super::parse`]).
//!
//! Invariants:
//! 1. Replies leave in the order of the requests, whoever answered them.
//! 2. What a connection can make the gateway hold is bounded, by [`HELD_MAX`] and
//!    [`Config::output_max`](super::Config::output_max) bytes together: requests unread, queued,
//!    in flight and kept for another try, the replies to them that are made here, whether they
//!    are to leave, wait or are part of a transaction, and results that were taken. Where there is
//!    no room, requests are not read; what is alone always has room, however large its reply. How
//!    large the results of operations in flight will be nobody knows; their number shrinks as
//!    results grow.
//! 3. A command that changes something is answered with success only after the backend's result
//!    is there.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use svc::kv::reply::REPLY_MAX;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::backend::{Backend, BackendError, StreamKey};
use super::linger::linger;
use super::load::{IN_FLIGHT_BYTES, Load, REPLY_WINDOW_BYTES};
use super::output::Output;
use super::parse::{ARGUMENTS_MAX, RequestParser};
use super::registry::Client;
use super::session::{Action, Describe, Session, Then};
use super::{BULK_BYTES_MAX, REQUEST_BYTES_MAX, Shared};

/// Bytes that one read asks for, at least and at most: idle connections are many and should cost
/// little, busy ones should cost few calls.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// Operations that only read are kept for another try up to this size, in bytes.
const AGAIN_BYTES_MAX: usize = 64 * 1024;
/// Turns of the state machine before other connections get theirs.
const TURNS: usize = 16;
/// Bound on the write timeout once the gateway is to stop.
const WRITE_TIMEOUT_STOPPING: Duration = Duration::from_secs(5);
/// Most bytes that a connection makes the gateway hold, beside
/// [`Config::output_max`](super::Config::output_max) of results: bytes of requests and replies.
/// What keeps them in order comes on top: where arguments have a few bytes each, several times
/// these.
const HELD_MAX: usize = 256 << 20;
const _: () = assert!(
    // A request that is not complete, whose arguments have up to 13 bytes around them, and a read.
    REQUEST_BYTES_MAX + 13 * ARGUMENTS_MAX as usize + READ_BYTES_MAX
        // The commands of a transaction, and the keys that it watches.
        + 2 * REQUEST_BYTES_MAX
        // The replies to those that are answered here, and the operation that all become.
        + REQUEST_BYTES_MAX + REPLY_MAX + REQUEST_BYTES_MAX
        // Operations in flight, and those that are kept for another try.
        + IN_FLIGHT_BYTES + REQUEST_BYTES_MAX + IN_FLIGHT_BYTES + AGAIN_BYTES_MAX
        // Replies made here.
        + REPLY_WINDOW_BYTES + REPLY_MAX
        // A result for which there was room when it was taken.
        + REPLY_MAX
        <= HELD_MAX
);

/// A reply to come, in its place.
enum Slot<F> {
    /// Bytes for the client, as they are.
    Local(Vec<u8>),
    /// A result of the backend that is there already.
    Known(Result<Vec<u8>, BackendError>),
    /// A result of the backend to come.
    Waiting(F),
    /// An operation that only reads, to be submitted again.
    Parked,
}

impl<F> Slot<F> {
    /// Whether the backend has answered here, if only that there is no result.
    fn is_answer(&self) -> bool {
        match self {
            Slot::Known(Ok(_)) => true,
            Slot::Known(Err(error)) => !error.unavailable,
            Slot::Local(_) | Slot::Waiting(_) | Slot::Parked => false,
        }
    }
}

struct Pending<F> {
    slot: Slot<F>,
    then: Then,
    since: Instant,
    bytes: usize,
    /// The operation, when it only reads.
    again: Option<Vec<u8>>,
}

/// The state of one connection.
pub(super) struct Connection<B: Backend> {
    stream: TcpStream,
    shared: Arc<Shared>,
    backend: B,
    client: Arc<Client>,
    parser: RequestParser,
    session: Session,
    pending: VecDeque<Pending<B::Pending>>,
    in_flight: Load,
    output: Output,
    /// The peer sends nothing more; what it sent is still answered.
    eof: bool,
    /// No more requests are handled; the connection ends when the replies have left.
    closing: bool,
    /// The connection ends now.
    ended: bool,
    /// The peer may still be sending what nobody reads.
    linger: bool,
    /// The parser has no complete request.
    hungry: bool,
    /// Bytes that the next read asks for.
    read_bytes: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B: Backend> Connection<B> {
    pub(super) fn new(
        stream: TcpStream,
        shared: Arc<Shared>,
        backend: B,
        client: Arc<Client>,
    ) -> Connection<B> {
        let described = backend.clone();
        let describe = Box::new(move || described.describe());
        let about = (describe as Describe, backend.refusals());
        let session = Session::new(Arc::clone(&shared), Arc::clone(&client), about);
        Connection {
            stream,
            shared,
            backend,
            client,
            parser: RequestParser::new(BULK_BYTES_MAX, REQUEST_BYTES_MAX),
            session,
            pending: VecDeque::new(),
            in_flight: Load::new(),
            output: Output::new(),
            eof: false,
            closing: false,
            ended: false,
            linger: false,
            hungry: true,
            read_bytes: READ_BYTES_MIN,
            timer: None,
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        if let Err(error) = end {
            tracing::debug!(client = self.client.id, %error, "connection ended");
        } else if self.linger {
            let (stream, client, shared) = self.into_parts();
            linger(stream, &client, &shared).await;
        }
    }

    /// What outlives the replies; everything else, such as half a request, is freed.
    fn into_parts(self) -> (TcpStream, Arc<Client>, Arc<Shared>) {
        (self.stream, self.client, self.shared)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.client.register(cx.waker());
        for _ in 0..TURNS {
            if self.client.is_doomed() {
                return Poll::Ready(Ok(()));
            }
            if self.shared.stopping.load(Ordering::Acquire) {
                self.closing = true;
            }
            let mut moved = self.poll_read(cx)?;
            moved |= self.dispatch(cx);
            moved |= self.poll_replies(cx);
            moved |= self.poll_write(cx)?;
            moved |= self.poll_timer(cx);
            let finished = self.closing && self.pending.is_empty() && self.output.held() == 0;
            if finished || self.ended {
                return Poll::Ready(Ok(()));
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, unless requests are still waiting to be submitted.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.eof || self.closing || !self.hungry || !self.has_room() {
            return Ok(false);
        }
        match self.stream.poll_read_ready(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(ready) => ready?,
        }
        match self.stream.try_read_buf(self.parser.space(self.read_bytes)) {
            Ok(0) => {
                self.eof = true;
                self.hungry = false;
            }
            Ok(n) => {
                self.hungry = false;
                self.read_bytes = if n >= self.read_bytes {
                    (self.read_bytes * 2).min(READ_BYTES_MAX)
                } else if n < self.read_bytes / 8 {
                    (self.read_bytes / 2).max(READ_BYTES_MIN)
                } else {
                    self.read_bytes
                };
                self.session.active();
                self.shared.stats.bytes_in.add(n as u64);
            }
            // Ready again shows only on another poll, so this counts as movement.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(true)
    }

    /// Whether another request may be handled.
    fn has_room(&self) -> bool {
        self.in_flight.takes_request(self.output.held(), self.shared.config.in_flight_max)
    }

    /// Whether an operation may be submitted again.
    fn has_room_again(&self) -> bool {
        self.in_flight.takes_op(self.output.held(), self.shared.config.in_flight_max)
    }

    /// Handles the requests that are there.
    fn dispatch(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.has_room_again() && self.unpark(cx) {
            moved = true;
        }
        while !self.hungry && !self.closing && self.has_room() {
            // EXEC needs the versions that WATCH asked for: nothing overtakes it.
            if self.session.exec_is_held() {
                if self.session.awaits_watch() {
                    break;
                }
                let mut local = Vec::new();
                let action = self.session.release_exec(&mut local);
                self.act(action, local, cx);
                moved = true;
                continue;
            }
            let mut local = Vec::new();
            let action = match self.parser.next_request() {
                Ok(None) => {
                    self.hungry = true;
                    self.closing |= self.eof;
                    // Reading may go on: that is movement too, or nobody would wake this task.
                    moved = true;
                    break;
                }
                Ok(Some(request)) => {
                    self.shared.stats.commands.add(1);
                    self.session.handle(&request, &mut local)
                }
                Err(error) => {
                    self.shared.stats.protocol_errors.add(1);
                    self.shared.health.refused(&self.client, &error);
                    self.session.protocol_error(&error, &mut local);
                    self.linger = true;
                    Action::Close
                }
            };
            self.act(action, local, cx);
            moved = true;
        }
        moved
    }

    /// Carries out what the session decided.
    fn act(&mut self, action: Action, local: Vec<u8>, cx: &mut Context<'_>) {
        if !local.is_empty() {
            self.reply_local(local);
        }
        match action {
            Action::None => {}
            Action::Close => self.closing = true,
            Action::Submit(op, then) => self.submit(op, then, cx),
        }
    }

    /// Puts local bytes where the next reply belongs.
    fn reply_local(&mut self, mut bytes: Vec<u8>) {
        let Some(last) = self.pending.back_mut() else {
            self.output.more().append(&mut bytes);
            return;
        };
        self.in_flight.waits(bytes.len());
        if let Slot::Local(before) = &mut last.slot {
            before.append(&mut bytes);
        } else {
            self.pending.push_back(Pending {
                slot: Slot::Local(bytes),
                then: Then::FORWARD,
                since: Instant::now(),
                bytes: 0,
                again: None,
            });
        }
    }

    fn submit(&mut self, op: Vec<u8>, then: Then, cx: &mut Context<'_>) {
        self.shared.stats.submitted.add(1);
        let bytes = op.len();
        let again = (then.repeatable && bytes <= AGAIN_BYTES_MAX).then(|| op.clone());
        let slot = self.launch((op, then.reads), cx);
        self.pending.push_back(Pending { slot, then, since: Instant::now(), bytes, again });
    }

    /// Hands an operation to the backend.
    fn launch(&mut self, (op, reads): (Vec<u8>, bool), cx: &mut Context<'_>) -> Slot<B::Pending> {
        self.in_flight.launched(op.len());
        let stream = StreamKey(self.client.id);
        let mut result = match reads {
            true => self.backend.read(stream, op),
            false => self.backend.submit(stream, op),
        };
        // Polled at once, so that also a lazy future takes its place in the stream now.
        match Pin::new(&mut result).poll(cx) {
            Poll::Ready(result) => {
                self.in_flight.came(&result);
                Slot::Known(result)
            }
            Poll::Pending => Slot::Waiting(result),
        }
    }

    /// The result of the first operation was lost in a crowd. It and everything behind it is to
    /// be submitted again, a few at a time; false when something behind it does more than read,
    /// since that would then have been executed too early.
    fn park(&mut self) -> bool {
        let repeatable = |pending: &Pending<B::Pending>| {
            matches!(pending.slot, Slot::Local(_)) || pending.again.is_some()
        };
        if !self.pending.iter().all(repeatable) {
            return false;
        }
        for pending in &mut self.pending {
            match std::mem::replace(&mut pending.slot, Slot::Parked) {
                Slot::Local(bytes) => pending.slot = Slot::Local(bytes),
                Slot::Parked => {}
                Slot::Known(result) => {
                    self.in_flight.landed(pending.bytes);
                    self.in_flight.taken(&result);
                }
                Slot::Waiting(_) => self.in_flight.landed(pending.bytes),
            }
        }
        self.in_flight.crowded();
        true
    }

    /// Submits the first parked operation; false when there is none.
    fn unpark(&mut self, cx: &mut Context<'_>) -> bool {
        let parked = |pending: &Pending<B::Pending>| matches!(pending.slot, Slot::Parked);
        let Some(at) = self.pending.iter().position(parked) else { return false };
        let op = self.pending[at].again.clone().unwrap_or_default();
        self.pending[at].slot = self.launch((op, false), cx);
        true
    }

    /// Moves the replies that are there, in order, to the output.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        let mut answered = false;
        while self.output.held() < self.shared.config.output_max
            && let Some(mut front) = self.pending.pop_front()
        {
            if let Slot::Waiting(result) = &mut front.slot
                && let Poll::Ready(result) = Pin::new(result).poll(cx)
            {
                self.in_flight.came(&result);
                front.slot = Slot::Known(result);
            }
            answered |= front.slot.is_answer();
            let crowded = matches!(&front.slot, Slot::Known(Err(error)) if error.crowded);
            if matches!(front.slot, Slot::Waiting(_) | Slot::Parked) {
                self.pending.push_front(front);
                break;
            } else if crowded {
                self.pending.push_front(front);
                if self.park() {
                    moved = true;
                    break;
                }
                let Some(front) = self.pending.pop_front() else { break };
                self.settle(front);
            } else {
                self.settle(front);
            }
            moved = true;
        }
        if answered {
            self.shared.health.answered();
        }
        moved
    }

    /// Moves a reply that is there, or did not come in time, to the output.
    fn settle(&mut self, pending: Pending<B::Pending>) {
        let result = match pending.slot {
            Slot::Local(mut bytes) => {
                self.in_flight.waited(bytes.len());
                self.output.more().append(&mut bytes);
                return;
            }
            Slot::Known(result) => {
                self.in_flight.landed(pending.bytes);
                self.in_flight.taken(&result);
                result
            }
            Slot::Waiting(_) => {
                self.in_flight.landed(pending.bytes);
                Err(self.late())
            }
            Slot::Parked => Err(self.late()),
        };
        if let Err(error) = &result {
            self.shared.stats.unanswered.add(1);
            if error.unavailable {
                self.shared.health.unanswered(error);
            }
        }
        let out = self.output.more();
        let before = out.len();
        self.session.finish(pending.then, result, out);
        let size = out.len() - before;
        self.in_flight.replied(size);
    }

    /// The error for an operation that waited too long.
    fn late(&self) -> BackendError {
        BackendError::unavailable(format!(
            "no reply within {:?}; the command may or may not be executed",
            self.shared.config.request_timeout
        ))
    }

    /// Sends what is there.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        while self.output.held() > 0 {
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(ready) => ready?,
            }
            match self.stream.try_write(self.output.unsent()) {
                Ok(n) => {
                    self.output.took(n);
                    self.shared.stats.bytes_out.add(n as u64);
                    moved = true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(moved)
    }

    /// Ends what is overdue, and leaves a timer for the next time that something may be.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline() else { return false };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // A timer that is early finds nothing to do and is set again.
        if timer.deadline() > deadline || timer.is_elapsed() {
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.expire();
        true
    }

    /// When something may be overdue next.
    fn deadline(&self) -> Option<Instant> {
        let config = &self.shared.config;
        let reply = self.pending.front().map(|front| front.since + config.request_timeout);
        let write = (self.output.held() > 0).then(|| self.output.moved() + self.write_timeout());
        let idle = match config.idle_timeout {
            Some(idle) if self.pending.is_empty() => Some(self.session.last_active() + idle),
            _ => None,
        };
        [reply, write, idle].into_iter().flatten().min()
    }

    /// How long a reader may take nothing: not for long when the gateway is to stop.
    fn write_timeout(&self) -> Duration {
        let usual = self.shared.config.write_timeout;
        let stopping = self.shared.stopping.load(Ordering::Acquire);
        if stopping { usual.min(WRITE_TIMEOUT_STOPPING) } else { usual }
    }

    /// Ends what is overdue now.
    fn expire(&mut self) {
        let now = Instant::now();
        let config = &self.shared.config;
        if self.output.held() > 0 && now >= self.output.moved() + self.write_timeout() {
            self.shared.stats.slow_readers.add(1);
            self.ended = true;
        }
        if self.pending.is_empty()
            && let Some(idle) = config.idle_timeout
            && now >= self.session.last_active() + idle
        {
            self.shared.stats.idle_closed.add(1);
            self.ended = true;
        }
        let timeout = config.request_timeout;
        while let Some(front) = self.pending.front()
            && now >= front.since + timeout
        {
            let Some(front) = self.pending.pop_front() else { break };
            self.settle(front);
        }
    }
}
