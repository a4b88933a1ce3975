//! `COMMAND`: what the command table says, for clients that look before they speak.

use svc::kv::reply::Resp;
use svc::kv::table::{self, CommandSpec, Keys, flags};

use super::{Flow, Local, SYNTAX, error, help, is, matches, subcommands};
use crate::gateway::session::Session;

/// COMMAND and its subcommands.
pub(super) const COMMANDS: &[Local] = &[
    Local::new("command", -1, |_, _, reply| describe_all(reply)),
    Local::new("command|count", 2, |_, _, reply| {
        reply.length(table::all().len());
        Flow::Answered
    })
    .about("Returns the number of commands"),
    Local::new("command|docs", -2, docs).about("Documents commands"),
    Local::new("command|info", -2, info).about("Describes commands"),
    Local::new("command|list", -2, list).about("Lists the names of commands"),
    Local::new("command|getkeys", -3, get_keys)
        .about("Finds the keys among the arguments of a command"),
    Local::new("command|help", 2, |_, _, reply| help("command", reply))
        .about("Lists the subcommands"),
];

fn describe_all(reply: &mut Resp<'_>) -> Flow {
    let all = table::all();
    reply.array(all.len());
    for spec in all {
        describe(spec, reply);
    }
    Flow::Answered
}

fn info(_: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    if args.len() == 2 {
        return describe_all(reply);
    }
    reply.array(args.len() - 2);
    for name in &args[2..] {
        match table::lookup(name) {
            Some(spec) => describe(spec, reply),
            None => reply.null_array(),
        }
    }
    Flow::Answered
}

/// Name, arity, flags, keys, categories, tips, key specifications, subcommands.
fn describe(spec: &CommandSpec, reply: &mut Resp<'_>) {
    reply.array(10);
    describe_head(spec.name, spec.arity, spec.flags, spec.keys, reply);
    let subs: Vec<&Local> = subcommands(spec.name).collect();
    reply.array(subs.len());
    for sub in subs {
        reply.array(10);
        describe_head(sub.name, sub.arity, spec.flags, Keys::None, reply);
        reply.array(0);
    }
}

/// All of a description but the subcommands.
fn describe_head(name: &str, arity: i8, set: u16, keys: Keys, reply: &mut Resp<'_>) {
    reply.bulk(name.as_bytes());
    reply.integer(i64::from(arity));
    let names: Vec<&str> =
        FLAG_NAMES.iter().filter(|(flag, _)| set & flag != 0).map(|(_, name)| *name).collect();
    reply.set(names.len());
    names.iter().for_each(|name| reply.simple(name));
    let (first, last, step) = match keys {
        Keys::None => (0, 0, 0),
        Keys::Range(first, last, step) => (first, last, step),
        Keys::Counted { store: true, .. } => (1, 1, 1),
        Keys::Counted { store: false, .. } => (0, 0, 0),
    };
    [first, last, step].into_iter().for_each(|n| reply.integer(i64::from(n)));
    reply.set(0);
    reply.array(0);
    reply.array(0);
}

/// Flags with the names that COMMAND gives them.
const FLAG_NAMES: [(u16, &str); 11] = [
    (flags::WRITE, "write"),
    (flags::READONLY, "readonly"),
    (flags::DENYOOM, "denyoom"),
    (flags::ADMIN, "admin"),
    (flags::NOSCRIPT, "noscript"),
    (flags::LOADING, "loading"),
    (flags::STALE, "stale"),
    (flags::FAST, "fast"),
    (flags::NO_AUTH, "no_auth"),
    (flags::NO_MULTI, "no_multi"),
    (flags::MOVABLEKEYS, "movablekeys"),
];

