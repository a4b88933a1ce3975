//! Reads without an order (trap 8): whole groups in which liars and laggards answer them, and the
//! client alone, against replicas that stand wherever they like in one history.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::crypto::{ClientKeyring, PlainKeys};
use base::frame::{FrameKind, READS};
use base::reply::ReplyPacket;
use base::{
    AgreedTime, Authenticator, Batch, ClientId, Frame, FrameBuilder, FrameId, FromStage, Now,
    PillarId, Quorums, Reader, ReplicaId, Reply, ReplyStatus, Seq, SessionId, Span,
    StableCheckpoint, Stripe, Time, ToStage, View, Writer,
};
use exec::{Stage, StageConfig, StageOutbox};
use proto::client::{ClientConfig, ClientCore, Effect as Said};
use proto::pbft::{Input, Lane, LaneStart};
use proto::{Effect, Outbox};

use super::Scenario;
use crate::adversary::Behaviour;
use crate::faults::Fault;
use crate::host::{GROUP, keys, lane_config};
use crate::options::{Answers, Durability, Net, Options};
use crate::prng::{Prng, Ratio};
use crate::scenario::{PATIENCE, finish, reach, settle, world};
use crate::work::Work;
use crate::work::counters::Counters;
use crate::world::World;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "reads_without_an_order_are_linearizable",
        claim: "Trap 8: groups that answer reads without an order, some of whose replicas lie, \
                lag or begin anew, show a linearizable history.",
        ci_seeds: 24,
        full_seeds: 4_000,
        run: reads_without_an_order_are_linearizable,
    },
    Scenario {
        name: "replicas_in_the_dark_block_no_client",
        claim: "Trap 8 (Berger, Reiser, Bessani): where every reply takes a quorum, a leader that \
                tells f correct replicas nothing, and clients what is not so, holds up nobody, \
                and is left where it is: what it keeps back comes from the others.",
        ci_seeds: 12,
        full_seeds: 1_000,
        run: replicas_in_the_dark_block_no_client,
    },
    Scenario {
        name: "a_client_believes_no_read_that_is_too_old",
        claim: "Trap 8: whatever lagging replicas and f liars who copy them answer, reads and \
                writes of two clients are linearizable, in the order of each stream, also where a \
                value comes back.",
        ci_seeds: 40,
        full_seeds: 10_000,
        run: a_client_believes_no_read_that_is_too_old,
    },
    Scenario {
        name: "reads_see_what_is_committed_and_whole",
        claim: "Trap 8: a replica answers no read out of half a batch, nor out of one that may be \
                taken back, nor, in a new life, out of less than it may have shown before.",
        ci_seeds: 4,
        full_seeds: 100,
        run: reads_see_what_is_committed_and_whole,
    },
];

fn reads_without_an_order_are_linearizable(seed: u64) {
    let pick = |of: u64, by: u64| seed / by % of;
    let (n, f) = if pick(3, 1) == 2 { (7, 2) } else { (4, 1) };
    let options = Options {
        seed,
        n,
        f,
        answers: Answers { tentative: pick(2, 2) == 0, ..Answers::default() },
        pillars: 1 + pick(3, 2) as u16,
        clients: 3,
        outstanding: [12, 4, 1][pick(3, 3) as usize],
        net: if pick(2, 1) == 1 { Net::BAD } else { Net::CALM },
        durability: [Durability::Memory, Durability::Async, Durability::Sync][pick(3, 4) as usize],
        pace_us: [0, 1_000][pick(2, 3) as usize],
        work: Some(Work::Reads),
        ops_per_client: 150,
        ..Options::default()
    };
    let mut world = world(options);
    let last = ReplicaId(n - 1);
    match pick(3, 2) {
        0 => world.misbehave(last, Behaviour::WrongReplies),
        1 => world.misbehave(last, Behaviour::StarveReplica(ReplicaId(1))),
        _ => {
            world.run_for(Span::millis(10 + seed % 30), |_| false);
            world.fault(Fault::Crash(last));
            world.run_for(Span::millis(50), |_| false);
            world.fault(Fault::Restart(last));
        }
    }
    reach(&mut world, PATIENCE, "clients have their answers", World::clients_are_done);
    // What was answered tentatively is yet to be committed.
    world.run_for(Span::secs(5), |_| false);
    finish(&mut world, PATIENCE);
    settle(&mut world, 30);
}

