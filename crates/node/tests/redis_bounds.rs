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

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node::gateway::{Config, Local};
use redis_backends::{Failing, Gated};
use redis_servers::{Gateway, eventually, patient};
use redis_wire::{Value, Wire, bulk, encode, error, simple};

/// Replies that the gateway makes itself wait in it up to so many bytes, and one more.
const LOCAL_BYTES: usize = 16 << 20;

/// Sends all of it, though the gateway may not read all of it yet.
fn send_beside(wire: &Wire, bytes: Vec<u8>) {
    let mut stream = wire.stream.try_clone().expect("a socket");
    std::thread::spawn(move || stream.write_all(&bytes).expect("the gateway takes it in the end"));
}

/// The bytes of the reply to `COMMAND`.
fn command_reply(gateway: &Gateway) -> Vec<u8> {
    let mut wire = Wire::connect(gateway.addr);
    wire.send_raw(b"COMMAND\r\nQUIT\r\n");
    let mut bytes = wire.read_to_end();
    assert_eq!(bytes.split_off(bytes.len() - 5), b"+OK\r\n");
    bytes
}

/// Waits until the gateway has handled more commands than `more`, and handles no more for now;
/// returns their number.
fn handled(gateway: &Gateway, more: u64) -> u64 {
    eventually("commands are handled", || gateway.stats.commands.get() > more);
    loop {
        let before = gateway.stats.commands.get();
        std::thread::sleep(Duration::from_millis(300));
        if gateway.stats.commands.get() == before {
            return before;
        }
    }
}

#[test]
fn replies_of_the_gateway_that_wait_behind_a_result_are_bounded() {
    const COMMANDS: u64 = 4000;
    let backend = Gated::new();
    let gateway = Gateway::start(backend.clone(), patient());
    let reply = command_reply(&gateway);
    let all = reply.len() * COMMANDS as usize;
    assert!(all > 2 * LOCAL_BYTES, "enough to see the bound: {all} bytes");
    let wire = Wire::connect(gateway.addr);
    let before = gateway.stats.commands.get();
    send_beside(&wire, [&b"GET x\r\n"[..], &b"COMMAND\r\n".repeat(COMMANDS as usize)].concat());
    let made = handled(&gateway, before) - before - 1;
    assert!(made as usize * reply.len() < LOCAL_BYTES + 2 * reply.len(), "{made} replies wait");
    backend.open();
    let mut got = vec![0; 5 + all];
    (&wire.stream).read_exact(&mut got).expect("all replies");
    assert!(got.starts_with(b"$-1\r\n") && got[5..].chunks(reply.len()).all(|one| one == reply));
}

#[test]
fn replies_of_the_gateway_to_who_reads_nothing_are_bounded() {
    const COMMANDS: u64 = 8000;
    let gateway = Gateway::start(Local::new(), patient());
    let reply = command_reply(&gateway);
    let wire = Wire::connect(gateway.addr);
    let before = gateway.stats.commands.get();
    send_beside(&wire, b"COMMAND\r\n".repeat(COMMANDS as usize));
    let made = handled(&gateway, before) - before;
    // Sockets hold some as well.
    assert!(made < COMMANDS, "all {made} replies were made for somebody who reads none");
    let mut got = vec![0; COMMANDS as usize * reply.len()];
    (&wire.stream).read_exact(&mut got).expect("all replies");
    assert!(got.chunks(reply.len()).all(|one| one == reply));
}

#[test]
fn replies_as_large_as_the_bound_get_through() {
    let backend = Gated::new();
    let gateway = Gateway::start(backend.clone(), patient());
    let mut wire = Wire::connect(gateway.addr);
    let text = vec![b'x'; 12 << 20];
    let mut bytes = b"GET x\r\n".to_vec();
    for _ in 0..4 {
        encode(&[&b"ECHO"[..], &text[..text.len() - (64 << 10)]], &mut bytes);
    }
    bytes.extend_from_slice(b"GET y\r\n");
    send_beside(&wire, bytes);
    let made = handled(&gateway, 1);
    assert!(made <= 3, "{} replies of 12 MiB wait", made - 1);
    backend.open();
    assert_eq!(wire.read(), Value::NullBulk);
    for _ in 0..4 {
        assert_eq!(wire.read().bytes().len(), text.len() - (64 << 10));
    }
    assert_eq!(wire.read(), Value::NullBulk);
}

