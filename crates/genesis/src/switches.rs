//! The switches: which ways of doing the same thing there are, and which go together.
//!
//! The one table of both. What it is not: what the switches do, nor bounds on numbers (`check`).
//! A switch of the group is part of its settings, and all members have it alike; one of a replica
//! may differ from replica to replica. The first value of each is the default.
//!
//! To add one: a row of [`SWITCHES`], its value in [`crate::Settings::chosen`] or in the replica's
//! options, rows of [`CONFLICTS`] with whatever it does not go with, and the document again
//! (`REWRITE=1 cargo test -p stylite-genesis switches`).

use std::fmt;

/// Who has to choose alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The whole group: it stands in the group's configuration.
    Group,
    /// Each replica for itself, when it is started.
    Replica,
    /// Whoever writes down where a pillar listens: it stands in the address, and may differ from
    /// pillar to pillar.
    Address,
}

/// One switch.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// Its name, as in a flag.
    pub name: &'static str,
    /// Its values; the first is the default.
    pub values: &'static [&'static str],
    /// Who has to choose alike.
    pub scope: Scope,
    /// What it switches.
    pub what: &'static str,
}

/// A switch and one of its values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice(pub &'static str, pub &'static str);

/// Two choices that do not go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// One.
    pub one: Choice,
    /// The other.
    pub other: Choice,
    /// Why not.
    pub why: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// All switches.
pub const SWITCHES: &[Switch] = &[
    Switch {
        name: "agreement",
        values: &["pbft", "none"],
        scope: Scope::Group,
        what: "agree on the order by PBFT, or serve from one server without agreement",
    },
    Switch {
        name: "batching",
        values: &["on", "off"],
        scope: Scope::Group,
        what: "agree on batches of many frames, or on each frame alone (`batching.unbatched` in \
               group.toml; `stylite bench --local --no-batching`)",
    },
    Switch {
        name: "leaders",
        values: &["fixed", "rotating"],
        scope: Scope::Group,
        what: "one replica leads in a view, or all in turn, block by block",
    },
    Switch {
        name: "commits",
        values: &["prompt", "piggybacked"],
        scope: Scope::Group,
        what: "COMMITs leave at once, or with the next proposal or vote if one is to be expected",
    },
    Switch {
        name: "tentative",
        values: &["off", "on"],
        scope: Scope::Group,
        what: "execute and answer what is committed, or what is prepared, and take it back if need \
               be",
    },
    Switch {
        name: "reads",
        values: &["ordered", "unordered"],
        scope: Scope::Group,
        what: "order what only reads, too, or let each replica answer it at once; then every \
               reply of the group has to be that of a quorum",
    },
    Switch {
        name: "bodies",
        values: &["separate", "inline"],
        scope: Scope::Group,
        what: "clients send frames to all replicas, or, signed and small, to the leader alone, \
               whose proposals carry them",
    },
    Switch {
        name: "replies",
        values: &["full", "digest"],
        scope: Scope::Group,
        what: "replicas answer in full, or all but one by the digest of a large answer",
    },
    Switch {
        name: "repliers",
        values: &["all", "relieved"],
        scope: Scope::Group,
        what: "all replicas answer, or a quorum, while the others are relieved in turn",
    },
    Switch {
        name: "idle",
        values: &["fill", "ahead"],
        scope: Scope::Group,
        what: "a pillar that no client wants anything of fills its numbers one by one, or many \
               ahead of its siblings with one message",
    },
    Switch {
        name: "partitions",
        values: &["one", "several"],
        scope: Scope::Group,
        what: "agree on the order of everything, or on that of each part of the service's state by \
               itself (`partitions = P` in group.toml; `--partitions P`)",
    },
    Switch {
        name: "durability",
        values: &["sync", "async", "memory"],
        scope: Scope::Replica,
        what: "what is on disk before a promise leaves: everything, soon everything, nothing",
    },
    Switch {
        name: "parallelization",
        values: &["cop", "top"],
        scope: Scope::Replica,
        what: "threads by instances (pillars), or by tasks: a pipeline, for one pillar only",
    },
    Switch {
        name: "transport",
        values: &["tcp", "unix", "shm"],
        scope: Scope::Address,
        what: "what carries packets: TCP; on one host also UNIX sockets or shared memory",
    },
];

