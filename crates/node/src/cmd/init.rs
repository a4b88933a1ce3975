//! `stylite init`: founds a group.

use anyhow::Result;
use genesis::{InitOptions, Settings};

use super::gateway::SERVICE;
use super::{print, warn_of_faults};
use crate::cli::InitArgs;
use crate::exit::Exit;
use crate::mark;
use crate::values::{count, flagged};

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
    warn_of_faults(args.replicas, args.faults);
    let group = genesis::init(&args.dir, &options).map_err(flagged)?;
    mark::leave(&group)?;
    let (quorums, dir) = (group.quorums(), args.dir.display());
    print(&format!(
        "Founded the group \"{}\" in {dir}: {}, of which {} may be faulty, {}, {}.\n\
         Keys are in {dir}/keys; each machine needs those of its own members only.\n\
         Next, for each replica:  stylite replica --config {dir} --id 0{}\n\
         then:                    stylite status --config {dir}\n{}",
        group.name(),
        count(quorums.n().into(), "replica"),
        quorums.f(),
        count(group.pillars().into(), "pillar"),
        count(group.clients().len() as u64, "client"),
        if quorums.n() > 1 { format!("   (0 to {})", quorums.n() - 1) } else { String::new() },
        if group.service() == SERVICE {
            format!("for Redis clients:       stylite gateway redis --config {dir}\n")
        } else {
            String::new()
        },
    ))?;
    Ok(Exit::Ok)
}

/// The defaults with another interval between checkpoints. The window has to be a multiple of
/// it: the largest one that is no larger than the default, but four intervals at least.
fn settings(checkpoint_interval: u64) -> Settings {
    let defaults = Settings::default();
    let intervals = defaults.window.checked_div(checkpoint_interval).unwrap_or(0).max(4);
    let window = checkpoint_interval.saturating_mul(intervals);
    Settings { checkpoint_interval, window, ..defaults }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_flag_the_settings_are_the_defaults() {
        let defaults = Settings::default();
        assert_eq!((defaults.checkpoint_interval, defaults.window), (128, 8192));
        assert_eq!(settings(defaults.checkpoint_interval), defaults);
        assert_eq!(settings(1000).window, 8000);
        assert_eq!(
            settings(genesis::settings::CHECKPOINT_INTERVAL_MAX).window,
            genesis::settings::WINDOW_MAX
        );
    }
}
