//! Replicas that have forgotten (design §3.10, trap 12; catalogue D-08).

use alloc::boxed::Box;
use alloc::sync::Arc;
use std::vec;
use std::vec::Vec;

use base::{Incarnation, Keyring, PillarId, ReplicaId, Seq, Signature, StableCheckpoint, View};

use super::world::World;
use super::{
    K, L, certificate, change, config, coordinator, feed, keys, new_view, peer, rules, sign_change,
    step,
};
use crate::group::link::{FromCoordinator, Grievance, ToCoordinator};
use crate::group::msg::{GroupMessage, Recover, ViewChange};
use crate::group::record::GroupRecord;
use crate::group::{Beginning, Coordinator, Effect, GroupFact, Input, SuspicionKind};
use crate::outbox::{Target, When};
use crate::pbft::Reject;

fn recover(replica: u16, incarnation: u64) -> Recover {
    let (replica, incarnation) = (ReplicaId(replica), Incarnation(incarnation));
    let view = View(0);
    let signature = keys(replica.0).sign(&rules().recover_signed(replica, incarnation, view));
    Recover { replica, incarnation, view, signature }
}

fn recovered(world: &World, me: u16) -> bool {
    !world.core(me).report().recovering
}

#[test]
fn a_replica_that_forgot_everything_votes_again_above_what_it_may_have_voted_for() {
    for (seed, load) in [(1, true), (2, false), (3, true), (4, false)] {
        let mut world = World::new(4, 1, seed);
        world.run(1000);
        world.load = load;
        world.crash(2);
        world.run(300);
        let top = world.top();
        world.start(2, Beginning::Forgetful);
        world.run(20);
        let node = world.node(2);
        let safe = !node.may_vote || node.voting_above.0 >= top.0 + 2 * L;
        assert!(safe, "not a vote before it is safe");
        assert!(world.run_until(60_000, |w| recovered(w, 2)), "seed {seed}");
        let node = world.node(2);
        assert!(node.may_vote && node.voting_above.0 >= top.0 + 2 * L, "{:?}", node.voting_above);
        assert!(node.executed >= node.voting_above);
        let above = node.voting_above;
        assert!(node.facts.contains(&GroupFact::Recovered(above)));
        // In the next life it is whole, and still says nothing about what it forgot.
        world.crash(2);
        world.start(2, Beginning::Whole);
        assert!(world.node(2).may_vote && world.node(2).voting_above >= above);
        world.load = true;
        world.crash(0);
        let before = world.top();
        assert!(world.run_until(20_000, |w| w.agree() && w.top() > before), "it counts again");
    }
}

/// One after the other, three times around, the leader too: knowledge of RECOVERs does not get
/// lost, and the group never stops for good.
#[test]
fn all_replicas_forget_in_turn() {
    let mut world = World::new(4, 1, 9);
    for round in 0..12u16 {
        world.run(1000);
        let victim = round % 4;
        world.crash(victim);
        world.start(victim, Beginning::Forgetful);
        assert!(world.run_until(120_000, |w| recovered(w, victim)), "round {round}");
        assert!(world.run_until(60_000, World::agree), "round {round}");
    }
    assert!(world.top() > Seq(500));
}

/// The view was begun with the word of lives that are all forgotten by now: it still stands, and
/// whoever comes later finds it.
#[test]
fn a_view_outlives_the_lives_that_began_it() {
    let mut world = World::new(4, 1, 13);
    world.run(1000);
    world.crash(0);
    world.run(5000);
    let view = world.core(1).report().view;
    assert!(view > View(0));
    world.start(0, Beginning::Whole);
    world.run(5000);
    for victim in [2, 3, 0, 2, 3, 0] {
        world.crash(victim);
        world.start(victim, Beginning::Forgetful);
        assert!(world.run_until(30_000, |w| recovered(w, victim) && w.agree()), "{victim}");
    }
    assert_eq!(world.core(1).report().view, view, "no view change was needed");
    // And one that was away all the time but forgot nothing.
    let mut late = coordinator(3);
    let nv = new_view(1, (0..3).map(|r| change(r, 1, vec![])).collect());
    let (replica, incarnation, base) = (ReplicaId(2), Incarnation(2), View(1));
    let signature = keys(2).sign(&rules().recover_signed(replica, incarnation, base));
    let recover = Recover { replica, incarnation, view: base, signature };
    feed(&mut late, 0, peer(0, GroupMessage::Recover(recover)));
    feed(&mut late, 1, peer(0, GroupMessage::NewView(Arc::new(nv))));
    assert_eq!(late.report().view, View(1));
}

