//! A group that does not move until its laggards have fetched (catalogue X-09).

use base::transfer::SnapshotReader;
use base::{Digest, FromStage, Progress, ReplicaId, Seq, StableCheckpoint, Time, ToStage};
use std::vec::Vec;

use super::{K, certificate, coordinator, feed, peer, rules, step};
use crate::group::link::{FromCoordinator, ToCoordinator};
use crate::group::msg::GroupMessage;
use crate::group::record::GroupRecord;
use crate::group::{Coordinator, Effect, GroupFact, Input};
use crate::outbox::Target;
use crate::pbft::Reject;

const READER: SnapshotReader = SnapshotReader::Transfer;
const BEYOND_ITS_BUDGET: Result<(), Reject> = Err(Reject::Stale("beyond the sender's budget"));
/// Where the others have stopped: between two checkpoints.
const REST: u64 = 20 * K + 3;

fn want(from: u16, have: u64) -> Input {
    let want = Seq(22 * K);
    let stable = StableCheckpoint::default();
    peer(from, GroupMessage::WantCheckpoint { have: Seq(have), want, stable })
}

fn executed(seq: u64) -> Input {
    let progress = Progress { executed: Seq(seq), ..Progress::default() };
    Input::Stage(FromStage::Executed(progress))
}

/// A source that has stopped at [`REST`].
fn source() -> Coordinator {
    let mut one = coordinator(0);
    let stable = certificate(&rules(), 20 * K, &[0, 1, 2]);
    feed(&mut one, 0, Input::Lane(ToCoordinator::Stable(stable)));
    feed(&mut one, 0, executed(REST));
    one
}

fn pins(out: &[Effect]) -> Vec<u64> {
    let pin = |effect: &Effect| match effect {
        Effect::Stage(ToStage::Pin { seq, reader: READER }) => Some(seq.0),
        _ => None,
    };
    out.iter().filter_map(pin).collect()
}

fn offers(out: &[Effect]) -> Vec<(u16, GroupMessage)> {
    let offer = |effect: &Effect| match effect {
        Effect::Send { to: Target::One(to), message, .. } => {
            let is = matches!(message, GroupMessage::HaveState { .. });
            is.then(|| (to.0, message.clone()))
        }
        _ => None,
    };
    out.iter().filter_map(offer).collect()
}

fn pinned() -> Input {
    let digest = certificate(&rules(), REST, &[]).digest;
    Input::Stage(FromStage::Pinned { reader: READER, seq: Seq(REST), digest })
}

/// What `from` offers: the state at `seq`, and what it knows to be certified.
fn state(from: u16, seq: u64, stable: u64) -> Input {
    let said = certificate(&rules(), seq, &[from]);
    let signature = said.proof[0].1;
    let stable = certificate(&rules(), stable, &[0, 1, 2]);
    peer(from, GroupMessage::HaveState { seq: Seq(seq), digest: said.digest, signature, stable })
}

#[test]
fn a_state_at_rest_is_offered_only_where_nothing_moves_although_it_is_asked_for() {
    let mut one = source();
    assert_eq!(pins(&step(&mut one, 0, want(3, 5)).1), [22 * K], "one that is still to come");
    assert_eq!(pins(&step(&mut one, 800, want(1, REST)).1), [], "it has that itself");
    assert_eq!(pins(&step(&mut one, 900, want(2, 5)).1), []);
    assert_eq!(pins(&step(&mut one, 999, Input::Turn).1), []);
    assert_eq!(one.deadline(), Some(Time(1_000_000_000)), "nobody needs to ask again");
    assert_eq!(pins(&step(&mut one, 1000, Input::Turn).1), [REST]);
    let said = offers(&step(&mut one, 1002, pinned()).1);
    let to: Vec<u16> = said.iter().map(|(to, _)| *to).collect();
    assert_eq!(to, [1, 2, 3], "all who have asked");
    let Input::Peer { message, .. } = state(0, REST, 20 * K) else { panic!("made above") };
    assert_eq!(said[2].1, message);
    assert_eq!(offers(&step(&mut one, 1003, want(2, 5)).1).len(), 1, "and who asks later");
    // It moves again.
    feed(&mut one, 1500, executed(REST + 1));
    assert_eq!(pins(&step(&mut one, 40_000, want(2, 5)).1), [22 * K]);
    feed(&mut one, 40_500, executed(REST + 2));
    assert_eq!(pins(&step(&mut one, 41_100, want(2, 5)).1), [], "it has just moved");
}

