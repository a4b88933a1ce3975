//! `CLIENT`: names, numbers and lists of connections, and closing them.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use svc::kv::call::parse_int;
use svc::kv::reply::{REPLY_MAX, Resp};
use tokio::time::Instant;

use super::connection::{name_error, set_name};
use super::{Flow, Local, SYNTAX, error, help, is, ok};
use crate::gateway::registry::Client;
use crate::gateway::session::{Replies, Session};

/// The subcommands of CLIENT.
pub(super) const COMMANDS: &[Local] = &[
    Local::new("client|id", 2, id).about("Returns the number of the connection"),
    Local::new("client|getname", 2, get_name).about("Returns the name of the connection"),
    Local::new("client|setname", 3, |s, args, reply| set_name(s, args[2], reply))
        .about("Names the connection"),
    Local::new("client|setinfo", 4, set_info).about("Tells the client library's name or version"),
    Local::new("client|info", 2, info).about("Describes the connection"),
    Local::new("client|list", -2, list).about("Describes all connections of the gateway"),
    Local::new("client|kill", -3, kill).about("Closes connections of the gateway"),
    Local::new("client|reply", 3, reply_mode)
        .about("Chooses which commands are answered")
        .outside_multi(),
    Local::new("client|no-evict", 3, on_or_off)
        .about("Accepted without effect: nothing is evicted"),
    Local::new("client|no-touch", 3, on_or_off)
        .about("Accepted without effect: nothing is evicted"),
    Local::new("client|getredir", 2, |_, _, reply| {
        reply.integer(-1);
        Flow::Answered
    })
    .about("Says that there is no tracking"),
    Local::new("client|help", 2, |_, _, reply| help("client", reply))
        .about("Lists the subcommands"),
];

fn id(session: &mut Session, _: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    reply.integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    Flow::Answered
}

fn get_name(session: &mut Session, _: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let state = session.client.state();
    reply.bulk_or_null((!state.name.is_empty()).then_some(&state.name[..]));
    Flow::Answered
}

fn set_info(session: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let mut state = session.client.state();
    let (field, what) = if is(args[2], "lib-name") {
        (&mut state.lib_name, "lib-name")
    } else if is(args[2], "lib-ver") {
        (&mut state.lib_ver, "lib-ver")
    } else {
        let mut text = b"ERR Unrecognized option '".to_vec();
        text.extend_from_slice(args[2]);
        text.push(b'\'');
        return error(reply, text);
    };
    if let Some(text) = name_error(what, args[3]) {
        return error(reply, text);
    }
    *field = args[3].to_vec();
    ok(reply)
}

/// One connection's line in CLIENT LIST. Fields that have no meaning here are left out.
fn describe(client: &Client, now: Instant, out: &mut Vec<u8>) {
    let state = client.state();
    let mut line = format!("id={} addr={} laddr={} name=", client.id, client.addr, client.local);
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(&state.name);
    line.clear();
    let age = now.saturating_duration_since(client.since).as_secs();
    let idle = now.saturating_duration_since(state.active).as_secs();
    let multi = state.queued.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
    let flags = if state.queued.is_some() { "x" } else { "N" };
    let _ = write!(line, " age={age} idle={idle} flags={flags} db=0 sub=0 psub=0 ssub=0");
    let _ = write!(line, " multi={multi} cmd={} user=default", state.command);
    let _ = write!(line, " redir=-1 resp={} lib-name=", state.resp);
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(&state.lib_name);
    out.extend_from_slice(b" lib-ver=");
    out.extend_from_slice(&state.lib_ver);
    out.push(b'\n');
}

fn info(session: &mut Session, _: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let mut text = Vec::new();
    describe(&session.client, Instant::now(), &mut text);
    reply.verbatim("txt", &text);
    Flow::Answered
}

/// Whether connections of this type exist here; `None` when there is no such type.
fn has_type(name: &[u8]) -> Option<bool> {
    let others = ["master", "replica", "slave", "pubsub"];
    if is(name, "normal") {
        return Some(true);
    }
    others.iter().any(|other| is(name, other)).then_some(false)
}

fn unknown_type(name: &[u8], reply: &mut Resp<'_>) -> Flow {
    let mut text = b"ERR Unknown client type '".to_vec();
    text.extend_from_slice(name);
    text.push(b'\'');
    error(reply, text)
}

