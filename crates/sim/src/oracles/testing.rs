//! What the oracles' own tests are made of.

use std::sync::Arc;

use base::crypto::{ClientKeyring, PlainKeys};
use base::{
    AgreedTime, Batch, ClientId, Epoch, Frame, FrameBuilder, FrameId, PillarId, Quorums, ReplicaId,
    SessionId,
};
use proto::group::rules::Rules;
use proto::pbft::Roles;

use crate::host::{GROUP, lane_config};
use crate::options::Options;

/// The rules of a group of four.
pub(crate) fn rules() -> Rules {
    Rules {
        group: GROUP,
        epoch: Epoch(0),
        quorums: Quorums::pbft(4, 1).expect("3f + 1"),
        window: 32,
        checkpoint_interval: 8,
    }
}

/// Replica 0 leads view 0, and so on.
pub(crate) fn roles() -> Roles {
    let options = Options { n: 4, f: 1, ..Options::default() };
    Roles::new(&lane_config(&options, ReplicaId(0), PillarId(0)))
}

/// Frame `id` of stream 1 of a client.
pub(crate) fn frame(client: u32, id: u64, ops: &[&[u8]]) -> Arc<Frame> {
    let mut builder = FrameBuilder::new();
    ops.iter().for_each(|op| builder.push(op));
    let id = FrameId { client: ClientId(client), session: SessionId(1), stream: 1, id };
    let keys = PlainKeys { me: ReplicaId(0), n: 4 };
    Arc::new(builder.request(GROUP, id, 0, |digest| keys.authenticate(digest)))
}

/// A batch of these frames.
pub(crate) fn batch(frames: &[Arc<Frame>]) -> Arc<Batch> {
    Arc::new(Batch::Frames { time: AgreedTime(100), frames: frames.to_vec() })
}

/// The opening of a client's session.
pub(crate) fn open(client: u32) -> Arc<Frame> {
    let keys = PlainKeys { me: ReplicaId(0), n: 4 };
    let authenticate = |digest| keys.authenticate(digest);
    Arc::new(FrameBuilder::open(GROUP, ClientId(client), SessionId(1), authenticate))
}
