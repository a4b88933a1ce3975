//! Few faults at chosen moments of the protocol (after ByzzFuzz, Winter et al. 2023).
//!
//! A *moment* is one kind of message of one number and view. In a few moments the network is
//! divided, in a few others the faulty replica changes what it says to some. Small numbers and
//! small changes: that is where most bugs of such protocols were found.

use base::{ReplicaId, View};
use proto::group::msg::GroupMessage;
use proto::pbft::msg::Message;

use super::kind::Kind;
use crate::options::Options;
use crate::prng::Prng;

/// Most moments of each sort of fault.
const MOMENTS_MAX: u64 = 3;
/// Numbers in which something happens.
const NUMBERS: u64 = 12;
/// Views in which something happens.
const VIEWS: u64 = 3;

/// Kind of message, view, number: 0 where a kind has none.
type Moment = (Kind, u64, u64);

/// What goes wrong, and when.
#[derive(Clone, Debug)]
pub struct Fuzz {
    /// The replica that changes what it says.
    pub faulty: ReplicaId,
    /// When the network is divided, and between whom: one bit for each replica.
    network: Vec<(Moment, u64)>,
    /// When the faulty replica lies, and to whom.
    process: Vec<(Moment, u64)>,
}

impl Fuzz {
    /// The faults of a seed: c and d of them, each up to three.
    #[must_use]
    pub fn new(options: &Options) -> Fuzz {
        let mut prng = Prng::new(options.seed ^ 0xf022);
        let mut few = |least| {
            let count = prng.between(least, MOMENTS_MAX);
            (0..count).map(|_| (moment(options, &mut prng), prng.next_u64())).collect()
        };
        let (network, process) = (few(0), few(1));
        // Who leads has most to say.
        let faulty =
            ReplicaId([0, 0, 1, prng.below(u64::from(options.n)) as u16][prng.below(4) as usize]);
        Fuzz { faulty, network, process }
    }

    /// Whether the network loses this message.
    pub(super) fn drops(&self, from: ReplicaId, to: ReplicaId, message: &Message) -> bool {
        !self.network.is_empty()
            && moment_of(message).is_some_and(|now| {
                let divides = |side: u64| (side >> (from.0 % 64) ^ side >> (to.0 % 64)) & 1 == 1;
                self.network.iter().any(|(moment, side)| *moment == now && divides(*side))
            })
    }

    /// Whether the faulty replica changes this message.
    pub(super) fn lies(&self, to: ReplicaId, message: &Message) -> bool {
        moment_of(message).is_some_and(|now| {
            let hit =
                |(moment, whom): &(Moment, u64)| *moment == now && whom >> (to.0 % 64) & 1 == 1;
            self.process.iter().any(hit)
        })
    }
}

fn moment(options: &Options, prng: &mut Prng) -> Moment {
    let (view, seq) = (prng.below(VIEWS), prng.between(1, NUMBERS));
    match prng.below(8) {
        0 | 1 => (Kind::PrePrepare, view, seq),
        2 => (Kind::Prepare, view, seq),
        3 => (Kind::Commit, view, seq),
        4 => (Kind::ViewChange, view + 1, 0),
        5 => (Kind::NewView, view + 1, 0),
        6 => (Kind::Wish, view + 1, 0),
        _ => (Kind::Checkpoint, 0, options.checkpoint_interval * prng.between(1, 2)),
    }
}

fn moment_of(message: &Message) -> Option<Moment> {
    let at = |kind, view: View, seq: u64| Some((kind, view.0, seq));
    match message {
        Message::PrePrepare { view, seq, .. } => at(Kind::PrePrepare, *view, seq.0),
        Message::Prepare(vote) => at(Kind::Prepare, vote.view, vote.seq.0),
        Message::Commit(vote) => at(Kind::Commit, vote.view, vote.seq.0),
        Message::Checkpoint(checkpoint) => at(Kind::Checkpoint, View(0), checkpoint.seq.0),
        Message::Group(message) => match &**message {
            GroupMessage::ViewChange(change) => at(Kind::ViewChange, change.view, 0),
            GroupMessage::NewView(new_view) => at(Kind::NewView, new_view.view, 0),
            GroupMessage::Wish { wish, .. } => at(Kind::Wish, *wish, 0),
            _ => None,
        },
        _ => None,
    }
}
