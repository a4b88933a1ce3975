//! Ranges of sorted sets: by rank, by score, by name.
//!
//! Each kind of range is turned into ranks `start..end`, and all that commands do with ranges
//! they do with ranks. A range of names assumes that all scores are equal; where they are not,
//! the result is unspecified, as in Redis, but the same everywhere.

use super::super::call::{Call, Fail, Outcome};
use super::super::db::Expiry;
use super::super::decimal::parse_bound;
use super::super::list::clamp;
use super::super::types::Zset;
use super::super::types::ranked::Ranking;
use super::super::work;
use super::{Shape, rank_steps};

/// ZCOUNT key min max
pub fn zcount(c: &mut Call<'_, '_>) -> Outcome {
    count(c, Kind::Score)
}

/// ZLEXCOUNT key min max
pub fn zlexcount(c: &mut Call<'_, '_>) -> Outcome {
    count(c, Kind::Name)
}

/// `ZRANGE key start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`
pub fn zrange(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, None, None)
}

/// `ZREVRANGE key start stop [WITHSCORES]`
pub fn zrevrange(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Some(Kind::Rank), Some(true))
}

/// `ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]`
pub fn zrangebyscore(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Some(Kind::Score), Some(false))
}

/// `ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]`
pub fn zrevrangebyscore(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Some(Kind::Score), Some(true))
}

/// `ZRANGEBYLEX key min max [LIMIT offset count]`
pub fn zrangebylex(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Some(Kind::Name), Some(false))
}

/// `ZREVRANGEBYLEX key max min [LIMIT offset count]`
pub fn zrevrangebylex(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Some(Kind::Name), Some(true))
}

/// ZREMRANGEBYRANK key start stop
pub fn zremrangebyrank(c: &mut Call<'_, '_>) -> Outcome {
    remove(c, Kind::Rank)
}

/// ZREMRANGEBYSCORE key min max
pub fn zremrangebyscore(c: &mut Call<'_, '_>) -> Outcome {
    remove(c, Kind::Score)
}

/// ZREMRANGEBYLEX key min max
pub fn zremrangebylex(c: &mut Call<'_, '_>) -> Outcome {
    remove(c, Kind::Name)
}

/// `ZRANGESTORE destination source start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count]`
pub fn zrangestore(c: &mut Call<'_, '_>) -> Outcome {
    let query = Query::parse(c, 2, None, None, false)?;
    let mut result = Zset::new();
    if let Some(zset) = c.db.read::<Zset>(c.args[2])? {
        let (start, end) = query.ranks(zset);
        c.db.work.take(rank_steps(Some(zset)) + (end - start) * 2 * work::INSERT)?;
        if let Range::Rank(..) = query.range {
            // The only range whose length Redis knows when it begins.
            result = Zset::for_members(end - start, std::iter::empty());
        }
        for (score, member) in query.select(zset) {
            result.insert(member, *score);
        }
    }
    c.reply.length(result.len());
    if result.is_empty() {
        c.db.remove(c.ctx, c.args[1]);
    } else {
        c.db.put(c.ctx, c.args[1], result.into(), Expiry::Clear)?;
    }
    Ok(())
}

fn answer(c: &mut Call<'_, '_>, kind: Option<Kind>, reverse: Option<bool>) -> Outcome {
    let query = Query::parse(c, 1, kind, reverse, true)?;
    let Some(zset) = c.db.read::<Zset>(c.args[1])? else {
        c.reply.array(0);
        return Ok(());
    };
    c.db.work.take(rank_steps(Some(zset)))?;
    let shape = Shape::usual(&c.reply, query.with_scores);
    let (start, end) = query.ranks(zset);
    shape.header(&mut c.reply, end - start);
    for (score, member) in query.select(zset) {
        if c.reply.overflowed() {
            break;
        }
        shape.item(&mut c.reply, member, *score);
    }
    Ok(())
}

