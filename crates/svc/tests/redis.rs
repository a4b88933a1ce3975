//! The service against the real thing: random commands go to a `redis-server` of the machine and
//! to a service in this process, and every reply must be the same.
//!
//! Replies whose order Redis does not promise are compared as multisets, random ones by size and
//! kind, times with a tolerance. Without a `redis-server` (or `STYLITE_REDIS_SERVER`) on the
//! machine the test says that it was skipped. `STYLITE_DIFFERENTIAL=n` sets the number of
//! commands, `STYLITE_SEED=n` the seed.

mod support;

use support::generator::Generator;
use support::redis::Redis;
use support::resp::Reply;
use support::twin::Twin;

/// Commands with random replies, of which only the shape is compared.
const RANDOM: [&str; 4] = ["randomkey", "srandmember", "hrandfield", "zrandmember"];
/// Commands whose replies have no promised order.
const UNORDERED: [&str; 7] = ["keys", "smembers", "sunion", "sinter", "sdiff", "hkeys", "hvals"];
/// Commands that answer with a cursor and items.
const SCANS: [&str; 4] = ["scan", "hscan", "sscan", "zscan"];
/// Commands about the time left or the time of expiry.
const TIMES: [&str; 4] = ["ttl", "pttl", "expiretime", "pexpiretime"];

/// Where programs are required, to have nothing to compare with is a failure.
fn skip() {
    let required = std::env::var_os("STYLITE_TEST_REQUIRE_PROGRAMS").is_some();
    assert!(!required, "there is no redis-server on this machine");
    println!("skipped: there is no redis-server on this machine");
}

#[test]
fn replies_equal_those_of_redis_in_resp2() {
    compare(2, 1, false);
}

#[test]
fn replies_equal_those_of_redis_in_resp3() {
    compare(3, 2, false);
}

#[test]
fn replies_about_large_collections_equal_those_of_redis() {
    compare(3, 3, true);
}

