//! Reads without an order: whom the client believes, and that the order of a caller's stream
//! holds.

use std::sync::Arc;
use std::vec::Vec;
use std::{format, vec};

use base::crypto::PlainKeys;
use base::frame::{FrameKind, READS};
use base::reply::ReplyPacket;
use base::{Frame, ReplicaId, Reply, ReplyStatus, Seq, View, Writer};

use super::model::{at, config, reply};
use crate::client::{ClientCore, Effect, OpError, Results};

/// A client of four replicas that answer by hand.
struct Rig {
    core: ClientCore<u64>,
    millis: u64,
    sent: Vec<Arc<Frame>>,
    done: Vec<(u64, Result<Vec<u8>, OpError>)>,
    suspects: Vec<ReplicaId>,
    seq: u64,
}

impl Rig {
    fn new() -> Rig {
        let config = config(4, 1, 1).with_reads();
        let keys = PlainKeys { me: ReplicaId(0), n: 4 };
        let core = ClientCore::new(config, std::boxed::Box::new(keys), at(0));
        let (sent, done, suspects) = (vec![], vec![], vec![]);
        let mut rig = Rig { core, millis: 0, sent, done, suspects, seq: 0 };
        rig.turn();
        let open = rig.sent.pop().expect("a session is wanted");
        rig.order(&open);
        assert!(rig.core.is_open());
        rig
    }

    fn turn(&mut self) {
        self.core.turn(at(self.millis));
        self.core.check();
        for effect in self.core.drain() {
            match effect {
                Effect::Send { frame, .. } => self.sent.push(frame),
                Effect::Done { tokens, outcome } => {
                    let result = |n: usize, results: &Results| {
                        results.iter().nth(n).expect("one for each").to_vec()
                    };
                    for (n, token) in tokens.into_iter().enumerate() {
                        let outcome = outcome.as_ref().map(|results| result(n, results));
                        self.done.push((token, outcome.map_err(|error| *error)));
                    }
                }
                Effect::Suspect { replica, .. } => self.suspects.push(replica),
                _ => {}
            }
        }
    }

    fn write(&mut self, stream: u32, token: u64) {
        self.core.submit(at(self.millis), stream, b"w", token).expect("there is room");
    }

    fn read(&mut self, stream: u32, token: u64) {
        let op = format!("r{token}");
        self.core.submit_read(at(self.millis), stream, op.as_bytes(), token).expect("room");
    }

    /// The frames that were sent since this was asked last.
    fn frames(&mut self) -> Vec<Arc<Frame>> {
        self.turn();
        std::mem::take(&mut self.sent)
    }

    fn say(&mut self, from: u16, content: &[u8]) {
        let packet = ReplyPacket::whole(View(0), content);
        self.core.on_reply(at(self.millis), ReplicaId(from), &packet);
        self.turn();
    }

    /// A quorum answers an ordered frame.
    fn order(&mut self, frame: &Frame) {
        self.seq += 1;
        let status = match frame.kind() {
            FrameKind::Open => ReplyStatus::Opened,
            _ => ReplyStatus::Executed,
        };
        let results: Vec<Vec<u8>> = frame.ops().map(<[u8]>::to_vec).collect();
        let content = reply(frame.id(), self.seq, status, &results);
        (0..3).for_each(|from| self.say(from, &content));
    }

    /// One replica answers reads: since when, and what.
    fn answer(&mut self, from: u16, frame: &Frame, base: u64, results: &[(u32, &[u8])]) {
        let mut bytes = vec![];
        for (since, text) in results {
            let whole = [&since.to_le_bytes()[..], text].concat();
            Writer::new(&mut bytes).sized(&whole);
        }
        let (frame, count) = (frame.id(), results.len() as u32);
        let status = ReplyStatus::Executed;
        let mut content = vec![];
        Reply { frame, seq: Seq(base), status, count, results: bytes }.encode(&mut content);
        self.say(from, &content);
    }

    fn refuse(&mut self, from: u16, frame: &Frame) {
        let content = reply(frame.id(), 0, ReplyStatus::Unread, &[]);
        self.say(from, &content);
    }
}

/// What a frame has in it.
fn ops(frame: &Frame) -> Vec<Vec<u8>> {
    frame.ops().map(<[u8]>::to_vec).collect()
}

#[test]
fn a_quorum_that_says_the_same_answers_a_read() {
    let mut rig = Rig::new();
    (1..=2).for_each(|token| rig.read(5, token));
    let sent = rig.frames();
    assert_eq!((sent.len(), sent[0].kind(), sent[0].op_count()), (1, FrameKind::Read, 2));
    assert_ne!(sent[0].id().stream & READS, 0);
    for from in [0, 0, 3] {
        rig.answer(from, &sent[0], 128, &[(1, b"a"), (9, b"b")]);
        assert!(rig.done.is_empty(), "two replicas, one of them twice");
    }
    rig.answer(1, &sent[0], 128, &[(1, b"a"), (9, b"b")]);
    assert_eq!(rig.done, [(1, Ok(b"a".to_vec())), (2, Ok(b"b".to_vec()))]);
    assert_eq!((rig.core.counters().reads, rig.core.held_ops(), rig.core.held_bytes()), (2, 0, 0));
    assert!(rig.frames().is_empty() && rig.suspects.is_empty());
}

