//! What the members of a group have agreed to do alike, apart from who they are.

use base::reply::DIGEST_WORTH_BYTES;
use base::{Quorums, Span, limits};

use crate::switches::{Choice, default_of};

/// How requests get their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Agreement {
    /// PBFT: 3f + 1 replicas of which f may be faulty.
    #[default]
    Pbft,
    /// None: one server that nobody replicates. For comparison only.
    None,
}

impl Agreement {
    /// Its name, as the configuration and the command line have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Agreement::Pbft => "pbft",
            Agreement::None => "none",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Agreement> {
        [Agreement::Pbft, Agreement::None].into_iter().find(|one| one.word() == word)
    }
}

/// Who leads in a view.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Leaders {
    /// One replica.
    #[default]
    Fixed,
    /// The replicas in turn, block by block of sequence numbers.
    Rotating,
}

impl Leaders {
    /// Its name, as the configuration and the command line have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Leaders::Fixed => "fixed",
            Leaders::Rotating => "rotating",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Leaders> {
        [Leaders::Fixed, Leaders::Rotating].into_iter().find(|one| one.word() == word)
    }
}

/// How replicas answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replies {
    /// All of them in full.
    #[default]
    Full,
    /// One in full, the others by the digest of a large answer.
    Digest,
}

impl Replies {
    /// Its name, as the configuration and the command line have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Replies::Full => "full",
            Replies::Digest => "digest",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Replies> {
        [Replies::Full, Replies::Digest].into_iter().find(|one| one.word() == word)
    }
}

/// Which replicas answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Repliers {
    /// All of them.
    #[default]
    All,
    /// A quorum; the others are relieved, in turn.
    Relieved,
}

impl Repliers {
    /// Its name, as the configuration and the command line have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Repliers::All => "all",
            Repliers::Relieved => "relieved",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Repliers> {
        [Repliers::All, Repliers::Relieved].into_iter().find(|one| one.word() == word)
    }
}

/// When COMMITs leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Commits {
    /// At once.
    #[default]
    Prompt,
    /// With the next proposal or vote for one, if one is to be expected.
    Piggybacked,
}

impl Commits {
    /// Its name, as the configuration and the command line have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Commits::Prompt => "prompt",
            Commits::Piggybacked => "piggybacked",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Commits> {
        [Commits::Prompt, Commits::Piggybacked].into_iter().find(|one| one.word() == word)
    }
}

/// How operations that only read are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reads {
    /// Like all others: by the order.
    #[default]
    Ordered,
    /// By each replica out of its own state; a quorum has to say the same, of all replies of the
    /// group.
    Unordered,
}

impl Reads {
    /// Its name, as the configuration and the command line have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Reads::Ordered => "ordered",
            Reads::Unordered => "unordered",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Reads> {
        [Reads::Ordered, Reads::Unordered].into_iter().find(|one| one.word() == word)
    }
}

/// How a pillar fills its numbers while no client wants anything of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// With a null batch each, once its siblings have moved past it.
    #[default]
    Fill,
    /// Ahead of its siblings, many at a time.
    Ahead,
}

impl Idle {
    /// Its name, as the configuration and the command line have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Idle::Fill => "fill",
            Idle::Ahead => "ahead",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Idle> {
        [Idle::Fill, Idle::Ahead].into_iter().find(|one| one.word() == word)
    }
}

/// How the bodies of frames get to the replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bodies {
    /// From the client to all of them; proposals name frames.
    #[default]
    Separate,
    /// Signed, from the client to the leader, whose proposal carries those that are small.
    Inline,
}

impl Bodies {
    /// Its name, as the configuration and the command line have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Bodies::Separate => "separate",
            Bodies::Inline => "inline",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Bodies> {
        [Bodies::Separate, Bodies::Inline].into_iter().find(|one| one.word() == word)
    }
}

