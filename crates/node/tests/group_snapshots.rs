//! Snapshots of a running group, a new group from one, and the pages of replicas and gateways.

#[path = "support/cluster.rs"]
mod cluster;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use base::ReplicaId;
use cluster::{Cluster, Gateway, Process, Shape, code, json, run, stderr, stdout, stylite, until};
use genesis::Group;
use rustix::process::Signal;
use store::{Dir, Identity, LifeFound, Real};
use tempfile::TempDir;

const FOUR: Shape = Shape { replicas: 4, pillars: 2, service: "kv" };

/// The first port of a group's replica 0.
fn first_port(cluster: &Cluster) -> u16 {
    let text = std::fs::read_to_string(cluster.path().join("group.toml")).expect("it is there");
    let port = text.lines().find_map(|line| line.strip_prefix("port = ")).expect("a port");
    port.parse().expect("a number")
}

/// What a page says: the status and the text.
fn page(port: u16, ask: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("metrics are served");
    let request = format!("{ask} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_owned())
}

/// Starts a process that says so once it serves.
fn serve(command: &mut Command) -> Process {
    let mut process = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut line = String::new();
    let out = process.0.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut line).expect("it says that it serves");
    assert!(line.contains("serves on") || line.contains("gateway"), "{line:?}");
    process
}

fn replica(config: &Path, id: u16) -> Command {
    let mut command = stylite();
    command.args(["replica", "--metrics", "none", "--id", &id.to_string(), "--config"]);
    command.arg(config);
    command
}

/// All checkpoint files below `dir`.
fn checkpoints(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("read"));
    let below = |path: PathBuf| match path.is_dir() {
        true => checkpoints(&path),
        false => vec![path],
    };
    let files = entries.flat_map(|entry| below(entry.path()));
    files.filter(|path| path.file_name().is_some_and(is_checkpoint)).collect()
}

fn is_checkpoint(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"checkpoint-")
}

