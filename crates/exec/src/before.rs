//! What a tree's objects were before a batch that is executed tentatively has written them.
//!
//! Bytes are taken at the first write of an object after [`Before::begin`], one after the other
//! in one piece of memory that is used again for the next batch. Not here: when a batch is taken
//! back (`stage::tentative`), and old checkpoints, which outlive many batches (`pins`).
//!
//! Invariant: an object is kept at most once.

use alloc::vec;
use alloc::vec::Vec;

/// The objects that were written since the beginning, as they were then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    keeps: bool,
    /// One bit per object: whether it is in `objects`.
    kept: Vec<u64>,
    /// Objects, and where their bytes end.
    objects: Vec<(u32, usize)>,
    bytes: Vec<u8>,
}

/// Memory that is used again for the next batch; what is beyond it is given back.
const SPARE_BYTES: usize = 1 << 20;

impl Before {
    /// From now on the first write of each of the `objects` is kept.
    pub(crate) fn begin(&mut self, objects: u32) {
        self.end();
        self.keeps = true;
        if self.kept.is_empty() {
            self.kept = vec![0; (objects as usize).div_ceil(64)];
        }
    }

    /// Forgets what is kept, and keeps no more.
    pub(crate) fn end(&mut self) {
        self.keeps = false;
        for (object, _) in self.objects.drain(..) {
            self.kept[object as usize / 64] = 0;
        }
        self.bytes.clear();
        self.bytes.shrink_to(SPARE_BYTES);
    }

    /// Whether `object`, which is about to be written, is still to be kept.
    #[inline]
    pub(crate) fn wants(&self, object: u32) -> bool {
        self.keeps && self.kept[object as usize / 64] & (1 << (object % 64)) == 0
    }

    /// Keeps what `save` appends as the bytes of `object`; returns them.
    pub(crate) fn keep(&mut self, object: u32, save: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let start = self.bytes.len();
        save(&mut self.bytes);
        self.kept[object as usize / 64] |= 1 << (object % 64);
        self.objects.push((object, self.bytes.len()));
        &self.bytes[start..]
    }

    /// What is kept.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let starts = core::iter::once(0).chain(self.objects.iter().map(|(_, end)| *end));
        starts.zip(&self.objects).map(|(start, (object, end))| (*object, &self.bytes[start..*end]))
    }

    /// Bytes that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_of_an_object_stay() {
        let mut before = Before::default();
        assert!(!before.wants(3), "nothing is kept without a beginning");
        for round in 0..3u8 {
            before.begin(200);
            for (object, bytes) in [(3, &b"three"[..]), (130, b""), (199, b"last")] {
                assert!(before.wants(object), "round {round}");
                assert_eq!(before.keep(object, |out| out.extend_from_slice(bytes)), bytes);
                assert!(!before.wants(object));
            }
            let kept: Vec<_> = before.objects().collect();
            assert_eq!(kept, [(3, &b"three"[..]), (130, b""), (199, b"last")]);
            assert_eq!(before.bytes(), 9);
        }
        before.end();
        assert_eq!((before.objects().count(), before.bytes()), (0, 0));
        assert!(!before.wants(4));
    }
}
