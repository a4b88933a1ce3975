//! Jute, ZooKeeper's encoding: big-endian numbers, byte strings and lists with a length before
//! them, -1 for none.
//!
//! Shared by the service, which reads requests and writes responses, and by the gateway, which
//! reads and writes what stands around them. Every length is compared with what is there before
//! anything is allocated.

use base::Malformed;

/// Largest path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;

/// Reads from a byte slice, front to back.
#[derive(Clone, Debug)]
pub struct JuteReader<'a> {
    rest: &'a [u8],
}

impl<'a> JuteReader<'a> {
    /// A reader over `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> JuteReader<'a> {
        JuteReader { rest: bytes }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(*head)
    }

    /// Reads a 32-bit number; `what` names it in the error.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn int(&mut self, what: &'static str) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array(what)?))
    }

    /// Reads a 64-bit number.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn long(&mut self, what: &'static str) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array(what)?))
    }

    /// Reads a truth value: any byte but 0 is true, as with Java's streams.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, Malformed> {
        Ok(self.array::<1>(what)?[0] != 0)
    }

    /// Reads a byte string; `None` for the length -1.
    ///
    /// # Errors
    /// When the length is below -1 or above what is left.
    pub fn buffer(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, Malformed> {
        let len = self.int(what)?;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| Malformed(what))?;
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(Some(head))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// When there is none, or it is not UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let bytes = self.buffer(what)?.ok_or(Malformed(what))?;
        std::str::from_utf8(bytes).map_err(|_| Malformed(what))
    }

    /// Reads a text that may be missing, which is an empty one: so some clients send it.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text_or_none(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let bytes = self.buffer(what)?.unwrap_or(b"");
        std::str::from_utf8(bytes).map_err(|_| Malformed(what))
    }

    /// Reads a path: a text of a bounded length.
    ///
    /// # Errors
    /// When there is none, it is too long, or it is not UTF-8.
    pub fn path(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let path = self.text(what)?;
        if path.len() > PATH_BYTES_MAX { Err(Malformed(what)) } else { Ok(path) }
    }

    /// Reads how many elements a list has, each of at least `item_bytes_min` bytes, so that a
    /// vector of that capacity may be allocated. -1 is none, like 0.
    ///
    /// # Errors
    /// When there cannot be so many.
    pub fn count(&mut self, item_bytes_min: usize, what: &'static str) -> Result<usize, Malformed> {
        let count = self.int(what)?;
        let count = if count == -1 { 0 } else { count };
        let count = usize::try_from(count).map_err(|_| Malformed(what))?;
        let fits = count.saturating_mul(item_bytes_min) <= self.rest.len();
        fits.then_some(count).ok_or(Malformed(what))
    }

    /// Reads a list of paths.
    ///
    /// # Errors
    /// When it is none.
    pub fn paths(&mut self, what: &'static str) -> Result<Vec<&'a str>, Malformed> {
        (0..self.count(4, what)?).map(|_| self.path(what)).collect()
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Appends to a byte vector; the mirror of [`JuteReader`].
#[derive(Debug)]
pub struct JuteWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> JuteWriter<'a> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> JuteWriter<'a> {
        JuteWriter { out }
    }

    /// Appends a 32-bit number.
    pub fn int(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends a 64-bit number.
    pub fn long(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends a truth value.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.raw(&[u8::from(value)])
    }

    /// Appends a byte string, or that there is none.
    ///
    /// # Panics
    /// Above 2 GiB, which every limit forbids.
    pub fn buffer(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            None => self.int(-1),
            Some(bytes) => self.count(bytes.len()).raw(bytes),
        }
    }

    /// Appends a text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.buffer(Some(text.as_bytes()))
    }

    /// Appends a count of elements.
    ///
    /// # Panics
    /// Above 2^31 - 1, which every limit forbids.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.int(i32::try_from(count).expect("limits keep counts below 2^31"))
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = vec![];
        JuteWriter::new(&mut out)
            .int(-2)
            .long(i64::MIN)
            .bool(true)
            .buffer(None)
            .buffer(Some(b""))
            .text("/a")
            .count(1)
            .text("/b");
        let mut r = JuteReader::new(&out);
        assert_eq!((r.int("a"), r.long("b"), r.bool("c")), (Ok(-2), Ok(i64::MIN), Ok(true)));
        assert_eq!((r.buffer("d"), r.buffer("e")), (Ok(None), Ok(Some(&b""[..]))));
        assert_eq!((r.path("f"), r.paths("g")), (Ok("/a"), Ok(vec!["/b"])));
        assert!(r.is_empty());
    }

    #[test]
    fn lengths_are_checked_before_use() {
        for bad in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xfe], &[0, 0, 0, 2, 1]] {
            assert!(JuteReader::new(bad).buffer("x").is_err(), "{bad:?}");
            assert!(JuteReader::new(bad).count(4, "x").is_err(), "{bad:?}");
        }
        assert_eq!(JuteReader::new(&[0xff; 4]).count(4, "x"), Ok(0));
        let mut long = vec![];
        JuteWriter::new(&mut long).text(&"a".repeat(PATH_BYTES_MAX + 1));
        assert!(JuteReader::new(&long).path("x").is_err());
        assert!(JuteReader::new(&long).text("x").is_ok());
        assert!(JuteReader::new(&[0, 0, 0, 1, 0xff]).text("x").is_err());
    }
}
