//! `stylite snapshot`: saves, verifies and restores the state of a group.

use std::io::{IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::ReplicaId;
use exec::Service;
use genesis::Group;
use indicatif::{ProgressBar, ProgressStyle};
use store::checkpoint::CheckpointHead;
use store::{Dir, Identity, LifeFound, Real};

use super::{load, print};
use crate::cli::{RestoreArgs, SaveArgs, VerifyArgs};
use crate::exit::Exit;
use crate::values::bytes;
use crate::{mark, snapshot, start};

/// How long a replica may take to write a checkpoint.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of a replica's answer, at most.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Runs `stylite snapshot save`.
///
/// # Errors
/// When there is no certified checkpoint, it does not verify, or the file cannot be written.
pub fn save(args: &SaveArgs) -> Result<Exit> {
    let group = load_whole(&args.config)?;
    let source = match args.running {
        Some(address) => written_by(address)?,
        None => newest(&group, args)?,
    };
    let service = start::service(&group)?;
    let reader = snapshot::open(&source)?;
    snapshot::certified(reader.head(), &group)?;
    let copy = snapshot::create(&args.out, group.id())?;
    let worn = !reader.ends_intact();
    let mut bar = Bar::new("saving");
    let head = snapshot::verified(reader, &*service, Some(copy), &mut |done, all| {
        bar.at(done, all);
    })?;
    drop(bar);
    if worn {
        tracing::warn!("{}: {WORN}; what was saved has both again", source.display());
    }
    print(&format!("{}: {}\n", args.out.display(), told(&head)))?;
    Ok(Exit::Ok)
}

/// What is said of a file whose two heads are not both there, and that is whole otherwise.
const WORN: &str = "one of the two copies of its head is damaged, or its length is wrong";

/// Runs `stylite snapshot verify`.
///
/// # Errors
/// When the snapshot is not what it should be, down to a spare copy of its head.
pub fn verify(args: &VerifyArgs) -> Result<Exit> {
    let group = load_whole(&args.config)?;
    let service = start::service(&group)?;
    let head = check(&args.file, &group, &*service)?;
    print(&format!("{} is as it should be: {}\n", args.file.display(), told(&head)))?;
    Ok(Exit::Ok)
}

/// Runs `stylite snapshot restore`.
///
/// # Errors
/// When the snapshot is not what it should be, the replica runs or has a state already, or
/// something cannot be written.
pub fn restore(args: &RestoreArgs) -> Result<Exit> {
    let group = load_whole(&args.config)?;
    let id = replica(&group, args.replica)?;
    let dir = args.state_dir.clone().unwrap_or_else(|| mark::replica_dir(&group, id));
    let service = start::service(&group)?;
    let reader = snapshot::open(&args.file)?;
    snapshot::certified(reader.head(), &group)?;
    let identity = Identity { group: group.id(), replica: id };
    let opened = Dir::open(&dir, identity, Arc::new(Real))?;
    let found = &opened.found;
    let empty =
        found.life == LifeFound::None && !found.log.exists() && found.checkpoints.is_empty();
    if !empty {
        bail!(
            "{}: replica {id} has a state here, and what it promised would be lost: start it as \
             it is. If it is beyond repair, move the directory away and restore again",
            dir.display()
        );
    }
    // From now on this is no first start, whatever happens: the state comes from before.
    mark::take(&group, id)?;
    let checkpoints = opened.dir.checkpoints();
    let copy = checkpoints.write(reader.head().manifest.seq)?;
    let mut bar = Bar::new("restoring");
    let head = snapshot::verified(reader, &*service, Some(copy), &mut |done, all| {
        bar.at(done, all);
    })?;
    drop(bar);
    print(&format!(
        "{}: {}\nNext: stylite replica --config {} --id {id}\nIt has forgotten what it voted for, \
         so it recovers with the help of the others before it votes again.\n",
        dir.display(),
        told(&head),
        group.dir().display(),
    ))?;
    Ok(Exit::Ok)
}

/// Reads the configuration of a group that snapshots are made of.
fn load_whole(path: &Path) -> Result<Group> {
    let group = load(path)?;
    if group.partitions() > 1 {
        bail!(
            "{}: partitions = {}: snapshots of a group of several partitions are not supported \
             yet. Its replicas recover from each other (`stylite replica --recover`)",
            group.path().display(),
            group.partitions(),
        );
    }
    Ok(group)
}

/// Checks a snapshot entirely.
fn check(file: &Path, group: &Group, service: &dyn Service) -> Result<CheckpointHead> {
    let reader = snapshot::open(file)?;
    snapshot::certified(reader.head(), group)?;
    let worn = !reader.ends_intact();
    let mut bar = Bar::new("verifying");
    let head = snapshot::verified(reader, service, None, &mut |done, all| bar.at(done, all))?;
    if worn {
        bail!(
            "{}: {WORN}. Everything else is as it was certified, and it can be used: {}. Replace \
             it by another copy while there is one",
            file.display(),
            told(&head),
        );
    }
    Ok(head)
}

fn told(head: &CheckpointHead) -> String {
    let digest: String =
        head.certificate.digest.0[..6].iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "the state after {}, digest {digest}, certified by {} replicas, {} in {} objects",
        head.manifest.seq,
        head.certificate.proof.len(),
        bytes(head.object_bytes),
        head.service_objects + head.session_objects,
    )
}

