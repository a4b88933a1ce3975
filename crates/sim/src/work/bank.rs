//! Accounts and transfers between them: money is neither made nor lost.
//!
//! A transfer writes two objects of the state, so a checkpoint, a transfer of state or a restart
//! that has one of the two only is seen in the sum. An audit reads all accounts in one operation.

use base::{Malformed, Reader, Writer};
use exec::service::{Completion, Context, Service};

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
#[derive(Clone, Debug)]
pub struct Bank {
    accounts: Vec<u64>,
}

impl Default for Bank {
    fn default() -> Bank {
        Bank { accounts: vec![BEGINNING; ACCOUNTS as usize] }
    }
}

impl Bank {
    fn transfer(&mut self, r: &mut Reader<'_>, ctx: &mut Context<'_>) -> Option<[u64; 2]> {
        let (from, to) = (r.u32("from").ok()?, r.u32("to").ok()?);
        let amount = r.u64("amount").ok()?;
        if from == to || from.max(to) >= ACCOUNTS {
            return None;
        }
        let (a, b) = (self.accounts[from as usize], self.accounts[to as usize]);
        if let Some(rest) = a.checked_sub(amount) {
            for account in [from, to] {
                ctx.modify(account, |out| self.get(account, out));
            }
            self.accounts[from as usize] = rest;
            self.accounts[to as usize] = b + amount;
        }
        Some([a, b])
    }
}

impl Service for Bank {
    /// A transfer answers what both accounts had before, and has no effect when that is too
    /// little; an audit answers all accounts.
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        let mut r = Reader::new(op);
        let before = match r.u8("kind") {
            Ok(AUDIT) => self.accounts.clone(),
            Ok(TRANSFER) => self.transfer(&mut r, ctx).map_or(Vec::new(), Vec::from),
            _ => Vec::new(),
        };
        before.iter().for_each(|account| reply.extend_from_slice(&account.to_le_bytes()));
        Completion::Done
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.accounts[object as usize].to_le_bytes());
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let account = bytes.try_into().map_err(|_| Malformed("account"))?;
        self.accounts[object as usize] = u64::from_le_bytes(account);
        Ok(())
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
        assert_ne!(bank.accounts, Bank::default().accounts);
        assert_eq!(Work::Bank.invariant(&bank), Ok(()));
        bank.accounts[3] += 1;
        assert!(Work::Bank.invariant(&bank).is_err());
        let audit = run(&mut bank, STREAMS).pop().expect("the last one is an audit");
        assert!(Order::Audit.judge(&audit).is_err());
        assert!(Work::Bank.judge(0, STREAMS - 1, &audit, &mut Memory::default()).is_err());
    }
}
