//! BITFIELD: integers of any width at any offset of a string.

use super::bits::bit_offset;
use super::call::{Call, Fail, Outcome, parse_int};
use super::table::Keys;
use super::table::Run::Service;
use super::table::commands;
use super::table::flags::{DENYOOM, FAST, READONLY, WRITE};
use super::text::Text;
use super::work;

commands! { Bitmap:
    "bitfield" -2, WRITE | DENYOOM, Keys::FIRST, Service(|c| bitfield(c, false)),
        "Reads and changes integers of any width in a string";
    "bitfield_ro" -2, READONLY | FAST, Keys::FIRST, Service(|c| bitfield(c, true)),
        "Reads integers of any width in a string";
}

/// What happens when a number does not fit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

/// An integer in a string.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    /// Width in bits: 1 to 64, or to 63 if unsigned.
    bits: u32,
    /// Position of its first bit.
    offset: u64,
}

impl Field {
    fn parse(kind: &[u8], offset: &[u8]) -> Result<Field, Fail> {
        const TYPE: Fail = Fail::new(
            "ERR Invalid bitfield type. Use something like i16 u8. \
             Note that u64 is not supported but i64 is.",
        );
        let (signed, width) = match kind {
            [b'i', width @ ..] => (true, width),
            [b'u', width @ ..] => (false, width),
            _ => return Err(TYPE),
        };
        let bits = match parse_int(width) {
            Some(bits @ 1..=63) => bits as u32,
            Some(64) if signed => 64,
            _ => return Err(TYPE),
        };
        Ok(Field { signed, bits, offset: bit_offset(offset, Some(u64::from(bits)))? })
    }

    /// Index of the byte after the last one that the field touches.
    fn end(self) -> usize {
        (self.offset + u64::from(self.bits)).div_ceil(8) as usize
    }

    /// The number; what is behind the end of the string counts as zero.
    fn get(self, bytes: &[u8]) -> i128 {
        let first = (self.offset / 8) as usize;
        // 9 bytes hold any 64 bits: shift the field to the top of 128.
        let mut window = [0u8; 16];
        let there = bytes.get(first..).unwrap_or_default();
        let len = there.len().min(9);
        window[..len].copy_from_slice(&there[..len]);
        let top = u128::from_be_bytes(window) << (self.offset % 8);
        let drop = 128 - self.bits;
        if self.signed { top.cast_signed() >> drop } else { (top >> drop).cast_signed() }
    }

    /// Writes the lowest bits of `value`; `bytes` is long enough.
    fn set(self, bytes: &mut [u8], value: i128) {
        for i in 0..u64::from(self.bits) {
            let bit = (value >> (u64::from(self.bits) - 1 - i) & 1) as u8;
            let at = self.offset + i;
            let shift = 7 - at % 8;
            let byte = &mut bytes[(at / 8) as usize];
            *byte = *byte & !(1 << shift) | bit << shift;
        }
    }

    /// The number that SET means by `number`. A negative number for an unsigned field is a very
    /// large one. For a signed field, Redis subtracts it from the field's maximum in 64 bits,
    /// which turns over for the most negative numbers: it takes these for too large as well.
    fn wanted(self, number: i64) -> i128 {
        let max = (1i128 << (self.bits - 1)) - 1;
        let turns = self.bits < 64 && max - i128::from(number) > i128::from(i64::MAX);
        if !self.signed || turns { i128::from(number.cast_unsigned()) } else { i128::from(number) }
    }

    /// Makes `value` fit; nothing when it does not and that is to fail.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i128> {
        let span = 1i128 << self.bits;
        let (min, max) = if self.signed { (-span / 2, span / 2 - 1) } else { (0, span - 1) };
        if (min..=max).contains(&value) {
            return Some(value);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(if value > max { max } else { min }),
            Overflow::Wrap => {
                let low = value.rem_euclid(span);
                Some(if low > max { low - span } else { low })
            }
        }
    }
}

struct Step {
    action: Action,
    field: Field,
    overflow: Overflow,
}

fn parse(args: &[&[u8]]) -> Result<Vec<Step>, Fail> {
    let mut steps = Vec::new();
    let (mut rest, mut overflow) = (args, Overflow::Wrap);
    while let [word, after @ ..] = rest {
        let word = word.to_ascii_uppercase();
        let number = |text: &[u8]| parse_int(text).ok_or(Fail::NOT_INTEGER);
        rest = match (word.as_slice(), after) {
            (b"GET", [kind, offset, after @ ..]) => {
                let field = Field::parse(kind, offset)?;
                steps.push(Step { action: Action::Get, field, overflow });
                after
            }
            (b"SET", [kind, offset, value, after @ ..]) => {
                let field = Field::parse(kind, offset)?;
                steps.push(Step { action: Action::Set(number(value)?), field, overflow });
                after
            }
            (b"INCRBY", [kind, offset, value, after @ ..]) => {
                let field = Field::parse(kind, offset)?;
                steps.push(Step { action: Action::Add(number(value)?), field, overflow });
                after
            }
            (b"OVERFLOW", [kind, after @ ..]) => {
                overflow = match kind.to_ascii_uppercase().as_slice() {
                    b"WRAP" => Overflow::Wrap,
                    b"SAT" => Overflow::Saturate,
                    b"FAIL" => Overflow::Fail,
                    _ => return Err(Fail::new("ERR Invalid OVERFLOW type specified")),
                };
                after
            }
            _ => return Err(Fail::SYNTAX),
        };
    }
    Ok(steps)
}

