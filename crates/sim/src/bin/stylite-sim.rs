//! `stylite-sim`: runs scenarios of the simulator, many seeds or one of them again.

use std::io::{IsTerminal, stderr};
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use sim::coverage::SIGHTS;
use sim::minimize::{Edit, minimize};
use sim::outcome::{self, Outcome};
use sim::plan::Plan;
use sim::runner::{self, Batch, Violation};
use sim::scenario::replay;
use sim::scenarios::{self, SEED_MAX, Scenario};

/// A seventh of a run is spent in the system's allocator otherwise.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whole groups in one thread on virtual time: what breaks them?
///
/// A run is a scenario and a seed, and the same again whenever it is run again.
#[derive(Parser, Debug)]
#[command(name = "stylite-sim", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

const EXAMPLES: &str = "\
Examples:
  stylite-sim list                              what there is
  stylite-sim --seeds 1000                      a thousand seeds of the swarm
  stylite-sim --scenario all --seeds 20         twenty seeds of every scenario
  stylite-sim --scenario swarm --seed 4711      one run again, and its story
  stylite-sim --seed 4711 --minimize            what can be left out of its plan?
  stylite-sim --seed 4711 --edit drop0,clients1 the run without that, and its story

Exit codes: 0 everything held, 1 something did not, 2 the command line is wrong.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Lists the scenarios and what each of them claims.
    List,
}

#[derive(Args, Debug)]
struct Run {
    /// The scenario, several of them, or `all`.
    #[arg(long, value_name = "NAME", default_value = "swarm", value_delimiter = ',')]
    scenario: Vec<String>,
    /// Runs this seed.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"], value_parser = seed)]
    seed: Option<u64>,
    /// Runs this many seeds.
    #[arg(long, value_name = "N", value_parser = amount)]
    seeds: Option<u64>,
    /// The first of the seeds.
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = seed)]
    from: u64,
    /// Runs at a time [default: one per core].
    #[arg(long, value_name = "J")]
    jobs: Option<NonZero<usize>>,
    /// Begins no more runs once this many have failed.
    #[arg(long, value_name = "N", default_value = "5")]
    failures: NonZero<usize>,
    /// Looks for what can be left out of the plan of a swarm's seed so that it fails all the
    /// same, and prints the plan that is left.
    #[arg(long, requires = "seed")]
    minimize: bool,
    /// Runs the plan of a swarm's seed with these edits, as `--minimize` finds them.
    #[arg(long, value_name = "EDIT", requires = "seed", value_delimiter = ',')]
    edit: Vec<Edit>,
    /// With this deliberate bug.
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Prints neither the story of a seed nor what many of them met.
    #[arg(long)]
    quiet: bool,
    /// Fails when many seeds did not meet everything that there is to meet.
    #[arg(long)]
    covered: bool,
}

fn amount(text: &str) -> Result<u64, String> {
    // A run of nothing would hold.
    if text == "0" { Err("at least 1".to_owned()) } else { seed(text) }
}

fn seed(text: &str) -> Result<u64, String> {
    let seed = text.parse().map_err(|_| "not a number".to_owned())?;
    if seed >= SEED_MAX { Err(format!("seeds are below {SEED_MAX}")) } else { Ok(seed) }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::List) = cli.command {
        list();
        return ExitCode::SUCCESS;
    }
    if cfg!(panic = "abort") && cli.run.seed.is_none() {
        eprintln!("error: this binary ends at the first panic; build it with `--profile sim`");
        return ExitCode::from(2);
    }
    let scenarios = match pick(&cli.run.scenario) {
        Ok(scenarios) => scenarios,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    if cfg!(panic = "unwind") {
        runner::collect_panics();
    }
    #[cfg(feature = "mutants")]
    if let Some(name) = &cli.run.mutant {
        let Some(about) = base::mutants::ALL.iter().find(|about| about.name == name) else {
            eprintln!("error: no mutant is called `{name}`; `stylite-mutants list` names them");
            return ExitCode::from(2);
        };
        base::mutants::choose(Some(about.mutant));
    }
    let plans = cli.run.minimize || !cli.run.edit.is_empty();
    if plans && cli.run.scenario != ["swarm"] {
        eprintln!("error: only the swarm has a plan that can be edited");
        return ExitCode::from(2);
    }
    let held = match (cli.run.seed, cli.run.seeds) {
        (Some(seed), _) if plans => planned(seed, &cli.run),
        (Some(seed), _) => one(&scenarios, seed, &cli.run),
        (None, seeds) => many(&scenarios, seeds.unwrap_or(100), &cli.run),
    };
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn list() {
    for scenario in scenarios::all() {
        println!("{}\n    {}", scenario.name, scenario.claim);
    }
}

fn pick(names: &[String]) -> Result<Vec<&'static Scenario>, String> {
    if names == ["all"] {
        return Ok(scenarios::all().collect());
    }
    let find = |name: &String| {
        let missing = || format!("no scenario is called `{name}`; `stylite-sim list` names them");
        scenarios::find(name).ok_or_else(missing)
    };
    names.iter().map(find).collect()
}

