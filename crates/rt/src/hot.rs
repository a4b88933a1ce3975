//! Connections in shared memory, of which no poll tells that something has come.
//!
//! While its thread is awake, a lane looks at them in every turn, which costs a load each. Before
//! the thread sleeps it asks the other ends for a bell, and whoever rings one is looked at again.
//!
//! Invariant: a connection in shared memory is looked at, or its other end was asked to ring.
//!
//! Not here: the memory (`memory`), what is done with what has come (`intake`).

use crate::links::{Close, Links};

impl Links {
    /// Looks at shared memory. What is found is read in this turn.
    pub(crate) fn glance(&mut self) {
        for slot in &self.events.hot {
            let Some(conn) = self.conns.get_mut(*slot) else { continue };
            if conn.hot
                && !conn.listed
                && !conn.paused
                && conn.stream.shared().is_some_and(|shared| shared.has_news())
            {
                (conn.readable, conn.listed) = (true, true);
                self.ready.push(*slot);
            }
        }
    }

    /// The thread is about to sleep: asks to be woken when something comes over shared memory.
    /// True when something has come.
    pub(crate) fn doze(&mut self) -> bool {
        let Links { events, conns, doomed, ready, .. } = self;
        let mut news = false;
        events.hot.retain(|slot| {
            let Some(conn) = conns.get_mut(*slot).filter(|conn| conn.hot) else { return false };
            if conn.paused || conn.listed {
                // It is read later, without a bell.
                return true;
            }
            match conn.stream.shared().map(|shared| shared.doze()) {
                Some(Ok(false)) => {
                    (conn.readable, conn.listed) = (true, true);
                    ready.push(*slot);
                    news = true;
                    return true;
                }
                Some(Err(_)) => {
                    doomed.push((*slot, Close::Malformed("shared memory")));
                    news = true;
                }
                Some(Ok(true)) | None => {}
            }
            conn.hot = false;
            false
        });
        news
    }

    /// From now on it is looked at in every turn.
    pub(crate) fn heat(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get_mut(slot)
            && !std::mem::replace(&mut conn.hot, true)
        {
            self.events.hot.push(slot);
        }
    }
}
