//! The reference: one server without replicas that executes the same history. Whatever a service
//! answers at a replica, this one answers; whatever state a replica has, this one had at that
//! number.
//!
//! Looks at the results of all executions, at agreed wakes, and at the service's root at every
//! checkpoint that a replica takes or fetches; on demand at every byte of a state. So it sees
//! state transfer that loses or invents something, execution on half a state, and writes that no
//! checkpoint covers. Does not see a bug of the service itself: that is the service's invariant
//! (`money`) and its own tests.

use std::collections::BTreeMap;

use base::{Batch, ClientId, Digest, FrameId, Seq, SessionId};
use exec::WAKE_INDEX;
use exec::service::{Completion, Context, Service};
use exec::tree::ObjectTree;

use super::Verdict;
use super::executions::Done;
use crate::observe::{Execution, mark};

/// A server without replicas.
pub struct Reference {
    service: Box<dyn Service>,
    tree: ObjectTree,
    interval: u64,
    /// It has executed up to here.
    at: Seq,
    roots: BTreeMap<Seq, Digest>,
}

impl std::fmt::Debug for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reference").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Reference {
    /// A server with a fresh service, and a checkpoint each `interval` numbers.
    #[must_use]
    pub fn new(service: Box<dyn Service>, interval: u64) -> Reference {
        let tree = ObjectTree::new(service.objects());
        Reference { service, tree, interval, at: Seq(0), roots: BTreeMap::new() }
    }

    /// A number was executed somewhere for the first time: executes the same, and writes down
    /// what the results are. Whoever executed it is compared with that afterwards.
    ///
    /// # Errors
    /// When it is not the next, or the service was to be woken and was not, or the reverse.
    pub fn follows(&mut self, seq: Seq, batch: &Batch, done: &mut Done) -> Verdict {
        if seq != self.at.next() {
            return Err(format!("{seq:?} is executed, and {:?} was last", self.at));
        }
        self.at = seq;
        let Batch::Frames { frames, .. } = batch else {
            self.checkpoint();
            return Ok(());
        };
        let due = self.service.deadline().is_some_and(|deadline| deadline <= done.time);
        let woke = done.executions.first().is_some_and(|one| one.index == WAKE_INDEX);
        if due != woke {
            return Err(format!("at {seq:?} a wake is due: {due}, and it woke: {woke}"));
        }
        if due {
            let nobody = FrameId { client: ClientId(0), session: SessionId(0), stream: 0, id: 0 };
            let (tree, mut outputs) = (&mut self.tree, Vec::new());
            let index = WAKE_INDEX;
            let mut ctx = Context::new(seq, index, done.time, nobody, tree, &mut outputs);
            self.service.wake(&mut ctx);
        }
        let mut left = &mut done.executions[usize::from(woke)..];
        let mut index = 1;
        for frame in frames {
            let ops = frame.op_count() as u32;
            let mine = left.iter().take_while(|one| one.index < index + ops).count();
            let (now, later) = left.split_at_mut(mine);
            left = later;
            for (one, op) in now.iter_mut().zip(frame.ops()) {
                self.execute(one, op);
            }
            index += ops;
        }
        self.checkpoint();
        Ok(())
    }

    fn execute(&mut self, one: &mut Execution, op: &[u8]) {
        let (tree, mut outputs, mut result) = (&mut self.tree, Vec::new(), Vec::new());
        let mut ctx = Context::new(one.seq, one.index, one.time, one.frame, tree, &mut outputs);
        if let Completion::Later(ticket) = self.service.execute(op, &mut ctx, &mut result) {
            while !self.service.poll(ticket, &mut result) {}
        }
        one.result = mark(&result);
    }

    fn checkpoint(&mut self) {
        if self.at.0.is_multiple_of(self.interval) {
            let service = &mut self.service;
            let root = self.tree.refresh(|object| service.digest(object));
            self.roots.insert(self.at, root);
        }
    }

    /// A replica says that its service has this root at a checkpoint.
    ///
    /// # Errors
    /// When it is not this server's.
    pub fn root(&self, seq: Seq, root: Digest) -> Verdict {
        match self.roots.get(&seq) {
            Some(right) if *right != root => Err(format!("at {seq:?} {root:?} is not {right:?}")),
            _ => Ok(()),
        }
    }

    /// Compares the whole state of a replica's service that has executed up to `at`. O(state).
    ///
    /// # Errors
    /// When it differs from this server's at the same number.
    pub fn state(&self, at: Seq, service: &dyn Service) -> Verdict {
        if at != self.at {
            return Ok(());
        }
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for object in 0..self.service.objects() {
            theirs.clear();
            ours.clear();
            service.get(object, &mut theirs);
            self.service.get(object, &mut ours);
            if theirs != ours {
                return Err(format!("at {at:?} object {object} is {theirs:?} and not {ours:?}"));
            }
        }
        Ok(())
    }

    /// The number up to which it has executed.
    #[must_use]
    pub fn at(&self) -> Seq {
        self.at
    }

    /// Its service.
    #[must_use]
    pub fn service(&self) -> &dyn Service {
        &*self.service
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracles::testing::{batch, frame};
    use crate::work::counters::Counters;
    use base::{AgreedTime, ReplicaId, Writer};

    fn add(token: u64) -> Vec<u8> {
        let mut op = Vec::new();
        Writer::new(&mut op).u32(3).u8(1).u64(token);
        op
    }

    #[test]
    fn results_and_states_are_compared_with_one_server() {
        let mut reference = Reference::new(Box::new(Counters::default()), 1);
        let frame = frame(0, 1, &[&add(0), &add(1)]);
        let (op, time) = (mark(&add(0)), AgreedTime(100));
        let one = Execution { seq: Seq(1), index: 1, time, frame: frame.id(), op, result: 0 };
        let executions = vec![one, Execution { index: 2, op: mark(&add(1)), ..one }];
        let mut done = Done { by: ReplicaId(0), time, executions };
        let batch = batch(&[frame]);
        assert_eq!(reference.follows(Seq(1), &batch, &mut done), Ok(()));
        assert_eq!(done.executions[1].result, mark(&1u64.to_le_bytes()));
        assert!(reference.state(Seq(1), &Counters::default()).is_err(), "nothing is counted");
        let root = reference.roots[&Seq(1)];
        assert_eq!(reference.root(Seq(1), root), Ok(()));
        assert!(reference.root(Seq(1), Digest::ZERO).is_err());
        assert!(reference.follows(Seq(3), &batch, &mut done).is_err(), "2 was left out");
        let wake = Execution { seq: Seq(2), index: WAKE_INDEX, ..one };
        done.executions = vec![wake];
        assert!(reference.follows(Seq(2), &batch, &mut done).is_err(), "nothing is due");
    }
}
