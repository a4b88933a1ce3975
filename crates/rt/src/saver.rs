//! Checkpoints on disk: when one is written, how its objects get from the stage to the file, and
//! what follows once it is durable.
//!
//! ```text
//!  coordinator's host            stage's host                   a thread per checkpoint
//!  Input::SaveCheckpoint
//!  Effect::Save        ─ order ─▶ reads its pinned snapshot,
//!                                 a bounded amount per turn ─ pieces ─▶ checkpoint file
//!  Input::Saved, trims the log ◀────────────── outcome, bell ─────────  durable
//! ```
//!
//! A checkpoint that cannot be written is tried again, as a file of its own. Not so the directory's
//! names: once a sync of them failed, every other does (`store`). A replica with a log ends then,
//! whoever met the failure: it could not be heard of for long where the log begins no new segment,
//! and meanwhile no checkpoint gets to the disk that the group may wait for (F12).
//!
//! Not here: the format (`store`), which checkpoint it is (`proto::group`), and how much the log
//! has to grow and how far it is cut (`durable::Saving`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use base::transfer::{Manifest, Part, SnapshotReader};
use base::{Seq, StableCheckpoint};
use durable::Saving;
use exec::Stage;
use store::checkpoint::CheckpointHead;
use store::{Checkpoints, StoreError};

use crate::failure::Failure;
use crate::leisure::{Leisure, Pace};
use crate::log_writer::LogGauge;
use crate::ring::{Bell, RingReceiver, RingSender};

/// Bytes of objects that are read from the stage in one turn, at least one object. Meanwhile the
/// replica says nothing: with 1 MiB, which takes 1 to 4 ms, those who wait for its votes notice.
const BYTES_PER_TURN: usize = 64 << 10;
/// Pieces that may wait for the disk.
const PIECES: usize = 16;
/// From the coordinator's host to the stage's: read the pinned checkpoint.
#[derive(Debug)]
pub(crate) struct SaveOrder {
    seq: Seq,
    pieces: SyncSender<Piece>,
    /// Where the stage writes how many bytes of its state it has given to others.
    given: Arc<AtomicU64>,
}

/// A part of a checkpoint on its way to the disk. A channel that ends without
/// [`Piece::Whole`] means that the checkpoint could not be read to its end.
#[derive(Debug)]
enum Piece {
    /// The objects, where each ends, and their bytes one after the other.
    Objects(Vec<(Part, u32, usize)>, Vec<u8>),
    Whole(Manifest),
}

/// Why no checkpoint was saved.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SaveError {
    /// The replica was started without a directory.
    #[error("the replica keeps nothing on disk: it was started without a directory")]
    NoDirectory,
    /// There was no stable checkpoint in time: a group without a quorum makes none.
    #[error("no checkpoint became stable in time: is the group making progress?")]
    TimedOut,
    /// The snapshot went away while it was read: the replica fetched another state.
    #[error("the state was replaced while it was read; try again")]
    Interrupted,
    /// The replica stops, and makes no more checkpoints.
    #[error("the replica stops")]
    Stopped,
    /// The disk refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the saver, its threads, and the replica's handle share.
#[derive(Debug, Default)]
pub(crate) struct SaveDesk {
    /// There is a directory.
    able: AtomicBool,
    /// Somebody wants one soon.
    requested: AtomicBool,
    /// How many have asked so far.
    asked: AtomicU64,
    /// Set by the thread that wrote, taken by the coordinator's host.
    outcome: Mutex<Option<Result<CheckpointHead, SaveError>>>,
    arrived: AtomicBool,
    /// The last outcome, and how many of those who have asked it is for: who asked later waits.
    last: Mutex<(u64, Option<Result<PathBuf, SaveError>>)>,
    changed: Condvar,
    /// The replica stops: nobody is to wait any more. Set under the lock of `last`.
    closed: AtomicBool,
    /// For reports.
    bytes: AtomicU64,
    seq: AtomicU64,
}

/// Saves checkpoints of a replica on demand, from any thread.
#[derive(Clone, Debug)]
pub struct CheckpointSaver {
    desk: Arc<SaveDesk>,
    bell: Arc<Bell>,
}

impl CheckpointSaver {
    /// For the replica with this desk, whose coordinator hears `bell`.
    pub(crate) fn new(desk: &Arc<SaveDesk>, bell: &Arc<Bell>) -> CheckpointSaver {
        CheckpointSaver { desk: Arc::clone(desk), bell: Arc::clone(bell) }
    }

