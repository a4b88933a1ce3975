//! The replica machine: pillars on threads, connections, rings, the coordinator, the execution
//! stage, and the disk.
//!
//! ```text
//!            thread 0                 thread 1                    (event_loop)
//!  ┌───────────────────────┐  ┌───────────────────────┐
//!  │ poll                  │  │ poll                  │
//!  │  lane 0   lane 2      │  │  lane 1   lane 3      │           (lane_host, intake)
//!  │  own port, own links  │  │  own port, own links  │           (links, conn, peers, clients)
//!  │  own client links     │  │  own client links     │
//!  │  coordinator          │  │                       │           (coordinator_host)
//!  │  execution stage      │  │                       │           (stage_host)
//!  └───────────┬───────────┘  └───────────┬───────────┘
//!              ├──── message rings ────────┤                      (ring, mesh)
//!              └─── records, by group ─────┘
//!                          │ tickets, bells                       (journal)
//!               log writer, checkpoint writer                     (log_writer, saver, leisure)
//! ```
//!
//! A replica's lanes, its coordinator and its stage are mapped onto as many threads as its cores
//! deserve (`mesh`). Each thread has its own poll; the parts share nothing but message rings
//! and the list of clients that are shut out (`bans`), whether they live on one thread or on
//! several. Nobody blocks but in the poll, and nobody spins. Only the threads that write wait
//! for the disk: what depends on a record is held back in memory until the record is where the
//! replica's durability wants it (`journal`).
//!
//! Ports: pillar p of a replica listens on the p-th address that the group's configuration names
//! for it, a TCP port or a UNIX socket (`socket`), over which memory may be shared (`memory`,
//! `hot`). Links: for each pillar one connection per unordered pair of replicas, dialled by the
//! one with the higher id; one per client session. Whoever dials sends an empty packet as soon as
//! the handshake is done (a replica one without messages): it proves that the dialler lives and
//! was not recorded, and only then does the link count. Coordinators and stages of different
//! replicas talk on the links of pillar 0.
//!
//! What it is not: a protocol (`proto`), a state machine (`exec`), a policy for keys (`auth`), a
//! file format (`store`). It is the only place where those meet sockets, threads and clocks.

#![forbid(unsafe_code)]

mod agreement;
mod answers;
mod bans;
mod boot;
mod clients;
mod clock;
mod conn;
mod coordinator_host;
pub mod counters;
mod crew;
mod drill;
mod event_loop;
mod evidence;
mod failure;
mod hot;
mod inlet;
mod intake;
mod journal;
mod lane_host;
mod leisure;
mod links;
mod log_writer;
mod logic;
mod machine;
mod memory;
mod mesh;
#[cfg(all(test, loom))]
mod models;
mod options;
mod peers;
mod pillars;
mod pin;
pub mod report;
mod ring;
mod saver;
mod seats;
mod socket;
mod stage_host;
mod status;
mod strangers;
mod sync;
mod throttle;
mod top;
mod unread;

pub use bans::ClientRow;
pub use drill::{Drill, UnknownDrill};
pub use evidence::{EvidenceRow, SuspicionRow};
pub use machine::Replica;
pub use options::{
    ConnectionLimits, CoreOptions, LogPolicy, OnBegin, Parallelization, ReplicaOptions, StartError,
};
pub use report::{ReplicaReport, ReplicaState};
pub use saver::{CheckpointSaver, SaveError};
pub use socket::{Listener, SocketFile};
pub use store::{Durability, LogOptions, Real, Storage, StoreError, Volatile};
