//! Whole groups in one thread: the production cores on virtual time, driven by one seed.
//!
//! A [`World`] holds every lane, coordinator, execution stage and client core of a group and the
//! real files of each replica on a simulated disk, and carries the messages between them through
//! an event queue: links between replicas and clients, and just the same the links between the
//! parts of one replica. The same seed gives the same run. Never shipped; the only owner of a
//! random number generator.
//!
//! | module | topic |
//! |---|---|
//! | `world` | a group, its clients, and what happens to them |
//! | `work` | services, and what clients ask of them |
//! | `host` | the parts of a replica and the links between them |
//! | `crew` | the execution workers of a replica |
//! | `journal`, `disk`, `storage` | what is durable, what a restart finds, how disks fail |
//! | `lives` | how lives begin and end |
//! | `network` | links between replicas: late, lossy, cut |
//! | `faults`, `plan` | what breaks, and when |
//! | `phase` | the end of the faults, for all or for a core |
//! | `pace`, `rest` | how long answers take, and that little happens where nobody asks anything |
//! | `tempo` | how fast the parts of a replica are |
//! | `coverage`, `measures`, `outcome`, `story`, `watch` | what a run met, for all to read |
//! | `adversary` | replicas and clients that mean harm |
//! | `twins` | two copies of one replica with one key |
//! | `observe` | what services see |
//! | `oracles` | what must hold: one property a file |
//! | `scenarios` | the scenarios, by name |
//! | `minimize` | makes a failing plan smaller |
//! | `runner` | many seeds on several threads |
//! | `scenario` | what they share: seeds, and the end of a run |
//!
//! Not here: sockets, threads and keys (`rt` and `auth` have their own tests).

#![forbid(unsafe_code)]

pub mod adversary;
mod clients;
pub mod coverage;
mod crew;
mod disk;
mod events;
pub mod faults;
pub mod history;
mod host;
mod journal;
mod lives;
pub mod measures;
pub mod minimize;
#[cfg(feature = "mutants")]
pub mod mutants;
mod network;
pub mod observe;
pub mod options;
pub mod oracles;
pub mod outcome;
mod pace;
mod phase;
pub mod plan;
pub mod prng;
mod rest;
pub mod runner;
pub mod scenario;
pub mod scenarios;
mod spoil;
pub mod storage;
mod story;
mod tempo;
pub mod twins;
mod watch;
pub mod work;
pub mod world;

pub use adversary::Behaviour;
pub use events::Part;
pub use faults::Fault;
pub use options::{Durability, Net, Options};
pub use plan::Plan;
pub use prng::{Prng, Ratio};
pub use storage::{DiskFault, Place};
pub use work::Work;
pub use world::World;