    /// See [`crate::Replica::save_checkpoint`].
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save(&self, patience: Duration) -> Result<PathBuf, SaveError> {
        self.desk.save(&self.bell, patience)
    }
}

/// What can be told about checkpoints on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SaveSnapshot {
    /// Bytes of checkpoint files.
    pub(crate) bytes: u64,
    /// The number of the last one; 0 without any.
    pub(crate) seq: u64,
}

/// Decides when checkpoints go to disk. Lives with the coordinator.
pub(crate) struct Saver {
    desk: Arc<SaveDesk>,
    failure: Arc<Failure>,
    checkpoints: Option<Checkpoints>,
    log: Option<LogGauge>,
    orders: RingSender<SaveOrder>,
    bell: Arc<Bell>,
    saving: Saving,
    /// How many signatures make a certificate.
    quorum: usize,
    /// The first so many who have asked wait for the next one that is certified.
    wanted: Option<u64>,
    /// The first so many who have asked wait for the one that is being written: it was begun after
    /// that.
    awaited: Option<u64>,
    /// The coordinator offered one for which nobody has any use.
    needless: bool,
}

impl Saver {
    /// A saver over what is on disk already.
    pub(crate) fn new(
        (desk, failure): (Arc<SaveDesk>, Arc<Failure>),
        (checkpoints, last): (Option<Checkpoints>, Option<(Seq, u64)>),
        (log, growth, quorum): (Option<LogGauge>, u64, usize),
        orders: RingSender<SaveOrder>,
        bell: Arc<Bell>,
    ) -> Saver {
        desk.able.store(checkpoints.is_some(), Ordering::Release);
        desk.note(checkpoints.as_ref(), last.map(|(seq, _)| seq));
        let found = log.as_ref().map_or(0, LogGauge::found);
        let saving = Saving::new(last, growth, found);
        Saver {
            desk,
            failure,
            checkpoints,
            log,
            orders,
            bell,
            saving,
            quorum,
            wanted: None,
            awaited: None,
            needless: false,
        }
    }

    /// Whether the coordinator is to be asked for a checkpoint, and whether that is urgent.
    pub(crate) fn wants(&mut self) -> Option<bool> {
        self.checkpoints.as_ref()?;
        let urgent = self.desk.requested.load(Ordering::Acquire);
        if urgent && !self.saving.is_writing() && self.desk.requested.swap(false, Ordering::AcqRel)
        {
            self.saving.asked();
            self.wanted = Some(self.desk.asked.load(Ordering::Acquire));
            return Some(true);
        }
        self.saving.wants(self.taken())
    }

    /// What the log has taken, where there is one.
    fn taken(&self) -> Option<u64> {
        self.log.as_ref().map(LogGauge::taken)
    }

    /// The state came from elsewhere: with a log, it is to go to disk soon.
    pub(crate) fn state_replaced(&mut self) {
        self.saving.state_replaced();
    }

    /// The stage holds this checkpoint readable: has it written, if anybody has any use for that.
    pub(crate) fn save(&mut self, stable: StableCheckpoint) {
        let useful = self.saving.is_of_use(self.log.is_some());
        let Some(checkpoints) = self.checkpoints.clone().filter(|_| useful) else {
            self.needless = true;
            return;
        };
        let weak = stable.is_weak(self.quorum);
        let leisure = self.saving.begins(self.taken(), weak);
        let given = Arc::new(AtomicU64::new(0));
        let leisure = leisure.zip(self.log.clone());
        let leisure = leisure.map(|(until, log)| Leisure { until, log, given: given.clone() });
        let wanted = self.wanted.take();
        self.awaited = wanted.filter(|_| !weak);
        if wanted.is_some() && weak {
            // Not this one.
            self.desk.requested.store(true, Ordering::Release);
        }
        let (pieces, from_stage) = sync_channel(PIECES);
        self.orders.push(SaveOrder { seq: stable.seq, pieces, given });
        self.orders.flush();
        let (desk, bell) = (Arc::clone(&self.desk), Arc::clone(&self.bell));
        let run = move || {
            // A thread that ends without an outcome would be waited for until the end.
            let mut pace = Pace::new(Instant::now());
            let urgent = || desk.requested.load(Ordering::Acquire);
            let idle = |written| {
                leisure.iter().for_each(|leisure| leisure.wait(&mut pace, written, urgent));
            };
            let written = AssertUnwindSafe(|| write(&checkpoints, &stable, &from_stage, idle));
            let outcome = catch_unwind(written).unwrap_or(Err(SaveError::Interrupted));
            desk.note(Some(&checkpoints), outcome.as_ref().ok().map(|_| stable.seq));
            *lock(&desk.outcome) = Some(outcome);
            desk.arrived.store(true, Ordering::Release);
            bell.force();
        };
        if let Err(error) = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(run) {
            tracing::warn!(%error, "cannot start a thread to save a checkpoint");
            *lock(&self.desk.outcome) = Some(Err(SaveError::Interrupted));
            self.desk.arrived.store(true, Ordering::Release);
        }
    }

