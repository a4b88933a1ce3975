//! Tests of how much one operation may do.

use super::KvService;
use super::call::Fail;
use super::op::{self, Step};
use super::reply::Protocol;
use super::tests::{Rng, random_command};
use crate::testing::Runner;

fn kv() -> Runner<KvService> {
    Runner::new(KvService::new())
}

fn refusal() -> String {
    format!("-{}", Fail::TOO_MUCH_WORK.0)
}

/// A service with a set, a sorted set, a hash and a list of `len` elements each.
fn stocked(len: usize) -> Runner<KvService> {
    let mut runner = kv();
    let elements: Vec<String> = (0..len).map(|i| format!("m{i}")).collect();
    for part in elements.chunks(10_000) {
        let plain = part.join(" ");
        let paired: String = part.iter().map(|m| format!("1 {m} ")).collect();
        let fields: String = part.iter().map(|m| format!("{m} 1 ")).collect();
        runner.command(&format!("SADD s {plain}"));
        runner.command(&format!("RPUSH l {plain}"));
        runner.command(&format!("ZADD z {paired}"));
        runner.command(&format!("HSET h {fields}"));
    }
    runner
}

fn transaction(runner: &mut Runner<KvService>, lines: &[&str]) -> String {
    let step = |line: &&'static str| Step::Command(line.split(' ').map(str::as_bytes).collect());
    let lines: Vec<&'static str> =
        lines.iter().map(|line| &*Box::leak((*line).to_owned().into_boxed_str())).collect();
    let steps: Vec<Step<'_>> = lines.iter().map(step).collect();
    let mut bytes = vec![];
    op::encode_transaction(Protocol::Resp2, &[], &steps, &mut bytes);
    String::from_utf8_lossy(&runner.run(&bytes)).into_owned()
}

#[test]
fn naming_a_set_many_times_costs_nothing() {
    let mut runner = stocked(10_000);
    let keys = "s ".repeat(100_000);
    assert_eq!(runner.command(&format!("SINTERSTORE d {keys}")), ":10000");
    assert_eq!(runner.command(&format!("SINTERCARD 100000 {keys}")), ":10000");
    assert_eq!(runner.command(&format!("SUNIONSTORE d {keys}")), ":10000");
    assert_eq!(runner.command(&format!("SDIFFSTORE d {keys}")), ":0");
    runner.command("SADD other a");
    assert_eq!(runner.command(&format!("SDIFFSTORE d other {keys}")), ":1");
}

#[test]
fn naming_many_sets_or_one_sorted_set_many_times_is_refused() {
    let mut runner = stocked(10_000);
    for i in 0..4000 {
        runner.command(&format!("COPY s s{i}"));
    }
    let all: String = (0..4000).map(|i| format!("s{i} ")).collect();
    let root = runner.root();
    let keys = "z ".repeat(100_000);
    let weights = "0.5 ".repeat(100_000);
    for command in [
        format!("SINTERSTORE d {all}"),
        format!("SINTER {all}"),
        format!("SINTERCARD 4000 {all}"),
        format!("SUNIONSTORE d {all}"),
        format!("SUNION {all}"),
        format!("ZUNIONSTORE d 100000 {keys}"),
        format!("ZUNIONSTORE d 100000 {keys} WEIGHTS {weights}"),
        format!("ZUNION 100000 {keys}"),
        format!("ZINTERSTORE d 100000 {keys}"),
        format!("ZINTER 100000 {keys}"),
        format!("ZINTERCARD 100000 {keys}"),
        format!("ZDIFFSTORE d 100000 {keys}"),
        format!("ZDIFF 100000 {keys}"),
    ] {
        assert_eq!(runner.command(&command), refusal(), "{:.20}", command);
    }
    assert_eq!(runner.root(), root, "what is refused changes nothing");
}

#[test]
fn sets_of_a_million_members_are_worked_with() {
    let mut runner = kv();
    for part in 0..20 {
        let members: String = (0..50_000).map(|i| format!("{} ", part * 50_000 + i)).collect();
        runner.command(&format!("SADD a {members}"));
    }
    runner.command("COPY a b");
    assert_eq!(runner.command("SINTERSTORE d a b"), ":1000000");
    assert_eq!(runner.command("SUNIONSTORE d a b"), ":1000000");
    assert_eq!(runner.command("ZUNIONSTORE d 2 a b"), ":1000000");
    assert_eq!(runner.command("ZREMRANGEBYRANK d 1 -2"), ":999998");
    assert_eq!(runner.command("ZRANGE d 0 -1 WITHSCORES"), "*4 $1 0 $1 2 $6 999999 $1 2");
}

