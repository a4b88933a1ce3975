//! Where a pillar of a replica listens, and over what it is reached.
//!
//! In text: `host:port` for TCP, `unix:/path` for a UNIX stream socket, `shm:/path` for rings in
//! shared memory that are set up over such a socket. The last two reach one host only.
//!
//! Not here: sockets. An address is local knowledge, and not part of the group's identity.

use std::fmt;
use std::path::{Path, PathBuf};

/// Longest path of a UNIX socket in bytes: the system's 108 with the zero that ends it.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest host name, as DNS has it.
const HOST_BYTES_MAX: usize = 253;

/// What carries packets between members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UNIX stream sockets, between processes of one host.
    Unix,
    /// Rings in shared memory, between processes of one host.
    Shm,
}

impl Transport {
    /// All of them, the default first.
    pub const ALL: [Transport; 3] = [Transport::Tcp, Transport::Unix, Transport::Shm];

    /// Its name, as the command line has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Unix => "unix",
            Transport::Shm => "shm",
        }
    }
}

/// Where a pillar listens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    /// A port of a host.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port. 0, not yet known, only in memory.
        port: u16,
    },
    /// A UNIX stream socket.
    Unix(PathBuf),
    /// A UNIX stream socket over which shared memory is handed.
    Shm(PathBuf),
}

impl Address {
    /// An address over TCP.
    #[must_use]
    pub fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, and what it has to be.
    pub fn parse(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(Address::Unix);
        }
        if let Some(path) = text.strip_prefix("shm:") {
            return socket_path(path).map(Address::Shm);
        }
        let remedy = || "must be host:port, [IPv6]:port, unix:/path or shm:/path".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(remedy)?;
        let port = port.parse().map_err(|_| remedy())?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bracketed.is_none() && host.contains(':') {
            return Err("an IPv6 address with a port stands in brackets: [::1]:7400".to_owned());
        }
        let host = bracketed.unwrap_or(host);
        check_host(host)?;
        Ok(Address::tcp(host, port))
    }

    /// Over what it is reached.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self {
            Address::Tcp { .. } => Transport::Tcp,
            Address::Unix(_) => Transport::Unix,
            Address::Shm(_) => Transport::Shm,
        }
    }

    /// Its host and port, if it is reached over TCP.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        match self {
            Address::Tcp { host, port } => Some((host, *port)),
            Address::Unix(_) | Address::Shm(_) => None,
        }
    }

    /// Its port, if it is reached over TCP.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.host_and_port().map(|(_, port)| port)
    }

    /// Its socket, if it is not reached over TCP.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Address::Tcp { .. } => None,
            Address::Unix(path) | Address::Shm(path) => Some(path),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Shm(path) => write!(f, "shm:{}", path.display()),
        }
    }
}

/// Checks a host name or an IP address.
///
/// # Errors
/// What it has to be.
pub(crate) fn check_host(host: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.:%".contains(c);
    // Colons are for IPv6 addresses only: a port behind the host is a frequent mistake.
    let colons_ok = !host.contains(':') || host.matches(':').count() >= 2;
    let sized = !host.is_empty() && host.len() <= HOST_BYTES_MAX;
    if sized && host.chars().all(good) && colons_ok {
        return Ok(());
    }
    Err("must be a host name or an IP address without a port or brackets".to_owned())
}

/// Checks the path of a socket: what the system takes, and what needs no escaping in a
/// configuration.
///
/// # Errors
/// What it has to be.
fn socket_path(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err("the path of a socket must be absolute and name a file".to_owned());
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "the path of a socket may have {SOCKET_PATH_BYTES_MAX} bytes, this one has {}; choose \
             a shorter directory",
            path.len()
        ));
    }
    if path.chars().any(|c| c.is_control() || matches!(c, '"' | '\\')) {
        return Err("the path of a socket must not have quotes, backslashes or control \
                    characters"
            .to_owned());
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in
            ["127.0.0.1:7400", "[::1]:7400", "replica-0.example:1", "unix:/run/s.sock", "shm:/a"]
        {
            let address = Address::parse(text).expect(text);
            assert_eq!(address.to_string(), text);
        }
        let words = Transport::ALL.map(Transport::word);
        assert_eq!(words, ["tcp", "unix", "shm"]);
    }

    #[test]
    fn what_is_no_address_is_answered_with_what_one_is() {
        let long = format!("unix:/{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        for (text, told) in [
            ("7400", "host:port"),
            ("a:b", "host:port"),
            ("a:70000", "host:port"),
            ("::1:7400", "brackets"),
            ("a b:1", "host name"),
            (":1", "host name"),
            ("unix:relative", "absolute"),
            ("shm:/dir/", "absolute"),
            ("unix:/a\"b", "quotes"),
            (&long, "107 bytes, this one has 108"),
        ] {
            let error = Address::parse(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(Address::parse(&long[..long.len() - 1]).is_ok());
    }
}
