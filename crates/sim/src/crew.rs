//! The execution workers of a simulated replica: who is given which job, how long it takes, and
//! when the stage hears of it, all from the seed.
//!
//! What threads do in `rt::crew`, on virtual time: workers take jobs in turn, each job takes as
//! long as a generator says, and what is done waits until the stage is told. Like there, it
//! changes now and then whether operations are worth a hand-off; while they are not, they execute
//! on the stage's own thread, and tentatively where the group does that. A pause holds workers
//! up with everything else, and the end of a process takes along what they have.
//!
//! Not here: what may execute when (`exec`).

use std::collections::VecDeque;

use base::transfer::Part as StatePart;
use base::{ReplicaId, Span, Time, ToStage};
use exec::stage::{StageOutbox, Turn};
use exec::{Finished, Job, Stage};

use crate::coverage::Sight;
use crate::events::{Life, Part};
use crate::host::{CHECK_EVERY, Replica};
use crate::options::Options;
use crate::prng::{Prng, Ratio};
use crate::world::World;

/// Operations that a stage executes in one go.
const OPS_PER_TURN: usize = 64;
/// Jobs that are out, per worker: while one runs the next one is there.
const JOBS_PER_WORKER: usize = 2;
/// Most operations of a job.
const JOB_OPS_MAX: u64 = 8;
/// Most digests of a checkpoint that a turn makes at least, unless the service has very many.
const DIGESTS_MAX: u64 = 40;
/// Turns that so many objects' digests take at most.
const TURNS_PER_CHECKPOINT: u32 = 64;
/// Most steps of a stage until it is decided anew whether operations are worth a hand-off.
const STEPS_PER_VERDICT: u64 = 60;

/// The workers of one life of a replica.
pub(crate) struct Crew {
    /// What each works at.
    hands: Vec<Option<Job>>,
    /// What nobody has begun.
    waiting: VecDeque<Job>,
    /// What the stage has not heard of.
    done: Vec<Finished>,
    /// Of its own: a seed has the same faults with and without workers.
    prng: Prng,
    worth: bool,
    /// Steps until that is decided anew.
    steps: u64,
    /// A checkpoint is on its way to the disk and waits until nobody writes.
    copy_waits: bool,
    /// Of its own as well: how many digests of a checkpoint are made when.
    pace: Prng,
}

impl Crew {
    pub(crate) fn new(options: &Options, me: ReplicaId, life: Life) -> Crew {
        let own = u64::from(me.0) << 32 | u64::from(life);
        let mut prng = Prng::new(Prng::new(options.seed ^ 0xc4e3).next_u64() ^ own);
        // Some lives have none: replicas need not be alike.
        let workers = if prng.chance(Ratio(1, 5)) { 0 } else { options.inside.workers };
        Crew {
            hands: (0..workers).map(|_| None).collect(),
            waiting: VecDeque::new(),
            done: Vec::new(),
            prng,
            worth: true,
            steps: 0,
            copy_waits: false,
            pace: Prng::new(own ^ Prng::new(options.seed ^ 0xd16e).next_u64()),
        }
    }

    /// How many digests of a checkpoint this life makes in a turn at least.
    pub(crate) fn pace(&mut self, stage: &mut Stage) {
        let few = self.pace.between(1, DIGESTS_MAX) as usize;
        let many = stage.objects(StatePart::Service) / TURNS_PER_CHECKPOINT;
        stage.pace_digests(few.max(many as usize));
    }

    /// Whether messages come in before the stage goes on with a checkpoint. Oracles compare what
    /// was answered with what is executed, batch by batch.
    fn leaves_digests(&mut self, stage: &Stage) -> bool {
        stage.is_digesting() && !stage.is_amid_batch() && self.pace.chance(Ratio(1, 2))
    }

    /// The process ends. Whether anything was out.
    pub(crate) fn close(&mut self) -> bool {
        let out = self.out() > 0;
        self.hands.clear();
        self.waiting.clear();
        self.done.clear();
        out
    }

