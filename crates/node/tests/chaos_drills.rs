//! Replicas that misbehave on purpose, alone in a group of four and in pairs in a group of seven:
//! clients get right answers throughout, whoever can be convicted is, and nobody else ever.
//!
//! What each drill leads to stands in `docs/drills.md`; [`DRILLS`] says the same of those that are
//! done here. The others (`starve-…`, `view-storm`, `slow-leader=MS`) are attacks.

#[path = "support/chaos/mod.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;

use std::time::Duration;

use chaos::{Gate, Lab, Load, Plan, Setup, steady};
use cluster::{Gateway, full, until};
use serde_json::{Value as Json, json};

/// A drill and what comes of it.
#[derive(Clone, Copy)]
struct Drill {
    name: &'static str,
    /// Whether it has to lead to show anything.
    leads: bool,
    outcome: Outcome,
}

/// Who learns what.
#[derive(Clone, Copy)]
enum Outcome {
    /// All correct replicas have a proof, of one of these kinds.
    Proof(&'static [&'static str]),
    /// Some correct replica has a suspicion, of one of these kinds.
    Suspicion(&'static [&'static str]),
    /// The gateway counts wrong replies.
    WrongReplies,
    /// Nobody can tell it from a replica that is slow, or down.
    Nothing,
}

const fn drill(name: &'static str, leads: bool, outcome: Outcome) -> Drill {
    Drill { name, leads, outcome }
}

/// What a leader is suspected of whose proposals do not come, or contradict each other.
const BAD_LEADER: Outcome = Outcome::Suspicion(&[
    "stalled-leader",
    "starving-leader",
    "slow-leader",
    "equivocating-leader",
]);
const WRONG_CHECKPOINT: Outcome = Outcome::Proof(&["wrong-checkpoint"]);

const DRILLS: &[Drill] = &[
    drill("silent", true, BAD_LEADER),
    drill("crash-after=400", true, BAD_LEADER),
    drill("wrong-reply", false, Outcome::WrongReplies),
    drill("corrupt-state", false, WRONG_CHECKPOINT),
    drill("equivocate", true, BAD_LEADER),
    drill("slow-leader", true, Outcome::Suspicion(&["slow-leader"])),
    drill("garbage", false, Outcome::Suspicion(&["garbage"])),
    drill("forget", false, Outcome::Nothing),
    drill("lying-source", false, Outcome::Suspicion(&["lying-source"])),
    drill("forged-view-change", false, Outcome::Proof(&["bad-view-change", "bad-new-view"])),
    drill("wrong-checkpoint", false, WRONG_CHECKPOINT),
];

struct Scene {
    lab: Lab,
    gateways: [Gateway; 2],
    load: Load,
    /// Who misbehaves, and how.
    culprits: Vec<(u16, Drill)>,
}

impl Scene {
    /// Starts a group in which these misbehave: leaders first, so that those lead who have to.
    fn start(replicas: u16, drills: &[Drill]) -> Scene {
        let setup = Setup {
            replicas,
            drills: true,
            proxied: true,
            view_timeout: "500ms",
            checkpoint_interval: 32,
            ..Setup::default()
        };
        let mut lab = Lab::found(setup);
        let mut drills = drills.to_vec();
        drills.sort_by_key(|drill| !drill.leads);
        let first = if drills[0].leads { 0 } else { 1 };
        let culprits: Vec<(u16, Drill)> = (first..).zip(drills).collect();
        for id in lab.ids() {
            match culprits.iter().find(|(culprit, _)| *culprit == id) {
                Some((_, drill)) => lab.start_with(id, &["--misbehave", drill.name]),
                None => lab.start_one(id),
            }
        }
        let gateways = [lab.gateway(0), lab.gateway(1)];
        // A monitor sees nothing in a few requests: more clients, each as slow.
        let slow = culprits.iter().any(|(_, drill)| drill.name == "slow-leader");
        let (connections, pace) = if slow { (48, 40) } else { (8, 5) };
        let pace = Duration::from_millis(pace);
        let steady = steady(&[&gateways[0], &gateways[1]]);
        let load = Load::start(&Plan { connections, pace, ..steady });
        Scene { lab, gateways, load, culprits }
    }

    /// Makes happen what some drills wait for.
    fn provoke(&mut self) {
        self.load.flows(500);
        // Bad leaders are replaced by themselves, before anybody else is accused.
        for (id, drill) in self.culprits.iter().filter(|(_, drill)| drill.leads) {
            self.until_known(*id, drill);
        }
        // A view change: whoever leads is cut off for a while.
        let leader = self.lab.leader();
        self.load.event("the leader is cut off");
        self.lab.links().isolate(leader, Gate::Held);
        std::thread::sleep(Duration::from_millis(1500));
        self.lab.links().heal();
        self.load.flows(200);
        for (id, drill) in self.culprits.clone() {
            if drill.name == "forget" {
                self.lab.kill(id);
                self.lab.start_with(id, &["--misbehave", drill.name]);
                self.load.flows(200);
            }
        }
        // A state transfer, to a correct replica: one that has lost its disk.
        if let Some((liar, drill)) = self.culprits.iter().find(|(_, d)| d.name == "lying-source") {
            let (liar, drill) = (*liar, *drill);
            // Once more than needed: the first recovery makes the history longer than the logs,
            // so that the next one needs the state. This small state may come from others before
            // anything is asked of the liar.
            for round in 0..10 {
                self.lose_a_disk();
                if round > 0 && self.is_known(liar, &drill).is_ok() {
                    break;
                }
            }
        }
        self.load.flows(200);
    }

    /// A correct replica loses its disk, and recovers.
    fn lose_a_disk(&mut self) {
        let victim = self.lab.n() - 1;
        self.load.event("a disk is lost");
        self.lab.kill(victim);
        self.lab.wipe(victim);
        self.lab.start_with(victim, &["--recover"]);
        self.lab.until_one_state(&self.correct(), &self.gateways[0]);
    }

