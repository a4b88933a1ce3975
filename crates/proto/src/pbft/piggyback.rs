//! Piggy-backed COMMITs: they wait a moment for a PRE-PREPARE or PREPARE of a later number, which
//! goes to the same peers anyway (BFT library, "Piggybacking commits").
//!
//! All that leaves a lane in one turn shares a packet per peer, so a COMMIT that waits for the
//! next of those costs no packet of its own: no seal, no system call, and nobody is woken for it.
//! What it costs is time: without tentative execution a reply waits for COMMITs. So one waits only
//! while there is something to wait for:
//!
//! - some frame here is not proposed yet, or replies are tentative;
//! - the leader has room to propose: else it may be these very COMMITs that the next proposal
//!   waits for, here and at everybody else;
//! - never longer than [`HOLD`];
//! - not while it was of no use of late: a client that shows a frame to some replicas only, or a
//!   leader that does not propose, costs a moment now and then and not one with each number.
//!
//! A COMMIT that waits is promised: its record is on its way, the replica counts it, and a slice
//! names it. So it may leave as long as the view lasts, and is sent before a slice is taken; in
//! another view it would be a vote of a view that was left. After a restart it is one of the
//! votes that were lost.

use alloc::vec::Vec;

use base::{Seq, Span, Time, View};

use super::Lane;
use super::msg::{Message, Vote};
use crate::outbox::Outbox;

/// When COMMITs leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Commits {
    /// At once.
    #[default]
    Prompt,
    /// With the next message to everybody, if one is to be expected.
    Piggybacked,
}

/// How long a COMMIT waits at most.
const HOLD: Span = Span::millis(1);
/// So many COMMITs leave at once after one has waited in vain; twice as many each time, so often.
const AT_ONCE: u32 = 32;
const DOUBLINGS_MAX: u32 = 5;

/// The COMMITs that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Piggyback {
    held: Vec<Vote>,
    /// Since when the first of them does.
    since: Time,
    /// A message goes to everybody in this turn.
    carries: bool,
    /// COMMITs that leave at once, and how often in a row they waited in vain.
    at_once: u32,
    vain: u32,
}

impl Piggyback {
    /// A message goes to everybody in this turn.
    pub(super) fn carry(&mut self) {
        self.carries = true;
    }

    /// When they leave at the latest.
    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.held.is_empty()).then(|| self.since.after(HOLD))
    }

    /// The view is over.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }

    fn hold(&mut self, now: Time, vote: Vote) {
        if self.held.is_empty() {
            self.since = now;
        }
        self.held.push(vote);
    }

    fn waited_in_vain(&mut self) {
        self.at_once = AT_ONCE << self.vain.min(DOUBLINGS_MAX);
        self.vain = self.vain.saturating_add(1);
    }

    pub(super) fn check(&self, view: View) {
        assert!(self.held.iter().all(|vote| vote.view == view), "votes of a view that is over");
    }
}

impl Lane {
    /// Sends COMMIT, now or with something else.
    pub(super) fn send_commit(&mut self, now: Time, vote: Vote, out: &mut Outbox) {
        match self.cfg.switches.commits {
            Commits::Prompt => self.promise_all(Message::Commit(vote), out),
            Commits::Piggybacked => self.leaving.commits.hold(now, vote),
        }
    }

    /// Ends a turn: sends the COMMITs that wait, unless it is better that they go on waiting.
    pub(super) fn release_commits(&mut self, now: Time, out: &mut Outbox) {
        let carried = core::mem::take(&mut self.leaving.commits.carries);
        let Some(deadline) = self.leaving.commits.deadline() else { return };
        if carried {
            self.leaving.commits.vain = 0;
        } else if now >= deadline {
            self.leaving.commits.waited_in_vain();
        } else if self.leaving.commits.at_once == 0 && self.expects_proposal() {
            return;
        }
        let sent = u32::try_from(self.leaving.commits.held.len()).unwrap_or(u32::MAX);
        if now < deadline {
            self.leaving.commits.at_once = self.leaving.commits.at_once.saturating_sub(sent);
        }
        self.release_all_commits(out);
    }

    /// Sends all COMMITs that wait and may be of use.
    pub(super) fn release_all_commits(&mut self, out: &mut Outbox) {
        let low = self.low();
        let held = core::mem::take(&mut self.leaving.commits.held);
        for vote in held.into_iter().filter(|vote| vote.seq > low) {
            self.promise_all(Message::Commit(vote), out);
        }
    }

    /// Whether a proposal of a later number is to be expected, whose leader does not wait for the
    /// numbers that are under way: frames wait for one, or clients, who have tentative replies
    /// already and wait for no COMMIT, are about to ask for more.
    fn expects_proposal(&self) -> bool {
        let comes = self.cfg.switches.tentative || self.pool.has_unordered();
        comes && self.under_way() < self.cfg.batching.in_flight_max as u64
    }

    /// Instances of one leader that are proposed and not executed, as far as is known here.
    fn under_way(&self) -> u64 {
        let executed = self.progress.executed;
        let top = self.log.highest_touched().unwrap_or(Seq(0)).0;
        let apart = u64::from(self.cfg.stripe.pillars()) * self.views.roles.count(executed).max(1);
        top.saturating_sub(executed.0).div_ceil(apart)
    }
}
