//! The command line of those that make a group run: demo, init, replica, gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use rt::Drill;

use super::{
    Agreement, Bodies, Commits, DrillStorage, Durability, Idle, Leaders, Parallelization, Reads,
    Repliers, Replies, Toggle, Transport,
};
use crate::values::{Assignment, Metrics, assignment, metrics, positive, some_duration};

/// The switches of a new group.
#[derive(Args, Clone, Debug)]
pub struct Ways {
    /// Who leads in a view.
    #[arg(long, value_name = "WHO", default_value = "fixed", env = "STYLITE_LEADERS")]
    pub leaders: Leaders,
    /// When COMMITs leave.
    #[arg(long, value_name = "WHEN", default_value = "prompt", env = "STYLITE_COMMITS")]
    pub commits: Commits,
    /// How replicas answer.
    #[arg(long, value_name = "HOW", default_value = "full", env = "STYLITE_REPLIES")]
    pub replies: Replies,
    /// Which replicas answer.
    #[arg(long, value_name = "WHO", default_value = "all", env = "STYLITE_REPLIERS")]
    pub repliers: Repliers,
    /// How the bodies of frames get to the replicas.
    #[arg(long, value_name = "HOW", default_value = "separate", env = "STYLITE_BODIES")]
    pub bodies: Bodies,
    /// Whether what is prepared is executed and answered before it is committed.
    #[arg(long, value_name = "HOW", default_value = "off", env = "STYLITE_TENTATIVE")]
    pub tentative: Toggle,
    /// How operations that only read are answered.
    #[arg(long, value_name = "HOW", default_value = "ordered", env = "STYLITE_READS")]
    pub reads: Reads,
    /// How a pillar without clients fills its numbers.
    #[arg(long, value_name = "HOW", default_value = "fill", env = "STYLITE_IDLE")]
    pub idle: Idle,
    /// Into how many partitions the service's state falls, each agreed on by itself, with as many
    /// pillars. For the services kv and echo.
    #[arg(long, value_name = "P", default_value_t = 1, env = "STYLITE_PARTITIONS")]
    pub partitions: u16,
}

impl Ways {
    /// The defaults with what was chosen.
    #[must_use]
    pub fn settings(&self) -> genesis::Settings {
        genesis::Settings {
            leaders: self.leaders.into(),
            commits: self.commits.into(),
            replies: self.replies.into(),
            repliers: self.repliers.into(),
            bodies: self.bodies.into(),
            tentative: self.tentative.is_on(),
            reads: self.reads.into(),
            idle: self.idle.into(),
            partitions: self.partitions,
            ..genesis::Settings::default()
        }
    }
}