    /// Whether a checkpoint was written, or could not be.
    pub(crate) fn arrived(&self) -> bool {
        self.needless || self.desk.arrived.load(Ordering::Acquire)
    }

    /// Whether somebody asks for one.
    pub(crate) fn requested(&self) -> bool {
        !self.saving.is_writing() && self.desk.requested.load(Ordering::Acquire)
    }

    /// Takes note of what came of the last one, and cuts the log back. Whether it was written, when
    /// there was one.
    pub(crate) fn settle(&mut self) -> Option<bool> {
        if std::mem::take(&mut self.needless) {
            return Some(true);
        }
        if !self.desk.arrived.swap(false, Ordering::AcqRel) {
            return None;
        }
        let outcome = lock(&self.desk.outcome).take()?;
        let written = outcome.as_ref().ok().map(|head| (head.manifest.seq, head.file_bytes));
        let cut = self.saving.settled(written);
        if let (Some(log), Some(cut)) = (&self.log, cut) {
            log.trim(cut);
        }
        match &outcome {
            Ok(head) => {
                let (seq, bytes) = (head.manifest.seq, head.file_bytes);
                tracing::info!(%seq, bytes, "checkpoint on disk");
            }
            Err(SaveError::Store(error)) if self.log.is_some() && error.lost_names() => {
                self.failure.set("cannot keep the replica's directory", error);
            }
            Err(error) => {
                tracing::warn!(%error, "no checkpoint on disk; the replica goes on and tries again");
            }
        }
        if let Some(asked) = self.awaited.take() {
            let mut last = lock(&self.desk.last);
            *last = (asked, Some(outcome.map(|head| head.path)));
            self.desk.changed.notify_all();
        }
        Some(written.is_some())
    }
}

