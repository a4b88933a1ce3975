//! What the load consists of: operations of the group's service, and what they must answer.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, bail};
use svc::kv::op::encode_command;
use svc::kv::reply::Protocol;
use svc::work::Kind;

/// The key of operations before its number is written into it; all keys are as long.
const KEY: &[u8] = b"bench:000000000";
/// Keys that are deleted by one operation.
const KEYS_PER_DELETION: usize = 500;
/// Where the number is within the key.
const DIGITS: Range<usize> = 6..15;

/// Makes operations, one after the other.
#[derive(Clone, Debug)]
pub struct Ops {
    bytes: Vec<u8>,
    expected: Expected,
    /// Where the key's digits are, and how many keys there are.
    keys: Option<(Range<usize>, u64)>,
    next: u64,
    /// The operations that are reads, and how many of a hundred they are.
    reads: Option<(Box<Ops>, u64)>,
    made: u64,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Length(usize),
    Ok,
    /// A string, or none.
    Bulk,
}

impl Ops {
    /// Operations for `service` that carry `payload` bytes; of echo, with `reply` bytes answered.
    /// Of the key-value service they write `keys` keys in turn, beginning at one that depends on
    /// `seed`.
    ///
    /// # Errors
    /// When the service is none that the load is known for.
    pub fn new(service: &str, payload: u32, reply: u32, keys: u64, seed: u64) -> Result<Ops> {
        let value = vec![b'x'; payload as usize];
        match service {
            "work" => Ops::working((Kind::Nothing, Duration::ZERO), keys, seed),
            "echo" => Ok(Ops {
                bytes: svc::echo::encode(reply, &value),
                expected: Expected::Length(reply as usize),
                keys: None,
                next: 0,
                reads: None,
                made: 0,
            }),
            "kv" => {
                let mut bytes = Vec::new();
                encode_command(Protocol::Resp2, &[&b"SET"[..], KEY, &value], &mut bytes);
                let at = bytes.windows(KEY.len()).position(|window| window == KEY);
                let at = at.expect("the key is in its own command");
                let digits = at + DIGITS.start..at + DIGITS.end;
                let (expected, keys) = (Expected::Ok, Some((digits, keys)));
                Ok(Ops { bytes, expected, keys, next: seed, reads: None, made: 0 })
            }
            other => bail!("no load is known for the service {other}; only for kv, echo and work"),
        }
    }

    /// Operations of the work service, which do this for so long, with `keys` keys in turn.
    ///
    /// # Errors
    /// Never; it is like [`Ops::new`].
    pub fn working((kind, time): (Kind, Duration), keys: u64, seed: u64) -> Result<Ops> {
        let bytes = svc::work::encode(kind, time, KEY);
        let at = bytes.len() - KEY.len();
        let keys = Some((at + DIGITS.start..at + DIGITS.end, keys));
        let expected = Expected::Length(0);
        Ok(Ops { bytes, expected, keys, next: seed, reads: None, made: 0 })
    }

    /// The same with `percent` of a hundred operations reading, evenly mixed: the same keys, or
    /// what the echo service answers without a trace.
    ///
    /// # Errors
    /// When the service has no reads.
    pub fn reading(self, service: &str, percent: u8) -> Result<Ops> {
        if percent == 0 {
            return Ok(self);
        }
        let mut reads = self.clone();
        match (service, self.expected) {
            ("echo", Expected::Length(reply)) => {
                let reply = u32::try_from(reply).unwrap_or(u32::MAX) | svc::echo::READ;
                reads.bytes[..4].copy_from_slice(&reply.to_le_bytes());
            }
            ("kv", _) => {
                reads.bytes.clear();
                encode_command(Protocol::Resp2, &[&b"GET"[..], KEY], &mut reads.bytes);
                let at = reads.bytes.len() - KEY.len();
                let all = self.keys.as_ref().map_or(1, |(_, keys)| *keys);
                reads.keys = Some((at + DIGITS.start..at + DIGITS.end, all));
                reads.expected = Expected::Bulk;
            }
            _ => bail!("the service {service} has no reads; only kv and echo have"),
        }
        Ok(Ops { reads: Some((Box::new(reads), u64::from(percent))), ..self })
    }

    /// The same for the client of this number: clients begin at different keys.
    #[must_use]
    pub fn beginning_at(mut self, number: usize) -> Ops {
        self.next = self.next.wrapping_add(number as u64);
        if let Some((reads, _)) = &mut self.reads {
            reads.next = self.next;
        }
        self
    }

    /// Length of an operation.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The next operation, and whether it only reads.
    pub fn next(&mut self) -> (&[u8], bool) {
        self.made += 1;
        let turn = self.made.wrapping_mul(37) % 100;
        let reads = self.reads.as_ref().is_some_and(|(_, percent)| turn < *percent);
        match &mut self.reads {
            Some((ops, _)) if reads => (ops.make(), true),
            _ => {
                Ops::write_key(&mut self.bytes, self.keys.as_ref(), &mut self.next);
                (&self.bytes, false)
            }
        }
    }

