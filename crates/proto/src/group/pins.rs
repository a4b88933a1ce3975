//! Which checkpoints the stage keeps readable: one for others that fetch, one for the disk
//! (`docs/protocol/recovery.md`, F3 and F8).
//!
//! A checkpoint can be kept only if that is asked for before it is executed, and is of use only
//! once exactly that one is certified. If it is passed over, the next one is kept.
//!
//! Not here: the copies that keeping one needs (`exec`), and the transfer itself.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use base::transfer::SnapshotReader;
use base::{Digest, ReplicaId, Seq, Span, StableCheckpoint, Time, ToStage, VoteSet};

use super::fetch::TICK;
use super::link::FromCoordinator;
use super::msg::GroupMessage;
use super::rest::Rest;
use super::{Coordinator, Effect, send, settled};
use crate::outbox::Target;
use crate::pbft::Reject;

/// How long a checkpoint that is of use to an asker is kept rather than replaced by a newer one.
const KEEP: Span = Span::secs(30);
/// One that is read by others is not replaced for this long.
const KEEP_READ: Span = Span::secs(120);
/// One that is still to come for others, but of no use to an asker, is kept for this long.
const KEEP_COMING: Span = Span::secs(5);
/// Read within this time: a transfer is under way.
const READING: Span = Span::secs(2);
/// One that others were told of, and have yet to read, is kept for so long after each of them first
/// was: the first request takes its time, perhaps until somebody else offers the same.
const KEEP_OFFERED: Span = Span::secs(5);
/// The same if execution rests again, further on: all who wait are told of that state then.
const KEEP_RESTED: Span = Span::secs(1);
/// One that nobody asks for is given up after this time.
const IDLE: Span = Span::secs(60);
/// How often a checkpoint that the disk waits for is driven for.
const DRIVE: Span = Span::secs(1);
/// Certificates that are kept to match what is pinned later.
const RECENT: usize = 8;

/// A checkpoint that is kept, or will be.
#[derive(Clone, Debug)]
struct Pin {
    seq: Seq,
    since: Time,
    /// As executed here, once it is.
    digest: Option<Digest>,
    /// Its certificate, once exactly this one is stable.
    certified: Option<StableCheckpoint>,
    /// It is offered without one: the state that this replica is in.
    rests: bool,
    /// When each replica was first told that it is there. That it is told again does not count, so
    /// that who asks for ever and reads nothing holds it no longer.
    offered: BTreeMap<ReplicaId, Time>,
}

impl Pin {
    fn new(seq: Seq, now: Time) -> Pin {
        let offered = BTreeMap::new();
        Pin { seq, since: now, digest: None, certified: None, rests: false, offered }
    }

    /// `to` is told that it is there.
    fn offers(&mut self, now: Time, to: ReplicaId) {
        self.offered.entry(to).or_insert(now);
    }
}

#[derive(Clone, Debug)]
struct Transfer {
    pin: Pin,
    askers: VoteSet,
    /// When somebody last asked for it or read it.
    used: Time,
    /// Who read it last, and when.
    reads: BTreeMap<ReplicaId, Time>,
    tick: Time,
}

impl Transfer {
    fn new(pin: Pin, askers: VoteSet, now: Time) -> Transfer {
        Transfer { pin, askers, used: now, reads: BTreeMap::new(), tick: now.after(TICK) }
    }

    /// Whether somebody but `from` has heard of it just now, and has yet to read it.
    fn is_news(&self, now: Time, from: ReplicaId) -> bool {
        let told =
            |(who, at): &(&ReplicaId, &Time)| **who != from && now.since(**at) < KEEP_OFFERED;
        let mut told = self.pin.offered.iter().filter(told);
        told.any(|(who, _)| !self.reads.contains_key(who))
    }
}

#[derive(Clone, Debug)]
struct Disk {
    pin: Pin,
    /// When the group is driven there next, if at all, or when it is written again.
    drive: Option<Time>,
}

