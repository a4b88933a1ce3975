//! Plans: the shape of a group, and which faults happen to it when, all from one seed.
//!
//! A plan takes a few kinds of faults, for all at once hide each other, and harms no more than a
//! group must survive: as many replicas may forget or be faulty as the group tolerates; all may
//! crash with their disks. Each incident can be left out, so that a failing plan can be made
//! smaller.

use std::fmt;

use base::{PillarId, ReplicaId, Span};
use proto::pbft::{Bodies, Commits, Idle, Leaders};

use crate::adversary::{Assault, Behaviour, Hostile};
use crate::events::Part;
use crate::faults::{Fault, Shape};
use crate::options::{Answers, Durability, Inside, Net, Options, Travel};
use crate::prng::{Prng, Ratio};
use crate::scenario::{LATEST, finish, settle_within, world};
use crate::storage::{DiskFault, Place};
use crate::work::Work;
use crate::world::{BURST, World};

/// Operations that every client asks for once the faults are over.
const OPS_AFTERWARDS: u64 = 40;
/// Virtual time for which some bad clients go on when no more faults begin.
const STUBBORN: Span = Span::secs(2);

/// Something that happens, and its end.
#[derive(Clone, Debug)]
pub struct Incident {
    /// Faults and when they happen.
    pub faults: Vec<(Span, Fault)>,
}

/// What happens in one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The shape of the group.
    pub options: Options,
    /// Replicas that are faulty from the beginning.
    pub faulty: Vec<(ReplicaId, Behaviour)>,
    /// What breaks.
    pub incidents: Vec<Incident>,
    /// Clients ask a burst of operations at their pace, and then nothing before the next multiple
    /// of this; none where they never pause.
    pub beat: Option<Span>,
    /// What a faulty client does.
    pub assault: Option<Assault>,
    /// When all of that is over.
    pub length: Span,
    /// Whether only a core is mended first.
    pub core: bool,
    /// Whether everything is mended in the end.
    pub all: bool,
}

/// What a plan may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Part,
    CutOne,
    Swizzle,
    Weather,
    Crash,
    Outage,
    Forget,
    Pause,
    Slow,
    Sluggish,
    Spoil,
    Clock,
    /// A machine stops at some operation of its disk, or a sync fails.
    Halt,
    /// A disk rots and lies.
    Disk,
    Behave,
    Attack,
}

const KINDS: [Kind; 16] = [
    Kind::Part,
    Kind::CutOne,
    Kind::Swizzle,
    Kind::Weather,
    Kind::Crash,
    Kind::Outage,
    Kind::Forget,
    Kind::Pause,
    Kind::Slow,
    Kind::Sluggish,
    Kind::Spoil,
    Kind::Clock,
    Kind::Halt,
    Kind::Disk,
    Kind::Behave,
    Kind::Attack,
];

