//! Reads without an order: the client's part of them.
//!
//! In a group that answers reads without an order ([`super::ClientConfig::reads`]), operations
//! that the caller says only read go to all replicas in frames of their own. A result is accepted
//! when a quorum gave the same one, *and said that it is so since the same number*: bytes alone
//! may be those of an older state that came back. Results are voted on one by one, so that a
//! write to one key costs the reads of other keys nothing. Whatever is not accepted soon is
//! ordered like any other operation, and its caller sees no difference.
//!
//! The order of a caller's stream holds. Of one stream there are either reads without an order on
//! their way, or operations with one, never both: a read behind an ordered operation is ordered,
//! too; and when something is to be ordered, or a read has to be, what the stream has on its way
//! without an order is taken back and ordered before it. Reads of one stream answer each other in
//! order: links are, and frames are settled in the order in which they were sent.
//!
//! Not here: what a replica answers (`exec::read`), and ordered frames (`super::line`).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::frame::READS;
use base::reply::ReplyHead;
use base::{
    Frame, FrameBuilder, FrameId, Now, Reader, ReplicaId, Reply, ReplyStatus, Seq, Span, Time,
    limits,
};

use super::vote::{Said, What};
use super::{ClientConfig, ClientCore, Effect, OP_OVERHEAD_BYTES, OpError, Results, SendTo};

/// Bytes before each result: since when it is so.
pub(super) const SINCE_BYTES: usize = 4;
/// Replies are kept if they are no larger than this.
const KEPT_BYTES_MAX: usize = limits::READ_REPLY_BYTES_MAX + 1024;
/// How long the others may yet answer once a quorum has, and not the same.
const PATIENCE: Span = Span::millis(2);
/// For how long reads are ordered after no quorum has answered one in time; doubles each time
/// that this happens after such a time is over.
const REST_MIN: Span = Span::secs(1);
const REST_MAX: Span = Span::secs(16);

/// The reads of one line.
#[derive(Debug)]
pub(super) struct Reads<T> {
    /// Reads that wait, in order; their bytes are in `arena`, those taken back included. The
    /// newest one was not.
    draft: Vec<Slot<T>>,
    arena: Vec<u8>,
    /// Frames that were sent, in order.
    flying: VecDeque<Flight<T>>,
    /// The id of the last one.
    last: u64,
}

/// One read.
#[derive(Debug)]
struct Slot<T> {
    stream: u32,
    len: usize,
    /// `None` once it was taken back.
    token: Option<T>,
}

/// A frame that was sent and is not settled.
#[derive(Debug)]
struct Flight<T> {
    frame: Arc<Frame>,
    slots: Vec<Slot<T>>,
    said: Vec<(ReplicaId, Option<Answer>)>,
    due: Time,
    /// There is nothing more to wait for.
    ripe: bool,
}

/// What one replica answered.
#[derive(Debug)]
struct Answer {
    /// From which number on it counts.
    seq: Seq,
    content: Vec<u8>,
    /// Where the results begin.
    at: usize,
}

/// What each caller's stream has on its way.
#[derive(Debug, Default)]
pub(super) struct Streams {
    under_way: BTreeMap<u32, UnderWay>,
    /// Reads are ordered until then, since they were not answered.
    rest: Time,
    rest_span: Span,
}

#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    ordered: u32,
    reads: u32,
}

impl<T> Default for Reads<T> {
    fn default() -> Reads<T> {
        Reads { draft: Vec::new(), arena: Vec::new(), flying: VecDeque::new(), last: 0 }
    }
}

impl<T> Reads<T> {
    /// Takes out, in order, what of `stream` is on its way, or of all; with its bytes. There are
    /// `count` of these at most, and the newest are looked for first: mostly a stream that goes
    /// on with something else has read last.
    fn take_back(&mut self, stream: Option<u32>, count: usize) -> Vec<(u32, Vec<u8>, T)> {
        let wanted = |slot: &Slot<T>| stream.is_none_or(|stream| slot.stream == stream);
        let (mut waited, mut end) = (Vec::new(), self.arena.len());
        for slot in self.draft.iter_mut().rev() {
            if waited.len() >= count {
                break;
            }
            let op = &self.arena[end - slot.len..end];
            end -= slot.len;
            if wanted(slot) {
                waited.extend(slot.token.take().map(|token| (slot.stream, op.to_vec(), token)));
            }
        }
        // Or the next one would have to pass them over.
        while let Some(slot) = self.draft.pop_if(|slot| slot.token.is_none()) {
            self.arena.truncate(self.arena.len() - slot.len);
        }
        let mut taken = Vec::new();
        for flight in &mut self.flying {
            if taken.len() + waited.len() >= count {
                break;
            }
            let ops = flight.frame.ops();
            for (slot, op) in flight.slots.iter_mut().zip(ops).filter(|(slot, _)| wanted(slot)) {
                taken.extend(slot.token.take().map(|token| (slot.stream, op.to_vec(), token)));
            }
        }
        taken.extend(waited.into_iter().rev());
        taken
    }

