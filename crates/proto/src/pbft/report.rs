//! What a lane tells about itself, to whoever may ask. Decides nothing.

use base::links::PillarReport;

use super::Lane;

impl Lane {
    /// What people may want to know.
    #[must_use]
    pub fn report(&self) -> PillarReport {
        PillarReport {
            view: self.view,
            leaders: self.views.roles.leading_at(self.next_undelivered()),
            stable: self.checkpoints.stable(),
            stable_digest: self.checkpoints.stable_digest(),
            delivered: self.delivered,
            pending_frames: self.pool.len() as u64,
            // A backup has proposed nothing, wherever the plan of its view ends.
            in_flight: if self.is_leader() { self.in_flight() as u64 } else { 0 },
            stale: self.stale,
            misbehaviour: self.misbehaviour,
        }
    }

    /// About how many things the lane holds: what [`Lane::check`] costs.
    #[must_use]
    pub fn held(&self) -> usize {
        self.pool.len() + self.log.len()
    }
}
