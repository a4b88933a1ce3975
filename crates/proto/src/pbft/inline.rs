//! Inline request transmission: small frames travel with the proposals that name them
//! (BFT library, figure 7, "BFT-NO-SRT").
//!
//! A client signs its frames and shows a small one to the leader alone. The leader looks at the
//! signature and proposes the frame without anybody's vouch; the body follows the proposal, in
//! the same packet. A backup looks at the signature, too, before it accepts. So a hop is saved,
//! and a signature that convinces everybody takes the place of the vouches (design, decision 4):
//! a frame that some replicas would refuse, which a client could make with MACs, all refuse.
//!
//! What that asks for:
//!
//! - *The leader proposes nothing that it has not checked.* Then a body with a forged signature
//!   is its own fault, never a client's, and every backup sees that by itself.
//! - *Nobody depends on one client's view.* A backup that is shown a frame, since the client
//!   takes it for the leader or has waited in vain, forwards it whole, after a moment in which a
//!   proposal may name it. What waited for the last leader is forwarded to the next.
//! - *Large frames are sent separately*, to all and on a quorum's vouches, as without this: the
//!   leader's links would carry each of them n - 1 times, and a few clients could make it late.
//!
//! Not here: whose frame waits for how long (`grieve`, `endorse`): clients that wait in vain show
//! their frames to all, and from then on the leader is watched over them.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use base::{Authenticator, Batch, Frame, Now, ReplicaId, Seq, Span, Time, limits};

use super::msg::Message;
use super::pool::Key;
use super::{Lane, Reject};
use crate::group::link::Grievance;
use crate::outbox::{Outbox, Target};

/// How the bodies of frames get to the replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bodies {
    /// From the client to all of them; proposals name frames.
    #[default]
    Separate,
    /// From the client to the leader, and from there with the proposal, while they are small.
    Inline,
}

/// So long a frame that was shown to a backup waits there for a proposal that names it.
const PATIENCE: Span = Span::millis(5);
/// Frames that wait to be forwarded: beyond it the client has to show them again.
const FORWARDS_MAX: usize = 4096;
/// Bytes of frames that are forwarded at a time.
const FORWARD_BYTES_MAX: usize = 1 << 20;
/// What checking a forwarded frame costs the sender's share beside its bytes.
const FORWARD_COST_BYTES: usize = 8 << 10;

/// Frames that are forwarded unless they are ordered first.
#[derive(Clone, Debug, Default)]
pub(super) struct Forwards(VecDeque<(Time, Key)>);

