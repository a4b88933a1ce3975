//! The replicated state as checkpoints and their transfer see it: two trees of numbered objects
//! ([`Part`]), the service's and the session table's.
//!
//! Not here: execution, and when a checkpoint is taken, pinned or fetched.

use alloc::vec::Vec;

use base::transfer::Part;
use base::{Digest, Malformed, Seq};

use crate::engine::Engine;
use crate::session::Sessions;
use crate::tree::{self, ObjectTree};

/// Both parts, in the order in which they are carried over.
pub(crate) const PARTS: [Part; 2] = [Part::Service, Part::Sessions];

/// The roots of both trees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Roots {
    pub(crate) service: Digest,
    pub(crate) sessions: Digest,
}

/// Everything that a checkpoint covers but for numbers and time.
pub(crate) struct State {
    pub(crate) engine: Engine,
    pub(crate) sessions: Sessions,
}

impl State {
    /// The tree over one part.
    pub(crate) fn tree(&self, part: Part) -> &ObjectTree {
        match part {
            Part::Service => self.engine.tree(),
            Part::Sessions => self.sessions.tree(),
        }
    }

    fn tree_mut(&mut self, part: Part) -> &mut ObjectTree {
        match part {
            Part::Service => self.engine.tree_mut(),
            Part::Sessions => self.sessions.tree_mut(),
        }
    }

    /// Recomputes what was written and returns the part's root.
    pub(crate) fn refresh(&mut self, part: Part) -> Digest {
        match part {
            Part::Service => self.engine.root(),
            Part::Sessions => self.sessions.digest(),
        }
    }

    /// Begins a refresh in pieces: the next roots are those of the state as it is now. Returns how
    /// many of the service's objects it is about.
    pub(crate) fn freeze(&mut self) -> usize {
        let objects = self.engine.tree_mut().freeze();
        self.sessions.tree_mut().freeze();
        objects
    }

    /// Goes on with it, by about `budget` digests. The roots once they are made.
    pub(crate) fn proceed(&mut self, mut budget: usize) -> Option<Roots> {
        let made = self.engine.proceed(&mut budget) && self.sessions.proceed(&mut budget);
        let root = |part| self.tree(part).root();
        made.then(|| Roots { service: root(Part::Service), sessions: root(Part::Sessions) })
    }

    /// Gives up a refresh that is under way, so that another can begin. Nothing is pinned that was
    /// pinned since it began.
    pub(crate) fn thaw(&mut self) {
        PARTS.iter().for_each(|part| self.tree_mut(*part).thaw());
    }

    /// At least as many digests as are still to be made.
    pub(crate) fn left(&self) -> usize {
        PARTS.iter().map(|part| self.tree(*part).left()).sum()
    }

    /// Appends an object's bytes as they are now.
    pub(crate) fn get(&self, part: Part, object: u32, out: &mut Vec<u8>) {
        match part {
            Part::Service => self.engine.service().get(object, out),
            Part::Sessions => self.sessions.get(object, out),
        }
    }

    /// Replaces an object by bytes that nobody believes yet, if they are those of this leaf;
    /// returns whether they are.
    pub(crate) fn put_if(&mut self, part: Part, object: u32, bytes: &[u8], leaf: Digest) -> bool {
        let mut is_right =
            |digest| tree::leaf(object, digest) == leaf || base::mutant!(StateUnverified);
        match part {
            Part::Service => {
                let put = self.engine.put_if(object, bytes, &mut is_right);
                put.unwrap_or(base::mutant!(StateUnverified))
            }
            Part::Sessions => {
                let right = Sessions::digest_of(object, bytes).is_ok_and(is_right);
                if right {
                    // What it refuses although its digest is right is found out in the end.
                    let _ = self.sessions.put(object, bytes);
                }
                right
            }
        }
    }

    /// Replaces an object by certified bytes.
    pub(crate) fn put(&mut self, part: Part, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        match part {
            Part::Service => self.engine.put(object, bytes),
            Part::Sessions => self.sessions.put(object, bytes),
        }
    }

    /// Puts an object's own bytes back in, so that nothing that was derived from them before,
    /// digests above all, is believed any longer. Returns how many bytes there were.
    pub(crate) fn renew(&mut self, part: Part, object: u32) -> usize {
        let mut bytes = Vec::new();
        self.get(part, object, &mut bytes);
        // What cannot be read back is wrong whatever it was: its digest will say so.
        let _ = self.put(part, object, &bytes);
        bytes.len()
    }

    /// Objects written since the last refresh.
    pub(crate) fn marked(&self, part: Part) -> usize {
        self.tree(part).marked()
    }

    /// Keeps the state, whose trees are refreshed or just frozen, readable under this number.
    pub(crate) fn pin(&mut self, at: Seq) {
        PARTS.iter().for_each(|part| self.tree_mut(*part).pin(at));
    }

    /// Ends [`State::pin`].
    pub(crate) fn unpin(&mut self, at: Seq) {
        PARTS.iter().for_each(|part| self.tree_mut(*part).unpin(at));
    }

    /// Appends the bytes that an object had when this number was pinned to `out`. False, and
    /// nothing is appended, when it is not pinned, or there is no such object.
    pub(crate) fn append_pinned(
        &self,
        at: Seq,
        (part, object): (Part, u32),
        out: &mut Vec<u8>,
    ) -> bool {
        let tree = self.tree(part);
        if object >= tree.objects() || !tree.pins().holds(at) {
            return false;
        }
        match tree.pins().object(at, object) {
            Some(saved) => out.extend_from_slice(saved),
            None => self.get(part, object, out),
        }
        true
    }

    /// Bytes of copies that pins hold, and that may have to be put back.
    pub(crate) fn saved_bytes(&self) -> usize {
        PARTS.iter().map(|part| self.tree(*part).saved_bytes()).sum()
    }
}
