//! How a client is set up.

use std::time::Duration;

use auth::Secret;
use base::{ClientId, Routing, Span, limits};
use genesis::Group;
use proto::client::ClientConfig;

use crate::error::ConnectError;

/// How a client is set up. [`ClientOptions::new`] gives the defaults; every field may be changed.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The group.
    pub group: Group,
    /// Which of its principals this client is.
    pub id: ClientId,
    /// That principal's secret.
    pub secret: Secret,
    /// One operation per frame instead of as many as are there. Off.
    pub unbatched: bool,
    /// Frames in flight in a pillar up to which a frame leaves however small it is,
    /// `1..=STREAM_WINDOW`. 4; the whole window when unbatched.
    pub frames_in_flight: Option<u64>,
    /// Most operations in a frame, `1..=FRAME_OPS_MAX`. 1024.
    pub frame_ops: usize,
    /// Protocol streams, `1..=STREAMS_PER_SESSION_MAX`. One per pillar when not given. Streams
    /// of callers are shared out over them.
    pub lines: Option<u16>,
    /// How long [`crate::Client::connect`] tries. 10 s.
    pub connect_timeout: Duration,
    /// How long an operation may take. 30 s.
    pub request_timeout: Duration,
    /// After how long a frame without a reply is sent again; doubles each time. 1 s.
    pub retransmit: Duration,
    /// Most operations that are queued or in flight, in each partition of the group. 2^20.
    pub queued_ops_max: usize,
    /// Most bytes of operations that are queued or in flight, in each partition of the group.
    /// 256 MiB.
    pub queued_bytes_max: usize,
    /// How operations find their partition, as the group's service has it. Needed for a group of
    /// several, and without meaning for others. None.
    pub routing: Option<Routing>,
}

impl ClientOptions {
    /// The defaults, for principal `id` of `group`.
    #[must_use]
    pub fn new(group: Group, id: ClientId, secret: Secret) -> ClientOptions {
        ClientOptions {
            group,
            id,
            secret,
            unbatched: false,
            frames_in_flight: None,
            frame_ops: 1024,
            lines: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retransmit: Duration::from_secs(1),
            queued_ops_max: 1 << 20,
            queued_bytes_max: 256 << 20,
            routing: None,
        }
    }

    /// The core's configuration, after all fields were checked.
    pub(crate) fn core(&self) -> Result<ClientConfig, ConnectError> {
        let (quorums, stripe) = (self.group.quorums(), self.group.stripe());
        let mut config = ClientConfig::new(self.group.id(), quorums, stripe, self.id);
        if self.group.settings().reads == genesis::Reads::Unordered {
            config = config.with_reads();
        }
        config.inline = self.group.settings().bodies == genesis::Bodies::Inline;
        config.repliers = self.group.settings().answers(quorums);
        if self.unbatched {
            config = config.unbatched();
        }
        if let Some(frames) = self.frames_in_flight {
            ranged("frames_in_flight", frames, 1, limits::STREAM_WINDOW)?;
            config.frames_in_flight_max = frames;
        }
        if let Some(lines) = self.lines {
            let max = limits::STREAMS_PER_SESSION_MAX as u64;
            ranged("lines", u64::from(lines), 1, max)?;
            config.lines = lines;
        }
        ranged("frame_ops", self.frame_ops as u64, 1, limits::FRAME_OPS_MAX as u64)?;
        config.frame_ops_max = self.frame_ops;
        ranged("queued_ops_max", self.queued_ops_max as u64, 1, u64::MAX)?;
        // The inbox bounds what is held, before it comes to the core.
        (config.held_ops_max, config.held_bytes_max) = (usize::MAX, usize::MAX);
        config.request_timeout = span("request_timeout", self.request_timeout)?;
        config.retransmit = span("retransmit", self.retransmit)?;
        config.retransmit_max = config.retransmit_max.max(config.retransmit);
        Ok(config)
    }
}

fn ranged(what: &str, value: u64, min: u64, max: u64) -> Result<(), ConnectError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConnectError::Option(format!("{what} is {value}; it must be {min} to {max}")))
}

fn span(what: &str, duration: Duration) -> Result<Span, ConnectError> {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return Err(ConnectError::Option(format!("{what} is 0; it must be positive")));
    }
    Ok(Span(nanos))
}