const SHAPES: [Shape; 7] =
    [Shape::Halves, Shape::Alone, Shape::Deaf, Shape::Mute, Shape::Ring, Shape::Star, Shape::Any];

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Plan {
        let mut prng = Prng::new(seed ^ 0x5a17);
        let options = options(seed, &mut prng);
        let mut plan = Plan {
            options,
            faulty: Vec::new(),
            incidents: Vec::new(),
            beat: None,
            assault: None,
            length: Span::millis(prng.between(500, 4_000)),
            core: prng.chance(Ratio(2, 3)),
            all: true,
        };
        plan.all = !plan.core || prng.chance(Ratio(1, 2));
        // Of a source of its own, as switches are.
        let mut load = Prng::new(seed ^ 0x10ad);
        if load.chance(Ratio(2, 3)) {
            plan.keep_asking();
        }
        let kinds: Vec<Kind> = KINDS.into_iter().filter(|_| prng.below(3) == 0).collect();
        // These may forget, or be faulty, but no others.
        let first = prng.below(u64::from(options.n));
        let victims: Vec<ReplicaId> = (0..u64::from(options.f))
            .map(|i| ReplicaId(((first + i) % u64::from(options.n)) as u16))
            .collect();
        if kinds.contains(&Kind::Behave) {
            let count = prng.between(1, u64::from(options.f)) as usize;
            for victim in victims.iter().take(count) {
                plan.faulty.push((*victim, Behaviour::any(&options, &mut prng)));
            }
        }
        if kinds.contains(&Kind::Attack) {
            plan.assault = Some(assault(plan.length, &mut load));
        }
        let weak = &victims[plan.faulty.len().min(victims.len())..];
        for kind in kinds {
            for _ in 0..prng.between(1, 4) {
                let faults = incident(&plan, kind, weak, &mut prng);
                if !faults.is_empty() {
                    plan.incidents.push(Incident { faults });
                }
            }
        }
        plan
    }

    /// Lets clients ask for the whole length: slow ones all the time, fast ones in bursts, for all
    /// that they could ask would take too long to simulate.
    fn keep_asking(&mut self) {
        let options = &mut self.options;
        let all = self.length.0 / Span::micros(options.pace_us).0;
        options.ops_per_client = all.min(2 * options.ops_per_client);
        if all > options.ops_per_client {
            self.beat = Some(Span(self.length.0 * BURST / options.ops_per_client));
        }
    }

    /// A moment near `about` at which clients have just asked, if nothing keeps them from it.
    fn under_load(&self, about: Span, prng: &mut Prng) -> Span {
        let pace = Span::micros(self.options.pace_us).0;
        let (beat, most) = match self.beat {
            Some(beat) => (beat.0, BURST * pace),
            None => (pace, pace.min(Span::millis(1).0)),
        };
        let at = about.0 - about.0 % beat + prng.below(most);
        Span(at.min(self.length.0))
    }

    /// Lets it happen to a world of counters.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn run(&self) {
        let mut world = world(self.options);
        world.unleash(self);
        world.run_for(self.length, |_| false);
        if self.core && world.freeze_but_a_core() {
            world.ask_more(OPS_AFTERWARDS);
            finish(&mut world, LATEST);
            world.third_round();
            world.rest();
        }
        if self.all {
            settle_within(&mut world, OPS_AFTERWARDS, LATEST);
            world.third_round();
            world.rest();
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.options)?;
        for (replica, behaviour) in &self.faulty {
            writeln!(f, "{replica:?} is faulty: {behaviour:?}")?;
        }
        for (place, incident) in self.incidents.iter().enumerate() {
            writeln!(f, "incident {place}")?;
            for (at, fault) in &incident.faults {
                writeln!(f, "{:>12.6} {fault:?}", at.0 as f64 / 1e9)?;
            }
        }
        if let Some(beat) = self.beat {
            writeln!(f, "a burst of operations every {} s", beat.0 as f64 / 1e9)?;
        }
        if let Some(assault) = &self.assault {
            writeln!(f, "{assault:?}")?;
        }
        let Plan { length, core, all, .. } = self;
        let seconds = length.0 as f64 / 1e9;
        write!(f, "{seconds} s; core: {core}, then all: {all}")
    }
}

impl World {
    /// Lets everything happen that `plan` has.
    pub fn unleash(&mut self, plan: &Plan) {
        for (replica, behaviour) in &plan.faulty {
            self.misbehave(*replica, *behaviour);
        }
        for incident in &plan.incidents {
            for (at, fault) in &incident.faults {
                self.fault_after(*at, *fault);
            }
        }
        self.beat = plan.beat;
        if let Some(assault) = plan.assault {
            self.assail(assault);
        }
    }
}

/// A bad client that strikes as long as faults begin, or longer: one by one, or many times in a
/// row, so that its quotas are full.
fn assault(length: Span, prng: &mut Prng) -> Assault {
    let how = pick(prng, &Hostile::ALL);
    let strikes = prng.between(50, 400) as u32;
    let row = pick(prng, &[1, 8, 40]);
    let stubborn = prng.chance(Ratio(1, 3));
    let lasts = if stubborn { length.0 + STUBBORN.0 } else { length.0 };
    let every = Span(lasts * u64::from(row) / u64::from(strikes));
    Assault { how, strikes, row, every }
}