    /// Reads that are queued or in flight.
    pub(super) fn held(&self) -> usize {
        let slots = self.flying.iter().flat_map(|flight| &flight.slots).chain(&self.draft);
        slots.filter(|slot| slot.token.is_some()).count()
    }

    /// Checks the invariants.
    pub(super) fn check(&self) {
        let bytes: usize = self.draft.iter().map(|slot| slot.len).sum();
        assert_eq!(bytes, self.arena.len(), "bytes that belong to no read, or none that do");
        let newest = self.draft.last();
        assert!(newest.is_none_or(|slot| slot.token.is_some()), "what was taken back stays");
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.flying.front().map(|flight| flight.due)
    }

    /// Cuts a frame of what waits, of at most `ops` operations and about `bytes` bytes.
    fn cut(&mut self, (ops, bytes): (usize, usize)) -> Option<(FrameBuilder, Vec<Slot<T>>)> {
        let mut builder = FrameBuilder::new();
        let (mut at, mut count) = (0, 0);
        for slot in &self.draft {
            let more = builder.bytes() + slot.len <= bytes || builder.is_empty();
            if builder.op_count() >= ops || !more || !builder.fits(slot.len) {
                break;
            }
            if slot.token.is_some() {
                builder.push(&self.arena[at..at + slot.len]);
            }
            (at, count) = (at + slot.len, count + 1);
        }
        self.arena.drain(..at);
        let slots: Vec<Slot<T>> = self.draft.drain(..count).collect();
        let slots: Vec<Slot<T>> = slots.into_iter().filter(|slot| slot.token.is_some()).collect();
        (!slots.is_empty()).then_some((builder, slots))
    }
}

impl<T> Flight<T> {
    /// Notes what a replica says; once only. Whether that is what a correct one says.
    fn hear(&mut self, from: ReplicaId, said: &Said<'_>) -> bool {
        if self.said.iter().any(|(replica, _)| *replica == from) {
            return true;
        }
        let answer = match said.what {
            What::Content(content) if said.status == ReplyStatus::Executed => {
                let answer = Answer::new(content, self.frame.op_count());
                if answer.is_none() {
                    self.said.push((from, None));
                    return false;
                }
                answer
            }
            _ => None,
        };
        self.said.push((from, answer));
        matches!(said.status, ReplyStatus::Executed | ReplyStatus::Unread)
    }

    /// Whether to wait for more, when `matching` of `n` replicas have to say the same.
    fn look(&mut self, now: Time, matching: usize, n: usize) {
        let answers = self.said.iter().flat_map(|(_, answer)| answer).count();
        let left = n - self.said.len();
        if answers + left < matching || left == 0 {
            self.ripe = true;
        } else if answers >= matching {
            self.ripe = self.verdicts(matching).iter().all(Option::is_some);
            self.due = self.due.min(now.after(PATIENCE));
        }
    }

    /// For each read, which of the answers has the accepted result.
    fn verdicts(&self, matching: usize) -> Vec<Option<usize>> {
        let answers: Vec<&Answer> = self.said.iter().flat_map(|(_, answer)| answer).collect();
        let ops = self.frame.op_count();
        // Mostly all say the same, and one comparison does it.
        if let Some(first) = answers.first()
            && answers.iter().filter(|other| other.same_as(first)).count() >= matching
        {
            return alloc::vec![Some(0); ops];
        }
        let mut readers: Vec<_> = answers.iter().map(|answer| answer.results()).collect();
        let mut verdicts = Vec::with_capacity(ops);
        for _ in 0..ops {
            let results: Vec<(Seq, &[u8])> = answers
                .iter()
                .zip(&mut readers)
                .map(|(answer, results)| (answer.seq, results.next().unwrap_or_default()))
                .collect();
            let said = |one: &(Seq, &[u8])| {
                let skip = if base::mutant!(ReadsSinceUnseen) { SINCE_BYTES } else { 0 };
                let same = |other: &&(Seq, &[u8])| match skip {
                    0 => *other == one,
                    skip => other.1.get(skip..) == one.1.get(skip..),
                };
                results.iter().filter(same).count()
            };
            verdicts.push(results.iter().position(|one| said(one) >= matching));
        }
        verdicts
    }

