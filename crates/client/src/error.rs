//! What can go wrong, in words that name cause and remedy.

use std::time::Duration;

use base::{ReplicaId, limits};
use proto::client::OpError;

/// Why a client could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Secret, identifier and group do not belong together, or a key is unusable.
    #[error("the client's keys do not fit the group: {0}")]
    Auth(#[from] auth::AuthError),
    /// An option is out of its range.
    #[error("{0}")]
    Option(String),
    /// Fewer replicas could be reached than the group needs to answer.
    #[error(
        "only {reachable} of the {needed} replicas that are needed could be reached within \
         {after:?} (last failure: {last}); start the replicas or check addresses and network"
    )]
    Unavailable {
        /// Replicas that could be reached.
        reachable: usize,
        /// Replicas that must answer: a quorum.
        needed: usize,
        /// How long was tried.
        after: Duration,
        /// The last failure of a link, in words.
        last: String,
    },
    /// One partition of the group has not opened a session. The number counts from 0.
    #[error("partition {partition} of {partitions}: {why}")]
    Partition {
        /// The first one that has not.
        partition: usize,
        /// Into how many the group falls.
        partitions: usize,
        /// What is the matter there.
        why: Box<ConnectError>,
    },
    /// Enough replicas could be reached, but the group did not open the session in time.
    #[error(
        "{reachable} replicas could be reached, but the group did not open a session within \
         {after:?}: they may be replacing their leader, or recovering; look at `stylite status` and \
         try again"
    )]
    NoSession {
        /// Replicas that could be reached.
        reachable: usize,
        /// How long was waited.
        after: Duration,
    },
}

impl ConnectError {
    /// Whether to try again later may help: nothing is wrong with what was asked for.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            ConnectError::Auth(_) | ConnectError::Option(_) => false,
            ConnectError::Unavailable { .. } | ConnectError::NoSession { .. } => true,
            ConnectError::Partition { why, .. } => why.is_temporary(),
        }
    }
}

/// Why an operation has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// No accepted reply in time, although enough replicas could be reached.
    #[error(
        "no accepted reply within {after:?}; the operation may or may not be executed: read the \
         state before trying again, or raise the request timeout"
    )]
    Timeout {
        /// The request timeout.
        after: Duration,
    },
    /// No accepted reply in time, because too few replicas could be reached.
    #[error(
        "only {reachable} of the {needed} replicas that are needed can be reached; the operation \
         may or may not be executed: start the missing replicas or check the network"
    )]
    Unavailable {
        /// Replicas that can be reached now.
        reachable: usize,
        /// Replicas that must answer: a quorum.
        needed: usize,
    },
    /// The group forgot the session, for example because the principal opened too many others.
    #[error(
        "the group no longer knows this session; the operation may or may not have been executed \
         and will not be any more: read the state before trying again"
    )]
    SessionLost,
    /// Executed, but its reply is gone.
    #[error("the operation was executed, but the group no longer keeps its reply: read the state")]
    ReplyGone,
    /// Executed, but the results do not fit into a reply.
    #[error(
        "the operation was executed, but the results of its frame are larger than {} bytes: ask \
         for less at a time",
        limits::REPLY_BYTES_MAX
    )]
    ResultTooLarge,
    /// The replicas agree on a reply that does not fit the request.
    #[error("the group's reply does not fit the request: a defect of the service")]
    BadReply,
    /// The operation is larger than any may be. It was not sent.
    #[error(
        "an operation of {bytes} bytes; at most {} are allowed: split it",
        limits::OP_BYTES_MAX
    )]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Too many operations are queued. It was not sent.
    #[error(
        "{ops} operations with {bytes} bytes are queued or in flight already: wait for some to \
         finish, or raise the client's limits"
    )]
    Overloaded {
        /// Operations that are queued or in flight.
        ops: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The operation concerns several partitions of the group, none of which could execute it
    /// alone. It was not sent.
    #[error(
        "the operation concerns several partitions of the group: \"{}\"",
        answer.trim_ascii().escape_ascii()
    )]
    Partitions {
        /// What the service would answer.
        answer: &'static [u8],
    },
    /// The client was closed, or its runtime has ended. What was sent may be executed.
    #[error("the client is closed: connect a new one")]
    Closed,
}

impl CallError {
    /// Whether the operation was certainly not executed, so that it may be tried again.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        use CallError::{Overloaded, Partitions, TooLarge};
        matches!(self, TooLarge { .. } | Overloaded { .. } | Partitions { .. })
    }

    pub(crate) fn from_op(error: OpError, reach: Reach, after: Duration) -> CallError {
        match error {
            OpError::TimedOut if reach.reachable < reach.needed => {
                CallError::Unavailable { reachable: reach.reachable, needed: reach.needed }
            }
            OpError::TimedOut => CallError::Timeout { after },
            OpError::SessionLost => CallError::SessionLost,
            OpError::ReplyGone => CallError::ReplyGone,
            OpError::ResultTooLarge => CallError::ResultTooLarge,
            OpError::BadReply => CallError::BadReply,
            OpError::Closed => CallError::Closed,
        }
    }
}

/// How many replicas can be reached through all their pillars, and how many must be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reach {
    pub(crate) reachable: usize,
    pub(crate) needed: usize,
}

/// Why a replica's status is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StatusError {
    /// The group has no such replica.
    #[error("the group has no replica {0}")]
    Unknown(ReplicaId),
    /// There is no link to it.
    #[error("replica {0} cannot be reached")]
    Unreachable(ReplicaId),
    /// It did not answer in time.
    #[error("replica {0} did not answer within {1:?}")]
    Timeout(ReplicaId, Duration),
    /// The client was closed.
    #[error("the client is closed: connect a new one")]
    Closed,
}
