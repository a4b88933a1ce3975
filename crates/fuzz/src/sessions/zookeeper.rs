//! The port of a ZooKeeper gateway in front of an unreplicated service, over loopback.
//!
//! One honest client keeps its session for as long as the target lives: whatever others send, its
//! requests are answered in order.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use node::gateway::{GatewayStats, Local};
use node::zookeeper::{self, wire};
use svc::zk::{ZooKeeperService, kind};
use tokio::sync::watch;

use super::ports::{HONEST_EVERY, PATIENCE, call, exchange};
use crate::decoders::zk::{greeting, request};
use crate::target::{Outcome, Run};

/// How long the honest client may be silent: as long as the service allows.
const TIMEOUT_MS: i32 = 60_000;

/// Starts a gateway that ends when the sender is gone.
fn start() -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("is bound");
    listener.set_nonblocking(true).expect("a fresh socket");
    let (stop, stopped) = watch::channel(false);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("in a runtime");
            let backend = Local::of(Box::new(ZooKeeperService::new()));
            let (config, stats) = (zookeeper::Config::default(), Arc::new(GatewayStats::default()));
            let served = zookeeper::serve(listener, backend, config, stats, stopped);
            served.await.expect("goes on");
        });
    });
    (address, stop)
}

fn frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).expect("an honest client is answered");
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut body).expect("all of the answer");
    body
}

fn honest(to: SocketAddr) -> TcpStream {
    let mut stream = call(to);
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.write_all(&greeting(Some(false), 0, TIMEOUT_MS)).expect("is read");
    assert_eq!(frame(&mut stream).len(), 37, "a session");
    stream
}

/// Bytes for the ZooKeeper gateway's port.
pub fn port() -> Run {
    let (address, stop) = start();
    let (mut client, mut calls) = (honest(address), 0i32);
    Box::new(move |bytes| {
        // The sender lives as long as the target: the gateway ends with it.
        let _ = &stop;
        calls = calls.wrapping_add(1);
        let (count, first, closed) = exchange(call(address), bytes);
        assert!(closed, "the gateway keeps a connection whose client has hung up");
        if calls.unsigned_abs().is_multiple_of(HONEST_EVERY) {
            // The root, as an argument of sync.
            client.write_all(&request(calls, kind::SYNC, b"\0\0\0\x01/")).expect("is read");
            let answer = frame(&mut client);
            let (xid, _, rest) = wire::request(&answer).expect("a header");
            assert_eq!((xid, &rest[4..]), (calls, &b"\0\0\0\0\0\0\0\x01/"[..]));
        }
        Outcome::of((count.checked_ilog2(), first.get(16..).map(<[u8]>::len)))
    })
}
