//! Valid values of everything that travels: what inputs begin as.

use std::sync::Arc;

use base::crypto::{ClientKeyring as _, PlainKeys};
use base::transfer::{Manifest, Part, StateAnswer, StateMessage, StateRequest};
use base::{
    AgreedTime, Batch, BatchEntry, ClientId, Digest, Epoch, Frame, FrameBuilder, FrameId, GroupId,
    Incarnation, Keyring as _, Quorums, ReplicaId, Seq, SessionId, Signature, StableCheckpoint,
    View,
};
use proto::Record;
use proto::group::evidence::Proof;
use proto::group::link::SliceEntry;
use proto::group::msg::{GroupMessage, NewView, Recover, ViewChange};
use proto::group::record::GroupRecord;
use proto::group::roster::Roster;
use proto::group::rules::Rules;
use proto::pbft::msg::{Checkpoint, Message, NullPhase, Nulls, Proposal, Vote};

/// The group of all samples.
pub const GROUP: GroupId = GroupId([7; 32]);
/// Its replicas.
pub const N: u16 = 4;
/// K of the samples.
pub const CHECKPOINT_INTERVAL: u64 = 8;
/// L of the samples.
pub const WINDOW: u64 = 32;

/// The rules by which what is signed is judged.
#[must_use]
pub fn rules() -> Rules {
    Rules {
        group: GROUP,
        epoch: Epoch(0),
        quorums: Quorums::pbft(N, 1).expect("a legal group"),
        window: WINDOW,
        checkpoint_interval: CHECKPOINT_INTERVAL,
    }
}

/// The keys of a replica.
#[must_use]
pub fn keys(me: u16) -> PlainKeys {
    PlainKeys { me: ReplicaId(me), n: N }
}

/// A frame of principal 1 with these operations.
#[must_use]
pub fn frame(id: u64, ops: &[&[u8]]) -> Frame {
    let mut builder = FrameBuilder::new();
    ops.iter().for_each(|op| builder.push(op));
    let id = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id };
    builder.request(GROUP, id, id.id - 1, |digest| keys(0).authenticate(digest))
}

/// Frames of all kinds.
#[must_use]
pub fn frames() -> Vec<Frame> {
    let (client, session) = (ClientId(1), SessionId(1));
    let signed = |_| base::Authenticator::Signature(Signature([9; 64]));
    vec![
        FrameBuilder::open(GROUP, client, session, |digest| keys(0).authenticate(digest)),
        frame(1, &[b"op"]),
        frame(2, &[b"", b"two", &[5; 100]]),
        frame(3, &[&b"x"[..]; 50]),
        FrameBuilder::close(GROUP, client, session, signed),
    ]
}

/// The names of the first request frames.
#[must_use]
pub fn entries() -> Vec<BatchEntry> {
    frames()[1..4].iter().map(|f| BatchEntry { id: f.id(), digest: f.digest() }).collect()
}

/// A proposal that names them, and its bodies.
#[must_use]
pub fn proposal() -> (Proposal, Arc<Batch>) {
    let time = AgreedTime(1_000);
    let frames = frames()[1..4].iter().cloned().map(Arc::new).collect();
    (Proposal::Frames { time, entries: entries() }, Arc::new(Batch::Frames { time, frames }))
}

/// A signed CHECKPOINT.
#[must_use]
pub fn checkpoint(signer: u16, seq: u64) -> Checkpoint {
    let (seq, digest) = (Seq(seq), Digest([5; 32]));
    let signed = Checkpoint::signed_bytes(GROUP, Epoch(0), seq, digest);
    Checkpoint { seq, digest, signature: keys(signer).sign(&signed) }
}

/// A certificate of replicas 0 to 2.
#[must_use]
pub fn stable(seq: u64) -> StableCheckpoint {
    let proof = (0..3).map(|r| (ReplicaId(r), checkpoint(r, seq).signature)).collect();
    StableCheckpoint { seq: Seq(seq), digest: Digest([5; 32]), proof: Arc::new(proof) }
}

