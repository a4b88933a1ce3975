//! When a checkpoint is fetched, and which one is kept (catalogue ).

use base::transfer::{Manifest, SnapshotReader, StateAnswer, StateMessage, StateRequest};
use base::{FromStage, Progress, ReplicaId, Seq, StableCheckpoint, ToStage};
use std::vec::Vec;

use super::recovery::{ack, forgetful};
use super::world::World;
use super::{K, L, certificate, coordinator, feed, peer, rules, step};
use crate::group::link::{FromCoordinator, ToCoordinator};
use crate::group::msg::GroupMessage;
use crate::group::{Beginning, Coordinator, Effect, GroupFact, Input, SuspicionKind};
use crate::outbox::Target;

/// A replica that was away longer than the logs reach comes back by itself.
#[test]
fn who_is_left_behind_fetches_a_checkpoint_and_votes_again() {
    for seed in 0..6 {
        let mut world = World::new(4, 1, 20 + seed);
        world.run(500);
        world.crash(3);
        world.run(5000);
        // An idle group must be driven to the checkpoint that is asked for.
        world.load = seed % 2 == 0;
        world.lying.extend((seed > 3).then_some(1));
        world.start(3, Beginning::Whole);
        let there = |w: &World| w.nodes[3].executed.0 + L >= w.top().0;
        assert!(world.run_until(60_000, there), "seed {seed}");
        assert!(world.node(3).facts.iter().any(|f| matches!(f, GroupFact::Fetched(_))));
        assert!(world.run_until(5000, |w| w.agree() && there(w)), "its view is active");
    }
}

/// View changes while it fetches: the view is found afterwards (trap 11).
#[test]
fn the_view_is_active_after_a_transfer() {
    let mut world = World::new(4, 1, 30);
    world.run(500);
    world.crash(3);
    world.run(3000);
    world.lazy.insert(0);
    world.start(3, Beginning::Whole);
    let there = |w: &World| w.agree() && w.nodes[3].executed.0 + L >= w.top().0;
    assert!(world.run_until(60_000, there));
    assert!(world.core(3).report().view > base::View(0));
}

fn wanted(out: &[Effect]) -> Vec<(Seq, Seq)> {
    out.iter()
        .filter_map(|effect| match effect {
            Effect::Send { message: GroupMessage::WantCheckpoint { have, want, .. }, .. } => {
                Some((*have, *want))
            }
            _ => None,
        })
        .collect()
}

fn fetched(out: &[Effect]) -> Vec<(Seq, Vec<ReplicaId>)> {
    out.iter()
        .filter_map(|effect| match effect {
            Effect::Stage(ToStage::Fetch { checkpoint, sources }) => {
                Some((checkpoint.seq, sources.clone()))
            }
            _ => None,
        })
        .collect()
}

fn have(from: u16, k: u64) -> Input {
    peer(from, GroupMessage::HaveCheckpoint(certificate(&rules(), k * K, &[0, 1, 2])))
}

fn behind() -> Input {
    Input::Lane(ToCoordinator::LeftBehind { missing: Seq(1), stable: Seq(10 * K) })
}

#[test]
fn two_sources_are_taken_at_once_and_one_after_a_while() {
    let mut one = coordinator(3);
    let (_, out) = step(&mut one, 0, behind());
    assert_eq!(wanted(&out), [(Seq(0), Seq(12 * K))]);
    assert_eq!(fetched(&step(&mut one, 1, have(0, 20)).1), []);
    assert_eq!(
        fetched(&step(&mut one, 2, have(1, 20)).1),
        [(Seq(20 * K), [0, 1].map(ReplicaId).into())]
    );
    // A third joins in; one with something older changes nothing.
    assert_eq!(fetched(&step(&mut one, 3, have(2, 20)).1).len(), 1);
    assert_eq!(one.report().fetching, Some(Seq(20 * K)));
    let mut alone = coordinator(3);
    feed(&mut alone, 0, behind());
    feed(&mut alone, 10, have(0, 20));
    assert_eq!(fetched(&step(&mut alone, 100, Input::Turn).1), []);
    assert_eq!(
        fetched(&step(&mut alone, 210, Input::Turn).1),
        [(Seq(20 * K), [ReplicaId(0)].into())]
    );
    // A weak quorum with a newer one is better than a single source.
    feed(&mut alone, 220, have(1, 22));
    assert_eq!(fetched(&step(&mut alone, 230, have(2, 22)).1).len(), 1);
    assert_eq!(alone.report().fetching, Some(Seq(22 * K)));
}

