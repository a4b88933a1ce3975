//! What a principal may have under way, and what it may not keep out with that.

use super::grieve::owed;
use super::*;
use crate::pbft::pool::{Pool, Want, key_of};
use base::limits::PENDING_FRAMES_PER_CLIENT_MAX as QUOTA;

const WEAK: usize = 3;

/// A client and two liars have a leader of seven fetch so many frames that are each held by one
/// correct backup alone that none has room any more, and then one that a quorum endorses.
#[test]
fn what_a_quorum_endorses_has_room_whatever_its_client_has_had_fetched() {
    let mut rig = Rig::among((7, 2), 0, 1, Switches::default());
    rig.wait(Span::secs(50));
    let peer = |rig: &mut Rig, from, message| {
        // Without a look at the whole pool each time.
        let (from, incarnation) = (ReplicaId(from), Incarnation(1));
        let input = Input::Peer { from, incarnation, message };
        rig.lane.step(rig.now, input, &mut rig.out)
    };
    for id in 1..=QUOTA as u64 {
        let input = Input::Request(frame(id, b"op"));
        rig.lane.step(rig.now, input, &mut rig.out).expect("fresh");
    }
    for backup in 1..=4_u16 {
        for batch in 0..5 {
            let first = 10_000 * u64::from(backup) + 256 * batch;
            let frames: Vec<_> = (first..first + 256).map(|id| frame(id, b"op")).collect();
            for from in [5, 6, backup] {
                let vouch = vouch_for(frames.iter().map(|f| entry(f)).collect());
                peer(&mut rig, from, vouch).expect("a vouch");
            }
            for _ in 0..2 {
                rig.wait(Span::millis(200));
                rig.sent();
            }
            for f in &frames {
                // The last ones are wanted no more, or have no room.
                let _ = peer(&mut rig, backup, Message::Body { vouched: true, frame: f.clone() });
            }
            assert!(proposals(&rig.sent()).is_empty());
        }
    }
    assert_eq!(rig.lane.pool.held().of_one_client, 4 * QUOTA);
    let f = frame(99_999, b"op");
    for from in [1, 5, 6] {
        peer(&mut rig, from, owed((entry(&f), 0))).expect("a debt");
    }
    for _ in 0..2 {
        rig.wait(Span::millis(200));
        rig.sent();
    }
    peer(&mut rig, 1, Message::Body { vouched: true, frame: f.clone() }).expect("its body");
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
    assert!(rig.lane.pool.held().of_one_client <= 4 * QUOTA);
}

/// Puts `frame` into the pool, as a leader fetches it.
fn fetch(pool: &mut Pool, frame: &Arc<Frame>, urgent: bool) {
    let key = key_of(&entry(frame));
    if urgent {
        let all = (1..=3).map(ReplicaId).collect();
        pool.owed(Time(1), key, all);
    }
    let want = Want { seq: Seq(0), place: 0, needs_trust: false };
    pool.want(Time(1), key, want, None, WEAK);
    pool.body(Time(1), frame, true, (WEAK, Seq(9)));
    drop(pool.satisfied(&key, WEAK));
}

fn has(pool: &Pool, frame: &Frame) -> bool {
    pool.get(&key_of(&entry(frame))).is_some_and(|held| held.frame.is_some())
}

/// What makes way is what its own client has had fetched, and nothing that is under way.
#[test]
fn what_a_quorum_endorses_takes_the_place_of_what_nothing_waits_for() {
    let other = {
        let id = FrameId { client: ClientId(4), ..frame(1, b"op").id() };
        let mut builder = FrameBuilder::new();
        builder.push(b"op");
        Arc::new(builder.request(GROUP, id, 0, |_| Authenticator::Vector(vec![])))
    };
    let mut pool = Pool::default();
    fetch(&mut pool, &other, false);
    let frames: Vec<_> = (0..=4 * QUOTA as u64).map(|id| frame(1 + id, b"op")).collect();
    frames.iter().for_each(|f| fetch(&mut pool, f, false));
    pool.mark_ordered(&key_of(&entry(&frames[7])), Seq(1));
    let (last, urgent) = (&frames[4 * QUOTA], frame(99_999, b"op"));
    assert!(!has(&pool, last), "beyond the quota");
    fetch(&mut pool, &urgent, true);
    pool.check();
    assert!(has(&pool, &urgent) && has(&pool, &frames[7]) && has(&pool, &other));
    assert_eq!(pool.held().of_one_client, 2);
}

/// A quorum endorses no more at a time than correct replicas hold, and this bound is above that.
#[test]
fn what_a_quorum_endorses_takes_no_memory_without_end() {
    let mut pool = Pool::default();
    for id in 0..9 * QUOTA as u64 {
        fetch(&mut pool, &frame(1 + id, b"op"), true);
    }
    pool.check();
    assert_eq!(pool.held().of_one_client, 8 * QUOTA);
}
