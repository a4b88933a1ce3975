//! Measures durable appends: `cargo run --release -p stylite-store --example appends -- DIR`.
//! One writer, records of 4 KiB, one commit with `sync` each; DIR must not exist.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use base::{GroupId, Incarnation, ReplicaId, Seq};
use store::{Beginning, Dir, Durability, Identity, LogOptions, Opened, Real, Voice};

const SECONDS: u64 = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = PathBuf::from(std::env::args().nth(1).ok_or("name a directory")?);
    std::fs::create_dir(&path)?;
    let identity = Identity { group: GroupId([1; 32]), replica: ReplicaId(0) };
    let Opened { mut dir, .. } = Dir::open(&path, identity, Arc::new(Real))?;
    let whole = Beginning { voice: Voice::Whole, why: String::new() };
    let log = dir.begin(&whole, Incarnation(1), Durability::Sync, LogOptions::default())?;
    let mut log = log.ok_or("sync has a log")?;
    let record = vec![7; 4096];
    let mut took = vec![];
    let start = Instant::now();
    while start.elapsed().as_secs() < SECONDS {
        let one = Instant::now();
        let seq = Seq(took.len() as u64 + 1);
        log.append(&record, seq)?;
        log.commit(true)?;
        if seq.0.is_multiple_of(1000) {
            log.trim(Seq(seq.0.saturating_sub(8000)))?;
        }
        took.push(one.elapsed());
    }
    let seconds = start.elapsed().as_secs_f64();
    took.sort();
    let at = |part: usize| took[took.len() * part / 1000];
    let rate = took.len() as f64 / seconds;
    println!(
        "{rate:.0} appends/s; {:?} median, {:?} p99, {:?} p99.9, {:?} worst; {} bytes on disk",
        at(500),
        at(990),
        at(999),
        took[took.len() - 1],
        log.bytes(),
    );
    Ok(())
}