/// A group of some shape, and what its clients ask where their load need not last.
fn options(seed: u64, prng: &mut Prng) -> Options {
    // Of a source of its own: a seed has the same faults whatever switches there are.
    let mut switch = Prng::new(seed ^ 0x51_7c4);
    let leaders = pick(&mut switch, &[Leaders::Fixed, Leaders::Fixed, Leaders::Rotating]);
    let commits = pick(&mut switch, &[Commits::Prompt, Commits::Piggybacked]);
    let tentative = pick(&mut switch, &[false, true]);
    let inline = pick(&mut switch, &[Bodies::Separate, Bodies::Inline]);
    // A client does not know whose turn its frames are.
    let bodies = if leaders == Leaders::Fixed { inline } else { Bodies::Separate };
    let (digests, relief) = (switch.chance(Ratio(1, 2)), switch.chance(Ratio(1, 2)));
    let answers = Answers { digests, relief, tentative };
    let reads = pick(&mut switch, &[false, true]);
    let workers = pick(&mut switch, &[0, 1, 2, 4]);
    let idle = pick(&mut switch, &[Idle::Fill, Idle::Ahead]);
    // What one leader proposes obliges all the others.
    let idle = if leaders == Leaders::Fixed { idle } else { Idle::Fill };
    let checkpoint_interval = pick(&mut switch, &[4, 8, 32]);
    let late = switch.chance(Ratio(3, 4));
    let (n, f) = pick(prng, &[(4, 1), (4, 1), (4, 1), (4, 1), (7, 2), (7, 2), (7, 2), (5, 1)]);
    let options = Options {
        seed,
        n,
        f,
        leaders,
        travel: Travel { commits, bodies, idle },
        answers,
        pillars: pick(prng, &[1, 2, 4, 3]),
        clients: prng.between(1, 3) as u32,
        outstanding: pick(prng, &[1, 4, 16]),
        // Where leaders rotate, whatever is ordered takes a number of every replica.
        ops_per_client: if leaders == Leaders::Fixed { 150 } else { 50 },
        // Some logs are so short that replicas are left behind all the time, also such as the
        // others cannot do without.
        window: pick(prng, &[32, 64, 1024]),
        checkpoint_interval,
        durability: pick(prng, &[Durability::Memory, Durability::Async, Durability::Sync]),
        net: if prng.chance(Ratio(1, 2)) { Net::CALM } else { net(prng) },
        unbatched: prng.chance(Ratio(3, 7)),
        inside: Inside { delay_max_us: pick(prng, &[20, 20, 500]), workers, late },
        view_timeout: Span::millis(pick(prng, &[200, 200, 50, 800])),
        pace_us: pick(prng, &[500, 5_000, 20_000]),
        // The store is dear; there is a scenario of its own for it.
        work: prng.chance(Ratio(1, 128)).then_some(Work::Redis).or(reads.then_some(Work::Reads)),
    };
    options.fitted()
}

fn pick<T: Copy>(prng: &mut Prng, of: &[T]) -> T {
    of[prng.below(of.len() as u64) as usize]
}

/// A network that is bad in some ways.
fn net(prng: &mut Prng) -> Net {
    let mut some = |most: u64| match prng.below(2) {
        0 => Ratio(0, 1),
        _ => Ratio(prng.below(most) as u32, 100),
    };
    let (loss, duplicate, replay) = (some(31), some(31), some(21));
    let delay_max_us = pick(prng, &[60, 1_000, 5_000, 40_000]);
    Net { delay_min_us: 20, delay_max_us, loss, duplicate, replay }
}

