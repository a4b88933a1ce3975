//! Text: RESP as clients of the gateway send it, and `group.toml`.

use std::path::Path;

use genesis::Group;
use node::gateway::parse::RequestParser;

use super::exec::COMMANDS;
use crate::target::{Outcome, Run};

const BULK_MAX: usize = 1 << 16;
const REQUEST_MAX: usize = 1 << 18;

/// All requests of `bytes`, fed in pieces of so many bytes; and how they end.
fn requests(bytes: &[u8], piece: usize) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
    let mut parser = RequestParser::new(BULK_MAX, REQUEST_MAX);
    let mut all = vec![];
    for piece in bytes.chunks(piece) {
        parser.push(piece);
        loop {
            match parser.next_request() {
                Ok(Some(request)) => {
                    assert!(request.len() >= 1 && request.bytes() <= REQUEST_MAX);
                    all.push(request.iter().map(<[u8]>::to_vec).collect());
                }
                Ok(None) => break,
                Err(error) => return (all, Some(error.to_string())),
            }
        }
        assert!(parser.held() <= bytes.len());
    }
    (all, None)
}

/// `gateway::parse`: the same requests, however the bytes are cut.
pub fn resp() -> Run {
    Box::new(|bytes| {
        let (pieces, bytes) = match bytes.split_first() {
            Some((pieces, rest)) => (1 + usize::from(*pieces), rest),
            None => return Outcome::of("empty"),
        };
        let (cut, cut_end) = requests(bytes, pieces);
        let (whole, end) = requests(bytes, usize::MAX);
        assert!(cut == whole && cut_end == end, "{cut:?} {cut_end:?}, not {whole:?} {end:?}");
        let most = whole.iter().map(Vec::len).max();
        Outcome::of((end, whole.len().checked_ilog2(), most.map(|m| m.min(8))))
    })
}

/// A line as RESP.
#[must_use]
pub fn as_resp(line: &str) -> Vec<u8> {
    let args: Vec<&str> = line.split(' ').collect();
    let mut out = format!("*{}\r\n", args.len());
    for arg in args {
        out.push_str(&format!("${}\r\n{arg}\r\n", arg.len()));
    }
    out.into_bytes()
}

/// Pipelines and inline commands.
#[must_use]
pub fn resp_seeds() -> Vec<Vec<u8>> {
    let pipeline: Vec<u8> = COMMANDS.iter().flat_map(|line| as_resp(line)).collect();
    let inline = b"PING\r\nSET a \"quoted \\x41\\n\"\nGET 'a'\r\n\r\nECHO x\r\n".to_vec();
    let mut all: Vec<Vec<u8>> = [pipeline, inline].into();
    all.extend(COMMANDS.iter().map(|line| as_resp(line)));
    all.into_iter().map(|bytes| [vec![6], bytes].concat()).collect()
}

/// `Group::parse`: what is read is written, and read back as the same group.
pub fn group_toml() -> Run {
    Box::new(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return Outcome::of("no text") };
        let path = Path::new("group.toml");
        match Group::parse(text, path) {
            Err(error) => {
                let said = error.to_string();
                let said: String =
                    said.chars().filter(|c| c.is_ascii_alphabetic()).take(40).collect();
                Outcome::of(said)
            }
            Ok(group) => {
                let again = Group::parse(&group.to_toml(), path).expect("what we write, we read");
                assert_eq!((again.id(), again.to_toml()), (group.id(), group.to_toml()));
                Outcome::of(("group", group.quorums().n(), group.pillars()))
            }
        }
    })
}
