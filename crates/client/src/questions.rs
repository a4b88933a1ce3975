//! Who waits for a replica to say how it is.
//!
//! A replica answers the questions that it finds together once, and none while an earlier answer
//! of its waits to be read. So an answer is for all who wait for it. Not here: asking (`link`).

use base::ReplicaId;
use tokio::sync::oneshot;

use crate::error::StatusError;

/// What a replica says, or why it says nothing.
type Answer = Result<String, StatusError>;

/// The questions that no answer has come to.
#[derive(Debug, Default)]
pub(crate) struct Questions(Vec<(ReplicaId, oneshot::Sender<Answer>)>);

impl Questions {
    /// `replica` was asked.
    pub(crate) fn asked(&mut self, replica: ReplicaId, waiter: oneshot::Sender<Answer>) {
        // Whoever gave up must not stay: a replica may never answer.
        self.0.retain(|(_, waiter)| !waiter.is_closed());
        self.0.push((replica, waiter));
    }

    /// What came of asking `replica`.
    pub(crate) fn answer(&mut self, replica: ReplicaId, answer: &Answer) {
        for (_, waiter) in self.0.extract_if(.., |(of, _)| *of == replica) {
            // Who asked may have gone away meanwhile.
            drop(waiter.send(answer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ReplicaId = ReplicaId(1);

    fn ask(questions: &mut Questions, of: ReplicaId) -> oneshot::Receiver<Answer> {
        let (waiter, answer) = oneshot::channel();
        questions.asked(of, waiter);
        answer
    }

    #[test]
    fn an_answer_is_for_all_who_asked_that_replica() {
        let mut questions = Questions::default();
        let mut asked: Vec<_> = (0..3).map(|_| ask(&mut questions, ONE)).collect();
        let mut other = ask(&mut questions, ReplicaId(2));
        questions.answer(ONE, &Ok("well".into()));
        for answer in &mut asked {
            assert_eq!(answer.try_recv(), Ok(Ok("well".into())));
        }
        assert!(other.try_recv().is_err());
        let lost = Err(StatusError::Unreachable(ReplicaId(2)));
        questions.answer(ReplicaId(2), &lost);
        assert_eq!(other.try_recv(), Ok(lost));
        assert!(questions.0.is_empty());
    }

    #[test]
    fn a_replica_that_never_answers_costs_nothing_but_who_waits() {
        let mut questions = Questions::default();
        let mut waits = ask(&mut questions, ONE);
        for _ in 0..100 {
            drop(ask(&mut questions, ONE));
        }
        assert_eq!(questions.0.len(), 2);
        questions.answer(ONE, &Ok("at last".into()));
        assert_eq!(waits.try_recv(), Ok(Ok("at last".into())));
    }
}
