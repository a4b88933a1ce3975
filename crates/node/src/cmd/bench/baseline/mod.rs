//! `stylite bench baseline`: what a plain program gets out of this machine for the same bytes.
//!
//! The yardstick of the data plane. What it shares with the group: the links' handshake, seals
//! and packets (`auth`), the hash of frames and replies (`base`), and TCP over loopback. What it
//! has not: order, sessions, a service, votes, retransmission.

mod bytes;
mod hops;
mod link;

use anyhow::{Context, Result};
use serde::Serialize;

use super::result::Spread;
use crate::cli::{BaselineArgs, Output};
use crate::cmd::{print, print_json};
use crate::exit::Exit;

/// What came of it.
#[derive(Debug, Serialize)]
struct Baseline {
    /// The least, the middle and the most of all runs.
    summary: Summary,
    /// Bytes of requests and replies that all links carried per second, seals not counted; the
    /// middle.
    bytes_per_s: f64,
    /// What was run.
    config: Config,
    /// The runs.
    runs: Vec<Run>,
}

#[derive(Debug, Serialize)]
struct Summary {
    /// Operations per second that all servers answered.
    ops_per_s: Spread,
    /// Processor time of servers and clients together per operation, in microseconds.
    cpu_us: Spread,
    /// Median time that a small message takes one way, in microseconds: half a round trip.
    one_way_us: Spread,
    /// Its 99th percentile.
    one_way_p99_us: Spread,
}

#[derive(Debug, Serialize)]
struct Run {
    ops_per_s: f64,
    cpu_us: f64,
    one_way_us: f64,
    one_way_p99_us: f64,
}

#[derive(Debug, Serialize)]
struct Config {
    servers: u16,
    clients: u32,
    outstanding: u32,
    frame_ops: u32,
    payload: u32,
    reply: u32,
    duration_s: f64,
}

/// Runs the command.
///
/// # Errors
/// When the system refuses threads or sockets.
pub fn run(args: &BaselineArgs) -> Result<Exit> {
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        let moved = bytes::measure(args)?;
        let hop = hops::measure(args.duration)?;
        runs.push(Run {
            ops_per_s: moved.ops_per_s,
            cpu_us: moved.cpu_us,
            one_way_us: hop.p50_us,
            one_way_p99_us: hop.p99_us,
        });
    }
    let of = |figure: fn(&Run) -> f64| {
        Spread::new(&runs.iter().map(figure).collect::<Vec<f64>>()).context("no runs")
    };
    let summary = Summary {
        ops_per_s: of(|run| run.ops_per_s)?,
        cpu_us: of(|run| run.cpu_us)?,
        one_way_us: of(|run| run.one_way_us)?,
        one_way_p99_us: of(|run| run.one_way_p99_us)?,
    };
    let per_op = f64::from(args.replicas) * (f64::from(args.payload) + f64::from(args.reply));
    let bytes_per_s = summary.ops_per_s.median * per_op;
    let config = Config {
        servers: args.replicas,
        clients: args.clients,
        outstanding: args.outstanding,
        frame_ops: args.frame_ops,
        payload: args.payload,
        reply: args.reply,
        duration_s: args.duration.as_secs_f64(),
    };
    let baseline = Baseline { summary, bytes_per_s, config, runs };
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&baseline)?;
        let shown = path.display();
        std::fs::write(path, text).with_context(|| format!("cannot write {shown}"))?;
    }
    match args.output {
        Output::Json => print_json(&baseline)?,
        Output::Table => print(&baseline.table())?,
    }
    Ok(Exit::Ok)
}

impl Baseline {
    fn table(&self) -> String {
        let Summary { ops_per_s, cpu_us, one_way_us, one_way_p99_us } = &self.summary;
        let line = |what: &str, spread: &Spread, digits: usize| {
            let Spread { min, median, max } = spread;
            format!("{what}{median:.digits$} ({min:.digits$} to {max:.digits$})\n")
        };
        [
            line("throughput  operations/s: ", ops_per_s, 0),
            line("processor   µs per operation, servers and clients: ", cpu_us, 3),
            line("one way     µs, median: ", one_way_us, 1),
            line("            µs, 99th percentile: ", one_way_p99_us, 1),
            format!("bytes       {:.0} MB/s over all links\n", self.bytes_per_s / 1e6),
        ]
        .concat()
    }
}
