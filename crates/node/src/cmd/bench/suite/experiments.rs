//! The table of experiments: what is run, and which figure is plotted against which.
//!
//! A series names its flags; one that this program does not know makes its points skipped, and
//! they are there once it does. Sources: COP (EuroSys 2015) figures 5, 6 and 8; the BFT library
//! (2001) figures 6 and 7 and the sections after them, whose operations a/b carry a KiB in the
//! request and b KiB in the result.

mod cbase;
mod switches;

use super::job::{Job, Peer, System};

/// One experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// What `--only` calls it.
    pub name: String,
    /// Its title.
    pub title: String,
    /// What it shows, and what of.
    pub about: &'static str,
    /// What x is.
    pub x: &'static str,
    /// Whether x is on a logarithmic scale.
    pub log_x: bool,
    /// The plots.
    pub plots: Vec<Plot>,
    /// The series.
    pub series: Vec<Series>,
}

/// What is plotted against what.
#[derive(Clone, Copy, Debug)]
pub struct Plot {
    /// None: the x of the experiment.
    pub x: Option<Figure>,
    /// What is up.
    pub y: Figure,
}

/// A line in the plots.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: Vec<Point>,
}

/// One point of a series.
#[derive(Clone, Debug)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// What is run for it.
    pub job: Job,
}

/// A figure of a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Figure {
    /// Operations per second.
    Rate,
    /// Median latency.
    P50,
    /// 99th percentile.
    P99,
    /// Mean latency.
    Mean,
    /// Processor time per operation of all processes.
    Cpu,
}

impl Figure {
    /// What stands on its axis.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Figure::Rate => "operations per second",
            Figure::P50 => "median latency, µs",
            Figure::P99 => "99th percentile of latency, µs",
            Figure::Mean => "mean latency, µs",
            Figure::Cpu => "processor time per operation, all processes, µs",
        }
    }
}

/// The systems that are compared, and their flags.
const COP: (&str, &str) = ("COP", "");
const TOP: (&str, &str) = ("TOP", "--parallelization top");
const NO_REP: (&str, &str) = ("NO-REP", "--agreement none");
const NO_SRT: (&str, &str) = ("without separate transmission", "--bodies inline");
const PIGGYBACK: (&str, &str) = ("piggy-backed commits", "--commits piggybacked");
const NO_BATCH: (&str, &str) = ("without batching", "--no-batching");
const DIGEST_REPLIES: (&str, &str) = ("digest replies", "--replies digest");
const TENTATIVE: (&str, &str) = ("tentative execution", "--tentative on");
const READ_ONLY: (&str, &str) = ("read-only", "--reads unordered --read-percent 100");

/// Numbers of clients in the BFT library's figures.
const CLIENTS: [u32; 6] = [5, 10, 20, 50, 100, 200];
/// Sizes of arguments and results in its figures, in bytes.
const SIZES: [u32; 5] = [0, 1024, 2048, 4096, 8192];

const RATE: Plot = Plot { x: None, y: Figure::Rate };
const P50: Plot = Plot { x: None, y: Figure::P50 };
const CPU: Plot = Plot { x: None, y: Figure::Cpu };

/// All experiments that make sense with so many processors.
#[must_use]
pub fn all(cpus: usize) -> Vec<Experiment> {
    let mut all = vec![cores("batched", cpus), cores("unbatched", cpus)];
    all.extend([0, 128, 1024, 4096].map(load));
    all.push(roles(cpus));
    all.extend([("0-0", 0, 0), ("4-0", 4096, 0), ("0-4", 0, 4096)].map(clients));
    all.extend([arguments(), results()]);
    all.extend(cbase::all(cpus));
    all.extend([switches::one_by_one(), switches::reads(false), switches::reads(true)]);
    all.extend([switches::transport(), switches::transport_clients()]);
    all.extend([durability(), authentication(), replicas(), idle(), principals(), yardstick()]);
    all.extend([redis(), etcd(), coordination()]);
    all
}

/// A series whose points differ in one flag.
fn series<X: Copy + Into<f64>>(
    (name, flags): (&str, &str),
    over: &[X],
    mut line: impl FnMut(X) -> String,
) -> Series {
    let point = |x: &X| Point { x: (*x).into(), job: Job::bench(&format!("{flags} {}", line(*x))) };
    Series { name: name.to_owned(), points: over.iter().map(point).collect() }
}

/// Cores per replica that this machine can show, and those that it cannot.
fn shares(cpus: usize) -> (Vec<f64>, Vec<f64>) {
    [0.25, 0.5, 1.0, 2.0, 4.0, 8.0].into_iter().partition(|share| 4.0 * share <= cpus as f64)
}

