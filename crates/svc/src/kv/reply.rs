//! Replies: appends RESP2 or RESP3 bytes, whichever the client speaks.
//!
//! What is written here reaches the client untouched: the gateway forwards it. A reply is
//! bounded by [`REPLY_MAX`]: beyond it nothing more is appended and [`Resp::overflowed`] tells,
//! so that a command which asks for gigabytes costs its error message and no memory.

use std::io::Write as _;

/// Most bytes of one operation's result: what a frame's reply may hold, less its own header.
pub const REPLY_MAX: usize = base::limits::REPLY_BYTES_MAX - 65_536;

/// What a reply is replaced by when it would be too large.
pub const TOO_LARGE: &[u8] = b"ERR reply exceeds the maximum size of a reply";

/// The protocol version a client has negotiated with its gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// RESP2: what clients speak until they say `HELLO 3`.
    #[default]
    Resp2,
    /// RESP3: maps, sets, doubles, booleans and a null of its own.
    Resp3,
}

/// A place in a reply where the header of an aggregate will be inserted.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// A writer of one result.
#[derive(Debug)]
pub struct Resp<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    protocol: Protocol,
    overflowed: bool,
}

impl<'a> Resp<'a> {
    /// A writer that appends to `out` in the words of `protocol`.
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Resp<'a> {
        Resp { start: out.len(), out, protocol, overflowed: false }
    }

    /// The protocol that is spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether something was left out because the reply would be larger than [`REPLY_MAX`].
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Takes nothing more, as if the reply had become too large: what would be written costs
    /// nothing.
    pub fn fill(&mut self) {
        self.overflowed = true;
    }

    /// Forgets what was written so far.
    pub fn clear(&mut self) {
        self.out.truncate(self.start);
        self.overflowed = false;
    }

    /// A simple string: `+OK`. `text` has no line breaks.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// An error, `text` beginning with its code, such as `ERR syntax error`. Line breaks in it
    /// become blanks.
    pub fn error(&mut self, text: &[u8]) {
        if self.room(text.len() + 3) {
            self.out.push(b'-');
            let clean = |b: &u8| if matches!(b, b'\r' | b'\n') { b' ' } else { *b };
            self.out.extend(text.iter().map(clean));
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        match value {
            0 => self.raw(b":0\r\n"),
            1 => self.raw(b":1\r\n"),
            _ => self.line(b':', itoa::Buffer::new().format(value).as_bytes()),
        }
    }

    /// A length or count as an integer.
    pub fn length(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A bulk string: any bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        if self.room(bytes.len() + 32) {
            self.header(b'$', bytes.len());
            self.out.extend_from_slice(bytes);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// Bulk strings, as long as the reply takes any.
    pub fn bulks<'b>(&mut self, items: impl Iterator<Item = &'b [u8]>) {
        for item in items {
            if self.overflowed {
                break;
            }
            self.bulk(item);
        }
    }

    /// A bulk string that shows an integer.
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A bulk string, or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// Null where a string would be.
    pub fn null(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"$-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// Null where an array would be.
    pub fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.raw(b"*-1\r\n"),
            Protocol::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// The header of an array of `len` items, which follow.
    pub fn array(&mut self, len: usize) {
        self.aggregate(b'*', len);
    }

    /// The header of a map of `pairs` keys and values, which follow alternately. A flat array in
    /// RESP2.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.aggregate(b'*', pairs * 2),
            Protocol::Resp3 => self.aggregate(b'%', pairs),
        }
    }

    /// The header of a set of `len` items, which follow. An array in RESP2.
    pub fn set(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.aggregate(b'*', len),
            Protocol::Resp3 => self.aggregate(b'~', len),
        }
    }

    /// A floating-point number, already formatted. A bulk string in RESP2.
    pub fn double(&mut self, text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => self.line(b',', text),
        }
    }

    /// A truth value. An integer in RESP2.
    pub fn boolean(&mut self, value: bool) {
        match self.protocol {
            Protocol::Resp2 => self.integer(i64::from(value)),
            Protocol::Resp3 => self.raw(if value { b"#t\r\n" } else { b"#f\r\n" }),
        }
    }

    /// Text for people, `format` being three letters such as `txt`. A bulk string in RESP2.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                if self.room(text.len() + 40) {
                    self.header(b'=', text.len() + 4);
                    self.out.extend_from_slice(format.as_bytes());
                    self.out.push(b':');
                    self.out.extend_from_slice(text);
                    self.out.extend_from_slice(b"\r\n");
                }
            }
        }
    }

    /// Remembers this place: the items of an aggregate follow, and its header is inserted when
    /// their number is known, by [`Resp::close_array`] or [`Resp::close_set`].
    #[must_use]
    pub fn open(&self) -> Mark {
        Mark(self.out.len())
    }

    /// Inserts the header of an array of `len` items at `mark`.
    pub fn close_array(&mut self, mark: Mark, len: usize) {
        self.insert(mark, b'*', len);
    }

    /// Inserts the header of a set of `len` items at `mark`. An array in RESP2.
    pub fn close_set(&mut self, mark: Mark, len: usize) {
        self.insert(mark, if self.protocol == Protocol::Resp3 { b'~' } else { b'*' }, len);
    }

    /// Bytes that are RESP already.
    pub fn raw(&mut self, bytes: &[u8]) {
        if self.room(bytes.len()) {
            self.out.extend_from_slice(bytes);
        }
    }

    fn aggregate(&mut self, kind: u8, len: usize) {
        if self.room(32) {
            self.header(kind, len);
        }
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        if self.room(text.len() + 3) {
            self.out.push(kind);
            self.out.extend_from_slice(text);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn header(&mut self, kind: u8, len: usize) {
        self.out.push(kind);
        if len < 10 {
            self.out.push(b'0' + len as u8);
        } else {
            self.out.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn insert(&mut self, mark: Mark, kind: u8, len: usize) {
        if self.room(32) {
            let mut header = Vec::with_capacity(24);
            write!(header, "{}{len}\r\n", kind as char).expect("a vector takes any bytes");
            self.out.splice(mark.0..mark.0, header);
        }
    }

    /// Whether `bytes` more fit; if not, nothing more is ever appended.
    fn room(&mut self, bytes: usize) -> bool {
        if self.overflowed || self.out.len() - self.start + bytes > REPLY_MAX {
            self.overflowed = true;
        }
        !self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(protocol: Protocol, write: impl Fn(&mut Resp<'_>)) -> String {
        let mut out = b"before".to_vec();
        write(&mut Resp::new(&mut out, protocol));
        String::from_utf8(out.split_off(6)).expect("ASCII")
    }

    #[test]
    fn each_kind_in_both_protocols() {
        type Case = (fn(&mut Resp<'_>), &'static str, &'static str);
        let cases: [Case; 14] = [
            (|r| r.simple("OK"), "+OK\r\n", "+OK\r\n"),
            (|r| r.error(b"ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (|r| r.integer(-12), ":-12\r\n", ":-12\r\n"),
            (|r| r.bulk(b"a\r\n"), "$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n"),
            (|r| r.null(), "$-1\r\n", "_\r\n"),
            (|r| r.null_array(), "*-1\r\n", "_\r\n"),
            (|r| r.array(12), "*12\r\n", "*12\r\n"),
            (|r| r.map(2), "*4\r\n", "%2\r\n"),
            (|r| r.set(2), "*2\r\n", "~2\r\n"),
            (|r| r.double(b"1.5"), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (|r| r.boolean(true), ":1\r\n", "#t\r\n"),
            (|r| r.boolean(false), ":0\r\n", "#f\r\n"),
            (|r| r.verbatim("txt", b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
            (|r| r.bulk_integer(7), "$1\r\n7\r\n", "$1\r\n7\r\n"),
        ];
        for (write, resp2, resp3) in cases {
            assert_eq!(written(Protocol::Resp2, write), resp2);
            assert_eq!(written(Protocol::Resp3, write), resp3);
        }
    }

    #[test]
    fn headers_can_come_after_the_items() {
        let write = |r: &mut Resp<'_>| {
            let mark = r.open();
            r.integer(5);
            r.integer(6);
            r.close_set(mark, 2);
        };
        assert_eq!(written(Protocol::Resp2, write), "*2\r\n:5\r\n:6\r\n");
        assert_eq!(written(Protocol::Resp3, write), "~2\r\n:5\r\n:6\r\n");
    }

    #[test]
    fn a_reply_stops_growing_at_its_bound() {
        let mut out = vec![];
        let mut reply = Resp::new(&mut out, Protocol::Resp2);
        let big = vec![0u8; 1 << 20];
        (0..100).for_each(|_| reply.bulk(&big));
        assert!(reply.overflowed());
        reply.clear();
        reply.ok();
        assert!(!reply.overflowed());
        assert_eq!(out, b"+OK\r\n");
    }
}
