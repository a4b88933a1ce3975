//! Authenticating again what was changed, with the faulty replica's own key and no other.

use std::sync::Arc;

use base::crypto::PlainKeys;
use base::{Epoch, Keyring, Quorums, ReplicaId, Signature, StableCheckpoint};
use proto::group::evidence::Proof;
use proto::group::msg::{GroupMessage, NewView, Recover, ViewChange};
use proto::group::rules::Rules;
use proto::pbft::msg::{Checkpoint, Message};

use super::frames::authenticated;
use crate::host::GROUP;

/// A faulty replica that signs.
pub(super) struct Signer<'a> {
    rules: std::borrow::Cow<'a, Rules>,
    pub(super) me: ReplicaId,
}

impl Signer<'_> {
    pub(super) fn new(rules: &Rules, me: ReplicaId) -> Signer<'_> {
        Signer { rules: std::borrow::Cow::Borrowed(rules), me }
    }

    /// Replica 0 of a group of four, for samples.
    pub(super) fn nobody() -> Signer<'static> {
        let rules = Rules {
            group: GROUP,
            epoch: Epoch(0),
            quorums: Quorums::pbft(4, 1).expect("n = 3f + 1"),
            window: 32,
            checkpoint_interval: 8,
        };
        Signer { rules: std::borrow::Cow::Owned(rules), me: ReplicaId(0) }
    }

    pub(super) fn n(&self) -> u16 {
        self.rules.quorums.n()
    }

    fn key(&self, message: &[u8]) -> Signature {
        PlainKeys { me: self.me, n: self.n() }.sign(message)
    }

    /// Signs again whatever in `message` is this replica's to sign.
    pub(super) fn sign(&self, message: &mut Message) {
        match message {
            Message::Checkpoint(checkpoint) => self.checkpoint(checkpoint),
            Message::Body { vouched: _, frame } | Message::Forward(frame) => {
                if let Some(right) = authenticated(frame, self.me, self.n()) {
                    *frame = Arc::new(right);
                }
            }
            Message::Group(message) => self.group(Arc::make_mut(message)),
            Message::PrePrepare { .. }
            | Message::Prepare(_)
            | Message::Commit(_)
            | Message::Nulls(_)
            | Message::Vouch { .. }
            | Message::Endorse { .. }
            | Message::Owed { .. }
            | Message::Fetch { .. }
            | Message::Status { .. }
            | Message::Decided { .. }
            | Message::FetchProposal { .. }
            | Message::ProposalIs { .. }
            | Message::State(_) => {}
        }
    }

    fn checkpoint(&self, checkpoint: &mut Checkpoint) {
        let Checkpoint { seq, digest, signature } = checkpoint;
        *signature = self.key(&Checkpoint::signed_bytes(GROUP, self.rules.epoch, *seq, *digest));
    }

    fn stable(&self, stable: &mut StableCheckpoint) {
        let StableCheckpoint { seq, digest, proof } = stable;
        let bytes = Checkpoint::signed_bytes(GROUP, self.rules.epoch, *seq, *digest);
        if proof.iter().any(|(who, _)| *who == self.me) {
            let mine = Arc::make_mut(proof).iter_mut().filter(|(who, _)| *who == self.me);
            mine.for_each(|(_, signature)| *signature = self.key(&bytes));
        }
    }

    fn group(&self, message: &mut GroupMessage) {
        match message {
            GroupMessage::ViewChange(change) => self.change(change),
            GroupMessage::NewView(new_view) => self.new_view(new_view),
            GroupMessage::Recover(recover) => self.recover(recover),
            GroupMessage::RecoverAck { stable, known, .. } => {
                self.stable(stable);
                known.iter_mut().for_each(|recover| self.recover(recover));
            }
            GroupMessage::HaveCheckpoint(stable) | GroupMessage::WantCheckpoint { stable, .. } => {
                self.stable(stable);
            }
            GroupMessage::HaveState { seq, digest, signature, stable } => {
                let bytes = Checkpoint::signed_bytes(GROUP, self.rules.epoch, *seq, *digest);
                *signature = self.key(&bytes);
                self.stable(stable);
            }
            GroupMessage::Evidence(proof) => match Arc::make_mut(proof) {
                Proof::WrongCheckpoint { signer, said, certified } => {
                    if *signer == self.me {
                        self.checkpoint(said);
                    }
                    self.stable(certified);
                }
                Proof::TwoViewChanges(one, other) => {
                    self.change(one);
                    self.change(other);
                }
                Proof::BadViewChange(change) => self.change(change),
                Proof::BadNewView(new_view) => self.new_view(new_view),
            },
            GroupMessage::Wish { .. } | GroupMessage::Seek(_) => {}
        }
    }

    fn recover(&self, recover: &mut Recover) {
        let Recover { replica, incarnation, view, signature } = recover;
        if *replica == self.me {
            *signature = self.key(&self.rules.recover_signed(*replica, *incarnation, *view));
        }
    }

    /// Signs a VIEW-CHANGE that names this replica.
    pub(super) fn change(&self, change: &mut Arc<ViewChange>) {
        if change.replica == self.me {
            let change = Arc::make_mut(change);
            self.stable(&mut change.stable);
            let digest = self.rules.change_digest(change);
            change.signature = self.key(&self.rules.change_signed(digest));
        }
    }

    /// Signs a NEW-VIEW for a view that this replica leads, and its own part in any.
    pub(super) fn new_view(&self, new_view: &mut Arc<NewView>) {
        let new_view = Arc::make_mut(new_view);
        new_view.changes.iter_mut().for_each(|change| self.change(change));
        if new_view.view.leader(self.n()) == self.me {
            let named =
                |change: &Arc<ViewChange>| (self.rules.change_digest(change), change.signature);
            let digests: Vec<_> = new_view.changes.iter().map(named).collect();
            new_view.signature = self.key(&self.rules.new_view_signed(new_view.view, &digests));
        }
    }
}
