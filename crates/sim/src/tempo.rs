//! How fast the parts of a replica are: how late each hears the others, how many inputs come
//! before a turn, and how long the stage executes, all from the seed.
//!
//! A thread of `rt` takes all that there is, from links and rings, and looks at its timers once
//! behind that: so in some lives a lane and the coordinator have their turn some time after the
//! first input that it is for, and whatever comes meanwhile is in front of it. The stage executes
//! a bounded number of operations in one go and hears nobody until they are done, so in some
//! lives operations take time: what comes meanwhile waits and is taken all at once, and what
//! follows from them is told when they are over. A stage that is so late has a full ring now and
//! then, and what may be dropped there is dropped: [`ToStage::Resend`] and [`ToStage::Read`],
//! nothing else.
//!
//! Only in the worlds that say so ([`crate::options::Inside::late`]). Elsewhere each input has its
//! turn at once, and executing takes no time.

use std::collections::{BTreeMap, VecDeque};

use base::{ReplicaId, Span, Time, ToStage};

use crate::events::{Life, Part};
use crate::options::Options;
use crate::prng::{Prng, Ratio};

/// Most microseconds from an input to the turn that is for it.
const TURN_AFTER_US: u64 = 200;
/// Most microseconds that an operation takes, where there is time to be taken: one of these.
const OP_US: [u64; 3] = [20, 200, 2_000];
/// Most microseconds of an operation once the faults are over.
const CALM_OP_US: u64 = 20;
/// How often a stage that is late has a full ring.
const FULL: Ratio = Ratio(1, 20);

/// How fast the parts of one life of a replica are.
pub(crate) struct Tempo {
    /// When the last message arrives on each link between parts.
    arrivals: BTreeMap<(Part, Part), Time>,
    /// A further delay of everything that a part is told, in microseconds. The log is told
    /// nothing: what is written takes longer.
    sluggish: BTreeMap<Part, u64>,
    /// Of its own: a seed has the same faults whatever takes its time.
    prng: Prng,
    /// Turns come after inputs.
    turns_later: bool,
    /// Most microseconds that the stage takes for an operation, if it takes any.
    op_us: Option<u64>,
    /// Until then the stage executes.
    busy_until: Time,
    /// What the stage has been told since it began with that.
    inbox: VecDeque<ToStage>,
}

impl Tempo {
    pub(crate) fn new(options: &Options, me: ReplicaId, life: Life) -> Tempo {
        let own = u64::from(me.0) << 32 | u64::from(life);
        let mut prng = Prng::new(own ^ Prng::new(options.seed ^ 0x7e39).next_u64());
        let turns_later = options.inside.late && prng.chance(Ratio(1, 2));
        let slow = options.inside.late && prng.chance(Ratio(1, 3));
        let op_us = slow.then(|| OP_US[prng.below(OP_US.len() as u64) as usize]);
        Tempo {
            arrivals: BTreeMap::new(),
            sluggish: BTreeMap::new(),
            prng,
            turns_later,
            op_us,
            busy_until: Time::ZERO,
            inbox: VecDeque::new(),
        }
    }

    /// From now on `part` hears everything, or does what it does, so much later.
    pub(crate) fn delay(&mut self, part: Part, us: u64) {
        self.sluggish.insert(part, us);
    }

    /// By how much, in microseconds.
    pub(crate) fn delay_of(&self, part: Part) -> u64 {
        self.sluggish.get(&part).copied().unwrap_or(0)
    }

    /// The faults are over: whatever takes its time takes little.
    pub(crate) fn calm_down(&mut self) {
        self.op_us = self.op_us.map(|us| us.min(CALM_OP_US));
    }

    /// When a message arrives that one part sends another, and that is `us` under way: in order,
    /// and not before the stage is done with what it says.
    pub(crate) fn arrives(&mut self, (from, to): (Part, Part), now: Time, us: u64) -> Time {
        let begins = if from == Part::Stage { now.max(self.busy_until) } else { now };
        let us = us + self.delay_of(to);
        let last = self.arrivals.entry((from, to)).or_insert(Time::ZERO);
        *last = begins.after(Span::micros(us)).max(*last);
        *last
    }

    /// Whether a message to the stage finds no room, and need not.
    pub(crate) fn drops(&mut self, message: &ToStage) -> bool {
        let late = self.op_us.is_some() || self.delay_of(Part::Stage) > 0;
        let lossy = matches!(message, ToStage::Resend { .. } | ToStage::Read { .. });
        late && lossy && self.prng.chance(FULL)
    }

