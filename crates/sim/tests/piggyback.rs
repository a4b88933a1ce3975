//! COMMITs that wait for company, over whole groups in one thread and in one lane.
//!
//! Seeds scale with `STYLITE_TEST_SCALE`; a seed that fails says how to run it again.

use sim::scenarios::check;

#[test]
fn commits_in_company_keep_nobody_waiting() {
    check("commits_in_company_keep_nobody_waiting");
}

#[test]
fn a_commit_that_waits_does_not_outlive_its_view() {
    check("a_commit_that_waits_does_not_outlive_its_view");
}