    fn correct(&self) -> Vec<u16> {
        let faulty = |id: &u16| self.culprits.iter().any(|(culprit, _)| culprit == id);
        self.lab.ids().filter(|id| !faulty(id)).collect()
    }

    /// What each correct replica holds against whom: accused and kind, per replica.
    fn accusations(&self, status: &Json, list: &str) -> Vec<Vec<(u16, String)>> {
        let rows = self.correct().into_iter().map(|id| &status["replicas"][usize::from(id)]);
        rows.map(|row| accused(&row[list])).collect()
    }

    /// Whether what a drill leads to is there to be seen; what is there, if it is not.
    fn is_known(&self, id: u16, drill: &Drill) -> Result<(), String> {
        let of = |kinds: &[&str], accused: &[(u16, String)]| {
            accused.iter().any(|(who, kind)| *who == id && kinds.contains(&kind.as_str()))
        };
        let (_, status) = self.lab.status();
        let proofs = self.accusations(&status, "evidence");
        let suspicions = self.accusations(&status, "suspicions");
        let known = match drill.outcome {
            Outcome::Proof(kinds) => proofs.iter().all(|one| of(kinds, one)),
            Outcome::Suspicion(kinds) => suspicions.iter().any(|one| of(kinds, one)),
            Outcome::WrongReplies => wrong_replies(&self.gateways[0], id) > 0,
            Outcome::Nothing => true,
        };
        if known { Ok(()) } else { Err(format!("{proofs:?} {suspicions:?}")) }
    }

    fn until_known(&self, id: u16, drill: &Drill) {
        until(&format!("{} of replica {id} is known", drill.name), || self.is_known(id, drill));
    }

    fn end(self, name: &str) {
        let correct = self.correct();
        self.lab.until_one_state(&correct, &self.gateways[0]);
        self.culprits.iter().for_each(|(id, drill)| self.until_known(*id, drill));
        let (_, status) = self.lab.status();
        let proved: Vec<(u16, String)> =
            self.accusations(&status, "evidence").into_iter().flatten().collect();
        let innocent = proved.iter().find(|(id, _)| correct.contains(id));
        assert!(innocent.is_none(), "{innocent:?} is correct: {status}");
        let suspected = self.accusations(&status, "suspicions");
        let outcome = self.load.stop();
        let figures = json!({
            "culprits": self.culprits.iter().map(|(id, d)| (id, d.name)).collect::<Vec<_>>(),
            "proved": proved,
            "suspected": suspected,
            "clients": outcome.figures(),
        });
        soak::write_down(&format!("drill-{name}"), &figures);
        outcome.verify(self.gateways[1].port);
    }
}

/// The accused, and of what, in a list of proofs or suspicions.
fn accused(list: &Json) -> Vec<(u16, String)> {
    let one = |item: &Json| {
        let id = item["replica"].as_u64().unwrap_or_else(|| panic!("who? {item}"));
        let kind = item["kind"].as_str().unwrap_or_else(|| panic!("of what? {item}"));
        (u16::try_from(id).expect("a replica"), kind.to_owned())
    };
    list.as_array().expect("a list").iter().map(one).collect()
}

/// How many replies of a replica contradicted those that were accepted, as a gateway's metrics
/// count them.
fn wrong_replies(gateway: &Gateway, id: u16) -> u64 {
    let text = chaos::page(gateway.port + 1, "/metrics");
    let name = format!("stylite_client_wrong_replies_total{{replica=\"{id}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

fn alone(name: &str) {
    let chosen = DRILLS.iter().find(|drill| drill.name.starts_with(name)).expect("a drill");
    let mut scene = Scene::start(4, &[*chosen]);
    scene.provoke();
    scene.end(name);
}

macro_rules! drills {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            alone($name);
        })*
    };
}

drills! {
    a_silent_leader: "silent",
    a_leader_that_crashes: "crash-after",
    a_replica_that_answers_wrongly: "wrong-reply",
    a_replica_whose_state_is_corrupt: "corrupt-state",
    a_leader_that_equivocates: "equivocate",
    a_leader_that_is_slow: "slow-leader",
    a_replica_that_sends_garbage: "garbage",
    a_replica_that_forgets: "forget",
    a_source_that_lies: "lying-source",
    a_replica_that_forges_view_changes: "forged-view-change",
    a_replica_that_signs_wrong_checkpoints: "wrong-checkpoint",
}

/// Two at once, of seven: all pairs in a soak.
#[test]
fn two_misbehave_at_once() {
    let pairs = if full() { 55 } else { 2 };
    let all: Vec<(Drill, Drill)> = (0..DRILLS.len())
        .flat_map(|a| (a + 1..DRILLS.len()).map(move |b| (DRILLS[a], DRILLS[b])))
        .collect();
    assert_eq!(all.len(), 55);
    // A few of them stand far apart in the list.
    let skipped = if full() { 0 } else { 3 };
    for (a, b) in all.iter().skip(skipped).step_by(all.len() / pairs).take(pairs) {
        let mut scene = Scene::start(7, &[*a, *b]);
        scene.provoke();
        scene.end(&format!("{}-and-{}", a.name, b.name));
    }
}

/// Nobody misbehaves by accident.
#[test]
fn a_group_that_was_not_founded_for_drills_refuses() {
    let mut lab = Lab::found(Setup::default());
    lab.start_with(0, &["--misbehave", "silent"]);
    let status = until("it ends", || lab.ended(0).ok_or(String::new()));
    assert_eq!(status.code(), Some(1));
    assert!(lab.log(0).contains("drills"), "{}", lab.log(0));
}
