//! The servers that tests talk to: the gateway in a thread, and Debian's `redis-server`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use node::gateway::{self, Backend, Config, GatewayStats};
use tokio::sync::watch;

/// A gateway that runs until it is dropped.
pub struct Gateway {
    pub addr: SocketAddr,
    pub stats: Arc<GatewayStats>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    pub fn start<B: Backend>(backend: B, config: Config) -> Gateway {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a TCP socket");
        let addr = listener.local_addr().expect("is bound");
        let stats = Arc::new(GatewayStats::default());
        let (stop, stopped) = watch::channel(false);
        let counters = Arc::clone(&stats);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                gateway::serve(listener, backend, config, counters, stopped)
                    .await
                    .expect("the gateway ends well");
            });
        });
        Gateway { addr, stats, stop, thread: Some(thread) }
    }

    /// Stops the gateway and waits until all its connections are served.
    pub fn stop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the gateway does not panic");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// Says why a test has nothing to compare with; where programs are required, that is a failure.
pub fn skip(reason: &str) {
    let required = std::env::var_os("STYLITE_TEST_REQUIRE_PROGRAMS").is_some();
    assert!(!required, "{reason}");
    println!("skipped: {reason}");
}

/// A `redis-server` that is asked for too much (2^63 random members, say) fails its test instead
/// of taking the machine with it.
fn limit_memory(server: &Child) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let limit = Rlimit { current: Some(4 << 30), maximum: Some(4 << 30) };
    prlimit(Some(Pid::from_child(server)), Resource::As, limit).expect("our own child");
}

/// The `redis-server` that the system has, on a free port, killed when dropped.
pub struct RealRedis {
    pub addr: SocketAddr,
    child: Child,
}

impl RealRedis {
    /// `None`, with the reason printed, when there is no `redis-server`.
    pub fn start() -> Option<RealRedis> {
        RealRedis::start_with(&[])
    }

    /// The same with more flags.
    pub fn start_with(flags: &[&str]) -> Option<RealRedis> {
        // Another process may take the port between looking and starting.
        for _ in 0..10 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let addr = free.local_addr().expect("is bound");
            drop(free);
            let mut child = match Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--port", &addr.port().to_string()])
                .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
                // The largest string is the one thing that depends on the configuration.
                .args(["--proto-max-bulk-len", "12582912"])
                .args(flags)
                .current_dir(std::env::temp_dir())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
            {
                Ok(child) => child,
                Err(error) => {
                    skip(&format!("redis-server does not start: {error}"));
                    return None;
                }
            };
            limit_memory(&child);
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                if TcpStream::connect(addr).is_ok() {
                    return Some(RealRedis { addr, child });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("redis-server is there but does not listen");
    }
}

impl Drop for RealRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No timer of the gateway helps a connection that got stuck.
pub fn patient() -> Config {
    let long = Duration::from_secs(3600);
    Config { request_timeout: long, write_timeout: long, ..Config::default() }
}

/// Waits for something that another thread does; a minute is for ever.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !check() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
