//! Every promise has its reasons (steps L6 to L8, L13, V11): a correct replica that votes, or
//! delivers, has heard what entitles it to that, from enough distinct replicas.
//!
//! This sees a wrong count long before it does harm: harm takes a quorum of accidents. Kept is
//! what each replica was told, by whom and for which digest; a sender that says two things counts
//! for both, as the core may have missed the first. The replica itself counts wherever it may.
//! What it was told outlives a restart that remembers, since records do. Not seen: reasons that
//! are not votes, such as trust in frames (`validity`), and certificates (`accountability`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base::batch::{batch_digest, null_digest};
use base::{Batch, BatchEntry, Digest, ReplicaId, Seq, View, VoteSet};
use proto::group::link::{Choice, Plan};
use proto::group::rules::Rules;
use proto::pbft::Roles;
use proto::pbft::msg::Message;

use super::Verdict;

/// Something that can be said for one digest at one number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Word {
    Proposal(View),
    Prepare(View),
    Commit(View),
    Decided,
}

type Heard = HashMap<(Seq, Digest, Word), VoteSet>;

/// What correct replicas have heard.
#[derive(Debug)]
pub struct Justification {
    rules: Rules,
    /// Who leads, in any view that nobody is excluded from.
    roles: Roles,
    heard: BTreeMap<ReplicaId, Heard>,
    /// The views in which COMMITs were heard for a number.
    views: BTreeMap<ReplicaId, HashMap<(Seq, Digest), Vec<View>>>,
    plans: BTreeMap<(ReplicaId, View), Arc<Plan>>,
    delivered: BTreeMap<ReplicaId, HashMap<Seq, Digest>>,
}

impl Justification {
    /// Nothing is heard yet.
    #[must_use]
    pub fn new(rules: Rules, roles: Roles) -> Justification {
        Justification {
            rules,
            roles,
            heard: BTreeMap::new(),
            views: BTreeMap::new(),
            plans: BTreeMap::new(),
            delivered: BTreeMap::new(),
        }
    }

    /// `replica` begins a new life; whether it knows what it has promised, and so why.
    pub fn reborn(&mut self, replica: ReplicaId, knows: bool) {
        if !knows {
            self.heard.remove(&replica);
            self.views.remove(&replica);
            self.delivered.remove(&replica);
            self.plans.retain(|(of, _), _| *of != replica);
        }
    }

    /// `replica` begins the view of this plan.
    pub fn installs(&mut self, replica: ReplicaId, plan: &Arc<Plan>) {
        self.plans.insert((replica, plan.view), Arc::clone(plan));
    }

    /// `to` hears `message` from `from`.
    pub fn hears(&mut self, to: ReplicaId, from: ReplicaId, message: &Message) {
        let group = self.rules.group;
        let (seq, digest, word) = match message {
            Message::PrePrepare { view, seq, proposal } => {
                (*seq, proposal.digest(group, *seq), Word::Proposal(*view))
            }
            Message::Prepare(vote) => (vote.seq, vote.digest, Word::Prepare(vote.view)),
            Message::Commit(vote) => {
                let key = (vote.seq, vote.digest);
                let views = self.views.entry(to).or_default().entry(key).or_default();
                if !views.contains(&vote.view) {
                    views.push(vote.view);
                }
                (vote.seq, vote.digest, Word::Commit(vote.view))
            }
            Message::Decided { seq, proposal } => {
                (*seq, proposal.digest(group, *seq), Word::Decided)
            }
            _ => return,
        };
        if from != to && from.0 < self.rules.quorums.n() {
            let heard = self.heard.entry(to).or_default();
            heard.entry((seq, digest, word)).or_default().insert(from);
        }
    }

    /// `replica` says `message` to others.
    ///
    /// # Errors
    /// When it has no reason to.
    pub fn says(&self, replica: ReplicaId, message: &Message) -> Verdict {
        let reason = match message {
            Message::Prepare(vote) => self.may_prepare(replica, vote.view, vote.seq, vote.digest),
            Message::Commit(vote) => {
                let word = Word::Prepare(vote.view);
                let heard = self.who(replica, (vote.seq, vote.digest, word));
                let plan = self.plans.get(&(replica, vote.view));
                if plan.is_some_and(|plan| plan.choice(vote.seq).is_some()) {
                    // Nobody has proposed it in this view.
                    heard.len() + 1 >= self.rules.quorums.quorum()
                } else {
                    // A PREPARE of the leader is not one.
                    let leader = self.leader(replica, vote.view, vote.seq);
                    let own = usize::from(replica != leader);
                    let backups = heard.iter().filter(|from| *from != leader).count() + own;
                    backups + 1 >= self.rules.quorums.quorum()
                }
            }
            _ => true,
        };
        if reason { Ok(()) } else { Err(format!("{replica:?} has no reason to say {message:?}")) }
    }

    /// `replica` delivers `batch` at `seq`.
    ///
    /// # Errors
    /// When it has no reason to.
    pub fn delivers(&mut self, replica: ReplicaId, seq: Seq, batch: &Batch) -> Verdict {
        let group = self.rules.group;
        let digest = match batch {
            Batch::Null => null_digest(group, seq),
            Batch::Frames { time, frames } => {
                let entry = |f: &Arc<base::Frame>| BatchEntry { id: f.id(), digest: f.digest() };
                let entries: Vec<BatchEntry> = frames.iter().map(entry).collect();
                batch_digest(group, seq, *time, &entries)
            }
        };
        let before = self.delivered.entry(replica).or_default().insert(seq, digest);
        let decided = self.count(replica, (seq, digest, Word::Decided));
        let (quorum, weak) = (self.rules.quorums.quorum(), self.rules.quorums.weak());
        let views = self.views.get(&replica).and_then(|views| views.get(&(seq, digest)));
        let committed =
            |view: &View| self.count(replica, (seq, digest, Word::Commit(*view))) + 1 >= quorum;
        let alone = quorum == 1;
        let reason = alone
            || before == Some(digest)
            || decided >= weak
            || views.is_some_and(|views| views.iter().any(committed));
        if reason { Ok(()) } else { Err(format!("{replica:?} has no reason to deliver {seq:?}")) }
    }