fn replicas_in_the_dark_block_no_client(seed: u64) {
    let (n, f) = if seed.is_multiple_of(3) { (7, 2) } else { (4, 1) };
    // What is lost is sent again in the end, which takes as long as replacing a leader.
    let reordered = Net { loss: Ratio(0, 1), ..Net::BAD };
    let net = if seed.is_multiple_of(2) { Net::CALM } else { reordered };
    let work = Some(Work::Reads);
    let base = Options { seed, n, f, net, work, view_timeout: Span::secs(5), ..Options::default() };
    let mut world = world(Options { pillars: 1 + (seed % 2) as u16, ..base });
    for bad in 0..f {
        world.misbehave(ReplicaId(bad), Behaviour::InTheDark(ReplicaId(n - 1 - bad)));
    }
    // Far less than it takes to replace a leader.
    finish(&mut world, Span::secs(4));
    world.ask_more(50);
    finish(&mut world, Span::secs(4));
    let views = world.correct().into_iter().map(|replica| world.view(replica));
    assert!(views.max() == Some(View(0)), "nobody has to be replaced: {}", world.describe());
}

/// One register, which writes set to 0 and 1 in turn, replicas anywhere in its history, and what
/// two clients have on their way to them.
struct Register {
    prng: Prng,
    clients: Vec<ClientCore<u64>>,
    /// Every frame that was ordered, with who asked, and its writes.
    log: Vec<(usize, Arc<Frame>, u64)>,
    /// Up to where each replica has executed. The last one is faulty.
    at: Vec<usize>,
    /// What is on its way to a replica: reads, in order for each client.
    reads: Vec<(usize, usize, Arc<Frame>)>,
    now: u64,
    tokens: u64,
    /// When each operation was asked, of which stream, and whether it writes.
    asked: BTreeMap<u64, (u64, usize, bool)>,
    /// When something had ended, and where it stands at the latest.
    ended: Vec<(u64, usize)>,
    /// Where the last operation of each stream stands.
    streams: Vec<usize>,
    answered: u64,
}

const REGISTERS: usize = 4;
const LIAR: usize = REGISTERS - 1;

impl Register {
    fn new(seed: u64) -> Register {
        let quorums = Quorums::pbft(4, 1).expect("legal");
        let stripe = Stripe::new(1).expect("legal");
        let client = |id| {
            let mut config = ClientConfig::new(GROUP, quorums, stripe, ClientId(id)).with_reads();
            config.read_timeout = Span(40);
            (config.retransmit, config.retransmit_max) = (Span::secs(1), Span::secs(1));
            let keys = Box::new(PlainKeys { me: ReplicaId(0), n: 4 });
            ClientCore::new(config, keys, Now { mono: Time(0), wall: AgreedTime(1) })
        };
        Register {
            prng: Prng::new(seed),
            clients: (0..2).map(client).collect(),
            log: Vec::new(),
            at: vec![0; REGISTERS],
            reads: Vec::new(),
            now: 0,
            tokens: 0,
            asked: BTreeMap::new(),
            ended: Vec::new(),
            streams: vec![0; 4],
            answered: 0,
        }
    }

    /// The value after so many frames, and the last one that wrote.
    fn value(&self, at: usize) -> (u64, usize) {
        let writes = self.log[..at].iter().map(|(_, _, writes)| writes).sum::<u64>();
        let last = self.log[..at].iter().rposition(|(_, _, writes)| *writes > 0);
        (writes % 2, last.map_or(0, |last| last + 1))
    }

