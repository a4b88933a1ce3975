//! The network between replicas, and between clients and replicas, as a thing that can be broken:
//! every link goes through a proxy of our own, which holds, refuses or delays what flows in one
//! direction of it.
//!
//! A link is a pair of ends and a pillar. What flows from `a` to `b` passes the gate (a, b),
//! whoever of the two dialled. *Held* bytes are kept and flow on when the gate opens, as with a
//! lossy wire below TCP; *refused* links are closed, and stay so.
//!
//! Invariants: bytes are never changed, dropped or reordered within a connection; everything
//! ends when the [`Links`] are dropped.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes that are passed on at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks on the way in one direction of one connection.
const CHUNKS: usize = 64;

/// An end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    Replica(u16),
    /// All gateways.
    Clients,
}

use End::{Clients, Replica};

/// How one direction of a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    Open,
    /// Everything arrives this much later.
    Late(Duration),
    /// Nothing arrives until the gate opens.
    Held,
    /// Connections are closed.
    Refused,
}

/// One direction of one pillar's link: from, to, pillar.
type Way = (End, End, u16);

/// The proxies of all links of a group.
pub struct Links {
    gates: Arc<BTreeMap<Way, watch::Sender<Gate>>>,
    ports: BTreeMap<Way, u16>,
    replicas: u16,
    pillars: u16,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Links {
    /// Proxies to the replicas, which listen on these ports: one list per replica, with a port
    /// per pillar. All gates are open.
    pub fn start(targets: &[Vec<u16>]) -> Links {
        let replicas = u16::try_from(targets.len()).expect("few");
        let pillars = u16::try_from(targets[0].len()).expect("few");
        let ends: Vec<End> = (0..replicas).map(Replica).chain([Clients]).collect();
        let mut gates = BTreeMap::new();
        let mut listeners = Vec::new();
        for (from, to) in pairs(&ends) {
            for pillar in 0..pillars {
                gates.insert((from, to, pillar), watch::Sender::new(Gate::Open));
                if let Replica(id) = to {
                    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
                    let socket = socket.expect("a free port");
                    socket.set_nonblocking(true).expect("a TCP socket");
                    let target = targets[usize::from(id)][usize::from(pillar)];
                    listeners.push(((from, to, pillar), socket, target));
                }
            }
        }
        let port = |socket: &std::net::TcpListener| socket.local_addr().expect("bound").port();
        let ports = listeners.iter().map(|(way, socket, _)| (*way, port(socket))).collect();
        let gates = Arc::new(gates);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::clone(&gates);
        let thread = std::thread::spawn(move || serve(&shared, listeners, stopped));
        Links { gates, ports, replicas, pillars, stop, thread: Some(thread) }
    }

    /// Where `from` reaches the pillars of replica `to`.
    pub fn ports(&self, from: End, to: u16) -> Vec<u16> {
        (0..self.pillars).map(|pillar| self.ports[&(from, Replica(to), pillar)]).collect()
    }

    /// Sets one direction of a link, of all pillars.
    pub fn one_way(&self, from: End, to: End, gate: Gate) {
        (0..self.pillars).for_each(|pillar| self.pillar(from, to, pillar, gate));
    }

    /// Sets one direction of one pillar's link.
    pub fn pillar(&self, from: End, to: End, pillar: u16, gate: Gate) {
        self.gates[&(from, to, pillar)].send_replace(gate);
    }

    /// Sets both directions.
    pub fn both(&self, a: End, b: End, gate: Gate) {
        self.one_way(a, b, gate);
        self.one_way(b, a, gate);
    }

    /// Cuts all links between replicas on different sides. Clients reach everybody.
    pub fn split(&self, sides: &[&[u16]], gate: Gate) {
        for (at, side) in sides.iter().enumerate() {
            for other in &sides[at + 1..] {
                for (a, b) in side.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                    self.both(Replica(*a), Replica(*b), gate);
                }
            }
        }
    }

    /// Cuts all links of one replica, those of clients included.
    pub fn isolate(&self, id: u16, gate: Gate) {
        self.others(id).for_each(|other| self.both(Replica(id), other, gate));
    }

    /// Nothing of what `id` says arrives anywhere; it hears everything.
    pub fn mute(&self, id: u16, gate: Gate) {
        self.others(id).for_each(|other| self.one_way(Replica(id), other, gate));
    }

