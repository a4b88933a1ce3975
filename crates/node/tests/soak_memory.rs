//! Memory under full load: after a while, replicas and clients take no more of it.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cluster::{Cluster, Process, Shape, full, stylite};
use serde_json::{Value, json};
use soak::{REPLICAS, number};

const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// What memory may grow by between two thirds of the time, in KiB: a tenth, and this.
const SLACK_KIB: u64 = 32 << 10;
/// Checkpoints after which memory is looked at: the window is four intervals, so from then on
/// logs are as full as they get.
const WARM_AFTER: u64 = 5;

/// Runs the load and samples the memory of every replica and of the load generator, which comes
/// last, in KiB. Returns the load generator's result and one series per process.
fn sample(cluster: &mut Cluster, args: &[&str]) -> (Value, Vec<Vec<u64>>) {
    let mut command = stylite();
    command.args(["bench", "--config", &cluster.config(), "-o", "json", "--warmup", "0"]);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut load = Process::spawn(&mut command);
    let mut pids = soak::pids(cluster);
    pids.push(load.pid());
    let mut series = vec![Vec::new(); pids.len()];
    let began = Instant::now();
    for tick in 1.. {
        // Sampled at fixed times, so that slow samples do not make them fewer.
        std::thread::sleep((began + SAMPLE_EVERY * tick).saturating_duration_since(Instant::now()));
        if load.0.try_wait().expect("a child").is_some() {
            break;
        }
        for (pid, series) in pids.iter().zip(&mut series) {
            // The load generator may end between two looks.
            series.extend(soak::rss_kib(*pid));
        }
    }
    let (mut out, mut text) = (load.0.stdout.take().expect("piped"), String::new());
    out.read_to_string(&mut text).expect("text");
    assert!(load.wait().success(), "{text}");
    (serde_json::from_str(&text).expect("one object"), series)
}

/// That the last third of a series is no higher than the second.
fn assert_flat(who: &str, series: &[u64]) {
    let third = series.len() / 3;
    assert!(third > 1, "too few samples of {who}: {series:?}");
    let highest = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    let (second, last) = (highest(&series[third..2 * third]), highest(&series[2 * third..]));
    assert!(second > 0, "no memory was seen of {who}: {series:?}");
    let bound = second + second / 10 + SLACK_KIB;
    assert!(last <= bound, "{who} grows: {last} KiB after {second} KiB: {series:?}");
}

/// Puts full load on a group for a while.
fn memory_stays_flat(service: &'static str, load: &[&str]) {
    let seconds: u64 = if full() { 1_800 } else { 12 };
    let shape = Shape { replicas: REPLICAS, pillars: 1, service };
    let mut cluster = Cluster::start(shape, 0);
    // By progress and not by time: a slow machine takes longer to fill its logs.
    let cold = |report: &Value| number(report, "/checkpoint/count") < WARM_AFTER;
    while soak::reports(&cluster).iter().any(cold) {
        cluster.bench(&[&["--duration", "1s", "--warmup", "0"], load].concat());
    }
    let duration = format!("{seconds}s");
    let (result, series) = sample(&mut cluster, &[&["--duration", &duration], load].concat());
    assert_eq!(result["errors"], 0, "{result}");
    assert_eq!(result["digests"], "equal", "{result}");
    soak::write_down(
        &format!("memory-{service}"),
        &json!({
            "ops": number(&result, "/ops"),
            "ops_per_s": result["ops_per_s"],
            "replicas_rss_kib": series[..series.len() - 1],
            "load_generator_rss_kib": series[series.len() - 1],
        }),
    );
    for (id, series) in series.iter().enumerate() {
        let who = match id {
            id if id < usize::from(REPLICAS) => format!("replica {id}"),
            _ => "the load generator".to_owned(),
        };
        assert_flat(&who, series);
    }
}

#[test]
fn memory_stays_flat_under_echoes() {
    memory_stays_flat("echo", &["--payload", "64", "--reply", "64"]);
}

#[test]
fn memory_stays_flat_under_writes() {
    memory_stays_flat("kv", &["--payload", "100", "--keys", "100000"]);
}
