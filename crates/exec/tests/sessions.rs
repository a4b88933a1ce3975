//! The session table against a dumb twin that remembers everything, under random histories.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::frame::UNORDERED;
use base::limits::{
    CACHED_REPLY_BYTES_PER_CLIENT_MAX, CACHED_REPLY_BYTES_PER_SESSION_MAX, SESSIONS_PER_CLIENT_MAX,
    STREAM_WINDOW, STREAMS_PER_SESSION_MAX,
};
use base::{Digest, Frame, FrameId, FrameKind, ReplyStatus, Seq, SessionId};
use common::{Random, close, id, open, request};
use exec::session::BUCKETS;
use exec::{Decision, Sessions};

type Content = Arc<Vec<u8>>;

/// Per principal: the highest session ever, and the sessions that are open.
#[derive(Default)]
struct Twin(BTreeMap<u32, (u64, Vec<TwinSession>)>);

struct TwinSession {
    number: u64,
    opened: u64,
    used: u64,
    /// Every frame that ever executed, in that order.
    executed: Vec<(u32, u64, Digest, Option<Content>)>,
    acked: BTreeMap<u32, u64>,
}

impl Twin {
    fn decide(&mut self, seq: u64, frame: &Frame) -> Decision {
        let (who, status) = (frame.id(), |status| Decision::Status(Seq(seq), status));
        let known = self.0.get(&who.client.0).map(|(highest, _)| *highest);
        let (highest, sessions) = self.0.entry(who.client.0).or_default();
        let at = sessions.iter().position(|session| session.number == who.session.0);
        let decision = match (frame.kind(), at) {
            (FrameKind::Open, Some(at)) => {
                sessions[at].used = seq;
                Decision::Status(Seq(sessions[at].opened), ReplyStatus::Opened)
            }
            (FrameKind::Read, _) => status(ReplyStatus::Unread),
            (FrameKind::Open, None) if known.is_some_and(|known| known >= who.session.0) => {
                status(ReplyStatus::StaleSession(SessionId(*highest)))
            }
            (FrameKind::Open, None) => {
                *highest = who.session.0;
                if sessions.len() == SESSIONS_PER_CLIENT_MAX {
                    sessions.sort_by_key(|session| (session.used, session.number));
                    sessions.remove(0);
                }
                let (number, acked) = (who.session.0, BTreeMap::new());
                sessions.push(TwinSession {
                    number,
                    opened: seq,
                    used: seq,
                    executed: vec![],
                    acked,
                });
                status(ReplyStatus::Opened)
            }
            (FrameKind::Close, Some(at)) => {
                sessions.remove(at);
                status(ReplyStatus::Closed)
            }
            (_, None) => status(ReplyStatus::NoSession),
            (FrameKind::Request, Some(at)) => {
                sessions[at].used = seq;
                sessions[at].request(seq, frame)
            }
        };
        if known.is_none() && self.0[&who.client.0].1.is_empty() {
            self.0.remove(&who.client.0);
        }
        decision
    }

    fn record(&mut self, frame: FrameId, content: &Content) {
        let (_, sessions) = self.0.get_mut(&frame.client.0).expect("it was let through");
        let session = sessions.iter_mut().find(|session| session.number == frame.session.0);
        let session = session.expect("it was let through");
        session.executed.last_mut().expect("it was let through").3 = Some(Arc::clone(content));
        let mut kept = 0;
        for (stream, id, _, reply) in session.executed.iter_mut().rev() {
            if session.acked.get(stream).is_some_and(|acked| acked >= id) {
                *reply = None;
            }
            kept += reply.as_ref().map_or(0, |reply| reply.len());
            // Counted from the newest: whatever no longer fits is dropped, and all before it.
            if kept > CACHED_REPLY_BYTES_PER_SESSION_MAX {
                *reply = None;
            }
        }
    }
}

