//! Replicas as task-oriented pipelines: what is tested of the pillars is tested of them, too,
//! wherever one pillar is enough for it, and that both are the same to each other.

#![allow(clippy::duplicate_mod, reason = "each file of tests brings what it needs")]

mod common;

// In this crate a cluster of one pillar is one of pipelines.
#[path = "group.rs"]
mod group;
#[path = "hostile.rs"]
mod hostile;
#[path = "recovery.rs"]
mod recovery;

use common::Cluster;
use rt::ReplicaState;

/// Half of the replicas are pipelines, the leader of the first view is one, and it dies.
#[test]
fn pipelines_and_pillars_make_a_group_together() {
    let mut options = common::options(4, 1);
    options.settings.view_timeout = base::Span::millis(300);
    let mut cluster = Cluster::prepare(&options, 1);
    let mut sockets = cluster.take_sockets();
    for id in 0..4 {
        cluster.pipelines = id % 2 == 0;
        cluster.start_one(id, sockets[usize::from(id)].take());
    }
    cluster.client(0, 1).open().drive(1, 60, 8);
    cluster.settle(480);
    cluster.stop_one(0);
    cluster.client(0, 2).open().drive(1, 20, 4);
    cluster.agree();
    cluster.wait_for_each("the next view", |report| report.view > 0);
    cluster.pipelines = true;
    cluster.start_one(0, None);
    cluster.agree();
    let reports = cluster.reports();
    assert!(reports.iter().all(|report| report.state == ReplicaState::Running), "{reports:#?}");
    assert_eq!(reports.iter().map(|r| r.links.malformed).sum::<u64>(), 0, "{reports:#?}");
}

/// A client that keeps everything full gets all its answers: what is held back for want of room
/// goes on as soon as there is some.
#[test]
fn every_queue_is_bounded_and_none_is_forgotten() {
    let cluster = Cluster::start(4, 1, 1, &[]);
    let mut clients = [cluster.client(0, 1).open(), cluster.client(1, 1).open()];
    let op = vec![7; 200_000];
    for _ in 0..4 {
        let ids: Vec<_> = clients
            .iter_mut()
            .map(|client| (0..16).map(|_| client.send(0, &[&op])).collect::<Vec<_>>())
            .collect();
        for (client, ids) in clients.iter_mut().zip(ids) {
            ids.into_iter().for_each(|id| drop(client.await_reply(id)));
        }
    }
    cluster.settle(128);
}

#[test]
fn what_a_pipeline_cannot_be_is_refused() {
    let mut cluster = Cluster::prepare(&common::options(4, 2), 1);
    cluster.pipelines = true;
    let told = cluster.try_start(0, None).expect_err("two pillars").to_string();
    assert!(told.contains("one pillar"), "{told}");
    let mut options = common::options(4, 1);
    options.settings.drills = true;
    let mut cluster = Cluster::prepare(&options, 1);
    cluster.drills.insert(0, rt::Drill::Silent);
    let told = cluster.try_start(0, None).expect_err("a drill").to_string();
    assert!(told.contains("drills"), "{told}");
}
