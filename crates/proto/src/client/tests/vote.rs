//! Ballots, alone and against a model that counts by the definition.

use base::reply::Reply;
use base::{ClientId, Quorums, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::vec;

use super::*;

const N: u16 = 7;
const F: u16 = 2;

fn quorums() -> Quorums {
    Quorums::pbft(N, F).expect("a legal group")
}

fn frame() -> FrameId {
    FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id: 1 }
}

fn reply(seq: u64, status: ReplyStatus, bytes: usize, fill: u8) -> Vec<u8> {
    let mut results = vec![];
    let count = u32::from(status == ReplyStatus::Executed);
    if count > 0 {
        results = u32::try_from(bytes).expect("small").to_le_bytes().to_vec();
        results.resize(4 + bytes, fill);
    }
    let mut content = vec![];
    Reply { frame: frame(), seq: Seq(seq), status, count, results }.encode(&mut content);
    content
}

fn executed(bytes: usize, fill: u8) -> Vec<u8> {
    reply(1, ReplyStatus::Executed, bytes, fill)
}

fn whole(content: &[u8], tentative: Option<View>) -> Said<'_> {
    Said::read(ReplyBody::Whole(content), tentative).expect("own encoding")
}

/// The digest of `content`, said to stand at `seq`.
fn digest(content: &[u8], seq: u64, tentative: Option<View>) -> Said<'static> {
    let said = base::reply::ReplyDigest::of(frame(), Seq(seq), content);
    Said::read(ReplyBody::Digest(said), tentative).expect("nothing to be read")
}

fn cast(ballot: &mut Ballot, from: u16, said: &Said<'_>) -> Option<Accepted> {
    let accepted =
        ballot.cast(ReplicaId(from), said, (Voter::default(), Acceptance::weak(quorums())));
    ballot.check();
    accepted
}

/// A liar that answers first, and with much, does not get its answer kept; a large answer is
/// accepted all the same.
#[test]
fn large_contents_are_counted_and_not_kept() {
    let (lie, truth) = (executed(1 << 20, 1), executed(1 << 20, 2));
    let mut ballot = Ballot::default();
    assert_eq!(cast(&mut ballot, 3, &whole(&lie, None)), None);
    assert!(ballot.kept.is_none(), "nothing large is kept");
    assert_eq!(cast(&mut ballot, 0, &whole(&truth, None)), None);
    assert_eq!(cast(&mut ballot, 1, &digest(&truth, 1, None)), None);
    let accepted = cast(&mut ballot, 2, &whole(&truth, None)).expect("three of seven");
    assert_eq!((accepted.content, accepted.liars), (truth, vec![ReplicaId(3)]));
}

#[test]
fn digests_are_votes_and_never_a_content() {
    let (lie, truth) = (executed(9, 1), executed(9, 2));
    let mut ballot = Ballot::default();
    for from in 0..5 {
        assert_eq!(cast(&mut ballot, from, &digest(&truth, 1, None)), None);
    }
    assert_eq!(cast(&mut ballot, 5, &whole(&lie, None)), None);
    let accepted = cast(&mut ballot, 6, &whole(&truth, None)).expect("the content is there");
    assert_eq!((accepted.content, accepted.liars), (truth.clone(), vec![ReplicaId(5)]));
    // The content first, or in between.
    for at in 0..3 {
        let mut ballot = Ballot::default();
        for from in 0..2 {
            let said = if from == at { whole(&truth, None) } else { digest(&truth, 1, None) };
            assert_eq!(cast(&mut ballot, from, &said), None);
        }
        let last = if at == 2 { whole(&truth, None) } else { digest(&truth, 1, None) };
        let accepted = cast(&mut ballot, 2, &last).expect("three of seven");
        assert_eq!(accepted.content, truth);
    }
}

/// Beside a digest only the frame and the number stand. Who says a wrong number with the right
/// digest is counted for nothing, and what is accepted is what the content says.
#[test]
fn a_right_digest_with_a_wrong_number_is_a_lie() {
    let truth = executed(9, 2);
    let mut ballot = Ballot::default();
    assert_eq!(cast(&mut ballot, 0, &whole(&truth, None)), None);
    assert_eq!(cast(&mut ballot, 1, &digest(&truth, 1, None)), None);
    assert_eq!(cast(&mut ballot, 5, &digest(&truth, 9, None)), None);
    assert_eq!(cast(&mut ballot, 6, &digest(&truth, 9, None)), None);
    let accepted = cast(&mut ballot, 2, &digest(&truth, 1, None)).expect("three of seven");
    assert_eq!((accepted.head.seq, accepted.content), (Seq(1), truth));
    assert_eq!(accepted.liars, [ReplicaId(5), ReplicaId(6)]);
}

/// What replicas say outside the total order has number 0, and differs with how far they are.
#[test]
fn answers_without_a_number_do_not_contradict_each_other() {
    let gone = reply(0, ReplyStatus::ReplyGone, 0, 0);
    let unknown = reply(0, ReplyStatus::NoSession, 0, 0);
    let mut ballot = Ballot::default();
    assert_eq!(cast(&mut ballot, 3, &whole(&gone, None)), None);
    assert_eq!(cast(&mut ballot, 0, &whole(&unknown, None)), None);
    assert_eq!(cast(&mut ballot, 1, &whole(&unknown, None)), None);
    let accepted = cast(&mut ballot, 2, &whole(&unknown, None)).expect("three of seven");
    assert_eq!((accepted.content, accepted.liars), (unknown, vec![]));
    // With a number there is one right answer.
    let refused = |status| reply(5, status, 0, 0);
    assert_eq!(cast(&mut ballot, 3, &whole(&refused(ReplyStatus::ReplyGone), None)), None);
    let unknown = refused(ReplyStatus::NoSession);
    assert_eq!(cast(&mut ballot, 0, &whole(&unknown, None)), None);
    assert_eq!(cast(&mut ballot, 1, &whole(&unknown, None)), None);
    let accepted = cast(&mut ballot, 2, &whole(&unknown, None)).expect("three of seven");
    assert_eq!((accepted.content, accepted.liars), (unknown, vec![ReplicaId(3)]));
}

