//! What the table of commands tells about commands and operations: which arguments are keys, what
//! an operation touches, and the table in the documentation.

use super::op::{Op, Step};
use super::table::{self, CommandSpec, Group, Keys, Run, flags};
use super::{db, op, siphash};
use exec::Footprint;

/// The chapters of the documentation, in their order.
const GROUPS: [(Group, &str); 10] = [
    (Group::String, "Strings"),
    (Group::Bitmap, "Bits"),
    (Group::Generic, "Keys"),
    (Group::Hash, "Hashes"),
    (Group::List, "Lists"),
    (Group::Set, "Sets"),
    (Group::SortedSet, "Sorted sets"),
    (Group::Transactions, "Transactions"),
    (Group::Connection, "Connection"),
    (Group::Server, "Server"),
];

impl CommandSpec {
    /// First key, last key and step, as COMMAND tells them; zeroes when there is no such rule.
    #[must_use]
    pub fn key_range(&self) -> (i64, i64, i64) {
        match self.keys {
            Keys::Range(first, last, step) => (first.into(), last.into(), step.into()),
            Keys::Counted { store: true, .. } => (1, 1, 1),
            Keys::None | Keys::Counted { store: false, .. } => (0, 0, 0),
        }
    }

    /// The indices of the keys in `args`, whose number is right for the command.
    #[must_use]
    pub fn key_indices(&self, args: &[&[u8]]) -> Vec<usize> {
        match self.keys {
            Keys::None => vec![],
            Keys::Range(first, last, step) => {
                let last = isize::from(last);
                let last = if last < 0 { args.len() as isize + last } else { last };
                let end = (last + 1).clamp(0, args.len() as isize) as usize;
                (first.unsigned_abs().into()..end).step_by(step.unsigned_abs().into()).collect()
            }
            Keys::Counted { at, store } => {
                let at = usize::from(at);
                let count = args.get(at).and_then(|count| super::call::parse_int(count));
                let left = args.len().saturating_sub(at + 1);
                let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
                let destination = store.then_some(1);
                destination.into_iter().chain(at + 1..at + 1 + count.min(left)).collect()
            }
        }
    }
}

/// Whether a command only reads, and no more than the keys that it names: such a one may be
/// answered without an order. What looks at the whole key space is work that nobody has agreed to
/// do; what chooses at random does so by its place in the order.
#[must_use]
pub fn is_read(args: &[&[u8]]) -> bool {
    let Some(spec) = args.first().and_then(|name| table::lookup(name)) else { return false };
    let of_keys = spec.flags & flags::READONLY != 0 && spec.keys != Keys::None;
    of_keys && spec.takes(args.len()) && !spec.name.contains("rand")
}

/// What an operation touches: its keys' buckets, or everything.
pub(super) fn footprint(bytes: &[u8], out: &mut Footprint) {
    match op::decode(bytes) {
        Ok((_, Op::Command(args))) => command_footprint(args.as_slice(), out),
        Ok((_, Op::Watch(keys))) => out.reads.extend(keys.as_slice().iter().map(|key| class(key))),
        Ok((_, Op::Transaction { watched, steps })) => {
            out.reads.extend(watched.iter().map(|(key, _)| class(key)));
            for step in &steps {
                if let Step::Command(args) = step {
                    command_footprint(args.as_slice(), out);
                }
            }
        }
        // The answer does not depend on the state.
        Err(_) => {}
    }
}

fn command_footprint(args: &[&[u8]], out: &mut Footprint) {
    let Some(spec) = table::lookup(args[0]) else { return };
    if !spec.takes(args.len()) || matches!(spec.run, Run::Gateway) {
        return;
    }
    out.schedules |= schedules(spec, args);
    let classes = spec.key_indices(args).into_iter().map(|index| class(args[index]));
    if spec.keys == Keys::None && spec.name != "time" {
        out.barrier = true;
    } else if spec.flags & flags::WRITE != 0 {
        out.writes.extend(classes);
    } else {
        out.reads.extend(classes);
    }
}

/// Whether a command may set an expiry, or carries one over to another key: while it does, shard by
/// shard, the earliest of all may be in neither.
fn schedules(spec: &CommandSpec, args: &[&[u8]]) -> bool {
    match spec.name {
        "set" => args.len() > 3,
        "setex" | "psetex" | "getex" => true,
        "expire" | "expireat" | "pexpire" | "pexpireat" => true,
        "rename" | "renamenx" | "copy" => true,
        _ => false,
    }
}