impl TwinSession {
    fn request(&mut self, seq: u64, frame: &Frame) -> Decision {
        let FrameId { stream, id, .. } = frame.id();
        let streams: BTreeSet<u32> = self.executed.iter().map(|entry| entry.0).collect();
        let ids = || self.executed.iter().filter(|entry| entry.0 == stream).map(|entry| entry.1);
        let last = ids().max().unwrap_or(0);
        let ack = if stream & UNORDERED == 0 { frame.ack().min(last) } else { frame.ack() };
        let acked = ack.max(self.acked.get(&stream).copied().unwrap_or(0));
        let before = self.executed.iter().find(|entry| (entry.0, entry.1) == (stream, id));
        let verdict = match before {
            _ if id <= acked => Err(ReplyStatus::ReplyGone),
            Some((_, _, digest, _)) if *digest != frame.digest() => Err(ReplyStatus::Conflict),
            Some((_, _, _, Some(reply))) => {
                return self.acked(stream, acked, Decision::Duplicate(reply.clone()));
            }
            Some((_, _, _, None)) => Err(ReplyStatus::ReplyGone),
            None if id > acked + STREAM_WINDOW => Err(ReplyStatus::OutOfWindow),
            None if stream & UNORDERED == 0 && id != last + 1 => {
                Err(ReplyStatus::OutOfOrder(last + 1))
            }
            None if !streams.contains(&stream) && streams.len() == STREAMS_PER_SESSION_MAX => {
                Err(ReplyStatus::OutOfWindow)
            }
            None => Ok(()),
        };
        match verdict {
            Ok(()) => {
                self.executed.push((stream, id, frame.digest(), None));
                self.acked(stream, acked, Decision::Execute)
            }
            Err(status) => {
                let decision = Decision::Status(Seq(seq), status);
                if streams.contains(&stream) {
                    return self.acked(stream, acked, decision);
                }
                decision
            }
        }
    }

    fn acked(&mut self, stream: u32, acked: u64, decision: Decision) -> Decision {
        self.acked.insert(stream, acked);
        decision
    }
}

/// How a random history is made.
#[derive(Clone, Copy)]
struct Shape {
    clients: u64,
    /// Of 100 frames, how many open a session; two more close one.
    opens: u64,
    streams: u64,
    /// Sizes of replies, chosen evenly.
    sizes: [usize; 3],
}

fn play(shape: Shape, seed: u64, steps: u64) -> (Sessions, BTreeMap<&'static str, u64>) {
    let mut random = Random(seed);
    let (mut table, mut twin) = (Sessions::new(), Twin::default());
    let contents = shape.sizes.map(|size| Arc::new(vec![9; size]));
    let mut seen = BTreeMap::new();
    // Ids grow with the history, so that most frames are near what a client would send.
    let mut next: BTreeMap<(u32, u64, u32), u64> = BTreeMap::new();
    let mut newest = 1;
    for step in 0..steps {
        let seq = 1 + step / 3;
        let client = random.below(shape.clients) as u32;
        let session = 1 + newest - random.below(newest.min(1 + shape.opens * 5));
        let kind = random.below(100);
        let frame = if kind < shape.opens {
            newest += random.below(2);
            let fresh = random.below(2) == 0;
            open(client, if fresh { newest + 1 } else { session + random.below(2) })
        } else if kind < shape.opens + 2 {
            close(client, session)
        } else {
            let stream =
                (random.below(shape.streams) as u32 / 2) | ((random.below(2) as u32) << 31);
            let expected = next.entry((client, session, stream)).or_insert(1);
            let near = [0, 0, 0, 1, 2, 3, 70][random.below(7) as usize];
            let id_ = (*expected + near).saturating_sub(random.below(4)).max(1);
            *expected += u64::from(id_ == *expected);
            let ack = id_.saturating_sub(1 + random.below(20));
            let op: &[u8] = if random.below(20) == 0 { b"other" } else { b"op" };
            // The digest covers the acknowledgement: make repetitions the same where it counts.
            let ack = if random.below(3) == 0 { ack } else { id_.saturating_sub(9) };
            request(id(client, session, stream, id_), ack, &[op])
        };
        let decision = table.decide(Seq(seq), &frame);
        assert_eq!(decision, twin.decide(seq, &frame), "step {step} of seed {seed}");
        if decision == Decision::Execute {
            let content = &contents[random.below(3) as usize];
            table.record(frame.id(), content);
            twin.record(frame.id(), content);
            assert_eq!(table.recall(frame.id()), Some(Decision::Duplicate(Arc::clone(content))));
        }
        *seen.entry(name(&decision)).or_default() += 1;
        if step % 64 == 0 {
            table.check();
        }
    }
    (table, seen)
}