/// Found by reading: the first request for a state at rest came too late each time, since a faulty
/// replica had something else kept as soon as the state was offered.
#[test]
fn a_state_at_rest_that_is_offered_stays_until_it_can_be_asked_for() {
    let beyond = || {
        let (have, want, stable) = (Seq(1 << 62), Seq(23 * K), StableCheckpoint::default());
        peer(2, GroupMessage::WantCheckpoint { have, want, stable })
    };
    let mut one = source();
    feed(&mut one, 0, want(3, 5));
    assert_eq!(pins(&step(&mut one, 1001, want(3, 5)).1), [REST]);
    assert_eq!(offers(&step(&mut one, 1002, pinned()).1).len(), 1);
    assert!(step(&mut one, 1003, beyond()).0.is_err());
    for ms in [2000, 4000, 6001] {
        assert_eq!(offers(&step(&mut one, ms, want(3, 5)).1).len(), 1, "it is told again");
        assert_eq!(step(&mut one, ms + 1, beyond()).0.is_err(), ms < 6000);
    }
    assert_eq!(pins(&step(&mut one, 8000, want(3, 5)).1), [REST], "and kept again");
}

/// The others may have come to rest further on: who asks again is not held to an older state, and
/// whoever was told of that hears of the later one.
#[test]
fn a_state_at_rest_is_followed_by_a_later_one_once_it_could_be_asked_for() {
    let mut one = source();
    feed(&mut one, 0, want(3, 5));
    feed(&mut one, 1001, want(3, 5));
    feed(&mut one, 1002, pinned());
    feed(&mut one, 1003, executed(REST + 1));
    assert_eq!(offers(&step(&mut one, 1500, want(2, 5)).1).len(), 1, "it is there");
    assert_eq!(pins(&step(&mut one, 2010, want(3, 5)).1), [], "another may ask for it yet");
    assert_eq!(pins(&step(&mut one, 2600, Input::Turn).1), [REST + 1]);
    let digest = certificate(&rules(), REST + 1, &[]).digest;
    let pinned = FromStage::Pinned { reader: READER, seq: Seq(REST + 1), digest };
    let said = offers(&step(&mut one, 2601, Input::Stage(pinned)).1);
    assert_eq!(said.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [2, 3]);
}

/// At the end of the window nobody gets on by himself.
#[test]
fn execution_rests_soon_at_the_end_of_the_window() {
    let mut one = source();
    let end = 20 * K + one.cfg.window;
    feed(&mut one, 0, executed(end - 1));
    assert_eq!(pins(&step(&mut one, 10, want(3, 5)).1).len(), 1, "one that is still to come");
    feed(&mut one, 20, executed(end));
    assert_eq!(pins(&step(&mut one, 119, Input::Turn).1), []);
    assert_eq!(pins(&step(&mut one, 120, Input::Turn).1), [end]);
}

/// A faulty replica reads a state for ever, little at a time, which is of no use to somebody
/// without whom the group does not get on: it keeps him waiting for five seconds of standstill.
#[test]
fn one_reader_does_not_keep_a_group_from_resting() {
    let mut one = source();
    feed(&mut one, 0, want(2, 5));
    assert_eq!(pins(&step(&mut one, 1000, Input::Turn).1), [REST]);
    feed(&mut one, 1001, pinned());
    feed(&mut one, 1002, executed(REST + 50));
    let mut rested = None;
    for ms in (1250..20_000).step_by(250) {
        one.pins.used(Time(ms * 1_000_000), Seq(REST), ReplicaId(2));
        let mut out = Vec::new();
        if ms % 2000 == 0 {
            out = step(&mut one, ms, want(3, REST + 10)).1;
        }
        out.extend(step(&mut one, ms, Input::Turn).1);
        if rested.is_none() && pins(&out) == [REST + 50] {
            rested = Some(ms);
        }
    }
    assert_eq!(rested, Some(6_250), "it has stood since the first second");
}

