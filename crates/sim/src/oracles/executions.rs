//! Exactly once, in total order (design §3.5, trap 5; COP §4.2.1): what services see.
//!
//! Looks at every execution of every correct replica's service, in all its lives, whatever
//! checkpoint it began with or fetched, and compares it with what was delivered:
//! - what executes at a number stands in the batch of that number, at that position, byte for
//!   byte; a null batch executes nothing;
//! - a frame executes at one place of the history and at no other, whatever its body; so does an
//!   operation of a correct client;
//! - an ordered stream executes in the order of its ids, from 1, without a gap, in a session that
//!   was opened before and is not closed;
//! - what a correct client sent, and is next in its stream, executes when it is ordered;
//! - every replica sees the same executions at a number, and all of them, and goes on exactly
//!   behind its checkpoint;
//! - agreed time is max(previous + 1, proposed).
//!
//! Does not see whether the results are right (`reference`), nor what is told to clients
//! (`replies`).

use std::collections::{BTreeMap, BTreeSet};

use base::frame::UNORDERED;
use base::{AgreedTime, Batch, ClientId, Frame, FrameId, FrameKind, ReplicaId, Seq, SessionId};
use exec::WAKE_INDEX;

use super::Verdict;
use crate::observe::{Execution, mark};

/// Where something stands in the history.
pub type Place = (Seq, u32);

/// A number, executed.
#[derive(Clone, Debug)]
pub struct Done {
    /// Who executed it first.
    pub by: ReplicaId,
    /// The agreed time.
    pub time: AgreedTime,
    /// What services saw.
    pub executions: Vec<Execution>,
}

/// The history of executions.
#[derive(Debug, Default)]
pub struct Executions {
    /// Clients below this one are correct.
    clients: u32,
    done: BTreeMap<Seq, Done>,
    /// The first operation of each frame that was executed.
    placed: BTreeMap<FrameId, Place>,
    /// The same of each operation of a correct client.
    operations: BTreeMap<(ClientId, u64), Place>,
    /// The last id of each ordered stream.
    streams: BTreeMap<(ClientId, SessionId, u32), u64>,
    opened: BTreeMap<(ClientId, SessionId), Seq>,
    closed: BTreeSet<(ClientId, SessionId)>,
    /// The last number that each replica's state covers.
    covered: BTreeMap<ReplicaId, Seq>,
}

/// Somebody has executed up to a number.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// Who.
    pub replica: ReplicaId,
    /// Whether its results must be right.
    pub sound: bool,
    /// The last number that its state covers now.
    pub upto: Seq,
    /// The agreed time there.
    pub time: AgreedTime,
    /// What its service saw meanwhile.
    pub saw: &'a [Execution],
}

impl Executions {
    /// A history without executions, in which the clients below `clients` are correct.
    #[must_use]
    pub fn new(clients: u32) -> Executions {
        Executions { clients, ..Executions::default() }
    }

    /// The state of `replica` is that of a checkpoint now: it began with it, or fetched it.
    pub fn jumps(&mut self, replica: ReplicaId, to: Seq) {
        self.covered.insert(replica, to);
    }

