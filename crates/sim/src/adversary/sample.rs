//! One message of every kind, made of what was heard: for those that nobody says in this run.

use std::sync::Arc;

use base::crypto::{ClientKeyring, PlainKeys};
use base::frame::READS;
use base::transfer::{Manifest, Part, StateAnswer, StateMessage, StateRequest};
use base::{
    AgreedTime, BatchEntry, ClientId, Digest, Frame, FrameBuilder, FrameId, Incarnation, ReplicaId,
    Reply, ReplyStatus, Seq, SessionId, Signature, StableCheckpoint, View,
};
use proto::group::evidence::Proof;
use proto::group::link::SliceEntry;
use proto::group::msg::{GroupMessage, NewView, Recover, ViewChange};
use proto::group::roster::Roster;
use proto::pbft::msg::{Checkpoint, Message, NullPhase, Nulls, Proposal, Vote};

use super::kind::Kind;
use super::sign::Signer;
use super::touch::{Pools, Sort};
use crate::host::GROUP;
use crate::prng::Prng;

/// What samples are made of.
struct Parts<'a> {
    me: ReplicaId,
    n: u16,
    view: View,
    seq: Seq,
    digest: Digest,
    incarnation: Incarnation,
    pools: &'a Pools,
    entry: BatchEntry,
    stable: StableCheckpoint,
}

const NONE: Signature = Signature([0; 64]);
/// A message of this kind; a reply is none between replicas.
pub(super) fn sample(
    kind: Kind,
    signer: &Signer<'_>,
    pools: &Pools,
    prng: &mut Prng,
) -> Option<Message> {
    let mut number = |sort, least: u64| pools.number(sort, prng).unwrap_or(0).max(least);
    let (view, seq) = (View(number(Sort::View, 1)), Seq(number(Sort::Seq, 8)));
    let incarnation = Incarnation(number(Sort::Incarnation, 1));
    let digest = pools.digests.pick(prng).unwrap_or(Digest([4; 32]));
    let name = FrameId { client: ClientId(0), session: SessionId(1), stream: 0, id: 1 };
    let entry = pools.entries.pick(prng).unwrap_or(BatchEntry { id: name, digest });
    let stable = pools.certificates.pick(prng).filter(|stable| stable.seq > Seq(0));
    let proof = Arc::new((0..3).map(|who| (ReplicaId(who), NONE)).collect());
    let stable = stable.unwrap_or(StableCheckpoint { seq: Seq(8), digest, proof });
    let (me, n) = (signer.me, signer.n());
    let parts = Parts { me, n, view, seq, digest, incarnation, pools, entry, stable };
    parts.message(kind, prng)
}

/// A reply.
pub(super) fn reply() -> Reply {
    let frame = FrameId { client: ClientId(0), session: SessionId(1), stream: 0, id: 1 };
    let status = ReplyStatus::Executed;
    Reply { frame, seq: Seq(1), status, count: 1, results: vec![1, 0, 0, 0, 7] }
}