/// One incident of a kind; nothing where the group would not have to survive it.
fn incident(plan: &Plan, kind: Kind, weak: &[ReplicaId], prng: &mut Prng) -> Vec<(Span, Fault)> {
    let options = &plan.options;
    let n = u64::from(options.n);
    let begin = Span(prng.below(plan.length.0));
    // By chance alone, next to nothing of a fast group's would be under way.
    let begin = if prng.chance(Ratio(1, 2)) { plan.under_load(begin, prng) } else { begin };
    let end = Span(begin.0 + prng.below(plan.length.0));
    let one = ReplicaId(prng.below(n) as u16);
    let other = ReplicaId((one.0 + 1 + prng.below(n.max(2) - 1) as u16) % options.n);
    let weakling = weak.get(prng.below(weak.len() as u64) as usize).copied();
    match kind {
        Kind::Part => {
            let (shape, side) = (pick(prng, &SHAPES), prng.next_u64());
            vec![(begin, Fault::Part(shape, side)), (end, Fault::Mend(shape, side))]
        }
        Kind::CutOne => vec![(begin, Fault::Cut(one, other)), (end, Fault::Restore(one, other))],
        Kind::Swizzle => swizzle(options, begin, prng),
        Kind::Weather => {
            vec![(begin, Fault::Weather(net(prng))), (end, Fault::Weather(options.net))]
        }
        Kind::Crash => {
            // Whoever forgets is one of the weak.
            let victim = match options.durability {
                Durability::Sync => Some(one),
                Durability::Async | Durability::Memory => weakling,
            };
            let down = |victim| [(begin, Fault::PowerFails(victim)), (end, Fault::Restart(victim))];
            victim.map(down).into_iter().flatten().collect()
        }
        Kind::Outage => outage(options, begin, prng),
        Kind::Forget => {
            let lose = |victim| {
                let (crash, lose) = (Fault::Crash(victim), Fault::LoseDisk(victim));
                [(begin, crash), (begin, lose), (end, Fault::Restart(victim))]
            };
            weakling.map(lose).into_iter().flatten().collect()
        }
        Kind::Pause => vec![(begin, Fault::Pause(one)), (end, Fault::Continue(one))],
        Kind::Slow => {
            let slow = Fault::Slow(one, other, prng.between(1_000, 400_000));
            vec![(begin, slow), (end, Fault::Restore(one, other))]
        }
        Kind::Sluggish => {
            let (part, most_us) = sluggish(options, prng);
            vec![(begin, Fault::Sluggish(one, part, prng.between(100, most_us)))]
        }
        Kind::Spoil => weakling.map(|one| (begin, Fault::Spoil(one))).into_iter().collect(),
        Kind::Clock => vec![(begin, clock(one, prng))],
        Kind::Halt => halt(options, (begin, end), (one, weakling), prng),
        Kind::Disk => weakling.map(|one| bad_disk((begin, end), one, prng)).unwrap_or_default(),
        Kind::Behave | Kind::Attack => Vec::new(),
    }
}

/// A part that is late, and for how many microseconds at most.
fn sluggish(options: &Options, prng: &mut Prng) -> (Part, u64) {
    let pillars = u64::from(options.pillars);
    // As often one of the others as a lane, where there are several.
    match prng.below(pillars + 3) {
        pillar if pillar < pillars => (Part::Lane(PillarId(pillar as u16)), 50_000),
        other if other == pillars => (Part::Coordinator, 150_000),
        other if other == pillars + 1 => (Part::Stage, 150_000),
        _ => (Part::Log, 50_000),
    }
}

/// A machine stops at some operation of its disk, or a sync fails, and it starts again.
fn halt(
    options: &Options,
    (begin, end): (Span, Span),
    (one, weakling): (ReplicaId, Option<ReplicaId>),
    prng: &mut Prng,
) -> Vec<(Span, Fault)> {
    // Whoever forgets is one of the weak.
    let victim = match options.durability {
        Durability::Sync => Some(one),
        Durability::Async | Durability::Memory => weakling,
    };
    let Some(victim) = victim else { return Vec::new() };
    let fault = match prng.below(3) {
        0 => DiskFault::FailSync,
        _ => DiskFault::StopAfter(prng.below(200)),
    };
    vec![(begin, Fault::Disk(victim, fault)), (end, Fault::Restart(victim))]
}

/// A disk does something wrong, and the machine loses its power.
fn bad_disk((begin, end): (Span, Span), one: ReplicaId, prng: &mut Prng) -> Vec<(Span, Fault)> {
    let fault = pick(
        prng,
        &[
            DiskFault::Rot(Place::Log),
            DiskFault::Rot(Place::Checkpoint),
            DiskFault::Rot(Place::Life),
            DiskFault::Rot(Place::BothLives),
            DiskFault::LoseWrite,
            DiskFault::CorruptWrite,
            DiskFault::MisdirectWrite,
            DiskFault::MisdirectRead,
            DiskFault::Tear,
        ],
    );
    let later = Span(begin.0 + prng.below(end.0 - begin.0 + 1));
    vec![
        (begin, Fault::Disk(one, fault)),
        (later, Fault::PowerFails(one)),
        (end, Fault::Restart(one)),
    ]
}

