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
    Some(Comparison { verdict: Verdict::Equal, at, digest, replicas: reports.len(), why: None })
}

fn different(reports: &[&ReplicaReport], at: u64, why: String) -> Comparison {
    let (verdict, replicas) = (Verdict::Different, reports.len());
    Comparison { verdict, at, digest: None, replicas, why: Some(why) }
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
    Comparison { verdict: Verdict::Unknown, at, digest: None, replicas, why: Some(why) }
}