/// A state that is not readable yet has been offered to nobody: a liar's question does not have it
/// let go.
#[test]
fn a_state_at_rest_that_is_yet_to_be_readable_stays() {
    let beyond = || {
        let (have, want, stable) = (Seq(1 << 62), Seq(23 * K), StableCheckpoint::default());
        peer(2, GroupMessage::WantCheckpoint { have, want, stable })
    };
    let mut one = source();
    feed(&mut one, 0, want(3, 5));
    assert_eq!(pins(&step(&mut one, 1000, beyond()).1), [REST], "whoever asks");
    assert!(step(&mut one, 1001, beyond()).0.is_err());
    assert_eq!(offers(&step(&mut one, 1002, pinned()).1).len(), 1);
}

/// Found by the simulator's oracle of accountability: whoever still kept the state that it once
/// rested in sent a later certificate with it, and was taken for a liar.
#[test]
fn a_state_that_was_passed_since_is_offered_without_a_certificate_above_it() {
    let mut one = source();
    feed(&mut one, 0, want(3, 5));
    feed(&mut one, 1001, want(3, 5));
    feed(&mut one, 1002, pinned());
    let stable = certificate(&rules(), 22 * K, &[0, 1, 2]);
    feed(&mut one, 1003, Input::Lane(ToCoordinator::Stable(stable)));
    let said = offers(&step(&mut one, 1004, want(2, 5)).1);
    let [(2, message)] = &said[..] else { panic!("it is kept still: {said:?}") };
    let (taken, _) = step(&mut behind(), 1, peer(0, message.clone()));
    assert_eq!(taken, Ok(()), "{message:?}");
}

/// Swarm seed 2000800: one of four that waited for a state heard from all the others, and two of
/// these not from each other. They never had a certificate for what they kept for it, and it had
/// them execute ever more, so that they did not come to rest either.
#[test]
fn who_wants_a_checkpoint_tells_what_it_knows_to_be_certified() {
    let known = certificate(&rules(), 20 * K, &[0, 1, 2]);
    let mut asker = behind();
    feed(&mut asker, 1, state(1, REST, 20 * K));
    let (_, out) = step(&mut asker, 5_000, Input::Turn);
    let asks = |effect: &Effect| match effect {
        Effect::Send { to: Target::All, message, .. } => {
            let is = matches!(message, GroupMessage::WantCheckpoint { .. });
            is.then(|| message.clone())
        }
        _ => None,
    };
    let message = out.iter().find_map(asks).expect("it asks again");
    let GroupMessage::WantCheckpoint { stable, .. } = &message else { panic!("chosen above") };
    assert_eq!(*stable, known);

    let mut asked = coordinator(0);
    feed(&mut asked, 0, executed(20 * K));
    let learns = |out: &[Effect]| {
        let told = |effect: &&Effect| match effect {
            Effect::Lanes(FromCoordinator::Certified(told)) => *told == known,
            _ => false,
        };
        out.iter().filter(told).count()
    };
    assert_eq!(learns(&step(&mut asked, 1, peer(3, message.clone())).1), 1);
    assert_eq!(learns(&step(&mut asked, 2, peer(3, message)).1), 0, "it knows now");
    let forged = StableCheckpoint { seq: Seq(40 * K), ..known };
    let lie = GroupMessage::WantCheckpoint { have: Seq(5), want: Seq(42 * K), stable: forged };
    let (said, out) = step(&mut asked, 3, peer(3, lie));
    assert!(matches!(said, Err(Reject::Misbehaviour(_))), "{said:?}");
    assert!(matches!(&out[..], [Effect::Fact(GroupFact::Suspicion { .. })]), "{out:?}");
}

