//! Reading a checkpoint file: what is intact, and what is not.

use std::path::{Path, PathBuf};

use base::transfer::Part;

use super::CheckpointHead;
use super::format::{self, HEAD_BYTES, SECTION_BYTES, SECTION_MAGIC};
use crate::error::{StoreError, io};
use crate::storage::{File, Storage};

/// A checkpoint file, read from front to back.
#[derive(Debug)]
pub struct CheckpointReader {
    file: Box<dyn File>,
    path: PathBuf,
    head: CheckpointHead,
    /// Both copies of the head are intact, and the file has its full length.
    ends_intact: bool,
    offset: u64,
    /// Where objects end.
    end: u64,
    window: Window,
    summary: Summary,
}

/// A piece of the file.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// What comes next in a checkpoint file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// An object whose bytes are as they were written.
    Object {
        /// Which tree.
        part: Part,
        /// Its number.
        number: u32,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// An object that is there and whose bytes are damaged.
    Corrupt {
        /// Which tree.
        part: Part,
        /// Its number.
        number: u32,
    },
    /// Bytes that tell nothing: any number of objects is lost in them.
    Lost {
        /// The first of them.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

/// What was read so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Intact objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that are damaged.
    pub corrupt: u64,
    /// Objects that the head counts and that were not met. Right once all was read.
    pub missing: u64,
    /// Places other than objects that are damaged: a copy of the head, or bytes between objects.
    pub damaged_places: u64,
}

impl Summary {
    /// Whether every byte that matters is as it was written.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.corrupt == 0 && self.missing == 0 && self.damaged_places == 0
    }
}

const WINDOW_BYTES: u64 = 1 << 20;
/// What is tried at a time where the disk refuses more at once.
const PIECE_BYTES: usize = 4 << 10;

impl CheckpointReader {
    /// Opens the checkpoint file or snapshot at `path`. Its certificate is not verified.
    ///
    /// # Errors
    /// When it does not exist or cannot be opened, is of a newer version, or when both copies of
    /// its head are damaged.
    pub fn open(storage: &dyn Storage, path: &Path) -> Result<CheckpointReader, StoreError> {
        let file = storage.open(path).map_err(|e| io(path, "open the checkpoint", e))?;
        let len = file.len().map_err(|e| io(path, "examine the checkpoint", e))?;
        let no = |what| StoreError::NoCheckpoint { path: path.to_path_buf(), what };
        if len < 2 * HEAD_BYTES as u64 {
            return Err(no("it is too short"));
        }
        let mut copies = [None, None];
        for (copy, offset) in copies.iter_mut().zip([0, len - HEAD_BYTES as u64]) {
            let mut bytes = vec![0; HEAD_BYTES];
            read_what_can_be(&*file, offset, &mut bytes, path);
            *copy = format::decode_head(&bytes, path)?;
        }
        let ends_intact = copies[0].is_some() && copies[0] == copies[1];
        let [first, second] = copies;
        let head = first.or(second).ok_or_else(|| no("both copies of its head are damaged"))?;
        // A file that was cut off has no second head: objects may go up to its end.
        let end = len.min(head.file_bytes.saturating_sub(HEAD_BYTES as u64));
        let ends_intact = ends_intact && len == head.file_bytes;
        let summary = Summary { damaged_places: u64::from(!ends_intact), ..Summary::default() };
        Ok(CheckpointReader {
            file,
            path: path.to_path_buf(),
            head,
            ends_intact,
            offset: HEAD_BYTES as u64,
            end,
            window: Window::default(),
            summary,
        })
    }

    /// What the file says about itself.
    #[must_use]
    pub fn head(&self) -> &CheckpointHead {
        &self.head
    }

    /// Whether both copies of the head are intact and the file is neither cut off nor longer.
    #[must_use]
    pub fn ends_intact(&self) -> bool {
        self.ends_intact
    }

