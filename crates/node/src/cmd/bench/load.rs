//! The load generator: threads, each with a runtime and some clients on it.
//!
//! Closed loop ([`super::closed`]): every client keeps a number of operations under way, each
//! slot starting its next operation when the last one has ended. Open loop ([`super::open`]):
//! operations are due at times of their own, whether or not others have ended, and latency counts
//! from when they were due; so a group that stalls is not spared the operations that would have
//! come meanwhile (no coordinated omission).
//!
//! Not here: what operations are ([`super::ops`]), accounting of processors, printing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use client::{Client, ClientOptions};
use tokio::sync::watch;

use super::ops::Ops;
use super::tally::{Tally, Window};
use super::{closed, open};
use crate::cli::Arrivals;
use crate::cmd::runtime;

/// Clients of a thread that are connected at the same time.
const CONNECT_AT_ONCE: usize = 16;

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How each client connects; one entry per client.
    pub clients: Vec<ClientOptions>,
    /// Threads that share the clients.
    pub threads: usize,
    /// The operations.
    pub ops: Ops,
    /// Streams of each client: operations go to them in turn.
    pub streams: u32,
    /// Operations that each client keeps under way.
    pub outstanding: u32,
    /// Operations per second in all and when they are due, for an open loop.
    pub rate: Option<(u64, Arrivals)>,
}

/// A load generator whose clients are connected.
#[derive(Debug)]
pub struct Load {
    go: watch::Sender<Option<Window>>,
    threads: Vec<JoinHandle<Result<Tally>>>,
    done: Arc<AtomicU64>,
}

/// What the threads of a run share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What the run is to be.
    pub plan: Arc<Plan>,
    /// When.
    pub window: Window,
    /// Operations that have ended so far.
    pub done: Arc<AtomicU64>,
}

/// A client and its number among all.
pub type Numbered = (usize, Client);

impl Load {
    /// Starts the threads and connects the clients.
    ///
    /// # Errors
    /// When a client cannot be connected.
    pub fn connect(plan: &Arc<Plan>) -> Result<Load> {
        let (go, wait) = watch::channel(None);
        let (ready, connected) = mpsc::channel();
        let done = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for index in 0..plan.threads.min(plan.clients.len()) {
            let (plan, wait, ready) = (Arc::clone(plan), wait.clone(), ready.clone());
            let done = Arc::clone(&done);
            let run = move || worker(plan, index, wait, &ready, done);
            let thread = std::thread::Builder::new().name(format!("load-{index}")).spawn(run);
            threads.push(thread.context("cannot start a thread")?);
        }
        drop(ready);
        for _ in &threads {
            connected.recv().context("a thread of the load generator has ended")??;
        }
        Ok(Load { go, threads, done })
    }

    /// Lets the load begin.
    pub fn go(&self, window: Window) {
        self.go.send_replace(Some(window));
    }

    /// Operations that have ended so far, over the whole run.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for the end. Look at what threads have used before: they are gone after it.
    ///
    /// # Errors
    /// When a thread fails.
    pub fn finish(self) -> Result<Tally> {
        let Load { go, threads, .. } = self;
        drop(go);
        let mut all = Tally::new();
        for thread in threads {
            let one = thread.join().map_err(|_| anyhow!("a load thread panicked"))??;
            all.merge(one);
        }
        Ok(all)
    }
}

/// One thread: connects its share of the clients, waits for the start, and runs them.
fn worker(
    plan: Arc<Plan>,
    index: usize,
    mut wait: watch::Receiver<Option<Window>>,
    ready: &mpsc::Sender<Result<()>>,
    done: Arc<AtomicU64>,
) -> Result<Tally> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let numbers: Vec<usize> = (index..plan.clients.len()).step_by(plan.threads).collect();
        let options = numbers.iter().map(|number| plan.clients[*number].clone());
        let clients: Vec<Numbered> = match connect_all(options.collect()).await {
            Ok(clients) => numbers.into_iter().zip(clients).collect(),
            Err(error) => {
                // The other end is gone only when another thread has failed.
                let _ = ready.send(Err(error));
                return Ok(Tally::new());
            }
        };
        let _ = ready.send(Ok(()));
        let Ok(window) = wait.wait_for(Option::is_some).await.map(|window| *window) else {
            return Ok(Tally::new());
        };
        let window = window.expect("waited for");
        let shared = Shared { plan, window, done };
        let tally = match shared.plan.rate {
            None => closed::run(&shared, clients).await,
            Some(_) => open::run(&shared, index, clients).await,
        };
        // What a thread has used is gone with it: it stays until somebody has looked.
        while wait.changed().await.is_ok() {}
        tally
    })
}

/// Connects clients, some at the same time; they come in the order of their options.
///
/// # Errors
/// When one cannot be connected.
pub async fn connect_all(options: Vec<ClientOptions>) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(options.len());
    for some in options.chunks(CONNECT_AT_ONCE) {
        let calls: Vec<_> =
            some.iter().map(|options| tokio::spawn(Client::connect(options.clone()))).collect();
        for call in calls {
            clients.push(call.await.context("connecting a client ended")??);
        }
    }
    Ok(clients)
}
