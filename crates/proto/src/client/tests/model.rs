//! A group as a client sees it, as dumb as can be: one state machine, n mouths, a network that
//! loses, repeats, reorders; some of the mouths lie.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::vec::Vec;
use std::{format, vec};

use base::crypto::PlainKeys;
use base::frame::FrameKind;
use base::limits::STREAM_WINDOW;
use base::reply::{Answer, Repliers, ReplyPacket};
use base::{
    AgreedTime, ClientId, Frame, FrameId, GroupId, Now, PillarId, Quorums, Reader, ReplicaId,
    Reply, ReplyStatus, Seq, SessionId, Stripe, Time, View, VoteSet, Writer,
};

use super::super::{ClientConfig, ClientCore, Effect, OpError, Results, SendTo};

pub(super) const CLIENT: ClientId = ClientId(7);
pub(super) const WALL: u64 = 1_000_000;

pub(super) fn config(n: u16, f: u16, pillars: u16) -> ClientConfig {
    let quorums = Quorums::pbft(n, f).expect("a legal group");
    let stripe = Stripe::new(pillars).expect("a legal striping");
    ClientConfig::new(GroupId([3; 32]), quorums, stripe, CLIENT)
}

pub(super) fn at(millis: u64) -> Now {
    Now { mono: Time(millis * 1_000_000), wall: AgreedTime(WALL + millis) }
}

/// A small generator of numbers that look random.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// What the group knows about a session.
#[derive(Default)]
struct Session {
    /// Next id per stream.
    expected: BTreeMap<u32, u64>,
    replies: BTreeMap<FrameId, Vec<u8>>,
}

/// The group.
pub(super) struct Group {
    pub(super) n: u16,
    quorum: usize,
    /// Who lies about results, and in what it says.
    pub(super) liars: BTreeSet<u16>,
    sessions: BTreeMap<SessionId, Session>,
    pub(super) highest: SessionId,
    seq: u64,
    /// Replicas that hold a frame that is not ordered yet.
    holders: BTreeMap<FrameId, BTreeSet<u16>>,
    /// Who has got which frame once.
    received: BTreeSet<(u16, FrameId)>,
    /// Whether a replica that has answered takes a frame's first arrival for no question.
    heeds_first: bool,
    /// Every operation, in the order of execution.
    pub(super) executed: Vec<Vec<u8>>,
}

impl Group {
    pub(super) fn new(config: &ClientConfig) -> Group {
        Group {
            n: config.quorums.n(),
            quorum: config.quorums.quorum(),
            liars: BTreeSet::new(),
            sessions: BTreeMap::new(),
            highest: SessionId(0),
            seq: 0,
            holders: BTreeMap::new(),
            received: BTreeSet::new(),
            heeds_first: config.repliers.need_fallback(),
            executed: Vec::new(),
        }
    }

    pub(super) fn evict_all(&mut self) {
        self.sessions.clear();
    }

    /// `replica` gets a frame; returns what replicas say to that, and whether in full.
    pub(super) fn receive(
        &mut self,
        replica: u16,
        frame: &Frame,
    ) -> Vec<(ReplicaId, Vec<u8>, bool)> {
        let id = frame.id();
        let cached = self.sessions.get(&id.session).and_then(|s| s.replies.get(&id)).cloned();
        let first = self.received.insert((replica, id));
        if let Some(content) = cached {
            if first && self.heeds_first {
                // It has answered already.
                return vec![];
            }
            return vec![(ReplicaId(replica), self.say(replica, content), true)];
        }
        let holders = self.holders.entry(id).or_default();
        holders.insert(replica);
        if holders.len() < self.quorum {
            return vec![];
        }
        self.holders.remove(&id);
        let content = self.order(frame);
        (0..self.n).map(|r| (ReplicaId(r), self.say(r, content.clone()), false)).collect()
    }

    fn say(&self, replica: u16, mut content: Vec<u8>) -> Vec<u8> {
        if self.liars.contains(&replica) {
            let last = content.len() - 1;
            content[last] ^= 0x55;
        }
        content
    }

