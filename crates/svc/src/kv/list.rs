//! The commands on lists, without those that block.

use std::cell::Cell;

use super::call::{Call, Fail, Outcome, parse_int};
use super::choice::at_least;
use super::table::flags::{DENYOOM, FAST, MOVABLEKEYS, READONLY, WRITE};
use super::table::{CommandSpec, Flags, Group, Keys, Run};
use super::types::{Blob, List};
use super::work;

/// The commands of this type.
pub const COMMANDS: &[CommandSpec] = &[
    row("lpush", -3, WRITE | DENYOOM | FAST, "Puts elements in front of a list", lpush),
    row("rpush", -3, WRITE | DENYOOM | FAST, "Appends elements to a list", rpush),
    row(
        "lpushx",
        -3,
        WRITE | DENYOOM | FAST,
        "Puts elements in front of a list that exists",
        lpushx,
    ),
    row("rpushx", -3, WRITE | DENYOOM | FAST, "Appends elements to a list that exists", rpushx),
    row("lpop", -2, WRITE | FAST, "Removes and returns elements at the head", lpop),
    row("rpop", -2, WRITE | FAST, "Removes and returns elements at the tail", rpop),
    row("llen", 2, READONLY | FAST, "Returns the length of a list", llen),
    row("lrange", 4, READONLY, "Returns a range of elements", lrange),
    row("lindex", 3, READONLY, "Returns the element at an index", lindex),
    row("lset", 4, WRITE | DENYOOM, "Replaces the element at an index", lset),
    row("linsert", 5, WRITE | DENYOOM, "Inserts before or after an element", linsert),
    row("lrem", 4, WRITE, "Removes elements that equal a value", lrem),
    row("ltrim", 4, WRITE, "Keeps a range of elements", ltrim),
    row("lpos", -3, READONLY, "Returns the indexes of an element", lpos),
    CommandSpec {
        keys: Keys::Range(1, 2, 1),
        ..row(
            "rpoplpush",
            3,
            WRITE | DENYOOM,
            "Moves the tail of a list to the head of one",
            rpoplpush,
        )
    },
    CommandSpec {
        keys: Keys::Range(1, 2, 1),
        ..row("lmove", 5, WRITE | DENYOOM, "Moves an element from one list to another", lmove)
    },
    CommandSpec {
        keys: Keys::Counted { at: 1, store: false },
        ..row(
            "lmpop",
            -4,
            WRITE | MOVABLEKEYS,
            "Removes elements of the first list that has any",
            lmpop,
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
    let (keys, group) = (Keys::Range(1, 1, 1), Group::List);
    CommandSpec { name, arity, flags, keys, group, summary, run: Run::Service(handler) }
}

/// One of the ends of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Head,
    Tail,
}

impl End {
    fn parse(c: &Call<'_, '_>, index: usize) -> Result<End, Fail> {
        match () {
            () if c.is(index, "LEFT") => Ok(End::Head),
            () if c.is(index, "RIGHT") => Ok(End::Tail),
            () => Err(Fail::SYNTAX),
        }
    }

    fn push(self, list: &mut List, item: Blob) {
        match self {
            End::Head => list.push_front(item),
            End::Tail => list.push_back(item),
        }
    }

    fn pop(self, list: &mut List) -> Option<Blob> {
        match self {
            End::Head => list.pop_front(),
            End::Tail => list.pop_back(),
        }
    }
}

/// `LPUSH key element [element ...]`
pub fn lpush(c: &mut Call<'_, '_>) -> Outcome {
    push(c, End::Head)
}

/// `RPUSH key element [element ...]`
pub fn rpush(c: &mut Call<'_, '_>) -> Outcome {
    push(c, End::Tail)
}

/// `LPUSHX key element [element ...]`
pub fn lpushx(c: &mut Call<'_, '_>) -> Outcome {
    push_existing(c, End::Head)
}

/// `RPUSHX key element [element ...]`
pub fn rpushx(c: &mut Call<'_, '_>) -> Outcome {
    push_existing(c, End::Tail)
}

fn push(c: &mut Call<'_, '_>, end: End) -> Outcome {
    let list = c.db.write_or_new::<List>(c.ctx, c.args[1])?;
    c.args[2..].iter().for_each(|item| end.push(list, Blob::new(item)));
    c.reply.length(list.len());
    Ok(())
}

fn push_existing(c: &mut Call<'_, '_>, end: End) -> Outcome {
    if c.db.read::<List>(c.args[1])?.is_none() {
        c.reply.integer(0);
        return Ok(());
    }
    push(c, end)
}

/// `LPOP key [count]`
pub fn lpop(c: &mut Call<'_, '_>) -> Outcome {
    pop(c, End::Head, "lpop")
}

/// `RPOP key [count]`
pub fn rpop(c: &mut Call<'_, '_>) -> Outcome {
    pop(c, End::Tail, "rpop")
}

fn pop(c: &mut Call<'_, '_>, end: End, name: &str) -> Outcome {
    if c.args.len() > 3 {
        return Err(Fail::arity(name));
    }
    let counted = c.args.len() == 3;
    let count = if counted { c.positive(2)? } else { 1 };
    match c.db.read::<List>(c.args[1])? {
        None if counted => c.reply.null_array(),
        None => c.reply.null(),
        Some(_) if count == 0 => c.reply.array(0),
        Some(list) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(list.len());
            if counted {
                c.reply.array(count);
            }
            pop_replying(c, c.args[1], end, count)?;
        }
    }
    Ok(())
}

