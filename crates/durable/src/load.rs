//! The state that a life begins with: which of the checkpoints on disk, and what becomes of one
//! that is damaged.
//!
//! The newest one that is certified and whole is it. When its objects do not verify, the log may
//! lead to the same state from the one before, which is kept for that, or from the beginning as
//! long as the log was never cut; the damaged file goes then. Otherwise the stage stands still
//! with what could be read until it has fetched the rest from the others.
//!
//! Not here: whether the replica may vote (`boot`, `remains`), and the files (`store`).

use base::{Digest, FromStage, Seq, StableCheckpoint};
use exec::{Damaged, Service, Stage, StageBuilder};
use store::checkpoint::CheckpointHead;
use store::{Dir, Found, Item, StoreError};

use crate::boot::{BootError, Terms};
use crate::remains::Remains;

/// What the checkpoints on disk came to.
pub(crate) struct Loaded {
    pub(crate) stage: Stage,
    /// The checkpoint that the stage begins with, or a state that only a weak quorum has signed.
    pub(crate) stable: StableCheckpoint,
    /// The stage is not what it should be.
    pub(crate) damage: Option<FromStage>,
    /// The file: up to where the log may be cut once there is another one, and its bytes.
    pub(crate) saved: Option<(Seq, u64)>,
}

/// The objects of a service in the state that groups begin with.
struct Pristine(Vec<Vec<u8>>);

impl Loaded {
    /// The state that follows from what was found. The log is in `remains`, for who goes on with
    /// it; without a checkpoint `begin` makes the stage.
    ///
    /// # Errors
    /// When the storage fails, or `begin` says so.
    pub(crate) fn best<E: From<BootError>>(
        terms: &Terms<'_>,
        dir: &Dir,
        (found, remains): (&Found, Option<&Remains>),
        mut service: Box<dyn Service>,
        begin: impl FnOnce(Box<dyn Service>) -> Result<Stage, E>,
    ) -> Result<Loaded, E> {
        let mut heads = credible(terms, found);
        let weak = |head: &CheckpointHead| terms.is_weak(&head.certificate);
        while let Some(newest) = heads.first().copied().filter(|head| weak(head)) {
            // What a weak quorum has signed nobody else need have: damaged, it is of no use.
            let pristine = Pristine::of(&*service);
            match load(terms, dir, newest, service).map_err(BootError::from)? {
                Ok(loaded) => return Ok(Loaded { saved: loaded.cuts(found.cut()), ..loaded }),
                Err(damaged) => service = pristine.put_back(damaged.into_service()),
            }
            discard(dir, heads[..1].iter())?;
            heads.remove(0);
        }
        let Some((newest, older)) = heads.split_first() else {
            return Ok(Loaded::nothing(begin(service)?));
        };
        let leads_on =
            |from: &StableCheckpoint| remains.is_some_and(|remains| remains.doubt(from).is_none());
        let older = older.iter().filter(|head| leads_on(&head.certificate));
        let pristine = leads_on(&StableCheckpoint::default()).then(|| Pristine::of(&*service));
        let mut damaged = match load(terms, dir, newest, service).map_err(BootError::from)? {
            Ok(loaded) => return Ok(loaded),
            Err(damaged) => damaged,
        };
        let mut last = newest;
        for head in older {
            last = head;
            let service = damaged.into_service();
            match load(terms, dir, head, service).map_err(BootError::from)? {
                Ok(loaded) => {
                    let newer = heads.iter().take_while(|newer| newer.path != head.path);
                    discard(dir, newer)?;
                    let saved = if weak(head) { loaded.cuts(found.cut()) } else { loaded.saved };
                    return Ok(Loaded { saved, ..loaded });
                }
                Err(again) => damaged = again,
            }
        }
        if let Some(pristine) = pristine {
            let stage = begin(pristine.put_back(damaged.into_service()))?;
            discard(dir, heads.iter())?;
            return Ok(Loaded::nothing(stage));
        }
        if last.path != newest.path {
            let service = damaged.into_service();
            match load(terms, dir, newest, service).map_err(BootError::from)? {
                Ok(loaded) => return Ok(loaded),
                Err(again) => damaged = again,
            }
        }
        Ok(Loaded::in_part(newest, *damaged))
    }

