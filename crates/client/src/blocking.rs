//! The client for programs without an asynchronous runtime: the driver runs on a thread of its
//! own.

use std::fmt;
use std::io;
use std::thread::JoinHandle;

use base::ReplicaId;
use tokio::sync::oneshot;

use crate::error::{CallError, ConnectError, StatusError};
use crate::handle::Call;
use crate::inbox::ClientStats;
use crate::options::ClientOptions;

/// A blocking client of a group. Share it by reference between threads; see [`crate::Client`]
/// for what it promises. None of its methods may be called inside an asynchronous runtime.
pub struct Client {
    inner: crate::Client,
    /// Keeps the runtime going until it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Connects to the group and opens a session.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(options: ClientOptions) -> Result<Client, ConnectError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| ConnectError::Option(format!("no runtime: {e}")))?;
        let (connected, wait) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            runtime.block_on(async move {
                let result = crate::Client::connect(options).await;
                let handle = result.as_ref().ok().cloned();
                if let (Ok(()), Some(handle)) = (connected.send(result), handle) {
                    // Ends with an error when the blocking client is dropped.
                    let _ = stopped.await;
                    handle.close().await;
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("stylite-client".to_owned())
            .spawn(run)
            .map_err(|e: io::Error| ConnectError::Option(format!("no thread: {e}")))?;
        let gone = |_| ConnectError::Option("the client's thread has ended".to_owned());
        let inner = wait.blocking_recv().map_err(gone)??;
        Ok(Client { inner, stop: Some(stop), thread: Some(thread) })
    }

    /// Has an operation executed and waits for its result.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call(&self, op: impl AsRef<[u8]>) -> Result<Vec<u8>, CallError> {
        self.begin(0, op).wait()
    }

    /// The same for an operation that only reads: see [`crate::Client::read`].
    ///
    /// # Errors
    /// [`CallError`].
    pub fn read(&self, op: impl AsRef<[u8]>) -> Result<Vec<u8>, CallError> {
        self.client().read(0, op).wait()
    }

    /// Has an operation executed; its result may be waited for later. Order within a stream is
    /// the order of calls.
    pub fn begin(&self, stream: u32, op: impl AsRef<[u8]>) -> Call {
        self.client().call(stream, op)
    }

    /// What `replica` says about itself, as JSON.
    ///
    /// # Errors
    /// [`StatusError`].
    pub fn status(&self, replica: ReplicaId) -> Result<String, StatusError> {
        let client = self.client().clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|_| StatusError::Closed)?;
        runtime.block_on(client.status(replica))
    }

    /// What the client knows about itself.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.client().stats()
    }

    /// The asynchronous handle to the same session, for its submitters and pipes.
    #[must_use]
    pub fn client(&self) -> &crate::Client {
        &self.inner
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The thread closes the session, which takes a second at most. Should it have panicked,
        // nothing is left to close.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("blocking::Client").finish_non_exhaustive()
    }
}
