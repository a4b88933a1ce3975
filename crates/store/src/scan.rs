//! Reading the log back: which records are there, and whether they are all.
//!
//! Segments, commits and blocks are numbered without gaps, so what is missing inside is seen. The
//! life file names a segment at either end, so what is missing there is seen as well. What is below
//! the first of them is left out: it was to be removed, and may have come back where that was not
//! durable and later removals were.
//! At the end the question is what an unfinished commit means. A segment is zeroed before it is
//! used and a sector is written whole or not at all, so a crash leaves of the commits that were
//! not yet durable any subset of their blocks, each intact or blank. Hence:
//!
//! - all blank after the last whole commit: [`Verdict::Clean`];
//! - blank and intact blocks mixed, and no block anywhere says that one of these commits was
//!   durable: nothing that depended on them was ever said; [`Verdict::TornTail`];
//! - anything else is rot, and what was there is not known: [`Verdict::Doubt`].
//!
//! The limit of this: a disk that blanks whole sectors of the last commit, and of nothing else,
//! after it had reported it durable, looks like a torn end.

use std::path::{Path, PathBuf};

use base::limits::BATCH_BYTES_MAX;
use base::{Reader, Seq};

use crate::Identity;
use crate::block::{self, BLOCK_BYTES, CARRIED, FIRST, LAST};
use crate::error::{StoreError, io};
use crate::life::{check_owner, check_version};
use crate::storage::Storage;

/// What was found of a log.
#[derive(Debug)]
pub struct FoundLog {
    /// The records in the order in which they were appended, those that the oldest segment
    /// carried over first. When in doubt, those before the doubt.
    pub records: Vec<LogRecord>,
    /// Whether they are all.
    pub verdict: Verdict,
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    /// The highest number that it speaks of.
    pub highest: Seq,
    /// What was appended.
    pub bytes: Vec<u8>,
}

/// Whether a log holds all that was ever made durable in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is no log.
    Missing,
    /// It does, to the last block.
    Clean,
    /// It does. Its end was being written when the machine stopped, and never was durable.
    TornTail {
        /// Bytes of the unfinished end.
        dropped: u64,
    },
    /// It is not known.
    Doubt {
        /// What is wrong.
        reason: &'static str,
        /// The file.
        file: PathBuf,
        /// The byte in it.
        offset: u64,
    },
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Missing => f.write_str("the log is gone"),
            Verdict::Clean => f.write_str("the log is whole"),
            Verdict::TornTail { dropped } => {
                write!(f, "the log is whole; {dropped} bytes at its end were never durable")
            }
            Verdict::Doubt { reason, file, offset } => {
                write!(f, "{} at byte {offset}: {reason}", file.display())
            }
        }
    }
}

impl FoundLog {
    /// Whether there is a log at all.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.verdict != Verdict::Missing
    }

    /// Whether something was ever appended, or may have been.
    #[must_use]
    pub fn is_written(&self) -> bool {
        let doubt = matches!(self.verdict, Verdict::TornTail { .. } | Verdict::Doubt { .. });
        doubt || !self.records.is_empty()
    }
}

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub number: u32,
    /// The highest number that its records speak of.
    pub highest: Seq,
    pub bytes: u64,
    /// Bytes of it that were written when the log was opened.
    pub found: u64,
}

/// What of a segment was found whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Whole {
    /// Its blocks up to this one.
    pub blocks: u32,
    /// Whether a block somewhere says that all of them were durable.
    pub durable: bool,
    /// Whether one says that something in it was, and so its name.
    pub named: bool,
}

/// Where a log can be continued.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tail {
    /// The numbers of all files that are there.
    pub numbers: Vec<u32>,
    /// Those that no longer count: below the first one that the life file names.
    pub gone: Vec<u32>,
    /// The segments, as long as there is no doubt.
    pub segments: Vec<Segment>,
    /// How much of each is there.
    pub whole: Vec<Whole>,
    /// The next block of the last one.
    pub next_block: u32,
    /// The next commit.
    pub next_commit: u64,
    /// One past the last block of a torn end.
    pub torn_until: u32,
    /// Why it cannot be continued.
    pub doubt: Option<String>,
}

/// Most bytes of a segment file: a commit of the largest batches of all pillars and more.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 * BATCH_BYTES_MAX as u64;

const SPARE: &str = "log.new";
const PREFIX: &str = "log-";

/// The file of a segment.
pub(crate) fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{PREFIX}{number:08x}"))
}

/// The file of a segment before it is one.
pub(crate) fn spare_path(dir: &Path) -> PathBuf {
    dir.join(SPARE)
}

/// Whether the name is one that an unfinished segment left behind.
pub(crate) fn is_leftover(name: &str) -> bool {
    name == SPARE
}

