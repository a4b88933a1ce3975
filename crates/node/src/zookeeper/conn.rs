//! One connection: a task that reads requests, submits them, and tells the client what comes back
//! in the order of the numbers that the service gave it.
//!
//! Invariants:
//! 1. requests are submitted in the order in which they came, to one stream, and answered in it;
//!    one that the backend does not take now is submitted again before anything behind it;
//! 2. responses and events leave in the order of their numbers, without a gap: what came early
//!    waits for what was handed over elsewhere and is still on its way;
//! 3. when something that was to be told may be lost, the connection is closed, and the client
//!    comes back and sets its watches anew. The results of requests that only read may be too
//!    large together; that is told instead, once the numbers say that no event was lost with them.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use auth::random_u64;
use svc::zk::kind;
use svc::zk::op::{Attachment, Events, Op, Outcome, PASSWORD_BYTES, Refusal, Stats};
use svc::zk::{REQUEST_BYTES_MAX, ZkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::early::Early;
use super::flow::{Flow, RETRY};
use super::sent::{Sent, Slot, arrived, only_reads};
use super::wire::{self, Begin, Greeting};
use super::{Config, Confirmed, Nudging, Peer, Push, Shared, words};
use crate::gateway::{BackendError, StreamKey};

/// Bytes that are read ahead of what is looked at, at most.
const INPUT_MAX: usize = REQUEST_BYTES_MAX + 64 * 1024;
/// How long a session is asked for again that the backend does not take now.
const ATTACH_PATIENCE: Duration = Duration::from_secs(1);
/// Results and events that wait for a client that takes nothing, in multiples of what waits in
/// bytes that are ready to leave: what it asked for before anybody knew how large that would be,
/// and what its watches are told of.
const HELD_TIMES: usize = 32;
/// How long the last bytes of a connection may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client closed its session, or the connection.
    Done,
    /// The bytes are no requests.
    Malformed,
    /// The session is over, or elsewhere.
    Gone,
    /// The client takes nothing, or says nothing.
    Slow,
    /// The group does not answer.
    Unanswered,
    /// The socket has failed.
    Broken,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Broken
    }
}

/// A connection with a session.
struct Conn<B: Nudging> {
    shared: Arc<Shared>,
    backend: B,
    stream: StreamKey,
    attached: Attachment,
    timeout: Duration,
    confirmed: Arc<Confirmed>,
    /// Pings that wait until the group has heard of the session, and when they came.
    pings: VecDeque<(i32, u64)>,
    input: Vec<u8>,
    output: Vec<u8>,
    pending: VecDeque<Sent<B::Pending>>,
    flow: Flow,
    /// Events that came early.
    early: Early,
    /// The number of what the client is to be told next.
    next: u64,
    /// Responses that were lost, and whose numbers are not known.
    lost: u64,
    /// The number of what something that is there waits for, and since when.
    gap: Option<(u64, Instant)>,
    heard: Instant,
    /// When the client last took something, or there was nothing to take.
    took: Instant,
    closing: bool,
}

