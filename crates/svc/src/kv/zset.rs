//! The commands on sorted sets, without those that block.
//!
//! Ranges are in `range`, unions and their like in `algebra`.

use std::collections::BTreeMap;

use super::call::{Call, Fail, Handler, Outcome};
use super::choice::{Choice, Wanted, scan};
use super::decimal::{format_f64, parse_f64};
use super::list::{counted_keys, pop_count};
use super::reply::{Protocol, Resp};
use super::scan::{Scan, parse_cursor};
use super::table::flags::{DENYOOM, FAST, MOVABLEKEYS, READONLY, WRITE};
use super::table::{CommandSpec, Flags, Group, Keys, Run};
use super::types::Zset;
use super::work;

mod algebra;
mod range;

/// The commands of this type.
pub const COMMANDS: &[CommandSpec] = &[
    row("zadd", -4, WRITE | DENYOOM | FAST, "Adds members or changes their scores", zadd),
    row("zincrby", 4, WRITE | DENYOOM | FAST, "Adds to the score of a member", zincrby),
    row("zrem", -3, WRITE | FAST, "Removes members", zrem),
    row("zscore", 3, READONLY | FAST, "Returns the score of a member", zscore),
    row("zmscore", -3, READONLY | FAST, "Returns the scores of members", zmscore),
    row("zcard", 2, READONLY | FAST, "Returns the number of members", zcard),
    row("zrank", 3, READONLY | FAST, "Returns the rank of a member", zrank),
    row("zrevrank", 3, READONLY | FAST, "Returns the rank of a member from the top", zrevrank),
    row("zpopmin", -2, WRITE | FAST, "Removes members with the lowest scores", zpopmin),
    row("zpopmax", -2, WRITE | FAST, "Removes members with the highest scores", zpopmax),
    row("zrandmember", -2, READONLY, "Returns random members", zrandmember),
    row("zscan", -3, READONLY, "Iterates over members and scores", zscan),
    row("zcount", 4, READONLY | FAST, "Counts members in a range of scores", range::zcount),
    row("zlexcount", 4, READONLY | FAST, "Counts members in a range of names", range::zlexcount),
    row("zrange", -4, READONLY, "Returns a range of members", range::zrange),
    row("zrevrange", -4, READONLY, "Returns a range of ranks from the top", range::zrevrange),
    row("zrangebyscore", -4, READONLY, "Returns a range of scores", range::zrangebyscore),
    row(
        "zrevrangebyscore",
        -4,
        READONLY,
        "Returns a range of scores from the top",
        range::zrevrangebyscore,
    ),
    row("zrangebylex", -4, READONLY, "Returns a range of names", range::zrangebylex),
    row(
        "zrevrangebylex",
        -4,
        READONLY,
        "Returns a range of names from the top",
        range::zrevrangebylex,
    ),
    row("zremrangebyrank", 4, WRITE, "Removes a range of ranks", range::zremrangebyrank),
    row("zremrangebyscore", 4, WRITE, "Removes a range of scores", range::zremrangebyscore),
    row("zremrangebylex", 4, WRITE, "Removes a range of names", range::zremrangebylex),
    CommandSpec {
        keys: Keys::Range(1, 2, 1),
        ..row("zrangestore", -5, WRITE | DENYOOM, "Stores a range of members", range::zrangestore)
    },
    counted(
        1,
        row("zmpop", -4, WRITE | MOVABLEKEYS, "Pops from the first that has members", zmpop),
    ),
    counted(1, row("zunion", -3, READONLY | MOVABLEKEYS, "Adds sorted sets up", algebra::zunion)),
    counted(
        1,
        row("zinter", -3, READONLY | MOVABLEKEYS, "Intersects sorted sets", algebra::zinter),
    ),
    counted(1, row("zdiff", -3, READONLY | MOVABLEKEYS, "Subtracts sorted sets", algebra::zdiff)),
    counted(
        1,
        row(
            "zintercard",
            -3,
            READONLY | MOVABLEKEYS,
            "Counts an intersection",
            algebra::zintercard,
        ),
    ),
    counted(
        2,
        row(
            "zunionstore",
            -4,
            WRITE | DENYOOM | MOVABLEKEYS,
            "Stores a union",
            algebra::zunionstore,
        ),
    ),
    counted(
        2,
        row(
            "zinterstore",
            -4,
            WRITE | DENYOOM | MOVABLEKEYS,
            "Stores an intersection",
            algebra::zinterstore,
        ),
    ),
    counted(
        2,
        row(
            "zdiffstore",
            -4,
            WRITE | DENYOOM | MOVABLEKEYS,
            "Stores a difference",
            algebra::zdiffstore,
        ),
    ),
];