fn count(c: &mut Call<'_, '_>, kind: Kind) -> Outcome {
    let range = Range::parse(kind, c, 2, 3)?;
    let zset = c.db.read::<Zset>(c.args[1])?;
    c.db.work.take(rank_steps(zset))?;
    let len = zset.map_or(0, |zset| {
        let (start, end) = range.ranks(zset, false);
        end - start
    });
    c.reply.length(len);
    Ok(())
}

fn remove(c: &mut Call<'_, '_>, kind: Kind) -> Outcome {
    let (key, range) = (c.args[1], Range::parse(kind, c, 2, 3)?);
    let zset = c.db.read::<Zset>(key)?;
    c.db.work.take(rank_steps(zset))?;
    let (start, end) = zset.map_or((0, 0), |zset| range.ranks(zset, false));
    if start < end
        && let Some(zset) = c.db.write::<Zset>(c.ctx, key)?
    {
        zset.remove_range(start, end);
        c.db.drop_if_empty(c.ctx, key);
    }
    c.reply.length(end - start);
    Ok(())
}

/// By what a range is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Rank,
    Score,
    Name,
}

/// A range as it was given.
enum Range<'a> {
    Rank(i64, i64),
    Score(Limit<f64>, Limit<f64>),
    Name(Name<'a>, Name<'a>),
}

/// One end of a range of scores.
struct Limit<T> {
    value: T,
    exclusive: bool,
}

/// One end of a range of names.
enum Name<'a> {
    /// Before every name.
    Lowest,
    /// Behind every name.
    Highest,
    At(Limit<&'a [u8]>),
}

impl<'a> Range<'a> {
    /// Reads a range from the arguments at `min` and `max`.
    fn parse(kind: Kind, c: &Call<'a, '_>, min: usize, max: usize) -> Result<Range<'a>, Fail> {
        const NO_SCORE: Fail = Fail::new("ERR min or max is not a float");
        const NO_NAME: Fail = Fail::new("ERR min or max not valid string range item");
        let (low, high) = (c.args[min], c.args[max]);
        match kind {
            Kind::Rank => Ok(Range::Rank(c.int(min)?, c.int(max)?)),
            Kind::Score => match (Limit::parse(low), Limit::parse(high)) {
                (Some(low), Some(high)) => Ok(Range::Score(low, high)),
                _ => Err(NO_SCORE),
            },
            Kind::Name => match (Name::parse(low), Name::parse(high)) {
                (Some(low), Some(high)) => Ok(Range::Name(low, high)),
                _ => Err(NO_NAME),
            },
        }
    }

    /// The ranks `start..end`, ascending. Ranks count from the top if `reverse`.
    fn ranks(&self, zset: &Zset, reverse: bool) -> (usize, usize) {
        let (order, len) = (zset.order(), zset.len());
        let (start, end) = match self {
            Range::Rank(start, stop) => {
                let (start, end) = clamp(*start, *stop, len);
                if reverse { (len - end, len - start) } else { (start, end) }
            }
            Range::Score(min, max) => {
                let before = |e: &Ranking| e.0 < min.value || (min.exclusive && e.0 == min.value);
                let within = |e: &Ranking| e.0 < max.value || (!max.exclusive && e.0 == max.value);
                (order.partition(before), order.partition(within))
            }
            Range::Name(min, max) => {
                let start = order.partition_names(|name| min.cuts_off(name));
                (start, order.partition_names(|name| max.allows(name)))
            }
        };
        (start.min(end), end)
    }
}