#[test]
fn liars_cost_time_only() {
    let mut one = coordinator(3);
    feed(&mut one, 0, behind());
    let forged = certificate(&rules(), 20 * K, &[0, 1]);
    let (result, _) = step(&mut one, 1, peer(0, GroupMessage::HaveCheckpoint(forged)));
    assert!(result.is_err());
    // One that is found to lie before its offer was taken leaves nothing to wait for.
    feed(&mut one, 1, have(2, 20));
    let lying = FromStage::LyingSource { source: ReplicaId(2) };
    feed(&mut one, 2, Input::Stage(lying));
    feed(&mut one, 230, Input::Turn);
    assert_eq!(one.report().fetching, None);
    feed(&mut one, 231, have(1, 20));
    feed(&mut one, 431, Input::Turn);
    assert_eq!(one.report().fetching, Some(Seq(20 * K)));
    let lying = FromStage::LyingSource { source: ReplicaId(1) };
    let (_, out) = step(&mut one, 432, Input::Stage(lying));
    let fact = GroupFact::Suspicion { replica: ReplicaId(1), kind: SuspicionKind::LyingSource };
    assert!(out.iter().any(|e| matches!(e, Effect::Fact(f) if *f == fact)));
    let failed = FromStage::FetchFailed { seq: Seq(20 * K) };
    let (_, out) = step(&mut one, 433, Input::Stage(failed));
    assert_eq!(wanted(&out), [(Seq(0), Seq(22 * K))], "a newer one is asked for");
    assert!(step(&mut one, 434, have(1, 22)).0.is_err(), "it is left out for a while");
    feed(&mut one, 435, have(0, 22));
    assert_eq!(fetched(&step(&mut one, 636, Input::Turn).1).len(), 1);
}

/// Nothing stalls for ever: it asks again when nobody answers, and when a transfer stands still.
#[test]
fn every_state_has_a_time_out() {
    let mut one = coordinator(3);
    feed(&mut one, 0, behind());
    let mut asked = 0;
    for ms in (0..20_000).step_by(50) {
        asked += wanted(&step(&mut one, ms, Input::Turn).1).len();
    }
    assert!((5..20).contains(&asked), "with growing pauses: {asked}");
    feed(&mut one, 20_000, have(0, 20));
    feed(&mut one, 20_001, have(1, 20));
    let mut asked = 0;
    for ms in (20_001..50_000).step_by(50) {
        let (_, out) = step(&mut one, ms, Input::Turn);
        asked += wanted(&out).len();
    }
    assert!(asked > 0, "the transfer stood still");
}

/// It is left behind no more once it executes what it lacked.
#[test]
fn who_executes_what_it_lacked_before_anything_is_fetched_wants_nothing() {
    let mut one = coordinator(3);
    feed(&mut one, 0, behind());
    let progress = Progress { executed: Seq(30 * K), ..Progress::default() };
    feed(&mut one, 1, Input::Stage(FromStage::Executed(progress)));
    assert_eq!(wanted(&step(&mut one, 10_000, Input::Turn).1), []);
}

