//! A client's window against the client table, over a network that repeats and reorders.
//!
//! The client is [`ClientCore`], the group is one replica's [`Sessions`] with an execution that
//! writes down what it is given. Between them every frame may be delivered several times, at any
//! time and in any order, or never; so may every reply; the client sends again; the client's
//! session may be evicted by others that its principal opens. A state is what either side has
//! heard so far, in order, which says all.
//!
//! What must hold: no operation is executed twice; what the client is told was executed, with the
//! result it had, and in the order of submission; both sides stay within their bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::crypto::PlainKeys;
use base::reply::ReplyPacket;
use base::{
    AgreedTime, ClientId, Frame, FrameBuilder, FrameId, GroupId, Now, Quorums, ReplicaId,
    ReplyStatus, Seq, SessionId, Span, Stripe, Time, View, limits,
};
use exec::reply::{ReplyBuilder, status_reply};
use exec::session::{Decision, Sessions};
use proto::client::{ClientConfig, ClientCore, Effect};

use crate::explore::{Model, Next};

const GROUP: GroupId = GroupId([3; 32]);
const CLIENT: ClientId = ClientId(1);

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Nothing.
    None,
    /// The client table is lost in an eviction, with the highest session in it.
    TableForgotten,
    /// Duplicates are executed again.
    NoCache,
    /// Frames of a stream are executed in whatever order they come.
    AnyOrder,
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// What is wrong on purpose.
    pub bug: Bug,
    /// Operations that the client submits.
    pub ops: u32,
    /// How often each frame may be delivered.
    pub copies: usize,
    /// How many steps the client and the group take, each.
    pub steps: usize,
    /// Whether the session may be evicted, once.
    pub evicts: bool,
}

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Happens {
    /// The client submits its next operation.
    Submit,
    /// The client hears this reply, of those that were ever sent.
    Reply(usize),
    /// The client's timers fire.
    Resend,
    /// The group orders this frame, of those that were ever sent.
    Order(usize),
    /// Others of the principal's devices open sessions, until this one is evicted.
    Evict,
}

/// What happened to the client, and to the group.
pub type Told = [Vec<Happens>; 2];

impl Model for Window {
    type State = Told;
    type Action = Happens;

    fn initial(&self) -> Told {
        Told::default()
    }

    fn next(&self, state: &Told) -> Next<Window> {
        let world = World::replayed(*self, state);
        world.check()?;
        let step = |happens| {
            let mut next = state.clone();
            next[side(happens)].push(happens);
            (happens, next)
        };
        Ok(world.possible(state).into_iter().map(step).collect())
    }
}

fn side(happens: Happens) -> usize {
    usize::from(matches!(happens, Happens::Order(_) | Happens::Evict))
}

struct World {
    scope: Window,
    core: ClientCore<u32>,
    now: Now,
    submitted: u32,
    frames: Vec<Arc<Frame>>,
    /// What the client was told of each operation.
    told: BTreeMap<u32, Result<Vec<u8>, ()>>,
    wrong: Option<String>,
    sessions: Sessions,
    seq: Seq,
    /// Frames that [`Bug::AnyOrder`] has executed.
    taken: BTreeSet<FrameId>,
    /// Operations, in the order of execution.
    executed: Vec<Vec<u8>>,
    replies: Vec<Arc<Vec<u8>>>,
}

impl World {
    fn new(scope: Window) -> World {
        let quorums = Quorums::pbft(1, 0).expect("a legal group");
        let stripe = Stripe::new(1).expect("a legal striping");
        let config = ClientConfig::new(GROUP, quorums, stripe, CLIENT).unbatched();
        let now = Now { mono: Time(1), wall: AgreedTime(1_000) };
        let keys = Box::new(PlainKeys { me: ReplicaId(0), n: 1 });
        let mut world = World {
            scope,
            core: ClientCore::new(config, keys, now),
            now,
            submitted: 0,
            frames: vec![],
            told: BTreeMap::new(),
            wrong: None,
            sessions: Sessions::new(),
            seq: Seq(0),
            taken: BTreeSet::new(),
            executed: vec![],
            replies: vec![],
        };
        world.turn();
        world
    }

    /// The world after this happened to each side: what one hears was sent by the other before.
    fn replayed(scope: Window, told: &Told) -> World {
        let mut world = World::new(scope);
        let mut done = [0, 0];
        loop {
            let ready = |world: &World, side: usize| {
                let next = *told[side].get(done[side])?;
                let there = match next {
                    Happens::Reply(index) => index < world.replies.len(),
                    Happens::Order(index) => index < world.frames.len(),
                    _ => true,
                };
                there.then_some(next)
            };
            let next = (0..2).find_map(|side| ready(&world, side));
            let Some(next) = next else { break };
            done[side(next)] += 1;
            world.carry_out(next);
        }
        assert!(done == [told[0].len(), told[1].len()], "cannot be replayed");
        world
    }

