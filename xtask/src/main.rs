//! Project automation: `cargo xtask help` lists what it does.
//!
//! Uses the standard library, `anyhow` and `serde_json` only, so that it builds in seconds on a
//! fresh checkout. Knows the workspace from outside: no crate of ours is a dependency.

mod attack;
mod layers;
mod mutants;
mod prereq;
mod proof;
mod report;
mod run;
mod scale;
mod source;
mod test;
mod tidy;
mod tree;
mod verify;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;

use crate::run::{Steps, Usage};
use crate::test::Options;

const HELP: &str = "\
Automation of this project.

Usage: cargo xtask <COMMAND> [OPTIONS]

Commands:
  verify          Formatting, tidy, layers, clippy, docs, a few mutants, then all tests: what
                  .ci/run runs
  test            Install what the tests need, then run all tests with scaled-down parameters
  soak            The same tests with full parameters, as released; results in target/soak
  attack          Attack a group of real processes, and print what honest clients still get
  tidy            Sizes, banned words, headings, links, glossary, dependencies
  layers          Directions between crates, and the purity of base, proto and exec
  fuzz            Feed decoders and ports with what nobody should send; --help says more
  mutants         Look whether the simulator finds deliberate bugs; --help says more
  cargo-fuzz      The same guided by coverage, where nightly and cargo-fuzz are installed
  loom            Explore the lock-free code in every order that the memory model allows
  miri            Run the pure crates' tests under Miri, where it is installed
  docs            Write the generated documents anew
  fix             Format, and apply what clippy can mend (changes files)
  help            This text

Options of test and soak:
  --fast          Leave out tests that start processes, doc tests and prerequisites
  NAME...         Only tests whose names contain one of these

Options of attack:
  --seconds N     How long each attack is measured; 14 unless told, 8 minutes in all
  NAME...         Only attacks whose names contain one of these; the document stays as it is;
                  `cargo xtask attack --help` names all

Examples:
  cargo xtask test
  cargo xtask test --fast quorum
  cargo xtask soak redis
  cargo xtask attack gray leader-crash
  cargo xtask fuzz message resp --seconds 60
  cargo xtask mutants quick
  cargo xtask verify

Exit codes: 0 all is well, 1 something is to mend, 2 wrong usage.
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    Verify,
    Test(Options),
    Attack(attack::Options),
    /// What attacks there are.
    Attacks,
    Tidy,
    Layers,
    Fuzz(Vec<String>),
    CargoFuzz(Vec<String>),
    /// `None`: how it is used.
    Mutants(Option<mutants::Options>),
    Loom,
    Miri,
    Docs,
    Fix,
}

fn parse(arguments: &[String]) -> Result<Task, String> {
    match arguments.split_first().map(|(first, rest)| (&**first, rest)) {
        Some(("fuzz", rest)) => return Ok(Task::Fuzz(rest.to_vec())),
        Some(("cargo-fuzz", rest)) => return Ok(Task::CargoFuzz(rest.to_vec())),
        _ => {}
    }
    if let Some(("mutants", rest)) = arguments.split_first().map(|(first, rest)| (&**first, rest)) {
        return mutants::parse(rest).map(Task::Mutants);
    }
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        let attacks = arguments[0] == "attack";
        return Ok(if attacks { Task::Attacks } else { Task::Help });
    }
    let Some((command, rest)) = arguments.split_first() else {
        return Ok(Task::Help);
    };
    if matches!(command.as_str(), "test" | "soak") {
        let mut options = Options { soak: command == "soak", ..Options::default() };
        for argument in rest {
            match argument.as_str() {
                "--fast" => options.fast = true,
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                name => options.filters.push(name.to_owned()),
            }
        }
        return Ok(Task::Test(options));
    }
    if command == "attack" {
        return attack::parse(rest).map(Task::Attack);
    }
    let task = match command.as_str() {
        "help" => Task::Help,
        "verify" => Task::Verify,
        "tidy" => Task::Tidy,
        "layers" => Task::Layers,
        "loom" => Task::Loom,
        "miri" => Task::Miri,
        "docs" => Task::Docs,
        "fix" => Task::Fix,
        other => return Err(format!("unknown command {other}")),
    };
    match rest.first() {
        Some(extra) => Err(format!("{command} takes no {extra}")),
        None => Ok(task),
    }
}

/// Carries out `task`. True when all is well.
fn carry_out(task: &Task) -> Result<bool> {
    let root = tree::root();
    match task {
        Task::Help => {
            std::io::stdout().write_all(HELP.as_bytes())?;
            return Ok(true);
        }
        Task::Attacks => {
            let mut out = std::io::stdout();
            out.write_all(HELP.as_bytes())?;
            writeln!(out, "\nAttacks:\n  {}", attack::names(&root)?.join("\n  "))?;
        }
        Task::Verify => return verify::verify(&root),
        Task::Test(options) => return test::run(&root, options, Steps::default()),
        Task::Fuzz(arguments) => return proof::fuzz(&root, arguments),
        Task::CargoFuzz(arguments) => proof::cargo_fuzz(&root, arguments)?,
        Task::Mutants(Some(options)) => return mutants::run(&root, options),
        Task::Mutants(None) => std::io::stdout().write_all(mutants::HELP.as_bytes())?,
        Task::Loom => proof::loom(&root)?,
        Task::Miri => proof::miri(&root)?,
        Task::Attack(options) => return attack::run(&root, options),
        Task::Tidy => tidy::run(&root)?,
        Task::Layers => layers::run(&root)?,
        Task::Docs => verify::docs(&root)?,
        Task::Fix => verify::fix(&root)?,
    }
    Ok(true)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let task = match parse(&arguments) {
        Ok(task) => task,
        Err(problem) => {
            eprintln!("error: {problem}\nTry: cargo xtask help");
            return ExitCode::from(2);
        }
    };
    match carry_out(&task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines() {
        let options = |fast, soak, filters: &[&str]| {
            let filters = filters.iter().map(|name| (*name).to_owned()).collect();
            Ok(Task::Test(Options { fast, soak, filters }))
        };
        assert_eq!(parsed(""), Ok(Task::Help));
        assert_eq!(parsed("test --help"), Ok(Task::Help));
        assert_eq!(parsed("attack --help"), Ok(Task::Attacks));
        assert_eq!(parsed("test --fast quorum"), options(true, false, &["quorum"]));
        assert_eq!(parsed("soak"), options(false, true, &[]));
        assert_eq!(parsed("verify"), Ok(Task::Verify));
        let fuzz = ["resp", "--seconds", "5", "--help"].map(str::to_owned);
        assert_eq!(parsed("fuzz resp --seconds 5 --help"), Ok(Task::Fuzz(fuzz.into())));
        assert!(parsed("tets").is_err());
        assert!(parsed("test --fats").is_err());
        assert!(parsed("verify --fast").is_err());
    }
}
