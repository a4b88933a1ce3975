//! Rotating leaders: who leads what, what becomes of one that fails, and what no liar achieves.

use std::sync::Arc;

use base::crypto::ClientKeyring;
use base::{
    AgreedTime, BatchEntry, ClientId, Frame, FrameBuilder, FrameId, Incarnation, Now, PillarId,
    Quorums, ReplicaId, Seq, SessionId, Signature, Span, StableCheckpoint, Time, View,
};
use proto::group::decide::{Decision, decide};
use proto::group::msg::ViewChange;
use proto::group::roster::{Exclusion, Roster};
use proto::pbft::msg::{Message, Proposal};
use proto::pbft::{Input, Lane, Leaders};
use proto::{Effect, Outbox};

use super::Scenario;
use crate::faults::Fault;
use crate::host::{GROUP, keys, lane_config};
use crate::options::{Net, Options};
use crate::scenario::{PATIENCE, finish, reach, settle, world};
use crate::world::World;

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "leaders_take_turns",
        claim: "L26: with rotating leaders nobody is blamed while all work, idle pillars and \
                leaders without a frame included.",
        ci_seeds: 12,
        full_seeds: 1_000,
        run: leaders_take_turns,
    },
    Scenario {
        name: "a_rotating_leader_that_fails_is_left_out",
        claim: "V17: a leader that ends is excluded by the next view, and clients are served \
                without a view change for each of its turns; at most f are excluded at a time, \
                and an exclusion outlives the next view change.",
        ci_seeds: 8,
        full_seeds: 1_000,
        run: a_rotating_leader_that_fails_is_left_out,
    },
    Scenario {
        name: "nobody_is_excluded_on_the_word_of_few",
        claim: "L26, V17: frames are proposed by whom they are dealt to alone, another one in \
                each interval; f VIEW-CHANGEs exclude nobody, and all of them no more than f.",
        ci_seeds: 10,
        full_seeds: 1_000,
        run: nobody_is_excluded_on_the_word_of_few,
    },
];

fn options(seed: u64) -> Options {
    let (n, f) = if seed.is_multiple_of(2) { (4, 1) } else { (7, 2) };
    let pillars = [1, 2, 3][seed as usize % 3];
    let base = Options { seed, n, f, pillars, ..Options::default() };
    let options = Options { leaders: Leaders::Rotating, ops_per_client: 60, ..base };
    options.fitted()
}

fn highest_view(world: &World) -> View {
    world.correct().into_iter().map(|replica| world.view(replica)).max().unwrap_or_default()
}

fn leaders_take_turns(seed: u64) {
    let net = if seed.is_multiple_of(3) { Net::CALM } else { Net { ..Net::BAD } };
    let pace_us = [0, 3_000][seed as usize / 2 % 2];
    let clients = 1 + (seed % 3) as u32;
    let view_timeout = Span::secs(5);
    let mut world = world(Options { net, pace_us, clients, view_timeout, ..options(seed) });
    finish(&mut world, PATIENCE);
    settle(&mut world, 20);
    assert_eq!(highest_view(&world), View(0), "{}", world.describe());
}

