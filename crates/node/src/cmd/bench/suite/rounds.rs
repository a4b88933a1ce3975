//! The runs of one point, put together.
//!
//! What is compared takes turns: in each round every series of an experiment has one run at a
//! place of the axis. So what else goes on on the machine, for seconds or for minutes, falls on all
//! of them. Not here: how a run is made (`job`), and what is shown of it (`report`).

use serde_json::{Value, json};

use super::job::End;
use crate::cmd::bench::result::Spread;

/// What came of a point so far.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    results: Vec<Value>,
    /// Why there are no more.
    ended: Option<End>,
}

impl Rounds {
    /// Takes what came of a run.
    pub fn add(&mut self, end: End) {
        match end {
            End::Result(result) => self.results.push(result),
            other => self.ended = Some(other),
        }
    }

    /// Whether to run it again is of no use: it cannot be run, or has failed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// What came of all runs: of results the one in the middle by operations per second, with the
    /// figures of all. None when there was no run.
    #[must_use]
    pub fn end(self) -> Option<End> {
        self.ended.or_else(|| together(self.results).map(End::Result))
    }
}

/// The result in the middle, of two the slower one, with the summary and the runs of all.
fn together(mut results: Vec<Value>) -> Option<Value> {
    let runs: Vec<Value> =
        results.iter().filter_map(|one| one["runs"].as_array()).flatten().cloned().collect();
    let rate = |one: &Value| one["summary"]["ops_per_s"]["median"].as_f64().unwrap_or(0.0);
    let keys = |one: &Value| one["summary"].as_object().map(|all| all.keys().cloned().collect());
    let keys: Vec<String> = results.first().and_then(keys).unwrap_or_default();
    let summary: serde_json::Map<String, Value> = keys
        .into_iter()
        .map(|key| {
            let figure = |one: &Value| one["summary"][&key]["median"].as_f64();
            let spread = Spread::new(&results.iter().filter_map(figure).collect::<Vec<f64>>());
            (key, json!(spread))
        })
        .collect();
    results.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    let middle = results.len().checked_sub(1)? / 2;
    let mut result = results.swap_remove(middle);
    result["summary"] = summary.into();
    if !runs.is_empty() {
        result["runs"] = runs.into();
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64, p50: f64) -> End {
        let one = |figure: f64| json!({ "min": figure, "median": figure, "max": figure });
        End::Result(json!({
            "ops_per_s": rate,
            "summary": { "ops_per_s": one(rate), "p50_us": one(p50), "cpu_clients_us": null },
            "runs": [{ "ops_per_s": rate }],
        }))
    }

    #[test]
    fn the_run_in_the_middle_stands_for_all_with_the_figures_of_all() {
        let mut rounds = Rounds::default();
        for (rate, p50) in [(3.0, 10.0), (1.0, 30.0), (2.0, 5.0)] {
            rounds.add(run(rate, p50));
        }
        assert!(!rounds.is_over());
        let Some(End::Result(result)) = rounds.end() else { panic!("a result") };
        assert_eq!(result["ops_per_s"], 2.0);
        assert_eq!(
            result["summary"]["ops_per_s"],
            json!({ "min": 1.0, "median": 2.0, "max": 3.0 })
        );
        assert_eq!(result["summary"]["p50_us"], json!({ "min": 5.0, "median": 10.0, "max": 30.0 }));
        assert_eq!(result["summary"]["cpu_clients_us"], Value::Null);
        let rates = result["runs"].as_array().expect("runs").iter().map(|run| &run["ops_per_s"]);
        assert!(rates.eq([3.0, 1.0, 2.0].iter()), "in order: {result}");
    }

    #[test]
    fn a_point_that_failed_once_has_failed() {
        let mut rounds = Rounds::default();
        rounds.add(run(1.0, 1.0));
        rounds.add(End::Failed("why".to_owned()));
        assert!(rounds.is_over());
        assert!(matches!(rounds.end(), Some(End::Failed(why)) if why == "why"));
        assert!(Rounds::default().end().is_none());
    }
}
