//! The deliberate bugs that the simulator is tested with are not in the server.

use std::fs;

/// The names of all deliberate bugs.
fn names() -> Vec<String> {
    let table = include_str!("../../base/src/mutants.rs");
    let names = table.lines().filter_map(|line| {
        let (name, rest) = line.trim_start().split_once(": \"")?;
        (rest.ends_with("\";") && name.chars().all(char::is_alphanumeric)).then_some(name)
    });
    names.map(str::to_owned).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A binary in which a bug can be chosen has the table with all names: a few stand for all.
#[test]
fn the_server_has_none_of_the_deliberate_bugs() {
    let binary = fs::read(env!("CARGO_BIN_EXE_stylite")).expect("it was built");
    assert!(holds(&binary, "stylite"), "this is how it would be found");
    let names = names();
    assert!(names.len() >= 60, "{} names", names.len());
    for name in ["PrepareQuorumShort", "VotesBeforeDurable", "ForgetfulVotes", "A1Missing"] {
        assert!(names.iter().any(|known| known == name), "{name} is in the table");
        assert!(!holds(&binary, name), "{name} is in the server");
    }
}
