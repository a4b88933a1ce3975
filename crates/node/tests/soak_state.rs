//! A large state: what a checkpoint costs does not depend on it, and nothing of it gets lost.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/redis_wire.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod redis_wire;
#[path = "support/soak.rs"]
mod soak;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use cluster::{Cluster, Gateway, Shape, full};
use redis_wire::{Value, Wire, encode};
use serde_json::{Value as Json, json};
use soak::{REPLICAS, number};
use svc::kv::db::BUCKETS;

const VALUE_BYTES: usize = 1024;
/// Connections that load the state, and commands that each has under way.
const LOADERS: u64 = 4;
const PIPELINE: u64 = 64;
/// Keys that are written again and again afterwards.
const HOT_KEYS: u64 = 16;
/// Checkpoints that must come and go under that small load.
const CHECKPOINTS: u64 = 6;
/// Keys that are read back.
const SAMPLE: u64 = 8192;

fn key(number: u64) -> String {
    format!("state:{number:08}")
}

/// Another one for each key.
fn value(number: u64) -> Vec<u8> {
    format!("{number:016x}").into_bytes().repeat(VALUE_BYTES / 16)
}

/// Sends `SET` for all these keys, in pipelines.
fn load(addr: SocketAddr, keys: Range<u64>) {
    let mut wire = Wire::connect(addr);
    let mut next = keys.start;
    while next < keys.end {
        let until = keys.end.min(next + PIPELINE);
        let mut bytes = Vec::new();
        for number in next..until {
            encode(&[b"SET", key(number).as_bytes(), &value(number)], &mut bytes);
        }
        wire.send_raw(&bytes);
        for number in next..until {
            assert_eq!(wire.read(), Value::Simple(b"OK".to_vec()), "SET of key {number}");
        }
        next = until;
    }
}

/// Reads every `step`-th of the first `keys` keys and compares.
fn read_back(addr: SocketAddr, keys: u64, step: u64) {
    let mut wire = Wire::connect(addr);
    for number in (0..keys).step_by(usize::try_from(step).expect("small")) {
        let reply = wire.call(&["GET", &key(number)]);
        assert!(reply == Value::Bulk(value(number)), "key {number} is {reply:?}");
    }
}

/// The same figure of all replicas.
fn all(reports: &[Json], path: &str) -> Vec<u64> {
    reports.iter().map(|report| number(report, path)).collect()
}

/// Writes few keys until checkpoints have come and gone at every replica. Returns, per replica,
/// the longest pause and the most objects that one of these checkpoints had to hash.
fn few_writes(cluster: &Cluster, wire: &mut Wire) -> (Vec<u64>, Vec<u64>) {
    let count = "/checkpoint/count";
    let before = all(&soak::reports(cluster), count);
    let (mut pauses, mut hashed) = (vec![0; before.len()], vec![0; before.len()]);
    let mut seen = before.clone();
    // The first checkpoint may still have writes of the load to hash.
    while seen.iter().zip(&before).any(|(now, then)| *now < then + 1 + CHECKPOINTS) {
        for number in 0..HOT_KEYS {
            let reply = wire.call(&[b"SET", key(number).as_bytes(), &value(number)]);
            assert_eq!(reply, Value::Simple(b"OK".to_vec()));
        }
        for (id, report) in soak::reports(cluster).iter().enumerate() {
            seen[id] = number(report, count);
            if seen[id] > before[id] + 1 {
                let objects = number(report, "/checkpoint/objects_rehashed");
                let bound = 1..=HOT_KEYS;
                assert!(bound.contains(&objects), "replica {id} hashed {objects}: {report}");
                hashed[id] = objects.max(hashed[id]);
                pauses[id] = number(report, "/checkpoint/pause_last_us").max(pauses[id]);
            }
        }
    }
    (pauses, hashed)
}

#[test]
fn checkpoints_of_a_large_state_cost_what_has_changed() {
    let keys: u64 = if full() { 1_048_576 } else { 65_536 };
    let shape = Shape { replicas: REPLICAS, pillars: 1, service: "kv" };
    let mut cluster = Cluster::start(shape, 0);
    let gateway = Gateway::start(&cluster.path());
    let addr = soak::local(gateway.port);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for loader in 0..LOADERS {
            let share = keys * loader / LOADERS..keys * (loader + 1) / LOADERS;
            scope.spawn(move || load(addr, share));
        }
    });
    let loaded_s = began.elapsed().as_secs_f64();
    let mut wire = Wire::connect(addr);
    assert_eq!(wire.cmd("DBSIZE"), Value::Int(i64::try_from(keys).expect("few")));
    let loaded = soak::reports(&cluster);
    let (pauses, hashed) = few_writes(&cluster, &mut wire);
    let rss: Vec<_> = soak::pids(&mut cluster).into_iter().map(soak::rss_kib).collect();
    soak::write_down(
        "state",
        &json!({
            "keys": keys,
            "value_bytes": VALUE_BYTES,
            "objects": BUCKETS,
            "load_s": loaded_s,
            "load": { "pause_max_us": all(&loaded, "/checkpoint/pause_max_us") },
            "few_writes": { "pause_max_us": pauses, "objects_rehashed_max": hashed },
            "rss_kib": rss,
        }),
    );
    read_back(addr, keys, (keys / SAMPLE).max(1));
    assert_eq!(wire.cmd("DBSIZE"), Value::Int(i64::try_from(keys).expect("few")));
    soak::assert_one_state(&cluster, REPLICAS);
}
