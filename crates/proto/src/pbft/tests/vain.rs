//! Questions that nobody answers: who can hear but is not heard, or asks for what nobody has, goes
//! on asking, and costs the others next to nothing.

use alloc::collections::BTreeMap;

use super::views::{install, plan, stop};
use super::*;
use crate::group::link::Choice;
use crate::pbft::Leaders;

/// Long enough that every doubling of a wait is over.
const SETTLES: Span = Span::secs(5);
/// How long is looked at it.
const LOOK: Span = Span::secs(10);
/// What a question in vain may cost in that time: no more than about 30 a second.
const ASKED_MAX: usize = 300;

/// Lets `span` pass, with a turn whenever the lane wants one, and returns what it asks for, by
/// number: how often, and whom. And how many turns it has.
fn asked_in(rig: &mut Rig, span: Span) -> (BTreeMap<Seq, usize>, Vec<Target>, usize) {
    let end = rig.now.mono.after(span);
    let (mut asked, mut whom, mut turns) = (BTreeMap::new(), Vec::new(), 0);
    while let Some(at) = rig.lane.deadline().filter(|at| *at <= end) {
        let wait = at.since(rig.now.mono);
        rig.wait(wait);
        turns += 1;
        for (to, message) in rig.sent() {
            if let Message::FetchProposal { seq, .. } | Message::Fetch { seq, .. } = message {
                *asked.entry(seq).or_insert(0) += 1;
                if !whom.contains(&to) {
                    whom.push(to);
                }
            }
        }
    }
    let rest = end.since(rig.now.mono);
    rig.wait(rest);
    (asked, whom, turns)
}

fn nth(seq: u64) -> Proposal {
    Proposal::Frames { time: AgreedTime(WALL.0 + seq), entries: vec![] }
}

/// Replica 2 in view 1, whose NEW-VIEW has chosen proposals for the whole window that are not
/// here.
fn lacks_what_was_chosen() -> Rig {
    let mut rig = Rig::new(2, 1);
    stop(&mut rig, 1);
    let chosen = |seq: u64| Choice::Digest(nth(seq).digest(GROUP, Seq(seq)));
    let choices: Vec<Choice> = (1..=16).map(chosen).collect();
    install(&mut rig, &plan(1, 0, &choices));
    rig
}

/// The swarm's seed 3010075: one replica heard the others' NEW-VIEW and was heard by one that
/// could not reach it. It asked for 96 proposals five times a second for as long as that lasted.
#[test]
fn proposals_that_nobody_gives_are_asked_for_a_few_at_a_time() {
    let mut rig = lacks_what_was_chosen();
    let (asked, ..) = asked_in(&mut rig, Span::millis(200));
    assert_eq!(asked.len(), 16);
    assert!(asked.values().all(|times| *times > 5), "first all, and often: {asked:?}");
    asked_in(&mut rig, SETTLES);
    let (asked, _, turns) = asked_in(&mut rig, LOOK);
    assert_eq!(asked.len(), 16, "none is forgotten: {asked:?}");
    assert!(asked.values().sum::<usize>() <= ASKED_MAX && turns <= ASKED_MAX, "{asked:?}");
    // As soon as one comes, somebody hears and is heard.
    rig.peer(3, Message::ProposalIs { seq: Seq(16), proposal: nth(16) }).expect("wanted");
    let (asked, ..) = asked_in(&mut rig, Span::millis(5));
    assert!((1..16).all(|seq| asked.contains_key(&Seq(seq))), "{asked:?}");
}

/// The next view begins with questions about everything, however long they were in vain.
#[test]
fn another_view_asks_anew() {
    let mut rig = lacks_what_was_chosen();
    asked_in(&mut rig, SETTLES);
    stop(&mut rig, 2);
    let chosen = |seq: u64| Choice::Digest(nth(seq).digest(GROUP, Seq(seq)));
    let choices: Vec<Choice> = (1..=16).map(chosen).collect();
    install(&mut rig, &plan(2, 0, &choices));
    rig.sent();
    let (asked, ..) = asked_in(&mut rig, Span::millis(200));
    assert_eq!(asked.len(), 16, "once more if that was lost: {asked:?}");
}

/// A faulty leader names what nobody has, in every number of the window.
#[test]
fn bodies_that_nobody_has_are_asked_for_a_few_at_a_time() {
    let mut rig = Rig::new(2, 1);
    let frames: Vec<Arc<Frame>> = (1..=16).map(|id| frame(id, b"op")).collect();
    for (seq, f) in (1..).zip(&frames) {
        rig.peer(0, pre_prepare(seq, &proposal(&[f]))).expect("it may be under way");
    }
    asked_in(&mut rig, SETTLES);
    let (asked, ..) = asked_in(&mut rig, LOOK);
    assert_eq!(asked.len(), 16, "none is forgotten: {asked:?}");
    assert!(asked.values().sum::<usize>() <= ASKED_MAX, "{asked:?}");
    rig.peer(0, Message::Body { vouched: true, frame: frames[8].clone() }).expect("wanted");
    let (asked, ..) = asked_in(&mut rig, Span::millis(5));
    assert_eq!(asked.len(), 15, "all at once: {asked:?}");
}

