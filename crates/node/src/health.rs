//! A judgement about a group, made of what its replicas say about themselves.
//!
//! | health | when |
//! |---|---|
//! | healthy | all replicas are reachable, take part, keep up and have the same state |
//! | degraded | not so, but a quorum does |
//! | unavailable | anything else |
//!
//! What it is not: proof. Each report is the word of one replica, and so what one of them says
//! speaks against no other one: for that it takes f + 1, of which one is correct.

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
    /// No quorum works.
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
    /// Which.
    #[serde(skip)]
    pub works: Vec<bool>,
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
    let reached = reached(group, answers);
    let mut reasons = Vec::new();
    let mut works = Vec::with_capacity(answers.len());
    for (id, answer) in group.quorums().replicas().zip(answers) {
        let trouble = match answer {
            Err(error) => Some(format!("replica {id} cannot be reached: {error}")),
            Ok(report) => trouble(group, id, report, reached, answers),
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
        if let Some(leader) = lost.filter(|_| working >= needed) {
            reasons.push(format!(
                "replica {leader} leads, and it does not work: the others replace it when a \
                 request waits for it"
            ));
        }
        if working < needed {
            reasons.push(format!("only {working} replicas work; {needed} are needed"));
            let hopeless = |report: &ReplicaReport| report.state == ReplicaState::TooManyForgetful;
            if answers.iter().flatten().any(hopeless) {
                reasons.push(REMEDY.to_owned());
            }
            Health::Unavailable
        } else {
            Health::Degraded
        }
    };
    Verdict { health, reasons, working, works }
}

/// The judgement about a group, made of those about its partitions, of which there is one at least:
/// a replica works when it does in all of them, and the group is as its worst partition.
#[must_use]
pub fn together(partitions: &[Verdict]) -> Verdict {
    let [first, ..] = partitions else { unreachable!("a group has a partition") };
    if partitions.len() == 1 {
        return first.clone();
    }
    let worst = |verdict: &&Verdict| match verdict.health {
        Health::Healthy => 0,
        Health::Degraded => 1,
        Health::Unavailable => 2,
    };
    let health = partitions.iter().max_by_key(worst).map_or(Health::Healthy, |one| one.health);
    let named = |(number, one): (usize, &Verdict)| {
        let why = |reason: &String| format!("partition {number}: {reason}");
        one.reasons.iter().map(why).collect::<Vec<_>>()
    };
    let reasons = partitions.iter().enumerate().flat_map(named).collect();
    let all = |id| partitions.iter().all(|one: &Verdict| one.works.get(id) == Some(&true));
    let works: Vec<bool> = (0..first.works.len()).map(all).collect();
    let working = works.iter().filter(|works| **works).count();
    Verdict { health, reasons, working, works }
}

const RECOVERS: &str = "recovers: it may have forgotten votes, and votes again later";
const FORGOTTEN: &str = "cannot recover by itself: too many others have forgotten their votes, too";
/// What to do about it.
const REMEDY: &str = "nobody can tell any more what was agreed: start the replicas that still \
    know it, or found a new group from a snapshot (`stylite snapshot save` finds the newest one on \
    these disks, `stylite init --from-snapshot` begins with it)";

/// Why a replica does not take part, as far as it knows itself; `None` when it does.
#[must_use]
pub fn unready(report: &ReplicaReport) -> Option<&'static str> {
    match report.state {
        ReplicaState::Running => None,
        ReplicaState::Isolated => Some("is linked to too few others"),
        ReplicaState::Draining => Some("is stopping"),
        ReplicaState::LeftBehind => Some("is so far behind that it needs the state of others"),
        ReplicaState::Diverged => Some("has another state than a quorum and fetches theirs"),
        ReplicaState::Recovering => Some(RECOVERS),
        ReplicaState::Fetching => Some("fetches the state of others"),
        ReplicaState::ChangingView => Some("has left its view and waits for the next one"),
        ReplicaState::TooManyForgetful => Some(FORGOTTEN),
    }
}

