//! Accounts and transfers between them: money is neither made nor lost.
//!
//! A transfer writes two objects of the state, so a checkpoint, a transfer of state or a restart
//! that has one of the two only is seen in the sum. An audit reads all accounts in one operation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{Malformed, Reader, Writer};
use exec::service::{Completion, Context, Footprint, ParallelService, Service};

use super::STREAMS;

/// Accounts, an object each.
const ACCOUNTS: u32 = 12;
/// What each account has at first.
const BEGINNING: u64 = 100;
/// What all have together, always.
const TOTAL: u64 = ACCOUNTS as u64 * BEGINNING;

const AUDIT: u8 = 1;
const TRANSFER: u8 = 2;

/// The service.
#[derive(Debug)]
pub struct Bank {
    accounts: Arc<Accounts>,
}

/// Accounts behind locks. Who has what it needs for itself is the stage's business: each lock is
/// held for a moment.
#[derive(Debug)]
struct Accounts(Vec<Mutex<u64>>);

impl Default for Bank {
    fn default() -> Bank {
        let accounts = (0..ACCOUNTS).map(|_| Mutex::new(BEGINNING)).collect();
        Bank { accounts: Arc::new(Accounts(accounts)) }
    }
}

impl Accounts {
    fn lock(&self, account: u32) -> MutexGuard<'_, u64> {
        self.0[account as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<u64> {
        (0..ACCOUNTS).map(|account| *self.lock(account)).collect()
    }

    fn transfer(&self, r: &mut Reader<'_>, ctx: &mut Context<'_>) -> Option<[u64; 2]> {
        let (from, to) = (r.u32("from").ok()?, r.u32("to").ok()?);
        let amount = r.u64("amount").ok()?;
        if from == to || from.max(to) >= ACCOUNTS {
            return None;
        }
        let (a, b) = (*self.lock(from), *self.lock(to));
        if let Some(rest) = a.checked_sub(amount) {
            for account in [from, to] {
                ctx.writes(account.into());
                ctx.modify(account, |out| self.get(account, out));
            }
            *self.lock(from) = rest;
            *self.lock(to) = b + amount;
        }
        Some([a, b])
    }

    fn get(&self, account: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lock(account).to_le_bytes());
    }
}

impl ParallelService for Accounts {
    /// A transfer answers what both accounts had before, and has no effect when that is too
    /// little; an audit answers all accounts.
    fn execute(&self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) {
        let mut r = Reader::new(op);
        let before = match r.u8("kind") {
            Ok(AUDIT) => self.all(),
            Ok(TRANSFER) => self.transfer(&mut r, ctx).map_or(Vec::new(), Vec::from),
            _ => Vec::new(),
        };
        before.iter().for_each(|account| reply.extend_from_slice(&account.to_le_bytes()));
    }
}

impl Service for Bank {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        ParallelService::execute(&*self.accounts, op, ctx, reply);
        Completion::Done
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        self.accounts.get(object, out);
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let account = bytes.try_into().map_err(|_| Malformed("account"))?;
        *self.accounts.lock(object) = u64::from_le_bytes(account);
        Ok(())
    }

    fn footprint(&self, op: &[u8], out: &mut Footprint) {
        let mut r = Reader::new(op);
        match r.u8("kind") {
            Ok(AUDIT) => out.reads.extend(0..u64::from(ACCOUNTS)),
            Ok(TRANSFER) => {
                let accounts = [r.u32("from"), r.u32("to")].into_iter().flatten();
                out.writes.extend(accounts.map(u64::from));
            }
            _ => {}
        }
    }

    fn parallel(&mut self) -> Option<Arc<dyn ParallelService>> {
        Some(Arc::clone(&self.accounts) as Arc<dyn ParallelService>)
    }

    fn objects(&self) -> u32 {
        ACCOUNTS
    }
}

/// What a client asks with an operation.
pub(crate) enum Order {
    Audit,
    Transfer { from: u32, to: u32, amount: u64 },
}

