//! Attackers that send as much as they can.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base::Frame;
use client::Client;
use genesis::Group;

use super::honest::options;
use super::hostile::{Villain, Wire, get, packet, set};
use super::squad::{Orders, Round};

/// Operations that a flooding client has under way.
const FLOOD_SLOTS: u64 = 2_048;
/// Bytes of a value that nobody reads.
const HEAVY_BYTES: usize = 64 << 10;

/// Noise that differs from call to call.
fn noise(len: usize) -> Vec<u8> {
    let mut state = auth::random_u64().expect("randomness") | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// The ports of all pillars of all replicas.
pub fn ports(group: &Group) -> Vec<u16> {
    group.replicas().iter().flat_map(genesis::ReplicaEntry::ports).collect()
}

/// A client that keeps to the protocol and has as much under way as that allows, each operation
/// in a frame of its own.
pub fn valid_frames(group: &Group, principal: u32) -> Round {
    let mut options = options(group, principal);
    options.unbatched = true;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut client: Option<Client> = None;
    let value = "x".repeat(64);
    Box::new(move |orders: &Orders| {
        runtime.block_on(async {
            if client.is_none() {
                client = Client::connect(options.clone()).await.ok();
            }
            let Some(client) = &client else { return 0 };
            let (submitter, mut completions) = client.pipe();
            let op = |tag: u64| set(&format!("flood:{principal}:{}", tag % 64), &value);
            let mut under_way = 0_u64;
            for tag in 0..FLOOD_SLOTS {
                under_way += u64::from(submitter.submit(0, &op(tag), tag).is_ok());
            }
            let mut done = 0;
            while under_way > 0 {
                let Some(batch) = completions.recv().await else { break };
                done += batch.len() as u64;
                for completion in &batch {
                    let again = orders.attack()
                        && submitter.submit(0, &op(completion.tag), completion.tag).is_ok();
                    under_way -= u64::from(!again);
                }
            }
            done
        })
    })
}

/// Links made and dropped again, over and over, with a good handshake each.
pub fn reconnects(group: &Group, principal: u32) -> Round {
    let villain = Villain::new(group, principal);
    Box::new(move |_| {
        let (session, mut wires) = villain.session();
        let open = villain.open(session);
        let sent =
            wires.iter_mut().flatten().filter_map(|wire| wire.send_frames([&open]).then_some(()));
        sent.count() as u64
    })
}

/// Bytes without a meaning: to everybody's ports, with no seal at all.
pub fn unsealed_garbage(group: &Group) -> Round {
    let ports = ports(group);
    let mut turn = 0;
    Box::new(move |_| {
        turn += 1;
        let port = ports[turn % ports.len()];
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return 0 };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(50)));
        let mut bytes = noise(2_048);
        if turn % 2 == 0 {
            // As long as a hello, so that it is looked at.
            bytes[..4].copy_from_slice(&200_u32.to_le_bytes());
        }
        u64::from(stream.write_all(&bytes).is_ok())
    })
}

/// Packets without a meaning, sealed by a principal, for as long as it is let in.
pub fn sealed_garbage(group: &Group, principal: u32) -> Round {
    let villain = Villain::new(group, principal);
    Box::new(move |_| {
        let (_, mut wires) = villain.session();
        let let_in = wires.iter().flatten().count();
        for wire in wires.iter_mut().flatten() {
            wire.send(&noise(4_096));
        }
        if let_in == 0 {
            // Shut out everywhere: knocks again, but no hundred thousand times a second.
            std::thread::sleep(Duration::from_millis(2));
        }
        let_in as u64
    })
}

/// Frames that were executed long ago, sent again to all replicas as fast as they take them.
pub fn replays(group: &Group, principal: u32) -> Round {
    let villain = Villain::new(group, principal);
    let (session, mut wires) = villain.session();
    let all = u64::MAX;
    let frame = |id| villain.frame(session, id, &set("replayed", &id.to_string()), all);
    let old: Vec<Frame> =
        std::iter::once(villain.open(session)).chain((1..=63).map(frame)).collect();
    for wire in wires.iter_mut().flatten() {
        wire.send_frames(&old);
    }
    std::thread::sleep(Duration::from_millis(300));
    let again = packet(&old);
    Box::new(move |_| {
        let mut sent = 0;
        for (replica, slot) in (0..villain.n()).zip(&mut wires) {
            let taken = slot.as_mut().is_some_and(|wire| wire.drain() && wire.send(&again));
            if taken {
                sent += old.len() as u64;
            } else {
                *slot = villain.call(replica, session);
            }
        }
        sent
    })
}

