//! Replicas that fail and come back, in one process over loopback TCP.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Cluster, Disk, options};
use genesis::InitOptions;
use rt::{Durability, Storage, Volatile};
use store::Faults;

/// Timeouts short enough for tests.
fn quick(n: u16, pillars: u16) -> InitOptions {
    let mut options = options(n, pillars);
    options.settings.view_timeout = base::Span::millis(300);
    options.settings.window = 128;
    options
}

fn on_disk(n: u16, pillars: u16, durability: Durability) -> Cluster {
    let mut cluster = Cluster::prepare(&quick(n, pillars), 1);
    cluster.disk = Some(Disk::new(durability));
    cluster.start_all(&[]);
    cluster
}

#[test]
fn a_killed_leader_is_replaced_and_the_others_go_on() {
    for pillars in [1, 3] {
        let mut cluster = Cluster::prepare(&quick(4, pillars), 1);
        cluster.start_all(&[]);
        cluster.client(0, 1).open().drive(pillars, 40, 4);
        cluster.kill_one(0);
        cluster.client(0, 2).open().drive(pillars, 40, 4);
        cluster.agree();
        cluster.wait("another view", |reports| {
            reports.iter().all(|r| r.view > 0 && r.group.installed_views > 0)
        });
    }
}

#[test]
fn a_replica_without_its_memory_comes_back_and_votes_again() {
    let mut cluster = Cluster::prepare(&quick(4, 2), 1);
    cluster.start_all(&[]);
    cluster.client(0, 1).open().drive(2, 40, 4);
    cluster.kill_one(2);
    cluster.client(0, 2).open().drive(2, 100, 4);
    cluster.start_one(2, None);
    cluster.client(0, 3).open().drive(2, 40, 4);
    cluster.agree();
    // It counts again: without another one there is still a quorum.
    cluster.kill_one(1);
    cluster.client(0, 4).open().drive(2, 40, 4);
    cluster.agree();
}

#[test]
fn a_replica_in_sync_mode_comes_back_from_its_disk() {
    let mut cluster = on_disk(4, 2, Durability::Sync);
    cluster.client(0, 1).open().drive(2, 40, 4);
    for id in [0, 3] {
        cluster.kill_one(id);
        cluster.start_one(id, None);
        cluster.wait("a vote", |reports| reports.iter().all(|r| !r.group.recovering));
        cluster.client(0, 2 + u64::from(id)).open().drive(2, 40, 4);
        cluster.agree();
    }
}

/// Everybody stops, in order or not, and everything that was acknowledged is there afterwards.
fn all_at_once(durability: Durability, kill: bool) {
    let mut cluster = on_disk(4, 2, durability);
    cluster.client(0, 1).open().drive(2, 60, 4);
    let before = cluster.reports().iter().map(|r| r.executed).max().expect("four");
    for id in 0..4 {
        if kill { cluster.kill_one(id) } else { cluster.stop_one(id) }
    }
    for id in 0..4 {
        cluster.start_one(id, None);
    }
    let mut client = cluster.client(0, 2).open();
    let id = client.send(0, &[b"after"]);
    let reply = client.await_reply(id);
    let count = reply.results().next().expect("a result")[..8].try_into().expect("a count");
    assert_eq!(u64::from_le_bytes(count), 2 * 60 * 4 + 1, "every operation before it counts");
    cluster.agree();
    assert!(cluster.reports().iter().all(|r| r.executed >= before));
}

#[test]
fn a_whole_group_in_sync_mode_stops_and_starts_again() {
    all_at_once(Durability::Sync, false);
}

#[test]
fn a_whole_group_in_sync_mode_is_killed_and_starts_again() {
    all_at_once(Durability::Sync, true);
}

#[test]
fn a_whole_group_in_async_mode_is_killed_and_starts_again() {
    all_at_once(Durability::Async, true);
}