/// What is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Pins {
    transfer: Option<Transfer>,
    disk: Option<Disk>,
    /// What the owner is writing: one at a time.
    writing: Option<Seq>,
    /// The state at this number was fetched. Not lost with this process once a state at or above it
    /// is on disk: at or below `saved`.
    fetched: Seq,
    saved: Seq,
    recent: VecDeque<StableCheckpoint>,
    pub(super) rest: Rest,
}

impl Pins {
    fn pin(&mut self, reader: SnapshotReader) -> Option<&mut Pin> {
        match reader {
            SnapshotReader::Transfer => self.transfer.as_mut().map(|transfer| &mut transfer.pin),
            SnapshotReader::Disk => self.disk.as_mut().map(|disk| &mut disk.pin),
        }
    }

    /// The state is now one that was fetched.
    pub(super) fn fetched(&mut self, seq: Seq) {
        self.fetched = self.fetched.max(seq);
    }

    /// Whether the state would be lost with this process: nothing is said of it (F12).
    pub(super) fn is_unsaved(&self) -> bool {
        self.fetched > self.saved && !base::mutant!(CertifiesUnsaved)
    }

    /// A piece of the checkpoint goes to a replica that fetches it.
    pub(super) fn used(&mut self, now: Time, seq: Seq, by: ReplicaId) {
        if let Some(transfer) = self.transfer.as_mut().filter(|t| t.pin.seq == seq) {
            transfer.used = now;
            transfer.reads.insert(by, now);
        }
    }

    /// Whether the state that this replica is in, at `executed`, may be kept instead of what is.
    /// `in_vain`: for whom that is of no use has waited for long while execution stands, so that
    /// those who read it do not get on either.
    pub(super) fn may_rest(&self, now: Time, executed: Seq, in_vain: bool) -> bool {
        let Some(held) = &self.transfer else { return true };
        let pin = &held.pin;
        let reading = held.reads.values().any(|at| now.since(*at) < READING);
        let told = pin.offered.values().any(|at| now.since(*at) < KEEP_RESTED);
        let same = pin.rests && pin.seq == executed;
        let used = (pin.certified.is_some() || reading) && !in_vain;
        !(used || told || same)
    }

    /// Whether what is kept is, or will be, of use to who has executed `have`, and knows of what
    /// is certified up to `certified`.
    pub(super) fn serves(&self, have: Seq, certified: Seq) -> bool {
        let pin = self.transfer.as_ref().map(|held| &held.pin);
        pin.is_some_and(|pin| pin.seq > have && pin.seq >= certified)
    }

    /// The state at rest that is kept, and has no certificate.
    fn rests(&self) -> Option<(Seq, Digest)> {
        let pin = &self.transfer.as_ref()?.pin;
        let open = pin.rests && pin.certified.is_none();
        pin.digest.filter(|_| open).map(|digest| (pin.seq, digest))
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let transfer = self.transfer.as_ref().map(|t| t.tick.min(t.used.after(IDLE)));
        let disk = self.disk.as_ref().and_then(|disk| disk.drive);
        transfer.into_iter().chain(disk).min()
    }

    /// Whether the certificate of what is executed and kept for `reader` is there since now.
    fn completes(&mut self, reader: SnapshotReader) -> Option<StableCheckpoint> {
        let Pins { transfer, disk, recent, .. } = self;
        let pin = match reader {
            SnapshotReader::Transfer => &mut transfer.as_mut()?.pin,
            SnapshotReader::Disk => &mut disk.as_mut()?.pin,
        };
        let digest = pin.digest.filter(|_| pin.certified.is_none())?;
        let found = recent.iter().find(|s| s.seq == pin.seq && s.digest == digest)?;
        pin.certified = Some(found.clone());
        pin.certified.clone()
    }
}