fn list(session: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let mut clients = session.shared.registry.all();
    match &args[2..] {
        [] => {}
        [option, name] if is(option, "type") => match has_type(name) {
            Some(true) => {}
            Some(false) => clients.clear(),
            None => return unknown_type(name, reply),
        },
        [option, ids @ ..] if is(option, "id") && !ids.is_empty() => {
            let parsed = |id: &&[u8]| u64::try_from(parse_int(id)?).ok().filter(|id| *id > 0);
            let Some(ids) = ids.iter().map(parsed).collect::<Option<HashSet<u64>>>() else {
                return error(reply, "ERR Invalid client ID");
            };
            clients.retain(|client| ids.contains(&client.id));
        }
        _ => return error(reply, SYNTAX),
    }
    let now = Instant::now();
    let mut text = Vec::new();
    for client in &clients {
        describe(client, now, &mut text);
        // More than any reply has: it becomes an error.
        if text.len() > REPLY_MAX {
            break;
        }
    }
    reply.verbatim("txt", &text);
    Flow::Answered
}

/// Which connections CLIENT KILL is about.
struct Filter<'a> {
    id: Option<u64>,
    addr: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    /// Only connections that there are none of.
    nobody: bool,
    skip_me: bool,
}

impl Filter<'_> {
    fn covers(&self, client: &Arc<Client>, me: u64) -> bool {
        let same = |addr: &[u8], is: std::net::SocketAddr| is.to_string().as_bytes() == addr;
        !self.nobody
            && self.id.is_none_or(|id| client.id == id)
            && self.addr.is_none_or(|addr| same(addr, client.addr))
            && self.local.is_none_or(|addr| same(addr, client.local))
            && !(self.skip_me && client.id == me)
    }
}

fn kill(session: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let mut filter = Filter { id: None, addr: None, local: None, nobody: false, skip_me: true };
    let old_form = args.len() == 3;
    if old_form {
        filter.addr = Some(args[2]);
        filter.skip_me = false;
    } else if let Err(text) = parse_filter(&args[2..], &mut filter) {
        return error(reply, text);
    }
    let me = session.client.id;
    let (mut killed, mut flow) = (0, Flow::Answered);
    for client in session.shared.registry.all() {
        if filter.covers(&client, me) {
            killed += 1;
            // The own connection still gets its reply.
            if client.id == me { flow = Flow::Close } else { client.doom() }
        }
    }
    match (old_form, killed) {
        (true, 0) => reply.error(b"ERR No such client"),
        (true, _) => reply.ok(),
        (false, n) => reply.integer(n),
    }
    flow
}

fn parse_filter<'a>(args: &[&'a [u8]], filter: &mut Filter<'a>) -> Result<(), Vec<u8>> {
    let named = |text: &str, name: &[u8]| [text.as_bytes(), name, b"'"].concat();
    let mut rest = args;
    while let [option, value, tail @ ..] = rest {
        rest = tail;
        if is(option, "id") {
            let id = parse_int(value).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
            filter.id = Some(id.ok_or(b"ERR client-id should be greater than 0".to_vec())?);
        } else if is(option, "type") {
            let known = has_type(value);
            filter.nobody |= !known.ok_or_else(|| named("ERR Unknown client type '", value))?;
        } else if is(option, "addr") {
            filter.addr = Some(value);
        } else if is(option, "laddr") {
            filter.local = Some(value);
        } else if is(option, "user") {
            if *value != b"default" {
                return Err(named("ERR No such user '", value));
            }
        } else if is(option, "skipme") && (is(value, "yes") || is(value, "no")) {
            filter.skip_me = is(value, "yes");
        } else {
            return Err(SYNTAX.into());
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(SYNTAX.into()) }
}

fn reply_mode(session: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    if is(args[2], "on") {
        session.replies = Replies::On;
        reply.ok();
    } else if is(args[2], "off") {
        session.replies = Replies::Off;
    } else if is(args[2], "skip") {
        if session.replies != Replies::Off {
            session.replies = Replies::SkipNext;
        }
    } else {
        reply.error(SYNTAX.as_bytes());
    }
    Flow::Answered
}

/// Settings of a server that has nothing to evict.
fn on_or_off(_: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    if is(args[2], "on") || is(args[2], "off") { ok(reply) } else { error(reply, SYNTAX) }
}
