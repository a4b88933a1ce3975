//! Proofs: they hold for everybody, spread once, and never name a correct replica.

use alloc::boxed::Box;
use alloc::sync::Arc;
use std::vec;
use std::vec::Vec;

use base::{GroupId, Incarnation, Keyring, Reader, ReplicaId, Seq, StableCheckpoint};

use super::world::World;
use super::{Dice, certificate, change, config, coordinator, digest, entry, keys, new_view, peer};
use super::{feed, rules, sign_change, step};
use crate::group::evidence::{Proof, ProofKind};
use crate::group::link::{Grievance, ToCoordinator};
use crate::group::msg::{GroupMessage, ViewChange};
use crate::group::record::GroupRecord;
use crate::group::{Beginning, Coordinator, Effect, GroupFact, Input};
use crate::outbox::Target;
use crate::pbft::Reject;
use crate::pbft::msg::Checkpoint;

fn said(signer: u16, seq: u64, d: u8) -> Checkpoint {
    let rules = rules();
    let bytes = Checkpoint::signed_bytes(rules.group, rules.epoch, Seq(seq), digest(d));
    Checkpoint { seq: Seq(seq), digest: digest(d), signature: keys(signer).sign(&bytes) }
}

fn wrong_checkpoint(signer: u16) -> Proof {
    Proof::WrongCheckpoint {
        signer: ReplicaId(signer),
        said: said(signer, 8, 99),
        certified: certificate(&rules(), 8, &[0, 1, 2]),
    }
}

fn two(one: Arc<ViewChange>, other: Arc<ViewChange>) -> Proof {
    let swap = rules().change_digest(&one) > rules().change_digest(&other);
    if swap { Proof::TwoViewChanges(other, one) } else { Proof::TwoViewChanges(one, other) }
}

fn accused(out: &[Effect]) -> Vec<(ReplicaId, ProofKind)> {
    out.iter()
        .filter_map(|effect| match effect {
            Effect::Fact(GroupFact::Proof { accused, proof }) => Some((*accused, proof.kind())),
            _ => None,
        })
        .collect()
}

fn told(out: &[Effect]) -> usize {
    let tells = |e: &&Effect| {
        matches!(e, Effect::Send { to: Target::All, message: GroupMessage::Evidence(_), .. })
    };
    out.iter().filter(tells).count()
}

#[test]
fn a_proof_is_verified_kept_and_passed_on_once() {
    let proof = Arc::new(wrong_checkpoint(3));
    assert!(proof.verify(&rules(), &keys(1)));
    let mut one = coordinator(0);
    let (result, out) = step(&mut one, 0, peer(1, GroupMessage::Evidence(proof.clone())));
    assert_eq!(result, Ok(()));
    assert_eq!(accused(&out), [(ReplicaId(3), ProofKind::WrongCheckpoint)]);
    assert_eq!(told(&out), 1);
    assert!(out.iter().any(|e| matches!(e, Effect::Persist(GroupRecord::Proof(_)))));
    let (result, out) = step(&mut one, 1, peer(2, GroupMessage::Evidence(proof.clone())));
    assert!(matches!(result, Err(Reject::Stale(_))) && out.is_empty());
    // One who was not there is told when it comes; it survives a restart.
    let (_, out) = step(&mut one, 2, Input::Connected { peer: ReplicaId(2) });
    let sent = |e: &&Effect| matches!(e, Effect::Send { message: GroupMessage::Evidence(_), .. });
    assert_eq!(out.iter().filter(sent).count(), 1);
    let cfg = config(4, 1, 0, 1);
    let stable = StableCheckpoint::default();
    let records = one.records();
    let again = Coordinator::new(cfg, Box::new(keys(0)), Beginning::Whole, stable, records);
    assert_eq!(again.proofs(), [proof]);
}

