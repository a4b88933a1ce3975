//! `stylite bench graph`: what the dependency graph of parallel execution costs by itself, on one
//! thread (CBASE §5.1).
//!
//! A number of operations is pending all the time. Each step enters one, hands out the oldest
//! that may execute, and takes it back: an insertion and a removal. Not here: executing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base::Seq;
use exec::{Footprint, Parallelizer};
use serde::Serialize;

use super::cpu;
use super::result::Spread;
use crate::cli::{GraphArgs, Output};
use crate::cmd::{print, print_json};
use crate::exit::Exit;

/// Steps between two looks at the clock.
const STEPS: u64 = 1_000;
/// How long to run before measuring.
const WARMUP: Duration = Duration::from_millis(200);

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    /// The least, the middle and the most of all runs.
    summary: Summary,
    /// What was run.
    config: Config,
}

#[derive(Debug, Serialize)]
struct Summary {
    /// Insertions per second, and as many removals.
    ops_per_s: Spread,
    /// Processor time of an insertion and a removal together, in microseconds.
    cpu_us: Spread,
}

#[derive(Debug, Serialize)]
struct Config {
    pending: u32,
    dependent: u32,
    duration_s: f64,
    runs: u32,
}

/// Operations that go through the graph.
struct Load {
    graph: Parallelizer<u64>,
    footprint: Footprint,
    /// Every so many operations, one depends on the one before.
    dependent: u64,
    inserted: u64,
}

impl Load {
    fn new(args: &GraphArgs) -> Result<Load> {
        let graph = Parallelizer::new(auth::random_u64()?, None);
        let footprint = Footprint::default();
        let mut load = Load { graph, footprint, dependent: args.dependent.into(), inserted: 0 };
        (0..args.pending).for_each(|_| load.insert());
        Ok(load)
    }

    /// Each reads a class and writes a class, which nobody else does unless it depends on the one
    /// before.
    fn insert(&mut self) {
        self.inserted += 1;
        let depends = self.dependent > 0 && self.inserted.is_multiple_of(self.dependent);
        let own = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.footprint.clear();
        self.footprint.reads.push(own(self.inserted) ^ 1);
        self.footprint.writes.push(own(self.inserted - u64::from(depends)));
        self.graph.insert(Seq(1 + self.inserted / 64), &self.footprint, self.inserted);
    }

    fn step(&mut self) {
        self.insert();
        // The oldest is ready always.
        if let Some((ticket, _)) = self.graph.next_request() {
            self.graph.remove_request(ticket);
        }
    }

    /// Steps for so long; how many they were, and how long they took.
    fn run(&mut self, duration: Duration) -> (u64, Duration) {
        let (start, before) = (Instant::now(), self.inserted);
        while start.elapsed() < duration {
            (0..STEPS).for_each(|_| self.step());
        }
        (self.inserted - before, start.elapsed())
    }
}

/// Runs the command.
///
/// # Errors
/// When the result cannot be written.
pub fn run(args: &GraphArgs) -> Result<Exit> {
    let (mut rates, mut times) = (Vec::new(), Vec::new());
    for _ in 0..args.runs {
        let mut load = Load::new(args)?;
        load.run(WARMUP);
        // Others may be at work on this machine; the processor time is ours alone.
        let used = || cpu::used_us(std::process::id());
        let before = used();
        let (steps, took) = load.run(args.duration);
        rates.push(steps as f64 / took.as_secs_f64());
        times.push(used().saturating_sub(before) as f64 / steps as f64);
    }
    let spread = |figures: &[f64]| Spread::new(figures).context("no runs");
    let summary = Summary { ops_per_s: spread(&rates)?, cpu_us: spread(&times)? };
    let (pending, dependent, runs) = (args.pending, args.dependent, args.runs);
    let config = Config { pending, dependent, duration_s: args.duration.as_secs_f64(), runs };
    let outcome = Outcome { summary, config };
    if let Some(path) = &args.json {
        let shown = path.display();
        std::fs::write(path, serde_json::to_string_pretty(&outcome)?)
            .with_context(|| format!("cannot write {shown}"))?;
    }
    match args.output {
        Output::Json => print_json(&outcome)?,
        Output::Table => {
            let Summary { ops_per_s, cpu_us } = &outcome.summary;
            print(&format!(
                "{:.0} insertions and removals per second ({:.0} to {:.0}), {:.3} µs each, with \
                 {pending} pending\n",
                ops_per_s.median, ops_per_s.min, ops_per_s.max, cpu_us.median
            ))?;
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_stay_pending_whatever_depends_on_what() {
        for dependent in [0, 2, 10] {
            let args = GraphArgs {
                pending: 100,
                dependent,
                duration: Duration::ZERO,
                runs: 1,
                output: Output::Table,
                json: None,
            };
            let mut load = Load::new(&args).expect("random numbers");
            (0..10_000).for_each(|_| load.step());
            load.graph.check();
            assert_eq!((load.graph.pending(), load.graph.issued()), (100, 0));
            assert_eq!(load.graph.ready() < 100, dependent > 0, "{dependent}");
        }
    }
}
