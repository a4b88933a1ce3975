//! What goes to clients: replies, as the group answers, nudges, and how we are, if they ask.
//!
//! Whoever does not read has a bounded number of bytes waiting, over all its connections; beyond
//! them it loses the connection on which most waits, which need not be the one that something was
//! to be sent on.
//!
//! Not here: what is answered (`exec`), nor whose part of an answer it is (`base::reply`).

use auth::Peer;
use base::packet::PacketKind;
use base::reply::{Answer, ReplyBody};
use base::{ClientId, FrameId, Seq, SessionId, VoteSet};

use crate::conn::Conn;
use crate::links::{Close, Links};

impl Links {
    /// Appends a reply to the packet of this turn to the client. True when somebody waits for it.
    pub(crate) fn send_reply(&mut self, frame: FrameId, answer: &Answer<'_>) -> bool {
        let Some(slot) = self.clients.route(frame.client, frame.session) else {
            self.counters.replies_unclaimed += 1;
            return false;
        };
        let Some(conn) = self.conns.get_mut(slot) else { return false };
        let avoided = conn.link().map_or(VoteSet::EMPTY, |link| link.avoided);
        let Some(reply) = self.env.repliers.packet(self.env.me, answer, avoided) else {
            self.counters.replies_relieved += 1;
            return false;
        };
        self.counters.replies_digest += u64::from(matches!(reply.body, ReplyBody::Digest(_)));
        self.append(slot, |conn| {
            let out = conn.room(reply.encoded_len(), &PacketKind::Reply.alone())?;
            reply.encode(out);
            Ok(())
        })
    }

    /// Tells a client that something waits for it since batch `seq`. True when it has a
    /// connection.
    pub(crate) fn nudge(&mut self, client: ClientId, session: SessionId, seq: Seq) -> bool {
        let Some(slot) = self.clients.route(client, session) else { return false };
        let mut payload = PacketKind::Nudge.alone().to_vec();
        payload.extend_from_slice(&seq.0.to_le_bytes());
        self.send_packet(slot, &payload);
        true
    }

    /// Queues a packet of its own to a client.
    pub(crate) fn send_packet(&mut self, slot: usize, payload: &[u8]) {
        self.append(slot, |conn| conn.packet(payload));
    }

    /// Tells a client how we are, unless what it was told before waits to be read.
    pub(crate) fn send_status(&mut self, slot: usize, payload: &[u8]) {
        self.append(slot, |conn| conn.tell(payload));
    }

    /// Has `write` append to what waits for a client. False when nothing is sent to it any more.
    fn append(
        &mut self,
        slot: usize,
        write: impl FnOnce(&mut Conn) -> Result<(), auth::AuthError>,
    ) -> bool {
        if self.clients.unread.of_principal(slot) > self.env.limits.client_backlog_max {
            self.cut_longest(slot);
        }
        let Some(conn) = self.conns.get_mut(slot).filter(|conn| !conn.cut) else { return false };
        if write(conn).is_err() {
            self.doomed.push((slot, Close::Ended));
            return false;
        }
        self.clients.unread.set(slot, conn.backlog());
        self.mark_dirty(slot);
        true
    }

    /// Gives up the connection on which most waits of those of the principal that has `slot`. What
    /// waits is gone at once, and so one is enough: the last one that was appended to went beyond
    /// the bound, and has as much waiting as that.
    fn cut_longest(&mut self, slot: usize) {
        let Some(longest) = self.clients.unread.longest(slot) else { return };
        let Some(conn) = self.conns.get_mut(longest) else { return };
        conn.cut();
        self.clients.unread.set(longest, 0);
        self.doomed.push((longest, Close::Slow));
    }

    /// Connections of clients that have proved to live.
    pub(crate) fn client_slots(&mut self) -> Vec<usize> {
        let slots = self.conns.iter_mut().filter(|(_, conn)| conn.client().is_some());
        slots.map(|(slot, _)| slot).collect()
    }

    /// Bytes that wait to be written to clients.
    pub(crate) fn client_backlog(&mut self) -> usize {
        let clients = self.conns.iter_mut().filter(|(_, conn)| {
            conn.link().is_some_and(|link| matches!(link.peer, Peer::Client(_)))
        });
        clients.map(|(_, conn)| conn.backlog()).sum()
    }
}
