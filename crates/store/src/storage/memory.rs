//! Files in a map: a disk that is durable at once, and gone with the process. For tests.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{File, Lock, Storage, not_found};

/// Files in a map. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: Arc<Mutex<BTreeMap<PathBuf, Content>>>,
    locks: Arc<Mutex<BTreeMap<PathBuf, Arc<()>>>>,
}

type Content = Arc<Mutex<Vec<u8>>>;

impl Memory {
    /// An empty map.
    #[must_use]
    pub fn new() -> Memory {
        Memory::default()
    }
}

/// A value behind a lock stays usable when a thread panicked with it: tests do that.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Storage for Memory {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut files = lock(&self.files);
        if files.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let content = Content::default();
        files.insert(path.to_path_buf(), Arc::clone(&content));
        Ok(Box::new(Open(content)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let content = lock(&self.files).get(path).cloned().ok_or_else(not_found)?;
        Ok(Box::new(Open(content)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.files);
        let content = files.remove(from).ok_or_else(not_found)?;
        files.insert(to.to_path_buf(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.files).remove(path).map(drop).ok_or_else(not_found)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = lock(&self.files);
        let inside = files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path, _note: &str) -> io::Result<Lock> {
        let mut locks = lock(&self.locks);
        let held = locks.entry(path.to_path_buf()).or_default();
        if Arc::strong_count(held) > 1 {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(Lock::new(Arc::clone(held)))
    }
}

#[derive(Debug)]
struct Open(Content);

impl File for Open {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let content = lock(&self.0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let count = into.len().min(content.len() - from);
        into[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = lock(&self.0);
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[from..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