/// The stage does not go on by itself when a fetch has failed. What it had executed before it was
/// told to fetch may become stable late.
#[test]
fn nothing_ends_the_wanting_while_the_stage_stands_in_a_fetch_that_failed() {
    // Whoever recovers far behind wants one though no lane has said what it misses.
    let mut one = forgetful(3);
    feed(&mut one, 0, Input::Turn);
    let high = certificate(&rules(), 10 * K, &[0, 1, 2]);
    for from in [0, 1, 2] {
        feed(&mut one, 0, ack(from, 0, 0, &high, false));
    }
    feed(&mut one, 1, have(0, 20));
    assert_eq!(fetched(&step(&mut one, 2, have(1, 20)).1).len(), 1);
    feed(&mut one, 3, Input::Stage(FromStage::FetchFailed { seq: Seq(20 * K) }));
    feed(&mut one, 4, stable(2));
    assert_eq!(wanted(&step(&mut one, 2000, Input::Turn).1).len(), 1);
    feed(&mut one, 2001, have(0, 22));
    assert_eq!(fetched(&step(&mut one, 2002, have(1, 22)).1).len(), 1);
    let progress = Progress { executed: Seq(22 * K), ..Progress::default() };
    let checkpoint = certificate(&rules(), 22 * K, &[0, 1, 2]);
    let done = FromStage::Fetched { checkpoint, progress, replaced: true };
    feed(&mut one, 2003, Input::Stage(done));
    assert_eq!(wanted(&step(&mut one, 9000, Input::Turn).1), []);
}

/// The stage has what it was told to fetch first, and is told to fetch something newer just then.
#[test]
fn a_fetch_that_comes_to_an_end_is_not_taken_for_the_next_one() {
    let mut one = coordinator(3);
    feed(&mut one, 0, behind());
    feed(&mut one, 1, have(0, 20));
    assert_eq!(fetched(&step(&mut one, 201, Input::Turn).1).len(), 1);
    feed(&mut one, 202, have(1, 22));
    assert_eq!(fetched(&step(&mut one, 203, have(2, 22)).1).len(), 1);
    let progress = Progress { executed: Seq(20 * K), ..Progress::default() };
    let checkpoint = certificate(&rules(), 20 * K, &[0, 1, 2]);
    let done = FromStage::Fetched { checkpoint, progress, replaced: true };
    feed(&mut one, 204, Input::Stage(done));
    assert_eq!(one.report().fetching, Some(Seq(22 * K)));
    let failed = Input::Stage(FromStage::FetchFailed { seq: Seq(22 * K) });
    assert_eq!(wanted(&step(&mut one, 205, failed).1).len(), 1);
}

#[test]
fn a_diverged_replica_fetches_what_is_certified_though_it_executed_it() {
    let mut one = coordinator(3);
    let progress = Progress { executed: Seq(5 * K), ..Progress::default() };
    feed(&mut one, 0, Input::Stage(FromStage::Executed(progress)));
    let certified = certificate(&rules(), 5 * K, &[0, 1, 2]);
    let (_, out) = step(&mut one, 1, Input::Lane(ToCoordinator::Diverged(certified.clone())));
    assert_eq!(wanted(&out), [(Seq(5 * K - 1), Seq(7 * K))]);
    feed(&mut one, 2, have(0, 5));
    assert_eq!(fetched(&step(&mut one, 3, have(1, 5)).1).len(), 1);
    let progress = Progress { executed: Seq(5 * K), ..Progress::default() };
    let done = FromStage::Fetched { checkpoint: certified, progress, replaced: true };
    let (_, out) = step(&mut one, 4, Input::Stage(done));
    assert!(out.iter().any(|e| matches!(e, Effect::Fact(GroupFact::Fetched(_)))));
    let wish = |e: &&Effect| {
        matches!(e, Effect::Send { to: Target::All, message: GroupMessage::Wish { .. }, .. })
    };
    assert_eq!(out.iter().filter(wish).count(), 1, "so that it is told the view");
    assert_eq!(one.report().fetching, None);
}

