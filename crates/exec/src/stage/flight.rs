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
    pub(super) outputs: Vec<(u32, Output)>,
    /// Bytes of results that are kept.
    bytes: usize,
    /// The reply, once all operations are done.
    pub(super) content: Option<Arc<Vec<u8>>>,
}

/// Where the result of an operation is.
#[derive(Clone, Copy, Default)]
struct Slot {
    buffer: u32,
    start: u32,
    end: u32,
}

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
            return;
        }
        if self.buffers.last().is_none_or(|last| !Arc::ptr_eq(last, buffer)) {
            self.buffers.push(Arc::clone(buffer));
        }
        let last = u32::try_from(self.buffers.len() - 1).expect("at most one per operation");
        let slot = Slot { buffer: last, start: ended.start, end: ended.end };
        self.results[ended.op as usize] = slot;
    }

    fn reply(&mut self) -> Arc<Vec<u8>> {
        let (ops, expected) = (self.results.len(), self.bytes / self.results.len().max(1));
        let mut reply = ReplyBuilder::new(self.frame.id(), self.seq, ops, expected + 1);
        let results = core::mem::take(&mut self.results);
        let buffers = core::mem::take(&mut self.buffers);
        if self.bytes > limits::REPLY_BYTES_MAX {
            reply.overflow();
        } else {
            for Slot { buffer, start, end } in results {
                let bytes = &buffers[buffer as usize][start as usize..end as usize];
                reply.begin().extend_from_slice(bytes);
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
