//! Groups of several partitions as real processes: what works as in a group of one, what is
//! refused, and that each partition fails and comes back by itself.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/redis_servers.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod redis_servers;
#[path = "support/redis_wire.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod redis_wire;

use cluster::{Cluster, Gateway, Redis, Shape, code, json, run, stderr, stdout, until};
use redis_servers::RealRedis;
use redis_wire::{Value, Wire};
use rustix::process::Signal;
use svc::kv::slot;

const KV: Shape = Shape { replicas: 4, pillars: 1, service: "kv" };

/// The first key that is in `partition` of three.
fn key_in(partition: u16) -> String {
    let keys = (0..).map(|number| format!("key:{number}"));
    keys.into_iter().find(|key| slot::of(key.as_bytes()) % 3 == partition).expect("one in three")
}

fn found() -> Cluster {
    Cluster::found_with(KV, &["--partitions", "3"])
}

fn start() -> Cluster {
    let mut cluster = found();
    (0..4).for_each(|id| cluster.start_one(id));
    cluster.wait_for_code(0);
    cluster
}

/// The leader of each partition, as its replica 3 names it.
fn leaders(cluster: &Cluster) -> Vec<u64> {
    let (_, status) = cluster.status();
    let partitions = status["partitions"].as_array().expect("a list").iter();
    partitions.filter_map(|part| part["replicas"][3]["leader"].as_u64()).collect()
}

#[test]
fn all_partitions_have_equal_digests_after_a_load() {
    for service in ["kv", "echo"] {
        let load = ["--clients", "2", "--outstanding", "64", "--keys", "500"];
        let run = ["bench", "--local", "-o", "json", "--duration", "500ms", "--warmup", "100ms"];
        let group = ["--service", service, "--partitions", "2", "--pillars", "2"];
        let output = cluster::run(&[&run[..], &group, &load].concat());
        let result = json(&output);
        assert_eq!(code(&output), 0, "{result} {}", stderr(&output));
        assert_eq!((&result["errors"], &result["digests"]), (&0.into(), &"equal".into()));
        let group = &result["config"]["group"];
        assert_eq!((&group["partitions"], &group["pillars"]), (&2.into(), &2.into()));
        let compared = result["digests_compared"]["partitions"].as_array().expect("a list");
        assert_eq!(compared.len(), 2, "{result}");
        for one in compared {
            assert!(one["digest"].is_string() && one["replicas"] == 4, "{result}");
            // Each of them has executed something: nobody gets here with nulls alone.
            assert!(one["at"].as_u64().expect("a number") > 0, "{result}");
        }
        if service == "kv" {
            assert_ne!(compared[0]["digest"], compared[1]["digest"], "they have different keys");
        }
        assert!(result["ops"].as_u64().expect("a number") > 0);
    }
}

#[test]
fn a_group_of_others_is_measured_and_left_as_it_was() {
    let cluster = start();
    let gateway = Gateway::start(&cluster.path());
    let mut redis = gateway.redis();
    let mine = key_in(1);
    assert_eq!(redis.call(&format!("SET {mine} 1")), "+OK");
    let load = ["--duration", "300ms", "--warmup", "0", "--outstanding", "32", "--keys", "40"];
    let result = cluster.bench(&load);
    assert_eq!(result["config"]["keys_left"], false, "{result}");
    for key in ["bench:000000000", "bench:000000001", "bench:000000039"] {
        assert_eq!(redis.call(&format!("EXISTS {key}")), ":0");
    }
    assert_eq!(redis.call(&format!("GET {mine}")), "1");
}

#[test]
fn status_and_pages_show_every_partition() {
    let mut cluster = start();
    let (_, status) = cluster.status();
    let partitions = status["partitions"].as_array().expect("a list");
    assert_eq!(partitions.len(), 3, "{status}");
    for (number, part) in partitions.iter().enumerate() {
        assert_eq!((&part["partition"], &part["health"]), (&number.into(), &"healthy".into()));
        assert_eq!(part["replicas"].as_array().map(Vec::len), Some(4), "{status}");
    }
    let rows = status["replicas"].as_array().expect("a list");
    assert!(rows.iter().all(|row| row["state"] == "running" && row["works"] == true), "{status}");
    let table = stdout(&run(&["status", "--config", &cluster.config()]));
    assert!(table.contains("PARTITION") && table.contains("in all 3 partitions"), "{table}");
    assert_eq!(table.lines().filter(|line| line.contains(" running ")).count(), 12, "{table}");
    let text = std::fs::read_to_string(cluster.path().join("group.toml")).expect("it is there");
    let port = text.lines().find_map(|line| line.strip_prefix("port = ")).expect("a port");
    let metrics = port.parse::<u16>().expect("a number") + 1000;
    let page = |path: &str| {
        let mut wire = Wire::connect(std::net::SocketAddr::from(([127, 0, 0, 1], metrics)));
        wire.send_raw(format!("{path} HTTP/1.0\r\n\r\n").as_bytes());
        String::from_utf8(wire.read_to_end()).expect("text")
    };
    let text = page("GET /metrics");
    for number in 0..3 {
        let line = format!("\nstylite_ready{{partition=\"{number}\"}} 1\n");
        assert!(text.contains(&line), "{text}");
    }
    until("it is ready", || match page("GET /readyz") {
        text if text.contains(" 200 ") => Ok(()),
        text => Err(text),
    });
    assert!(page("GET /status").contains("\"partitions\""));
    let saved = page("POST /checkpoint");
    assert!(saved.contains(" 409 ") && saved.contains("several partitions"), "{saved}");
    cluster.kill(3);
    let status = cluster.wait_for_code(3);
    assert_eq!(status["replicas"][3]["works"], false, "{status}");
    assert!(status["reasons"][0].as_str().expect("text").starts_with("partition 0: replica 3"));
}

