//! The pending operations as a row of segments, of which the first is open.
//!
//! Not here: who depends on whom inside a segment.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use base::Seq;

/// What lies between barriers and cuts.
#[derive(Clone, Debug, Default)]
pub(super) struct Segments {
    /// The open one first, if anything is pending; it has nothing gated.
    row: VecDeque<Segment>,
    /// What is beyond this is held.
    cut: Option<Seq>,
}

#[derive(Clone, Debug)]
struct Segment {
    /// The lowest number in it.
    from: Seq,
    pending: usize,
    /// A barrier: nothing joins it.
    alone: bool,
    open: bool,
    /// What waits for it to open, in order: all of it, unless it is open.
    gated: Vec<u32>,
}

impl Segments {
    /// Makes room for an operation that may join the last segment; `apart` when it may not. True
    /// when its segment is open.
    pub(super) fn place(&mut self, seq: Seq, apart: bool) -> bool {
        let beyond = |from: Seq| self.cut.is_some_and(|cut| from <= cut && seq > cut);
        let joins = self.row.back().is_some_and(|last| {
            // A segment that is used up stays in front until something comes after it.
            !last.alone && !beyond(last.from) && (!apart || last.pending == 0)
        });
        if !joins {
            self.begin(seq, false);
        }
        self.enter()
    }

    /// Makes room for a barrier. True when its segment is open.
    pub(super) fn place_alone(&mut self, seq: Seq) -> bool {
        self.begin(seq, true);
        self.enter()
    }

    /// The operation that was placed last waits for its segment.
    pub(super) fn gate(&mut self, slot: u32) {
        self.row.back_mut().expect("it was placed").gated.push(slot);
    }

    /// An operation of the open segment is gone.
    pub(super) fn leave(&mut self) {
        self.row.front_mut().expect("it was in there").pending -= 1;
    }

    /// Opens the next segment if the one before it is used up and the cut allows; what waited
    /// for it.
    pub(super) fn next(&mut self) -> Option<Vec<u32>> {
        let used_up = |segment: &Segment| segment.open && segment.pending == 0;
        if self.row.front().is_some_and(used_up) {
            self.row.pop_front();
        }
        let cut = self.cut;
        let first = self.row.front_mut()?;
        if first.open || cut.is_some_and(|cut| first.from > cut) {
            return None;
        }
        first.open = true;
        Some(core::mem::take(&mut first.gated))
    }

    /// Moves the cut on, and cuts what waits there.
    pub(super) fn sync(&mut self, cut: Seq, seq_of: impl Fn(u32) -> Seq) {
        assert!(self.cut.is_none_or(|old| old <= cut), "a cut goes back");
        self.cut = Some(cut);
        let Some(at) = self.row.iter().position(|segment| {
            let last = segment.gated.last();
            !segment.open && segment.from <= cut && last.is_some_and(|last| seq_of(*last) > cut)
        }) else {
            return;
        };
        let segment = &mut self.row[at];
        let gated = segment.gated.split_off(segment.gated.partition_point(|s| seq_of(*s) <= cut));
        segment.pending -= gated.len();
        let from = seq_of(gated[0]);
        let rest = Segment { from, pending: gated.len(), alone: false, open: false, gated };
        self.row.insert(at + 1, rest);
    }

    /// Whether nothing up to the cut is pending.
    pub(super) fn is_at_cut(&self) -> bool {
        self.row.front().is_none_or(|first| !first.open || first.pending == 0)
    }

    fn begin(&mut self, from: Seq, alone: bool) {
        let used_up = |segment: &Segment| segment.open && segment.pending == 0;
        if self.row.front().is_some_and(used_up) {
            self.row.pop_front();
        }
        let open = self.row.is_empty() && self.cut.is_none_or(|cut| from <= cut);
        self.row.push_back(Segment { from, pending: 0, alone, open, gated: Vec::new() });
    }

    fn enter(&mut self) -> bool {
        let last = self.row.back_mut().expect("it was begun");
        last.pending += 1;
        last.open
    }

    /// Checks what must hold between segments.
    pub(super) fn check(&self, pending: usize) {
        let all: usize = self.row.iter().map(|segment| segment.pending).sum();
        assert_eq!(all, pending, "segments miscount what is pending");
        for segment in self.row.iter().skip(1) {
            assert!(!segment.open, "two segments are open");
            assert_eq!(segment.gated.len(), segment.pending, "something got in by another way");
        }
    }
}