/// Each made the others verify a signature and cost its sender nothing; the next peer that was
/// charged for anything paid for all of them.
#[test]
fn forged_certificates_beside_a_wish_cost_their_sender_and_nobody_else() {
    let lie = |k| {
        let forged = StableCheckpoint { seq: Seq(k * K), ..certificate(&rules(), K, &[0, 1, 2]) };
        peer(3, GroupMessage::WantCheckpoint { have: Seq(5), want: Seq(22 * K), stable: forged })
    };
    let mut one = source();
    let looked_at =
        (0..1000).filter(|i| step(&mut one, 7, lie(100 + i)).0 != BEYOND_ITS_BUDGET).count();
    assert!((10..200).contains(&looked_at), "{looked_at}");
    for _ in 0..2 {
        assert_ne!(step(&mut one, 7, want(1, 5)).0, BEYOND_ITS_BUDGET, "another peer");
    }
}

fn behind() -> Coordinator {
    let mut one = coordinator(3);
    let lane = ToCoordinator::LeftBehind { missing: Seq(1), stable: Seq(10 * K) };
    feed(&mut one, 0, Input::Lane(lane));
    one
}

fn fetched(out: &[Effect]) -> Vec<(StableCheckpoint, Vec<ReplicaId>)> {
    let fetch = |effect: &Effect| match effect {
        Effect::Stage(ToStage::Fetch { checkpoint, sources }) => {
            Some((checkpoint.clone(), sources.clone()))
        }
        _ => None,
    };
    out.iter().filter_map(fetch).collect()
}

#[test]
fn a_state_is_fetched_on_the_word_of_a_weak_quorum_and_certifies_nothing() {
    let mut one = behind();
    assert_eq!(fetched(&step(&mut one, 1, state(0, REST, 20 * K)).1), []);
    assert_eq!(fetched(&step(&mut one, 2, state(0, REST, 20 * K)).1), [], "one, twice");
    assert_eq!(fetched(&step(&mut one, 3, state(1, REST + 1, 20 * K)).1), [], "another one");
    let (_, out) = step(&mut one, 4, state(2, REST, 20 * K));
    let weak = certificate(&rules(), REST, &[0, 2]);
    assert_eq!(fetched(&out), [(weak.clone(), [0, 2].map(ReplicaId).into())]);
    let more = fetched(&step(&mut one, 5, state(1, REST, 20 * K)).1);
    assert_eq!(more.len(), 1, "it joins in");
    assert_eq!(more[0].1, [0, 1, 2].map(ReplicaId));
    let progress = Progress { executed: Seq(REST), ..Progress::default() };
    let done = FromStage::Fetched { checkpoint: weak, progress, replaced: true };
    let (_, out) = step(&mut one, 6, Input::Stage(done));
    let kept: Vec<Seq> = out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Persist(GroupRecord::Stable(stable)) => Some(stable.seq),
            _ => None,
        })
        .collect();
    assert_eq!(kept, [Seq(20 * K)], "the last certified checkpoint below it");
    assert_eq!(one.report().fetching, None);
    assert_eq!(one.records(), [GroupRecord::Stable(certificate(&rules(), 20 * K, &[0, 1, 2]))]);
}

/// Found by reading: a faulty replica that gave an old checkpoint, little at a time, kept a laggard
/// from the state that all the others rested in until it came.
#[test]
fn a_state_that_a_weak_quorum_rests_in_comes_before_what_one_alone_gives() {
    let have = |from, k| {
        peer(from, GroupMessage::HaveCheckpoint(certificate(&rules(), k * K, &[0, 1, 2])))
    };
    let (mut one, mut many) = (behind(), behind());
    feed(&mut one, 10, have(2, 18));
    assert_eq!(fetched(&step(&mut one, 210, Input::Turn).1).len(), 1);
    assert_eq!(fetched(&step(&mut one, 300, state(0, REST, 20 * K)).1), []);
    let weak = certificate(&rules(), REST, &[0, 1]);
    let (_, out) = step(&mut one, 301, state(1, REST, 20 * K));
    assert_eq!(fetched(&out), [(weak, [0, 1].map(ReplicaId).into())]);
    // Of two one is correct, and gives what it can.
    feed(&mut many, 10, have(2, 18));
    assert_eq!(fetched(&step(&mut many, 11, have(0, 18)).1).len(), 1);
    feed(&mut many, 300, state(0, REST, 20 * K));
    assert_eq!(fetched(&step(&mut many, 301, state(1, REST, 20 * K)).1), []);
    let lost = FromStage::LostSource { seq: Seq(18 * K), source: ReplicaId(0) };
    feed(&mut many, 302, Input::Stage(lost));
    assert_eq!(fetched(&step(&mut many, 303, Input::Turn).1).len(), 1, "unless it is gone");
}

