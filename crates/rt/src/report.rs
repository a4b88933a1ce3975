//! What a replica tells about itself: one plain structure, the same for the embedding program
//! and, as JSON, for whoever asks over a client's link.
//!
//! Not here: where the numbers come from; threads leave them at most ten times a
//! second. Depends on `base` and `serde`.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};

use base::{Incarnation, PillarId, ReplicaId, View};
use serde::{Deserialize, Serialize};
use store::Durability;

use crate::bans::{Bans, ClientRow};
use crate::clock::Clock;
use crate::coordinator_host::CoordinatorSnapshot;
use crate::counters::{LinkCounters, TrafficCounters};
use crate::drill::DrillSwitch;
use crate::evidence::{EvidenceRow, SuspicionRow, add_garbage};
use crate::failure::Failure;
use crate::lane_host::LaneSnapshot;
use crate::log_writer::LogGauge;
use crate::options::ReplicaOptions;
use crate::saver::SaveDesk;
use crate::stage_host::StageSnapshot;

/// What a replica tells about itself. Each thread's part is at most 100 ms old.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Which replica.
    pub id: u16,
    /// What it is doing.
    pub state: ReplicaState,
    /// The view that its pillars are in (the lowest, should they differ).
    pub view: u64,
    /// The leader of that view; where leaders rotate, who would lead alone.
    pub leader: u16,
    /// Every number up to this one is executed.
    pub executed: u64,
    /// Numbers delivered to the stage beyond that, gaps included.
    pub lag: u64,
    /// Operations executed since the start.
    pub ops: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Checkpoints.
    pub checkpoint: CheckpointReport,
    /// Per pillar.
    pub pillars: Vec<PillarRow>,
    /// Per replica: messages that no correct replica sends. Suspicion, not proof.
    pub misbehaviour: Vec<u64>,
    /// What happened on the connections of all pillars.
    pub links: LinkCounters,
    /// How much went through all pillars.
    pub traffic: TrafficCounters,
    /// Its process.
    #[serde(flatten)]
    pub process: ProcessReport,
    /// What convinces anybody that a replica is faulty.
    pub evidence: Vec<EvidenceRow>,
    /// What makes others seem faulty, seen from here.
    pub suspicions: Vec<SuspicionRow>,
    /// View changes and recovery.
    pub group: GroupReport,
    /// What is on disk.
    pub disk: DiskReport,
    /// State transfer.
    pub transfer: TransferRow,
}

/// The process of a replica.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ProcessReport {
    /// This life of it.
    pub incarnation: u64,
    /// The agreed time after the last executed batch, nanoseconds since the Unix epoch.
    pub agreed_time: u64,
    /// Resident memory, in bytes; 0 when unknown.
    pub memory_rss: u64,
    /// Clients that sent it what no correct one sends: those that are shut out first, then those
    /// that did so most often, at most 64.
    #[serde(default)]
    pub clients: Vec<ClientRow>,
    /// What it answered before it was committed, or without an order.
    #[serde(default)]
    pub early: EarlyReport,
}

/// What was answered before it was committed, or without an order, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EarlyReport {
    /// Batches that were executed before they were committed.
    pub tentative_batches: u64,
    /// Of these, those that were taken back.
    pub rolled_back_batches: u64,
    /// Reads that were answered without an order.
    pub reads: u64,
    /// Frames of reads that were not, and are to be ordered.
    pub unread_frames: u64,
}

/// View changes and recovery, as one replica sees them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GroupReport {
    /// The view in which it votes, or voted last.
    pub view: u64,
    /// Who leads, as its pillars see it: one, or those that take turns.
    #[serde(default)]
    pub leaders: Vec<u16>,
    /// The view that it asks for instead, if any.
    pub asks_for: Option<u64>,
    /// Views that it has installed since the start.
    pub installed_views: u64,
    /// Whether it may have forgotten promises, and does not vote yet.
    pub recovering: bool,
    /// The checkpoint beyond which it may vote again, once that is known.
    pub recovers_at: Option<u64>,
    /// Other replicas that say the same of themselves.
    pub others_recovering: u64,
    /// The checkpoint that it fetches from others, if any.
    pub fetching: Option<u64>,
    /// So many replicas have forgotten their promises that nobody can tell what was agreed.
    pub too_many_forgetful: bool,
}