#[test]
fn more_than_f_that_forgot_say_so_and_do_not_vote() {
    let mut world = World::new(4, 1, 10);
    world.run(1000);
    for victim in [1, 2] {
        world.crash(victim);
        world.start(victim, Beginning::Forgetful);
    }
    world.run(60_000);
    for victim in [1, 2] {
        assert!(!recovered(&world, victim) && !world.node(victim).may_vote);
        assert!(world.node(victim).facts.contains(&GroupFact::TooManyForgetful(2)));
    }
    assert!(world.node(3).facts.iter().all(|f| !matches!(f, GroupFact::TooManyForgetful(_))));
}

/// In a larger group two may forget at once.
#[test]
fn f_replicas_may_forget_together() {
    let mut world = World::new(7, 2, 11);
    world.run(1000);
    for victim in [0, 4] {
        world.crash(victim);
        world.start(victim, Beginning::Forgetful);
    }
    assert!(world.run_until(120_000, |w| recovered(w, 0) && recovered(w, 4)));
    assert!(world.run_until(60_000, World::agree));
}

/// The wishes that are told to all.
fn wishes(out: &[Effect]) -> Vec<View> {
    out.iter()
        .filter_map(|effect| match effect {
            Effect::Send { to: Target::All, message: GroupMessage::Wish { wish, .. }, .. } => {
                Some(*wish)
            }
            _ => None,
        })
        .collect()
}

/// Swarm seed 3002408: two of seven recovered, and the views that were theirs to begin took T and
/// 2T, one after the other.
#[test]
fn views_whose_leaders_recover_are_passed_over() {
    let mut world = World::new(7, 2, 17);
    world.run(500);
    for victim in [1, 2] {
        world.crash(victim);
        world.start(victim, Beginning::Forgetful);
    }
    world.lazy.insert(0);
    let before = world.top();
    assert!(world.run_until(8000, |w| w.agree() && w.top() > before));
    assert_eq!(world.core(4).report().view, View(3));
    let waited = |fact: &GroupFact| {
        matches!(fact, GroupFact::Suspicion { kind: SuspicionKind::NoNewView, .. })
    };
    assert!((0..7).all(|r| !world.node(r).facts.iter().any(waited)), "nobody waits for them");
    assert!(world.run_until(60_000, |w| recovered(w, 1) && recovered(w, 2)));
}

#[test]
fn a_replica_that_recovers_is_not_waited_for_as_leader() {
    let says = |wish, recovering| GroupMessage::Wish { wish, installed: View(0), recovering };
    let complaint = || {
        let (view, what, whom) = (View(0), Grievance::Stalled, ReplicaId(0));
        Input::Lane(ToCoordinator::Grievance { view, what, whom })
    };
    let begun = || {
        let mut one = coordinator(3);
        feed(&mut one, 0, Input::Turn);
        one
    };
    let mut one = begun();
    feed(&mut one, 1, peer(1, says(View(0), true)));
    assert_eq!(wishes(&step(&mut one, 2, complaint()).1), [View(2)], "view 1 is its own");
    // The others may not have heard of it: then they leave for that view, and this replica asks
    // them for the next one at once.
    let mut one = begun();
    feed(&mut one, 1, peer(1, says(View(0), true)));
    feed(&mut one, 2, peer(0, says(View(1), false)));
    let (_, out) = step(&mut one, 3, peer(2, says(View(1), false)));
    assert_eq!((wishes(&out).last(), one.report().asks_for), (Some(&View(2)), Some(View(1))));
    // Or it forgets in the middle of that.
    let mut one = begun();
    feed(&mut one, 2, peer(0, says(View(1), false)));
    let (_, out) = step(&mut one, 3, peer(2, says(View(1), false)));
    assert_eq!((wishes(&out).last(), one.report().asks_for), (Some(&View(1)), Some(View(1))));
    let (_, out) = step(&mut one, 4, peer(1, says(View(0), true)));
    assert_eq!(wishes(&out), [View(2)]);
    assert_eq!(wishes(&step(&mut one, 5, peer(1, says(View(0), true))).1), [], "once");
    // Also after the time of a view that does not begin.
    let mut one = begun();
    feed(&mut one, 1, peer(2, says(View(0), true)));
    feed(&mut one, 2, peer(0, says(View(1), false)));
    feed(&mut one, 3, peer(1, says(View(1), false)));
    assert_eq!(one.report().asks_for, Some(View(1)));
    assert_eq!(wishes(&step(&mut one, 1500, Input::Turn).1).last(), Some(&View(3)));
    // It counts itself, and where everybody says so, nobody is passed over.
    let mut one = forgetful(1);
    feed(&mut one, 0, Input::Turn);
    assert_eq!(wishes(&step(&mut one, 2, complaint()).1), [View(2)]);
    let mut one = begun();
    (0..3).for_each(|from| feed(&mut one, 1, peer(from, says(View(0), true))));
    assert_eq!(wishes(&step(&mut one, 2, complaint()).1), [View(3)]);
    let mut one = forgetful(3);
    feed(&mut one, 0, Input::Turn);
    (0..3).for_each(|from| feed(&mut one, 1, peer(from, says(View(0), true))));
    assert_eq!(wishes(&step(&mut one, 2, complaint()).1), [View(1)]);
}

