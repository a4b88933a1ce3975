//! Sets of processors: reading them from the command line, sharing them out, and running
//! something on them.
//!
//! A thread's set goes to the threads and processes that it starts: so a process is tied to a
//! set by starting it from a thread that is. Depends on `rustix` alone.

use std::fmt;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A set of processors, ascending and not empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cpus(Vec<usize>);

/// Which replica runs where: the last set is that of all further replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaCpus(Vec<Cpus>);

impl Cpus {
    /// The processors that the calling thread may use.
    #[must_use]
    pub fn allowed() -> Cpus {
        let Ok(set) = sched_getaffinity(None) else { return Cpus(vec![0]) };
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        if all.is_empty() { Cpus(vec![0]) } else { Cpus(all) }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether this processor is one of them.
    #[must_use]
    pub fn has(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    /// Its first processor and its last one: the same one where there is no other.
    #[must_use]
    pub fn two(&self) -> [Cpus; 2] {
        let one = |cpu: Option<&usize>| Cpus(vec![*cpu.expect("sets are not empty")]);
        [one(self.0.first()), one(self.0.last())]
    }

    /// Ties the calling thread, and what it starts from now on, to this set.
    ///
    /// # Errors
    /// When the system refuses: none of them is there, or allowed.
    pub fn enter(&self) -> std::io::Result<()> {
        let mut set = CpuSet::new();
        self.0.iter().for_each(|cpu| set.set(*cpu));
        Ok(sched_setaffinity(None, &set)?)
    }

    /// Runs `what` tied to this set, and goes back to what held before.
    ///
    /// # Errors
    /// When the system refuses, or `what` fails.
    pub fn within<T>(&self, what: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let before = Cpus::allowed();
        let refused = |error| anyhow::anyhow!("cannot use the processors {self}: {error}");
        self.enter().map_err(refused)?;
        let result = what();
        before.enter().map_err(refused)?;
        result
    }
}

impl ReplicaCpus {
    /// Where a replica runs.
    #[must_use]
    pub fn of(&self, replica: usize) -> &Cpus {
        self.0.get(replica).or(self.0.last()).expect("there is one at least")
    }
}

/// Shares `allowed` out: `share` processors for each of `replicas`, a fraction when several are
/// to share one, and what is left for the clients; all, when nothing is left.
///
/// # Errors
/// When there are not as many.
pub fn share_out(
    allowed: &Cpus,
    replicas: usize,
    share: f64,
) -> Result<(ReplicaCpus, Cpus), String> {
    let all = &allowed.0;
    let wanted = (replicas as f64 * share).ceil() as usize;
    if wanted > all.len() {
        return Err(format!(
            "{share} cores for each of {replicas} replicas are {wanted}; there are {}",
            all.len()
        ));
    }
    let each = (share.floor() as usize).max(1);
    let first = |replica: usize| (replica as f64 * share).floor() as usize;
    let sets = (0..replicas).map(|replica| Cpus(all[first(replica)..][..each].to_vec()));
    let rest = &all[wanted..];
    let rest = if rest.is_empty() { all } else { rest };
    Ok((ReplicaCpus(sets.collect()), Cpus(rest.to_vec())))
}

/// Reads a set of processors, such as `0-2,5`.
///
/// # Errors
/// When it is none.
pub fn cpus(text: &str) -> Result<Cpus, String> {
    let bad = || format!("`{text}` is no set of processors: give numbers and ranges, as in 0-2,5");
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| bad());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= CpuSet::MAX_CPU {
            return Err(bad());
        }
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Ok(Cpus(all))
}

/// Reads one set for all replicas, or one for each, separated by semicolons.
///
/// # Errors
/// When one is none.
pub fn replica_cpus(text: &str) -> Result<ReplicaCpus, String> {
    text.split(';').map(cpus).collect::<Result<_, _>>().map(ReplicaCpus)
}

/// Reads how many processors each replica gets: a whole number, or 1 divided by one.
///
/// # Errors
/// When it is neither.
pub fn core_share(text: &str) -> Result<f64, String> {
    let bad = || format!("`{text}`: give 1, 2, 3, ... or 0.5, 0.25, ...: one divided by a number");
    let share: f64 = text.parse().map_err(|_| bad())?;
    let whole = |number: f64| (number - number.round()).abs() < 1e-9;
    let fits = (1.0..=1024.0).contains(&share) && whole(share)
        || (1.0 / 1024.0..1.0).contains(&share) && whole(1.0 / share);
    if fits { Ok(share) } else { Err(bad()) }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut comma = "";
        while let [first, ..] = rest {
            let run = rest.iter().zip(*first..).take_while(|(cpu, expected)| *cpu == expected);
            let run = run.count();
            match run {
                1 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{}", rest[run - 1])?,
            }
            (rest, comma) = (&rest[run..], ",");
        }
        Ok(())
    }
}

impl fmt::Display for ReplicaCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets: Vec<String> = self.0.iter().map(Cpus::to_string).collect();
        f.write_str(&sets.join(";"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_shown() {
        for (text, shown) in [("0", "0"), ("2,0-1", "0-2"), ("5,1-2,2", "1-2,5")] {
            assert_eq!(cpus(text).expect("a set").to_string(), shown);
        }
        for bad in ["", "a", "3-1", "1,", "1-", "99999"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        let replicas = replica_cpus("0;1-2").expect("sets");
        assert_eq!(replicas.to_string(), "0;1-2");
        assert_eq!(replicas.of(0).to_string(), "0");
        assert_eq!(replicas.of(3).to_string(), "1-2", "the last one is everybody else's");
        assert!(replica_cpus("0;").is_err());
    }

    #[test]
    fn cores_are_shared_out() {
        let four = cpus("0-3").expect("a set");
        let shared = |replicas, share| {
            let (replicas, clients) = share_out(&four, replicas, share)?;
            Ok::<_, String>(format!("{replicas} | {clients}"))
        };
        assert_eq!(shared(4, 0.25), Ok("0;0;0;0 | 1-3".to_owned()));
        assert_eq!(shared(4, 0.5), Ok("0;0;1;1 | 2-3".to_owned()));
        assert_eq!(shared(4, 1.0), Ok("0;1;2;3 | 0-3".to_owned()));
        assert_eq!(shared(1, 2.0), Ok("0-1 | 2-3".to_owned()));
        assert!(shared(4, 2.0).is_err());
        assert!(core_share("0.5").is_ok() && core_share("2").is_ok());
        for bad in ["0", "0.75", "1.5", "-1", "x", "nan", "inf"] {
            assert!(core_share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_runs_within_a_set_is_tied_to_it() {
        let before = Cpus::allowed();
        let one = Cpus(vec![before.0[before.count() - 1]]);
        let inner = one.within(|| {
            let child = std::thread::spawn(Cpus::allowed);
            Ok(child.join().expect("no panic"))
        });
        assert_eq!(inner.expect("allowed"), one);
        assert_eq!(Cpus::allowed(), before);
    }
}
