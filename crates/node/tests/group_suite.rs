//! `stylite bench suite` and `stylite bench baseline`: what they write, also when interrupted.

#[path = "support/cluster.rs"]
mod cluster;

use std::process::Stdio;

use cluster::{Process, code, json, run, stderr, stdout, stylite, until};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn experiments_are_listed_and_unknown_ones_refused() {
    let listed = stdout(&run(&["bench", "suite", "--list"]));
    for name in ["cop-5-batched", "cop-6-1024", "cop-8", "bft-clients-4-0", "durability", "redis"] {
        assert!(listed.lines().any(|line| line.starts_with(name)), "{name}: {listed}");
    }
    let output = run(&["bench", "suite", "--only", "cop-5,durablity", "--list"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no experiment `durablity`"), "{}", stderr(&output));
}

#[test]
fn a_suite_writes_plots_raw_results_and_what_it_skipped() {
    let dir = TempDir::new().expect("a temporary directory");
    let out = dir.path().join("report");
    let out_text = out.display().to_string();
    let only = ["--only", "authentication", "--seconds", "1", "--runs", "1"];
    let output = run(&[&["bench", "suite", "--out", &out_text][..], &only].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let html = std::fs::read_to_string(out.join("report.html")).expect("written");
    assert!(html.contains("<svg") && html.contains("<circle"), "{html}");
    assert!(html.contains("there is no switch") && !html.contains("<script"), "{html}");
    let raw = std::fs::read_to_string(out.join("results.json")).expect("written");
    let raw: Value = serde_json::from_str(&raw).expect("JSON");
    assert_eq!(raw["interrupted"], false);
    let series = &raw["experiments"][0]["series"];
    let points = series[0]["points"].as_array().expect("a list");
    assert_eq!(points.len(), 3, "{raw}");
    for point in points {
        let result = &point["result"];
        assert!(result["summary"]["ops_per_s"]["median"].as_f64() > Some(0.0), "{point}");
        assert_eq!(result["digests"], "equal", "{point}");
        let command = point["command"].as_str().expect("a text");
        assert!(command.starts_with("stylite bench --local "), "{command}");
    }
    assert!(series[1]["points"][0]["skipped"].is_string(), "{raw}");
    let files = std::fs::read_dir(&out).expect("it is there").count();
    assert_eq!(files, 2, "nothing else is left");
}

#[test]
fn an_interrupted_suite_writes_what_it_has() {
    let dir = TempDir::new().expect("a temporary directory");
    let out = dir.path().join("report");
    let mut command = stylite();
    command.args(["bench", "suite", "--only", "durability", "--seconds", "3600", "--out"]);
    command.arg(&out).env("TMPDIR", dir.path());
    let mut process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    // The directory of the report, and that of the group under load.
    let entries = || std::fs::read_dir(dir.path()).expect("it is there").count();
    until("the first point runs", || if entries() == 2 { Ok(()) } else { Err(String::new()) });
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(130));
    assert_eq!(entries(), 1, "the group is gone");
    let raw = std::fs::read_to_string(out.join("results.json")).expect("written");
    let raw: Value = serde_json::from_str(&raw).expect("JSON");
    assert_eq!(raw["interrupted"], true);
    assert!(raw["experiments"][0]["series"][0]["points"][0]["skipped"].is_string(), "{raw}");
}

#[test]
fn a_plain_program_moves_bytes_and_small_messages() {
    let load = ["--payload", "100", "--reply", "50", "--duration", "200ms", "--warmup", "50ms"];
    let result =
        json(&run(&[&["bench", "baseline", "--runs", "2", "-o", "json"][..], &load].concat()));
    let summary = &result["summary"];
    for figure in ["ops_per_s", "cpu_us", "one_way_us", "one_way_p99_us"] {
        assert!(summary[figure]["median"].as_f64() > Some(0.0), "{figure}: {result}");
    }
    assert_eq!(result["runs"].as_array().map(Vec::len), Some(2));
    // 150 bytes to and from each of four servers.
    let rate = summary["ops_per_s"]["median"].as_f64().expect("a number");
    let bytes = result["bytes_per_s"].as_f64().expect("a number");
    assert!((bytes / rate - 600.0).abs() < 1e-6, "{result}");
}
