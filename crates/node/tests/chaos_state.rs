//! A replica that has lost a large state gets it back from the others while they work: all of it,
//! verified, with one of the sources lying, and without anybody's help.

#[path = "support/chaos/mod.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chaos::{Connection, Lab, Load, Plan, Setup};
use cluster::{Gateway, full, until};
use serde_json::json;

const VALUE_BYTES: usize = 1024;
const LOADERS: u64 = 4;
const PIPELINE: u64 = 64;

fn key(number: u64) -> String {
    format!("state:{number:08}")
}

fn value(number: u64) -> String {
    format!("{number:016x}").repeat(VALUE_BYTES / 16)
}

/// Writes these keys in pipelines.
fn fill(port: u16, keys: std::ops::Range<u64>) {
    let mut connection = Connection::open(port).expect("the gateway listens");
    let keys: Vec<u64> = keys.collect();
    for some in keys.chunks(usize::try_from(PIPELINE).expect("small")) {
        for number in some {
            connection.send(&["SET", &key(*number), &value(*number)]).expect("it is open");
        }
        some.iter().for_each(|_| drop(connection.reply().expect("OK")));
    }
}

/// Full load: connections that wait for nothing but their replies.
fn full_load(gateways: &[&Gateway]) -> Plan {
    Plan { connections: 24, pace: Duration::ZERO, ..chaos::steady(gateways) }
}

/// Good replies per second for as long as `until_done` takes.
fn rate_while(load: &Load, work: impl FnOnce()) -> (f64, f64) {
    let (began, before) = (Instant::now(), load.replies());
    work();
    let seconds = began.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = (load.replies() - before) as f64 / seconds;
    (rate, seconds)
}

/// Good replies in each second until `work` is done, beside what [`rate_while`] says.
fn rates_while(load: &Load, work: impl FnOnce()) -> (f64, f64, Vec<u64>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let (mut seconds, mut last) = (vec![], load.replies());
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_secs(1));
                let now = load.replies();
                seconds.push(now - std::mem::replace(&mut last, now));
            }
            seconds
        });
        let (rate, seconds) = rate_while(load, work);
        over.store(true, Ordering::Relaxed);
        (rate, seconds, sampler.join().expect("it only counts"))
    })
}

/// What the processors have done so far: ticks altogether, and ticks when they had work but the
/// host of this virtual machine ran something else. Where that happens figures mean nothing.
fn processor_times() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let ticks: Vec<u64> = ticks.filter_map(|word| word.parse().ok()).collect();
    (ticks.iter().sum(), ticks.get(7).copied().unwrap_or(0))
}

/// The share of all time since then that was stolen.
fn stolen_since(then: &(u64, u64)) -> f64 {
    let now = processor_times();
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let share = (now.1 - then.1) as f64 / (now.0 - then.0).max(1) as f64;
    share
}

/// Empties a replica of a group with a large state and brings it back.
fn rejoin(replicas: u16, liar: Option<u16>, keys: u64, name: &str) {
    let setup = Setup { replicas, drills: liar.is_some(), durability: "async", ..Setup::default() };
    let mut lab = Lab::found(setup);
    for id in lab.ids() {
        match liar {
            Some(liar) if liar == id => lab.start_with(id, &["--misbehave", "lying-source"]),
            _ => lab.start_one(id),
        }
    }
    lab.until_healthy();
    let gateways = [lab.gateway(0), lab.gateway(1)];
    let (victim, all) = (replicas - 1, (0..replicas).collect::<Vec<u16>>());
    // A first recovery, of next to nothing, makes the history longer than the logs: whoever
    // comes back later needs the state.
    lab.kill(victim);
    lab.wipe(victim);
    lab.start_with(victim, &["--recover"]);
    lab.until_one_state(&all, &gateways[0]);
    std::thread::scope(|scope| {
        for loader in 0..LOADERS {
            let share = keys * loader / LOADERS..keys * (loader + 1) / LOADERS;
            scope.spawn(|| fill(gateways[0].port, share));
        }
    });
    let calm = Duration::from_secs(if full() { 20 } else { 1 });
    let load = Load::start(&full_load(&[&gateways[0], &gateways[1]]));
    load.flows(500);
    let stolen = processor_times();
    let (all_up, _) = rate_while(&load, || std::thread::sleep(calm));
    lab.kill(victim);
    lab.wipe(victim);
    let (one_down, _) = rate_while(&load, || std::thread::sleep(calm));
    let (during, seconds, by_second) = rates_while(&load, || {
        lab.start_with(victim, &["--recover"]);
        until_running(&lab, victim);
    });
    let (after, _) = rate_while(&load, || std::thread::sleep(calm));
    let stolen = stolen_since(&stolen);
    let outcome = load.stop();
    let status = lab.until_one_state(&all, &gateways[0]);
    let transfer = status["replicas"][usize::from(victim)]["report"]["transfer"].clone();
    let figures = json!({
        "replicas": replicas, "liar": liar, "state_bytes": keys * VALUE_BYTES as u64,
        "rejoined_after_s": seconds, "transfer": transfer,
        "requests_per_s": {
            "all_up": all_up, "one_down": one_down, "during": during, "after": after,
            "during_by_second": by_second,
        },
        "stolen_by_the_host": stolen,
        "share_during": during / one_down,
        "share_during_of_all_up": during / all_up,
        "clients": outcome.figures(),
        "rss_kib": lab.pids().into_iter().map(soak::rss_kib).collect::<Vec<_>>(),
        "disk_bytes": lab.ids().map(|id| lab.disk_bytes(id)).collect::<Vec<_>>(),
    });
    soak::write_down(name, &figures);
    outcome.without_errors().verify(gateways[1].port);
    let fetched = soak::number(&transfer, "/fetched_bytes");
    assert!(fetched >= keys * VALUE_BYTES as u64, "the state was fetched: {transfer}");
    read_back(gateways[1].port, keys);
    // The one that was brought back is needed now, and has what everybody has.
    lab.kill(1);
    (2..replicas - 1).take(usize::from((replicas - 1) / 3) - 1).for_each(|id| lab.kill(id));
    read_back(gateways[1].port, keys);
}

/// Waits until a replica takes part again, asking seldom: to ask costs a process and handshakes
/// with everybody, on the cores that are being measured.
fn until_running(lab: &Lab, id: u16) {
    let patience = Instant::now() + Duration::from_secs(if full() { 900 } else { 120 });
    while lab.status().1["replicas"][usize::from(id)]["state"] != "running" {
        assert!(Instant::now() < patience, "{}", chaos::lab::brief(&lab.status().1));
        std::thread::sleep(if full() { Duration::from_secs(1) } else { Duration::from_millis(50) });
    }
}

/// Reads a sample of the keys.
fn read_back(port: u16, keys: u64) {
    let mut connection = Connection::open(port).expect("the gateway listens");
    for number in (0..keys).step_by(usize::try_from(keys / 500).expect("small").max(1)) {
        let reply = until("a GET is answered", || connection.call(&["GET", &key(number)]));
        assert!(reply == chaos::load::Reply::Bulk(Some(value(number).into_bytes())), "{number}");
    }
}

#[test]
fn an_emptied_replica_gets_a_large_state_back_under_full_load() {
    let keys = if full() { 1_048_576 } else { 30_720 };
    rejoin(4, None, keys, "rejoin");
}

#[test]
fn an_emptied_replica_of_seven_gets_it_back_although_one_source_lies() {
    let keys = if full() { 1_048_576 } else { 10_240 };
    rejoin(7, Some(2), keys, "rejoin-with-a-liar");
}
