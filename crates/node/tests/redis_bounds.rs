//! The gateway and clients that ask for more than it may hold: what it does not read, what it
//! refuses, and that the replies to everything else still come, each in its place.

#[path = "support/redis_backends.rs"]
mod redis_backends;
#[path = "support/redis_servers.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod redis_servers;
#[path = "support/redis_wire.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod redis_wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node::gateway::{Config, Local};
use redis_backends::{Failing, Gated};
use redis_servers::Gateway;
use redis_wire::{Value, Wire};

/// No timer of the gateway helps a connection that got stuck.
fn patient() -> Config {
    let long = Duration::from_secs(3600);
    Config { request_timeout: long, write_timeout: long, ..Config::default() }
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn simple(text: &str) -> Value {
    Value::Simple(text.as_bytes().to_vec())
}

fn error(text: &str) -> Value {
    Value::Error(text.as_bytes().to_vec())
}

#[test]
fn a_reply_that_is_too_large_is_an_error_in_its_place() {
    let gateway = Gateway::start(Local::new(), patient());
    let mut wire = Wire::connect(gateway.addr);
    assert_eq!(wire.cmd("SET a 1"), simple("OK"));
    let mut asks = vec![&b"COMMAND"[..], b"INFO"];
    asks.resize(50_000, b"client");
    let too_large = error("ERR reply exceeds the maximum size of a reply");
    assert_eq!(wire.call(&asks), too_large);
    assert_eq!(wire.cmd("GET a"), bulk("1"));
    assert_eq!(wire.cmd("MULTI"), simple("OK"));
    assert_eq!(wire.call(&asks), simple("QUEUED"));
    assert_eq!(wire.cmd("GET a"), simple("QUEUED"));
    assert_eq!(wire.cmd("EXEC"), Value::Array(vec![too_large, bulk("1")]));
}

#[test]
fn names_of_connections_are_bounded_and_lists_are_whole() {
    let gateway = Gateway::start(Local::new(), patient());
    let (mut a, mut b) = (Wire::connect(gateway.addr), Wire::connect(gateway.addr));
    let long = vec![b'x'; 12_000_000];
    assert!(a.call(&[&b"CLIENT"[..], b"SETNAME", &long]).is_error());
    assert!(a.call(&[&b"CLIENT"[..], b"SETINFO", b"LIB-NAME", &long]).is_error());
    assert!(a.call(&[&b"CLIENT"[..], b"SETINFO", b"LIB-VER", &long]).is_error());
    assert!(a.call(&[&b"HELLO"[..], b"3", b"SETNAME", &long[..1025]]).is_error());
    assert_eq!(a.call(&[&b"CLIENT"[..], b"SETNAME", &long[..1024]]), simple("OK"));
    b.send_raw(b"SET a 1\r\nCLIENT LIST\r\nGET a\r\n");
    assert_eq!(b.read(), simple("OK"));
    let list = b.read();
    assert_eq!(list.bytes().split(|byte| *byte == b'\n').count(), 3, "two lines: {list:?}");
    assert_eq!(b.read(), bulk("1"));
}

/// Libraries send commands again by themselves whose errors begin so.
const RESENT: [&[u8]; 5] = [b"TRYAGAIN", b"LOADING", b"READONLY", b"CLUSTERDOWN", b"MASTERDOWN"];

#[test]
fn libraries_send_again_what_was_not_sent_and_nothing_else() {
    for unsent in [false, true] {
        let backend = Failing { inner: Local::new(), fails: Arc::default(), unsent };
        let gateway = Gateway::start(backend.clone(), patient());
        let mut wire = Wire::connect(gateway.addr);
        backend.fails.store(true, Ordering::SeqCst);
        for ask in ["INCR n", "WATCH n", "GET n"] {
            let told = wire.cmd(ask);
            assert!(told.is_error(), "{told:?}");
            let resent = RESENT.iter().any(|code| told.bytes().starts_with(code));
            assert_eq!(resent, unsent, "{told:?}");
        }
        backend.fails.store(false, Ordering::SeqCst);
        assert_eq!(wire.cmd("INCR n"), Value::Int(if unsent { 1 } else { 2 }));
    }
}

#[test]
fn what_nobody_answers_in_time_is_not_sent_again_by_libraries() {
    let config = Config { request_timeout: Duration::from_millis(200), ..patient() };
    let gateway = Gateway::start(Gated::new(), config);
    let told = Wire::connect(gateway.addr).cmd("INCR n");
    assert!(told.bytes().starts_with(b"UNKNOWN group is not answering: "), "{told:?}");
}