/// A life signs RECOVER once before it knows the view, and at once again when it does: the others
/// take note of both. Beyond that each costs them a record, so that there is one a second.
#[test]
fn a_life_that_finds_the_view_is_acknowledged_at_once() {
    let mut one = coordinator(0);
    feed(&mut one, 0, Input::Turn);
    let say = |incarnation: u64, view: u64| {
        let (replica, incarnation, view) = (ReplicaId(2), Incarnation(incarnation), View(view));
        let signature = keys(2).sign(&rules().recover_signed(replica, incarnation, view));
        let message = GroupMessage::Recover(Recover { replica, incarnation, view, signature });
        Input::Peer { from: replica, incarnation, message }
    };
    let noted = |out: &[Effect]| {
        out.iter().filter(|e| matches!(e, Effect::Persist(GroupRecord::Recover(_)))).count()
    };
    let acked = |out: &[Effect]| {
        out.iter().find_map(|effect| match effect {
            Effect::Send { message: GroupMessage::RecoverAck { view, .. }, .. } => Some(*view),
            _ => None,
        })
    };
    let (_, out) = step(&mut one, 1000, say(2, 0));
    assert_eq!((noted(&out), acked(&out)), (1, Some(View(0))));
    let (_, out) = step(&mut one, 1001, say(2, 7));
    assert_eq!((noted(&out), acked(&out)), (1, Some(View(7))), "it waits for nothing else");
    let (_, out) = step(&mut one, 1002, say(2, 7));
    assert_eq!((noted(&out), acked(&out)), (0, None), "the same again");
    // A crowd of lives, as a faulty replica has them: one a second.
    let lives = (3..400).map(|life| step(&mut one, 1000 + 10 * life, say(life, 7)).1);
    let records: usize = lives.map(|out| noted(&out)).sum();
    assert_eq!(records, 3, "in four seconds, and two had been at once before");
}

pub(super) fn ack(
    from: u16,
    view: u64,
    installed: u64,
    stable: &StableCheckpoint,
    recovering: bool,
) -> Input {
    peer(
        from,
        GroupMessage::RecoverAck {
            incarnation: Incarnation(1),
            view: View(view),
            installed: View(installed),
            stable: stable.clone(),
            known: vec![],
            recovering,
        },
    )
}

pub(super) fn forgetful(me: u16) -> Coordinator {
    let cfg = config(4, 1, me, 1);
    let keys = Box::new(keys(me));
    Coordinator::new(cfg, keys, Beginning::Forgetful, StableCheckpoint::default(), vec![])
}

fn voting(out: &[Effect]) -> Vec<Option<Seq>> {
    out.iter()
        .filter_map(|effect| match effect {
            Effect::Lanes(FromCoordinator::Voting { above }) => Some(*above),
            _ => None,
        })
        .collect()
}

