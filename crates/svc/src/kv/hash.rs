//! The commands on hashes.
//!
//! Fields come back in the order of the trie, which Redis leaves open.

use super::call::{Call, Fail, Outcome};
use super::choice::{Choice, Wanted, scan};
use super::decimal::Extended;
use super::reply::Protocol;
use super::scan::{Scan, parse_cursor};
use super::table::flags::{DENYOOM, FAST, READONLY, WRITE};
use super::table::{CommandSpec, Flags, Group, Keys, Run};
use super::types::{Blob, Hash};
use super::work;

/// The commands of this type.
pub const COMMANDS: &[CommandSpec] = &[
    row("hset", -4, WRITE | DENYOOM | FAST, "Sets the values of fields", hset),
    row("hsetnx", 4, WRITE | DENYOOM | FAST, "Sets a field that does not exist", hsetnx),
    row("hget", 3, READONLY | FAST, "Returns the value of a field", hget),
    row("hmset", -4, WRITE | DENYOOM | FAST, "Sets the values of fields", hmset),
    row("hmget", -3, READONLY | FAST, "Returns the values of fields", hmget),
    row("hgetall", 2, READONLY, "Returns all fields and values", hgetall),
    row("hdel", -3, WRITE | FAST, "Removes fields", hdel),
    row("hexists", 3, READONLY | FAST, "Tells whether a field exists", hexists),
    row("hlen", 2, READONLY | FAST, "Returns the number of fields", hlen),
    row("hkeys", 2, READONLY, "Returns all fields", hkeys),
    row("hvals", 2, READONLY, "Returns all values", hvals),
    row("hincrby", 4, WRITE | DENYOOM | FAST, "Adds an integer to a field's value", hincrby),
    row(
        "hincrbyfloat",
        4,
        WRITE | DENYOOM | FAST,
        "Adds a number to a field's value",
        hincrbyfloat,
    ),
    row("hstrlen", 3, READONLY | FAST, "Returns the length of a field's value", hstrlen),
    row("hscan", -3, READONLY, "Iterates over fields and values", hscan),
    row("hrandfield", -2, READONLY, "Returns random fields", hrandfield),
];

const fn row(
    name: &'static str,
    arity: i8,
    flags: Flags,
    summary: &'static str,
    handler: super::call::Handler,
) -> CommandSpec {
    let (keys, group) = (Keys::Range(1, 1, 1), Group::Hash);
    CommandSpec { name, arity, flags, keys, group, summary, run: Run::Service(handler) }
}

/// `HSET key field value [field value ...]`
pub fn hset(c: &mut Call<'_, '_>) -> Outcome {
    let added = set_fields(c, "hset")?;
    c.reply.length(added);
    Ok(())
}

/// `HMSET key field value [field value ...]`
pub fn hmset(c: &mut Call<'_, '_>) -> Outcome {
    set_fields(c, "hmset")?;
    c.reply.ok();
    Ok(())
}

fn set_fields(c: &mut Call<'_, '_>, name: &str) -> Result<usize, Fail> {
    if c.args.len() % 2 == 1 {
        return Err(Fail::arity(name));
    }
    let hash = c.db.write_or_new::<Hash>(c.ctx, c.args[1])?;
    let pairs = c.args[2..].chunks_exact(2);
    Ok(pairs.filter(|pair| hash.insert(pair[0], Blob::new(pair[1])).is_none()).count())
}

/// HSETNX key field value
pub fn hsetnx(c: &mut Call<'_, '_>) -> Outcome {
    let exists = c.db.read::<Hash>(c.args[1])?.is_some_and(|hash| hash.contains(c.args[2]));
    if !exists {
        let hash = c.db.write_or_new::<Hash>(c.ctx, c.args[1])?;
        hash.insert(c.args[2], Blob::new(c.args[3]));
    }
    c.reply.integer(i64::from(!exists));
    Ok(())
}

/// HGET key field
pub fn hget(c: &mut Call<'_, '_>) -> Outcome {
    let value = c.db.read::<Hash>(c.args[1])?.and_then(|hash| hash.get(c.args[2]));
    c.reply.bulk_or_null(value.map(Blob::as_bytes));
    Ok(())
}

/// `HMGET key field [field ...]`
pub fn hmget(c: &mut Call<'_, '_>) -> Outcome {
    let hash = c.db.read::<Hash>(c.args[1])?;
    c.reply.array(c.args.len() - 2);
    for field in &c.args[2..] {
        let value = hash.and_then(|hash| hash.get(field));
        c.reply.bulk_or_null(value.map(Blob::as_bytes));
    }
    Ok(())
}

/// HGETALL key
pub fn hgetall(c: &mut Call<'_, '_>) -> Outcome {
    let hash = c.db.read::<Hash>(c.args[1])?;
    c.reply.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.iter().flat_map(|hash| hash.iter()) {
        if c.reply.overflowed() {
            break;
        }
        c.reply.bulk(field);
        c.reply.bulk(value);
    }
    Ok(())
}

/// HKEYS key
pub fn hkeys(c: &mut Call<'_, '_>) -> Outcome {
    let hash = c.db.read::<Hash>(c.args[1])?;
    c.reply.array(hash.map_or(0, Hash::len));
    c.reply.bulks(hash.iter().flat_map(|hash| hash.iter()).map(|(field, _)| field.as_bytes()));
    Ok(())
}

/// HVALS key
pub fn hvals(c: &mut Call<'_, '_>) -> Outcome {
    let hash = c.db.read::<Hash>(c.args[1])?;
    c.reply.array(hash.map_or(0, Hash::len));
    c.reply.bulks(hash.iter().flat_map(|hash| hash.iter()).map(|(_, value)| value.as_bytes()));
    Ok(())
}

