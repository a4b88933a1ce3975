//! Tests of the service as a whole: determinism, digests, expiry, transactions, watches.

use super::call::Fail;
use super::*;
use crate::testing::Runner;
use exec::Service;
use op::Step;
use reply::Protocol;

fn kv() -> Runner<KvService> {
    Runner::new(KvService::new())
}

/// Runs commands and compares replies, written with blanks for line breaks.
fn check(runner: &mut Runner<KvService>, cases: &[(&str, &str)]) {
    for (command, wanted) in cases {
        assert_eq!(runner.command(command), *wanted, "{command}");
    }
}

/// A small generator, the same sequence for the same seed.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % bound
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

/// A random command that changes something more often than not.
pub(super) fn random_command(rng: &mut Rng) -> String {
    let templates = [
        "SET K V",
        "SET K V PX N",
        "SET K V KEEPTTL",
        "APPEND K V",
        "INCRBY K N",
        "DEL K",
        "SETRANGE K N V",
        "SETBIT K N 1",
        "PEXPIRE K N",
        "PERSIST K",
        "RENAME K K",
        "COPY K K REPLACE",
        "GETDEL K",
        "MSET K V K V",
        "BITFIELD K INCRBY u8 N 7",
        "HSET K F V",
        "HDEL K F",
        "HINCRBY K F N",
        "LPUSH K V V",
        "RPOP K",
        "LTRIM K 0 3",
        "LINSERT K BEFORE V V",
        "SADD K F F",
        "SREM K F",
        "SPOP K",
        "SUNIONSTORE K K K",
        "ZADD K N F",
        "ZINCRBY K N F",
        "ZREM K F",
        "ZPOPMIN K",
        "ZUNIONSTORE K 2 K K",
        "GET K",
        "SCAN 0",
        "DBSIZE",
        "RANDOMKEY",
        "KEYS *",
    ];
    let template = rng.pick(&templates);
    let word = |rng: &mut Rng, word: &str| match word {
        "K" => format!("key:{}", rng.below(60)),
        "F" => format!("field:{}", rng.below(20)),
        "V" => rng.pick(&["a", "42", "value", "another-value-which-is-longer"]).to_owned(),
        "N" => rng.below(3000).to_string(),
        word => word.to_owned(),
    };
    template.split(' ').map(|w| word(rng, w)).collect::<Vec<_>>().join(" ")
}

#[test]
fn two_services_with_the_same_operations_answer_alike_and_are_alike() {
    let (mut a, mut b) = (kv(), kv());
    let mut rng = Rng(1);
    for round in 0..20_000 {
        let command = random_command(&mut rng);
        assert_eq!(a.command(&command), b.command(&command), "{command}");
        if round % 10 == 0 {
            (a.now_ms, b.now_ms) = (a.now_ms + 37, b.now_ms + 37);
            assert_eq!(a.wake(), b.wake());
        }
        // One of them makes checkpoints, the other does not: digests are only caches.
        if round % 100 == 0 {
            a.root();
        }
    }
    assert_eq!(a.root(), b.root());
}

#[test]
fn digests_after_changes_equal_digests_of_a_fresh_service_with_the_same_objects() {
    let mut runner = kv();
    let mut rng = Rng(2);
    for _ in 0..20 {
        for _ in 0..1000 {
            runner.command(&random_command(&mut rng));
            if rng.below(20) == 0 {
                runner.now_ms += 100;
                runner.wake();
            }
        }
        let mut fresh = kv();
        fresh.load(&runner.service);
        assert_eq!(fresh.root(), runner.root());
        // And it goes on alike: the expiries have moved as well.
        (fresh.now_ms, runner.now_ms) = (runner.now_ms + 1500, runner.now_ms + 1500);
        assert_eq!(fresh.wake(), runner.wake());
        assert_eq!(fresh.root(), runner.root());
        assert_eq!(fresh.service.db().len(), runner.service.db().len());
    }
}

