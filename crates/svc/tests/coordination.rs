//! The coordination service on several threads: byte-equal replies and digests with 1, 2, 4 and 8
//! workers, and what its operations touch against what they declare.

#[path = "support/schedules.rs"]
mod schedules;

use std::sync::Arc;

use base::{AgreedTime, Batch, ClientId, Frame, FrameBuilder, FrameId, SessionId};
use exec::testing::Harness;
use exec::{Service, StageOutbox};
use schedules::{
    Dice, GROUP, Said, deliver, extent, same, scheduled, sequential, signed, stage, threaded,
};
use svc::zk::jute::JuteWriter;
use svc::zk::op::{Attachment, Events, Op, Outcome};
use svc::zk::{ZooKeeperService, kind};

const CLIENTS: u32 = 3;
/// Sessions of each client.
const SESSIONS: usize = 3;
const PASSWORD: [u8; 16] = [5; 16];

fn make() -> Box<dyn Service> {
    Box::new(ZooKeeperService::new())
}

fn jute(write: impl FnOnce(&mut JuteWriter<'_>)) -> Vec<u8> {
    let mut out = vec![];
    write(&mut JuteWriter::new(&mut out));
    out
}

fn encoded(op: &Op<'_>) -> Vec<u8> {
    let mut out = vec![];
    op.encode(&mut out);
    out
}

fn pick<'a>(dice: &mut Dice, from: &[&'a str]) -> &'a str {
    from[dice.below(from.len() as u64) as usize]
}

/// A path: of few, so that operations meet; some as sequential nodes have them.
fn path(dice: &mut Dice) -> String {
    let top = pick(dice, &["/a", "/b", "/c", "/d", "/e", "/f"]);
    match dice.below(10) {
        0 => pick(dice, &["/", "", "/zookeeper", "bad", "/bad/", "/x\u{1}"]).to_owned(),
        1..=5 => top.to_owned(),
        6 => format!("{top}/n-000000000{}", dice.below(4)),
        7 => format!("{top}/000000000{}", dice.below(3)),
        _ => format!("{top}/{}", pick(dice, &["x", "y", "z"])),
    }
}

fn version(dice: &mut Dice) -> i32 {
    [-1, -1, -1, 0, 1][dice.below(5) as usize]
}

fn data(dice: &mut Dice) -> Vec<u8> {
    vec![dice.below(256) as u8; [0, 3, 64, 65, 300][dice.below(5) as usize]]
}

/// A node that is made: kind and body.
fn create(dice: &mut Dice) -> (i32, Vec<u8>) {
    let flags = [0, 0, 0, 1, 2, 3, 4, 5, 6, 9][dice.below(10) as usize];
    let kind = match flags {
        4 => kind::CREATE_CONTAINER,
        5 | 6 => kind::CREATE_TTL,
        _ => [kind::CREATE, kind::CREATE2][dice.below(2) as usize],
    };
    let prefix = pick(dice, &["", "/", "/n-"]);
    let path = if matches!(flags, 2 | 3 | 6) && dice.below(4) > 0 {
        format!("{}{prefix}", pick(dice, &["/a", "/b", "/c", "/d"]))
    } else {
        path(dice)
    };
    let (scheme, id) =
        [("world", "anyone"), ("world", "anyone"), ("world", "anyone"), ("auth", "")]
            [dice.below(4) as usize];
    let perms = if dice.below(12) == 0 { dice.below(32) as i32 } else { 31 };
    let data = data(dice);
    let body = jute(|w| {
        w.text(&path).buffer(Some(&data)).count(1).int(perms).text(scheme).text(id).int(flags);
        if kind == kind::CREATE_TTL {
            w.long(dice.below(1500) as i64);
        }
    });
    (kind, body)
}

/// A write that may be a part of a multi.
fn write(dice: &mut Dice) -> (i32, Vec<u8>) {
    let path = path(dice);
    match dice.below(10) {
        0..=3 => create(dice),
        4 | 5 => {
            let version = version(dice);
            (
                kind::DELETE,
                jute(|w| {
                    w.text(&path).int(version);
                }),
            )
        }
        6 => (
            kind::CHECK,
            jute(|w| {
                w.text(&path).int(-1);
            }),
        ),
        _ => {
            let (data, version) = (data(dice), version(dice));
            (
                kind::SET_DATA,
                jute(|w| {
                    w.text(&path).buffer(Some(&data)).int(version);
                }),
            )
        }
    }
}