    /// What stands for the file where its state moves no mark: the log is not cut any further.
    fn cuts(&self, cut: Seq) -> Option<(Seq, u64)> {
        self.saved.map(|(_, bytes)| (cut, bytes))
    }

    fn nothing(stage: Stage) -> Loaded {
        Loaded { stage, stable: StableCheckpoint::default(), damage: None, saved: None }
    }

    /// What does not verify is to be fetched.
    fn in_part(head: &CheckpointHead, damaged: Damaged) -> Loaded {
        let stable = head.certificate.clone();
        let (certified, ours) = (stable.clone(), Digest::default());
        let damage = Some(FromStage::Diverged { certified, ours });
        let saved = Some((stable.seq, head.file_bytes));
        Loaded { stage: damaged.stage, stable, damage, saved }
    }
}

impl Pristine {
    fn of(service: &dyn Service) -> Pristine {
        let object = |number| {
            let mut bytes = Vec::new();
            service.get(number, &mut bytes);
            bytes
        };
        Pristine((0..service.objects()).map(object).collect())
    }

    fn put_back(self, mut service: Box<dyn Service>) -> Box<dyn Service> {
        for (number, bytes) in (0..).zip(&self.0) {
            let put = service.put(number, bytes);
            put.expect("a service takes what it has given");
        }
        service
    }
}

/// The checkpoints whose certificates are right, the newest first, and states that a weak quorum
/// has signed. Others are shown certificates, and believe them whole or not at all.
fn credible<'a>(terms: &Terms<'_>, found: &'a Found) -> Vec<&'a CheckpointHead> {
    let right = |head: &&CheckpointHead| {
        let (rules, certificate) = (&terms.rules, &head.certificate);
        let signed =
            rules.certified(terms.keys, certificate) || rules.vouched(terms.keys, certificate);
        let right = head.manifest.digest(terms.stage.group) == certificate.digest && signed;
        if !right {
            let path = head.path.display();
            tracing::warn!(%path, "a checkpoint is not certified by this group");
        }
        right
    };
    found.checkpoints.iter().filter(right).collect()
}

/// The stage from a checkpoint, or what could be read of it.
fn load(
    terms: &Terms<'_>,
    dir: &Dir,
    head: &CheckpointHead,
    service: Box<dyn Service>,
) -> Result<Result<Loaded, Box<Damaged>>, StoreError> {
    let mut reader = dir.checkpoints().read(head)?;
    let mut builder = StageBuilder::new(terms.stage, service, head.manifest);
    while let Some(item) = reader.next_item()? {
        if let Item::Object { part, number, bytes } = item {
            // What is no object of the service is fetched like one that is damaged.
            let _ = builder.put(part, number, &bytes);
        }
    }
    let summary = reader.summary();
    let stable = head.certificate.clone();
    let saved = Some((stable.seq, head.file_bytes));
    Ok(match builder.finish(&stable) {
        Ok(stage) => Ok(Loaded { stage, stable, damage: None, saved }),
        Err(damaged) => {
            let path = head.path.display();
            tracing::warn!(
                %path, corrupt = summary.corrupt, missing = summary.missing,
                "the checkpoint on disk is damaged: the log leads there from the one before, or \
                 what does not verify is fetched"
            );
            Err(damaged)
        }
    })
}

/// Removes files that are damaged, so that no good one has to go for them.
fn discard<'a>(
    dir: &Dir,
    heads: impl Iterator<Item = &'a &'a CheckpointHead>,
) -> Result<(), BootError> {
    let checkpoints = dir.checkpoints();
    for head in heads {
        let path = head.path.display();
        tracing::warn!(%path, "goes on from before the damaged checkpoint, which is removed");
        checkpoints.discard(head)?;
    }
    Ok(())
}
