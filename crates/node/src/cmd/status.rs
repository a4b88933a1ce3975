//! `stylite status`: one row per replica, and a verdict.

use anyhow::Result;
use comfy_table::{Table, presets};
use genesis::Address;
use genesis::switches::Choice;
use rt::{ReplicaReport, ReplicaState};
use serde_json::{Map, Value, json};

use super::{client_id, load, print, print_json, runtime};
use crate::accusations::{Accusation, Standing, accusations};
use crate::cli::{Output, StatusArgs};
use crate::exit::Exit;
use crate::health::{Health, Verdict, highest_executed, judge};
use crate::probe::{Answer, Prober};
use crate::values::{bytes, count};

/// Digits of a digest in the table.
const DIGEST_DIGITS: usize = 12;

/// Runs the command.
///
/// # Errors
/// When the configuration or the client's key is not as it should be.
pub fn run(args: &StatusArgs) -> Result<Exit> {
    let group = load(&args.config)?;
    let id = client_id(&group, args.client)?;
    let prober = Prober::new(&group, id, args.timeout)?;
    let answers = runtime()?.block_on(prober.all());
    let verdict = judge(&group, &answers);
    match args.output {
        Output::Table => print(&table(&prober, &answers, &verdict))?,
        Output::Json => print_json(&object(&prober, &answers, &verdict))?,
    }
    Ok(verdict.health.exit())
}

fn table(prober: &Prober, answers: &[Answer], verdict: &Verdict) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "REPLICA",
        "STATE",
        "VIEW",
        "LEADER",
        "EXECUTED",
        "STABLE",
        "LAG",
        "DIGEST",
        "CLIENTS",
        "PEERS",
        "DURABILITY",
        "DISK",
    ]);
    let highest = highest_executed(answers);
    for (id, answer) in answers.iter().enumerate() {
        match answer {
            Ok(report) => table.add_row(row(report, highest)),
            Err(_) => table.add_row(
                [id.to_string(), "unreachable".to_owned()]
                    .into_iter()
                    .chain((0..10).map(|_| "-".to_owned())),
            ),
        };
    }
    let quorums = prober.group().quorums();
    let rest = match verdict.health {
        Health::Healthy => format!("{} of them may be faulty", quorums.f()),
        _ => format!("{} are needed", quorums.quorum()),
    };
    let mut out = format!(
        "{}\n\n{}: {} of {} replicas work, {rest}; links over {}\n",
        table.trim_fmt(),
        verdict.health.word(),
        verdict.working,
        quorums.n(),
        prober.group().transport().word(),
    );
    for reason in &verdict.reasons {
        out.push_str(&format!("  {reason}\n"));
    }
    let switched: Vec<String> =
        prober.group().settings().switched().iter().map(Choice::to_string).collect();
    if !switched.is_empty() {
        out.push_str(&format!("switches: {}\n", switched.join(", ")));
    }
    let said = accusations(prober.group(), answers);
    if !said.is_empty() {
        out.push('\n');
    }
    for one in said {
        out.push_str(&format!("{}\n", against(&one)));
    }
    out
}

/// An accusation in words.
fn against(one: &Accusation) -> String {
    let Accusation { accused, kind, .. } = one;
    let times = count(one.count, "time");
    let ids: Vec<String> = one.reporters.iter().map(u16::to_string).collect();
    let who = format!("{} {}", if ids.len() == 1 { "replica" } else { "replicas" }, ids.join(", "));
    match one.standing {
        Standing::Proved => {
            format!("proved: replica {accused} is faulty: {kind} (proof shown by {who})")
        }
        Standing::Reported => {
            format!("reported: replica {accused}: {kind}, {times}, by {who}")
        }
        Standing::Suspected => {
            format!("suspected: replica {accused}: {kind}, {times}, by {who} alone")
        }
    }
}

