//! `stylite bench suite`: runs the experiments of the papers, one point after the other, and
//! writes a report with plots.
//!
//! | module | does |
//! |---|---|
//! | `experiments` | the table of what is run |
//! | `job` | runs one point once, as a process of its own |
//! | `rounds` | the runs of a point, in turn with those that it is compared with |
//! | `peers`, `etcd`, `zookeeper` | other systems |
//! | `plot` | a plot as SVG |
//! | `report` | the HTML and the raw results |
//!
//! The report is written anew after every experiment, so that little is lost, however this ends.

mod etcd;
mod experiments;
mod job;
mod peers;
mod plot;
mod report;
mod rounds;
mod zookeeper;

use std::time::Instant;

use anyhow::{Context, Result, bail};

use self::experiments::{Experiment, Figure};
use self::job::End;
use self::plot::number;
use self::report::{Ends, Report};
use self::rounds::Rounds;
use super::config::Machine;
use crate::cli::SuiteArgs;
use crate::cmd::{print, runtime};
use crate::cpus::Cpus;
use crate::exit::Exit;
use crate::signals::Signals;

/// Runs the command.
///
/// # Errors
/// When there is no such experiment, or the report cannot be written.
pub fn run(args: &SuiteArgs) -> Result<Exit> {
    let all = experiments::all(Cpus::allowed().count());
    let chosen = choose(&all, &args.only)?;
    if args.list {
        let line = |one: &&Experiment| format!("{:18} {}\n", one.name, one.title);
        print(&chosen.iter().map(line).collect::<String>())?;
        return Ok(Exit::Ok);
    }
    let shown = args.out.display();
    std::fs::create_dir_all(&args.out).with_context(|| format!("{shown}: cannot be made"))?;
    let runtime = runtime()?;
    let end = runtime.block_on(async {
        let mut suite = Suite::new(args, &chosen)?;
        suite.run(&chosen).await
    })?;
    eprintln!("the report is in {shown}");
    match end {
        Some(number) => std::process::exit(128 + number),
        None => Ok(Exit::Ok),
    }
}

/// The experiments of these names, or whose names begin with one of them.
fn choose<'a>(all: &'a [Experiment], only: &[String]) -> Result<Vec<&'a Experiment>> {
    let is = |one: &Experiment, name: &str| {
        one.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    if let Some(name) = only.iter().find(|name| !all.iter().any(|one| is(one, name))) {
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        bail!("there is no experiment `{name}`; there are {}", names.join(", "));
    }
    Ok(all.iter().filter(|one| only.is_empty() || only.iter().any(|name| is(one, name))).collect())
}

/// A run of the suite.
struct Suite<'a> {
    args: &'a SuiteArgs,
    signals: Signals,
    report: Report<'a>,
    start: Instant,
    /// Runs so far, and all that are to be.
    count: (usize, usize),
}

impl<'a> Suite<'a> {
    fn new(args: &'a SuiteArgs, chosen: &[&Experiment]) -> Result<Suite<'a>> {
        let points = chosen.iter().flat_map(|one| &one.series).flat_map(|series| &series.points);
        let total = points.filter(|point| point.job.refused().is_none()).count();
        let total = total * args.runs as usize;
        let report = Report {
            done: Vec::new(),
            machine: Machine::plain(),
            seconds: args.seconds,
            runs: args.runs,
            interrupted: false,
        };
        let (signals, start) = (Signals::listen()?, Instant::now());
        Ok(Suite { args, signals, report, start, count: (0, total) })
    }

    /// Runs all of them; returns the number of a signal that ended it.
    async fn run(&mut self, chosen: &[&'a Experiment]) -> Result<Option<i32>> {
        for experiment in chosen {
            let empty: Ends =
                experiment.series.iter().map(|series| vec![None; series.points.len()]).collect();
            self.report.done.push((experiment, empty));
            let ended = self.experiment(experiment).await?;
            self.report.interrupted = ended.is_some();
            self.report.save(&self.args.out)?;
            if ended.is_some() {
                return Ok(ended);
            }
        }
        Ok(None)
    }

    /// Place by place of the axis, all series in turn, as often as there are runs.
    async fn experiment(&mut self, experiment: &'a Experiment) -> Result<Option<i32>> {
        let places = experiment.series.iter().map(|series| series.points.len()).max();
        for p in 0..places.unwrap_or(0) {
            let mut rounds = vec![Rounds::default(); experiment.series.len()];
            let mut ended = None;
            for run in 1..=self.args.runs {
                ended = self.round(experiment, (p, run), &mut rounds).await?;
                if ended.is_some() {
                    break;
                }
            }
            let (_, ends) = self.report.done.last_mut().expect("pushed before");
            for (ends, rounds) in ends.iter_mut().zip(rounds) {
                if let Some(end) = ends.get_mut(p) {
                    *end = rounds.end();
                }
            }
            if ended.is_some() {
                return Ok(ended);
            }
        }
        Ok(None)
    }

    /// One run of each series at a place.
    async fn round(
        &mut self,
        experiment: &Experiment,
        (p, run): (usize, u32),
        rounds: &mut [Rounds],
    ) -> Result<Option<i32>> {
        for (series, rounds) in experiment.series.iter().zip(rounds) {
            let Some(point) = series.points.get(p).filter(|_| !rounds.is_over()) else { continue };
            let end = match point.job.run(self.args, &mut self.signals).await {
                Ok(end) => end,
                Err(error) => End::Failed(format!("{error:#}")),
            };
            if let End::Interrupted(number) = end {
                return Ok(Some(number));
            }
            let place = format!("{}: {} {}", experiment.name, series.name, number(point.x));
            self.tell(&place, run, &end);
            rounds.add(end);
        }
        Ok(None)
    }

    /// Says what came of a run, and how long the rest will take.
    fn tell(&mut self, place: &str, run: u32, end: &End) {
        let runs = self.args.runs;
        let said = match end {
            End::Skipped(why) => {
                eprintln!("          {place}: skipped: {why}");
                return;
            }
            End::Failed(why) => {
                // It is not run again.
                self.count.1 = self.count.1.saturating_sub((runs - run) as usize);
                format!("FAILED: {why}")
            }
            End::Interrupted(_) => return,
            End::Result(result) => {
                let figure = |figure| report::of(result, figure).map_or(0.0, |found| found.0);
                let (rate, p50) = (figure(Figure::Rate), figure(Figure::P50));
                format!("{} operations/s, p50 {} µs", number(rate), number(p50))
            }
        };
        self.count.0 += 1;
        let (done, total) = self.count;
        let left = self.start.elapsed().as_secs() * total.saturating_sub(done) as u64;
        let minutes = (left / done as u64).div_ceil(60);
        eprintln!(
            "[{done:>3}/{total}] {place}, run {run} of {runs}: {said} (about {minutes} min left)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experiments_are_chosen_by_name_or_family() {
        let all = experiments::all(4);
        let names = |only: &[&str]| -> Vec<String> {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            choose(&all, &only).expect("known").iter().map(|one| one.name.clone()).collect()
        };
        assert_eq!(names(&[]).len(), all.len());
        assert_eq!(names(&["cop-5"]), ["cop-5-batched", "cop-5-unbatched"]);
        assert_eq!(names(&["durability", "cop-8"]), ["cop-8", "durability"]);
        let wrong = choose(&all, &["cop".to_owned(), "dur".to_owned()]);
        assert!(wrong.expect_err("no whole word").to_string().contains("`dur`"));
    }
}
