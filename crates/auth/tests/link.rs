//! Links from outside: handshakes that must succeed, and everything that must not.

use auth::hello::{HELLO_BYTES, Hello, LINK_VERSION};
use auth::seal::{OVERHEAD_BYTES, Suite, TAG_BYTES};
use auth::{
    AuthError, Directory, Established, Initiator, LinkIdentity, PacketReader, Peer, Responder,
    Secret,
};
use base::codec::Reader;
use base::{ClientId, Epoch, GroupId, Incarnation, PillarId, ReplicaId, SessionId, limits};

const GROUP: GroupId = GroupId([7; 32]);
const R0: Peer = Peer::Replica(ReplicaId(0));
const R1: Peer = Peer::Replica(ReplicaId(1));
const R2: Peer = Peer::Replica(ReplicaId(2));
const C5: Peer = Peer::Client(ClientId(5));

fn secret(peer: Peer) -> Secret {
    Secret::from_bytes(match peer {
        Peer::Replica(id) => [id.0.to_le_bytes()[0]; 32],
        Peer::Client(id) => [100 + id.0.to_le_bytes()[0]; 32],
    })
}

fn directory_of(group: GroupId, epoch: Epoch, pillars: u16) -> Directory {
    let replicas: Vec<_> = [R0, R1, R2].map(|peer| secret(peer).public(peer)).to_vec();
    let client = (ClientId(5), secret(C5).public(C5));
    Directory::new(group, epoch, pillars, &replicas, &[client]).expect("valid keys")
}

fn directory() -> Directory {
    directory_of(GROUP, Epoch(0), 2)
}

fn identity(peer: Peer, directory: &Directory) -> LinkIdentity {
    let incarnation = Incarnation(u64::from(peer == R0) + 40);
    LinkIdentity::new(&secret(peer), peer, incarnation, directory).expect("a member")
}

/// A first packet without its length header, to replica 1.
fn call(from: Peer, pillar: u16, directory: &Directory) -> (Initiator, Vec<u8>) {
    let identity = identity(from, directory);
    let (initiator, packet) =
        Initiator::start(&identity, directory, ReplicaId(1), PillarId(pillar), SessionId(99))
            .expect("starts");
    (initiator, body(&packet))
}

/// The one packet that these bytes are, without its length header.
fn body(packet: &[u8]) -> Vec<u8> {
    let (len, body) = packet.split_first_chunk().expect("a length header");
    assert_eq!(u32::from_le_bytes(*len) as usize, body.len(), "exactly one packet");
    body.to_vec()
}

fn accept(body: &[u8]) -> Result<(Established, Vec<u8>), AuthError> {
    let directory = directory();
    Responder::accept(&identity(R1, &directory), &directory, body)
}

/// Both ends of a link from `from` to replica 1: initiator's, responder's.
fn link(from: Peer, pillar: u16) -> (Established, Established) {
    let (initiator, first) = call(from, pillar, &directory());
    let (theirs, answer) = accept(&first).expect("accepted");
    (initiator.finish(&body(&answer)).expect("finished"), theirs)
}

fn sealed(link: &mut Established, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    link.sealer.seal(payload, &mut out).expect("within bounds");
    body(&out)
}

#[test]
fn replicas_and_clients_link_and_both_ends_agree() {
    for (from, bound) in
        [(R0, limits::REPLICA_PACKET_BYTES_MAX), (C5, limits::CLIENT_PACKET_BYTES_MAX)]
    {
        let (mut a, mut b) = link(from, 1);
        assert_eq!((a.peer, b.peer), (R1, from));
        assert_eq!((a.pillar, b.pillar), (PillarId(1), PillarId(1)));
        assert_eq!((a.session, b.session), (SessionId(99), SessionId(99)));
        assert_eq!((a.packet_bytes_max, b.packet_bytes_max), (bound, bound));
        assert_eq!(a.peer_incarnation, Incarnation(40));
        assert_eq!(b.peer_incarnation, Incarnation(40 + u64::from(from == R0)));
        for round in 0..3u8 {
            let mut forth = sealed(&mut a, &[round; 100]);
            assert_eq!(b.opener.open(&mut forth), Ok(&[round; 100][..]));
            let mut back = sealed(&mut b, b"");
            assert_eq!(a.opener.open(&mut back), Ok(&b""[..]));
        }
        assert_eq!((a.sealer.packets(), b.opener.packets()), (3, 3));
    }
}

