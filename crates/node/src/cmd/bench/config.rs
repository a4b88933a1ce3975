//! All effective settings of a run.

use anyhow::Result;
use genesis::Group;
use serde::Serialize;

use super::load::Plan;
use crate::cli::BenchArgs;
use crate::cpus::{Cpus, ReplicaCpus, share_out};
use crate::values::count;

/// All effective settings of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// Whether the group was started for the run.
    pub local: bool,
    /// The group.
    pub group: GroupConfig,
    /// `closed` or `open`.
    pub mode: &'static str,
    /// When operations of an open loop are due; none in a closed loop.
    pub arrivals: Option<&'static str>,
    /// Whose key authenticates an operation.
    pub principal: &'static str,
    /// Who asks.
    #[serde(flatten)]
    pub sessions: Sessions,
    /// Threads of the load generator.
    pub client_threads: usize,
    /// Operations under way per client; none in an open loop.
    pub outstanding: Option<u32>,
    /// Operations due per second; none in a closed loop.
    pub rate: Option<u64>,
    /// Bytes that each operation carries.
    pub payload: u32,
    /// How many of a hundred operations only read.
    pub read_percent: u8,
    /// Bytes that each is answered; none where the service decides.
    pub reply: Option<u32>,
    /// Keys written; none where the service has none.
    pub keys: Option<u64>,
    /// Whether keys stayed in a group that is not of this run; none where nothing is written.
    pub keys_left: Option<bool>,
    /// Seconds to be measured.
    pub duration_s: f64,
    /// Seconds before.
    pub warmup_s: f64,
    /// Whether clients put many operations into a frame.
    pub client_batching: bool,
    /// Where it ran.
    pub machine: Machine,
}

/// Who asks.
#[derive(Clone, Debug, Serialize)]
pub struct Sessions {
    /// Sessions.
    pub clients: usize,
    /// Streams of each, which it deals out to the pillars from its own on.
    pub lines: u16,
    /// Sessions beside them that do nothing.
    pub idle_clients: u32,
}

/// Where a run took place.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cpus: usize,
    /// What they are called; empty where the system does not say.
    pub processor: String,
    /// The kernel; empty where it does not say.
    pub kernel: String,
    /// The processors of each replica, if they were told.
    pub replica_cpus: Option<String>,
    /// Those of the load generator, if they were told.
    pub client_cpus: Option<String>,
}

/// Which ways of doing the same thing the group has chosen.
#[derive(Clone, Debug, Serialize)]
pub struct Ways {
    /// Who leads in a view.
    pub leaders: &'static str,
    /// When COMMITs leave.
    pub commits: &'static str,
    /// How replicas answer.
    pub replies: &'static str,
    /// Which replicas answer.
    pub repliers: &'static str,
    /// How the bodies of frames get to the replicas.
    pub bodies: &'static str,
    /// How operations that only read are answered.
    pub reads: &'static str,
    /// How a pillar without clients fills its numbers.
    pub idle: &'static str,
    /// Whether what is prepared is executed before it is committed.
    pub tentative: bool,
}

/// What the group is.
#[derive(Clone, Debug, Serialize)]
pub struct GroupConfig {
    /// Its service.
    pub service: String,
    /// `pbft` or `none`.
    pub agreement: &'static str,
    /// n.
    pub replicas: u16,
    /// f.
    pub faults: u16,
    /// P.
    pub pillars: u16,
    /// Parts of the state, each with as many pillars.
    pub partitions: u16,
    /// `memory`, `async` or `sync`; none when the replicas are not ours to know it.
    pub durability: Option<&'static str>,
    /// `cop` or `top`; none when the replicas are not ours to know it.
    pub parallelization: Option<&'static str>,
    /// Threads per replica, if they were told.
    pub threads: Option<usize>,
    /// K.
    pub checkpoint_interval: u64,
    /// L.
    pub window: u64,
    /// Whether leaders put many frames into a batch.
    pub batching: bool,
    /// What it has chosen.
    #[serde(flatten)]
    pub ways: Ways,
    /// What carries packets.
    pub transport: &'static str,
    /// Most frames in a batch.
    pub batch_frames_max: usize,
    /// Most bytes in a batch.
    pub batch_bytes_max: usize,
    /// How long a batch waits for more, in microseconds.
    pub batch_delay_us: u64,
    /// Batches in agreement at once, per pillar.
    pub batches_in_flight_max: usize,
}

/// Which processors do what.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Those that this process was given.
    pub allowed: Cpus,
    /// Those of the replicas, if not all.
    pub replicas: Option<ReplicaCpus>,
    /// Those of the load generator, if not all.
    pub clients: Option<Cpus>,
}

/// A client of `--local` has a key of its own, which authenticates all operations of its frames.
const OWN_PRINCIPALS: &str = "each client connection";
/// Against a group of others all sessions are those of one client.
const ONE_PRINCIPAL: &str = "one for all client connections";