fn by_cores(cpus: usize, systems: &[(&str, &str)], load: &str) -> Vec<Series> {
    let (fit, too_many) = shares(cpus);
    let one = |system: &(&str, &str)| {
        let mut series = series(*system, &fit, |share| {
            // As many pillars as a replica has cores, and the same for what is compared.
            let pillars = (share as u32).max(1);
            format!("--cores-per-replica {share} --pillars {pillars} {load}")
        });
        let never =
            |x: &f64| Point { x: *x, job: Job::Never(format!("there are {cpus} processors")) };
        series.points.extend(too_many.iter().map(never));
        series
    };
    systems.iter().map(one).collect()
}

const DEEP: &str = "--clients 2 --outstanding 4096";
const SHALLOW: &str = "--clients 4 --outstanding 64 --no-batching";

fn cores(batching: &str, cpus: usize) -> Experiment {
    let load = if batching == "batched" { DEEP } else { SHALLOW };
    Experiment {
        name: format!("cop-5-{batching}"),
        title: format!("Throughput against cores per replica, {batching} (COP, figure 5)"),
        about: "Replicas are tied to processors; several share one where there is less than one \
            for each. Clients have what is left, or all when nothing is. NO-REP is one server on \
            the share of one replica.",
        x: "cores per replica",
        log_x: true,
        plots: vec![RATE, CPU],
        series: by_cores(cpus, &[COP, TOP, NO_REP], load),
    }
}

fn load(bytes: u32) -> Experiment {
    let outstanding: Vec<u32> = match bytes {
        0 | 128 => vec![1, 4, 16, 64, 256, 1024, 4096],
        _ => vec![1, 4, 16, 64, 256, 1024],
    };
    let line = |outstanding: u32| {
        format!("--clients 2 --outstanding {outstanding} --payload {bytes} --reply {bytes}")
    };
    Experiment {
        name: format!("cop-6-{bytes}"),
        title: format!("Latency against load, {bytes} bytes there and back (COP, figure 6)"),
        about: "Two clients keep ever more operations under way.",
        x: "operations under way per client",
        log_x: true,
        plots: vec![
            Plot { x: Some(Figure::Rate), y: Figure::Mean },
            Plot { x: Some(Figure::Rate), y: Figure::P99 },
        ],
        series: [COP, TOP, NO_REP].map(|system| series(system, &outstanding, line)).into(),
    }
}

fn roles(cpus: usize) -> Experiment {
    let systems = [
        ("COP, fixed", ""),
        ("COP, rotating", "--leaders rotating"),
        ("COP, rotating, three reply", "--leaders rotating --repliers relieved"),
        ("TOP, fixed", "--parallelization top"),
        ("TOP, rotating", "--parallelization top --leaders rotating"),
    ];
    Experiment {
        name: "cop-8".to_owned(),
        title: "Fixed against rotating roles (COP, figure 8)".to_owned(),
        about: "Batched, four clients. On loopback no network is saturated, so that less than in \
            the paper can be gained.",
        x: "cores per replica",
        log_x: true,
        plots: vec![RATE, CPU],
        series: by_cores(cpus, &systems, "--clients 4 --outstanding 2048"),
    }
}

fn clients((name, request, reply): (&str, u32, u32)) -> Experiment {
    let systems = [("BFT", ""), NO_BATCH, NO_SRT, PIGGYBACK, NO_REP];
    let line = |clients: u32| {
        format!("--clients {clients} --outstanding 1 --payload {request} --reply {reply}")
    };
    Experiment {
        name: format!("bft-clients-{name}"),
        title: format!(
            "Throughput of operation {} by clients (BFT library, figures 6 and 7)",
            name.replace('-', "/")
        ),
        about: "Each client has one operation under way, as in the paper. Without batching, the \
            leader makes an instance of agreement of every request.",
        x: "clients",
        log_x: false,
        plots: vec![RATE, P50],
        series: systems.map(|system| series(system, &CLIENTS, line)).into(),
    }
}

fn arguments() -> Experiment {
    let systems = [("BFT", ""), NO_SRT, TENTATIVE, NO_REP];
    let line = |bytes: u32| format!("--clients 1 --outstanding 1 --payload {bytes}");
    Experiment {
        name: "bft-arguments".to_owned(),
        title: "Latency by size of the argument (BFT library, figure 7)".to_owned(),
        about: "One client, one operation at a time, empty results.",
        x: "bytes of the argument",
        log_x: false,
        plots: vec![P50],
        series: systems.map(|system| series(system, &SIZES, line)).into(),
    }
}

