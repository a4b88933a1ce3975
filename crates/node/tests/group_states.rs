//! Groups of every shape end with one state: n = 4 and 7, P = 1, 2 and 4, with all replicas and
//! with f backups down from the start.

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, Gateway, Shape, full, until};

/// Puts load on a group of which `down` backups never start; all others must end with the same
/// state, which [`Cluster::bench`] checks.
fn ends_with_one_state(replicas: u16, pillars: u16, down: u16) {
    let millis = if full() { 5_000 } else { 400 };
    let duration = format!("{millis}ms");
    for service in ["echo", "kv"] {
        let cluster = Cluster::start(Shape { replicas, pillars, service }, down);
        let args = ["--duration", &duration, "--warmup", "0", "--outstanding", "128"];
        let result = cluster.bench(&[&args[..], &["--payload", "16"]].concat());
        let compared = &result["digests_compared"];
        assert_eq!(compared["replicas"], replicas - down, "{result}");
        assert!(result["ops"].as_u64().expect("a number") > 0, "{result}");
        assert!(compared["at"].as_u64().expect("a number") > 0, "{result}");
    }
}

#[test]
fn four_replicas() {
    [1, 2, 4].into_iter().for_each(|pillars| ends_with_one_state(4, pillars, 0));
}

#[test]
fn four_replicas_one_down_from_the_start() {
    [1, 2, 4].into_iter().for_each(|pillars| ends_with_one_state(4, pillars, 1));
}

#[test]
fn seven_replicas() {
    [1, 2, 4].into_iter().for_each(|pillars| ends_with_one_state(7, pillars, 0));
}

#[test]
fn seven_replicas_two_down_from_the_start() {
    [1, 2, 4].into_iter().for_each(|pillars| ends_with_one_state(7, pillars, 2));
}

/// A replica that starts late has missed nothing that the others still keep.
#[test]
fn a_late_replica_catches_up() {
    let shape = Shape { replicas: 4, pillars: 2, service: "kv" };
    let mut cluster = Cluster::start(shape, 1);
    let gateway = Gateway::start(&cluster.path());
    let mut redis = gateway.redis();
    for i in 0..20 {
        assert_eq!(redis.call(&format!("SET key:{i} {i}")), "+OK");
    }
    cluster.start_one(3);
    let status = cluster.wait_for_code(0);
    assert_eq!(status["health"], "healthy");
    until("the late replica has executed what the others have", || {
        let (_, status) = cluster.status();
        let lag = &status["replicas"][3]["lag"];
        if *lag == 0 { Ok(()) } else { Err(status.to_string()) }
    });
    cluster.bench(&["--duration", "200ms", "--warmup", "0", "--outstanding", "16"]);
}
