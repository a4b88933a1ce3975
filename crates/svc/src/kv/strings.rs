//! Commands on strings as a whole. Bits are in `bits`.

use super::call::{Call, Fail, Outcome, parse_int};
use super::db::Expiry;
use super::decimal::Extended;
use super::table::Keys;
use super::table::Run::Service;
use super::table::commands;
use super::table::flags::{DENYOOM, FAST, READONLY, WRITE};
use super::text::Text;
use super::work;

commands! { String:
    "append" 3, WRITE | DENYOOM | FAST, Keys::FIRST, Service(append),
        "Appends to the value of a key, creating it if there is none";
    "decr" 2, WRITE | DENYOOM | FAST, Keys::FIRST, Service(|c| add(c, -1)),
        "Subtracts one from the integer value of a key";
    "decrby" 3, WRITE | DENYOOM | FAST, Keys::FIRST, Service(decrby),
        "Subtracts a number from the integer value of a key";
    "get" 2, READONLY | FAST, Keys::FIRST, Service(get),
        "Returns the string value of a key";
    "getdel" 2, WRITE | FAST, Keys::FIRST, Service(getdel),
        "Returns the string value of a key and deletes the key";
    "getex" -2, WRITE | FAST, Keys::FIRST, Service(getex),
        "Returns the string value of a key and sets or clears its expiry";
    "getrange" 4, READONLY, Keys::FIRST, Service(getrange),
        "Returns a part of the string value of a key";
    "getset" 3, WRITE | DENYOOM | FAST, Keys::FIRST, Service(getset),
        "Sets the string value of a key and returns the old one";
    "incr" 2, WRITE | DENYOOM | FAST, Keys::FIRST, Service(|c| add(c, 1)),
        "Adds one to the integer value of a key";
    "incrby" 3, WRITE | DENYOOM | FAST, Keys::FIRST, Service(incrby),
        "Adds a number to the integer value of a key";
    "incrbyfloat" 3, WRITE | DENYOOM | FAST, Keys::FIRST, Service(incrbyfloat),
        "Adds a decimal number to the value of a key";
    "mget" -2, READONLY | FAST, Keys::ALL, Service(mget),
        "Returns the string values of several keys";
    "mset" -3, WRITE | DENYOOM, Keys::PAIRS, Service(mset),
        "Sets the string values of several keys";
    "msetnx" -3, WRITE | DENYOOM, Keys::PAIRS, Service(msetnx),
        "Sets the string values of several keys if none of the keys exists";
    "psetex" 4, WRITE | DENYOOM, Keys::FIRST, Service(|c| setex(c, Unit::MILLIS)),
        "Sets the string value of a key and its time to live in milliseconds";
    "set" -3, WRITE | DENYOOM, Keys::FIRST, Service(set),
        "Sets the string value of a key, with conditions and expiry";
    "setex" 4, WRITE | DENYOOM, Keys::FIRST, Service(|c| setex(c, Unit::SECONDS)),
        "Sets the string value of a key and its time to live in seconds";
    "setnx" 3, WRITE | DENYOOM | FAST, Keys::FIRST, Service(setnx),
        "Sets the string value of a key if the key does not exist";
    "setrange" 4, WRITE | DENYOOM, Keys::FIRST, Service(setrange),
        "Overwrites a part of the string value of a key";
    "strlen" 2, READONLY | FAST, Keys::FIRST, Service(strlen),
        "Returns the length of the string value of a key";
    "substr" 4, READONLY, Keys::FIRST, Service(getrange),
        "Returns a part of the string value of a key; the old name of GETRANGE";
}

/// How an expiry argument is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Unit {
    /// In seconds and not milliseconds.
    seconds: bool,
    /// A point in time and not a length from now.
    absolute: bool,
}

impl Unit {
    const SECONDS: Unit = Unit { seconds: true, absolute: false };
    const MILLIS: Unit = Unit { seconds: false, absolute: false };