    /// Who leads `seq`, as `replica` knows the view.
    fn leader(&self, replica: ReplicaId, view: View, seq: Seq) -> ReplicaId {
        let mut roles = self.roles.clone();
        match self.plans.get(&(replica, view)) {
            Some(plan) => roles.install(plan),
            None => roles.begin(view),
        }
        roles.leader(seq)
    }

    fn who(&self, replica: ReplicaId, what: (Seq, Digest, Word)) -> VoteSet {
        let heard = self.heard.get(&replica).and_then(|heard| heard.get(&what));
        heard.copied().unwrap_or_default()
    }

    fn count(&self, replica: ReplicaId, what: (Seq, Digest, Word)) -> usize {
        self.who(replica, what).len()
    }

    fn may_prepare(&self, replica: ReplicaId, view: View, seq: Seq, digest: Digest) -> bool {
        // One correct backup of a weak quorum has it from the leader.
        let leader = self.leader(replica, view, seq);
        let backups = self.who(replica, (seq, digest, Word::Prepare(view)));
        let overheard = backups.iter().filter(|from| *from != leader).count();
        let proposed = self.who(replica, (seq, digest, Word::Proposal(view))).contains(leader)
            || overheard >= self.rules.quorums.weak();
        match self.plans.get(&(replica, view)) {
            Some(plan) if seq <= plan.start.seq => false,
            Some(plan) => match plan.choice(seq) {
                Some(Choice::Null) => digest == null_digest(self.rules.group, seq),
                Some(Choice::Digest(chosen)) => digest == chosen,
                None => proposed,
            },
            // A life may begin in a view that the last one has only written down.
            None => proposed || view > View(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracles::testing::{roles, rules};
    use base::StableCheckpoint;
    use proto::pbft::msg::{Proposal, Vote};

    const ME: ReplicaId = ReplicaId(1);
    const SEQ: Seq = Seq(5);

    fn vote(view: u64) -> Vote {
        let digest = Proposal::Null.digest(rules().group, SEQ);
        Vote { view: View(view), seq: SEQ, digest }
    }

    fn hears(oracle: &mut Justification, from: &[u16], message: &Message) {
        from.iter().for_each(|from| oracle.hears(ME, ReplicaId(*from), message));
    }

    #[test]
    fn votes_take_distinct_voters_of_one_view() {
        let mut oracle = Justification::new(rules(), roles());
        let commit = Message::Commit(vote(0));
        // The leader's own PREPARE is none, and one said three times is one.
        hears(&mut oracle, &[0, 0, 0], &Message::Prepare(vote(0)));
        assert!(oracle.says(ME, &commit).is_err());
        hears(&mut oracle, &[2, 3], &Message::Prepare(vote(4)));
        assert!(oracle.says(ME, &commit).is_err(), "of another view");
        hears(&mut oracle, &[2], &Message::Prepare(vote(0)));
        assert_eq!(oracle.says(ME, &commit), Ok(()));
        hears(&mut oracle, &[0, 0], &commit);
        assert!(oracle.delivers(ME, SEQ, &Batch::Null).is_err());
        let mut oracle = Justification::new(rules(), roles());
        hears(&mut oracle, &[0, 2], &commit);
        assert_eq!(oracle.delivers(ME, SEQ, &Batch::Null), Ok(()));
        oracle.reborn(ME, true);
        assert_eq!(oracle.delivers(ME, SEQ, &Batch::Null), Ok(()), "it is in its log");
        oracle.reborn(ME, false);
        hears(&mut oracle, &[3], &Message::Decided { seq: SEQ, proposal: Proposal::Null });
        assert!(oracle.delivers(ME, SEQ, &Batch::Null).is_err(), "one forwarder may lie");
    }

    #[test]
    fn a_backup_votes_for_what_its_leader_proposed_or_its_plan_fixed() {
        let mut oracle = Justification::new(rules(), roles());
        let says = |oracle: &Justification, view| oracle.says(ME, &Message::Prepare(vote(view)));
        let proposed = |view| {
            let proposal = Proposal::Null;
            Message::PrePrepare { view: View(view), seq: SEQ, proposal }
        };
        hears(&mut oracle, &[2, 3], &proposed(0));
        assert!(says(&oracle, 0).is_err(), "they do not lead");
        hears(&mut oracle, &[0], &proposed(0));
        assert_eq!(says(&oracle, 0), Ok(()));
        let (start, choices) = (StableCheckpoint::default(), Vec::new());
        oracle.installs(ME, &Arc::new(Plan { view: View(8), start, choices, excluded: vec![] }));
        hears(&mut oracle, &[2, 2], &Message::Prepare(vote(8)));
        assert!(says(&oracle, 8).is_err(), "one backup may lie, however often");
        hears(&mut oracle, &[3], &Message::Prepare(vote(8)));
        assert_eq!(says(&oracle, 8), Ok(()), "one of two has it from the leader");
        let start = StableCheckpoint::default();
        let choices = vec![Choice::Digest(Digest([9; 32])); 5];
        oracle.installs(ME, &Arc::new(Plan { view: View(4), start, choices, excluded: vec![] }));
        hears(&mut oracle, &[0], &proposed(4));
        assert!(says(&oracle, 4).is_err(), "the plan has another digest");
    }
}
