//! The execution stage with its rings, and the clock that the stage itself does not have.
//!
//! Lives on the thread of pillar 0 or on one of its own; the code is the same. Not here: what
//! the stage does (`exec`).

use base::{FromStage, ToStage};
use exec::{Stage, StageOutbox, StageReject, StageReport, Target, Turn};

use crate::clock::Clock;
use crate::ring::{RingReceiver, RingSender};

/// Operations per turn: enough to make a turn worth its costs, few enough for the lanes on the
/// same thread to be heard.
const OPS_PER_TURN: usize = 2048;

/// The stage and its links to all lanes.
pub(crate) struct StageHost {
    stage: Stage,
    outbox: StageOutbox,
    from_lanes: Vec<RingReceiver<ToStage>>,
    to_lanes: Vec<RingSender<FromStage>>,
    clock: Clock,
    pauses: Pauses,
    turn: Turn,
    overflowing: bool,
    diverged: bool,
}

/// How long checkpoints have held up execution, in microseconds. An upper bound: each is the
/// time of the whole turn in which the checkpoint was taken, up to one turn's operations
/// included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pauses {
    pub(crate) last_us: u64,
    pub(crate) max_us: u64,
}

/// What the stage tells when it is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StageSnapshot {
    pub(crate) report: StageReport,
    pub(crate) pauses: Pauses,
    pub(crate) diverged: bool,
}

impl StageHost {
    pub(crate) fn new(
        stage: Stage,
        from_lanes: Vec<RingReceiver<ToStage>>,
        to_lanes: Vec<RingSender<FromStage>>,
        clock: Clock,
    ) -> StageHost {
        StageHost {
            stage,
            outbox: StageOutbox::new(),
            from_lanes,
            to_lanes,
            clock,
            pauses: Pauses::default(),
            turn: Turn::Idle,
            overflowing: false,
            diverged: false,
        }
    }

    /// Takes what the lanes say, executes within bounds, and tells the lanes what came of it.
    /// True when there was something to do.
    pub(crate) fn turn(&mut self) -> bool {
        let mut any = self.turn.more();
        for lane in &mut self.from_lanes {
            while let Some(message) = lane.pop() {
                any = true;
                match self.stage.on(message, &mut self.outbox) {
                    Ok(()) => {}
                    Err(StageReject::Undeliverable(seq, why)) => {
                        tracing::debug!(%seq, ?why, "batch refused by the stage");
                    }
                    Err(StageReject::Diverged { seq, ours, certified }) => {
                        self.diverged = true;
                        tracing::error!(%seq, ?ours, ?certified, "state diverged, stage halted");
                    }
                }
            }
        }
        if any && !self.diverged {
            self.run();
        }
        self.carry_out();
        any
    }

    /// Whether there is work that needs no message to begin.
    pub(crate) fn more(&self) -> bool {
        let runnable = self.turn == Turn::More && !self.diverged;
        runnable || self.from_lanes.iter().any(|lane| !lane.is_empty())
    }

    /// Whether it has to be tried again soon: a ring is full, or the service is not ready.
    pub(crate) fn soon(&self) -> bool {
        self.overflowing || self.turn == Turn::Waiting
    }

    /// What can be told about the stage.
    pub(crate) fn snapshot(&self) -> StageSnapshot {
        let report = self.stage.report();
        StageSnapshot { report, pauses: self.pauses, diverged: self.diverged }
    }

    fn run(&mut self) {
        let before = self.stage.report().checkpoints;
        let began = self.clock.mono();
        self.turn = self.stage.run(OPS_PER_TURN, &mut self.outbox);
        if self.stage.report().checkpoints != before {
            let us = self.clock.mono().since(began).0 / 1_000;
            self.pauses = Pauses { last_us: us, max_us: self.pauses.max_us.max(us) };
        }
    }

    fn carry_out(&mut self) {
        for (target, message) in self.outbox.messages.drain(..) {
            match target {
                Target::All => {
                    self.to_lanes.iter_mut().for_each(|lane| lane.push(message.clone()));
                }
                Target::Pillar(pillar) => {
                    let lane = self.to_lanes.get_mut(usize::from(pillar.0));
                    lane.expect("the stage names pillars of its own stripe").push(message);
                }
            }
        }
        self.overflowing = false;
        for lane in &mut self.to_lanes {
            self.overflowing |= lane.flush();
        }
    }
}
