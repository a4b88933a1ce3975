//! What the tests need beyond cargo: Debian's `redis-server`, `redis-cli` and
//! `redis-benchmark`, and the Python package `redis`.
//!
//! What is missing is installed where that is possible; otherwise the error names the command.
//! The Python package goes below the target directory, never into the system.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// Environment that the tests run with, so that they find what was installed for them.
pub type Environment = Vec<(&'static str, OsString)>;

/// Looks for everything and installs what is missing.
///
/// # Errors
/// When something is missing and cannot be installed: with the commands that would do it.
pub fn provide(target: &Path) -> Result<Environment> {
    let missing: Vec<&str> = [
        ("redis-server", "redis-server"),
        ("redis-cli", "redis-tools"),
        ("redis-benchmark", "redis-tools"),
        ("python3", "python3"),
    ]
    .into_iter()
    .filter(|(program, _)| !run::succeeds(Command::new(program).arg("--version")))
    .map(|(_, package)| package)
    .collect();
    if missing.is_empty() {
        println!("prerequisites: redis-server, redis-cli, redis-benchmark, python3 are here");
    } else {
        debian(&missing)?;
    }
    python_redis(target)
}

fn debian(packages: &[&str]) -> Result<()> {
    let mut packages = packages.to_vec();
    packages.dedup();
    let list = packages.join(" ");
    let remedy = format!("apt-get update && apt-get install -y --no-install-recommends {list}");
    println!("prerequisites: missing Debian packages: {list}");
    if !is_root() || !run::succeeds(Command::new("apt-get").arg("--version")) {
        bail!("the tests need the Debian packages {list}; install them:\n  sudo sh -c '{remedy}'");
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        // Redis must not start as a service of the machine, only under the tests.
        command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        command
    };
    let install = run::run(apt().arg("update")).and_then(|()| {
        run::run(apt().args(["install", "-y", "--no-install-recommends"]).args(&packages))
    });
    install.map_err(|error| error.context(format!("install them by hand:\n  {remedy}")))
}

/// Whether we may install packages.
fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == "0")
}

fn python_redis(target: &Path) -> Result<Environment> {
    let imports = |path: Option<&OsString>| {
        let mut command = Command::new("python3");
        command.args(["-c", "import redis"]);
        if let Some(path) = path {
            command.env("PYTHONPATH", path);
        }
        run::succeeds(&mut command)
    };
    if imports(None) {
        println!("prerequisites: the Python package redis is here");
        return Ok(vec![]);
    }
    let own = target.join("python");
    let mut path = own.clone().into_os_string();
    if let Some(before) = std::env::var_os("PYTHONPATH") {
        path.push(":");
        path.push(before);
    }
    if !imports(Some(&path)) {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]);
        pip.arg("--target").arg(&own).arg("redis");
        if run::run(&mut pip).is_err() && is_root() {
            // No pip here: Debian's own package is as good.
            debian(&["python3-redis"])?;
        }
    }
    if imports(None) {
        return Ok(vec![]);
    }
    if imports(Some(&path)) {
        println!("prerequisites: the Python package redis is below the target directory");
        return Ok(vec![("PYTHONPATH", path)]);
    }
    let own = own.display();
    bail!(
        "the tests need the Python package redis; install it with one of:\n  \
         python3 -m pip install --target {own} redis\n  sudo apt-get install -y python3-redis"
    )
}
