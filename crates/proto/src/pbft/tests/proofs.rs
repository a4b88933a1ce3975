//! What proofs that a quorum endorses a frame cost who checks them, and what they are good for long
//! after they were made.

use core::sync::atomic::{AtomicU64, Ordering};

use super::grieve::{FORGED, quorum_endorses, says};
use super::views::{install, plan, propose_in, stop, vote_in};
use super::*;
use crate::pbft::msg::{ENDORSE_MAX, SignedVouch, endorse_bytes};

/// Keys that count the signatures that are looked at.
struct Counting {
    keys: PlainKeys,
    checked: Arc<AtomicU64>,
}

impl Keyring for Counting {
    fn check(&self, client: ClientId, digest: Digest, authenticator: &Authenticator) -> bool {
        self.keys.check(client, digest, authenticator)
    }

    fn sign(&self, message: &[u8]) -> Signature {
        self.keys.sign(message)
    }

    fn verify(&self, signer: ReplicaId, message: &[u8], signature: &Signature) -> bool {
        self.checked.fetch_add(1, Ordering::Relaxed);
        self.keys.verify(signer, message, signature)
    }
}

/// One of `n` replicas, and how many signatures it has looked at.
fn counting((n, f): (u16, u16), me: u16) -> (Rig, Arc<AtomicU64>) {
    let mut rig = Rig::among((n, f), me, 1, Switches::default());
    let checked = Arc::new(AtomicU64::new(0));
    let keys = PlainKeys { me: ReplicaId(me), n };
    let keys = Counting { keys, checked: Arc::clone(&checked) };
    rig.lane = Lane::new(rig.lane.cfg, Box::new(keys));
    rig.wait(Span::secs(50));
    (rig, checked)
}

/// What `from` of `n` replicas signs for `entry`, having executed nothing.
fn signs(n: u16, from: u16, entry: BatchEntry) -> SignedVouch {
    let keys = PlainKeys { me: ReplicaId(from), n };
    let bytes = endorse_bytes(GROUP, Epoch(0), View(0), (&entry, Seq(0)));
    SignedVouch { executed: Seq(0), signature: keys.sign(&bytes) }
}

/// What a quorum of `n` replicas without replica 0 has signed, the last of them `forged`.
fn endorsed(n: u16, entry: BatchEntry, forged: bool) -> Message {
    let quorum = 2 * (n / 3) + 1;
    let one = |from| match forged && from == quorum {
        true => (ReplicaId(from), FORGED),
        false => (ReplicaId(from), signs(n, from, entry)),
    };
    Message::Endorsed { view: View(0), entry, proof: (1..=quorum).map(one).collect() }
}

/// A liar costs a leader so many signatures a second and no more, however large the group is, after
/// as many proofs as a correct one tells of at once; and far fewer if they are forged.
#[test]
fn what_a_proof_costs_its_teller_grows_with_its_signatures() {
    for (n, f) in [(4, 1), (22, 7), (64, 21)] {
        let looked_at = |forged| {
            let (mut rig, checked) = counting((n, f), 0);
            let mut sins = 0;
            for id in 1..=4_000 {
                rig.now.mono = rig.now.mono.after(Span::micros(250));
                let said = rig.peer(n - 1, endorsed(n, entry(&frame(id, b"op")), forged));
                sins += u64::from(matches!(said, Err(Reject::Misbehaviour(_))));
            }
            (checked.load(Ordering::Relaxed), sins)
        };
        let (genuine, sins) = looked_at(false);
        assert!(genuine > 1_000 && genuine < 9_000 && sins == 0, "{genuine} of {n}");
        let (_, forged) = looked_at(true);
        assert!(forged > 10 && forged < 130, "{forged} of {n}");
    }
}

/// A correct replica tells the leader of a whole ENDORSE at once, alone if need be.
#[test]
fn all_that_one_replica_tells_of_at_once_is_heard_in_a_large_group() {
    let (mut rig, _) = counting((64, 21), 0);
    for id in 1..=ENDORSE_MAX as u64 {
        rig.peer(5, endorsed(64, entry(&frame(id, b"op")), false)).expect("a debt");
    }
}

/// What `from` of four says of frames, each once in a message.
fn endorse(from: u16, ids: impl Iterator<Item = u64>) -> Message {
    let of = |id| (entry(&frame(id, b"op")), signs(4, from, entry(&frame(id, b"op"))));
    Message::Endorse { view: View(0), entries: ids.map(of).collect() }
}