/// What a replica keeps on disk.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DiskReport {
    /// `memory`, `async` or `sync`.
    pub durability: String,
    /// Bytes of the vote log.
    pub log_bytes: u64,
    /// Bytes of promises that wait for the disk.
    pub log_lag_bytes: u64,
    /// Commits of the vote log since the start: each makes many promises durable.
    pub log_commits: u64,
    /// Bytes of checkpoint files.
    pub checkpoint_bytes: u64,
    /// The last checkpoint on disk; 0 without any.
    pub checkpoint: u64,
}

/// State transfer from and to other replicas.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TransferRow {
    /// Bytes fetched since the start, verified and in place.
    pub fetched_bytes: u64,
    /// Objects, likewise.
    pub fetched_objects: u64,
    /// Objects known to be missing and not asked for yet.
    pub missing_objects: u64,
    /// Bytes answered to other replicas since the start.
    pub served_bytes: u64,
    /// Bytes of memory that keep older checkpoints readable.
    pub saved_bytes: u64,
}

/// What a replica is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Taking part.
    Running,
    /// Linked to too few peers for a quorum.
    Isolated,
    /// Stopping.
    Draining,
    /// So far behind that it needs the state of others.
    LeftBehind,
    /// A quorum has another state: this replica's is wrong, and it is about to fetch that one.
    Diverged,
    /// It may have forgotten promises, and does not vote yet.
    Recovering,
    /// It fetches the state of a checkpoint from others.
    Fetching,
    /// It has left its view and waits for the next one.
    ChangingView,
    /// More replicas than may fail have forgotten their promises: nobody can tell what was
    /// agreed.
    TooManyForgetful,
}

/// Checkpoints of a replica.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CheckpointReport {
    /// The last stable one.
    pub stable: u64,
    /// Its digest, in hexadecimal.
    pub stable_digest: String,
    /// The last one that was taken here.
    pub last: u64,
    /// Its digest, in hexadecimal.
    pub last_digest: String,
    /// How many were taken here.
    pub count: u64,
    /// How long the last one held up execution at a time, in microseconds: the longest turn in
    /// which digests of it were made (upper bound).
    pub pause_last_us: u64,
    /// The longest such turn of all.
    pub pause_max_us: u64,
    /// Objects whose digest the last one computes anew: those written since the one before.
    pub objects_rehashed: u64,
}

/// One pillar.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PillarRow {
    /// Which.
    pub pillar: u16,
    /// The view it is in.
    pub view: u64,
    /// The last stable checkpoint it knows of.
    pub stable: u64,
    /// Its highest number delivered without a gap.
    pub delivered: u64,
    /// Frames that wait for their order.
    pub pending_frames: u64,
    /// Instances proposed and not delivered.
    pub in_flight: u64,
    /// Links to peers that are up.
    pub peers_up: u64,
    /// Connected clients.
    pub clients: u64,
    /// Connections of every kind, strangers included.
    pub connections: u64,
}

/// What the threads of a replica and its handle share.
pub(crate) struct Shared {
    pub(crate) id: ReplicaId,
    pub(crate) n: u16,
    pub(crate) quorum: usize,
    pub(crate) incarnation: Incarnation,
    pub(crate) threads: Vec<Mutex<ThreadSnapshot>>,
    pub(crate) draining: AtomicBool,
    pub(crate) stopped: AtomicBool,
    /// What stops the replica against its will.
    pub(crate) failure: Arc<Failure>,
    pub(crate) durability: Durability,
    /// The vote log, where there is one.
    pub(crate) log: OnceLock<LogGauge>,
    pub(crate) saves: Arc<SaveDesk>,
    /// Which clients are shut out.
    pub(crate) bans: Arc<Bans>,
    /// Whether this replica was told to misbehave, and whether it does.
    pub(crate) drilled: bool,
    pub(crate) drill: DrillSwitch,
    clock: Clock,
    /// Threads that have nothing left for anybody.
    pub(crate) drained: AtomicUsize,
}

/// What one thread left there last.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadSnapshot {
    pub(crate) lanes: Vec<LaneSnapshot>,
    pub(crate) stage: Option<StageSnapshot>,
    pub(crate) coordinator: Option<CoordinatorSnapshot>,
    /// Connections of lanes that live on other threads.
    pub(crate) ends: Vec<EndSnapshot>,
}

