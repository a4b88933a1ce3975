//! Checkpoints of a stage: taking them, comparing them with what a quorum certifies, and keeping
//! them readable.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::transfer::{Manifest, Part, SnapshotReader};
use base::{Digest, FromStage, ReplicaId, Seq, StableCheckpoint};

use super::digests::{PIECE, Unfinished};
use super::{Stage, StageOutbox, Standing};

/// Own checkpoints that are remembered until they are stable.
pub(super) const CHECKPOINTS_MAX: usize = 64;

/// The stage's own checkpoints.
pub(super) struct Checkpoints {
    /// Those that are told and not known to be stable, oldest first.
    pub(super) unstable: VecDeque<(Seq, Digest)>,
    /// The one whose digests are being made.
    pub(super) unfinished: Option<Unfinished>,
    /// What that one is to be held against once workers are back.
    pub(super) questioned: Option<Question>,
    /// Digests that a turn makes at least.
    pub(super) piece: usize,
    /// Pieces that were made.
    pub(super) pieces: u64,
}

/// A fetch that waits for the digest of the own checkpoint.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) target: StableCheckpoint,
    /// Who has it.
    pub(super) sources: Vec<ReplicaId>,
    /// Who wants it to be kept.
    pub(super) readers: Vec<SnapshotReader>,
}

impl Default for Checkpoints {
    fn default() -> Checkpoints {
        Checkpoints {
            unstable: VecDeque::new(),
            unfinished: None,
            questioned: None,
            piece: PIECE,
            pieces: 0,
        }
    }
}

impl Stage {
    /// What the checkpoint covers that `reader` has pinned, if it has.
    #[must_use]
    pub fn pinned_manifest(&self, reader: SnapshotReader) -> Option<&Manifest> {
        self.snapshots.held(reader)
    }

