//! Services that come with Stylite: a key-value store with Redis's commands, a coordination
//! service with ZooKeeper's data model, and for benchmarks an echo service and one whose operations
//! take as long as they are told.
//!
//! Deterministic: results depend on the state, the operation and its context alone. Not here:
//! connections, protocols; threads and clocks only where no result can depend on them. Depends on
//! `base` and `exec`, and on small crates that search and format bytes.

#![forbid(unsafe_code)]

use exec::Service;

pub mod echo;
pub mod kv;
#[cfg(test)]
mod testing;
pub mod work;
pub mod zk;

pub use echo::EchoService;
pub use kv::KvService;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_service() {
        assert!(NAMES.iter().all(|name| by_name(name).is_some()));
        assert!(by_name("").is_none());
    }
}