/// What a thread that has connections of a lane, and not the lane, tells about them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndSnapshot {
    pub(crate) pillar: PillarId,
    pub(crate) peers_up: usize,
    pub(crate) clients: usize,
    pub(crate) connections: usize,
    pub(crate) links: LinkCounters,
    pub(crate) traffic: TrafficCounters,
}

impl EndSnapshot {
    fn add_to(&self, lane: &mut LaneSnapshot) {
        if lane.pillar != self.pillar {
            return;
        }
        lane.peers_up += self.peers_up;
        lane.clients += self.clients;
        lane.connections += self.connections;
        lane.links.add(&self.links);
        lane.traffic.add(&self.traffic);
    }
}

impl Shared {
    /// What a replica begins with.
    pub(crate) fn new(
        options: &ReplicaOptions,
        incarnation: Incarnation,
        threads: usize,
        clock: Clock,
    ) -> Shared {
        let quorums = options.group.quorums();
        Shared {
            id: options.id,
            n: quorums.n(),
            quorum: quorums.quorum(),
            incarnation,
            threads: (0..threads).map(|_| Mutex::default()).collect(),
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            failure: Arc::default(),
            durability: options.durability,
            log: OnceLock::new(),
            saves: Arc::default(),
            bans: Arc::default(),
            drilled: options.drill.is_some(),
            drill: DrillSwitch::new(!options.drill_paused),
            clock,
            drained: AtomicUsize::new(0),
        }
    }

    /// Leaves what the thread `index` tells.
    pub(crate) fn publish(&self, index: usize, snapshot: ThreadSnapshot) {
        let mut mine = self.threads[index].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *mine = snapshot;
    }

    /// Puts together what the threads left.
    pub(crate) fn report(&self) -> ReplicaReport {
        let (mut lanes, mut ends) = (Vec::new(), Vec::new());
        let (mut stage, mut coordinator) = (None, None);
        for thread in &self.threads {
            let snapshot = thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            lanes.extend(snapshot.lanes.iter().cloned());
            ends.extend(snapshot.ends.iter().copied());
            stage = stage.or(snapshot.stage);
            coordinator = coordinator.or_else(|| snapshot.coordinator.clone());
        }
        for lane in &mut lanes {
            for end in &ends {
                end.add_to(lane);
            }
        }
        lanes.sort_by_key(|lane| lane.pillar);
        self.assemble(&lanes, stage, coordinator.unwrap_or_default())
    }

    fn assemble(
        &self,
        lanes: &[LaneSnapshot],
        stage: Option<StageSnapshot>,
        coordinator: CoordinatorSnapshot,
    ) -> ReplicaReport {
        let view = lanes.iter().map(|lane| lane.report.view).min().unwrap_or(View(0));
        let executed = stage.map_or(0, |s| s.report.executed.0);
        let mut misbehaviour = vec![0; usize::from(self.n)];
        let (mut links, mut traffic) = (LinkCounters::default(), TrafficCounters::default());
        for lane in lanes {
            links.add(&lane.links);
            traffic.add(&lane.traffic);
            misbehaviour.iter_mut().zip(&lane.misbehaviour).for_each(|(sum, n)| *sum += n);
        }
        ReplicaReport {
            id: self.id.0,
            state: self.state(lanes, stage, &coordinator),
            view: view.0,
            leader: view.leader(self.n).0,
            executed,
            lag: stage.map_or(0, |s| s.report.highest.0.saturating_sub(executed)),
            ops: stage.map_or(0, |s| s.report.ops),
            sessions: stage.map_or(0, |s| s.report.sessions),
            checkpoint: checkpoint(lanes, stage),
            pillars: lanes.iter().map(row).collect(),
            misbehaviour,
            links,
            traffic,
            process: ProcessReport {
                incarnation: self.incarnation.0,
                agreed_time: stage.map_or(0, |s| s.report.time.0),
                memory_rss: memory_rss(),
                clients: self.bans.rows(self.clock.mono()),
                early: stage.map(|s| s.early).unwrap_or_default(),
            },
            evidence: coordinator.evidence.proofs.clone(),
            suspicions: suspicions(lanes, &coordinator),
            group: group(lanes, &coordinator),
            disk: self.disk(),
            transfer: transfer(stage),
        }
    }

