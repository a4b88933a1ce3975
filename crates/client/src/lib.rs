//! The client of a Stylite group: asynchronous, blocking, and in batches.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use base::ClientId;
//! use client::{Client, ClientOptions};
//!
//! let group = genesis::Group::load("group.toml".as_ref())?;
//! let secret = group.load_secret(auth::Peer::Client(ClientId(0)))?;
//! let client = Client::connect(ClientOptions::new(group, ClientId(0), secret)).await?;
//! let result = client.call(0, b"operation").await?;
//! client.close().await;
//! # let _ = result; Ok(()) }
//! ```
//!
//! | need | take |
//! |---|---|
//! | a result per operation | [`Client::call`] |
//! | no asynchronous runtime | [`blocking::Client`] |
//! | very many operations | [`Client::pipe`], [`Client::submitter`] |
//!
//! What it is: the machine around [`proto::client::ClientCore`], which decides everything that is
//! decided: links, wake-ups, clocks, channels. Everything runs in one task on a tokio runtime of
//! either flavour. It may depend on `base`, `proto`, `auth` and `genesis`.
//!
//! Exactly-once: an operation whose call ended with an error may or may not have been executed,
//! unless [`CallError::is_unsent`] says so. It is never executed twice.

#![forbid(unsafe_code)]

pub mod blocking;
mod clock;
mod completion;
mod driver;
mod error;
mod handle;
mod inbox;
mod link;
mod memory;
mod options;
mod outputs;
mod parts;
mod questions;
mod socket;

pub use base::{ClientId, ReplicaId};
pub use completion::{Batch, Completion, CompletionSink, Completions, OpResult, Submitter};
pub use error::{CallError, ConnectError, StatusError};
pub use handle::{Call, Client};
pub use inbox::ClientStats;
pub use options::ClientOptions;
pub use proto::client::ClientCounters;
pub use socket::Stream;