/// Settings of the whole group. Part of the group's identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How requests get their order.
    pub agreement: Agreement,
    /// K: sequence numbers between two checkpoints, at least the number of pillars,
    /// at most [`CHECKPOINT_INTERVAL_MAX`].
    pub checkpoint_interval: u64,
    /// L: sequence numbers above the low mark that may be in agreement. A multiple of K, at
    /// least 2K, at most [`WINDOW_MAX`] and [`window_max`] of the group's size.
    pub window: u64,
    /// How far a fresh proposal's clock may be off a backup's, 1 ms to 1 h.
    pub clock_skew_max: Span,
    /// T: how long a new view may take to begin and to agree on something, at first; it doubles
    /// with each that fails. From [`VIEW_TIMEOUT_MS_MIN`] to [`VIEW_TIMEOUT_MS_MAX`].
    pub view_timeout: Span,
    /// Who leads in a view.
    pub leaders: Leaders,
    /// When COMMITs leave.
    pub commits: Commits,
    /// How the bodies of frames get to the replicas.
    pub bodies: Bodies,
    /// Whether what is prepared is executed and answered before it is committed.
    pub tentative: bool,
    /// How operations that only read are answered.
    pub reads: Reads,
    /// How replicas answer clients.
    pub replies: Replies,
    /// Which replicas answer clients.
    pub repliers: Repliers,
    /// How a pillar without clients fills its numbers.
    pub idle: Idle,
    /// How leaders make batches.
    pub batching: Batching,
    /// Into how many partitions the service's state falls, 1 to
    /// [`PARTITIONS_MAX`](limits::PARTITIONS_MAX): each is agreed on by itself.
    pub partitions: u16,
    /// Whether replicas obey orders to misbehave, for drills. Never in production.
    pub drills: bool,
}

/// How leaders make batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batching {
    /// Most frames in a batch, `1..=BATCH_FRAMES_MAX`.
    pub frames_max: usize,
    /// Most bytes of frames in a batch, 1 KiB to `BATCH_BYTES_MAX`; one frame always fits.
    pub bytes_max: usize,
    /// How long a batch that is not full may wait for more frames, 0 to 1 s.
    pub delay: Span,
    /// Instances that a pillar keeps in agreement before it lets frames gather, from 1 to the
    /// pillar's share of the window.
    pub in_flight_max: usize,
    /// One frame per batch, whatever the other limits say.
    pub unbatched: bool,
}

/// Largest checkpoint interval.
pub const CHECKPOINT_INTERVAL_MAX: u64 = 1 << 16;
/// Largest window.
pub const WINDOW_MAX: u64 = 1 << 18;
/// Largest clock skew, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 3_600_000;
/// Shortest view timeout, in milliseconds: below it, an ordinary pause of a machine would
/// replace leaders.
pub const VIEW_TIMEOUT_MS_MIN: u64 = 50;
/// Longest view timeout, in milliseconds.
pub const VIEW_TIMEOUT_MS_MAX: u64 = 60_000;
/// Longest delay of a batch, in microseconds.
pub const BATCH_DELAY_US_MAX: u64 = 1_000_000;
/// Smallest bound on the bytes of a batch.
pub const BATCH_BYTES_MIN: usize = 1 << 10;

/// Bytes that a VIEW-CHANGE takes for one number, at most: the number, P (view and digest), and
/// three Q entries (view and digest each), with their counts.
const PROMISE_BYTES_MAX: usize = 8 + 1 + 40 + 4 + 3 * 40;
/// Bytes of a VIEW-CHANGE beside its entries and its certificate, and what the packet adds: more
/// than enough.
const VIEW_CHANGE_BYTES: usize = 4096;
/// Bytes of one replica's signature in a certificate.
const SIGNATURE_BYTES: usize = 2 + 64;

/// The largest window of a group of `quorums`, in sequence numbers: a NEW-VIEW carries a
/// VIEW-CHANGE from up to every replica, each with what it promised about every number of the
/// window, and has to fit one packet between replicas.
#[must_use]
pub fn window_max(quorums: Quorums) -> u64 {
    let share = limits::REPLICA_PACKET_BYTES_MAX / usize::from(quorums.n());
    let certificate = usize::from(quorums.n()) * SIGNATURE_BYTES;
    let numbers = share.saturating_sub(VIEW_CHANGE_BYTES + certificate) / PROMISE_BYTES_MAX;
    (numbers as u64).min(WINDOW_MAX)
}

/// The window that goes with a checkpoint interval when nobody says otherwise: the multiple of it
/// that is closest to the default from below, four times as many at least, unless the group is
/// so large that only less fits.
#[must_use]
pub fn window_for(quorums: Quorums, checkpoint_interval: u64) -> u64 {
    let interval = checkpoint_interval.max(1);
    let wanted = (Settings::default().window / interval).max(4);
    let fitting = window_max(quorums) / interval;
    // Two at least: whether they fit is checked with everything else.
    interval.saturating_mul(wanted.min(fitting).max(2))
}

