//! The command line: every command, flag and default, with its help.
//!
//! What it is: declarations for `clap`, and the types of their values. What it is not: what the
//! commands do (`cmd`), nor where values come from when no flag says so (`settings`). It may
//! depend on `clap` and `base` only.
//!
//! Invariant: every long flag `--some-flag` can also be given as `STYLITE_SOME_FLAG` and as
//! `some_flag` in a settings file; `settings` has a test for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::values::{duration, positive, some_duration};

/// Byzantine fault-tolerant replication: a group of replicas that goes on correctly although some
/// of its backups fail in any way. Replacing the leader (replica 0) is not in this version.
#[derive(Parser, Debug)]
#[command(
    name = "stylite",
    version,
    arg_required_else_help = true,
    after_help = GENERAL_HELP
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged to standard error: error, warn, info, debug, trace, or a filter such as
    /// `info,rt=debug`. [default: info for replica and gateway, warn otherwise]
    #[arg(long, global = true, value_name = "LEVEL", env = "STYLITE_LOG")]
    pub log: Option<String>,
    /// A file with settings, one `some_flag = value` per line. [default: stylite.toml beside the
    /// group's configuration, where there is one]
    #[arg(long, global = true, value_name = "FILE", env = "STYLITE_SETTINGS")]
    pub settings: Option<PathBuf>,
}

const GENERAL_HELP: &str = "\
Settings: a flag `--some-flag` beats the variable STYLITE_SOME_FLAG, which beats `some_flag` in a
settings file, which beats the default. `stylite config show` tells what holds and why.

Exit codes: 0 all is well; 1 failure; 2 wrong usage; 3 the group is degraded and 4 it is
unavailable (status); 5 replicas have different states (bench).

Examples:
  stylite demo
  stylite init mygroup --replicas 4
  stylite replica --config mygroup --id 0";

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start a local group with a Redis gateway, to try things out.
    Demo(DemoArgs),
    /// Found a group: write its configuration and everybody's keys.
    Init(InitArgs),
    /// Run one replica of a group.
    Replica(ReplicaArgs),
    /// Run a gateway: what unmodified clients of other systems talk to.
    #[command(
        subcommand,
        after_help = "Examples:\n  stylite gateway redis --config mygroup\n  \
        stylite gateway redis --config mygroup --listen 127.0.0.1:7000"
    )]
    Gateway(GatewayCommand),
    /// Ask every replica how it is.
    Status(StatusArgs),
    /// Measure a group's throughput and latency.
    Bench(BenchArgs),
    /// Check a configuration, or show what holds.
    #[command(
        subcommand,
        after_help = "Examples:\n  stylite config check mygroup\n  \
        stylite config show mygroup\n  stylite config show --config mygroup replica"
    )]
    Config(ConfigCommand),
    /// Say which version this is.
    #[command(after_help = "Examples:\n  stylite version\n  stylite version -o json")]
    Version(VersionArgs),
    /// Write a completion script for a shell to standard output.
    #[command(after_help = "Examples:\n  stylite completions bash > \
        ~/.local/share/bash-completion/completions/stylite\n  stylite completions zsh > \
        ~/.zfunc/_stylite")]
    Completions(CompletionsArgs),
}

/// The gateways.
#[derive(Subcommand, Debug)]
pub enum GatewayCommand {
    /// Speak Redis's protocol (RESP2 and RESP3) on one side and to the group on the other.
    Redis(RedisArgs),
}

/// What to do with a configuration.
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Check a group's configuration, its key files and the settings beside it.
    #[command(after_help = "Examples:\n  stylite config check mygroup\n  \
        stylite config check mygroup/group.toml")]
    Check(CheckArgs),
    /// Show the settings of all commands that hold here, and where each comes from.
    #[command(after_help = "Examples:\n  stylite config show\n  \
        stylite config show mygroup\n  \
        STYLITE_THREADS=2 stylite config show --config mygroup replica\n  \
        stylite config show -o json bench")]
    Show(ShowArgs),
}

/// `stylite demo`.
#[derive(Args, Debug)]
#[command(after_help = "Everything runs on this machine, keeps its state in memory and ends with \
    Ctrl-C, which leaves nothing behind unless --dir says where to. A group in --dir can be \
    started once only: its replicas forget their votes when they end.\n\nExamples:\n  stylite demo\n  \
    stylite demo --replicas 7 --pillars 2\n  stylite demo --redis 127.0.0.1:7000 --dir mygroup")]
