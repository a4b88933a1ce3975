//! Several stages in one thread with a lossy, slow network between them, and an owner for each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base::transfer::{
    Manifest, PIECE_BYTES_MAX, Part, SnapshotReader, StateAnswer, StateMessage, StateRequest,
};
use base::{
    AgreedTime, Batch, Digest, FromStage, Malformed, Reader, ReplicaId, Seq, Span,
    StableCheckpoint, Stripe, Time, ToStage,
};
use exec::{Completion, Context, Service, Stage, StageConfig, StageOutbox, Target, Turn};

use super::{GROUP, Random};

pub const INTERVAL: u64 = 10;

/// Blobs: an operation (object, byte, length in KiB) appends to one or, at length 0, cuts it.
pub struct Blobs(pub Vec<Vec<u8>>);

impl Blobs {
    pub fn boxed(objects: usize) -> Box<Blobs> {
        Box::new(Blobs(vec![vec![]; objects]))
    }
}

pub fn append(object: u64, byte: u8, kib: u16) -> Vec<u8> {
    let object = u16::try_from(object).expect("few objects");
    [&object.to_le_bytes()[..], &[byte], &kib.to_le_bytes()].concat()
}

impl Service for Blobs {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        let mut r = Reader::new(op);
        let object = usize::from(r.u16("object").expect("by the test")) % self.0.len();
        let byte = r.u8("byte").expect("by the test");
        let kib = usize::from(r.u16("length").expect("by the test"));
        ctx.modify(object as u32, |out| self.get(object as u32, out));
        let blob = &mut self.0[object];
        let len = if kib == 0 { blob.len() / 2 } else { blob.len() + kib * 1024 };
        blob.resize(len, byte);
        blob.push(ctx.seq.0 as u8);
        reply.extend_from_slice(&(blob.len() as u64).to_le_bytes());
        Completion::Done
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        out.push(1);
        out.extend_from_slice(&self.0[object as usize]);
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let (head, rest) = bytes.split_first().ok_or(Malformed("blob"))?;
        if *head != 1 {
            return Err(Malformed("blob"));
        }
        self.0[object as usize] = rest.to_vec();
        Ok(())
    }

    fn objects(&self) -> u32 {
        self.0.len() as u32
    }
}

pub fn config() -> StageConfig {
    let stripe = Stripe::new(2).expect("in range");
    StageConfig {
        group: GROUP,
        stripe,
        checkpoint_interval: INTERVAL,
        window: 64,
        nulls_ahead: false,
        replicas: 4,
    }
}

pub fn blobs(objects: usize) -> Stage {
    Stage::new(config(), Blobs::boxed(objects))
}

/// What a lying source does to its answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    WrongByte,
    WrongTotal,
    HugeTotal,
    EndlessPieces,
    ShortPieces,
    OtherObject,
    WrongNodes,
    FewerNodes,
    WrongManifest,
    OldManifest,
    OldObjects,
}

pub const LIES: [Lie; 11] = [
    Lie::WrongByte,
    Lie::WrongTotal,
    Lie::HugeTotal,
    Lie::EndlessPieces,
    Lie::ShortPieces,
    Lie::OtherObject,
    Lie::WrongNodes,
    Lie::FewerNodes,
    Lie::WrongManifest,
    Lie::OldManifest,
    Lie::OldObjects,
];

impl Lie {
    fn apply(self, answer: &mut StateAnswer, old: Option<&Stage>) {
        match (self, answer) {
            (Lie::WrongByte, StateAnswer::Object { bytes, .. }) => {
                if let Some(byte) = bytes.last_mut() {
                    *byte ^= 1;
                }
            }
            (Lie::WrongTotal, StateAnswer::Object { total, bytes, offset, .. }) => {
                let room = bytes.len() < PIECE_BYTES_MAX;
                *total += 1;
                if room && *offset + bytes.len() as u64 + 1 == *total {
                    bytes.push(0);
                }
            }
            (Lie::HugeTotal, StateAnswer::Object { total, bytes, .. }) => {
                *total = 900 << 20;
                bytes.resize(PIECE_BYTES_MAX, 7);
            }
            (Lie::EndlessPieces, StateAnswer::Object { total, bytes, offset, .. }) => {
                *total = *offset + 2 * PIECE_BYTES_MAX as u64;
                bytes.resize(PIECE_BYTES_MAX, 7);
            }
            (Lie::ShortPieces, StateAnswer::Object { bytes, .. }) => bytes.truncate(1),
            (Lie::OtherObject, StateAnswer::Object { bytes, .. }) => *bytes = vec![1; bytes.len()],
            (Lie::WrongNodes, StateAnswer::Nodes { digests, .. }) => digests[0].0[3] ^= 1,
            (Lie::FewerNodes, StateAnswer::Nodes { digests, .. }) => {
                digests.pop();
            }
            (Lie::WrongManifest, StateAnswer::Manifest(m)) => m.time = AgreedTime(m.time.0 + 1),
            (Lie::OldManifest, StateAnswer::Manifest(manifest)) => {
                let old = old.and_then(|old| old.pinned_manifest(SnapshotReader::Disk));
                *manifest = *old.expect("the test pins an old checkpoint");
            }
            (Lie::OldObjects, StateAnswer::Object { part, object, total, bytes, offset }) => {
                let old = old.expect("has a stage");
                let was = old.read_pinned(SnapshotReader::Disk, *part, *object);
                let was = was.expect("the test pins an old checkpoint");
                if *offset == 0 && *bytes != *was {
                    *total = was.len() as u64;
                    *bytes = was[..was.len().min(PIECE_BYTES_MAX)].to_vec();
                }
            }
            _ => {}
        }
    }
}

