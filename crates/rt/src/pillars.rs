//! The task of a thread in consensus-oriented parallelization: lanes with everything that belongs
//! to them, and perhaps the coordinator and the execution stage (COP §4).
//!
//! A turn: read; hand mail between lanes and stage until it is quiet; let the lanes end their
//! turn; write, once per connection.
//!
//! Not here: which lanes live where (`mesh`), the poll (`event_loop`).

use base::{Now, Time};
use mio::Events;

use crate::coordinator_host::CoordinatorHost;
use crate::event_loop::{BELL, Task};
use crate::lane_host::LaneHost;
use crate::report::ThreadSnapshot;
use crate::stage_host::StageHost;
use crate::status::StatusDesk;

/// The tokens of lane i begin at i times this.
pub(crate) const TOKENS_PER_LANE: usize = 1 << 32;
/// How often mail is handed round in one turn. Whatever is left waits for the next one, which
/// then begins without blocking.
const ROUNDS_PER_TURN: usize = 4;

/// One thread's part of a replica.
pub(crate) struct Pillars {
    pub(crate) lanes: Vec<LaneHost>,
    pub(crate) stage: Option<StageHost>,
    /// On the thread of pillar 0, which is then the first of `lanes`.
    pub(crate) coordinator: Option<CoordinatorHost>,
    pub(crate) desk: StatusDesk,
}

impl Task for Pillars {
    fn turn(&mut self, now: Now, events: &Events) -> bool {
        for event in events {
            let lane = event.token().0 / TOKENS_PER_LANE;
            if event.token() != BELL
                && let Some(lane) = self.lanes.get_mut(lane)
            {
                lane.door.links.on_event(event);
            }
        }
        for lane in &mut self.lanes {
            lane.begin(now);
            lane.read();
        }
        let mut busy = false;
        for _ in 0..ROUNDS_PER_TURN {
            let mut any = false;
            for lane in &mut self.lanes {
                any |= lane.take_mail();
            }
            if let Some(stage) = &mut self.stage {
                any |= stage.turn();
            }
            if let Some(coordinator) = &mut self.coordinator {
                any |= coordinator.turn(now, &mut self.lanes[0].wired());
            }
            busy |= any;
            if !any {
                break;
            }
        }
        for lane in &mut self.lanes {
            lane.end();
        }
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.end(&mut self.lanes[0].wired());
        }
        self.answer_status(now.mono);
        self.lanes.iter_mut().for_each(LaneHost::flush);
        busy
    }

    fn more(&self) -> bool {
        self.lanes.iter().any(LaneHost::more)
            || self.stage.as_ref().is_some_and(StageHost::more)
            || self.coordinator.as_ref().is_some_and(CoordinatorHost::more)
    }

    fn doze(&mut self) -> bool {
        self.lanes.iter_mut().any(LaneHost::doze)
    }

    fn next_time(&self) -> Option<Time> {
        let coordinator = self.coordinator.as_ref().and_then(CoordinatorHost::next_time);
        let lanes = self.lanes.iter().filter_map(LaneHost::next_time);
        let stage = self.stage.as_ref().and_then(StageHost::next_time);
        lanes.chain(coordinator).chain(stage).min()
    }

    fn soon(&self) -> bool {
        self.lanes.iter().any(LaneHost::overflowing)
            || self.stage.as_ref().is_some_and(StageHost::soon)
            || self.coordinator.as_ref().is_some_and(CoordinatorHost::overflowing)
    }

    fn drain(&mut self) {
        self.lanes.iter_mut().for_each(LaneHost::drain);
    }

    fn last_words(&mut self) {
        self.lanes.iter_mut().for_each(LaneHost::flush);
    }

    fn drained(&mut self) -> bool {
        self.stage.as_ref().is_none_or(StageHost::is_idle)
            && self.lanes.iter_mut().all(LaneHost::drained)
    }

    fn snapshot(&mut self) -> ThreadSnapshot {
        snapshot(&mut self.lanes, self.stage.as_ref(), self.coordinator.as_ref())
    }
}

impl Pillars {
    fn answer_status(&mut self, now: Time) {
        if self.lanes.iter().all(|lane| lane.door.status_asked.is_empty()) {
            return;
        }
        let Pillars { lanes, stage, coordinator, desk } = self;
        let json = desk.json(now, || snapshot(lanes, stage.as_ref(), coordinator.as_ref()));
        for lane in lanes {
            lane.answer_status(json);
        }
    }
}

fn snapshot(
    lanes: &mut [LaneHost],
    stage: Option<&StageHost>,
    coordinator: Option<&CoordinatorHost>,
) -> ThreadSnapshot {
    ThreadSnapshot {
        lanes: lanes.iter_mut().map(LaneHost::snapshot).collect(),
        stage: stage.map(StageHost::snapshot),
        coordinator: coordinator.map(CoordinatorHost::snapshot),
        ends: Vec::new(),
    }
}