/// A result that a lagging replica has from before is not the one that came back since; nor are
/// equal distances from different numbers.
#[test]
fn equal_bytes_of_different_numbers_are_not_the_same() {
    for other in [(128, 5), (0, 9)] {
        let mut rig = Rig::new();
        rig.read(5, 1);
        let sent = rig.frames();
        rig.answer(0, &sent[0], 128, &[(9, b"a")]);
        rig.answer(1, &sent[0], 128, &[(9, b"a")]);
        rig.answer(2, &sent[0], other.0, &[(other.1, b"a")]);
        assert!(rig.done.is_empty());
        rig.answer(3, &sent[0], 128, &[(9, b"c")]);
        let ordered = rig.frames();
        assert_eq!(ordered[0].kind(), FrameKind::Request, "it is ordered");
        rig.order(&ordered[0]);
        assert_eq!(rig.done, [(1, Ok(b"r1".to_vec()))]);
    }
}

/// What has changed in between costs its own read an order, and no other one's.
#[test]
fn results_are_voted_on_one_by_one() {
    let mut rig = Rig::new();
    (1..=3).for_each(|token| rig.read(token as u32, token));
    let sent = rig.frames();
    rig.answer(0, &sent[0], 0, &[(1, b"a"), (2, b"b"), (3, b"c")]);
    rig.answer(1, &sent[0], 0, &[(1, b"a"), (7, b"B"), (3, b"c")]);
    rig.answer(2, &sent[0], 0, &[(1, b"a"), (2, b"b"), (3, b"c")]);
    assert!(rig.done.is_empty(), "the fourth may yet agree");
    rig.millis += 3;
    let ordered = rig.frames();
    assert_eq!(rig.done, [(1, Ok(b"a".to_vec())), (3, Ok(b"c".to_vec()))]);
    assert_eq!(ops(&ordered[0]), [b"r2"]);
    rig.order(&ordered[0]);
    assert_eq!(rig.done[2], (2, Ok(b"r2".to_vec())));
    assert!(rig.suspects.is_empty(), "nobody lies who is at another number");
    assert_eq!((rig.core.counters().reads, rig.core.counters().reads_ordered), (2, 1));
}

#[test]
fn who_says_something_else_of_the_same_number_lies() {
    let mut rig = Rig::new();
    rig.read(5, 1);
    let sent = rig.frames();
    rig.answer(3, &sent[0], 0, &[(9, b"x")]);
    (0..3).for_each(|from| rig.answer(from, &sent[0], 0, &[(9, b"a")]));
    assert_eq!(rig.done, [(1, Ok(b"a".to_vec()))]);
    assert_eq!(rig.suspects, [ReplicaId(3)]);
}

/// A write takes back the reads before it; a read behind a write is ordered; other streams do not
/// care.
#[test]
fn the_order_of_a_stream_holds() {
    let mut rig = Rig::new();
    rig.read(1, 1);
    rig.read(2, 2);
    let reads = rig.frames();
    rig.read(1, 3);
    rig.write(1, 4);
    rig.read(1, 5);
    rig.read(2, 6);
    let sent = rig.frames();
    let (ordered, read): (Vec<_>, Vec<_>) =
        sent.into_iter().partition(|frame| frame.kind() == FrameKind::Request);
    assert_eq!(ops(&ordered[0]), [&b"r1"[..], b"r3", b"w", b"r5"]);
    assert_eq!(ops(&read[0]), [b"r6"], "what was taken back before it left is not asked");
    (0..3).for_each(|from| rig.answer(from, &reads[0], 0, &[(1, b"x"), (1, b"y")]));
    assert_eq!(rig.done, [(2, Ok(b"y".to_vec()))], "the other one is ordered now");
    rig.order(&ordered[0]);
    let tokens: Vec<u64> = rig.done.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [2, 1, 3, 4, 5]);
    rig.read(1, 7);
    assert_eq!(rig.frames()[0].kind(), FrameKind::Read, "nothing of it is under way");
}

