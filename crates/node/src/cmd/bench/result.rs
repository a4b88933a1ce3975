//! The result of a run, and how it is printed.

use std::collections::BTreeMap;
use std::fmt::Write;

use genesis::Group;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::digests::{Comparison, Verdict};
use super::load::Plan;
use crate::cli::BenchArgs;
use crate::values::count;

/// Everything that came of a run. Printed as one JSON object.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Operations that ended well per second of measured time.
    pub ops_per_s: f64,
    /// Latency of operations, in microseconds.
    pub latency_us: Latency,
    /// Processor time per operation, in microseconds.
    pub cpu_us_per_op: CpuPerOp,
    /// Operations that did not end well, over the whole run.
    pub errors: u64,
    /// The same by cause.
    pub error_causes: BTreeMap<String, u64>,
    /// Seconds that were measured.
    pub duration_s: f64,
    /// Operations that ended well within them.
    pub ops: u64,
    /// Whether the replicas have the same state afterwards.
    pub digests: Verdict,
    /// How that was found out.
    pub digests_compared: Comparison,
    /// All effective settings.
    pub config: Config,
}

/// Percentiles of a latency, in microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
}

/// Processor time per operation, in microseconds, from the operating system's accounting.
#[derive(Debug, Serialize)]
pub struct CpuPerOp {
    /// Of all replicas together; none when they are not processes of this run.
    pub replicas: Option<f64>,
    /// Of the load generator.
    pub clients: Option<f64>,
}

/// All effective settings of a run.
#[derive(Debug, Serialize)]
pub struct Config {
    /// Whether the group was started for the run.
    pub local: bool,
    /// The group.
    pub group: GroupConfig,
    /// `closed` or `open`.
    pub mode: &'static str,
    /// Sessions.
    pub clients: usize,
    /// Threads of the load generator.
    pub client_threads: usize,
    /// Operations under way per client; none in an open loop.
    pub outstanding: Option<u32>,
    /// Operations due per second; none in a closed loop.
    pub rate: Option<u64>,
    /// Bytes that each operation carries.
    pub payload: u32,
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
    /// Processors that this process may use.
    pub cpus: usize,
}

/// What the group is.
#[derive(Debug, Serialize)]
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
    /// `memory`, `async` or `sync`; none when the replicas are not ours to know it.
    pub durability: Option<&'static str>,
    /// Threads per replica, if they were told.
    pub threads: Option<usize>,
    /// K.
    pub checkpoint_interval: u64,
    /// L.
    pub window: u64,
    /// Whether leaders put many frames into a batch.
    pub batching: bool,
    /// Most frames in a batch.
    pub batch_frames_max: usize,
    /// Most bytes in a batch.
    pub batch_bytes_max: usize,
    /// How long a batch waits for more, in microseconds.
    pub batch_delay_us: u64,
    /// Batches in agreement at once, per pillar.
    pub batches_in_flight_max: usize,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Latency {
        Latency {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            mean: (histogram.mean() * 10.0).round() / 10.0,
        }
    }
}

impl CpuPerOp {
    /// Divides; none where there were no operations.
    #[must_use]
    pub fn new(ops: u64, replicas_us: Option<u64>, clients_us: u64) -> CpuPerOp {
        let per_op =
            |us: u64| (ops > 0).then(|| (us as f64 / ops as f64 * 1_000.0).round() / 1_000.0);
        CpuPerOp { replicas: replicas_us.and_then(per_op), clients: per_op(clients_us) }
    }
}

