//! A stage from a checkpoint that was kept, on disk or in a snapshot, instead of from nothing.
//!
//! The objects come in one by one and are verified all together, against the roots in the
//! manifest. What is missing or wrong does not make the rest useless: the stage then stands
//! still until it is told to fetch, and fetches only what differs.
//!
//! A new group may begin with the service's state of another group's checkpoint. Its history
//! begins at number 0 all the same, without sessions; agreed time goes on from the checkpoint's,
//! so that nothing in the state lies in the future. What the group began with is covered by the
//! service's root in every digest from then on: replicas that began with different states
//! differ at the first checkpoint.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use base::transfer::{Manifest, Part};
use base::{AgreedTime, Digest, Malformed, Seq, StableCheckpoint};

use super::{Stage, StageConfig, Standing};
use crate::merge::Merge;
use crate::service::Service;
use crate::session::Sessions;
use crate::state::PARTS;

/// A stage in the making.
pub struct StageBuilder {
    stage: Stage,
    manifest: Manifest,
    bad: Vec<(Part, u32)>,
}

/// A stage whose checkpoint did not verify. It executes nothing until it has fetched one.
pub struct Damaged {
    /// The stage, with all objects that could be read.
    pub stage: Stage,
    /// Objects that could not be read at all. None when they are wrong in another way.
    pub bad: Vec<(Part, u32)>,
}

impl Damaged {
    /// The service with what was put into it, for another try with another checkpoint.
    #[must_use]
    pub fn into_service(self) -> Box<dyn Service> {
        self.stage.state.engine.into_service()
    }
}

/// The objects are not those that the manifest covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongState {
    /// The root in the manifest.
    pub expected: Digest,
    /// The root over the objects that were put in.
    pub found: Digest,
}

impl fmt::Display for WrongState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WrongState { expected, found } = self;
        write!(f, "the objects have root {found}, but {expected} is certified")
    }
}

impl core::error::Error for WrongState {}

impl StageBuilder {
    /// Begins with a service in its initial state and what a kept checkpoint says it consists
    /// of.
    ///
    /// # Panics
    /// Like [`Stage::new`].
    #[must_use]
    pub fn new(config: StageConfig, service: Box<dyn Service>, manifest: Manifest) -> StageBuilder {
        StageBuilder { stage: Stage::new(config, service), manifest, bad: Vec::new() }
    }

    /// Number of objects in one part of the state: `0..` this.
    #[must_use]
    pub fn objects(&self, part: Part) -> u32 {
        self.stage.objects(part)
    }

    /// Puts in an object. Objects that are not put in stay as in a new service.
    ///
    /// # Errors
    /// When the bytes are no such object. The builder remembers it and goes on.
    pub fn put(&mut self, part: Part, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let exists = object < self.objects(part);
        let put = match exists {
            true => self.stage.state.put(part, object, bytes),
            false => Err(Malformed("number of an object")),
        };
        if put.is_err() {
            self.bad.push((part, object));
        }
        put
    }

    /// The stage after this checkpoint, whose certificate was verified, or which needs none.
    ///
    /// # Errors
    /// When the manifest or the objects are not what it certifies.
    pub fn finish(mut self, checkpoint: &StableCheckpoint) -> Result<Stage, Box<Damaged>> {
        let Manifest { seq, time, .. } = self.manifest;
        let digest = self.manifest.digest(self.stage.config.group);
        let roots = PARTS.map(|part| self.stage.state.refresh(part));
        let right = self.bad.is_empty()
            && (seq, digest) == (checkpoint.seq, checkpoint.digest)
            && roots == [self.manifest.service, self.manifest.sessions];
        if !right {
            self.stage.standing = Standing::Halted { trusted: true };
            return Err(Box::new(Damaged { stage: self.stage, bad: self.bad }));
        }
        self.stage.begin(seq, time);
        self.stage.note_checkpoint(&self.manifest, digest);
        self.stage.report.stable = seq;
        Ok(self.stage)
    }

    /// The stage of a new group that begins with the service's state of this checkpoint, whose
    /// sessions, if any were put in, are left behind.
    ///
    /// # Errors
    /// When the service's objects are not what the manifest covers.
    pub fn seed(mut self) -> Result<Stage, WrongState> {
        let (expected, found) = (self.manifest.service, self.stage.state.refresh(Part::Service));
        if expected != found || self.bad.iter().any(|(part, _)| *part == Part::Service) {
            return Err(WrongState { expected, found });
        }
        self.stage.state.sessions = Sessions::new();
        self.stage.begin(Seq(0), self.manifest.time);
        Ok(self.stage)
    }
}

impl Stage {
    fn begin(&mut self, seq: Seq, time: AgreedTime) {
        self.merge = Merge::new(seq, self.config.window).with_nulls_ahead(self.config.nulls_ahead);
        (self.executed, self.time) = (seq, time);
        self.abandon_flight(seq);
    }
}
