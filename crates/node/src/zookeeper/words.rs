//! The commands of four letters, which answer in text and close the connection.

use std::fmt::Write;

use svc::zk::op::Stats;
use svc::zk::session::{TIMEOUT_MAX_MS, TIMEOUT_MIN_MS};

use super::Shared;

/// The version that clients are told: that of the ZooKeeper whose semantics these are, and ours.
const VERSION: &str = concat!("3.8.0-stylite-", env!("CARGO_PKG_VERSION"));

/// Whether the answer to a word needs to know how much there is.
pub(super) fn needs_stats(word: &[u8; 4]) -> bool {
    matches!(word, b"srvr" | b"stat" | b"mntr")
}

/// The answer to a word. `stats` is `None` when the group does not answer.
pub(super) fn answer(word: &[u8; 4], shared: &Shared, stats: Option<Stats>) -> String {
    let mut out = String::new();
    let failed = match (word, stats) {
        (b"ruok", _) => write!(out, "imok"),
        (b"isro", _) => write!(out, "rw"),
        (b"envi", _) => envi(&mut out),
        (b"conf", _) => conf(&mut out, shared),
        (b"cons", _) => cons(&mut out, shared),
        (b"srvr" | b"stat" | b"mntr", None) => {
            writeln!(out, "This ZooKeeper instance is not currently serving requests")
        }
        (b"srvr", Some(stats)) => srvr(&mut out, shared, stats),
        (b"stat", Some(stats)) => writeln!(out, "Zookeeper version: {VERSION}\nClients:")
            .and_then(|()| cons(&mut out, shared))
            .and_then(|()| body(&mut out, shared, stats)),
        (b"mntr", Some(stats)) => mntr(&mut out, shared, stats),
        _ => {
            let word = String::from_utf8_lossy(word);
            write!(out, "{word} is not executed because it is not in the whitelist.")
        }
    };
    // Writing to a string does not fail.
    failed.map_or(String::new(), |()| out)
}

fn srvr(out: &mut String, shared: &Shared, stats: Stats) -> std::fmt::Result {
    writeln!(out, "Zookeeper version: {VERSION}")?;
    body(out, shared, stats)
}

fn body(out: &mut String, shared: &Shared, stats: Stats) -> std::fmt::Result {
    let own = &shared.stats;
    writeln!(out, "Received: {}\nSent: {}", own.commands.get(), own.submitted.get())?;
    writeln!(out, "Connections: {}\nOutstanding: 0", own.connected.get())?;
    writeln!(out, "Zxid: {:#x}\nMode: replicated", stats.zxid)?;
    writeln!(out, "Node count: {}", stats.nodes)
}

fn mntr(out: &mut String, shared: &Shared, stats: Stats) -> std::fmt::Result {
    let own = &shared.stats;
    let rows: [(&str, u64); 10] = [
        ("packets_received", own.commands.get()),
        ("num_alive_connections", own.connected.get()),
        ("znode_count", stats.nodes),
        ("watch_count", stats.watches),
        ("ephemerals_count", stats.ephemerals),
        ("approximate_data_size", stats.bytes),
        ("global_sessions", stats.sessions),
        ("connection_rejected", own.rejected.get()),
        ("connection_drop_count", own.slow_readers.get() + own.idle_closed.get()),
        ("uptime", shared.now_ms()),
    ];
    writeln!(out, "zk_version\t{VERSION}\nzk_server_state\treplicated")?;
    rows.iter().try_for_each(|(name, value)| writeln!(out, "zk_{name}\t{value}"))
}

fn envi(out: &mut String) -> std::fmt::Result {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    writeln!(out, "Environment:\nzookeeper.version={VERSION}")?;
    writeln!(out, "os.name={os}\nos.arch={arch}")
}

fn conf(out: &mut String, shared: &Shared) -> std::fmt::Result {
    writeln!(out, "clientPort={}", shared.address.port())?;
    writeln!(out, "maxClientCnxns={}", shared.config.clients_max)?;
    writeln!(out, "minSessionTimeout={TIMEOUT_MIN_MS}\nmaxSessionTimeout={TIMEOUT_MAX_MS}")
}

fn cons(out: &mut String, shared: &Shared) -> std::fmt::Result {
    let peers = shared.peers();
    peers.iter().try_for_each(|((session, _), peer)| {
        writeln!(out, " {}[1](sid={session:#x})", peer.address)
    })?;
    writeln!(out)
}
