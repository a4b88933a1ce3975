//! The commands on sets.
//!
//! Members come back in the order of the trie, which Redis leaves open.

use super::call::{Call, Fail, Outcome};
use super::choice::{Choice, Wanted, at_least, scan};
use super::db::{Db, Expiry};
use super::scan::{Scan, parse_cursor};
use super::table::flags::{DENYOOM, FAST, MOVABLEKEYS, READONLY, WRITE};
use super::table::{CommandSpec, Flags, Group, Keys, Run};
use super::types::{Blob, Set};
use super::work;

/// The commands of this type.
pub const COMMANDS: &[CommandSpec] = &[
    row("sadd", -3, WRITE | DENYOOM | FAST, "Adds members", sadd),
    row("srem", -3, WRITE | FAST, "Removes members", srem),
    row("smembers", 2, READONLY, "Returns all members", smembers),
    row("sismember", 3, READONLY | FAST, "Tells whether something is a member", sismember),
    row("smismember", -3, READONLY | FAST, "Tells which of several are members", smismember),
    row("scard", 2, READONLY | FAST, "Returns the number of members", scard),
    row("spop", -2, WRITE | FAST, "Removes and returns random members", spop),
    row("srandmember", -2, READONLY, "Returns random members", srandmember),
    row("sscan", -3, READONLY, "Iterates over members", sscan),
    CommandSpec {
        keys: Keys::Range(1, 2, 1),
        ..row("smove", 4, WRITE | FAST, "Moves a member from one set to another", smove)
    },
    many(row("sinter", -2, READONLY, "Returns what is in all of the sets", sinter)),
    many(row("sinterstore", -3, WRITE | DENYOOM, "Stores what is in all of the sets", sinterstore)),
    many(row("sunion", -2, READONLY, "Returns what is in any of the sets", sunion)),
    many(row("sunionstore", -3, WRITE | DENYOOM, "Stores what is in any of the sets", sunionstore)),
    many(row("sdiff", -2, READONLY, "Returns what is in the first set alone", sdiff)),
    many(row(
        "sdiffstore",
        -3,
        WRITE | DENYOOM,
        "Stores what is in the first set alone",
        sdiffstore,
    )),
    CommandSpec {
        keys: Keys::Counted { at: 1, store: false },
        ..row(
            "sintercard",
            -3,
            READONLY | MOVABLEKEYS,
            "Counts what is in all of the sets",
            sintercard,
        )
    },
];

const fn row(
    name: &'static str,
    arity: i8,
    flags: Flags,
    summary: &'static str,
    handler: super::call::Handler,
) -> CommandSpec {
    let (keys, group) = (Keys::Range(1, 1, 1), Group::Set);
    CommandSpec { name, arity, flags, keys, group, summary, run: Run::Service(handler) }
}

const fn many(row: CommandSpec) -> CommandSpec {
    CommandSpec { keys: Keys::Range(1, -1, 1), ..row }
}

/// `SADD key member [member ...]`
pub fn sadd(c: &mut Call<'_, '_>) -> Outcome {
    let (key, members) = (c.args[1], &c.args[2..]);
    let new = match c.db.read::<Set>(key)? {
        Some(set) => members.iter().any(|member| !set.contains(member)),
        None => true,
    };
    let mut added = 0;
    if new {
        let set = c.db.write_or_new::<Set>(c.ctx, key)?;
        added = members.iter().filter(|member| set.insert(member, ()).is_none()).count();
    }
    c.reply.length(added);
    Ok(())
}

/// `SREM key member [member ...]`
pub fn srem(c: &mut Call<'_, '_>) -> Outcome {
    let (key, members) = (c.args[1], &c.args[2..]);
    let any = c.db.read::<Set>(key)?.is_some_and(|set| members.iter().any(|m| set.contains(m)));
    let mut removed = 0;
    if any && let Some(set) = c.db.write::<Set>(c.ctx, key)? {
        removed = members.iter().filter(|member| set.remove(member).is_some()).count();
        c.db.drop_if_empty(c.ctx, key);
    }
    c.reply.length(removed);
    Ok(())
}

/// SMEMBERS key
pub fn smembers(c: &mut Call<'_, '_>) -> Outcome {
    let set = c.db.read::<Set>(c.args[1])?;
    c.reply.set(set.map_or(0, Set::len));
    c.reply.bulks(set.iter().flat_map(|set| set.iter()).map(|(member, ())| member.as_bytes()));
    Ok(())
}

/// SISMEMBER key member
pub fn sismember(c: &mut Call<'_, '_>) -> Outcome {
    let is = c.db.read::<Set>(c.args[1])?.is_some_and(|set| set.contains(c.args[2]));
    c.reply.integer(i64::from(is));
    Ok(())
}

