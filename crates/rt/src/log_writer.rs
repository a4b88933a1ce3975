//! The thread that writes the vote log: group commit over all pillars and the coordinator.
//!
//! A party (a lane, or the coordinator) encodes its records as they come and hands them over
//! once per turn. The writer takes everything that has gathered, appends and commits it, then
//! says up to which ticket each party's records are durable and rings the parties' bells. While
//! it waits for the disk the next group gathers: the slower the disk, the larger the groups. A
//! group that nobody waits for is written, and synced with the next.
//!
//! A write or sync that fails is never tried again (design, trap 12): nobody knows what of it is
//! on disk. The writer ends, nothing becomes durable any more, and the replica stops.
//!
//! The writer also keeps the replica's directory, and so the life file: that a recovery is over
//! is written after the records that say so, and that the life ended in order after everything.
//!
//! Not here: the log's format (`store`), and who waits for what (`journal`).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use base::Seq;
use durable::{Party, Portion};
use proto::Record;
use store::{Dir, Log, StoreError};

use crate::failure::Failure;
use crate::ring::Bell;

/// Bytes that may wait for the disk before clients are read more slowly.
const BEHIND_BYTES: usize = 64 << 20;
/// How long records that nobody waits for may stay in memory.
const LAZY_FOR: Duration = Duration::from_millis(20);

/// What gathers until the writer comes for it.
#[derive(Debug, Default)]
struct Gathered {
    portion: Portion,
    /// The last ticket of each party in here, where there is one.
    tickets: Vec<(usize, u64)>,
    closing: Option<Ending>,
}

/// How the writer ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// As if the process were killed: what was handed over last is lost.
    Abrupt,
    /// In order: the next life knows that nothing is lost.
    Clean,
}

/// What the writer and the parties share.
#[derive(Debug)]
struct Desk {
    gathered: Mutex<Gathered>,
    arrived: Condvar,
    /// Per party: up to which ticket its records are durable.
    durable: Vec<AtomicU64>,
    /// Bytes handed over and not durable.
    waiting: AtomicUsize,
    /// Bytes of the log on disk.
    on_disk: AtomicU64,
    /// Bytes of earlier lives beyond the checkpoint that this one began with.
    found: u64,
    /// Bytes that the log has taken in this life.
    taken: AtomicU64,
    commits: AtomicU64,
    /// The writer has ended, and the log is closed.
    closed: AtomicBool,
}

/// One party's access to the log.
#[derive(Debug)]
pub(crate) struct LogParty {
    desk: Arc<Desk>,
    party: usize,
    /// The ticket of the last record.
    ticket: u64,
    /// What was appended in this turn.
    turn: Portion,
    /// The ticket that somebody waits for and that was handed over last.
    awaited: u64,
    /// Somebody waits for all that was handed over so far.
    barrier: bool,
    recovered: bool,
}

/// The handle on the writer's thread.
#[derive(Debug)]
pub(crate) struct LogWriter {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// What can be told about the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LogSnapshot {
    /// Bytes on disk.
    pub(crate) on_disk: u64,
    /// Bytes that wait for the disk.
    pub(crate) waiting: u64,
    /// Commits so far.
    pub(crate) commits: u64,
}

/// A read-only view of the log's state, to be kept by whoever reports it.
#[derive(Clone, Debug)]
pub(crate) struct LogGauge(Arc<Desk>);

impl LogGauge {
    /// What can be told about the log.
    pub(crate) fn snapshot(&self) -> LogSnapshot {
        let desk = &self.0;
        LogSnapshot {
            on_disk: desk.on_disk.load(Ordering::Relaxed),
            waiting: desk.waiting.load(Ordering::Relaxed) as u64,
            commits: desk.commits.load(Ordering::Relaxed),
        }
    }

    /// Bytes that earlier lives have left in the log beyond the checkpoint that this one began
    /// with.
    pub(crate) fn found(&self) -> u64 {
        self.0.found
    }

    /// Bytes that the log has taken since it was opened.
    pub(crate) fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Asks the writer to drop what only concerns numbers up to `seq`.
    pub(crate) fn trim(&self, seq: Seq) {
        let mut gathered = lock(&self.0.gathered);
        gathered.portion.trim = gathered.portion.trim.max(Some(seq));
        drop(gathered);
        self.0.arrived.notify_one();
    }
}

