//! Bytes: what is written is read back, nothing else is a message, and nothing large is
//! allocated on a stranger's word.

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::vec;

use base::{GroupId, Incarnation, Malformed, Quorums, Reader, ReplicaId, Seq, View, limits};

use super::{certificate, change, entry, keys, new_view, rules, sign_change};
use crate::group::evidence::Proof;
use crate::group::link::PRE_PREPARED_MAX;
use crate::group::msg::{GroupMessage, Recover};
use crate::group::record::GroupRecord;
use crate::group::wire::window_fits;
use crate::pbft::msg::Checkpoint;
use base::Keyring;

fn recover() -> Recover {
    let (replica, incarnation) = (ReplicaId(2), Incarnation(5));
    let view = View(3);
    let signature = keys(2).sign(&rules().recover_signed(replica, incarnation, view));
    Recover { replica, incarnation, view, signature }
}

fn samples() -> Vec<GroupMessage> {
    let rules = rules();
    let full = vec![entry(9, Some((1, 2)), &[(1, 2), (0, 3)]), entry(12, None, &[(1, 4)])];
    let mut high = (*change(2, 3, full.clone())).clone();
    high.stable = certificate(&rules, 8, &[0, 1, 3]);
    let high = sign_change(&rules, high);
    let changes = vec![change(0, 3, vec![]), change(1, 3, full), high.clone()];
    let nv = Arc::new(new_view(3, changes));
    let certified = certificate(&rules, 16, &[0, 1, 2]);
    let said = Checkpoint {
        seq: Seq(16),
        digest: base::Digest([1; 32]),
        signature: base::Signature([2; 64]),
    };
    let signer = ReplicaId(3);
    let wrong = Proof::WrongCheckpoint { signer, said, certified: certified.clone() };
    vec![
        GroupMessage::Wish { wish: View(3), installed: View(2), recovering: true },
        GroupMessage::ViewChange(high.clone()),
        GroupMessage::NewView(nv.clone()),
        GroupMessage::Recover(recover()),
        GroupMessage::RecoverAck {
            incarnation: Incarnation(4),
            view: View(1),
            installed: View(2),
            stable: certified.clone(),
            known: vec![recover(); 3],
            recovering: false,
        },
        GroupMessage::Seek(Seq(99)),
        GroupMessage::WantCheckpoint { have: Seq(3), want: Seq(24), stable: certified.clone() },
        GroupMessage::HaveCheckpoint(certified.clone()),
        GroupMessage::HaveState {
            seq: Seq(17),
            digest: base::Digest([3; 32]),
            signature: base::Signature([4; 64]),
            stable: certified,
        },
        GroupMessage::Evidence(Arc::new(wrong)),
        GroupMessage::Evidence(Arc::new(Proof::TwoViewChanges(high.clone(), high.clone()))),
        GroupMessage::Evidence(Arc::new(Proof::BadViewChange(high))),
        GroupMessage::Evidence(Arc::new(Proof::BadNewView(nv))),
    ]
}

#[test]
fn messages_survive_the_wire_and_no_prefix_of_one_is_a_message() {
    for message in samples() {
        let mut bytes = vec![];
        message.encode(&mut bytes);
        assert!(bytes.len() <= message.encoded_len_max(), "{message:?}");
        let mut r = Reader::new(&bytes);
        assert_eq!(GroupMessage::decode(GroupId::default(), &mut r).as_ref(), Ok(&message));
        assert!(r.is_empty());
        for len in 0..bytes.len() {
            let cut = GroupMessage::decode(GroupId::default(), &mut Reader::new(&bytes[..len]));
            assert!(cut.is_err(), "{message:?}");
        }
    }
}

/// Whatever bytes come: what is read as a message has exactly these bytes.
#[test]
fn every_altered_byte_is_refused_or_read_as_what_it_says() {
    for message in samples() {
        let mut bytes = vec![];
        message.encode(&mut bytes);
        for index in 0..bytes.len().min(400) {
            for flip in [1u8, 0x80, 0xff] {
                let mut bad = bytes.clone();
                bad[index] ^= flip;
                let mut r = Reader::new(&bad);
                if let Ok(read) = GroupMessage::decode(GroupId::default(), &mut r) {
                    let used = bad.len() - r.rest().len();
                    let mut again = vec![];
                    read.encode(&mut again);
                    assert_eq!(again, bad[..used]);
                }
            }
        }
    }
}

