//! Which checkpoints stay readable while execution goes on, and for whom.
//!
//! Each reader has at most one: it names a number that is yet to be executed, and when execution
//! comes there, that state is pinned. How old bytes are kept: `pins`.

use alloc::vec::Vec;

use base::Seq;
use base::transfer::{Manifest, SnapshotReader};

use crate::state::State;

/// What each reader wants or holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshots {
    transfer: Slot,
    disk: Slot,
}

#[derive(Clone, Copy, Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Wanted(Seq),
    /// Pinned, but it is not known yet under what roots.
    Reached(Seq),
    Held(Manifest),
}

impl Slot {
    /// The number under which something is pinned.
    fn pinned(&self) -> Option<Seq> {
        match self {
            Slot::Empty | Slot::Wanted(_) => None,
            Slot::Reached(seq) => Some(*seq),
            Slot::Held(manifest) => Some(manifest.seq),
        }
    }
}

const READERS: [SnapshotReader; 2] = [SnapshotReader::Transfer, SnapshotReader::Disk];

impl Snapshots {
    /// From now on `reader` wants this number, and nothing else.
    pub(crate) fn want(&mut self, reader: SnapshotReader, seq: Seq, state: &mut State) {
        self.release(reader, state);
        *self.slot_mut(reader) = Slot::Wanted(seq);
    }

    /// `reader` wants and holds nothing any more.
    pub(crate) fn release(&mut self, reader: SnapshotReader, state: &mut State) {
        let old = core::mem::take(self.slot_mut(reader)).pinned();
        if let Some(seq) = old
            && READERS.iter().all(|other| self.slot(*other).pinned() != old)
        {
            state.unpin(seq);
        }
    }

    /// Pins the state as it is now, after `seq`, for every reader that wants it. The state's trees
    /// are refreshed, or were frozen just now.
    pub(crate) fn reach(&mut self, seq: Seq, state: &mut State) {
        for reader in READERS {
            if matches!(self.slot(reader), Slot::Wanted(wanted) if *wanted == seq) {
                state.pin(seq);
                *self.slot_mut(reader) = Slot::Reached(seq);
            }
        }
    }

    /// This manifest describes a state that was pinned; for which readers.
    pub(crate) fn described(&mut self, manifest: Manifest) -> Vec<SnapshotReader> {
        let waits = |slot: &Slot| matches!(slot, Slot::Reached(seq) if *seq == manifest.seq);
        let readers = READERS.into_iter().filter(|reader| waits(self.slot(*reader)));
        let readers: Vec<SnapshotReader> = readers.collect();
        for reader in &readers {
            *self.slot_mut(*reader) = Slot::Held(manifest);
        }
        readers
    }

    /// Takes away everything that is pinned, and what is wanted at or below `upto`; says from
    /// whom.
    pub(crate) fn drop_all(&mut self, upto: Seq, state: &mut State) -> Vec<(SnapshotReader, Seq)> {
        let mut dropped = Vec::new();
        for reader in READERS {
            let seq = match self.slot(reader) {
                Slot::Held(manifest) => manifest.seq,
                Slot::Reached(seq) => *seq,
                Slot::Wanted(seq) if *seq <= upto => *seq,
                _ => continue,
            };
            self.release(reader, state);
            dropped.push((reader, seq));
        }
        dropped
    }

    /// Whether the state at `seq` is pinned for `reader` already.
    pub(crate) fn is_pinned(&self, reader: SnapshotReader, seq: Seq) -> bool {
        self.slot(reader).pinned() == Some(seq)
    }

    /// What `reader` holds.
    pub(crate) fn held(&self, reader: SnapshotReader) -> Option<&Manifest> {
        if let Slot::Held(manifest) = self.slot(reader) { Some(manifest) } else { None }
    }

    fn slot(&self, reader: SnapshotReader) -> &Slot {
        match reader {
            SnapshotReader::Transfer => &self.transfer,
            SnapshotReader::Disk => &self.disk,
        }
    }

    fn slot_mut(&mut self, reader: SnapshotReader) -> &mut Slot {
        match reader {
            SnapshotReader::Transfer => &mut self.transfer,
            SnapshotReader::Disk => &mut self.disk,
        }
    }
}