/// What is to be read again must not wait for room that only its own results make.
#[test]
fn reads_are_made_again_though_replies_of_the_gateway_fill_the_bound() {
    let backend = Gated::new();
    let gateway = Gateway::start(backend.clone(), patient());
    let mut wire = Wire::connect(gateway.addr);
    let text = vec![b'x'; 10 << 20];
    let mut bytes = b"GET a\r\n".repeat(3);
    for _ in 0..3 {
        encode(&[&b"ECHO"[..], &text], &mut bytes);
    }
    bytes.extend_from_slice(b"GET a\r\n");
    send_beside(&wire, bytes);
    assert_eq!(handled(&gateway, 4), 5, "no room is left");
    backend.gate.crowded.store(true, Ordering::SeqCst);
    backend.open();
    (0..3).for_each(|_| assert_eq!(wire.read(), Value::NullBulk));
    (0..3).for_each(|_| assert_eq!(wire.read().bytes().len(), text.len()));
    assert_eq!(wire.read(), Value::NullBulk);
    assert_eq!(backend.gate.submitted.load(Ordering::SeqCst), 7, "three were made again");
}

#[test]
fn a_transaction_has_no_more_commands_than_an_operation_may_have() {
    let gateway = Gateway::start(Local::new(), patient());
    let mut wire = Wire::connect(gateway.addr);
    assert_eq!(wire.cmd("MULTI"), simple("OK"));
    send_beside(&wire, b"COMMAND\r\n".repeat(70_000));
    for n in 0..70_000 {
        let reply = wire.read();
        let queued = n < svc::kv::op::STEPS_MAX;
        assert_eq!(reply == simple("QUEUED"), queued, "command {n}: {reply:?}");
        assert_eq!(reply.is_error(), !queued);
    }
    let aborted = error("EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(wire.cmd("EXEC"), aborted);
    // As many as allowed are executed.
    assert_eq!(wire.cmd("MULTI"), simple("OK"));
    send_beside(&wire, b"PING\r\n".repeat(svc::kv::op::STEPS_MAX));
    (0..svc::kv::op::STEPS_MAX).for_each(|_| assert_eq!(wire.read(), simple("QUEUED")));
    assert_eq!(wire.cmd("EXEC").items().len(), svc::kv::op::STEPS_MAX);
}

#[test]
fn a_transaction_whose_replies_no_operation_holds_is_not_handed_over() {
    let gateway = Gateway::start(Local::new(), patient());
    let mut wire = Wire::connect(gateway.addr);
    assert_eq!(wire.cmd("MULTI"), simple("OK"));
    assert_eq!(wire.cmd("SET k 1"), simple("QUEUED"));
    // 60 KB on the wire, and more than 60 MB of replies.
    send_beside(&wire, b"COMMAND\r\n".repeat(6000));
    (0..6000).for_each(|_| assert_eq!(wire.read(), simple("QUEUED")));
    let before = gateway.stats.submitted.get();
    let told = wire.cmd("EXEC");
    assert!(told.is_error() && told.bytes().starts_with(b"EXECABORT "), "{told:?}");
    assert_eq!(gateway.stats.submitted.get(), before);
    assert_eq!(wire.cmd("GET k"), Value::NullBulk);
    assert_eq!(wire.cmd("EXEC"), error("ERR EXEC without MULTI"));
}

#[test]
fn watched_keys_are_bounded_as_an_operation_is() {
    let gateway = Gateway::start(Local::new(), patient());
    let mut wire = Wire::connect(gateway.addr);
    let key = vec![b'k'; 5 << 20];
    assert_eq!(wire.call(&[&b"WATCH"[..], &key]), simple("OK"));
    assert_eq!(wire.call(&[&b"WATCH"[..], &key]), simple("OK"));
    assert!(wire.call(&[&b"WATCH"[..], &key]).is_error());
    // Nobody knows whether the last one has changed.
    wire.cmd("MULTI");
    wire.cmd("SET k 1");
    assert_eq!(wire.cmd("EXEC"), Value::NullArray);
    assert_eq!(wire.call(&[&b"WATCH"[..], &key]), simple("OK"));
    wire.cmd("MULTI");
    wire.cmd("SET k 1");
    assert_eq!(wire.cmd("EXEC"), Value::Array(vec![simple("OK")]));
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
