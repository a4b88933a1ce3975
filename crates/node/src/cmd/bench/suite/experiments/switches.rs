//! What the group's switches give and cost, each beside the default: the transports, reads without
//! an order, and the others one by one.

use super::{
    CLIENTS, CPU, DIGEST_REPLIES, Experiment, NO_BATCH, NO_SRT, P50, PIGGYBACK, RATE, READS,
    TENTATIVE, series,
};

/// Reads that no order is agreed on.
const UNORDERED: (&str, &str) = ("reads without an order", "--reads unordered");

/// The default, and one switch each.
const SWITCHES: [(&str, &str); 9] = [
    ("default", ""),
    TENTATIVE,
    PIGGYBACK,
    DIGEST_REPLIES,
    ("relieved repliers", "--repliers relieved"),
    NO_SRT,
    ("rotating leaders", "--leaders rotating"),
    NO_BATCH,
    ("reads unordered, which only writes pay for", "--reads unordered"),
];

/// Latency by itself, a few clients, and deep pipelines.
pub fn one_by_one() -> Experiment {
    let depths = [1, 16, 256, 4096];
    let line =
        |outstanding: u32| format!("--clients {} --outstanding {outstanding}", outstanding.min(2));
    Experiment {
        name: "switches".to_owned(),
        title: "Each switch of the group beside the default".to_owned(),
        about: "Empty operations of two clients, and of one where one is under way.",
        x: "operations under way per client",
        log_x: true,
        plots: vec![RATE, P50, CPU],
        series: SWITCHES.map(|one| series(one, &depths, line)).into(),
    }
}

/// Reads, ordered and not, by their share.
pub fn reads(deep: bool) -> Experiment {
    let (name, under_way) = if deep { ("deep", 1024) } else { ("alone", 1) };
    let line = |reads: u32| {
        let load = format!("--clients {} --outstanding {under_way}", under_way.min(2));
        format!("--service kv --payload 100 {load} --read-percent {reads}")
    };
    Experiment {
        name: format!("reads-{name}"),
        title: format!("Reads with and without an order, {under_way} under way per client"),
        about: "SET of 100 bytes and GET. Without an order 2f+1 replicas have to answer alike, to \
            writes too, and a write between two answers makes a read go the ordered way.",
        x: "reads of a hundred operations",
        log_x: false,
        plots: vec![RATE, P50, CPU],
        series: [("ordered reads", ""), UNORDERED].map(|one| series(one, &READS, line)).into(),
    }
}

/// What carries packets, all within one host.
const TRANSPORTS: [(&str, &str); 3] = [
    ("TCP", "--transport tcp"),
    ("UNIX sockets", "--transport unix"),
    ("shared memory", "--transport shm"),
];

pub fn transport() -> Experiment {
    let depths = [1, 16, 256, 4096];
    // One operation under way is that of one client: its latency.
    let line =
        |outstanding: u32| format!("--clients {} --outstanding {outstanding}", outstanding.min(2));
    Experiment {
        name: "transport".to_owned(),
        title: "TCP, UNIX sockets and shared memory".to_owned(),
        about: "Empty operations of two clients, and of one where one is under way.",
        x: "operations under way per client",
        log_x: true,
        plots: vec![RATE, P50, CPU],
        series: TRANSPORTS.map(|one| series(one, &depths, line)).into(),
    }
}

pub fn transport_clients() -> Experiment {
    let line = |clients: u32| format!("--clients {clients} --outstanding 16");
    Experiment {
        name: "transport-clients".to_owned(),
        title: "TCP, UNIX sockets and shared memory by clients".to_owned(),
        about: "Empty operations, 16 under way for each client, each with connections of its own.",
        x: "clients",
        log_x: false,
        plots: vec![RATE, CPU],
        series: TRANSPORTS.map(|one| series(one, &CLIENTS, line)).into(),
    }
}