/// Connections that say nothing, half a length, or one byte of a hello at a time; many, and
/// made anew when they are dropped.
pub fn half_open(group: &Group, wanted: usize) -> Round {
    let ports = ports(group);
    let mut open: Vec<(TcpStream, usize)> = Vec::new();
    let mut turn = 0;
    Box::new(move |_| {
        turn += 1;
        let mut done = 0;
        if open.len() < wanted {
            let port = ports[turn % ports.len()];
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                let _ = stream.set_nonblocking(true);
                let half: &[u8] = [&b""[..], &[100, 0], &[100, 0, 0, 0, 1]][turn % 3];
                let _ = stream.write_all(half);
                open.push((stream, turn % 3));
                done += 1;
            }
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
        // One byte more from those that dawdle; whoever was dropped goes.
        if turn % 64 == 0 {
            open.retain_mut(|(stream, kind)| {
                let dropped = matches!(stream.read(&mut [0; 16]), Ok(0));
                !dropped && (*kind < 2 || stream.write_all(&[1]).is_ok())
            });
        }
        done
    })
}

/// A client that asks for large values and never reads them.
pub fn never_reads(group: &Group, principal: u32) -> Round {
    let villain = Villain::new(group, principal);
    let value = "v".repeat(HEAVY_BYTES);
    let mut lines: Option<(base::SessionId, Vec<Option<Wire>>)> = None;
    let mut next = 1;
    Box::new(move |_| {
        let (session, wires) = lines.get_or_insert_with(|| {
            let (session, mut wires) = villain.session();
            let open = villain.open(session);
            let heavy = villain.frame(session, 1, &set("heavy", &value), u64::MAX);
            wires.iter_mut().flatten().for_each(|wire| {
                wire.send_frames([&open, &heavy]);
            });
            next = 2;
            (session, wires)
        });
        let frame = villain.frame(*session, next, &get("heavy"), u64::MAX);
        next += 1;
        let takes = |wire: &mut Wire| wire.send_frames([&frame]);
        let sent = wires.iter_mut().flatten().map(takes).filter(|sent| *sent).count();
        if sent < usize::from(villain.n()) {
            // Somebody has hung up: all over again.
            lines = None;
        }
        std::thread::sleep(Duration::from_millis(5));
        sent as u64
    })
}

/// A client whose authenticators convince some replicas only: every subset in turn.
pub fn big_mac(group: &Group, principal: u32) -> Round {
    let villain = Villain::new(group, principal);
    let mut subset = 0;
    Box::new(move |_| {
        subset = (subset + 1) % ((1 << villain.n()) - 1);
        let (session, mut wires) = villain.session();
        let open = villain.open(session);
        let frames: Vec<Frame> =
            (1..=32).map(|id| villain.frame(session, id, &set("big", "mac"), subset)).collect();
        let mut sent = 0;
        for wire in wires.iter_mut().flatten() {
            sent += u64::from(wire.send_frames(std::iter::once(&open).chain(&frames)));
        }
        std::thread::sleep(Duration::from_millis(5));
        wires.iter_mut().flatten().for_each(|wire| {
            wire.drain();
        });
        sent
    })
}

/// A client that sends another body to each half of the replicas under one id: every division
/// in turn.
pub fn two_bodies(group: &Group, principal: u32) -> Round {
    let villain = Villain::new(group, principal);
    let mut division = 0_u64;
    Box::new(move |_| {
        division = (division + 1) % ((1 << villain.n()) - 1);
        let (session, mut wires) = villain.session();
        let open = villain.open(session);
        let body = |id, text: &str| villain.frame(session, id, &set("two", text), u64::MAX);
        let (one, other): (Vec<Frame>, Vec<Frame>) =
            (1..=32).map(|id| (body(id, "one"), body(id, "other"))).unzip();
        let mut sent = 0;
        for (replica, wire) in wires.iter_mut().enumerate() {
            let frames = if division & (1 << replica) == 0 { &one } else { &other };
            let Some(wire) = wire else { continue };
            sent += u64::from(wire.send_frames(std::iter::once(&open).chain(frames)));
        }
        std::thread::sleep(Duration::from_millis(5));
        wires.iter_mut().flatten().for_each(|wire| {
            wire.drain();
        });
        sent
    })
}
