//! A small service and builders of frames, batches and stages, for the tests of this crate.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod group;

use std::sync::{Arc, Mutex};

use base::{
    AgreedTime, Authenticator, Batch, ClientId, Frame, FrameBuilder, FrameId, FromStage, GroupId,
    Malformed, PillarId, Reader, Reply, ReplyStatus, Seq, SessionId, Signature, Stripe, ToStage,
};
use exec::{
    Completion, Context, Offload, Output, ReadContext, Service, Stage, StageConfig, StageOutbox,
    Target, Turn,
};

pub const GROUP: GroupId = GroupId([5; 32]);

/// Cells that operations add to. Says in each result where it was executed.
#[derive(Default)]
pub struct Cells {
    pub cells: Vec<u64>,
    /// Cell 0 counts how often the service was woken; the next time is here.
    pub deadline: Option<AgreedTime>,
    /// Operations `later` wait until this is set.
    pub gate: Arc<Mutex<bool>>,
    pub offload: bool,
}

impl Cells {
    pub fn new(cells: u32) -> Cells {
        Cells { cells: vec![0; cells as usize], ..Cells::default() }
    }
}

impl Service for Cells {
    fn execute(&mut self, op: &[u8], ctx: &mut Context<'_>, reply: &mut Vec<u8>) -> Completion {
        let cell = (u64::from(op[0]) * 31 % self.cells.len() as u64) as u32;
        match op {
            [_, b'!'] => self.cells[cell as usize] += 1,
            [_, b'?'] => {
                self.cells[cell as usize] += 1;
                ctx.modify(cell, |out| self.get(cell, out));
            }
            [_, b'b', ..] => reply.resize(reply.len() + op[2] as usize * 1_000_000, 1),
            [_, b'e'] => (0..3).for_each(|client| {
                let client = ClientId(client);
                ctx.emit(Output::Nudge { client, session: ctx.frame.session });
            }),
            [_, b'd', at] => self.deadline = Some(AgreedTime(u64::from(*at))),
            [_, b'l'] => {
                reply.extend_from_slice(b"half a result");
                return Completion::Later(u64::from(cell));
            }
            _ => {
                ctx.modify(cell, |out| self.get(cell, out));
                self.cells[cell as usize] += u64::from(op[0]) + ctx.time.0;
                let value = self.cells[cell as usize];
                let text = format!("{}.{} @{} ={value}", ctx.seq, ctx.index, ctx.time.0);
                reply.extend_from_slice(text.as_bytes());
            }
        }
        Completion::Done
    }

    /// `xr` reads cell x, `xt` the time, `xw` is about everything.
    fn read(&self, op: &[u8], ctx: &mut ReadContext<'_>, reply: &mut Vec<u8>) -> bool {
        let cell = (u64::from(op[0]) * 31 % self.cells.len() as u64) as u32;
        let answer = match op {
            [_, b'r'] => {
                ctx.looks_at(cell);
                self.cells[cell as usize]
            }
            [_, b't'] => ctx.time().0,
            [_, b'w'] => self.cells.iter().fold(0u64, |sum, cell| sum.wrapping_add(*cell)),
            [_, b'B'] => {
                reply.resize(base::limits::READ_REPLY_BYTES_MAX, 1);
                0
            }
            _ => return false,
        };
        reply.extend_from_slice(answer.to_string().as_bytes());
        true
    }

    fn get(&self, object: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.cells[object as usize].to_le_bytes());
    }

    fn put(&mut self, object: u32, bytes: &[u8]) -> Result<(), Malformed> {
        let mut r = Reader::new(bytes);
        self.cells[object as usize] = r.u64("cell")?;
        r.finish("cell")
    }

    fn objects(&self) -> u32 {
        self.cells.len() as u32
    }

    fn deadline(&self) -> Option<AgreedTime> {
        self.deadline
    }

    fn wake(&mut self, ctx: &mut Context<'_>) {
        ctx.modify(0, |out| self.get(0, out));
        self.cells[0] += 1_000_000;
        self.deadline = None;
    }

    fn poll(&mut self, ticket: u64, reply: &mut Vec<u8>) -> bool {
        let open = *self.gate.lock().expect("no test panics with it");
        reply.extend_from_slice(if open { b"late " } else { b"not yet" });
        if open {
            reply.extend_from_slice(ticket.to_string().as_bytes());
        }
        open
    }

    fn offload(&self) -> Option<Arc<dyn Offload>> {
        self.offload.then(|| Arc::new(Shout) as Arc<dyn Offload>)
    }
}