#[test]
fn an_object_that_is_broken_is_refused() {
    use exec::Service;
    let mut runner = kv();
    runner.command("SET a 1");
    let object = (0..runner.service.objects()).find(|object| {
        let mut bytes = vec![];
        runner.service.get(*object, &mut bytes);
        bytes.len() > 12
    });
    let object = object.expect("one bucket holds the key");
    let mut bytes = vec![];
    runner.service.get(object, &mut bytes);
    assert!(runner.service.put(object ^ 1, &bytes).is_err(), "a key of another bucket");
    for len in 0..bytes.len() {
        assert!(runner.service.put(object, &bytes[..len]).is_err());
    }
    assert!(runner.service.put(object, &bytes).is_ok());
    assert_eq!(runner.command("GET a"), "$1 1");
}

#[test]
fn reads_and_failures_change_no_object() {
    let mut runner = kv();
    check(&mut runner, &[("SET a x", "+OK"), ("LPUSH l 1", ":1"), ("EXPIRE l 100", ":1")]);
    runner.root();
    for command in [
        "GET a",
        "INCR a",
        "LPUSH a 1",
        "TTL l",
        "SET a 1 NX",
        "DEL none",
        "PERSIST a",
        "GETEX a",
        "EXPIRE none 5",
        "RENAME none x",
        "RENAMENX a l",
        "COPY a l",
        "SETRANGE a 0",
        "KEYS *",
        "SCAN 0",
        "APPEND l x",
        "MSETNX a 1 b 2",
        "BITFIELD a GET u8 0",
        "EXPIRE l 5 GT",
        "FOO",
    ] {
        runner.command(command);
        assert_eq!(runner.marked(), 0, "{command}");
    }
    check(&mut runner, &[("DEL a", ":1")]);
    assert_eq!(runner.marked(), 1);
}

#[test]
fn keys_vanish_at_their_time_and_not_before() {
    let mut runner = kv();
    check(&mut runner, &[("SET a 1 PX 100", "+OK"), ("SET b 1", "+OK"), ("PTTL a", ":100")]);
    runner.now_ms += 100;
    check(&mut runner, &[("PTTL a", ":0"), ("EXISTS a", ":1"), ("DBSIZE", ":2")]);
    runner.now_ms += 1;
    let gone = [
        ("EXISTS a", ":0"),
        ("GET a", "$-1"),
        ("TTL a", ":-2"),
        ("DBSIZE", ":1"),
        ("KEYS *", "*1 $1 b"),
        ("RANDOMKEY", "$1 b"),
        ("SCAN 0", "*2 $1 0 *1 $1 b"),
        ("TYPE a", "+none"),
        ("RENAME a c", "-ERR no such key"),
        ("DEL a", ":0"),
    ];
    check(&mut runner, &gone);
    // Whether it has been removed is not observable.
    assert!(runner.wake());
    assert!(!runner.wake());
    check(&mut runner, &gone);
    check(&mut runner, &[("APPEND a x", ":1"), ("TTL a", ":-1")]);
}

#[test]
fn a_key_that_expired_but_was_not_removed_can_be_written_again() {
    let mut runner = kv();
    for again in ["LPUSH a 1", "SET a 1", "INCR a", "SADD a 1", "SET a 1 KEEPTTL", "APPEND a 1"] {
        check(&mut runner, &[("DEL a", ":0"), ("SET a x PX 5", "+OK")]);
        runner.now_ms += 6;
        runner.command(again);
        check(&mut runner, &[("TTL a", ":-1"), ("DEL a", ":1")]);
        assert!(!runner.wake(), "{again}");
    }
}

#[test]
fn waking_removes_a_bounded_number_of_keys() {
    use exec::Service;
    let mut runner = kv();
    for i in 0..2500 {
        runner.command(&format!("SET key:{i} x PX 5"));
    }
    runner.now_ms += 6;
    let wakes = (0..10).take_while(|_| runner.wake()).count();
    assert_eq!(wakes, 3);
    assert_eq!(runner.service.deadline(), None);
}