fn results() -> Experiment {
    let systems = [("BFT", ""), DIGEST_REPLIES, TENTATIVE, READ_ONLY, NO_REP];
    let line = |bytes: u32| format!("--clients 1 --outstanding 1 --reply {bytes}");
    Experiment {
        name: "bft-results".to_owned(),
        title: "Latency by size of the result (BFT library)".to_owned(),
        about: "One client, one operation at a time, empty arguments.",
        x: "bytes of the result",
        log_x: false,
        plots: vec![P50],
        series: systems.map(|system| series(system, &SIZES, line)).into(),
    }
}

fn durability() -> Experiment {
    let modes = ["memory", "async", "sync"];
    let one = |mode: &str| {
        series((mode, &format!("--durability {mode}")), &[1, 16, 256, 4096], |outstanding: u32| {
            format!("--clients 2 --outstanding {outstanding} --payload 100")
        })
    };
    Experiment {
        name: "durability".to_owned(),
        title: "What durability costs".to_owned(),
        about: "100 bytes there, nothing back. All replicas share one disk.",
        x: "operations under way per client",
        log_x: true,
        plots: vec![RATE, P50, CPU],
        series: modes.map(one).into(),
    }
}

fn authentication() -> Experiment {
    let why = "links are always sealed and frames always authenticated: there is no switch; \
        docs/performance.md has their share of a profile";
    let never = Point { x: 0.0, job: Job::Never(why.to_owned()) };
    let off = Series { name: "without authentication".to_owned(), points: vec![never] };
    Experiment {
        name: "authentication".to_owned(),
        title: "What authentication and encryption cost".to_owned(),
        about: "As the group is.",
        x: "bytes there and back",
        log_x: false,
        plots: vec![RATE, CPU],
        series: vec![
            series(("sealed", ""), &[0, 128, 1024], |bytes: u32| {
                format!("--clients 2 --outstanding 512 --payload {bytes} --reply {bytes}")
            }),
            off,
        ],
    }
}

fn replicas() -> Experiment {
    let sizes = [4, 7, 10, 13];
    let one = |name: &str, load: &str| {
        series((name, load), &sizes, |replicas: u32| format!("--replicas {replicas}"))
    };
    Experiment {
        name: "replicas".to_owned(),
        title: "What more faults cost: n = 4, 7, 10, 13".to_owned(),
        about: "All replicas share the processors of one machine.",
        x: "replicas",
        log_x: false,
        plots: vec![RATE, P50, CPU],
        series: vec![
            one("batched", DEEP),
            one("unbatched", SHALLOW),
            one("one at a time", "--clients 1 --outstanding 1"),
        ],
    }
}

fn idle() -> Experiment {
    Experiment {
        name: "idle-clients".to_owned(),
        title: "What connected clients cost that do nothing".to_owned(),
        about: "Twenty active clients with 64 operations under way each.",
        x: "idle clients",
        log_x: false,
        plots: vec![RATE, P50],
        series: vec![series(("20 active", ""), &[0, 500, 1000, 1980], |idle: u32| {
            format!("--clients 20 --outstanding 64 --idle-clients {idle}")
        })],
    }
}

fn principals() -> Experiment {
    Experiment {
        name: "principals".to_owned(),
        title: "Who is authenticated: connections or logical clients".to_owned(),
        about: "The same 3200 operations under way: of few connections that speak for many \
            clients, or of clients each with a key, a session and connections of its own.",
        x: "principals",
        log_x: true,
        plots: vec![RATE, P50, CPU],
        series: vec![series(("3200 under way", ""), &[2, 20, 200, 1000], |clients: u32| {
            format!("--clients {clients} --outstanding {}", (3200 / clients).max(1))
        })],
    }
}

fn yardstick() -> Experiment {
    let line =
        |bytes: u32| format!("--clients 2 --outstanding 256 --payload {bytes} --reply {bytes}");
    let point = |bytes: u32| Point {
        x: bytes.into(),
        job: Job::Baseline(super::job::words(&format!("{} --frame-ops 64", line(bytes)))),
    };
    let plain = [0, 128, 1024, 4096].map(point).into();
    Experiment {
        name: "yardstick".to_owned(),
        title: "Against a plain program that moves the same bytes".to_owned(),
        about: "The plain program seals, opens and hashes the same, and does nothing else.",
        x: "bytes there and back",
        log_x: false,
        plots: vec![RATE, CPU],
        series: vec![
            series(("group", ""), &[0, 128, 1024, 4096], line),
            Series { name: "plain program".to_owned(), points: plain },
        ],
    }
}

