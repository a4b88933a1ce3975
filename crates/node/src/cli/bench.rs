//! The command line of `stylite bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::{Agreement, Durability, Output};
use crate::values::{duration, positive, some_duration};

/// `stylite bench`.
#[derive(Args, Debug)]
#[command(
    group = clap::ArgGroup::new("where").args(["local", "config"]).required(true).multiple(true),
    after_help = "Closed loop: every client keeps `--outstanding` operations under way. Open loop \
    (`--rate`): operations start when they are due, whether or not others have ended, and \
    latency counts from then on.\n\nAfterwards all replicas must have the same state: exit code \
    5 if they have not.\n\nAgainst a group of the key-value service (--config) it overwrites the \
    keys bench:000000000 and following, as many as --keys, and deletes them afterwards; they \
    stay when the run is interrupted.\n\nExamples:\n  stylite bench --local\n  \
    stylite bench --local --clients 1 --outstanding 1 --no-batching -o json\n  \
    stylite bench --local --agreement none\n  \
    stylite bench --local --rate 50000 --payload 100 --reply 100 --duration 30s\n  \
    stylite bench --config mygroup --payload 64"
)]
pub struct BenchArgs {
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
    /// With --local: what is replicated, kv or echo.
    #[arg(long, value_name = "NAME", default_value = "echo", env = "STYLITE_SERVICE",
        value_parser = clap::builder::PossibleValuesParser::new(svc::NAMES))]
    pub service: String,
    /// With --local: when an operation is durable.
    #[arg(long, value_name = "MODE", default_value = "memory", env = "STYLITE_DURABILITY")]
    pub durability: Durability,
    /// With --local: threads of each replica. [default: as many as its share of the cores]
    #[arg(long, value_name = "T", env = "STYLITE_THREADS", value_parser = positive)]
    pub threads: Option<usize>,
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

/// The load of `stylite bench`.
#[derive(Args, Debug, Clone)]
pub struct LoadArgs {
    /// Sessions with connections of their own.
    #[arg(long, value_name = "C", default_value_t = 2, env = "STYLITE_CLIENTS",
        value_parser = clap::value_parser!(u32).range(1..=200))]
    pub clients: u32,
    /// Threads that share the clients. [default: one per client, at most 2]
    #[arg(long, value_name = "T", env = "STYLITE_CLIENT_THREADS", value_parser = positive)]
    pub client_threads: Option<usize>,
    /// Operations that each client keeps under way (closed loop).
    #[arg(long, value_name = "O", default_value_t = 4096, env = "STYLITE_OUTSTANDING",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub outstanding: u32,
    /// Operations per second in all (open loop).
    #[arg(long, value_name = "OPS", env = "STYLITE_RATE",
        value_parser = clap::value_parser!(u64).range(1..=50_000_000))]
    pub rate: Option<u64>,
    /// Bytes that each operation carries.
    #[arg(long, value_name = "BYTES", default_value_t = 0, env = "STYLITE_PAYLOAD",
        value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub payload: u32,
    /// Bytes that each operation has answered (echo service only).
    #[arg(long, value_name = "BYTES", default_value_t = 0, env = "STYLITE_REPLY",
        value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub reply: u32,
    /// Keys that are written (key-value service only).
    #[arg(long, value_name = "KEYS", default_value_t = 100_000, env = "STYLITE_KEYS",
        value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub keys: u64,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", env = "STYLITE_DURATION",
        value_parser = some_duration)]
    pub duration: Duration,
    /// How long to run before measuring.
    #[arg(long, value_name = "TIME", default_value = "2s", env = "STYLITE_WARMUP",
        value_parser = duration)]
    pub warmup: Duration,
    /// One operation per frame; with --local also one frame per batch.
    #[arg(long, env = "STYLITE_NO_BATCHING", value_parser = BoolishValueParser::new())]
    pub no_batching: bool,
}
