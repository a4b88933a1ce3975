//! The parser of Redis requests: multibulk (`*2\r\n$3\r\nGET\r\n$1\r\na\r\n`) and inline
//! (`GET a\r\n`), incremental, with the limits and the words of Redis 7.0.
//!
//! Not here: what a command means, and reading from sockets. Depends on nothing but
//! how Redis spells integers.
//!
//! Invariants:
//! 1. Whatever the bytes and wherever they are cut, [`RequestParser::next_request`] gives the same
//!    requests: a half request costs no second look at its arguments when more bytes come.
//! 2. Nothing is allocated from a length that was only announced: an argument takes memory when
//!    its bytes are there.
//! 3. After an error the parser is of no further use: the connection is closed.

use std::fmt;
use std::ops::Range;

use svc::kv::call::parse_int;

/// Longest line that is not an argument: an inline request or the head of a multibulk one, in
/// bytes, as in Redis.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Most arguments of one request.
pub const ARGUMENTS_MAX: i64 = 1024 * 1024;
/// Bytes that an argument counts beyond its own: its length, where it is encoded.
pub const HEAD_BYTES: usize = 4;

/// Why a stream of bytes is not a stream of requests. The display text is that of Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// An inline request longer than [`LINE_BYTES_MAX`].
    InlineTooBig,
    /// A quote that is not closed, or not followed by a blank, in an inline request.
    UnbalancedQuotes,
    /// The number of arguments does not end within [`LINE_BYTES_MAX`].
    CountTooBig,
    /// The number of arguments is no number or above [`ARGUMENTS_MAX`].
    InvalidCount,
    /// The length of an argument does not end within [`LINE_BYTES_MAX`].
    LengthTooBig,
    /// The length of an argument is no number, negative or above the limit.
    InvalidLength,
    /// Something else stands where an argument should begin.
    ExpectedBulk(u8),
    /// The arguments together are larger than an operation may be.
    RequestTooBig,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            ProtocolError::InlineTooBig => f.write_str("too big inline request"),
            ProtocolError::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::CountTooBig => f.write_str("too big mbulk count string"),
            ProtocolError::InvalidCount => f.write_str("invalid multibulk length"),
            ProtocolError::LengthTooBig => f.write_str("too big bulk count string"),
            ProtocolError::InvalidLength => f.write_str("invalid bulk length"),
            ProtocolError::ExpectedBulk(got) => {
                // An error is one line, so line ends are shown as blanks, as Redis does.
                let got = if matches!(got, b'\r' | b'\n') { b' ' } else { *got };
                write!(f, "expected '$', got '{}'", char::from(got))
            }
            ProtocolError::RequestTooBig => f.write_str("too big request"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Cuts a stream of bytes into requests. Owns the bytes until they are consumed.
#[derive(Debug)]
pub struct RequestParser {
    buf: Vec<u8>,
    /// Where the request that is being read begins.
    start: usize,
    /// How far that request has been looked at.
    at: usize,
    /// Arguments still to come; zero between requests.
    missing: i64,
    /// Length of the argument that is being read.
    bulk: Option<usize>,
    /// Bytes of all arguments of this request, announced or there, with [`HEAD_BYTES`] each.
    sum: usize,
    /// The arguments of a multibulk request so far, relative to `start`.
    args: Vec<Range<usize>>,
    /// The unquoted arguments of an inline request, one after the other.
    inline: Vec<u8>,
    bulk_max: usize,
    request_max: usize,
}

/// One request: its arguments, the first of which is the command's name. Never empty.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    bytes: &'a [u8],
    args: &'a [Range<usize>],
}

impl<'a> Request<'a> {
    /// Number of arguments, the command's name included; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a request has at least one argument")]
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// Argument `i`; 0 is the command's name.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn arg(&self, i: usize) -> &'a [u8] {
        &self.bytes[self.args[i].clone()]
    }

    /// All arguments, the command's name first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.args.iter().map(move |range| &bytes[range.clone()])
    }

    /// Bytes of all arguments together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.args.iter().map(ExactSizeIterator::len).sum()
    }
}

