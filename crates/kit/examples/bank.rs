//! A replicated bank whose transfers execute on several threads at once, as far as they concern
//! different accounts; money is neither made nor lost, in whatever order they execute.
//!
//! Run it with `cargo run --release --example bank -p stylite-kit`.
//!
//! What a service has to do for that, beyond being a service:
//!
//! 1. Say what each operation touches ([`Service::footprint`]). Here a class is the number of an
//!    account: a transfer writes two of them, a look at a balance reads one. The audit would read
//!    all of them; it says that it is a barrier, which comes to the same and costs less. What is
//!    no operation depends on nothing: its answer is always the same. Saying too much costs
//!    parallelism; saying too little makes replicas drift apart.
//! 2. Put the state behind locks and hand it out ([`Service::parallel`]). Who may execute at the
//!    same time is decided before any lock is taken, so locks are there for the compiler more
//!    than for anybody who waits: each is taken in the order of account numbers, and gone when
//!    the operation ends. With one lock for everything a service would be right, and slow.
//! 3. Take no name from a counter. A receipt is the operation's place in the total order, which
//!    does not depend on who was executed first.
//!
//! In a test, `exec::testing::Harness::checking_declarations` holds what operations touch against
//! what they declare; `tests/bank.rs` does that, and goes through schedules.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kit::{
    Completion, Context, Footprint, LocalGroup, Malformed, ParallelService, Reader, Service, Writer,
};

/// Accounts, each an object of the state and a class of its own.
pub const ACCOUNTS: u32 = 64;
/// What each account has at first.
pub const BEGINNING: u64 = 1_000;

const TRANSFER: u8 = 1;
const BALANCE: u8 = 2;
const AUDIT: u8 = 3;

/// The bank.
pub struct Bank {
    accounts: Arc<Accounts>,
}

/// The accounts, each behind a lock, and how long a transfer is looked at for fraud.
struct Accounts {
    balances: Vec<Mutex<u64>>,
    diligence: Duration,
}

impl Bank {
    /// A bank in which a transfer takes so long.
    pub fn new(diligence: Duration) -> Bank {
        let balances = (0..ACCOUNTS).map(|_| Mutex::new(BEGINNING)).collect();
        Bank { accounts: Arc::new(Accounts { balances, diligence }) }
    }
}

/// Encodes a transfer.
pub fn transfer(from: u32, to: u32, amount: u64) -> Vec<u8> {
    let mut op = Vec::new();
    Writer::new(&mut op).u8(TRANSFER).u32(from).u32(to).u64(amount);
    op
}

/// Encodes a look at an account.
pub fn balance(account: u32) -> Vec<u8> {
    let mut op = Vec::new();
    Writer::new(&mut op).u8(BALANCE).u32(account);
    op
}

/// Encodes a look at all of them.
pub fn audit() -> Vec<u8> {
    vec![AUDIT]
}

/// An operation, as far as it is one.
enum Order {
    Transfer { from: u32, to: u32, amount: u64 },
    Balance(u32),
    Audit,
}

fn decode(op: &[u8]) -> Option<Order> {
    let mut r = Reader::new(op);
    let account = |r: &mut Reader<'_>| r.u32("account").ok().filter(|one| *one < ACCOUNTS);
    match r.u8("kind").ok()? {
        TRANSFER => {
            let (from, to) = (account(&mut r)?, account(&mut r)?);
            let amount = r.u64("amount").ok()?;
            (from != to).then_some(Order::Transfer { from, to, amount })
        }
        BALANCE => account(&mut r).map(Order::Balance),
        AUDIT => Some(Order::Audit),
        _ => None,
    }
}

impl Accounts {
    fn lock(&self, account: u32) -> MutexGuard<'_, u64> {
        self.balances[account as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transfer(&self, (from, to): (u32, u32), amount: u64, ctx: &mut Context<'_>) -> bool {
        let until = Instant::now() + self.diligence;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        // In the order of numbers, whichever way the money goes.
        let mut low = self.lock(from.min(to));
        let mut high = self.lock(from.max(to));
        let (source, target) =
            if from < to { (&mut *low, &mut *high) } else { (&mut *high, &mut *low) };
        ctx.reads(from.into());
        if *source < amount {
            return false;
        }
        for (account, value) in [(from, *source), (to, *target)] {
            ctx.writes(account.into());
            ctx.modify(account, |out| out.extend_from_slice(&value.to_le_bytes()));
        }
        *source -= amount;
        *target += amount;
        true
    }
}

impl ParallelService for Accounts {
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
        match decode(op) {
            Some(Order::Transfer { from, to, amount }) => {
                let done = self.transfer((from, to), amount, ctx);
                // The receipt: unique, and the same at every replica.
                let receipt = (ctx.seq.0, ctx.index);
                Writer::new(reply).u8(done.into()).u64(receipt.0).u32(receipt.1);
            }
            Some(Order::Balance(account)) => {
                ctx.reads(account.into());
                reply.extend_from_slice(&self.lock(account).to_le_bytes());
            }
            Some(Order::Audit) => {
                let sum: u64 = (0..ACCOUNTS).map(|account| *self.lock(account)).sum();
                reply.extend_from_slice(&sum.to_le_bytes());
            }
            None => reply.extend_from_slice(b"no such operation"),
        }
    }
}

impl Service for Bank {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        ParallelService::execute(&*self.accounts, op, ctx, reply);
        Completion::Done
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        match decode(op) {
            Some(Order::Transfer { from, to, .. }) => out.writes.extend([from, to].map(u64::from)),
            Some(Order::Balance(account)) => out.reads.push(account.into()),
            Some(Order::Audit) => out.barrier = true,
            None => {}
        }
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        Some(Arc::clone(&self.accounts) as Arc<dyn ParallelService>)
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.accounts.lock(object).to_le_bytes());
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let mut r = Reader::new(bytes);
        let value = r.u64("balance")?;
        r.finish("balance")?;
        *self.accounts.lock(object) = value;
        Ok(())
    }

    fn objects(&self) -> u32 {
        ACCOUNTS
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for workers in [0, 4] {
        let group = LocalGroup::builder(|| Bank::new(Duration::from_micros(200)))
            .replicas(4)
            .workers(workers)
            .start()?;
        let client = group.blocking_client()?;
        let began = Instant::now();
        let moves: Vec<_> = (0..2_000u32)
            .map(|i| {
                let (from, to) = (i * 7 % ACCOUNTS, (i * 7 + 1 + i % 5) % ACCOUNTS);
                client.begin(0, transfer(from, to, u64::from(i % 90)))
            })
            .collect();
        moves.into_iter().try_for_each(|one| one.wait().map(drop))?;
        let sum = client.call(audit())?;
        let sum = u64::from_le_bytes(sum[..].try_into()?);
        println!(
            "{workers} workers: 2000 transfers in {:?}, {sum} in all accounts",
            began.elapsed()
        );
        assert_eq!(sum, u64::from(ACCOUNTS) * BEGINNING, "money was made or lost");
        drop(client);
        group.stop();
    }
    Ok(())
}
