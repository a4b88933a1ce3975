//! Reads without an order: frames that wait, and answers out of the state as it is.
//!
//! A read is answered between two batches, when everything that was begun is executed whole and
//! everything that was executed is committed: [`Stage::is_settled`] is the one place that says
//! so. With workers that is so whenever nothing is in flight, for which a stage with reads that
//! wait for long holds new batches back.
//!
//! Answers cost an order nothing, so asking is cheap: what waits is bounded per principal and in
//! all, principals have their turns, and a turn of the stage answers no more than half as many
//! operations as it executes. Who cannot be answered is told so at once ([`ReplyStatus::Unread`])
//! and asks for an order.
//!
//! Not here: what a read sees (`read`), and which states an earlier life of this replica may
//! have shown (the lane says from where on it may answer).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{ClientId, Frame, FrameId, FrameKind, FromStage, PillarId, ReplyStatus, Seq, limits};

use super::{Stage, StageOutbox, Standing};
use crate::read;
use crate::reply::{ReplyBuilder, status_reply};

/// Batches that may begin beside reads that wait until nothing is in flight.
const PATIENCE: u32 = 8;

/// Bytes of an answer that cost as much as an operation.
const BYTES_PER_OP: usize = 512;

/// Frames of reads that wait.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: BTreeMap<ClientId, VecDeque<Waiting>>,
    /// Principals that have some, in turn.
    turns: VecDeque<ClientId>,
    frames: usize,
    bytes: usize,
    /// Batches that have begun since nothing could be answered.
    passed: u32,
    /// Up to here clients were told what came of what was executed, tentatively at least.
    shown: Seq,
    /// Operations that may yet be answered in this turn.
    budget: usize,
    report: ReadReport,
}

/// What the stage tells about reads without an order, since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadReport {
    /// Operations that were answered.
    pub answered: u64,
    /// Frames that were not, and are to be ordered.
    pub unread_frames: u64,
}

/// A frame that waits.
#[derive(Debug)]
struct Waiting {
    pillar: PillarId,
    frame: Arc<Frame>,
    from: Seq,
}

impl Reads {
    /// Takes a frame in; false when there is no room for it.
    fn push(&mut self, waiting: Waiting) -> bool {
        let weight = waiting.frame.weight();
        let client = waiting.frame.id().client;
        let own = self.waiting.entry(client).or_default();
        let full = own.len() >= limits::WAITING_READS_PER_CLIENT_MAX
            || self.frames >= limits::WAITING_READS_MAX
            || self.bytes + weight > limits::WAITING_READ_BYTES_MAX;
        if full && !own.is_empty() {
            return false;
        }
        if own.is_empty() {
            self.turns.push_back(client);
        }
        own.push_back(waiting);
        (self.frames, self.bytes) = (self.frames + 1, self.bytes + weight);
        true
    }

    fn pop(&mut self) -> Option<Waiting> {
        let client = self.turns.pop_front()?;
        let own = self.waiting.get_mut(&client)?;
        let next = own.pop_front();
        if own.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        let weight = next.as_ref().map_or(0, |one| one.frame.weight());
        (self.frames, self.bytes) = (self.frames - 1, self.bytes - weight);
        next
    }

    fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Clients are told what came of batch `seq`, which may yet be taken back.
    pub(super) fn shows(&mut self, seq: Seq) {
        self.shown = self.shown.max(seq);
    }

    /// A turn begins, which executes so many operations.
    pub(super) fn begin_turn(&mut self, ops: usize) {
        self.budget = (ops / 2).max(1);
    }

    /// A batch begins.
    pub(super) fn pass(&mut self) {
        self.passed = if self.is_empty() { 0 } else { self.passed.saturating_add(1) };
    }

    /// Checks the counts.
    pub(super) fn check(&self) {
        let all = || self.waiting.values().flatten();
        assert_eq!(all().count(), self.frames, "reads are miscounted");
        assert_eq!(all().map(|one| one.frame.weight()).sum::<usize>(), self.bytes);
        assert_eq!(self.turns.len(), self.waiting.len(), "a principal without a turn");
    }
}

impl Stage {
    /// From now on answers reads without an order, of a service that has such. Costs eight bytes
    /// per object.
    pub fn answer_reads(&mut self) {
        self.state.engine.keep_stamps(self.executed);
    }

