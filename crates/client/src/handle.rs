//! The handle that callers hold.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::ReplicaId;
use tokio::sync::{oneshot, watch};

use crate::completion::{CompletionSink, Completions, Submitter, channel};
use crate::error::{CallError, ConnectError, StatusError};
use crate::inbox::{ClientStats, Control, Token};
use crate::options::ClientOptions;
use crate::parts::Parts;

/// A client of a group: one session, shared by all clones of this handle; in a group of several
/// partitions, one in each.
///
/// It works as long as a quorum of the replicas can be reached, and believes only what f + 1
/// replicas say alike. When the last handle is dropped the session is closed in the background.
#[derive(Clone)]
pub struct Client {
    parts: Arc<Parts>,
    replicas: u16,
}

/// How long a replica may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

impl Client {
    /// Connects to the group and opens a session. Must be called inside a tokio runtime, of
    /// either flavour; the client's driver is a task of it.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O enabled.
    pub async fn connect(options: ClientOptions) -> Result<Client, ConnectError> {
        let replicas = options.group.quorums().n();
        Ok(Client { parts: Arc::new(Parts::connect(options).await?), replicas })
    }

    /// Has an operation executed. The order of calls of one `stream` is the order of execution,
    /// whenever the returned future is polled; operations of different streams run side by side.
    /// Dropping the future does not take the operation back. A call that times out before it was
    /// sent takes those that wait behind it with it, so that none of them is executed.
    ///
    /// In a group of several partitions the operation goes where it belongs, and what is said of a
    /// stream holds in each partition by itself: two operations of one stream that belong to
    /// different partitions run side by side.
    ///
    /// # Errors
    /// The future yields a [`CallError`].
    pub fn call(&self, stream: u32, op: impl AsRef<[u8]>) -> Call {
        self.begin(stream, (op.as_ref(), false))
    }

    /// The same for an operation that only reads, as the caller knows of the service. In a group
    /// that answers reads without an order (`reads = "unordered"`) that saves the agreement,
    /// unless something else of the same stream is under way; elsewhere it is a call. The answer
    /// is never older than what anybody was answered before the call.
    ///
    /// # Errors
    /// The future yields a [`CallError`].
    pub fn read(&self, stream: u32, op: impl AsRef<[u8]>) -> Call {
        self.begin(stream, (op.as_ref(), true))
    }

    fn begin(&self, stream: u32, op: (&[u8], bool)) -> Call {
        let (sender, receiver) = oneshot::channel();
        let pushed = self.parts.place(stream, op.0).and_then(|(part, stream)| {
            self.parts.get(part).inbox.push(stream, op, || Token::Call(sender))
        });
        Call(pushed.map(|()| receiver))
    }

    /// A way to submit operations whose results go to `sink` in batches.
    #[must_use]
    pub fn submitter(&self, sink: Box<dyn CompletionSink>) -> Submitter {
        Submitter::new(Arc::clone(&self.parts), sink)
    }

    /// A way to submit operations whose results come in batches out of a channel.
    #[must_use]
    pub fn pipe(&self) -> (Submitter, Completions) {
        let (sink, completions) = channel();
        (self.submitter(sink), completions)
    }

    /// Changes whenever f + 1 replicas say that something more waits for this client in the
    /// service's state: the number of the batch since which it waits. A hint to ask the service,
    /// in the service's own way; one that is lost, with a link or a replica, is not repeated. Of
    /// several partitions this is about the first alone.
    #[must_use]
    pub fn nudges(&self) -> watch::Receiver<u64> {
        self.parts.first().nudged.clone()
    }

    /// What `replica` says about itself, as JSON. The word of one replica, not of the group; of
    /// several partitions this is about the first.
    ///
    /// # Errors
    /// [`StatusError`].
    pub async fn status(&self, replica: ReplicaId) -> Result<String, StatusError> {
        if replica.0 >= self.replicas {
            return Err(StatusError::Unknown(replica));
        }
        let (sender, receiver) = oneshot::channel();
        if !self.parts.first().inbox.control(Control::Status(replica, sender)) {
            return Err(StatusError::Closed);
        }
        match tokio::time::timeout(STATUS_TIMEOUT, receiver).await {
            Ok(answer) => answer.unwrap_or(Err(StatusError::Closed)),
            Err(_) => Err(StatusError::Timeout(replica, STATUS_TIMEOUT)),
        }
    }

    /// Number of replicas in the group.
    #[must_use]
    pub fn replicas(&self) -> u16 {
        self.replicas
    }

    /// What the client knows about itself, as of the driver's last turn: of several partitions all
    /// together.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.parts.stats()
    }

    /// What the service answers to an operation that no partition of the group could execute alone:
    /// a call with it ends with [`CallError::Partitions`].
    #[must_use]
    pub fn refusal(&self, op: &[u8]) -> Option<&'static [u8]> {
        match self.parts.place(0, op) {
            Err(CallError::Partitions { answer }) => Some(answer),
            _ => None,
        }
    }

    /// Into how many partitions the group falls.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.parts.len()
    }

    /// Closes the session, for all clones of this handle: what is queued or in flight ends with
    /// [`CallError::Closed`]. Returns when the group has confirmed, or after a second.
    pub async fn close(self) {
        let mut closing = Vec::new();
        for part in self.parts.iter() {
            let (sender, receiver) = oneshot::channel();
            closing.extend(part.inbox.control(Control::Close(sender)).then_some(receiver));
        }
        for closed in closing {
            // An error means that the driver has ended: closed just the same.
            let _ = closed.await;
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("replicas", &self.replicas).finish_non_exhaustive()
    }
}

/// The result of an operation to come: a future, or [`Call::wait`] on a thread of one's own.
#[derive(Debug)]
#[must_use = "the result of the operation, or that there is none"]
pub struct Call(Result<oneshot::Receiver<Result<Vec<u8>, CallError>>, CallError>);

impl Call {
    /// Waits, blocking the thread.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Panics
    /// Inside an asynchronous runtime.
    pub fn wait(self) -> Result<Vec<u8>, CallError> {
        self.0?.blocking_recv().unwrap_or(Err(CallError::Closed))
    }
}

impl Future for Call {
    type Output = Result<Vec<u8>, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(receiver) => {
                Pin::new(receiver).poll(cx).map(|answer| answer.unwrap_or(Err(CallError::Closed)))
            }
            Err(error) => Poll::Ready(Err(*error)),
        }
    }
}
