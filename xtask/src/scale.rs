//! What `cargo xtask test` runs with smaller parameters than `cargo xtask soak`, and why.
//!
//! A test that has two sizes reads `STYLITE_TEST_SCALE` (`full`; anything else and nothing at
//! all mean `ci`). The table says so in one place, for the reader of a test run; `tidy` compares
//! it with the sources, so that no test is scaled in silence.

use crate::report::Report;
use crate::source::words;
use crate::tree::RustFile;

mod sim;
mod ways;

/// The variable that tests read.
pub const VARIABLE: &str = "STYLITE_TEST_SCALE";

/// A parameter with two values.
struct Scaled {
    /// The file of the test.
    file: &'static str,
    /// The test, or the helper, that has the parameter.
    test: &'static str,
    /// The scaled-down value, as the source writes it.
    ci: &'static str,
    /// The full value, as the source writes it.
    full: &'static str,
    /// What the values count.
    unit: &'static str,
    reason: &'static str,
}

/// Rows in the order of the files.
const TABLE: &[Scaled] = &[
    Scaled {
        file: "crates/fuzz/tests/targets.rs",
        test: "stands",
        ci: "1",
        full: "100",
        unit: "times the short runs of each target",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/support/attack/arena.rs",
        test: "seconds",
        ci: "2",
        full: "14",
        unit: "s of phases per attack",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_bounds.rs",
        test: "memory_and_disk_stay_bounded_through_faults",
        ci: "6",
        full: "1_800",
        unit: "s of faults",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_drills.rs",
        test: "two_misbehave_at_once",
        ci: "2",
        full: "55",
        unit: "pairs of drills",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_power.rs",
        test: "cuts",
        ci: "3",
        full: "50",
        unit: "outages of everybody per durability",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_processes.rs",
        test: "the_leader_is_killed_and_comes_back",
        ci: "2",
        full: "20",
        unit: "leaders killed",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_processes.rs",
        test: "each_replica_is_killed_and_restarted_in_turn",
        ci: "1",
        full: "3",
        unit: "rounds",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_processes.rs",
        test: "each_replica_forgets_everything_in_turn",
        ci: "1",
        full: "3",
        unit: "rounds",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_processes.rs",
        test: "a_stopped_leader_wakes_up_again",
        ci: "3",
        full: "10",
        unit: "s stopped",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_processes.rs",
        test: "a_replica_whose_disk_rots_repairs_itself_or_recovers",
        ci: "1",
        full: "10",
        unit: "rounds",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_sessions.rs",
        test: "sessions_and_watches_hold_through_faults",
        ci: "1",
        full: "20",
        unit: "rounds of all faults",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_state.rs",
        test: "an_emptied_replica_gets_a_large_state_back_under_full_load",
        ci: "30_720",
        full: "1_048_576",
        unit: "values of 1 KiB",
        reason: "memory and time",
    },
    Scaled {
        file: "crates/node/tests/chaos_state.rs",
        test: "an_emptied_replica_of_seven_gets_it_back_although_one_source_lies",
        ci: "10_240",
        full: "1_048_576",
        unit: "values of 1 KiB",
        reason: "memory and time",
    },
    Scaled {
        file: "crates/node/tests/chaos_views.rs",
        test: "views_change_one_after_another_under_load",
        ci: "8",
        full: "1_000",
        unit: "view changes",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_views.rs",
        test: "leaders_fail_in_a_row",
        ci: "1",
        full: "20",
        unit: "rounds",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_views.rs",
        test: "partitions_of_every_kind_heal",
        ci: "1",
        full: "20",
        unit: "rounds of all kinds",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_views.rs",
        test: "partitions_of_seven_heal",
        ci: "1",
        full: "20",
        unit: "rounds, and three of the kinds",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_views.rs",
        test: "a_flapping_network_settles",
        ci: "60",
        full: "2_000",
        unit: "changes of a link",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/chaos_views.rs",
        test: "one_slow_pillar_delays_and_divides_nobody",
        ci: "2",
        full: "20",
        unit: "view changes",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/group_hostile.rs",
        test: "a_thousand_silent_connections_keep_nobody_out",
        ci: "1_000",
        full: "4_000",
        unit: "connections",
        reason: "open files",
    },
    Scaled {
        file: "crates/node/tests/group_states.rs",
        test: "ends_with_one_state",
        ci: "400",
        full: "5_000",
        unit: "ms of load per group",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/redis_differential.rs",
        test: "random_commands_get_the_replies_of_redis",
        ci: "120_000",
        full: "240_000",
        unit: "commands",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/redis_differential.rs",
        test: "random_commands_get_the_replies_of_redis_from_a_replicated_group",
        ci: "100_000",
        full: "200_000",
        unit: "commands",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/soak_memory.rs",
        test: "memory_stays_flat",
        ci: "12",
        full: "1_800",
        unit: "s of full load per service",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/soak_redis.rs",
        test: "redis_benchmark_does_not_notice_that_a_backup_is_killed",
        ci: "20_000",
        full: "100_000",
        unit: "requests per command",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/soak_state.rs",
        test: "checkpoints_of_a_large_state_cost_what_has_changed",
        ci: "65_536",
        full: "1_048_576",
        unit: "values of 1 KiB",
        reason: "memory and time",
    },
    Scaled {
        file: "crates/node/tests/zookeeper_clients.rs",
        test: "recipes_work_while_replicas_are_killed",
        ci: "22",
        full: "330",
        unit: "s of recipes",
        reason: "time",
    },
    Scaled {
        file: "crates/node/tests/zookeeper_clients.rs",
        test: "random_operations_get_the_answers_of_zookeeper",
        ci: "3_000",
        full: "24_000",
        unit: "random operations",
        reason: "time",
    },
    Scaled {
        file: "crates/svc/tests/coordination.rs",
        test: "any_schedule_gives_the_replies_and_digests_of_one_after_the_other",
        ci: "24",
        full: "1_000",
        unit: "schedules for each of 1, 2, 4 and 8 workers",
        reason: "time",
    },
    Scaled {
        file: "crates/svc/tests/parallel.rs",
        test: "any_schedule_gives_the_replies_and_digests_of_one_after_the_other",
        ci: "16",
        full: "1_000",
        unit: "schedules for each of 1, 2, 4 and 8 workers",
        reason: "time",
    },
];