/// Arity, positions of keys and the flags that clients act on are those of Redis.
#[test]
fn the_table_of_commands_agrees_with_that_of_redis() {
    use svc::kv::table::{self, flags};
    let Some(mut redis) = Redis::start(2) else {
        skip();
        return;
    };
    let mut wrong = vec![];
    for spec in table::all() {
        let ask = ["COMMAND", "INFO", spec.name].map(|arg| arg.as_bytes().to_vec());
        let Reply::Aggregate(_, infos) = redis.command(&ask) else { panic!("an array") };
        let Reply::Aggregate(_, info) = &infos[0] else { panic!("no command: {}", spec.name) };
        let has = |flag: &str| match &info[2] {
            Reply::Aggregate(_, all) => {
                all.iter().any(|f| f.bytes() == format!("+{flag}").as_bytes())
            }
            _ => false,
        };
        let (first, last, step) = spec.key_range();
        let ours = [spec.arity.into(), first, last, step].map(Reply::Integer);
        let theirs = [1, 3, 4, 5].map(|index| info[index].clone());
        if ours != theirs {
            wrong.push(format!("{}: {ours:?} is {theirs:?}", spec.name));
        }
        let flags = [
            (flags::WRITE, "write"),
            (flags::READONLY, "readonly"),
            (flags::DENYOOM, "denyoom"),
            (flags::FAST, "fast"),
            (flags::LOADING, "loading"),
            (flags::STALE, "stale"),
            (flags::NOSCRIPT, "noscript"),
            (flags::NO_AUTH, "no_auth"),
            (flags::NO_MULTI, "no_multi"),
        ];
        for (flag, name) in flags {
            if has(name) != (spec.flags & flag != 0) {
                wrong.push(format!("{}: {name} is {}", spec.name, has(name)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn compare(protocol: u8, seed: u64, large: bool) {
    let Some(mut redis) = Redis::start(protocol) else {
        skip();
        return;
    };
    let mut twin = Twin::new(protocol);
    let mut generator = Generator::new(number("STYLITE_SEED", seed), large);
    let mut differences = 0;
    for round in 0..number("STYLITE_DIFFERENTIAL", 20_000) {
        let args = generator.command();
        let name = String::from_utf8_lossy(&args[0]).to_lowercase();
        if name == "dbsize" {
            // Redis counts keys whose time has passed until it meets them; this makes it.
            redis.command(&["SCAN", "0", "COUNT", "100000"].map(|arg| arg.as_bytes().to_vec()));
        }
        let (ours, theirs) = if name == "spop" {
            pop(&mut redis, &mut twin, &args)
        } else {
            (twin.command(&args), redis.command(&args))
        };
        if !alike(&name, &args, &ours, &theirs) {
            let shown: Vec<_> = args.iter().map(|arg| arg.escape_ascii().to_string()).collect();
            println!("#{round} {}\n   ours {ours:.300}\n theirs {theirs:.300}", shown.join(" "));
            differences += 1;
            assert!(differences < 40, "too many differences");
        }
    }
    assert_eq!(differences, 0);
}

/// What SPOP takes is random: what the service took is taken from Redis as well.
fn pop(redis: &mut Redis, twin: &mut Twin, args: &[Vec<u8>]) -> (Reply, Reply) {
    let before = redis.command(&[b"SCARD".to_vec(), args.get(1).cloned().unwrap_or_default()]);
    let ours = twin.command(args);
    let members: Vec<Vec<u8>> = match &ours {
        Reply::Bulk(member) => vec![member.clone()],
        Reply::Aggregate(_, items) if !items.is_empty() => {
            items.iter().map(|item| item.bytes().to_vec()).collect()
        }
        _ => return (ours, redis.command(args)),
    };
    let remove = [vec![b"SREM".to_vec(), args[1].clone()], members.clone()].concat();
    let removed = redis.command(&remove);
    assert_eq!(removed, Reply::Integer(members.len() as i64), "popped what was there");
    let Reply::Integer(before) = before else { panic!("a set was popped from {before}") };
    if args.len() == 3 {
        let asked: i64 = String::from_utf8_lossy(&args[2]).parse().expect("it was accepted");
        assert_eq!(members.len() as i64, asked.min(before));
    }
    (ours.clone(), ours)
}

fn alike(name: &str, args: &[Vec<u8>], ours: &Reply, theirs: &Reply) -> bool {
    // Small sorted sets of Redis lose the sign of zero, large ones keep it.
    if ours == theirs || name.starts_with('z') && ours.unsigned() == theirs.unsigned() {
        return true;
    }
    if UNORDERED.contains(&name) {
        return ours.sorted(1) == theirs.sorted(1);
    }
    if name == "hgetall" {
        return ours.sorted(2) == theirs.sorted(2);
    }
    if RANDOM.contains(&name) {
        return ours.shape() == theirs.shape();
    }
    if SCANS.contains(&name) {
        let pairs = if name == "hscan" || name == "zscan" { 2 } else { 1 };
        return match (ours, theirs) {
            (Reply::Aggregate(_, a), Reply::Aggregate(_, b)) if a.len() == 2 && b.len() == 2 => {
                // Only a scan of everything at once can be compared.
                let start = if name == "scan" { 1 } else { 2 };
                let whole = args[start..].starts_with(&["0", "COUNT", "100000"].map(Vec::from));
                let (ours, theirs) = (a[1].sorted(pairs), b[1].sorted(pairs));
                let scores = name == "zscan" && ours.rounded() == theirs.rounded();
                !whole || a[0] == b[0] && (ours == theirs || scores)
            }
            _ => false,
        };
    }
    if TIMES.contains(&name) {
        let tolerance = if name.starts_with('p') { 2000 } else { 2 };
        return match (ours, theirs) {
            (Reply::Integer(a), Reply::Integer(b)) => {
                *a > 0 && *b > 0 && (a - b).abs() <= tolerance
            }
            _ => false,
        };
    }
    name == "time" && args.len() == 1 && ours.shape() == theirs.shape()
}
