//! The parallelizer: which operations of the total order may execute at the same time (CBASE §4
//! and §5.1).
//!
//! Operations are inserted in the agreed order, each with what it touches
//! ([`Parallelizer::insert`], [`Parallelizer::insert_call`]); those that may execute are handed
//! out ([`Parallelizer::next_request`]) and taken back when they are done
//! ([`Parallelizer::remove_request`]). It knows nothing of the application but those claims,
//! has no thread and blocks nobody: whoever finds nothing ready asks again after a removal.
//!
//! - *Sound*: of two operations that depend on each other, the later one is not handed out
//!   before the earlier one is removed. A claim of everything depends on everything.
//! - *Fair*: the oldest pending operation is always ready or handed out, and what is ready is
//!   handed out in the order in which it became so. No request starves.
//! - *Local*: only what was inserted decides, at each replica by itself.
//! - *Cheap*: insertion and removal cost in proportion to the classes that the operation names,
//!   not to what is pending. Rules by function and argument are compared pairwise, as the paper
//!   has them, and cost what is pending.
//!
//! Pending operations are cut into *segments*: a barrier is a segment of its own, and so is what
//! lies between two cuts ([`Parallelizer::sync`]). The first segment is open, the others wait,
//! already analysed, until all before them is removed; then they open at once.
//!
//! Not here: what executes them (`stage`), and threads (`rt`).
//!
//! Invariants: those of the queues, and
//! 1. only operations of the first segment are ready or handed out;
//! 2. an operation is ready when its segment is open and it waits for nobody else.

mod index;
mod keys;
mod operators;
mod segments;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::Seq;

use crate::service::Footprint;

use keys::{Held, Keys, NIL};
pub use operators::{Invocation, Matrices, Operators};
use segments::Segments;

/// The dependency graph of the pending operations. `T` is whatever the owner wants to find again
/// with an operation.
pub struct Parallelizer<T> {
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
    keys: Keys,
    segments: Segments,
    ready: VecDeque<u32>,
    /// Pending operations that are known by function and arguments.
    calls: Vec<u32>,
    rules: Option<Arc<dyn Operators>>,
    pending: usize,
    issued: usize,
    last: Seq,
    inserted: u64,
}

/// An operation that was handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    slot: u32,
    generation: u32,
    /// Whether it depends on everything, so that nothing else is handed out meanwhile.
    pub alone: bool,
}

struct Node<T> {
    generation: u32,
    seq: Seq,
    /// How many were inserted before.
    born: u64,
    /// Accesses that are not granted, earlier calls that it depends on, and 1 while its segment
    /// is closed.
    waits: u32,
    held: Held,
    state: State,
    alone: bool,
    payload: Option<T>,
    /// Apart, so that nodes without it are small.
    call: Option<Box<Call>>,
}

/// What a node that is known by function and arguments has besides.
struct Call {
    invocation: Invocation,
    /// Later calls that depend on it.
    dependents: Vec<u32>,
    /// Its place in [`Parallelizer::calls`].
    place: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Waits,
    Ready,
    Issued,
}

impl<T> Parallelizer<T> {
    /// An empty one. `seed` decides nothing but how fast classes are found; chosen at random, it
    /// keeps clients from choosing keys that make that slow. `rules` are for calls.
    #[must_use]
    pub fn new(seed: u64, rules: Option<Arc<dyn Operators>>) -> Parallelizer<T> {
        Parallelizer {
            nodes: Vec::new(),
            free: Vec::new(),
            keys: Keys::new(seed),
            segments: Segments::default(),
            ready: VecDeque::new(),
            calls: Vec::new(),
            rules,
            pending: 0,
            issued: 0,
            last: Seq(0),
            inserted: 0,
        }
    }

    /// Enters the next operation of the total order, which belongs to number `seq`.
    ///
    /// # Panics
    /// When an operation of a higher number was inserted before.
    pub fn insert(&mut self, seq: Seq, footprint: &Footprint, payload: T) {
        if footprint.barrier {
            return self.insert_alone(seq, payload);
        }
        // Calls and keys cannot be compared: whoever mixes them waits.
        let opens = self.segments.place(seq, !self.calls.is_empty());
        let slot = self.allot(seq, payload);
        let node = &mut self.nodes[slot as usize];
        node.held = self.keys.enter(slot, &footprint.reads, &footprint.writes);
        node.waits = node.held.waits;
        self.settle(slot, opens);
    }

