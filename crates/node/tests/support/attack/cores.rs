//! Who runs where: replicas, honest clients and attackers have cores of their own, as if they
//! were on machines of their own. So an attack costs the group what the replicas do about it, and
//! not the attacker's own arithmetic.
//!
//! With fewer than four cores everybody runs everywhere, and shares mean less.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Who.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The replicas: half of the cores.
    Replicas,
    /// The honest clients: a quarter.
    Honest,
    /// The attackers: a quarter.
    Attackers,
    /// Everywhere.
    All,
}

/// Confines this thread, and what it starts from now on, to the cores of `part`.
pub fn confine(part: Part) {
    let set = set(part);
    sched_setaffinity(None, &set).expect("cores that this process may use");
}

/// Runs `work` on the cores of `part`.
pub fn on<T>(part: Part, work: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).expect("the cores of this thread");
    confine(part);
    let done = work();
    sched_setaffinity(None, &before).expect("the cores that it had");
    done
}

/// How many cores `part` has.
pub fn count(part: Part) -> u32 {
    set(part).count()
}

fn set(part: Part) -> CpuSet {
    static ALL: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    let all = ALL.get_or_init(|| {
        // Of the process, whatever this thread is confined to.
        let own = Some(rustix::process::getpid());
        let set = sched_getaffinity(own).expect("the cores of this process");
        (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
    });
    let (half, quarter) = (all.len() / 2, all.len() / 4);
    let cpus = match part {
        _ if quarter == 0 => &all[..],
        Part::All => &all[..],
        Part::Replicas => &all[..half],
        Part::Honest => &all[half..all.len() - quarter],
        Part::Attackers => &all[all.len() - quarter..],
    };
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    set
}