/// Swarm seed 4416678. A stage that had gone wrong was given a state from before the low mark, and
/// no lane had the numbers up to that for it: it stood there for ever.
#[test]
fn a_state_from_below_the_low_mark_is_not_enough() {
    let mut one = coordinator(3);
    let at = |k: u64| Progress { executed: Seq(k * K), ..Progress::default() };
    feed(&mut one, 0, Input::Stage(FromStage::Executed(at(7))));
    let certified = |k: u64| certificate(&rules(), k * K, &[0, 1, 2]);
    feed(&mut one, 1, Input::Lane(ToCoordinator::Diverged(certified(5))));
    feed(&mut one, 2, have(0, 5));
    assert_eq!(fetched(&step(&mut one, 3, have(1, 5)).1).len(), 1);
    feed(&mut one, 4, Input::Lane(ToCoordinator::Stable(certified(6))));
    let done = |k| {
        let (checkpoint, progress) = (certified(k), at(k));
        Input::Stage(FromStage::Fetched { checkpoint, progress, replaced: true })
    };
    let (_, out) = step(&mut one, 5, done(5));
    assert_eq!(wanted(&out).len(), 1);
    feed(&mut one, 6, have(0, 6));
    assert_eq!(fetched(&step(&mut one, 7, have(1, 6)).1).len(), 1);
    let (_, out) = step(&mut one, 8, done(6));
    assert_eq!((wanted(&out).len(), one.report().fetching), (0, None));
}

fn pins(out: &[Effect]) -> Vec<(Seq, SnapshotReader)> {
    out.iter()
        .filter_map(|effect| match effect {
            Effect::Stage(ToStage::Pin { seq, reader }) => Some((*seq, *reader)),
            _ => None,
        })
        .collect()
}

fn want(from: u16, have: u64, want: u64) -> Input {
    let (have, want, stable) = (Seq(have * K), Seq(want * K), StableCheckpoint::default());
    peer(from, GroupMessage::WantCheckpoint { have, want, stable })
}

fn pinned(reader: SnapshotReader, k: u64) -> Input {
    let digest = certificate(&rules(), k * K, &[]).digest;
    Input::Stage(FromStage::Pinned { reader, seq: Seq(k * K), digest })
}

fn stable(k: u64) -> Input {
    Input::Lane(ToCoordinator::Stable(certificate(&rules(), k * K, &[0, 1, 2])))
}

fn offers(out: &[Effect]) -> Vec<ReplicaId> {
    out.iter()
        .filter_map(|effect| match effect {
            Effect::Send {
                to: Target::One(to), message: GroupMessage::HaveCheckpoint(_), ..
            } => Some(*to),
            _ => None,
        })
        .collect()
}

#[test]
fn one_checkpoint_is_kept_for_all_who_want_one() {
    let reader = SnapshotReader::Transfer;
    let mut one = coordinator(0);
    assert_eq!(pins(&step(&mut one, 0, want(1, 0, 3)).1), [(Seq(3 * K), reader)]);
    assert_eq!(pins(&step(&mut one, 1, want(2, 0, 4)).1), [], "the same will do");
    assert!(step(&mut one, 2, want(3, 5, 7)).0.is_err(), "one at a time");
    assert_eq!(offers(&step(&mut one, 3, pinned(reader, 3)).1), []);
    assert_eq!(offers(&step(&mut one, 4, stable(3)).1), [1, 2].map(ReplicaId), "both conditions");
    assert_eq!(offers(&step(&mut one, 5, want(3, 0, 9)).1), [ReplicaId(3)]);
    // Who has it already gets a newer one, unless others read this one.
    let told = StateMessage::Tell {
        checkpoint: Seq(3 * K),
        answer: StateAnswer::Manifest(Manifest::default()),
    };
    feed(&mut one, 40_000, Input::Stage(FromStage::State { to: ReplicaId(2), message: told }));
    assert!(step(&mut one, 41_000, want(1, 3, 6)).0.is_err());
    assert_eq!(pins(&step(&mut one, 43_000, want(1, 3, 6)).1), [(Seq(6 * K), reader)]);
    // Nobody asks any more.
    let (_, out) = step(&mut one, 110_000, Input::Turn);
    assert!(out.iter().any(|e| matches!(e, Effect::Stage(ToStage::Unpin(r)) if *r == reader)));
}

/// A faulty replica has a checkpoint kept that an idle group never comes to.
#[test]
fn the_group_is_driven_to_what_is_kept_for_whoever_wants_it() {
    let mut one = coordinator(0);
    assert_eq!(pins(&step(&mut one, 0, want(3, 0, 8)).1).len(), 1);
    let (_, out) = step(&mut one, 1, want(1, 0, 3));
    let fill = FromCoordinator::Fill(Seq(8 * K));
    assert!(out.iter().any(|e| matches!(e, Effect::Lanes(word) if *word == fill)));
}