/// Streams that each read and then write, all in one turn: what one has had taken back is not
/// there to be passed over for the next one.
#[test]
fn what_is_taken_back_before_it_left_is_forgotten() {
    let mut rig = Rig::new();
    rig.read(1, 1);
    let flown = rig.frames();
    (1..=3).for_each(|token| rig.read(1, 1 + token));
    rig.read(9, 5);
    for stream in 2..6 {
        let token = 10 * u64::from(stream);
        rig.read(stream, token);
        rig.read(stream, token + 1);
        rig.write(stream, token + 2);
        rig.core.check();
    }
    // Both what flies and what waits, with another one's behind it.
    rig.write(1, 6);
    rig.core.check();
    let sent = rig.frames();
    let (ordered, read): (Vec<_>, Vec<_>) =
        sent.into_iter().partition(|frame| frame.kind() == FrameKind::Request);
    assert_eq!(ops(&read[0]), [b"r5"]);
    (0..3).for_each(|from| rig.answer(from, &flown[0], 0, &[(1, b"x")]));
    (0..3).for_each(|from| rig.answer(from, &read[0], 0, &[(1, b"y")]));
    assert_eq!(rig.done, [(5, Ok(b"y".to_vec()))]);
    rig.order(&ordered[0]);
    let tokens: Vec<u64> = rig.done.iter().skip(1).map(|(token, _)| *token).collect();
    assert_eq!(tokens, [20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52, 1, 2, 3, 4, 6]);
    assert_eq!((rig.core.held_ops(), rig.core.held_bytes()), (0, 0));
}

/// When a read has to be ordered, those of its stream that were sent after it are, too.
#[test]
fn reads_of_a_stream_do_not_pass_one_another() {
    let mut rig = Rig::new();
    rig.read(1, 1);
    let first = rig.frames();
    rig.read(1, 2);
    let second = rig.frames();
    (0..3).for_each(|from| rig.answer(from, &second[0], 0, &[(1, b"x")]));
    assert!(rig.done.is_empty(), "the one before is not answered");
    rig.refuse(0, &first[0]);
    rig.refuse(1, &first[0]);
    let ordered = rig.frames();
    assert_eq!(ops(&ordered[0]), [b"r1", b"r2"]);
    rig.order(&ordered[0]);
    assert_eq!(rig.done.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 2]);
}

/// Without a quorum in time reads are ordered, for a while at once; then they are tried again.
#[test]
fn what_is_not_answered_in_time_is_ordered() {
    let mut rig = Rig::new();
    rig.read(1, 1);
    let sent = rig.frames();
    (0..2).for_each(|from| rig.answer(from, &sent[0], 0, &[(1, b"x")]));
    rig.millis += 249;
    assert!(rig.frames().is_empty());
    assert_eq!(rig.core.deadline(), Some(at(250).mono));
    rig.millis += 1;
    let ordered = rig.frames();
    assert_eq!(ops(&ordered[0]), [b"r1"]);
    rig.order(&ordered[0]);
    rig.read(1, 2);
    let ordered = rig.frames();
    assert_eq!(ordered[0].kind(), FrameKind::Request);
    rig.order(&ordered[0]);
    rig.millis += 2_000;
    rig.read(1, 3);
    assert_eq!(rig.frames()[0].kind(), FrameKind::Read);
}

/// All that flies when the network stops for a moment is late, and that is one trouble.
#[test]
fn many_late_reads_are_one_trouble() {
    let mut rig = Rig::new();
    for token in 1..=4 {
        rig.read(1, token);
        assert_eq!(rig.frames().len(), 1, "{token} in flight");
        rig.millis += 1;
    }
    let trouble = |rig: &mut Rig| {
        rig.millis += 250;
        rig.frames().iter().for_each(|ordered| rig.order(ordered));
    };
    trouble(&mut rig);
    assert_eq!(rig.core.counters().reads_ordered, 4);
    rig.millis += 1_000;
    rig.read(1, 5);
    assert_eq!(rig.frames()[0].kind(), FrameKind::Read, "a second later they are tried again");
    // That is late, too: the next rest is twice as long.
    trouble(&mut rig);
    rig.millis += 1_500;
    rig.read(1, 6);
    assert_eq!(rig.frames()[0].kind(), FrameKind::Request);
}

/// Nothing is lost, or answered twice, when the session is lost or closed.
#[test]
fn reads_survive_a_lost_session_and_end_with_the_client() {
    let mut rig = Rig::new();
    rig.write(1, 1);
    rig.read(2, 2);
    let sent = rig.frames();
    let write = sent.iter().find(|frame| frame.kind() == FrameKind::Request).expect("sent");
    let gone = reply(write.id(), 9, ReplyStatus::NoSession, &[]);
    (0..3).for_each(|from| rig.say(from, &gone));
    assert_eq!(rig.done, [(1, Err(OpError::SessionLost))]);
    let open = rig.frames().pop().expect("a new session is wanted");
    rig.order(&open);
    let ordered = rig.frames();
    assert_eq!(ops(&ordered[0]), [b"r2"]);
    rig.order(&ordered[0]);
    rig.read(2, 3);
    rig.frames();
    rig.core.close(at(rig.millis));
    rig.turn();
    assert_eq!(rig.done[1..], [(2, Ok(b"r2".to_vec())), (3, Err(OpError::Closed))]);
    assert_eq!((rig.core.held_ops(), rig.core.held_bytes()), (0, 0));
}