/// `stylite demo`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Everything runs on this machine and ends with Ctrl-C, which leaves nothing \
    behind unless --dir says where to. A replica that ends, or is killed, is started again.\n\n\
    A group in --dir keeps its state from one demo to the next with --durability sync or async; \
    with memory it cannot, since all of its replicas forget their votes at once.\n\n\
    Drills: --misbehave makes a replica do something wrong, for example 0=silent, 1=wrong-reply, \
    2=equivocate; `stylite replica --help` names all behaviours.\n\nExamples:\n  stylite demo\n  \
    stylite demo --replicas 7 --pillars 2\n  stylite demo --misbehave 3=wrong-reply\n  \
    stylite demo --redis 127.0.0.1:7000 --dir mygroup --durability sync\n  \
    stylite demo --service zookeeper"
)]
pub struct DemoArgs {
    /// How many replicas; (n - 1) / 3 of them may be faulty.
    #[arg(long, value_name = "N", default_value_t = 4, env = "STYLITE_REPLICAS")]
    pub replicas: u16,
    /// How many pillars: parallel lanes of agreement.
    #[arg(long, value_name = "P", default_value_t = 1, env = "STYLITE_PILLARS")]
    pub pillars: u16,
    /// What is replicated, and which gateway stands in front of it: kv for Redis's clients,
    /// zookeeper for ZooKeeper's.
    #[arg(long, value_name = "NAME", default_value = "kv", env = "STYLITE_SERVICE",
        value_parser = clap::builder::PossibleValuesParser::new(["kv", "zookeeper"]))]
    pub service: String,
    #[command(flatten)]
    pub ways: Ways,
    /// What carries packets. Anything but TCP is for processes of one host.
    #[arg(long, value_name = "WHAT", default_value = "tcp", env = "STYLITE_TRANSPORT")]
    pub transport: Transport,
    /// Where the Redis gateway listens. [default: 127.0.0.1:6379, or the next free port]
    #[arg(long, value_name = "ADDR", env = "STYLITE_REDIS")]
    pub redis: Option<SocketAddr>,
    /// Where the ZooKeeper gateway listens. [default: 127.0.0.1:2181, or the next free port]
    #[arg(long, value_name = "ADDR", env = "STYLITE_ZOOKEEPER")]
    pub zookeeper: Option<SocketAddr>,
    /// When an operation is durable.
    #[arg(long, value_name = "MODE", default_value = "memory", env = "STYLITE_DURABILITY")]
    pub durability: Durability,
    /// Where configuration, keys, logs and state go; kept afterwards. [default: a temporary
    /// directory]
    #[arg(long, value_name = "DIR", env = "STYLITE_DIR")]
    pub dir: Option<PathBuf>,
    /// Makes a replica misbehave, for example 1=wrong-reply. Once for each of at most f replicas;
    /// the group is founded for drills.
    #[arg(long, value_name = "REPLICA=BEHAVIOUR", env = "STYLITE_MISBEHAVE",
        value_delimiter = ',', value_parser = assignment)]
    pub misbehave: Vec<Assignment>,
    /// Do not start replicas again that have ended.
    #[arg(long, env = "STYLITE_NO_RESTART", value_parser = BoolishValueParser::new())]
    pub no_restart: bool,
}

/// `stylite init`.
#[derive(Args, Debug)]
#[command(after_help = "Nothing is ever overwritten. Copy the directory to every machine, and \
    leave there only the key files of those who run there.\n\nExamples:\n  \
    stylite init mygroup --replicas 4\n  \
    stylite init mygroup --replicas 4 --host 10.0.0.1 --host 10.0.0.2 --host 10.0.0.3 --host \
    10.0.0.4\n  stylite init mygroup --replicas 7 --pillars 4 --service echo --port 9000\n  \
    stylite init mygroup --replicas 4 --partitions 4\n  \
    stylite init newgroup --replicas 4 --from-snapshot old.snapshot\n  \
    stylite init drills --replicas 4 --drills\n  \
    stylite init baseline --replicas 1 --agreement none")]
pub struct InitArgs {
    /// The directory to write to; made when it is not there.
    pub dir: PathBuf,
    /// How many replicas.
    #[arg(long, value_name = "N", env = "STYLITE_REPLICAS")]
    pub replicas: u16,
    /// How requests get their order.
    #[arg(long, value_name = "HOW", default_value = "pbft", env = "STYLITE_AGREEMENT")]
    pub agreement: Agreement,
    /// How many of them may be faulty. [default: as many as possible, (n - 1) / 3]
    #[arg(long, value_name = "F", env = "STYLITE_FAULTS")]
    pub faults: Option<u16>,
    /// How many pillars: parallel lanes of agreement. At most one per core is of use.
    #[arg(long, value_name = "P", default_value_t = 1, env = "STYLITE_PILLARS")]
    pub pillars: u16,
    #[command(flatten)]
    pub ways: Ways,
    /// How many clients (gateways, programs, tools) get keys.
    #[arg(long, value_name = "C", default_value_t = genesis::CLIENTS_DEFAULT,
        env = "STYLITE_CLIENTS", value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// What is replicated: kv, zookeeper or echo.
    #[arg(long, value_name = "NAME", default_value = "kv", env = "STYLITE_SERVICE",
        value_parser = clap::builder::PossibleValuesParser::new(svc::NAMES))]
    pub service: String,
    /// Where they are, and how they are reached.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The group's name.
    #[arg(long, value_name = "NAME", default_value = "stylite", env = "STYLITE_NAME")]
    pub name: String,
    /// Sequence numbers between two checkpoints. The window is the multiple of it that is closest
    /// to 8192 from below, four times as many at least; less in groups of 23 and more.
    #[arg(long, value_name = "K", default_value_t = genesis::Settings::default().checkpoint_interval,
        env = "STYLITE_CHECKPOINT_INTERVAL")]
    pub checkpoint_interval: u64,
    /// How long a new leader may take at first, 50 ms to 60 s; doubles with each that fails.
    #[arg(long, value_name = "TIME", default_value = "1s", env = "STYLITE_VIEW_TIMEOUT",
        value_parser = some_duration)]
    pub view_timeout: Duration,
    /// Let replicas of this group misbehave when they are told to. Never in production.
    #[arg(long, env = "STYLITE_DRILLS", value_parser = BoolishValueParser::new())]
    pub drills: bool,
    /// Begin with the service's state in this snapshot. Every replica needs the copy of it that
    /// goes into state/.
    #[arg(long, value_name = "FILE", env = "STYLITE_FROM_SNAPSHOT")]
    pub from_snapshot: Option<PathBuf>,
}

