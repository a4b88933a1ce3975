//! The gateway as clients see it: bytes cut anywhere, pipelines, garbage, transactions, bounds,
//! and client libraries that people use.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/redis_backends.rs"]
mod redis_backends;
#[path = "support/redis_servers.rs"]
#[allow(dead_code, reason = "shared with the other test")]
mod redis_servers;
#[path = "support/redis_wire.rs"]
#[allow(dead_code, reason = "shared with the other test")]
mod redis_wire;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use node::gateway::{Config, Local};
use redis_backends::{Crowded, Gated};
use redis_servers::{Gateway, eventually, patient};
use redis_wire::{Value, Wire, bulk, encode, error, simple};

fn start() -> Gateway {
    Gateway::start(Local::new(), patient())
}

#[test]
fn a_pipeline_cut_at_every_byte_is_answered_in_order() {
    let gateway = start();
    let mut bytes = b"PING\r\nset inline 'a b'\r\n".to_vec();
    for args in [&["SET", "a", "1"][..], &["INCR", "a"], &["ECHO", "x\r\ny"], &["GET", "a"]] {
        encode(args, &mut bytes);
    }
    bytes.extend_from_slice(b"GET inline\r\n*0\r\n\r\nNOSUCH a\r\n");
    let wanted = [
        simple("PONG"),
        simple("OK"),
        simple("OK"),
        Value::Int(2),
        bulk("x\r\ny"),
        bulk("2"),
        bulk("a b"),
        error("ERR unknown command 'NOSUCH', with args beginning with: 'a' "),
    ];
    for piece in [1, 2, 5, 17, usize::MAX] {
        let mut wire = Wire::connect(gateway.addr);
        for piece in bytes.chunks(piece) {
            wire.send_raw(piece);
            if piece.len() < 3 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        let got: Vec<Value> = wanted.iter().map(|_| wire.read()).collect();
        assert_eq!(got, wanted);
    }
}

#[test]
fn local_replies_wait_for_the_results_before_them() {
    let backend = Gated::new();
    let gateway = Gateway::start(backend.clone(), patient());
    let mut wire = Wire::connect(gateway.addr);
    wire.send_raw(b"SET a 1\r\nPING\r\nECHO x\r\nGET a\r\nPING last\r\n");
    eventually("both operations are submitted before any is answered", || {
        backend.gate.submitted.load(Ordering::SeqCst) == 2
    });
    backend.open();
    let got: Vec<Value> = (0..5).map(|_| wire.read()).collect();
    assert_eq!(got, [simple("OK"), simple("PONG"), bulk("x"), bulk("1"), bulk("last")]);
}

#[test]
fn reads_whose_results_are_too_large_together_are_made_again_in_order() {
    let backend = Crowded { inner: Local::new(), most: 4, crowd: Arc::<AtomicU64>::default() };
    let gateway = Gateway::start(backend, patient());
    let mut wire = Wire::connect(gateway.addr);
    let big = vec![b'x'; 1 << 20];
    assert_eq!(wire.call(&[&b"SET"[..], b"big", &big]), simple("OK"));
    wire.send_raw("GET big\r\nPING\r\nGET none\r\n".repeat(30).as_bytes());
    for _ in 0..30 {
        assert_eq!(wire.read().bytes().len(), big.len());
        assert_eq!(wire.read(), simple("PONG"));
        assert_eq!(wire.read(), Value::NullBulk);
    }
    // Behind a write nothing may be read again: it would see too much.
    wire.cmd("SET n 0");
    wire.send_raw("GET n\r\nINCR n\r\n".repeat(8).as_bytes());
    let lost = (0..16).filter(|_| wire.read().is_error()).count();
    assert!(lost > 0, "the crowd was large enough to lose results");
    assert_eq!(wire.cmd("GET n"), bulk("8"));
}

#[test]
fn a_write_is_not_acknowledged_before_its_result() {
    let backend = Gated::new();
    let gateway = Gateway::start(backend.clone(), patient());
    let mut wire = Wire::connect(gateway.addr);
    wire.send_raw(b"SET a 1\r\n");
    eventually("the operation is submitted", || backend.gate.submitted.load(Ordering::SeqCst) == 1);
    wire.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
    let mut byte = [0];
    let early = std::io::Read::read(&mut wire.stream, &mut byte);
    assert!(early.is_err(), "a reply came before the result: {early:?}");
    wire.stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    backend.open();
    assert_eq!(wire.read(), simple("OK"));
}

#[test]
fn an_unavailable_backend_is_told_after_the_timeout_and_only_then() {
    let backend = Gated::new();
    let config = Config { request_timeout: Duration::from_millis(200), ..Config::default() };
    let gateway = Gateway::start(backend.clone(), config);
    let mut wire = Wire::connect(gateway.addr);
    let states = |wire: &mut Wire, state: &str, known: bool| {
        let info = String::from_utf8_lossy(wire.cmd("INFO group").bytes()).into_owned();
        assert!(info.contains(&format!("group_state:{state}\r\n")), "{info}");
        let never = info.contains("seconds_since_last_answer:-1\r\n");
        assert_eq!(never, !known, "{info}");
    };
    states(&mut wire, "unknown", false);
    wire.send_raw(b"SET a 1\r\nPING\r\nGET a\r\n");
    let told = |value: Value| {
        let text = String::from_utf8_lossy(value.bytes()).into_owned();
        value.is_error() && text.starts_with("UNKNOWN group is not answering: ")
    };
    assert!(told(wire.read()));
    assert_eq!(wire.read(), simple("PONG"));
    assert!(told(wire.read()));
    assert_eq!(gateway.stats.unanswered.get(), 2);
    states(&mut wire, "not answering", false);
    // The connection goes on, and so does the backend.
    backend.open();
    assert_eq!(wire.cmd("GET a"), bulk("1"));
    states(&mut wire, "answering", true);
}

#[test]
fn what_is_in_flight_is_bounded_and_reading_goes_on_later() {
    let backend = Gated::new();
    let config = Config { in_flight_max: 8, ..patient() };
    let gateway = Gateway::start(backend.clone(), config);
    let mut wire = Wire::connect(gateway.addr);
    wire.send_raw("INCR n\r\n".repeat(1000).as_bytes());
    eventually("as many as allowed are submitted", || {
        backend.gate.submitted.load(Ordering::SeqCst) == 8
    });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(backend.gate.submitted.load(Ordering::SeqCst), 8, "more than allowed");
    backend.open();
    for n in 1..=1000 {
        assert_eq!(wire.read(), Value::Int(n));
    }
}

#[test]
fn pipelines_of_any_length_are_answered_to_the_end() {
    let config = Config { in_flight_max: 4, ..patient() };
    let gateway = Gateway::start(Local::new(), config);
    let mut wire = Wire::connect(gateway.addr);
    // Lengths around the sizes of reads and of what may be in flight: a read that ends exactly
    // where a request ends once left a connection asleep.
    let mut expected = 0;
    for count in (1..20).chain([127, 128, 129, 511, 512, 513, 1000, 1024, 4096, 9000]) {
        wire.send_raw("INCR n\r\n".repeat(count).as_bytes());
        for _ in 0..count {
            expected += 1;
            assert_eq!(wire.read(), Value::Int(expected));
        }
    }
}

#[test]
fn garbage_closes_its_connection_with_a_reason_and_nobody_else_notices() {
    let gateway = start();
    let mut bystander = Wire::connect(gateway.addr);
    assert_eq!(bystander.cmd("PING"), simple("PONG"));
    let long = "x".repeat(70_000);
    let counted = format!("*{long}");
    let cases: [(&[u8], &str); 9] = [
        (b"*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1048577\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\nGET\r\n", "-ERR Protocol error: expected '$', got 'G'\r\n"),
        (b"*1\r\n$12582913\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"GET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (long.as_bytes(), "-ERR Protocol error: too big inline request\r\n"),
        (counted.as_bytes(), "-ERR Protocol error: too big mbulk count string\r\n"),
        (b"PING\r\n*1\r\n!\r\n", "+PONG\r\n-ERR Protocol error: expected '$', got '!'\r\n"),
    ];
    let count = cases.len() as u64;
    for (bytes, wanted) in cases {
        let mut wire = Wire::connect(gateway.addr);
        wire.send_raw(bytes);
        assert_eq!(String::from_utf8_lossy(&wire.read_to_end()), wanted);
    }
    assert_eq!(gateway.stats.protocol_errors.get(), count);
    // Half a request and then the end is no error, just the end.
    let mut wire = Wire::connect(gateway.addr);
    wire.send_raw(b"*2\r\n$3\r\nGET\r\n$5\r\nab");
    wire.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
    assert_eq!(wire.read_to_end(), b"");
    assert_eq!(bystander.cmd("PING"), simple("PONG"));
}

#[test]
fn who_sends_too_much_in_one_go_still_reads_why() {
    let gateway = start();
    let setting = Wire::connect(gateway.addr).cmd("CONFIG GET proto-max-bulk-len");
    let most: usize = String::from_utf8_lossy(setting.items()[1].bytes()).parse().expect("bytes");
    let value = |len: usize| vec![b'x'; len];
    let (big, key) = (value(13 << 20), value(128 * 1024));
    let cases: [(&[u8], &[u8], &str); 3] = [
        (b"k", &big, "-ERR Protocol error: invalid bulk length\r\n"),
        (b"k", &big[..most + 1], "-ERR Protocol error: invalid bulk length\r\n"),
        (&key, &big[..most], "-ERR Protocol error: too big request\r\n"),
    ];
    for (key, value, wanted) in cases {
        let mut bytes = Vec::new();
        encode(&[&b"SET"[..], key, value], &mut bytes);
        let mut wire = Wire::connect(gateway.addr);
        wire.send_raw(&bytes);
        // Nobody listens any more, but nobody is cut off either.
        wire.send_raw(&bytes);
        assert_eq!(String::from_utf8_lossy(&wire.read_to_end()), wanted);
    }
    eventually("all connections are gone", || gateway.stats.connected.get() == 0);
    // What the setting says is what can be set.
    let mut wire = Wire::connect(gateway.addr);
    assert_eq!(wire.call(&[&b"SET"[..], b"k", &big[..most]]), simple("OK"));
    assert_eq!(wire.cmd("STRLEN k"), Value::Int(most as i64));
}

#[test]
fn random_bytes_never_hurt_the_gateway() {
    let gateway = start();
    let mut state = 88_172_645_463_325_252u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let alphabet = b"*$\r\n0123456789-GETSPINGab\"' \x00\xff";
    for round in 0..200 {
        let len = random() % 400;
        let bytes: Vec<u8> = (0..len)
            .map(|_| match round % 2 {
                0 => random() as u8,
                _ => alphabet[random() as usize % alphabet.len()],
            })
            .collect();
        let mut wire = Wire::connect(gateway.addr);
        wire.send_raw(&bytes);
        wire.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
        wire.read_to_end();
    }
    assert_eq!(Wire::connect(gateway.addr).cmd("PING"), simple("PONG"));
    eventually("all connections are gone", || gateway.stats.connected.get() == 0);
}

#[test]
fn hello_switches_the_protocol_and_reset_switches_back() {
    let gateway = start();
    let mut wire = Wire::connect(gateway.addr);
    assert_eq!(wire.cmd("GET nokey"), Value::NullBulk);
    let hello = wire.cmd("HELLO 3 AUTH default x SETNAME me");
    assert!(matches!(&hello, Value::Map(items) if items.len() == 14), "{hello:?}");
    assert_eq!(wire.cmd("GET nokey"), Value::Null);
    wire.cmd("HSET h f v");
    assert_eq!(wire.cmd("HGETALL h"), Value::Map(vec![bulk("f"), bulk("v")]));
    assert_eq!(wire.cmd("CLIENT GETNAME"), bulk("me"));
    assert_eq!(wire.cmd("HELLO 4"), error("NOPROTO unsupported protocol version"));
    assert_eq!(wire.cmd("RESET"), simple("RESET"));
    assert_eq!(wire.cmd("HGETALL h"), Value::Array(vec![bulk("f"), bulk("v")]));
    assert_eq!(wire.cmd("CLIENT GETNAME"), Value::NullBulk);
}

#[test]
fn transactions_execute_together_and_watch_sees_others() {
    let gateway = start();
    let (mut a, mut b) = (Wire::connect(gateway.addr), Wire::connect(gateway.addr));
    // Everything in one write: EXEC must wait for the versions that WATCH asks for.
    a.send_raw(b"WATCH k\r\nMULTI\r\nSET k 1\r\nPING\r\nINCR k\r\nEXEC\r\nGET k\r\n");
    let got: Vec<Value> = (0..7).map(|_| a.read()).collect();
    assert_eq!(got[..5], ["OK", "OK", "QUEUED", "QUEUED", "QUEUED"].map(simple));
    assert_eq!(got[5], Value::Array(vec![simple("OK"), simple("PONG"), Value::Int(2)]));
    assert_eq!(got[6], bulk("2"));
    // Another connection writes a watched key.
    a.cmd("WATCH k");
    b.cmd("SET k 7");
    a.cmd("MULTI");
    a.cmd("SET k 8");
    assert_eq!(a.cmd("EXEC"), Value::NullArray);
    assert_eq!(a.cmd("GET k"), bulk("7"));
    // EXEC forgot the watch; UNWATCH and DISCARD do too.
    for forget in ["UNWATCH", "MULTI", "DISCARD"] {
        a.cmd("WATCH k");
        b.cmd("INCR k");
        a.cmd(forget);
        if forget == "MULTI" {
            a.cmd("DISCARD");
        } else if forget == "DISCARD" {
            a.cmd("UNWATCH");
        }
        a.cmd("MULTI");
        assert_eq!(a.cmd("EXEC"), Value::Array(vec![]));
    }
    // A command that cannot be queued spoils the transaction.
    a.cmd("MULTI");
    a.cmd("SET k 9");
    assert!(a.cmd("GET").is_error());
    assert_eq!(a.cmd("EXEC"), error("EXECABORT Transaction discarded because of previous errors."));
    assert_eq!(a.cmd("EXEC"), error("ERR EXEC without MULTI"));
    assert_eq!(a.cmd("GET k"), bulk("10"));
}

#[test]
fn a_transaction_is_bounded_as_an_operation_is() {
    let gateway = start();
    let mut wire = Wire::connect(gateway.addr);
    wire.cmd("MULTI");
    let big = vec![b'x'; 5 << 20];
    assert_eq!(wire.call(&[&b"SET"[..], b"a", &big]), simple("QUEUED"));
    assert_eq!(wire.call(&[&b"SET"[..], b"b", &big]), simple("QUEUED"));
    assert!(wire.call(&[&b"SET"[..], b"c", &big]).is_error());
    assert!(wire.cmd("EXEC").is_error());
    assert_eq!(wire.cmd("EXISTS a b c"), Value::Int(0));
}

#[test]
fn client_reply_mutes_local_and_service_replies() {
    let gateway = start();
    let mut wire = Wire::connect(gateway.addr);
    wire.send_raw(b"CLIENT REPLY OFF\r\nSET a 1\r\nPING\r\nCLIENT REPLY ON\r\nGET a\r\n");
    assert_eq!((wire.read(), wire.read()), (simple("OK"), bulk("1")));
    wire.send_raw(b"CLIENT REPLY SKIP\r\nINCR a\r\nGET a\r\n");
    assert_eq!(wire.read(), bulk("2"));
}

#[test]
fn connections_are_listed_limited_killed_and_closed_when_idle() {
    let config = Config { clients_max: 2, ..Config::default() };
    let gateway = Gateway::start(Local::new(), config);
    let (mut a, mut b) = (Wire::connect(gateway.addr), Wire::connect(gateway.addr));
    let Value::Int(id) = b.cmd("CLIENT ID") else { panic!("CLIENT ID is an integer") };
    a.cmd("CLIENT SETNAME first");
    let list = String::from_utf8_lossy(a.cmd("CLIENT LIST").bytes()).into_owned();
    assert_eq!(list.lines().count(), 2);
    assert!(list.contains("name=first ") && list.contains("cmd=client|list"), "{list}");
    let some = format!("CLIENT LIST ID {id} 4000000000 {id}");
    let list = String::from_utf8_lossy(a.cmd(&some).bytes()).into_owned();
    assert!(list.lines().count() == 1 && list.starts_with(&format!("id={id} ")), "{list}");
    assert_eq!(a.cmd(&format!("CLIENT LIST ID {id} 0")), error("ERR Invalid client ID"));
    let mut third = Wire::connect(gateway.addr);
    assert_eq!(third.read_to_end(), b"-ERR max number of clients reached\r\n");
    assert_eq!(gateway.stats.rejected.get(), 1);
    assert_eq!(a.cmd(&format!("CLIENT KILL ID {id}")), Value::Int(1));
    assert_eq!(b.read_to_end(), b"");
    assert_eq!(a.cmd(&format!("CLIENT KILL ID {id}")), Value::Int(0));
    let config = Config { idle_timeout: Some(Duration::from_millis(100)), ..Config::default() };
    let gateway = Gateway::start(Local::new(), config);
    let mut idle = Wire::connect(gateway.addr);
    assert_eq!(idle.cmd("PING"), simple("PONG"));
    assert_eq!(idle.read_to_end(), b"");
    assert_eq!(gateway.stats.idle_closed.get(), 1);
}

#[test]
fn a_reader_that_does_not_read_is_closed_and_counted() {
    let config = Config { write_timeout: Duration::from_millis(300), ..Config::default() };
    let gateway = Gateway::start(Local::new(), config);
    let mut wire = Wire::connect(gateway.addr);
    let big = vec![b'x'; 1 << 20];
    assert_eq!(wire.call(&[&b"SET"[..], b"a", &big]), simple("OK"));
    wire.send_raw("GET a\r\n".repeat(100).as_bytes());
    eventually("the connection is closed", || gateway.stats.slow_readers.get() == 1);
    eventually("the connection is gone", || gateway.stats.connected.get() == 0);
}

#[test]
fn large_replies_to_a_client_that_reads_late_all_arrive() {
    let gateway = start();
    let mut wire = Wire::connect(gateway.addr);
    let big = vec![b'x'; 1 << 20];
    assert_eq!(wire.call(&[&b"SET"[..], b"a", &big]), simple("OK"));
    wire.send_raw("GET a\r\n".repeat(200).as_bytes());
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..200 {
        assert_eq!(wire.read().bytes().len(), big.len());
    }
    assert_eq!(gateway.stats.slow_readers.get(), 0);
}

#[test]
fn a_stopped_gateway_answers_what_it_has_accepted() {
    let backend = Gated::new();
    let mut gateway = Gateway::start(backend.clone(), patient());
    let mut wire = Wire::connect(gateway.addr);
    let mut idle = Wire::connect(gateway.addr);
    assert_eq!(idle.cmd("PING"), simple("PONG"));
    wire.send_raw(b"SET a 1\r\nGET a\r\n");
    eventually("the operations are submitted", || {
        backend.gate.submitted.load(Ordering::SeqCst) == 2
    });
    let stopper = std::thread::spawn(move || {
        gateway.stop();
        gateway
    });
    assert_eq!(idle.read_to_end(), b"");
    backend.open();
    assert_eq!(wire.read_to_end(), b"+OK\r\n$1\r\n1\r\n");
    stopper.join().expect("stops");
}

#[test]
fn what_clients_say_first_is_understood() {
    let gateway = start();
    let mut wire = Wire::connect(gateway.addr);
    // redis-benchmark sends both in one write.
    wire.send_raw(b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$4\r\nsave\r\n");
    wire.send_raw(b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$10\r\nappendonly\r\n");
    assert_eq!(wire.read(), Value::Array(vec![bulk("save"), bulk("")]));
    assert_eq!(wire.read(), Value::Array(vec![bulk("appendonly"), bulk("no")]));
    let docs = wire.cmd("COMMAND DOCS");
    assert!(docs.items().len() > 100 && docs.items().contains(&bulk("zadd")));
    assert_eq!(wire.cmd("COMMAND DOCS nosuch"), Value::Array(vec![]));
    let Value::Int(count) = wire.cmd("COMMAND COUNT") else { panic!("a count") };
    assert_eq!(wire.cmd("COMMAND").items().len() as i64, count);
    let info = wire.cmd("COMMAND INFO get nosuch");
    assert_eq!(info.items()[0].items()[0], bulk("get"));
    assert_eq!(info.items()[1], Value::NullArray);
    assert_eq!(wire.cmd("CLIENT SETINFO LIB-NAME redis-py"), simple("OK"));
    let info = String::from_utf8_lossy(wire.cmd("INFO").bytes()).into_owned();
    assert!(info.contains("redis_version:7.") && info.contains("connected_clients:1\r\n"));
    assert_eq!(wire.cmd("QUIT"), simple("OK"));
    assert_eq!(wire.read_to_end(), b"");
}

#[test]
fn the_redis_crate_works() {
    use_redis_crate(start().addr);
}

/// The libraries through four replica processes and a gateway process.
#[test]
fn client_libraries_work_with_a_replicated_group() {
    let shape = cluster::Shape { replicas: 4, pillars: 2, service: "kv" };
    let group = cluster::Cluster::start(shape, 0);
    let gateway = cluster::Gateway::start(&group.path());
    let addr = SocketAddr::from(([127, 0, 0, 1], gateway.port));
    use_redis_crate(addr);
    use_redis_py(addr);
}

fn use_redis_crate(addr: SocketAddr) {
    for protocol in ["", "?protocol=resp3"] {
        let url = format!("redis://{addr}/{protocol}");
        let client = redis::Client::open(url).expect("a client");
        let mut con = client.get_connection().expect("a connection");
        let run = |cmd: &mut redis::Cmd, con: &mut redis::Connection| {
            cmd.exec(con).expect("is executed");
        };
        run(redis::cmd("SET").arg("a").arg(41), &mut con);
        let n: i64 = redis::cmd("INCR").arg("a").query(&mut con).expect("an integer");
        assert_eq!(n, 42);
        run(redis::cmd("DEL").arg("h"), &mut con);
        run(redis::cmd("HSET").arg("h").arg(&[("x", "1"), ("y", "2")]), &mut con);
        let map: std::collections::BTreeMap<String, i64> =
            redis::cmd("HGETALL").arg("h").query(&mut con).expect("a map");
        assert_eq!(map.into_iter().collect::<Vec<_>>(), [("x".into(), 1), ("y".into(), 2)]);
        let (k, v): (String, Option<i64>) = redis::pipe()
            .atomic()
            .cmd("SET")
            .arg("t")
            .arg("v")
            .cmd("GET")
            .arg("none")
            .query(&mut con)
            .expect("a transaction");
        assert_eq!((k.as_str(), v), ("OK", None));
    }
}

const PYTHON: &str = r#"
import sys, redis
for protocol in (2, 3):
    r = redis.Redis(port=int(sys.argv[1]), protocol=protocol, decode_responses=True)
    r.flushall()
    assert r.set("a", 1) and r.incr("a") == 2 and r.get("a") == "2" and r.get("none") is None
    r.hset("h", mapping={"x": "1", "y": "2"})
    assert r.hgetall("h") == {"x": "1", "y": "2"}
    r.zadd("z", {"m": 1.5, "n": 2})
    assert [tuple(p) for p in r.zrange("z", 0, -1, withscores=True)] == [("m", 1.5), ("n", 2.0)]
    r.sadd("s", *range(100))
    assert len(set(r.sscan_iter("s"))) == 100
    assert sorted(r.scan_iter()) == ["a", "h", "s", "z"]
    with r.pipeline(transaction=True) as p:
        p.watch("a")
        p.multi()
        p.set("a", 5).get("a").rpush("l", "x", "y").lrange("l", 0, -1)
        assert p.execute() == [True, "5", 2, ["x", "y"]]
    with r.pipeline(transaction=True) as p:
        p.watch("a")
        r.set("a", 6)
        p.multi()
        p.set("a", 7)
        try:
            p.execute()
            raise SystemExit("a changed key was not noticed")
        except redis.WatchError:
            pass
    p = r.pipeline(transaction=False)
    for i in range(5000):
        p.set("k%d" % i, "v" * (i % 100))
        p.get("k%d" % i)
    out = p.execute()
    assert out[1::2] == ["v" * (i % 100) for i in range(5000)]
    try:
        r.lpush("a", 1)
        raise SystemExit("no error for a wrong type")
    except redis.ResponseError as e:
        assert str(e).startswith("WRONGTYPE"), e
    assert r.info()["redis_version"].startswith("7.") and r.client_id() > 0
    assert r.config_get("save") == {"save": ""} and r.dbsize() == 5005
    r.close()
print("redis-py", redis.__version__, "works")
"#;

/// A python with redis-py: the system's, or one in a virtual environment in the target directory.
fn python_with_redis() -> Result<String, String> {
    let can_import = |python: &str| {
        let out = Command::new(python).args(["-c", "import redis"]).output();
        out.is_ok_and(|out| out.status.success())
    };
    if can_import("python3") {
        return Ok("python3".to_owned());
    }
    let dir = concat!(env!("CARGO_TARGET_TMPDIR"), "/redis-py");
    let python = format!("{dir}/bin/python3");
    if can_import(&python) {
        return Ok(python);
    }
    let run = |program: &str, args: &[&str]| -> Result<(), String> {
        let out = Command::new(program).args(args).output().map_err(|e| e.to_string())?;
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        if out.status.success() { Ok(()) } else { Err(stderr) }
    };
    run("python3", &["-m", "venv", dir])?;
    run(&python, &["-m", "pip", "install", "-q", "redis"])?;
    Ok(python)
}

#[test]
fn redis_py_works() {
    use_redis_py(start().addr);
}

fn use_redis_py(addr: SocketAddr) {
    let python = match python_with_redis() {
        Ok(python) => python,
        Err(reason) => {
            redis_servers::skip(&format!("redis-py cannot be installed: {reason}"));
            return;
        }
    };
    let out = Command::new(python)
        .args(["-c", PYTHON, &addr.port().to_string()])
        .output()
        .expect("python runs");
    let text = [&out.stdout[..], &out.stderr].concat();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&text));
    println!("{}", String::from_utf8_lossy(&text).trim());
}
