//! Reads that are answered without an order: what they see, what they say, who is refused.

mod common;

use std::sync::Arc;

use base::frame::READS;
use base::limits::WAITING_READS_PER_CLIENT_MAX;
use base::{
    Authenticator, Batch, FrameBuilder, FrameId, FromStage, PillarId, Reader, Reply, ReplyStatus,
    Seq, ToStage,
};
use common::{Cells, GROUP, batch, feed, id, open, request, stage_of};
use exec::{Stage, StageOutbox, Target, Turn};

/// A frame of reads of a client, as the stage gets it.
fn ask_from(client: u32, number: u64, ops: &[&[u8]], from: u64) -> ToStage {
    let mut builder = FrameBuilder::new();
    ops.iter().for_each(|op| builder.push(op));
    let id = FrameId { stream: READS, ..id(client, 1, 0, number) };
    let frame = Arc::new(builder.read(GROUP, id, |_| Authenticator::Vector(vec![])));
    ToStage::Read { pillar: PillarId(1), frame, from: Seq(from) }
}

fn ask(ops: &[&[u8]]) -> ToStage {
    ask_from(1, 1, ops, 0)
}

/// The answers in an outbox.
fn answers(out: &mut StageOutbox) -> Vec<Reply> {
    let replies = out.messages.drain(..).filter_map(|(to, message)| match (to, message) {
        (Target::Pillar(PillarId(1)), FromStage::Reply { content, .. }) => {
            Some(Reply::decode(&mut Reader::new(&content)).expect("a reply"))
        }
        _ => None,
    });
    replies.filter(|reply| reply.frame.stream == READS).collect()
}

/// Since when each result is so, and the results.
fn results(reply: &Reply) -> Vec<(u64, String)> {
    assert_eq!(reply.status, ReplyStatus::Executed);
    let one = |result: &[u8]| {
        let (since, text) = result.split_first_chunk::<4>().expect("stands before each");
        let text = String::from_utf8_lossy(text).into_owned();
        (reply.seq.0 + u64::from(u32::from_le_bytes(*since)), text)
    };
    reply.results().map(one).collect()
}

fn read(stage: &mut Stage, ops: &[&[u8]]) -> Reply {
    let mut out = StageOutbox::new();
    stage.on(ask(ops), &mut out).expect("is never refused");
    while stage.run(10, &mut out).more() {}
    answers(&mut out).pop().expect("an answer")
}

fn reader() -> Stage {
    let mut stage = stage_of(Cells::new(97), 2, 4);
    stage.answer_reads();
    stage
}

fn write(stage: &mut Stage, seq: u64, number: u64, ops: &[&[u8]]) {
    feed(stage, seq, &batch(seq, &[request(id(1, 1, 0, number), 0, ops)]));
}

/// A result is as old as the last write of what it depends on, whoever has executed more
/// meanwhile; and what lies before the last checkpoint is as old as that.
#[test]
fn a_read_says_since_when_its_result_is_so() {
    let mut stage = reader();
    feed(&mut stage, 1, &batch(1, &[open(1, 1)]));
    write(&mut stage, 2, 1, &[b"a"]);
    write(&mut stage, 3, 2, &[b"b"]);
    let a = (2, (97 + 2).to_string());
    let all = (97 + 2 + 98 + 3).to_string();
    let ops: [&[u8]; 4] = [b"ar", b"cr", b"aw", b"at"];
    let told = results(&read(&mut stage, &ops));
    assert_eq!(told, [a.clone(), (0, "0".into()), (3, all.clone()), (3, "3".into())]);
    feed(&mut stage, 4, &Arc::new(Batch::Null));
    let told = results(&read(&mut stage, &ops));
    assert_eq!(told, [(4, a.1), (4, "0".into()), (4, all), (4, "4".into())], "a checkpoint");
    write(&mut stage, 5, 3, &[b"c"]);
    assert_eq!(results(&read(&mut stage, &[b"ar", b"cr"])).iter().map(|r| r.0).sum::<u64>(), 9);
    let report = stage.read_report();
    assert_eq!((report.answered, report.unread_frames), (10, 0));
    stage.check();
}

/// A batch that is executed in part is nobody's to see.
#[test]
fn no_read_sees_half_a_batch() {
    let mut stage = reader();
    feed(&mut stage, 1, &batch(1, &[open(1, 1)]));
    let writes = batch(2, &[request(id(1, 1, 0, 1), 0, &[b"a", b"b", b"a", b"b"])]);
    let mut out = StageOutbox::new();
    stage.on(ToStage::Deliver { seq: Seq(2), batch: writes }, &mut out).expect("in the window");
    let turns: Vec<Vec<Reply>> = (0..20)
        .map(|_| {
            stage.run(2, &mut out);
            stage.on(ask(&[b"ar", b"br"]), &mut out).expect("is never refused");
            answers(&mut out)
        })
        .collect();
    let seen: Vec<_> = turns.iter().flatten().map(results).collect();
    let after = [(2, (2 * (97 + 2)).to_string()), (2, (2 * (98 + 2)).to_string())];
    assert!(seen.len() > 10 && seen.iter().all(|told| *told == after), "{seen:?}");
    assert!(turns[0].is_empty(), "the batch is not done");
}

/// What is no read, too much, or asked of a replica that may have shown more before, is refused,
/// and changes nothing.
#[test]
fn what_cannot_be_answered_is_refused_at_once() {
    let mut stage = reader();
    feed(&mut stage, 1, &batch(1, &[open(1, 1)]));
    let digest = stage.state_digest();
    for ops in [&[&b"ar"[..], b"a"][..], &[b"aB"]] {
        let reply = read(&mut stage, ops);
        assert_eq!((reply.status, reply.seq), (ReplyStatus::Unread, Seq(0)), "{ops:?}");
    }
    let mut out = StageOutbox::new();
    stage.on(ask_from(1, 1, &[b"ar"], 2), &mut out).expect("is never refused");
    assert_eq!(answers(&mut out)[0].status, ReplyStatus::Unread);
    let mut other = stage_of(Cells::new(97), 2, 4);
    assert_eq!(read(&mut other, &[b"ar"]).status, ReplyStatus::Unread, "it answers none");
    assert_eq!(stage.state_digest(), digest);
    stage.check_state();
}

/// One principal's flood is cut off, and does not keep another one's read waiting.
#[test]
fn a_flood_of_reads_costs_its_sender_only() {
    let mut stage = reader();
    let mut out = StageOutbox::new();
    for number in 1..=2 * WAITING_READS_PER_CLIENT_MAX as u64 {
        stage.on(ask_from(1, number, &[b"ar"], 0), &mut out).expect("is never refused");
    }
    let refused = answers(&mut out);
    assert_eq!(refused.len(), WAITING_READS_PER_CLIENT_MAX);
    assert!(refused.iter().all(|reply| reply.status == ReplyStatus::Unread));
    stage.on(ask_from(2, 1, &[b"ar"], 0), &mut out).expect("is never refused");
    assert_eq!(stage.run(8, &mut out), Turn::More);
    let first: Vec<u32> = answers(&mut out).iter().map(|reply| reply.frame.client.0).collect();
    assert_eq!(first, [1, 2], "in turn");
    stage.check();
    while stage.run(1000, &mut out).more() {}
    assert_eq!(answers(&mut out).len(), WAITING_READS_PER_CLIENT_MAX - 1);
    stage.check();
}
