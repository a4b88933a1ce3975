//! Signatures and request authenticators between the members of a small group.

use auth::{AuthError, ClientKeys, Directory, Peer, ReplicaKeys, Secret};
use base::crypto::ClientKeyring;
use base::digest::Domain;
use base::{Authenticator, ClientId, Digest, Epoch, GroupId, Keyring, ReplicaId, Signature};

const CLIENTS: [u32; 3] = [2, 5, 900];

fn replica_secret(id: u16) -> Secret {
    Secret::from_bytes([1 + id.to_le_bytes()[0]; 32])
}

fn client_secret(id: u32) -> Secret {
    Secret::from_bytes([100 + id.to_le_bytes()[0]; 32])
}

fn directory(group: GroupId) -> Directory {
    let replicas: Vec<_> =
        (0..4).map(|id| replica_secret(id).public(Peer::Replica(ReplicaId(id)))).collect();
    let client = |id| (ClientId(id), client_secret(id).public(Peer::Client(ClientId(id))));
    Directory::new(group, Epoch(0), 1, &replicas, &CLIENTS.map(client)).expect("valid keys")
}

fn replicas(group: GroupId) -> Vec<ReplicaKeys> {
    let directory = directory(group);
    (0..4)
        .map(|id| ReplicaKeys::new(&replica_secret(id), ReplicaId(id), &directory).expect("member"))
        .collect()
}

fn client(id: u32, group: GroupId) -> ClientKeys {
    ClientKeys::new(&client_secret(id), ClientId(id), &directory(group)).expect("member")
}

const GROUP: GroupId = GroupId([3; 32]);

fn digest(byte: u8) -> Digest {
    Digest::of(Domain::Frame, &[byte])
}

#[test]
fn a_signature_convinces_everybody_of_its_signer_and_message_only() {
    let replicas = replicas(GROUP);
    let signature = replicas[1].sign(b"checkpoint");
    for verifier in &replicas {
        assert!(verifier.verify(ReplicaId(1), b"checkpoint", &signature));
        assert!(!verifier.verify(ReplicaId(0), b"checkpoint", &signature));
        assert!(!verifier.verify(ReplicaId(9), b"checkpoint", &signature));
        assert!(!verifier.verify(ReplicaId(1), b"checkpoinT", &signature));
    }
    for at in 0..64 {
        let mut bad = signature;
        bad.0[at] ^= 1;
        assert!(!replicas[0].verify(ReplicaId(1), b"checkpoint", &bad), "byte {at}");
    }
    // Twice the same: a core may sign in its step.
    assert_eq!(replicas[1].sign(b"checkpoint"), signature);
}

#[test]
fn every_replica_accepts_its_entry_of_a_vector() {
    for id in CLIENTS {
        let vector = client(id, GROUP).authenticate(digest(1));
        assert!(matches!(&vector, Authenticator::Vector(macs) if macs.len() == 4));
        for replica in replicas(GROUP) {
            // The second time from the cache, and the same through a clone.
            assert!(replica.check(ClientId(id), digest(1), &vector));
            assert!(replica.clone().check(ClientId(id), digest(1), &vector));
            assert!(!replica.check(ClientId(id), digest(2), &vector));
            assert!(!replica.check(ClientId(7), digest(1), &vector));
            let other = CLIENTS[usize::from(id == CLIENTS[0])];
            assert!(!replica.check(ClientId(other), digest(1), &vector));
        }
    }
}

#[test]
fn an_entry_convinces_its_own_replica_only() {
    let Authenticator::Vector(macs) = client(2, GROUP).authenticate(digest(1)) else {
        panic!("a vector")
    };
    let replicas = replicas(GROUP);
    for (at, replica) in replicas.iter().enumerate() {
        let mut bad = macs.clone();
        bad[at].0[15] ^= 0x80;
        for (judge, keys) in replicas.iter().enumerate() {
            let accepted = keys.check(ClientId(2), digest(1), &Authenticator::Vector(bad.clone()));
            assert_eq!(accepted, judge != at, "entry {at}, replica {judge}");
        }
        let mut rotated = macs.clone();
        rotated.rotate_left(1);
        assert!(!replica.check(ClientId(2), digest(1), &Authenticator::Vector(rotated)));
    }
}

