//! Snapshots: certified checkpoints in files that people keep, copy and begin new groups with.
//!
//! What it is: the check of a snapshot against its certificate, byte by byte, and what is done
//! with one that passed: copied, put into a replica's directory, loaded into a service. What it
//! is not: the file's format, which is that of checkpoint files (`store::checkpoint`).
//!
//! Invariants:
//! 1. a file that is written here was verified to its last object before it got its name;
//! 2. nothing is ever overwritten;
//! 3. a service's state comes from a snapshot only as a whole, and only if its root is the one
//!    that was asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base::transfer::Part;
use base::{Digest, ReplicaId};
use exec::{ObjectTree, Service, Sessions, session};
use genesis::{Group, InitOptions};
use proto::pbft::msg::Checkpoint;
use store::checkpoint::CheckpointHead;
use store::{CheckpointReader, CheckpointWriter, Item, Real, StoreError};

use crate::mark;
use crate::values::flagged;

/// How far a check is: bytes of objects done, and in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// What the names of checkpoint files in a replica's directory begin with.
const CHECKPOINT_PREFIX: &str = "checkpoint-";

/// Opens a snapshot. Nothing in it is believed yet.
///
/// # Errors
/// When it is none.
pub fn open(path: &Path) -> Result<CheckpointReader> {
    Ok(CheckpointReader::open(&Real, path)?)
}

/// Checks that a snapshot is of `group`, and that a quorum of its replicas signed its digest.
///
/// # Errors
/// When not so.
pub fn certified(head: &CheckpointHead, group: &Group) -> Result<()> {
    let (shown, config) = (head.path.display(), group.path().display());
    if head.group != group.id() {
        bail!(
            "{shown}: a snapshot of another group than {config}; name the configuration of the \
             group that it was saved from"
        );
    }
    let certificate = &head.certificate;
    let bytes =
        Checkpoint::signed_bytes(group.id(), group.epoch(), certificate.seq, certificate.digest);
    let genuine: BTreeSet<ReplicaId> = certificate
        .proof
        .iter()
        .filter(|(signer, signature)| group.directory().verify(*signer, &bytes, signature))
        .map(|(signer, _)| *signer)
        .collect();
    let needed = group.quorums().quorum();
    if genuine.len() < needed {
        bail!(
            "{shown}: only {} replicas of the group signed this state, and {needed} are needed: \
             it is not certified. Use another snapshot",
            genuine.len()
        );
    }
    Ok(())
}

/// Reads all of a snapshot and checks every object against the certificate's digest; copies them
/// to `copy`, if one is given. Returns what was certified.
///
/// # Errors
/// When anything is missing, damaged or other than certified, or cannot be read or written.
pub fn verified(
    mut reader: CheckpointReader,
    service: &dyn Service,
    mut copy: Option<CheckpointWriter>,
    progress: Progress<'_>,
) -> Result<CheckpointHead> {
    let head = reader.head().clone();
    let shown = head.path.display();
    let digest = head.manifest.digest(head.group);
    if digest != head.certificate.digest || head.manifest.seq != head.certificate.seq {
        bail!("{shown}: its head contradicts its certificate; use another snapshot");
    }
    let mut parts = [Leaves::new(service.objects()), Leaves::new(session::BUCKETS)];
    let mut done = 0;
    while let Some(item) = reader.next_item()? {
        let (part, number, bytes) = whole(&head.path, item)?;
        let digest = match part {
            Part::Service => service.digest_of(number, &bytes),
            Part::Sessions => Sessions::digest_of(number, &bytes),
        };
        let digest = digest.with_context(|| format!("{shown}: object {number} is none"))?;
        parts[usize::from(part == Part::Sessions)].put(&head.path, number, digest)?;
        if let Some(copy) = &mut copy {
            copy.object(part, number, &bytes)?;
        }
        done += bytes.len() as u64;
        progress(done, head.object_bytes);
    }
    for (part, root) in parts.into_iter().zip([head.manifest.service, head.manifest.sessions]) {
        if part.root(&head.path)? != root {
            bail!("{shown}: its objects are not what was certified; use another snapshot");
        }
    }
    if let Some(copy) = copy {
        copy.finish(&head.manifest, &head.certificate)?;
    }
    Ok(head)
}

/// The file to write a copy to.
///
/// # Errors
/// When it exists, or cannot be created.
pub fn create(path: &Path, group: base::GroupId) -> Result<CheckpointWriter> {
    if path.symlink_metadata().is_ok() {
        bail!("{}: exists already; choose another name, or remove it", path.display());
    }
    Ok(CheckpointWriter::create(Arc::new(Real), path, group)?)
}

