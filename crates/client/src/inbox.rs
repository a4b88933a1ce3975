//! The queue from the handles to the driver: one lock, bytes in one arena, one wake-up for
//! whatever piles up while the driver is busy.
//!
//! Invariants:
//! 1. the driver's waker is stored only while the queue is empty, and taken by whoever fills it;
//! 2. `items` and `arena` belong together: lengths add up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use base::ReplicaId;
use base::limits;
use proto::client::ClientCounters;
use tokio::sync::oneshot;

use crate::completion::{SinkId, SinkState};
use crate::error::{CallError, StatusError};

/// What an operation's result goes to.
#[derive(Debug)]
pub(crate) enum Token {
    Call(oneshot::Sender<Result<Vec<u8>, CallError>>),
    Sink { sink: SinkId, tag: u64 },
}

/// A queued operation; its bytes are in the arena.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) stream: u32,
    pub(crate) len: usize,
    /// Whether it only reads, as the caller says.
    pub(crate) read: bool,
    pub(crate) token: Token,
}

/// What the driver is asked for beside operations.
pub(crate) enum Control {
    Status(ReplicaId, oneshot::Sender<Result<String, StatusError>>),
    AddSink(SinkId, SinkState),
    DropSink(SinkId),
    /// Told when everything is closed.
    Close(oneshot::Sender<()>),
}

/// What the driver takes per turn. Handed back and forth to keep the allocations.
#[derive(Default)]
pub(crate) struct Intake {
    pub(crate) items: Vec<Item>,
    pub(crate) arena: Vec<u8>,
    pub(crate) controls: Vec<Control>,
}

/// What a client knows about itself and its group. A snapshot.
#[derive(Clone, Debug, Default)]
pub struct ClientStats {
    /// Counters of the core.
    pub counters: ClientCounters,
    /// The session's number.
    pub session: u64,
    /// Whether the session is open.
    pub open: bool,
    /// Operations that are queued or in flight.
    pub held_ops: usize,
    /// Replicas that can be reached through all their pillars.
    pub reachable: usize,
    /// Links that are up, per replica.
    pub links: Vec<u16>,
    /// Replies of each replica that no correct replica sends.
    pub wrong_replies: Vec<u64>,
    /// Answers that had to be asked for again because a replica did not do its part.
    pub missed_replies: Vec<u64>,
    /// Packets that were dropped because a replica does not read.
    pub packets_dropped: u64,
    /// The last failure of a link, in words; empty when there was none.
    pub last_failure: String,
}

impl ClientStats {
    /// What is known of two partitions of one group together.
    pub(crate) fn and(self, other: ClientStats) -> ClientStats {
        fn each<T>(ours: Vec<T>, theirs: Vec<T>, put: fn(T, T) -> T) -> Vec<T> {
            ours.into_iter().zip(theirs).map(|(our, their)| put(our, their)).collect()
        }
        let failed = self.last_failure.is_empty();
        ClientStats {
            counters: self.counters.plus(&other.counters),
            session: self.session,
            open: self.open && other.open,
            held_ops: self.held_ops + other.held_ops,
            reachable: self.reachable.min(other.reachable),
            links: each(self.links, other.links, |our, their| our + their),
            wrong_replies: each(self.wrong_replies, other.wrong_replies, |our, their| our + their),
            missed_replies: each(self.missed_replies, other.missed_replies, |o, t| o + t),
            packets_dropped: self.packets_dropped + other.packets_dropped,
            last_failure: if failed { other.last_failure } else { self.last_failure },
        }
    }
}

/// The queue.
#[derive(Default)]
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(crate) struct Inner {
    intake: Intake,
    waker: Option<Waker>,
    closed: bool,
    next_sink: u64,
    ops_max: usize,
    bytes_max: usize,
    held_ops: usize,
    held_bytes: usize,
    /// Written by the driver every turn.
    pub(crate) stats: ClientStats,
}

