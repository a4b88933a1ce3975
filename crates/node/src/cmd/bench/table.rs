//! Results for people.

use std::fmt::Write;

use super::config::Config;
use super::cpu::{Disturbance, RoleRow, ThreadRow};
use super::digests::Verdict;
use super::result::{Outcome, Report, Spread};
use super::traffic::TrafficRow;
use crate::values::count;

/// Threads that used less than this share of the whole are not shown.
const THREAD_SHARE_MIN: f64 = 0.005;

/// From this share of the processors' time on, what others have is told to spoil a figure.
const DISTURBED: f64 = 0.05;

/// All runs, for people.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    write(report, &mut out).expect("writing to a string does not fail");
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let outcome = &report.median;
    settings(&outcome.config, out)?;
    let latency = &outcome.latency_us;
    let (rate, seconds) = (outcome.ops_per_s, outcome.duration_s);
    writeln!(out, "throughput  {rate:.0} operations/s over {seconds:.1} s")?;
    writeln!(
        out,
        "latency     p50 {} µs, p90 {} µs, p99 {} µs, p99.9 {} µs, max {} µs",
        latency.p50, latency.p90, latency.p99, latency.p999, latency.max,
    )?;
    processors(outcome, out)?;
    disturbance(&outcome.disturbance, out)?;
    traffic(&outcome.traffic, out)?;
    writeln!(out, "errors      {}", outcome.errors)?;
    for (cause, count) in &outcome.error_causes {
        writeln!(out, "            {count} times: {cause}")?;
    }
    if outcome.unsent > 0 {
        writeln!(out, "            {} operations were due and never left", outcome.unsent)?;
    }
    digests(outcome, out)?;
    if report.runs.len() > 1 {
        runs(report, out)?;
    }
    Ok(())
}

fn settings(config: &Config, out: &mut String) -> std::fmt::Result {
    let group = &config.group;
    writeln!(
        out,
        "group       {}, {}, {} service{}",
        match group.agreement {
            "none" => "one server without agreement".to_owned(),
            _ => format!("{} (f = {})", count(group.replicas.into(), "replica"), group.faults),
        },
        match group.parallelization {
            Some("top") => "a pipeline each".to_owned(),
            _ => match group.partitions {
                1 => count(group.pillars.into(), "pillar"),
                several => {
                    let pillars = count(group.pillars.into(), "pillar");
                    format!("{several} partitions with {pillars} each")
                }
            },
        },
        group.service,
        group.durability.map_or_else(String::new, |mode| format!(", durability {mode}")),
    )?;
    let load = match (config.rate, config.arrivals, config.outstanding) {
        (Some(rate), arrivals, _) => {
            let how = arrivals.unwrap_or_default();
            format!("open loop, {rate} operations/s, {how} arrivals")
        }
        (None, _, outstanding) => {
            format!("closed loop, {} outstanding each", outstanding.unwrap_or(0))
        }
    };
    let idle = match config.sessions.idle_clients {
        0 => String::new(),
        idle => format!(" and {idle} idle ones"),
    };
    let clients = count(config.sessions.clients as u64, "client");
    let lines = match config.sessions.lines {
        lines if lines == config.group.pillars => String::new(),
        lines => format!(" of {}", count(lines.into(), "stream")),
    };
    writeln!(out, "load        {clients}{lines}{idle}, {load}")?;
    writeln!(out, "operation   {}", config.operation())?;
    writeln!(out, "principal   {}", config.principal)?;
    let machine = &config.machine;
    if machine.replica_cpus.is_some() || machine.client_cpus.is_some() {
        let set = |cpus: &Option<String>| cpus.clone().unwrap_or_else(|| "all".to_owned());
        let (replicas, clients) = (set(&machine.replica_cpus), set(&machine.client_cpus));
        writeln!(out, "processors  replicas on {replicas}; clients on {clients}")?;
    }
    if let (Some(left), Some(keys)) = (config.keys_left, config.keys) {
        let fate = if left { "could not be deleted: they STAY" } else { "deleted afterwards" };
        writeln!(out, "keys        bench:000000000 to bench:{:09} {fate}", keys - 1)?;
    }
    Ok(())
}

fn processors(outcome: &Outcome, out: &mut String) -> std::fmt::Result {
    let cpu = &outcome.cpu_us_per_op;
    let replicas = cpu.replicas.map(|us| format!("replicas {us:.3} µs and "));
    if let Some(clients) = cpu.clients {
        let replicas = replicas.unwrap_or_default();
        writeln!(out, "processor   {replicas}clients {clients:.3} µs per operation")?;
    }
    let all: f64 = outcome.cpu.iter().map(|row| row.us_per_op).sum();
    for RoleRow { role, us_per_op, percent, threads } in &outcome.cpu {
        let shown = |row: &&ThreadRow| row.us_per_op >= all * THREAD_SHARE_MIN;
        let one = |row: &ThreadRow| format!("{} {:.3}", row.thread, row.us_per_op);
        let threads: Vec<String> = threads.iter().filter(shown).map(one).collect();
        let threads = threads.join(", ");
        writeln!(out, "            {role}: {us_per_op:.3} µs, {percent:.0} % ({threads})")?;
    }
    Ok(())
}

fn disturbance(of: &Disturbance, out: &mut String) -> std::fmt::Result {
    let others = of.others.map(|share| format!("other programs had {:.1} %, ", share * 100.0));
    let (others, host) = (others.unwrap_or_default(), of.host * 100.0);
    writeln!(
        out,
        "            of the processors' time {others}the host of a virtual machine had {host:.1} %"
    )?;
    if of.whole() < DISTURBED {
        return Ok(());
    }
    writeln!(out, "            so compare processor time, not operations per second")
}

fn traffic(rows: &[TrafficRow], out: &mut String) -> std::fmt::Result {
    for row in rows {
        let leader = if row.leader { " (leader)" } else { "" };
        writeln!(
            out,
            "traffic     replica {}{leader}: {:.1} bytes in, {:.1} out; {:.4} packets in, {:.4} \
             messages of peers, {:.4} frames per operation; {:.1} operations per frame, {:.1} per \
             instance",
            row.replica,
            row.bytes_in,
            row.bytes_out,
            row.packets_in,
            row.peer_messages,
            row.frames,
            row.ops_per_frame,
            row.ops_per_instance,
        )?;
    }
    Ok(())
}

fn digests(outcome: &Outcome, out: &mut String) -> std::fmt::Result {
    let compared = &outcome.digests_compared;
    let verdict = match outcome.digests {
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

fn runs(report: &Report, out: &mut String) -> std::fmt::Result {
    let summary = &report.summary;
    writeln!(out, "runs        {}; least, middle, most:", report.runs.len())?;
    let mut line = |what: &str, spread: &Spread, digits: usize| {
        let Spread { min, median, max } = spread;
        writeln!(out, "            {what}: {min:.digits$}, {median:.digits$}, {max:.digits$}")
    };
    line("operations/s", &summary.ops_per_s, 0)?;
    line("p50, µs", &summary.p50_us, 0)?;
    line("p99, µs", &summary.p99_us, 0)?;
    if let Some(spread) = &summary.cpu_replicas_us {
        line("processor of the replicas, µs per operation", spread, 3)?;
    }
    if let Some(spread) = &summary.cpu_clients_us {
        line("processor of the clients, µs per operation", spread, 3)?;
    }
    let errors: u64 = report.runs.iter().map(|run| run.errors).sum();
    writeln!(out, "            errors in all: {errors}; digests: {:?}", report.verdict())
}
