//! What a disk does to bytes that it has reported durable: rot, and lies about writes.
//!
//! A wound is remembered until its sector is written anew or its file is gone. Whether a
//! replica has to find it out depends on what it is: see [`Harm`].

use std::io;

use super::{SECTOR, State};
use crate::prng::Prng;

/// Something that goes wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFault {
    /// A bit flips, now.
    Rot(Place),
    /// The machine stops after so many more operations that change something, or rather before
    /// the next one.
    StopAfter(u64),
    /// The next sync fails once, and what it was to write is never written.
    FailSync,
    /// The next sync that writes something leaves out a sector, and says it was done.
    LoseWrite,
    /// The next sync that writes something flips a bit of it.
    CorruptWrite,
    /// The next sync that writes something writes a sector to another place.
    MisdirectWrite,
    /// The next read of some length gets a sector from another place.
    MisdirectRead,
    /// When the power fails next, a sector is written in part.
    Tear,
}

/// Where a bit flips.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the log.
    Log,
    /// In what was written to the log last.
    LogEnd,
    /// In the newest checkpoint file.
    Checkpoint,
    /// In one copy of the life file.
    Life,
    /// In both copies of the life file.
    BothLives,
}

/// A sector that is not what it was when it was reported durable.
#[derive(Clone, Debug)]
pub(crate) struct Wound {
    inode: u64,
    sector: usize,
    /// What ought to be there.
    right: Vec<u8>,
    /// Which sync of the log it happened in; none when it came later.
    sync: Option<u64>,
}

/// What wounds mean for a replica that starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Harm {
    /// In the log, and to be found out: no vote may be cast before a recovery.
    Votes,
    /// Of the last that the log was told, a sector was never written and nothing was written
    /// since. That looks like a torn end: nobody can find it out, and the replica counts among
    /// the faulty from now on.
    Unseen,
    /// Elsewhere: it is repaired, or does not matter.
    Other,
}

fn is_log(name: &str) -> bool {
    name.starts_with("log")
}

impl State {
    /// Makes what was written to a file durable, or says so.
    pub(super) fn sync(&mut self, inode: u64) -> io::Result<()> {
        let dirty: Vec<usize> =
            std::mem::take(&mut self.platter.inode_mut(inode)?.dirty).into_iter().collect();
        let log = self.platter.name_of(inode).is_some_and(is_log);
        // Blank sectors tell nothing, whatever happens to them.
        let file = self.platter.inode(inode)?;
        let told = |sector: &&usize| file.sector(**sector).iter().any(|byte| *byte != 0);
        let telling: Vec<usize> = dirty.iter().filter(told).copied().collect();
        if log && !telling.is_empty() {
            self.log_syncs += 1;
            self.synced.insert(inode, self.log_syncs);
        }
        let lie = if telling.is_empty() {
            None
        } else {
            self.take(|fault| {
                use DiskFault::{CorruptWrite, LoseWrite, MisdirectWrite};
                matches!(fault, LoseWrite | CorruptWrite | MisdirectWrite)
            })
        };
        let victim = lie.map(|_| telling[self.prng.below(telling.len() as u64) as usize]);
        for sector in dirty {
            self.wounds.retain(|wound| (wound.inode, wound.sector) != (inode, sector));
            match (lie, victim) {
                (Some(lie), Some(victim)) if victim == sector => {
                    self.lie(lie, inode, sector, log)?
                }
                _ => self.platter.inode_mut(inode)?.reach(sector),
            }
        }
        Ok(())
    }

    fn lie(&mut self, lie: DiskFault, inode: u64, sector: usize, log: bool) -> io::Result<()> {
        let right = self.platter.inode(inode)?.sector(sector).to_vec();
        match lie {
            DiskFault::CorruptWrite => {
                let mut wrong = right.clone();
                flip(&mut wrong, &mut self.prng);
                self.platter.inode_mut(inode)?.put(sector, &wrong);
                self.wound(inode, sector, right, None);
            }
            _ => {
                let file = self.platter.inode_mut(inode)?;
                let range = file.range(sector);
                let mut old = vec![0; range.len()];
                let there = file.held.len().saturating_sub(range.start).min(range.len());
                old[..there].copy_from_slice(&file.held[range.start..range.start + there]);
                file.put(sector, &old);
                let sync = log.then_some(self.log_syncs);
                self.wound(inode, sector, right.clone(), sync);
                if lie == DiskFault::MisdirectWrite
                    && let Some((other, place)) = self.elsewhere(inode, sector)
                {
                    let file = self.platter.inode_mut(other)?;
                    let before = file.sector(place).to_vec();
                    file.put(place, &right);
                    self.wound(other, place, before, None);
                }
            }
        }
        self.done.push(lie);
        Ok(())
    }

    /// Whether nothing of the log is seen by the process alone: neither bytes nor a name.
    pub(super) fn log_is_durable(&self) -> bool {
        let mut log = self.platter.files().filter(|(name, _)| name.starts_with("log-"));
        log.all(|(_, inode)| {
            let synced = self.platter.inode(inode).is_ok_and(|file| file.dirty.is_empty());
            synced && self.platter.is_named(inode)
        })
    }

