//! Starting and stopping a replica.
//!
//! There are no globals, so any number of replicas and groups live in one process. Not here:
//! which part lives on which thread (`mesh`), and what the threads do (`event_loop`).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use auth::{LinkIdentity, Peer, ReplicaKeys};
use base::{Incarnation, PillarId, ReplicaId};
use durable::{Boot, FirstWords};
use exec::StageConfig;
use genesis::{Address, Group, Settings};
use proto::group::CoordinatorConfig;
use proto::pbft::{
    Batching, Bodies, Commits, Idle, Lane, LaneConfig, LaneStart, Leaders, Switches,
};
use proto::solo::Solo;
use store::{Dir, Durability};

use crate::agreement::Agreement;
use crate::bans::Bans;
use crate::boot;
use crate::clock::Clock;
use crate::coordinator_host::{CoordinatorHost, CoordinatorParts, Inflow};
use crate::crew::Crew;
use crate::drill::{Deaf, Drill, Saboteur, Scene};
use crate::event_loop::{Station, Task};
use crate::evidence::Evidence;
use crate::journal::Journal;
use crate::lane_host::LaneHost;
use crate::links::{Env, Links};
use crate::log_writer::{Ending, LogParty, LogWriter};
use crate::logic::Core;
use crate::mesh::{LaneMail, Layout, Mesh};
use crate::options::{Parallelization, ReplicaOptions, StartError};
use crate::pillars::{Pillars, TOKENS_PER_LANE};
use crate::pin;
use crate::report::{ReplicaReport, Shared};
use crate::ring::{Bell, ring};
use crate::saver::{CheckpointSaver, SaveError, Saver, SnapshotFeed};
use crate::seats::Seats;
use crate::socket::{Acceptor, Listener, Place, SocketFile};
use crate::stage_host::StageHost;
use crate::status::StatusDesk;
use crate::top;

/// How long [`Replica::stop`] waits for the threads to say that they have drained.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// A running replica. Dropping it stops it at once; [`Replica::stop`] drains it first.
pub struct Replica {
    shared: Arc<Shared>,
    bells: Vec<Arc<Bell>>,
    threads: Vec<JoinHandle<()>>,
    addresses: Vec<String>,
    /// The coordinator's.
    bell: Arc<Bell>,
    writer: Option<LogWriter>,
    /// Kept, and so locked, as long as the replica lives; with a log its writer has it.
    dir: Option<Dir>,
    /// The files of its sockets.
    sockets: Vec<Arc<SocketFile>>,
}

