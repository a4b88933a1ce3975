//! What becomes of a frame, or of a vouch for one, when it arrives. Not here: why (`pool`).

use alloc::sync::Arc;

use base::{BatchEntry, Frame, Now, ReplicaId, Seq, ToStage};

use super::{Lane, Reject, pool};
use crate::outbox::Outbox;

/// What an arriving frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// It was not here before.
    Fresh,
    /// It waits for its order already.
    Known,
    /// It was executed not long ago: the client wants its reply again.
    Executed,
    /// It came before, and its principal repeats itself too often.
    TooOften,
    /// The principal is at its quota.
    OverQuota,
}

/// What a vouch came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Vouched {
    /// It counts, and the frame is here.
    Held,
    /// It counts; the frame has not come yet.
    Bodyless,
    /// The frame was executed not long ago.
    Late,
    /// The peer vouches for too many frames that have not come.
    TooMany,
}

impl Lane {
    /// A frame came from its client. This replica vouches for it: to itself as leader, or to
    /// the leader with this turn's votes.
    pub(super) fn on_request(
        &mut self,
        now: Now,
        frame: &Arc<Frame>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let entry = BatchEntry { id: frame.id(), digest: frame.digest() };
        self.check_shown(now.mono, frame)?;
        let place = (self.cfg.quorums.weak(), self.group_is_at());
        match self.pool.arrive(now.mono, frame, place) {
            Arrival::OverQuota => return Err(Reject::Quota),
            Arrival::TooOften => return Err(Reject::Repeats),
            Arrival::Executed => {
                let pillar = self.cfg.pillar;
                out.stage(ToStage::Resend { pillar, frame: frame.id() });
                return Ok(());
            }
            Arrival::Fresh | Arrival::Known => {
                self.grievances.frame_waits(now.mono, self.cfg.view_timeout);
                if self.pool.may_have_skipped(now.mono) {
                    // It may have been executed in what the stage has from a state.
                    let pillar = self.cfg.pillar;
                    out.stage(ToStage::Resend { pillar, frame: frame.id() });
                }
            }
        }
        if self.is_leader() {
            let executed = self.progress.executed;
            let beyond = self.pool.holds_beyond(&pool::key_of(&entry), executed);
            self.vouched(now, (self.cfg.me, beyond.unwrap_or(executed)), entry);
        }
        self.announce(now.mono, frame);
        self.frame_changed(now, &pool::key_of(&entry), out);
        Ok(())
    }

    /// How far the group is, as far as this replica knows.
    pub(super) fn group_is_at(&self) -> Seq {
        let told = self.catchup.peers.believed().max(self.checkpoints.ahead());
        self.delivered.max(self.progress.executed).max(self.checkpoints.let_go_upto()).max(told)
    }

    /// `frame` was refused at `seq`. If it has come again, this replica vouches for it anew: what
    /// it said before that no longer counts.
    pub(super) fn refused_here(&mut self, now: Now, seq: Seq, frame: &Frame) {
        let entry = BatchEntry { id: frame.id(), digest: frame.digest() };
        let key = pool::key_of(&entry);
        let waits = self.pool.get(&key).is_some_and(|held| held.is_awaited() && !held.ordered);
        if waits {
            self.announce(now.mono, frame);
        }
        if waits && self.is_leader() {
            self.vouched(now, (self.cfg.me, seq), entry);
        } else if self.is_leader() {
            self.pool.queue_if_eligible(key, self.cfg.quorums.quorum());
        }
    }

    pub(super) fn on_vouch(
        &mut self,
        now: Now,
        from: (ReplicaId, Seq),
        entries: &[BatchEntry],
    ) -> Result<(), Reject> {
        // Others may begin a view earlier than its leader's pillar does.
        let leads_soon = self.views.asked.leader(self.cfg.quorums.n()) == self.cfg.me;
        if !self.is_leader() && !leads_soon {
            return Err(Reject::Stale("vouch to a replica that does not lead"));
        }
        let mut over = false;
        for entry in entries {
            over |= !self.vouched(now, from, *entry);
        }
        // Not a sin: faulty clients can make a correct backup vouch for what they send to it alone.
        if over { Err(Reject::Stale("vouches for too many unknown frames")) } else { Ok(()) }
    }

    /// `who` vouches for `entry`, having executed so far.
    fn vouched(&mut self, now: Now, (who, executed): (ReplicaId, Seq), entry: BatchEntry) -> bool {
        let (key, weak) = (pool::key_of(&entry), self.cfg.quorums.weak());
        let vouched = self.pool.vouch(now.mono, (who, Some(executed)), key, weak);
        match vouched {
            Vouched::Held if self.is_leader() => {
                self.pool.queue_if_eligible(key, self.cfg.quorums.quorum());
            }
            Vouched::Held => {}
            Vouched::Bodyless => self.catchup.waits_for_bodies(now.mono),
            Vouched::Late | Vouched::TooMany => {}
        }
        vouched != Vouched::TooMany
    }
}
