//! A small Redis client for tests: whole RESP2 and RESP3 values, and raw bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A reply.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    NullBulk,
    NullArray,
    Null,
    Array(Vec<Value>),
    Map(Vec<Value>),
    Set(Vec<Value>),
    Double(Vec<u8>),
    Bool(bool),
    Verbatim(Vec<u8>),
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |b: &[u8]| b.escape_ascii().to_string();
        match self {
            Value::Simple(s) => write!(f, "+{}", text(s)),
            Value::Error(s) => write!(f, "-{}", text(s)),
            Value::Int(n) => write!(f, ":{n}"),
            Value::Bulk(s) => write!(f, "\"{}\"", text(s)),
            Value::NullBulk => write!(f, "(nil)"),
            Value::NullArray => write!(f, "(nil array)"),
            Value::Null => write!(f, "(null)"),
            Value::Array(items) => f.debug_list().entries(items).finish(),
            Value::Map(items) => write!(f, "%{items:?}"),
            Value::Set(items) => write!(f, "~{items:?}"),
            Value::Double(s) => write!(f, ",{}", text(s)),
            Value::Bool(b) => write!(f, "#{b}"),
            Value::Verbatim(s) => write!(f, "={}", text(s)),
        }
    }
}

impl Value {
    /// The items of an array, set or map; nothing of anything else.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Map(items) => items,
            _ => &[],
        }
    }

    /// The bytes of a string, or nothing.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Simple(s) | Value::Bulk(s) | Value::Error(s) | Value::Double(s) => s,
            Value::Verbatim(s) => s,
            _ => &[],
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }
}

/// A connection.
pub struct Wire {
    pub stream: TcpStream,
    buf: Vec<u8>,
    at: usize,
}

impl Wire {
    pub fn connect(addr: SocketAddr) -> Wire {
        let stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        // Far beyond anything expected: a test that would hang fails instead.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a TCP socket");
        Wire { stream, buf: Vec::new(), at: 0 }
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes bytes");
    }

    /// Reads until the peer closes.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = self.buf.split_off(self.at);
        self.buf.clear();
        self.at = 0;
        self.stream.read_to_end(&mut all).expect("the server closes in time");
        all
    }

    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        let mut out = Vec::new();
        encode(args, &mut out);
        self.send_raw(&out);
        self.read()
    }

    /// A command given as words.
    pub fn cmd(&mut self, line: &str) -> Value {
        let words: Vec<&str> = line.split(' ').collect();
        self.call(&words)
    }

    fn fill(&mut self) {
        if self.at > 1 << 16 {
            self.buf.drain(..self.at);
            self.at = 0;
        }
        let mut chunk = [0; 16384];
        let n = self.stream.read(&mut chunk).expect("the server answers in time");
        assert!(n > 0, "the server closed the connection");
        self.buf.extend_from_slice(&chunk[..n]);
    }

    fn line(&mut self) -> Vec<u8> {
        let mut from = self.at;
        loop {
            if let Some(end) = self.buf[from..].windows(2).position(|w| w == b"\r\n") {
                let line = self.buf[self.at..from + end].to_vec();
                self.at = from + end + 2;
                return line;
            }
            from = self.buf.len().saturating_sub(1).max(self.at);
            let before = self.at;
            self.fill();
            from = from + self.at - before;
        }
    }

    fn exact(&mut self, len: usize) -> Vec<u8> {
        while self.buf.len() - self.at < len + 2 {
            self.fill();
        }
        let bytes = self.buf[self.at..self.at + len].to_vec();
        assert_eq!(&self.buf[self.at + len..self.at + len + 2], b"\r\n");
        self.at += len + 2;
        bytes
    }

    fn many(&mut self, count: i64) -> Vec<Value> {
        (0..count).map(|_| self.read()).collect()
    }

    /// Reads one reply.
    pub fn read(&mut self) -> Value {
        let line = self.line();
        let (kind, rest) = line.split_first().expect("a reply has a kind");
        let number = || -> i64 {
            std::str::from_utf8(rest).ok().and_then(|s| s.parse().ok()).expect("a number")
        };
        match kind {
            b'+' => Value::Simple(rest.to_vec()),
            b'-' => Value::Error(rest.to_vec()),
            b':' => Value::Int(number()),
            b'$' if number() < 0 => Value::NullBulk,
            b'$' => Value::Bulk(self.exact(usize::try_from(number()).expect("a length"))),
            b'*' if number() < 0 => Value::NullArray,
            b'*' => Value::Array(self.many(number())),
            b'%' => Value::Map(self.many(number() * 2)),
            b'~' => Value::Set(self.many(number())),
            b'_' => Value::Null,
            b',' => Value::Double(rest.to_vec()),
            b'#' => Value::Bool(rest == b"t"),
            b'=' => Value::Verbatim(self.exact(usize::try_from(number()).expect("a length"))),
            other => panic!("a reply of kind {:?}", char::from(*other)),
        }
    }
}

/// Appends a command as multibulk.
pub fn encode<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// A bulk string of this text.
pub fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

/// A simple string of this text.
pub fn simple(text: &str) -> Value {
    Value::Simple(text.as_bytes().to_vec())
}

/// An error of this text.
pub fn error(text: &str) -> Value {
    Value::Error(text.as_bytes().to_vec())
}
