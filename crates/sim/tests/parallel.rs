//! Parallel execution by itself, under many schedules.

use sim::scenarios::check;

#[test]
fn a_log_gives_the_same_with_any_workers_and_schedule() {
    check("a_log_gives_the_same_with_any_workers_and_schedule");
}
