//! What is going to happen, in the order of virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use base::{Frame, Incarnation, PillarId, ReplicaId, Span, Time, ToStage, View};
use proto::pbft::msg::Message;

use crate::faults::Fault;

/// One life of a replica's process: what belongs to an older one happens to nobody.
pub(crate) type Life = u32;

/// Something that happens.
pub(crate) enum Event {
    /// A message of a replica arrives.
    Peer { to: ReplicaId, life: Life, pillar: PillarId, sender: Sender, message: Message },
    /// A client's frame arrives.
    Request { to: ReplicaId, pillar: PillarId, frame: Arc<Frame> },
    /// A reply arrives.
    Reply { to: usize, from: ReplicaId, view: View, content: Arc<Vec<u8>> },
    /// A part of a replica hears from another part of the same.
    Inside { replica: ReplicaId, life: Life, message: Inside },
    /// A part of a replica wants its turn.
    Turn { replica: ReplicaId, life: Life, part: Part },
    /// The first `upto` records of a replica's log are durable.
    Flushed { replica: ReplicaId, life: Life, upto: usize },
    /// A client's timer.
    ClientTurn { client: usize },
    /// The faulty client strikes.
    Attack,
    /// A fault begins or ends.
    Fault(Fault),
}

/// Who sent a message, as the link proves it.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) replica: ReplicaId,
    pub(crate) incarnation: Incarnation,
}

/// A message between the parts of one replica.
pub(crate) enum Inside {
    Lane(PillarId, proto::pbft::Input),
    Coordinator(proto::group::Input),
    Stage(ToStage),
}

/// A part of a replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Part {
    Lane(PillarId),
    Coordinator,
    Stage,
    Disk,
}

impl Event {
    /// The replica to which it happens, if it is one that may be paused.
    pub(crate) fn replica(&self) -> Option<ReplicaId> {
        match self {
            Event::Peer { to, .. } | Event::Request { to, .. } => Some(*to),
            Event::Inside { replica, .. }
            | Event::Turn { replica, .. }
            | Event::Flushed { replica, .. } => Some(*replica),
            Event::Reply { .. } | Event::ClientTurn { .. } | Event::Attack | Event::Fault(_) => {
                None
            }
        }
    }
}

/// The events to come.
#[derive(Default)]
pub(crate) struct Queue {
    order: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, Event>,
    next: u64,
    now: Time,
    /// A digest of everything that happened: equal seeds give equal traces.
    trace: u64,
}

impl Queue {
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace
    }

    /// Lets `event` happen `after` from now.
    pub(crate) fn schedule(&mut self, after: Span, event: Event) {
        self.schedule_at(self.now.after(after), event);
    }

    /// Lets `event` happen at `at`, behind everything that happens then already.
    pub(crate) fn schedule_at(&mut self, at: Time, event: Event) {
        let id = self.next;
        self.next += 1;
        self.events.insert(id, event);
        self.order.push(Reverse((at, id)));
    }

    /// The next event; moves the time.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let Reverse((at, id)) = self.order.pop()?;
        self.now = self.now.max(at);
        self.trace = self.trace.rotate_left(5) ^ at.0 ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Some(self.events.remove(&id).expect("queued events are kept"))
    }
}
