//! View changes of whole groups (catalogue L-07, L-08, L-09, L-10, P-07).

use alloc::boxed::Box;
use alloc::sync::Arc;
use std::vec;
use std::vec::Vec;

use base::{Incarnation, PillarId, ReplicaId, Seq, StableCheckpoint, View};

use super::world::World;
use super::{change, config, coordinator, entry, feed, keys, new_view, peer, step};
use crate::group::link::{FromCoordinator, Grievance, ToCoordinator};
use crate::group::msg::GroupMessage;
use crate::group::{
    Beginning, Coordinator, CoordinatorConfig, Effect, GroupFact, Input, SuspicionKind,
};
use crate::outbox::{Target, When};
use crate::pbft::{Leaders, Reject};

#[test]
fn a_group_without_faults_stays_in_its_view() {
    let mut world = World::new(4, 1, 1);
    world.run(20_000);
    assert!(world.agree());
    assert!((0..4).all(|r| world.core(r).report().installed == 0), "no view change");
    assert!(world.top() > Seq(1000));
}

#[test]
fn a_dead_leader_is_replaced_and_the_group_goes_on() {
    let mut world = World::new(4, 1, 2);
    world.run(1000);
    world.crash(0);
    let before = world.top();
    assert!(world.run_until(3000, |w| w.agree() && w.top() > before));
    assert_eq!(world.core(1).report().view, View(1));
    let suspect = GroupFact::Suspicion {
        replica: ReplicaId(0),
        kind: SuspicionKind::Leader(Grievance::Stalled),
    };
    assert!((1..4).all(|r| world.node(r).facts.contains(&suspect)));
    // It comes back, forgets nothing, and finds the view.
    world.start(0, Beginning::Whole);
    assert!(world.run_until(5000, World::agree));
    assert_eq!(world.node(0).installed, View(1));
}

#[test]
fn leaders_that_fail_in_a_row_are_passed_with_doubled_timeouts() {
    let mut world = World::new(7, 2, 3);
    world.run(500);
    world.crash(0);
    world.crash(1);
    let before = world.top();
    assert!(world.run_until(8000, |w| w.agree() && w.top() > before));
    assert_eq!(world.core(4).report().view, View(2));
    let late = GroupFact::Suspicion { replica: ReplicaId(1), kind: SuspicionKind::NoNewView };
    assert!(world.node(4).facts.contains(&late));
}

/// A leader that has installed its view and orders nothing is replaced, too.
#[test]
fn lazy_leaders_are_passed() {
    let mut world = World::new(7, 2, 4);
    world.lazy.extend([0, 1]);
    assert!(world.run_until(20_000, |w| w.agree() && w.top() > Seq(100)));
    assert_eq!(world.core(4).report().view.leader(7), ReplicaId(2));
}

#[test]
fn through_loss_delay_and_repetition_correct_replicas_find_one_view() {
    for seed in 0..60 {
        let mut world = World::new(4, 1, seed);
        (world.loss, world.repeat, world.delay_ms) = (30, 50, 400);
        if seed % 2 == 0 {
            world.lazy.insert(0);
        }
        for _ in 0..3 {
            let victim = u16::try_from(world.dice.below(4)).unwrap();
            world.run(4000);
            world.crash(victim);
            world.run(6000);
            world.start(victim, Beginning::Whole);
        }
        (world.loss, world.delay_ms) = (0, 5);
        let before = world.top();
        let found = world.run_until(120_000, |w| w.agree() && w.top().0 > before.0 + 100);
        assert!(found, "seed {seed}: {:?}", world.core(1).report());
    }
}

