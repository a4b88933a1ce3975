//! The backend that replicates: a thin adapter over the group's client, which votes on replies.
//!
//! Not here: voting, retransmission and links (`client`, `proto`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use client::{Call, CallError, Client};

use super::backend::{Backend, BackendError, Refusals, StreamKey};

/// A group, reached through one client: all connections of the gateway are streams of one
/// session of one principal. Clones share it.
#[derive(Clone, Debug)]
pub struct Group {
    client: Client,
}

impl Group {
    /// The group that `client` is connected to.
    #[must_use]
    pub fn new(client: Client) -> Group {
        Group { client }
    }

    /// The client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

impl Backend for Group {
    type Pending = GroupResult;

    fn submit(&self, stream: StreamKey, op: Vec<u8>) -> GroupResult {
        GroupResult(self.client.call(number(stream), op))
    }

    fn read(&self, stream: StreamKey, op: Vec<u8>) -> GroupResult {
        GroupResult(self.client.read(number(stream), op))
    }

    fn refusals(&self) -> Option<Refusals> {
        let client = self.client.clone();
        let refusal = move |op: &[u8]| client.refusal(op);
        (self.client.partitions() > 1).then(|| Box::new(refusal) as Refusals)
    }

    fn describe(&self) -> String {
        let (stats, replicas) = (self.client.stats(), self.client.replicas());
        let partitions = match self.client.partitions() {
            1 => String::new(),
            several => format!(" in {several} partitions"),
        };
        format!("group of {replicas} replicas{partitions}, {} reachable", stats.reachable)
    }
}

/// Streams only add order: two connections that share a number lose nothing but time.
fn number(stream: StreamKey) -> u32 {
    (stream.0 & u64::from(u32::MAX)) as u32
}

/// The result of an operation to come.
#[derive(Debug)]
pub struct GroupResult(Call);

impl Future for GroupResult {
    type Output = Result<Vec<u8>, BackendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| result.map_err(BackendError::from))
    }
}

impl From<CallError> for BackendError {
    fn from(error: CallError) -> BackendError {
        let cause = error.to_string();
        match error {
            CallError::ResultTooLarge => {
                BackendError { crowded: true, ..BackendError::answered(cause) }
            }
            CallError::ReplyGone | CallError::TooLarge { .. } | CallError::Partitions { .. } => {
                BackendError::answered(cause)
            }
            CallError::Timeout { .. }
            | CallError::Unavailable { .. }
            | CallError::SessionLost
            | CallError::BadReply
            | CallError::Closed => BackendError::unavailable(cause),
            CallError::Overloaded { .. } => {
                BackendError { unsent: true, ..BackendError::unavailable(cause) }
            }
        }
    }
}
