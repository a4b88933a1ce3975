//! What clients are told (design, trap 5): the reply to a frame says what its execution gave, the
//! first time and every time, and nobody is refused what is his.
//!
//! Looks at every reply that the stage of a correct replica gives, to first and repeated frames,
//! in and outside the total order, and compares it with the history of executions. For correct
//! clients it also judges refusals, since what they may hear follows from what they sent:
//! - an executed frame: its number, and the results that the service gave, byte for byte;
//! - "out of order" names the id that really is next, and "conflict" only comes where the id was
//!   executed with another body: never to a correct client;
//! - "no session" never comes to a correct client whose session is open, "reply gone" only for
//!   what it has acknowledged, "out of window" never.
//!
//! Where workers execute, a reply leaves before everything in front of it is executed: it is held
//! against the history as soon as that has come so far.
//!
//! Does not see what is lost on the way (`answers` judges what clients accept), nor replies that
//! a faulty replica sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::frame::READS;
use base::reply::ReplyHead;
use base::{ClientId, Frame, FrameId, Reader, ReplicaId, ReplyStatus, Seq, SessionId, limits};

use super::Verdict;
use super::executions::Executions;
use crate::observe::mark;

/// What was told, and what may be.
#[derive(Debug, Default)]
pub struct Replies {
    clients: u32,
    /// What each client has acknowledged, by stream, in any frame that it sent.
    acked: BTreeMap<(ClientId, SessionId, u32), u64>,
    counts: Counts,
    /// Whether replicas may answer before all that is in front is executed.
    ahead: bool,
    /// What was answered so, by its number.
    early: BTreeMap<Seq, Vec<Early>>,
}

/// A reply to what is executed before what is in front of it.
#[derive(Clone, Debug)]
struct Early {
    who: (ReplicaId, bool),
    frame: FrameId,
    content: Arc<Vec<u8>>,
}

/// How often each kind of reply was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Results.
    pub executed: u64,
    /// Openings and closings.
    pub sessions: u64,
    /// Refusals.
    pub refused: u64,
}

impl Replies {
    /// Nothing was told, and the clients below `clients` are correct; whether replicas may answer
    /// what is not the next to be executed.
    #[must_use]
    pub fn new(clients: u32, ahead: bool) -> Replies {
        Replies { clients, ahead, ..Replies::default() }
    }

    /// A client sends a frame.
    pub fn sends(&mut self, frame: &Frame) {
        let id = frame.id();
        let acked = self.acked.entry((id.client, id.session, id.stream)).or_default();
        *acked = frame.ack().max(*acked);
    }

    /// How often each kind of reply was given.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// `replica` answers `frame`; `sound`: its results must be right. If everything in front of
    /// the frame is not executed anywhere, that is looked at later.
    ///
    /// # Errors
    /// See [`Replies::says`].
    pub fn hears(
        &mut self,
        history: &Executions,
        who: (ReplicaId, bool),
        frame: FrameId,
        content: &Arc<Vec<u8>>,
    ) -> Verdict {
        let head = ReplyHead::peek(content).ok().map(|(head, _)| head);
        let early = head.filter(|head| {
            let ordered = frame.stream & READS == 0 && head.seq > Seq(0);
            self.ahead && ordered && history.at(head.seq).is_none()
        });
        let Some(head) = early else { return self.says(history, who, frame, content) };
        let content = Arc::clone(content);
        self.early.entry(head.seq).or_default().push(Early { who, frame, content });
        Ok(())
    }

    /// Everything up to `upto` is executed somewhere.
    ///
    /// # Errors
    /// When what was answered before is not what came of it.
    pub fn proceed(&mut self, history: &Executions, upto: Seq) -> Verdict {
        while let Some(first) = self.early.first_entry().filter(|first| *first.key() <= upto) {
            for Early { who, frame, content } in first.remove() {
                self.says(history, who, frame, &content)?;
            }
        }
        Ok(())
    }

