//! Which replicas answer a frame, and which of them in full.
//!
//! The replicas stand in a row for each frame, beginning with its *designated* one, which rotates
//! with the client, the session, the stream and the id. With digests the designated replica
//! answers in full, the others by the digest of their answer. With relief the first 2f + 1 answer
//! and the f at the end of the row need not (COP §5.2). A frame that is sent again is answered by
//! everybody in full: that is the fall-back of both.
//!
//! A client can name replicas that it does not want to rely on; they stand at the end of the row.
//! It has that many of its own answers to lose, and gains no more than one from each replica.
//!
//! Small answers, and whatever is not the result of an execution, are said in full and by all.

use super::packet::{DIGEST_REPLY_BYTES, ReplyBody, ReplyDigest, ReplyPacket};
use super::{ReplyHead, ReplyStatus};
use crate::frame::{FrameId, READS};
use crate::id::{ReplicaId, View};
use crate::quorum::{Quorums, VoteSet};

/// Contents of so many bytes are worth a digest: below it two packets of three carry little else
/// than what surrounds them, and hashing costs more than it saves (`docs/performance.md`).
pub const DIGEST_WORTH_BYTES: usize = 4096;

/// How a group answers its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repliers {
    quorums: Quorums,
    /// From how many bytes on a content is answered by digests.
    digests: Option<usize>,
    relief: bool,
}

/// An answer that a replica has to a frame.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The encoded [`super::Reply`].
    pub content: &'a [u8],
    /// The view that the replica is in.
    pub view: View,
    /// The view in which the batch is prepared, while it is not committed.
    pub tentative: Option<View>,
    /// The client asks again: everybody answers in full.
    pub in_full: bool,
}

/// What of an answer a replica sends.
enum Share {
    Whole,
    Digest,
    Nothing,
}

impl Repliers {
    /// All replicas answer in full.
    #[must_use]
    pub fn all(quorums: Quorums) -> Repliers {
        Repliers { quorums, digests: None, relief: false }
    }

    /// All but the designated replica answer contents of so many bytes with digests, if that is
    /// worth it anywhere ([`DIGEST_WORTH_BYTES`]).
    #[must_use]
    pub fn with_digests(self, digests: Option<usize>) -> Repliers {
        Repliers { digests, ..self }
    }

    /// A quorum of replicas answers, the others are relieved.
    #[must_use]
    pub fn with_relief(self, relief: bool) -> Repliers {
        Repliers { relief, ..self }
    }

    /// Whether an answer may have to be asked for again although nobody is faulty or late.
    #[must_use]
    pub fn need_fallback(&self) -> bool {
        self.digests.is_some() || self.relief
    }

    /// Whether only one replica answers in full.
    #[must_use]
    pub fn use_digests(&self) -> bool {
        self.digests.is_some()
    }

    /// The replicas in the row of `frame`, where those in `avoided` stand last.
    pub fn row(&self, frame: FrameId, avoided: VoteSet) -> impl Iterator<Item = ReplicaId> + use<> {
        let n = u64::from(self.quorums.n());
        let first = u64::from(frame.client.0)
            .wrapping_add(frame.session.0)
            .wrapping_add(u64::from(frame.stream))
            .wrapping_add(frame.id);
        let at = move |place: u64| {
            ReplicaId(u16::try_from((first % n + place) % n).expect("n is one, too"))
        };
        let last = move |replica: &ReplicaId| avoided.contains(*replica);
        (0..n).map(at).filter(move |r| !last(r)).chain((0..n).map(at).filter(last))
    }

    /// The replica that answers `frame` in full.
    #[must_use]
    pub fn designated(&self, frame: FrameId, avoided: VoteSet) -> ReplicaId {
        self.row(frame, avoided).next().expect("a group has replicas")
    }

    /// The replicas that answer `frame`, in full or not.
    pub fn repliers(
        &self,
        frame: FrameId,
        avoided: VoteSet,
    ) -> impl Iterator<Item = ReplicaId> + use<> {
        let count = if self.relief { self.quorums.quorum() } else { usize::from(self.quorums.n()) };
        self.row(frame, avoided).take(count)
    }

    /// What `me` sends of an answer; `None` where it is relieved of it.
    #[must_use]
    pub fn packet<'a>(
        &self,
        me: ReplicaId,
        answer: &Answer<'a>,
        avoided: VoteSet,
    ) -> Option<ReplyPacket<'a>> {
        let Answer { view, tentative, content, .. } = *answer;
        let whole = ReplyPacket::new(view, tentative, content);
        if !self.need_fallback() || (answer.in_full && !crate::mutant!(RetryNotInFull)) {
            return Some(whole);
        }
        // What is no reply was made by somebody who means it.
        let Ok((head, _)) = ReplyHead::peek(content) else { return Some(whole) };
        match self.share(me, &head, content.len(), avoided) {
            Share::Whole => Some(whole),
            Share::Digest => {
                let digest = ReplyDigest::of(head.frame, head.seq, content);
                Some(ReplyPacket { body: ReplyBody::Digest(digest), ..whole })
            }
            Share::Nothing => None,
        }
    }

    /// What `me` sends of an answer of so many bytes with this head, to a client that asks for
    /// the first time.
    fn share(&self, me: ReplicaId, head: &ReplyHead, bytes: usize, avoided: VoteSet) -> Share {
        // Results of reads without an order are voted on one by one, and nobody asks again.
        if head.status != ReplyStatus::Executed || head.frame.stream & READS != 0 {
            return Share::Whole;
        }
        match self.repliers(head.frame, avoided).position(|replica| replica == me) {
            None => Share::Nothing,
            Some(0) => Share::Whole,
            Some(_) if self.digests.is_some_and(|worth| bytes >= worth) => Share::Digest,
            Some(_) => Share::Whole,
        }
    }
}

