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
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Length(usize),
    Ok,
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
            }),
            "kv" => {
                let mut bytes = Vec::new();
                encode_command(Protocol::Resp2, &[&b"SET"[..], KEY, &value], &mut bytes);
                let at = bytes.windows(KEY.len()).position(|window| window == KEY);
                let at = at.expect("the key is in its own command");
                let digits = at + DIGITS.start..at + DIGITS.end;
                Ok(Ops { bytes, expected: Expected::Ok, keys: Some((digits, keys)), next: seed })
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
        Ok(Ops { bytes, expected: Expected::Length(0), keys, next: seed })
    }

    /// The same for the client of this number: clients begin at different keys.
    #[must_use]
    pub fn beginning_at(mut self, number: usize) -> Ops {
        self.next = self.next.wrapping_add(number as u64);
        self
    }

    /// Length of an operation.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The next operation.
    pub fn next(&mut self) -> &[u8] {
        if let Some((digits, keys)) = &self.keys {
            // A stride that shares no factor with any power of ten or two walks over all keys
            // without staying close to the last ones.
            let mut number = self.next.wrapping_mul(7_368_787) % keys;
            self.next = self.next.wrapping_add(1);
            for byte in self.bytes[digits.clone()].iter_mut().rev() {
                *byte = b'0' + u8::try_from(number % 10).expect("a digit");
                number /= 10;
            }
        }
        &self.bytes
    }

    /// Whether a result is what such an operation answers.
    #[must_use]
    pub fn fits(&self, result: &[u8]) -> bool {
        match self.expected {
            Expected::Length(length) => result.len() == length,
            Expected::Ok => result == b"+OK\r\n",
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
            let bytes = ops.next().to_vec();
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
            let written = ops.next();
            let at = written.windows(6).position(|window| window == b"bench:").expect("a key");
            let key = &written[at..at + KEY.len()];
            let hit = |bytes: &Vec<u8>| bytes.windows(KEY.len()).any(|window| window == key);
            assert_eq!(deletions.iter().filter(|bytes| hit(bytes)).count(), 1);
        }
    }

    #[test]
    fn echoes_answer_what_was_asked() {
        let mut ops = Ops::new("echo", 10, 4, 1, 0).expect("known");
        assert_eq!(ops.next().len(), 14);
        assert!(ops.fits(&[0; 4]) && !ops.fits(&[0; 5]));
        assert!(Ops::new("other", 0, 0, 1, 0).is_err());
    }
}
