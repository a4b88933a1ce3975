//! Files, read within bounds and written so that a crash leaves nothing half believed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::GenesisError;

/// Largest configuration: some 400 bytes for each of the most clients that there may be.
const CONFIG_BYTES_MAX: u64 = 32 << 20;

/// The text of a configuration file.
pub(crate) fn read_config(path: &Path) -> Result<String, GenesisError> {
    let file = File::open(path).map_err(|e| io_error(path, "open the group's configuration", e))?;
    let mut text = String::new();
    let doing = "read the group's configuration";
    file.take(CONFIG_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|e| io_error(path, doing, e))?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        let (path, what) = (path.to_path_buf(), "group configuration");
        return Err(GenesisError::TooLarge { path, what, max: CONFIG_BYTES_MAX });
    }
    Ok(text)
}

/// Creates a file that must not exist, with `mode`, and makes its content durable: at `path` is
/// nothing or all of it. The entry in the directory is the caller's to sync.
pub(crate) fn create(path: &Path, mode: u32, content: &[u8]) -> Result<(), GenesisError> {
    // Whoever creates `path` first holds this name exclusively. So between the look at `path`
    // and the renaming nobody else puts a file there, and renaming replaces nothing.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = create_new(&new, mode)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    let done = written.map_err(|e| io_error(&new, "write the file", e)).and_then(|()| {
        refuse_existing(path)?;
        fs::rename(&new, path).map_err(|e| io_error(path, "create the file", e))
    });
    if done.is_err() {
        // Best effort: what is left is refused by the next attempt, which names it.
        let _ = fs::remove_file(&new);
    }
    done
}

fn create_new(path: &Path, mode: u32) -> Result<File, GenesisError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    opened.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => GenesisError::Exists { path: path.to_path_buf() },
        _ => io_error(path, "create the file", e),
    })
}

/// Refuses when anything is at `path`, even a link to nowhere.
pub(crate) fn refuse_existing(path: &Path) -> Result<(), GenesisError> {
    match path.symlink_metadata() {
        Ok(_) => Err(GenesisError::Exists { path: path.to_path_buf() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error(path, "examine", e)),
    }
}

/// Creates a directory, and its parents, with `mode`; it may exist.
pub(crate) fn create_dir(path: &Path, mode: u32) -> Result<(), GenesisError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(mode).create(path);
    made.map_err(|e| io_error(path, "create the directory", e))
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), GenesisError> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(|e| io_error(path, "sync the directory", e))
}

pub(crate) fn io_error(path: &Path, doing: &'static str, source: io::Error) -> GenesisError {
    GenesisError::Io { path: path.to_path_buf(), doing, source }
}
