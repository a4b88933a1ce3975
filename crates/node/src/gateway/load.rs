//! How much a connection has under way, and whether there is room for more.
//!
//! Not here: replies that are ready to leave ([`super::output`]), requests that are being read
//! ([`super::parse`]) or queued ([`super::session`]).

use super::backend::BackendError;

/// Operations in flight stop new ones when they hold more bytes than this.
pub(super) const IN_FLIGHT_BYTES: usize = 32 << 20;
/// New requests are held back so that replies, those to come taken to be as large as the last
/// ones, fit this many bytes.
pub(super) const REPLY_WINDOW_BYTES: usize = 16 << 20;
/// How large replies are taken to be before any was seen: the first operations go out in small
/// numbers, also because the results of one frame must fit into one reply of the group.
const REPLY_GUESS_BYTES: usize = 1 << 20;

/// What is under way.
pub(super) struct Load {
    ops: usize,
    bytes: usize,
    /// Results that were there at once, and their bytes.
    known: usize,
    known_bytes: usize,
    /// Bytes of replies made here that wait behind the result of an operation.
    local_bytes: usize,
    /// Decaying maximum of the sizes of replies.
    reply_hint: usize,
}

impl Load {
    /// Nothing.
    pub(super) fn new() -> Load {
        Load {
            ops: 0,
            bytes: 0,
            known: 0,
            known_bytes: 0,
            local_bytes: 0,
            reply_hint: REPLY_GUESS_BYTES,
        }
    }

    /// Whether another operation may go into flight, at most `ops_max` of them, where `unsent`
    /// bytes of replies are ready to leave. Replies that wait behind an operation do not count:
    /// they leave only after it, and it may have to be submitted again.
    pub(super) fn takes_op(&self, unsent: usize, ops_max: usize) -> bool {
        let coming = (self.ops - self.known + 1) * self.reply_hint;
        let replies = unsent + self.known_bytes + coming;
        self.ops == 0 && unsent < REPLY_WINDOW_BYTES
            || self.ops < ops_max && self.bytes < IN_FLIGHT_BYTES && replies < REPLY_WINDOW_BYTES
    }

    /// Whether another request may be handled, whoever answers it.
    pub(super) fn takes_request(&self, unsent: usize, ops_max: usize) -> bool {
        self.takes_op(unsent + self.local_bytes, ops_max)
    }

    /// An operation of `bytes` bytes goes into flight.
    pub(super) fn launched(&mut self, bytes: usize) {
        self.ops += 1;
        self.bytes += bytes;
    }

    /// It is in flight no more.
    pub(super) fn landed(&mut self, bytes: usize) {
        self.ops -= 1;
        self.bytes -= bytes;
    }

    /// The result of an operation in flight is there.
    pub(super) fn came(&mut self, result: &Result<Vec<u8>, BackendError>) {
        self.known += 1;
        self.known_bytes += result.as_ref().map_or(0, Vec::len);
    }

    /// It has been used.
    pub(super) fn taken(&mut self, result: &Result<Vec<u8>, BackendError>) {
        self.known -= 1;
        self.known_bytes -= result.as_ref().map_or(0, Vec::len);
    }

    /// A reply of `bytes` bytes, made here, waits behind an operation.
    pub(super) fn waits(&mut self, bytes: usize) {
        self.local_bytes += bytes;
    }

    /// It waits no more.
    pub(super) fn waited(&mut self, bytes: usize) {
        self.local_bytes -= bytes;
    }

    /// The reply to an operation had `bytes` bytes.
    pub(super) fn replied(&mut self, bytes: usize) {
        self.reply_hint = bytes.max(self.reply_hint - self.reply_hint / 8).max(64);
    }

    /// Results were too large together.
    pub(super) fn crowded(&mut self) {
        self.reply_hint = REPLY_WINDOW_BYTES / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_the_gateway_keep_requests_back_and_not_what_they_wait_for() {
        let mut load = Load::new();
        (0..100).for_each(|_| load.replied(10));
        load.launched(100);
        assert!(load.takes_request(0, 10) && !load.takes_request(0, 1));
        load.waits(REPLY_WINDOW_BYTES);
        assert!(!load.takes_request(0, 10) && load.takes_op(0, 10));
        // It was lost in a crowd, and is to be submitted again.
        load.landed(100);
        assert!(!load.takes_request(0, 10) && load.takes_op(0, 10));
        load.waited(REPLY_WINDOW_BYTES);
        assert!(load.takes_request(0, 10) && !load.takes_request(REPLY_WINDOW_BYTES, 10));
    }
}