#[test]
fn a_partition_changes_its_leader_without_the_others_and_a_killed_replica_comes_back() {
    let mut cluster = start();
    let gateway = Gateway::start(&cluster.path());
    let mut redis = gateway.redis();
    let keys = [key_in(0), key_in(1), key_in(2)];
    for key in &keys {
        assert_eq!(redis.call(&format!("SET {key} before")), "+OK");
    }
    // Only where a request waits is anybody replaced.
    cluster.replica(0).signal(Signal::KILL);
    cluster.replica(0).wait();
    until("partition 1 goes on", || match redis.call(&format!("SET {} without", keys[1])) {
        answer if answer == "+OK" => Ok(()),
        answer => Err(answer),
    });
    assert_eq!(leaders(&cluster), [0, 1, 0]);
    cluster.start_one(0);
    cluster.wait_for_code(0);
    assert_eq!(leaders(&cluster), [0, 1, 0], "they go on where they were");
    // Now the leader of one partition alone.
    cluster.replica(1).signal(Signal::KILL);
    cluster.replica(1).wait();
    for (key, value) in keys.iter().zip(["before", "without", "before"]) {
        until("it is still there", || match redis.call(&format!("GET {key}")) {
            answer if answer == value => Ok(()),
            answer => Err(answer),
        });
    }
    assert_eq!(leaders(&cluster), [0, 2, 0]);
    cluster.start_one(1);
    cluster.wait_for_code(0);
}

#[test]
fn an_emptied_replica_recovers_in_all_partitions() {
    let mut cluster = start();
    let gateway = Gateway::start(&cluster.path());
    let mut redis = gateway.redis();
    let keys = [key_in(0), key_in(1), key_in(2)];
    let write = |redis: &mut Redis, value: &str| {
        for key in &keys {
            assert_eq!(redis.call(&format!("SET {key} {value}")), "+OK");
        }
    };
    write(&mut redis, "1");
    let state = cluster.path().join("state/replica-3");
    for number in 0..3 {
        assert!(state.join(format!("partition-{number}")).exists());
    }
    cluster.replica(3).signal(Signal::KILL);
    cluster.replica(3).wait();
    // The loss of one partition is the loss of a disk.
    std::fs::remove_dir_all(state.join("partition-1")).expect("it was there");
    let lives = ["life-a", "life-b"].map(|name| state.join("partition-0").join(name));
    let life = || lives.each_ref().map(|path| std::fs::read(path).ok());
    let before = life();
    let lost = cluster.command(3).output().expect("it runs");
    assert_eq!(code(&lost), 1);
    assert!(stderr(&lost).contains("--recover"), "{}", stderr(&lost));
    assert!(life() == before, "another partition has begun a life for nothing");
    assert!(before.iter().any(Option::is_some), "it had one");
    std::fs::remove_dir_all(&state).expect("it was there");
    cluster.flags = vec!["--recover"];
    cluster.start_one(3);
    until("it takes part again", || {
        write(&mut redis, "2");
        match cluster.status() {
            (0, _) => Ok(()),
            (_, status) => Err(status.to_string()),
        }
    });
    // It is needed now.
    cluster.kill(2);
    write(&mut redis, "3");
}