    /// Jobs that are out.
    fn out(&self) -> usize {
        self.busy() + self.waiting.len() + self.done.len()
    }

    fn busy(&self) -> usize {
        self.hands.iter().flatten().count()
    }

    /// How many are to have work from now on.
    fn engaged(&mut self) -> usize {
        if self.steps == 0 {
            self.worth = self.prng.chance(Ratio(3, 4));
            self.steps = self.prng.between(1, STEPS_PER_VERDICT);
        }
        self.steps -= 1;
        if self.worth { self.hands.len() } else { 0 }
    }

    /// What is done, in any order.
    fn take_done(&mut self) -> Vec<Finished> {
        let mut left = std::mem::take(&mut self.done);
        let mut taken = Vec::with_capacity(left.len());
        while !left.is_empty() {
            taken.push(left.swap_remove(self.prng.below(left.len() as u64) as usize));
        }
        taken
    }

    /// Gets jobs of the stage as long as more are welcome.
    fn get(&mut self, stage: &mut Stage) {
        while !self.copy_waits && self.out() < self.hands.len() * JOBS_PER_WORKER {
            let prng = &mut self.prng;
            let job = match prng.below(2) {
                0 => stage.choose_job(&mut |ready| prng.below(ready as u64) as usize),
                _ => stage.next_job(prng.between(1, JOB_OPS_MAX) as usize),
            };
            let Some(job) = job else { return };
            self.waiting.push_back(job);
        }
    }

    /// Gives idle workers something to do; who they are, and how long each takes.
    fn give(&mut self) -> Vec<(u16, Span)> {
        let mut begun = Vec::new();
        while let Some(idle) = self.hands.iter().position(Option::is_none)
            && let Some(job) = self.waiting.pop_front()
        {
            self.hands[idle] = Some(job);
            let us = match self.prng.below(16) {
                // Dear operations, or a thread that the system has put aside.
                0 => self.prng.between(1_000, 5_000),
                1..8 => self.prng.between(0, 20),
                _ => self.prng.between(20, 300),
            };
            begun.push((idle as u16, Span::micros(us)));
        }
        begun
    }
}

impl Replica {
    /// The stage executes: until nothing is left to do, or so much that takes time. When it goes
    /// on by itself, if there is more.
    fn execute(&mut self, now: Time, parallel: bool, out: &mut StageOutbox) -> Option<Time> {
        let Replica { stage, crew, tempo, .. } = self;
        let Some(ops) = tempo.stage_turn(OPS_PER_TURN as u64) else {
            while stage.run(OPS_PER_TURN, out) == Turn::More {
                crew.get(stage);
                if crew.leaves_digests(stage) {
                    return Some(now.after(Span::micros(crew.pace.between(0, 2_000))));
                }
            }
            return None;
        };
        let before = stage.report().ops;
        let mut turn = stage.run(ops, out);
        // Oracles compare what was answered with what is executed, batch by batch, but where
        // workers are ahead.
        while !parallel && turn == Turn::More && stage.is_amid_batch() {
            turn = stage.run(ops, out);
        }
        let done = tempo.work(now, stage.report().ops.saturating_sub(before));
        (turn != Turn::Idle).then_some(done)
    }
}

impl World {
    /// The stage is told something, or that it has something to do: it works as soon as it can.
    pub(crate) fn step_stage(&mut self, replica: ReplicaId, message: Option<ToStage>) {
        let now = self.queue.now();
        let tempo = &mut self.replica(replica).tempo;
        if let Some(message) = message {
            tempo.tell_stage(message);
        }
        if let Some(until) = tempo.busy(now) {
            self.plan(replica, Part::Bell, until);
            return self.saw(Sight::StageBusy);
        }
        self.turn_stage(replica);
    }

