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
/// What each replica has done before memory is looked at. The window is four intervals of
/// checkpoints, and executed frames of 128 MiB are kept below it: from then on logs are as full
/// as they get.
const WARM: Progress = Progress { checkpoints: 5, bytes: 192 << 20 };
/// What it does while memory is looked at, three checkpoints in each third: memory rises from one
/// to the next and falls with it, and on a slow machine that takes longer than some seconds.
const SAMPLED: Progress = Progress { checkpoints: 9, bytes: 0 };

/// What each replica has done at least.
#[derive(Clone, Copy)]
struct Progress {
    checkpoints: u64,
    /// That came over its connections.
    bytes: u64,
}

impl Progress {
    fn of(cluster: &Cluster) -> Progress {
        let reports = soak::reports(cluster);
        let least = |path| reports.iter().map(|report| number(report, path)).min();
        Progress {
            checkpoints: least("/checkpoint/count").expect("some replica"),
            bytes: least("/traffic/bytes_in").expect("some replica"),
        }
    }

    fn has_come(self, wanted: Progress, since: Progress) -> bool {
        self.checkpoints >= since.checkpoints + wanted.checkpoints
            && self.bytes >= since.bytes + wanted.bytes
    }
}

/// Runs the load and samples the memory of every replica and of the load generator, which comes
/// last, in KiB. Returns the load generator's result and one series per process.
fn sample(cluster: &mut Cluster, args: &[&str]) -> (Value, Vec<Vec<u64>>) {
    let mut command = stylite();
    command.args(["bench", "--config", &cluster.config(), "-o", "json", "--warmup", "0"]);
    // All replicas log to one disk, and where that is shared it may stand still for a while.
    command.args(["--connect-timeout", "60s"]);
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

/// Samples one run of the load, of `seconds` or as many more as that much progress takes.
fn sample_through(
    cluster: &mut Cluster,
    (wanted, mut seconds): (Progress, u64),
    load: &[&str],
) -> (Value, Vec<Vec<u64>>) {
    loop {
        let before = Progress::of(cluster);
        let duration = format!("{seconds}s");
        let (result, series) = sample(cluster, &[&["--duration", &duration], load].concat());
        assert_eq!(result["errors"], 0, "{result}");
        assert_eq!(result["digests"], "equal", "{result}");
        if Progress::of(cluster).has_come(wanted, before) {
            return (result, series);
        }
        seconds *= 2;
    }
}

/// Puts full load on a group for a while.
fn memory_stays_flat(service: &'static str, load: &[&str]) {
    let seconds = if full() { 1_800 } else { 12 };
    // A short run has smaller batches and shorter intervals, and so more checkpoints in its time.
    let (interval, outstanding) = if full() { ("256", "4096") } else { ("128", "256") };
    let load = [&["--outstanding", outstanding], load].concat();
    let shape = Shape { replicas: REPLICAS, pillars: 1, service };
    let mut cluster = Cluster::found_with(shape, &["--checkpoint-interval", interval]);
    (0..REPLICAS).for_each(|id| cluster.start_one(id));
    cluster.wait_for_code(0);
    let large = ["--outstanding", "256", "--payload", "1024", "--keys", "1000"];
    sample_through(&mut cluster, (WARM, 8), &large);
    let (result, series) = sample_through(&mut cluster, (SAMPLED, seconds), &load);
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
