//! `stylite version` and `stylite completions`.

use anyhow::Result;
use clap::CommandFactory;
use serde_json::json;

use super::{print, print_json};
use crate::cli::{Cli, CompletionsArgs, Output, VersionArgs};
use crate::exit::Exit;

/// Runs `stylite version`.
///
/// # Errors
/// When standard output fails.
pub fn run(args: &VersionArgs) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    match args.output {
        Output::Table => print(&format!("stylite {version}\n"))?,
        Output::Json => print_json(&json!({
            "name": "stylite",
            "version": version,
            "link_version": auth::hello::LINK_VERSION,
            "peer_packet_version": base::packet::PEER_PACKET_VERSION,
            "services": svc::NAMES,
            "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        }))?,
    }
    Ok(Exit::Ok)
}

/// Runs `stylite completions`.
///
/// # Errors
/// When standard output fails.
pub fn completions(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "stylite", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
