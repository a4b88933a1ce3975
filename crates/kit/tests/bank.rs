//! The example of a bank: no money is made or lost under any schedule.

#[allow(dead_code, reason = "its main function is for people")]
#[path = "../examples/bank.rs"]
mod bank;

use std::time::Duration;

use base::{AgreedTime, ClientId, FrameId, SessionId};
use exec::testing::{self, Harness};
use exec::{Context, Footprint, ObjectTree, Parallelizer};
use kit::{LocalGroup, Seq, Service};

use bank::{ACCOUNTS, BEGINNING, Bank, audit, balance, transfer};

const TOTAL: u64 = ACCOUNTS as u64 * BEGINNING;

/// A small generator, the same sequence for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % n
    }
}

fn operations(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut dice = Dice(seed);
    // Few accounts, so that many transfers depend on each other.
    let few = 2 + dice.below(10);
    let one = |_| {
        let (a, b) = (dice.below(few) as u32, dice.below(few) as u32);
        match dice.below(12) {
            0 => audit(),
            1 | 2 => balance(a),
            3 => b"nonsense".to_vec(),
            _ => transfer(a, b, dice.below(700)),
        }
    };
    (0..count).map(one).collect()
}

fn frame() -> FrameId {
    FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id: 1 }
}

/// Executes everything in an order that the parallelizer allows and the seed decides.
fn schedule(ops: &[Vec<u8>], seed: u64) -> (Vec<Vec<u8>>, Vec<u64>) {
    let mut bank = Bank::new(Duration::ZERO);
    let mut graph: Parallelizer<usize> = Parallelizer::new(seed, None);
    for (i, op) in ops.iter().enumerate() {
        let mut footprint = Footprint::default();
        bank.footprint(op, &mut footprint);
        graph.insert(Seq(1), &footprint, i);
    }
    let (mut dice, mut tree) = (Dice(seed), ObjectTree::new(ACCOUNTS));
    let mut replies = vec![vec![]; ops.len()];
    let handle = bank.parallel().expect("it is made for it");
    while let Some((ticket, i)) = graph.choose_request(|n| dice.below(n as u64) as usize) {
        let (mut outputs, index) = (vec![], i as u32 + 1);
        let (seq, time) = (Seq(1), AgreedTime(1));
        let mut ctx = Context::new(seq, index, time, frame(), &mut tree, &mut outputs);
        handle.execute(&ops[i], &mut ctx, &mut replies[i]);
        graph.remove_request(ticket);
    }
    assert_eq!(graph.pending(), 0);
    drop(handle);
    let value = |account| {
        let mut bytes = vec![];
        bank.get(account, &mut bytes);
        u64::from_le_bytes(bytes[..].try_into().expect("8 bytes"))
    };
    (replies, (0..ACCOUNTS).map(value).collect())
}

/// One after the other, by the service itself.
fn sequential(ops: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<u64>) {
    let mut bank = Bank::new(Duration::ZERO);
    let mut tree = ObjectTree::new(ACCOUNTS);
    let mut replies = vec![vec![]; ops.len()];
    for (i, op) in ops.iter().enumerate() {
        let (mut outputs, index) = (vec![], i as u32 + 1);
        let (seq, time) = (Seq(1), AgreedTime(1));
        let mut ctx = Context::new(seq, index, time, frame(), &mut tree, &mut outputs);
        bank.execute(op, &mut ctx, &mut replies[i]);
    }
    let value = |account| {
        let mut bytes = vec![];
        bank.get(account, &mut bytes);
        u64::from_le_bytes(bytes[..].try_into().expect("8 bytes"))
    };
    (replies, (0..ACCOUNTS).map(value).collect())
}

#[test]
fn no_money_is_made_or_lost_under_any_schedule() {
    for seed in 0..500 {
        let ops = operations(seed / 5, 60);
        let expected = sequential(&ops);
        assert_eq!(expected.1.iter().sum::<u64>(), TOTAL);
        assert_eq!(schedule(&ops, seed), expected, "seed {seed}");
    }
}

#[test]
fn operations_touch_what_they_declare() {
    let bank = Bank::new(Duration::ZERO);
    let mut harness = Harness::new(bank).checking_declarations();
    for op in operations(7, 3_000) {
        harness.run(&op);
    }
    harness.root();
    assert!(harness.declarations_checked() > 2_000);
}

#[test]
fn transfers_are_taken_back() {
    let history = |seed: u64| {
        let orders = (2..=100).map(|seq| {
            let time = AgreedTime(seq * 1_000);
            testing::batch(seq, time, 3, &operations(seed * 1_000 + seq, 20))
        });
        let first = testing::opening(AgreedTime(1), 3);
        std::iter::once(first).chain(orders).collect::<Vec<_>>()
    };
    let make = || Box::new(Bank::new(Duration::ZERO)) as Box<dyn Service>;
    assert_eq!(testing::check_taken_back(&make, &history(1), &history(2)), 99);
}

#[test]
fn a_group_with_workers_keeps_the_money_together() {
    let group = LocalGroup::builder(|| Bank::new(Duration::from_micros(20)))
        .workers(3)
        .start()
        .expect("the group starts");
    let client = group.blocking_client().expect("a client");
    for seed in 0..5 {
        let calls: Vec<_> =
            operations(seed, 300).into_iter().map(|op| client.begin(0, op)).collect();
        for call in calls {
            call.wait().expect("an answer");
        }
        let sum = client.call(audit()).expect("an answer");
        assert_eq!(sum, TOTAL.to_le_bytes());
    }
    drop(client);
    group.stop();
}