    fn make(&mut self) -> &[u8] {
        Ops::write_key(&mut self.bytes, self.keys.as_ref(), &mut self.next);
        &self.bytes
    }

    /// Writes the next key into an operation that has one.
    fn write_key(bytes: &mut [u8], keys: Option<&(Range<usize>, u64)>, next: &mut u64) {
        let Some((digits, keys)) = keys else { return };
        // A stride that shares no factor with any power of ten or two walks over all keys
        // without staying close to the last ones.
        let mut number = next.wrapping_mul(7_368_787) % keys;
        *next = next.wrapping_add(1);
        for byte in bytes[digits.clone()].iter_mut().rev() {
            *byte = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
    }

    /// Whether a result is what such an operation answers.
    #[must_use]
    pub fn fits(&self, result: &[u8]) -> bool {
        match self.expected {
            Expected::Length(length) => result.len() == length,
            Expected::Ok if result == b"+OK\r\n" => true,
            Expected::Ok => self.reads.as_ref().is_some_and(|(reads, _)| reads.fits(result)),
            Expected::Bulk => result.starts_with(b"$"),
        }
    }
}

/// Operations that delete `keys` keys of the load, many at once.
pub fn forget(keys: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..keys).step_by(KEYS_PER_DELETION).map(move |first| {
        let last = keys.min(first + KEYS_PER_DELETION as u64);
        let names: Vec<String> = (first..last).map(|key| format!("bench:{key:09}")).collect();
        let names = names.iter().map(String::as_bytes);
        let words: Vec<&[u8]> = [&b"DEL"[..]].into_iter().chain(names).collect();
        let mut bytes = Vec::new();
        encode_command(Protocol::Resp2, &words, &mut bytes);
        bytes
    })
}

/// An operation that changes nothing that users see; for moving the group on.
///
/// # Errors
/// When the service is none that the load is known for.
pub fn idle(service: &str) -> Result<Vec<u8>> {
    match service {
        "kv" => {
            let mut bytes = Vec::new();
            encode_command(Protocol::Resp2, &[&b"EXISTS"[..], KEY], &mut bytes);
            Ok(bytes)
        }
        _ => Ok(Ops::new(service, 0, 0, 1, 0)?.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_walked_over_and_operations_stay_well_formed() {
        let mut ops = Ops::new("kv", 3, 0, 50, 0).expect("known");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let bytes = ops.next().0.to_vec();
            svc::kv::op::decode(&bytes).expect("well-formed");
            seen.insert(bytes);
        }
        assert_eq!(seen.len(), 50);
        assert!(ops.fits(b"+OK\r\n") && !ops.fits(b"-ERR\r\n"));
    }

    #[test]
    fn the_keys_that_are_written_are_the_ones_that_are_deleted() {
        let mut ops = Ops::new("kv", 0, 0, 501, 7).expect("known");
        let deletions: Vec<Vec<u8>> = forget(501).collect();
        assert_eq!(deletions.len(), 2);
        for _ in 0..501 {
            let written = ops.next().0;
            let at = written.windows(6).position(|window| window == b"bench:").expect("a key");
            let key = &written[at..at + KEY.len()];
            let hit = |bytes: &Vec<u8>| bytes.windows(KEY.len()).any(|window| window == key);
            assert_eq!(deletions.iter().filter(|bytes| hit(bytes)).count(), 1);
        }
    }

    #[test]
    fn as_many_operations_read_as_were_asked_for() {
        for service in ["kv", "echo"] {
            let ops = Ops::new(service, 3, 5, 50, 0).expect("known");
            let mut ops = ops.reading(service, 30).expect("it has reads");
            assert_eq!((0..100).filter(|_| ops.next().1).count(), 30, "{service}");
        }
        let mut ops = Ops::new("kv", 3, 0, 50, 0).and_then(|ops| ops.reading("kv", 100));
        let read = ops.as_mut().expect("it has reads").next().0.to_vec();
        let (_, op) = svc::kv::op::decode(&read).expect("well-formed");
        let svc::kv::op::Op::Command(args) = op else { panic!("no command") };
        assert!(svc::kv::info::is_read(args.as_slice()));
        let ops = ops.expect("it has reads");
        assert!(ops.fits(b"$1\r\nx\r\n") && ops.fits(b"+OK\r\n") && !ops.fits(b"-ERR\r\n"));
        assert!(Ops::new("work", 0, 0, 1, 0).and_then(|ops| ops.reading("work", 1)).is_err());
    }

    #[test]
    fn echoes_answer_what_was_asked() {
        let mut ops = Ops::new("echo", 10, 4, 1, 0).expect("known");
        assert_eq!(ops.next().0.len(), 14);
        assert!(ops.fits(&[0; 4]) && !ops.fits(&[0; 5]));
        assert!(Ops::new("other", 0, 0, 1, 0).is_err());
    }
}