    fn possible(&self, told: &Told) -> Vec<Happens> {
        let Window { ops, copies, steps, evicts, .. } = self.scope;
        let mut all = vec![];
        if told[0].len() < steps {
            if self.submitted < ops {
                all.push(Happens::Submit);
            }
            let heard = |index| told[0].contains(&Happens::Reply(index));
            all.extend((0..self.replies.len()).filter(|i| !heard(*i)).map(Happens::Reply));
            if !told[0].contains(&Happens::Resend) {
                all.push(Happens::Resend);
            }
        }
        if told[1].len() < steps {
            let times = |index| told[1].iter().filter(|h| **h == Happens::Order(index)).count();
            all.extend((0..self.frames.len()).filter(|i| times(*i) < copies).map(Happens::Order));
            if evicts && !told[1].contains(&Happens::Evict) {
                all.push(Happens::Evict);
            }
        }
        all
    }

    fn carry_out(&mut self, happens: Happens) {
        match happens {
            Happens::Submit => {
                let op = self.submitted.to_le_bytes();
                let taken = self.core.submit(self.now, 0, &op, self.submitted);
                taken.expect("far below every bound");
                self.submitted += 1;
                self.turn();
            }
            Happens::Reply(index) => {
                let content = Arc::clone(&self.replies[index]);
                let reply = ReplyPacket::whole(View(0), &content);
                self.core.on_reply(self.now, ReplicaId(0), &reply);
                self.turn();
            }
            Happens::Resend => {
                self.now.mono = self.now.mono.after(Span::secs(2));
                self.turn();
            }
            Happens::Order(index) => self.order(&Arc::clone(&self.frames[index])),
            Happens::Evict => self.evict(),
        }
    }

    fn turn(&mut self) {
        self.core.turn(self.now);
        self.core.check();
        for effect in self.core.drain() {
            match effect {
                // Sent again unchanged: the network may repeat anything as it is.
                Effect::Send { frame, .. } if !self.frames.contains(&frame) => {
                    self.frames.push(frame);
                }
                Effect::Done { tokens, outcome } => {
                    let results: Option<Vec<Vec<u8>>> =
                        outcome.ok().map(|results| results.iter().map(<[u8]>::to_vec).collect());
                    for (at, token) in tokens.into_iter().enumerate() {
                        let result = results.as_ref().map(|all| all[at].clone()).ok_or(());
                        if self.told.insert(token, result).is_some() {
                            self.wrong = Some(format!("operation {token} ends twice"));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn order(&mut self, frame: &Frame) {
        self.seq = self.seq.next();
        let id = frame.id();
        let decision = match self.scope.bug {
            // The session is open, as far as anybody looks; each frame is taken as it comes.
            Bug::AnyOrder if id.id > 0 && id.id < u64::MAX => match self.taken.insert(id) {
                true => Decision::Execute,
                false => Decision::Status(self.seq, ReplyStatus::ReplyGone),
            },
            _ => self.sessions.decide(self.seq, frame),
        };
        let reply = match decision {
            Decision::Execute => {
                let reply = self.execute(frame);
                self.sessions.record(id, &reply);
                reply
            }
            Decision::Duplicate(_) if self.scope.bug == Bug::NoCache => self.execute(frame),
            Decision::Duplicate(reply) => reply,
            Decision::Status(seq, status) => status_reply(id, seq, status),
        };
        if !self.replies.contains(&reply) {
            self.replies.push(reply);
        }
        self.sessions.check();
    }

    /// The result of an operation is its place in the history.
    fn execute(&mut self, frame: &Frame) -> Arc<Vec<u8>> {
        let mut builder = ReplyBuilder::new(frame.id(), self.seq, frame.op_count(), 0);
        for op in frame.ops() {
            let place = self.executed.len().to_le_bytes();
            builder.begin().extend_from_slice(&place);
            builder.end();
            self.executed.push(op.to_vec());
        }
        builder.finish()
    }

    fn evict(&mut self) {
        if self.scope.bug == Bug::TableForgotten {
            self.sessions = Sessions::new();
            return;
        }
        let keys = PlainKeys { me: ReplicaId(0), n: 1 };
        let first = self.core.session().0 + 1;
        for session in first..=first + limits::SESSIONS_PER_CLIENT_MAX as u64 {
            let sign = |digest| base::crypto::ClientKeyring::authenticate(&keys, digest);
            let frame = FrameBuilder::open(GROUP, CLIENT, SessionId(session), sign);
            self.seq = self.seq.next();
            self.sessions.decide(self.seq, &frame);
        }
    }

    fn check(&self) -> Result<(), String> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        for (place, op) in self.executed.iter().enumerate() {
            if self.executed[..place].contains(op) {
                return Err(format!("operation {op:?} is executed twice"));
            }
        }
        let ordered = self.executed.is_sorted();
        if !ordered {
            return Err(format!("executed out of order: {:?}", self.executed));
        }
        for (token, result) in &self.told {
            let Ok(result) = result else { continue };
            let op = token.to_le_bytes();
            let place = self.executed.iter().position(|done| *done == op);
            if place.is_none_or(|place| place.to_le_bytes()[..] != result[..]) {
                return Err(format!("operation {token} has another result than the client's"));
            }
        }
        let held = self.core.held_ops();
        let most = self.submitted as usize - self.told.len();
        (held == most).then_some(()).ok_or(format!("{held} operations held, not {most}"))
    }
}