fn name(decision: &Decision) -> &'static str {
    match decision {
        Decision::Execute => "execute",
        Decision::Duplicate(_) => "duplicate",
        Decision::Status(_, status) => match status {
            ReplyStatus::Opened => "opened",
            ReplyStatus::Closed => "closed",
            ReplyStatus::OutOfOrder(_) => "out of order",
            ReplyStatus::NoSession => "no session",
            ReplyStatus::StaleSession(_) => "stale session",
            ReplyStatus::ReplyGone => "reply gone",
            ReplyStatus::Conflict => "conflict",
            ReplyStatus::OutOfWindow => "out of window",
            status => panic!("the table does not say {status:?}"),
        },
    }
}

fn encode(table: &Sessions) -> Vec<Vec<u8>> {
    let bucket = |bucket| {
        let mut bytes = vec![];
        table.get(bucket, &mut bytes);
        bytes
    };
    (0..BUCKETS).map(bucket).collect()
}

/// Carries the table over as bytes; digest and bytes must come out the same.
fn copy(table: &mut Sessions) -> Sessions {
    let mut copy = Sessions::new();
    for (bucket, bytes) in (0..).zip(encode(table)) {
        assert_eq!(copy.put(bucket, &bytes), Ok(()));
    }
    copy.check();
    assert_eq!(copy.digest(), table.digest());
    assert_eq!(encode(&copy), encode(table));
    assert_eq!((copy.len(), copy.cached_bytes()), (table.len(), table.cached_bytes()));
    copy
}

#[test]
fn the_table_decides_like_its_twin() {
    let shape = Shape { clients: 3, opens: 8, streams: 4, sizes: [10, 70, 300] };
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..60 {
        let (mut table, seen) = play(shape, seed, 1500);
        copy(&mut table);
        seen.into_iter().for_each(|(name, count)| *all.entry(name).or_default() += count);
    }
    assert_eq!(all.len(), 10, "every decision was seen: {all:?}");
    assert!(all.values().all(|count| *count > 20), "{all:?}");
}

#[test]
fn the_table_evicts_like_its_twin() {
    let shape = Shape { clients: 1, opens: 70, streams: 2, sizes: [1, 2, 3] };
    for seed in 0..5 {
        let (mut table, _) = play(shape, seed, 3000);
        assert!(table.counts().evicted > 100, "{:?}", table.counts());
        copy(&mut table);
    }
}

#[test]
fn the_table_drops_replies_and_bounds_streams_like_its_twin() {
    let shape = Shape { clients: 1, opens: 1, streams: 100, sizes: [1, 1 << 20, 18 << 20] };
    for seed in 0..10 {
        let (table, seen) = play(shape, seed, 2000);
        assert!(table.counts().dropped_replies > 10, "{:?}", table.counts());
        assert!(seen["out of window"] > 0, "{seen:?}");
    }
}

