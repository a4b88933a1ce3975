//! Runs scenarios with many seeds, on several threads.
//!
//! A world belongs to one thread and knows nothing of others, so a seed's run is the same
//! whatever else runs. Not here: what is printed (`main`).

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::adversary::Deeds;
use crate::coverage::Coverage;
use crate::measures::Worst;
use crate::outcome::{self, Outcome};
use crate::plan::Plan;
use crate::scenario::words;
use crate::scenarios::Scenario;

/// Something did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// In this scenario.
    pub scenario: &'static str,
    /// With this seed.
    pub seed: u64,
    /// What the panic said, and where.
    pub why: String,
    /// What the run left behind.
    pub outcome: Box<Outcome>,
}

thread_local! {
    /// Where this thread panicked last.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Lets panics be collected instead of printed. For a whole process, before anything runs.
pub fn collect_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        PLACE.with(|slot| *slot.borrow_mut() = place);
    }));
}

/// Runs `scenario` with `seed`. Gives what it left behind.
///
/// # Errors
/// What did not hold.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Outcome, Violation> {
    attempt(scenario.name, seed, || (scenario.run)(seed))
}

/// Runs a plan, by itself or as it was edited.
///
/// # Errors
/// What did not hold.
pub fn run_plan(plan: &Plan) -> Result<Outcome, Violation> {
    attempt("swarm", plan.options.seed, || plan.run())
}

fn attempt(scenario: &'static str, seed: u64, run: impl FnOnce()) -> Result<Outcome, Violation> {
    let _ = outcome::take();
    let result = catch_unwind(AssertUnwindSafe(run));
    let outcome = outcome::take();
    let Err(panic) = result else { return Ok(outcome) };
    let place = PLACE.with(|slot| slot.borrow().clone());
    let why = format!("{}\n(at {place})", words(&*panic));
    Err(Violation { scenario, seed, why, outcome: Box::new(outcome) })
}

impl Violation {
    /// What kind of violation it is: the same for runs that fail in the same way.
    #[must_use]
    pub fn kind(&self) -> (&str, &str) {
        let first = self.why.split([':', ',']).next().unwrap_or_default();
        // Virtual times and numbers differ.
        let words = first.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
        let place = self.why.rsplit("\n(at ").next().unwrap_or_default();
        (words, place)
    }
}

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs that ended, well or not.
    pub runs: u64,
    /// Events that happened in them.
    pub events: u64,
    /// What they met.
    pub coverage: Coverage,
    /// The slowest and the busiest at rest.
    pub worst: Worst,
    /// What adversaries did.
    pub deeds: Deeds,
    /// What did not hold, in the order of the runs.
    pub violations: Vec<Violation>,
}

/// Many runs.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Each seed is run with all of these, in this order.
    pub scenarios: &'a [&'static Scenario],
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Threads.
    pub jobs: usize,
    /// No more runs begin after this many violations.
    pub violations_max: usize,
}

impl Batch<'_> {
    /// Runs them all; calls `done` after each run, with its violation if there is one.
    ///
    /// # Panics
    /// When `done` does.
    #[must_use]
    pub fn run(&self, done: impl Fn(Option<&Violation>) + Sync) -> Summary {
        let kinds = self.scenarios.len() as u64;
        let next = AtomicU64::new(0);
        let all: Mutex<Summary> = Mutex::default();
        let work = || {
            let mut enough = false;
            while !enough {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= kinds * self.seeds {
                    break;
                }
                let scenario = self.scenarios[(index % kinds) as usize];
                let seed = self.from + index / kinds;
                let result = run(scenario, seed);
                done(result.as_ref().err());
                let mut all = all.lock().expect("nobody panics with the lock");
                all.add(seed, result);
                enough = all.violations.len() >= self.violations_max;
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(work);
            }
        });
        let mut all = all.into_inner().expect("nobody panics with the lock");
        all.violations.sort_by_key(|violation| violation.seed);
        all
    }
}

impl Summary {
    fn add(&mut self, seed: u64, result: Result<Outcome, Violation>) {
        let outcome = match &result {
            Ok(outcome) => outcome,
            Err(violation) => &violation.outcome,
        };
        self.runs += 1;
        self.events += outcome.events;
        self.coverage.add(&outcome.coverage);
        self.worst.add(seed, &outcome.measures);
        self.deeds.add(&outcome.deeds);
        self.violations.extend(result.err());
    }
}
