//! The command line: every command, flag and default, with its help.
//!
//! What it is: declarations for `clap`, and the types of their values. What it is not: what the
//! commands do (`cmd`), nor where values come from when no flag says so (`settings`). It may
//! depend on `clap` and on the types of the values.
//!
//! Invariant: every long flag `--some-flag` can also be given as `STYLITE_SOME_FLAG` and as
//! `some_flag` in a settings file; `settings` has a test for it.

mod bench;
mod members;
mod snapshot;
mod suite;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::values::some_duration;

pub use bench::{Arrivals, BenchArgs, LoadArgs};
pub use members::{DemoArgs, InitArgs, RedisArgs, ReplicaArgs, Ways, ZooKeeperArgs};
pub use snapshot::{RestoreArgs, SaveArgs, SnapshotCommand, VerifyArgs};
pub use suite::{BaselineArgs, BenchCommand, GraphArgs, SuiteArgs};

/// Byzantine fault-tolerant replication: a group of replicas that goes on correctly although some
/// of them fail in any way.
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
    /// Start a local group with a gateway for Redis's or ZooKeeper's clients, to try things out.
    Demo(DemoArgs),
    /// Found a group: write its configuration and everybody's keys.
    Init(InitArgs),
    /// Run one replica of a group.
    Replica(ReplicaArgs),
    /// Run a gateway: what unmodified clients of other systems talk to.
    #[command(
        subcommand,
        after_help = "Examples:\n  stylite gateway redis --config mygroup\n  \
        stylite gateway redis --config mygroup --listen 127.0.0.1:7000\n  \
        stylite gateway zookeeper --config mygroup"
    )]
    Gateway(GatewayCommand),
    /// Ask every replica how it is.
    Status(StatusArgs),
    /// Measure a group's throughput and latency.
    Bench(Box<BenchArgs>),
    /// Save, verify and restore the state of a group.
    #[command(
        subcommand,
        after_help = "Examples:\n  stylite snapshot save --config mygroup --out mygroup.snapshot\n  \
        stylite snapshot verify mygroup.snapshot --config mygroup\n  \
        stylite init newgroup --replicas 4 --from-snapshot mygroup.snapshot"
    )]
    Snapshot(SnapshotCommand),
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
    /// Speak ZooKeeper's protocol on one side and to the group on the other.
    Zookeeper(ZooKeeperArgs),
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

/// `stylite status`.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 healthy; 3 degraded: a quorum works, but some replica is \
    unreachable, recovering, lagging or has another state; 4 unavailable: no quorum.\n\n\
    Columns: VIEW and LEADER, as the replica sees them (`3>4`: it asks for view 4); EXECUTED, \
    the last sequence number it executed; STABLE, its last stable checkpoint; LAG, how far it is \
    behind the most advanced one; DIGEST, of its state at which checkpoint; CLIENTS and PEERS, \
    links that are up; DURABILITY, what its votes rest on; DISK, bytes of its log and \
    checkpoints.\n\n\
    Below the table: what is proved (signed by the accused), what f + 1 replicas report, and \
    what single replicas suspect, which proves nothing.\n\n\
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

/// `stylite config check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The group's configuration, or the directory it is in.
    #[arg(value_name = "FILE", env = "STYLITE_CONFIG", required_unless_present = "same")]
    pub config: Option<PathBuf>,
    /// The same, as other commands take it.
    #[arg(long = "config", value_name = "FILE")]
    pub same: Option<PathBuf>,
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
    /// Never: a replica that stops has forgotten everything, and recovers from the others.
    Memory,
    /// Soon after it was acknowledged: survives the process, not the loss of the machine.
    Async,
    /// Before it is acknowledged: survives the loss of all machines at once.
    Sync,
}

/// How requests get their order.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Agreement {
    /// PBFT among 3f + 1 replicas.
    Pbft,
    /// Not at all: one server that nobody replicates, for comparison. Nothing it does outlives
    /// its process.
    None,
}

impl From<Agreement> for genesis::Agreement {
    fn from(agreement: Agreement) -> genesis::Agreement {
        match agreement {
            Agreement::Pbft => genesis::Agreement::Pbft,
            Agreement::None => genesis::Agreement::None,
        }
    }
}

/// How the work of a replica is put on threads.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parallelization {
    /// By instances: each thread has pillars, and does everything for them.
    Cop,
    /// By tasks: a pipeline with a thread for each task, for comparison. One pillar only.
    Top,
}

impl Parallelization {
    /// Its name on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        rt::Parallelization::from(self).word()
    }
}

