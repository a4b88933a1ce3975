//! Numbers with a fraction, computed with integers alone so that every replica agrees.
//!
//! [`Extended`] is the 80-bit extended precision number of x87 (64 bits of significand, ties to
//! even), in which Redis on x86-64 computes INCRBYFLOAT and HINCRBYFLOAT, and its text is that of
//! `%.17Lf` with trailing zeroes cut. Parsing, addition and formatting are exact before their one
//! rounding. So results equal those of Redis on x86-64 to the last digit, artefacts such as
//! `3000.1` becoming `3000.10000000000000009` included; Redis on machines whose `long double` is
//! another type shows other digits there. Nothing here asks what machine it runs on.
//!
//! [`parse_f64`] and [`format_f64`] read and show scores, as `strtod` and `%.17g` do.
//!
//! Depends on nothing.

use std::cmp::Ordering;

/// Longest text that Redis reads as an extended number, exclusive.
const TEXT_BYTES_MAX: usize = 5 * 1024;

/// Longest number that is added up in hardly any time, in bytes.
const SHORT_MAX: usize = 64;

/// Steps of reading any other.
const LONG_STEPS: usize = 8192;

/// Hexadecimal digits that decide how a number is rounded, with whether any behind them is not
/// zero: twice as many as any format has.
const HEX_MAX: usize = 40;

/// A binary format: bits of significand, least exponent of a last place, greatest exponent.
#[derive(Clone, Copy)]
struct Format {
    bits: i64,
    least: i64,
    greatest: i64,
}

const EXTENDED: Format = Format { bits: 64, least: -16_445, greatest: 16_383 };
const DOUBLE: Format = Format { bits: 53, least: -1074, greatest: 1023 };

/// A number of extended precision: zero, `mantissa * 2^exponent`, or infinite. Never NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    negative: bool,
    infinite: bool,
    mantissa: u64,
    exponent: i64,
}

impl Extended {
    /// Nought.
    pub const ZERO: Extended =
        Extended { negative: false, infinite: false, mantissa: 0, exponent: 0 };

    /// Reads a number as Redis does: what `strtold` takes as a whole, hexadecimal and `inf`
    /// included; but no NaN, no leading blank, nothing that overflows or underflows to zero.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Extended> {
        if text.len() >= TEXT_BYTES_MAX {
            return None;
        }
        let number = whole(text)?;
        match number.body {
            Body::Nan => None,
            Body::Infinite => Some(Extended::signed(number.negative, None)),
            _ => {
                let rounded = number.round(EXTENDED)?;
                let lost = rounded.0 == 0 && !number.is_zero();
                (!lost).then(|| Extended::signed(number.negative, Some(rounded)))
            }
        }
    }

    /// What reading `text` takes of an operation's work. The numbers that are added up are short
    /// and have no exponent; any other may be computed with thousands of digits.
    #[must_use]
    pub fn steps(text: &[u8]) -> usize {
        let simple = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'-');
        let is_short = text.len() <= SHORT_MAX && text.iter().all(simple);
        if is_short { 0 } else { LONG_STEPS }
    }

    /// The number as an extended one, exactly.
    #[must_use]
    pub fn from_i64(value: i64) -> Extended {
        Extended::signed(value < 0, Some((value.unsigned_abs(), 0)))
    }

    /// Whether it is not infinite.
    #[must_use]
    pub fn is_finite(self) -> bool {
        !self.infinite
    }

    /// The sum, rounded to the nearest; nothing if it would be infinite or NaN.
    #[must_use]
    pub fn checked_add(self, other: Extended) -> Option<Extended> {
        if self.infinite || other.infinite {
            return None;
        }
        let (a, b) = (self.normal(), other.normal());
        if a.mantissa == 0 || b.mantissa == 0 {
            return Some(if a.mantissa == 0 { other } else { self });
        }
        let (a, b) =
            if (a.exponent, a.mantissa) < (b.exponent, b.mantissa) { (b, a) } else { (a, b) };
        // 62 bits below the larger one's last place: what falls below them leaves a sticky bit,
        // and decides ties only.
        let shift = (a.exponent - b.exponent).min(127) as u32;
        let large = u128::from(a.mantissa) << 62;
        let full = u128::from(b.mantissa) << 62;
        let kept = full >> shift;
        let sticky = u128::from(kept << shift != full);
        let sum = if a.negative == b.negative {
            large + (kept | sticky)
        } else {
            // Subtracting a little more than `kept`: one less, and sticky again.
            (large - kept - sticky) | sticky
        };
        let rounded = round(sum, a.exponent - 62, EXTENDED)?;
        Some(Extended::signed(a.negative, Some(rounded)))
    }

    /// The digits, with a point only where a fraction follows, at most 17 digits of it.
    #[must_use]
    pub fn to_text(self) -> String {
        let sign = if self.negative { "-" } else { "" };
        if self.infinite {
            return format!("{sign}inf");
        }
        if self.exponent >= 0 {
            let mut whole = Natural::from_u64(self.mantissa);
            whole.shift_left(self.exponent as usize);
            let digits = whole.to_decimal();
            return if digits == "0" { digits } else { format!("{sign}{digits}") };
        }
        let scale = 10u128.pow(17);
        let scaled = u128::from(self.mantissa) * scale;
        let drop = (-self.exponent) as u32;
        let rounded = if drop >= 127 { 0 } else { shift_right_even(scaled, drop) };
        let text = format!("{}.{:017}", rounded / scale, rounded % scale);
        let text = text.trim_end_matches('0').trim_end_matches('.');
        if text == "0" { text.to_owned() } else { format!("{sign}{text}") }
    }

    fn signed(negative: bool, finite: Option<(u64, i64)>) -> Extended {
        let (mantissa, exponent) = finite.unwrap_or((0, 0));
        Extended { negative, infinite: finite.is_none(), mantissa, exponent }
    }

    /// The same number with the highest bit of the mantissa set.
    fn normal(self) -> Extended {
        let shift = if self.mantissa == 0 { 0 } else { self.mantissa.leading_zeros() };
        let (mantissa, exponent) = (self.mantissa << shift, self.exponent - i64::from(shift));
        Extended { mantissa, exponent, ..self }
    }
}

