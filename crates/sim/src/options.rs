//! The shape of a simulated world and of its network.

use base::reply::Repliers;
use base::{Quorums, Span};
use proto::pbft::{Bodies, Commits, Idle, Leaders};

use crate::prng::Ratio;
use crate::work::Work;

/// How replicas answer their clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    /// All but one by digests, whatever they say.
    pub digests: bool,
    /// Only a quorum of them.
    pub relief: bool,
    /// What is prepared is executed before it is committed.
    pub tentative: bool,
}

/// What the network does to messages.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// Shortest delay in microseconds.
    pub delay_min_us: u64,
    /// Longest delay in microseconds.
    pub delay_max_us: u64,
    /// How often a message is lost.
    pub loss: Ratio,
    /// How often a message arrives twice.
    pub duplicate: Ratio,
    /// How often, with a message, another one comes again that was sent at any time before.
    pub replay: Ratio,
}

impl Net {
    /// A calm network: a little delay, nothing lost.
    pub const CALM: Net = Net {
        delay_min_us: 20,
        delay_max_us: 60,
        loss: Ratio(0, 1),
        duplicate: Ratio(0, 1),
        replay: Ratio(0, 1),
    };
    /// A bad network: messages overtake each other, every tenth is lost, every tenth comes twice.
    pub const BAD: Net = Net {
        delay_min_us: 20,
        delay_max_us: 5_000,
        loss: Ratio(1, 10),
        duplicate: Ratio(1, 10),
        replay: Ratio(0, 1),
    };
}

/// When records count as durable, and what a restart finds of them (design §3.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// At once, and nothing survives.
    Memory,
    /// After a moment; survives the end of the process, not that of the machine.
    Async,
    /// After a flush of the disk; survives everything but the loss of the disk.
    Sync,
}

/// What travels with what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Travel {
    /// When COMMITs leave.
    pub commits: Commits,
    /// How the bodies of frames get to the replicas.
    pub bodies: Bodies,
    /// How an idle pillar fills its numbers: those of a run travel together.
    pub idle: Idle,
}

/// What goes on inside a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inside {
    /// Longest delay in microseconds of a message between its parts.
    pub delay_max_us: u64,
    /// Execution workers; fewer than two are none.
    pub workers: u16,
    /// Whether, in some lives of its replicas, several inputs come before a turn, or execution
    /// takes time.
    pub late: bool,
}

/// The shape of a world.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Replicas.
    pub n: u16,
    /// Faults to tolerate.
    pub f: u16,
    /// Pillars.
    pub pillars: u16,
    /// Clients, one session each.
    pub clients: u32,
    /// Operations that each client keeps outstanding.
    pub outstanding: u32,
    /// Operations that each client does in all.
    pub ops_per_client: u64,
    /// K.
    pub checkpoint_interval: u64,
    /// L.
    pub window: u64,
    /// The network between replicas, and between clients and replicas.
    pub net: Net,
    /// One operation per frame and one frame per batch.
    pub unbatched: bool,
    /// Who leads in a view.
    pub leaders: Leaders,
    /// What travels with what.
    pub travel: Travel,
    /// How replicas answer.
    pub answers: Answers,
    /// When promises may leave, and what a restart finds.
    pub durability: Durability,
    /// T: what a leader may take for what it owes.
    pub view_timeout: Span,
    /// What goes on inside a replica.
    pub inside: Inside,
    /// Time between two operations of a client in microseconds; 0 is as fast as it can.
    pub pace_us: u64,
    /// What the group does; chosen by the seed where it is not said.
    pub work: Option<Work>,
}

impl Options {
    /// Which replicas answer clients, and how.
    #[must_use]
    pub fn repliers(&self) -> Repliers {
        let quorums = Quorums::pbft(self.n, self.f).expect("n >= 3f + 1");
        Repliers::all(quorums)
            .with_digests(self.answers.digests.then_some(0))
            .with_relief(self.answers.relief)
    }

    /// What the group does.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work.unwrap_or(Work::of(self.seed))
    }

    /// Whether replicas may execute on several threads.
    #[must_use]
    pub fn parallel(&self) -> bool {
        self.inside.workers >= 2
    }

    /// Whether each client has everything ordered by one pillar, so that others are idle: of the
    /// worlds in which that makes a difference, every second one.
    #[must_use]
    pub fn keeps_to_one_line(&self) -> bool {
        self.travel.idle == Idle::Ahead && self.seed.is_multiple_of(2)
    }

    /// Whether the group answers reads without an order.
    #[must_use]
    pub fn reads(&self) -> bool {
        self.work() == Work::Reads
    }
}

impl Options {
    /// The same with a window of at least two intervals, and with checkpoints as far apart as
    /// rotating leaders need, where they rotate.
    #[must_use]
    pub fn fitted(self) -> Options {
        if self.leaders == Leaders::Fixed {
            return Options { window: self.window.max(2 * self.checkpoint_interval), ..self };
        }
        let least = u64::from(self.n) * u64::from(self.pillars);
        let checkpoint_interval = self.checkpoint_interval.max(least);
        let intervals = self.window.div_ceil(checkpoint_interval).max(4);
        Options { checkpoint_interval, window: intervals * checkpoint_interval, ..self }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 1,
            n: 4,
            f: 1,
            pillars: 1,
            clients: 2,
            outstanding: 4,
            ops_per_client: 100,
            checkpoint_interval: 8,
            window: 32,
            net: Net::CALM,
            unbatched: false,
            leaders: Leaders::Fixed,
            travel: Travel::default(),
            answers: Answers::default(),
            durability: Durability::Memory,
            view_timeout: Span::millis(200),
            inside: Inside { delay_max_us: 20, workers: 0, late: false },
            pace_us: 0,
            work: None,
        }
    }
}
