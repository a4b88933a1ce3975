//! What a command's handler gets, and how it refuses.
//!
//! A handler is `fn(&mut Call<'_, '_>) -> Outcome`. The dispatcher has already checked the
//! arity. A handler either writes exactly one reply, or writes nothing and returns a [`Fail`],
//! which becomes the error reply; it decides for a failure *before* it changes the state.

use std::borrow::Cow;

use exec::Context;

use super::db::Db;
use super::reply::Resp;

/// One command on its way.
pub struct Call<'a, 'c> {
    /// The command's name and its arguments, borrowed from the operation.
    pub args: &'a [&'a [u8]],
    /// The key space.
    pub db: &'a mut Db,
    /// What every replica knows about the operation. Methods of [`Db`] that write ask for it.
    pub ctx: &'a mut Context<'c>,
    /// Where the reply goes.
    pub reply: Resp<'a>,
    /// Agreed time in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// What a handler returns.
pub type Outcome = Result<(), Fail>;

/// A command's handler.
pub type Handler = fn(&mut Call<'_, '_>) -> Outcome;

/// An error reply, beginning with its code, as Redis words it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fail(pub Cow<'static, str>);

impl Fail {
    /// The key holds another type.
    pub const WRONG_TYPE: Fail =
        Fail::new("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// The arguments do not make sense together.
    pub const SYNTAX: Fail = Fail::new("ERR syntax error");
    /// No 64-bit integer as Redis reads them.
    pub const NOT_INTEGER: Fail = Fail::new("ERR value is not an integer or out of range");
    /// No floating-point number.
    pub const NOT_FLOAT: Fail = Fail::new("ERR value is not a valid float");
    /// An integer that must not be negative, or no integer at all.
    pub const NOT_POSITIVE: Fail = Fail::new("ERR value is out of range, must be positive");
    /// An integer that does not fit.
    pub const OUT_OF_RANGE: Fail = Fail::new("ERR value is out of range");
    /// The key must exist and does not.
    pub const NO_SUCH_KEY: Fail = Fail::new("ERR no such key");
    /// An index beyond the ends.
    pub const INDEX_OUT_OF_RANGE: Fail = Fail::new("ERR index out of range");
    /// A string above the limit.
    pub const STRING_TOO_LONG: Fail =
        Fail::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// A bucket that takes nothing more.
    pub const FULL: Fail =
        Fail::new("OOM command not allowed when the keys of one bucket use more than 768 MiB");
    /// More work than an operation may do, or than those before it in a transaction have left.
    pub const TOO_MUCH_WORK: Fail = Fail::new(
        "ERR too much work for one operation: use fewer or smaller keys, or a shorter transaction",
    );
    /// A sum that does not fit into 64 bits.
    pub const OVERFLOW: Fail = Fail::new("ERR increment or decrement would overflow");

    /// A fixed text.
    #[must_use]
    pub const fn new(text: &'static str) -> Fail {
        Fail(Cow::Borrowed(text))
    }

    /// `ERR wrong number of arguments for '…' command`; `command` in lower case, with
    /// `parent|sub` for a subcommand.
    #[must_use]
    pub fn arity(command: &str) -> Fail {
        Fail(format!("ERR wrong number of arguments for '{command}' command").into())
    }
}

impl Call<'_, '_> {
    /// Argument `index` as an integer.
    ///
    /// # Errors
    /// [`Fail::NOT_INTEGER`] unless it is one, strictly as Redis reads them.
    ///
    /// # Panics
    /// When there is no such argument.
    pub fn int(&self, index: usize) -> Result<i64, Fail> {
        parse_int(self.args[index]).ok_or(Fail::NOT_INTEGER)
    }

    /// Argument `index` as an integer that is not negative.
    ///
    /// # Errors
    /// [`Fail::NOT_POSITIVE`] for anything else.
    ///
    /// # Panics
    /// When there is no such argument.
    pub fn positive(&self, index: usize) -> Result<u64, Fail> {
        let value = parse_int(self.args[index]).and_then(|value| u64::try_from(value).ok());
        value.ok_or(Fail::NOT_POSITIVE)
    }

    /// Whether argument `index` is the keyword `word` (upper case), in any case.
    #[must_use]
    pub fn is(&self, index: usize, word: &str) -> bool {
        self.args.get(index).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Whether one of the replica's own limits would be passed by a value of `bytes` bytes.
    ///
    /// # Errors
    /// [`Fail::STRING_TOO_LONG`].
    pub fn check_size(&self, bytes: usize) -> Outcome {
        if bytes > super::VALUE_BYTES_MAX { Err(Fail::STRING_TOO_LONG) } else { Ok(()) }
    }
}

/// An integer as Redis's `string2ll` reads it: decimal digits with an optional minus, no plus,
/// no leading zeroes, no blanks, in the range of `i64`.
#[must_use]
pub fn parse_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut magnitude = 0u64;
    for digit in digits {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(value))?;
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_redis_reads_them() {
        for value in [0, 1, -1, 10, 99, i64::MAX, i64::MIN, i64::MIN + 1] {
            assert_eq!(parse_int(value.to_string().as_bytes()), Some(value));
        }
        for text in [
            "",
            "-",
            "+1",
            " 1",
            "1 ",
            "01",
            "-0",
            "00",
            "1.0",
            "1e3",
            "a",
            "-a",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "1\0",
        ] {
            assert_eq!(parse_int(text.as_bytes()), None, "{text:?}");
        }
    }
}
