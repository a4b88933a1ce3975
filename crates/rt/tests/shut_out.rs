//! What a client leaves behind when it hangs up is gone: over real links, while correct clients
//! work.

mod common;

use std::time::Instant;

use base::frame::UNORDERED;
use base::limits;
use common::attack::{ATTACKER, borne, group};

/// Who is at its quota and hangs up, over and over, leaves nothing behind: what its connections
/// still had to say is not tried again and again until the quota has room.
#[test]
fn connections_of_a_client_at_its_quota_go_when_it_hangs_up() {
    // No more than may end at once.
    const TIMES: u64 = 24;
    let cluster = group(1);
    borne(&cluster, || {
        let attacker = cluster.client(ATTACKER, 1).open();
        // To one replica alone: nobody orders these.
        let fill = |stream: u32| -> Vec<_> {
            let ids = 1..=limits::STREAM_WINDOW;
            ids.map(|id| attacker.frame_of(UNORDERED | stream, id, 0)).collect()
        };
        let mut full = attacker.link(1, 1).expect("a link");
        let streams = limits::PENDING_FRAMES_PER_CLIENT_MAX as u64 / limits::STREAM_WINDOW;
        for stream in 1..=u32::try_from(streams).expect("few") {
            full.frames(&fill(stream)).expect("sent");
        }
        cluster.wait("the quota is full", |all| {
            all[1].pillars[1].pending_frames >= limits::PENDING_FRAMES_PER_CLIENT_MAX as u64
        });
        let before = cluster.reports()[1].links.established;
        let more = fill(0);
        for _ in 0..TIMES {
            attacker.link(1, 1).expect("a link").frames(&more).expect("sent");
        }
        cluster.wait("they are gone", |all| {
            let report = &all[1];
            report.links.established >= before + TIMES && report.pillars[1].clients < TIMES / 4
        });
        assert!(cluster.reports()[1].traffic.quota > 0, "nobody was at its quota");
    });
}

/// Who makes one link after the other while others work gets some, and then one now and then: the
/// arithmetic of a link is worth thousands of operations of theirs. Once nobody works any more it
/// gets what it asks for.
#[test]
fn links_without_end_are_refused_while_others_work() {
    const TIMES: usize = 400;
    let cluster = group(1);
    let attacker = cluster.client(ATTACKER, 1);
    borne(&cluster, || {
        let began = Instant::now();
        let frame = attacker.frame(1);
        let make = || {
            let Some(mut link) = attacker.link(1, 1) else { return false };
            link.frames([&frame]).expect("sent");
            true
        };
        let made = (0..TIMES).filter(|_| make()).count();
        // That the last ones have ended may not have been noticed when the next one comes.
        let most = 128 + 64 + began.elapsed().as_millis() / 125;
        assert!(made as u128 <= most && made >= 128, "{made} of at most {most}");
        assert!(made < TIMES, "nothing was refused within {:?}", began.elapsed());
    });
    let report = &cluster.reports()[1];
    assert!(report.links.crowded_out > 0 && report.process.clients.is_empty(), "{report:?}");
    cluster.wait("a link while nobody works", |_| attacker.link(1, 1).is_some());
}
