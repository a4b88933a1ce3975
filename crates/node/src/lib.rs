//! What the binary `stylite` is made of, as a library so that tests can use the parts in-process.
//!
//! The protocol gateways in front of a group, and the server of the metrics port. Not here: the
//! protocol itself (`proto`), replicas (`rt`) and services (`svc`). May depend on every other
//! crate of the machine zone.

#![forbid(unsafe_code)]

pub mod gateway;
pub mod http;
pub mod zookeeper;
