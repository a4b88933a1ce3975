//! Who may watch a path: what the footprint of a write needs to know before it executes.
//!
//! A write tells sessions that watch its path, so it touches them; which ones these are depends
//! on the state at its place in the total order. Two things together over-approximate that: the
//! watches that are set at the moment, and those that operations may set that were taken into the
//! parallelizer before it and are not done. The latter are *armed* when the footprint of such an
//! operation is asked for, which happens in the total order, and disarmed once it is done. A
//! watch that was taken away since, by an operation that comes later, is none of the concern of
//! that footprint: it was counted when the footprint was asked for.
//!
//! Paths are told apart by the hash of their stem, since the names of sequential nodes are not
//! known before they are made. More sessions than there are cost parallelism, no more.

use std::collections::BTreeMap;

/// Who may watch the paths of some nodes, by the hash of their stems.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    any: BTreeMap<u64, Vec<Watcher>>,
    /// Those that watch everything below as well.
    deep: BTreeMap<u64, Vec<Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    session: u64,
    /// Paths that it watches.
    set: u32,
    /// Operations on their way that may make it watch one.
    armed: u32,
}

/// Which watches are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// All of them.
    Any,
    /// Recursive ones.
    Deep,
}

impl Watchers {
    /// One path more, or one less, is watched by a session.
    pub(super) fn set(&mut self, key: u64, session: u64, reach: Reach, is: bool) {
        self.change(key, session, reach, |watcher| {
            watcher.set = if is { watcher.set + 1 } else { watcher.set - 1 };
        });
    }

    /// An operation that may set a watch is on its way, or done. True when it was known.
    pub(super) fn arm(&mut self, key: u64, session: u64, reach: Reach, is: bool) -> bool {
        let mut known = is;
        self.change(key, session, reach, |watcher| {
            known |= watcher.armed > 0;
            watcher.armed = if is { watcher.armed + 1 } else { watcher.armed.saturating_sub(1) };
        });
        known
    }

    /// Nothing is on its way; how much was.
    pub(super) fn disarm_all(&mut self) -> [u64; 2] {
        [&mut self.any, &mut self.deep].map(|table| {
            let mut armed = 0;
            table.retain(|_, watchers| {
                for watcher in watchers.iter_mut() {
                    armed += u64::from(std::mem::take(&mut watcher.armed));
                }
                watchers.retain(|watcher| watcher.set > 0);
                !watchers.is_empty()
            });
            armed
        })
    }

    /// The sessions that may watch paths of that stem.
    pub(super) fn sessions(&self, key: u64, reach: Reach) -> impl Iterator<Item = u64> {
        let table = if reach == Reach::Any { &self.any } else { &self.deep };
        table.get(&key).into_iter().flatten().map(|watcher| watcher.session)
    }

    fn change(&mut self, key: u64, session: u64, reach: Reach, act: impl FnOnce(&mut Watcher)) {
        let table = if reach == Reach::Any { &mut self.any } else { &mut self.deep };
        let watchers = table.entry(key).or_default();
        let at = watchers.binary_search_by_key(&session, |watcher| watcher.session);
        let at = at.unwrap_or_else(|at| {
            watchers.insert(at, Watcher { session, set: 0, armed: 0 });
            at
        });
        let watcher = &mut watchers[at];
        act(watcher);
        if watcher.set == 0 && watcher.armed == 0 {
            watchers.remove(at);
        }
        if watchers.is_empty() {
            table.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(watchers: &Watchers, key: u64, reach: Reach) -> Vec<u64> {
        watchers.sessions(key, reach).collect()
    }

    #[test]
    fn who_watches_or_may_come_to_watch_is_known() {
        let mut watchers = Watchers::default();
        assert!(watchers.arm(1, 7, Reach::Any, true));
        watchers.set(1, 7, Reach::Any, true);
        watchers.set(1, 5, Reach::Any, true);
        watchers.set(1, 5, Reach::Any, true);
        assert_eq!(of(&watchers, 1, Reach::Any), [5, 7]);
        assert!(watchers.arm(1, 7, Reach::Any, false));
        assert!(!watchers.arm(1, 7, Reach::Any, false), "it was not on its way");
        watchers.set(1, 5, Reach::Any, false);
        assert_eq!(of(&watchers, 1, Reach::Any), [5, 7], "each watches one");
        watchers.set(1, 5, Reach::Any, false);
        watchers.set(1, 7, Reach::Any, false);
        assert_eq!((of(&watchers, 1, Reach::Any).len(), watchers.any.len()), (0, 0));
    }

    #[test]
    fn what_was_given_up_is_forgotten_and_what_is_set_stays() {
        let mut watchers = Watchers::default();
        watchers.arm(1, 7, Reach::Deep, true);
        watchers.arm(1, 7, Reach::Any, true);
        watchers.arm(2, 7, Reach::Any, true);
        watchers.set(2, 7, Reach::Any, true);
        assert_eq!(watchers.disarm_all(), [2, 1]);
        assert_eq!(of(&watchers, 1, Reach::Deep), [0; 0]);
        assert_eq!(
            (of(&watchers, 1, Reach::Any).len(), of(&watchers, 2, Reach::Any)),
            (0, vec![7])
        );
    }
}