/// Reads the log in `dir`, from the first of `ends` on. At least these segments, and what is
/// between them, are to be there; 0 where it is not known.
pub(crate) fn scan(
    storage: &dyn Storage,
    dir: &Path,
    identity: &Identity,
    ends: (u32, u32),
) -> Result<(FoundLog, Tail), StoreError> {
    let names = storage.list(dir).map_err(|e| io(dir, "list the directory", e))?;
    let all: Vec<u32> = names.iter().filter_map(|name| number_of(name)).collect();
    let (gone, numbers): (Vec<u32>, Vec<u32>) = all.iter().partition(|number| **number < ends.0);
    let is_missing = all.is_empty();
    let mut scan = Scan {
        identity,
        seed: block::seed(identity),
        records: vec![],
        tail: Tail { numbers: all, gone, ..Tail::default() },
        durable: 0,
        ends: vec![],
    };
    let mut verdict = Verdict::Missing;
    for (index, number) in numbers.iter().enumerate() {
        let path = segment_path(dir, *number);
        if index > 0 && numbers[index - 1].checked_add(1) != Some(*number) {
            verdict = doubt("the segment before it is missing", &path, 0);
            break;
        }
        let bytes = match read_whole(storage, &path)? {
            Some(bytes) => bytes,
            None => {
                verdict = doubt("the segment cannot be read, or has no possible length", &path, 0);
                break;
            }
        };
        verdict = scan.segment(&path, *number, &bytes, index + 1 == numbers.len())?;
        if matches!(verdict, Verdict::Doubt { .. }) {
            break;
        }
    }
    if !is_missing
        && !matches!(verdict, Verdict::Doubt { .. })
        && let Some(number) = missing(&numbers, ends)
    {
        verdict = doubt("the segment is missing", &segment_path(dir, number), 0);
    }
    if let Verdict::Doubt { .. } = &verdict {
        scan.tail.doubt = Some(verdict.to_string());
    }
    let durable = scan.durable;
    let whole = |(blocks, first, last): (u32, u64, u64)| Whole {
        blocks,
        durable: last <= durable,
        named: first <= durable,
    };
    scan.tail.whole = scan.ends.drain(..).map(whole).collect();
    Ok((FoundLog { records: scan.records, verdict }, scan.tail))
}

/// The one of `ends` that is beyond what is there, which is nothing below the first.
fn missing(numbers: &[u32], (first, last): (u32, u32)) -> Option<u32> {
    let begins_late = first > 0 && numbers.first() != Some(&first);
    let ends_early = numbers.last().is_some_and(|number| *number < last);
    begins_late.then_some(first).or(ends_early.then_some(last))
}

fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 8)?;
    u32::from_str_radix(digits, 16).ok()
}

/// The bytes of a segment; none when it has none that could be right, or the disk refuses to
/// read them: then nobody knows what was there, which is no reason not to recover.
fn read_whole(storage: &dyn Storage, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let file = storage.open(path).map_err(|e| io(path, "open the log segment", e))?;
    let len = file.len().map_err(|e| io(path, "examine the log segment", e))?;
    let blocks = len.is_multiple_of(BLOCK_BYTES as u64) && len > 0;
    if !blocks || len > SEGMENT_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(len).expect("was compared with a limit")];
    match file.read_at(0, &mut bytes) {
        Ok(read) => Ok((read == bytes.len()).then_some(bytes)),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read the log segment");
            Ok(None)
        }
    }
}

fn doubt(reason: &'static str, file: &Path, offset: u64) -> Verdict {
    Verdict::Doubt { reason, file: file.to_path_buf(), offset }
}

struct Scan<'a> {
    identity: &'a Identity,
    seed: u32,
    records: Vec<LogRecord>,
    tail: Tail,
    /// Some block says that all commits up to this one were durable.
    durable: u64,
    /// Per segment: the block after its last whole commit, its first commit, and that one.
    ends: Vec<(u32, u64, u64)>,
}