/// The checkpoint files in a replica's directory whose heads can be read, newest first.
///
/// # Errors
/// When the directory cannot be read.
pub fn checkpoints(dir: &Path) -> Result<Vec<PathBuf>> {
    let listed = std::fs::read_dir(dir);
    let listed = listed.with_context(|| format!("{}: cannot read it", dir.display()))?;
    let mut found = Vec::new();
    for entry in listed {
        let path = entry.with_context(|| format!("{}: cannot read it", dir.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(CHECKPOINT_PREFIX)
            // An interrupted start may have left the second name of one that is whole.
            && path.extension().is_none_or(|extension| extension == "anew")
            && let Ok(reader) = open(&path)
        {
            found.push((reader.head().manifest.seq, path));
        }
    }
    found.sort();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

/// Founds a group in `dir` that begins with the service's state in the snapshot `file`, of which
/// it gets a copy.
///
/// # Errors
/// When the snapshot is not what its own certificate says, is of another service, or the group
/// cannot be founded. Whether the certificate is genuine is not checked: that takes the
/// configuration of the group that it was saved from.
pub fn found_from(
    dir: &Path,
    mut options: InitOptions,
    file: &Path,
    progress: Progress<'_>,
) -> Result<Group> {
    let known = svc::by_name(&options.service);
    let service = known.with_context(|| format!("there is no service {}", options.service))?;
    let head = verified(open(file)?, &*service, None, progress).map_err(|error| {
        // What is damaged is damaged, whatever the service.
        if error.is::<StoreError>() || error.is::<Damage>() {
            return error;
        }
        let service = &options.service;
        error.context(format!("is it the snapshot of a group whose service is {service}?"))
    })?;
    options.initial_state = Some(head.manifest.service);
    let group = genesis::init(dir, &options).map_err(flagged)?;
    let target = mark::initial_snapshot(&group);
    let parent = target.parent().unwrap_or(dir);
    std::fs::create_dir_all(parent)
        .with_context(|| format!("{}: cannot create the directory", parent.display()))?;
    let copy = create(&target, head.group)?;
    verified(open(file)?, &*service, Some(copy), progress)?;
    Ok(group)
}

/// Brings `service` into the state that the group begins with, whose root is `root`.
///
/// # Errors
/// When the group's copy of the snapshot is missing, or not the one that it was founded from.
pub fn load_initial(group: &Group, root: Digest, service: &mut dyn Service) -> Result<()> {
    let path = mark::initial_snapshot(group);
    let remedy = || {
        format!(
            "{}: the group begins with this snapshot, and every replica needs its copy of it: \
             copy the file of this name from another replica, or from where the group was founded",
            path.display()
        )
    };
    let mut reader = open(&path).with_context(remedy)?;
    while let Some(item) = reader.next_item()? {
        let (part, number, bytes) = whole(&path, item).with_context(remedy)?;
        if part == Part::Service {
            if number >= service.objects() {
                bail!("{}: object {number} is not this service's", remedy());
            }
            service.put(number, &bytes).with_context(remedy)?;
        }
    }
    let found = ObjectTree::new(service.objects()).refresh(|object| service.digest(object));
    if found != root {
        bail!("{} (this one holds another state)", remedy());
    }
    Ok(())
}

/// An intact object, or what is wrong.
fn whole(path: &Path, item: Item) -> Result<(Part, u32, Vec<u8>), Damage> {
    let what = match item {
        Item::Object { part, number, bytes } => return Ok((part, number, bytes)),
        Item::Corrupt { number, .. } => format!("object {number} is damaged"),
        Item::Lost { offset, bytes } => format!("{bytes} bytes from {offset} on are damaged"),
    };
    Err(Damage(format!("{}: {what}; use another copy, or another snapshot", path.display())))
}

/// Bytes of a file that are not as they were written, and the file's name.
#[derive(Debug)]
struct Damage(String);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damage {}

/// The digests of one part's objects, as they come.
struct Leaves {
    digests: Vec<Option<Digest>>,
}

impl Leaves {
    fn new(objects: u32) -> Leaves {
        Leaves { digests: vec![None; objects as usize] }
    }

    fn put(&mut self, path: &Path, number: u32, digest: Digest) -> Result<()> {
        let shown = path.display();
        let Some(place) = self.digests.get_mut(number as usize) else {
            bail!("{shown}: object {number} is not one of this service's");
        };
        if place.replace(digest).is_some() {
            bail!("{shown}: object {number} is there twice");
        }
        Ok(())
    }

    fn root(self, path: &Path) -> Result<Digest> {
        if let Some(missing) = self.digests.iter().position(Option::is_none) {
            bail!("{}: object {missing} is missing", path.display());
        }
        let objects = u32::try_from(self.digests.len()).expect("as many as were counted");
        let digest = |object: u32| self.digests[object as usize].unwrap_or(Digest::ZERO);
        Ok(ObjectTree::new(objects).refresh(digest))
    }
}