/// The bound: two windows above the highest certificate, for a number that it voted for was
/// within a window of a mark that a correct answerer was within a window of.
#[test]
fn the_bound_is_two_windows_above_what_a_quorum_of_others_has_certified() {
    let mut one = forgetful(3);
    let (_, out) = step(&mut one, 0, Input::Turn);
    assert_eq!(voting(&out), [None], "the very first thing that the lanes hear");
    let (low, high) =
        (certificate(&rules(), K, &[0, 1, 2]), certificate(&rules(), 5 * K, &[0, 1, 2]));
    assert_eq!(voting(&step(&mut one, 1, ack(0, 0, 0, &low, false)).1), []);
    assert_eq!(voting(&step(&mut one, 2, ack(0, 0, 0, &low, false)).1), [], "one sender is one");
    assert_eq!(voting(&step(&mut one, 3, ack(1, 0, 0, &high, false)).1), []);
    // One that recovers itself may have forgotten what it would have to know.
    assert_eq!(voting(&step(&mut one, 4, ack(2, 0, 0, &low, true)).1), []);
    let (_, out) = step(&mut one, 5, ack(2, 0, 0, &low, false));
    let until = Seq((5 * K + 2 * L).next_multiple_of(K));
    assert_eq!(voting(&out), [Some(until)]);
    assert_eq!(one.report().recovers_at, Some(until));
    // It asks the others to go there, and is done when it has executed that.
    let (_, out) = step(&mut one, 600, Input::Turn);
    let seek = GroupMessage::Seek(until);
    let asked = |e: &&Effect| matches!(e, Effect::Send { message, .. } if *message == seek);
    assert_eq!(out.iter().filter(asked).count(), 3);
    let short = certificate(&rules(), until.0 - K, &[0, 1, 2]);
    feed(&mut one, 700, Input::Lane(ToCoordinator::Stable(short)));
    assert!(one.report().recovering);
    let there = certificate(&rules(), until.0, &[0, 1, 2]);
    let (_, out) = step(&mut one, 800, Input::Lane(ToCoordinator::Stable(there.clone())));
    assert!(!one.report().recovering);
    let record = GroupRecord::Recovered { stable: there };
    assert!(out.iter().any(|e| matches!(e, Effect::Persist(r) if *r == record)));
    assert!(one.records().contains(&record));
}

fn recover_in(effect: &Effect) -> Option<View> {
    match effect {
        Effect::Send { message: GroupMessage::Recover(recover), .. } => Some(recover.view),
        _ => None,
    }
}

/// An answer of a replica that is in a later view counts only when this one is there, too: else
/// both could act on different words of the same replica.
#[test]
fn an_answer_counts_once_its_senders_view_is_here() {
    let mut one = forgetful(3);
    let zero = StableCheckpoint::default();
    feed(&mut one, 0, Input::Turn);
    feed(&mut one, 1, ack(0, 0, 0, &zero, false));
    feed(&mut one, 1, ack(1, 0, 2, &zero, false));
    feed(&mut one, 1, ack(2, 0, 0, &zero, false));
    assert_eq!(one.report().recovers_at, None);
    // Its own older life had a part in that view: that stands, for it has not voted since.
    let mut own = (*change(3, 2, vec![])).clone();
    own.incarnation = Incarnation(0);
    let changes = vec![change(0, 2, vec![]), change(1, 2, vec![]), sign_change(&rules(), own)];
    let nv = GroupMessage::NewView(Arc::new(new_view(2, changes)));
    assert_eq!(step(&mut one, 2, peer(1, nv)).0, Ok(()));
    // It says RECOVER anew, and the answers to the old one count no more.
    let (_, out) = step(&mut one, 3, Input::Turn);
    let said: Vec<View> = out.iter().filter_map(recover_in).collect();
    assert_eq!(said, [View(2); 3]);
    feed(&mut one, 4, ack(0, 0, 2, &zero, false));
    for from in 1..3 {
        feed(&mut one, 4, ack(from, 2, 2, &zero, false));
    }
    assert_eq!(one.report().recovers_at, None);
    feed(&mut one, 5, ack(0, 2, 0, &zero, false));
    assert_eq!(one.report().recovers_at, Some(Seq(2 * L)));
    // From now on it votes, and its older lives' word about later views is void for itself, too.
    let mut own = (*change(3, 6, vec![])).clone();
    own.incarnation = Incarnation(0);
    let changes = vec![change(0, 6, vec![]), change(1, 6, vec![]), sign_change(&rules(), own)];
    let nv = GroupMessage::NewView(Arc::new(new_view(6, changes)));
    assert!(step(&mut one, 6, peer(2, nv)).0.is_err());
    assert_eq!(one.report().view, View(2));
}

