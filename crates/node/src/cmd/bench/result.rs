//! The result of one run or of several.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::config::Config;
use super::cpu::{Disturbance, RoleRow};
use super::digests::{Comparison, Verdict};
use super::traffic::TrafficRow;

/// Everything that came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Operations that ended well per second of measured time.
    pub ops_per_s: f64,
    /// The same for each second of it.
    pub seconds: Vec<u64>,
    /// Latency of operations, in microseconds.
    pub latency_us: Latency,
    /// Processor time per operation, in microseconds.
    pub cpu_us_per_op: CpuPerOp,
    /// The same by process and thread.
    pub cpu: Vec<RoleRow>,
    /// Who else had the processors meanwhile.
    pub disturbance: Disturbance,
    /// Messages and bytes per operation, as the replicas count them.
    pub traffic: Vec<TrafficRow>,
    /// Operations that did not end well, over the whole run.
    pub errors: u64,
    /// The same by cause.
    pub error_causes: BTreeMap<String, u64>,
    /// Open loop: operations that were due and never left, since the clients took no more.
    pub unsent: u64,
    /// Seconds that were measured.
    pub duration_s: f64,
    /// Operations that ended well within them.
    pub ops: u64,
    /// Whether the replicas have the same state afterwards.
    pub digests: Verdict,
    /// How that was found out.
    pub digests_compared: Comparison,
    /// All effective settings.
    pub config: Config,
}

/// All runs. Printed as one JSON object: the run in the middle, with more about all of them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The run in the middle by operations per second; of two, the slower one.
    #[serde(flatten)]
    pub median: Outcome,
    /// The least, the middle and the most of all runs.
    pub summary: Summary,
    /// The runs, in order.
    pub runs: Vec<RunRow>,
}

/// One run in a few figures.
#[derive(Clone, Debug, Serialize)]
pub struct RunRow {
    /// Operations per second.
    pub ops_per_s: f64,
    /// Median latency, in microseconds.
    pub p50_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// Processor time per operation, in microseconds.
    pub cpu_us_per_op: CpuPerOp,
    /// Who else had the processors meanwhile.
    pub disturbance: Disturbance,
    /// Operations that did not end well.
    pub errors: u64,
    /// Whether the replicas had the same state afterwards.
    pub digests: Verdict,
}

/// The least, the middle and the most of several runs, each figure by itself.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Operations per second.
    pub ops_per_s: Spread,
    /// Median latency, in microseconds.
    pub p50_us: Spread,
    /// The 99th percentile.
    pub p99_us: Spread,
    /// Processor time of all replicas per operation, in microseconds.
    pub cpu_replicas_us: Option<Spread>,
    /// Of the load generator.
    pub cpu_clients_us: Option<Spread>,
    /// The share of the processors' time that others had, from 0 to 1.
    pub disturbed: Spread,
}

/// The least, the middle and the most of several figures.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle; of two, their mean.
    pub median: f64,
    /// The most.
    pub max: f64,
}

/// Percentiles of a latency, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
    /// The whole distribution: pairs of a share, ever closer to 1, and the latency that this
    /// share of the operations did not exceed.
    pub distribution: Vec<(f64, u64)>,
}

/// Processor time per operation, in microseconds, from the operating system's accounting.
#[derive(Clone, Debug, Serialize)]
pub struct CpuPerOp {
    /// Of all replicas together; none when they are not processes of this run.
    pub replicas: Option<f64>,
    /// Of the load generator.
    pub clients: Option<f64>,
}

/// Steps of a distribution per halving of what is left of it.
const STEPS_PER_HALVING: u32 = 2;