    fn of(word: &[u8]) -> Option<Unit> {
        let table: [(&[u8], bool, bool); 4] = [
            (b"EX", true, false),
            (b"PX", false, false),
            (b"EXAT", true, true),
            (b"PXAT", false, true),
        ];
        let row = table.iter().find(|(name, ..)| word.eq_ignore_ascii_case(name))?;
        Some(Unit { seconds: row.1, absolute: row.2 })
    }

    /// Reads an expiry argument as milliseconds since the Unix epoch.
    fn read(self, c: &Call<'_, '_>, text: &[u8], command: &str) -> Result<u64, Fail> {
        let number = parse_int(text).ok_or(Fail::NOT_INTEGER)?;
        let invalid = || Fail(format!("ERR invalid expire time in '{command}' command").into());
        let factor = if self.seconds { 1000 } else { 1 };
        let base = if self.absolute { 0 } else { c.now_ms as i64 };
        let when = number.checked_mul(factor).and_then(|ms| ms.checked_add(base));
        if number <= 0 {
            return Err(invalid());
        }
        when.filter(|when| *when > 0).map(i64::cast_unsigned).ok_or_else(invalid)
    }
}

/// The options of SET and GETEX.
#[derive(Default)]
struct Options<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    keep_ttl: bool,
    persist: bool,
    expiry: Option<(Unit, &'a [u8])>,
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a [u8]], set: bool) -> Result<Options<'a>, Fail> {
        let mut o = Options::default();
        let mut rest = args.iter();
        while let Some(word) = rest.next() {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            let timed = o.keep_ttl || o.persist || o.expiry.is_some();
            if set && is("NX") && !o.xx {
                o.nx = true;
            } else if set && is("XX") && !o.nx {
                o.xx = true;
            } else if set && is("GET") {
                o.get = true;
            } else if set && is("KEEPTTL") && (!timed || o.keep_ttl) {
                o.keep_ttl = true;
            } else if !set && is("PERSIST") && (!timed || o.persist) {
                o.persist = true;
            } else {
                let unit = Unit::of(word).ok_or(Fail::SYNTAX)?;
                let value = rest.next().ok_or(Fail::SYNTAX)?;
                // Said twice, the later one counts.
                let same = o.expiry.is_some_and(|(before, _)| before == unit);
                if timed && !same {
                    return Err(Fail::SYNTAX);
                }
                o.expiry = Some((unit, value));
            }
        }
        Ok(o)
    }
}

fn get(c: &mut Call<'_, '_>) -> Outcome {
    let text = c.db.read::<Text>(c.args[1])?;
    c.reply.bulk_or_null(text.map(Text::bytes));
    Ok(())
}

fn set(c: &mut Call<'_, '_>) -> Outcome {
    let (key, value) = (c.args[1], c.args[2]);
    if c.args.len() == 3 {
        store(c, key, value, Expiry::Clear)?;
        c.reply.ok();
        return Ok(());
    }
    let options = Options::parse(&c.args[3..], true)?;
    let expiry = match options.expiry {
        Some((unit, text)) => Expiry::At(unit.read(c, text, "set")?),
        None if options.keep_ttl => Expiry::Keep,
        None => Expiry::Clear,
    };
    if options.get {
        get(c)?;
    }
    if (options.nx || options.xx) && c.db.contains(key) != options.xx {
        if !options.get {
            c.reply.null();
        }
        return Ok(());
    }
    store(c, key, value, expiry)?;
    if !options.get {
        c.reply.ok();
    }
    Ok(())
}

/// Makes `key` a string. A string that is there is overwritten in place.
fn store(c: &mut Call<'_, '_>, key: &[u8], value: &[u8], expiry: Expiry) -> Outcome {
    if c.db.overwrite(c.ctx, key, value, expiry)? {
        return Ok(());
    }
    c.db.put(c.ctx, key, Text::from(value).into(), expiry)
}

fn setnx(c: &mut Call<'_, '_>) -> Outcome {
    let absent = !c.db.contains(c.args[1]);
    if absent {
        store(c, c.args[1], c.args[2], Expiry::Clear)?;
    }
    c.reply.integer(i64::from(absent));
    Ok(())
}

