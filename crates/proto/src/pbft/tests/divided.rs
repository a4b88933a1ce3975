//! A client that sends different bodies under one id to different replicas.

use super::grieve::is_owed;
use super::*;

/// A frame of another client than [`frame`]'s.
fn of_another(id: u64) -> Arc<Frame> {
    let id = FrameId { client: ClientId(1), session: SessionId(1), stream: 0, id };
    let mut builder = FrameBuilder::new();
    builder.push(b"other");
    let client = PlainKeys { me: ReplicaId(0), n: 4 };
    let sign = |digest| base::crypto::ClientKeyring::authenticate(&client, digest);
    Arc::new(builder.request(GROUP, id, 0, sign))
}

fn vouch(rig: &mut Rig, frames: &[&Frame], by: &[u16]) {
    for from in by {
        let entries = frames.iter().map(|frame| entry(frame)).collect();
        rig.peer(*from, vouch_for(entries)).expect("a vouch");
    }
}

/// A leader to which the client sent `a` under id 1, and `b` to replicas 2 and 3.
fn divided(a: &Arc<Frame>, b: &Arc<Frame>, b_first: bool) -> Rig {
    let mut rig = Rig::new(0, 1);
    if b_first {
        vouch(&mut rig, &[b], &[2, 3]);
    }
    rig.feed(Input::Request(a.clone())).expect("fresh");
    vouch(&mut rig, &[a], &[1]);
    if !b_first {
        vouch(&mut rig, &[b], &[2, 3]);
    }
    rig
}

/// The leader orders nothing that some backup would have to fetch from others, and asks for
/// nothing either, whichever it hears of first. Others are served.
#[test]
fn a_client_that_sends_two_bodies_under_one_id_is_held_back_and_nobody_else() {
    for b_first in [false, true] {
        let (a, b, later) = (frame(1, b"a"), frame(1, b"b"), frame(2, b"c"));
        let mut rig = divided(&a, &b, b_first);
        assert!(proposals(&rig.sent()).is_empty());
        for f in [&later, &of_another(1)] {
            rig.feed(Input::Request(f.clone())).expect("fresh");
            vouch(&mut rig, &[f], &[1, 2]);
        }
        let sent = rig.sent();
        let proposed = sent.iter().filter_map(|(_, m)| match m {
            Message::PrePrepare { proposal, .. } => Some(proposal.entries()),
            _ => None,
        });
        assert_eq!(proposed.collect::<Vec<_>>(), [&[entry(&of_another(1))][..]]);
        for _ in 0..20 {
            rig.wait(Span::millis(5));
            let sent = rig.sent();
            assert!(!sent.iter().any(|(_, m)| matches!(m, Message::Fetch { .. })), "{sent:?}");
        }
    }
}

/// One replica can say of any client what it likes.
#[test]
fn one_liar_divides_no_client() {
    let (a, b) = (frame(1, b"a"), frame(1, b"b"));
    let mut rig = Rig::new(0, 1);
    rig.feed(Input::Request(a.clone())).expect("fresh");
    vouch(&mut rig, &[&b], &[3, 3]);
    vouch(&mut rig, &[&a], &[1, 2]);
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
}

/// What a quorum waits for in vain is the leader's debt, whoever's it is: or the leader would be
/// replaced for it.
#[test]
fn what_a_quorum_endorses_is_ordered_for_a_client_that_is_held_back_too() {
    let (a, b) = (frame(1, b"a"), frame(1, b"b"));
    let mut rig = divided(&a, &b, false);
    let c = frame(2, b"c");
    rig.feed(Input::Request(c.clone())).expect("fresh");
    vouch(&mut rig, &[&c], &[1, 2, 3]);
    assert!(proposals(&rig.sent()).is_empty());
    is_owed(&mut rig, (entry(&c), 0));
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
}

#[test]
fn a_client_that_was_held_back_is_served_again_in_time() {
    let (a, b) = (frame(1, b"a"), frame(1, b"b"));
    let mut rig = divided(&a, &b, false);
    let c = frame(2, b"c");
    for _ in 0..12 {
        rig.wait(Span::secs(1));
        rig.sent();
    }
    rig.feed(Input::Request(c.clone())).expect("fresh");
    vouch(&mut rig, &[&c], &[1, 2]);
    assert_eq!(proposals(&rig.sent()).len(), 1);
}