/// The swarm's seed 3011588: two liars and one other vouched for frames that nobody gave, which all
/// who may propose them went on asking for. Whoever proposed anything else was late: the others
/// asked for the bodies of that with the same waits.
#[test]
fn what_nobody_gives_a_leader_delays_no_proposal() {
    let switches = Switches { leaders: Leaders::Rotating, ..Switches::default() };
    let phantom = frame(1, b"phantom");
    let may_propose = |me: &u16| {
        let lane = Rig::among((4, 1), *me, 1, switches).lane;
        lane.roles().dealt_to(&phantom.id(), lane.lead_next()) == ReplicaId(*me)
    };
    let me = (0..4).find(may_propose).expect("somebody may");
    let mut rig = Rig::among((4, 1), me, 1, switches);
    for from in (0..4).filter(|from| *from != me).take(2) {
        rig.peer(from, vouch_for(vec![entry(&phantom)])).expect("a vouch");
    }
    asked_in(&mut rig, SETTLES);
    let (asked, ..) = asked_in(&mut rig, LOOK);
    assert!((10..=ASKED_MAX).contains(&asked.values().sum::<usize>()), "{asked:?}");
    let seq = (1..=16).find(|seq| rig.lane.roles().leader(Seq(*seq)) != ReplicaId(me));
    let seq = seq.expect("others lead, too");
    let leader = rig.lane.roles().leader(Seq(seq)).0;
    let client = PlainKeys { me: ReplicaId(0), n: 4 };
    let of_stream = |stream| {
        let id = FrameId { client: ClientId(3), session: SessionId(1), stream, id: 1 };
        let sign = |digest| base::crypto::ClientKeyring::authenticate(&client, digest);
        let mut builder = FrameBuilder::new();
        builder.push(b"op");
        Arc::new(builder.request(GROUP, id, 0, sign))
    };
    let dealt = |f: &Arc<Frame>| rig.lane.roles().dealt_to(&f.id(), Seq(seq)).0 == leader;
    let f = (1..=64).map(of_stream).find(dealt).expect("it is dealt some");
    let p = Proposal::Frames { time: rig.now.wall, entries: vec![entry(&f)] };
    rig.peer(leader, pre_prepare(seq, &p)).expect("a proposal");
    rig.wait(Span::millis(4));
    let fetch = Message::Fetch { seq: Seq(seq), entries: vec![entry(&f)] };
    assert!(rig.sent().contains(&(Target::All, fetch)));
}

/// A leader leaves a replica out that the others cannot hear.
#[test]
fn proposals_that_voters_keep_to_themselves_are_asked_for_ever_more_seldom() {
    let mut rig = Rig::new(2, 1);
    for seq in 1..=16 {
        for from in [1, 3] {
            rig.peer(from, Message::Prepare(vote(seq, &nth(seq)))).expect("a vote");
        }
    }
    let (asked, whom, _) = asked_in(&mut rig, Span::millis(20));
    assert_eq!((asked.len(), whom.len()), (16, 2), "of both, at first: {asked:?} {whom:?}");
    assert!(asked.values().all(|times| *times >= 2), "{asked:?}");
    asked_in(&mut rig, SETTLES);
    let (asked, whom, turns) = asked_in(&mut rig, LOOK);
    assert!(asked.contains_key(&Seq(1)) && whom.len() == 2, "{asked:?} {whom:?}");
    assert!(asked.values().sum::<usize>() <= ASKED_MAX && turns <= ASKED_MAX, "{turns} {asked:?}");
    rig.peer(1, Message::ProposalIs { seq: Seq(1), proposal: nth(1) }).expect("wanted");
    let (asked, ..) = asked_in(&mut rig, Span::millis(6));
    assert_eq!(asked.len(), 15, "all at once: {asked:?}");
}

/// All votes for what is beyond reach came while what is below was missing, and nobody repeats
/// them as something new. Where this replica's vote is needed, these numbers stood until help came
/// for all that is not decided.
#[test]
fn what_was_overheard_beyond_reach_is_asked_for_once_it_is_within() {
    let mut rig = Rig::new(2, 1);
    rig.lane.cfg.window = 96;
    let voted = |rig: &mut Rig, seqs: core::ops::RangeInclusive<u64>| {
        for (seq, from) in seqs.flat_map(|seq| [(seq, 1), (seq, 3)]) {
            rig.peer(from, Message::Prepare(vote(seq, &nth(seq)))).expect("a vote");
        }
    };
    voted(&mut rig, 1..=80);
    let (asked, ..) = asked_in(&mut rig, Span::millis(2));
    assert_eq!(asked.len(), 64, "no more at a time: {asked:?}");
    for seq in 1..=64 {
        rig.peer(1, Message::ProposalIs { seq: Seq(seq), proposal: nth(seq) }).expect("wanted");
    }
    let (asked, _, turns) = asked_in(&mut rig, LOOK);
    assert!(asked.is_empty() && turns <= ASKED_MAX, "{turns} turns for {asked:?}");
    for (seq, from) in (1..=10).flat_map(|seq| [(seq, 1), (seq, 3)]) {
        rig.peer(from, Message::Commit(vote(seq, &nth(seq)))).expect("a vote");
    }
    assert_eq!(rig.lane.report().delivered, Seq(10));
    let (asked, ..) = asked_in(&mut rig, Span::millis(2));
    assert!(asked.keys().copied().eq((65..=74).map(Seq)), "{asked:?}");
    for (seq, from) in (11..=64).flat_map(|seq| [(seq, 1), (seq, 3)]) {
        rig.peer(from, Message::Commit(vote(seq, &nth(seq)))).expect("a vote");
    }
    let (asked, ..) = asked_in(&mut rig, Span::millis(2));
    assert!((75..=80).all(|seq| asked.contains_key(&Seq(seq))), "{asked:?}");
    for seq in 65..=80 {
        rig.peer(1, Message::ProposalIs { seq: Seq(seq), proposal: nth(seq) }).expect("wanted");
    }
    let (asked, ..) = asked_in(&mut rig, LOOK);
    assert!(asked.is_empty() && rig.lane.catchup.overheard.is_idle(), "{asked:?}");
}
