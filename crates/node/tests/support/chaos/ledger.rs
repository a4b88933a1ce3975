//! The books of everything that was acknowledged: none of it may be gone in the end.
//!
//! Three kinds of writes, each with keys of its own: registers with one writer and ascending
//! values, counters that are only incremented, lists that are only appended to. What was sent
//! and never acknowledged may be there, once, or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// How the books are compared with what is there.
pub trait Reader {
    /// `GET key`.
    fn get(&mut self, key: &str) -> Option<u64>;
    /// `LRANGE key 0 -1`.
    fn list(&mut self, key: &str) -> Vec<u64>;
}

#[derive(Default)]
struct Register {
    acknowledged: Option<u64>,
    open: BTreeSet<u64>,
}

#[derive(Default)]
struct Counter {
    acknowledged: u64,
    open: u64,
}

#[derive(Default)]
struct List {
    acknowledged: Vec<u64>,
    open: BTreeSet<u64>,
}

#[derive(Default)]
struct Books {
    registers: BTreeMap<String, Register>,
    counters: BTreeMap<String, Counter>,
    lists: BTreeMap<String, List>,
}

/// The books. Shared by all connections of a load.
#[derive(Default)]
pub struct Ledger(Mutex<Books>);

impl Ledger {
    fn with<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        change(&mut self.0.lock().expect("nobody panics with it"))
    }

    /// The only writer of `key` set it to `value`.
    pub fn set(&self, key: &str, value: u64, acknowledged: bool) {
        self.with(|books| {
            let register = books.registers.entry(key.to_owned()).or_default();
            if acknowledged {
                register.acknowledged = Some(value);
            } else {
                register.open.insert(value);
            }
        });
    }

    /// `key` was incremented.
    pub fn incr(&self, key: &str, acknowledged: bool) {
        self.with(|books| {
            let counter = books.counters.entry(key.to_owned()).or_default();
            *(if acknowledged { &mut counter.acknowledged } else { &mut counter.open }) += 1;
        });
    }

    /// `value`, another one each time, was appended to `key`.
    pub fn append(&self, key: &str, value: u64, acknowledged: bool) {
        self.with(|books| {
            let list = books.lists.entry(key.to_owned()).or_default();
            if acknowledged {
                list.acknowledged.push(value);
            } else {
                list.open.insert(value);
            }
        });
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.with(|books| {
            let registers = books.registers.values().filter(|r| r.acknowledged.is_some()).count();
            let lists: usize = books.lists.values().map(|list| list.acknowledged.len()).sum();
            let counters: u64 = books.counters.values().map(|c| c.acknowledged).sum();
            (registers + lists) as u64 + counters
        })
    }

    /// Compares all keys with what is there now. Nobody may write meanwhile.
    ///
    /// # Errors
    /// Every difference.
    pub fn verify(&self, reader: &mut impl Reader) -> Result<(), String> {
        let mut wrong = Vec::new();
        self.with(|books| {
            for (key, register) in &books.registers {
                let there = reader.get(key);
                let open = there.is_some_and(|value| register.open.contains(&value));
                if there != register.acknowledged && !open {
                    let last = register.acknowledged;
                    wrong.push(format!("{key} is {there:?}; {last:?} was acknowledged last"));
                }
            }
            for (key, Counter { acknowledged, open }) in &books.counters {
                let there = reader.get(key).unwrap_or(0);
                if !(*acknowledged..=acknowledged + open).contains(&there) {
                    wrong.push(format!("{key} is {there}: {acknowledged} and {open} unsure"));
                }
            }
            for (key, list) in &books.lists {
                wrong.extend(list.compare(key, &reader.list(key)));
            }
        });
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

impl List {
    fn compare(&self, key: &str, there: &[u64]) -> Vec<String> {
        let set: BTreeSet<u64> = there.iter().copied().collect();
        let lost = self.acknowledged.iter().filter(|value| !set.contains(value));
        let mut wrong: Vec<String> = lost.map(|value| format!("{key} lacks {value}")).collect();
        if set.len() != there.len() {
            wrong.push(format!("{key} has elements twice: {} of {}", there.len(), set.len()));
        }
        let known: BTreeSet<u64> = self.acknowledged.iter().chain(&self.open).copied().collect();
        wrong.extend(set.difference(&known).map(|v| format!("{key} has {v}, never appended")));
        wrong
    }
}
