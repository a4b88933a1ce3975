//! One point of an experiment: a run of this program, or of a peer, as a process of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap::error::ErrorKind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::peers;
use crate::cli::{Cli, SuiteArgs};
use crate::signals::Signals;

/// What is run for a point.
#[derive(Clone, Debug)]
pub enum Job {
    /// `stylite bench --local` with these flags.
    Bench(Vec<String>),
    /// `stylite bench baseline` with these flags.
    Baseline(Vec<String>),
    /// `stylite bench graph` with these flags.
    Graph(Vec<String>),
    /// Another system.
    Peer(Peer),
    /// Nothing, for this reason.
    Never(String),
}

/// Another system, and how it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Which.
    pub system: System,
    /// Commands per pipeline.
    pub depth: u32,
    /// Keys that are written, at random.
    pub keys: u32,
    /// How many percent of the commands read.
    pub reads: u32,
}

/// The systems that keys are written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum System {
    /// One redis-server.
    Alone,
    /// A redis-server and a replica; every pipeline ends with WAIT 1.
    Confirmed,
    /// A group of ours behind a Redis gateway, that keeps everything in memory.
    Gateway,
    /// The same, that syncs what it promises to its disks.
    Durable,
    /// Three etcd servers.
    Etcd,
    /// Three ZooKeeper servers.
    ZooKeeper,
    /// A group of ours behind a ZooKeeper gateway, that keeps everything in memory.
    Coordination,
}

/// What came of a point.
#[derive(Clone, Debug)]
pub enum End {
    /// A result, in the form of `stylite bench --json`.
    Result(Value),
    /// It cannot be run here.
    Skipped(String),
    /// It was run and failed.
    Failed(String),
    /// A signal came, of this number.
    Interrupted(i32),
}

/// How often a process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a run may take beside what it measures.
const RUN_MARGIN: Duration = Duration::from_secs(60);
/// Warm-up of each run.
const WARMUP_MS: u32 = 1_000;

/// The words of a line.
#[must_use]
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

impl Job {
    /// A run of this program against a group of its own.
    #[must_use]
    pub fn bench(flags: &str) -> Job {
        Job::Bench(words(flags))
    }

    /// The command line, without what the suite adds for every point.
    #[must_use]
    pub fn command(&self) -> String {
        match self {
            Job::Bench(flags) => format!("stylite bench --local {}", flags.join(" ")),
            Job::Baseline(flags) => format!("stylite bench baseline {}", flags.join(" ")),
            Job::Graph(flags) => format!("stylite bench graph {}", flags.join(" ")),
            Job::Peer(peer) => peers::command(*peer),
            Job::Never(_) => String::new(),
        }
    }

    fn args(&self) -> Vec<String> {
        let (head, flags): (&[&str], _) = match self {
            Job::Bench(flags) => (&["bench", "--local"], flags),
            Job::Baseline(flags) => (&["bench", "baseline"], flags),
            Job::Graph(flags) => (&["bench", "graph"], flags),
            Job::Peer(_) | Job::Never(_) => return Vec::new(),
        };
        head.iter().map(|word| (*word).to_owned()).chain(flags.iter().cloned()).collect()
    }

    /// Why it cannot be run; none when it can, as far as that shows before.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        match self {
            Job::Never(why) => return Some(why.clone()),
            Job::Peer(peer) => return peers::refused(*peer),
            Job::Bench(_) | Job::Baseline(_) | Job::Graph(_) => {}
        }
        let args = ["stylite".to_owned()].into_iter().chain(self.args());
        let error = Cli::command().try_get_matches_from(args).err()?;
        let word = |kind| error.get(kind).map(|value| value.to_string());
        Some(match error.kind() {
            ErrorKind::UnknownArgument => {
                let flag = word(clap::error::ContextKind::InvalidArg).unwrap_or_default();
                format!("this program has no {flag}")
            }
            _ => error.to_string().lines().next().unwrap_or_default().to_owned(),
        })
    }

    /// Runs it once.
    ///
    /// # Errors
    /// When a process cannot be started or waited for.
    pub async fn run(&self, suite: &SuiteArgs, signals: &mut Signals) -> Result<End> {
        if let Some(why) = self.refused() {
            return Ok(End::Skipped(why));
        }
        if let Job::Peer(peer) = self {
            return peers::run(*peer, suite, signals).await;
        }
        let file = suite.out.join("point.json");
        let mut command = program()?;
        command.args(self.args()).arg("--json").arg(&file);
        command.arg("--duration").arg(format!("{}s", suite.seconds));
        if !matches!(self, Job::Graph(_)) {
            command.arg("--warmup").arg(format!("{WARMUP_MS}ms"));
        }
        command.args(["--runs", "1"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let each = Duration::from_millis((suite.seconds * 1_000 + WARMUP_MS).into()) * 2;
        let most = each + RUN_MARGIN;
        let child = command.spawn().context("cannot start this program again")?;
        let end = wait(child, most, signals).await?;
        let result = match end {
            Waited::Ended(true, _) => read(&file)?,
            Waited::Ended(false, said) => End::Failed(said),
            Waited::TooLong => End::Failed(format!("no end within {most:?}")),
            Waited::Interrupted(number) => End::Interrupted(number),
        };
        // It is not there when the run failed.
        let _ = std::fs::remove_file(&file);
        Ok(result)
    }
}

/// This program, without settings from the environment, and in a process group of its own: a
/// Ctrl-C is for the suite, which stops what it started.
///
/// # Errors
/// When its file cannot be found.
pub fn program() -> Result<Command> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("STYLITE_")) {
        command.env_remove(name);
    }
    command.process_group(0);
    Ok(command)
}

fn read(file: &Path) -> Result<End> {
    let text = std::fs::read_to_string(file).context("the run has left no result")?;
    Ok(End::Result(serde_json::from_str(&text)?))
}

/// How waiting for a process ended.
#[derive(Debug)]
pub enum Waited {
    /// By itself; whether well, and the end of what it said.
    Ended(bool, String),
    /// It took too long and was killed.
    TooLong,
    /// A signal came, and it was stopped.
    Interrupted(i32),
}

/// Waits for a process, but not for ever, and not beyond a signal.
///
/// # Errors
/// When the system refuses.
pub async fn wait(mut child: Child, most: Duration, signals: &mut Signals) -> Result<Waited> {
    let deadline = tokio::time::Instant::now() + most;
    loop {
        if let Some(status) = child.try_wait()? {
            let mut said = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                use std::io::Read;
                // What is not text is not shown.
                let _ = stderr.read_to_string(&mut said);
            }
            let last = said.trim().lines().rev().take(3).collect::<Vec<_>>();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("; ");
            return Ok(Waited::Ended(status.success(), last));
        }
        tokio::select! {
            number = signals.next() => {
                stop(&mut child);
                return Ok(Waited::Interrupted(number));
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if tokio::time::Instant::now() >= deadline {
            stop(&mut child);
            return Ok(Waited::TooLong);
        }
    }
}

/// Asks a child to end, and ends it when it does not.
pub fn stop(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It was not waited for, so that the number is still its own.
        let _ = kill_process(pid, Signal::TERM);
    }
    for _ in 0..200 {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // It may have ended by itself in between.
    let _ = child.kill();
    let _ = child.wait();
}