/// Some replicas' links are clogged one after another, and come free in another order.
fn swizzle(options: &Options, begin: Span, prng: &mut Prng) -> Vec<(Span, Fault)> {
    let chosen = (0..options.n).filter(|_| prng.chance(Ratio(1, 2))).collect::<Vec<_>>();
    let mut at = begin;
    let mut clog = |one| {
        at = Span(at.0 + Span::micros(prng.below(50_000)).0);
        (at, Fault::Clog(ReplicaId(one), prng.between(1_000, 1_000_000)))
    };
    chosen.into_iter().map(&mut clog).collect()
}

/// All processes end at once, where that loses no vote.
fn outage(options: &Options, begin: Span, prng: &mut Prng) -> Vec<(Span, Fault)> {
    let all = (0..options.n).map(ReplicaId);
    let end = |replica| match options.durability {
        Durability::Memory => None,
        Durability::Async => Some(Fault::Crash(replica)),
        Durability::Sync => Some(Fault::PowerFails(replica)),
    };
    let mut faults = Vec::new();
    for replica in all {
        if let Some(fault) = end(replica) {
            let down = Span::micros(prng.between(1, 500_000));
            faults.push((begin, fault));
            faults.push((Span(begin.0 + down.0), Fault::Restart(replica)));
        }
    }
    faults
}

fn clock(one: ReplicaId, prng: &mut Prng) -> Fault {
    /// A year.
    const LONG_US: i64 = 365 * 24 * 3_600 * 1_000_000;
    let sign = pick(prng, &[-1, 1]);
    match prng.below(3) {
        0 => Fault::ClockDrifts(one, sign * prng.below(300_000) as i64),
        1 => Fault::ClockJumps(one, sign * prng.below(10_000_000) as i64),
        _ => Fault::ClockJumps(one, sign * LONG_US),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long the clients of a plan ask where nothing keeps them from it.
    fn asks_for(plan: &Plan) -> Span {
        let Options { pace_us, ops_per_client, .. } = plan.options;
        let all = match plan.beat {
            Some(beat) => ops_per_client.div_ceil(BURST) * beat.0,
            None => ops_per_client * Span::micros(pace_us).0,
        };
        Span(all)
    }

    #[test]
    fn most_loads_last_as_long_as_faults_begin() {
        let plans: Vec<Plan> = (0..600).map(Plan::new).collect();
        let lasts = |plan: &&Plan| asks_for(plan).0 >= plan.length.0 * 9 / 10;
        assert!(plans.iter().filter(lasts).count() >= 400);
        for pace_us in [500, 5_000, 20_000] {
            let paced = |plan: &&Plan| plan.options.pace_us == pace_us;
            let (some, all) = (plans.iter().filter(paced), plans.iter().filter(paced).count());
            assert!(some.filter(lasts).count() * 2 > all, "{pace_us} us between operations");
        }
    }

    #[test]
    fn bad_clients_come_in_every_way_and_stay() {
        let plans = (0..600).map(Plan::new);
        let all: Vec<_> =
            plans.filter_map(|plan| plan.assault.map(|assault| (plan.length, assault))).collect();
        for how in Hostile::ALL {
            assert!(all.iter().any(|(_, assault)| assault.how == how), "{how:?}");
        }
        let mut stay = 0;
        for (length, mut assault) in all.iter().copied() {
            let (mut last, mut next) = (0, 0);
            while let Some(rest) = assault.strike() {
                last = next;
                next += rest.0;
            }
            assert!(last >= length.0 / 3, "{assault:?} of {length:?}");
            stay += usize::from(last > length.0 + STUBBORN.0 / 2);
        }
        assert!(stay * 6 > all.len(), "{stay} of {} go on", all.len());
    }

    #[test]
    fn checkpoints_are_near_and_far_and_fit_their_windows() {
        let plans: Vec<Options> = (0..300).map(|seed| Plan::new(seed).options).collect();
        for k in [4, 8, 32] {
            let fixed = |options: &&Options| options.leaders == Leaders::Fixed;
            let same = |options: &Options| options.checkpoint_interval == k;
            assert!(plans.iter().filter(fixed).any(same), "none every {k}");
        }
        for Options { checkpoint_interval: k, window, pillars, .. } in plans {
            assert!(window >= 2 * k && window.is_multiple_of(k) && k >= u64::from(pillars));
        }
    }
}