fn paths(dice: &mut Dice) -> Vec<String> {
    (0..dice.below(4)).map(|_| path(dice)).collect()
}

/// Kind and body of a request.
fn request(dice: &mut Dice) -> (i32, Vec<u8>) {
    let at = path(dice);
    let watched = dice.below(3) == 0;
    let read = |w: &mut JuteWriter<'_>| {
        w.text(&at).bool(watched);
    };
    match dice.below(60) {
        0..=19 => write(dice),
        20..=26 => (kind::EXISTS, jute(read)),
        27..=33 => (kind::GET_DATA, jute(read)),
        34..=37 => (kind::GET_CHILDREN, jute(read)),
        38..=40 => (kind::GET_CHILDREN2, jute(read)),
        41..=45 => {
            let parts: Vec<_> = (0..dice.below(5)).map(|_| write(dice)).collect();
            let part = |w: &mut JuteWriter<'_>, (kind, body): &(i32, Vec<u8>)| {
                w.int(*kind).bool(false).int(-1).raw(body);
            };
            (
                kind::MULTI,
                jute(|w| {
                    parts.iter().for_each(|one| part(w, one));
                    w.int(-1).bool(true).int(-1);
                }),
            )
        }
        46 => {
            let reads = paths(dice);
            (
                kind::MULTI_READ,
                jute(|w| {
                    for path in &reads {
                        w.int(kind::GET_DATA).bool(false).int(-1).text(path).bool(watched);
                    }
                    w.int(-1).bool(true).int(-1);
                }),
            )
        }
        47 => {
            let lists: Vec<_> = (0..5).map(|_| paths(dice)).collect();
            let [kind, seen] = [dice.below(2), dice.below(1 << 28)];
            let kind = [kind::SET_WATCHES, kind::SET_WATCHES2][kind as usize];
            (
                kind,
                jute(|w| {
                    w.long(seen as i64);
                    for list in &lists {
                        w.count(list.len());
                        list.iter().for_each(|path| {
                            w.text(path);
                        });
                    }
                }),
            )
        }
        48 | 49 => {
            let mode = i32::from(dice.below(4) == 0);
            (
                kind::ADD_WATCH,
                jute(|w| {
                    w.text(&at).int(mode);
                }),
            )
        }
        50 | 51 => {
            let [kind, ways] = [dice.below(3), 1 + dice.below(5)];
            let kind = if kind == 0 { kind::CHECK_WATCHES } else { kind::REMOVE_WATCHES };
            (
                kind,
                jute(|w| {
                    w.text(&at).int(ways as i32);
                }),
            )
        }
        52 => (
            kind::AUTH,
            jute(|w| {
                w.int(0).text("digest").buffer(Some(b"me:pw"));
            }),
        ),
        53 => (
            kind::GET_ACL,
            jute(|w| {
                w.text(&at);
            }),
        ),
        54 => {
            let acl = |w: &mut JuteWriter<'_>| {
                w.count(1).int(31).text("world").text("anyone");
            };
            (
                kind::SET_ACL,
                jute(|w| {
                    w.text(&at);
                    acl(w);
                    w.int(-1);
                }),
            )
        }
        55 => (
            kind::GET_EPHEMERALS,
            jute(|w| {
                w.text("/");
            }),
        ),
        56 => (
            kind::GET_ALL_CHILDREN_NUMBER,
            jute(|w| {
                w.text(&at);
            }),
        ),
        57 => (kind::WHO_AM_I, vec![]),
        58 if dice.below(4) == 0 => (kind::CLOSE, vec![]),
        58 => (
            [kind::SYNC, 77][dice.below(2) as usize],
            jute(|w| {
                w.text(&at);
            }),
        ),
        _ => (dice.below(24) as i32, vec![0, 0, dice.below(3) as u8]),
    }
}

/// What is known about the sessions, as the gateways of a real group would know it.
struct World {
    dice: Dice,
    /// By client; `None` while it is to be opened.
    sessions: Vec<Vec<Option<Attachment>>>,
}

impl World {
    fn new(seed: u64) -> World {
        let sessions = vec![vec![None; SESSIONS]; CLIENTS as usize];
        World { dice: Dice(seed.wrapping_mul(0x9e37_79b9) ^ 77), sessions }
    }