pub struct DemoArgs {
    /// How many replicas; (n - 1) / 3 of them may be faulty.
    #[arg(long, value_name = "N", default_value_t = 4, env = "STYLITE_REPLICAS")]
    pub replicas: u16,
    /// How many pillars: parallel lanes of agreement.
    #[arg(long, value_name = "P", default_value_t = 1, env = "STYLITE_PILLARS")]
    pub pillars: u16,
    /// Where the Redis gateway listens. [default: 127.0.0.1:6379, or the next free port]
    #[arg(long, value_name = "ADDR", env = "STYLITE_REDIS")]
    pub redis: Option<SocketAddr>,
    /// When an operation is durable. Only `memory` works in this version.
    #[arg(long, value_name = "MODE", default_value = "memory", env = "STYLITE_DURABILITY")]
    pub durability: Durability,
    /// Where configuration, keys and logs go; kept afterwards. [default: a temporary directory]
    #[arg(long, value_name = "DIR", env = "STYLITE_DIR")]
    pub dir: Option<PathBuf>,
}

/// `stylite init`.
#[derive(Args, Debug)]
#[command(after_help = "Nothing is ever overwritten. Copy the directory to every machine, and \
    leave there only the key files of those who run there.\n\nExamples:\n  \
    stylite init mygroup --replicas 4\n  \
    stylite init mygroup --replicas 4 --host 10.0.0.1 --host 10.0.0.2 --host 10.0.0.3 --host \
    10.0.0.4\n  stylite init mygroup --replicas 7 --pillars 4 --service echo --port 9000")]
pub struct InitArgs {
    /// The directory to write to; made when it is not there.
    pub dir: PathBuf,
    /// How many replicas.
    #[arg(long, value_name = "N", env = "STYLITE_REPLICAS")]
    pub replicas: u16,
    /// How many of them may be faulty. [default: as many as possible, (n - 1) / 3]
    #[arg(long, value_name = "F", env = "STYLITE_FAULTS")]
    pub faults: Option<u16>,
    /// How many pillars: parallel lanes of agreement. At most one per core is of use.
    #[arg(long, value_name = "P", default_value_t = 1, env = "STYLITE_PILLARS")]
    pub pillars: u16,
    /// How many clients (gateways, programs, tools) get keys.
    #[arg(long, value_name = "C", default_value_t = genesis::CLIENTS_DEFAULT,
        env = "STYLITE_CLIENTS", value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// What is replicated: kv or echo.
    #[arg(long, value_name = "NAME", default_value = "kv", env = "STYLITE_SERVICE",
        value_parser = clap::builder::PossibleValuesParser::new(svc::NAMES))]
    pub service: String,
    /// Where the replicas are: one host for all of them, or one for each, in order.
    #[arg(
        long,
        value_name = "H",
        default_value = "127.0.0.1",
        env = "STYLITE_HOST",
        value_delimiter = ','
    )]
    pub host: Vec<String>,
    /// The first port on each host; each replica takes one per pillar.
    #[arg(long, value_name = "BASE", default_value_t = genesis::PORT_DEFAULT,
        env = "STYLITE_PORT")]
    pub port: u16,
    /// The group's name.
    #[arg(long, value_name = "NAME", default_value = "stylite", env = "STYLITE_NAME")]
    pub name: String,
    /// Sequence numbers between two checkpoints. The window is the multiple of it that is closest
    /// to 8192 from below, four times as many at least.
    #[arg(long, value_name = "K", default_value_t = genesis::Settings::default().checkpoint_interval,
        env = "STYLITE_CHECKPOINT_INTERVAL")]
    pub checkpoint_interval: u64,
}

/// `stylite replica`.
#[derive(Args, Debug)]
#[command(after_help = "SIGTERM or Ctrl-C: takes no more requests, answers what is executed, and \
    ends with 0. A second one: ends at once.\n\nIn this version a replica keeps everything in \
    memory, so it can be started once only: one that may have forgotten a vote must not vote \
    again.\n\nExamples:\n  stylite replica --config mygroup --id 0\n  \
    STYLITE_LOG=debug stylite replica --config mygroup/group.toml --id 3 --threads 2")]
pub struct ReplicaArgs {
    /// The group's configuration, or the directory it is in.
    #[arg(long, value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: PathBuf,
    /// Which replica this is, from 0.
    #[arg(long, value_name = "I", env = "STYLITE_ID")]
    pub id: u16,
    /// When an operation is durable. Only `memory` works in this version.
    #[arg(long, value_name = "MODE", default_value = "memory", env = "STYLITE_DURABILITY")]
    pub durability: Durability,
    /// Threads for pillars and execution together. [default: one each, if the cores suffice]
    #[arg(long, value_name = "T", env = "STYLITE_THREADS", value_parser = positive)]
    pub threads: Option<usize>,
    /// Do not tie threads to cores.
    #[arg(long, env = "STYLITE_NO_PIN", value_parser = BoolishValueParser::new())]
    pub no_pin: bool,
    /// End at once when standard input is closed: for programs that start replicas.
    #[arg(long, env = "STYLITE_EXIT_WITH_PARENT", value_parser = BoolishValueParser::new())]
    pub exit_with_parent: bool,
}