#[test]
fn commands_that_are_none_are_refused_as_redis_refuses_them() {
    let mut runner = kv();
    check(
        &mut runner,
        &[
            ("NOPE", "-ERR unknown command 'NOPE', with args beginning with:"),
            ("nope a bc", "-ERR unknown command 'nope', with args beginning with: 'a' 'bc'"),
            ("GET", "-ERR wrong number of arguments for 'get' command"),
            ("get a b", "-ERR wrong number of arguments for 'get' command"),
        ],
    );
    let long = format!("X {} {}", "y".repeat(100), "z".repeat(100));
    let wanted = format!(
        "-ERR unknown command 'X', with args beginning with: '{}' '{}'",
        "y".repeat(100),
        "z".repeat(25)
    );
    assert_eq!(runner.command(&long), wanted);
    assert_eq!(runner.run(b"\x01\x07"), b"-ERR malformed operation\r\n");
    assert_eq!(runner.run(b""), b"-ERR malformed operation\r\n");
}

fn watch(runner: &mut Runner<KvService>, key: &str) -> u64 {
    let mut bytes = vec![];
    op::encode_watch(Protocol::Resp2, &[key], &mut bytes);
    op::decode_versions(&runner.run(&bytes), 1).expect("one version")[0]
}

fn exec(runner: &mut Runner<KvService>, watched: &[(&str, u64)], lines: &[&str]) -> String {
    let watched: Vec<(&[u8], u64)> = watched.iter().map(|(k, v)| (k.as_bytes(), *v)).collect();
    let step = |line: &&'static str| {
        line.strip_prefix('=').map_or_else(
            || Step::Command(line.split(' ').map(str::as_bytes).collect()),
            |reply| Step::Reply(reply.as_bytes()),
        )
    };
    // Leaking a few words keeps the lifetimes of this test simple.
    let lines: Vec<&'static str> =
        lines.iter().map(|line| &*Box::leak((*line).to_owned().into_boxed_str())).collect();
    let steps: Vec<Step<'_>> = lines.iter().map(step).collect();
    let mut bytes = vec![];
    op::encode_transaction(runner.protocol, &watched, &steps, &mut bytes);
    String::from_utf8_lossy(&runner.run(&bytes)).replace("\r\n", " ").trim_end().to_owned()
}

#[test]
fn transactions_answer_for_each_step() {
    let mut runner = kv();
    let steps = ["SET a 1", "INCR a", "LPUSH a x", "=+PONG\r\n", "NOPE", "GET a"];
    assert_eq!(
        exec(&mut runner, &[], &steps),
        "*6 +OK :2 -WRONGTYPE Operation against a key holding the wrong kind of value +PONG \
         -ERR unknown command 'NOPE', with args beginning with:  $1 2"
    );
    assert_eq!(exec(&mut runner, &[], &[]), "*0");
}

#[test]
fn a_watched_key_that_was_touched_in_any_way_stops_the_transaction() {
    let mut runner = kv();
    let touched = [
        ("SET w 1", "SET w 1"),
        ("SET w 1", "DEL w"),
        ("DEL w", "SET w 1"),
        ("SET w 1", "EXPIRE w 100"),
        ("SET w 1", "RENAME w v"),
        ("SET w 1", "FLUSHALL"),
        ("LPUSH w 1", "LPOP w"),
        ("DEL w", "COPY other w"),
    ];
    for (before, change) in touched {
        check(&mut runner, &[("FLUSHALL", "+OK"), ("SET other 1", "+OK")]);
        runner.command(before);
        let version = watch(&mut runner, "w");
        assert_eq!(watch(&mut runner, "w"), version, "nothing happened yet");
        assert_eq!(exec(&mut runner, &[("w", version)], &["=+OK\r\n"]), "*1 +OK");
        runner.command(change);
        assert_eq!(exec(&mut runner, &[("w", version)], &["SET x 1"]), "*-1", "{change}");
        assert_eq!(runner.command("EXISTS x"), ":0");
    }
    runner.protocol = Protocol::Resp3;
    assert_eq!(exec(&mut runner, &[("w", 1)], &["SET x 1"]), "_");
}

