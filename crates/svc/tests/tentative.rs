//! What was executed tentatively can be taken back: for each number another batch executes and
//! goes again before the right one comes, and nobody can tell (design, trap 7).

#[allow(dead_code, reason = "the comparison with Redis uses more of it")]
#[path = "support/generator.rs"]
mod generator;

use std::sync::Arc;

use base::{AgreedTime, Batch};
use exec::Service;
use exec::testing::{batch, check_taken_back, opening};
use generator::Generator;
use svc::kv::op::{self, Step};
use svc::kv::reply::Protocol;
use svc::zk::jute::JuteWriter;
use svc::zk::kind;
use svc::zk::op::{Attachment, Op};
use svc::{EchoService, KvService, WorkService, ZooKeeperService};

/// A small generator, the same sequence for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % n
    }
}

const BEGINNING_MS: u64 = 1_000_000;

/// Makes the operations of a batch: of the right one at a number, or of the other.
type Ops<'a> = &'a mut dyn FnMut(u64, bool, &mut Dice) -> Vec<Vec<u8>>;

/// A history of `numbers`, and at each number another batch. From one batch to the next, up to
/// `step_ms` pass.
fn histories(
    (numbers, clients, step_ms): (u64, u32, u64),
    dice: &mut Dice,
    ops: Ops<'_>,
) -> [Vec<Arc<Batch>>; 2] {
    let mut now = BEGINNING_MS;
    let at = |ms: u64| AgreedTime(ms * 1_000_000);
    let first = opening(at(now), clients);
    let (mut log, mut others) = (vec![Arc::clone(&first)], vec![first]);
    for seq in 2..=numbers {
        let later = now + dice.below(step_ms);
        now += dice.below(step_ms);
        let mine = ops(seq, true, dice);
        let other = ops(seq, false, dice);
        log.push(batch(seq, at(now), clients, &mine));
        others.push(batch(seq, at(later), clients, &other));
    }
    [log, others]
}

fn check(make: &dyn Fn() -> Box<dyn Service>, [log, others]: &[Vec<Arc<Batch>>; 2]) {
    // All but the first, at which both are the same.
    let taken_back = check_taken_back(make, log, others);
    assert!(taken_back as usize >= log.len() * 9 / 10, "{taken_back} of {}", log.len());
}

