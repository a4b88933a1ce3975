//! Replies that have not left yet.
//!
//! Not here: how many there may be ([`super::load`]), and the socket ([`super::conn`]).
//! Invariant: the buffer is less than twice as long as what it has held unsent at a time, however
//! long its reader lags behind.

use tokio::time::Instant;

/// A buffer larger than this is given back when it has become empty, in bytes.
const SHRINK_ABOVE: usize = 64 * 1024;

/// Bytes for the client, in order.
pub(super) struct Output {
    bytes: Vec<u8>,
    sent: usize,
    moved: Instant,
}

impl Output {
    pub(super) fn new() -> Output {
        Output { bytes: Vec::new(), sent: 0, moved: Instant::now() }
    }

    /// How many bytes have not left.
    pub(super) fn held(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// The bytes that have not left.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// When the peer last took some, or there was nothing to take.
    pub(super) fn moved(&self) -> Instant {
        self.moved
    }

    /// The bytes, to append to.
    pub(super) fn more(&mut self) -> &mut Vec<u8> {
        if self.held() == 0 {
            self.moved = Instant::now();
        }
        &mut self.bytes
    }

    /// The first `n` bytes have left.
    pub(super) fn took(&mut self, n: usize) {
        self.sent += n;
        self.moved = Instant::now();
        // A reader that is never done would otherwise have all that it ever got kept. Moving no
        // more bytes than have left costs no more than sending them did.
        if self.sent >= self.held() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > SHRINK_ABOVE {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_is_not_kept_though_the_reader_is_never_done() {
        let mut output = Output::new();
        output.more().extend_from_slice(&[0; 10_000]);
        for round in 0..10_000u32 {
            output.more().extend_from_slice(&round.to_le_bytes().repeat(250));
            output.took(1000);
            assert_eq!(output.held(), 10_000);
            assert!(output.bytes.len() < 2 * 11_000, "{} bytes are kept", output.bytes.len());
        }
        assert_eq!(output.unsent()[9996..], 9999u32.to_le_bytes());
        output.more().extend_from_slice(&[0; SHRINK_ABOVE]);
        output.took(output.held());
        assert_eq!((output.held(), output.bytes.capacity()), (0, 0));
    }
}
