//! Clients that attack while correct ones work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::limits;
use rt::{ClientRow, ReplicaReport, ReplicaState};

use super::Cluster;

/// How long a leader may owe something: long for a busy machine, and short enough to wait for.
pub const VIEW_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Correct clients have these principals.
pub const CORRECT: [u32; 2] = [0, 1];
/// The first of those that attack.
pub const ATTACKER: u32 = 2;

pub fn group(attackers: u32) -> Cluster {
    let mut options = super::options(4, 2);
    options.clients = 2 + attackers;
    options.settings.view_timeout = base::Span::millis(1_500);
    let mut cluster = Cluster::prepare(&options, 1);
    cluster.start_all(&[]);
    cluster.wait("all links", |all| {
        all.iter().all(|r| r.pillars.iter().all(|pillar| pillar.peers_up == 3))
    });
    cluster
}

/// Sets it when it goes, however that comes about.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Correct clients work and check every reply while `attack` goes on, and until every leader
/// that owed something for its sake would have been replaced. Then nobody has changed the view,
/// all replicas agree, no correct client is blamed, and nobody holds more than it may. Returns
/// the operations of the correct clients.
pub fn borne(cluster: &Cluster, attack: impl FnOnce()) -> u64 {
    let over = AtomicBool::new(false);
    let work = |principal| {
        let mut client = cluster.client(principal, 1).open();
        let mut ops = 0;
        while !over.load(Ordering::Acquire) {
            client.drive(2, 10, 2);
            ops += 2 * 10 * 2;
        }
        ops
    };
    let work = &work;
    let done = std::thread::scope(|scope| {
        let workers = CORRECT.map(|principal| scope.spawn(move || work(principal)));
        {
            let _over = Over(&over);
            attack();
            std::thread::sleep(2 * VIEW_TIMEOUT);
        }
        workers.into_iter().map(|worker| worker.join().expect("they lose nothing")).sum()
    });
    assert!(done > 0);
    undisturbed(cluster);
    done
}

pub fn undisturbed(cluster: &Cluster) {
    cluster.wait("agreement", |all| {
        // One that fell behind has fetched what the others executed.
        let same = |r: &ReplicaReport| (r.executed, r.checkpoint.stable_digest.clone());
        all.iter().all(|r| same(r) == same(&all[0]) && r.state == ReplicaState::Running)
    });
    for report in cluster.reports() {
        let group = &report.group;
        let views = (report.view, group.view, group.asks_for, group.installed_views);
        assert_eq!(views, (0, 0, None, 0), "{report:#?}");
        let blamed = report.process.clients.iter().map(|row| row.principal);
        assert!(!blamed.into_iter().any(|who| CORRECT.contains(&who)), "{report:#?}");
        assert!(report.evidence.is_empty() && report.misbehaviour.iter().all(|n| *n == 0));
        assert!(report.suspicions.is_empty(), "{report:#?}");
        // Of each principal its quota, and what is vouched for and has not come.
        let principals = cluster.group.directory().clients() as u64;
        let most = 2 * principals * limits::PENDING_FRAMES_PER_CLIENT_MAX as u64;
        assert!(report.pillars.iter().all(|pillar| pillar.pending_frames <= most));
    }
}

/// How many operations the group has executed: the running number in the next one's result.
pub fn executed(cluster: &Cluster) -> u64 {
    static SESSION: AtomicU64 = AtomicU64::new(1_000);
    let session = SESSION.fetch_add(1, Ordering::Relaxed);
    let mut client = cluster.client(CORRECT[0], session).open();
    let id = client.send(0, &[b"count"]);
    let reply = client.await_reply(id);
    let result = reply.results().next().expect("one");
    u64::from_le_bytes(result[..8].try_into().expect("a number")) - 1
}

/// What `replica` holds against `principal`.
pub fn row(cluster: &Cluster, replica: usize, principal: u32) -> Option<ClientRow> {
    let report = cluster.reports().swap_remove(replica);
    report.process.clients.into_iter().find(|row| row.principal == principal)
}

/// Waits until everybody in `replicas` blames `principal` for `last`.
pub fn blamed(cluster: &Cluster, replicas: &[usize], principal: u32, last: &str) {
    cluster.wait("blame", |all| {
        replicas.iter().all(|replica| {
            let mut rows = all[*replica].process.clients.iter();
            rows.any(|row| row.principal == principal && row.last == last)
        })
    });
}
