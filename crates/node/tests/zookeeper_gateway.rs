//! The ZooKeeper gateway in front of a service in this process, which loses results, or clients
//! that take nothing.

#[path = "support/redis_backends.rs"]
mod backends;
#[path = "support/zookeeper_backends.rs"]
mod own_backends;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backends::Crowded;
use node::gateway::{Backend, GatewayStats, Local, StreamKey};
use node::zookeeper::{self, Config, Nudging, wire};
use own_backends::{Full, Late};
use svc::zk::jute::JuteWriter;
use svc::zk::op::Op;
use svc::zk::{ZkError, ZooKeeperService, kind};
use tokio::sync::watch;

/// A hang is a failure.
const HANG: Duration = Duration::from_secs(60);
const TIMEOUT_MS: i32 = 60_000;

/// A gateway that ends with this.
struct Served {
    address: SocketAddr,
    stats: Arc<GatewayStats>,
    _stop: watch::Sender<bool>,
}

fn serve<B: Nudging>(backend: B, config: Config) -> Served {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("is bound");
    listener.set_nonblocking(true).expect("a fresh socket");
    let (stop, stopped) = watch::channel(false);
    let stats = Arc::new(GatewayStats::default());
    let own = Arc::clone(&stats);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("in a runtime");
            zookeeper::serve(listener, backend, config, own, stopped).await.expect("goes on");
        });
    });
    Served { address, stats, _stop: stop }
}

fn local() -> Local {
    Local::of(Box::new(ZooKeeperService::new()))
}

/// The least of a client.
struct Client(TcpStream);

impl Client {
    fn open(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).expect("the gateway listens");
        stream.set_read_timeout(Some(HANG)).expect("a socket");
        let mut client = Client(stream);
        client.send(|w| {
            w.int(0).long(0).int(TIMEOUT_MS).long(0).buffer(Some(&[0; 16])).bool(false);
        });
        client.frame().expect("a session");
        client
    }

    fn send(&mut self, write: impl FnOnce(&mut JuteWriter<'_>)) {
        let mut out = vec![];
        wire::framed(&mut out, write);
        self.0.write_all(&out).expect("it is open");
    }

    /// The next frame; `None` when the connection was closed.
    fn frame(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it hangs"),
            Err(_) => return None,
        }
        let mut body = vec![0; u32::from_be_bytes(head) as usize];
        self.0.read_exact(&mut body).ok()?;
        Some(body)
    }

    /// The next response or event: xid and error; `None` when the connection was closed.
    fn told(&mut self) -> Option<(i32, i32)> {
        let frame = self.frame()?;
        let (xid, _, rest) = wire::request(&frame).expect("a header");
        let error = rest[4..8].try_into().expect("a header");
        Some((xid, i32::from_be_bytes(error)))
    }

    fn create(&mut self, xid: i32, path: &str, bytes: usize) {
        self.send(|w| {
            w.int(xid).int(kind::CREATE).text(path).buffer(Some(&vec![7; bytes]));
            w.count(1).int(31).text("world").text("anyone").int(0);
        });
        assert_eq!(self.told(), Some((xid, 0)));
    }

    fn get(&mut self, xid: i32, path: &str, watch: bool) {
        self.send(|w| {
            w.int(xid).int(kind::GET_DATA).text(path).bool(watch);
        });
    }
}

/// A gateway that loses results where more than `most` come together, and asks nothing by itself.
fn crowded(inner: &Local, most: u64) -> Served {
    let backend = Crowded { inner: inner.clone(), most, crowd: Arc::new(AtomicU64::new(0)) };
    serve(backend, Config { look_every: HANG, renew_every: HANG, ..Config::default() })
}

impl Nudging for Crowded {
    fn nudges(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }
}

#[test]
fn reads_whose_results_are_too_large_together_fail_and_the_connection_goes_on() {
    let served = crowded(&local(), 1);
    let mut client = Client::open(served.address);
    client.create(1, "/a", 10);
    let failed = ZkError::SystemError.code();
    for round in 0..3 {
        let first = 10 * (round + 1);
        // In one piece, so that they are there together.
        let mut out = vec![];
        for xid in first..first + 3 {
            wire::framed(&mut out, |w| {
                w.int(xid).int(kind::GET_DATA).text("/a").bool(false);
            });
        }
        client.0.write_all(&out).expect("it is open");
        let told: Vec<_> = (0..3).map(|_| client.told().expect("it is open")).collect();
        assert_eq!(
            told.iter().map(|(xid, _)| *xid).collect::<Vec<_>>(),
            [0, 1, 2].map(|i| first + i)
        );
        assert!(told.iter().any(|(_, error)| *error == failed), "{told:?}");
        assert!(told.iter().all(|(_, error)| [0, failed].contains(error)), "{told:?}");
        // One by one, there is room.
        client.get(first + 5, "/a", true);
        assert_eq!(client.told(), Some((first + 5, 0)));
    }
    assert!(served.stats.unanswered.get() > 0);
}