#[test]
fn a_watched_key_that_came_and_expired_stops_the_transaction() {
    for wake in [false, true] {
        let mut runner = kv();
        let absent = watch(&mut runner, "w");
        check(&mut runner, &[("SET w 1 PX 5", "+OK")]);
        let present = watch(&mut runner, "w");
        runner.now_ms += 6;
        if wake {
            runner.wake();
        }
        assert_eq!(exec(&mut runner, &[("w", absent)], &["SET x 1"]), "*-1");
        assert_eq!(exec(&mut runner, &[("w", present)], &["SET x 1"]), "*-1");
        // Removal does not count as a change of its own.
        let expired = watch(&mut runner, "w");
        runner.wake();
        assert_eq!(exec(&mut runner, &[("w", expired)], &["SET x 1"]), "*1 +OK");
    }
}

#[test]
fn a_scan_returns_every_key_that_stays() {
    let mut runner = kv();
    for i in 0..5000 {
        runner.command(&format!("SET stays:{i} x"));
    }
    let mut rng = Rng(5);
    let (mut cursor, mut seen) = ("0".to_owned(), std::collections::BTreeSet::new());
    loop {
        let reply = runner.command(&format!("SCAN {cursor} COUNT 100 MATCH stays:*"));
        let words: Vec<&str> = reply.split(' ').collect();
        cursor = words[2].to_owned();
        seen.extend(words[4..].chunks(2).map(|pair| pair[1].to_owned()));
        for _ in 0..20 {
            runner.command(&format!("SET comes:{} x", rng.below(1 << 30)));
            runner.command(&format!("DEL comes:{}", rng.below(1 << 30)));
        }
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 5000);
}