impl Limit<f64> {
    fn parse(text: &[u8]) -> Option<Limit<f64>> {
        let (exclusive, text) = match text {
            [b'(', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        Some(Limit { value: parse_bound(text)?, exclusive })
    }
}

impl<'a> Name<'a> {
    fn parse(text: &'a [u8]) -> Option<Name<'a>> {
        match text {
            [b'-'] | [b'-', 0, ..] => Some(Name::Lowest),
            [b'+'] | [b'+', 0, ..] => Some(Name::Highest),
            [b'(', value @ ..] => Some(Name::At(Limit { value, exclusive: true })),
            [b'[', value @ ..] => Some(Name::At(Limit { value, exclusive: false })),
            _ => None,
        }
    }

    /// As the lower end: whether `name` is before it.
    fn cuts_off(&self, name: &[u8]) -> bool {
        match self {
            Name::Lowest => false,
            Name::Highest => true,
            Name::At(limit) => name < limit.value || (limit.exclusive && name == limit.value),
        }
    }

    /// As the upper end: whether `name` is not behind it.
    fn allows(&self, name: &[u8]) -> bool {
        match self {
            Name::Lowest => false,
            Name::Highest => true,
            Name::At(limit) => name < limit.value || (!limit.exclusive && name == limit.value),
        }
    }
}

/// A range with the options of ZRANGE and its older kin.
struct Query<'a> {
    range: Range<'a>,
    reverse: bool,
    with_scores: bool,
    offset: i64,
    limit: i64,
}

impl<'a> Query<'a> {
    /// Reads a query whose key is argument `key`. What `kind` and `reverse` fix, options do not
    /// change; scores may be asked for if `scores`.
    fn parse(
        c: &Call<'a, '_>,
        key: usize,
        mut kind: Option<Kind>,
        mut reverse: Option<bool>,
        scores: bool,
    ) -> Result<Query<'a>, Fail> {
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        let mut at = key + 3;
        while at < c.args.len() {
            if scores && c.is(at, "WITHSCORES") {
                with_scores = true;
            } else if c.is(at, "LIMIT") && at + 2 < c.args.len() {
                (offset, limit) = (c.int(at + 1)?, c.int(at + 2)?);
                at += 2;
            } else if reverse.is_none() && c.is(at, "REV") {
                reverse = Some(true);
            } else if kind.is_none() && c.is(at, "BYLEX") {
                kind = Some(Kind::Name);
            } else if kind.is_none() && c.is(at, "BYSCORE") {
                kind = Some(Kind::Score);
            } else {
                return Err(Fail::SYNTAX);
            }
            at += 1;
        }
        let (kind, reverse) = (kind.unwrap_or(Kind::Rank), reverse.unwrap_or(false));
        check_options(kind, limit, with_scores)?;
        if kind == Kind::Rank {
            // LIMIT with the count -1 passes as no LIMIT, and then its offset says nothing.
            offset = 0;
        }
        let swapped = reverse && kind != Kind::Rank;
        let (min, max) = if swapped { (key + 2, key + 1) } else { (key + 1, key + 2) };
        let range = Range::parse(kind, c, min, max)?;
        Ok(Query { range, reverse, with_scores, offset, limit })
    }

    /// The ranks of the result, `start..end`, ascending.
    fn ranks(&self, zset: &Zset) -> (usize, usize) {
        let (start, end) = self.range.ranks(zset, self.reverse);
        let found = end - start;
        // A negative offset skips everything, a negative limit is none.
        let skipped = usize::try_from(self.offset).unwrap_or(found).min(found);
        let taken = usize::try_from(self.limit).unwrap_or(usize::MAX).min(found - skipped);
        if self.reverse {
            (end - skipped - taken, end - skipped)
        } else {
            (start + skipped, start + skipped + taken)
        }
    }

    /// The members of the result in the order that was asked for.
    fn select<'z>(&self, zset: &'z Zset) -> Box<dyn Iterator<Item = &'z Ranking> + 'z> {
        let (start, end) = self.ranks(zset);
        if self.reverse {
            Box::new(zset.order().range_rev(start, end))
        } else {
            Box::new(zset.order().range(start, end))
        }
    }
}

fn check_options(kind: Kind, limit: i64, with_scores: bool) -> Outcome {
    if limit != -1 && kind == Kind::Rank {
        return Err(Fail::new(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    if with_scores && kind == Kind::Name {
        return Err(Fail::new(
            "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
        ));
    }
    Ok(())
}