impl Replica {
    /// Starts a replica: binds its ports and starts its threads. It dials its peers on its own.
    ///
    /// Its incarnation is the wall clock's nanoseconds at this moment, or the one after its last
    /// life's where that is later. Without a directory nobody knows the last one, and a clock that
    /// was set back makes peers refuse the new life until it is past the old one.
    ///
    /// A replica that may have forgotten promises starts all the same, and votes again once that
    /// cannot contradict them; see [`ReplicaOptions::fresh`].
    ///
    /// # Errors
    /// When the options contradict each other, the secret is not this replica's, a host has no
    /// address, a port is taken, the system refuses a thread, or the replica's directory is
    /// locked, somebody else's, empty without this being the first start, or cannot be used.
    pub fn start(mut options: ReplicaOptions) -> Result<Replica, StartError> {
        options.check()?;
        let addresses = resolve(&options.group)?;
        let listeners = listeners(&mut options, &addresses)?;
        let bound = listeners.iter().map(Listener::shown).collect::<Result<Vec<_>, _>>()?;
        let sockets = listeners.iter().filter_map(Listener::file).collect();
        let seats = Seats::new(&addresses, options.id, options.cores.share);
        let (pillars, cores) = (usize::from(options.group.pillars()), seats.cores());
        let layout = match options.cores.parallelization {
            Parallelization::Cop => Layout::plan(pillars, cores, options.cores.threads),
            Parallelization::Top => top::layout(cores, options.cores.threads),
        };
        let pinned = options.cores.pin.unwrap_or(seats.suffice(layout.threads));
        let left = cores.saturating_sub(layout.threads);
        options.cores.workers = Some(options.cores.workers.unwrap_or(left));
        let span = span(&options.group);
        let _entered = span.clone().entered();
        let built = build(options, &layout, addresses, listeners)?;
        let Built { shared, bells, runners, bell, writer, dir } = built;
        let (threads, addresses) = (Vec::new(), bound);
        let mut replica = Replica { shared, bells, threads, addresses, bell, writer, dir, sockets };
        for one in runners {
            let cpu = pinned.then(|| seats.cpu(replica.shared.id, one.index, layout.threads));
            let span = span.clone();
            let thread = std::thread::Builder::new().name(one.name).spawn(move || {
                let _entered = span.entered();
                if cpu.is_some_and(|cpu| !pin::pin_to(cpu)) {
                    tracing::warn!(?cpu, "cannot pin a thread");
                }
                (one.run)();
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

    /// Where its pillars listen, in order, for people.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
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
        let clean = self.writer.as_mut().is_none_or(|writer| writer.close(Ending::Clean));
        if let Some(dir) = &mut self.dir
            && let Err(error) = dir.end()
        {
            tracing::warn!(%error, "cannot note that the replica ended in order");
        }
        tracing::info!(id = %self.shared.id, clean, "replica stopped");
    }

    /// Has the state of a checkpoint written to disk, and waits until it is: the next one that
    /// becomes stable, to which an idle group is driven. Returns the file.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save_checkpoint(&self, patience: Duration) -> Result<PathBuf, SaveError> {
        self.checkpoint_saver().save(patience)
    }

    /// The same for other threads.
    #[must_use]
    pub fn checkpoint_saver(&self) -> CheckpointSaver {
        CheckpointSaver::new(&self.shared.saves, &self.bell)
    }

    /// Tells whoever waits for a checkpoint that the replica stops, and whoever asks for one from
    /// now on. Stopping does so as well; this is for whoever has to have the replica back from
    /// those who wait before it can be stopped.
    pub fn refuse_checkpoints(&self) {
        self.shared.saves.close();
    }

    /// Has a replica that was told to misbehave do so, or behave for a while: those behaviours
    /// that show in messages. It begins by misbehaving unless its options say otherwise. False when
    /// it was told no such thing.
    pub fn misbehave(&self, on: bool) -> bool {
        self.shared.drill.set(on);
        self.shared.drilled
    }

    /// What ended the replica against its will, if anything did: then none of its threads runs
    /// any more, and the process had better end, too.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.text()
    }

    /// Whether all of its threads still run. They end by themselves only when the system fails
    /// them: see [`Replica::failure`].
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.threads.is_empty() && self.threads.iter().all(|thread| !thread.is_finished())
    }

    fn halt(&mut self) {
        self.refuse_checkpoints();
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
        out.field("threads", &self.threads.len()).field("sockets", &self.sockets);
        out.finish_non_exhaustive()
    }
}

/// What log lines of a partition are told apart by.
fn span(group: &Group) -> tracing::Span {
    let of = |number| tracing::error_span!("partition", number);
    group.partition().map_or_else(tracing::Span::none, of)
}

/// Everything that runs, thread by thread, and what ends with it.
struct Built {
    shared: Arc<Shared>,
    bells: Vec<Arc<Bell>>,
    runners: Vec<Runner>,
    /// The coordinator's.
    bell: Arc<Bell>,
    writer: Option<LogWriter>,
    /// Without a log nobody else keeps it.
    dir: Option<Dir>,
}

/// One thread of a replica before it is started.
pub(crate) struct Runner {
    /// What it does, as the system shows it: at most 15 bytes.
    name: String,
    /// Which of the threads this is.
    index: usize,
    run: Box<dyn FnOnce() + Send>,
}

impl Runner {
    /// A thread that does `task` at `station`.
    pub(crate) fn new(name: String, mut station: Station, mut task: impl Task + 'static) -> Runner {
        // Whoever asks before the first turn finds every pillar, too.
        station.publish(&mut task, base::Time::ZERO);
        Runner { name, index: station.index, run: Box::new(move || station.run(task)) }
    }
}

/// The parts of a replica, before they are put on threads.
pub(crate) struct Parts {
    pub(crate) env: Arc<Env>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pillars: Vec<PillarParts>,
    pub(crate) stage: StageHost,
    pub(crate) coordinator: CoordinatorHost,
}

