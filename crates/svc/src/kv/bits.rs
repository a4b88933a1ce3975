//! Commands on the bits of strings. Bit 0 is the most significant bit of the first byte.
//!
//! BITFIELD is in `bitfield`.

use super::call::{Call, Fail, Outcome, parse_int};
use super::db::Expiry;
use super::strings::range;
use super::table::Keys;
use super::table::Run::Service;
use super::table::commands;
use super::table::flags::{DENYOOM, FAST, READONLY, WRITE};
use super::text::Text;
use super::work;

commands! { Bitmap:
    "bitcount" -2, READONLY, Keys::FIRST, Service(bitcount),
        "Counts the ones in a string or in a part of it";
    "bitop" -4, WRITE | DENYOOM, Keys::Range(2, -1, 1), Service(bitop),
        "Combines strings bit by bit and stores the result";
    "bitpos" -3, READONLY, Keys::FIRST, Service(bitpos),
        "Finds the first one or zero in a string or in a part of it";
    "getbit" 3, READONLY | FAST, Keys::FIRST, Service(getbit),
        "Returns a bit of a string";
    "setbit" 4, WRITE | DENYOOM, Keys::FIRST, Service(setbit),
        "Sets a bit of a string and returns the old one";
}

const BAD_OFFSET: Fail = Fail::new("ERR bit offset is not an integer or out of range");

/// Reads the offset of a bit. With a `width`, `#n` means n times the width.
pub(super) fn bit_offset(text: &[u8], width: Option<u64>) -> Result<u64, Fail> {
    let (digits, factor) = match (text, width) {
        ([b'#', digits @ ..], Some(width)) => (digits, width),
        _ => (text, 1),
    };
    let offset = parse_int(digits).and_then(|number| u64::try_from(number).ok());
    let offset = offset.and_then(|number| number.checked_mul(factor)).ok_or(BAD_OFFSET)?;
    // A field of 64 bits that begins here must fit as well.
    let fits = offset / 8 < (super::VALUE_BYTES_MAX - 8) as u64;
    fits.then_some(offset).ok_or(BAD_OFFSET)
}

fn getbit(c: &mut Call<'_, '_>) -> Outcome {
    let offset = bit_offset(c.args[2], None)? as usize;
    let bytes = c.db.read::<Text>(c.args[1])?.map_or(&[][..], Text::bytes);
    let bit = bytes.get(offset / 8).map_or(0, |byte| byte >> (7 - offset % 8) & 1);
    c.reply.integer(i64::from(bit));
    Ok(())
}

fn setbit(c: &mut Call<'_, '_>) -> Outcome {
    let key = c.args[1];
    let offset = bit_offset(c.args[2], None)? as usize;
    let bit = match parse_int(c.args[3]) {
        Some(bit @ (0 | 1)) => bit as u8,
        _ => return Err(Fail::new("ERR bit is not an integer or out of range")),
    };
    let (at, shift) = (offset / 8, 7 - offset % 8);
    let text = c.db.read::<Text>(key)?.map_or(&[][..], Text::bytes);
    let old = text.get(at).copied();
    c.db.work.take(at.saturating_sub(text.len()) / work::COPIED)?;
    let old_bit = old.unwrap_or(0) >> shift & 1;
    if old.is_none() || old_bit != bit {
        let byte = &mut c.db.write_or_new::<Text>(c.ctx, key)?.slice_mut(at, 1)[0];
        *byte = *byte & !(1 << shift) | bit << shift;
    }
    c.reply.integer(i64::from(old_bit));
    Ok(())
}

/// A part of a string in bits: whole bytes, and how many bits at either end do not belong.
struct Part<'a> {
    bytes: &'a [u8],
    /// Index of the first byte.
    start: usize,
    /// The bits of the first byte that belong.
    first: u8,
    /// The bits of the last byte that belong.
    last: u8,
}

