//! Frames in flight: let through, not all of their operations done.
//!
//! A frame takes off when the table is certain to let it through, its operations go into the
//! graph, and come back in whatever order the graph allows. Its reply leaves once all of them
//! are done, behind the replies to earlier frames of its stream. It lands, which is when the
//! table decides about it and records the reply, once everything before it has landed: so the
//! table goes through the total order one frame after the other, and never knows that anything
//! executed at the same time.
//!
//! Not here: the stage around it (`stage::parallel`), who depends on whom (`parallel`).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use base::{AgreedTime, ClientId, Frame, FrameId, PillarId, Seq, SessionId, limits};

use crate::job::{Ended, Task};
use crate::parallel::{Operators, Parallelizer};
use crate::reply::ReplyBuilder;
use crate::service::Output;
use crate::session::Pending;

/// Most operations in flight. One frame may have as many alone.
const OPS_MAX: usize = limits::FRAME_OPS_MAX;
/// Most frames in flight, and ends of batches.
const ENTRIES_MAX: usize = 8192;
/// Bytes of results in flight above which operations execute one after the other, oldest first,
/// until their frames have landed.
pub(super) const HELD_MAX: usize = 64 << 20;
/// Bytes of buffers that a frame may keep for each byte of its results. A buffer is a whole job's,
/// and whoever else's results are in there may have landed, and be counted no more.
const PINNED_PER_BYTE: usize = 4;
/// Buffers of at most so many bytes are kept in any case, and jobs of short results have no larger
/// ones: as many as there are operations in flight weigh no more than results may.
const SMALL_BUFFER: usize = HELD_MAX / OPS_MAX;

/// What is in flight.
pub(super) struct Flight {
    pub(super) graph: Parallelizer<Task>,
    pub(super) pending: Pending,
    /// Jobs that are out.
    pub(super) running: usize,
    /// Told apart from what was in flight before a state was fetched.
    pub(super) number: u64,
    /// Frames in flight that may bring the service's deadline forward.
    pub(super) schedulers: usize,
    /// Nothing more is handed out until everything that is out is back.
    pub(super) hold: bool,
    /// In the total order.
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u64,
    /// Frames of ordered streams whose replies have not left, in the total order.
    lines: BTreeMap<(ClientId, SessionId, u32), VecDeque<u64>>,
    batches: usize,
    /// The agreed time of the last batch that is in flight whole.
    time: Option<AgreedTime>,
    ops: usize,
    held: usize,
}

/// A frame in flight, or the end of a batch.
pub(super) enum Entry {
    Frame(Airborne),
    End { seq: Seq, time: AgreedTime },
}

/// A frame in flight.
pub(super) struct Airborne {
    pub(super) frame: Arc<Frame>,
    pub(super) seq: Seq,
    pub(super) pillar: PillarId,
    pub(super) schedules: bool,
    /// Operations that are not done.
    left: usize,
    results: Vec<Slot>,
    buffers: Vec<Arc<Vec<u8>>>,
    /// Bytes of these buffers.
    pinned: usize,
    /// Results whose buffers are not worth keeping.
    copied: Vec<u8>,
    pub(super) outputs: Vec<(u32, Output)>,
    /// Bytes of results that are kept.
    bytes: usize,
    /// The reply, once all operations are done.
    pub(super) content: Option<Arc<Vec<u8>>>,
}

/// Where the result of an operation is.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// The number of a buffer, or [`COPIED`].
    buffer: u32,
    start: u32,
    end: u32,
}

/// Among those that were copied.
const COPIED: u32 = u32::MAX;

/// What a graph begins with: what classes are hashed with, and the rules for calls.
pub(super) type Beginning = (u64, Option<Arc<dyn Operators>>);

/// A reply that may leave.
pub(super) type Leaving = (PillarId, FrameId, Arc<Vec<u8>>);

