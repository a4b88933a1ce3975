//! Replies, parsed.

use std::fmt;
use std::io::{BufRead, Result};

/// A reply.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reply {
    /// A line: simple strings, errors, doubles, booleans, with their first byte.
    Line(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    /// Null, with how it is written.
    Null(&'static str),
    /// Arrays, maps and sets, with their first byte.
    Aggregate(u8, Vec<Reply>),
}

impl Reply {
    /// Reads one reply.
    pub fn read(from: &mut impl BufRead) -> Result<Reply> {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line)?;
        assert!(line.ends_with(b"\r\n"), "a line: {}", line.escape_ascii());
        line.truncate(line.len() - 2);
        let number = || String::from_utf8_lossy(&line[1..]).parse::<i64>().expect("a number");
        Ok(match line[0] {
            b'+' | b'-' | b',' | b'#' | b'(' => Reply::Line(line),
            b':' => Reply::Integer(number()),
            b'_' => Reply::Null("_"),
            b'$' | b'=' if number() >= 0 => {
                let mut bytes = vec![0; number() as usize + 2];
                from.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes)
            }
            b'$' => Reply::Null("$"),
            b'*' if number() < 0 => Reply::Null("*"),
            kind @ (b'*' | b'~' | b'%') => {
                let count = number() * if kind == b'%' { 2 } else { 1 };
                let items: Result<Vec<Reply>> = (0..count).map(|_| Reply::read(from)).collect();
                Reply::Aggregate(kind, items?)
            }
            _ => panic!("no reply: {}", line.escape_ascii()),
        })
    }

    /// The bytes of a string.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Reply::Bulk(bytes) | Reply::Line(bytes) => bytes,
            _ => &[],
        }
    }

    /// The items in groups of `group`, sorted.
    pub fn sorted(&self, group: usize) -> Reply {
        let Reply::Aggregate(kind, items) = self else { return self.clone() };
        let mut groups: Vec<Vec<Reply>> = items.chunks(group).map(<[Reply]>::to_vec).collect();
        groups.sort();
        Reply::Aggregate(*kind, groups.concat())
    }

    /// The reply with large integers as ZSCAN shows them for large sets: for small ones, Redis
    /// shows all their digits, and what is small depends on the set's past.
    pub fn rounded(&self) -> Reply {
        match self {
            Reply::Bulk(bytes) => match String::from_utf8_lossy(bytes).parse::<f64>() {
                // Adding zero takes the sign from minus zero.
                Ok(number) => Reply::Bulk(format!("{:e}", number + 0.0).into_bytes()),
                Err(_) => self.clone(),
            },
            Reply::Aggregate(kind, items) => {
                Reply::Aggregate(*kind, items.iter().map(Reply::rounded).collect())
            }
            other => other.clone(),
        }
    }

    /// The reply with zero for minus zero.
    pub fn unsigned(&self) -> Reply {
        match self {
            Reply::Bulk(bytes) if bytes == b"-0" => Reply::Bulk(b"0".to_vec()),
            Reply::Line(line) if line == b",-0" => Reply::Line(b",0".to_vec()),
            Reply::Aggregate(kind, items) => {
                Reply::Aggregate(*kind, items.iter().map(Reply::unsigned).collect())
            }
            other => other.clone(),
        }
    }

    /// The reply without its strings.
    pub fn shape(&self) -> Reply {
        match self {
            Reply::Bulk(_) => Reply::Bulk(vec![]),
            Reply::Line(line) if line[0] == b',' => Reply::Bulk(vec![]),
            Reply::Aggregate(kind, items) => {
                Reply::Aggregate(*kind, items.iter().map(Reply::shape).collect())
            }
            other => other.clone(),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

impl Reply {
    fn text(&self) -> String {
        match self {
            Reply::Line(line) => line.escape_ascii().to_string(),
            Reply::Integer(value) => format!(":{value}"),
            Reply::Bulk(bytes) => format!("\"{}\"", bytes.escape_ascii()),
            Reply::Null(how) => format!("null({how})"),
            Reply::Aggregate(kind, items) => {
                let items: Vec<String> = items.iter().map(Reply::text).collect();
                format!("{}{}[{}]", *kind as char, items.len(), items.join(" "))
            }
        }
    }
}
