//! What ended a replica against its will: the first failure counts, and is never taken back.
//!
//! A replica that fails stops all of its threads: one without its log, or without one of its
//! threads, is better gone. Depends on the bells alone.

use std::sync::{Arc, OnceLock};

use mio::Waker;

use crate::ring::{Bell, Wake};
use crate::sync::{AtomicBool, Ordering};

/// Set at most once.
#[derive(Debug)]
pub(crate) struct Failure<W = Waker> {
    text: OnceLock<String>,
    failed: AtomicBool,
    bells: OnceLock<Vec<Arc<Bell<W>>>>,
}

impl<W> Default for Failure<W> {
    fn default() -> Failure<W> {
        let failed = AtomicBool::new(false);
        Failure { text: OnceLock::new(), failed, bells: OnceLock::new() }
    }
}

impl<W: Wake> Failure<W> {
    /// These threads are to hear of it.
    pub(crate) fn tell(&self, bells: &[Arc<Bell<W>>]) {
        // Said once, when the threads are made.
        let _ = self.bells.set(bells.to_vec());
    }

    /// Something failed for good.
    pub(crate) fn set(&self, what: &str, error: &dyn std::fmt::Display) {
        let text = format!("{what}: {error}; start the replica again when that is mended");
        tracing::error!("the replica stops: {text}");
        // The first one is the cause; what follows from it says less.
        let _ = self.text.set(text);
        self.failed.store(true, Ordering::Release);
        self.bells.get().into_iter().flatten().for_each(|bell| bell.force());
    }

    /// Whether anything did.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// What it was.
    pub(crate) fn text(&self) -> Option<String> {
        self.text.get().cloned()
    }
}