#[test]
fn a_lane_that_finds_a_wrong_checkpoint_makes_it_known() {
    let Proof::WrongCheckpoint { signer, said, certified } = wrong_checkpoint(2) else { return };
    let mut one = coordinator(0);
    let message = ToCoordinator::WrongCheckpoint { signer, said, certified };
    let (_, out) = step(&mut one, 0, Input::Lane(message.clone()));
    assert_eq!((accused(&out).len(), told(&out), one.report().proofs), (1, 1, 1));
    let (_, out) = step(&mut one, 1, Input::Lane(message));
    assert_eq!(accused(&out).len(), 0);
}

/// One VIEW-CHANGE to the leader and another to everybody else: whoever holds one of them sees
/// the other in the NEW-VIEW.
#[test]
fn two_view_changes_for_one_view_are_found_directly_and_in_a_new_view() {
    let one = change(2, 1, vec![]);
    let other = change(2, 1, vec![entry(1, None, &[(0, 1)])]);
    let expected = [(ReplicaId(2), ProofKind::TwoViewChanges)];
    let mut direct = coordinator(0);
    feed(&mut direct, 0, peer(2, GroupMessage::ViewChange(one.clone())));
    let (result, out) = step(&mut direct, 1, peer(2, GroupMessage::ViewChange(other.clone())));
    assert!(matches!(result, Err(Reject::Misbehaviour(_))));
    assert_eq!(accused(&out), expected);
    let mut through = coordinator(0);
    feed(&mut through, 0, peer(2, GroupMessage::ViewChange(one)));
    let nv = new_view(1, vec![change(0, 1, vec![]), change(1, 1, vec![]), other]);
    let (result, out) = step(&mut through, 1, peer(1, GroupMessage::NewView(Arc::new(nv))));
    assert_eq!(result, Ok(()), "the view begins all the same");
    assert_eq!(accused(&out), expected);
}

/// Everything here is what correct replicas do sign, or what nobody signed.
#[test]
fn what_proves_nothing_is_refused() {
    let rules = rules();
    let in_life = |life: u64, entries| {
        let mut change = (*change(2, 1, entries)).clone();
        change.incarnation = Incarnation(life);
        sign_change(&rules, change)
    };
    let q = || vec![entry(1, None, &[(0, 1)])];
    let good = new_view(1, (0..3).map(|r| change(r, 1, vec![])).collect());
    let mut forged = wrong_checkpoint(3);
    if let Proof::WrongCheckpoint { signer, .. } = &mut forged {
        *signer = ReplicaId(1);
    }
    let mut stranger = wrong_checkpoint(3);
    if let Proof::WrongCheckpoint { signer, .. } = &mut stranger {
        *signer = ReplicaId(40);
    }
    let agreed = Proof::WrongCheckpoint {
        signer: ReplicaId(1),
        said: said(1, 8, 8),
        certified: certificate(&rules, 8, &[0, 1, 2]),
    };
    let elsewhere = Proof::WrongCheckpoint {
        signer: ReplicaId(1),
        said: said(1, 16, 99),
        certified: certificate(&rules, 8, &[0, 1, 2]),
    };
    let uncertified = Proof::WrongCheckpoint {
        signer: ReplicaId(1),
        said: said(1, 8, 99),
        certified: certificate(&rules, 8, &[0, 1]),
    };
    let genesis = Proof::WrongCheckpoint {
        signer: ReplicaId(1),
        said: said(1, 0, 99),
        certified: StableCheckpoint::default(),
    };
    let (a, b) = (in_life(1, vec![]), in_life(1, q()));
    let reversed = match two(a.clone(), b.clone()) {
        Proof::TwoViewChanges(one, other) => Proof::TwoViewChanges(other, one),
        _ => return,
    };
    let mut altered = (*b).clone();
    altered.entries.clear();
    altered.stable = certificate(&rules, 8, &[0, 1, 2]);
    let proofs = [
        ("not signed by the accused", forged),
        ("no member", stranger),
        ("agrees with the certificate", agreed),
        ("about another number", elsewhere),
        ("no certificate", uncertified),
        ("beginning of the history", genesis),
        ("of two lives", two(in_life(1, vec![]), in_life(2, q()))),
        ("of two views", two(change(2, 1, vec![]), change(2, 2, vec![]))),
        ("of two replicas", two(change(2, 1, vec![]), change(1, 1, q()))),
        ("the same twice", Proof::TwoViewChanges(a.clone(), a.clone())),
        ("in another order", reversed),
        ("one of them altered", two(a, Arc::new(altered))),
        ("a good view-change", Proof::BadViewChange(in_life(1, q()))),
        ("a good new-view", Proof::BadNewView(Arc::new(good))),
    ];
    for (name, proof) in proofs {
        assert!(!proof.verify(&rules, &keys(0)), "{name}");
        let mut one = coordinator(0);
        let (result, out) = step(&mut one, 0, peer(1, GroupMessage::Evidence(Arc::new(proof))));
        assert!(matches!(result, Err(Reject::Misbehaviour(_))), "{name}");
        assert_eq!((accused(&out).len(), one.report().proofs), (0, 0), "{name}");
    }
    assert!(two(in_life(1, vec![]), in_life(1, q())).verify(&rules, &keys(0)));
}

