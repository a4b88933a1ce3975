//! `stylite-mutants`: the simulator with deliberate bugs, one per process. `cargo xtask mutants`
//! runs it for all of them.

use std::process::ExitCode;
use std::time::Duration;

use base::mutants::{self, Mutant};
use clap::{Parser, Subcommand};
use sim::mutants::hunt;
use sim::runner;
use sim::scenarios::{self, Scenario};

/// Looks for violations in a simulator that has a deliberate bug.
#[derive(Parser, Debug)]
#[command(name = "stylite-mutants", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  stylite-mutants list                                        what there is
  stylite-mutants hunt A1Missing --seconds 60                 is it caught?
  stylite-mutants hunt none --seconds 60                      nothing is, without a bug
  stylite-mutants replay A1Missing --scenario swarm --seed 7  one run again

Exit codes: 0 nothing was found, 1 something was, 2 the command line is wrong.";

#[derive(Subcommand, Debug)]
enum Command {
    /// Lists the mutants: name, rule and bug, a line each, between tabs.
    List,
    /// Runs seed after seed of all scenarios until something is found.
    Hunt {
        /// The mutant, or `none`.
        name: String,
        /// Seconds of one processor.
        #[arg(long, value_name = "N", default_value_t = 60)]
        seconds: u64,
        /// In these scenarios only.
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        scenario: Vec<String>,
    },
    /// Runs one seed of one scenario.
    Replay {
        /// The mutant, or `none`.
        name: String,
        /// The scenario.
        #[arg(long, value_name = "NAME")]
        scenario: String,
        /// The seed.
        #[arg(long, value_name = "S")]
        seed: u64,
    },
}

fn main() -> ExitCode {
    match carry_out(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was found.
fn carry_out(command: Command) -> Result<bool, String> {
    match command {
        Command::List => {
            for about in mutants::ALL {
                println!("{}\t{}\t{}", about.name, about.rule, about.bug);
            }
            Ok(true)
        }
        Command::Hunt { name, seconds, scenario } => {
            let only: Result<Vec<_>, _> = scenario.iter().map(|name| find(name)).collect();
            begin(&name)?;
            let hunted = hunt(Duration::from_secs(seconds), &only?);
            let (runs, seconds) = (hunted.runs, hunted.seconds);
            match &hunted.found {
                Some(found) => {
                    let why = found.why.replace(['\n', '\t'], " ");
                    println!(
                        "caught\t{}\t{}\t{runs}\t{seconds:.2}\t{why}",
                        found.scenario, found.seed
                    );
                }
                None => println!("survived\t\t\t{runs}\t{seconds:.2}\t"),
            }
            Ok(hunted.found.is_none())
        }
        Command::Replay { name, scenario, seed } => {
            let scenario = find(&scenario)?;
            begin(&name)?;
            let found = runner::run(scenario, seed).err();
            println!("{}", found.as_ref().map_or("everything held", |found| found.why.as_str()));
            Ok(found.is_none())
        }
    }
}

fn find(name: &str) -> Result<&'static Scenario, String> {
    scenarios::find(name).ok_or_else(|| format!("no scenario is called `{name}`"))
}

/// From here on this process has the bug.
fn begin(name: &str) -> Result<(), String> {
    let mutant: Option<Mutant> = match name {
        "none" => None,
        name => {
            let about = mutants::ALL.iter().find(|about| about.name == name);
            Some(about.ok_or_else(|| format!("no mutant is called `{name}`"))?.mutant)
        }
    };
    mutants::choose(mutant);
    runner::collect_panics();
    Ok(())
}