/// A key's conflict class is its bucket.
fn class(key: &[u8]) -> u64 {
    siphash::hash(key) >> (64 - db::BUCKETS.trailing_zeros())
}

/// The table of commands for the documentation, in Markdown.
#[must_use]
pub fn markdown_table() -> String {
    let mut text = String::new();
    for (group, title) in GROUPS {
        text.push_str(&format!("### {title}\n\n| command | arguments | does |\n|---|---|---|\n"));
        for spec in table::all().iter().filter(|spec| spec.group == group) {
            let least = spec.arity.unsigned_abs() - 1;
            let arguments =
                if spec.arity < 0 { format!("{least} or more") } else { least.to_string() };
            let place =
                if matches!(spec.run, Run::Gateway) { " (the gateway answers)" } else { "" };
            let name = spec.name.to_uppercase();
            text.push_str(&format!("| {name} | {arguments} | {}{place} |\n", spec.summary));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::reply::Protocol;

    fn spec(name: &str) -> &'static CommandSpec {
        table::lookup(name.as_bytes()).expect("a command")
    }

    #[test]
    fn names_are_found_in_any_case_and_once() {
        for spec in table::all() {
            let upper = spec.name.to_uppercase();
            assert_eq!(table::lookup(upper.as_bytes()).map(|s| s.name), Some(spec.name));
            assert_eq!(spec.name, spec.name.to_lowercase());
            assert_ne!(spec.arity, 0, "{}", spec.name);
            assert!(spec.flags & flags::WRITE == 0 || spec.flags & flags::READONLY == 0);
        }
        assert!(table::all().windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(table::lookup(b"").is_none());
        assert!(table::lookup(b"ge").is_none());
        assert!(table::lookup(&[b'x'; 1000]).is_none());
    }

    #[test]
    fn keys_are_found_among_the_arguments() {
        let indices = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            spec(std::str::from_utf8(args[0]).expect("ASCII")).key_indices(&args)
        };
        assert_eq!(indices("get a"), [1]);
        assert_eq!(indices("mget a b c"), [1, 2, 3]);
        assert_eq!(indices("mset a 1 b 2"), [1, 3]);
        assert_eq!(indices("bitop and d a b"), [2, 3, 4]);
        assert_eq!(indices("dbsize"), [0usize; 0]);
        assert_eq!(indices("zunionstore d 2 a b weights 1 2"), [1, 3, 4]);
        assert_eq!(indices("zunion 99 a b"), [2, 3]);
        assert_eq!(indices("sintercard 1 a limit 1"), [2]);
    }

    #[test]
    fn footprints_name_buckets_or_everything() {
        let of = |line: &str| {
            let args: Vec<&str> = line.split(' ').collect();
            let mut bytes = vec![];
            op::encode_command(Protocol::Resp2, &args, &mut bytes);
            let mut out = Footprint::default();
            footprint(&bytes, &mut out);
            out
        };
        assert_eq!(of("get a").reads, [class(b"a")]);
        assert_eq!(of("set a 1").writes, [class(b"a")]);
        assert!(of("flushall").barrier);
        assert!(of("randomkey").barrier);
        assert_eq!(of("nope a"), Footprint::default());
        assert!(class(b"a") < u64::from(db::BUCKETS));
    }

    /// `docs/redis-commands.md` has the table of the code; `REWRITE=1` writes it.
    #[test]
    fn the_documentation_has_the_table_of_the_code() {
        const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/redis-commands.md");
        const BEGIN: &str = "<!-- generated from the table of commands: begin -->\n\n";
        const END: &str = "<!-- generated from the table of commands: end -->\n";
        let text = std::fs::read_to_string(PATH).expect("the document is there");
        let (before, rest) = text.split_once(BEGIN).expect("the beginning is marked");
        let (table, after) = rest.split_once(END).expect("the end is marked");
        if std::env::var_os("REWRITE").is_some() {
            let new = [before, BEGIN, &markdown_table(), END, after].concat();
            std::fs::write(PATH, new).expect("the document can be written");
        } else {
            assert!(table == markdown_table(), "write it again with REWRITE=1");
        }
    }
}
