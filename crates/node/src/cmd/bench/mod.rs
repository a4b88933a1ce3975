//! `stylite bench`: puts load on a group, measures it, and checks that all replicas end with
//! the same state.
//!
//! | module | does |
//! |---|---|
//! | `ops` | the operations |
//! | `load` | submits them and takes the time |
//! | `cpu` | what the processes used |
//! | `digests` | compares the replicas' states afterwards |
//! | `result` | the result and how it is printed |

mod cpu;
mod digests;
mod load;
mod ops;
mod result;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::ClientId;
use client::Client;
use genesis::{Group, InitOptions, Settings};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;

use self::digests::Verdict;
use self::load::{Load, Plan, Tally, Window};
use self::ops::Ops;
use self::result::{Config, CpuPerOp, Outcome};
use super::gateway::SERVICE;
use super::{
    client_id, client_options, connect, load as load_group, print, print_json, runtime,
    warn_of_faults,
};
use crate::cli::{Agreement, BenchArgs, Output};
use crate::exit::Exit;
use crate::local::{LocalGroup, LocalOptions, wait_until_healthy};
use crate::probe::Prober;
use crate::signals::Signals;

/// How long a replica may take to say how it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Threads of the load generator, unless said otherwise.
const THREADS_DEFAULT: usize = 2;

/// Runs the command.
///
/// # Errors
/// When the group cannot be started or reached, or the load generator fails.
pub fn run(args: BenchArgs, log: Option<&str>) -> Result<Exit> {
    if args.local {
        if args.group.agreement == Agreement::Pbft {
            warn_of_faults(args.group.replicas(), None);
        }
        return run_local(args, log);
    }
    let path = args.config.as_deref().context("either --local or --config")?;
    let group = load_group(path)?;
    let prober = Prober::new(&group, client_id(&group, args.client)?, PROBE_TIMEOUT)?;
    measure(&args, &prober, &[])
}

