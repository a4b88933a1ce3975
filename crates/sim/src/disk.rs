//! A replica's disk: what one life leaves to the next.
//!
//! The vote log's durable records and a checkpoint, copied object by object from what the stage
//! holds readable while execution goes on. Not here: files and their bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::transfer::{Manifest, Part as Tree, SnapshotReader};
use base::{PillarId, ReplicaId, Span, StableCheckpoint, Stripe, View};
use exec::service::Service;
use exec::stage::{Stage, StageBuilder};
use proto::Record;
use proto::group::link::{FromCoordinator, Plan};
use proto::group::record::GroupRecord;
use proto::group::{Effect, Input};
use proto::pbft::{Lane, LaneStart};

use crate::coverage::Sight;
use crate::events::{Inside, Part};
use crate::host::{keys, lane_config, stage_config};
use crate::options::Options;
use crate::world::World;

/// Records after which a checkpoint is wanted on disk, so that the log can be cut.
const RECORDS_PER_CHECKPOINT: usize = 300;
/// Objects that are copied in one go.
const OBJECTS_PER_TURN: usize = 40;

/// What survives the process.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    /// The durable records, in the order of writing.
    pub(crate) records: Vec<Record>,
    /// The last complete checkpoint.
    checkpoint: Option<File>,
    /// The one that is being written.
    draft: Option<File>,
    /// The length of the log when a checkpoint was last asked for.
    asked_at: usize,
    /// Votes may have been made that are not here.
    pub(crate) doubtful: bool,
}

/// A checkpoint file.
#[derive(Clone)]
struct File {
    checkpoint: StableCheckpoint,
    manifest: Manifest,
    objects: Vec<(Tree, u32, Vec<u8>)>,
}

impl Disk {
    /// The process has ended: what was half written is nothing.
    pub(crate) fn close(&mut self, records: Vec<Record>) {
        self.records = records;
        self.draft = None;
        self.asked_at = 0;
    }

    /// The checkpoint that a life begins with.
    pub(crate) fn stable(&self) -> StableCheckpoint {
        self.checkpoint.as_ref().map(|file| file.checkpoint.clone()).unwrap_or_default()
    }

    /// The coordinator's records.
    pub(crate) fn group_records(&self) -> Vec<GroupRecord> {
        let group = self.records.iter().filter_map(|record| match record {
            Record::Group(record) => Some(record.clone()),
            _ => None,
        });
        group.collect()
    }

    /// A stage at the checkpoint.
    pub(crate) fn stage(&self, options: &Options, service: Box<dyn Service>) -> Stage {
        let config = stage_config(options);
        let Some(file) = &self.checkpoint else { return Stage::new(config, service) };
        let mut builder = StageBuilder::new(config, service, file.manifest);
        for (tree, object, bytes) in &file.objects {
            builder.put(*tree, *object, bytes).expect("objects come from a stage");
        }
        let Ok(stage) = builder.finish(&file.checkpoint) else {
            panic!("the checkpoint on disk is not what was certified: {:?}", file.manifest);
        };
        stage
    }

    /// The lanes with their records; takes the coordinator's first words to them.
    pub(crate) fn lanes(&self, options: &Options, me: ReplicaId, first: &First) -> Vec<Lane> {
        let stripe = Stripe::new(options.pillars).expect("pillars in range");
        let mut per_pillar: BTreeMap<PillarId, Vec<Record>> = BTreeMap::new();
        for record in &self.records {
            if let Some(seq) = record.seq() {
                per_pillar.entry(stripe.pillar_of(seq)).or_default().push(record.clone());
            }
        }
        let lanes = (0..options.pillars).map(PillarId).map(|pillar| {
            let start = LaneStart {
                stable: self.stable(),
                view: first.view,
                active: first.active,
                plan: first.plan.clone(),
                records: per_pillar.remove(&pillar).unwrap_or_default(),
            };
            Lane::restore(lane_config(options, me, pillar), keys(options, me), start)
        });
        lanes.collect()
    }
}

/// What a coordinator says first: where the lanes stand.
pub(crate) struct First {
    view: View,
    active: bool,
    plan: Option<Arc<Plan>>,
}

impl First {
    /// Takes out of a coordinator's first effects what lanes begin with.
    pub(crate) fn split(effects: &mut Vec<Effect>) -> First {
        let mut first = First { view: View(0), active: true, plan: None };
        effects.retain(|effect| match effect {
            Effect::Lanes(FromCoordinator::Install(plan)) => {
                first = First { view: plan.view, active: true, plan: Some(Arc::clone(plan)) };
                false
            }
            Effect::Lanes(FromCoordinator::Stop { view }) => {
                (first.view, first.active) = (*view, false);
                false
            }
            _ => true,
        });
        first
    }
}

impl World {
    /// Asks for a checkpoint on disk when the log has grown enough.
    pub(crate) fn watch_log(&mut self, replica: ReplicaId) {
        let host = self.replica(replica);
        let length = host.journal.durable();
        if length >= host.disk.asked_at + RECORDS_PER_CHECKPOINT {
            host.disk.asked_at = length;
            let input = Input::SaveCheckpoint { now: false };
            self.tell(replica, Part::Disk, Inside::Coordinator(input));
        }
    }

    /// A checkpoint is readable: copying it to the disk begins.
    pub(crate) fn begin_checkpoint(&mut self, replica: ReplicaId, checkpoint: StableCheckpoint) {
        let host = self.replica(replica);
        let manifest = host.stage.pinned_manifest(SnapshotReader::Disk).copied();
        let manifest = manifest.filter(|manifest| manifest.seq == checkpoint.seq);
        host.disk.draft =
            manifest.map(|manifest| File { checkpoint, manifest, objects: Vec::new() });
        self.plan_copy(replica);
    }

    fn plan_copy(&mut self, replica: ReplicaId) {
        let after = Span::micros(self.prng.between(10, 1_000));
        let at = self.queue.now().after(after);
        self.plan(replica, Part::Disk, at);
    }

    /// Copies some more of the pinned checkpoint; cuts the log once it is complete.
    pub(crate) fn write_checkpoint(&mut self, replica: ReplicaId) {
        let host = self.replica(replica);
        let Some(mut file) = host.disk.draft.take() else {
            return self.tell(replica, Part::Disk, Inside::Coordinator(Input::Saved));
        };
        let stage = &host.stage;
        let trees = [Tree::Service, Tree::Sessions];
        let all =
            trees.into_iter().flat_map(|tree| (0..stage.objects(tree)).map(move |o| (tree, o)));
        let mut left = all.skip(file.objects.len());
        for (tree, object) in left.by_ref().take(OBJECTS_PER_TURN) {
            // Taken away meanwhile: the next one will be whole.
            let Some(bytes) = stage.read_pinned(SnapshotReader::Disk, tree, object) else {
                return self.tell(replica, Part::Disk, Inside::Coordinator(Input::Saved));
            };
            file.objects.push((tree, object, bytes.into_owned()));
        }
        if left.next().is_some() {
            host.disk.draft = Some(file);
            return self.plan_copy(replica);
        }
        drop(left);
        host.journal.cut(file.checkpoint.seq);
        host.disk.checkpoint = Some(file);
        self.saw(Sight::CheckpointOnDisk);
        self.tell(replica, Part::Disk, Inside::Coordinator(Input::Saved));
    }
}
