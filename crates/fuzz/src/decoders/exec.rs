//! Objects that another replica or the disk hands in, and operations that clients send.

use base::{ReplyStatus, Seq};
use exec::reply::status_reply;
use exec::service::Service;
use exec::session::{BUCKETS, Decision, Sessions};
use exec::testing::Harness;
use svc::kv::KvService;
use svc::kv::op::{self, Op, Step};
use svc::kv::reply::Protocol;

use super::accepted;
use crate::samples;
use crate::target::{Outcome, Run};

/// `Sessions::put` and `Sessions::digest_of`: a bucket of the client table.
pub fn sessions_bucket() -> Run {
    Box::new(|bytes| {
        let (bucket, bytes) = match bytes.split_first() {
            Some((bucket, rest)) => (u32::from(*bucket) % BUCKETS, rest),
            None => return Outcome::of("empty"),
        };
        let digest = Sessions::digest_of(bucket, bytes);
        let mut table = Sessions::new();
        match table.put(bucket, bytes) {
            Err(error) => {
                assert!(digest.is_err() && table.is_empty());
                Outcome::of(error.0)
            }
            Ok(()) => {
                table.check();
                let mut again = vec![];
                table.get(bucket, &mut again);
                assert!(again == bytes, "one table, one encoding");
                assert_eq!(Sessions::digest_of(bucket, &again), digest);
                accepted(table.len().checked_ilog2(), bytes.len())
            }
        }
    })
}

/// Buckets of tables with a few sessions.
#[must_use]
pub fn sessions_bucket_seeds() -> Vec<Vec<u8>> {
    let mut table = Sessions::new();
    let mut all = vec![];
    for (index, frame) in samples::frames().iter().enumerate() {
        let seq = Seq(index as u64 + 1);
        let decision = table.decide(seq, frame);
        if decision == Decision::Execute {
            table.record(frame.id(), &status_reply(frame.id(), seq, ReplyStatus::TooLarge));
        }
        let mut bytes = vec![1];
        table.get(1, &mut bytes);
        all.push(bytes);
    }
    all
}

/// `KvService::put` and `KvService::digest_of`: an object of the key-value service.
pub fn kv_object() -> Run {
    let mut service = KvService::new();
    let mut empty = vec![];
    service.get(0, &mut empty);
    Box::new(move |bytes| {
        let (object, bytes) = match bytes.split_first_chunk::<2>() {
            Some((object, rest)) => {
                (u32::from(u16::from_le_bytes(*object)) % service.objects(), rest)
            }
            None => return Outcome::of("empty"),
        };
        let promised = service.digest_of(object, bytes);
        match service.put(object, bytes) {
            Err(error) => {
                assert!(promised.is_err(), "its digest was computed, but it is none: {error}");
                Outcome::of(error.0)
            }
            Ok(()) => {
                let mut again = vec![];
                service.get(object, &mut again);
                assert!(again == bytes, "one object, one encoding");
                assert_eq!(promised.as_ref(), Ok(&service.digest(object)));
                // As it was at first: a service is not made in a moment.
                service.put(object, &empty).expect("is what it wrote itself");
                accepted("object", bytes.len())
            }
        }
    })
}

/// The objects of a service with values of all types.
#[must_use]
pub fn kv_object_seeds() -> Vec<Vec<u8>> {
    let mut harness = Harness::new(KvService::new());
    for line in COMMANDS {
        harness.run(&command(line));
    }
    let (mut all, mut empty) = (vec![], vec![]);
    KvService::new().get(0, &mut empty);
    for object in 0..harness.service.objects() {
        let mut bytes = vec![];
        harness.service.get(object, &mut bytes);
        if bytes != empty || object == 0 {
            let number = u16::try_from(object % (1 << 16)).expect("is below");
            all.push([&number.to_le_bytes()[..], &bytes].concat());
        }
    }
    all
}