/// All rows.
fn rows() -> impl Iterator<Item = &'static Scaled> {
    TABLE.iter().chain(sim::TABLE).chain(ways::TABLE)
}

/// Prints the table for a run at `scale`.
pub fn print(scale: &str) {
    println!("{VARIABLE}={scale}");
    if scale == "full" {
        println!("nothing is scaled down");
        return;
    }
    for row in rows() {
        let Scaled { test, ci, full, unit, reason, .. } = row;
        println!("scaled: {test}: {ci} {unit} instead of {full} ({reason})");
    }
}

/// Every row names a test that exists, and every test that reads the scale has a row.
pub fn check(files: &[RustFile], report: &mut Report) {
    check_rows(&rows().collect::<Vec<_>>(), files, report);
}

fn check_rows(table: &[&Scaled], files: &[RustFile], report: &mut Report) {
    for row in table {
        let code = files.iter().find(|file| file.path == row.file).map(|file| &file.source.code);
        for part in [row.test, row.ci, row.full] {
            if code.is_none_or(|code| words(code, part).is_empty()) {
                let what = format!("xtask/src/scale.rs lists {}: {part} is not there", row.test);
                report.about(row.file, what);
            }
        }
    }
    // Tests of one crate may share the helper that reads the variable.
    let crate_of = |path: &str| path.split('/').take(2).collect::<Vec<_>>().join("/");
    let quoted = format!("\"{VARIABLE}\"");
    for file in files.iter().filter(|file| !file.path.starts_with("xtask/")) {
        let reads = file.source.text.contains(&quoted);
        if reads && !table.iter().any(|row| crate_of(row.file) == crate_of(&file.path)) {
            let what = format!("reads {VARIABLE}, and xtask/src/scale.rs has no row of its crate");
            report.about(&file.path, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{File, rust_files};

    #[test]
    fn table_and_tests_agree() {
        let row = Scaled {
            file: "crates/a/tests/a.rs",
            test: "long_test",
            ci: "1",
            full: "2_000",
            unit: "rounds",
            reason: "time",
        };
        let findings = |path: &str, text: &str, table: &[&Scaled]| {
            let files = [File { path: path.into(), text: text.into() }];
            let mut report = Report::default();
            check_rows(table, &rust_files(&files), &mut report);
            report.findings.len()
        };
        let reads = "fn long_test() { scale(1, 2_000, var(\"STYLITE_TEST_SCALE\")) }";
        assert_eq!(findings("crates/a/tests/a.rs", reads, &[&row]), 0);
        assert_eq!(findings("crates/a/tests/a.rs", reads, &[]), 1, "not listed");
        let changed = reads.replace("2_000", "3_000");
        assert_eq!(findings("crates/a/tests/a.rs", &changed, &[&row]), 1, "another value");
        assert_eq!(findings("crates/b/tests/a.rs", reads, &[&row]), 4, "gone, and not listed");
    }
}