impl Flight {
    /// Nothing in flight. Checkpoints fall on multiples of `interval`.
    pub(super) fn new((salt, rules): Beginning, executed: Seq, interval: u64) -> Flight {
        let mut graph = Parallelizer::new(salt, rules);
        if !base::mutant!(CutsIgnored) {
            graph.sync(next_cut(executed, interval));
        }
        Flight {
            graph,
            pending: Pending::default(),
            running: 0,
            number: 0,
            schedulers: 0,
            hold: false,
            entries: VecDeque::new(),
            first: 0,
            lines: BTreeMap::new(),
            batches: 0,
            time: None,
            ops: 0,
            held: 0,
        }
    }

    /// Forgets everything but what is out. It goes on after `executed`.
    pub(super) fn reset(&mut self, beginning: Beginning, executed: Seq, interval: u64) {
        let (running, number) = (self.running, self.number + 1);
        *self = Flight { running, number, ..Flight::new(beginning, executed, interval) };
    }

    /// Whether everything has landed.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Batches that have taken off whole and not landed.
    pub(super) fn batches(&self) -> usize {
        self.batches
    }

    /// The agreed time of the last of them.
    pub(super) fn time(&self) -> Option<AgreedTime> {
        self.time
    }

    /// Whether another frame of so many operations may take off.
    pub(super) fn has_room(&self, ops: usize) -> bool {
        let few = self.ops == 0 || self.ops + ops <= OPS_MAX;
        few && self.entries.len() < ENTRIES_MAX && self.held <= HELD_MAX
    }

    /// Whether results take so much memory that no more than one operation may add to them.
    pub(super) fn is_heavy(&self) -> bool {
        self.held > HELD_MAX
    }

    /// The number that the next frame gets.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// A frame takes off; its operations are in the graph.
    pub(super) fn take_off(
        &mut self,
        frame: &Arc<Frame>,
        (seq, pillar): (Seq, PillarId),
        ordered: bool,
        schedules: bool,
    ) -> Vec<Leaving> {
        let (id, ops, number) = (frame.id(), frame.op_count(), self.next_number());
        if ordered {
            self.lines.entry((id.client, id.session, id.stream)).or_default().push_back(number);
        }
        self.ops += ops;
        self.schedulers += usize::from(schedules);
        self.entries.push_back(Entry::Frame(Airborne {
            frame: Arc::clone(frame),
            seq,
            pillar,
            schedules,
            left: ops,
            results: vec![Slot::default(); ops],
            buffers: Vec::new(),
            pinned: 0,
            copied: Vec::new(),
            outputs: Vec::new(),
            bytes: 0,
            content: None,
        }));
        if ops == 0 { self.complete(number) } else { Vec::new() }
    }

    /// All frames of a batch are in flight, or have landed.
    pub(super) fn end_batch(&mut self, seq: Seq, time: AgreedTime) {
        self.batches += 1;
        self.time = Some(time);
        self.entries.push_back(Entry::End { seq, time });
    }

    /// An operation is done; its result is in `buffer`. Returns the replies that may leave now.
    pub(super) fn done(
        &mut self,
        ended: &Ended,
        buffer: &Arc<Vec<u8>>,
        outputs: impl Iterator<Item = Output>,
    ) -> Vec<Leaving> {
        let Some(one) = self.frame_mut(ended.number) else { return Vec::new() };
        one.outputs.extend(outputs.map(|output| (ended.op, output)));
        let before = one.bytes;
        one.keep(ended, buffer);
        let (bytes, left) = (one.bytes, one.left);
        self.held = self.held + bytes - before;
        self.ops -= 1;
        if left == 0 { self.complete(ended.number) } else { Vec::new() }
    }

    /// The first entry, if it may land.
    pub(super) fn land(&mut self) -> Option<Entry> {
        match self.entries.front()? {
            Entry::Frame(one) if one.content.is_none() => return None,
            _ => {}
        }
        self.first += 1;
        let entry = self.entries.pop_front();
        match &entry {
            Some(Entry::Frame(one)) => {
                self.schedulers -= usize::from(one.schedules);
                self.held -= one.bytes;
                self.pending.leave(one.frame.id());
            }
            _ => self.batches -= 1,
        }
        entry
    }

