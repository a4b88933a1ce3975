//! Processor time of processes, as the operating system accounts for it.

use std::fs;

/// Clock ticks per second in `/proc`. The kernel's interface fixes it for every architecture
/// that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time that a process has used so far, user and system, in microseconds; 0 when the
/// process is gone.
#[must_use]
pub fn used_us(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse(&stat).unwrap_or(0)
}

/// Of all of them together.
#[must_use]
pub fn used_by_all_us(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| used_us(*pid)).sum()
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
    fn this_process_has_used_something_once_it_has_worked() {
        let me = std::process::id();
        let mut x = 1_u64;
        while used_us(me) == 0 {
            for i in 0..1_000_000 {
                x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(i));
            }
        }
        assert!(used_us(me) > 0, "{x}");
    }
}
