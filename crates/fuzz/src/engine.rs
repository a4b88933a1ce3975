//! Runs a target on one input after the other and watches what it does.
//!
//! What every run must keep to, whatever the input: it does not panic, it takes no more memory
//! than its budget, and its time stays in proportion to the input's length. What the target
//! itself promises (what is read is written as the same bytes, and so on) it asserts.
//!
//! Not here: what targets there are (`registry`), and where failing inputs go (the program).

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::corpus;
use crate::mutate::{Material, mutated};
use crate::panics;
use crate::prng::Prng;
use crate::target::{Outcome, Run, Target};

/// Most inputs that are kept for having come to something new.
const CORPUS_MAX: usize = 2_048;
/// Most runs that making a failing input smaller may take.
const SHRINKING_RUNS_MAX: usize = 4_000;
/// Time that a run may take, whatever the input; and for each byte of it. Generous: a machine
/// may be busy. Ten times slower than this is not the machine.
const TIME_FIXED: Duration = Duration::from_millis(500);
const TIME_PER_BYTE: Duration = Duration::from_micros(20);

/// What was wrong with a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// It panicked, on whatever thread, with this message.
    Panic(String),
    /// It took so many bytes of memory at once, and may take so many.
    Memory {
        /// Bytes taken.
        took: usize,
        /// Bytes allowed.
        most: usize,
    },
    /// It took so long, three times in a row.
    Time(Duration),
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wrong::Panic(message) => write!(f, "panicked: {message}"),
            Wrong::Memory { took, most } => write!(f, "took {took} bytes at once, of {most}"),
            Wrong::Time(took) => write!(f, "took {took:?}"),
        }
    }
}

/// An input that a target does not stand.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The smallest one found.
    pub input: Vec<u8>,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What was done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Inputs run.
    pub runs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Different outcomes.
    pub outcomes: usize,
    /// The most memory that a run took, in bytes.
    pub memory: usize,
    /// The longest run.
    pub slowest: Duration,
}

/// A target under way.
pub struct Fuzzer {
    target: Target,
    run: Run,
    prng: Prng,
    corpus: Vec<Vec<u8>>,
    seen: BTreeSet<u64>,
    tally: Tally,
    timed: bool,
}

impl Fuzzer {
    /// Opens the target and collects its corpus: the committed inputs and the seeds. `timed`:
    /// whether slow runs are failures.
    ///
    /// # Errors
    /// When the committed corpus cannot be read.
    pub fn new(target: Target, seed: u64, timed: bool) -> Result<Fuzzer> {
        panics::watch();
        let mut corpus = corpus::of(target.name)?;
        corpus.extend((target.seeds)());
        let run = (target.open)();
        let (prng, seen) = (Prng::new(seed), BTreeSet::new());
        Ok(Fuzzer { target, run, prng, corpus, seen, tally: Tally::default(), timed })
    }

    /// Runs every input of the corpus as it is.
    ///
    /// # Errors
    /// The first that the target does not stand.
    pub fn corpus(&mut self) -> Result<(), Box<Failure>> {
        for input in self.corpus.clone() {
            self.one(input)?;
        }
        Ok(())
    }

    /// Runs one more input.
    ///
    /// # Errors
    /// When the target does not stand it.
    pub fn step(&mut self) -> Result<(), Box<Failure>> {
        let Target { words, bytes_max, .. } = self.target;
        let from = Material { corpus: &self.corpus, words, bytes_max };
        let input = mutated(&mut self.prng, from);
        if let Some(outcome) = self.one(input.clone())?
            && self.seen.insert(outcome.0)
            && self.corpus.len() < CORPUS_MAX
        {
            self.corpus.push(input);
        }
        Ok(())
    }