struct Shout;

impl Offload for Shout {
    fn before(&self, op: &[u8]) -> Result<(), Vec<u8>> {
        if op[0] == b'?' { Err(b"refused before".to_vec()) } else { Ok(()) }
    }

    fn after(&self, op: &[u8], result: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(&op[..1]);
        reply.extend_from_slice(result);
        reply.push(b'!');
    }
}

/// A small generator (SplitMix64): the same numbers at every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn signed(_: base::Digest) -> Authenticator {
    Authenticator::Signature(Signature([0; 64]))
}

pub fn id(client: u32, session: u64, stream: u32, id: u64) -> FrameId {
    FrameId { client: ClientId(client), session: SessionId(session), stream, id }
}

pub fn open(client: u32, session: u64) -> Arc<Frame> {
    Arc::new(FrameBuilder::open(GROUP, ClientId(client), SessionId(session), signed))
}

pub fn close(client: u32, session: u64) -> Arc<Frame> {
    Arc::new(FrameBuilder::close(GROUP, ClientId(client), SessionId(session), signed))
}

pub fn request(frame: FrameId, ack: u64, ops: &[&[u8]]) -> Arc<Frame> {
    let mut builder = FrameBuilder::new();
    ops.iter().for_each(|op| builder.push(op));
    Arc::new(builder.request(GROUP, frame, ack, signed))
}

pub fn batch(time: u64, frames: &[Arc<Frame>]) -> Arc<Batch> {
    Arc::new(Batch::Frames { time: AgreedTime(time), frames: frames.to_vec() })
}

pub fn stage_of(service: Cells, pillars: u16, interval: u64) -> Stage {
    let stripe = Stripe::new(pillars).expect("in range");
    let config = StageConfig {
        group: GROUP,
        stripe,
        checkpoint_interval: interval,
        window: 64,
        nulls_ahead: false,
        replicas: 4,
    };
    Stage::new(config, Box::new(service))
}

pub fn stage(interval: u64) -> Stage {
    stage_of(Cells::new(300), 2, interval)
}

/// Runs as long as there is something to do.
pub fn run_out(stage: &mut Stage, out: &mut StageOutbox) -> Turn {
    loop {
        match stage.run(usize::MAX, out) {
            Turn::More => {}
            turn => return turn,
        }
    }
}

/// Delivers one batch and runs until idle.
pub fn feed(stage: &mut Stage, seq: u64, batch: &Arc<Batch>) -> Vec<(Target, FromStage)> {
    let mut out = StageOutbox::new();
    let deliver = ToStage::Deliver { seq: Seq(seq), batch: Arc::clone(batch) };
    stage.on(deliver, &mut out).expect("in the window");
    assert_eq!(run_out(stage, &mut out), Turn::Idle);
    stage.check();
    out.messages
}

/// The replies among the messages, decoded, with the pillar each goes to.
pub fn replies(messages: &[(Target, FromStage)]) -> Vec<(PillarId, Reply)> {
    let reply = |message: &(Target, FromStage)| match message {
        (Target::Pillar(pillar), FromStage::Reply { content, frame, .. }) => {
            let mut r = Reader::new(content);
            let reply = Reply::decode(&mut r).expect("the stage writes replies");
            assert_eq!((r.is_empty(), reply.frame), (true, *frame));
            Some((*pillar, reply))
        }
        _ => None,
    };
    messages.iter().filter_map(reply).collect()
}

pub fn statuses(messages: &[(Target, FromStage)]) -> Vec<ReplyStatus> {
    replies(messages).into_iter().map(|(_, reply)| reply.status).collect()
}

/// The results of the only reply, as text.
pub fn results(messages: &[(Target, FromStage)]) -> Vec<String> {
    let replies = replies(messages);
    assert_eq!(replies.len(), 1);
    let text = |result: &[u8]| String::from_utf8_lossy(result).into_owned();
    replies[0].1.results().map(text).collect()
}