#[test]
fn two_links_of_the_same_pair_have_different_keys() {
    let (mut a, _) = link(R0, 0);
    let (mut again, _) = link(R0, 0);
    assert_ne!(sealed(&mut a, &[0; 64]), sealed(&mut again, &[0; 64]));
}

#[test]
fn the_two_directions_have_different_keys() {
    let (mut a, mut b) = link(R0, 0);
    let mut packet = sealed(&mut a, b"to b");
    let mut own = packet.clone();
    assert_eq!(a.opener.open(&mut own), Err(AuthError::Seal { counter: 0 }));
    assert_eq!(b.opener.open(&mut packet), Ok(&b"to b"[..]));
}

#[test]
fn a_hello_for_somebody_or_something_else_is_refused_by_name() {
    let (_, first) = call(R0, 1, &directory());
    let hello = Hello::decode(&mut Reader::new(&first)).expect("own hello");
    let changed = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello;
        change(&mut hello);
        let mut bytes = hello.encode();
        bytes.extend_from_slice(&first[HELLO_BYTES..]);
        accept(&bytes).err()
    };
    let other = GroupId([8; 32]);
    assert_eq!(
        changed(&|h| h.group = other),
        Some(AuthError::Group { theirs: other, ours: GROUP })
    );
    assert_eq!(
        changed(&|h| h.epoch = Epoch(1)),
        Some(AuthError::Epoch { theirs: Epoch(1), ours: Epoch(0) })
    );
    assert_eq!(
        changed(&|h| h.receiver = ReplicaId(2)),
        Some(AuthError::Receiver { wanted: ReplicaId(2), me: R1 })
    );
    assert_eq!(
        changed(&|h| h.pillar = PillarId(2)),
        Some(AuthError::Pillar { wanted: PillarId(2), pillars: 2 })
    );
    assert_eq!(
        changed(&|h| h.version = 2),
        Some(AuthError::Version { theirs: 2, ours: LINK_VERSION })
    );
    assert_eq!(changed(&|h| h.initiator = R1), Some(AuthError::SelfLink));
    let strangers = [Peer::Replica(ReplicaId(3)), Peer::Client(ClientId(0))];
    for stranger in strangers {
        assert_eq!(changed(&|h| h.initiator = stranger), Some(AuthError::UnknownPeer(stranger)));
    }
}

/// The hello travels in clear; whoever changes a field that is legal in itself changes the
/// prologue, and the handshake does not decrypt.
#[test]
fn a_hello_that_was_altered_on_the_way_makes_no_link() {
    let (_, first) = call(R0, 1, &directory());
    let hello = Hello::decode(&mut Reader::new(&first)).expect("own hello");
    let changes: [&dyn Fn(&mut Hello); 4] = [
        &|h| h.pillar = PillarId(0),
        &|h| h.incarnation = Incarnation(1000),
        &|h| h.session = SessionId(1),
        &|h| h.initiator = R2,
    ];
    for change in changes {
        let mut hello = hello;
        change(&mut hello);
        let mut bytes = hello.encode();
        bytes.extend_from_slice(&first[HELLO_BYTES..]);
        assert_eq!(accept(&bytes).err(), Some(AuthError::Handshake));
    }
}

#[test]
fn a_member_that_claims_to_be_another_member_is_found_out() {
    // Replica 2 makes a sound handshake with its own key, but says that it is replica 0: its
    // directory has its own key in replica 0's place.
    let mine = Secret::from_bytes([2; 32]);
    let keys = [mine.public(R0), secret(R1).public(R1)];
    let lie = Directory::new(GROUP, Epoch(0), 2, &keys, &[]).expect("valid in itself");
    let liar = LinkIdentity::new(&mine, R0, Incarnation(1), &lie).expect("matches the lie");
    let (_, packet) =
        Initiator::start(&liar, &lie, ReplicaId(1), PillarId(0), SessionId(0)).expect("starts");
    assert_eq!(accept(&body(&packet)).err(), Some(AuthError::PeerKey(R0)));
}

#[test]
fn a_call_for_another_key_of_the_responder_does_not_decrypt() {
    let keys = [secret(R0).public(R0), Secret::from_bytes([77; 32]).public(R1)];
    let stale = Directory::new(GROUP, Epoch(0), 2, &keys, &[]).expect("valid in itself");
    let me = LinkIdentity::new(&secret(R0), R0, Incarnation(1), &stale).expect("a member");
    let (_, packet) =
        Initiator::start(&me, &stale, ReplicaId(1), PillarId(0), SessionId(0)).expect("starts");
    assert_eq!(accept(&body(&packet)).err(), Some(AuthError::Handshake));
}

