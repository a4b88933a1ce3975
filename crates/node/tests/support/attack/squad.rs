//! Attackers that can be let loose and called back: threads on the attackers' cores, each doing
//! one thing over and over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::cores::{Part, confine};

/// What an attacker does over and over: one round, and how much that was.
pub type Round = Box<dyn FnMut(&Orders) -> u64 + Send>;

/// What attackers are told.
#[derive(Default)]
pub struct Orders {
    loose: AtomicBool,
    over: AtomicBool,
    /// Rounds' worth of all attackers.
    done: AtomicU64,
}

impl Orders {
    /// Whether to go on.
    pub fn attack(&self) -> bool {
        self.loose.load(Ordering::Relaxed) && !self.over.load(Ordering::Relaxed)
    }
}

/// Attackers.
pub struct Squad {
    orders: Arc<Orders>,
    threads: Vec<JoinHandle<()>>,
}

impl Squad {
    /// Attackers that wait for the word.
    pub fn new(rounds: Vec<Round>) -> Squad {
        let orders = Arc::new(Orders::default());
        let start = |mut round: Round| {
            let orders = Arc::clone(&orders);
            std::thread::spawn(move || {
                confine(Part::Attackers);
                while !orders.over.load(Ordering::Relaxed) {
                    if orders.attack() {
                        let done = round(&orders);
                        orders.done.fetch_add(done, Ordering::Relaxed);
                    } else {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            })
        };
        let threads = rounds.into_iter().map(start).collect();
        Squad { orders, threads }
    }

    pub fn let_loose(&self, on: bool) {
        self.orders.loose.store(on, Ordering::Relaxed);
    }

    /// How much they have done so far.
    pub fn done(&self) -> u64 {
        self.orders.done.load(Ordering::Relaxed)
    }
}

impl Drop for Squad {
    fn drop(&mut self) {
        self.orders.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("an attacker panicked");
            }
        }
    }
}