/// All pairs that do not go together; every other combination is legal.
pub const CONFLICTS: &[Conflict] = &[
    Conflict {
        one: Choice("transport", "shm"),
        other: Choice("parallelization", "top"),
        why: "two threads of a pipeline share a client's connection, and memory has one owner",
        remedy: "use unix",
    },
    Conflict {
        one: Choice("agreement", "none"),
        other: Choice("leaders", "rotating"),
        why: "a server without agreement has nobody to take turns with",
        remedy: "leave leaders fixed",
    },
    Conflict {
        one: Choice("agreement", "none"),
        other: Choice("commits", "piggybacked"),
        why: "a server without agreement sends no COMMITs",
        remedy: "leave commits prompt",
    },
    Conflict {
        one: Choice("agreement", "none"),
        other: Choice("tentative", "on"),
        why: "without agreement everything is committed at once",
        remedy: "leave tentative off",
    },
    Conflict {
        one: Choice("agreement", "none"),
        other: Choice("reads", "unordered"),
        why: "a server without agreement has no order to spare",
        remedy: "leave reads ordered",
    },
    Conflict {
        one: Choice("agreement", "none"),
        other: Choice("bodies", "inline"),
        why: "a server without agreement proposes nothing to anybody",
        remedy: "leave bodies separate",
    },
    Conflict {
        one: Choice("leaders", "rotating"),
        other: Choice("bodies", "inline"),
        why: "a client does not know whose turn it is to propose its frames",
        remedy: "leave leaders fixed",
    },
    Conflict {
        one: Choice("agreement", "none"),
        other: Choice("replies", "digest"),
        why: "one server has nobody to answer in full in its place",
        remedy: "leave replies full",
    },
    Conflict {
        one: Choice("agreement", "none"),
        other: Choice("repliers", "relieved"),
        why: "one server has nobody to answer in its place",
        remedy: "leave repliers all",
    },
    Conflict {
        one: Choice("agreement", "none"),
        other: Choice("idle", "ahead"),
        why: "a server without agreement fills numbers without asking anybody",
        remedy: "leave idle fill",
    },
    Conflict {
        one: Choice("leaders", "rotating"),
        other: Choice("idle", "ahead"),
        why: "a number that one leader proposes obliges all the others to propose theirs below it",
        remedy: "leave leaders fixed",
    },
    Conflict {
        one: Choice("partitions", "several"),
        other: Choice("agreement", "none"),
        why: "a server that nobody replicates is what one order of everything is compared with",
        remedy: "leave partitions one",
    },
    Conflict {
        one: Choice("partitions", "several"),
        other: Choice("parallelization", "top"),
        why: "each partition would need a pipeline of its own, of six threads or more",
        remedy: "leave parallelization cop",
    },
    Conflict {
        one: Choice("agreement", "none"),
        other: Choice("durability", "sync"),
        why: "a server without agreement keeps no log",
        remedy: "start it with --durability memory",
    },
    Conflict {
        one: Choice("agreement", "none"),
        other: Choice("durability", "async"),
        why: "a server without agreement keeps no log",
        remedy: "start it with --durability memory",
    },
];

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflict { one, other, why, remedy } = self;
        write!(f, "{one} does not go with {other}: {why}; {remedy}")
    }
}

/// Whether these choices go together; what is not among them counts as not chosen yet.
///
/// # Errors
/// The first two that do not.
pub fn check(chosen: &[Choice]) -> Result<(), &'static Conflict> {
    let has = |choice| chosen.contains(choice);
    match CONFLICTS.iter().find(|pair| has(&pair.one) && has(&pair.other)) {
        Some(conflict) => Err(conflict),
        None => Ok(()),
    }
}

