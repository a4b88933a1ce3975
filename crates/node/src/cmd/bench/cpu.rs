//! Processor time of processes and of their threads, as the operating system accounts for it.
//!
//! Totals are those of whole processes, in ticks of 10 ms. Those of threads are finer, but miss
//! what threads used that have ended meanwhile.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::cpus::Cpus;

/// Clock ticks per second in `/proc`. The kernel's interface fixes it for every architecture
/// that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A process whose use is accounted for.
#[derive(Clone, Debug)]
pub struct Process {
    /// What it is to the run: `replica 0`, `clients`.
    pub role: String,
    /// Its number.
    pub pid: u32,
}

/// What processes have used so far, and the processors altogether.
#[derive(Clone, Debug)]
pub struct Used {
    each: Vec<(Process, u64, BTreeMap<u32, Thread>)>,
    machine: Ticks,
}

/// Time of the processors that the run may use so far, in ticks.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Ticks {
    all: u64,
    /// In which programs ran, whichever.
    programs: u64,
    /// In which there was work, but the host of this virtual machine ran something else.
    stolen: u64,
}

/// Who else had the processors that a run may use while it was measured: shares of all their time,
/// from 0 to 1.
/// Only beside small ones are operations per second a figure of the program's own.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Disturbance {
    /// The host of this virtual machine.
    pub host: f64,
    /// Programs that are not of the run. Nobody knows where its replicas are not its own
    /// processes: they may be on this machine.
    pub others: Option<f64>,
}

impl Disturbance {
    /// Both together, 0 to 1.
    #[must_use]
    pub fn whole(&self) -> f64 {
        round(self.host + self.others.unwrap_or(0.0))
    }
}

/// A thread's name and the microseconds it has used.
#[derive(Clone, Debug)]
struct Thread {
    name: String,
    us: f64,
}

/// What a process used per operation.
#[derive(Clone, Debug, Serialize)]
pub struct RoleRow {
    /// What it is to the run.
    pub role: String,
    /// Microseconds per operation.
    pub us_per_op: f64,
    /// The share of one processor that it used, in percent.
    pub percent: f64,
    /// The same by thread, those that used most first; threads of one name are added up.
    pub threads: Vec<ThreadRow>,
}

/// What threads of one name used per operation.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadRow {
    /// Their name.
    pub thread: String,
    /// Microseconds per operation.
    pub us_per_op: f64,
}

impl Used {
    /// Looks at all of `processes`, and at the processors that they may use, now.
    #[must_use]
    pub fn now(processes: &[Process], cpus: &Cpus) -> Used {
        let look =
            |process: &Process| (process.clone(), used_us(process.pid), threads(process.pid));
        let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
        Used { each: processes.iter().map(look).collect(), machine: ticks(&machine, cpus) }
    }

    /// Who else had the processors since `before`. The interrupts' share is nobody's.
    #[must_use]
    pub fn disturbance(&self, before: &Used) -> Disturbance {
        let (now, then) = (self.machine, before.machine);
        let all = now.all.saturating_sub(then.all).max(1) as f64;
        let ours = self.spans(before).map(|(_, us)| us).sum::<u64>();
        let programs = now.programs.saturating_sub(then.programs);
        let others = programs.saturating_sub(ours / (1_000_000 / TICKS_PER_SECOND)) as f64;
        let host = now.stolen.saturating_sub(then.stolen) as f64;
        let others = (self.each.len() > 1).then(|| round(others / all));
        Disturbance { host: round(host / all), others }
    }

    /// Microseconds that all processes but the one of this number used between `before` and this.
    #[must_use]
    pub fn but(&self, pid: u32, before: &Used) -> u64 {
        self.spans(before).filter(|(process, ..)| process.pid != pid).map(|(_, us)| us).sum()
    }

    /// Microseconds that the process of this number used.
    #[must_use]
    pub fn of(&self, pid: u32, before: &Used) -> u64 {
        self.spans(before).filter(|(process, ..)| process.pid == pid).map(|(_, us)| us).sum()
    }

    fn spans<'a>(&'a self, before: &'a Used) -> impl Iterator<Item = (&'a Process, u64)> {
        self.each.iter().zip(&before.each).map(|(now, then)| (&now.0, now.1.saturating_sub(then.1)))
    }

    /// What each process used per operation since `before`, when `ops` ended in `seconds`.
    #[must_use]
    pub fn rows(&self, before: &Used, ops: u64, seconds: f64) -> Vec<RoleRow> {
        let per_op = |us: f64| round(us / ops.max(1) as f64);
        let row = |((process, total, now), (_, earlier, then)): (&Entry, &Entry)| {
            let us = total.saturating_sub(*earlier) as f64;
            let mut by_name: BTreeMap<&str, f64> = BTreeMap::new();
            for (id, thread) in now {
                let earlier = then.get(id).map_or(0.0, |thread| thread.us);
                *by_name.entry(&thread.name).or_default() += (thread.us - earlier).max(0.0);
            }
            let thread = |(name, us): (&str, f64)| {
                let (thread, us_per_op) = (name.to_owned(), per_op(us));
                ThreadRow { thread, us_per_op }
            };
            let mut threads: Vec<ThreadRow> = by_name.into_iter().map(thread).collect();
            threads.retain(|row| row.us_per_op > 0.0);
            threads.sort_by(|a, b| b.us_per_op.total_cmp(&a.us_per_op));
            let percent = (us / seconds / 1e3).round() / 10.0;
            RoleRow { role: process.role.clone(), us_per_op: per_op(us), percent, threads }
        };
        self.each.iter().zip(&before.each).map(row).collect()
    }
}

