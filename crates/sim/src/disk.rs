//! A replica's disk: the real `store` over a simulated storage, written on virtual time.
//!
//! A group of records that is under way to the disk is written when its time has come, or, if
//! the process ends before, up to some operation. A checkpoint is copied object by object from
//! what the stage holds readable while execution goes on. A start reads all of it back and
//! decides with the code that a real one runs (`durable::Boot`).
//!
//! Not here: how the disk fails (`storage`), and when (`faults`).

use std::path::Path;
use std::sync::Arc;

use base::transfer::{Manifest, Part as Tree, SnapshotReader};
use base::{Incarnation, Quorums, ReplicaId, Seq, Span, StableCheckpoint, Time};
use durable::{Boot, BootError, Saving, Terms};
use exec::service::Service;
use exec::stage::Stage;
use proto::group::Input;
use store::{CheckpointWriter, Checkpoints, Dir, Identity, Log, LogOptions, Storage, StoreError};

use crate::coverage::Sight;
use crate::events::{Inside, Part};
use crate::host::{GROUP, coordinator_config, keys, stage_config, stripe};
use crate::journal::Gathered;
use crate::options::{Durability, Options};
use crate::prng::Prng;
use crate::storage::SimStorage;
use crate::world::World;

/// Bytes of log after which a checkpoint is wanted on disk, so that the log can be cut.
const GROWTH_BYTES: u64 = 48 << 10;
/// Bytes of a segment of the log: many, so that cuts have something to take away.
const SEGMENT_BYTES: u64 = 8 << 10;
/// Objects that are copied in one go.
const OBJECTS_PER_TURN: usize = 40;
/// How long records that nobody waits for may stay in memory.
const LAZY_FOR: Span = Span::millis(20);
const DIR: &str = "state";

/// What survives the process, and what the process has open of it.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) storage: SimStorage,
    /// The mark of `init` says that the replica was never started.
    fresh: bool,
    /// The next life will have forgotten votes, whatever else happens to the disk.
    pub(crate) doubtful: bool,
    /// The life file says that the last life had not recovered: it may have, just before it ended.
    unrecovered: bool,
    open: Option<Open>,
}

/// A directory that is open.
#[derive(Debug)]
struct Open {
    dir: Dir,
    /// None in durability `memory`.
    log: Option<Log>,
    checkpoints: Checkpoints,
    saving: Saving,
    draft: Option<Draft>,
    /// What is under way to the log, and until when.
    writing: Option<(Gathered, Time)>,
}

/// A checkpoint that is being written.
#[derive(Debug)]
struct Draft {
    checkpoint: StableCheckpoint,
    manifest: Manifest,
    writer: CheckpointWriter,
    /// Objects that are in it.
    count: usize,
}

/// What came of some copying.
enum Copied {
    /// There is more.
    More,
    /// It is written, up to this number, or given up; the log may be cut up to the other one.
    Over(Option<Seq>, Option<Seq>),
    /// The directory keeps no names any more.
    Failed,
}

impl Default for Disk {
    /// In place of one that is looked at.
    fn default() -> Disk {
        Disk::new(0)
    }
}

impl Disk {
    pub(crate) fn new(seed: u64) -> Disk {
        let storage = SimStorage::new(seed);
        Disk { storage, fresh: true, doubtful: false, unrecovered: false, open: None }
    }