impl Parts<'_> {
    fn message(&self, kind: Kind, prng: &mut Prng) -> Option<Message> {
        let Parts { view, seq, digest, entry, .. } = *self;
        let vote = Vote { view, seq, digest };
        let proposal = Proposal::Frames { time: AgreedTime(1), entries: vec![entry] };
        Some(match kind {
            Kind::PrePrepare => Message::PrePrepare { view, seq, proposal },
            Kind::Prepare => Message::Prepare(vote),
            Kind::Commit => Message::Commit(vote),
            Kind::Nulls => Message::Nulls(Nulls {
                phase: NullPhase::ALL[prng.below(3) as usize],
                view,
                first: seq,
                count: 3,
            }),
            Kind::Vouch => Message::Vouch { executed: seq, entries: vec![entry] },
            Kind::Fetch => Message::Fetch { seq, entries: vec![entry] },
            Kind::Body => Message::Body { vouched: true, frame: self.frame(prng) },
            Kind::Forward => Message::Forward(self.frame(prng)),
            Kind::Checkpoint => Message::Checkpoint(self.checkpoint()),
            Kind::Status => Message::Status { view, stable: seq, delivered: seq },
            Kind::Decided => Message::Decided { seq, proposal },
            Kind::FetchProposal => Message::FetchProposal { seq, digest },
            Kind::ProposalIs => Message::ProposalIs { seq, proposal },
            Kind::Endorse => Message::Endorse { view, entries: vec![(entry, Seq(0))] },
            Kind::Owed => Message::Owed { view, entries: vec![(entry, Seq(0))] },
            Kind::AskManifest
            | Kind::AskNodes
            | Kind::AskObjects
            | Kind::AskPiece
            | Kind::TellManifest
            | Kind::TellNodes
            | Kind::TellObject
            | Kind::TellGone => Message::State(Arc::new(self.state(kind)?)),
            Kind::Wish
            | Kind::ViewChange
            | Kind::NewView
            | Kind::Recover
            | Kind::RecoverAck
            | Kind::Seek
            | Kind::WantCheckpoint
            | Kind::HaveCheckpoint
            | Kind::HaveState
            | Kind::WrongCheckpoint
            | Kind::TwoViewChanges
            | Kind::BadViewChange
            | Kind::BadNewView => Message::Group(Arc::new(self.group(kind, prng)?)),
            Kind::Reply => return None,
        })
    }

    fn frame(&self, prng: &mut Prng) -> Arc<Frame> {
        self.pools.frames.pick(prng).unwrap_or_else(|| {
            let mut builder = FrameBuilder::new();
            builder.push(b"x");
            // What names it may be a lie already; no request can be built in a stream of reads.
            let FrameId { id, stream, .. } = self.entry.id;
            let id = FrameId { id: id.clamp(1, 1 << 60), stream: stream & !READS, ..self.entry.id };
            let keys = PlainKeys { me: self.me, n: self.n };
            Arc::new(builder.request(GROUP, id, 0, |digest| keys.authenticate(digest)))
        })
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { seq: self.seq, digest: self.digest, signature: NONE }
    }

    fn recover(&self) -> Recover {
        let Parts { me: replica, incarnation, view, .. } = *self;
        Recover { replica, incarnation, view, signature: NONE }
    }

    /// A VIEW-CHANGE of the faulty replica itself.
    fn change(&self, view: View) -> Arc<ViewChange> {
        let pair = (View(view.0.saturating_sub(1)), self.digest);
        let seq = Seq(self.stable.seq.0 + 1);
        let entry = SliceEntry { seq, prepared: Some(pair), pre_prepared: vec![pair] };
        Arc::new(ViewChange {
            replica: self.me,
            incarnation: self.incarnation,
            view,
            stable: self.stable.clone(),
            entries: vec![entry],
            roster: Roster::default(),
            signature: NONE,
        })
    }

    /// A NEW-VIEW for a view that the faulty replica leads.
    fn new_view(&self, prng: &mut Prng) -> Arc<NewView> {
        let n = u64::from(self.n);
        let view = View(self.view.0.min(1 << 40) / n * n + n + u64::from(self.me.0));
        let mut changes = vec![self.change(view)];
        changes.extend(self.pools.changes.pick(prng));
        changes.sort_by_key(|change| change.replica);
        Arc::new(NewView { view, changes, signature: NONE })
    }

    fn group(&self, kind: Kind, prng: &mut Prng) -> Option<GroupMessage> {
        let Parts { view, seq, digest, incarnation, .. } = *self;
        let stable = self.stable.clone();
        Some(match kind {
            Kind::Wish => GroupMessage::Wish { wish: view, installed: view, recovering: false },
            Kind::ViewChange => GroupMessage::ViewChange(self.change(view)),
            Kind::NewView => GroupMessage::NewView(self.new_view(prng)),
            Kind::Recover => GroupMessage::Recover(self.recover()),
            Kind::RecoverAck => GroupMessage::RecoverAck {
                incarnation,
                view,
                installed: view,
                stable,
                known: vec![self.recover()],
                recovering: false,
            },
            Kind::Seek => GroupMessage::Seek(seq),
            Kind::WantCheckpoint => {
                let want = Seq(seq.0.saturating_add(8));
                GroupMessage::WantCheckpoint { have: seq, want, stable }
            }
            Kind::HaveCheckpoint => GroupMessage::HaveCheckpoint(stable),
            Kind::HaveState => GroupMessage::HaveState { seq, digest, signature: NONE, stable },
            Kind::WrongCheckpoint => {
                let said = Checkpoint { seq: stable.seq, ..self.checkpoint() };
                let signer = self.me;
                evidence(Proof::WrongCheckpoint { signer, said, certified: stable })
            }
            Kind::TwoViewChanges => {
                evidence(Proof::TwoViewChanges(self.change(view), self.change(view)))
            }
            Kind::BadViewChange => evidence(Proof::BadViewChange(self.change(view))),
            Kind::BadNewView => evidence(Proof::BadNewView(self.new_view(prng))),
            _ => return None,
        })
    }

    fn state(&self, kind: Kind) -> Option<StateMessage> {
        let checkpoint = self.stable.seq;
        let ask = |request| StateMessage::Ask { checkpoint, request };
        let tell = |answer| StateMessage::Tell { checkpoint, answer };
        let (part, digest) = (Part::Service, self.digest);
        Some(match kind {
            Kind::AskManifest => ask(StateRequest::Manifest),
            Kind::AskNodes => ask(StateRequest::Nodes { part, level: 1, first: 0, count: 1 }),
            Kind::AskObjects => ask(StateRequest::Objects { part, objects: vec![0, 3] }),
            Kind::AskPiece => ask(StateRequest::Piece { part, object: 0, offset: 1 << 20 }),
            Kind::TellManifest => tell(StateAnswer::Manifest(Manifest {
                seq: checkpoint,
                service: digest,
                ..Manifest::default()
            })),
            Kind::TellNodes => {
                // No two alike, or turning the list around would change nothing.
                let digests = (0..16).map(|place| Digest([4 + place; 32])).collect();
                tell(StateAnswer::Nodes { part, level: 1, first: 0, digests })
            }
            Kind::TellObject => {
                let bytes = vec![7; 12];
                tell(StateAnswer::Object { part, object: 0, total: 12, offset: 0, bytes })
            }
            Kind::TellGone => tell(StateAnswer::Gone),
            _ => return None,
        })
    }
}

fn evidence(proof: Proof) -> GroupMessage {
    GroupMessage::Evidence(Arc::new(proof))
}