/// `HDEL key field [field ...]`
pub fn hdel(c: &mut Call<'_, '_>) -> Outcome {
    let (key, fields) = (c.args[1], &c.args[2..]);
    let any = c.db.read::<Hash>(key)?.is_some_and(|hash| fields.iter().any(|f| hash.contains(f)));
    let mut removed = 0;
    if any && let Some(hash) = c.db.write::<Hash>(c.ctx, key)? {
        removed = fields.iter().filter(|field| hash.remove(field).is_some()).count();
        c.db.drop_if_empty(c.ctx, key);
    }
    c.reply.length(removed);
    Ok(())
}

/// HEXISTS key field
pub fn hexists(c: &mut Call<'_, '_>) -> Outcome {
    let exists = c.db.read::<Hash>(c.args[1])?.is_some_and(|hash| hash.contains(c.args[2]));
    c.reply.integer(i64::from(exists));
    Ok(())
}

/// HLEN key
pub fn hlen(c: &mut Call<'_, '_>) -> Outcome {
    let len = c.db.read::<Hash>(c.args[1])?.map_or(0, Hash::len);
    c.reply.length(len);
    Ok(())
}

/// HSTRLEN key field
pub fn hstrlen(c: &mut Call<'_, '_>) -> Outcome {
    let value = c.db.read::<Hash>(c.args[1])?.and_then(|hash| hash.get(c.args[2]));
    c.reply.length(value.map_or(0, |value| value.len()));
    Ok(())
}

/// HINCRBY key field increment
pub fn hincrby(c: &mut Call<'_, '_>) -> Outcome {
    const NOT_INTEGER: Fail = Fail::new("ERR hash value is not an integer");
    let increment = c.int(3)?;
    let old = match c.db.read::<Hash>(c.args[1])?.and_then(|hash| hash.get(c.args[2])) {
        Some(value) => super::call::parse_int(value).ok_or(NOT_INTEGER)?,
        None => 0,
    };
    let new = old.checked_add(increment).ok_or(Fail::OVERFLOW)?;
    let text = itoa::Buffer::new().format(new).to_owned();
    let hash = c.db.write_or_new::<Hash>(c.ctx, c.args[1])?;
    hash.insert(c.args[2], Blob::new(text.as_bytes()));
    c.reply.integer(new);
    Ok(())
}

/// HINCRBYFLOAT key field increment
pub fn hincrbyfloat(c: &mut Call<'_, '_>) -> Outcome {
    const NOT_FLOAT: Fail = Fail::new("ERR hash value is not a float");
    const INFINITE: Fail = Fail::new("ERR value is NaN or Infinity");
    const BECOMES_INFINITE: Fail = Fail::new("ERR increment would produce NaN or Infinity");
    c.db.work.take(Extended::steps(c.args[3]))?;
    let increment = Extended::parse(c.args[3]).ok_or(Fail::NOT_FLOAT)?;
    if !increment.is_finite() {
        return Err(INFINITE);
    }
    let old = c.db.read::<Hash>(c.args[1])?.and_then(|hash| hash.get(c.args[2]));
    let old = old.map_or(&b"0"[..], Blob::as_bytes);
    c.db.work.take(Extended::steps(old))?;
    let old = Extended::parse(old).ok_or(NOT_FLOAT)?;
    let text = old.checked_add(increment).ok_or(BECOMES_INFINITE)?.to_text();
    let hash = c.db.write_or_new::<Hash>(c.ctx, c.args[1])?;
    hash.insert(c.args[2], Blob::new(text.as_bytes()));
    c.reply.bulk(text.as_bytes());
    Ok(())
}

/// `HSCAN key cursor [MATCH pattern] [COUNT count]`
pub fn hscan(c: &mut Call<'_, '_>) -> Outcome {
    let cursor = parse_cursor(c.args[2])?;
    let Some(hash) = c.db.read::<Hash>(c.args[1])? else {
        c.reply.raw(b"*2\r\n$1\r\n0\r\n*0\r\n");
        return Ok(());
    };
    let (next, found) = scan(c.db, &Scan::parse(&c.args[3..], false)?, hash, cursor)?;
    c.reply.array(2);
    c.reply.bulk(next.to_string().as_bytes());
    c.reply.array(found.len() * 2);
    for (field, value) in found {
        c.reply.bulk(field);
        c.reply.bulk(value);
    }
    Ok(())
}

/// `HRANDFIELD key [count [WITHVALUES]]`
pub fn hrandfield(c: &mut Call<'_, '_>) -> Outcome {
    let wanted = Wanted::parse_with(c, "WITHVALUES")?;
    let hash = c.db.read::<Hash>(c.args[1])?;
    let mut choice = Choice::new(c);
    let Some((wanted, with_values)) = wanted else {
        let field = hash.and_then(|hash| hash.nth(choice.below(hash.len())));
        c.reply.bulk_or_null(field.map(|(field, _)| field.as_bytes()));
        return Ok(());
    };
    let Some(hash) = hash else {
        c.reply.array(0);
        return Ok(());
    };
    c.db.work.take(wanted.of(hash.len()).saturating_mul(work::LOOK_UP))?;
    let nested = with_values && c.reply.protocol() == Protocol::Resp3;
    let flat = with_values && !nested;
    c.reply.array(wanted.of(hash.len()).saturating_mul(1 + usize::from(flat)));
    wanted.choose(&mut choice, hash, |field, value| {
        if nested {
            c.reply.array(2);
        }
        c.reply.bulk(field);
        if with_values {
            c.reply.bulk(value);
        }
        !c.reply.overflowed()
    });
    Ok(())
}
