//! One coordinator among liars: everything that it hears is made by hand, lie by lie, so that it
//! is certain that each was told. Whole groups in which the same lies are told at random:
//! `view_change` and `adversary`.

use std::sync::Arc;

use base::crypto::PlainKeys;
use base::{
    AgreedTime, Digest, Epoch, Incarnation, Keyring, Now, PillarId, Quorums, ReplicaId, Seq,
    Signature, Span, StableCheckpoint, Stripe, Time, ToStage, View,
};
use proto::group::evidence::Proof;
use proto::group::link::{FromCoordinator, Grievance, SliceEntry, ToCoordinator};
use proto::group::msg::{GroupMessage, NewView, Recover, ViewChange};
use proto::group::record::GroupRecord;
use proto::group::roster::Roster;
use proto::group::rules::Rules;
use proto::group::{Beginning, Coordinator, CoordinatorConfig, Effect, GroupFact, Input};
use proto::pbft::Leaders;
use proto::pbft::msg::Checkpoint;

use super::Scenario;
use crate::host::GROUP;
use crate::prng::Prng;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "no_forged_view_begins",
        claim: "Traps 1 and 2, P-05: a NEW-VIEW of a faulty leader with one thing wrong begins \
                no view, and proves its leader faulty where it signed what is wrong. The same \
                without the lie begins it.",
        ci_seeds: 10,
        full_seeds: 1_000,
        run: no_forged_view_begins,
    },
    Scenario {
        name: "no_single_word_is_taken",
        claim: "F10, decision 11: what f replicas say of a state is not fetched, what proves \
                nothing accuses nobody, and VIEW-CHANGEs of a life that forgot begin no view.",
        ci_seeds: 10,
        full_seeds: 1_000,
        run: no_single_word_is_taken,
    },
    Scenario {
        name: "who_forgot_waits_for_a_quorum_that_did_not",
        claim: "R3 to R6: a RECOVER is acknowledged behind its record; the forgetful counts a \
                quorum of those who remember and are in no later view, and votes above \
                everything that it can have voted for.",
        ci_seeds: 10,
        full_seeds: 1_000,
        run: who_forgot_waits_for_a_quorum_that_did_not,
    },
    Scenario {
        name: "views_are_left_and_found_by_the_rules",
        claim: "V4, V6, V13, V14, traps 3, 11 and 14: a quorum of wishes moves a replica, and \
                f + 1 do not; what it says on leaving has the highest mark of its pillars; each \
                failed view gets twice the time; a restart does not come back to a view that was \
                left; and whoever lags is served the NEW-VIEW.",
        ci_seeds: 10,
        full_seeds: 1_000,
        run: views_are_left_and_found_by_the_rules,
    },
];

const N: u16 = 4;
const K: u64 = 8;
const L: u64 = 32;
/// Who is looked at.
const ME: ReplicaId = ReplicaId(1);
/// The faulty one, which leads view 4, and two correct ones.
const LIAR: ReplicaId = ReplicaId(0);
const A: ReplicaId = ReplicaId(2);
const B: ReplicaId = ReplicaId(3);
const LIFE: Incarnation = Incarnation(7);

fn rules() -> Rules {
    let quorums = Quorums::pbft(N, 1).expect("4 is 3 + 1");
    Rules { group: GROUP, epoch: Epoch(0), quorums, window: L, checkpoint_interval: K }
}

fn keys(of: ReplicaId) -> PlainKeys {
    PlainKeys { me: of, n: N }
}

/// A coordinator and what it hears.
struct Stand {
    coordinator: Coordinator,
    now: Time,
}

impl Stand {
    fn new(beginning: Beginning) -> (Stand, Vec<Effect>) {
        Stand::with(beginning, 1, Vec::new())
    }

    fn with(beginning: Beginning, pillars: u16, records: Vec<GroupRecord>) -> (Stand, Vec<Effect>) {
        let config = CoordinatorConfig {
            me: ME,
            incarnation: LIFE,
            group: GROUP,
            epoch: Epoch(0),
            quorums: rules().quorums,
            stripe: Stripe::new(pillars).expect("in range"),
            window: L,
            checkpoint_interval: K,
            leaders: Leaders::Fixed,
            view_timeout: Span::secs(1),
        };
        let stable = StableCheckpoint::default();
        let coordinator = Coordinator::new(config, Box::new(keys(ME)), beginning, stable, records);
        let mut stand = Stand { coordinator, now: Time(1) };
        let first = stand.step(Input::Turn);
        (stand, first)
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        // Far apart, so that nobody's budget is ever spent.
        self.now = self.now.after(Span::secs(5));
        let now = Now { mono: self.now, wall: AgreedTime(self.now.0) };
        let mut out = Vec::new();
        let _ = self.coordinator.step(now, input, &mut out);
        self.coordinator.check();
        out
    }

