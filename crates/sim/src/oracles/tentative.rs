//! What is tentative (design, trap 7): replies of one view say the same, and what enough correct
//! replicas have said a client accepts with the help of liars, so it comes to be.
//!
//! Looks at every reply of correct replicas that says in which view it is prepared. In one view
//! only one batch is prepared at a number, and everything below it is committed: so no two say
//! different things about one frame at one number; but replies name frames by their ids alone, and
//! a client that is not correct may have two frames of one id in a batch. A client wants a quorum
//! of them; all but f are correct. What so many say is held against the history when that has come
//! so far, as if it had been said for good.
//!
//! Does not see whether a replica had reason to answer (`journal`, `justification`).

use std::collections::BTreeMap;
use std::sync::Arc;

use base::reply::ReplyHead;
use base::{FrameId, Quorums, ReplicaId, ReplyStatus, Seq, View, VoteSet};

use super::Verdict;

/// What was said tentatively.
#[derive(Debug)]
pub struct Tentative {
    /// So many correct replicas, and f liars, are a quorum.
    enough: usize,
    /// Principals below this one are correct.
    clients: u32,
    /// What is said of each; more than one thing of those of clients that are not correct.
    said: BTreeMap<(View, FrameId, Seq), Vec<Said>>,
    /// What a client may have accepted, and nobody has executed for good.
    due: Vec<Due>,
}

#[derive(Debug)]
struct Said {
    content: Arc<Vec<u8>>,
    by: VoteSet,
    first: ReplicaId,
}

/// What has to come to be.
#[derive(Clone, Debug)]
pub struct Due {
    /// The frame.
    pub frame: FrameId,
    /// Where it was executed.
    pub seq: Seq,
    /// What was answered.
    pub content: Arc<Vec<u8>>,
}

impl Tentative {
    /// Nothing is said yet. Principals below `clients` are correct.
    #[must_use]
    pub fn new(quorums: Quorums, clients: u32) -> Tentative {
        let enough = quorums.quorum() - usize::from(quorums.f());
        Tentative { enough, clients, said: BTreeMap::new(), due: Vec::new() }
    }

    /// `replica`, whose state is sound, answers `frame` tentatively, as prepared in `view`.
    ///
    /// # Errors
    /// When somebody says something else.
    pub fn says(
        &mut self,
        replica: ReplicaId,
        view: View,
        frame: FrameId,
        content: &Arc<Vec<u8>>,
    ) -> Verdict {
        let Ok((head, _)) = ReplyHead::peek(content) else {
            return Err(format!("{replica:?} answers {frame:?} with what is no reply"));
        };
        // What is said outside the total order changes with the time at which it is asked; and a
        // client that sends two frames under one id has one of them refused beside the other.
        if head.seq == Seq(0) || head.status == ReplyStatus::Conflict {
            return Ok(());
        }
        let all = self.said.entry((view, frame, head.seq)).or_default();
        if let Some(Said { content: other, first, .. }) = all.first()
            && other != content
            && frame.client.0 < self.clients
        {
            let before = ReplyHead::peek(other).map(|(head, _)| head);
            return Err(format!(
                "{first:?} and {replica:?} answer {head:?} differently in {view:?}, the first \
                 {before:?}"
            ));
        }
        let place = all.iter().position(|said| said.content == *content).unwrap_or(all.len());
        if place == all.len() {
            all.push(Said { content: Arc::clone(content), by: VoteSet::EMPTY, first: replica });
        }
        let said = &mut all[place];
        if said.by.insert(replica) && said.by.len() == self.enough {
            let (seq, content) = (head.seq, Arc::clone(content));
            self.due.push(Due { frame, seq, content });
        }
        Ok(())
    }

    /// What is due by now, that the history has come to `upto`.
    pub fn due(&mut self, upto: Seq) -> Vec<Due> {
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|d| d.seq <= upto);
        self.due = later;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{ClientId, Reply, SessionId};

    fn says(all: &mut Tentative, who: u16, view: u64, fill: u8) -> Verdict {
        answers(all, (who, 0), view, fill)
    }

    fn answers(all: &mut Tentative, (who, client): (u16, u32), view: u64, fill: u8) -> Verdict {
        let frame = FrameId { client: ClientId(client), session: SessionId(1), stream: 0, id: 1 };
        let results = [&[1, 0, 0, 0][..], &[fill]].concat();
        let (seq, status, count) = (Seq(7), ReplyStatus::Executed, 1);
        let mut content = Vec::new();
        Reply { frame, seq, status, count, results }.encode(&mut content);
        all.says(ReplicaId(who), View(view), frame, &Arc::new(content))
    }

    #[test]
    fn one_view_says_one_thing_and_what_enough_say_is_due() {
        let mut all = Tentative::new(Quorums::pbft(4, 1).expect("legal"), 1);
        assert_eq!(says(&mut all, 0, 1, 1), Ok(()));
        assert_eq!(says(&mut all, 0, 1, 1), Ok(()));
        assert_eq!(says(&mut all, 1, 2, 2), Ok(()), "another view");
        assert_eq!(all.due(Seq(9)).len(), 0, "one of a view is not enough");
        assert!(says(&mut all, 2, 1, 2).is_err());
        assert_eq!(says(&mut all, 2, 1, 1), Ok(()));
        assert_eq!(all.due(Seq(6)).len(), 0, "nobody is there yet");
        assert_eq!(all.due(Seq(7)).len(), 1);
        assert_eq!(all.due(Seq(7)).len(), 0);
    }

    /// Swarm seed 100321: refused for its order, and again after the frame before it, which stood
    /// between the two of its id in one batch.
    #[test]
    fn a_client_that_is_not_correct_may_have_two_answers_under_one_id() {
        let mut all = Tentative::new(Quorums::pbft(4, 1).expect("legal"), 1);
        for who in [0, 1] {
            assert_eq!(answers(&mut all, (who, 1), 1, 1), Ok(()));
            assert_eq!(answers(&mut all, (who, 1), 1, 2), Ok(()));
        }
        assert_eq!(all.due(Seq(7)).len(), 2, "both have to stand");
    }
}
