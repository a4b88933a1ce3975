//! How a life begins: what the replica's directory holds, whether it may vote, and the state that
//! it begins with.
//!
//! The order matters. The directory is locked and read; the decision is made (`store`); it is
//! made durable; only then is anything said to others. What is read back is verified: records by
//! the log's checksums and by their own form, a checkpoint by its certificate and its digests.
//! Objects of a checkpoint that do not verify are fetched from the others.
//!
//! Not here: the files (`store`), the threads (`machine`).

use std::path::Path;
use std::sync::Arc;

use base::transfer::Part;
use base::{Digest, FromStage, Incarnation, Keyring, Reader, Seq};
use base::{StableCheckpoint, View};
use exec::{Service, Stage, StageBuilder, StageConfig};
use proto::Record;
use proto::group::link::FromCoordinator;
use proto::group::record::GroupRecord;
use proto::group::rules::Rules;
use proto::group::{Beginning, Effect};
use proto::pbft::LaneStart;
use store::{CheckpointReader, Dir, Found, Identity, Item, Log, Opened, Voice};

use crate::clock::wall_ns;
use crate::drill::{Drill, sabotage};
use crate::options::{ReplicaOptions, StartError};

/// Everything that a life begins with.
pub(crate) struct Boot {
    pub(crate) incarnation: Incarnation,
    pub(crate) beginning: Beginning,
    /// The directory, where there is one.
    pub(crate) dir: Option<Dir>,
    /// Where promises are written, unless durability is `memory`.
    pub(crate) log: Option<Log>,
    pub(crate) stage: Stage,
    /// The checkpoint that the stage begins with.
    pub(crate) stable: StableCheckpoint,
    /// What the coordinator is to be told first: the stage is not what it should be.
    pub(crate) damage: Option<FromStage>,
    /// What this replica promised, per pillar.
    pub(crate) records: Vec<Vec<Record>>,
    pub(crate) group_records: Vec<GroupRecord>,
    /// Bytes of the last checkpoint on disk, and its number.
    pub(crate) saved: Option<(Seq, u64)>,
}

/// What a checkpoint on disk came to.
struct Loaded {
    stage: Stage,
    stable: StableCheckpoint,
    damage: Option<FromStage>,
    saved: Option<(Seq, u64)>,
}

impl Boot {
    /// Reads the directory, decides, and makes the decision durable. Takes the service out of
    /// the options, and calls `on_begin`.
    ///
    /// # Errors
    /// When the replica must not start like this, or its directory cannot be used.
    pub(crate) fn begin(
        options: &mut ReplicaOptions,
        config: StageConfig,
        keys: &dyn Keyring,
    ) -> Result<Boot, StartError> {
        // The options keep a service that nobody asks.
        let service = std::mem::replace(&mut options.service, Box::new(Nothing));
        let service = sabotage(service, options.drill);
        if options.drill == Some(Drill::Forget) {
            forget(options)?;
        }
        let clock = Incarnation(wall_ns());
        let boot = match options.state_dir.clone() {
            Some(path) => Boot::from_dir(options, &path, config, service, (clock, keys))?,
            None => Boot::from_nothing(options, config, service, clock)?,
        };
        if let Some(on_begin) = options.on_begin.take() {
            on_begin().map_err(StartError::Begin)?;
        }
        Ok(boot)
    }

    fn from_nothing(
        options: &ReplicaOptions,
        config: StageConfig,
        service: Box<dyn Service>,
        incarnation: Incarnation,
    ) -> Result<Boot, StartError> {
        let whole = options.fresh && !options.recover;
        Ok(Boot {
            incarnation,
            beginning: if whole { Beginning::Whole } else { Beginning::Forgetful },
            dir: None,
            log: None,
            stage: first_stage(options, config, service)?,
            stable: StableCheckpoint::default(),
            damage: None,
            records: vec![Vec::new(); usize::from(options.group.pillars())],
            group_records: Vec::new(),
            saved: None,
        })
    }

