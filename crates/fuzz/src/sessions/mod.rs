//! Sessions: rows of messages against live state machines, in memory or through a socket.

pub mod client;
pub mod ports;
pub mod replica;
pub mod zookeeper;
