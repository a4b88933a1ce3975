//! Other systems on the same machine, where they are installed: Redis, with redis-benchmark as
//! the client, or one of our own where that cannot do what is to be measured, and etcd.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::etcd::Cluster;
use super::job::{End, Peer, System, Waited, program, stop, wait};
use super::zookeeper::{self, Ensemble};
use crate::cli::SuiteArgs;
use crate::cmd::bench::cpu;
use crate::cmd::bench::result::Spread;
use crate::signals::Signals;

/// Connections of every client.
pub const CONNECTIONS: u32 = 50;
/// How long a server may take to answer for the first time.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one measurement may take beyond what was asked for.
const RUN_MARGIN: Duration = Duration::from_secs(60);
/// Commands of the run that finds out how many the others need.
const TRIAL_COMMANDS: u64 = 100_000;

/// What is run, in words.
#[must_use]
pub fn command(peer: Peer) -> String {
    let Peer { system, depth, reads, .. } = peer;
    let benchmark = ["redis-benchmark".to_owned()].into_iter().chain(flags(peer));
    let benchmark = benchmark.collect::<Vec<String>>().join(" ");
    match system {
        System::Alone => format!("redis-server --save '' --appendonly no; {benchmark}"),
        System::Confirmed => format!(
            "redis-server, and one with --replicaof; {CONNECTIONS} connections, {depth} SET and \
             WAIT 1 in each pipeline"
        ),
        System::Gateway => format!("stylite demo --durability memory; {benchmark}"),
        System::Durable => format!("stylite demo --durability sync; {benchmark}"),
        System::Etcd => format!(
            "three etcd, synced; {CONNECTIONS} connections, {depth} PutRequest under way on each"
        ),
        System::ZooKeeper => format!(
            "three ZooKeeper, forceSync=no; {CONNECTIONS} connections, {depth} requests under way \
             on each, {reads} % getData, which a single server answers"
        ),
        System::Coordination => format!(
            "stylite demo --service zookeeper --durability memory; {CONNECTIONS} connections, \
             {depth} requests under way on each, {reads} % getData, which are ordered"
        ),
    }
}

/// The load for redis-benchmark, but for its length.
fn flags(Peer { depth, keys, .. }: Peer) -> Vec<String> {
    let random = if keys > 1 { format!(" -r {keys}") } else { String::new() };
    super::job::words(&format!("-t set -c {CONNECTIONS} -P {depth}{random}"))
}

/// Why it cannot be run here; none when it can.
#[must_use]
pub fn refused(peer: Peer) -> Option<String> {
    let needed: &[&str] = match peer.system {
        System::Alone => &["redis-server", "redis-benchmark"],
        System::Confirmed => &["redis-server"],
        System::Gateway | System::Durable => &["redis-benchmark"],
        System::Etcd => &["etcd"],
        System::ZooKeeper => &["java"],
        System::Coordination => &[],
    };
    if peer.system == System::ZooKeeper && !Path::new(zookeeper::JAR).exists() {
        return Some("zookeeper is not installed (`apt-get install zookeeper`)".to_owned());
    }
    let missing = needed.iter().find(|name| installed(name).is_none())?;
    let package = match *missing {
        "redis-benchmark" => "redis-tools",
        "etcd" => "etcd-server",
        "java" => "zookeeper",
        other => other,
    };
    Some(format!("{missing} is not installed (`apt-get install {package}`)"))
}

fn installed(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// One measurement of a server.
pub struct Sample {
    ops_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_servers_us: f64,
}

impl Sample {
    /// Of so many operations, and of what a client waited each time, in microseconds.
    ///
    /// # Errors
    /// When there is nothing to make a histogram of.
    pub fn of(took_us: Vec<u64>, ops: u64, elapsed: Duration) -> Result<Sample> {
        let mut all = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3)?;
        for us in took_us {
            all.record(us.clamp(1, LONGEST_US))?;
        }
        let percentile = |share| all.value_at_quantile(share) as f64;
        Ok(Sample {
            ops_per_s: ops as f64 / elapsed.as_secs_f64(),
            p50_us: percentile(0.5),
            p99_us: percentile(0.99),
            cpu_servers_us: 0.0,
        })
    }
}

/// The longest latency that is told apart from longer ones.
const LONGEST_US: u64 = 90_000_000;

/// A server process that ends with this value.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.0);
    }
}

/// What is measured, while it runs.
enum Running {
    Redis { port: u16, servers: Vec<Server> },
    Etcd(Cluster),
    ZooKeeper(Ensemble),
}

