//! Which cores this process may use, and tying a thread to one of them.
//!
//! Not here: how many threads there are. Depends on `rustix` alone.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may run on, in ascending order. At least one is reported.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return vec![0] };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// Ties the calling thread to `cpu`. False when the system refuses: pinning is an improvement,
/// not a condition.
pub(crate) fn pin_to(cpu: usize) -> bool {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return false;
    }
    set.set(cpu);
    sched_setaffinity(None, &set).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_where_it_is_pinned() {
        let cpus = allowed_cpus();
        let last = *cpus.last().expect("at least one");
        let seen = std::thread::spawn(move || {
            assert!(pin_to(last));
            allowed_cpus()
        });
        assert_eq!(seen.join().expect("no panic"), [last]);
        assert_eq!(allowed_cpus(), cpus, "other threads keep their cores");
        assert!(!pin_to(usize::MAX));
    }
}
