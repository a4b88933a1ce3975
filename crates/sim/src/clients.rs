//! The correct clients of a world: they ask, and check what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::crypto::{ClientKeyring, PlainKeys, PlainSigner};
use base::{
    AgreedTime, ClientId, Frame, Now, PillarId, Quorums, ReplicaId, Span, Stripe, Time, VoteSet,
};
use proto::client::{ClientConfig, ClientCore, Effect, SendTo};
use proto::pbft::Bodies;

use crate::events::Event;
use crate::host::GROUP;
use crate::observe::mark;
use crate::options::Options;
use crate::oracles::answers::Answer;
use crate::work::Memory;
use crate::world::{BURST, EPOCH_NS, World};

/// A client.
pub(crate) struct Client {
    pub(crate) core: ClientCore<u64>,
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    /// The earliest turn already in the queue.
    pub(crate) turn: Option<Time>,
    /// When each outstanding operation was asked, and the mark of its bytes.
    pub(crate) asked: BTreeMap<u64, (Time, u64)>,
    /// What it knows from earlier answers.
    memory: Memory,
    /// When the client asks again, if it takes its time.
    next_ask: Time,
    /// When it got its last answer.
    pub(crate) answered: Time,
    /// How long its answers of this round took, and whether they were ordered.
    pub(crate) waits: Vec<(Span, bool)>,
    /// Replicas that it sends nothing to.
    pub(crate) shuns: BTreeSet<ReplicaId>,
    /// Replicas that it hears nothing of.
    pub(crate) misses: BTreeSet<ReplicaId>,
    /// Whom the replica at each address was told not to rely on.
    pub(crate) told: BTreeMap<ReplicaId, VoteSet>,
}

impl Client {
    /// A client of a group with these options.
    pub(crate) fn of(options: &Options, id: u32) -> Client {
        let quorums = Quorums::pbft(options.n, options.f).expect("n >= 3f + 1");
        let stripe = Stripe::new(options.pillars).expect("pillars in range");
        let mut config = ClientConfig::new(GROUP, quorums, stripe, ClientId(id));
        if options.reads() {
            config = config.with_reads();
            config.read_timeout = Span::millis(20);
        }
        if options.unbatched {
            config = config.unbatched();
        }
        if options.keeps_to_one_line() {
            config.lines = 1;
        }
        config.repliers = options.repliers();
        config.retransmit = Span::millis(100);
        // A scenario decides for itself how long an answer may take.
        config.request_timeout = Span::secs(100_000);
        config.inline = options.travel.bodies == Bodies::Inline;
        let keys: Box<dyn ClientKeyring> = match options.travel.bodies {
            Bodies::Separate => Box::new(PlainKeys { me: ReplicaId(0), n: options.n }),
            Bodies::Inline => Box::new(PlainSigner),
        };
        let now = Now { mono: Time::ZERO, wall: AgreedTime(EPOCH_NS) };
        Client::new(ClientCore::new(config, keys, now))
    }