fn setex(c: &mut Call<'_, '_>, unit: Unit) -> Outcome {
    let command = if unit.seconds { "setex" } else { "psetex" };
    let when = unit.read(c, c.args[2], command)?;
    store(c, c.args[1], c.args[3], Expiry::At(when))?;
    c.reply.ok();
    Ok(())
}

fn getset(c: &mut Call<'_, '_>) -> Outcome {
    get(c)?;
    store(c, c.args[1], c.args[2], Expiry::Clear)
}

fn getdel(c: &mut Call<'_, '_>) -> Outcome {
    get(c)?;
    c.db.remove(c.ctx, c.args[1]);
    Ok(())
}

fn getex(c: &mut Call<'_, '_>) -> Outcome {
    let key = c.args[1];
    let options = Options::parse(&c.args[2..], false)?;
    if c.db.read::<Text>(key)?.is_none() {
        c.reply.null();
        return Ok(());
    }
    let expiry = match options.expiry {
        Some((unit, text)) => Some((unit.absolute, unit.read(c, text, "getex")?)),
        None => None,
    };
    get(c)?;
    match expiry {
        Some((true, when)) if when <= c.now_ms => {
            c.db.remove(c.ctx, key);
        }
        Some((_, when)) => {
            c.db.set_expiry(c.ctx, key, Some(when));
        }
        None => {
            let expires = c.db.entry(key).is_some_and(|entry| entry.expires_at_ms().is_some());
            if options.persist && expires {
                c.db.set_expiry(c.ctx, key, None);
            }
        }
    }
    Ok(())
}

fn mget(c: &mut Call<'_, '_>) -> Outcome {
    c.reply.array(c.args.len() - 1);
    for key in &c.args[1..] {
        let text = c.db.read::<Text>(key).unwrap_or(None);
        c.reply.bulk_or_null(text.map(Text::bytes));
    }
    Ok(())
}

fn mset(c: &mut Call<'_, '_>) -> Outcome {
    store_pairs(c, "mset")?;
    c.reply.ok();
    Ok(())
}

fn msetnx(c: &mut Call<'_, '_>) -> Outcome {
    if c.args.len().is_multiple_of(2) {
        return Err(Fail::arity("msetnx"));
    }
    let absent = !c.args[1..].chunks_exact(2).any(|pair| c.db.contains(pair[0]));
    if absent {
        store_pairs(c, "msetnx")?;
    }
    c.reply.integer(i64::from(absent));
    Ok(())
}

fn store_pairs(c: &mut Call<'_, '_>, command: &str) -> Outcome {
    if c.args.len().is_multiple_of(2) {
        return Err(Fail::arity(command));
    }
    let args = c.args;
    c.db.take_moves(args[1..].iter().step_by(2).copied())?;
    // All or nothing, also where all of them share a bucket.
    let bytes: usize = args[1..].iter().map(|arg| arg.len() + PAIR_BYTES).sum();
    args[1..].iter().step_by(2).try_for_each(|key| c.db.room(key, bytes))?;
    args[1..].chunks_exact(2).try_for_each(|pair| store(c, pair[0], pair[1], Expiry::Clear))
}

/// Bytes that a string and its key take at most, besides their own.
const PAIR_BYTES: usize = 64;

fn append(c: &mut Call<'_, '_>) -> Outcome {
    let (key, tail) = (c.args[1], c.args[2]);
    let old = c.db.read::<Text>(key)?.map_or(0, Text::len);
    c.check_size(old + tail.len())?;
    c.db.write_or_new::<Text>(c.ctx, key)?.append(tail);
    c.reply.length(old + tail.len());
    Ok(())
}

fn strlen(c: &mut Call<'_, '_>) -> Outcome {
    let len = c.db.read::<Text>(c.args[1])?.map_or(0, Text::len);
    c.reply.length(len);
    Ok(())
}

