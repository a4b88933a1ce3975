//! Random commands against the gateway and against Debian's `redis-server`: the replies must be
//! the same, over RESP2 and RESP3, through real sockets.
//!
//! How replies are compared: byte by byte, except
//! * replies without an order (`KEYS`, `SMEMBERS`, `HGETALL`, `HKEYS`, `HVALS`, `SINTER`,
//!   `SUNION`, `SDIFF`) as multisets;
//! * the `SCAN` family over a whole iteration, as multisets: cursors are the server's own;
//! * random choices (`SRANDMEMBER`, `HRANDFIELD`, `ZRANDMEMBER`, `RANDOMKEY`) for validity:
//!   number, distinctness and membership; `SPOP` is played at the gateway, checked against the
//!   set that Redis has, and repeated there with `SREM`;
//! * `TTL`, `PTTL`, `EXPIRETIME` and `PEXPIRETIME` with a tolerance, when the expiry was given
//!   relative to now.
//!
//! What is excluded, and why:
//! * expiries in the near future: two servers never expire a key in the same instant. Short
//!   expiries have their own test below, which waits;
//! * random choices, `SPOP` and the `SCAN` family inside `MULTI`: they are checked with further
//!   commands, which do not fit into a transaction;
//! * ranges by member (`BYLEX`) of sorted sets with different scores: Redis leaves open what
//!   they mean. Keys of their own hold sets with one score;
//! * the spelling of scores in `ZSCAN`, which depends on how Redis happens to store the set:
//!   scores are compared as numbers. Likewise the sign of a zero score;
//! * cursors of the `SCAN` family other than 0 and those that the server gave;
//! * commands about the server's inside (`OBJECT`, `INFO`, `TIME`, `CLIENT LIST`, `CLIENT ID`,
//!   `HELLO`'s connection number, `COMMAND DOCS`, values of `CONFIG GET`): another server has
//!   another inside;
//! * `SELECT` of other databases than 0, and `COPY ... DB` to another one: there is one;
//! * `CLIENT SETNAME` inside `MULTI`: here it takes effect even when a watched key stops `EXEC`;
//! * `HELLO` and `CLIENT REPLY` inside `MULTI`: refused here, allowed by Redis.
//!
//! `STYLITE_TEST_SCALE=full` plays 240,000 commands, otherwise 120,000. `STYLITE_TEST_SEED`
//! names the first seed, `STYLITE_TEST_REDIS_TARGET` the address of a running gateway to test
//! instead of one of our own (its keys are flushed).

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/redis_compare.rs"]
mod redis_compare;
#[path = "support/redis_random.rs"]
mod redis_random;
#[path = "support/redis_servers.rs"]
#[allow(dead_code, reason = "shared with the other test")]
mod redis_servers;
#[path = "support/redis_templates.rs"]
mod redis_templates;
#[path = "support/redis_wire.rs"]
#[allow(dead_code, reason = "shared with the other test")]
mod redis_wire;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node::gateway::{Config, Local};
use svc::kv::table::{self, Run};

use redis_compare::{Pair, Step, shrink};
use redis_random::{Coverage, Generator};
use redis_servers::{Gateway, RealRedis};
use redis_wire::Value;

/// Commands of one seed, on fresh connections and empty servers.
const SESSION: usize = 500;

/// A gateway that is given from outside has one key space for all tests.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gateway under test, and the address that it or another one has.
fn target() -> (Option<Gateway>, SocketAddr) {
    if let Ok(addr) = std::env::var("STYLITE_TEST_REDIS_TARGET") {
        return (None, addr.parse().expect("STYLITE_TEST_REDIS_TARGET is an address"));
    }
    // Long enough that no timer of the gateway helps a connection that got stuck.
    let request_timeout = Duration::from_secs(3600);
    let config = Config { request_timeout, ..Config::default() };
    let gateway = Gateway::start(Local::new(), config);
    let addr = gateway.addr;
    (Some(gateway), addr)
}

fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn session(seed: u64, length: usize, coverage: &mut Coverage) -> Vec<Step> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut generator = Generator::new(seed, now, |name| table::lookup(name.as_bytes()).is_some());
    (0..length)
        .map(|_| {
            let args = generator.command();
            let name = String::from_utf8_lossy(&args[0]).to_ascii_lowercase();
            *coverage.entry(name).or_default() += 1;
            // A second connection changes watched keys now and then.
            Step { args, other: generator.rng().chance(7) }
        })
        .collect()
}

/// How many commands a run plays, and the seed it begins with.
fn extent(ci: u64, full: u64) -> (u64, u64) {
    let at_full = std::env::var("STYLITE_TEST_SCALE").is_ok_and(|scale| scale == "full");
    let total = env_number("STYLITE_TEST_COMMANDS").unwrap_or(if at_full { full } else { ci });
    (total, env_number("STYLITE_TEST_SEED").unwrap_or(1))
}

