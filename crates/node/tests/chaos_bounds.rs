//! Memory and disk stay bounded while replicas are killed, restarted and stopped under load: what
//! a group takes does not depend on how long it has run.

#[path = "support/chaos/mod.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;

use std::time::{Duration, Instant};

use chaos::{Dice, Lab, Load, Plan, Setup, steady};
use cluster::full;
use serde_json::json;

/// What memory may grow by between two thirds of the time, in KiB: a tenth, and this.
const MEMORY_SLACK_KIB: u64 = 64 << 10;
/// Two checkpoints of this small state, a log that is cut after 64 MiB, and a segment or two.
const DISK_BYTES_MAX: u64 = 256 << 20;

#[test]
fn memory_and_disk_stay_bounded_through_faults() {
    let seconds: u64 = if full() { 1_800 } else { 6 };
    let mut lab = Lab::start(Setup::default());
    let gateways = [lab.gateway(0), lab.gateway(1)];
    let pace = Duration::from_millis(if full() { 1 } else { 2 });
    let mut load = Load::start(&Plan { pace, ..steady(&[&gateways[0], &gateways[1]]) });
    let (mut dice, began) = (Dice::new(6), Instant::now());
    let all: Vec<u16> = lab.ids().collect();
    let (mut memory, mut disk): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        let id = u16::try_from(dice.below(4)).expect("below four");
        if dice.below(2) == 0 {
            load.event("kill -9 and restart");
            lab.kill(id);
            load.flows(200);
            lab.start_one(id);
        } else {
            load.event("SIGSTOP and SIGCONT");
            lab.suspend(id);
            load.flows(200);
            lab.resume(id);
        }
        lab.until_one_state(&all, &gateways[0]);
        load.flows(100);
        memory.extend(lab.pids().into_iter().filter_map(soak::rss_kib).max());
        disk.extend(lab.ids().map(|id| lab.disk_bytes(id)).max());
    }
    let outcome = load.stop();
    soak::write_down(
        "bounds",
        &json!({
            "seconds": seconds, "clients": outcome.figures(),
            "highest_rss_kib": memory, "largest_disk_bytes": disk,
        }),
    );
    outcome.without_errors().verify(gateways[1].port);
    let highest = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    assert!(highest(&disk) <= DISK_BYTES_MAX, "{disk:?}");
    // A handful of rounds says nothing about growth.
    if memory.len() >= 9 {
        let third = memory.len() / 3;
        let (second, last) = (highest(&memory[third..2 * third]), highest(&memory[2 * third..]));
        assert!(last <= second + second / 10 + MEMORY_SLACK_KIB, "memory grows: {memory:?}");
    }
}