/// The session's events are handed over with the result of whatever it asks next. When that is
/// lost, the client must not go on as if nothing had happened.
#[test]
fn a_lost_result_that_had_events_costs_the_connection() {
    let inner = local();
    let served = crowded(&inner, 1);
    let mut client = Client::open(served.address);
    client.create(1, "/a", 10);
    client.get(2, "/a", true);
    assert_eq!(client.told(), Some((2, 0)));
    let other = crowded(&inner, u64::MAX);
    let mut writer = Client::open(other.address);
    writer.send(|w| {
        w.int(9).int(kind::SET_DATA).text("/a").buffer(None).int(-1);
    });
    assert_eq!(writer.told(), Some((9, 0)));
    let mut out = vec![];
    for xid in 3..6 {
        wire::framed(&mut out, |w| {
            w.int(xid).int(kind::EXISTS).text("/a").bool(false);
        });
    }
    client.0.write_all(&out).expect("it is open");
    let mut told = vec![];
    while let Some(one) = client.told() {
        told.push(one);
    }
    let told_of_it = told.iter().any(|(xid, _)| *xid == -1);
    assert!(!told_of_it && told.len() <= 3, "it was closed, and nothing was made up: {told:?}");
}

/// Else a client would count on time that the group does not give it, were the gateway to end
/// before it passes the ping on. This one passes none on.
#[test]
fn a_ping_is_answered_once_the_group_has_heard_of_the_session() {
    const PING: i32 = -2;
    let served = crowded(&local(), u64::MAX);
    let mut client = Client::open(served.address);
    client.create(1, "/a", 10);
    // Two in one piece, so that a response of the gateway's own would come first.
    let mut out = vec![];
    wire::framed(&mut out, |w| {
        w.int(PING).int(kind::PING);
    });
    wire::framed(&mut out, |w| {
        w.int(2).int(kind::GET_DATA).text("/a").bool(false);
    });
    client.0.write_all(&out).expect("it is open");
    assert_eq!(client.told(), Some((2, 0)), "the group has answered nothing since the ping");
    assert_eq!(client.told(), Some((PING, 0)));
    client.get(3, "/a", false);
    assert_eq!(client.told(), Some((3, 0)), "a ping is answered once");
}

/// A write that is refused for now must not be overtaken by the ones behind it, and costs nobody
/// a connection: not its client, nor those whose sessions the gateway renews meanwhile.
#[test]
fn requests_wait_in_their_order_while_the_backend_is_full() {
    let backend = Full { inner: local(), takes: 4, asked: Arc::default() };
    let config = Config { renew_every: Duration::from_millis(20), ..Config::default() };
    let served = serve(backend, Config { look_every: Duration::from_millis(20), ..config });
    let mut other = Client::open(served.address);
    let mut client = Client::open(served.address);
    client.create(1, "/a", 10);
    let mut out = vec![];
    for version in 0..200 {
        wire::framed(&mut out, |w| {
            w.int(2 + version).int(kind::SET_DATA).text("/a").buffer(Some(&[7; 100])).int(version);
        });
    }
    client.0.write_all(&out).expect("it is open");
    for version in 0..200 {
        assert_eq!(client.told(), Some((2 + version, 0)), "each finds the version before its own");
    }
    other.get(1, "/a", false);
    assert_eq!(other.told(), Some((1, 0)), "nobody was hung up on");
    assert_eq!(served.stats.unanswered.get(), 0);
}

/// A question that was given up may be executed late, and takes the events of whoever has come
/// meanwhile with it: they must not believe that nothing has happened.
#[test]
fn who_comes_before_a_question_is_made_good_is_hung_up_on() {
    let backend = Late::new(local());
    let config = Config {
        renew_every: Duration::from_millis(10),
        look_every: Duration::from_millis(10),
        ..Config::default()
    };
    let served = serve(backend.clone(), config);
    let mut first = Client::open(served.address);
    assert_eq!(first.told(), None, "what it would have been told may be lost");
    // Who comes now is hung up on as well, until a question is in time: it comes again.
    let mut client = loop {
        let mut client = Client::open(served.address);
        client.send(|w| {
            w.int(1).int(kind::EXISTS).text("/a").bool(true);
        });
        if client.told().is_some() {
            break client;
        }
    };
    let writer = serve(backend.inner.clone(), Config { look_every: HANG, ..Config::default() });
    Client::open(writer.address).create(1, "/a", 10);
    backend.back.store(true, Ordering::SeqCst);
    while let Some((xid, _)) = client.told() {
        assert_eq!(xid, -1, "the event, or the end");
    }
    let mut again = Client::open(served.address);
    again.get(7, "/a", false);
    assert_eq!(again.told(), Some((7, 0)));
}