impl Config {
    /// Puts together what holds.
    #[must_use]
    pub fn new(args: &BenchArgs, group: &Group, plan: &Plan) -> Config {
        let load = &args.load;
        let echo = group.service() == "echo";
        Config {
            local: args.local,
            group: GroupConfig::new(args, group),
            mode: if load.rate.is_some() { "open" } else { "closed" },
            clients: plan.clients.len(),
            client_threads: plan.threads,
            outstanding: load.rate.is_none().then_some(load.outstanding),
            rate: load.rate,
            payload: load.payload,
            reply: echo.then_some(load.reply),
            keys: (!echo).then_some(load.keys),
            keys_left: None,
            duration_s: load.duration.as_secs_f64(),
            warmup_s: load.warmup.as_secs_f64(),
            client_batching: !load.no_batching,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Config {
    /// What an operation is, in words.
    fn operation(&self) -> String {
        let bytes = |bytes: u32| count(bytes.into(), "byte");
        let what = match (self.reply, self.payload) {
            (Some(0), 0) => "empty, empty reply".to_owned(),
            (Some(reply), payload) => format!("{} there, {} back", bytes(payload), bytes(reply)),
            (None, payload) => format!("SET of a value of {}", bytes(payload)),
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
            durability: args.local.then(|| args.group.durability.word()),
            threads: args.group.threads.filter(|_| args.local),
            checkpoint_interval: settings.checkpoint_interval,
            window: settings.window,
            batching: !batching.unbatched,
            batch_frames_max: batching.frames_limit(),
            batch_bytes_max: batching.bytes_max,
            batch_delay_us: batching.delay.0 / 1_000,
            batches_in_flight_max: batching.in_flight_max,
        }
    }
}

impl Outcome {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing to a string does not fail");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Outcome { latency_us: latency, config, .. } = self;
        let group = &config.group;
        writeln!(
            out,
            "group       {}, {}, {} service{}",
            match group.agreement {
                "none" => "one server without agreement".to_owned(),
                _ => format!("{} (f = {})", count(group.replicas.into(), "replica"), group.faults),
            },
            count(group.pillars.into(), "pillar"),
            group.service,
            group.durability.map_or_else(String::new, |mode| format!(", durability {mode}")),
        )?;
        let load = match (config.rate, config.outstanding) {
            (Some(rate), _) => format!("open loop, {rate} operations/s"),
            (None, outstanding) => {
                format!("closed loop, {} outstanding each", outstanding.unwrap_or(0))
            }
        };
        writeln!(out, "load        {}, {load}", count(config.clients as u64, "client"))?;
        writeln!(out, "operation   {}", config.operation())?;
        if let (Some(left), Some(keys)) = (config.keys_left, config.keys) {
            let fate = if left { "could not be deleted: they STAY" } else { "deleted afterwards" };
            writeln!(out, "keys        bench:000000000 to bench:{:09} {fate}", keys - 1)?;
        }
        writeln!(out, "throughput  {:.0} operations/s over {:.1} s", self.ops_per_s, {
            self.duration_s
        })?;
        writeln!(
            out,
            "latency     p50 {} µs, p90 {} µs, p99 {} µs, p99.9 {} µs, max {} µs",
            latency.p50, latency.p90, latency.p99, latency.p999, latency.max,
        )?;
        let cpu = &self.cpu_us_per_op;
        let replicas = cpu.replicas.map(|us| format!("replicas {us:.3} µs and "));
        if let Some(clients) = cpu.clients {
            let replicas = replicas.unwrap_or_default();
            writeln!(out, "processor   {replicas}clients {clients:.3} µs per operation")?;
        }
        writeln!(out, "errors      {}", self.errors)?;
        for (cause, count) in &self.error_causes {
            writeln!(out, "            {count} times: {cause}")?;
        }
        let compared = &self.digests_compared;
        let verdict = match self.digests {
            Verdict::Equal => "equal",
            Verdict::Different => "DIFFERENT",
            Verdict::Unknown => "unknown",
        };
        let (replicas, at) = (compared.replicas, compared.at);
        writeln!(out, "digests     {verdict}: {replicas} replicas at sequence number {at}")?;
        match &compared.why {
            Some(why) => writeln!(out, "            {why}"),
            None => Ok(()),
        }
    }
}
