//! Starting and stopping a replica: which lane lives on which thread, and who is linked to whom
//! by which ring.
//!
//! Lanes are not threads (design §2): P is fixed in the group's configuration, threads follow
//! the cores. There are no globals, so any number of replicas and groups live in one process.
//!
//! Not here: what the threads do (`event_loop`).

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use auth::{LinkIdentity, Peer, ReplicaKeys};
use base::{Incarnation, PillarId, ReplicaId};
use exec::{Stage, StageConfig};
use genesis::Group;
use mio::{Poll, Waker};
use proto::pbft::{Batching, Lane, LaneConfig};

use crate::clock::{Clock, wall_ns};
use crate::event_loop::{BELL, EventLoop, LoopState, TOKENS_PER_LANE};
use crate::journal::Memory;
use crate::lane_host::{Core, LaneHost, LaneMail};
use crate::links::{Env, Links};
use crate::options::{ReplicaOptions, StartError};
use crate::pin;
use crate::report::{ReplicaReport, Shared, ThreadSnapshot};
use crate::ring::{Bell, ring};
use crate::stage_host::StageHost;

/// Items per ring between a lane and the stage.
const STAGE_RING: usize = 1024;
/// Items per ring between two lanes.
const SIBLING_RING: usize = 64;
/// How long [`Replica::stop`] waits for the threads to say that they have drained.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// A running replica. Dropping it stops it at once; [`Replica::stop`] drains it first.
pub struct Replica {
    shared: Arc<Shared>,
    bells: Vec<Arc<Bell>>,
    threads: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
}

/// Which thread hosts what.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Layout {
    threads: usize,
    lanes: Vec<usize>,
    stage: usize,
}

impl Replica {
    /// Starts a replica: binds its ports and starts its threads. It dials its peers on its own.
    ///
    /// Its incarnation is the wall clock's nanoseconds at this moment: without a disk that is
    /// what grows from start to start. A clock that was set back makes peers refuse the new life
    /// until it is past the old one.
    ///
    /// # Errors
    /// When the options contradict each other, the secret is not this replica's, a host has no
    /// address, a port is taken, or the system refuses a thread.
    pub fn start(mut options: ReplicaOptions) -> Result<Replica, StartError> {
        options.check()?;
        let addresses = resolve(&options.group)?;
        let listeners = listeners(&mut options, &addresses)?;
        let bound = listeners.iter().map(std::net::TcpListener::local_addr);
        let bound = bound.collect::<Result<Vec<_>, _>>()?;
        let sharers = sharers(&addresses, options.id);
        let cpus = pin::allowed_cpus();
        let pillars = usize::from(options.group.pillars());
        let layout = Layout::plan(pillars, cpus.len() / sharers, options.threads);
        let pinned = options.pin.unwrap_or(sharers == 1 && layout.threads <= cpus.len());
        let (bells, shared, loops) = build(options, &layout, addresses, listeners)?;
        let mut replica = Replica { shared, bells, threads: Vec::new(), addresses: bound };
        for mut one in loops {
            // Whoever asks before the first turn finds every pillar, too.
            one.publish(base::Time::ZERO);
            // Replicas that are pinned to the same machine on demand take different cores.
            let nth = usize::from(replica.shared.id.0) * layout.threads + one.index;
            let cpu = pinned.then(|| cpus[nth % cpus.len()]);
            let name = format!("replica-{}-{}", replica.shared.id, one.index);
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                if cpu.is_some_and(|cpu| !pin::pin_to(cpu)) {
                    tracing::warn!(?cpu, "cannot pin a thread");
                }
                one.run();
            })?;
            replica.threads.push(thread);
        }
        let (id, threads) = (replica.shared.id, layout.threads);
        tracing::info!(%id, pillars, threads, pinned, "replica started");
        Ok(replica)
    }

    /// Which replica this is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.shared.id
    }

    /// Where its pillars listen, in order.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What the replica tells about itself, at most 100 ms old.
    #[must_use]
    pub fn report(&self) -> ReplicaReport {
        self.shared.report()
    }

    /// Drains and stops: takes no more connections and requests, says goodbye to its clients,
    /// sends the replies to what is executed, and ends its threads.
    pub fn stop(mut self) {
        self.shared.draining.store(true, Ordering::Release);
        self.bells.iter().for_each(|bell| bell.force());
        let until = Instant::now() + DRAIN_TIMEOUT;
        while self.shared.drained.load(Ordering::Acquire) < self.threads.len()
            && self.threads.iter().any(|thread| !thread.is_finished())
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.halt();
        tracing::info!(id = %self.shared.id, "replica stopped");
    }

    /// Whether all of its threads still run. They end by themselves only when the system fails
    /// them.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.threads.is_empty() && self.threads.iter().all(|thread| !thread.is_finished())
    }

    fn halt(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.bells.iter().for_each(|bell| bell.force());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(id = %self.shared.id, "a thread of the replica panicked");
            }
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.halt();
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Replica");
        out.field("id", &self.shared.id).field("addresses", &self.addresses);
        out.field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Layout {
    /// Pillars in turn over the threads. With a thread more than pillars the stage has one of
    /// its own; otherwise it lives with pillar 0.
    fn plan(pillars: usize, cores: usize, wanted: Option<usize>) -> Layout {
        let enough = pillars + 1;
        let default = if cores >= enough { enough } else { pillars.min(cores.max(1)) };
        let threads = wanted.unwrap_or(default).clamp(1, enough);
        let for_lanes = threads.min(pillars);
        let lanes = (0..pillars).map(|pillar| pillar % for_lanes).collect();
        Layout { threads, lanes, stage: if threads == enough { pillars } else { 0 } }
    }
}