impl RequestParser {
    /// A parser that accepts arguments of up to `bulk_max` bytes, and requests whose arguments,
    /// with [`HEAD_BYTES`] for each, have up to `request_max` bytes.
    #[must_use]
    pub fn new(bulk_max: usize, request_max: usize) -> RequestParser {
        RequestParser {
            buf: Vec::new(),
            start: 0,
            at: 0,
            missing: 0,
            bulk: None,
            sum: 0,
            args: Vec::new(),
            inline: Vec::new(),
            bulk_max,
            request_max,
        }
    }

    /// The buffer, with room for at least `want` more bytes: the caller appends what it reads.
    /// Drops what was consumed.
    pub fn space(&mut self, want: usize) -> &mut Vec<u8> {
        if self.start > 0 {
            self.buf.drain(..self.start);
            self.at -= self.start;
            self.start = 0;
        }
        // A large argument grew the buffer; the next ones need not pay for it.
        if self.buf.is_empty() && self.buf.capacity() > 4 * want.max(SHRINK_ABOVE) {
            self.buf = Vec::new();
        }
        self.buf.reserve(want);
        &mut self.buf
    }

    /// Adds bytes as they came from the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).extend_from_slice(bytes);
    }

    /// Bytes that are held and not consumed.
    #[must_use]
    pub fn held(&self) -> usize {
        self.buf.len() - self.start
    }

    /// The next complete request, which is thereby consumed; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are no requests. What was consumed before stays valid.
    pub fn next_request(&mut self) -> Result<Option<Request<'_>>, ProtocolError> {
        loop {
            if self.missing == 0 {
                let Some(&first) = self.buf.get(self.start) else { return Ok(None) };
                if first != b'*' {
                    if !self.inline_request()? {
                        return Ok(None);
                    }
                    if self.args.is_empty() {
                        continue;
                    }
                    return Ok(Some(Request { bytes: &self.inline, args: &self.args }));
                }
                let Some(count) = self.number(ProtocolError::CountTooBig)? else {
                    return Ok(None);
                };
                match count {
                    Some(count) if count > ARGUMENTS_MAX => {
                        return Err(ProtocolError::InvalidCount);
                    }
                    None => return Err(ProtocolError::InvalidCount),
                    Some(count) if count <= 0 => {
                        self.start = self.at;
                        continue;
                    }
                    Some(count) => self.missing = count,
                }
                self.args.clear();
                self.sum = 0;
            }
            if !self.arguments()? {
                return Ok(None);
            }
            let bytes = &self.buf[self.start..self.at];
            self.start = self.at;
            return Ok(Some(Request { bytes, args: &self.args }));
        }
    }

    /// Reads the arguments that are there; true when none is missing.
    fn arguments(&mut self) -> Result<bool, ProtocolError> {
        while self.missing > 0 {
            let len = match self.bulk {
                Some(len) => len,
                None => {
                    let Some(len) = self.bulk_head()? else { return Ok(false) };
                    self.bulk = Some(len);
                    len
                }
            };
            // The two bytes after an argument are skipped unseen, as in Redis.
            if self.buf.len() - self.at < len + 2 {
                return Ok(false);
            }
            let from = self.at - self.start;
            self.args.push(from..from + len);
            self.at += len + 2;
            self.bulk = None;
            self.missing -= 1;
        }
        Ok(true)
    }

    /// Reads `$length\r\n`; `None` when it is not complete.
    fn bulk_head(&mut self) -> Result<Option<usize>, ProtocolError> {
        // Redis looks for the end of the line before it looks at the line.
        if memchr::memchr(b'\r', &self.buf[self.at..]).is_some_and(|end| self.line_ends(end))
            && self.buf[self.at] != b'$'
        {
            return Err(ProtocolError::ExpectedBulk(self.buf[self.at]));
        }
        let Some(len) = self.number(ProtocolError::LengthTooBig)? else { return Ok(None) };
        let len = len.and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= self.bulk_max);
        let len = len.ok_or(ProtocolError::InvalidLength)?;
        self.sum += len + HEAD_BYTES;
        if self.sum > self.request_max {
            return Err(ProtocolError::RequestTooBig);
        }
        Ok(Some(len))
    }

    /// Whether the line whose `\r` is `end` bytes after `at` is complete with its `\n`.
    fn line_ends(&self, end: usize) -> bool {
        self.at + end + 2 <= self.buf.len()
    }

    /// Reads one marker byte and a number up to `\r\n` and consumes the line. The outer option:
    /// is the line there; the inner one: is it a number.
    fn number(&mut self, too_big: ProtocolError) -> Result<Option<Option<i64>>, ProtocolError> {
        let line = &self.buf[self.at.max(self.start)..];
        let end = memchr::memchr(b'\r', line);
        if end.unwrap_or(line.len()) > LINE_BYTES_MAX {
            return Err(too_big);
        }
        let Some(end) = end.filter(|end| self.line_ends(*end)) else { return Ok(None) };
        let number = parse_int(&line[1.min(end)..end]);
        self.at += end + 2;
        Ok(Some(number))
    }

    /// Reads an inline request into `inline` and `args`; false when its line is not complete.
    fn inline_request(&mut self) -> Result<bool, ProtocolError> {
        let line = &self.buf[self.start..];
        // Bytes before `at` were searched before.
        let from = self.at.saturating_sub(self.start);
        let end = memchr::memchr(b'\n', &line[from..]).map(|end| from + end);
        if end.unwrap_or(line.len()) > LINE_BYTES_MAX {
            return Err(ProtocolError::InlineTooBig);
        }
        let Some(end) = end else {
            self.at = self.buf.len();
            return Ok(false);
        };
        let text = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        self.args.clear();
        self.inline.clear();
        split_arguments(text, &mut self.inline, &mut self.args)?;
        self.start += end + 1;
        self.at = self.start;
        Ok(true)
    }
}