/// Where the replicas of a group are.
#[derive(Args, Debug)]
pub struct PlaceArgs {
    /// Where the replicas are: one host for all of them, or one for each, in order. Several
    /// network interfaces of one, such as 10.0.0.1+10.1.0.1, are taken by its pillars in turn.
    #[arg(
        long,
        value_name = "H",
        default_value = "127.0.0.1",
        env = "STYLITE_HOST",
        value_delimiter = ','
    )]
    pub host: Vec<String>,
    /// The first port on each host; each replica takes one per pillar, in each partition.
    #[arg(long, value_name = "BASE", default_value_t = genesis::PORT_DEFAULT,
        env = "STYLITE_PORT")]
    pub port: u16,
    /// What carries packets. Anything but TCP is for processes of one host.
    #[arg(long, value_name = "WHAT", default_value = "tcp", env = "STYLITE_TRANSPORT")]
    pub transport: Transport,
    /// With another transport than TCP: the directory of the replicas' sockets, for which its
    /// path must be short. [default: sockets in the group's directory]
    #[arg(long, value_name = "DIR", env = "STYLITE_SOCKET_DIR")]
    pub socket_dir: Option<PathBuf>,
}

/// `stylite replica`.
#[derive(Args, Debug)]
#[command(after_help = "SIGTERM or Ctrl-C: takes no more requests, answers what is executed, and \
    ends with 0. A second one: ends at once.\n\nA replica that starts again goes on from its \
    disk. One that may have forgotten votes (durability memory, a damaged log, --recover) first \
    fetches the state from the others and votes again when it cannot contradict itself; the \
    others go on meanwhile. A start on an emptied directory is refused, and says so.\n\n\
    Metrics: /metrics, /livez, /readyz and /status over HTTP; POST /checkpoint writes a \
    checkpoint to disk.\n\n\
    Behaviours of --misbehave: silent, crash-after=N (operations), wrong-reply, corrupt-state, \
    equivocate, slow-leader, garbage, forget, lying-source, forged-view-change, \
    wrong-checkpoint, slow-leader=MS, starve-replica=I, starve-client=C, starve-pillar=P, \
    view-storm. docs/drills.md tells what each leads to.\n\n\
    Examples:\n  stylite replica --config mygroup --id 0\n  \
    stylite replica --config mygroup --id 0 --recover\n  \
    stylite replica --config mygroup --id 2 --metrics 127.0.0.1:9102\n  \
    STYLITE_LOG=debug stylite replica --config mygroup/group.toml --id 3 --threads 2\n  \
    stylite replica --config drills --id 1 --misbehave equivocate")]
