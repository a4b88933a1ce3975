//! Writing the log: records are gathered, and written in one go as a commit.
//!
//! A log is a row of segments, files that are zeroed before they are used, so that a commit
//! changes no metadata and a crash leaves nothing but whole blocks and blank ones. The next
//! segment is zeroed bit by bit beside the commits. It gets its name when its head, the records
//! that the owner carries over and the commit that did not fit any more are in it, and durable.
//!
//! Invariants:
//! 1. a commit lies in one segment;
//! 2. every segment begins with the carried records of the moment, so that segments before it
//!    may go whatever else they hold;
//! 3. after an error nothing is written or synced any more: a sync that failed may have dropped
//!    what it was to write, and a second one would succeed without having written it.
//!
//! Not here: reading (`scan`), and what records mean.

use std::path::PathBuf;
use std::sync::Arc;

use base::Seq;
use base::limits::BATCH_BYTES_MAX;

use crate::block::{self, BLOCK_BYTES, CARRIED, Stamp};
use crate::error::{StoreError, io};
use crate::life::{Life, SharedLife};
use crate::place::{Place, ZEROS};
use crate::scan::{self, Segment, Tail};
use crate::storage::{File, lock};

/// Most bytes of one record: a batch with its bodies, and as much again.
pub const RECORD_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// How a log is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogOptions {
    /// Bytes of a segment, from 4 KiB to 1 GiB, rounded up to blocks. One that begins with a
    /// larger commit is larger.
    pub segment_bytes: u64,
}

impl Default for LogOptions {
    /// Segments of 16 MiB.
    fn default() -> LogOptions {
        LogOptions { segment_bytes: 16 << 20 }
    }
}

/// The log of one replica, open for writing. Belongs to one thread.
#[derive(Debug)]
pub struct Log {
    place: Place,
    segment_bytes: u64,
    seed: u32,
    /// The last one is written to.
    segments: Vec<Segment>,
    active: Option<Box<dyn File>>,
    next_block: u32,
    next_commit: u64,
    /// Every commit up to this one is durable.
    durable: u64,
    unsynced: Unsynced,
    pending: Pending,
    carried: Vec<u8>,
    spare: Option<Spare>,
    buffer: Vec<u8>,
    appended: u64,
    found: u64,
    /// Where the ends of the log are named, once a life has begun with it.
    life: Option<SharedLife>,
    failed: Option<StoreError>,
}

/// What was written and not yet synced.
#[derive(Debug, Default)]
struct Unsynced {
    /// Segments that were left since.
    left: Vec<(PathBuf, Box<dyn File>)>,
    active: bool,
    dir: bool,
}

/// Records that wait for a commit.
#[derive(Debug, Default)]
struct Pending {
    stream: Vec<u8>,
    highest: Seq,
}

/// The next segment in the making.
#[derive(Debug)]
struct Spare {
    file: Box<dyn File>,
    zeroed: u64,
    synced: u64,
}

/// More than this is not gathered, but written as a commit of its own.
const COMMIT_BYTES_MAX: usize = 8 * BATCH_BYTES_MAX;
const _: () = assert!(4 * COMMIT_BYTES_MAX as u64 <= scan::SEGMENT_BYTES_MAX);

/// As much of the next segment is zeroed between two syncs of it.
const SPARE_SYNC_BYTES: u64 = 1 << 20;
/// A buffer that a rare large commit made larger than this is not kept.
const BUFFER_KEPT_BYTES: usize = 4 << 20;
/// Segments that were left without a sync and are still open: the oldest is synced when there
/// are more, so that a log that never syncs does not use up the process's files.
const LEFT_MAX: usize = 8;

impl Log {
    /// An empty log in place of the one that is there.
    pub(crate) fn anew(place: Place, old: &Tail, options: LogOptions) -> Result<Log, StoreError> {
        place.clear(old)?;
        let newest = old.numbers.last().copied().unwrap_or(0);
        let mut log = Log::empty(place, options);
        log.next_commit = old.next_commit.max(1);
        log.durable = log.next_commit - 1;
        log.begin_segment(newest + 1, &[], true)?;
        Ok(log)
    }

    /// The log that was found, or an empty one where there is none. What is in it is durable
    /// after this, even if it was not when it was found.
    pub(crate) fn resume(place: Place, tail: Tail, options: LogOptions) -> Result<Log, StoreError> {
        if let Some(doubt) = tail.doubt {
            return Err(StoreError::Doubtful(doubt));
        }
        let Some(last) = tail.segments.last().copied() else {
            return Log::anew(place, &tail, options);
        };
        let mut log = Log::empty(place, options);
        for (segment, whole) in tail.segments.iter().zip(&tail.whole) {
            let end = (segment.number == last.number).then_some(tail.torn_until);
            log.active = Some(log.place.rely_on(segment, *whole, end)?);
        }
        log.place.sync_dir()?;
        log.segments = tail.segments;
        log.next_block = tail.next_block;
        log.next_commit = tail.next_commit;
        log.durable = tail.next_commit - 1;
        Ok(log)
    }

