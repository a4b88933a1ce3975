//! Runs scenarios with many seeds, on several threads.
//!
//! A world belongs to one thread and knows nothing of others, so a seed's run is the same
//! whatever else runs. Not here: what is printed (`main`).

use std::cell::RefCell;
use std::panic::{self, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

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

/// Runs `scenario` with `seed`.
///
/// # Errors
/// What did not hold.
pub fn run(scenario: &Scenario, seed: u64) -> Result<(), Violation> {
    let result = catch_unwind(|| (scenario.run)(seed));
    result.map_err(|panic| {
        let place = PLACE.with(|slot| slot.borrow().clone());
        let why = format!("{}\n(at {place})", words(&*panic));
        Violation { scenario: scenario.name, seed, why }
    })
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
    /// Runs them all; calls `done` after each run. Gives the violations in the order of the runs.
    ///
    /// # Panics
    /// When `done` does.
    #[must_use]
    pub fn run(&self, done: impl Fn() + Sync) -> Vec<Violation> {
        let kinds = self.scenarios.len() as u64;
        let next = AtomicU64::new(0);
        let enough = AtomicBool::new(false);
        let found: Mutex<Vec<(u64, Violation)>> = Mutex::new(Vec::new());
        let work = || {
            while !enough.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= kinds * self.seeds {
                    break;
                }
                let scenario = self.scenarios[(index % kinds) as usize];
                if let Err(violation) = run(scenario, self.from + index / kinds) {
                    let mut found = found.lock().expect("nobody panics with the lock");
                    found.push((index, violation));
                    enough.fetch_or(found.len() >= self.violations_max, Ordering::Relaxed);
                }
                done();
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(work);
            }
        });
        let mut found = found.into_inner().expect("nobody panics with the lock");
        found.sort_by_key(|(index, _)| *index);
        found.into_iter().map(|(_, violation)| violation).collect()
    }
}
