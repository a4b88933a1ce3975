//! A local group: replica processes of this very program on this machine.
//!
//! What it is: founding a group on free ports, starting its replicas as processes, noticing
//! when one ends, starting it again, and stopping all of them. The processes end with this one,
//! however it ends: each watches its standard input, a pipe that closes when this process is
//! gone. What it is not: a supervisor for production; that is the system's own.
//!
//! Invariants:
//! 1. dropping a [`LocalGroup`] leaves no process behind, and no directory that was temporary;
//! 2. only processes that were started here are ever signalled, and never after they were
//!    waited for;
//! 3. a replica that keeps ending is started again ever more slowly ([`Backoff`]).

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::ReplicaId;
use genesis::{GROUP_FILE, Group, InitOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::cli::{Durability, Parallelization};
use crate::cpus::ReplicaCpus;
use crate::health::{Health, judge, together};
use crate::logging::plain;
use crate::mark;
use crate::probe::Prober;
use crate::start::{self, METRICS_OFFSET};
use crate::values::{Assignment, flagged};

/// What a local group is to be.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The group. Its ports are chosen here.
    pub init: InitOptions,
    /// Where its files go; a temporary directory when not given.
    pub dir: Option<PathBuf>,
    /// Threads of each replica, if not as many as it thinks right.
    pub threads: Option<usize>,
    /// Execution workers of each replica, if not as many as it thinks right.
    pub workers: Option<usize>,
    /// How the work of each replica is put on threads.
    pub parallelization: Parallelization,
    /// The log level of the replicas.
    pub log: String,
    /// When operations are durable.
    pub durability: Durability,
    /// Replicas that misbehave.
    pub drills: Vec<Assignment>,
    /// Whether the replicas serve metrics, where `stylite replica` does by default.
    pub metrics: bool,
    /// The processors that the replicas run on, if not all.
    pub cpus: Option<ReplicaCpus>,
}

/// A group of replica processes.
#[derive(Debug)]
pub struct LocalGroup {
    group: Group,
    options: LocalOptions,
    replicas: Vec<Member>,
    lost: Vec<ReplicaId>,
    dir: Dir,
    /// Keeps the ports from other groups that look for some, until the replicas are gone.
    _ports: Ports,
}

/// Ports that are taken for the replicas of a group that has just been founded, as far as other
/// groups of this program are concerned, in this process or another: its replicas are yet to
/// bind them.
///
/// What holds a port is a UDP socket of the same number, which is in nobody's way and goes with
/// the process. One for each stretch of [`STRETCH`] ports that are touched does.
#[derive(Debug, Default)]
struct Ports {
    _held: Vec<UdpSocket>,
}

impl Ports {
    /// Takes these, or nothing when somebody else has any of them.
    fn take(ports: impl Iterator<Item = u16>) -> Option<Ports> {
        let mut stretches: Vec<u16> = ports.map(|port| port / STRETCH * STRETCH).collect();
        stretches.sort_unstable();
        stretches.dedup();
        let held = stretches.into_iter().map(|port| UdpSocket::bind(("127.0.0.1", port)));
        Some(Ports { _held: held.collect::<Result<_, _>>().ok()? })
    }
}

/// One replica process.
#[derive(Debug)]
struct Member {
    id: ReplicaId,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
    backoff: Backoff,
    /// Whether its disk was lost when the group was started.
    was_lost: bool,
}

impl Member {
    /// Whether its next life has to recover what a disk has lost: the one before may have ended
    /// before it had left anything there to go on from.
    fn recovers(&self, group: &Group) -> bool {
        // A directory that cannot be read is the replica's own to speak of.
        self.was_lost && start::is_lost(group, self.id).unwrap_or(false)
    }
}

/// When a process that keeps ending is started again: after half a second, twice as long each
/// time, half a minute at most; from the beginning once it has lived for a while.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    started: Instant,
    pause: Duration,
    again: Option<Instant>,
}

