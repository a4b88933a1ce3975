//! Services that come with Stylite: a key-value store with Redis's commands, a coordination
//! service with ZooKeeper's data model, and for benchmarks an echo service and one whose operations
//! take as long as they are told.
//!
//! Deterministic: results depend on the state, the operation and its context alone. Not here:
//! connections, protocols; threads and clocks only where no result can depend on them. Depends on
//! `base` and `exec`, and on small crates that search and format bytes.

#![forbid(unsafe_code)]

use base::{Route, Routing};
use exec::Service;

pub mod echo;
pub mod kv;
pub mod partition;
#[cfg(test)]
mod testing;
pub mod work;
pub mod zk;

pub use echo::EchoService;
pub use kv::KvService;
pub use partition::Partition;
pub use work::WorkService;
pub use zk::ZooKeeperService;

/// The names that [`by_name`] knows.
pub const NAMES: &[&str] = &["kv", "zookeeper", "echo", "work"];

/// A fresh service of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<Box<dyn Service>> {
    match name {
        "kv" => Some(Box::new(KvService::new())),
        "zookeeper" => Some(Box::new(ZooKeeperService::new())),
        "echo" => Some(Box::new(EchoService::new())),
        "work" => Some(Box::new(WorkService::new())),
        _ => None,
    }
}

/// How operations of the service of that name find their partition; `None` of a service whose state
/// does not fall into parts, or that nobody knows.
#[must_use]
pub fn routing(name: &str) -> Option<Routing> {
    match name {
        "kv" => Some(kv::slot::ROUTING),
        // Its operations depend on nothing but each other's number.
        "echo" => Some(Routing { route: |_, _| Route::Anywhere, astray: b"" }),
        _ => None,
    }
}

/// Partition `own` of `partitions` of a fresh service of that name; `None` where
/// [`routing`] is none.
#[must_use]
pub fn partition_by_name(name: &str, own: u16, partitions: u16) -> Option<Box<dyn Service>> {
    let (routing, place) = (routing(name)?, (own, partitions));
    match name {
        "kv" => Some(Box::new(Partition::new(KvService::new(), routing, place))),
        "echo" => Some(Box::new(Partition::new(EchoService::new(), routing, place))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_service() {
        assert!(NAMES.iter().all(|name| by_name(name).is_some()));
        assert!(by_name("").is_none());
    }

    #[test]
    fn what_is_routed_has_partitions() {
        for name in NAMES {
            let partition = partition_by_name(name, 1, 2);
            assert_eq!(routing(name).is_some(), partition.is_some(), "{name}");
        }
        assert!(routing("zookeeper").is_none() && routing("").is_none());
    }
}
