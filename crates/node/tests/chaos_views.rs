//! Leaders that fail one after another, and networks that fall apart in every way: a new leader
//! is found, nobody is left behind, and nothing that was acknowledged is lost or done twice.

#[path = "support/chaos/mod.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;

use std::time::Duration;

use chaos::{Dice, End, Gate, Lab, Links, Load, Setup, steady};
use cluster::{Gateway, full};

/// A way in which a network falls apart, around one replica of many.
type Cut = (&'static str, fn(&Links, u16, u16, Gate));

/// Everything that a partition can be. The second argument is a victim, the third n.
const CUTS: &[Cut] = &[
    ("one is isolated", |links, victim, _, gate| links.isolate(victim, gate)),
    ("nobody hears one", |links, victim, _, gate| links.mute(victim, gate)),
    ("one hears nobody", |links, victim, _, gate| links.deafen(victim, gate)),
    ("two halves", |links, victim, n, gate| {
        let ids: Vec<u16> = (0..n).map(|id| (id + victim) % n).collect();
        let (left, right) = ids.split_at(ids.len() / 2);
        links.split(&[left, right], gate);
    }),
    ("a minority", |links, victim, n, gate| {
        let ids: Vec<u16> = (0..n).map(|id| (id + victim) % n).collect();
        let (left, right) = ids.split_at(usize::from((n - 1) / 3));
        links.split(&[left, right], gate);
    }),
    ("everybody alone", |links, _, n, gate| {
        (0..n).for_each(|id| links.isolate(id, gate));
    }),
    ("a ring", |links, _, _, gate| links.ring(gate)),
    ("a bridge", |links, victim, _, gate| links.bridge(victim, gate)),
    ("half a bridge, one way", |links, victim, n, gate| {
        for id in (0..n).filter(|id| *id != victim) {
            links.one_way(End::Replica(victim), End::Replica(id), gate);
            links.one_way(End::Replica(id), End::Replica((id + 1) % n), gate);
        }
    }),
    ("clients reach one alone", |links, victim, n, gate| {
        for id in (0..n).filter(|id| *id != victim) {
            links.both(End::Clients, End::Replica(id), gate);
        }
    }),
];

struct Scene {
    lab: Lab,
    gateways: [Gateway; 2],
    load: Load,
}

impl Scene {
    fn start(setup: Setup) -> Scene {
        let lab = Lab::start(setup);
        let gateways = [lab.gateway(0), lab.gateway(1)];
        let load = Load::start(&steady(&[&gateways[0], &gateways[1]]));
        load.flows(100);
        Scene { lab, gateways, load }
    }

    fn end(self, name: &str) {
        let all: Vec<u16> = self.lab.ids().collect();
        let status = self.lab.until_one_state(&all, &self.gateways[0]);
        let outcome = self.load.stop();
        let mut figures = outcome.figures();
        figures["view"] = status["replicas"][0]["view"].clone();
        soak::write_down(&format!("views-{name}"), &figures);
        outcome.without_errors().verify(self.gateways[1].port);
        let evidence: Vec<_> = all.iter().map(|id| &status["replicas"][usize::from(*id)]).collect();
        for row in evidence {
            let proofs = row["evidence"].as_array().expect("a list");
            assert!(proofs.is_empty(), "nobody misbehaves: {row}");
        }
    }
}

fn setup(replicas: u16, pillars: u16) -> Setup {
    Setup {
        replicas,
        pillars,
        proxied: true,
        durability: "memory",
        view_timeout: "300ms",
        ..Setup::default()
    }
}

#[test]
fn views_change_one_after_another_under_load() {
    let changes: u64 = if full() { 1_000 } else { 8 };
    let mut scene = Scene::start(setup(4, 2));
    let begun = scene.lab.view();
    while scene.lab.view() < begun + changes {
        let (leader, view) = (scene.lab.leader(), scene.lab.view());
        scene.load.event("the leader is cut off");
        scene.lab.links().isolate(leader, Gate::Held);
        scene.lab.until_view_above(view);
        scene.load.flows(20);
        scene.lab.links().heal();
    }
    scene.end("one-after-another");
}

/// Two leaders in a row fail before they have done anything, and are still away when the third
/// one leads.
#[test]
fn leaders_fail_in_a_row() {
    let rounds = if full() { 20 } else { 1 };
    let mut scene = Scene::start(Setup { durability: "sync", ..setup(7, 1) });
    for _ in 0..rounds {
        let leader = scene.lab.leader();
        let next = (leader + 1) % scene.lab.n();
        scene.load.event("kill -9 of two leaders");
        scene.lab.kill(next);
        scene.lab.kill(leader);
        scene.load.flows(100);
        scene.lab.start_one(leader);
        scene.lab.start_one(next);
        let all: Vec<u16> = scene.lab.ids().collect();
        scene.lab.until_one_state(&all, &scene.gateways[0]);
    }
    scene.end("in-a-row");
}

/// Each kind of partition, held and refused, around the leader and around a backup.
fn partitions(replicas: u16, kinds: &[Cut], rounds: u64) {
    let mut scene = Scene::start(setup(replicas, 1));
    let mut dice = Dice::new(u64::from(replicas));
    for round in 0..rounds {
        for (what, cut) in kinds {
            let gate =
                if (round + dice.below(2)).is_multiple_of(2) { Gate::Held } else { Gate::Refused };
            let leader = scene.lab.leader();
            let other = u16::try_from(dice.below(2)).expect("below two");
            let victim = (leader + other) % replicas;
            scene.load.event(what);
            cut(scene.lab.links(), victim, replicas, gate);
            std::thread::sleep(Duration::from_millis(500 + dice.below(1_000)));
            scene.lab.links().heal();
            scene.load.flows(50);
        }
        let all: Vec<u16> = scene.lab.ids().collect();
        scene.lab.until_one_state(&all, &scene.gateways[0]);
    }
    scene.end(&format!("partitions-{replicas}"));
}

#[test]
fn partitions_of_every_kind_heal() {
    let rounds = if full() { 20 } else { 1 };
    partitions(4, CUTS, rounds);
}

#[test]
fn partitions_of_seven_heal() {
    let rounds = if full() { 20 } else { 1 };
    let kinds = if full() { CUTS } else { &CUTS[6..9] };
    partitions(7, kinds, rounds);
}

/// Links that come and go faster than views do. While half of them are away at any time, nobody
/// promises an answer; once they stay, everybody gets one.
#[test]
fn a_flapping_network_settles() {
    let flaps = if full() { 2_000 } else { 60 };
    let mut scene = Scene::start(setup(4, 1));
    let mut dice = Dice::new(7);
    scene.load.event("flapping");
    for _ in 0..flaps {
        let end = |at: u64| u16::try_from(at).map_or(End::Clients, End::Replica);
        let (from, to) = (dice.below(4), dice.below(4));
        let gate = match dice.below(4) {
            0 => Gate::Held,
            1 => Gate::Late(Duration::from_millis(dice.below(200))),
            2 => Gate::Refused,
            _ => Gate::Open,
        };
        if from != to {
            scene.lab.links().one_way(end(from), end(to), gate);
        }
        std::thread::sleep(Duration::from_millis(dice.below(100)));
    }
    scene.lab.links().heal();
    scene.load.flows(100);
    scene.load.forgive_silence();
    scene.load.flows(100);
    scene.end("flapping");
}

/// A view change after which one replica's link to the new leader is slow, for one pillar: the
/// joint view holds all the same.
#[test]
fn one_slow_pillar_delays_and_divides_nobody() {
    let rounds = if full() { 20 } else { 2 };
    let mut scene = Scene::start(setup(4, 2));
    for _ in 0..rounds {
        let (leader, view) = (scene.lab.leader(), scene.lab.view());
        let (next, late) = ((leader + 1) % 4, (leader + 2) % 4);
        let gate = Gate::Late(Duration::from_millis(150));
        scene.load.event("a slow pillar and a view change");
        scene.lab.links().pillar(End::Replica(next), End::Replica(late), 1, gate);
        scene.lab.links().isolate(leader, Gate::Held);
        scene.lab.until_view_above(view);
        scene.load.flows(50);
        scene.lab.links().heal();
        scene.load.flows(50);
    }
    scene.end("slow-pillar");
}