    /// Who says something else than what was accepted, as being so since the same number: a
    /// correct replica does not.
    fn liars(&self, verdicts: &[Option<usize>]) -> Vec<ReplicaId> {
        let all = self.said.iter().filter_map(|(from, said)| Some((*from, said.as_ref()?)));
        let answers: Vec<(ReplicaId, &Answer)> = all.collect();
        let Some((_, first)) = answers.first() else { return Vec::new() };
        if answers.iter().all(|(_, answer)| answer.same_as(first)) {
            return Vec::new();
        }
        let mut lies = alloc::vec![false; answers.len()];
        let mut readers: Vec<_> = answers.iter().map(|(_, answer)| answer.results()).collect();
        for verdict in verdicts {
            let said: Vec<&[u8]> =
                readers.iter_mut().map(|results| results.next().unwrap_or_default()).collect();
            let Some(right) = *verdict else { continue };
            let since = |at: usize| (answers[at].1.seq, said[at].get(..SINCE_BYTES));
            for at in 0..answers.len() {
                lies[at] |= since(at) == since(right) && said[at] != said[right];
            }
        }
        let liars = answers.iter().zip(lies).filter(|(_, lies)| *lies);
        liars.map(|((from, _), _)| *from).collect()
    }
}

impl Answer {
    /// What can be voted on; `None` when it is no reply to so many reads, or too large a one.
    fn new(content: &[u8], ops: usize) -> Option<Answer> {
        let (head, results) = ReplyHead::peek(content).ok()?;
        let mut walk = Reader::new(results);
        for _ in 0..ops {
            walk.sized(KEPT_BYTES_MAX, "result").ok().filter(|r| r.len() >= SINCE_BYTES)?;
        }
        let whole = walk.is_empty() && head.count as usize == ops;
        let kept = whole && content.len() <= KEPT_BYTES_MAX;
        let at = content.len() - results.len();
        kept.then(|| Answer { seq: head.seq, content: content.to_vec(), at })
    }

    fn same_as(&self, other: &Answer) -> bool {
        // With the number, which stands in it.
        self.content == other.content
    }

    /// The results, each with since when it is so.
    fn results(&self) -> impl Iterator<Item = &[u8]> {
        let mut walk = Reader::new(&self.content[self.at..]);
        core::iter::from_fn(move || walk.sized(KEPT_BYTES_MAX, "result").ok())
    }
}

impl Streams {
    pub(super) fn ordered(&mut self, stream: u32) {
        self.under_way.entry(stream).or_default().ordered += 1;
    }

    /// So many ordered operations of these streams have come to their end.
    pub(super) fn ended(&mut self, streams: &[u32]) {
        streams.iter().for_each(|stream| self.change(*stream, |own| own.ordered -= 1));
    }

    fn change(&mut self, stream: u32, change: impl FnOnce(&mut UnderWay)) {
        if let Some(own) = self.under_way.get_mut(&stream) {
            change(own);
            if own.ordered == 0 && own.reads == 0 {
                self.under_way.remove(&stream);
            }
        }
    }

    fn of(&self, stream: u32) -> UnderWay {
        self.under_way.get(&stream).copied().unwrap_or_default()
    }

    /// Checks the counts.
    pub(super) fn check(&self, ordered: usize, reads: usize) {
        let sum = |part: fn(&UnderWay) -> u32| {
            self.under_way.values().map(|own| part(own) as usize).sum::<usize>()
        };
        assert_eq!((sum(|own| own.ordered), sum(|own| own.reads)), (ordered, reads));
        let both = self.under_way.values().any(|own| own.ordered > 0 && own.reads > 0);
        assert!(!both, "a stream with ordered operations and reads without an order");
    }
}

impl<T> ClientCore<T> {
    /// Queues a read for an answer without an order, if it may have one now.
    pub(super) fn try_read(&mut self, now: Now, stream: u32, op: &[u8], token: T) -> Option<T> {
        let own = self.streams.of(stream);
        let behind = own.ordered > 0 && !base::mutant!(ReadsOvertake);
        let large = self.result_bytes > limits::READ_REPLY_BYTES_MAX / 2;
        if !self.is_open() || behind || large || now.mono < self.streams.rest {
            return Some(token);
        }
        self.streams.under_way.entry(stream).or_default().reads += 1;
        let at = stream as usize % self.lines.len();
        let reads = &mut self.lines[at].reads;
        reads.arena.extend_from_slice(op);
        reads.draft.push(Slot { stream, len: op.len(), token: Some(token) });
        None
    }

