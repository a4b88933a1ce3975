//! Backends of the ZooKeeper gateway that behave badly on purpose.

use std::future::{Ready, ready};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use node::gateway::{Backend, BackendError, Local, StreamKey};
use node::zookeeper::Nudging;
use tokio::sync::watch;

type Result = std::result::Result<Vec<u8>, BackendError>;

/// The stream of what the gateway asks for itself.
const OWN: StreamKey = StreamKey(0);

/// A backend that is often too full, whatever it is asked: it takes one operation of `takes`.
#[derive(Clone)]
pub struct Full {
    pub inner: Local,
    pub takes: u64,
    pub asked: Arc<AtomicU64>,
}

impl Backend for Full {
    type Pending = Ready<Result>;

    fn submit(&self, stream: StreamKey, op: Vec<u8>) -> Ready<Result> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        if number.is_multiple_of(self.takes) {
            return self.inner.submit(stream, op);
        }
        ready(Err(BackendError { unsent: true, ..BackendError::unavailable("full") }))
    }

    fn describe(&self) -> String {
        "full".to_owned()
    }
}

impl Nudging for Full {
    fn nudges(&self) -> watch::Receiver<u64> {
        self.inner.nudges()
    }
}

/// A backend that gives up one question of the gateway's own, and executes it all the same: once
/// it is `back`, before the next one. Until then it answers none of them.
#[derive(Clone)]
pub struct Late {
    pub inner: Local,
    pub late: Arc<Mutex<Option<Vec<u8>>>>,
    pub back: Arc<AtomicBool>,
}

impl Late {
    pub fn new(inner: Local) -> Late {
        Late { inner, late: Arc::default(), back: Arc::default() }
    }
}

impl Backend for Late {
    type Pending = Ready<Result>;

    fn submit(&self, stream: StreamKey, op: Vec<u8>) -> Ready<Result> {
        if stream != OWN {
            return self.inner.submit(stream, op);
        }
        let mut late = self.late.lock().expect("no panic");
        if !self.back.load(Ordering::SeqCst) {
            late.get_or_insert(op);
            return ready(Err(BackendError::unavailable("nothing comes back")));
        }
        if let Some(late) = late.take() {
            // Nobody gets the result.
            drop(self.inner.submit(stream, late));
        }
        self.inner.submit(stream, op)
    }

    fn describe(&self) -> String {
        "late".to_owned()
    }
}

impl Nudging for Late {
    fn nudges(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }
}