    fn from_dir(
        options: &ReplicaOptions,
        path: &Path,
        config: StageConfig,
        service: Box<dyn Service>,
        (clock, keys): (Incarnation, &dyn Keyring),
    ) -> Result<Boot, StartError> {
        let identity = Identity { group: options.group.id(), replica: options.id };
        let Opened { mut dir, mut found } = Dir::open(path, identity, options.storage.clone())?;
        let mut beginning = store::beginning(&found, options.fresh, options.recover)?;
        let records = std::mem::take(&mut found.log.records);
        let mut split = Split::new(options);
        for record in &records {
            split.take(options, &record.bytes)?;
        }
        let loaded = load(options, &dir, &found, config, service, keys)?;
        if beginning.voice == Voice::Whole && split.misses_a_checkpoint(&loaded.stable) {
            beginning.voice = Voice::Forgetful;
            beginning.why = "the checkpoint that the log goes on from is gone".to_owned();
        }
        let gap = split.widest_gap(loaded.stable.seq);
        if beginning.voice == Voice::Whole && gap > GAP_MAX {
            beginning.voice = Voice::Forgetful;
            beginning.why = format!(
                "the log goes on {gap} numbers beyond what is on disk: the state was fetched from \
                 the others and not saved yet"
            );
        }
        let incarnation = found.incarnation(clock);
        tracing::info!(id = %options.id, %incarnation, voice = ?beginning.voice, "{}", beginning.why);
        let log = dir.begin(&beginning, incarnation, options.durability, options.log.layout)?;
        let whole = beginning.voice == Voice::Whole;
        if !whole {
            // What it may have promised is not known: the others are asked, not the log.
            split.lanes.iter_mut().for_each(Vec::clear);
        }
        Ok(Boot {
            incarnation,
            beginning: if whole { Beginning::Whole } else { Beginning::Forgetful },
            dir: Some(dir),
            log,
            stage: loaded.stage,
            stable: loaded.stable,
            damage: loaded.damage,
            records: split.lanes,
            group_records: split.group,
            saved: loaded.saved,
        })
    }
}