/// One pillar.
pub(crate) struct PillarParts {
    pub(crate) pillar: PillarId,
    pub(crate) listener: Acceptor,
    pub(crate) core: Core,
    pub(crate) mail: LaneMail,
    pub(crate) saboteur: Option<Box<Saboteur>>,
}

fn build(
    mut options: ReplicaOptions,
    layout: &Layout,
    addresses: Vec<Vec<Place>>,
    listeners: Vec<Listener>,
) -> Result<Built, StartError> {
    let keys = ReplicaKeys::new(&options.secret, options.id, options.group.directory())?;
    let config = stage_config(&options.group);
    let mut boot = boot::begin(&mut options, config, &keys)?;
    let clock = Clock::start();
    let shared = Arc::new(Shared::new(&options, boot.incarnation, layout.threads, clock));
    let life = (boot.incarnation, &keys, Arc::clone(&shared.bans), clock);
    let env = Arc::new(environment(&options, life, addresses)?);
    let stations = (0..layout.threads).map(|index| Station::new(&shared, clock, index));
    let stations = stations.collect::<Result<Vec<_>, _>>()?;
    let bells: Vec<Arc<Bell>> = stations.iter().map(|one| Arc::clone(&one.bell)).collect();
    shared.failure.tell(&bells);
    let checkpoints = boot.dir.as_ref().map(Dir::checkpoints);
    let evidence = Evidence::new(boot.dir.as_ref())?;
    let (writer, mut parties) = start_log(&mut boot, layout, &bells, &shared)?;
    let mut party = || parties.as_mut().and_then(Iterator::next);
    let mesh = Mesh::new(layout, &bells);

    let config = coordinator_config(&options.group, options.id, boot.incarnation);
    let (core, mut first) = boot.coordinator(config, Box::new(keys.clone()), clock.now());
    let words = FirstWords::split(&mut first);
    let mut pillars = Vec::new();
    let lanes = (0u16..).map(PillarId).zip(listeners).zip(mesh.lanes);
    for ((pillar, listener), mail) in lanes {
        let listener = Acceptor::new(listener)?;
        let start = words.lane_start(&mut boot, pillar);
        let lane = agreement(&options, pillar, &keys, start);
        let mut core = Core::new(lane, Journal::new(party()), env.n);
        core.now = clock.now();
        core.deaf = Deaf::new(options.drill, shared.drill.clone(), (env.me, env.n));
        for word in &words.voting {
            // Counted by `input`; the coordinator is this replica's own.
            let _ = core.input(proto::pbft::Input::Coordinator(word.clone()));
        }
        let saboteur = saboteur(&options, pillar, &shared, &keys);
        pillars.push(PillarParts { pillar, listener, core, mail, saboteur });
    }
    let (orders, at_stage) = ring(4, mesh.order_bell);
    let inflow = Inflow::default();
    let feed = SnapshotFeed::new(at_stage);
    if options.group.settings().reads == genesis::Reads::Unordered {
        boot.stage.answer_reads();
    }
    let mut host = StageHost::new(boot.stage, mesh.stage, (inflow.clone(), feed), clock);
    if let Some(Drill::CrashAfter(ops)) = options.drill {
        host.crash_after(ops);
    }
    employ(&mut host, &options, &bells[layout.stage], &shared)?;
    let bell = Arc::clone(&bells[layout.coordinator()]);
    let quorum = options.group.quorums().quorum();
    let log = (shared.log.get().cloned(), options.log.growth_bytes, quorum);
    let desk = (Arc::clone(&shared.saves), Arc::clone(&shared.failure));
    let saver = Saver::new(desk, (checkpoints, boot.saved), log, orders, Arc::clone(&bell));
    let journal = Journal::new(party());
    let mail = mesh.coordinator;
    let n = env.n;
    let parts = CoordinatorParts { core, first, journal, mail, inflow, saver, evidence, n };
    let coordinator = CoordinatorHost::new(parts);
    let parts = Parts { env, shared: Arc::clone(&shared), pillars, stage: host, coordinator };
    let runners = match mesh.replies {
        None => cop(parts, stations, layout)?,
        Some(replies) => top::assemble(parts, stations, replies)?,
    };
    Ok(Built { shared, bells, runners, bell, writer, dir: boot.dir })
}