    /// The stage takes what it is told, and what its workers are done with, and works until there
    /// is nothing left to do, or for one turn if that takes time.
    fn turn_stage(&mut self, replica: ReplicaId) {
        let (now, parallel) = (self.queue.now(), self.options.parallel());
        self.steps.all += 1;
        let checks = self.steps.all.is_multiple_of(CHECK_EVERY);
        let host = self.replica(replica);
        let mut out = StageOutbox::new();
        let (halted, answered) = (host.stage.report().halted, host.stage.read_report().answered);
        while let Some(message) = host.tempo.next_message(now) {
            let _ = host.stage.on(message, &mut out);
        }
        let halts = host.stage.report().halted;
        let given_up = halts && !halted && !host.stage.is_quiet();
        for finished in host.crew.take_done() {
            host.stage.finished(finished, &mut out);
        }
        if halts {
            host.notes.forget();
        }
        // Memory is lost by the stage's own thread, while no other uses it.
        let engaged = if host.spoil.is_due() { 0 } else { host.crew.engaged() };
        host.stage.engage(engaged);
        let goes_on = host.execute(now, parallel, &mut out);
        let digests = goes_on.is_some() && host.stage.is_digesting();
        if checks {
            host.stage.check();
        }
        let reads = host.stage.read_report().answered - answered;
        let deadline = host.stage.deadline();
        host.crew.get(&mut host.stage);
        let copies = host.crew.copy_waits && host.stage.is_quiet();
        host.crew.copy_waits &= !copies;
        if let Some(at) = deadline {
            self.plan(replica, Part::Stage, at);
        }
        if copies {
            // It has its turn before anybody writes again.
            self.plan(replica, Part::Disk, now);
            self.plan(replica, Part::Bell, now);
        }
        if let Some(at) = goes_on {
            self.plan(replica, Part::Bell, at);
        }
        if digests {
            self.saw(Sight::DigestsLater);
        }
        if given_up {
            self.saw(Sight::JobsGivenUp);
        }
        (0..reads).for_each(|_| self.saw(Sight::ReadAnswered));
        self.set_to_work(replica);
        self.observe_stage(replica, &out.messages);
        for (target, message) in out.messages {
            self.carry_from_stage(replica, target, message);
        }
    }

    /// Idle workers begin with what waits.
    fn set_to_work(&mut self, replica: ReplicaId) {
        let now = self.queue.now();
        let crew = &mut self.replica(replica).crew;
        let begun = crew.give();
        let beside = !begun.is_empty() && crew.busy() > 1;
        if beside {
            self.saw(Sight::Beside);
        }
        for (worker, takes) in begun {
            self.plan(replica, Part::Worker(worker), now.after(takes));
        }
    }

    /// A worker is done with its job, and rings for the stage.
    pub(crate) fn turn_worker(&mut self, replica: ReplicaId, worker: u16) {
        let (now, late) = (self.queue.now(), self.options.inside.delay_max_us);
        let crew = &mut self.replica(replica).crew;
        let Some(job) = crew.hands.get_mut(usize::from(worker)).and_then(Option::take) else {
            return;
        };
        crew.done.push(job.run());
        let after = Span::micros(crew.prng.between(0, late));
        self.plan(replica, Part::Bell, now.after(after));
        self.set_to_work(replica);
    }

    /// Whether a checkpoint may be read now. If not, it may be once all workers are back, for
    /// whom there is nothing more until then.
    pub(crate) fn may_copy(&mut self, replica: ReplicaId) -> bool {
        let host = self.replica(replica);
        if host.stage.is_quiet() {
            return true;
        }
        host.stage.hold();
        host.crew.copy_waits = true;
        self.saw(Sight::CopyWaits);
        false
    }

    /// Whether nothing is on its way through the workers of a replica.
    pub(crate) fn is_at_rest(&self, replica: ReplicaId) -> bool {
        let stage = &self.replicas[usize::from(replica.0)].stage;
        stage.is_quiet() && stage.in_flight() == 0 && !stage.is_amid_batch()
    }
}
