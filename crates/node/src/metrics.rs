//! Numbers for Prometheus, made of reports when they are asked for.
//!
//! What it is: names and help texts of all metrics. What it is not: counting. Counters live where
//! things happen (`rt`, `client`, the gateway) and are copied out.
//!
//! Invariant: labels are numbers of replicas and pillars and words of this program: nothing that
//! a client or a peer chooses, so there are never more series than the group has members.

use std::fmt;

use client::ClientStats;
use node::gateway::GatewayStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;
use rt::report::{EarlyReport, PillarRow};
use rt::{ClientRow, ReplicaReport};

use crate::health::unready;

/// Everything that one page shows.
#[derive(Debug, Default)]
pub struct Metrics(Vec<Metric>);

/// One metric: a name, a help text, and its values.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    /// Each with its labels.
    values: Vec<(Vec<Label>, u64)>,
}

/// A label: its name and value.
pub type Label = (&'static str, String);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Counter,
    Gauge,
}

/// Stands for the exemplars that there are none of.
const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, u64>> = None;

impl Metrics {
    /// Adds a number that only grows. Its name gets `_total` behind it.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, help, Kind::Counter, vec![(Vec::new(), value)]);
    }

    /// Adds a number that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, help, Kind::Gauge, vec![(Vec::new(), value)]);
    }

    /// Adds a counter for each of several things.
    pub fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        values: impl Iterator<Item = (Vec<Label>, u64)>,
    ) {
        self.add(name, help, Kind::Counter, values.collect());
    }

    /// Adds a gauge for each of several things.
    pub fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        values: impl Iterator<Item = (Vec<Label>, u64)>,
    ) {
        self.add(name, help, Kind::Gauge, values.collect());
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        values: Vec<(Vec<Label>, u64)>,
    ) {
        self.0.push(Metric { name, help, kind, values });
    }

    /// The metrics of several partitions under one name each, told apart by a label.
    fn by_partition(parts: impl Iterator<Item = Metrics>) -> Metrics {
        let mut all = Metrics::default();
        for (number, part) in parts.enumerate() {
            for mut metric in part.0 {
                // What is of the process is the same in each.
                let process = metric.name == RESIDENT;
                if process && number > 0 {
                    continue;
                }
                let label = ("partition", number.to_string());
                for (labels, _) in metric.values.iter_mut().filter(|_| !process) {
                    labels.insert(0, label.clone());
                }
                match all.0.iter_mut().find(|known| known.name == metric.name) {
                    Some(known) => known.values.append(&mut metric.values),
                    None => all.0.push(metric),
                }
            }
        }
        all
    }

    /// The text.
    #[must_use]
    pub fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry).expect("writing to a string does not fail");
        out
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|metric| metric.encode(&mut encoder))
    }
}

impl Metric {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in &self.values {
            if labels.is_empty() {
                self.put(&mut metric, *value)?;
                continue;
            }
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            self.put(&mut metric.encode_family(&labels)?, *value)?;
        }
        Ok(())
    }

    fn put(&self, encoder: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
        match self.kind {
            Kind::Counter => encoder.encode_counter(&value, NO_EXEMPLAR),
            Kind::Gauge => encoder.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
        }
    }
}

/// The values of a list with one entry per replica.
pub fn per_replica(values: &[u64]) -> impl Iterator<Item = (Vec<Label>, u64)> + '_ {
    values.iter().enumerate().map(|(id, value)| (vec![("replica", id.to_string())], *value))
}

/// The memory of the process.
const RESIDENT: &str = "stylite_memory_rss_bytes";

/// What a replica shows: its report, or one for each partition of its group in turn.
#[must_use]
pub fn of_replica(reports: &[ReplicaReport]) -> Metrics {
    match reports {
        [report] => of_part(report),
        several => Metrics::by_partition(several.iter().map(of_part)),
    }
}

fn of_part(report: &ReplicaReport) -> Metrics {
    let mut out = Metrics::default();
    numbers(&mut out, report);
    group(&mut out, report);
    checkpoints(&mut out, report);
    disk(&mut out, report);
    against(&mut out, report);
    pillars(&mut out, report);
    traffic(&mut out, report);
    out
}

