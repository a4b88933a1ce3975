//! `cargo xtask test` and `cargo xtask soak`: prerequisites, then every test of the workspace.
//!
//! The tests run optimised, with assertions and overflow checks (profile `testing`); a soak runs
//! them as released, so that its figures are those of the product. The runner's own summary
//! comes last, so that whoever looks at the end of the output sees the verdict.

use std::ffi::OsString;
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::prereq;
use crate::run::{self, Steps};
use crate::scale;

/// The package whose integration tests start real processes and need the prerequisites.
const PROCESSES: &str = "stylite-node";

/// What to run.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Options {
    /// Leave out what starts processes, and the prerequisites with it.
    pub fast: bool,
    /// Full parameters, as released, with results written down.
    pub soak: bool,
    /// Only tests whose names contain one of these; all when empty.
    pub filters: Vec<String>,
}

/// What a test runner said about its tests.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed or took too long.
    pub failed: usize,
}

/// How the tests are run: which programs, with which environment.
struct Runner<'a> {
    root: &'a Path,
    options: &'a Options,
    environment: Vec<(&'static str, OsString)>,
}

/// Runs the tests after the steps already done. True when all passed.
///
/// # Errors
/// When prerequisites are missing or a program cannot be run; failed tests are no error here.
pub fn run(root: &Path, options: &Options, mut steps: Steps) -> Result<bool> {
    let target = run::target_directory(root)?;
    let scale = if options.soak { "full" } else { "ci" };
    let mut environment = vec![(scale::VARIABLE, OsString::from(scale))];
    if options.fast {
        println!("--fast: skipped: the tests of {PROCESSES}, which start processes, and doc tests");
    } else {
        steps.step("prerequisites", || {
            environment.extend(prereq::provide(&target)?);
            // From here on a missing program is a failure, and no reason to skip a test.
            environment.push(("STYLITE_TEST_REQUIRE_PROGRAMS", "1".into()));
            Ok(())
        })?;
    }
    scale::print(scale);
    let results = options.soak.then(|| target.join("soak"));
    if let Some(results) = &results {
        prepare_results(root, results)?;
        environment.push(("STYLITE_SOAK_DIR", results.clone().into_os_string()));
    }
    let runner = Runner { root, options, environment };
    let mut log = String::new();
    let passed = if run::succeeds(Command::new(run::cargo()).args(["nextest", "--version"])) {
        runner.nextest(steps, &mut log)?
    } else {
        println!("cargo-nextest is not installed: using cargo test");
        runner.plain(steps, &mut log)?
    };
    if let Some(results) = results {
        fs::write(results.join("tests.txt"), log).context("cannot write the log of the tests")?;
        println!("results are in {}:", results.display());
        let mut names: Vec<_> = fs::read_dir(&results)?.flatten().map(|e| e.file_name()).collect();
        names.sort();
        names.iter().for_each(|name| println!("  {}", name.to_string_lossy()));
    }
    Ok(passed)
}

/// Makes the directory for the results of a soak, and writes down what is measured, and where.
fn prepare_results(root: &Path, results: &PathBuf) -> Result<()> {
    fs::create_dir_all(results).with_context(|| format!("cannot make {}", results.display()))?;
    let says = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(root).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
    };
    let about = format!(
        "command: cargo xtask soak\ncommit: {}\nrustc: {}\nmachine: {}\nprocessors: {}\n",
        says("git", &["describe", "--always", "--dirty"]),
        says("rustc", &["--version"]),
        says("uname", &["-srm"]),
        says("nproc", &[]),
    );
    fs::write(results.join("about.txt"), about).context("cannot write about.txt")?;
    println!("results: tests write *.json and *.txt to {}", results.display());
    Ok(())
}