/// The number that the group has executed for certain: f + 1 replicas say so, so one of them is
/// correct. Where fewer answer, the lowest of theirs.
#[must_use]
pub fn reached(group: &Group, answers: &[Answer]) -> u64 {
    let mut executed: Vec<u64> = answers.iter().flatten().map(|report| report.executed).collect();
    executed.sort_unstable_by(|one, other| other.cmp(one));
    let weak = executed.get(group.quorums().weak() - 1).or(executed.last());
    weak.copied().unwrap_or(0)
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
    reached: u64,
    answers: &[Answer],
) -> Option<String> {
    if let Some(why) = unready(report) {
        return Some(format!("replica {id} {why}"));
    }
    let (quorums, window) = (group.quorums(), group.settings().window);
    let behind = reached.saturating_sub(report.executed);
    if behind > window {
        return Some(format!("replica {id} is {behind} sequence numbers behind"));
    }
    // A quorum makes every checkpoint stable, and nobody executes more than a window beyond it: a
    // quorum is never as far behind a correct replica as this, unless it has restarted and goes
    // through its logs.
    let executed = answers.iter().flatten().map(|other| other.executed);
    let far = executed.filter(|other| report.executed.saturating_sub(*other) > window);
    let (count, nearest) = far.fold((0, 0), |(count, most), other| (count + 1, most.max(other)));
    if count >= quorums.quorum() {
        let ahead = report.executed - nearest;
        return Some(format!(
            "replica {id} says that it is {ahead} sequence numbers ahead of the others: unless they \
             have just been restarted, no correct replica is"
        ));
    }
    let at = |other: &&ReplicaReport| other.checkpoint.last == report.checkpoint.last;
    let others = answers.iter().flatten().filter(at);
    let (same, all) = others.fold((0, 0), |(same, all), other| {
        let equal = other.checkpoint.last_digest == report.checkpoint.last_digest;
        (same + usize::from(equal), all + 1)
    });
    // Where there is no majority, nobody can say which of them is wrong: all are suspects. Of so
    // many that contradict it one is correct, and fewer may be liars.
    (all - same >= quorums.weak() && same * 2 <= all).then(|| {
        format!("replica {id} has another state than others at {}", report.checkpoint.last)
    })
}

#[cfg(test)]
pub mod tests {
    use genesis::{InitOptions, LocalGroup};

    use super::*;

    /// A replica that takes part.
    pub fn report(id: u16) -> ReplicaReport {
        ReplicaReport {
            id,
            state: ReplicaState::Running,
            view: 0,
            leader: 0,
            executed: 100,
            lag: 0,
            ops: 0,
            sessions: 0,
            checkpoint: rt::report::CheckpointReport::default(),
            pillars: Vec::new(),
            misbehaviour: vec![0; 4],
            links: rt::counters::LinkCounters::default(),
            traffic: rt::counters::TrafficCounters::default(),
            process: rt::report::ProcessReport::default(),
            evidence: Vec::new(),
            suspicions: Vec::new(),
            group: rt::report::GroupReport::default(),
            disk: rt::report::DiskReport::default(),
            transfer: rt::report::TransferRow::default(),
        }
    }

    fn judged(change: impl Fn(&mut [Answer])) -> Verdict {
        let group = LocalGroup::generate(&InitOptions::default()).expect("legal options").group;
        let mut answers: Vec<Answer> = (0..4).map(|id| Ok(report(id))).collect();
        change(&mut answers);
        judge(&group, &answers)
    }

    fn set(answer: &mut Answer, state: ReplicaState) {
        if let Ok(report) = answer {
            report.state = state;
        }
    }

    #[test]
    fn a_group_is_as_healthy_as_its_quorum() {
        assert_eq!(judged(|_| ()).health, Health::Healthy);
        let one = judged(|all| set(&mut all[3], ReplicaState::Recovering));
        assert_eq!((one.health, one.working), (Health::Degraded, 3));
        assert!(one.reasons[0].contains("replica 3 recovers"), "{:?}", one.reasons);
        let two = judged(|all| {
            set(&mut all[3], ReplicaState::Fetching);
            all[2] = Err("gone".to_owned());
        });
        assert_eq!((two.health, two.working), (Health::Unavailable, 2));
    }

