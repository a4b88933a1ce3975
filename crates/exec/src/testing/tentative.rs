//! Whether what was executed tentatively can be taken back: on a whole stage, with any service.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{
    AgreedTime, Authenticator, Batch, ClientId, Digest, Frame, FrameBuilder, FrameId, FromStage,
    GroupId, Seq, SessionId, Signature, Stripe, ToStage, View,
};

use crate::service::Service;
use crate::stage::{Stage, StageConfig, StageOutbox, Target};

const GROUP: GroupId = GroupId([3; 32]);
/// Batches between two checkpoints.
const INTERVAL: u64 = 4;

fn signed(_: Digest) -> Authenticator {
    Authenticator::Signature(Signature([0; 64]))
}

/// The batch that opens a session for each of the first `clients` principals: number 1 of what
/// [`check_taken_back`] takes.
#[must_use]
pub fn opening(time: AgreedTime, clients: u32) -> Arc<Batch> {
    let open = |client| Arc::new(FrameBuilder::open(GROUP, client, SessionId(1), signed));
    Arc::new(Batch::Frames { time, frames: (0..clients).map(ClientId).map(open).collect() })
}

/// A batch for number `seq`, from 2 on: a frame of each of the principals, next in its stream,
/// the operations dealt out among them. Who gets none asks for nothing, in an empty operation.
#[must_use]
pub fn batch(seq: u64, time: AgreedTime, clients: u32, ops: &[Vec<u8>]) -> Arc<Batch> {
    let frame = |client: u32| -> Arc<Frame> {
        let mut builder = FrameBuilder::new();
        ops.iter().skip(client as usize).step_by(clients as usize).for_each(|op| builder.push(op));
        if builder.op_count() == 0 {
            builder.push(&[]);
        }
        let (client, session, id) = (ClientId(client), SessionId(1), seq - 1);
        let name = FrameId { client, session, stream: 0, id };
        Arc::new(builder.request(GROUP, name, id.saturating_sub(2), signed))
    };
    Arc::new(Batch::Frames { time, frames: (0..clients).map(frame).collect() })
}

/// Executes `log` on a stage that first executes, for each number, the batch in `others`
/// tentatively, and holds what it says and the digest of its state against a stage that executes
/// `log` alone. Every third batch of `log` is executed tentatively itself before it is committed.
/// Returns how many batches were taken back.
///
/// # Panics
/// When they differ, or the service refuses what it gave.
pub fn check_taken_back(
    make: &dyn Fn() -> Box<dyn Service>,
    log: &[Arc<Batch>],
    others: &[Arc<Batch>],
) -> u64 {
    let (mut plain, mut stage) = (Stage::new(config(), make()), Stage::new(config(), make()));
    for ((seq, batch), other) in (1..).map(Seq).zip(log).zip(others) {
        let said = deliver(&mut plain, seq, batch);
        let before = stage.progress();
        let early = prepare(&mut stage, (seq, View(0)), other);
        assert_eq!(stage.progress(), before, "progress tells of what is tentative");
        let only_replies = |(_, message): &(Target, FromStage)| {
            matches!(message, FromStage::Reply { tentative: Some(View(0)), .. })
        };
        assert!(early.iter().all(only_replies), "said before the commit: {early:?}");
        let taken_back = stage.tentative_report().rolled_back;
        let mut told = Vec::new();
        if seq.0.is_multiple_of(3) {
            told.extend(prepare(&mut stage, (seq, View(1)), batch));
        }
        told.extend(deliver(&mut stage, seq, batch));
        if stage.tentative_report().rolled_back == taken_back {
            // The other batch is the same: it is answered already.
            told.splice(0..0, early);
        }
        let (replies, rest) = split(told);
        assert_eq!((replies, rest), split(said), "at {seq:?}");
        let (expected, found) = (plain.report(), stage.report());
        assert_eq!((expected.ops, expected.decisions), (found.ops, found.decisions), "{seq:?}");
        if seq.0.is_multiple_of(5) {
            assert_eq!(plain.state_digest(), stage.state_digest(), "after {seq:?}");
        }
        stage.check();
    }
    assert_eq!(plain.state_digest(), stage.state_digest(), "in the end");
    stage.check_state();
    stage.tentative_report().rolled_back
}

fn config() -> StageConfig {
    let stripe = Stripe::new(1).expect("in range");
    StageConfig {
        group: GROUP,
        stripe,
        checkpoint_interval: INTERVAL,
        window: 64,
        nulls_ahead: false,
        replicas: 4,
    }
}

fn deliver(stage: &mut Stage, seq: Seq, batch: &Arc<Batch>) -> Vec<(Target, FromStage)> {
    tell(stage, ToStage::Deliver { seq, batch: Arc::clone(batch) })
}

fn prepare(
    stage: &mut Stage,
    (seq, view): (Seq, View),
    batch: &Arc<Batch>,
) -> Vec<(Target, FromStage)> {
    tell(stage, ToStage::Tentative { seq, view, batch: Arc::clone(batch) })
}

fn tell(stage: &mut Stage, message: ToStage) -> Vec<(Target, FromStage)> {
    let mut out = StageOutbox::new();
    stage.on(message, &mut out).expect("in the window");
    while stage.run(7, &mut out).more() {}
    out.messages
}

/// The contents of replies, whenever they are said, and everything else.
type Said = (Vec<(Target, FrameId, Arc<Vec<u8>>)>, Vec<(Target, FromStage)>);

fn split(messages: Vec<(Target, FromStage)>) -> Said {
    let (mut replies, mut rest) = (Vec::new(), Vec::new());
    for (target, message) in messages {
        match message {
            FromStage::Reply { frame, content, .. } => replies.push((target, frame, content)),
            message => rest.push((target, message)),
        }
    }
    (replies, rest)
}
