//! One server that nobody replicates, as real processes: what it serves and what it refuses.

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, Gateway, Shape, code, json, run, stderr};
use rustix::process::Signal;

/// Founds one and starts it, in memory.
fn server(pillars: u16, service: &'static str) -> Cluster {
    let shape = Shape { replicas: 1, pillars, service };
    let mut cluster = Cluster::found_with(shape, &["--agreement", "none"]);
    cluster.flags = vec!["--durability", "memory"];
    cluster.start_one(0);
    cluster.wait_for_code(0);
    cluster
}

#[test]
fn a_gateway_serves_redis_clients_from_it() {
    let cluster = server(2, "kv");
    let gateway = Gateway::start(&cluster.path());
    let mut redis = gateway.redis();
    assert_eq!(redis.call("SET a 1"), "+OK");
    assert_eq!(redis.call("INCR a"), ":2");
    // What expires needs time to pass on an idle server, too.
    assert_eq!(redis.call("PEXPIRE a 1"), ":1");
    cluster::until("the key expires", || match redis.call("EXISTS a").as_str() {
        ":0" => Ok(()),
        other => Err(other.to_owned()),
    });
    let load = ["--duration", "300ms", "--warmup", "0", "--outstanding", "64"];
    let result = cluster.bench(&load);
    assert_eq!(result["config"]["group"]["agreement"], "none", "{result}");
    assert_eq!(result["digests_compared"]["replicas"], 1, "{result}");
}

#[test]
fn the_benchmark_starts_one() {
    for flags in [&["--service", "echo"][..], &["--service", "kv", "--no-batching"]] {
        let all = ["bench", "--local", "-o", "json", "--duration", "300ms", "--warmup", "0"];
        let none = ["--agreement", "none", "--outstanding", "64"];
        let output = run(&[&all[..], &none, flags].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let result = json(&output);
        assert_eq!((&result["errors"], &result["digests"]), (&0.into(), &"equal".into()));
        let group = &result["config"]["group"];
        assert_eq!((&group["replicas"], &group["agreement"]), (&1.into(), &"none".into()));
    }
}

#[test]
fn what_it_cannot_be_is_refused_with_a_reason() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let path = dir.path().join("group").display().to_string();
    let output = run(&["init", &path, "--replicas", "4", "--agreement", "none"]);
    assert_eq!(code(&output), 2);
    let told = stderr(&output);
    assert!(told.contains("--replicas 4") && told.contains("1 replica"), "{told}");
    // Its default durability would promise what it cannot keep.
    let shape = Shape { replicas: 1, pillars: 1, service: "echo" };
    let cluster = Cluster::found_with(shape, &["--agreement", "none"]);
    let output = cluster.command(0).output().expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("--durability memory"), "{}", stderr(&output));
}

/// Its state is gone, and it must not pretend otherwise.
#[test]
fn it_does_not_start_twice() {
    let mut cluster = server(1, "echo");
    cluster.replica(0).signal(Signal::KILL);
    cluster.replica(0).wait();
    let output = cluster.command(0).args(["--durability", "memory"]).output().expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("nobody to fetch it from"), "{}", stderr(&output));
}