    fn hears(&mut self, from: ReplicaId, message: GroupMessage) -> Vec<Effect> {
        self.step(Input::Peer { from, incarnation: LIFE, message })
    }
}

fn installs(effects: &[Effect]) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Lanes(FromCoordinator::Install(_))))
}

fn accused(effects: &[Effect]) -> Option<ReplicaId> {
    effects.iter().find_map(|effect| match effect {
        Effect::Fact(GroupFact::Proof { accused, .. }) => Some(*accused),
        _ => None,
    })
}

/// The checkpoint at `seq`, signed by these.
fn certificate(seq: u64, signers: &[ReplicaId]) -> StableCheckpoint {
    let (seq, digest) = (Seq(seq), Digest([5; 32]));
    let bytes = Checkpoint::signed_bytes(GROUP, Epoch(0), seq, digest);
    let proof = signers.iter().map(|signer| (*signer, keys(*signer).sign(&bytes))).collect();
    StableCheckpoint { seq, digest, proof: Arc::new(proof) }
}

fn signed(mut change: ViewChange) -> Arc<ViewChange> {
    let digest = rules().change_digest(&change);
    change.signature = keys(change.replica).sign(&rules().change_signed(digest));
    Arc::new(change)
}

/// What `replica` says on leaving for `view`: it has prepared number 9 + something.
fn change(replica: ReplicaId, view: u64, more: u64) -> ViewChange {
    let pair = (View(1), Digest([9; 32]));
    let entry = SliceEntry { seq: Seq(9 + more), prepared: Some(pair), pre_prepared: vec![pair] };
    ViewChange {
        replica,
        incarnation: LIFE,
        view: View(view),
        stable: certificate(K, &[LIAR, A, B]),
        entries: vec![entry],
        roster: Roster::default(),
        signature: Signature([0; 64]),
    }
}

fn new_view(signer: ReplicaId, changes: Vec<Arc<ViewChange>>) -> NewView {
    let named = |change: &Arc<ViewChange>| (rules().change_digest(change), change.signature);
    let digests: Vec<_> = changes.iter().map(named).collect();
    let signature = keys(signer).sign(&rules().new_view_signed(View(4), &digests));
    NewView { view: View(4), changes, signature }
}

