//! The group's genesis: its configuration file and the key files of its members.
//!
//! What it is: reading, checking and writing `group.toml` and `keys/*.key`. Two types keep raw
//! and checked apart: what stands in the file, and a [`Group`], of which every field and every
//! relation between fields has been checked.
//!
//! What it is not: the configuration of one process (durability, data directory, log level:
//! those are flags of the command), nor the group's later membership, which lives in replicated
//! state. It may depend on `base` and `auth`.
//!
//! Invariants:
//! 1. a [`Group`] that exists is legal: quorums, bounds, keys, certificates, addresses;
//! 2. the [`base::GroupId`] is a digest of everything that members must agree on, of nothing else;
//! 3. nothing is ever overwritten, and a key that others can read is refused;
//! 4. every error names the file, the field, the value and what to do about it.

#![forbid(unsafe_code)]

mod address;
mod check;
mod error;
mod file;
mod group;
mod init;
pub mod key_file;
mod raw;
pub mod settings;
pub mod switches;
mod write;

pub use address::{Address, SOCKET_PATH_BYTES_MAX, Transport};
pub use error::GenesisError;
pub use group::{ClientEntry, GROUP_FILE, Group, ReplicaEntry};
pub use init::{CLIENTS_DEFAULT, InitOptions, LocalGroup, PORT_DEFAULT, init};
pub use raw::distance;
pub use settings::{
    Agreement, Batching, Bodies, Commits, Idle, Leaders, Reads, Repliers, Replies, Settings,
};
