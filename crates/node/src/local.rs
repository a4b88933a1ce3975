//! A local group: replica processes of this very program on this machine.
//!
//! What it is: founding a group on free ports, starting its replicas as processes, noticing
//! when one ends, and stopping all of them. The processes end with this one, however it ends:
//! each watches its standard input, a pipe that closes when this process is gone. What it is
//! not: a supervisor; a replica that died may not come back (see [`crate::mark`]).
//!
//! Invariants:
//! 1. dropping a [`LocalGroup`] leaves no process behind, and no directory that was temporary;
//! 2. only processes that were started here are ever signalled, and never after they were
//!    waited for.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::ReplicaId;
use genesis::{GROUP_FILE, Group, InitOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::health::{Health, judge};
use crate::logging::plain;
use crate::mark;
use crate::probe::Prober;
use crate::values::flagged;

/// What a local group is to be.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The group. Its ports are chosen here.
    pub init: InitOptions,
    /// Where its files go; a temporary directory when not given.
    pub dir: Option<PathBuf>,
    /// Threads of each replica, if not as many as it thinks right.
    pub threads: Option<usize>,
    /// The log level of the replicas.
    pub log: String,
}

/// A group of replica processes.
#[derive(Debug)]
pub struct LocalGroup {
    group: Group,
    replicas: Vec<Member>,
    dir: Dir,
}

/// One replica process.
#[derive(Debug)]
struct Member {
    id: ReplicaId,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

/// A replica process that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which replica.
    pub id: ReplicaId,
    /// How it ended.
    pub status: ExitStatus,
    /// The last lines of its log, as people read them.
    pub last_words: String,
}

/// A directory, removed with its content when it is temporary.
#[derive(Debug)]
struct Dir {
    path: PathBuf,
    temporary: bool,
}

/// How long replicas may take to drain.
const STOP_TIMEOUT: Duration = Duration::from_secs(6);
/// How long the replicas may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait between two looks at them.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// Ports are looked for from here to [`PORT_LAST`]: below those that outgoing connections take.
const PORT_FIRST: u16 = 17_400;
const PORT_LAST: u16 = 32_000;
/// How much of a log's end is shown.
const LAST_WORDS_BYTES: u64 = 2048;

impl LocalGroup {
    /// Founds a group, or takes the one that is in the directory already, and starts its
    /// replicas. They are not ready yet when this returns.
    ///
    /// # Errors
    /// When there are no free ports, the group cannot be founded, was started before, or a
    /// process cannot be started.
    pub fn start(options: &LocalOptions) -> Result<LocalGroup> {
        let dir = match &options.dir {
            Some(path) => Dir { path: path.clone(), temporary: false },
            None => Dir::temporary()?,
        };
        let group = if dir.path.join(GROUP_FILE).exists() {
            let group = Group::load(&dir.path)?;
            mark::check_all(&group)?;
            group
        } else {
            found(&dir.path, &options.init)?
        };
        let logs = dir.path.join("logs");
        DirBuilder::new()
            .recursive(true)
            .create(&logs)
            .with_context(|| format!("{}: cannot create the directory", logs.display()))?;
        let mut local = LocalGroup { group, replicas: Vec::new(), dir };
        for id in local.group.quorums().replicas() {
            let log = logs.join(format!("replica-{id}.log"));
            let child = spawn(&local.group, id, &log, options)?;
            local.replicas.push(Member { id, child, log, ended: None });
        }
        Ok(local)
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir.path
    }