    /// What was done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { outcomes: self.seen.len(), ..self.tally }
    }

    /// Runs exactly this input.
    ///
    /// # Errors
    /// When the target does not stand it.
    pub fn one(&mut self, input: Vec<u8>) -> Result<Option<Outcome>, Box<Failure>> {
        self.tally.runs += 1;
        self.tally.bytes += input.len() as u64;
        match self.attempt(&input) {
            Ok(outcome) => Ok(Some(outcome)),
            Err(Wrong::Time(_)) if !self.timed || !self.is_slow(&input) => Ok(None),
            Err(wrong) => Err(Box::new(self.shrunk(Failure { input, wrong }))),
        }
    }

    fn is_slow(&mut self, input: &[u8]) -> bool {
        (0..2).all(|_| matches!(self.attempt(input), Err(Wrong::Time(_))))
    }

    fn attempt(&mut self, input: &[u8]) -> Result<Outcome, Wrong> {
        crate::MEMORY.reset_peak_usage();
        let (before, start) = (crate::MEMORY.current_usage(), Instant::now());
        let panics = panics::count();
        RUNNING.store(true, Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.run)(input)));
        RUNNING.store(false, Ordering::Relaxed);
        let took = start.elapsed();
        let memory = crate::MEMORY.peak_usage().saturating_sub(before);
        let outcome = match outcome {
            Ok(outcome) if panics::count() == panics => outcome,
            _ => {
                // What panicked may be in any state.
                let what = panics::last();
                self.run = (self.target.open)();
                return Err(Wrong::Panic(what));
            }
        };
        self.tally.memory = self.tally.memory.max(memory);
        self.tally.slowest = self.tally.slowest.max(took);
        let most = self.target.budget.bytes(input.len());
        if memory > most {
            return Err(Wrong::Memory { took: memory, most });
        }
        let bytes = u32::try_from(input.len()).unwrap_or(u32::MAX);
        if took > (TIME_FIXED + TIME_PER_BYTE * bytes) * self.target.slowness {
            return Err(Wrong::Time(took));
        }
        Ok(outcome)
    }

    /// The same failure with as little input as can be found: pieces are taken out, ever
    /// smaller ones, then bytes become zero.
    fn shrunk(&mut self, mut failure: Failure) -> Failure {
        let mut runs = 0;
        let mut piece = failure.input.len().div_ceil(2);
        while piece > 0 && runs < SHRINKING_RUNS_MAX {
            let mut at = 0;
            while at < failure.input.len() && runs < SHRINKING_RUNS_MAX {
                let mut less = failure.input.clone();
                less.drain(at..(at + piece).min(less.len()));
                runs += 1;
                match self.fails_alike(&less, &failure.wrong) {
                    Some(wrong) => failure = Failure { input: less, wrong },
                    None => at += piece,
                }
            }
            piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
        }
        for at in 0..failure.input.len().min(SHRINKING_RUNS_MAX.saturating_sub(runs)) {
            let mut less = failure.input.clone();
            if std::mem::take(&mut less[at]) != 0
                && let Some(wrong) = self.fails_alike(&less, &failure.wrong)
            {
                failure = Failure { input: less, wrong };
            }
        }
        failure
    }

    fn fails_alike(&mut self, input: &[u8], as_before: &Wrong) -> Option<Wrong> {
        let wrong = self.attempt(input).err()?;
        let alike = std::mem::discriminant(&wrong) == std::mem::discriminant(as_before);
        alike.then_some(wrong)
    }
}

/// Whether an input is being run: then panics are told with it, and not printed.
static RUNNING: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_running() -> bool {
    RUNNING.load(Ordering::Relaxed)
}

pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "without a message".to_owned());
    text.chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Budget;

    const BUDGET: Budget = Budget { fixed: 64 << 10, per_byte: 16, most: 1 << 20 };

    fn target(open: fn() -> Run) -> Target {
        Target {
            name: "planted",
            about: "a decoder with a bug",
            seeds: || vec![b"STYL\x04\0\0\0abcd".to_vec()],
            words: &[],
            bytes_max: 256,
            budget: BUDGET,
            open,
            slowness: 1,
            short_runs: 1,
        }
    }

    fn found(target: Target, runs: u64) -> Option<Failure> {
        let mut fuzzer = Fuzzer::new(target, 1, true).unwrap();
        fuzzer.corpus().unwrap();
        (0..runs).find_map(|_| fuzzer.step().err()).map(|failure| *failure)
    }

    /// Trusts a length: takes memory for it, or reads beyond the end.
    fn careless(allocate: bool) -> Run {
        Box::new(move |bytes| {
            let Some(rest) = bytes.strip_prefix(b"STYL") else { return Outcome::of(0) };
            let Some(len) = rest.first_chunk::<4>() else { return Outcome::of(1) };
            let len = u32::from_le_bytes(*len) as usize;
            if allocate {
                return Outcome::of(Vec::<u8>::with_capacity(len.min(64 << 20)).capacity());
            }
            Outcome::of(&rest[4..4 + len])
        })
    }

    #[test]
    fn a_length_that_is_believed_is_found_and_shrunk() {
        let failure = found(target(|| careless(false)), 2_000).expect("is found");
        assert!(matches!(&failure.wrong, Wrong::Panic(m) if m.contains("out of range")));
        assert_eq!(failure.input.len(), 8, "magic and length are enough: {:?}", failure.input);
        let failure = found(target(|| careless(true)), 2_000).expect("is found");
        assert!(matches!(failure.wrong, Wrong::Memory { took, .. } if took > 64 << 10));
        assert_eq!(failure.input.len(), 8);
    }

    #[test]
    fn a_careful_decoder_passes_and_what_is_new_is_kept() {
        let careful: fn() -> Run = || Box::new(|bytes| Outcome::of(bytes.first().map(|b| b % 7)));
        let mut fuzzer = Fuzzer::new(target(careful), 1, true).unwrap();
        (0..2_000).for_each(|_| fuzzer.step().unwrap());
        let tally = fuzzer.tally();
        assert_eq!((tally.runs, tally.outcomes), (2_000, 8));
    }
}