#[test]
fn records_survive_the_disk() {
    let rules = rules();
    let nv = Arc::new(new_view(1, (0..3).map(|r| change(r, 1, vec![])).collect()));
    let stable = certificate(&rules, 8, &[1, 2, 3]);
    for record in [
        GroupRecord::Left { view: View(7) },
        GroupRecord::Installed(nv.clone()),
        GroupRecord::Recover(recover()),
        GroupRecord::Stable(stable.clone()),
        GroupRecord::Recovered { stable },
        GroupRecord::Proof(Arc::new(Proof::BadNewView(nv))),
    ] {
        let mut bytes = vec![];
        record.encode(&mut bytes);
        let mut r = Reader::new(&bytes);
        assert_eq!(GroupRecord::decode(&mut r), Ok(record));
        assert!(r.is_empty());
        for len in 0..bytes.len() {
            assert!(GroupRecord::decode(&mut Reader::new(&bytes[..len])).is_err());
        }
    }
}

#[test]
fn counts_beyond_the_bounds_allocate_nothing() {
    let far = |at: usize, message: &GroupMessage| {
        let mut bytes = vec![];
        message.encode(&mut bytes);
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        GroupMessage::decode(GroupId::default(), &mut Reader::new(&bytes))
    };
    let empty = GroupMessage::ViewChange(change(0, 1, vec![]));
    // Type, replica, incarnation, view; then number and digest of the certificate.
    assert_eq!(far(19 + 40, &empty), Err(Malformed("certificate signers")));
    assert_eq!(far(19 + 44, &empty), Err(Malformed("view-change entries")));
    let nv = GroupMessage::NewView(Arc::new(new_view(1, vec![])));
    assert_eq!(far(9, &nv), Err(Malformed("new-view size")));
    // More entries than fit into a packet in any group, though the bytes are there.
    let entries = (1..=200_000).map(|seq| entry(seq, None, &[])).collect();
    let mut bytes = vec![];
    GroupMessage::ViewChange(change(0, 1, entries)).encode(&mut bytes);
    assert!(bytes.len() < limits::REPLICA_PACKET_BYTES_MAX);
    let got = GroupMessage::decode(GroupId::default(), &mut Reader::new(&bytes));
    assert_eq!(got, Err(Malformed("view-change entries")));
}

/// The largest NEW-VIEW of a group whose window fits does fit, and is read.
#[test]
fn a_window_that_fits_makes_new_views_that_fit() {
    let quorums = |n, f| Quorums::pbft(n, f).unwrap();
    assert!(window_fits(quorums(4, 1), 8192) && window_fits(quorums(22, 7), 8192));
    assert!(!window_fits(quorums(31, 10), 8192) && !window_fits(quorums(4, 1), 65_536));
    assert!(!window_fits(quorums(4, 1), u64::MAX) && window_fits(quorums(64, 21), 2048));
    let q: Vec<(u64, u8)> = (0..PRE_PREPARED_MAX as u64).map(|v| (v, 10 + v as u8)).collect();
    let largest = (1..).take_while(|l| window_fits(quorums(4, 1), l * 1024)).last().unwrap() * 1024;
    assert!(largest > 8192);
    let entries: Vec<_> = (1..=largest).map(|seq| entry(seq, Some((2, 12)), &q)).collect();
    let nv = new_view(5, (0..4).map(|r| change(r, 5, entries.clone())).collect());
    let message = GroupMessage::NewView(Arc::new(nv));
    let mut bytes = vec![];
    message.encode(&mut bytes);
    assert!(bytes.len() <= limits::REPLICA_PACKET_BYTES_MAX - 4096);
    assert!(bytes.len() > limits::REPLICA_PACKET_BYTES_MAX / 10 * 9, "the bound is not idle");
    assert_eq!(GroupMessage::decode(GroupId::default(), &mut Reader::new(&bytes)), Ok(message));
}