#[test]
fn replies_above_the_bound_become_an_error() {
    let mut runner = kv();
    let big = vec![b'x'; 10 << 20];
    runner.args(&[b"SET".as_slice(), b"big", &big]);
    let wanted = "-ERR reply exceeds the maximum size of a reply";
    assert_eq!(runner.command("MGET big big"), wanted);
    assert_eq!(exec(&mut runner, &[], &["GET big", "SET a 1", "GET big"]), wanted);
    // What was asked for has happened all the same.
    assert_eq!(runner.command("GET a"), "$1 1");
    let many = format!("BITOP OR sum {}", "big ".repeat(30));
    let too_much = format!("-{}", Fail::TOO_MUCH_WORK.0);
    assert_eq!(runner.command(&many), too_much);
    assert_eq!(
        runner.command("SETRANGE big 12582912 x"),
        "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    );
    assert_eq!(
        runner.command("SETBIT big 4294967295 1"),
        "-ERR bit offset is not an integer or out of range"
    );
}

#[test]
fn a_small_change_marks_one_object() {
    let mut runner = kv();
    for i in 0..1000 {
        runner.command(&format!("SET key:{i} x"));
    }
    runner.root();
    runner.command("APPEND key:7 y");
    assert_eq!(runner.marked(), 1);
}

/// What a fetched bucket is judged by before it is put into place.
#[test]
fn the_digest_of_a_buckets_bytes_is_that_of_the_bucket() {
    let (mut runner, mut other) = (kv(), KvService::new());
    let mut rng = Rng(5);
    let long = "x".repeat(INLINE_FAR_BEYOND);
    for round in 0..2000 {
        let (key, member) = (rng.below(60), rng.below(200));
        let command = match rng.below(9) {
            0 => format!("SET s{key} {member}"),
            1 => format!("SET s{key} {long}{member}"),
            2 => format!("HSET h{key} f{member} {long}"),
            3 => format!("RPUSH l{key} {member} {member} {member}"),
            4 => format!("SADD t{key} {member}"),
            5 => format!("ZADD z{key} {member} m{round}"),
            6 => format!("DEL s{key} l{key}"),
            7 => format!("EXPIRE h{key} {}", 1000 + member),
            _ => format!("LPOP l{key}"),
        };
        runner.command(&command);
        if round % 500 != 499 {
            continue;
        }
        let service = &mut runner.service;
        for object in 0..service.objects() {
            let mut bytes = vec![];
            service.get(object, &mut bytes);
            let digest = service.digest(object);
            assert_eq!(service.digest_of(object, &bytes), Ok(digest));
            assert_eq!(put_into(&mut other, object, &bytes), Ok(digest));
            if bytes.len() > 12 {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1;
                assert_ne!(service.digest_of(object, &bytes), Ok(digest));
                bytes[at] ^= 1;
                let elsewhere = service.digest_of(object ^ 1, &bytes);
                assert!(elsewhere.is_err(), "keys of another bucket");
                assert!(service.digest_of(object, &bytes[..at]).is_err());
            }
        }
    }
}

/// The digest that the bytes are judged by, which they have once they are in place. What is
/// not right is not put there.
fn put_into(
    other: &mut KvService,
    object: u32,
    bytes: &[u8],
) -> Result<base::Digest, base::Malformed> {
    let (before, mut said) = (other.digest(object), vec![]);
    for right in [false, true] {
        let put = other.put_if(object, bytes, &mut |digest| {
            said.push(digest);
            right
        })?;
        assert_eq!(put, right);
        assert_eq!(other.digest(object), if right { said[1] } else { before });
    }
    assert_eq!(said[0], said[1]);
    let mut back = vec![];
    other.get(object, &mut back);
    assert_eq!(back, bytes);
    Ok(said[1])
}

/// A checkpoint that somebody still reads must not change under the hands of the commands.
#[test]
fn every_command_saves_what_it_is_about_to_write() {
    let mut harness = exec::testing::Harness::new(KvService::new());
    let mut rng = Rng(6);
    for round in 0..4000 {
        let line = match rng.below(200) {
            0 => "FLUSHALL".to_owned(),
            _ => random_command(&mut rng),
        };
        let args: Vec<&str> = line.split_whitespace().collect();
        let mut op = vec![];
        op::encode_command(Protocol::Resp2, &args, &mut op);
        harness.run(&op);
        if round % 40 == 39 {
            harness.root();
        }
    }
    harness.transfer(KvService::new());
}

/// Far more than stands in a bucket's digest itself.
const INLINE_FAR_BEYOND: usize = 300;

/// Ten million keys cost this times ten million, with short keys and strings in it: where they
/// were allocated each by itself, a slot of 72 bytes cost 32 more for the shortest.
#[test]
fn a_key_costs_little_memory() {
    assert!(size_of::<bucket::Slot>() <= 96, "{}", size_of::<bucket::Slot>());
    let mut bytes = vec![];
    base::Writer::new(&mut bytes).sized(&[7; 24]).u64(0).u64(0).u8(1).sized(&[7; 16]);
    let slot = bucket::Slot::decode(&mut base::Reader::new(&bytes)).expect("a slot");
    let place = std::ptr::from_ref(&slot).addr();
    let within =
        |bytes: &[u8]| (place..place + size_of::<bucket::Slot>()).contains(&bytes.as_ptr().addr());
    let value::Value::String(text) = &slot.entry.value else { panic!("a string") };
    assert!(within(&slot.key) && within(text.bytes()));
}

/// The dumb twin halves.
#[test]
fn slots_are_found_wherever_their_hashes_are() {
    let mut bytes = vec![];
    base::Writer::new(&mut bytes).sized(b"").u64(0).u64(0).u8(1).sized(b"");
    let any = bucket::Slot::decode(&mut base::Reader::new(&bytes)).expect("a slot");
    let slot = |hash: u64, key: &[u8]| bucket::Slot { hash, key: key.into(), ..any.clone() };
    let mut rng = Rng(8);
    for round in 0..300 {
        // Spread over the bucket, all in a corner of it, or nearly the same.
        let shift = [17, 5, 0][round % 3];
        let mut hashes: Vec<u64> = (0..rng.below(100)).map(|_| rng.below(999) << shift).collect();
        if round % 3 == 0 {
            hashes = hashes.iter().map(|_| rng.below(1 << 31) << shift).collect();
        }
        hashes.sort_unstable();
        hashes.dedup();
        let slots: Vec<bucket::Slot> =
            hashes.iter().flat_map(|hash| [slot(*hash, b"a"), slot(*hash, b"c")]).collect();
        for hash in hashes.iter().flat_map(|hash| [hash.saturating_sub(1), *hash, hash + 1]) {
            for key in [&b""[..], b"a", b"b", b"c", b"d"] {
                let wanted = slots.binary_search_by(|slot| slot.place().cmp(&(hash, key)));
                assert_eq!(bucket::find(&slots, hash, key), wanted);
            }
        }
    }
}
