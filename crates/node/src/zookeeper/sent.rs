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

impl<P> Slot<P> {
    /// Bytes of the result, if it is there.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Slot::Known(Ok(result)) => result.len(),
            Slot::Known(Err(_)) | Slot::Waiting(_) => 0,
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

/// Waits for the result of the first request, or of any where `all` are looked at.
pub(super) async fn arrived<P>(pending: &mut VecDeque<Sent<P>>, all: bool)
where
    P: Future<Output = Result<Vec<u8>, BackendError>> + Unpin,
{
    poll_fn(|cx| {
        let mut news = false;
        for sent in pending.iter_mut().take(if all { usize::MAX } else { 1 }) {
            if let Slot::Waiting(result) = &mut sent.slot
                && let Poll::Ready(result) = Pin::new(result).poll(cx)
            {
                sent.slot = Slot::Known(result);
                news = true;
            }
        }
        if news { Poll::Ready(()) } else { Poll::Pending }
    })
    .await
}