impl SaveDesk {
    /// Asks for a checkpoint on disk, and waits for it.
    pub(crate) fn save(&self, ring: &Bell, patience: Duration) -> Result<PathBuf, SaveError> {
        if !self.able.load(Ordering::Acquire) {
            return Err(SaveError::NoDirectory);
        }
        let until = Instant::now() + patience;
        let mut last = lock(&self.last);
        let own = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.requested.store(true, Ordering::Release);
        ring.force();
        loop {
            if last.0 >= own
                && let Some(outcome) = &last.1
            {
                return outcome.clone();
            }
            if self.closed.load(Ordering::Acquire) {
                return Err(SaveError::Stopped);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(SaveError::TimedOut);
            }
            let waited = self.changed.wait_timeout(last, left);
            last = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// The replica stops: whoever waits is told so, and so is whoever asks from now on.
    pub(crate) fn close(&self) {
        let _last = lock(&self.last);
        self.closed.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// What can be told.
    pub(crate) fn snapshot(&self) -> SaveSnapshot {
        let (bytes, seq) = (&self.bytes, &self.seq);
        SaveSnapshot { bytes: bytes.load(Ordering::Relaxed), seq: seq.load(Ordering::Relaxed) }
    }

    fn note(&self, checkpoints: Option<&Checkpoints>, seq: Option<Seq>) {
        // What cannot be counted now is counted the next time.
        let bytes = checkpoints.and_then(|all| all.bytes().ok());
        if let Some(bytes) = bytes {
            self.bytes.store(bytes, Ordering::Relaxed);
        }
        if let Some(seq) = seq {
            self.seq.store(seq.0, Ordering::Relaxed);
        }
    }
}

/// Writes the pieces that come, and tells `idle` before each how many bytes are written.
fn write(
    checkpoints: &Checkpoints,
    stable: &StableCheckpoint,
    pieces: &Receiver<Piece>,
    mut idle: impl FnMut(u64),
) -> Result<CheckpointHead, SaveError> {
    let mut writer = checkpoints.write(stable.seq)?;
    let mut written = 0;
    loop {
        match pieces.recv() {
            Ok(Piece::Objects(objects, bytes)) => {
                idle(written);
                let mut start = 0;
                for (part, number, end) in objects {
                    writer.object(part, number, &bytes[start..end])?;
                    start = end;
                }
                written += bytes.len() as u64;
            }
            Ok(Piece::Whole(manifest)) => return Ok(checkpoints.finish(writer, &manifest, stable)?),
            Err(_) => return Err(SaveError::Interrupted),
        }
    }
}

/// The stage's side: reads a pinned checkpoint piece by piece.
pub(crate) struct SnapshotFeed {
    orders: RingReceiver<SaveOrder>,
    reading: Option<Reading>,
}

struct Reading {
    order: SaveOrder,
    part: Part,
    next: u32,
    /// What the disk was not ready for.
    waiting: Option<Piece>,
}

impl SnapshotFeed {
    pub(crate) fn new(orders: RingReceiver<SaveOrder>) -> SnapshotFeed {
        SnapshotFeed { orders, reading: None }
    }

    /// Whether there is something to read: turn again soon.
    pub(crate) fn busy(&self) -> bool {
        self.reading.is_some() || !self.orders.is_empty()
    }

    /// The stage has given so many bytes of its state to others.
    pub(crate) fn note_given(&self, bytes: u64) {
        if let Some(reading) = &self.reading {
            reading.order.given.store(bytes, Ordering::Relaxed);
        }
    }

    /// Whether something can be read: no piece waits for the disk.
    pub(crate) fn is_ready(&self) -> bool {
        self.reading.as_ref().is_none_or(|reading| reading.waiting.is_none()) && self.busy()
    }

    /// Reads a piece, if [`SnapshotFeed::is_ready`].
    pub(crate) fn read(&mut self, stage: &Stage) {
        while let Some(order) = self.orders.pop() {
            // There is one at a time; an older one that is still here is of no use any more.
            self.reading = Some(Reading { order, part: Part::Service, next: 0, waiting: None });
        }
        let Some(reading) = self.reading.as_mut().filter(|reading| reading.waiting.is_none())
        else {
            return;
        };
        match reading.next_piece(stage) {
            None => self.reading = None,
            piece => {
                reading.waiting = piece;
                self.send();
            }
        }
    }

    /// Hands over the piece that waits for the disk, if the disk is ready for it.
    pub(crate) fn send(&mut self) {
        let Some(reading) = &mut self.reading else { return };
        let Some(piece) = reading.waiting.take() else { return };
        let last = matches!(piece, Piece::Whole(_));
        match reading.order.pieces.try_send(piece) {
            Ok(()) if !last => {}
            Err(TrySendError::Full(piece)) => reading.waiting = Some(piece),
            Ok(()) | Err(TrySendError::Disconnected(_)) => self.reading = None,
        }
    }
}

impl Reading {
    /// The next piece; `None` when the checkpoint is not there any more.
    fn next_piece(&mut self, stage: &Stage) -> Option<Piece> {
        let manifest = stage.pinned_manifest(SnapshotReader::Disk);
        let manifest = *manifest.filter(|manifest| manifest.seq == self.order.seq)?;
        let (mut objects, mut bytes) = (Vec::new(), Vec::with_capacity(2 * BYTES_PER_TURN));
        // Many are empty, and cost time, too.
        while bytes.len() + objects.len() * 64 < BYTES_PER_TURN {
            if self.next >= stage.objects(self.part) {
                if self.part == Part::Sessions {
                    break;
                }
                (self.part, self.next) = (Part::Sessions, 0);
                continue;
            }
            if !stage.append_pinned(SnapshotReader::Disk, (self.part, self.next), &mut bytes) {
                return None;
            }
            objects.push((self.part, self.next, bytes.len()));
            self.next += 1;
        }
        if objects.is_empty() {
            Some(Piece::Whole(manifest))
        } else {
            Some(Piece::Objects(objects, bytes))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Digest, GroupId, Incarnation, ReplicaId, Signature};
    use std::path::Path;
    use store::{Beginning, Dir, Durability, Faults, Identity, LogOptions, Memory, Storage, Voice};
    use store::{Opened, Volatile};

    use crate::log_writer::LogWriter;

    const IDENTITY: Identity = Identity { group: GroupId([1; 32]), replica: ReplicaId(0) };

    fn certified(seq: u64) -> StableCheckpoint {
        let proof = (0..3).map(|id| (ReplicaId(id), Signature([0; 64]))).collect();
        StableCheckpoint { seq: Seq(seq), digest: Digest([1; 32]), proof: Arc::new(proof) }
    }

    /// The state is gone while it is read, and the thread ends.
    fn give_up(orders: &mut RingReceiver<SaveOrder>, saver: &mut Saver) {
        assert!(orders.pop().is_some(), "writing has begun");
        while !saver.arrived() {
            std::thread::yield_now();
        }
        saver.settle();
    }

    fn bell() -> (mio::Poll, Bell) {
        let poll = mio::Poll::new().expect("the system has one");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("as well");
        (poll, Bell::new(waker))
    }

    #[test]
    fn whoever_waits_for_a_checkpoint_is_told_when_the_replica_stops() {
        let ((_poll, bell), desk) = (bell(), SaveDesk::default());
        desk.able.store(true, Ordering::Release);
        let save = || desk.save(&bell, Duration::from_secs(60));
        std::thread::scope(|scope| {
            let waits = scope.spawn(save);
            while desk.asked.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
            desk.close();
            assert!(matches!(waits.join().expect("it ends"), Err(SaveError::Stopped)));
        });
        assert!(matches!(save(), Err(SaveError::Stopped)), "whoever asks later is told as well");
    }

    #[test]
    fn whoever_asks_is_told_of_a_checkpoint_that_was_begun_after_that() {
        let storage: Arc<dyn Storage> = Arc::new(Memory::new());
        let dir = Dir::open(Path::new("state"), IDENTITY, storage).expect("opens").dir;
        let (_poll, bell) = bell();
        let desk = Arc::<SaveDesk>::default();
        let (sender, mut orders) = crate::ring::ring(4, None);
        let mut saver = Saver::new(
            (Arc::clone(&desk), Arc::default()),
            (Some(dir.checkpoints()), None),
            (None, 100, 3),
            sender,
            Arc::new(bell),
        );
        let told = |desk: &SaveDesk| lock(&desk.last).0;
        saver.saving.asked();
        saver.save(certified(8));
        for (before, seq) in [(0, 16), (1, 24), (2, 32)] {
            desk.asked.fetch_add(1, Ordering::AcqRel);
            desk.requested.store(true, Ordering::Release);
            assert_eq!(saver.wants(), None, "one is being written, of a time before");
            give_up(&mut orders, &mut saver);
            assert_eq!(told(&desk), before, "it is not what was asked for last");
            assert_eq!(saver.wants(), Some(true));
            saver.save(certified(seq));
        }
        give_up(&mut orders, &mut saver);
        assert_eq!(told(&desk), 3);
    }

    /// What is fetched has to be on disk before a group may count on it (F12), the log may begin no
    /// segment for long, and without that nobody else meets the failure.
    #[test]
    fn a_checkpoint_whose_name_could_not_be_made_durable_ends_a_replica_that_has_a_log() {
        // The syncs are those of the file and of its name.
        for (sync, ends) in [(1, false), (2, true)] {
            let disk = Volatile::over(Arc::new(Memory::new()));
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let opened = Dir::open(Path::new("state"), IDENTITY, storage).expect("opens");
            let Opened { mut dir, .. } = opened;
            let whole = Beginning { voice: Voice::Whole, why: String::new() };
            let layout = LogOptions::default();
            let log = dir.begin(&whole, Incarnation(1), Durability::Sync, layout);
            let log = log.expect("nothing fails").expect("a log");
            let checkpoints = dir.checkpoints();
            let (failure, (_poll, bell)) = (Arc::<Failure>::default(), bell());
            let theirs = Arc::clone(&failure);
            let writer = LogWriter::start("log".into(), (log, dir), vec![], true, theirs);
            let (writer, _) = writer.expect("a thread");
            let (sender, mut orders) = crate::ring::ring(4, None);
            let mut saver = Saver::new(
                (Arc::default(), Arc::clone(&failure)),
                (Some(checkpoints), None),
                (Some(writer.gauge()), 100, 3),
                sender,
                Arc::new(bell),
            );
            let fail_sync = Some(disk.syncs() + sync);
            disk.set_faults(Faults { fail_sync, ..Faults::default() });
            let manifest = Manifest { seq: Seq(8), pillars: 2, ..Manifest::default() };
            let digest = manifest.digest(IDENTITY.group);
            saver.save(StableCheckpoint { digest, ..certified(8) });
            let order = orders.pop().expect("writing has begun");
            order.pieces.send(Piece::Whole(manifest)).expect("the thread waits for it");
            while !saver.arrived() {
                std::thread::yield_now();
            }
            assert_eq!(saver.settle(), Some(false));
            assert_eq!(failure.failed(), ends, "{:?}", failure.text());
            assert!(!ends || failure.text().is_some_and(|text| text.contains("start the replica")));
        }
    }
}