/// Commands on keys of one slot and of several, in and outside transactions.
const SCRIPT: &[&str] = &[
    "SET foo 1",
    "SET bar 2",
    "GET foo",
    "MGET foo bar",
    "MSET {t}a 1 {t}b 2",
    "MGET {t}a {t}b",
    "MSET {t}a 1 {u}b 2",
    "RENAME foo bar",
    "RENAME {t}a {t}c",
    "COPY {t}c foo",
    "DEL foo bar",
    "DEL {t}c {t}b",
    "SADD {s}1 a b",
    "SADD {s}2 b c",
    "SINTERCARD 2 {s}1 {s}2",
    "SINTERCARD 2 {s}1 other",
    "SINTERCARD 3 {s}1 other",
    "SINTERCARD x {s}1 other",
    "SINTERSTORE {s}3 {s}1 {s}2",
    "ZUNIONSTORE {s}4 2 {s}1 other",
    "ZUNIONSTORE other 1 {s}1",
    "BITOP NOT foo bar",
    "SMOVE {s}1 foo a",
    "LMOVE foo bar LEFT LEFT",
    "EXISTS foo bar baz",
    "TOUCH foo foo",
    "MSET foo 1 bar",
    "GET",
    "NOPE foo bar",
    "MULTI",
    "SET {m}a 1",
    "INCR {m}a",
    "EXEC",
    "MULTI",
    "SET {m}a 1",
    "SET {n}b 1",
    "EXEC",
    "GET {m}a",
    "EXISTS {n}b",
    "MULTI",
    "SET {m}a 9",
    "MGET {m}a {n}b",
    "EXEC",
    "GET {m}a",
    "WATCH {m}a {n}b",
    "WATCH {m}a",
    "MULTI",
    "SET {m}a 5",
    "EXEC",
    "GET {m}a",
    "WATCH {m}a",
    "SET {m}a 6",
    "MULTI",
    "SET {m}a 7",
    "EXEC",
    "GET {m}a",
    "MULTI",
    "DISCARD",
    "PING",
    "ECHO hello",
];

#[test]
fn what_concerns_several_slots_is_refused_as_a_cluster_of_redis_refuses_it() {
    // Its list of nodes is a file, in the directory that all tests share.
    let nodes = format!("stylite-test-nodes-{}.conf", std::process::id());
    let flags = ["--cluster-enabled", "yes", "--cluster-config-file", &nodes];
    let flags = [&flags[..], &["--cluster-require-full-coverage", "no"]].concat();
    let Some(real) = RealRedis::start_with(&flags) else { return };
    let mut theirs = Wire::connect(real.addr);
    assert_eq!(theirs.cmd("CLUSTER ADDSLOTSRANGE 0 16383"), Value::Simple(b"OK".to_vec()));
    until("the cluster is up", || match theirs.cmd("CLUSTER INFO") {
        info if info.bytes().starts_with(b"cluster_state:ok") => Ok(()),
        info => Err(format!("{info:?}")),
    });
    let cluster = start();
    let gateway = Gateway::start(&cluster.path());
    let mut ours = Wire::connect(std::net::SocketAddr::from(([127, 0, 0, 1], gateway.port)));
    let mut refused = 0;
    for line in SCRIPT {
        let (wanted, got) = (theirs.cmd(line), ours.cmd(line));
        assert_eq!(got, wanted, "{line}");
        refused += u32::from(wanted.bytes().starts_with(b"CROSSSLOT"));
    }
    assert!(refused >= 12, "{refused} of them concern several slots");
    for key in ["foo", "{t}a", "a{}b", "a{b", "{{x}}", ""] {
        let wanted = theirs.call(&["CLUSTER", "KEYSLOT", key]);
        assert_eq!(Value::Int(slot::of(key.as_bytes()).into()), wanted, "{key}");
    }
    // What is about all keys is that of one node there, and refused here.
    for line in ["DBSIZE", "FLUSHALL", "KEYS *", "SCAN 0", "RANDOMKEY"] {
        let answer = ours.cmd(line);
        assert!(answer.bytes().starts_with(b"ERR this command is about all keys"), "{answer:?}");
    }
    assert!(ours.cmd("TIME").items().len() == 2);
    drop(real);
    let _ = std::fs::remove_file(std::env::temp_dir().join(nodes));
}

#[test]
fn what_does_not_go_with_partitions_says_so() {
    let cluster = found();
    let (config, dir) = (cluster.config(), tempfile::TempDir::new().expect("a directory"));
    let file = |name: &str| dir.path().join(name).display().to_string();
    let refused = |args: &[&str], wanted: i32, part: &str| {
        let output = run(args);
        assert_eq!(code(&output), wanted, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    };
    for service in ["zookeeper", "work"] {
        let new = file(service);
        let init = ["init", &new, "--replicas", "4", "--service", service, "--partitions", "2"];
        refused(&init, 2, "cannot be partitioned");
        assert!(!std::path::Path::new(&new).exists());
    }
    refused(&["demo", "--service", "zookeeper", "--partitions", "2"], 2, "cannot be partitioned");
    let alone = ["bench", "--local", "--agreement", "none", "--partitions", "2"];
    refused(&alone, 1, "leave partitions one");
    let top = ["replica", "--config", &config, "--id", "0", "--parallelization", "top"];
    refused(&top, 1, "leave parallelization cop");
    let out = file("out");
    let save = ["snapshot", "save", "--config", &config, "--out", &out];
    refused(&save, 1, "snapshots of a group of several partitions");
    // A group whose text was changed to have partitions is another group, and its service counts.
    let path = cluster.path().join("group.toml");
    let text = std::fs::read_to_string(&path).expect("it is there");
    let other = text.replace("service = \"kv\"", "service = \"zookeeper\"");
    std::fs::write(&path, other).expect("own file");
    refused(&["replica", "--config", &config, "--id", "0"], 1, "zookeeper cannot be partitioned");
    refused(&["config", "check", &config], 1, "zookeeper cannot be partitioned");
}
