//! The execution stage of a pipeline: that of the pillars on a thread of its own.

use base::{Now, Time};
use mio::Events;

use crate::event_loop::Task;
use crate::report::ThreadSnapshot;
use crate::stage_host::StageHost;

/// The stage.
pub(super) struct ExecTask(pub(super) StageHost);

impl Task for ExecTask {
    fn turn(&mut self, _: Now, _: &Events) -> bool {
        self.0.turn()
    }

    fn more(&self) -> bool {
        self.0.more()
    }

    fn next_time(&self) -> Option<Time> {
        self.0.next_time()
    }

    fn soon(&self) -> bool {
        self.0.soon()
    }

    fn drained(&mut self) -> bool {
        self.0.is_idle()
    }

    fn snapshot(&mut self) -> ThreadSnapshot {
        ThreadSnapshot { stage: Some(self.0.snapshot()), ..ThreadSnapshot::default() }
    }
}