impl From<Parallelization> for rt::Parallelization {
    fn from(parallelization: Parallelization) -> rt::Parallelization {
        match parallelization {
            Parallelization::Cop => rt::Parallelization::Cop,
            Parallelization::Top => rt::Parallelization::Top,
        }
    }
}

/// What carries packets between members.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UNIX sockets, between processes of one host.
    Unix,
    /// Rings in shared memory, between processes of one host.
    Shm,
}

impl From<Transport> for genesis::Transport {
    fn from(transport: Transport) -> genesis::Transport {
        match transport {
            Transport::Tcp => genesis::Transport::Tcp,
            Transport::Unix => genesis::Transport::Unix,
            Transport::Shm => genesis::Transport::Shm,
        }
    }
}

/// Who leads in a view.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaders {
    /// One replica, until it fails.
    Fixed,
    /// The replicas in turn, block by block; one that fails is left out for a while.
    Rotating,
}

impl From<Leaders> for genesis::Leaders {
    fn from(leaders: Leaders) -> genesis::Leaders {
        match leaders {
            Leaders::Fixed => genesis::Leaders::Fixed,
            Leaders::Rotating => genesis::Leaders::Rotating,
        }
    }
}

/// When COMMITs leave.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commits {
    /// At once.
    Prompt,
    /// With the next proposal or vote for one, if one is to be expected.
    Piggybacked,
}

impl From<Commits> for genesis::Commits {
    fn from(commits: Commits) -> genesis::Commits {
        match commits {
            Commits::Prompt => genesis::Commits::Prompt,
            Commits::Piggybacked => genesis::Commits::Piggybacked,
        }
    }
}

/// How a pillar without clients fills its numbers.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// One by one, as its siblings move on.
    Fill,
    /// Ahead of its siblings, many with one message.
    Ahead,
}

impl From<Idle> for genesis::Idle {
    fn from(idle: Idle) -> genesis::Idle {
        match idle {
            Idle::Fill => genesis::Idle::Fill,
            Idle::Ahead => genesis::Idle::Ahead,
        }
    }
}

/// How replicas answer.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replies {
    /// All of them in full.
    Full,
    /// One in full, in turn; the others by the digest of a large answer.
    Digest,
}

impl From<Replies> for genesis::Replies {
    fn from(replies: Replies) -> genesis::Replies {
        match replies {
            Replies::Full => genesis::Replies::Full,
            Replies::Digest => genesis::Replies::Digest,
        }
    }
}

/// Which replicas answer.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repliers {
    /// All of them.
    All,
    /// A quorum; the others are relieved, in turn.
    Relieved,
}

impl From<Repliers> for genesis::Repliers {
    fn from(repliers: Repliers) -> genesis::Repliers {
        match repliers {
            Repliers::All => genesis::Repliers::All,
            Repliers::Relieved => genesis::Repliers::Relieved,
        }
    }
}

/// Whether something is done.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Toggle {
    /// It is not.
    Off,
    /// It is.
    On,
}

impl Toggle {
    /// Whether it is.
    #[must_use]
    pub fn is_on(self) -> bool {
        self == Toggle::On
    }
}

/// How operations that only read are answered.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reads {
    /// By the order, like all others.
    Ordered,
    /// By each replica at once; every reply of the group has to be that of a quorum then.
    Unordered,
}

impl From<Reads> for genesis::Reads {
    fn from(reads: Reads) -> genesis::Reads {
        match reads {
            Reads::Ordered => genesis::Reads::Ordered,
            Reads::Unordered => genesis::Reads::Unordered,
        }
    }
}

/// How the bodies of frames get to the replicas.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bodies {
    /// From the client to all of them; proposals name frames.
    Separate,
    /// Signed, from the client to the leader, whose proposal carries those that are small.
    Inline,
}

impl From<Bodies> for genesis::Bodies {
    fn from(bodies: Bodies) -> genesis::Bodies {
        match bodies {
            Bodies::Separate => genesis::Bodies::Separate,
            Bodies::Inline => genesis::Bodies::Inline,
        }
    }
}

/// What stands in for the disk in a drill.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrillStorage {
    /// A disk that forgets whatever was not fsynced when the process ends, as if the machine had
    /// lost power.
    Volatile,
    /// The same, with an fsync that does nothing.
    Lying,
    /// A disk that is full while a file lies beside the state directory whose name is the
    /// directory's with `.full` added.
    Full,
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
    /// The word on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Async => "async",
            Durability::Sync => "sync",
        }
    }
}

impl From<Durability> for store::Durability {
    fn from(durability: Durability) -> store::Durability {
        match durability {
            Durability::Memory => store::Durability::Memory,
            Durability::Async => store::Durability::Async,
            Durability::Sync => store::Durability::Sync,
        }
    }
}
