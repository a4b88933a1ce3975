//! The key-value service's reads without an order: they answer what the command answers, they
//! write nothing, and their answers stay what they are for as long as they say.

#[allow(dead_code, reason = "the comparison with Redis uses more of it")]
#[path = "support/generator.rs"]
mod generator;

use std::collections::BTreeMap;

use base::{AgreedTime, Seq};
use exec::Service;
use exec::testing::Harness;
use generator::Generator;
use svc::KvService;
use svc::kv::info::is_read;
use svc::kv::op;
use svc::kv::reply::Protocol;

fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![];
    op::encode_command(Protocol::Resp2, args, &mut bytes);
    bytes
}

fn known_reads(args: &[Vec<u8>]) -> bool {
    is_read(&args.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Random commands; whatever is a read is also asked for without an order, and asked for again
/// after whatever comes later.
fn try_seed(seed: u64, shared: bool) -> u64 {
    let mut commands = Generator::new(seed, false);
    let mut harness = Harness::new(KvService::new());
    let mut asked: BTreeMap<Vec<u8>, (Vec<u8>, Seq)> = BTreeMap::new();
    let mut stayed = 0;
    for step in 1..=400u64 {
        let args = commands.command();
        let op = encode(&args);
        harness.tick(AgreedTime(1_700_000_000_000_000_000 + step * 3_000_000));
        if shared {
            assert!(harness.service.parallel().is_some());
        }
        let told = harness.read(&op);
        assert_eq!(told.is_some(), known_reads(&args), "{}", op.escape_ascii());
        let answer = harness.run(&op);
        if let Some((result, _)) = &told {
            assert_eq!(*result, answer, "{}", op.escape_ascii());
        }
        asked.retain(|op, (result, since)| {
            let (again, now) = harness.read(op).expect("it was a read before");
            let same = now == *since;
            assert!(!same || again == *result, "{} has changed", op.escape_ascii());
            stayed += u64::from(same);
            same
        });
        if let Some(told) = told.filter(|_| asked.len() < 50) {
            asked.insert(op, told);
        }
        if step % 100 == 0 {
            harness.root();
        }
    }
    stayed
}

#[test]
fn reads_answer_what_commands_answer_for_as_long_as_they_say() {
    let stayed: u64 = (0..40).map(|seed| try_seed(seed, seed % 2 == 0)).sum();
    assert!(stayed > 10_000, "answers that stayed: {stayed}");
}

/// What depends on the time is as old as the last batch; what is another bucket's write stays.
#[test]
fn keys_that_expire_are_read_at_one_number_only() {
    let mut harness = Harness::new(KvService::new());
    let words = |line: &str| {
        encode(&line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>())
    };
    for (seq, line) in (1..).zip(["SET a 1", "SET b 2 PX 5", "SET c 3"]) {
        assert_eq!(harness.run(&words(line)), b"+OK\r\n", "{seq}");
    }
    let since = |harness: &Harness<KvService>, line| harness.read(&words(line)).expect("a read").1;
    assert_eq!(since(&harness, "GET a"), Seq(1));
    assert_eq!(since(&harness, "GET b"), Seq(3), "now, since it expires");
    assert_eq!(since(&harness, "MGET a c"), Seq(3));
    assert_eq!(since(&harness, "TTL a"), Seq(1));
    assert_eq!(since(&harness, "GET nothing"), Seq(0));
    // Its time passes, and it is removed.
    harness.tick(AgreedTime(1_000_000_000));
    harness.tick(AgreedTime(2_000_000_000));
    let (answer, since) = harness.read(&words("GET b")).expect("a read");
    assert_eq!((answer, since), (b"$-1\r\n".to_vec(), Seq(4)), "written by who removed it");
    for line in ["DBSIZE", "KEYS *", "SCAN 0", "SRANDMEMBER a", "TIME", "SET a 1", "GET", "NO a"] {
        assert_eq!(harness.read(&words(line)), None, "{line}");
    }
}