/// A lie in a NEW-VIEW for view 4, and whether its leader signed it.
type Lie = (&'static str, bool, fn(u64) -> NewView);

const LIES: &[Lie] = &[
    ("nobody's VIEW-CHANGE", true, |more| {
        let mut forged = change(B, 4, more);
        forged.entries.clear();
        new_view(LIAR, vec![own(more), theirs(A, more), Arc::new(forged)])
    }),
    ("one sender twice", true, |more| new_view(LIAR, vec![own(more), own(more), theirs(A, more)])),
    ("too few", true, |more| new_view(LIAR, vec![own(more), theirs(A, more)])),
    ("of another view", true, |more| {
        new_view(LIAR, vec![own(more), theirs(A, more), signed(change(B, 3, more))])
    }),
    ("not the leader's", false, |more| {
        new_view(A, vec![own(more), theirs(A, more), theirs(B, more)])
    }),
    ("a certificate of f", true, |more| {
        let stable = certificate(2 * K, &[LIAR]);
        let mine = signed(ViewChange { stable, entries: vec![], ..change(LIAR, 4, more) });
        new_view(LIAR, vec![mine, theirs(A, more), theirs(B, more)])
    }),
    ("a certificate that others have not signed", true, |more| {
        let mut stable = certificate(2 * K, &[LIAR, A, B]);
        let mut proof = (*stable.proof).clone();
        proof[1].1 = proof[0].1;
        proof[2].1 = proof[0].1;
        stable.proof = Arc::new(proof);
        let mine = signed(ViewChange { stable, entries: vec![], ..change(LIAR, 4, more) });
        new_view(LIAR, vec![mine, theirs(A, more), theirs(B, more)])
    }),
    ("another checkpoint's certificate", true, |more| {
        let mut stable = certificate(K, &[LIAR, A, B]);
        stable.seq = Seq(2 * K);
        let mine = signed(ViewChange { stable, entries: vec![], ..change(LIAR, 4, more) });
        new_view(LIAR, vec![mine, theirs(A, more), theirs(B, more)])
    }),
    ("a number beyond the window", true, |more| {
        let mut mine = change(LIAR, 4, more);
        mine.entries[0].seq = Seq(K + L + 1 + more);
        new_view(LIAR, vec![signed(mine), theirs(A, more), theirs(B, more)])
    }),
];

fn own(more: u64) -> Arc<ViewChange> {
    signed(change(LIAR, 4, more))
}

fn theirs(of: ReplicaId, more: u64) -> Arc<ViewChange> {
    signed(change(of, 4, more))
}

fn no_forged_view_begins(seed: u64) {
    let more = Prng::new(seed).below(K);
    for (what, signs, lie) in LIES {
        let (mut stand, _) = Stand::new(Beginning::Whole);
        let out = stand.hears(LIAR, GroupMessage::NewView(Arc::new(lie(more))));
        assert!(!installs(&out), "a view begins with {what}");
        let expected = signs.then_some(LIAR);
        assert_eq!(accused(&out), expected, "who is accused of {what}");
        let true_one = new_view(LIAR, vec![own(more), theirs(A, more), theirs(B, more)]);
        let out = stand.hears(B, GroupMessage::NewView(Arc::new(true_one)));
        assert!(installs(&out), "the view does not begin after {what}");
    }
}

fn no_single_word_is_taken(seed: u64) {
    let more = Prng::new(seed).below(K);
    let (mut stand, _) = Stand::new(Beginning::Whole);
    let nothing = Proof::BadViewChange(theirs(A, more));
    let out = stand.hears(LIAR, GroupMessage::Evidence(Arc::new(nothing)));
    assert_eq!(accused(&out), None, "a proof that proves nothing");
    // A life that forgot has said on leaving for view 4 what does not hold any more.
    let (incarnation, view) = (Incarnation(LIFE.0 + 1), View(0));
    let signature = keys(B).sign(&rules().recover_signed(B, incarnation, view));
    let recover = Recover { replica: B, incarnation, view, signature };
    stand.hears(A, GroupMessage::Recover(recover));
    let old = new_view(LIAR, vec![own(more), theirs(A, more), theirs(B, more)]);
    let out = stand.hears(LIAR, GroupMessage::NewView(Arc::new(old)));
    assert!(!installs(&out), "a view begins with what a life said that forgot");
    // A state at rest, while something is missing here.
    let (missing, stable) = (Seq(1), Seq(100 * K));
    stand.step(Input::Lane(ToCoordinator::LeftBehind { missing, stable }));
    let (seq, digest) = (Seq(101 * K + more), Digest([3; 32]));
    let offer = |from: ReplicaId| {
        let signature = keys(from).sign(&Checkpoint::signed_bytes(GROUP, Epoch(0), seq, digest));
        GroupMessage::HaveState { seq, digest, signature, stable: StableCheckpoint::default() }
    };
    let fetches =
        |out: &[Effect]| out.iter().any(|e| matches!(e, Effect::Stage(ToStage::Fetch { .. })));
    assert!(!fetches(&stand.hears(LIAR, offer(LIAR))), "f replicas offer a state");
    assert!(fetches(&stand.hears(A, offer(A))), "f + 1 replicas offer a state");
}

/// The last word to the lanes about what may be voted on.
fn voting(effects: &[Effect]) -> Option<Option<Seq>> {
    let mut said = effects.iter().filter_map(|effect| match effect {
        Effect::Lanes(FromCoordinator::Voting { above }) => Some(*above),
        _ => None,
    });
    said.next_back()
}

fn who_forgot_waits_for_a_quorum_that_did_not(seed: u64) {
    let at = K * (1 + Prng::new(seed).below(100));
    let (mut stand, first) = Stand::new(Beginning::Forgetful);
    assert_eq!(voting(&first), Some(None), "it votes for nothing at first");
    let ack = |installed: u64, recovering: bool, at: u64| GroupMessage::RecoverAck {
        incarnation: LIFE,
        view: View(0),
        installed: View(installed),
        stable: certificate(at, &[LIAR, A, B]),
        known: Vec::new(),
        recovering,
    };
    let mut out = stand.hears(LIAR, ack(0, false, K));
    out.extend(stand.hears(A, ack(0, false, at)));
    assert_eq!(voting(&out), None, "two are no quorum of others");
    assert_eq!(voting(&stand.hears(B, ack(0, true, at))), None, "the third has forgotten, too");
    assert_eq!(voting(&stand.hears(B, ack(3, false, at))), None, "the third is in a later view");
    let above = voting(&stand.hears(B, ack(0, false, at))).flatten();
    assert!(above.is_some_and(|above| above.0 >= at + 2 * L), "it may vote above {above:?}");
    // What it tells others that forgot.
    let (mut stand, _) = Stand::new(Beginning::Whole);
    let signature = keys(A).sign(&rules().recover_signed(A, LIFE, View(0)));
    let recover = Recover { replica: A, incarnation: LIFE, view: View(0), signature };
    let out = stand.hears(A, GroupMessage::Recover(recover));
    let says =
        |e: &Effect| matches!(e, Effect::Send { message: GroupMessage::RecoverAck { .. }, .. });
    let writes = |e: &Effect| matches!(e, Effect::Persist(GroupRecord::Recover(_)));
    let (record, ack) = (out.iter().position(writes), out.iter().position(says));
    assert!(ack.is_some() && record.is_some() && record < ack, "a record, then the word");
}

fn wish(stand: &mut Stand, from: ReplicaId, wish: u64, installed: u64) -> Vec<Effect> {
    let (wish, installed) = (View(wish), View(installed));
    stand.hears(from, GroupMessage::Wish { wish, installed, recovering: false })
}

fn stops(effects: &[Effect]) -> Option<View> {
    effects.iter().find_map(|effect| match effect {
        Effect::Lanes(FromCoordinator::Stop { view }) => Some(*view),
        _ => None,
    })
}

fn views_are_left_and_found_by_the_rules(seed: u64) {
    let more = Prng::new(seed).below(K);
    let (mut stand, _) = Stand::with(Beginning::Whole, 2, Vec::new());
    // With its own, which joins them at f + 1, two wishes would be three: so from one only.
    assert_eq!(stops(&wish(&mut stand, A, 3, 0)), None, "one other moves nobody");
    assert_eq!(stops(&wish(&mut stand, B, 3, 0)), Some(View(3)), "a quorum with its own");
    let (mut alone, _) = Stand::new(Beginning::Whole);
    let what = Grievance::Stalled;
    let out = alone.step(Input::Lane(ToCoordinator::Grievance {
        view: View(0),
        what,
        whom: ReplicaId(0),
    }));
    assert_eq!(stops(&out), None, "its own wish alone");
    assert_eq!(stops(&wish(&mut alone, A, 1, 0)), None, "f + 1 wishes");
    // Pillars hear of stable checkpoints at different times.
    let mut said = None;
    for (pillar, mark) in [(0, 2 * K), (1, K)] {
        let stable = certificate(mark, &[LIAR, A, B]);
        let (pillar, view, entries) = (PillarId(pillar), View(3), Vec::new());
        let slice = ToCoordinator::Slice { pillar, view, stable, entries };
        for effect in stand.step(Input::Lane(slice)) {
            if let Effect::Send { message: GroupMessage::ViewChange(change), .. } = effect {
                said = Some(change.stable.seq);
            }
        }
    }
    assert_eq!(said, Some(Seq(2 * K)), "the low mark of its VIEW-CHANGE");
    let (_, first) = Stand::with(Beginning::Whole, 1, vec![GroupRecord::Left { view: View(3) }]);
    assert_eq!(stops(&first), Some(View(3)), "a restart after a view was left");
    let (mut stand, _) = Stand::new(Beginning::Whole);
    let begun = new_view(LIAR, vec![own(more), theirs(A, more), theirs(B, more)]);
    stand.hears(B, GroupMessage::NewView(Arc::new(begun)));
    let serves = |e: &Effect| matches!(e, Effect::Send { message: GroupMessage::NewView(_), .. });
    assert!(wish(&mut stand, A, 0, 0).iter().any(serves), "the NEW-VIEW for who lags");
    let (one, two) = (patience(&mut stand, 5), patience(&mut stand, 6));
    assert!(two.0 >= 2 * one.0, "{one:?} for the first view, {two:?} for the second");
}

/// How long a replica that left for `view` waits for it.
fn patience(stand: &mut Stand, view: u64) -> Span {
    [A, B].iter().for_each(|peer| drop(wish(stand, *peer, view, 4)));
    let since = stand.now;
    let further = |e: &Effect| {
        let next = View(view + 1);
        matches!(e, Effect::Send { message: GroupMessage::Wish { wish, .. }, .. } if *wish == next)
    };
    loop {
        stand.now = stand.now.after(Span::millis(100));
        let now = Now { mono: stand.now, wall: AgreedTime(stand.now.0) };
        let mut out = Vec::new();
        let _ = stand.coordinator.step(now, Input::Turn, &mut out);
        let waited = stand.now.since(since);
        if out.iter().any(further) || waited > Span::secs(100) {
            return waited;
        }
    }
}