/// Whoever stops voting in a view is followed by a quorum: nobody leaves alone, however links
/// are cut.
#[test]
fn partitions_of_every_kind_heal_into_one_view() {
    for seed in 0..40 {
        let mut world = World::new(4, 1, 1000 + seed);
        world.run(1000);
        // Any set of one-way cuts: symmetric, asymmetric, non-transitive.
        for from in 0..4u16 {
            for to in (0..4u16).filter(|to| *to != from) {
                if world.dice.chance(40) {
                    world.cut.insert((from, to));
                }
            }
        }
        world.run(15_000);
        world.cut.clear();
        let before = world.top();
        let found = world.run_until(130_000, |w| w.agree() && w.top().0 > before.0 + 100);
        assert!(found, "seed {seed}");
    }
}

#[test]
fn one_replica_that_hears_nobody_departs_from_nothing() {
    let mut world = World::new(4, 1, 5);
    world.cut.extend([(0, 3), (1, 3), (2, 3)]);
    world.run(30_000);
    assert!(world.node(3).votes_in == Some(View(0)), "it wishes, and has not left");
    assert_eq!(world.core(3).report().asks_for, None);
    assert!((0..3).all(|r| world.core(r).report().installed == 0), "one wish moves nobody");
}

/// L-07: f liars wish for whatever they like, send huge VIEW-CHANGEs and ask for ever.
#[test]
fn a_storm_of_f_liars_moves_nothing() {
    let mut world = World::new(4, 1, 6);
    world.run(500);
    world.faulty.insert(3);
    for round in 0..2000u64 {
        let wish = View(if round % 2 == 0 { u64::MAX >> 1 } else { round });
        let installed = View(0);
        world.send(3, Target::All, &GroupMessage::Wish { wish, installed, recovering: true });
        for view in round * 5 + 1..=round * 5 + 5 {
            let entries = vec![entry(1, Some((0, 1)), &[(0, 1)])];
            world.send(3, Target::All, &GroupMessage::ViewChange(change(3, view, entries)));
        }
        world.send(3, Target::All, &GroupMessage::Seek(Seq(u64::MAX >> 1)));
        let have = Seq(round);
        let (want, stable) = (Seq(8 * round), StableCheckpoint::default());
        world.send(3, Target::All, &GroupMessage::WantCheckpoint { have, want, stable });
        world.run(20);
    }
    for r in 0..3 {
        assert_eq!(world.core(r).report().view, View(0));
        assert_eq!(world.core(r).report().asks_for, None);
        assert!(world.core(r).report().stale > 100, "beyond its budget it is not heard");
        assert!(
            world.nodes[usize::from(r)]
                .records
                .iter()
                .all(|record| { matches!(record, crate::group::record::GroupRecord::Stable(_)) })
        );
    }
    assert!(world.top() > Seq(1000), "and the group works");
}

/// Where leaders rotate, a liar that wishes for each next view ends this one with one correct
/// replica, and tells that one alone another proposal each time: nobody else would blame it.
#[test]
fn a_rotating_leader_that_tells_one_replica_another_proposal_ends_no_view() {
    for leaders in [Leaders::Fixed, Leaders::Rotating] {
        let cfg = CoordinatorConfig { leaders, ..config(4, 1, 0, 1) };
        let beginning = (Beginning::Whole, StableCheckpoint::default());
        let mut one = Coordinator::new(cfg, Box::new(keys(0)), beginning.0, beginning.1, vec![]);
        feed(&mut one, 0, Input::Turn);
        let (view, whom) = (View(0), ReplicaId(2));
        let grievance = |what| Input::Lane(ToCoordinator::Grievance { view, what, whom });
        let wishes = |(result, out): (Result<(), Reject>, Vec<Effect>)| {
            result.expect("news");
            let wish = |e: &Effect| match e {
                Effect::Send { message: GroupMessage::Wish { wish, .. }, .. } => *wish > view,
                _ => false,
            };
            out.iter().any(wish)
        };
        let fixed = leaders == Leaders::Fixed;
        assert_eq!(wishes(step(&mut one, 10, grievance(Grievance::Equivocates))), fixed);
        if !fixed {
            assert_eq!(one.roster(Seq(0)).blames, Some(whom), "should others end the view");
            let progress = ToCoordinator::Progress { view, delivered: Seq(1) };
            feed(&mut one, 15, Input::Lane(progress));
            assert!(!wishes(step(&mut one, 5_000, Input::Turn)), "nor when its time is over");
            assert!(wishes(step(&mut one, 5_001, grievance(Grievance::Slow))), "nor is it safe");
        }
    }
}