/// Puts lanes, coordinator and stage on threads as `layout` has it.
fn cop(parts: Parts, stations: Vec<Station>, layout: &Layout) -> Result<Vec<Runner>, StartError> {
    let Parts { env, shared, pillars, stage, coordinator } = parts;
    let task = |index| Pillars {
        lanes: Vec::new(),
        stage: None,
        coordinator: None,
        desk: StatusDesk::new(&shared, index),
    };
    let mut tasks: Vec<Pillars> = (0..stations.len()).map(task).collect();
    for parts in pillars {
        let PillarParts { pillar, listener, core, mail, saboteur } = parts;
        let home = layout.lanes[usize::from(pillar.0)];
        let registry = stations[home].poll.registry().try_clone()?;
        let tokens = tasks[home].lanes.len() * TOKENS_PER_LANE;
        let links = Links::new(Arc::clone(&env), pillar, listener, registry, tokens)?;
        tasks[home].lanes.push(LaneHost::new(core, links, mail, saboteur));
    }
    tasks[layout.stage].stage = Some(stage);
    tasks[layout.coordinator()].coordinator = Some(coordinator);
    let named = stations.into_iter().zip(tasks).map(|(station, task)| {
        let first = task.lanes.first().map(|lane| lane.logic.pillar);
        let name = first.map_or_else(|| "stage".to_owned(), |pillar| format!("pillar-{pillar}"));
        Runner::new(name, station, task)
    });
    Ok(named.collect())
}

/// Starts the execution workers, if any are wanted and the service is made for them.
fn employ(
    host: &mut StageHost,
    options: &ReplicaOptions,
    bell: &Arc<Bell>,
    shared: &Shared,
) -> Result<(), StartError> {
    let workers = options.cores.workers.unwrap_or(0);
    if host.can_employ(workers)? {
        let name = "worker";
        host.employ(Crew::start(name, workers, bell, &shared.failure)?);
        tracing::info!(id = %shared.id, workers, "independent operations execute in parallel");
    }
    Ok(())
}

fn environment(
    options: &ReplicaOptions,
    (incarnation, keys, bans, clock): (Incarnation, &ReplicaKeys, Arc<Bans>, Clock),
    addresses: Vec<Vec<Place>>,
) -> Result<Env, StartError> {
    let group = &options.group;
    let me = Peer::Replica(options.id);
    let identity = LinkIdentity::new(&options.secret, me, incarnation, group.directory())?;
    Ok(Env {
        me: options.id,
        n: group.quorums().n(),
        group: group.id(),
        epoch: group.epoch(),
        directory: group.directory().clone(),
        identity,
        addresses,
        limits: options.limits,
        repliers: group.settings().answers(group.quorums()),
        keys: keys.clone(),
        bans,
        clock,
    })
}

/// What misbehaves in a drill.
fn saboteur(
    options: &ReplicaOptions,
    pillar: PillarId,
    shared: &Shared,
    keys: &ReplicaKeys,
) -> Option<Box<Saboteur>> {
    let drill = options.drill?;
    tracing::warn!(id = %options.id, %pillar, %drill, "misbehaves to order");
    // Coordinators talk on the links of pillar 0 alone.
    let coordinates = matches!(drill, Drill::ForgedViewChange | Drill::ViewStorm);
    let elsewhere = coordinates && pillar != PillarId(0);
    let config = coordinator_config(&options.group, options.id, shared.incarnation);
    let scene = Scene {
        me: options.id,
        pillar,
        incarnation: shared.incarnation,
        rules: config.rules(),
        view_timeout: config.view_timeout,
    };
    let keys = Box::new(keys.clone());
    (!elsewhere).then(|| Box::new(Saboteur::new(drill, shared.drill.clone(), scene, keys)))
}

/// Parties of the log, in the order of pillars, the coordinator last.
type Parties = Option<std::vec::IntoIter<LogParty>>;