/// `SMISMEMBER key member [member ...]`
pub fn smismember(c: &mut Call<'_, '_>) -> Outcome {
    let set = c.db.read::<Set>(c.args[1])?;
    c.reply.array(c.args.len() - 2);
    for member in &c.args[2..] {
        let is = set.is_some_and(|set| set.contains(member));
        c.reply.integer(i64::from(is));
    }
    Ok(())
}

/// SCARD key
pub fn scard(c: &mut Call<'_, '_>) -> Outcome {
    let len = c.db.read::<Set>(c.args[1])?.map_or(0, Set::len);
    c.reply.length(len);
    Ok(())
}

/// SMOVE source destination member
pub fn smove(c: &mut Call<'_, '_>) -> Outcome {
    let (source, destination, member) = (c.args[1], c.args[2], c.args[3]);
    let Some(set) = c.db.read::<Set>(source)? else {
        c.reply.integer(0);
        return Ok(());
    };
    let is = set.contains(member);
    c.db.read::<Set>(destination)?;
    if is && source != destination {
        c.db.room(destination, 0)?;
        if let Some(set) = c.db.write::<Set>(c.ctx, source)? {
            set.remove(member);
        }
        c.db.drop_if_empty(c.ctx, source);
        c.db.write_or_new::<Set>(c.ctx, destination)?.insert(member, ());
    }
    c.reply.integer(i64::from(is));
    Ok(())
}

/// `SPOP key [count]`
pub fn spop(c: &mut Call<'_, '_>) -> Outcome {
    let key = c.args[1];
    if c.args.len() > 3 {
        return Err(Fail::SYNTAX);
    }
    let counted = c.args.len() == 3;
    let count = if counted { c.positive(2)? } else { 1 };
    let mut choice = Choice::new(c);
    let Some(set) = c.db.read::<Set>(key)? else {
        if counted {
            c.reply.set(0)
        } else {
            c.reply.null()
        }
        return Ok(());
    };
    let wanted = Wanted::Distinct(usize::try_from(count).unwrap_or(usize::MAX));
    c.db.work.take(wanted.of(set.len()).saturating_mul(work::LOOK_UP))?;
    let mut chosen: Vec<Blob> = Vec::with_capacity(wanted.of(set.len()));
    wanted.choose(&mut choice, set, |member, ()| {
        chosen.push(member.clone());
        true
    });
    if counted {
        c.reply.set(chosen.len());
    }
    chosen.iter().for_each(|member| c.reply.bulk(member));
    if !chosen.is_empty()
        && let Some(set) = c.db.write::<Set>(c.ctx, key)?
    {
        chosen.iter().for_each(|member| set.remove(member).expect("just chosen"));
        c.db.drop_if_empty(c.ctx, key);
    }
    Ok(())
}

/// `SRANDMEMBER key [count]`
pub fn srandmember(c: &mut Call<'_, '_>) -> Outcome {
    let counted = c.args.len() > 2;
    if c.args.len() > 3 {
        return Err(Fail::SYNTAX);
    }
    let wanted = if counted { Wanted::parse(c, 2)? } else { Wanted::Distinct(1) };
    let mut choice = Choice::new(c);
    match c.db.read::<Set>(c.args[1])? {
        None if counted => c.reply.array(0),
        None => c.reply.null(),
        Some(set) => {
            c.db.work.take(wanted.of(set.len()).saturating_mul(work::LOOK_UP))?;
            if counted {
                c.reply.array(wanted.of(set.len()));
            }
            wanted.choose(&mut choice, set, |member, ()| {
                c.reply.bulk(member);
                !c.reply.overflowed()
            });
        }
    }
    Ok(())
}

/// `SSCAN key cursor [MATCH pattern] [COUNT count]`
pub fn sscan(c: &mut Call<'_, '_>) -> Outcome {
    let cursor = parse_cursor(c.args[2])?;
    let Some(set) = c.db.read::<Set>(c.args[1])? else {
        c.reply.raw(b"*2\r\n$1\r\n0\r\n*0\r\n");
        return Ok(());
    };
    let (next, found) = scan(c.db, &Scan::parse(&c.args[3..], false)?, set, cursor)?;
    c.reply.array(2);
    c.reply.bulk(next.to_string().as_bytes());
    c.reply.array(found.len());
    found.iter().for_each(|(member, ())| c.reply.bulk(member));
    Ok(())
}

/// What is computed from several sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Inter,
    Union,
    Diff,
}

/// `SINTER key [key ...]`
pub fn sinter(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Op::Inter)
}

/// `SUNION key [key ...]`
pub fn sunion(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Op::Union)
}

/// `SDIFF key [key ...]`
pub fn sdiff(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Op::Diff)
}