#[test]
fn tentative_votes_need_a_quorum_of_one_view() {
    let truth = executed(9, 2);
    let mut ballot = Ballot::default();
    for from in 0..4 {
        assert_eq!(cast(&mut ballot, from, &whole(&truth, Some(View(3)))), None);
    }
    for from in 4..7 {
        assert_eq!(cast(&mut ballot, from, &whole(&truth, Some(View(4)))), None, "views mixed");
    }
    // One that is committed goes with either.
    let accepted = cast(&mut ballot, 6, &whole(&truth, None)).expect("four of view 3 and one");
    assert!(accepted.liars.is_empty());
}

#[test]
fn a_final_vote_replaces_a_tentative_one_and_stays() {
    let (before, truth) = (executed(9, 1), executed(9, 2));
    let mut ballot = Ballot::default();
    for from in 0..2 {
        assert_eq!(cast(&mut ballot, from, &whole(&truth, None)), None);
        assert_eq!(cast(&mut ballot, from, &whole(&truth, Some(View(1)))), None);
    }
    // What was rolled back is not a lie.
    assert_eq!(cast(&mut ballot, 3, &whole(&before, Some(View(0)))), None);
    assert_eq!(cast(&mut ballot, 2, &whole(&before, Some(View(0)))), None);
    let accepted = cast(&mut ballot, 2, &whole(&truth, None)).expect("three are final");
    assert_eq!((accepted.content, accepted.liars), (truth, vec![]));
}

#[test]
fn a_group_with_unordered_reads_accepts_nothing_below_a_quorum() {
    let truth = executed(9, 2);
    let mut ballot = Ballot::default();
    let all = Acceptance::quorum(quorums());
    for from in 0..4 {
        let view = (from % 2 == 0).then_some(View(1));
        assert_eq!(
            ballot.cast(ReplicaId(from), &whole(&truth, view), (Voter::default(), all)),
            None
        );
    }
    assert!(ballot.cast(ReplicaId(4), &whole(&truth, None), (Voter::default(), all)).is_some());
}

/// A small generator of numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

/// What the ballot is to do, by the definition: the last vote of each replica, unless it is the
/// same less firmly; and the contents that were said since.
#[derive(Default)]
struct Model {
    votes: BTreeMap<u16, (Vec<u8>, u64, Option<View>)>,
    whole: BTreeSet<Vec<u8>>,
}

impl Model {
    fn cast(&mut self, from: u16, vote: (Vec<u8>, u64, Option<View>)) {
        let same = self.votes.get(&from).filter(|old| (&old.0, old.1) == (&vote.0, vote.1));
        if same.is_none_or(|old| old.2.is_some()) {
            self.votes.insert(from, vote);
        }
    }

    fn suffices(&self, content: &[u8], seq: u64) -> bool {
        let same: Vec<Option<View>> = self
            .votes
            .values()
            .filter(|v| (&v.0[..], v.1) == (content, seq))
            .map(|v| v.2)
            .collect();
        let of = |view: Option<View>| same.iter().filter(|v| **v == view).count();
        let views = [View(0), View(1)].map(|view| of(None) + of(Some(view)));
        of(None) > usize::from(F) || views.iter().any(|votes| *votes > 2 * usize::from(F))
    }
}

/// Whatever comes in whatever order: what is accepted is what the definition accepts, as soon as
/// somebody has said it in full; f liars get nothing accepted; one content at most is kept.
#[test]
fn ballots_do_as_the_definition_says() {
    let truth = executed(9, 2);
    let contents = [truth.clone(), executed(9, 1), executed(9, 3)];
    let (mut ended, mut waited) = (0, 0);
    for seed in 1..=4_000u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (mut ballot, mut model) = (Ballot::default(), Model::default());
        for _ in 0..40 {
            let from = u16::try_from(dice.below(usize::from(N))).expect("small");
            let liar = from < F;
            // A correct one is tentative first, in whichever view, and final then.
            let mut tentative =
                [None, Some(View(0)), Some(View(1))][dice.below(if liar { 3 } else { 2 })];
            if !liar && model.votes.get(&from).is_some_and(|vote| vote.2.is_none()) {
                tentative = None;
            }
            let content = if liar { &contents[dice.below(3)] } else { &truth };
            let (said, seq) = match dice.below(3) {
                0 => (whole(content, tentative), 1),
                1 if liar => (digest(content, 2, tentative), 2),
                _ => (digest(content, 1, tentative), 1),
            };
            model.cast(from, (content.clone(), seq, tentative));
            if matches!(said.what, What::Content(_)) {
                model.whole.insert(content.clone());
            }
            let accepted = cast(&mut ballot, from, &said);
            let suffices = model.suffices(content, seq);
            waited += u32::from(suffices && accepted.is_none());
            if let Some(accepted) = accepted {
                assert!(suffices, "seed {seed}");
                assert_eq!((&accepted.content, seq), (&truth, 1), "seed {seed}");
                assert!(accepted.liars.iter().all(|liar| liar.0 < F), "seed {seed}");
                ended += 1;
                break;
            }
            // Only the first content that came in full is kept.
            assert!(!suffices || model.whole.len() > 1 || !model.whole.contains(content));
        }
    }
    assert!(ended > 3_000 && waited > 100, "{ended} ended, {waited} waited");
}
