//! `stylite init`: founds a group.

use anyhow::Result;
use base::Span;
use genesis::{InitOptions, Settings};

use super::gateway::Protocol;
use super::snapshot::Bar;
use super::{print, warn_of_faults};
use crate::cli::{Agreement, InitArgs};
use crate::exit::Exit;
use crate::start::partitionable;
use crate::values::{count, flagged};
use crate::{mark, snapshot};

/// Runs the command.
///
/// # Errors
/// When there is a group already, the options are not those of a legal group, or something
/// cannot be written.
pub fn run(args: &InitArgs) -> Result<Exit> {
    let options = InitOptions {
        name: args.name.clone(),
        service: args.service.clone(),
        replicas: args.replicas,
        faults: args.faults,
        pillars: args.pillars,
        clients: args.clients,
        hosts: args.place.host.clone(),
        port: args.place.port,
        transport: args.place.transport.into(),
        sockets: args.place.socket_dir.clone(),
        settings: settings(args),
        initial_state: None,
    };
    partitionable(&args.service, args.ways.partitions)?;
    if args.agreement == Agreement::Pbft {
        warn_of_faults(args.replicas, args.faults);
    }
    if args.drills {
        eprintln!("note: replicas of this group misbehave when they are told to (--drills)");
    }
    let group = match &args.from_snapshot {
        None => genesis::init(&args.dir, &options).map_err(flagged)?,
        Some(file) => {
            let mut bar = Bar::new("checking the snapshot");
            snapshot::found_from(&args.dir, options, file, &mut |done, all| bar.at(done, all))?
        }
    };
    mark::leave(&group)?;
    let (quorums, dir) = (group.quorums(), args.dir.display());
    print(&format!(
        "Founded the group \"{}\" in {dir}: {}, of which {} may be faulty, {}, {}.\n\
         Keys are in {dir}/keys; each machine needs those of its own members only.\n\
         Next, for each replica:  stylite replica --config {dir} --id 0{}{}\n\
         then:                    stylite status --config {dir}\n{}",
        group.name(),
        count(quorums.n().into(), "replica"),
        quorums.f(),
        match group.partitions() {
            1 => count(group.pillars().into(), "pillar"),
            several => format!("{several} partitions"),
        },
        count(group.clients().len() as u64, "client"),
        if quorums.n() > 1 { format!("   (0 to {})", quorums.n() - 1) } else { String::new() },
        match args.agreement {
            Agreement::Pbft => "",
            Agreement::None => " --durability memory",
        },
        Protocol::of(group.service()).map_or_else(String::new, |protocol| {
            let clients = format!("for {} clients:", protocol.name());
            format!("{clients:<25}stylite gateway {} --config {dir}\n", protocol.word())
        }),
    ))?;
    Ok(Exit::Ok)
}

/// The defaults with what was asked for. The window follows the interval between checkpoints.
fn settings(args: &InitArgs) -> Settings {
    Settings {
        agreement: args.agreement.into(),
        checkpoint_interval: args.checkpoint_interval,
        view_timeout: Span::millis(u64::try_from(args.view_timeout.as_millis()).unwrap_or(0)),
        drills: args.drills,
        ..args.ways.settings()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(flags: &[&str]) -> InitArgs {
        let line = [&["stylite", "init", "g", "--replicas", "4"], flags].concat();
        match Cli::try_parse_from(line).expect("legal flags").command {
            Command::Init(args) => args,
            other => panic!("not init: {other:?}"),
        }
    }

    #[test]
    fn without_a_flag_the_settings_are_the_defaults() {
        assert_eq!(settings(&args(&[])), Settings::default());
        assert_eq!(args(&[]).from_snapshot, None);
    }

    #[test]
    fn flags_are_obeyed() {
        let flags = ["--drills", "--view-timeout", "250ms", "--from-snapshot", "old"];
        let made = settings(&args(&flags));
        assert_eq!((made.drills, made.view_timeout), (true, Span::millis(250)));
        assert_eq!(args(&flags).from_snapshot, Some(PathBuf::from("old")));
    }
}