/// `SINTERSTORE destination key [key ...]`
pub fn sinterstore(c: &mut Call<'_, '_>) -> Outcome {
    store(c, Op::Inter)
}

/// `SUNIONSTORE destination key [key ...]`
pub fn sunionstore(c: &mut Call<'_, '_>) -> Outcome {
    store(c, Op::Union)
}

/// `SDIFFSTORE destination key [key ...]`
pub fn sdiffstore(c: &mut Call<'_, '_>) -> Outcome {
    store(c, Op::Diff)
}

/// `SINTERCARD numkeys key [key ...] [LIMIT limit]`
pub fn sintercard(c: &mut Call<'_, '_>) -> Outcome {
    const TOO_MANY: Fail = Fail::new("ERR Number of keys can't be greater than number of args");
    let count = at_least(c, 1, 1, "ERR numkeys should be greater than 0")?;
    let keys = c.args[2..].get(..count).ok_or(TOO_MANY)?;
    let mut limit = 0;
    let mut at = 2 + count;
    while at < c.args.len() {
        if !c.is(at, "LIMIT") || at + 1 == c.args.len() {
            return Err(Fail::SYNTAX);
        }
        limit = at_least(c, at + 1, 0, "ERR LIMIT can't be negative")?;
        at += 2;
    }
    let sets = open(c.db, Op::Inter, keys)?;
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut seen = 0;
    combine(Op::Inter, &sets, |_| {
        seen += 1;
        seen < limit
    });
    c.reply.length(seen);
    Ok(())
}

fn answer(c: &mut Call<'_, '_>, op: Op) -> Outcome {
    let sets = open(c.db, op, &c.args[1..])?;
    let (mark, mut len) = (c.reply.open(), 0);
    combine(op, &sets, |member| {
        c.reply.bulk(member);
        len += 1;
        !c.reply.overflowed()
    });
    c.reply.close_set(mark, len);
    Ok(())
}

fn store(c: &mut Call<'_, '_>, op: Op) -> Outcome {
    let sets = open(c.db, op, &c.args[2..])?;
    let mut result = Set::new();
    combine(op, &sets, |member| {
        result.insert_shared(&member.share(), ());
        true
    });
    c.reply.length(result.len());
    if result.is_empty() {
        c.db.remove(c.ctx, c.args[1]);
    } else {
        c.db.put(c.ctx, c.args[1], result.into(), Expiry::Clear)?;
    }
    Ok(())
}

/// The sets of these keys, each once, and with the first one first for a difference; all of them
/// are looked at, so that any wrong type is told. Takes the steps of computing the result.
fn open<'d>(db: &'d Db, op: Op, keys: &[&[u8]]) -> Result<Vec<Option<&'d Set>>, Fail> {
    // One request may name a key a million times, which changes nothing.
    let (first, others) = keys.split_at(usize::from(op == Op::Diff));
    let mut others = others.to_vec();
    others.sort_unstable();
    others.dedup();
    let keys = first.iter().chain(&others);
    let sets: Vec<_> = keys.map(|key| db.read::<Set>(key)).collect::<Result<_, _>>()?;
    let each = work::INSERT + (sets.len() - 1) * work::LOOK_UP;
    let lens = || sets.iter().map(|set| set.map_or(0, Set::len));
    db.work.take(match op {
        Op::Inter => lens().min().unwrap_or(0).saturating_mul(each),
        Op::Union => lens().sum::<usize>() * work::INSERT,
        Op::Diff => lens().next().unwrap_or(0).saturating_mul(each),
    })?;
    Ok(sets)
}

/// Hands over the members of the result until `each` wants no more.
fn combine(op: Op, sets: &[Option<&Set>], mut each: impl FnMut(&Blob) -> bool) {
    match op {
        Op::Inter => {
            let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<&Set>>>() else {
                return;
            };
            sets.sort_by_key(|set| set.len());
            let Some((smallest, others)) = sets.split_first() else { return };
            let common = |member: &Blob| others.iter().all(|set| set.contains(member));
            smallest.iter().filter(|(member, ())| common(member)).all(|(member, ())| each(member));
        }
        Op::Union => {
            let mut union = Set::new();
            for (member, ()) in sets.iter().flatten().flat_map(|set| set.iter()) {
                union.insert_shared(&member.share(), ());
            }
            union.iter().all(|(member, ())| each(member));
        }
        Op::Diff => {
            let Some((Some(first), others)) = sets.split_first() else { return };
            let others: Vec<&Set> = others.iter().copied().flatten().collect();
            let alone = |member: &Blob| !others.iter().any(|set| set.contains(member));
            first.iter().filter(|(member, ())| alone(member)).all(|(member, ())| each(member));
        }
    }
}