    /// When the turn is that an input of now is for, if it does not follow at once.
    pub(crate) fn turn_behind(&mut self, now: Time) -> Option<Time> {
        let us = self.turns_later.then(|| self.prng.between(0, TURN_AFTER_US))?;
        Some(now.after(Span::micros(us)))
    }

    /// The stage is told something.
    pub(crate) fn tell_stage(&mut self, message: ToStage) {
        self.inbox.push_back(message);
    }

    /// Until when the stage executes and hears nobody, if it does.
    pub(crate) fn busy(&self, now: Time) -> Option<Time> {
        (self.busy_until > now).then_some(self.busy_until)
    }

    /// The next message for the stage, which has time for it. What it is told of the time is what
    /// it is now.
    pub(crate) fn next_message(&mut self, now: Time) -> Option<ToStage> {
        match self.inbox.pop_front()? {
            ToStage::Tick(_) => Some(ToStage::Tick(now)),
            message => Some(message),
        }
    }

    /// Of how many operations a turn of the stage is at most, if it takes its time.
    pub(crate) fn stage_turn(&mut self, ops_max: u64) -> Option<usize> {
        self.op_us.map(|_| self.prng.between(1, ops_max) as usize)
    }

    /// The stage begins now with so many operations, and what belongs to them. When it is done.
    pub(crate) fn work(&mut self, now: Time, ops: u64) -> Time {
        let us = self.prng.between(0, self.op_us.unwrap_or(0));
        self.busy_until = now.after(Span::micros(us * (ops + 1)));
        self.busy_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Inside;
    use base::Seq;

    fn late(seed: u64) -> Options {
        let options = Options::default();
        Options { seed, inside: Inside { late: true, ..options.inside }, ..options }
    }

    fn tempos() -> impl Iterator<Item = Tempo> {
        (0..50).map(|seed| Tempo::new(&late(seed), ReplicaId(0), 0))
    }

    #[test]
    fn worlds_that_do_not_say_so_take_no_time() {
        for seed in 0..50 {
            let mut tempo = Tempo::new(&Options { seed, ..Options::default() }, ReplicaId(1), 2);
            assert_eq!((tempo.turn_behind(Time(5)), tempo.stage_turn(64)), (None, None));
        }
        let some = |what: fn(&mut Tempo) -> bool| {
            tempos().filter_map(|mut t| what(&mut t).then_some(())).count()
        };
        let turns = some(|tempo| tempo.turn_behind(Time(5)).is_some());
        let stages = some(|tempo| tempo.stage_turn(64).is_some());
        assert!((10..40).contains(&turns) && (5..30).contains(&stages), "{turns} {stages}");
    }

    #[test]
    fn a_busy_stage_answers_when_it_is_done_and_messages_stay_in_order() {
        let mut tempo = tempos().find(|tempo| tempo.op_us == Some(2_000)).expect("one is slow");
        let done = (0..100).map(|_| tempo.work(Time(1_000), 10)).max().expect("some");
        assert!(done > Time(1_000));
        tempo.busy_until = done;
        assert_eq!((tempo.busy(Time(1_000)), tempo.busy(done)), (Some(done), None));
        let lane = Part::Coordinator;
        assert_eq!(tempo.arrives((Part::Stage, lane), Time(1_000), 0), done);
        assert_eq!(tempo.arrives((lane, Part::Stage), Time(1_000), 0), Time(1_000));
        tempo.delay(Part::Stage, 7);
        assert_eq!(tempo.arrives((lane, Part::Stage), Time(1_000), 1), Time(9_000));
        tempo.delay(Part::Stage, 0);
        assert_eq!(tempo.arrives((lane, Part::Stage), Time(1_000), 1), Time(9_000));
    }

    #[test]
    fn a_full_ring_drops_what_is_asked_again_and_nothing_else() {
        let mut tempo = tempos().find(|tempo| tempo.op_us.is_none()).expect("one takes no time");
        let frame = crate::oracles::testing::frame(1, 1, &[b"x"]).id();
        let resend = ToStage::Resend { pillar: base::PillarId(0), frame };
        let drops = |tempo: &mut Tempo, message| (0..200).any(|_| tempo.drops(message));
        assert!(!drops(&mut tempo, &resend), "nothing is late");
        tempo.delay(Part::Stage, 1);
        assert!(drops(&mut tempo, &resend));
        let deliver = ToStage::Deliver { seq: Seq(1), batch: crate::oracles::testing::batch(&[]) };
        assert!(!drops(&mut tempo, &deliver));
    }
}