    /// The next operation of a client, whose number in the total order will be `zxid`.
    fn operation(&mut self, client: usize, zxid: u64) -> Vec<u8> {
        let dice = &mut self.dice;
        let which = dice.below(SESSIONS as u64) as usize;
        let own = &mut self.sessions[client];
        let Some(from) = own[which] else {
            own[which] = Some((zxid, zxid));
            let timeout_ms = [2000, 2000, 60_000][dice.below(3) as usize];
            return encoded(&Op::Open { password: PASSWORD, timeout_ms });
        };
        match dice.below(60) {
            0 => encoded(&Op::Renew(own.iter().flatten().copied().collect())),
            1 => encoded(&Op::Stats),
            2 => encoded(&Op::Leave(from)),
            3 => {
                own[which] = Some((from.0, zxid));
                let (session, last_zxid) = (from.0, dice.below(2) as i64);
                encoded(&Op::Resume { session, password: PASSWORD, timeout_ms: 2000, last_zxid })
            }
            4 => vec![1, 9],
            // Perhaps it is over, or was left.
            5 if dice.below(3) == 0 => {
                own[which] = None;
                vec![]
            }
            _ => {
                let (kind, body) = request(dice);
                if kind == kind::CLOSE {
                    own[which] = None;
                }
                encoded(&Op::Request { from, kind, body: &body })
            }
        }
    }
}

fn log(seed: u64, batches: u64) -> Vec<Arc<Batch>> {
    let mut world = World::new(seed);
    let open = |client| Arc::new(FrameBuilder::open(GROUP, ClientId(client), SessionId(1), signed));
    let mut frames: Vec<Arc<Frame>> = (0..CLIENTS).map(open).collect();
    let (mut log, mut ids, mut time) = (vec![], [0; CLIENTS as usize], 1_000_000_000);
    for number in 2..batches + 2 {
        log.push(Arc::new(Batch::Frames { time: AgreedTime(time), frames }));
        let dice = &mut world.dice;
        time += (1 + dice.below(200) + if dice.below(30) == 0 { 3000 } else { 0 }) * 1_000_000;
        frames = vec![];
        let mut zxid = (number << 23) + 1;
        for _ in 0..1 + world.dice.below(5) {
            let client = world.dice.below(CLIENTS.into()) as u32;
            let id = &mut ids[client as usize];
            *id += 1;
            let name =
                FrameId { client: ClientId(client), session: SessionId(1), stream: 0, id: *id };
            let mut builder = FrameBuilder::new();
            for _ in 0..1 + world.dice.below(20) {
                builder.push(&world.operation(client as usize, zxid));
                zxid += 1;
            }
            frames.push(Arc::new(builder.request(GROUP, name, *id - 1, signed)));
        }
    }
    log
}

/// Responses that tell of something that was done, and events, in what was said.
fn told(said: &Said) -> (usize, usize) {
    let (mut done, mut events) = (0, 0);
    for content in said.replies.values() {
        let (_, results) = base::reply::ReplyHead::peek(content).expect("a reply");
        let mut results = base::Reader::new(results);
        while let Ok(result) = results.sized(usize::MAX, "result") {
            match Outcome::decode(result) {
                Ok(Outcome::Response { error: 0, events: Events { list, .. }, .. }) => {
                    done += 1;
                    events += list.len();
                }
                Ok(Outcome::Happened { events: all, .. }) => {
                    events += all.iter().map(|(_, own)| own.list.len()).sum::<usize>();
                }
                _ => {}
            }
        }
    }
    (done, events)
}

#[test]
fn any_number_of_threads_gives_the_replies_and_digests_of_one() {
    for seed in 0..4 {
        let log = log(seed, 40);
        let expected = sequential(make, &log);
        let (done, events) = told(&expected);
        assert!(done > 150 && events > 50, "{done} requests had effect, {events} events");
        for workers in [1, 2, 4, 8] {
            let got = threaded(make, &log, workers);
            same(&got, &expected, &format!("seed {seed}, {workers} workers"));
        }
    }
}

