//! The key-value service on several threads: byte-equal replies and digests with 1, 2, 4 and 8
//! workers, on real threads and under schedules that a generator comes up with.

#[allow(dead_code, reason = "the comparison with Redis uses more of it")]
#[path = "support/generator.rs"]
mod generator;

#[allow(dead_code, reason = "other services' tests use more of it")]
#[path = "support/schedules.rs"]
mod schedules;

use std::sync::Arc;

use base::{AgreedTime, Batch, ClientId, Frame, FrameBuilder, FrameId, SessionId};
use exec::Service;
use exec::testing::Harness;
use generator::Generator;
use schedules::{Dice, GROUP, extent, same, scheduled, sequential, signed, threaded};
use svc::KvService;
use svc::kv::op::{self, Step};
use svc::kv::reply::Protocol;

const CLIENTS: u32 = 4;

fn make() -> Box<dyn Service> {
    Box::new(KvService::new())
}

/// Commands, transactions, watches, and bytes that are nothing.
fn operation(commands: &mut Generator, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = vec![];
    match dice.below(40) {
        0 => bytes.extend_from_slice(b"\x01\x07"),
        1 => op::encode_command(Protocol::Resp2, &["FLUSHALL"], &mut bytes),
        2 => {
            let keys: Vec<Vec<u8>> = commands.command().into_iter().skip(1).take(3).collect();
            match keys.is_empty() {
                true => op::encode_command(Protocol::Resp2, &["DBSIZE"], &mut bytes),
                false => op::encode_watch(Protocol::Resp2, &keys, &mut bytes),
            }
        }
        3..=6 => {
            let all: Vec<Vec<Vec<u8>>> =
                (0..1 + dice.below(5)).map(|_| commands.command()).collect();
            let encoded: Vec<Vec<u8>> = all.iter().map(|args| command(args)).collect();
            let steps: Vec<Step<'_>> = encoded.iter().map(|bytes| step(bytes)).collect();
            op::encode_transaction(Protocol::Resp3, &[], &steps, &mut bytes);
        }
        _ => bytes = command(&commands.command()),
    }
    bytes
}

fn command(args: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![];
    op::encode_command(Protocol::Resp2, args, &mut bytes);
    bytes
}

fn step(bytes: &[u8]) -> Step<'_> {
    match op::decode(bytes) {
        Ok((_, op::Op::Command(args))) => Step::Command(args),
        _ => unreachable!("it was encoded as a command"),
    }
}

fn log(seed: u64, batches: u64) -> Vec<Arc<Batch>> {
    let (mut commands, mut dice) = (Generator::new(seed, false), Dice(seed));
    let open = |client| Arc::new(FrameBuilder::open(GROUP, ClientId(client), SessionId(1), signed));
    let mut frames: Vec<Arc<Frame>> = (0..CLIENTS).map(open).collect();
    let (mut log, mut ids, mut time) = (vec![], [0; CLIENTS as usize], 1_000_000_000);
    for _ in 0..batches {
        log.push(Arc::new(Batch::Frames { time: AgreedTime(time), frames }));
        time += dice.below(400) * 1_000_000;
        frames = vec![];
        for _ in 0..dice.below(6) {
            let client = dice.below(CLIENTS.into()) as u32;
            let id = &mut ids[client as usize];
            *id += 1;
            let name =
                FrameId { client: ClientId(client), session: SessionId(1), stream: 0, id: *id };
            let mut builder = FrameBuilder::new();
            (0..1 + dice.below(30)).for_each(|_| {
                builder.push(&operation(&mut commands, &mut dice));
            });
            frames.push(Arc::new(builder.request(GROUP, name, *id - 1, signed)));
        }
    }
    log
}

#[test]
fn any_number_of_threads_gives_the_replies_and_digests_of_one() {
    for seed in 0..4 {
        let log = log(seed, 40);
        let expected = sequential(make, &log);
        for workers in [1, 2, 4, 8] {
            same(
                &threaded(make, &log, workers),
                &expected,
                &format!("seed {seed}, {workers} workers"),
            );
        }
    }
}

#[test]
fn any_schedule_gives_the_replies_and_digests_of_one_after_the_other() {
    for seed in 0..extent(16, 1_000) {
        let log = log(seed / 4, 25);
        let expected = sequential(make, &log);
        for workers in [1, 2, 4, 8] {
            let got = scheduled(make, &log, seed, workers);
            same(&got, &expected, &format!("seed {seed}, {workers} workers"));
        }
    }
}

/// Every command touches what it declares and nothing else.
#[test]
fn what_commands_touch_is_what_they_declare() {
    let (mut commands, mut dice) = (Generator::new(9, false), Dice(9));
    let mut harness = Harness::new(KvService::new()).checking_declarations();
    for i in 0..20_000 {
        harness.run(&operation(&mut commands, &mut dice));
        if i % 500 == 0 {
            harness.root();
        }
    }
    assert!(harness.declarations_checked() > 15_000, "{}", harness.declarations_checked());
}