    /// The bytes that an object had at the checkpoint that `reader` has pinned. `None` when
    /// nothing is pinned (any more), or there is no such object.
    #[must_use]
    pub fn read_pinned(&self, reader: SnapshotReader, part: Part, object: u32) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append_pinned(reader, (part, object), &mut bytes).then_some(bytes)
    }

    /// Appends what [`Stage::read_pinned`] returns to `out`: whoever reads many objects has them
    /// in one piece of memory. False, and nothing is appended, where that returns `None`.
    #[must_use]
    pub fn append_pinned(
        &self,
        reader: SnapshotReader,
        (part, object): (Part, u32),
        out: &mut Vec<u8>,
    ) -> bool {
        let held = self.snapshots.held(reader);
        held.is_some_and(|held| self.state.append_pinned(held.seq, (part, object), out))
    }

    /// Number of objects in one part of the state: `0..` this. Never changes.
    #[must_use]
    pub fn objects(&self, part: Part) -> u32 {
        self.state.tree(part).objects()
    }

    /// What a checkpoint taken now would cover. Costs what was written since the last one.
    pub(super) fn manifest(&mut self) -> Manifest {
        // What is under way is another one's.
        self.make_digests(usize::MAX);
        Manifest {
            seq: self.executed,
            pillars: self.config.stripe.pillars(),
            time: self.time,
            service: self.state.refresh(Part::Service),
            sessions: self.state.refresh(Part::Sessions),
        }
    }

    pub(super) fn checkpoint(&mut self, out: &mut StageOutbox) {
        assert!(!self.ahead.is_on(), "nothing tentative is in a checkpoint");
        // There is one at a time.
        self.finish_digests(out);
        self.freeze();
        self.digest_piece(out);
    }

    pub(super) fn note_checkpoint(&mut self, manifest: &Manifest, digest: Digest) {
        (self.report.checkpoint, self.report.checkpoint_digest) = (manifest.seq, digest);
        self.report.state_root = manifest.service;
    }

    pub(super) fn stable(&mut self, stable: StableCheckpoint, out: &mut StageOutbox) {
        self.report.stable = self.report.stable.max(stable.seq);
        while self.checkpoints.unstable.front().is_some_and(|(seq, _)| *seq < stable.seq) {
            self.checkpoints.unstable.pop_front();
        }
        let Some((seq, ours)) = self.checkpoints.unstable.front().copied() else { return };
        if seq != stable.seq {
            return;
        }
        self.checkpoints.unstable.pop_front();
        if ours != stable.digest && !base::mutant!(DivergenceUnnoticed) {
            self.diverge(stable, ours, out);
        }
    }

    /// The own state is wrong: the service is not deterministic, or memory is corrupt.
    fn diverge(&mut self, certified: StableCheckpoint, ours: Digest, out: &mut StageOutbox) {
        self.report.diverged += 1;
        self.standing = Standing::Halted { trusted: false };
        self.abandon_tentative();
        self.abandon_flight(self.executed);
        self.abandon_digests();
        self.checkpoints.unstable.clear();
        self.drop_pins(self.executed, out);
        out.coordinator(FromStage::Diverged { certified, ours });
    }

    pub(super) fn pin(&mut self, seq: Seq, reader: SnapshotReader, out: &mut StageOutbox) {
        let pinned = self.snapshots.is_pinned(reader, seq);
        if !pinned {
            self.unpin(reader);
        }
        if let Some(question) = &mut self.checkpoints.questioned
            && question.target.seq == seq
        {
            // What is pinned is the own state, which may turn out to be wrong.
            question.readers.retain(|wants| *wants != reader);
            return question.readers.push(reader);
        }
        if pinned {
            // To let it go and keep it again may be to lose it: execution may be beyond it.
            if let Some(held) = self.snapshots.held(reader) {
                let digest = held.digest(self.config.group);
                out.coordinator(FromStage::Pinned { reader, seq, digest });
            }
            return;
        }
        let executes = matches!(self.standing, Standing::Executes);
        // Any number can be kept while its state is the present one.
        if seq == self.executed {
            self.take_back();
        }
        let idle = self.cursor.is_none() && self.flight.is_empty() && !self.ahead.is_on();
        let at_rest = executes && seq == self.executed && idle;
        let aligned = seq.0.is_multiple_of(self.config.checkpoint_interval);
        let fetched = match &self.standing {
            Standing::Fetches(fetch) => fetch.target().seq == seq,
            _ => false,
        };
        let to_come = fetched || aligned && (seq > self.executed || !executes);
        if !to_come && !at_rest {
            return self.miss_pin(reader, seq, out);
        }
        self.snapshots.want(reader, seq, &mut self.state);
        if at_rest {
            self.finish_digests(out);
            let manifest = self.manifest();
            self.pin_reached(manifest, out);
        }
    }

    pub(super) fn unpin(&mut self, reader: SnapshotReader) {
        if let Some(question) = &mut self.checkpoints.questioned {
            question.readers.retain(|wants| *wants != reader);
        }
        self.snapshots.release(reader, &mut self.state);
        if reader == SnapshotReader::Transfer {
            self.source.forget();
        }
    }

    /// The state, whose trees are refreshed, is that of `manifest`.
    pub(super) fn pin_reached(&mut self, manifest: Manifest, out: &mut StageOutbox) {
        self.snapshots.reach(manifest.seq, &mut self.state);
        self.pin_described(manifest, out);
    }

    /// What was pinned at its number is the state of `manifest`.
    pub(super) fn pin_described(&mut self, manifest: Manifest, out: &mut StageOutbox) {
        let seq = manifest.seq;
        for reader in self.snapshots.described(manifest) {
            let digest = manifest.digest(self.config.group);
            out.coordinator(FromStage::Pinned { reader, seq, digest });
        }
    }

    /// Takes away all that is pinned, and what was to be pinned at or below `upto`.
    pub(super) fn drop_pins(&mut self, upto: Seq, out: &mut StageOutbox) {
        for (reader, seq) in self.snapshots.drop_all(upto, &mut self.state) {
            self.miss_pin(reader, seq, out);
        }
        self.source.forget();
    }

    pub(super) fn miss_pin(&self, reader: SnapshotReader, seq: Seq, out: &mut StageOutbox) {
        let executed = self.executed;
        out.coordinator(FromStage::PinMissed { reader, seq, executed });
    }
}