/// Somebody else took the session's events.
#[test]
fn a_response_that_waits_for_what_does_not_come_costs_the_connection() {
    let inner = local();
    let quiet = Config { look_every: HANG, renew_every: HANG, ..Config::default() };
    let config = Config { gap_timeout: Duration::from_millis(200), ..quiet };
    let backend = Late::new(inner.clone());
    let served = serve(backend.clone(), config);
    let mut client = Client::open(served.address);
    client.create(1, "/a", 10);
    client.get(2, "/a", true);
    assert_eq!(client.told(), Some((2, 0)));
    let writer = serve(inner.clone(), Config { look_every: HANG, ..Config::default() });
    let mut other = Client::open(writer.address);
    other.send(|w| {
        w.int(9).int(kind::SET_DATA).text("/a").buffer(None).int(-1);
    });
    assert_eq!(other.told(), Some((9, 0)));
    let mut op = vec![];
    Op::Renew(vec![]).encode(&mut op);
    drop(inner.submit(StreamKey(0), op));
    client.get(3, "/a", false);
    assert_eq!(client.told(), None);
}

/// It is told as much as it takes, when it takes it.
#[test]
fn a_client_that_asks_for_much_and_reads_slowly_gets_all_of_it() {
    let served = serve(local(), Config::default());
    let mut client = Client::open(served.address);
    client.create(1, "/a", 1_000_000);
    let mut out = vec![];
    for xid in 2..82 {
        wire::framed(&mut out, |w| {
            w.int(xid).int(kind::GET_DATA).text("/a").bool(false);
        });
    }
    client.0.write_all(&out).expect("it is open");
    std::thread::sleep(Duration::from_millis(300));
    for xid in 2..82 {
        assert_eq!(client.told(), Some((xid, 0)));
    }
    assert_eq!(served.stats.slow_readers.get(), 0);
}

/// Nobody knew how much it would be.
#[test]
fn a_client_that_asks_for_far_too_much_at_once_and_takes_nothing_is_cut_off_at_once() {
    let inner = local();
    let backend = Crowded { inner, most: u64::MAX, crowd: Arc::default() };
    let config = Config { write_timeout: 10 * HANG, ..Config::default() };
    let served = serve(backend, Config { look_every: HANG, renew_every: HANG, ..config });
    let mut client = Client::open(served.address);
    client.create(1, "/a", 1_000_000);
    let mut out = vec![];
    for xid in 2..302 {
        wire::framed(&mut out, |w| {
            w.int(xid).int(kind::GET_DATA).text("/a").bool(false);
        });
    }
    client.0.write_all(&out).expect("it is open");
    while served.stats.slow_readers.get() == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What waits for it is bounded meanwhile, and others are served.
#[test]
fn a_client_that_takes_nothing_is_cut_off() {
    assert_eq!(Config::default().write_timeout, Duration::from_secs(20), "as documented");
    let config = Config { write_timeout: Duration::from_millis(300), ..Config::default() };
    let served = serve(local(), config);
    let (mut slow, mut other) = (Client::open(served.address), Client::open(served.address));
    slow.create(1, "/a", 1_000_000);
    // Far more than sockets hold, and less than what costs the connection at once.
    for xid in 2..22 {
        slow.get(xid, "/a", false);
    }
    let mut xid = 1;
    while served.stats.slow_readers.get() == 0 {
        xid += 1;
        other.get(xid, "/a", false);
        assert_eq!(other.told(), Some((xid, 0)), "others are served");
    }
    let mut taken = 0;
    while slow.told().is_some() {
        taken += 1;
    }
    assert!(taken < 20, "what waited was dropped");
    other.get(xid + 1, "/a", false);
    assert_eq!(other.told(), Some((xid + 1, 0)));
}

/// Its events are handed over as they come, whether it takes them or not.
#[test]
fn a_watcher_that_takes_nothing_is_cut_off_when_its_events_take_too_much() {
    const RECURSIVE: i32 = 1;
    let inner = local();
    let quick = Config { look_every: Duration::from_millis(10), ..Config::default() };
    let patient = Config { write_timeout: 10 * HANG, gap_timeout: 10 * HANG, ..quick };
    let served = serve(inner.clone(), Config { output_max: 1024, ..patient });
    let writer = serve(inner, Config::default());
    let mut watcher = Client::open(served.address);
    watcher.send(|w| {
        w.int(1).int(kind::ADD_WATCH).text("/").int(RECURSIVE);
    });
    assert_eq!(watcher.told(), Some((1, 0)));
    let mut other = Client::open(writer.address);
    let path = format!("/{}", "a".repeat(1000));
    other.create(1, &path, 1);
    // 64 MB of events: sockets hold some, and the connection may hold 32 KiB.
    for xid in 2..64_000 {
        other.send(|w| {
            w.int(xid).int(kind::SET_DATA).text(&path).buffer(None).int(-1);
        });
        assert_eq!(other.told(), Some((xid, 0)));
        if served.stats.slow_readers.get() > 0 {
            return;
        }
    }
    panic!("it holds events without a bound");
}