#[test]
fn a_kept_checkpoint_that_is_passed_over_or_missed_is_followed_by_the_next() {
    let reader = SnapshotReader::Transfer;
    let mut one = coordinator(0);
    feed(&mut one, 0, want(1, 0, 3));
    feed(&mut one, 1, pinned(reader, 3));
    assert_eq!(pins(&step(&mut one, 2, stable(4)).1), [], "its certificate may still come");
    assert_eq!(pins(&step(&mut one, 3, stable(5)).1), [(Seq(6 * K), reader)]);
    let missed = FromStage::PinMissed { reader, seq: Seq(6 * K), executed: Seq(9 * K) };
    assert_eq!(pins(&step(&mut one, 4, Input::Stage(missed)).1), [(Seq(10 * K), reader)]);
    feed(&mut one, 5, pinned(reader, 10));
    assert_eq!(offers(&step(&mut one, 6, stable(10)).1), [ReplicaId(1)]);
    // Beyond reach, and no checkpoint at all.
    let mut other = coordinator(0);
    assert!(step(&mut other, 0, want(1, 0, 2 * L / K + 1)).0.is_err());
    let stable = StableCheckpoint::default();
    let odd = GroupMessage::WantCheckpoint { have: Seq(0), want: Seq(K + 1), stable };
    assert!(step(&mut other, 1, peer(1, odd)).0.is_err());
}

#[test]
fn the_disk_gets_a_certified_checkpoint() {
    for load in [true, false] {
        let mut world = World::new(4, 1, 40);
        world.run(1000);
        world.load = load;
        world.input(2, Input::SaveCheckpoint { now: !load });
        assert!(world.run_until(20_000, |w| !w.nodes[2].saved.is_empty()), "load {load}");
        let saved = world.node(2).saved[0].clone();
        assert_eq!(saved, world.certified(saved.seq));
        world.input(2, Input::Saved { written: true });
        world.load = true;
        world.run(2000);
        assert_eq!(world.node(2).saved.len(), 1, "once for each time it is asked for");
    }
}

/// Who has just read what is kept and needs more does not wait for itself.
#[test]
fn a_reader_that_is_beyond_what_it_has_read_gets_a_newer_one_at_once() {
    let reader = SnapshotReader::Transfer;
    let mut one = coordinator(0);
    feed(&mut one, 0, want(1, 0, 3));
    feed(&mut one, 1, pinned(reader, 3));
    feed(&mut one, 2, stable(3));
    let told = |to| {
        let answer = StateAnswer::Manifest(Manifest::default());
        let message = StateMessage::Tell { checkpoint: Seq(3 * K), answer };
        Input::Stage(FromStage::State { to: ReplicaId(to), message })
    };
    feed(&mut one, 3, told(1));
    assert!(step(&mut one, 4, want(2, 3, 6)).0.is_err(), "another one reads it");
    assert_eq!(pins(&step(&mut one, 5, want(1, 3, 6)).1), [(Seq(6 * K), reader)]);
    // While it is still to come for one, no other takes it away, but not for ever.
    assert!(step(&mut one, 6, want(2, 6, 7)).0.is_err());
    assert_eq!(pins(&step(&mut one, 5005, want(2, 6, 7)).1), [(Seq(7 * K), reader)]);
}