/// Trap 12. Replica 2 sent a VIEW-CHANGE for view 1, forgot it, and voted on in view 0. A
/// faulty leader has withheld that VIEW-CHANGE and uses it now: who has acknowledged the
/// RECOVER refuses it, also after a restart.
#[test]
fn the_withheld_view_change_of_an_older_life_is_refused() {
    let old = change(2, 1, vec![]);
    let nv = || {
        let changes = vec![change(0, 1, vec![]), old.clone(), change(3, 1, vec![])];
        GroupMessage::NewView(Arc::new(new_view(1, changes)))
    };
    // Without the RECOVER it is as good as any.
    let mut naive = coordinator(0);
    feed(&mut naive, 0, peer(1, nv()));
    assert_eq!(naive.report().view, View(1));
    let mut one = coordinator(0);
    feed(&mut one, 0, peer(2, GroupMessage::ViewChange(old.clone())));
    let say = Input::Peer {
        from: ReplicaId(2),
        incarnation: Incarnation(2),
        message: GroupMessage::Recover(recover(2, 2)),
    };
    let (_, out) = step(&mut one, 1, say);
    let persist = out.iter().position(|e| matches!(e, Effect::Persist(GroupRecord::Recover(_))));
    let acked = out.iter().position(|e| {
        matches!(e, Effect::Send { to: Target::One(ReplicaId(2)), when: When::Durable, .. })
    });
    assert!(persist.unwrap() < acked.unwrap(), "noted before it is promised");
    let refuses = |one: &mut Coordinator, ms| {
        let (result, out) = step(one, ms, peer(1, nv()));
        assert!(result.is_err());
        assert_eq!(one.report().view, View(0));
        assert!(step(one, ms, peer(2, GroupMessage::ViewChange(old.clone()))).0.is_err());
        out
    };
    // What nobody has signed makes this replica say nothing.
    let mut forged = Arc::unwrap_or_clone(old.clone());
    forged.signature = Signature([9; 64]);
    let changes = vec![change(0, 1, vec![]), Arc::new(forged), change(3, 1, vec![])];
    let (result, out) =
        step(&mut one, 2, peer(1, GroupMessage::NewView(Arc::new(new_view(1, changes)))));
    assert!(matches!(result, Err(Reject::Misbehaviour(_))));
    assert!(!out.iter().any(|e| matches!(e, Effect::Send { .. })), "{out:?}");
    let out = refuses(&mut one, 2);
    let told = |e: &&Effect| {
        matches!(e, Effect::Send { to: Target::All, message: GroupMessage::Recover(r), .. }
            if *r == recover(2, 2))
    };
    assert_eq!(out.iter().filter(told).count(), 1, "nobody else may have known");
    // Whoever sends it over and over makes this replica say no more for it.
    let mut said = 0;
    for ms in 3..1003 {
        said += refuses(&mut one, ms).iter().filter(told).count();
    }
    assert!((9..=10).contains(&said), "{said} times in a second");
    let records = one.records();
    let cfg = config(4, 1, 0, 1);
    let stable = StableCheckpoint::default();
    let again = Coordinator::new(cfg, Box::new(keys(0)), Beginning::Whole, stable, records);
    refuses(&mut { again }, 2000);
    // A leader that learns of the RECOVER drops what it had.
    let mut leader = coordinator(1);
    feed(&mut leader, 0, Input::Turn);
    let wish = GroupMessage::Wish { wish: View(1), installed: View(0), recovering: false };
    for from in [0, 2, 3] {
        feed(&mut leader, 1, peer(from, wish.clone()));
    }
    feed(&mut leader, 2, peer(2, GroupMessage::ViewChange(old.clone())));
    feed(&mut leader, 3, peer(0, GroupMessage::Recover(recover(2, 2))));
    feed(&mut leader, 4, peer(0, GroupMessage::ViewChange(change(0, 1, vec![]))));
    feed(&mut leader, 5, peer(3, GroupMessage::ViewChange(change(3, 1, vec![]))));
    assert_eq!(leader.report().view, View(0), "two are no quorum");
}

