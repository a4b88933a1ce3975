//! Clients that are connected and do nothing, on a thread of their own.

use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use client::ClientOptions;
use tokio::sync::oneshot;

use super::load::connect_all;
use crate::cmd::runtime;

/// Clients that do nothing; dropping this ends them without a word to the group.
#[derive(Debug)]
pub struct Idle {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Idle {
    /// Connects them.
    ///
    /// # Errors
    /// When one cannot be connected.
    pub fn connect(clients: Vec<ClientOptions>) -> Result<Idle> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, connected) = mpsc::channel();
        let run = move || {
            let Ok(runtime) = runtime() else { return };
            runtime.block_on(async {
                let clients = connect_all(clients).await;
                let failed = clients.is_err();
                // Whoever started this waits for it.
                let (held, told) = match clients {
                    Ok(clients) => (clients, Ok(())),
                    Err(error) => (Vec::new(), Err(error)),
                };
                let _ = ready.send(told);
                if !failed {
                    // Ends with an error when the other end is dropped.
                    let _ = stopped.await;
                }
                drop(held);
            });
        };
        let thread = std::thread::Builder::new().name("idle-clients".to_owned()).spawn(run);
        let thread = thread.context("cannot start a thread")?;
        connected.recv().context("the thread of the idle clients has ended")??;
        Ok(Idle { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A thread that has panicked has nothing left to end.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
