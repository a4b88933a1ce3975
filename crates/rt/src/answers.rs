//! What goes to clients without being asked how we are: replies, as the group answers, and nudges.
//!
//! Not here: what is answered (`exec`), nor whose part of an answer it is (`base::reply`).

use base::packet::PacketKind;
use base::reply::{Answer, ReplyBody};
use base::{ClientId, FrameId, Seq, SessionId, VoteSet};

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
        if conn.backlog() > self.env.limits.client_backlog_max {
            self.doomed.push((slot, Close::Slow));
            return false;
        }
        let kind = PacketKind::Reply.alone();
        let Ok(out) = conn.room(reply.encoded_len(), &kind) else {
            self.doomed.push((slot, Close::Ended));
            return false;
        };
        reply.encode(out);
        self.mark_dirty(slot);
        true
    }

    /// Tells a client that something waits for it since batch `seq`. True when it has a
    /// connection. Whoever does not read has enough to read.
    pub(crate) fn nudge(&mut self, client: ClientId, session: SessionId, seq: Seq) -> bool {
        let Some(slot) = self.clients.route(client, session) else { return false };
        let mut payload = PacketKind::Nudge.alone().to_vec();
        payload.extend_from_slice(&seq.0.to_le_bytes());
        self.send_packet(slot, &payload);
        true
    }
}
