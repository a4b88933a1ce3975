//! A group under attack: replicas, honest clients and attackers on cores of their own, phases
//! with and without the attack, and what came of it.
//!
//! Alternating: calm and attacked phases take turns, so that what else the machine does weighs on
//! both alike; the share is the median over the pairs. In the end all correct replicas have one
//! state, nobody correct is convicted, and every answer was right.

use std::time::{Duration, Instant};

use genesis::Group;
use serde_json::{Value as Json, json};

use super::cores::{self, Part};
use super::honest::{BUCKET, Honest, Tally};
use crate::chaos::{Lab, Setup};
use crate::cluster::{full, until};
use crate::soak;

/// Attacked phases of an alternating run; there is one calm phase more.
const PAIRS: u32 = 3;
/// The client that moves the group on in the end.
const GATEWAY_CLIENT: u32 = 7;
/// What the load is when it leaves room, as a share of what the group can do.
const HALF: f64 = 0.5;
/// A rate has come back when it is so much of what it was, over [`BACK_WINDOW`].
const BACK: f64 = 0.9;
const BACK_WINDOW: Duration = Duration::from_millis(200);

/// How much honest clients want.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// As much as there is: every slot has an operation under way.
    Full,
    /// Half of what the group can do, at fixed times.
    Half,
}

/// What is tried, and what is hoped for.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    /// In words, for the table.
    pub what: &'static str,
    pub load: Load,
    /// The least share of the undisturbed rate that is aimed at.
    pub goal: f64,
    /// Replicas that misbehave, and how, whenever the attack is on.
    pub drills: Vec<(u16, String)>,
    /// Whether another view is no surprise.
    pub views_may_change: bool,
    pub setup: Setup,
}

impl Case {
    pub fn new(name: &'static str, load: Load, goal: f64) -> Case {
        let setup = Setup { durability: "memory", drills: true, ..Setup::default() };
        Case { name, what: "", load, goal, drills: Vec::new(), views_may_change: false, setup }
    }

    /// With a replica that misbehaves whenever the attack is on.
    pub fn drill(mut self, id: u16, drill: &str) -> Case {
        self.drills.push((id, drill.to_owned()));
        self
    }

    /// The attack is meant to, or may, cost the leader its office.
    pub fn changes_views(mut self) -> Case {
        self.views_may_change = true;
        self
    }
}

/// What honest clients got in a phase.
#[derive(Clone, Debug)]
pub struct Sample {
    pub rate: f64,
    pub per_client: Vec<f64>,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    /// The part of their cores' time that the replicas took.
    pub busy: f64,
    /// How long they waited for a core, as a part of the same time: above 1 when several wait.
    pub waits: f64,
}

/// A group, its honest load, and what was measured.
pub struct Arena {
    pub lab: Lab,
    pub group: Group,
    pub honest: Honest,
    case: Case,
    errors: Vec<String>,
    shed: u64,
    calm: Vec<Sample>,
    attacked: Vec<Sample>,
    views_before: u64,
    /// Memory of each replica before the first attack, and the most it grew by since.
    memory: Vec<Option<u64>>,
    growth_kib: u64,
    notes: Vec<String>,
}