    #[test]
    fn one_replica_speaks_against_no_other_one() {
        let lies = |lie: &dyn Fn(&mut ReplicaReport)| {
            judged(|all| {
                for (id, executed, last) in [(0, 1280, 1280), (1, 1409, 1408), (2, 1410, 1408)] {
                    let Ok(report) = &mut all[id] else { unreachable!("all answer") };
                    (report.executed, report.checkpoint.last) = (executed, last);
                    report.checkpoint.last_digest = format!("of {last}");
                }
                let Ok(liar) = &mut all[3] else { unreachable!("all answer") };
                lie(liar);
            })
        };
        let far = lies(&|liar| liar.executed = u64::MAX);
        assert_eq!((far.health, far.works), (Health::Degraded, vec![true, true, true, false]));
        assert!(far.reasons[0].contains("replica 3 says that it is"), "{:?}", far.reasons);
        let other = |liar: &mut ReplicaReport, last: u64| {
            (liar.executed, liar.checkpoint.last) = (last, last);
            liar.checkpoint.last_digest = "another".to_owned();
        };
        // Its word against that of one: nobody can say who is right.
        let one = lies(&|liar| other(liar, 1280));
        assert_eq!((one.health, one.reasons), (Health::Healthy, vec![]));
        let two = lies(&|liar| other(liar, 1408));
        assert_eq!((two.health, two.works), (Health::Degraded, vec![true, true, true, false]));
        assert!(two.reasons[0].contains("replica 3 has another state"), "{:?}", two.reasons);
    }

    #[test]
    fn who_is_behind_is_so_by_the_word_of_a_weak_quorum() {
        let behind = judged(|all| {
            for answer in &mut all[..2] {
                let Ok(report) = answer else { unreachable!("all answer") };
                report.executed = 1_000_000;
            }
        });
        assert_eq!(
            (behind.health, behind.works),
            (Health::Unavailable, vec![true, true, false, false])
        );
        assert!(behind.reasons[0].contains("replica 2 is 999900 sequence numbers behind"));
    }

    #[test]
    fn a_replica_works_when_it_does_in_all_partitions() {
        let down = |id: usize| judged(move |all| all[id] = Err("gone".to_owned()));
        let whole = together(&[judged(|_| ())]);
        assert_eq!((whole.health, whole.working), (Health::Healthy, 4));
        let one = together(&[judged(|_| ()), down(3)]);
        assert_eq!((one.health, one.working), (Health::Degraded, 3));
        assert!(one.reasons[0].starts_with("partition 1: replica 3"), "{:?}", one.reasons);
        let two = together(&[down(2), judged(|_| ()), down(3)]);
        assert_eq!((two.health, two.works), (Health::Degraded, vec![true, true, false, false]));
        let none = judged(|all| all[2..].iter_mut().for_each(|one| *one = Err("gone".to_owned())));
        assert_eq!(together(&[down(2), none]).health, Health::Unavailable);
    }

    #[test]
    fn a_leader_that_does_not_work_is_replaced() {
        let lost = judged(|all| all[0] = Err("gone".to_owned()));
        assert_eq!(lost.health, Health::Degraded);
        assert!(lost.reasons.iter().any(|why| why.contains("others replace it")));
    }

    #[test]
    fn too_many_that_have_forgotten_are_told_what_to_do() {
        let all = judged(|all| {
            all.iter_mut().for_each(|one| set(one, ReplicaState::TooManyForgetful));
        });
        assert_eq!(all.health, Health::Unavailable);
        let told = all.reasons.iter().filter(|why| why.contains("--from-snapshot")).count();
        assert_eq!(told, 1, "{:?}", all.reasons);
    }
}
