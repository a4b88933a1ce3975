//! What the owner of a stage gets back from it.

use alloc::vec::Vec;
use core::fmt;

use base::{FromStage, PillarId, Seq};

use crate::merge::Undeliverable;

/// Where a message of the stage goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// To every pillar of the replica and to its coordinator.
    All,
    /// To one pillar.
    Pillar(PillarId),
    /// To the coordinator.
    Coordinator,
}

/// What the stage wants to be carried out, in order. The owner empties it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StageOutbox {
    /// Messages and where they go.
    pub messages: Vec<(Target, FromStage)>,
}

/// What [`super::Stage::run`] ended with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Nothing to do until the next delivery.
    Idle,
    /// The budget is used up: run again.
    More,
    /// The service has not got a result yet: run again when it may have.
    Waiting,
}

/// Why a message was not taken. Each is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StageReject {
    /// The batch cannot be merged.
    Undeliverable(Seq, Undeliverable),
}

impl fmt::Display for StageReject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StageReject::Undeliverable(seq, why) = self;
        write!(f, "batch {seq} is refused: {why}")
    }
}

impl core::error::Error for StageReject {}

impl Turn {
    /// Whether the owner should run the stage again without waiting for a message.
    #[must_use]
    pub fn more(self) -> bool {
        self != Turn::Idle
    }
}

impl StageOutbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> StageOutbox {
        StageOutbox::default()
    }

    pub(crate) fn all(&mut self, message: FromStage) {
        self.messages.push((Target::All, message));
    }

    pub(crate) fn pillar(&mut self, pillar: PillarId, message: FromStage) {
        self.messages.push((Target::Pillar(pillar), message));
    }

    pub(crate) fn coordinator(&mut self, message: FromStage) {
        self.messages.push((Target::Coordinator, message));
    }
}