impl LogWriter {
    /// Starts the writer. There is a party for each of `bells`, which are those of the parties'
    /// threads, in order.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(
        name: String,
        (log, dir): (Log, Dir),
        bells: Vec<Arc<Bell>>,
        sync: bool,
        failure: Arc<Failure>,
    ) -> std::io::Result<(LogWriter, Vec<LogParty>)> {
        let desk = Arc::new(Desk {
            gathered: Mutex::default(),
            arrived: Condvar::new(),
            durable: bells.iter().map(|_| AtomicU64::new(0)).collect(),
            waiting: AtomicUsize::new(0),
            on_disk: AtomicU64::new(log.bytes()),
            found: log.found(),
            taken: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let parties = (0..bells.len()).map(|party| LogParty::new(&desk, party)).collect();
        let (desk_too, taken) = (Arc::clone(&desk), Gathered::default());
        let writer = Writer { desk: desk_too, log, dir, sync, bells, taken };
        let thread = std::thread::Builder::new().name(name).spawn(move || writer.run(&failure))?;
        Ok((LogWriter { desk, thread: Some(thread) }, parties))
    }

    /// A view for reports.
    pub(crate) fn gauge(&self) -> LogGauge {
        LogGauge(Arc::clone(&self.desk))
    }

    /// Ends the writer. True when everything that was handed over is on disk, in order.
    pub(crate) fn close(&mut self, how: Ending) -> bool {
        lock(&self.desk.gathered).closing = Some(how);
        self.desk.arrived.notify_one();
        let joined = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        joined && self.desk.closed.load(Ordering::Acquire)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.close(Ending::Abrupt);
    }
}

impl LogParty {
    fn new(desk: &Arc<Desk>, party: usize) -> LogParty {
        LogParty {
            desk: Arc::clone(desk),
            party,
            ticket: 0,
            turn: Portion::default(),
            awaited: 0,
            barrier: false,
            recovered: false,
        }
    }
}

impl Party for LogParty {
    fn append(&mut self, record: &Record) -> u64 {
        record.encode(&mut self.turn.bytes);
        self.turn.ends.push((self.turn.bytes.len(), record.seq()));
        self.ticket += 1;
        self.ticket
    }

    /// What others have handed over is in the group that this party's next goes into, or in an
    /// earlier one.
    fn barrier(&mut self) -> u64 {
        self.barrier = true;
        self.ticket += 1;
        self.ticket
    }

    fn submit(&mut self, awaited: u64) {
        let turn = &mut self.turn;
        if turn.ends.is_empty() && !self.recovered && !self.barrier {
            return;
        }
        let urgent = awaited > self.awaited || self.recovered;
        (self.awaited, self.barrier) = (awaited, false);
        self.desk.waiting.fetch_add(turn.bytes.len(), Ordering::Relaxed);
        let mut gathered = lock(&self.desk.gathered);
        gathered.tickets.push((self.party, self.ticket));
        let portion = &mut gathered.portion;
        let base = portion.bytes.len();
        portion.bytes.extend_from_slice(&turn.bytes);
        portion.ends.extend(turn.ends.iter().map(|(end, seq)| (base + end, *seq)));
        let first = portion.ends.len() == turn.ends.len();
        portion.urgent |= urgent;
        portion.recovered |= std::mem::take(&mut self.recovered);
        drop(gathered);
        if urgent || first {
            self.desk.arrived.notify_one();
        }
        self.turn.clear();
    }

    /// Others may begin a segment before this party hands anything over; that a record is
    /// carried over before it is written itself does no harm.
    fn carry(&mut self, records: Vec<Vec<u8>>) {
        lock(&self.desk.gathered).portion.carried = Some(records);
    }

    fn recovered(&mut self) {
        self.recovered = true;
    }

    fn durable(&self) -> u64 {
        self.desk.durable[self.party].load(Ordering::Acquire)
    }

    fn behind(&self) -> bool {
        self.desk.waiting.load(Ordering::Relaxed) > BEHIND_BYTES
    }
}

/// The writer's own side.
struct Writer {
    desk: Arc<Desk>,
    log: Log,
    dir: Dir,
    sync: bool,
    bells: Vec<Arc<Bell>>,
    /// What is being written; its memory is used again.
    taken: Gathered,
}

impl Writer {
    fn run(mut self, failure: &Failure) {
        let _watch = Watch(failure);
        loop {
            self.take();
            if self.taken.closing == Some(Ending::Abrupt) {
                return;
            }
            if let Err(error) = self.write() {
                return failure.set("cannot write the vote log", &error);
            }
            if self.taken.closing.is_some() {
                match self.log.commit(true).and_then(|()| self.dir.end()) {
                    Ok(()) => self.desk.closed.store(true, Ordering::Release),
                    Err(error) => failure.set("cannot close the vote log", &error),
                }
                return;
            }
        }
    }

    /// Waits until there is something to write, and takes it.
    fn take(&mut self) {
        let mut gathered = lock(&self.desk.gathered);
        loop {
            let portion = &gathered.portion;
            if portion.urgent || gathered.closing.is_some() || portion.trim.is_some() {
                break;
            }
            let idle = portion.ends.is_empty();
            let arrived = &self.desk.arrived;
            if idle {
                gathered = arrived.wait(gathered).unwrap_or_else(|e| e.into_inner());
                continue;
            }
            let waited = arrived.wait_timeout(gathered, LAZY_FOR);
            let (again, timeout) = waited.unwrap_or_else(|e| e.into_inner());
            gathered = again;
            if timeout.timed_out() {
                break;
            }
        }
        let taken = &mut self.taken;
        taken.portion.clear();
        taken.tickets.clear();
        let closing = gathered.closing;
        std::mem::swap(&mut *gathered, taken);
        gathered.closing = closing;
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let Gathered { portion, tickets, .. } = &self.taken;
        if portion.write(&mut self.log, self.sync)? {
            self.desk.commits.fetch_add(1, Ordering::Relaxed);
        }
        self.desk.waiting.fetch_sub(portion.bytes.len(), Ordering::Relaxed);
        let mut rung = [false; 64];
        for (party, ticket) in tickets {
            self.desk.durable[*party].store(*ticket, Ordering::Release);
            if let Some(rung) = rung.get_mut(*party) {
                *rung = true;
            }
        }
        // A bell that several parties share wakes its thread once and then does nothing.
        for (party, bell) in self.bells.iter().enumerate() {
            if rung.get(party).copied().unwrap_or(true) {
                bell.ring();
            }
        }
        portion.conclude(&mut self.log, &mut self.dir)?;
        self.desk.on_disk.store(self.log.bytes(), Ordering::Relaxed);
        self.desk.taken.store(self.log.appended(), Ordering::Relaxed);
        Ok(())
    }
}

/// A writer that panics has failed like one whose disk fails: nothing becomes durable any more.
struct Watch<'a>(&'a Failure);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set("cannot write the vote log", &"its writer panicked; that is a bug");
        }
    }
}

