//! How slow the ends of runs are, and how much a group does at rest: the largest figure of each.
//!
//! What is allowed of them stands where it is asserted; this is what that is calibrated by, and
//! what shows a run that is slow for a reason nobody knows before it is slow enough to fail.

use std::fmt;

macro_rules! measures {
    ($($name:ident = $unit:literal, $text:literal,)*) => {
        /// Something that is measured in a run.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[allow(missing_docs, reason = "their texts say what they are")]
        pub enum Measure { $($name,)* }

        /// All of them, with their units and what they are.
        pub const MEASURES: &[(Measure, &str, &str)] = &[$((Measure::$name, $unit, $text),)*];
    };
}

measures! {
    Answers = "ms", "until clients had what they asked when the faults ended",
    Answer = "ms", "that one of them had waited for one answer, in tenths of a second",
    Stand = "ms", "until that was executed for good",
    Laggards = "ms", "until replicas were as far as each other",
    Forgotten = "ms", "until spent frames were forgotten",
    Third = "ms", "the longest wait for an answer once all that was over",
    ThirdShare = "%", "of what such an answer may take",
    Uneven = "%", "the slowest client's median wait of the fastest one's, of 100 ms, or of what a faulty leader may take",
    RestTurns = "", "turns of a lane, per other replica, in ten seconds of rest",
    RestMessages = "", "messages of a lane to a replica in ten seconds of rest",
    RestBytes = "B", "bytes of a lane to a replica in ten seconds of rest",
    RestShare = "%", "of what a replica may do in ten seconds of rest",
    RestViews = "", "views begun in ten seconds of rest",
}

/// The largest figures of a run.
#[derive(Clone, Copy, Debug)]
pub struct Measures([Option<u64>; MEASURES.len()]);

impl Default for Measures {
    fn default() -> Measures {
        Measures([None; MEASURES.len()])
    }
}

impl Measures {
    /// One more figure.
    pub fn note(&mut self, measure: Measure, value: u64) {
        let slot = &mut self.0[measure as usize];
        *slot = (*slot).max(Some(value));
    }

    /// The figures of another world of the same run, too.
    pub fn add(&mut self, other: &Measures) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(theirs);
        }
    }

    /// The largest figure, if there was one.
    #[must_use]
    pub fn largest(&self, measure: Measure) -> Option<u64> {
        self.0[measure as usize]
    }
}

/// Runs that are remembered for each measure.
const WORST: usize = 3;

/// The seeds with the largest figures, the largest first.
#[derive(Clone, Debug, Default)]
pub struct Worst([Vec<(u64, u64)>; MEASURES.len()]);

impl Worst {
    /// What a run with `seed` measured.
    pub fn add(&mut self, seed: u64, measures: &Measures) {
        for (worst, value) in self.0.iter_mut().zip(measures.0) {
            let Some(value) = value else { continue };
            let at = worst.partition_point(|known| *known >= (value, seed));
            worst.insert(at, (value, seed));
            worst.truncate(WORST);
        }
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (measure, unit, text) in MEASURES {
            let worst = &self.0[*measure as usize];
            if worst.is_empty() {
                continue;
            }
            let one = |(value, seed): &(u64, u64)| format!("{value}{unit} ({seed})");
            let worst: Vec<String> = worst.iter().map(one).collect();
            writeln!(f, "worst: {}: {text}", worst.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_seeds_come_first_and_no_others() {
        let mut worst = Worst::default();
        for seed in 0..10 {
            let mut measures = Measures::default();
            measures.note(Measure::Third, seed * 7 % 10);
            measures.note(Measure::Third, 1);
            worst.add(seed, &measures);
        }
        assert_eq!(worst.0[Measure::Third as usize], [(9, 7), (8, 4), (7, 1)]);
        assert!(worst.0[Measure::Answers as usize].is_empty());
    }
}
