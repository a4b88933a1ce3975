//! The tools of the chaos tests find what they are for: a checker that sees nothing, or a proxy
//! that cuts nothing, would make every other test here pass.

#[path = "support/chaos/mod.rs"]
mod chaos;
#[path = "support/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use chaos::history::{Event, History, Op, check};
use chaos::ledger::{Ledger, Reader};
use chaos::{End, Gate, Lab, Links, Load, Plan, Setup};

fn event(call: u64, reply: u64, op: Op) -> Event {
    Event { op, call, reply: Some(reply) }
}

fn unanswered(call: u64, op: Op) -> Event {
    Event { op, call, reply: None }
}

#[test]
fn histories_that_one_copy_explains_are_accepted() {
    for events in [
        vec![],
        vec![
            event(1, 2, Op::Read(None)),
            event(3, 4, Op::Write(1)),
            event(5, 6, Op::Read(Some(1))),
        ],
        // Two writes at the same time, seen in either order.
        vec![
            event(1, 9, Op::Write(1)),
            event(1, 9, Op::Write(2)),
            event(10, 11, Op::Read(Some(1))),
        ],
        vec![
            event(1, 9, Op::Write(1)),
            event(1, 9, Op::Write(2)),
            event(10, 11, Op::Read(Some(2))),
        ],
        // A write without a reply takes effect later than others were answered, or never.
        vec![
            unanswered(1, Op::Write(1)),
            event(2, 3, Op::Write(2)),
            event(4, 5, Op::Read(Some(2))),
            event(6, 7, Op::Read(Some(1))),
        ],
        vec![unanswered(1, Op::Write(1)), event(4, 5, Op::Read(None))],
        vec![
            event(1, 5, Op::Swap { new: 2, old: Some(1) }),
            event(1, 5, Op::Swap { new: 1, old: None }),
            event(6, 7, Op::Read(Some(2))),
        ],
        vec![
            event(1, 2, Op::Add(Some(1))),
            unanswered(3, Op::Add(None)),
            event(4, 5, Op::Add(Some(3))),
        ],
    ] {
        assert_eq!(check(&events), Ok(()), "{events:?}");
    }
}

#[test]
fn a_stale_read_a_lost_write_and_a_double_one_are_found() {
    for (what, events) in [
        (
            "a stale read",
            vec![
                event(1, 2, Op::Write(1)),
                event(3, 4, Op::Write(2)),
                event(5, 6, Op::Read(Some(1))),
            ],
        ),
        ("a lost write", vec![event(1, 2, Op::Write(1)), event(3, 4, Op::Read(None))]),
        (
            "two orders of two writes",
            vec![
                event(1, 9, Op::Write(1)),
                event(1, 9, Op::Write(2)),
                event(10, 11, Op::Read(Some(1))),
                event(12, 13, Op::Read(Some(2))),
            ],
        ),
        ("a value from nowhere", vec![event(1, 2, Op::Read(Some(7)))]),
        (
            "an increment that happened twice",
            vec![event(1, 2, Op::Add(Some(1))), event(3, 4, Op::Add(Some(3)))],
        ),
        (
            "a read before its write",
            vec![event(1, 2, Op::Read(Some(1))), event(3, 4, Op::Write(1))],
        ),
        (
            "one old value handed out twice",
            vec![
                event(1, 2, Op::Write(1)),
                event(3, 6, Op::Swap { new: 2, old: Some(1) }),
                event(3, 6, Op::Swap { new: 3, old: Some(1) }),
            ],
        ),
    ] {
        let found = check(&events);
        assert!(found.is_err_and(|why| why.starts_with("not linearizable")), "{what}");
    }
}

/// A real history of many clients on one real map, with one reply falsified: found. Without:
/// accepted. Long enough to show that the search is quick.
#[test]
fn one_wrong_reply_in_thousands_is_found() {
    for falsified in [false, true] {
        let history = History::default();
        let mut values: BTreeMap<u64, u64> = BTreeMap::new();
        let mut clock = 0;
        for round in 0..2_000_u64 {
            // Four clients at a time, whose operations take effect in a mixed order.
            for client in [2, 0, 3, 1] {
                let (key, unique) = ((round / 50) % 7, round * 4 + client + 1);
                let before = values.get(&key).copied();
                let op = match (round * 5 + client * 3) % 4 {
                    0 | 1 => Op::Write(unique),
                    2 => Op::Read(before),
                    _ => Op::Swap { new: unique, old: before },
                };
                if matches!(op, Op::Write(_) | Op::Swap { .. }) {
                    values.insert(key, unique);
                }
                let op = match op {
                    Op::Read(Some(value)) if falsified && round == 1_502 => {
                        Op::Read(Some(value + 1_000_000))
                    }
                    op => op,
                };
                let call = clock + client;
                history.note(&key.to_string(), event(call, clock + 10 + client, op));
            }
            clock += 8;
        }
        assert_eq!(history.check().is_err(), falsified);
    }
}

