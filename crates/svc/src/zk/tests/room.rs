//! What an object takes: state transfer carries none of more than a GiB, and clients choose their
//! paths and, by opening enough of them, their sessions.

use base::Writer;

use super::super::node::{Node, Owner};
use super::super::state::{node_bytes, session_bucket};
use super::*;

/// Sessions that share an object, attached.
fn neighbours(zk: &mut Fixture, count: usize) -> Vec<Attachment> {
    let mut found = vec![zk.open(60_000)];
    while found.len() < count {
        let other = zk.open(60_000);
        if session_bucket(other.0) == session_bucket(found[0].0) {
            found.push(other);
        } else {
            zk.ok(other, kind::CLOSE, &[]);
        }
    }
    found
}

/// Bytes of the object that a session is in.
fn bytes(zk: &Fixture, of: Attachment) -> usize {
    let mut out = vec![];
    let object = 1 + u32::try_from(session_bucket(of.0)).expect("there are 1,024");
    zk.harness.service.get(object, &mut out);
    out.len()
}

#[test]
fn sessions_that_share_an_object_are_told_no_more_than_it_holds() {
    let mut zk = Fixture::new();
    let near = neighbours(&mut zk, 3);
    let far = std::iter::repeat_with(|| zk.open(60_000));
    let writer = { far }.find(|s| session_bucket(s.0) != session_bucket(near[0].0));
    let writer = writer.expect("one of many");
    for s in &near {
        zk.ok(*s, kind::ADD_WATCH, &path_int("/", 1));
    }
    // Each of them might have a megabyte of events; two is what the object holds in tests.
    let mut cut_off = 0;
    for i in 0..240 {
        zk.ok(writer, kind::CREATE, &create(&format!("/{i:04095}"), b"", 0));
        assert!(bytes(&zk, near[0]) <= (2 << 20) + 4096, "event {i}");
        let gone = |s: &Attachment| {
            zk.harness.service.state().session(s.0).is_none_or(|s| s.connection == 0)
        };
        cut_off = near.iter().filter(|s| gone(s)).count();
    }
    assert_eq!(cut_off, 1, "the object had no room for three times as much");
    let (told, _) = zk.renew(&[]);
    assert_eq!(told.iter().map(|(_, events)| events.len()).collect::<Vec<_>>(), [240, 240]);
    assert!(bytes(&zk, near[0]) < 4096, "what was handed over makes room");
    zk.harness.root();
}

#[test]
fn sessions_that_share_an_object_prove_no_more_than_it_holds() {
    let mut zk = Fixture::new();
    let near = neighbours(&mut zk, 9);
    let auth = |who: usize| {
        jute(|w| {
            w.int(0).text("digest").buffer(Some(format!("{who:04090}:pw").as_bytes()));
        })
    };
    let refused = |error: i32| error == ZkError::AuthFailed.code();
    let proofs = || (0..9 * 64).map(|i| (near[i / 64], auth(i % 64)));
    let of = |(s, body): (Attachment, Vec<u8>)| (s, zk.error(s, kind::AUTH, &body));
    let answers: Vec<(Attachment, i32)> = proofs().map(of).collect();
    let fitted = answers.iter().filter(|(_, error)| !refused(*error)).count();
    assert_eq!(fitted, (2 << 20) / (4090 + 1 + 28 + 8 + 6), "two megabytes of ids");
    assert!(bytes(&zk, near[0]) <= (2 << 20) + 4096);
    // Whoever goes makes room.
    zk.ok(near[0], kind::CLOSE, &[]);
    assert!(!refused(zk.error(near[8], kind::AUTH, &auth(63))));
    zk.harness.root();
}

/// A node without data is not for nothing.
#[test]
fn a_node_counts_for_at_least_what_it_takes() {
    for (path, data, acl) in [
        ("/a", None, acl::open(31)),
        ("/a", Some(vec![]), acl::open(31)),
        ("/a/long/path", Some(vec![7; 5000]), acl::open(1)),
    ] {
        let node = Node::new(data.map(std::sync::Arc::from), acl, Owner::Persistent, 1, 2);
        let mut out = vec![];
        node.encode(Writer::new(&mut out).sized(path.as_bytes()));
        assert!(out.len() as u64 <= node_bytes(path, &node), "{path}");
    }
}