/// The digest that is kept up to date is the one computed from scratch, and differs whenever
/// the table does.
#[test]
fn digests_are_equal_exactly_when_tables_are() {
    let mut table = Sessions::new();
    let mut digests = BTreeSet::from([table.digest().0]);
    let reply = Arc::new(vec![1, 2, 3]);
    let frames = [
        open(7, 1),
        open(7 + BUCKETS, 1),
        request(id(7, 1, 0, 1), 0, &[b"a"]),
        request(id(7, 1, 0, 2), 1, &[b"a"]),
        request(id(7, 1, UNORDERED, 9), 3, &[b"a"]),
        // Refused, but it makes the session the most recently used.
        request(id(7, 1, 0, 4), 1, &[b"a"]),
        close(7, 1),
    ];
    for (seq, frame) in (1..).zip(&frames) {
        if table.decide(Seq(seq), frame) == Decision::Execute {
            assert!(digests.insert(table.digest().0), "a claim shows");
            table.record(frame.id(), &reply);
        }
        assert!(digests.insert(table.digest().0), "frame {seq} shows");
        copy(&mut table);
    }
    let before = table.digest();
    table.decide(Seq(9), &request(id(7, 1, 0, 5), 1, &[b"a"]));
    assert_eq!(table.digest(), before, "a frame without a session leaves no trace");
}

#[test]
fn a_frame_of_an_evicted_session_never_executes_again() {
    let mut table = Sessions::new();
    let frame = request(id(1, 1, 0, 1), 0, &[b"pay"]);
    table.decide(Seq(1), &open(1, 1));
    assert_eq!(table.decide(Seq(1), &frame), Decision::Execute);
    let last = 1 + SESSIONS_PER_CLIENT_MAX as u64;
    for session in 2..=last {
        table.decide(Seq(session), &open(1, session));
    }
    table.check();
    let refused = |status| Decision::Status(Seq(999), status);
    assert_eq!(table.decide(Seq(999), &frame), refused(ReplyStatus::NoSession));
    let stale = ReplyStatus::StaleSession(SessionId(last));
    assert_eq!(table.decide(Seq(999), &open(1, 1)), refused(stale));
    // Not even when every session of the principal is closed.
    (2..=last).for_each(|session| {
        table.decide(Seq(999), &close(1, session));
    });
    assert!(table.is_empty());
    assert_eq!(table.decide(Seq(999), &open(1, 1)), refused(stale));
    assert_eq!(table.decide(Seq(999), &frame), refused(ReplyStatus::NoSession));
    // Nor after the table was carried to another replica.
    let mut table = copy(&mut table);
    assert_eq!(table.decide(Seq(999), &open(1, 1)), refused(stale));
}

/// Who repeats an Open is told what it would be told if that were ordered now.
#[test]
fn a_refused_open_is_refused_again_when_it_is_repeated() {
    let mut table = Sessions::new();
    assert_eq!(table.decide(Seq(1), &open(1, 7)), Decision::Status(Seq(1), ReplyStatus::Opened));
    let stale = |seq| Some(Decision::Status(Seq(seq), ReplyStatus::StaleSession(SessionId(7))));
    assert_eq!(Some(table.decide(Seq(2), &open(1, 5))), stale(2));
    assert_eq!(table.recall(open(1, 5).id()), stale(0));
    assert_eq!(table.recall(open(1, 8).id()), None, "it may be on its way");
    // So is one whose session was closed since.
    table.decide(Seq(3), &close(1, 7));
    assert_eq!(table.recall(open(1, 7).id()), stale(0));
    let unknown = Some(Decision::Status(Seq(0), ReplyStatus::NoSession));
    assert_eq!(table.recall(request(id(1, 7, 0, 1), 0, &[b"op"]).id()), unknown);
    assert_eq!(table.recall(close(1, 7).id()), unknown);
}

