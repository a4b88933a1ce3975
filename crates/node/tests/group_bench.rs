//! `stylite bench`: what it prints, closed and open loop, and that nothing is left behind.

#[path = "support/cluster.rs"]
mod cluster;

use std::process::Stdio;

use cluster::{Cluster, Process, Shape, code, json, run, stderr, stylite, until};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Runs `stylite bench --local -o json` shortly and checks what all runs have in common.
fn bench(args: &[&str]) -> Value {
    let all = ["bench", "--local", "-o", "json", "--duration", "500ms", "--warmup", "100ms"];
    let output = run(&[&all[..], args].concat());
    assert_eq!(code(&output), 0, "{args:?}: {} {}", cluster::stdout(&output), stderr(&output));
    let result = json(&output);
    assert!(result["ops_per_s"].as_f64().expect("a number") > 0.0, "{result}");
    for percentile in ["p50", "p90", "p99", "p999", "max"] {
        assert!(result["latency_us"][percentile].as_u64().expect("a number") > 0, "{result}");
    }
    for party in ["replicas", "clients"] {
        assert!(result["cpu_us_per_op"][party].is_number(), "{result}");
    }
    assert_eq!(result["errors"], 0, "{result}");
    assert!(result["duration_s"].as_f64().expect("a number") >= 0.5, "{result}");
    assert_eq!(result["digests"], "equal", "{result}");
    let digest = result["digests_compared"]["digest"].as_str().expect("a text");
    assert!(digest.len() == 64 && digest.bytes().any(|byte| byte != b'0'), "{result}");
    result
}

#[test]
fn a_closed_loop_has_all_fields_and_equal_digests() {
    let result = bench(&["--clients", "2", "--outstanding", "64", "--reply", "8"]);
    let config = &result["config"];
    assert_eq!(config["mode"], "closed");
    assert_eq!((&config["clients"], &config["outstanding"]), (&2.into(), &64.into()));
    assert_eq!(config["reply"], 8);
    let group = &config["group"];
    assert_eq!((&group["replicas"], &group["faults"]), (&4.into(), &1.into()));
    assert_eq!((&group["service"], &group["durability"]), (&"echo".into(), &"memory".into()));
    assert_eq!(group["batching"], true);
    assert_eq!(result["digests_compared"]["replicas"], 4);
}

#[test]
fn an_open_loop_keeps_its_rate_in_mind() {
    let result = bench(&["--rate", "2000", "--payload", "100"]);
    assert_eq!(result["config"]["mode"], "open");
    assert_eq!(result["config"]["rate"], 2000);
    assert_eq!(result["config"]["outstanding"], Value::Null);
    // Every operation that was due in the measured time is in the distribution, however late.
    assert!(result["ops"].as_u64().expect("a number") <= 1300, "{result}");
}

#[test]
fn without_batching_and_with_several_pillars() {
    let result = bench(&["--no-batching", "--outstanding", "4", "--pillars", "2"]);
    assert_eq!(result["config"]["group"]["batching"], false);
    assert_eq!(result["config"]["client_batching"], false);
    assert_eq!(result["config"]["group"]["pillars"], 2);
}

#[test]
fn the_key_value_service_is_written_to() {
    let result = bench(&["--service", "kv", "--payload", "10", "--keys", "50", "--clients", "3"]);
    assert_eq!(result["config"]["group"]["service"], "kv");
    assert_eq!(result["config"]["keys"], 50);
    assert_eq!(result["config"]["clients"], 3);
}

#[test]
fn the_keys_written_to_a_group_of_others_are_deleted() {
    let cluster = Cluster::start(Shape { replicas: 4, pillars: 1, service: "kv" }, 0);
    let load = ["--duration", "200ms", "--warmup", "0", "--outstanding", "16", "--keys", "700"];
    let result = cluster.bench(&load);
    assert_eq!(result["config"]["keys_left"], false, "{result}");
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let scratch = TempDir::new().expect("a temporary directory");
    let mut command = stylite();
    command.args(["bench", "--local", "--duration", "1h"]).env("TMPDIR", scratch.path());
    let mut process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let entries = || std::fs::read_dir(scratch.path()).expect("it is there").count();
    until("the group is founded", || if entries() == 1 { Ok(()) } else { Err(String::new()) });
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(130));
    assert_eq!(entries(), 0);
}
