//! The digests of a checkpoint, made in pieces while execution goes on.
//!
//! What a checkpoint covers is fixed the moment its batch ends ([`Stage::checkpoint`]): the trees
//! are frozen, and whoever then writes an object has its digest made first (`frozen`). A piece is
//! made at once, and one at the end of each turn; the checkpoint is told to its pillar when
//! all are made. A small one is so at once.
//!
//! How large a piece is decides nothing about the digest. It is some digests at least, so that
//! an idle group comes to the end, and as many as it takes to be through by half the interval: the
//! low mark follows the checkpoint, and must not hold up agreement. What is left at the next
//! checkpoint is made then and there, so no more than one is ever under way.
//!
//! A digest needs the service to itself. While workers are out none is made; once a piece is due
//! that is worth it, nothing more is handed out until they are back.
//!
//! Not here: what is in a checkpoint (`checkpoint`).

use base::transfer::Manifest;
use base::{AgreedTime, Digest, FromStage, Seq};

use super::checkpoint::CHECKPOINTS_MAX;
use super::{Stage, StageOutbox};
use crate::state::Roots;

/// Digests that a turn makes at least, while a checkpoint needs some.
pub(super) const PIECE: usize = 512;
/// Digests that are worth to have workers wait for, in pieces.
const PIECES_PER_HOLD: usize = 8;

/// A checkpoint that is not told yet.
pub(super) struct Unfinished {
    seq: Seq,
    time: AgreedTime,
    /// At least as many digests as there were to be made.
    all: usize,
    /// What they came to.
    roots: Option<Roots>,
}

impl Stage {
    /// How many digests a turn makes at least while a checkpoint needs some, at least 1. Decides
    /// how checkpoints share the time with execution, and nothing else. For tests that want to see
    /// them in many pieces.
    pub fn pace_digests(&mut self, piece: usize) {
        self.checkpoints.piece = piece.max(1);
    }

    /// Whether digests of a checkpoint are still to be made or told: the stage then wants to be
    /// run again without being told anything.
    #[must_use]
    pub fn is_digesting(&self) -> bool {
        self.checkpoints.unfinished.is_some()
    }

    /// Whether a batch is executed in part: what was answered of it is beyond what counts as
    /// executed.
    #[must_use]
    pub fn is_amid_batch(&self) -> bool {
        self.cursor.is_some()
    }

    /// How often digests of checkpoints were made, at their batch or in a turn after it. Where it
    /// has grown in a turn, the turn took longer than its operations.
    #[must_use]
    pub fn digest_pieces(&self) -> u64 {
        self.checkpoints.pieces
    }

    /// The number of the checkpoint whose digests are being made.
    pub(super) fn digested_from(&self) -> Option<Seq> {
        self.checkpoints.unfinished.as_ref().map(|unfinished| unfinished.seq)
    }

    /// The state as it is now is that of a checkpoint.
    pub(super) fn freeze(&mut self) {
        let (seq, time) = (self.executed, self.time);
        self.report.objects_rehashed = self.state.freeze() as u64;
        self.snapshots.reach(seq, &mut self.state);
        let all = self.state.left();
        self.checkpoints.unfinished = Some(Unfinished { seq, time, all, roots: None });
    }

    /// Makes a piece of what is under way, if nobody writes, and tells what is made. True when
    /// there is more to do that needs nobody.
    pub(super) fn digest_piece(&mut self, out: &mut StageOutbox) -> bool {
        if self.checkpoints.unfinished.is_none() || !self.is_quiet() {
            return false;
        }
        let piece = self.digests_due().max(self.checkpoints.piece);
        self.make_digests(piece);
        self.tell_checkpoint(out);
        self.is_digesting()
    }

    /// Whether so many digests are due that workers should wait for them.
    pub(super) fn digests_need_quiet(&self) -> bool {
        let due = self.digests_due();
        due > 0 && due >= self.state.left().min(PIECES_PER_HOLD * self.checkpoints.piece)
    }

    /// Makes all that is left, and tells it.
    pub(super) fn finish_digests(&mut self, out: &mut StageOutbox) {
        self.make_digests(usize::MAX);
        self.tell_checkpoint(out);
    }

    /// Makes so many digests of the checkpoint that is under way, if there is one.
    pub(super) fn make_digests(&mut self, budget: usize) {
        let Some(unfinished) = &mut self.checkpoints.unfinished else { return };
        if unfinished.roots.is_none() {
            unfinished.roots = self.state.proceed(budget);
            self.checkpoints.pieces += 1;
        }
    }

    /// Gives up a checkpoint that is under way: the state is to be another one. What was pinned
    /// since it began goes, too.
    pub(super) fn abandon_digests(&mut self) {
        self.checkpoints.unfinished = None;
        self.state.thaw();
    }

    /// How many digests it takes to be where execution is: through by half the interval.
    fn digests_due(&self) -> usize {
        let Some(Unfinished { seq, all, roots: None, .. }) = self.checkpoints.unfinished else {
            return 0;
        };
        let (since, interval) = (self.executed.0 - seq.0, self.config.checkpoint_interval);
        let share = since.saturating_mul(2).min(interval);
        // The number of objects is below 2^25, and the interval's bound lower still.
        let due = (all as u64).saturating_mul(share) / interval;
        let done = all - self.state.left().min(all);
        usize::try_from(due).unwrap_or(usize::MAX).saturating_sub(done)
    }

    /// Tells a checkpoint whose digests are all made.
    fn tell_checkpoint(&mut self, out: &mut StageOutbox) {
        let Some(manifest) = self.unfinished_manifest() else { return };
        self.checkpoints.unfinished = None;
        let seq = manifest.seq;
        let digest = manifest.digest(self.config.group);
        self.report.checkpoints += 1;
        self.note_checkpoint(&manifest, digest);
        let unstable = &mut self.checkpoints.unstable;
        if unstable.len() == CHECKPOINTS_MAX {
            // Only the comparison with a late certificate is lost.
            unstable.pop_front();
        }
        unstable.push_back((seq, digest));
        let k = seq.0 / self.config.checkpoint_interval;
        let pillar = self.config.stripe.checkpoint_pillar(k);
        out.pillar(pillar, FromStage::Checkpoint { seq, digest });
        self.pin_described(manifest, out);
    }

    /// Makes all that is left of the checkpoint that is under way. Its digest, which is not told.
    pub(super) fn digest_made(&mut self) -> Option<Digest> {
        self.make_digests(usize::MAX);
        self.unfinished_manifest().map(|manifest| manifest.digest(self.config.group))
    }

    /// What the checkpoint under way covers, once its digests are made.
    fn unfinished_manifest(&self) -> Option<Manifest> {
        let unfinished = self.checkpoints.unfinished.as_ref()?;
        let (seq, time) = (unfinished.seq, unfinished.time);
        let Roots { service, sessions } = unfinished.roots?;
        let pillars = self.config.stripe.pillars();
        Some(Manifest { seq, pillars, time, service, sessions })
    }
}
