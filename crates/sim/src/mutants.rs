//! Looks for a violation in a process that has a deliberate bug ([`base::mutants`]).
//!
//! Every mutant meets the same scenarios and seeds in the same order, so that none gets a
//! scenario made for it alone: first seed 0 of all scenarios, then seed 1 of all, and so on.
//! Time is that of the processor, so that a busy machine changes nothing but the patience.

use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::runner;
use crate::scenarios::{self, Scenario};

/// What did not hold.
#[derive(Clone, Debug)]
pub struct Find {
    /// In this scenario.
    pub scenario: &'static str,
    /// With this seed.
    pub seed: u64,
    /// What the panic said, and where.
    pub why: String,
}

/// How a hunt ended.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// What was found, if anything was.
    pub found: Option<Find>,
    /// Runs, the last one included.
    pub runs: u64,
    /// Seconds of one processor.
    pub seconds: f64,
}

/// Hunts until something is found or `budget` of one processor is spent, in `scenarios`, or in
/// all of them. A run that takes longer than `budget` by itself is a find, too: it hangs.
///
/// # Panics
/// When the machine has no threads left.
#[must_use]
pub fn hunt(budget: Duration, only: &[&'static Scenario]) -> Hunt {
    let all: Vec<&'static Scenario> =
        if only.is_empty() { scenarios::all().collect() } else { only.to_vec() };
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let began = processor_seconds();
        for index in 0.. {
            let scenario = all[(index % all.len() as u64) as usize];
            let seed = index / all.len() as u64;
            let _ = tell.send((scenario, seed, None));
            let violation = runner::run(scenario, seed).err();
            let found = violation.map(|v| Find { scenario: v.scenario, seed, why: v.why });
            let seconds = processor_seconds() - began;
            let over = found.is_some() || seconds >= budget.as_secs_f64();
            if over {
                let hunt = Hunt { found, runs: index + 1, seconds };
                let _ = tell.send((scenario, seed, Some(hunt)));
                return;
            }
        }
    });
    wait(budget, &told)
}

type News = (&'static Scenario, u64, Option<Hunt>);

fn wait(budget: Duration, told: &mpsc::Receiver<News>) -> Hunt {
    // The processor may be shared with others.
    let patience = budget.mul_f64(4.0) + Duration::from_secs(20);
    let (mut last, mut runs) = (None, 0);
    let began = Instant::now();
    loop {
        match told.recv_timeout(patience) {
            Ok((.., Some(hunt))) => return hunt,
            Ok((scenario, seed, None)) => {
                last = Some((scenario, seed));
                runs += 1;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let why = "it hangs".to_owned();
                let find = |(scenario, seed)| {
                    let scenario: &Scenario = scenario;
                    Find { scenario: scenario.name, seed, why }
                };
                let found = last.map(find);
                return Hunt { found, runs, seconds: began.elapsed().as_secs_f64() };
            }
        }
    }
}

/// What this thread has had of a processor.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let spent = stat.split_whitespace().next().and_then(|first| first.parse::<u64>().ok());
    spent.map_or(0.0, |nanoseconds| nanoseconds as f64 / 1e9)
}