impl Coordinator {
    /// F3: `from` wants to fetch a checkpoint above `have`, best at `want`.
    pub(super) fn on_want(
        &mut self,
        now: Time,
        from: ReplicaId,
        have: Seq,
        want: Seq,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        self.pins.rest.is_asked(now, from, have);
        if self.look_at_rest(now, out) {
            return Ok(());
        }
        let offer = self.pins.rests().map(|(seq, digest)| self.offer(seq, digest));
        if let Some(held) = self.pins.transfer.as_mut() {
            let age = now.since(held.pin.since);
            let reads = |(_, at): &(&ReplicaId, &Time)| now.since(**at) < READING;
            let mut readers = held.reads.iter().filter(reads).map(|(who, _)| *who);
            let reading = age < KEEP_READ && readers.clone().next().is_some();
            // While it fetches from few, it goes on asking (F6): that takes nothing from itself.
            let reads = held.reads.get(&from).is_some_and(|at| now.since(*at) < READING);
            if held.pin.seq > have && (age < KEEP || reading || reads) {
                held.askers.insert(from);
                held.used = now;
                let seq = held.pin.seq;
                if let Some(stable) = held.pin.certified.clone() {
                    held.pin.offers(now, from);
                    send(out, Target::One(from), GroupMessage::HaveCheckpoint(stable));
                } else if let Some(offer) = offer {
                    held.pin.offers(now, from);
                    settled(out, Target::One(from), seq, offer);
                } else if seq > want && self.peers.may_fill(from, now, seq, self.stable.seq) {
                    // Whoever asked first may not want the group to get there at all.
                    self.fill_for(now, from, seq, out);
                }
                return Ok(());
            }
            // What the asker itself has read just now is what it is beyond.
            let read = reading && readers.any(|who| who != from);
            let awaited = held.askers.iter().any(|who| who != from);
            let offered = held.pin.rests && held.pin.digest.is_some();
            let comes = held.pin.certified.is_none() && !offered;
            let coming = comes && awaited && age < KEEP_COMING;
            if read || coming || held.is_news(now, from) {
                return Err(Reject::Stale("another checkpoint is kept for others"));
            }
        }
        let seq = self.reachable(want).ok_or(Reject::Stale("no such checkpoint to come"))?;
        let mut askers = VoteSet::EMPTY;
        askers.insert(from);
        self.pins.transfer = Some(Transfer::new(Pin::new(seq, now), askers, now));
        out.push(Effect::Stage(ToStage::Pin { seq, reader: SnapshotReader::Transfer }));
        if seq > want && self.peers.may_fill(from, now, seq, self.stable.seq) {
            // The asker drives the group only as far as it knew.
            self.fill_for(now, from, seq, out);
        }
        Ok(())
    }

    /// F9: keeps the state that this replica is in, whatever was to be kept.
    pub(super) fn pin_rest(
        &mut self,
        now: Time,
        to: impl Iterator<Item = ReplicaId>,
        out: &mut Vec<Effect>,
    ) {
        let seq = self.executed;
        let pin = Pin { rests: true, ..Pin::new(seq, now) };
        let mut askers = self.pins.transfer.as_ref().map_or(VoteSet::EMPTY, |held| held.askers);
        for who in to {
            askers.insert(who);
        }
        self.pins.transfer = Some(Transfer::new(pin, askers, now));
        out.push(Effect::Stage(ToStage::Pin { seq, reader: SnapshotReader::Transfer }));
    }

    /// The checkpoint to keep for who wants `want`: that one if it is yet to be executed, else
    /// the next on a coarse grid, so that replicas at slightly different places keep the same.
    fn reachable(&self, want: Seq) -> Option<Seq> {
        let interval = self.cfg.checkpoint_interval;
        let reach = self.stable.seq.0 + 2 * self.cfg.window;
        if want > self.executed {
            let exact = want.0.is_multiple_of(interval);
            return (exact && want.0 <= reach).then_some(want);
        }
        let next = self.next_checkpoint();
        let grid = 4 * interval;
        let coarse = (next.0 + interval).div_ceil(grid) * grid;
        Some(if coarse <= reach { Seq(coarse) } else { next })
    }

    /// The next checkpoint that will surely still be executed after the stage hears of it.
    fn next_checkpoint(&self) -> Seq {
        let executed = self.executed.max(self.stable.seq);
        self.rules.checkpoint_at_least(executed.0 + self.cfg.checkpoint_interval)
    }