    /// What was read so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let total = self.head.service_objects.saturating_add(self.head.session_objects);
        let met = self.summary.objects + self.summary.corrupt;
        Summary { missing: total.saturating_sub(met), ..self.summary }
    }

    /// The next item; none at the end.
    ///
    /// # Errors
    /// None today. Damage is an item, not an error, also where the disk refuses to read.
    pub fn next_item(&mut self) -> Result<Option<Item>, StoreError> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let Some(section) = self.section_at(self.offset)? else {
            let from = self.offset;
            self.offset = self.find_section(from + 1)?;
            self.summary.damaged_places += 1;
            return Ok(Some(Item::Lost { offset: from, bytes: self.offset - from }));
        };
        let (part, number) = (section.part, section.number);
        let bytes = self.fetch(self.offset + SECTION_BYTES as u64, section.len)?;
        let intact = (crc32c::crc32c(bytes) == section.sum).then(|| bytes.to_vec());
        self.offset += SECTION_BYTES as u64 + section.len;
        Ok(Some(match intact {
            Some(bytes) => {
                self.summary.objects += 1;
                self.summary.bytes += section.len;
                Item::Object { part, number, bytes }
            }
            None => {
                self.summary.corrupt += 1;
                Item::Corrupt { part, number }
            }
        }))
    }

    /// The section at `offset`, if one is there that checks and whose object fits into the file.
    fn section_at(&mut self, offset: u64) -> Result<Option<format::Section>, StoreError> {
        let room = self.end.saturating_sub(offset);
        if room < SECTION_BYTES as u64 {
            return Ok(None);
        }
        let bytes = self.fetch(offset, SECTION_BYTES as u64)?;
        let section = format::decode_section(bytes, offset);
        Ok(section.filter(|section| section.len <= room - SECTION_BYTES as u64))
    }

    /// Where the next section is, from `from` on, or the end.
    fn find_section(&mut self, from: u64) -> Result<u64, StoreError> {
        let mut at = from;
        while at + SECTION_BYTES as u64 <= self.end {
            let count = (self.end - at).min(WINDOW_BYTES / 2);
            let bytes = self.fetch(at, count)?;
            let found = bytes.windows(8).position(|window| window[4..] == SECTION_MAGIC);
            let Some(found) = found else {
                // The last bytes may be the beginning of one.
                at += (count - 7).max(1);
                continue;
            };
            at += found as u64;
            if self.section_at(at)?.is_some() {
                return Ok(at);
            }
            at += 1;
        }
        Ok(self.end)
    }

    /// `count` bytes from `offset` on, which are in the file.
    fn fetch(&mut self, offset: u64, count: u64) -> Result<&[u8], StoreError> {
        let window = &mut self.window;
        let inside =
            offset >= window.start && offset + count <= window.start + window.bytes.len() as u64;
        if !inside {
            let wanted = count.max(WINDOW_BYTES.min(self.end - offset));
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            window.start = offset;
            window.bytes.resize(wanted, 0);
            read_what_can_be(&*self.file, offset, &mut window.bytes, &self.path);
        }
        let from = usize::try_from(offset - window.start).expect("is inside the window");
        Ok(&window.bytes[from..from + usize::try_from(count).expect("is inside the window")])
    }
}

/// Reads what is there and can be read. The rest reads as zeroes, and does not check: what was
/// cut off meanwhile, and what the disk refuses.
fn read_what_can_be(file: &dyn File, offset: u64, into: &mut [u8], path: &Path) {
    match file.read_at(offset, into) {
        Ok(read) => return into[read..].fill(0),
        Err(error) => {
            tracing::error!(path = %path.display(), offset, %error, "cannot read the checkpoint");
        }
    }
    for (piece, at) in into.chunks_mut(PIECE_BYTES).zip((offset..).step_by(PIECE_BYTES)) {
        let read = file.read_at(at, piece).unwrap_or(0);
        piece[read..].fill(0);
    }
}
