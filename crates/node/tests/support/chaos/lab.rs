//! A group to be maltreated: each replica has a directory of its own, as on a machine of its own,
//! and can be killed, stopped, restarted otherwise, emptied, and have its disk rot; the links
//! between all of them go through a proxy when asked for.
//!
//! | directory | what is there |
//! |---|---|
//! | `group` | what `init` wrote: all keys, the true addresses; `status` asks from here |
//! | `replica-I` | the configuration as replica I sees the network, its own key, its state |
//! | `clients` | the configuration as clients see the network, and their keys |
//!
//! Invariant: only processes that were started here are ever signalled.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use genesis::Group;
use rustix::process::Signal;
use serde_json::Value as Json;
use tempfile::TempDir;

use super::links::{End, Links};
use super::load::Connection;
use crate::cluster::{self, Gateway, Process, code, free_ports, stderr, stylite, until};

/// Lines of each replica's log that are shown when a test fails.
const LOG_LINES: usize = 25;
/// Writes between two looks at the group while waiting for it.
const POKES: u32 = 8;

/// What a group is to be.
#[derive(Clone, Debug)]
pub struct Setup {
    pub service: &'static str,
    pub replicas: u16,
    pub pillars: u16,
    pub durability: &'static str,
    pub drills: bool,
    /// Whether links go through a proxy.
    pub proxied: bool,
    pub view_timeout: &'static str,
    pub checkpoint_interval: u64,
    /// What stands in for every replica's disk; only in groups for drills.
    pub storage: Option<&'static str>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            service: "kv",
            replicas: 4,
            pillars: 1,
            durability: "sync",
            drills: false,
            proxied: false,
            view_timeout: "1s",
            checkpoint_interval: 128,
            storage: None,
        }
    }
}

/// A group and its processes.
pub struct Lab {
    dir: TempDir,
    setup: Setup,
    replicas: Vec<Option<Process>>,
    /// Replica 0's metrics port; the others' follow.
    metrics: u16,
    pub links: Option<Links>,
}

impl Lab {
    /// Founds a group and starts nothing.
    pub fn found(setup: Setup) -> Lab {
        let dir = TempDir::new().expect("a temporary directory");
        let control = dir.path().join("group");
        // Metrics ports come after those of all pillars.
        let served = setup.replicas * setup.pillars;
        let port = free_ports(served + setup.replicas);
        let mut command = stylite();
        command.arg("init").arg(&control).args(["--service", setup.service, "--clients", "8"]);
        command.args(["--replicas", &setup.replicas.to_string()]);
        command.args(["--pillars", &setup.pillars.to_string(), "--port", &port.to_string()]);
        command.args(["--checkpoint-interval", &setup.checkpoint_interval.to_string()]);
        command.args(["--view-timeout", setup.view_timeout]);
        if setup.drills {
            command.arg("--drills");
        }
        let output = command.output().expect("it runs");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let group = Group::load(&control).expect("a group");
        let ports: Vec<Vec<u16>> = group.replicas().iter().map(|r| r.ports()).collect();
        let links = setup.proxied.then(|| Links::start(&ports));
        let replicas = (0..setup.replicas).map(|_| None).collect();
        let lab = Lab { dir, setup, replicas, metrics: port + served, links };
        for id in 0..lab.setup.replicas {
            lab.furnish(&group, End::Replica(id), &format!("replica-{id}."));
            let mark = format!("replica-{id}.virgin");
            move_file(&control.join("state"), &lab.state(id), &mark);
        }
        lab.furnish(&group, End::Clients, "client-");
        lab
    }

    /// Founds a group, starts all replicas, and waits until they work.
    pub fn start(setup: Setup) -> Lab {
        let mut lab = Lab::found(setup);
        lab.start_all();
        lab.until_healthy();
        lab
    }