    /// A life begins. An operator who is told that there is nothing here names recovery.
    pub(crate) fn boot(
        &mut self,
        options: &Options,
        me: ReplicaId,
        clock: Incarnation,
        service: &dyn Fn() -> Box<dyn Service>,
    ) -> Result<Boot, BootError> {
        let keys = keys(options, me);
        let mut terms = Terms {
            identity: Identity { group: GROUP, replica: me },
            stripe: stripe(options),
            stage: stage_config(options),
            rules: coordinator_config(options, me, clock).rules(),
            keys: &*keys,
            fresh: self.fresh,
            recover: false,
            durability: match options.durability {
                Durability::Memory => store::Durability::Memory,
                Durability::Async => store::Durability::Async,
                Durability::Sync => store::Durability::Sync,
            },
            layout: LogOptions { segment_bytes: SEGMENT_BYTES },
            clock,
        };
        let begin = |terms: &Terms<'_>| {
            let storage: Arc<dyn Storage> = Arc::new(self.storage.clone());
            let first = |service| Ok(Stage::new(terms.stage, service));
            Boot::from_dir::<BootError>(terms, (Path::new(DIR), storage), service(), first)
        };
        let mut boot = match begin(&terms) {
            Err(BootError::Refused(_)) => {
                terms.recover = true;
                begin(&terms)?
            }
            other => other?,
        };
        self.fresh = false;
        let dir = boot.dir.take().expect("the boot of a directory");
        let found = boot.log.as_ref().map_or(0, Log::found);
        self.open = Some(Open {
            checkpoints: dir.checkpoints(),
            log: boot.log.take(),
            dir,
            saving: Saving::new(boot.saved, GROWTH_BYTES, found),
            draft: None,
            writing: None,
        });
        Ok(boot)
    }

    /// The process ends. What was under way to the disk may have reached it in part.
    pub(crate) fn close(&mut self, sync: bool, prng: &mut Prng) {
        let Some(mut open) = self.open.take() else { return };
        let stopped = self.storage.has_stopped();
        if !stopped {
            self.storage.stop_after(prng.below(4));
            if let (Some((gathered, _)), Some(log)) = (&open.writing, &mut open.log) {
                // Whatever it says, nobody hears it.
                let _ = gathered.portion.write(log, sync);
            }
        }
        self.unrecovered = open.dir.life().is_some_and(|life| life.recovering);
        // Nothing is tidied up.
        self.storage.stop_after(0);
        drop(open);
        if !stopped {
            self.storage.go_on();
        }
    }

    /// Checkpoint files that are there.
    pub(crate) fn checkpoints(&self) -> usize {
        let heads = self.open.as_ref().map(|open| open.checkpoints.heads());
        heads.and_then(Result::ok).map_or(0, |heads| heads.len())
    }

    /// Whether records are under way to the log.
    pub(crate) fn is_writing(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.writing.is_some())
    }

    /// Everything is gone.
    pub(crate) fn lose(&mut self) {
        self.storage.lose();
        self.doubtful = true;
    }

    /// Whether the next life may have forgotten votes.
    pub(crate) fn may_forget(&self) -> bool {
        self.doubtful || self.unrecovered || self.storage.may_forget()
    }

    /// The state came from elsewhere.
    pub(crate) fn state_replaced(&mut self) {
        if let Some(open) = &mut self.open {
            open.saving.state_replaced();
        }
    }

    /// Whether the coordinator is to be asked for a checkpoint, and whether that is urgent.
    fn wants(&mut self) -> Option<bool> {
        let open = self.open.as_mut()?;
        open.saving.wants(open.log.as_ref().map(Log::appended))
    }

    /// Begins a file; `weak` if fewer than a quorum have signed it. False when it is of no use.
    fn begin(&mut self, checkpoint: StableCheckpoint, weak: bool, stage: &Stage) -> bool {
        let Some(open) = &mut self.open else { return false };
        if !open.saving.is_of_use(open.log.is_some()) {
            return false;
        }
        open.saving.begins(open.log.as_ref().map(Log::appended), weak);
        let manifest = stage.pinned_manifest(SnapshotReader::Disk).copied();
        let manifest = manifest.filter(|manifest| manifest.seq == checkpoint.seq);
        let writer = open.checkpoints.write(checkpoint.seq);
        open.draft = match (manifest, writer) {
            (Some(manifest), Ok(writer)) => Some(Draft { checkpoint, manifest, writer, count: 0 }),
            _ => None,
        };
        true
    }

    /// Copies some more of a checkpoint.
    fn copy(&mut self, stage: &Stage) -> Copied {
        let Some(open) = &mut self.open else { return Copied::Over(None, None) };
        let Some(mut draft) = open.draft.take() else {
            return Copied::Over(None, open.saving.settled(None));
        };
        let trees = [Tree::Service, Tree::Sessions];
        let all =
            trees.into_iter().flat_map(|tree| (0..stage.objects(tree)).map(move |o| (tree, o)));
        let mut left = all.skip(draft.count);
        for (tree, object) in left.by_ref().take(OBJECTS_PER_TURN) {
            let bytes = stage.read_pinned(SnapshotReader::Disk, tree, object);
            let written = bytes.map(|bytes| draft.writer.object(tree, object, &bytes));
            if !matches!(written, Some(Ok(()))) {
                // Taken away meanwhile: the next one will be whole.
                return Copied::Over(None, open.saving.settled(None));
            }
            draft.count += 1;
        }
        if left.next().is_some() {
            open.draft = Some(draft);
            return Copied::More;
        }
        let head = open.checkpoints.finish(draft.writer, &draft.manifest, &draft.checkpoint);
        if open.log.is_some() && head.as_ref().is_err_and(StoreError::lost_names) {
            return Copied::Failed;
        }
        let written = head.ok().map(|head| (head.manifest.seq, head.file_bytes));
        Copied::Over(written.map(|(seq, _)| seq), open.saving.settled(written))
    }
}

impl World {
    /// Asks for a checkpoint on disk when the log has grown enough.
    pub(crate) fn watch_log(&mut self, replica: ReplicaId) {
        if let Some(now) = self.replica(replica).disk.wants() {
            let input = Input::SaveCheckpoint { now };
            self.tell(replica, Part::Disk, Inside::Coordinator(input));
        }
    }

