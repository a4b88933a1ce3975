//! What is going to happen, in the order of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use base::{Frame, Incarnation, PillarId, ReplicaId, Span, Time, ToStage, VoteSet};
use proto::group::msg::GroupMessage;
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
    /// A client does not want to rely on these for its answers.
    Avoid { to: ReplicaId, client: usize, replicas: VoteSet },
    /// A reply arrives, as it travels.
    Reply { to: usize, from: ReplicaId, packet: Arc<Vec<u8>> },
    /// A part of a replica hears from another part of the same.
    Inside { replica: ReplicaId, life: Life, message: Inside },
    /// A part of a replica wants its turn.
    Turn { replica: ReplicaId, life: Life, part: Part },
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
pub enum Part {
    /// Agreement of a pillar.
    Lane(PillarId),
    /// What the pillars have in common.
    Coordinator,
    /// Execution.
    Stage,
    /// An execution worker.
    Worker(u16),
    /// What workers are done with waits for the stage.
    Bell,
    /// Checkpoints on disk.
    Disk,
    /// The vote log.
    Log,
}

impl Event {
    /// A copy of a message between machines; of nothing else.
    pub(crate) fn again(&self) -> Option<Event> {
        match self {
            Event::Peer { to, life, pillar, sender, message } => Some(Event::Peer {
                to: *to,
                life: *life,
                pillar: *pillar,
                sender: *sender,
                message: message.clone(),
            }),
            Event::Request { to, pillar, frame } => {
                Some(Event::Request { to: *to, pillar: *pillar, frame: Arc::clone(frame) })
            }
            Event::Reply { to, from, packet } => {
                Some(Event::Reply { to: *to, from: *from, packet: Arc::clone(packet) })
            }
            _ => None,
        }
    }

    /// The replica to which it happens, if it is one that may be paused.
    pub(crate) fn replica(&self) -> Option<ReplicaId> {
        match self {
            Event::Peer { to, .. } | Event::Request { to, .. } | Event::Avoid { to, .. } => {
                Some(*to)
            }
            Event::Inside { replica, .. } | Event::Turn { replica, .. } => Some(*replica),
            Event::Reply { .. } | Event::ClientTurn { .. } | Event::Attack | Event::Fault(_) => {
                None
            }
        }
    }
}

/// The events to come.
#[derive(Default)]
pub(crate) struct Queue {
    /// When, in which order among those at one time, and where in `events`.
    order: BinaryHeap<Reverse<(Time, u64, u32)>>,
    events: Vec<Option<Event>>,
    /// Free places in `events`.
    free: Vec<u32>,
    next: u64,
    popped: u64,
    now: Time,
    trace: Trace,
}

impl Queue {
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// A digest of everything that happened: equal seeds give equal traces.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.digest
    }

    /// Events that happened so far.
    pub(crate) fn popped(&self) -> u64 {
        self.popped
    }

    /// Lets `event` happen `after` from now.
    pub(crate) fn schedule(&mut self, after: Span, event: Event) {
        self.schedule_at(self.now.after(after), event);
    }

    /// Lets `event` happen at `at`, behind everything that happens then already.
    pub(crate) fn schedule_at(&mut self, at: Time, event: Event) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                u32::try_from(self.events.len() - 1).expect("memory holds fewer events")
            }
        };
        self.order.push(Reverse((at, self.next, place)));
        self.next += 1;
    }

    /// The next event; moves the time.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let Reverse((at, id, place)) = self.order.pop()?;
        self.now = self.now.max(at);
        self.popped += 1;
        let event = self.events[place as usize].take().expect("queued events are kept");
        self.free.push(place);
        self.trace.mix(at.0);
        self.trace.mix(id);
        self.trace.take(&event);
        Some(event)
    }
}

/// A running digest, not meant to resist anybody.
#[derive(Default)]
struct Trace {
    digest: u64,
    /// The encoded message, before it is mixed in.
    bytes: Vec<u8>,
}

impl Trace {
    fn mix(&mut self, word: u64) {
        self.digest = (self.digest.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in words.by_ref() {
            self.mix(u64::from_le_bytes(word.try_into().expect("chunks of eight")));
        }
        let rest = words.remainder().iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        self.mix(rest);
        self.mix(bytes.len() as u64);
    }

    /// What is said. Of VIEW-CHANGE and NEW-VIEW, which speak of a thousand numbers, the signature
    /// stands for the rest.
    fn take_message(&mut self, message: &Message) {
        let signed = match message {
            Message::Group(message) => match &**message {
                GroupMessage::ViewChange(vc) => Some((vc.view, vc.entries.len(), &vc.signature)),
                GroupMessage::NewView(nv) => Some((nv.view, nv.changes.len(), &nv.signature)),
                _ => None,
            },
            _ => None,
        };
        if let Some((view, count, signature)) = signed {
            self.mix(view.0);
            self.mix(count as u64);
            self.mix_bytes(&signature.0);
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        message.encode(&mut bytes);
        self.mix_bytes(&bytes);
        self.bytes = bytes;
    }

    /// What happens to whom, with everything that is said. What the parts of a replica tell each
    /// other follows from that, and its order is enough.
    fn take(&mut self, event: &Event) {
        match event {
            Event::Peer { to, pillar, sender, message, .. } => {
                let ids = [to.0, sender.replica.0, pillar.0];
                ids.into_iter().for_each(|id| self.mix(u64::from(id)));
                self.take_message(message);
            }
            Event::Request { to, pillar, frame } => {
                self.mix(u64::from(to.0) << 16 | u64::from(pillar.0));
                self.mix_bytes(&frame.digest().0);
            }
            Event::Avoid { to, client, replicas } => {
                self.mix((*client as u64) << 16 | u64::from(to.0));
                self.mix(replicas.bits());
            }
            Event::Reply { to, from, packet } => {
                self.mix((*to as u64) << 16 | u64::from(from.0));
                self.mix_bytes(packet);
            }
            Event::Inside { replica, message, .. } => {
                let part = match message {
                    Inside::Lane(pillar, _) => u64::from(pillar.0),
                    Inside::Coordinator(_) => 1 << 16,
                    Inside::Stage(_) => 2 << 16,
                };
                self.mix(part << 16 | u64::from(replica.0));
            }
            Event::Turn { replica, .. } => self.mix(u64::from(replica.0)),
            Event::ClientTurn { client } => self.mix(*client as u64),
            Event::Attack | Event::Fault(_) => {}
        }
    }
}