/// Takes `count` elements away and replies them as they come.
fn pop_replying(c: &mut Call<'_, '_>, key: &[u8], end: End, count: usize) -> Outcome {
    if let Some(list) = c.db.write::<List>(c.ctx, key)? {
        for item in (0..count).map_while(|_| end.pop(list)) {
            c.reply.bulk(&item);
        }
        c.db.drop_if_empty(c.ctx, key);
    }
    Ok(())
}

/// LLEN key
pub fn llen(c: &mut Call<'_, '_>) -> Outcome {
    let len = c.db.read::<List>(c.args[1])?.map_or(0, List::len);
    c.reply.length(len);
    Ok(())
}

/// LRANGE key start stop
pub fn lrange(c: &mut Call<'_, '_>) -> Outcome {
    let (start, stop) = (c.int(2)?, c.int(3)?);
    let list = c.db.read::<List>(c.args[1])?;
    let (start, end) = clamp(start, stop, list.map_or(0, List::len));
    c.reply.array(end - start);
    let items = list.into_iter().flat_map(|list| list.iter_from(start));
    c.reply.bulks(items.take(end - start).map(Blob::as_bytes));
    Ok(())
}

/// LINDEX key index
pub fn lindex(c: &mut Call<'_, '_>) -> Outcome {
    let Some(list) = c.db.read::<List>(c.args[1])? else {
        c.reply.null();
        return Ok(());
    };
    let index = position(c.int(2)?, list.len());
    c.reply.bulk_or_null(index.and_then(|index| list.get(index)).map(Blob::as_bytes));
    Ok(())
}

/// LSET key index element
pub fn lset(c: &mut Call<'_, '_>) -> Outcome {
    let len = c.db.read::<List>(c.args[1])?.ok_or(Fail::NO_SUCH_KEY)?.len();
    let index = position(c.int(2)?, len).ok_or(Fail::INDEX_OUT_OF_RANGE)?;
    c.db.room(c.args[1], 0)?;
    if let Some(list) = c.db.write::<List>(c.ctx, c.args[1])? {
        list.set(index, Blob::new(c.args[3]));
    }
    c.reply.ok();
    Ok(())
}

/// LINSERT key BEFORE|AFTER pivot element
pub fn linsert(c: &mut Call<'_, '_>) -> Outcome {
    let after = c.is(2, "AFTER");
    if !after && !c.is(2, "BEFORE") {
        return Err(Fail::SYNTAX);
    }
    let Some(list) = c.db.read::<List>(c.args[1])? else {
        c.reply.integer(0);
        return Ok(());
    };
    let search = Comparison::with(c.args[3]);
    let pivot = list.iter().position(|item| search.equals(item));
    c.db.work.count(search.steps())?;
    let Some(pivot) = pivot else {
        c.reply.integer(-1);
        return Ok(());
    };
    c.db.room(c.args[1], 0)?;
    if let Some(list) = c.db.write::<List>(c.ctx, c.args[1])? {
        list.insert(pivot + usize::from(after), Blob::new(c.args[4]));
        c.reply.length(list.len());
    }
    Ok(())
}

