//! Who waits for whom at which class: one queue of accesses per class.
//!
//! An access is granted when nothing before it in its queue conflicts with it: a write at the
//! front, a read with no write ahead. An operation may begin once all its accesses are granted.
//! Entering and leaving cost in proportion to the classes that the operation names, however many
//! are pending: no edge from operation to operation is ever stored.
//!
//! Invariants:
//! 1. what is granted in a queue is its first access, if that is a write, or else all reads in
//!    front of the first write;
//! 2. an operation has at most one access in each queue;
//! 3. a queue without accesses does not exist.

use alloc::vec;
use alloc::vec::Vec;

/// "None", as an index.
pub(super) const NIL: u32 = u32::MAX;
/// Queues in the table at first.
const TABLE_MIN: usize = 256;

/// The queues of all classes.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    accesses: Vec<Access>,
    free_access: u32,
    queues: Vec<Queue>,
    free_queue: u32,
    live_queues: usize,
    /// The first queue of each chain.
    table: Vec<u32>,
    /// Secret to clients where it is chosen at random, so that nobody makes long chains.
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Access {
    node: u32,
    queue: u32,
    /// Neighbours in the queue.
    prev: u32,
    next: u32,
    /// The next access of the same node, or of the free list.
    sibling: u32,
    write: bool,
    granted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    class: u64,
    head: u32,
    tail: u32,
    writes: u32,
    /// The next queue of the chain, or of the free list.
    chain: u32,
}

/// The accesses of one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// The first of them.
    pub(super) first: u32,
    /// How many are not granted yet.
    pub(super) waits: u32,
}

impl Keys {
    pub(super) fn new(seed: u64) -> Keys {
        Keys {
            accesses: Vec::new(),
            free_access: NIL,
            queues: Vec::new(),
            free_queue: NIL,
            live_queues: 0,
            table: vec![NIL; TABLE_MIN],
            seed,
        }
    }

    /// Enters the accesses of `node`.
    pub(super) fn enter(&mut self, node: u32, reads: &[u64], writes: &[u64]) -> Held {
        let mut held = Held { first: NIL, waits: 0 };
        for class in writes {
            self.append(node, *class, true, &mut held);
        }
        for class in reads {
            self.append(node, *class, false, &mut held);
        }
        held
    }

    /// Takes the accesses of a node that is done out of their queues; calls `granted` with the
    /// node of each access that this grants.
    pub(super) fn leave(&mut self, held: Held, mut granted: impl FnMut(u32)) {
        let mut at = held.first;
        while at != NIL {
            let Access { queue, prev, next, sibling, write, .. } = self.accesses[at as usize];
            self.unlink(queue, prev, next, write);
            self.accesses[at as usize].sibling = self.free_access;
            self.free_access = at;
            if self.queues[queue as usize].head == NIL {
                self.drop_queue(queue);
            } else {
                self.grant_front(queue, &mut granted);
            }
            at = sibling;
        }
    }

    /// Number of classes that somebody waits for or holds.
    pub(super) fn classes(&self) -> usize {
        self.live_queues
    }

    fn append(&mut self, node: u32, class: u64, write: bool, held: &mut Held) {
        let queue = self.queue_of(class);
        let Queue { tail, writes, .. } = self.queues[queue as usize];
        if tail != NIL && self.accesses[tail as usize].node == node {
            // Named twice; writes are entered before reads.
            return;
        }
        let free = if write { tail == NIL } else { writes == 0 };
        let overtakes = base::mutant!(EdgeDropped) && write && writes == 0;
        let granted = free || overtakes;
        let access =
            Access { node, queue, prev: tail, next: NIL, sibling: held.first, write, granted };
        let at = match self.free_access {
            NIL => {
                self.accesses.push(access);
                u32::try_from(self.accesses.len() - 1).expect("memory ends before")
            }
            at => {
                self.free_access = self.accesses[at as usize].sibling;
                self.accesses[at as usize] = access;
                at
            }
        };
        if tail == NIL {
            self.queues[queue as usize].head = at;
        } else {
            self.accesses[tail as usize].next = at;
        }
        let entry = &mut self.queues[queue as usize];
        entry.tail = at;
        entry.writes += u32::from(write);
        held.first = at;
        held.waits += u32::from(!granted);
    }

