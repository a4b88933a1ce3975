//! Union, intersection and difference of sorted sets, in which plain sets take part with a score
//! of 1 for each member.
//!
//! Scores are summed up in the order of the inputs' sizes, as Redis does, since the sum of
//! floating-point numbers depends on the order.

use std::collections::BTreeMap;

use super::super::call::{Call, Fail, Outcome};
use super::super::choice::at_least;
use super::super::db::{Db, Expiry};
use super::super::decimal::parse_f64;
use super::super::types::ranked::order;
use super::super::types::{Blob, Set, Zset};
use super::super::value::Value;
use super::super::work;
use super::Shape;

/// What is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Union,
    Inter,
    Diff,
}

/// How the scores of one member are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn join(self, a: f64, b: f64) -> f64 {
        match self {
            // Infinity and minus infinity make zero.
            Aggregate::Sum => not_nan(a + b),
            Aggregate::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Aggregate::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }
}

fn not_nan(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// An input.
#[derive(Clone, Copy)]
struct Source<'d> {
    members: Members<'d>,
    weight: f64,
}

#[derive(Clone, Copy)]
enum Members<'d> {
    None,
    Set(&'d Set),
    Zset(&'d Zset),
}

impl<'d> Source<'d> {
    fn open(db: &'d Db, key: &[u8]) -> Result<Source<'d>, Fail> {
        let members = match db.entry(key).map(|entry| &entry.value) {
            None => Members::None,
            Some(Value::Set(set)) => Members::Set(set),
            Some(Value::Zset(zset)) => Members::Zset(zset),
            Some(_) => return Err(Fail::WRONG_TYPE),
        };
        Ok(Source { members, weight: 1.0 })
    }

    fn len(&self) -> usize {
        match self.members {
            Members::None => 0,
            Members::Set(set) => set.len(),
            Members::Zset(zset) => zset.len(),
        }
    }

    /// The weighted score of a member, which may be NaN.
    fn score(&self, member: &[u8]) -> Option<f64> {
        let score = match self.members {
            Members::None => None,
            Members::Set(set) => set.get(member).map(|()| 1.0),
            Members::Zset(zset) => zset.score(member),
        };
        score.map(|score| score * self.weight)
    }

    /// Hands over members with weighted scores until `each` wants no more.
    fn all(&self, mut each: impl FnMut(&'d [u8], f64) -> bool) {
        let weight = self.weight;
        match self.members {
            Members::None => {}
            Members::Set(set) => {
                set.iter().all(|(member, ())| each(Blob::as_bytes(member), not_nan(weight)));
            }
            Members::Zset(zset) => {
                let scores = zset.scores().iter();
                scores.into_iter().all(|(member, score)| each(member, not_nan(score.0 * weight)));
            }
        }
    }
}

/// A command with its arguments.
struct Query<'d> {
    op: Op,
    sources: Vec<Source<'d>>,
    aggregate: Aggregate,
    with_scores: bool,
    /// Zero: none.
    limit: usize,
}

/// What a command offers beside its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Answer,
    Store,
    Count,
}

impl Use {
    /// The argument that says how many keys follow it.
    fn first(self) -> usize {
        if self == Use::Store { 2 } else { 1 }
    }

    /// The keys.
    fn keys<'a>(self, c: &Call<'a, '_>, name: &str) -> Result<&'a [&'a [u8]], Fail> {
        let count = c.int(self.first())?;
        if count < 1 {
            let text = format!("ERR at least 1 input key is needed for '{name}' command");
            return Err(Fail(text.into()));
        }
        let keys = usize::try_from(count).ok().and_then(|n| c.args[self.first() + 1..].get(..n));
        keys.ok_or(Fail::SYNTAX)
    }
}

fn open<'d>(db: &'d Db, keys: &[&[u8]]) -> Result<Vec<Source<'d>>, Fail> {
    keys.iter().map(|key| Source::open(db, key)).collect()
}

/// `ZUNION numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]`
pub fn zunion(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Op::Union, "zunion")
}

/// `ZINTER numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]`
pub fn zinter(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Op::Inter, "zinter")
}

/// `ZDIFF numkeys key [key ...] [WITHSCORES]`
pub fn zdiff(c: &mut Call<'_, '_>) -> Outcome {
    answer(c, Op::Diff, "zdiff")
}

/// `ZUNIONSTORE destination numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX]`
pub fn zunionstore(c: &mut Call<'_, '_>) -> Outcome {
    store(c, Op::Union, "zunionstore")
}

/// `ZINTERSTORE destination numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM|MIN|MAX]`
pub fn zinterstore(c: &mut Call<'_, '_>) -> Outcome {
    store(c, Op::Inter, "zinterstore")
}

/// `ZDIFFSTORE destination numkeys key [key ...]`
pub fn zdiffstore(c: &mut Call<'_, '_>) -> Outcome {
    store(c, Op::Diff, "zdiffstore")
}

/// `ZINTERCARD numkeys key [key ...] [LIMIT limit]`
pub fn zintercard(c: &mut Call<'_, '_>) -> Outcome {
    let sources = open(c.db, Use::Count.keys(c, "zintercard")?)?;
    let query = Query::new(c, Op::Inter, Use::Count, sources)?;
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    let mut seen = 0;
    query.intersection(|_, _| {
        seen += 1;
        seen < limit
    });
    c.reply.length(seen);
    Ok(())
}

