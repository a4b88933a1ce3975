//! `cargo xtask verify`: the gate, which only reads; and `fix` and `docs`, which write.
//!
//! `.ci/run` runs `verify` and nothing else, so what passes here passes there.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::run::{self, Steps};
use crate::test::{self, Options};
use crate::{layers, mutants, tidy};

/// Runs every check, then all tests. True when all passed.
///
/// # Errors
/// When a check finds something, or cannot run. The tests start only when all checks are clean.
pub fn verify(root: &Path) -> Result<bool> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(run::cargo());
        command.args(arguments).current_dir(root);
        command
    };
    let mut steps = Steps::default();
    steps.step("formatting", || run::run(&mut cargo(&["fmt", "--all", "--check"])))?;
    steps.step("tidy", || tidy::run(root))?;
    steps.step("layers", || layers::run(root))?;
    steps.step("clippy", || {
        let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        run::run(&mut cargo(&lints))
    })?;
    steps.step("docs", || {
        let mut doc = cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
        run::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    steps.step("mutants", || {
        let found = mutants::run(root, &mutants::quick())?;
        ensure!(found, "a deliberate bug survives, or the simulator fails without one");
        Ok(())
    })?;
    test::run(root, &Options::default(), steps)
}

/// Formats, and applies what clippy can mend by itself.
///
/// # Errors
/// When cargo cannot run or the code does not compile.
pub fn fix(root: &Path) -> Result<()> {
    let fix =
        ["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets"];
    run::run(Command::new(run::cargo()).args(fix).current_dir(root))?;
    run::run(Command::new(run::cargo()).args(["fmt", "--all"]).current_dir(root))
}

/// In the name of each test that compares a generated document with the code.
const GENERATED: &str = "the_documentation_has";

/// Writes the documents that are generated from the code anew: the tests that compare them, with
/// [`GENERATED`] in their names, write instead when `REWRITE` is set.
///
/// # Errors
/// When the tests cannot run or fail, or when there is no such test.
pub fn docs(root: &Path) -> Result<()> {
    let mut tests = Command::new(run::cargo());
    tests.args(["test", "--profile", "testing", "-p", "stylite-svc", "-p", "stylite-node"]);
    tests.args(["--lib", "--tests", GENERATED]).env("REWRITE", "1").current_dir(root);
    let mut written = 0;
    let status = run::watched(&mut tests, |line| written += test::summary(line).passed)?;
    ensure!(status.success(), "failed ({status}): {}", run::shown(&tests));
    ensure!(written > 0, "no test has {GENERATED} in its name: nothing was written");
    println!("docs: {written} written; look at the difference before you commit it");
    Ok(())
}