/// Starts the log's writer, unless durability is `memory`. It then has the directory, too.
fn start_log(
    boot: &mut Boot,
    layout: &Layout,
    bells: &[Arc<Bell>],
    shared: &Arc<Shared>,
) -> Result<(Option<LogWriter>, Parties), StartError> {
    let Some(log) = boot.log.take() else { return Ok((None, None)) };
    let Some(dir) = boot.dir.take() else { return Ok((None, None)) };
    let homes = layout.lanes.iter().chain([&layout.lanes[0]]);
    let party_bells = homes.map(|home| Arc::clone(&bells[*home])).collect();
    let sync = shared.durability == Durability::Sync;
    let name = "log-writer".to_owned();
    let failure = Arc::clone(&shared.failure);
    let started = LogWriter::start(name, (log, dir), party_bells, sync, failure);
    let (writer, parties) = started?;
    // Nobody else sets it.
    let _ = shared.log.set(writer.gauge());
    Ok((Some(writer), Some(parties.into_iter())))
}

/// What orders the frames of one pillar. A server that nobody replicates has nothing to go on
/// from: `options` were checked.
fn agreement(
    options: &ReplicaOptions,
    pillar: PillarId,
    keys: &ReplicaKeys,
    start: LaneStart,
) -> Agreement {
    let (config, keys) = (lane_config(options, pillar), Box::new(keys.clone()));
    match options.group.settings().agreement {
        genesis::Agreement::Pbft => Agreement::Pbft(Box::new(Lane::restore(config, keys, start))),
        genesis::Agreement::None => Agreement::None(Box::new(Solo::new(config, keys))),
    }
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
        switches: switches(settings),
        batching: Batching {
            frames_max: batching.frames_limit(),
            bytes_max: batching.bytes_max,
            delay: batching.delay,
            in_flight_max: batching.in_flight_max,
        },
        clock_skew_max: settings.clock_skew_max,
        retransmit: options.retransmit,
        view_timeout: settings.view_timeout,
    }
}

fn switches(settings: &Settings) -> Switches {
    Switches {
        leaders: match settings.leaders {
            genesis::Leaders::Fixed => Leaders::Fixed,
            genesis::Leaders::Rotating => Leaders::Rotating,
        },
        tentative: settings.tentative,
        commits: match settings.commits {
            genesis::Commits::Prompt => Commits::Prompt,
            genesis::Commits::Piggybacked => Commits::Piggybacked,
        },
        bodies: match settings.bodies {
            genesis::Bodies::Separate => Bodies::Separate,
            genesis::Bodies::Inline => Bodies::Inline,
        },
        idle: if settings.idle == genesis::Idle::Ahead { Idle::Ahead } else { Idle::Fill },
        reads: settings.reads == genesis::Reads::Unordered,
    }
}

fn coordinator_config(group: &Group, me: ReplicaId, incarnation: Incarnation) -> CoordinatorConfig {
    let settings = group.settings();
    CoordinatorConfig {
        me,
        incarnation,
        group: group.id(),
        epoch: group.epoch(),
        quorums: group.quorums(),
        stripe: group.stripe(),
        window: settings.window,
        checkpoint_interval: settings.checkpoint_interval,
        leaders: switches(settings).leaders,
        view_timeout: settings.view_timeout,
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
        nulls_ahead: settings.idle == genesis::Idle::Ahead,
        replicas: group.quorums().n(),
    }
}

fn resolve(group: &Group) -> Result<Vec<Vec<Place>>, StartError> {
    let one = |address: &Address| {
        Place::resolve(address)
            .map_err(|source| StartError::Resolve { address: address.clone(), source })
    };
    let replica = |entry: &genesis::ReplicaEntry| entry.addresses.iter().map(one).collect();
    group.replicas().iter().map(replica).collect()
}

fn listeners(
    options: &mut ReplicaOptions,
    places: &[Vec<Place>],
) -> Result<Vec<Listener>, StartError> {
    if let Some(listeners) = options.listeners.take() {
        return Ok(listeners);
    }
    let entry = &options.group.replicas()[usize::from(options.id.0)];
    let bind = |(place, address): (&Place, &Address)| {
        let mut place = place.clone();
        if let (Place::Tcp(address), Some(ip)) = (&mut place, options.listen_ip) {
            address.set_ip(ip);
        }
        Listener::at(&place)
            .map_err(|source| StartError::Listen { address: address.clone(), source })
    };
    places[usize::from(options.id.0)].iter().zip(&entry.addresses).map(bind).collect()
}