/// Runs one seed and tells its story; whether everything held.
fn one(scenarios: &[&'static Scenario], seed: u64, run: &Run) -> bool {
    outcome::tell_stories(!run.quiet);
    let mut held = true;
    for scenario in scenarios {
        held &= told(scenario.name, seed, runner::run(scenario, seed));
    }
    held
}

/// Prints what came of a run; whether everything held.
fn told(name: &str, seed: u64, result: Result<Outcome, Violation>) -> bool {
    let (outcome, violation) = match result {
        Ok(outcome) => (outcome, None),
        Err(violation) => (*violation.outcome.clone(), Some(violation)),
    };
    for line in &outcome.story {
        println!("{line}");
    }
    let Outcome { events, trace, .. } = outcome;
    println!("{name} with seed {seed}: {events} events, trace {trace:016x}");
    match &violation {
        Some(violation) => tell(violation),
        None => println!("everything held"),
    }
    violation.is_none()
}

/// Runs the edited plan of a seed, or looks for edits first; whether everything held.
fn planned(seed: u64, run: &Run) -> bool {
    /// A search ends after so many runs.
    const RUNS_MAX: usize = 2_000;
    let plan = Plan::new(seed).edited(&run.edit);
    if !run.minimize {
        outcome::tell_stories(!run.quiet);
        return told("swarm", seed, runner::run_plan(&plan));
    }
    let Err(violation) = runner::run_plan(&plan) else {
        println!("seed {seed}: everything held, there is nothing to look for");
        return true;
    };
    let bar = ProgressBar::new_spinner().with_message("runs");
    let fails = |plan: &Plan| {
        bar.inc(1);
        runner::run_plan(plan).is_err_and(|other| other.kind() == violation.kind())
    };
    let edits = minimize(&Plan::new(seed), RUNS_MAX, fails);
    bar.finish_and_clear();
    println!("{}", Plan::new(seed).edited(&edits));
    let words: Vec<String> = edits.iter().map(ToString::to_string).collect();
    tell(&violation);
    println!("with less: {} --edit {}", replay("swarm", seed), words.join(","));
    false
}

/// Runs many seeds; whether everything held.
fn many(scenarios: &[&'static Scenario], seeds: u64, run: &Run) -> bool {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let jobs = run.jobs.map_or(cores, NonZero::get);
    let runs = seeds * scenarios.len() as u64;
    let style = "{elapsed_precise} {bar:40} {pos}/{len} runs, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("the template is right");
    let bar = ProgressBar::new(runs).with_style(style);
    let violations_max = run.failures.get();
    let batch = Batch { scenarios, from: run.from, seeds, jobs, violations_max };
    let (began, used) = (Instant::now(), cpu_seconds());
    let log = Log::new(runs);
    let summary = batch.run(|violation| {
        bar.inc(1);
        log.run_ends(bar.position());
        if let Some(violation) = violation {
            // At once: who waits for a night may not wait for its end.
            bar.suspend(|| tell(violation));
        }
    });
    let (took, used) = (began.elapsed().as_secs_f64(), cpu_seconds() - used);
    // Where nobody counts, all of it.
    let used = if used > 0.0 { used } else { took * jobs.min(cores) as f64 };
    bar.finish_and_clear();
    if !run.quiet {
        for (sight, text) in SIGHTS {
            println!("{:>12} {text}", summary.coverage.count(*sight));
        }
    }
    let deeds = summary.deeds.describe();
    if !deeds.is_empty() {
        println!("{deeds}");
    }
    print!("{}", summary.worst);
    let (runs, violations) = (summary.runs, summary.violations.len());
    println!(
        "{runs} runs, {violations} violations, {took:.1} s, {used:.1} s of cores: {:.1} runs and \
         {:.0} events per core-second",
        runs as f64 / used,
        summary.events as f64 / used
    );
    let missing: Vec<&str> = summary.coverage.missing().collect();
    if run.covered && !missing.is_empty() {
        println!("never met: {}", missing.join("; "));
        return false;
    }
    summary.violations.is_empty()
}

/// Progress where there is no terminal: a line now and then.
struct Log {
    runs: u64,
    began: Instant,
    silent: bool,
    /// Seconds after the beginning when the next line is due.
    due: AtomicU64,
}

impl Log {
    const EVERY_SECONDS: u64 = 30;

    fn new(runs: u64) -> Log {
        let due = AtomicU64::new(Log::EVERY_SECONDS);
        Log { runs, began: Instant::now(), silent: stderr().is_terminal(), due }
    }

    fn run_ends(&self, done: u64) {
        let now = self.began.elapsed().as_secs();
        let due = self.due.load(Ordering::Relaxed);
        if self.silent || now < due {
            return;
        }
        let next = now + Log::EVERY_SECONDS;
        if self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            eprintln!("{now} s: {done} of {} runs", self.runs);
        }
    }
}

/// Seconds that this process has used on all cores; 0 where that is not known.
fn cpu_seconds() -> f64 {
    /// The kernel's unit, the same on all Linux machines.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, which may contain anything, ends with the last parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
    ticks.iter().sum::<f64>() / TICKS_PER_SECOND
}

fn tell(violation: &Violation) {
    let Violation { scenario, seed, why, .. } = violation;
    println!("{scenario} with seed {seed} FAILS: {why}");
    println!("again: {}\n", replay(scenario, *seed));
}