#[test]
fn random_commands_get_the_replies_of_redis() {
    let _alone = alone();
    let Some(real) = RealRedis::start() else { return };
    let (_gateway, addr) = target();
    let (total, first) = extent(120_000, 240_000);
    compare(addr, &real, total, first);
}

/// The same through four replica processes and a gateway process.
#[test]
fn random_commands_get_the_replies_of_redis_from_a_replicated_group() {
    let _alone = alone();
    let Some(real) = RealRedis::start() else { return };
    let shape = cluster::Shape { replicas: 4, pillars: 1, service: "kv" };
    let group = cluster::Cluster::start(shape, 0);
    let gateway = cluster::Gateway::start(&group.path());
    let addr = SocketAddr::from(([127, 0, 0, 1], gateway.port));
    let (total, first) = extent(100_000, 200_000);
    // Other seeds than those of the test above, which is about the service.
    compare(addr, &real, total, first + 1_000_000);
}

/// Plays random commands against both servers; every reply must be the same.
fn compare(addr: SocketAddr, real: &RealRedis, total: u64, first: u64) {
    let mut coverage = Coverage::new();
    let (mut played, mut seed, mut failures) = (0, first, 0);
    let mut replies = (0, 0);
    while played < total {
        let steps = session(seed, SESSION, &mut coverage);
        let resp3 = seed % 2 == 1;
        let mut pair = Pair::connect(addr, real.addr, resp3);
        let played_well = pair.play(&steps);
        replies = (replies.0 + pair.replies.0, replies.1 + pair.replies.1);
        if let Err(failure) = played_well {
            failures += 1;
            println!("seed {seed} (RESP{}): {failure}", if resp3 { 3 } else { 2 });
            let small = shrink(&steps[..=failure.step], |steps| {
                Pair::connect(addr, real.addr, resp3).play(steps).err()
            });
            println!("smallest history:");
            small.iter().for_each(|step| println!("  {step}"));
            if failures >= env_number("STYLITE_TEST_FAILURES").unwrap_or(1) {
                break;
            }
        }
        played += steps.len() as u64;
        seed += 1;
    }
    println!("{played} random commands, seeds {first}..{seed}, {failures} differences");
    let (all, errors) = replies;
    println!("{errors} of {all} plain replies of Redis were errors");
    // Commands that are all refused would show nothing.
    assert!(errors * 2 < all, "the generator makes too few good commands");
    assert_eq!(failures, 0, "replies differ; see above");
    if total >= 50_000 {
        check_coverage(&coverage);
    }
}

/// Every command of the service was played, or is excluded above.
fn check_coverage(coverage: &Coverage) {
    let excluded = BTreeSet::from(["time", "object"]);
    let missed: Vec<&str> = table::all()
        .iter()
        .filter(|spec| matches!(spec.run, Run::Service(_)))
        .map(|spec| spec.name)
        .filter(|name| !excluded.contains(name) && !coverage.contains_key(*name))
        .collect();
    assert!(missed.is_empty(), "never played: {missed:?}");
}

#[test]
fn keys_expire_after_their_time_as_in_redis() {
    let _alone = alone();
    let Some(real) = RealRedis::start() else { return };
    let (_gateway, addr) = target();
    let mut pair = Pair::connect(addr, real.addr, false);
    let setup = [
        "set a 1 px 60",
        "psetex b 60 1",
        "set c 1",
        "pexpire c 60",
        "hset h f v",
        "pexpire h 60",
        "rpush l 1 2",
        "pexpire l 60",
        "set d 1 px 60",
        "persist d",
        "set e 1 px 60",
        "set e 2",
        "set f 1 px 60",
        "set f 2 keepttl",
        "set g 1 px 60",
        "rename g i",
        "set j 1 px 60",
        "copy j k",
        "zadd z 1 m",
        "pexpire z 60",
        "set n 5",
        "getex n px 60",
    ];
    let looks = [
        "get a",
        "get b",
        "get c",
        "hgetall h",
        "lrange l 0 -1",
        "get d",
        "get e",
        "get f",
        "exists g i",
        "exists j k",
        "zscore z m",
        "get n",
        "ttl a",
        "pttl h",
        "type l",
        "ttl d",
        "incr a",
        "rpush l 3",
        "lrange l 0 -1",
        "ttl l",
        "exists a b c d e f",
        "keys *",
        "strlen f",
        "setnx b 2",
        "get b",
        "append c x",
        "get c",
    ];
    let mut steps: Vec<Step> = setup.iter().map(|line| Step::of(line)).collect();
    pair.play(&steps).unwrap_or_else(|failure| panic!("{failure}"));
    std::thread::sleep(Duration::from_millis(200));
    steps = looks.iter().map(|line| Step::of(line)).collect();
    pair.continue_with(&steps).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(pair.ours().cmd("get a"), Value::Bulk(b"1".to_vec()));
}