/// A signed VIEW-CHANGE.
#[must_use]
pub fn change(replica: u16, view: u64, stable: StableCheckpoint) -> ViewChange {
    let (first, second) = (Digest([10; 32]), Digest([20; 32]));
    let from = stable.seq.0;
    let entries = vec![
        SliceEntry {
            seq: Seq(from + 1),
            prepared: Some((View(0), first)),
            pre_prepared: vec![(View(0), first), (View(0), second)],
        },
        SliceEntry { seq: Seq(from + 3), prepared: None, pre_prepared: vec![(View(0), second)] },
    ];
    let (replica, incarnation) = (ReplicaId(replica), Incarnation(1));
    let signature = Signature([0; 64]);
    let (view, roster) = (View(view), Roster::default());
    let change = ViewChange { replica, incarnation, view, stable, entries, roster, signature };
    sign_change(change)
}

/// `change` with the signature that belongs to it.
#[must_use]
pub fn sign_change(mut change: ViewChange) -> ViewChange {
    let signed = rules().change_signed(rules().change_digest(&change));
    change.signature = keys(change.replica.0).sign(&signed);
    change
}

/// A signed NEW-VIEW over VIEW-CHANGEs of replicas 0 to 2.
#[must_use]
pub fn new_view(view: u64) -> NewView {
    let changes = (0..3).map(|r| Arc::new(change(r, view, stable(8)))).collect();
    sign_new_view(NewView { view: View(view), changes, signature: Signature([0; 64]) })
}

/// `nv` with the signature of its leader.
#[must_use]
pub fn sign_new_view(mut nv: NewView) -> NewView {
    let named: Vec<(Digest, Signature)> =
        nv.changes.iter().map(|c| (rules().change_digest(c), c.signature)).collect();
    let leader = nv.view.leader(N);
    nv.signature = keys(leader.0).sign(&rules().new_view_signed(nv.view, &named));
    nv
}

/// A signed RECOVER.
#[must_use]
pub fn recover(replica: u16) -> Recover {
    let (replica, incarnation, view) = (ReplicaId(replica), Incarnation(5), View(1));
    let signature = keys(replica.0).sign(&rules().recover_signed(replica, incarnation, view));
    Recover { replica, incarnation, view, signature }
}

/// Proofs of all kinds.
#[must_use]
pub fn proofs() -> Vec<Proof> {
    let one = Arc::new(change(3, 1, stable(8)));
    let other = Arc::new(change(3, 1, stable(16)));
    let wrong = Checkpoint { digest: Digest([6; 32]), ..checkpoint(3, 8) };
    vec![
        Proof::WrongCheckpoint { signer: ReplicaId(3), said: wrong, certified: stable(8) },
        Proof::TwoViewChanges(one.clone(), other),
        Proof::BadViewChange(one),
        Proof::BadNewView(Arc::new(new_view(3))),
    ]
}

/// Messages between coordinators, of all kinds.
#[must_use]
pub fn group_messages() -> Vec<GroupMessage> {
    let Checkpoint { seq, digest, signature } = checkpoint(1, 17);
    let mut all = vec![
        GroupMessage::Wish { wish: View(1), installed: View(0), recovering: false },
        GroupMessage::ViewChange(Arc::new(change(2, 1, stable(8)))),
        GroupMessage::NewView(Arc::new(new_view(1))),
        GroupMessage::Recover(recover(2)),
        GroupMessage::RecoverAck {
            incarnation: Incarnation(4),
            view: View(0),
            installed: View(0),
            stable: stable(8),
            known: vec![recover(2), recover(3)],
            recovering: false,
        },
        GroupMessage::Seek(Seq(9)),
        GroupMessage::WantCheckpoint { have: Seq(3), want: Seq(24), stable: stable(16) },
        GroupMessage::HaveCheckpoint(stable(16)),
        GroupMessage::HaveState { seq, digest, signature, stable: stable(16) },
    ];
    all.extend(proofs().into_iter().map(|proof| GroupMessage::Evidence(Arc::new(proof))));
    all
}