/// A log does not lead to what was fetched. Everybody had lost power before that was on disk, and
/// one of those whose CHECKPOINTs made a certificate had nothing of what it certified.
#[test]
fn what_is_fetched_goes_to_disk_before_a_word_is_said_of_it() {
    let reader = SnapshotReader::Disk;
    let weak = certificate(&rules(), REST, &[0, 2]);
    let mut one = behind();
    feed(&mut one, 1, state(0, REST, 20 * K));
    let (_, out) = step(&mut one, 2, state(2, REST, 20 * K));
    let keeps = |e: &Effect| {
        matches!(e, Effect::Stage(ToStage::Pin { seq: Seq(REST), reader: SnapshotReader::Disk }))
    };
    assert!(out.iter().any(keeps), "{out:?}");
    let progress = Progress { executed: Seq(REST), ..Progress::default() };
    let done = FromStage::Fetched { checkpoint: weak.clone(), progress, replaced: true };
    feed(&mut one, 3, Input::Stage(done));
    let saves =
        |out: &[Effect]| out.iter().any(|e| matches!(e, Effect::Save(stable) if *stable == weak));
    let pinned = FromStage::Pinned { reader, seq: Seq(REST), digest: weak.digest };
    assert!(saves(&step(&mut one, 4, Input::Stage(pinned)).1));
    // Its disk is full.
    let tells = |out: &[Effect]| {
        let saved = FromCoordinator::Saved(Seq(REST));
        out.iter().any(|e| matches!(e, Effect::Lanes(word) if *word == saved))
    };
    assert!(!tells(&step(&mut one, 5, Input::Saved { written: false }).1));
    feed(&mut one, 6, want(1, 5));
    assert_eq!(pins(&step(&mut one, 1100, want(1, 5)).1), [], "it has nothing to offer yet");
    assert!(saves(&step(&mut one, 1200, Input::Turn).1), "there may be room by now");
    assert!(tells(&step(&mut one, 1201, Input::Saved { written: true }).1));
    assert_eq!(pins(&step(&mut one, 2300, want(1, 5)).1), [REST]);
}

/// Found by reading: what had been kept for the disk under the number of what is fetched was the
/// own state, and wrong. The stage lets that go, and what is fetched was no longer kept.
#[test]
fn what_is_fetched_is_kept_although_the_own_state_of_its_number_is_let_go() {
    let reader = SnapshotReader::Disk;
    let mut one = behind();
    feed(&mut one, 1, state(0, REST, 20 * K));
    feed(&mut one, 2, state(2, REST, 20 * K));
    let missed = || {
        let executed = Seq(REST + 1);
        Input::Stage(FromStage::PinMissed { reader, seq: Seq(REST), executed })
    };
    let kept = |out: &[Effect]| -> Vec<Seq> {
        let disk = |effect: &Effect| match effect {
            Effect::Stage(ToStage::Pin { seq, reader: SnapshotReader::Disk }) => Some(*seq),
            _ => None,
        };
        out.iter().filter_map(disk).collect()
    };
    // It has both words of the own one on its way when it hears what to fetch.
    let saves = |out: &[Effect]| out.iter().any(|effect| matches!(effect, Effect::Save(_)));
    let own = FromStage::Pinned { reader, seq: Seq(REST), digest: Digest([9; 32]) };
    assert!(!saves(&step(&mut one, 3, Input::Stage(own)).1), "which is wrong");
    assert_eq!(kept(&step(&mut one, 3, missed()).1), [Seq(REST)]);
    // Once it is there, what is missed is gone, and the next one has to do.
    let checkpoint = certificate(&rules(), REST, &[0, 2]);
    let progress = Progress { executed: Seq(REST + 2), ..Progress::default() };
    let done = FromStage::Fetched { checkpoint, progress, replaced: false };
    feed(&mut one, 4, Input::Stage(done));
    let next = kept(&step(&mut one, 5, missed()).1);
    assert!(next.len() == 1 && next[0] > Seq(REST), "{next:?}");
}