/// For the drill of that name: throws everything away and starts as if that were the first time.
fn forget(options: &mut ReplicaOptions) -> Result<(), StartError> {
    (options.fresh, options.recover) = (true, false);
    let Some(dir) = &options.state_dir else { return Ok(()) };
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Numbers that may be missing between the checkpoint and the log. The lanes keep a place for
/// each of them, and after a long absence there may be more than fit into memory. Whoever
/// begins forgetful is taken in again without them.
const GAP_MAX: u64 = 1 << 21;

/// The records of a log, sorted by owner.
struct Split {
    lanes: Vec<Vec<Record>>,
    group: Vec<GroupRecord>,
    lowest: Option<Seq>,
}

impl Split {
    fn new(options: &ReplicaOptions) -> Split {
        let lanes = vec![Vec::new(); usize::from(options.group.pillars())];
        Split { lanes, group: Vec::new(), lowest: None }
    }

    fn take(&mut self, options: &ReplicaOptions, bytes: &[u8]) -> Result<(), StartError> {
        let mut r = Reader::new(bytes);
        let record = Record::decode(options.group.id(), &mut r).and_then(|record| {
            r.finish("record")?;
            Ok(record)
        });
        let record = record.map_err(|what| {
            let dir = options.state_dir.clone().unwrap_or_default();
            StartError::Records { dir, what }
        })?;
        match (record.seq(), record) {
            (None, Record::Group(record)) => self.group.push(record),
            (Some(seq), record) => {
                self.lowest = Some(self.lowest.map_or(seq, |lowest| lowest.min(seq)));
                let pillar = options.group.stripe().pillar_of(seq);
                self.lanes[usize::from(pillar.0)].push(record);
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// The most numbers in a row, above `loaded` and below the highest record, without a record.
    fn widest_gap(&self, loaded: Seq) -> u64 {
        let seqs = self.lanes.iter().flatten().filter_map(Record::seq);
        let mut seqs: Vec<u64> = seqs.map(|seq| seq.0).filter(|seq| *seq > loaded.0).collect();
        seqs.sort_unstable();
        let before = std::iter::once(&loaded.0).chain(&seqs);
        seqs.iter().zip(before).map(|(seq, before)| seq - before).max().unwrap_or(0)
    }

    /// Whether the log was cut back by a checkpoint beyond the one that could be read: then
    /// promises may be missing in between.
    fn misses_a_checkpoint(&self, loaded: &StableCheckpoint) -> bool {
        let certified = self.group.iter().filter_map(|record| match record {
            GroupRecord::Stable(stable) | GroupRecord::Recovered { stable } => Some(stable.seq),
            _ => None,
        });
        let known = certified.max().unwrap_or(Seq(0));
        // A window above the low mark is the least that a log holds when it was cut in time.
        known > loaded.seq && self.lowest.is_none_or(|lowest| lowest > loaded.seq.next())
    }
}

fn first_stage(
    options: &ReplicaOptions,
    config: StageConfig,
    service: Box<dyn Service>,
) -> Result<Stage, StartError> {
    let Some(path) = &options.seed else { return Ok(Stage::new(config, service)) };
    let wrong = |what: String| StartError::Seed { path: path.clone(), what };
    let mut reader = CheckpointReader::open(&*options.storage, path)?;
    let mut builder = StageBuilder::new(config, service, reader.head().manifest);
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Object { part: Part::Service, number, bytes } => builder
                .put(Part::Service, number, &bytes)
                .map_err(|e| wrong(format!("object {number} is none of this service: {e}")))?,
            Item::Object { part: Part::Sessions, .. } => {}
            Item::Corrupt { .. } | Item::Lost { .. } => {
                return Err(wrong("it is damaged".to_owned()));
            }
        }
    }
    builder.seed().map_err(|e| wrong(e.to_string()))
}

/// The stage from the newest checkpoint whose certificate is right, or from the beginning.
fn load(
    options: &ReplicaOptions,
    dir: &Dir,
    found: &Found,
    config: StageConfig,
    service: Box<dyn Service>,
    keys: &dyn Keyring,
) -> Result<Loaded, StartError> {
    let good = found.checkpoints.iter().find(|head| {
        let right = head.manifest.digest(config.group) == head.certificate.digest
            && is_certified(options, keys, &head.certificate);
        if !right {
            let path = head.path.display();
            tracing::warn!(%path, "a checkpoint is not certified by this group");
        }
        right
    });
    let Some(head) = good else {
        let stage = first_stage(options, config, service)?;
        let stable = StableCheckpoint::default();
        return Ok(Loaded { stage, stable, damage: None, saved: None });
    };
    let mut reader = dir.checkpoints().read(head)?;
    let mut builder = StageBuilder::new(config, service, head.manifest);
    while let Some(item) = reader.next_item()? {
        if let Item::Object { part, number, bytes } = item {
            // What is no object of the service is fetched like one that is damaged.
            let _ = builder.put(part, number, &bytes);
        }
    }
    let summary = reader.summary();
    let stable = head.certificate.clone();
    let saved = Some((stable.seq, head.file_bytes));
    let (stage, damage) = match builder.finish(&stable) {
        Ok(stage) => (stage, None),
        Err(damaged) => {
            let path = head.path.display();
            tracing::warn!(
                %path, corrupt = summary.corrupt, missing = summary.missing,
                "the checkpoint on disk is damaged: what does not verify is fetched"
            );
            let (certified, ours) = (stable.clone(), Digest::default());
            (damaged.stage, Some(FromStage::Diverged { certified, ours }))
        }
    };
    Ok(Loaded { stage, stable, damage, saved })
}

/// Whether the certificate holds: others are shown it, and believe it whole or not at all.
fn is_certified(
    options: &ReplicaOptions,
    keys: &dyn Keyring,
    certificate: &StableCheckpoint,
) -> bool {
    let group = &options.group;
    let settings = group.settings();
    let rules = Rules {
        group: group.id(),
        epoch: group.epoch(),
        quorums: group.quorums(),
        window: settings.window,
        checkpoint_interval: settings.checkpoint_interval,
    };
    rules.certified(keys, certificate)
}

/// What the lanes must be told before anything else happens to them.
pub(crate) struct FirstWords {
    start: (View, bool, Option<Arc<proto::group::link::Plan>>),
    /// In order.
    pub(crate) voting: Vec<FromCoordinator>,
}

impl FirstWords {
    /// Takes out of the coordinator's first effects what is for the lanes.
    pub(crate) fn split(effects: &mut Vec<Effect>) -> FirstWords {
        let mut words = FirstWords { start: (View(0), true, None), voting: Vec::new() };
        effects.retain(|effect| {
            let Effect::Lanes(message) = effect else { return true };
            match message {
                FromCoordinator::Install(plan) => {
                    words.start = (plan.view, true, Some(Arc::clone(plan)));
                }
                FromCoordinator::Stop { view } => {
                    words.start = (*view, false, words.start.2.take());
                }
                other => words.voting.push(other.clone()),
            }
            false
        });
        words
    }

    /// How a lane begins.
    pub(crate) fn lane_start(&self, stable: &StableCheckpoint, records: Vec<Record>) -> LaneStart {
        let (view, active, plan) = self.start.clone();
        LaneStart { stable: stable.clone(), view, active, plan, records }
    }
}

/// Stands in the options' place of the service once that has moved to the stage.
struct Nothing;

impl Service for Nothing {
    fn execute(
        &mut self,
        _: &[u8],
        _: &mut exec::Context<'_>,
        _: &mut Vec<u8>,
    ) -> exec::Completion {
        exec::Completion::Done
    }

    fn get(&self, _: u32, _: &mut Vec<u8>) {}

    fn put(&mut self, _: u32, _: &[u8]) -> Result<(), base::Malformed> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_as_wide_as_what_is_missing_above_the_checkpoint() {
        let committed =
            |seq| Record::Committed { seq: Seq(seq), digest: Digest::ZERO, batch: None };
        let lane = |seqs: &[u64]| seqs.iter().map(|seq| committed(*seq)).collect::<Vec<_>>();
        let lanes = vec![lane(&[9, 5, 1_000_003]), lane(&[8, 1_000_004, 4])];
        let split = Split { lanes, group: Vec::new(), lowest: Some(Seq(4)) };
        assert_eq!(split.widest_gap(Seq(9)), 999_994);
        assert_eq!(split.widest_gap(Seq(1_000_000)), 3);
        assert_eq!(split.widest_gap(Seq(2_000_000)), 0, "what is below does not count");
        let none = Split { lanes: vec![vec![], vec![]], group: Vec::new(), lowest: None };
        assert_eq!(none.widest_gap(Seq(0)), 0);
    }
}
