//! The storage shim: all that the log, the checkpoint files and the life file know of disks.
//!
//! What it is: a trait with just the operations that matter for durability, so that a test can
//! stand in for the disk and lose, tear and rot what a real one may. [`Real`] is the operating
//! system; [`Memory`] is a map; [`Volatile`] keeps whatever was not synced away from the storage
//! below it; [`Full`] has no room when it is told so. What it is not: a file system; there are no
//! permissions and no subdirectories.
//!
//! Invariants that users rely on, and no more than these:
//! 1. what [`File::sync`] returned for survives a crash, under a name that was synced;
//! 2. names (created, renamed, removed) survive a crash once [`Storage::sync_dir`] returned;
//! 3. sectors of 512 bytes are written whole or not at all, each for itself;
//! 4. after a failed sync nothing is known about what was written since the last good one: of a
//!    directory, about all names that were changed in it since, whoever changed them.

mod final_names;
mod full;
mod memory;
mod real;
mod volatile;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;

pub(crate) use final_names::{FinalNames, LostNames};
pub use full::Full;
pub use memory::Memory;
pub(crate) use memory::lock;
pub use real::Real;
pub use volatile::{Faults, Volatile};

use crate::life::BootId;

/// A disk, or what stands in for one.
pub trait Storage: Send + Sync + Debug {
    /// Makes a directory and its parents, durably; it may exist.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Creates an empty file, readable by its owner alone, and opens it.
    ///
    /// # Errors
    /// When it exists, or what the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens a file for reading and writing, or for reading where writing is not permitted.
    ///
    /// # Errors
    /// When it does not exist, or what the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Gives a file another name in the same directory, replacing what has it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names of the files in a directory, sorted; those that are no UTF-8 are left out.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system says: final, never to be tried again.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// The machine's present boot: what was handed to the system in it is lost with it.
    fn boot(&self) -> BootId {
        BootId::current()
    }

    /// Takes `path` as an exclusive lock, until the returned value is dropped or the process
    /// ends, and leaves `note` in it for others to read.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another has it, or what the system says.
    fn lock(&self, path: &Path, note: &str) -> io::Result<Lock>;
}

/// An open file.
pub trait File: Send + Sync + Debug {
    /// Its bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has none.
    ///
    /// # Errors
    /// What the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `into.len()` bytes from `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; the file grows with it.
    ///
    /// # Errors
    /// What the system says: what is in that range afterwards is not known.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content durable, not the name.
    ///
    /// # Errors
    /// What the system says: final, never to be tried again.
    fn sync(&self) -> io::Result<()>;
}

/// An exclusive lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    _held: Box<dyn Any + Send + Sync>,
}

impl Lock {
    /// A lock that is held as long as `held` lives.
    #[must_use]
    pub fn new(held: impl Any + Send + Sync) -> Lock {
        Lock { _held: Box::new(held) }
    }
}

/// Bytes of a sector: what a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}