    fn empty(place: Place, options: LogOptions) -> Log {
        let bytes = options.segment_bytes.clamp(4 << 10, 1 << 30);
        Log {
            seed: block::seed(&place.identity),
            place,
            segment_bytes: bytes.next_multiple_of(BLOCK_BYTES as u64),
            segments: vec![],
            active: None,
            next_block: 0,
            next_commit: 1,
            durable: 0,
            unsynced: Unsynced::default(),
            pending: Pending::default(),
            carried: vec![],
            spare: None,
            buffer: vec![],
            appended: 0,
            found: 0,
            life: None,
            failed: None,
        }
    }

    /// The oldest and the newest segment.
    pub(crate) fn ends(&self) -> (u32, u32) {
        let number = |segment: Option<&Segment>| segment.map_or(0, |segment| segment.number);
        (number(self.segments.first()), number(self.segments.last()))
    }

    /// Has the ends of the log named from now on. Those of now are durable with the next change.
    pub(crate) fn keep_named(&mut self, life: &SharedLife) {
        if let Some(life) = &mut lock(life).life {
            (life.first, life.last) = self.ends();
        }
        self.life = Some(Arc::clone(life));
    }

    /// Takes a record for the next commit. `highest` is the highest number that it speaks of:
    /// once a checkpoint at or above it is durable, the record may go. A record that speaks of
    /// no number says 0, and is in [`Log::carry`] as long as it is needed.
    ///
    /// Records of more than 512 MiB in all are written without waiting for the commit.
    ///
    /// # Errors
    /// When it is above [`RECORD_BYTES_MAX`], or when the log fails or has failed before.
    pub fn append(&mut self, record: &[u8], highest: Seq) -> Result<(), StoreError> {
        self.check()?;
        check_len(record)?;
        if self.pending.stream.len() + record.len() > COMMIT_BYTES_MAX {
            let done = self.write_pending(false);
            self.note(done)?;
        }
        push(&mut self.pending.stream, record, highest);
        self.pending.highest = self.pending.highest.max(highest);
        Ok(())
    }