#[test]
fn a_transaction_shares_out_its_work() {
    let mut runner = kv();
    let big = vec![b'x'; 12 << 20];
    runner.args(&[b"SET".as_slice(), b"big", &big]);
    // 204 MiB each: one of them is done.
    let bitop = format!("BITOP OR sum{}", " big".repeat(17));
    assert_eq!(runner.command(&bitop), format!(":{}", big.len()));
    let reply = transaction(&mut runner, &[&bitop, "SET a 1", &bitop, "SET b 2"]);
    let done = format!("*4\r\n:{}\r\n+OK\r\n{}\r\n+OK\r\n", big.len(), refusal());
    assert_eq!(reply, done);
    assert_eq!(runner.command("MGET a b"), "*2 $1 1 $1 2", "what was not too much is done");
    assert_eq!(runner.command(&bitop), format!(":{}", big.len()), "the next operation begins anew");
}

/// Every command that looks for something, or makes much of a short request, costs.
#[test]
fn no_command_is_repeated_for_nothing() {
    for command in [
        "LINSERT l BEFORE none x",
        "LREM l 0 none",
        "LPOS l none",
        "LPOS l none RANK -1 COUNT 0",
        "COPY s copy REPLACE",
        "COPY z copy REPLACE",
        "COPY h copy REPLACE",
        "COPY l copy REPLACE",
        "COPY big copy REPLACE",
        "BITCOUNT big",
        "BITPOS big 1",
        "SUNIONSTORE d s",
        "SDIFFSTORE d s none",
        "SINTERCARD 2 s s2 LIMIT 1",
        "ZUNIONSTORE d 1 z",
        "ZRANGESTORE d z 0 -1",
        "ZRANK z m1",
        "ZREVRANK z m1",
        "ZCOUNT z -inf +inf",
        "ZRANGE z 9000 9000",
        "SRANDMEMBER s 9000",
        "HRANDFIELD h 9000",
        "ZRANDMEMBER z 9000",
        "SSCAN s 0 COUNT 10000 MATCH none",
        "HSCAN h 0 COUNT 10000 MATCH none",
        "ZSCAN z 0 COUNT 10000 MATCH none",
        "KEYS none",
        "SCAN 0 COUNT 1000 MATCH none",
        "SETRANGE grown 100000 x",
        "SETBIT grown 800000 1",
        "BITFIELD grown SET u8 800000 1",
        "INCRBYFLOAT small 1e-4000",
        "HINCRBYFLOAT h f 1e-4000",
        "FLUSHALL",
    ] {
        let mut runner = stocked_with_all();
        runner.command(command);
        let steps = runner.service.db().work.spent();
        assert!(steps > 0, "{command}");

        let mut runner = stocked_with_all();
        let root = runner.root();
        runner.service.db().work.max = steps - 1;
        assert_eq!(runner.command(command), refusal(), "{command}");
        assert_eq!(runner.root(), root, "{command} has changed something");

        // What has grown once need not grow again.
        if !command.contains("grown") {
            runner.service.db().work.max = steps * 3 / 2;
            let twice = transaction(&mut runner, &[command, command]);
            let second = twice.trim_end().rsplit("\r\n").next().unwrap_or_default();
            assert_eq!(second, refusal(), "{command}");
        }
    }
}

/// Every kind of value with 10,000 elements or 100,000 bytes, and some keys.
fn stocked_with_all() -> Runner<KvService> {
    let mut runner = stocked(10_000);
    runner.command("SADD s2 m1");
    (0..100).for_each(|i| drop(runner.command(&format!("SET key{i} 1"))));
    let zeroes = vec![0; 100_000];
    runner.args(&[b"SET".as_slice(), b"big", &zeroes]);
    assert_eq!(runner.service.db().work.spent(), 0, "what the request holds costs nothing");
    runner
}

#[test]
fn replies_that_nobody_reads_are_not_made() {
    let mut runner = kv();
    let big = vec![b'x'; 12 << 20];
    runner.args(&[b"SET".as_slice(), b"big", &big]);
    // Without that, it would copy 768 GiB.
    let mut lines = vec!["GET big"; 60_000];
    lines.push("SET a 1");
    let reply = transaction(&mut runner, &lines);
    assert_eq!(reply, "-ERR reply exceeds the maximum size of a reply\r\n");
    assert_eq!(runner.command("GET a"), "$1 1");
}

