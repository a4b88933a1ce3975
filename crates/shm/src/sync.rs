//! What two ends share: atomic words, the standard library's or `loom`'s.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// A word of shared memory.
pub type Word = AtomicU64;