fn early(out: &mut Metrics, early: EarlyReport) {
    let what = "Batches executed before they were committed.";
    out.counter("stylite_tentative_batches", what, early.tentative_batches);
    let what = "Batches executed before they were committed, and taken back.";
    out.counter("stylite_rolled_back_batches", what, early.rolled_back_batches);
    out.counter("stylite_unordered_reads", "Reads answered without an order.", early.reads);
    let what = "Frames of reads that were to be answered without an order and were not.";
    out.counter("stylite_unread_frames", what, early.unread_frames);
}

fn numbers(out: &mut Metrics, report: &ReplicaReport) {
    let ready = unready(report).is_none();
    out.gauge("stylite_ready", "1 while the replica takes part.", ready.into());
    out.gauge("stylite_view", "The view that it is in.", report.view);
    out.gauge("stylite_leader", "The replica that leads that view.", report.leader.into());
    let leads = report.group.leaders.contains(&report.id);
    out.gauge("stylite_leads", "1 while it leads, alone or in turn with others.", leads.into());
    out.counter("stylite_executed", "The last sequence number executed.", report.executed);
    out.gauge("stylite_lag", "Numbers delivered beyond it, gaps included.", report.lag);
    out.counter("stylite_operations", "Operations executed since the start.", report.ops);
    out.gauge("stylite_sessions", "Open sessions.", report.sessions);
    early(out, report.process.early);
    out.gauge(RESIDENT, "Resident memory.", report.process.memory_rss);
    out.counters(
        "stylite_misbehaviour",
        "Messages of a replica that no correct replica sends: a suspicion.",
        per_replica(&report.misbehaviour),
    );
}

fn group(out: &mut Metrics, report: &ReplicaReport) {
    let group = &report.group;
    out.gauge(
        "stylite_changing_view",
        "1 while the replica asks for another view than the one it is in.",
        group.asks_for.is_some().into(),
    );
    out.counter("stylite_views_installed", "Views that began.", group.installed_views);
    out.gauge(
        "stylite_recovering",
        "1 while the replica may have forgotten votes and casts none.",
        group.recovering.into(),
    );
    out.gauge(
        "stylite_fetching",
        "1 while the replica fetches the state of others.",
        group.fetching.is_some().into(),
    );
    out.gauge(
        "stylite_too_many_forgetful",
        "1 when more replicas than may fail have forgotten their votes.",
        group.too_many_forgetful.into(),
    );
    let transfer = &report.transfer;
    out.counter("stylite_fetched_bytes", "Bytes of state fetched.", transfer.fetched_bytes);
    out.counter("stylite_served_bytes", "Bytes of state served.", transfer.served_bytes);
    out.gauge("stylite_missing_objects", "Objects still to fetch.", transfer.missing_objects);
    out.gauge("stylite_saved_bytes", "Memory of older checkpoints.", transfer.saved_bytes);
}

fn disk(out: &mut Metrics, report: &ReplicaReport) {
    let disk = &report.disk;
    let durability = disk.durability.clone();
    out.gauges(
        "stylite_durability",
        "1 for what the votes of this replica rest on.",
        std::iter::once((vec![("mode", durability)], 1)),
    );
    out.gauge("stylite_log_bytes", "Bytes of the vote log.", disk.log_bytes);
    out.gauge("stylite_log_lag_bytes", "Promises that wait for the disk.", disk.log_lag_bytes);
    out.counter("stylite_log_commits", "Commits of the vote log.", disk.log_commits);
    out.gauge("stylite_checkpoint_bytes", "Bytes of checkpoint files.", disk.checkpoint_bytes);
    out.gauge("stylite_checkpoint_on_disk", "The last checkpoint on disk.", disk.checkpoint);
}

