//! "Random" choice and scans over collections.
//!
//! Choices are pseudo-random numbers derived from the operation's place in the total order,
//! (sequence number, index): every replica chooses the same, and who can foresee the place can
//! foresee the choice. They are spread evenly, but good for no secret.

use std::collections::BTreeSet;

use super::call::{Call, Fail, parse_int};
use super::db::Db;
use super::scan::Scan;
use super::types::Blob;
use super::types::trie::{Trie, Value};

/// A collection of up to this many elements is scanned in one go, whatever COUNT says, as Redis
/// does with those it keeps in one piece.
const SCANNED_WHOLE_MAX: usize = 128;

/// Most elements that one command chooses with repetitions. Without a bound a request of forty
/// bytes gets the largest reply that there is from a set of one element.
pub const REPEATED_MAX: usize = 1 << 16;

/// Pseudo-random numbers of one operation (SplitMix64).
#[derive(Clone, Debug)]
pub struct Choice(u64);

impl Choice {
    /// The numbers of the operation that `c` stands for.
    #[must_use]
    pub fn new(c: &Call<'_, '_>) -> Choice {
        let mut choice = Choice(c.ctx.seq.0);
        Choice(choice.number() ^ u64::from(c.ctx.index))
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "there is no number below zero");
        // The high half of the product: no division, and a bias below bound / 2^64.
        ((u128::from(self.number()) * bound as u128) >> 64) as usize
    }

    /// `count` different numbers below `bound`, ascending; all of them when `count` is larger.
    pub fn distinct(&mut self, count: usize, bound: usize) -> Vec<usize> {
        if count >= bound {
            return (0..bound).collect();
        }
        // Floyd's sampling: one number for each element of the sample.
        let mut chosen = BTreeSet::new();
        for top in bound - count..bound {
            let number = self.below(top + 1);
            if !chosen.insert(number) {
                chosen.insert(top);
            }
        }
        chosen.into_iter().collect()
    }
}

/// How many random elements were asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// So many different ones, or all there are.
    Distinct(usize),
    /// So many, repetitions allowed.
    Repeated(usize),
}

impl Wanted {
    /// Reads the count of SRANDMEMBER and its kin: negative means that repetitions are allowed.
    ///
    /// # Errors
    /// When the argument is no integer or the smallest one, or wants more than [`REPEATED_MAX`]
    /// with repetitions.
    pub fn parse(c: &Call<'_, '_>, index: usize) -> Result<Wanted, Fail> {
        let count = range_int(c, index, -i64::MAX, i64::MAX)?;
        let magnitude = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        match count < 0 {
            true if magnitude > REPEATED_MAX => Err(Fail::OUT_OF_RANGE),
            true => Ok(Wanted::Repeated(magnitude)),
            false => Ok(Wanted::Distinct(magnitude)),
        }
    }

    /// Reads the arguments `key [count [option]]` that HRANDFIELD and ZRANDMEMBER take, and
    /// whether the option was there. `None` without a count.
    ///
    /// # Errors
    /// When the count is no integer or too large for the option, or other arguments follow.
    pub fn parse_with(c: &Call<'_, '_>, option: &str) -> Result<Option<(Wanted, bool)>, Fail> {
        if c.args.len() == 2 {
            return Ok(None);
        }
        let wanted = Wanted::parse(c, 2)?;
        let with = c.args.len() > 3;
        if c.args.len() > 4 || (with && !c.is(3, option)) {
            return Err(Fail::SYNTAX);
        }
        let (Wanted::Distinct(count) | Wanted::Repeated(count)) = wanted;
        if with && count > i64::MAX as usize / 2 {
            return Err(Fail::OUT_OF_RANGE);
        }
        Ok(Some((wanted, with)))
    }

    /// How many elements that is in a collection of `len`.
    #[must_use]
    pub fn of(self, len: usize) -> usize {
        match self {
            Wanted::Distinct(count) => count.min(len),
            Wanted::Repeated(count) => count,
        }
    }

    /// Hands over the chosen elements of `trie`, until `each` wants no more.
    pub fn choose<'t, V: Value>(
        self,
        choice: &mut Choice,
        trie: &'t Trie<V>,
        mut each: impl FnMut(&'t Blob, &'t V) -> bool,
    ) {
        let mut hand = |index| {
            let (key, value) = trie.nth(index).expect("below the length");
            each(key, value)
        };
        match self {
            Wanted::Distinct(count) => {
                choice.distinct(count, trie.len()).into_iter().all(hand);
            }
            Wanted::Repeated(count) => {
                (0..count).all(|_| hand(choice.below(trie.len())));
            }
        }
    }
}

/// Argument `index` as an integer in a range that is not the usual one.
///
/// # Errors
/// [`Fail::NOT_INTEGER`], or the error that names the range.
pub fn range_int(c: &Call<'_, '_>, index: usize, min: i64, max: i64) -> Result<i64, Fail> {
    let value = c.int(index)?;
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(Fail(format!("ERR value is out of range, value must between {min} and {max}").into()))
}

/// Argument `index` as an integer of at least `min`; whatever is wrong with it, `error` says so.
///
/// # Errors
/// The given one.
pub fn at_least(
    c: &Call<'_, '_>,
    index: usize,
    min: i64,
    error: &'static str,
) -> Result<usize, Fail> {
    let value = parse_int(c.args[index]).filter(|value| *value >= min);
    let value = value.ok_or(Fail::new(error))?;
    Ok(usize::try_from(value).unwrap_or(usize::MAX))
}

/// The next cursor of a scan, and the elements.
pub type Scanned<'t, V> = (u64, Vec<(&'t Blob, &'t V)>);

/// Scans `trie` from `cursor` with the options of a command.
///
/// # Errors
/// When that takes more work than is left to the operation.
pub fn scan<'t, V: Value>(
    db: &Db,
    options: &Scan<'_>,
    trie: &'t Trie<V>,
    cursor: u64,
) -> Result<Scanned<'t, V>, Fail> {
    let count = if trie.len() <= SCANNED_WHOLE_MAX { trie.len() } else { options.count };
    db.work.take(count.min(trie.len()))?;
    let (mut found, mut failed) = (Vec::new(), Ok(()));
    let next = trie.scan(cursor, count, |key, value| {
        if failed.is_ok() {
            match options.wants(&db.work, key) {
                Ok(true) => found.push((key, value)),
                Ok(false) => {}
                Err(fail) => failed = Err(fail),
            }
        }
    });
    failed.map(|()| (next, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_numbers_are_distinct_and_spread() {
        let mut choice = Choice(1);
        let mut hits = [0u32; 20];
        for _ in 0..2000 {
            let chosen = choice.distinct(5, 20);
            assert_eq!(chosen.len(), 5);
            assert!(chosen.is_sorted_by(|a, b| a < b));
            chosen.into_iter().for_each(|number| hits[number] += 1);
        }
        assert!(hits.iter().all(|count| (400..600).contains(count)), "{hits:?}");
        assert_eq!(choice.distinct(9, 3), [0, 1, 2]);
    }
}