#[test]
fn patterns_that_try_everything_are_given_up() {
    let mut runner = kv();
    runner.args(&["SADD", "s", &"a".repeat(1_000_000)]);
    runner.args(&["SET", &"a".repeat(1_000_000), "1"]);
    let pattern = "*".to_owned() + &"a".repeat(500_000) + "b";
    for command in ["KEYS", "SCAN 0 MATCH", "SSCAN s 0 MATCH"] {
        assert_eq!(runner.command(&format!("{command} {pattern}")), refusal(), "{command}");
    }
}

#[test]
fn keys_that_crowd_one_bucket_are_not_added_without_end() {
    let mut runner = kv();
    let bucket = |key: &str| super::siphash::hash(key.as_bytes()) >> 48;
    let near = |key: &String| bucket(key) == bucket("fill");
    let keys: Vec<String> = (0..).map(|i| format!("k{i}")).filter(near).take(100).collect();
    let pairs: String = keys.iter().map(|key| format!("{key} 1 ")).collect();
    runner.service.db().work.max = 200;
    assert_eq!(runner.command(&format!("MSET {pairs}")), refusal());
    assert_eq!(runner.command("DBSIZE"), ":0");
    runner.service.db().work.max = 100_000;
    assert_eq!(runner.command(&format!("MSET {pairs}")), "+OK");
    runner.service.db().work.max = 200;
    assert_eq!(runner.command(&format!("DEL {}", keys.join(" "))), refusal());
    assert_eq!(runner.command(&format!("DEL {}", keys[..50].join(" "))), ":50");
}

/// What is refused depends on the state, not on how a replica came to it.
#[test]
fn a_replica_that_fetched_the_state_refuses_the_same() {
    let mut rng = Rng(7);
    let (mut runner, mut refused) = (kv(), 0);
    for round in 0..40 {
        runner.service.db().work.max = super::work::WORK_MAX;
        (0..500).for_each(|_| drop(runner.command(&random_command(&mut rng))));
        let mut fetched = kv();
        fetched.load(&runner.service);
        fetched.now_ms = runner.now_ms;
        let max = 1 + rng.below(60) as usize;
        runner.service.db().work.max = max;
        fetched.service.db().work.max = max;
        for _ in 0..50 {
            let lines: Vec<String> = (0..6).map(|_| random_command(&mut rng)).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let replies = [&mut runner, &mut fetched].map(|r| {
                // Choices depend on the place in the order, which differs here.
                let without: Vec<&str> = lines.iter().copied().filter(is_steady).collect();
                transaction(r, &without)
            });
            assert_eq!(replies[0], replies[1], "round {round}: {lines:?}");
            refused += usize::from(replies[0].contains(&refusal()));
        }
    }
    assert!(refused > 100, "{refused}");
}

fn is_steady(line: &&str) -> bool {
    !["SPOP", "RANDOMKEY"].iter().any(|word| line.starts_with(word))
}

/// What is short costs what is there of it, beside whatever else is named: this would take hours.
#[test]
fn combining_a_long_string_with_a_million_short_ones_takes_no_longer_than_reading_them() {
    let mut runner = kv();
    let big = vec![0x5a; 12 << 20];
    runner.args(&[b"SET".as_slice(), b"big", &big]);
    runner.command("SET small abc");
    let others = " none small".repeat(500_000);
    for (how, end) in [("OR", "Z"), ("XOR", "Z"), ("AND", "\0")] {
        let len = format!(":{}", big.len());
        assert_eq!(runner.command(&format!("BITOP {how} d big{others}")), len);
        assert_eq!(runner.command("GETRANGE d 12582911 -1"), format!("$1 {end}"), "{how}");
    }
}

/// Replies that are too large are thrown away, and so the transaction's does not grow by them.
#[test]
fn a_transaction_of_commands_that_answer_too_much_ends_soon() {
    let mut runner = kv();
    runner.args(&[b"SET".as_slice(), b"big", &vec![b'x'; 12 << 20]]);
    let lines = vec!["MGET big big"; 1000];
    let reply = transaction(&mut runner, &lines);
    let last = reply.trim_end().rsplit("\r\n").next().unwrap_or_default();
    assert_eq!(last, refusal());
    assert!(reply.starts_with("*1000\r\n-"), "{}", &reply[..64]);
}

#[test]
fn a_number_that_is_none_costs_what_it_takes_to_find_that_out() {
    for command in ["HINCRBYFLOAT h f 1e-4999", "INCRBYFLOAT a 1e-4999"] {
        let mut runner = kv();
        assert!(runner.command(command).contains("not a valid float"), "{command}");
        let steps = runner.service.db().work.spent();
        assert!(steps > 0, "{command}");
        runner.service.db().work.max = steps - 1;
        assert_eq!(runner.command(command), refusal(), "{command}");
    }
}
