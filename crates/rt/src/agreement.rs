//! What orders the frames of a pillar: a lane of a group, or, on a server that nobody
//! replicates, the order in which they come. Everything around it is the same for both.
//!
//! Not here: what either does (`proto`).

use base::links::PillarReport;
use base::{Now, Time, View};
use proto::Outbox;
use proto::pbft::{Input, Lane, Reject};
use proto::solo::Solo;

/// The core of one pillar.
pub(crate) enum Agreement {
    /// A group's.
    Pbft(Box<Lane>),
    /// An unreplicated server's.
    None(Box<Solo>),
}

impl Agreement {
    pub(crate) fn step(&mut self, now: Now, input: Input, out: &mut Outbox) -> Result<(), Reject> {
        match self {
            Agreement::Pbft(lane) => lane.step(now, input, out),
            Agreement::None(solo) => solo.step(now, input, out),
        }
    }

    pub(crate) fn view(&self) -> View {
        match self {
            Agreement::Pbft(lane) => lane.view(),
            Agreement::None(solo) => solo.view(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        match self {
            Agreement::Pbft(lane) => lane.deadline(),
            Agreement::None(solo) => solo.deadline(),
        }
    }

    pub(crate) fn held(&self) -> usize {
        match self {
            Agreement::Pbft(lane) => lane.held(),
            Agreement::None(solo) => solo.held(),
        }
    }

    pub(crate) fn report(&self) -> PillarReport {
        match self {
            Agreement::Pbft(lane) => lane.report(),
            Agreement::None(solo) => solo.report(),
        }
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// When one does not hold.
    pub(crate) fn check(&self) {
        match self {
            Agreement::Pbft(lane) => lane.check(),
            Agreement::None(solo) => solo.check(),
        }
    }
}