/// A faulty replica that has two lives at once, so that one replica knows of the second and the
/// leader does not, spoils a view; it must not spoil every view after it.
#[test]
fn whoever_has_just_begun_a_life_is_left_out_of_a_view_that_others_can_begin() {
    let later_life = |view| {
        let change = Arc::unwrap_or_clone(change(2, view, vec![]));
        sign_change(&rules(), ViewChange { incarnation: Incarnation(2), ..change })
    };
    let of_two = || Input::Peer {
        from: ReplicaId(2),
        incarnation: Incarnation(2),
        message: GroupMessage::ViewChange(later_life(1)),
    };
    let wish = GroupMessage::Wish { wish: View(1), installed: View(0), recovering: false };
    let slice = || {
        let (pillar, view, stable) = (PillarId(0), View(1), StableCheckpoint::default());
        Input::Lane(ToCoordinator::Slice { pillar, view, stable, entries: vec![] })
    };
    let leading = |recovered_at: u64, begin: u64| {
        let mut leader = coordinator(1);
        feed(&mut leader, 0, Input::Turn);
        feed(&mut leader, recovered_at, peer(0, GroupMessage::Recover(recover(2, 2))));
        for from in [0, 2, 3] {
            feed(&mut leader, begin, peer(from, wish.clone()));
        }
        feed(&mut leader, begin + 1, slice());
        feed(&mut leader, begin + 2, of_two());
        feed(&mut leader, begin + 3, peer(0, GroupMessage::ViewChange(change(0, 1, vec![]))));
        leader
    };
    let begun_by = |leader: &Coordinator| -> Vec<u16> {
        let begun = leader.records().into_iter().find_map(|record| match record {
            GroupRecord::Installed(nv) => Some(nv),
            _ => None,
        });
        begun.iter().flat_map(|nv| nv.changes.iter()).map(|change| change.replica.0).collect()
    };
    // The others can begin it.
    let mut leader = leading(1, 10);
    assert_eq!(begun_by(&leader), [0; 0]);
    feed(&mut leader, 20, peer(3, GroupMessage::ViewChange(change(3, 1, vec![]))));
    assert_eq!(begun_by(&leader), [0, 1, 3]);
    // They cannot: in the middle of its time the view begins with what there is.
    let mut leader = leading(1, 10);
    feed(&mut leader, 500, Input::Turn);
    assert_eq!(begun_by(&leader), [0; 0]);
    feed(&mut leader, 510, Input::Turn);
    assert_eq!(begun_by(&leader), [0, 1, 2]);
    // It recovered long ago: more views than the faulty ones can spoil take no longer to fail.
    assert_eq!(begun_by(&leading(1, 240_002)), [0, 1, 2]);
    // Two have begun lives, and one of them is needed: that which has been known for longer. Of
    // the other somebody may know more.
    let mut leader = leading(1, 20);
    feed(&mut leader, 25, peer(0, GroupMessage::Recover(recover(3, 5))));
    let of_three = Arc::unwrap_or_clone(change(3, 1, vec![]));
    let of_three = ViewChange { incarnation: Incarnation(5), ..of_three };
    let message = GroupMessage::ViewChange(sign_change(&rules(), of_three));
    let (from, incarnation) = (ReplicaId(3), Incarnation(5));
    feed(&mut leader, 30, Input::Peer { from, incarnation, message });
    feed(&mut leader, 600, Input::Turn);
    assert_eq!(begun_by(&leader), [0, 1, 2]);
}

/// The same in a group: for each view in turn one of the faulty ones has a VIEW-CHANGE of one life
/// for the leader, and tells somebody else of the next life. Otherwise they are silent, so that all
/// others have to be in a view that is to work.
#[test]
fn a_replica_of_many_lives_spoils_one_view_and_not_all() {
    for (seed, f) in [(31, 1), (32, 1), (33, 2), (34, 2)] {
        let n = 3 * f + 1;
        let correct = n - f;
        let mut world = World::new(n, f, seed);
        world.run(1000);
        for faulty in correct..n {
            world.crash(faulty);
            world.faulty.insert(faulty);
        }
        world.lazy.insert(0);
        let (before, mut told) = (world.top(), View(0));
        let works = |world: &World| world.agree() && world.top().0 > before.0 + L;
        for _ in 0..600_000 / 20 {
            let left = world.correct().into_iter().map(|r| world.core(r).change.left).max();
            let next = View(left.unwrap().0 + 1);
            let leader = next.leader(n).0;
            if next > told && leader < correct {
                let liar = correct + u16::try_from(next.0).unwrap() % f;
                let life = 2 * next.0;
                let change = Arc::unwrap_or_clone(change(liar, next.0, vec![]));
                let change = ViewChange { incarnation: Incarnation(life), ..change };
                let change = GroupMessage::ViewChange(sign_change(&rules(), change));
                let other = GroupMessage::Recover(recover(liar, life + 1));
                let said = [(leader, life, change), ((leader + 1) % correct, life + 1, other)];
                for (to, life, message) in said {
                    let (from, incarnation) = (ReplicaId(liar), Incarnation(life));
                    world.input(to, Input::Peer { from, incarnation, message });
                }
            }
            told = told.max(next);
            world.run(20);
            if works(&world) {
                break;
            }
        }
        assert!(works(&world), "seed {seed}: {told:?}");
        // Each spoils one, and leads one itself; the first leader is lazy.
        assert!(told.0 <= u64::from(2 * f + 3), "seed {seed}: {told:?}");
    }
}