const fn row(
    name: &'static str,
    arity: i8,
    flags: Flags,
    summary: &'static str,
    handler: Handler,
) -> CommandSpec {
    let (keys, group) = (Keys::Range(1, 1, 1), Group::SortedSet);
    CommandSpec { name, arity, flags, keys, group, summary, run: Run::Service(handler) }
}

const fn counted(at: u8, row: CommandSpec) -> CommandSpec {
    CommandSpec { keys: Keys::Counted { at, store: at > 1 }, ..row }
}

/// Replies a score.
pub(super) fn reply_score(reply: &mut Resp<'_>, score: f64) {
    reply.double(format_f64(score).as_bytes());
}

fn reply_score_or_null(reply: &mut Resp<'_>, score: Option<f64>) {
    match score {
        Some(score) => reply_score(reply, score),
        None => reply.null(),
    }
}

/// How members are replied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// Members alone.
    Members,
    /// Members and scores alternately.
    Flat,
    /// An array of two for each member.
    Pairs,
}

impl Shape {
    /// The usual shape: pairs are for RESP3.
    fn usual(reply: &Resp<'_>, with_scores: bool) -> Shape {
        match reply.protocol() {
            _ if !with_scores => Shape::Members,
            Protocol::Resp2 => Shape::Flat,
            Protocol::Resp3 => Shape::Pairs,
        }
    }

    fn header(self, reply: &mut Resp<'_>, len: usize) {
        reply.array(if self == Shape::Flat { len.saturating_mul(2) } else { len });
    }

    fn item(self, reply: &mut Resp<'_>, member: &[u8], score: f64) {
        if self == Shape::Pairs {
            reply.array(2);
        }
        reply.bulk(member);
        if self != Shape::Members {
            reply_score(reply, score);
        }
    }
}

/// The options of ZADD.
#[derive(Clone, Copy, Default, Debug)]
struct Adding {
    new_only: bool,
    old_only: bool,
    greater: bool,
    less: bool,
    changed: bool,
    increment: bool,
}

impl Adding {
    /// Reads options from argument 2 on; where they end.
    fn parse(&mut self, c: &Call<'_, '_>) -> usize {
        let mut at = 2;
        while at < c.args.len() {
            match () {
                () if c.is(at, "NX") => self.new_only = true,
                () if c.is(at, "XX") => self.old_only = true,
                () if c.is(at, "CH") => self.changed = true,
                () if c.is(at, "INCR") => self.increment = true,
                () if c.is(at, "GT") => self.greater = true,
                () if c.is(at, "LT") => self.less = true,
                () => return at,
            }
            at += 1;
        }
        at
    }

