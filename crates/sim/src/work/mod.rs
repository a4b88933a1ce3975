//! What simulated groups do: a service, and clients' questions to it, whose answers can be
//! judged by whoever gets them.
//!
//! | work | service | what clients know without anybody's help |
//! |---|---|---|
//! | [`Work::Counters`] | counts per stream | every count of their own streams |
//! | [`Work::Reads`] | the same, read without an order | the same |
//! | [`Work::Bank`] | accounts and transfers | money is neither made nor lost |
//! | [`Work::Redis`] | the key-value service | a transaction is atomic; money again |
//!
//! Not here: what replicas must do with it (`oracles`).

pub mod bank;
pub mod counters;
pub mod redis;

use exec::service::Service;

use crate::history::Ask;
use crate::oracles::reads::Read;
use crate::prng::Prng;
use counters::Counters;

/// Streams of each client.
pub(crate) const STREAMS: u64 = 8;

/// What a group does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Counts.
    Counters,
    /// The same, in a group that answers reads without an order.
    Reads,
    /// Keeps accounts.
    Bank,
    /// Runs the key-value service. Its tens of thousands of objects make a run several times as
    /// dear.
    Redis,
}

/// An operation, and the stream that it belongs to.
pub(crate) struct Question {
    pub(crate) stream: u32,
    pub(crate) op: Vec<u8>,
    /// It only reads, and may be answered without an order.
    pub(crate) read: bool,
}

/// What an answer is worth: nothing more, or an entry in the history of shared counters.
pub(crate) type Judged = Result<Option<(u32, Ask, u64)>, String>;

/// What a client remembers of earlier answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Versions of watched keys: see [`redis`].
    pub(crate) watched: Vec<(u64, u64)>,
}

impl Work {
    /// The work of a seed that asks for none: mostly one that is cheap.
    #[must_use]
    pub fn of(seed: u64) -> Work {
        match Prng::new(seed ^ 0x3042).below(5) {
            0 | 1 => Work::Bank,
            _ => Work::Counters,
        }
    }

    /// A fresh service.
    #[must_use]
    pub fn service(self) -> Box<dyn Service> {
        match self {
            Work::Counters | Work::Reads => Box::new(Counters::default()),
            Work::Bank => Box::new(bank::Bank::default()),
            Work::Redis => Box::new(svc::KvService::new()),
        }
    }

    /// What `client` asks with its `token`-th operation. No two operations of a client are the
    /// same bytes.
    pub(crate) fn question(self, client: usize, token: u64, memory: &Memory) -> Question {
        let stream = (token % STREAMS) as u32;
        let (op, read) = match self {
            Work::Counters | Work::Reads => {
                let question = counters::Question::new(client, token);
                (question.operation(token), question.ask == Ask::Read)
            }
            Work::Bank => (bank::Order::new(client, token).operation(token), false),
            Work::Redis => (redis::operation(client, token, memory), false),
        };
        Question { stream, op, read }
    }

    /// What `client` finds of the answer to its `token`-th operation.
    ///
    /// # Errors
    /// When it cannot be right.
    pub(crate) fn judge(
        self,
        client: usize,
        token: u64,
        result: &[u8],
        memory: &mut Memory,
    ) -> Judged {
        match self {
            Work::Counters | Work::Reads => counters::Question::new(client, token).judge(result),
            Work::Bank => bank::Order::new(client, token).judge(result).map(|()| None),
            Work::Redis => redis::judge(token, result, memory).map(|()| None),
        }
    }

    /// What `client` has read with its `token`-th operation; `None` where that is no read.
    pub(crate) fn read(self, client: usize, token: u64, result: &[u8]) -> Option<Read> {
        match self {
            Work::Reads => counters::Question::new(client, token).read(result),
            Work::Counters | Work::Bank | Work::Redis => None,
        }
    }

    /// Looks at the state of a replica's service for what never changes in it.
    ///
    /// # Errors
    /// When it has.
    pub fn invariant(self, service: &dyn Service) -> Result<(), String> {
        match self {
            Work::Bank => bank::conserved(service),
            // Counters have none that the answers do not show. The store's is in what clients
            // read, all accounts in one transaction.
            Work::Counters | Work::Reads | Work::Redis => Ok(()),
        }
    }
}
