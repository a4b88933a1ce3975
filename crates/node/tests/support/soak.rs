//! What the long tests share: figures that are written down, memory of processes, and pipelines
//! of Redis commands.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value as Json;

use crate::cluster::Cluster;

/// A group of four with one pillar.
pub const REPLICAS: u16 = 4;

/// Prints a figure, and writes it to the directory for results when there is one.
pub fn write_down(name: &str, figures: &Json) {
    println!("{name}: {figures}");
    if let Some(dir) = std::env::var_os("STYLITE_SOAK_DIR") {
        let path = std::path::Path::new(&dir).join(format!("{name}.json"));
        std::fs::write(&path, format!("{figures:#}\n")).expect("the results can be written");
    }
}

/// Resident memory of a process in KiB, as the kernel counts it; `None` when it has ended.
pub fn rss_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The processes of all replicas.
pub fn pids(cluster: &mut Cluster) -> Vec<u32> {
    (0..REPLICAS).map(|id| cluster.replica(id).pid()).collect()
}

/// A number in a JSON object, by its path.
pub fn number(json: &Json, path: &str) -> u64 {
    let value = json.pointer(path).and_then(Json::as_u64);
    value.unwrap_or_else(|| panic!("no number {path} in {json}"))
}

/// How long the threads of a process were on a core so far, and how long they waited for one, in
/// seconds.
pub fn cpu_s(pid: u32) -> (f64, f64) {
    let (mut ran, mut waited) = (0.0, 0.0);
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let mut ns = text.split_whitespace().map(|word| word.parse().unwrap_or(0.0) / 1e9);
        ran += ns.next().unwrap_or(0.0);
        waited += ns.next().unwrap_or(0.0);
    }
    (ran, waited)
}

/// The reports of all replicas in what `stylite status` says.
pub fn reports(cluster: &Cluster) -> Vec<Json> {
    let (_, status) = cluster.status();
    let rows = status["replicas"].as_array().expect("a list of replicas");
    let reports: Vec<Json> = rows.iter().map(|row| row["report"].clone()).collect();
    assert!(reports.iter().all(Json::is_object), "all replicas answer: {status}");
    reports
}

/// That the replicas that are up have the same state, which the load generator compares.
pub fn assert_one_state(cluster: &Cluster, up: u16) {
    let args = ["--duration", "200ms", "--warmup", "0", "--outstanding", "16", "--keys", "1"];
    let result = cluster.bench(&args);
    assert_eq!(result["digests_compared"]["replicas"], up, "{result}");
}

/// Where a gateway on this machine listens.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Whether `program` can be started. When it cannot, and nothing provides it, the reason to skip
/// is printed.
///
/// # Panics
/// When it cannot, although whoever runs the tests provides it.
pub fn have(program: &str) -> bool {
    let error = match Command::new(program).arg("--version").output() {
        Ok(_) => return true,
        Err(error) => error,
    };
    let required = std::env::var_os("STYLITE_TEST_REQUIRE_PROGRAMS").is_some();
    assert!(!required, "{program} does not start: {error}");
    println!("skipped: {program} does not start: {error}");
    false
}