/// Small checkpoints and a small log: both are cut back under way, several times.
#[test]
fn the_log_is_cut_back_by_checkpoints_and_a_start_needs_both() {
    let mut cluster = Cluster::prepare(&quick(4, 2), 1);
    let mut disk = Disk::new(Durability::Sync);
    disk.growth_bytes = 64 << 10;
    cluster.disk = Some(disk);
    cluster.start_all(&[]);
    for session in 1..=6 {
        cluster.client(0, session).open().drive(2, 60, 8);
    }
    cluster.wait("checkpoints on disk", |reports| reports.iter().all(|r| r.disk.checkpoint > 0));
    let written = cluster.reports().iter().map(|r| r.executed).max().expect("four");
    for id in 0..4 {
        cluster.kill_one(id);
    }
    for id in 0..4 {
        cluster.start_one(id, None);
    }
    cluster.client(0, 7).open().drive(2, 20, 1);
    cluster.agree();
    for report in cluster.reports() {
        assert!(report.executed > written && !report.group.recovering);
        assert!(report.disk.checkpoint > 0, "it began with what was on disk: {report:#?}");
    }
}

/// No life of this replica takes as much as calls for a checkpoint.
#[test]
fn a_replica_that_is_restarted_again_and_again_cuts_its_log_all_the_same() {
    let growth = 64 << 10;
    let mut cluster = Cluster::prepare(&quick(4, 1), 1);
    let mut disk = Disk::new(Durability::Sync);
    disk.growth_bytes = growth;
    cluster.disk = Some(disk);
    cluster.start_all(&[]);
    let mut most = 0;
    for life in 1..=20 {
        cluster.client(0, life).open().drive(1, 96, 1);
        cluster.agree();
        let report = cluster.replicas[2].as_ref().expect("it runs").report();
        most = most.max(report.disk.log_bytes);
        cluster.kill_one(2);
        cluster.start_one(2, None);
    }
    assert!(most < 6 * growth, "{most} bytes of log");
}

#[test]
fn a_checkpoint_is_saved_on_demand_in_every_mode() {
    for durability in [Durability::Memory, Durability::Async] {
        let cluster = on_disk(4, 1, durability);
        cluster.client(0, 1).open().drive(1, 20, 1);
        let replica = cluster.replicas[1].as_ref().expect("it runs");
        let path = replica.save_checkpoint(Duration::from_secs(60)).expect("a quorum is there");
        let reader = store::CheckpointReader::open(&store::Real, &path).expect("a checkpoint");
        assert!(reader.ends_intact() && reader.head().manifest.seq.0 > 0);
    }
    let mut cluster = Cluster::prepare(&quick(4, 1), 1);
    cluster.start_all(&[]);
    let refused = cluster.replicas[0].as_ref().expect("it runs").save_checkpoint(Duration::ZERO);
    assert!(matches!(refused, Err(rt::SaveError::NoDirectory)));
}

/// Four disks that lose whatever was not synced.
fn volatile(lying: bool) -> (Cluster, Vec<Volatile>) {
    let base = || Arc::new(store::Memory::new());
    let one = |_| if lying { Volatile::lying(base()) } else { Volatile::over(base()) };
    let volatile: Vec<Volatile> = (0..4).map(one).collect();
    let mut disk = Disk::new(Durability::Sync);
    disk.storages = volatile.iter().map(|v| Arc::new(v.clone()) as Arc<dyn Storage>).collect();
    let mut cluster = Cluster::prepare(&quick(4, 2), 1);
    cluster.disk = Some(disk);
    cluster.start_all(&[]);
    (cluster, volatile)
}

#[test]
fn a_disk_that_fails_stops_its_replica_and_no_other() {
    let (mut cluster, volatile) = volatile(false);
    cluster.client(0, 1).open().drive(2, 10, 1);
    let fail_sync = Some(volatile[1].syncs() + 3);
    volatile[1].set_faults(Faults { fail_sync, ..Faults::default() });
    cluster.client(0, 2).open().drive(2, 40, 1);
    let failed = cluster.replicas[1].take().expect("it was started");
    let text = failed.failure().expect("it cannot know what is on its disk");
    assert!(text.contains("cannot write the vote log"), "{text}");
    assert!((0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        !failed.is_alive()
    }));
    drop(failed);
    cluster.client(0, 3).open().drive(2, 40, 1);
    cluster.agree();
}