/// Serves a connection until it ends.
pub(super) async fn run<B: Nudging>(
    stream: TcpStream,
    from: SocketAddr,
    shared: Arc<Shared>,
    backend: B,
    id: u64,
) {
    let (mut reader, mut writer) = stream.into_split();
    let mut input = Vec::new();
    let begin = read_begin(&mut reader, &mut input);
    let Ok(Ok(begin)) = tokio::time::timeout(shared.config.greeting_timeout, begin).await else {
        shared.stats.protocol_errors.add(1);
        return;
    };
    let greeting = match begin {
        Begin::Greeting(greeting, taken) => {
            input.drain(..taken);
            greeting
        }
        Begin::Word(word) => {
            let stats = match words::needs_stats(&word) {
                true => stats(&backend).await,
                false => None,
            };
            let answer = words::answer(&word, &shared, stats);
            let _ = tokio::time::timeout(FAREWELL, writer.write_all(answer.as_bytes())).await;
            return;
        }
    };
    let stream = super::stream_of(id, shared.config.lines);
    let at_ms = shared.now_ms();
    let Some((attached, timeout)) = attach(&backend, stream, &greeting, &mut writer).await else {
        return;
    };
    let (push, pushed) = mpsc::unbounded_channel();
    let confirmed = Arc::new(Confirmed::default());
    confirmed.raise(at_ms);
    let peer = Peer { push, confirmed: Arc::clone(&confirmed), address: from };
    shared.peers().insert(attached, peer);
    let mut conn = Conn {
        shared,
        backend,
        stream,
        attached,
        timeout,
        confirmed,
        pings: VecDeque::new(),
        input,
        output: Vec::new(),
        pending: VecDeque::new(),
        flow: Flow::default(),
        early: Early::default(),
        next: 0,
        lost: 0,
        gap: None,
        heard: Instant::now(),
        took: Instant::now(),
        closing: false,
    };
    let end = conn.serve(&mut reader, &mut writer, pushed).await;
    tracing::debug!(session = attached.0, ?end, "a connection ends");
    conn.part(&end);
    if !matches!(end, End::Slow) {
        let _ = tokio::time::timeout(FAREWELL, writer.write_all(&conn.output)).await;
    }
}

async fn read_begin(reader: &mut OwnedReadHalf, input: &mut Vec<u8>) -> Result<Begin, End> {
    loop {
        if let Some(begin) = wire::begin(input).map_err(|_| End::Malformed)? {
            return Ok(begin);
        }
        if reader.read_buf(input).await? == 0 {
            return Err(End::Done);
        }
    }
}

async fn stats<B: Nudging>(backend: &B) -> Option<Stats> {
    let mut op = Vec::new();
    Op::Stats.encode(&mut op);
    let result = backend.submit(StreamKey(super::OWN_STREAM), op).await.ok()?;
    match Outcome::decode(&result) {
        Ok(Outcome::Stats(stats)) => Some(stats),
        _ => None,
    }
}