impl Order {
    pub(crate) fn new(client: usize, token: u64) -> Order {
        if token % STREAMS + 1 == STREAMS {
            return Order::Audit;
        }
        // All clients work with the same accounts; some transfers ask for more than there is.
        let mix = (token * 7 + client as u64 * 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let from = (mix % u64::from(ACCOUNTS)) as u32;
        let to = (from + 1 + (mix / 16 % u64::from(ACCOUNTS - 1)) as u32) % ACCOUNTS;
        Order::Transfer { from, to, amount: mix / 256 % 60 }
    }

    pub(crate) fn operation(&self, token: u64) -> Vec<u8> {
        let mut op = Vec::new();
        let mut w = Writer::new(&mut op);
        match self {
            Order::Audit => w.u8(AUDIT).u64(token),
            Order::Transfer { from, to, amount } => {
                w.u8(TRANSFER).u32(*from).u32(*to).u64(*amount).u64(token)
            }
        };
        op
    }

    /// # Errors
    /// When the answer shows that money was made or lost.
    pub(crate) fn judge(&self, result: &[u8]) -> Result<(), String> {
        let (words, rest) = result.as_chunks::<8>();
        let all: u64 = words.iter().map(|word| u64::from_le_bytes(*word)).sum();
        let right = match self {
            Order::Audit => words.len() == ACCOUNTS as usize && all == TOTAL,
            Order::Transfer { .. } => words.len() == 2 && all <= TOTAL,
        };
        match right && rest.is_empty() {
            true => Ok(()),
            false => Err(format!("an answer with {all} in {} accounts", words.len())),
        }
    }
}

/// # Errors
/// When the accounts in a service's state are not worth what they were at first.
pub(super) fn conserved(service: &dyn Service) -> Result<(), String> {
    let (mut total, mut bytes) = (0, Vec::new());
    for object in 0..service.objects() {
        bytes.clear();
        service.get(object, &mut bytes);
        let account = bytes.as_slice().try_into();
        total += u64::from_le_bytes(account.map_err(|_| format!("no account: {bytes:?}"))?);
    }
    match total == TOTAL {
        true => Ok(()),
        false => Err(format!("all accounts together have {total}, and had {TOTAL}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{Memory, Work};
    use base::{AgreedTime, ClientId, FrameId, Seq, SessionId};
    use exec::ObjectTree;

    /// Lets a bank execute the first operations of a client.
    fn run(bank: &mut Bank, tokens: u64) -> Vec<Vec<u8>> {
        let mut tree = ObjectTree::new(bank.objects());
        let frame = FrameId { client: ClientId(0), session: SessionId(1), stream: 0, id: 1 };
        let one = |token| {
            let op = Order::new(0, token).operation(token);
            let (mut reply, mut outputs, time) = (Vec::new(), Vec::new(), AgreedTime(1));
            let mut ctx = Context::new(Seq(1), 1, time, frame, &mut tree, &mut outputs);
            bank.execute(&op, &mut ctx, &mut reply);
            reply
        };
        (0..tokens).map(one).collect()
    }

    #[test]
    fn money_moves_and_stays_and_a_loss_is_seen() {
        let mut bank = Bank::default();
        for (token, reply) in (0..).zip(run(&mut bank, 400)) {
            assert_eq!(Order::new(0, token).judge(&reply), Ok(()));
        }
        assert_ne!(bank.accounts.all(), Bank::default().accounts.all());
        assert_eq!(Work::Bank.invariant(&bank), Ok(()));
        *bank.accounts.lock(3) += 1;
        assert!(Work::Bank.invariant(&bank).is_err());
        let audit = run(&mut bank, STREAMS).pop().expect("the last one is an audit");
        assert!(Order::Audit.judge(&audit).is_err());
        assert!(Work::Bank.judge(0, STREAMS - 1, &audit, &mut Memory::default()).is_err());
    }
}
