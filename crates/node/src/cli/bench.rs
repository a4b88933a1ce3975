//! The command line of `stylite bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use svc::work::Kind;

use super::{Agreement, BenchCommand, Durability, Output, Parallelization, Transport, Ways};
use crate::cpus::{Cpus, ReplicaCpus, core_share, cpus, replica_cpus};
use crate::values::{duration, positive, some_duration};

/// `stylite bench`.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    group = clap::ArgGroup::new("where").args(["local", "config"]).required(true).multiple(true),
    after_help = "Closed loop: every client keeps `--outstanding` operations under way. Open loop \
    (`--rate`): operations start when they are due, whether or not others have ended, and \
    latency counts from then on. What was due and never left counts as late as it was at the \
    end.\n\nSeveral --runs: what is shown is the run in the middle by operations per second, with \
    the least and the most of all.\n\nAfterwards all replicas must have the same state: exit code \
    5 if they have not.\n\nAgainst a group of the key-value service (--config) it overwrites the \
    keys bench:000000000 and following, as many as --keys, and deletes them afterwards; they \
    stay when the run is interrupted.\n\nExamples:\n  stylite bench --local\n  \
    stylite bench --local --clients 1 --outstanding 1 --no-batching -o json\n  \
    stylite bench --local --agreement none\n  \
    stylite bench --local --clients 200 --outstanding 16 --runs 5 --json result.json\n  \
    stylite bench --local --rate 50000 --payload 100 --reply 100 --duration 30s\n  \
    stylite bench --local --cores-per-replica 0.5\n  \
    stylite bench --local --service kv --reads unordered --read-percent 90\n  \
    stylite bench --config mygroup --payload 64"
)]
pub struct BenchArgs {
    /// Something other than a single measurement.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// Start a group of our own on this machine.
    #[arg(long, env = "STYLITE_LOCAL", value_parser = BoolishValueParser::new())]
    pub local: bool,
    /// The configuration of a group that runs, or the directory it is in.
    #[arg(long, value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: Option<PathBuf>,
    /// As which of the group's clients. [default: the last one]
    #[arg(long, value_name = "ID", env = "STYLITE_CLIENT")]
    pub client: Option<u32>,
    /// The group that --local starts.
    #[command(flatten)]
    pub group: LocalArgs,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// How to print the result.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", env = "STYLITE_OUTPUT")]
    pub output: Output,
    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE", env = "STYLITE_JSON")]
    pub json: Option<PathBuf>,
}

/// When operations of an open loop are due.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrivals {
    /// At equal intervals.
    Fixed,
    /// At random, independently of one another, as many on average.
    Poisson,
}

impl Arrivals {
    /// The word on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Arrivals::Fixed => "fixed",
            Arrivals::Poisson => "poisson",
        }
    }
}

/// The group of `stylite bench --local`.
#[derive(Args, Debug, Clone)]
pub struct LocalArgs {
    /// With --local: how many replicas. [default: 4; 1 without agreement]
    #[arg(long, value_name = "N", env = "STYLITE_REPLICAS")]
    pub replicas: Option<u16>,
    /// With --local: how requests get their order.
    #[arg(long, value_name = "HOW", default_value = "pbft", env = "STYLITE_AGREEMENT")]
    pub agreement: Agreement,
    /// With --local: how many pillars.
    #[arg(long, value_name = "P", default_value_t = 1, env = "STYLITE_PILLARS")]
    pub pillars: u16,
    #[command(flatten)]
    pub ways: Ways,
    /// With --local: what carries packets. Anything but TCP is for processes of one host.
    #[arg(long, value_name = "WHAT", default_value = "tcp", env = "STYLITE_TRANSPORT")]
    pub transport: Transport,
    /// With --local: what is replicated, kv or echo.
    #[arg(long, value_name = "NAME", default_value = "echo", env = "STYLITE_SERVICE",
        value_parser = clap::builder::PossibleValuesParser::new(svc::NAMES))]
    pub service: String,
    /// With --local: when an operation is durable.
    #[arg(long, value_name = "MODE", default_value = "memory", env = "STYLITE_DURABILITY")]
    pub durability: Durability,
    /// With --local: how the work of each replica is put on threads.
    #[arg(long, value_name = "HOW", default_value = "cop", env = "STYLITE_PARALLELIZATION")]
    pub parallelization: Parallelization,
    /// With --local: threads of each replica. [default: as many as its share of the cores]
    #[arg(long, value_name = "T", env = "STYLITE_THREADS", value_parser = positive)]
    pub threads: Option<usize>,
    /// With --local: the processors of the replicas: one set for all, such as 0-2, or one for
    /// each, such as "0;1;2;3". [default: all]
    #[arg(long, value_name = "SETS", env = "STYLITE_REPLICA_CPUS", value_parser = replica_cpus)]
    pub replica_cpus: Option<ReplicaCpus>,
    /// With --local: as many processors for each replica, one divided by a number when several
    /// replicas share one; the clients get what is left, or all when nothing is.
    #[arg(long, value_name = "CORES", env = "STYLITE_CORES_PER_REPLICA",
        conflicts_with = "replica_cpus", value_parser = core_share)]
    pub cores_per_replica: Option<f64>,
    /// With --local: execution workers of each replica, 0 or 1 for none. [default: as many as its
    /// share of the cores leaves over]
    #[arg(long, value_name = "N", env = "STYLITE_WORKERS")]
    pub workers: Option<usize>,
}

