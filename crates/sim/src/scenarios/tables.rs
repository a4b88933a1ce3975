//! The client table and the checkpoint's digest by themselves: two replicas that came to the same
//! history in different ways, and histories with ids that are used twice.

use base::crypto::{ClientKeyring, PlainKeys};
use base::transfer::Manifest;
use base::{
    AgreedTime, ClientId, Digest, Frame, FrameBuilder, FrameId, ReplicaId, ReplyStatus, Seq,
    SessionId, limits,
};
use exec::session::{BUCKETS, Decision, Sessions};

use super::Scenario;
use crate::host::GROUP;
use crate::prng::Prng;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "client_tables_are_the_same_whatever_a_process_has_seen",
    claim: "Traps 5 and 11: one of two tables was carried over in the middle of the history, so \
            that its process has counted less; sessions are evicted from both alike. An id with \
            another content gets no reply of the first. A checkpoint's digest covers every field.",
    ci_seeds: 10,
    full_seeds: 1_000,
    run: client_tables_are_the_same_whatever_a_process_has_seen,
}];

const CLIENT: ClientId = ClientId(1);

fn request(session: u64, id: u64, op: &[u8]) -> Frame {
    let mut builder = FrameBuilder::new();
    builder.push(op);
    let id = FrameId { client: CLIENT, session: SessionId(session), stream: 1, id };
    let keys = PlainKeys { me: ReplicaId(0), n: 4 };
    builder.request(GROUP, id, 0, |digest| keys.authenticate(digest))
}

fn open(session: u64) -> Frame {
    let keys = PlainKeys { me: ReplicaId(0), n: 4 };
    FrameBuilder::open(GROUP, CLIENT, SessionId(session), |digest| keys.authenticate(digest))
}

fn client_tables_are_the_same_whatever_a_process_has_seen(seed: u64) {
    let mut prng = Prng::new(seed);
    let (mut whole, mut seq) = (Sessions::new(), 0);
    let apply = |table: &mut Sessions, frame: &Frame, at: u64| table.decide(Seq(at), frame);
    let before = 1 + 2 * prng.below(4);
    apply(&mut whole, &open(1), 1);
    for id in 1..=before {
        apply(&mut whole, &request(1, id, b"one"), 1 + id);
        whole.record(request(1, id, b"one").id(), &std::sync::Arc::new(vec![1; 8]));
        seq = 1 + id;
    }
    let again = whole.decide(Seq(seq), &request(1, 1, b"another"));
    assert_eq!(again, Decision::Status(Seq(seq), ReplyStatus::Conflict), "one id, two contents");
    let mut carried = Sessions::new();
    for bucket in 0..BUCKETS {
        let mut bytes = Vec::new();
        whole.get(bucket, &mut bytes);
        carried.put(bucket, &bytes).expect("comes from a table");
    }
    for session in 2..limits::SESSIONS_PER_CLIENT_MAX as u64 + 10 {
        seq += 1;
        let frame = open(session);
        assert_eq!(whole.decide(Seq(seq), &frame), carried.decide(Seq(seq), &frame));
        assert_eq!(whole.digest(), carried.digest(), "after session {session}");
    }
    digests(&mut prng);
}

fn digests(prng: &mut Prng) {
    let one = Digest([prng.below(100) as u8; 32]);
    let other = Digest([200; 32]);
    let all = Manifest {
        seq: Seq(8),
        pillars: 1,
        time: AgreedTime(prng.below(1000)),
        service: one,
        sessions: one,
    };
    let changed = [
        Manifest { seq: Seq(16), ..all },
        Manifest { pillars: 2, ..all },
        Manifest { time: AgreedTime(2000), ..all },
        Manifest { service: other, ..all },
        Manifest { sessions: other, ..all },
    ];
    for manifest in changed {
        assert_ne!(manifest.digest(GROUP), all.digest(GROUP), "{manifest:?} and {all:?}");
    }
}
