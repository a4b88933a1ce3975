//! Rest: when nobody asks anything, hardly anything happens, whoever lies.
//!
//! A livelock shows here even when it stops nobody: replicas that ask each other the same again
//! and again, change views for nothing, or tell each other of what everybody knows.

use std::collections::BTreeMap;

use base::{PillarId, ReplicaId, Seq, Span};
use proto::pbft::Leaders;
use proto::pbft::msg::{ENDORSE_MAX, Message};

use crate::adversary::Kind;
use crate::measures::Measure;
use crate::options::Options;
use crate::world::World;

/// What has begun may come to its end first: recoveries, and doubts about a leader (L22), which
/// last for a window of ten seconds without load.
const SETTLES: Span = Span::secs(15);
/// How long a group is looked at.
const REST: Span = Span::secs(10);

/// Bytes that a message may have on average, but for ENDORSE and OWED: about as many as one of
/// those that names eighteen frames.
const MESSAGE_BYTES: u64 = 1_200;
/// Bytes of an ENDORSE, and of an OWED, that names as many frames as it may.
const NAMES_BYTES: u64 = 13 + 64 * ENDORSE_MAX as u64;
/// For so long a replica keeps a checkpoint that was asked for.
const HELD: Span = Span::secs(5);
/// What one number takes between two replicas: its proposal, a PREPARE and a COMMIT, and as much
/// again where messages are lost.
const PER_NUMBER: u64 = 6;

/// What replicas did while they were looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loads {
    /// Turns of each lane, inputs included.
    turns: BTreeMap<(ReplicaId, PillarId), u64>,
    /// What each lane, and on its links the rest of its replica, sent to each other replica.
    sent: BTreeMap<(ReplicaId, PillarId, ReplicaId), Sent>,
}

/// Messages of each kind, and their bytes.
type Sent = BTreeMap<Kind, (u64, u64)>;

impl World {
    /// A lane of `replica` has its turn.
    pub(crate) fn count_turn(&mut self, replica: ReplicaId, pillar: PillarId) {
        if let Some(loads) = &mut self.loads {
            *loads.turns.entry((replica, pillar)).or_default() += 1;
        }
    }

    /// `replica` sends a message to one other.
    pub(crate) fn count_message(
        &mut self,
        (from, pillar, to): (ReplicaId, PillarId, ReplicaId),
        message: &Message,
    ) {
        if let Some(loads) = &mut self.loads {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let sent = loads.sent.entry((from, pillar, to)).or_default();
            let of_kind = sent.entry(Kind::of(message)).or_default();
            *of_kind = (of_kind.0 + 1, of_kind.1 + bytes.len() as u64);
        }
    }

    /// Lets time pass in which no correct client asks anything, and looks at what happens.
    ///
    /// # Panics
    /// When too much does.
    pub(crate) fn rest(&mut self) {
        self.run_for(SETTLES, |_| false);
        let (correct, before) = (self.correct(), (self.highest_view(), self.furthest()));
        let left = self.left_over();
        self.loads = Some(Loads::default());
        self.run_for(REST, |_| false);
        let loads = self.loads.take().unwrap_or_default();
        let begun = self.highest_view() - before.0;
        let ordered = self.furthest() - before.1;
        let left = left.min(self.frames_ordered(before.1));
        self.note(|| {
            format!("## at rest: {begun} views, {ordered} numbers, {left} for frames, {loads:?}")
        });
        self.measures.note(Measure::RestViews, begun);
        let most = self.at_most() + self.again(begun) + self.driven(ordered, left);
        let peers = u64::from(self.options.n - 1);
        for ((replica, pillar), turns) in &loads.turns {
            if correct.contains(replica) {
                // What comes from liars counts, too.
                let turns = turns.div_ceil(2 * peers);
                self.measures.note(Measure::RestTurns, turns);
                self.measures.note(Measure::RestShare, 100 * turns / most);
                assert!(turns <= most, "{replica:?} {pillar:?} does not come to rest: {loads:?}");
            }
        }
        for ((from, pillar, to), sent) in &loads.sent {
            // Who is cut off beside the core asks on and on, and those who hear it answer.
            if correct.contains(from) && correct.contains(to) {
                let messages: u64 = sent.values().map(|(messages, _)| messages).sum();
                let of = |kind: &Kind| sent.get(kind).copied().unwrap_or_default();
                let (endorse, owed) = (of(&Kind::Endorse), of(&Kind::Owed));
                let names = endorse.1 + owed.1;
                let bytes: u64 = sent.values().map(|(_, bytes)| bytes).sum();
                self.measures.note(Measure::RestMessages, messages);
                self.measures.note(Measure::RestBytes, bytes);
                // What is endorsed is said to be owed, too, as often.
                let busiest = (messages - owed.0).max((bytes - names) / MESSAGE_BYTES).max(owed.0);
                self.measures.note(Measure::RestShare, 100 * busiest / most);
                let too_much = busiest > most || names > self.names_at_most();
                assert!(!too_much, "{from:?} {pillar:?} tells {to:?} too much: {sent:?}");
            }
        }
        let views = self.views_at_most();
        assert!(begun <= views, "{begun} views at rest: {}", self.describe());
    }

