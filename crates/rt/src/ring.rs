//! Message rings between the lanes and the execution stage of one replica, and the doorbell
//! that wakes a sleeping thread.
//!
//! One single-producer single-consumer ring per ordered pair of parties, bounded. A producer
//! never blocks and never loses an item: what does not fit waits in an overflow queue of its own
//! and is moved up at the next [`RingSender::flush`]. The overflow is bounded by flow control,
//! not by this module: a lane delivers at most one window of numbers beyond the last stable
//! checkpoint and is told of every executed number, and the stage answers each delivered frame
//! once. Only answers out of the reply cache have no such bound, so they use
//! [`RingSender::offer`], which refuses when the ring is full.
//!
//! No wake-up is lost. The consumer stores `sleeping`, *then* looks at its rings once more, and
//! only then blocks. The producer pushes, *then* looks at `sleeping`. Between the two steps each
//! side has a sequentially consistent fence, so at least one of them sees what the other did:
//! either the consumer finds the item and does not block, or the producer finds it asleep and
//! wakes it. The eventfd behind [`mio::Waker`] keeps a wake-up that comes before the block.
//!
//! The argument is checked by `models`, over every order that the memory model allows.
//!
//! Not here: what the messages mean. Depends on `rtrb` and `mio` alone.

use std::collections::VecDeque;
use std::sync::Arc;

use mio::Waker;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::sync::{AtomicBool, Ordering, fence};

/// Ends a poll, the one under way or the next: an eventfd, or a model's stand-in for one.
pub(crate) trait Wake {
    /// Ends it.
    fn wake(&self);
}

impl Wake for Waker {
    fn wake(&self) {
        // The write to an eventfd of this process fails only when the descriptor is gone, and
        // then so is the thread.
        let _ = Waker::wake(self);
    }
}

/// Wakes one thread out of its poll, when it sleeps and only then.
#[derive(Debug)]
pub(crate) struct Bell<W = Waker> {
    sleeping: AtomicBool,
    waker: W,
}

impl<W: Wake> Bell<W> {
    /// A bell for the thread that polls `waker`'s registry.
    pub(crate) fn new(waker: W) -> Bell<W> {
        Bell { sleeping: AtomicBool::new(false), waker }
    }

    /// The consumer is about to sleep. It must look at all its rings after this, and sleep only
    /// when they are empty.
    pub(crate) fn doze(&self) {
        // An exchange, so that it comes after whatever exchange of a producer has found the last
        // `true`, by the word's own order. A store does, too, but not for `loom`.
        self.sleeping.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The consumer is awake and will look at its rings anyway.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Something was pushed: wakes the consumer if it sleeps. Of several producers that find it
    /// asleep, one pays for the system call.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.force();
        }
    }

    /// Wakes the consumer whether it sleeps or not.
    pub(crate) fn force(&self) {
        self.waker.wake();
    }
}

/// The producing end.
#[derive(Debug)]
pub(crate) struct RingSender<T> {
    ring: Producer<T>,
    overflow: VecDeque<T>,
    bell: Option<Arc<Bell>>,
    pushed: bool,
}

/// The consuming end.
#[derive(Debug)]
pub(crate) struct RingReceiver<T> {
    ring: Consumer<T>,
}

/// A ring of `capacity` items. `bell` is the consuming thread's, or `None` when both ends live on
/// the same thread.
pub(crate) fn ring<T>(
    capacity: usize,
    bell: Option<Arc<Bell>>,
) -> (RingSender<T>, RingReceiver<T>) {
    let (producer, consumer) = RingBuffer::new(capacity);
    let sender = RingSender { ring: producer, overflow: VecDeque::new(), bell, pushed: false };
    (sender, RingReceiver { ring: consumer })
}

impl<T> RingSender<T> {
    /// Sends `item`; keeps it in the overflow when the ring is full. Seen by a sleeping consumer
    /// after the next [`RingSender::flush`].
    pub(crate) fn push(&mut self, item: T) {
        self.pushed = true;
        if !self.overflow.is_empty() {
            self.overflow.push_back(item);
        } else if let Err(rtrb::PushError::Full(item)) = self.ring.push(item) {
            self.overflow.push_back(item);
        }
    }

    /// Sends `item` unless the ring is full; false when it was dropped.
    pub(crate) fn offer(&mut self, item: T) -> bool {
        let sent = self.overflow.is_empty() && self.ring.push(item).is_ok();
        self.pushed |= sent;
        sent
    }

    /// Moves the overflow up as far as there is room, and rings the bell when anything was sent
    /// since the last time. True when items are left over: flush again soon.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some(item) = self.overflow.pop_front() {
            if let Err(rtrb::PushError::Full(item)) = self.ring.push(item) {
                self.overflow.push_front(item);
                break;
            }
            self.pushed = true;
        }
        if self.pushed {
            self.pushed = false;
            if let Some(bell) = &self.bell {
                bell.ring();
            }
        }
        !self.overflow.is_empty()
    }
}

impl<T> RingReceiver<T> {
    /// The next item.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};

    #[test]
    fn a_full_ring_keeps_order_and_loses_nothing_but_offers() {
        let (mut tx, mut rx) = ring(2, None);
        (0..5).for_each(|i| tx.push(i));
        assert!(!tx.offer(99), "an offer does not overtake the overflow");
        assert!(tx.flush(), "three items are left over");
        let mut got = vec![];
        loop {
            while let Some(item) = rx.pop() {
                got.push(item);
            }
            if !tx.flush() && rx.is_empty() {
                break;
            }
        }
        assert_eq!(got, [0, 1, 2, 3, 4]);
        assert!(tx.offer(5));
        assert_eq!(rx.pop(), Some(5));
    }

    /// The consumer blocks without a timeout whenever it finds nothing. A lost wake-up hangs the
    /// test.
    #[test]
    fn no_wake_up_is_lost() {
        let mut poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let bell = Arc::new(Bell::new(waker));
        let (mut tx, mut rx) = ring(4, Some(Arc::clone(&bell)));
        let producer = std::thread::spawn(move || {
            for i in 0..20_000u64 {
                tx.push(i);
                while tx.flush() {
                    std::thread::yield_now();
                }
                if i % 7 == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut events = Events::with_capacity(4);
        let mut next = 0;
        while next < 20_000 {
            while let Some(item) = rx.pop() {
                assert_eq!(item, next);
                next += 1;
            }
            if next == 20_000 {
                break;
            }
            bell.doze();
            if rx.is_empty() {
                poll.poll(&mut events, None).expect("polls");
            }
            bell.awake();
        }
        producer.join().expect("the producer ends");
    }
}