/// Whom every correct replica excludes in the highest view.
fn excluded(world: &World) -> Option<Vec<ReplicaId>> {
    let view = highest_view(world);
    let mut said = world.correct().into_iter().map(|replica| {
        let lane = world.lane(replica, PillarId(0));
        let of = |roles: &proto::pbft::Roles| roles.excluded().iter().map(|one| one.0).collect();
        (lane.view() == view).then(|| of(lane.roles()))
    });
    let first: Vec<ReplicaId> = said.next()??;
    said.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

fn a_rotating_leader_that_fails_is_left_out(seed: u64) {
    let mut world = world(options(seed));
    let Options { n, f, .. } = world.options();
    world.run_for(Span::millis(20 + seed % 40), |_| false);
    let mut fails = ReplicaId((seed / 2 % u64::from(n)) as u16);
    let mut gone = Vec::new();
    for _ in 0..f {
        world.fault(Fault::Crash(fails));
        gone.push(fails);
        gone.sort_unstable();
        world.ask_more(40);
        reach(&mut world, PATIENCE, "who failed is left out", |world| {
            excluded(world).is_some_and(|all| gone.iter().all(|one| all.contains(one)))
        });
        finish(&mut world, PATIENCE);
        fails = ReplicaId((fails.0 + 2) % n);
    }
    // Each failure may meet the replica whose turn it is to begin the next view, too.
    let before = highest_view(&world);
    assert!(before <= View(4 * u64::from(f)), "{}", world.describe());
    world.ask_more(40);
    finish(&mut world, PATIENCE);
    // Each may have been let back in, for nothing, and the next leader may be gone, too.
    let after = highest_view(&world);
    assert!(after.0 <= before.0 + 4 * u64::from(f), "a change each turn: {}", world.describe());
    gone.into_iter().for_each(|one| world.fault(Fault::Restart(one)));
    settle(&mut world, 20);
}

fn nobody_is_excluded_on_the_word_of_few(seed: u64) {
    let replica = ReplicaId((seed % 4) as u16);
    let known = Exclusion { replica, since: Seq(0), strikes: 3 };
    let blames = |blames| Roster { blames, excluded: vec![] };
    let plain = || blames(None);
    let excluded = |said: [Roster; 3]| {
        let quorums = Quorums::pbft(4, 1).expect("3f + 1");
        let changes: Vec<Arc<ViewChange>> =
            (0..).zip(said).map(|(from, roster)| change(from, roster)).collect();
        let Decision::Decided(plan) = decide(quorums, View(1), &changes) else { panic!("decided") };
        plan.excluded.iter().map(|one| one.replica).collect::<Vec<_>>()
    };
    assert_eq!(excluded([blames(Some(replica)), plain(), plain()]), []);
    let knows = || Roster { blames: None, excluded: vec![known] };
    assert_eq!(excluded([plain(), knows(), plain()]), []);
    assert_eq!(excluded([plain(), knows(), knows()]), [replica], "a weak quorum knows");
    let other = ReplicaId((replica.0 + 1) % 4);
    let both = || Roster { blames: Some(other), excluded: vec![known] };
    assert_eq!(excluded([both(), both(), both()]), [other], "f at a time, the latest");
    buckets(seed);
}

fn change(from: u16, roster: Roster) -> Arc<ViewChange> {
    Arc::new(ViewChange {
        replica: ReplicaId(from),
        incarnation: Incarnation(1),
        view: View(1),
        stable: StableCheckpoint::default(),
        entries: vec![],
        roster,
        signature: Signature([0; 64]),
    })
}

/// A backup prepares the frame of a stream only where it is dealt to the proposal's leader.
fn buckets(seed: u64) {
    let options = Options { leaders: Leaders::Rotating, ..Options::default() }.fitted();
    let me = ReplicaId(1);
    for stream in 0..8 {
        let mut turns = 0;
        let id = FrameId { client: ClientId(1), session: SessionId(seed + 1), stream, id: 1 };
        let frame = signed(id);
        for interval in 0..4 {
            let seq = Seq(1 + interval * options.checkpoint_interval);
            let mut lane = Lane::new(lane_config(&options, me, PillarId(0)), keys(&options, me));
            let leader = lane.roles().leader(seq);
            let right = lane.roles().dealt_to(&id, seq) == leader;
            turns += u32::from(right);
            let entries = vec![BatchEntry { id, digest: frame.digest() }];
            let proposal = Proposal::Frames { time: NOW.wall, entries };
            let message = Message::PrePrepare { view: View(0), seq, proposal };
            step(&mut lane, Input::Request(Arc::clone(&frame)));
            let input = Input::Peer { from: leader, incarnation: Incarnation(1), message };
            let says = |e: &Effect| matches!(e, Effect::Send { message: Message::Prepare(_), .. });
            let prepares = step(&mut lane, input).iter().any(says);
            assert_eq!(prepares, right && leader != me, "stream {stream}, number {seq:?}");
        }
        // One replica leads the first block of all four; each stream is dealt to each once.
        assert_eq!(turns, 1, "stream {stream} stays with a leader");
    }
}

const NOW: Now = Now { mono: Time(1_000_000), wall: AgreedTime(1_700_000_000_000_000_000) };

fn signed(id: FrameId) -> Arc<Frame> {
    let mut builder = FrameBuilder::new();
    builder.push(b"op");
    let keys = base::crypto::PlainKeys { me: ReplicaId(0), n: 4 };
    Arc::new(builder.request(GROUP, id, 0, |digest| keys.authenticate(digest)))
}

fn step(lane: &mut Lane, input: Input) -> Vec<Effect> {
    let mut out = Outbox::new();
    let _ = lane.step(NOW, input, &mut out);
    lane.check();
    out.drain().collect()
}