#[test]
fn a_snapshot_of_a_running_group_begins_a_new_one() {
    let cluster = Cluster::start(FOUR, 0);
    let gateway = Gateway::start(&cluster.path());
    let mut redis = gateway.redis();
    for number in 0..300 {
        assert_eq!(redis.call(&format!("SET key:{number} {number}")), "+OK");
    }
    let (config, dir) = (cluster.config(), TempDir::new().expect("a temporary directory"));
    let file = |name: &str| dir.path().join(name).display().to_string();
    let running = format!("127.0.0.1:{}", first_port(&cluster) + 1000);
    let (saved, out) = (["snapshot", "save", "--config", &config], file("a"));
    let output = run(&[&saved[..], &["--running", &running, "--out", &out]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("certified by"), "{}", stdout(&output));
    let again = run(&[&saved[..], &["--out", &out]].concat());
    assert!(code(&again) == 1 && stderr(&again).contains("exists already"));
    // Starts that were interrupted leave checkpoints with another name.
    for checkpoint in checkpoints(&cluster.path()) {
        std::fs::rename(&checkpoint, checkpoint.with_extension("anew")).expect("own directory");
    }
    let other_names = run(&[&saved[..], &["--out", &file("d")]].concat());
    assert_eq!(code(&other_names), 0, "{}", stderr(&other_names));
    let verify =
        |name: &str, config: &str| run(&["snapshot", "verify", &file(name), "--config", config]);
    assert_eq!(code(&verify("a", &config)), 0);
    let other = Cluster::found(FOUR);
    let told = stderr(&verify("a", &other.config()));
    assert!(told.contains("another group"), "{told}");
    // A bit in the middle of the objects.
    let mut bytes = std::fs::read(file("a")).expect("it was saved");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file("b"), bytes).expect("own directory");
    assert_eq!(code(&verify("b", &config)), 1);
    // A bit in either copy of the head: all that it says is there once more.
    for at in [100, std::fs::read(&out).expect("it was saved").len() - 8092] {
        let mut bytes = std::fs::read(&out).expect("it was saved");
        bytes[at] ^= 1;
        std::fs::write(file("c"), bytes).expect("own directory");
        let output = verify("c", &config);
        assert_eq!(code(&output), 1, "{}", stdout(&output));
        let told = stderr(&output);
        assert!(told.contains("copies of its head") && told.contains("can be used"), "{told}");
    }
    drop((redis, gateway, cluster));

    let new = file("new");
    let port = cluster::free_ports(4).to_string();
    let from = ["--replicas", "4", "--port", &port, "--from-snapshot"];
    let output = run(&[&["init", &new], &from[..], &[&file("b")]].concat());
    assert_eq!(code(&output), 1, "{}", stdout(&output));
    let told = stderr(&output);
    assert!(told.contains("damaged") && !told.contains("service is"), "{told}");
    let other = [&["init", &new, "--service", "zookeeper"], &from[..], &[&out]].concat();
    let told = stderr(&run(&other));
    assert!(told.contains("whose service is zookeeper?"), "{told}");
    let output = run(&[&["init", &new], &from[..], &[&out]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let path = dir.path().join("new");
    let _replicas: Vec<Process> = (0..3).map(|id| serve(&mut replica(&path, id))).collect();
    let gateway = Gateway::start(&path);
    let mut redis = gateway.redis();
    assert_eq!(redis.call("DBSIZE"), ":300");
    assert_eq!(redis.call("GET key:299"), "299");
    // Without its copy of the snapshot nobody takes part.
    std::fs::remove_file(path.join("state/initial.snapshot")).expect("it was there");
    let output = replica(&path, 3).output().expect("it runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("begins with this snapshot"), "{}", stderr(&output));
}

#[test]
fn a_lost_disk_can_be_given_a_snapshot_and_recovers() {
    let mut cluster = Cluster::start(FOUR, 0);
    let gateway = Gateway::start(&cluster.path());
    let mut redis = gateway.redis();
    assert_eq!(redis.call("SET a 1"), "+OK");
    let (config, dir) = (cluster.config(), TempDir::new().expect("a temporary directory"));
    let out = dir.path().join("a").display().to_string();
    let running = format!("127.0.0.1:{}", first_port(&cluster) + 1000);
    let save = ["snapshot", "save", "--config", &config, "--running", &running, "--out", &out];
    assert_eq!(code(&run(&save)), 0);
    let restore = ["snapshot", "restore", &out, "--config", &config, "--replica", "2"];
    let output = run(&restore);
    assert!(stderr(&output).contains("in use by another process"), "{}", stderr(&output));
    cluster.kill(2);
    let output = run(&restore);
    assert!(stderr(&output).contains("has a state here"), "{}", stderr(&output));
    std::fs::remove_dir_all(cluster.path().join("state/replica-2")).expect("it was there");
    let output = run(&restore);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    cluster.start_one(2);
    until("it takes part again", || {
        redis.call("SET a 2");
        let (code, status) = cluster.status();
        if code == 0 { Ok(()) } else { Err(status.to_string()) }
    });
    assert!(cluster.log(2).contains("recover"), "{}", cluster.log(2));
}

#[test]
fn pages_tell_how_replicas_and_gateways_are() {
    let mut cluster = Cluster::start(FOUR, 0);
    let port = first_port(&cluster) + 1000;
    assert_eq!(page(port, "GET /livez").0, 200);
    until("it is ready", || match page(port, "GET /readyz") {
        (200, _) => Ok(()),
        (_, why) => Err(why),
    });
    let (status, text) = page(port, "GET /metrics");
    assert_eq!(status, 200);
    for line in ["\nstylite_ready 1\n", "stylite_durability{mode=\"sync\"} 1\n", "# EOF\n"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let (status, text) = page(port, "GET /status");
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, &report["id"]), (200, &0.into()));
    assert_eq!(page(port, "GET /checkpoint").0, 405);
    let gateway = Gateway::start(&cluster.path());
    let beside = gateway.port + 1000;
    assert_eq!(page(beside, "GET /readyz").0, 200);
    let text = page(beside, "GET /metrics").1;
    assert!(text.contains("stylite_client_wrong_replies_total{replica=\"3\"} 0\n"), "{text}");
    for id in 1..4 {
        cluster.kill(id);
    }
    until("neither is ready", || match (page(port, "GET /readyz"), page(beside, "GET /readyz")) {
        ((503, _), (503, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(page(port, "GET /livez").0, 200);
    assert_eq!(
        json(&run(&["status", "--config", &cluster.config(), "-o", "json"]))["health"],
        "unavailable"
    );
}

/// Somebody waits for a checkpoint that does not come, since the others are down: a replica that is
/// asked to stop meanwhile stops in order all the same, and remembers that.
#[test]
fn a_replica_that_is_asked_for_a_checkpoint_stops_in_order() {
    let mut cluster = Cluster::found(FOUR);
    cluster.flags = vec!["--durability", "async"];
    cluster.start_one(0);
    let metrics = first_port(&cluster) + 1000;
    until("metrics are served", || {
        TcpStream::connect(("127.0.0.1", metrics)).map(drop).map_err(|error| error.to_string())
    });
    // One of two is refused while the other waits.
    let (tell, answers) = mpsc::channel();
    for tell in [tell.clone(), tell] {
        std::thread::spawn(move || {
            let mut stream =
                TcpStream::connect(("127.0.0.1", metrics)).expect("metrics are served");
            let request = b"POST /checkpoint HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request).expect("it is open");
            let mut answer = String::new();
            // There may be none when the replica ends.
            let _ = stream.read_to_string(&mut answer);
            let _ = tell.send(answer);
        });
    }
    let refused = answers.recv().expect("one of them is answered");
    assert!(refused.starts_with("HTTP/1.1 409 "), "{refused}");
    cluster.replica(0).signal(Signal::TERM);
    assert!(cluster.replica(0).wait().success(), "{}", cluster.log(0));
    let ended = answers.recv().expect("the other one, too");
    assert!(ended.is_empty() || ended.starts_with("HTTP/1.1 503 "), "{ended}");
    let group = Group::load(&cluster.path()).expect("it was founded");
    let identity = Identity { group: group.id(), replica: ReplicaId(0) };
    let dir = cluster.path().join("state/replica-0");
    let opened = Dir::open(&dir, identity, Arc::new(Real)).expect("nobody has it");
    let LifeFound::Good(life) = opened.found.life else { panic!("{:?}", opened.found.life) };
    assert!(life.clean, "{}", cluster.log(0));
}
