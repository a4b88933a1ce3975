//! Commands on keys of any type, and on the key space as a whole.

use super::call::{Call, Fail, Outcome};
use super::db::{BUCKETS, Expiry};
use super::scan::{Scan, matches, parse_cursor};
use super::siphash;
use super::table::Keys;
use super::table::Run::Service;
use super::table::commands;
use super::table::flags::{DENYOOM, FAST, LOADING, READONLY, STALE, WRITE};
use super::value::Value;
use super::work;

commands! { Generic:
    "copy" -3, WRITE | DENYOOM, Keys::TWO, Service(copy),
        "Copies the value and the expiry of a key to another key";
    "dbsize" 1, READONLY | FAST, Keys::None, Service(dbsize),
        "Returns the number of keys";
    "del" -2, WRITE, Keys::ALL, Service(del),
        "Deletes keys";
    "exists" -2, READONLY | FAST, Keys::ALL, Service(exists),
        "Counts which of the keys exist";
    "flushall" -1, WRITE, Keys::None, Service(flush),
        "Deletes all keys";
    "flushdb" -1, WRITE, Keys::None, Service(flush),
        "Deletes all keys";
    "keys" 2, READONLY, Keys::None, Service(keys),
        "Returns all keys that match a pattern";
    "persist" 2, WRITE | FAST, Keys::FIRST, Service(persist),
        "Clears the expiry of a key";
    "randomkey" 1, READONLY, Keys::None, Service(randomkey),
        "Returns some key";
    "rename" 3, WRITE, Keys::TWO, Service(|c| rename(c, false)),
        "Renames a key, replacing what has the new name";
    "renamenx" 3, WRITE | FAST, Keys::TWO, Service(|c| rename(c, true)),
        "Renames a key unless something has the new name";
    "scan" -2, READONLY, Keys::None, Service(scan),
        "Walks through the keys";
    "time" 1, LOADING | STALE | FAST, Keys::None, Service(time),
        "Returns the agreed time in seconds and microseconds";
    "touch" -2, READONLY | FAST, Keys::ALL, Service(exists),
        "Counts which of the keys exist";
    "type" 2, READONLY | FAST, Keys::FIRST, Service(type_of),
        "Returns the type of the value of a key";
    "unlink" -2, WRITE | FAST, Keys::ALL, Service(del),
        "Deletes keys";
}

fn del(c: &mut Call<'_, '_>) -> Outcome {
    let args = c.args;
    c.db.take_moves(args[1..].iter().copied())?;
    let removed = args[1..].iter().filter(|key| c.db.remove(c.ctx, key).is_some()).count();
    c.reply.length(removed);
    Ok(())
}

fn exists(c: &mut Call<'_, '_>) -> Outcome {
    let found = c.args[1..].iter().filter(|key| c.db.contains(key)).count();
    c.reply.length(found);
    Ok(())
}

fn type_of(c: &mut Call<'_, '_>) -> Outcome {
    let name = c.db.entry(c.args[1]).map_or("none", |entry| entry.value.type_name());
    c.reply.simple(name);
    Ok(())
}

fn persist(c: &mut Call<'_, '_>) -> Outcome {
    let key = c.args[1];
    let expires = c.db.entry(key).is_some_and(|entry| entry.expires_at_ms().is_some());
    if expires {
        c.db.set_expiry(c.ctx, key, None);
    }
    c.reply.integer(i64::from(expires));
    Ok(())
}

fn rename(c: &mut Call<'_, '_>, only_new: bool) -> Outcome {
    let (from, to) = (c.args[1], c.args[2]);
    if !c.db.contains(from) {
        return Err(Fail::NO_SUCH_KEY);
    }
    let taken = from == to || c.db.contains(to);
    if only_new && taken {
        c.reply.integer(0);
        return Ok(());
    }
    if from != to {
        let bytes = c.db.entry(from).map_or(0, |entry| entry.value.encoded_len());
        c.db.room_to_put(to, bytes)?;
        let entry = c.db.remove(c.ctx, from).expect("just seen");
        let expiry = entry.expires_at_ms().map_or(Expiry::Clear, Expiry::At);
        c.db.put(c.ctx, to, entry.value, expiry)?;
    }
    if only_new {
        c.reply.integer(1);
    } else {
        c.reply.ok();
    }
    Ok(())
}

fn copy(c: &mut Call<'_, '_>) -> Outcome {
    let (from, to) = (c.args[1], c.args[2]);
    let mut replace = false;
    let mut at = 3;
    while at < c.args.len() {
        if c.is(at, "REPLACE") {
            replace = true;
            at += 1;
        } else if c.is(at, "DB") && at + 1 < c.args.len() {
            check_database(c.int(at + 1)?)?;
            at += 2;
        } else {
            return Err(Fail::SYNTAX);
        }
    }
    if from == to {
        return Err(Fail::new("ERR source and destination objects are the same"));
    }
    let source = c.db.entry(from).filter(|_| replace || !c.db.contains(to));
    let copied = match source {
        Some(entry) => {
            let expiry = entry.expires_at_ms().map_or(Expiry::Clear, Expiry::At);
            c.db.work.take(copy_steps(&entry.value))?;
            let value = entry.value.clone();
            c.db.put(c.ctx, to, value, expiry)?;
            true
        }
        None => false,
    };
    c.reply.integer(i64::from(copied));
    Ok(())
}

