//! What can go wrong in the kit itself.

use std::io;

use base::ReplicaId;

/// Why a group or a replica does not run.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// The configuration, or a key file, is not as it should be.
    #[error(transparent)]
    Genesis(#[from] genesis::GenesisError),
    /// A replica does not start.
    #[error("replica {id} does not start: {source}")]
    Start {
        /// Which one.
        id: ReplicaId,
        /// Why.
        source: rt::StartError,
    },
    /// The system refuses something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A replica ended by itself.
    #[error("replica {id} ended by itself: {}", why.as_deref().unwrap_or("see its log"))]
    Ended {
        /// Which one.
        id: ReplicaId,
        /// What it says.
        why: Option<String>,
    },
}

impl KitError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> KitError {
        move |source| KitError::System { what, source }
    }
}
