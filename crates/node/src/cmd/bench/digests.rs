//! Whether all replicas that can be reached have the same state.
//!
//! States are compared at checkpoints, so the group is moved on to the next one after the load
//! has ended. What it is not: proof; each digest is the word of one replica.

use std::time::{Duration, Instant};

use anyhow::Result;
use client::Client;
use rt::{ReplicaReport, ReplicaState};
use serde::Serialize;

use super::ops;
use crate::probe::Prober;

/// What came of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All reachable replicas have the same state.
    Equal,
    /// Some have another state than others.
    Different,
    /// Some did not come to the checkpoint in time.
    Unknown,
}

/// The comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What came of it.
    pub verdict: Verdict,
    /// The sequence number at which states were compared.
    pub at: u64,
    /// The digest there, when all have the same.
    pub digest: Option<String>,
    /// Replicas that were compared.
    pub replicas: usize,
    /// What is not as it should be, in words.
    pub why: Option<String>,
    /// The same for each partition; empty where there is one, which is then the above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Comparison>,
}

impl Comparison {
    /// The comparisons of all partitions, of which there is one at least: the first that is worst,
    /// and all of them.
    #[must_use]
    pub fn together(mut partitions: Vec<Comparison>) -> Comparison {
        if partitions.len() == 1 {
            return partitions.swap_remove(0);
        }
        let is = |verdict| move |one: &&(usize, &Comparison)| one.1.verdict == verdict;
        let all: Vec<(usize, &Comparison)> = partitions.iter().enumerate().collect();
        let bad = [Verdict::Different, Verdict::Unknown];
        let worst = bad.into_iter().find_map(|verdict| all.iter().find(is(verdict)));
        let (number, worst) = worst.unwrap_or(&all[0]);
        let why = worst.why.as_ref().map(|why| format!("partition {number}: {why}"));
        let replicas = partitions.iter().map(|one| one.replicas).min().unwrap_or(0);
        Comparison { why, replicas, ..(*worst).clone() }.of(partitions)
    }

    fn of(self, partitions: Vec<Comparison>) -> Comparison {
        Comparison { partitions, ..self }
    }
}

/// How long the replicas may take to come to the same checkpoint.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Operations between two looks at the replicas.
const OPS_PER_LOOK: usize = 64;
/// How long to wait between two looks when there is nothing else to do.
const PAUSE: Duration = Duration::from_millis(50);

/// Moves the group on to a checkpoint and compares the replicas there.
///
/// # Errors
/// When the service is none that operations are known for.
pub async fn compare(prober: &Prober, client: &Client) -> Result<Comparison> {
    let op = ops::idle(prober.group().service())?;
    let interval = prober.group().settings().checkpoint_interval;
    let until = Instant::now() + TIMEOUT;
    let mut goal = None;
    loop {
        let answers = prober.all().await;
        let reports: Vec<&ReplicaReport> = answers.iter().flatten().collect();
        let highest = reports.iter().map(|report| report.executed).max().unwrap_or(0);
        let goal = *goal.get_or_insert(highest.max(1).next_multiple_of(interval));
        if let Some(comparison) = judge(&reports, goal) {
            return Ok(comparison);
        }
        if Instant::now() >= until {
            return Ok(unknown(&reports, goal));
        }
        if highest < goal {
            for _ in 0..OPS_PER_LOOK {
                // Whether it works shows in the reports.
                if client.call(0, &op).await.is_err() {
                    break;
                }
            }
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The comparison, once all replicas are at one checkpoint at or beyond `goal`.
fn judge(reports: &[&ReplicaReport], goal: u64) -> Option<Comparison> {
    let halted = reports.iter().find(|report| report.state == ReplicaState::Diverged);
    if let Some(report) = halted {
        let why = format!("replica {} has another state than a quorum and has halted", report.id);
        return Some(different(reports, goal, why));
    }
    let first = reports.first()?;
    let at = first.checkpoint.last;
    if at < goal || reports.iter().any(|report| report.checkpoint.last != at) {
        return None;
    }
    let digest = &first.checkpoint.last_digest;
    let other = reports.iter().find(|report| report.checkpoint.last_digest != *digest);
    if let Some(other) = other {
        let why = format!("replicas {} and {} have different states", first.id, other.id);
        return Some(different(reports, at, why));
    }
    let digest = Some(digest.clone());
    Some(Comparison {
        verdict: Verdict::Equal,
        at,
        digest,
        replicas: reports.len(),
        why: None,
        partitions: Vec::new(),
    })
}

fn different(reports: &[&ReplicaReport], at: u64, why: String) -> Comparison {
    let (verdict, replicas) = (Verdict::Different, reports.len());
    Comparison { verdict, at, digest: None, replicas, why: Some(why), partitions: Vec::new() }
}

fn unknown(reports: &[&ReplicaReport], at: u64) -> Comparison {
    let behind: Vec<String> = reports
        .iter()
        .filter(|report| report.checkpoint.last < at)
        .map(|report| format!("replica {} is at {}", report.id, report.checkpoint.last))
        .collect();
    let why = if reports.is_empty() {
        "no replica can be reached".to_owned()
    } else {
        format!("not all are at checkpoint {at} after {TIMEOUT:?}: {}", behind.join(", "))
    };
    let replicas = reports.len();
    let (verdict, why) = (Verdict::Unknown, Some(why));
    Comparison { verdict, at, digest: None, replicas, why, partitions: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(verdict: Verdict) -> Comparison {
        let why = (verdict != Verdict::Equal).then(|| "why".to_owned());
        Comparison { verdict, at: 7, digest: None, replicas: 4, why, partitions: Vec::new() }
    }

    #[test]
    fn partitions_are_equal_when_all_are() {
        let (equal, unknown) = (of(Verdict::Equal), of(Verdict::Unknown));
        let one = Comparison::together(vec![equal.clone()]);
        assert!(one.partitions.is_empty() && one.verdict == Verdict::Equal);
        let both = Comparison::together(vec![equal.clone(), equal.clone()]);
        assert_eq!((both.verdict, both.partitions.len()), (Verdict::Equal, 2));
        let all = vec![equal, unknown, of(Verdict::Different)];
        let worst = Comparison::together(all.clone());
        assert_eq!(worst.verdict, Verdict::Different);
        assert_eq!(worst.why.as_deref(), Some("partition 2: why"));
        assert_eq!(Comparison::together(all[..2].to_vec()).verdict, Verdict::Unknown);
    }
}
