//! How long the services take per operation, without agreement, network and gateway.
//!
//! `cargo run --release -p stylite-svc --example speed [KEYS]`

use std::hint::black_box;
use std::time::Instant;

use base::{AgreedTime, ClientId, FrameId, Seq, SessionId};
use exec::{Context, ObjectTree, Service};
use svc::kv::op;
use svc::kv::reply::Protocol;

/// Operations per line of the output.
const OPS: usize = 1_000_000;

fn main() {
    let keys = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(100_000usize);
    let mut kv = svc::KvService::new();
    let mut tree = ObjectTree::new(kv.objects());
    println!("{keys} keys, {OPS} operations a line");
    for template in [
        "SET key:# xxxxxxxxxxxxxxxx",
        "GET key:#",
        "SET key:# xxxxxxxxxxxxxxxx EX 100",
        "INCR counter:#",
        "HSET hash:# field value",
        "HSET hash field:# value",
        "HGET hash field:#",
        "LPUSH list x",
        "SADD set member:#",
        "ZADD zset # member:#",
        "MGET key:# key:1# key:2#",
        "DEL key:#",
    ] {
        let ops: Vec<Vec<u8>> = (0..OPS).map(|i| command(template, i * 7919 % keys)).collect();
        run(&mut kv, &mut tree, template, &ops);
    }
    let mut echo = svc::EchoService::new();
    let ops = vec![svc::echo::encode(0, &[7; 12]); OPS];
    run(&mut echo, &mut ObjectTree::new(1), "(echo of 16 bytes)", &ops);
}

fn command(template: &str, number: usize) -> Vec<u8> {
    let text = template.replace('#', &number.to_string());
    let args: Vec<&str> = text.split(' ').collect();
    let mut bytes = vec![];
    op::encode_command(Protocol::Resp2, &args, &mut bytes);
    bytes
}

fn run(service: &mut impl Service, tree: &mut ObjectTree, name: &str, ops: &[Vec<u8>]) {
    let frame = FrameId { client: ClientId(0), session: SessionId(1), stream: 0, id: 1 };
    let (mut outputs, mut reply) = (vec![], vec![]);
    let start = Instant::now();
    for (i, op) in ops.iter().enumerate() {
        let time = AgreedTime(1_000_000_000_000 + i as u64);
        let mut ctx = Context::new(Seq(i as u64), 1, time, frame, tree, &mut outputs);
        reply.clear();
        service.execute(op, &mut ctx, &mut reply);
        black_box(&reply);
    }
    let each = start.elapsed().as_nanos() / ops.len() as u128;
    let (start, marked) = (Instant::now(), tree.marked());
    black_box(tree.refresh(|object| service.digest(object)));
    let digest = start.elapsed().as_micros();
    println!("{each:6} ns/op   {digest:8} us for the digest of {marked:6} objects   {name}");
}
