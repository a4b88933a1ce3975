//! One faulty replica and one faulty client, at random: what they send is well-formed and means
//! harm.
//!
//! The faulty replica runs the correct cores and twists, withholds and invents on its way out;
//! everything it sends goes through the wire's encoding, as it would have to. The faulty client
//! sends frames to some replicas only, different bodies under one id, and authenticators that are
//! good for some. A faulty leader may be played, too, but nothing replaces it yet: only safety can
//! be asked for then. Not here: bytes that are no messages (decoders have their own tests).

use std::sync::Arc;

use base::crypto::{ClientKeyring, PlainKeys};
use base::{
    AgreedTime, Authenticator, BatchEntry, ClientId, Digest, Frame, FrameBuilder, FrameId, GroupId,
    Reader, ReplicaId, Seq, SessionId, Signature, View,
};
use proto::pbft::msg::{Checkpoint, Message, Proposal, Vote};

use crate::prng::{Prng, Ratio};

/// Messages and frames that are remembered, to be used again.
const HEARD_MAX: usize = 64;

/// Who is faulty, and what it has picked up.
#[derive(Debug)]
pub struct Adversary {
    /// The faulty replica.
    pub replica: Option<ReplicaId>,
    /// The faulty client.
    pub client: Option<ClientId>,
    /// The faulty replica says what a correct one would.
    pub quiet: bool,
    n: u16,
    prng: Prng,
    heard: Vec<Message>,
    entries: Vec<BatchEntry>,
    frames: Vec<Arc<Frame>>,
}

