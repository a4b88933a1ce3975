//! The harness finds what a service does and does not declare.

use std::sync::{Arc, Mutex};

use base::{AgreedTime, Malformed};
use exec::testing::Harness;
use exec::{Completion, Context, Footprint, ParallelService, Service};

/// What is wrong with the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// Reads the second cell without saying so.
    Reads,
    /// Writes the second cell without saying so.
    Writes,
    /// Says that it writes a class of the operation's own.
    Apart,
    /// Moves the deadline without saying so.
    Schedules,
}

/// Two cells in one object. An operation adds its number to the first.
struct Cells {
    values: Arc<Mutex<[u64; 2]>>,
    fault: Fault,
}

struct Handle(Arc<Mutex<[u64; 2]>>, Fault);

fn step(values: &Mutex<[u64; 2]>, fault: Fault, op: &[u8], ctx: &mut Context<'_>) {
    let mut values = values.lock().expect("nobody panics");
    let add = op.first().copied().unwrap_or(0).into();
    ctx.writes(if fault == Fault::Apart { add } else { 0 });
    if fault == Fault::Reads {
        ctx.reads(1);
    }
    if fault == Fault::Writes {
        ctx.writes(1);
    }
    let now = *values;
    ctx.modify(0, |out| out.extend(now.iter().flat_map(|value| value.to_le_bytes())));
    values[0] += add;
}

impl Service for Cells {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, _: &mut Vec<u8>) -> Completion {
        step(&self.values, self.fault, op, ctx);
        Completion::Done
    }

    fn get(&self, _: u32, out: &mut Vec<u8>) {
        let values = self.values.lock().expect("nobody panics");
        out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn put(&mut self, _: u32, _: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        let own = op.first().copied().unwrap_or(0).into();
        out.writes.push(if self.fault == Fault::Apart { own } else { 0 });
        out.schedules = self.fault != Fault::Schedules;
    }

    fn deadline(&self) -> Option<AgreedTime> {
        let sum = self.values.lock().expect("nobody panics")[0];
        Some(AgreedTime(u64::MAX - sum))
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        Some(Arc::new(Handle(Arc::clone(&self.values), self.fault)))
    }
}

impl ParallelService for Handle {
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, _: &mut Vec<u8>) {
        step(&self.0, self.1, op, ctx);
    }
}

fn run(fault: Fault) {
    let cells = Cells { values: Arc::default(), fault };
    let mut harness = Harness::new(cells).checking_declarations();
    harness.root();
    harness.run(&[1]);
    harness.run(&[2]);
    harness.root();
    assert_eq!(harness.declarations_checked(), 2);
}

#[test]
fn what_is_declared_is_allowed() {
    run(Fault::None);
}

#[test]
#[should_panic(expected = "operation \\x01 reads class 0x1, which it does not declare")]
fn a_read_outside_the_declaration_fails_the_test() {
    run(Fault::Reads);
}

#[test]
#[should_panic(expected = "operation \\x01 writes class 0x1, which it does not declare")]
fn a_write_outside_the_declaration_fails_the_test() {
    run(Fault::Writes);
}

#[test]
#[should_panic(expected = "operation \\x02 and operation \\x01 write object 0")]
fn writers_of_one_object_without_a_common_class_fail_the_test() {
    run(Fault::Apart);
}

#[test]
#[should_panic(expected = "brings the deadline forward")]
fn a_deadline_that_comes_as_a_surprise_fails_the_test() {
    run(Fault::Schedules);
}
