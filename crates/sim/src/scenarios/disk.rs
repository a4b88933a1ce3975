//! Disks that fail: machines that stop at every operation of a disk, and disks that rot and lie.

use base::{ReplicaId, Span};

use super::Scenario;
use crate::scenario::{settle, world};
use crate::{DiskFault, Durability, Fault, Options, Place, World};

/// The scenarios of this family.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "a_machine_may_stop_at_every_operation_of_its_disk",
        claim: "D-01: a machine stops before its disk does operation number k, for every k of a \
                run, and again while it starts. It comes back whole, knows every vote that was \
                durable, and contradicts none.",
        ci_seeds: 240,
        full_seeds: 4_000,
        run: a_machine_may_stop_at_every_operation_of_its_disk,
    },
    Scenario {
        name: "what_a_disk_does_to_votes_is_found_out",
        claim: "D-02 to D-05: the disks of at most f replicas rot, lose, corrupt and misdirect \
                writes, misdirect reads, tear sectors and fail to sync. Whoever may have lost a \
                vote recovers before it votes, and the group goes on.",
        ci_seeds: 48,
        full_seeds: 10_000,
        run: what_a_disk_does_to_votes_is_found_out,
    },
    Scenario {
        name: "what_was_written_last_rots",
        claim: "D-05, trap 12: while a machine is off, what it wrote to its log last rots. That is \
                no torn end, for it was durable: the replica recovers before it votes.",
        ci_seeds: 12,
        full_seeds: 2_000,
        run: what_was_written_last_rots,
    },
    Scenario {
        name: "a_write_that_was_lost_is_missed",
        claim: "D-03, trap 12: a sync leaves out a sector and says that it was done, others follow, \
                and the machine stops. A blank sector is no torn end where later ones say that it \
                was durable: the replica recovers before it votes.",
        ci_seeds: 12,
        full_seeds: 2_000,
        run: a_write_that_was_lost_is_missed,
    },
    Scenario {
        name: "syncs_fail_everywhere",
        claim: "D-03: a sync fails at every replica at some time. The replica stops and is \
                started again, by a process or by a machine that has forgotten its memory, and \
                knows what it has said.",
        ci_seeds: 24,
        full_seeds: 4_000,
        run: syncs_fail_everywhere,
    },
    Scenario {
        name: "the_newest_checkpoint_rots_everywhere",
        claim: "D-06: while all machines are off, the newest checkpoint of every replica rots, so \
                that nobody has it and nobody can ask for it. The log leads there from the one \
                before: nobody has forgotten anything, and the group goes on.",
        ci_seeds: 24,
        full_seeds: 4_000,
        run: the_newest_checkpoint_rots_everywhere,
    },
];

fn options(seed: u64) -> Options {
    let (n, f) = [(4, 1), (7, 2)][seed as usize / 2 % 2];
    Options {
        seed,
        n,
        f,
        pillars: [1, 2, 3][seed as usize % 3],
        window: 64,
        ops_per_client: 60,
        pace_us: 2_000,
        durability: Durability::Sync,
        ..Options::default()
    }
}

fn a_machine_may_stop_at_every_operation_of_its_disk(seed: u64) {
    for again in [false, true] {
        let mut world = world(Options { n: 4, f: 1, ..options(seed) });
        let victim = ReplicaId((seed % 4) as u16);
        let after = |world: &mut World, k| {
            world.fault(Fault::Disk(victim, DiskFault::StopAfter(k)));
        };
        after(&mut world, seed);
        world.run_for(Span::millis(250), |_| false);
        if again {
            // In the middle of the start that follows, if the machine has stopped.
            after(&mut world, seed * 7 % 23);
            world.fault(Fault::Restart(victim));
            world.run_for(Span::millis(5), |_| false);
        }
        world.fault(Fault::Restart(victim));
        world.run_for(Span::millis(50), |_| false);
        settle(&mut world, 10);
        let recovered = world.checker().counts().recovered;
        assert_eq!(recovered, 0, "a machine that stops forgets nothing:\n{}", world.describe());
    }
}