impl Running {
    async fn start(peer: Peer, suite: &SuiteArgs) -> Result<Running> {
        let port = free_port()?;
        let mut servers = vec![match peer.system {
            System::Alone | System::Confirmed => redis(port, None, &suite.out)?,
            System::Gateway => gateway(port, "memory")?,
            System::Durable => gateway(port, "sync")?,
            System::Etcd => return Cluster::start(&suite.out).await.map(Running::Etcd),
            System::ZooKeeper => {
                return Ensemble::start(&suite.out, peer).await.map(Running::ZooKeeper);
            }
            System::Coordination => return Ensemble::ours(peer).await.map(Running::ZooKeeper),
        }];
        answers(port).await?;
        if peer.system == System::Confirmed {
            let second = free_port()?;
            servers.push(redis(second, Some(port), &suite.out)?);
            answers(second).await?;
        }
        Ok(Running::Redis { port, servers })
    }

    fn servers(&self) -> &[Server] {
        match self {
            Running::Redis { servers, .. } => servers,
            Running::Etcd(cluster) => &cluster.servers,
            Running::ZooKeeper(ensemble) => &ensemble.servers,
        }
    }

    /// Measures once, with about so many commands where their number is what is asked for.
    async fn measure(
        &self,
        peer: Peer,
        commands: u64,
        suite: &SuiteArgs,
        signals: &mut Signals,
    ) -> Result<Measured> {
        let (depth, seconds) = (peer.depth, Duration::from_secs(suite.seconds.into()));
        let sample = match self {
            Running::Redis { port, .. } if peer.system == System::Confirmed => {
                let port = *port;
                let work = tokio::task::spawn_blocking(move || pipelines(port, depth, seconds));
                tokio::select! {
                    number = signals.next() => return Ok(Measured::End(End::Interrupted(number))),
                    sample = work => sample.context("the client ended")??,
                }
            }
            Running::Redis { port, .. } => {
                return benchmark(*port, peer, commands, suite, signals).await;
            }
            Running::Etcd(cluster) => tokio::select! {
                number = signals.next() => return Ok(Measured::End(End::Interrupted(number))),
                sample = cluster.load(peer, seconds) => sample?,
            },
            Running::ZooKeeper(ensemble) => tokio::select! {
                number = signals.next() => return Ok(Measured::End(End::Interrupted(number))),
                sample = ensemble.load(peer, seconds) => sample?,
            },
        };
        Ok(Measured::Sample(sample))
    }
}

/// Starts it, warms it up and runs it once.
///
/// # Errors
/// When a process cannot be started, or does not answer.
pub async fn run(peer: Peer, suite: &SuiteArgs, signals: &mut Signals) -> Result<End> {
    let running = Running::start(peer, suite).await?;
    let pids = family(running.servers());
    // The first one warms up and says how many commands fill the time.
    let mut commands = TRIAL_COMMANDS;
    let mut last = None;
    for _ in 0..2 {
        let before = pids.iter().map(|pid| cpu::used_us(*pid)).sum::<u64>();
        let (mut sample, ended) = match running.measure(peer, commands, suite, signals).await? {
            Measured::Sample((sample, ended)) => (sample, ended),
            Measured::End(end) => return Ok(end),
        };
        let used = pids.iter().map(|pid| cpu::used_us(*pid)).sum::<u64>().saturating_sub(before);
        sample.cpu_servers_us = used as f64 / ended.max(1) as f64;
        commands = (sample.ops_per_s * f64::from(suite.seconds)).max(1_000.0) as u64;
        last = Some(sample);
    }
    Ok(End::Result(summary(&last.context("no runs")?)))
}

enum Measured {
    /// What was measured, and over how many operations.
    Sample((Sample, u64)),
    End(End),
}

