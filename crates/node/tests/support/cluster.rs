//! Groups of real replica processes for tests, and everything they need to be cleaned up after.
//!
//! Invariants: every process that was started here is killed and waited for when its guard is
//! dropped, also when the test panics; replicas end by themselves when the test process is
//! killed, because their standard input closes.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A hang is a failure; nothing here takes nearly as long.
pub const HANG: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);

/// The program, without settings from the environment of the tests.
pub fn stylite() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stylite"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STYLITE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn run(args: &[&str]) -> Output {
    stylite().args(args).output().expect("the program runs")
}

/// The exit code of a process that was not killed.
pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {output:?}"))
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One JSON object on standard output.
pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", stdout(output), stderr(output)))
}

/// Whether the full parameters are wanted.
pub fn full() -> bool {
    std::env::var("STYLITE_TEST_SCALE").is_ok_and(|scale| scale == "full")
}

/// Tries until it works; panics with the last answer when that takes too long.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + HANG;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if Instant::now() >= deadline => panic!("{what}: {last}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// A process that does not outlive its test.
pub struct Process(pub Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Process {
        Process(command.spawn().expect("the program runs"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.0.id()).expect("a process number");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process number");
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        until("the process ends", || match self.0.try_wait().expect("a child") {
            Some(status) => Ok(status),
            None => Err("it runs".to_owned()),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether there is such a process, zombies not counted.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Ports for tests lie in the first halves of pages of this size; in the second halves are those
/// that replicas serve their metrics on by default, as far above their own.
const HALF_PAGE: u16 = 1_000;
/// Pages, from [`PORT_FIRST`] on: below what `stylite demo` and `bench --local` choose from.
const PAGES: u16 = 3;
const PORT_FIRST: u16 = 10_000;

/// The first of `count` free ports in a row: others each time, and others than those of the tests
/// in other processes, which may listen to theirs a good while after they were free.
pub fn free_ports(count: u16) -> u16 {
    assert!((1..=HALF_PAGE).contains(&count), "as many as are in a row");
    for _ in 0..2_000 {
        let first = next_ports(count);
        let bind = |port| TcpListener::bind(("127.0.0.1", port));
        if (first..first + count).map(bind).collect::<Result<Vec<_>, _>>().is_ok() {
            return first;
        }
    }
    panic!("no {count} free ports in a row");
}

/// Takes the next `count` ports in a row. Which they are is in a file that all tests share.
fn next_ports(count: u16) -> u16 {
    let path = std::env::temp_dir().join("stylite-test-ports");
    let mut options = std::fs::File::options();
    let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.expect("a file that all tests share");
    file.lock().expect("one test at a time");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("text");
    let taken: u16 = text.trim().parse().unwrap_or(0);
    // All of them on one page.
    let fits = taken % HALF_PAGE + count <= HALF_PAGE;
    let start = if fits { taken } else { (taken / HALF_PAGE + 1) * HALF_PAGE };
    let start = start % (PAGES * HALF_PAGE);
    file.set_len(0).and_then(|()| file.rewind()).expect("its own file");
    write!(file, "{}", start + count).expect("its own file");
    PORT_FIRST + start / HALF_PAGE * 2 * HALF_PAGE + start % HALF_PAGE
}

/// A group in a directory of its own.
pub struct Cluster {
    dir: TempDir,
    replicas: Vec<Option<Process>>,
    /// More flags for each replica that is started.
    pub flags: Vec<&'static str>,
}

/// What a group is to be.
#[derive(Clone, Copy)]
pub struct Shape {
    pub replicas: u16,
    pub pillars: u16,
    pub service: &'static str,
}

impl Cluster {
    /// Founds a group and starts nothing.
    pub fn found(shape: Shape) -> Cluster {
        Cluster::found_with(shape, &[])
    }

    /// The same with more flags for `stylite init`.
    pub fn found_with(shape: Shape, flags: &[&str]) -> Cluster {
        let dir = TempDir::new().expect("a temporary directory");
        let Shape { replicas, pillars, service } = shape;
        let partitions = flags.iter().skip_while(|flag| **flag != "--partitions").nth(1);
        let partitions: u16 = partitions.map_or(1, |number| number.parse().expect("a number"));
        let port = free_ports(replicas * pillars * partitions);
        let mut command = stylite();
        command.arg("init").arg(dir.path().join("group"));
        command.args(["--replicas", &replicas.to_string(), "--pillars", &pillars.to_string()]);
        command.args(["--service", service, "--port", &port.to_string()]);
        // Small, so that short runs have checkpoints; yet no replica that waits for its turn on
        // a busy machine falls a whole window behind.
        if !flags.contains(&"--checkpoint-interval") {
            command.args(["--checkpoint-interval", "256"]);
        }
        command.args(flags);
        let output = command.output().expect("it runs");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let replicas = (0..replicas).map(|_| None).collect();
        Cluster { dir, replicas, flags: Vec::new() }
    }

    /// Founds a group and starts all but the last `down` replicas.
    pub fn start(shape: Shape, down: u16) -> Cluster {
        let mut cluster = Cluster::found(shape);
        for id in 0..shape.replicas - down {
            cluster.start_one(id);
        }
        cluster.wait_for_code(if down == 0 { 0 } else { 3 });
        cluster
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("group")
    }

    pub fn config(&self) -> String {
        self.path().display().to_string()
    }

    pub fn command(&self, id: u16) -> Command {
        let mut command = stylite();
        command.args(["replica", "--config", &self.config(), "--id", &id.to_string()]);
        command
    }

    pub fn start_one(&mut self, id: u16) {
        let log = std::fs::File::create(self.log_path(id)).expect("a log");
        let mut command = self.command(id);
        command.args(&self.flags);
        command.arg("--exit-with-parent").stdin(Stdio::piped()).stderr(log);
        self.replicas[usize::from(id)] = Some(Process::spawn(&mut command));
    }

    pub fn log(&self, id: u16) -> String {
        std::fs::read_to_string(self.log_path(id)).unwrap_or_default()
    }

    fn log_path(&self, id: u16) -> PathBuf {
        self.dir.path().join(format!("replica-{id}.log"))
    }

    pub fn replica(&mut self, id: u16) -> &mut Process {
        self.replicas[usize::from(id)].as_mut().expect("it was started")
    }

    pub fn kill(&mut self, id: u16) {
        self.replicas[usize::from(id)] = None;
    }

    /// `stylite status -o json`.
    pub fn status(&self) -> (i32, Value) {
        let output = run(&["status", "--config", &self.config(), "-o", "json"]);
        (code(&output), json(&output))
    }

    /// Waits until `stylite status` ends with this code.
    pub fn wait_for_code(&self, wanted: i32) -> Value {
        until("the group's health", || match self.status() {
            (code, status) if code == wanted => Ok(status),
            (code, status) => Err(format!("code {code}: {status}")),
        })
    }

    /// `stylite bench` against the group; the result is checked for errors and digests.
    pub fn bench(&self, args: &[&str]) -> Value {
        let config = self.config();
        let all = [&["bench", "--config", &config, "-o", "json"], args].concat();
        let output = run(&all);
        let result = json(&output);
        assert_eq!(code(&output), 0, "{result} {}", stderr(&output));
        assert_eq!(result["errors"], 0, "{result}");
        assert_eq!(result["digests"], "equal", "{result}");
        result
    }
}

/// A gateway process.
pub struct Gateway {
    pub process: Process,
    pub port: u16,
}

impl Gateway {
    /// Starts a gateway and waits until it serves.
    pub fn start(config: &Path) -> Gateway {
        let port = free_ports(1);
        let mut command = stylite();
        command.args(["gateway", "redis", "--config"]).arg(config);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process::spawn(&mut command);
        let out = process.0.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("the gateway says where it listens");
        assert!(line.contains(&port.to_string()), "{line:?}");
        Gateway { process, port }
    }

    pub fn redis(&self) -> Redis {
        Redis::connect(self.port)
    }
}

/// The least of a Redis client: inline commands, one-line answers and short bulk strings.
pub struct Redis(BufReader<TcpStream>);

impl Redis {
    pub fn connect(port: u16) -> Redis {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the gateway listens");
        stream.set_read_timeout(Some(HANG)).expect("a socket");
        Redis(BufReader::new(stream))
    }

    /// The answer's first line, or the content of a bulk string.
    pub fn call(&mut self, command: &str) -> String {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).expect("it is open");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        let line = line.trim_end().to_owned();
        match line.strip_prefix('$').and_then(|len| len.parse::<usize>().ok()) {
            None => line,
            Some(len) => {
                let mut bulk = vec![0; len + 2];
                self.0.read_exact(&mut bulk).expect("the rest of the answer");
                bulk.truncate(len);
                String::from_utf8(bulk).expect("text")
            }
        }
    }
}
