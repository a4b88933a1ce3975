//! Who runs where: replicas, honest clients and attackers have cores of their own, as if they
//! were on machines of their own. So an attack costs the group what the replicas do about it, and
//! not the attacker's own arithmetic.
//!
//! With fewer than four cores everybody runs everywhere, and shares mean less. A run may be asked
//! for another layout ([`Layout`]), by `STYLITE_ATTACK_CORES`.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which cores a replica has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Those of all replicas.
    Parts,
    /// As [`Layout::Parts`], but those that misbehave are where attackers are: `aside`.
    Aside,
    /// One of its own, as far as there are enough, and honest clients run on all: `each`.
    Each,
}

/// The layout of this run.
///
/// # Panics
/// When it is asked for one that there is not.
pub fn layout() -> Layout {
    match std::env::var("STYLITE_ATTACK_CORES").as_deref() {
        Err(_) => Layout::Parts,
        Ok("aside") => Layout::Aside,
        Ok("each") => Layout::Each,
        Ok(other) => panic!("STYLITE_ATTACK_CORES={other}: it is aside or each, or not set"),
    }
}

/// Who.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The replicas: half of the cores.
    Replicas,
    /// The honest clients: a quarter.
    Honest,
    /// The attackers: a quarter.
    Attackers,
    /// One replica, which misbehaves or not.
    Replica(u16, bool),
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
        Part::Replica(id, _) if layout() == Layout::Each => {
            let at = usize::from(id) % all.len();
            &all[at..=at]
        }
        Part::Replicas | Part::Honest if layout() == Layout::Each => &all[..],
        Part::Replica(_, true) if layout() == Layout::Aside => &all[all.len() - quarter..],
        Part::Replicas | Part::Replica(..) => &all[..half],
        Part::Honest => &all[half..all.len() - quarter],
        Part::Attackers => &all[all.len() - quarter..],
    };
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    set
}
