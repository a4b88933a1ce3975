//! The program behind `cargo xtask fuzz`: runs targets for a while, or one input again.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use fuzz::{Failure, Fuzzer, Tally, Target, corpus, registry};

/// Feeds every decoder and every port with bytes that nobody should send.
///
/// Runs one target after the other. An input that a target does not stand is made small, written
/// as hexadecimal text, and the command that runs it again is printed; the next target follows.
/// Put it into `crates/fuzz/corpus/<target>/` when it is mended, and the tests run it for ever.
#[derive(Parser)]
#[command(
    name = "cargo xtask fuzz",
    after_help = "Examples:\n  cargo xtask fuzz --seconds 5\n  cargo xtask fuzz message resp --seconds 600\n  \
cargo xtask fuzz message --replay target/fuzz/message-1f.hex\n  cargo xtask fuzz --list\n\n\
Exit codes: 0 all targets stood it, 1 one did not, 2 wrong usage."
)]
struct Arguments {
    /// Targets; all when none is named.
    targets: Vec<String>,
    /// How long each target runs, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Which inputs: the same seed makes the same ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this input, and nothing else.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Where failing inputs go.
    #[arg(long, value_name = "DIR", default_value = "target/fuzz")]
    out: PathBuf,
    /// Print the targets, and what they feed.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match carry_out(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(arguments: &Arguments) -> Result<bool> {
    let targets = chosen(&arguments.targets)?;
    if arguments.list {
        targets.iter().for_each(|target| println!("{:<18} {}", target.name, target.about));
        return Ok(true);
    }
    if let Some(path) = &arguments.replay {
        let [target] = targets[..] else { bail!("name the target of {}", path.display()) };
        return replay(target, path);
    }
    println!(
        "{:<18} {:>10} {:>10} {:>9} {:>9} {:>10} {:>9}",
        "target", "runs", "runs/s", "MB/s", "outcomes", "memory/KiB", "slowest"
    );
    let mut sound = true;
    for target in targets {
        sound &= run(target, arguments)?;
    }
    Ok(sound)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(registry::ALL.iter().collect());
    }
    let unknown =
        |name: &String| format!("no target is called {name}; `cargo xtask fuzz --list` names them");
    let find = |name: &String| registry::find(name).with_context(|| unknown(name));
    names.iter().map(find).collect()
}

fn replay(target: &Target, path: &Path) -> Result<bool> {
    let input = corpus::read(path)?;
    let bytes = input.len();
    match Fuzzer::new(*target, 0, true)?.one(input) {
        Ok(outcome) => {
            println!("{}: stands these {bytes} bytes: {outcome:?}", target.name);
            Ok(true)
        }
        Err(failure) => {
            println!("{}: {}", target.name, failure.wrong);
            Ok(false)
        }
    }
}

/// Runs one target for its time.
fn run(target: &Target, arguments: &Arguments) -> Result<bool> {
    let mut fuzzer = Fuzzer::new(*target, arguments.seed, true)?;
    let (start, time) = (Instant::now(), Duration::from_secs(arguments.seconds));
    let terminal = std::io::stdout().is_terminal();
    let mut told = start;
    let mut result = fuzzer.corpus();
    while result.is_ok() && start.elapsed() < time {
        result = fuzzer.step();
        if terminal && told.elapsed() > Duration::from_millis(500) {
            told = Instant::now();
            print!("\r{}", line(target, fuzzer.tally(), start.elapsed()));
            std::io::stdout().flush()?;
        }
    }
    let back = if terminal { "\r" } else { "" };
    println!("{back}{}", line(target, fuzzer.tally(), start.elapsed()));
    match result {
        Ok(()) => Ok(true),
        Err(failure) => tell(target, &failure, &arguments.out).map(|()| false),
    }
}

fn line(target: &Target, tally: Tally, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let Tally { runs, bytes, outcomes, memory, slowest } = tally;
    format!(
        "{:<18} {runs:>10} {:>10.0} {:>9.1} {outcomes:>9} {:>10} {:>7.1}ms",
        target.name,
        runs as f64 / seconds,
        bytes as f64 / seconds / 1e6,
        memory >> 10,
        slowest.as_secs_f64() * 1e3,
    )
}

fn tell(target: &Target, failure: &Failure, out: &Path) -> Result<()> {
    let Failure { input, wrong } = failure;
    let path = corpus::keep(out, target.name, &format!("{}: {wrong}", target.name), input)?;
    println!("  FAILED: {wrong}");
    println!("  {} bytes, in {}", input.len(), path.display());
    println!("  again: cargo xtask fuzz {} --replay {}", target.name, path.display());
    Ok(())
}
