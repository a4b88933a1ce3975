//! A batch that is executed before it is committed (PBFT: tentative execution; design, trap 7).
//!
//! A lane tells what is prepared. If everything below it is committed and executed, it executes
//! at once, and its replies say so, with the view in which it was prepared. So at most one batch
//! is tentative, and it is the next one. When it is committed, nothing is left to do but what
//! waits for that: progress, nudges, refusals, a checkpoint. When another batch is committed in
//! its place, or prepared in a later view, everything that it has changed is taken back first.
//! No message is needed for that: whatever the order in which lanes are heard, the next batch
//! that executes for good finds the state that was there without the tentative one.
//!
//! Nothing tentative is in a checkpoint, is pinned, fetched, or told as progress: these look at
//! the state between batches only, and a tentative batch is not over before it is committed.
//!
//! Not here: what it takes to be prepared (`proto`), and how many tentative replies a client
//! wants (its core).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{AgreedTime, Batch, FrameId, FromStage, PillarId, Seq, View};

use super::execute::Cursor;
use super::{Stage, StageOutbox};
use crate::engine::Counted;
use crate::service::Undo;

/// What is prepared, and what of it is executed.
#[derive(Default)]
pub(super) struct Ahead {
    /// What is prepared above the last number that is executed for good, within the window.
    prepared: BTreeMap<Seq, Prepared>,
    /// The batch that executes tentatively; to its end unless the cursor is at it.
    current: Option<Tentative>,
    report: TentativeReport,
}

struct Prepared {
    view: View,
    batch: Arc<Batch>,
}

/// A batch that is executed tentatively.
struct Tentative {
    seq: Seq,
    view: View,
    time: AgreedTime,
    batch: Arc<Batch>,
    /// What was answered, should it have to be said in a later view.
    replies: Vec<(PillarId, FrameId, Arc<Vec<u8>>, bool)>,
    /// What is to be told once the batch is committed, and not before.
    refusals: Vec<(PillarId, FromStage)>,
    /// What was counted before, and when the service wanted to be woken.
    before: Counted,
}

/// What the stage tells about what it executes tentatively, since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TentativeReport {
    /// Batches that were executed before they were committed.
    pub executed: u64,
    /// Of these, those that were taken back.
    pub rolled_back: u64,
}

impl Ahead {
    /// The view in which what is said now is tentative.
    pub(super) fn view(&self) -> Option<View> {
        self.current.as_ref().map(|current| current.view)
    }

    /// Whether a batch is executed tentatively, in whole or in part.
    pub(super) fn is_on(&self) -> bool {
        self.current.is_some()
    }

    /// The counts from before the tentative batch.
    pub(super) fn before(&self) -> Option<&Counted> {
        self.current.as_ref().map(|current| &current.before)
    }

    /// Everything up to `executed` is executed for good.
    pub(super) fn passed(&mut self, executed: Seq) {
        while self.prepared.first_key_value().is_some_and(|(seq, _)| *seq <= executed) {
            self.prepared.pop_first();
        }
    }
}

impl Stage {
    /// Whether the service can take back what it executed. Otherwise the group must not execute
    /// anything tentatively.
    #[must_use]
    pub fn can_undo(&self) -> bool {
        self.state.engine.service().undo() != Undo::Never
    }

    /// Whether the state covers a batch that is not committed, in whole or in part.
    #[must_use]
    pub fn is_tentative(&self) -> bool {
        self.ahead.is_on()
    }

    /// What was executed tentatively so far.
    #[must_use]
    pub fn tentative_report(&self) -> TentativeReport {
        self.ahead.report
    }

    /// Takes a tentative batch back that is executed to its end, so that the state is the one
    /// after the last number that is executed. It executes again in the next turn, to the same
    /// effect.
    pub fn take_back(&mut self) {
        if self.cursor.is_none() {
            self.roll_back();
        }
    }

    /// `batch` is prepared at `seq` in `view`.
    pub(super) fn prepared(&mut self, seq: Seq, view: View, batch: Arc<Batch>) {
        let reach = self.executed.0.saturating_add(self.config.window);
        if seq <= self.executed || seq.0 > reach {
            return;
        }
        let known = self.ahead.prepared.get(&seq);
        if known.is_none_or(|known| known.view < view) {
            self.ahead.prepared.insert(seq, Prepared { view, batch });
        }
    }

    /// A reply leaves; while a batch executes tentatively, it is tentative.
    pub(super) fn reply(
        &mut self,
        pillar: PillarId,
        frame: FrameId,
        (content, in_full): (Arc<Vec<u8>>, bool),
        out: &mut StageOutbox,
    ) {
        if let Some(current) = &mut self.ahead.current {
            current.replies.push((pillar, frame, Arc::clone(&content), in_full));
            self.reads.shows(current.seq);
        }
        let tentative = self.ahead.view().filter(|_| !base::mutant!(TentativeUnsaid));
        out.pillar(pillar, FromStage::Reply { frame, content, tentative, in_full });
    }