impl Config {
    /// Puts together what holds.
    #[must_use]
    pub fn new(args: &BenchArgs, group: &Group, plan: &Plan, placement: &Placement) -> Config {
        let load = &args.load;
        let echo = group.service() == "echo";
        Config {
            local: args.local,
            group: GroupConfig::new(args, group),
            mode: if load.rate.is_some() { "open" } else { "closed" },
            sessions: Sessions {
                clients: plan.clients.len(),
                lines: load.lines.unwrap_or(group.pillars()),
                idle_clients: load.idle_clients,
            },
            client_threads: plan.threads,
            outstanding: load.rate.is_none().then_some(load.outstanding),
            rate: load.rate,
            arrivals: load.rate.map(|_| load.arrivals.word()),
            principal: if args.local { OWN_PRINCIPALS } else { ONE_PRINCIPAL },
            payload: load.payload,
            read_percent: load.read_percent,
            reply: echo.then_some(load.reply),
            keys: (!echo).then_some(load.keys),
            keys_left: None,
            duration_s: load.duration.as_secs_f64(),
            warmup_s: load.warmup.as_secs_f64(),
            client_batching: !load.no_batching,
            machine: Machine::here(placement),
        }
    }

    /// What an operation is, in words.
    #[must_use]
    pub fn operation(&self) -> String {
        let bytes = |bytes: u32| count(bytes.into(), "byte");
        let what = match (self.reply, self.payload) {
            (Some(0), 0) => "empty, empty reply".to_owned(),
            (Some(reply), payload) => format!("{} there, {} back", bytes(payload), bytes(reply)),
            (None, payload) if self.group.service == "zookeeper" => {
                format!("setData of {}", bytes(payload))
            }
            (None, payload) => format!("SET of a value of {}", bytes(payload)),
        };
        let what = match self.read_percent {
            0 => what,
            percent => format!("{what}, {percent} % of them reads"),
        };
        let frames = if self.client_batching { "many per frame" } else { "one per frame" };
        let batches =
            if self.group.batching { "many frames per batch" } else { "one frame per batch" };
        format!("{what}; {frames}, {batches}")
    }
}

impl GroupConfig {
    fn new(args: &BenchArgs, group: &Group) -> GroupConfig {
        let (settings, batching) = (group.settings(), group.settings().batching);
        GroupConfig {
            service: group.service().to_owned(),
            agreement: settings.agreement.word(),
            replicas: group.quorums().n(),
            faults: group.quorums().f(),
            pillars: group.pillars(),
            partitions: group.partitions(),
            durability: args.local.then(|| args.group.durability.word()),
            parallelization: args.local.then(|| args.group.parallelization.word()),
            threads: args.group.threads.filter(|_| args.local),
            checkpoint_interval: settings.checkpoint_interval,
            window: settings.window,
            batching: !batching.unbatched,
            ways: Ways {
                leaders: settings.leaders.word(),
                commits: settings.commits.word(),
                replies: settings.replies.word(),
                repliers: settings.repliers.word(),
                bodies: settings.bodies.word(),
                reads: settings.reads.word(),
                idle: settings.idle.word(),
                tentative: settings.tentative,
            },
            transport: group.transport().word(),
            batch_frames_max: batching.frames_limit(),
            batch_bytes_max: batching.bytes_max,
            batch_delay_us: batching.delay.0 / 1_000,
            batches_in_flight_max: batching.in_flight_max,
        }
    }
}

impl Machine {
    /// This one, with all of its processors.
    #[must_use]
    pub fn plain() -> Machine {
        Machine::here(&Placement { allowed: Cpus::allowed(), replicas: None, clients: None })
    }

    /// This one.
    #[must_use]
    pub fn here(placement: &Placement) -> Machine {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Machine {
            cpus: placement.allowed.count(),
            processor: model.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            replica_cpus: placement.replicas.as_ref().map(ToString::to_string),
            client_cpus: placement.clients.as_ref().map(ToString::to_string),
        }
    }
}

impl Placement {
    /// What the command line asks for.
    ///
    /// # Errors
    /// When there are not as many processors.
    pub fn new(args: &BenchArgs) -> Result<Placement> {
        let allowed = Cpus::allowed();
        let (mut replicas, mut clients) = (args.group.replica_cpus.clone(), None);
        if let Some(share) = args.group.cores_per_replica {
            let shared = share_out(&allowed, args.group.replicas().into(), share);
            let (of_replicas, of_clients) = shared.map_err(anyhow::Error::msg)?;
            (replicas, clients) = (Some(of_replicas), Some(of_clients));
        }
        let clients = args.load.client_cpus.clone().or(clients);
        Ok(Placement { allowed, replicas: replicas.filter(|_| args.local), clients })
    }
}
