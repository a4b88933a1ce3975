//! The third round: once the faults are over and the group has gone on, answers come soon, and to
//! one client as to another.
//!
//! What is asked right after the faults may wait for timers that have fallen back: that is what
//! the long patience of [`crate::scenario`] is for. Not here: what a group does when nobody asks
//! (`rest`).

use base::{Span, View};
use proto::pbft::Leaders;

use crate::clients::Client;
use crate::measures::Measure;
use crate::scenario::{LATEST, PATIENCE, finish, reach};
use crate::world::World;

/// Operations that every client asks.
const OPS: u64 = 10;
/// A client that is told nothing in full asks again after half of this at the latest (L9c). Whoever
/// relies on a replica beside the core pays that for some frames, and its neighbour, whose frames
/// have another designated replica, does not.
const ASKS_AGAIN: Span = Span::millis(100);
/// A faulty leader may leave a client's frames until the others endorse them, which they do when
/// this share of the view timeout has passed (L15).
const ENDORSED_SHARE: u64 = 4;
/// How many times longer than another client one may wait, beyond that.
const UNEVEN: u64 = 10;

impl World {
    /// Every client asks a little more, and has each answer in time.
    ///
    /// # Panics
    /// When one does not.
    pub(crate) fn third_round(&mut self) {
        let (bound, view) = (self.answers_within(), self.highest_view());
        self.clients.iter_mut().for_each(|client| client.waits.clear());
        self.ask_more(OPS);
        reach(self, PATIENCE, "clients have their last answers", World::clients_are_done);
        let waits = self.clients.iter().flat_map(|client| &client.waits);
        let longest = waits.map(|(span, _)| *span).max().unwrap_or_default();
        let medians = self.medians();
        self.note(|| format!("## the third round: {longest:?} at most, medians {medians:?}"));
        self.measures.note(Measure::Third, longest.0 / 1_000_000);
        self.measures.note(Measure::ThirdShare, 100 * longest.0 / bound.0);
        assert!(longest <= bound, "an answer takes {longest:?}: {}", self.describe());
        // Somebody beside the core may have been to lead, and what one client asks may come before
        // that as a whole, and another's into it.
        let calm = self.highest_view() == view;
        let ends = (medians.iter().max(), medians.iter().min());
        if let (true, Some(slow), Some(fast)) = (calm, ends.0, ends.1) {
            let fast = (*fast).max(ASKS_AGAIN).max(self.may_be_starved(View(view)));
            let uneven = 100 * slow.0 / fast.0;
            self.measures.note(Measure::Uneven, uneven);
            assert!(uneven <= 100 * UNEVEN, "one client waits for longer: {medians:?}");
        }
        finish(self, LATEST);
    }

    /// For how long whoever leads in `view` may leave one client's frames and nobody else's.
    fn may_be_starved(&self, view: View) -> Span {
        let (faulty, options) = (self.adversary.faulty(), &self.options);
        let led = match options.leaders {
            Leaders::Fixed => faulty.contains(&view.leader(options.n)),
            Leaders::Rotating => !faulty.is_empty(),
        };
        Span(u64::from(led) * options.view_timeout.0 / ENDORSED_SHARE)
    }

    /// The median wait of every client for what was ordered. Reads without an order are faster.
    fn medians(&self) -> Vec<Span> {
        let median = |client: &Client| {
            let ordered = client.waits.iter().filter(|(_, ordered)| *ordered);
            let mut spans: Vec<Span> = ordered.map(|(span, _)| *span).collect();
            spans.sort_unstable();
            spans.get(spans.len() / 2).copied()
        };
        self.clients.iter().filter_map(median).collect()
    }

    /// How long an answer may take when nothing new breaks and no timer has fallen back: two view
    /// timeouts for every replica that may lead and does not, two for the views around them, and
    /// what was lost and is said again. The slowest of 900 seeds took 57 % of it: two dead leaders
    /// in a row, which is T until the first is left, T for the NEW-VIEW of the next and 2T for the
    /// one behind it.
    fn answers_within(&self) -> Span {
        let others = u64::from(self.options.n) - self.correct().len() as u64;
        let views = (2 * others + 2) * self.options.view_timeout.0;
        Span(views + 40 * Span::millis(20).0)
    }
}
