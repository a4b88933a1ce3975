//! Tests of the coordinator. What they share: a small group with plain keys.

mod codec;
mod decide;
mod evidence;
mod forgery;
mod recovery;
mod rest;
mod transfer;
mod view;
mod world;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::vec;

use base::crypto::PlainKeys;
use base::{
    Digest, Epoch, GroupId, Incarnation, Keyring, Now, Quorums, ReplicaId, Seq, Signature, Span,
    StableCheckpoint, Stripe, Time, View,
};

use super::link::SliceEntry;
use super::msg::{NewView, ViewChange};
use super::roster::Roster;
use super::rules::{Genuine, Judge, Rules};
use super::{Beginning, Coordinator, CoordinatorConfig, Effect, Input};
use crate::pbft::msg::Checkpoint;
use crate::pbft::{Leaders, Reject};

pub(super) const K: u64 = 8;
pub(super) const L: u64 = 32;

pub(super) fn config(n: u16, f: u16, me: u16, pillars: u16) -> CoordinatorConfig {
    CoordinatorConfig {
        me: ReplicaId(me),
        incarnation: Incarnation(1),
        group: GroupId([7; 32]),
        epoch: Epoch(0),
        quorums: Quorums::pbft(n, f).unwrap(),
        stripe: Stripe::new(pillars).unwrap(),
        window: L,
        checkpoint_interval: K,
        leaders: Leaders::Fixed,
        view_timeout: Span::secs(1),
    }
}

pub(super) fn rules() -> Rules {
    config(4, 1, 0, 1).rules()
}

pub(super) fn keys(me: u16) -> PlainKeys {
    PlainKeys { me: ReplicaId(me), n: 4 }
}

pub(super) fn coordinator(me: u16) -> Coordinator {
    let cfg = config(4, 1, me, 1);
    let keys = Box::new(keys(me));
    Coordinator::new(cfg, keys, Beginning::Whole, StableCheckpoint::default(), vec![])
}

/// A certificate of the replicas `signers` for the checkpoint at `seq`.
pub(super) fn certificate(rules: &Rules, seq: u64, signers: &[u16]) -> StableCheckpoint {
    let digest = Digest([u8::try_from(seq % 251).unwrap(); 32]);
    let bytes = Checkpoint::signed_bytes(rules.group, rules.epoch, Seq(seq), digest);
    let sign = |r: &u16| (ReplicaId(*r), PlainKeys { me: ReplicaId(*r), n: 4 }.sign(&bytes));
    StableCheckpoint { seq: Seq(seq), digest, proof: Arc::new(signers.iter().map(sign).collect()) }
}

pub(super) fn digest(d: u8) -> Digest {
    Digest([d; 32])
}

/// An entry of P and Q: views with one-letter digests.
pub(super) fn entry(seq: u64, p: Option<(u64, u8)>, q: &[(u64, u8)]) -> SliceEntry {
    let pair = |(v, d): (u64, u8)| (View(v), digest(d));
    let mut pre_prepared: Vec<_> = q.iter().copied().map(pair).collect();
    pre_prepared.sort_unstable_by_key(|(_, d)| *d);
    SliceEntry { seq: Seq(seq), prepared: p.map(pair), pre_prepared }
}

pub(super) fn sign_change(rules: &Rules, mut change: ViewChange) -> Arc<ViewChange> {
    let bytes = rules.change_signed(rules.change_digest(&change));
    change.signature = keys(change.replica.0).sign(&bytes);
    Arc::new(change)
}

pub(super) fn change(replica: u16, view: u64, entries: Vec<SliceEntry>) -> Arc<ViewChange> {
    let change = ViewChange {
        replica: ReplicaId(replica),
        incarnation: Incarnation(1),
        view: View(view),
        stable: StableCheckpoint::default(),
        entries,
        roster: Roster::default(),
        signature: Signature([0; 64]),
    };
    sign_change(&rules(), change)
}

/// A VIEW-CHANGE that promises nothing and says something about leaders.
pub(super) fn change_with(replica: u16, roster: Roster) -> Arc<ViewChange> {
    let change = Arc::unwrap_or_clone(change(replica, 1, vec![]));
    sign_change(&rules(), ViewChange { roster, ..change })
}

pub(super) fn quorums() -> Quorums {
    rules().quorums
}

pub(super) fn new_view(view: u64, changes: Vec<Arc<ViewChange>>) -> NewView {
    let rules = rules();
    let digests: Vec<_> = changes.iter().map(|c| (rules.change_digest(c), c.signature)).collect();
    let bytes = rules.new_view_signed(View(view), &digests);
    let leader = View(view).leader(4).0;
    NewView { view: View(view), changes, signature: keys(leader).sign(&bytes) }
}

pub(super) fn with_judge<T>(judge: impl FnOnce(&mut Judge<'_>) -> T) -> T {
    let (rules, keys, mut genuine) = (rules(), keys(0), Genuine::default());
    judge(&mut Judge { rules: &rules, keys: &keys, genuine: &mut genuine })
}

pub(super) fn at(ms: u64) -> Now {
    Now { mono: Time::ZERO.after(Span::millis(ms)), ..Now::default() }
}

/// Steps a coordinator; what it wants done.
pub(super) fn step(
    coordinator: &mut Coordinator,
    ms: u64,
    input: Input,
) -> (Result<(), Reject>, Vec<Effect>) {
    let mut out = vec![];
    let turn = matches!(input, Input::Turn);
    let result = coordinator.step(at(ms), input, &mut out);
    coordinator.check();
    assert!(!turn || coordinator.deadline() > Some(at(ms).mono), "nothing due is left");
    (result, out)
}

/// Steps a coordinator whose answer does not matter.
pub(super) fn feed(coordinator: &mut Coordinator, ms: u64, input: Input) {
    let (_result, _out) = step(coordinator, ms, input);
}

pub(super) fn peer(from: u16, message: super::msg::GroupMessage) -> Input {
    Input::Peer { from: ReplicaId(from), incarnation: Incarnation(1), message }
}

/// A small generator of numbers that look random: xorshift.
#[derive(Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
