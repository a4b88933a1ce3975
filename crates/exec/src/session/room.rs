//! How many bytes of replies the table keeps: what is dropped, and of whom, when there are too
//! many. The table decides it in the total order, like everything else.
//!
//! A bucket is one piece of state transfer, which carries none above `OBJECT_BYTES_MAX`: what the
//! principals of one bucket keep together is bounded, too.

use alloc::collections::BTreeMap;

use base::limits::{self, CACHED_REPLY_BYTES_PER_BUCKET_MAX};
use base::{ClientId, FrameId};

use super::{BUCKETS, Client, Session, Sessions};
use crate::transfer::OBJECT_BYTES_MAX;

/// Bytes of a bucket in which all principals have all that they may, but for the replies.
const BUCKET_BYTES: usize = {
    // Id, digest, order, whether there is a reply, and its length.
    let entry = 8 + 32 + 8 + 1 + 4;
    let stream = 16 + limits::STREAM_WINDOW as usize * entry;
    let session = 64 + limits::STREAMS_PER_SESSION_MAX * stream;
    let client = 64 + limits::SESSIONS_PER_CLIENT_MAX * session;
    limits::CLIENTS_MAX.div_ceil(BUCKETS as usize) * client
};
const _: () =
    assert!((BUCKET_BYTES + CACHED_REPLY_BYTES_PER_BUCKET_MAX) as u64 <= OBJECT_BYTES_MAX);

/// How many bytes of replies a bucket has too many, if any. One principal alone has its own bound.
pub(super) fn excess(bucket: &BTreeMap<ClientId, Client>) -> Option<usize> {
    if bucket.len() < 2 {
        return None;
    }
    let bytes: usize = bucket.values().map(Client::bytes).sum();
    bytes.checked_sub(CACHED_REPLY_BYTES_PER_BUCKET_MAX).filter(|excess| *excess > 0)
}

impl Sessions {
    /// Drops cached replies of the session of `frame`, then of its principal, then of whoever
    /// shares its bucket, until they fit.
    pub(super) fn shrink(&mut self, frame: FrameId) {
        let Some(client) = self.bucket(frame.client).get(&frame.client) else { return };
        let own = client.sessions.get(&frame.session).map_or(0, |session| session.bytes);
        let (session_max, client_max) =
            (limits::CACHED_REPLY_BYTES_PER_SESSION_MAX, limits::CACHED_REPLY_BYTES_PER_CLIENT_MAX);
        let fits = own <= session_max && client.bytes() <= client_max;
        if fits && excess(self.bucket(frame.client)).is_none() {
            return;
        }
        self.keep_client(frame.client);
        let mut dropped = 0;
        if let Some(session) = self.session_mut(frame) {
            dropped += session.shrink(session_max);
        }
        if let Some(client) = self.bucket_mut(frame.client).get_mut(&frame.client) {
            dropped += client.shrink(client_max);
        }
        self.counts.dropped_replies += dropped + self.shrink_bucket(frame.client);
    }

    /// Whoever keeps most loses replies first, so that who keeps little loses none.
    fn shrink_bucket(&mut self, of: ClientId) -> u64 {
        let mut dropped = 0;
        while let Some(excess) = excess(self.bucket(of)) {
            let all = self.bucket(of).iter();
            let most = all.map(|(id, client)| (client.bytes(), *id)).max();
            let Some((bytes, id)) = most.filter(|(bytes, _)| *bytes > 0) else { break };
            self.keep_client(id);
            if let Some(client) = self.bucket_mut(id).get_mut(&id) {
                dropped += client.shrink(bytes.saturating_sub(excess));
            }
        }
        dropped
    }
}

impl Client {
    /// Drops cached replies of the least recently used sessions until they fit; returns how many.
    fn shrink(&mut self, bytes_max: usize) -> u64 {
        let mut dropped = 0;
        while let Some(excess) = self.bytes().checked_sub(bytes_max + 1) {
            let held = self.sessions.iter_mut().filter(|(_, session)| session.bytes > 0);
            let oldest = held.min_by_key(|(id, session)| (session.used, **id));
            let Some((_, session)) = oldest else { break };
            dropped += session.shrink(session.bytes.saturating_sub(excess + 1));
        }
        dropped
    }

    /// Bytes of cached replies. O(sessions).
    pub(super) fn bytes(&self) -> usize {
        self.sessions.values().map(|session| session.bytes).sum()
    }
}

impl Session {
    /// Drops the oldest cached replies until they fit; returns how many.
    fn shrink(&mut self, bytes_max: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes > bytes_max {
            // A walk over all streams, but only in sessions whose replies are tens of KiB each.
            let oldest = self
                .streams
                .values_mut()
                .filter_map(|stream| stream.oldest().map(|(order, id)| (order, id, stream)));
            let Some((_, id, stream)) = oldest.min_by_key(|(order, ..)| *order) else { break };
            self.bytes -= stream.forget_reply(id);
            self.digest = None;
            dropped += 1;
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use alloc::vec;

    use super::super::Decision;
    use super::*;
    use base::{
        Authenticator, Digest, Frame, FrameBuilder, GroupId, ReplyStatus, Seq, SessionId, Signature,
    };

    const GROUP: GroupId = GroupId([8; 32]);
    const REPLY: usize = 16 << 20;

    fn signed(_: Digest) -> Authenticator {
        Authenticator::Signature(Signature([0; 64]))
    }

    fn request(client: u32, session: u64) -> Frame {
        let (client, session) = (ClientId(client), SessionId(session));
        let mut builder = FrameBuilder::new();
        builder.push(b"op");
        builder.request(GROUP, FrameId { client, session, stream: 0, id: 1 }, 0, signed)
    }

    /// A reply of [`REPLY`] bytes in each of `sessions`.
    fn fill(table: &mut Sessions, client: u32, sessions: core::ops::RangeInclusive<u64>) {
        let reply = Arc::new(vec![7; REPLY]);
        for session in sessions {
            let id = (ClientId(client), SessionId(session));
            table.decide(Seq(session), &FrameBuilder::open(GROUP, id.0, id.1, signed));
            let frame = request(client, session);
            assert_eq!(table.decide(Seq(session), &frame), Decision::Execute);
            table.record(frame.id(), &reply);
            table.check();
        }
    }

    fn is_gone(table: &mut Sessions, client: u32, session: u64) -> bool {
        let decision = table.decide(Seq(99), &request(client, session));
        decision == Decision::Status(Seq(99), ReplyStatus::ReplyGone)
    }

    #[test]
    fn principals_of_one_bucket_keep_no_more_than_can_be_carried() {
        let (most, little) = (3, 3 + BUCKETS);
        let mut table = Sessions::new();
        fill(&mut table, most, 1..=8);
        fill(&mut table, most + 1, 1..=8);
        fill(&mut table, little, 1..=2);
        assert_eq!(table.counts().dropped_replies, 0, "as much as they may");
        let before = table.digest();
        table.begin();
        fill(&mut table, little, 3..=4);
        assert_eq!(table.counts().dropped_replies, 2);
        table.take_back();
        table.check();
        assert_eq!(table.digest(), before, "what was dropped of another one is there again");
        fill(&mut table, little, 3..=4);
        assert_ne!(table.digest(), before);
        assert_eq!(
            [1, 2, 3].map(|session| is_gone(&mut table, most, session)),
            [true, true, false]
        );
        assert!(!is_gone(&mut table, little, 1), "who keeps little loses none");
        assert!(!is_gone(&mut table, most + 1, 1), "another bucket");
    }
}