/// `stylite gateway redis`.
#[derive(Args, Debug)]
#[command(after_help = "Run it beside the clients that use it: it votes on the replicas' answers \
    for them, and they trust it.\n\nExamples:\n  \
    stylite gateway redis --config mygroup --listen 127.0.0.1:6379\n  \
    stylite gateway redis --config mygroup --client 1")]
pub struct RedisArgs {
    /// The group's configuration, or the directory it is in.
    #[arg(long, value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: PathBuf,
    /// Which of the group's clients the gateway is.
    #[arg(long, value_name = "ID", default_value_t = 0, env = "STYLITE_CLIENT")]
    pub client: u32,
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6379", env = "STYLITE_LISTEN")]
    pub listen: SocketAddr,
    /// Listen on an address that other machines can reach. There is neither password nor TLS.
    #[arg(long, env = "STYLITE_ALLOW_REMOTE", value_parser = BoolishValueParser::new())]
    pub allow_remote: bool,
}

/// `stylite status`.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 healthy; 3 degraded: a quorum works, but some replica is \
    unreachable, lagging or has another state; 4 unavailable: no quorum, or no leader.\n\n\
    Columns: VIEW and LEADER, as the replica sees them; EXECUTED, the last sequence number it \
    executed; STABLE, its last stable checkpoint; LAG, how far it is behind the most advanced \
    one; DIGEST, of its state at which checkpoint; CLIENTS and PEERS, links that are up; \
    SUSPICIONS, replicas and clients that sent it what no correct one sends; EVIDENCE, proofs \
    of that.\n\n\
    Examples:\n  stylite status --config mygroup\n  \
    stylite status --config mygroup -o json --timeout 1s")]
pub struct StatusArgs {
    /// The group's configuration, or the directory it is in.
    #[arg(long, value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: PathBuf,
    /// As which client to ask. [default: the last one]
    #[arg(long, value_name = "ID", env = "STYLITE_CLIENT")]
    pub client: Option<u32>,
    /// How long a replica may take to answer.
    #[arg(long, value_name = "TIME", default_value = "3s", env = "STYLITE_TIMEOUT",
        value_parser = some_duration)]
    pub timeout: Duration,
    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", env = "STYLITE_OUTPUT")]
    pub output: Output,
}

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
    /// With --local: how many replicas.
    #[arg(long, value_name = "N", default_value_t = 4, env = "STYLITE_REPLICAS")]
    pub replicas: u16,
    /// With --local: how many pillars.
    #[arg(long, value_name = "P", default_value_t = 1, env = "STYLITE_PILLARS")]
    pub pillars: u16,
    /// With --local: what is replicated, kv or echo.
    #[arg(long, value_name = "NAME", default_value = "echo", env = "STYLITE_SERVICE",
        value_parser = clap::builder::PossibleValuesParser::new(svc::NAMES))]
    pub service: String,
    /// With --local: when an operation is durable. Only `memory` works in this version.
    #[arg(long, value_name = "MODE", default_value = "memory", env = "STYLITE_DURABILITY")]
    pub durability: Durability,
    /// With --local: threads of each replica. [default: as many as its share of the cores]
    #[arg(long, value_name = "T", env = "STYLITE_THREADS", value_parser = positive)]
    pub threads: Option<usize>,
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

/// `stylite config check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The group's configuration, or the directory it is in.
    #[arg(value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: PathBuf,
}

/// `stylite config show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Also show this group's configuration; settings beside it count.
    #[arg(long, value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: Option<PathBuf>,
    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", env = "STYLITE_OUTPUT")]
    pub output: Output,
    /// A command, with flags if you like: only its settings. A group's directory in its place is
    /// taken as --config.
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `stylite version`.
#[derive(Args, Debug)]
pub struct VersionArgs {
    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", env = "STYLITE_OUTPUT")]
    pub output: Output,
}

/// `stylite completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// For which shell.
    pub shell: clap_complete::Shell,
}

/// When an operation is durable.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Never: a replica that stops has forgotten everything.
    Memory,
    /// Soon after it was acknowledged: not in this version.
    #[value(hide = true)]
    Async,
    /// Before it is acknowledged: not in this version.
    #[value(hide = true)]
    Sync,
}

/// How results are printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Durability {
    /// Refuses what this version cannot do.
    ///
    /// # Errors
    /// For anything but `memory`.
    pub fn check(self) -> anyhow::Result<()> {
        let name = match self {
            Durability::Memory => return Ok(()),
            Durability::Async => "async",
            Durability::Sync => "sync",
        };
        anyhow::bail!(
            "durability `{name}` is not part of this version; only `memory` works: replicas keep \
             everything in memory and forget it when they stop. Use --durability memory"
        )
    }
}
