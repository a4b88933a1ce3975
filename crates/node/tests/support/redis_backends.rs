//! Backends that behave badly on purpose.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use node::gateway::{Backend, BackendError, Local, StreamKey};

/// A backend whose results come when the test says so, in any case later than the call.
#[derive(Clone)]
pub struct Gated {
    inner: Local,
    pub gate: Arc<Gate>,
}

#[derive(Default)]
pub struct Gate {
    open: AtomicBool,
    /// The next result is lost in a crowd.
    pub crowded: AtomicBool,
    pub submitted: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

pub struct GatedResult {
    gate: Arc<Gate>,
    result: Option<Result<Vec<u8>, BackendError>>,
}

impl Gated {
    pub fn new() -> Gated {
        Gated { inner: Local::new(), gate: Arc::default() }
    }

    pub fn open(&self) {
        self.gate.open.store(true, Ordering::SeqCst);
        self.gate.waiting.lock().expect("no panic").drain(..).for_each(Waker::wake);
    }
}

impl Backend for Gated {
    type Pending = GatedResult;

    fn submit(&self, stream: StreamKey, op: Vec<u8>) -> GatedResult {
        self.gate.submitted.fetch_add(1, Ordering::SeqCst);
        let mut result = self.inner.submit(stream, op);
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(result) = Pin::new(&mut result).poll(&mut cx) else {
            panic!("a local result is there at once")
        };
        GatedResult { gate: Arc::clone(&self.gate), result: Some(result) }
    }

    fn describe(&self) -> String {
        "gated".to_owned()
    }
}

impl Future for GatedResult {
    type Output = Result<Vec<u8>, BackendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.gate.waiting.lock().expect("no panic").push(cx.waker().clone());
        if self.gate.open.load(Ordering::SeqCst) {
            if self.gate.crowded.swap(false, Ordering::SeqCst) {
                let lost = BackendError::answered("too large together");
                return Poll::Ready(Err(BackendError { crowded: true, ..lost }));
            }
            Poll::Ready(self.result.take().expect("polled once more after its end"))
        } else {
            Poll::Pending
        }
    }
}

/// A backend that executes and says that it does not answer while it `fails`; or that says that
/// it was handed nothing, which is true.
#[derive(Clone)]
pub struct Failing {
    pub inner: Local,
    pub fails: Arc<AtomicBool>,
    pub unsent: bool,
}

impl Backend for Failing {
    type Pending = Ready<Result<Vec<u8>, BackendError>>;

    fn submit(&self, stream: StreamKey, op: Vec<u8>) -> Self::Pending {
        if !self.fails.load(Ordering::SeqCst) {
            return self.inner.submit(stream, op);
        }
        if !self.unsent {
            drop(self.inner.submit(stream, op));
        }
        ready(Err(BackendError { unsent: self.unsent, ..BackendError::unavailable("on purpose") }))
    }

    fn describe(&self) -> String {
        "failing".to_owned()
    }
}

/// A backend that loses results when more than `most` operations are submitted at once.
#[derive(Clone)]
pub struct Crowded {
    pub inner: Local,
    pub most: u64,
    pub crowd: Arc<AtomicU64>,
}

pub struct CrowdedResult {
    crowd: Arc<AtomicU64>,
    most: u64,
    yielded: bool,
    result: Option<Vec<u8>>,
}

impl Backend for Crowded {
    type Pending = CrowdedResult;

    fn submit(&self, stream: StreamKey, op: Vec<u8>) -> CrowdedResult {
        self.crowd.fetch_add(1, Ordering::SeqCst);
        let mut result = self.inner.submit(stream, op);
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(result)) = Pin::new(&mut result).poll(&mut cx) else {
            panic!("a local result is there at once")
        };
        let crowd = Arc::clone(&self.crowd);
        CrowdedResult { crowd, most: self.most, yielded: false, result: Some(result) }
    }

    fn describe(&self) -> String {
        "crowded".to_owned()
    }
}

impl Drop for CrowdedResult {
    fn drop(&mut self) {
        self.crowd.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Future for CrowdedResult {
    type Output = Result<Vec<u8>, BackendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.crowd.load(Ordering::SeqCst) > self.most {
            let lost = BackendError::answered("too large together");
            return Poll::Ready(Err(BackendError { crowded: true, ..lost }));
        }
        Poll::Ready(Ok(self.result.take().expect("polled once more after its end")))
    }
}