    /// F8: the owner wants a checkpoint for its disk.
    pub(super) fn on_save(
        &mut self,
        now: Time,
        soon: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let drive = soon.then_some(now);
        // What is executed already lacks what came after it, which who asks now wants, too.
        let is_past =
            |disk: &Disk| soon && disk.pin.digest.is_some() && disk.pin.certified.is_none();
        match self.pins.disk.as_mut().filter(|disk| !is_past(disk)) {
            // What was fetched is there, or comes by itself.
            Some(disk) if disk.pin.certified.is_some() => {}
            Some(disk) => disk.drive = disk.drive.or(drive),
            None => {
                let pin = Pin::new(self.next_checkpoint(), now);
                let seq = pin.seq;
                self.pins.disk = Some(Disk { pin, drive });
                out.push(Effect::Stage(ToStage::Pin { seq, reader: SnapshotReader::Disk }));
            }
        }
        self.pins_turn(now, out);
        Ok(())
    }

    /// F8, F12: the owner has done with what it wrote.
    pub(super) fn on_saved(
        &mut self,
        now: Time,
        written: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        let seq = self.pins.writing.take().ok_or(Reject::Stale("nothing is saved"))?;
        if written && seq > self.pins.saved {
            self.pins.saved = seq;
            out.push(Effect::Lanes(FromCoordinator::Saved(seq)));
        }
        let unsaved = self.pins.is_unsaved();
        match &mut self.pins.disk {
            // Others may not get on without this replica's word.
            Some(disk) if disk.pin.seq == seq && unsaved => disk.drive = Some(now.after(DRIVE)),
            Some(disk) if disk.pin.seq == seq => {
                self.pins.disk = None;
                out.push(Effect::Stage(ToStage::Unpin(SnapshotReader::Disk)));
            }
            _ => self.write_pinned(out),
        }
        Ok(())
    }

    /// F12: what is fetched goes to disk as it is, whatever was to be kept for that.
    pub(super) fn pin_fetched(
        &mut self,
        now: Time,
        target: &StableCheckpoint,
        out: &mut Vec<Effect>,
    ) {
        let seq = target.seq;
        if self.pins.disk.as_ref().is_some_and(|disk| disk.pin.certified.as_ref() == Some(target)) {
            return;
        }
        let pin = Pin { certified: Some(target.clone()), ..Pin::new(seq, now) };
        self.pins.disk = Some(Disk { pin, drive: None });
        out.push(Effect::Stage(ToStage::Pin { seq, reader: SnapshotReader::Disk }));
    }

    /// Has the owner write what is kept for its disk and certified, unless it is writing.
    fn write_pinned(&mut self, out: &mut Vec<Effect>) {
        let Some(disk) = &mut self.pins.disk else { return };
        let there = disk.pin.certified.clone().filter(|_| disk.pin.digest.is_some());
        if let Some(stable) = there.filter(|_| self.pins.writing.is_none()) {
            disk.drive = None;
            self.pins.writing = Some(stable.seq);
            out.push(Effect::Save(stable));
        }
    }

    /// The stage keeps the checkpoint.
    pub(super) fn on_pinned(
        &mut self,
        now: Time,
        reader: SnapshotReader,
        seq: Seq,
        digest: Digest,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        self.executed = self.executed.max(seq);
        let pin = self.pins.pin(reader).filter(|pin| pin.seq == seq);
        let pin = pin.ok_or(Reject::Stale("kept for nothing"))?;
        if pin.certified.as_ref().is_some_and(|stable| stable.digest != digest) {
            // F12: the own state of this number, which goes when the stage hears what to fetch.
            return Err(Reject::Stale("kept in place of what is fetched"));
        }
        pin.digest = Some(digest);
        self.pin_certified(now, reader, out);
        if reader == SnapshotReader::Disk {
            self.write_pinned(out);
        }
        if let Some((at, digest)) = self.pins.rests().filter(|(at, _)| *at == seq) {
            let offer = self.offer(at, digest);
            if let Some(held) = self.pins.transfer.as_mut() {
                let askers = held.askers;
                for asker in askers.iter() {
                    held.pin.offers(now, asker);
                    settled(out, Target::One(asker), at, offer.clone());
                }
            }
        }
        Ok(())
    }

