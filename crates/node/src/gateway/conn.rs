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
//! 2. What a connection can make the gateway hold is bounded: unread requests by one request
//!    and one read, operations in flight by number and bytes, unsent replies by
//!    [`Config::output_max`](super::Config::output_max) and one reply. How large the results of
//!    operations in flight will be nobody knows; their number shrinks as results grow.
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

use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::backend::{Backend, BackendError, StreamKey};
use super::linger::linger;
use super::parse::RequestParser;
use super::registry::Client;
use super::session::{Action, Describe, Session, Then};
use super::{BULK_BYTES_MAX, REQUEST_BYTES_MAX, Shared};

/// Bytes that one read asks for, at least and at most: idle connections are many and should cost
/// little, busy ones should cost few calls.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// Operations in flight stop new ones when they hold more bytes than this.
const IN_FLIGHT_BYTES: usize = 32 << 20;
/// New operations are held back so that replies, as large as the last ones, fit this many bytes.
const REPLY_WINDOW_BYTES: usize = 16 << 20;
/// How large replies are taken to be before any was seen: the first operations go out in small
/// numbers, also because the results of one frame must fit into one reply of the group.
const REPLY_GUESS_BYTES: usize = 1 << 20;
/// Operations that only read are kept for another try up to this size, in bytes.
const AGAIN_BYTES_MAX: usize = 64 * 1024;
/// Turns of the state machine before other connections get theirs.
const TURNS: usize = 16;
/// Bound on the write timeout once the gateway is to stop.
const WRITE_TIMEOUT_STOPPING: Duration = Duration::from_secs(5);
/// A reply buffer larger than this is given back when it has become empty, in bytes.
const SHRINK_ABOVE: usize = 64 * 1024;

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

/// How much is in flight.
struct Load {
    ops: usize,
    bytes: usize,
    /// Results that were there at once, and their bytes.
    known: usize,
    known_bytes: usize,
    /// Decaying maximum of the sizes of replies.
    reply_hint: usize,
}

impl Load {
    /// An operation of `bytes` bytes is in flight no more.
    fn landed(&mut self, bytes: usize) {
        self.ops -= 1;
        self.bytes -= bytes;
    }

    /// A result that was there has been used.
    fn taken(&mut self, result: &Result<Vec<u8>, BackendError>) {
        self.known -= 1;
        self.known_bytes -= result.as_ref().map_or(0, Vec::len);
    }
}

/// Replies that have not left yet.
struct Output {
    bytes: Vec<u8>,
    sent: usize,
    /// When the peer last took some, or there was nothing to take.
    moved: Instant,
}

impl Output {
    fn held(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// The bytes, to append to.
    fn more(&mut self) -> &mut Vec<u8> {
        if self.held() == 0 {
            self.moved = Instant::now();
        }
        &mut self.bytes
    }
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
            in_flight: Load {
                ops: 0,
                bytes: 0,
                known: 0,
                known_bytes: 0,
                reply_hint: REPLY_GUESS_BYTES,
            },
            output: Output { bytes: Vec::new(), sent: 0, moved: Instant::now() },
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

    /// Whether another operation may go into flight.
    fn has_room(&self) -> bool {
        let load = &self.in_flight;
        let coming = (load.ops - load.known + 1) * load.reply_hint;
        let replies = self.output.held() + load.known_bytes + coming;
        load.ops == 0 && self.output.held() < REPLY_WINDOW_BYTES
            || load.ops < self.shared.config.in_flight_max
                && load.bytes < IN_FLIGHT_BYTES
                && replies < REPLY_WINDOW_BYTES
    }

    /// Handles the requests that are there.
    fn dispatch(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.has_room() && self.unpark(cx) {
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
        match self.pending.back_mut() {
            None => self.output.more().append(&mut bytes),
            Some(Pending { slot: Slot::Local(before), .. }) => before.append(&mut bytes),
            Some(_) => self.pending.push_back(Pending {
                slot: Slot::Local(bytes),
                then: Then::FORWARD,
                since: Instant::now(),
                bytes: 0,
                again: None,
            }),
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
        self.in_flight.ops += 1;
        self.in_flight.bytes += op.len();
        let stream = StreamKey(self.client.id);
        let mut result = match reads {
            true => self.backend.read(stream, op),
            false => self.backend.submit(stream, op),
        };
        // Polled at once, so that also a lazy future takes its place in the stream now.
        match Pin::new(&mut result).poll(cx) {
            Poll::Ready(result) => {
                self.in_flight.known += 1;
                self.in_flight.known_bytes += result.as_ref().map_or(0, Vec::len);
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
        self.in_flight.reply_hint = REPLY_WINDOW_BYTES / 2;
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
                self.in_flight.known += 1;
                self.in_flight.known_bytes += result.as_ref().map_or(0, Vec::len);
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
        let hint = &mut self.in_flight.reply_hint;
        *hint = size.max(*hint - *hint / 8).max(64);
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
            match self.stream.try_write(&self.output.bytes[self.output.sent..]) {
                Ok(n) => {
                    self.output.sent += n;
                    self.output.moved = Instant::now();
                    self.shared.stats.bytes_out.add(n as u64);
                    moved = true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        self.output.sent = 0;
        self.output.bytes.clear();
        if self.output.bytes.capacity() > SHRINK_ABOVE {
            self.output.bytes = Vec::new();
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
        let write = (self.output.held() > 0).then(|| self.output.moved + self.write_timeout());
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
        if self.output.held() > 0 && now >= self.output.moved + self.write_timeout() {
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
