//! A disk that is full whenever somebody says so.
//!
//! For drills: a replica on it is a real process on real files, and what a full disk does to it
//! is what a full disk would do. It is full while the *mark* is there, a file outside of the
//! directories that it is about, for the files whose names begin with what the mark holds: with
//! nothing, for all of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{File, Lock, Storage};

/// A disk that is full while a mark is there: files neither come to be nor grow then.
#[derive(Clone, Debug)]
pub struct Full(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: Arc<dyn Storage>,
    mark: PathBuf,
}

impl Full {
    /// Over `base`, full while there is a file `mark`.
    #[must_use]
    pub fn over(base: Arc<dyn Storage>, mark: PathBuf) -> Full {
        Full(Arc::new(Inner { base, mark }))
    }
}

impl Inner {
    /// Refuses to let the file of this path begin or grow while the disk is full.
    fn room(&self, path: &Path) -> io::Result<()> {
        let Ok(whom) = std::fs::read_to_string(&self.mark) else { return Ok(()) };
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let full = name.starts_with(whom.trim());
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn opened(self: &Arc<Inner>, path: &Path, below: Box<dyn File>) -> Box<dyn File> {
        Box::new(Open { disk: Arc::clone(self), path: path.to_path_buf(), below })
    }
}

impl Storage for Full {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.base.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.0.room(path)?;
        Ok(self.0.opened(path, self.0.base.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.0.opened(path, self.0.base.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.base.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.base.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.base.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.base.sync_dir(dir)
    }

    fn boot(&self) -> crate::life::BootId {
        self.0.base.boot()
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Lock> {
        self.0.base.lock(path, note)
    }
}

#[derive(Debug)]
struct Open {
    disk: Arc<Inner>,
    path: PathBuf,
    below: Box<dyn File>,
}

impl File for Open {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.below.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.below.len()? {
            self.disk.room(&self.path)?;
        }
        self.below.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.below.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;

    #[test]
    fn files_neither_begin_nor_grow_while_the_mark_is_there() {
        let outside = tempfile::tempdir().expect("a directory");
        let mark = outside.path().join("mark");
        let disk = Full::over(Arc::new(Memory::default()), mark.clone());
        let dir = Path::new("/d");
        disk.create_dir(dir).expect("there is room");
        let [log, other] = ["log-1", "checkpoint-1"].map(|name| dir.join(name));
        let file = disk.create(&log).expect("there is room");
        file.write_at(0, b"1234").expect("there is room");
        let full = |told: io::Result<()>| {
            told.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
        };
        std::fs::write(&mark, "").expect("own file");
        file.write_at(2, b"xy").expect("it does not grow");
        assert!(full(file.write_at(3, b"xy")));
        assert!(full(disk.create(&other).map(drop)));
        std::fs::write(&mark, "checkpoint\n").expect("own file");
        file.write_at(3, b"xy").expect("it is not meant");
        assert!(full(disk.create(&other).map(drop)));
        std::fs::remove_file(&mark).expect("own file");
        disk.create(&other).expect("there is room again").write_at(0, b"1").expect("room");
    }
}
