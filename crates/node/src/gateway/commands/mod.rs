//! Commands that the gateway answers itself: about the connection, about the gateway, about the
//! command table, and `MULTI` with its kin.
//!
//! Names, arities and documentation stand in the service's table (`svc::kv::table`); here are
//! the subcommands and what they do. Not here: when a command may run ([`super::session`]).

mod client;
mod config;
mod connection;
mod info;
mod table;

use svc::kv::glob;
use svc::kv::reply::Resp;

use super::session::Session;

/// What is to happen after a command wrote its reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// Nothing: it is answered.
    Answered,
    /// The protocol has been agreed, and the reply to HELLO is to be written in it.
    Greet,
    /// The connection closes when everything so far is answered.
    Close,
    /// The transaction is to be executed.
    Exec,
    /// The arguments are keys to be watched.
    Watch,
}

/// A command, or one subcommand, that the gateway answers.
pub(super) struct Local {
    /// The name, in lower case; `parent|sub` for a subcommand.
    pub(super) name: &'static str,
    /// As in the command table, counted from the parent's name.
    arity: i8,
    /// Whether it may not be part of a transaction.
    pub(super) no_multi: bool,
    /// One sentence, without a full stop, for a subcommand; the table has those of commands.
    summary: &'static str,
    /// Does it.
    pub(super) run: fn(&mut Session, &[&[u8]], &mut Resp<'_>) -> Flow,
}

impl Local {
    const fn new(
        name: &'static str,
        arity: i8,
        run: fn(&mut Session, &[&[u8]], &mut Resp<'_>) -> Flow,
    ) -> Local {
        Local { name, arity, no_multi: false, summary: "", run }
    }

    /// The same, with a sentence for `COMMAND DOCS`.
    const fn about(mut self, summary: &'static str) -> Local {
        self.summary = summary;
        self
    }

    /// The same, refused inside `MULTI`: it changes how replies look, and those of a
    /// transaction are made in one go.
    const fn outside_multi(mut self) -> Local {
        self.no_multi = true;
        self
    }

    /// Whether `args` arguments, the name included, are the right number.
    pub(super) fn takes(&self, args: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { args >= wanted } else { args == wanted }
    }

    /// Whether it acts at once inside a transaction instead of being queued.
    pub(super) fn is_immediate(&self) -> bool {
        matches!(self.name, "multi" | "exec" | "discard" | "watch" | "quit" | "reset")
    }
}

/// What answers the gateway's command `name` (lower case) with its first argument `sub`.
/// `None`: a command with subcommands has no such one.
pub(super) fn local(name: &str, sub: Option<&[u8]>) -> Option<&'static Local> {
    let groups = [connection::COMMANDS, client::COMMANDS, config::COMMANDS, info::COMMANDS];
    let all = groups.into_iter().chain([table::COMMANDS]).flatten();
    let mut plain = None;
    for command in all {
        match command.name.split_once('|') {
            None if command.name == name => plain = Some(command),
            Some((parent, child))
                if parent == name
                    && sub.is_some_and(|sub| sub.eq_ignore_ascii_case(child.as_bytes())) =>
            {
                return Some(command);
            }
            _ => {}
        }
    }
    // COMMAND alone is a command, COMMAND FOO is none.
    plain.filter(|command| sub.is_none() || command.name != "command")
}

/// The subcommands of `parent`, in the order of the code.
fn subcommands(parent: &str) -> impl Iterator<Item = &'static Local> {
    let groups = [client::COMMANDS, config::COMMANDS, table::COMMANDS];
    groups
        .into_iter()
        .flatten()
        .filter(move |command| command.name.split_once('|').is_some_and(|(p, _)| p == parent))
}

/// `HELP` of a command with subcommands: their names and what they do.
fn help(parent: &str, reply: &mut Resp<'_>) -> Flow {
    let mut lines = Vec::new();
    for command in subcommands(parent) {
        if let Some((_, sub)) = command.name.split_once('|') {
            lines.push(sub.to_ascii_uppercase());
            lines.push(format!("    {}.", command.summary));
        }
    }
    reply.array(lines.len() + 1);
    reply.simple(&format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        parent.to_ascii_uppercase()
    ));
    for line in lines {
        reply.simple(&line);
    }
    Flow::Answered
}

pub(super) use connection::greet;

/// Whether `text`, in lower case, matches the glob pattern in any case.
fn matches(pattern: &[u8], text: &str) -> bool {
    pattern.len() <= PATTERN_MAX && glob::matches(&pattern.to_ascii_lowercase(), text.as_bytes())
}

/// Longest pattern for names of commands and settings, in bytes: a longer one than any name can
/// only be an attempt to keep the matcher busy, which looks at a pattern once per byte of a name.
const PATTERN_MAX: usize = 32;

/// Whether `arg` is the keyword `word`, in any case.
fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// Writes an error and is done.
fn error(reply: &mut Resp<'_>, text: impl AsRef<[u8]>) -> Flow {
    reply.error(text.as_ref());
    Flow::Answered
}

/// Writes OK and is done.
fn ok(reply: &mut Resp<'_>) -> Flow {
    reply.ok();
    Flow::Answered
}

const SYNTAX: &str = "ERR syntax error";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns_in_any_case() {
        for (pattern, name, expected) in [
            ("*", "save", true),
            ("MAX*", "maxmemory", true),
            ("max*y", "maxmemory-policy", true),
            ("max*y", "maxclients", false),
            ("sav?", "save", true),
            ("S[A-C]ve", "save", true),
            ("", "save", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let stars = "*".repeat(PATTERN_MAX - 1) + "z";
        assert!(!matches(stars.as_bytes(), "maxmemory-policy"));
        let pairs = "*a".repeat(PATTERN_MAX / 2);
        assert!(!matches(pairs.as_bytes(), &"a".repeat(15)));
    }
}
