//! `stylite init`: founds a group.

use anyhow::Result;
use genesis::{InitOptions, Settings};

use super::print;
use crate::cli::InitArgs;
use crate::exit::Exit;
use crate::mark;

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
        hosts: args.host.clone(),
        port: args.port,
        settings: settings(args.checkpoint_interval),
    };
    let group = genesis::init(&args.dir, &options)?;
    mark::leave(&group)?;
    let (quorums, dir) = (group.quorums(), args.dir.display());
    print(&format!(
        "Founded the group \"{}\" in {dir}: {} replicas, of which {} may be faulty, {} pillars, \
         {} clients.\n\
         Keys are in {dir}/keys; each machine needs those of its own members only.\n\
         Next, for each replica:  stylite replica --config {dir} --id 0\n\
         then:                    stylite status --config {dir}\n",
        group.name(),
        quorums.n(),
        quorums.f(),
        group.pillars(),
        group.clients().len(),
    ))?;
    Ok(Exit::Ok)
}

/// The defaults with another interval between checkpoints; the window keeps its proportion.
pub fn settings(checkpoint_interval: u64) -> Settings {
    let window = checkpoint_interval.saturating_mul(4);
    Settings { checkpoint_interval, window, ..Settings::default() }
}
