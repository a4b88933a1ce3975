//! What a replica's and a gateway's metrics ports say.
//!
//! | page | says |
//! |---|---|
//! | `/livez` | 200 while the process works |
//! | `/readyz` | 200 while it serves, 503 with the reason otherwise |
//! | `/metrics` | numbers for Prometheus |
//! | `/status` | the report, as JSON |
//! | `POST /checkpoint` | a replica writes a checkpoint to disk; where, as JSON |
//! | `POST /misbehave`, `POST /behave` | in a drill, whether a replica does as it was told |
//!
//! Not here: HTTP (`http`), and where the numbers come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::Client;
use node::gateway::GatewayStats;
use rt::{Replica, ReplicaReport};
use serde_json::json;

use crate::health::unready;
use crate::metrics::{of_gateway, of_replica};
use node::http::{Answer, Ask, Site};

/// How long a checkpoint may take to become stable and to be written.
const SAVE_PATIENCE: Duration = Duration::from_secs(300);

/// A replica's pages.
#[derive(Debug)]
pub struct ReplicaSite {
    /// What it is in each partition of its group.
    parts: Vec<Arc<Replica>>,
    saving: AtomicBool,
}

impl ReplicaSite {
    /// The pages of a replica, which is these in the partitions of its group.
    #[must_use]
    pub fn new(parts: Vec<Arc<Replica>>) -> ReplicaSite {
        ReplicaSite { parts, saving: AtomicBool::new(false) }
    }

    fn reports(&self) -> Vec<ReplicaReport> {
        self.parts.iter().map(|part| part.report()).collect()
    }

    fn ready(&self) -> Answer {
        let several = self.parts.len() > 1;
        let why = self.reports().iter().enumerate().find_map(|(number, report)| {
            let place = if several { format!(" in partition {number}") } else { String::new() };
            unready(report).map(|why| format!("not ready: this replica{place} {why}"))
        });
        why.map_or_else(|| Answer::text(200, "ready"), |why| Answer::text(503, &why))
    }

    /// One report; of several partitions all of them.
    fn status(&self) -> Answer {
        match &self.reports()[..] {
            [report] => Answer::json(200, report),
            several => Answer::json(200, &json!({ "partitions": several })),
        }
    }

    fn misbehave(&self, on: bool) -> Answer {
        // All of them, whatever the first one says.
        let told: Vec<bool> = self.parts.iter().map(|part| part.misbehave(on)).collect();
        if told.contains(&true) {
            Answer::text(200, if on { "misbehaves" } else { "behaves" })
        } else {
            Answer::text(409, "this replica was not told to misbehave")
        }
    }

    /// One at a time: each takes a thread until it is done.
    fn checkpoint(&self) -> Answer {
        let [replica] = &self.parts[..] else { return Answer::text(409, PARTITIONED) };
        if self.saving.swap(true, Ordering::AcqRel) {
            return Answer::text(409, "a checkpoint is being written already");
        }
        let saved = replica.save_checkpoint(SAVE_PATIENCE);
        self.saving.store(false, Ordering::Release);
        match saved {
            Ok(path) => Answer::json(200, &json!({ "path": path })),
            Err(error) => Answer::text(503, &format!("no checkpoint: {error}")),
        }
    }
}

/// Why there is no checkpoint on demand.
const PARTITIONED: &str = "no checkpoint: this group has several partitions, and snapshots of such \
    a group are not supported yet";

impl Site for ReplicaSite {
    fn answer(&self, ask: Ask, path: &str) -> Option<Answer> {
        Some(match (ask, path) {
            (Ask::Get, "/livez") if self.parts.iter().all(|part| part.is_alive()) => {
                Answer::text(200, "alive")
            }
            (Ask::Get, "/livez") => Answer::text(503, "a thread of the replica has ended"),
            (Ask::Get, "/readyz") => self.ready(),
            (Ask::Get, "/metrics") => Answer::metrics(of_replica(&self.reports()).text()),
            (Ask::Get, "/status") => self.status(),
            (Ask::Post, "/checkpoint") => self.checkpoint(),
            (Ask::Post, "/misbehave") => self.misbehave(true),
            (Ask::Post, "/behave") => self.misbehave(false),
            (_, "/livez" | "/readyz" | "/metrics" | "/status")
            | (_, "/checkpoint" | "/misbehave" | "/behave") => Answer::wrong_method(),
            _ => return None,
        })
    }
}

/// A gateway's pages.
#[derive(Debug)]
pub struct GatewaySite {
    /// What the gateway counts.
    pub stats: Arc<GatewayStats>,
    /// Its client of the group.
    pub client: Client,
    /// Replicas that must be reachable.
    pub quorum: usize,
}

impl Site for GatewaySite {
    fn answer(&self, ask: Ask, path: &str) -> Option<Answer> {
        let client = self.client.stats();
        Some(match (ask, path) {
            (Ask::Get, "/livez") => Answer::text(200, "alive"),
            (Ask::Get, "/readyz") if !client.open => {
                Answer::text(503, "not ready: no session with the group")
            }
            (Ask::Get, "/readyz") if client.reachable < self.quorum => {
                let (reachable, quorum) = (client.reachable, self.quorum);
                let why = format!("not ready: {reachable} replicas reachable, {quorum} needed");
                Answer::text(503, &why)
            }
            (Ask::Get, "/readyz") => Answer::text(200, "ready"),
            (Ask::Get, "/metrics") => Answer::metrics(of_gateway(&self.stats, &client).text()),
            (Ask::Get, "/status") => Answer::json(
                200,
                &json!({
                    "session_open": client.open,
                    "reachable": client.reachable,
                    "links": client.links,
                    "wrong_replies": client.wrong_replies,
                    "missed_replies": client.missed_replies,
                    "last_failure": client.last_failure,
                    "connections": self.stats.connected.get(),
                    "commands": self.stats.commands.get(),
                }),
            ),
            (_, "/livez" | "/readyz" | "/metrics" | "/status") => Answer::wrong_method(),
            _ => return None,
        })
    }
}