/// Messages between stages, of all kinds.
#[must_use]
pub fn state_messages() -> Vec<StateMessage> {
    let part = Part::Service;
    let manifest = Manifest {
        seq: Seq(8),
        pillars: 2,
        time: AgreedTime(7),
        service: Digest([1; 32]),
        sessions: Digest([2; 32]),
    };
    let asks = vec![
        StateRequest::Manifest,
        StateRequest::Nodes { part, level: 1, first: 0, count: 4 },
        StateRequest::Objects { part: Part::Sessions, objects: vec![1, 5, 900] },
        StateRequest::Piece { part, object: 3, offset: 1 << 20 },
    ];
    let tells = vec![
        StateAnswer::Manifest(manifest),
        StateAnswer::Nodes { part, level: 2, first: 0, digests: vec![Digest([3; 32]); 17] },
        StateAnswer::Object { part, object: 8, total: 20, offset: 4, bytes: vec![9; 16] },
        StateAnswer::Gone,
    ];
    let checkpoint = Seq(8);
    let asks = asks.into_iter().map(|request| StateMessage::Ask { checkpoint, request });
    asks.chain(tells.into_iter().map(|answer| StateMessage::Tell { checkpoint, answer })).collect()
}

/// Messages between replicas, of all kinds.
#[must_use]
pub fn messages() -> Vec<Message> {
    let (view, seq) = (View(0), Seq(1));
    let (proposal, _) = proposal();
    let digest = proposal.digest(GROUP, seq);
    let vote = Vote { view, seq, digest };
    let entry = entries()[0];
    let mut all = vec![
        Message::PrePrepare { view, seq, proposal: proposal.clone() },
        Message::PrePrepare { view, seq: Seq(2), proposal: Proposal::Null },
        Message::Prepare(vote),
        Message::Commit(vote),
        Message::Nulls(Nulls { phase: NullPhase::PrePrepare, view, first: Seq(3), count: 5 }),
        Message::Nulls(Nulls { phase: NullPhase::Commit, view, first: Seq(3), count: 5 }),
        Message::Vouch { executed: Seq(7), entries: entries() },
        Message::Fetch { seq, entries: entries() },
        Message::Body { vouched: true, frame: Arc::new(frame(1, &[b"op"])) },
        Message::Forward(Arc::new(frame(1, &[b"op"]))),
        Message::Checkpoint(checkpoint(3, 8)),
        Message::Status { view, stable: Seq(0), delivered: Seq(3) },
        Message::Decided { seq, proposal: proposal.clone() },
        Message::FetchProposal { seq, digest },
        Message::ProposalIs { seq, proposal },
        Message::Endorse { view, entries: vec![(entry, Seq(7))] },
        Message::Owed { view, entries: vec![(entry, Seq(7))] },
    ];
    all.extend(group_messages().into_iter().map(|m| Message::Group(Arc::new(m))));
    all.extend(state_messages().into_iter().map(|m| Message::State(Arc::new(m))));
    all
}

/// Records of the log, of all kinds.
#[must_use]
pub fn records() -> Vec<Record> {
    let (proposal, batch) = proposal();
    let (view, seq) = (View(2), Seq(9));
    let digest = proposal.digest(GROUP, seq);
    let mut all = vec![
        Record::PrePrepared { view, seq, proposal: proposal.clone(), batch: batch.clone() },
        Record::Prepared { view, seq, digest },
        Record::Committed { seq, digest, batch: None },
        Record::Committed { seq, digest, batch: Some((proposal, batch)) },
    ];
    all.extend(
        [
            GroupRecord::Left { view },
            GroupRecord::Installed(Arc::new(new_view(1))),
            GroupRecord::Recover(recover(2)),
            GroupRecord::Stable(stable(8)),
            GroupRecord::Recovered { stable: stable(8) },
            GroupRecord::Proof(Arc::new(proofs().remove(0))),
        ]
        .map(Record::Group),
    );
    all
}
