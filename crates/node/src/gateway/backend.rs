//! What a gateway needs of the group behind it, as a small trait.
//!
//! A gateway hands operations over and gets results back; whether a whole group votes on them or
//! one service in this process executes them is not its business. Not here: the implementations
//! ([`super::local`], [`super::group`]). Depends on nothing.

use std::fmt;
use std::future::Future;

/// Ties all operations of one connection together: the operations of one stream are executed in
/// the order in which they were submitted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StreamKey(pub u64);

/// Why an operation has no result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendError {
    /// What happened and whether the operation was executed, in words for the client.
    pub cause: String,
    /// The group does not answer: the client may try again later. Otherwise it has answered, but
    /// not with a result.
    pub unavailable: bool,
    /// The operation was executed and only its result is lost, because the results of the
    /// operations that travelled with it are too large together: what only reads may be
    /// submitted again, in smaller company.
    pub crowded: bool,
    /// Nothing was handed over, since too much is under way: it may be submitted again later.
    pub unsent: bool,
}

impl BackendError {
    /// The group does not answer.
    pub fn unavailable(cause: impl Into<String>) -> BackendError {
        BackendError { cause: cause.into(), unavailable: true, crowded: false, unsent: false }
    }

    /// The group has answered that there is no result.
    pub fn answered(cause: impl Into<String>) -> BackendError {
        BackendError { cause: cause.into(), unavailable: false, crowded: false, unsent: false }
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for BackendError {}

/// Says with what an operation is answered that is not to be handed over at all, if it is not.
pub type Refusals = Box<dyn Fn(&[u8]) -> Option<&'static [u8]> + Send>;

/// A group, or something that behaves like one.
pub trait Backend: Clone + Send + Sync + 'static {
    /// The result to come. Dropping it forgets the result, not the operation.
    type Pending: Future<Output = Result<Vec<u8>, BackendError>> + Send + Unpin;

    /// Hands an operation over and returns without waiting. The place of the operation in its
    /// stream is fixed by this call, or at the latest by the first poll of the result: the
    /// gateway polls each result once before it submits the next operation of the stream. A
    /// result that says that nothing was handed over is there at the first poll.
    fn submit(&self, stream: StreamKey, op: Vec<u8>) -> Self::Pending;

    /// The same for an operation that only reads; there may be a shorter way for it.
    fn read(&self, stream: StreamKey, op: Vec<u8>) -> Self::Pending {
        self.submit(stream, op)
    }

    /// Which operations it refuses, whatever the state; `None` when none.
    fn refusals(&self) -> Option<Refusals> {
        None
    }

    /// One line about the backend as it is now, for `INFO`.
    fn describe(&self) -> String;
}