    /// Something of `stream` is to be ordered: its reads are, too, before it.
    pub(super) fn order_reads_of(&mut self, now: Time, stream: u32) {
        let count = self.streams.of(stream).reads as usize;
        if count > 0 && !base::mutant!(ReadsOvertake) {
            let at = stream as usize % self.lines.len();
            let taken = self.lines[at].reads.take_back(Some(stream), count);
            self.order_taken(now, taken);
        }
    }

    /// Orders all reads that are on their way.
    pub(super) fn order_all_reads(&mut self, now: Time) {
        for at in 0..self.lines.len() {
            let taken = self.lines[at].reads.take_back(None, usize::MAX);
            self.lines[at].reads.flying.clear();
            self.order_taken(now, taken);
        }
    }

    fn order_taken(&mut self, now: Time, taken: Vec<(u32, Vec<u8>, T)>) {
        for (stream, op, token) in taken {
            self.streams.change(stream, |own| own.reads -= 1);
            self.counters.reads_ordered += 1;
            self.push_ordered(now, stream, &op, token);
        }
    }

    /// Sends what waits, and settles what has waited long enough.
    pub(super) fn turn_reads(&mut self, at: usize, now: Time) {
        for flight in &mut self.lines[at].reads.flying {
            flight.ripe |= flight.due <= now;
        }
        self.settle_reads(at, now);
        let window = self.config.frames_in_flight_max as usize;
        while self.lines[at].reads.flying.len() < window {
            let by_reply = limits::READ_REPLY_BYTES_MAX / 2 / (self.result_bytes + 8);
            let ops = self.frame_ops_max().min(by_reply).max(1);
            let line = &mut self.lines[at];
            let Some((builder, slots)) = line.reads.cut((ops, self.config.frame_bytes_max)) else {
                if line.reads.draft.is_empty() {
                    return;
                }
                continue;
            };
            line.reads.last += 1;
            let ClientConfig { group, client, .. } = self.config;
            let (stream, id) = (READS | line.stream, line.reads.last);
            let id = FrameId { client, session: self.session, stream, id };
            let frame = Arc::new(builder.read(group, id, |digest| self.keys.authenticate(digest)));
            let due = now.after(self.config.read_timeout);
            let sent = Arc::clone(&frame);
            let flight = Flight { frame, slots, said: Vec::new(), due, ripe: false };
            line.reads.flying.push_back(flight);
            self.counters.frames += 1;
            self.effects.push(Effect::Send { pillar: line.pillar, to: SendTo::All, frame: sent });
        }
    }

    pub(super) fn on_read_reply(&mut self, now: Now, from: ReplicaId, said: &Said<'_>) {
        let at = (said.frame.stream & !READS) as usize;
        if at >= self.lines.len() || said.frame.id > self.lines[at].reads.last {
            return self.suspect(from);
        }
        let (n, matching) = (usize::from(self.config.quorums.n()), self.reads_matching());
        let mut flying = self.lines[at].reads.flying.iter_mut();
        let Some(flight) = flying.find(|flight| flight.frame.id() == said.frame) else {
            self.counters.late_replies += 1;
            return;
        };
        let correct = flight.hear(from, said);
        if !flight.ripe {
            flight.look(now.mono, matching, n);
        }
        if !correct {
            self.suspect(from);
        }
        self.settle_reads(at, now.mono);
    }

    fn reads_matching(&self) -> usize {
        let quorums = self.config.quorums;
        if base::mutant!(ReadQuorumShort) { quorums.weak() } else { quorums.quorum() }
    }

    fn settle_reads(&mut self, at: usize, now: Time) {
        while self.lines[at].reads.flying.front().is_some_and(|flight| flight.ripe) {
            let Some(flight) = self.lines[at].reads.flying.pop_front() else { return };
            self.conclude(now, flight);
        }
    }

