//! The scenarios: what is done to a group, and what must come of it, one function of a seed each.
//!
//! A scenario panics when something does not hold. Tests, the command line and the list of
//! mutants run the same ones. Families are modules; each lists its own. Not here: what must hold
//! after every step (`check`).

use crate::coverage::Coverage;
use crate::scenario::{each_seed, seeds};

mod adversary;
mod decisions;
mod disk;
mod forgeries;
mod idle;
mod inline;
mod lanes;
mod normal_case;
mod parallel;
mod piggyback;
mod reads;
mod recovery;
mod replies;
mod rotation;
mod strategies;
mod swarm;
mod tables;
mod tentative;
mod transfer;
mod view_change;

/// Something that a group must survive.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// How it is called on the command line, and by its test.
    pub name: &'static str,
    /// What is done, and what must come of it.
    pub claim: &'static str,
    /// Seeds of a quick test run.
    pub ci_seeds: u64,
    /// Seeds of a full one.
    pub full_seeds: u64,
    /// Runs it with a seed, below [`SEED_MAX`]. Panics when something does not hold.
    pub run: fn(u64),
}

/// Seeds are below this, so that scenarios may calculate with them.
pub const SEED_MAX: u64 = 1 << 48;

/// All families.
const FAMILIES: &[&[Scenario]] = &[
    decisions::ALL,
    forgeries::ALL,
    lanes::ALL,
    tables::ALL,
    parallel::ALL,
    normal_case::ALL,
    view_change::ALL,
    recovery::ALL,
    disk::ALL,
    transfer::ALL,
    adversary::ALL,
    rotation::ALL,
    piggyback::ALL,
    reads::ALL,
    tentative::ALL,
    inline::ALL,
    idle::ALL,
    replies::ALL,
    strategies::ALL,
    swarm::ALL,
];

/// All scenarios.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    FAMILIES.iter().copied().flatten()
}

/// The scenario of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}

/// Runs a scenario with as many seeds as a test is to run, from 0. Gives what they met.
///
/// # Panics
/// When there is no scenario of this name, or it panics; says how to run that seed again.
pub fn check(name: &str) -> Coverage {
    let Some(scenario) = find(name) else { panic!("no scenario is called {name}") };
    each_seed(scenario, seeds(scenario.ci_seeds, scenario.full_seeds))
}