fn against(out: &mut Metrics, report: &ReplicaReport) {
    let labels = |accused: u16, kind: &str| {
        vec![("replica", accused.to_string()), ("kind", kind.to_owned())]
    };
    let proofs = report.evidence.iter().map(|row| (labels(row.accused, &row.kind), 1));
    out.gauges("stylite_evidence", "1 for each proof against a replica.", proofs);
    let suspicions =
        report.suspicions.iter().map(|row| (labels(row.accused, &row.kind), row.count));
    out.counters(
        "stylite_suspicions",
        "What makes a replica seem faulty, seen from here. Not a fact by itself.",
        suspicions,
    );
    let clients = || report.process.clients.iter();
    let principal = |row: &ClientRow| vec![("principal", row.principal.to_string())];
    out.counters(
        "stylite_client_offences",
        "What a client sent that no correct one sends: the worst 64.",
        clients().map(|row| (principal(row), row.offences)),
    );
    out.gauges(
        "stylite_client_banned_seconds",
        "Seconds until such a client may come back.",
        clients().map(|row| (principal(row), row.banned_seconds)),
    );
}

fn checkpoints(out: &mut Metrics, report: &ReplicaReport) {
    let own = &report.checkpoint;
    out.counter("stylite_checkpoints", "Checkpoints taken since the start.", own.count);
    out.gauge("stylite_checkpoint_stable", "The last stable checkpoint.", own.stable);
    out.gauge("stylite_checkpoint_last", "The last checkpoint taken here.", own.last);
    out.gauge(
        "stylite_checkpoint_pause_max_microseconds",
        "The longest turn in which digests of a checkpoint were made.",
        own.pause_max_us,
    );
}

fn pillars(out: &mut Metrics, report: &ReplicaReport) {
    let mut each = |name, help, value: fn(&PillarRow) -> u64| {
        let rows = report.pillars.iter();
        let values = rows.map(|row| (vec![("pillar", row.pillar.to_string())], value(row)));
        out.gauges(name, help, values);
    };
    each("stylite_pillar_delivered", "The highest number without a gap.", |row| row.delivered);
    each("stylite_pillar_pending_frames", "Frames that wait.", |row| row.pending_frames);
    each("stylite_pillar_in_flight", "Instances under way.", |row| row.in_flight);
    each("stylite_pillar_peers", "Links to peers that are up.", |row| row.peers_up);
    each("stylite_pillar_clients", "Connected clients.", |row| row.clients);
}

fn traffic(out: &mut Metrics, report: &ReplicaReport) {
    let mut count = |name, help, value| out.counter(name, help, value);
    let traffic = &report.traffic;
    count("stylite_received_bytes", "Bytes read from links.", traffic.bytes_in);
    count("stylite_sent_bytes", "Bytes written to links.", traffic.bytes_out);
    count("stylite_frames", "Request frames received.", traffic.frames);
    count("stylite_replies", "Replies sent.", traffic.replies);
    count("stylite_nudges", "Clients told that something waits for them.", traffic.nudges);
    count("stylite_quota_refusals", "Frames beyond their client's quota.", traffic.quota);
    count("stylite_stale", "Messages that came too late.", traffic.stale);
    let links = &report.links;
    count("stylite_links_established", "Links that came up.", links.established);
    count("stylite_handshakes_failed", "Handshakes that failed.", links.handshakes_failed);
    count("stylite_malformed", "Connections closed for their bytes.", links.malformed);
    count("stylite_forged", "Connections closed for a bad authenticator.", links.forged);
    count("stylite_banned", "Connections refused for earlier offences.", links.banned);
    count(
        "stylite_peer_messages_dropped",
        "Messages to peers dropped because their link was down or slow.",
        links.peer_messages_dropped,
    );
}

