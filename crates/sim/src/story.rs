//! What happened, for people: faults, views, recoveries and lies in full, and the last messages.

use std::collections::VecDeque;

use base::{Seq, Time};

use crate::coverage::Sight;
use crate::outcome::Outcome;
use crate::world::World;

/// Lines about faults and what came of them.
const LINES_MAX: usize = 2_000;
/// The last messages, which explain most.
const MESSAGES_MAX: usize = 80;

/// A story while it happens.
#[derive(Debug, Default)]
pub(crate) struct Story {
    lines: Vec<String>,
    omitted: usize,
    messages: VecDeque<String>,
    /// The last stable checkpoint that has a line: about one a window.
    pub(crate) stable: Seq,
}

impl Story {
    fn note(&mut self, at: Time, what: &str) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(format!("{} {what}", clock(at)));
        } else {
            self.omitted += 1;
        }
    }

    fn message(&mut self, at: Time, what: &str) {
        if self.messages.len() == MESSAGES_MAX {
            self.messages.pop_front();
        }
        self.messages.push_back(format!("{} {what}", clock(at)));
    }

    fn tell(self) -> Vec<String> {
        let mut lines = self.lines;
        if self.omitted > 0 {
            lines.push(format!("and {} more like these", self.omitted));
        }
        lines.push("the last messages:".into());
        lines.extend(self.messages);
        lines
    }
}

/// Virtual time in seconds, so that columns align.
fn clock(at: Time) -> String {
    format!("{:>12.6}", at.0 as f64 / 1e9)
}

impl World {
    /// Writes down what happens now, if there is a story.
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.queue.now();
        if let Some(story) = &mut self.story {
            story.note(now, &what());
        }
    }

    /// Writes down a message that arrives now, if there is a story.
    pub(crate) fn note_message(&mut self, what: impl FnOnce() -> String) {
        let now = self.queue.now();
        if let Some(story) = &mut self.story {
            story.message(now, &what());
        }
    }

    pub(crate) fn saw(&mut self, sight: Sight) {
        self.coverage.saw(sight);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let story = self.story.take().map(Story::tell).unwrap_or_default();
        crate::outcome::hand_in(Outcome {
            trace: self.queue.trace(),
            events: self.queue.popped(),
            deeds: self.deeds(),
            coverage: self.coverage.clone(),
            measures: self.measures,
            story,
        });
    }
}
