//! The replica machine: pillars on threads, connections, rings, and the execution stage.
//!
//! ```text
//!            thread 0                 thread 1                    (event_loop)
//!  ┌───────────────────────┐  ┌───────────────────────┐
//!  │ poll                  │  │ poll                  │
//!  │  lane 0   lane 2      │  │  lane 1   lane 3      │           (lane_host, intake)
//!  │  own port, own links  │  │  own port, own links  │           (links, conn, peers, clients)
//!  │  own client links     │  │  own client links     │
//!  │  execution stage      │  │                       │           (stage_host)
//!  └───────────┬───────────┘  └───────────┬───────────┘
//!              └──── message rings ────────┘                      (ring)
//! ```
//!
//! A replica's lanes and its stage are mapped onto as many threads as its cores deserve
//! (`machine`). Each thread has its own poll; lanes and stage share nothing but message rings,
//! whether they live on one thread or on several. Nobody blocks but in the poll, and nobody
//! spins.
//!
//! Ports: pillar p of a replica listens on the p-th port that the group's configuration names
//! for it. Links: for each pillar one TCP connection per unordered pair of replicas, dialled by
//! the one with the higher id; one per client session. Whoever dials sends an empty packet as
//! soon as the handshake is done (a replica one without messages): it proves that the dialler
//! lives and was not recorded, and only then does the link count.
//!
//! What it is not: a protocol (`proto`), a state machine (`exec`), a policy for keys (`auth`).
//! It is the only place where those meet sockets, threads and clocks. Durability is `memory`
//! only; `journal` is the seam for more.

#![forbid(unsafe_code)]

mod clients;
mod clock;
mod conn;
pub mod counters;
mod event_loop;
mod intake;
mod journal;
mod lane_host;
mod links;
mod machine;
mod options;
mod peers;
mod pin;
pub mod report;
mod ring;
mod stage_host;
mod throttle;

pub use machine::Replica;
pub use options::{ConnectionLimits, ReplicaOptions, StartError};
pub use report::{ReplicaReport, ReplicaState};
