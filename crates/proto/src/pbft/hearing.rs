//! When leaders were heard last: a proposal that was on its way while nothing was heard of its
//! leader is not late.

use alloc::vec;
use alloc::vec::Vec;

use base::{Now, ReplicaId, Seq, Span, Time};

use super::Lane;

/// When each replica was last heard in this view, and the last long silence before that, with the
/// highest number that may have been proposed in it.
#[derive(Clone, Debug)]
pub(super) struct Hearing {
    heard: Vec<Option<Time>>,
    silence: Vec<(Span, Seq)>,
}

impl Hearing {
    pub(super) fn new(n: u16) -> Hearing {
        let n = usize::from(n);
        Hearing { heard: vec![None; n], silence: vec![(Span(0), Seq(0)); n] }
    }

    /// Other leaders: how long nothing was heard of one counts from here.
    pub(super) fn begin_view(&mut self) {
        self.heard.fill(None);
    }
}

impl Lane {
    /// `from` is heard, and counts if it leads.
    pub(super) fn leader_speaks(&mut self, now: Now, from: ReplicaId) {
        if !self.views.roles.rotate() && from != self.leader(Seq(1)) {
            return;
        }
        let (next, high) = (self.next_undelivered(), self.high());
        let place = usize::from(from.0);
        let heard = self.catchup.hearing.heard[place].replace(now.mono);
        let silence = heard.map_or(Span(u64::MAX), |at| now.mono.since(at));
        // A shorter silence does not take the excuse from what is open since a longer one.
        let (longest, upto) = self.catchup.hearing.silence[place];
        if silence.0 > self.cfg.clock_skew_max.0 / 4 && (next > upto || silence >= longest) {
            self.catchup.hearing.silence[place] = (silence, high);
        }
    }

    /// For tests that are not about the beginning.
    #[cfg(test)]
    pub(super) fn hearing_forgets_the_first_silence(&mut self) {
        self.catchup.hearing.silence.fill((Span(0), Seq(0)));
    }

    /// How long nothing was heard of `leader` at a time when it may have proposed `seq`.
    pub(super) fn silence_before(&self, leader: ReplicaId, seq: Seq) -> Span {
        let (silence, upto) = self.catchup.hearing.silence[usize::from(leader.0)];
        if seq <= upto { silence } else { Span(0) }
    }
}