    /// `replica` answers `frame`; `sound`: its results must be right.
    ///
    /// # Errors
    /// When that is not what was executed, or not what is to be said.
    pub fn says(
        &mut self,
        history: &Executions,
        (replica, sound): (ReplicaId, bool),
        frame: FrameId,
        content: &[u8],
    ) -> Verdict {
        let Ok((head, results)) = ReplyHead::peek(content) else {
            return Err(format!("{replica:?} answers {frame:?} with what is no reply"));
        };
        let wrong = |why: String| Err(format!("{replica:?} answers {head:?}: {why}"));
        if head.frame != frame {
            return wrong(format!("it is about {frame:?}"));
        }
        match head.status {
            // What a read without an order may see is for its client to be judged by.
            ReplyStatus::Executed | ReplyStatus::Unread if frame.stream & READS != 0 => Ok(()),
            ReplyStatus::Executed => {
                self.counts.executed += 1;
                executed(history, &head, results, sound).or_else(wrong)
            }
            ReplyStatus::TooLarge => {
                self.counts.executed += 1;
                let place = history.place(frame);
                let right = place.is_some_and(|(seq, _)| seq == head.seq);
                if right { Ok(()) } else { wrong(format!("it executed at {place:?}")) }
            }
            ReplyStatus::Opened => {
                self.counts.sessions += 1;
                let opened = history.session(frame.client, frame.session);
                let right = opened.is_some_and(|(seq, _)| seq == head.seq);
                if right { Ok(()) } else { wrong(format!("it was opened at {opened:?}")) }
            }
            ReplyStatus::Closed => {
                self.counts.sessions += 1;
                Ok(())
            }
            _ => {
                self.counts.refused += 1;
                if frame.client.0 < self.clients {
                    return self.refused(history, &head).or_else(wrong);
                }
                Ok(())
            }
        }
    }

    /// A correct client is refused something.
    fn refused(&self, history: &Executions, head: &ReplyHead) -> Verdict {
        let ReplyHead { frame, seq, status, .. } = *head;
        match status {
            ReplyStatus::OutOfOrder(expected) => {
                let before = |id: u64| {
                    let place = history.place(FrameId { id, ..frame });
                    place.is_some_and(|(at, _)| at <= seq)
                };
                let executed = expected <= 1 || before(expected - 1);
                let next = history.place(FrameId { id: expected, ..frame });
                // It may come later in the same batch.
                let right = executed && next.is_none_or(|(at, _)| at >= seq) && frame.id > expected;
                if right { Ok(()) } else { Err(format!("{expected} is at {next:?}")) }
            }
            ReplyStatus::NoSession => {
                let opened = history.session(frame.client, frame.session);
                // Outside the total order it may come from a replica that is behind.
                let was = opened.is_some_and(|(at, closed)| !closed && (seq == Seq(0) || at < seq));
                if was { Err(format!("the session is open: {opened:?}")) } else { Ok(()) }
            }
            ReplyStatus::ReplyGone => {
                let stream = (frame.client, frame.session, frame.stream);
                let acked = self.acked.get(&stream).copied().unwrap_or_default();
                if frame.id > acked { Err(format!("only {acked} is acknowledged")) } else { Ok(()) }
            }
            ReplyStatus::Conflict | ReplyStatus::OutOfWindow => {
                Err("a correct client does not do that".into())
            }
            _ => Ok(()),
        }
    }
}

