//! Operations of the key-value service: what a gateway puts into a frame.
//!
//! ```text
//! u8 version = 1
//! u8 kind: 1 command, 2 watch, 3 transaction; 0x80 added when the client speaks RESP3
//! command:      args
//! watch:        args (the keys)
//! transaction:  u32 number of watched keys, each: u32 length, key, u64 version
//!               u32 number of steps, each: u8 0, args | u8 1, u32 length, a reply
//! args:         u32 number, each: u32 length, bytes
//! ```
//!
//! Numbers are little-endian. The result of a command or a transaction is RESP; of a watch,
//! a `u64` version per key. A step that is a reply stands for a command that the gateway answers
//! itself: its bytes are copied into the transaction's reply.

use base::{Malformed, Reader, Writer};

use super::reply::Protocol;

/// Version of the layout.
const VERSION: u8 = 1;
const COMMAND: u8 = 1;
const WATCH: u8 = 2;
const TRANSACTION: u8 = 3;
const RESP3: u8 = 0x80;
/// Arguments that are kept without allocating.
const INLINE: usize = 8;

/// Most steps of a transaction: what a step takes in memory is many times its bytes.
pub const STEPS_MAX: usize = 65_536;

/// An operation, borrowed from its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op<'a> {
    /// One command.
    Command(Args<'a>),
    /// Asks for the versions of keys.
    Watch(Args<'a>),
    /// Commands that execute together, if none of the watched keys has another version by now.
    Transaction {
        /// Keys and the versions that an earlier watch answered.
        watched: Vec<(&'a [u8], u64)>,
        /// What to do.
        steps: Vec<Step<'a>>,
    },
}

/// A step of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// A command of the service.
    Command(Args<'a>),
    /// The reply to a command that the gateway has answered: RESP.
    Reply(&'a [u8]),
}

/// The arguments of a command, its name first; never empty once decoded. Up to eight are kept
/// without allocating.
#[derive(Clone, Debug, Default)]
pub struct Args<'a> {
    inline: [&'a [u8]; INLINE],
    inline_len: usize,
    spilled: Vec<&'a [u8]>,
}

impl<'a> Args<'a> {
    /// The arguments.
    #[must_use]
    pub fn as_slice(&self) -> &[&'a [u8]] {
        if self.spilled.is_empty() { &self.inline[..self.inline_len] } else { &self.spilled }
    }

    /// Reads arguments.
    fn decode(reader: &mut Reader<'a>) -> Result<Args<'a>, Malformed> {
        let count = reader.count(usize::MAX, 4, "arguments")?;
        let mut args = Args { inline: [&[]; INLINE], inline_len: 0, spilled: Vec::new() };
        if count == 0 {
            return Err(Malformed("arguments"));
        } else if count <= INLINE {
            for arg in &mut args.inline[..count] {
                *arg = reader.sized(usize::MAX, "argument")?;
            }
            args.inline_len = count;
        } else {
            args.spilled.reserve_exact(count);
            for _ in 0..count {
                args.spilled.push(reader.sized(usize::MAX, "argument")?);
            }
        }
        Ok(args)
    }
}

impl<'a> FromIterator<&'a [u8]> for Args<'a> {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(args: I) -> Args<'a> {
        let all: Vec<&[u8]> = args.into_iter().collect();
        if all.len() > INLINE {
            return Args { spilled: all, ..Args::default() };
        }
        let mut made = Args { inline_len: all.len(), ..Args::default() };
        made.inline[..all.len()].copy_from_slice(&all);
        made
    }
}

impl PartialEq for Args<'_> {
    fn eq(&self, other: &Args<'_>) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Args<'_> {}

/// Reads an operation: the protocol of the client's connection and what it wants.
///
/// # Errors
/// When the bytes are no operation.
pub fn decode(bytes: &[u8]) -> Result<(Protocol, Op<'_>), Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8("version of an operation")? != VERSION {
        return Err(Malformed("version of an operation"));
    }
    let kind = reader.u8("kind of operation")?;
    let protocol = if kind & RESP3 == 0 { Protocol::Resp2 } else { Protocol::Resp3 };
    let op = match kind & !RESP3 {
        COMMAND => Op::Command(Args::decode(&mut reader)?),
        WATCH => Op::Watch(Args::decode(&mut reader)?),
        TRANSACTION => transaction(&mut reader)?,
        _ => return Err(Malformed("kind of operation")),
    };
    reader.finish("operation")?;
    Ok((protocol, op))
}

fn transaction<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, Malformed> {
    let count = reader.count(usize::MAX, 12, "watched keys")?;
    let mut watched = Vec::with_capacity(count);
    for _ in 0..count {
        let key = reader.sized(usize::MAX, "watched key")?;
        watched.push((key, reader.u64("version")?));
    }
    let count = reader.count(STEPS_MAX, 5, "steps")?;
    let mut steps = Vec::new();
    for _ in 0..count {
        steps.push(match reader.u8("kind of step")? {
            0 => Step::Command(Args::decode(reader)?),
            1 => Step::Reply(reader.sized(usize::MAX, "reply")?),
            _ => return Err(Malformed("kind of step")),
        });
    }
    Ok(Op::Transaction { watched, steps })
}

/// Appends the operation that executes one command; `args` is not empty.
pub fn encode_command<A: AsRef<[u8]>>(protocol: Protocol, args: &[A], out: &mut Vec<u8>) {
    header(protocol, COMMAND, out);
    encode_args(args, out);
}

/// Appends the operation that asks for the versions of `keys`, which is not empty.
pub fn encode_watch<A: AsRef<[u8]>>(protocol: Protocol, keys: &[A], out: &mut Vec<u8>) {
    header(protocol, WATCH, out);
    encode_args(keys, out);
}

/// Appends the operation that executes `steps` if the versions of the watched keys are still
/// the same.
pub fn encode_transaction(
    protocol: Protocol,
    watched: &[(&[u8], u64)],
    steps: &[Step<'_>],
    out: &mut Vec<u8>,
) {
    header(protocol, TRANSACTION, out);
    Writer::new(out).count(watched.len());
    for (key, version) in watched {
        Writer::new(out).sized(key).u64(*version);
    }
    Writer::new(out).count(steps.len());
    for step in steps {
        match step {
            Step::Command(args) => {
                out.push(0);
                encode_args(args.as_slice(), out);
            }
            Step::Reply(reply) => {
                Writer::new(out).u8(1).sized(reply);
            }
        }
    }
}

/// Reads the result of a watch of `keys` keys.
///
/// # Errors
/// When the bytes are no such result.
pub fn decode_versions(result: &[u8], keys: usize) -> Result<Vec<u64>, Malformed> {
    let (words, rest) = result.as_chunks::<8>();
    if words.len() != keys || !rest.is_empty() {
        return Err(Malformed("versions of watched keys"));
    }
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

fn header(protocol: Protocol, kind: u8, out: &mut Vec<u8>) {
    let flag = if protocol == Protocol::Resp3 { RESP3 } else { 0 };
    out.extend_from_slice(&[VERSION, kind | flag]);
}

fn encode_args<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    writer.count(args.len());
    args.iter().for_each(|arg| {
        writer.sized(arg.as_ref());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|i| vec![i as u8; i]).collect()
    }

    #[test]
    fn commands_and_watches_are_read_back() {
        for count in 1..20 {
            let args = args(count);
            let wanted: Args<'_> = args.iter().map(Vec::as_slice).collect();
            for protocol in [Protocol::Resp2, Protocol::Resp3] {
                let mut out = vec![];
                encode_command(protocol, &args, &mut out);
                assert_eq!(decode(&out), Ok((protocol, Op::Command(wanted.clone()))));
                out.clear();
                encode_watch(protocol, &args, &mut out);
                assert_eq!(decode(&out), Ok((protocol, Op::Watch(wanted.clone()))));
            }
        }
    }

    #[test]
    fn transactions_are_read_back_and_truncations_refused() {
        let args = args(10);
        let steps = vec![
            Step::Command(args.iter().map(Vec::as_slice).collect()),
            Step::Reply(b"+PONG\r\n"),
            Step::Command([&b"GET"[..], b"a"].into_iter().collect()),
        ];
        let watched = vec![(&b"k"[..], 7), (b"", u64::MAX)];
        let mut out = vec![];
        encode_transaction(Protocol::Resp3, &watched, &steps, &mut out);
        assert_eq!(decode(&out), Ok((Protocol::Resp3, Op::Transaction { watched, steps })));
        for len in 0..out.len() {
            assert!(decode(&out[..len]).is_err());
        }
        out.push(0);
        assert!(decode(&out).is_err());
    }

    #[test]
    fn an_empty_command_is_malformed() {
        let mut out = vec![];
        encode_command::<&[u8]>(Protocol::Resp2, &[], &mut out);
        assert!(decode(&out).is_err());
    }
}