/// Steps of copying a value.
fn copy_steps(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() / work::COPIED,
        Value::Hash(hash) => hash.len() * 2,
        Value::List(list) => list.len(),
        Value::Set(set) => set.len(),
        // Its members are in two orders.
        Value::Zset(zset) => zset.len() * 2,
    }
}

/// There is one database, and its number is 0.
fn check_database(index: i64) -> Outcome {
    const RANGE: &str = "ERR value is out of range, value must between -2147483648 and 2147483647";
    if i32::try_from(index).is_err() {
        return Err(Fail::new(RANGE));
    }
    if index == 0 { Ok(()) } else { Err(Fail::new("ERR DB index is out of range")) }
}

fn keys(c: &mut Call<'_, '_>) -> Outcome {
    let pattern = c.args[1];
    let all = pattern == b"*";
    let (mark, mut count) = (c.reply.open(), 0);
    for (_, key, _) in c.db.iter_from(0) {
        if c.reply.overflowed() {
            break;
        }
        if c.db.work.is_spent() {
            return Err(Fail::TOO_MUCH_WORK);
        }
        if all || matches(&c.db.work, pattern, key)? {
            c.reply.bulk(key);
            count += 1;
        }
    }
    c.reply.close_array(mark, count);
    Ok(())
}

/// The cursor is the first 48 bits of the hash from which to go on: a place in an order that
/// never changes, so a key that is there all the time is returned, and mostly only once.
fn scan(c: &mut Call<'_, '_>) -> Outcome {
    let cursor = parse_cursor(c.args[1])?;
    let options = Scan::parse(&c.args[2..], true)?;
    let from = if cursor < 1 << 48 { cursor << 16 } else { u64::MAX };
    let mut found: Vec<&[u8]> = Vec::new();
    let (mut next, mut seen, mut last) = (0, 0, None);
    for (hash, key, entry) in c.db.iter_from(from) {
        if c.db.work.is_spent() {
            return Err(Fail::TOO_MUCH_WORK);
        }
        let place = hash >> 16;
        // Keys of one place are returned together, since no cursor leads between them.
        if seen >= options.count && last != Some(place) {
            next = place;
            break;
        }
        (seen, last) = (seen + 1, Some(place));
        let type_name = entry.value.type_name().as_bytes();
        let wanted = options.kind.is_none_or(|kind| kind.eq_ignore_ascii_case(type_name));
        if wanted && options.wants(&c.db.work, key)? {
            found.push(key);
        }
    }
    c.reply.array(2);
    c.reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    c.reply.array(found.len());
    found.iter().for_each(|key| c.reply.bulk(key));
    Ok(())
}

/// As random as the place in the total order is: good enough to spread work, no secret.
fn randomkey(c: &mut Call<'_, '_>) -> Outcome {
    let mut place = c.ctx.seq.0.to_le_bytes().to_vec();
    place.extend_from_slice(&c.ctx.index.to_le_bytes());
    let start = siphash::hash(&place);
    let bucket = |hash: u64| hash >> 48;
    // Any key of the first bucket that has some, at or after a random place.
    let first = c.db.iter_from(start & !0xffff_ffff_ffff).next();
    let first = first.or_else(|| c.db.iter_from(0).next());
    let key = first.and_then(|(hash, ..)| {
        let at = bucket(hash) << 48;
        let here = |found: &(u64, &[u8], _)| bucket(found.0) == bucket(hash);
        let count = c.db.iter_from(at).take_while(here).count();
        let chosen = (start & 0xffff_ffff) as usize % count;
        c.db.iter_from(at).nth(chosen)
    });
    c.reply.bulk_or_null(key.map(|(_, key, _)| key));
    Ok(())
}

fn dbsize(c: &mut Call<'_, '_>) -> Outcome {
    c.reply.length(c.db.len());
    Ok(())
}

/// Steps of looking for keys in every bucket.
const FLUSH_STEPS: usize = BUCKETS as usize / 16;

fn flush(c: &mut Call<'_, '_>) -> Outcome {
    if c.args.len() > 2 || c.args.len() == 2 && !c.is(1, "SYNC") && !c.is(1, "ASYNC") {
        return Err(Fail::SYNTAX);
    }
    c.db.work.take(FLUSH_STEPS)?;
    c.db.clear(c.ctx);
    c.reply.ok();
    Ok(())
}

fn time(c: &mut Call<'_, '_>) -> Outcome {
    let micros = c.ctx.time.0 / 1000;
    c.reply.array(2);
    c.reply.bulk(itoa::Buffer::new().format(micros / 1_000_000).as_bytes());
    c.reply.bulk(itoa::Buffer::new().format(micros % 1_000_000).as_bytes());
    Ok(())
}
