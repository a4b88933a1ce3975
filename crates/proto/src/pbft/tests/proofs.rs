//! What proofs that a quorum endorses a frame cost who checks them, and what they are good for long
//! after they were made.

use core::sync::atomic::{AtomicU64, Ordering};

use super::grieve::FORGED;
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

/// A liar costs a leader so many signatures a second and no more, however large the group is, and
/// far fewer proofs than that if they are forged.
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
        assert!(genuine > 1_000 && genuine < 8_000 && sins == 0, "{genuine} of {n}");
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
    let mut taken = 0;
    for round in 0..32 {
        let ids = 16 * round + 1..=16 * round + 16;
        for from in [1, 2] {
            rig.peer(from, endorse(from, ids.clone())).expect("free while they are two");
        }
        taken += u64::from(rig.peer(3, endorse(3, ids)).is_ok());
    }
    assert_eq!(checked.load(Ordering::Relaxed), taken * 16 * 3);
    assert!((2..8).contains(&taken), "{taken} at one moment");
}