#[test]
fn an_endorse_that_names_a_frame_twice_is_refused() {
    for me in [0, 2] {
        let (mut rig, checked) = counting((4, 1), me);
        for from in [1, 3] {
            let sin = rig.peer(from, endorse(from, [1, 2, 1].into_iter()));
            assert_eq!(sin, Err(Reject::Misbehaviour("endorses a frame twice")));
        }
        assert_eq!(checked.load(Ordering::Relaxed), 0);
    }
}

/// A liar repeats what it has endorsed, which a quorum endorses, to the leader.
#[test]
fn what_a_leader_knows_to_be_endorsed_it_does_not_check_again() {
    let (mut rig, checked) = counting((4, 1), 0);
    for from in [1, 2, 3] {
        rig.peer(from, endorse(from, 1..=16)).expect("counted");
    }
    let once = checked.load(Ordering::Relaxed);
    assert_eq!(once, 3 * 16);
    for _ in 0..1_000 {
        rig.peer(3, endorse(3, 1..=16)).expect("nothing new");
    }
    assert_eq!(checked.load(Ordering::Relaxed), once);
}

/// Whose word makes a proof of what others have said pays for looking at it, here a liar that has
/// kept back what it says of many frames.
#[test]
fn who_completes_proofs_pays_for_the_signatures() {
    let (mut rig, checked) = counting((4, 1), 0);
    let complete = |rig: &mut Rig, round: u64| {
        let ids = 16 * round + 1..=16 * round + 16;
        for from in [1, 2] {
            rig.peer(from, endorse(from, ids.clone())).expect("free while they are two");
        }
        u64::from(rig.peer(3, endorse(3, ids)).is_ok())
    };
    let taken: u64 = (0..32).map(|round| complete(&mut rig, round)).sum();
    assert_eq!(taken, 4, "as many as a correct one makes whole at once");
    assert_eq!(checked.load(Ordering::Relaxed), taken * 16 * 3);
    rig.wait(Span::secs(1));
    assert_eq!(complete(&mut rig, 32), 1);
}

/// What it is sent is for others to decide, and does not keep it from telling of debts.
#[test]
fn who_is_sent_large_bodies_is_heard() {
    let mut rig = Rig::new(0, 1);
    rig.wait(Span::secs(50));
    let big = frame(1, &vec![7; 8 << 20]);
    rig.feed(Input::Request(big.clone())).expect("fresh");
    rig.peer(1, Message::Fetch { seq: Seq(1), entries: vec![entry(&big)] }).expect("asked");
    assert!(rig.sent().iter().any(|(_, m)| matches!(m, Message::Body { .. })));
    rig.peer(1, quorum_endorses((entry(&frame(2, b"op")), 0))).expect("a debt");
}

/// A frame that is genuine for nobody who has not had it from its client.
fn shown_to_some(id: u64) -> Arc<Frame> {
    frame_with(id, b"op", |_| Authenticator::Vector(vec![Mac([9; 16]); 4]))
}

/// A leader that orders such a frame, of which nobody has spoken for two minutes, because a liar
/// shows what a quorum has signed long ago, and gives the body.
fn led_by_an_old_proof(f: &Arc<Frame>) -> Rig {
    let mut rig = Rig::new(0, 1);
    rig.wait(Span::secs(170));
    rig.peer(3, quorum_endorses((entry(f), 0))).expect("a debt");
    rig.wait(Span::millis(4));
    assert!(rig.sent().iter().any(|(_, m)| matches!(m, Message::Fetch { .. })));
    rig.peer(3, Message::Body { vouched: false, frame: f.clone() }).expect("its body");
    assert_eq!(proposals(&rig.sent()), [(Seq(1), 1)]);
    rig
}

/// What the leader answers backup 1, which asks for a frame.
fn answers(leader: &mut Rig, seq: u64, f: &Frame) -> Vec<Message> {
    leader.peer(1, Message::Fetch { seq: Seq(seq), entries: vec![entry(f)] }).expect("asked");
    let to = |(to, m): (Target, Message)| (to == Target::One(ReplicaId(1))).then_some(m);
    leader.sent().into_iter().filter_map(to).collect()
}

