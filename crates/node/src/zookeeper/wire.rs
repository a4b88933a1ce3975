//! What stands around ZooKeeper's requests and responses: frames, the greeting, headers.
//!
//! ```text
//! frame:     i32 length, that many bytes
//! greeting:  i32 version, i64 last zxid, i32 timeout in ms, i64 session, password,
//!            u8 whether a read-only server is welcome: not in the old form
//! answer:    i32 version, i32 timeout in ms, i64 session, password, u8 read-only if asked
//! request:   i32 xid, i32 type, body
//! response:  i32 xid, i64 zxid, i32 error, body unless there is an error
//! ```
//!
//! Not here: sockets, sessions, what requests mean. Depends on `svc::zk` for numbers.

use base::Malformed;
use svc::zk::REQUEST_BYTES_MAX;
use svc::zk::jute::{JuteReader, JuteWriter};
use svc::zk::op::{Event, PASSWORD_BYTES};

/// The xid of events.
pub const EVENT_XID: i32 = -1;
/// The state that events name: connected.
const CONNECTED: i32 = 3;

/// What a client says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// The newest state it has seen anything of.
    pub last_zxid: i64,
    /// The timeout it would like, in ms.
    pub timeout_ms: u32,
    /// Its session; 0 for a new one.
    pub session: u64,
    /// The session's password; zeroes for a new one, or when it is of another length.
    pub password: [u8; PASSWORD_BYTES],
    /// Whether it says that a read-only server is welcome; `None` in the old form.
    pub read_only: Option<bool>,
}

/// What begins in a client's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Begin {
    /// A command of four letters.
    Word([u8; 4]),
    /// A greeting, and how many bytes it took.
    Greeting(Greeting, usize),
}

/// Splits the first frame off: its body, and how many bytes it took; `None` while it is not all
/// there.
///
/// # Errors
/// When its length is none that a client may send.
pub fn frame(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let len = usize::try_from(i32::from_be_bytes(*len)).map_err(|_| Malformed("length"))?;
    if len > REQUEST_BYTES_MAX {
        return Err(Malformed("length"));
    }
    Ok(rest.get(..len).map(|body| (body, 4 + len)))
}

/// Reads what a client begins with; `None` while it is not all there.
///
/// # Errors
/// When it is neither a greeting nor a word.
pub fn begin(bytes: &[u8]) -> Result<Option<Begin>, Malformed> {
    if let Some(word) = bytes.first_chunk::<4>()
        && word.iter().all(u8::is_ascii_lowercase)
    {
        return Ok(Some(Begin::Word(*word)));
    }
    let Some((body, taken)) = frame(bytes)? else { return Ok(None) };
    Greeting::read(body).map(|greeting| Some(Begin::Greeting(greeting, taken)))
}

impl Greeting {
    /// Reads a greeting.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(body: &[u8]) -> Result<Greeting, Malformed> {
        let mut r = JuteReader::new(body);
        r.int("version")?;
        let last_zxid = r.long("last zxid")?;
        let timeout_ms = u32::try_from(r.int("timeout")?).unwrap_or(0);
        let session = r.long("session")?.cast_unsigned();
        let password = r.buffer("password")?.unwrap_or(b"");
        let password = password.try_into().unwrap_or([0; PASSWORD_BYTES]);
        let read_only = if r.is_empty() { None } else { Some(r.bool("read-only")?) };
        Ok(Greeting { last_zxid, timeout_ms, session, password, read_only })
    }
}

/// Appends a frame whose body `write` appends.
///
/// # Panics
/// When the body has 2^31 bytes, which limits forbid.
pub fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut JuteWriter<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(&mut JuteWriter::new(out));
    let len = i32::try_from(out.len() - start - 4).expect("limits keep bodies below 2^31");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends the answer to a greeting: the session, its timeout and its password; or, without one,
/// that it is over.
pub fn welcome(
    out: &mut Vec<u8>,
    session: Option<(u64, u32, [u8; PASSWORD_BYTES])>,
    greeting: &Greeting,
) {
    let (id, timeout_ms, password) = session.unwrap_or((0, 0, [0; PASSWORD_BYTES]));
    framed(out, |w| {
        w.int(0).int(timeout_ms.cast_signed()).long(id.cast_signed()).buffer(Some(&password));
        if greeting.read_only.is_some() {
            w.bool(false);
        }
    });
}

/// Appends a response.
pub fn response(out: &mut Vec<u8>, xid: i32, zxid: i64, error: i32, body: &[u8]) {
    framed(out, |w| {
        w.int(xid).long(zxid).int(error);
        if error == 0 {
            w.raw(body);
        }
    });
}

/// Appends an event.
pub fn event(out: &mut Vec<u8>, event: &Event) {
    framed(out, |w| {
        w.int(EVENT_XID).long(-1).int(0);
        w.int(i32::from(event.kind)).int(CONNECTED).text(&event.path);
    });
}

/// Reads a request's header: xid, type, and the body.
///
/// # Errors
/// When the bytes are too few.
pub fn request(frame: &[u8]) -> Result<(i32, i32, &[u8]), Malformed> {
    let mut r = JuteReader::new(frame);
    Ok((r.int("xid")?, r.int("type")?, r.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(read_only: Option<bool>) -> Vec<u8> {
        let mut out = vec![];
        framed(&mut out, |w| {
            w.int(0).long(7).int(10_000).long(9).buffer(Some(&[5; 16]));
            if let Some(read_only) = read_only {
                w.bool(read_only);
            }
        });
        out
    }

    #[test]
    fn greetings_are_read_in_both_forms_and_answered_in_kind() {
        for (read_only, len) in [(None, 36), (Some(false), 37), (Some(true), 37)] {
            let bytes = greeting(read_only);
            for part in 0..bytes.len() {
                assert_eq!(begin(&bytes[..part]), Ok(None));
            }
            let Ok(Some(Begin::Greeting(greeting, taken))) = begin(&bytes) else { panic!() };
            assert_eq!((greeting.session, greeting.read_only, taken), (9, read_only, bytes.len()));
            let mut out = vec![];
            welcome(&mut out, None, &greeting);
            assert_eq!(out.len(), 4 + len);
        }
    }

    #[test]
    fn words_are_told_from_lengths_and_lengths_are_bounded() {
        assert_eq!(begin(b"ruok"), Ok(Some(Begin::Word(*b"ruok"))));
        assert!(begin(b"RUOK").is_err() && begin(&[0xff; 4]).is_err());
        assert!(begin(&[0, 0, 0, 0]).is_err(), "an empty greeting");
        assert!(frame(&[0, 0x10, 0, 0]).is_err());
        assert_eq!(frame(&[0, 0xf, 0xff, 0xff]), Ok(None));
        assert_eq!(frame(&[0, 0, 0, 1, 9, 8]), Ok(Some((&[9u8][..], 5))));
    }
}