    /// Enters the next operation, of which the rules know function and arguments; `None` is one
    /// that they do not know.
    ///
    /// # Panics
    /// Like [`Parallelizer::insert`].
    pub fn insert_call(&mut self, seq: Seq, invocation: Option<Invocation>, payload: T) {
        let (Some(invocation), Some(rules)) = (invocation, self.rules.clone()) else {
            return self.insert_alone(seq, payload);
        };
        let opens = self.segments.place(seq, self.keys.classes() > 0);
        let slot = self.allot(seq, payload);
        let mut waits = 0;
        for earlier in &self.calls {
            let call = self.nodes[*earlier as usize].call.as_mut().expect("it is in the list");
            if rules.depend(&call.invocation, &invocation) {
                call.dependents.push(slot);
                waits += 1;
            }
        }
        let node = &mut self.nodes[slot as usize];
        node.waits = waits;
        let place = self.calls.len();
        node.call = Some(Box::new(Call { invocation, dependents: Vec::new(), place }));
        self.calls.push(slot);
        self.settle(slot, opens);
    }

    /// Hands out an operation that depends on none that is pending before it, if there is one.
    pub fn next_request(&mut self) -> Option<(Ticket, T)> {
        let slot = self.ready.pop_front()?;
        Some(self.issue(slot))
    }

    /// The same, but of those that are ready the one that was inserted first. O(ready).
    pub fn oldest_request(&mut self) -> Option<(Ticket, T)> {
        let nodes = &self.nodes;
        let born = |slot: &u32| nodes[*slot as usize].born;
        let at = (0..self.ready.len()).min_by_key(|at| born(&self.ready[*at]))?;
        self.choose_request(|_| at)
    }

    /// Whether what is ready next depends on everything: then it is the only one.
    #[must_use]
    pub fn is_next_alone(&self) -> bool {
        self.ready.front().is_some_and(|slot| self.nodes[*slot as usize].alone)
    }

    /// The same, but any of those that are ready may be chosen: `choose` gets their number and
    /// says which. For tests that go through schedules; whoever never chooses the oldest is not
    /// fair.
    pub fn choose_request(&mut self, choose: impl FnOnce(usize) -> usize) -> Option<(Ticket, T)> {
        let count = self.ready.len();
        let slot = if count == 0 { None } else { self.ready.remove(choose(count) % count) };
        slot.map(|slot| self.issue(slot))
    }

    /// Takes back an operation that was not begun: it may be handed out again, and is next.
    ///
    /// # Panics
    /// When it is not one that was handed out.
    pub fn return_request(&mut self, ticket: Ticket, payload: T) {
        let node = &mut self.nodes[ticket.slot as usize];
        let known = node.generation == ticket.generation && node.state == State::Issued;
        assert!(known, "a request comes back that was not handed out");
        (node.state, node.payload) = (State::Ready, Some(payload));
        self.issued -= 1;
        self.ready.push_front(ticket.slot);
    }

    /// Takes back an operation that is done: what depended on it alone is ready now.
    ///
    /// # Panics
    /// When it is not one that was handed out.
    pub fn remove_request(&mut self, ticket: Ticket) {
        let node = &mut self.nodes[ticket.slot as usize];
        let known = node.generation == ticket.generation && node.state == State::Issued;
        assert!(known, "a request is removed that was not handed out");
        node.state = State::Free;
        node.generation = node.generation.wrapping_add(1);
        let (held, call) = (node.held, node.call.take());
        self.pending -= 1;
        self.issued -= 1;
        let Parallelizer { keys, nodes, ready, .. } = self;
        keys.leave(held, |granted| release(nodes, ready, granted));
        if let Some(call) = call {
            self.forget_call(&call);
        }
        self.free.push(ticket.slot);
        self.segments.leave();
        self.open();
    }