/// Reads a score: what `strtod` takes as a whole, `inf` included; but no NaN, no leading blank,
/// nothing that overflows or underflows to zero.
#[must_use]
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let number = whole(text)?;
    let value = number.to_f64();
    let lost = value == 0.0 && !number.is_zero();
    let over = value.is_infinite() && !matches!(number.body, Body::Infinite);
    (!value.is_nan() && !lost && !over).then_some(value)
}

/// Reads the bound of a range of scores. As [`parse_f64`], but blanks may lead, nothing at all
/// means zero, and what is too large is infinite.
#[must_use]
pub fn parse_bound(text: &[u8]) -> Option<f64> {
    // The C string that Redis sees here ends at the first zero byte.
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let blanks = text.iter().take_while(|b| matches!(b, b' ' | 9..=13)).count();
    let number = whole(&text[blanks..])?;
    Some(number.to_f64()).filter(|value| !value.is_nan())
}

/// Shows a score as `%.17g` does.
///
/// # Panics
/// When the score is NaN, which no score is.
#[must_use]
pub fn format_f64(value: f64) -> String {
    assert!(!value.is_nan(), "a score is never NaN");
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if value.abs() < 1e17 && value == value.trunc() && (value != 0.0 || value.is_sign_positive()) {
        return itoa::Buffer::new().format(value as i64).to_owned();
    }
    let text = format!("{value:.16e}");
    let (mantissa, exponent) = text.split_once('e').expect("asked for an exponent");
    let exponent: i32 = exponent.parse().expect("digits");
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    if !(-4..17).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let rest = rest.trim_end_matches('0');
        let point = if rest.is_empty() { "" } else { "." };
        let mark = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}e{mark}{:02}", exponent.abs());
    }
    let text = if exponent < 0 {
        format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize))
    } else {
        let (whole, fraction) = digits.split_at(exponent as usize + 1);
        format!("{sign}{whole}.{fraction}")
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number as it was written.
struct Number<'a> {
    negative: bool,
    body: Body<'a>,
    /// All of it, with its sign.
    text: &'a str,
}

enum Body<'a> {
    Nan,
    Infinite,
    /// `0.digits * 10^exponent`, both parts of the digits one after the other.
    Decimal {
        whole: &'a [u8],
        fraction: &'a [u8],
        exponent: i64,
    },
    /// The same with hexadecimal digits and a power of two.
    Hex {
        whole: &'a [u8],
        fraction: &'a [u8],
        exponent: i64,
    },
}

/// Reads all of `text` as a number in the grammar of C.
fn whole(text: &[u8]) -> Option<Number<'_>> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let is = |word: &str| rest.eq_ignore_ascii_case(word.as_bytes());
    let body = if is("inf") || is("infinity") {
        Body::Infinite
    } else if is("nan") {
        Body::Nan
    } else if let [b'0', b'x' | b'X', rest @ ..] = rest {
        let (whole, fraction, exponent) = parts(rest, u8::is_ascii_hexdigit, b'p')?;
        Body::Hex { whole, fraction, exponent }
    } else {
        let (whole, fraction, exponent) = parts(rest, u8::is_ascii_digit, b'e')?;
        Body::Decimal { whole, fraction, exponent }
    };
    Some(Number { negative, body, text: std::str::from_utf8(text).ok()? })
}