    /// Views that may begin at rest. One that somebody correct has wished for since before, or
    /// wishes for beside the core, begins when a liar wishes for it, too; and who leads the next
    /// ones may be away. So it was in 3 of 8,000 seeds. Where leaders rotate, each who is away may
    /// be let back at a number that is due by now, and end one more before it is excluded again,
    /// for longer: liars that are cut off and fetch drive an idle group there (swarm seed 4402028).
    fn views_at_most(&self) -> u64 {
        let away = u64::from(self.options.n) - self.correct().len() as u64;
        match self.options.leaders {
            Leaders::Fixed => 1 + away,
            Leaders::Rotating => 1 + 2 * away,
        }
    }

    /// Messages that a lane may send to each other replica, beside its OWEDs, and as many of these:
    /// an ENDORSE whenever a leader is looked at closely (L22), eight times in a fifth of T, which
    /// a hostile client keeps up that shows many frames to some only, and some that everybody
    /// repeats once or twice a second.
    fn at_most(&self) -> u64 {
        40 * REST.0 / self.options.view_timeout.0 + 200
    }

    /// Bytes of ENDORSE and OWED: a whole one of each in each quarter of T, which a hostile client
    /// and liars keep up for as long as its frames stay (L16).
    fn names_at_most(&self) -> u64 {
        2 * NAMES_BYTES * (1 + 4 * REST.0 / self.options.view_timeout.0)
    }

    /// The same, for views that begin at rest: each orders again what was in the window.
    fn again(&self, begun: u64) -> u64 {
        PER_NUMBER * begun * self.options.window / u64::from(self.options.pillars)
    }

    /// The same, for the share of a lane in the `ordered` numbers to which those beside the core
    /// may drive an idle group, liars or replicas that are cut off from most. They ask each correct
    /// replica for one checkpoint after the other; each is kept for 5 s, and the group is driven
    /// there: two windows away and four intervals, at most (F3). What a hostile client has left
    /// behind may be ordered, too (`left`). Where there is neither, nobody has a reason to go on.
    fn driven(&self, ordered: u64, left: u64) -> u64 {
        let Options { n, window, checkpoint_interval, pillars, .. } = self.options;
        let correct = self.correct().len() as u64;
        let held = (REST.0.div_ceil(HELD.0) + 1) * correct * (u64::from(n) - correct);
        let numbers = ordered.min(held * (2 * window + 4 * checkpoint_interval) + left);
        PER_NUMBER * numbers / u64::from(pillars)
    }

    /// Numbers that frames can still take which wait anywhere. Those of a client that divides the
    /// replicas are held back for ten seconds (L24b), and again each time that it is found out by
    /// what was fetched for the last of them: they are there for a minute, and may be ordered long
    /// after the last was sent. Whoever got one again before it was refused has it ordered once
    /// more (L3c).
    fn left_over(&self) -> u64 {
        let mut frames = vec![0; usize::from(self.options.pillars)];
        for replica in self.correct() {
            let lanes = &self.replicas[usize::from(replica.0)].lanes;
            for (most, lane) in frames.iter_mut().zip(lanes) {
                *most = lane.holdings().frames.names.max(*most);
            }
        }
        2 * self.taken_by_one() * frames.iter().sum::<usize>() as u64
    }

    /// Numbers for one batch: one in all pillars, or, where leaders rotate, what is left of the
    /// interval for which it is dealt to one of them, who may have one number there (L27).
    fn taken_by_one(&self) -> u64 {
        match self.options.leaders {
            Leaders::Fixed => u64::from(self.options.pillars),
            Leaders::Rotating => self.options.checkpoint_interval,
        }
    }

    /// Numbers above `before` that frames took, and those that had to be filled beside them and
    /// beside the last one before.
    fn frames_ordered(&self, before: u64) -> u64 {
        let numbers = (before + 1..=self.furthest()).map(Seq);
        self.taken_by_one() * (1 + self.checker.with_frames(numbers))
    }

    /// How far a correct replica has executed, at most.
    fn furthest(&self) -> u64 {
        self.correct().into_iter().map(|replica| self.executed(replica).0).max().unwrap_or(0)
    }

    /// The highest view of a correct replica.
    pub(crate) fn highest_view(&self) -> u64 {
        self.correct().into_iter().map(|replica| self.view(replica).0).max().unwrap_or(0)
    }
}
