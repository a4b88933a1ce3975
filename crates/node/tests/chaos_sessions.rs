//! Sessions, ephemeral nodes and watches of ZooKeeper's clients while replicas are killed and
//! stopped, the leader among them, the group stands still for want of a quorum, and gateways are
//! killed and stopped, so that clients take their sessions to another one.
//!
//! Live clients notice nothing but pauses: no session ends. Of those that die, the ephemeral
//! nodes go in time, by agreed time. Every watch fires exactly once, in order, and before any
//! response that shows the change ([`zookeeper::watches`]).

#[path = "support/chaos/mod.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/soak.rs"]
mod soak;
#[path = "support/zookeeper/mod.rs"]
mod zookeeper;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use chaos::{Lab, Setup};
use cluster::{Gateway, free_ports, full, until};
use rustix::process::Signal;
use serde_json::json;
use zookeeper::{Change, Crowd, Failure, History, LIVE, Tally, Told, WRITERS, Way, check};

const GATEWAYS: usize = 2;
const WATCHING: usize = 3;
const HOLDING: usize = 3;

/// A group, its gateways, and those who use them.
struct Scene<'a> {
    lab: Lab,
    ports: [u16; GATEWAYS],
    gateways: [Option<Gateway>; GATEWAYS],
    crowd: &'a Crowd,
}

/// Something that happens to a group or its gateways, and is over in the end.
type Fault = (&'static str, fn(&mut Scene<'_>, usize));

const FAULTS: &[Fault] = &[
    ("kill -9 of the leader", |scene, _| {
        let leader = scene.lab.leader();
        scene.lab.kill(leader);
        scene.flows(40);
        scene.lab.start_one(leader);
    }),
    ("kill -9 of a gateway", |scene, round| scene.without_gateway(round % GATEWAYS)),
    ("SIGSTOP of the leader", |scene, _| {
        let leader = scene.lab.leader();
        scene.lab.suspend(leader);
        scene.flows(40);
        scene.lab.resume(leader);
    }),
    ("SIGSTOP of a backup", |scene, round| {
        let backup = (scene.lab.leader() + 1 + u16::try_from(round % 3).expect("below 3")) % 4;
        scene.lab.suspend(backup);
        std::thread::sleep(Duration::from_secs(1));
        scene.flows(20);
        scene.lab.resume(backup);
    }),
    ("SIGSTOP of a gateway", |scene, round| {
        let at = (round + 1) % GATEWAYS;
        let signal = |signal| scene.gateways[at].as_ref().expect("it runs").process.signal(signal);
        signal(Signal::STOP);
        // Its clients give up waiting after two thirds of their timeouts.
        std::thread::sleep(LIVE * 5 / 6);
        signal(Signal::CONT);
    }),
    ("no quorum for longer than sessions last", |scene, _| {
        let leader = scene.lab.leader();
        let other = (leader + 1) % 4;
        scene.lab.kill(leader);
        scene.lab.kill(other);
        std::thread::sleep(LIVE * 4 / 3);
        scene.lab.start_one(leader);
        scene.lab.start_one(other);
    }),
    ("kill -9 of the leader and a gateway", |scene, round| {
        let leader = scene.lab.leader();
        scene.lab.kill(leader);
        scene.without_gateway((round + 1) % GATEWAYS);
        scene.lab.start_one(leader);
    }),
];

impl Scene<'_> {
    /// Waits until so many more writes were answered.
    fn flows(&self, count: u64) {
        let begun = self.crowd.writes.load(Ordering::Relaxed);
        until("clients are served", || match self.crowd.writes.load(Ordering::Relaxed) - begun {
            more if more >= count => Ok(()),
            more => {
                assert!(!self.crowd.over.load(Ordering::Relaxed), "a live client's session ended");
                Err(format!("{more} of {count} writes"))
            }
        });
    }

    fn without_gateway(&mut self, at: usize) {
        self.gateways[at] = None;
        self.flows(40);
        let principal = u32::try_from(at).expect("small");
        self.gateways[at] = Some(self.lab.zookeeper(principal, self.ports[at]));
    }
}

/// What all of them were told.
struct Story {
    history: History,
    logs: Vec<Vec<Told>>,
    looks: u64,
    deaths: zookeeper::Deaths,
}

/// What a client comes back with whose session is to have lasted.
fn alive<T>(client: ScopedJoinHandle<'_, Result<T, Failure>>) -> T {
    client.join().expect("no panic").expect("a live client's session goes on")
}

/// Has everybody do what they do while `faults` happen.
fn play(crowd: &Crowd, faults: impl FnOnce()) -> Story {
    let (ready, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (ready, done) = (&ready, &done);
        let writers: Vec<_> =
            (0..WRITERS).map(|at| scope.spawn(move || crowd.write(at, ready))).collect();
        until("there is something to watch", || match ready.load(Ordering::Relaxed) {
            all if all == WRITERS as u64 => Ok(()),
            some => Err(format!("{some} writers")),
        });
        let mut told: Vec<_> =
            (0..WATCHING).map(|at| scope.spawn(move || crowd.watch(at, done))).collect();
        told.extend((0..GATEWAYS).map(|at| scope.spawn(move || crowd.watch_on(at, done))));
        let holding: Vec<_> = (0..HOLDING).map(|at| scope.spawn(move || crowd.hold(at))).collect();
        let buried = scope.spawn(|| crowd.bury());
        faults();
        crowd.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        writers.into_iter().for_each(|writer| history.join(alive(writer)));
        done.store(true, Ordering::Relaxed);
        let logs = told.into_iter().map(alive).collect();
        let looks = holding.into_iter().map(alive).sum();
        let deaths = buried.join().expect("no panic").unwrap_or_else(|why| panic!("{why}"));
        Story { history, logs, looks, deaths }
    })
}

