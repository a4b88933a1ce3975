//! Tries everything that can happen in a model, breadth first.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Debug;

/// Something with states in which several things can happen.
pub trait Model {
    /// A state. Equal states have equal futures, so each is looked at once.
    type State: Clone + Ord;
    /// Something that can happen.
    type Action: Clone + Debug;

    /// Where it begins.
    fn initial(&self) -> Self::State;

    /// Everything that can happen in a state, with what it leads to.
    ///
    /// # Errors
    /// When the state, or something on the way to the next ones, is wrong: says what.
    fn next(&self, state: &Self::State) -> Next<Self>;
}

/// What can happen in a state, or what is wrong with it.
pub type Next<M> = Result<Vec<(<M as Model>::Action, <M as Model>::State)>, String>;

/// What an exploration has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// Steps of the longest way that leads to a new state.
    pub depth: usize,
}

impl std::fmt::Display for Explored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Explored { states, steps, depth } = self;
        write!(f, "{states} states, {steps} steps, depth {depth}")
    }
}

/// Something that is wrong, and the shortest way to it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What.
    pub what: String,
    /// What happened, in order.
    pub way: Vec<String>,
}

/// Explores everything.
///
/// # Errors
/// The first violation: no other is reached in fewer steps.
///
/// # Panics
/// Beyond `states_max` states: the scope is larger than was meant.
pub fn explore<M: Model>(model: &M, states_max: usize) -> Result<Explored, Violation> {
    let first = model.initial();
    let mut seen = BTreeSet::from([first.clone()]);
    // How each state was reached: the index of the one before, and what happened there.
    let mut ways: Vec<(usize, Option<M::Action>)> = vec![(0, None)];
    let mut waiting = VecDeque::from([(0usize, 0usize, first)]);
    let mut explored = Explored { states: 1, ..Explored::default() };
    while let Some((index, depth, state)) = waiting.pop_front() {
        explored.depth = explored.depth.max(depth);
        let next = model.next(&state);
        let next = next.map_err(|what| Violation { what, way: way(&ways, index) })?;
        for (action, state) in next {
            explored.steps += 1;
            if !seen.insert(state.clone()) {
                continue;
            }
            assert!(seen.len() <= states_max, "more than {states_max} states");
            ways.push((index, Some(action)));
            waiting.push_back((ways.len() - 1, depth + 1, state));
        }
    }
    explored.states = seen.len();
    Ok(explored)
}

fn way<A: Debug>(ways: &[(usize, Option<A>)], mut index: usize) -> Vec<String> {
    let mut way = vec![];
    while let (before, Some(action)) = &ways[index] {
        way.push(format!("{action:?}"));
        index = *before;
    }
    way.reverse();
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters up to 3; together they must stay below `wrong`.
    struct Counters(u8);

    impl Model for Counters {
        type State = (u8, u8);
        type Action = char;

        fn initial(&self) -> (u8, u8) {
            (0, 0)
        }

        fn next(&self, (a, b): &(u8, u8)) -> Next<Counters> {
            if a + b >= self.0 {
                return Err(format!("{a} and {b}"));
            }
            let steps = [('a', (a + 1, *b)), ('b', (*a, b + 1))];
            Ok(steps.into_iter().filter(|(_, (a, b))| *a <= 3 && *b <= 3).collect())
        }
    }

    #[test]
    fn everything_is_seen_once_and_the_way_is_the_shortest() {
        let explored = explore(&Counters(7), 100).expect("is never reached");
        assert_eq!(explored, Explored { states: 16, steps: 24, depth: 6 });
        let violation = explore(&Counters(3), 100).expect_err("is reached");
        assert_eq!((violation.what.as_str(), violation.way.len()), ("3 and 0", 3));
    }
}
