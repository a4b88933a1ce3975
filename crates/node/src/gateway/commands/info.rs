//! `INFO`: what the gateway knows about itself. What the replicas know, `stylite status` shows.

use std::fmt::Write as _;

use svc::kv::reply::Resp;

use super::{Flow, Local, is};
use crate::gateway::REDIS_VERSION;
use crate::gateway::session::Session;

/// The commands of this chapter.
pub(super) const COMMANDS: &[Local] = &[Local::new("info", -1, info)];

type Section = (&'static str, fn(&Session, &mut String));

const SECTIONS: [Section; 4] =
    [("server", server), ("clients", clients), ("stats", stats), ("group", group)];

fn info(session: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let everything = ["all", "default", "everything"];
    let wanted = |name: &str| {
        args.len() == 1
            || args[1..].iter().any(|arg| is(arg, name) || everything.iter().any(|e| is(arg, e)))
    };
    let mut text = String::new();
    for (name, write) in SECTIONS.into_iter().filter(|(name, _)| wanted(name)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let _ = write!(text, "# {}{}\r\n", name[..1].to_ascii_uppercase(), &name[1..]);
        write(session, &mut text);
    }
    reply.verbatim("txt", text.as_bytes());
    Flow::Answered
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = write!(text, "{name}:{value}\r\n");
}

fn server(session: &Session, text: &mut String) {
    let shared = &session.shared;
    let uptime = shared.started.elapsed().as_secs();
    line(text, "redis_version", REDIS_VERSION);
    line(text, "stylite_version", env!("CARGO_PKG_VERSION"));
    line(text, "redis_mode", "standalone");
    line(text, "os", std::env::consts::OS);
    line(text, "arch_bits", usize::BITS);
    line(text, "process_id", std::process::id());
    line(text, "tcp_port", shared.port);
    line(text, "uptime_in_seconds", uptime);
    line(text, "uptime_in_days", uptime / 86_400);
}

fn clients(session: &Session, text: &mut String) {
    line(text, "connected_clients", session.shared.stats.connected.get());
    line(text, "maxclients", session.shared.config.clients_max);
}

fn stats(session: &Session, text: &mut String) {
    let stats = &session.shared.stats;
    for (name, counter) in [
        ("total_connections_received", &stats.accepted),
        ("rejected_connections", &stats.rejected),
        ("total_commands_processed", &stats.commands),
        ("total_operations_submitted", &stats.submitted),
        ("total_net_input_bytes", &stats.bytes_in),
        ("total_net_output_bytes", &stats.bytes_out),
        ("protocol_errors", &stats.protocol_errors),
        ("slow_readers_closed", &stats.slow_readers),
        ("idle_closed", &stats.idle_closed),
        ("unanswered_commands", &stats.unanswered),
    ] {
        line(text, name, counter.get());
    }
}

fn group(session: &Session, text: &mut String) {
    let health = &session.shared.health;
    line(text, "backend", (session.describe)());
    line(text, "group_state", health.state());
    match health.seconds_since_last_answer() {
        Some(seconds) => line(text, "seconds_since_last_answer", seconds),
        None => line(text, "seconds_since_last_answer", -1),
    }
    line(text, "request_timeout_ms", session.shared.config.request_timeout.as_millis());
}