type Entry = (Process, u64, BTreeMap<u32, Thread>);

/// A figure that people can read: six decimals.
fn round(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

/// Processor time that a process has used so far, user and system, in microseconds; 0 when the
/// process is gone.
#[must_use]
pub fn used_us(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse(&stat).unwrap_or(0)
}

/// Adds up the lines of these processors: user, nice, system, idle, waiting, two kinds of
/// interrupts, stolen.
fn ticks(stat: &str, cpus: &Cpus) -> Ticks {
    let mut sum = Ticks::default();
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        let cpu = words.next().and_then(|word| word.strip_prefix("cpu")?.parse().ok());
        if !cpu.is_some_and(|cpu| cpus.has(cpu)) {
            continue;
        }
        let each: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
        sum.all += each.iter().sum::<u64>();
        sum.programs += each.iter().take(3).sum::<u64>();
        sum.stolen += each.get(7).copied().unwrap_or(0);
    }
    sum
}

/// The threads of a process by their numbers; none when it is gone.
fn threads(pid: u32) -> BTreeMap<u32, Thread> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeMap::new() };
    let one = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let read = |file| fs::read_to_string(entry.path().join(file)).ok();
        let name = read("comm")?.trim_end().to_owned();
        // The first number of `schedstat` is nanoseconds; not every kernel keeps it.
        let fine = read("schedstat").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let us = match fine {
            Some(nanoseconds) if nanoseconds > 0 => nanoseconds as f64 / 1e3,
            _ => parse(&read("stat")?)? as f64,
        };
        Some((id, Thread { name, us }))
    };
    entries.flatten().filter_map(one).collect()
}

/// Reads the 14th and 15th field. The second one is the program's name in parentheses and may
/// contain anything, parentheses included.
fn parse(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * (1_000_000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse(stat), Some(120_000));
        assert_eq!(parse("42 (a"), None);
    }

    #[test]
    fn who_else_had_the_processors() {
        let stat = "cpu  900 9 9 9 9 9 9 9\ncpu0 100 20 30 400 50 6 7 8 90 0\ncpu1 1 1 1 1 1 1 1 1\n\
                    cpu2 9 9 9 9 9 9 9 9\nintr 1";
        let cpus = crate::cpus::cpus("0-1").expect("a set");
        assert_eq!(ticks(stat, &cpus), Ticks { all: 629, programs: 153, stolen: 9 });
        assert_eq!(ticks("", &cpus), Ticks::default());
        let process = |role: &str, pid| Process { role: role.to_owned(), pid };
        let at = |ours, machine| {
            let clients = (process("clients", 1), ours, BTreeMap::new());
            let replica = (process("replica 0", 2), 0, BTreeMap::new());
            Used { each: vec![replica, clients], machine }
        };
        let before = at(1_000_000, Ticks { all: 1_000, programs: 500, stolen: 10 });
        // 100 ticks of ours among 180.
        let after = at(2_000_000, Ticks { all: 1_400, programs: 680, stolen: 50 });
        let Disturbance { host, others } = after.disturbance(&before);
        assert_eq!((host, others), (0.1, Some(0.2)));
        // The replicas may be those who had it.
        let alone = |mut used: Used| {
            used.each.remove(0);
            used
        };
        assert_eq!(alone(after).disturbance(&alone(before)).others, None);
    }

    /// Works until the process has used a tick at least.
    fn work(until: impl Fn() -> bool) {
        let mut x = 1_u64;
        while !until() {
            for i in 0..1_000_000 {
                x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(i));
            }
        }
        assert!(until(), "{x}");
    }

    #[test]
    fn what_a_thread_uses_is_seen_by_its_name() {
        let me = std::process::id();
        let processes = [Process { role: "clients".to_owned(), pid: me }];
        let (worked, seen) = std::sync::mpsc::channel();
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let before = Used::now(&processes, &Cpus::allowed());
        let named = std::thread::Builder::new().name("busy-bee".to_owned());
        let thread = named.spawn(move || {
            let first = used_us(me);
            work(|| used_us(me) > first + 50_000);
            worked.send(()).expect("the test waits");
            // Threads that have ended are not seen any more.
            let _ = wait.recv();
        });
        seen.recv().expect("it works");
        let after = Used::now(&processes, &Cpus::allowed());
        drop(stop);
        thread.expect("a thread").join().expect("no panic");
        assert!(after.of(me, &before) >= 50_000);
        assert_eq!(after.but(me, &before), 0);
        let rows = after.rows(&before, 10, 1.0);
        assert_eq!(rows[0].role, "clients");
        assert!(rows[0].us_per_op >= 5_000.0 && rows[0].percent >= 5.0, "{rows:?}");
        let bee = rows[0].threads.iter().find(|row| row.thread == "busy-bee");
        assert!(bee.is_some_and(|row| row.us_per_op > 0.0), "{rows:?}");
    }
}
