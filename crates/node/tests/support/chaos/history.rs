//! What clients saw of keys that they share, and whether one copy of the data can have shown it
//! to them: linearizability, checked per key.
//!
//! The search is that of Wing and Gong with Lowe's memory of what was tried: an operation may
//! take effect at any moment between its call and its reply; one whose reply never came, at any
//! later moment or not at all.
//!
//! Invariants: written values are unique per key, which the load sees to; a history that cannot
//! be decided within [`STEPS_MAX`] is an error and never taken for a good one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Mutex;

/// States tried per key before giving up.
const STEPS_MAX: usize = 4_000_000;

/// What was done to a key, and what was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// `SET key value`.
    Write(u64),
    /// `GET key`.
    Read(Option<u64>),
    /// `GETSET key new`.
    Swap { new: u64, old: Option<u64> },
    /// `INCR key`; the result is not known when there was no reply.
    Add(Option<u64>),
}

impl Op {
    /// The value of the key afterwards; `None` when the answer contradicts the value before.
    fn apply(self, before: Option<u64>) -> Option<Option<u64>> {
        match self {
            Op::Write(value) => Some(Some(value)),
            Op::Read(seen) => (seen == before).then_some(before),
            Op::Swap { new, old } => (old == before).then_some(Some(new)),
            Op::Add(result) => {
                let after = before.unwrap_or(0) + 1;
                result.is_none_or(|result| result == after).then_some(Some(after))
            }
        }
    }
}

/// One operation of one client: from its call to its reply, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub op: Op,
    pub call: u64,
    /// `None` when there was no reply, or an error that leaves open what happened.
    pub reply: Option<u64>,
}

/// The operations of all clients, per key.
#[derive(Default)]
pub struct History(Mutex<BTreeMap<String, Vec<Event>>>);

impl History {
    pub fn note(&self, key: &str, event: Event) {
        let mut keys = self.0.lock().expect("nobody panics with it");
        match keys.get_mut(key) {
            Some(events) => events.push(event),
            None => drop(keys.insert(key.to_owned(), vec![event])),
        }
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.0.lock().expect("nobody panics with it").values().map(Vec::len).sum()
    }

    /// Checks every key.
    ///
    /// # Errors
    /// Names the keys whose history no single copy of the data explains.
    pub fn check(&self) -> Result<(), String> {
        let keys = self.0.lock().expect("nobody panics with it");
        let bad = |(key, events): (&String, &Vec<Event>)| {
            check(events).err().map(|why| format!("{key}: {why}"))
        };
        let bad: Vec<String> = keys.iter().filter_map(bad).collect();
        if bad.is_empty() { Ok(()) } else { Err(bad.join("\n")) }
    }
}

/// Checks the history of one key, which begins without a value.
///
/// # Errors
/// When nothing explains it, with the operations around the first one that cannot be explained.
pub fn check(events: &[Event]) -> Result<(), String> {
    let events = relevant(events);
    let mut search = Search::new(&events);
    match search.run() {
        Some(true) => Ok(()),
        Some(false) => Err(format!("not linearizable: {}", search.around())),
        None => Err(format!("undecided after {STEPS_MAX} steps, {} operations", events.len())),
    }
}

/// Without the writes that got no reply and that nobody ever saw: they may not have happened.
fn relevant(events: &[Event]) -> Vec<Event> {
    let seen: BTreeSet<u64> = events
        .iter()
        .filter_map(|event| match event.op {
            Op::Read(value) | Op::Swap { old: value, .. } => value,
            _ => None,
        })
        .collect();
    let mut kept: Vec<Event> = events
        .iter()
        .filter(|event| match (event.op, event.reply) {
            (Op::Write(value), None) => seen.contains(&value),
            (Op::Read(_), None) => false,
            _ => true,
        })
        .copied()
        .collect();
    kept.sort_by_key(|event| (event.call, event.reply.unwrap_or(u64::MAX)));
    kept
}

/// A call or a reply in the order of time, in a list from which operations are taken out and put
/// back.
#[derive(Clone, Copy)]
struct Entry {
    event: usize,
    is_call: bool,
    before: usize,
    after: usize,
}