#[test]
fn sessions_and_watches_hold_through_faults() {
    let rounds = if full() { 20 } else { 1 };
    let lab = Lab::start(Setup { service: "zookeeper", ..Setup::default() });
    let first = free_ports(2);
    let ports = [first, first + 1];
    let gateways = [0, 1].map(|at| Some(lab.zookeeper(at, ports[at as usize])));
    let crowd = Crowd::new(ports.map(|port| format!("127.0.0.1:{port}")).to_vec());
    crowd.prepare();
    let mut scene = Scene { lab, ports, gateways, crowd: &crowd };
    let story = play(&crowd, || {
        scene.flows(20);
        for round in 0..rounds {
            for (what, fault) in FAULTS {
                println!("{what}");
                fault(&mut scene, round);
                scene.lab.until_healthy();
                scene.flows(20);
            }
        }
    });
    let mut all = Tally::default();
    for (at, log) in story.logs.iter().enumerate() {
        let own = check(&story.history, log).unwrap_or_else(|why| panic!("client {at}: {why}"));
        all.add(own);
    }
    let mut writer = crowd.client(0, LIVE);
    let all_ids: Vec<u16> = scene.lab.ids().collect();
    scene.lab.until_one_state_by(&all_ids, || zookeeper::crowd::poke(&mut writer));
    let Story { history, looks, deaths, .. } = story;
    let figures = json!({
        "changes": history.len(),
        "fired": all.fired, "made_up": all.made_up, "persistent": all.persistent,
        "missed_away": all.missed, "connections_lost": all.lost,
        "looks_of_the_living": looks,
        "dead": deaths.dead, "earliest_ms": deaths.earliest_ms, "latest_ms": deaths.latest_ms,
        "latest_running_ms": deaths.latest_running_ms, "standstill_ms": deaths.standstill_ms,
    });
    soak::write_down("sessions", &figures);
    assert!(all.fired > 100 && all.made_up > 0 && all.persistent > 50, "{figures}");
    assert!(all.lost > 5 && looks > 10 && deaths.dead > 5, "{figures}");
}

/// A story as it should be: watches that fire once and for all, a lost connection, and setting
/// them anew.
fn story() -> (History, Vec<Told>) {
    let mut history = History::default();
    for (path, zxid, change) in [
        ("/w/d", 1, Change::Created),
        ("/w/d", 10, Change::Written),
        ("/w/e", 20, Change::Created),
        ("/w/d", 30, Change::Written),
        ("/w/d", 40, Change::Written),
        ("/w/e", 50, Change::Deleted),
    ] {
        history.note(path, zxid, change);
    }
    let stat = |mzxid| Some(zookeeper::Stat { czxid: 1, mzxid, mtime: 0, version: 0, pzxid: 1 });
    let watch = |path: &str, way, zxid, stat| Told::Watch { path: path.into(), way, zxid, stat };
    let event = |kind, path: &str| Told::Event { kind, path: path.into() };
    let log = vec![
        watch("/w/d", Way::Data, 5, stat(1)),
        watch("/w/e", Way::Exist, 6, None),
        watch("/w", Way::Recursive, 7, None),
        event(3, "/w/d"),
        event(3, "/w/d"),
        Told::Reply { zxid: 12 },
        watch("/w/d", Way::Data, 12, stat(10)),
        event(1, "/w/e"),
        event(1, "/w/e"),
        Told::Reply { zxid: 25 },
        watch("/w/e", Way::Data, 25, stat(20)),
        Told::Lost,
        Told::Back,
        event(3, "/w/d"),
        Told::Reset { zxid: 45 },
        event(2, "/w/e"),
        event(2, "/w/e"),
        Told::Reply { zxid: 60 },
    ];
    (history, log)
}

#[test]
fn stories_that_are_right_are_taken_and_any_other_is_not() {
    let (history, log) = story();
    let tally = check(&history, &log).expect("nothing is wrong");
    let wanted = Tally { fired: 4, made_up: 1, persistent: 3, missed: 2, lost: 1 };
    assert_eq!(tally, wanted);
    // Without any one event, with any one twice, with any one later or of another kind.
    for (at, told) in log.iter().enumerate() {
        let Told::Event { kind, path } = told else { continue };
        let changed = |act: &dyn Fn(&mut Vec<Told>)| {
            let mut log = log.clone();
            act(&mut log);
            check(&history, &log)
        };
        let other = Told::Event { kind: kind % 3 + 1, path: path.clone() };
        let wrong = [
            changed(&|log| drop(log.remove(at))),
            changed(&|log| log.insert(at, told.clone())),
            changed(&|log| log[at] = other.clone()),
            changed(&|log| {
                let reply = |told: &Told| matches!(told, Told::Reply { .. } | Told::Reset { .. });
                let after = log[at..].iter().position(reply).expect("something comes after");
                let event = log.remove(at);
                log.insert(at + after, event);
            }),
        ];
        for (which, wrong) in wrong.iter().enumerate() {
            assert!(wrong.is_err(), "change {which} of {at}: {told:?}");
        }
    }
}