/// L-10: leaders are replaced again and again; what a coordinator holds does not grow.
#[test]
fn a_thousand_view_changes_leave_nothing_behind() {
    let mut world = World::new(4, 1, 7);
    for round in 0..1000u64 {
        let view = world.core(0).report().view;
        for me in 0..4 {
            let what = Grievance::Slow;
            world.input(
                me,
                Input::Lane(ToCoordinator::Grievance { view, what, whom: view.leader(4) }),
            );
        }
        assert!(world.run_until(5000, |w| w.agree() && w.node_view(0) > view), "round {round}");
    }
    assert_eq!(world.core(2).report().installed, 1000);
    let records = world.core(2).records();
    assert!(records.len() <= 2, "a checkpoint and a NEW-VIEW: {}", records.len());
    assert!(world.top() > Seq(1000), "and the group worked");
}

impl World {
    fn node_view(&self, me: u16) -> View {
        self.nodes[usize::from(me)].installed
    }
}

/// The barrier: no VIEW-CHANGE before the last pillar has stopped, and what each of them
/// promised is in it.
#[test]
fn all_slices_or_no_view_change() {
    let cfg = super::config(4, 1, 2, 3);
    let keys = std::boxed::Box::new(super::keys(2));
    let start = StableCheckpoint::default();
    let mut one =
        crate::group::Coordinator::new(cfg, keys, Beginning::Whole, start.clone(), vec![]);
    let wish = |w| GroupMessage::Wish { wish: View(w), installed: View(0), recovering: false };
    feed(&mut one, 0, Input::Turn);
    // One wish moves nothing, two are joined, and that makes a quorum.
    let (_, out) = step(&mut one, 1, peer(0, wish(1)));
    assert!(!out.iter().any(|e| matches!(e, Effect::Lanes(_))));
    let (_, out) = step(&mut one, 2, peer(1, wish(1)));
    let stop = FromCoordinator::Stop { view: View(1) };
    assert!(out.iter().any(|e| matches!(e, Effect::Lanes(l) if *l == stop)));
    let slice = |pillar: u16, entries| {
        let stable = start.clone();
        Input::Lane(ToCoordinator::Slice {
            pillar: PillarId(pillar),
            view: View(1),
            stable,
            entries,
        })
    };
    let p = |seq| vec![entry(seq, Some((0, 1)), &[(0, 1)])];
    assert!(change_in(&step(&mut one, 3, slice(2, p(3))).1).is_none());
    assert!(change_in(&step(&mut one, 4, slice(2, p(3))).1).is_none(), "pillars are counted");
    assert!(change_in(&step(&mut one, 5, slice(0, p(1))).1).is_none());
    let (_, out) = step(&mut one, 6, slice(1, p(2)));
    let change = change_in(&out).expect("all have stopped");
    let seqs: Vec<u64> = change.entries.iter().map(|e| e.seq.0).collect();
    assert_eq!((seqs, change.view), (vec![1, 2, 3], View(1)));
    // The record of the promise stands before it.
    let persist = out.iter().position(|e| matches!(e, Effect::Persist(_))).unwrap();
    let sent = out.iter().position(|e| matches!(e, Effect::Send { when: When::Durable, .. }));
    assert!(persist < sent.unwrap());
    // A second one is never signed.
    assert!(change_in(&step(&mut one, 7, slice(1, p(5))).1).is_none());
}

fn change_in(out: &[Effect]) -> Option<Arc<crate::group::msg::ViewChange>> {
    out.iter().find_map(|effect| match effect {
        Effect::Send { message: GroupMessage::ViewChange(change), .. } => Some(change.clone()),
        _ => None,
    })
}