struct Search<'a> {
    events: &'a [Event],
    /// Entry 0 is the head.
    entries: Vec<Entry>,
    /// Of each event: the entries of its call and its reply.
    places: Vec<(usize, usize)>,
    done: Vec<u64>,
    state: Option<u64>,
    tried: HashSet<(Vec<u64>, Option<u64>)>,
    /// The most that could be explained, and what it ended with.
    deepest: (usize, usize),
}

impl<'a> Search<'a> {
    fn new(events: &'a [Event]) -> Search<'a> {
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * events.len());
        for (at, event) in events.iter().enumerate() {
            moments.push((event.call, false, at));
            moments.push((event.reply.unwrap_or(u64::MAX), true, at));
        }
        // Calls first where the clock cannot tell: that only allows more.
        moments.sort_unstable();
        let mut entries = vec![Entry { event: usize::MAX, is_call: false, before: 0, after: 1 }];
        let mut places = vec![(0, 0); events.len()];
        for (at, (_, is_reply, event)) in moments.iter().enumerate() {
            let here = at + 1;
            entries.push(Entry { event: *event, is_call: !is_reply, before: at, after: here + 1 });
            let place = &mut places[*event];
            if *is_reply { place.1 = here } else { place.0 = here }
        }
        let done = vec![0; events.len().div_ceil(64)];
        let (state, tried, deepest) = (None, HashSet::new(), (0, 0));
        Search { events, entries, places, done, state, tried, deepest }
    }

    fn unlink(&mut self, at: usize) {
        let Entry { before, after, .. } = self.entries[at];
        self.entries[before].after = after;
        if let Some(entry) = self.entries.get_mut(after) {
            entry.before = before;
        }
    }

    fn relink(&mut self, at: usize) {
        let Entry { before, after, .. } = self.entries[at];
        self.entries[before].after = at;
        if let Some(entry) = self.entries.get_mut(after) {
            entry.before = at;
        }
    }

    /// Whether the history is explained; `None` when that took too long to find out.
    fn run(&mut self) -> Option<bool> {
        let mut open = self.events.iter().filter(|event| event.reply.is_some()).count();
        let mut stack: Vec<(usize, Option<u64>)> = Vec::new();
        let mut at = self.entries[0].after;
        while open > 0 {
            let Entry { event, is_call, after, .. } = self.entries[at];
            if is_call {
                if self.take(event, &mut stack) {
                    open -= usize::from(self.events[event].reply.is_some());
                    at = self.entries[0].after;
                } else {
                    at = after;
                }
                if self.tried.len() > STEPS_MAX {
                    return None;
                }
                continue;
            }
            // A reply of something that has not happened yet: another order has to be found.
            if stack.len() >= self.deepest.0 {
                self.deepest = (stack.len(), event);
            }
            let Some((last, state)) = stack.pop() else { return Some(false) };
            self.state = state;
            self.done[last / 64] &= !(1 << (last % 64));
            let (call, reply) = self.places[last];
            self.relink(reply);
            self.relink(call);
            open += usize::from(self.events[last].reply.is_some());
            at = self.entries[call].after;
        }
        Some(true)
    }

    /// Lets `event` take effect now, if its answer allows it and this was not tried before.
    fn take(&mut self, event: usize, stack: &mut Vec<(usize, Option<u64>)>) -> bool {
        let Some(state) = self.events[event].op.apply(self.state) else { return false };
        self.done[event / 64] |= 1 << (event % 64);
        if !self.tried.insert((self.done.clone(), state)) {
            self.done[event / 64] &= !(1 << (event % 64));
            return false;
        }
        stack.push((event, self.state));
        self.state = state;
        let (call, reply) = self.places[event];
        self.unlink(call);
        self.unlink(reply);
        true
    }

    /// The operations around the one that stopped the best attempt.
    fn around(&self) -> String {
        let at = self.deepest.1;
        let shown = &self.events[at.saturating_sub(6)..self.events.len().min(at + 3)];
        format!("stuck at {:?} among {shown:?}", self.events[at])
    }
}
