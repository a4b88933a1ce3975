//! The memory that two ends share: a file without a name, mapped by both.
//!
//! It is sealed against growing and shrinking before anybody else has it, and whoever receives one
//! checks that, its kind and its size: then no access to the mapping can fault, whatever the other
//! end does with the file. Nobody can take the seals off.
//!
//! Invariant: a mapping has exactly the words of two rings with their control words, lives as long
//! as its [`Region`], and is accessed as atomic words only.

use std::os::fd::{AsFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::ring::{CONTROL_WORDS, Memory};
use crate::sync::Word;

/// Bytes of the ring of each direction.
pub const RING_BYTES: usize = 256 << 10;
/// Words of a ring.
const RING_WORDS: usize = RING_BYTES / size_of::<u64>();
/// Words of the file.
const WORDS: usize = 2 * (CONTROL_WORDS + RING_WORDS);
const BYTES: usize = WORDS * size_of::<u64>();
/// What must not happen to the file.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
/// The kind of file system that memory files are on. Others, such as huge pages, may lack the
/// memory that they promise.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Why a file is not the memory that it should be.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The system refuses.
    #[error("shared memory: {0}")]
    System(#[from] std::io::Error),
    /// It is no memory file, or could shrink under whoever uses it.
    #[error("what was handed over is no sealed memory file")]
    NotSealed,
    /// It has another size.
    #[error("shared memory of {0} bytes; it must have {BYTES}")]
    Size(u64),
}

/// The memory of both directions.
#[derive(Debug)]
pub struct Region {
    map: MmapRaw,
}

impl Region {
    /// Fresh memory, and the file to hand to the other end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create() -> Result<(Region, OwnedFd), RegionError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("stylite", flags).map_err(std::io::Error::from)?;
        rustix::fs::ftruncate(&file, BYTES as u64).map_err(std::io::Error::from)?;
        rustix::fs::fcntl_add_seals(&file, SEALS).map_err(std::io::Error::from)?;
        Ok((Region::map(&file)?, file))
    }

    /// The memory that the other end has handed over.
    ///
    /// # Errors
    /// When it is not what [`Region::create`] makes.
    pub fn adopt(file: OwnedFd) -> Result<Region, RegionError> {
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(|_| RegionError::NotSealed)?;
        // Who handed it over could not write to it either, or make it so afterwards.
        let wanted = SealFlags::SHRINK | SealFlags::GROW;
        let kind = rustix::fs::fstatfs(&file).map_err(std::io::Error::from)?.f_type;
        if !seals.contains(wanted) || kind != TMPFS_MAGIC {
            return Err(RegionError::NotSealed);
        }
        let size = rustix::fs::fstat(&file).map_err(std::io::Error::from)?.st_size;
        if usize::try_from(size).ok() != Some(BYTES) {
            return Err(RegionError::Size(u64::try_from(size).unwrap_or(0)));
        }
        Region::map(&file)
    }

    /// Writes a word that no correct end would write, for tests.
    pub fn poke(&self, word: usize, value: u64) {
        if let Some(word) = self.words().get(word) {
            word.store(value, crate::sync::Ordering::Relaxed);
        }
    }

    /// The first word and the number of words of the ring from the dialler (0) or from the
    /// listener (1).
    pub(crate) fn ring(direction: usize) -> (usize, usize) {
        (direction * (CONTROL_WORDS + RING_WORDS), RING_WORDS)
    }

    fn map(file: &OwnedFd) -> Result<Region, RegionError> {
        let map = MmapOptions::new().len(BYTES).map_raw(&file.as_fd())?;
        Ok(Region { map })
    }
}

#[cfg(not(loom))]
impl Memory for Region {
    fn words(&self) -> &[Word] {
        let first = self.map.as_mut_ptr().cast::<Word>();
        // SAFETY: the mapping has WORDS words of memory and begins at a page, so they are aligned;
        // it lives as long as `self`, from which the slice borrows. The file is sealed against
        // shrinking, so every word is there. All bit patterns are words, nobody in this process
        // accesses them but as atomics through this slice, and what the other process does to
        // them is then but another value to be read.
        unsafe { std::slice::from_raw_parts(first, WORDS) }
    }
}

#[cfg(loom)]
impl Memory for Region {
    fn words(&self) -> &[Word] {
        unreachable!("the words of models are not mapped")
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use rustix::fs::{fcntl_add_seals, ftruncate, memfd_create};

    use super::*;

    fn sealed(size: u64, seals: SealFlags) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("test", flags).expect("memory");
        ftruncate(&file, size).expect("a size");
        fcntl_add_seals(&file, seals).expect("seals");
        file
    }

    #[test]
    fn memory_is_shared_and_can_never_shrink() {
        let (one, file) = Region::create().expect("memory");
        assert!(ftruncate(&file, 0).is_err() && ftruncate(&file, 2 * BYTES as u64).is_err());
        assert!(fcntl_add_seals(&file, SealFlags::WRITE).is_err(), "no more seals");
        let other = Region::adopt(file).expect("sealed");
        one.words()[WORDS - 1].store(7, crate::sync::Ordering::Relaxed);
        assert_eq!(other.words()[WORDS - 1].load(crate::sync::Ordering::Relaxed), 7);
        assert_eq!((one.words().len(), one.words().as_ptr().addr() % 64), (WORDS, 0));
    }

    #[test]
    fn anything_else_is_refused() {
        let good = SealFlags::SHRINK | SealFlags::GROW;
        let size = BYTES as u64;
        assert!(Region::adopt(sealed(size, good)).is_ok());
        for seals in [SealFlags::empty(), SealFlags::SHRINK, SealFlags::GROW] {
            let refused = Region::adopt(sealed(size, seals));
            assert!(matches!(refused, Err(RegionError::NotSealed)), "{seals:?}");
        }
        for size in [0, size - 8, size + 8, 1 << 40] {
            assert!(matches!(Region::adopt(sealed(size, good)), Err(RegionError::Size(_))));
        }
        let written = Region::adopt(sealed(size, good | SealFlags::WRITE));
        assert!(matches!(written, Err(RegionError::System(_))), "it cannot be written");
        let file = std::fs::File::open("/proc/self/exe").expect("this program");
        assert!(matches!(Region::adopt(file.into()), Err(RegionError::NotSealed)));
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        assert!(matches!(Region::adopt(reader.into()), Err(RegionError::NotSealed)));
    }
}