/// One command of every type of value.
pub const COMMANDS: [&str; 24] = [
    "SET a 1",
    "SET b text EX 100",
    "APPEND b more",
    "INCR a",
    "RPUSH list x y z",
    "LINSERT list BEFORE y w",
    "HSET hash f 1 g 2",
    "SADD set m n o",
    "ZADD zset 1 a 2.5 b",
    "ZRANGEBYSCORE zset -inf +inf LIMIT 0 10",
    "SETBIT bits 100 1",
    "BITFIELD bits GET u4 0 INCRBY i5 100 1",
    "EXPIRE list 1000",
    "MGET a b nothing",
    "SCAN 0 MATCH * COUNT 10",
    "SORT list ALPHA DESC",
    "SRANDMEMBER set -5",
    "HRANDMEMBER hash -5 WITHVALUES",
    "ZRANDMEMBER zset -5 WITHSCORES",
    "SETRANGE b 10 x",
    "LPOS list y COUNT 0",
    "BITCOUNT bits 0 -1 BIT",
    "INCRBYFLOAT a 1e2",
    "LCS a b IDX",
];

/// A line as an operation.
#[must_use]
pub fn command(line: &str) -> Vec<u8> {
    let args: Vec<&str> = line.split(' ').collect();
    let mut out = vec![];
    op::encode_command(Protocol::Resp2, &args, &mut out);
    out
}

/// `svc::kv::op::decode`, and its execution: the service answers whatever it is given.
pub fn kv_op() -> Run {
    let mut harness = Harness::new(KvService::new());
    let setup: Vec<Vec<u8>> = COMMANDS[..10].iter().map(|line| command(line)).collect();
    Box::new(move |bytes| {
        harness.run(&command("FLUSHALL"));
        setup.iter().for_each(|op| {
            harness.run(op);
        });
        let kind = match op::decode(bytes) {
            Err(error) => {
                return {
                    assert!(
                        !harness.run(bytes).is_empty(),
                        "what is no operation is answered, too"
                    );
                    Outcome::of(error.0)
                };
            }
            Ok((_, Op::Command(args))) => ("command", args.as_slice().len()),
            Ok((_, Op::Watch(keys))) => ("watch", keys.as_slice().len()),
            Ok((_, Op::Transaction { watched, steps })) => {
                ("transaction", watched.len() * 100 + steps.len())
            }
        };
        let result = harness.run(bytes);
        assert!(!result.is_empty());
        let head: Vec<u8> = result.iter().copied().take(12).collect();
        Outcome::of((kind, head))
    })
}

/// Operations.
#[must_use]
pub fn kv_op_seeds() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = COMMANDS.iter().map(|line| command(line)).collect();
    let mut out = vec![];
    op::encode_watch(Protocol::Resp3, &["a", "zset"], &mut out);
    all.push(out);
    let steps =
        [Step::Command([&b"GET"[..], b"a"].into_iter().collect()), Step::Reply(b"+PONG\r\n")];
    let mut out = vec![];
    op::encode_transaction(Protocol::Resp3, &[(b"a", 1)], &steps, &mut out);
    all.push(out);
    all
}

/// Commands as lines of words, executed one after the other: what a client means, without the
/// lengths around it.
pub fn kv_lines() -> Run {
    let mut harness = Harness::new(KvService::new());
    Box::new(move |bytes| {
        harness.run(&command("FLUSHALL"));
        let mut last = vec![];
        for line in bytes.split(|byte| *byte == b'\n').take(32) {
            let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let mut encoded = vec![];
            op::encode_command(Protocol::Resp2, &words, &mut encoded);
            last = harness.run(&encoded);
            assert!(!last.is_empty());
        }
        let head: Vec<u8> = last.into_iter().take(12).collect();
        Outcome::of(head)
    })
}

/// A few commands that build on each other.
#[must_use]
pub fn kv_lines_seeds() -> Vec<Vec<u8>> {
    let some = |which: &[&str]| which.join("\n").into_bytes();
    COMMANDS.windows(3).map(some).chain([some(&COMMANDS)]).collect()
}