fn answer(c: &mut Call<'_, '_>, op: Op, name: &str) -> Outcome {
    let sources = open(c.db, Use::Answer.keys(c, name)?)?;
    let query = Query::new(c, op, Use::Answer, sources)?;
    let with_scores = query.with_scores;
    let run = query.run().into_iter();
    let mut result: Vec<(Vec<u8>, f64)> = run.map(|(m, score)| (m.to_vec(), score)).collect();
    result.sort_unstable_by(|a, b| order((a.1, &a.0), (b.1, &b.0)));
    let shape = Shape::usual(&c.reply, with_scores);
    shape.header(&mut c.reply, result.len());
    for (member, score) in result {
        shape.item(&mut c.reply, &member, score);
    }
    Ok(())
}

fn store(c: &mut Call<'_, '_>, op: Op, name: &str) -> Outcome {
    let sources = open(c.db, Use::Store.keys(c, name)?)?;
    let joined = Query::new(c, op, Use::Store, sources)?.run();
    let mut result = Zset::for_members(joined.len(), joined.keys().copied());
    for (member, score) in joined {
        result.insert(member, score);
    }
    c.reply.length(result.len());
    if result.is_empty() {
        c.db.remove(c.ctx, c.args[1]);
    } else {
        c.db.put(c.ctx, c.args[1], result.into(), Expiry::Clear)?;
    }
    Ok(())
}

impl<'d> Query<'d> {
    /// A query over opened `sources`, with the options behind its `keys` keys.
    fn new(
        c: &Call<'_, '_>,
        op: Op,
        used: Use,
        sources: Vec<Source<'d>>,
    ) -> Result<Query<'d>, Fail> {
        let behind = used.first() + 1 + sources.len();
        let aggregate = Aggregate::Sum;
        let mut query = Query { op, sources, aggregate, with_scores: false, limit: 0 };
        query.options(c, behind, used)?;
        if op != Op::Diff {
            query.sources.sort_by_key(Source::len);
        }
        c.db.work.take(query.steps())?;
        Ok(query)
    }

    /// What computing the result takes. A key may be named a million times, and counts each time,
    /// since its scores do.
    fn steps(&self) -> usize {
        // Into what is joined, and then into a sorted set, which has two orders.
        const JOINED: usize = 2 * work::INSERT;
        let first = self.sources.first().map_or(0, Source::len);
        match self.op {
            Op::Union => self.sources.iter().map(Source::len).sum::<usize>() * JOINED,
            Op::Inter | Op::Diff => {
                first.saturating_mul(JOINED + (self.sources.len() - 1) * work::LOOK_UP)
            }
        }
    }

    fn options(&mut self, c: &Call<'_, '_>, mut at: usize, used: Use) -> Outcome {
        const NO_WEIGHT: Fail = Fail::new("ERR weight value is not a float");
        let scored = self.op != Op::Diff && used != Use::Count;
        while at < c.args.len() {
            let behind = c.args.len() - at - 1;
            if scored && behind >= self.sources.len() && c.is(at, "WEIGHTS") {
                for source in &mut self.sources {
                    at += 1;
                    source.weight = parse_f64(c.args[at]).ok_or(NO_WEIGHT)?;
                }
            } else if scored && behind >= 1 && c.is(at, "AGGREGATE") {
                at += 1;
                self.aggregate = match () {
                    () if c.is(at, "SUM") => Aggregate::Sum,
                    () if c.is(at, "MIN") => Aggregate::Min,
                    () if c.is(at, "MAX") => Aggregate::Max,
                    () => return Err(Fail::SYNTAX),
                };
            } else if used == Use::Answer && c.is(at, "WITHSCORES") {
                self.with_scores = true;
            } else if used == Use::Count && behind >= 1 && c.is(at, "LIMIT") {
                at += 1;
                self.limit = at_least(c, at, 0, "ERR LIMIT can't be negative")?;
            } else {
                return Err(Fail::SYNTAX);
            }
            at += 1;
        }
        Ok(())
    }

    fn run(&self) -> BTreeMap<&'d [u8], f64> {
        let mut result = BTreeMap::new();
        match self.op {
            Op::Union => self.union(&mut result),
            Op::Inter => self.intersection(|member, score| {
                result.insert(member, score);
                true
            }),
            Op::Diff => {
                let (first, others) = self.sources.split_first().expect("at least one key");
                first.all(|member, score| {
                    if others.iter().all(|other| other.score(member).is_none()) {
                        result.insert(member, score);
                    }
                    true
                });
            }
        }
        result
    }

    fn union(&self, result: &mut BTreeMap<&'d [u8], f64>) {
        for source in &self.sources {
            source.all(|member, score| {
                let joined = result.entry(member);
                joined.and_modify(|old| *old = self.aggregate.join(*old, score)).or_insert(score);
                true
            });
        }
    }

    fn intersection(&self, mut each: impl FnMut(&'d [u8], f64) -> bool) {
        let (smallest, others) = self.sources.split_first().expect("at least one key");
        smallest.all(|member, score| {
            let joined = others.iter().try_fold(score, |joined, other| {
                Some(self.aggregate.join(joined, other.score(member)?))
            });
            joined.is_none_or(|score| each(member, score))
        });
    }
}