    /// Writes the directory of an end: its view of the network and its keys.
    fn furnish(&self, group: &Group, end: End, keys: &str) {
        let mut seen = group.clone();
        for replica in group.replicas() {
            let own = end == End::Replica(replica.id.0);
            if let Some(links) = self.links.as_ref().filter(|_| !own) {
                let ports = links.ports(end, replica.id.0);
                seen.set_address(replica.id, "127.0.0.1", &ports).expect("the same shape");
            }
        }
        let home = self.home(end);
        let from = self.dir.path().join("group/keys");
        std::fs::create_dir_all(home.join("keys")).expect("a directory");
        std::fs::create_dir_all(home.join("state")).expect("a directory");
        std::fs::write(home.join("group.toml"), seen.to_toml()).expect("a file");
        for entry in std::fs::read_dir(from).expect("keys").flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(keys) {
                std::fs::copy(entry.path(), home.join("keys").join(name)).expect("a key");
            }
        }
    }

    pub fn n(&self) -> u16 {
        self.setup.replicas
    }

    pub fn ids(&self) -> std::ops::Range<u16> {
        0..self.setup.replicas
    }

    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("the group was set up with proxies")
    }

    fn home(&self, end: End) -> PathBuf {
        self.dir.path().join(match end {
            End::Replica(id) => format!("replica-{id}"),
            End::Clients => "clients".to_owned(),
        })
    }

    /// Where a replica keeps what it must not forget.
    pub fn state(&self, id: u16) -> PathBuf {
        self.home(End::Replica(id)).join("state")
    }

    /// The configuration with true addresses and all keys.
    pub fn control(&self) -> PathBuf {
        self.dir.path().join("group")
    }

    pub fn command(&self, id: u16) -> Command {
        let mut command = stylite();
        let home = self.home(End::Replica(id));
        command.args(["replica", "--config"]).arg(home).args(["--id", &id.to_string()]);
        command.args(["--durability", self.setup.durability]);
        command.args(["--metrics", &format!("127.0.0.1:{}", self.metrics + id)]);
        if let Some(storage) = self.setup.storage {
            command.env("STYLITE_DRILL_STORAGE", storage);
        }
        command
    }

    /// What stands in for the disks from the next starts on.
    pub fn set_storage(&mut self, storage: Option<&'static str>) {
        self.setup.storage = storage;
    }

    /// Starts a replica with more flags. Does not wait.
    pub fn start_with(&mut self, id: u16, flags: &[&str]) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path(id));
        let mut command = self.command(id);
        command.args(flags).arg("--exit-with-parent").stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(log.expect("a log"));
        self.replicas[usize::from(id)] = Some(Process::spawn(&mut command));
    }

    pub fn start_one(&mut self, id: u16) {
        self.start_with(id, &[]);
    }

    pub fn start_all(&mut self) {
        self.ids().for_each(|id| self.start_one(id));
    }

    fn log_path(&self, id: u16) -> PathBuf {
        self.dir.path().join(format!("replica-{id}.log"))
    }

    pub fn log(&self, id: u16) -> String {
        std::fs::read_to_string(self.log_path(id)).unwrap_or_default()
    }

    /// Has a replica write a checkpoint to its disk, and waits until it is there.
    pub fn checkpoint(&self, id: u16) {
        let port = self.metrics + id;
        until("a checkpoint is on disk", || {
            let answer = super::request(port, "POST /checkpoint");
            if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
        });
    }

    /// Asks a replica once to write a checkpoint to its disk; what it says.
    pub fn ask_for_checkpoint(&self, id: u16) -> String {
        super::request(self.metrics + id, "POST /checkpoint")
    }

    /// Where a mark makes the disk of a replica full, in a group whose storage is `full`.
    pub fn full_mark(&self, id: u16) -> PathBuf {
        self.state(id).join(format!("replica-{id}.full"))
    }

    /// Has a replica that was told to misbehave do so, or behave for now.
    pub fn misbehave(&self, id: u16, on: bool) {
        let path = if on { "POST /misbehave" } else { "POST /behave" };
        until("the replica takes orders", || {
            let answer = super::request(self.metrics + id, path);
            if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
        });
    }

    pub fn process(&mut self, id: u16) -> &mut Process {
        self.replicas[usize::from(id)].as_mut().expect("it was started")
    }

    pub fn pids(&self) -> Vec<u32> {
        self.replicas.iter().flatten().map(Process::pid).collect()
    }

    /// kill -9, and waits for the end.
    pub fn kill(&mut self, id: u16) {
        self.replicas[usize::from(id)] = None;
    }

    /// kill -9 of everybody before anybody's end is waited for.
    pub fn kill_all(&mut self) {
        self.replicas.iter().flatten().for_each(|process| process.signal(Signal::KILL));
        self.replicas.iter_mut().for_each(|process| *process = None);
    }

    /// Asks a replica to end, and returns how it did.
    pub fn terminate(&mut self, id: u16) -> ExitStatus {
        self.process(id).signal(Signal::TERM);
        let status = self.process(id).wait();
        self.replicas[usize::from(id)] = None;
        status
    }

    /// Stops a replica in its tracks, until [`Lab::resume`].
    pub fn suspend(&mut self, id: u16) {
        self.process(id).signal(Signal::STOP);
    }

    pub fn resume(&mut self, id: u16) {
        self.process(id).signal(Signal::CONT);
    }

    /// Whether a process ended by itself.
    pub fn ended(&mut self, id: u16) -> Option<ExitStatus> {
        self.process(id).0.try_wait().expect("a child")
    }

    /// Removes everything that a replica, which must be down, kept.
    pub fn wipe(&mut self, id: u16) {
        assert!(self.replicas[usize::from(id)].is_none(), "it runs");
        std::fs::remove_dir_all(self.state(id)).expect("it had a state");
        std::fs::create_dir(self.state(id)).expect("a directory");
    }

    /// Flips bits in what is written of every file of a replica, which must be down, whose name
    /// contains `name`. Returns how many bits were flipped.
    pub fn rot(&self, id: u16, name: &str, per_file: usize) -> usize {
        assert!(self.replicas[usize::from(id)].is_none(), "it runs");
        let files = files(&self.state(id)).into_iter();
        let named = |path: &PathBuf| {
            path.file_name().is_some_and(|file| file.to_string_lossy().contains(name))
        };
        files.filter(named).map(|path| flip(&path, per_file)).sum()
    }

    /// The checkpoint files of a replica, the newest at the end.
    pub fn checkpoints(&self, id: u16) -> Vec<PathBuf> {
        let is_one = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checkpoint-"))
        };
        files(&self.state(id)).into_iter().filter(is_one).collect()
    }

    /// Bytes on disk of a replica's state.
    pub fn disk_bytes(&self, id: u16) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let used = |path: &PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.blocks() * 512);
        files(&self.state(id)).iter().map(used).sum()
    }

    /// A gateway that is client `client` of the group, with its metrics on the next port. Waits
    /// until it serves.
    pub fn gateway(&self, client: u32) -> Gateway {
        let port = free_ports(2);
        let metrics = format!("127.0.0.1:{}", port + 1);
        let process = self.gateway_process("redis", client, port, &metrics);
        until("the gateway serves", || {
            Connection::open(port).map_err(|error| error.to_string())?.call(&["PING"])
        });
        Gateway { process, port }
    }

    /// The same for ZooKeeper's clients, without metrics, at a port that was chosen before. Waits
    /// until it listens.
    pub fn zookeeper(&self, client: u32, port: u16) -> Gateway {
        let process = self.gateway_process("zookeeper", client, port, "none");
        until("the gateway listens", || {
            TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
        });
        Gateway { process, port }
    }

    fn gateway_process(&self, protocol: &str, client: u32, port: u16, metrics: &str) -> Process {
        let mut command = stylite();
        command.args(["gateway", protocol, "--config"]).arg(self.home(End::Clients));
        command.args(["--client", &client.to_string(), "--metrics", metrics]);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        let log = self.dir.path().join(format!("gateway-{client}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let log = log.expect("a log");
        command.stdout(Stdio::null()).stderr(log);
        Process::spawn(&mut command)
    }

    /// `stylite status -o json`, by the true addresses.
    pub fn status(&self) -> (i32, Json) {
        let config = self.control().display().to_string();
        let args = ["status", "--config", &config, "-o", "json", "--timeout", "2s"];
        let output = cluster::run(&args);
        (code(&output), cluster::json(&output))
    }

    pub fn until_healthy(&self) -> Json {
        until("the group is healthy", || match self.status() {
            (0, status) => Ok(status),
            (code, status) => Err(format!("code {code}: {}", brief(&status))),
        })
    }

    /// Waits until these replicas run and have one state at one checkpoint, which writes through
    /// `gateway` bring about.
    pub fn until_one_state(&self, ids: &[u16], gateway: &Gateway) -> Json {
        let mut connection = Connection::open(gateway.port).expect("the gateway listens");
        self.until_one_state_by(ids, || {
            let mut poke = |round: u32| connection.call(&["SET", "poke", &round.to_string()]);
            (0..POKES).try_for_each(|round| poke(round).map(drop))
        })
    }

    /// The same; `write` is to bring it about.
    pub fn until_one_state_by(
        &self,
        ids: &[u16],
        mut write: impl FnMut() -> Result<(), String>,
    ) -> Json {
        until("the replicas have one state", || {
            write()?;
            // Reports are a little old.
            std::thread::sleep(Duration::from_millis(250));
            let (_, status) = self.status();
            one_state(&status, ids).map_err(|why| format!("{why}: {}", brief(&status)))?;
            Ok(status)
        })
    }

    /// The highest view that any replica is in.
    pub fn view(&self) -> u64 {
        let (_, status) = self.status();
        let rows = status["replicas"].as_array().expect("a list");
        rows.iter().filter_map(|row| row["view"].as_u64()).max().unwrap_or(0)
    }

    /// The replica that leads the highest view.
    pub fn leader(&self) -> u16 {
        let (_, status) = self.status();
        let rows = status["replicas"].as_array().expect("a list").iter();
        let row = rows.filter(|row| row["view"].is_u64()).max_by_key(|row| row["view"].as_u64());
        let leader = row.and_then(|row| row["leader"].as_u64()).expect("somebody answers");
        u16::try_from(leader).expect("a replica")
    }

    /// Waits until somebody is in a view above `view`.
    pub fn until_view_above(&self, view: u64) -> u64 {
        until("the view changes", || match self.view() {
            now if now > view => Ok(now),
            now => Err(format!("view {now}")),
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
        let entries = std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(is_log) {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- the end of {}:\n{}", path.display(), last.join("\n"));
        }
    }
}

/// Whether these replicas run and have one state.
fn one_state(status: &Json, ids: &[u16]) -> Result<(), String> {
    let rows: Vec<&Json> = ids.iter().map(|id| &status["replicas"][usize::from(*id)]).collect();
    for row in &rows {
        if row["state"] != "running" {
            return Err(format!("replica {} does not run", row["id"]));
        }
    }
    let of = |row: &Json| (row["digest_at"].clone(), row["digest"].clone());
    let same = rows.windows(2).all(|two| of(two[0]) == of(two[1]));
    let begun = rows.iter().all(|row| row["digest_at"].as_u64().is_some_and(|at| at > 0));
    if same && begun { Ok(()) } else { Err("other digests".to_owned()) }
}

/// The columns that matter of a status.
pub fn brief(status: &Json) -> String {
    let empty = Vec::new();
    let rows = status["replicas"].as_array().unwrap_or(&empty).iter();
    let row = |row: &Json| {
        let digest = row["digest"].as_str().unwrap_or("-").chars().take(8).collect::<String>();
        format!(
            "{}:{} view {} executed {} {digest}@{}",
            row["id"], row["state"], row["view"], row["last_executed"], row["digest_at"]
        )
    };
    let rows: Vec<String> = rows.map(row).collect();
    format!("{} {}", rows.join("; "), status["reasons"])
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Flips bits all over a checkpoint file, but for the two heads that say whose it is.
pub fn rot_objects(path: &Path) {
    const HEAD_BYTES: usize = 8 << 10;
    let mut bytes = std::fs::read(path).expect("a file");
    let end = bytes.len() - HEAD_BYTES;
    bytes[HEAD_BYTES..end].iter_mut().step_by(40).for_each(|byte| *byte ^= 1);
    std::fs::write(path, bytes).expect("a file");
}

/// Flips one bit each of `count` bytes, spread over those that are not zero.
fn flip(path: &Path, count: usize) -> usize {
    let mut bytes = std::fs::read(path).expect("a file");
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let chosen: Vec<usize> = used.iter().step_by((used.len() / count).max(1)).copied().collect();
    chosen.iter().for_each(|at| bytes[*at] ^= 1 << (at % 8));
    std::fs::write(path, bytes).expect("a file");
    chosen.len()
}

fn move_file(from: &Path, to: &Path, name: &str) {
    std::fs::rename(from.join(name), to.join(name)).expect("a mark of a first start");
}