    /// Builds the reply to a frame whose operations are all done.
    fn complete(&mut self, number: u64) -> Vec<Leaving> {
        let Some(one) = self.frame_mut(number) else { return Vec::new() };
        let before = one.bytes;
        let content = one.reply();
        let (bytes, pillar, id) = (one.bytes, one.pillar, one.frame.id());
        self.held = self.held + bytes - before;
        let key = (id.client, id.session, id.stream);
        let Some(mut line) = self.lines.remove(&key) else {
            return vec![(pillar, id, content)];
        };
        let mut leaving = Vec::new();
        while let Some(next) = line.front()
            && let Some(one) = self.frame_mut(*next)
            && let Some(content) = &one.content
        {
            leaving.push((one.pillar, one.frame.id(), Arc::clone(content)));
            line.pop_front();
        }
        if !line.is_empty() {
            self.lines.insert(key, line);
        }
        leaving
    }

    fn frame_mut(&mut self, number: u64) -> Option<&mut Airborne> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        match self.entries.get_mut(at)? {
            Entry::Frame(one) => Some(one),
            Entry::End { .. } => None,
        }
    }
}

impl Airborne {
    fn keep(&mut self, ended: &Ended, buffer: &Arc<Vec<u8>>) {
        self.left -= 1;
        self.bytes += (ended.end - ended.start) as usize;
        if self.bytes > limits::REPLY_BYTES_MAX {
            // The reply will say that it is too large, and hold no memory.
            self.buffers.clear();
            self.copied = Vec::new();
            return;
        }
        let slot = &mut self.results[ended.op as usize];
        if self.buffers.last().is_none_or(|last| !Arc::ptr_eq(last, buffer)) {
            let size = buffer.capacity();
            let worth = self.pinned + size <= PINNED_PER_BYTE * self.bytes;
            // The last one goes into the reply at once.
            if !worth && size > SMALL_BUFFER && self.left > 0 {
                let short = |n: usize| u32::try_from(n).expect("below the reply limit");
                let start = short(self.copied.len());
                self.copied.extend_from_slice(&buffer[ended.start as usize..ended.end as usize]);
                *slot = Slot { buffer: COPIED, start, end: short(self.copied.len()) };
                return;
            }
            self.pinned += size;
            self.buffers.push(Arc::clone(buffer));
        }
        let last = u32::try_from(self.buffers.len() - 1).expect("at most one per operation");
        *slot = Slot { buffer: last, start: ended.start, end: ended.end };
    }

    fn reply(&mut self) -> Arc<Vec<u8>> {
        let (ops, expected) = (self.results.len(), self.bytes / self.results.len().max(1));
        let mut reply = ReplyBuilder::new(self.frame.id(), self.seq, ops, expected + 1);
        let results = core::mem::take(&mut self.results);
        let buffers = core::mem::take(&mut self.buffers);
        let copied = core::mem::take(&mut self.copied);
        if self.bytes > limits::REPLY_BYTES_MAX {
            reply.overflow();
        } else {
            for Slot { buffer, start, end } in results {
                let whole = if buffer == COPIED { &copied } else { &*buffers[buffer as usize] };
                reply.begin().extend_from_slice(&whole[start as usize..end as usize]);
                reply.end();
            }
        }
        let content = reply.finish();
        self.bytes = content.len();
        self.content = Some(Arc::clone(&content));
        content
    }
}

/// The first checkpoint after `executed`.
pub(super) fn next_cut(executed: Seq, interval: u64) -> Seq {
    Seq((executed.0 / interval + 1).saturating_mul(interval))
}

#[cfg(test)]
mod tests {
    use alloc::sync::Weak;