impl Scan<'_> {
    /// Reads one segment: `Clean`, `TornTail` or `Doubt`.
    fn segment(
        &mut self,
        path: &Path,
        number: u32,
        bytes: &[u8],
        is_last: bool,
    ) -> Result<Verdict, StoreError> {
        let Some(head) = block::decode_head(&bytes[..BLOCK_BYTES]) else {
            return Ok(doubt("the head of the segment is damaged", path, 0));
        };
        check_version(path, head.version)?;
        check_owner(path, self.identity, head.identity.group, head.identity.replica)?;
        let is_first = self.tail.segments.is_empty();
        if head.stamp.segment != number || head.stamp.index != 0 {
            return Ok(doubt("the head is that of another segment", path, 0));
        }
        if !is_first && head.stamp.commit != self.tail.next_commit {
            return Ok(doubt("the segment before it ends too early", path, 0));
        }
        self.durable = self.durable.max(head.stamp.durable);
        self.tail.next_commit = head.stamp.commit;
        let segment = Segment { number, highest: Seq(0), bytes: bytes.len() as u64, found: 0 };
        self.tail.segments.push(segment);
        let (start, stop, verdict) = self.commits(path, number, bytes, is_first);
        self.tail.segments.last_mut().expect("was just pushed").found = at(start);
        if verdict != Verdict::Clean {
            return Ok(verdict);
        }
        self.tail.next_block = start;
        self.ends.push((start, head.stamp.commit, self.tail.next_commit - 1));
        if !is_last {
            // The next head knows the commit that this one has to end with.
            let torn = "a commit that was followed by others is not whole";
            return Ok(if start == stop { verdict } else { doubt(torn, path, at(stop)) });
        }
        Ok(self.end(path, bytes, start, stop))
    }

    /// Reads whole commits from block 1 on. Returns where the first one begins that is not
    /// there whole, where its first blank block is, and whether all before it is right.
    fn commits(
        &mut self,
        path: &Path,
        number: u32,
        bytes: &[u8],
        is_first: bool,
    ) -> (u32, u32, Verdict) {
        let (mut start, mut index, mut stream) = (1, 1, vec![]);
        for raw in bytes.chunks_exact(BLOCK_BYTES).skip(1) {
            if block::is_blank(raw) {
                break;
            }
            let wrong = |reason| (start, index, doubt(reason, path, at(index)));
            let Some(data) = block::decode_data(self.seed, raw) else {
                if base::mutant!(RotIsTorn) {
                    break;
                }
                return wrong("the block is damaged, or of another log");
            };
            if (data.stamp.segment, data.stamp.index) != (number, index) {
                return wrong("the block belongs to another place");
            }
            let begins = data.flags & FIRST != 0;
            if data.stamp.commit != self.tail.next_commit || begins != (start == index) {
                return wrong("the block is of another commit");
            }
            self.durable = self.durable.max(data.stamp.durable);
            stream.extend_from_slice(data.payload);
            index += 1;
            if data.flags & LAST != 0 {
                let wanted = data.flags & CARRIED == 0 || is_first;
                if !self.take(&stream, wanted) {
                    let reason = "the commit is not made of records";
                    return (start, index, doubt(reason, path, at(start)));
                }
                stream.clear();
                start = index;
                self.tail.next_commit += 1;
            }
        }
        (start, index, Verdict::Clean)
    }

    /// Cuts a commit into its records.
    fn take(&mut self, stream: &[u8], wanted: bool) -> bool {
        let mut r = Reader::new(stream);
        let segment = self.tail.segments.last_mut().expect("its head was read before");
        while !r.is_empty() {
            let Ok(len) = r.u32("record length") else { return false };
            let Ok(highest) = r.u64("record number") else { return false };
            let Ok(bytes) = r.bytes(len as usize, "record") else { return false };
            segment.highest = segment.highest.max(Seq(highest));
            if wanted {
                let record = LogRecord { highest: Seq(highest), bytes: bytes.to_vec() };
                self.records.push(record);
            }
        }
        true
    }

    /// Judges what stands after the last whole commit of the last segment.
    fn end(&mut self, path: &Path, bytes: &[u8], start: u32, stop: u32) -> Verdict {
        let (number, commit) = (self.tail.segments.last().map(|s| s.number), self.tail.next_commit);
        let (mut until, mut left) = (stop, u64::from(stop - start));
        for (raw, index) in bytes.chunks_exact(BLOCK_BYTES).zip(0u32..).skip(stop as usize) {
            if block::is_blank(raw) {
                continue;
            }
            let Some(data) = block::decode_data(self.seed, raw) else {
                if base::mutant!(RotIsTorn) {
                    continue;
                }
                return doubt("the block is damaged, or of another log", path, at(index));
            };
            let place = Some(data.stamp.segment) == number && data.stamp.index == index;
            if !place || data.stamp.commit < commit {
                return doubt("the block belongs to another place", path, at(index));
            }
            self.durable = self.durable.max(data.stamp.durable);
            (until, left) = (index + 1, left + 1);
        }
        if left == 0 {
            return Verdict::Clean;
        }
        if self.durable >= commit && !base::mutant!(LostCommitIsTorn) {
            return doubt("a block of a commit that was durable is blank", path, at(stop));
        }
        self.tail.torn_until = until;
        Verdict::TornTail { dropped: left * BLOCK_BYTES as u64 }
    }
}

fn at(block: u32) -> u64 {
    u64::from(block) * BLOCK_BYTES as u64
}