/// Everything that runs, thread by thread.
type Built = (Vec<Arc<Bell>>, Arc<Shared>, Vec<EventLoop>);

fn build(
    options: ReplicaOptions,
    layout: &Layout,
    addresses: Vec<Vec<SocketAddr>>,
    listeners: Vec<std::net::TcpListener>,
) -> Result<Built, StartError> {
    let group = &options.group;
    let quorums = group.quorums();
    let incarnation = Incarnation(wall_ns());
    let keys = ReplicaKeys::new(&options.secret, options.id, group.directory())?;
    let me = Peer::Replica(options.id);
    let identity = LinkIdentity::new(&options.secret, me, incarnation, group.directory())?;
    let env = Arc::new(Env {
        me: options.id,
        n: quorums.n(),
        group: group.id(),
        epoch: group.epoch(),
        directory: group.directory().clone(),
        identity,
        addresses,
        limits: options.limits,
    });
    let shared = Arc::new(Shared {
        id: options.id,
        n: quorums.n(),
        quorum: quorums.quorum(),
        incarnation,
        threads: (0..layout.threads).map(|_| Mutex::new(ThreadSnapshot::default())).collect(),
        draining: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
        drained: AtomicUsize::new(0),
    });
    let clock = Clock::start();
    let mut loops = loops(layout.threads, &shared, clock)?;
    let bells: Vec<Arc<Bell>> = loops.iter().map(|one| Arc::clone(&one.bell)).collect();
    let mut mesh = Mesh::new(layout, &bells);
    for (pillar, listener) in (0u16..).map(PillarId).zip(listeners) {
        let home = &mut loops[layout.lanes[usize::from(pillar.0)]];
        listener.set_nonblocking(true)?;
        let listener = mio::net::TcpListener::from_std(listener);
        let registry = home.poll.registry().try_clone()?;
        let tokens = home.lanes.len() * TOKENS_PER_LANE;
        let links = Links::new(Arc::clone(&env), pillar, listener, registry, tokens)?;
        let lane = Lane::new(lane_config(&options, pillar), Box::new(keys.clone()));
        let core = Core::new(lane, Box::new(Memory), quorums.n());
        home.lanes.push(LaneHost::new(core, links, mesh.lanes.remove(0)));
    }
    let stage = Stage::new(stage_config(group), options.service);
    let host = StageHost::new(stage, mesh.from_lanes, mesh.to_lanes, clock);
    loops[layout.stage].stage = Some(host);
    Ok((bells, shared, loops))
}

fn loops(threads: usize, shared: &Arc<Shared>, clock: Clock) -> Result<Vec<EventLoop>, StartError> {
    let one = |index| {
        let poll = Poll::new()?;
        let bell = Arc::new(Bell::new(Waker::new(poll.registry(), BELL)?));
        let shared = Arc::clone(shared);
        let (lanes, state) = (Vec::new(), LoopState::default());
        Ok(EventLoop { poll, bell, clock, lanes, stage: None, shared, index, state })
    };
    (0..threads).map(one).collect()
}

fn lane_config(options: &ReplicaOptions, pillar: PillarId) -> LaneConfig {
    let group = &options.group;
    let settings = group.settings();
    let batching = settings.batching;
    LaneConfig {
        me: options.id,
        pillar,
        group: group.id(),
        epoch: group.epoch(),
        quorums: group.quorums(),
        stripe: group.stripe(),
        window: settings.window,
        checkpoint_interval: settings.checkpoint_interval,
        batching: Batching {
            frames_max: batching.frames_limit(),
            bytes_max: batching.bytes_max,
            delay: batching.delay,
            in_flight_max: batching.in_flight_max,
        },
        clock_skew_max: settings.clock_skew_max,
        retransmit: options.retransmit,
    }
}

