//! The partitions of a group as a client reaches them, and where an operation goes.
//!
//! Each partition is a group of its own, with a driver, a session and links of its own. A group
//! that does not fall into partitions is one. Not here: which partition an operation belongs to,
//! which the service says ([`base::Routing`]).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{Route, Routing};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::completion::{Completion, CompletionSink};
use crate::driver::Driver;
use crate::error::{CallError, ConnectError};
use crate::inbox::{ClientStats, Control, Inbox};
use crate::options::ClientOptions;

/// All partitions of a group. When it goes, the client is closed.
pub(crate) struct Parts {
    all: Vec<Part>,
    /// Where there are several.
    routing: Option<Routing>,
}

/// One partition.
pub(crate) struct Part {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) nudged: watch::Receiver<u64>,
}

impl Drop for Part {
    fn drop(&mut self) {
        let (done, _) = oneshot::channel();
        self.inbox.control(Control::Close(done));
    }
}

/// A driver that has begun, and how it says that the session is open.
type Begun = (Part, oneshot::Receiver<()>);

impl Parts {
    /// Connects to all partitions of the group and opens a session in each.
    pub(crate) async fn connect(options: ClientOptions) -> Result<Parts, ConnectError> {
        let ClientOptions { connect_timeout: after, routing, .. } = options;
        let needed = options.group.quorums().quorum();
        let groups = options.group.parts();
        let routing = match groups.len() {
            1 => None,
            _ if routing.is_some() => routing,
            several => {
                return Err(ConnectError::Option(format!(
                    "the group has {several} partitions, and nobody says where its operations \
                     belong: a client of it needs the routing of its service"
                )));
            }
        };
        let begin = |group| begin(ClientOptions { group, ..options.clone() });
        let begun: Vec<Begun> = groups.into_iter().map(begin).collect::<Result<_, _>>()?;
        let until = Instant::now() + after;
        let mut all = Vec::with_capacity(begun.len());
        let partitions = begun.len();
        for (partition, (part, opened)) in begun.into_iter().enumerate() {
            if !matches!(tokio::time::timeout_at(until, opened).await, Ok(Ok(()))) {
                let why = part.unopened(needed, after);
                return Err(if partitions == 1 {
                    why
                } else {
                    ConnectError::Partition { partition, partitions, why: Box::new(why) }
                });
            }
            all.push(part);
        }
        Ok(Parts { all, routing })
    }

    /// The only one, or the first of several.
    pub(crate) fn first(&self) -> &Part {
        &self.all[0]
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, at: usize) -> &Part {
        &self.all[at]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Part> {
        self.all.iter()
    }

    /// Where an operation of `stream` goes, and of which stream it is there. What belongs anywhere
    /// is shared out by streams.
    pub(crate) fn place(&self, stream: u32, op: &[u8]) -> Result<(usize, u32), CallError> {
        let Some(routing) = &self.routing else { return Ok((0, stream)) };
        let count = u16::try_from(self.all.len()).expect("bounded by PARTITIONS_MAX");
        match (routing.route)(op, count) {
            Route::To(partition) => Ok((usize::from(partition % count), stream)),
            Route::Anywhere => {
                let count = u32::from(count);
                Ok(((stream % count) as usize, stream / count))
            }
            Route::Refused(answer) => Err(CallError::Partitions { answer }),
        }
    }

    pub(crate) fn stats(&self) -> ClientStats {
        let each = self.all.iter().map(|part| part.inbox.lock().stats.clone());
        each.reduce(ClientStats::and).unwrap_or_default()
    }
}

fn begin(options: ClientOptions) -> Result<Begun, ConnectError> {
    let inbox = Arc::new(Inbox::new(options.queued_ops_max, options.queued_bytes_max));
    let (opened, wait) = oneshot::channel();
    let (nudge, nudged) = watch::channel(0);
    tokio::spawn(Driver::new(options, Arc::clone(&inbox), opened, nudge)?);
    Ok((Part { inbox, nudged }, wait))
}

impl Part {
    /// Why there is no session.
    fn unopened(&self, needed: usize, after: Duration) -> ConnectError {
        let ClientStats { reachable, last_failure, .. } = self.inbox.lock().stats.clone();
        if reachable < needed {
            let last = if last_failure.is_empty() { "none".to_owned() } else { last_failure };
            return ConnectError::Unavailable { reachable, needed, after, last };
        }
        ConnectError::NoSession { reachable, after }
    }
}

/// A sink that several drivers, each for a partition, put completions into.
#[derive(Clone)]
pub(crate) struct SharedSink(Arc<Mutex<Box<dyn CompletionSink>>>);

impl SharedSink {
    pub(crate) fn new(sink: Box<dyn CompletionSink>) -> SharedSink {
        SharedSink(Arc::new(Mutex::new(sink)))
    }
}

impl CompletionSink for SharedSink {
    fn complete(&mut self, batch: &mut Vec<Completion>) {
        // What a sink that has panicked makes of more is its own business.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).complete(batch);
    }
}
