//! VIEW-CHANGEs and NEW-VIEWs that say what is not so, signed by the faulty replica itself.
//!
//! The catalogue of P-05, a field at a time: what a correct replica must refuse, or take for what
//! it is worth.

use std::sync::Arc;

use base::crypto::PlainKeys;
use base::{Digest, Keyring, ReplicaId, Seq, Signature, StableCheckpoint, View};
use proto::group::link::SliceEntry;
use proto::group::msg::{GroupMessage, NewView, ViewChange};
use proto::group::rules::Rules;

use crate::prng::Prng;

/// Who forges, and by which rules others will judge it.
struct Forger<'a> {
    rules: &'a Rules,
    keys: PlainKeys,
}

impl Forger<'_> {
    fn sign_change(&self, change: &mut ViewChange) {
        let digest = self.rules.change_digest(change);
        change.signature = self.keys.sign(&self.rules.change_signed(digest));
    }

    fn sign_new_view(&self, new_view: &mut NewView) {
        let named = |change: &Arc<ViewChange>| (self.rules.change_digest(change), change.signature);
        let digests: Vec<_> = new_view.changes.iter().map(named).collect();
        let signed = self.rules.new_view_signed(new_view.view, &digests);
        new_view.signature = self.keys.sign(&signed);
    }
}

/// What leaves instead of a message about views; other messages stay as they are.
pub(crate) fn forge(
    rules: &Rules,
    me: ReplicaId,
    message: GroupMessage,
    prng: &mut Prng,
) -> Vec<GroupMessage> {
    let n = rules.quorums.n();
    let forger = Forger { rules, keys: PlainKeys { me, n } };
    match message {
        GroupMessage::ViewChange(change) if change.replica == me => {
            let mut forged = ViewChange::clone(&change);
            twist_change(&mut forged, prng);
            forger.sign_change(&mut forged);
            match prng.below(3) {
                0 => vec![
                    GroupMessage::ViewChange(change),
                    GroupMessage::ViewChange(Arc::new(forged)),
                ],
                _ => vec![GroupMessage::ViewChange(Arc::new(forged))],
            }
        }
        GroupMessage::NewView(new_view) if new_view.view.leader(n) == me => {
            let mut forged = NewView::clone(&new_view);
            twist_new_view(&forger, &mut forged, prng);
            forger.sign_new_view(&mut forged);
            match prng.below(3) {
                0 => vec![GroupMessage::NewView(Arc::new(forged)), GroupMessage::NewView(new_view)],
                _ => vec![GroupMessage::NewView(Arc::new(forged))],
            }
        }
        message => vec![message],
    }
}

/// Changes one thing that a VIEW-CHANGE says.
fn twist_change(change: &mut ViewChange, prng: &mut Prng) {
    let at = prng.below(change.entries.len() as u64) as usize;
    let lie = Digest([prng.below(4) as u8; 32]);
    match prng.below(12) {
        0 => change.entries.clear(),
        1 => change.entries.truncate(at),
        2 => change.entries.reverse(),
        3 => change.view = View(change.view.0 + prng.below(3)),
        4 => change.incarnation.0 += prng.below(3),
        5 => change.stable = StableCheckpoint::default(),
        6 => change.stable.seq = Seq(change.stable.seq.0 + 8),
        7 => change.stable.digest = lie,
        8 => {
            let seq = change.entries.last().map_or(change.stable.seq, |entry| entry.seq);
            let bits = prng.below(20);
            let seq = Seq(seq.0 + 1 + prng.below(1 << bits));
            let pair = (View(change.view.0.saturating_sub(1)), lie);
            let pre_prepared = vec![pair];
            change.entries.push(SliceEntry { seq, prepared: Some(pair), pre_prepared });
        }
        _ => {
            let Some(entry) = change.entries.get_mut(at) else { return };
            let view = View(prng.below(change.view.0 + 2));
            match prng.below(4) {
                0 => entry.prepared = Some((view, lie)),
                1 => entry.prepared = None,
                2 => entry.pre_prepared = vec![(view, lie)],
                _ => {
                    entry.prepared = Some((view, lie));
                    entry.pre_prepared = vec![(view, lie)];
                }
            }
        }
    }
}

/// Changes one thing that a NEW-VIEW says.
fn twist_new_view(forger: &Forger<'_>, new_view: &mut NewView, prng: &mut Prng) {
    let at = prng.below(new_view.changes.len() as u64) as usize;
    match prng.below(8) {
        0 => new_view.changes.clear(),
        1 => {
            new_view.changes.remove(at);
        }
        2 => {
            let one = Arc::clone(&new_view.changes[at]);
            let all = new_view.changes.len();
            new_view.changes = vec![one; all];
        }
        3 => new_view.changes.reverse(),
        4 => new_view.view = View(new_view.view.0 + 1),
        5 => {
            let mut change = ViewChange::clone(&new_view.changes[at]);
            twist_change(&mut change, prng);
            new_view.changes[at] = Arc::new(change);
        }
        6 => {
            let mut change = ViewChange::clone(&new_view.changes[at]);
            change.signature = Signature([7; 64]);
            new_view.changes[at] = Arc::new(change);
        }
        _ => {
            for change in &mut new_view.changes {
                if change.replica == forger.keys.me {
                    let mut mine = ViewChange::clone(change);
                    twist_change(&mut mine, prng);
                    forger.sign_change(&mut mine);
                    *change = Arc::new(mine);
                }
            }
        }
    }
}
