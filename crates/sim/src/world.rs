//! A group and its clients on virtual time.

use std::sync::Arc;

use base::reply::{Answer, ReplyPacket};
use base::{
    AgreedTime, FromStage, Now, PillarId, Quorums, Reader, ReplicaId, Seq, Span, Time, ToStage,
    View,
};
use proto::pbft::msg::Message;
use proto::pbft::{Input, Lane};

use crate::adversary::{Adversary, Assault, Behaviour};
use crate::clients::Client;
use crate::coverage::Coverage;
use crate::events::{Event, Inside, Queue, Sender};
use crate::history::History;
use crate::host::{Condition, GROUP, Replica};
use crate::measures::Measures;
use crate::network::Network;
use crate::options::Options;
use crate::oracles::Oracles;
use crate::outcome;
use crate::phase::Clock;
use crate::prng::Prng;
use crate::rest::Loads;
use crate::story::Story;
use crate::work::Work;

/// Operations that clients ask before they pause, where they do.
pub(crate) const BURST: u64 = 10;

/// How much was done.
#[derive(Default)]
pub(crate) struct Steps {
    /// Steps of lanes and stages.
    pub(crate) all: u64,
    /// Those of correct replicas' lanes.
    pub(crate) sound: u64,
}

/// A group, its clients and the network between them.
pub struct World {
    pub(crate) options: Options,
    pub(crate) queue: Queue,
    pub(crate) prng: Prng,
    pub(crate) network: Network,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) clients: Vec<Client>,
    pub(crate) adversary: Adversary,
    pub(crate) assault: Option<Assault>,
    /// Clients pause after a burst until the next multiple of this.
    pub(crate) beat: Option<Span>,
    pub(crate) checker: Oracles,
    pub(crate) steps: Steps,
    pub(crate) history: History,
    /// What the group does.
    pub(crate) work: Work,
    /// Wall clocks of the replicas.
    pub(crate) clocks: Vec<Clock>,
    /// Planned faults happen no more.
    pub(crate) frozen: bool,
    /// What happens, if somebody wants to read it.
    pub(crate) story: Option<Story>,
    pub(crate) coverage: Coverage,
    pub(crate) measures: Measures,
    /// What replicas do, while somebody looks.
    pub(crate) loads: Option<Loads>,
}

/// The wall clock at virtual time zero.
pub(crate) const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

impl World {
    /// A world with a group that does the work of its options.
    ///
    /// # Panics
    /// When the options contradict each other.
    #[must_use]
    pub fn new(options: Options) -> World {
        let quorums = Quorums::pbft(options.n, options.f).expect("n >= 3f + 1");
        let mut world = World {
            queue: Queue::default(),
            prng: Prng::new(options.seed),
            network: Network::new(options.net),
            replicas: Vec::new(),
            clients: (0..options.clients).map(|id| Client::of(&options, id)).collect(),
            adversary: Adversary::new(&options),
            assault: None,
            beat: None,
            checker: Oracles::new(&options),
            steps: Steps::default(),
            history: History::default(),
            work: options.work(),
            clocks: vec![Clock::default(); usize::from(options.n)],
            frozen: false,
            story: outcome::tells_stories().then(Story::default),
            coverage: Coverage::default(),
            measures: Measures::default(),
            loads: None,
            options,
        };
        for client in 0..world.clients.len() {
            world.queue.schedule(Span(0), Event::ClientTurn { client });
        }
        for replica in quorums.replicas() {
            world.begin(replica);
        }
        world
    }

    /// Makes `replica` faulty in random ways: see [`Adversary`]. Nothing is asked of it from now
    /// on.
    pub fn corrupt(&mut self, replica: ReplicaId) {
        self.misbehave(replica, Behaviour::Random);
    }

    /// Makes `replica` faulty in one way. Nothing is asked of it from now on.
    pub fn misbehave(&mut self, replica: ReplicaId, behaviour: Behaviour) {
        self.adversary.corrupt(replica, behaviour);
    }

    /// The faulty say nothing faulty any more. What they did stays.
    pub fn calm_down(&mut self) {
        self.adversary.quiet = true;
        self.assault = None;
    }

    /// `client` sends nothing to `replica` from now on.
    pub fn shun(&mut self, client: usize, replica: ReplicaId) {
        self.clients[client].shuns.insert(replica);
    }

