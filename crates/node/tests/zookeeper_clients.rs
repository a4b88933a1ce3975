//! ZooKeeper's clients against the gateway of a group of processes, of which some are killed.

#[path = "support/cluster.rs"]
mod cluster;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster::{Cluster, Process, Shape, free_ports, stylite};

const SHAPE: Shape = Shape { replicas: 4, pillars: 1, service: "zookeeper" };
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/zookeeper");
/// Where Debian's package has the server.
const JAR: &str = "/usr/share/java/zookeeper.jar";

/// A gateway process, and where it listens.
struct Gateway {
    _process: Process,
    address: String,
}

impl Gateway {
    fn start(config: &Path, client: u32) -> Gateway {
        let address = format!("127.0.0.1:{}", free_ports(1));
        let mut command = stylite();
        command.args(["gateway", "zookeeper", "--config"]).arg(config);
        command.args(["--client", &client.to_string(), "--listen", &address]);
        command.args(["--metrics", "none"]).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn(&mut command);
        let gateway = Gateway { _process: process, address };
        cluster::until("the gateway listens", || {
            std::net::TcpStream::connect(&gateway.address).map_err(|error| error.to_string())
        });
        gateway
    }
}

/// Whether there is a Python with kazoo, as `cargo xtask test` provides it. Where programs are
/// required it is a failure that there is none.
fn has_kazoo() -> bool {
    let out = Command::new("python3").args(["-c", "import kazoo"]).output();
    let has = out.is_ok_and(|out| out.status.success());
    let required = std::env::var_os("STYLITE_TEST_REQUIRE_PROGRAMS").is_some();
    assert!(has || !required, "the Python package kazoo is not installed");
    if !has {
        println!("skipped: the Python package kazoo is not installed");
    }
    has
}

fn script(name: &str, args: &[&str]) -> Child {
    let mut command = Command::new("python3");
    command.arg(format!("{SCRIPTS}/{name}")).args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python runs")
}

fn succeed(child: Child) -> String {
    let out = child.wait_with_output().expect("it ends");
    let text = [&out.stdout[..], &out.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(out.status.success(), "{text}");
    text
}

fn extent(ci: u64, full: u64) -> u64 {
    if cluster::full() { full } else { ci }
}

/// Replicas are killed and come back, the leader among them, one at a time.
#[test]
fn recipes_work_while_replicas_are_killed() {
    if !has_kazoo() {
        return;
    }
    let mut group = Cluster::start(SHAPE, 0);
    let gateways = [0, 1].map(|client| Gateway::start(&group.path(), client));
    let hosts = gateways.each_ref().map(|gateway| gateway.address.as_str()).join(",");
    let seconds = extent(22, 330);
    let mut recipes = script("recipes.py", &[&hosts, &seconds.to_string()]);
    let mut turn = 0;
    while recipes.try_wait().expect("a child").is_none() {
        let victim = turn % SHAPE.replicas;
        turn += 1;
        group.kill(victim);
        std::thread::sleep(Duration::from_secs(1));
        group.start_one(victim);
        std::thread::sleep(Duration::from_secs(4));
    }
    let text = succeed(recipes);
    assert!(text.contains("all recipes work") && turn > 0, "{text}");
    println!("{turn} replicas killed\n{text}");
}

#[test]
fn random_operations_get_the_answers_of_zookeeper() {
    if !Path::new(JAR).exists() {
        // Too large to be required: `cargo xtask test` says how to install it.
        println!("skipped: Debian's package zookeeper is not installed");
        return;
    }
    if !has_kazoo() {
        return;
    }
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let port = free_ports(1);
    let config = format!(
        "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
         admin.enableServer=false\n",
        dir.path().display()
    );
    let file = dir.path().join("zoo.cfg");
    std::fs::write(&file, config).expect("a file");
    let mut java = Command::new("java");
    java.args(["-Dzookeeper.extendedTypesEnabled=true", "-Dzookeeper.forceSync=no"]);
    // Containers go when they have no children; when exactly is for each server to decide.
    java.args(["-Dznode.container.checkIntervalMs=86400000", "-cp", JAR]);
    java.arg("org.apache.zookeeper.server.ZooKeeperServerMain").arg(file);
    let _server = Process::spawn(java.stdout(Stdio::null()).stderr(Stdio::null()));
    let group = Cluster::start(SHAPE, 0);
    let gateway = Gateway::start(&group.path(), 0);
    let real = format!("127.0.0.1:{port}");
    let count = extent(3_000, 24_000).to_string();
    let played = script("differential.py", &[&gateway.address, &real, &count, "1"]);
    println!("{}", succeed(played));
}
