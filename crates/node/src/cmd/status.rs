//! `stylite status`: one row per replica, and a verdict.

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use genesis::switches::Choice;
use genesis::{Address, Group, ReplicaEntry};
use rt::{ReplicaReport, ReplicaState};
use serde_json::{Map, Value, json};

use super::{client_id, load, print, print_json, runtime};
use crate::accusations::{Accusation, Standing, accusations};
use crate::cli::{Output, StatusArgs};
use crate::exit::Exit;
use crate::health::{Health, Verdict, judge, reached, together};
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
    let probers = Prober::each(&group, id, args.timeout)?;
    let parts = runtime()?.block_on(async {
        let mut parts = Vec::with_capacity(probers.len());
        let asked: Vec<_> =
            probers.into_iter().map(|one| tokio::spawn(async move { ask(one).await })).collect();
        for part in asked {
            parts.push(part.await.context("asking failed")?);
        }
        anyhow::Ok(parts)
    })?;
    let verdicts: Vec<Verdict> = parts.iter().map(|part| part.verdict.clone()).collect();
    let verdict = together(&verdicts);
    match args.output {
        Output::Table => print(&table(&group, &parts, &verdict))?,
        Output::Json => print_json(&object(&group, &parts, &verdict))?,
    }
    Ok(verdict.health.exit())
}

/// One of the groups that agreement takes place in, and what its replicas say.
struct Part {
    group: Group,
    answers: Vec<Answer>,
    verdict: Verdict,
}

async fn ask(prober: Prober) -> Part {
    let (answers, group) = (prober.all().await, prober.group().clone());
    let verdict = judge(&group, &answers);
    Part { group, answers, verdict }
}

const HEAD: [&str; 12] = [
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
];

fn table(group: &Group, parts: &[Part], verdict: &Verdict) -> String {
    let mut table = Table::new();
    // Only who has partitions sees the word.
    let several = parts.len() > 1;
    let with = |number: &dyn ToString, mut cells: Vec<String>| {
        if several {
            cells.insert(1, number.to_string());
        }
        cells
    };
    let head = HEAD.iter().map(ToString::to_string).collect();
    table.load_style(presets::NOTHING).set_header(with(&"PARTITION", head));
    let quorums = group.quorums();
    for id in 0..usize::from(quorums.n()) {
        for (number, part) in parts.iter().enumerate() {
            let cells = match &part.answers[id] {
                Ok(report) => row(report, reached(&part.group, &part.answers)),
                Err(_) => [id.to_string(), "unreachable".to_owned()]
                    .into_iter()
                    .chain((0..10).map(|_| "-".to_owned()))
                    .collect(),
            };
            table.add_row(with(&number, cells));
        }
    }
    let rest = match verdict.health {
        Health::Healthy => format!("{} of them may be faulty", quorums.f()),
        _ => format!("{} are needed", quorums.quorum()),
    };
    let mut out = format!(
        "{}\n\n{}: {} of {} replicas work{}, {rest}; links over {}\n",
        table.trim_fmt(),
        verdict.health.word(),
        verdict.working,
        quorums.n(),
        if several { format!(" in all {} partitions", parts.len()) } else { String::new() },
        group.transport().word(),
    );
    for reason in &verdict.reasons {
        out.push_str(&format!("  {reason}\n"));
    }
    let switched: Vec<String> = group.settings().switched().iter().map(Choice::to_string).collect();
    if !switched.is_empty() {
        out.push_str(&format!("switches: {}\n", switched.join(", ")));
    }
    for (number, part) in parts.iter().enumerate() {
        let said = accusations(&part.group, &part.answers);
        if !said.is_empty() {
            let place = if several { format!("in partition {number}:\n") } else { String::new() };
            out.push_str(&format!("\n{place}"));
        }
        for one in said {
            out.push_str(&format!("{}\n", against(&one)));
        }
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

fn row(report: &ReplicaReport, reached: u64) -> Vec<String> {
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
        reached.saturating_sub(report.executed).to_string(),
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

/// Everything about the group. Of several partitions `replicas` says in short how each replica is
/// in all of them together, and `partitions` has the rest.
fn object(group: &Group, parts: &[Part], verdict: &Verdict) -> Value {
    let switches = group.settings().chosen();
    let switches: Map<String, Value> =
        switches.iter().map(|Choice(name, value)| ((*name).to_owned(), json!(value))).collect();
    let mut out = json!({
        "group": group.name(),
        "switches": switches,
        "health": verdict.health,
        "reasons": verdict.reasons,
        "replicas_working": verdict.working,
        "replicas_needed": group.quorums().quorum(),
        "faults": group.quorums().f(),
    });
    if let [part] = parts {
        out["accusations"] = json!(accusations(group, &part.answers));
        out["replicas"] = rows(part);
        return out;
    }
    let part = |(number, part): (usize, &Part)| {
        json!({
            "partition": number,
            "health": part.verdict.health,
            "reasons": part.verdict.reasons,
            "replicas_working": part.verdict.working,
            "accusations": accusations(&part.group, &part.answers),
            "replicas": rows(part),
        })
    };
    out["partitions"] = parts.iter().enumerate().map(part).collect();
    let whole = |(at, entry): (usize, &ReplicaEntry)| {
        let answers: Vec<&Answer> = parts.iter().map(|part| &part.answers[at]).collect();
        let mut row = known(entry, answers.iter().all(|answer| answer.is_ok()));
        let states = answers.iter().map(|answer| answer.as_ref().ok().map(|report| report.state));
        // Running when it is in all partitions; otherwise what it is in the first of the others,
        // which is nothing that is known where it does not answer.
        let running = Some(ReplicaState::Running);
        row["state"] = json!(states.into_iter().find(|state| *state != running).unwrap_or(running));
        row["works"] = json!(verdict.works[at]);
        row
    };
    out["replicas"] = group.replicas().iter().enumerate().map(whole).collect();
    out
}

/// What is known of a replica without asking it, and whether it answered.
fn known(entry: &ReplicaEntry, reachable: bool) -> Value {
    json!({
        "id": entry.id.0,
        "addresses": entry.addresses.iter().map(Address::to_string).collect::<Vec<_>>(),
        "transport": entry.transport().word(),
        "reachable": reachable,
    })
}

/// The replicas in one of the groups that agreement takes place in.
fn rows(part: &Part) -> Value {
    let reached = reached(&part.group, &part.answers);
    let replicas = part.group.replicas().iter().zip(&part.answers);
    replicas
        .map(|(entry, answer)| {
            let mut row = known(entry, answer.is_ok());
            match answer {
                Err(error) => row["error"] = json!(error),
                Ok(report) => fill(&mut row, report, reached),
            }
            row
        })
        .collect()
}

fn fill(row: &mut Value, report: &ReplicaReport, reached: u64) {
    let (clients, peers) = connections(report);
    row["state"] = json!(report.state);
    row["view"] = json!(report.view);
    row["leader"] = json!(report.leader);
    row["leaders"] = json!(report.group.leaders);
    row["last_executed"] = json!(report.executed);
    row["stable_checkpoint"] = json!(report.checkpoint.stable);
    row["lag"] = json!(reached.saturating_sub(report.executed));
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