/// The newest checkpoint on the disk of the replica that was asked for, or of any that is here.
fn newest(group: &Group, args: &SaveArgs) -> Result<PathBuf> {
    let dirs: Vec<PathBuf> = match args.replica {
        Some(id) => {
            let id = replica(group, id)?;
            vec![args.state_dir.clone().unwrap_or_else(|| mark::replica_dir(group, id))]
        }
        None => {
            let all = group.quorums().replicas().map(|id| mark::replica_dir(group, id));
            all.filter(|dir| dir.exists()).collect()
        }
    };
    let mut best = None;
    for dir in &dirs {
        for path in snapshot::checkpoints(dir)? {
            let head = snapshot::open(&path)?.head().clone();
            // A forged number must not hide the checkpoints that are real.
            if snapshot::certified(&head, group).is_ok() {
                best = best.max(Some((head.manifest.seq, path)));
            }
        }
    }
    let Some((_, path)) = best else {
        bail!(
            "no certified checkpoint on disk in {}. A replica writes one when its log has grown \
             enough; have a running one write it now: --running ADDR with its metrics address, \
             such as {}",
            if dirs.is_empty() {
                mark::state_dir(group).display().to_string()
            } else {
                let shown: Vec<String> = dirs.iter().map(|d| d.display().to_string()).collect();
                shown.join(", ")
            },
            start::metrics_default(group, ReplicaId(0)),
        )
    };
    Ok(path)
}

/// Has a running replica write a checkpoint; its file.
fn written_by(address: SocketAddr) -> Result<PathBuf> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(CHECKPOINT_TIMEOUT))?;
        let request = format!("POST /checkpoint HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = ask().with_context(|| {
        format!(
            "{address}: no replica answers there; name its metrics address, as its log shows it"
        )
    })?;
    path_in(&answer).with_context(|| {
        format!("{address}: no checkpoint to save there; is it the metrics address of a replica?")
    })
}

/// The path in a replica's answer to `POST /checkpoint`.
fn path_in(answer: &str) -> Result<PathBuf> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    if !head.starts_with("HTTP/1.1 200 ") {
        let told = body.trim();
        bail!(
            "{}",
            if told.is_empty() { head.lines().next().unwrap_or("no answer") } else { told }
        );
    }
    let answer: serde_json::Value = serde_json::from_str(body).context("its answer is no JSON")?;
    let path = answer["path"].as_str().context("its answer names no file")?;
    Ok(PathBuf::from(path))
}

fn replica(group: &Group, id: u16) -> Result<ReplicaId> {
    if id >= group.quorums().n() {
        let (shown, n) = (group.path().display(), group.quorums().n());
        bail!("{shown}: no replica {id}; the group has {n}, numbered from 0");
    }
    Ok(ReplicaId(id))
}

/// How far it is, on a terminal.
pub struct Bar {
    what: &'static str,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// A bar that shows itself with the first bytes.
    #[must_use]
    pub fn new(what: &'static str) -> Bar {
        Bar { what, bar: None }
    }

    /// So much is done.
    pub fn at(&mut self, done: u64, all: u64) {
        if self.bar.is_none() && std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(all);
            let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}");
            bar.set_style(style.expect("the template is well-formed"));
            bar.set_message(self.what);
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_replica_names_a_file_or_says_why_not() {
        let good = "HTTP/1.1 200 OK\r\nx: y\r\n\r\n{\"path\": \"/a/b\", \"seq\": 3}\n";
        assert_eq!(path_in(good).expect("a path"), PathBuf::from("/a/b"));
        let bad = "HTTP/1.1 503 Service Unavailable\r\n\r\nno checkpoint: none yet\n";
        assert_eq!(path_in(bad).expect_err("none").to_string(), "no checkpoint: none yet");
        for broken in ["", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{}", "SSH-2.0"] {
            assert!(path_in(broken).is_err(), "{broken:?}");
        }
    }
}
