//! The report: one HTML file with everything in it, and the raw results as JSON.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::experiments::{Experiment, Figure, Plot, Point, Series};
use super::job::End;
use super::plot::{Chart, Dot, Line, escape, number};
use crate::cmd::bench::config::Machine;

/// What came of the points of one experiment: per series, in order; none where it was not reached.
pub type Ends = Vec<Vec<Option<End>>>;

/// Everything that the report is about.
pub struct Report<'a> {
    /// The experiments and what came of them.
    pub done: Vec<(&'a Experiment, Ends)>,
    /// Where.
    pub machine: Machine,
    /// Seconds of each run.
    pub seconds: u32,
    /// Runs of each point.
    pub runs: u32,
    /// Whether it was ended before it was through.
    pub interrupted: bool,
}

/// The file of the report within its directory.
const HTML_FILE: &str = "report.html";
/// The file of the raw results.
const JSON_FILE: &str = "results.json";

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;\
padding:0 1em;color:#1e293b;background:#fff}h2{margin-top:2.5em}svg{width:100%;max-width:760px;\
font:12px system-ui,sans-serif}svg text{fill:#334155}.grid{stroke:#e2e8f0;fill:none}.axis{stroke:\
#475569;fill:none}table{border-collapse:collapse;font-size:13px}td,th{padding:2px 10px;text-align:\
right;border-bottom:1px solid #e2e8f0}td.text,th.text{text-align:left}code{font-size:12px}\
.skipped{color:#64748b}.failed{color:#b91c1c}details{margin:1em 0}";

impl Report<'_> {
    /// Writes both files into `dir`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let mut html = String::new();
        self.html(&mut html).expect("writing to a string does not fail");
        let raw = serde_json::to_string_pretty(&self.raw())?;
        for (name, text) in [(HTML_FILE, &html), (JSON_FILE, &raw)] {
            // Never half of one: the old file stays until the new one is whole.
            let (path, part) = (dir.join(name), dir.join(format!("{name}.part")));
            std::fs::write(&part, text)
                .and_then(|()| std::fs::rename(&part, &path))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn raw(&self) -> Value {
        let point = |(point, end): (&Point, &Option<End>)| {
            let mut value = json!({ "x": point.x, "command": point.job.command() });
            match end {
                Some(End::Result(result)) => value["result"] = result.clone(),
                Some(End::Skipped(why)) => value["skipped"] = json!(why),
                Some(End::Failed(why)) => value["failed"] = json!(why),
                Some(End::Interrupted(_)) | None => value["skipped"] = json!(NOT_REACHED),
            }
            value
        };
        let series = |(series, ends): (&Series, &Vec<Option<End>>)| {
            let points: Vec<Value> = series.points.iter().zip(ends).map(point).collect();
            json!({ "name": series.name, "points": points })
        };
        let experiment = |(experiment, ends): &(&Experiment, Ends)| {
            let all: Vec<Value> = experiment.series.iter().zip(ends).map(series).collect();
            json!({ "name": experiment.name, "title": experiment.title, "series": all })
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "machine": self.machine,
            "seconds": self.seconds,
            "runs": self.runs,
            "interrupted": self.interrupted,
            "experiments": self.done.iter().map(experiment).collect::<Vec<Value>>(),
        })
    }

    fn html(&self, out: &mut String) -> std::fmt::Result {
        let Machine { cpus, processor, kernel, .. } = &self.machine;
        writeln!(
            out,
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Stylite: benchmark \
             suite</title><style>{STYLE}</style><h1>Stylite: benchmark suite</h1>"
        )?;
        writeln!(
            out,
            "<p>{cpus} processors ({}), Linux {}, version {}. Each point: {} runs of {} s, in \
             turn with those of the other series; shown is the middle, whiskers from the least to \
             the most. Replicas and clients share the \
             machine and talk over loopback. What others had of the processors' time meanwhile, the \
             host of a virtual machine or programs that are not of the run, stands beside the \
             figures of our own groups: above a few percent compare processor time, not operations per second.</p>",
            escape(processor),
            escape(kernel),
            env!("CARGO_PKG_VERSION"),
            self.runs,
            self.seconds
        )?;
        if self.interrupted {
            writeln!(out, "<p class=\"failed\">Interrupted: not all points were reached.</p>")?;
        }
        for (experiment, ends) in &self.done {
            section(out, experiment, ends)?;
        }
        writeln!(out, "</html>")
    }
}

/// Why a point has no result when nothing else is said.
const NOT_REACHED: &str = "interrupted before";

fn section(out: &mut String, experiment: &Experiment, ends: &Ends) -> std::fmt::Result {
    let Experiment { name, title, about, .. } = experiment;
    writeln!(out, "<h2 id=\"{}\">{}</h2><p>{}</p>", escape(name), escape(title), escape(about))?;
    for plot in &experiment.plots {
        if let Some(svg) = chart(experiment, plot, ends).svg() {
            out.push_str(&svg);
        }
    }
    writeln!(
        out,
        "<details><summary>Figures and commands</summary><table><tr><th class=\"text\">series</th>\
         <th>{}</th><th>operations/s</th><th>p50, µs</th><th>p99, µs</th><th>servers, µs</th>\
         <th>clients, µs</th><th>others had</th><th class=\"text\">command</th></tr>",
        escape(experiment.x)
    )?;
    let mut reasons: Vec<(String, &str)> = Vec::new();
    for (series, ends) in experiment.series.iter().zip(ends) {
        for (point, end) in series.points.iter().zip(ends) {
            let (kind, why) = match end {
                Some(End::Result(result)) => {
                    row(out, series, point, result)?;
                    continue;
                }
                Some(End::Skipped(why)) => ("skipped", why.as_str()),
                Some(End::Failed(why)) => ("failed", why.as_str()),
                Some(End::Interrupted(_)) | None => ("skipped", NOT_REACHED),
            };
            let place = format!("{}, {} {}", series.name, experiment.x, number(point.x));
            reasons.push((format!("{kind}: {place}: {why}"), kind));
        }
    }
    writeln!(out, "</table></details>")?;
    if !reasons.is_empty() {
        writeln!(out, "<ul>")?;
        for (text, kind) in reasons {
            writeln!(out, "<li class=\"{kind}\">{}</li>", escape(&text))?;
        }
        writeln!(out, "</ul>")?;
    }
    Ok(())
}

fn row(out: &mut String, series: &Series, point: &Point, result: &Value) -> std::fmt::Result {
    write!(
        out,
        "<tr><td class=\"text\">{}</td><td>{}</td>",
        escape(&series.name),
        number(point.x)
    )?;
    let keys = ["ops_per_s", "p50_us", "p99_us", "cpu_replicas_us", "cpu_clients_us"];
    for key in keys {
        let of = |part: &str| result["summary"][key][part].as_f64();
        // The yardstick cannot tell servers and clients apart.
        let whole =
            (key == "cpu_replicas_us").then(|| result["summary"]["cpu_us"]["median"].as_f64());
        match (of("median").or(whole.flatten()), of("min"), of("max")) {
            (Some(median), Some(min), Some(max)) => write!(
                out,
                "<td title=\"{} to {}\">{}</td>",
                number(min),
                number(max),
                number(median)
            )?,
            (Some(median), ..) => write!(out, "<td>{}</td>", number(median))?,
            _ => write!(out, "<td></td>")?,
        }
    }
    match result["summary"]["disturbed"]["median"].as_f64() {
        Some(share) => write!(out, "<td>{:.0} %</td>", share * 100.0)?,
        None => write!(out, "<td></td>")?,
    }
    writeln!(out, "<td class=\"text\"><code>{}</code></td></tr>", escape(&point.job.command()))
}

fn chart(experiment: &Experiment, plot: &Plot, ends: &Ends) -> Chart {
    let dot = |(point, end): (&Point, &Option<End>)| {
        let Some(End::Result(result)) = end else { return None };
        let x = plot.x.map_or(Some(point.x), |figure| of(result, figure).map(|found| found.0))?;
        let (y, range) = of(result, plot.y)?;
        Some(Dot { x, y, range })
    };
    let line = |(series, ends): (&Series, &Vec<Option<End>>)| {
        let dots = series.points.iter().zip(ends).filter_map(dot).collect();
        Line { name: series.name.clone(), dots }
    };
    Chart {
        x: plot.x.map_or(experiment.x, Figure::label).to_owned(),
        y: plot.y.label().to_owned(),
        log_x: experiment.log_x && plot.x.is_none(),
        lines: experiment.series.iter().zip(ends).map(line).collect(),
    }
}

/// A figure of a result, with its range where there is one.
#[must_use]
pub fn of(result: &Value, figure: Figure) -> Option<(f64, Option<(f64, f64)>)> {
    let summary = &result["summary"];
    let spread = |key: &str| {
        let part = |part: &str| summary[key][part].as_f64();
        Some((part("median")?, part("min").zip(part("max"))))
    };
    match figure {
        Figure::Rate => spread("ops_per_s"),
        Figure::P50 => spread("p50_us"),
        Figure::P99 => spread("p99_us"),
        Figure::Mean => Some((result["latency_us"]["mean"].as_f64()?, None)),
        Figure::Cpu => spread("cpu_us").or_else(|| {
            let (replicas, _) = spread("cpu_replicas_us")?;
            // Clients of peers are not accounted for.
            let clients = spread("cpu_clients_us").map_or(0.0, |found| found.0);
            Some((replicas + clients, None))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::experiments::all;
    use super::*;

    #[test]
    fn reports_hold_results_reasons_and_no_foreign_markup() {
        let all = all(4);
        let experiment = &all[0];
        let spread = json!({ "min": 1.0, "median": 2.0, "max": 3.0 });
        let result = json!({
            "summary": { "ops_per_s": spread, "p50_us": spread, "cpu_replicas_us": spread },
        });
        let mut ends: Ends =
            experiment.series.iter().map(|series| vec![None; series.points.len()]).collect();
        ends[0][0] = Some(End::Result(result));
        ends[1][0] = Some(End::Skipped("no <b>flag</b>".to_owned()));
        let machine = Machine {
            cpus: 4,
            processor: "<script>alert(1)</script>".to_owned(),
            kernel: String::new(),
            replica_cpus: None,
            client_cpus: None,
        };
        let done = vec![(experiment, ends)];
        let report = Report { done, machine, seconds: 1, runs: 1, interrupted: true };
        let dir = std::env::temp_dir().join(format!("stylite-report-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        report.save(&dir).expect("written");
        let html = std::fs::read_to_string(dir.join(HTML_FILE)).expect("written");
        let raw = std::fs::read_to_string(dir.join(JSON_FILE)).expect("written");
        std::fs::remove_dir_all(&dir).expect("ours");
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(html.contains("no &lt;b&gt;flag") && html.contains("Interrupted"));
        assert_eq!(html.matches("<circle").count(), 2, "one point in each of two plots");
        let raw: Value = serde_json::from_str(&raw).expect("JSON");
        let series = &raw["experiments"][0]["series"];
        assert_eq!(series[0]["points"][0]["result"]["summary"]["ops_per_s"]["median"], 2.0);
        assert_eq!(series[1]["points"][0]["skipped"], "no <b>flag</b>");
        assert_eq!(series[2]["points"][0]["skipped"], NOT_REACHED);
    }
}
