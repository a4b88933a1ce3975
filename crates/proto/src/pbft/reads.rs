//! Reads: a lane passes them on to execution, and says from which number on they may be answered.
//!
//! A client believes that what a replica has shown once it will not take back. A life that
//! begins with less than an earlier one had executed must not answer reads before it has come
//! that far again. How far that was nobody knows: not all that is executed was voted for here,
//! and not all that was learned is on the disk. But nothing was executed beyond the window above
//! the checkpoint that the records know to be certified, so what is above it is new. A life that
//! may have forgotten learns such a bound from the others (recovery.md, R6).
//!
//! Not here: what is answered (`exec`).

use alloc::sync::Arc;

use base::{Frame, Seq, ToStage};

use super::{Lane, Reject};
use crate::outbox::Outbox;

impl Lane {
    /// A client wants reads answered.
    pub(super) fn on_read(&mut self, frame: Arc<Frame>, out: &mut Outbox) -> Result<(), Reject> {
        if !self.cfg.switches.reads {
            return Err(Reject::Stale("a read in a group that orders reads"));
        }
        let (pillar, from) = (self.cfg.pillar, self.reads_from());
        out.stage(ToStage::Read { pillar, frame, from });
        Ok(())
    }

    /// The number from which on reads may be answered: for ever out of reach while this replica
    /// does not know what it has forgotten.
    fn reads_from(&self) -> Seq {
        if base::mutant!(ReadsForgetful) {
            return Seq(0);
        }
        self.views.above.map_or(Seq(u64::MAX), |above| above.max(self.views.shown))
    }

    /// An earlier life knew the checkpoint at `certified`, or may have: it is not executed yet.
    pub(super) fn may_have_shown(&mut self, certified: Seq) {
        let behind = certified >= self.progress.executed;
        if self.views.resumes && behind {
            // Execution is told of a little more than the window.
            let beyond = self.cfg.window + self.cfg.checkpoint_interval;
            let shown = Seq(certified.0.saturating_add(beyond));
            self.views.shown = self.views.shown.max(shown);
        }
    }
}