/// The default of a switch.
#[must_use]
pub fn default_of(name: &str) -> Option<&'static str> {
    SWITCHES.iter().find(|switch| switch.name == name).map(|switch| switch.values[0])
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn the_table_names_what_there_is() {
        let there = |choice: &Choice| {
            let switch = SWITCHES.iter().find(|switch| switch.name == choice.0);
            switch.is_some_and(|switch| switch.values.contains(&choice.1))
        };
        for pair in CONFLICTS {
            assert!(there(&pair.one) && there(&pair.other), "{pair}");
            assert!(pair.one.0 != pair.other.0, "{pair}");
        }
        for switch in SWITCHES {
            assert!(switch.values.len() > 1, "{}", switch.name);
            let same = SWITCHES.iter().filter(|other| other.name == switch.name);
            assert_eq!(same.count(), 1, "{}", switch.name);
        }
    }

    #[test]
    fn transports_are_those_of_addresses() {
        let words: Vec<&str> = crate::Transport::ALL.iter().map(|one| one.word()).collect();
        let switch = SWITCHES.iter().find(|switch| switch.name == "transport").expect("there");
        assert_eq!(switch.values, words);
    }

    #[test]
    fn a_conflict_is_named_with_its_remedy_and_the_defaults_have_none() {
        let defaults: Vec<Choice> =
            SWITCHES.iter().map(|switch| Choice(switch.name, switch.values[0])).collect();
        assert_eq!(check(&defaults), Ok(()));
        let chosen = [Choice("durability", "async"), Choice("agreement", "none")];
        let told = check(&chosen).expect_err("they do not go together").to_string();
        for word in ["agreement none", "durability async", "--durability memory"] {
            assert!(told.contains(word), "{told}");
        }
        assert_eq!(check(&chosen[1..]), Ok(()));
    }

    #[test]
    fn settings_choose_values_that_the_table_has() {
        for Choice(name, value) in crate::Settings::default().chosen() {
            assert_eq!(default_of(name), Some(value), "{name}");
        }
        let group = SWITCHES.iter().filter(|switch| switch.scope == Scope::Group).count();
        assert_eq!(crate::Settings::default().chosen().len(), group);
    }

    fn markdown() -> String {
        let mut out =
            String::from("| switch | values | chosen by | what it does |\n|---|---|---|---|\n");
        for Switch { name, values, scope, what } in SWITCHES {
            let by = match scope {
                Scope::Group => "the group",
                Scope::Replica => "each replica",
                Scope::Address => "each address",
            };
            writeln!(out, "| {name} | {} | {by} | {what} |", values.join(", ")).expect("a string");
        }
        out.push_str("\n| this | does not go with | why | instead |\n|---|---|---|---|\n");
        for Conflict { one, other, why, remedy } in CONFLICTS {
            writeln!(out, "| {one} | {other} | {why} | {remedy} |").expect("a string");
        }
        out.push('\n');
        out
    }

    /// `docs/switches.md` has the table of the code; `REWRITE=1` writes it.
    #[test]
    fn the_documentation_has_the_table_of_the_code() {
        const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/switches.md");
        const BEGIN: &str = "<!-- generated from the table of switches: begin -->\n\n";
        const END: &str = "<!-- generated from the table of switches: end -->\n";
        let text = std::fs::read_to_string(PATH).expect("the document is there");
        let (before, rest) = text.split_once(BEGIN).expect("the beginning is marked");
        let (table, after) = rest.split_once(END).expect("the end is marked");
        if std::env::var_os("REWRITE").is_some() {
            let new = [before, BEGIN, &markdown(), END, after].concat();
            std::fs::write(PATH, new).expect("the document can be written");
        } else {
            assert!(table == markdown(), "write it again with REWRITE=1");
        }
    }
}
