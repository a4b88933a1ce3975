//! Reads that are answered without an order: what a service is told about one, and what it tells.
//!
//! A client accepts the result of such a read when a quorum says the same. Bytes alone are not
//! enough to say the same: a replica that lags may hold the very value that one that is ahead
//! holds again, with another value in between that somebody has been shown already. So a
//! replica says with each result *since when* it is what it is, and that counts as part of it:
//! the number of the last batch that wrote an object which the read looked at. It stands for
//! the state from there to wherever the replica is, so replicas that are at different numbers
//! say the same unless what was read has changed in between.
//!
//! Numbers before the last multiple of the checkpoint interval are not told apart (`floor`),
//! so that a replica which has fetched a checkpoint, and does not know who wrote what before it,
//! says the same as the others.
//!
//! Not here: frames of reads, and when they are answered (`stage::reads`).

use alloc::vec;
use alloc::vec::Vec;

use base::{AgreedTime, ClientId, FrameId, Seq};

/// Bytes before each result of a read: since when it is so, as a little-endian distance from the
/// number in the reply's head.
pub const SINCE_BYTES: usize = 4;

/// When each object was last written.
#[derive(Clone, Debug)]
pub(crate) struct Stamps {
    objects: Vec<Seq>,
    last: Seq,
}

impl Stamps {
    /// Of so many objects, all of which may have been written at `seq`.
    pub(crate) fn new(objects: u32, seq: Seq) -> Stamps {
        Stamps { objects: vec![seq; objects as usize], last: seq }
    }

    /// The object is written by batch `seq`. Later batches may have been entered before.
    pub(crate) fn written(&mut self, object: u32, seq: Seq) {
        let stamp = &mut self.objects[object as usize];
        *stamp = seq.max(*stamp);
        self.last = seq.max(self.last);
    }
}

/// The number before which numbers are not told apart, for a state after `executed`.
pub(crate) fn floor(executed: Seq, interval: u64) -> Seq {
    Seq(executed.0 / interval * interval)
}

/// What a read is told, and what it tells. A service says what its answer depends on, with
/// [`ReadContext::looks_at`] and [`ReadContext::time`]; one that says nothing depends on the
/// whole state, and is answered the same by replicas only that nothing was written at in
/// between.
pub struct ReadContext<'a> {
    /// The frame the operation came in: principal, session, stream of reads.
    pub frame: FrameId,
    executed: Seq,
    now: AgreedTime,
    stamps: &'a Stamps,
    /// The latest write of what was looked at; none while nothing was named.
    since: Option<Seq>,
    whole: bool,
    timed: bool,
}

impl<'a> ReadContext<'a> {
    /// For a read out of the state after batch `executed`, whose agreed time is `now`.
    pub(crate) fn new(
        frame: FrameId,
        (executed, now): (Seq, AgreedTime),
        stamps: &'a Stamps,
    ) -> ReadContext<'a> {
        let (since, whole, timed) = (None, false, false);
        ReadContext { frame, executed, now, stamps, since, whole, timed }
    }

    /// The principal that asks.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.frame.client
    }

    /// The answer depends on `object`, whether or not it is as expected: also on one in which
    /// nothing was found.
    ///
    /// # Panics
    /// When there is no such object.
    pub fn looks_at(&mut self, object: u32) {
        let written = self.stamps.objects[object as usize];
        self.since = Some(self.since.unwrap_or_default().max(written));
    }

    /// The answer depends on the operation alone, and on what else is named.
    pub fn looks_nowhere(&mut self) {
        self.since = Some(self.since.unwrap_or_default());
    }

    /// The answer depends on more than what is named.
    pub fn looks_everywhere(&mut self) {
        self.whole = true;
    }

    /// The agreed time of the last executed batch. The answer depends on it then, and is given
    /// alike by those replicas only that have executed exactly as much; who only might depend on
    /// it asks once it does.
    pub fn time(&mut self) -> AgreedTime {
        self.timed = true;
        self.now
    }

    /// The same for whoever says otherwise, with [`ReadContext::time`], when it matters.
    #[must_use]
    pub fn glance_at_time(&self) -> AgreedTime {
        self.now
    }

    /// The number of the last executed batch.
    pub(crate) fn executed(&self) -> Seq {
        self.executed
    }

    /// Since when the answer is what it is.
    pub(crate) fn since(&self) -> Seq {
        let since = match self.since {
            _ if self.timed => self.executed,
            Some(since) if !self.whole => since,
            _ => self.stamps.last,
        };
        // What was executed tentatively and taken back has left its number.
        since.min(self.executed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::SessionId;

    #[test]
    fn an_answer_is_as_old_as_the_last_write_of_what_it_depends_on() {
        let mut stamps = Stamps::new(4, Seq(8));
        stamps.written(1, Seq(11));
        stamps.written(2, Seq(14));
        stamps.written(2, Seq(12));
        let frame = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id: 1 };
        let ctx = || ReadContext::new(frame, (Seq(20), AgreedTime(7)), &stamps);
        let since = |objects: &[u32]| {
            let mut ctx = ctx();
            objects.iter().for_each(|object| ctx.looks_at(*object));
            ctx.since()
        };
        assert_eq!([since(&[0]), since(&[0, 1]), since(&[1, 2])], [Seq(8), Seq(11), Seq(14)]);
        assert_eq!(since(&[]), Seq(14), "who names nothing looks at everything");
        let mut nowhere = ctx();
        nowhere.looks_nowhere();
        assert_eq!(nowhere.since(), Seq(0));
        let mut whole = ctx();
        whole.looks_at(0);
        whole.looks_everywhere();
        assert_eq!(whole.since(), Seq(14));
        let mut timed = ctx();
        timed.looks_at(0);
        assert_eq!((timed.glance_at_time(), timed.since()), (AgreedTime(7), Seq(8)));
        assert_eq!((timed.time(), timed.since()), (AgreedTime(7), Seq(20)));
        assert_eq!([floor(Seq(127), 128), floor(Seq(128), 128)], [Seq(0), Seq(128)]);
    }
}