impl Backoff {
    /// The process was started.
    fn start(now: Instant) -> Backoff {
        Backoff { started: now, pause: RESTART_PAUSE, again: None }
    }

    /// The process has ended: when it is to be started again.
    fn end(&mut self, now: Instant) {
        if now.duration_since(self.started) >= LONG_LIFE {
            self.pause = RESTART_PAUSE;
        }
        self.again = Some(now + self.pause);
        self.pause = (2 * self.pause).min(RESTART_PAUSE_MAX);
    }

    /// Whether it is time; says so once.
    fn due(&mut self, now: Instant) -> bool {
        let due = self.again.is_some_and(|again| now >= again);
        if due {
            (self.again, self.started) = (None, now);
        }
        due
    }
}

/// How long a process that has ended waits for its restart, at first.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// How long at most.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Whoever lived so long does not keep ending.
const LONG_LIFE: Duration = Duration::from_secs(10);

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
/// Ports that are held together.
const STRETCH: u16 = 16;
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
        let mut ports = Ports::default();
        let (group, lost) = if dir.path.join(GROUP_FILE).exists() {
            let group = Group::load(&dir.path)?;
            let lost = start::refuse_forgotten(&group, options.durability.into())?;
            (group, lost)
        } else {
            let group;
            (group, ports) = found(&dir.path, options)?;
            (group, Vec::new())
        };
        for (id, _) in &options.drills {
            start::drills_allowed(&group, *id)?;
        }
        let logs = dir.path.join("logs");
        DirBuilder::new()
            .recursive(true)
            .create(&logs)
            .with_context(|| format!("{}: cannot create the directory", logs.display()))?;
        let options = options.clone();
        let mut local =
            LocalGroup { group, options, replicas: Vec::new(), lost, dir, _ports: ports };
        for id in local.group.quorums().replicas() {
            let log = logs.join(format!("replica-{id}.log"));
            let recovers = local.lost.contains(&id);
            let child = spawn(&local.group, (id, recovers), &log, &local.options)?;
            let backoff = Backoff::start(Instant::now());
            let was_lost = recovers;
            local.replicas.push(Member { id, child, log, ended: None, backoff, was_lost });
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

    /// The replicas whose disks were lost when the group was started again; they recover.
    #[must_use]
    pub fn lost(&self) -> &[ReplicaId] {
        &self.lost
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
                member.backoff.end(Instant::now());
                let last_words = last_words(&member.log);
                ended.push(Ended { id: member.id, status, last_words });
            }
        }
        ended
    }

    /// Starts replicas again whose time has come; which, with their new processes' numbers.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn restart(&mut self) -> Result<Vec<(ReplicaId, u32)>> {
        let mut restarted = Vec::new();
        for member in self.replicas.iter_mut().filter(|member| member.ended.is_some()) {
            if member.backoff.due(Instant::now()) {
                let start = (member.id, member.recovers(&self.group));
                member.child = spawn(&self.group, start, &member.log, &self.options)?;
                member.ended = None;
                restarted.push((member.id, member.child.id()));
            }
        }
        Ok(restarted)
    }

    /// The replicas that misbehave because they were told to.
    #[must_use]
    pub fn drills(&self) -> &[Assignment] {
        &self.options.drills
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

/// Waits until all replicas of a local group take part, but those that are told to misbehave.
///
/// # Errors
/// When another one ends, or that takes longer than [`READY_TIMEOUT`].
pub async fn wait_until_healthy(probers: &[Prober], local: &mut LocalGroup) -> Result<()> {
    let until = Instant::now() + READY_TIMEOUT;
    loop {
        let told = |id: &ReplicaId| local.options.drills.iter().any(|(other, _)| other == id);
        let wanted = local.replicas.iter().filter(|member| !told(&member.id)).count();
        let expected: Vec<bool> = local.replicas.iter().map(|member| told(&member.id)).collect();
        let ended = local.ended();
        let sad = |ended: &&Ended| !expected[usize::from(ended.id.0)];
        if let Some(Ended { id, status, last_words }) = ended.iter().find(sad) {
            bail!("replica {id} has ended ({status}); the end of its log:\n{last_words}");
        }
        let mut verdicts = Vec::with_capacity(probers.len());
        for prober in probers {
            verdicts.push(judge(prober.group(), &prober.all().await));
        }
        let verdict = together(&verdicts);
        if verdict.health != Health::Unavailable && verdict.working >= wanted {
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
fn found(dir: &Path, options: &LocalOptions) -> Result<(Group, Ports)> {
    let init = &options.init;
    start::partitionable(&init.service, init.settings.partitions)?;
    // Without any the group is refused anyway, by the name of what it lacks.
    let lanes = init.pillars.saturating_mul(init.settings.partitions);
    let (port, ports) = match init.replicas.saturating_mul(lanes) {
        0 => (PORT_FIRST, Ports::default()),
        count => free_ports(count)?,
    };
    let mut init = InitOptions { port, ..init.clone() };
    init.settings.drills |= !options.drills.is_empty();
    let group = genesis::init(dir, &init).map_err(flagged)?;
    mark::leave(&group)?;
    Ok((group, ports))
}

/// The first of `count` free ports in a row on this machine, with those for metrics beyond them.
/// They are free now, and no other group takes them while what is returned with them is kept.
/// Whoever else is quicker may still have them, which the replica that misses its port then says.
fn free_ports(count: u16) -> Result<(u16, Ports)> {
    let span = PORT_LAST - PORT_FIRST;
    if count > span {
        bail!("{count} ports are wanted; at most {span} can be looked for");
    }
    for _ in 0..200 {
        let places = u64::from(span - count) + 1;
        let offset = u16::try_from(auth::random_u64()? % places).expect("below a u16's span");
        let first = PORT_FIRST + offset;
        let bind = |port| TcpListener::bind(("127.0.0.1", port));
        let metrics = first + METRICS_OFFSET;
        let ports = || (first..first + count).chain(metrics..metrics + count);
        // Held first: whoever looks at them from now on finds them taken.
        let Some(held) = Ports::take(ports()) else { continue };
        if ports().try_for_each(|port| bind(port).map(drop)).is_ok() {
            return Ok((first, held));
        }
    }
    bail!("no {count} free ports in a row between {PORT_FIRST} and {PORT_LAST} on 127.0.0.1")
}

fn spawn(
    group: &Group,
    (id, recovers): (ReplicaId, bool),
    log: &Path,
    options: &LocalOptions,
) -> Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let shown = log.display();
    let opened = File::options().create(true).append(true).open(log);
    let file = opened.with_context(|| format!("{shown}: cannot open the log"))?;
    let mut command = Command::new(program);
    command.arg("replica").arg("--config").arg(group.path());
    command.arg("--id").arg(id.to_string()).arg("--exit-with-parent");
    command.args(["--durability", options.durability.word(), "--log", &options.log]);
    // These are for one replica alone, or were obeyed here: they are not handed down.
    for variable in
        ["MISBEHAVE", "STATE_DIR", "RECOVER", "METRICS", "DRILL_STORAGE", "DRILL_PAUSED"]
    {
        command.env_remove(format!("STYLITE_{variable}"));
    }
    if recovers {
        command.arg("--recover");
    }
    if !options.metrics {
        command.args(["--metrics", "none"]);
    }
    for (_, drill) in options.drills.iter().filter(|(replica, _)| *replica == id) {
        command.args(["--misbehave", &drill.to_string()]);
    }
    command.args(["--parallelization", options.parallelization.word()]);
    if let Some(threads) = options.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    if let Some(workers) = options.workers {
        command.arg("--workers").arg(workers.to_string());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file);
    // A process group of its own: Ctrl-C on the terminal is for this process alone, which then
    // stops the replicas in order.
    command.process_group(0);
    let mut spawn = || command.spawn().with_context(|| format!("cannot start replica {id}"));
    match &options.cpus {
        Some(cpus) => cpus.of(usize::from(id.0)).within(spawn),
        None => spawn(),
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in between; it was not waited for, so the number is still its own.
        let _ = kill_process(pid, signal);
    }
}

/// The end of a log, in whole lines where the last one is not too long for that.
fn last_words(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        // One more, to see whether a line begins there.
        let from = len.saturating_sub(LAST_WORDS_BYTES + 1);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS_BYTES + 1).read_to_end(&mut bytes)?;
        if from > 0
            && let Some(end) = bytes.iter().position(|byte| *byte == b'\n')
            && end + 1 < bytes.len()
        {
            bytes.drain(..=end);
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.trim().lines().map(plain).collect();
        Ok(lines.join("\n"))
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_groups_do_not_take_the_same_ports() {
        let (first, held) = free_ports(40).expect("some are free");
        let metrics = first + METRICS_OFFSET;
        for port in [first, first + 39, metrics, metrics + 39] {
            assert!(Ports::take(port..port + 1).is_none(), "{port} is another group's");
        }
        drop(held);
        // Of so many, ports and those for metrics share some.
        assert!(free_ports(METRICS_OFFSET + 40).is_ok(), "a large group");
    }

    #[test]
    fn last_words_begin_where_a_line_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let bytes = usize::try_from(LAST_WORDS_BYTES).expect("a few");
        let words = |text: &str| {
            std::fs::write(&log, text).expect("own file");
            last_words(&log)
        };
        assert_eq!(words("one\ntwo\n"), "one\ntwo");
        let long = "x".repeat(bytes - 5);
        assert_eq!(words(&format!("cut off\n{long}\nend\n")), format!("{long}\nend"));
        assert_eq!(words(&format!("first\ncut{long}\nend\n")), "end");
        assert_eq!(words(&format!("cut{long}{long}")).len(), bytes + 1, "there is but one line");
        assert_eq!(last_words(Path::new("/nonexistent")), "");
    }

    /// The life before this one may have ended at any moment.
    #[test]
    fn who_recovers_a_lost_disk_does_so_until_something_is_on_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let group = genesis::init(&dir.path().join("g"), &InitOptions::default());
        let group = group.expect("legal options");
        mark::leave(&group).expect("an empty directory");
        let id = ReplicaId(2);
        let member = |was_lost| {
            let child = Command::new("true").spawn().expect("a process");
            let (log, backoff) = (PathBuf::new(), Backoff::start(Instant::now()));
            let mut member = Member { id, child, log, ended: None, backoff, was_lost };
            member.ended = member.child.wait().ok();
            member
        };
        assert!(!member(true).recovers(&group), "it was never started");
        mark::take(&group, id).expect("it is there");
        assert!(member(true).recovers(&group), "nothing is on the disk");
        assert!(!member(false).recovers(&group), "nobody has said that the disk was lost");
        let identity = store::Identity { group: group.id(), replica: id };
        let real = std::sync::Arc::new(store::Real);
        let opened = store::Dir::open(&mark::replica_dir(&group, id), identity, real);
        let mut opened = opened.expect("just asked");
        let beginning = store::beginning(&opened.found, false, true).expect("it recovers");
        let (first, options) = (base::Incarnation(1), store::LogOptions::default());
        let begun = opened.dir.begin(&beginning, first, store::Durability::Sync, options);
        drop((begun.expect("there is room"), opened));
        assert!(!member(true).recovers(&group), "its next life goes on from what is there");
    }

    #[test]
    fn a_process_that_keeps_ending_is_started_ever_more_slowly() {
        let mut now = Instant::now();
        let mut backoff = Backoff::start(now);
        assert!(!backoff.due(now), "it runs");
        let mut pauses = Vec::new();
        for _ in 0..9 {
            backoff.end(now);
            let ended = now;
            while !backoff.due(now) {
                now += Duration::from_millis(100);
            }
            assert!(!backoff.due(now), "once");
            pauses.push((now - ended).as_millis());
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        backoff.end(now + LONG_LIFE);
        assert!(backoff.due(now + LONG_LIFE + RESTART_PAUSE), "it had lived");
    }
}
