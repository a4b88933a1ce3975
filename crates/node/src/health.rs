//! A judgement about a group, made of what its replicas say about themselves.
//!
//! | health | when |
//! |---|---|
//! | healthy | all replicas are reachable, take part, keep up and have the same state |
//! | degraded | not so, but a quorum does, and the leader is among it |
//! | unavailable | anything else |
//!
//! What it is not: proof. Each report is the word of one replica.

use base::ReplicaId;
use genesis::Group;
use rt::{ReplicaReport, ReplicaState};
use serde::Serialize;

use crate::exit::Exit;
use crate::probe::Answer;

/// How a group is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Everything works.
    Healthy,
    /// A quorum works.
    Degraded,
    /// No quorum works, or the leader does not.
    Unavailable,
}

/// The judgement, with its reasons.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verdict {
    /// How the group is.
    pub health: Health,
    /// What is not as it should be, in words. Empty when healthy.
    pub reasons: Vec<String>,
    /// How many replicas work.
    pub working: usize,
}

impl Health {
    /// The exit code of `stylite status`.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Health::Healthy => Exit::Ok,
            Health::Degraded => Exit::Degraded,
            Health::Unavailable => Exit::Unavailable,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Unavailable => "unavailable",
        }
    }
}

/// Judges a group by its replicas' answers, which are in the order of their numbers.
#[must_use]
pub fn judge(group: &Group, answers: &[Answer]) -> Verdict {
    let highest = highest_executed(answers);
    let mut reasons = Vec::new();
    let mut works = Vec::with_capacity(answers.len());
    for (id, answer) in group.quorums().replicas().zip(answers) {
        let trouble = match answer {
            Err(error) => Some(format!("replica {id} cannot be reached: {error}")),
            Ok(report) => trouble(group, id, report, highest, answers),
        };
        works.push(trouble.is_none());
        reasons.extend(trouble);
    }
    let working = works.iter().filter(|works| **works).count();
    let needed = group.quorums().quorum();
    let health = if working == answers.len() {
        Health::Healthy
    } else {
        let lost = leader(answers).filter(|at| !works[usize::from(at.0)]);
        if let Some(leader) = lost {
            reasons.push(format!(
                "replica {leader} leads, and it does not work; this version cannot elect \
                 another: found a new group"
            ));
        }
        if working < needed {
            reasons.push(format!("only {working} replicas work; {needed} are needed"));
        }
        if lost.is_some() || working < needed { Health::Unavailable } else { Health::Degraded }
    };
    Verdict { health, reasons, working }
}

/// The highest number that any replica has executed.
#[must_use]
pub fn highest_executed(answers: &[Answer]) -> u64 {
    answers.iter().flatten().map(|report| report.executed).max().unwrap_or(0)
}

/// The leader that most replicas name.
fn leader(answers: &[Answer]) -> Option<ReplicaId> {
    let named = |id: u16| answers.iter().flatten().filter(|report| report.leader == id).count();
    let n = u16::try_from(answers.len()).unwrap_or(u16::MAX);
    let most = (0..n).max_by_key(|id| named(*id))?;
    (named(most) > 0).then_some(ReplicaId(most))
}

/// What is wrong with one replica.
fn trouble(
    group: &Group,
    id: ReplicaId,
    report: &ReplicaReport,
    highest: u64,
    answers: &[Answer],
) -> Option<String> {
    let why = match report.state {
        ReplicaState::Running => None,
        ReplicaState::Isolated => Some("is linked to too few others"),
        ReplicaState::Draining => Some("is stopping"),
        ReplicaState::LeftBehind => Some("is so far behind that it needs the state of others"),
        ReplicaState::Diverged => Some("has another state than a quorum and has halted"),
    };
    if let Some(why) = why {
        return Some(format!("replica {id} {why}"));
    }
    let behind = highest.saturating_sub(report.executed);
    if behind > group.settings().window {
        return Some(format!("replica {id} is {behind} sequence numbers behind"));
    }
    let at = |other: &&ReplicaReport| other.checkpoint.last == report.checkpoint.last;
    let others = answers.iter().flatten().filter(at);
    let (same, all) = others.fold((0, 0), |(same, all), other| {
        let equal = other.checkpoint.last_digest == report.checkpoint.last_digest;
        (same + usize::from(equal), all + 1)
    });
    // Where there is no majority, nobody can say which of them is wrong: all are suspects.
    (same * 2 <= all).then(|| {
        format!("replica {id} has another state than others at {}", report.checkpoint.last)
    })
}
