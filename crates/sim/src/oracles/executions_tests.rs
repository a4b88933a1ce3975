//! That the oracle of executions can fail, a case for each of its sentences.

use std::slice::from_ref;
use std::sync::Arc;

use super::*;
use crate::oracles::testing::{batch, frame, open};

const TIME: AgreedTime = AgreedTime(100);

/// What a service sees of a frame whose operations begin at `first`.
fn saw(seq: u64, first: u32, frame: &Frame) -> Vec<Execution> {
    let one = |(index, op): (u32, &[u8])| Execution {
        seq: Seq(seq),
        index,
        // The batches of these tests propose one time.
        time: AgreedTime(TIME.0 + seq - 1),
        frame: frame.id(),
        op: mark(op),
        result: mark(b"result"),
    };
    (first..).zip(frame.ops()).map(one).collect()
}

/// Batches from number 1 on.
struct World {
    batches: Vec<Arc<Batch>>,
    oracle: Executions,
}

impl World {
    /// Two correct clients; the first batch opens their sessions and a faulty client's.
    fn new(batches: &[Arc<Batch>]) -> World {
        let mut all = vec![batch(&[open(0), open(1), open(9)])];
        all.extend_from_slice(batches);
        let mut world = World { batches: all, oracle: Executions::new(2) };
        assert_eq!(world.turn(0, 1, &[]), Ok(()));
        assert_eq!(world.turn(1, 1, &[]), Ok(()));
        world
    }

    fn turn(&mut self, replica: u16, upto: u64, saw: &[Execution]) -> Verdict {
        let (replica, upto, time) = (ReplicaId(replica), Seq(upto), AgreedTime(TIME.0 + upto - 1));
        let turn = Turn { replica, sound: true, upto, time, saw };
        let at = |seq: Seq| self.batches.get(seq.0 as usize - 1).map(|batch| &**batch);
        self.oracle.executes(&turn, at, |_, _, _| Ok(()))
    }
}

#[test]
fn what_executes_is_what_was_delivered_everywhere_alike() {
    let (a, b) = (frame(0, 1, &[b"a1", b"a2"]), frame(1, 1, &[b"b1"]));
    let both = [saw(2, 1, &a), saw(2, 3, &b)].concat();
    let mut world = World::new(&[batch(&[a.clone(), b]), Arc::new(Batch::Null)]);
    assert_eq!(world.turn(0, 3, &both), Ok(()));
    assert_eq!(world.turn(1, 2, &both), Ok(()));
    assert!(world.turn(2, 3, &[]).is_err(), "it executed nothing");
    world.oracle.jumps(ReplicaId(2), Seq(2));
    assert_eq!(world.turn(2, 3, &[]), Ok(()), "it has fetched that");
    world.oracle.jumps(ReplicaId(2), Seq(1));
    assert_eq!(world.turn(2, 3, &both), Ok(()), "it has begun behind that");
    let mut wrong = both.clone();
    wrong[1].result ^= 1;
    world.oracle.jumps(ReplicaId(2), Seq(1));
    assert!(world.turn(2, 3, &wrong).is_err(), "another result");
    let null = saw(3, 1, &a);
    world.oracle.jumps(ReplicaId(2), Seq(2));
    assert!(world.turn(2, 3, &null).is_err(), "nothing is in a null batch");
}

#[test]
fn a_first_execution_is_compared_with_its_batch() {
    let (a, b) = (frame(0, 1, &[b"a1", b"a2"]), frame(1, 1, &[b"b1"]));
    let right = [saw(2, 1, &a), saw(2, 3, &b)].concat();
    let fails = |saw: Vec<Execution>| {
        let mut world = World::new(&[batch(&[a.clone(), b.clone()])]);
        world.turn(0, 2, &saw).is_err()
    };
    assert!(!fails(right.clone()));
    assert!(fails(right[..2].to_vec()), "what is next in its stream executes");
    assert!(fails([&right[..1], &right[2..]].concat()), "a frame is atomic");
    assert!(fails([&right[2..], &right[..2]].concat()), "in order");
    assert!(fails([&right[..], &right[2..]].concat()), "twice");
    let altered = |alter: fn(&mut Execution)| {
        let mut saw = right.clone();
        alter(&mut saw[2]);
        saw
    };
    assert!(fails(altered(|one| one.op ^= 1)), "other bytes");
    assert!(fails(altered(|one| one.frame.client = ClientId(0))), "in another's name");
    assert!(fails(altered(|one| one.index = 4)), "elsewhere");
    assert!(fails(altered(|one| one.time = AgreedTime(7))), "at another time");
    assert!(fails(altered(|one| one.seq = Seq(9))), "in another batch");
}

#[test]
fn nothing_executes_twice_or_out_of_its_order() {
    let (one, two) = (frame(9, 1, &[b"x"]), frame(9, 2, &[b"x"]));
    let other = frame(9, 1, &[b"y"]);
    let again = |second: &Arc<Frame>| {
        let mut world = World::new(&[batch(from_ref(&one)), batch(from_ref(second))]);
        assert_eq!(world.turn(0, 2, &saw(2, 1, &one)), Ok(()));
        world.turn(0, 3, &saw(3, 1, second))
    };
    assert_eq!(again(&two), Ok(()), "a faulty client may ask twice for the same");
    assert!(again(&one).is_err(), "the same frame");
    assert!(again(&other).is_err(), "another body under the same id");
    assert!(again(&frame(9, 3, &[b"x"])).is_err(), "a gap in an ordered stream");
    assert!(again(&frame(8, 1, &[b"x"])).is_err(), "no session");
    let mine = [frame(0, 1, &[b"x"]), frame(0, 2, &[b"x"])];
    let mut world = World::new(&[batch(&mine)]);
    let both = [saw(2, 1, &mine[0]), saw(2, 2, &mine[1])].concat();
    assert!(world.turn(0, 2, &both).is_err(), "a correct client's operations are its own");
}

#[test]
fn time_goes_as_it_must() {
    let mut world = World::new(&[batch(&[]), Arc::new(Batch::Null)]);
    assert_eq!(world.turn(0, 2, &[]), Ok(()));
    let turn = Turn {
        replica: ReplicaId(1),
        sound: true,
        upto: Seq(2),
        time: AgreedTime(TIME.0 + 7),
        saw: &[],
    };
    let at = |seq: Seq| world.batches.get(seq.0 as usize - 1).map(|batch| &**batch);
    assert!(world.oracle.executes(&turn, at, |_, _, _| Ok(())).is_err());
    assert!(world.turn(0, 4, &[]).is_err(), "nobody delivered that");
}
