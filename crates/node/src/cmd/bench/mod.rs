//! `stylite bench`: puts load on a group, measures it, and checks that all replicas end with
//! the same state.
//!
//! | module | does |
//! |---|---|
//! | `ops` | the operations |
//! | `load`, `closed`, `open`, `idle` | connect the clients, submit and take the time |
//! | `tally` | what they count |
//! | `cpu` | what processes and threads used |
//! | `traffic` | what went through the replicas |
//! | `digests` | compares the replicas' states afterwards |
//! | `baseline` | what a plain program makes of the same bytes |
//! | `graph` | the dependency graph of parallel execution by itself |
//! | `suite` | the experiments of the papers, and their report |
//! | `config`, `result`, `table` | what was run, what came of it, and how it is printed |

mod baseline;
mod closed;
mod config;
mod cpu;
mod digests;
mod graph;
mod idle;
mod load;
mod open;
mod ops;
mod progress;
mod result;
mod suite;
mod table;
mod tally;
mod traffic;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::ClientId;
use client::{Client, ClientOptions};
use genesis::{Group, InitOptions, Settings};
use tokio::sync::oneshot;

use self::config::{Config, Placement};
use self::cpu::{Process, Used};
use self::digests::Verdict;
use self::idle::Idle;
use self::load::{Load, Plan};
use self::ops::Ops;
use self::progress::Progress;
use self::result::{CpuPerOp, Outcome, Report};
use self::table::table;
use self::tally::{Tally, Window};
use self::traffic::Counts;
use super::gateway::Protocol;
use super::{
    client_id, client_options, connect, load as load_group, print, print_json, runtime,
    warn_of_faults,
};
use crate::cli::{Agreement, BenchArgs, BenchCommand, Output};
use crate::exit::Exit;
use crate::local::{LocalGroup, LocalOptions, wait_until_healthy};
use crate::probe::Prober;
use crate::signals::Signals;

/// How long a replica may take to say how it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Operations of an open loop that a client holds: enough to fill its window with full frames.
const OPEN_OPS_MAX: usize = 1 << 16;
/// Their bytes.
const OPEN_BYTES_MAX: usize = 16 << 20;
/// Deletions of keys that are under way at a time.
const DELETIONS_AT_ONCE: usize = 256;
/// Threads of the load generator, unless said otherwise.
const THREADS_DEFAULT: usize = 2;

/// Runs the command.
///
/// # Errors
/// When the group cannot be started or reached, or the load generator fails.
pub fn run(args: BenchArgs, log: Option<&str>) -> Result<Exit> {
    match &args.command {
        Some(BenchCommand::Suite(args)) => return suite::run(args),
        Some(BenchCommand::Baseline(args)) => return baseline::run(args),
        Some(BenchCommand::Graph(args)) => return graph::run(args),
        None => {}
    }
    let placement = Placement::new(&args)?;
    if args.local {
        if args.group.agreement == Agreement::Pbft {
            warn_of_faults(args.group.replicas(), None);
        }
        return run_local(args, placement, log);
    }
    let path = args.config.as_deref().context("either --local or --config")?;
    let group = load_group(path)?;
    let probers = Prober::each(&group, client_id(&group, args.client)?, PROBE_TIMEOUT)?;
    measure(&args, (&group, &probers), &[], placement)
}

fn run_local(args: BenchArgs, placement: Placement, log: Option<&str>) -> Result<Exit> {
    if let Some(config) = &args.config {
        tracing::warn!("--local starts a group of its own; {} is not used", config.display());
    }
    let runtime = runtime()?;
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let mut local = LocalGroup::start(&local_options(&args, &placement, log))?;
    let group = local.group().clone();
    let probers = Prober::each(&group, client_id(&group, None)?, PROBE_TIMEOUT)?;
    let pids = local.pids();
    let (done, outcome) = oneshot::channel();
    let ended = runtime.block_on(async {
        tokio::select! {
            number = signals.next() => return Err(number),
            ready = wait_until_healthy(&probers, &mut local) => if let Err(error) = ready {
                return Ok(Err(error));
            },
        }
        // On a thread of its own, so that signals are heard meanwhile and the group goes with
        // this process, whatever happens.
        std::thread::spawn(move || done.send(measure(&args, (&group, &probers), &pids, placement)));
        tokio::select! {
            number = signals.next() => Err(number),
            outcome = outcome => Ok(outcome.unwrap_or_else(|_| bail!("the run has failed"))),
        }
    });
    let lost = local.ended();
    local.stop();
    let exit = match ended {
        Ok(exit) => exit?,
        Err(number) => std::process::exit(128 + number),
    };
    for one in &lost {
        eprintln!("replica {} ended during the run: {}", one.id, one.status);
    }
    Ok(if lost.is_empty() { exit } else { Exit::Failed })
}