    /// Holds everything beyond number `cut`, whatever it depends on, and lets go what was held
    /// up to there: the owner takes a checkpoint at the cut when [`Parallelizer::is_at_cut`],
    /// and then names the next one. Until the first call nothing is held.
    ///
    /// # Panics
    /// When the cut goes back.
    pub fn sync(&mut self, cut: Seq) {
        let Parallelizer { segments, nodes, .. } = self;
        segments.sync(cut, |slot| nodes[slot as usize].seq);
        self.open();
    }

    /// Whether nothing up to the cut is pending.
    #[must_use]
    pub fn is_at_cut(&self) -> bool {
        self.segments.is_at_cut()
    }

    /// Operations that were inserted and not removed.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Operations that were handed out and not removed.
    #[must_use]
    pub fn issued(&self) -> usize {
        self.issued
    }

    /// Operations that can be handed out now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    fn insert_alone(&mut self, seq: Seq, payload: T) {
        let opens = self.segments.place_alone(seq);
        let slot = self.allot(seq, payload);
        self.nodes[slot as usize].alone = true;
        self.settle(slot, opens);
    }

    fn allot(&mut self, seq: Seq, payload: T) -> u32 {
        assert!(seq >= self.last, "requests are inserted in the total order");
        self.last = seq;
        self.inserted += 1;
        self.pending += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node {
                generation: 0,
                seq,
                born: 0,
                waits: 0,
                held: Held { first: NIL, waits: 0 },
                state: State::Free,
                alone: false,
                payload: None,
                call: None,
            });
            u32::try_from(self.nodes.len() - 1).expect("memory ends before")
        });
        let node = &mut self.nodes[slot as usize];
        (node.seq, node.waits, node.alone) = (seq, 0, false);
        (node.held, node.born) = (Held { first: NIL, waits: 0 }, self.inserted);
        (node.state, node.payload) = (State::Waits, Some(payload));
        slot
    }

    /// The node is complete: it is ready, or waits for others, or for its segment.
    fn settle(&mut self, slot: u32, is_open: bool) {
        let node = &mut self.nodes[slot as usize];
        if !is_open {
            node.waits += 1;
            self.segments.gate(slot);
        } else if node.waits == 0 {
            node.state = State::Ready;
            self.ready.push_back(slot);
        }
    }

    fn issue(&mut self, slot: u32) -> (Ticket, T) {
        let node = &mut self.nodes[slot as usize];
        node.state = State::Issued;
        self.issued += 1;
        let ticket = Ticket { slot, generation: node.generation, alone: node.alone };
        (ticket, node.payload.take().expect("it is handed out once"))
    }

    fn forget_call(&mut self, call: &Call) {
        self.calls.swap_remove(call.place);
        if let Some(moved) = self.calls.get(call.place) {
            let moved = self.nodes[*moved as usize].call.as_mut();
            moved.expect("it is in the list").place = call.place;
        }
        for dependent in &call.dependents {
            release(&mut self.nodes, &mut self.ready, *dependent);
        }
    }

    /// Opens the next segments, as far as what is before them is gone.
    fn open(&mut self) {
        while let Some(gated) = self.segments.next() {
            for slot in gated {
                release(&mut self.nodes, &mut self.ready, slot);
            }
        }
    }

    /// Checks the invariants. O(pending).
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        self.keys.check();
        self.segments.check(self.pending);
        let in_state = |state| self.nodes.iter().filter(|node| node.state == state).count();
        assert_eq!(in_state(State::Ready), self.ready.len(), "ready requests are miscounted");
        assert_eq!(in_state(State::Issued), self.issued, "requests under way are miscounted");
        let waiting = in_state(State::Waits);
        assert_eq!(waiting + self.ready.len() + self.issued, self.pending, "miscounted");
        let idle = self.ready.is_empty() && self.issued == 0;
        assert!(!idle || self.segments.is_at_cut(), "nobody is ready, and nobody is under way");
    }
}

/// One thing less that a node waits for.
fn release<T>(nodes: &mut [Node<T>], ready: &mut VecDeque<u32>, slot: u32) {
    let node = &mut nodes[slot as usize];
    node.waits -= 1;
    if node.waits == 0 && node.state == State::Waits {
        node.state = State::Ready;
        ready.push_back(slot);
    }
}