fn summary(sample: &Sample) -> Value {
    let of = |figure: f64| Spread::new(&[figure]);
    json!({ "summary": {
        "ops_per_s": of(sample.ops_per_s),
        "p50_us": of(sample.p50_us),
        "p99_us": of(sample.p99_us),
        "cpu_replicas_us": of(sample.cpu_servers_us),
    }})
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

fn redis(port: u16, of: Option<u16>, dir: &Path) -> Result<Server> {
    let mut command = Command::new("redis-server");
    let dir = dir.display().to_string();
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", &dir]);
    command.args(["--save", "", "--appendonly", "no"]);
    if let Some(of) = of {
        command.args(["--replicaof", &format!("127.0.0.1 {of}")]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Server(command.spawn().context("cannot start redis-server")?))
}

fn gateway(port: u16, durability: &str) -> Result<Server> {
    let mut command = program()?;
    command.args(["demo", "--redis", &format!("127.0.0.1:{port}"), "--durability", durability]);
    command.args(["--log", "error"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Server(command.spawn().context("cannot start this program again")?))
}

/// Waits until a server answers a PING.
async fn answers(port: u16) -> Result<()> {
    let until = Instant::now() + START_TIMEOUT;
    let ping = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"+PONG")
    };
    while !matches!(ping(), Ok(true)) {
        if Instant::now() >= until {
            bail!("nothing answers on port {port} after {START_TIMEOUT:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The processes of servers, and their children.
fn family(servers: &[Server]) -> Vec<u32> {
    let mut pids: Vec<u32> = servers.iter().map(|server| server.0.id()).collect();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        let parent = parent.and_then(|parent| parent.parse::<u32>().ok());
        if parent.is_some_and(|parent| servers.iter().any(|server| server.0.id() == parent)) {
            pids.push(pid);
        }
    }
    pids
}

/// Runs redis-benchmark once.
async fn benchmark(
    port: u16,
    peer: Peer,
    commands: u64,
    suite: &SuiteArgs,
    signals: &mut Signals,
) -> Result<Measured> {
    let file = suite.out.join("point.csv");
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &port.to_string(), "-n", &commands.to_string(), "--csv"]);
    command.args(flags(peer));
    command.stdin(Stdio::null()).stdout(File::create(&file)?).stderr(Stdio::piped());
    let child = command.spawn().context("cannot start redis-benchmark")?;
    let most = Duration::from_secs(suite.seconds.into()) * 5 + RUN_MARGIN;
    let ended = wait(child, most, signals).await?;
    let text = std::fs::read_to_string(&file)?;
    // It was made a moment ago.
    let _ = std::fs::remove_file(&file);
    Ok(match ended {
        Waited::Ended(true, _) => {
            let sample =
                csv(&text).with_context(|| format!("what redis-benchmark says: {text}"))?;
            Measured::Sample((sample, commands))
        }
        Waited::Ended(false, said) => Measured::End(End::Failed(said)),
        Waited::TooLong => Measured::End(End::Failed(format!("no end within {most:?}"))),
        Waited::Interrupted(number) => Measured::End(End::Interrupted(number)),
    })
}

/// Reads the row of SET: name, rate, and latencies in milliseconds: mean, least, median, 95th and
/// 99th percentile, most.
fn csv(text: &str) -> Option<Sample> {
    let row = text.lines().find(|line| line.starts_with("\"SET\""))?;
    let cells: Vec<f64> =
        row.split(',').skip(1).filter_map(|cell| cell.trim_matches('"').parse().ok()).collect();
    let [ops_per_s, _, _, p50, _, p99, _] = cells.as_slice() else { return None };
    let (p50_us, p99_us) = (p50 * 1e3, p99 * 1e3);
    Some(Sample { ops_per_s: *ops_per_s, p50_us, p99_us, cpu_servers_us: 0.0 })
}

/// Pipelines of `depth` SET and one WAIT for one replica on every connection, each sent when the
/// last one is answered.
fn pipelines(port: u16, depth: u32, duration: Duration) -> Result<(Sample, u64)> {
    let start = Instant::now();
    let until = start + duration;
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|number| std::thread::spawn(move || connection(port, depth, number, until)))
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        all.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
    }
    let ops = all.len() as u64 * u64::from(depth);
    Ok((Sample::of(all, ops, start.elapsed())?, ops))
}

/// One connection; returns how long each pipeline took, in microseconds.
fn connection(port: u16, depth: u32, number: u32, until: Instant) -> Result<Vec<u64>> {
    let mut took = Vec::new();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut turn = 0;
    // An answer of WAIT is an integer: ":1\r\n".
    let mut answers = vec![0; depth as usize * 5 + 4];
    while Instant::now() < until {
        let mut pipeline = String::new();
        for _ in 0..depth {
            let key = (number * 2_000 + turn % 2_000) % 100_000;
            pipeline.push_str(&format!("SET key:{key:012} xxx\r\n"));
            turn += 1;
        }
        pipeline.push_str("WAIT 1 5000\r\n");
        let start = Instant::now();
        stream.write_all(pipeline.as_bytes())?;
        stream.read_exact(&mut answers)?;
        if !answers.ends_with(b":1\r\n") {
            bail!("the replica has not confirmed in time");
        }
        took.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_benchmark_says_is_read() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
            \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
            \"SET\",\"250000.00\",\"0.5\",\"0.1\",\"0.4\",\"0.9\",\"1.5\",\"2.0\"\n";
        let sample = csv(text).expect("a row");
        let figures = [sample.ops_per_s, sample.p50_us, sample.p99_us];
        let expected = [250_000.0, 400.0, 1_500.0];
        assert!(figures.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{figures:?}");
        assert!(csv("\"SET\",\"x\"").is_none() && csv("").is_none());
    }
}