fn incrby(c: &mut Call<'_, '_>) -> Outcome {
    let number = c.int(2)?;
    add(c, number)
}

fn decrby(c: &mut Call<'_, '_>) -> Outcome {
    let negated = c.int(2)?.checked_neg().ok_or(Fail::new("ERR decrement would overflow"))?;
    add(c, negated)
}

fn add(c: &mut Call<'_, '_>, number: i64) -> Outcome {
    let key = c.args[1];
    let old = match c.db.read::<Text>(key)? {
        Some(text) => parse_int(text.bytes()).ok_or(Fail::NOT_INTEGER)?,
        None => 0,
    };
    let new = old.checked_add(number).ok_or(Fail::OVERFLOW)?;
    let digits = itoa::Buffer::new().format(new).as_bytes().to_owned();
    c.db.write_or_new::<Text>(c.ctx, key)?.set(&digits);
    c.reply.integer(new);
    Ok(())
}

fn incrbyfloat(c: &mut Call<'_, '_>) -> Outcome {
    let key = c.args[1];
    let old = c.db.read::<Text>(key)?.map_or(&b"0"[..], Text::bytes);
    c.db.work.take(Extended::steps(old) + Extended::steps(c.args[2]))?;
    let old = Extended::parse(old).ok_or(Fail::NOT_FLOAT)?;
    let number = Extended::parse(c.args[2]).ok_or(Fail::NOT_FLOAT)?;
    let new = old.checked_add(number).filter(|sum| sum.is_finite());
    let infinite = Fail::new("ERR increment would produce NaN or Infinity");
    let text = new.ok_or(infinite)?.to_text();
    c.db.write_or_new::<Text>(c.ctx, key)?.set(text.as_bytes());
    c.reply.bulk(text.as_bytes());
    Ok(())
}

fn setrange(c: &mut Call<'_, '_>) -> Outcome {
    let (key, bytes) = (c.args[1], c.args[3]);
    let offset = usize::try_from(c.int(2)?).map_err(|_| Fail::new("ERR offset is out of range"))?;
    let old = c.db.read::<Text>(key)?.map_or(0, Text::len);
    if bytes.is_empty() {
        c.reply.length(old);
        return Ok(());
    }
    c.check_size(offset.saturating_add(bytes.len()))?;
    c.db.work.take(offset.saturating_sub(old) / work::COPIED)?;
    let text = c.db.write_or_new::<Text>(c.ctx, key)?;
    text.slice_mut(offset, bytes.len()).copy_from_slice(bytes);
    let len = text.len();
    c.reply.length(len);
    Ok(())
}

fn getrange(c: &mut Call<'_, '_>) -> Outcome {
    let (start, end) = (c.int(2)?, c.int(3)?);
    let bytes = c.db.read::<Text>(c.args[1])?.map_or(&[][..], Text::bytes);
    c.reply.bulk(range(bytes.len(), start, end).map_or(&[], |range| &bytes[range]));
    Ok(())
}

/// The part of `0..len` between two indices, both inclusive, that count from the end where
/// negative; none if it is empty.
pub(super) fn range(len: usize, start: i64, end: i64) -> Option<std::ops::RangeInclusive<usize>> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let len = len as i64;
    let from_end = |index: i64| if index < 0 { (len + index).max(0) } else { index };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    (start <= end).then_some(start as usize..=end as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_from_both_ends() {
        let cases = [
            ((5, 0, -1), Some(0..=4)),
            ((5, -3, -2), Some(2..=3)),
            ((5, -100, 100), Some(0..=4)),
            ((5, 3, 2), None),
            ((5, 5, 9), None),
            ((0, 0, -1), None),
            ((5, -1, -3), None),
            ((5, -100, -99), Some(0..=0)),
            ((5, i64::MIN, i64::MAX), Some(0..=4)),
        ];
        for ((len, start, end), wanted) in cases {
            assert_eq!(range(len, start, end), wanted, "{len} {start} {end}");
        }
    }
}