impl Report {
    /// Puts runs together.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn new(outcomes: Vec<Outcome>) -> Report {
        let runs: Vec<RunRow> = outcomes.iter().map(RunRow::from).collect();
        let summary = Summary::new(&runs);
        let mut outcomes = outcomes;
        outcomes.sort_by(|a, b| a.ops_per_s.total_cmp(&b.ops_per_s));
        let middle = (outcomes.len() - 1) / 2;
        Report { median: outcomes.swap_remove(middle), summary, runs }
    }

    /// The worst of all runs.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let all = || self.runs.iter().map(|run| run.digests);
        let worst = [Verdict::Different, Verdict::Unknown];
        let found = worst.into_iter().find(|bad| all().any(|one| one == *bad));
        found.unwrap_or(Verdict::Equal)
    }

    /// Whether there was a run in which nothing ended well.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.runs.iter().any(|run| run.ops_per_s <= 0.0)
    }
}

impl From<&Outcome> for RunRow {
    fn from(outcome: &Outcome) -> RunRow {
        RunRow {
            ops_per_s: outcome.ops_per_s,
            p50_us: outcome.latency_us.p50,
            p99_us: outcome.latency_us.p99,
            cpu_us_per_op: outcome.cpu_us_per_op.clone(),
            disturbance: outcome.disturbance,
            errors: outcome.errors,
            digests: outcome.digests,
        }
    }
}

impl Summary {
    fn new(runs: &[RunRow]) -> Summary {
        let of = |figure: &dyn Fn(&RunRow) -> Option<f64>| {
            Spread::new(&runs.iter().filter_map(figure).collect::<Vec<f64>>())
        };
        let some = |figure: &dyn Fn(&RunRow) -> f64| {
            of(&|run| Some(figure(run))).expect("there is a run at least")
        };
        Summary {
            ops_per_s: some(&|run| run.ops_per_s),
            p50_us: some(&|run| run.p50_us as f64),
            p99_us: some(&|run| run.p99_us as f64),
            cpu_replicas_us: of(&|run| run.cpu_us_per_op.replicas),
            cpu_clients_us: of(&|run| run.cpu_us_per_op.clients),
            disturbed: some(&|run| run.disturbance.whole()),
        }
    }
}

impl Spread {
    /// Of several figures; none of none.
    #[must_use]
    pub fn new(figures: &[f64]) -> Option<Spread> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Spread { min, median, max })
    }
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Latency {
        let mut distribution: Vec<(f64, u64)> = Vec::new();
        for step in histogram.iter_quantiles(STEPS_PER_HALVING) {
            let share = (step.quantile_iterated_to() * 1e7).round() / 1e7;
            distribution.push((share, step.value_iterated_to()));
        }
        Latency {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            mean: (histogram.mean() * 10.0).round() / 10.0,
            distribution,
        }
    }
}

impl CpuPerOp {
    /// Divides; none where there were no operations.
    #[must_use]
    pub fn new(ops: u64, replicas_us: Option<u64>, clients_us: u64) -> CpuPerOp {
        let per_op =
            |us: u64| (ops > 0).then(|| (us as f64 / ops as f64 * 10_000.0).round() / 10_000.0);
        CpuPerOp { replicas: replicas_us.and_then(per_op), clients: per_op(clients_us) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_figures() {
        let of = |figures: &[f64]| Spread::new(figures);
        assert_eq!(of(&[]), None);
        let spread = |min, median, max| Some(Spread { min, median, max });
        assert_eq!(of(&[3.0]), spread(3.0, 3.0, 3.0));
        assert_eq!(of(&[9.0, 1.0, 2.0]), spread(1.0, 2.0, 9.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]), spread(1.0, 3.0, 9.0));
    }

    #[test]
    fn distributions_end_with_the_longest() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 1_000_000, 3).expect("bounds");
        (1..=1000).for_each(|us| histogram.record(us).expect("within the bounds"));
        let latency = Latency::from(&histogram);
        assert_eq!((latency.p50, latency.max), (500, 1000));
        assert!(latency.distribution.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        let (share, us) = latency.distribution.last().copied().expect("there are steps");
        assert!((share - 1.0).abs() < 1e-9 && us == 1000);
        assert!(latency.distribution.len() < 60);
    }
}
