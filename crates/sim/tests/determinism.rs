//! The same seed gives the same trace, to the last byte of the last message.

use std::process::Command;

use sim::scenarios::{all, find};
use sim::{outcome, runner};

/// Scenarios of single cores: there is no world to have a trace.
const WORLDLESS: [&str; 17] = [
    "views_are_left_and_found_by_the_rules",
    "no_lie_moves_a_lane",
    "a_lane_remembers_its_latest_promises",
    "client_tables_are_the_same_whatever_a_process_has_seen",
    "choices_of_new_views_lose_nothing",
    "no_forged_view_begins",
    "no_single_word_is_taken",
    "who_forgot_waits_for_a_quorum_that_did_not",
    "a_log_gives_the_same_with_any_workers_and_schedule",
    "a_fetch_waits_for_the_workers",
    "nobody_is_excluded_on_the_word_of_few",
    "a_commit_that_waits_does_not_outlive_its_view",
    "few_tentative_replies_convince_nobody",
    "nobody_takes_anothers_word_for_a_signature",
    "a_run_says_what_it_is_short_for",
    "a_client_believes_no_read_that_is_too_old",
    "reads_see_what_is_committed_and_whole",
];

#[test]
fn the_same_seed_gives_the_same_trace() {
    for scenario in all() {
        let trace = |seed| {
            let outcome = runner::run(scenario, seed).expect("it holds");
            let world = outcome.events > 0;
            assert!(world != WORLDLESS.contains(&scenario.name), "{}: a world?", scenario.name);
            outcome.trace
        };
        let first = trace(3);
        assert_eq!(first, trace(3), "{}", scenario.name);
    }
}

/// A scenario that no test names runs with one seed only, above.
#[test]
fn each_scenario_has_a_test() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    let files = std::fs::read_dir(folder).expect("it is there").map(|file| file.expect("a file"));
    let tests: String = files
        .filter(|file| file.file_name() != "determinism.rs")
        .map(|file| std::fs::read_to_string(file.path()).expect("it is text"))
        .collect();
    let has_none = |name: &&str| {
        !tests.contains(&format!("\"{name}\"")) && !tests.contains(&format!("({name})"))
    };
    let without: Vec<_> = all().map(|scenario| scenario.name).filter(has_none).collect();
    assert_eq!(without, [""; 0]);
}

#[test]
fn seeds_differ() {
    let swarm = find("swarm").expect("it is there");
    let traces: Vec<u64> =
        (0..5).map(|seed| runner::run(swarm, seed).expect("it holds").trace).collect();
    let distinct: std::collections::BTreeSet<_> = traces.iter().collect();
    assert_eq!(distinct.len(), traces.len());
}

/// Another process has other addresses, and other random states of whatever the standard library
/// randomises.
#[test]
fn another_process_sees_the_same() {
    let swarm = find("swarm").expect("it is there");
    for seed in [5, 6, 11] {
        let outcome = runner::run(swarm, seed).expect("it holds");
        let output = Command::new(env!("CARGO_BIN_EXE_stylite-sim"))
            .args(["--seed", &seed.to_string(), "--quiet"])
            .output()
            .expect("the program starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let expected = format!("{} events, trace {:016x}", outcome.events, outcome.trace);
        assert!(output.status.success() && text.contains(&expected), "{expected}: {text}");
    }
}

/// A story is for people; it changes nothing.
#[test]
fn a_story_changes_nothing() {
    let swarm = find("swarm").expect("it is there");
    let silent = runner::run(swarm, 7).expect("it holds");
    outcome::tell_stories(true);
    let told = runner::run(swarm, 7).expect("it holds");
    assert!(silent.story.is_empty() && !told.story.is_empty());
    assert_eq!(silent.trace, told.trace);
}