    /// Flips a bit.
    pub(super) fn rot(&mut self, place: Place) {
        let chosen = |name: &str| match place {
            Place::Log | Place::LogEnd => name.starts_with("log-"),
            Place::Checkpoint => name.starts_with("checkpoint-") && !name.ends_with(".new"),
            Place::Life => name == "life-a",
            Place::BothLives => name.starts_with("life-"),
        };
        let files = self.platter.files().filter(|(name, _)| chosen(name));
        let mut files: Vec<u64> = files.map(|(_, inode)| inode).collect();
        // What was written last is what a replica can least do without.
        let last = place == Place::LogEnd || (place == Place::Log && self.prng.below(2) == 0);
        match place {
            Place::Log | Place::LogEnd if last => files = files.pop().into_iter().collect(),
            Place::Checkpoint => files = files.pop().into_iter().collect(),
            Place::Log if !files.is_empty() => {
                files = vec![files[self.prng.below(files.len() as u64) as usize]];
            }
            Place::Log | Place::LogEnd | Place::Life | Place::BothLives => {}
        }
        for inode in files {
            let Ok(file) = self.platter.inode(inode) else { continue };
            let told = |sector: &usize| {
                let blank = file.sector(*sector).iter().all(|byte| *byte == 0);
                !blank && !file.dirty.contains(sector)
            };
            let sectors: Vec<usize> = (0..file.sectors()).filter(told).collect();
            if sectors.is_empty() {
                continue;
            }
            let any = self.prng.below(sectors.len() as u64) as usize;
            let sector = sectors[if last { sectors.len() - 1 } else { any }];
            let right = file.sector(sector).to_vec();
            let mut wrong = right.clone();
            flip(&mut wrong, &mut self.prng);
            if let Ok(file) = self.platter.inode_mut(inode) {
                file.put(sector, &wrong);
            }
            self.wound(inode, sector, right, None);
            self.done.push(DiskFault::Rot(place));
        }
    }

    /// A read gets a sector that belongs elsewhere, if one was to.
    pub(super) fn misread(&mut self, into: &mut [u8]) {
        if into.len() < SECTOR || !self.armed.contains(&DiskFault::MisdirectRead) {
            return;
        }
        let told = into.chunks(SECTOR).zip(0..).filter(|(s, _)| s.iter().any(|byte| *byte != 0));
        let told: Vec<usize> = told.map(|(_, at)| at).collect();
        let Some((inode, sector)) = self.elsewhere(u64::MAX, 0) else { return };
        let Ok(file) = self.platter.inode(inode) else { return };
        let other = file.sector(sector).to_vec();
        if told.is_empty() {
            return;
        }
        let at = told[self.prng.below(told.len() as u64) as usize] * SECTOR;
        let end = (at + other.len()).min(into.len());
        into[at..end].copy_from_slice(&other[..end - at]);
        let done = self.take(|fault| *fault == DiskFault::MisdirectRead);
        self.done.extend(done);
    }

    /// Another sector that tells something.
    fn elsewhere(&mut self, inode: u64, sector: usize) -> Option<(u64, usize)> {
        let files = self.platter.files().map(|(_, inode)| inode);
        let mut all = Vec::new();
        for of in files {
            let Ok(file) = self.platter.inode(of) else { continue };
            let told = (0..file.sectors()).filter(|at| {
                let clean = !file.dirty.contains(at) && (of, *at) != (inode, sector);
                clean && file.sector(*at).iter().any(|byte| *byte != 0)
            });
            all.extend(told.map(|at| (of, at)));
        }
        let chosen = self.prng.below(all.len() as u64) as usize;
        all.get(chosen).copied()
    }

    fn wound(&mut self, inode: u64, sector: usize, right: Vec<u8>, sync: Option<u64>) {
        let first = self.wounds.iter_mut().find(|w| (w.inode, w.sector) == (inode, sector));
        match first {
            // What ought to be there is what ought to have been there before.
            Some(first) => first.sync = None,
            None => self.wounds.push(Wound { inode, sector, right, sync }),
        }
    }

    /// What is wrong now with the files that are there, by name.
    pub(super) fn harms(&self) -> Vec<(String, Harm)> {
        let mut harms = Vec::new();
        // A segment whose name was lost says nothing of what was written before it.
        let named = |inode| self.platter.name_of(inode).is_some_and(|n| n.starts_with("log-"));
        let last = self.synced.iter().filter(|(inode, _)| named(**inode)).map(|(_, at)| *at).max();
        for wound in &self.wounds {
            let Some(name) = self.platter.name_of(wound.inode) else { continue };
            let Ok(file) = self.platter.inode(wound.inode) else { continue };
            if file.sector(wound.sector) == wound.right {
                continue;
            }
            let harm = match (name.starts_with("log-"), wound.sync) {
                (false, _) => Harm::Other,
                (true, Some(sync)) if last.is_none_or(|last| sync >= last) => Harm::Unseen,
                (true, _) => Harm::Votes,
            };
            harms.push((name.to_owned(), harm));
        }
        harms
    }
}

fn flip(bytes: &mut [u8], prng: &mut Prng) {
    let at = prng.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1 << prng.below(8);
}
