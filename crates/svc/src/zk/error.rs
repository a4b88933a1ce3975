//! Why a request failed, by ZooKeeper's numbers.

/// A failure that the client is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum ZkError {
    /// The response would be larger than this service gives.
    SystemError = -1,
    /// An operation of a multi that was not looked at because an earlier one failed.
    RuntimeInconsistency = -2,
    /// The bytes are no such request.
    Marshalling = -5,
    /// There is no such operation here.
    Unimplemented = -6,
    /// An argument is out of its range, such as a path that is none.
    BadArguments = -8,
    /// There is no such node.
    NoNode = -101,
    /// The ACL does not allow it.
    NoAuth = -102,
    /// The node has another version.
    BadVersion = -103,
    /// Ephemeral nodes have no children.
    NoChildrenForEphemerals = -108,
    /// There is such a node already.
    NodeExists = -110,
    /// The node has children.
    NotEmpty = -111,
    /// The session is over.
    SessionExpired = -112,
    /// The ACL is none.
    InvalidAcl = -114,
    /// The credentials are not accepted.
    AuthFailed = -115,
    /// The session has moved to another connection.
    SessionMoved = -118,
    /// There is no such watch.
    NoWatcher = -121,
    /// Reconfiguration is not for clients.
    ReconfigDisabled = -123,
    /// The object that the node is in would be larger than the group keeps.
    QuotaExceeded = -125,
}

impl ZkError {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i32 {
        self as i32
    }
}
