//! A backend without a group: one service in this process, executed at once.
//!
//! For tests and for comparison with what replication costs. Not here: agreement, sessions,
//! checkpoints; what it holds is lost with the process.

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base::{AgreedTime, ClientId, FrameId, Seq, SessionId};
use exec::{Context, ObjectTree, Service};
use svc::kv::KvService;
use tokio::sync::watch;

use super::backend::{Backend, BackendError, StreamKey};

/// One unreplicated service. Clones share it.
#[derive(Clone)]
pub struct Local {
    state: Arc<Mutex<State>>,
    nudged: watch::Sender<u64>,
}

struct State {
    service: Box<dyn Service>,
    tree: ObjectTree,
    seq: Seq,
    time: AgreedTime,
}

impl Default for Local {
    fn default() -> Local {
        Local::new()
    }
}

impl Local {
    /// A key-value service without keys.
    #[must_use]
    pub fn new() -> Local {
        Local::of(Box::new(KvService::new()))
    }

    /// That service.
    #[must_use]
    pub fn of(service: Box<dyn Service>) -> Local {
        let tree = ObjectTree::new(service.objects());
        let state = State { service, tree, seq: Seq(0), time: AgreedTime(0) };
        Local { state: Arc::new(Mutex::new(state)), nudged: watch::Sender::new(0) }
    }

    /// Changes when something waits for whoever asks.
    #[must_use]
    pub fn nudges(&self) -> watch::Receiver<u64> {
        self.nudged.subscribe()
    }
}

impl State {
    /// Executes one operation as a batch of its own.
    fn execute(&mut self, stream: StreamKey, op: &[u8]) -> (Vec<u8>, Option<Seq>) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.time = self.time.advance(AgreedTime(u64::try_from(wall).unwrap_or(u64::MAX)));
        self.seq = self.seq.next();
        let frame = FrameId { client: ClientId(0), session: SessionId(1), stream: 0, id: stream.0 };
        let (mut result, mut outputs) = (Vec::new(), Vec::new());
        let mut index = 0;
        while self.service.deadline().is_some_and(|deadline| deadline <= self.time) {
            let mut ctx =
                Context::new(self.seq, index, self.time, frame, &mut self.tree, &mut outputs);
            self.service.wake(&mut ctx);
            index += 1;
        }
        let mut ctx = Context::new(self.seq, index, self.time, frame, &mut self.tree, &mut outputs);
        self.service.execute(op, &mut ctx, &mut result);
        (result, (!outputs.is_empty()).then_some(self.seq))
    }
}

impl Backend for Local {
    type Pending = Ready<Result<Vec<u8>, BackendError>>;

    fn submit(&self, stream: StreamKey, op: Vec<u8>) -> Self::Pending {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (result, nudged) = state.execute(stream, &op);
        if let Some(seq) = nudged {
            self.nudged.send_replace(seq.0);
        }
        ready(Ok(result))
    }

    fn describe(&self) -> String {
        "local, not replicated".to_owned()
    }
}