/// Found by reading. A faulty replica that asked right after an offer had something else kept, so
/// that the first request for what was offered came too late. It could do so each time.
#[test]
fn what_is_offered_stays_until_it_can_be_asked_for() {
    let reader = SnapshotReader::Transfer;
    let mut one = coordinator(0);
    feed(&mut one, 0, want(1, 0, 3));
    feed(&mut one, 1, pinned(reader, 3));
    assert_eq!(offers(&step(&mut one, 2, stable(3)).1), [ReplicaId(1)]);
    assert!(step(&mut one, 3, want(3, 5, 7)).0.is_err());
    // Whoever asks again and never reads does not hold it for ever.
    for ms in [1000, 2000, 3000, 4000, 5000] {
        assert_eq!(offers(&step(&mut one, ms, want(1, 0, 3)).1), [ReplicaId(1)]);
        assert!(step(&mut one, ms + 1, want(3, 5, 7)).0.is_err(), "{ms}");
    }
    // One who hears of it later has as long.
    assert_eq!(offers(&step(&mut one, 5001, want(2, 0, 3)).1), [ReplicaId(2)]);
    assert!(step(&mut one, 10_000, want(3, 5, 7)).0.is_err());
    assert_eq!(pins(&step(&mut one, 10_001, want(3, 5, 7)).1), [(Seq(7 * K), reader)]);
}

#[test]
fn what_was_offered_to_the_asker_alone_gives_way_to_what_it_needs_now() {
    let reader = SnapshotReader::Transfer;
    let mut one = coordinator(0);
    feed(&mut one, 0, want(1, 0, 3));
    feed(&mut one, 1, pinned(reader, 3));
    feed(&mut one, 2, stable(3));
    assert_eq!(pins(&step(&mut one, 3, want(1, 3, 6)).1), [(Seq(6 * K), reader)]);
}

/// Once it is read, only that counts: who has all of it holds up nobody who needs a newer one.
#[test]
fn what_was_offered_and_read_is_kept_while_it_is_read() {
    let reader = SnapshotReader::Transfer;
    let mut one = coordinator(0);
    feed(&mut one, 0, want(1, 0, 3));
    feed(&mut one, 1, pinned(reader, 3));
    feed(&mut one, 2, stable(3));
    let answer = StateAnswer::Manifest(Manifest::default());
    let message = StateMessage::Tell { checkpoint: Seq(3 * K), answer };
    feed(&mut one, 3, Input::Stage(FromStage::State { to: ReplicaId(1), message }));
    assert!(step(&mut one, 2002, want(2, 3, 6)).0.is_err());
    assert_eq!(pins(&step(&mut one, 2003, want(2, 3, 6)).1), [(Seq(6 * K), reader)]);
}

fn lost(source: u16, k: u64) -> Input {
    Input::Stage(FromStage::LostSource { seq: Seq(k * K), source: ReplicaId(source) })
}

/// One that fetches 20K from replica 0 alone.
fn fetches_from_one() -> Coordinator {
    let mut one = coordinator(3);
    feed(&mut one, 0, behind());
    feed(&mut one, 10, have(0, 20));
    assert_eq!(fetched(&step(&mut one, 210, Input::Turn).1).len(), 1);
    one
}

/// The source gives a little all the time; how often others were asked meanwhile, and what was
/// fetched else.
fn dribble(one: &mut Coordinator, from_ms: u64, to_ms: u64) -> (usize, Vec<Seq>) {
    let (mut asked, mut taken) = (0, Vec::new());
    for ms in (from_ms..to_ms).step_by(100) {
        let request = StateRequest::Manifest;
        let message = StateMessage::Ask { checkpoint: Seq(20 * K), request };
        let told = FromStage::State { to: ReplicaId(0), message };
        feed(one, ms, Input::Stage(told));
        let (_, out) = step(one, ms, Input::Turn);
        asked += wanted(&out).len();
        taken.extend(fetched(&out).into_iter().map(|(seq, _)| seq));
    }
    (asked, taken)
}

/// Found by reading: a source that always gave a little, alone, held up whoever fetched from it for
/// hours, and a group that did not get on without it, too.
#[test]
fn who_fetches_from_few_goes_on_asking_the_others() {
    let mut one = fetches_from_one();
    let (asked, taken) = dribble(&mut one, 300, 10_000);
    assert!((4..=5).contains(&asked), "every two seconds: {asked}");
    assert_eq!(taken, []);
    // As many hold it as one of them is correct.
    assert_eq!(fetched(&step(&mut one, 10_000, have(1, 20)).1).len(), 1);
    assert_eq!(dribble(&mut one, 10_100, 20_000).0, 0);
    assert!(step(&mut one, 20_000, lost(1, 22)).0.is_err(), "of something else");
    assert_eq!(dribble(&mut one, 20_100, 23_000).0, 0);
    feed(&mut one, 23_000, lost(1, 20));
    assert!(dribble(&mut one, 23_100, 26_000).0 > 0, "again one alone");
    // Who holds it again joins in again.
    assert_eq!(fetched(&step(&mut one, 26_000, have(1, 20)).1).len(), 1);
    feed(&mut one, 26_001, Input::Stage(FromStage::LyingSource { source: ReplicaId(1) }));
    assert!(dribble(&mut one, 26_100, 29_000).0 > 0, "the other one lied");
}

