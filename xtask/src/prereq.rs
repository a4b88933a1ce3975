//! What the tests need beyond cargo: Debian's `redis-server`, `redis-cli` and
//! `redis-benchmark`, and the Python packages `redis` and `kazoo`.
//!
//! Debian's `zookeeper`, large with its Java, serves one comparison: it is used where it is
//! and never installed from here.
//!
//! What is missing is installed where that is possible; otherwise the error names the command.
//! Python packages go below the target directory, never into the system.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// Environment that the tests run with, so that they find what was installed for them.
pub type Environment = Vec<(&'static str, OsString)>;

/// Where Debian's package has the server.
const ZOOKEEPER_JAR: &str = "/usr/share/java/zookeeper.jar";

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
    tell_zookeeper();
    python_packages(target)
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

/// Debian's ZooKeeper is nothing that tests may ask for: says what is left out without it.
fn tell_zookeeper() {
    let java = run::succeeds(Command::new("java").arg("-version"));
    if java && Path::new(ZOOKEEPER_JAR).exists() {
        println!("prerequisites: Debian's zookeeper is here: our answers are compared with its");
    } else {
        println!(
            "prerequisites: Debian's zookeeper is not here: our answers are not compared with \
             its; to have that done:\n  \
             apt-get update && apt-get install -y --no-install-recommends zookeeper"
        );
    }
}

/// Provides the Python packages, in the system or below the target directory.
fn python_packages(target: &Path) -> Result<Environment> {
    let own = target.join("python");
    let mut path = own.clone().into_os_string();
    if let Some(before) = std::env::var_os("PYTHONPATH") {
        path.push(":");
        path.push(before);
    }
    let mut environment = vec![];
    for package in ["redis", "kazoo"] {
        if imports(package, None) {
            println!("prerequisites: the Python package {package} is here");
            continue;
        }
        python_package(package, &own, &path)?;
        if !imports(package, None) {
            println!("prerequisites: the Python package {package} is below the target directory");
            environment = vec![("PYTHONPATH", path.clone())];
        }
    }
    Ok(environment)
}

/// Whether Python finds a package, with this path or without one.
fn imports(package: &str, path: Option<&OsString>) -> bool {
    let mut command = Command::new("python3");
    command.args(["-c", &format!("import {package}")]);
    if let Some(path) = path {
        command.env("PYTHONPATH", path);
    }
    run::succeeds(&mut command)
}

/// Has a package that the system has not: below `own`, which `path` begins with, or Debian's.
fn python_package(package: &str, own: &Path, path: &OsString) -> Result<()> {
    let debians = format!("python3-{package}");
    if !imports(package, Some(path)) {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]);
        pip.arg("--target").arg(own).arg(package);
        if run::run(&mut pip).is_err() && is_root() {
            // No pip here: Debian's own package is as good.
            debian(&[&debians])?;
        }
    }
    if imports(package, None) || imports(package, Some(path)) {
        return Ok(());
    }
    let own = own.display();
    bail!(
        "the tests need the Python package {package}; install it with one of:\n  \
         python3 -m pip install --target {own} {package}\n  sudo apt-get install -y {debians}"
    )
}