const _: () = assert!(DIGEST_WORTH_BYTES > DIGEST_REPLY_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Writer;
    use crate::id::{ClientId, Seq, SessionId};
    use crate::reply::Reply;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    fn frame(id: u64) -> FrameId {
        FrameId { client: ClientId(3), session: SessionId(1 << 60), stream: 1, id }
    }

    fn reply(id: u64, status: ReplyStatus, bytes: usize) -> Vec<u8> {
        let mut results = vec![];
        Writer::new(&mut results).sized(&vec![7; bytes]);
        let mut content = vec![];
        Reply { frame: frame(id), seq: Seq(9), status, count: 1, results }.encode(&mut content);
        content
    }

    fn set(replicas: &[u16]) -> VoteSet {
        let mut set = VoteSet::EMPTY;
        replicas.iter().for_each(|replica| {
            set.insert(ReplicaId(*replica));
        });
        set
    }

    /// What the replicas send: W whole, D digest, a dash nothing.
    fn shares(repliers: &Repliers, content: &[u8], avoided: VoteSet, in_full: bool) -> String {
        let answer = Answer { content, view: View(1), tentative: None, in_full };
        let share = |replica: u16| match repliers.packet(ReplicaId(replica), &answer, avoided) {
            None => '-',
            Some(ReplyPacket { body: ReplyBody::Whole(said), .. }) => {
                assert_eq!(said, content);
                'W'
            }
            Some(ReplyPacket { body: ReplyBody::Digest(said), .. }) => {
                let head = ReplyHead::peek(content).expect("own encoding").0;
                assert_eq!(said, ReplyDigest::of(head.frame, head.seq, content));
                'D'
            }
        };
        (0..repliers.quorums.n()).map(share).collect()
    }

    #[test]
    fn roles_rotate_with_the_frame_and_everybody_answers_a_retry_in_full() {
        let quorums = Quorums::pbft(7, 2).expect("a legal group");
        let all = Repliers::all(quorums);
        let digests = all.with_digests(Some(DIGEST_WORTH_BYTES));
        let both = digests.with_relief(true);
        let (mut said, none) = (vec![], VoteSet::EMPTY);
        for id in 1..=7 {
            let content = reply(id, ReplyStatus::Executed, 4096);
            assert_eq!(shares(&all, &content, none, false), "WWWWWWW");
            assert_eq!(shares(&both, &content, none, true), "WWWWWWW");
            let first = usize::from(both.designated(frame(id), none).0);
            let digest = shares(&digests, &content, none, false);
            assert_eq!((digest.find('W'), digest.matches('D').count()), (Some(first), 6));
            let relief = shares(&all.with_relief(true), &content, none, false);
            assert_eq!((&relief[first..=first], relief.matches('W').count()), ("W", 5));
            let both = shares(&both, &content, none, false);
            assert_eq!(both.replace('D', "W"), relief, "the designated one is never relieved");
            said.push(both);
        }
        said.sort();
        said.dedup();
        assert_eq!(said.len(), 7, "each place is everybody's in turn");
    }

    #[test]
    fn small_answers_and_refusals_are_said_in_full() {
        let quorums = Quorums::pbft(4, 1).expect("a legal group");
        let both = Repliers::all(quorums).with_digests(Some(DIGEST_WORTH_BYTES)).with_relief(true);
        let small = reply(1, ReplyStatus::Executed, 9);
        assert_eq!(shares(&both, &small, VoteSet::EMPTY, false).replace('-', ""), "WWW");
        let refused = reply(1, ReplyStatus::OutOfOrder(9), 4096);
        assert_eq!(shares(&both, &refused, VoteSet::EMPTY, false), "WWWW");
    }

    #[test]
    fn avoided_replicas_stand_last_whoever_they_are() {
        let quorums = Quorums::pbft(4, 1).expect("a legal group");
        let both = Repliers::all(quorums).with_digests(Some(DIGEST_WORTH_BYTES)).with_relief(true);
        for id in 1..=4 {
            let content = reply(id, ReplyStatus::Executed, 4096);
            let avoided = shares(&both, &content, set(&[2]), false);
            assert_eq!(&avoided[2..3], "-", "{avoided}");
            // Whoever avoids everybody avoids nobody, and three answer all the same.
            let nobody = shares(&both, &content, set(&[0, 1, 2, 3]), false);
            assert_eq!(nobody, shares(&both, &content, VoteSet::EMPTY, false));
            let few = shares(&both, &content, set(&[0, 1, 2]), false);
            assert_eq!((&few[3..], few.matches('D').count()), ("W", 2), "{few}");
        }
    }
}