/// The group that `--local` starts. Each of the load's clients is a principal of its own, and
/// one more asks for the status.
fn local_options(args: &BenchArgs, placement: &Placement, log: Option<&str>) -> LocalOptions {
    let agreement = args.group.agreement.into();
    let mut settings = Settings { agreement, ..args.group.ways.settings() };
    settings.batching.unbatched = args.load.no_batching;
    LocalOptions {
        init: InitOptions {
            name: "bench".to_owned(),
            service: args.group.service.clone(),
            replicas: args.group.replicas(),
            pillars: args.group.pillars,
            clients: args.load.clients + args.load.idle_clients + 1,
            transport: args.group.transport.into(),
            settings,
            ..InitOptions::default()
        },
        dir: None,
        threads: args.group.threads,
        workers: args.group.workers,
        parallelization: args.group.parallelization,
        log: log.unwrap_or("warn").to_owned(),
        durability: args.group.durability,
        drills: Vec::new(),
        metrics: false,
        cpus: placement.replicas.clone(),
    }
}

/// The group under load, and how to look at it.
struct Site<'a> {
    args: &'a BenchArgs,
    group: &'a Group,
    /// One for each partition.
    probers: &'a [Prober],
    /// The processes of the replicas, in order, and last this one.
    processes: Vec<Process>,
    placement: Placement,
}

fn measure(
    args: &BenchArgs,
    (group, probers): (&Group, &[Prober]),
    pids: &[u32],
    placement: Placement,
) -> Result<Exit> {
    if let Some(cpus) = &placement.clients {
        // For this thread and those that it starts: the whole load generator.
        cpus.enter().with_context(|| format!("cannot use the processors {cpus}"))?;
    }
    let replica = |(id, pid): (usize, &u32)| Process { role: format!("replica {id}"), pid: *pid };
    let mut processes: Vec<Process> = pids.iter().enumerate().map(replica).collect();
    processes.push(Process { role: "clients".to_owned(), pid: std::process::id() });
    let site = Site { args, group, probers, processes, placement };
    let plan = Arc::new(plan(args, group)?);
    if plan.ops.opening().is_some() {
        runtime()?.block_on(async {
            let client = connect(group, load_principal(args, group, 0)?).await?;
            let made = ops::make_nodes(&client, args.load.keys, args.load.payload).await;
            client.close().await;
            made
        })?;
    }
    let idle = site.idle()?;
    let mut outcomes = Vec::new();
    for run in 0..args.load.runs {
        outcomes.push(site.run(&plan, run)?);
    }
    drop(idle);
    let report = Report::new(outcomes);
    if let Some(path) = &args.json {
        save(path, &report)?;
    }
    match args.output {
        Output::Json => print_json(&report)?,
        Output::Table => print(&table(&report))?,
    }
    Ok(match (report.verdict(), report.is_stalled()) {
        (Verdict::Different, _) => Exit::Diverged,
        (Verdict::Unknown, _) | (_, true) => Exit::Failed,
        (Verdict::Equal, false) => Exit::Ok,
    })
}

fn save(path: &Path, report: &Report) -> Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