impl Forwards {
    /// `key` is forwarded after a moment.
    pub(super) fn plan(&mut self, now: Time, key: Key) {
        if self.0.len() < FORWARDS_MAX {
            self.0.push_back((now.after(PATIENCE), key));
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.0.front().map(|(at, _)| *at)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn check(&self) {
        assert!(self.0.len() <= FORWARDS_MAX && self.0.iter().is_sorted_by_key(|(at, _)| *at));
    }
}

impl Lane {
    /// Whether bodies travel with proposals here, small ones.
    pub(super) fn inline(&self) -> bool {
        self.cfg.switches.bodies == Bodies::Inline
    }

    /// Whether `frame` is its client's, as far as this replica can tell. Where others have to be
    /// able to tell, too, nothing but a signature counts.
    pub(super) fn is_genuine(&self, frame: &Frame) -> bool {
        let signed = matches!(frame.authenticator(), Authenticator::Signature(_));
        (signed || !self.inline())
            && self.keys.check(frame.id().client, frame.digest(), frame.authenticator())
    }

    /// Looks at the signature of a frame that a client shows, unless that was done before.
    pub(super) fn check_shown(&self, now: Time, frame: &Frame) -> Result<(), Reject> {
        let known = || self.pool.needs_no_check(now, &(frame.id(), frame.digest()));
        match self.inline() && !base::mutant!(LeaderProposesUnchecked) {
            true if !known() && !self.is_genuine(frame) => Err(Reject::Forged),
            _ => Ok(()),
        }
    }

    /// Lets the bodies of the batch at `seq` follow its proposal.
    pub(super) fn send_bodies(&mut self, seq: Seq, out: &mut Outbox) {
        let batch = self.log.get(seq).and_then(|slot| slot.batch.as_deref());
        let (true, Some(Batch::Frames { frames, .. })) = (self.inline(), batch) else { return };
        for frame in frames.iter().filter(|frame| frame.is_small()) {
            // Behind the proposal, wherever that waits for its record: nobody would look at
            // bodies that no proposal names.
            let frame = Arc::clone(frame);
            out.promise(Target::All, Message::Body { vouched: true, frame });
        }
    }

    /// Forwards what was shown to this replica and is not ordered.
    pub(super) fn forward(&mut self, now: Time, out: &mut Outbox) {
        let leader = self.leader(Seq(1));
        while self.leaving.forwards.deadline().is_some_and(|at| at <= now) {
            let Some((_, key)) = self.leaving.forwards.0.pop_front() else { break };
            let waits = self.pool.get(&key).filter(|held| held.is_awaited() && !held.ordered);
            let frame = waits.and_then(|held| held.frame.clone());
            if let Some(frame) = frame.filter(|_| self.is_active() && leader != self.cfg.me) {
                out.send(Target::One(leader), Message::Forward(frame));
            }
        }
    }

    /// A view begins: its leader may know nothing of what waits here.
    pub(super) fn forward_again(&mut self, out: &mut Outbox) {
        self.leaving.forwards.clear();
        let leader = self.leader(Seq(1));
        if self.inline() && leader != self.cfg.me {
            for frame in self.pool.waiting(FORWARD_BYTES_MAX) {
                out.send(Target::One(leader), Message::Forward(frame));
            }
        }
    }

    /// The leader has let a body follow its proposal that is not its client's: it has looked at
    /// that signature, or should have, so no client is to blame.
    pub(super) fn look_for_forgery(
        &mut self,
        now: Time,
        (from, frame): (ReplicaId, &Frame),
        forged: bool,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if !forged || !self.inline() || !frame.is_small() || from != self.leader(Seq(1)) {
            return Ok(());
        }
        self.aggrieved(now, (Grievance::Forges, from), out);
        Err(Reject::Misbehaviour("proposed a frame that its client has not signed"))
    }

    /// A backup was shown this frame by its client.
    pub(super) fn on_forward(
        &mut self,
        now: Now,
        from: ReplicaId,
        frame: &Arc<Frame>,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        if !self.inline() || !frame.is_small() {
            return Err(Reject::Misbehaviour("forwarded a frame that is sent separately"));
        }
        // Others may begin a view earlier than its leader's pillar does.
        let leads_soon = self.views.asked.leader(self.cfg.quorums.n()) == self.cfg.me;
        if !self.is_leader() && !leads_soon {
            return Err(Reject::Stale("forwarded to a replica that does not lead"));
        }
        let key = (frame.id(), frame.digest());
        if self.pool.has_checked(&key) {
            return Err(Reject::Stale("forwarded frame that is known"));
        }
        if !self.catchup.peers.may_serve(from, now.mono) {
            return Err(Reject::Stale("forwarded frames faster than they are checked"));
        }
        let cost = FORWARD_COST_BYTES + frame.encoded_len();
        self.catchup.peers.served(from, now.mono, cost);
        if !self.is_genuine(frame) {
            return Err(Reject::Misbehaviour("forwarded a forged frame"));
        }
        // A liar may forward for ever what was refused once; and a client may have others do so,
        // who must not be heard less for it in anything else.
        if self.pool.was_decided(&key) && !self.catchup.peers.may_order_again(from, now.mono) {
            return Err(Reject::Stale("forwarded too often what was decided"));
        }
        if !self.pool.forwarded(now.mono, frame) {
            return Err(Reject::Stale("forwarded frame beyond its client's quota"));
        }
        self.grievances.frame_waits(now.mono, self.cfg.view_timeout);
        if self.is_leader() {
            self.pool.queue_if_eligible(key, self.cfg.quorums.quorum());
        }
        self.frame_changed(now, &key, out);
        Ok(())
    }
}

const _: () = assert!(limits::INLINE_BYTES_MAX < FORWARD_BYTES_MAX);
