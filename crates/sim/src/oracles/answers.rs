//! Linearizability of everything that clients share (catalogue O6), and what was answered stays.
//!
//! The order of executions is the witness: an answer must be that of the operation's execution,
//! and whatever ended before something else began must stand before it. With the results right
//! (`reference`) that is linearizability of the whole history, over all objects at once, as it
//! goes along: no search is needed. `history` judges the counters by their values alone.
//!
//! Looks at what correct clients accept, by their own clocks. At the end, whoever is correct must
//! have executed everything that was answered. Does not see unanswered requests (`liveness`).

use std::collections::VecDeque;

use base::{ClientId, Seq, Time};

use super::Verdict;
use super::executions::{Executions, Place};
use super::reads::{Read, Reads};

/// What clients have accepted.
#[derive(Debug, Default)]
pub struct Answers {
    /// Whether clients may accept what nobody has executed for good.
    tentative: bool,
    /// What they have accepted and is not executed for good, in order of time, and what was
    /// accepted behind it.
    pending: VecDeque<Answer>,
    /// Ends of answered operations, in order of time, each with the last place up to it.
    ends: Vec<(Time, Place)>,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Who asked.
    pub client: ClientId,
    /// The mark of the operation.
    pub op: u64,
    /// The mark of the result.
    pub result: u64,
    /// What was read, if that was without an order.
    pub read: Option<Read>,
    /// When it was asked.
    pub began: Time,
    /// When it was accepted.
    pub ended: Time,
}

impl Answers {
    /// Nothing is accepted yet; whether answers may be tentative, or come before all that is in
    /// front of them is executed.
    #[must_use]
    pub fn new(tentative: bool) -> Answers {
        Answers { tentative, ..Answers::default() }
    }

    /// A correct client accepts an answer.
    ///
    /// # Errors
    /// When nothing was executed that gives it, or it stands in the wrong place. Where answers
    /// may be tentative, that is found out later.
    pub fn accepts(&mut self, saw: (&Executions, &Reads), answer: &Answer) -> Verdict {
        if !self.tentative {
            return self.judge(saw, answer);
        }
        self.pending.push_back(*answer);
        self.proceed(saw)
    }

    /// More is executed: what was accepted before that is looked at, in the order of time.
    ///
    /// # Errors
    /// Like [`Answers::accepts`].
    pub fn proceed(&mut self, saw: (&Executions, &Reads)) -> Verdict {
        while let Some(answer) = self.pending.front().copied()
            && (answer.read.is_some() || saw.0.operation(answer.client, answer.op).is_some())
        {
            self.pending.pop_front();
            self.judge(saw, &answer)?;
        }
        Ok(())
    }

    /// The last place of what had ended before `time`, and when.
    fn before(&self, time: Time) -> Option<(Time, Place)> {
        let before = self.ends.partition_point(|(ended, _)| *ended < time);
        before.checked_sub(1).map(|at| self.ends[at])
    }

    fn judge(&mut self, (history, reads): (&Executions, &Reads), answer: &Answer) -> Verdict {
        if let Some(read) = &answer.read {
            // The first place that it may have: what comes later has the more room.
            let from = self.before(answer.began).map_or((Seq(0), 0), |(_, place)| place);
            let place = reads.place(read, from).ok_or_else(|| {
                format!("{answer:?} is not what anybody could read from {from:?} on")
            })?;
            let last = self.ends.last().map_or(place, |(_, last)| *last.max(&place));
            self.ends.push((answer.ended, last));
            return Ok(());
        }
        let Some(place) = history.operation(answer.client, answer.op) else {
            return Err(format!("{answer:?} was never executed"));
        };
        let execution = history.execution(place);
        if execution.is_none_or(|one| one.result != answer.result) {
            return Err(format!("{answer:?} is not what {execution:?} gave"));
        }
        // What ended before this began must stand before it.
        if let Some((ended, last)) = self.before(answer.began)
            && last > place
        {
            return Err(format!("{answer:?} is at {place:?}; by {ended:?} {last:?} had ended"));
        }
        let last = self.ends.last().map_or(place, |(_, last)| *last.max(&place));
        self.ends.push((answer.ended, last));
        Ok(())
    }

