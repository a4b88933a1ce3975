//! Clients that misbehave cost nobody else anything: correct ones lose nothing, no leader is
//! accused, and whoever can be known is named.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use auth::{Initiator, PacketReader};
use base::frame::UNORDERED;
use base::packet::PacketKind;
use base::{Authenticator, PillarId, ReplicaId, ReplyStatus, SessionId, limits};
use common::attack::{ATTACKER, CORRECT, VIEW_TIMEOUT, blamed, borne, executed, group, row};
use common::{Client, Cluster, Wire};

const FORGED: &str = "authenticator that is not genuine";

/// Genuine for the replicas whose bit is set in `good`.
fn genuine_for(good: u16) -> impl Fn(Authenticator) -> Authenticator {
    move |authenticator| {
        let Authenticator::Vector(mut macs) = authenticator else { panic!("clients use MACs") };
        for (replica, mac) in macs.iter_mut().enumerate() {
            if good & (1 << replica) == 0 {
                mac.0[0] ^= 1;
            }
        }
        Authenticator::Vector(macs)
    }
}

fn members(subset: u16) -> impl Iterator<Item = u16> {
    (0..4).filter(move |replica| subset & (1 << replica) != 0)
}

/// One principal for each subset of the replicas: its frames convince that subset alone.
#[test]
fn frames_that_convince_some_replicas_only_harm_nobody_and_name_their_client() {
    let cluster = group(16);
    borne(&cluster, || {
        for good in 0..16u16 {
            let attacker = cluster.client(ATTACKER + u32::from(good), 1).open();
            for id in 1..=3 {
                let frame = attacker.forge((UNORDERED, id, 0), b"big", genuine_for(good));
                let mut links: Vec<Wire> = (0..4)
                    .flat_map(|replica| (0..2).map(move |pillar| (replica, pillar)))
                    .filter_map(|(replica, pillar)| attacker.link(replica, pillar))
                    .collect();
                for wire in &mut links {
                    let _ = wire.frames([&frame]);
                }
                // Whoever is not convinced hangs up, and is not to do so before it has read.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    for good in 0..16u16 {
        let principal = ATTACKER + u32::from(good);
        let bad: Vec<usize> = members(!good).map(usize::from).collect();
        blamed(&cluster, &bad, principal, FORGED);
        for replica in members(good).map(usize::from) {
            assert_eq!(row(&cluster, replica, principal), None, "{good:b}");
        }
    }
}

/// One principal for each subset: its frames are genuine, but only that subset gets them.
#[test]
fn frames_that_only_some_replicas_get_harm_nobody() {
    let cluster = group(16);
    borne(&cluster, || {
        for some in 0..16u16 {
            let attacker = cluster.client(ATTACKER + u32::from(some), 1).open();
            let frames: Vec<_> =
                (1..=limits::STREAM_WINDOW).map(|id| attacker.frame_of(UNORDERED, id, 0)).collect();
            for replica in members(some) {
                let mut wire = attacker.link(replica, replica % 2).expect("a link");
                wire.frames(&frames).expect("sent");
            }
        }
    });
    assert!(cluster.reports().iter().all(|r| r.process.clients.is_empty()));
}

/// Whoever begins well is found all the same: nobody knows which frame is looked at.
#[test]
fn a_forger_that_begins_well_is_found_and_shut_out_and_comes_back_in_time() {
    let cluster = group(1);
    let attacker = cluster.client(ATTACKER, 1).open();
    borne(&cluster, || {
        let good = attacker.frame(1);
        let bad: Vec<_> = (2..=limits::STREAM_WINDOW)
            .map(|id| attacker.forge((UNORDERED, id, 0), b"big", genuine_for(0b0001)))
            .collect();
        let deaf = attacker.link(1, 1).expect("a link");
        // Each link costs it one offence; a few are forgiven.
        for _ in 0..5 {
            let mut wire = attacker.link(1, 0).expect("not shut out yet");
            wire.frames([&good]).expect("sent");
            let _ = wire.frames(&bad);
            while wire.receive().is_some() {}
        }
        assert!(row(&cluster, 1, ATTACKER).is_some_and(|row| row.bans == 1 && row.offences == 5));
        // All its links to that replica are gone, whatever their pillar.
        let mut deaf = deaf;
        while deaf.receive().is_some() {}
        // For the other replicas it did nothing.
        assert_eq!(row(&cluster, 0, ATTACKER), None);
        assert!(attacker.link(0, 0).is_some());
        // It may come back when its time is over.
        let until = Instant::now() + Duration::from_secs(60);
        while !attacker.link(1, 0).is_some_and(|mut wire| {
            wire.send(&PacketKind::StatusQuery.alone());
            wire.receive().is_some()
        }) {
            assert!(Instant::now() < until, "shut out for ever");
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    cluster.wait("a refusal", |all| all.iter().any(|r| r.links.banned > 0));
}

/// Three against one, two against two, and everybody alone.
#[test]
fn different_operations_under_one_id_execute_once_and_alike() {
    let cluster = group(1);
    let mut before = 0;
    let correct = borne(&cluster, || {
        let attacker = cluster.client(ATTACKER, 1).open();
        let splits: [[u8; 4]; 5] =
            [[0, 1, 2, 3], [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]];
        for (id, split) in (1..).zip(splits) {
            for (replica, body) in (0..).zip(split) {
                let op = [b'a' + body];
                let frame = attacker.forge((UNORDERED, id, 0), &op, |genuine| genuine);
                for pillar in 0..2 {
                    let mut wire = attacker.link(replica, pillar).expect("a link");
                    wire.frames([&frame]).expect("sent");
                }
            }
            before = id;
        }
    });
    // At most one operation for each id.
    assert!((correct..=correct + before).contains(&executed(&cluster)));
}

/// Each frame again: at every replica and pillar, after checkpoints, when its session is
/// gone.
#[test]
fn what_was_executed_does_not_execute_again() {
    let cluster = group(1);
    let correct = borne(&cluster, || {
        let attacker = cluster.client(ATTACKER, 1).open();
        let frames: Vec<_> = (1..=40).map(|id| attacker.frame(id)).collect();
        let again = |attacker: &Client<'_>| {
            for (replica, pillar) in (0..4).flat_map(|r| [(r, 0), (r, 1)]) {
                let mut wire = attacker.link(replica, pillar).expect("a link");
                for _ in 0..5 {
                    wire.frames(&frames).expect("sent");
                }
            }
        };
        again(&attacker);
        cluster.client(ATTACKER, 1).drive(2, 20, 1);
        again(&attacker);
        // Sessions beyond the limit push out the first one.
        for session in 2..2 + limits::SESSIONS_PER_CLIENT_MAX as u64 + 1 {
            cluster.client(ATTACKER, session).open();
        }
        again(&attacker);
    });
    assert_eq!(executed(&cluster), correct + 40 + 2 * 20);
}

/// The running number in a result tells how many operations were executed before.
#[test]
fn replays_change_nothing_after_a_view_change_and_a_recovery() {
    let mut cluster = group(1);
    let attack = |cluster: &Cluster, session, skip| {
        let attacker = cluster.client(ATTACKER, session);
        let frames: Vec<_> = (1..=30).map(|id| attacker.frame(id)).collect();
        for (replica, pillar) in (0..4).flat_map(|r| [(r, 0), (r, 1)]) {
            if Some(replica) != skip {
                attacker.link(replica, pillar).expect("a link").frames(&frames).expect("sent");
            }
        }
    };
    {
        cluster.client(ATTACKER, 1).open();
        attack(&cluster, 1, None);
        cluster.settle(30);
    }
    cluster.kill_one(0);
    {
        // Nobody leads until the view has changed.
        assert_eq!(executed(&cluster), 30);
        attack(&cluster, 1, Some(0));
        assert_eq!(executed(&cluster), 31);
    }
    cluster.start_one(0, None);
    let mut correct = cluster.client(CORRECT[1], 2).open();
    correct.drive(2, 40, 1);
    cluster.agree();
    attack(&cluster, 1, None);
    assert_eq!(executed(&cluster), 32 + 80);
    cluster.agree();
    assert_eq!(executed(&cluster), 32 + 80 + 1);
    cluster.wait_for_each("the next view", |r| r.view > 0);
    assert!(cluster.reports().iter().all(|r| r.process.clients.is_empty()));
}

/// Streams with and without order; the ids and acknowledgements that a client may choose.
#[test]
fn ids_that_jump_fall_leave_gaps_or_fill_windows_concern_their_client_alone() {
    let cluster = group(1);
    borne(&cluster, || {
        let attacker = cluster.client(ATTACKER, 1).open();
        let far = u64::MAX - 1;
        let mut frames = vec![];
        for stream in [1, UNORDERED | 1] {
            // Far ahead, then back.
            for id in [far, far - 1, 1 << 40, 7, 3, 1] {
                frames.push(attacker.frame_of(stream, id, id - 1));
            }
        }
        // A gap that is never filled.
        frames.extend((2..60).map(|id| attacker.frame_of(2, id, 0)));
        // Every window of more streams than a session may have, nothing acknowledged.
        for stream in 0..limits::STREAMS_PER_SESSION_MAX as u32 + 4 {
            frames.extend(
                (1..=limits::STREAM_WINDOW)
                    .map(|id| attacker.frame_of(UNORDERED | (100 + stream), id, 0)),
            );
        }
        std::thread::scope(|scope| {
            for (replica, pillar) in (0..4).flat_map(|r| [(r, 0), (r, 1)]) {
                let (attacker, frames) = (attacker.link(replica, pillar), &frames);
                scope.spawn(move || {
                    let mut wire = attacker.expect("a link");
                    let give_up = Some(Duration::from_secs(5));
                    wire.raw().set_write_timeout(give_up).expect("not zero");
                    for some in frames.chunks(256) {
                        let _ = wire.frames(some);
                    }
                    // What is too much for its quota is held back, and not for ever.
                    wire.send(&PacketKind::StatusQuery.alone()).expect("the link stays");
                    while let Some(packet) = wire.receive() {
                        if matches!(PacketKind::split(&packet), Ok((PacketKind::Status, _))) {
                            return;
                        }
                    }
                    panic!("the link stays: nothing here is forbidden");
                });
            }
        });
    });
    assert!(cluster.reports().iter().all(|r| r.process.clients.is_empty()));
}

#[test]
fn frames_beyond_their_window_name_their_client() {
    let cluster = group(1);
    borne(&cluster, || {
        let attacker = cluster.client(ATTACKER, 1).open();
        for (id, ack) in [(65, 0), (1 << 40, 3), (u64::MAX - 1, 0)] {
            let frame = attacker.frame_of(UNORDERED, id, ack);
            for replica in 0..4 {
                let mut wire = attacker.link(replica, 0).expect("a link");
                wire.frames([&frame]).expect("sent");
                assert_eq!(wire.receive(), None, "the link is closed");
            }
        }
    });
    blamed(&cluster, &[0, 1, 2, 3], ATTACKER, "frame beyond the window of its stream");
}

#[test]
fn a_frame_in_two_pillars_executes_once() {
    let cluster = group(1);
    let correct = borne(&cluster, || {
        let attacker = cluster.client(ATTACKER, 1).open();
        for round in 0..20 {
            let ids = 1 + 8 * round..=8 + 8 * round;
            let frames: Vec<_> =
                ids.map(|id| attacker.frame_of(UNORDERED, id, 8 * round)).collect();
            for (replica, pillar) in (0..4).flat_map(|r| [(r, (r + 1) % 2), (r, r % 2)]) {
                attacker.link(replica, pillar).expect("a link").frames(&frames).expect("sent");
            }
        }
        // Some may be acknowledged before they are ordered; then nobody executes them.
        let wanted = attacker.frame_of(UNORDERED | 1, 1, 0);
        let mut links: Vec<Wire> = (0..4)
            .flat_map(|r| [(r, 0), (r, 1)])
            .map(|(r, p)| attacker.link(r, p).expect("a link"))
            .collect();
        for wire in &mut links {
            wire.frames([&wanted]).expect("sent");
        }
    });
    assert!((correct + 1..=correct + 160 + 1).contains(&executed(&cluster)));
}

/// A frame of a session goes out on that session's link only, whoever sends it over another.
#[test]
fn replies_go_to_the_links_that_proved_whose_they_are() {
    let cluster = group(1);
    borne(&cluster, || {
        let first = cluster.client(ATTACKER, 1).open();
        let second = cluster.client(ATTACKER, 2).open();
        let mut own = first.link(0, 0).expect("a link");
        let other: Vec<Wire> = (0..4).map(|r| second.link(r, 0).expect("a link")).collect();
        let frame = first.frame(1);
        let mut other = other;
        other.iter_mut().for_each(|wire| wire.frames([&frame]).expect("sent"));
        let packet = own.receive().expect("the reply");
        assert!(matches!(PacketKind::split(&packet), Ok((PacketKind::Reply, _))));
        for wire in &mut other {
            wire.send(&PacketKind::StatusQuery.alone()).expect("sent");
            let packet = wire.receive().expect("an answer");
            assert!(matches!(PacketKind::split(&packet), Ok((PacketKind::Status, _))));
        }
    });
}

/// Whoever records what a client sends can send it again, and change it: that is no fault of the
/// client's.
#[test]
fn recorded_bytes_open_nothing_and_nobody_is_blamed_for_them() {
    let cluster = group(1);
    let victim = cluster.client(ATTACKER, 1).open();
    let ends = |replica: u16| {
        let to = (ReplicaId(replica), PillarId(0));
        let address = cluster.group.address(to.0, to.1).expect("in the group");
        common::Pipe::connect(address).expect("listens")
    };
    borne(&cluster, || {
        for replica in 0..4 {
            let directory = cluster.group.directory();
            let session = SessionId(1);
            let (initiator, hello) = Initiator::start(
                &victim.identity,
                directory,
                ReplicaId(replica),
                PillarId(0),
                session,
            )
            .expect("legal");
            let mut stream = ends(replica);
            stream.write_all(&hello).expect("sent");
            let mut reader = PacketReader::new(limits::HANDSHAKE_PACKET_BYTES_MAX);
            let mut link = loop {
                if let Some(body) = reader.packet().expect("a length") {
                    break initiator.finish(body).expect("an answer");
                }
                let n = stream.read(reader.spare()).expect("an answer");
                reader.filled(n);
            };
            let mut said = vec![];
            link.sealer.seal(&[], &mut said).expect("it fits");
            link.sealer.seal(&PacketKind::StatusQuery.alone(), &mut said).expect("it fits");
            stream.write_all(&said).expect("sent");
            for _ in 0..10 {
                // All of it again, on a connection of its own.
                let mut replay = ends(replica);
                replay.write_all(&hello).expect("sent");
                let _ = replay.write_all(&said);
                let mut answer = vec![];
                let _ = replay.read_to_end(&mut answer);
                assert!(answer.len() <= 256, "the answer to a hello, and nothing more");
                // More than a stranger may send.
                let mut huge = ends(replica);
                huge.write_all(&hello).expect("sent");
                let _ = huge.write_all(&(4u32 << 20).to_le_bytes());
                let mut answer = vec![];
                let _ = huge.read_to_end(&mut answer);
                assert!(answer.len() <= 256);
            }
            // A packet of the real link that was changed on the way.
            let mut changed = vec![];
            link.sealer.seal(&PacketKind::StatusQuery.alone(), &mut changed).expect("it fits");
            *changed.last_mut().expect("bytes") ^= 1;
            stream.write_all(&changed).expect("sent");
            let mut rest = vec![];
            let _ = stream.read_to_end(&mut rest);
        }
    });
    assert!(cluster.reports().iter().all(|r| r.process.clients.is_empty()));
    drop(victim);
    cluster.client(ATTACKER, 2).open().drive(2, 3, 1);
}

/// Nobody closes its session; what is forgotten is the same everywhere, and stays forgotten.
#[test]
fn many_sessions_of_one_shot_each_take_no_more_room_than_one_principal_may() {
    let cluster = group(1);
    let mut shots = 0;
    let correct = borne(&cluster, || {
        for session in 1..=3 * limits::SESSIONS_PER_CLIENT_MAX as u64 / 2 {
            let mut client = cluster.client(ATTACKER, session).open();
            client.drive(1, 1, 1);
            shots += 1;
        }
        let old = cluster.client(ATTACKER, 1);
        let frame = old.frame(1);
        for replica in 0..4 {
            old.link(replica, 0).expect("a link").frames([&frame]).expect("sent");
        }
    });
    cluster.wait("connections to go", |all| {
        all.iter().flat_map(|r| &r.pillars).all(|pillar| pillar.clients == 0)
    });
    assert_eq!(executed(&cluster), correct + shots);
    for report in cluster.reports() {
        assert!(report.sessions <= 3 + limits::SESSIONS_PER_CLIENT_MAX as u64);
        assert!(report.process.clients.is_empty());
    }
}

/// Frames without end over many links to each replica, of which each gets others.
#[test]
fn a_flood_over_many_links_leaves_the_others_their_share() {
    let cluster = group(1);
    borne(&cluster, || {
        let sessions: Vec<Client<'_>> =
            (1..=8).map(|session| cluster.client(ATTACKER, session).open()).collect();
        let until = Instant::now() + VIEW_TIMEOUT;
        std::thread::scope(|scope| {
            for (at, client) in sessions.iter().enumerate() {
                let links = (0..4).flat_map(|r| [(r, 0), (r, 1)]);
                let mut links: Vec<Wire> =
                    links.map(|(r, p)| client.link(r, p).expect("a link")).collect();
                let op = vec![at as u8; 1 << 10];
                // Each replica gets those of all others of its kind, too few to be ordered.
                let frames: Vec<Vec<_>> = (0..2)
                    .map(|kind| {
                        let frame = |i: u32| {
                            let stream = UNORDERED | (kind * 16 + i / 64);
                            let place = (stream, u64::from(i % 64 + 1), 0);
                            client.forge(place, &op, |genuine| genuine)
                        };
                        (0..512).map(frame).collect()
                    })
                    .collect();
                scope.spawn(move || {
                    for wire in &mut links {
                        let patience = Some(Duration::from_millis(100));
                        wire.raw().set_write_timeout(patience).expect("not zero");
                    }
                    while Instant::now() < until && !links.is_empty() {
                        let mut at = 0;
                        // A packet that was written in part ends its link.
                        links.retain_mut(|wire| {
                            let kind = at / 2 % 2;
                            at += 1;
                            frames[kind].chunks(64).all(|some| wire.frames(some).is_some())
                        });
                    }
                });
            }
        });
    });
    cluster.wait("a flood", |all| all.iter().any(|r| r.traffic.quota > 0));
}

#[test]
fn questions_without_end_are_answered_once_a_turn_and_name_their_client() {
    let cluster = group(1);
    borne(&cluster, || {
        let attacker = cluster.client(ATTACKER, 1);
        let until = Instant::now() + Duration::from_secs(30);
        while row(&cluster, 2, ATTACKER).is_none() && Instant::now() < until {
            let Some(mut wire) = attacker.link(2, 1) else { continue };
            while wire.send_all(&PacketKind::StatusQuery.alone(), 50_000).is_some() {}
        }
    });
    blamed(&cluster, &[2], ATTACKER, "flood of status queries");
}

/// Packets in part, each of which announces more than all may have together.
#[test]
fn large_packets_wait_for_each_other_and_come_through() {
    let cluster = group(1);
    borne(&cluster, || {
        let mut attacker = cluster.client(ATTACKER, 1).open();
        let mut hoard: Vec<Wire> = (0..8).map(|_| attacker.link(0, 0).expect("a link")).collect();
        for wire in &mut hoard {
            wire.send(&PacketKind::StatusQuery.alone()).expect("sent");
            wire.receive().expect("it is up");
            let length = (limits::CLIENT_PACKET_BYTES_MAX as u32 - 100).to_le_bytes();
            wire.raw().write_all(&length).expect("sent");
            wire.raw().write_all(&vec![7; 200 << 10]).expect("sent");
        }
        // Others of the principal's packets wait at that replica, those of nobody else.
        let large = vec![1u8; 3 << 20];
        let id = attacker.send(0, &[&large]);
        assert_eq!(attacker.await_reply(id).status, ReplyStatus::Executed);
        drop(hoard);
        let mut wire = attacker.link(0, 0).expect("a link");
        let frame = attacker.forge((UNORDERED | 9, 1, 0), &large, |genuine| genuine);
        wire.frames([&frame]).expect("read when there is room");
        wire.send(&PacketKind::StatusQuery.alone()).expect("sent");
        while let Some(packet) = wire.receive() {
            if matches!(PacketKind::split(&packet), Ok((PacketKind::Status, _))) {
                return;
            }
        }
        panic!("no answer");
    });
    assert!(cluster.reports().iter().all(|r| r.process.clients.is_empty()));
}

/// It comes and goes at any time, even in the middle of a packet, does not read, and meets
/// replicas that have just come back.
#[test]
fn correct_clients_that_restart_or_are_slow_are_never_shut_out() {
    let mut cluster = group(0);
    for round in 0..6 {
        {
            let client = cluster.client(CORRECT[0], 10 + round);
            let client = if round == 3 { client } else { client.open() };
            let frames: Vec<_> = (1..=64).map(|id| client.frame(id)).collect();
            for (replica, pillar) in (0..4).flat_map(|r| [(r, 0), (r, 1)]) {
                if round == 3 && replica == 3 {
                    continue;
                }
                let mut wire = client.link(replica, pillar).expect("a link");
                wire.frames(&frames).expect("sent");
                wire.raw().write_all(&[200, 0, 0, 0, 1, 2, 3]).expect("half a packet");
            }
        }
        cluster.client(CORRECT[1], 10 + round).open().drive(2, 10, 2);
        match round {
            2 => cluster.kill_one(3),
            3 => cluster.start_one(3, None),
            _ => {}
        }
    }
    let reports = cluster.reports();
    assert!(reports.iter().all(|r| r.process.clients.is_empty() && r.links.banned == 0));
}