    /// Every client has `ops` more operations to do.
    pub fn ask_more(&mut self, ops: u64) {
        self.options.ops_per_client += ops;
        for client in 0..self.clients.len() {
            self.queue.schedule(Span(0), Event::ClientTurn { client });
        }
    }

    /// The clients finish what they have begun, and ask nothing more.
    pub fn stop_asking(&mut self) {
        let most = self.clients.iter().map(|client| client.submitted).max();
        self.options.ops_per_client = most.unwrap_or(0);
        self.ask_more(0);
    }

    /// Turns of correct replicas' lanes so far: that an idle group has few.
    #[must_use]
    pub fn lane_turns(&self) -> u64 {
        self.steps.sound
    }

    /// The replicas of which something is asked: up and not faulty, and of the core if there is
    /// one.
    #[must_use]
    pub fn correct(&self) -> Vec<ReplicaId> {
        let all = (0..self.options.n).map(ReplicaId);
        all.filter(|r| {
            let runs = self.condition(*r) == Condition::Running;
            let core = &self.network.core;
            let asked = core.is_empty() || core.contains(r);
            runs && asked && !self.network.is_off(*r) && !self.adversary.is_faulty(*r)
        })
        .collect()
    }

    /// Takes `replica` off the network: it hears and says nothing from now on.
    pub fn stop(&mut self, replica: ReplicaId) {
        self.network.take_off(replica);
    }

    /// Puts `replica` back on the network. It knows what it knew; what was said meanwhile is
    /// lost to it.
    pub fn resume(&mut self, replica: ReplicaId) {
        self.network.put_on(replica);
        self.connect_all(replica);
    }

    /// Runs until `done` or until virtual time `limit` is reached; true when done.
    pub fn run_until(&mut self, limit: Span, done: impl Fn(&World) -> bool) -> bool {
        let end = Time::ZERO.after(limit);
        while self.queue.now() <= end {
            if done(self) {
                return true;
            }
            let Some(event) = self.queue.pop() else { return done(self) };
            self.dispatch(event);
        }
        done(self)
    }

    /// Runs for `span` of virtual time from now, or until `done`; true when done.
    pub fn run_for(&mut self, span: Span, done: impl Fn(&World) -> bool) -> bool {
        self.run_until(Span(self.now().0 + span.0), done)
    }

    /// Checkpoint files on the disk of a replica that runs.
    pub(crate) fn checkpoints_on_disk(&self, replica: ReplicaId) -> usize {
        self.replicas[usize::from(replica.0)].disk.checkpoints()
    }

    /// Whether every client has all its replies.
    #[must_use]
    pub fn clients_are_done(&self) -> bool {
        self.clients.iter().all(|client| client.completed == self.options.ops_per_client)
    }

    /// How many answers clients have.
    pub(crate) fn answers(&self) -> u64 {
        self.clients.iter().map(|client| client.completed).sum()
    }

    /// For how long a client has waited for an answer by now, `since` then at most.
    pub(crate) fn longest_wait(&self, since: Time) -> Span {
        let asked = self.clients.iter().flat_map(|client| client.asked.values());
        let first = asked.map(|(at, _)| *at).min();
        first.map_or(Span(0), |at| self.now().since(at.max(since)))
    }

    /// Whether all that clients have accepted is executed for good: a tentative answer may be
    /// there before its batch is committed anywhere.
    #[must_use]
    pub fn answers_stand(&self) -> bool {
        self.checker.answers_stand()
    }

    /// Whether every correct replica has executed the same, and as far as any.
    #[must_use]
    pub fn replicas_agree(&self) -> bool {
        let executed = |r: &ReplicaId| self.replicas[usize::from(r.0)].stage.progress().executed;
        let all: Vec<_> = self.correct().iter().map(executed).collect();
        let even = all.windows(2).all(|pair| pair[0] == pair[1]);
        // What a client was answered tentatively is yet to be executed for good, and somebody
        // beside the core may have done so before it.
        let there = all.first().is_none_or(|executed| *executed >= self.checker.answered());
        let settled = even && there && !self.checker.awaits();
        settled && self.correct().into_iter().all(|r| self.is_at_rest(r))
    }

