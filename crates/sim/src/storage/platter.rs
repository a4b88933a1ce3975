//! Files and names twice: as the process sees them, and as the platter holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::SECTOR;
use crate::prng::Prng;

/// All files of a disk.
#[derive(Debug, Default)]
pub(super) struct Platter {
    inodes: BTreeMap<u64, Inode>,
    /// What a process sees.
    names: BTreeMap<PathBuf, u64>,
    /// What is durable.
    durable: BTreeMap<PathBuf, u64>,
    /// Changes of names that are not durable, in order.
    changes: Vec<Change>,
    next: u64,
}

/// A change of names.
#[derive(Clone, Debug)]
enum Change {
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf, u64),
    Remove(PathBuf),
}

/// The content of a file.
#[derive(Debug, Default)]
pub(super) struct Inode {
    /// What a process sees.
    pub(super) seen: Vec<u8>,
    /// What is there when the power is back.
    pub(super) held: Vec<u8>,
    /// Sectors that were written and not synced.
    pub(super) dirty: BTreeSet<usize>,
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Platter {
    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        if self.names.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        self.next += 1;
        self.inodes.insert(self.next, Inode::default());
        self.change(Change::Create(path.to_path_buf(), self.next));
        Ok(self.next)
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, change.clone());
        self.changes.push(change);
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(not_found)
    }

    pub(super) fn inode(&self, inode: u64) -> io::Result<&Inode> {
        self.inodes.get(&inode).ok_or_else(not_found)
    }

    pub(super) fn inode_mut(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or_else(not_found)
    }

    pub(super) fn list(&self, dir: &Path) -> Vec<String> {
        let inside = self.names.keys().filter(|path| path.parent() == Some(dir));
        inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }

    /// Files by name, as the process sees them.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.iter().filter_map(|(path, inode)| Some((name(path)?, *inode)))
    }

    /// The name of a file, if it has one.
    pub(super) fn name_of(&self, inode: u64) -> Option<&str> {
        // Asked with every sync, so that nothing is parsed but the path that is wanted.
        self.names.iter().find(|(_, of)| **of == inode).and_then(|(path, _)| name(path))
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        self.change(Change::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.change(Change::Remove(path.to_path_buf()));
        Ok(())
    }

    /// Whether a file has the name that a process sees when the power is back.
    pub(super) fn is_named(&self, inode: u64) -> bool {
        let mut seen = self.names.iter().filter(|(_, of)| **of == inode);
        seen.all(|(path, _)| self.durable.get(path) == Some(&inode))
    }

    pub(super) fn sync_names(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            apply(&mut self.durable, change);
        }
        self.sweep();
    }

    /// Changes of names that were not synced never will be, and are seen until the power fails.
    pub(super) fn drop_names(&mut self) {
        self.changes.clear();
    }

    /// Of what was not synced, names up to some change are there, and sectors that `keep`
    /// chooses. With `tear` one of them is there in part. Whether one was torn.
    pub(super) fn lose_power(
        &mut self,
        prng: &mut Prng,
        keep: &mut dyn FnMut(&mut Prng) -> bool,
        tear: bool,
    ) -> bool {
        let names = prng.below(self.changes.len() as u64 + 1) as usize;
        for change in self.changes.drain(..).take(names) {
            apply(&mut self.durable, change);
        }
        let mut tear = tear.then_some(());
        let wanted = tear.is_some();
        for inode in self.inodes.values_mut() {
            for sector in std::mem::take(&mut inode.dirty) {
                if keep(prng) {
                    inode.reach(sector);
                } else if tear.take().is_some() {
                    inode.tear(sector, 1 + prng.below(SECTOR as u64 - 1) as usize);
                }
            }
            inode.seen.clone_from(&inode.held);
        }
        self.names = self.durable.clone();
        self.sweep();
        wanted && tear.is_none()
    }

    /// Forgets files that have no name any more.
    fn sweep(&mut self) {
        let named: BTreeSet<u64> =
            self.names.values().chain(self.durable.values()).copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// What was before a change may never have become durable: then it is as if it had been.
fn apply(names: &mut BTreeMap<PathBuf, u64>, change: Change) {
    match change {
        Change::Create(path, inode) => {
            names.insert(path, inode);
        }
        Change::Rename(from, to, inode) => {
            names.remove(&from);
            names.insert(to, inode);
        }
        Change::Remove(path) => {
            names.remove(&path);
        }
    }
}

impl Inode {
    pub(super) fn write(&mut self, from: usize, bytes: &[u8]) {
        let end = from + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[from..end].copy_from_slice(bytes);
        self.dirty.extend(from / SECTOR..end.div_ceil(SECTOR));
    }

    /// Where `sector` is in the file, as far as the file goes.
    pub(super) fn range(&self, sector: usize) -> std::ops::Range<usize> {
        let from = (sector * SECTOR).min(self.seen.len());
        from..(from + SECTOR).min(self.seen.len())
    }

    /// The bytes of a sector, as the process sees them.
    pub(super) fn sector(&self, sector: usize) -> &[u8] {
        &self.seen[self.range(sector)]
    }

    /// A sector as the process sees it reaches the platter.
    pub(super) fn reach(&mut self, sector: usize) {
        let range = self.range(sector);
        if self.held.len() < range.end {
            self.held.resize(range.end, 0);
        }
        self.held[range.clone()].copy_from_slice(&self.seen[range]);
    }

    /// The platter holds `bytes` in a sector, and so the process sees them.
    pub(super) fn put(&mut self, sector: usize, bytes: &[u8]) {
        let range = self.range(sector);
        if self.held.len() < range.end {
            self.held.resize(range.end, 0);
        }
        let count = bytes.len().min(range.len());
        self.held[range.start..range.start + count].copy_from_slice(&bytes[..count]);
        self.seen[range.start..range.start + count].copy_from_slice(&bytes[..count]);
    }

    /// Only the first `bytes` of a sector reach the platter.
    fn tear(&mut self, sector: usize, bytes: usize) {
        let range = self.range(sector);
        let end = (range.start + bytes).min(range.end);
        if self.held.len() < range.end {
            self.held.resize(range.end, 0);
        }
        self.held[range.start..end].copy_from_slice(&self.seen[range.start..end]);
    }

    /// The number of sectors.
    pub(super) fn sectors(&self) -> usize {
        self.seen.len().div_ceil(SECTOR)
    }
}