impl Inbox {
    pub(crate) fn new(ops_max: usize, bytes_max: usize) -> Inbox {
        Inbox { inner: Mutex::new(Inner { ops_max, bytes_max, ..Inner::default() }) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that panics runs under this lock; what is there is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an operation. The order of calls is the order of execution within a stream.
    pub(crate) fn push(
        &self,
        stream: u32,
        (op, read): (&[u8], bool),
        token: impl FnOnce() -> Token,
    ) -> Result<(), CallError> {
        if op.len() > limits::OP_BYTES_MAX {
            return Err(CallError::TooLarge { bytes: op.len() });
        }
        let waker = {
            let mut inner = self.lock();
            inner.admit(1, op.len())?;
            inner.intake.arena.extend_from_slice(op);
            inner.intake.items.push(Item { stream, len: op.len(), read, token: token() });
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Queues all that is staged, in order, or nothing; `staged` is empty afterwards, unless it
    /// was refused.
    pub(crate) fn push_all(&self, staged: &mut Intake) -> Result<(), CallError> {
        let waker = {
            let mut inner = self.lock();
            inner.admit(staged.items.len(), staged.arena.len())?;
            if inner.intake.items.is_empty() {
                std::mem::swap(&mut inner.intake.items, &mut staged.items);
                std::mem::swap(&mut inner.intake.arena, &mut staged.arena);
            } else {
                inner.intake.items.append(&mut staged.items);
                inner.intake.arena.append(&mut staged.arena);
            }
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Queues what is staged for each of several inboxes, in order, or nothing of it; then `staged`
    /// is as before.
    pub(crate) fn push_each(staged: &mut [(Arc<Inbox>, Intake)]) -> Result<(), CallError> {
        // One order for all who lock several: nobody waits for anybody who waits for them.
        let mut locked: Vec<_> =
            staged.iter_mut().map(|(inbox, intake)| (inbox.lock(), intake)).collect();
        for (inner, intake) in &mut locked {
            inner.admit(intake.items.len(), intake.arena.len())?;
        }
        let mut wakers = Vec::new();
        for (inner, intake) in &mut locked {
            if !intake.items.is_empty() {
                inner.intake.items.append(&mut intake.items);
                inner.intake.arena.append(&mut intake.arena);
                wakers.extend(inner.waker.take());
            }
        }
        drop(locked);
        wakers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Asks for something; false when the driver has ended.
    pub(crate) fn control(&self, control: Control) -> bool {
        let waker = {
            let mut inner = self.lock();
            if inner.closed {
                return false;
            }
            inner.intake.controls.push(control);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// A number for a new sink.
    pub(crate) fn sink_id(&self) -> SinkId {
        let mut inner = self.lock();
        inner.next_sink += 1;
        SinkId(inner.next_sink)
    }

    /// Swaps what is queued for the empty `intake`; when nothing is, leaves `waker` instead.
    /// `held` is what the core holds. True when something was queued.
    pub(crate) fn take(
        &self,
        intake: &mut Intake,
        (held_ops, held_bytes): (usize, usize),
        waker: &Waker,
        stats: impl FnOnce(&mut ClientStats),
    ) -> bool {
        let mut inner = self.lock();
        stats(&mut inner.stats);
        if inner.intake.items.is_empty() && inner.intake.controls.is_empty() {
            (inner.held_ops, inner.held_bytes) = (held_ops, held_bytes);
            inner.waker = Some(waker.clone());
            return false;
        }
        std::mem::swap(&mut inner.intake, intake);
        inner.held_ops = held_ops + intake.items.len();
        inner.held_bytes = held_bytes + counted(intake);
        true
    }

    /// Refuses everything from now on; what is queued is dropped, and with it its senders.
    pub(crate) fn shut(&self) {
        let dropped = {
            let mut inner = self.lock();
            inner.closed = true;
            std::mem::take(&mut inner.intake)
        };
        drop(dropped);
    }
}

impl Inner {
    /// Whether there is room for `count` more operations with `len` bytes in all.
    fn admit(&self, count: usize, len: usize) -> Result<(), CallError> {
        if self.closed {
            return Err(CallError::Closed);
        }
        let ops = self.held_ops + self.intake.items.len();
        let bytes = self.held_bytes + counted(&self.intake);
        let more = len + count * ITEM_BYTES;
        if ops + count > self.ops_max || bytes + more > self.bytes_max {
            return Err(CallError::Overloaded { ops, bytes });
        }
        Ok(())
    }
}

/// What an operation counts beside its bytes: as the core does.
const ITEM_BYTES: usize = 4;

fn counted(intake: &Intake) -> usize {
    intake.arena.len() + intake.items.len() * ITEM_BYTES
}