    /// Whether something was accepted that nobody has executed for good.
    #[must_use]
    pub fn awaits(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether all that was accepted is executed for good.
    #[must_use]
    pub fn stand(&self) -> bool {
        self.pending.is_empty()
    }

    /// The last number of which anything was answered.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.ends.last().map_or(Seq(0), |(_, (seq, _))| *seq)
    }

    /// A correct replica, when all is over, has executed up to `executed`.
    ///
    /// # Errors
    /// When something was answered that it has not.
    pub fn kept(&self, executed: Seq) -> Verdict {
        if let Some(answer) = self.pending.front() {
            return Err(format!("{answer:?} was never executed"));
        }
        match executed < self.last() {
            true => {
                Err(format!("{:?} was answered, and {executed:?} is all there is", self.last()))
            }
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Execution, mark};
    use crate::oracles::executions::Turn;
    use crate::oracles::testing::{batch, frame, open};
    use base::{AgreedTime, ReplicaId};

    /// Operations "a" and "b" of client 0, in this order.
    fn history() -> Executions {
        let mine = frame(0, 1, &[b"a", b"b"]);
        let batches = [batch(&[open(0)]), batch(std::slice::from_ref(&mine))];
        let (seq, time, frame) = (Seq(2), AgreedTime(101), mine.id());
        let saw = [(1, b"a"), (2, b"b")].map(|(index, op)| {
            let (op, result) = (mark(op), u64::from(index));
            Execution { seq, index, time, frame, op, result }
        });
        let turn = Turn { replica: ReplicaId(0), sound: true, upto: seq, time, saw: &saw };
        let mut history = Executions::new(1);
        let at = |seq: Seq| batches.get(seq.0 as usize - 1).map(|batch| &**batch);
        assert_eq!(history.executes(&turn, at, |_, _, _| Ok(())), Ok(()));
        history
    }

    fn answer(op: &[u8], result: u64, (began, ended): (u64, u64)) -> Answer {
        let (op, began, ended) = (mark(op), Time(began), Time(ended));
        Answer { client: ClientId(0), op, result, read: None, began, ended }
    }

    #[test]
    fn answers_are_those_of_an_execution_and_keep_real_time() {
        let history = history();
        let accepts = |all: &[Answer]| {
            let mut answers = Answers::default();
            all.iter().try_for_each(|one| answers.accepts((&history, &Reads::default()), one))
        };
        assert_eq!(accepts(&[answer(b"a", 1, (1, 5)), answer(b"b", 2, (6, 9))]), Ok(()));
        assert_eq!(accepts(&[answer(b"b", 2, (1, 5)), answer(b"a", 1, (5, 9))]), Ok(()));
        let late = [answer(b"b", 2, (1, 5)), answer(b"a", 1, (6, 9))];
        assert!(accepts(&late).is_err(), "a began after b had ended, and stands before it");
        assert!(accepts(&[answer(b"a", 2, (1, 5))]).is_err(), "another result");
        assert!(accepts(&[answer(b"c", 1, (1, 5))]).is_err(), "never executed");
    }

    #[test]
    fn a_tentative_answer_is_judged_once_it_is_executed_and_must_be_in_the_end() {
        let (history, mut answers) = (history(), Answers::new(true));
        let before = Executions::new(1);
        assert_eq!(answers.accepts((&before, &Reads::default()), &answer(b"b", 2, (1, 5))), Ok(()));
        assert!(answers.kept(Seq(2)).is_err(), "not executed");
        assert_eq!(answers.accepts((&before, &Reads::default()), &answer(b"a", 1, (6, 9))), Ok(()));
        assert!(
            answers.proceed((&history, &Reads::default())).is_err(),
            "a began after b had ended"
        );
        let mut answers = Answers::new(true);
        assert_eq!(answers.accepts((&before, &Reads::default()), &answer(b"a", 2, (1, 5))), Ok(()));
        assert!(answers.proceed((&history, &Reads::default())).is_err(), "another result");
    }

    #[test]
    fn what_was_answered_must_be_there_at_the_end() {
        let mut answers = Answers::default();
        assert_eq!(
            answers.accepts((&history(), &Reads::default()), &answer(b"a", 1, (1, 5))),
            Ok(())
        );
        assert_eq!(answers.kept(Seq(2)), Ok(()));
        assert!(answers.kept(Seq(1)).is_err());
    }
}