/// How long an attack is measured, all phases together.
pub fn seconds() -> Duration {
    let told = std::env::var("STYLITE_ATTACK_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds: u64 = told.unwrap_or(if full() { 14 } else { 2 });
    Duration::from_secs(seconds.max(1))
}

/// Whether the figures are to be believed; otherwise only what is right or wrong counts.
pub fn measures() -> bool {
    seconds() >= Duration::from_secs(8)
}

impl Arena {
    /// Starts the group, whose culprits behave for now, and the honest load.
    pub fn start(case: Case) -> Arena {
        let mut setup = case.setup.clone();
        // Beside other tests, a leader may get no processor for a second.
        if !measures() && !case.views_may_change {
            setup.view_timeout = "10s";
        }
        let mut lab = Lab::found(setup);
        for id in lab.ids() {
            start(&mut lab, &case, id);
        }
        lab.until_healthy();
        let group = Group::load(&lab.control()).expect("a group");
        let honest = Honest::start(&group);
        let mut arena = Arena {
            lab,
            group,
            honest,
            case,
            errors: Vec::new(),
            shed: 0,
            calm: Vec::new(),
            attacked: Vec::new(),
            views_before: 0,
            memory: Vec::new(),
            growth_kib: 0,
            notes: Vec::new(),
        };
        // Memory of logs and caches fills before anything is compared.
        let peak = arena.sample(seconds() / 8).rate;
        if arena.case.load == Load::Half {
            arena.honest.pace(Some(peak * HALF));
            arena.note(format!("the group can do {peak:.0}/s"));
        }
        arena.sample(seconds() / 16);
        arena.views_before = arena.lab.view();
        arena.memory = arena.rss();
        arena
    }

    fn rss(&self) -> Vec<Option<u64>> {
        self.lab.pids().into_iter().map(soak::rss_kib).collect()
    }

    /// As [`soak::cpu_s`], of all replicas.
    fn cpu(&self) -> (f64, f64) {
        let all = self.lab.pids().into_iter().map(soak::cpu_s);
        all.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Starts a replica again, with what it is told to do.
    pub fn start_one(&mut self, id: u16) {
        start(&mut self.lab, &self.case, id);
        // Another process has another memory.
        self.memory[usize::from(id)] = None;
    }

    /// Starts a replica that has lost everything.
    pub fn recover_one(&mut self, id: u16) {
        let lab = &mut self.lab;
        cores::on(Part::Replica(id, false), || lab.start_with(id, &["--recover"]));
        self.memory[usize::from(id)] = None;
    }

    /// The undisturbed rate so far.
    pub fn calm_rate(&self) -> f64 {
        self.calm.iter().map(|sample| sample.rate).sum::<f64>() / self.calm.len().max(1) as f64
    }

    /// Has the culprits misbehave, or behave.
    pub fn misbehave(&self, on: bool) {
        self.case.drills.iter().for_each(|(id, _)| self.lab.misbehave(*id, on));
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Measures for a while.
    pub fn sample(&mut self, time: Duration) -> Sample {
        self.keep(None);
        let (begun, cpu) = (Instant::now(), self.cpu());
        std::thread::sleep(time);
        let tallies = self.honest.take();
        let mut sample = Sample::new(&tallies, begun.elapsed());
        let most = begun.elapsed().as_secs_f64() * f64::from(cores::count(Part::Replicas));
        let (ran, waited) = self.cpu();
        sample.busy = (ran - cpu.0).max(0.0) / most;
        sample.waits = (waited - cpu.1).max(0.0) / most;
        self.keep(Some(tallies));
        let grown = self.rss().into_iter().zip(&self.memory);
        let grown =
            grown.map(|(now, then)| now.unwrap_or(0).saturating_sub(then.unwrap_or(u64::MAX)));
        self.growth_kib = self.growth_kib.max(grown.max().unwrap_or(0));
        sample
    }

    /// Errors count whenever they happen.
    fn keep(&mut self, tallies: Option<Vec<Tally>>) {
        for tally in tallies.unwrap_or_else(|| self.honest.take()) {
            self.errors.extend(tally.errors);
            self.shed += tally.shed;
        }
    }

    /// A calm phase.
    pub fn calm(&mut self, time: Duration) {
        let sample = self.sample(time);
        self.calm.push(sample);
    }

    /// A phase under attack.
    pub fn attacked(&mut self, time: Duration) {
        let sample = self.sample(time);
        self.attacked.push(sample);
    }

    /// Calm and attacked phases in turn; `attack` begins and ends it.
    pub fn alternate(&mut self, mut attack: impl FnMut(&mut Arena, bool)) {
        let phase = seconds() / (2 * PAIRS + 1);
        let settle = phase / 6;
        self.calm(phase - settle);
        for _ in 0..PAIRS {
            attack(self, true);
            std::thread::sleep(settle);
            self.attacked(phase - settle);
            attack(self, false);
            std::thread::sleep(settle);
            self.calm(phase - settle);
        }
    }

    /// Calm, then the attack begins and stays; what is measured is what comes `after` that.
    /// Notes the longest silence, and when the rate was back. Culprits behave again afterwards,
    /// for a second calm phase, so that a machine that becomes slower meanwhile is not taken for
    /// what they did; who was killed stays so.
    pub fn endure(&mut self, after: Duration, attack: impl FnOnce(&mut Arena)) {
        let phase = seconds() / 4;
        self.calm(phase);
        let begun = Instant::now();
        attack(self);
        let settle = (begun + after).saturating_duration_since(Instant::now());
        std::thread::sleep(settle);
        // In a short run nothing is promised by now but that it goes on.
        until("somebody is served again", || {
            let served = self.sample(Duration::from_millis(100)).rate > 0.0;
            if served || measures() { Ok(()) } else { Err("nobody".to_owned()) }
        });
        self.attacked(phase);
        self.note_recovery(begun);
        if !self.case.drills.is_empty() {
            self.misbehave(false);
            std::thread::sleep(phase / 6);
            self.calm(phase);
        }
    }

    /// Notes how long nobody was answered since `begun`, and after how long the rate was back.
    pub fn note_recovery(&mut self, begun: Instant) {
        let timeline = self.honest.timeline(begun);
        let silence = timeline.split(|count| *count > 0).map(<[u32]>::len).max().unwrap_or(0);
        let calm = self.calm.last().map_or(0.0, |sample| sample.rate);
        let buckets = usize::try_from(BACK_WINDOW.as_nanos() / BUCKET.as_nanos()).expect("few");
        let wanted = calm * BACK * BACK_WINDOW.as_secs_f64();
        let enough =
            |window: &[u32]| window.iter().map(|count| f64::from(*count)).sum::<f64>() >= wanted;
        // After the gap, if there is one: before it, everything is as it was.
        let gap = timeline.windows(5).position(|five| five.iter().all(|count| *count == 0));
        let from = gap.unwrap_or(0);
        let back = timeline[from..].windows(buckets).position(enough);
        let silence = BUCKET.as_secs_f64() * silence as f64;
        let back = back.map_or("never".to_owned(), |at| {
            format!("{:.2} s", BUCKET.as_secs_f64() * (from + at) as f64)
        });
        self.note(format!("silence {silence:.2} s, 90 % again after {back}"));
    }

    /// The share of the undisturbed rate.
    pub fn share(&self) -> f64 {
        let around = |at: usize| {
            let two = &self.calm[at.min(self.calm.len() - 1)..self.calm.len().min(at + 2)];
            two.iter().map(|sample| sample.rate).sum::<f64>() / two.len() as f64
        };
        let pairs = self.attacked.iter().enumerate();
        let mut shares: Vec<f64> = pairs.map(|(at, one)| one.rate / around(at)).collect();
        shares.sort_by(f64::total_cmp);
        shares.get(shares.len() / 2).copied().unwrap_or(0.0)
    }

    /// The last phase under attack.
    pub fn last_attacked(&self) -> &Sample {
        self.attacked.last().expect("there was a phase")
    }

    /// Everything is as it should be; the figures are written down.
    pub fn end(mut self) {
        self.misbehave(false);
        let views = self.lab.view() - self.views_before;
        let share = self.share();
        let last = self.honest.stop();
        self.keep(Some(last));
        let gateway = self.lab.gateway(GATEWAY_CLIENT);
        let all: Vec<u16> = self.lab.ids().collect();
        let culprit = |id: &u16| self.case.drills.iter().any(|(other, _)| other == id);
        let status = self.lab.until_one_state(&all, &gateway);
        let rows = status["replicas"].as_array().expect("a list").iter();
        let proofs = rows.flat_map(|row| row["evidence"].as_array().expect("a list"));
        for proof in proofs {
            let accused = proof["replica"].as_u64().and_then(|id| u16::try_from(id).ok());
            assert!(accused.is_some_and(|id| culprit(&id)), "accuses a correct replica: {proof}");
        }
        soak::write_down(&format!("attack-{}", self.case.name), &self.figures(share, views));
        assert!(self.errors.is_empty(), "honest clients: {:?}", &self.errors[..1]);
        assert!(self.case.views_may_change || views == 0, "{views} views changed");
        let last = self.attacked.last().expect("there was a phase");
        // A short phase may be over before the first answer of a slow leader.
        assert!(last.rate > 0.0 || !measures(), "nobody was served");
    }

    fn figures(&self, share: f64, views: u64) -> Json {
        let worst = |samples: &[Sample], of: fn(&Sample) -> u64| {
            let mut all: Vec<u64> = samples.iter().map(of).collect();
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or(0)
        };
        let rates = |samples: &[Sample]| samples.iter().map(|s| s.rate.round()).collect::<Vec<_>>();
        let hundredths = |samples: &[Sample], of: fn(&Sample) -> f64| {
            samples.iter().map(|s| (100.0 * of(s)).round() / 100.0).collect::<Vec<_>>()
        };
        let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len().max(1) as f64;
        json!({
            "attack": self.case.name,
            "what": self.case.what,
            "load": if self.case.load == Load::Full { "full" } else { "half" },
            "goal": self.case.goal,
            "share": (share * 1_000.0).round() / 1_000.0,
            "calm_per_s": mean(&rates(&self.calm)).round(),
            "attacked_per_s": mean(&rates(&self.attacked)).round(),
            "calm_rates": rates(&self.calm),
            "attacked_rates": rates(&self.attacked),
            "busy_calm": hundredths(&self.calm, |s| s.busy),
            "busy_attacked": hundredths(&self.attacked, |s| s.busy),
            "waits_calm": hundredths(&self.calm, |s| s.waits),
            "waits_attacked": hundredths(&self.attacked, |s| s.waits),
            "p99_calm_us": worst(&self.calm, |s| s.p99_us),
            "p99_attacked_us": worst(&self.attacked, |s| s.p99_us),
            "errors": self.errors.len(),
            "first_error": self.errors.first(),
            "shed": self.shed,
            "views": views,
            "rss_growth_kib": self.growth_kib,
            "notes": self.notes,
        })
    }

    /// Waits until all replicas take part again, under load.
    pub fn until_all_run(&self) {
        until("all replicas run", || match self.lab.status() {
            (0, _) => Ok(()),
            (code, _) => Err(format!("status ends with {code}")),
        });
    }
}

/// Starts a replica, on its cores.
fn start(lab: &mut Lab, case: &Case, id: u16) {
    let drill = case.drills.iter().find(|(other, _)| *other == id);
    cores::on(Part::Replica(id, drill.is_some()), || match drill {
        Some((_, drill)) => lab.start_with(id, &["--misbehave", drill, "--drill-paused"]),
        None => lab.start_one(id),
    });
}

impl Sample {
    fn new(tallies: &[Tally], time: Duration) -> Sample {
        let rate = |tally: &Tally| tally.ops as f64 / time.as_secs_f64();
        let per_client: Vec<f64> = tallies.iter().map(rate).collect();
        let mut all = Tally::default().latency;
        tallies.iter().for_each(|tally| all.add(&tally.latency).expect("the same bounds"));
        Sample {
            rate: per_client.iter().sum(),
            per_client,
            p50_us: all.value_at_quantile(0.5),
            p99_us: all.value_at_quantile(0.99),
            max_us: all.max(),
            busy: 0.0,
            waits: 0.0,
        }
    }
}
