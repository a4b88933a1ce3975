//! Requests on their way, and their results once they are there.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use svc::zk::kind;

use crate::gateway::BackendError;

/// A request on its way.
pub(super) struct Sent<P> {
    /// `None` for what the gateway asks for itself.
    pub(super) xid: Option<i32>,
    pub(super) kind: i32,
    pub(super) at_ms: u64,
    pub(super) bytes: usize,
    pub(super) slot: Slot<P>,
}

pub(super) enum Slot<P> {
    Waiting(P),
    Known(Result<Vec<u8>, BackendError>),
}

impl<P: Future<Output = Result<Vec<u8>, BackendError>> + Unpin> Slot<P> {
    /// Looks whether the result is there, without waiting for it.
    pub(super) fn poll(&mut self) {
        let Slot::Waiting(result) = self else { return };
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = Pin::new(result).poll(&mut context) {
            *self = Slot::Known(result);
        }
    }
}

/// Whether a request changes nothing that its client counts on; a watch that it sets without
/// knowing does no harm.
pub(super) fn only_reads(kind: i32) -> bool {
    matches!(
        kind,
        kind::EXISTS
            | kind::GET_DATA
            | kind::GET_ACL
            | kind::GET_CHILDREN
            | kind::GET_CHILDREN2
            | kind::MULTI_READ
            | kind::SYNC
            | kind::CHECK_WATCHES
            | kind::GET_EPHEMERALS
            | kind::GET_ALL_CHILDREN_NUMBER
            | kind::WHO_AM_I
    )
}

/// The result of the first request.
pub(super) async fn front<P>(pending: &mut VecDeque<Sent<P>>) -> Result<Vec<u8>, BackendError>
where
    P: Future<Output = Result<Vec<u8>, BackendError>> + Unpin,
{
    poll_fn(|cx| match pending.front_mut() {
        Some(Sent { slot: Slot::Waiting(result), .. }) => Pin::new(result).poll(cx),
        _ => Poll::Pending,
    })
    .await
}