fn lock(gathered: &Mutex<Gathered>) -> MutexGuard<'_, Gathered> {
    gathered.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Digest, GroupId, Incarnation, ReplicaId, ToStage, View};
    use mio::{Poll, Token, Waker};
    use proto::group::record::GroupRecord;
    use proto::pbft::msg::{Message, Vote};
    use proto::{Effect, Target, When};
    use std::path::Path;
    use store::{Beginning, Durability, Faults, Identity, LogOptions, Memory, Opened, Volatile};
    use store::{Storage, Voice};

    use crate::journal::Journal;

    const IDENTITY: Identity = Identity { group: GroupId([1; 32]), replica: ReplicaId(0) };

    fn open(storage: &Volatile) -> Opened {
        let storage: Arc<dyn Storage> = Arc::new(storage.clone());
        Dir::open(Path::new("state"), IDENTITY, storage).expect("a directory")
    }

    /// A writer for two parties on a disk of its own, with small segments.
    fn start(disk: &Volatile) -> (LogWriter, Vec<LogParty>, Arc<Failure>, Poll) {
        let Opened { mut dir, .. } = open(disk);
        let first = Beginning { voice: Voice::Whole, why: String::new() };
        let layout = LogOptions { segment_bytes: 4 << 10 };
        let log = dir.begin(&first, Incarnation(1), Durability::Sync, layout);
        let log = log.expect("it works").expect("a log");
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let bell = Arc::new(Bell::new(waker));
        let failure = Arc::new(Failure::default());
        let bells = vec![Arc::clone(&bell), bell];
        let started = LogWriter::start("log".into(), (log, dir), bells, true, failure.clone());
        let (writer, parties) = started.expect("a thread");
        (writer, parties, failure, poll)
    }

    fn record(seq: u64) -> Effect {
        Effect::Persist(Record::Prepared { view: View(0), seq: Seq(seq), digest: Digest([7; 32]) })
    }

    fn promise(seq: u64) -> Effect {
        let vote = Vote { view: View(0), seq: Seq(seq), digest: Digest([7; 32]) };
        Effect::Send { to: Target::All, when: When::Durable, message: Message::Commit(vote) }
    }

    fn seq_of(effect: &Effect) -> u64 {
        match effect {
            Effect::Send { message: Message::Commit(vote), .. } => vote.seq.0,
            other => panic!("not a promise: {other:?}"),
        }
    }

    fn until(mut done: impl FnMut() -> bool) {
        while !done() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn promises_leave_in_order_and_only_when_their_records_are_on_the_disk() {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let (mut writer, parties, _, _poll) = start(&disk);
        let mut journals: Vec<_> =
            parties.into_iter().map(|party| Journal::new(Some(party))).collect();
        for (journal, first) in journals.iter_mut().zip([1, 1_000]) {
            assert!(journal.admit(promise(first)).is_some(), "nothing to wait for yet");
            for seq in first..first + 100 {
                assert!(journal.admit(record(seq)).is_none());
                assert!(journal.admit(promise(seq)).is_none(), "its record is not on the disk");
                let free = Effect::Stage(ToStage::Tick(base::Time::ZERO));
                assert!(journal.admit(free).is_some(), "says nothing about records");
            }
            assert!(!journal.ripe(), "nothing was handed over");
            journal.submit();
            let mut left = vec![];
            until(|| {
                left.extend(std::iter::from_fn(|| journal.released()));
                left.len() == 100
            });
            assert!(left.iter().map(seq_of).eq(first..first + 100));
        }
        drop(journals);
        assert!(writer.close(Ending::Clean));
        disk.crash().expect("the disk below works");
        let found = open(&disk).found;
        assert_eq!(found.log.records.len(), 200, "they were where it was said that they are");
        assert!(matches!(found.life, store::LifeFound::Good(life) if life.clean));
    }

    #[test]
    fn after_a_sync_that_failed_no_promise_leaves_any_more() {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let (mut writer, mut parties, failure, _poll) = start(&disk);
        let mut journal = Journal::new(parties.pop());
        let fail_sync = Some(disk.syncs() + 1);
        disk.set_faults(Faults { fail_sync, ..Faults::default() });
        for seq in 1..10 {
            assert!(journal.admit(record(seq)).is_none());
            assert!(journal.admit(promise(seq)).is_none());
            journal.submit();
            until(|| failure.failed());
            assert!(journal.released().is_none());
        }
        assert!(!writer.close(Ending::Clean), "nobody knows what is on the disk");
        assert!(failure.text().is_some_and(|text| text.contains("vote log")));
    }

    #[test]
    fn nobody_waits_for_a_record_of_what_is_committed() {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let (mut writer, mut parties, _, _poll) = start(&disk);
        let mut journal = Journal::new(parties.pop());
        let done = Record::Committed { seq: Seq(1), digest: Digest([7; 32]), batch: None };
        assert!(journal.admit(Effect::Persist(done)).is_none());
        assert!(journal.admit(promise(1)).is_none(), "it was not even handed over");
        journal.submit();
        assert!(journal.released().is_some());
        assert!(writer.close(Ending::Clean));
        assert_eq!(open(&disk).found.log.records.len(), 1, "it is written all the same");
    }

    #[test]
    fn a_record_that_nobody_waits_for_costs_no_sync() {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let (mut writer, mut parties, _, _poll) = start(&disk);
        let gauge = writer.gauge();
        let mut journal = Journal::new(parties.pop());
        let before = disk.syncs();
        let done = Record::Committed { seq: Seq(1), digest: Digest([7; 32]), batch: None };
        assert!(journal.admit(Effect::Persist(done)).is_none());
        journal.submit();
        until(|| gauge.snapshot().commits == 1);
        assert_eq!(disk.syncs(), before, "the next one that somebody waits for takes it along");
        assert!(journal.admit(record(2)).is_none());
        assert!(journal.admit(promise(2)).is_none());
        journal.submit();
        until(|| journal.released().is_some());
        assert_eq!(disk.syncs(), before + 1, "one for all that has gathered");
        drop(journal);
        disk.crash().expect("the disk below works");
        writer.close(Ending::Abrupt);
        assert_eq!(open(&disk).found.log.records.len(), 2);
    }

    /// Whoever signs a checkpoint says that everything up to it can be had from here, whichever
    /// pillar it was decided in.
    #[test]
    fn a_checkpoint_leaves_behind_what_every_pillar_has_handed_to_execution() {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let (mut writer, parties, _, _poll) = start(&disk);
        let mut journals: Vec<_> =
            parties.into_iter().map(|party| Journal::new(Some(party))).collect();
        let done = Record::Committed { seq: Seq(1), digest: Digest([7; 32]), batch: None };
        assert!(journals[0].admit(Effect::Persist(done)).is_none());
        let batch = Arc::new(base::Batch::Null);
        let deliver = Effect::Stage(ToStage::Deliver { seq: Seq(1), batch });
        assert!(journals[0].admit(deliver).is_none(), "its record was not handed over");
        journals[0].submit();
        assert!(journals[0].released().is_some(), "execution does not wait for the disk");
        let attest = |seq| Effect::Send {
            to: Target::All,
            when: When::Settled(Seq(seq)),
            message: Message::Vouch { executed: Seq(0), entries: vec![] },
        };
        for seq in [1, 2] {
            let syncs = disk.syncs();
            assert!(journals[1].admit(attest(seq)).is_none());
            journals[1].submit();
            until(|| journals[1].released().is_some());
            assert_eq!(disk.syncs() > syncs, seq == 1, "only what is not on the disk yet costs");
        }
        assert!(journals[1].admit(attest(2)).is_some(), "said before");
        disk.crash().expect("the disk below works");
        writer.close(Ending::Abrupt);
        assert_eq!(open(&disk).found.log.records.len(), 1);
    }

    /// Another party may fill the segment before the owner of the carried records has anything
    /// to hand over.
    #[test]
    fn what_is_carried_over_is_so_from_the_first_new_segment_on() {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let (mut writer, parties, _, _poll) = start(&disk);
        let mut journals: Vec<_> =
            parties.into_iter().map(|party| Journal::new(Some(party))).collect();
        let left = || Record::Group(GroupRecord::Left { view: View(7) });
        journals[1].carry(|| [left()].into_iter());
        for seq in 1..=200 {
            assert!(journals[0].admit(record(seq)).is_none());
            assert!(journals[0].admit(promise(seq)).is_none());
            journals[0].submit();
            until(|| journals[0].released().is_some());
        }
        writer.gauge().trim(Seq(150));
        drop(journals);
        assert!(writer.close(Ending::Clean));
        let found = open(&disk).found.log.records;
        let first = found.iter().map(|record| record.highest).find(|seq| *seq > Seq(0));
        assert!(first > Some(Seq(1)), "the log was cut back");
        let mut bytes = Vec::new();
        left().encode(&mut bytes);
        assert!(found.iter().any(|record| record.bytes == bytes), "a promise is gone");
    }

    #[test]
    fn a_disk_that_stands_still_costs_no_memory_without_end() {
        let disk = Volatile::over(Arc::new(Memory::new()));
        let (_writer, mut parties, _, _poll) = start(&disk);
        let mut journal = Journal::new(parties.pop());
        // Never handed over: it is as if the disk did not answer.
        assert!(journal.admit(record(1)).is_none());
        for seq in 0..1_000_000 {
            assert!(journal.admit(promise(seq)).is_none());
        }
        let batch = Arc::new(base::Batch::Null);
        for seq in 1..=100 {
            let deliver = Effect::Stage(ToStage::Deliver { seq: Seq(seq), batch: batch.clone() });
            assert!(journal.admit(deliver).is_none());
        }
        assert!(journal.held() <= durable::HELD_SENDS_MAX + 100, "{}", journal.held());
        journal.submit();
        let mut delivered = 0;
        until(|| {
            let left = std::iter::from_fn(|| journal.released());
            delivered += left.filter(|effect| matches!(effect, Effect::Stage(_))).count();
            delivered == 100
        });
    }

    #[test]
    fn a_writer_that_panics_stops_the_replica() {
        let failure = Arc::new(Failure::default());
        let theirs = Arc::clone(&failure);
        let thread = std::thread::spawn(move || {
            let _watch = Watch(&theirs);
            panic!("as a bug would");
        });
        assert!(thread.join().is_err());
        assert!(failure.text().is_some_and(|text| text.contains("vote log")));
    }
}
