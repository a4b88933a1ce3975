//! What the load consists of: operations of the group's service, and what they must answer.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use client::Client;
use svc::kv::op::encode_command;
use svc::kv::reply::Protocol;
use svc::work::Kind;
use svc::zk::jute::JuteWriter;
use svc::zk::kind;
use svc::zk::op::{Attachment, Op, Outcome, PASSWORD_BYTES};
use svc::zk::session::TIMEOUT_MAX_MS;

/// The key of operations before its number is written into it; all keys are as long.
const KEY: &[u8] = b"bench:000000000";
/// Keys that are deleted by one operation, where they may be anywhere.
pub const KEYS_PER_DELETION: usize = 500;
/// A node before its number is written into its path.
const NODE: &str = "/bench/n000000000";
/// Nodes that are made at a time.
const MADE_AT_ONCE: usize = 500;
/// Where session and connection are in a request of the coordination service.
const ATTACHMENT: Range<usize> = 2..18;
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
    /// A response of the coordination service.
    Response,
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
            "zookeeper" => Ok(Ops::coordinating(&value, keys, seed)),
            other => bail!(
                "no load is known for the service {other}; only for kv, zookeeper, echo and work"
            ),
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
            ("zookeeper", _) => {
                reads.bytes = request((0, 0), kind::GET_DATA, |w| {
                    w.text(NODE).bool(false);
                });
            }
            _ => bail!("the service {service} has no reads; only kv, zookeeper and echo have"),
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

    /// Requests of the coordination service, which write `keys` nodes in turn. A client has to
    /// open a session first: [`Ops::opening`].
    fn coordinating(value: &[u8], keys: u64, seed: u64) -> Ops {
        let bytes = request((0, 0), kind::SET_DATA, |w| {
            w.text(NODE).buffer(Some(value)).int(-1);
        });
        let at = bytes.windows(NODE.len()).position(|window| window == NODE.as_bytes());
        let end = at.expect("the node is in its own request") + NODE.len();
        let keys = Some((end - DIGITS.len()..end, keys));
        Ops { bytes, expected: Expected::Response, keys, next: seed, reads: None, made: 0 }
    }

    /// What opens a session for a client of this load, if it needs one.
    #[must_use]
    pub fn opening(&self) -> Option<Vec<u8>> {
        matches!(self.expected, Expected::Response).then(opening)
    }

    /// Takes the answer to [`Ops::opening`]; false when there is no session.
    pub fn attach(&mut self, answer: &[u8]) -> bool {
        let Ok(Outcome::Attached { to, .. }) = Outcome::decode(answer) else { return false };
        let reads = self.reads.iter_mut().map(|(reads, _)| &mut reads.bytes);
        for bytes in reads.chain([&mut self.bytes]) {
            let own = &mut bytes[ATTACHMENT];
            own[..8].copy_from_slice(&to.0.to_le_bytes());
            own[8..].copy_from_slice(&to.1.to_le_bytes());
        }
        true
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
            // A session's requests are ordered, reads among them.
            Some((ops, _)) if reads => (ops.make(), !matches!(self.expected, Expected::Response)),
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
            Expected::Response => {
                matches!(Outcome::decode(result), Ok(Outcome::Response { error: 0, .. }))
            }
        }
    }
}

fn opening() -> Vec<u8> {
    let mut bytes = Vec::new();
    Op::Open { password: [0; PASSWORD_BYTES], timeout_ms: TIMEOUT_MAX_MS }.encode(&mut bytes);
    bytes
}

fn request(from: Attachment, kind: i32, body: impl FnOnce(&mut JuteWriter<'_>)) -> Vec<u8> {
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    body(&mut JuteWriter::new(&mut out));
    Op::Request { from, kind, body: &out }.encode(&mut bytes);
    bytes
}

/// Makes the nodes that the load reads and writes, with values of so many bytes.
///
/// # Errors
/// When the group does not make them.
pub async fn make_nodes(client: &Client, keys: u64, payload: u32) -> Result<()> {
    let opened = client.call(0, opening()).await?;
    let Ok(Outcome::Attached { to, .. }) = Outcome::decode(&opened) else {
        bail!("the group opens no session");
    };
    let value = vec![b'x'; payload as usize];
    let create = |path: &str| {
        request(to, kind::CREATE, |w| {
            w.text(path).buffer(Some(&value)).count(1).int(31).text("world").text("anyone").int(0);
        })
    };
    let top = [create("/bench")];
    let nodes = (0..keys).map(|key| create(&format!("/bench/n{key:09}")));
    let mut all = top.into_iter().chain(nodes).peekable();
    while all.peek().is_some() {
        let calls: Vec<_> = all.by_ref().take(MADE_AT_ONCE).map(|op| client.call(0, op)).collect();
        for call in calls {
            let answer = call.await?;
            let Ok(Outcome::Response { error, .. }) = Outcome::decode(&answer) else {
                bail!("the group makes no node");
            };
            let exists = svc::zk::ZkError::NodeExists.code();
            ensure!(error == 0 || error == exists, "the group makes no node: error {error}");
        }
    }
    Ok(())
}

/// Operations that delete `keys` keys of the load, so many at once.
pub fn forget(keys: u64, at_once: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..keys).step_by(at_once).map(move |first| {
        let last = keys.min(first + at_once as u64);
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
        "zookeeper" => {
            let mut bytes = Vec::new();
            Op::Stats.encode(&mut bytes);
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
        let deletions: Vec<Vec<u8>> = forget(501, KEYS_PER_DELETION).collect();
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
    fn requests_are_of_the_session_and_as_many_read_as_were_asked_for() {
        for percent in [0, 25, 100] {
            let ops = Ops::new("zookeeper", 1, 0, 500, 3).expect("known");
            let mut ops = ops.reading("zookeeper", percent).expect("it has reads");
            let mut answer = vec![];
            Outcome::Attached { to: (7, 8), timeout_ms: 1 }.encode(&mut answer);
            assert!(ops.opening().is_some() && ops.attach(&answer) && !ops.attach(b"?"));
            let mut reads = 0;
            for _ in 0..500 {
                let (bytes, without_order) = ops.next();
                let Ok(Op::Request { from, kind, body }) = Op::decode(bytes) else { panic!() };
                assert_eq!((from, without_order), ((7, 8), false));
                reads += u32::from(kind == kind::GET_DATA);
                let path = svc::zk::jute::JuteReader::new(body).path("path");
                assert!(path.is_ok_and(|path| path.starts_with("/bench/n000000")));
            }
            assert_eq!(reads, u32::from(percent) * 5);
        }
    }

    #[test]
    fn echoes_answer_what_was_asked() {
        let mut ops = Ops::new("echo", 10, 4, 1, 0).expect("known");
        assert_eq!(ops.next().0.len(), 14);
        assert!(ops.fits(&[0; 4]) && !ops.fits(&[0; 5]));
        assert!(Ops::new("other", 0, 0, 1, 0).is_err());
    }
}