/// A buffer of four times this, in bytes, is given back when it has become empty.
const SHRINK_ABOVE: usize = 4 * 1024;

/// Splits a line into arguments as Redis does: blanks separate, `"..."` knows `\n \r \t \b \a`
/// and `\xHH`, `'...'` knows `\'`, and a closing quote must be followed by a blank or the end.
fn split_arguments(
    line: &[u8],
    out: &mut Vec<u8>,
    args: &mut Vec<Range<usize>>,
) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        while let [blank, tail @ ..] = rest
            && is_space(*blank)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let from = out.len();
        loop {
            match rest {
                [] => break,
                [b'"', tail @ ..] => rest = double_quoted(tail, out)?,
                [b'\'', tail @ ..] => rest = single_quoted(tail, out)?,
                [b, ..] if is_space(*b) => break,
                [b, tail @ ..] => {
                    out.push(*b);
                    rest = tail;
                    continue;
                }
            }
            // A closing quote ends the argument.
            break;
        }
        args.push(from..out.len());
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [b'\\', b'x', h, l, tail @ ..] if h.is_ascii_hexdigit() && l.is_ascii_hexdigit() => {
                out.push(hex_digit(*h) << 4 | hex_digit(*l));
                rest = tail;
            }
            [b'\\', c, tail @ ..] => {
                out.push(match c {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [b'"', tail @ ..] => return closed(tail),
            [b, tail @ ..] => {
                out.push(*b);
                rest = tail;
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [b'\\', b'\'', tail @ ..] => {
                out.push(b'\'');
                rest = tail;
            }
            [b'\'', tail @ ..] => return closed(tail),
            [b, tail @ ..] => {
                out.push(*b);
                rest = tail;
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

/// What follows a closing quote must be a blank or the end.
fn closed(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest.first() {
        Some(b) if !is_space(*b) => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(rest),
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// The blanks of C's `isspace`.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    type Requests = Vec<Vec<Vec<u8>>>;

    fn drain(parser: &mut RequestParser, out: &mut Requests) -> Result<(), ProtocolError> {
        while let Some(request) = parser.next_request()? {
            assert_eq!(request.len(), request.iter().count());
            out.push(request.iter().map(<[u8]>::to_vec).collect());
        }
        Ok(())
    }

    fn parse_cut(bytes: &[u8], cut: usize) -> (Requests, Result<(), ProtocolError>) {
        let mut parser = RequestParser::new(1 << 20, 1 << 20);
        let mut out = vec![];
        for piece in bytes.chunks(cut) {
            parser.push(piece);
            if let Err(e) = drain(&mut parser, &mut out) {
                return (out, Err(e));
            }
        }
        (out, Ok(()))
    }

    fn parse(bytes: &[u8]) -> (Requests, Result<(), ProtocolError>) {
        let whole = parse_cut(bytes, usize::MAX);
        for cut in [1, 2, 3, 7] {
            assert_eq!(parse_cut(bytes, cut), whole, "cut into pieces of {cut}");
        }
        whole
    }

    fn words(line: &[u8]) -> Vec<Vec<u8>> {
        line.split(|b| *b == b' ').map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn requests_are_the_same_wherever_the_bytes_are_cut() {
        let bytes =
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\n\r\n\r\n\r\nPING\r\n*0\r\n*-3\r\n\r\n\n \n\
                      *1\r\n$0\r\n\r\nset b  \"x y\"\n";
        let (requests, end) = parse(bytes);
        assert_eq!(end, Ok(()));
        assert_eq!(requests[0], [&b"SET"[..], b"a", b"\r\n\r\n"]);
        assert_eq!(requests[1], words(b"PING"));
        assert_eq!(requests[2], [b""]);
        assert_eq!(requests[3], [&b"set"[..], b"b", b"x y"]);
        assert_eq!(requests.len(), 4);
    }

    #[test]
    fn inline_quotes_are_those_of_redis() {
        let line = br#"a "b\x41\n\"" 'c\'\n' "" "#;
        let (requests, _) = parse(&[&line[..], b"\r\n"].concat());
        assert_eq!(requests, [[&b"a"[..], b"bA\n\"", b"c'\\n", b""]]);
        for bad in ["a \"b", "a 'b", "a \"b\"c", "'a'b", "\""] {
            assert_eq!(
                parse(&[bad.as_bytes(), b"\r\n"].concat()).1,
                Err(ProtocolError::UnbalancedQuotes)
            );
        }
    }

    #[test]
    fn what_is_no_request_is_refused_in_the_words_of_redis() {
        let cases: [(&[u8], &str); 12] = [
            (b"*x\r\n", "invalid multibulk length"),
            (b"*+1\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*99999999999999999999\r\n", "invalid multibulk length"),
            (b"*1\r\nx\r\n", "expected '$', got 'x'"),
            (b"*1\r\n\r\n", "expected '$', got ' '"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$\r\n", "invalid bulk length"),
            (b"*1\r\n$1048577\r\n", "invalid bulk length"),
            (b"*2\r\n$1000000\r\n", "too big request"),
        ];
        for (bytes, message) in cases {
            let mut bytes = bytes.to_vec();
            if message == "too big request" {
                bytes.extend(vec![b'x'; 1_000_000]);
                bytes.extend(b"\r\n$1000000\r\n");
                assert_eq!(parse_cut(&bytes, 999).1, Err(ProtocolError::RequestTooBig));
                continue;
            }
            let error = parse(&bytes).1.expect_err("is no request");
            assert_eq!(error.to_string(), format!("Protocol error: {message}"));
        }
    }

    #[test]
    fn endless_lines_are_cut_off() {
        let long = vec![b'1'; LINE_BYTES_MAX + 1];
        let head = |head: &[u8]| parse_cut(&[head, &long].concat(), 4096).1;
        assert_eq!(head(b""), Err(ProtocolError::InlineTooBig));
        assert_eq!(head(b"*"), Err(ProtocolError::CountTooBig));
        assert_eq!(head(b"*1\r\n$"), Err(ProtocolError::LengthTooBig));
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut parser = RequestParser::new(12 << 20, 13 << 20);
        parser.push(b"*1048576\r\n$12582912\r\n");
        assert!(parser.next_request().expect("so far so good").is_none());
        assert!(parser.buf.capacity() < 1024 && parser.args.capacity() < 1024);
    }
}