/// Everything that correct replicas say in a lively group, twisted at random, replayed under
/// any name and wrapped up as evidence: nobody is accused.
#[test]
fn no_twisted_message_accuses_a_correct_replica() {
    let heard = lively_group();
    let view_changes: Vec<Arc<ViewChange>> = heard.iter().flat_map(changes_in).collect();
    assert!(heard.len() > 20 && view_changes.len() > 5, "{}", heard.len());
    let mut dice = Dice(77);
    let mut one = coordinator(3);
    let mut accepted = 0;
    for ms in 0..20_000u64 {
        let mut pick = |len: usize| usize::try_from(dice.below(len as u64)).unwrap();
        let message = match pick(4) {
            0 => {
                let (a, b) = (pick(view_changes.len()), pick(view_changes.len()));
                let proof = two(view_changes[a].clone(), view_changes[b].clone());
                GroupMessage::Evidence(Arc::new(proof))
            }
            1 => {
                let change = view_changes[pick(view_changes.len())].clone();
                GroupMessage::Evidence(Arc::new(Proof::BadViewChange(change)))
            }
            _ => {
                let mut bytes = vec![];
                heard[pick(heard.len())].encode(&mut bytes);
                let (at, bit) = (pick(bytes.len()), pick(9));
                if bit < 8 {
                    bytes[at] ^= 1 << bit;
                }
                let read = GroupMessage::decode(GroupId::default(), &mut Reader::new(&bytes));
                let Ok(message) = read else { continue };
                message
            }
        };
        let from = u16::try_from(pick(3)).unwrap();
        // Its budget is that of a patient liar.
        let (result, out) = step(&mut one, ms * 100, peer(from, message));
        accepted += usize::from(result.is_ok());
        assert_eq!(accused(&out), []);
    }
    assert!(accepted > 50, "some of it must get through: {accepted}");
    assert_eq!(one.report().proofs, 0);
}

fn lively_group() -> Vec<GroupMessage> {
    let mut world = World::new(4, 1, 12);
    for round in 0..6u16 {
        world.run(1500);
        let victim = round % 4;
        for me in 0..4 {
            let view = world.core(me).report().view;
            let what = Grievance::Stalled;
            world.input(
                me,
                Input::Lane(ToCoordinator::Grievance { view, what, whom: view.leader(4) }),
            );
        }
        world.crash(victim);
        let beginning = if round % 2 == 0 { Beginning::Forgetful } else { Beginning::Whole };
        world.start(victim, beginning);
        world.run(20_000);
    }
    let decode =
        |bytes: &Vec<u8>| GroupMessage::decode(GroupId::default(), &mut Reader::new(bytes));
    world.heard.values().map(|bytes| decode(bytes).unwrap()).collect()
}

fn changes_in(message: &GroupMessage) -> Vec<Arc<ViewChange>> {
    match message {
        GroupMessage::ViewChange(change) => vec![change.clone()],
        GroupMessage::NewView(nv) => nv.changes.clone(),
        _ => vec![],
    }
}
