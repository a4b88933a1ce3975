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
    bench_for("500ms", args)
}

/// The same, measured for as long.
fn bench_for(duration: &str, args: &[&str]) -> Value {
    let all = ["bench", "--local", "-o", "json", "--duration", duration, "--warmup", "100ms"];
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
fn what_processes_and_links_cost_is_told_apart() {
    let result = bench(&["--clients", "1", "--outstanding", "256", "--payload", "100"]);
    let roles = result["cpu"].as_array().expect("a list");
    let names: Vec<&str> = roles.iter().filter_map(|row| row["role"].as_str()).collect();
    assert_eq!(names.len(), 5, "{result}");
    assert_eq!(names.iter().filter(|name| name.ends_with(" (leader)")).count(), 1, "{result}");
    let has = |role: &Value, prefix: &str| {
        let threads = role["threads"].as_array().expect("a list");
        threads.iter().any(|row| row["thread"].as_str().expect("a text").starts_with(prefix))
    };
    assert!(has(&roles[0], "pillar-0") && has(&roles[4], "load-0"), "{result}");
    let traffic = result["traffic"].as_array().expect("a list");
    assert_eq!(traffic.len(), 4, "{result}");
    for row in traffic {
        // Every replica gets every operation from its client, and what it carries with it.
        assert!(row["bytes_in"].as_f64().expect("a number") >= 100.0, "{result}");
        assert!(row["ops_per_frame"].as_f64().expect("a number") >= 1.0, "{result}");
    }
}

#[test]
fn several_runs_are_put_together_and_written_to_a_file() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("result.json");
    let path = file.display().to_string();
    let result = bench(&["--runs", "3", "--json", &path, "--outstanding", "16"]);
    let text = std::fs::read_to_string(&file).expect("it was written");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), result);
    let mut rates: Vec<f64> = result["runs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|run| run["ops_per_s"].as_f64().expect("a number"))
        .collect();
    rates.sort_by(f64::total_cmp);
    assert_eq!(rates.len(), 3);
    assert_eq!(result["ops_per_s"].as_f64(), Some(rates[1]));
    let spread = &result["summary"]["ops_per_s"];
    let found = ["min", "median", "max"].map(|figure| spread[figure].as_f64().expect("a number"));
    assert_eq!(found.to_vec(), rates);
}

#[test]
fn idle_clients_stay_connected_and_processors_are_kept_to() {
    let load = ["--idle-clients", "30", "--clients", "3", "--outstanding", "2"];
    let place = ["--replica-cpus", "0", "--client-cpus", "0"];
    let result = bench(&[&load[..], &place].concat());
    let config = &result["config"];
    assert_eq!((&config["clients"], &config["idle_clients"]), (&3.into(), &30.into()));
    assert_eq!(config["machine"]["replica_cpus"], "0");
    assert_eq!(config["machine"]["client_cpus"], "0");
    // All five processes share one processor: together they cannot use more than that.
    let roles = result["cpu"].as_array().expect("a list");
    let percent: f64 = roles.iter().map(|row| row["percent"].as_f64().expect("a number")).sum();
    assert!(percent < 150.0, "{result}");
}

#[test]
fn what_an_overloaded_group_does_not_take_is_late_all_the_same() {
    // Four gigabytes per second, to each of four replicas. The first ones take a while.
    let load = ["--rate", "2000000", "--arrivals", "poisson", "--payload", "2000"];
    let result = bench_for("3s", &[&load[..], &["--clients", "1"]].concat());
    assert_eq!(result["config"]["arrivals"], "poisson");
    let ended = result["ops"].as_u64().expect("a number");
    let unsent = result["unsent"].as_u64().expect("a number");
    assert!(unsent > ended, "{result}");
    // Half of what was due never left in time; its latency is that of the queue, not of the few.
    assert!(result["latency_us"]["p50"].as_u64().expect("a number") > 50_000, "{result}");
}

#[test]
fn more_processors_than_there_are_cannot_be_shared_out() {
    let args = ["bench", "--local", "--cores-per-replica", "1000"];
    let output = run(&args);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("1000 cores for each of 4 replicas"), "{}", stderr(&output));
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

#[test]
fn it_waits_for_a_session_as_long_as_it_is_told_to() {
    let cluster = Cluster::found(Shape { replicas: 4, pillars: 1, service: "kv" });
    let output = run(&["bench", "--config", &cluster.config(), "--connect-timeout", "300ms"]);
    assert_ne!(code(&output), 0, "nobody is there");
    assert!(stderr(&output).contains("within 300ms"), "{}", stderr(&output));
}