    fn unlink(&mut self, queue: u32, prev: u32, next: u32, write: bool) {
        let entry = &mut self.queues[queue as usize];
        entry.writes -= u32::from(write);
        if prev == NIL {
            entry.head = next;
        } else {
            self.accesses[prev as usize].next = next;
        }
        if next == NIL {
            entry.tail = prev;
        } else {
            self.accesses[next as usize].prev = prev;
        }
    }

    /// Grants what may go on now at the front of a queue.
    fn grant_front(&mut self, queue: u32, granted: &mut impl FnMut(u32)) {
        let head = self.queues[queue as usize].head;
        if self.accesses[head as usize].write {
            self.grant(head, granted);
            return;
        }
        let mut at = head;
        // Whoever is granted already, all before it are, too: the walk is over at once unless a
        // write has just left.
        while at != NIL && !self.accesses[at as usize].write && self.grant(at, granted) {
            at = self.accesses[at as usize].next;
        }
    }

    /// False when it was granted before.
    fn grant(&mut self, at: u32, granted: &mut impl FnMut(u32)) -> bool {
        let access = &mut self.accesses[at as usize];
        let fresh = !core::mem::replace(&mut access.granted, true);
        if fresh {
            granted(access.node);
        }
        fresh
    }

    /// The queue of `class`, which is made if there is none.
    fn queue_of(&mut self, class: u64) -> u32 {
        let chain = self.chain_of(class);
        let mut at = self.table[chain];
        while at != NIL {
            let queue = &self.queues[at as usize];
            if queue.class == class {
                return at;
            }
            at = queue.chain;
        }
        if self.live_queues >= self.table.len() {
            self.grow();
        }
        let chain = self.chain_of(class);
        let fresh = Queue { class, head: NIL, tail: NIL, writes: 0, chain: self.table[chain] };
        let at = match self.free_queue {
            NIL => {
                self.queues.push(fresh);
                u32::try_from(self.queues.len() - 1).expect("memory ends before")
            }
            at => {
                self.free_queue = self.queues[at as usize].chain;
                self.queues[at as usize] = fresh;
                at
            }
        };
        self.table[chain] = at;
        self.live_queues += 1;
        at
    }

    fn drop_queue(&mut self, gone: u32) {
        let Queue { class, chain: rest, .. } = self.queues[gone as usize];
        let chain = self.chain_of(class);
        if self.table[chain] == gone {
            self.table[chain] = rest;
        } else {
            let mut at = self.table[chain];
            while self.queues[at as usize].chain != gone {
                at = self.queues[at as usize].chain;
            }
            self.queues[at as usize].chain = rest;
        }
        self.queues[gone as usize].chain = self.free_queue;
        self.free_queue = gone;
        self.live_queues -= 1;
    }

    fn grow(&mut self) {
        let chains = core::mem::take(&mut self.table);
        self.table = vec![NIL; chains.len() * 2];
        for mut at in chains {
            while at != NIL {
                let Queue { class, chain: next, .. } = self.queues[at as usize];
                let chain = self.chain_of(class);
                self.queues[at as usize].chain = self.table[chain];
                self.table[chain] = at;
                at = next;
            }
        }
    }

    fn chain_of(&self, class: u64) -> usize {
        let mut mixed = (class ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        // A power of two, so the mask keeps evenly spread bits.
        (mixed >> 32) as usize & (self.table.len() - 1)
    }

    /// Checks the invariants. O(everything).
    pub(super) fn check(&self) {
        let mut live = 0;
        for chain in &self.table {
            let mut at = *chain;
            while at != NIL {
                let queue = &self.queues[at as usize];
                assert_ne!(queue.head, NIL, "class {} has an empty queue", queue.class);
                self.check_queue(queue);
                live += 1;
                at = queue.chain;
            }
        }
        assert_eq!(live, self.live_queues, "queues are miscounted");
    }

    fn check_queue(&self, queue: &Queue) {
        let (mut at, mut writes, mut prev) = (queue.head, 0, NIL);
        while at != NIL {
            let access = &self.accesses[at as usize];
            let due = if access.write { prev == NIL } else { writes == 0 };
            assert!(
                access.granted == due || base::mutant!(EdgeDropped),
                "class {}: who may go on is not who does",
                queue.class
            );
            assert_eq!(access.prev, prev, "class {}: neighbours differ", queue.class);
            writes += u32::from(access.write);
            (prev, at) = (at, access.next);
        }
        assert_eq!((queue.tail, queue.writes), (prev, writes), "class {}", queue.class);
    }
}
