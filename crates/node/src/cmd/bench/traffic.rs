//! Messages and bytes per operation, from the replicas' own counts.
//!
//! Both looks at a replica are at most 100 ms old, and operations are those that it executed in
//! between, so that the quotients fit. What it is not: proof; a replica may count wrongly.

use rt::ReplicaReport;
use rt::counters::TrafficCounters;
use serde::Serialize;

use crate::probe::{Answer, Prober};

/// What one replica had counted at some time.
#[derive(Clone, Debug)]
struct Count {
    view: u64,
    leader: u16,
    executed: u64,
    ops: u64,
    traffic: TrafficCounters,
}

/// What the replicas had counted at some time; none where one did not answer.
#[derive(Clone, Debug)]
pub struct Counts(Vec<Option<Count>>);

/// What went through one replica per operation, in between.
#[derive(Clone, Debug, Serialize)]
pub struct TrafficRow {
    /// Which.
    pub replica: u16,
    /// Whether it led at the end.
    pub leader: bool,
    /// Operations that it executed.
    pub ops: u64,
    /// Of them, per instance of agreement; null batches count as instances.
    pub ops_per_instance: f64,
    /// Of them, per request frame of a client.
    pub ops_per_frame: f64,
    /// Bytes read, per operation.
    pub bytes_in: f64,
    /// Bytes written, per operation.
    pub bytes_out: f64,
    /// Sealed packets read, per operation.
    pub packets_in: f64,
    /// Messages of other replicas, per operation.
    pub peer_messages: f64,
    /// Request frames of clients, per operation.
    pub frames: f64,
    /// Replies to clients, each to a frame, per operation.
    pub replies: f64,
    /// Turns of its event loops, per operation.
    pub turns: f64,
}

impl Counts {
    /// Asks all replicas now, in each partition of the group.
    pub async fn now(probers: &[Prober]) -> Counts {
        let mut all: Option<Counts> = None;
        for prober in probers {
            let part = Counts::of(prober).await;
            all = Some(all.map_or(part.clone(), |all| all.and(part)));
        }
        all.unwrap_or(Counts(Vec::new()))
    }

    /// Two partitions together. Who leads is told of the one in the higher view.
    fn and(self, other: Counts) -> Counts {
        let both = |(one, other): (Option<Count>, Option<Count>)| {
            let (mut one, other) = (one?, other?);
            if other.view > one.view {
                (one.view, one.leader) = (other.view, other.leader);
            }
            (one.executed, one.ops) = (one.executed + other.executed, one.ops + other.ops);
            one.traffic.add(&other.traffic);
            Some(one)
        };
        Counts(self.0.into_iter().zip(other.0).map(both).collect())
    }

    /// Asks all replicas of one of the groups that agreement takes place in.
    async fn of(prober: &Prober) -> Counts {
        let count = |answer: &Answer| {
            let report: &ReplicaReport = answer.as_ref().ok()?;
            Some(Count {
                view: report.view,
                leader: report.leader,
                executed: report.executed,
                ops: report.ops,
                traffic: report.traffic,
            })
        };
        Counts(prober.all().await.iter().map(count).collect())
    }

    /// Who led the highest view that any replica was in.
    #[must_use]
    pub fn leader(&self) -> Option<u16> {
        let highest = self.0.iter().flatten().max_by_key(|count| count.view);
        highest.map(|count| count.leader)
    }

    /// What went through each replica since `before`, of those that answered twice and executed
    /// something.
    #[must_use]
    pub fn rows(&self, before: &Counts) -> Vec<TrafficRow> {
        let both = (0..).zip(self.0.iter().zip(&before.0));
        both.filter_map(|(id, (now, then))| {
            let leads = self.leader() == Some(id);
            row(id, leads, now.as_ref()?, then.as_ref()?)
        })
        .collect()
    }
}

fn row(replica: u16, leader: bool, now: &Count, then: &Count) -> Option<TrafficRow> {
    // A replica that was started again in between counts from 0.
    let ops = now.ops.checked_sub(then.ops).filter(|ops| *ops > 0)?;
    let since =
        |of: fn(&TrafficCounters) -> u64| of(&now.traffic).saturating_sub(of(&then.traffic));
    let per_op = |of: fn(&TrafficCounters) -> u64| round(since(of) as f64 / ops as f64);
    let ops_per = |things: u64| round(ops as f64 / things.max(1) as f64);
    Some(TrafficRow {
        replica,
        leader,
        ops,
        ops_per_instance: ops_per(now.executed.saturating_sub(then.executed)),
        ops_per_frame: ops_per(since(|traffic| traffic.replies)),
        bytes_in: per_op(|traffic| traffic.bytes_in),
        bytes_out: per_op(|traffic| traffic.bytes_out),
        packets_in: per_op(|traffic| traffic.packets_in),
        peer_messages: per_op(|traffic| traffic.peer_messages),
        frames: per_op(|traffic| traffic.frames),
        replies: per_op(|traffic| traffic.replies),
        turns: per_op(|traffic| traffic.turns),
    })
}

fn round(number: f64) -> f64 {
    (number * 1e5).round() / 1e5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(executed: u64, ops: u64, bytes_in: u64) -> Option<Count> {
        let traffic = TrafficCounters { bytes_in, replies: ops / 10, ..Default::default() };
        Some(Count { view: 1, leader: 1, executed, ops, traffic })
    }

    #[test]
    fn partitions_are_counted_together() {
        let one = Counts(vec![count(10, 1_000, 5_000), None]);
        let mut other = Counts(vec![count(5, 500, 2_000), count(1, 1, 1)]);
        other.0[0].as_mut().expect("there").view = 7;
        let both = one.and(other);
        let row = both.0[0].as_ref().expect("both answered");
        assert_eq!((row.view, row.executed, row.ops), (7, 15, 1_500));
        assert_eq!(row.traffic.bytes_in, 7_000);
        assert!(both.0[1].is_none(), "it did not answer in one of them");
    }

    #[test]
    fn quotients_are_of_what_came_in_between() {
        let before = Counts(vec![count(10, 1_000, 5_000), None, count(1, 50, 0)]);
        let after = Counts(vec![count(30, 3_000, 25_000), count(1, 1, 1), count(1, 20, 0)]);
        let rows = after.rows(&before);
        assert_eq!(rows.len(), 1, "one did not answer, one was started again");
        assert_eq!((rows[0].replica, rows[0].ops), (0, 2_000));
        let (per_instance, per_frame) = (rows[0].ops_per_instance, rows[0].ops_per_frame);
        assert!((per_instance - 100.0).abs() < 1e-9 && (per_frame - 10.0).abs() < 1e-9);
        assert!(!rows[0].leader && after.leader() == Some(1));
        assert!((rows[0].bytes_in - 10.0).abs() < 1e-9, "{rows:?}");
    }
}