/// At seven replicas and two faults: one acknowledges, and its word used up what may be learnt of
/// replica 1, so that what all others told of it was passed over, though their word counted.
#[test]
fn what_an_acknowledgement_tells_is_noted_before_it_counts() {
    let told = |from: u16, known: Vec<Recover>| {
        let message = GroupMessage::RecoverAck {
            incarnation: Incarnation(1),
            view: View(0),
            installed: View(0),
            stable: StableCheckpoint::default(),
            known,
            recovering: false,
        };
        peer(from, message)
    };
    let mut one = forgetful(3);
    feed(&mut one, 0, Input::Turn);
    // Two old lives of 1 come first.
    for life in [2, 3] {
        feed(&mut one, 1, peer(2, GroupMessage::Recover(recover(1, life))));
    }
    let knows = |one: &Coordinator, life| {
        let newest = GroupRecord::Recover(recover(1, life));
        one.records().contains(&newest)
    };
    assert!(knows(&one, 3));
    for from in [0, 2] {
        feed(&mut one, 2, told(from, vec![recover(1, 9)]));
    }
    // What cannot be verified counts for nothing, nor does the word of who passes it on.
    let mut forged = recover(1, 10);
    forged.signature = Signature([9; 64]);
    assert!(step(&mut one, 3, told(1, vec![forged])).0.is_err());
    assert_eq!(one.report().recovers_at, None);
    feed(&mut one, 4, told(1, vec![recover(1, 9)]));
    assert_eq!(one.report().recovers_at, Some(Seq(2 * L)));
    assert!(knows(&one, 9));
    // And who tells news for ever has few of them noted.
    let mut one = forgetful(3);
    feed(&mut one, 0, Input::Turn);
    let mut records = 0;
    for ms in 0..20_000u64 {
        let (_, out) = step(&mut one, ms, told(2, vec![recover(2, ms + 2)]));
        records += out.iter().filter(|e| matches!(e, Effect::Persist(_))).count();
    }
    assert!((15..=22).contains(&records), "one a second: {records}");
    // Nor does one that tells many lives at once.
    let lives = (30_000..30_064).map(|life| recover(2, life)).collect();
    let (_, out) = step(&mut one, 30_000, told(2, lives));
    assert_eq!(out.iter().filter(|e| matches!(e, Effect::Persist(_))).count(), 1);
    assert!(one.records().contains(&GroupRecord::Recover(recover(2, 30_063))));
}

/// Who has recovered and restarts on an older checkpoint makes no VIEW-CHANGE from below.
#[test]
fn nothing_is_said_about_numbers_that_may_be_forgotten() {
    let rules = rules();
    let stable = certificate(&rules, 10 * K, &[0, 1, 2]);
    let records = vec![GroupRecord::Recovered { stable }];
    let cfg = config(4, 1, 3, 1);
    let start = certificate(&rules, K, &[0, 1, 2]);
    let mut one = Coordinator::new(cfg, Box::new(keys(3)), Beginning::Whole, start, records);
    let (_, out) = step(&mut one, 0, Input::Turn);
    assert_eq!(voting(&out), [Some(Seq(10 * K))]);
    let wish = GroupMessage::Wish { wish: View(1), installed: View(0), recovering: false };
    for from in 0..3 {
        feed(&mut one, 1, peer(from, wish.clone()));
    }
    let mut slice = |ms, k: u64| {
        let stable = certificate(&rules, k * K, &[0, 1, 2]);
        let (view, pillar) = (View(1), PillarId(0));
        let input = Input::Lane(ToCoordinator::Slice { pillar, view, stable, entries: vec![] });
        let (_, out) = step(&mut one, ms, input);
        let said =
            |e: &&Effect| matches!(e, Effect::Send { message: GroupMessage::ViewChange(_), .. });
        out.iter().filter(said).count()
    };
    assert_eq!(slice(2, 1), 0);
    assert_eq!(slice(3, 9), 0);
    assert_eq!(slice(4, 10), 1);
}

/// A faulty replica that recovers for ever costs a bounded number of records and null batches.
#[test]
fn recovering_for_ever_costs_little() {
    let mut one = coordinator(0);
    let (mut records, mut filled) = (0, 0);
    for ms in 0..20_000u64 {
        let life = ms + 2;
        let say =
            |message| Input::Peer { from: ReplicaId(2), incarnation: Incarnation(life), message };
        let (_, out) = step(&mut one, ms, say(GroupMessage::Recover(recover(2, life))));
        records += out.iter().filter(|e| matches!(e, Effect::Persist(_))).count();
        let (_, out) = step(&mut one, ms, say(GroupMessage::Seek(Seq(ms))));
        filled += out.iter().filter(|e| matches!(e, Effect::Lanes(_))).count();
    }
    assert!((15..=21).contains(&records), "one a second: {records}");
    assert!((1..=100).contains(&filled), "numbers cost time: {filled}");
    assert!(one.records().len() == 1, "and the newest is kept");
}

