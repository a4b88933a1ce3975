//! Clients that mean harm: what they send is theirs, and well-formed.

use std::sync::Arc;

use base::crypto::{ClientKeyring, PlainKeys, PlainSigner};
use base::frame::{READS, UNORDERED};
use base::{
    Authenticator, ClientId, Digest, Frame, FrameBuilder, FrameId, PillarId, ReplicaId, SessionId,
    Signature, Span, View,
};

use super::Adversary;
use crate::coverage::Sight;
use crate::events::Event;
use crate::host::GROUP;
use crate::prng::Ratio;
use crate::world::World;

/// One way to be a bad client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hostile {
    /// A bit of everything, in three sessions.
    #[default]
    Mixed,
    /// C-03: two bodies under each id, one for some replicas and one for the others.
    TwoBodies,
    /// C-01: authenticators that are good for some replicas only, the leader among them or not.
    SomeMacs,
    /// C-02: everything that it ever sent again, on every pillar, to anybody.
    Replay,
    /// C-04: ids from the end of all numbers, backwards, with gaps that are never filled.
    Ids,
    /// C-06: as many frames as it can, in more streams than there may be.
    Flood,
    /// C-08: a new session each time.
    Sessions,
}

impl Hostile {
    /// Every way.
    pub const ALL: [Hostile; 7] = [
        Hostile::Mixed,
        Hostile::TwoBodies,
        Hostile::SomeMacs,
        Hostile::Replay,
        Hostile::Ids,
        Hostile::Flood,
        Hostile::Sessions,
    ];
}

/// What a bad client does, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assault {
    /// Its way.
    pub how: Hostile,
    /// How often it strikes, yet.
    pub strikes: u32,
    /// So many times in a row, without a rest.
    pub row: u32,
    /// From the beginning of a row to that of the next one.
    pub every: Span,
}

/// Time between two strikes in a row.
const AT_ONCE: Span = Span::micros(400);

impl Assault {
    /// One that never rests.
    fn steady(how: Hostile, strikes: u32) -> Assault {
        Assault { how, strikes, row: 1, every: AT_ONCE }
    }

    /// It strikes: how long until it does so again.
    pub(crate) fn strike(&mut self) -> Option<Span> {
        self.strikes = self.strikes.checked_sub(1)?;
        Some(match self.strikes.is_multiple_of(self.row) {
            true => Span(self.every.0.saturating_sub(u64::from(self.row - 1) * AT_ONCE.0)),
            false => AT_ONCE,
        })
    }
}

/// The bad client of a world.
#[derive(Debug, Default)]
pub(super) struct Intruder {
    /// Times that it struck.
    strikes: u64,
    sent: Vec<Arc<Frame>>,
}

/// Frames that are remembered.
const SENT_MAX: usize = 256;
/// Frames of a flood per strike.
const FLOOD: u64 = 24;
/// Bytes of an operation in a flood.
const FLOOD_BYTES: usize = 2_000;

/// Frames, and to whom each goes.
type Sends = Vec<(Vec<ReplicaId>, Arc<Frame>)>;

impl World {
    /// A faulty client joins in, and sends `attacks` times.
    pub fn harass(&mut self, attacks: u32) {
        self.harass_with(Hostile::Mixed, attacks);
    }

    /// A client that is bad in one way joins in, and strikes `attacks` times.
    pub fn harass_with(&mut self, how: Hostile, attacks: u32) {
        self.assail(Assault::steady(how, attacks));
    }

    /// A bad client joins in.
    pub fn assail(&mut self, assault: Assault) {
        self.adversary.client = Some(ClientId(self.options.clients));
        self.assault = Some(assault);
        self.queue.schedule(Span(0), Event::Attack);
    }

    pub(crate) fn attack(&mut self) {
        let Some(assault) = &mut self.assault else { return };
        let how = assault.how;
        let Some(rest) = assault.strike() else { return };
        self.queue.schedule(rest, Event::Attack);
        self.saw(Sight::Attack);
        if self.correct().into_iter().any(|replica| self.view(replica) > View(0)) {
            self.saw(Sight::AttackLater);
        }
        for (to, frame) in self.adversary.attack(how) {
            self.checker.sends(ClientId(self.options.clients), &frame);
            let pillar = PillarId(self.prng.below(u64::from(self.options.pillars)) as u16);
            for to in to {
                self.send_request(to, pillar, &frame);
            }
        }
    }
}

impl Adversary {
    /// Frames of the bad client, and to whom each goes.
    fn attack(&mut self, how: Hostile) -> Vec<(Vec<ReplicaId>, Arc<Frame>)> {
        let strike = self.intruder.strikes;
        self.intruder.strikes += 1;
        if how == Hostile::Mixed {
            return self.mixed();
        }
        let session = if how == Hostile::Sessions { 1 + strike } else { 1 };
        // Now and then again: what was once opened is open.
        if strike.is_multiple_of(50) || how == Hostile::Sessions {
            let open =
                FrameBuilder::open(GROUP, self.bad_client(), SessionId(session), self.good());
            let mut sends = vec![(self.all(), Arc::new(open))];
            if how == Hostile::Sessions {
                sends.push((self.all(), self.request(session, 0, (1, 0), b"x")));
            }
            return sends;
        }
        match how {
            Hostile::TwoBodies => self.two_bodies(1 + strike / 2),
            Hostile::SomeMacs => {
                let macs = self.some_macs();
                let id = self.name(1, (strike % 4) as u32, 1 + strike / 4);
                let frame = Arc::new(builder(b"x").request(GROUP, id, 0, macs));
                vec![(self.all(), frame)]
            }
            Hostile::Replay => self.replay_frames(strike),
            Hostile::Ids => {
                let near = 1 + strike / 8;
                let ids =
                    [u64::MAX - 1, u64::MAX - 1 - strike, 1 << 63, near + 63, near + 64, 2 * near];
                let id = ids[self.prng.below(6) as usize];
                let stream = [0, 1, UNORDERED, UNORDERED | 1][self.prng.below(4) as usize];
                let ack = [0, id - 1, id / 2][self.prng.below(3) as usize];
                vec![(self.all(), self.request(1, stream, (id, ack), b"x"))]
            }
            Hostile::Flood => self.flood(strike),
            Hostile::Mixed | Hostile::Sessions => Vec::new(),
        }
    }

