//! A coordination service with ZooKeeper's data model, replicated.
//!
//! Semantics are those of ZooKeeper 3.8, without quotas, reconfiguration and the schemes that need
//! more than a password. Requests come as ZooKeeper's clients encode them, with an envelope of
//! the gateway's ([`op`]);
//! connections, framing and pings are the gateway's.
//!
//! Reads are ordered like writes, so they are linearizable; a session's requests come in one
//! stream, so they execute in the client's order. What ZooKeeper counts up in one leader comes
//! from the total order here: zxids and numbers of sessions from (sequence number, index), the
//! suffix of a sequential node from the number of children its parent has had.
//!
//! Independent requests execute in parallel (`footprint`).
//!
//! Sessions end by the session clock ([`clock`]), which does not go on while the group stands
//! still. Events wait in the state, per session, until they are handed over in the result of an
//! operation; the group tells the gateway of an idle session that there are some
//! ([`exec::Output::Nudge`]).

pub mod acl;
mod call;
pub mod clock;
pub mod error;
mod footprint;
mod index;
pub mod jute;
mod multi;
pub mod node;
mod objects;
pub mod op;
pub mod path;
mod reads;
mod requests;
pub mod service;
pub mod session;
pub mod state;
#[cfg(test)]
mod tests;
mod watchers;
mod watches;

pub use error::ZkError;
pub use service::ZooKeeperService;

/// Largest request of a client, in bytes, and largest data of a node: ZooKeeper's
/// `jute.maxbuffer`.
pub const REQUEST_BYTES_MAX: usize = 0xf_ffff;
/// Largest response, in bytes: what the Java client takes, unless told otherwise.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// ZooKeeper's numbers of operations.
pub mod kind {
    /// Creates a node.
    pub const CREATE: i32 = 1;
    /// Deletes a node.
    pub const DELETE: i32 = 2;
    /// Tells whether there is a node.
    pub const EXISTS: i32 = 3;
    /// Reads data.
    pub const GET_DATA: i32 = 4;
    /// Writes data.
    pub const SET_DATA: i32 = 5;
    /// Reads an ACL.
    pub const GET_ACL: i32 = 6;
    /// Writes an ACL.
    pub const SET_ACL: i32 = 7;
    /// Reads the names of children.
    pub const GET_CHILDREN: i32 = 8;
    /// Waits for earlier writes: nothing to do where reads are ordered.
    pub const SYNC: i32 = 9;
    /// The client lives.
    pub const PING: i32 = 11;
    /// Reads the names of children and the stat.
    pub const GET_CHILDREN2: i32 = 12;
    /// Compares a version.
    pub const CHECK: i32 = 13;
    /// Does several things or none.
    pub const MULTI: i32 = 14;
    /// Creates a node and reads its stat.
    pub const CREATE2: i32 = 15;
    /// Changes the ensemble: refused.
    pub const RECONFIG: i32 = 16;
    /// Tells whether a path is watched.
    pub const CHECK_WATCHES: i32 = 17;
    /// Takes watches away.
    pub const REMOVE_WATCHES: i32 = 18;
    /// Creates a container.
    pub const CREATE_CONTAINER: i32 = 19;
    /// Creates a node with a time to live.
    pub const CREATE_TTL: i32 = 21;
    /// Reads several things.
    pub const MULTI_READ: i32 = 22;
    /// Proves who the client is.
    pub const AUTH: i32 = 100;
    /// Sets watches again after a reconnection.
    pub const SET_WATCHES: i32 = 101;
    /// Proves who the client is, in several steps: refused.
    pub const SASL: i32 = 102;
    /// Lists ephemeral nodes of the session.
    pub const GET_EPHEMERALS: i32 = 103;
    /// Counts everything below a node.
    pub const GET_ALL_CHILDREN_NUMBER: i32 = 104;
    /// Like [`SET_WATCHES`], with persistent ones.
    pub const SET_WATCHES2: i32 = 105;
    /// Sets a persistent watch.
    pub const ADD_WATCH: i32 = 106;
    /// Tells what the client has proved to be.
    pub const WHO_AM_I: i32 = 107;
    /// Ends the session.
    pub const CLOSE: i32 = -11;
    /// The end of a multi, or a failed part of its response.
    pub const ERROR: i32 = -1;
}
