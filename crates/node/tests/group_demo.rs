//! `stylite demo` as a new user meets it, and what is left when it ends.

#[path = "support/cluster.rs"]
mod cluster;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};

use cluster::{Process, Redis, alive, code, json, run, stylite, until};
use rustix::process::Signal;
use tempfile::TempDir;

/// A demo that serves.
struct Demo {
    process: Process,
    out: BufReader<ChildStdout>,
    /// Everything that it said before it served.
    said: String,
}

impl Demo {
    fn start(command: &mut Command) -> Demo {
        command.arg("demo").stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = Process::spawn(command);
        let out = BufReader::new(process.0.stdout.take().expect("piped"));
        let mut demo = Demo { process, out, said: String::new() };
        demo.said = demo.read_until("Ctrl-C stops everything");
        demo
    }

    fn read_until(&mut self, what: &str) -> String {
        let mut said = String::new();
        while !said.contains(what) {
            let read = self.out.read_line(&mut said).expect("text");
            assert!(read > 0, "it ended before it said {what:?}: {said}");
        }
        said
    }

    fn line(&self, what: &str) -> &str {
        let line = self.said.lines().find(|line| line.contains(what));
        line.unwrap_or_else(|| panic!("no {what:?} in {}", self.said))
    }

    fn redis_port(&self) -> u16 {
        let address = self.line("Redis gateway").rsplit(' ').next().expect("an address");
        address.rsplit(':').next().expect("a port").parse().expect("a number")
    }

    fn dir(&self) -> PathBuf {
        self.line("  files ").split_whitespace().last().expect("a directory").into()
    }

    fn pids(&self) -> Vec<u32> {
        let lines = self.said.lines().filter_map(|line| line.split("(process ").nth(1));
        let pids = lines.map(|rest| rest.trim_end_matches(')').parse().expect("a number"));
        pids.collect()
    }
}

/// Whether a closed terminal ends anything: whoever runs the tests with `nohup` has that ignored by
/// all of them.
fn hangs_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a set");
    u64::from_str_radix(ignored.trim(), 16).expect("bits") & 1 == 0
}

