//! One replica misbehaves to order; clients get right answers all the same, and nobody accuses a
//! correct replica.

mod common;

use common::{Cluster, options};
use rt::{Drill, ReplicaReport};

/// Clients are served while `culprit` misbehaves, until the others see what they are to see.
fn under(drill: Drill, culprit: u16, seen: impl Fn(&ReplicaReport) -> bool) {
    let mut options = options(4, 2);
    options.settings.view_timeout = base::Span::millis(300);
    options.settings.window = 128;
    options.settings.drills = true;
    let mut cluster = Cluster::prepare(&options, 1);
    cluster.drills.insert(culprit, drill);
    cluster.start_all(&[]);
    for session in 1..=3 {
        cluster.client(0, session).open().drive(2, 40, 4);
    }
    cluster.agree();
    cluster.wait("what is to be seen", |reports| {
        let others = || reports.iter().filter(|report| report.id != culprit);
        for report in others() {
            assert!(report.evidence.iter().all(|row| row.accused == culprit), "{report:#?}");
        }
        others().all(&seen)
    });
}

/// Nothing in particular.
fn whatever(_: &ReplicaReport) -> bool {
    true
}

fn another_view(report: &ReplicaReport) -> bool {
    report.view > 0
}

fn proof(kind: &str) -> impl Fn(&ReplicaReport) -> bool {
    move |report| report.evidence.iter().any(|row| row.kind == kind)
}

#[test]
fn a_silent_leader_is_replaced() {
    under(Drill::Silent, 0, another_view);
}

#[test]
fn wrong_replies_convince_no_client() {
    under(Drill::WrongReply, 2, whatever);
}

#[test]
fn a_state_that_goes_wrong_by_itself_disturbs_nobody_else() {
    under(Drill::CorruptState, 2, whatever);
}

#[test]
fn a_leader_that_says_different_things_to_different_backups_is_replaced() {
    under(Drill::Equivocate, 0, another_view);
}

#[test]
fn a_slow_leader_answers_rightly() {
    under(Drill::SlowLeader(None), 0, whatever);
    under(Drill::SlowLeader(Some(base::Span::millis(20))), 0, whatever);
}

#[test]
fn a_leader_that_starves_one_replica_starves_nobody_else() {
    under(Drill::StarveReplica(base::ReplicaId(2)), 0, whatever);
}

#[test]
fn a_leader_that_hears_one_client_not_at_all_is_replaced() {
    under(Drill::StarveClient(base::ClientId(0)), 0, another_view);
}

#[test]
fn a_leader_that_starves_one_pillar_is_replaced() {
    under(Drill::StarvePillar(base::PillarId(1)), 0, another_view);
}

#[test]
fn a_storm_of_wishes_for_views_changes_none() {
    under(Drill::ViewStorm, 3, |report| report.view == 0);
}

#[test]
fn garbage_harms_nobody_and_tells_whose_it_is() {
    under(Drill::Garbage, 3, |report| {
        let mut rows = report.suspicions.iter();
        rows.any(|row| row.accused == 3 && row.kind == "garbage") && report.misbehaviour[3] > 0
    });
}

#[test]
fn forgotten_votes_of_one_replica_are_borne() {
    under(Drill::Forget, 3, whatever);
}

#[test]
fn forged_view_changes_change_no_view_and_prove_who_forged_them() {
    under(Drill::ForgedViewChange, 3, proof("bad-view-change"));
}

#[test]
fn a_wrong_checkpoint_is_proved() {
    under(Drill::WrongCheckpoint, 3, proof("wrong-checkpoint"));
}

/// The replica that comes back needs a checkpoint of the others, one of whom lies about it.
#[test]
fn a_source_that_lies_costs_only_time() {
    let mut options = options(4, 2);
    options.settings.view_timeout = base::Span::millis(300);
    options.settings.window = 64;
    options.settings.drills = true;
    let mut cluster = Cluster::prepare(&options, 1);
    cluster.drills.insert(1, Drill::LyingSource);
    cluster.start_all(&[]);
    cluster.client(0, 1).open().drive(2, 40, 4);
    cluster.kill_one(3);
    cluster.client(0, 2).open().drive(2, 200, 4);
    cluster.start_one(3, None);
    cluster.client(0, 3).open().drive(2, 40, 4);
    cluster.agree();
    let fetched = cluster.reports()[3].transfer.fetched_objects;
    assert!(fetched > 0, "it was out of reach of the others' logs");
}

#[test]
fn nobody_misbehaves_in_a_group_that_was_not_founded_for_it() {
    let mut cluster = Cluster::prepare(&options(4, 1), 1);
    cluster.drills.insert(0, Drill::Silent);
    assert!(matches!(cluster.try_start(0, None), Err(rt::StartError::Options(_))));
}
