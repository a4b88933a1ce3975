//! The command line of `stylite snapshot`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::values::some_address;

/// What to do with a snapshot.
#[derive(Subcommand, Debug)]
pub enum SnapshotCommand {
    /// Save the state of a group as of a certified checkpoint to a file.
    Save(SaveArgs),
    /// Check a snapshot: its certificate, and every byte of it against that.
    Verify(VerifyArgs),
    /// Put a snapshot of this group into the state directory of one of its stopped replicas.
    Restore(RestoreArgs),
}

/// `stylite snapshot save`.
#[derive(Args, Debug)]
#[command(
    after_help = "The snapshot is verified before it is there: the certificate, signed by a \
    quorum of the group, and every object against it. From a stopped replica it is the newest \
    checkpoint on its disk; from a running one (on this machine), a checkpoint that it writes \
    now.\n\nExamples:\n  stylite snapshot save --config mygroup --out mygroup.snapshot\n  \
    stylite snapshot save --config mygroup --replica 2 --out mygroup.snapshot\n  \
    stylite snapshot save --config mygroup --running 127.0.0.1:8400 --out mygroup.snapshot"
)]
pub struct SaveArgs {
    /// The group's configuration, or the directory it is in.
    #[arg(long, value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: PathBuf,
    /// The file to write; it must not exist.
    #[arg(long, value_name = "FILE", env = "STYLITE_OUT")]
    pub out: PathBuf,
    /// Whose state. [default: of the replicas whose state is here, the one with the newest
    /// checkpoint]
    #[arg(long, value_name = "I", env = "STYLITE_REPLICA")]
    pub replica: Option<u16>,
    /// Where that replica keeps its state. [default: state/replica-I beside the configuration]
    #[arg(long, value_name = "DIR", env = "STYLITE_STATE_DIR", requires = "replica")]
    pub state_dir: Option<PathBuf>,
    /// The metrics address of a replica that runs on this machine: has it write a checkpoint
    /// first.
    #[arg(long, value_name = "ADDR", env = "STYLITE_RUNNING", value_parser = some_address,
        conflicts_with_all = ["replica", "state_dir"])]
    pub running: Option<std::net::SocketAddr>,
}

/// `stylite snapshot verify`.
#[derive(Args, Debug)]
#[command(
    after_help = "A snapshot has its head twice. When one of them is damaged and everything else \
    is as it should be, the snapshot can be used, and that is said; the command fails all the \
    same, with code 1.\n\nExamples:\n  stylite snapshot verify mygroup.snapshot --config mygroup"
)]
pub struct VerifyArgs {
    /// The snapshot.
    pub file: PathBuf,
    /// The configuration of the group that it was saved from, or the directory it is in.
    #[arg(long, value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: PathBuf,
}

/// `stylite snapshot restore`.
#[derive(Args, Debug)]
#[command(after_help = "For one replica whose disk was lost: the replica then has less to fetch \
    from the others. It has forgotten its votes all the same, so it starts by recovering. To go \
    on from a snapshot with a new group, see `stylite init --from-snapshot`.\n\nExamples:\n  \
    stylite snapshot restore mygroup.snapshot --config mygroup --replica 2")]
pub struct RestoreArgs {
    /// The snapshot.
    pub file: PathBuf,
    /// The group's configuration, or the directory it is in.
    #[arg(long, value_name = "FILE", env = "STYLITE_CONFIG")]
    pub config: PathBuf,
    /// Which replica.
    #[arg(long, value_name = "I", env = "STYLITE_REPLICA")]
    pub replica: u16,
    /// Where it keeps its state. [default: state/replica-I beside the configuration]
    #[arg(long, value_name = "DIR", env = "STYLITE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}
