//! What connections of a gateway know of each other: who is there, and who is to go.
//!
//! Not here: the connections themselves. Invariant: an entry is in the registry exactly as long
//! as its connection's task lives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::time::Instant;

/// One connection as others see it.
#[derive(Debug)]
pub struct Client {
    /// Number of the connection, counted from 1.
    pub id: u64,
    /// The other end.
    pub addr: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// When it was accepted.
    pub since: Instant,
    state: Mutex<ClientState>,
    doomed: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// The part of a connection's description that changes.
#[derive(Clone, Debug)]
pub struct ClientState {
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: Vec<u8>,
    /// The last command, in lower case.
    pub command: &'static str,
    /// When the last command came.
    pub active: Instant,
    /// Commands queued by `MULTI`; `None` outside.
    pub queued: Option<usize>,
    /// Version of RESP: 2 or 3.
    pub resp: u8,
}

impl Client {
    /// The changing part, for reading or writing. Held for moments only.
    pub fn state(&self) -> MutexGuard<'_, ClientState> {
        lock(&self.state)
    }

    /// Tells the connection to close.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether the connection has been told to close.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Acquire)
    }

    /// Makes the connection's task look around.
    pub fn wake(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake_by_ref();
        }
    }

    /// Leaves the waker that [`Client::wake`] uses.
    pub fn register(&self, waker: &Waker) {
        let mut slot = lock(&self.waker);
        match &mut *slot {
            Some(old) => old.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }
}

/// All connections of a gateway.
#[derive(Debug, Default)]
pub struct Registry {
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Registry {
    /// Adds connection `id`.
    pub fn add(&self, id: u64, addr: SocketAddr, local: SocketAddr) -> Arc<Client> {
        let since = Instant::now();
        let state = ClientState {
            name: Vec::new(),
            lib_name: Vec::new(),
            lib_ver: Vec::new(),
            command: "NULL",
            active: since,
            queued: None,
            resp: 2,
        };
        let client = Arc::new(Client {
            id,
            addr,
            local,
            since,
            state: Mutex::new(state),
            doomed: AtomicBool::new(false),
            waker: Mutex::new(None),
        });
        lock(&self.clients).insert(id, Arc::clone(&client));
        client
    }

    /// Forgets connection `id`.
    pub fn remove(&self, id: u64) {
        lock(&self.clients).remove(&id);
    }

    /// All connections, by number.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Client>> {
        lock(&self.clients).values().cloned().collect()
    }

    /// Number of connections.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.clients).len()
    }
}

/// Nothing here is left half-written by a panic, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