#[test]
fn echoes_are_taken_back() {
    let mut dice = Dice(1);
    let mut ops = |_: u64, _: bool, dice: &mut Dice| {
        (0..dice.below(20)).map(|_| svc::echo::encode(dice.below(90) as u32, &[1; 9])).collect()
    };
    let all = histories((100, 3, 5), &mut dice, &mut ops);
    check(&|| Box::new(EchoService::new()), &all);
    check(&|| Box::new(WorkService::new()), &all);
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

/// Commands of every kind, transactions, and whatever empties everything, which is seldom enough
/// for collections to grow where they are to.
fn redis(commands: &mut Generator, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = vec![];
    match dice.below(if commands.large { 3000 } else { 60 }) {
        0 => op::encode_command(Protocol::Resp2, &["FLUSHALL"], &mut bytes),
        n if n % 10 == 1 => {
            let all: Vec<Vec<u8>> =
                (0..1 + dice.below(5)).map(|_| command(&commands.command())).collect();
            let steps: Vec<Step<'_>> = all.iter().map(|bytes| step(bytes)).collect();
            op::encode_transaction(Protocol::Resp3, &[], &steps, &mut bytes);
        }
        _ => bytes = command(&commands.command()),
    }
    bytes
}

#[test]
fn redis_commands_are_taken_back() {
    for seed in 0..4 {
        let (mut commands, mut dice) = (Generator::new(seed, seed % 2 == 1), Dice(seed));
        commands.mixes = true;
        let mut ops = |_: u64, _: bool, dice: &mut Dice| -> Vec<Vec<u8>> {
            (0..dice.below(60)).map(|_| redis(&mut commands, dice)).collect()
        };
        let all = histories((120, 3, 400), &mut dice, &mut ops);
        check(&|| Box::new(KvService::new()), &all);
    }
}

fn jute(write: impl FnOnce(&mut JuteWriter<'_>)) -> Vec<u8> {
    let mut out = vec![];
    write(&mut JuteWriter::new(&mut out));
    out
}

fn path(dice: &mut Dice) -> String {
    let name = |dice: &mut Dice| ["/a", "/b", "/c", "/queue"][dice.below(4) as usize];
    let depth = 1 + dice.below(2);
    (0..depth).map(|_| name(dice)).collect()
}

/// A request about some node: nodes of every kind, watches, versions that are right or not.
fn request(from: Attachment, dice: &mut Dice) -> Vec<u8> {
    let path = path(dice);
    let (watch, version) = (dice.below(2) == 0, dice.below(4) as i32 - 2);
    let looks = || {
        jute(|w| {
            w.text(&path).bool(watch);
        })
    };
    let (kind, body) = match dice.below(9) {
        0..=2 => {
            let flags = [0, 0, 1, 2, 3, 4][dice.below(6) as usize];
            let create = jute(|w| {
                w.text(&path).buffer(Some(b"data")).count(1).int(31);
                w.text("world").text("anyone").int(flags);
            });
            (kind::CREATE2, create)
        }
        3 => {
            let delete = jute(|w| {
                w.text(&path).int(version);
            });
            (kind::DELETE, delete)
        }
        4 => {
            let set = jute(|w| {
                w.text(&path).buffer(Some(&[7; 20])).int(version);
            });
            (kind::SET_DATA, set)
        }
        5 => (kind::EXISTS, looks()),
        6 => (kind::GET_DATA, looks()),
        7 => (kind::GET_CHILDREN2, looks()),
        _ => (kind::PING, vec![]),
    };
    let mut bytes = vec![];
    Op::Request { from, kind, body: &body }.encode(&mut bytes);
    bytes
}

/// Sessions come, are renewed, moved, left and expire; nodes, watches and events come and go
/// with them.
#[test]
fn zookeeper_requests_are_taken_back() {
    const PASSWORD: [u8; 16] = [7; 16];
    for seed in 0..3 {
        let mut dice = Dice(seed);
        let mut known: Vec<Attachment> = vec![];
        let mut ops = |seq: u64, counts: bool, dice: &mut Dice| -> Vec<Vec<u8>> {
            let mut opened = vec![];
            let mut one = |index: u64, dice: &mut Dice| {
                let some = match known.len() as u64 {
                    0 => (1, 1),
                    n => known[dice.below(n) as usize],
                };
                let name = seq << 23 | index;
                let mut bytes = vec![];
                match dice.below(16) {
                    0 | 1 => {
                        opened.push((name, name));
                        let timeout_ms = 1_000 + dice.below(9_000) as u32;
                        Op::Open { password: PASSWORD, timeout_ms }.encode(&mut bytes);
                    }
                    2 => {
                        let (session, password, timeout_ms) = (some.0, PASSWORD, 4_000);
                        opened.push((session, name));
                        let resume = Op::Resume { session, password, timeout_ms, last_zxid: 0 };
                        resume.encode(&mut bytes);
                    }
                    3 => Op::Leave(some).encode(&mut bytes),
                    4 | 5 => Op::Renew(known.clone()).encode(&mut bytes),
                    6 => Op::Stats.encode(&mut bytes),
                    _ => bytes = request(some, dice),
                }
                bytes
            };
            let all = (1..=dice.below(30)).map(|index| one(index, dice)).collect();
            if counts {
                known.extend(opened);
                let old = known.len().saturating_sub(12);
                known.drain(..old);
            }
            all
        };
        // One principal: the index of an operation is its place.
        let all = histories((200, 1, 900), &mut dice, &mut ops);
        check(&|| Box::new(ZooKeeperService::new()), &all);
    }
}
