//! The commands that gateways answer: about the connection, its transaction, or the gateway.
//!
//! They stand in the table for COMMAND, for the checks at the door and for the documentation. A
//! group never executes them; in a transaction the gateway puts its own reply in their place.

use super::table::Keys;
use super::table::commands;
use super::table::flags::{FAST, LOADING, NO_AUTH, NOSCRIPT, STALE};
use super::table::{CommandSpec, Run::Gateway};

/// The commands that gateways answer.
pub const COMMANDS: &[&[CommandSpec]] =
    &[connection::COMMANDS, transaction::COMMANDS, server::COMMANDS];

mod connection {
    use super::*;
    commands! { Connection:
        "auth" -2, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH, Keys::None, Gateway,
            "Authenticates the connection to the gateway";
        "client" -2, 0, Keys::None, Gateway,
            "Asks for or sets properties of the connection";
        "echo" 2, LOADING | STALE | FAST, Keys::None, Gateway,
            "Returns its argument";
        "hello" -1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH, Keys::None, Gateway,
            "Chooses the protocol version of the connection";
        "ping" -1, FAST, Keys::None, Gateway,
            "Returns PONG, or its argument";
        "quit" -1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH, Keys::None, Gateway,
            "Closes the connection";
        "readonly" 1, LOADING | STALE | FAST, Keys::None, Gateway,
            "Says that there is no cluster";
        "readwrite" 1, LOADING | STALE | FAST, Keys::None, Gateway,
            "Says that there is no cluster";
        "reset" 1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH, Keys::None, Gateway,
            "Puts the connection back to how it began";
        "select" 2, LOADING | STALE | FAST, Keys::None, Gateway,
            "Chooses the database, of which there is one, number 0";
    }
}

mod transaction {
    use super::*;
    commands! { Transactions:
        "discard" 1, NOSCRIPT | LOADING | STALE | FAST, Keys::None, Gateway,
            "Forgets the commands queued since MULTI";
        "exec" 1, NOSCRIPT | LOADING | STALE, Keys::None, Gateway,
            "Executes the commands queued since MULTI as one operation";
        "multi" 1, NOSCRIPT | LOADING | STALE | FAST, Keys::None, Gateway,
            "Begins to queue commands";
        "unwatch" 1, NOSCRIPT | LOADING | STALE | FAST, Keys::None, Gateway,
            "Forgets the watched keys";
        "watch" -2, NOSCRIPT | LOADING | STALE | FAST, Keys::ALL, Gateway,
            "Makes the next EXEC depend on keys being unchanged";
    }
}

mod server {
    use super::*;
    commands! { Server:
        "command" -1, LOADING | STALE, Keys::None, Gateway,
            "Tells about the commands";
        "config" -2, 0, Keys::None, Gateway,
            "Tells settings of the gateway";
        "info" -1, LOADING | STALE, Keys::None, Gateway,
            "Tells about the gateway and its group";
    }
}