    /// A checkpoint is readable: copying it to the disk begins.
    pub(crate) fn begin_checkpoint(&mut self, replica: ReplicaId, checkpoint: StableCheckpoint) {
        let weak = checkpoint.is_weak(self.quorum());
        let host = self.replica(replica);
        match host.disk.begin(checkpoint, weak, &host.stage) {
            true => self.plan_copy(replica),
            false => self.tell_saved(replica, true),
        }
    }

    fn plan_copy(&mut self, replica: ReplicaId) {
        let after = Span::micros(self.prng.between(10, 1_000));
        let at = self.queue.now().after(after);
        self.plan(replica, Part::Disk, at);
    }

    /// Copies some more of the pinned checkpoint; cuts the log once it is complete.
    pub(crate) fn write_checkpoint(&mut self, replica: ReplicaId) {
        if !self.may_copy(replica) {
            return;
        }
        let host = self.replica(replica);
        let copied = host.disk.copy(&host.stage);
        if self.machine_stopped(replica) {
            return;
        }
        match copied {
            Copied::More => self.plan_copy(replica),
            Copied::Failed => self.crash(replica, false),
            Copied::Over(written, cut) => {
                if let Some(seq) = written {
                    self.replica(replica).promises.settle(seq);
                }
                if let Some(seq) = cut {
                    self.saw(Sight::CheckpointOnDisk);
                    self.replica(replica).journals.trim(seq);
                    self.plan_flush(replica);
                }
                self.tell_saved(replica, written.is_some());
            }
        }
    }

    fn tell_saved(&mut self, replica: ReplicaId, written: bool) {
        self.tell(replica, Part::Disk, Inside::Coordinator(Input::Saved { written }));
    }

    fn quorum(&self) -> usize {
        Quorums::pbft(self.options.n, self.options.f).expect("n >= 3f + 1").quorum()
    }

    /// What has gathered for the log is written when somebody waits for it, or after a while.
    pub(crate) fn plan_flush(&mut self, replica: ReplicaId) {
        let now = self.queue.now();
        let host = self.replica(replica);
        let idle = host.disk.open.as_ref().is_some_and(|open| open.writing.is_none());
        match host.journals.waiting() {
            Some(true) if idle => self.begin_flush(replica),
            Some(false) if idle && !host.turns.contains_key(&Part::Log) => {
                self.plan(replica, Part::Log, now.after(LAZY_FOR));
            }
            _ => {}
        }
    }

    fn begin_flush(&mut self, replica: ReplicaId) {
        let us = match self.options.durability {
            Durability::Memory => 0,
            Durability::Async => self.prng.between(1, 20),
            Durability::Sync => self.prng.between(50, 2_000),
        };
        let now = self.queue.now();
        let host = self.replica(replica);
        let until = now.after(Span::micros(us + host.tempo.delay_of(Part::Log)));
        let Some(open) = &mut host.disk.open else { return };
        if let Some(gathered) = host.journals.take() {
            open.writing = Some((gathered, until));
            self.plan(replica, Part::Log, until);
        }
    }

    /// The log's turn: writes what was under way until now, and begins with what has gathered.
    pub(crate) fn turn_log(&mut self, replica: ReplicaId) {
        let now = self.queue.now();
        let sync = self.options.durability == Durability::Sync;
        let host = self.replica(replica);
        let Some(open) = &mut host.disk.open else { return };
        match open.writing.take() {
            Some((gathered, until)) if until > now => {
                open.writing = Some((gathered, until));
                return self.plan(replica, Part::Log, until);
            }
            Some((mut gathered, _)) => {
                let Some(log) = &mut open.log else { return };
                let written = gathered.portion.write(log, sync).map(|_| ());
                if self.log_failed(replica, written) {
                    return;
                }
                let host = self.replica(replica);
                // Without syncs a record is as durable as it will ever be.
                let durable = !sync || host.disk.storage.log_is_durable();
                host.promises.note_all(&gathered, durable);
                host.journals.settle(&gathered);
                self.release(replica);
                let Some(open) = &mut self.replica(replica).disk.open else { return };
                let Some(log) = &mut open.log else { return };
                let concluded = gathered.portion.conclude(log, &mut open.dir);
                gathered.portion.clear();
                if self.log_failed(replica, concluded) {
                    return;
                }
                self.watch_log(replica);
            }
            None => {}
        }
        if self.replica(replica).journals.waiting().is_some() {
            self.begin_flush(replica);
        }
    }

    /// The log cannot be written: that is never tried again (trap 12), and the replica stops.
    fn log_failed(&mut self, replica: ReplicaId, done: Result<(), StoreError>) -> bool {
        if done.is_ok() {
            return false;
        }
        if !self.machine_stopped(replica) {
            self.crash(replica, false);
        }
        true
    }

    /// Notes that the machine has stopped at some operation of its disk, if it has.
    fn machine_stopped(&mut self, replica: ReplicaId) -> bool {
        let stopped = self.replica(replica).disk.storage.has_stopped();
        if stopped {
            self.crash(replica, true);
        }
        stopped
    }
}
