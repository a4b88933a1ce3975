//! `redis-benchmark` against a group that loses a backup on the way.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;

use std::process::{Command, Output, Stdio};

use cluster::{Cluster, Gateway, Redis, Shape, full, until};
use serde_json::{Map, Value, json};
use soak::REPLICAS;

const PROGRAM: &str = "redis-benchmark";
/// The backup that is killed.
const VICTIM: u16 = REPLICAS - 1;
/// Without `-r` the program does not replace what it has for random numbers.
const COUNTER: &str = "counter:__rand_int__";

fn redis_benchmark(port: u16, requests: u64) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["-p", &port.to_string(), "-n", &requests.to_string()]);
    command.args(["-t", "set,get,incr,lpush,hset", "-c", "50", "-P", "16", "-q"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// That nothing went wrong and every command was played. Returns requests per second by command.
fn rates(output: &Output) -> Map<String, Value> {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "\n");
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success() && err.trim().is_empty(), "{:?}: {out} {err}", output.status);
    assert!(!out.to_lowercase().contains("err"), "{out}");
    let lines = out.lines().filter(|line| line.contains("requests per second"));
    let rates: Map<String, Value> = lines
        .filter_map(|line| {
            let (name, rest) = line.split_once(": ")?;
            let rate: f64 = rest.split_whitespace().next()?.parse().ok()?;
            Some((name.trim().to_lowercase(), json!(rate)))
        })
        .collect();
    for name in ["set", "get", "incr", "lpush", "hset"] {
        assert!(rates.contains_key(name), "no {name} in {out}");
    }
    rates
}

/// What the keys must hold after one run, and nothing else.
fn assert_counted(redis: &mut Redis, requests: u64) {
    assert_eq!(redis.call(&format!("GET {COUNTER}")), requests.to_string());
    assert_eq!(redis.call("LLEN mylist"), format!(":{requests}"));
    assert_eq!(redis.call("HLEN myhash"), ":1");
    assert_eq!(redis.call("DBSIZE"), ":4");
}

#[test]
fn redis_benchmark_does_not_notice_that_a_backup_is_killed() {
    if !soak::have(PROGRAM) {
        return;
    }
    let requests: u64 = if full() { 100_000 } else { 20_000 };
    let shape = Shape { replicas: REPLICAS, pillars: 1, service: "kv" };
    let mut cluster = Cluster::start(shape, 0);
    let gateway = Gateway::start(&cluster.path());
    let mut redis = gateway.redis();

    let output = redis_benchmark(gateway.port, requests).output().expect("it runs");
    let all_up = rates(&output);
    assert_counted(&mut redis, requests);
    assert_eq!(redis.call("FLUSHALL"), "+OK");

    let mut run = redis_benchmark(gateway.port, requests).spawn().expect("it runs");
    // The third of the five commands has begun.
    until("the counter counts", || match redis.call(&format!("GET {COUNTER}")).parse::<u64>() {
        Ok(count) if count > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.kill(VICTIM);
    let pushed = redis.call("LLEN mylist");
    assert_ne!(pushed, format!(":{requests}"), "the backup was killed too late");
    let running = run.try_wait().expect("a child").is_none();
    let output = run.wait_with_output().expect("it ends");
    let one_killed = rates(&output);
    assert!(running, "the backup was killed too late");
    assert_counted(&mut redis, requests);

    soak::write_down("redis-benchmark", &json!({ "all_up": all_up, "one_killed": one_killed }));
    cluster.wait_for_code(3);
    soak::assert_one_state(&cluster, REPLICAS - 1);
}
