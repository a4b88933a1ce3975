//! A storm of wishes for other views: for the drill `view-storm`.
//!
//! Everything is well-formed, some of it with a signature that is not genuine, so that looking at
//! it costs something. f replicas may send it for ever: it moves nobody and fills no memory.

use std::sync::Arc;

use base::{Digest, Keyring, Seq, Signature, Span, StableCheckpoint, View};
use proto::group::link::SliceEntry;
use proto::group::msg::{GroupMessage, ViewChange};
use proto::group::roster::Roster;

use super::Scene;

/// How often a burst is sent.
pub(super) const EVERY: Span = Span::millis(5);
/// How far ahead the views are that are asked for, at most.
const AHEAD_MAX: u64 = 1_000_000;
/// Entries of the long ones.
const ENTRIES: u64 = 512;

/// What is sent at a time, to everybody: a wish that says that the sender knows no NEW-VIEW, a
/// short VIEW-CHANGE for the next view, one for a view far ahead, and a long one that is forged.
pub(super) fn burst(scene: &Scene, keys: &dyn Keyring, view: View, luck: u64) -> Vec<GroupMessage> {
    let far = View(view.0 + 2 + luck % AHEAD_MAX);
    let wish = GroupMessage::Wish { wish: far, installed: View(0), recovering: false };
    let next = change(scene, keys, View(view.0 + 1), 0);
    let ahead = change(scene, keys, far, 0);
    let mut long = change(scene, keys, far, ENTRIES);
    long.signature = Signature([luck.to_le_bytes()[0]; 64]);
    let changes =
        [next, ahead, long].into_iter().map(|one| GroupMessage::ViewChange(Arc::new(one)));
    [wish, GroupMessage::Seek(Seq(luck % AHEAD_MAX))].into_iter().chain(changes).collect()
}

fn change(scene: &Scene, keys: &dyn Keyring, view: View, entries: u64) -> ViewChange {
    let digest = Digest([3; 32]);
    let entry = |seq| SliceEntry {
        seq: Seq(seq),
        prepared: None,
        pre_prepared: vec![(View(view.0 - 1), digest)],
    };
    let mut change = ViewChange {
        replica: scene.me,
        incarnation: scene.incarnation,
        view,
        stable: StableCheckpoint::default(),
        entries: (1..=entries).map(entry).collect(),
        roster: Roster::default(),
        signature: Signature([0; 64]),
    };
    if entries == 0 {
        let digest = scene.rules.change_digest(&change);
        change.signature = keys.sign(&scene.rules.change_signed(digest));
    }
    change
}