#[test]
fn a_demo_serves_and_leaves_nothing_behind() {
    let closed = hangs_up().then_some((Signal::HUP, "1"));
    for (signal, pillars) in [(Signal::INT, "1"), (Signal::TERM, "2")].into_iter().chain(closed) {
        let scratch = TempDir::new().expect("a temporary directory");
        let mut command = stylite();
        command.env("TMPDIR", scratch.path());
        let mut demo = Demo::start(command.env("STYLITE_PILLARS", pillars));
        let mut redis = Redis::connect(demo.redis_port());
        assert_eq!(redis.call("PING"), "+PONG");
        assert_eq!(redis.call("SET a 1"), "+OK");
        assert_eq!(redis.call("GET a"), "1");
        assert_eq!(redis.call("DBSIZE"), ":1", "its own trials are gone");
        let (pids, dir) = (demo.pids(), demo.dir());
        assert_eq!(pids.len(), 4);
        assert!(pids.iter().all(|pid| alive(*pid)) && dir.starts_with(scratch.path()));
        let status = run(&["status", "--config", &dir.display().to_string(), "-o", "json"]);
        assert_eq!((code(&status), &json(&status)["health"]), (0, &"healthy".into()));
        let tries: Vec<&str> =
            demo.said.lines().skip_while(|line| !line.starts_with("Three things")).collect();
        for what in ["redis-cli -p", "redis-benchmark -p", "status --config"] {
            assert_eq!(tries.iter().filter(|line| line.contains(what)).count(), 1, "{what}");
        }
        demo.process.signal(signal);
        assert_eq!(demo.process.wait().code(), Some(0));
        assert!(pids.iter().all(|pid| !alive(*pid)), "{pids:?}");
        let left: Vec<_> = std::fs::read_dir(scratch.path()).expect("it is there").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Nothing can be written to a terminal that is closed, which is no reason to leave things behind.
#[test]
fn a_demo_whose_terminal_is_closed_leaves_nothing_behind() {
    if !hangs_up() {
        return;
    }
    let scratch = TempDir::new().expect("a temporary directory");
    let program = stylite().get_program().to_string_lossy().into_owned();
    let mut terminal = Command::new("script");
    terminal.args(["-qfec", &format!("{program} demo"), "/dev/null"]);
    terminal.env("TMPDIR", scratch.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::spawn(&mut terminal);
    let out = BufReader::new(process.0.stdout.take().expect("piped"));
    let mut demo = Demo { process, out, said: String::new() };
    demo.said = demo.read_until("Ctrl-C stops everything");
    let pids = demo.pids();
    assert_eq!(pids.len(), 4);
    demo.process.signal(Signal::KILL);
    until("nothing is left", || {
        let running: Vec<_> = pids.iter().filter(|pid| alive(**pid)).collect();
        let left: Vec<_> = std::fs::read_dir(scratch.path()).expect("it is there").collect();
        let nothing = running.is_empty() && left.is_empty();
        nothing.then_some(()).ok_or_else(|| format!("{running:?} {left:?}"))
    });
}

#[test]
fn replicas_end_when_the_demo_is_killed() {
    let scratch = TempDir::new().expect("a temporary directory");
    let mut demo = Demo::start(stylite().env("TMPDIR", scratch.path()));
    let pids = demo.pids();
    demo.process.signal(Signal::KILL);
    demo.process.wait();
    until("the replicas end", || {
        let left: Vec<_> = pids.iter().filter(|pid| alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn the_demo_goes_on_without_a_replica_and_starts_it_again() {
    let scratch = TempDir::new().expect("a temporary directory");
    let mut demo = Demo::start(stylite().env("TMPDIR", scratch.path()));
    let last = i32::try_from(demo.pids()[3]).expect("a process number");
    let last = rustix::process::Pid::from_raw(last).expect("a process number");
    rustix::process::kill_process(last, Signal::KILL).expect("it runs");
    let said = demo.read_until("Replica 3 has ended");
    assert!(said.contains("3 of 4 are left"), "{said}");
    let mut redis = Redis::connect(demo.redis_port());
    assert_eq!(redis.call("SET a 1"), "+OK");
    demo.read_until("Replica 3 runs again");
    let dir = demo.dir().display().to_string();
    until("it takes part again", || {
        // It recovers at a checkpoint, which needs requests.
        redis.call("SET a 1");
        let status = run(&["status", "--config", &dir, "-o", "json"]);
        if code(&status) == 0 { Ok(()) } else { Err(json(&status).to_string()) }
    });
    demo.process.signal(Signal::INT);
    assert_eq!(demo.process.wait().code(), Some(0));
}

#[test]
fn the_demo_goes_on_without_its_leader() {
    let scratch = TempDir::new().expect("a temporary directory");
    let mut command = stylite();
    let command = command.env("TMPDIR", scratch.path()).env("STYLITE_NO_RESTART", "true");
    let mut demo = Demo::start(command);
    let promise = demo.line("may fail in any way").to_owned();
    assert!(promise.contains("any one of them, the leader included"), "{promise}");
    let mut redis = Redis::connect(demo.redis_port());
    assert_eq!(redis.call("SET a 1"), "+OK");
    let leader = i32::try_from(demo.pids()[0]).expect("a process number");
    let leader = rustix::process::Pid::from_raw(leader).expect("a process number");
    rustix::process::kill_process(leader, Signal::KILL).expect("it runs");
    let said = demo.read_until("Replica 0 has ended");
    assert!(said.contains("The group goes on."), "{said}");
    assert_eq!(redis.call("GET a"), "1");
    assert_eq!(redis.call("SET a 2"), "+OK");
    let status = run(&["status", "--config", &demo.dir().display().to_string(), "-o", "json"]);
    assert_eq!(code(&status), 3, "degraded");
    assert_ne!(json(&status)["replicas"][1]["leader"], 0);
    demo.process.signal(Signal::INT);
    assert_eq!(demo.process.wait().code(), Some(0));
}

#[test]
fn a_taken_redis_port_is_passed_by_unless_it_was_asked_for() {
    let scratch = TempDir::new().expect("a temporary directory");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = stylite()
        .args(["demo", "--redis", &address])
        .env("TMPDIR", scratch.path())
        .output()
        .expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(cluster::stderr(&output).contains(&address));
    let output = run(&["demo", "--redis", "0.0.0.0:7000"]);
    assert_eq!(code(&output), 1, "{}", cluster::stderr(&output));
    // Whether or not somebody else has it, the first port is taken once this is tried.
    let _holder = std::net::TcpListener::bind(("127.0.0.1", 6379));
    let mut demo = Demo::start(stylite().env("TMPDIR", scratch.path()));
    assert_ne!(demo.redis_port(), 6379);
    demo.process.signal(Signal::INT);
    assert_eq!(demo.process.wait().code(), Some(0));
}

#[test]
fn a_directory_that_was_asked_for_stays() {
    let scratch = TempDir::new().expect("a temporary directory");
    let dir = scratch.path().join("mine");
    let mut command = stylite();
    command.env("STYLITE_DIR", &dir);
    let mut demo = Demo::start(&mut command);
    assert_eq!(demo.dir(), dir);
    demo.process.signal(Signal::INT);
    assert_eq!(demo.process.wait().code(), Some(0));
    assert!(dir.join("group.toml").exists() && dir.join("logs/replica-0.log").exists());
    // Its replicas have forgotten their votes: there is no second time.
    let again = stylite().args(["demo", "--dir"]).arg(&dir).output().expect("it runs");
    assert_eq!(code(&again), 1);
    let told = cluster::stderr(&again);
    assert!(told.contains("may have forgotten votes"), "{told}");
    assert!(told.contains("No checkpoint is left"), "a remedy that can be followed: {told}");
}

#[test]
fn what_is_on_disk_is_there_the_next_time() {
    let scratch = TempDir::new().expect("a temporary directory");
    let mut command = stylite();
    command.env("STYLITE_DIR", scratch.path().join("mine")).env("STYLITE_DURABILITY", "sync");
    let mut demo = Demo::start(&mut command);
    assert_eq!(Redis::connect(demo.redis_port()).call("SET a 1"), "+OK");
    // All of them at once.
    demo.process.signal(Signal::KILL);
    demo.process.wait();
    let pids = demo.pids();
    until("the replicas end", || {
        let left: Vec<_> = pids.iter().filter(|pid| alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let mut command = stylite();
    command.env("STYLITE_DIR", scratch.path().join("mine")).env("STYLITE_DURABILITY", "sync");
    let mut demo = Demo::start(&mut command);
    assert_eq!(Redis::connect(demo.redis_port()).call("GET a"), "1");
    demo.process.signal(Signal::INT);
    assert_eq!(demo.process.wait().code(), Some(0));
    // One disk is lost, then none: the group endures as much.
    std::fs::remove_dir_all(scratch.path().join("mine/state/replica-1")).expect("it was there");
    for lost in [true, false] {
        let mut command = stylite();
        command.env("STYLITE_DIR", scratch.path().join("mine")).env("STYLITE_DURABILITY", "sync");
        let mut demo = Demo::start(&mut command);
        assert_eq!(demo.said.contains("recovers: its disk was lost"), lost, "{}", demo.said);
        assert_eq!(Redis::connect(demo.redis_port()).call("GET a"), "1");
        demo.process.signal(Signal::INT);
        assert_eq!(demo.process.wait().code(), Some(0));
    }
    for replica in ["replica-1", "replica-2"] {
        let dir = scratch.path().join("mine/state").join(replica);
        std::fs::remove_dir_all(dir).expect("it was there");
    }
    let again = command.stderr(Stdio::piped()).output().expect("it runs");
    assert_eq!(code(&again), 1);
    assert!(cluster::stderr(&again).contains("2 replicas of this group may have forgotten"));
}
