//! A client in memory, and what replicas tell it: replies of liars and of others, out of order.
//!
//! An input is a row of steps: a replica's number, two bytes of length and a reply as it travels;
//! or time that passes; or an operation. Every operation ends at most once.

use std::collections::BTreeSet;

use base::reply::{ReplyBody, ReplyDigest, ReplyPacket};
use base::{
    AgreedTime, ClientId, Now, PillarId, Quorums, Reader, ReplicaId, Reply, ReplyStatus, Seq, Span,
    Stripe, Time, View, Writer,
};
use proto::client::{ClientConfig, ClientCore, Effect};

use crate::samples::{self, GROUP, N};
use crate::target::{Outcome, Run};

const WALL: AgreedTime = AgreedTime(1_000);

fn core(now: Now) -> ClientCore<u32> {
    let quorums = Quorums::pbft(N, 1).expect("a legal group");
    let stripe = Stripe::new(2).expect("a legal striping");
    let mut config = ClientConfig::new(GROUP, quorums, stripe, ClientId(1));
    config.repliers = config.repliers.with_digests(Some(0)).with_relief(true);
    ClientCore::new(config, Box::new(samples::keys(0)), now)
}

/// A client that is told things: no operation ends twice, and nothing makes it panic.
pub fn session() -> Run {
    Box::new(|bytes| {
        let mut now = Now { mono: Time(1), wall: WALL };
        let mut core = core(now);
        let mut r = Reader::new(bytes);
        let (mut submitted, mut done) = (0u32, BTreeSet::new());
        let (mut kinds, mut results) = (0u32, 0usize);
        for _ in 0..64 {
            let Ok(kind) = r.u8("step") else { break };
            match kind & 7 {
                0 => now.mono = now.mono.after(Span::millis(u64::from(kind) * 50)),
                1 => {
                    let op = vec![kind; usize::from(kind >> 3)];
                    if core.submit(now, u32::from(kind >> 4), &op, submitted).is_ok() {
                        submitted += 1;
                    }
                }
                2 => core.on_link(ReplicaId(u16::from(kind >> 3) % 5), PillarId(1)),
                3 if kind == 0xfb => core.close(now),
                _ => {
                    let Ok(len) = r.u16("length") else { break };
                    let len = usize::from(len).min(r.rest().len());
                    let mut packet = Reader::new(r.bytes(len, "reply").expect("is there"));
                    let from = ReplicaId(u16::from(kind >> 3) % 5);
                    while let Ok(reply) = ReplyPacket::decode(&mut packet) {
                        core.on_reply(now, from, &reply);
                    }
                }
            }
            core.turn(now);
            core.check();
            for effect in core.drain() {
                kinds |= match effect {
                    Effect::Send { .. } => 1,
                    Effect::Done { tokens, outcome } => {
                        for token in tokens {
                            assert!(token < submitted && done.insert(token), "{token} ends twice");
                        }
                        results += outcome.as_ref().map_or(0, |results| results.len());
                        if outcome.is_ok() { 2 } else { 4 }
                    }
                    Effect::SessionChanged(_) => 8,
                    Effect::SessionOpened(_) => 16,
                    Effect::Closed => 32,
                    Effect::Suspect { .. } => 64,
                    Effect::Avoid(_) => 128,
                };
            }
        }
        Outcome::of((kinds, results.min(4), submitted.min(4), core.is_open()))
    })
}

fn reply(out: &mut Vec<u8>, from: u8, reply: &Reply) {
    let mut content = vec![];
    reply.encode(&mut content);
    packet(out, from, &ReplyPacket::whole(View(0), &content));
}

/// The same by its digest, of a batch that is not committed.
fn digest(out: &mut Vec<u8>, from: u8, reply: &Reply) {
    let mut content = vec![];
    reply.encode(&mut content);
    let body = ReplyBody::Digest(ReplyDigest::of(reply.frame, reply.seq, &content));
    packet(out, from, &ReplyPacket { view: View(1), tentative: true, body });
}

fn packet(out: &mut Vec<u8>, from: u8, reply: &ReplyPacket<'_>) {
    let mut packet = vec![];
    reply.encode(&mut packet);
    let len = u16::try_from(packet.len()).expect("small");
    Writer::new(out).u8(from << 3 | 4).u16(len).bytes(&packet);
}

/// A session that opens and executes, and each status once.
#[must_use]
pub fn session_seeds() -> Vec<Vec<u8>> {
    let session = core(Now { mono: Time(1), wall: WALL }).session();
    let frame = |id| base::FrameId { client: ClientId(1), session, stream: 0, id };
    let (seq, count) = (Seq(1), 0);
    let plain = |id, status| Reply { frame: frame(id), seq, status, count, results: vec![] };
    let mut results = vec![];
    Writer::new(&mut results).sized(b"result");
    let executed = Reply { count: 1, results, ..plain(1, ReplyStatus::Executed) };
    let mut opens = vec![0x11];
    for from in 0..2 {
        reply(&mut opens, from, &plain(0, ReplyStatus::Opened));
    }
    let mut whole = opens.clone();
    for from in 1..4 {
        reply(&mut whole, from, &executed);
    }
    whole.push(0xfb);
    for from in 0..2 {
        reply(&mut whole, from, &plain(u64::MAX, ReplyStatus::Closed));
    }
    let mut tentative = opens.clone();
    digest(&mut tentative, 1, &executed);
    digest(&mut tentative, 2, &executed);
    reply(&mut tentative, 3, &executed);
    let refusals = [
        ReplyStatus::OutOfOrder(1),
        ReplyStatus::NoSession,
        ReplyStatus::ReplyGone,
        ReplyStatus::Conflict,
        ReplyStatus::OutOfWindow,
        ReplyStatus::TooLarge,
        ReplyStatus::Unread,
    ];
    let refused = refusals.map(|status| {
        let mut out = opens.clone();
        (0..2).for_each(|from| reply(&mut out, from, &plain(1, status)));
        out.push(0x50);
        out
    });
    let mut stale = vec![];
    let highest = base::SessionId(session.0 + 10);
    (0..2).for_each(|from| reply(&mut stale, from, &plain(0, ReplyStatus::StaleSession(highest))));
    refused.into_iter().chain([whole, tentative, stale]).collect()
}
