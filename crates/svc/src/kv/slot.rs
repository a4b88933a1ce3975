//! Which keys belong together where a group's state falls into partitions: the hash slots of a
//! Redis cluster, so that what is written for one works here.
//!
//! A key's slot is the CRC16 of the key, or of what stands between its first `{` and the `}` after
//! it, if that is anything; slot s is in partition s mod P. An operation on keys of several slots
//! is refused even where these are in one partition: what works does not depend on P.

use base::{Route, Routing};

use super::call::parse_int;
use super::op::{self, Op, Step};
use super::table::{self, CommandSpec, Keys, Run};

/// Slots: how finely keys are told apart.
pub const SLOTS: u16 = 16_384;

/// How operations of the key-value service find their partition.
pub const ROUTING: Routing = Routing { route, astray: ASTRAY };

/// In the words of a Redis cluster.
const CROSS_SLOT: &[u8] = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n";
const WHOLE: &[u8] = b"-ERR this command is about all keys, and the keys of this group are in \
    several partitions: it is not supported there\r\n";
const ASTRAY: &[u8] = b"-ERR this key is in another partition of the group: its client finds \
    partitions differently\r\n";

/// The slot of a key, as `CLUSTER KEYSLOT` tells it.
#[must_use]
pub fn of(key: &[u8]) -> u16 {
    let tagged = || {
        let open = memchr::memchr(b'{', key)?;
        let rest = &key[open + 1..];
        let tag = &rest[..memchr::memchr(b'}', rest)?];
        (!tag.is_empty()).then_some(tag)
    };
    crc16(tagged().unwrap_or(key)) % SLOTS
}

/// CRC16 with the polynomial 0x1021, from 0 (XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let [high, _] = crc.to_be_bytes();
        crc << 8 ^ CRC16[usize::from(high ^ byte)]
    })
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// What is known of the slots of an operation's keys.
#[derive(Clone, Copy)]
enum Slots {
    /// No keys yet.
    None,
    /// All in this one.
    One(u16),
    /// In several.
    Several,
    /// All slots there are.
    All,
}

impl Slots {
    fn key(&mut self, key: &[u8]) {
        let slot = of(key);
        *self = match *self {
            Slots::None => Slots::One(slot),
            Slots::One(known) if known != slot => Slots::Several,
            other => other,
        };
    }

    /// The keys of a command. What is no command, or has the wrong number of arguments, is answered
    /// with the same error anywhere.
    fn command(&mut self, args: &[&[u8]]) {
        let Some(spec) = args.first().and_then(|name| table::lookup(name)) else { return };
        if !spec.takes(args.len()) || matches!(spec.run, Run::Gateway) {
            return;
        }
        match spec.keys {
            Keys::None if spec.name != "time" => *self = Slots::All,
            // The usual case without a list.
            Keys::Range(1, 1, 1) => self.key(args[1]),
            // A number of keys that is none is an error that touches nothing, wherever it is.
            Keys::Counted { .. } if !counts(spec, args) => {}
            _ => spec.key_indices(args).into_iter().for_each(|index| self.key(args[index])),
        }
    }
}

/// Whether there are as many keys as the command says.
fn counts(spec: &CommandSpec, args: &[&[u8]]) -> bool {
    let Keys::Counted { at, .. } = spec.keys else { return true };
    let at = usize::from(at);
    let count = args.get(at).and_then(|count| parse_int(count));
    let count = count.and_then(|count| usize::try_from(count).ok());
    count.is_some_and(|count| count > 0 && count < args.len() - at)
}