    fn new(core: ClientCore<u64>) -> Client {
        Client {
            core,
            submitted: 0,
            completed: 0,
            turn: None,
            asked: BTreeMap::new(),
            memory: Memory::default(),
            next_ask: Time::ZERO,
            answered: Time::ZERO,
            waits: Vec::new(),
            shuns: BTreeSet::new(),
            misses: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }
}

impl World {
    pub(crate) fn turn_client(&mut self, index: usize) {
        let (mut sends, mut avoids) = (Vec::new(), None);
        // Completions free room for submissions, which make more effects.
        loop {
            self.submit(index);
            let now = self.clock();
            let client = &mut self.clients[index];
            client.core.turn(now);
            if client.completed.is_multiple_of(16) {
                client.core.check();
            }
            let effects: Vec<Effect<u64>> = client.core.drain().collect();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    Effect::Send { pillar, to, frame } => sends.push((pillar, to, frame)),
                    Effect::Avoid(replicas) => avoids = Some(replicas),
                    Effect::Done { tokens, outcome } => {
                        let results = match outcome {
                            Ok(results) => results,
                            Err(error) => panic!("client {index}: {error:?}\n{}", self.describe()),
                        };
                        assert_eq!(tokens.len(), results.len());
                        let ordered = !results.is_unordered();
                        for (token, result) in tokens.iter().zip(results.iter()) {
                            self.answered(index, *token, (result, ordered));
                        }
                    }
                    _ => {}
                }
            }
        }
        if let Some(replicas) = avoids {
            for to in self.addresses() {
                let event = Event::Avoid { to, client: index, replicas };
                self.send((None, Some(to)), Span(0), event);
            }
        }
        let now = self.queue.now();
        let client = &mut self.clients[index];
        let outstanding = client.submitted - client.completed;
        let asks = self.options.pace_us > 0
            && client.submitted < self.options.ops_per_client
            && outstanding < u64::from(self.options.outstanding);
        let next_ask = asks.then_some(client.next_ask);
        let deadline = client.core.deadline().into_iter().chain(next_ask).min();
        if let Some(at) = deadline.map(|at| at.max(now))
            && client.turn.is_none_or(|planned| planned > at)
        {
            client.turn = Some(at);
            self.queue.schedule(at.since(now), Event::ClientTurn { client: index });
        }
        for (pillar, to, frame) in sends {
            self.send_frame(index, pillar, to, &frame);
        }
    }

    fn submit(&mut self, index: usize) {
        let now = self.clock();
        let (options, beat) = (self.options, self.beat);
        let client = &mut self.clients[index];
        let outstanding = client.submitted - client.completed;
        let room = u64::from(options.outstanding).saturating_sub(outstanding);
        for _ in 0..room.min(options.ops_per_client - client.submitted) {
            if options.pace_us > 0 {
                if client.next_ask > now.mono {
                    break;
                }
                client.next_ask = now.mono.after(Span::micros(options.pace_us));
                let ends = (client.submitted + 1).is_multiple_of(BURST);
                if let Some(beat) = beat.filter(|_| ends) {
                    let next = (now.mono.0 / beat.0 + 1) * beat.0;
                    client.next_ask = client.next_ask.max(Time(next));
                }
            }
            let token = client.submitted;
            let question = self.work.question(index, token, &client.memory);
            let op = question.op;
            let taken = match question.read {
                true => client.core.submit_read(now, question.stream, &op, token),
                false => client.core.submit(now, question.stream, &op, token),
            };
            taken.expect("within bounds");
            client.asked.insert(token, (now.mono, mark(&op)));
            client.submitted += 1;
        }
    }

    /// An operation has its answer: the right one, once.
    fn answered(&mut self, index: usize, token: u64, (result, ordered): (&[u8], bool)) {
        let now = self.queue.now();
        let client = &mut self.clients[index];
        let (began, op) = client.asked.remove(&token).expect("an operation is answered once");
        client.completed += 1;
        client.answered = now;
        client.waits.push((now.since(began), ordered));
        let judged = self.work.judge(index, token, result, &mut client.memory);
        let read = if ordered { None } else { self.work.read(index, token, result) };
        assert!(ordered || read.is_some(), "client {index} operation {token} is no read");
        let (client, result) = (ClientId(index as u32), mark(result));
        self.checker.accepts(&Answer { client, op, result, read, began, ended: now });
        match judged {
            Err(why) => panic!("client {index} operation {token}: {why}"),
            Ok(Some((counter, ask, value))) => {
                self.history.record(counter, ask, value, began, now);
            }
            Ok(None) => {}
        }
    }

    fn send_frame(&mut self, index: usize, pillar: PillarId, to: SendTo, frame: &Arc<Frame>) {
        self.checker.sends(ClientId(index as u32), frame);
        for address in self.addresses() {
            let replica = self.identity(address);
            let wanted = to == SendTo::All || to == SendTo::One(replica);
            if wanted && !self.clients[index].shuns.contains(&replica) {
                self.send_request(address, pillar, frame);
            }
        }
    }

    /// The clients' cores.
    pub fn clients(&self) -> impl Iterator<Item = &ClientCore<u64>> {
        self.clients.iter().map(|client| &client.core)
    }

    /// From now on no answer of `replica` reaches anybody.
    pub fn miss_answers(&mut self, replica: ReplicaId) {
        for client in &mut self.clients {
            client.misses.insert(replica);
        }
    }

    /// Sends a frame to one replica.
    pub(crate) fn send_request(&mut self, to: ReplicaId, pillar: PillarId, frame: &Arc<Frame>) {
        let event = Event::Request { to, pillar, frame: Arc::clone(frame) };
        self.send((None, Some(to)), Span(0), event);
    }
}