#[test]
fn a_stream_takes_exactly_a_window_of_unacknowledged_frames() {
    for stream in [0, UNORDERED] {
        let mut table = Sessions::new();
        table.decide(Seq(1), &open(1, 1));
        let mut send = |number, ack| {
            let frame = request(id(1, 1, stream, number), ack, &[b"a"]);
            let decision = table.decide(Seq(2), &frame);
            table.record(frame.id(), &Arc::new(vec![1]));
            decision
        };
        for number in 1..=STREAM_WINDOW {
            assert_eq!(send(number, 0), Decision::Execute);
        }
        let beyond = Decision::Status(Seq(2), ReplyStatus::OutOfWindow);
        assert_eq!(send(STREAM_WINDOW + 1, 0), beyond);
        assert_eq!(send(STREAM_WINDOW + 1, 1), Decision::Execute);
        assert_eq!(send(STREAM_WINDOW + 2, 1), beyond);
        assert_eq!(table.cached_bytes(), STREAM_WINDOW as usize);
        table.check();
    }
}

#[test]
fn a_copy_in_the_same_batch_does_not_execute_before_the_reply_is_there() {
    let mut table = Sessions::new();
    table.decide(Seq(1), &open(1, 1));
    let frame = request(id(1, 1, 0, 1), 0, &[b"a"]);
    assert_eq!(table.decide(Seq(2), &frame), Decision::Execute);
    assert_eq!(table.recall(frame.id()), None, "the reply is on its way");
    assert_eq!(table.decide(Seq(2), &frame), Decision::Status(Seq(2), ReplyStatus::ReplyGone));
}

#[test]
fn mangled_buckets_are_refused_and_change_nothing() {
    let mut table = play(Shape { clients: 3, opens: 8, streams: 4, sizes: [1; 3] }, 1, 400).0;
    let (digest, bucket) = (table.digest(), 1);
    let good = encode(&table).swap_remove(bucket as usize);
    for len in 0..good.len() {
        assert!(table.put(bucket, &good[..len]).is_err(), "cut at {len}");
    }
    assert!(table.put(bucket + 1, &good).is_err(), "of another bucket");
    assert_eq!(table.digest(), digest);
    // Whatever is accepted is a table within the limits, and reads back as it was written.
    let mut random = Random(3);
    for _ in 0..20_000 {
        let mut bad = good.clone();
        let at = random.below(bad.len() as u64) as usize;
        bad[at] ^= 1 << random.below(8);
        let mut other = table.clone();
        if other.put(bucket, &bad).is_ok() {
            other.check();
            assert_ne!(other.digest(), digest);
            let mut again = vec![];
            other.get(bucket, &mut again);
            assert_eq!(again, bad);
        }
    }
}

/// Each session alone is within its bound, together they are not: the least recently used one
/// loses its replies first, and its frames still do not execute twice.
#[test]
fn replies_of_all_sessions_of_a_principal_are_bounded_together() {
    let mut table = Sessions::new();
    let content = Arc::new(vec![7; 16 << 20]);
    let fits = CACHED_REPLY_BYTES_PER_CLIENT_MAX as u64 / content.len() as u64;
    for session in 1..=fits + 2 {
        table.decide(Seq(session), &open(3, session));
        let frame = request(id(3, session, 0, 1), 0, &[b"op"]);
        assert_eq!(table.decide(Seq(session), &frame), Decision::Execute);
        table.record(frame.id(), &content);
        table.check();
        assert!(table.cached_bytes() <= CACHED_REPLY_BYTES_PER_CLIENT_MAX);
    }
    assert_eq!(table.counts().dropped_replies, 2);
    let digest = table.digest();
    assert_eq!(copy(&mut table).digest(), digest, "what was dropped is in the digest");
    for session in 1..=fits + 2 {
        let frame = request(id(3, session, 0, 1), 0, &[b"op"]);
        let gone = session <= 2;
        let decision = table.decide(Seq(99), &frame);
        assert_eq!(decision == Decision::Status(Seq(99), ReplyStatus::ReplyGone), gone);
        assert_eq!(matches!(decision, Decision::Duplicate(_)), !gone);
    }
}