#[derive(Default)]
pub struct Net {
    /// Of a thousand messages, so many are lost.
    pub loss: u64,
    /// Messages take up to so many milliseconds.
    pub delay_ms: u64,
    pub lies: BTreeMap<u16, Lie>,
    pub crashed: BTreeSet<u16>,
    /// Whose answers leave one at a time from some point on.
    pub dribbles: BTreeMap<u16, Dribble>,
}

/// A source that answers so many requests as it should, then slowly.
pub struct Dribble {
    pub after: u64,
    pub pause: Span,
    pub next: Time,
}

/// Stages, what is on its way between them, and what they told their coordinators.
pub struct Group {
    pub stages: Vec<Stage>,
    pub net: Net,
    pub told: Vec<Vec<FromStage>>,
    pub now: Time,
    random: Random,
    flying: VecDeque<(Time, u16, u16, StateMessage)>,
    ticked: Vec<Time>,
    /// Most bytes that a stage said it buffers.
    pub buffered_max: u64,
    /// Requests for objects, by who was asked.
    pub asked: BTreeMap<u16, u64>,
}

impl Group {
    pub fn new(stages: Vec<Stage>, seed: u64) -> Group {
        let n = stages.len();
        Group {
            stages,
            net: Net::default(),
            told: vec![vec![]; n],
            now: Time(5_000_000_000),
            random: Random(seed),
            flying: VecDeque::new(),
            ticked: vec![Time::ZERO; n],
            buffered_max: 0,
            asked: BTreeMap::new(),
        }
    }

    /// Gives one batch to each of these stages.
    pub fn deliver(&mut self, who: &[usize], seq: u64, batch: &Arc<Batch>) {
        for at in who {
            let message = ToStage::Deliver { seq: Seq(seq), batch: Arc::clone(batch) };
            self.send(*at, message);
        }
    }

    pub fn send(&mut self, to: usize, message: ToStage) {
        let mut out = StageOutbox::new();
        self.stages[to].on(message, &mut out).expect("the test sends what is taken");
        self.carry_out(to, out);
        self.run(to);
    }

    pub fn run(&mut self, at: usize) {
        let mut out = StageOutbox::new();
        while self.stages[at].run(64, &mut out) == Turn::More {
            self.stages[at].check();
        }
        self.stages[at].check();
        let report = self.stages[at].report().transfer;
        self.buffered_max = self.buffered_max.max(report.buffered_bytes);
        self.carry_out(at, out);
    }

    fn carry_out(&mut self, at: usize, out: StageOutbox) {
        for (target, message) in out.messages {
            match message {
                FromStage::State { to, message } => {
                    assert_eq!(target, Target::Coordinator);
                    self.fly(at as u16, to.0, message);
                }
                FromStage::Reply { .. } | FromStage::Executed(_) => {}
                told => self.told[at].push(told),
            }
        }
    }

    fn fly(&mut self, from: u16, to: u16, mut message: StateMessage) {
        if let StateMessage::Ask { request: StateRequest::Objects { objects, .. }, .. } = &message {
            *self.asked.entry(to).or_default() += objects.len() as u64;
        }
        if let (Some(lie), StateMessage::Tell { answer, .. }) =
            (self.net.lies.get(&from), &mut message)
        {
            lie.apply(answer, self.stages.get(usize::from(from)));
        }
        if self.net.crashed.contains(&from) || self.random.below(1000) < self.net.loss {
            return;
        }
        let ms = 1 + self.random.below(self.net.delay_ms + 1);
        let mut at = self.now.after(Span::millis(ms));
        let answers = matches!(message, StateMessage::Tell { .. });
        if let Some(dribble) = self.net.dribbles.get_mut(&from).filter(|_| answers) {
            if dribble.after == 0 {
                at = at.max(dribble.next);
                dribble.next = at.after(dribble.pause);
            }
            dribble.after = dribble.after.saturating_sub(1);
        }
        self.flying.push_back((at, from, to, message));
    }