/// LREM key count element
pub fn lrem(c: &mut Call<'_, '_>) -> Outcome {
    let (key, element) = (c.args[1], c.args[3]);
    let count = c.int(2)?;
    let most = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let most = if most == 0 { usize::MAX } else { most };
    let Some(list) = c.db.read::<List>(key)? else {
        c.reply.integer(0);
        return Ok(());
    };
    let search = Comparison::with(element);
    let hits = list.iter().enumerate().filter(|(_, item)| search.equals(item));
    let mut hits: Vec<usize> = hits.map(|(index, _)| index).collect();
    c.db.work.count(search.steps())?;
    if count < 0 {
        hits.drain(..hits.len().saturating_sub(most));
    } else {
        hits.truncate(most);
    }
    if !hits.is_empty()
        && let Some(list) = c.db.write::<List>(c.ctx, key)?
    {
        // From behind, so that the indexes before stay right.
        hits.iter().rev().for_each(|index| drop(list.remove(*index)));
        c.db.drop_if_empty(c.ctx, key);
    }
    c.reply.length(hits.len());
    Ok(())
}

/// LTRIM key start stop
pub fn ltrim(c: &mut Call<'_, '_>) -> Outcome {
    let (start, stop) = (c.int(2)?, c.int(3)?);
    if let Some(len) = c.db.read::<List>(c.args[1])?.map(List::len) {
        let (start, end) = clamp(start, stop, len);
        if end - start < len
            && let Some(list) = c.db.write::<List>(c.ctx, c.args[1])?
        {
            list.keep(start, end - start);
            c.db.drop_if_empty(c.ctx, c.args[1]);
        }
    }
    c.reply.ok();
    Ok(())
}

/// RPOPLPUSH source destination
pub fn rpoplpush(c: &mut Call<'_, '_>) -> Outcome {
    shift(c, End::Tail, End::Head)
}

/// LMOVE source destination LEFT|RIGHT LEFT|RIGHT
pub fn lmove(c: &mut Call<'_, '_>) -> Outcome {
    let (from, to) = (End::parse(c, 3)?, End::parse(c, 4)?);
    shift(c, from, to)
}

fn shift(c: &mut Call<'_, '_>, from: End, to: End) -> Outcome {
    let (source, destination) = (c.args[1], c.args[2]);
    if c.db.read::<List>(source)?.is_none() {
        c.reply.null();
        return Ok(());
    }
    c.db.read::<List>(destination)?;
    c.db.room(destination, 0)?;
    let item = c.db.write::<List>(c.ctx, source)?.and_then(|list| from.pop(list));
    let item = item.expect("a list in the key space is not empty");
    c.reply.bulk(&item);
    // The source may be the destination, and be empty for a moment: first push, then look.
    to.push(c.db.write_or_new::<List>(c.ctx, destination)?, item);
    c.db.drop_if_empty(c.ctx, source);
    Ok(())
}

/// `LMPOP numkeys key [key ...] LEFT|RIGHT [COUNT count]`
pub fn lmpop(c: &mut Call<'_, '_>) -> Outcome {
    let (keys, option) = counted_keys(c, 1)?;
    let end = End::parse(c, option)?;
    let count = pop_count(c, option + 1)?;
    for key in keys {
        let Some(list) = c.db.read::<List>(key)? else { continue };
        let count = count.min(list.len());
        c.reply.array(2);
        c.reply.bulk(key);
        c.reply.array(count);
        return pop_replying(c, key, end, count);
    }
    c.reply.null_array();
    Ok(())
}

/// The keys that are counted by argument `at`, and the index of the argument behind them, which
/// must be there. What LMPOP and ZMPOP begin with.
pub(super) fn counted_keys<'a>(
    c: &Call<'a, '_>,
    at: usize,
) -> Result<(&'a [&'a [u8]], usize), Fail> {
    let count = at_least(c, at, 1, "ERR numkeys should be greater than 0")?;
    let behind = count.saturating_add(at + 1);
    if behind >= c.args.len() {
        return Err(Fail::SYNTAX);
    }
    Ok((&c.args[at + 1..behind], behind))
}

/// The option COUNT of LMPOP and ZMPOP, which begins at argument `at` if it is there; 1 if not.
pub(super) fn pop_count(c: &Call<'_, '_>, at: usize) -> Result<usize, Fail> {
    if at == c.args.len() {
        return Ok(1);
    }
    if !c.is(at, "COUNT") || at + 1 == c.args.len() {
        return Err(Fail::SYNTAX);
    }
    let count = at_least(c, at + 1, 1, "ERR count should be greater than 0")?;
    if c.args.len() > at + 2 { Err(Fail::SYNTAX) } else { Ok(count) }
}

/// Compares elements with one that is looked for, and counts what that takes.
struct Comparison<'a> {
    element: &'a [u8],
    steps: Cell<usize>,
}