/// Opens or resumes the client's session and answers the greeting. `None` when the connection
/// is to end.
async fn attach<B: Nudging>(
    backend: &B,
    stream: StreamKey,
    greeting: &Greeting,
    writer: &mut OwnedWriteHalf,
) -> Option<(Attachment, Duration)> {
    let Greeting { last_zxid, timeout_ms, session, mut password, .. } = *greeting;
    let mut op = Vec::new();
    if session == 0 {
        for half in password.chunks_mut(PASSWORD_BYTES / 2) {
            half.copy_from_slice(&random_u64().ok()?.to_be_bytes());
        }
        Op::Open { password, timeout_ms }.encode(&mut op);
    } else {
        Op::Resume { session, password, timeout_ms, last_zxid }.encode(&mut op);
    }
    let began = Instant::now();
    let result = loop {
        match backend.submit(stream, op.clone()).await {
            Ok(result) => break result,
            // Not for long: its client may have gone, and come again with the same session.
            Err(error) if error.unsent && began.elapsed() < ATTACH_PATIENCE => {
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => {
                tracing::warn!(%error, "no session");
                return None;
            }
        }
    };
    let mut answer = Vec::new();
    let attached = match Outcome::decode(&result) {
        Ok(Outcome::Attached { to, timeout_ms }) => {
            wire::welcome(&mut answer, Some((to.0, timeout_ms, password)), greeting);
            Some((to, Duration::from_millis(timeout_ms.into())))
        }
        Ok(Outcome::Refused(Refusal::Expired | Refusal::Password)) => {
            wire::welcome(&mut answer, None, greeting);
            None
        }
        Ok(Outcome::Refused(why)) => {
            tracing::warn!(?why, "no session: ZooKeeper hangs up as well, the client tries again");
            None
        }
        _ => None,
    };
    let written = tokio::time::timeout(FAREWELL, writer.write_all(&answer)).await;
    if !matches!(written, Ok(Ok(()))) {
        return None;
    }
    attached
}

impl<B: Nudging> Conn<B> {
    async fn serve(
        &mut self,
        reader: &mut OwnedReadHalf,
        writer: &mut OwnedWriteHalf,
        mut pushed: mpsc::UnboundedReceiver<Push>,
    ) -> End {
        // What came together with the greeting.
        if let Err(end) = self.take_requests() {
            return end;
        }
        loop {
            match self.step(reader, writer, &mut pushed).await {
                Ok(()) if self.is_over() => return End::Done,
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// Whether another request may be taken.
    fn has_room(&self) -> bool {
        self.flow.has_room(&self.shared.config, self.pending.len(), self.pings.len())
    }

    /// Whether the client closed its session and was told everything.
    fn is_over(&self) -> bool {
        self.closing && self.pending.is_empty() && self.output.is_empty()
    }

    /// Waits for something to happen and does what follows.
    async fn step(
        &mut self,
        reader: &mut OwnedReadHalf,
        writer: &mut OwnedWriteHalf,
        pushed: &mut mpsc::UnboundedReceiver<Push>,
    ) -> Result<(), End> {
        let Config { output_max, write_timeout, gap_timeout, .. } = self.shared.config;
        let full = self.output.len() >= output_max;
        let reads = self.has_room() && !full && self.input.len() < INPUT_MAX && !self.closing;
        let silent = self.heard + self.timeout;
        if self.output.is_empty() {
            self.took = Instant::now();
        }
        let stuck = self.took + write_timeout;
        let slot = self.pending.front().map(|sent| &sent.slot).filter(|_| !full);
        let waits = matches!(slot, Some(Slot::Waiting(_)));
        let is_there = matches!(slot, Some(Slot::Known(_))) && self.gap.is_none();
        let (retry, gap) = (self.flow.retry(), self.gap);
        tokio::select! {
            () = arrived(&mut self.pending, full), if waits || full => {
                if full { self.check_held() } else { self.tell() }
            }
            () = std::future::ready(()), if is_there => self.tell(),
            push = pushed.recv() => match push {
                Some(Push::Events(events)) => {
                    self.early.push(events);
                    self.tell()
                }
                Some(Push::Renewed) => self.tell(),
                Some(Push::Gone) | None => Err(End::Gone),
            },
            written = writer.write(&self.output), if !self.output.is_empty() => {
                let written = written?;
                self.shared.stats.bytes_out.add(written as u64);
                self.output.drain(..written);
                self.took = Instant::now();
                if full && self.output.len() < output_max { self.tell() } else { Ok(()) }
            }
            read = reader.read_buf(&mut self.input), if reads => {
                let read = read?;
                self.shared.stats.bytes_in.add(read as u64);
                self.heard = Instant::now();
                if read == 0 { Err(End::Done) } else { self.take_requests() }
            }
            () = tokio::time::sleep_until(stuck), if !self.output.is_empty() => {
                self.shared.stats.slow_readers.add(1);
                Err(End::Slow)
            }
            () = until(retry), if retry.is_some() => {
                self.flow.tries();
                self.ask_what_was_lost();
                self.take_requests()
            }
            () = until(gap.map(|(_, since)| since + gap_timeout)), if gap.is_some() => {
                // It went to somebody who does not know whose it is.
                Err(End::Gone)
            }
            () = tokio::time::sleep_until(silent), if !self.closing => {
                // Reading may have stopped for the client's own good.
                if reads { Err(End::Slow) } else { self.heard = Instant::now(); Ok(()) }
            }
        }
    }

    /// Submits the requests that have come.
    fn take_requests(&mut self) -> Result<(), End> {
        // Nothing is to execute behind a request that was given up, which takes all behind it
        // along: so the last one tells.
        self.poll_front();
        if let Some(last) = self.pending.back_mut() {
            last.slot.poll();
        }
        for sent in [self.pending.front(), self.pending.back()].into_iter().flatten() {
            if let Slot::Known(Err(error)) = &sent.slot
                && !error.crowded
            {
                return Err(self.unanswered(error));
            }
        }
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while !self.closing && self.has_room() {
            match self.take_request(&input[at..])? {
                0 => break,
                taken => at += taken,
            }
        }
        self.input = input;
        self.input.drain(..at);
        Ok(())
    }

    /// Submits the first request of `bytes`; how many bytes it took, 0 when it is not all there.
    fn take_request(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let malformed = |_| {
            self.shared.stats.protocol_errors.add(1);
            End::Malformed
        };
        let Some((frame, taken)) = wire::frame(bytes).map_err(malformed)? else { return Ok(0) };
        let (xid, kind, body) = wire::request(frame).map_err(malformed)?;
        if kind == kind::PING {
            self.ping(xid)?;
        } else if self.submit(Some(xid), kind, body) {
            self.closing = kind == kind::CLOSE;
        } else {
            return Ok(0);
        }
        self.shared.stats.commands.add(1);
        Ok(taken)
    }

    /// Submits a request. False when the backend does not take it now: then nothing else of the
    /// client is to be submitted before it.
    fn submit(&mut self, xid: Option<i32>, kind: i32, body: &[u8]) -> bool {
        let mut op = Vec::with_capacity(body.len() + 32);
        Op::Request { from: self.attached, kind, body }.encode(&mut op);
        let (at_ms, bytes) = (self.shared.now_ms(), op.len());
        let mut slot = Slot::Waiting(self.backend.submit(self.stream, op));
        slot.poll();
        if matches!(&slot, Slot::Known(Err(error)) if error.unsent) {
            self.flow.refused();
            return false;
        }
        self.shared.stats.submitted.add(1);
        self.flow.sent(bytes);
        // Whether it waits for something is seen when it is to be told.
        self.gap = None;
        self.pending.push_back(Sent { xid, kind, at_ms, bytes, slot });
        true
    }

    /// Takes a ping, if the group has heard of the session lately.
    fn ping(&mut self, xid: i32) -> Result<(), End> {
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.shared.now_ms();
        if now_ms >= self.confirmed.ms().saturating_add(timeout_ms) {
            return Err(End::Unanswered);
        }
        self.shared.pinged().insert(self.attached);
        self.pings.push_back((xid, now_ms));
        Ok(())
    }

    /// Answers the pings since which the group has heard of the session: or a client would count
    /// on time that it does not have, should this gateway end or hang before it passes them on.
    fn answer_pings(&mut self) {
        let confirmed = self.confirmed.ms();
        while let Some(&(xid, at_ms)) = self.pings.front()
            && at_ms <= confirmed
        {
            self.pings.pop_front();
            wire::response(&mut self.output, xid, 0, 0, &[]);
        }
    }

    /// Tells the client what is next, as far as it is there.
    fn tell(&mut self) -> Result<(), End> {
        while self.output.len() < self.shared.config.output_max {
            if self.lost == 0
                && let Some(events) = self.early.take(self.next..=self.next)
            {
                self.tell_events(&events);
                continue;
            }
            let Some(front) = self.pending.pop_front() else { break };
            let Slot::Known(result) = &front.slot else {
                self.pending.push_front(front);
                break;
            };
            let result_bytes = result.as_ref().map_or(0, Vec::len);
            match result {
                Ok(result) if !self.tell_result(&front, result)? => {
                    self.pending.push_front(front);
                    break;
                }
                Ok(_) => {}
                Err(error) if error.crowded && only_reads(front.kind) => self.tell_lost(&front),
                Err(error) => return Err(self.unanswered(error)),
            }
            self.flow.answered(front.bytes, result_bytes);
            self.poll_front();
        }
        let old = self.gap.filter(|(next, _)| *next == self.next);
        self.gap = self.has_gap().then(|| old.unwrap_or_else(|| (self.next, Instant::now())));
        if !self.early.is_empty() {
            self.check_held()?;
        }
        self.answer_pings();
        if !self.input.is_empty() { self.take_requests() } else { Ok(()) }
    }

    /// Ends the connection when too much waits to be told.
    fn check_held(&self) -> Result<(), End> {
        let held_max = self.shared.config.output_max.saturating_mul(HELD_TIMES);
        let results: usize = self.pending.iter().map(|sent| sent.slot.bytes()).sum();
        if results + self.early.bytes() <= held_max {
            return Ok(());
        }
        self.shared.stats.slow_readers.add(1);
        Err(End::Slow)
    }

    /// Whether something that is there waits for what is not. Not while the client takes nothing.
    fn has_gap(&self) -> bool {
        let full = self.output.len() >= self.shared.config.output_max;
        let waits = match self.pending.front() {
            Some(sent) => matches!(sent.slot, Slot::Known(_)),
            None => !self.early.is_empty(),
        };
        waits && !full
    }

    fn unanswered(&self, error: &BackendError) -> End {
        self.shared.stats.unanswered.add(1);
        tracing::debug!(%error, "a request without a response");
        End::Unanswered
    }

    /// Tells the client a response; false while something before it is on its way.
    fn tell_result(&mut self, sent: &Sent<B::Pending>, result: &[u8]) -> Result<bool, End> {
        let (events, error, zxid, body) = match Outcome::decode(result) {
            Ok(Outcome::Response { events, error, zxid, body }) => (events, error, zxid, body),
            Ok(Outcome::Refused(_)) => return Err(End::Gone),
            _ => return Err(End::Unanswered),
        };
        let last = sent.kind == kind::CLOSE && error == 0;
        if self.lost > 0 && !last {
            self.make_good(events.first)?;
        }
        if events.first > self.next && !last {
            return Ok(false);
        }
        self.confirmed.raise(sent.at_ms);
        events.list.iter().for_each(|event| wire::event(&mut self.output, event));
        self.next = events.first.saturating_add(events.list.len() as u64 + 1);
        let Some(xid) = sent.xid else { return Ok(true) };
        wire::response(&mut self.output, xid, zxid, error, body);
        let rejected = sent.kind == kind::AUTH && error == ZkError::AuthFailed.code();
        if rejected { Err(End::Done) } else { Ok(true) }
    }

    /// Tells the client that there is no response to a request that only read; its result was
    /// too large together with others. Whether events were lost with it, the number of the next
    /// response tells, which the gateway asks for itself.
    fn tell_lost(&mut self, sent: &Sent<B::Pending>) {
        self.confirmed.raise(sent.at_ms);
        self.lost += 1;
        if let Some(xid) = sent.xid {
            self.shared.stats.unanswered.add(1);
            wire::response(&mut self.output, xid, 0, ZkError::SystemError.code(), &[]);
        }
        self.ask_what_was_lost();
    }

    /// Asks for the number of what comes next, unless that is on its way or nothing was lost.
    fn ask_what_was_lost(&mut self) {
        let asks = self.pending.iter().any(|sent| sent.xid.is_none());
        if self.lost > 0 && !self.closing && !asks {
            // A path of no bytes. When it is not taken, it is submitted later.
            self.submit(None, kind::SYNC, &[0; 4]);
        }
    }

    /// What was lost is made good if responses alone were: with them and the events that came
    /// meanwhile, everything before number `first` is accounted for.
    fn make_good(&mut self, first: u64) -> Result<(), End> {
        let mut known = self.next + std::mem::take(&mut self.lost);
        while let Some(events) = self.early.take(0..=first.saturating_sub(1)) {
            known += events.list.len() as u64;
            self.tell_events(&events);
        }
        self.next = first;
        if known == first { Ok(()) } else { Err(End::Gone) }
    }

    fn tell_events(&mut self, events: &Events) {
        events.list.iter().for_each(|event| wire::event(&mut self.output, event));
        self.next += events.list.len() as u64;
    }

    /// Takes the next result, too, if it is there: one turn for all of them.
    fn poll_front(&mut self) {
        if let Some(Sent { slot, .. }) = self.pending.front_mut()
            && matches!(slot, Slot::Waiting(_))
        {
            slot.poll();
            self.gap = None;
        }
    }

    /// Takes the connection out of the books; the session waits for its client.
    fn part(&mut self, end: &End) {
        self.shared.peers().remove(&self.attached);
        self.shared.pinged().remove(&self.attached);
        if matches!(end, End::Slow) {
            self.shared.stats.idle_closed.add(1);
        }
        if !self.closing {
            let mut op = Vec::new();
            Op::Leave(self.attached).encode(&mut op);
            // Nobody waits for it; without it, events wait in vain until the session ends.
            drop(self.backend.submit(self.stream, op));
        }
    }
}

/// Sleeps until then; for ever when it is not known.
async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