/// What a gateway shows.
#[must_use]
pub fn of_gateway(gateway: &GatewayStats, client: &ClientStats) -> Metrics {
    let mut out = Metrics::default();
    let mut count = |name, help, value| out.counter(name, help, value);
    count("stylite_gateway_connections_accepted", "Connections.", gateway.accepted.get());
    count(
        "stylite_gateway_connections_rejected",
        "Connections refused because there were too many.",
        gateway.rejected.get(),
    );
    count("stylite_gateway_commands", "Commands received.", gateway.commands.get());
    count(
        "stylite_gateway_operations",
        "Commands handed to the group as operations.",
        gateway.submitted.get(),
    );
    count(
        "stylite_gateway_unanswered",
        "Commands answered with an error because the group did not answer in time.",
        gateway.unanswered.get(),
    );
    count(
        "stylite_gateway_protocol_errors",
        "Connections closed because their bytes were no requests.",
        gateway.protocol_errors.get(),
    );
    count("stylite_gateway_received_bytes", "Bytes received.", gateway.bytes_in.get());
    count("stylite_gateway_sent_bytes", "Bytes sent.", gateway.bytes_out.get());
    let counters = &client.counters;
    count("stylite_client_frames", "Request frames sent.", counters.frames);
    count("stylite_client_frames_resent", "Request frames sent again.", counters.resent);
    count(
        "stylite_client_fallbacks",
        "Frames sent again because their answer was not complete in time.",
        counters.fallbacks,
    );
    count("stylite_client_completed", "Operations with a result.", counters.completed);
    count("stylite_client_failed", "Operations without a result.", counters.failed);
    count("stylite_client_sessions_lost", "Sessions lost.", counters.sessions_lost);
    out.counters(
        "stylite_client_wrong_replies",
        "Replies of a replica that contradict what a quorum accepts: a suspicion.",
        per_replica(&client.wrong_replies),
    );
    out.counters(
        "stylite_client_missed_replies",
        "Answers asked for again because a replica did not do its part: it may be slow.",
        per_replica(&client.missed_replies),
    );
    out.gauge("stylite_gateway_connections", "Connections now.", gateway.connected.get());
    out.gauge("stylite_client_session_open", "1 while the session is open.", client.open.into());
    out.gauge("stylite_client_reachable", "Replicas reachable now.", client.reachable as u64);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_prometheus_reads() {
        let mut metrics = Metrics::default();
        metrics.counter("a", "What a is.", 7);
        metrics.gauge("b", "What b is.", u64::MAX);
        metrics.counters("c", "What c is.", per_replica(&[3, 4]));
        metrics.gauges("d", "What d is.", std::iter::empty());
        let lines = "# HELP a What a is.\n# TYPE a counter\na_total 7\n\
            # HELP b What b is.\n# TYPE b gauge\nb 9223372036854775807\n\
            # HELP c What c is.\n# TYPE c counter\nc_total{replica=\"0\"} 3\n\
            c_total{replica=\"1\"} 4\n\
            # HELP d What d is.\n# TYPE d gauge\n# EOF\n";
        assert_eq!(metrics.text(), lines);
    }

    #[test]
    fn a_replica_names_whom_it_has_proofs_against() {
        let mut report = crate::health::tests::report(1);
        report.evidence = vec![rt::EvidenceRow {
            accused: 2,
            kind: "wrong-checkpoint".to_owned(),
            proof: String::new(),
        }];
        report.disk.durability = "sync".to_owned();
        let text = of_replica(&[report.clone()]).text();
        for line in [
            "stylite_evidence{replica=\"2\",kind=\"wrong-checkpoint\"} 1\n",
            "stylite_durability{mode=\"sync\"} 1\n",
            "stylite_ready 1\n",
            "stylite_executed_total 100\n",
            "stylite_misbehaviour_total{replica=\"3\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        let names: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len(), "no name is taken twice");
    }

    #[test]
    fn partitions_are_told_apart_by_a_label() {
        let (one, mut other) = (crate::health::tests::report(1), crate::health::tests::report(1));
        other.executed = 7;
        let text = of_replica(&[one, other]).text();
        for line in [
            "stylite_executed_total{partition=\"0\"} 100\n",
            "stylite_executed_total{partition=\"1\"} 7\n",
            "stylite_misbehaviour_total{partition=\"1\",replica=\"3\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert_eq!(text.matches("# TYPE stylite_executed ").count(), 1, "{text}");
        assert_eq!(text.matches("\nstylite_memory_rss_bytes 0\n").count(), 1, "{text}");
    }

    #[test]
    fn a_gateway_names_the_replicas_that_lie() {
        let client = ClientStats { wrong_replies: vec![0, 5], ..ClientStats::default() };
        let text = of_gateway(&GatewayStats::default(), &client).text();
        assert!(text.contains("stylite_client_wrong_replies_total{replica=\"1\"} 5\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