    /// Everybody hears `id`, which hears nothing.
    pub fn deafen(&self, id: u16, gate: Gate) {
        self.others(id).for_each(|other| self.one_way(other, Replica(id), gate));
    }

    /// Each replica reaches its two neighbours only. Not transitive.
    pub fn ring(&self, gate: Gate) {
        let n = self.replicas;
        for (a, b) in (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))) {
            if b - a != 1 && b - a != n - 1 {
                self.both(Replica(a), Replica(b), gate);
            }
        }
    }

    /// Two sides, which only `middle` reaches both. Not transitive.
    pub fn bridge(&self, middle: u16, gate: Gate) {
        let others: Vec<u16> = (0..self.replicas).filter(|id| *id != middle).collect();
        let (left, right) = others.split_at(others.len() / 2);
        self.split(&[left, right], gate);
    }

    /// Opens everything.
    pub fn heal(&self) {
        for gate in self.gates.values() {
            gate.send_replace(Gate::Open);
        }
    }

    fn others(&self, id: u16) -> impl Iterator<Item = End> {
        let replicas = (0..self.replicas).filter(move |other| *other != id).map(Replica);
        replicas.chain([Clients])
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All ordered pairs of different ends.
fn pairs(ends: &[End]) -> impl Iterator<Item = (End, End)> {
    let pairs = ends.iter().flat_map(move |a| ends.iter().map(move |b| (*a, *b)));
    pairs.filter(|(a, b)| a != b)
}

fn serve(
    gates: &BTreeMap<Way, watch::Sender<Gate>>,
    listeners: Vec<(Way, std::net::TcpListener, u16)>,
    mut stopped: watch::Receiver<bool>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async move {
        for ((from, to, pillar), socket, target) in listeners {
            let there = gates[&(from, to, pillar)].subscribe();
            let back = gates[&(to, from, pillar)].subscribe();
            let socket = TcpListener::from_std(socket).expect("a listener");
            tokio::spawn(listen(socket, target, there, back));
        }
        let _ = stopped.wait_for(|stop| *stop).await;
    });
}

async fn listen(
    socket: TcpListener,
    target: u16,
    there: watch::Receiver<Gate>,
    back: watch::Receiver<Gate>,
) {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                let gates = (there.clone(), back.clone());
                tokio::spawn(async move {
                    // A connection that ends has ended; there is nothing to report.
                    let _ = connect(stream, target, gates.0, gates.1).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connect(
    dialler: TcpStream,
    target: u16,
    mut there: watch::Receiver<Gate>,
    mut back: watch::Receiver<Gate>,
) -> Option<()> {
    // The first packets of a connection need both directions.
    passable(&mut there).await?;
    passable(&mut back).await?;
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
    let acceptor = TcpStream::connect(target).await.ok()?;
    dialler.set_nodelay(true).ok()?;
    acceptor.set_nodelay(true).ok()?;
    let (near_in, near_out) = dialler.into_split();
    let (far_in, far_out) = acceptor.into_split();
    tokio::select! {
        _ = pass(near_in, far_out, there) => {}
        _ = pass(far_in, near_out, back) => {}
    }
    Some(())
}

/// Waits until bytes may pass, and says how late they arrive; `None` when the link is refused.
async fn passable(gate: &mut watch::Receiver<Gate>) -> Option<Duration> {
    loop {
        let now = *gate.borrow_and_update();
        match now {
            Gate::Open => return Some(Duration::ZERO),
            Gate::Late(by) => return Some(by),
            Gate::Refused => return None,
            Gate::Held => gate.changed().await.ok()?,
        }
    }
}

/// Ends when the link is refused.
async fn refused(mut gate: watch::Receiver<Gate>) {
    let _ = gate.wait_for(|gate| *gate == Gate::Refused).await;
}

/// Passes bytes on in one direction until either end closes or the link is refused.
async fn pass(
    mut input: tokio::net::tcp::OwnedReadHalf,
    mut output: tokio::net::tcp::OwnedWriteHalf,
    gate: watch::Receiver<Gate>,
) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let delay = gate.clone();
    let read = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(n @ 1..) = input.read(&mut buffer).await {
            let now = *delay.borrow();
            let late = if let Gate::Late(by) = now { by } else { Duration::ZERO };
            if sender.send((Instant::now() + late, buffer[..n].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let mut hold = gate.clone();
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            if passable(&mut hold).await.is_none() || output.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        // What was read is still written when there is no more.
        ((), ()) = async { tokio::join!(read, write) } => {}
        () = refused(gate) => {}
    }
}