    fn time(&self) -> Now {
        Now { mono: Time(self.now), wall: AgreedTime(1 + self.now) }
    }

    fn step(&mut self) {
        self.now += 1;
        match self.prng.below(8) {
            0 | 1 => self.ask(),
            2 | 3 => {
                // One that is correct executes one more, and answers.
                let one = self.prng.below(LIAR as u64) as usize;
                if self.at[one] < self.log.len() {
                    self.at[one] += 1;
                    self.answer(one, self.at[one] - 1);
                    // The liar has executed whatever anybody has.
                    if self.at[LIAR] < self.at[one] {
                        self.at[LIAR] = self.at[one];
                        self.answer(LIAR, self.at[one] - 1);
                    }
                }
            }
            _ => {
                if !self.reads.is_empty() {
                    // The first of a client that a replica has.
                    let any = self.prng.below(self.reads.len() as u64) as usize;
                    let (who, client, _) = self.reads[any];
                    let first = self.reads.iter().position(|(w, c, _)| (*w, *c) == (who, client));
                    let (who, client, frame) = self.reads.remove(first.expect("that one"));
                    self.answer_read(who, client, &frame);
                }
            }
        }
        (0..self.clients.len()).for_each(|client| self.turn(client));
    }

    fn ask(&mut self) {
        let client = self.prng.below(2) as usize;
        if !self.clients[client].is_open() || self.clients[client].held_ops() > 3 {
            return;
        }
        let stream = self.prng.below(2) as usize;
        let writes = self.prng.chance(Ratio(1, 3));
        self.tokens += 1;
        let (now, token) = (self.time(), self.tokens);
        let core = &mut self.clients[client];
        let taken = match writes {
            true => core.submit(now, stream as u32, b"w", token),
            false => core.submit_read(now, stream as u32, b"r", token),
        };
        taken.expect("there is room");
        self.asked.insert(token, (self.now, 2 * client + stream, writes));
    }

    fn turn(&mut self, client: usize) {
        let now = self.time();
        self.clients[client].turn(now);
        let effects: Vec<Said<u64>> = self.clients[client].drain().collect();
        for effect in effects {
            match effect {
                Said::Send { frame, .. } if frame.kind() == FrameKind::Read => {
                    let to = (0..REGISTERS).map(|who| (who, client, Arc::clone(&frame)));
                    self.reads.extend(to);
                }
                Said::Send { frame, .. } => {
                    let known = self.log.iter().any(|(_, old, _)| old.id() == frame.id());
                    let writes = frame.ops().filter(|op| *op == b"w").count() as u64;
                    if !known {
                        self.log.push((client, frame, writes));
                    }
                }
                Said::Done { tokens, outcome } => {
                    let results = outcome.expect("nothing fails");
                    let ordered = !results.is_unordered();
                    for (token, result) in tokens.into_iter().zip(results.iter()) {
                        let result: [u8; 9] = result.try_into().expect("value and place");
                        let (value, place) = result.split_first_chunk::<1>().expect("a value");
                        let place = u64::from_le_bytes(place.try_into().expect("8 bytes"));
                        self.judge(token, u64::from(value[0]), ordered.then_some(place as usize));
                    }
                }
                _ => {}
            }
        }
    }

    /// An operation has an answer: at a place in the order, or wherever it can have been read.
    fn judge(&mut self, token: u64, value: u64, place: Option<usize>) {
        let (began, stream, writes) = self.asked.remove(&token).expect("answered once");
        self.answered += 1;
        let before = self.ended.iter().filter(|(ended, _)| *ended < began);
        let from = before.map(|(_, place)| *place).max().unwrap_or(0).max(self.streams[stream]);
        let place = place.unwrap_or_else(|| {
            let mut all = from..=self.log.len();
            let found = all.find(|at| self.value(*at).0 == value);
            found.unwrap_or_else(|| panic!("read {value} from {from} on, where it never was"))
        });
        assert!(place >= from, "operation {token} (writes: {writes}) at {place}, before {from}");
        self.streams[stream] = place;
        self.ended.push((self.now, place));
    }

