//! `stylite config`: checks a configuration, and shows which settings hold.

use std::path::Path;

use anyhow::{Context, Result, bail};
use auth::Peer;
use comfy_table::{Table, presets};
use genesis::Group;
use serde_json::json;

use super::{load, print, print_json};
use crate::cli::{CheckArgs, Output, ShowArgs};
use crate::exit::{Exit, Misuse};
use crate::settings::{self, SETTINGS_FILE};
use crate::start;
use crate::values::count;

/// What names the configuration where no flag does.
const CONFIG_VARIABLE: &str = "STYLITE_CONFIG";

/// Runs `stylite config check`.
///
/// # Errors
/// When anything is not as it should be; the first such thing is named.
pub fn check(args: &CheckArgs) -> Result<Exit> {
    if let (Some(file), Some(same)) = (&args.config, &args.same)
        && file != same
        && std::env::var_os(CONFIG_VARIABLE).is_none_or(|variable| variable != file.as_os_str())
    {
        return Misuse::err(format!(
            "{} and --config {}: one configuration is checked at a time; name one of them",
            file.display(),
            same.display(),
        ));
    }
    let config = args.same.as_ref().or(args.config.as_ref());
    let group = load(config.context("no configuration is named")?)?;
    let replicas = group.replicas().iter().map(|entry| Peer::Replica(entry.id));
    let members: Vec<Peer> =
        replicas.chain(group.clients().iter().map(|entry| Peer::Client(entry.id))).collect();
    let mut keys = 0;
    for member in &members {
        // Keys of members who run elsewhere need not be here, and should not be.
        if group.key_path(*member).exists() {
            group.load_secret(*member)?;
            keys += 1;
        }
    }
    if svc::by_name(group.service()).is_none() {
        let known = svc::NAMES.join(" and ");
        let (path, name) = (group.path().display(), group.service());
        bail!("{path}: service = {name}: this program knows {known}");
    }
    start::routing(&group)?;
    let settings = group.path().with_file_name(SETTINGS_FILE);
    let mut beside = String::new();
    if settings.exists() {
        settings::File::read(&settings)?;
        beside = format!(" {} is as it should be.", settings.display());
    }
    let (quorums, path) = (group.quorums(), group.path().display());
    print(&format!(
        "{path} is as it should be: group \"{}\" ({}), {}, of which {} may be faulty, \
         {}, service {}. {keys} of {} keys are here.{beside}\n",
        group.name(),
        &id_of(&group)[..16],
        count(quorums.n().into(), "replica"),
        quorums.f(),
        count(group.pillars().into(), "pillar"),
        group.service(),
        members.len(),
    ))?;
    Ok(Exit::Ok)
}

/// Runs `stylite config show`.
///
/// # Errors
/// When the settings file or the configuration is not as it should be.
pub fn show(args: &ShowArgs, settings: Option<&Path>) -> Result<Exit> {
    let (mut config, mut command) = (args.config.as_deref(), &args.command[..]);
    if let (None, Some((first, rest))) = (config, command.split_first())
        && !settings::is_command(first)
        && Path::new(first).exists()
    {
        (config, command) = (Some(Path::new(first)), rest);
    }
    let effective = settings::effective(command, settings, config)?;
    let group = config.map(load).transpose()?;
    match args.output {
        Output::Json => {
            let group = group.as_ref().map(group_json);
            print_json(&json!({ "group": group, "settings": effective }))?;
        }
        Output::Table => {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["COMMAND", "SETTING", "VALUE", "FROM"]);
            for one in effective {
                let value = one.value.unwrap_or_else(|| "-".to_owned());
                table.add_row([one.command, one.name, value, one.source]);
            }
            if let Some(group) = &group {
                let path = group.path().display().to_string();
                for (name, value) in group_rows(group) {
                    table.add_row(["(group)".to_owned(), name.to_owned(), value, path.clone()]);
                }
            }
            print(&format!("{}\n", table.trim_fmt()))?;
        }
    }
    Ok(Exit::Ok)
}

/// What all members of the group have agreed on, in words.
fn group_rows(group: &Group) -> Vec<(&'static str, String)> {
    let (settings, batching) = (group.settings(), group.settings().batching);
    vec![
        ("name", group.name().to_owned()),
        ("id", id_of(group)),
        ("service", group.service().to_owned()),
        ("replicas", group.quorums().n().to_string()),
        ("faults", group.quorums().f().to_string()),
        ("pillars", group.pillars().to_string()),
        ("partitions", group.partitions().to_string()),
        ("clients", group.clients().len().to_string()),
        ("checkpoint_interval", settings.checkpoint_interval.to_string()),
        ("window", settings.window.to_string()),
        ("clock_skew_ms", (settings.clock_skew_max.0 / 1_000_000).to_string()),
        ("view_timeout_ms", (settings.view_timeout.0 / 1_000_000).to_string()),
        ("transport", group.transport().word().to_owned()),
        ("leaders", settings.leaders.word().to_owned()),
        ("commits", settings.commits.word().to_owned()),
        ("replies", settings.replies.word().to_owned()),
        ("repliers", settings.repliers.word().to_owned()),
        ("bodies", settings.bodies.word().to_owned()),
        ("tentative", if settings.tentative { "on" } else { "off" }.to_owned()),
        ("reads", settings.reads.word().to_owned()),
        ("idle", settings.idle.word().to_owned()),
        ("drills", settings.drills.to_string()),
        (
            "initial_state",
            group.initial_state().map_or_else(|| "-".to_owned(), |root| hex(&root.0)),
        ),
        ("batching.frames_max", batching.frames_max.to_string()),
        ("batching.bytes_max", batching.bytes_max.to_string()),
        ("batching.delay_us", (batching.delay.0 / 1_000).to_string()),
        ("batching.in_flight_max", batching.in_flight_max.to_string()),
        ("batching.unbatched", batching.unbatched.to_string()),
    ]
}

fn group_json(group: &Group) -> serde_json::Value {
    let rows = group_rows(group).into_iter();
    let map = rows.map(|(name, value)| (name.to_owned(), serde_json::Value::String(value)));
    json!({ "path": group.path(), "values": map.collect::<serde_json::Map<_, _>>() })
}

fn id_of(group: &Group) -> String {
    hex(&group.id().0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