/// A client has shown a frame with a wrong authenticator to some, who endorse it and drop it in the
/// end. A liar keeps what they have signed until then: the leader orders the frame, and nobody
/// knows any more whose it is.
#[test]
fn a_leader_shows_whose_a_frame_is_that_it_orders_for_an_old_proof() {
    let f = shown_to_some(1);
    let mut leader = led_by_an_old_proof(&f);
    let mut rig = Rig::new(1, 1);
    rig.wait(Span::secs(50));
    rig.feed(Input::Request(f.clone())).expect("fresh");
    for _ in 0..120 {
        rig.wait(Span::secs(1));
        rig.sent();
    }
    assert_eq!(rig.lane.pool.len(), 0, "it has expired");
    let p = Proposal::Frames { time: rig.now.wall, entries: vec![entry(&f)] };
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    let asks = |rig: &mut Rig| {
        rig.wait(Span::millis(200));
        let fetch = Message::Fetch { seq: Seq(1), entries: vec![entry(&f)] };
        rig.sent().contains(&(Target::All, fetch))
    };
    assert!(asks(&mut rig));
    let told = answers(&mut leader, 1, &f);
    let [Message::Endorsed { .. }, Message::Body { vouched: false, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    // Either may be lost, and a body may be here that is not trusted.
    rig.peer(0, told[1].clone()).expect("its body");
    assert!(!has_prepare(&rig.sent()) && asks(&mut rig));
    rig.peer(0, told[0].clone()).expect("its proof");
    assert!(!has_prepare(&rig.sent()) && asks(&mut rig));
    for message in answers(&mut leader, 1, &f) {
        let _ = rig.peer(0, message);
    }
    assert!(has_prepare(&rig.sent()));
}

/// What a backup is shown of a frame counts only if a weak quorum has signed it.
#[test]
fn a_backup_trusts_no_frame_for_less_than_a_weak_quorums_signatures() {
    let (f, weak) = (shown_to_some(1), [1, 3]);
    let shows = |who: &[u16], forged: bool| {
        let one = |from: &u16| match forged && *from == 3 {
            true => (ReplicaId(*from), FORGED),
            false => (ReplicaId(*from), says(*from, 0, (entry(&f), 0))),
        };
        let proof = who.iter().map(one).collect();
        Message::Endorsed { view: View(0), entry: entry(&f), proof }
    };
    let (mut rig, checked) = counting((4, 1), 2);
    let known = Err(Reject::Stale("endorsed frame for another leader"));
    assert_eq!(rig.peer(0, shows(&weak, false)), known, "nothing waits for it");
    let p = Proposal::Frames { time: rig.now.wall, entries: vec![entry(&f)] };
    rig.peer(0, pre_prepare(1, &p)).expect("a proposal");
    let few = Err(Reject::Misbehaviour("endorsed by less than a quorum"));
    assert_eq!(rig.peer(0, shows(&[1], false)), few);
    assert_eq!(rig.peer(0, shows(&[1, 1], false)), few);
    let forged = Err(Reject::Misbehaviour("forged signed vouch"));
    assert_eq!(rig.peer(0, shows(&weak, true)), forged);
    let body = Message::Body { vouched: false, frame: f.clone() };
    rig.peer(0, body.clone()).expect("its body");
    assert!(!has_prepare(&rig.sent()), "that was nobody's word but the leader's");
    rig.wait(Span::millis(100));
    rig.peer(0, shows(&weak, false)).expect("a proof");
    rig.peer(0, body).expect("its body");
    assert!(has_prepare(&rig.sent()));
    let enough = checked.load(Ordering::Relaxed);
    assert_eq!(rig.peer(0, shows(&weak, false)), known, "it is trusted already");
    assert_eq!(checked.load(Ordering::Relaxed), enough);
}

/// Where leaders rotate, who was shown a proof leads in the next view, too.
#[test]
fn a_proof_of_an_earlier_view_shows_as_well_whose_a_frame_is() {
    let f = shown_to_some(1);
    let mut leader = led_by_an_old_proof(&f);
    stop(&mut leader, 4);
    install(&mut leader, &plan(4, 0, &[]));
    let told = answers(&mut leader, 1, &f);
    assert!(matches!(&told[..], [Message::Endorsed { view: View(0), .. }, _]), "{told:?}");
    let mut rig = Rig::new(1, 1);
    rig.wait(Span::secs(50));
    stop(&mut rig, 4);
    install(&mut rig, &plan(4, 0, &[]));
    let p = Proposal::Frames { time: rig.now.wall, entries: vec![entry(&f)] };
    rig.peer(0, propose_in(4, 1, &p)).expect("a proposal");
    told.into_iter().for_each(|message| rig.peer(0, message).expect("it helps"));
    let sent = rig.sent();
    assert!(sent.contains(&(Target::All, Message::Prepare(vote_in(4, 1, &p)))), "{sent:?}");
}

/// Where leaders rotate, a leader keeps what others may propose when it has forgotten who held it.
#[test]
fn a_proof_is_taken_again_once_the_last_one_is_forgotten() {
    let switches = Switches { leaders: crate::pbft::Leaders::Rotating, ..Switches::default() };
    let mut rig = Rig::with(0, 1, switches);
    rig.wait(Span::secs(50));
    let f = frame(1, b"op");
    let key = crate::pbft::pool::key_of(&entry(&f));
    for _ in 0..2 {
        rig.peer(3, quorum_endorses((entry(&f), 0))).expect("a debt");
        let known = Err(Reject::Stale("endorsed frame that is known"));
        assert_eq!(rig.peer(3, quorum_endorses((entry(&f), 0))), known);
        for _ in 0..25 {
            rig.wait(Span::secs(1));
            rig.sent();
        }
        assert!(rig.lane.pool.get(&key).is_some(), "nobody gave it");
    }
}

/// Of each teller a leader keeps so many proofs, and orders nothing that it cannot show.
#[test]
fn a_leader_keeps_a_bounded_number_of_proofs_of_each_teller() {
    let mut rig = Rig::new(0, 1);
    rig.wait(Span::secs(50));
    let urgent =
        |rig: &Rig, f: &Frame| rig.lane.pool.is_urgent(&crate::pbft::pool::key_of(&entry(f)));
    for id in 1..=1_030 {
        let f = frame(id, b"op");
        rig.wait(Span::millis(4));
        let _ = rig.peer(3, quorum_endorses((entry(&f), 0)));
        assert_eq!(urgent(&rig, &f), id <= 1_024, "{id}");
    }
    let f = frame(2_000, b"op");
    rig.peer(1, quorum_endorses((entry(&f), 0))).expect("each for itself");
    assert!(urgent(&rig, &f));
    // Nobody gives their bodies, and what is not here needs no proof.
    for _ in 0..30 {
        rig.wait(Span::secs(1));
        rig.sent();
    }
    assert_eq!(rig.lane.pool.len(), 0);
    let f = frame(3_000, b"op");
    rig.peer(3, quorum_endorses((entry(&f), 0))).expect("a debt");
    assert!(urgent(&rig, &f));
}

/// A liar's vouch keeps refused frames at a leader for a while; nothing waits for them, and they
/// take no room from what their teller tells of next.
#[test]
fn what_was_refused_takes_no_room_among_the_proofs_of_its_teller() {
    let mut rig = Rig::new(0, 1);
    let mut cfg = rig.lane.cfg;
    (cfg.window, cfg.checkpoint_interval) = (8_192, 4_096);
    rig.lane = Lane::new(cfg, Box::new(PlainKeys { me: ReplicaId(0), n: 4 }));
    rig.wait(Span::secs(50));
    for seq in 1..=1_030 {
        let f = frame(seq, b"op");
        rig.wait(Span::millis(15));
        rig.peer(1, quorum_endorses((entry(&f), seq - 1))).expect("a debt");
        let key = crate::pbft::pool::key_of(&entry(&f));
        assert!(rig.lane.pool.is_urgent(&key), "{seq}");
        rig.wait(Span::millis(4));
        rig.sent();
        rig.peer(1, Message::Body { vouched: true, frame: f.clone() }).expect("it was asked for");
        assert_eq!(proposals(&rig.sent()), [(Seq(seq), 1)]);
        // The liar says that it holds the frame for ever.
        let vouch = Message::Vouch { executed: Seq(1 << 50), entries: vec![entry(&f)] };
        rig.peer(3, vouch).expect("a vouch");
        let refused = FromStage::Refused { seq: Seq(seq), entry: entry(&f) };
        let p = rig.lane.log.get(Seq(seq)).and_then(|slot| slot.proposal.clone());
        let vote = vote(seq, &p.expect("it was proposed"));
        for from in [1, 2] {
            rig.peer(from, Message::Prepare(vote)).expect("a vote");
        }
        for from in [1, 2] {
            rig.peer(from, Message::Commit(vote)).expect("a vote");
        }
        rig.feed(Input::Stage(refused)).expect("news");
        let progress = Progress { executed: Seq(seq), ..Progress::default() };
        rig.feed(Input::Stage(FromStage::Executed(progress))).expect("news");
        assert!(rig.lane.pool.get(&key).is_some_and(|entry| entry.dormant), "{seq}");
        rig.lane.let_go_of_proofs();
        assert!(rig.lane.shows_whose(&entry(&f)).is_none(), "{seq}");
    }
    // Whoever is told of one again shows it, though it was refused.
    let f = frame(1_030, b"op");
    rig.wait(Span::millis(15));
    rig.peer(1, quorum_endorses((entry(&f), 1_030))).expect("a debt again");
    rig.lane.let_go_of_proofs();
    assert!(rig.lane.shows_whose(&entry(&f)).is_some());
}