fn run_local(args: BenchArgs, log: Option<&str>) -> Result<Exit> {
    if let Some(config) = &args.config {
        tracing::warn!("--local starts a group of its own; {} is not used", config.display());
    }
    let runtime = runtime()?;
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let mut local = LocalGroup::start(&local_options(&args, log))?;
    let group = local.group().clone();
    let prober = Prober::new(&group, client_id(&group, None)?, PROBE_TIMEOUT)?;
    let pids = local.pids();
    let (done, outcome) = oneshot::channel();
    let ended = runtime.block_on(async {
        tokio::select! {
            number = signals.next() => return Err(number),
            ready = wait_until_healthy(&prober, &mut local) => if let Err(error) = ready {
                return Ok(Err(error));
            },
        }
        // On a thread of its own, so that signals are heard meanwhile and the group goes with
        // this process, whatever happens.
        std::thread::spawn(move || done.send(measure(&args, &prober, &pids)));
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
fn local_options(args: &BenchArgs, log: Option<&str>) -> LocalOptions {
    let agreement = args.group.agreement.into();
    let mut settings = Settings { agreement, ..Settings::default() };
    settings.batching.unbatched = args.load.no_batching;
    LocalOptions {
        init: InitOptions {
            name: "bench".to_owned(),
            service: args.group.service.clone(),
            replicas: args.group.replicas(),
            pillars: args.group.pillars,
            clients: args.load.clients + 1,
            settings,
            ..InitOptions::default()
        },
        dir: None,
        threads: args.group.threads,
        log: log.unwrap_or("warn").to_owned(),
        durability: args.group.durability,
        drills: Vec::new(),
        metrics: false,
    }
}

fn measure(args: &BenchArgs, prober: &Prober, pids: &[u32]) -> Result<Exit> {
    let group = prober.group();
    let plan = plan(args, group)?;
    let load = Load::connect(&plan)?;
    let start = Instant::now();
    let from = start + args.load.warmup;
    let window = Window { start, from, until: from + args.load.duration };
    load.go(window);
    let progress = Progress::new(args, window);
    progress.wait(&load, window.from);
    let before = (cpu::used_by_all_us(pids), cpu::used_us(std::process::id()));
    progress.wait(&load, window.until);
    let replicas_us = cpu::used_by_all_us(pids).saturating_sub(before.0);
    let clients_us = cpu::used_us(std::process::id()).saturating_sub(before.1);
    progress.say("waiting for the last operations");
    let tally = load.finish()?;
    let (keys_left, digests) = runtime()?.block_on(async {
        let client = connect(group, load_principal(args, group, 0)?).await?;
        let mut keys_left = None;
        if !args.local && group.service() == SERVICE {
            progress.say("deleting the keys");
            keys_left = Some(!deleted(&client, args.load.keys).await);
        }
        progress.say("comparing the replicas' states");
        let compared = digests::compare(prober, &client).await;
        client.close().await;
        anyhow::Ok((keys_left, compared?))
    })?;
    progress.end();
    let cpu = CpuPerOp::new(tally.ops, (!pids.is_empty()).then_some(replicas_us), clients_us);
    let failed = tally.ops == 0 || digests.verdict == Verdict::Unknown;
    let diverged = digests.verdict == Verdict::Different;
    let config = Config { keys_left, ..Config::new(args, group, &plan) };
    let outcome = outcome(tally, args.load.duration, cpu, digests, config);
    match args.output {
        Output::Json => print_json(&outcome)?,
        Output::Table => print(&outcome.table())?,
    }
    Ok(match (diverged, failed) {
        (true, _) => Exit::Diverged,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Ok,
    })
}

/// Deletes the keys of the load from a group that is not ours; false when that fails.
async fn deleted(client: &Client, keys: u64) -> bool {
    for op in ops::forget(keys) {
        let fine = |reply: &[u8]| reply.starts_with(b":");
        if !client.call(0, &op).await.is_ok_and(|reply| fine(&reply)) {
            return false;
        }
    }
    true
}

fn outcome(
    tally: Tally,
    measured: Duration,
    cpu: CpuPerOp,
    digests: digests::Comparison,
    config: Config,
) -> Outcome {
    let duration_s = measured.as_secs_f64();
    Outcome {
        ops_per_s: tally.ops as f64 / duration_s,
        latency_us: (&tally.latency).into(),
        cpu_us_per_op: cpu,
        errors: tally.errors.values().sum(),
        error_causes: tally.errors,
        duration_s,
        ops: tally.ops,
        digests: digests.verdict,
        digests_compared: digests,
        config,
    }
}

fn plan(args: &BenchArgs, group: &Group) -> Result<Plan> {
    let load = &args.load;
    let mut clients = Vec::new();
    for number in 0..load.clients {
        let mut options = client_options(group, load_principal(args, group, number)?)?;
        options.unbatched = load.no_batching;
        options.queued_ops_max = options.queued_ops_max.max(2 * load.outstanding as usize);
        clients.push(options);
    }
    let seed = auth::random_u64()? >> 1;
    let ops = Ops::new(group.service(), load.payload, load.reply, load.keys, seed)?;
    let wanted = load.client_threads.unwrap_or(THREADS_DEFAULT);
    let threads = wanted.min(clients.len());
    let streams = u32::from(group.pillars());
    let (outstanding, rate) = (load.outstanding, load.rate);
    Ok(Plan { clients, threads, ops, streams, outstanding, rate })
}

/// As whom a client of the load connects: against our own group each as somebody else,
/// otherwise all as the one that was asked for.
fn load_principal(args: &BenchArgs, group: &Group, number: u32) -> Result<ClientId> {
    let wanted = if args.local { Some(number) } else { args.client };
    client_id(group, wanted)
}

/// A line on the terminal that says how far the run is.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new(args: &BenchArgs, window: Window) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let total = window.until.saturating_duration_since(window.start).as_millis();
        let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
        bar.set_style(style.expect("the template is well-formed"));
        bar.set_message(if args.load.warmup.is_zero() { "measuring" } else { "warming up" });
        Progress(Some(bar))
    }

    /// Waits until then, showing how fast it goes.
    fn wait(&self, load: &Load, until: Instant) {
        let mut last = (Instant::now(), load.done());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(PROGRESS_EVERY));
            if let Some(bar) = &self.0 {
                let now = (Instant::now(), load.done());
                let speed = (now.1 - last.1) as f64 / (now.0 - last.0).as_secs_f64();
                bar.inc(u64::try_from((now.0 - last.0).as_millis()).unwrap_or(u64::MAX));
                bar.set_message(format!("{speed:.0} operations/s"));
                last = now;
            }
        }
    }

    fn say(&self, what: &'static str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