fn redis() -> Experiment {
    let one = |name: &str, system: System, keys: u32| {
        let job = |depth: u32| Job::Peer(Peer { system, depth, keys, reads: 0 });
        let point = |depth: u32| Point { x: depth.into(), job: job(depth) };
        Series { name: name.to_owned(), points: [1, 16].map(point).into() }
    };
    Experiment {
        name: "redis".to_owned(),
        title: "Redis: SET, 50 connections".to_owned(),
        about: "By redis-benchmark: one redis-server, and four replicas behind the gateway. By a \
            client of our own, since redis-benchmark cannot: a redis-server with a replica, where \
            every pipeline ends with WAIT 1.",
        x: "commands per pipeline",
        log_x: true,
        plots: vec![RATE, CPU],
        series: vec![
            one("redis-server, one key", System::Alone, 1),
            one("gateway, one key", System::Gateway, 1),
            one("redis-server, 100,000 keys", System::Alone, 100_000),
            one("gateway, 100,000 keys", System::Gateway, 100_000),
            one("redis-server, replica, WAIT 1", System::Confirmed, 100_000),
        ],
    }
}

fn etcd() -> Experiment {
    let one = |name: &str, system: System| {
        let job = |depth: u32| Job::Peer(Peer { system, depth, keys: 100_000, reads: 0 });
        let point = |depth: u32| Point { x: depth.into(), job: job(depth) };
        Series { name: name.to_owned(), points: [1, 16].map(point).into() }
    };
    Experiment {
        name: "etcd".to_owned(),
        title: "etcd: writes that are synced to disk, 50 connections".to_owned(),
        about: "Three etcd servers, which tolerate a crash of one, by a client of our own over \
            gRPC, spread over all three. Four replicas behind the Redis gateway, which tolerate \
            one that lies, by redis-benchmark. Both sync what they acknowledge; 100,000 keys.",
        x: "writes under way per connection",
        log_x: true,
        plots: vec![RATE, P50, CPU],
        series: vec![
            one("etcd, three nodes", System::Etcd),
            one("gateway, durability sync", System::Durable),
        ],
    }
}

/// Percentages of reads.
const READS: [u32; 5] = [0, 25, 50, 75, 100];

fn coordination() -> Experiment {
    let nodes = 10_000;
    let ours = |system| {
        series(system, &READS, |reads: u32| {
            format!(
                "--service zookeeper --keys {nodes} --payload 128 --read-percent {reads} \
                 --clients 4 --outstanding 1024"
            )
        })
    };
    let peer = |name: &str, system: System| {
        let job = |reads: u32| Job::Peer(Peer { system, depth: 32, keys: nodes, reads });
        let point = |reads: u32| Point { x: reads.into(), job: job(reads) };
        Series { name: name.to_owned(), points: READS.map(point).into() }
    };
    Experiment {
        name: "coordination".to_owned(),
        title: "The coordination service: 10,000 nodes of 128 bytes (COP, figure 7)".to_owned(),
        about: "getData and setData of nodes at random. In ours all requests are ordered, so that \
            reads are linearizable. ZooKeeper orders writes alone: a read is answered by the one \
            server that the client is connected to, and may be old; it tolerates that one of its \
            three servers crashes, ours that one of four lies. It writes its log without syncing, \
            ours are in memory. The two by 50 connections speak ZooKeeper's protocol; COP, TOP and \
            NO-REP are loaded by the group's own client.",
        x: "percent of reads",
        log_x: false,
        plots: vec![RATE, P50, CPU],
        series: vec![
            ours(COP),
            ours(TOP),
            ours(NO_REP),
            peer("four replicas, gateway", System::Coordination),
            peer("ZooKeeper, three nodes, reads may be old", System::ZooKeeper),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_point_can_be_run_or_says_why_not() {
        let all = all(4);
        let mut names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let mut runnable = 0;
        for experiment in &all {
            assert!(!experiment.plots.is_empty() && !experiment.series.is_empty());
            for point in experiment.series.iter().flat_map(|series| &series.points) {
                match point.job.refused() {
                    None => runnable += 1,
                    Some(why) => assert!(!why.is_empty(), "{}", experiment.name),
                }
            }
        }
        assert!(runnable > 60, "{runnable}");
    }

    #[test]
    fn one_processor_shows_a_quarter_of_a_core_each() {
        let series = by_cores(1, &[COP], DEEP);
        let runnable = series[0].points.iter().filter(|point| point.job.refused().is_none());
        assert_eq!(runnable.count(), 1);
    }
}
