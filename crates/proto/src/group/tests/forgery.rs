//! NEW-VIEWs and VIEW-CHANGEs that no correct replica signs: each is refused, and proves
//! something only against who signed it (catalogue P-05).

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::vec;

use base::crypto::PlainKeys;
use base::{
    Digest, Epoch, GroupId, Incarnation, Keyring, ReplicaId, Seq, Signature, StableCheckpoint, View,
};

use super::{
    K, L, certificate, change, coordinator, entry, keys, new_view, peer, rules, sign_change, step,
    with_judge,
};
use crate::group::evidence::Proof;
use crate::group::msg::{GroupMessage, NewView, ViewChange};
use crate::group::rules::Fault;
use crate::group::{Effect, GroupFact};
use crate::pbft::Reject;

/// A VIEW-CHANGE of replica 2 for view 5 with everything in it.
fn sample() -> ViewChange {
    let entries = vec![entry(9, Some((4, 1)), &[(4, 1), (2, 3)]), entry(10, None, &[(1, 1)])];
    let mut change = (*change(2, 5, entries)).clone();
    change.stable = certificate(&rules(), 8, &[0, 1, 2]);
    change
}

fn judge_change(change: &ViewChange) -> Result<Digest, Fault> {
    with_judge(|judge| judge.change(change))
}