fn stage_config(group: &Group) -> StageConfig {
    let settings = group.settings();
    let interval = settings.checkpoint_interval;
    StageConfig {
        group: group.id(),
        stripe: group.stripe(),
        checkpoint_interval: interval,
        // A pillar may learn of a stable checkpoint, and go a window beyond it, before this
        // replica has executed up to it.
        window: 2 * settings.window + interval,
    }
}

/// All rings, sorted by owner.
struct Mesh {
    lanes: Vec<LaneMail>,
    from_lanes: Vec<crate::ring::RingReceiver<base::ToStage>>,
    to_lanes: Vec<crate::ring::RingSender<base::FromStage>>,
}

impl Mesh {
    fn new(layout: &Layout, bells: &[Arc<Bell>]) -> Mesh {
        let pillars = layout.lanes.len();
        // Who shares a thread needs no bell.
        let bell = |from: usize, to: usize| (from != to).then(|| Arc::clone(&bells[to]));
        let mut mesh = Mesh { lanes: vec![], from_lanes: vec![], to_lanes: vec![] };
        for &home in &layout.lanes {
            let (to_stage, at_stage) = ring(STAGE_RING, bell(home, layout.stage));
            let (to_lane, from_stage) = ring(STAGE_RING, bell(layout.stage, home));
            mesh.from_lanes.push(at_stage);
            mesh.to_lanes.push(to_lane);
            let (to_siblings, from_siblings) = (vec![], vec![]);
            mesh.lanes.push(LaneMail { to_stage, from_stage, to_siblings, from_siblings });
        }
        for from in 0..pillars {
            for to in (0..pillars).filter(|to| *to != from) {
                let bell = bell(layout.lanes[from], layout.lanes[to]);
                let (sender, receiver) = ring(SIBLING_RING, bell);
                mesh.lanes[from].to_siblings.push(sender);
                mesh.lanes[to].from_siblings.push(receiver);
            }
        }
        mesh
    }
}

fn resolve(group: &Group) -> Result<Vec<Vec<SocketAddr>>, StartError> {
    let one = |host: &str, port: u16| -> std::io::Result<SocketAddr> {
        let mut all = (host, port).to_socket_addrs()?;
        all.next().ok_or_else(|| std::io::Error::other("the name has no address"))
    };
    let replica = |entry: &genesis::ReplicaEntry| {
        let ports = entry.ports.iter();
        ports
            .map(|port| {
                let host = entry.host.clone();
                one(&host, *port).map_err(|source| StartError::Resolve { host, source })
            })
            .collect()
    };
    group.replicas().iter().map(replica).collect()
}

fn listeners(
    options: &mut ReplicaOptions,
    addresses: &[Vec<SocketAddr>],
) -> Result<Vec<std::net::TcpListener>, StartError> {
    if let Some(listeners) = options.listeners.take() {
        return Ok(listeners);
    }
    let bind = |address: &SocketAddr| {
        let mut address = *address;
        if let Some(ip) = options.listen_ip {
            address.set_ip(ip);
        }
        std::net::TcpListener::bind(address)
            .map_err(|source| StartError::Listen { address, source })
    };
    addresses[usize::from(options.id.0)].iter().map(bind).collect()
}

/// How many replicas of the group, this one included, seem to share its machine.
fn sharers(addresses: &[Vec<SocketAddr>], me: ReplicaId) -> usize {
    let ip = |replica: &Vec<SocketAddr>| -> Option<IpAddr> { Some(replica.first()?.ip()) };
    let mine = ip(&addresses[usize::from(me.0)]);
    addresses.iter().filter(|replica| ip(replica) == mine).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_follow_cores_and_every_party_has_a_home() {
        let plan = Layout::plan;
        assert_eq!(plan(2, 8, None), Layout { threads: 3, lanes: vec![0, 1], stage: 2 });
        assert_eq!(plan(4, 4, None), Layout { threads: 4, lanes: vec![0, 1, 2, 3], stage: 0 });
        assert_eq!(plan(4, 2, None), Layout { threads: 2, lanes: vec![0, 1, 0, 1], stage: 0 });
        assert_eq!(plan(1, 0, None), Layout { threads: 1, lanes: vec![0], stage: 0 });
        assert_eq!(plan(2, 1, Some(99)), Layout { threads: 3, lanes: vec![0, 1], stage: 2 });
        assert_eq!(plan(2, 9, Some(1)), Layout { threads: 1, lanes: vec![0, 0], stage: 0 });
    }
}
