//! Which part of a replica lives on which thread, and the rings between the parts.
//!
//! Lanes are not threads (design §2): P is fixed in the group's configuration, threads follow
//! the cores. The coordinator lives on the thread of pillar 0, whose links carry its messages.
//! Whatever shares a thread is linked by rings all the same, but needs no bell.
//!
//! Not here: what the parts do. Depends on `ring` and on the message types alone.

use std::sync::Arc;

use base::{FromStage, Sibling, ToStage};
use proto::group::link::{FromCoordinator, ToCoordinator};

use crate::ring::{Bell, RingReceiver, RingSender, ring};

/// Items per ring between a lane, or the coordinator, and the stage.
const STAGE_RING: usize = 1024;
/// Items per ring between two lanes.
const SIBLING_RING: usize = 64;
/// Items per ring between a lane and the coordinator.
const COORDINATOR_RING: usize = 256;

/// Which thread hosts what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) threads: usize,
    pub(crate) lanes: Vec<usize>,
    pub(crate) stage: usize,
    /// In a task-oriented pipeline: who takes replies instead of the lanes.
    pub(crate) replies: Option<usize>,
}

impl Layout {
    /// Pillars in turn over the threads. With a thread more than pillars the stage has one of
    /// its own; otherwise it lives with pillar 0.
    pub(crate) fn plan(pillars: usize, cores: usize, wanted: Option<usize>) -> Layout {
        let enough = pillars + 1;
        let default = if cores >= enough { enough } else { pillars.min(cores.max(1)) };
        let threads = wanted.unwrap_or(default).clamp(1, enough);
        let for_lanes = threads.min(pillars);
        let lanes = (0..pillars).map(|pillar| pillar % for_lanes).collect();
        let stage = if threads == enough { pillars } else { 0 };
        Layout { threads, lanes, stage, replies: None }
    }

    /// The coordinator's thread.
    pub(crate) fn coordinator(&self) -> usize {
        self.lanes[0]
    }
}

/// The rings of one lane.
pub(crate) struct LaneMail {
    pub(crate) to_stage: RingSender<ToStage>,
    pub(crate) from_stage: RingReceiver<FromStage>,
    pub(crate) to_siblings: Vec<RingSender<Sibling>>,
    pub(crate) from_siblings: Vec<RingReceiver<Sibling>>,
    pub(crate) to_coordinator: RingSender<ToCoordinator>,
    pub(crate) from_coordinator: RingReceiver<FromCoordinator>,
}

/// The rings of the coordinator. `to_lanes` and `from_lanes` are in the order of pillars.
pub(crate) struct CoordinatorMail {
    pub(crate) to_lanes: Vec<RingSender<FromCoordinator>>,
    pub(crate) from_lanes: Vec<RingReceiver<ToCoordinator>>,
    pub(crate) to_stage: RingSender<ToStage>,
    pub(crate) from_stage: RingReceiver<FromStage>,
}

/// The rings of the stage. `to_lanes` is in the order of pillars; `inbox` has a ring of each
/// lane, and the coordinator's last.
pub(crate) struct StageMail {
    pub(crate) inbox: Vec<RingReceiver<ToStage>>,
    pub(crate) to_lanes: Vec<RingSender<FromStage>>,
    pub(crate) to_coordinator: RingSender<FromStage>,
    /// Where replies go instead of to the lanes, in a task-oriented pipeline.
    pub(crate) replies: Option<RingSender<FromStage>>,
}

/// All rings, sorted by owner. Lanes are in the order of pillars.
pub(crate) struct Mesh {
    pub(crate) lanes: Vec<LaneMail>,
    pub(crate) coordinator: CoordinatorMail,
    pub(crate) stage: StageMail,
    /// From the coordinator to the stage, for whatever else links the two.
    pub(crate) order_bell: Option<Arc<Bell>>,
    /// Replies, in a task-oriented pipeline.
    pub(crate) replies: Option<RingReceiver<FromStage>>,
}

impl Mesh {
    /// The rings for `layout`; `bells` has one for each thread.
    pub(crate) fn new(layout: &Layout, bells: &[Arc<Bell>]) -> Mesh {
        // Who shares a thread needs no bell.
        let bell = |from: usize, to: usize| (from != to).then(|| Arc::clone(&bells[to]));
        let chief = layout.coordinator();
        let (to_stage, from_chief) = ring(STAGE_RING, bell(chief, layout.stage));
        let (to_chief, from_stage) = ring(STAGE_RING, bell(layout.stage, chief));
        let mut coordinator =
            CoordinatorMail { to_lanes: vec![], from_lanes: vec![], to_stage, from_stage };
        let replies = layout.replies.map(|to| ring(STAGE_RING, bell(layout.stage, to)));
        let (replies, at_replies) = replies.unzip();
        let mut stage =
            StageMail { inbox: vec![], to_lanes: vec![], to_coordinator: to_chief, replies };
        let mut lanes = Vec::new();
        for &home in &layout.lanes {
            let (to_stage, at_stage) = ring(STAGE_RING, bell(home, layout.stage));
            let (to_lane, from_stage) = ring(STAGE_RING, bell(layout.stage, home));
            let (to_coordinator, from_lane) = ring(COORDINATOR_RING, bell(home, chief));
            let (from_chief, from_coordinator) = ring(COORDINATOR_RING, bell(chief, home));
            stage.inbox.push(at_stage);
            stage.to_lanes.push(to_lane);
            coordinator.to_lanes.push(from_chief);
            coordinator.from_lanes.push(from_lane);
            lanes.push(LaneMail {
                to_stage,
                from_stage,
                to_siblings: vec![],
                from_siblings: vec![],
                to_coordinator,
                from_coordinator,
            });
        }
        stage.inbox.push(from_chief);
        let pillars = lanes.len();
        for from in 0..pillars {
            for to in (0..pillars).filter(|to| *to != from) {
                let bell = bell(layout.lanes[from], layout.lanes[to]);
                let (sender, receiver) = ring(SIBLING_RING, bell);
                lanes[from].to_siblings.push(sender);
                lanes[to].from_siblings.push(receiver);
            }
        }
        let order_bell = bell(chief, layout.stage);
        Mesh { lanes, coordinator, stage, order_bell, replies: at_replies }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_follow_cores_and_every_party_has_a_home() {
        let plan = Layout::plan;
        let layout = |threads, lanes: &[usize], stage| {
            let lanes = lanes.to_vec();
            Layout { threads, lanes, stage, replies: None }
        };
        assert_eq!(plan(2, 8, None), layout(3, &[0, 1], 2));
        assert_eq!(plan(4, 4, None), layout(4, &[0, 1, 2, 3], 0));
        assert_eq!(plan(4, 2, None), layout(2, &[0, 1, 0, 1], 0));
        assert_eq!(plan(1, 0, None), layout(1, &[0], 0));
        assert_eq!(plan(2, 1, Some(99)), layout(3, &[0, 1], 2));
        assert_eq!(plan(2, 9, Some(1)), layout(1, &[0, 0], 0));
    }
}