fn bitfield(c: &mut Call<'_, '_>, read_only: bool) -> Outcome {
    let key = c.args[1];
    let steps = parse(&c.args[2..])?;
    let writes = || steps.iter().filter(|step| !matches!(step.action, Action::Get));
    let Some(end) = writes().map(|step| step.field.end()).max() else {
        let bytes = c.db.read::<Text>(key)?.map_or(&[][..], Text::bytes);
        c.reply.array(steps.len());
        steps.iter().for_each(|step| c.reply.integer(step.field.get(bytes) as i64));
        return Ok(());
    };
    if read_only {
        return Err(Fail::new("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    let old = c.db.read::<Text>(key)?.map_or(0, Text::len);
    c.db.work.take(end.saturating_sub(old) / work::COPIED)?;
    let text = c.db.write_or_new::<Text>(c.ctx, key)?;
    // Room for every field first, even if none of them is written in the end.
    text.slice_mut(end - 1, 1);
    c.reply.array(steps.len());
    for Step { action, field, overflow } in &steps {
        let old = field.get(text.bytes());
        let new = match action {
            Action::Get => Some(old),
            Action::Add(number) => field.fit(old + i128::from(*number), *overflow),
            Action::Set(number) => field.fit(field.wanted(*number), *overflow),
        };
        let Some(new) = new else {
            c.reply.null();
            continue;
        };
        if new != old {
            let from = (field.offset / 8) as usize;
            let local = Field { offset: field.offset % 8, ..*field };
            local.set(text.slice_mut(from, field.end() - from), new);
        }
        c.reply.integer(if matches!(action, Action::Set(_)) { old } else { new } as i64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_got_at_every_offset_and_width() {
        for offset in 0..20 {
            for bits in 1..=64 {
                for signed in [false, true] {
                    if bits == 64 && !signed {
                        continue;
                    }
                    let field = Field { signed, bits, offset };
                    let mut bytes = vec![0xa5; 12];
                    let before = bytes.clone();
                    for value in [0, 1, -1, 0x5a5a_5a5a_5a5a_5a5a_i128] {
                        let value = field.fit(value, Overflow::Wrap).expect("wraps");
                        field.set(&mut bytes, value);
                        assert_eq!(field.get(&bytes), value, "{signed} {bits} at {offset}");
                    }
                    field.set(&mut bytes, field.get(&before));
                    assert_eq!(bytes, before, "nothing else may change");
                }
            }
        }
    }

    #[test]
    fn numbers_that_do_not_fit_wrap_saturate_or_fail() {
        let (i8, u8) = (
            Field { signed: true, bits: 8, offset: 0 },
            Field { signed: false, bits: 8, offset: 0 },
        );
        assert_eq!(i8.fit(128, Overflow::Wrap), Some(-128));
        assert_eq!(i8.fit(128, Overflow::Saturate), Some(127));
        assert_eq!(i8.fit(-129, Overflow::Saturate), Some(-128));
        assert_eq!(i8.fit(128, Overflow::Fail), None);
        assert_eq!(u8.fit(-1, Overflow::Wrap), Some(255));
        assert_eq!(u8.fit(-1, Overflow::Saturate), Some(0));
        assert_eq!(u8.fit(256, Overflow::Wrap), Some(0));
    }

    #[test]
    fn the_most_negative_numbers_saturate_upwards_as_in_redis() {
        let i8 = Field { signed: true, bits: 8, offset: 0 };
        let saturated = |number| i8.fit(i8.wanted(number), Overflow::Saturate);
        assert_eq!(saturated(i64::MIN), Some(127));
        assert_eq!(saturated(i64::MIN + 127), Some(127));
        assert_eq!(saturated(i64::MIN + 128), Some(-128));
        assert_eq!(i8.fit(i8.wanted(i64::MIN + 3), Overflow::Wrap), Some(3));
        let i64 = Field { bits: 64, ..i8 };
        assert_eq!(i64.fit(i64.wanted(i64::MIN), Overflow::Saturate), Some(i64::MIN.into()));
    }

    #[test]
    fn a_field_behind_the_end_is_zero() {
        assert_eq!(Field { signed: true, bits: 64, offset: 1000 }.get(b"abc"), 0);
        assert_eq!(Field { signed: false, bits: 16, offset: 16 }.get(b"abc"), 0x6300);
    }
}