impl<'a> Part<'a> {
    /// The bits or bytes between two indices, both inclusive; none when there are none.
    fn new(bytes: &'a [u8], start: i64, end: i64, in_bits: bool) -> Option<Part<'a>> {
        let unit = if in_bits { 8 } else { 1 };
        let range = range(bytes.len() * unit, start, end)?;
        let (start, end) = (*range.start(), *range.end());
        let (first, last) =
            if in_bits { (0xff >> (start % 8), !(0x7f >> (end % 8))) } else { (0xff, 0xff) };
        let start = start / unit;
        Some(Part { bytes: &bytes[start..=end / unit], start, first, last })
    }

    /// The byte at `index` of the part, bits that do not belong replaced by those of `filler`.
    fn byte(&self, index: usize, filler: u8) -> u8 {
        let mut mask = 0xff;
        if index == 0 {
            mask &= self.first;
        }
        if index + 1 == self.bytes.len() {
            mask &= self.last;
        }
        self.bytes[index] & mask | filler & !mask
    }

    fn ones(&self) -> u64 {
        let (words, tail) = self.bytes.as_chunks::<8>();
        let whole: u64 = words.iter().map(|w| u64::from(u64::from_le_bytes(*w).count_ones())).sum();
        let rest: u64 = tail.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let edges = [0, self.bytes.len() - 1];
        let edges = if edges[1] == 0 { &edges[..1] } else { &edges[..] };
        let outside = edges
            .iter()
            .map(|i| u64::from(self.bytes[*i].count_ones() - self.byte(*i, 0).count_ones()));
        whole + rest - outside.sum::<u64>()
    }

    /// Position of the first bit that is `bit`, counted from the beginning of the string.
    fn find(&self, bit: u8) -> Option<usize> {
        let boring = if bit == 1 { 0x00 } else { 0xff };
        let last = self.bytes.len() - 1;
        let interesting = |index: usize| self.byte(index, boring) != boring;
        let index = if interesting(0) {
            0
        } else {
            let middle = self.bytes[..last].iter().skip(1).position(|byte| *byte != boring);
            middle.map(|index| index + 1).or_else(|| interesting(last).then_some(last))?
        };
        let found = self.byte(index, boring) ^ boring;
        Some((self.start + index) * 8 + found.leading_zeros() as usize)
    }
}

fn unit_is_bit(word: &[u8]) -> Result<bool, Fail> {
    if word.eq_ignore_ascii_case(b"BIT") {
        Ok(true)
    } else if word.eq_ignore_ascii_case(b"BYTE") {
        Ok(false)
    } else {
        Err(Fail::SYNTAX)
    }
}

fn bitcount(c: &mut Call<'_, '_>) -> Outcome {
    let Some(text) = c.db.read::<Text>(c.args[1])? else {
        c.reply.integer(0);
        return Ok(());
    };
    let int = |text: &[u8]| parse_int(text).ok_or(Fail::NOT_INTEGER);
    let part = match c.args[2..] {
        [] => Part::new(text.bytes(), 0, -1, false),
        [start, end] => Part::new(text.bytes(), int(start)?, int(end)?, false),
        [start, end, unit] => {
            let (start, end) = (int(start)?, int(end)?);
            // An empty range is answered before the unit is looked at.
            if start < 0 && end < 0 && start > end {
                None
            } else {
                Part::new(text.bytes(), start, end, unit_is_bit(unit)?)
            }
        }
        _ => return Err(Fail::SYNTAX),
    };
    c.db.work.take(part.as_ref().map_or(0, |part| part.bytes.len()) / work::COPIED)?;
    c.reply.integer(part.map_or(0, |part| part.ones() as i64));
    Ok(())
}

fn bitpos(c: &mut Call<'_, '_>) -> Outcome {
    let bit = match c.int(2)? {
        bit @ (0 | 1) => bit as u8,
        _ => return Err(Fail::new("ERR The bit argument must be 1 or 0.")),
    };
    let Some(text) = c.db.read::<Text>(c.args[1])? else {
        c.reply.integer(if bit == 1 { -1 } else { 0 });
        return Ok(());
    };
    let int = |text: &[u8]| parse_int(text).ok_or(Fail::NOT_INTEGER);
    let (start, end, in_bits) = match c.args[3..] {
        [] => (0, None, false),
        [start] => (int(start)?, None, false),
        [start, end] => (int(start)?, Some(int(end)?), false),
        [start, end, unit] => {
            let start = int(start)?;
            let in_bits = unit_is_bit(unit)?;
            (start, Some(int(end)?), in_bits)
        }
        _ => return Err(Fail::SYNTAX),
    };
    let part = whole_part(text.bytes(), start, end.unwrap_or(-1), in_bits);
    let found = part.map(|part| (part.find(bit), part.start, part.start + part.bytes.len()));
    if let Some((position, start, end)) = found {
        let looked_at = position.map_or(end, |position| position / 8) - start;
        c.db.work.count(looked_at / work::LOOKED_AT)?;
    }
    let position = match found {
        Some((Some(position), ..)) => position as i64,
        // Behind the string everything is zero, unless the end was given.
        Some((None, _, len)) if bit == 0 && end.is_none() => len as i64 * 8,
        _ => -1,
    };
    c.reply.integer(position);
    Ok(())
}

/// As [`Part::new`], but without the rule that two negative indices the wrong way round are an
/// empty range even where both mean the first byte.
fn whole_part(bytes: &[u8], start: i64, end: i64, in_bits: bool) -> Option<Part<'_>> {
    let len = (bytes.len() * if in_bits { 8 } else { 1 }) as i64;
    let from_end = |index: i64| if index < 0 { (len + index).max(0) } else { index };
    Part::new(bytes, from_end(start), from_end(end), in_bits)
}

