//! Commands about the connection itself, and the entry points of transactions.

use svc::kv::call::parse_int;
use svc::kv::reply::{Protocol, Resp};

use super::{Flow, Local, SYNTAX, error, is, ok};
use crate::gateway::REDIS_VERSION;
use crate::gateway::session::Session;

/// The commands of this chapter.
pub(super) const COMMANDS: &[Local] = &[
    Local::new("ping", -1, ping),
    Local::new("echo", 2, echo),
    Local::new("select", 2, select),
    Local::new("auth", -2, auth),
    Local::new("hello", -1, hello).outside_multi(),
    Local::new("quit", -1, quit),
    Local::new("reset", 1, reset),
    Local::new("readonly", 1, no_cluster),
    Local::new("readwrite", 1, no_cluster),
    Local::new("multi", 1, |session, _, reply| {
        session.begin(reply);
        Flow::Answered
    }),
    Local::new("discard", 1, |session, _, reply| {
        session.discard(reply);
        Flow::Answered
    }),
    Local::new("unwatch", 1, |session, _, reply| {
        session.unwatch(reply);
        Flow::Answered
    }),
    Local::new("exec", 1, |_, _, _| Flow::Exec),
    Local::new("watch", -2, watch),
];

const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
/// Longest name of a connection, of its library or of that one's version, in bytes: others see them
/// in lists of all connections.
const NAME_BYTES_MAX: usize = 1024;

fn ping(_: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    match args {
        [_] => reply.simple("PONG"),
        [_, text] => reply.bulk(text),
        _ => reply.error(b"ERR wrong number of arguments for 'ping' command"),
    }
    Flow::Answered
}

fn echo(_: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    reply.bulk(args[1]);
    Flow::Answered
}

fn select(_: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    match parse_int(args[1]).and_then(|db| i32::try_from(db).ok()) {
        None => error(reply, "ERR value is not an integer or out of range"),
        Some(0) => ok(reply),
        Some(_) => error(reply, "ERR DB index is out of range"),
    }
}

/// There are no passwords: a gateway serves whoever reaches its address, with the rights of its
/// own key. So this behaves like Redis without one.
fn auth(_: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    match args {
        [_, _] => error(
            reply,
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        ),
        [_, b"default", _] => ok(reply),
        [_, _, _] => error(reply, WRONG_PASS),
        _ => error(reply, SYNTAX),
    }
}

fn hello(session: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let mut protocol = session.protocol;
    if let Some(version) = args.get(1) {
        protocol = match parse_int(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return error(reply, "NOPROTO unsupported protocol version"),
            None => {
                return error(reply, "ERR Protocol version is not an integer or out of range");
            }
        };
    }
    let mut rest = args.get(2..).unwrap_or_default();
    let mut name = None;
    let mut user = None;
    while let Some((option, tail)) = rest.split_first() {
        rest = match tail {
            [who, _, tail @ ..] if is(option, "auth") => {
                user = Some(*who);
                tail
            }
            [new, tail @ ..] if is(option, "setname") => {
                if let Some(text) = name_error("Client names", new) {
                    return error(reply, text);
                }
                name = Some(*new);
                tail
            }
            _ => {
                let mut text = b"ERR Syntax error in HELLO option '".to_vec();
                text.extend_from_slice(option);
                text.push(b'\'');
                return error(reply, text);
            }
        };
    }
    if user.is_some_and(|user| user != b"default") {
        return error(reply, WRONG_PASS);
    }
    let mut state = session.client.state();
    if let Some(name) = name {
        state.name = name.to_vec();
    }
    session.protocol = protocol;
    state.resp = if protocol == Protocol::Resp3 { 3 } else { 2 };
    drop(state);
    Flow::Greet
}

/// The reply to HELLO, in the protocol that was just agreed.
pub(in crate::gateway) fn greet(session: &Session, reply: &mut Resp<'_>) {
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(if session.protocol == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
}

/// Why `name` cannot be taken for one of the `names`, if it cannot: they appear in lists that are
/// split at blanks and line ends.
pub(super) fn name_error(names: &str, name: &[u8]) -> Option<String> {
    if name.len() > NAME_BYTES_MAX {
        Some(format!("ERR {names} cannot have more than {NAME_BYTES_MAX} bytes."))
    } else if !name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        Some(format!("ERR {names} cannot contain spaces, newlines or special characters."))
    } else {
        None
    }
}

/// Sets the connection's name.
pub(super) fn set_name(session: &mut Session, name: &[u8], reply: &mut Resp<'_>) -> Flow {
    if let Some(text) = name_error("Client names", name) {
        return error(reply, text);
    }
    session.client.state().name = name.to_vec();
    ok(reply)
}

fn quit(_: &mut Session, _: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    reply.ok();
    Flow::Close
}

fn reset(session: &mut Session, _: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    session.reset();
    reply.simple("RESET");
    Flow::Answered
}

fn no_cluster(_: &mut Session, _: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    error(reply, "ERR This instance has cluster support disabled")
}

fn watch(session: &mut Session, _: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    if session.in_transaction() {
        return error(reply, "ERR WATCH inside MULTI is not allowed");
    }
    Flow::Watch
}