    /// Replica `who` says what came of the frame at `at`.
    fn answer(&mut self, who: usize, at: usize) {
        let (client, frame, _) = &self.log[at];
        let (client, id, ops) = (*client, frame.id(), frame.op_count());
        let status = match frame.kind() {
            FrameKind::Open => ReplyStatus::Opened,
            _ => ReplyStatus::Executed,
        };
        let result = self.result(at + 1);
        let mut results = Vec::new();
        for _ in 0..ops {
            Writer::new(&mut results).sized(&result);
        }
        self.say(who, client, (id, Seq(at as u64 + 1), status, ops), results);
    }

    fn result(&self, at: usize) -> Vec<u8> {
        let mut result = vec![self.value(at).0 as u8];
        result.extend_from_slice(&(at as u64).to_le_bytes());
        result
    }

    fn answer_read(&mut self, who: usize, client: usize, frame: &Frame) {
        // The liar says what the one says that is furthest behind.
        let at = if who == LIAR { *self.at.iter().min().expect("some") } else { self.at[who] };
        let (value, since) = self.value(at);
        let mut result = (since as u32).to_le_bytes().to_vec();
        result.push(value as u8);
        result.extend_from_slice(&[0; 8]);
        let mut results = Vec::new();
        let ops = frame.op_count();
        for _ in 0..ops {
            Writer::new(&mut results).sized(&result);
        }
        self.say(who, client, (frame.id(), Seq(0), ReplyStatus::Executed, ops), results);
    }

    fn say(
        &mut self,
        who: usize,
        client: usize,
        (frame, seq, status, count): (FrameId, Seq, ReplyStatus, usize),
        results: Vec<u8>,
    ) {
        let mut content = Vec::new();
        Reply { frame, seq, status, count: count as u32, results }.encode(&mut content);
        let (now, from) = (self.time(), ReplicaId(who as u16));
        self.clients[client].on_reply(now, from, &ReplyPacket::whole(View(0), &content));
    }
}

fn a_client_believes_no_read_that_is_too_old(seed: u64) {
    let mut register = Register::new(seed);
    (0..2).for_each(|client| register.turn(client));
    (0..4_000).for_each(|_| register.step());
    assert!(register.answered > 100, "{} answers", register.answered);
}

/// A stage of counters with one session open, whose client adds to counters 0 and 16, which are
/// of one object.
fn stage(seed: u64) -> (Stage, impl Fn(u64) -> Arc<Frame>) {
    let stripe = Stripe::new(1).expect("legal");
    let config = StageConfig {
        group: GROUP,
        stripe,
        checkpoint_interval: 128,
        window: 256,
        nulls_ahead: false,
        replicas: 4,
    };
    let mut stage = Stage::new(config, Box::new(Counters::default()));
    stage.answer_reads();
    let keys = PlainKeys { me: ReplicaId(0), n: 4 };
    let (client, session) = (ClientId(seed as u32 % 5), SessionId(1));
    let open = FrameBuilder::open(GROUP, client, session, |digest| keys.authenticate(digest));
    deliver(&mut stage, 1, vec![Arc::new(open)]);
    while stage.run(64, &mut StageOutbox::new()).more() {}
    let add = move |id: u64| {
        let mut builder = FrameBuilder::new();
        for counter in [0u32, 16] {
            let mut op = Vec::new();
            Writer::new(&mut op).u32(counter).u8(1).u64(id);
            builder.push(&op);
        }
        let id = FrameId { client, session, stream: 0, id };
        Arc::new(builder.request(GROUP, id, id.id - 1, |digest| keys.authenticate(digest)))
    };
    (stage, add)
}

fn batch(frames: Vec<Arc<Frame>>) -> Arc<Batch> {
    Arc::new(Batch::Frames { time: AgreedTime(0), frames })
}