struct Fake(BTreeMap<&'static str, Vec<u64>>);

impl Reader for Fake {
    fn get(&mut self, key: &str) -> Option<u64> {
        self.0.get(key).map(|values| values[0])
    }

    fn list(&mut self, key: &str) -> Vec<u64> {
        self.0.get(key).cloned().unwrap_or_default()
    }
}

#[test]
fn the_ledger_finds_every_acknowledged_write_that_is_lost() {
    let ledger = Ledger::default();
    ledger.set("register", 1, true);
    ledger.set("register", 2, true);
    ledger.set("unsure", 8, true);
    ledger.set("unsure", 9, false);
    [true, true, false].into_iter().for_each(|sure| ledger.incr("counter", sure));
    [(5, true), (6, true), (7, false)]
        .into_iter()
        .for_each(|(v, sure)| ledger.append("l", v, sure));
    let fake = |register: u64, unsure: u64, counter: u64, list: &[u64]| {
        let there = [("register", vec![register]), ("unsure", vec![unsure])];
        let more = [("counter", vec![counter]), ("l", list.to_vec())];
        Fake(there.into_iter().chain(more).collect())
    };
    for mut good in [fake(2, 8, 2, &[5, 6]), fake(2, 9, 3, &[5, 7, 6])] {
        assert_eq!(ledger.verify(&mut good), Ok(()));
    }
    for mut bad in [
        fake(1, 8, 2, &[5, 6]),
        fake(2, 7, 2, &[5, 6]),
        fake(2, 8, 1, &[5, 6]),
        fake(2, 8, 4, &[5, 6]),
        fake(2, 8, 2, &[5]),
        fake(2, 8, 2, &[5, 6, 6]),
        fake(2, 8, 2, &[5, 6, 8]),
        Fake(BTreeMap::new()),
    ] {
        assert!(ledger.verify(&mut bad).is_err(), "{:?}", bad.0);
    }
}

/// Something that says everything back.
fn parrot() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// What comes back of `bytes` on a connection that is there; `None` when it takes too long.
fn echo(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    match stream.read_exact(&mut back) {
        Ok(()) => Ok(Some(back)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[test]
fn gates_hold_delay_refuse_and_heal_one_direction_of_one_pillar() {
    let (a, b) = (End::Replica(0), End::Replica(1));
    let links = Links::start(&[vec![parrot(), parrot()], vec![parrot(), parrot()]]);
    let dial = |pillar: usize| {
        let stream =
            TcpStream::connect(("127.0.0.1", links.ports(a, 1)[pillar])).expect("it is up");
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
        stream
    };
    let (mut first, mut second) = (dial(0), dial(1));
    assert_eq!(echo(&mut first, b"one").expect("open"), Some(b"one".to_vec()));
    assert_eq!(echo(&mut second, b"two").expect("open"), Some(b"two".to_vec()));
    for (from, to) in [(a, b), (b, a)] {
        links.pillar(from, to, 0, Gate::Held);
        assert_eq!(echo(&mut first, b"held").expect("open"), None);
        assert_eq!(echo(&mut second, b"free").expect("open"), Some(b"free".to_vec()));
        assert_eq!(echo(&mut dial(0), b"new").expect("open"), None);
        links.heal();
        let mut late = [0; 4];
        first.set_read_timeout(Some(cluster::HANG)).expect("a socket");
        first.read_exact(&mut late).expect("it was held, not lost");
        assert_eq!(&late, b"held");
        first.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
    }
    // The other direction between the same two is another link's.
    links.one_way(b, a, Gate::Late(Duration::from_millis(60)));
    first.set_read_timeout(Some(cluster::HANG)).expect("a socket");
    let asked = Instant::now();
    assert_eq!(echo(&mut first, b"slow").expect("open"), Some(b"slow".to_vec()));
    assert!(asked.elapsed() >= Duration::from_millis(60));
    links.both(a, b, Gate::Refused);
    assert!(matches!(first.read(&mut [0; 1]), Ok(0) | Err(_)), "closed");
    let mut refused = dial(0);
    assert!(!matches!(echo(&mut refused, b"x"), Ok(Some(_))));
    links.heal();
    assert_eq!(echo(&mut dial(0), b"again").expect("open"), Some(b"again".to_vec()));
}

/// The normal case under all tools at once: a backup that is cut off, comes back, and dies.
#[test]
fn a_backup_that_is_isolated_healed_and_killed_costs_nobody_anything() {
    let mut lab = Lab::start(Setup { proxied: true, durability: "memory", ..Setup::default() });
    let gateway = lab.gateway(0);
    let mut load = Load::start(&Plan { connections: 4, ..chaos::steady(&[&gateway]) });
    load.flows(50);
    let backup = (lab.leader() + 1) % lab.n();
    load.event("isolate");
    lab.links().isolate(backup, Gate::Held);
    let executed = |lab: &Lab, id: u16| {
        let (_, status) = lab.status();
        status["replicas"][usize::from(id)]["last_executed"].as_u64().expect("it answers")
    };
    // Reports are a little old.
    load.flows(200);
    let before = executed(&lab, backup);
    load.flows(200);
    assert_eq!(executed(&lab, backup), before, "nothing reaches it");
    lab.links().heal();
    lab.until_one_state(&[0, 1, 2, 3], &gateway);
    load.event("kill");
    lab.kill(backup);
    load.flows(200);
    let outcome = load.stop();
    outcome.without_errors().verify(gateway.port);
    println!("{}", outcome.figures());
}