#[test]
fn a_vector_of_another_length_is_refused() {
    let Authenticator::Vector(macs) = client(2, GROUP).authenticate(digest(1)) else {
        panic!("a vector")
    };
    let replica = &replicas(GROUP)[0];
    for len in 0..4 {
        let short = Authenticator::Vector(macs[..len].to_vec());
        assert!(!replica.check(ClientId(2), digest(1), &short));
    }
    let long = Authenticator::Vector([&macs[..], &macs[..1]].concat());
    assert!(!replica.check(ClientId(2), digest(1), &long));
}

#[test]
fn pairwise_keys_are_bound_to_the_group() {
    let vector = client(2, GroupId([4; 32])).authenticate(digest(1));
    assert!(!replicas(GROUP)[0].check(ClientId(2), digest(1), &vector));
}

/// Authenticators that were made before a restart are still good after it. The vector was
/// computed with other implementations of the same primitives.
#[test]
fn pairwise_keys_never_change() {
    let Authenticator::Vector(macs) = client(2, GROUP).authenticate(digest(1)) else {
        panic!("a vector")
    };
    let shown: String = macs[3].0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown, "70984a38c697aee010abae2735e7ab75");
}

#[test]
fn a_signed_frame_convinces_every_replica() {
    let signed = client(5, GROUP).signing().authenticate(digest(1));
    let Authenticator::Signature(signature) = signed else { panic!("a signature") };
    for replica in replicas(GROUP) {
        let check =
            |id, d, signature| replica.check(ClientId(id), d, &Authenticator::Signature(signature));
        assert!(check(5, digest(1), signature));
        assert!(!check(5, digest(2), signature));
        assert!(!check(2, digest(1), signature));
        assert!(!check(6, digest(1), signature));
        assert!(!check(5, digest(1), Signature([0; 64])));
    }
}

/// One key signs messages, frames and a certificate: none passes for another kind.
#[test]
fn signatures_of_one_kind_are_none_of_another() {
    let replicas = replicas(GROUP);
    let message = replicas[0].sign(&digest(1).0);
    let directory = directory(GROUP);
    let keys = directory.replica(ReplicaId(0)).expect("member");
    assert_ne!(message, keys.certificate);
    let mut certified = b"stylite/certificate/1\0\0\0\0\0\0".to_vec();
    certified.extend_from_slice(&keys.x25519);
    assert!(!replicas[1].verify(ReplicaId(0), &certified, &keys.certificate));
    assert!(!replicas[1].verify(ReplicaId(0), &certified[22..], &keys.certificate));
}

#[test]
fn a_secret_that_is_not_the_members_is_refused() {
    let directory = directory(GROUP);
    let error = ReplicaKeys::new(&replica_secret(1), ReplicaId(0), &directory).err();
    assert_eq!(error, Some(AuthError::WrongSecret(Peer::Replica(ReplicaId(0)))));
    let error = ReplicaKeys::new(&replica_secret(1), ReplicaId(4), &directory).err();
    assert_eq!(error, Some(AuthError::UnknownPeer(Peer::Replica(ReplicaId(4)))));
    let error = ClientKeys::new(&client_secret(2), ClientId(5), &directory).err();
    assert_eq!(error, Some(AuthError::WrongSecret(Peer::Client(ClientId(5)))));
    let error = ClientKeys::new(&client_secret(2), ClientId(3), &directory).err();
    assert_eq!(error, Some(AuthError::UnknownPeer(Peer::Client(ClientId(3)))));
}

#[test]
fn debug_shows_no_key() {
    let replica = &replicas(GROUP)[1];
    assert_eq!(format!("{replica:?}"), "ReplicaKeys { me: r1, .. }");
    assert_eq!(format!("{:?}", client(5, GROUP)), "ClientKeys { me: c5, .. }");
}