    fn disk(&self) -> DiskReport {
        let log = self.log.get().map(LogGauge::snapshot).unwrap_or_default();
        let saved = self.saves.snapshot();
        DiskReport {
            durability: self.durability.to_string(),
            log_bytes: log.on_disk,
            log_lag_bytes: log.waiting,
            log_commits: log.commits,
            checkpoint_bytes: saved.bytes,
            checkpoint: saved.seq,
        }
    }

    fn state(
        &self,
        lanes: &[LaneSnapshot],
        stage: Option<StageSnapshot>,
        coordinator: &CoordinatorSnapshot,
    ) -> ReplicaState {
        let report = &coordinator.report;
        let halted = stage.is_some_and(|s| s.report.halted);
        if self.draining.load(std::sync::atomic::Ordering::Relaxed) {
            ReplicaState::Draining
        } else if coordinator.facts.too_many_forgetful.is_some() {
            ReplicaState::TooManyForgetful
        } else if stage.is_some_and(|s| s.report.transfer.target.is_some()) {
            ReplicaState::Fetching
        } else if halted {
            ReplicaState::Diverged
        } else if report.recovering {
            ReplicaState::Recovering
        } else if report.fetching.is_some() {
            ReplicaState::LeftBehind
        } else if lanes.iter().any(|lane| lane.peers_up + 1 < self.quorum) {
            ReplicaState::Isolated
        } else if report.asks_for.is_some() {
            ReplicaState::ChangingView
        } else {
            ReplicaState::Running
        }
    }
}

fn suspicions(lanes: &[LaneSnapshot], coordinator: &CoordinatorSnapshot) -> Vec<SuspicionRow> {
    let mut rows = coordinator.evidence.suspicions.clone();
    for (accused, seen) in lanes.iter().flat_map(|lane| (0..).zip(&lane.garbage)) {
        add_garbage(&mut rows, accused, *seen);
    }
    rows
}

fn group(lanes: &[LaneSnapshot], coordinator: &CoordinatorSnapshot) -> GroupReport {
    let report = &coordinator.report;
    let leaders = lanes.iter().fold(0, |all, lane| all | lane.report.leaders);
    GroupReport {
        view: report.view.0,
        leaders: (0..64).filter(|replica| leaders >> replica & 1 == 1).collect(),
        asks_for: report.asks_for.map(|view| view.0),
        installed_views: report.installed,
        recovering: report.recovering,
        recovers_at: report.recovers_at.map(|seq| seq.0),
        others_recovering: report.others_recovering as u64,
        fetching: report.fetching.map(|seq| seq.0),
        too_many_forgetful: coordinator.facts.too_many_forgetful.is_some(),
    }
}

fn transfer(stage: Option<StageSnapshot>) -> TransferRow {
    let report = stage.map(|s| s.report.transfer).unwrap_or_default();
    TransferRow {
        fetched_bytes: report.bytes,
        fetched_objects: report.objects,
        missing_objects: report.missing,
        served_bytes: report.served_bytes,
        saved_bytes: report.saved_bytes,
    }
}

fn checkpoint(lanes: &[LaneSnapshot], stage: Option<StageSnapshot>) -> CheckpointReport {
    let stable = lanes.iter().map(|lane| &lane.report).max_by_key(|report| report.stable);
    let own = stage.map(|s| s.report).unwrap_or_default();
    let pauses = stage.map(|s| s.pauses).unwrap_or_default();
    CheckpointReport {
        stable: stable.map_or(0, |report| report.stable.0),
        stable_digest: stable.map_or_else(String::new, |r| hex(&r.stable_digest.0)),
        last: own.checkpoint.0,
        last_digest: hex(&own.checkpoint_digest.0),
        count: own.checkpoints,
        pause_last_us: pauses.last_us,
        pause_max_us: pauses.max_us,
        objects_rehashed: own.objects_rehashed,
    }
}

fn row(lane: &LaneSnapshot) -> PillarRow {
    PillarRow {
        pillar: lane.pillar.0,
        view: lane.report.view.0,
        stable: lane.report.stable.0,
        delivered: lane.report.delivered.0,
        pending_frames: lane.report.pending_frames,
        in_flight: lane.report.in_flight,
        peers_up: lane.peers_up as u64,
        clients: lane.clients as u64,
        connections: lane.connections as u64,
    }
}

/// In hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Resident memory as the kernel counts it; 0 where it does not say.
fn memory_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