impl Settings {
    /// How a group of `quorums` with these settings answers its clients.
    #[must_use]
    pub fn answers(&self, quorums: Quorums) -> base::reply::Repliers {
        let digests = (self.replies == Replies::Digest).then_some(DIGEST_WORTH_BYTES);
        base::reply::Repliers::all(quorums)
            .with_digests(digests)
            .with_relief(self.repliers == Repliers::Relieved)
    }

    /// The switches of the group that do not have their defaults.
    #[must_use]
    pub fn switched(&self) -> Vec<Choice> {
        let chosen = self.chosen().into_iter();
        chosen.filter(|Choice(name, value)| default_of(name) != Some(*value)).collect()
    }

    /// Which value each switch of the group has.
    #[must_use]
    pub fn chosen(&self) -> Vec<Choice> {
        vec![
            Choice("agreement", self.agreement.word()),
            Choice("batching", on_off(!self.batching.unbatched)),
            Choice("leaders", self.leaders.word()),
            Choice("commits", self.commits.word()),
            Choice("bodies", self.bodies.word()),
            Choice("tentative", on_off(self.tentative)),
            Choice("reads", self.reads.word()),
            Choice("replies", self.replies.word()),
            Choice("repliers", self.repliers.word()),
            Choice("idle", self.idle.word()),
            Choice("partitions", if self.partitions > 1 { "several" } else { "one" }),
        ]
    }
}

/// The names of what is on or off.
pub(crate) fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

pub(crate) fn from_on_off(word: &str) -> Option<bool> {
    [false, true].into_iter().find(|on| on_off(*on) == word)
}

impl Batching {
    /// Most frames in a batch, once [`Batching::unbatched`] is taken into account.
    #[must_use]
    pub fn frames_limit(&self) -> usize {
        if self.unbatched { 1 } else { self.frames_max }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            agreement: Agreement::default(),
            checkpoint_interval: 128,
            window: 8192,
            clock_skew_max: Span::millis(5_000),
            view_timeout: Span::millis(1_000),
            leaders: Leaders::default(),
            commits: Commits::default(),
            bodies: Bodies::default(),
            tentative: false,
            reads: Reads::default(),
            replies: Replies::default(),
            repliers: Repliers::default(),
            idle: Idle::default(),
            batching: Batching::default(),
            partitions: 1,
            drills: false,
        }
    }
}

impl Default for Batching {
    fn default() -> Batching {
        // A batch waits for nothing by default: frames gather by themselves while the
        // instances before it are in flight, so its size follows the load.
        Batching {
            frames_max: 256,
            bytes_max: 1 << 20,
            delay: Span(0),
            in_flight_max: 8,
            unbatched: false,
        }
    }
}

const _: () = assert!(BATCH_BYTES_MIN <= limits::BATCH_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_window_fits_the_groups_that_people_have() {
        let of = |f: u16| window_max(Quorums::pbft(3 * f + 1, f).expect("legal"));
        let default = Settings::default().window;
        assert!((0..=7).all(|f| of(f) >= default), "up to 22 replicas");
        assert!((1..=21).all(|f| of(f) <= of(f - 1)), "more replicas leave less room");
        let window = window_for(Quorums::pbft(64, 21).expect("legal"), 128);
        assert!(window.is_multiple_of(128) && window < default && window <= of(21));
        assert!(of(21) >= 2 * Settings::default().checkpoint_interval, "64 replicas work");
    }

    /// The arithmetic, once more and the other way round.
    #[test]
    fn the_largest_new_view_fits_a_packet() {
        for f in 0..=21 {
            let quorums = Quorums::pbft(3 * f + 1, f).expect("legal");
            let entries = usize::try_from(window_max(quorums)).expect("small") * PROMISE_BYTES_MAX;
            let proof = usize::from(quorums.n()) * (2 + 64);
            let bytes = usize::from(quorums.n()) * (entries + proof + VIEW_CHANGE_BYTES);
            assert!(bytes <= limits::REPLICA_PACKET_BYTES_MAX, "f = {f}: {bytes}");
        }
    }
}