impl Runner<'_> {
    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(run::cargo());
        command.args(arguments).current_dir(self.root);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn profile(&self) -> &'static str {
        if self.options.soak { "release" } else { "testing" }
    }

    /// Doc tests first, then nextest, whose summary ends the output.
    fn nextest(&self, mut steps: Steps, log: &mut String) -> Result<bool> {
        let mut doc_tests = Tally::default();
        if !self.options.fast && self.options.filters.is_empty() {
            let mut passed = true;
            steps.step("doc tests", || {
                let mut doc = self.cargo(&["test", "--workspace", "--doc"]);
                doc.args(["--profile", self.profile(), "--quiet"]);
                passed = self.tally(&mut doc, &mut doc_tests, log)?;
                Ok(())
            })?;
            if !passed {
                doc_tests.failed = doc_tests.failed.max(1);
            }
        }
        steps.print();
        println!("== tests");
        let mut nextest = self.cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]);
        nextest.args(["--cargo-profile", self.profile()]);
        if self.options.soak {
            nextest.args(["--profile", "soak"]);
        }
        if self.options.fast {
            nextest.args(["--exclude", PROCESSES]);
        }
        if std::io::stdout().is_terminal() {
            nextest.args(["--color", "always"]);
        }
        nextest.args(&self.options.filters);
        let mut tests = Tally::default();
        let passed = self.tally(&mut nextest, &mut tests, log)?;
        if doc_tests.failed > 0 {
            // The summary above does not know about the doc tests: it must not stand alone.
            println!("doc tests failed, see above");
            let (passed, failed) = (tests.passed + doc_tests.passed, tests.failed);
            println!("{passed} passed, {} failed", failed + doc_tests.failed);
        }
        Ok(passed && doc_tests.failed == 0)
    }

    /// Without nextest: tests that start processes one by one, the others as cargo likes.
    fn plain(&self, steps: Steps, log: &mut String) -> Result<bool> {
        steps.print();
        let mut tally = Tally::default();
        let common = ["--profile", self.profile(), "--no-fail-fast"];
        let mut others = self.cargo(&["test", "--workspace", "--exclude", PROCESSES]);
        others.args(common);
        if self.options.fast {
            others.args(["--lib", "--bins", "--tests"]);
        }
        others.arg("--").args(&self.options.filters);
        let mut passed = self.tally(&mut others, &mut tally, log)?;
        if !self.options.fast {
            let mut processes = self.cargo(&["test", "-p", PROCESSES]);
            processes.args(common).args(["--", "--test-threads=1"]).args(&self.options.filters);
            passed &= self.tally(&mut processes, &mut tally, log)?;
        }
        if !passed {
            tally.failed = tally.failed.max(1); // What does not build has no summary of its own.
        }
        println!("{} passed, {} failed", tally.passed, tally.failed);
        Ok(passed)
    }

    fn tally(&self, command: &mut Command, tally: &mut Tally, log: &mut String) -> Result<bool> {
        let status = run::watched(command, |line| {
            let said = summary(line);
            tally.passed += said.passed;
            tally.failed += said.failed;
            if self.options.soak {
                log.push_str(line);
                log.push('\n');
            }
        })?;
        Ok(status.success())
    }
}

/// The numbers in a summary line of cargo test or nextest; zeros when it is no summary.
pub fn summary(line: &str) -> Tally {
    let text = without_colours(line);
    // Nextest indents its summary, and indents more what a failed test printed.
    if !text.starts_with("test result:") && !text.trim_start().starts_with("Summary [") {
        return Tally::default();
    }
    let words: Vec<&str> =
        text.split([' ', ',', ';', '(', ')']).filter(|w| !w.is_empty()).collect();
    let before = |word: &str| {
        let at = words.iter().position(|w| *w == word)?;
        words[at.checked_sub(1)?].parse::<usize>().ok()
    };
    let timed_out = before("timed").or_else(|| before("timed-out")).unwrap_or(0);
    let failed = before("failed").unwrap_or(0) + timed_out;
    Tally { passed: before("passed").unwrap_or(0), failed }
}

/// `line` without the escape sequences that colour it.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, text)| text));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners_are_read() {
        let cases = [
            ("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out", 12, 0),
            ("test result: FAILED. 3 passed; 2 failed; 0 ignored", 3, 2),
            ("     Summary [   0.005s] 42 tests run: 42 passed, 0 skipped", 42, 0),
            (
                "Summary [ 1.2s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 0 skipped",
                6,
                3,
            ),
            (
                "\u{1b}[1m     Summary\u{1b}[0m [ 1.2s] \u{1b}[1m9\u{1b}[0m tests run: 9 passed",
                9,
                0,
            ),
            ("    test result: FAILED. 3 passed; 2 failed; 0 ignored", 0, 0),
            ("    PASS [ 0.1s] a test named 3 passed", 0, 0),
        ];
        for (line, passed, failed) in cases {
            assert_eq!(summary(line), Tally { passed, failed }, "{line}");
        }
    }
}