type Parts<'a> = (&'a [u8], &'a [u8], i64);

fn parts(text: &[u8], digit: fn(&u8) -> bool, mark: u8) -> Option<Parts<'_>> {
    let len = |text: &[u8]| text.iter().take_while(|b| digit(b)).count();
    let (whole, rest) = text.split_at(len(text));
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => rest.split_at(len(rest)),
        rest => (&[][..], rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (negative, digits) = match rest {
        [] => return Some((whole, fraction, 0)),
        [m, b'-', digits @ ..] if m.eq_ignore_ascii_case(&mark) => (true, digits),
        [m, b'+', digits @ ..] | [m, digits @ ..] if m.eq_ignore_ascii_case(&mark) => {
            (false, digits)
        }
        _ => return None,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Beyond any format's range; the sum with the number of digits must not overflow.
    let magnitude =
        digits.iter().fold(0i64, |sum, d| (sum * 10 + i64::from(d - b'0')).min(1 << 40));
    Some((whole, fraction, if negative { -magnitude } else { magnitude }))
}

impl Number<'_> {
    fn is_zero(&self) -> bool {
        match &self.body {
            Body::Decimal { whole, fraction, .. } | Body::Hex { whole, fraction, .. } => {
                whole.iter().chain(*fraction).all(|b| *b == b'0')
            }
            Body::Nan | Body::Infinite => false,
        }
    }

    fn to_f64(&self) -> f64 {
        let magnitude = match self.body {
            Body::Nan => return f64::NAN,
            Body::Infinite => f64::INFINITY,
            Body::Decimal { .. } => return self.text.parse().expect("checked grammar"),
            Body::Hex { .. } => self
                .round(DOUBLE)
                .map_or(f64::INFINITY, |(mantissa, exponent)| compose_f64(mantissa, exponent)),
        };
        if self.negative { -magnitude } else { magnitude }
    }

    /// The nearest number of a format as (mantissa, exponent); nothing above its range.
    fn round(&self, format: Format) -> Option<(u64, i64)> {
        if self.is_zero() {
            return Some((0, 0));
        }
        match self.body {
            Body::Nan | Body::Infinite => None,
            Body::Hex { whole, fraction, exponent } => {
                let digits = whole.iter().chain(fraction).copied().skip_while(|d| *d == b'0');
                let mut digits: Vec<u8> = digits.collect();
                let mut shift = exponent - 4 * fraction.len() as i64;
                if digits.len() > HEX_MAX {
                    let sticky = digits[HEX_MAX..].iter().any(|d| *d != b'0');
                    shift += 4 * (digits.len() - HEX_MAX - 1) as i64;
                    digits.truncate(HEX_MAX);
                    digits.push(if sticky { b'1' } else { b'0' });
                }
                divide(Natural::from_digits(&digits, 16), Natural::from_u64(1), shift, format)
            }
            Body::Decimal { whole, fraction, exponent } => {
                let digits: Vec<u8> = whole.iter().chain(fraction).copied().collect();
                let zeroes = digits.iter().take_while(|d| **d == b'0').count();
                let digits = &digits[zeroes..];
                let power = exponent - fraction.len() as i64;
                // Far out of range either way: do not compute the power of ten.
                match power.saturating_add(digits.len() as i64) {
                    5000.. => return None,
                    ..-5000 => return Some((0, 0)),
                    _ => {}
                }
                let mut number = Natural::from_digits(digits, 10);
                let mut divisor = Natural::from_u64(1);
                let scaled = if power >= 0 { &mut number } else { &mut divisor };
                (0..power.unsigned_abs()).for_each(|_| scaled.multiply_add(10, 0));
                divide(number, divisor, 0, format)
            }
        }
    }
}

/// `number / divisor * 2^shift`, rounded to a format.
fn divide(
    mut number: Natural,
    mut divisor: Natural,
    shift: i64,
    format: Format,
) -> Option<(u64, i64)> {
    let scale = number.bits() as i64 - divisor.bits() as i64;
    if scale >= 0 {
        divisor.shift_left(scale as usize);
    } else {
        number.shift_left(scale.unsigned_abs() as usize);
    }
    // The quotient is in (1/2, 2): 70 bits of it are enough for any format and a sticky bit.
    const BITS: i64 = 70;
    let mut quotient = 0u128;
    for _ in 0..BITS {
        quotient <<= 1;
        if number.compare(&divisor) != Ordering::Less {
            number.subtract(&divisor);
            quotient |= 1;
        }
        number.shift_left(1);
    }
    let sticky = u128::from(!number.is_zero());
    round(quotient << 1 | sticky, scale + shift - BITS, format)
}