impl Site<'_> {
    fn idle(&self) -> Result<Option<Idle>> {
        let load = &self.args.load;
        if load.idle_clients == 0 {
            return Ok(None);
        }
        let numbers = load.clients..load.clients + load.idle_clients;
        let group = self.group;
        let options = |number| {
            let options = client_options(group, load_principal(self.args, group, number)?)?;
            Ok(ClientOptions { connect_timeout: load.connect_timeout, ..options })
        };
        Idle::connect(numbers.map(options).collect::<Result<_>>()?).map(Some)
    }

    /// One run, from the connection of the clients to the comparison of the replicas.
    fn run(&self, plan: &Arc<Plan>, number: u32) -> Result<Outcome> {
        let args = self.args;
        let load = Load::connect(plan)?;
        let start = Instant::now();
        let from = start + args.load.warmup;
        let window = Window { start, from, until: from + args.load.duration };
        load.go(window);
        let progress = Progress::new(&args.load, window, number);
        progress.wait(&load, window.from);
        let before = self.look()?;
        progress.wait(&load, window.until);
        let after = self.look()?;
        progress.say("waiting for the last operations");
        let tally = load.finish()?;
        let last = number + 1 == args.load.runs;
        let (keys_left, digests) = self.compare(&progress, last)?;
        progress.end();
        let config = Config { keys_left, ..Config::new(args, self.group, plan, &self.placement) };
        Ok(self.outcome(tally, (&before, &after), digests, config))
    }

    fn look(&self) -> Result<(Used, Counts)> {
        let used = Used::now(&self.processes, &self.placement.allowed);
        let counts = runtime()?.block_on(Counts::now(self.probers));
        Ok((used, counts))
    }

    /// Compares the replicas' states, after the keys were deleted if they are to be.
    fn compare(
        &self,
        progress: &Progress,
        last: bool,
    ) -> Result<(Option<bool>, digests::Comparison)> {
        let (args, group) = (self.args, self.group);
        runtime()?.block_on(async {
            let id = load_principal(args, group, 0)?;
            let mut keys_left = None;
            if last && !args.local && Protocol::of(group.service()) == Some(Protocol::Redis) {
                progress.say("deleting the keys");
                let client = connect(group, id).await?;
                let at_once = if client.partitions() > 1 { 1 } else { ops::KEYS_PER_DELETION };
                keys_left = Some(!deleted(&client, args.load.keys, at_once).await);
                client.close().await;
            }
            progress.say("comparing the replicas' states");
            let mut compared = Vec::with_capacity(self.probers.len());
            for prober in self.probers {
                let client = connect(prober.group(), id).await?;
                let one = digests::compare(prober, &client).await;
                client.close().await;
                compared.push(one?);
            }
            Ok((keys_left, digests::Comparison::together(compared)))
        })
    }

    fn outcome(
        &self,
        tally: Tally,
        (before, after): (&(Used, Counts), &(Used, Counts)),
        digests: digests::Comparison,
        config: Config,
    ) -> Outcome {
        let duration_s = self.args.load.duration.as_secs_f64();
        let me = std::process::id();
        let replicas_us = after.0.but(me, &before.0);
        let replicas_us = (self.processes.len() > 1).then_some(replicas_us);
        let cpu = CpuPerOp::new(tally.ops, replicas_us, after.0.of(me, &before.0));
        let mut rows = after.0.rows(&before.0, tally.ops, duration_s);
        let leader = after.1.leader().map(usize::from);
        if let Some(row) = leader.and_then(|id| rows[..self.processes.len() - 1].get_mut(id)) {
            row.role.push_str(" (leader)");
        }
        let whole = self.args.load.duration.as_secs();
        let mut seconds = tally.seconds;
        seconds.resize(usize::try_from(whole).unwrap_or(usize::MAX).min(seconds.len()), 0);
        Outcome {
            ops_per_s: tally.ops as f64 / duration_s,
            seconds,
            latency_us: (&tally.latency).into(),
            cpu_us_per_op: cpu,
            cpu: rows,
            disturbance: after.0.disturbance(&before.0),
            traffic: after.1.rows(&before.1),
            errors: tally.errors.values().sum(),
            error_causes: tally.errors,
            unsent: tally.unsent,
            duration_s,
            ops: tally.ops,
            digests: digests.verdict,
            digests_compared: digests,
            config,
        }
    }
}

/// Deletes the keys of the load from a group that is not ours; false when that fails.
async fn deleted(client: &Client, keys: u64, keys_at_once: usize) -> bool {
    let mut deletions = ops::forget(keys, keys_at_once);
    loop {
        let some = deletions.by_ref().take(DELETIONS_AT_ONCE);
        let calls: Vec<_> = some.map(|op| client.call(0, &op)).collect();
        if calls.is_empty() {
            return true;
        }
        for call in calls {
            if !call.await.is_ok_and(|reply| reply.starts_with(b":")) {
                return false;
            }
        }
    }
}

fn plan(args: &BenchArgs, group: &Group) -> Result<Plan> {
    let load = &args.load;
    let mut clients = Vec::new();
    for number in 0..load.clients {
        let mut options = client_options(group, load_principal(args, group, number)?)?;
        options.connect_timeout = load.connect_timeout;
        options.unbatched = load.no_batching;
        options.lines = load.lines;
        if load.rate.is_some() {
            // What a client does not take waits outside, and is late all the same.
            (options.queued_ops_max, options.queued_bytes_max) = (OPEN_OPS_MAX, OPEN_BYTES_MAX);
        } else {
            let outstanding = 2 * load.outstanding as usize;
            options.queued_ops_max = options.queued_ops_max.max(outstanding);
        }
        clients.push(options);
    }
    let seed = auth::random_u64()? >> 1;
    let ops = match load.work() {
        Some(work) if group.service() == "work" => Ops::working(work, load.keys, seed)?,
        Some(_) => bail!("--sleep and --spin are for the service work"),
        None => Ops::new(group.service(), load.payload, load.reply, load.keys, seed)?,
    };
    let ops = ops.reading(group.service(), load.read_percent)?;
    if ops.opening().is_some() && load.rate.is_some() {
        bail!("the load of the service zookeeper is a closed loop");
    }
    let wanted = load.client_threads.unwrap_or(THREADS_DEFAULT);
    let threads = wanted.min(clients.len());
    // Behind a write of its stream a read has to wait for the order: with reads, each operation
    // under way is somebody else's.
    let many = if load.read_percent > 0 { load.outstanding } else { 1 };
    let streams = many.next_multiple_of(u32::from(group.pillars()) * u32::from(group.partitions()));
    let (outstanding, rate) = (load.outstanding, load.rate.map(|rate| (rate, load.arrivals)));
    Ok(Plan { clients, threads, ops, streams, outstanding, rate })
}

/// As whom a client of the load connects: against our own group each as somebody else,
/// otherwise all as the one that was asked for.
fn load_principal(args: &BenchArgs, group: &Group, number: u32) -> Result<ClientId> {
    let wanted = if args.local { Some(number) } else { args.client };
    client_id(group, wanted)
}