/// Power fails everywhere at once, several times, each time under load.
#[test]
fn what_was_acknowledged_survives_a_crash_of_all_disks() {
    let (mut cluster, volatile) = volatile(false);
    for round in 1..=5 {
        cluster.client(0, 2 * round).open().drive(2, 20, 2);
        // Nobody waits for these: they are under way when the power fails.
        let mut client = cluster.client(1, round).open();
        client.send_packet(50);
        drop(client);
        for (id, disk) in (0..4).zip(&volatile) {
            cluster.kill_one(id);
            disk.crash().expect("the disk below works");
        }
        (0..4).for_each(|id| cluster.start_one(id, None));
        let mut client = cluster.client(0, 2 * round + 1).open();
        let id = client.send(0, &[b"after"]);
        let reply = client.await_reply(id);
        let count = reply.results().next().expect("a result")[..8].try_into().expect("a count");
        let acknowledged = round * (2 * 20 * 2 + 1);
        assert!(u64::from_le_bytes(count) >= acknowledged, "{count:?} < {acknowledged}");
        cluster.agree();
    }
}

/// The test before this one is worth something: disks that only say that they have synced lose
/// everything, and a replica that finds nothing does not start as if that were its first time.
#[test]
fn disks_that_lie_about_syncs_lose_the_group_and_nobody_starts_on_them() {
    let (mut cluster, volatile) = volatile(true);
    cluster.client(0, 1).open().drive(2, 20, 2);
    for (id, disk) in (0..4).zip(&volatile) {
        cluster.kill_one(id);
        disk.crash().expect("the disk below works");
        let refused = cluster.try_start(id, None);
        assert!(matches!(refused, Err(rt::StartError::Refused(_))), "{refused:?}");
    }
}

/// Flips a bit in every 64th byte of the files of replica `id` whose names begin like this.
fn rot(cluster: &Cluster, id: u16, prefix: &str) {
    let dir = cluster.disk.as_ref().expect("a disk").dir(id);
    let mut rotten = 0;
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let mut bytes = std::fs::read(entry.path()).expect("a file");
            // The head stays: a file without one is as good as gone.
            bytes.iter_mut().skip(8192).step_by(64).for_each(|byte| *byte ^= 4);
            std::fs::write(entry.path(), bytes).expect("our own file");
            rotten += 1;
        }
    }
    assert!(rotten > 0, "there is such a file");
}

#[test]
fn what_rots_on_a_disk_is_fetched_or_leads_to_recovery() {
    let mut cluster = on_disk(4, 2, Durability::Sync);
    cluster.client(0, 1).open().drive(2, 60, 4);
    let replica = cluster.replicas[2].as_ref().expect("it runs");
    replica.save_checkpoint(Duration::from_secs(60)).expect("a quorum is there");
    // The second time both are rotten, unless a newer checkpoint was written meanwhile.
    for (session, prefix) in [(2, "checkpoint-"), (3, "log-")] {
        cluster.kill_one(2);
        rot(&cluster, 2, prefix);
        cluster.start_one(2, None);
        cluster.client(0, session).open().drive(2, 40, 4);
        cluster.agree();
    }
    // It counts again.
    cluster.kill_one(0);
    cluster.client(0, 4).open().drive(2, 20, 4);
    cluster.agree();
}

#[test]
fn a_new_group_begins_with_the_state_of_another_ones_snapshot() {
    let old = on_disk(4, 1, Durability::Memory);
    old.client(0, 1).open().drive(1, 30, 2);
    let saved = old.replicas[0].as_ref().expect("it runs");
    let path = saved.save_checkpoint(Duration::from_secs(60)).expect("a quorum is there");
    let mut new = Cluster::prepare(&quick(4, 2), 1);
    new.seed = Some(path.clone());
    new.disk = Some(Disk::new(Durability::Sync));
    new.start_all(&[]);
    for round in 1..=2 {
        let mut client = new.client(0, round).open();
        let id = client.send(0, &[b"after"]);
        let reply = client.await_reply(id);
        let count = reply.results().next().expect("a result")[..8].try_into().expect("a count");
        assert_eq!(u64::from_le_bytes(count), 30 * 2 + round, "it goes on where the other was");
        (0..4).for_each(|id| new.kill_one(id));
        (0..4).for_each(|id| new.start_one(id, None));
    }
    new.agree();
    // What is no snapshot is refused.
    std::fs::write(&path, b"nothing of the kind").expect("our own file");
    new.stop_one(0);
    assert!(new.try_start(0, None).is_err());
}