    /// What was answered so far.
    #[must_use]
    pub fn read_report(&self) -> ReadReport {
        self.reads.report
    }

    /// Whether the state is that of a number of batches that are committed and executed whole,
    /// and nothing writes to it: only then may it be shown to whoever has not got it by an order.
    pub(super) fn is_settled(&self) -> bool {
        let quiet = matches!(self.standing, Standing::Executes) && self.is_quiet();
        let whole = self.cursor.is_none() && self.flight.is_empty();
        // What was answered tentatively may be what a client believes, also when it was taken
        // back to be executed once more.
        let committed = !self.is_tentative() && self.executed >= self.reads.shown;
        quiet && (whole && committed || base::mutant!(ReadsUnsettled))
    }

    /// Takes in a frame of reads.
    pub(super) fn read(
        &mut self,
        (pillar, frame, from): (PillarId, Arc<Frame>, Seq),
        out: &mut StageOutbox,
    ) {
        let id = frame.id();
        let able = frame.kind() == FrameKind::Read
            && self.state.engine.stamps().is_some()
            && self.executed >= from
            && matches!(self.standing, Standing::Executes);
        if !able || !self.reads.push(Waiting { pillar, frame, from }) {
            self.reads.report.unread_frames += 1;
            let content = status_reply(id, Seq(0), ReplyStatus::Unread);
            out.pillar(pillar, unordered(id, content));
        }
    }

    /// Answers what waits, as far as the turn goes, if it can be answered now.
    pub(super) fn read_turn(&mut self, out: &mut StageOutbox) {
        let stands = !matches!(self.standing, Standing::Executes);
        if self.reads.is_empty() || (!stands && !self.is_settled()) {
            return;
        }
        while self.reads.budget > 0
            && let Some(Waiting { pillar, frame, from }) = self.reads.pop()
        {
            self.reads.budget = self.reads.budget.saturating_sub(1 + frame.op_count());
            let able = !stands && self.executed >= from;
            let answer = if able { self.read_frame(&frame) } else { None };
            // What is large costs more than its count. One that was too large to be sent was
            // computed, too.
            let bytes = answer.as_ref().map_or(limits::READ_REPLY_BYTES_MAX, |reply| reply.len());
            let cost = if able { bytes / BYTES_PER_OP } else { 0 };
            self.reads.budget = self.reads.budget.saturating_sub(cost);
            match &answer {
                Some(_) => self.reads.report.answered += frame.op_count() as u64,
                None => self.reads.report.unread_frames += 1,
            }
            let refusal = || status_reply(frame.id(), Seq(0), ReplyStatus::Unread);
            let content = answer.unwrap_or_else(refusal);
            out.pillar(pillar, unordered(frame.id(), content));
        }
        self.reads.passed = 0;
    }

    /// Whether reads wait that could be answered.
    pub(super) fn has_reads(&self) -> bool {
        !self.reads.is_empty() && self.is_settled()
    }

    /// Whether reads have waited for so long that nothing new is to begin before them.
    pub(super) fn yields_to_reads(&self) -> bool {
        self.reads.passed >= PATIENCE && !self.flight.is_empty()
    }

    fn read_frame(&self, frame: &Frame) -> Option<Arc<Vec<u8>>> {
        let base = read::floor(self.executed, self.config.checkpoint_interval);
        let at = (self.executed, self.time);
        let mut reply = ReplyBuilder::new(frame.id(), base, frame.op_count(), 0);
        for op in frame.ops() {
            let result = reply.begin();
            let start = result.len();
            result.extend_from_slice(&[0; read::SINCE_BYTES]);
            let since = self.state.engine.read(op, frame.id(), at, result)?.max(base);
            let since = u32::try_from(since.0 - base.0).ok()?;
            result.get_mut(start..start + 4)?.copy_from_slice(&since.to_le_bytes());
            if result.len() > limits::READ_REPLY_BYTES_MAX {
                return None;
            }
            reply.end();
        }
        Some(reply.finish())
    }
}

/// An answer without an order. Its results are voted on one by one: everybody gives them in full.
fn unordered(frame: FrameId, content: Arc<Vec<u8>>) -> FromStage {
    FromStage::Reply { frame, content, tentative: None, in_full: true }
}
