//! Replicas as task-oriented pipelines, as real processes: the gateway and the benchmark do not
//! tell the difference, and neither do other replicas.

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, Gateway, Shape, code, json, run, stderr};
use rustix::process::Signal;

const TOP: [&str; 2] = ["--parallelization", "top"];

fn start(service: &'static str) -> Cluster {
    let mut cluster = Cluster::found(Shape { replicas: 4, pillars: 1, service });
    cluster.flags = TOP.to_vec();
    (0..4).for_each(|id| cluster.start_one(id));
    cluster.wait_for_code(0);
    cluster
}

#[test]
fn a_gateway_serves_redis_clients_while_replicas_die() {
    let mut cluster = start("kv");
    let gateway = Gateway::start(&cluster.path());
    let mut redis = gateway.redis();
    assert_eq!(redis.call("SET a 1"), "+OK");
    cluster.replica(3).signal(Signal::KILL);
    assert_eq!(redis.call("INCR a"), ":2");
    cluster.start_one(3);
    cluster.wait_for_code(0);
    // The leader: another one takes over, and whoever comes back is a replica by pillars.
    cluster.replica(0).signal(Signal::KILL);
    assert_eq!(redis.call("INCR a"), ":3");
    cluster.flags.clear();
    cluster.start_one(0);
    let status = cluster.wait_for_code(0);
    assert_ne!(status["replicas"][0]["view"], 0, "{status}");
    let load = ["--duration", "300ms", "--warmup", "0", "--outstanding", "64"];
    assert_eq!(cluster.bench(&load)["digests_compared"]["replicas"], 4);
}

#[test]
fn the_benchmark_tells_what_each_stage_costs() {
    let load = ["--duration", "500ms", "--warmup", "100ms", "--outstanding", "64"];
    for more in [&["--service", "echo"][..], &["--service", "kv", "--no-batching"]] {
        let all = ["bench", "--local", "-o", "json"];
        let output = run(&[&all[..], &TOP, &load, more].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let result = json(&output);
        assert_eq!((&result["errors"], &result["digests"]), (&0.into(), &"equal".into()));
        assert_eq!(result["config"]["group"]["parallelization"], "top", "{result}");
        let told = result.to_string();
        let stages = ["clients", "peers", "auth-0", "logic", "exec", "replies"];
        for stage in stages.map(|stage| format!("\"top-{stage}\"")) {
            assert!(told.contains(&stage), "{stage}: {told}");
        }
    }
}

/// The same server without agreement, as a pipeline.
#[test]
fn a_server_without_agreement_may_be_one() {
    let all = ["bench", "--local", "-o", "json", "--agreement", "none", "--duration", "300ms"];
    let output = run(&[&all[..], &TOP, &["--warmup", "0", "--outstanding", "64"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(json(&output)["errors"], 0);
}

#[test]
fn what_it_cannot_be_is_refused_with_a_reason() {
    let cluster = Cluster::found(Shape { replicas: 4, pillars: 2, service: "echo" });
    let output = cluster.command(0).args(TOP).output().expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("one pillar"), "{}", stderr(&output));
    let cluster = Cluster::found(Shape { replicas: 4, pillars: 1, service: "echo" });
    let output = cluster.command(0).args(TOP).args(["--threads", "5"]).output();
    let output = output.expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("at least 6"), "{}", stderr(&output));
}