    fn two_bodies(&mut self, id: u64) -> Sends {
        let side = self.prng.next_u64();
        let (some, others) = self.all().into_iter().partition(|r| side >> r.0 & 1 == 0);
        let ack = id - 1;
        vec![
            (some, self.request(1, 0, (id, ack), b"x")),
            (others, self.request(1, 0, (id, ack), b"y")),
        ]
    }

    fn replay_frames(&mut self, strike: u64) -> Sends {
        let mut sends = Vec::new();
        if strike < 40 {
            let frame = self.request(1, 0, (strike, strike - 1), b"x");
            self.intruder.sent.push(Arc::clone(&frame));
            self.intruder.sent.truncate(SENT_MAX);
            sends.push((self.all(), frame));
        }
        for _ in 0..4 {
            let at = self.prng.below(self.intruder.sent.len() as u64) as usize;
            if let Some(old) = self.intruder.sent.get(at).cloned() {
                let whom = self.prng.next_u64();
                let some = self.all().into_iter().filter(|r| whom >> r.0 & 1 == 0).collect();
                sends.push((some, old));
            }
        }
        sends
    }

    fn flood(&mut self, strike: u64) -> Sends {
        let op = vec![7; FLOOD_BYTES];
        let one = |i| {
            let stream = (i % 70) as u32 | UNORDERED;
            (self.all(), self.request(1, stream, (1 + (strike * FLOOD + i) / 70, 0), &op))
        };
        (0..FLOOD).map(one).collect()
    }

    /// A frame that is genuine for everybody.
    fn request(&self, session: u64, stream: u32, (id, ack): (u64, u64), op: &[u8]) -> Arc<Frame> {
        let name = self.name(session, stream, id);
        Arc::new(builder(op).request(GROUP, name, ack, self.good()))
    }

    fn name(&self, session: u64, stream: u32, id: u64) -> FrameId {
        FrameId { client: self.bad_client(), session: SessionId(session), stream, id }
    }

    fn bad_client(&self) -> ClientId {
        self.client.unwrap_or(ClientId(0))
    }

    fn all(&self) -> Vec<ReplicaId> {
        (0..self.n).map(ReplicaId).collect()
    }

    /// An authenticator that is good for all.
    fn good(&self) -> impl FnOnce(Digest) -> Authenticator + use<> {
        let (n, signs) = (self.n, self.signs);
        move |digest| match signs {
            true => PlainSigner.authenticate(digest),
            false => PlainKeys { me: ReplicaId(0), n }.authenticate(digest),
        }
    }

    /// An authenticator that is good for some replicas. Where clients sign: for all, or for none.
    fn some_macs(&mut self) -> impl FnOnce(Digest) -> Authenticator + use<> {
        let (n, spoil) = (self.n, self.prng.next_u64());
        let (signs, good) = (self.signs, self.good());
        move |digest| {
            if signs && spoil.is_multiple_of(4) {
                return good(digest);
            }
            if signs && spoil.is_multiple_of(2) {
                return Authenticator::Signature(Signature([spoil as u8; 64]));
            }
            let whole = PlainKeys { me: ReplicaId(0), n }.authenticate(digest);
            let Authenticator::Vector(mut macs) = whole else { return whole };
            for (i, mac) in macs.iter_mut().enumerate() {
                mac.0[1] ^= (spoil >> i & 1) as u8;
            }
            Authenticator::Vector(macs)
        }
    }

    fn mixed(&mut self) -> Sends {
        let (one, other) = self.frame();
        let mut sends: Sends = vec![(vec![], one), (vec![], other)];
        let split = self.prng.chance(Ratio(1, 3));
        for replica in self.all() {
            let which = usize::from(split && self.prng.chance(Ratio(1, 2)));
            if self.prng.chance(Ratio(4, 5)) {
                sends[which].0.push(replica);
            }
        }
        sends
    }

    /// Two frames with one identity and different contents.
    fn frame(&mut self) -> (Arc<Frame>, Arc<Frame>) {
        let client = self.bad_client();
        let session = SessionId(1 + self.prng.below(3));
        let (a, b) = (self.some_macs(), self.some_macs());
        if self.prng.chance(Ratio(1, 10)) {
            let open = FrameBuilder::open(GROUP, client, session, a);
            return (Arc::new(open), Arc::new(FrameBuilder::close(GROUP, client, session, b)));
        }
        // Reads have streams of their own: in another frame, such a stream is malformed.
        let stream = [0, 1, UNORDERED, !READS][self.prng.below(4) as usize];
        let id = [1, 2, 3, 4, 64, 65, u64::MAX - 1][self.prng.below(7) as usize];
        let id = FrameId { client, session, stream, id };
        let ack = self.prng.below(id.id.min(5));
        let one = builder(b"x").request(GROUP, id, ack, a);
        (Arc::new(one), Arc::new(builder(b"y").request(GROUP, id, ack, b)))
    }
}

/// One operation, not one that the service knows: it has no effect on others' counts.
fn builder(op: &[u8]) -> FrameBuilder {
    let mut builder = FrameBuilder::new();
    builder.push(op);
    builder
}