/// A reply with results.
fn executed(history: &Executions, head: &ReplyHead, results: &[u8], sound: bool) -> Verdict {
    let Some((seq, first)) = history.place(head.frame) else {
        return Err("it never executed".into());
    };
    if seq != head.seq {
        return Err(format!("it executed at {seq:?}"));
    }
    let mut reader = Reader::new(results);
    for index in (first..).take(head.count as usize) {
        let Ok(result) = reader.sized(limits::REPLY_BYTES_MAX, "result") else {
            return Err("results are missing".into());
        };
        let execution = history.execution((seq, index)).filter(|one| one.frame == head.frame);
        let Some(execution) = execution else {
            return Err("more results than operations".into());
        };
        if sound && execution.result != mark(result) {
            return Err(format!("the result of {execution:?} was another"));
        }
    }
    let next = history.execution((seq, first + head.count));
    if !reader.is_empty() || next.is_some_and(|one| one.frame == head.frame) {
        return Err("not as many results as operations".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Execution;
    use crate::oracles::executions::Turn;
    use crate::oracles::testing::{batch, frame, open};
    use base::{AgreedTime, Reply, Writer};

    const SEQ: Seq = Seq(2);

    /// Client 0 has opened its session at 1; its first frame was executed at 2.
    fn history() -> Executions {
        let mine = frame(0, 1, &[b"op"]);
        let batches = [batch(&[open(0)]), batch(std::slice::from_ref(&mine))];
        let time = AgreedTime(101);
        let (index, op, result) = (1, mark(b"op"), mark(b"result"));
        let saw = [Execution { seq: SEQ, index, time, frame: mine.id(), op, result }];
        let replica = ReplicaId(0);
        let turn = Turn { replica, sound: true, upto: SEQ, time, saw: &saw };
        let mut history = Executions::new(1);
        let at = |seq: Seq| batches.get(seq.0 as usize - 1).map(|batch| &**batch);
        assert_eq!(history.executes(&turn, at, |_, _, _| Ok(())), Ok(()));
        history
    }

    fn says(id: u64, seq: u64, status: ReplyStatus, result: Option<&[u8]>) -> Verdict {
        let (frame, content) = reply(id, seq, status, result);
        Replies::new(1, false).says(&history(), (ReplicaId(3), true), frame, &content)
    }

    fn reply(
        id: u64,
        seq: u64,
        status: ReplyStatus,
        result: Option<&[u8]>,
    ) -> (FrameId, Arc<Vec<u8>>) {
        let frame = FrameId { id, ..frame(0, 1, &[b"op"]).id() };
        let mut results = Vec::new();
        if let Some(result) = result {
            Writer::new(&mut results).sized(result);
        }
        let count = u32::from(result.is_some());
        let reply = Reply { frame, seq: Seq(seq), status, count, results };
        let mut content = Vec::new();
        reply.encode(&mut content);
        (frame, Arc::new(content))
    }

    #[test]
    fn a_reply_ahead_of_the_history_is_judged_once_that_has_come_there() {
        let (history, before) = (history(), Executions::new(1));
        let later = |result: &[u8]| {
            let (frame, content) = reply(1, 2, ReplyStatus::Executed, Some(result));
            let mut replies = Replies::new(1, true);
            let heard = replies.hears(&before, (ReplicaId(3), true), frame, &content);
            assert_eq!(heard.and(replies.proceed(&before, Seq(1))), Ok(()), "nobody knows yet");
            replies.proceed(&history, Seq(2))
        };
        assert_eq!(later(b"result"), Ok(()));
        assert!(later(b"resulT").is_err());
        let (frame, content) = reply(1, 2, ReplyStatus::Executed, Some(b"result"));
        let heard = Replies::new(1, false).hears(&before, (ReplicaId(3), true), frame, &content);
        assert!(heard.is_err(), "nobody has workers");
    }

    #[test]
    fn results_are_those_of_the_execution() {
        let ok = ReplyStatus::Executed;
        assert_eq!(says(1, 2, ok, Some(b"result")), Ok(()));
        assert!(says(1, 2, ok, Some(b"resulT")).is_err(), "another result");
        assert!(says(1, 3, ok, Some(b"result")).is_err(), "another number");
        assert!(says(1, 2, ok, None).is_err(), "no result");
        assert!(says(2, 2, ok, Some(b"result")).is_err(), "never executed");
        assert!(says(2, 2, ReplyStatus::TooLarge, None).is_err(), "never executed either");
        assert_eq!(says(0, 1, ReplyStatus::Opened, None), Ok(()));
        assert!(says(0, 2, ReplyStatus::Opened, None).is_err(), "opened before that");
    }

    #[test]
    fn a_correct_client_is_not_refused_what_is_its_own() {
        assert!(says(2, 3, ReplyStatus::NoSession, None).is_err());
        assert!(says(2, 0, ReplyStatus::NoSession, None).is_err());
        assert_eq!(says(2, 1, ReplyStatus::NoSession, None), Ok(()), "before it was opened");
        assert!(says(1, 3, ReplyStatus::ReplyGone, None).is_err(), "not acknowledged");
        assert!(says(1, 3, ReplyStatus::Conflict, None).is_err());
        assert!(says(1, 3, ReplyStatus::OutOfWindow, None).is_err());
        assert_eq!(says(3, 3, ReplyStatus::OutOfOrder(2), None), Ok(()));
        assert!(says(3, 3, ReplyStatus::OutOfOrder(1), None).is_err(), "that was executed");
        assert!(says(4, 3, ReplyStatus::OutOfOrder(3), None).is_err(), "2 is missing");
        assert!(says(2, 3, ReplyStatus::OutOfOrder(2), None).is_err(), "it is next");
    }
}
