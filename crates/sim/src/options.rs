//! The shape of a simulated world and of its network.

use crate::prng::Ratio;

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
}

impl Net {
    /// A calm network: a little delay, nothing lost.
    pub const CALM: Net =
        Net { delay_min_us: 20, delay_max_us: 60, loss: Ratio(0, 1), duplicate: Ratio(0, 1) };
    /// A bad network: messages overtake each other, every tenth is lost, every tenth comes twice.
    pub const BAD: Net =
        Net { delay_min_us: 20, delay_max_us: 5_000, loss: Ratio(1, 10), duplicate: Ratio(1, 10) };
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
        }
    }
}
