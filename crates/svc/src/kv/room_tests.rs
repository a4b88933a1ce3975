//! Tests of how much a bucket takes.

use std::collections::BTreeSet;

use base::{AgreedTime, ClientId, FrameId, Seq, SessionId};
use exec::{Context, ObjectTree, Service};

use super::bucket::HEAD_BYTES;
use super::reply::Protocol;
use super::table::flags::DENYOOM;
use super::tests::{Rng, random_command};
use super::{KvService, db, op, siphash, table};
use crate::testing::Runner;

/// Bytes with which a bucket of these tests is full.
const FULL: usize = 64 << 10;

/// What a command is refused with that a bucket has no room for.
const OOM: &str = "-OOM command not allowed when the keys of one bucket use more than 768 MiB";

fn bucket(key: &str) -> u64 {
    siphash::hash(key.as_bytes()) >> 48
}

/// The first of these names that is in the bucket of the key `fill`.
fn near(name: &str) -> String {
    let mut names = (0..).map(|i| format!("{name}{i}"));
    names.find(|name| bucket(name) == bucket("fill")).expect("one in 65,536")
}

fn small() -> Runner<KvService> {
    let mut runner = Runner::new(KvService::new());
    runner.service.db().full = FULL;
    runner
}

/// A service with a key of every type in one bucket, and others elsewhere; and their names.
fn stocked() -> (Runner<KvService>, [String; 7]) {
    let mut runner = small();
    let names = ["str", "hash", "list", "set", "zset", "other", "none"].map(near);
    let [string, hash, list, set, zset, other, _] = &names;
    for command in [
        format!("SET {string} 1"),
        format!("SET {other} 1"),
        format!("HSET {hash} f 1"),
        format!("RPUSH {list} a b"),
        format!("SADD {set} a b"),
        format!("ZADD {zset} 1 a"),
        "RPUSH l a b".into(),
        "SADD s a c".into(),
        "ZADD z 1 a 2 b".into(),
        format!("SET long {}", "x".repeat(2000)),
    ] {
        assert!(!runner.command(&command).starts_with('-'), "{command}");
    }
    (runner, names)
}

/// A use of every command that adds something to the bucket.
fn additions([string, hash, list, set, zset, other, none]: &[String; 7]) -> Vec<String> {
    vec![
        format!("APPEND {string} 1"),
        format!("SETRANGE {string} 0 12"),
        format!("SETBIT {string} 800 1"),
        format!("BITFIELD {string} SET u8 0 9"),
        format!("BITOP NOT {none} long"),
        format!("INCR {string}"),
        format!("INCRBY {string} 2"),
        format!("DECR {string}"),
        format!("DECRBY {string} 2"),
        format!("INCRBYFLOAT {string} 2"),
        format!("SET {string} {}", "x".repeat(1000)),
        format!("GETSET {string} {}", "x".repeat(1000)),
        format!("SETEX {none} 9 {}", "x".repeat(1000)),
        format!("PSETEX {none} 9000 {}", "x".repeat(1000)),
        format!("SETNX {none} 1"),
        format!("MSET {string} 1 {other} 2 a b"),
        format!("MSETNX a b {none} 1"),
        format!("COPY long {none}"),
        format!("RENAME long {none}"),
        format!("RENAMENX long {none}"),
        format!("HSET {hash} f 2"),
        format!("HMSET {hash} g 2"),
        format!("HSETNX {hash} g 2"),
        format!("HINCRBY {hash} f 2"),
        format!("HINCRBYFLOAT {hash} f 2"),
        format!("LPUSH {list} c"),
        format!("RPUSH {list} c"),
        format!("LPUSHX {list} c"),
        format!("RPUSHX {list} c"),
        format!("LSET {list} 0 c"),
        format!("LINSERT {list} AFTER a c"),
        format!("RPOPLPUSH l {list}"),
        format!("LMOVE l {list} LEFT LEFT"),
        format!("SADD {set} c"),
        format!("SMOVE s {set} c"),
        format!("SINTERSTORE {none} s s"),
        format!("SUNIONSTORE {none} s s"),
        format!("SDIFFSTORE {none} s"),
        format!("ZADD {zset} 2 b"),
        format!("ZINCRBY {zset} 2 a"),
        format!("ZRANGESTORE {none} z 0 -1"),
        format!("ZUNIONSTORE {none} 1 z"),
        format!("ZINTERSTORE {none} 1 z"),
        format!("ZDIFFSTORE {none} 1 z"),
    ]
}

fn fill(runner: &mut Runner<KvService>) {
    let used = runner.service.db().bucket(bucket("fill") as usize).bytes;
    let left = FULL - used - 29;
    assert_eq!(runner.command(&format!("SET fill {}", "x".repeat(left))), "+OK");
    assert_eq!(runner.service.db().bucket(bucket("fill") as usize).bytes, FULL);
}