pub struct ReplicaArgs {
    /// The group's configuration, or the directory it is in.
    #[arg(long, value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: PathBuf,
    /// Which replica this is, from 0.
    #[arg(long, value_name = "I", env = "STYLITE_ID")]
    pub id: u16,
    /// When an operation is durable.
    #[arg(long, value_name = "MODE", default_value = "sync", env = "STYLITE_DURABILITY")]
    pub durability: Durability,
    /// Where the replica keeps its log and its checkpoints. [default: state/replica-I beside the
    /// group's configuration]
    #[arg(long, value_name = "DIR", env = "STYLITE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Start although the disk was lost or is in doubt: take the state from the other replicas,
    /// and vote only when nothing that was forgotten can be contradicted. Where the group has
    /// partitions it does so in all of them: bring back one replica after the other.
    #[arg(long, env = "STYLITE_RECOVER", value_parser = BoolishValueParser::new())]
    pub recover: bool,
    /// Do something wrong on purpose. Only in a group of `stylite init --drills`.
    #[arg(long, value_name = "BEHAVIOUR", env = "STYLITE_MISBEHAVE",
        value_parser = clap::value_parser!(Drill))]
    pub misbehave: Option<Drill>,
    /// Misbehave only from `POST /misbehave` to the metrics port on, until `POST /behave`.
    #[arg(long, env = "STYLITE_DRILL_PAUSED", value_parser = BoolishValueParser::new())]
    pub drill_paused: bool,
    /// What stands in for the disk in a drill. Only in a group of `stylite init --drills`.
    #[arg(long, value_name = "STORAGE", env = "STYLITE_DRILL_STORAGE")]
    pub drill_storage: Option<DrillStorage>,
    /// Where metrics and health are served over HTTP; `none` for nowhere. [default: 127.0.0.1,
    /// the port of pillar 0 plus 1000]
    #[arg(long, value_name = "ADDR", env = "STYLITE_METRICS", value_parser = metrics)]
    pub metrics: Option<Metrics>,
    /// How the work is put on threads.
    #[arg(long, value_name = "HOW", default_value = "cop", env = "STYLITE_PARALLELIZATION")]
    pub parallelization: Parallelization,
    /// Threads for pillars and execution together, of all partitions; of a pipeline, six or more.
    /// [default: one each, if the cores suffice]
    #[arg(long, value_name = "T", env = "STYLITE_THREADS", value_parser = positive)]
    pub threads: Option<usize>,
    /// Threads that execute independent operations at the same time, where the service is made
    /// for it; 0 or 1 for none. [default: as many as its share of the cores leaves over]
    #[arg(long, value_name = "N", env = "STYLITE_WORKERS")]
    pub workers: Option<usize>,
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
    /// Where metrics and health are served over HTTP; `none` for nowhere. [default: 127.0.0.1,
    /// the gateway's port plus 1000]
    #[arg(long, value_name = "ADDR", env = "STYLITE_METRICS", value_parser = metrics)]
    pub metrics: Option<Metrics>,
}

/// `stylite gateway zookeeper`.
#[derive(Args, Debug)]
#[command(after_help = "Run it beside the clients that use it: it votes on the replicas' answers \
    for them, and they trust it.\n\nExamples:\n  \
    stylite gateway zookeeper --config mygroup --listen 127.0.0.1:2181\n  \
    stylite gateway zookeeper --config mygroup --client 1")]
pub struct ZooKeeperArgs {
    /// The group's configuration, or the directory it is in.
    #[arg(long, value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: PathBuf,
    /// Which of the group's clients the gateway is.
    #[arg(long, value_name = "ID", default_value_t = 0, env = "STYLITE_CLIENT")]
    pub client: u32,
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2181", env = "STYLITE_LISTEN")]
    pub listen: SocketAddr,
    /// Listen on an address that other machines can reach. There is no TLS, and only ACLs ask
    /// for passwords.
    #[arg(long, env = "STYLITE_ALLOW_REMOTE", value_parser = BoolishValueParser::new())]
    pub allow_remote: bool,
    /// Where metrics and health are served over HTTP; `none` for nowhere. [default: 127.0.0.1,
    /// the gateway's port plus 1000]
    #[arg(long, value_name = "ADDR", env = "STYLITE_METRICS", value_parser = metrics)]
    pub metrics: Option<Metrics>,
}