/// A way to spoil something, and its name.
type Twist<T> = (&'static str, fn(&mut T));

fn proof_of(change: &mut ViewChange, edit: impl FnOnce(&mut Vec<(ReplicaId, Signature)>)) {
    let mut proof = (*change.stable.proof).clone();
    edit(&mut proof);
    change.stable.proof = Arc::new(proof);
}

/// Every field of a VIEW-CHANGE, spoilt and then signed by its sender.
const TWISTS: &[Twist<ViewChange>] = &[
    ("first view", |c| c.view = View(0)),
    ("view of an entry", |c| c.view = View(4)),
    ("low mark without certificate", |c| proof_of(c, Vec::clear)),
    ("certificate below a quorum", |c| proof_of(c, |p| p.truncate(2))),
    ("signer twice", |c| proof_of(c, |p| p[1] = p[0])),
    ("signers not ascending", |c| proof_of(c, |p| p.swap(0, 1))),
    ("signer of another group", |c| proof_of(c, |p| p[2].0 = ReplicaId(4))),
    ("signature of another", |c| proof_of(c, |p| p[2].1 = p[0].1)),
    ("signature altered", |c| proof_of(c, |p| p[2].1.0[5] ^= 1)),
    ("certificate of another digest", |c| c.stable.digest.0[0] ^= 1),
    ("certificate of another number", |c| c.stable.seq = Seq(16)),
    ("certificate of no checkpoint", |c| c.stable = certificate(&rules(), K - 1, &[0, 1, 2])),
    ("certificate of number 0", |c| c.stable = certificate(&rules(), 0, &[0, 1, 2])),
    ("digest of number 0", |c| {
        c.stable = StableCheckpoint { digest: Digest([1; 32]), ..StableCheckpoint::default() };
    }),
    ("certificate of another epoch", |c| {
        let mut other = rules();
        other.epoch = Epoch(1);
        c.stable = certificate(&other, 8, &[0, 1, 2]);
    }),
    ("certificate of another group", |c| {
        let mut other = rules();
        other.group = GroupId([8; 32]);
        c.stable = certificate(&other, 8, &[0, 1, 2]);
    }),
    ("number at the low mark", |c| c.entries[0].seq = Seq(8)),
    ("number beyond the window", |c| c.entries[1].seq = Seq(8 + L + 1)),
    ("number 0", |c| c.entries[0].seq = Seq(0)),
    ("numbers not ascending", |c| c.entries.swap(0, 1)),
    ("number twice", |c| c.entries[1].seq = Seq(9)),
    ("prepared in the view to come", |c| c.entries[0].prepared.as_mut().unwrap().0 = View(5)),
    ("pre-prepared in a view to come", |c| c.entries[0].pre_prepared[0].0 = View(6)),
    ("digests not ascending", |c| c.entries[0].pre_prepared.swap(0, 1)),
    ("digest twice", |c| {
        let first = c.entries[0].pre_prepared[0];
        c.entries[0].pre_prepared[1] = first;
    }),
    ("too many digests", |c| {
        let q = &mut c.entries[0].pre_prepared;
        q.clear();
        q.extend((0..4).map(|d| (View(1), Digest([d; 32]))));
    }),
    ("entry that says nothing", |c| c.entries[1].pre_prepared.clear()),
];

#[test]
fn a_signed_view_change_that_breaks_a_rule_is_refused_and_proves_it() {
    assert!(judge_change(&sign_change(&rules(), sample())).is_ok());
    for (name, twist) in TWISTS {
        let mut change = sample();
        twist(&mut change);
        let signed = sign_change(&rules(), change);
        assert!(matches!(judge_change(&signed), Err(Fault::Bad(_))), "{name}");
        let proof = Proof::BadViewChange(signed.clone());
        assert!(proof.verify(&rules(), &keys(3)), "{name}");
        assert_eq!(proof.accused(4), ReplicaId(2));
        // And a coordinator that is sent it says so to everybody, once.
        let mut one = coordinator(0);
        let message = || peer(2, GroupMessage::ViewChange(signed.clone()));
        let (result, out) = step(&mut one, 0, message());
        // One that begins no later than what is installed is not even looked at.
        if signed.view == View(0) {
            assert!(matches!(result, Err(Reject::Stale(_))));
            continue;
        }
        assert!(matches!(result, Err(Reject::Misbehaviour(_))), "{name}");
        assert_eq!(proven(&out), [ReplicaId(2)], "{name}");
        let (_, out) = step(&mut one, 1, message());
        assert_eq!(proven(&out), [], "{name}");
    }
}

fn proven(out: &[Effect]) -> Vec<ReplicaId> {
    out.iter()
        .filter_map(|effect| match effect {
            Effect::Fact(GroupFact::Proof { accused, .. }) => Some(*accused),
            _ => None,
        })
        .collect()
}

/// Whatever is altered after signing proves nothing against the signer.
#[test]
fn an_altered_view_change_accuses_nobody() {
    let signed = sign_change(&rules(), sample());
    let alter: &[Twist<ViewChange>] = &[
        ("sender", |c| c.replica = ReplicaId(1)),
        ("stranger", |c| c.replica = ReplicaId(4)),
        ("incarnation", |c| c.incarnation = Incarnation(2)),
        ("view", |c| c.view = View(6)),
        ("signature", |c| c.signature.0[0] ^= 1),
        ("entry", |c| c.entries.truncate(1)),
        ("certificate", |c| c.stable = StableCheckpoint::default()),
    ];
    for (name, twist) in alter.iter().chain(TWISTS) {
        let mut change = (*signed).clone();
        twist(&mut change);
        assert!(matches!(judge_change(&change), Err(Fault::Forged(_))), "{name}");
        assert!(!Proof::BadViewChange(Arc::new(change)).verify(&rules(), &keys(3)), "{name}");
    }
    for other in [Epoch(1), Epoch(u32::MAX)] {
        let mut rules = rules();
        rules.epoch = other;
        let proof = Proof::BadViewChange(signed.clone());
        assert!(!proof.verify(&rules, &keys(3)), "of another epoch");
    }
}

fn three(view: u64) -> Vec<Arc<ViewChange>> {
    (0..3).map(|r| change(r, view, vec![entry(1, Some((0, 1)), &[(0, 1)])])).collect()
}

/// Each is a NEW-VIEW for view 5, led and signed by replica 1.
fn bad_new_views() -> Vec<(&'static str, NewView)> {
    let twisted = |twist: fn(&mut Vec<Arc<ViewChange>>)| {
        let mut changes = three(5);
        twist(&mut changes);
        new_view(5, changes)
    };
    let mut all = vec![
        ("empty", twisted(Vec::clear)),
        ("below a quorum", twisted(|c| c.truncate(2))),
        ("sender twice", twisted(|c| c[1] = c[0].clone())),
        ("sender twice beside a quorum", twisted(|c| c.insert(1, c[0].clone()))),
        ("senders not ascending", twisted(|c| c.swap(0, 2))),
        ("for another view", twisted(|c| c[1] = change(1, 4, vec![]))),
        ("for a later view", twisted(|c| c[1] = change(1, 6, vec![]))),
        ("signature of a view-change", twisted(|c| Arc::make_mut(&mut c[1]).signature.0[3] ^= 1)),
        ("view-change of another sender", twisted(|c| Arc::make_mut(&mut c[2]).replica.0 = 3)),
        ("view-change of a stranger", twisted(|c| Arc::make_mut(&mut c[2]).replica.0 = 9)),
        (
            "undecided",
            twisted(|c| {
                let lie = vec![entry(1, Some((4, 9)), &[(4, 9)])];
                c[0] = change(0, 5, lie);
            }),
        ),
    ];
    for (name, twist) in TWISTS {
        let mut bad = sample();
        twist(&mut bad);
        if bad.view == View(5) {
            let mut changes = three(5);
            changes[2] = sign_change(&rules(), bad);
            all.push((name, new_view(5, changes)));
        }
    }
    all
}

#[test]
fn every_forged_new_view_is_refused_and_proves_its_leader_faulty() {
    let good = new_view(5, three(5));
    assert!(with_judge(|judge| judge.new_view(&good)).is_ok());
    let all = bad_new_views();
    assert!(all.len() >= 30);
    for (name, nv) in all {
        let nv = Arc::new(nv);
        let judged = with_judge(|judge| judge.new_view(&nv));
        assert!(matches!(judged, Err(Fault::Bad(_))), "{name}");
        let mut one = coordinator(0);
        let (result, out) = step(&mut one, 0, peer(3, GroupMessage::NewView(nv.clone())));
        assert!(matches!(result, Err(Reject::Misbehaviour(_))), "{name}");
        assert_eq!(one.report().view, View(0), "{name}");
        assert!(proven(&out).contains(&ReplicaId(1)), "{name}: the leader, not who showed it");
        assert!(!proven(&out).contains(&ReplicaId(3)), "{name}");
        assert!(Proof::BadNewView(nv).verify(&rules(), &keys(2)), "{name}");
    }
}

#[test]
fn a_new_view_that_its_leader_did_not_sign_is_refused_and_accuses_nobody() {
    let twisted = |twist: fn(&mut NewView)| {
        let mut nv = new_view(5, three(5));
        twist(&mut nv);
        nv
    };
    let forged = [
        ("view", twisted(|nv| nv.view = View(9))),
        ("first view", twisted(|nv| nv.view = View(0))),
        ("signature", twisted(|nv| nv.signature.0[1] ^= 1)),
        ("fewer", twisted(|nv| nv.changes.truncate(2))),
        ("none", twisted(|nv| nv.changes.clear())),
        ("other view-change", twisted(|nv| nv.changes[0] = change(0, 5, vec![]))),
        ("altered view-change", twisted(|nv| Arc::make_mut(&mut nv.changes[0]).view = View(6))),
        (
            "more than a group",
            twisted(|nv| {
                let one = nv.changes[0].clone();
                nv.changes.extend((0..60).map(|_| one.clone()));
            }),
        ),
        (
            "signed by another",
            twisted(|nv| {
                let rules = rules();
                let named = nv.changes.iter().map(|c| (rules.change_digest(c), c.signature));
                let bytes = rules.new_view_signed(nv.view, &named.collect::<Vec<_>>());
                nv.signature = keys(2).sign(&bytes);
            }),
        ),
    ];
    for (name, nv) in forged {
        let judged = with_judge(|judge| judge.new_view(&nv));
        assert!(matches!(judged, Err(Fault::Forged(_))), "{name}");
        let mut one = coordinator(0);
        let (result, out) = step(&mut one, 0, peer(3, GroupMessage::NewView(Arc::new(nv))));
        assert!(result.is_err(), "{name}");
        assert_eq!((proven(&out), one.report().view), (vec![], View(0)), "{name}");
    }
}

/// What is signed names its kind: no signature passes for one of another kind.
#[test]
fn signatures_of_one_kind_mean_nothing_as_another() {
    let rules = rules();
    let recover = rules.recover_signed(ReplicaId(1), Incarnation(1), View(1));
    let change = rules.change_signed(Digest([1; 32]));
    let nv = rules.new_view_signed(View(1), &[]);
    let checkpoint = crate::pbft::msg::Checkpoint::signed_bytes(
        rules.group,
        rules.epoch,
        Seq(8),
        Digest([1; 32]),
    );
    let all = [recover, change, nv, checkpoint];
    for (i, one) in all.iter().enumerate() {
        for other in &all[i + 1..] {
            assert!(!one.starts_with(&other[..16]), "the domains differ early");
        }
        assert!(one.windows(32).any(|w| w == rules.group.0), "the group is bound");
    }
}

#[test]
fn a_certificate_holds_whole_or_not_at_all() {
    let (rules, keys) = (rules(), PlainKeys { me: ReplicaId(0), n: 4 });
    let good = certificate(&rules, K, &[0, 1, 2]);
    assert!(rules.certified(&keys, &good));
    type Signatures = Vec<(ReplicaId, Signature)>;
    let with = |change: &dyn Fn(&mut Signatures)| {
        let mut proof = good.proof.to_vec();
        change(&mut proof);
        rules.certified(&keys, &StableCheckpoint { proof: Arc::new(proof), ..good.clone() })
    };
    assert!(!with(&|proof| proof.truncate(2)), "too few");
    assert!(!with(&|proof| proof.push((ReplicaId(3), Signature([0; 64])))), "one is forged");
    assert!(!with(&|proof| proof.swap(0, 1)), "not ascending");
    assert!(!with(&|proof| proof[1] = proof[0]), "one counts once");
    assert!(!with(&|proof| proof[2].0 = ReplicaId(9)), "no member");
    assert!(!rules.certified(&keys, &certificate(&rules, K + 1, &[0, 1, 2])), "no such checkpoint");
    assert!(!rules.certified(&keys, &StableCheckpoint::default()), "needs none, and has none");
}