#[test]
fn what_is_certified_is_told_to_the_lanes_which_go_on_from_there() {
    let mut one = behind();
    let certified = certificate(&rules(), 20 * K, &[0, 1, 2]);
    let (_, out) = step(&mut one, 1, state(0, REST, 20 * K));
    let lanes = |out: &[Effect], what: &FromCoordinator| {
        out.iter().position(|effect| matches!(effect, Effect::Lanes(word) if word == what))
    };
    assert!(lanes(&out, &FromCoordinator::Certified(certified.clone())).is_some());
    let (_, out) = step(&mut one, 250, Input::Turn);
    let floats = lanes(&out, &FromCoordinator::Float(certified.clone())).expect("it is behind");
    let noted = GroupRecord::Stable(certified);
    let is = |effect: &Effect| matches!(effect, Effect::Persist(record) if *record == noted);
    assert!(out.iter().position(is).is_some_and(|at| at < floats), "noted before");
    // What is below the floor is not enough.
    feed(&mut one, 300, executed(15 * K));
    let (_, out) = step(&mut one, 5000, Input::Turn);
    let wants = |e: &Effect| {
        matches!(e, Effect::Send { message, .. }
        if matches!(message, GroupMessage::WantCheckpoint { .. }))
    };
    assert!(out.iter().any(wants));
}

/// Swarm seed 4103441: its own log had led three of four lanes far above what was certified. The
/// fourth could be helped by nobody, and voted for nothing above its window, since all of them
/// were not behind the certificate. The group needed its votes.
#[test]
fn one_lane_that_is_behind_what_is_certified_is_enough_to_go_on_from_there() {
    let mut one = behind();
    let further = ToCoordinator::LeftBehind { missing: Seq(25 * K), stable: Seq(20 * K) };
    feed(&mut one, 1, Input::Lane(further));
    let certified = certificate(&rules(), 20 * K, &[0, 1, 2]);
    feed(&mut one, 2, state(0, REST, 20 * K));
    let (_, out) = step(&mut one, 250, Input::Turn);
    let floats = FromCoordinator::Float(certified);
    assert!(out.iter().any(|effect| matches!(effect, Effect::Lanes(word) if *word == floats)));
}

#[test]
fn forged_offers_are_refused_and_certificates_are_never_weak() {
    let mut one = behind();
    let sin = |(result, _): (Result<(), Reject>, _)| matches!(result, Err(Reject::Misbehaviour(_)));
    let alter = |alter: &dyn Fn(&mut GroupMessage)| {
        let Input::Peer { mut message, .. } = state(0, REST, 20 * K) else { panic!("made above") };
        alter(&mut message);
        peer(0, message)
    };
    let other = alter(&|m| {
        if let GroupMessage::HaveState { digest, .. } = m {
            digest.0[0] ^= 1;
        }
    });
    assert!(sin(step(&mut one, 1, other)), "the signature is over another digest");
    let weak = alter(&|m| {
        if let GroupMessage::HaveState { stable, .. } = m {
            *stable = certificate(&rules(), 20 * K, &[0, 2]);
        }
    });
    assert!(sin(step(&mut one, 2, weak)), "two are no quorum");
    let odd = alter(&|m| {
        if let GroupMessage::HaveState { stable, .. } = m {
            *stable = certificate(&rules(), REST, &[0, 1, 2]);
        }
    });
    assert!(sin(step(&mut one, 3, odd)), "no checkpoint is taken there");
    assert!(sin(step(&mut one, 4, state(0, 20 * K, 21 * K))), "below its own checkpoint");
    let have = GroupMessage::HaveCheckpoint(certificate(&rules(), 20 * K, &[0, 2]));
    assert!(sin(step(&mut one, 5, peer(2, have))));
    assert!(step(&mut coordinator(3), 6, state(0, REST, 20 * K)).0.is_err(), "nothing is wanted");
}