    /// A frame of reads is over: hands out what was accepted, and orders the rest.
    fn conclude(&mut self, now: Time, flight: Flight<T>) {
        let matching = self.reads_matching();
        let answers = flight.said.iter().flat_map(|(_, answer)| answer).count();
        if answers >= matching {
            (self.streams.rest, self.streams.rest_span) = (Time::ZERO, Span(0));
        } else if flight.due <= now && self.streams.rest <= now {
            // Once for all that was on its way when the trouble began.
            let span = Span(self.streams.rest_span.0.saturating_mul(2));
            self.streams.rest_span = span.clamp(REST_MIN, REST_MAX);
            self.streams.rest = now.after(self.streams.rest_span);
        }
        let verdicts = if answers >= matching {
            flight.verdicts(matching)
        } else {
            alloc::vec![None; flight.slots.len()]
        };
        flight.liars(&verdicts).into_iter().for_each(|liar| self.suspect(liar));
        let Flight { frame, slots, said, .. } = flight;
        let mut answers: Vec<Answer> = said.into_iter().filter_map(|(_, answer)| answer).collect();
        let same = verdicts.first().copied().flatten();
        let plain = |(slot, verdict): (&Slot<T>, &Option<usize>)| {
            slot.token.is_some() && *verdict == same && self.streams.of(slot.stream).ordered == 0
        };
        if let Some(which) = same
            && slots.iter().zip(&verdicts).all(plain)
        {
            let content = Arc::new(answers.swap_remove(which).content);
            return self.read(slots, Results::of_reads(content, frame.op_count()));
        }
        self.hand_out(now, (&frame, slots), &verdicts, &answers);
    }

    /// Hands out what was accepted of a frame, and orders the rest of it.
    fn hand_out(
        &mut self,
        now: Time,
        (frame, slots): (&Frame, Vec<Slot<T>>),
        verdicts: &[Option<usize>],
        answers: &[Answer],
    ) {
        let mut results: Vec<_> = answers.iter().map(Answer::results).collect();
        let (mut accepted, mut bytes) = (Vec::new(), Vec::new());
        let mut fallen = Vec::new();
        for ((slot, op), verdict) in slots.into_iter().zip(frame.ops()).zip(verdicts) {
            let said: Vec<&[u8]> =
                results.iter_mut().map(|r| r.next().unwrap_or_default()).collect();
            let Slot { stream, len, token: Some(token) } = slot else { continue };
            let result = verdict.and_then(|which| said[which].get(SINCE_BYTES..));
            match result.filter(|_| self.streams.of(stream).ordered == 0) {
                Some(result) => {
                    base::Writer::new(&mut bytes).sized(result);
                    accepted.push(Slot { stream, len, token: Some(token) });
                }
                None => {
                    fallen.push(stream);
                    self.order_taken(now, alloc::vec![(stream, op.to_vec(), token)]);
                }
            }
        }
        // What came later in those streams comes later in the order, too.
        fallen.into_iter().for_each(|stream| self.order_reads_of(now, stream));
        let count = u32::try_from(accepted.len()).expect("as many as a frame has");
        let (id, status) = (frame.id(), ReplyStatus::Executed);
        let reply = Reply { frame: id, seq: Seq(0), status, count, results: bytes };
        let mut content = Vec::new();
        reply.encode(&mut content);
        self.read(
            accepted,
            Results::new(Arc::new(content), count as usize).map(Results::unordered),
        );
    }

    /// These reads are answered.
    fn read(&mut self, slots: Vec<Slot<T>>, results: Option<Results>) {
        let outcome = results.ok_or(OpError::BadReply);
        self.learn_result_size(&outcome);
        let mut tokens = Vec::with_capacity(slots.len());
        for Slot { stream, len, token } in slots {
            self.streams.change(stream, |own| own.reads -= 1);
            self.held_ops -= 1;
            self.held_bytes -= len + OP_OVERHEAD_BYTES;
            tokens.extend(token);
        }
        if tokens.is_empty() {
            return;
        }
        self.counters.completed += tokens.len() as u64;
        self.counters.reads += tokens.len() as u64;
        self.effects.push(Effect::Done { tokens, outcome });
    }

    /// The client is closed: nobody waits for what is on its way.
    pub(super) fn fail_reads(&mut self, error: OpError) {
        for at in 0..self.lines.len() {
            let taken = self.lines[at].reads.take_back(None, usize::MAX);
            self.lines[at].reads = Reads { last: self.lines[at].reads.last, ..Reads::default() };
            let mut tokens = Vec::with_capacity(taken.len());
            for (stream, op, token) in taken {
                self.streams.change(stream, |own| own.reads -= 1);
                self.held_ops -= 1;
                self.held_bytes -= op.len() + OP_OVERHEAD_BYTES;
                tokens.push(token);
            }
            if !tokens.is_empty() {
                self.counters.failed += tokens.len() as u64;
                self.effects.push(Effect::Done { tokens, outcome: Err(error) });
            }
        }
    }
}