    /// Looks at a turn. `batch` gives what was delivered at a number, `fresh` is told of every
    /// number that nobody has executed before.
    ///
    /// # Errors
    /// What is wrong.
    pub fn executes<'b>(
        &mut self,
        turn: &Turn<'_>,
        batch: impl Fn(Seq) -> Option<&'b Batch>,
        mut fresh: impl FnMut(Seq, &Batch, &mut Done) -> Verdict,
    ) -> Verdict {
        let Turn { replica, sound, upto, mut saw, .. } = *turn;
        let mut at = self.covered.get(&replica).copied().unwrap_or_default();
        while at < upto {
            at = at.next();
            let here = saw.iter().take_while(|one| one.seq == at).count();
            let (now, later) = saw.split_at(here);
            saw = later;
            if !self.done.contains_key(&at) {
                let Some(batch) = batch(at) else {
                    return Err(format!("{replica:?} executes {at:?}, which nobody delivered"));
                };
                let mut done = self.first(replica, at, batch, now)?;
                fresh(at, batch, &mut done)?;
                self.done.insert(at, done);
            }
            let done = &self.done[&at];
            let same = |(a, b): (&Execution, &Execution)| {
                *a == *b || (!sound && *a == Execution { result: a.result, ..*b })
            };
            if done.executions.len() != now.len() || !done.executions.iter().zip(now).all(same) {
                return Err(format!("at {at:?} {replica:?} executes {now:?}, but it is {done:?}"));
            }
        }
        if let Some(stray) = saw.first() {
            return Err(format!("{replica:?} covers {upto:?} and executes {stray:?}"));
        }
        self.covered.insert(replica, upto);
        match self.done.get(&upto) {
            Some(done) if done.time != turn.time => {
                Err(format!("{replica:?} is at {:?}, not {:?}", turn.time, done.time))
            }
            _ => Ok(()),
        }
    }

    /// A number is executed for the first time.
    fn first(
        &mut self,
        by: ReplicaId,
        seq: Seq,
        batch: &Batch,
        saw: &[Execution],
    ) -> Result<Done, String> {
        let wakes = saw.iter().take_while(|one| one.index == WAKE_INDEX).count();
        let before = match seq.0 {
            1 => Some(AgreedTime(0)),
            _ => self.done.get(&Seq(seq.0 - 1)).map(|done| done.time),
        };
        let (proposed, frames): (_, &[_]) = match batch {
            Batch::Null => (AgreedTime(0), &[]),
            Batch::Frames { time, frames } => (*time, frames),
        };
        if *batch == Batch::Null && !saw.is_empty() {
            return Err(format!("{by:?} executes {saw:?} in the null batch {seq:?}"));
        }
        let Some(before) = before else {
            return Err(format!("{by:?} executes {seq:?}, but nobody the number before"));
        };
        let time = AgreedTime(proposed.0.max(before.0.saturating_add(1)));
        if let Some(odd) = saw.iter().find(|one| one.time != time || one.seq != seq) {
            return Err(format!("{by:?} executes {odd:?}, but the time is {time:?}"));
        }
        if wakes > 1 {
            return Err(format!("{by:?} wakes twice in {seq:?}"));
        }
        let mut left = &saw[wakes..];
        let mut index = 1;
        for frame in frames {
            let ops = u32::try_from(frame.op_count()).expect("few operations");
            let mine = left.iter().take_while(|one| one.index < index + ops).count();
            let (now, later) = left.split_at(mine);
            left = later;
            self.frame(seq, index, frame, now)
                .map_err(|why| format!("{by:?} at {seq:?}: {why}"))?;
            index += ops;
        }
        match left.first() {
            Some(stray) => Err(format!("{by:?} executes {stray:?}, which is in no batch")),
            None => Ok(Done { by, time, executions: saw.to_vec() }),
        }
    }

    /// What of a frame executes, at the place where it is ordered.
    fn frame(&mut self, seq: Seq, first: u32, frame: &Frame, saw: &[Execution]) -> Verdict {
        let id = frame.id();
        let session = (id.client, id.session);
        match frame.kind() {
            FrameKind::Open => {
                self.opened.entry(session).or_insert(seq);
            }
            FrameKind::Close if self.opened.contains_key(&session) => {
                self.closed.insert(session);
            }
            FrameKind::Close | FrameKind::Request | FrameKind::Read => {}
        }
        let stream = (id.client, id.session, id.stream);
        let open = self.opened.contains_key(&session) && !self.closed.contains(&session);
        let expected = self.streams.get(&stream).map_or(1, |last| last + 1);
        let ordered = id.stream & UNORDERED == 0;
        if saw.is_empty() {
            let next = open && ordered && id.id == expected;
            let due = next && frame.kind() == FrameKind::Request && frame.op_count() > 0;
            return match due && id.client.0 < self.clients {
                true => Err(format!("{id:?} is next and does not execute")),
                false => Ok(()),
            };
        }
        if let Some(before) = self.placed.get(&id) {
            return Err(format!("{id:?} executes again, and did so at {before:?}"));
        }
        if !open {
            return Err(format!("{id:?} executes in a session that is not open"));
        }
        if ordered && id.id != expected {
            return Err(format!("{id:?} executes, but {expected} is next"));
        }
        if saw.len() != frame.op_count() {
            return Err(format!("{id:?} executes in part: {saw:?}"));
        }
        for ((at, op), one) in (first..).zip(frame.ops()).zip(saw) {
            let right = Execution { index: at, frame: id, op: mark(op), ..*one };
            if *one != right {
                return Err(format!("{one:?} executes instead of {right:?}"));
            }
            if id.client.0 < self.clients
                && let Some(before) = self.operations.insert((id.client, one.op), (seq, at))
            {
                return Err(format!("{one:?} is done again, and was at {before:?}"));
            }
        }
        self.placed.insert(id, (seq, first));
        if ordered {
            self.streams.insert(stream, id.id);
        }
        Ok(())
    }

    /// What was executed at a number.
    #[must_use]
    pub fn at(&self, seq: Seq) -> Option<&Done> {
        self.done.get(&seq)
    }

    /// The execution at a place.
    #[must_use]
    pub fn execution(&self, (seq, index): Place) -> Option<&Execution> {
        let all = &self.done.get(&seq)?.executions;
        let at = all.binary_search_by_key(&index, |one| one.index).ok()?;
        all.get(at)
    }

    /// Where the first operation of a frame was executed.
    #[must_use]
    pub fn place(&self, frame: FrameId) -> Option<Place> {
        self.placed.get(&frame).copied()
    }

    /// Where a correct client's operation was executed.
    #[must_use]
    pub fn operation(&self, client: ClientId, op: u64) -> Option<Place> {
        self.operations.get(&(client, op)).copied()
    }

    /// Where a session was opened, and whether it was closed since.
    #[must_use]
    pub fn session(&self, client: ClientId, session: SessionId) -> Option<(Seq, bool)> {
        let opened = *self.opened.get(&(client, session))?;
        Some((opened, self.closed.contains(&(client, session))))
    }

    /// Operations that were executed, each counted once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.done.values().map(|done| done.executions.len()).sum()
    }

    /// Whether nothing was executed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
#[path = "executions_tests.rs"]
mod tests;