fn route(bytes: &[u8], partitions: u16) -> Route {
    let mut slots = Slots::None;
    match op::decode(bytes) {
        Ok((_, Op::Command(args))) => slots.command(args.as_slice()),
        Ok((_, Op::Watch(keys))) => keys.as_slice().iter().for_each(|key| slots.key(key)),
        Ok((_, Op::Transaction { watched, steps })) => {
            watched.iter().for_each(|(key, _)| slots.key(key));
            for step in &steps {
                if let Step::Command(args) = step {
                    slots.command(args.as_slice());
                }
            }
        }
        Err(_) => {}
    }
    match slots {
        Slots::None => Route::Anywhere,
        Slots::One(slot) => Route::To(slot % partitions),
        Slots::Several => Route::Refused(CROSS_SLOT),
        Slots::All => Route::Refused(WHOLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::reply::Protocol;

    fn routed(line: &str, partitions: u16) -> Route {
        let args: Vec<&str> = line.split(' ').collect();
        let mut bytes = vec![];
        op::encode_command(Protocol::Resp2, &args, &mut bytes);
        route(&bytes, partitions)
    }

    /// The values are those of the specification of Redis's clusters, and of its server.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in
            [("foo", 12182), ("bar", 5061), ("hello", 866), ("", 0), ("somekey", 11058)]
        {
            assert_eq!(of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(of(b"{user1000}.following"), of(b"user1000"));
        assert_eq!(of(b"foo{bar}{zap}"), of(b"bar"));
        assert_eq!(of(b"foo{{bar}}zap"), of(b"{bar"));
        assert_eq!(of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(of(b"foo{bar"), crc16(b"foo{bar") % SLOTS);
    }

    #[test]
    fn operations_go_where_their_keys_are() {
        for partitions in [1, 2, 3, 64] {
            let home = |key: &[u8]| Route::To(of(key) % partitions);
            assert_eq!(routed("get foo", partitions), home(b"foo"));
            assert_eq!(routed("SET foo bar", partitions), home(b"foo"));
            assert_eq!(routed("mset {a}1 x {a}2 y", partitions), home(b"a"));
            assert_eq!(routed("zunionstore {a}d 2 {a}1 {a}2", partitions), home(b"a"));
            for line in ["mget foo bar", "rename foo bar", "sintercard 2 foo bar limit 1"] {
                assert_eq!(routed(line, partitions), Route::Refused(CROSS_SLOT), "{line}");
            }
            for line in ["dbsize", "flushall", "keys *", "scan 0", "randomkey"] {
                assert_eq!(routed(line, partitions), Route::Refused(WHOLE), "{line}");
            }
            for line in ["time", "nope a b", "get", "ping", "zunion 3 foo bar", "zunion x foo bar"]
            {
                assert_eq!(routed(line, partitions), Route::Anywhere, "{line}");
            }
            assert_eq!(route(b"?", partitions), Route::Anywhere);
        }
    }

    #[test]
    fn a_transaction_is_in_one_slot_with_what_it_watches() {
        let of = |watched: &[&str], lines: &[&str]| {
            let watched: Vec<(&[u8], u64)> =
                watched.iter().map(|key| (key.as_bytes(), 1)).collect();
            let steps: Vec<Step<'_>> = lines
                .iter()
                .map(|line| match line.strip_prefix('+') {
                    Some(reply) => Step::Reply(reply.as_bytes()),
                    None => Step::Command(line.split(' ').map(str::as_bytes).collect()),
                })
                .collect();
            let mut bytes = vec![];
            op::encode_transaction(Protocol::Resp3, &watched, &steps, &mut bytes);
            route(&bytes, 4)
        };
        let home = Route::To(super::of(b"a") % 4);
        assert_eq!(of(&[], &["+PONG"]), Route::Anywhere);
        assert_eq!(of(&["{a}w"], &["set a 1", "+PONG", "incr {a}2"]), home);
        assert_eq!(of(&["foo"], &["set a 1"]), Route::Refused(CROSS_SLOT));
        assert_eq!(of(&[], &["set a 1", "set foo 1"]), Route::Refused(CROSS_SLOT));
        assert_eq!(of(&[], &["set a 1", "dbsize"]), Route::Refused(WHOLE));
        let mut watch = vec![];
        op::encode_watch(Protocol::Resp2, &["a", "{a}b"], &mut watch);
        assert_eq!(route(&watch, 4), home);
    }
}
