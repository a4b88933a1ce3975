//! One batch in execution: its frames in order, each decided by the session table.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{AgreedTime, Batch, BatchEntry, FrameId, FromStage, PillarId, ReplyStatus, Seq};

use super::parallel::TakeOff;
use super::{Stage, StageOutbox};
use crate::engine::{Advance, Position, Running};
use crate::reply::status_reply;
use crate::session::Decision;

/// A batch in execution.
pub(super) struct Cursor {
    pub(super) seq: Seq,
    /// Its agreed time.
    pub(super) time: AgreedTime,
    batch: Arc<Batch>,
    /// The frame that is next, or executes.
    frame: usize,
    /// The index of its first operation.
    pub(super) first: u32,
    running: Option<Running>,
    started: bool,
}

impl Stage {
    /// A cursor at the beginning of `batch`, which is next.
    pub(super) fn cursor(&self, seq: Seq, batch: Arc<Batch>) -> Cursor {
        let proposed = match &*batch {
            Batch::Null => AgreedTime(0),
            Batch::Frames { time, .. } => *time,
        };
        let last = self.flight.time().map_or(self.time, |time| time.max(self.time));
        let time = if base::mutant!(TimeGoesBack) { proposed } else { last.advance(proposed) };
        Cursor { seq, time, batch, frame: 0, first: 1, running: None, started: false }
    }

    pub(super) fn advance(
        &mut self,
        cursor: &mut Cursor,
        budget: &mut usize,
        out: &mut StageOutbox,
    ) -> Advance {
        let batch = Arc::clone(&cursor.batch);
        let starts = !cursor.started;
        if starts && !self.flight.is_empty() && self.may_wake(cursor.time) {
            return Advance::Blocked;
        }
        // Charged once, not at every resumption, so that the smallest budget makes progress.
        cursor.started = true;
        *budget -= usize::from(starts);
        let Batch::Frames { frames, .. } = &*batch else {
            #[cfg(feature = "mutants")]
            if base::mutant!(NullExecutes) {
                self.state.engine.execute_null(cursor.seq, cursor.time);
            }
            return Advance::Finished;
        };
        if starts && self.flight.is_empty() {
            self.state.engine.wake(cursor.seq, cursor.time);
        }
        let pillar = self.config.stripe.pillar_of(cursor.seq);
        while let Some(frame) = frames.get(cursor.frame) {
            let mut running = match cursor.running.take() {
                Some(running) => running,
                None if *budget == 0 => return Advance::Paused,
                None => {
                    match self.take_off(cursor, frame, pillar, out) {
                        TakeOff::Flies => {
                            *budget = budget.saturating_sub(1 + frame.op_count());
                            cursor.next_frame(frame.op_count());
                            continue;
                        }
                        TakeOff::Waits => return Advance::Blocked,
                        TakeOff::Stays if !self.flight.is_empty() => return Advance::Blocked,
                        TakeOff::Stays => {}
                    }
                    *budget -= 1;
                    let decision = self.state.sessions.decide(cursor.seq, frame);
                    if matches!(decision, Decision::Status(_, ReplyStatus::OutOfOrder(_))) {
                        let entry = BatchEntry { id: frame.id(), digest: frame.digest() };
                        self.refuse(pillar, FromStage::Refused { seq: cursor.seq, entry }, out);
                    }
                    let in_full = matches!(decision, Decision::Duplicate(_));
                    if let Some(content) = answer(frame.id(), decision) {
                        self.reply(pillar, frame.id(), (content, in_full), out);
                        cursor.next_frame(frame.op_count());
                        continue;
                    }
                    self.state.engine.start(frame, cursor.seq)
                }
            };
            let at = Position { seq: cursor.seq, time: cursor.time, first: cursor.first };
            let advance = self.state.engine.advance(at, frame, &mut running, budget);
            if advance != Advance::Finished {
                cursor.running = Some(running);
                return advance;
            }
            let content = self.state.engine.finish(running);
            self.state.sessions.record(frame.id(), &content);
            self.reply(pillar, frame.id(), (content, false), out);
            cursor.next_frame(frame.op_count());
        }
        Advance::Finished
    }

    /// What comes after a batch's frames.
    pub(super) fn complete(&mut self, seq: Seq, time: AgreedTime, out: &mut StageOutbox) {
        assert_eq!(seq, self.executed.next(), "batches execute in order");
        assert!(time > self.time || time.0 == u64::MAX, "agreed time grows");
        (self.executed, self.time) = (seq, time);
        self.ahead.passed(seq);
        for (client, session) in self.state.engine.take_nudges() {
            let pillar = PillarId((client.0 % u32::from(self.config.stripe.pillars())) as u16);
            out.pillar(pillar, FromStage::Nudge { client, session, seq });
        }
        if seq.0.is_multiple_of(self.config.checkpoint_interval) {
            self.checkpoint(out);
            self.pass_cut(seq);
        }
    }
}

impl Cursor {
    fn next_frame(&mut self, ops: usize) {
        self.frame += 1;
        let ops = u32::try_from(ops).expect("limits keep operations of a batch below 2^32");
        self.first += ops;
    }
}

/// The encoded reply that a decision calls for; `None` when the frame has to execute first.
pub(super) fn answer(frame: FrameId, decision: Decision) -> Option<Arc<Vec<u8>>> {
    match decision {
        Decision::Execute => None,
        Decision::Duplicate(content) => Some(content),
        Decision::Status(seq, status) => Some(status_reply(frame, seq, status)),
    }
}