fn row(report: &ReplicaReport, highest: u64) -> Vec<String> {
    let checkpoint = &report.checkpoint;
    let digest = match checkpoint.last_digest.get(..DIGEST_DIGITS) {
        Some(digits) if checkpoint.last > 0 => format!("{digits}@{}", checkpoint.last),
        _ => "-".to_owned(),
    };
    let (clients, peers) = connections(report);
    vec![
        report.id.to_string(),
        state(report.state).to_owned(),
        view(report),
        leaders(report),
        report.executed.to_string(),
        checkpoint.stable.to_string(),
        highest.saturating_sub(report.executed).to_string(),
        digest,
        clients.to_string(),
        peers.to_string(),
        report.disk.durability.clone(),
        bytes(report.disk.log_bytes.saturating_add(report.disk.checkpoint_bytes)),
    ]
}

/// The view that it is in, and the one that it asks for instead.
fn view(report: &ReplicaReport) -> String {
    match report.group.asks_for {
        Some(wanted) => format!("{}>{wanted}", report.view),
        None => report.view.to_string(),
    }
}

/// Who leads: a replica, or those that take turns.
fn leaders(report: &ReplicaReport) -> String {
    match report.group.leaders.as_slice() {
        [] => report.leader.to_string(),
        several => several.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
    }
}

/// Links of clients and to peers, over all pillars.
fn connections(report: &ReplicaReport) -> (u64, u64) {
    let rows = report.pillars.iter();
    rows.fold((0, 0), |(clients, peers), row| (clients + row.clients, peers + row.peers_up))
}

fn state(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Running => "running",
        ReplicaState::Isolated => "isolated",
        ReplicaState::Draining => "draining",
        ReplicaState::LeftBehind => "left behind",
        ReplicaState::Diverged => "diverged",
        ReplicaState::Recovering => "recovering",
        ReplicaState::Fetching => "fetching",
        ReplicaState::ChangingView => "changing view",
        ReplicaState::TooManyForgetful => "forgotten",
    }
}

fn object(prober: &Prober, answers: &[Answer], verdict: &Verdict) -> Value {
    let group = prober.group();
    let highest = highest_executed(answers);
    let replicas = group.replicas().iter().zip(answers);
    let rows: Vec<Value> = replicas
        .map(|(entry, answer)| {
            let mut row = json!({
                "id": entry.id.0,
                "addresses": entry.addresses.iter().map(Address::to_string).collect::<Vec<_>>(),
                "transport": entry.transport().word(),
                "reachable": answer.is_ok(),
            });
            match answer {
                Err(error) => row["error"] = json!(error),
                Ok(report) => fill(&mut row, report, highest),
            }
            row
        })
        .collect();
    let switches = group.settings().chosen();
    let switches: Map<String, Value> =
        switches.iter().map(|Choice(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "group": group.name(),
        "switches": switches,
        "health": verdict.health,
        "reasons": verdict.reasons,
        "replicas_working": verdict.working,
        "replicas_needed": group.quorums().quorum(),
        "faults": group.quorums().f(),
        "accusations": accusations(group, answers),
        "replicas": rows,
    })
}

fn fill(row: &mut Value, report: &ReplicaReport, highest: u64) {
    let (clients, peers) = connections(report);
    row["state"] = json!(report.state);
    row["view"] = json!(report.view);
    row["leader"] = json!(report.leader);
    row["leaders"] = json!(report.group.leaders);
    row["last_executed"] = json!(report.executed);
    row["stable_checkpoint"] = json!(report.checkpoint.stable);
    row["lag"] = json!(highest.saturating_sub(report.executed));
    row["digest"] = json!(report.checkpoint.last_digest);
    row["digest_at"] = json!(report.checkpoint.last);
    row["connections"] = json!({ "clients": clients, "peers": peers });
    row["asks_for"] = json!(report.group.asks_for);
    row["recovering"] = json!(report.group.recovering);
    row["fetching"] = json!(report.group.fetching);
    row["durability"] = json!(report.disk.durability);
    row["disk"] = json!(report.disk);
    let suspicions = report.suspicions.iter();
    row["suspicions"] = suspicions
        .map(|row| {
            let (kind, count, since) = (&row.kind, row.count, row.since);
            json!({ "replica": row.accused, "kind": kind, "count": count, "since": since })
        })
        .collect();
    row["misbehaviour"] = json!(report.misbehaviour);
    // The proofs themselves are in the report below.
    let evidence = report.evidence.iter();
    row["evidence"] =
        evidence.map(|row| json!({ "replica": row.accused, "kind": row.kind })).collect();
    row["report"] = json!(report);
}
