//! What a fuzz target is.

use std::hash::{DefaultHasher, Hash, Hasher as _};

/// What a run of a target came to: inputs that come to something new are kept and changed
/// further. Decoders name each reason for which they refuse, so that this tells about as much
/// as the branches that were taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Outcome(pub u64);

impl Outcome {
    /// The outcome that `what` stands for.
    #[must_use]
    pub fn of(what: impl Hash) -> Outcome {
        // Without keys: the same in every process.
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Outcome(hasher.finish())
    }
}

/// Runs one input; panics when something is wrong.
pub type Run = Box<dyn FnMut(&[u8]) -> Outcome>;

/// How much memory a run may take beyond what was taken before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Bytes, whatever the input.
    pub fixed: usize,
    /// Bytes per byte of input.
    pub per_byte: usize,
    /// Bytes at most: twice the largest packet or frame of the port.
    pub most: usize,
}

impl Budget {
    /// For an input of `len` bytes.
    #[must_use]
    pub fn bytes(&self, len: usize) -> usize {
        self.most.min(self.fixed.saturating_add(self.per_byte.saturating_mul(len)))
    }
}

/// A piece of code that takes bytes from strangers.
#[derive(Clone, Copy)]
pub struct Target {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it feeds.
    pub about: &'static str,
    /// Inputs to begin with: encodings of valid values. The committed corpus comes to it.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the format.
    pub words: &'static [&'static [u8]],
    /// Most bytes of an input.
    pub bytes_max: usize,
    /// Memory that one run may take.
    pub budget: Budget,
    /// Starts what is needed, once, and hands out the way to run inputs.
    pub open: fn() -> Run,
    /// How many times slower than others it may be.
    pub slowness: u32,
    /// How many runs make a short test: sockets are slower than memory.
    pub short_runs: u64,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}