#[test]
fn any_schedule_gives_the_replies_and_digests_of_one_after_the_other() {
    for seed in 0..extent(24, 1_000) {
        let log = log(seed / 2, 25);
        let expected = sequential(make, &log);
        for workers in [1, 2, 4, 8] {
            let got = scheduled(make, &log, seed, workers);
            same(&got, &expected, &format!("seed {seed}, {workers} workers"));
        }
    }
}

/// Every operation touches what it declares and nothing else.
#[test]
fn what_operations_touch_is_what_they_declare() {
    let mut world = World::new(9);
    let mut harness = Harness::new(ZooKeeperService::new()).checking_declarations();
    let mut time = 1_000_000_000;
    for number in 1..=20_000u64 {
        let client = world.dice.below(CLIENTS.into()) as usize;
        harness.frame.client = ClientId(client as u32);
        time += world.dice.below(60) * 1_000_000;
        harness.tick(AgreedTime(time));
        // Each tick and each operation is a batch of its own.
        harness.run(&world.operation(client, (2 * number) << 23 | 1));
        if number % 1000 == 0 {
            harness.root();
        }
    }
    assert!(harness.declarations_checked() > 15_000, "{}", harness.declarations_checked());
}

/// A node each, by sessions of their own, all of them watched by the next session.
#[test]
fn independent_subtrees_are_written_at_the_same_time_although_they_are_watched() {
    const COUNT: u64 = 6;
    let frame = |id: u64, ops: &[Vec<u8>]| {
        let name = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id };
        let mut builder = FrameBuilder::new();
        ops.iter().for_each(|op| builder.push(op));
        Arc::new(builder.request(GROUP, name, id - 1, signed))
    };
    let batch = |number: u64, frame: Arc<Frame>| {
        let time = AgreedTime(1_000_000_000 + number * 1_000_000);
        Arc::new(Batch::Frames { time, frames: vec![frame] })
    };
    let session = |at: u64| (2 << 23 | (at + 1), 2 << 23 | (at + 1));
    let of = |from, kind, body: &[u8]| encoded(&Op::Request { from: session(from), kind, body });
    let each = |make: &dyn Fn(u64) -> Vec<u8>| (0..COUNT).map(make).collect::<Vec<_>>();
    let opened = each(&|_| encoded(&Op::Open { password: PASSWORD, timeout_ms: 60_000 }));
    let made = each(&|at| {
        let body = |w: &mut JuteWriter<'_>| {
            w.text(&format!("/{at}")).buffer(None).count(1).int(31).text("world").text("anyone");
            w.int(0);
        };
        of(at, kind::CREATE, &jute(body))
    });
    // The session after the next one: of two that write at the same time, neither watches.
    let watched = each(&|at| {
        let body = jute(|w| {
            w.text(&format!("/{}", at / 2 * 2)).bool(at % 2 == 1);
        });
        of(at, kind::GET_DATA, &body)
    });
    let written = each(&|at| {
        of(
            at,
            kind::SET_DATA,
            &jute(|w| {
                w.text(&format!("/{at}")).buffer(None).int(-1);
            }),
        )
    });
    let apart: Vec<_> = written.iter().step_by(2).cloned().collect();
    let open = Arc::new(FrameBuilder::open(GROUP, ClientId(1), SessionId(1), signed));
    let frames = [open, frame(1, &opened), frame(2, &made), frame(3, &watched)];
    let log: Vec<_> = (1..).zip(frames).map(|(number, frame)| batch(number, frame)).collect();
    let (mut stage, mut out) = (stage(make), StageOutbox::new());
    assert!(stage.engage(8));
    deliver(&mut stage, &log, &mut out);
    loop {
        stage.run(1000, &mut out);
        let Some(job) = stage.next_job(1) else { break };
        stage.finished(job.run(), &mut out);
    }
    assert_eq!(stage.report().executed.0, 4);
    let last = base::ToStage::Deliver { seq: base::Seq(5), batch: batch(5, frame(4, &apart)) };
    stage.on(last, &mut out).expect("in the window");
    stage.run(1000, &mut out);
    let jobs: Vec<_> = std::iter::from_fn(|| stage.next_job(1)).collect();
    assert_eq!(jobs.len(), apart.len(), "all of them at the same time");
    jobs.into_iter().rev().for_each(|job| stage.finished(job.run(), &mut out));
    stage.run(1000, &mut out);
    assert_eq!((stage.report().executed.0, stage.report().nudges), (5, 1));
}
