//! A replicated counter: four copies in this process, and it does not care which of them fails.
//!
//! Run it with `cargo run --release --example counter -p stylite-kit`.

use kit::{Completion, Context, LocalGroup, Malformed, ReadContext, Reader, ReplicaId, Service};

#[derive(Default)]
struct Counter {
    value: u64,
}

impl Service for Counter {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        match op {
            b"increment" => {
                // Before each write: checkpoints digest the objects that were announced.
                ctx.modify(0, |out| self.get(0, out));
                self.value += 1;
            }
            b"get" => {}
            _ => reply.extend_from_slice(b"unknown operation, value is "),
        }
        reply.extend_from_slice(self.value.to_string().as_bytes());
        Completion::Done
    }

    // For groups that answer reads without an order.
    fn read(&self, op: &[u8], ctx: &mut ReadContext<'_>, reply: &mut Vec<u8>) -> bool {
        ctx.looks_at(0);
        reply.extend_from_slice(self.value.to_string().as_bytes());
        op == b"get"
    }

    fn get(&self, _object: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.value.to_le_bytes());
    }

    fn put(&mut self, _object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        self.value = Reader::new(bytes).u64("counter")?;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut group = LocalGroup::builder(Counter::default).replicas(4).pillars(1).start()?;
    let client = group.blocking_client()?;
    let call =
        |op: &str| client.call(op).map(|result| String::from_utf8_lossy(&result).into_owned());

    println!("increment -> {}", call("increment")?);
    println!("increment -> {}", call("increment")?);
    println!("get       -> {}", call("get")?);
    println!("decrement -> {}", call("decrement")?);

    // Calls that are begun without waiting travel together.
    let many: Vec<_> = (0..1000).map(|_| client.begin(0, "increment")).collect();
    many.into_iter().try_for_each(|one| one.wait().map(drop))?;
    println!("get       -> {}", call("get")?);

    // The leader, of all replicas: the others choose another one.
    group.stop_replica(ReplicaId(0));
    println!("increment -> {} (with the leader down)", call("increment")?);
    group.start_replica(ReplicaId(0))?;
    println!("increment -> {} (and up again)", call("increment")?);
    drop(client);
    group.stop();
    Ok(())
}
