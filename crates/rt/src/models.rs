//! What threads of a replica share, in every order that the memory model allows.
//!
//! Built and run by `cargo xtask loom`. Each model drives the production type with two or three
//! threads, and has a twin with a planted bug that must be found: a model that cannot fail says
//! nothing. Not modelled: what a lock or a channel of others makes safe, and `rtrb`, which its
//! own authors check; here its counter stands for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use base::{ClientId, Span, Time};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::bans::{Bans, Offence};
use crate::coordinator_host::Inflow;
use crate::failure::Failure;
use crate::ring::{Bell, Wake};

/// An eventfd and the poll on it: what was signalled ends the next wait.
#[derive(Debug, Default)]
struct Poll {
    signalled: Mutex<bool>,
    changed: Condvar,
}

impl Poll {
    fn wait(&self) {
        let mut signalled = self.signalled.lock().expect("nobody panics with it");
        while !*signalled {
            signalled = self.changed.wait(signalled).expect("nobody panics with it");
        }
        *signalled = false;
    }
}

impl Wake for Arc<Poll> {
    fn wake(&self) {
        *self.signalled.lock().expect("nobody panics with it") = true;
        self.changed.notify_one();
    }
}

fn bell() -> (Arc<Bell<Arc<Poll>>>, Arc<Poll>) {
    let poll = Arc::new(Poll::default());
    (Arc::new(Bell::new(Arc::clone(&poll))), poll)
}

/// The index of a ring as `rtrb` publishes it.
#[derive(Debug, Default)]
struct Counter(AtomicUsize);

impl Counter {
    fn push(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn pushed(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// Whether loom finds an execution in which `model` fails: a panic, or a deadlock, which is what
/// a lost wake-up is.
fn fails(model: impl Fn() + Sync + Send + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| loom::model(model))).is_err()
}

/// Producers push and ring; the consumer takes all, and sleeps only as `ring` says it must.
fn wake_ups(producers: usize, each: usize, look_again: bool, ring_first: bool) {
    let (bell, poll) = bell();
    let rings: Vec<Arc<Counter>> = (0..producers).map(|_| Arc::default()).collect();
    let threads = rings.iter().map(|ring| {
        let (ring, bell) = (Arc::clone(ring), Arc::clone(&bell));
        thread::spawn(move || {
            for _ in 0..each {
                if ring_first {
                    bell.ring();
                }
                ring.push();
                if !ring_first {
                    bell.ring();
                }
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    let taken = || rings.iter().map(|ring| ring.pushed()).sum::<usize>();
    let mut seen = 0;
    while seen < producers * each {
        let now = taken();
        if now > seen {
            seen = now;
            continue;
        }
        bell.doze();
        if !look_again || taken() == seen {
            poll.wait();
        }
        bell.awake();
    }
    threads.into_iter().for_each(|one| one.join().expect("a producer ends"));
}

#[test]
fn no_wake_up_is_lost_with_one_producer() {
    loom::model(|| wake_ups(1, 2, true, false));
}

#[test]
fn no_wake_up_is_lost_with_two_producers() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| wake_ups(2, 1, true, false));
}

#[test]
fn a_consumer_that_does_not_look_again_is_found_out() {
    assert!(fails(|| wake_ups(1, 1, false, false)));
}

#[test]
fn a_producer_that_rings_before_it_pushes_is_found_out() {
    assert!(fails(|| wake_ups(1, 1, true, true)));
}

/// A thread that sleeps for ever unless it hears of the failure.
fn failing(tell_first: bool) {
    let (bell, poll) = bell();
    let failure = Arc::new(Failure::default());
    if tell_first {
        failure.tell(&[Arc::clone(&bell)]);
    }
    let setter = Arc::clone(&failure);
    let other = thread::spawn(move || setter.set("log", &"no space left"));
    while !failure.failed() {
        bell.doze();
        if !failure.failed() {
            poll.wait();
        }
        bell.awake();
    }
    assert!(failure.text().is_some_and(|text| text.contains("no space left")));
    other.join().expect("ends");
}

#[test]
fn every_thread_hears_of_a_failure_and_of_its_cause() {
    loom::model(|| failing(true));
}

#[test]
fn threads_whose_bells_nobody_knows_sleep_on_and_are_found_out() {
    assert!(fails(|| failing(false)));
}

const CLIENT: ClientId = ClientId(7);

/// Two lanes tell of the same principal's offences; a third looks at the counter alone.
fn banned(trust_the_counter: bool) {
    let bans = Arc::new(Bans::default());
    let now = Time(1_000_000_000);
    (0..3).for_each(|_| bans.offend(CLIENT, Offence::Forged, now));
    let threads = [1, 2].map(|_| {
        let bans = Arc::clone(&bans);
        thread::spawn(move || bans.offend(CLIENT, Offence::Forged, now))
    });
    if bans.count() > 0 || !trust_the_counter {
        assert!(bans.holds(CLIENT, now), "whoever sees the counter move finds the ban");
    }
    threads.into_iter().for_each(|one| one.join().expect("ends"));
    let rows = bans.rows(now);
    assert_eq!((rows[0].offences, rows[0].bans, bans.count()), (5, 1, 1));
    assert!(!bans.holds(CLIENT, now.after(Span::secs(2))));
}

#[test]
fn a_ban_is_there_for_whoever_sees_the_counter_move() {
    loom::model(|| banned(true));
}

#[test]
fn whoever_does_not_wait_for_the_counter_is_found_out() {
    assert!(fails(|| banned(false)));
}

#[test]
fn what_is_on_its_way_to_the_stage_is_counted_right() {
    loom::model(|| {
        let inflow = Inflow::default();
        let stage = inflow.clone();
        assert!(inflow.admit(20 << 20));
        let taker = thread::spawn(move || stage.taken(20 << 20));
        let second = inflow.admit(20 << 20);
        taker.join().expect("ends");
        assert_eq!(inflow.admit(32 << 20), !second, "nothing is counted twice or lost");
    });
}