/// A restart between VIEW-CHANGE and NEW-VIEW: the replica still asks for that view, and says
/// the same again in its new life.
#[test]
fn who_has_left_and_installed_nothing_still_asks_for_that_view() {
    let mut world = World::new(4, 1, 8);
    world.run(500);
    // The next leader is silent, so that the change hangs.
    world.crash(1);
    world.crash(0);
    world.run(2500);
    world.start(0, Beginning::Whole);
    world.run(1000);
    assert!((2..4).all(|r| world.core(r).report().asks_for.is_some()));
    let asked = world.core(2).report().asks_for;
    world.crash(2);
    world.start(2, Beginning::Whole);
    assert!(world.core(2).report().asks_for >= asked);
    assert_eq!(world.node(2).votes_in, None, "it votes in no view below");
    assert!(world.run_until(60_000, World::agree));
}

/// The lanes hear of a replica that has not begun the view, and when it has; of neither so often
/// that one that says now this and now that keeps them busy.
#[test]
fn who_has_begun_the_view_since_is_told_to_the_lanes_at_once() {
    let mut one = coordinator(3);
    feed(&mut one, 0, Input::Turn);
    let nv = new_view(1, (0..3).map(|r| change(r, 1, vec![])).collect());
    feed(&mut one, 1, peer(1, GroupMessage::NewView(Arc::new(nv))));
    assert_eq!(one.report().installed, 1);
    let mut said = |ms, installed| {
        let wish =
            GroupMessage::Wish { wish: View(1), installed: View(installed), recovering: false };
        let (_, out) = step(&mut one, ms, peer(2, wish));
        let lanes = out.into_iter().filter_map(|effect| match effect {
            Effect::Lanes(message) => Some(message),
            _ => None,
        });
        lanes.collect::<Vec<FromCoordinator>>()
    };
    let (away, arrived) =
        ([FromCoordinator::Elsewhere(ReplicaId(2))], [FromCoordinator::Arrived(ReplicaId(2))]);
    assert_eq!(said(2, 1), [], "it was never away");
    assert_eq!(said(3, 0), away);
    assert_eq!(said(4, 0), [], "they know");
    assert_eq!(said(5, 1), arrived);
    assert_eq!(said(6, 1), []);
    assert_eq!((said(7, 0), said(8, 1)), (vec![], vec![]), "not so often");
    assert_eq!(said(1003, 0), away);
    assert_eq!(said(1004, 2), arrived, "or a later one");
}

/// A VIEW-CHANGE of an older view is accepted by nobody who asked for a later one; a NEW-VIEW of
/// exactly the view that was asked for is, whatever is wished for since.
#[test]
fn only_views_at_or_above_the_one_asked_for_are_installed() {
    let mut one = coordinator(3);
    feed(&mut one, 0, Input::Turn);
    let wish = |w| GroupMessage::Wish { wish: View(w), installed: View(0), recovering: false };
    for from in 0..3 {
        feed(&mut one, 1, peer(from, wish(5)));
    }
    assert_eq!(one.report().asks_for, Some(View(5)));
    let nv = |v| {
        let changes = (0..3).map(|r| change(r, v, vec![])).collect();
        GroupMessage::NewView(Arc::new(new_view(v, changes)))
    };
    assert!(step(&mut one, 2, peer(1, nv(4))).0.is_err());
    assert_eq!(one.report().view, View(0));
    // The time-out raises the wish; the late NEW-VIEW still counts.
    feed(&mut one, 1500, Input::Turn);
    let (result, out) = step(&mut one, 1501, peer(2, nv(5)));
    assert_eq!((result, one.report().view, one.report().asks_for), (Ok(()), View(5), None));
    let order: Vec<usize> = [
        out.iter().position(|e| matches!(e, Effect::Persist(_))),
        out.iter().position(|e| matches!(e, Effect::Lanes(FromCoordinator::Install(_)))),
    ]
    .map(Option::unwrap)
    .to_vec();
    assert!(order[0] < order[1], "the record first");
    assert!(step(&mut one, 1502, peer(2, nv(5))).0.is_err(), "once");
    assert_eq!(super::config(4, 1, 0, 1).incarnation, Incarnation(1));
}