fn deliver(stage: &mut Stage, seq: u64, frames: Vec<Arc<Frame>>) {
    let deliver = ToStage::Deliver { seq: Seq(seq), batch: batch(frames) };
    stage.on(deliver, &mut StageOutbox::new()).expect("in the window");
}

fn reading(number: u64) -> Arc<Frame> {
    let mut builder = FrameBuilder::new();
    for counter in [0u32, 16] {
        let mut op = Vec::new();
        Writer::new(&mut op).u32(counter).u8(0).u64(number);
        builder.push(&op);
    }
    let (client, session) = (ClientId(9), SessionId(1));
    let id = FrameId { client, session, stream: READS, id: number };
    Arc::new(builder.read(GROUP, id, |_| Authenticator::Vector(vec![])))
}

/// What reads of both counters say, after one more turn of the stage.
fn read(stage: &mut Stage, number: u64, budget: usize) -> Vec<Vec<u64>> {
    let mut out = StageOutbox::new();
    let (pillar, frame) = (PillarId(0), reading(number));
    stage.on(ToStage::Read { pillar, frame, from: Seq(0) }, &mut out).expect("never refused");
    stage.run(budget, &mut out);
    let replies = out.messages.iter().filter_map(|(_, message)| match message {
        FromStage::Reply { frame, content, .. } if frame.stream == READS => Some(content),
        _ => None,
    });
    let count = |result: &[u8]| u64::from_le_bytes(result[4..].try_into().expect("8 bytes"));
    replies
        .map(|content| {
            let reply = Reply::decode(&mut Reader::new(content)).expect("a reply");
            reply.results().map(count).collect()
        })
        .collect()
}

fn reads_see_what_is_committed_and_whole(seed: u64) {
    let (mut stage_, add) = stage(seed);
    // Whole batches, however small the turns are.
    deliver(&mut stage_, 2, vec![add(1), add(2)]);
    let seen: Vec<Vec<u64>> = (0..12).flat_map(|n| read(&mut stage_, n + 1, 2)).collect();
    let whole = |both: &Vec<u64>| *both == [0, 0] || *both == [2, 2];
    assert!(seen.iter().all(whole) && seen.last().is_some_and(|last| *last == [2, 2]), "{seen:?}");
    // What is prepared may be taken back.
    let prepared = ToStage::Tentative { seq: Seq(3), view: View(0), batch: batch(vec![add(3)]) };
    stage_.on(prepared, &mut StageOutbox::new()).expect("in the window");
    stage_.run(64, &mut StageOutbox::new());
    assert!(stage_.is_tentative());
    let seen = read(&mut stage_, 100, 64);
    assert!(seen.is_empty(), "nothing is shown while a batch is tentative: {seen:?}");
    deliver(&mut stage_, 3, vec![add(3), add(4)]);
    let seen = read(&mut stage_, 101, 64);
    assert_eq!(seen, [[4, 4], [4, 4]], "both were answered once it was committed");
    // A new life may have shown what is in the window above what it begins with.
    let options = Options { seed, work: Some(Work::Reads), ..Options::default() };
    let (me, pillar) = (ReplicaId(1), PillarId(0));
    let config = lane_config(&options, me, pillar);
    for (resumes, least) in [(false, 0), (true, config.window)] {
        let start =
            LaneStart { stable: StableCheckpoint::default(), resumes, ..LaneStart::default() };
        let mut lane = Lane::restore(config, keys(&options, me), start);
        let mut out = Outbox::new();
        let now = Now { mono: Time(1), wall: AgreedTime(1) };
        lane.step(now, Input::Request(reading(7)), &mut out).expect("it is passed on");
        let from = out.drain().find_map(|effect| match effect {
            Effect::Stage(ToStage::Read { from, .. }) => Some(from),
            _ => None,
        });
        let from = from.expect("it is passed on").0;
        assert!(if resumes { from >= least } else { from == 0 }, "a new life answers from {from}");
    }
}