/// A power cut stopped everybody. What a life has executed again so far says nothing about what
/// the lives before had executed, and the votes that the forgetful one forgot are bounded by that.
#[test]
fn an_answer_after_a_restart_names_what_was_certified_before_it() {
    let old = certificate(&rules(), 100 * K, &[0, 1, 2]);
    let records = vec![
        GroupRecord::Stable(certificate(&rules(), 99 * K, &[0, 1, 2])),
        GroupRecord::Stable(old.clone()),
    ];
    let cfg = config(4, 1, 0, 1);
    let disk = certificate(&rules(), K, &[0, 1, 2]);
    let mut one = Coordinator::new(cfg, Box::new(keys(0)), Beginning::Whole, disk, records);
    let (_, out) = step(&mut one, 0, Input::Turn);
    // Nor need its lanes wait until others say so, who may be waiting, too.
    let word = FromCoordinator::Certified(old.clone());
    assert!(out.iter().any(|e| matches!(e, Effect::Lanes(w) if *w == word)));
    let say = Input::Peer {
        from: ReplicaId(3),
        incarnation: Incarnation(2),
        message: GroupMessage::Recover(recover(3, 2)),
    };
    let (_, out) = step(&mut one, 1, say);
    let acked = out.iter().find_map(|e| match e {
        Effect::Send { message: GroupMessage::RecoverAck { stable, .. }, .. } => Some(stable),
        _ => None,
    });
    assert_eq!(acked, Some(&old));
}

fn asks_leader(out: &[Effect]) -> Vec<Seq> {
    out.iter()
        .filter_map(|effect| match effect {
            Effect::Send {
                to: Target::One(ReplicaId(0)),
                message: GroupMessage::Seek(seq),
                ..
            } => Some(*seq),
            _ => None,
        })
        .collect()
}

/// A faulty replica asks everybody for numbers but the leader, so that they blame it.
#[test]
fn whoever_is_asked_for_numbers_asks_the_leader_until_they_are_there() {
    let mut one = coordinator(1);
    feed(&mut one, 0, Input::Turn);
    let (_, out) = step(&mut one, 10, peer(3, GroupMessage::Seek(Seq(2 * K))));
    assert_eq!(asks_leader(&out), [Seq(2 * K)]);
    let mut again = 0;
    for ms in (100..5000).step_by(100) {
        again += asks_leader(&step(&mut one, ms, Input::Turn).1).len();
    }
    assert!((4..=6).contains(&again), "{again}");
    let there = certificate(&rules(), 2 * K, &[0, 1, 2]);
    feed(&mut one, 5000, Input::Lane(ToCoordinator::Stable(there)));
    for ms in (5100..9000).step_by(100) {
        assert_eq!(asks_leader(&step(&mut one, ms, Input::Turn).1), []);
    }
    // The leader itself asks nobody, and whoever leads is not asked for itself.
    let mut leader = coordinator(0);
    let (_, out) = step(&mut leader, 10, peer(3, GroupMessage::Seek(Seq(2 * K))));
    assert!(out.iter().all(|e| !matches!(e, Effect::Send { message: GroupMessage::Seek(_), .. })));
    let mut other = coordinator(2);
    feed(&mut other, 0, Input::Turn);
    let (_, out) = step(&mut other, 10, peer(0, GroupMessage::Seek(Seq(2 * K))));
    assert_eq!(asks_leader(&out), []);
}

/// A group at rest says little, and what is passed on to the leader may be lost or refused: it is
/// said again long before the leader is blamed for it. Whoever asks for ever makes nobody say more.
#[test]
fn what_an_idle_group_is_asked_for_is_soon_asked_for_again() {
    let mut one = coordinator(1);
    // At rest: its next heartbeat is 5 s away.
    [0, 1_000].into_iter().for_each(|ms| feed(&mut one, ms, Input::Turn));
    feed(&mut one, 1_010, peer(3, GroupMessage::Seek(Seq(2 * K))));
    let (_, out) = step(&mut one, 2_010, Input::Turn);
    assert_eq!(asks_leader(&out), [Seq(2 * K)]);
    let says = |e: &&Effect| matches!(e, Effect::Send { to: Target::All, .. });
    let mut said = 0;
    for ms in (2_020..12_010).step_by(10) {
        feed(&mut one, ms, peer(3, GroupMessage::Seek(Seq(2 * K + ms / 200))));
        said += step(&mut one, ms, Input::Turn).1.iter().filter(says).count();
    }
    assert!((9..=10).contains(&said), "{said} times in ten seconds");
    // What is passed on is all that is owed: the share there may be enough for one request.
    let (_, out) = step(&mut one, 13_000, peer(2, GroupMessage::Seek(Seq(K))));
    assert_eq!(asks_leader(&out), [one.peers.filling]);
}
