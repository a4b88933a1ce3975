//! The key-value service as a gateway would ask it: transfers in MULTI, some of them under WATCH,
//! reads of all accounts in one transaction, and keys that expire.
//!
//! Accounts begin with nothing and may be overdrawn, so what all have together is always zero,
//! and whoever reads all of them at once sees that.

use svc::kv::op::{self, Step};
use svc::kv::reply::Protocol;

use super::{Memory, STREAMS};

/// Accounts.
const ACCOUNTS: u64 = 6;

/// What a client asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Transfer,
    Watch,
    Watched,
    Audit,
    Expiring,
}

fn kind(token: u64) -> Kind {
    match token % STREAMS {
        0..=2 => Kind::Transfer,
        3 => Kind::Watch,
        4 => Kind::Watched,
        5 => Kind::Expiring,
        _ => Kind::Audit,
    }
}

fn account(number: u64) -> Vec<u8> {
    format!("account:{}", number % ACCOUNTS).into_bytes()
}

/// The operation's bytes.
pub(super) fn operation(client: usize, token: u64, memory: &Memory) -> Vec<u8> {
    let round = token / STREAMS;
    let from = round.wrapping_mul(5) + client as u64;
    let (a, b) = (account(from), account(from + 1 + round % (ACCOUNTS - 1)));
    let amount = 1 + token % 17;
    // Copied into the answer, as a gateway does with what it answers itself: it makes every
    // operation another.
    let tag = format!(":{token}\r\n").into_bytes();
    let (less, more) = (format!("-{amount}").into_bytes(), amount.to_string().into_bytes());
    let command = |args: &[&[u8]]| args.iter().map(|arg| arg.to_vec()).collect::<Vec<_>>();
    let transfer = [command(&[b"INCRBY", &a, &less]), command(&[b"INCRBY", &b, &more])];
    let mut out = Vec::new();
    match kind(token) {
        Kind::Transfer => transaction(&[], &transfer, &tag, &mut out),
        Kind::Watched => {
            let (old, older) = memory.watched.last().copied().unwrap_or_default();
            transaction(&[(&a, old), (&b, older)], &transfer, &tag, &mut out);
        }
        // The last one is a key that nobody has: it makes the operation another.
        Kind::Watch => op::encode_watch(Protocol::Resp2, &[a, b, tag], &mut out),
        Kind::Expiring => {
            let key = format!("token:{client}").into_bytes();
            let set = command(&[b"SET", &key, &tag, b"PX", b"25"]);
            transaction(&[], &[command(&[b"GET", &key]), set], &tag, &mut out);
        }
        Kind::Audit => {
            let reads: Vec<_> = (0..ACCOUNTS).map(|n| command(&[b"GET", &account(n)])).collect();
            transaction(&[], &reads, &tag, &mut out);
        }
    }
    out
}

fn transaction(watched: &[(&[u8], u64)], commands: &[Vec<Vec<u8>>], tag: &[u8], out: &mut Vec<u8>) {
    let steps = commands.iter().map(|args| Step::Command(args.iter().map(Vec::as_slice).collect()));
    let steps: Vec<Step<'_>> = steps.chain([Step::Reply(tag)]).collect();
    op::encode_transaction(Protocol::Resp2, watched, &steps, out);
}

/// # Errors
/// When an answer is none, or was not made in one go.
pub(super) fn judge(token: u64, result: &[u8], memory: &mut Memory) -> Result<(), String> {
    let shown = || String::from_utf8_lossy(result).into_owned();
    match kind(token) {
        Kind::Watch => {
            let versions = op::decode_versions(result, 3).map_err(|_| shown())?;
            memory.watched.push((versions[0], versions[1]));
            Ok(())
        }
        // Something came between, or nothing was watched yet.
        Kind::Watched if result == b"*-1\r\n" => Ok(()),
        Kind::Transfer | Kind::Watched | Kind::Expiring => {
            let end = format!(":{token}\r\n").into_bytes();
            let right = result.starts_with(b"*3\r\n") && result.ends_with(&end);
            if right { Ok(()) } else { Err(format!("operation {token}: {}", shown())) }
        }
        Kind::Audit => {
            let text = std::str::from_utf8(result).map_err(|_| shown())?;
            let mut lines = text.split("\r\n").skip(1);
            let mut total = 0i64;
            for _ in 0..ACCOUNTS {
                if lines.next() != Some("$-1") {
                    let value = lines.next().and_then(|line| line.parse::<i64>().ok());
                    total += value.ok_or_else(shown)?;
                }
            }
            let tag = lines.next() == Some(format!(":{token}").as_str());
            if total == 0 && tag { Ok(()) } else { Err(format!("a sum of {total}: {}", shown())) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Work;
    use base::{AgreedTime, ClientId, FrameId, Seq, SessionId};
    use exec::{Context, ObjectTree};

    fn run(tokens: u64) -> Vec<Vec<u8>> {
        let mut service = Work::Redis.service();
        let mut tree = ObjectTree::new(service.objects());
        let frame = FrameId { client: ClientId(0), session: SessionId(1), stream: 0, id: 1 };
        let mut memory = Memory::default();
        let mut all = Vec::new();
        for token in 0..tokens {
            let question = Work::Redis.question(0, token, &memory);
            let (mut reply, mut outputs) = (Vec::new(), Vec::new());
            let time = AgreedTime(1_700_000_000_000_000_000 + token * 1_000_000);
            let mut ctx = Context::new(Seq(token + 1), 1, time, frame, &mut tree, &mut outputs);
            service.execute(&question.op, &mut ctx, &mut reply);
            assert_eq!(judge(token, &reply, &mut memory), Ok(()), "{token}");
            all.push(reply);
        }
        all
    }

    #[test]
    fn the_store_answers_as_clients_expect_and_half_a_transfer_is_seen() {
        let all = run(200);
        let memory = &mut Memory::default();
        let conditional = (0..200).filter(|token| kind(*token) == Kind::Watched);
        let done = conditional.filter(|token| all[*token as usize] != b"*-1\r\n").count();
        assert_eq!(done, 25, "nobody else asks");
        let audit = 199;
        assert!(judge(audit - 1, &all[199], memory).is_err(), "an answer to another question");
        let half = b"*7\r\n$1\r\n5\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n:199\r\n";
        assert!(judge(audit, half, memory).is_err());
        assert!(judge(0, b"-ERR no\r\n", memory).is_err());
    }
}
