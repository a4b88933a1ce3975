//! `stylite status` with everything up, and with ever less of it.

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, Shape, code, run, stdout};
use rustix::process::Signal;

const FOUR: Shape = Shape { replicas: 4, pillars: 1, service: "echo" };

#[test]
fn the_exit_code_follows_the_replicas_that_are_down() {
    let mut cluster = Cluster::start(FOUR, 0);
    let (code, status) = cluster.status();
    assert_eq!((code, &status["health"]), (0, &"healthy".into()));
    let rows = status["replicas"].as_array().expect("a list");
    assert_eq!(rows.len(), 4);
    for row in rows {
        for field in [
            "state",
            "view",
            "leader",
            "last_executed",
            "stable_checkpoint",
            "lag",
            "digest",
            "connections",
            "suspicions",
            "evidence",
        ] {
            assert!(!row[field].is_null(), "{field}: {row}");
        }
        assert_eq!(row["state"], "running");
    }
    cluster.kill(3);
    let status = cluster.wait_for_code(3);
    assert_eq!(status["health"], "degraded");
    assert_eq!(status["replicas"][3]["reachable"], false);
    cluster.bench(&["--duration", "200ms", "--warmup", "0", "--outstanding", "16"]);
    cluster.kill(2);
    let status = cluster.wait_for_code(4);
    assert_eq!(status["health"], "unavailable");
    assert_eq!(status["replicas_needed"], 3);
}

#[test]
fn a_group_without_its_leader_is_degraded_and_says_what_follows() {
    let mut cluster = Cluster::start(FOUR, 0);
    cluster.kill(0);
    let status = cluster.wait_for_code(3);
    let reasons = status["reasons"].to_string();
    assert!(reasons.contains("replica 0 leads"), "{reasons}");
    assert!(reasons.contains("the others replace it"), "{reasons}");
    // A request has to wait for it before anybody does.
    cluster.bench(&["--duration", "200ms", "--warmup", "0", "--outstanding", "16"]);
    let status = cluster.wait_for_code(3);
    assert_ne!(status["replicas"][1]["leader"], 0, "{status}");
    assert!(!status["reasons"].to_string().contains("leads"), "{status}");
}

#[test]
fn the_table_has_a_row_per_replica() {
    let cluster = Cluster::start(FOUR, 1);
    cluster.bench(&["--duration", "200ms", "--warmup", "0", "--outstanding", "16"]);
    let output = run(&["status", "--config", &cluster.config()]);
    assert_eq!(code(&output), 3);
    let table = stdout(&output);
    let heads: Vec<&str> = table.lines().next().expect("a head").split_whitespace().collect();
    assert_eq!(
        heads[..8],
        ["REPLICA", "STATE", "VIEW", "LEADER", "EXECUTED", "STABLE", "LAG", "DIGEST"]
    );
    let rows: Vec<Vec<&str>> =
        table.lines().skip(1).take(4).map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[3][..2], ["3", "unreachable"]);
    let digest = rows[0][7];
    assert!(!digest.starts_with("000000000000@"), "{digest}: there was a checkpoint");
    assert!(rows[..3].iter().all(|row| row[1] == "running" && row[7] == digest), "{table}");
    assert!(table.contains("degraded: 3 of 4 replicas work"), "{table}");
}

#[test]
fn a_second_signal_ends_a_replica_at_once_or_the_first_one_in_order() {
    let mut cluster = Cluster::start(FOUR, 0);
    cluster.replica(3).signal(Signal::TERM);
    cluster.replica(3).signal(Signal::INT);
    // Whether the second one comes in time to be the end of it is up to the scheduler.
    let ended = cluster.replica(3).wait().code();
    assert!(matches!(ended, Some(0 | 130 | 143)), "{ended:?}");
    cluster.replica(2).signal(Signal::TERM);
    assert_eq!(cluster.replica(2).wait().code(), Some(0), "{}", cluster.log(2));
}