/// State transfer carries no object of more than a GiB.
#[test]
fn a_full_bucket_takes_nothing_more_and_says_so() {
    let (_, names) = stocked();
    let all = additions(&names);
    let tried: BTreeSet<String> =
        all.iter().filter_map(|c| c.split(' ').next()).map(str::to_lowercase).collect();
    for spec in table::all().iter().filter(|spec| spec.flags & DENYOOM != 0) {
        assert!(tried.contains(spec.name), "{} is not tried", spec.name);
    }
    for command in all {
        let (mut runner, _) = stocked();
        fill(&mut runner);
        let before = runner.root();
        assert_eq!(runner.command(&command), OOM, "{command}");
        assert_eq!(runner.root(), before, "{command} is refused and changes something");
        let (mut roomy, _) = stocked();
        assert!(!roomy.command(&command).starts_with('-'), "{command}");
    }
}

#[test]
fn what_makes_a_bucket_smaller_is_taken_and_makes_room() {
    let (mut runner, [string, hash, list, set, zset, other, none]) = stocked();
    fill(&mut runner);
    let push = format!("RPUSH {list} c");
    for command in [
        format!("GET {string}"),
        format!("EXPIRE {string} 9"),
        format!("HDEL {hash} f"),
        format!("LPOP {list}"),
        format!("SREM {set} a"),
        format!("ZREM {zset} a"),
        format!("DEL {other}"),
        format!("GETDEL {string}"),
        format!("LTRIM {list} 0 0"),
        format!("SET fill {}", "x".repeat(FULL - 2000)),
    ] {
        assert!(!runner.command(&command).starts_with('-'), "{command}");
    }
    assert_eq!(runner.command(&push), ":2");
    assert_eq!(runner.command(&format!("RENAME long {none}")), OOM);
    assert_eq!(runner.command("FLUSHALL"), "+OK");
    assert_eq!(runner.command(&push), ":1");
}

/// However the replica came by its state, and whoever executes.
#[test]
fn a_replica_that_fetched_the_state_refuses_the_same() {
    let (mut runner, names) = stocked();
    fill(&mut runner);
    let mut fetched = small();
    fetched.load(&runner.service);
    let push = format!("RPUSH {} c", names[2]);
    assert_eq!(fetched.command(&push), OOM);
    let pool = fetched.service.parallel().expect("it executes in parallel");
    let mut bytes = vec![];
    let args: Vec<&str> = push.split(' ').collect();
    op::encode_command(Protocol::Resp2, &args, &mut bytes);
    let (mut tree, mut outputs) = (ObjectTree::new(db::BUCKETS), vec![]);
    let frame = FrameId { client: ClientId(0), session: SessionId(1), stream: 0, id: 1 };
    let place = (Seq(1), 0, AgreedTime(1), frame);
    let (mut reply, (seq, index, time, frame)) = (vec![], place);
    let mut ctx = Context::new(seq, index, time, frame, &mut tree, &mut outputs);
    pool.execute(&bytes, &mut ctx, &mut reply);
    assert!(reply.starts_with(OOM.as_bytes()));
    drop(pool);
    assert_eq!(fetched.command(&push), OOM);
}

#[test]
fn every_bucket_knows_how_long_it_is() {
    let mut runner = small();
    let mut rng = Rng(9);
    for round in 0..20_000 {
        let command = random_command(&mut rng);
        runner.command(&command);
        if rng.below(20) == 0 {
            runner.now_ms += 100;
            runner.wake();
        }
        if round % 500 == 0 {
            runner.command("FLUSHALL");
        }
        if round % 97 > 0 {
            continue;
        }
        let mut bytes = vec![];
        for number in 0..db::BUCKETS {
            bytes.clear();
            runner.service.get(number, &mut bytes);
            let known = runner.service.db().bucket(number as usize).bytes;
            assert_eq!(HEAD_BYTES + known, bytes.len(), "bucket {number} after {command}");
        }
    }
}

/// What is changed in place is counted afterwards, so one command must not add more than there is
/// room for in any bucket that is not full.
#[test]
fn a_change_in_place_adds_no_more_than_a_few_times_its_own_bytes() {
    let mut runner = Runner::new(KvService::new());
    let mut rng = Rng(3);
    runner.command("RPUSH fill 0");
    let (mut bytes, zset) = (vec![], near("zset"));
    for round in 1..3000u64 {
        let pivot = rng.below(round);
        let side = if rng.below(2) == 0 { "BEFORE" } else { "AFTER" };
        for command in [
            format!("LINSERT fill {side} {pivot} {round}"),
            format!("ZADD {zset} {} m{round}", rng.below(9)),
        ] {
            let used = |runner: &mut Runner<KvService>| {
                runner.service.db().bucket(bucket("fill") as usize).bytes
            };
            let before = used(&mut runner);
            let args: Vec<&str> = command.split(' ').collect();
            bytes.clear();
            op::encode_command(Protocol::Resp2, &args, &mut bytes);
            runner.run(&bytes);
            assert!(used(&mut runner) - before <= 16 * bytes.len(), "{command}");
        }
    }
}