    fn order(&mut self, frame: &Frame) -> Vec<u8> {
        self.seq += 1;
        let id = frame.id();
        let (status, results) = match frame.kind() {
            FrameKind::Open => (self.open(id.session), vec![]),
            FrameKind::Close => {
                self.sessions.remove(&id.session);
                (ReplyStatus::Closed, vec![])
            }
            FrameKind::Request => self.request(frame),
            FrameKind::Read => (ReplyStatus::Unread, vec![]),
        };
        let content = reply(id, self.seq, status, &results);
        let keep = matches!(status, ReplyStatus::Executed);
        if let (true, Some(session)) = (keep, self.sessions.get_mut(&id.session)) {
            session.replies.insert(id, content.clone());
        }
        content
    }

    fn open(&mut self, session: SessionId) -> ReplyStatus {
        if self.sessions.contains_key(&session) {
            return ReplyStatus::Opened;
        }
        if session <= self.highest {
            return ReplyStatus::StaleSession(self.highest);
        }
        self.highest = session;
        self.sessions.insert(session, Session::default());
        ReplyStatus::Opened
    }

    fn request(&mut self, frame: &Frame) -> (ReplyStatus, Vec<Vec<u8>>) {
        let id = frame.id();
        let Some(session) = self.sessions.get_mut(&id.session) else {
            return (ReplyStatus::NoSession, vec![]);
        };
        assert!(id.id - frame.ack() <= STREAM_WINDOW, "the client exceeds the window");
        let expected = session.expected.entry(id.stream).or_insert(1);
        if id.id != *expected {
            return (ReplyStatus::OutOfOrder(*expected), vec![]);
        }
        *expected += 1;
        let results = frame.ops().map(|op| {
            self.executed.push(op.to_vec());
            result_of(op)
        });
        (ReplyStatus::Executed, results.collect())
    }
}

pub(super) fn result_of(op: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(op).expect("tests send text");
    let mut result = format!("did {text}").into_bytes();
    // Operations that say so have large results.
    if let Some(bytes) = text.strip_prefix("large ") {
        result.resize(bytes.parse().expect("a number"), b'.');
    }
    result
}

pub(super) fn reply(frame: FrameId, seq: u64, status: ReplyStatus, results: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![];
    results.iter().for_each(|result| {
        Writer::new(&mut bytes).sized(result);
    });
    let count = u32::try_from(results.len()).expect("few");
    let reply = Reply { frame, seq: Seq(seq), status, count, results: bytes };
    let mut out = vec![];
    reply.encode(&mut out);
    out
}

/// A client, the network, and what came out.
pub(super) struct World {
    pub(super) core: ClientCore<u64>,
    pub(super) group: Group,
    pub(super) millis: u64,
    pub(super) dice: Dice,
    /// Percent of messages lost, and of messages repeated.
    pub(super) loss: usize,
    pub(super) repeat: usize,
    pub(super) reorder: bool,
    /// Replicas that hear nothing.
    pub(super) down: BTreeSet<u16>,
    requests: Vec<(u16, Arc<Frame>)>,
    replies: Vec<(ReplicaId, Vec<u8>)>,
    pub(super) done: BTreeMap<u64, Result<Vec<u8>, OpError>>,
    pub(super) order: Vec<u64>,
    pub(super) sent: Vec<(PillarId, SendTo, Arc<Frame>)>,
    pub(super) suspects: BTreeSet<ReplicaId>,
    pub(super) opened: Vec<SessionId>,
    pub(super) closed: bool,
    repliers: Repliers,
    /// Whom each replica was told to pass over.
    avoided: VoteSet,
    /// Bytes of all replies that were delivered.
    pub(super) reply_bytes: usize,
}

impl World {
    pub(super) fn new(config: ClientConfig, seed: u64) -> World {
        let keys = PlainKeys { me: ReplicaId(0), n: config.quorums.n() };
        World {
            core: ClientCore::new(config, std::boxed::Box::new(keys), at(0)),
            group: Group::new(&config),
            millis: 0,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            loss: 0,
            repeat: 0,
            reorder: false,
            down: BTreeSet::new(),
            requests: vec![],
            replies: vec![],
            done: BTreeMap::new(),
            order: vec![],
            sent: vec![],
            suspects: BTreeSet::new(),
            opened: vec![],
            closed: false,
            repliers: config.repliers,
            avoided: VoteSet::EMPTY,
            reply_bytes: 0,
        }
    }

    /// A world whose session is open.
    pub(super) fn open(config: ClientConfig) -> World {
        let mut world = World::new(config, 1);
        world.settle();
        assert!(world.core.is_open());
        world.sent.clear();
        world
    }

