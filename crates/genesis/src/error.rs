//! What can be wrong with a configuration or a key file, and what to do about it.

use std::io;
use std::path::PathBuf;

use auth::{AuthError, Peer};

use crate::switches::Conflict;

/// Why a group's files could not be read, checked or written.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The operating system refused.
    #[error("{path}: cannot {doing}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than any such file can be.
    #[error("{path}: larger than {max} bytes: this is not a {what}", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// The bound in bytes.
        max: u64,
    },
    /// The file is not text in TOML, or a value has the wrong type.
    #[error("{path}: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        message: String,
    },
    /// A key that the configuration does not have.
    #[error("{path}: unknown key `{key}`{}", hint(suggestion.as_deref()), path = path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key with its table.
        key: String,
        /// The known key that looks most like it.
        suggestion: Option<String>,
    },
    /// A value out of its range, or in conflict with another one.
    #[error("{path}: {field} = {value}: {remedy}", path = path.display())]
    Field {
        /// The file; for a group that has none, what stands for it.
        path: PathBuf,
        /// The field with its table.
        field: String,
        /// Its value.
        value: String,
        /// What it has to be.
        remedy: String,
    },
    /// The public keys of the members are not what they should be.
    #[error("{path}: {source}; the keys of `stylite init` must not be edited", path = path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: AuthError,
    },
    /// Switches that do not go together.
    #[error("{path}: {conflict}", path = path.display())]
    Switches {
        /// The file; for a group that has none, what stands for it.
        path: PathBuf,
        /// Which, why not, and what to do about it.
        conflict: &'static Conflict,
    },
    /// There is a group already.
    #[error(
        "{path}: exists already; a second init would destroy a group. Choose another directory, \
         or remove this one if nobody needs the group any more",
        path = path.display()
    )]
    Exists {
        /// The file that is there.
        path: PathBuf,
    },
    /// A key file that others may read or write.
    #[error(
        "{path}: mode {mode:03o} lets others at a secret key. Run: chmod 600 {path}",
        path = path.display()
    )]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file of another user.
    #[error(
        "{path}: belongs to user {owner}, this process runs as user {user}. \
         Run: chown {user} {path} && chmod 600 {path}",
        path = path.display()
    )]
    KeyOwner {
        /// The file.
        path: PathBuf,
        /// The user that owns it.
        owner: u32,
        /// The user that this process runs as.
        user: u32,
    },
    /// A key file that is not one.
    #[error("{path}: {what}; restore the key file that `stylite init` wrote", path = path.display())]
    KeyContent {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A key file of somebody else.
    #[error(
        "{path}: holds the key of {found} of group \"{group}\", not of {wanted}",
        path = path.display()
    )]
    KeyOfOther {
        /// The file.
        path: PathBuf,
        /// Whose key it is.
        found: Peer,
        /// Of which group.
        group: String,
        /// Whose key was wanted.
        wanted: Peer,
    },
    /// A key file whose key is not the one in the configuration.
    #[error("{path}: {source}; configuration and key file are of different groups", path = path.display())]
    KeyMismatch {
        /// The file.
        path: PathBuf,
        /// What differs.
        source: AuthError,
    },
    /// There is no randomness for keys.
    #[error("no keys: {0}")]
    Randomness(AuthError),
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion
        .map_or_else(|| "; remove it".to_owned(), |known| format!("; did you mean `{known}`?"))
}