/// `value * 2^exponent` rounded to a format, ties to even; nothing above its range.
fn round(value: u128, exponent: i64, format: Format) -> Option<(u64, i64)> {
    if value == 0 {
        return Some((0, 0));
    }
    let bits = 128 - i64::from(value.leading_zeros());
    let drop = (bits - format.bits).max(format.least - exponent);
    let (mantissa, exponent) = match drop {
        ..=0 => (value, exponent),
        1..=127 => (shift_right_even(value, drop as u32), exponent + drop),
        _ => (0, 0),
    };
    let top = exponent + 127 - i64::from(mantissa.leading_zeros());
    if mantissa != 0 && top > format.greatest {
        return None;
    }
    // Rounding up may have carried into one bit more, and then the last bit is zero.
    Some(match u64::try_from(mantissa) {
        Ok(mantissa) => (mantissa, exponent),
        Err(_) => ((mantissa >> 1) as u64, exponent + 1),
    })
}

/// `value / 2^drop`, `1 <= drop <= 127`, to the nearest, ties to even.
fn shift_right_even(value: u128, drop: u32) -> u128 {
    let (kept, rest, half) = (value >> drop, value & ((1 << drop) - 1), 1u128 << (drop - 1));
    kept + u128::from(rest > half || (rest == half && kept & 1 == 1))
}

/// The double `mantissa * 2^exponent`, which is exact, 53 bits and in range.
fn compose_f64(mantissa: u64, exponent: i64) -> f64 {
    if mantissa == 0 {
        return 0.0;
    }
    let top = exponent + 63 - i64::from(mantissa.leading_zeros());
    let bits = if top < -1022 {
        // A subnormal number counts units of the least exponent.
        let up = exponent - DOUBLE.least;
        mantissa << up
    } else {
        let normal = mantissa << mantissa.leading_zeros();
        ((top + 1023) as u64) << 52 | (normal << 1) >> 12
    };
    f64::from_bits(bits)
}

/// A natural number of any size: 32-bit words, lowest first, none of them a leading zero.
struct Natural(Vec<u32>);

impl Natural {
    fn from_u64(value: u64) -> Natural {
        let mut natural = Natural(vec![value as u32, (value >> 32) as u32]);
        natural.trim();
        natural
    }

    fn from_digits(digits: &[u8], base: u32) -> Natural {
        let mut natural = Natural(Vec::new());
        for digit in digits {
            let value = char::from(*digit).to_digit(base).expect("a digit of this base");
            natural.multiply_add(base, value);
        }
        natural
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bits(&self) -> usize {
        self.0.last().map_or(0, |top| self.0.len() * 32 - top.leading_zeros() as usize)
    }

    fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for word in &mut self.0 {
            carry += u64::from(*word) * u64::from(factor);
            *word = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn shift_left(&mut self, bits: usize) {
        let small = bits % 32;
        if small > 0 {
            self.multiply_add(1 << small, 0);
        }
        if bits >= 32 && !self.is_zero() {
            self.0.splice(0..0, std::iter::repeat_n(0, bits / 32));
        }
    }

    fn compare(&self, other: &Natural) -> Ordering {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Subtracts a number that is not larger.
    fn subtract(&mut self, other: &Natural) {
        let mut borrow = 0i64;
        for (index, word) in self.0.iter_mut().enumerate() {
            let rest = i64::from(*word) - i64::from(*other.0.get(index).unwrap_or(&0)) + borrow;
            *word = rest as u32;
            borrow = rest >> 32;
        }
        self.trim();
    }

    fn to_decimal(&self) -> String {
        let (mut rest, mut groups) = (self.0.clone(), Vec::new());
        while !rest.is_empty() {
            let mut remainder = 0u64;
            for word in rest.iter_mut().rev() {
                let value = remainder << 32 | u64::from(*word);
                *word = (value / 1_000_000_000) as u32;
                remainder = value % 1_000_000_000;
            }
            groups.push(format!("{remainder:09}"));
            while rest.last() == Some(&0) {
                rest.pop();
            }
        }
        groups.reverse();
        let text = groups.concat();
        let text = text.trim_start_matches('0');
        if text.is_empty() { "0".to_owned() } else { text.to_owned() }
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

#[cfg(test)]
mod tests;
