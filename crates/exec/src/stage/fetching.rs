//! A stage that fetches: execution stands still until the state is that of the target.

use alloc::boxed::Box;
use alloc::vec::Vec;

use base::transfer::Manifest;
use base::{Digest, FromStage, ReplicaId, Seq, StableCheckpoint, Time};

use super::checkpoint::Question;
use super::{Stage, StageOutbox, Standing, Told, Turn};
use crate::transfer::{Fetch, Outcome, Served, TICK};

impl Stage {
    /// When the stage wants a [`base::ToStage::Tick`], if it does: while it fetches, and while
    /// others wait for answers.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match &self.standing {
            Standing::Fetches(fetch) if !fetch.is_over() => {
                Some(fetch.now().map_or(Time::ZERO, |now| now.after(TICK)))
            }
            _ if self.source.is_idle() => None,
            _ => Some(self.now.map_or(Time::ZERO, |now| now.after(TICK))),
        }
    }

    pub(super) fn tick(&mut self, now: Time) {
        self.now = Some(now);
        self.source.tick(now, self.state.engine.ops);
        if let Standing::Fetches(fetch) = &mut self.standing {
            fetch.tick(now);
        }
    }

    /// Fetches `target`, or compares it with what is executed; what it was told before is void, but
    /// for those whom that is kept for.
    pub(super) fn fetch(
        &mut self,
        target: StableCheckpoint,
        sources: &[ReplicaId],
        out: &mut StageOutbox,
    ) {
        let (seq, question) = (target.seq, self.checkpoints.questioned.take());
        self.fetch_anew(target, sources, out);
        let Some(Question { target, readers, .. }) = question else { return };
        for reader in readers {
            match target.seq == seq {
                true => self.pin(seq, reader, out),
                false => self.miss_pin(reader, target.seq, out),
            }
        }
    }

    fn fetch_anew(
        &mut self,
        target: StableCheckpoint,
        sources: &[ReplicaId],
        out: &mut StageOutbox,
    ) {
        let trusted = match &mut self.standing {
            // The beginning has no certificate and nobody holds it.
            Standing::Fetches(_) | Standing::Halted { .. } if target.seq == Seq(0) => {
                return out.coordinator(FromStage::FetchFailed { seq: target.seq });
            }
            Standing::Fetches(fetch) => {
                self.merge.jump(target.seq);
                return fetch.retarget(target, sources);
            }
            Standing::Halted { trusted } => *trusted,
            Standing::Executes if target.seq > self.executed => true,
            Standing::Executes => {
                let digested = self.digested_from() == Some(target.seq);
                if digested && !self.is_quiet() {
                    let (sources, readers) = (sources.to_vec(), Vec::new());
                    self.checkpoints.questioned = Some(Question { target, sources, readers });
                    return;
                }
                let ours = match digested {
                    true => self.digest_made(),
                    false => self.digest_at(target.seq),
                };
                if ours.is_none_or(|ours| ours == target.digest) {
                    if digested {
                        self.finish_digests(out);
                    }
                    let progress = self.progress();
                    let replaced = false;
                    return out.all(FromStage::Fetched { checkpoint: target, progress, replaced });
                }
                self.report.diverged += 1;
                false
            }
        };
        // Half a batch is as good as none: its objects are compared like all others.
        self.abandon_tentative();
        self.cursor = None;
        self.abandon_flight(self.executed);
        self.abandon_digests();
        self.checkpoints.unstable.clear();
        self.drop_pins(Seq(target.seq.0.saturating_sub(1)), out);
        self.merge.jump(target.seq);
        let fetch = Fetch::new(self.config.group, target, sources, trusted);
        self.standing = Standing::Fetches(Box::new(fetch));
    }

    /// Answers a fetch that waited for the digest of the own checkpoint, which nobody can make
    /// while workers are out.
    pub(super) fn fetch_questioned(&mut self, out: &mut StageOutbox) {
        if let Some(Question { target, sources, .. }) = self.checkpoints.questioned.clone() {
            self.fetch(target, &sources, out);
        }
    }

    /// The digest of the own checkpoint at `seq`, if it is still known.
    fn digest_at(&self, seq: Seq) -> Option<Digest> {
        let last = (self.report.checkpoint, self.report.checkpoint_digest);
        let known = self.checkpoints.unstable.iter().chain((last.0 > Seq(0)).then_some(&last));
        known.copied().find(|(at, _)| *at == seq).map(|(_, digest)| digest)
    }

    /// What a turn comes to while jobs are out that were handed out before the stage stood still:
    /// nothing, until they are back.
    pub(super) fn standstill(&self) -> Option<Turn> {
        (!matches!(self.standing, Standing::Executes)).then_some(Turn::Idle)
    }

    /// Goes on with a fetch. `None` when there is none any more and execution may go on.
    pub(super) fn fetch_turn(&mut self, out: &mut StageOutbox) -> Option<Turn> {
        let fetch = match &mut self.standing {
            Standing::Executes => return None,
            Standing::Halted { .. } => return Some(Turn::Idle),
            Standing::Fetches(fetch) if fetch.is_over() => return Some(Turn::Idle),
            Standing::Fetches(fetch) => fetch,
        };
        match fetch.proceed(&mut self.state, out) {
            Outcome::Going => Some(if fetch.is_busy() { Turn::More } else { Turn::Idle }),
            Outcome::Failed => {
                let seq = fetch.target().seq;
                out.coordinator(FromStage::FetchFailed { seq });
                Some(Turn::Idle)
            }
            Outcome::Done(manifest) => {
                let checkpoint = fetch.target().clone();
                self.report.transfer.objects += fetch.objects;
                self.report.transfer.bytes += fetch.bytes;
                self.standing = Standing::Executes;
                self.fetched(manifest, checkpoint, out);
                None
            }
        }
    }

    fn fetched(&mut self, manifest: Manifest, checkpoint: StableCheckpoint, out: &mut StageOutbox) {
        assert_eq!(manifest.seq, self.merge.taken(), "deliveries wait for this checkpoint");
        self.executed = manifest.seq;
        self.abandon_flight(manifest.seq);
        if self.state.engine.stamps().is_some() {
            self.answer_reads();
        }
        self.time = if base::mutant!(TimeNotFetched) { self.time } else { manifest.time };
        self.note_checkpoint(&manifest, checkpoint.digest);
        self.report.stable = self.report.stable.max(checkpoint.seq);
        let progress = self.progress();
        self.told = Told { progress, gap: None };
        out.all(FromStage::Fetched { checkpoint, progress, replaced: true });
        self.drop_pins(Seq(manifest.seq.0.saturating_sub(1)), out);
        self.pin_reached(manifest, out);
    }

    /// Answers others within the bounds of a turn. True when more can be answered at once.
    pub(super) fn serve(&mut self, out: &mut StageOutbox) -> bool {
        if self.source.is_idle() {
            return false;
        }
        let held = self.snapshots.held(base::transfer::SnapshotReader::Transfer);
        self.source.serve(held, &self.state, out) == Served::More
    }
}
