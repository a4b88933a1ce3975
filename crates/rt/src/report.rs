//! What a replica tells about itself: one plain structure, the same for the embedding program
//! and, as JSON, for whoever asks over a client's link.
//!
//! Not here: where the numbers come from; threads leave them at most ten times a
//! second. Depends on `base` and `serde`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use base::{Incarnation, ReplicaId, View};
use serde::{Deserialize, Serialize};

use crate::counters::{LinkCounters, TrafficCounters};
use crate::lane_host::LaneSnapshot;
use crate::stage_host::StageSnapshot;

/// What a replica tells about itself. Each thread's part is at most 100 ms old.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Which replica.
    pub id: u16,
    /// This life of its process.
    pub incarnation: u64,
    /// What it is doing.
    pub state: ReplicaState,
    /// The view that its pillars are in (the lowest, should they differ).
    pub view: u64,
    /// The leader of that view.
    pub leader: u16,
    /// Every number up to this one is executed.
    pub executed: u64,
    /// Numbers delivered to the stage beyond that, gaps included.
    pub lag: u64,
    /// The agreed time after the last executed batch, nanoseconds since the Unix epoch.
    pub agreed_time: u64,
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
    /// Resident memory of the process, in bytes; 0 when unknown.
    pub memory_rss: u64,
    /// Transferable proofs of misbehaviour. None are made yet.
    pub evidence: Vec<String>,
    /// Suspicions. None are made yet.
    pub suspicions: Vec<String>,
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
    /// A quorum has another state: this replica's is wrong, and it executes nothing more.
    Diverged,
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
    /// How long the last one held up execution, in microseconds (upper bound).
    pub pause_last_us: u64,
    /// How long the longest one did.
    pub pause_max_us: u64,
    /// Objects whose digest the last one computed anew: those written since the one before.
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
    /// Threads that have nothing left for anybody.
    pub(crate) drained: AtomicUsize,
}

/// What one thread left there last.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadSnapshot {
    pub(crate) lanes: Vec<LaneSnapshot>,
    pub(crate) stage: Option<StageSnapshot>,
}

impl Shared {
    /// Puts together what the threads left.
    pub(crate) fn report(&self) -> ReplicaReport {
        let mut lanes = Vec::new();
        let mut stage = None;
        for thread in &self.threads {
            let snapshot = thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            lanes.extend(snapshot.lanes.iter().cloned());
            stage = stage.or(snapshot.stage);
        }
        lanes.sort_by_key(|lane| lane.pillar);
        self.assemble(&lanes, stage)
    }

    fn assemble(&self, lanes: &[LaneSnapshot], stage: Option<StageSnapshot>) -> ReplicaReport {
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
            incarnation: self.incarnation.0,
            state: self.state(lanes, stage),
            view: view.0,
            leader: view.leader(self.n).0,
            executed,
            lag: stage.map_or(0, |s| s.report.highest.0.saturating_sub(executed)),
            agreed_time: stage.map_or(0, |s| s.report.time.0),
            ops: stage.map_or(0, |s| s.report.ops),
            sessions: stage.map_or(0, |s| s.report.sessions),
            checkpoint: checkpoint(lanes, stage),
            pillars: lanes.iter().map(row).collect(),
            misbehaviour,
            links,
            traffic,
            memory_rss: memory_rss(),
            evidence: Vec::new(),
            suspicions: Vec::new(),
        }
    }

    fn state(&self, lanes: &[LaneSnapshot], stage: Option<StageSnapshot>) -> ReplicaState {
        let diverged = stage.is_some_and(|s| s.diverged);
        if diverged || lanes.iter().any(|lane| lane.trouble.diverged) {
            ReplicaState::Diverged
        } else if self.draining.load(std::sync::atomic::Ordering::Relaxed) {
            ReplicaState::Draining
        } else if lanes.iter().any(|lane| lane.trouble.left_behind) {
            ReplicaState::LeftBehind
        } else if lanes.iter().any(|lane| lane.peers_up + 1 < self.quorum) {
            ReplicaState::Isolated
        } else {
            ReplicaState::Running
        }
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Resident memory as the kernel counts it; 0 where it does not say.
fn memory_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
