//! What a client core is told once.

use base::reply::Repliers;
use base::{ClientId, GroupId, PillarId, Quorums, Span, Stripe, limits};

/// When a reply is accepted (design §3.14); certificates get their own variant (§3.12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acceptance {
    /// Once so many replicas gave the same reply.
    Vote {
        /// How many of those whose batch is committed, in `1..=n`.
        matching: usize,
        /// How many if tentative ones of one view are among them, from `matching` to n.
        tentative: usize,
    },
}

impl Acceptance {
    /// A weak quorum, f + 1, or a quorum where some replies are tentative.
    #[must_use]
    pub fn weak(quorums: Quorums) -> Acceptance {
        Acceptance::Vote { matching: quorums.weak(), tentative: quorums.quorum() }
    }

    /// A quorum, 2f + 1, whatever the reply: where reads are answered without an order, any other
    /// reply must be one that they cannot miss (design, trap 8).
    #[must_use]
    pub fn quorum(quorums: Quorums) -> Acceptance {
        Acceptance::Vote { matching: quorums.quorum(), tentative: quorums.quorum() }
    }

    /// The same with a vote less, for a mutant.
    pub(super) fn short(self, by: usize) -> Acceptance {
        let Acceptance::Vote { matching, tentative } = self;
        Acceptance::Vote { matching: matching - by, tentative: tentative - by }
    }
}

/// The configuration of a [`super::ClientCore`].
#[derive(Clone, Copy, Debug)]
pub struct ClientConfig {
    /// The group.
    pub group: GroupId,
    /// Its quorums.
    pub quorums: Quorums,
    /// Its pillars.
    pub stripe: Stripe,
    /// The principal.
    pub client: ClientId,
    /// When a reply is accepted.
    pub acceptance: Acceptance,
    /// Which replicas answer, and how.
    pub repliers: Repliers,
    /// Number of protocol streams, `1..=STREAMS_PER_SESSION_MAX`. Stream s of the caller goes
    /// into line s mod this, line l to the l-th pillar from principal mod P on: or clients with a
    /// line or two would all meet at the first.
    pub lines: u16,
    /// Small frames are shown to the leader alone, whose proposal carries them. They are signed.
    pub inline: bool,
    /// One operation per frame, instead of as many as are there.
    pub unbatched: bool,
    /// Frames in flight in a line up to which a frame leaves however small it is,
    /// `1..=STREAM_WINDOW`.
    pub frames_in_flight_max: u64,
    /// Most operations that are put into one frame, `1..=FRAME_OPS_MAX`.
    pub frame_ops_max: usize,
    /// Bytes above which no operation is added to a frame. A larger operation goes alone.
    pub frame_bytes_max: usize,
    /// Most operations that are queued or in flight.
    pub held_ops_max: usize,
    /// Most bytes of operations that are queued or in flight.
    pub held_bytes_max: usize,
    /// After how long a frame is sent again for the first time; doubles each time.
    pub retransmit: Span,
    /// The longest time between two sendings of a frame.
    pub retransmit_max: Span,
    /// How long an operation may take.
    pub request_timeout: Span,
    /// Whether the group answers reads without an order. Every reply of such a group is accepted
    /// from a quorum only ([`Acceptance::quorum`]).
    pub reads: bool,
    /// How long such an answer may take; then the read is ordered.
    pub read_timeout: Span,
}

impl ClientConfig {
    /// The defaults: batched, one line per pillar, replies accepted at f + 1.
    #[must_use]
    pub fn new(group: GroupId, quorums: Quorums, stripe: Stripe, client: ClientId) -> ClientConfig {
        ClientConfig {
            group,
            quorums,
            stripe,
            client,
            acceptance: Acceptance::weak(quorums),
            repliers: Repliers::all(quorums),
            lines: stripe.pillars(),
            inline: false,
            unbatched: false,
            frames_in_flight_max: 4,
            frame_ops_max: 1024,
            frame_bytes_max: 1 << 20,
            held_ops_max: 1 << 20,
            held_bytes_max: 256 << 20,
            retransmit: Span::secs(1),
            retransmit_max: Span::secs(16),
            request_timeout: Span::secs(30),
            reads: false,
            read_timeout: Span::millis(250),
        }
    }

    /// The pillar that orders a line.
    pub(super) fn pillar_of(&self, line: u16) -> PillarId {
        let pillars = self.stripe.pillars();
        let first = self.client.0 % u32::from(pillars);
        let first = u16::try_from(first).expect("below the number of pillars");
        PillarId((first + line % pillars) % pillars)
    }

    /// Of a group that answers reads without an order.
    #[must_use]
    pub fn with_reads(mut self) -> ClientConfig {
        self.reads = true;
        self.acceptance = Acceptance::quorum(self.quorums);
        if base::mutant!(WritesOfFewWithReads) {
            self.acceptance = Acceptance::weak(self.quorums);
        }
        self
    }

    /// One operation per frame, as many frames in flight as the window allows.
    #[must_use]
    pub fn unbatched(mut self) -> ClientConfig {
        self.unbatched = true;
        self.frames_in_flight_max = limits::STREAM_WINDOW;
        self
    }

    /// Checks the ranges.
    ///
    /// # Panics
    /// When a field is out of its range.
    pub fn check(&self) {
        let Acceptance::Vote { matching, tentative } = self.acceptance;
        let n = usize::from(self.quorums.n());
        assert!((1..=n).contains(&matching), "acceptance needs 1..=n equal replies");
        assert!((matching..=n).contains(&tentative), "tentative replies need no fewer");
        let lines = usize::from(self.lines);
        assert!((1..=limits::STREAMS_PER_SESSION_MAX).contains(&lines), "lines out of range");
        let window = 1..=limits::STREAM_WINDOW;
        assert!(window.contains(&self.frames_in_flight_max), "frames in flight out of range");
        assert!((1..=limits::FRAME_OPS_MAX).contains(&self.frame_ops_max), "ops out of range");
        assert!(self.retransmit.0 > 0 && self.retransmit <= self.retransmit_max, "no timer");
    }
}