    /// Replaces the records that every new segment begins with: those that are still needed
    /// though they speak of no number. To be called before the commit that first holds a new
    /// one of them, and after every start, before the first commit, with those that were found.
    /// When a log is read back, those that its oldest segment began with come first.
    ///
    /// # Errors
    /// When one is above [`RECORD_BYTES_MAX`], or when the log has failed before.
    pub fn carry<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), StoreError> {
        self.check()?;
        let mut stream = vec![];
        for record in records {
            check_len(record)?;
            push(&mut stream, record, Seq(0));
        }
        self.carried = stream;
        Ok(())
    }

    /// Writes all records that were appended since the last commit, as one. With `sync` they,
    /// and all commits before, are durable when it returns; otherwise they survive this process
    /// but not the machine. Also syncs what is written when there is nothing to commit.
    ///
    /// # Errors
    /// When the storage fails. That is final: it is not known what was written, and this and
    /// every later call of any function says the same.
    pub fn commit(&mut self, sync: bool) -> Result<(), StoreError> {
        self.check()?;
        let done = self.write_pending(sync && !base::mutant!(CommitsNotSynced));
        self.note(done)
    }

    /// The highest number that records would be missing of after [`Log::trim`], if of any.
    #[must_use]
    pub fn would_cut(&self, seq: Seq) -> Option<Seq> {
        let kept = self.segments.len().saturating_sub(1);
        let gone = self.segments[..kept].iter().take_while(|segment| segment.highest <= seq);
        gone.map(|segment| segment.highest).max().filter(|highest| *highest > Seq(0))
    }

    /// Removes the oldest segments whose records all speak of numbers up to `seq`: a checkpoint
    /// at `seq` or above is durable.
    ///
    /// # Errors
    /// When the storage fails: final, like in [`Log::commit`].
    pub fn trim(&mut self, seq: Seq) -> Result<(), StoreError> {
        self.check()?;
        let spoken_of = |segment: &Segment| segment.highest > seq && !base::mutant!(TrimsTooMuch);
        let kept = self.segments.len().saturating_sub(1);
        let gone = self.segments[..kept].iter().take_while(|segment| !spoken_of(segment)).count();
        if gone > 0 {
            let first = self.segments[gone].number;
            let named = self.change_life(|life| life.first = first);
            self.note(named)?;
        }
        for _ in 0..gone {
            let number = self.segments[0].number;
            let removed = self.place.remove(number);
            self.note(removed)?;
            self.segments.remove(0);
            let path = scan::segment_path(&self.place.dir, number);
            self.unsynced.left.retain(|(left, _)| *left != path);
        }
        Ok(())
    }

    /// Bytes on disk, the segment in the making included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let spare = self.spare.as_ref().map_or(0, |spare| spare.zeroed);
        self.segments.iter().map(|segment| segment.bytes).sum::<u64>() + spare
    }

    /// Bytes that were written by commits since the log was opened.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// Says with which state the owner begins: at `seq`.
    pub fn begins_with(&mut self, seq: Seq) {
        let goes = |segment: &&Segment| segment.highest <= seq;
        let left = self.segments.iter().skip_while(goes);
        self.found = left.map(|segment| segment.found).sum();
    }

    /// Bytes that earlier lives have written and that the state which the owner begins with does
    /// not stand for, by whole segments: they stay when the log is cut to there.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found
    }

    /// The error that ended it, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<&StoreError> {
        self.failed.as_ref()
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn note(&mut self, done: Result<(), StoreError>) -> Result<(), StoreError> {
        if let Err(error) = &done {
            tracing::error!(%error, "the log has failed: nothing is written to it any more");
            self.failed = Some(error.clone());
        }
        done
    }

    fn write_pending(&mut self, sync: bool) -> Result<(), StoreError> {
        let pending = std::mem::take(&mut self.pending);
        if !pending.stream.is_empty() {
            self.write_commit(&pending, sync)?;
            self.prepare_spare(2 * pending.stream.len() as u64, sync)?;
        }
        if sync {
            self.sync_all()?;
        }
        let Pending { mut stream, .. } = pending;
        if stream.capacity() <= BUFFER_KEPT_BYTES {
            stream.clear();
            self.pending.stream = stream;
        }
        Ok(())
    }

    fn write_commit(&mut self, pending: &Pending, sync: bool) -> Result<(), StoreError> {
        let count = block::blocks_of(pending.stream.len());
        let active = *self.segments.last().expect("a log has a segment");
        let end = (u64::from(self.next_block) + u64::from(count)) * BLOCK_BYTES as u64;
        if end > active.bytes {
            let sync = sync || self.place.strict;
            if sync {
                // The new head says that everything before it is durable.
                self.sync_all()?;
            }
            self.begin_segment(active.number + 1, &pending.stream, sync)?;
        } else {
            let mut buffer = self.take_buffer();
            let stamp = self.stamp(active.number);
            block::encode_commit(self.seed, stamp, 0, &pending.stream, &mut buffer);
            self.write_active(&buffer)?;
            self.next_block += count;
            self.next_commit += 1;
            self.unsynced.active = true;
            self.keep_buffer(buffer);
        }
        self.appended += u64::from(count) * BLOCK_BYTES as u64;
        let active = self.segments.last_mut().expect("a log has a segment");
        active.highest = active.highest.max(pending.highest);
        Ok(())
    }

    /// Makes the spare the segment `number`: head, carried records, and `stream` as a commit.
    fn begin_segment(&mut self, number: u32, stream: &[u8], sync: bool) -> Result<(), StoreError> {
        let mut buffer = self.take_buffer();
        self.next_block = 0;
        block::encode_head(&self.place.identity, self.stamp(number), &mut buffer);
        self.next_block = 1;
        for (flags, stream) in [(CARRIED, &self.carried[..]), (0, stream)] {
            if !stream.is_empty() {
                let stamp = self.stamp(number);
                let count = block::encode_commit(self.seed, stamp, flags, stream, &mut buffer);
                self.next_block += count;
                self.next_commit += 1;
            }
        }
        // Room for as much as it begins with: or what is carried, where that is as long as a
        // segment, would be written again for every commit.
        let bytes = self.segment_bytes.max(2 * buffer.len() as u64);
        self.zero_spare(bytes, false)?;
        let spare = self.spare.take().expect("was just prepared");
        let (new, path) =
            (scan::spare_path(&self.place.dir), scan::segment_path(&self.place.dir, number));
        spare.file.write_at(0, &buffer).map_err(|e| io(&new, "write the log", e))?;
        if sync {
            spare.file.sync().map_err(|e| io(&new, "make the log durable", e))?;
        }
        let named = self.place.storage.rename(&new, &path);
        named.map_err(|e| io(&path, "name the log segment", e))?;
        let left = self.active.replace(spare.file);
        if sync {
            self.sync_names(number)?;
            self.durable = self.next_commit - 1;
        } else {
            let before = self.segments.last().map(|segment| segment.number);
            let path = before.map(|number| scan::segment_path(&self.place.dir, number));
            if let (Some(path), Some(file), true) = (path, left, self.unsynced.active) {
                self.unsynced.left.push((path, file));
            }
            if self.unsynced.left.len() > LEFT_MAX {
                let (path, oldest) = self.unsynced.left.remove(0);
                oldest.sync().map_err(|e| io(&path, "make the log durable", e))?;
            }
            self.unsynced.dir = true;
        }
        self.unsynced.active = !sync;
        self.segments.push(Segment { number, highest: Seq(0), bytes: spare.zeroed, found: 0 });
        self.keep_buffer(buffer);
        Ok(())
    }

    /// Zeroes about `bytes` more of the next segment.
    fn prepare_spare(&mut self, bytes: u64, sync: bool) -> Result<(), StoreError> {
        let zeroed = self.spare.as_ref().map_or(0, |spare| spare.zeroed);
        let step = bytes.next_multiple_of(ZEROS.len() as u64);
        self.zero_spare((zeroed + step).min(self.segment_bytes), sync)
    }

    /// Zeroes the next segment up to `until`, with a sync now and then: of little at a time,
    /// so that no commit waits for a whole segment.
    fn zero_spare(&mut self, until: u64, sync: bool) -> Result<(), StoreError> {
        let path = scan::spare_path(&self.place.dir);
        let mut spare = match self.spare.take() {
            Some(spare) => spare,
            None => {
                let file = self.place.storage.create(&path);
                let file = file.map_err(|e| io(&path, "create the log segment", e))?;
                Spare { file, zeroed: 0, synced: 0 }
            }
        };
        while spare.zeroed < until {
            let count = (until - spare.zeroed).min(ZEROS.len() as u64);
            let zeros = &ZEROS[..usize::try_from(count).expect("is at most the array")];
            let written = spare.file.write_at(spare.zeroed, zeros);
            written.map_err(|e| io(&path, "prepare the log segment", e))?;
            spare.zeroed += count;
            if sync && spare.zeroed - spare.synced >= SPARE_SYNC_BYTES {
                spare.file.sync().map_err(|e| io(&path, "prepare the log segment", e))?;
                spare.synced = spare.zeroed;
            }
        }
        self.spare = Some(spare);
        Ok(())
    }

    /// Makes the names of the segments durable, then that they reach up to `last`.
    fn sync_names(&self, last: u32) -> Result<(), StoreError> {
        if base::mutant!(NamesNotSynced) {
            return Ok(());
        }
        self.place.sync_dir()?;
        self.change_life(|life| life.last = last)
    }

    fn change_life(&self, change: impl FnOnce(&mut Life)) -> Result<(), StoreError> {
        self.life.as_ref().map_or(Ok(()), |life| lock(life).change(change))
    }

    fn write_active(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let offset = u64::from(self.next_block) * BLOCK_BYTES as u64;
        let file = self.active.as_ref().expect("a log has a segment");
        let written = file.write_at(offset, bytes);
        written.map_err(|e| io(&self.active_path(), "write the log", e))
    }

    fn sync_all(&mut self) -> Result<(), StoreError> {
        for (path, file) in self.unsynced.left.drain(..) {
            file.sync().map_err(|e| io(&path, "make the log durable", e))?;
        }
        if self.unsynced.active {
            let file = self.active.as_ref().expect("a log has a segment");
            file.sync().map_err(|e| io(&self.active_path(), "make the log durable", e))?;
            self.unsynced.active = false;
        }
        if self.unsynced.dir {
            self.sync_names(self.ends().1)?;
            self.unsynced.dir = false;
        }
        self.durable = self.next_commit - 1;
        Ok(())
    }

    fn active_path(&self) -> PathBuf {
        let number = self.segments.last().map_or(0, |segment| segment.number);
        scan::segment_path(&self.place.dir, number)
    }

    fn stamp(&self, segment: u32) -> Stamp {
        let (index, commit, durable) = (self.next_block, self.next_commit, self.durable);
        Stamp { segment, index, commit, durable }
    }

    fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= BUFFER_KEPT_BYTES {
            buffer.clear();
            self.buffer = buffer;
        }
    }
}

fn check_len(record: &[u8]) -> Result<(), StoreError> {
    let (len, max) = (record.len(), RECORD_BYTES_MAX);
    if len > max { Err(StoreError::RecordTooLarge { len, max }) } else { Ok(()) }
}

fn push(stream: &mut Vec<u8>, record: &[u8], highest: Seq) {
    let mut w = base::Writer::new(stream);
    let len = u32::try_from(record.len()).expect("was compared with a limit");
    w.u32(len).u64(highest.0).bytes(record);
}