/// L-08: each view that fails doubles the time of the next; one delivery, and it is T again.
#[test]
fn timeouts_double_and_fall_back_with_progress() {
    let mut one = coordinator(3);
    feed(&mut one, 0, Input::Turn);
    let mut now = 0;
    let mut leave_for = |one: &mut crate::group::Coordinator, view: u64| {
        let wish = View(view);
        let wish = GroupMessage::Wish { wish, installed: View(0), recovering: false };
        (0..3).for_each(|from| feed(one, now, peer(from, wish.clone())));
        assert_eq!(one.report().asks_for, Some(View(view)));
        // How long until it gives that view up.
        let begun = now;
        loop {
            now += 100;
            let (_, out) = step(one, now, Input::Turn);
            let up = |e: &Effect| {
                matches!(e, Effect::Send { message: GroupMessage::Wish { wish, .. }, .. }
                    if *wish == View(view + 1))
            };
            assert!(now < begun + 100_000, "it never gives up");
            if out.iter().any(up) {
                return (now - begun, now);
            }
        }
    };
    let mut waits: Vec<u64> = (1..=8).map(|view| leave_for(&mut one, view).0).collect();
    assert_eq!(waits, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    let (_, at) = leave_for(&mut one, 9);
    let changes = (0..3).map(|r| change(r, 9, vec![])).collect();
    let nv = GroupMessage::NewView(Arc::new(new_view(9, changes)));
    assert_eq!(step(&mut one, at, peer(1, nv)).0, Ok(()));
    let progress = ToCoordinator::Progress { view: View(9), delivered: Seq(1) };
    feed(&mut one, at, Input::Lane(progress));
    waits = (10..=11).map(|view| leave_for(&mut one, view).0).collect();
    assert_eq!(waits, [1000, 2000]);
}

fn of(leaders: Leaders) -> Coordinator {
    let cfg = CoordinatorConfig { leaders, ..config(4, 1, 0, 1) };
    let (beginning, start) = (Beginning::Whole, StableCheckpoint::default());
    let mut one = Coordinator::new(cfg, Box::new(keys(0)), beginning, start, vec![]);
    feed(&mut one, 0, Input::Turn);
    one
}

fn others_wish(one: &mut Coordinator, ms: u64, who: &[u16], view: u64) {
    for from in who {
        let (wish, installed) = (View(view), one.report().view);
        feed(one, ms, peer(*from, GroupMessage::Wish { wish, installed, recovering: false }));
    }
}

fn complains(one: &mut Coordinator, ms: u64, what: Grievance, whom: u16) -> Vec<Effect> {
    let (view, whom) = (one.report().view, ReplicaId(whom));
    step(one, ms, Input::Lane(ToCoordinator::Grievance { view, what, whom })).1
}

fn delivers(one: &mut Coordinator, ms: u64) {
    let view = one.report().view;
    feed(one, ms, Input::Lane(ToCoordinator::Progress { view, delivered: Seq(1) }));
}

fn wishes_for(out: &[Effect], view: u64) -> bool {
    out.iter().any(|e| {
        matches!(e, Effect::Send { message: GroupMessage::Wish { wish, .. }, .. }
            if *wish == View(view))
    })
}

/// Views 1 and 2 fail, and view 3, which has 4T, begins at 10 ms.
fn in_the_third_view(leaders: Leaders) -> Coordinator {
    let mut one = of(leaders);
    (1..=3).for_each(|view| others_wish(&mut one, 1, &[1, 2, 3], view));
    let changes = (1..4).map(|r| change(r, 3, vec![])).collect();
    let nv = GroupMessage::NewView(Arc::new(new_view(3, changes)));
    assert_eq!(step(&mut one, 10, peer(3, nv)).0, Ok(()));
    one
}

/// A view that had more than T for its first delivery, since others had failed, is not left when
/// that comes, for what was complained about before.
#[test]
fn the_first_delivery_settles_what_a_view_had_time_for() {
    for leaders in [Leaders::Fixed, Leaders::Rotating] {
        for what in [Grievance::Stalled, Grievance::Starved] {
            let mut late = in_the_third_view(leaders);
            assert!(!wishes_for(&complains(&mut late, 1250, what, 3), 4), "it has time");
            assert!(!wishes_for(&step(&mut late, 4000, Input::Turn).1, 4));
            assert!(wishes_for(&step(&mut late, 4010, Input::Turn).1, 4), "it had time");
            let mut one = in_the_third_view(leaders);
            assert!(!wishes_for(&complains(&mut one, 1250, what, 3), 4), "it has time");
            delivers(&mut one, 2500);
            assert!(!wishes_for(&step(&mut one, 2500, Input::Turn).1, 4), "{what:?}: it works");
            assert_eq!(one.roster(Seq(0)).blames, None);
            assert!(wishes_for(&complains(&mut one, 3250, what, 3), 4), "it is so still");
        }
    }
}

fn blames(one: &Coordinator) -> Option<u16> {
    one.roster(Seq(0)).blames.map(|whom| whom.0)
}

fn suspects(one: &mut Coordinator, ms: u64, whom: u16) {
    let (view, whom) = (one.report().asks_for.expect("it has left"), ReplicaId(whom));
    feed(one, ms, Input::Lane(ToCoordinator::Suspects { view, whom }));
}

/// A wish that nobody follows stays, and the view ends with it long after, for somebody else.
#[test]
fn who_has_wished_long_ago_blames_whoever_holds_up_the_view_now() {
    let mut one = of(Leaders::Rotating);
    assert!(wishes_for(&complains(&mut one, 10, Grievance::Slow, 2), 1));
    delivers(&mut one, 150);
    assert_eq!(blames(&one), Some(2), "others may be about to complain of it, too");
    // Hours later a lane complains itself; or it would have soon.
    complains(&mut one, 50_000, Grievance::Stalled, 3);
    assert_eq!(blames(&one), Some(3));
    delivers(&mut one, 90_000);
    others_wish(&mut one, 100_000, &[1, 3], 1);
    assert_eq!(blames(&one), Some(3), "no lane knows of anybody else");
    suspects(&mut one, 100_001, 1);
    suspects(&mut one, 100_002, 2);
    assert_eq!(blames(&one), Some(1), "the first that is named");
    // What has ended the view just now is no less than what might have.
    let mut one = of(Leaders::Rotating);
    complains(&mut one, 10, Grievance::Stalled, 2);
    others_wish(&mut one, 11, &[1, 3], 1);
    suspects(&mut one, 12, 3);
    assert_eq!(blames(&one), Some(2));
}

/// Nor does an equivocator, whose name is kept for as long as the view lasts, keep others' names,
/// or hide who is complained about.
#[test]
fn an_equivocator_is_blamed_when_nobody_else_is() {
    let mut one = of(Leaders::Rotating);
    complains(&mut one, 10, Grievance::Stalled, 2);
    complains(&mut one, 11, Grievance::Equivocates, 3);
    // The first view counts as one that works.
    assert_eq!(blames(&one), Some(2), "it has ended the view");
    let mut one = in_the_third_view(Leaders::Rotating);
    complains(&mut one, 20, Grievance::Equivocates, 1);
    complains(&mut one, 1250, Grievance::Stalled, 2);
    assert_eq!(blames(&one), Some(2));
    delivers(&mut one, 2500);
    assert_eq!(blames(&one), Some(1), "the other one was only late to begin");
    others_wish(&mut one, 3000, &[1, 2, 3], 4);
    suspects(&mut one, 3001, 3);
    assert_eq!(blames(&one), Some(3));
}