    pub(super) fn now(&self) -> Now {
        at(self.millis)
    }

    pub(super) fn submit(&mut self, stream: u32, op: &str, token: u64) {
        let now = self.now();
        self.core.submit(now, stream, op.as_bytes(), token).expect("there is room");
    }

    /// One turn of the client; what it sends is under way afterwards.
    pub(super) fn turn(&mut self) {
        let now = self.now();
        self.core.turn(now);
        self.core.check();
        let effects: Vec<_> = self.core.drain().collect();
        effects.into_iter().for_each(|effect| self.carry_out(effect));
    }

    fn carry_out(&mut self, effect: Effect<u64>) {
        match effect {
            Effect::Send { pillar, to, frame } => {
                let targets = match to {
                    SendTo::All => 0..self.group.n,
                    SendTo::One(replica) => replica.0..replica.0 + 1,
                };
                targets.for_each(|r| self.requests.push((r, Arc::clone(&frame))));
                self.sent.push((pillar, to, frame));
            }
            Effect::Done { tokens, outcome } => self.finish(tokens, &outcome),
            Effect::SessionChanged(_) => {}
            Effect::SessionOpened(session) => self.opened.push(session),
            Effect::Closed => self.closed = true,
            Effect::Avoid(set) => self.avoided = set,
            Effect::Suspect { replica, .. } => {
                self.suspects.insert(replica);
            }
        }
    }

    fn finish(&mut self, tokens: Vec<u64>, outcome: &Result<Results, OpError>) {
        if let Ok(results) = outcome {
            assert_eq!(results.len(), tokens.len());
        }
        for (at, token) in tokens.into_iter().enumerate() {
            let result = match outcome {
                Ok(results) => Ok(results.iter().nth(at).expect("one per token").to_vec()),
                Err(error) => Err(*error),
            };
            assert!(self.done.insert(token, result).is_none(), "{token} completed twice");
            self.order.push(token);
        }
    }

    /// Drops what is under way.
    pub(super) fn lose_all(&mut self) {
        self.requests.clear();
        self.replies.clear();
    }

    /// Delivers one message; false when there is none.
    pub(super) fn deliver(&mut self) -> bool {
        let total = self.requests.len() + self.replies.len();
        if total == 0 {
            return false;
        }
        let pick = if self.reorder { self.dice.below(total) } else { 0 };
        let (lost, again) = (self.dice.percent(self.loss), self.dice.percent(self.repeat));
        if pick < self.requests.len() {
            let (replica, frame) = self.requests.remove(pick);
            if again {
                self.requests.push((replica, Arc::clone(&frame)));
            }
            if !lost && !self.down.contains(&replica) {
                let answers = self.group.receive(replica, &frame);
                for (from, content, in_full) in answers {
                    let answer =
                        Answer { content: &content, view: View(0), tentative: None, in_full };
                    let packet = self.repliers.packet(from, &answer, self.avoided);
                    if let Some(packet) = packet.filter(|_| !self.down.contains(&from.0)) {
                        let mut bytes = vec![];
                        packet.encode(&mut bytes);
                        self.replies.push((from, bytes));
                    }
                }
            }
        } else {
            let (from, bytes) = self.replies.remove(pick - self.requests.len());
            if again {
                self.replies.push((from, bytes.clone()));
            }
            if !lost {
                let now = self.now();
                self.reply_bytes += bytes.len();
                let packet = ReplyPacket::decode(&mut Reader::new(&bytes)).expect("own encoding");
                self.core.on_reply(now, from, &packet);
                self.core.check();
            }
        }
        true
    }

    /// Delivers everything, without a step of the clock.
    pub(super) fn settle(&mut self) {
        loop {
            self.turn();
            if !self.deliver() {
                break;
            }
        }
    }

    /// Runs until `until` operations have come to their end.
    pub(super) fn run(&mut self, until: usize) {
        for _ in 0..200_000 {
            self.turn();
            if self.done.len() >= until {
                return;
            }
            if !self.deliver() || self.dice.percent(2) {
                let due = self.core.deadline().map_or(0, |due| due.0.div_ceil(1_000_000));
                self.millis = (self.millis + 1).max(due.min(self.millis + 5_000));
            }
        }
        panic!("{} of {until} operations came to an end", self.done.len());
    }
}