    fn check(self, pairs: usize) -> Outcome {
        if self.new_only && self.old_only {
            return Err(Fail::new("ERR XX and NX options at the same time are not compatible"));
        }
        let exclusive = [self.greater, self.less, self.new_only];
        if exclusive.iter().filter(|set| **set).count() > 1 {
            return Err(Fail::new(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.increment && pairs > 1 {
            return Err(Fail::new("ERR INCR option supports a single increment-element pair"));
        }
        Ok(())
    }

    /// The score that a member gets; nothing when the options forbid it.
    fn score(self, old: Option<f64>, given: f64) -> Result<Option<f64>, Fail> {
        let Some(old) = old else { return Ok((!self.old_only).then_some(given)) };
        if self.new_only {
            return Ok(None);
        }
        let new = if self.increment { old + given } else { given };
        if new.is_nan() {
            return Err(Fail::new("ERR resulting score is not a number (NaN)"));
        }
        let refused = (self.less && new >= old) || (self.greater && new <= old);
        Ok((!refused).then_some(new))
    }
}

/// `ZADD key [NX|XX] [GT|LT] [CH] [INCR] score member [score member ...]`
pub fn zadd(c: &mut Call<'_, '_>) -> Outcome {
    add(c, Adding::default())
}

/// ZINCRBY key increment member
pub fn zincrby(c: &mut Call<'_, '_>) -> Outcome {
    add(c, Adding { increment: true, ..Adding::default() })
}

fn add(c: &mut Call<'_, '_>, mut adding: Adding) -> Outcome {
    let first = adding.parse(c);
    let (pairs, rest) = c.args[first..].as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(Fail::SYNTAX);
    }
    adding.check(pairs.len())?;
    let scores: Option<Vec<f64>> = pairs.iter().map(|pair| parse_f64(pair[0])).collect();
    let scores = scores.ok_or(Fail::NOT_FLOAT)?;
    // What changes is found out first: a command that changes nothing is no write.
    let zset = c.db.read::<Zset>(c.args[1])?;
    let (mut changes, mut pending) = (Vec::new(), BTreeMap::new());
    let (mut added, mut updated, mut last) = (0, 0, None);
    for ([_, member], given) in pairs.iter().zip(scores) {
        let earlier = pending.get(member).copied();
        let old = earlier.or_else(|| zset.and_then(|zset| zset.score(member)));
        last = adding.score(old, given)?;
        let Some(new) = last else { continue };
        if old.is_none_or(|old| old != new) {
            changes.push((*member, new));
            if pairs.len() > 1 {
                pending.insert(*member, new);
            }
            added += usize::from(old.is_none());
            updated += usize::from(old.is_some());
        }
    }
    if !changes.is_empty() {
        let zset = c.db.write_or_new::<Zset>(c.ctx, c.args[1])?;
        for (member, score) in changes {
            zset.insert(member, score);
        }
    }
    if adding.increment {
        reply_score_or_null(&mut c.reply, last);
    } else {
        c.reply.length(if adding.changed { added + updated } else { added });
    }
    Ok(())
}

/// `ZREM key member [member ...]`
pub fn zrem(c: &mut Call<'_, '_>) -> Outcome {
    let (key, members) = (c.args[1], &c.args[2..]);
    let zset = c.db.read::<Zset>(key)?;
    let any = zset.is_some_and(|zset| members.iter().any(|m| zset.score(m).is_some()));
    let mut removed = 0;
    if any && let Some(zset) = c.db.write::<Zset>(c.ctx, key)? {
        removed = members.iter().filter(|member| zset.remove(member).is_some()).count();
        c.db.drop_if_empty(c.ctx, key);
    }
    c.reply.length(removed);
    Ok(())
}

/// ZSCORE key member
pub fn zscore(c: &mut Call<'_, '_>) -> Outcome {
    let score = c.db.read::<Zset>(c.args[1])?.and_then(|zset| zset.score(c.args[2]));
    reply_score_or_null(&mut c.reply, score);
    Ok(())
}

/// `ZMSCORE key member [member ...]`
pub fn zmscore(c: &mut Call<'_, '_>) -> Outcome {
    let zset = c.db.read::<Zset>(c.args[1])?;
    c.reply.array(c.args.len() - 2);
    for member in &c.args[2..] {
        reply_score_or_null(&mut c.reply, zset.and_then(|zset| zset.score(member)));
    }
    Ok(())
}

/// ZCARD key
pub fn zcard(c: &mut Call<'_, '_>) -> Outcome {
    let len = c.db.read::<Zset>(c.args[1])?.map_or(0, Zset::len);
    c.reply.length(len);
    Ok(())
}

/// ZRANK key member
pub fn zrank(c: &mut Call<'_, '_>) -> Outcome {
    let zset = c.db.read::<Zset>(c.args[1])?;
    c.db.work.take(rank_steps(zset))?;
    match zset.and_then(|zset| zset.rank(c.args[2])) {
        Some(rank) => c.reply.length(rank),
        None => c.reply.null(),
    }
    Ok(())
}

/// Steps of finding a rank: in the order, the parts that are before it are counted up.
fn rank_steps(zset: Option<&Zset>) -> usize {
    zset.map_or(0, Zset::len) / 4096
}

/// ZREVRANK key member
pub fn zrevrank(c: &mut Call<'_, '_>) -> Outcome {
    let zset = c.db.read::<Zset>(c.args[1])?;
    c.db.work.take(rank_steps(zset))?;
    match zset.and_then(|zset| Some(zset.len() - 1 - zset.rank(c.args[2])?)) {
        Some(rank) => c.reply.length(rank),
        None => c.reply.null(),
    }
    Ok(())
}

/// Which end of a sorted set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Lowest,
    Highest,
}

/// `ZPOPMIN key [count]`
pub fn zpopmin(c: &mut Call<'_, '_>) -> Outcome {
    pop(c, End::Lowest)
}

/// `ZPOPMAX key [count]`
pub fn zpopmax(c: &mut Call<'_, '_>) -> Outcome {
    pop(c, End::Highest)
}

fn pop(c: &mut Call<'_, '_>, end: End) -> Outcome {
    if c.args.len() > 3 {
        return Err(Fail::SYNTAX);
    }
    let counted = c.args.len() == 3;
    let count = if counted { c.positive(2)? } else { 1 };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let pairs = counted && c.reply.protocol() == Protocol::Resp3;
    let shape = if pairs { Shape::Pairs } else { Shape::Flat };
    take(c, c.args[1], end, count, shape)
}

/// `ZMPOP numkeys key [key ...] MIN|MAX [COUNT count]`
pub fn zmpop(c: &mut Call<'_, '_>) -> Outcome {
    let (keys, option) = counted_keys(c, 1)?;
    let end = match () {
        () if c.is(option, "MIN") => End::Lowest,
        () if c.is(option, "MAX") => End::Highest,
        () => return Err(Fail::SYNTAX),
    };
    let count = pop_count(c, option + 1)?;
    for key in keys {
        if c.db.read::<Zset>(key)?.is_some() {
            c.reply.array(2);
            c.reply.bulk(key);
            return take(c, key, end, count, Shape::Pairs);
        }
    }
    c.reply.null_array();
    Ok(())
}

/// Takes up to `count` members away and replies them.
fn take(c: &mut Call<'_, '_>, key: &[u8], end: End, count: usize, shape: Shape) -> Outcome {
    let zset = c.db.read::<Zset>(key)?.filter(|_| count > 0);
    let Some(zset) = zset else {
        c.reply.array(0);
        return Ok(());
    };
    c.db.work.take(rank_steps(Some(zset)))?;
    let len = zset.len();
    let count = count.min(len);
    shape.header(&mut c.reply, count);
    if let Some(zset) = c.db.write::<Zset>(c.ctx, key)? {
        let taken = match end {
            End::Lowest => zset.remove_range(0, count),
            End::Highest => {
                let mut taken = zset.remove_range(len - count, len);
                taken.reverse();
                taken
            }
        };
        for (score, member) in &taken {
            shape.item(&mut c.reply, member, *score);
        }
        c.db.drop_if_empty(c.ctx, key);
    }
    Ok(())
}

/// `ZRANDMEMBER key [count [WITHSCORES]]`
pub fn zrandmember(c: &mut Call<'_, '_>) -> Outcome {
    let wanted = Wanted::parse_with(c, "WITHSCORES")?;
    let zset = c.db.read::<Zset>(c.args[1])?;
    let mut choice = Choice::new(c);
    let Some((wanted, with_scores)) = wanted else {
        let member = zset.and_then(|zset| zset.scores().nth(choice.below(zset.len())));
        c.reply.bulk_or_null(member.map(|(member, _)| member.as_bytes()));
        return Ok(());
    };
    let Some(zset) = zset else {
        c.reply.array(0);
        return Ok(());
    };
    c.db.work.take(wanted.of(zset.len()).saturating_mul(work::LOOK_UP))?;
    let shape = Shape::usual(&c.reply, with_scores);
    shape.header(&mut c.reply, wanted.of(zset.len()));
    wanted.choose(&mut choice, zset.scores(), |member, score| {
        shape.item(&mut c.reply, member, score.0);
        !c.reply.overflowed()
    });
    Ok(())
}

/// `ZSCAN key cursor [MATCH pattern] [COUNT count]`
pub fn zscan(c: &mut Call<'_, '_>) -> Outcome {
    let cursor = parse_cursor(c.args[2])?;
    let Some(zset) = c.db.read::<Zset>(c.args[1])? else {
        c.reply.raw(b"*2\r\n$1\r\n0\r\n*0\r\n");
        return Ok(());
    };
    let whole_digits = zset.is_compact();
    let (next, found) = scan(c.db, &Scan::parse(&c.args[3..], false)?, zset.scores(), cursor)?;
    c.reply.array(2);
    c.reply.bulk(next.to_string().as_bytes());
    c.reply.array(found.len() * 2);
    for (member, score) in found {
        c.reply.bulk(member);
        match score.0 {
            score if whole_digits && score == score.trunc() && score.abs() <= COMPACT_SCORE => {
                c.reply.bulk_integer(score as i64);
            }
            score => c.reply.bulk(format_f64(score).as_bytes()),
        }
    }
    Ok(())
}

/// Whole scores up to this are kept as integers there: 2^62.
const COMPACT_SCORE: f64 = 4_611_686_018_427_387_904.0;
