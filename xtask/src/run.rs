//! Running other programs: loud when they fail, with the time each step took.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// A mistake on the command line that shows only while it is carried out.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The cargo that started us.
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// What cargo knows about the workspace at `root`, without the packages of others.
///
/// # Errors
/// When cargo cannot be run, or fails.
pub fn metadata(root: &Path) -> Result<Value> {
    let output = Command::new(cargo())
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata failed:\n{error}");
    serde_json::from_slice(&output.stdout).context("cargo metadata printed something else")
}

/// Where cargo puts what it builds.
///
/// # Errors
/// Those of [`metadata`].
pub fn target_directory(root: &Path) -> Result<PathBuf> {
    let metadata = metadata(root)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata has no target")?;
    Ok(PathBuf::from(target))
}

/// The command line, as a reader would type it.
pub fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    let mut line = name;
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Runs `command`, printing it first.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("failed ({status}): {}", shown(command));
    }
    Ok(())
}

/// Whether `command` runs and succeeds; what it prints is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Runs `command`, printing it first, and passes on what it prints while looking at each line.
/// Both of its outputs go to ours, so that its last word is the last one there too.
///
/// # Errors
/// When it cannot be started or watched. Its failing is no error: see the status.
pub fn watched(command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    println!("$ {}", shown(command));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", shown(command)))?;
    let stdout = child.stdout.take().expect("is piped");
    let stderr = child.stderr.take().expect("is piped");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let errors = sender.clone();
        scope.spawn(move || pass_on(stderr, &errors));
        scope.spawn(move || pass_on(stdout, &sender));
        receiver.iter().for_each(|text: String| line(&text));
    });
    child.wait().context("cannot wait for a program that we started")
}

/// Copies lines from `input` to our output and to `lines` until the input ends.
fn pass_on(input: impl Read, lines: &std::sync::mpsc::Sender<String>) {
    let mut input = BufReader::new(input);
    let mut line = vec![];
    while matches!(input.read_until(b'\n', &mut line), Ok(read) if read > 0) {
        // Nobody reading us any more is no reason to stop the tests.
        let mut output = std::io::stdout().lock();
        let _ = output.write_all(&line).and_then(|()| output.flush());
        let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// The time that named steps took.
#[derive(Default)]
pub struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Runs `step` and remembers how long it took.
    ///
    /// # Errors
    /// Those of `step`.
    pub fn step(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("== {name}");
        let start = Instant::now();
        let result = step();
        self.done.push((name, start.elapsed()));
        result.with_context(|| format!("step \"{name}\" failed"))
    }

    /// Prints the steps with their times on one line.
    pub fn print(&self) {
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        let steps: Vec<String> =
            self.done.iter().map(|(name, took)| format!("{name} {}s", took.as_secs())).collect();
        println!("== so far {}s: {}", total.as_secs(), steps.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watched_sees_every_line_and_the_status() {
        let mut lines = vec![];
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let status = watched(&mut command, |line| lines.push(line.to_owned())).expect("sh runs");
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_failing_step_is_named() {
        let mut steps = Steps::default();
        let error = steps.step("lint", || bail!("broken")).expect_err("fails");
        assert!(format!("{error:#}").contains("\"lint\" failed: broken"));
        assert_eq!(steps.done.len(), 1);
    }
}
