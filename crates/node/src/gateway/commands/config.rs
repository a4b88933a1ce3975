//! `CONFIG`: shows the settings that clients ask for. They are given at the start and not
//! changed by clients, so `CONFIG SET` accepts only what already holds.

use svc::kv::reply::Resp;

use super::{Flow, Local, error, help, matches, ok};
use crate::gateway::session::Session;
use crate::gateway::{BULK_BYTES_MAX, Shared};

/// The subcommands of CONFIG.
pub(super) const COMMANDS: &[Local] = &[
    Local::new("config|get", -3, get).about("Tells settings of the gateway"),
    Local::new("config|set", -4, set).about("Accepts settings that already hold"),
    Local::new("config|resetstat", 2, |session, _, reply| {
        session.shared.stats.reset();
        ok(reply)
    })
    .about("Sets the counters of the gateway to zero"),
    Local::new("config|rewrite", 2, |_, _, reply| {
        error(reply, "ERR The server is running without a config file")
    })
    .about("Says that there is no configuration file"),
    Local::new("config|help", 2, |_, _, reply| help("config", reply))
        .about("Lists the subcommands"),
];

/// All settings with their values.
fn settings(shared: &Shared) -> Vec<(&'static str, String)> {
    let config = &shared.config;
    let idle = config.idle_timeout.map_or(0, |idle| idle.as_secs());
    vec![
        ("appendfsync", "no".to_owned()),
        ("appendonly", "no".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", config.clients_max.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("port", shared.port.to_string()),
        ("proto-max-bulk-len", BULK_BYTES_MAX.to_string()),
        ("save", String::new()),
        ("timeout", idle.to_string()),
    ]
}

fn get(session: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let mut found = settings(&session.shared);
    found.retain(|(name, _)| args[2..].iter().any(|pattern| matches(pattern, name)));
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    Flow::Answered
}

fn set(session: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let known = settings(&session.shared);
    let pairs = &args[2..];
    for pair in pairs.chunks(2) {
        let setting = known.iter().find(|(name, _)| super::is(pair[0], name));
        let (Some((name, value)), [_, wanted]) = (setting, pair) else {
            let text = b"ERR Unknown option or number of arguments for CONFIG SET - '";
            return error(reply, [text, pair[0], b"'"].concat());
        };
        if value.as_bytes() != *wanted {
            return error(
                reply,
                format!(
                    "ERR CONFIG SET failed (possibly related to argument '{name}') - can't set \
                     immutable config"
                ),
            );
        }
    }
    ok(reply)
}
