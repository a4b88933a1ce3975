//! What adversaries did, counted.

use super::Adversary;
use super::mutate::{Mutator, Table};
use crate::world::World;

/// What adversaries did so far.
#[derive(Clone, Debug, Default)]
pub struct Deeds {
    /// Rounds of Twins that were played.
    pub twin_rounds: u64,
    /// Messages of replicas that have a copy, and of the copies.
    pub twin_messages: u64,
    /// How often the mutator changed each field of each message.
    pub mutations: Table,
    /// Changed messages that no decoder lets pass, of those.
    pub unreadable: u64,
}

impl Deeds {
    /// Messages that were changed.
    #[must_use]
    pub fn mutated(&self) -> u64 {
        self.mutations.values().sum()
    }

    /// The field that was changed least often.
    #[must_use]
    pub fn rarest(&self) -> Option<(String, u64)> {
        let ((kind, field), count) = self.mutations.iter().min_by_key(|(_, count)| **count)?;
        Some((format!("{field} of {}", kind.name()), *count))
    }

    /// One line for people; empty when nothing was done.
    #[must_use]
    pub fn describe(&self) -> String {
        let Deeds { twin_rounds, twin_messages, mutations, unreadable } = self;
        let mut text = Vec::new();
        if let Some((field, count)) = self.rarest() {
            text.push(format!(
                "{} mutations of {} fields ({unreadable} refused by decoders; fewest: {count}, {field})",
                self.mutated(),
                mutations.len()
            ));
        }
        if *twin_rounds > 0 {
            text.push(format!("{twin_rounds} rounds of Twins ({twin_messages} messages of twins)"));
        }
        text.join(", ")
    }

    /// Adds what was done elsewhere.
    pub(crate) fn add(&mut self, other: &Deeds) {
        let Deeds { twin_rounds, twin_messages, mutations, unreadable } = other;
        self.twin_rounds += twin_rounds;
        self.twin_messages += twin_messages;
        self.unreadable += unreadable;
        for (field, count) in mutations {
            *self.mutations.entry(*field).or_default() += count;
        }
    }
}

impl Adversary {
    /// What was done so far.
    fn deeds(&self) -> Deeds {
        let Mutator { table, unreadable, .. } = &self.mutator;
        let (mutations, unreadable) = (table.clone(), *unreadable);
        Deeds { mutations, unreadable, ..self.counts.clone() }
    }
}

impl World {
    /// What adversaries did so far.
    #[must_use]
    pub fn deeds(&self) -> Deeds {
        self.adversary.deeds()
    }
}
