//! Who waits for whom at which class: one queue of accesses per class.
//!
//! An access is granted when nothing before it in its queue conflicts with it: a write at the
//! front, a read with no write ahead. An operation may begin once all its accesses are granted.
//! Entering and leaving cost in proportion to the classes that the operation names, however many
//! are pending: no edge from operation to operation is ever stored. Accesses and queues live in
//! slabs, where neighbours in time are neighbours in memory; only [`super::index`] is random.
//!
//! Invariants:
//! 1. what is granted in a queue is its first access, if that is a write, or else all reads in
//!    front of the first write;
//! 2. an operation has at most one access in each queue;
//! 3. a queue without accesses does not exist.

use alloc::vec::Vec;

use super::index::Index;

/// "None", as an index.
pub(super) const NIL: u32 = u32::MAX;

/// The queues of all classes.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    accesses: Vec<Access>,
    free_access: u32,
    queues: Vec<Queue>,
    free_queue: u32,
    index: Index,
    /// Of the classes that are being entered, so that each is hashed once.
    hashes: Vec<u32>,
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
    hash: u32,
    /// The first access, or the next queue of the free list.
    head: u32,
    tail: u32,
    writes: u32,
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
            index: Index::new(seed),
            hashes: Vec::new(),
        }
    }

    /// Enters the accesses of `node`.
    pub(super) fn enter(&mut self, node: u32, reads: &[u64], writes: &[u64]) -> Held {
        let mut held = Held { first: NIL, waits: 0 };
        let mut hashes = core::mem::take(&mut self.hashes);
        hashes.extend(writes.iter().chain(reads).map(|class| self.index.hash(*class)));
        self.touch(hashes.iter().copied());
        let (of_writes, of_reads) = hashes.split_at(writes.len());
        for (class, hash) in writes.iter().zip(of_writes) {
            self.append(node, (*class, *hash), true, &mut held);
        }
        for (class, hash) in reads.iter().zip(of_reads) {
            self.append(node, (*class, *hash), false, &mut held);
        }
        hashes.clear();
        self.hashes = hashes;
        held
    }

    /// Asks the memory for what will be looked up: for all of it before any of it is needed.
    fn touch(&self, hashes: impl Iterator<Item = u32>) {
        core::hint::black_box(hashes.fold(0, |all, hash| all ^ self.index.touch(hash)));
    }

    /// The accesses of a node.
    fn accesses(&self, held: Held) -> impl Iterator<Item = &Access> {
        let of = |at: u32| self.accesses.get(at as usize);
        core::iter::successors(of(held.first), move |access| of(access.sibling))
    }

    /// Takes the accesses of a node that is done out of their queues; calls `granted` with the
    /// node of each access that this grants.
    pub(super) fn leave(&mut self, held: Held, mut granted: impl FnMut(u32)) {
        let hash = |access: &Access| self.queues[access.queue as usize].hash;
        self.touch(self.accesses(held).map(hash));
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
        self.index.len()
    }

    fn append(&mut self, node: u32, class: (u64, u32), write: bool, held: &mut Held) {
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

    /// The queue of a class with that hash, which is made if there is none.
    fn queue_of(&mut self, (class, hash): (u64, u32)) -> u32 {
        let queues = &self.queues;
        if let Some(known) = self.index.find(hash, |at| queues[at as usize].class == class) {
            return known;
        }
        let fresh = Queue { class, hash, head: NIL, tail: NIL, writes: 0 };
        let at = match self.free_queue {
            NIL => {
                self.queues.push(fresh);
                u32::try_from(self.queues.len() - 1).expect("memory ends before")
            }
            at => {
                self.free_queue = self.queues[at as usize].head;
                self.queues[at as usize] = fresh;
                at
            }
        };
        self.index.insert(hash, at);
        at
    }

    fn drop_queue(&mut self, gone: u32) {
        self.index.remove(self.queues[gone as usize].hash, gone);
        self.queues[gone as usize].head = self.free_queue;
        self.free_queue = gone;
    }

    /// Checks the invariants. O(everything).
    pub(super) fn check(&self) {
        self.index.check();
        for (hash, at) in self.index.iter() {
            let queue = &self.queues[at as usize];
            assert_ne!(queue.head, NIL, "class {} has an empty queue", queue.class);
            assert_eq!((queue.hash, self.index.hash(queue.class)), (hash, hash));
            self.check_queue(queue);
        }
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