    /// Whether the directory goes with the group.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.dir.temporary
    }

    /// The processes' numbers, in the order of the replicas.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.replicas.iter().map(|member| member.child.id()).collect()
    }

    /// The replicas that have ended since this was asked last.
    pub fn ended(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        for member in self.replicas.iter_mut().filter(|member| member.ended.is_none()) {
            if let Ok(Some(status)) = member.child.try_wait() {
                member.ended = Some(status);
                let last_words = last_words(&member.log);
                ended.push(Ended { id: member.id, status, last_words });
            }
        }
        ended
    }

    /// How many replicas run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.replicas.iter().filter(|member| member.ended.is_none()).count()
    }

    /// Asks all replicas to drain and waits for them, a few seconds at most; then ends those
    /// that are left.
    pub fn stop(mut self) {
        self.drain();
    }

    fn drain(&mut self) {
        for member in self.replicas.iter_mut().filter(|member| member.ended.is_none()) {
            signal(&member.child, Signal::TERM);
        }
        let until = Instant::now() + STOP_TIMEOUT;
        while self.running() > 0 && Instant::now() < until {
            self.ended();
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    fn kill(&mut self) {
        for member in self.replicas.iter_mut().filter(|member| member.ended.is_none()) {
            // It may have ended by itself in between: then there is nothing to do.
            let _ = member.child.kill();
            member.ended = member.child.wait().ok();
        }
    }
}

impl Drop for LocalGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Dir {
    /// A fresh directory that only this user can read.
    fn temporary() -> Result<Dir> {
        let parent = std::env::temp_dir();
        for _ in 0..100 {
            let path = parent.join(format!("stylite-{:016x}", auth::random_u64()?));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Dir { path, temporary: true }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let shown = path.display();
                    return Err(error).context(format!("{shown}: cannot create the directory"));
                }
            }
        }
        bail!("{}: no name for a temporary directory is free", parent.display())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, dir = %self.path.display(), "cannot remove the directory");
        }
    }
}

/// Waits until all replicas of a local group take part.
///
/// # Errors
/// When one of them ends, or that takes longer than [`READY_TIMEOUT`].
pub async fn wait_until_healthy(prober: &Prober, local: &mut LocalGroup) -> Result<()> {
    let until = Instant::now() + READY_TIMEOUT;
    loop {
        if let Some(ended) = local.ended().first() {
            let Ended { id, status, last_words } = ended;
            bail!("replica {id} has ended ({status}); the end of its log:\n{last_words}");
        }
        let verdict = judge(prober.group(), &prober.all().await);
        if verdict.health == Health::Healthy {
            return Ok(());
        }
        if Instant::now() >= until {
            let reasons = verdict.reasons.join("; ");
            bail!("the group is not ready after {READY_TIMEOUT:?}: {reasons}");
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
}

/// Founds a group in `dir` on free ports, with marks for its replicas.
fn found(dir: &Path, init: &InitOptions) -> Result<Group> {
    let wanted = init.replicas.saturating_mul(init.pillars);
    let port = free_ports(wanted)?;
    let group = genesis::init(dir, &InitOptions { port, ..init.clone() }).map_err(flagged)?;
    mark::leave(&group)?;
    Ok(group)
}

/// The first of `count` free ports in a row on this machine. They are free now; whoever is
/// quicker may still take them, which the replica that misses its port then says.
fn free_ports(count: u16) -> Result<u16> {
    let span = PORT_LAST - PORT_FIRST;
    if count == 0 || count > span {
        bail!("{count} ports are wanted; at most {span} can be looked for");
    }
    for _ in 0..200 {
        let places = u64::from(span - count) + 1;
        let offset = u16::try_from(auth::random_u64()? % places).expect("below a u16's span");
        let first = PORT_FIRST + offset;
        let bind = |port| TcpListener::bind(("127.0.0.1", port));
        if (first..first + count).map(bind).collect::<Result<Vec<_>, _>>().is_ok() {
            return Ok(first);
        }
    }
    bail!("no {count} free ports in a row between {PORT_FIRST} and {PORT_LAST} on 127.0.0.1")
}

fn spawn(group: &Group, id: ReplicaId, log: &Path, options: &LocalOptions) -> Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let shown = log.display();
    let file = File::create(log).with_context(|| format!("{shown}: cannot create the log"))?;
    let mut command = Command::new(program);
    command.arg("replica").arg("--config").arg(group.path());
    command.arg("--id").arg(id.to_string()).arg("--exit-with-parent");
    command.args(["--durability", "memory", "--log", &options.log]);
    if let Some(threads) = options.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file);
    // A process group of its own: Ctrl-C on the terminal is for this process alone, which then
    // stops the replicas in order.
    command.process_group(0);
    command.spawn().with_context(|| format!("cannot start replica {id}"))
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in between; it was not waited for, so the number is still its own.
        let _ = kill_process(pid, signal);
    }
}

/// The end of a log.
fn last_words(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(LAST_WORDS_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.trim().lines().map(plain).collect();
        Ok(lines.join("\n"))
    };
    read().unwrap_or_default()
}
