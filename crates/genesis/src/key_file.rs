//! Key files: one secret each, readable by its owner only.
//!
//! ```text
//! # Secret key of a member of a Stylite group. …
//! role = replica
//! id = 0
//! group = demo
//! seed = 64 hexadecimal digits
//! ```
//!
//! The permissions that are checked are those of the file that was opened, not of a path that
//! somebody may exchange in between. Buffers that held the seed are zeroized.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use auth::{Peer, Secret};
use base::{ClientId, ReplicaId};
use zeroize::Zeroizing;

use crate::error::GenesisError;
use crate::file;

const KEY_BYTES_MAX: u64 = 4096;

/// The name of a member's key file, such as `replica-0.key`.
#[must_use]
pub fn file_name(peer: Peer) -> String {
    let (role, id) = role_and_id(peer);
    format!("{role}-{id}.key")
}

/// Writes a secret to a new file with mode 0600, durably. The directory entry is the caller's
/// to sync.
///
/// # Errors
/// [`GenesisError::Exists`] when there is such a file; [`GenesisError::Io`].
pub fn write(path: &Path, peer: Peer, group: &str, secret: &Secret) -> Result<(), GenesisError> {
    let (role, id) = role_and_id(peer);
    let seed = secret.to_hex();
    // With its full capacity from the start, so that no reallocation leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(512));
    for part in [
        "# Secret key of a member of a Stylite group. Whoever can read it can act as this\n\
         # member: keep its mode 0600, never copy it to another running process.\n",
        &format!("role = {role}\nid = {id}\ngroup = {group}\nseed = "),
        &seed,
        "\n",
    ] {
        text.push_str(part);
    }
    file::create(path, 0o600, text.as_bytes())
}

/// Reads `wanted`'s secret of the group with this name.
///
/// # Errors
/// When the file cannot be read, is not its owner's alone, is no key file, or holds the key of
/// somebody else.
pub fn read(path: &Path, wanted: Peer, group: &str) -> Result<Secret, GenesisError> {
    let text = read_private(path)?;
    let content = |what| GenesisError::KeyContent { path: path.to_path_buf(), what };
    let text = std::str::from_utf8(&text).map_err(|_| content("not text"))?;
    let mut values = [None; 4];
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or(content("a line without '='"))?;
        let known = ["role", "id", "group", "seed"];
        let index = known.iter().position(|known| *known == key.trim());
        let slot = &mut values[index.ok_or(content("an unknown key"))?];
        if slot.replace(value.trim()).is_some() {
            return Err(content("a key stands twice"));
        }
    }
    let [Some(role), Some(id), Some(of_group), Some(seed)] = values else {
        return Err(content("role, id, group or seed is missing"));
    };
    let found = peer_of(role, id).ok_or(content("role or id is none"))?;
    if found != wanted || of_group != group {
        let (path, group) = (path.to_path_buf(), of_group.chars().take(80).collect());
        return Err(GenesisError::KeyOfOther { path, found, group, wanted });
    }
    Secret::from_hex(seed).map_err(|_| content("the seed is not 64 hexadecimal digits"))
}

/// The bytes of a file that is its owner's alone.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, GenesisError> {
    let file = File::open(path).map_err(|e| file::io_error(path, "open the key file", e))?;
    let meta = file.metadata().map_err(|e| file::io_error(path, "examine the key file", e))?;
    if !meta.is_file() {
        let what = "not a regular file";
        return Err(GenesisError::KeyContent { path: path.to_path_buf(), what });
    }
    let user = rustix::process::geteuid().as_raw();
    private(path, meta.uid(), user, meta.mode())?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(8192));
    let read = file.take(KEY_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|e| file::io_error(path, "read the key file", e))?;
    if bytes.len() as u64 > KEY_BYTES_MAX {
        let (path, what) = (path.to_path_buf(), "key file");
        return Err(GenesisError::TooLarge { path, what, max: KEY_BYTES_MAX });
    }
    Ok(bytes)
}

/// Whether a file of `owner` with `mode` is private to `user`.
fn private(path: &Path, owner: u32, user: u32, mode: u32) -> Result<(), GenesisError> {
    if owner != user {
        return Err(GenesisError::KeyOwner { path: path.to_path_buf(), owner, user });
    }
    if mode & 0o077 != 0 {
        return Err(GenesisError::KeyMode { path: path.to_path_buf(), mode: mode & 0o7777 });
    }
    Ok(())
}

fn role_and_id(peer: Peer) -> (&'static str, u32) {
    match peer {
        Peer::Replica(id) => ("replica", u32::from(id.0)),
        Peer::Client(id) => ("client", id.0),
    }
}

fn peer_of(role: &str, id: &str) -> Option<Peer> {
    match role {
        "replica" => id.parse().ok().map(|id| Peer::Replica(ReplicaId(id))),
        "client" => id.parse().ok().map(|id| Peer::Client(ClientId(id))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_user_is_refused_even_when_it_is_private() {
        let path = Path::new("/keys/replica-0.key");
        assert!(private(path, 1000, 1000, 0o100_600).is_ok());
        for user in [0, 1001] {
            let error = private(path, 1000, user, 0o100_600).expect_err("another owner");
            assert!(matches!(error, GenesisError::KeyOwner { owner: 1000, .. }));
            let remedy = format!("chown {user} /keys/replica-0.key");
            assert!(error.to_string().contains(&remedy), "{error}");
        }
    }
}