impl Adversary {
    /// Nobody is faulty yet, in a group of `n`.
    #[must_use]
    pub fn new(seed: u64, n: u16) -> Adversary {
        Adversary {
            replica: None,
            client: None,
            quiet: false,
            n,
            prng: Prng::new(seed ^ 0xbad),
            heard: Vec::new(),
            entries: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// The faulty replica hears or wants to say `message`.
    pub fn hears(&mut self, message: &Message) {
        let entries = match message {
            Message::Vouch(entries) | Message::Fetch { entries, .. } => &entries[..],
            Message::PrePrepare { proposal, .. } | Message::Decided { proposal, .. } => {
                proposal.entries()
            }
            _ => &[],
        };
        for entry in entries.iter().take(4) {
            keep(&mut self.prng, &mut self.entries, *entry);
        }
        if let Message::Body { frame, .. } = message {
            keep(&mut self.prng, &mut self.frames, frame.clone());
        }
        keep(&mut self.prng, &mut self.heard, message.clone());
    }

    /// What the faulty replica sends instead of `message`.
    pub fn twist(&mut self, message: Message) -> Vec<Message> {
        self.hears(&message);
        if self.quiet {
            return vec![message];
        }
        match self.prng.below(8) {
            0 => Vec::new(),
            1 => self.invent().into_iter().collect(),
            2 => self.invent().into_iter().chain([message]).collect(),
            3 => self.replay().into_iter().chain([message]).collect(),
            _ => vec![message],
        }
    }

    fn replay(&mut self) -> Option<Message> {
        let at = self.prng.below(self.heard.len() as u64);
        self.heard.get(at as usize).cloned()
    }

    /// A message that nothing justifies, if it can be put on the wire.
    pub fn invent(&mut self) -> Option<Message> {
        let (view, seq, digest) = (self.view(), self.seq(), self.digest());
        let vote = Vote { view, seq, digest };
        let message = match self.prng.below(9) {
            0 => Message::PrePrepare { view, seq, proposal: self.proposal() },
            1 => Message::Prepare(vote),
            2 => Message::Commit(vote),
            3 => Message::Vouch(self.some_entries()),
            4 => Message::Fetch { seq, entries: self.some_entries() },
            5 => {
                let vouched = self.prng.chance(Ratio(1, 2));
                let at = self.prng.below(self.frames.len() as u64) as usize;
                let frame = self.frames.get(at).cloned().unwrap_or_else(|| self.frame().0);
                Message::Body { vouched, frame }
            }
            6 => Message::Checkpoint(Checkpoint { seq, digest, signature: Signature([3; 64]) }),
            7 => Message::Status { view, stable: self.seq(), delivered: self.seq() },
            _ => Message::Decided { seq, proposal: self.proposal() },
        };
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        Message::decode(GroupId([7; 32]), &mut Reader::new(&bytes)).ok()
    }

    /// A reply with a flaw, now and then.
    pub fn twist_reply(&mut self, content: &Arc<Vec<u8>>) -> Arc<Vec<u8>> {
        let mut bytes = content.to_vec();
        if self.prng.chance(Ratio(1, 2)) {
            let at = self.prng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.prng.below(8);
        }
        Arc::new(bytes)
    }

    /// Frames of the faulty client, and to whom each goes.
    pub fn attack(&mut self) -> Vec<(Vec<ReplicaId>, Arc<Frame>)> {
        let (one, other) = self.frame();
        let mut sends: Vec<(Vec<ReplicaId>, Arc<Frame>)> = vec![(vec![], one), (vec![], other)];
        let split = self.prng.chance(Ratio(1, 3));
        for replica in (0..self.n).map(ReplicaId) {
            let which = usize::from(split && self.prng.chance(Ratio(1, 2)));
            if self.prng.chance(Ratio(4, 5)) {
                sends[which].0.push(replica);
            }
        }
        sends
    }

    /// Two frames with one identity and different contents.
    fn frame(&mut self) -> (Arc<Frame>, Arc<Frame>) {
        let client = self.client.unwrap_or(ClientId(0));
        let session = SessionId(1 + self.prng.below(3));
        let group = GroupId([7; 32]);
        let (a, b) = (self.authenticator(), self.authenticator());
        if self.prng.chance(Ratio(1, 10)) {
            let open = FrameBuilder::open(group, client, session, a);
            return (Arc::new(open), Arc::new(FrameBuilder::close(group, client, session, b)));
        }
        let stream = [0, 1, base::frame::UNORDERED, u32::MAX][self.prng.below(4) as usize];
        let id = [1, 2, 3, 4, 64, 65, u64::MAX - 1][self.prng.below(7) as usize];
        let id = FrameId { client, session, stream, id };
        let ack = self.prng.below(id.id.min(5));
        // Too short for the service: it has no effect on others' counts.
        let build = |op: &[u8]| {
            let mut builder = FrameBuilder::new();
            builder.push(op);
            builder
        };
        let one = build(b"x").request(group, id, ack, a);
        (Arc::new(one), Arc::new(build(b"y").request(group, id, ack, b)))
    }

    /// An authenticator that is good for some replicas.
    fn authenticator(&mut self) -> impl FnOnce(Digest) -> Authenticator + use<> {
        let (n, spoil) = (self.n, self.prng.next_u64());
        move |digest| {
            let whole = PlainKeys { me: ReplicaId(0), n }.authenticate(digest);
            let Authenticator::Vector(mut macs) = whole else { return whole };
            for (i, mac) in macs.iter_mut().enumerate() {
                mac.0[1] ^= (spoil >> i & 1) as u8;
            }
            Authenticator::Vector(macs)
        }
    }

    fn view(&mut self) -> View {
        View([0, 0, 0, 0, 1, u64::MAX][self.prng.below(6) as usize])
    }

    fn seq(&mut self) -> Seq {
        let near = self.heard.iter().rev().find_map(|message| match message {
            Message::Prepare(vote) | Message::Commit(vote) => Some(vote.seq.0),
            _ => None,
        });
        let near = near.unwrap_or(1);
        Seq(match self.prng.below(8) {
            0 => [0, 1, u64::MAX >> 1, u64::MAX][self.prng.below(4) as usize],
            1 => self.prng.below(100),
            2 => near + self.prng.below(2000),
            3 => near / 8 * 8 + 8 * self.prng.below(4),
            _ => near.saturating_sub(4) + self.prng.below(12),
        })
    }

    fn digest(&mut self) -> Digest {
        let at = self.prng.below(self.heard.len() as u64);
        match self.heard.get(at as usize) {
            Some(Message::Prepare(vote) | Message::Commit(vote)) => vote.digest,
            Some(Message::Checkpoint(checkpoint)) => checkpoint.digest,
            _ => Digest([self.prng.below(2) as u8; 32]),
        }
    }

    fn some_entries(&mut self) -> Vec<BatchEntry> {
        let count = self.prng.below(6);
        let mut entries = Vec::new();
        for _ in 0..count {
            let at = self.prng.below(self.entries.len() as u64) as usize;
            let Some(mut entry) = self.entries.get(at).copied() else { break };
            match self.prng.below(4) {
                0 => entry.digest.0[0] ^= 1,
                1 => entry.id.id = self.prng.next_u64(),
                _ => {}
            }
            entries.push(entry);
        }
        entries
    }

    fn proposal(&mut self) -> Proposal {
        if self.prng.chance(Ratio(1, 3)) {
            return Proposal::Null;
        }
        let time = [0, 1_700_000_000_000_000_000, u64::MAX][self.prng.below(3) as usize];
        Proposal::Frames { time: AgreedTime(time), entries: self.some_entries() }
    }
}

fn keep<T>(prng: &mut Prng, all: &mut Vec<T>, one: T) {
    if all.len() < HEARD_MAX {
        all.push(one);
    } else {
        let at = prng.below(HEARD_MAX as u64) as usize;
        all[at] = one;
    }
}