    use super::*;
    use crate::service::Footprint;
    use base::{Authenticator, FrameBuilder, GroupId, Reader, Reply, Signature};

    const GROUP: GroupId = GroupId([8; 32]);
    /// Jobs, and operations of the frame that takes part in each.
    const JOBS: u32 = 40;
    /// Bytes of the other result of each job.
    const LARGE: usize = 128 << 10;

    fn frame(id: u64, ops: u32) -> Arc<Frame> {
        let mut builder = FrameBuilder::new();
        (0..ops).for_each(|_| builder.push(b"op"));
        let id = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id: id + 1 };
        let signed = |_| Authenticator::Signature(Signature([0; 64]));
        Arc::new(builder.request(GROUP, id, 0, signed))
    }

    fn ended(number: u64, op: u32, (start, end): (usize, usize)) -> Ended {
        let mut graph = Parallelizer::new(0, None);
        graph.insert(Seq(1), &Footprint::default(), ());
        let (ticket, ()) = graph.next_request().expect("it is alone");
        let short = |n: usize| u32::try_from(n).expect("it is short");
        Ended { ticket, number, op, start: short(start), end: short(end) }
    }

    /// Executes one job after the other. Each has a large result, of a frame of its own that
    /// lands, and then the result of one operation of the last frame, of so many bytes. Returns
    /// the bytes of the buffers that are there then, those counted, and the last frame's reply.
    fn jobs(small: impl Fn(u32) -> usize) -> (usize, usize, Reply) {
        let mut flight = Flight::new((0, None), Seq(0), 64);
        let at = (Seq(1), PillarId(0));
        for job in 0..JOBS {
            flight.take_off(&frame(job.into(), 1), at, false, false);
        }
        // It waits for one more.
        flight.take_off(&frame(JOBS.into(), JOBS + 1), at, false, false);
        let mut buffers: Vec<Weak<Vec<u8>>> = Vec::new();
        for job in 0..JOBS {
            let mut results = vec![0; LARGE];
            results.resize(LARGE + small(job), job as u8);
            let (end, buffer) = (results.len(), Arc::new(results));
            flight.done(&ended(job.into(), 0, (0, LARGE)), &buffer, core::iter::empty());
            let rest = ended(JOBS.into(), job, (LARGE, end));
            flight.done(&rest, &buffer, core::iter::empty());
            assert!(flight.land().is_some() && flight.land().is_none());
            buffers.push(Arc::downgrade(&buffer));
        }
        let kept = buffers.iter().filter_map(Weak::upgrade).map(|buffer| buffer.capacity()).sum();
        let (held, last) = (flight.held, ended(JOBS.into(), JOBS, (0, 0)));
        let leaving = flight.done(&last, &Arc::default(), core::iter::empty());
        assert!(buffers.iter().all(|buffer| buffer.strong_count() == 0));
        let reply = Reply::decode(&mut Reader::new(&leaving[0].2)).expect("a reply");
        (kept, held, reply)
    }

    #[test]
    fn a_small_result_does_not_keep_the_large_one_beside_it() {
        let (kept, held, reply) = jobs(|_| 5);
        assert_eq!(held, 5 * JOBS as usize);
        assert!(kept <= PINNED_PER_BYTE * held, "{kept} bytes are kept for {held}");
        for (job, result) in (0..JOBS).zip(reply.results()) {
            assert_eq!(result, [job as u8; 5]);
        }
        // Some are referred to, some copied, and some are empty.
        let size = |job: u32| [0, 5, 40_000, 7][job as usize % 4];
        let (kept, held, reply) = jobs(size);
        assert_eq!(held, (0..JOBS).map(size).sum::<usize>());
        assert!((LARGE..=PINNED_PER_BYTE * held).contains(&kept), "{kept} bytes for {held}");
        assert_eq!(reply.count, JOBS + 1);
        for (job, result) in (0..JOBS).zip(reply.results()) {
            assert_eq!(result, vec![job as u8; size(job)]);
        }
    }
}