fn what_a_disk_does_to_votes_is_found_out(seed: u64) {
    let mut world = world(options(seed));
    let Options { n, f, .. } = world.options();
    let victims: Vec<ReplicaId> =
        (0..f).map(|i| ReplicaId(((seed % u64::from(n)) as u16 + i) % n)).collect();
    for round in 0..3u64 {
        for victim in &victims {
            let fault = wrong(seed / 3 + round * 5 + u64::from(victim.0));
            let before = matches!(fault, DiskFault::Rot(_) | DiskFault::MisdirectRead);
            world.run_for(Span::micros(20_000 + seed * 7_919 % 60_000), |_| false);
            if !before {
                world.fault(Fault::Disk(*victim, fault));
                world.run_for(Span::micros(1 + seed * 104_729 % 20_000), |_| false);
            }
            world.fault(Fault::PowerFails(*victim));
            if before {
                world.fault(Fault::Disk(*victim, fault));
            }
            world.run_for(Span::millis(seed % 50), |_| false);
            world.fault(Fault::Restart(*victim));
        }
    }
    settle(&mut world, 20);
}

fn what_was_written_last_rots(seed: u64) {
    let rots = |world: &mut World, victim| {
        world.fault(Fault::PowerFails(victim));
        world.fault(Fault::Disk(victim, DiskFault::Rot(Place::LogEnd)));
    };
    one_after_the_other(seed, rots);
}

fn a_write_that_was_lost_is_missed(seed: u64) {
    let loses = |world: &mut World, victim| {
        world.ask_more(10);
        world.fault(Fault::Disk(victim, DiskFault::LoseWrite));
        world.run_for(Span::micros(4_000 + seed * 1_301 % 16_000), |_| false);
        world.fault(Fault::PowerFails(victim));
    };
    one_after_the_other(seed, loses);
}

/// Four times a replica loses its power with something wrong on its disk, another one each time,
/// and some of them find out.
fn one_after_the_other(seed: u64, mut suffers: impl FnMut(&mut World, ReplicaId)) {
    let mut world = world(options(seed));
    let n = u64::from(world.options().n);
    for round in 0..4 {
        let victim = ReplicaId(((seed + round) % n) as u16);
        world.run_for(Span::micros(20_000 + seed * 7_919 % 60_000), |_| false);
        suffers(&mut world, victim);
        world.fault(Fault::Restart(victim));
        // One after the other: more than f that may have forgotten would be none too few.
        settle(&mut world, 4);
    }
    let recovered = world.checker().counts().recovered;
    assert!(recovered > 0, "whoever may have lost a vote says so:\n{}", world.describe());
}

fn wrong(which: u64) -> DiskFault {
    match which % 9 {
        0 => DiskFault::Rot(Place::Log),
        1 => DiskFault::Rot(Place::Checkpoint),
        2 => DiskFault::Rot(Place::Life),
        3 => DiskFault::Rot(Place::BothLives),
        4 => DiskFault::LoseWrite,
        5 => DiskFault::CorruptWrite,
        6 => DiskFault::MisdirectWrite,
        7 => DiskFault::MisdirectRead,
        _ => DiskFault::Tear,
    }
}

fn syncs_fail_everywhere(seed: u64) {
    let mut world = world(options(seed));
    let n = world.options().n;
    for replica in (0..n).map(ReplicaId) {
        world.run_for(Span::micros(10_000 + seed * 7_919 % 30_000), |_| false);
        world.fault(Fault::Disk(replica, DiskFault::FailSync));
        world.run_for(Span::micros(5_000 + seed * 104_729 % 100_000), |_| false);
        if seed.is_multiple_of(2) {
            world.fault(Fault::PowerFails(replica));
        }
        world.fault(Fault::Restart(replica));
    }
    settle(&mut world, 20);
    let recovered = world.checker().counts().recovered;
    assert_eq!(recovered, 0, "nothing was said that is not durable:\n{}", world.describe());
}

fn the_newest_checkpoint_rots_everywhere(seed: u64) {
    let mut world = world(Options { ops_per_client: 400, ..options(seed) });
    let n = world.options().n;
    let all = || (0..n).map(ReplicaId);
    // The first has nothing before it but the log.
    let wanted = 1 + seed as usize % 2;
    for _ in 0..2 {
        let there = world.run_for(Span::secs(2), |world| {
            all().all(|replica| world.checkpoints_on_disk(replica) >= wanted)
        });
        assert!(there || world.clients_are_done(), "{}", world.describe());
        all().for_each(|replica| world.fault(Fault::PowerFails(replica)));
        // Most objects are empty, and a few bits more or less do not matter to those.
        for replica in all().flat_map(|replica| std::iter::repeat_n(replica, 40)) {
            world.fault(Fault::Disk(replica, DiskFault::Rot(Place::Checkpoint)));
        }
        all().for_each(|replica| world.fault(Fault::Restart(replica)));
        world.run_for(Span::millis(50), |_| false);
    }
    settle(&mut world, 20);
    let recovered = world.checker().counts().recovered;
    assert_eq!(recovered, 0, "everything was on the disks:\n{}", world.describe());
}