fn docs(_: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let specs: Vec<&CommandSpec> = if args.len() == 2 {
        table::all().iter().collect()
    } else {
        args[2..].iter().filter_map(|name| table::lookup(name)).collect()
    };
    reply.map(specs.len());
    for spec in specs {
        reply.bulk(spec.name.as_bytes());
        let subs: Vec<&Local> = subcommands(spec.name).collect();
        reply.map(if subs.is_empty() { 2 } else { 3 });
        reply.bulk(b"summary");
        reply.bulk(spec.summary.as_bytes());
        reply.bulk(b"group");
        reply.bulk(group_name(spec).as_bytes());
        if !subs.is_empty() {
            reply.bulk(b"subcommands");
            reply.map(subs.len());
            for sub in subs {
                reply.bulk(sub.name.as_bytes());
                reply.map(2);
                reply.bulk(b"summary");
                reply.bulk(sub.summary.as_bytes());
                reply.bulk(b"group");
                reply.bulk(group_name(spec).as_bytes());
            }
        }
    }
    Flow::Answered
}

fn group_name(spec: &CommandSpec) -> &'static str {
    use table::Group;
    match spec.group {
        Group::String => "string",
        Group::Bitmap => "bitmap",
        Group::Generic => "generic",
        Group::Hash => "hash",
        Group::List => "list",
        Group::Set => "set",
        Group::SortedSet => "sorted-set",
        Group::Transactions => "transactions",
        Group::Connection => "connection",
        Group::Server => "server",
    }
}

fn list(_: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let keep: Vec<&CommandSpec> = match &args[2..] {
        [] => table::all().iter().collect(),
        [by, what, pattern] if is(by, "filterby") && is(what, "pattern") => {
            table::all().iter().filter(|spec| matches(pattern, spec.name)).collect()
        }
        // There are no modules, and categories belong to access control, which is not there.
        [by, what, _] if is(by, "filterby") && (is(what, "module") || is(what, "aclcat")) => {
            Vec::new()
        }
        _ => return error(reply, SYNTAX),
    };
    reply.array(keep.len());
    keep.iter().for_each(|spec| reply.bulk(spec.name.as_bytes()));
    Flow::Answered
}

fn get_keys(_: &mut Session, args: &[&[u8]], reply: &mut Resp<'_>) -> Flow {
    let command = &args[2..];
    let Some(spec) = table::lookup(command[0]) else {
        return error(reply, "ERR Invalid command specified");
    };
    if matches!(spec.keys, Keys::None) {
        return error(reply, "ERR The command has no key arguments");
    }
    if !spec.takes(command.len()) {
        return error(reply, "ERR Invalid number of arguments specified for command");
    }
    match keys_of(spec.keys, command) {
        Some(keys) => {
            reply.array(keys.len());
            keys.iter().for_each(|key| reply.bulk(key));
        }
        None => reply.error(b"ERR Invalid arguments specified for command"),
    }
    Flow::Answered
}

/// The keys among the arguments; `None` when these make no sense.
fn keys_of<'a>(keys: Keys, command: &[&'a [u8]]) -> Option<Vec<&'a [u8]>> {
    match keys {
        Keys::None => Some(Vec::new()),
        Keys::Range(first, last, step) => {
            let first = usize::try_from(first).ok()?;
            let last = match usize::try_from(last) {
                Ok(last) => last,
                Err(_) => command.len().checked_sub(usize::from(last.unsigned_abs()))?,
            };
            let step = usize::try_from(step).ok().filter(|step| *step > 0)?;
            let range = command.get(first..=last.min(command.len() - 1))?;
            Some(range.iter().step_by(step).copied().collect())
        }
        Keys::Counted { at, store } => {
            let at = usize::from(at);
            let count = svc::kv::call::parse_int(command.get(at)?)?;
            let count = usize::try_from(count).ok().filter(|count| *count > 0)?;
            let counted = command.get(at + 1..at.checked_add(1)?.checked_add(count)?)?;
            let destination = store.then(|| command[1]);
            Some(destination.into_iter().chain(counted.iter().copied()).collect())
        }
    }
}