impl Comparison<'_> {
    fn with(element: &[u8]) -> Comparison<'_> {
        Comparison { element, steps: Cell::new(0) }
    }

    fn equals(&self, item: &Blob) -> bool {
        // Only what is equally long is read.
        let bytes = if item.len() == self.element.len() { item.len() } else { 0 };
        self.steps.set(self.steps.get() + 1 + bytes / work::COPIED);
        **item == *self.element
    }

    fn steps(&self) -> usize {
        self.steps.get()
    }
}

/// The options of LPOS.
struct Search {
    rank: i64,
    /// Number of matches wanted, 0 for all; nothing when one index is wanted, and not an array.
    count: Option<usize>,
    compared_max: usize,
}

/// `LPOS key element [RANK rank] [COUNT matches] [MAXLEN comparisons]`
pub fn lpos(c: &mut Call<'_, '_>) -> Outcome {
    let search = Search::parse(c)?;
    let hits = match c.db.read::<List>(c.args[1])? {
        Some(list) => {
            let comparison = Comparison::with(c.args[2]);
            let hits = search.run(list, &comparison);
            c.db.work.count(comparison.steps())?;
            hits
        }
        None => Vec::new(),
    };
    match (search.count, hits.first()) {
        (None, None) => c.reply.null(),
        (None, Some(hit)) => c.reply.length(*hit),
        (Some(_), _) => {
            c.reply.array(hits.len());
            hits.iter().for_each(|hit| c.reply.length(*hit));
        }
    }
    Ok(())
}

impl Search {
    fn parse(c: &Call<'_, '_>) -> Result<Search, Fail> {
        let mut search = Search { rank: 1, count: None, compared_max: usize::MAX };
        for at in (3..c.args.len()).step_by(2) {
            if at + 1 == c.args.len() {
                return Err(Fail::SYNTAX);
            }
            if c.is(at, "RANK") {
                search.rank = parse_int(c.args[at + 1]).ok_or(Fail::NOT_INTEGER)?;
                if search.rank == 0 {
                    return Err(RANK_ZERO);
                }
            } else if c.is(at, "COUNT") {
                search.count = Some(at_least(c, at + 1, 0, "ERR COUNT can't be negative")?);
            } else if c.is(at, "MAXLEN") {
                let most = at_least(c, at + 1, 0, "ERR MAXLEN can't be negative")?;
                search.compared_max = if most == 0 { usize::MAX } else { most };
            } else {
                return Err(Fail::SYNTAX);
            }
        }
        Ok(search)
    }

    fn run(&self, list: &List, comparison: &Comparison<'_>) -> Vec<usize> {
        let wanted = match self.count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        };
        // The smallest rank has no opposite: Redis takes every match from the tail then.
        let skipped = match self.rank.checked_abs() {
            Some(rank) => usize::try_from(rank - 1).unwrap_or(usize::MAX),
            None => 0,
        };
        if self.rank > 0 {
            let compared = list.iter().enumerate().take(self.compared_max);
            let hits = compared.filter(|(_, item)| comparison.equals(item)).map(|(index, _)| index);
            hits.skip(skipped).take(wanted).collect()
        } else {
            let first = list.len().saturating_sub(self.compared_max);
            let compared =
                list.iter_from(first).enumerate().filter(|(_, item)| comparison.equals(item));
            let hits: Vec<usize> = compared.map(|(index, _)| first + index).collect();
            hits.into_iter().rev().skip(skipped).take(wanted).collect()
        }
    }
}

const RANK_ZERO: Fail = Fail::new(
    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
     negative to start from the end of the list",
);

/// An index that may count from the end, as a position in a sequence of `len`.
fn position(index: i64, len: usize) -> Option<usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let index = if index < 0 { len.checked_add(index)? } else { index };
    usize::try_from(index).ok().filter(|_| index < len)
}

/// A range of indexes that may count from the end, the last one included, as positions
/// `start..end` in a sequence of `len`.
pub(super) fn clamp(start: i64, stop: i64, len: usize) -> (usize, usize) {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let start = if start < 0 { len.saturating_add(start).max(0) } else { start };
    let stop = if stop < 0 { len.saturating_add(stop) } else { stop };
    if start > stop || start >= len {
        return (0, 0);
    }
    let end = stop.min(len - 1) + 1;
    (usize::try_from(start).unwrap_or(0), usize::try_from(end).unwrap_or(0))
}
