//! What SCAN and its kin for collections have in common: cursors and options.

use super::call::{Fail, parse_int};
use super::glob;
use super::work::{COMPARED, Work};

/// The options of a scan.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// About how many elements to look at, at least 1.
    pub count: usize,
    /// The pattern of MATCH.
    pattern: Option<&'a [u8]>,
    /// The type that was asked for; only SCAN has it.
    pub kind: Option<&'a [u8]>,
}

impl<'a> Scan<'a> {
    /// Reads the arguments after the cursor; `keys` when whole keys are scanned, which may be
    /// chosen by TYPE.
    ///
    /// # Errors
    /// As Redis words them.
    pub fn parse(mut args: &[&'a [u8]], keys: bool) -> Result<Scan<'a>, Fail> {
        let mut scan = Scan { count: 10, pattern: None, kind: None };
        while let [word, value, rest @ ..] = args {
            if word.eq_ignore_ascii_case(b"COUNT") {
                let count = parse_int(value).ok_or(Fail::NOT_INTEGER)?;
                let count = usize::try_from(count).map_err(|_| Fail::SYNTAX)?;
                if count == 0 {
                    return Err(Fail::SYNTAX);
                }
                scan.count = count;
            } else if word.eq_ignore_ascii_case(b"MATCH") {
                scan.pattern = (*value != b"*").then_some(*value);
            } else if keys && word.eq_ignore_ascii_case(b"TYPE") {
                scan.kind = Some(value);
            } else {
                return Err(Fail::SYNTAX);
            }
            args = rest;
        }
        if args.is_empty() { Ok(scan) } else { Err(Fail::SYNTAX) }
    }

    /// Whether an element of this name is wanted.
    ///
    /// # Errors
    /// When finding that out takes more work than is left.
    pub fn wants(&self, work: &Work, name: &[u8]) -> Result<bool, Fail> {
        self.pattern.map_or(Ok(true), |pattern| matches(work, pattern, name))
    }
}

/// Whether `name` matches `pattern`, counted as work.
///
/// # Errors
/// When it takes more than is left.
pub(super) fn matches(work: &Work, pattern: &[u8], name: &[u8]) -> Result<bool, Fail> {
    let (most, mut compared) = (work.left().saturating_mul(COMPARED), 0);
    let found = glob::matches_within(pattern, name, most, &mut compared);
    work.count(compared / COMPARED)?;
    found.ok_or(Fail::TOO_MUCH_WORK)
}

/// Reads a cursor as C's `strtoul` does: a sign is allowed and wraps around.
///
/// # Errors
/// `invalid cursor`.
pub fn parse_cursor(text: &[u8]) -> Result<u64, Fail> {
    const INVALID: Fail = Fail::new("ERR invalid cursor");
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    let (negative, digits) = match &text[..end] {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(INVALID);
    }
    let mut value = 0u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        let next = value.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit)));
        value = next.filter(|_| digit <= 9).ok_or(INVALID)?;
    }
    Ok(if negative { value.wrapping_neg() } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_strtoul_reads_them() {
        let good = [("0", 0), ("", 0), ("-1", u64::MAX), ("+7", 7), ("007", 7), ("5\0x", 5)];
        for (text, value) in good {
            assert_eq!(parse_cursor(text.as_bytes()), Ok(value), "{text:?}");
        }
        for text in [" 1", "a", "1a", "-", "18446744073709551616"] {
            assert!(parse_cursor(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn options_are_checked() {
        let parse = |args: &[&'static [u8]]| Scan::parse(args, false).map(|scan| scan.count);
        assert_eq!(parse(&[]), Ok(10));
        assert_eq!(parse(&[b"count", b"7", b"MATCH", b"x"]), Ok(7));
        assert_eq!(parse(&[b"COUNT", b"0"]), Err(Fail::SYNTAX));
        assert_eq!(parse(&[b"COUNT", b"x"]), Err(Fail::NOT_INTEGER));
        assert_eq!(parse(&[b"COUNT"]), Err(Fail::SYNTAX));
        assert_eq!(parse(&[b"TYPE", b"set"]), Err(Fail::SYNTAX));
    }
}