/// A faulty replica might see to it that no two of the others ever hold the same.
#[test]
fn a_single_source_has_half_a_minute_before_another_ones_newer_checkpoint() {
    let mut one = fetches_from_one();
    assert_eq!(fetched(&step(&mut one, 220, have(1, 22)).1), [], "it may be as slow");
    assert_eq!(dribble(&mut one, 300, 32_000).1, []);
    assert_eq!(fetched(&step(&mut one, 32_000, have(1, 22)).1), []);
    assert_eq!(dribble(&mut one, 32_100, 32_400).1, [], "what was said before is asked anew");
    assert_eq!(fetched(&step(&mut one, 32_401, have(0, 30)).1), [], "it knows of newer ones");
    assert_eq!(fetched(&step(&mut one, 32_402, have(2, 19)).1), [], "older");
    let (_, out) = step(&mut one, 32_403, have(1, 22));
    assert_eq!(fetched(&out), [(Seq(22 * K), [ReplicaId(1)].into())]);
    assert_eq!(fetched(&step(&mut one, 32_404, have(2, 24)).1), [], "now this one has its time");
}

/// While it fetches from one alone, what it asks must not cost it what it reads.
#[test]
fn who_reads_what_is_kept_and_asks_for_more_is_told_the_same() {
    let mut one = coordinator(0);
    feed(&mut one, 0, want(1, 0, 3));
    feed(&mut one, 1, pinned(SnapshotReader::Transfer, 3));
    feed(&mut one, 2, stable(3));
    for ms in (1000..200_000).step_by(1000) {
        let answer = StateAnswer::Manifest(Manifest::default());
        let message = StateMessage::Tell { checkpoint: Seq(3 * K), answer };
        feed(&mut one, ms, Input::Stage(FromStage::State { to: ReplicaId(1), message }));
        assert_eq!(offers(&step(&mut one, ms + 1, want(1, 0, 5)).1), [ReplicaId(1)], "{ms}");
    }
    assert_eq!(pins(&step(&mut one, 200_000, want(2, 0, 5)).1).len(), 1, "not against others");
}

/// A snapshot has what was acknowledged before it was asked for.
#[test]
fn a_checkpoint_that_is_asked_for_is_executed_after_that() {
    let reader = SnapshotReader::Disk;
    let pins = |out: &[Effect]| {
        let pin = |effect: &Effect| match effect {
            Effect::Stage(ToStage::Pin { seq, reader: SnapshotReader::Disk }) => Some(*seq),
            _ => None,
        };
        out.iter().filter_map(pin).collect::<Vec<Seq>>()
    };
    let mut one = coordinator(0);
    let first = pins(&step(&mut one, 1, Input::SaveCheckpoint { now: false }).1);
    let [seq] = first[..] else { panic!("one is kept: {first:?}") };
    let again = pins(&step(&mut one, 2, Input::SaveCheckpoint { now: true }).1);
    assert_eq!(again, [], "it is not executed yet");
    let digest = certificate(&rules(), seq.0, &[]).digest;
    feed(&mut one, 3, Input::Stage(FromStage::Pinned { reader, seq, digest }));
    assert_eq!(pins(&step(&mut one, 4, Input::SaveCheckpoint { now: false }).1), []);
    let later = pins(&step(&mut one, 5, Input::SaveCheckpoint { now: true }).1);
    assert!(matches!(later[..], [later] if later > seq), "{later:?}");
}
