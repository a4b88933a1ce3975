//! Which client connection is whose: replies find their way by principal and session.
//!
//! Where several connections of one session are open, the newest that proved itself gets the
//! replies. Not here: sockets, packets. Depends on `base` alone.

use std::collections::HashMap;

use base::{ClientId, SessionId};

/// The client connections of one lane.
#[derive(Debug)]
pub(crate) struct ClientTable {
    routes: HashMap<(ClientId, SessionId), usize>,
    per_principal: HashMap<ClientId, usize>,
    total: usize,
    total_max: usize,
    per_principal_max: usize,
}

/// The limit of connections is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Crowded;

impl ClientTable {
    /// No connections; at most `total_max`, of which one principal may have `per_principal_max`.
    pub(crate) fn new(total_max: usize, per_principal_max: usize) -> ClientTable {
        ClientTable {
            routes: HashMap::new(),
            per_principal: HashMap::new(),
            total: 0,
            total_max,
            per_principal_max,
        }
    }

    /// The connection `slot` is authenticated and its other end lives.
    ///
    /// # Errors
    /// When there are too many: close it.
    pub(crate) fn up(
        &mut self,
        client: ClientId,
        session: SessionId,
        slot: usize,
    ) -> Result<(), Crowded> {
        let own = self.per_principal.get(&client).copied().unwrap_or(0);
        if self.total >= self.total_max || own >= self.per_principal_max {
            return Err(Crowded);
        }
        self.total += 1;
        self.per_principal.insert(client, own + 1);
        self.routes.insert((client, session), slot);
        Ok(())
    }

    /// The connection `slot`, which was up, is gone.
    pub(crate) fn down(&mut self, client: ClientId, session: SessionId, slot: usize) {
        self.total -= 1;
        if let Some(own) = self.per_principal.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                self.per_principal.remove(&client);
            }
        }
        if self.routes.get(&(client, session)) == Some(&slot) {
            self.routes.remove(&(client, session));
        }
    }

    /// Where replies to this session go.
    pub(crate) fn route(&self, client: ClientId, session: SessionId) -> Option<usize> {
        self.routes.get(&(client, session)).copied()
    }

    /// Number of connections.
    pub(crate) fn count(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: ClientId = ClientId(1);
    const S: SessionId = SessionId(2);

    #[test]
    fn the_newest_connection_gets_the_replies_and_the_older_may_go() {
        let mut table = ClientTable::new(8, 8);
        assert_eq!(table.up(C, S, 1), Ok(()));
        assert_eq!(table.up(C, S, 2), Ok(()));
        assert_eq!(table.route(C, S), Some(2));
        table.down(C, S, 1);
        assert_eq!(table.route(C, S), Some(2));
        table.down(C, S, 2);
        assert_eq!((table.route(C, S), table.count()), (None, 0));
        assert!(table.per_principal.is_empty() && table.routes.is_empty());
    }

    #[test]
    fn both_limits_hold() {
        let mut table = ClientTable::new(3, 2);
        assert_eq!(table.up(C, S, 1), Ok(()));
        assert_eq!(table.up(C, S, 2), Ok(()));
        assert_eq!(table.up(C, S, 3), Err(Crowded), "one principal");
        assert_eq!(table.up(ClientId(9), S, 3), Ok(()));
        assert_eq!(table.up(ClientId(8), S, 4), Err(Crowded), "all together");
        table.down(C, S, 1);
        assert_eq!(table.up(ClientId(8), S, 4), Ok(()));
    }
}