    /// Lets time pass until nothing flies and no stage wants to be told the time, or for at most
    /// this long.
    pub fn settle(&mut self, at_most: Span) {
        let end = self.now.after(at_most);
        while self.now < end {
            let due = self.stages.iter().filter_map(Stage::deadline).min();
            if due.is_none() && self.flying.is_empty() {
                return;
            }
            self.now = self.now.after(Span::millis(1));
            for at in 0..self.stages.len() {
                if self.stages[at].deadline().is_some_and(|deadline| deadline <= self.now) {
                    self.ticked[at] = self.now;
                    self.send(at, ToStage::Tick(self.now));
                }
            }
            let flying = std::mem::take(&mut self.flying);
            let (due, rest) = flying.into_iter().partition(|(at, ..)| *at <= self.now);
            self.flying = rest;
            let due: VecDeque<_> = due;
            for (_, from, to, message) in due {
                let up = usize::from(to) < self.stages.len() && !self.net.crashed.contains(&to);
                let lie = self.net.lies.get(&to);
                if let (Some(Lie::EndlessPieces), Some(message)) = (lie, endless(&message)) {
                    self.fly(to, from, message);
                } else if up {
                    let from = ReplicaId(from);
                    self.send(usize::from(to), ToStage::State { from, message });
                }
            }
        }
    }

    /// Pins the next checkpoint of these stages for others, which are still before it.
    pub fn pin(&mut self, who: &[usize], seq: u64, reader: SnapshotReader) {
        who.iter().for_each(|at| self.send(*at, ToStage::Pin { seq: Seq(seq), reader }));
    }

    /// Tells `to` to fetch what the sources have pinned.
    pub fn fetch(&mut self, to: usize, checkpoint: &StableCheckpoint, sources: &[usize]) {
        let sources = sources.iter().map(|at| ReplicaId(*at as u16)).collect();
        self.send(to, ToStage::Fetch { checkpoint: checkpoint.clone(), sources });
    }

    pub fn fetched(&self, at: usize) -> Option<Seq> {
        let seq = |told: &FromStage| match told {
            FromStage::Fetched { checkpoint, .. } => Some(checkpoint.seq),
            _ => None,
        };
        self.told[at].iter().rev().find_map(seq)
    }

    pub fn liars(&self, at: usize) -> BTreeSet<u16> {
        let liar = |told: &FromStage| match told {
            FromStage::LyingSource { source } => Some(source.0),
            _ => None,
        };
        self.told[at].iter().filter_map(liar).collect()
    }

    pub fn failed(&self, at: usize) -> bool {
        self.told[at].iter().any(|told| matches!(told, FromStage::FetchFailed { .. }))
    }
}

/// There is always another piece.
fn endless(message: &StateMessage) -> Option<StateMessage> {
    let StateMessage::Ask { checkpoint, request } = message else { return None };
    let StateRequest::Piece { part, object, offset } = *request else { return None };
    let answer = StateAnswer::Object { part, object, total: 0, offset, bytes: vec![] };
    Some(StateMessage::Tell { checkpoint: *checkpoint, answer })
}

/// The certificate of what a stage has pinned for others.
pub fn certified(stage: &Stage) -> StableCheckpoint {
    let manifest = stage.pinned_manifest(SnapshotReader::Transfer).expect("is pinned");
    StableCheckpoint { seq: manifest.seq, digest: manifest.digest(GROUP), proof: Arc::new(vec![]) }
}

/// Everything that a reader sees of its checkpoint.
pub fn snapshot(
    stage: &Stage,
    reader: SnapshotReader,
) -> (Manifest, BTreeMap<(Part, u32), Vec<u8>>) {
    let manifest = *stage.pinned_manifest(reader).expect("is pinned");
    let mut objects = BTreeMap::new();
    for part in [Part::Service, Part::Sessions] {
        for object in 0..stage.objects(part) {
            let bytes = stage.read_pinned(reader, part, object).expect("is pinned");
            objects.insert((part, object), bytes);
        }
    }
    (manifest, objects)
}

pub fn digest(stage: &mut Stage) -> Digest {
    stage.check_state();
    stage.state_digest()
}