    /// The stage is past the checkpoint: the next one.
    pub(super) fn on_pin_missed(
        &mut self,
        now: Time,
        reader: SnapshotReader,
        seq: Seq,
        executed: Seq,
        out: &mut Vec<Effect>,
    ) -> Result<(), Reject> {
        self.executed = self.executed.max(executed);
        let fetched = self.fetcher.target() == Some(seq);
        let pin = self.pins.pin(reader).filter(|pin| pin.seq == seq);
        let pin = pin.ok_or(Reject::Stale("kept for nothing"))?;
        if reader == SnapshotReader::Disk && pin.certified.is_some() && fetched {
            // F12: it let the own state of this number go; what is fetched is yet to come. This
            // ends: what is there is told before it is missed.
            pin.digest = None;
            out.push(Effect::Stage(ToStage::Pin { seq, reader }));
            return Ok(());
        }
        self.pin_next(now, reader, out);
        Ok(())
    }

    fn pin_next(&mut self, now: Time, reader: SnapshotReader, out: &mut Vec<Effect>) {
        let seq = self.next_checkpoint();
        if let Some(pin) = self.pins.pin(reader) {
            *pin = Pin::new(seq, now);
            out.push(Effect::Stage(ToStage::Pin { seq, reader }));
        }
    }

    /// A checkpoint is stable here: perhaps the one that is kept, perhaps one beyond it.
    pub(super) fn pins_stable(
        &mut self,
        now: Time,
        stable: &StableCheckpoint,
        out: &mut Vec<Effect>,
    ) {
        self.pins.recent.push_back(stable.clone());
        if self.pins.recent.len() > RECENT {
            self.pins.recent.pop_front();
        }
        let passed = stable.seq.0.saturating_sub(2 * self.cfg.checkpoint_interval);
        for reader in [SnapshotReader::Transfer, SnapshotReader::Disk] {
            self.pin_certified(now, reader, out);
            // Pillars tell of their checkpoints each at its own time: one of the one before
            // may still come.
            let lost = |pin: &mut Pin| pin.certified.is_none() && !pin.rests && pin.seq.0 <= passed;
            if self.pins.pin(reader).is_some_and(lost) {
                self.pin_next(now, reader, out);
            }
        }
    }

    fn pin_certified(&mut self, now: Time, reader: SnapshotReader, out: &mut Vec<Effect>) {
        let Some(stable) = self.pins.completes(reader) else { return };
        match (reader, self.pins.transfer.as_mut()) {
            (SnapshotReader::Transfer, Some(transfer)) => {
                transfer.used = now;
                let askers = transfer.askers;
                for asker in askers.iter() {
                    transfer.pin.offers(now, asker);
                    let message = GroupMessage::HaveCheckpoint(stable.clone());
                    send(out, Target::One(asker), message);
                }
            }
            (SnapshotReader::Transfer, None) => {}
            (SnapshotReader::Disk, _) => self.write_pinned(out),
        }
    }

    pub(super) fn pins_turn(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.look_at_rest(now, out);
        if self.pins.transfer.as_ref().is_some_and(|t| now >= t.used.after(IDLE)) {
            self.pins.transfer = None;
            out.push(Effect::Stage(ToStage::Unpin(SnapshotReader::Transfer)));
        }
        if let Some(transfer) = self.pins.transfer.as_mut().filter(|t| now >= t.tick) {
            transfer.tick = now.after(TICK);
            out.push(Effect::Stage(ToStage::Tick(now)));
        }
        let Some(disk) = self.pins.disk.as_mut() else { return };
        if let Some(drive) = disk.drive.as_mut().filter(|drive| now >= **drive) {
            *drive = now.after(DRIVE);
            let seq = disk.pin.seq;
            if disk.pin.certified.is_some() {
                return self.write_pinned(out);
            }
            send(out, Target::All, GroupMessage::Seek(seq));
            out.push(Effect::Lanes(FromCoordinator::Fill(seq)));
        }
    }
}