fn bitop(c: &mut Call<'_, '_>) -> Outcome {
    type Combine = fn(u8, u8) -> u8;
    let (key, sources) = (c.args[2], &c.args[3..]);
    let combine: Option<Combine> = match c.args[1].to_ascii_uppercase().as_slice() {
        b"AND" => Some(|a, b| a & b),
        b"OR" => Some(|a, b| a | b),
        b"XOR" => Some(|a, b| a ^ b),
        b"NOT" => None,
        _ => return Err(Fail::SYNTAX),
    };
    if combine.is_none() && sources.len() != 1 {
        return Err(Fail::new("ERR BITOP NOT must be called with a single source key."));
    }
    let mut texts: Vec<&[u8]> = Vec::with_capacity(sources.len());
    for source in sources {
        texts.push(c.db.read::<Text>(source)?.map_or(&[][..], Text::bytes));
    }
    // One operation may name a long string a million times.
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    c.db.work.take(bytes / work::COMBINED)?;
    let len = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    let mut result = texts[0].to_vec();
    result.resize(len, 0);
    match combine {
        None => result.iter_mut().for_each(|byte| *byte = !*byte),
        Some(combine) => {
            // No longer than each is: a short one may be named a million times.
            for text in &texts[1..] {
                result.iter_mut().zip(*text).for_each(|(a, b)| *a = combine(*a, *b));
            }
            // Beyond its end each is zeros, which change nothing but under AND.
            let shortest = texts.iter().map(|text| text.len()).min().unwrap_or(0);
            if c.args[1].eq_ignore_ascii_case(b"AND") {
                result[shortest..].fill(0);
            }
        }
    }
    if len == 0 {
        c.db.remove(c.ctx, key);
    } else {
        c.db.put(c.ctx, key, Text::from(result).into(), Expiry::Clear)?;
    }
    c.reply.length(len);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dumb twin looks at one bit after the other.
    #[test]
    fn counts_and_positions_equal_bit_by_bit_ones() {
        let bytes = [0xff, 0x00, 0x81, 0x7e, 0xff, 0xf0, 0x0f, 0x00, 0xff, 0xff, 0x01];
        let bit = |at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
        for (in_bits, unit) in [(true, 1), (false, 8)] {
            let len = bytes.len() * 8 / unit;
            for start in 0..len {
                for end in start..len {
                    let part = Part::new(&bytes, start as i64, end as i64, in_bits).expect("some");
                    let range = start * unit..(end + 1) * unit;
                    let ones = range.clone().filter(|at| bit(*at) == 1).count() as u64;
                    assert_eq!(part.ones(), ones, "{start} {end}");
                    for wanted in [0, 1] {
                        let position = range.clone().find(|at| bit(*at) == wanted);
                        assert_eq!(part.find(wanted), position, "{start} {end} {wanted}");
                    }
                }
            }
        }
    }

    #[test]
    fn offsets_are_bounded() {
        assert_eq!(bit_offset(b"7", None), Ok(7));
        assert_eq!(bit_offset(b"#7", Some(8)), Ok(56));
        for bad in ["#7", "-1", "x", "99999999999", "9223372036854775807"] {
            assert_eq!(bit_offset(bad.as_bytes(), None), Err(BAD_OFFSET), "{bad}");
        }
        assert_eq!(bit_offset(b"#9223372036854775807", Some(63)), Err(BAD_OFFSET));
    }
}