    /// A frame is refused, which lanes act upon: not before it is committed.
    pub(super) fn refuse(&mut self, pillar: PillarId, message: FromStage, out: &mut StageOutbox) {
        match &mut self.ahead.current {
            Some(current) => current.refusals.push((pillar, message)),
            None => out.pillar(pillar, message),
        }
    }

    /// What executes next: what is committed before what is prepared.
    pub(super) fn next_batch(&mut self, out: &mut StageOutbox) -> Option<Cursor> {
        if self.ahead.is_on() {
            return self.settle(out);
        }
        match self.merge.take() {
            Some((seq, batch)) => {
                self.reads.pass();
                Some(self.cursor(seq, batch))
            }
            None => self.begin_tentative(),
        }
    }

    /// Goes on after a tentative batch, which is executed to its end, if it can: the batch at
    /// its number is committed, or there is another one of a later view.
    fn settle(&mut self, out: &mut StageOutbox) -> Option<Cursor> {
        let current = self.ahead.current.as_mut()?;
        let later = self.ahead.prepared.get(&current.seq).filter(|p| p.view > current.view);
        if let Some((seq, batch)) = self.merge.take() {
            if !is_same(&batch, &current.batch) && !base::mutant!(TentativeStays) {
                self.roll_back();
                return Some(self.cursor(seq, batch));
            }
            // Whoever did not prepare it in this view has answered in that one.
            let again = later.is_some();
            self.commit(again, out);
            // Before the next one is executed tentatively.
            self.read_turn(out);
            return self.next_batch(out);
        }
        let next = current.seq.next();
        if base::mutant!(TentativeOnTentative) && self.ahead.prepared.contains_key(&next) {
            self.commit(false, out);
            return self.next_batch(out);
        }
        let Prepared { view, batch } = later?;
        if is_same(batch, &current.batch) {
            current.view = *view;
            for (pillar, frame, content, in_full) in &current.replies {
                let (frame, content, in_full) = (*frame, Arc::clone(content), *in_full);
                let tentative = Some(*view);
                out.pillar(*pillar, FromStage::Reply { frame, content, tentative, in_full });
            }
            return None;
        }
        self.roll_back();
        self.begin_tentative()
    }

    /// Begins with what is prepared, if it is next and nothing else is under way.
    fn begin_tentative(&mut self) -> Option<Cursor> {
        let idle = self.flight.is_empty() && self.workers.count == 0 && self.is_quiet();
        let next = self.executed.next();
        let (seq, Prepared { view, batch }) = self.ahead.prepared.first_key_value()?;
        if !idle || *seq != next {
            return None;
        }
        let (view, batch) = (*view, Arc::clone(batch));
        let cursor = self.cursor(next, Arc::clone(&batch));
        let before = self.state.engine.begin();
        self.state.sessions.begin();
        self.ahead.report.executed += 1;
        self.ahead.current = Some(Tentative {
            seq: next,
            view,
            time: cursor.time,
            batch,
            replies: Vec::new(),
            refusals: Vec::new(),
            before,
        });
        Some(cursor)
    }

    /// The tentative batch is committed. Its replies are said `again`, now for good, or stay what
    /// they are.
    fn commit(&mut self, again: bool, out: &mut StageOutbox) {
        let Some(current) = self.ahead.current.take() else { return };
        self.state.engine.commit();
        self.state.sessions.keep();
        for (pillar, message) in current.refusals {
            out.pillar(pillar, message);
        }
        for (pillar, frame, content, in_full) in current.replies.into_iter().filter(|_| again) {
            let tentative = None;
            out.pillar(pillar, FromStage::Reply { frame, content, tentative, in_full });
        }
        self.complete(current.seq, current.time, out);
    }

    /// The tentative batch is executed to its end, and waits for its commit.
    pub(super) fn executed_tentatively(&mut self, seq: Seq, out: &mut StageOutbox) {
        let aligned = seq.0.is_multiple_of(self.config.checkpoint_interval);
        if aligned && base::mutant!(TentativeInCheckpoint) {
            self.commit(false, out);
        }
    }

    /// The tentative batch, if there is one, was never executed.
    pub(super) fn roll_back(&mut self) {
        let Some(current) = self.ahead.current.take() else { return };
        self.cursor = None;
        self.ahead.report.rolled_back += 1;
        if base::mutant!(RollBackForgetsSessions) {
            self.state.sessions.keep();
        } else {
            self.state.sessions.take_back();
        }
        self.state.engine.roll_back(current.before);
    }

    /// The state is to be another one: nothing that was prepared follows on it.
    pub(super) fn abandon_tentative(&mut self) {
        self.roll_back();
        self.ahead.prepared.clear();
    }
}

/// Whether these are one batch: mostly they are in one place.
fn is_same(one: &Arc<Batch>, other: &Arc<Batch>) -> bool {
    match (&**one, &**other) {
        _ if Arc::ptr_eq(one, other) => true,
        (Batch::Null, Batch::Null) => true,
        (Batch::Frames { time: a, frames: x }, Batch::Frames { time: b, frames: y }) => {
            let names = x.iter().zip(y).all(|(x, y)| (x.id(), x.digest()) == (y.id(), y.digest()));
            a == b && x.len() == y.len() && names
        }
        _ => false,
    }
}