impl LocalArgs {
    /// How many replicas.
    #[must_use]
    pub fn replicas(&self) -> u16 {
        self.replicas.unwrap_or(match self.agreement {
            Agreement::Pbft => 4,
            Agreement::None => 1,
        })
    }
}

impl LoadArgs {
    /// What operations of the work service do, and for how long.
    #[must_use]
    pub fn work(&self) -> Option<(Kind, Duration)> {
        let spin = self.spin.map(|time| (Kind::Spin, time));
        self.sleep.map(|time| (Kind::Sleep, time)).or(spin)
    }
}

/// The load of `stylite bench`.
#[derive(Args, Debug, Clone)]
pub struct LoadArgs {
    /// Sessions with connections of their own.
    #[arg(long, value_name = "C", default_value_t = 2, env = "STYLITE_CLIENTS",
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub clients: u32,
    /// Sessions that are open beside them and do nothing.
    #[arg(long, value_name = "N", default_value_t = 0, env = "STYLITE_IDLE_CLIENTS",
        value_parser = clap::value_parser!(u32).range(0..=16_384))]
    pub idle_clients: u32,
    /// Streams of each client, from a pillar of its own on: with fewer than there are pillars, some
    /// pillars may be idle. [default: as many as pillars]
    #[arg(long, value_name = "N", env = "STYLITE_LINES",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub lines: Option<u16>,
    /// Threads that share the clients. [default: one per client, at most 2]
    #[arg(long, value_name = "T", env = "STYLITE_CLIENT_THREADS", value_parser = positive)]
    pub client_threads: Option<usize>,
    /// The processors of the load generator, such as 2-3. [default: all]
    #[arg(long, value_name = "SET", env = "STYLITE_CLIENT_CPUS", value_parser = cpus)]
    pub client_cpus: Option<Cpus>,
    /// Operations that each client keeps under way (closed loop).
    #[arg(long, value_name = "O", default_value_t = 4096, env = "STYLITE_OUTSTANDING",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub outstanding: u32,
    /// Operations per second in all (open loop).
    #[arg(long, value_name = "OPS", env = "STYLITE_RATE",
        value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    pub rate: Option<u64>,
    /// When the operations of an open loop are due.
    #[arg(long, value_name = "HOW", default_value = "fixed", env = "STYLITE_ARRIVALS")]
    pub arrivals: Arrivals,
    /// Bytes that each operation carries.
    #[arg(long, visible_alias = "request-bytes", value_name = "BYTES", default_value_t = 0,
        env = "STYLITE_PAYLOAD",
        value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub payload: u32,
    /// Bytes that each operation has answered (echo service only).
    #[arg(long, visible_alias = "reply-bytes", value_name = "BYTES", default_value_t = 0,
        env = "STYLITE_REPLY",
        value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub reply: u32,
    /// How many of a hundred operations only read: GET, or what the echo service answers without
    /// a trace. Each operation under way is then of a stream of its own.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, env = "STYLITE_READ_PERCENT",
        value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_percent: u8,
    /// How long each operation sleeps (work service only).
    #[arg(long, value_name = "TIME", env = "STYLITE_SLEEP", conflicts_with = "spin",
        value_parser = some_duration)]
    pub sleep: Option<Duration>,
    /// How long each operation computes (work service only).
    #[arg(long, value_name = "TIME", env = "STYLITE_SPIN", value_parser = some_duration)]
    pub spin: Option<Duration>,
    /// Keys that are written (key-value, coordination and work service only). Operations of the
    /// work service that have the same key depend on each other.
    #[arg(long, value_name = "KEYS", default_value_t = 100_000, env = "STYLITE_KEYS",
        value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub keys: u64,
    /// How long the group may take to open a session.
    #[arg(long, value_name = "TIME", default_value = "10s", env = "STYLITE_CONNECT_TIMEOUT",
        value_parser = some_duration)]
    pub connect_timeout: Duration,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", env = "STYLITE_DURATION",
        value_parser = some_duration)]
    pub duration: Duration,
    /// How long to run before measuring.
    #[arg(long, value_name = "TIME", default_value = "2s", env = "STYLITE_WARMUP",
        value_parser = duration)]
    pub warmup: Duration,
    /// How often to do that, each time with new sessions.
    #[arg(long, value_name = "N", default_value_t = 1, env = "STYLITE_RUNS",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// One operation per frame; with --local also one frame per batch.
    #[arg(long, env = "STYLITE_NO_BATCHING", value_parser = BoolishValueParser::new())]
    pub no_batching: bool,
}