    /// Digests of the present states of the correct replicas, but for those whose spoilt memory
    /// no checkpoint has shown yet.
    pub fn state_digests(&mut self) -> Vec<base::Digest> {
        let mut correct = self.correct();
        correct.retain(|replica| self.is_sound(*replica));
        let digest = |r: ReplicaId| self.replicas[usize::from(r.0)].stage.state_digest();
        correct.into_iter().map(digest).collect()
    }

    /// The shape of the world.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// Operations completed, of all clients together.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.clients.iter().map(|client| client.completed).sum()
    }

    /// Operations that one client completed.
    #[must_use]
    pub fn completed_by(&self, client: usize) -> u64 {
        self.clients[client].completed
    }

    /// Every number up to this one is executed by `replica`.
    #[must_use]
    pub fn executed(&self, replica: ReplicaId) -> Seq {
        self.replicas[usize::from(replica.0)].stage.progress().executed
    }

    /// The view in which `replica` votes, or voted last.
    #[must_use]
    pub fn view(&self, replica: ReplicaId) -> View {
        self.replicas[usize::from(replica.0)].coordinator.report().view
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.queue.now()
    }

    /// A digest of everything that happened so far.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.queue.trace()
    }

    /// What was checked along the way.
    #[must_use]
    pub fn checker(&self) -> &Oracles {
        &self.checker
    }

    /// What clients were told about the counters that they share.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The lane of a pillar, to look at.
    #[must_use]
    pub fn lane(&self, replica: ReplicaId, pillar: PillarId) -> &Lane {
        &self.replicas[usize::from(replica.0)].lanes[usize::from(pillar.0)]
    }

    /// The coordinator of a replica, to look at.
    #[must_use]
    pub fn coordinator(&self, replica: ReplicaId) -> &proto::group::Coordinator {
        &self.replicas[usize::from(replica.0)].coordinator
    }

    /// What every part reports, a line each: for the message of a failed scenario.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("seed {} at {:?}\n", self.options.seed, self.now());
        for (i, replica) in self.replicas.iter().enumerate() {
            let (progress, condition) = (replica.stage.progress(), replica.condition);
            text += &format!("r{i} {condition:?} executed {:?}\n", progress.executed);
            text += &format!("  {:?}\n", replica.coordinator.report());
            for lane in &replica.lanes {
                text += &format!("  {:?}\n", lane.report());
            }
        }
        for (i, client) in self.clients.iter().enumerate() {
            text += &format!("c{i} asked {} has {}\n", client.submitted, client.completed);
        }
        text
    }

    pub(crate) fn pillars(&self) -> impl Iterator<Item = PillarId> + use<> {
        (0..self.options.pillars).map(PillarId)
    }

    pub(crate) fn condition(&self, replica: ReplicaId) -> Condition {
        self.replicas[usize::from(replica.0)].condition
    }

    /// Whether what `replica` says about its state must be right.
    pub(crate) fn is_sound(&self, replica: ReplicaId) -> bool {
        !self.adversary.is_faulty(replica) && !self.replicas[usize::from(replica.0)].spoiled
    }

    /// True time, which clients go by.
    pub(crate) fn clock(&self) -> Now {
        Now { mono: self.now(), wall: AgreedTime(EPOCH_NS + self.now().0) }
    }

    /// What the clocks of a replica show.
    pub(crate) fn clock_of(&self, replica: ReplicaId) -> Now {
        let now = self.clock();
        let clock = self.clocks.get(usize::from(replica.0)).copied().unwrap_or_default();
        Now { wall: AgreedTime(clock.shows(now.wall.0, now.mono.0)), ..now }
    }

    /// Sends to another replica, over the wire's encoding.
    pub(crate) fn send_peer(
        &mut self,
        from: ReplicaId,
        pillar: PillarId,
        to: ReplicaId,
        message: &Message,
    ) {
        let sender =
            Sender { replica: from, incarnation: self.replicas[usize::from(from.0)].incarnation };
        // While a world is made, the others are about to begin.
        let life = self.replicas.get(usize::from(to.0)).map_or(0, |host| host.life);
        self.count_message((from, pillar, to), message);
        let says = self.says(from, to, pillar, message);
        if self.adversary.is_faulty(from) {
            self.watch_lie((from, to), message, &says);
        }
        for (later, pillar, message) in says {
            let message = match &message {
                Message::Group(_) | Message::State(_) => {
                    let Some(message) = wired(&message, self.adversary.is_faulty(from)) else {
                        continue;
                    };
                    message
                }
                _ => message,
            };
            let event = Event::Peer { to, life, pillar, sender, message };
            self.send((Some(from), Some(to)), later, event);
        }
    }

    fn dispatch(&mut self, event: Event) {
        if let Some(replica) = event.replica() {
            match self.condition(replica) {
                Condition::Running => {}
                Condition::Dead => return,
                Condition::Paused => {
                    return self.replica(replica).backlog.push_back(event);
                }
            }
        }
        match event {
            Event::Peer { to, life, pillar, sender, message } => {
                let carried = self.network.carries(sender.replica, to);
                if carried && self.lives(to, life) {
                    self.adversary.overhears(to, pillar, &message);
                    self.watch_message(sender.replica, to, pillar, &message);
                    if let Some(message) = self.adversary.takes(to, pillar, message) {
                        self.on_peer(to, pillar, sender, message);
                    }
                }
            }
            Event::Request { to, pillar, frame } => {
                let taken = self.adversary.takes_from(to, frame.id().client);
                if !self.network.is_off(to) && taken {
                    self.step_lane(to, pillar, Input::Request(frame));
                }
            }
            Event::Avoid { to, client, replicas } => {
                self.clients[client].told.insert(to, replicas);
            }
            Event::Reply { to, from, packet } => {
                let now = self.clock();
                let reply = ReplyPacket::decode(&mut Reader::new(&packet));
                // The faulty client does not listen, and a link that carries garbage is cut.
                if let (Some(client), Ok(reply)) = (self.clients.get_mut(to), reply) {
                    client.core.on_reply(now, from, &reply);
                    self.turn_client(to);
                }
            }
            Event::Inside { replica, life, message } if self.lives(replica, life) => {
                self.on_inside(replica, message);
            }
            Event::Turn { replica, life, part } if self.lives(replica, life) => {
                self.turn(replica, part);
            }
            Event::Inside { .. } | Event::Turn { .. } => {}
            Event::Attack => self.attack(),
            Event::ClientTurn { client } => {
                self.clients[client].turn = None;
                self.turn_client(client);
            }
            Event::Fault(fault) => {
                if !self.frozen {
                    self.watch_load(&fault);
                    self.fault(fault);
                }
            }
        }
    }

    fn lives(&self, replica: ReplicaId, life: u32) -> bool {
        self.replicas[usize::from(replica.0)].life == life
    }

    fn on_inside(&mut self, replica: ReplicaId, message: Inside) {
        match message {
            // Replies go past the lane to the connection.
            Inside::Lane(
                pillar,
                Input::Stage(FromStage::Reply { frame, content, tentative, in_full }),
            ) => {
                if self.network.is_off(replica) {
                    return;
                }
                let to = frame.client.0 as usize;
                let view = self.lane(replica, pillar).view();
                let (view, content) = self.adversary.replies(replica, (view, &content));
                let from = self.identity(replica);
                let client = self.clients.get(to);
                if client.is_some_and(|client| client.misses.contains(&from)) {
                    return;
                }
                let told = client.and_then(|client| client.told.get(&replica)).copied();
                let answer = Answer { content: &content, view, tentative, in_full };
                let repliers = self.options.repliers();
                if let Some(reply) = repliers.packet(from, &answer, told.unwrap_or_default()) {
                    let mut packet = Vec::new();
                    reply.encode(&mut packet);
                    let event = Event::Reply { to, from, packet: Arc::new(packet) };
                    self.send((Some(replica), None), Span(0), event);
                }
            }
            Inside::Stage(ToStage::Resend { .. }) if self.network.is_off(replica) => {}
            message => self.hear(replica, message),
        }
    }
}

/// The message as it comes out of the wire at the other end.
///
/// # Panics
/// When a correct replica says what cannot be read.
fn wired(message: &Message, faulty: bool) -> Option<Message> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    assert!(bytes.len() <= message.encoded_len_max(), "{} bytes: {message:?}", bytes.len());
    let mut r = Reader::new(&bytes);
    let read = Message::decode(GROUP, &mut r).ok().filter(|_| r.is_empty());
    match read {
        Some(read) => {
            assert!(faulty || read == *message, "the wire changes {message:?}");
            Some(read)
        }
        None => {
            assert!(faulty, "a correct replica says what cannot be read: {message:?}");
            None
        }
    }
}