#[test]
fn an_answer_of_another_call_or_an_altered_one_is_refused() {
    let (first, one) = call(R0, 0, &directory());
    let (_, two) = call(R0, 0, &directory());
    let (_, answer) = accept(&two).expect("accepted");
    assert_eq!(first.finish(&body(&answer)).err(), Some(AuthError::Handshake));
    let (_, answer) = accept(&one).expect("accepted");
    let answer = body(&answer);
    for at in 0..answer.len() {
        let (initiator, first) = call(R0, 0, &directory());
        let (_, answer) = accept(&first).expect("accepted");
        let mut answer = body(&answer);
        answer[at] ^= 0x40;
        assert_eq!(initiator.finish(&answer).err(), Some(AuthError::Handshake), "byte {at}");
    }
    for len in [0, answer.len() - 1] {
        let (initiator, _) = call(R0, 0, &directory());
        let error = initiator.finish(&answer[..len]).err();
        assert_eq!(error, Some(AuthError::Malformed("answer to a hello")));
    }
}

#[test]
fn every_altered_byte_and_every_truncation_of_a_call_is_refused() {
    let (_, first) = call(C5, 1, &directory());
    assert!(accept(&first).is_ok());
    for at in 0..first.len() {
        let mut bad = first.clone();
        bad[at] ^= 0x01;
        assert!(accept(&bad).is_err(), "byte {at}");
        let error = accept(&first[..at]).err();
        assert!(matches!(error, Some(AuthError::Malformed(_))), "{at} bytes: {error:?}");
    }
    let mut long = first.clone();
    long.push(0);
    assert_eq!(accept(&long).err(), Some(AuthError::Malformed("first handshake message")));
}

#[test]
fn what_is_no_handshake_at_all_is_called_so() {
    let mut web = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n".to_vec();
    web.resize(200, b' ');
    assert_eq!(accept(&web).err(), Some(AuthError::Magic));
    let mut suite = call(R0, 0, &directory()).1;
    suite[6] = 9;
    assert_eq!(accept(&suite).err(), Some(AuthError::Suite(9)));
    assert_eq!(Suite::from_byte(1), Ok(Suite::Aegis128L));
}

#[test]
fn a_call_to_nobody_is_not_even_made() {
    let directory = directory();
    let me = identity(R0, &directory);
    let start = |replica, pillar| {
        Initiator::start(&me, &directory, ReplicaId(replica), PillarId(pillar), SessionId(0)).err()
    };
    let nobody = Peer::Replica(ReplicaId(3));
    assert_eq!(start(3, 0), Some(AuthError::UnknownPeer(nobody)));
    assert_eq!(start(0, 0), Some(AuthError::SelfLink));
    assert_eq!(start(1, 2), Some(AuthError::Pillar { wanted: PillarId(2), pillars: 2 }));
    let wrong = LinkIdentity::new(&secret(R2), R0, Incarnation(0), &directory).err();
    assert_eq!(wrong, Some(AuthError::WrongSecret(R0)));
    let stranger = LinkIdentity::new(&secret(R2), nobody, Incarnation(0), &directory).err();
    assert_eq!(stranger, Some(AuthError::UnknownPeer(nobody)));
}

/// A recorded call can be sent again, but whoever does so cannot use the link.
#[test]
fn a_replayed_call_gives_a_link_on_which_nothing_opens() {
    let (initiator, first) = call(R0, 0, &directory());
    let (_, answer) = accept(&first).expect("accepted");
    let mut genuine = initiator.finish(&body(&answer)).expect("finished");
    let (mut replayed, _) = accept(&first).expect("a replay decrypts");
    let mut packet = sealed(&mut genuine, b"recorded, too");
    assert_eq!(replayed.opener.open(&mut packet), Err(AuthError::Seal { counter: 0 }));
    assert_eq!(replayed.opener.packets(), 0);
}

#[test]
fn a_replayed_packet_does_not_open() {
    let (mut a, mut b) = link(R0, 0);
    let packet = sealed(&mut a, b"once");
    assert_eq!(b.opener.open(&mut packet.clone()), Ok(&b"once"[..]));
    assert_eq!(b.opener.open(&mut packet.clone()), Err(AuthError::Seal { counter: 1 }));
}

