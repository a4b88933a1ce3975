//! The command lines of `stylite bench suite` and `stylite bench baseline`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Output;
use crate::values::{duration, some_duration};

/// What `stylite bench` can do beside a single measurement.
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Run the experiments of the papers, and write a report with plots.
    Suite(SuiteArgs),
    /// Measure what a plain program gets out of this machine for the same bytes.
    Baseline(BaselineArgs),
    /// Measure the dependency graph of parallel execution by itself, on one thread.
    Graph(GraphArgs),
}

/// `stylite bench suite`.
#[derive(Args, Debug)]
#[command(
    after_help = "Each point is one `stylite bench --local`, run one after the other; the report \
    names its command. Whatever cannot be run here is in the report, with the reason. Ctrl-C \
    writes what there is so far.\n\nExamples:\n  stylite bench suite --list\n  \
    stylite bench suite --out report\n  \
    stylite bench suite --only cop-5,durability --seconds 1 --runs 3 --out report"
)]
pub struct SuiteArgs {
    /// Only these experiments, separated by commas. [default: all]
    #[arg(long, value_name = "NAME", env = "STYLITE_ONLY", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Seconds that each run measures.
    #[arg(long, value_name = "S", default_value_t = 3, env = "STYLITE_SECONDS",
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// How often each point is run.
    #[arg(long, value_name = "N", default_value_t = 5, env = "STYLITE_RUNS",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Where the report goes: a directory, made when it is not there.
    #[arg(long, value_name = "DIR", default_value = "stylite-bench", env = "STYLITE_OUT")]
    pub out: PathBuf,
    /// Only say which experiments there are.
    #[arg(long, env = "STYLITE_LIST",
        value_parser = clap::builder::BoolishValueParser::new())]
    pub list: bool,
}

/// `stylite bench baseline`.
#[derive(Args, Debug)]
#[command(
    after_help = "What it does: every client sends frames of operations to every server over \
    loopback TCP, and each server answers; packets are sealed and opened, frames and replies \
    hashed, with the code that the group uses. There is no order, no session, no service and no \
    vote. Beside that, the time that a small sealed message takes one way, between two threads \
    that sleep while they wait.\n\nExamples:\n  stylite bench baseline\n  \
    stylite bench baseline --payload 1024 --reply 1024 --frame-ops 64\n  \
    stylite bench baseline --runs 5 -o json"
)]
pub struct BaselineArgs {
    /// Servers, each a thread.
    #[arg(long, value_name = "N", default_value_t = 4, env = "STYLITE_REPLICAS",
        value_parser = clap::value_parser!(u16).range(1..=16))]
    pub replicas: u16,
    /// Clients, each a thread.
    #[arg(long, value_name = "C", default_value_t = 2, env = "STYLITE_CLIENTS",
        value_parser = clap::value_parser!(u32).range(1..=64))]
    pub clients: u32,
    /// Operations that each client keeps under way.
    #[arg(long, value_name = "O", default_value_t = 4096, env = "STYLITE_OUTSTANDING",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub outstanding: u32,
    /// Operations in a frame.
    #[arg(long, value_name = "B", default_value_t = 512, env = "STYLITE_FRAME_OPS",
        value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub frame_ops: u32,
    /// Bytes that each operation carries.
    #[arg(long, value_name = "BYTES", default_value_t = 0, env = "STYLITE_PAYLOAD",
        value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub payload: u32,
    /// Bytes that each has answered.
    #[arg(long, value_name = "BYTES", default_value_t = 0, env = "STYLITE_REPLY",
        value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub reply: u32,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "3s", env = "STYLITE_DURATION",
        value_parser = some_duration)]
    pub duration: Duration,
    /// How long to run before measuring.
    #[arg(long, value_name = "TIME", default_value = "500ms", env = "STYLITE_WARMUP",
        value_parser = duration)]
    pub warmup: Duration,
    /// How often to do that.
    #[arg(long, value_name = "N", default_value_t = 1, env = "STYLITE_RUNS",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// How to print the result.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", env = "STYLITE_OUTPUT")]
    pub output: Output,
    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE", env = "STYLITE_JSON")]
    pub json: Option<PathBuf>,
}

/// `stylite bench graph`.
#[derive(Args, Debug)]
#[command(
    after_help = "Each operation reads one class and writes one. With 100,000 pending it is to cost \
    about what it costs with one: what it takes goes by the classes that an operation names.\n\n\
    Examples:\n  stylite bench graph\n  stylite bench graph --pending 100000 --dependent 10"
)]
pub struct GraphArgs {
    /// Operations that are pending all the time.
    #[arg(long, value_name = "N", default_value_t = 100, env = "STYLITE_PENDING",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pending: u32,
    /// Of so many operations, one depends on the one before; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 0, env = "STYLITE_DEPENDENT",
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub dependent: u32,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "3s", env = "STYLITE_DURATION",
        value_parser = some_duration)]
    pub duration: Duration,
    /// How often to do that.
    #[arg(long, value_name = "N", default_value_t = 1, env = "STYLITE_RUNS",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// How to print the result.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", env = "STYLITE_OUTPUT")]
    pub output: Output,
    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE", env = "STYLITE_JSON")]
    pub json: Option<PathBuf>,
}
