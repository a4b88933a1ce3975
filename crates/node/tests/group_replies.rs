//! Groups in which not all replicas answer in full, as real processes: with a liar, and with one
//! that is gone.

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, Gateway, Redis, Shape, code, json, run, stderr};

const WAYS: [&str; 4] = ["--replies", "digest", "--repliers", "relieved"];

/// Writes and reads large values, whoever is designated.
fn exchange(redis: &mut Redis, rounds: usize) {
    for round in 0..rounds {
        let value = format!("{round}-").repeat(4_000);
        assert_eq!(redis.call(&format!("SET large {value}")), "+OK");
        assert_eq!(redis.call("GET large"), value);
    }
}

fn group(flags: &[&str]) -> Cluster {
    let shape = Shape { replicas: 4, pillars: 1, service: "kv" };
    let mut cluster = Cluster::found_with(shape, &[flags, &WAYS].concat());
    cluster.flags = vec!["--durability", "memory"];
    (0..3).for_each(|id| cluster.start_one(id));
    cluster
}

#[test]
fn large_values_come_right_although_one_replica_lies() {
    let mut cluster = group(&["--drills"]);
    cluster.flags.extend(["--misbehave", "wrong-reply"]);
    cluster.start_one(3);
    cluster.wait_for_code(0);
    let gateway = Gateway::start(&cluster.path());
    exchange(&mut gateway.redis(), 40);
}

#[test]
fn large_values_come_although_one_replica_is_killed() {
    let mut cluster = group(&[]);
    cluster.start_one(3);
    cluster.wait_for_code(0);
    let gateway = Gateway::start(&cluster.path());
    let mut redis = gateway.redis();
    exchange(&mut redis, 10);
    cluster.kill(2);
    exchange(&mut redis, 40);
}

#[test]
fn the_benchmark_says_how_replicas_answer() {
    for parallelization in ["cop", "top"] {
        let all = ["bench", "--local", "-o", "json", "--duration", "300ms", "--warmup", "0"];
        let large = ["--reply", "4096", "--outstanding", "64"];
        let how = ["--parallelization", parallelization];
        let output = run(&[&all[..], &large, &how, &WAYS].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let result = json(&output);
        assert_eq!((&result["errors"], &result["digests"]), (&0.into(), &"equal".into()));
        let group = &result["config"]["group"];
        assert_eq!((&group["replies"], &group["repliers"]), (&"digest".into(), &"relieved".into()));
    }
}