#[test]
fn a_reordered_or_missing_packet_does_not_open() {
    let (mut a, mut b) = link(R0, 0);
    let _first = sealed(&mut a, b"first");
    let mut second = sealed(&mut a, b"second");
    assert_eq!(b.opener.open(&mut second), Err(AuthError::Seal { counter: 0 }));
}

#[test]
fn a_packet_with_any_bit_flipped_does_not_open() {
    let (mut a, mut b) = link(R0, 0);
    let packet = sealed(&mut a, b"payload of some bytes");
    for at in 0..packet.len() {
        for bit in 0..8 {
            let mut bad = packet.clone();
            bad[at] ^= 1 << bit;
            assert_eq!(b.opener.open(&mut bad), Err(AuthError::Seal { counter: 0 }), "{at}");
        }
    }
    // The packet itself still does: the refusals have not moved the counter.
    assert_eq!(b.opener.open(&mut packet.clone()), Ok(&b"payload of some bytes"[..]));
}

#[test]
fn a_truncated_or_extended_packet_does_not_open() {
    let (mut a, mut b) = link(R0, 0);
    let packet = sealed(&mut a, b"payload");
    for len in 0..packet.len() {
        let error = b.opener.open(&mut packet[..len].to_vec()).err();
        let max = limits::REPLICA_PACKET_BYTES_MAX;
        let expected = if len < TAG_BYTES {
            AuthError::PacketLength { bytes: len, max }
        } else {
            AuthError::Seal { counter: 0 }
        };
        assert_eq!(error, Some(expected), "{len} bytes");
    }
    let mut long = packet.clone();
    long.push(0);
    assert_eq!(b.opener.open(&mut long), Err(AuthError::Seal { counter: 0 }));
}

#[test]
fn a_packet_of_another_pillars_link_does_not_open() {
    let (mut on_0, _) = link(R0, 0);
    let (_, mut on_1) = link(R0, 1);
    let mut packet = sealed(&mut on_0, b"for pillar 0");
    assert_eq!(on_1.opener.open(&mut packet), Err(AuthError::Seal { counter: 0 }));
}

#[test]
fn packets_are_built_in_place_behind_one_another() {
    let (mut a, mut b) = link(C5, 0);
    let mut out = b"before".to_vec();
    for payload in [&b"one"[..], b"", b"three"] {
        let start = a.sealer.begin(&mut out);
        out.extend_from_slice(payload);
        a.sealer.finish(&mut out, start).expect("within bounds");
    }
    assert_eq!(out.len(), 6 + 3 * OVERHEAD_BYTES + 8);
    let mut reader = PacketReader::new(b.packet_bytes_max);
    reader.feed(&out[6..]);
    for payload in [&b"one"[..], b"", b"three"] {
        let packet = reader.packet().expect("sound").expect("whole");
        assert_eq!(b.opener.open(packet), Ok(payload));
    }
}

#[test]
fn a_payload_beyond_the_bound_is_refused_and_leaves_nothing_behind() {
    let (mut a, mut b) = link(C5, 0);
    let max = limits::CLIENT_PACKET_BYTES_MAX;
    let mut out = b"before".to_vec();
    let huge = vec![1; a.sealer.payload_bytes_max() + 1];
    let error = a.sealer.seal(&huge, &mut out).err();
    assert_eq!(error, Some(AuthError::PacketLength { bytes: max + 1, max }));
    assert_eq!(out, b"before");
    let mut largest = sealed(&mut a, &huge[1..]);
    assert_eq!(b.opener.open(&mut largest).map(<[u8]>::len), Ok(max - TAG_BYTES));
    let error = b.opener.open(&mut vec![0; max + 1]).err();
    assert_eq!(error, Some(AuthError::PacketLength { bytes: max + 1, max }));
}

#[test]
fn debug_of_links_shows_no_key() {
    let directory = directory();
    let identity = identity(R0, &directory);
    let (initiator, _) = call(R0, 0, &directory);
    let (a, _) = link(R0, 0);
    let me = "LinkIdentity { me: Replica(r0), incarnation: i41, .. }";
    assert_eq!(format!("{identity:?}"), me);
    assert_eq!(format!("{:?}", a.sealer), "Sealer { packets: 0, .. }");
    assert_eq!(format!("{:?}", a.opener), "Opener { packets: 0, .. }");
    let shown = format!("{initiator:?}");
    assert!(shown.starts_with("Initiator { hello: ") && shown.ends_with(" }, .. }"), "{shown}");
}
