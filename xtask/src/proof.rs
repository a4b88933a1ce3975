//! `cargo xtask fuzz`, `cargo-fuzz`, `loom` and `miri`: proofs beside the tests.
//!
//! What a machine lacks is said, with the reason, and is no failure: none of these is the only
//! gate of anything.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::run;

/// Runs fuzz targets: `arguments` are those of the program, and `--help` says what they are.
///
/// # Errors
/// When cargo cannot run. True when all targets stood it.
pub fn fuzz(root: &Path, arguments: &[String]) -> Result<bool> {
    let mut command = Command::new(run::cargo());
    command.args(["run", "--quiet", "--profile", "testing", "-p", "stylite-fuzz", "--"]);
    // The tests' profile, but a panic must not end the program: it is what is looked for.
    command.env("CARGO_PROFILE_TESTING_PANIC", "unwind");
    stood(command.args(arguments).current_dir(root).status()?.code())
}

/// What the program's exit code says.
fn stood(code: Option<i32>) -> Result<bool> {
    match code {
        Some(2) => bail!(run::Usage("see above, or `cargo xtask fuzz --help`".to_owned())),
        code => Ok(code == Some(0)),
    }
}

/// The same targets under `cargo fuzz`, guided by coverage, where it is installed with a nightly
/// toolchain: `arguments` are a target and what goes to libFuzzer.
///
/// # Errors
/// When a target fails, or no target is named.
pub fn cargo_fuzz(root: &Path, arguments: &[String]) -> Result<()> {
    let [target, rest @ ..] = arguments else { bail!("name a target: cargo xtask fuzz --list") };
    let mut nightly = Command::new("cargo");
    let there = run::succeeds(nightly.args(["+nightly", "fuzz", "--version"]));
    if !there {
        println!(
            "cargo-fuzz: skipped: it or its toolchain is not installed; cargo xtask fuzz needs \
             neither:\n  rustup toolchain install nightly && cargo install cargo-fuzz"
        );
        return Ok(());
    }
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz", "run", "any", "--"]).args(rest);
    run::run(command.env("STYLITE_FUZZ_TARGET", target).current_dir(root))
}

/// Explores the lock-free code of `rt` and `shm` under every order that the memory model allows.
///
/// # Errors
/// When a model fails, or cargo cannot run.
pub fn loom(root: &Path) -> Result<()> {
    let mut command = Command::new(run::cargo());
    command.args(["test", "--profile", "testing", "-p", "stylite-rt", "-p", "stylite-shm"]);
    command.args(["--lib", "models::"]);
    // The flag changes what is compiled: a directory of its own keeps the usual one warm.
    command.env("RUSTFLAGS", "--cfg loom");
    command.env("CARGO_TARGET_DIR", run::target_directory(root)?.join("loom"));
    run::run(command.current_dir(root))
}

/// The packages that Miri interprets: the pure crates, whose tests are nothing but computation, and
/// the rings of `shm`, over words that are not mapped.
const INTERPRETED: [&str; 4] = ["stylite-base", "stylite-proto", "stylite-exec", "stylite-shm"];

/// Runs their tests under Miri, where it is installed.
///
/// # Errors
/// When a test fails under it.
pub fn miri(root: &Path) -> Result<()> {
    println!(
        "miri: `unsafe` is where tidy lists it, which needs mapped memory; this looks around it"
    );
    let there = run::succeeds(Command::new(run::cargo()).args(["miri", "--version"]));
    if !there {
        println!(
            "miri: skipped: the component is not installed; it comes with a nightly toolchain:\n  \
             rustup toolchain install nightly --component miri"
        );
        return Ok(());
    }
    let mut command = Command::new(run::cargo());
    command.args(["miri", "test", "--lib"]).current_dir(root);
    for package in INTERPRETED {
        command.args(["-p", package]);
    }
    ensure!(command.status()?.success(), "miri found something");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_not_there_is_wrong_usage_and_one_that_falls_is_not() {
        assert!(matches!(stood(Some(0)), Ok(true)));
        assert!(matches!(stood(Some(1)), Ok(false)));
        assert!(matches!(stood(None), Ok(false)), "killed");
        assert!(stood(Some(2)).is_err_and(|error| error.is::<run::Usage>()));
    }
}
